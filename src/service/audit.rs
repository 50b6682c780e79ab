//! The audit log's own operations: the server's comings and goings, and signed checkpoints.

use super::access::Admin;
use super::{Call, Service};
use crate::error::Result;
use crate::model::account::Listing;
use crate::model::audit::{Checkpoint, Event, EventFilter, EventType, NewEvent};
use crate::store::KeyPurpose;

/// `GET /v1/audit`: newest first.
///
/// # Errors
/// `InvalidRequest` for a cursor that isn't ours.
pub fn list(service: &Service, _: &Call, _: &Admin, filter: EventFilter) -> Result<Listing<Event>> {
    let before = filter.page.before()?;
    if filter.nobody {
        return Ok(Listing { rows: Vec::new(), next: None });
    }
    let limit = filter.page.limit;
    let mut rows = service.store.snapshot(|view| view.list_events(&filter, before, limit + 1))?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|event| event.id.to_string());
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
        self.write(move |tx, core| {
            let key = core.signer(tx, KeyPurpose::Audit, now)?;
            let (last_id, hash) = tx.audit_head()?;
            let message = Checkpoint::message(last_id, &hash, now.seconds());
            let checkpoint = Checkpoint {
                last_id,
                count: last_id,
                hash,
                time: now.seconds(),
                kid: key.kid().to_owned(),
                signature: key.sign_bytes(&message),
                anchor: false,
            };
            tx.insert_checkpoint(&checkpoint)?;
            Ok(checkpoint)
        })
    }
}
