//! What a server is told from outside: signals, and for `mcias dev` the end of standard input.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// The signals that mean something to a server.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    stdin: Option<oneshot::Receiver<()>>,
    /// Kept so that a write past RLIMIT_FSIZE is an error to the database, and doesn't end the process.
    _file_too_large: Signal,
}

/// SIGXFSZ, which has no name in tokio: 25 on every Linux but MIPS and PA-RISC.
const SIGXFSZ: i32 = 25;

impl Signals {
    /// Listens from now on.
    pub(super) fn new(with_stdin: bool) -> std::io::Result<Self> {
        Ok(Self {
            stdin: with_stdin.then(end_of_stdin),
            _file_too_large: signal(SignalKind::from_raw(SIGXFSZ))?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hangup.recv() => Told::Reload,
            () = Self::ended(&mut self.stdin) => Told::End,
        }
    }

    /// Waits for the end of standard input, once; for ever where that means nothing.
    async fn ended(stdin: &mut Option<oneshot::Receiver<()>>) {
        let Some(end) = stdin else { return std::future::pending().await };
        // A sender that is gone has read to the end, too.
        let _ = end.await;
        *stdin = None;
    }

    /// The next one that means the end.
    pub(super) async fn end(&mut self) {
        while self.next().await != Told::End {}
    }
}

/// Reads standard input to its end, on a thread of its own: there is no other way to wait for it.
fn end_of_stdin() -> oneshot::Receiver<()> {
    let (sender, ended) = oneshot::channel();
    std::thread::spawn(move || {
        // An input that can't be read is at its end.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        // Nobody may be waiting any more.
        let _ = sender.send(());
    });
    ended
}

/// What a signal means.
#[derive(PartialEq, Eq)]
pub(super) enum Told {
    /// It is to end.
    End,
    /// It is to read again what can be read again.
    Reload,
}
