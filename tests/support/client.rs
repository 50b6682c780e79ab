//! A client: requests put together, sent over connections that are kept, and answers that are held against the
//! contract whatever they are.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::ClientConfig;
use serde_json::{Value, json};

use super::answer::Answer;
use super::connection::{Connection, RawAnswer};
use super::http2::Http2;
use super::{Log, claims_of};

/// Where a server is reached, now and after its next start, and what was said there.
pub struct Door {
    address: Mutex<Option<SocketAddr>>,
    tls: Arc<ClientConfig>,
    log: Arc<Log>,
    idle: Mutex<Vec<Connection>>,
    answers: Mutex<Vec<String>>,
}

impl Door {
    pub(super) fn new(tls: Arc<ClientConfig>, log: Arc<Log>) -> Self {
        Self { address: Mutex::default(), tls, log, idle: Mutex::default(), answers: Mutex::default() }
    }

    pub(super) fn moved_to(&self, address: SocketAddr) {
        *self.address.lock().unwrap() = Some(address);
    }

    pub(super) fn gone(&self) {
        *self.address.lock().unwrap() = None;
        self.idle.lock().unwrap().clear();
    }

    /// The address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.address.lock().unwrap().ok_or_else(|| io::Error::other("the server isn't running"))
    }

    /// A new connection, HTTP/1.1 agreed on.
    pub fn connect(&self) -> io::Result<Connection> {
        self.connect_with(self.tls.clone())
    }

    /// A new connection with a TLS of the test's own.
    pub fn connect_with(&self, tls: Arc<ClientConfig>) -> io::Result<Connection> {
        Connection::open(self.address()?, tls)
    }

    /// TLS as its clients have it.
    pub fn tls(&self) -> &Arc<ClientConfig> {
        &self.tls
    }

    /// What the server has written.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Every answer that a [`Client`] got here, in words, after its request's method and path.
    pub fn answers(&self) -> Vec<String> {
        self.answers.lock().unwrap().clone()
    }

    fn exchange(&self, request: &[u8], to_head: bool) -> io::Result<RawAnswer> {
        let kept = || self.idle.lock().unwrap().pop();
        let mut connection = match std::iter::from_fn(kept).find(Connection::is_fresh) {
            Some(connection) => connection,
            None => self.connect()?,
        };
        connection.send(request)?;
        let answer = connection.receive(to_head)?;
        if answer.header("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close")) {
            self.idle.lock().unwrap().push(connection);
        }
        Ok(answer)
    }
}

/// A client, perhaps with a token, perhaps known as somebody. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    door: Arc<Door>,
    http2: Option<Arc<Http2>>,
    token: Option<String>,
    known_as: Option<Arc<KnownAs>>,
}

struct KnownAs {
    id: String,
    username: String,
    password: String,
}

impl Client {
    pub(super) fn new(door: Arc<Door>) -> Self {
        Self { door, http2: None, token: None, known_as: None }
    }

    /// The same, over one HTTP/2 connection that is made now.
    #[track_caller]
    pub fn over_http2(&self) -> Self {
        Self { http2: Some(Arc::new(Http2::connect(&self.door))), ..self.clone() }
    }

    /// The same, with another token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same, without a token.
    pub fn without_token(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    pub(super) fn known_as(self, id: &str, username: &str, password: &str) -> Self {
        let known_as = KnownAs { id: id.to_owned(), username: username.to_owned(), password: password.to_owned() };
        Self { known_as: Some(Arc::new(known_as)), ..self }
    }

    /// A session of an account's.
    #[track_caller]
    pub fn login(&self, username: &str, password: &str) -> Self {
        let answer = self.without_token().try_login(username, password).ok(200);
        let token = answer.text("token");
        let id = claims_of(token)["sub"].as_str().unwrap().to_owned();
        self.with_token(token).known_as(&id, username, password)
    }

    /// A login that may fail.
    pub fn try_login(&self, username: &str, password: &str) -> Request {
        self.post("/v1/auth/login").json(json!({"username": username, "password": password}))
    }

    /// Another session of the same account.
    #[track_caller]
    pub fn again(&self) -> Self {
        self.login(self.username(), self.password())
    }

    #[track_caller]
    fn who(&self) -> &KnownAs {
        self.known_as.as_ref().expect("the client isn't known as anybody")
    }

    /// The account's id.
    #[track_caller]
    pub fn id(&self) -> &str {
        &self.who().id
    }

    /// The account's name.
    #[track_caller]
    pub fn username(&self) -> &str {
        &self.who().username
    }

    /// The account's password.
    #[track_caller]
    pub fn password(&self) -> &str {
        &self.who().password
    }

    /// The token.
    #[track_caller]
    pub fn token(&self) -> &str {
        self.token.as_ref().expect("the client has no token")
    }

    /// The token's claims.
    #[track_caller]
    pub fn claims(&self) -> Value {
        claims_of(self.token())
    }

    /// The token's id.
    #[track_caller]
    pub fn jti(&self) -> String {
        self.claims()["jti"].as_str().unwrap().to_owned()
    }

    /// Whether the server says that the token is good.
    #[track_caller]
    pub fn is_good(&self) -> bool {
        let answer = self.without_token().post("/v1/token/validate").json(json!({"token": self.token()})).ok(200);
        match &answer["valid"] {
            Value::Bool(good) => *good,
            other => panic!("valid is {other}: {}", answer.story()),
        }
    }

    /// A request.
    pub fn request(&self, method: &str, path: &str) -> Request {
        let mut headers = Vec::new();
        if let Some(token) = &self.token {
            headers.push(("authorization".to_owned(), format!("Bearer {token}")));
        }
        Request { client: self.clone(), method: method.to_owned(), path: path.to_owned(), headers, body: None }
    }

    /// A GET.
    pub fn get(&self, path: &str) -> Request {
        self.request("GET", path)
    }

    /// An OPTIONS.
    pub fn options(&self, path: &str) -> Request {
        self.request("OPTIONS", path)
    }

    /// A POST, without a body until it is given one.
    pub fn post(&self, path: &str) -> Request {
        self.request("POST", path)
    }

    /// A PUT.
    pub fn put(&self, path: &str) -> Request {
        self.request("PUT", path)
    }

    /// A PATCH.
    pub fn patch(&self, path: &str) -> Request {
        self.request("PATCH", path)
    }

    /// A DELETE.
    pub fn delete(&self, path: &str) -> Request {
        self.request("DELETE", path)
    }
}

/// A request in the making.
#[derive(Clone)]
#[must_use = "it isn't sent yet"]
pub struct Request {
    client: Client,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request {
    /// Another method.
    pub fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// Another path.
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// One more parameter of the query.
    pub fn query(mut self, parameter: &str) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(parameter);
        self
    }

    /// One more header line.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// No header of that name.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    /// This JSON body, and the header that belongs to it.
    pub fn json(self, body: Value) -> Self {
        self.without("content-type").header("content-type", "application/json").body(body.to_string())
    }

    /// These bytes as body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// As if it came from there: for a server that trusts 127.0.0.0/8 as a proxy.
    pub fn forwarded_for(self, address: &str) -> Self {
        self.header("x-forwarded-for", address)
    }

    /// Sends it; what comes back keeps the contract.
    #[track_caller]
    pub fn send(self) -> Answer {
        let story = self.to_string();
        let log = self.client.door.log.clone();
        let answer = self.try_send().unwrap_or_else(|e| panic!("{story}\n\nno answer: {e}\n\n{}", log.tail()));
        answer.keeps_the_contract();
        answer
    }

    /// Sends it, and insists on this status.
    #[track_caller]
    pub fn ok(self, status: u16) -> Answer {
        let answer = self.send();
        assert_eq!(answer.status, status, "{}", answer.story());
        answer
    }

    /// Sends it, and insists on this error.
    #[track_caller]
    pub fn expect(self, status: u16, code: &str) -> Answer {
        let answer = self.ok(status);
        if answer.method != "HEAD" {
            assert_eq!(answer["code"], code, "{}", answer.story());
        }
        answer
    }

    /// Sends it to a server that may go away meanwhile.
    pub fn try_send(self) -> io::Result<Answer> {
        let raw = match &self.client.http2 {
            Some(http2) => http2.exchange(&self.method, &self.path, &self.headers, self.body.as_deref())?,
            None => self.client.door.exchange(&self.bytes(), self.method == "HEAD")?,
        };
        let answer =
            Answer::new(self.method.clone(), self.path.clone(), self.to_string(), raw, self.client.door.log.clone());
        self.client.door.answers.lock().unwrap().push(format!("{} {}\n{}", self.method, self.path, answer.told()));
        Ok(answer)
    }

    /// As HTTP/1.1.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\nhost: localhost\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if let Some(body) = &self.body {
            bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

/// In words, for a failure's story.
impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} {}{}", self.method, self.path, if self.client.http2.is_some() { " (HTTP/2)" } else { "" })?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value}")?;
        }
        match &self.body {
            Some(body) if body.len() > 4000 => write!(f, "\n({} bytes)", body.len()),
            Some(body) => write!(f, "\n{}", String::from_utf8_lossy(body)),
            None => Ok(()),
        }
    }
}
