//! The one seam through which time comes in. Wall-clock time only; waiting and timing use `std::time::Instant`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::model::time::{Millis, Timestamp};

/// Where the time comes from: the system, or a test that sets it.
#[derive(Clone, Default)]
pub enum Clock {
    /// The operating system's wall clock.
    #[default]
    System,
    /// Milliseconds since the Unix epoch, set by a test.
    Fixed(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands still at `at` until it is set again through the returned handle.
    pub fn fixed(at: Timestamp) -> (Self, Arc<AtomicI64>) {
        let handle = Arc::new(AtomicI64::new(at.seconds() * 1000));
        (Self::Fixed(handle.clone()), handle)
    }

    /// Now, in milliseconds.
    pub fn millis(&self) -> Millis {
        Millis::new(match self {
            Self::System => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
                Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
            },
            Self::Fixed(at) => at.load(Ordering::SeqCst),
        })
    }

    /// Now, in whole seconds.
    pub fn now(&self) -> Timestamp {
        self.millis().timestamp()
    }
}
