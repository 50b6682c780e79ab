//! What verification of the log and of a file have in common: following the chain, checking what was signed about it,
//! and telling an anchor from a mere checkpoint. A fault is a sentence for the operator.

use crate::crypto::jwt::verify_bytes;
use crate::model::audit::{Checkpoint, EventType};
use crate::model::chain::Link;
use crate::model::time::Timestamp;
use crate::model::token::PublicKey;
use crate::store::chained;

/// How far a chain has been followed.
pub(super) struct Chain {
    /// The last event's number.
    pub at: i64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl Chain {
    /// At the beginning, or where archived events end.
    pub fn from(anchor: Option<&Checkpoint>) -> Self {
        anchor.map_or(Self { at: 0, hash: [0; 32] }, |anchor| Self { at: anchor.count, hash: anchor.hash })
    }

    /// One event further.
    ///
    /// # Errors
    /// It isn't the next, or it isn't what it was.
    pub fn follow(&mut self, link: &Link) -> Result<(), String> {
        self.due(link.id)?;
        if chained(&self.hash, &link.canonical()) != link.hash {
            return Err(format!("event {} was changed: its hash doesn't fit", link.id));
        }
        (self.at, self.hash) = (link.id, link.hash);
        Ok(())
    }

    /// Whether the next event has this number.
    ///
    /// # Errors
    /// Saying which are missing, or that it stands in a wrong place.
    pub fn due(&self, id: i64) -> Result<(), String> {
        let due = self.at.saturating_add(1);
        match id {
            _ if id == due => Ok(()),
            _ if id == due.saturating_add(1) => Err(format!("event {due} is missing")),
            _ if id > due => Err(format!("events {due} to {} are missing", id - 1)),
            _ => Err(format!("event {id} stands where event {due} should")),
        }
    }

    /// Whether a checkpoint is one of the events so far.
    ///
    /// # Errors
    /// It is of other events.
    pub fn fits(&self, checkpoint: &Checkpoint) -> Result<(), String> {
        if (checkpoint.last_id, checkpoint.count) != (self.at, self.at) {
            return Err(format!("is of {} events, not of {}", checkpoint.count, self.at));
        }
        if checkpoint.hash != self.hash {
            return Err(format!(
                "isn't of these events: event {} or one before it was changed, and the chain made anew",
                self.at
            ));
        }
        Ok(())
    }
}

/// A key that may have signed checkpoints.
pub(super) struct AuditKey {
    /// The public half.
    pub public: PublicKey,
    /// When it was revoked; what it signed until then stands.
    pub revoked_at: Option<Timestamp>,
}

/// Whether one of the keys has signed a checkpoint, in its time.
///
/// # Errors
/// None has, or it was revoked before.
pub(super) fn signed(checkpoint: &Checkpoint, keys: &[AuditKey]) -> Result<(), String> {
    let Some(key) = keys.iter().find(|key| key.public.kid == checkpoint.kid) else {
        return Err(format!("is signed by {}, which is none of the audit keys", checkpoint.kid));
    };
    if key.revoked_at.is_some_and(|at| at.seconds() < checkpoint.time) {
        return Err(format!("is signed by {} after that key was revoked", checkpoint.kid));
    }
    let message = Checkpoint::message(checkpoint.count, &checkpoint.hash, checkpoint.time);
    if !verify_bytes(&key.public.bytes, &message, &checkpoint.signature) {
        return Err("has a bad signature".into());
    }
    Ok(())
}

/// Tells an anchor that archiving made from a checkpoint that somebody put in its place, to drop the events before it:
/// both are signed alike. Archiving writes its event in the anchor's very second, and picks a second in which nothing
/// else was signed and that is later than all events before; see [`super::export`].
pub(super) struct Archiving {
    second: i64,
    event: Option<i64>,
    newest: i64,
}

impl Archiving {
    /// What to look for after this anchor.
    pub fn of(anchor: &Checkpoint) -> Self {
        Self { second: anchor.time, event: None, newest: i64::MIN }
    }

    /// Looks at an event after the anchor.
    pub fn see(&mut self, link: &Link) {
        let second = link.time.timestamp().seconds();
        self.newest = self.newest.max(second);
        if second == self.second && link.event_type == EventType::AuditArchived.as_str() {
            self.event = Some(link.id);
        }
    }

    /// The number of the event that made the anchor, if it was seen.
    pub fn event(&self) -> Option<i64> {
        self.event
    }

    /// Whether all that was seen happened before the anchor was made, as in the file of a later archiving.
    pub fn all_before(&self) -> bool {
        self.newest < self.second
    }
}
