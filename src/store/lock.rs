//! Who may do what with a database at the same time. One server a database: a lock file held for the life of the
//! process. And nobody puts another file in a database's place while somebody has it open: a lock on its folder.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tracing::warn;

use super::files::{beside, folder_of, settle};
use crate::error::{Error, Result};

/// How long the other kind of lock on the folder is waited for; as SQLite waits for its own.
const PATIENCE: Duration = Duration::from_secs(5);

/// The exclusive lock on `<database>.lock`; let go when dropped, or by the kernel when the process dies. The file says
/// what `mciasdb rekey` has to know of the server: lines `data_key <id>`, the one that it seals with, and, where the
/// database has a newer one that it can't open, `locked_out <id>`.
pub struct ServerLock {
    file: File,
}

/// What a running server says of its data keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// The one that it seals with; none while it starts.
    pub data_key: Option<u32>,
    /// A newer one that its master key doesn't open.
    pub locked_out: Option<u32>,
}

impl ServerLock {
    /// Takes the lock without waiting.
    ///
    /// # Errors
    /// `Internal` naming the file, where another server holds it or it can't be made.
    pub fn take(database: &Path) -> Result<Self> {
        let path = beside(database, ".lock");
        let cannot = |e: std::io::Error| Error::internal(format!("cannot open the lock file {}: {e}", path.display()));
        let new = !path.exists();
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let opened = opened.or_else(|e| match Errno::from_io_error(&e) {
            // A file that is there can be locked on a read-only disk as well.
            Some(Errno::ROFS) => File::open(&path),
            _ => Err(e),
        });
        let file = opened.map_err(cannot)?;
        if new {
            // Made by root for a server that isn't: it has to be able to open it.
            settle(&file, folder_of(database), 0o600).map_err(cannot)?;
        }
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // What the one before has said; on a read-only disk nobody waits for it to be true.
                let _ = file.set_len(0);
                Ok(Self { file })
            }
            Err(Errno::WOULDBLOCK) => Err(Error::internal(format!(
                "another server is running on this database (it holds {})",
                path.display()
            ))),
            Err(e) => Err(Error::internal(format!("cannot lock {}: {e}", path.display()))),
        }
    }

    /// Says which data key the server seals with, and which newer one it can't open. Whoever waits for it gives up in
    /// time where the disk takes no writes.
    pub fn tell(&self, data_key: u32, locked_out: Option<u32>) {
        let locked_out = locked_out.map_or_else(String::new, |id| format!("locked_out {id}\n"));
        let text = format!("data_key {data_key}\n{locked_out}");
        let written = self.file.write_all_at(text.as_bytes(), 0).and_then(|()| self.file.set_len(text.len() as u64));
        if let Err(e) = written {
            warn!(cause = %e, "the lock file can't be written");
        }
    }

    /// What the server that runs says; none where no server runs on the database.
    pub fn told(database: &Path) -> Option<Told> {
        if Self::take(database).is_ok() {
            return None;
        }
        let text = fs::read_to_string(beside(database, ".lock")).unwrap_or_default();
        let number =
            |word: &str| text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')?.parse().ok());
        Some(Told { data_key: number("data_key"), locked_out: number("locked_out") })
    }
}

/// Says, for as long as it is held, that a database is open. It is a shared lock on the folder: that is there before the
/// database and while another file takes its place, and can be locked on a read-only file system, too.
pub(super) struct Open {
    _folder: Option<File>,
}

impl Open {
    /// Waits for somebody who is [`Alone`] to be done.
    ///
    /// # Errors
    /// `Unavailable` where that takes more than 5 s. A folder that knows no locks has none.
    pub fn take(database: &Path) -> Result<Self> {
        match lock_folder(database, FlockOperation::NonBlockingLockShared, PATIENCE) {
            Err(Errno::WOULDBLOCK) => Err(Error::unavailable("the database is busy", 5)
                .because("another process is putting a backup in the database's place")),
            folder => Ok(Self { _folder: folder.ok() }),
        }
    }
}

/// Says, for as long as it is held, that nobody of us has the database open.
pub(super) struct Alone {
    _folder: File,
}

impl Alone {
    /// Waits up to 5 s for whoever has it open.
    ///
    /// # Errors
    /// `Conflict` where somebody has it open; `Internal` where the folder can't be locked.
    pub fn take(database: &Path) -> Result<Self> {
        Self::within(PATIENCE, database)
    }

    /// The same, with another time to wait.
    pub fn within(patience: Duration, database: &Path) -> Result<Self> {
        match lock_folder(database, FlockOperation::NonBlockingLockExclusive, patience) {
            Ok(folder) => Ok(Self { _folder: folder }),
            Err(Errno::WOULDBLOCK) => {
                Err(Error::conflict("another process has the database, or one in the same folder, open"))
            }
            Err(e) => Err(Error::internal(format!("cannot lock the folder of {}: {e}", database.display()))),
        }
    }
}

fn lock_folder(database: &Path, how: FlockOperation, patience: Duration) -> std::result::Result<File, Errno> {
    // Of the file itself, where a link leads to it.
    let real = fs::canonicalize(database);
    let folder = folder_of(real.as_deref().unwrap_or(database));
    let folder = File::open(folder).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    let begun = Instant::now();
    loop {
        match flock(&folder, how) {
            Err(Errno::WOULDBLOCK) if begun.elapsed() < patience => std::thread::sleep(Duration::from_millis(20)),
            Err(Errno::INTR) => {}
            done => return done.map(|()| folder),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("t.db");
        let first = ServerLock::take(&database).unwrap();
        assert!(ServerLock::take(&database).is_err());
        drop(first);
        assert!(ServerLock::take(&database).is_ok());
    }

    #[test]
    fn the_server_that_runs_says_which_data_key_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("t.db");
        assert_eq!(ServerLock::told(&database), None);
        let lock = ServerLock::take(&database).unwrap();
        assert_eq!(ServerLock::told(&database), Some(Told::default()));
        lock.tell(9, Some(10));
        assert_eq!(ServerLock::told(&database), Some(Told { data_key: Some(9), locked_out: Some(10) }));
        lock.tell(10, None);
        assert_eq!(ServerLock::told(&database), Some(Told { data_key: Some(10), locked_out: None }));
        drop(lock);
        assert_eq!(ServerLock::told(&database), None);
        let _next = ServerLock::take(&database).unwrap();
        assert_eq!(ServerLock::told(&database), Some(Told::default()), "what the one before has said is gone");
    }

    #[test]
    fn many_have_it_open_or_one_is_alone() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("t.db");
        let many = [Open::take(&database).unwrap(), Open::take(&database).unwrap()];
        assert!(Alone::within(Duration::ZERO, &database).is_err());
        drop(many);
        let alone = Alone::within(Duration::ZERO, &database).unwrap();
        assert!(Alone::within(Duration::ZERO, &database).is_err());
        let waits = std::thread::spawn(move || Open::take(&database).map(drop));
        drop(alone);
        waits.join().unwrap().unwrap();
    }
}
