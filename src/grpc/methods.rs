//! Which path is which method: built from the one table of operations.

use std::collections::HashMap;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::header::HeaderMap;
use hyper::{Request, Response};
use prost::Message;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

use super::body::Patient;
use super::status;
use crate::error::{Error, Result};
use crate::net::bearer::bearer;
use crate::net::bind::{self, Grant, Handler, Table};
use crate::net::house::House;
use crate::net::log;
use crate::service::{Call, Service};
use crate::wire::ops::{self, Decl, Operation};
use crate::wire::proto::raw::OneMessage;
use crate::wire::proto::{MAX_MESSAGE, Method, Request as _, Response as _};

/// An answer in the making.
pub(super) type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A whole service that the library brings.
pub(super) type Mounted = Box<dyn Fn(Request<Body>) -> Answering + Send + Sync>;

/// Mounts one.
pub(super) fn mounted<S>(service: S) -> Mounted
where
    S: tonic::codegen::Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    Box::new(move |request| {
        let answer = service.clone().call(request);
        Box::pin(async move { answer.await.unwrap_or_else(|never| match never {}) })
    })
}

/// All methods.
pub(super) struct Methods(HashMap<&'static str, Box<dyn Bound>>);

impl Methods {
    pub(super) fn new() -> Self {
        let mut methods = Self(HashMap::new());
        bind::operations(&mut methods);
        methods
    }

    /// The method at a path.
    pub(super) fn find(&self, path: &str) -> Option<&dyn Bound> {
        self.0.get(path).map(Box::as_ref)
    }
}

impl Table for Methods {
    fn row<O: Method<Access: Grant>, H: Handler<O>>(&mut self, handler: H) {
        self.0.insert(O::PATH, Box::new(Row::<O, H> { handler, operation: PhantomData }));
    }

    fn row_of_rest<O: Operation<Access: Grant>, H: Handler<O>>(&mut self, _: H) {}
}

/// Every method, for tests and documents: its path and its operation's declaration.
pub fn table() -> Vec<(&'static str, &'static Decl)> {
    Methods::new().0.iter().map(|(path, method)| (*path, method.decl())).collect()
}

/// What is left to do once access is granted: read the message, then do it.
pub(super) type Granted = Box<dyn FnOnce(&Arc<Service>, IpAddr, Bytes) -> Result<Work> + Send>;

/// What is left to do in the operation's lane; gives the answer's message.
pub(super) type Work = Box<dyn FnOnce() -> Result<Vec<u8>> + Send>;

/// A method with its types forgotten.
pub(super) trait Bound: Send + Sync {
    /// The operation.
    fn decl(&self) -> &'static Decl;

    /// Asks for access; the message isn't looked at before.
    ///
    /// # Errors
    /// `Unauthorized`, `Forbidden`.
    fn ask(&self, service: &Service, headers: &HeaderMap) -> Result<Granted>;
}

struct Row<O, H> {
    handler: H,
    operation: PhantomData<fn() -> O>,
}

impl<O: Method<Access: Grant>, H: Handler<O>> Bound for Row<O, H> {
    fn decl(&self) -> &'static Decl {
        &O::DECL
    }

    fn ask(&self, service: &Service, headers: &HeaderMap) -> Result<Granted> {
        let token = bearer(headers);
        let proof = O::Access::ask_first(service, token.as_ref())?;
        let handler = self.handler;
        Ok(Box::new(move |service, ip, message| {
            let message = O::Request::decode(message).map_err(|_| Error::invalid("the message can't be read"))?;
            let proof = match proof {
                Some(proof) => proof,
                // Now it is known whom the request is about, and no more than that is looked at before.
                None => O::Access::ask(service, token.as_ref(), O::Input::owner(&message))?,
            };
            let input = O::Input::from_message(message)?;
            let (service, call) = (service.clone(), Call { ip: Some(ip) });
            Ok(Box::new(move || {
                let output = handler.serve(&service, &call, &proof, input)?;
                Ok(output.into_message().encode_to_vec())
            }))
        }))
    }
}

/// Whose call it is, by which id the log knows it, and until when it is waited for.
pub(super) struct Caller {
    pub(super) id: String,
    pub(super) ip: IpAddr,
    pub(super) deadline: Option<Instant>,
}

/// Answers a call to which access is granted.
pub(super) async fn serve(
    house: Arc<House>,
    decl: &'static Decl,
    granted: Granted,
    caller: Caller,
    request: Request<Patient>,
) -> Response<Body> {
    let unary = Unary { house, decl, granted: Some(granted), caller };
    let mut server = tonic::server::Grpc::new(OneMessage::default()).max_decoding_message_size(MAX_MESSAGE);
    server.unary(unary, request).await
}

/// One call, as the library wants it: a service that is called once, with the message.
struct Unary {
    house: Arc<House>,
    decl: &'static Decl,
    granted: Option<Granted>,
    caller: Caller,
}

impl tonic::codegen::Service<tonic::Request<Bytes>> for Unary {
    type Response = tonic::Response<Vec<u8>>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let Self { house, decl, granted, caller: Caller { id, ip, deadline } } = self;
        let (house, decl, id, ip, deadline) = (house.clone(), *decl, std::mem::take(id), *ip, *deadline);
        let work = match granted.take() {
            Some(granted) => granted(&house.service, ip, request.into_inner()),
            None => Err(Error::internal("a call was made twice")),
        };
        Box::pin(async move {
            let done = match work {
                Ok(work) => house.lanes.run(decl.lane, ip, deadline, work).await,
                Err(error) => Err(error),
            };
            if done.is_ok() && decl.name == ops::Login::DECL.name {
                house.lanes.logged_in(ip);
            }
            done.map(tonic::Response::new).map_err(|error| {
                log::refusal(&id, &error);
                status::of_error(&error)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::proto::METHODS;

    #[test]
    fn every_declared_method_is_bound_to_its_operation() {
        let bound: HashMap<_, _> = table().into_iter().map(|(path, decl)| (path, decl.name)).collect();
        let declared: HashMap<_, _> = METHODS.iter().copied().collect();
        assert_eq!(bound, declared);
        assert!(bound.len() > 30);
    }
}
