//! SQLite itself: opening a file the way it has to be open, copying and migrating it, and judging its errors.

use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use super::audit::{append, newest_time};
use super::files::{beside, folder_of, settle};
use super::{lock, schema};
use crate::error::{Error, Result};
use crate::model::audit::{EventType, NewEvent, Occasion};
use crate::model::time::Millis;

/// How long a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What an error of the engine says about the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// No room, or no right to write: may pass.
    Full,
    /// The file can't be trusted.
    Io,
    /// Nothing about the file, but the transaction is gone or can't go on.
    Aborted,
}

/// Turns an engine error into ours. The text is for the log; it can hold table and column names, never values.
pub(super) fn judge(error: rusqlite::Error) -> (Option<Fault>, Error) {
    let text = format!("database: {error}");
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {
            (Some(Fault::Full), Error::unavailable("the server is read-only", 30).because(text))
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            (Some(Fault::Io), Error::unavailable("the server is read-only", 30).because(text))
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            Some(Fault::Aborted),
            Error::unavailable("the database is busy", 1)
                .because(format!("{text}: another process holds the database for longer than 5 s")),
        ),
        Some(ErrorCode::OutOfMemory | ErrorCode::OperationInterrupted) => (Some(Fault::Aborted), Error::internal(text)),
        _ => (None, Error::internal(text)),
    }
}

/// An error while opening, for the operator.
pub(super) fn cannot_open(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::internal(format!("cannot open the database {}: {why}", path.display()))
}

/// Whether there is a file that we may read: SQLite tells less of why not.
pub(super) fn reachable(path: &Path) -> Result<()> {
    let readable = path.metadata().and_then(|_| Ok(access(path, Access::READ_OK)?));
    readable.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::internal(format!("there is no database at {}", path.display())),
        std::io::ErrorKind::PermissionDenied => cannot_open(path, "permission denied"),
        _ => cannot_open(path, e),
    })
}

/// Makes an empty file, owned as its folder is and readable by nobody else whatever the umask, if there is none. SQLite
/// gives the WAL and the shared-memory file the same owner and mode.
pub(super) fn create_file(path: &Path) -> Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => {
            settle(&file, folder_of(path), 0o600).and_then(|()| file.sync_all()).map_err(|e| cannot_open(path, e))
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(cannot_open(path, e)),
    }
}

/// Opens the writing connection: WAL, `synchronous=FULL`, foreign keys, `secure_delete`, a bounded WAL.
pub(super) fn connect(path: &Path) -> Result<Connection> {
    let open = || {
        let connection = open_file(path, Opening::ReadWrite)?;
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| {
            let mode: String = row.get(0)?;
            if mode.eq_ignore_ascii_case("wal") { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
        })?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
        connection.pragma_update_and_check(None, "journal_size_limit", 4 << 20, |_| Ok(()))?;
        // The writer does it, and sees how it goes.
        connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
        connection.pragma_update(None, "temp_store", "memory")?;
        Ok(connection)
    };
    open().map_err(|e: rusqlite::Error| {
        let read_only = statvfs(path).is_ok_and(|disk| disk.f_flag.contains(StatVfsMountFlags::RDONLY));
        match e.sqlite_error_code() {
            Some(ErrorCode::CannotOpen) if read_only => {
                cannot_open(path, format!("{e}: its disk is read-only, and SQLite has to make files beside it"))
            }
            _ => cannot_open(path, e),
        }
    })
}

/// Opens a connection that only reads.
pub(super) fn connect_reader(path: &Path) -> Result<Connection> {
    let open = || {
        // Not READ_ONLY: the last connection to close checkpoints the WAL and removes it, and has to be able to.
        let connection = open_file(path, Opening::ReadWrite)?;
        connection.pragma_update(None, "query_only", true)?;
        // KiB, taken as they are needed: the tokens and accounts of a company, with their indexes.
        connection.pragma_update(None, "cache_size", -8192)?;
        Ok(connection)
    };
    open().map_err(|e: rusqlite::Error| judge(e).1)
}

/// Opens a connection that only reads, to a file that nobody changes.
pub(super) fn connect_unchanging(path: &Path) -> Result<Connection> {
    let connection = open_file(path, Opening::Unchanging)
        .and_then(|connection| connection.pragma_update(None, "query_only", true).map(|()| connection));
    connection.map_err(|e| judge(e).1)
}

/// Opens a connection to a file that nobody else knows of yet and that is thrown away if anything goes wrong.
pub(super) fn connect_private(path: &Path) -> Result<Connection> {
    let open = || {
        let connection = open_file(path, Opening::ReadWrite)?;
        connection.pragma_update_and_check(None, "journal_mode", "memory", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "off")?;
        connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
        Ok(connection)
    };
    open().map_err(|e: rusqlite::Error| judge(e).1)
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// As a database that others have open as well. A file that can't be written is opened for reading.
    ReadWrite,
    /// As a file that nobody changes: without locks, and without looking for a file beside it or making one, so that it
    /// works on a medium that can't be written.
    Unchanging,
}

/// Opens a file, with what every connection has in common.
pub(super) fn open_file(path: &Path, how: Opening) -> rusqlite::Result<Connection> {
    let (query, access) = match how {
        Opening::ReadWrite => ("", OpenFlags::SQLITE_OPEN_READ_WRITE),
        Opening::Unchanging => ("?mode=ro&immutable=1", OpenFlags::SQLITE_OPEN_READ_ONLY),
    };
    let flags = OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(uri(path, query), access | flags).map_err(|e| match e {
        // The library adds the file as it was given, which is no name for people.
        rusqlite::Error::SqliteFailure(code, Some(text)) => {
            rusqlite::Error::SqliteFailure(code, text.split(": file:").next().map(str::to_owned))
        }
        e => e,
    })?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // One plan for a statement, whatever its parameters are: else many are planned anew each time, which costs far more
    // than the look-up itself.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

/// Copies what is in the database at this moment, and nothing that was deleted, into the empty file `to`, which is
/// not yet on the disk afterwards. Not for a connection that was told to read only.
pub(super) fn copy_into(connection: &Connection, to: &Path) -> rusqlite::Result<()> {
    connection.execute("VACUUM INTO ?1", [uri(to, "")]).map(drop)
}

/// The path as SQLite takes it also where it isn't UTF-8; for every connection is opened with
/// `SQLITE_OPEN_URI`.
fn uri(path: &Path, query: &str) -> String {
    // The separators as well: two of them at the beginning would be a host's.
    format!("file:{}{query}", percent_encode(path.as_os_str().as_bytes(), NON_ALPHANUMERIC))
}

/// Checkpoints the write-ahead log and truncates it; `false` where a reader or writer is in the way.
pub(super) fn empty_log(path: &Path) -> Result<bool> {
    let connection = connect(path)?;
    let busy: i64 =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(|e| judge(e).1)?;
    Ok(busy == 0)
}

/// The schema version of an open database.
pub(super) fn version(connection: &Connection) -> Result<i64> {
    schema::version_of(connection).map_err(|e| judge(e).1)
}

/// The schema version of the file at `path`, opened for reading only; 0 for an empty one.
///
/// # Errors
/// `Internal` where it isn't there or is no database.
pub fn schema_version(path: &Path) -> Result<i64> {
    reachable(path)?;
    let _open = lock::Open::take(path)?;
    let open = || {
        let connection = open_file(path, Opening::ReadWrite)?;
        schema::version_of(&connection)
    };
    open().map_err(|e| cannot_open(path, e))
}

/// What to say to a version that isn't ours.
pub(super) fn wrong_version(found: i64) -> Error {
    let ours = schema::LATEST;
    Error::internal(if found > ours {
        format!("the database has schema version {found}, newer than this program's {ours}: use the newer program")
    } else {
        format!("the database has schema version {found}, this program needs {ours}: run 'mciasdb schema migrate'")
    })
}

/// Applies what is pending, each migration in one transaction with its event, after a copy `….before-vN`.
pub(super) fn migrate(connection: &mut Connection, path: &Path, occasion: Occasion, migrations: &[&str]) -> Result<()> {
    let target = migrations.len() as i64;
    let found = version(connection)?;
    if found > target {
        return Err(wrong_version(found));
    }
    if found == target {
        return Ok(());
    }
    if found > 0 {
        copy_before(connection, path, target)?;
    }
    for (index, migration) in migrations.iter().enumerate() {
        apply(connection, index as i64 + 1, migration, occasion)?;
    }
    Ok(())
}

/// Applies one migration, unless another process was quicker.
fn apply(connection: &mut Connection, to: i64, migration: &str, occasion: Occasion) -> Result<()> {
    let failed = |e: rusqlite::Error| {
        let why = match e {
            // Without the statement: it is as long as the migration.
            rusqlite::Error::SqlInputError { msg, .. } => msg,
            e => e.to_string(),
        };
        Error::internal(format!("cannot migrate the database to version {to}: {why}"))
    };
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    // Asked again inside the transaction: another process may have been at it.
    if version(&tx)? >= to {
        return Ok(());
    }
    tx.execute_batch(migration).map_err(failed)?;
    // A clock that is behind must not become the newest time by way of this event.
    let newest = newest_time(&tx).map_err(failed)?.map(|newest| Millis::new(newest.seconds().saturating_mul(1000)));
    let occasion = Occasion { time: newest.map_or(occasion.time, |newest| newest.max(occasion.time)), ..occasion };
    tx.execute("INSERT INTO schema_version (version, applied_at) VALUES (?1, ?2)", (to, occasion.time.timestamp()))
        .map_err(failed)?;
    tx.pragma_update(None, "user_version", to).map_err(failed)?;
    append(&tx, NewEvent::of(EventType::SchemaMigrated).with("from", to - 1).with("to", to), occasion)
        .map_err(failed)?;
    tx.commit().map_err(failed)
}

/// Copies the database beside itself before it is migrated; an older copy of that name is replaced whole.
fn copy_before(connection: &Connection, path: &Path, target: i64) -> Result<()> {
    let copy = beside(path, &format!(".before-v{target}"));
    let partial = beside(&copy, ".partial");
    let failed = |why: String| Error::internal(format!("cannot copy the database to {}: {why}", copy.display()));
    let _ = std::fs::remove_file(&partial); // left by a copy that was interrupted, or not there
    create_file(&partial)?;
    copy_into(connection, &partial).map_err(|e| failed(e.to_string()))?;
    OpenOptions::new()
        .write(true)
        .open(&partial)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(&partial, &copy))
        .map_err(|e| failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::model::audit::Via;

    fn occasion() -> Occasion {
        Occasion { time: Millis::new(1_800_000_000_000), via: Via::Server, ip: None }
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_failing_migration_leaves_the_version_before_and_a_copy() {
        let dir = folder();
        let path = dir.path().join("t.db");
        create_file(&path).unwrap();
        let mut connection = connect(&path).unwrap();
        migrate(&mut connection, &path, occasion(), schema::MIGRATIONS).unwrap();
        let broken = [schema::MIGRATIONS, &["CREATE TABLE half (x) STRICT; NONSENSE;"]].concat();
        let error = migrate(&mut connection, &path, occasion(), &broken).unwrap_err();
        let told = error.to_string();
        assert!(told.contains("cannot migrate") && !told.contains("CREATE"), "{told}");
        assert_eq!(version(&connection).unwrap(), schema::LATEST);
        assert!(connection.execute("SELECT * FROM half", []).is_err(), "nothing of it stays");
        let copy = connect(&dir.path().join(format!("t.db.before-v{}", schema::LATEST + 1))).unwrap();
        assert_eq!(version(&copy).unwrap(), schema::LATEST);
    }

    #[test]
    fn migrating_twice_changes_nothing_and_a_newer_database_is_refused() {
        let dir = folder();
        let path = dir.path().join("t.db");
        create_file(&path).unwrap();
        let mut connection = connect(&path).unwrap();
        migrate(&mut connection, &path, occasion(), schema::MIGRATIONS).unwrap();
        migrate(&mut connection, &path, occasion(), schema::MIGRATIONS).unwrap();
        let events: i64 = connection.query_row("SELECT count(*) FROM audit_log", [], |r| r.get(0)).unwrap();
        assert_eq!(events, schema::LATEST);
        connection.pragma_update(None, "user_version", schema::LATEST + 1).unwrap();
        let error = migrate(&mut connection, &path, occasion(), schema::MIGRATIONS).unwrap_err();
        assert!(error.to_string().contains("newer"), "{error}");
    }

    /// Killed at moments spread evenly over its time, in a process of its own: this test, called once more.
    /// `MCIAS_KILLS` as in `tests/kill.rs`.
    #[test]
    fn a_migration_killed_at_any_moment_is_there_whole_or_not_at_all() {
        const ROWS: i64 = 1500;
        let second = "CREATE TABLE more (id INTEGER PRIMARY KEY, value BLOB NOT NULL) STRICT;
            INSERT INTO more (value) SELECT zeroblob(2000) FROM server_config;
            UPDATE server_config SET value = zeroblob(3000);";
        let migrations = [schema::MIGRATIONS, &[second]].concat();
        let again = |path: &Path| migrate(&mut connect(path).unwrap(), path, occasion(), &migrations).unwrap();
        if let Some(path) = std::env::var_os("MCIAS_TEST_MIGRATES") {
            return again(Path::new(&path));
        }
        let one = |connection: &Connection, sql: &str| -> i64 { connection.query_row(sql, [], |r| r.get(0)).unwrap() };
        let sound = |connection: &Connection| {
            connection.query_row("PRAGMA integrity_check", [], |r| r.get::<_, String>(0)).unwrap() == "ok"
        };
        let dir = folder();
        let (model, path) = (dir.path().join("model.db"), dir.path().join("t.db"));
        create_file(&model).unwrap();
        let mut connection = connect(&model).unwrap();
        migrate(&mut connection, &model, occasion(), schema::MIGRATIONS).unwrap();
        let fill = "WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
            INSERT INTO server_config SELECT n, zeroblob(100) FROM n";
        connection.execute(fill, [ROWS]).unwrap();
        drop(connection);
        let copy = dir.path().join(format!("t.db.before-v{}", schema::LATEST + 1));
        let begin = || {
            for name in ["t.db", "t.db-wal", "t.db-shm"] {
                let _ = std::fs::remove_file(dir.path().join(name)); // not always there
            }
            let _ = std::fs::remove_file(&copy);
            std::fs::copy(&model, &path).unwrap();
            let name = "store::engine::tests::a_migration_killed_at_any_moment_is_there_whole_or_not_at_all";
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            child.args([name, "--exact"]).env("MCIAS_TEST_MIGRATES", &path).stdout(std::process::Stdio::null());
            child.spawn().unwrap()
        };
        let begun = std::time::Instant::now();
        assert!(begin().wait().unwrap().success());
        let takes = begun.elapsed();

        let kills: u32 = std::env::var("MCIAS_KILLS").map_or(12, |n| n.parse::<u32>().unwrap().div_ceil(9));
        let mut came_to = [0; 2];
        for n in 0..kills {
            let mut child = begin();
            std::thread::sleep(takes * n / kills);
            child.kill().unwrap();
            child.wait().unwrap();

            let connection = connect(&path).unwrap();
            let done = version(&connection).unwrap() - schema::LATEST;
            came_to[done as usize] += 1;
            assert!(sound(&connection));
            assert_eq!(one(&connection, "SELECT count(*) FROM sqlite_schema WHERE name = 'more'"), done);
            let changed = one(&connection, "SELECT count(*) FROM server_config WHERE length(value) = 3000");
            assert_eq!(changed, done * ROWS);
            assert_eq!(one(&connection, "SELECT count(*) FROM audit_log"), schema::LATEST + done);
            drop(connection);
            assert!(done == 0 || copy.exists(), "it was migrated before there was a copy");
            again(&path);
            let connection = connect(&path).unwrap();
            assert!(sound(&connection) && version(&connection).unwrap() == schema::LATEST + 1);
            assert_eq!(one(&connection, "SELECT count(*) FROM more"), ROWS);
            let copy = connect(&copy).unwrap();
            assert!(sound(&copy) && version(&copy).unwrap() == schema::LATEST);
            assert_eq!(one(&copy, "SELECT count(*) FROM server_config WHERE length(value) = 100"), ROWS);
        }
        println!("{kills} kills within {} ms, {} of them after it was done", takes.as_millis(), came_to[1]);
        assert!(came_to[0] > 0);
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_and_untouched() {
        let dir = folder();
        let path = dir.path().join("t.db");
        std::fs::write(&path, vec![b'x'; 8192]).unwrap();
        assert!(connect(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), vec![b'x'; 8192]);
    }

    #[test]
    fn the_file_is_made_for_its_owner_alone() {
        let dir = folder();
        let path = dir.path().join("t.db");
        create_file(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
