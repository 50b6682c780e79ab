//! All open connections of both listeners: how many there may be, who has to go, and how they end together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::model::net::Cidr;
pub use crate::net::activity::TimeLimits;
use crate::net::activity::{Activity, Order, ticks};
use crate::net::lock;
use crate::net::peer::ClientNetwork;

/// How many connections there may be, and how long they may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// All together; the caller sees to it that there are file descriptors for them. Where it is reached, the longest
    /// idle connection goes, hand-shakes included.
    pub connections: usize,
    /// From one IPv4 address or IPv6 /64.
    pub per_client: usize,
    /// Who may have any number of connections: the trusted proxies, which bring many clients.
    pub uncapped: Vec<Cidr>,
    /// How long.
    pub time: TimeLimits,
}

/// The open connections of the process.
pub struct Connections {
    start: Instant,
    limits: Limits,
    table: Mutex<Table>,
    draining: watch::Sender<bool>,
    emptied: Notify,
    full: Seldom,
}

#[derive(Default)]
struct Table {
    open: HashMap<u64, Open>,
    per_client: HashMap<ClientNetwork, usize>,
    last_id: u64,
    draining: bool,
}

struct Open {
    /// None where they aren't counted.
    client: Option<ClientNetwork>,
    activity: Arc<Activity>,
}

impl Connections {
    /// None yet.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            limits,
            table: Mutex::default(),
            draining: watch::Sender::new(false),
            emptied: Notify::new(),
            full: Seldom::default(),
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        lock(&self.table).open.len()
    }

    /// Becomes true when draining begins.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Waits until no request is under way, but no longer than `within`. Everything is still accepted meanwhile.
    pub async fn settle(&self, within: Duration) {
        let busy = || lock(&self.table).open.values().any(|open| open.activity.idle_since().is_none());
        let settled = async {
            while busy() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        // Either way it is time.
        let _ = timeout(within, settled).await;
    }

    /// Stops listening, closes what is idle and lets what is under way come to its end, but no longer than `within`;
    /// then cuts the rest. Returns whether there was no rest.
    pub async fn drain(&self, within: Duration) -> bool {
        lock(&self.table).draining = true;
        self.draining.send_replace(true);
        self.tell_all(Order::Finish);
        if timeout(within, self.empty()).await.is_ok() {
            return true;
        }
        self.tell_all(Order::Cut);
        // Only to let the tasks go; they have nothing left to wait for.
        let _ = timeout(Duration::from_secs(1), self.empty()).await;
        false
    }

    /// How long.
    pub(super) fn time_limits(&self) -> &TimeLimits {
        &self.limits.time
    }

    /// A place for a connection from `peer`.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<Seat, &'static str> {
        let peer = peer.to_canonical();
        let counted = !self.limits.uncapped.iter().any(|range| range.contains(peer));
        let client = counted.then(|| ClientNetwork::for_limits(peer));
        let activity = Arc::new(Activity::new(self.start));

        let mut table = lock(&self.table);
        if table.draining {
            return Err("the server is draining");
        }
        if client.is_some_and(|client| table.per_client.get(&client).is_some_and(|n| *n >= self.limits.per_client)) {
            return Err("the client has too many connections");
        }
        if table.open.len() >= self.limits.connections {
            self.full
                .say(activity.tick(), || tracing::warn!(limit = self.limits.connections, "all connections are taken"));
            let longest_idle = table.longest_idle().ok_or("all connections are taken and busy")?;
            if let Some(gone) = table.remove(longest_idle) {
                gone.tell(Order::Cut);
            }
        }
        table.last_id += 1;
        let id = table.last_id;
        if let Some(client) = client {
            *table.per_client.entry(client).or_default() += 1;
        }
        table.open.insert(id, Open { client, activity: activity.clone() });
        Ok(Seat { connections: self.clone(), id, activity })
    }

    fn tell_all(&self, order: Order) {
        lock(&self.table).open.values().for_each(|open| open.activity.tell(order));
    }

    async fn empty(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if lock(&self.table).open.is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

impl Table {
    fn longest_idle(&self) -> Option<u64> {
        let idle = self.open.iter().filter_map(|(id, open)| Some((open.activity.idle_since()?, *id)));
        idle.min().map(|(_, id)| id)
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Activity>> {
        let open = self.open.remove(&id)?;
        if let Some(client) = open.client
            && let Some(count) = self.per_client.get_mut(&client)
        {
            *count -= 1;
            if *count == 0 {
                self.per_client.remove(&client);
            }
        }
        Some(open.activity)
    }
}

/// A connection's place, given back when dropped.
pub(super) struct Seat {
    connections: Arc<Connections>,
    id: u64,
    pub(super) activity: Arc<Activity>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = lock(&self.connections.table);
        table.remove(self.id);
        if table.open.is_empty() {
            self.connections.emptied.notify_waiters();
        }
    }
}

/// Says something once a minute at most.
#[derive(Default)]
pub(super) struct Seldom(AtomicU64);

impl Seldom {
    pub(super) fn say(&self, tick: u64, what: impl FnOnce()) {
        let last = self.0.load(Ordering::Relaxed);
        let due = last == 0 || tick.saturating_sub(last) >= ticks(Duration::from_secs(60));
        if due && self.0.compare_exchange(last, tick, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            what();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn connections(connections: usize, per_client: usize) -> Arc<Connections> {
        let uncapped = vec![Cidr::parse("10.0.0.0/8").unwrap()];
        Connections::new(Limits { connections, per_client, uncapped, time: TimeLimits::default() })
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
    }

    #[tokio::test]
    async fn the_longest_idle_goes_and_the_busy_stay() {
        let connections = connections(3, 9);
        let seats: Vec<Seat> = (1..=3).map(|n| connections.admit(ip(n)).unwrap()).collect();
        let busy = seats[0].activity.request();
        std::thread::sleep(Duration::from_millis(5));
        seats[1].activity.begin_idling();
        let fourth = connections.admit(ip(4)).unwrap();
        let told = timeout(Duration::from_secs(1), seats[2].activity.order_beyond(Order::Stay));
        assert_eq!(told.await, Ok(Order::Cut));
        assert_eq!(connections.count(), 3);
        let _more = (seats[1].activity.request(), fourth.activity.request());
        assert!(connections.admit(ip(5)).is_err(), "none is idle");
        drop(busy);
        assert!(connections.admit(ip(5)).is_ok());
        drop(seats);
        assert_eq!(connections.count(), 1, "who was put out gives nothing back twice");
    }

    #[test]
    fn a_client_has_its_share_and_gets_it_back() {
        let connections = connections(9, 2);
        let first = connections.admit(ip(1)).unwrap();
        let _second = connections.admit("::ffff:192.0.2.1".parse().unwrap()).unwrap();
        assert!(connections.admit(ip(1)).is_err());
        assert!(connections.admit(ip(2)).is_ok());
        drop(first);
        assert!(connections.admit(ip(1)).is_ok());
        let _proxy: Vec<Seat> = (0..5).map(|_| connections.admit("10.0.0.1".parse().unwrap()).unwrap()).collect();
    }

    #[test]
    fn who_was_put_out_no_longer_counts_for_the_client() {
        let connections = connections(2, 2);
        let first = connections.admit(ip(1)).unwrap();
        let _second = connections.admit(ip(2)).unwrap();
        let _third = connections.admit(ip(3)).unwrap();
        assert_eq!(lock(&connections.table).per_client.get(&ClientNetwork::for_limits(ip(1))), None);
        drop(first);
        assert_eq!(lock(&connections.table).per_client.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn draining_waits_then_cuts_and_says_so() {
        let early = connections(9, 9);
        let seat = early.admit(ip(1)).unwrap();
        let waiting = tokio::spawn({
            let early = early.clone();
            async move { early.drain(Duration::from_secs(30)).await }
        });
        assert_eq!(seat.activity.order_beyond(Order::Stay).await, Order::Finish);
        assert!(*early.draining().borrow());
        assert!(early.admit(ip(2)).is_err());
        drop(seat);
        assert!(waiting.await.unwrap());

        let late = connections(9, 9);
        let seat = late.admit(ip(1)).unwrap();
        assert!(!late.drain(Duration::from_secs(30)).await);
        assert_eq!(seat.activity.order_beyond(Order::Finish).await, Order::Cut);
    }

    #[test]
    fn seldom_is_once_a_minute() {
        let seldom = Seldom::default();
        let mut said = Vec::new();
        for tick in [1, 2, 60_000, 60_001, 70_000, 120_001] {
            seldom.say(tick, || said.push(tick));
        }
        assert_eq!(said, [1, 60_001, 120_001]);
    }
}
