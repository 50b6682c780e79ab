//! What a door is to the connections behind it: something that answers requests.

use std::error::Error;
use std::net::SocketAddr;

use hyper::body::{Body, Bytes, Incoming};
use hyper::{Request, Response};

/// Who sent a request, as far as the connection tells.
#[derive(Debug, Clone, Copy)]
pub struct ConnInfo {
    /// The other end of the connection; a proxy, maybe.
    pub peer: SocketAddr,
}

/// The protocol of a client that negotiates none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What answers requests: any function from a request to the future of a response. The body may be endless, and may
/// end in trailers; the future is dropped when the client goes away.
pub trait Door: Send + Sync + 'static {
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static;
    /// The answer in the making.
    type Answer: Future<Output = Response<Self::Body>> + Send + 'static;

    /// Answers one request.
    fn answer(&self, request: Request<Incoming>, from: ConnInfo) -> Self::Answer;
}

impl<F, A, B> Door for F
where
    F: Fn(Request<Incoming>, ConnInfo) -> A + Send + Sync + 'static,
    A: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    type Body = B;
    type Answer = A;

    fn answer(&self, request: Request<Incoming>, from: ConnInfo) -> A {
        self(request, from)
    }
}
