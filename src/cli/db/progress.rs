//! How far long work has come, on a terminal only.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use crate::cli::term;

/// How long after the one before something is shown again; work that takes less shows nothing.
const PAUSE: Duration = Duration::from_millis(200);

/// One line on standard error that is written over, and cleared when this is dropped.
pub(super) struct Progress {
    what: &'static str,
    last: Instant,
    shown: bool,
    on: bool,
}

impl Progress {
    /// Of work that is called `what`.
    pub fn of(what: &'static str) -> Self {
        Self { what, last: Instant::now(), shown: false, on: io::stderr().is_terminal() }
    }

    /// So much is done, of so much.
    pub fn tell(&mut self, done: u64, total: u64) {
        if self.on && self.last.elapsed() >= PAUSE {
            let percent = done.saturating_mul(100) / total.max(1);
            term::err(&format!("\r{}: {done} of {total} ({percent} %)\u{1b}[K", self.what));
            (self.last, self.shown) = (Instant::now(), true);
        }
    }
}

/// Work that is done in parts, one after another.
#[derive(Default)]
pub(super) struct Parts(Option<Progress>);

impl Parts {
    /// So much is done of the part `what`, of so much.
    pub fn tell(&mut self, what: &'static str, done: u64, total: u64) {
        if self.0.as_ref().is_none_or(|part| part.what != what) {
            // The one before is cleared first.
            self.0 = None;
            self.0 = Some(Progress::of(what));
        }
        if let Some(part) = &mut self.0 {
            part.tell(done, total);
        }
    }

    /// Whether anybody sees it.
    pub fn is_seen() -> bool {
        io::stderr().is_terminal()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            term::err("\r\u{1b}[K");
        }
    }
}
