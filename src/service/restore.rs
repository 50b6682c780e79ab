//! A new epoch: what a backup must not bring back to life, when it becomes the database again. Works on a copy that
//! nobody else knows of.

use super::access::Admin;
use super::keys::insert_key;
use super::{Call, Readiness, Service, nonce};
use crate::crypto::totp;
use crate::error::{Error, Result};
use crate::model::audit::{EventType, NewEvent};
use crate::model::time::Timestamp;
use crate::model::token::RevokeReason;
use crate::random;
use crate::store::{KeyPurpose, Store};

/// How many rows are looked at in one transaction.
const BATCH: i64 = 10_000;

/// The setting that counts epochs.
const EPOCH: &str = "epoch";

/// Opens a verified copy of a backup to change it.
///
/// # Errors
/// `Conflict` where the clock is behind what is in it; trouble with the file.
pub fn open(verified: &Service, store: Store) -> Result<Service> {
    let service = verified.on(store)?;
    if service.readiness() == Readiness::ClockBehind {
        let newest = service.store.read(|view| view.newest_event_time())?.unwrap_or(Timestamp::new(0));
        return Err(Error::conflict(format!(
            "the clock says {}, well before the newest event in the backup, {newest}: set the clock first",
            service.now()
        )));
    }
    service.store.drop_seal()?;
    Ok(service)
}

/// Begins a new epoch: no token, no token key and no one-time code of the backup counts any more, and nothing that
/// waited to be confirmed is left. `progress` is told how many rows are done, and how many there are.
///
/// # Errors
/// Trouble with the file or the system's randomness; the copy is of no use then.
pub fn begin_epoch(service: &Service, call: &Call, proof: &Admin, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let occasion = service.occasion(call);
    let now = occasion.time.timestamp();
    let (seed, nonce) = (random::key()?, nonce()?);
    service.write_as(proof, move |tx, core| {
        let keys = tx.signing_keys()?;
        for key in keys.iter().filter(|key| key.purpose == KeyPurpose::Token) {
            if tx.revoke_signing_key(&key.kid, now)? {
                tx.append(NewEvent::of(EventType::SigningKeyRevoked).with("kid", key.kid.as_str()), occasion)?;
            }
        }
        insert_key(tx, core, KeyPurpose::Token, &seed, nonce, now, occasion)?;
        let epoch = tx.setting(EPOCH)?.and_then(|epoch| str::from_utf8(&epoch).ok()?.parse::<u64>().ok());
        tx.put_setting(EPOCH, (epoch.unwrap_or(0) + 1).to_string().as_bytes())
    })?;

    let (tokens, accounts) =
        service.store.snapshot(|view| Ok((view.last_token_place()?, view.last_account_place()?)))?;
    let total = u64::try_from(tokens.saturating_add(accounts)).unwrap_or(0);
    let (mut done, mut revoked) = (0, 0);
    for after in (0..tokens).step_by(BATCH as usize) {
        revoked += service.write_as(proof, move |tx, _| tx.revoke_restored_tokens(after, after + BATCH, now))?;
        done += BATCH as u64;
        progress(done.min(total), total);
    }
    // The next step's code is accepted already, and may have been used since the backup was made.
    let step = totp::step_at(now) + 1;
    for after in (0..accounts).step_by(BATCH as usize) {
        service.write_as(proof, move |tx, _| tx.use_up_codes(after, after + BATCH, step))?;
        done += BATCH as u64;
        progress(done.min(total), total);
    }
    if revoked > 0 {
        let event = NewEvent::of(EventType::TokensRevoked)
            .with("count", revoked)
            .with("reason", RevokeReason::Restored.as_str());
        service.write_as(proof, move |tx, _| tx.append(event.clone(), occasion))?;
    }
    Ok(())
}

/// Notes both times in the log, and anchors it. After this nothing more is to be changed.
///
/// # Errors
/// Trouble with the file.
pub fn finish(service: Service, call: &Call, proof: &Admin, made_at: Timestamp) -> Result<()> {
    let occasion = service.occasion(call);
    service.ensure_signing_keys()?;
    service.write_as(proof, move |tx, _| {
        let event = NewEvent::of(EventType::DatabaseRestored).with("backup_time", made_at.to_string());
        tx.append(event, occasion)
    })?;
    service.checkpoint()?;
    if !service.store.empty_log()? {
        return Err(Error::internal("something has the copy open"));
    }
    Ok(())
}
