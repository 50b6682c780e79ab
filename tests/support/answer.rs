//! An answer, and what every answer has to be like.

use std::ops::Index;
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::Log;
use super::connection::RawAnswer;

/// An answer, with the request it is to.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The request's method.
    pub method: String,
    /// The request's path.
    pub path: String,
    raw: RawAnswer,
    request: String,
    json: Option<Value>,
    log: Arc<Log>,
}

/// The codes of errors with their statuses, as the contract has them.
const CODES: &[(u16, &str)] = &[
    (400, "invalid_request"),
    (401, "unauthorized"),
    (403, "forbidden"),
    (404, "not_found"),
    (405, "method_not_allowed"),
    (409, "conflict"),
    (413, "payload_too_large"),
    (415, "unsupported_media_type"),
    (429, "rate_limited"),
    (500, "internal"),
    (503, "unavailable"),
];

impl Answer {
    pub(super) fn new(method: String, path: String, request: String, raw: RawAnswer, log: Arc<Log>) -> Self {
        let json = serde_json::from_slice(&raw.body).ok();
        Self { status: raw.status, method, path, raw, request, json, log }
    }

    /// As it came over the wire.
    pub fn raw(&self) -> &RawAnswer {
        &self.raw
    }

    /// The body's bytes.
    pub fn body(&self) -> &[u8] {
        &self.raw.body
    }

    /// A header, if it is there.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.raw.header(name)
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> &Value {
        self.json.as_ref().unwrap_or_else(|| panic!("the answer isn't JSON\n{}", self.story()))
    }

    /// A member that is a string.
    #[track_caller]
    pub fn text(&self, member: &str) -> &str {
        self[member].as_str().unwrap_or_else(|| panic!("{member} is no string\n{}", self.story()))
    }

    /// Insists on this body.
    #[track_caller]
    pub fn is(&self, body: Value) -> &Self {
        assert_eq!(*self.json(), body, "\n{}", self.story());
        self
    }

    /// Status line, headers and body, without what differs from one answer to the next whatever is in them: the
    /// request's id and the date.
    pub fn without_id_and_date(&self) -> String {
        let differs =
            |line: &&str| !["x-request-id:", "date:"].iter().any(|n| line.to_ascii_lowercase().starts_with(n));
        let head: Vec<&str> = self.raw.head.split("\r\n").filter(differs).collect();
        format!("{}\r\n\r\n{}", head.join("\r\n"), String::from_utf8_lossy(&self.raw.body))
    }

    /// The request, the answer, and the end of the server's log.
    pub fn story(&self) -> String {
        // The server writes the line of a request before it answers, but this end may be the quicker reader.
        std::thread::sleep(std::time::Duration::from_millis(20));
        format!(
            "\n{}\n\n-- was answered --\n\n{}\n\n-- and the log says --\n\n{}\n",
            self.request,
            self.told(),
            self.log.tail()
        )
    }

    /// The answer in words.
    pub(super) fn told(&self) -> String {
        format!("{}\n\n{}", self.raw.head.replace('\r', ""), String::from_utf8_lossy(&self.raw.body))
    }

    /// Insists on what the contract says of every answer.
    #[track_caller]
    pub(super) fn keeps_the_contract(&self) {
        let must = |holds: bool, what: &str| assert!(holds, "{what}\n{}", self.story());
        for (n, (name, _)) in self.raw.headers.iter().enumerate() {
            must(!self.raw.headers[..n].iter().any(|(other, _)| other == name), "a header is there twice");
        }
        let path = self.path.split('?').next().unwrap_or_default();
        let keys = path == "/.well-known/jwks.json" && self.status == 200;
        let cached = if keys { "public, max-age=300" } else { "no-store" };
        must(self.header("cache-control") == Some(cached), "Cache-Control");
        must(self.header("x-content-type-options") == Some("nosniff"), "X-Content-Type-Options");
        let id = self.header("x-request-id").unwrap_or_default();
        must(Uuid::parse_str(id).is_ok_and(|uuid| uuid.hyphenated().to_string() == id), "X-Request-Id");
        must(self.header("date").is_some(), "Date");
        must(self.header("server").is_none() && self.header("set-cookie").is_none(), "a header too many");

        let challenge = (self.status == 401).then_some("Bearer");
        must(self.header("www-authenticate") == challenge, "WWW-Authenticate with 401 only");
        let options = self.method == "OPTIONS" && self.status == 204;
        must(self.header("allow").is_some() == (self.status == 405 || options), "Allow with 405 and OPTIONS only");
        let later = self.header("retry-after").map(|seconds| seconds.parse::<u32>().is_ok_and(|s| s >= 1));
        must(later == matches!(self.status, 429 | 503).then_some(true), "Retry-After with 429 and 503 only");
        must(self.header("link").is_none() || self.status == 200, "Link with 200 only");

        if self.status == 204 {
            must(self.body().is_empty() && self.header("content-length").is_none(), "204 has no body");
            must(self.header("content-type").is_none(), "204 has no type");
            return;
        }
        must(self.header("content-type") == Some("application/json"), "Content-Type");
        if self.method == "HEAD" {
            let length = self.header("content-length").and_then(|length| length.parse::<u64>().ok());
            must(self.body().is_empty() && length.is_some_and(|length| length > 0), "HEAD");
            return;
        }
        must(self.json.is_some(), "the body isn't JSON");
        must(!self.told().contains("$argon2"), "a password hash");
        if self.status < 400 {
            if let (201, Some(id)) = (self.status, self.json().get("id").and_then(Value::as_str)) {
                must(self.header("location") == Some(&format!("{path}/{id}")), "Location");
            }
            return;
        }
        let code = CODES.iter().find(|(status, _)| *status == self.status).map(|(_, code)| *code);
        must(code.is_some() && self.json().get("code").and_then(Value::as_str) == code, "the code of this status");
        let message = self.json().get("error").and_then(Value::as_str);
        must(message.is_some_and(|text| !text.is_empty()), "an error for a person");
        must(self.json().as_object().is_some_and(|members| members.len() == 2), "nothing but error and code");
    }
}

impl Index<&str> for Answer {
    type Output = Value;

    #[track_caller]
    fn index(&self, member: &str) -> &Value {
        self.json().get(member).unwrap_or_else(|| panic!("the answer has no {member}\n{}", self.story()))
    }
}

impl Index<usize> for Answer {
    type Output = Value;

    #[track_caller]
    fn index(&self, n: usize) -> &Value {
        self.json().get(n).unwrap_or_else(|| panic!("the answer has no element {n}\n{}", self.story()))
    }
}
