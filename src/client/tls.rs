//! The connection to a server: TCP, and TLS that believes nobody but whom it is told to.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Server, Trouble};

/// Connects.
pub(super) async fn connect(server: &Server, tls: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, Trouble> {
    let socket = TcpStream::connect((server.host(), server.port())).await;
    let socket = socket.map_err(|e| Trouble::Unreachable(reason(&e)))?;
    // Without it a request may wait for an acknowledgement; it can fail only if the server is gone.
    let _ = socket.set_nodelay(true);
    let name = ServerName::try_from(server.host().to_owned())
        .map_err(|_| Trouble::Unreachable(format!("{} can't be a host's name", server.host())))?;
    TlsConnector::from(tls).connect(name, socket).await.map_err(|e| hand_shake(&e))
}

/// A connection that ended before its time.
pub(super) fn broke_off(e: &hyper::Error) -> Trouble {
    Trouble::Unreachable(format!("the connection broke off: {e}"))
}

/// The system's words for it, without the number.
fn reason(e: &io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn hand_shake(e: &io::Error) -> Trouble {
    match e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => Trouble::NotTrusted(why.into()),
        Some(error) => Trouble::Unreachable(format!("TLS failed: {error}")),
        None => Trouble::Unreachable(format!("the TLS hand-shake broke off: {}", reason(e))),
    }
}
