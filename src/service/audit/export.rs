//! Writes the log out as lines that prove themselves, and archives: what was written out goes, and an anchor stands for
//! it. A log that doesn't verify is neither exported nor archived.

use std::time::{Duration, Instant};

use super::chain::Chain;
use super::reader::{Reader, Stop};
use super::verify::sign;
use super::{checkpoint_head, verify_log};
use crate::error::{Error, Result};
use crate::model::audit::{Checkpoint, EventType, NewEvent, Occasion};
use crate::model::chain::Line;
use crate::model::time::{Millis, Timestamp};
use crate::service::access::Admin;
use crate::service::{Call, Service};
use crate::store::{KeyPurpose, KeyRow};

/// What is done with each line, and told how many events are done and how many there are.
pub struct Out<'o, E> {
    /// Takes a line, without a line end.
    pub line: &'o mut dyn FnMut(&str) -> std::result::Result<(), E>,
    /// Takes the progress.
    pub progress: &'o mut dyn FnMut(u64, u64),
}

/// Writes the whole log, closed by a checkpoint that is signed now. Gives the number of events.
///
/// # Errors
/// `Conflict` where the log doesn't verify, or is archived meanwhile; those of `out`; trouble with the file.
pub fn export<E: From<Error>>(service: &Service, out: &mut Out<'_, E>) -> std::result::Result<u64, E> {
    refuse_faulty(service, out.progress)?;
    let checkpoint = service.checkpoint()?;
    let all = |link_id: i64, _: Millis| link_id <= checkpoint.last_id;
    let (written, chain) = write_events(service, all, out)?;
    if (chain.at, chain.hash) != (checkpoint.last_id, checkpoint.hash) {
        return Err(changed_meanwhile().into());
    }
    (out.line)(&Line::Checkpoint(checkpoint).text())?;
    Ok(written)
}

/// Rows that were written out and not yet replaced.
pub struct Draft {
    anchor: Checkpoint,
    occasion: Occasion,
    written: u64,
}

impl Draft {
    /// How many events were written.
    pub fn events(&self) -> u64 {
        self.written
    }
}

/// Writes out the events that stand before the first one that isn't older than `before`, closed by what will be their
/// anchor. Nothing is changed yet.
///
/// # Errors
/// As [`export`]; `Conflict` where there are none.
pub fn write_archive<E: From<Error>>(
    service: &Service,
    before: Timestamp,
    out: &mut Out<'_, E>,
) -> std::result::Result<Draft, E> {
    refuse_faulty(service, out.progress)?;
    let (written, chain) = write_events(service, |_, time: Millis| time.timestamp() < before, out)?;
    if written == 0 {
        return Err(Error::conflict(format!("no event is from before {before}; nothing was archived")).into());
    }
    let occasion = occasion_of_its_own(service)?;
    let time = occasion.time.timestamp();
    let key = service.store.read(|view| service.core.signer(view, KeyPurpose::Audit, time))?;
    let anchor = sign(&key, chain.at, chain.hash, time.seconds());
    (out.line)(&Line::Checkpoint(anchor.clone()).text())?;
    Ok(Draft { anchor, occasion, written })
}

/// Puts the anchor in the place of the events that were written out. Whoever calls has made sure that the file survives
/// a power cut.
///
/// All in one transaction, though deleting many rows takes long and other writers wait: between two smaller ones there
/// would be an anchor that no file ends with. The event, and a checkpoint after it, are part of it: they are what tells
/// an anchor from a checkpoint that somebody has marked as one.
///
/// # Errors
/// `Conflict` where the log is no longer the one that was written; trouble with the file.
pub fn replace_archived(service: &Service, _: &Call, admin: &Admin, draft: Draft) -> Result<()> {
    let Draft { anchor, occasion, .. } = draft;
    let party = admin.party();
    service.write_as(admin, move |tx, core| {
        tx.replace_by_anchor(&anchor)?;
        tx.append(NewEvent::of(EventType::AuditArchived).by(party.clone()), occasion)?;
        checkpoint_head(tx, core, occasion.time.timestamp()).map(drop)
    })
}

fn refuse_faulty(service: &Service, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    match verify_log(service, progress)?.fault {
        Some(fault) => Err(Error::conflict(format!("the audit log doesn't verify: {fault}"))),
        None => Ok(()),
    }
}

fn changed_meanwhile() -> Error {
    Error::conflict("the audit log was archived or changed meanwhile; try again")
}

/// Writes the anchor, if there is one, and the events from the first on for as long as `take` has it so. Follows the
/// chain once more: what is written is what was verified.
fn write_events<E: From<Error>>(
    service: &Service,
    take: impl Fn(i64, Millis) -> bool,
    out: &mut Out<'_, E>,
) -> std::result::Result<(u64, Chain), E> {
    let stopped = |stop| match stop {
        Stop::Fault(_) | Stop::Archived => changed_meanwhile(),
        Stop::Trouble(error) => error,
    };
    let mut reader = Reader::begin(&service.store).map_err(stopped)?;
    let mut chain = Chain::from(reader.anchor.as_ref());
    if let Some(anchor) = &reader.anchor {
        (out.line)(&Line::Anchor(in_force(service, &reader.keys, anchor)?).text())?;
    }
    let total = u64::try_from(reader.head.saturating_sub(chain.at)).unwrap_or(0);
    let mut written = 0;
    while let Some(row) = reader.next_row().map_err(stopped)? {
        let link = row.link.ok_or_else(changed_meanwhile)?;
        if !take(link.id, link.time) {
            break;
        }
        chain.follow(&link).map_err(|_| changed_meanwhile())?;
        (out.line)(&Line::Event(link).text())?;
        written += 1;
        (out.progress)(written, total);
    }
    Ok((written, chain))
}

/// The anchor; signed anew if the key that signed it was revoked, for whoever verifies the file isn't given that key.
fn in_force(service: &Service, keys: &[KeyRow], anchor: &Checkpoint) -> Result<Checkpoint> {
    if keys.iter().any(|key| key.kid == anchor.kid && key.revoked_at.is_none()) {
        return Ok(anchor.clone());
    }
    let key = service.store.read(|view| service.core.signer(view, KeyPurpose::Audit, service.now()))?;
    Ok(Checkpoint { anchor: true, ..sign(&key, anchor.count, anchor.hash, anchor.time) })
}

/// Now, in a second that is later than every event and in which nothing was signed: waits for the next one if need be.
/// Where the newest event lies in the future, it does without.
fn occasion_of_its_own(service: &Service) -> Result<Occasion> {
    let begun = Instant::now();
    loop {
        let occasion = service.occasion(&Call::default());
        let now = occasion.time.timestamp();
        let (event, checkpoint) =
            service.store.snapshot(|view| Ok((view.newest_event_time()?, view.newest_checkpoint()?)))?;
        let newest = event.max(checkpoint.map(|(_, time)| time));
        if newest != Some(now) || begun.elapsed() > Duration::from_millis(1500) {
            return Ok(occasion);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
