//! Whether a token is good right now: the hot path. Signature first, then the token's row, always.

use tracing::debug;

use super::Service;
use crate::crypto::jwt::{self, TokenFault};
use crate::error::Result;
use crate::model::account::{AccountId, AccountStatus, AccountType, RoleName, Username};
use crate::model::audit::Party;
use crate::model::time::Timestamp;
use crate::model::token::{Amr, Audience, Claims, Jti, ValidToken};
use crate::secret::BearerToken;
use crate::store::TokenState;

/// The bearer of a token that is good right now.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose token it is.
    pub account: AccountId,
    /// The account's name today.
    pub username: Username,
    /// Person or program.
    pub account_type: AccountType,
    /// Roles in the token and still held, sorted.
    pub roles: Vec<RoleName>,
    /// The token's id.
    pub jti: Jti,
    /// Whom it is for.
    pub audience: Audience,
    /// When it ends: with its `exp`, or with an overlap before that.
    pub expires_at: Timestamp,
    /// When a credential was last checked.
    pub auth_time: Timestamp,
    /// How.
    pub amr: Vec<Amr>,
    /// The token this one dies with.
    pub parent: Option<Jti>,
}

impl Caller {
    /// The account as an event names it.
    pub fn party(&self) -> Party {
        Party { id: self.account, username: self.username.clone() }
    }

    /// What a validation tells.
    pub fn to_valid_token(&self) -> ValidToken {
        ValidToken {
            subject: self.account,
            username: self.username.clone(),
            account_type: self.account_type,
            roles: self.roles.clone(),
            audience: self.audience.clone(),
            expires_at: self.expires_at,
            jti: self.jti,
        }
    }
}

/// Checks a token in the order of the design: length, segments, header bytes, signature, claims, then the database.
/// `None` is a bad token, whatever the reason; the reason is in the debug log.
///
/// # Errors
/// Trouble with the file; a token is never good, or bad, because of it.
pub(super) fn check(service: &Service, token: &BearerToken) -> Result<Option<Caller>> {
    let text = token.expose();
    let now = service.now();
    let issuer = service.policy().issuer.as_str();
    let mut ring = service.ring();
    let mut checked = jwt::check(text, &ring.keys, issuer, now, &service.signatures);
    if matches!(checked, Err(TokenFault::UnknownHeader)) {
        // Also where another thread was quicker to read the keys again.
        service.refresh_ring()?;
        ring = service.ring();
        checked = jwt::check(text, &ring.keys, issuer, now, &service.signatures);
    }
    let checked = match checked {
        Ok(checked) => checked,
        Err(fault) => {
            if matches!(fault, TokenFault::UnknownHeader) {
                debug!(reason = %fault, header = %jwt::diagnose(text), "token refused");
            } else {
                debug!(reason = %fault, "token refused");
            }
            return Ok(None);
        }
    };
    let Some(state) = service.store.read(|view| view.token_state(checked.claims.jti))? else {
        debug!(reason = "never issued, or pruned", "token refused");
        return Ok(None);
    };
    if let Some(reason) = refusal(&checked, &state, now) {
        debug!(reason, jti = %checked.claims.jti, "token refused");
        return Ok(None);
    }
    let Claims { jti, roles, audience, auth_time, amr, expires_at, .. } = checked.claims;
    Ok(Some(Caller {
        account: state.account,
        username: state.username,
        account_type: state.account_type,
        roles: roles.into_iter().filter(|role| state.roles.contains(role)).collect(),
        jti,
        audience,
        expires_at: state.dies_at.map_or(expires_at, |at| at.min(expires_at)),
        auth_time,
        amr,
        parent: state.parent,
    }))
}

/// What the database has against a token whose signature and claims are in order.
fn refusal(checked: &jwt::Checked<'_>, state: &TokenState, now: Timestamp) -> Option<&'static str> {
    let claims = &checked.claims;
    // The digest alone would do; the others say what is wrong where one of them is.
    let same = state.digest.is_none_or(|digest| digest == checked.digest)
        && state.account == claims.subject
        && state.kid == checked.kid
        && state.audience == claims.audience
        && state.issued_at == claims.issued_at
        && state.expires_at == claims.expires_at;
    if !same {
        return Some("the row of its jti says otherwise");
    }
    standing(state, now)
}

/// What the database has against a token by now, whatever its claims.
pub(super) fn standing(state: &TokenState, now: Timestamp) -> Option<&'static str> {
    if state.revoked {
        Some("revoked")
    } else if state.dies_at.is_some_and(|at| at <= now) {
        Some("its overlap with the next one is over")
    } else if state.key_revoked {
        Some("its key was revoked")
    } else if state.key_verify_until.is_some_and(|until| until <= now) {
        Some("its key no longer verifies")
    } else if state.status != AccountStatus::Active {
        Some("its account is not active")
    } else if state.expires_at <= now {
        Some("expired")
    } else {
        None
    }
}
