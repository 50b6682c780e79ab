//! The database: `read` and `write`, and methods on what they hand out. All SQL, and nothing but SQL, lives in this
//! room; no rusqlite type leaves it. Above it accounts are named by UUID.
//!
//! The contract, which any other engine has to keep too: a write is one transaction begun `IMMEDIATE` and durable when
//! it is acknowledged; its closure may be run again, so it does no I/O and reads no clock or randomness; what a closure
//! refused left nothing behind; a read sees everything acknowledged before it, by whatever process.

mod accounts;
mod audit;
mod backup;
mod chain;
mod check;
mod engine;
mod epoch;
pub mod files;
mod keys;
mod lock;
mod replace;
mod reseal;
mod schema;
mod sealed;
mod sql;
mod tokens;
mod writer;

use std::cell::Cell;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use rusqlite::{Connection, Params, Row};

use crate::error::{Error, Result};
use crate::model::audit::Occasion;

pub use accounts::{LoginRow, NewAccountRow, TotpRow};
pub use audit::{EventRow, chained};
pub use backup::{SealRow, read_sealed, seal_content, seal_file};
pub use chain::{CheckpointRow, LogRow};
pub use check::Standing;
pub use engine::schema_version;
pub use keys::{KeyPurpose, KeyRow};
pub use lock::{ServerLock, Told};
pub use replace::{clear_leftovers, replace};
pub use reseal::{SealedColumn, SealedValue};
pub use schema::LATEST as LATEST_SCHEMA;
pub use sealed::PgRow;
pub use tokens::{NewTokenRow, TokenState};

use engine::Fault;

/// An open database: one writer thread, and a connection for every thread that reads.
pub struct Store {
    path: PathBuf,
    /// None for a file that is only read.
    writer: Option<writer::Writer>,
    readers: Vec<Mutex<Option<Connection>>>,
    condition: Arc<AtomicU8>,
    /// Let go last, when no connection is left.
    _held: Held,
}

/// What keeps others from doing what they mustn't while the database is open.
#[allow(dead_code, reason = "they are held, not looked at")]
enum Held {
    /// Nothing: a file that nobody changes.
    Nothing,
    /// Nobody puts another file in the database's place.
    Open(lock::Open),
    /// Nobody of us opens it.
    Alone(lock::Alone),
}

/// What the last trouble with the file means for the next write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Condition {
    /// Nothing is wrong.
    Good,
    /// The disk is full or read-only; the next write that succeeds says that it is over.
    Full,
    /// An I/O error: only a restart trusts the file again.
    Failed,
    /// Another process has migrated the file to a schema newer than this program's.
    Newer,
}

impl Condition {
    fn load(from: &AtomicU8) -> Self {
        match from.load(Ordering::Acquire) {
            0 => Self::Good,
            1 => Self::Full,
            3 => Self::Newer,
            _ => Self::Failed,
        }
    }

    /// What a write is refused with, if it is.
    fn refusal(self) -> Option<Error> {
        match self {
            Self::Good | Self::Full => None,
            Self::Failed => Some(read_only("after an I/O error the database file is not trusted before a restart")),
            Self::Newer => Some(read_only("the database has a schema newer than this program")),
        }
    }
}

/// 503 for a write that can't be done now.
fn read_only(log: &str) -> Error {
    Error::unavailable("the server is read-only", 30).because(log)
}

impl Store {
    /// Opens the database at `path`, makes the file (mode 0600) if there is none, and brings its schema up to date.
    ///
    /// # Errors
    /// `Internal`, with a text for the operator, where the file can't be opened, is no database, or is newer than
    /// this program.
    pub fn open_and_migrate(path: &Path, occasion: Occasion) -> Result<Self> {
        engine::create_file(path)?;
        engine::reachable(path)?;
        let open = lock::Open::take(path)?;
        let mut connection = engine::connect(path)?;
        engine::migrate(&mut connection, path, occasion, schema::MIGRATIONS)?;
        Self::with_writer(path, connection, open)
    }

    /// Opens the database at `path`, which has to have the schema of this program.
    ///
    /// # Errors
    /// As [`Store::open_and_migrate`], and where migrations are pending or there is no file.
    pub fn open(path: &Path) -> Result<Self> {
        engine::reachable(path)?;
        let open = lock::Open::take(path)?;
        let connection = engine::connect(path)?;
        let version = engine::version(&connection)?;
        if version != schema::LATEST {
            return Err(engine::wrong_version(version));
        }
        Self::with_writer(path, connection, open)
    }

    /// The same for reading, also where the disk is full or can't be written: what SQLite can't open then is read as it
    /// stands, if nobody of us has it open and everything is in the file itself.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_to_read(path: &Path) -> Result<Self> {
        let error = match Self::open(path) {
            Err(error) if path.exists() => error,
            done => return done,
        };
        let Ok(alone) = lock::Alone::take(path) else { return Err(error) };
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let is_all = |name: &str| files::beside(&real, name).metadata().map_or(true, |file| file.len() == 0);
        if !is_all("-wal") || !is_all("-journal") {
            return Err(error);
        }
        match Self::unchanging(path, Held::Alone(alone)) {
            Ok(store) if store.schema_version()? == schema::LATEST => Ok(store),
            _ => Err(error),
        }
    }

    /// Opens a file that nobody changes, for reading only, whatever its schema version: a backup. It needs no right to
    /// write, and leaves the file and its folder as they are.
    ///
    /// # Errors
    /// `Internal` where the file can't be opened or is no database.
    pub fn open_unchanging(path: &Path) -> Result<Self> {
        Self::unchanging(path, Held::Nothing)
    }

    fn unchanging(path: &Path, held: Held) -> Result<Self> {
        let is_file = path.metadata().map_err(|e| engine::cannot_open(path, e))?.is_file();
        if !is_file {
            return Err(engine::cannot_open(path, "it is no file"));
        }
        let store = Self::without_writer(path, held);
        store.schema_version().map_err(|e| engine::cannot_open(path, e))?;
        Ok(store)
    }

    fn with_writer(path: &Path, connection: Connection, open: lock::Open) -> Result<Self> {
        let mut store = Self::without_writer(path, Held::Open(open));
        store.writer = Some(writer::Writer::start(connection, store.condition.clone())?);
        Ok(store)
    }

    fn without_writer(path: &Path, held: Held) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            path: path.to_owned(),
            writer: None,
            readers: (0..cores * 2 + 4).map(|_| Mutex::new(None)).collect(),
            condition: Arc::new(AtomicU8::new(Condition::Good as u8)),
            _held: held,
        }
    }

    /// Where the database is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether writes are possible, as far as is known.
    pub fn condition(&self) -> Condition {
        Condition::load(&self.condition)
    }

    /// Reads. Every statement sees what was acknowledged before it; for several that must agree use [`Store::snapshot`].
    ///
    /// # Errors
    /// The closure's own, and `Unavailable` or `Internal` for trouble with the file.
    pub fn read<T>(&self, work: impl FnOnce(&View<'_>) -> Result<T>) -> Result<T> {
        self.with_reader(|connection| {
            let fault = Cell::new(None);
            let done = work(&View { connection, fault: &fault });
            self.note(fault.get());
            done
        })
    }

    /// Reads with several statements that all see the same state.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn snapshot<T>(&self, work: impl FnOnce(&View<'_>) -> Result<T>) -> Result<T> {
        self.read(|view| {
            view.run_plain("BEGIN")?;
            let done = work(view);
            // Nothing was written: how a read transaction ends makes no difference, only that it does.
            let ended = view.run_plain("ROLLBACK");
            done.and_then(|value| ended.map(|_| value))
        })
    }

    /// Changes something: one transaction, durable when this returns `Ok`, gone without a trace when it doesn't.
    ///
    /// The closure may be run more than once. Waiting writes share one fsync.
    ///
    /// # Errors
    /// The closure's own; `Unavailable` where the disk is full or the file is locked for longer than 5 s.
    pub fn write<T: Send + 'static>(&self, work: impl FnMut(&Tx<'_>) -> Result<T> + Send + 'static) -> Result<T> {
        match (self.condition().refusal(), &self.writer) {
            (Some(refusal), _) => Err(refusal),
            (None, Some(writer)) => writer.write(work),
            (None, None) => Err(read_only("the database is opened for reading only")),
        }
    }

    /// The schema version that the database says it has; 0 for an empty file.
    ///
    /// # Errors
    /// Trouble with the file.
    pub fn schema_version(&self) -> Result<i64> {
        self.read(|view| engine::version(view.connection))
    }

    /// Brings the write-ahead log into the database and cuts it to nothing; `false` where a reader is in the way.
    ///
    /// # Errors
    /// Trouble with the file.
    pub fn empty_log(&self) -> Result<bool> {
        engine::empty_log(&self.path)
    }

    /// Runs `work` on a connection that no other thread is using; each thread prefers one of its own.
    fn with_reader<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static SEAT: usize = THREADS.fetch_add(1, Ordering::Relaxed);
        }
        let own = SEAT.with(|seat| seat % self.readers.len());
        let free = (0..self.readers.len())
            .filter_map(|offset| match self.readers[(own + offset) % self.readers.len()].try_lock() {
                Ok(slot) => Some(slot),
                Err(TryLockError::Poisoned(slot)) => Some(slot.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            })
            .next();
        let mut slot = free.unwrap_or_else(|| self.readers[own].lock().unwrap_or_else(PoisonError::into_inner));
        let connection = match slot.take() {
            Some(connection) => connection,
            None if self.writer.is_none() => engine::connect_unchanging(&self.path)?,
            None => engine::connect_reader(&self.path)?,
        };
        // A closure that panics takes the connection with it, and one with a transaction left open isn't put back: the
        // next reader would see the past.
        let done = work(&connection);
        if connection.is_autocommit() {
            *slot = Some(connection);
        }
        done
    }

    fn note(&self, fault: Option<Fault>) {
        if fault == Some(Fault::Io) {
            self.condition.store(Condition::Failed as u8, Ordering::Release);
        }
    }
}

/// What a read can do.
pub struct View<'c> {
    connection: &'c Connection,
    fault: &'c Cell<Option<Fault>>,
}

impl View<'_> {
    /// The one row of a statement, if it has one.
    fn row<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let found = self.connection.prepare_cached(sql).and_then(|mut statement| {
            let mut rows = statement.query(params)?;
            rows.next()?.map(read).transpose()
        });
        found.map_err(|e| self.trouble(e))
    }

    /// All rows of a statement.
    fn rows<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let found =
            self.connection.prepare_cached(sql).and_then(|mut statement| statement.query_map(params, read)?.collect());
        found.map_err(|e| self.trouble(e))
    }

    fn run_plain(&self, sql: &'static str) -> Result<usize> {
        self.connection.prepare_cached(sql).and_then(|mut s| s.execute([])).map_err(|e| self.trouble(e))
    }

    /// Turns the engine's error into ours, and remembers what it means for the file.
    fn trouble(&self, error: rusqlite::Error) -> Error {
        let (fault, error) = engine::judge(error);
        if fault.is_some() {
            self.fault.set(fault);
        }
        error
    }
}

/// What a write can do: everything a read can, and change.
pub struct Tx<'c> {
    view: View<'c>,
}

impl<'c> Deref for Tx<'c> {
    type Target = View<'c>;

    fn deref(&self) -> &View<'c> {
        &self.view
    }
}

impl Tx<'_> {
    /// Runs a changing statement; gives the number of rows changed.
    fn run(&self, sql: &'static str, params: impl Params) -> Result<usize> {
        self.connection.prepare_cached(sql).and_then(|mut s| s.execute(params)).map_err(|e| self.trouble(e))
    }
}

/// How far a statement may reach into a table.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Every table by an index.
    Search,
    /// The newest rows only, from the end of the table: `ORDER BY id DESC LIMIT …`.
    Newest,
    /// A listing, or a table of a few rows: it may walk.
    Walk,
}

/// Declares a file's statements, so that a test can ask the engine how each would be run.
macro_rules! statements {
    ($($name:ident $reach:ident = $sql:expr;)*) => {
        $(const $name: &str = $sql;)*

        /// Every statement of this file.
        #[cfg(test)]
        pub(super) const STATEMENTS: &[(&str, &str, super::Reach)] =
            &[$((stringify!($name), $sql, super::Reach::$reach)),*];
    };
}
use statements;

#[cfg(test)]
mod tests;
