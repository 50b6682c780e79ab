//! The audit log link by link, for what walks the whole of it: verification, export and archive. A row that isn't as
//! this program writes it is handed out as one that can't be read, not as an error.

use rusqlite::Row;
use serde_json::Value;

use super::{Tx, View, statements};
use crate::error::{Error, Result};
use crate::model::audit::Checkpoint;
use crate::model::chain::{Columns, Link, PartyText};
use crate::model::strict;
use crate::model::time::Timestamp;

/// A row of the log.
pub struct LogRow {
    /// Its place.
    pub id: i64,
    /// What it says; none if a column isn't as this program writes it.
    pub link: Option<Link>,
}

/// A row of the checkpoints.
pub struct CheckpointRow {
    /// Its own number, in the order they were signed.
    pub id: i64,
    /// What it says; none if a column isn't as this program writes it.
    pub checkpoint: Option<Checkpoint>,
}

macro_rules! checkpoint_columns {
    () => {
        "SELECT id, last_id, count, hash, time, kid, signature, anchor FROM audit_checkpoints "
    };
}

statements! {
    LINKS Search = "SELECT id, event_time, event_type, via, actor_uuid, actor_name, target_uuid, target_name,
        ip_address, details, hash FROM audit_log WHERE id >= ?1 AND id <= ?2 ORDER BY id LIMIT ?3";
    CHECKPOINTS Search = concat!(checkpoint_columns!(), "WHERE id >= ?1 AND id <= ?2 AND anchor = 0
        ORDER BY id LIMIT ?3");
    ANCHORS Walk = concat!(checkpoint_columns!(), "WHERE anchor <> 0 ORDER BY id");
    FIRST Search = "SELECT min(id) FROM audit_log";
    NEWEST_CHECKPOINT Newest = "SELECT id, time FROM audit_checkpoints ORDER BY id DESC LIMIT 1";
    HASH_OF Search = "SELECT hash FROM audit_log WHERE id = ?1";
    DELETE_EVENTS Search = "DELETE FROM audit_log WHERE id <= ?1";
    DELETE_CHECKPOINTS Walk = "DELETE FROM audit_checkpoints WHERE last_id <= ?1";
}

/// The trigger that keeps rows from going, word for word as the schema has it; a test compares. Not among the
/// statements above: the engine doesn't explain what makes a trigger that is there.
const ALLOW_DELETE: &str = "DROP TRIGGER audit_log_no_delete";
const REFUSE_DELETE: &str = "CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log
    BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END";

impl View<'_> {
    /// At most `limit` rows of the log from the number `from` to `to`, in order.
    pub fn links(&self, from: i64, to: i64, limit: u32) -> Result<Vec<LogRow>> {
        self.rows(LINKS, (from, to, limit), |row| Ok(LogRow { id: row.get(0)?, link: link(row) }))
    }

    /// At most `limit` checkpoints with numbers from `from` to `to`, in the order they were signed; no anchor.
    pub fn checkpoints(&self, from: i64, to: i64, limit: u32) -> Result<Vec<CheckpointRow>> {
        self.rows(CHECKPOINTS, (from, to, limit), checkpoint_row)
    }

    /// What stands for archived rows: one row at most, or somebody else has been at it.
    pub fn anchors(&self) -> Result<Vec<CheckpointRow>> {
        self.rows(ANCHORS, [], checkpoint_row)
    }

    /// The number of the oldest event that is there. Nothing but archiving changes it.
    pub fn first_event(&self) -> Result<Option<i64>> {
        Ok(self.row(FIRST, [], |row| row.get(0))?.flatten())
    }

    /// Number and time of the checkpoint, or anchor, that was written last.
    pub fn newest_checkpoint(&self) -> Result<Option<(i64, Timestamp)>> {
        self.row(NEWEST_CHECKPOINT, [], |row| Ok((row.get(0)?, row.get(1)?)))
    }
}

impl Tx<'_> {
    /// Puts `anchor` in the place of the rows up to the one it speaks of, and of what was signed about them.
    ///
    /// # Errors
    /// `Conflict` where that row isn't there with that hash.
    pub fn replace_by_anchor(&self, anchor: &Checkpoint) -> Result<()> {
        let there = self.row(HASH_OF, [anchor.last_id], |row| row.get::<_, [u8; 32]>(0))?;
        if there != Some(anchor.hash) {
            return Err(Error::conflict("the audit log is no longer the one that was written to the file"));
        }
        self.run_plain(ALLOW_DELETE)?;
        self.run(DELETE_EVENTS, [anchor.last_id])?;
        self.run_plain(REFUSE_DELETE)?;
        self.run(DELETE_CHECKPOINTS, [anchor.last_id])?;
        self.store_checkpoint(&Checkpoint { anchor: true, ..anchor.clone() })
    }
}

fn link(row: &Row<'_>) -> Option<Link> {
    let party = |uuid: usize| -> Option<PartyText> {
        match (row.get(uuid).ok()?, row.get(uuid + 1).ok()?) {
            (None, None) => Some(None),
            (Some(id), Some(name)) => Some(Some((id, name))),
            _ => None,
        }
    };
    let text = row.get_ref(9).ok()?.as_str().ok()?;
    // Only in the one form that we write: what reads the column elsewhere mustn't see something else in it.
    let Ok(Value::Object(details)) = strict::parse(text) else { return None };
    let details = Value::Object(details);
    let written = details.to_string();
    if written != text {
        return None;
    }
    Some(Link::from(Columns {
        id: row.get(0).ok()?,
        time: row.get(1).ok()?,
        event_type: row.get(2).ok()?,
        via: row.get(3).ok()?,
        actor: party(4)?,
        target: party(6)?,
        ip: row.get(8).ok()?,
        details: details.as_object()?.clone(),
        hash: row.get(10).ok()?,
    }))
}

fn checkpoint_row(row: &Row<'_>) -> rusqlite::Result<CheckpointRow> {
    let checkpoint = || -> rusqlite::Result<Checkpoint> {
        Ok(Checkpoint {
            last_id: row.get(1)?,
            count: row.get(2)?,
            hash: row.get(3)?,
            time: row.get(4)?,
            kid: row.get(5)?,
            signature: row.get(6)?,
            anchor: row.get(7)?,
        })
    };
    Ok(CheckpointRow { id: row.get(0)?, checkpoint: checkpoint().ok() })
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;
    use crate::model::audit::{EventType, NewEvent, Occasion, Via};
    use crate::model::time::Millis;

    const OCCASION: Occasion = Occasion { time: Millis::new(1_800_000_000_000), via: Via::Server, ip: None };

    fn store(dir: &tempfile::TempDir) -> Store {
        let store = Store::open_and_migrate(&dir.path().join("t.db"), OCCASION).unwrap();
        // A checkpoint points to its key's row.
        sql(
            dir,
            "INSERT INTO signing_keys (kid, purpose, public_key, private_key_enc, private_key_nonce, created_at,
                  signs_from) VALUES ('k', 'audit', zeroblob(32), x'', zeroblob(12), 0, 0)",
        );
        for _ in 0..5 {
            store.write(|tx| tx.append(NewEvent::of(EventType::ServerStarted), OCCASION)).unwrap();
        }
        store
    }

    fn sql(dir: &tempfile::TempDir, sql: &str) {
        rusqlite::Connection::open(dir.path().join("t.db")).unwrap().execute_batch(sql).unwrap();
    }

    fn checkpoint(store: &Store, of: i64) -> Checkpoint {
        let links = store.read(|view| view.links(of, of, 1)).unwrap();
        let hash = links[0].link.as_ref().unwrap().hash;
        Checkpoint { last_id: of, count: of, hash, time: 7, kid: "k".into(), signature: [1; 64], anchor: false }
    }

    fn schema(dir: &tempfile::TempDir) -> Vec<String> {
        let connection = rusqlite::Connection::open(dir.path().join("t.db")).unwrap();
        let mut statement =
            connection.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    #[test]
    fn an_anchor_replaces_what_it_stands_for_and_the_schema_is_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        let (before, head) = (schema(&dir), checkpoint(&store, 6));
        store.write(move |tx| tx.insert_checkpoint(&head)).unwrap();
        for of in [2, 4] {
            let anchor = checkpoint(&store, of);
            store.write(move |tx| tx.replace_by_anchor(&anchor)).unwrap();
            let (rows, checkpoints, anchors) = store
                .snapshot(|view| Ok((view.links(0, 99, 99)?, view.checkpoints(0, 99, 99)?, view.anchors()?)))
                .unwrap();
            assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), (of + 1..=6).collect::<Vec<_>>());
            assert_eq!((checkpoints.len(), anchors.len()), (1, 1), "one anchor stands for the one before, too");
            assert_eq!(anchors[0].checkpoint.as_ref().map(|anchor| anchor.last_id), Some(of));
        }
        assert_eq!(schema(&dir), before);
        let refused = rusqlite::Connection::open(dir.path().join("t.db")).unwrap().execute("DELETE FROM audit_log", []);
        assert!(refused.unwrap_err().to_string().contains("append-only"));

        let all = checkpoint(&store, 6);
        store.write(move |tx| tx.replace_by_anchor(&all)).unwrap();
        store.write(|tx| tx.append(NewEvent::of(EventType::ServerStarted), OCCASION)).unwrap();
        assert_eq!(store.read(|view| view.audit_head()).unwrap().0, 7, "the chain goes on from the anchor");
    }

    #[test]
    fn an_anchor_of_another_log_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        for wrong in
            [Checkpoint { hash: [9; 32], ..checkpoint(&store, 3) }, Checkpoint { last_id: 99, ..checkpoint(&store, 3) }]
        {
            assert!(store.write(move |tx| tx.replace_by_anchor(&wrong)).is_err());
        }
        assert_eq!(store.read(|view| view.links(0, 99, 99)).unwrap().len(), 6);
    }

    #[test]
    fn a_row_that_is_not_as_we_write_it_is_no_link() {
        for change in [
            "details = '{ }'",
            "details = '{\"a\":1,\"a\":1}'",
            "details = '[]'",
            "details = 'x'",
            "actor_uuid = 'x'",
            "target_name = 'x'",
            "ip_address = CAST(x'ff' AS TEXT)",
        ] {
            let dir = tempfile::tempdir().unwrap();
            let store = store(&dir);
            sql(&dir, &format!("DROP TRIGGER audit_log_no_update; UPDATE audit_log SET {change} WHERE id = 3"));
            let rows = store.read(|view| view.links(0, 99, 99)).unwrap();
            let unread: Vec<i64> = rows.iter().filter(|row| row.link.is_none()).map(|row| row.id).collect();
            assert_eq!(unread, [3], "{change}");
        }
    }
}
