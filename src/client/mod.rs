//! The other end of the doors: one call for every operation, over REST or over gRPC. What is sent and what comes back are
//! the types of the operations' declarations.

mod grpc;
mod rest;
mod server;
mod tls;
mod trust;

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::error::Error;
use crate::secret::BearerToken;
use crate::wire::answers::FromAnswer;
use crate::wire::proto::Method;
use crate::wire::requests::ToRequest;

pub use server::Server;
pub use trust::{Distrust, Trust};

/// An operation that a client can call.
pub trait Callable: Method<Input: ToRequest, Output: FromAnswer> {}

impl<O: Method<Input: ToRequest, Output: FromAnswer>> Callable for O {}

/// Why a call came to nothing.
#[derive(Debug)]
pub enum Trouble {
    /// The server answered with an error: its kind, and its message as the client's.
    Refused(Error),
    /// There is no connection to be had.
    Unreachable(String),
    /// Somebody answers, but doesn't prove to be the server.
    NotTrusted(Distrust),
    /// No answer within the time there was.
    TooSlow(Duration),
    /// What came isn't an answer of an MCIAS server.
    Garbled(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => f.write_str(error.client()),
            Self::Unreachable(why) | Self::Garbled(why) => f.write_str(why),
            Self::NotTrusted(why) => why.fmt(f),
            Self::TooSlow(after) => write!(f, "no answer within {} s", after.as_secs_f64()),
        }
    }
}

/// A client of one server. It keeps its connection between calls.
pub struct Client {
    runtime: Runtime,
    timeout: Duration,
    transport: Transport,
}

/// How its calls travel.
enum Transport {
    Rest(rest::Rest),
    Grpc(grpc::Grpc),
}

/// The protocol that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// REST over HTTP/1.1.
    Rest,
    /// gRPC.
    Grpc,
}

impl Client {
    /// A client of `server`. `agent` is what it calls itself (RFC 9110, section 10.1.5); `timeout` is for each call.
    ///
    /// # Errors
    /// Where the system has no randomness, or lets nothing wait.
    pub fn new(
        protocol: Protocol,
        server: Server,
        trust: &Trust,
        agent: &'static str,
        timeout: Duration,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let transport = match protocol {
            Protocol::Rest => rest::Rest::new(server, trust, agent).map(Transport::Rest),
            Protocol::Grpc => grpc::Grpc::new(server, trust, agent).map(Transport::Grpc),
        };
        Ok(Self { runtime, timeout, transport: transport.map_err(io::Error::other)? })
    }

    /// Calls an operation, with a token where one is given.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn call<O: Callable>(&mut self, token: Option<&BearerToken>, input: &O::Input) -> Result<O::Output, Trouble> {
        let Self { runtime, timeout, transport } = self;
        let call = async {
            match transport {
                Transport::Rest(rest) => rest.call::<O>(token, input).await,
                Transport::Grpc(grpc) => grpc.call::<O>(token, input).await,
            }
        };
        let answer = async { tokio::time::timeout(*timeout, call).await };
        runtime.block_on(answer).unwrap_or(Err(Trouble::TooSlow(*timeout)))
    }
}
