//! Verifies the log in the database: every row, every checkpoint, every audit key.

use super::chain::{Archiving, AuditKey, Chain, signed};
use super::reader::{Reader, Stop};
use crate::crypto::jwt::SigningKey;
use crate::error::{Error, Result};
use crate::model::audit::{Checkpoint, EventType};
use crate::model::time::Timestamp;
use crate::model::token::{PublicKey, PublicKeys};
use crate::service::{Core, Service};
use crate::store::{CheckpointRow, KeyPurpose, KeyRow};

/// Events this old, in seconds, must have a checkpoint after them somewhere.
const DAY: i64 = 86_400;

/// How many rows are gone through between two reports of progress.
const STEP: u64 = 256;

/// What verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many events fit.
    pub rows: u64,
    /// How many checkpoints fit, the anchor not counted.
    pub checkpoints: u64,
    /// How many events come after the last checkpoint that fits.
    pub not_anchored: u64,
    /// The first thing that doesn't fit, as a sentence for the operator.
    pub fault: Option<String>,
}

/// Walks events and checkpoints in order: numbers without a gap from 1 or from the anchor, the chain, and each
/// checkpoint with its signature. `progress` is told how many events are done, and how many there are.
///
/// # Errors
/// Trouble with the file. What doesn't fit is no error but in the report.
pub fn verify_log(service: &Service, progress: &mut dyn FnMut(u64, u64)) -> Result<Report> {
    loop {
        let mut report = Report::default();
        match walk(service, &mut report, progress) {
            Ok(()) => return Ok(report),
            Err(Stop::Fault(fault)) => return Ok(Report { fault: Some(fault), ..report }),
            Err(Stop::Archived) => {} // from the new anchor, then
            Err(Stop::Trouble(error)) => return Err(error),
        }
    }
}

fn walk(service: &Service, report: &mut Report, progress: &mut dyn FnMut(u64, u64)) -> std::result::Result<(), Stop> {
    let now = service.now();
    let mut reader = Reader::begin(&service.store)?;
    let keys = open_keys(&service.core, &reader.keys)?;
    let mut chain = Chain::from(reader.anchor.as_ref());
    let mut archiving = reader.anchor.as_ref().map(Archiving::of);
    if let Some(anchor) = &reader.anchor {
        chain.fits(anchor).and_then(|()| signed(anchor, &keys)).map_err(|what| format!("the anchor {what}"))?;
    }
    if reader.first.is_none() && reader.anchor.is_none() {
        // Making a database writes the first, and archiving leaves an anchor.
        return Err("there is neither an event nor an anchor: all of them were removed".to_owned().into());
    }
    let total = u64::try_from(reader.head.saturating_sub(chain.at)).unwrap_or(0);
    let (mut anchored, mut has_old) = (chain.at, false);
    loop {
        while let Some(row) = reader.peek_checkpoint()? {
            if row.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.last_id > chain.at) {
                break;
            }
            check(row, &chain, &keys)?;
            reader.pass_checkpoint();
            anchored = chain.at;
            report.checkpoints += 1;
            report.not_anchored = 0;
        }
        let Some(row) = reader.next_row()? else { break };
        chain.due(row.id)?;
        let link = row.link.ok_or_else(|| format!("event {} isn't as this program writes it", row.id))?;
        chain.follow(&link)?;
        if link.id == 1 && link.event_type != EventType::SchemaMigrated.as_str() {
            return Err("event 1 isn't the making of the database: those before it were removed".to_owned().into());
        }
        has_old |= link.time.timestamp().plus(DAY) < now;
        if let Some(archiving) = &mut archiving {
            archiving.see(&link);
        }
        report.rows += 1;
        report.not_anchored += 1;
        if report.rows.is_multiple_of(STEP) {
            progress(report.rows, total);
        }
    }
    progress(report.rows, total);
    if let Some(CheckpointRow { id, checkpoint: Some(checkpoint) }) = reader.peek_checkpoint()? {
        let (of, at) = (checkpoint.last_id, chain.at);
        return Err(
            format!("checkpoint {id} is of event {of}, but the log ends with event {at}: it was cut short").into()
        );
    }
    // Archiving signs its event in the transaction that makes the anchor.
    if archiving.is_some_and(|archiving| archiving.event().is_none_or(|event| event > anchored)) {
        return Err("the anchor wasn't made by archiving: the events before it are missing".to_owned().into());
    }
    if report.checkpoints == 0 && has_old {
        return Err("there are events older than a day and no checkpoint".to_owned().into());
    }
    Ok(())
}

/// A checkpoint of the last event that was followed, or of none.
fn check(row: &CheckpointRow, chain: &Chain, keys: &[AuditKey]) -> std::result::Result<(), String> {
    let named = |what: String| format!("checkpoint {} {what}", row.id);
    let checkpoint = row.checkpoint.as_ref().ok_or_else(|| named("isn't as this program writes it".into()))?;
    if checkpoint.last_id < chain.at {
        return Err(named(format!("is of event {}, which one before it was past", checkpoint.last_id)));
    }
    chain.fits(checkpoint).and_then(|()| signed(checkpoint, keys)).map_err(named)
}

/// The audit keys, each by the private half that only the data key opens: a public half beside it proves nothing.
pub(super) fn open_keys(core: &Core, rows: &[KeyRow]) -> std::result::Result<Vec<AuditKey>, String> {
    let open = |row: &KeyRow| {
        let key = core.open_key(row).ok().filter(|key| key.public() == row.public);
        let key = key.ok_or_else(|| format!("the audit key {} isn't the one that is sealed in its row", row.kid))?;
        let public = PublicKey { kid: row.kid.clone(), bytes: key.public() };
        Ok(AuditKey { public, revoked_at: row.revoked_at })
    };
    rows.iter().map(open).collect()
}

/// The public halves of the audit keys that weren't revoked: the one that signs first, then the newest first.
///
/// # Errors
/// One of them isn't the one that is sealed in its row; trouble with the file.
pub fn public_keys(service: &Service) -> Result<PublicKeys> {
    let now: Timestamp = service.now();
    let (mut rows, current) =
        service.store.snapshot(|view| Ok((view.signing_keys()?, view.signing_key_at(KeyPurpose::Audit, now)?)))?;
    rows.retain(|row| row.purpose == KeyPurpose::Audit && row.revoked_at.is_none());
    rows.reverse();
    // A stable sort: only the one that signs moves.
    rows.sort_by_key(|row| current.as_ref().is_none_or(|current| current.kid != row.kid));
    let keys = open_keys(&service.core, &rows).map_err(Error::internal)?;
    Ok(PublicKeys(keys.into_iter().map(|key| key.public).collect()))
}

/// Signs a checkpoint of the event with the number `count`.
pub(super) fn sign(key: &SigningKey, count: i64, hash: [u8; 32], time: i64) -> Checkpoint {
    Checkpoint {
        last_id: count,
        count,
        hash,
        time,
        kid: key.kid().to_owned(),
        signature: key.sign_bytes(&Checkpoint::message(count, &hash, time)),
        anchor: false,
    }
}
