//! Issuing a token: from inside the transaction that decides on it.

use super::Core;
use crate::crypto::jwt;
use crate::error::Result;
use crate::model::account::{AccountId, AccountType, RoleName};
use crate::model::time::Timestamp;
use crate::model::token::{Amr, Audience, Claims, IssuedToken, Jti};
use crate::store::{KeyPurpose, NewTokenRow, Tx};

/// What a token is to say, apart from what follows from it.
pub(super) struct Grant {
    pub jti: Jti,
    pub account: AccountId,
    pub account_type: AccountType,
    pub roles: Vec<RoleName>,
    pub audience: Audience,
    pub auth_time: Timestamp,
    pub amr: Vec<Amr>,
    /// The token this one dies with.
    pub parent: Option<Jti>,
    /// It doesn't live longer than this.
    pub not_after: Option<Timestamp>,
}

/// Signs a token with the key in force and stores its row: it counts once the transaction is committed.
pub(super) fn issue(tx: &Tx<'_>, core: &Core, grant: Grant, now: Timestamp) -> Result<IssuedToken> {
    let key = core.signer(tx, KeyPurpose::Token, now)?;
    let lifetime = core.policy.lifetime(grant.account_type, &grant.roles);
    let expires_at = now.plus(lifetime).min(grant.not_after.unwrap_or(Timestamp::new(i64::MAX)));
    let claims = Claims {
        issuer: core.policy.issuer.as_str().to_owned(),
        subject: grant.account,
        audience: grant.audience,
        issued_at: now,
        expires_at,
        jti: grant.jti,
        roles: grant.roles,
        auth_time: grant.auth_time,
        amr: grant.amr,
    };
    let token = key.sign_claims(&claims)?;
    tx.insert_token(&NewTokenRow {
        jti: claims.jti,
        account: claims.subject,
        kid: key.kid().to_owned(),
        audience: claims.audience.clone(),
        parent: grant.parent,
        issued_at: now,
        expires_at,
        auth_time: claims.auth_time,
        digest: jwt::row_digest(&key.public(), token.expose()),
    })?;
    Ok(IssuedToken { token, expires_at })
}
