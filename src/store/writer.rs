//! The one writer: a thread with the one connection that writes. Writes that wait while another commits share the next
//! transaction, each in a savepoint of its own, and so one fsync.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tracing::error;

use super::engine::{self, Fault};
use super::{Condition, Tx, View, schema};
use crate::error::{Error, Result};

/// How many waiting writes share a transaction at most.
const BATCH: usize = 32;

/// From how many pages on the write-ahead log is brought into the database.
const LOG_PAGES: i64 = 1000;

/// The writer thread; dropping it finishes what is queued and closes the connection.
pub(super) struct Writer {
    jobs: Mutex<Option<Sender<Box<dyn Job>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(connection: Connection, condition: Arc<AtomicU8>) -> Result<Self> {
        let (jobs, queue) = channel();
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || serve(connection, queue, condition))
            .map_err(|e| Error::internal(format!("cannot start the writer thread: {e}")))?;
        Ok(Self { jobs: Mutex::new(Some(jobs)), thread: Some(thread) })
    }

    pub(super) fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let gone = || Error::unavailable("the server is stopping", 5);
        let (reply, answer) = sync_channel(1);
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(gone)?;
        jobs.send(Box::new(Pending { work, value: None, reply })).map_err(|_| gone())?;
        answer.recv().map_err(|_| Error::internal("a write panicked"))?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        *self.jobs.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(thread) = self.thread.take() {
            // A panic in it was reported to the write it belonged to.
            let _ = thread.join();
        }
    }
}

/// A write whose closure's type is forgotten.
trait Job: Send {
    /// Runs the closure, keeping its value.
    fn run(&mut self, tx: &Tx<'_>) -> Result<()>;
    /// Tells the waiting thread how it ended.
    fn finish(self: Box<Self>, outcome: Result<()>);
}

struct Pending<T, F> {
    work: F,
    value: Option<T>,
    reply: SyncSender<Result<T>>,
}

impl<T: Send, F: FnMut(&Tx<'_>) -> Result<T> + Send> Job for Pending<T, F> {
    fn run(&mut self, tx: &Tx<'_>) -> Result<()> {
        self.value = Some((self.work)(tx)?);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<()>) {
        let value = self.value;
        let answer = outcome.and_then(|()| value.ok_or_else(|| Error::internal("a write ended without a value")));
        // The one who waited may be gone; the write stands all the same.
        let _ = self.reply.send(answer);
    }
}

fn serve(connection: Connection, queue: Receiver<Box<dyn Job>>, condition: Arc<AtomicU8>) {
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        let together = transact(&connection, &condition, &mut batch);
        match together {
            Ok(outcomes) => batch.into_iter().zip(outcomes).for_each(|(job, outcome)| job.finish(outcome)),
            Err(error) if batch.len() == 1 => batch.into_iter().for_each(|job| job.finish(Err(error.clone()))),
            // One of them may have spoilt it for all: each gets a transaction of its own.
            Err(_) => {
                for job in batch {
                    let mut alone = [job];
                    let outcome = transact(&connection, &condition, &mut alone);
                    let [job] = alone;
                    job.finish(outcome.and_then(|mut outcomes| outcomes.remove(0)));
                }
            }
        }
        shorten_log(&connection, &condition);
    }
}

/// Brings the log into the database once it is long. SQLite would do it at a commit, and keep it to itself where the
/// database can't be written or synced; what is in the log is safe, but the file is no longer to be trusted.
fn shorten_log(connection: &Connection, condition: &AtomicU8) {
    if Condition::load(condition).refusal().is_some() {
        return;
    }
    let pages = |how| connection.prepare_cached(how)?.query_row([], |row| row.get::<_, i64>(1));
    let done = pages("PRAGMA wal_checkpoint(NOOP)").and_then(|long| match long {
        LOG_PAGES.. => pages("PRAGMA wal_checkpoint(PASSIVE)"),
        _ => Ok(long),
    });
    if let Err(error) = done
        && let (Some(Fault::Io), error) = engine::judge(error)
    {
        error!(cause = %error, "the database's log can't be brought into it");
        condition.store(Condition::Failed as u8, Ordering::Release);
    }
}

/// Runs the jobs in one transaction. `Err`: the engine gave up on all of them, nothing was written, and it may have been
/// because of one of them.
fn transact(
    connection: &Connection,
    condition: &AtomicU8,
    batch: &mut [Box<dyn Job>],
) -> std::result::Result<Vec<Result<()>>, Error> {
    // Also for those that were queued, or failed together, before the file was no longer trusted.
    if let Some(refusal) = Condition::load(condition).refusal() {
        return Ok(batch.iter().map(|_| Err(refusal.clone())).collect());
    }
    let fault = Cell::new(None);
    let tx = Tx { view: View { connection, fault: &fault } };
    let outcome = attempt(&tx, condition, batch);
    if !connection.is_autocommit() {
        // A rollback that fails leaves SQLite rolled back all the same (it says so in its documentation of ROLLBACK).
        let _ = tx.run_plain("ROLLBACK");
    }
    let now = match (&outcome, fault.get(), Condition::load(condition)) {
        (_, _, sticky @ (Condition::Failed | Condition::Newer)) => sticky,
        (_, Some(Fault::Io), _) => Condition::Failed,
        (_, Some(Fault::Full), _) => Condition::Full,
        (Ok(outcomes), None, _) if outcomes.iter().any(Result::is_ok) => Condition::Good,
        (_, _, unchanged) => unchanged,
    };
    condition.store(now as u8, Ordering::Release);
    outcome
}

fn attempt(
    tx: &Tx<'_>,
    condition: &AtomicU8,
    batch: &mut [Box<dyn Job>],
) -> std::result::Result<Vec<Result<()>>, Error> {
    if let Err(error) = begin(tx, condition) {
        // It was none of theirs, and would be the same for each alone: 5 s each, where another process has the lock.
        return Ok(batch.iter().map(|_| Err(error.clone())).collect());
    }
    let mut outcomes = Vec::with_capacity(batch.len());
    for job in batch.iter_mut() {
        tx.run_plain("SAVEPOINT job")?;
        let outcome = catch_unwind(AssertUnwindSafe(|| job.run(tx)))
            .unwrap_or_else(|_| Err(Error::internal("a write panicked; it was rolled back")));
        if tx.fault.get().is_some() || tx.connection.is_autocommit() {
            return Err(outcome.err().unwrap_or_else(|| Error::internal("the engine ended the transaction")));
        }
        if outcome.is_err() {
            tx.run_plain("ROLLBACK TO job")?;
        }
        tx.run_plain("RELEASE job")?;
        outcomes.push(outcome);
    }
    tx.run_plain("COMMIT")?;
    Ok(outcomes)
}

fn begin(tx: &Tx<'_>, condition: &AtomicU8) -> Result<()> {
    tx.run_plain("BEGIN IMMEDIATE")?;
    if engine::version(tx.connection)? > schema::LATEST {
        condition.store(Condition::Newer as u8, Ordering::Release);
        return Err(super::read_only("the database has a schema newer than this program"));
    }
    Ok(())
}
