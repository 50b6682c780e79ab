//! Admission: every piece of work has a lane, and this is where it waits for its turn. Waiting is asynchronous and
//! ends when the caller goes away; work that has begun runs to its end on its thread and keeps its permit until then.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, Kind, Result};
use crate::net::hashing::{Arrival, Queue};
use crate::net::lock;
use crate::net::peer::ClientNetwork;
use crate::wire::ops::Lane;

/// Nobody waits longer than this for a turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Seconds after which one who was sent away may come again.
const RETRY_AFTER: u32 = 2;

/// The three lanes.
pub struct Lanes {
    work: Arc<Semaphore>,
    hash: Arc<HashSlots>,
}

impl Lanes {
    /// `work_threads` pieces of work and `hash_slots` password hashes at once, `hash_queue` waiting for a slot.
    /// No threads and no slots count as one.
    pub fn new(work_threads: usize, hash_slots: usize, hash_queue: usize) -> Self {
        Self {
            work: Arc::new(Semaphore::new(work_threads.max(1))),
            hash: Arc::new(HashSlots(Mutex::new(Queue::new(hash_slots.max(1), hash_queue)))),
        }
    }

    /// Runs `work` in its lane for the client at `ip`. `deadline` is the client's own and counts while it waits;
    /// dropping the future gives up the place, but doesn't stop work that has begun.
    ///
    /// # Errors
    /// `Unavailable` if there was no place or no turn within 5 s; `DeadlineExceeded` if the deadline passed before
    /// the turn came; `Internal` if the work panicked; else what the work returns.
    pub async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        ip: IpAddr,
        deadline: Option<Instant>,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if lane != Lane::Check && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(too_late());
        }
        match lane {
            Lane::Check => catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked())),
            Lane::Work => {
                let permit: OwnedSemaphorePermit = patiently(deadline, self.work.clone().acquire_owned()).await?;
                on_a_thread(permit, work).await
            }
            Lane::Hash => {
                let permit = self.hash.enter(ClientNetwork::for_hashing(ip), deadline).await?;
                on_a_thread(permit, work).await
            }
        }
    }

    /// Remembers that somebody at `ip` has logged in; half of the hashing queue is kept for such networks. At start,
    /// call it with those of earlier runs, the oldest first; the newest 4,096 networks are remembered.
    pub fn logged_in(&self, ip: IpAddr) {
        lock(&self.hash.0).logged_in(ClientNetwork::for_hashing(ip));
    }
}

async fn on_a_thread<T: Send + 'static>(
    permit: impl Send + 'static,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(move || {
        // Lives as long as the work, also if that panics or nobody waits for it any more.
        let _permit = permit;
        work()
    });
    match done.await {
        Ok(result) => result,
        Err(failed) if failed.is_panic() => Err(panicked()),
        Err(_) => Err(busy().because("the runtime is shutting down")),
    }
}

/// Waits for a turn, but no longer than patience and the deadline allow.
async fn patiently<T, E>(
    deadline: Option<Instant>,
    turn: impl Future<Output = std::result::Result<T, E>>,
) -> Result<T> {
    let until = Instant::now() + PATIENCE;
    let until = deadline.map_or(until, |deadline| deadline.min(until));
    match timeout_at(until, turn).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) => Err(busy()),
        Err(_) if deadline.is_some_and(|deadline| deadline <= Instant::now()) => Err(too_late()),
        Err(_) => Err(busy()),
    }
}

fn busy() -> Error {
    Error::unavailable("the server is busy", RETRY_AFTER)
}

fn too_late() -> Error {
    Error::new(Kind::DeadlineExceeded, "the deadline has passed")
}

/// What it panicked with has been written by the panic hook; it may hold anything and goes no further.
fn panicked() -> Error {
    Error::internal("a piece of work panicked")
}

/// The hashing slots with their queue. A waiter is woken with its permit in hand.
struct HashSlots(Mutex<Queue<oneshot::Sender<HashPermit>>>);

impl HashSlots {
    async fn enter(self: &Arc<Self>, network: ClientNetwork, deadline: Option<Instant>) -> Result<HashPermit> {
        let (wake, woken) = oneshot::channel();
        let arrival = lock(&self.0).arrive(network, wake);
        match arrival {
            Arrival::Go => Ok(HashPermit(Some(self.clone()))),
            Arrival::Refused => Err(busy()),
            Arrival::Wait { ticket, evicted } => {
                // Dropping its end of the channel tells the evicted one.
                drop(evicted);
                let _place = PlaceInQueue { slots: self, network, ticket };
                patiently(deadline, woken).await
            }
        }
    }

    /// Gives a slot that has become free to the next who is still there.
    fn pass_on(self: Arc<Self>) {
        loop {
            let next = lock(&self.0).next();
            let Some(wake) = next else { return };
            match wake.send(HashPermit(Some(self.clone()))) {
                Ok(()) => return,
                // It went away at this very moment. The permit must not pass on the slot a second time.
                Err(mut unwanted) => unwanted.0 = None,
            }
        }
    }
}

/// One hashing slot, passed on when dropped: by work that ended or panicked, or on the way to somebody who left.
struct HashPermit(Option<Arc<HashSlots>>);

impl Drop for HashPermit {
    fn drop(&mut self) {
        if let Some(slots) = self.0.take() {
            slots.pass_on();
        }
    }
}

/// Leaves the queue when dropped, if still in it.
struct PlaceInQueue<'a> {
    slots: &'a HashSlots,
    network: ClientNetwork,
    ticket: u64,
}

impl Drop for PlaceInQueue<'_> {
    fn drop(&mut self) {
        lock(&self.slots.0).leave(self.network, self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    use super::*;

    fn ip(network: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(198, 51, network, 1))
    }

    fn permit(lanes: &Lanes, network: u8) -> impl Future<Output = Result<HashPermit>> + Send + 'static {
        let slots = lanes.hash.clone();
        async move { slots.enter(ClientNetwork::for_hashing(ip(network)), None).await }
    }

    async fn waiting(lanes: &Lanes, network: u8) -> JoinHandle<Result<HashPermit>> {
        let waiter = tokio::spawn(permit(lanes, network));
        tokio::task::yield_now().await;
        waiter
    }

    #[tokio::test]
    async fn every_lane_gives_the_result_and_turns_a_panic_into_an_internal_error() {
        let lanes = Lanes::new(1, 1, 4);
        for lane in [Lane::Check, Lane::Work, Lane::Hash] {
            // Twice, so that a permit that a panic swallowed would be missed.
            for _ in 0..2 {
                assert_eq!(lanes.run(lane, ip(1), None, || Ok(7)).await.unwrap(), 7);
                let failed = lanes.run(lane, ip(1), None, || -> Result<()> { panic!("on purpose") }).await;
                assert_eq!(failed.unwrap_err().kind(), Kind::Internal, "{lane:?}");
                let refused = lanes.run(lane, ip(1), None, || Err::<(), _>(Error::unauthorized())).await;
                assert_eq!(refused.unwrap_err().kind(), Kind::Unauthorized);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_five_seconds() {
        let lanes = Lanes::new(1, 1, 4);
        let _held = permit(&lanes, 1).await.unwrap();
        let began = Instant::now();
        let sent_away = permit(&lanes, 2).await.err().unwrap();
        assert_eq!((sent_away.kind(), sent_away.retry_after()), (Kind::Unavailable, Some(RETRY_AFTER)));
        assert_eq!(sent_away.client(), "the server is busy");
        assert_eq!(began.elapsed(), PATIENCE);

        let _all = lanes.work.clone().acquire_owned().await.unwrap();
        let sent_away = lanes.run(Lane::Work, ip(1), None, || Ok(())).await.unwrap_err();
        assert_eq!(sent_away.kind(), Kind::Unavailable);
        assert_eq!(began.elapsed(), PATIENCE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_callers_deadline_counts_in_the_queue() {
        let lanes = Lanes::new(1, 1, 4);
        let _held = permit(&lanes, 1).await.unwrap();
        let began = Instant::now();
        let deadline = began + Duration::from_secs(1);
        let late = lanes.run(Lane::Hash, ip(2), Some(deadline), || Ok(())).await.unwrap_err();
        assert_eq!(late.kind(), Kind::DeadlineExceeded);
        assert_eq!(began.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_goes_to_the_next_in_turn() {
        let lanes = Lanes::new(1, 1, 4);
        let held = permit(&lanes, 1).await.unwrap();
        let first = waiting(&lanes, 2).await;
        let second = waiting(&lanes, 3).await;
        sleep(Duration::from_secs(1)).await;
        assert!(!first.is_finished() && !second.is_finished());
        drop(held);
        let held = first.await.unwrap().unwrap();
        assert!(!second.is_finished());
        drop(held);
        assert!(second.await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_went_away_leaves_the_queue() {
        let lanes = Lanes::new(1, 1, 2);
        let held = permit(&lanes, 1).await.unwrap();
        let gone = waiting(&lanes, 2).await;
        assert!(permit(&lanes, 3).await.is_err(), "a stranger has one of two places");
        gone.abort();
        assert!(gone.await.err().unwrap().is_cancelled());
        let next = waiting(&lanes, 3).await;
        drop(held);
        assert!(next.await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_on_its_way_to_somebody_who_left_passes_on() {
        let lanes = Lanes::new(1, 1, 4);
        let held = permit(&lanes, 1).await.unwrap();
        let gone = waiting(&lanes, 2).await;
        let next = waiting(&lanes, 3).await;
        // Sent, but not yet received, when the waiter goes.
        drop(held);
        gone.abort();
        assert!(gone.await.err().unwrap().is_cancelled());
        assert!(next.await.unwrap().is_ok());
        assert!(permit(&lanes, 4).await.is_ok(), "and comes back in the end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_is_gone_but_has_not_left_yet_is_passed_over() {
        let lanes = Lanes::new(1, 1, 4);
        let held = permit(&lanes, 1).await.unwrap();
        let (wake, woken) = oneshot::channel();
        drop(woken);
        assert!(matches!(lock(&lanes.hash.0).arrive(ClientNetwork::for_hashing(ip(2)), wake), Arrival::Wait { .. }));
        let next = waiting(&lanes, 3).await;
        drop(held);
        assert!(next.await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_evicted_are_told_at_once() {
        let lanes = Lanes::new(1, 1, 4);
        (1..=9).for_each(|n| lanes.logged_in(ip(n)));
        let _held = permit(&lanes, 1).await.unwrap();
        let _first = waiting(&lanes, 2).await;
        let _second = waiting(&lanes, 2).await;
        let third = waiting(&lanes, 2).await;
        let _other = waiting(&lanes, 3).await;
        let began = Instant::now();
        let newcomer = waiting(&lanes, 4).await;
        assert_eq!(third.await.unwrap().err().unwrap().kind(), Kind::Unavailable);
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(!newcomer.is_finished());
    }

    #[tokio::test]
    async fn work_that_has_begun_ends_and_keeps_its_slot_though_the_caller_is_gone() {
        for lane in [Lane::Work, Lane::Hash] {
            let lanes = Arc::new(Lanes::new(1, 1, 4));
            let (begun, has_begun) = oneshot::channel();
            let (go_on, wait) = mpsc::channel::<()>();
            let (ended, has_ended) = oneshot::channel();
            let theirs = lanes.clone();
            let caller = tokio::spawn(async move {
                let work = move || {
                    begun.send(()).unwrap();
                    wait.recv().unwrap();
                    ended.send(()).unwrap();
                    Ok(())
                };
                theirs.run(lane, ip(1), None, work).await
            });
            has_begun.await.unwrap();
            caller.abort();
            assert!(caller.await.unwrap_err().is_cancelled());
            let soon = Some(Instant::now() + Duration::from_millis(50));
            let queued = lanes.run(lane, ip(2), soon, || Ok(())).await;
            assert_eq!(queued.unwrap_err().kind(), Kind::DeadlineExceeded, "{lane:?}: the slot is still taken");
            go_on.send(()).unwrap();
            has_ended.await.unwrap();
            lanes.run(lane, ip(2), None, || Ok(())).await.unwrap();
        }
    }
}
