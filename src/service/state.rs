//! Whether the house is open: the clock, the disk, and whether the server is on its way out.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Call, Service};
use crate::error::{Error, Result};
use crate::model::token::HealthStatus;
use crate::store::Condition;

/// How far the clock may be before the newest event, in seconds.
const CLOCK_TOLERANCE: i64 = 300;

/// What changes while the server runs.
#[derive(Default)]
pub struct State {
    clock_behind: AtomicBool,
    draining: AtomicBool,
    /// The database's current data key doesn't open.
    pub(super) locked_out: AtomicBool,
}

/// What `/v1/ready` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Everything is served.
    Ready,
    /// The wall clock is well before the newest event: nothing but health is served.
    ClockBehind,
    /// Checks are served, writes aren't.
    ReadOnly,
    /// Checks are served, what needs the data key isn't: it is another now, which the master key that this process was
    /// started with doesn't open.
    LockedOut,
    /// The server is stopping.
    Draining,
}

/// `GET /v1/health`: the process serves at all.
///
/// # Errors
/// None.
pub fn health(_: &Service, _: &Call, (): ()) -> Result<HealthStatus> {
    Ok(HealthStatus::Ok)
}

/// `GET /v1/ready`: everything is served.
///
/// # Errors
/// `Unavailable` saying why not.
pub fn ready(service: &Service, _: &Call, (): ()) -> Result<HealthStatus> {
    // Whatever is wrong with the keys or the file is what the house then says of itself, and who looks at it regularly
    // logs it.
    let _ = service.refresh_data_keys();
    match service.readiness() {
        Readiness::Ready => Ok(HealthStatus::Ready),
        Readiness::ClockBehind => Err(clock_behind()),
        Readiness::ReadOnly => Err(Error::unavailable("the server is read-only", 30)),
        Readiness::LockedOut => Err(Error::unavailable("the server's master key is no longer the database's", 30)),
        Readiness::Draining => Err(Error::unavailable("the server is stopping", 5)),
    }
}

impl Service {
    /// How the house is.
    pub fn readiness(&self) -> Readiness {
        if self.state.draining.load(Ordering::Acquire) {
            Readiness::Draining
        } else if self.state.clock_behind.load(Ordering::Acquire) {
            Readiness::ClockBehind
        } else if self.store.condition() != Condition::Good {
            Readiness::ReadOnly
        } else if self.state.locked_out.load(Ordering::Acquire) {
            Readiness::LockedOut
        } else {
            Readiness::Ready
        }
    }

    /// Says whether anything but health may be served at all.
    ///
    /// # Errors
    /// `Unavailable` while the clock is behind.
    pub fn admit(&self) -> Result<()> {
        if self.state.clock_behind.load(Ordering::Acquire) { Err(clock_behind()) } else { Ok(()) }
    }

    /// From here on `/v1/ready` says no.
    pub fn begin_draining(&self) {
        self.state.draining.store(true, Ordering::Release);
    }

    /// Compares the wall clock with the newest event. Called at start and every few seconds; a change is returned so
    /// that the server can log it.
    ///
    /// # Errors
    /// Trouble with the file.
    pub fn look_at_clock(&self) -> Result<Option<bool>> {
        let newest = self.store.read(|view| view.newest_event_time())?;
        let behind = newest.is_some_and(|newest| self.now().plus(CLOCK_TOLERANCE) < newest);
        let was = self.state.clock_behind.swap(behind, Ordering::AcqRel);
        Ok((was != behind).then_some(behind))
    }
}

fn clock_behind() -> Error {
    Error::unavailable("the server's clock is behind its database", 30)
}
