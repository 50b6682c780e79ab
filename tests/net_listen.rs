//! The accept loop on real sockets: both protocols, every limit on a connection, and draining.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mcias::model::net::MinTls;
use mcias::net::connections::{Connections, Limits, TimeLimits};
use mcias::net::door::{ConnInfo, Protocol};
use mcias::net::listen::serve;
use mcias::net::tls::{self, Certificates};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Long enough for a slow machine, short enough to notice.
const PATIENCE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(400);

struct Server {
    address: SocketAddr,
    connections: Arc<Connections>,
    client: ClientConfig,
    /// Hears from `/forever` when its future is dropped.
    dropped: mpsc::UnboundedReceiver<()>,
}

/// Limits that no test meets but the one that lowers them.
fn wide() -> Limits {
    let day = Duration::from_secs(86_400);
    Limits {
        connections: 100,
        per_client: 100,
        uncapped: Vec::new(),
        time: TimeLimits { handshake: day, header: day, idle: day, answer: day, farewell: Duration::from_secs(2) },
    }
}

async fn start(limits: Limits) -> Server {
    start_speaking(limits, &[b"h2", b"http/1.1"], Protocol::Http1).await
}

async fn start_speaking(limits: Limits, alpn: &[&[u8]], without_alpn: Protocol) -> Server {
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let certified = tls::load(cert.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let config = tls::server_config(Certificates::new(certified), MinTls::V1_2, alpn).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();

    let (drops, dropped) = mpsc::unbounded_channel();
    let door = move |request: Request<Incoming>, info: ConnInfo| answer(request, info, drops.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Connections::new(limits);
    tokio::spawn(serve(listener, config, without_alpn, door, connections.clone()));
    Server { address, connections, client, dropped }
}

struct TellsWhenDropped(mpsc::UnboundedSender<()>);

impl Drop for TellsWhenDropped {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

async fn answer(request: Request<Incoming>, info: ConnInfo, drops: mpsc::UnboundedSender<()>) -> Response<Full<Bytes>> {
    let respond = |status, body: Bytes| {
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        response
    };
    match request.uri().path() {
        "/peer" => respond(StatusCode::OK, info.peer.ip().to_string().into()),
        "/slow" => {
            sleep(Duration::from_millis(900)).await;
            respond(StatusCode::OK, "slow".into())
        }
        "/forever" => {
            let _told = TellsWhenDropped(drops);
            std::future::pending().await
        }
        "/echo" => match request.into_body().collect().await {
            Ok(body) => respond(StatusCode::OK, body.to_bytes()),
            Err(_) => respond(StatusCode::BAD_REQUEST, Bytes::new()),
        },
        "/refuse" => respond(StatusCode::PAYLOAD_TOO_LARGE, "too much".into()),
        "/big" => respond(StatusCode::OK, vec![b'x'; 64 << 20].into()),
        "/panic" => panic!("on purpose"),
        _ => respond(StatusCode::OK, "hello".into()),
    }
}

type Http2 = http2::SendRequest<Empty<Bytes>>;

impl Server {
    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn secure(&self, tcp: TcpStream, alpn: &[&[u8]]) -> io::Result<TlsStream<TcpStream>> {
        let mut config = self.client.clone();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), tcp).await
    }

    async fn http1(&self) -> TlsStream<TcpStream> {
        self.secure(self.tcp().await, &[b"http/1.1"]).await.unwrap()
    }

    async fn http2(&self) -> Http2 {
        self.http2_with(|_| ()).await
    }

    async fn http2_with(&self, change: impl FnOnce(&mut http2::Builder<TokioExecutor>)) -> Http2 {
        let tls = self.secure(self.tcp().await, &[b"h2"]).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        over(tls, change).await
    }

    /// Waits until this many connections are left.
    async fn left(&self, count: usize) {
        let wait = async {
            while self.connections.count() != count {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{} are left", self.connections.count()));
    }
}

async fn over(tls: TlsStream<TcpStream>, change: impl FnOnce(&mut http2::Builder<TokioExecutor>)) -> Http2 {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    change(&mut builder);
    let (client, connection) = builder.handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    client
}

fn to(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://localhost{path}")).body(Empty::new()).unwrap()
}

async fn get2(client: &mut Http2, path: &str) -> hyper::Result<(StatusCode, String)> {
    client.ready().await?;
    let response = client.send_request(to(path)).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8(body.to_vec()).unwrap()))
}

/// Sends bytes and reads one answer with a `content-length`; empty where the connection ends first.
async fn ask(stream: &mut TlsStream<TcpStream>, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    read_answer(stream).await.unwrap()
}

async fn read_answer(stream: &mut TlsStream<TcpStream>) -> io::Result<String> {
    let mut answer = Vec::new();
    let read = async {
        loop {
            let text = String::from_utf8_lossy(&answer).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                if body.len() == length.parse::<usize>().unwrap() {
                    return Ok(text);
                }
            }
            match stream.read_buf(&mut answer).await? {
                0 => return Ok(text),
                _ => continue,
            }
        }
    };
    timeout(PATIENCE, read).await.unwrap()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Reads to the end and says how long that took. A reset is an end, too.
async fn ended(stream: &mut (impl AsyncReadExt + Unpin)) -> Duration {
    let began = Instant::now();
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the connection stays open");
    began.elapsed()
}

#[tokio::test]
async fn both_protocols_are_served_on_one_port() {
    let server = start(wide()).await;
    let mut one = server.http1().await;
    for _ in 0..3 {
        let answer = ask(&mut one, &get("/hello")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    }
    assert!(
        ask(&mut one, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody").await.ends_with("\r\nbody")
    );
    let mut two = server.http2().await;
    assert_eq!(get2(&mut two, "/peer").await.unwrap(), (StatusCode::OK, "127.0.0.1".to_owned()));
    let response = two.send_request(to("/hello")).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    drop((one, two, response));
    server.left(0).await;
}

#[tokio::test]
async fn without_alpn_it_is_the_listeners_own_protocol() {
    let rest = start(wide()).await;
    let mut plain = rest.secure(rest.tcp().await, &[]).await.unwrap();
    assert!(ask(&mut plain, &get("/hello")).await.ends_with("hello"));

    let grpc = start_speaking(wide(), &[b"h2"], Protocol::Http2).await;
    let mut client = over(grpc.secure(grpc.tcp().await, &[]).await.unwrap(), |_| ()).await;
    assert_eq!(get2(&mut client, "/hello").await.unwrap().1, "hello");
    assert!(grpc.secure(grpc.tcp().await, &[b"http/1.1"]).await.is_err(), "no protocol in common");
}

#[tokio::test]
async fn a_hand_shake_that_stalls_is_cut_off() {
    let mut limits = wide();
    limits.time.handshake = SHORT;
    let server = start(limits).await;
    let mut silent = server.tcp().await;
    let mut babbling = server.tcp().await;
    babbling.write_all(&[22, 3, 1, 1, 0]).await.unwrap();
    assert!(ended(&mut silent).await < PATIENCE);
    ended(&mut babbling).await;
    let mut wrong = server.tcp().await;
    wrong.write_all(get("/").as_bytes()).await.unwrap();
    ended(&mut wrong).await;
    server.left(0).await;
    assert!(ask(&mut server.http1().await, &get("/hello")).await.ends_with("hello"));
}

#[tokio::test]
async fn a_slow_header_is_cut_off_and_an_idle_connection_is_not() {
    let mut limits = wide();
    limits.time.header = SHORT;
    let server = start(limits).await;
    let mut idle = server.http1().await;
    assert!(ask(&mut idle, &get("/hello")).await.ends_with("hello"));

    let mut slow = server.http1().await;
    slow.write_all(b"GET /hel").await.unwrap();
    let began = Instant::now();
    // A byte now and then must not win time.
    while slow.write_all(b"x").await.is_ok() && slow.flush().await.is_ok() && began.elapsed() < PATIENCE {
        sleep(SHORT / 6).await;
    }
    assert!(began.elapsed() >= SHORT && began.elapsed() < PATIENCE, "{:?}", began.elapsed());

    sleep(SHORT).await;
    assert!(ask(&mut idle, &get("/hello")).await.ends_with("hello"), "between requests there is no such hurry");
    // The time for the header doesn't run while the handler works, nor while the body comes.
    idle.write_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbo").await.unwrap();
    sleep(SHORT * 2).await;
    assert!(ask(&mut idle, "dy").await.ends_with("\r\nbody"));
    idle.write_all(b"GET ").await.unwrap();
    assert!(ended(&mut idle).await < PATIENCE, "it does run for a later request");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let mut limits = wide();
    limits.time.idle = SHORT;
    let server = start(limits).await;
    let mut fresh = server.http1().await;
    let mut used = server.http1().await;
    let mut two = server.http2().await;
    assert!(ask(&mut used, &get("/slow")).await.ends_with("slow"), "longer than the limit, but not idle");
    assert!(ended(&mut used).await >= SHORT / 2);
    ended(&mut fresh).await;
    server.left(0).await;
    assert!(get2(&mut two, "/hello").await.is_err());
    let mut two = server.http2().await;
    assert_eq!(get2(&mut two, "/slow").await.unwrap().1, "slow");
    server.left(0).await;
}

#[tokio::test]
async fn a_header_that_is_too_large_is_431_and_others_are_served() {
    let server = start(wide()).await;
    let mut other = server.http1().await;
    let fits = format!("GET /hello HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(15_000));
    assert!(ask(&mut other, &fits).await.ends_with("hello"));
    for length in [17_000, 1_000_000] {
        let mut large = server.http1().await;
        let request = format!("GET /hello HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(length));
        let answer = ask(&mut large, &request).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{length}: {answer}");
    }
    let mut many = server.http1().await;
    let request = format!("GET /hello HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(200));
    assert!(ask(&mut many, &request).await.starts_with("HTTP/1.1 431 "));

    let mut two = server.http2().await;
    let large = Request::get("https://localhost/hello").header("x", "a".repeat(17_000)).body(Empty::new()).unwrap();
    match two.send_request(large).await {
        Ok(response) => assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        Err(e) => panic!("{e:?}"),
    }
    assert_eq!(get2(&mut two, "/hello").await.unwrap().1, "hello", "even on the same connection");
    assert!(ask(&mut other, &get("/hello")).await.ends_with("hello"));
}

#[tokio::test]
async fn who_sends_too_much_still_learns_it() {
    let server = start(wide()).await;
    let mut stream = server.http1().await;
    let head = "POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    // Everything is sent before anything is read: without the lingering close the server's end would reset the
    // connection, and the answer would be lost.
    for _ in 0..8 {
        stream.write_all(&[b'x'; 1_000_000]).await.expect("the server still reads");
    }
    let answer = read_answer(&mut stream).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("too much"), "{answer}");
    drop(stream);
    server.left(0).await;
}

#[tokio::test]
async fn when_all_places_are_taken_the_longest_idle_goes() {
    let mut limits = wide();
    limits.connections = 3;
    let mut server = start(limits).await;
    let mut busy = server.http1().await;
    busy.write_all(get("/forever").as_bytes()).await.unwrap();
    sleep(SHORT).await;
    // A hand-shake that has begun is idle, too, and the oldest.
    let mut shaking = server.tcp().await;
    sleep(SHORT / 3).await;
    let mut idle = server.http1().await;
    sleep(SHORT / 3).await;

    let mut third = server.http1().await;
    ended(&mut shaking).await;
    assert!(ask(&mut idle, &get("/hello")).await.ends_with("hello"));
    sleep(SHORT / 3).await;
    assert!(ask(&mut third, &get("/hello")).await.ends_with("hello"));
    sleep(SHORT / 3).await;

    let mut fourth = server.http1().await;
    ended(&mut idle).await;
    for stream in [&mut third, &mut fourth] {
        stream.write_all(get("/forever").as_bytes()).await.unwrap();
    }
    sleep(SHORT).await;
    ended(&mut server.tcp().await).await;
    assert_eq!(server.connections.count(), 3);
    assert!(server.dropped.try_recv().is_err(), "no request under way was cut");
}

#[tokio::test]
async fn one_client_has_its_share() {
    let mut limits = wide();
    limits.per_client = 2;
    let server = start(limits).await;
    let mut first = server.http1().await;
    let second = server.http1().await;
    ended(&mut server.tcp().await).await;
    let elsewhere = TcpSocket::new_v4().unwrap();
    elsewhere.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let tcp = elsewhere.connect(server.address).await.unwrap();
    let mut elsewhere = server.secure(tcp, &[b"http/1.1"]).await.unwrap();
    assert!(ask(&mut elsewhere, &get("/peer")).await.ends_with("127.0.0.2"));
    drop(second);
    server.left(2).await;
    let mut third = server.http1().await;
    assert!(ask(&mut third, &get("/hello")).await.ends_with("hello"));
    assert!(ask(&mut first, &get("/hello")).await.ends_with("hello"));
}

#[tokio::test]
async fn a_peer_that_does_not_take_its_answer_is_cut_off() {
    let mut limits = wide();
    limits.time.answer = SHORT;
    let server = start(limits).await;
    let mut blocked = server.http1().await;
    blocked.write_all(get("/big").as_bytes()).await.unwrap();
    sleep(SHORT / 3).await;
    assert_eq!(server.connections.count(), 1);
    server.left(0).await;

    // HTTP/2's own way: a window of no bytes, while pings are answered and other requests made.
    let mut stingy = server.http2_with(|builder| _ = builder.initial_stream_window_size(0)).await;
    let response = stingy.send_request(to("/hello")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    server.left(0).await;
    assert!(response.into_body().collect().await.is_err());

    let mut taking = server.http1().await;
    assert!(ask(&mut taking, &get("/slow")).await.ends_with("slow"), "a handler may take longer");
}

#[tokio::test]
async fn when_a_client_goes_away_its_request_does() {
    let mut server = start(wide()).await;
    let mut one = server.http1().await;
    one.write_all(get("/forever").as_bytes()).await.unwrap();
    let mut two = server.http2().await;
    let request = two.send_request(to("/forever"));
    let abandoned = timeout(SHORT, request).await;
    assert!(abandoned.is_err());
    timeout(PATIENCE, server.dropped.recv()).await.expect("the stream was reset");
    assert_eq!(get2(&mut two, "/hello").await.unwrap().1, "hello");
    drop(one);
    timeout(PATIENCE, server.dropped.recv()).await.expect("the connection was closed");
    server.left(1).await;
}

#[tokio::test]
async fn a_handler_that_panics_takes_no_other_with_it() {
    let server = start(wide()).await;
    let mut two = server.http2().await;
    assert!(get2(&mut two, "/panic").await.is_err());
    assert_eq!(get2(&mut two, "/hello").await.unwrap().1, "hello");
    let mut one = server.http1().await;
    one.write_all(get("/panic").as_bytes()).await.unwrap();
    ended(&mut one).await;
    server.left(1).await;
}

#[tokio::test]
async fn draining_ends_what_is_under_way_and_takes_nothing_new() {
    let server = start(wide()).await;
    let mut idle = server.http1().await;
    assert!(ask(&mut idle, &get("/hello")).await.ends_with("hello"));
    let mut idle_two = server.http2().await;
    assert!(get2(&mut idle_two, "/hello").await.is_ok());
    let mut shaking = server.tcp().await;
    let mut one = server.http1().await;
    one.write_all(get("/slow").as_bytes()).await.unwrap();
    let mut two = server.http2().await;
    let in_two = tokio::spawn(async move { get2(&mut two, "/slow").await });
    sleep(SHORT / 2).await;

    let connections = server.connections.clone();
    let draining = tokio::spawn(async move { connections.drain(PATIENCE).await });
    ended(&mut idle).await;
    ended(&mut shaking).await;
    assert!(*server.connections.draining().borrow());
    assert!(timeout(PATIENCE, TcpStream::connect(server.address)).await.unwrap().is_err(), "nobody listens");
    let answer = read_answer(&mut one).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    assert_eq!(in_two.await.unwrap().unwrap().1, "slow");
    assert!(draining.await.unwrap(), "all came to their end");
    assert!(get2(&mut idle_two, "/hello").await.is_err());
    assert_eq!(server.connections.count(), 0);
}

#[tokio::test]
async fn draining_past_its_time_cuts_and_says_so() {
    let mut server = start(wide()).await;
    let mut one = server.http1().await;
    one.write_all(get("/forever").as_bytes()).await.unwrap();
    let mut two = server.http2().await;
    let in_two = tokio::spawn(async move { get2(&mut two, "/forever").await });
    sleep(SHORT).await;
    assert!(!server.connections.drain(SHORT).await);
    ended(&mut one).await;
    assert!(in_two.await.unwrap().is_err());
    for _ in 0..2 {
        timeout(PATIENCE, server.dropped.recv()).await.unwrap();
    }
    assert_eq!(server.connections.count(), 0);
}

#[tokio::test]
async fn a_peer_that_never_closes_does_not_hold_up_the_drain() {
    let server = start(wide()).await;
    // Speaks HTTP/2 as far as the preface, then falls silent: it will answer no ping.
    let mut silent = server.secure(server.tcp().await, &[b"h2"]).await.unwrap();
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    sleep(SHORT).await;
    let began = Instant::now();
    assert!(server.connections.drain(PATIENCE).await);
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
}
