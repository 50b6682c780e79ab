//! What one connection is doing, and whether it has been doing it for too long. The socket, the request and the answer
//! note what happens in a few atomics as it goes by; the connection's supervisor and the registry read them.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::net::lock;

/// How long a connection may take over what.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimits {
    /// The TLS hand-shake.
    pub handshake: Duration,
    /// An HTTP/1 request's header, from its first byte. HTTP/2 has no such moment: there a header that doesn't come to
    /// an end counts as idling.
    pub header: Duration,
    /// Having no request under way.
    pub idle: Duration,
    /// Not taking what is sent.
    pub answer: Duration,
    /// Closing, after being asked to.
    pub farewell: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            answer: Duration::from_secs(30),
            farewell: Duration::from_secs(2),
        }
    }
}

impl TimeLimits {
    /// The shortest of those that count between hand-shake and end.
    pub(super) fn shortest(&self) -> Duration {
        self.header.min(self.idle).min(self.answer).min(self.farewell)
    }
}

/// What others want of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// Nothing.
    Stay = 0,
    /// End what is under way and close.
    Finish = 1,
    /// Close.
    Cut = 2,
}

/// What the time limits say of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing before this tick.
    Fine(u64),
    /// It has been idle for long enough.
    Finish,
    /// It has kept us waiting for too long, and this is with what.
    Cut(&'static str),
}

/// One connection. Times are ticks, milliseconds since the registry's start counted from 1; 0 is never.
pub(super) struct Activity {
    start: Instant,
    /// Requests from their header's end to their answer's.
    requests: AtomicU32,
    /// When the last request ended, or the connection began.
    idle_since: AtomicU64,
    /// When the first byte of a request came of which the header isn't complete.
    head_since: AtomicU64,
    /// Since when the socket takes no bytes.
    blocked_since: AtomicU64,
    /// When the socket last took bytes.
    wrote_at: AtomicU64,
    peer_is_done: AtomicBool,
    order: AtomicU8,
    ordered: Notify,
    /// What each request's answer waits for; unused places are reused.
    answers: Mutex<Vec<Waits>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Waits {
    Unused,
    /// For us: the handler, or more of the body.
    ForUs,
    /// For the peer, to take what there is.
    ForPeer(u64),
}

impl Activity {
    /// A connection that begins, and idles, now.
    pub(super) fn new(start: Instant) -> Self {
        let new = Self {
            start,
            requests: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            wrote_at: AtomicU64::new(0),
            peer_is_done: AtomicBool::new(false),
            order: AtomicU8::new(Order::Stay as u8),
            ordered: Notify::new(),
            answers: Mutex::new(Vec::new()),
        };
        new.begin_idling();
        new
    }

    /// Now.
    pub(super) fn tick(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// Counts as idle from now on: it has just shaken hands.
    pub(super) fn begin_idling(&self) {
        self.idle_since.store(self.tick(), Ordering::Relaxed);
    }

    /// Since when it has been idle; none while a request is under way.
    pub(super) fn idle_since(&self) -> Option<u64> {
        (self.requests.load(Ordering::Acquire) == 0).then(|| self.idle_since.load(Ordering::Relaxed))
    }

    /// Whether the peer has closed its side.
    pub(super) fn peer_is_done(&self) -> bool {
        self.peer_is_done.load(Ordering::Relaxed)
    }

    /// Tells the connection what is wanted of it. A stronger order stands.
    pub(super) fn tell(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::AcqRel);
        self.ordered.notify_one();
    }

    /// Waits for an order stronger than the last one.
    pub(super) async fn order_beyond(&self, last: Order) -> Order {
        loop {
            let order = match self.order.load(Ordering::Acquire) {
                0 => Order::Stay,
                1 => Order::Finish,
                _ => Order::Cut,
            };
            if order > last {
                return order;
            }
            self.ordered.notified().await;
        }
    }

    /// A request's header is complete.
    pub(super) fn request(self: &Arc<Self>) -> Underway {
        self.requests.fetch_add(1, Ordering::AcqRel);
        self.head_since.store(0, Ordering::Relaxed);
        let mut answers = lock(&self.answers);
        let place = answers.iter().position(|waits| *waits == Waits::Unused).unwrap_or(answers.len());
        match answers.get_mut(place) {
            Some(waits) => *waits = Waits::ForUs,
            None => answers.push(Waits::ForUs),
        }
        drop(answers);
        Underway { activity: self.clone(), place }
    }

    /// The time limits, applied. `finishing` is when the connection was told to close.
    pub(super) fn judge(&self, now: u64, finishing: Option<u64>, limits: &TimeLimits) -> Verdict {
        let due = |since: u64, limit: Duration| since.saturating_add(ticks(limit));
        let mut next = due(now, limits.shortest());
        let mut over = |at: u64| {
            next = next.min(at.max(now + 1));
            at <= now
        };

        let blocked = self.blocked_since.load(Ordering::Relaxed);
        if blocked > 0 && over(due(blocked, limits.answer)) {
            return Verdict::Cut("the peer takes no bytes");
        }
        let oldest = lock(&self.answers).iter().filter_map(|waits| waits.for_peer()).min();
        if oldest.is_some_and(|since| over(due(since, limits.answer))) {
            return Verdict::Cut("the peer takes no answer");
        }
        if let Some(idle) = self.idle_since() {
            let head = self.head_since.load(Ordering::Relaxed);
            if head > 0 && over(due(head, limits.header)) {
                return Verdict::Cut("the request header takes too long");
            }
            match finishing {
                None if over(due(idle, limits.idle)) => return Verdict::Finish,
                // The last answer may still be on its way to a slow peer, though nothing of it is left with us.
                Some(told) if blocked == 0 => {
                    let quiet_since = told.max(idle).max(self.wrote_at.load(Ordering::Relaxed));
                    if over(due(quiet_since, limits.farewell)) {
                        return Verdict::Cut("the peer doesn't close");
                    }
                }
                _ => {}
            }
        }
        Verdict::Fine(next)
    }

    fn received(&self) {
        if self.requests.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.tick(), Ordering::Relaxed);
        }
    }

    fn blocked(&self) {
        if self.blocked_since.load(Ordering::Relaxed) == 0 {
            self.blocked_since.store(self.tick(), Ordering::Relaxed);
        }
    }

    fn moved(&self) {
        self.wrote_at.store(self.tick(), Ordering::Relaxed);
        if self.blocked_since.load(Ordering::Relaxed) != 0 {
            self.blocked_since.store(0, Ordering::Relaxed);
        }
    }

    fn answer(&self, place: usize, waits: Waits) {
        if let Some(answer) = lock(&self.answers).get_mut(place) {
            *answer = waits;
        }
    }
}

/// A length of time in ticks.
pub(super) fn ticks(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Waits {
    fn for_peer(self) -> Option<u64> {
        match self {
            Self::ForPeer(since) => Some(since),
            Self::Unused | Self::ForUs => None,
        }
    }
}

/// A request, from the end of its header until its answer has been handed over or given up.
pub(super) struct Underway {
    activity: Arc<Activity>,
    place: usize,
}

impl Underway {
    /// The handler is done: this is what the peer gets.
    pub(super) fn answer<B>(self, body: B) -> Answer<B> {
        self.waits(Waits::ForPeer(self.activity.tick()));
        Answer { body, request: self }
    }

    fn waits(&self, waits: Waits) {
        self.activity.answer(self.place, waits);
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.waits(Waits::Unused);
        self.activity.idle_since.store(self.activity.tick(), Ordering::Relaxed);
        self.activity.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An answer's body, on its way. It is asked for a frame only when the one before has found room, so a body that isn't
/// asked waits for the peer.
pub(super) struct Answer<B> {
    body: B,
    request: Underway,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.request.waits(match polled {
            Poll::Pending => Waits::ForUs,
            Poll::Ready(_) => Waits::ForPeer(self.request.activity.tick()),
        });
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The socket, below TLS. Notes when bytes don't move, and when the peer is done.
pub(super) struct Wire<S> {
    pub(super) socket: S,
    pub(super) activity: Arc<Activity>,
}

impl<S> Wire<S> {
    fn note<T>(&self, written: &Poll<io::Result<T>>) {
        match written {
            Poll::Pending => self.activity.blocked(),
            Poll::Ready(_) => self.activity.moved(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, into))?;
        if into.filled().len() == before && into.remaining() > 0 {
            self.activity.peer_is_done.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bytes);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// An HTTP/1 byte stream, above TLS. Notes when a request begins to arrive.
pub(super) struct Plain<S> {
    pub(super) stream: S,
    pub(super) activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Plain<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        if into.filled().len() > before {
            self.activity.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Plain<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TimeLimits = TimeLimits {
        handshake: Duration::from_secs(10),
        header: Duration::from_secs(10),
        idle: Duration::from_secs(120),
        answer: Duration::from_secs(30),
        farewell: Duration::from_secs(2),
    };

    fn judged(activity: &Activity, after_seconds: u64, finishing: Option<u64>) -> Verdict {
        activity.judge(activity.tick() + after_seconds * 1000, finishing, &LIMITS)
    }

    fn fine(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Fine(_))
    }

    /// Time may pass between two calls; whole seconds are told apart all the same.
    fn activity() -> Arc<Activity> {
        Arc::new(Activity::new(Instant::now()))
    }

    #[test]
    fn idling_ends_after_its_time_and_closing_after_its_own() {
        let activity = activity();
        assert!(fine(&judged(&activity, 119, None)));
        assert_eq!(judged(&activity, 120, None), Verdict::Finish);
        let told = activity.tick() + 120_000;
        assert!(fine(&judged(&activity, 121, Some(told))));
        assert!(matches!(judged(&activity, 122, Some(told)), Verdict::Cut(_)));
    }

    #[test]
    fn a_request_under_way_is_not_idle_however_long_the_handler_takes() {
        let activity = activity();
        let request = activity.request();
        assert_eq!(activity.idle_since(), None);
        assert!(fine(&judged(&activity, 1000, None)) && fine(&judged(&activity, 1000, Some(1))));
        drop(request);
        assert!(activity.idle_since().is_some());
        assert_eq!(judged(&activity, 120, None), Verdict::Finish);
    }

    #[test]
    fn a_header_has_its_time_from_its_first_byte() {
        let activity = activity();
        activity.received();
        activity.received();
        assert!(fine(&judged(&activity, 9, None)));
        assert!(matches!(judged(&activity, 10, None), Verdict::Cut(_)));
        let request = activity.request();
        activity.received();
        drop(request);
        assert!(fine(&judged(&activity, 119, None)), "the header was complete, and what came then was body");
    }

    #[test]
    fn a_peer_that_takes_nothing_is_cut_off() {
        let activity = activity();
        activity.blocked();
        assert!(fine(&judged(&activity, 29, None)));
        assert!(matches!(judged(&activity, 30, None), Verdict::Cut(_)));
        activity.moved();
        assert!(fine(&judged(&activity, 30, None)));
    }

    #[test]
    fn a_connection_that_closes_may_still_deliver() {
        let activity = activity();
        activity.blocked();
        assert!(fine(&judged(&activity, 3, Some(1))), "the last answer is still on its way");
        activity.moved();
        assert!(fine(&judged(&activity, 1, Some(1))));
        assert!(matches!(judged(&activity, 2, Some(1)), Verdict::Cut(_)));
    }

    #[test]
    fn one_answer_that_is_not_taken_is_enough() {
        let activity = activity();
        let working = activity.request();
        let stuck = activity.request().answer(());
        drop(activity.request());
        assert!(fine(&judged(&activity, 29, None)));
        assert!(matches!(judged(&activity, 30, None), Verdict::Cut(_)));
        stuck.request.waits(Waits::ForUs);
        assert!(fine(&judged(&activity, 300, None)), "a body that has nothing to give waits for us");
        drop((stuck, working));
        drop([activity.request(), activity.request(), activity.request()]);
        assert_eq!(lock(&activity.answers).len(), 3, "places are used again");
    }

    #[test]
    fn it_looks_again_when_something_could_be_due() {
        let activity = activity();
        let next = |after: u64| match judged(&activity, after, None) {
            Verdict::Fine(next) => next.saturating_sub(activity.tick()).div_ceil(1000),
            other => panic!("{other:?}"),
        };
        assert_eq!(next(0), 2, "the shortest of all limits, for what may begin meanwhile");
        activity.received();
        assert_eq!(next(9), 10);
    }

    #[tokio::test]
    async fn orders_arrive_and_only_grow() {
        let activity = activity();
        activity.tell(Order::Finish);
        assert_eq!(activity.order_beyond(Order::Stay).await, Order::Finish);
        let (order, ()) = tokio::join!(activity.order_beyond(Order::Finish), async { activity.tell(Order::Cut) });
        assert_eq!(order, Order::Cut);
        activity.tell(Order::Finish);
        assert_eq!(activity.order_beyond(Order::Stay).await, Order::Cut);
    }
}
