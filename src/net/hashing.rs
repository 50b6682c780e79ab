//! The queue before the hashing slots, as a state machine that knows no clock and no runtime: who may go, who waits,
//! who is sent away, who is next. `lane` gives it its waiting.
//!
//! Slots go round the waiting networks in turn. A network has at most [`PER_NETWORK`] waiting; in a full queue the
//! newest waiter of the heaviest network makes room, unless that would be the newcomer itself; half of the places are
//! kept for networks that have logged in before.

use std::collections::{HashMap, VecDeque};

use crate::net::peer::ClientNetwork;

/// How many of one network may wait at once.
pub(super) const PER_NETWORK: usize = 4;

/// How many networks that have logged in before are remembered.
const KNOWN_NETWORKS: usize = 4096;

/// The slots, and the queue before them. `W` is what wakes a waiter.
pub(super) struct Queue<W> {
    free_slots: usize,
    places: usize,
    waiting: HashMap<ClientNetwork, VecDeque<Waiter<W>>>,
    /// The waiting networks, each once, in the order in which they get slots.
    turns: VecDeque<ClientNetwork>,
    total: usize,
    strangers: usize,
    known: Known,
    last_ticket: u64,
}

struct Waiter<W> {
    ticket: u64,
    stranger: bool,
    wake: W,
}

/// What became of somebody who came.
#[must_use]
pub(super) enum Arrival<W> {
    /// A slot was free and is now taken.
    Go,
    /// A place in the queue; the one who lost theirs for it has to be told.
    Wait { ticket: u64, evicted: Option<W> },
    /// No place.
    Refused,
}

impl<W> Queue<W> {
    /// `slots` at work at once, `places` waiting.
    pub(super) fn new(slots: usize, places: usize) -> Self {
        Self {
            free_slots: slots,
            places,
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            total: 0,
            strangers: 0,
            known: Known::default(),
            last_ticket: 0,
        }
    }

    /// Somebody of `network` wants a slot.
    pub(super) fn arrive(&mut self, network: ClientNetwork, wake: W) -> Arrival<W> {
        if self.free_slots > 0 {
            self.free_slots -= 1;
            return Arrival::Go;
        }
        let own = self.waiting.get(&network).map_or(0, VecDeque::len);
        if own >= PER_NETWORK {
            return Arrival::Refused;
        }
        let stranger = !self.known.contains(network);
        let strangers_full = stranger && self.strangers >= self.places - self.places / 2;
        let mut evicted = None;
        if strangers_full || self.total >= self.places {
            // With the newcomer its network would have `own + 1`; if no other has more, the newcomer is the newest of
            // the heaviest.
            match self.heaviest(strangers_full) {
                Some((heaviest, weight)) if weight > own + 1 => evicted = self.evict(heaviest, strangers_full),
                _ => return Arrival::Refused,
            }
        }
        self.last_ticket += 1;
        self.total += 1;
        self.strangers += usize::from(stranger);
        let waiters = self.waiting.entry(network).or_default();
        if waiters.is_empty() {
            self.turns.push_back(network);
        }
        waiters.push_back(Waiter { ticket: self.last_ticket, stranger, wake });
        Arrival::Wait { ticket: self.last_ticket, evicted }
    }

    /// A slot has become free: it goes to the one returned, or stays free.
    pub(super) fn next(&mut self) -> Option<W> {
        let Some(network) = self.turns.pop_front() else {
            self.free_slots += 1;
            return None;
        };
        let waiters = self.waiting.get_mut(&network)?;
        let first = waiters.pop_front()?;
        if waiters.is_empty() {
            self.waiting.remove(&network);
        } else {
            self.turns.push_back(network);
        }
        self.forget(first.stranger);
        Some(first.wake)
    }

    /// A waiter gives up; nothing happens if it is no longer waiting.
    pub(super) fn leave(&mut self, network: ClientNetwork, ticket: u64) {
        let found = self.waiting.get(&network).and_then(|waiters| waiters.iter().position(|w| w.ticket == ticket));
        if let Some(at) = found {
            self.remove(network, at);
        }
    }

    /// The network has logged in.
    pub(super) fn logged_in(&mut self, network: ClientNetwork) {
        self.known.add(network);
    }

    /// The network with most waiting, among those with a stranger waiting if only these count; of equals, the one
    /// whose newest came last.
    fn heaviest(&self, strangers_only: bool) -> Option<(ClientNetwork, usize)> {
        self.waiting
            .iter()
            .filter(|(_, waiters)| !strangers_only || waiters.iter().any(|w| w.stranger))
            .max_by_key(|(_, waiters)| (waiters.len(), waiters.back().map(|w| w.ticket)))
            .map(|(network, waiters)| (*network, waiters.len()))
    }

    fn evict(&mut self, network: ClientNetwork, strangers_only: bool) -> Option<W> {
        let newest = self.waiting.get(&network)?.iter().rposition(|w| !strangers_only || w.stranger)?;
        self.remove(network, newest)
    }

    fn remove(&mut self, network: ClientNetwork, at: usize) -> Option<W> {
        let waiters = self.waiting.get_mut(&network)?;
        let gone = waiters.remove(at)?;
        if waiters.is_empty() {
            self.waiting.remove(&network);
            self.turns.retain(|turn| *turn != network);
        }
        self.forget(gone.stranger);
        Some(gone.wake)
    }

    fn forget(&mut self, stranger: bool) {
        self.total -= 1;
        self.strangers -= usize::from(stranger);
    }
}

/// The networks that logged in last, each with its place in the order.
#[derive(Default)]
struct Known {
    networks: HashMap<ClientNetwork, u64>,
    last: u64,
}

impl Known {
    fn contains(&self, network: ClientNetwork) -> bool {
        self.networks.contains_key(&network)
    }

    /// Forgets the one that is longest ago if there are too many. Walks the table for it: the caller has just spent
    /// a password hash on a login.
    fn add(&mut self, network: ClientNetwork) {
        self.last += 1;
        if self.networks.insert(network, self.last).is_none() && self.networks.len() > KNOWN_NETWORKS {
            let oldest = self.networks.iter().min_by_key(|(_, at)| **at).map(|(network, _)| *network);
            if let Some(oldest) = oldest {
                self.networks.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn net(n: u8) -> ClientNetwork {
        ClientNetwork::for_hashing(IpAddr::V4(Ipv4Addr::new(198, 51, n, 1)))
    }

    /// A queue whose one slot is taken.
    fn busy(places: usize) -> Queue<u32> {
        let mut queue = Queue::new(1, places);
        assert!(matches!(queue.arrive(net(255), 0), Arrival::Go));
        queue
    }

    /// Ticket and the evicted one, or none if refused.
    fn arrive(queue: &mut Queue<u32>, network: u8, name: u32) -> Option<(u64, Option<u32>)> {
        match queue.arrive(net(network), name) {
            Arrival::Wait { ticket, evicted } => Some((ticket, evicted)),
            Arrival::Refused => None,
            Arrival::Go => panic!("no slot is free"),
        }
    }

    fn drain(queue: &mut Queue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.next()).collect()
    }

    #[test]
    fn slots_are_given_out_and_come_back() {
        let mut queue: Queue<u32> = Queue::new(2, 4);
        assert!(matches!(queue.arrive(net(1), 1), Arrival::Go));
        assert!(matches!(queue.arrive(net(1), 2), Arrival::Go));
        assert!(matches!(queue.arrive(net(1), 3), Arrival::Wait { .. }));
        assert_eq!(queue.next(), Some(3));
        assert_eq!(queue.next(), None);
        assert_eq!(queue.next(), None);
        assert!(matches!(queue.arrive(net(1), 4), Arrival::Go));
        assert!(matches!(queue.arrive(net(1), 5), Arrival::Go));
        assert!(matches!(queue.arrive(net(1), 6), Arrival::Wait { .. }));
    }

    #[test]
    fn networks_take_turns_and_each_keeps_its_order() {
        let mut queue = busy(16);
        for (network, name) in [(1, 11), (1, 12), (1, 13), (2, 21), (3, 31), (2, 22)] {
            assert_eq!(arrive(&mut queue, network, name).unwrap().1, None);
        }
        assert_eq!(drain(&mut queue), [11, 21, 31, 12, 22, 13]);
    }

    #[test]
    fn a_network_has_four_waiting_at_most() {
        let mut queue = busy(64);
        for name in 0..4 {
            assert!(arrive(&mut queue, 1, name).is_some());
        }
        assert!(arrive(&mut queue, 1, 4).is_none(), "though the queue has room");
        assert_eq!(queue.next(), Some(0));
        assert!(arrive(&mut queue, 1, 5).is_some());
    }

    #[test]
    fn in_a_full_queue_the_newest_of_the_heaviest_makes_room() {
        let mut queue = busy(8);
        for n in 1..=9 {
            queue.logged_in(net(n));
        }
        for (network, name) in [(1, 11), (1, 12), (2, 21), (2, 22), (2, 23), (3, 31), (4, 41), (5, 51)] {
            assert!(arrive(&mut queue, network, name).is_some());
        }
        assert_eq!(arrive(&mut queue, 6, 61).unwrap().1, Some(23));
        // Now 1 and 2 have two each and the others one: of equals, the one that came last goes.
        assert_eq!(arrive(&mut queue, 7, 71).unwrap().1, Some(22));
        assert_eq!(arrive(&mut queue, 8, 81).unwrap().1, Some(12));
        // All have one: the newcomer would be the newest of the heaviest.
        assert!(arrive(&mut queue, 9, 91).is_none());
        assert_eq!(drain(&mut queue), [11, 21, 31, 41, 51, 61, 71, 81]);
    }

    #[test]
    fn the_heaviest_network_evicts_nobody() {
        let mut queue = busy(8);
        for (network, name) in [(1, 11), (1, 12), (1, 13)] {
            queue.logged_in(net(network));
            assert!(arrive(&mut queue, network, name).is_some());
        }
        for network in 2..=6 {
            queue.logged_in(net(network));
            assert!(arrive(&mut queue, network, u32::from(network) * 10).is_some());
        }
        assert!(arrive(&mut queue, 1, 14).is_none());
        assert!(arrive(&mut queue, 2, 21).is_some(), "with two it is lighter than one with three");
        assert!(arrive(&mut queue, 1, 15).is_none(), "its third was evicted just now");
    }

    #[test]
    fn half_is_kept_for_networks_that_have_logged_in() {
        let mut queue = busy(8);
        for network in 1..=4 {
            assert!(arrive(&mut queue, network, u32::from(network)).is_some());
        }
        assert!(arrive(&mut queue, 5, 5).is_none(), "strangers have four of eight places");
        for network in 11..=14 {
            queue.logged_in(net(network));
            assert_eq!(arrive(&mut queue, network, u32::from(network)).unwrap().1, None);
        }
        queue.logged_in(net(15));
        assert!(arrive(&mut queue, 15, 15).is_none(), "now it is full for everybody");
    }

    #[test]
    fn strangers_compete_among_themselves_for_their_half() {
        let mut queue = busy(8);
        queue.logged_in(net(11));
        for name in 0..4 {
            assert!(arrive(&mut queue, 11, 100 + name).is_some());
        }
        for (network, name) in [(1, 11), (1, 12), (1, 13), (2, 21)] {
            assert!(arrive(&mut queue, network, name).is_some());
        }
        // The known network is heavier, but in its own half.
        assert_eq!(arrive(&mut queue, 3, 31).unwrap().1, Some(13));
    }

    #[test]
    fn places_that_strangers_lend_come_back() {
        let mut queue = busy(8);
        for network in 11..=12 {
            queue.logged_in(net(network));
            for name in 0..4 {
                assert!(arrive(&mut queue, network, u32::from(network) * 10 + name).is_some());
            }
        }
        // The whole queue is taken by known networks; a stranger still has a share of it.
        assert_eq!(arrive(&mut queue, 1, 1).unwrap().1, Some(123));
    }

    #[test]
    fn who_leaves_is_gone_and_leaves_no_trace() {
        let mut queue = busy(4);
        let (first, _) = arrive(&mut queue, 1, 11).unwrap();
        let (second, _) = arrive(&mut queue, 2, 21).unwrap();
        queue.leave(net(1), first);
        queue.leave(net(1), first);
        queue.leave(net(9), second);
        assert!(arrive(&mut queue, 3, 31).is_some(), "strangers have two places, and one is free again");
        assert_eq!(drain(&mut queue), [21, 31]);
        assert_eq!((queue.total, queue.strangers, queue.free_slots), (0, 0, 1));
        assert!(queue.waiting.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn small_queues_work() {
        let mut none = busy(0);
        assert!(arrive(&mut none, 1, 1).is_none());
        let mut one = busy(1);
        assert!(arrive(&mut one, 1, 1).is_some());
        assert!(arrive(&mut one, 2, 2).is_none());
    }

    #[test]
    fn the_memory_of_logins_is_bounded_and_forgets_the_oldest() {
        let mut known = Known::default();
        let network = |n: u32| ClientNetwork::for_limits(IpAddr::V4(Ipv4Addr::from_bits(n)));
        for n in 0..KNOWN_NETWORKS as u32 {
            known.add(network(n));
        }
        known.add(network(0));
        known.add(network(1_000_000));
        assert!(known.contains(network(0)) && !known.contains(network(1)) && known.contains(network(1_000_000)));
        assert_eq!(known.networks.len(), KNOWN_NETWORKS);
    }
}
