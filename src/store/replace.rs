//! Puts a whole database file in the place of another, which is kept beside it. Whenever this is interrupted, the name
//! leads to one of the two, whole, and to no write-ahead log that belongs to the other.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use super::engine::{self, Opening};
use super::files::{beside, folder_of, rename_new, sync_folder};
use super::lock;
use crate::error::{Error, Result};

/// What SQLite keeps beside a database, and may hold a part of it.
const LOGS: [&str; 2] = ["-wal", "-journal"];
/// What it keeps there and can make anew.
const INDEX: &str = "-shm";

/// What a former database's name goes on with, before the time.
const REPLACED: &str = ".replaced-";

/// Gives the file `new`, which is on the same file system and open nowhere, the name `database`. With `keep`, what was
/// there is kept as `<database>.replaced-<keep>`, everything that was in its write-ahead log included; the path is
/// returned. Without it, nothing may be there.
///
/// # Errors
/// `Conflict` where something is there without `keep`, or where somebody has it open; `Internal` for the system's.
/// The former database is in its place then, as it was.
pub fn replace(new: &Path, database: &Path, keep: Option<&str>) -> Result<Option<PathBuf>> {
    let failed = |e: io::Error| Error::internal(format!("cannot put the database in its place: {e}"));
    let _alone = lock::Alone::take(database)?;
    if LOGS.iter().any(|log| beside(new, log).symlink_metadata().is_ok()) {
        return Err(Error::internal("the new database isn't closed"));
    }
    File::open(new).and_then(|file| file.sync_all()).map_err(failed)?;
    let is_former = database.symlink_metadata().is_ok();
    let has_logs = LOGS.iter().any(|log| beside(database, log).symlink_metadata().is_ok_and(|log| log.len() > 0));
    let Some(keep) = keep.filter(|_| is_former || has_logs) else {
        if is_former || has_logs {
            return Err(Error::conflict(format!("{} is there already", database.display())));
        }
        remove_index(database).and_then(|()| rename_new(new, database)).map_err(failed)?;
        sync_folder(folder_of(database)).map_err(failed)?;
        return Ok(None);
    };

    // Held to the end: whoever is not of us knows SQLite's lock, and not the other.
    let former = if is_former { fold(database)? } else { None };
    let kept = free_name(database, keep);
    let mut put = Put { database, kept: &kept, is_former, moved: Vec::new() };
    match put.in_place(new, former.is_none()) {
        Ok(()) => Ok(Some(kept)),
        Err(e) => {
            put.undo();
            Err(failed(e))
        }
    }
}

/// A file under way to its place.
struct Put<'p> {
    database: &'p Path,
    kept: &'p Path,
    is_former: bool,
    /// What lay beside the former database and was moved.
    moved: Vec<&'static str>,
}

impl Put<'_> {
    fn in_place(&mut self, new: &Path, unread: bool) -> io::Result<()> {
        if self.is_former {
            fs::hard_link(self.database, self.kept)?;
        }
        if unread {
            // SQLite can make nothing of the former, or it is gone: what lies beside it goes with it.
            for log in LOGS {
                if move_if_there(&beside(self.database, log), &beside(self.kept, log))? {
                    self.moved.push(log);
                }
            }
        }
        remove_index(self.database)?;
        // Both names are on the disk before one of them goes to another file.
        sync_folder(folder_of(self.database))?;
        fs::rename(new, self.database)?;
        sync_folder(folder_of(self.database))
    }

    /// Puts back what was moved, as far as it goes; the failure that led here is what the operator hears of.
    fn undo(&self) {
        let inode = |path: &Path| path.symlink_metadata().map(|file| (file.dev(), file.ino())).ok();
        if self.is_former && inode(self.database) != inode(self.kept) {
            // It is in its place, though not surely on the disk: the former stays kept.
            return;
        }
        for log in &self.moved {
            let _ = fs::rename(beside(self.kept, log), beside(self.database, log));
        }
        if self.is_former {
            let _ = fs::remove_file(self.kept);
        }
    }
}

/// Removes what an interrupted [`replace`] left: a second name of the database that is still in its place.
///
/// # Errors
/// The system's.
pub fn clear_leftovers(database: &Path) -> io::Result<()> {
    let (Ok(own), Some(name)) = (database.metadata(), database.file_name()) else { return Ok(()) };
    for entry in fs::read_dir(folder_of(database))? {
        let entry = entry?;
        let other = entry.file_name();
        let rest = other.as_encoded_bytes().strip_prefix(name.as_encoded_bytes());
        let metadata = entry.metadata()?;
        if rest.is_some_and(|rest| rest.starts_with(REPLACED.as_bytes()))
            && (metadata.dev(), metadata.ino()) == (own.dev(), own.ino())
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Brings everything into the file itself and takes it out of WAL mode, which SQLite does only where nobody else has it
/// open; the connection that is returned keeps others out. None where SQLite can make nothing of the file.
fn fold(database: &Path) -> Result<Option<Connection>> {
    let fold = || {
        let connection = engine::open_file(database, Opening::ReadWrite)?;
        // Where this fails the log stays: closing would remove it.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(()))?;
        connection.execute_batch("BEGIN EXCLUSIVE")?;
        let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        Ok((connection, mode))
    };
    let in_use = || Error::conflict("another process has the database open; nothing was changed");
    match fold() {
        Ok((connection, mode)) if mode == "delete" && beside(database, "-wal").symlink_metadata().is_err() => {
            Ok(Some(connection))
        }
        Ok(_) => Err(in_use()),
        Err(e) => match rusqlite::Error::sqlite_error_code(&e) {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Err(in_use()),
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::SystemIoFailure) => Ok(None),
            _ => Err(Error::internal(format!("cannot close the former database: {e}"))),
        },
    }
}

/// A name to keep a former database by that nothing has.
fn free_name(database: &Path, keep: &str) -> PathBuf {
    let taken = |path: &Path| ["", LOGS[0], LOGS[1]].iter().any(|end| beside(path, end).symlink_metadata().is_ok());
    let first = beside(database, &format!("{REPLACED}{keep}"));
    let others = (2..).map(|n| beside(&first, &format!("-{n}")));
    std::iter::once(first.clone()).chain(others).find(|path| !taken(path)).unwrap_or_else(|| first.clone())
}

fn move_if_there(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        done => done.map(|()| true),
    }
}

fn remove_index(database: &Path) -> io::Result<()> {
    for end in [LOGS[0], LOGS[1], INDEX] {
        let path = beside(database, end);
        // What isn't empty was moved, or is the reason why we aren't here.
        let empty = path.symlink_metadata().is_ok_and(|file| file.len() == 0 || end == INDEX);
        if empty {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database in a folder of its own, with a row that is in its write-ahead log only, and another beside it.
    fn two() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (database, new) = (dir.path().join("t.db"), dir.path().join("new.db"));
        let elsewhere = dir.path().join("elsewhere.db");
        let connection = Connection::open(&elsewhere).unwrap();
        connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())).unwrap();
        connection.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES ('former')").unwrap();
        // As a process that was killed leaves it.
        for end in ["", "-wal"] {
            fs::copy(beside(&elsewhere, end), beside(&database, end)).unwrap();
        }
        drop(connection);
        fs::remove_file(&elsewhere).unwrap();
        Connection::open(&new).unwrap().execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES ('new')").unwrap();
        (dir, database, new)
    }

    fn holds(database: &Path) -> String {
        Connection::open(database).unwrap().query_row("SELECT x FROM t", [], |row| row.get(0)).unwrap()
    }

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn the_former_database_is_kept_with_what_was_in_its_log() {
        let (dir, database, new) = two();
        assert!(beside(&database, "-wal").metadata().unwrap().len() > 0);
        let kept = replace(&new, &database, Some("T")).unwrap().unwrap();
        assert_eq!(names(&dir), ["t.db", "t.db.replaced-T"]);
        assert_eq!((holds(&database).as_str(), holds(&kept).as_str()), ("new", "former"));
        fs::copy(&kept, &new).unwrap();
        assert!(replace(&new, &database, Some("T")).unwrap().unwrap().ends_with("t.db.replaced-T-2"));
    }

    #[test]
    fn nothing_is_replaced_unasked_and_nothing_is_left_by_what_fails() {
        let (dir, database, new) = two();
        let before = names(&dir);
        assert!(replace(&new, &database, None).is_err());
        assert!(replace(&dir.path().join("none"), &database, Some("T")).is_err());
        assert_eq!(names(&dir), before);
        // A log that belongs to a database which is gone mustn't become the new one's.
        fs::remove_file(&database).unwrap();
        assert!(replace(&new, &database, None).is_err());
        replace(&new, &database, Some("T")).unwrap();
        assert_eq!(names(&dir), ["t.db", "t.db.replaced-T-wal"]);
        assert_eq!(holds(&database), "new");
    }

    #[test]
    fn what_sqlite_can_not_read_is_kept_as_it_is() {
        let (dir, database, new) = two();
        // Its log alone would be enough for SQLite to make the file anew.
        fs::write(&database, vec![b'x'; 8192]).unwrap();
        fs::write(beside(&database, "-wal"), "what is left of a log").unwrap();
        let kept = replace(&new, &database, Some("T")).unwrap().unwrap();
        assert_eq!(names(&dir), ["t.db", "t.db.replaced-T", "t.db.replaced-T-wal"]);
        assert_eq!((holds(&database).as_str(), fs::read(kept).unwrap()), ("new", vec![b'x'; 8192]));
    }

    #[test]
    fn a_second_name_that_was_left_goes_and_what_was_kept_stays() {
        let (dir, database, _) = two();
        fs::hard_link(&database, beside(&database, ".replaced-T")).unwrap();
        fs::copy(&database, beside(&database, ".replaced-S")).unwrap();
        clear_leftovers(&database).unwrap();
        assert_eq!(names(&dir), ["new.db", "t.db", "t.db-wal", "t.db.replaced-S"]);
    }
}
