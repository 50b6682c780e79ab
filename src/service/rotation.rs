//! Signing keys changed: rotated with a soak, or revoked at once with all their tokens. A running server sees each at
//! its next check.

use super::access::Admin;
use super::keys::insert_key;
use super::{Call, Service, nonce};
use crate::error::{Error, Result};
use crate::model::audit::{EventType, NewEvent};
use crate::model::token::RevokeReason;
use crate::random;
use crate::store::{KeyPurpose, KeyRow};

/// How long a new key is published before it signs, in seconds: twice the JWKS' `max-age`.
pub const SOAK: i64 = 600;

/// How many token rows are looked at in one transaction.
const BATCH: i64 = 5000;

/// All keys there ever were, oldest first.
///
/// # Errors
/// Trouble with the file.
pub fn list(service: &Service, _: &Admin) -> Result<Vec<KeyRow>> {
    service.store.read(|view| view.signing_keys())
}

/// Makes the next token key: published at once, signing `soak` seconds from now. The one before signs until then, and
/// verifies until the last token that it can have signed has ended. Gives the new key's `kid`.
///
/// # Errors
/// `Conflict` where another key is still waiting to sign.
pub fn rotate(service: &Service, call: &Call, proof: &Admin, soak: i64) -> Result<String> {
    let occasion = service.occasion(call);
    let now = occasion.time.timestamp();
    // Whole seconds, of which the present one is partly over.
    let signs_from = now.plus(soak).plus(i64::from(soak > 0));
    let (seed, nonce) = (random::key()?, nonce()?);
    let policy = service.policy();
    let longest = policy.default_expiry.max(policy.admin_expiry).max(policy.service_expiry);
    let kid = service.write_as(proof, move |tx, core| {
        if let Some(kid) = tx.soaking_key(KeyPurpose::Token, now)? {
            return Err(Error::conflict(format!("key {kid} is still waiting to sign: rotate again once it does")));
        }
        if let Some(former) = tx.signing_key_at(KeyPurpose::Token, now)? {
            let last = tx.last_expiry()?.unwrap_or(now).max(signs_from.plus(longest));
            tx.retire_signing_key(&former.kid, signs_from, last)?;
            tx.append(NewEvent::of(EventType::SigningKeyRotated).with("kid", former.kid), occasion)?;
        }
        insert_key(tx, core, KeyPurpose::Token, &seed, nonce, signs_from, occasion)
    })?;
    service.refresh_ring()?;
    Ok(kid)
}

/// Makes the next audit key, which signs at once; checkpoints by the one before stay good. Gives its `kid`.
///
/// # Errors
/// Trouble with the file.
pub fn rotate_audit(service: &Service, call: &Call, proof: &Admin) -> Result<String> {
    let occasion = service.occasion(call);
    let now = occasion.time.timestamp();
    let (seed, nonce) = (random::key()?, nonce()?);
    service.write_as(proof, move |tx, core| {
        if let Some(former) = tx.signing_key_at(KeyPurpose::Audit, now)? {
            tx.retire_signing_key(&former.kid, now, now)?;
            tx.append(NewEvent::of(EventType::SigningKeyRotated).with("kid", former.kid), occasion)?;
        }
        insert_key(tx, core, KeyPurpose::Audit, &seed, nonce, now, occasion)
    })
}

/// Revokes a compromised key at once. None of a token key's tokens counts from here on. Where it was the one that signs,
/// another takes over; where it was to take over, the one that signs goes on. The rows of its tokens are marked afterwards,
/// in small batches; gives how many were live. Of an audit key, checkpoints that it signed before stand.
///
/// # Errors
/// `NotFound`; `Conflict` for the audit key that signs.
pub fn revoke(service: &Service, call: &Call, proof: &Admin, kid: &str) -> Result<u64> {
    let occasion = service.occasion(call);
    let now = occasion.time.timestamp();
    let (seed, nonce) = (random::key()?, nonce()?);
    let named = kid.to_owned();
    let last = service.write_as(proof, move |tx, core| {
        let key = tx.signing_key(&named)?.ok_or_else(|| Error::not_found("no such key"))?;
        let is_audit = key.purpose == KeyPurpose::Audit;
        if is_audit && tx.signing_key_at(KeyPurpose::Audit, now)?.is_none_or(|signs| signs.kid == named) {
            return Err(Error::conflict("this audit key signs: make the next with 'keys rotate --audit' first"));
        }
        if tx.revoke_signing_key(&named, now)? {
            tx.append(NewEvent::of(EventType::SigningKeyRevoked).with("kid", named.as_str()), occasion)?;
        }
        if is_audit {
            return Ok(0);
        }
        if key.signs_from > now {
            // It was to relieve another.
            tx.sign_on(KeyPurpose::Token, now)?;
        }
        if tx.signing_key_at(KeyPurpose::Token, now)?.is_none() {
            match tx.soaking_key(KeyPurpose::Token, now)? {
                Some(waiting) => tx.sign_from(&waiting, now)?,
                None => insert_key(tx, core, KeyPurpose::Token, &seed, nonce, now, occasion).map(drop)?,
            }
        }
        tx.last_token_place()
    })?;
    service.refresh_ring()?;

    let (mut after, mut total) = (0, 0);
    while after < last {
        let (from, to, kid) = (after, after + BATCH, kid.to_owned());
        total += service.write_as(proof, move |tx, _| {
            let count = tx.revoke_tokens_of_key(&kid, from, to, now)?;
            if count > 0 {
                let event = NewEvent::of(EventType::TokensRevoked)
                    .with("count", count)
                    .with("reason", RevokeReason::KeyRevoked.as_str());
                tx.append(event, occasion)?;
            }
            Ok(count)
        })?;
        after = to;
    }
    Ok(total)
}
