//! The audit log's own operations: the server's comings and goings, and signed checkpoints. Verifying, exporting and
//! archiving the whole of it are in rooms of their own.

mod chain;
mod export;
mod file;
mod history;
mod reader;
mod verify;

use super::access::Admin;
use super::{Call, Core, Service};
use crate::error::{Error, Result};
use crate::model::account::Listing;
use crate::model::audit::{Checkpoint, Event, EventFilter, EventType, NewEvent};
use crate::model::time::Timestamp;
use crate::store::{EventRow, KeyPurpose, Tx};

pub use export::{Draft, Out, export, replace_archived, write_archive};
pub use file::{FileReport, read_keys, verify_file};
pub use history::{Comparison, compare_accounts};
pub use verify::{Report, public_keys, verify_log};

/// `GET /v1/audit`: newest first.
///
/// # Errors
/// `InvalidRequest` for a cursor that isn't ours.
pub fn list(service: &Service, call: &Call, admin: &Admin, filter: EventFilter) -> Result<Listing<Event>> {
    let Listing { rows, next } = list_rows(service, call, admin, filter)?;
    let whole = |row: EventRow| row.event.ok_or_else(|| Error::internal(unreadable(row.id)));
    Ok(Listing { rows: rows.into_iter().map(whole).collect::<Result<_>>()?, next })
}

/// What is wrong with an event that can't be read.
pub fn unreadable(id: i64) -> String {
    format!("event {id} isn't as this program writes it")
}

/// The same, with those that can't be read in their places.
///
/// # Errors
/// As [`list`].
pub fn list_rows(service: &Service, _: &Call, _: &Admin, filter: EventFilter) -> Result<Listing<EventRow>> {
    let before = filter.page.before()?;
    if filter.nobody {
        return Ok(Listing { rows: Vec::new(), next: None });
    }
    let limit = filter.page.limit;
    let mut rows = service.store.snapshot(|view| view.list_events(&filter, before, limit + 1))?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|row| row.id.to_string());
    Ok(Listing { rows, next })
}

impl Service {
    /// Writes an event that is about the server itself.
    ///
    /// # Errors
    /// Trouble with the file.
    pub fn note(&self, event_type: EventType) -> Result<()> {
        let occasion = self.occasion(&Call::default());
        self.write(move |tx, _| tx.append(NewEvent::of(event_type), occasion))
    }

    /// Signs the head of the chain and stores the signature, so that re-chaining needs the audit key as well.
    ///
    /// # Errors
    /// Trouble with the file.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        let now = self.now();
        self.write(move |tx, core| checkpoint_head(tx, core, now))
    }
}

/// Signs the head of the chain as it is in this transaction.
fn checkpoint_head(tx: &Tx<'_>, core: &Core, now: Timestamp) -> Result<Checkpoint> {
    let key = core.signer(tx, KeyPurpose::Audit, now)?;
    let (count, hash) = tx.audit_head()?;
    let checkpoint = verify::sign(&key, count, hash, now.seconds());
    tx.insert_checkpoint(&checkpoint)?;
    Ok(checkpoint)
}

#[cfg(test)]
mod tests;
