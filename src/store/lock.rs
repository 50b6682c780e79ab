//! One server a database: a lock file held for the life of the process.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// The exclusive lock on `<database>.lock`; let go when dropped, or by the kernel when the process dies.
pub struct ServerLock {
    _file: File,
}

impl ServerLock {
    /// Takes the lock without waiting.
    ///
    /// # Errors
    /// `Internal` naming the file, where another server holds it or it can't be made.
    pub fn take(database: &Path) -> Result<Self> {
        let mut name = database.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = opened
            .or_else(|e| match Errno::from_io_error(&e) {
                // A file that is there can be locked on a read-only disk as well.
                Some(Errno::ROFS) => File::open(&path),
                _ => Err(e),
            })
            .map_err(|e| Error::internal(format!("cannot open the lock file {}: {e}", path.display())))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(Error::internal(format!(
                "another server is running on this database (it holds {})",
                path.display()
            ))),
            Err(e) => Err(Error::internal(format!("cannot lock {}: {e}", path.display()))),
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
}
