//! The audit log: appending to the chain, and signed checkpoints of its head.

use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest, Sha256};

use super::{Tx, View, statements};
use crate::error::{Error, Result};
use crate::model::audit::{Checkpoint, Event, NewEvent, Occasion, canonical};
use crate::model::time::{Millis, Timestamp};

statements! {
    HEAD Newest = "SELECT id, hash FROM audit_log ORDER BY id DESC LIMIT 1";
    ANCHOR Walk = "SELECT last_id, hash FROM audit_checkpoints WHERE anchor = 1 ORDER BY last_id DESC LIMIT 1";
    NEWEST_TIME Newest = "SELECT event_time FROM audit_log ORDER BY id DESC LIMIT 1";
    INSERT Search = "INSERT INTO audit_log (id, event_time, event_type, via, actor_uuid, actor_name,
        target_uuid, target_name, ip_address, details, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    INSERT_CHECKPOINT Search = "INSERT INTO audit_checkpoints (last_id, count, hash, time, kid, signature, anchor)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    LOGIN_ADDRESSES Newest = "SELECT ip_address FROM audit_log
        WHERE event_type = 'login_ok' ORDER BY id DESC LIMIT ?1";
}

impl View<'_> {
    /// Number and hash of the newest event. Numbers have no gaps, so the number is also how many there have been.
    pub fn audit_head(&self) -> Result<(i64, [u8; 32])> {
        head(self.connection).map_err(|e| self.trouble(e))
    }

    /// When the newest event happened: no clock may be much before it. None in an empty log.
    pub fn newest_event_time(&self) -> Result<Option<Timestamp>> {
        Ok(self.row(NEWEST_TIME, [], |row| row.get::<_, Millis>(0))?.map(Millis::timestamp))
    }

    /// Where the last `limit` successful logins came from, newest first.
    pub fn recent_login_addresses(&self, limit: u32) -> Result<Vec<Option<String>>> {
        self.rows(LOGIN_ADDRESSES, [limit], |row| row.get(0))
    }
}

impl Tx<'_> {
    /// Adds an event to the end of the chain, in this very transaction.
    pub fn append(&self, event: NewEvent, occasion: Occasion) -> Result<()> {
        append(self.connection, event, occasion).map_err(|e| self.trouble(e))
    }

    /// Stores a signed checkpoint of the head as it is in this transaction.
    pub fn insert_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        if self.audit_head()? != (checkpoint.last_id, checkpoint.hash) {
            return Err(Error::internal("a checkpoint has to be of the newest event"));
        }
        let values = (
            checkpoint.last_id,
            checkpoint.count,
            checkpoint.hash,
            checkpoint.time,
            &checkpoint.kid,
            checkpoint.signature,
            checkpoint.anchor,
        );
        self.run(INSERT_CHECKPOINT, values).map(drop)
    }
}

/// The newest event, or the anchor of the archived ones, or the beginning.
fn head(connection: &Connection) -> rusqlite::Result<(i64, [u8; 32])> {
    let read = |sql| connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional();
    let newest = match read(HEAD)? {
        None => read(ANCHOR)?,
        found => found,
    };
    Ok(newest.unwrap_or((0, [0; 32])))
}

/// Appends to the chain: also for migrations, which have a connection and no [`Tx`].
pub(super) fn append(connection: &Connection, new: NewEvent, occasion: Occasion) -> rusqlite::Result<()> {
    let (last, previous) = head(connection)?;
    let mut event = Event {
        id: last + 1,
        time: occasion.time,
        event_type: new.event_type,
        via: occasion.via,
        actor: new.actor,
        target: new.target,
        ip: occasion.ip.map(|ip| ip.to_string()),
        details: new.details,
        hash: [0; 32],
    };
    event.hash = chained(&previous, &event);
    let mut statement = connection.prepare_cached(INSERT)?;
    statement.execute((
        event.id,
        event.time,
        event.event_type,
        event.via,
        event.actor.as_ref().map(|party| party.id),
        event.actor.as_ref().map(|party| &party.username),
        event.target.as_ref().map(|party| party.id),
        event.target.as_ref().map(|party| &party.username),
        &event.ip,
        serde_json::Value::Object(event.details).to_string(),
        event.hash,
    ))?;
    Ok(())
}

/// SHA-256 over the hash before and the event's canonical JSON.
pub(super) fn chained(previous: &[u8; 32], event: &Event) -> [u8; 32] {
    Sha256::new().chain_update(previous).chain_update(canonical(event)).finalize().into()
}
