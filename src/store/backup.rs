//! Backups: a copy of the database in one file, and the table `backup_seal` in it. What is sealed is handed out here as
//! bytes, in an order and a form that `ARCHITECTURE.md` gives; keys are no business of this room.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

use super::engine::{self, Opening};
use super::{Store, View, schema};
use crate::error::{Error, Result};
use crate::model::time::Timestamp;

/// What seals a backup: the one row of its table `backup_seal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealRow {
    /// The form of the seal: [`SealRow::VERSION`].
    pub version: i64,
    /// When the backup was made.
    pub made_at: Timestamp,
    /// The id of the data key that the seal's keys come from.
    pub data_key: u32,
    /// Over what is in the tables, and the schema.
    pub content: [u8; 32],
    /// Over the bytes of the file, itself taken as zeros.
    pub file: [u8; 32],
}

impl SealRow {
    /// The only form there is.
    pub const VERSION: i64 = 1;
}

const TABLE: &str = "CREATE TABLE backup_seal (
    version  INTEGER NOT NULL,
    made_at  INTEGER NOT NULL,
    data_key INTEGER NOT NULL,
    content  BLOB NOT NULL CHECK (length(content) = 32),
    file     BLOB NOT NULL CHECK (length(file) = 32)
) STRICT";

const INSERT: &str = "INSERT INTO backup_seal (version, made_at, data_key, content, file) VALUES (?1, ?2, ?3, ?4, ?5)";

// Not among the declared statements: the live database, by which those are tested, has no such table.
const HAS_SEAL: &str = "SELECT count(*) FROM sqlite_schema WHERE name = 'backup_seal' AND type = 'table'";
const SEAL: &str = "SELECT version, made_at, data_key, content, file FROM backup_seal LIMIT 2";
const PAGE: &str = "SELECT rootpage FROM sqlite_schema WHERE name = 'backup_seal'";
const OBJECTS: &str = "SELECT type, name, tbl_name, sql FROM sqlite_schema
    WHERE tbl_name <> 'backup_seal' ORDER BY type, name";
const TABLES: &str = "SELECT name, wr FROM pragma_table_list
    WHERE schema = 'main' AND type = 'table' AND name NOT IN ('sqlite_schema', 'backup_seal') ORDER BY name";
const PRIMARY_KEY: &str = "SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk";

/// What begins a row in the bytes that are sealed; 0 to 4 begin its values.
const ROW: u8 = 5;
/// What begins a table.
const TABLE_BEGINS: u8 = 6;

impl Store {
    /// Copies the database as it is at one moment, while others go on writing, into the empty file `to`. The copy is
    /// one file without a write-ahead log, and not yet on the disk.
    ///
    /// # Errors
    /// `Internal`, with a text for the operator.
    pub fn copy_to(&self, to: &Path) -> Result<()> {
        let how = if self.writer.is_none() { Opening::Unchanging } else { Opening::ReadWrite };
        let copied = engine::open_file(&self.path, how).and_then(|from| engine::copy_into(&from, to));
        copied.map_err(|e| Error::internal(format!("cannot copy the database: {e}")))
    }

    /// How large the database is, in bytes, as far as it is in its file.
    pub fn size(&self) -> u64 {
        self.path.metadata().map_or(0, |file| file.len())
    }
}

impl View<'_> {
    /// The seal; none where this is no backup.
    ///
    /// # Errors
    /// `Conflict` for a seal that isn't as this program writes it.
    pub fn backup_seal(&self) -> Result<Option<SealRow>> {
        if self.row(HAS_SEAL, [], |row| row.get::<_, i64>(0))? == Some(0) {
            return Ok(None);
        }
        let odd = || Error::conflict("the seal isn't as this program writes it");
        let mut rows = self
            .rows(SEAL, [], |row| {
                Ok(SealRow {
                    version: row.get(0)?,
                    made_at: row.get(1)?,
                    data_key: row.get(2)?,
                    content: row.get(3)?,
                    file: row.get(4)?,
                })
            })
            .map_err(|e| odd().because(format!("the seal can't be read: {e}")))?;
        match (rows.pop(), rows.len()) {
            (Some(seal), 0) if seal.version == SealRow::VERSION => Ok(Some(seal)),
            _ => Err(odd()),
        }
    }

    /// Hands out, in pieces, what is in the database: the schema version, the schema's text, and every row of every
    /// table but the seal's. Two databases that differ in any of it give different bytes, however they lie in their
    /// files.
    ///
    /// # Errors
    /// Trouble with the file.
    pub fn contents(&self, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        contents(self.connection, take).map_err(|e| self.trouble(e))
    }
}

fn contents(connection: &Connection, take: &mut dyn FnMut(&[u8])) -> rusqlite::Result<()> {
    value(ValueRef::Integer(schema::version_of(connection)?), take);
    rows(connection, OBJECTS, take)?;
    let tables: Vec<(String, bool)> = connection
        .prepare(TABLES)?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (table, without_rowid) in tables {
        take(&[TABLE_BEGINS]);
        value(ValueRef::Text(table.as_bytes()), take);
        let name = quoted(&table);
        let sql = if without_rowid {
            let columns: Vec<String> = connection
                .prepare(PRIMARY_KEY)?
                .query_map([&table], |row| row.get::<_, String>(0))?
                .collect::<rusqlite::Result<_>>()?;
            let order: Vec<_> = columns.iter().map(|column| quoted(column)).collect();
            format!("SELECT * FROM {name} ORDER BY {}", order.join(", "))
        } else {
            format!("SELECT rowid, * FROM {name} ORDER BY rowid")
        };
        rows(connection, &sql, take)?;
    }
    Ok(())
}

fn rows(connection: &Connection, sql: &str, take: &mut dyn FnMut(&[u8])) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        take(&[ROW]);
        take(&(columns as u32).to_be_bytes());
        for column in 0..columns {
            value(row.get_ref(column)?, take);
        }
    }
    Ok(())
}

/// A value with its type and, where that doesn't give it, its length: what follows can't be taken for a part of it.
fn value(value: ValueRef<'_>, take: &mut dyn FnMut(&[u8])) {
    let long = |tag: u8, bytes: &[u8], take: &mut dyn FnMut(&[u8])| {
        take(&[tag]);
        take(&(bytes.len() as u64).to_be_bytes());
        take(bytes);
    };
    let short = |tag: u8, bytes: [u8; 8], take: &mut dyn FnMut(&[u8])| {
        take(&[tag]);
        take(&bytes);
    };
    match value {
        ValueRef::Null => take(&[0]),
        ValueRef::Integer(number) => short(1, number.to_be_bytes(), take),
        ValueRef::Real(number) => short(2, number.to_bits().to_be_bytes(), take),
        ValueRef::Text(text) => long(3, text, take),
        ValueRef::Blob(blob) => long(4, blob, take),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Puts the seal's table into a fresh copy that nobody else knows of. `seal.file` is random for now, so that
/// [`seal_file`] finds its place.
///
/// # Errors
/// Trouble with the file.
pub fn seal_content(copy: &Path, seal: &SealRow) -> Result<()> {
    let connection = engine::connect_private(copy)?;
    let values = (seal.version, seal.made_at, seal.data_key, seal.content, seal.file);
    connection
        .execute(TABLE, [])
        .and_then(|_| connection.execute(INSERT, values))
        .map_err(|e| Error::internal(format!("cannot seal the copy: {e}")))
        .map(drop)
}

/// Writes the last part of the seal, over the bytes of the file, in the place of `seal.file`.
///
/// # Errors
/// Trouble with the file.
pub fn seal_file(copy: &Path, seal: &SealRow, file: [u8; 32]) -> Result<()> {
    let place = place_of(copy, seal)?;
    let written = OpenOptions::new().write(true).open(copy).and_then(|copy| copy.write_all_at(&file, place));
    written.map_err(|e| Error::internal(format!("cannot seal the copy: {e}")))
}

/// Hands out, in pieces, the bytes of a backup's file, with zeros for `seal.file`.
///
/// # Errors
/// `Conflict` where the seal isn't where it must be; `Internal` where the file can't be read.
pub fn read_sealed(backup: &Path, seal: &SealRow, take: &mut dyn FnMut(&[u8])) -> Result<()> {
    let place = place_of(backup, seal)?;
    let unreadable = |e: std::io::Error| Error::internal(format!("the file can't be read: {e}"));
    let mut file = File::open(backup).map_err(unreadable)?;
    let mut buffer = vec![0; 1 << 16];
    let mut at: u64 = 0;
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(unreadable(e)),
        };
        for (offset, byte) in buffer[..read].iter_mut().enumerate() {
            let own = (at + offset as u64).checked_sub(place);
            if own.is_some_and(|own| own < seal.file.len() as u64) {
                *byte = 0;
            }
        }
        take(&buffer[..read]);
        at += read as u64;
    }
}

/// Where in the file `seal.file` stands: once in the one page of its table.
fn place_of(backup: &Path, seal: &SealRow) -> Result<u64> {
    let nowhere = || Error::conflict("the seal isn't where it must be in the file");
    let connection = engine::connect_unchanging(backup)?;
    let page: Option<i64> =
        connection.query_row(PAGE, [], |row| row.get(0)).optional().map_err(|e| engine::judge(e).1)?;
    let size: u32 = connection.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(|e| engine::judge(e).1)?;
    let page = page.and_then(|page| u64::try_from(page).ok()?.checked_sub(1)).ok_or_else(nowhere)?;
    let begins = page.checked_mul(size.into()).ok_or_else(nowhere)?;
    let mut bytes = vec![0; size as usize];
    let file = File::open(backup).map_err(|e| Error::internal(format!("the file can't be read: {e}")))?;
    file.read_exact_at(&mut bytes, begins).map_err(|_| nowhere())?;
    let mut places = bytes.windows(seal.file.len()).enumerate().filter(|(_, window)| *window == seal.file);
    match (places.next(), places.next()) {
        (Some((offset, _)), None) => Ok(begins + offset as u64),
        _ => Err(nowhere()),
    }
}

impl Store {
    /// Takes the seal off a copy that is about to become a database: what comes now isn't sealed.
    ///
    /// # Errors
    /// Trouble with the file.
    pub fn drop_seal(&self) -> Result<()> {
        self.write(|tx| tx.run_plain("DROP TABLE backup_seal").map(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::audit::{Occasion, Via};
    use crate::model::time::Millis;

    const SEAL_ROW: SealRow =
        SealRow { version: 1, made_at: Timestamp::new(7), data_key: 1, content: [1; 32], file: [2; 32] };

    fn sealed(dir: &tempfile::TempDir) -> std::path::PathBuf {
        let occasion = Occasion { time: Millis::new(1_800_000_000_000), via: Via::Server, ip: None };
        let store = Store::open_and_migrate(&dir.path().join("t.db"), occasion).unwrap();
        let copy = dir.path().join("cop\u{e9} ?#%.db");
        store.copy_to(&copy).unwrap();
        seal_content(&copy, &SEAL_ROW).unwrap();
        copy
    }

    fn contents_of(path: &Path) -> Vec<u8> {
        let mut bytes = Vec::new();
        let store = Store::open_unchanging(path).unwrap();
        store.snapshot(|view| view.contents(&mut |piece| bytes.extend_from_slice(piece))).unwrap();
        bytes
    }

    #[test]
    fn the_seal_is_read_as_it_was_put_and_its_last_part_found_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let copy = sealed(&dir);
        let read = || Store::open_unchanging(&copy).unwrap().read(|view| view.backup_seal()).unwrap().unwrap();
        assert_eq!(read(), SEAL_ROW);
        let bytes = |seal: &SealRow| {
            let mut bytes = Vec::new();
            read_sealed(&copy, seal, &mut |piece| bytes.extend_from_slice(piece)).unwrap();
            bytes
        };
        let before = bytes(&SEAL_ROW);
        seal_file(&copy, &SEAL_ROW, [9; 32]).unwrap();
        let after = SealRow { file: [9; 32], ..SEAL_ROW };
        assert_eq!(read(), after);
        assert_eq!(bytes(&after), before, "all but the seal itself");
        let raw = std::fs::read(&copy).unwrap();
        assert_eq!(raw.iter().zip(&before).filter(|(a, b)| a != b).count(), 32);
        assert_eq!((raw[18], raw[19]), (1, 1), "a plain file, which needs no write-ahead log");
        assert!(read_sealed(&copy, &SEAL_ROW, &mut |_| {}).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "the database and its copy");
    }

    #[test]
    fn whatever_is_different_gives_different_contents() {
        let dir = tempfile::tempdir().unwrap();
        let copy = sealed(&dir);
        let before = contents_of(&copy);
        for change in [
            "UPDATE server_config SET value = x'32' WHERE key = 'k'",
            "UPDATE server_config SET key = 'l' WHERE key = 'k'",
            "DELETE FROM server_config WHERE key = 'k'",
            "INSERT INTO server_config VALUES ('k2', x'')",
            "DROP TRIGGER audit_log_no_update",
            "DROP INDEX accounts_username",
            "CREATE TABLE more (x)",
            "CREATE VIEW more AS SELECT 1",
            "PRAGMA user_version = 99",
            "INSERT INTO account_roles VALUES (1, 'admin', NULL, 0)",
        ] {
            let other = dir.path().join("other.db");
            std::fs::copy(&copy, &other).unwrap();
            let connection = Connection::open(&other).unwrap();
            connection.execute_batch("INSERT INTO server_config VALUES ('k', x'31')").unwrap();
            let with = contents_of(&other);
            assert_ne!(with, before);
            connection.execute_batch(&format!("PRAGMA foreign_keys = OFF; {change}")).unwrap();
            assert_ne!(contents_of(&other), with, "{change}");
        }
    }

    #[test]
    fn values_run_into_each_other_nowhere() {
        let bytes = |values: &[ValueRef<'_>]| {
            let mut bytes = Vec::new();
            values.iter().for_each(|v| value(*v, &mut |piece| bytes.extend_from_slice(piece)));
            bytes
        };
        let text = |text: &'static str| ValueRef::Text(text.as_bytes());
        assert_ne!(bytes(&[text("ab"), text("c")]), bytes(&[text("a"), text("bc")]));
        assert_ne!(bytes(&[text("a")]), bytes(&[ValueRef::Blob(b"a")]));
        assert_ne!(bytes(&[ValueRef::Integer(1)]), bytes(&[ValueRef::Real(1.0)]));
        assert_ne!(bytes(&[ValueRef::Null]), bytes(&[text("")]));
        assert_eq!(bytes(&[ValueRef::Integer(1)]), [1, 0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
