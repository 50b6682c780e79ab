//! The call over REST: HTTP/1.1 over TLS, on one connection that is kept.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LINK, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::ClientConfig;
use serde_json::Value;
use zeroize::Zeroize;

use super::{Callable, Server, Trouble, Trust, tls};
use crate::error::{Error, Kind};
use crate::secret::BearerToken;
use crate::wire::answers::FromAnswer;
use crate::wire::fault;
use crate::wire::ops::Decl;
use crate::wire::requests::{self, ToRequest};

/// The longest answer that is read, in bytes: a page of a thousand events is under one megabyte.
const MAX_ANSWER: usize = 16 << 20;

/// What stands for itself in a segment of a path or a parameter (RFC 3986, section 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A server, and the connection to it.
pub(super) struct Rest {
    server: Server,
    tls: Arc<ClientConfig>,
    agent: &'static str,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Rest {
    pub fn new(server: Server, trust: &Trust, agent: &'static str) -> Result<Self, rustls::Error> {
        Ok(Self { server, tls: trust.config(b"http/1.1")?, agent, connection: None })
    }

    pub async fn call<O: Callable>(
        &mut self,
        token: Option<&BearerToken>,
        input: &O::Input,
    ) -> Result<O::Output, Trouble> {
        let mut answer = self.exchange(&O::DECL, token, input.to_request()).await?;
        let read = O::Output::from_answer(&mut answer.body, answer.next);
        wipe(&mut answer.body);
        read.ok_or_else(|| garbled(O::DECL.status, "the answer has another shape than expected"))
    }

    async fn exchange(
        &mut self,
        decl: &Decl,
        token: Option<&BearerToken>,
        request: requests::Request,
    ) -> Result<Answer, Trouble> {
        let request = self.request(decl, token, request)?;
        let response = self.send(request).await?;
        let status = response.status().as_u16();
        let (retry_after, next) = (number(response.headers(), RETRY_AFTER), next(response.headers()));
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|e| Trouble::Unreachable(format!("the answer broke off: {e}")))?.to_bytes();
        let body: Value = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body).map_err(|_| garbled(status, "the answer isn't JSON"))?,
        };
        if status == decl.status { Ok(Answer { body, next }) } else { Err(refusal(status, &body, retry_after)) }
    }

    fn request(
        &self,
        decl: &Decl,
        token: Option<&BearerToken>,
        request: requests::Request,
    ) -> Result<Request<Full<Bytes>>, Trouble> {
        let mut uri = format!("{}{}", self.server.base(), path(decl.path, &request.path));
        for (n, (name, value)) in request.query.iter().enumerate() {
            uri.push(if n == 0 { '?' } else { '&' });
            uri.push_str(name);
            uri.push('=');
            uri.extend(utf8_percent_encode(value, ENCODED));
        }
        let mut built = Request::builder()
            .method(decl.method.as_str())
            .uri(uri)
            .header(HOST, self.server.authority())
            .header(USER_AGENT, self.agent);
        if let Some(token) = token {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
            let mut value =
                value.map_err(|_| Trouble::Garbled("the token can't be one: it isn't plain text".into()))?;
            value.set_sensitive(true);
            built = built.header(AUTHORIZATION, value);
        }
        let body = match request.body {
            Some(body) => {
                built = built.header(CONTENT_TYPE, "application/json");
                // Not copied: what is sent is wiped when it is dropped.
                Bytes::from_owner(body)
            }
            None => Bytes::new(),
        };
        built.body(Full::new(body)).map_err(|e| Trouble::Garbled(format!("the request can't be written: {e}")))
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Trouble> {
        // A connection that the server has closed meanwhile is no trouble: nothing was sent on it yet.
        if let Some(mut kept) = self.connection.take()
            && kept.ready().await.is_ok()
        {
            let response = kept.send_request(request).await.map_err(|e| tls::broke_off(&e))?;
            self.connection = Some(kept);
            return Ok(response);
        }
        let mut fresh = connect(&self.server, self.tls.clone()).await?;
        let response = fresh.send_request(request).await.map_err(|e| tls::broke_off(&e))?;
        self.connection = Some(fresh);
        Ok(response)
    }
}

/// A good answer: its body, and the cursor of the next page.
struct Answer {
    body: Value,
    next: Option<String>,
}

async fn connect(server: &Server, tls: Arc<ClientConfig>) -> Result<SendRequest<Full<Bytes>>, Trouble> {
    let stream = tls::connect(server, tls).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| tls::broke_off(&e))?;
    // Its end shows in what is sent on it.
    tokio::spawn(connection);
    Ok(sender)
}

/// The path with its variable segments filled in.
fn path(template: &str, segments: &[String]) -> String {
    let mut segments = segments.iter();
    let mut out = String::new();
    for part in template.split('/').skip(1) {
        out.push('/');
        match part.starts_with('{') {
            true => out.extend(utf8_percent_encode(segments.next().map_or("", String::as_str), ENCODED)),
            false => out.push_str(part),
        }
    }
    out
}

fn number(headers: &HeaderMap, name: hyper::header::HeaderName) -> Option<u32> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The cursor in the `Link` to the next page.
fn next(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let (target, _) = link.strip_prefix('<')?.split_once(">; rel=\"next\"")?;
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix("cursor=")).map(str::to_owned)
}

fn refusal(status: u16, body: &Value, retry_after: Option<u32>) -> Trouble {
    let (Some(code), Some(message)) = (body["code"].as_str(), body["error"].as_str()) else {
        return garbled(status, "the answer isn't one of MCIAS");
    };
    let kind = fault::from_http(status, Some(code));
    let error = Error::new(kind, message.to_owned());
    Trouble::Refused(match retry_after.filter(|_| matches!(kind, Kind::RateLimited | Kind::Unavailable)) {
        Some(seconds) => error.after(seconds),
        None => error,
    })
}

fn garbled(status: u16, what: &str) -> Trouble {
    Trouble::Garbled(format!("{what} (HTTP status {status})"))
}

/// Wipes what strings are left in an answer.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_filled_in_and_encoded() {
        assert_eq!(path("/v1/health", &[]), "/v1/health");
        assert_eq!(
            path("/v1/accounts/{id}/roles/{role}", &["a/b".into(), "x:y".into()]),
            "/v1/accounts/a%2Fb/roles/x%3Ay"
        );
        assert_eq!(path("/.well-known/jwks.json", &[]), "/.well-known/jwks.json");
    }

    #[test]
    fn the_next_page_is_read_from_the_link() {
        let read = |link: &str| next(&HeaderMap::from_iter([(LINK, link.parse().unwrap())]));
        assert_eq!(read("</v1/audit?limit=5&cursor=abc-_1>; rel=\"next\"").as_deref(), Some("abc-_1"));
        for none in ["</v1/audit?limit=5>; rel=\"next\"", "</v1/audit?cursor=a>; rel=\"prev\"", "", "x"] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn errors_are_read_back_by_the_table() {
        for row in fault::TABLE {
            let body = serde_json::json!({"error": "no", "code": row.code});
            let Trouble::Refused(error) = refusal(row.http, &body, Some(7)) else { panic!("{row:?}") };
            assert_eq!(fault::of(error.kind()).code, row.code);
            assert_eq!(error.client(), "no");
            let waits = matches!(error.kind(), Kind::RateLimited | Kind::Unavailable);
            assert_eq!(error.retry_after(), waits.then_some(7));
        }
        assert!(matches!(refusal(502, &serde_json::json!({"message": "bad gateway"}), None), Trouble::Garbled(_)));
    }
}
