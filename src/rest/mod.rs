//! The REST door: from a request to an answer, in the order of refusals of `spec/rest.md`. Knows no operation by name
//! but those it has to treat differently.

mod answer;
mod body;
mod routes;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response};

use crate::error::{Error, Kind};
use crate::model::account::AccountId;
use crate::net::bearer::bearer;
use crate::net::house::House;
use crate::net::log;
use crate::net::peer::client_address;
use crate::service::Call;
use crate::service::access::AnyToken;
use crate::wire::json::{Body, Parts, Query, Reply};
use crate::wire::ops::{self, Operation};

use answer::{Answered, RequestId};
use routes::{Found, Routes};

pub use routes::table;

/// The REST door.
pub struct Rest {
    house: Arc<House>,
    routes: Routes,
}

impl Rest {
    /// Opens the door of a house.
    pub fn new(house: Arc<House>) -> Self {
        Self { house, routes: Routes::new() }
    }

    /// Answers one request; logs it.
    pub async fn handle(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        let begun = Instant::now();
        let id = RequestId::new();
        let forwarded = request.headers().get_all("x-forwarded-for").iter().map(|value| value.as_bytes());
        let ip = client_address(peer, forwarded, &self.house.trusted_proxies);
        let head_only = request.method() == Method::HEAD;
        let method = request.method().clone();
        let path = request.uri().path().to_owned();

        let response = match self.answer(request, ip).await {
            Ok(answered) => answered.into_response(&id),
            Err(refusal) => {
                log::refusal(id.as_str(), &refusal.error);
                refusal.into_response(&id)
            }
        };
        log::request(id.as_str(), method.as_str(), &path, response.status().as_u16(), begun.elapsed(), ip);
        if head_only { answer::without_body(response) } else { response }
    }

    async fn answer(&self, request: Request<Incoming>, ip: IpAddr) -> std::result::Result<Answered, Refusal> {
        let (head, body) = request.into_parts();
        let mut body = body::Waiting::new(body, &head.headers);
        let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
        let (route, segments) = match self.routes.find(method, head.uri.path()) {
            Found::Route(route, segments) => (route, segments),
            Found::Options(allow) => {
                self.house.service.admit()?;
                return Ok(Answered::options(allow));
            }
            found => {
                self.house.service.admit()?;
                return Err(match found {
                    Found::OtherMethods(allow) => Refusal { allow: Some(allow), ..method_not_allowed().into() },
                    _ => Error::not_found("there is no such path").into(),
                });
            }
        };
        let decl = route.decl();
        if decl.name != ops::Health::DECL.name {
            self.house.service.admit()?;
        }
        self.house.limiter.take(decl.bucket, ip, Instant::now()).map_err(Error::rate_limited)?;
        let bearer = bearer(&head.headers);
        let owner = route.owner(&segments);
        let admitted = route.bound.ask(&self.house.service, bearer.as_ref(), owner)?;

        let members = match decl.body {
            Body::None => None,
            Body::Optional if body.is_absent().await? => None,
            Body::Optional | Body::Required => {
                body::check_type(&head.headers)?;
                Some(body.read().await?)
            }
        };
        // Here the token is the input; in the header it comes before what is wrong with the query, as everywhere.
        if decl.name == ops::ValidateToken::DECL.name && members.is_none() && head.uri.query().is_some() {
            AnyToken::ask(&self.house.service, bearer.as_ref())?;
        }
        let query = Query::parse(head.uri.query().unwrap_or_default())?;
        let mut parts = Parts { path: segments, query, body: members, bearer };
        let job = match admitted.read(&mut parts) {
            // What is wrong with the query comes before an object that isn't there.
            Err(e) if e.kind() == Kind::NotFound => parts.query.finish().and(Err(e)),
            read => read.and_then(|job| parts.query.finish().map(|()| job)),
        }?;

        let service = self.house.service.clone();
        let call = Call { ip: Some(ip) };
        let work = move || job(&service, &call);
        let reply: Reply = self.house.lanes.run(decl.lane, ip, None, work).await?;
        if decl.name == ops::Login::DECL.name {
            self.house.lanes.logged_in(ip);
        }
        Ok(Answered::of(reply, decl.status, &head.uri))
    }
}

/// An error on its way out, with what belongs to it in HTTP.
struct Refusal {
    error: Error,
    allow: Option<String>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, allow: None }
    }
}

fn method_not_allowed() -> Error {
    Error::new(Kind::MethodNotAllowed, "this path has other methods")
}

/// The account that a path is about, if its first variable segment is one.
fn owner_of(segments: &[String]) -> Option<AccountId> {
    segments.first().and_then(|segment| AccountId::parse(segment))
}
