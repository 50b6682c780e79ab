//! Answers as bytes: the headers that every answer has, errors in their one shape, links to the next page.

use std::borrow::Cow;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LINK, LOCATION,
    RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::Refusal;
use crate::error::Kind;
use crate::service;
use crate::wire::fault;
use crate::wire::json::Reply;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request's id: ours, random, in the answer and in the log.
pub(super) struct RequestId(String);

impl RequestId {
    pub(super) fn new() -> Self {
        Self(service::request_id().hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).to_owned())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A good answer, before it has the headers that all have.
pub(super) struct Answered {
    status: u16,
    headers: HeaderMap,
    body: Option<Bytes>,
}

impl Answered {
    /// From what an operation replied.
    pub(super) fn of(reply: Reply, status: u16, uri: &Uri) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in reply.headers {
            set(&mut headers, HeaderName::from_static(name), &value);
        }
        if status == 201
            && let Some(id) = reply.body.as_ref().and_then(|body| body.get("id")).and_then(|id| id.as_str())
        {
            set(&mut headers, LOCATION, &format!("{}/{id}", uri.path()));
        }
        if let Some(cursor) = &reply.next {
            set(&mut headers, LINK, &next_page(uri, cursor));
        }
        let body = match (reply.text, reply.body) {
            (Some(Cow::Borrowed(text)), _) => Some(Bytes::from_static(text.as_bytes())),
            (Some(Cow::Owned(text)), _) => Some(text.into()),
            (None, body) => body.map(|body| body.to_string().into()),
        };
        Self { status, headers, body }
    }

    /// The answer to OPTIONS.
    pub(super) fn options(allow: String) -> Self {
        let mut headers = HeaderMap::new();
        set(&mut headers, ALLOW, &allow);
        Self { status: 204, headers, body: None }
    }

    pub(super) fn into_response(self, id: &RequestId) -> Response<Full<Bytes>> {
        response(self.status, self.headers, self.body, id)
    }
}

impl Refusal {
    pub(super) fn into_response(self, id: &RequestId) -> Response<Full<Bytes>> {
        let row = fault::of(self.error.kind());
        let mut headers = HeaderMap::new();
        if self.error.kind() == Kind::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.error.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = &self.allow {
            set(&mut headers, ALLOW, allow);
        }
        let body = json!({"error": self.error.client(), "code": row.code}).to_string();
        response(row.http, headers, Some(body.into()), id)
    }
}

fn response(status: u16, mut headers: HeaderMap, body: Option<Bytes>, id: &RequestId) -> Response<Full<Bytes>> {
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    set(&mut headers, X_REQUEST_ID, id.as_str());
    if body.is_some() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let mut response = Response::new(Full::new(body.unwrap_or_default()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    response
}

/// The same answer for HEAD: its headers, its length, no body.
pub(super) fn without_body(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let length = hyper::body::Body::size_hint(response.body()).exact();
    if let Some(length) = length.filter(|_| response.status() != StatusCode::NO_CONTENT) {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.body_mut() = Full::default();
    response
}

/// A relative link to the next page: the same path and filters, with the new cursor (RFC 8288).
fn next_page(uri: &Uri, cursor: &str) -> String {
    let kept = uri.query().unwrap_or_default().split('&').filter(|pair| {
        !pair.is_empty() && !percent_decode_str(pair.split('=').next().unwrap_or_default()).eq(*b"cursor")
    });
    let query: Vec<&str> = kept.collect();
    let separator = if query.is_empty() { "" } else { "&" };
    format!("<{}?{}{separator}cursor={cursor}>; rel=\"next\"", uri.path(), query.join("&"))
}

/// Sets a header from text that is ours, or was checked to be printable ASCII; what isn't is left out.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_keeps_the_filters_and_replaces_the_cursor() {
        let link = |uri: &str| next_page(&uri.parse().unwrap(), "abc");
        assert_eq!(link("/v1/accounts"), "</v1/accounts?cursor=abc>; rel=\"next\"");
        assert_eq!(
            link("/v1/accounts?status=active&cursor=old&limit=2"),
            "</v1/accounts?status=active&limit=2&cursor=abc>; rel=\"next\""
        );
        assert_eq!(link("/v1/accounts?%63urs%6Fr=old"), "</v1/accounts?cursor=abc>; rel=\"next\"");
    }
}
