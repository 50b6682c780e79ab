//! The gRPC door (`spec/grpc.md`): from a request to an answer, in the order log, rate limit, access, message. Beside the
//! operations it serves health and reflection as every gRPC server does. Knows no operation by name but those it has to
//! treat differently.

mod body;
mod codec;
mod health;
mod methods;
mod status;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::Instant;
use tonic::body::Body;
use tonic_health::pb::health_server::HealthServer;

use crate::error::{Error, Kind, Result};
use crate::net::house::House;
use crate::net::log;
use crate::net::peer::client_address;
use crate::service;
use crate::wire::ops::{self, Bucket, Operation};
use crate::wire::proto::{DESCRIPTORS, MAX_MESSAGE};

use body::{Closing, Patient, Tidy};
use health::Health;
use methods::{Caller, Methods, Mounted, mounted};

pub use methods::table;

/// The gRPC door.
pub struct Grpc {
    house: Arc<House>,
    methods: Methods,
    health: Mounted,
    reflection: [(&'static str, Mounted); 2],
}

impl Grpc {
    /// Opens the door of a house.
    ///
    /// # Errors
    /// `Internal` where the descriptors can't be read, which a test rules out.
    pub fn new(house: Arc<House>) -> Result<Self> {
        let unread = |e: tonic_reflection::server::Error| Error::internal(format!("gRPC descriptors: {e}"));
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let v1 = builder().build_v1().map_err(unread)?.max_decoding_message_size(MAX_MESSAGE);
        let v1alpha = builder().build_v1alpha().map_err(unread)?.max_decoding_message_size(MAX_MESSAGE);
        let health = HealthServer::new(Health::new(house.clone())).max_decoding_message_size(MAX_MESSAGE);
        Ok(Self {
            methods: Methods::new(),
            health: mounted(health),
            reflection: [
                ("/grpc.reflection.v1.ServerReflection/", mounted(v1)),
                ("/grpc.reflection.v1alpha.ServerReflection/", mounted(v1alpha)),
            ],
            house,
        })
    }

    /// Answers one request; logs it.
    pub async fn handle(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let begun = Instant::now();
        let id = service::request_id().hyphenated().to_string();
        let forwarded = request.headers().get_all("x-forwarded-for").iter().map(|value| value.as_bytes());
        let ip = client_address(peer, forwarded, &self.house.trusted_proxies);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());

        let response = match self.answer(request.map(Tidy::new), &id, ip).await {
            Ok(response) => response,
            Err(error) => {
                log::refusal(&id, &error);
                status::refusal(&error)
            }
        };
        let code = status::of(&response);
        log::request(&id, method.as_str(), &path, code, begun.elapsed(), ip);
        response
    }

    async fn answer(&self, request: Request<Tidy>, id: &str, ip: IpAddr) -> Result<Response<Body>> {
        if !is_grpc(&request) {
            return Ok(status::no_grpc());
        }
        let path = request.uri().path();
        let beside = std::iter::once(("/grpc.health.v1.Health/", &self.health))
            .chain(self.reflection.iter().map(|(prefix, service)| (*prefix, service)));
        let (answer, deadline) = if let Some(method) = self.methods.find(path) {
            let decl = method.decl();
            if decl.name != ops::Health::DECL.name {
                self.house.service.admit()?;
            }
            self.house.limiter.take(decl.bucket, ip, Instant::now().into()).map_err(Error::rate_limited)?;
            let call = method.ask(&self.house, request.headers())?;
            let deadline = deadline(request.headers())?;
            let caller = Caller { id: id.to_owned(), ip, deadline };
            (call(self.house.clone(), request.map(Patient::new), caller), deadline)
        } else if let Some((_, service)) = beside.into_iter().find(|(prefix, _)| path.starts_with(prefix)) {
            self.house.limiter.take(Bucket::Api, ip, Instant::now().into()).map_err(Error::rate_limited)?;
            let deadline = deadline(request.headers())?;
            (service(request.map(|body| Body::new(Closing::new(body, self.house.clone())))), deadline)
        } else {
            self.house.service.admit()?;
            return Err(Error::new(Kind::Unimplemented, "there is no such method"));
        };
        let answered = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, answer).await.map_err(|_| too_late())?,
            None => answer.await,
        };
        Ok(status::by_the_table(answered))
    }
}

fn too_late() -> Error {
    Error::new(Kind::DeadlineExceeded, "the deadline has passed")
}

/// Whether it is a gRPC request at all (gRPC over HTTP/2, "Requests").
fn is_grpc<B>(request: &Request<B>) -> bool {
    let given = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let rest = given.strip_prefix("application/grpc");
    request.method() == Method::POST && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// The caller's own deadline: at most eight digits and a unit (gRPC over HTTP/2, "Timeout"). One that has passed already
/// is an error.
fn deadline(headers: &HeaderMap) -> Result<Option<Instant>> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let wrong = || Error::invalid("grpc-timeout must be at most eight digits and a unit");
    let text = value.to_str().map_err(|_| wrong())?;
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
    let span = match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return Err(wrong()),
    };
    if span.is_zero() {
        return Err(too_late());
    }
    // One that the clock can't count to is none.
    Ok(Instant::now().checked_add(span))
}

/// What is no gRPC gets an answer of HTTP's.
const NO_GRPC: StatusCode = StatusCode::UNSUPPORTED_MEDIA_TYPE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_as_grpc_writes_them() {
        let read = |text: &str| {
            let headers = HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]);
            let now = Instant::now();
            deadline(&headers).map(|deadline| deadline.map(|deadline| deadline.saturating_duration_since(now)))
        };
        for (text, least) in [("1H", 3600), ("2M", 120), ("30S", 30), ("99999999S", 99_999_999), ("5000m", 5)] {
            let span = read(text).unwrap().unwrap();
            assert!(span >= Duration::from_secs(least) && span < Duration::from_secs(least + 5), "{text}");
        }
        assert!(read("1n").unwrap().is_some() && deadline(&HeaderMap::new()).unwrap().is_none());
        for passed in ["0n", "00000000H"] {
            assert_eq!(read(passed).unwrap_err().kind(), Kind::DeadlineExceeded, "{passed}");
        }
        for bad in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", "1 S", " 1S"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
