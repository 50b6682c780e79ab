//! How the gRPC door opens and closes, beside REST's: its port, its TLS, its certificate, and its end.

mod support;

use std::net::TcpListener;
use std::sync::mpsc;

use mcias::cli::pki;
use mcias::model::time::Timestamp;
use mcias::wire::proto::v1;
use rustix::process::Signal;
use rustls::ProtocolVersion;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use support::{Connection, Grpc, Instance, PATIENCE, Server, eventually, now, trusting, trusting_with};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

fn is_well(grpc: &Grpc) {
    grpc.call("AdminService/Health").message(&v1::HealthRequest {}).ok::<v1::HealthResponse>();
}

#[test]
fn without_an_address_there_is_no_door() {
    let server = Server::with(|c| c.unset("server", "grpc_addr"));
    server.client().get("/v1/ready").ok(200);
    assert!(!server.log().text().contains("grpc"), "{}", server.log().text());
}

#[test]
fn a_port_that_somebody_has_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut instance = Instance::new();
    instance.set("server", "grpc_addr", &format!("{address:?}"));
    instance.refuses().says(1, &["cannot listen on [server] grpc_addr", &address, "in use"]);
    assert!(instance.events().iter().all(|event| event.kind != "server_started"), "REST wasn't opened either");
}

#[test]
fn the_protocol_is_http_2_and_no_other() {
    let server = Server::start();
    let ca = server.text("tls/ca.crt");
    is_well(&server.grpc());
    // A client that negotiates nothing means the same.
    is_well(&server.try_grpc(trusting(&ca, &[])).unwrap());
    is_well(&server.try_grpc(trusting(&ca, &[b"http/1.1", b"h2"])).unwrap());
    let refused = Connection::open(server.grpc_address(), trusting(&ca, &[b"http/1.1"])).err().expect("no HTTP/1.1");
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    // Nor by guessing.
    let mut guessing = Connection::open(server.grpc_address(), trusting(&ca, &[])).unwrap();
    guessing.say("GET /v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n");
    while let Some(bytes) = Some(guessing.receive_bytes()).filter(|bytes| !bytes.is_empty()) {
        assert!(!bytes.starts_with(b"HTTP/"), "{bytes:?}");
    }
    is_well(&server.grpc());
}

#[test]
fn the_floor_of_tls_is_rest_s() {
    let open = |server: &Server, version| {
        let tls = trusting_with(&server.text("tls/ca.crt"), &[b"h2"], &[version]);
        Connection::open(server.grpc_address(), tls)
    };
    let server = Server::start();
    let old = open(&server, &TLS12).unwrap();
    assert_eq!(old.session().protocol_version(), Some(ProtocolVersion::TLSv1_2));
    let server = Server::with(|c| c.set("server", "min_tls", "\"1.3\""));
    assert_eq!(open(&server, &TLS13).unwrap().session().protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let refused = open(&server, &TLS12).err().expect("TLS 1.2 is refused");
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
}

#[test]
fn a_new_certificate_is_taken_at_both_doors() {
    let server = Server::start();
    let shown = || {
        // With a TLS of its own: a session that is resumed shows none.
        [(server.door().address().unwrap(), b"http/1.1".as_slice()), (server.grpc_address(), b"h2")].map(
            |(at, alpn)| {
                let connection = Connection::open(at, trusting(&server.text("tls/ca.crt"), &[alpn])).unwrap();
                connection.session().peer_certificates().unwrap()[0].clone().into_owned()
            },
        )
    };
    let pem = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
    let first = pem(&server.text("tls/server.crt"));
    assert_eq!(shown(), [first.clone(), first]);
    let before = server.grpc();
    let (ca, key) = (server.text("tls/ca.crt"), server.text("tls/ca.key"));
    let pair = pki::issue_server(&ca, &key, &[], Timestamp::new(now())).unwrap();
    server.write("tls/server.crt", &pair.cert);
    server.write("tls/server.key", pair.key.as_bytes());
    let mark = server.log().mark();
    server.signal(Signal::HUP);
    server.log().wait_since(mark, &["INFO", "the certificate was read again"]);
    assert_eq!(shown(), [pem(&pair.cert), pem(&pair.cert)]);
    is_well(&before);
}

#[test]
fn both_doors_close_together_once_what_is_under_way_has_come_to_its_end() {
    let mut server = Server::with(|c| {
        for (section, key, value) in [
            ("argon2", "time", "24"),
            ("argon2", "slots", "1"),
            ("argon2", "queue", "1"),
            ("server", "drain", "\"1h\""),
        ] {
            c.set(section, key, value);
        }
    });
    let grpc = server.grpc();
    is_well(&grpc);
    let mut idle = server.raw();
    let watch = || grpc.call("/grpc.health.v1.Health/Watch").message(&HealthCheckRequest::default()).open().unwrap();
    let (mut watching, mut unread) = (watch(), watch());
    assert_eq!(watching.next::<HealthCheckResponse>().status(), ServingStatus::Serving);
    // Tools keep theirs open for as long as they run.
    let list = MessageRequest::ListServices(String::new());
    let list = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let reflection = grpc.call("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
    let mut reflection = reflection.message(&list).endless().open().unwrap();
    reflection.next::<ServerReflectionResponse>();

    let password = server.admin_password();
    let (told, answers) = mpsc::channel();
    let logged_in = std::thread::scope(|scope| {
        for _ in 0..3 {
            let (told, connection, password) = (told.clone(), server.grpc(), &password);
            scope.spawn(move || {
                let login =
                    v1::LoginRequest { username: "admin".into(), password: password.clone(), ..Default::default() };
                told.send(connection.call("AuthService/Login").message(&login).send()).unwrap();
            });
        }
        // One is sent away, which says that one of the others is being hashed and one waits.
        let first = answers.recv_timeout(PATIENCE).unwrap();
        assert_eq!(first.status(), Code::Unavailable, "{}", first.story());
        let mark = server.log().mark();
        server.signal(Signal::TERM);
        server.log().wait_since(mark, &["draining"]);
        assert_eq!(watching.next::<HealthCheckResponse>().status(), ServingStatus::NotServing);
        assert_eq!(watching.ends(), Code::Ok);
        assert_eq!(reflection.ends(), Code::Ok);
        assert!(idle.is_closed(), "who waits for nothing is sent home");
        eventually("nobody new is let in", || {
            let tls = || trusting(&server.text("tls/ca.crt"), &[b"h2"]);
            server.door().connect().is_err() && server.try_grpc(tls()).is_err()
        });
        let answers: Vec<_> = (0..2).map(|_| answers.recv_timeout(PATIENCE).unwrap()).collect();
        // The second may have waited for longer than anybody has to.
        assert!(answers.iter().all(|answer| matches!(answer.status(), Code::Ok | Code::Unavailable)));
        answers.iter().filter(|answer| answer.status() == Code::Ok).count()
    });
    assert!(logged_in > 0);
    server.ends_well();
    // Somebody who watched and didn't look hears of it all the same.
    assert_eq!(unread.next::<HealthCheckResponse>().status(), ServingStatus::Serving);
    assert_eq!(unread.next::<HealthCheckResponse>().status(), ServingStatus::NotServing);
    assert_eq!(unread.ends(), Code::Ok);
    let log = server.log().text();
    assert!(log.trim_end().ends_with("stopped") && !log.contains("still under way"), "{log}");
    for left in ["mcias.db-wal", "mcias.db-shm"] {
        assert!(!server.path(left).exists(), "{left}");
    }
    let events = server.is_sound();
    assert_eq!(events.iter().filter(|event| event.kind == "login_ok").count(), logged_in);
}
