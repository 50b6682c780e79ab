//! The same client over HTTP/2, by hyper.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::PATIENCE;
use super::client::Door;
use super::connection::RawAnswer;

/// One connection.
pub struct Http2 {
    sender: SendRequest<Full<Bytes>>,
    runtime: Runtime,
}

impl Http2 {
    #[track_caller]
    pub(super) fn connect(door: &Door) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut tls = (**door.tls()).clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let address = door.address().unwrap();
        let connect = async {
            let socket = tokio::net::TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            let stream = TlsConnector::from(Arc::new(tls)).connect(name, socket).await?;
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()), "HTTP/2 was agreed on");
            let (sender, connection) =
                handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            Ok::<_, io::Error>(sender)
        };
        let sender = runtime.block_on(async { timeout(PATIENCE, connect).await }).unwrap();
        Self { sender: sender.unwrap_or_else(|e| panic!("no HTTP/2 connection: {e}")), runtime }
    }

    pub(super) fn exchange(
        &self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: Option<&[u8]>,
    ) -> io::Result<RawAnswer> {
        let mut request = hyper::Request::builder().method(method).uri(format!("https://localhost{path}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.unwrap_or_default())));
        let request = request.map_err(io::Error::other)?;
        let mut sender = self.sender.clone();
        let exchange = async move {
            sender.ready().await?;
            let answer = sender.send_request(request).await?;
            let (head, body) = answer.into_parts();
            Ok::<_, hyper::Error>((head, body.collect().await?.to_bytes()))
        };
        let exchange = self.runtime.block_on(async { timeout(PATIENCE, exchange).await });
        let (head, body) = exchange?.map_err(io::Error::other)?;
        let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers: Vec<_> = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        let lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        Ok(RawAnswer {
            status: head.status.as_u16(),
            head: format!("HTTP/2 {}\r\n{}", head.status.as_u16(), lines.join("\r\n")),
            headers,
            body: body.to_vec(),
            interim: Vec::new(),
        })
    }
}
