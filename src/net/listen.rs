//! The accept loop that both doors share.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;

use crate::net::connection::{self, Service};
use crate::net::connections::{Connections, Seldom};
use crate::net::door::{Door, Protocol};

/// How long to wait after an error that is ours, such as having no file descriptor left.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Accepts connections and serves each in a task of its own, until draining begins. Connections live on after that;
/// [`Connections::drain`] waits for them.
pub async fn serve<D: Door>(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    without_alpn: Protocol,
    door: D,
    connections: Arc<Connections>,
) {
    let service = Arc::new(Service {
        tls: TlsAcceptor::from(tls),
        without_alpn,
        http1: connection::http1(),
        http2: connection::http2(),
        door,
    });
    let failing = Seldom::default();
    let start = Instant::now();
    let mut draining = connections.draining();
    loop {
        let accepted = tokio::select! {
            biased;
            // An error here means that there is nobody left who could begin to drain, and no connections either.
            _ = draining.wait_for(|draining| *draining) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                let seat = match connections.admit(peer.ip()) {
                    Ok(seat) => seat,
                    Err(why) => {
                        tracing::debug!(%peer, why, "a connection was refused");
                        continue;
                    }
                };
                // Without it answers are late by a delayed acknowledgement; it can fail only if the peer is gone.
                let _ = socket.set_nodelay(true);
                let limits = *connections.time_limits();
                tokio::spawn(connection::run(service.clone(), socket, peer, seat, limits));
            }
            // The peer's errors use up a waiting connection each, ours don't.
            Err(e) if is_of_the_peer(&e) => {}
            Err(e) => {
                let tick = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
                failing.say(tick, || tracing::error!(error = %e, "no connection can be accepted"));
                sleep(BACK_OFF).await;
            }
        }
    }
}

fn is_of_the_peer(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
