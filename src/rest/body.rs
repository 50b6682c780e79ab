//! The request's body: whether there is one, of the right kind, not too large, in time.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderMap};
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::net::leftover;
use crate::wire::json::{MAX_BODY, Members};

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// A body that isn't read yet. Dropped unread, it is taken in and thrown away beside the answer.
pub(super) struct Waiting {
    body: Option<Incoming>,
    /// What was read of it to see whether there is anything in it.
    begun: Option<Bytes>,
    holds_back: bool,
}

impl Waiting {
    pub(super) fn new(body: Incoming, headers: &HeaderMap) -> Self {
        // Whoever asked first whether to send it (RFC 9110, 10.1.1) and is refused won't send it.
        Self { body: Some(body), begun: None, holds_back: headers.contains_key(EXPECT) }
    }

    /// Whether none was sent, or an empty one, which in chunks only its end tells.
    ///
    /// # Errors
    /// As [`Waiting::read`], for one that breaks off or comes too slowly.
    pub(super) async fn is_absent(&mut self) -> Result<bool> {
        let Some(body) = &mut self.body else { return Ok(true) };
        let begin = async {
            while let Some(frame) = body.frame().await {
                let data = frame.map_err(|_| broke_off())?.into_data().unwrap_or_default();
                if !data.is_empty() {
                    return Ok(Some(data));
                }
            }
            Ok(None)
        };
        self.begun = tokio::time::timeout(PATIENCE, begin).await.unwrap_or_else(|_| Err(too_slow()))?;
        Ok(self.begun.is_none())
    }

    /// Reads and parses it.
    ///
    /// # Errors
    /// `PayloadTooLarge` over 64 KiB; `InvalidRequest` for what isn't acceptable JSON, or comes too slowly.
    pub(super) async fn read(&mut self) -> Result<Members> {
        let Some(mut body) = self.body.take() else { return Err(Error::internal("a body was read twice")) };
        let too_large = || Error::new(Kind::PayloadTooLarge, "the body is larger than 64 KiB");
        let begun = self.begun.take().unwrap_or_default();
        let announced = body.size_hint().lower() + begun.len() as u64;
        if announced > MAX_BODY as u64 {
            self.body = Some(body);
            return Err(too_large());
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(announced as usize));
        bytes.extend_from_slice(&begun);
        let collect = async {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|_| broke_off())?;
                let Some(data) = frame.data_ref() else { continue };
                if bytes.len() + data.len() > MAX_BODY {
                    return Err(too_large());
                }
                bytes.extend_from_slice(data);
            }
            Ok(())
        };
        let collected = tokio::time::timeout(PATIENCE, collect).await;
        let outcome = collected.unwrap_or_else(|_| Err(too_slow()));
        if outcome.is_err() {
            self.body = Some(body);
        }
        outcome.and_then(|()| Members::parse(&bytes))
    }
}

fn broke_off() -> Error {
    Error::invalid("the body broke off")
}

fn too_slow() -> Error {
    Error::invalid("the body took longer than 30 s")
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|_| !self.holds_back) {
            leftover::take_in(body);
        }
    }
}

/// Checks that a body is JSON and not encoded.
///
/// # Errors
/// `UnsupportedMediaType`.
pub(super) fn check_type(headers: &HeaderMap) -> Result<()> {
    let unsupported = |why: &'static str| Error::new(Kind::UnsupportedMediaType, why);
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(unsupported("the body must not be encoded (Content-Encoding)"));
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(given), None) = (types.next(), types.next()) else {
        return Err(unsupported("the body must be sent as Content-Type: application/json"));
    };
    let essence = given.to_str().ok().and_then(|text| text.split(';').next()).unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(unsupported("the body must be sent as Content-Type: application/json"))
    }
}
