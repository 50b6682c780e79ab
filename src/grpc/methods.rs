//! Which path is which method: built from the one table of operations.

use std::collections::HashMap;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::header::HeaderMap;
use hyper::{Request, Response};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic_prost::ProstCodec;

use super::body::Patient;
use super::codec::OneMessage;
use super::status;
use crate::error::Result;
use crate::net::bearer::bearer;
use crate::net::bind::{self, Grant, Handler, ProofOf, Table};
use crate::net::house::House;
use crate::net::log;
use crate::secret::BearerToken;
use crate::service::Call;
use crate::wire::ops::{self, Decl, Operation};
use crate::wire::proto::{MAX_MESSAGE, Method, Request as _, Response as _};

/// An answer in the making.
pub(super) type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A whole service that the library brings.
pub(super) type Mounted = Box<dyn Fn(Request<Body>) -> Answering + Send + Sync>;

/// Mounts one.
pub(super) fn mounted<S>(service: S) -> Mounted
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
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

/// What is left to do once access is granted: read the message, do it, answer.
pub(super) type Granted = Box<dyn FnOnce(Arc<House>, Request<Patient>, Caller) -> Answering + Send>;

/// Whose call it is, by which id the log knows it, and until when it is waited for.
pub(super) struct Caller {
    pub(super) id: String,
    pub(super) ip: IpAddr,
    pub(super) deadline: Option<Instant>,
}

/// A method with its types forgotten.
pub(super) trait Bound: Send + Sync {
    /// The operation.
    fn decl(&self) -> &'static Decl;

    /// Asks for access; the message isn't looked at before.
    ///
    /// # Errors
    /// `Unauthorized`, `Forbidden`.
    fn ask(&self, house: &House, headers: &HeaderMap) -> Result<Granted>;
}

struct Row<O, H> {
    handler: H,
    operation: PhantomData<fn() -> O>,
}

impl<O: Method<Access: Grant>, H: Handler<O>> Bound for Row<O, H> {
    fn decl(&self) -> &'static Decl {
        &O::DECL
    }

    fn ask(&self, house: &House, headers: &HeaderMap) -> Result<Granted> {
        let token = bearer(headers);
        let proof = O::Access::ask_first(&house.service, token.as_ref())?;
        let handler = self.handler;
        Ok(Box::new(move |house, request, caller| {
            let unary = Unary::<O, H> { house, handler, proof, token, caller };
            let codec = OneMessage(ProstCodec::<O::Response, O::Request>::default());
            let mut server = tonic::server::Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
            Box::pin(async move { server.unary(unary, request).await })
        }))
    }
}

/// One call, as the library wants it: a service that is called once, with the message.
struct Unary<O: Operation<Access: Grant>, H> {
    house: Arc<House>,
    handler: H,
    proof: Option<ProofOf<O>>,
    token: Option<BearerToken>,
    caller: Caller,
}

impl<O: Method<Access: Grant>, H: Handler<O>> Unary<O, H> {
    /// Reads the message and gives the work that is left, to be done in the operation's lane.
    fn read(&mut self, message: O::Request) -> Result<impl FnOnce() -> Result<O::Output> + Send + 'static> {
        let service = self.house.service.clone();
        let proof = match self.proof.take() {
            Some(proof) => proof,
            // Now it is known whom the request is about, and no more than that is looked at before.
            None => O::Access::ask(&service, self.token.as_ref(), O::Input::owner(&message))?,
        };
        let input = O::Input::from_message(message)?;
        let (handler, call) = (self.handler, Call { ip: Some(self.caller.ip) });
        Ok(move || handler.serve(&service, &call, &proof, input))
    }
}

impl<O: Method<Access: Grant>, H: Handler<O>> Service<tonic::Request<O::Request>> for Unary<O, H> {
    type Response = tonic::Response<O::Response>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<O::Request>) -> Self::Future {
        let work = self.read(request.into_inner());
        let (house, ip, deadline) = (self.house.clone(), self.caller.ip, self.caller.deadline);
        let id = std::mem::take(&mut self.caller.id);
        Box::pin(async move {
            let done = match work {
                Ok(work) => house.lanes.run(O::DECL.lane, ip, deadline, work).await,
                Err(error) => Err(error),
            };
            if done.is_ok() && O::DECL.name == ops::Login::DECL.name {
                house.lanes.logged_in(ip);
            }
            match done {
                Ok(output) => Ok(tonic::Response::new(output.into_message())),
                Err(error) => {
                    log::refusal(&id, &error);
                    Err(status::of_error(&error))
                }
            }
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
