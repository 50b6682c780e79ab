//! Rate limits for each client and bucket, in tables of fixed size.
//!
//! A bucket is one number, the time at which it will be full again (the virtual scheduling form of the leaky bucket,
//! ITU-T I.371): a request moves it on by one interval, and one that would move it more than a whole burst ahead is
//! refused. A bucket whose time has passed says nothing and is as good as an unused place.
//!
//! The tables are set-associative under a keyed hash, so nobody outside knows who shares a set with whom. In a full
//! set a newcomer takes over the fullest bucket *as it stands*: whoever floods the table with addresses never gets
//! more out of a set than its places refill, can't have an emptied bucket forgotten, and where there is a place that
//! says nothing (always, unless a set's worth of clients spend faster than they refill) nobody loses anything.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Instant;

use crate::model::net::Cidr;
use crate::net::lock;
use crate::net::peer::ClientNetwork;
use crate::wire::ops::Bucket;

/// How much one client may ask of one bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Requests a second in the long run; 0 is no limit.
    pub rps: f64,
    /// Requests at once after a pause; 0 counts as 1.
    pub burst: u32,
}

/// The three buckets' rates, and who is spared.
#[derive(Debug, Clone)]
pub struct Rates {
    /// For [`Bucket::Credential`].
    pub credential: Rate,
    /// For [`Bucket::Validate`].
    pub validate: Rate,
    /// For [`Bucket::Api`].
    pub api: Rate,
    /// Clients that [`Bucket::Validate`] doesn't count.
    pub validate_exempt: Vec<Cidr>,
}

/// The rate limits of all clients.
pub struct Limiter {
    start: Instant,
    hasher: RandomState,
    credential: Option<Table>,
    validate: Option<Table>,
    api: Option<Table>,
    validate_exempt: Vec<Cidr>,
}

impl Limiter {
    /// Full buckets for everybody. `hasher` carries the process's random seed; no time before `start` may be passed
    /// to [`Limiter::take`].
    pub fn new(rates: Rates, hasher: RandomState, start: Instant) -> Self {
        Self {
            start,
            hasher,
            credential: Table::new(rates.credential),
            validate: Table::new(rates.validate),
            api: Table::new(rates.api),
            validate_exempt: rates.validate_exempt,
        }
    }

    /// Pays for one request from the client's bucket.
    ///
    /// # Errors
    /// Where the bucket is empty, the seconds (at least 1) after which one request will be in it again.
    pub fn take(&self, bucket: Bucket, client: IpAddr, now: Instant) -> Result<(), u32> {
        let table = match bucket {
            Bucket::Credential => &self.credential,
            Bucket::Validate => &self.validate,
            Bucket::Api => &self.api,
        };
        let Some(table) = table else { return Ok(()) };
        if bucket == Bucket::Validate && self.validate_exempt.iter().any(|range| range.contains(client)) {
            return Ok(());
        }
        let client = ClientNetwork::for_limits(client);
        let since_start = now.saturating_duration_since(self.start).as_nanos();
        table.take(client, self.hasher.hash_one(client), u64::try_from(since_start).unwrap_or(u64::MAX))
    }
}

const SECOND: u64 = 1_000_000_000;
const WAYS: usize = 8;
/// 16,384 clients a bucket, 256 KiB.
const SETS: usize = 2048;

/// One bucket of all clients. Times are nanoseconds since the start.
struct Table {
    /// What one request costs.
    interval: u64,
    /// How far ahead of now a bucket may be: the cost of a burst.
    depth: u64,
    sets: Box<[Mutex<[Place; WAYS]>]>,
}

/// One client's bucket.
#[derive(Clone, Copy)]
struct Place {
    client: u64,
    full_at: u64,
}

/// The broadcast address's bits, full since ever.
const UNUSED: Place = Place { client: u64::MAX, full_at: 0 };

impl Table {
    /// None where there is no limit.
    fn new(rate: Rate) -> Option<Self> {
        if !(rate.rps > 0.0 && rate.rps.is_finite()) {
            return None;
        }
        // A float cast stops at the ends of the range; a century is as good as never.
        let century = 100 * 366 * 86_400 * SECOND;
        let interval = ((SECOND as f64 / rate.rps) as u64).clamp(1, century);
        let depth = interval.saturating_mul(u64::from(rate.burst.max(1))).min(century);
        let sets = (0..SETS).map(|_| Mutex::new([UNUSED; WAYS])).collect();
        Some(Self { interval, depth, sets })
    }

    fn take(&self, client: ClientNetwork, hash: u64, now: u64) -> Result<(), u32> {
        let mut set = lock(&self.sets[hash as usize % SETS]);
        let mut fullest = 0;
        let mut own = None;
        for (at, place) in set.iter().enumerate() {
            if place.client == client.bits() {
                own = Some(at);
                break;
            }
            if place.full_at < set[fullest].full_at {
                fullest = at;
            }
        }
        let place = &mut set[own.unwrap_or(fullest)];
        let paid = place.full_at.max(now).saturating_add(self.interval);
        let wait = paid.saturating_sub(now.saturating_add(self.depth));
        if wait > 0 {
            return Err(u32::try_from(wait.div_ceil(SECOND)).unwrap_or(u32::MAX));
        }
        *place = Place { client: client.bits(), full_at: paid };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    fn limiter(rps: f64, burst: u32) -> (Limiter, Instant) {
        let rate = Rate { rps, burst };
        let none = Rate { rps: 0.0, burst: 1 };
        let start = Instant::now();
        let validate_exempt = vec![Cidr::parse("10.0.0.0/8").unwrap()];
        let rates = Rates { credential: rate, validate: rate, api: none, validate_exempt };
        (Limiter::new(rates, RandomState::new(), start), start)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_then_the_rate_then_full_again() {
        let (limiter, t0) = limiter(10.0, 3);
        let take = |at_ms: u64| limiter.take(Bucket::Credential, ip("192.0.2.1"), t0 + Duration::from_millis(at_ms));
        assert_eq!([take(0), take(0), take(0), take(0)], [Ok(()), Ok(()), Ok(()), Err(1)]);
        assert_eq!([take(99), take(100), take(101)], [Err(1), Ok(()), Err(1)]);
        assert_eq!([take(5000), take(5000), take(5000), take(5000)], [Ok(()), Ok(()), Ok(()), Err(1)]);
        assert!(
            limiter.take(Bucket::Credential, ip("192.0.2.2"), t0).is_ok(),
            "another client has a bucket of its own"
        );
        assert!(
            limiter.take(Bucket::Validate, ip("192.0.2.1"), t0 + Duration::from_secs(5)).is_ok(),
            "and each bucket"
        );
    }

    #[test]
    fn the_wait_is_whole_seconds_rounded_up() {
        let (limiter, t0) = limiter(0.1, 1);
        let take = |at: u64| limiter.take(Bucket::Credential, ip("192.0.2.1"), t0 + Duration::from_secs(at));
        assert_eq!([take(0), take(0), take(9), take(10)], [Ok(()), Err(10), Err(1), Ok(())]);
        let (glacial, t0) = limiter_of_extremes();
        assert!(glacial.take(Bucket::Credential, ip("192.0.2.1"), t0).is_ok());
        assert!(glacial.take(Bucket::Credential, ip("192.0.2.1"), t0).is_err());
    }

    fn limiter_of_extremes() -> (Limiter, Instant) {
        limiter(1e-300, 1)
    }

    #[test]
    fn ipv6_clients_are_a_64() {
        let (limiter, t0) = limiter(1.0, 1);
        assert!(limiter.take(Bucket::Credential, ip("2001:db8::1"), t0).is_ok());
        assert!(limiter.take(Bucket::Credential, ip("2001:db8::2"), t0).is_err());
        assert!(limiter.take(Bucket::Credential, ip("2001:db8:0:1::1"), t0).is_ok());
    }

    #[test]
    fn no_rate_is_no_limit_and_the_exempt_are_spared_in_validate_only() {
        let (limiter, t0) = limiter(1.0, 1);
        for _ in 0..1000 {
            assert!(limiter.take(Bucket::Api, ip("192.0.2.1"), t0).is_ok());
            assert!(limiter.take(Bucket::Validate, ip("10.1.2.3"), t0).is_ok());
        }
        assert!(limiter.take(Bucket::Credential, ip("10.1.2.3"), t0).is_ok());
        assert!(limiter.take(Bucket::Credential, ip("10.1.2.3"), t0).is_err());
    }

    #[test]
    fn a_flood_of_addresses_does_not_reset_a_limited_client() {
        let (limiter, t0) = limiter(1.0, 4);
        let limited = ip("192.0.2.1");
        while limiter.take(Bucket::Credential, limited, t0).is_ok() {}
        // Far more addresses than places, each of which pays once: without the rule that the fullest goes, and goes
        // as it stands, the limited client's bucket would be forgotten here and come back full.
        for n in 0..20 * (SETS * WAYS) as u32 {
            let _ = limiter.take(Bucket::Credential, IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + n)), t0);
        }
        assert_eq!(limiter.take(Bucket::Credential, limited, t0), Err(1));
    }

    #[test]
    fn the_whole_table_never_gives_out_more_than_its_places_hold() {
        let (limiter, t0) = limiter(1.0, 4);
        let given = (0..1_000_000u32)
            .filter(|n| limiter.take(Bucket::Credential, IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + n)), t0).is_ok())
            .count();
        assert_eq!(given, SETS * WAYS * 4);
    }

    #[test]
    fn buckets_that_say_nothing_make_room() {
        let (limiter, t0) = limiter(1.0, 2);
        for n in 0..20 * (SETS * WAYS) as u32 {
            let _ = limiter.take(Bucket::Credential, IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + n)), t0);
        }
        let later = t0 + Duration::from_secs(3);
        let newcomer = ip("192.0.2.1");
        assert!(limiter.take(Bucket::Credential, newcomer, later).is_ok());
        assert!(limiter.take(Bucket::Credential, newcomer, later).is_ok());
        assert!(limiter.take(Bucket::Credential, newcomer, later).is_err());
    }
}
