//! Tokens of accounts: issued to system accounts, listed, revoked one by one or all.

use super::access::{Admin, AdminOrOwner, Session};
use super::issue::{Grant, issue};
use super::living::living;
use super::{Call, Service};
use crate::error::{Error, Result};
use crate::model::account::{AccountId, AccountStatus, AccountType, Listing, RoleName};
use crate::model::audit::{EventType, NewEvent, Occasion, Party};
use crate::model::time::Timestamp;
use crate::model::token::{
    Amr, Audience, IssueServiceToken, IssuedToken, Jti, ListTokens, RevokeReason, Revoked, TokenRow,
};
use crate::random;
use crate::store::Tx;

/// `POST /v1/token/issue`: a system account's next token; the former one for that audience is revoked, or dies after
/// the overlap. Without an overlap, what is left of earlier ones ends, too: whoever asks for that means all.
///
/// # Errors
/// `NotFound`; `Conflict` for a human or suspended account.
pub fn issue_service(service: &Service, call: &Call, proof: &Admin, input: IssueServiceToken) -> Result<IssuedToken> {
    let occasion = service.occasion(call);
    let now = occasion.time.timestamp();
    let jti = Jti::new(random::uuid()?);
    let audience = input.audience.unwrap_or_else(|| service.policy().issuer.clone());
    let admin = proof.party();
    service.write_as(proof, move |tx, core| {
        let account = living(tx.account(input.account)?)?;
        if account.account_type == AccountType::Human {
            return Err(Error::conflict("tokens are issued to system accounts: people log in"));
        }
        if account.status != AccountStatus::Active {
            return Err(Error::conflict("the account is suspended"));
        }
        let party = Party { id: account.id, username: account.username.clone() };
        if let Some(former) = tx.current_system_token(account.id, &audience)? {
            if input.overlap > 0 {
                tx.let_die(former, now.plus(i64::from(input.overlap)))?;
            } else {
                revoke_one(tx, former, &party, &audience, admin.clone(), RevokeReason::Rotated, occasion)?;
            }
        }
        if input.overlap == 0 {
            for former in tx.tokens_in_overlap(account.id, &audience, now)? {
                revoke_one(tx, former, &party, &audience, admin.clone(), RevokeReason::Rotated, occasion)?;
            }
        }
        let grant = Grant {
            jti,
            account: account.id,
            account_type: account.account_type,
            roles: core.policy.roles_for_token(&account.roles, false),
            audience: audience.clone(),
            auth_time: now,
            amr: vec![Amr::Svc],
            parent: None,
            not_after: None,
        };
        let issued = issue(tx, core, grant, now)?;
        tx.set_system_token(account.id, &audience, jti)?;
        let event = NewEvent::of(EventType::TokenIssued)
            .by(admin.clone())
            .to(Some(party))
            .with("jti", jti.to_string())
            .with("audience", audience.as_str());
        tx.append(event, occasion)?;
        Ok(issued)
    })
}

/// `DELETE /v1/token/{jti}`: also if it was revoked already, which makes no event.
///
/// # Errors
/// `NotFound` for a token that isn't there, or is another's and the caller no admin.
pub fn revoke(service: &Service, call: &Call, proof: &Session, jti: Jti) -> Result<()> {
    let occasion = service.occasion(call);
    let (caller, as_admin) = (proof.caller().clone(), proof.is_admin());
    service.write_as(proof, move |tx, _| {
        // The role is looked at again here, where it is relied on.
        let held = tx.account(caller.account)?.map(|account| account.roles).unwrap_or_default();
        let as_admin = as_admin && held.iter().any(RoleName::is_admin);
        let state = tx.token_state(jti)?.filter(|state| as_admin || state.account == caller.account);
        let state = state.ok_or_else(|| Error::not_found("no such token"))?;
        let owner = Party { id: state.account, username: state.username };
        revoke_one(tx, jti, &owner, &state.audience, Some(caller.party()), RevokeReason::Revoked, occasion)
    })
}

/// The same for the maintenance tool: any token.
///
/// # Errors
/// `NotFound`.
pub fn revoke_as_admin(service: &Service, call: &Call, proof: &Admin, jti: Jti) -> Result<()> {
    let occasion = service.occasion(call);
    let admin = proof.party();
    service.write_as(proof, move |tx, _| {
        let state = tx.token_state(jti)?.ok_or_else(|| Error::not_found("no such token"))?;
        let owner = Party { id: state.account, username: state.username };
        revoke_one(tx, jti, &owner, &state.audience, admin.clone(), RevokeReason::Revoked, occasion)
    })
}

/// How many rows are removed in one transaction.
const PRUNE_BATCH: u32 = 500;

impl Service {
    /// Removes the rows of tokens that expired more than `kept` seconds ago, in small batches, each with its event;
    /// gives how many there were. Housekeeping: the server does it by itself.
    ///
    /// # Errors
    /// Trouble with the file; what was removed before stays removed.
    pub fn prune_expired(&self, kept: i64) -> Result<u64> {
        let mut total = 0;
        loop {
            let occasion = self.occasion(&Call::default());
            let expired_before = occasion.time.timestamp().plus(-kept);
            let pruned = self.write(move |tx, _| {
                let count = tx.prune_tokens(expired_before, PRUNE_BATCH)?;
                if count > 0 {
                    let event = NewEvent::of(EventType::TokensPruned);
                    tx.append(event.with("count", count).with("reason", "expired"), occasion)?;
                }
                Ok(count)
            })?;
            total += pruned;
            if pruned < u64::from(PRUNE_BATCH) {
                return Ok(total);
            }
        }
    }
}

/// `GET /v1/accounts/{id}/tokens`: newest first.
///
/// # Errors
/// `NotFound`; `InvalidRequest` for a cursor that isn't ours.
pub fn list(service: &Service, _: &Call, _: &AdminOrOwner, input: ListTokens) -> Result<Listing<TokenRow>> {
    let before = input.page.before()?;
    let limit = input.page.limit;
    let now = service.now();
    let mut rows = service.store.snapshot(|view| {
        living(view.account(input.account)?)?;
        view.list_tokens(input.account, before, limit + 1)
    })?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|(place, ..)| place.to_string());
    let shown = |(_, mut row, dies_at): (i64, TokenRow, Option<Timestamp>)| {
        if let Some(at) = dies_at {
            row.expires_at = row.expires_at.min(at);
            if row.revoked_at.is_none() && at <= now {
                (row.revoked_at, row.revoke_reason) = (dies_at, Some(RevokeReason::Rotated));
            }
        }
        row
    };
    Ok(Listing { rows: rows.into_iter().map(shown).collect(), next })
}

/// `DELETE /v1/accounts/{id}/tokens`.
///
/// # Errors
/// `NotFound`.
pub fn revoke_all_of(service: &Service, call: &Call, proof: &AdminOrOwner, account: AccountId) -> Result<Revoked> {
    let occasion = service.occasion(call);
    let caller = proof.party();
    service.write_as(proof, move |tx, _| {
        let account = living(tx.account(account)?)?;
        let party = Party { id: account.id, username: account.username };
        revoke_all(tx, &party, caller.clone(), RevokeReason::RevokedAll, None, occasion).map(Revoked)
    })
}

/// Revokes one token, with its event, unless it was revoked before.
fn revoke_one(
    tx: &Tx<'_>,
    jti: Jti,
    owner: &Party,
    audience: &Audience,
    actor: Option<Party>,
    reason: RevokeReason,
    occasion: Occasion,
) -> Result<()> {
    if !tx.revoke_token(jti, reason, occasion.time.timestamp())? {
        return Ok(());
    }
    let event = NewEvent::of(EventType::TokenRevoked)
        .by(actor)
        .to(Some(owner.clone()))
        .with("jti", jti.to_string())
        .with("audience", audience.as_str())
        .with("reason", reason.as_str());
    tx.append(event, occasion)
}

/// Revokes an account's live tokens but one: one event for all of them, and none where there were none.
pub(super) fn revoke_all(
    tx: &Tx<'_>,
    owner: &Party,
    actor: Option<Party>,
    reason: RevokeReason,
    except: Option<Jti>,
    occasion: Occasion,
) -> Result<u64> {
    let count = tx.revoke_all_tokens(owner.id, reason, except, occasion.time.timestamp())?;
    if count > 0 {
        let event = NewEvent::of(EventType::TokensRevoked)
            .by(actor)
            .to(Some(owner.clone()))
            .with("count", count)
            .with("reason", reason.as_str());
        tx.append(event, occasion)?;
    }
    Ok(count)
}
