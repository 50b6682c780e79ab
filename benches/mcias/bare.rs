//! The bare responder, which a server is compared to: hyper and rustls of the same versions, compiled the same way,
//! reading a request and answering fixed bytes. It is a process of its own, as the server is.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::load::Target;
use crate::server::tls_of;
use crate::support::{Instance, RawAnswer};

/// The first argument of a bench that is to be the bare responder.
pub const ROLE: &str = "--bare-responder";

/// A running bare responder. Dropped, it is stopped.
pub struct Bare {
    child: Child,
    /// Where it is reached.
    pub target: Target,
}

impl Bare {
    /// One with the instance's certificate, which answers what the server has answered.
    pub fn start(instance: &Instance, like: &RawAnswer) -> Self {
        instance.write("bare.head", &like.head);
        instance.write("bare.body", &like.body);
        let files = ["tls/server.crt", "tls/server.key", "bare.head", "bare.body"].map(|name| instance.path(name));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(ROLE).args(files).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address: SocketAddr = line.trim().parse().unwrap();
        Self { child, target: Target { address, tls: tls_of(instance) } }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until standard input ends: certificate, key, head and body are files.
pub fn serve(files: &[String]) {
    let [certificate, key, head, body] = files else { panic!("four files") };
    let chain = CertificateDer::pem_file_iter(certificate).unwrap().collect::<Result<_, _>>().unwrap();
    let mut tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
        .unwrap();
    // Nothing is resumed there either.
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let answer = Answer { head: std::fs::read_to_string(head).unwrap(), body: std::fs::read(body).unwrap().into() };
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(accept(tls, answer));
}

async fn accept(tls: ServerConfig, answer: Answer) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let answer = Arc::new(answer.response());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (acceptor, answer) = (acceptor.clone(), answer.clone());
        tokio::spawn(async move {
            let _ = socket.set_nodelay(true);
            let Ok(stream) = acceptor.accept(socket).await else { return };
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer.clone();
                async move {
                    let _ = request.into_body().collect().await;
                    Ok::<_, Infallible>((*answer).clone())
                }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

struct Answer {
    head: String,
    body: Bytes,
}

impl Answer {
    /// With every header that the server's has; hyper adds `date` and the length by itself.
    fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::builder();
        for line in self.head.split("\r\n").skip(1) {
            let (name, value) = line.split_once(": ").unwrap();
            if !["date", "content-length"].contains(&name) {
                response = response.header(name, value);
            }
        }
        response.body(Full::new(self.body)).unwrap()
    }
}
