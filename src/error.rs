//! The one error of the house: a closed [`Kind`], a message for the client and, apart from it, one for the log.
//! Knows no HTTP, no gRPC and no SQL; `wire::fault` maps kinds to both protocols.

use std::borrow::Cow;
use std::fmt;

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, as far as a caller may tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request itself is malformed or breaks a rule that needs no look at stored state.
    InvalidRequest,
    /// No good token, or a login that failed for whatever reason.
    Unauthorized,
    /// A good token that doesn't reach this far, or a wrong current password or code inside a session.
    Forbidden,
    /// There is no such path or object.
    NotFound,
    /// The path is there, the method isn't.
    MethodNotAllowed,
    /// The state of the object doesn't allow it.
    Conflict,
    /// A [`Kind::Conflict`] of its own in gRPC: the name belongs to somebody else.
    NameTaken,
    /// The body is over the limit.
    PayloadTooLarge,
    /// The body isn't JSON, or comes encoded.
    UnsupportedMediaType,
    /// Too many requests from one client network.
    RateLimited,
    /// A fault of ours; the cause is in the log only.
    Internal,
    /// Not now: overloaded, read-only, draining, or the clock is behind.
    Unavailable,
    /// The caller's own deadline has passed (gRPC only).
    DeadlineExceeded,
    /// There is no such method (gRPC only).
    Unimplemented,
}

/// An error on its way to a client and to the log.
///
/// `client` never carries a cause: no SQL text, no path, nothing of the request that could be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    client: Cow<'static, str>,
    log: Option<String>,
    retry_after: Option<u32>,
}

impl Error {
    /// An error with a message for the client.
    pub fn new(kind: Kind, client: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, client: client.into(), log: None, retry_after: None }
    }

    /// 400: what was wrong with the request, named.
    pub fn invalid(client: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::InvalidRequest, client)
    }

    /// 401: one text for every reason.
    pub fn unauthorized() -> Self {
        Self::new(Kind::Unauthorized, "authentication failed")
    }

    /// 403.
    pub fn forbidden(client: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Forbidden, client)
    }

    /// 404.
    pub fn not_found(client: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::NotFound, client)
    }

    /// 409.
    pub fn conflict(client: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Conflict, client)
    }

    /// 500: the client learns nothing, `log` says what happened.
    pub fn internal(log: impl Into<String>) -> Self {
        Self::new(Kind::Internal, "internal error").because(log)
    }

    /// 503, to be tried again after `retry_after` seconds.
    pub fn unavailable(client: impl Into<Cow<'static, str>>, retry_after: u32) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(Kind::Unavailable, client) }
    }

    /// 429, to be tried again after `retry_after` seconds.
    pub fn rate_limited(retry_after: u32) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(Kind::RateLimited, "too many requests") }
    }

    /// Adds the seconds after which trying again makes sense.
    pub fn after(self, retry_after: u32) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }

    /// Adds what only the log may know.
    pub fn because(mut self, log: impl Into<String>) -> Self {
        self.log = Some(log.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message for the client.
    pub fn client(&self) -> &str {
        &self.client
    }

    /// The message for the log, if there is more to say than to the client.
    pub fn log(&self) -> Option<&str> {
        self.log.as_deref()
    }

    /// Seconds after which trying again makes sense.
    pub fn retry_after(&self) -> Option<u32> {
        self.retry_after
    }
}

/// For the log and for the operator at the command line: the cause where there is one, else the client's message.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.log.as_deref().unwrap_or(&self.client))
    }
}

impl std::error::Error for Error {}
