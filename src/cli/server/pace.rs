//! Whether the wall clock goes as time goes. One that has just jumped, or jumps back in a moment, mustn't decide what is
//! old enough to be removed.

use std::time::{Duration, Instant};

use crate::model::time::Timestamp;

/// How far the wall clock may go another way than time, in seconds, between two looks.
const TOLERANCE: i64 = 300;

/// The wall clock held against the monotonic one.
pub(super) struct Pace {
    wall: Timestamp,
    at: Instant,
    steady_since: Instant,
}

impl Pace {
    /// From here on.
    pub fn new(wall: Timestamp, at: Instant) -> Self {
        Self { wall, at, steady_since: at }
    }

    /// Compares again.
    pub fn look(&mut self, wall: Timestamp, at: Instant) {
        let passed = i64::try_from(at.duration_since(self.at).as_secs()).unwrap_or(i64::MAX);
        let told = wall.seconds().saturating_sub(self.wall.seconds());
        if told.abs_diff(passed) > TOLERANCE.unsigned_abs() {
            (self.wall, self.at, self.steady_since) = (wall, at, at);
        }
    }

    /// For how long the two have gone together.
    pub fn steady_for(&self, at: Instant) -> Duration {
        at.duration_since(self.steady_since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_either_way_begins_it_anew_and_a_correction_does_not() {
        let begun = Instant::now();
        let after = |seconds: u64| begun + Duration::from_secs(seconds);
        let wall = |seconds: i64| Timestamp::new(1_800_000_000 + seconds);
        let mut pace = Pace::new(wall(0), begun);
        for n in 1..=720 {
            // A clock that is put right by four minutes at once, and goes a little fast all the time.
            pace.look(wall(240 + n * 5 + n / 100), after(n as u64 * 5));
        }
        assert_eq!(pace.steady_for(after(3600)).as_secs(), 3600);
        // A month ahead for a moment.
        pace.look(wall(3605 + 30 * 86_400), after(3605));
        assert_eq!(pace.steady_for(after(3605)).as_secs(), 0);
        pace.look(wall(3610), after(3610));
        assert_eq!(pace.steady_for(after(3615)).as_secs(), 5);
        pace.look(wall(7210), after(7210));
        assert_eq!(pace.steady_for(after(7210)).as_secs(), 3600);
        // And back.
        pace.look(wall(0), after(7220));
        assert_eq!(pace.steady_for(after(7220)).as_secs(), 0);
    }
}
