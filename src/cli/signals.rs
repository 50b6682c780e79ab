//! What has to be undone before a signal ends the program: the echo of a terminal that was turned off, a file that is
//! half written. Not for the server, which has an orderly end of its own.

use std::collections::BTreeMap;
use std::sync::{Mutex, Once, PoisonError};

use tokio::signal::unix::{SignalKind, signal};

/// The signals that end a program that doesn't care for them.
const ENDS: [SignalKind; 3] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];

type Work = Box<dyn FnOnce() + Send>;

/// What is to be undone, in the order of its registration. One for the process, as signals are.
static UNDO: Mutex<(u64, BTreeMap<u64, Work>)> = Mutex::new((0, BTreeMap::new()));

/// Keeps something in mind that is undone if a signal ends the program; no more once it is dropped.
#[must_use]
pub struct Undo(u64);

impl Undo {
    /// From here on SIGINT, SIGTERM and SIGHUP do this first and then end the program, with the exit code that a shell
    /// tells of a signal: 128 and its number. One that was ignored when the program started still is.
    pub fn on_signal(work: impl FnOnce() + Send + 'static) -> Self {
        static WATCH: Once = Once::new();
        WATCH.call_once(watch);
        let mut undo = UNDO.lock().unwrap_or_else(PoisonError::into_inner);
        undo.0 += 1;
        let number = undo.0;
        undo.1.insert(number, Box::new(work));
        Self(number)
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        UNDO.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.0);
    }
}

/// Waits for a signal on a thread of its own, for as long as the program runs. Where that can't be, signals end it as
/// they always do.
fn watch() {
    let ignored = std::fs::read_to_string("/proc/self/status").map_or(0, |status| ignored(&status));
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
    let signals = {
        let _entered = runtime.enter();
        let counts = ENDS.into_iter().filter(|kind| ignored & (1 << (kind.as_raw_value() - 1)) == 0);
        counts.filter_map(|kind| Some((kind, signal(kind).ok()?))).collect::<Vec<_>>()
    };
    std::thread::spawn(move || {
        let ended_by = runtime.block_on(async {
            let mut signals = signals;
            std::future::poll_fn(|context| {
                let came =
                    signals.iter_mut().find_map(|(kind, signal)| signal.poll_recv(context).is_ready().then_some(*kind));
                came.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
            })
            .await
        });
        // Held to the end, so that nothing is begun any more that would have to be undone.
        let mut undo = UNDO.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, work)) = undo.1.pop_last() {
            work();
        }
        std::process::exit(128 + ended_by.as_raw_value());
    });
}

/// The set of signals that are ignored, as `/proc/self/status` tells it: bit 0 is signal 1.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read() {
        assert_eq!(ignored("Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"), 0x1001);
        assert_eq!(ignored("Name:\tx\n"), 0);
    }
}
