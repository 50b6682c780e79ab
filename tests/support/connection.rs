//! One TLS connection that speaks HTTP/1.1, or whatever bytes a test makes up.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::PATIENCE;

/// A client's TLS that trusts one CA and nothing else. `alpn` is in order of preference.
pub fn trusting(ca_pem: &str, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    trusting_with(ca_pem, alpn, rustls::ALL_VERSIONS)
}

/// The same, for some versions of TLS only.
pub fn trusting_with(
    ca_pem: &str,
    alpn: &[&[u8]],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    trusting_by(aws_lc_rs::default_provider(), ca_pem, alpn, versions)
}

/// The same, with cryptography of the test's choice.
pub fn trusting_by(
    provider: CryptoProvider,
    ca_pem: &str,
    alpn: &[&[u8]],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// A connection.
pub struct Connection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// Received, and no part of an answer yet.
    unread: Vec<u8>,
}

/// An answer as it came over the wire.
#[derive(Debug, Clone)]
pub struct RawAnswer {
    /// The status.
    pub status: u16,
    /// Status line and header lines as they came, without the empty line.
    pub head: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The statuses of the interim answers that came before.
    pub interim: Vec<u16>,
}

impl RawAnswer {
    /// The one value of a header, if it is there.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice:\n{}", self.head);
        value
    }
}

impl Connection {
    /// Connects and shakes hands.
    pub fn open(address: SocketAddr, tls: Arc<ClientConfig>) -> io::Result<Self> {
        let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut session = ClientConnection::new(tls, name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Self { stream: StreamOwned::new(session, socket), unread: Vec::new() })
    }

    /// The TLS session: its version, its key exchange, its certificate.
    pub fn session(&self) -> &ClientConnection {
        &self.stream.conn
    }

    /// Whether it can carry another request: nothing has come unasked, and the other end is open.
    pub(super) fn is_fresh(&self) -> bool {
        let socket = &self.stream.sock;
        let quiet = socket.set_nonblocking(true).is_ok()
            && matches!(socket.peek(&mut [0]), Err(e) if e.kind() == ErrorKind::WouldBlock);
        socket.set_nonblocking(false).is_ok() && quiet && self.unread.is_empty()
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// Sends bytes and insists that they were taken.
    #[track_caller]
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.send(bytes).unwrap_or_else(|e| panic!("the server takes no bytes: {e}"));
        self
    }

    /// Reads one answer to a request, which was a HEAD or not.
    pub fn receive(&mut self, to_head: bool) -> io::Result<RawAnswer> {
        let mut interim = Vec::new();
        loop {
            let head = self.receive_head()?;
            let mut lines = head.split("\r\n");
            let status_line = lines.next().unwrap_or_default();
            let bad = || io::Error::other(format!("not an HTTP/1.1 answer: {head:?}"));
            let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
            let status: u16 = status.ok_or_else(bad)?;
            let header = |line: &str| {
                let (name, value) = line.split_once(':')?;
                Some((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
            };
            let headers = lines.map(header).collect::<Option<Vec<_>>>().ok_or_else(bad)?;
            if (100..200).contains(&status) {
                interim.push(status);
                continue;
            }
            let length = headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.parse());
            let length = match length {
                _ if to_head || status == 204 => 0,
                Some(length) => length.map_err(io::Error::other)?,
                None => return Err(io::Error::other(format!("an answer without a length: {head:?}"))),
            };
            while self.unread.len() < length {
                self.receive_more()?;
            }
            let body = self.unread.drain(..length).collect();
            return Ok(RawAnswer { status, head, headers, body, interim });
        }
    }

    /// Reads one answer, and insists on it.
    #[track_caller]
    pub fn answer(&mut self) -> RawAnswer {
        self.receive(false).unwrap_or_else(|e| panic!("no answer: {e}"))
    }

    /// Reads one answer if it comes this soon.
    #[track_caller]
    pub fn answer_within(&mut self, wait: Duration) -> Option<RawAnswer> {
        self.stream.sock.set_read_timeout(Some(wait)).unwrap();
        let answer = self.receive(false);
        self.stream.sock.set_read_timeout(Some(PATIENCE)).unwrap();
        match answer {
            Ok(answer) => Some(answer),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(e) => panic!("no answer: {e}"),
        }
    }

    /// Whether the server closes now and says nothing more.
    pub fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && self.receive_more().is_err()
    }

    /// Reads some bytes; none once the server has closed.
    pub fn receive_bytes(&mut self) -> Vec<u8> {
        if self.unread.is_empty() {
            let _ = self.receive_more();
        }
        std::mem::take(&mut self.unread)
    }

    fn receive_head(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).take(end).collect();
                return String::from_utf8(head).map_err(io::Error::other);
            }
            self.receive_more()?;
        }
    }

    fn receive_more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            read => {
                self.unread.extend_from_slice(&buffer[..read]);
                Ok(())
            }
        }
    }
}
