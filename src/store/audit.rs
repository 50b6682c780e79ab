//! The audit log: appending to the chain, and signed checkpoints of its head.

use rusqlite::{Connection, OptionalExtension, Row, named_params};
use sha2::{Digest, Sha256};

use super::{Tx, View, statements};
use crate::error::{Error, Result};
use crate::model::account::{AccountId, Username};
use crate::model::audit::{Checkpoint, Event, EventFilter, NewEvent, Occasion, Party, canonical};
use crate::model::time::{Millis, Timestamp};

/// The columns of [`Event`], in the order [`event`] reads them.
macro_rules! event_columns {
    () => {
        "SELECT id, event_time, event_type, via, actor_uuid, actor_name, target_uuid, target_name, ip_address, details,
                hash FROM audit_log "
    };
}

statements! {
    HEAD Newest = "SELECT id, hash FROM audit_log ORDER BY id DESC LIMIT 1";
    ANCHOR Walk = "SELECT last_id, hash FROM audit_checkpoints WHERE anchor = 1 ORDER BY last_id DESC LIMIT 1";
    LIST Walk = concat!(event_columns!(), "WHERE id < :before AND event_time >= :since AND event_time <= :until
        ORDER BY id DESC LIMIT :limit");
    LIST_BY_TYPE Search = concat!(event_columns!(), "WHERE event_type = :type AND id < :before
        AND event_time >= :since AND event_time <= :until ORDER BY id DESC LIMIT :limit");
    LIST_BY_ACTOR Search = concat!(event_columns!(), "WHERE actor_uuid = :account AND id < :before
        AND event_time >= :since AND event_time <= :until AND (:type IS NULL OR event_type = :type)
        ORDER BY id DESC LIMIT :limit");
    LIST_BY_TARGET Search = concat!(event_columns!(), "WHERE target_uuid = :account AND id < :before
        AND event_time >= :since AND event_time <= :until AND (:type IS NULL OR event_type = :type)
        ORDER BY id DESC LIMIT :limit");
    // Not the newest row alone: a program that doesn't look at the clock may have written while it was behind. And not
    // all rows: once the operator has accepted the clock, what is before that says nothing.
    NEWEST_TIME Newest = "SELECT max(event_time) FROM (
        SELECT event_time FROM audit_log WHERE id >= coalesce(
            (SELECT id FROM audit_log WHERE event_type = 'clock_accepted' ORDER BY id DESC LIMIT 1), 0)
        ORDER BY id DESC LIMIT 200)";
    INSERT Search = "INSERT INTO audit_log (id, event_time, event_type, via, actor_uuid, actor_name,
        target_uuid, target_name, ip_address, details, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    INSERT_CHECKPOINT Search = "INSERT INTO audit_checkpoints (last_id, count, hash, time, kid, signature, anchor)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    LOGIN_ADDRESSES Newest = "SELECT ip_address FROM audit_log
        WHERE event_type = 'login_ok' ORDER BY id DESC LIMIT ?1";
}

/// A row of the log, as far as it can be read.
pub struct EventRow {
    /// Its number.
    pub id: i64,
    /// The event; none where a column isn't as this program writes it.
    pub event: Option<Event>,
}

impl View<'_> {
    /// Number and hash of the newest event. Numbers have no gaps, so the number is also how many there have been.
    pub fn audit_head(&self) -> Result<(i64, [u8; 32])> {
        head(self.connection).map_err(|e| self.trouble(e))
    }

    /// When the newest event happened: no clock may be much before it. None in an empty log.
    pub fn newest_event_time(&self) -> Result<Option<Timestamp>> {
        newest_time(self.connection).map_err(|e| self.trouble(e))
    }

    /// At most `limit` events, newest first, beginning before the one with the number `before`.
    pub fn list_events(&self, filter: &EventFilter, before: i64, limit: u32) -> Result<Vec<EventRow>> {
        let since = filter.since.map_or(i64::MIN, |at| at.seconds().saturating_mul(1000));
        let until = filter.until.map_or(i64::MAX, |at| at.seconds().saturating_mul(1000).saturating_add(999));
        let Some(account) = filter.account else {
            return match filter.event_type {
                Some(event_type) => self.rows(
                    LIST_BY_TYPE,
                    named_params! {":type": event_type, ":before": before, ":since": since, ":until": until, ":limit": limit},
                    event_row,
                ),
                None => self.rows(
                    LIST,
                    named_params! {":before": before, ":since": since, ":until": until, ":limit": limit},
                    event_row,
                ),
            };
        };
        let mut found = Vec::new();
        for statement in [LIST_BY_ACTOR, LIST_BY_TARGET] {
            let params = named_params! {":account": account, ":type": filter.event_type, ":before": before,
            ":since": since, ":until": until, ":limit": limit};
            found.extend(self.rows(statement, params, event_row)?);
        }
        found.sort_unstable_by_key(|event| std::cmp::Reverse(event.id));
        found.dedup_by_key(|event| event.id);
        found.truncate(limit as usize);
        Ok(found)
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
        self.store_checkpoint(checkpoint)
    }

    /// Stores a signed checkpoint of whatever event.
    pub(super) fn store_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
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

/// When the newest event happened, for [`View`] and for migrations.
pub(super) fn newest_time(connection: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let newest: Option<Millis> = connection.prepare_cached(NEWEST_TIME)?.query_row([], |row| row.get(0))?;
    Ok(newest.map(Millis::timestamp))
}

fn event_row(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    Ok(EventRow { id: row.get(0)?, event: event(row).ok() })
}

/// Reads the columns of `event_columns!`.
fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    let party = |uuid: usize| -> rusqlite::Result<Option<Party>> {
        let (id, username): (Option<AccountId>, Option<Username>) = (row.get(uuid)?, row.get(uuid + 1)?);
        Ok(id.zip(username).map(|(id, username)| Party { id, username }))
    };
    let details: serde_json::Value =
        serde_json::from_str(row.get_ref(9)?.as_str()?).map_err(|_| rusqlite::Error::InvalidQuery)?;
    Ok(Event {
        id: row.get(0)?,
        time: row.get(1)?,
        event_type: row.get(2)?,
        via: row.get(3)?,
        actor: party(4)?,
        target: party(6)?,
        ip: row.get(8)?,
        details: details.as_object().cloned().ok_or(rusqlite::Error::InvalidQuery)?,
        hash: row.get(10)?,
    })
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
    event.hash = chained(&previous, &canonical(&event));
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

/// An event's hash: SHA-256 over the hash before it and its canonical JSON; before the first are 32 zero bytes.
pub fn chained(previous: &[u8; 32], canonical: &str) -> [u8; 32] {
    Sha256::new().chain_update(previous).chain_update(canonical).finalize().into()
}
