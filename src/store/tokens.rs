//! Tokens: every one ever issued and not yet pruned. A check is one statement over one row and what hangs on it.

use super::accounts::roles;
use super::{Tx, View, statements};
use crate::error::{Error, Result};
use crate::model::account::{AccountId, AccountStatus, AccountType, RoleName, Username};
use crate::model::time::Timestamp;
use crate::model::token::{Audience, Jti, RevokeReason, TokenRow};

/// A token about to be issued.
#[derive(Debug, Clone)]
pub struct NewTokenRow {
    /// Its id.
    pub jti: Jti,
    /// Whose it is.
    pub account: AccountId,
    /// The key it is signed with.
    pub kid: String,
    /// Whom it is for.
    pub audience: Audience,
    /// The token it was got with and dies with.
    pub parent: Option<Jti>,
    /// `iat`
    pub issued_at: Timestamp,
    /// `exp`
    pub expires_at: Timestamp,
    /// `auth_time`
    pub auth_time: Timestamp,
    /// Of the token itself.
    pub digest: [u8; 16],
}

/// Everything the database has to say of a token.
pub struct TokenState {
    /// Whose it is.
    pub account: AccountId,
    /// The account's name.
    pub username: Username,
    /// The account's type.
    pub account_type: AccountType,
    /// The account's status.
    pub status: AccountStatus,
    /// Roles held now, sorted.
    pub roles: Vec<RoleName>,
    /// The key it was signed with.
    pub kid: String,
    /// Whom it is for.
    pub audience: Audience,
    /// The token it dies with.
    pub parent: Option<Jti>,
    /// `iat`
    pub issued_at: Timestamp,
    /// `exp`
    pub expires_at: Timestamp,
    /// Of the token that was issued: what it said besides can't be said anew. None where the row doesn't say.
    pub digest: Option<[u8; 16]>,
    /// Whether it was revoked, or a token it dies with, or the key that such a one was signed with.
    pub revoked: bool,
    /// When it, or the token it dies with, comes to the end of an overlap.
    pub dies_at: Option<Timestamp>,
    /// Whether its key was revoked.
    pub key_revoked: bool,
    /// Until when its key verifies; without end where there is none.
    pub key_verify_until: Option<Timestamp>,
}

statements! {
    // The names are short because the text is what the statement is found by, at every check.
    STATE Search = "SELECT a.uuid, a.username, a.account_type, a.status,
        (SELECT group_concat(role, ' ') FROM account_roles WHERE account_id = a.id),
        t.kid, t.audience, t.parent_jti, t.issued_at, t.expires_at,
        t.revoked_at IS NOT NULL OR (t.parent_jti IS NOT NULL AND EXISTS (
            WITH RECURSIVE line (jti) AS (
                VALUES (t.parent_jti)
                UNION SELECT above.parent_jti FROM line JOIN token_revocation AS above ON above.jti = line.jti)
            SELECT 1 FROM line JOIN token_revocation AS above ON above.jti = line.jti
                JOIN signing_keys AS signed ON signed.kid = above.kid
            WHERE above.revoked_at IS NOT NULL OR signed.revoked_at IS NOT NULL)),
        k.revoked_at IS NOT NULL, k.verify_until,
        min(coalesce(t.dies_at, p.dies_at), coalesce(p.dies_at, t.dies_at)), t.digest
        FROM token_revocation AS t
        JOIN accounts AS a ON a.id = t.account_id
        JOIN signing_keys AS k ON k.kid = t.kid
        LEFT JOIN token_revocation AS p ON p.jti = t.parent_jti
        WHERE t.jti = ?1";
    INSERT Search = "INSERT INTO token_revocation
        (jti, account_id, kid, audience, parent_jti, issued_at, expires_at, auth_time, digest, dies_at)
        SELECT ?1, id, ?3, ?4, ?5, ?6, ?7, ?8, ?9, (SELECT dies_at FROM token_revocation WHERE jti = ?5)
        FROM accounts WHERE uuid = ?2";
    REVOKE Search = "UPDATE token_revocation SET revoked_at = ?2, revoke_reason = ?3
        WHERE jti = ?1 AND revoked_at IS NULL";
    LIST Walk = "SELECT id, jti, audience, issued_at, expires_at, dies_at, revoked_at, revoke_reason
        FROM token_revocation WHERE account_id = (SELECT id FROM accounts WHERE uuid = ?1) AND id < ?2
        ORDER BY id DESC LIMIT ?3";
    REVOKE_ALL Search = "UPDATE token_revocation SET revoked_at = ?2, revoke_reason = ?3
        WHERE account_id = (SELECT id FROM accounts WHERE uuid = ?1) AND revoked_at IS NULL
          AND expires_at > ?2 AND (dies_at IS NULL OR dies_at > ?2) AND jti <> coalesce(?4, '')";
    STAND_ALONE Search = "UPDATE token_revocation SET parent_jti = NULL
        WHERE jti = ?1 AND parent_jti IS NOT NULL";
    IN_OVERLAP Search = "SELECT jti FROM token_revocation
        WHERE account_id = (SELECT id FROM accounts WHERE uuid = ?1) AND audience = ?2 AND parent_jti IS NULL
          AND revoked_at IS NULL AND dies_at > ?3 ORDER BY id";
    CURRENT_SYSTEM_TOKEN Search = "SELECT jti FROM system_tokens
        WHERE account_id = (SELECT id FROM accounts WHERE uuid = ?1) AND audience = ?2";
    SET_SYSTEM_TOKEN Search = "INSERT INTO system_tokens (account_id, audience, jti)
        SELECT id, ?2, ?3 FROM accounts WHERE uuid = ?1
        ON CONFLICT (account_id, audience) DO UPDATE SET jti = excluded.jti";
    FORGET_SYSTEM_TOKENS Search = "DELETE FROM system_tokens
        WHERE account_id = (SELECT id FROM accounts WHERE uuid = ?1)";
    REVOKE_BY_KEY Search = "WITH RECURSIVE gone (jti) AS (
            SELECT jti FROM token_revocation WHERE id > ?1 AND id <= ?2 AND kid = ?3 AND expires_at > ?4
            UNION SELECT token_revocation.jti FROM gone JOIN token_revocation ON token_revocation.parent_jti = gone.jti)
        UPDATE token_revocation
        SET revoked_at = ?4, revoke_reason = CASE kid WHEN ?3 THEN 'key_revoked' ELSE 'parent_revoked' END
        WHERE jti IN (SELECT jti FROM gone) AND revoked_at IS NULL AND expires_at > ?4";
    LAST_ID Search = "SELECT max(id) FROM token_revocation";
    PRUNE Search = "DELETE FROM token_revocation WHERE id IN (
        SELECT id FROM token_revocation WHERE expires_at <= ?1 ORDER BY expires_at, id DESC LIMIT ?2)";
    LET_DIE Search = "WITH RECURSIVE gone (jti) AS (
            VALUES (?1)
            UNION SELECT token_revocation.jti FROM gone JOIN token_revocation ON token_revocation.parent_jti = gone.jti)
        UPDATE token_revocation SET dies_at = ?2
        WHERE jti IN (SELECT jti FROM gone) AND revoked_at IS NULL AND (dies_at IS NULL OR dies_at > ?2)";
    REVOKE_DESCENDANTS Search = "WITH RECURSIVE gone (jti) AS (
            SELECT jti FROM token_revocation WHERE parent_jti = ?1
            UNION SELECT token_revocation.jti FROM gone JOIN token_revocation ON token_revocation.parent_jti = gone.jti)
        UPDATE token_revocation SET revoked_at = ?2, revoke_reason = 'parent_revoked'
        WHERE jti IN (SELECT jti FROM gone) AND revoked_at IS NULL";
}

impl View<'_> {
    /// Everything there is to say of a token; none for one that was never issued, or is pruned.
    pub fn token_state(&self, jti: Jti) -> Result<Option<TokenState>> {
        self.row(STATE, [jti], |row| {
            Ok(TokenState {
                account: row.get(0)?,
                username: row.get(1)?,
                account_type: row.get(2)?,
                status: row.get(3)?,
                roles: roles(row, 4)?,
                kid: row.get(5)?,
                audience: row.get(6)?,
                parent: row.get(7)?,
                issued_at: row.get(8)?,
                expires_at: row.get(9)?,
                revoked: row.get(10)?,
                key_revoked: row.get(11)?,
                key_verify_until: row.get(12)?,
                dies_at: row.get(13)?,
                digest: row.get(14)?,
            })
        })
    }

    /// At most `limit` tokens of an account, newest first, each with its place; beginning before the place `before`.
    pub fn list_tokens(
        &self,
        account: AccountId,
        before: i64,
        limit: u32,
    ) -> Result<Vec<(i64, TokenRow, Option<Timestamp>)>> {
        self.rows(LIST, (account, before, limit), |row| {
            let token = TokenRow {
                jti: row.get(1)?,
                audience: row.get(2)?,
                issued_at: row.get(3)?,
                expires_at: row.get(4)?,
                revoked_at: row.get(6)?,
                revoke_reason: row.get(7)?,
            };
            Ok((row.get(0)?, token, row.get(5)?))
        })
    }

    /// The place of the newest token.
    pub fn last_token_place(&self) -> Result<i64> {
        Ok(self.row(LAST_ID, [], |row| row.get(0))?.flatten().unwrap_or(0))
    }

    /// The former tokens of a system account for this audience that live on in an overlap at `now`.
    pub fn tokens_in_overlap(&self, account: AccountId, audience: &Audience, now: Timestamp) -> Result<Vec<Jti>> {
        self.rows(IN_OVERLAP, (account, audience, now), |row| row.get(0))
    }

    /// The token that was last issued to a system account for this audience.
    pub fn current_system_token(&self, account: AccountId, audience: &Audience) -> Result<Option<Jti>> {
        self.row(CURRENT_SYSTEM_TOKEN, (account, audience), |row| row.get(0))
    }
}

impl Tx<'_> {
    /// Remembers a token; it counts from here on.
    ///
    /// # Errors
    /// `Internal` where the account, the key or the parent isn't there.
    pub fn insert_token(&self, new: &NewTokenRow) -> Result<()> {
        let values = (
            new.jti,
            new.account,
            &new.kid,
            &new.audience,
            new.parent,
            new.issued_at,
            new.expires_at,
            new.auth_time,
            new.digest,
        );
        match self.run(INSERT, values)? {
            1 => Ok(()),
            _ => Err(Error::internal("a token for an account that is not there")),
        }
    }

    /// Revokes a token and every token got with it; `false` where it was revoked before, or isn't there.
    pub fn revoke_token(&self, jti: Jti, reason: RevokeReason, now: Timestamp) -> Result<bool> {
        let revoked = self.run(REVOKE, (jti, now, reason))? == 1;
        if revoked {
            self.run(REVOKE_DESCENDANTS, (jti, now))?;
        }
        Ok(revoked)
    }

    /// Revokes an account's live tokens but `except`, which from here on dies with no other; gives how many they were.
    pub fn revoke_all_tokens(
        &self,
        account: AccountId,
        reason: RevokeReason,
        except: Option<Jti>,
        now: Timestamp,
    ) -> Result<u64> {
        if let Some(spared) = except {
            self.run(STAND_ALONE, [spared])?;
        }
        self.run(REVOKE_ALL, (account, now, reason, except)).map(|count| count as u64)
    }

    /// Remembers which token of a system account is the current one for its audience.
    pub fn set_system_token(&self, account: AccountId, audience: &Audience, jti: Jti) -> Result<()> {
        self.run(SET_SYSTEM_TOKEN, (account, audience, jti)).map(drop)
    }

    /// Forgets which tokens of a system account are current.
    pub(super) fn forget_system_tokens(&self, account: AccountId) -> Result<()> {
        self.run(FORGET_SYSTEM_TOKENS, [account]).map(drop)
    }

    /// Removes at most `limit` tokens that had expired at `before`, the longest expired first; gives how many.
    pub fn prune_tokens(&self, before: Timestamp, limit: u32) -> Result<u64> {
        self.run(PRUNE, (before, limit)).map(|count| count as u64)
    }

    /// Marks the live tokens of a revoked key, of those after the place `after` up to `to`, and every token that was
    /// got with one of them, whatever its key; gives how many.
    pub fn revoke_tokens_of_key(&self, kid: &str, after: i64, to: i64, now: Timestamp) -> Result<u64> {
        self.run(REVOKE_BY_KEY, (after, to, kid, now)).map(|count| count as u64)
    }

    /// Lets a token, and those got with it, live until `at` and no longer.
    pub fn let_die(&self, jti: Jti, at: Timestamp) -> Result<()> {
        self.run(LET_DIE, (jti, at)).map(drop)
    }
}
