//! TLS as clients meet it: versions, key exchange, protocols, certificates.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock};

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, NamedGroup, ProtocolVersion, SupportedProtocolVersion};
use support::{Connection, PATIENCE, Server, trusting, trusting_by, trusting_with};

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

const HEALTH: &str = "GET /v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n";

fn connect(server: &Server, tls: Arc<ClientConfig>) -> std::io::Result<Connection> {
    server.door().connect_with(tls)
}

fn only(server: &Server, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    trusting_with(&server.text("tls/ca.crt"), &[b"http/1.1"], &[version])
}

#[test]
fn tls_1_3_with_the_post_quantum_exchange_is_preferred_and_1_2_taken() {
    let server = &*SERVER;
    let mut best = server.raw();
    assert_eq!(best.session().protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(best.session().negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(best.say(HEALTH).answer().status, 200);

    let mut older = connect(server, only(server, &TLS12)).unwrap();
    assert_eq!(older.session().protocol_version(), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(older.say(HEALTH).answer().status, 200);

    // A client that knows none of the new groups is served, too.
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
    let tls = trusting_by(provider, &server.text("tls/ca.crt"), &[b"http/1.1"], &[&TLS13]);
    let mut classical = connect(server, tls).unwrap();
    assert_eq!(classical.session().negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519);
    assert_eq!(classical.say(HEALTH).answer().status, 200);
}

#[test]
fn a_floor_of_1_3_refuses_1_2() {
    let server = Server::with(|c| c.set("server", "min_tls", "\"1.3\""));
    let mut good = connect(&server, only(&server, &TLS13)).unwrap();
    assert_eq!(good.say(HEALTH).answer().status, 200);
    let refused = connect(&server, only(&server, &TLS12)).err().expect("TLS 1.2 is refused");
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
}

/// A ClientHello as an old client writes it (RFC 5246, 7.4.1.2), with everything that TLS 1.2 would need.
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    fn with_length<const N: usize>(content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&length[4 - N..], content].concat()
    }
    let extension = |kind: u8, content: &[u8]| [&[0, kind], &*with_length::<2>(content)].concat();
    let extensions = [
        extension(0, &with_length::<2>(&[&[0], &*with_length::<2>(b"localhost")].concat())),
        extension(10, &with_length::<2>(&[0x00, 0x1d, 0x00, 0x17])),
        extension(11, &with_length::<1>(&[0])),
        extension(13, &with_length::<2>(&[0x04, 0x03, 0x08, 0x04])),
        extension(23, &[]),
    ]
    .concat();
    // ECDHE-ECDSA with AES-GCM, which 1.2 has, and with AES-CBC, which 1.1 has.
    let suites = [0xc0, 0x2b, 0xc0, 0x2c, 0xc0, 0x09, 0xc0, 0x0a, 0x00, 0x2f];
    let body =
        [&version[..], &[7; 32], &[0], &with_length::<2>(&suites), &[1, 0], &with_length::<2>(&extensions)].concat();
    let message = [&[1], &*with_length::<3>(&body)].concat();
    [&[22, 3, 1], &*with_length::<2>(&message)].concat()
}

/// What the server says to such a ClientHello: the type of its first record, and that record.
fn first_record(server: &Server, hello: &[u8]) -> (u8, Vec<u8>) {
    let mut socket = TcpStream::connect(server.door().address().unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(hello).unwrap();
    let mut head = [0; 5];
    socket.read_exact(&mut head).unwrap();
    let mut record = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    socket.read_exact(&mut record).unwrap();
    (head[0], record)
}

#[test]
fn tls_1_1_is_refused() {
    const HANDSHAKE: u8 = 22;
    const ALERT: u8 = 21;
    let server = &*SERVER;
    // The very same, but for the version, is answered with a ServerHello.
    let (kind, record) = first_record(server, &client_hello([3, 3]));
    assert_eq!((kind, record[0]), (HANDSHAKE, 2), "{record:?}");
    for old in [[3, 2], [3, 1], [3, 0]] {
        let (kind, record) = first_record(server, &client_hello(old));
        assert_eq!((kind, record.as_slice()), (ALERT, [2, 70].as_slice()), "fatal, protocol_version");
    }
}

#[test]
fn the_protocol_is_the_one_that_both_know() {
    let server = &*SERVER;
    let ca = server.text("tls/ca.crt");
    let agreed = |alpn: &[&[u8]]| {
        let connection = connect(server, trusting(&ca, alpn))?;
        Ok::<_, std::io::Error>(connection.session().alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(agreed(&[b"http/1.1", b"h2"]).unwrap().unwrap(), b"h2");
    assert_eq!(agreed(&[b"h2"]).unwrap().unwrap(), b"h2");
    assert_eq!(agreed(&[b"http/1.1"]).unwrap().unwrap(), b"http/1.1");
    assert!(agreed(&[b"smtp"]).is_err());
    // Who negotiates nothing speaks HTTP/1.1.
    let mut plain = connect(server, trusting(&ca, &[])).unwrap();
    assert_eq!(plain.session().alpn_protocol(), None);
    assert_eq!(plain.say(HEALTH).answer().status, 200);
}

#[test]
fn only_the_instance_s_own_ca_vouches_for_it() {
    let (one, other) = (&*SERVER, Server::start());
    connect(one, trusting(&one.text("tls/ca.crt"), &[b"http/1.1"])).unwrap();
    let stranger = connect(one, trusting(&other.text("tls/ca.crt"), &[b"http/1.1"])).err().expect("no trust");
    assert!(stranger.to_string().contains("UnknownIssuer"), "{stranger}");
}

#[test]
fn what_is_not_tls_is_hung_up_on_and_harms_nobody() {
    let server = &*SERVER;
    for noise in [HEALTH.as_bytes(), b"\0", b"\x16\x03\x01\xff\xff", &[0xff; 20_000], b""] {
        let mut socket = TcpStream::connect(server.door().address().unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = socket.write_all(noise);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "nothing is answered in the clear");
    }
    server.client().get("/v1/health").ok(200);
}
