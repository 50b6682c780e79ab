//! The call over gRPC: HTTP/2 over TLS, on one connection that is kept.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rustls::ClientConfig;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::metadata::MetadataValue;

use super::{Callable, Server, Trouble, Trust, tls};
use crate::error::{Error, Kind};
use crate::secret::BearerToken;
use crate::wire::fault;
use crate::wire::proto::raw::OneMessage;
use crate::wire::proto::{Request as _, Response as _};

/// The largest message that is read, in bytes: a page of a thousand events is under one megabyte.
const MAX_ANSWER: usize = 16 << 20;

/// A server, and the connection to it.
pub(super) struct Grpc {
    server: Server,
    tls: Arc<ClientConfig>,
    agent: &'static str,
    connection: Option<SendRequest<Body>>,
}

impl Grpc {
    pub fn new(server: Server, trust: &Trust, agent: &'static str) -> Result<Self, rustls::Error> {
        Ok(Self { server, tls: trust.config(b"h2")?, agent, connection: None })
    }

    pub async fn call<O: Callable>(
        &mut self,
        token: Option<&BearerToken>,
        input: &O::Input,
    ) -> Result<O::Output, Trouble> {
        let sent = input.to_message().encode_to_vec();
        let received = self.exchange(O::PATH, token, sent).await?;
        let output = O::Response::decode(received).ok().and_then(O::Output::from_message);
        output.ok_or_else(|| garbled("the answer has another shape than expected"))
    }

    async fn exchange(
        &mut self,
        path: &'static str,
        token: Option<&BearerToken>,
        message: Vec<u8>,
    ) -> Result<Bytes, Trouble> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = token {
            let value = MetadataValue::try_from(format!("Bearer {}", token.expose()));
            let mut value = value.map_err(|_| garbled("the token can't be one: it isn't plain text"))?;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        request.metadata_mut().insert("user-agent", MetadataValue::from_static(self.agent));
        let origin: Uri =
            format!("https://{}", self.server.authority()).parse().map_err(|_| garbled("the server has no address"))?;
        let connection = Connection(self.connection().await?);
        let mut client = tonic::client::Grpc::with_origin(connection, origin).max_decoding_message_size(MAX_ANSWER);
        let path = PathAndQuery::from_static(path);
        let response = client.unary(request, path, OneMessage::default()).await.map_err(|status| refusal(&status))?;
        Ok(response.into_inner())
    }

    async fn connection(&mut self) -> Result<SendRequest<Body>, Trouble> {
        if let Some(kept) = self.connection.as_mut().filter(|kept| !kept.is_closed())
            && kept.ready().await.is_ok()
        {
            return Ok(kept.clone());
        }
        let stream = tls::connect(&self.server, self.tls.clone()).await?;
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(|e| tls::broke_off(&e))?;
        // Its end shows in what is sent on it.
        tokio::spawn(connection);
        sender.ready().await.map_err(|e| tls::broke_off(&e))?;
        self.connection = Some(sender.clone());
        Ok(sender)
    }
}

/// A connection as the library wants it.
struct Connection(SendRequest<Body>);

impl Service<Request<Body>> for Connection {
    type Response = Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

fn garbled(what: &str) -> Trouble {
    Trouble::Garbled(what.to_owned())
}

fn refusal(status: &Status) -> Trouble {
    let word = |name: &str| status.metadata().get(name).and_then(|value| value.to_str().ok());
    let Some(code) = word("mcias-code") else {
        return Trouble::Garbled(format!("{} (gRPC status {})", status.message(), status.code() as i32));
    };
    let kind = fault::from_grpc(status.code() as i32, Some(code));
    let error = Error::new(kind, status.message().to_owned());
    let seconds = word("retry-after").and_then(|text| text.parse().ok());
    Trouble::Refused(match seconds.filter(|_| matches!(kind, Kind::RateLimited | Kind::Unavailable)) {
        Some(seconds) => error.after(seconds),
        None => error,
    })
}
