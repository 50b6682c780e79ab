//! One connection from hand-shake to end: TLS, the protocol that was agreed on, and the supervisor that applies the
//! time limits and carries out orders.

use std::convert::Infallible;
use std::future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::net::activity::{Activity, Order, Plain, Verdict, Wire};
use crate::net::connections::{Seat, TimeLimits};
use crate::net::door::{ConnInfo, Door, Protocol};

/// The header block of a request, all together.
const MAX_HEADER: usize = 16 * 1024;
const H2_MAX_STREAMS: u32 = 128;
const H2_STREAM_WINDOW: u32 = 64 * 1024;
const H2_CONNECTION_WINDOW: u32 = 256 * 1024;
const H2_MAX_FRAME: u32 = 16 * 1024;
/// What one answer may have waiting for room.
const H2_SEND_BUFFER: usize = 64 * 1024;
/// Streams that the peer reset before we came to them, and streams that we reset for its errors: a peer that has more
/// of either is attacking (CVE-2023-44487, CVE-2025-8671).
const H2_MAX_PENDING_RESETS: usize = 20;
const H2_MAX_LOCAL_RESETS: usize = 64;
const H2_PING_INTERVAL: Duration = Duration::from_secs(20);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How much of what a peer still sends is read and thrown away after the last answer.
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// What the connections of one listener have in common.
pub(super) struct Service<D> {
    pub(super) tls: TlsAcceptor,
    pub(super) without_alpn: Protocol,
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<TokioExecutor>,
    pub(super) door: D,
}

/// HTTP/1 with our limits. Its own header time-out stays off: it runs while a connection idles, too.
pub(super) fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_header_size(MAX_HEADER).max_buf_size(MAX_HEADER);
    builder
}

/// HTTP/2 with our limits.
pub(super) fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_MAX_STREAMS)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_frame_size(H2_MAX_FRAME)
        .max_header_list_size(MAX_HEADER as u32)
        .max_send_buf_size(H2_SEND_BUFFER)
        .max_pending_accept_reset_streams(H2_MAX_PENDING_RESETS)
        .max_local_error_reset_streams(H2_MAX_LOCAL_RESETS)
        .keep_alive_interval(H2_PING_INTERVAL)
        .keep_alive_timeout(H2_PING_TIMEOUT);
    builder
}

/// Runs a connection to its end.
pub(super) async fn run<D: Door>(
    service: Arc<Service<D>>,
    socket: TcpStream,
    peer: SocketAddr,
    seat: Seat,
    limits: TimeLimits,
) {
    let activity = &seat.activity;
    let wire = Wire { socket, activity: activity.clone() };
    let shaken = tokio::select! {
        shaken = timeout(limits.handshake, service.tls.accept(wire)) => shaken,
        order = activity.order_beyond(Order::Stay) => {
            tracing::debug!(%peer, ?order, "the hand-shake was given up");
            return;
        }
    };
    let mut tls = match shaken {
        Ok(Ok(tls)) => tls,
        Ok(Err(e)) => return tracing::debug!(%peer, error = %e, "the hand-shake failed"),
        Err(_) => return tracing::debug!(%peer, "the hand-shake took too long"),
    };
    activity.begin_idling();

    let end = serve(&service, &mut tls, peer, activity, &limits).await;
    match end {
        End::Itself(result) => {
            if let Err(e) = result {
                tracing::debug!(%peer, error = %e, "the connection ended badly");
            }
            if !activity.peer_is_done() {
                let _ = timeout(limits.farewell, linger(&mut tls)).await;
            }
        }
        End::Asked => {}
        End::Cut(why) => tracing::debug!(%peer, why, "the connection was cut off"),
    }
}

async fn serve<D: Door>(
    service: &Service<D>,
    tls: &mut TlsStream<Wire<TcpStream>>,
    peer: SocketAddr,
    activity: &Arc<Activity>,
    limits: &TimeLimits,
) -> End {
    let protocol = match tls.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        Some(_) => Protocol::Http1,
        None => service.without_alpn,
    };
    let handler = service_fn(|request: Request<Incoming>| {
        let underway = activity.request();
        let answer = service.door.answer(request, ConnInfo { peer });
        async move { Ok::<_, Infallible>(answer.await.map(|body| underway.answer(body))) }
    });
    match protocol {
        Protocol::Http1 => {
            let stream = TokioIo::new(Plain { stream: tls, activity: activity.clone() });
            let connection = service.http1.serve_connection(stream, handler);
            supervise(connection, http1::Connection::graceful_shutdown, activity, limits).await
        }
        Protocol::Http2 => {
            let connection = service.http2.serve_connection(TokioIo::new(tls), handler);
            supervise(connection, http2::Connection::graceful_shutdown, activity, limits).await
        }
    }
}

/// How a connection ended.
enum End {
    /// By itself: the peer closed, it was the last request, or something was wrong.
    Itself(hyper::Result<()>),
    /// By itself, after being asked to.
    Asked,
    /// Not by itself.
    Cut(&'static str),
}

async fn supervise<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    finish: fn(Pin<&mut C>),
    activity: &Activity,
    limits: &TimeLimits,
) -> End {
    let mut connection = pin!(connection);
    let mut alarm = pin!(sleep(limits.shortest()));
    let mut heard = Order::Stay;
    let mut finishing = None;
    loop {
        let wants_finish = tokio::select! {
            biased;
            result = connection.as_mut() => {
                return if finishing.is_some() { End::Asked } else { End::Itself(result) };
            }
            order = activity.order_beyond(heard) => {
                heard = order;
                if order == Order::Cut {
                    return End::Cut("its place is needed, or the server stops");
                }
                true
            }
            () = alarm.as_mut() => {
                let now = activity.tick();
                match activity.judge(now, finishing, limits) {
                    Verdict::Cut(why) => return End::Cut(why),
                    Verdict::Finish => true,
                    Verdict::Fine(next) => {
                        alarm.as_mut().reset(Instant::now() + Duration::from_millis(next - now));
                        false
                    }
                }
            }
        };
        if wants_finish && finishing.is_none() {
            finish(connection.as_mut());
            finishing = Some(activity.tick());
            alarm.as_mut().reset(Instant::now() + limits.shortest());
        }
    }
}

/// Reads what the peer still sends, unseen, until it closes. Closing a socket with unread bytes resets the connection,
/// and a reset overtakes the answer: whoever sent too much would never learn it.
async fn linger(tls: &mut TlsStream<Wire<TcpStream>>) {
    let socket = &mut tls.get_mut().0.socket;
    let mut bytes = [0; 4096];
    let mut total = 0;
    while total < LINGER_BYTES {
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = future::poll_fn(|cx| match Pin::new(&mut *socket).poll_read(cx, &mut buffer) {
            Poll::Ready(read) => Poll::Ready(read.is_ok()),
            Poll::Pending => Poll::Pending,
        });
        let read = read.await;
        match buffer.filled().len() {
            n if read && n > 0 => total += n,
            _ => return,
        }
    }
}
