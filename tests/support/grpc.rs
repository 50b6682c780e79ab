//! gRPC by hand over hyper's HTTP/2: messages framed as the protocol says or as a test wants them, and answers that are
//! held against the contract whatever they are.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::header::HeaderMap;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::Code;

use super::{Log, PATIENCE, Server, trusting};

/// The code words with their statuses, as the contract has them.
const CODES: &[(&str, &[Code])] = &[
    ("invalid_request", &[Code::InvalidArgument]),
    ("unauthorized", &[Code::Unauthenticated]),
    ("forbidden", &[Code::PermissionDenied]),
    ("not_found", &[Code::NotFound]),
    ("conflict", &[Code::FailedPrecondition, Code::AlreadyExists]),
    ("payload_too_large", &[Code::ResourceExhausted]),
    ("unsupported_media_type", &[Code::InvalidArgument]),
    ("rate_limited", &[Code::ResourceExhausted]),
    ("internal", &[Code::Internal]),
    ("unavailable", &[Code::Unavailable]),
    ("deadline_exceeded", &[Code::DeadlineExceeded]),
    ("unimplemented", &[Code::Unimplemented]),
];

/// One connection.
pub struct Grpc {
    sender: SendRequest<Sent>,
    runtime: Arc<Runtime>,
    log: Arc<Log>,
}

impl Server {
    /// A new connection to its gRPC port.
    #[track_caller]
    pub fn grpc(&self) -> Grpc {
        self.try_grpc(trusting(&self.text("tls/ca.crt"), &[b"h2"])).unwrap_or_else(|e| panic!("no connection: {e}"))
    }

    /// The same with a TLS of the test's own.
    pub fn try_grpc(&self, tls: Arc<ClientConfig>) -> std::io::Result<Grpc> {
        Grpc::connect(self.grpc_address(), tls, self.log().clone())
    }
}

impl Grpc {
    fn connect(address: SocketAddr, tls: Arc<ClientConfig>, log: Arc<Log>) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let connect = async {
            let socket = tokio::net::TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
            let stream = TlsConnector::from(tls).connect(name, socket).await?;
            let shaken = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
            let (sender, connection) = shaken.map_err(std::io::Error::other)?;
            tokio::spawn(connection);
            Ok::<_, std::io::Error>(sender)
        };
        let sender = runtime.block_on(async { timeout(PATIENCE, connect).await })??;
        Ok(Self { sender, runtime: Arc::new(runtime), log })
    }

    /// A call without a message until it is given one. What doesn't begin with `/` is a method of ours.
    pub fn call(&self, method: &str) -> Call<'_> {
        let path = if method.starts_with('/') { method.to_owned() } else { format!("/mcias.v1.{method}") };
        let headers = [("content-type", "application/grpc"), ("te", "trailers")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Call { grpc: self, method: "POST".to_owned(), path, headers, body: Vec::new(), ends: true }
    }
}

/// A call in the making.
#[derive(Clone)]
#[must_use = "it isn't sent yet"]
pub struct Call<'a> {
    grpc: &'a Grpc,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    ends: bool,
}

impl Call<'_> {
    /// Another HTTP method.
    pub fn http_method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// One more entry of metadata.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// No entry of that name.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    /// With a token.
    pub fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// As if it came from there: for a server that trusts 127.0.0.0/8 as a proxy.
    pub fn forwarded_for(self, address: &str) -> Self {
        self.header("x-forwarded-for", address)
    }

    /// One more message.
    pub fn message(self, message: &impl Message) -> Self {
        self.framed(0, &message.encode_to_vec())
    }

    /// One more message of these bytes, with this flag before it.
    pub fn framed(self, flag: u8, message: &[u8]) -> Self {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        self.bytes(&[&[flag], &length[..], message].concat())
    }

    /// More of the body as it is.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.body.extend_from_slice(bytes);
        self
    }

    /// Never ends what it sends.
    pub fn endless(mut self) -> Self {
        self.ends = false;
        self
    }

    /// Sends it; the messages of the answer come one by one.
    pub fn open(self) -> hyper::Result<Messages> {
        let mut request =
            hyper::Request::builder().method(&*self.method).uri(format!("https://localhost{}", self.path));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Sent { bytes: Some(self.body.into()), ends: self.ends }).unwrap();
        let mut sender = self.grpc.sender.clone();
        let sent = async move {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let answer = self.grpc.runtime.block_on(async { timeout(PATIENCE, sent).await }).expect("no answer")?;
        let (head, body) = answer.into_parts();
        let (runtime, headers) = (self.grpc.runtime.clone(), head.headers);
        Ok(Messages { runtime, http: head.status.as_u16(), headers, body, unread: Vec::new(), trailers: None })
    }

    /// Sends it to a server that may go away meanwhile.
    pub fn try_send(self) -> hyper::Result<GrpcAnswer> {
        let story = format!("{} {} {:?}, {} bytes", self.method, self.path, self.headers, self.body.len());
        let log = self.grpc.log.clone();
        let mut messages = self.open()?;
        let mut body = Vec::new();
        while let Some(message) = messages.try_next()? {
            body.push(message);
        }
        assert!(messages.unread.is_empty(), "{story}: the last message is cut");
        let Messages { http, headers, trailers, .. } = messages;
        Ok(GrpcAnswer { http, headers, trailers, messages: body, story, log })
    }

    /// Sends it; what comes back keeps the contract.
    #[track_caller]
    pub fn send(self) -> GrpcAnswer {
        let (path, log) = (self.path.clone(), self.grpc.log.clone());
        let answer = self.try_send().unwrap_or_else(|e| panic!("{path}: no answer: {e:?}\n{}", log.tail()));
        answer.keeps_the_contract();
        answer
    }

    /// Sends it, and insists on this message.
    #[track_caller]
    pub fn ok<M: Message + Default>(self) -> M {
        let answer = self.send();
        assert_eq!(answer.status(), Code::Ok, "{}", answer.story());
        M::decode(&*answer.messages[0]).unwrap()
    }

    /// Sends it, and insists on this error.
    #[track_caller]
    pub fn expect(self, status: Code, code: &str) -> GrpcAnswer {
        let answer = self.send();
        assert_eq!((answer.status(), answer.word("mcias-code")), (status, Some(code)), "{}", answer.story());
        answer
    }
}

/// What is sent: some bytes, and after them the end, or nothing.
struct Sent {
    bytes: Option<Bytes>,
    ends: bool,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.bytes.take() {
            Some(bytes) if !bytes.is_empty() => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            _ if self.ends => Poll::Ready(None),
            _ => Poll::Pending,
        }
    }
}

/// An answer that comes message by message.
pub struct Messages {
    runtime: Arc<Runtime>,
    http: u16,
    headers: HeaderMap,
    body: Incoming,
    unread: Vec<u8>,
    trailers: Option<HeaderMap>,
}

impl Messages {
    /// The next message; none at the end.
    pub fn try_next(&mut self) -> hyper::Result<Option<Vec<u8>>> {
        loop {
            if let Some((head, rest)) = self.unread.split_at_checked(5) {
                assert_eq!(head[0], 0, "nothing is compressed");
                let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
                if rest.len() >= length {
                    let message = rest[..length].to_vec();
                    self.unread.drain(..5 + length);
                    return Ok(Some(message));
                }
            }
            let frame = async { timeout(PATIENCE, self.body.frame()).await };
            let Some(frame) = self.runtime.block_on(frame).expect("no message") else { return Ok(None) };
            match frame?.into_data() {
                Ok(data) => self.unread.extend_from_slice(&data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }

    /// The next message, and insists on it.
    #[track_caller]
    pub fn next<M: Message + Default>(&mut self) -> M {
        let message = self.try_next().unwrap_or_else(|e| panic!("no message: {e:?}"));
        M::decode(&*message.expect("a message")).unwrap()
    }

    /// Insists that no message comes any more; gives the status.
    #[track_caller]
    pub fn ends(&mut self) -> Code {
        let message = self.try_next().unwrap_or_else(|e| panic!("it ends badly: {e:?}"));
        assert!(message.is_none(), "one more message");
        status(self.trailers.as_ref().unwrap_or(&self.headers))
    }
}

fn status(of: &HeaderMap) -> Code {
    Code::from_bytes(of.get("grpc-status").expect("a status").as_bytes())
}

/// An answer that is over.
pub struct GrpcAnswer {
    /// HTTP's own status.
    pub http: u16,
    /// What came before the messages.
    pub headers: HeaderMap,
    /// The messages.
    pub messages: Vec<Vec<u8>>,
    trailers: Option<HeaderMap>,
    story: String,
    log: Arc<Log>,
}

impl GrpcAnswer {
    /// Where the status stands.
    fn last(&self) -> &HeaderMap {
        self.trailers.as_ref().unwrap_or(&self.headers)
    }

    /// The status.
    #[track_caller]
    pub fn status(&self) -> Code {
        status(self.last())
    }

    /// The one value of an entry beside the status.
    #[track_caller]
    pub fn word(&self, name: &str) -> Option<&str> {
        let mut values = self.last().get_all(name).iter();
        let value = values.next().map(|value| value.to_str().unwrap());
        assert!(values.next().is_none(), "{name} is there twice");
        value
    }

    /// The words for a person.
    #[track_caller]
    pub fn text(&self) -> String {
        let text = self.word("grpc-message").unwrap_or_default();
        percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned()
    }

    /// The call, the answer, and the end of the server's log.
    pub fn story(&self) -> String {
        let Self { http, headers, trailers, messages, story, log } = self;
        format!("\n{story}\n{http} {headers:?}\n{} messages\n{trailers:?}\n{}\n", messages.len(), log.tail())
    }

    /// Insists on what the contract says of every answer.
    #[track_caller]
    fn keeps_the_contract(&self) {
        let must = |holds: bool, what: &str| assert!(holds, "{what}\n{}", self.story());
        must(self.http == 200 || self.http == 415, "HTTP's status");
        must(self.headers.get("content-type").is_some_and(|kind| kind == "application/grpc"), "content-type");
        must(self.headers.get("server").is_none(), "a header too many");
        let (status, code) = (self.status(), self.word("mcias-code"));
        if status == Code::Ok {
            must(code.is_none() && self.messages.len() == 1, "a message and no more");
            return;
        }
        must(self.messages.is_empty() && !self.text().is_empty(), "no message, and words for a person");
        let row = CODES.iter().find(|(word, _)| Some(*word) == code);
        must(row.is_some_and(|(_, statuses)| statuses.contains(&status)), "the code word of this status");
        let later = self.word("retry-after").map(|seconds| seconds.parse::<u32>().is_ok_and(|s| s >= 1));
        let wait = matches!(code, Some("rate_limited" | "unavailable"));
        must(later == wait.then_some(true), "retry-after with these two only");
    }
}
