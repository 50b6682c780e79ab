//! Errors as gRPC has them: the status of the table, the code word in `mcias-code`, a wait in `retry-after`.

use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Response, http};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::NO_GRPC;
use crate::error::{Error, Kind};
use crate::wire::fault;

/// The code word of REST.
const CODE: &str = "mcias-code";

/// An error as a status.
pub(super) fn of_error(error: &Error) -> Status {
    let row = fault::of(error.kind());
    let mut headers = HeaderMap::new();
    headers.insert(CODE, HeaderValue::from_static(row.code));
    if let Some(seconds) = error.retry_after() {
        headers.insert("retry-after", seconds.into());
    }
    Status::with_metadata(Code::from_i32(row.grpc), error.client(), MetadataMap::from_headers(headers))
}

/// An error as an answer that is nothing else.
pub(super) fn refusal(error: &Error) -> Response<Body> {
    of_error(error).into_http()
}

/// The answer to what is no gRPC request.
pub(super) fn no_grpc() -> Response<Body> {
    let mut response = refusal(&Error::new(Kind::UnsupportedMediaType, "this port speaks gRPC"));
    *response.status_mut() = NO_GRPC;
    response
}

/// The status of an answer; 0 where it has a message.
pub(super) fn of(response: &http::Response<Body>) -> u16 {
    // An error is an answer without a message, whose status stands in its headers.
    response.headers().get("grpc-status").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// What the library answers by itself, which has no code word, made to keep the table: a message that is too large, one
/// that can't be read, or none, and one that is compressed.
pub(super) fn by_the_table(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    let Some(status) = headers.get("grpc-status").filter(|_| !headers.contains_key(CODE)) else { return response };
    let error = match Code::from_bytes(status.as_bytes()) {
        Code::Ok => return response,
        Code::OutOfRange | Code::ResourceExhausted => Error::new(Kind::PayloadTooLarge, "the message is over 64 KiB"),
        Code::Unimplemented => Error::new(Kind::Unimplemented, "there is no such method, or no such compression"),
        Code::NotFound => Error::not_found("there is no such service"),
        Code::Unavailable => Error::unavailable("not now", 5),
        _ => Error::invalid("the message can't be read"),
    };
    refusal(&error)
}
