//! Signing keys, for tokens and for audit checkpoints, their private halves sealed.

use rusqlite::Row;

use super::accounts::sealed;
use super::{Tx, View, statements};
use crate::error::Result;
use crate::model::time::Timestamp;
use crate::model::words;
use crate::secret::Sealed;

words! {
    /// What a key signs.
    KeyPurpose { Token = "token", Audit = "audit" }
}

/// A signing key as it is stored.
pub struct KeyRow {
    /// RFC 7638 thumbprint.
    pub kid: String,
    /// What it signs.
    pub purpose: KeyPurpose,
    /// The public half.
    pub public: [u8; 32],
    /// The sealed 32-byte seed (RFC 8032, 5.1.5).
    pub private: Sealed,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when it signs.
    pub signs_from: Timestamp,
    /// From when it no longer signs.
    pub retired_at: Option<Timestamp>,
    /// From when it no longer verifies.
    pub verify_until: Option<Timestamp>,
    /// When it was revoked, and verifies nothing from then on.
    pub revoked_at: Option<Timestamp>,
}

impl KeyRow {
    /// Whether what it signed counts at `now`.
    pub fn verifies(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.verify_until.is_none_or(|until| now < until)
    }

    /// Whether it may sign at `now`.
    pub fn signs(&self, now: Timestamp) -> bool {
        self.verifies(now) && self.signs_from <= now && self.retired_at.is_none_or(|at| now < at)
    }
}

macro_rules! columns {
    () => {
        "SELECT kid, purpose, public_key, private_key_enc, private_key_nonce, created_at, signs_from, retired_at,
                verify_until, revoked_at FROM signing_keys "
    };
}

statements! {
    ALL Walk = concat!(columns!(), "ORDER BY id");
    BY_KID Search = concat!(columns!(), "WHERE kid = ?1");
    COUNT Walk = "SELECT count(*) FROM signing_keys";
    AT Walk = concat!(columns!(), "WHERE purpose = ?1 AND revoked_at IS NULL AND signs_from <= ?2
        AND (retired_at IS NULL OR retired_at > ?2) AND (verify_until IS NULL OR verify_until > ?2)
        ORDER BY signs_from DESC, id DESC LIMIT 1");
    NEXT Walk = concat!(columns!(), "WHERE purpose = ?1 AND revoked_at IS NULL AND signs_from > ?2
        AND (retired_at IS NULL OR retired_at > ?2) ORDER BY signs_from, id LIMIT 1");
    SOAKING Walk = "SELECT kid FROM signing_keys
        WHERE purpose = ?1 AND revoked_at IS NULL AND signs_from > ?2 ORDER BY id LIMIT 1";
    LAST_EXPIRY Search = "SELECT max(expires_at) FROM token_revocation";
    RETIRE Search = "UPDATE signing_keys SET retired_at = ?2, verify_until = ?3 WHERE kid = ?1";
    REVOKE Search = "UPDATE signing_keys SET revoked_at = ?2 WHERE kid = ?1 AND revoked_at IS NULL";
    SIGN_FROM Search = "UPDATE signing_keys SET signs_from = ?2 WHERE kid = ?1";
    SIGN_ON Walk = "UPDATE signing_keys SET retired_at = NULL, verify_until = NULL
        WHERE purpose = ?1 AND revoked_at IS NULL AND retired_at > ?2";
    INSERT Search = "INSERT INTO signing_keys
        (kid, purpose, public_key, private_key_enc, private_key_nonce, created_at, signs_from)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
}

impl View<'_> {
    /// All keys there ever were, oldest first. There are few.
    pub fn signing_keys(&self) -> Result<Vec<KeyRow>> {
        self.rows(ALL, [], key)
    }

    /// One key.
    pub fn signing_key(&self, kid: &str) -> Result<Option<KeyRow>> {
        self.row(BY_KID, [kid], key)
    }

    /// How many keys there ever were: changes when there is another.
    pub fn signing_key_count(&self) -> Result<i64> {
        Ok(self.row(COUNT, [], |row| row.get(0))?.unwrap_or(0))
    }

    /// The key that signs at `now`: of several, the one that began last.
    pub fn signing_key_at(&self, purpose: KeyPurpose, now: Timestamp) -> Result<Option<KeyRow>> {
        self.row(AT, (purpose.as_str(), now), key)
    }

    /// The key that signs, for one who goes by `now`: in force then, or else the first that comes after. There may be
    /// none in force where a key was replaced at once while a write was waiting with its time, or where the clock was
    /// put back a little.
    pub fn signing_key_for(&self, purpose: KeyPurpose, now: Timestamp) -> Result<Option<KeyRow>> {
        match self.signing_key_at(purpose, now)? {
            None => self.row(NEXT, (purpose.as_str(), now), key),
            found => Ok(found),
        }
    }

    /// A key that is published and doesn't sign yet.
    pub fn soaking_key(&self, purpose: KeyPurpose, now: Timestamp) -> Result<Option<String>> {
        self.row(SOAKING, (purpose.as_str(), now), |row| row.get(0))
    }

    /// When the last of all tokens ends.
    pub fn last_expiry(&self) -> Result<Option<Timestamp>> {
        Ok(self.row(LAST_EXPIRY, [], |row| row.get(0))?.flatten())
    }
}

impl Tx<'_> {
    /// Stores a new key.
    pub fn insert_signing_key(&self, key: &KeyRow) -> Result<()> {
        let values = (
            &key.kid,
            key.purpose.as_str(),
            key.public,
            &key.private.ciphertext,
            key.private.nonce,
            key.created_at,
            key.signs_from,
        );
        self.run(INSERT, values).map(drop)
    }

    /// Says until when a key signs and verifies.
    pub fn retire_signing_key(&self, kid: &str, retired_at: Timestamp, verify_until: Timestamp) -> Result<()> {
        self.run(RETIRE, (kid, retired_at, verify_until)).map(drop)
    }

    /// Revokes a key: what it signed counts no more; `false` where it was revoked before.
    pub fn revoke_signing_key(&self, kid: &str, now: Timestamp) -> Result<bool> {
        Ok(self.run(REVOKE, (kid, now))? == 1)
    }

    /// Lets a key that would have been relieved go on signing.
    pub fn sign_on(&self, purpose: KeyPurpose, now: Timestamp) -> Result<()> {
        self.run(SIGN_ON, (purpose.as_str(), now)).map(drop)
    }

    /// Lets a key that waits sign from `now` on.
    pub fn sign_from(&self, kid: &str, now: Timestamp) -> Result<()> {
        self.run(SIGN_FROM, (kid, now)).map(drop)
    }
}

fn key(row: &Row<'_>) -> rusqlite::Result<KeyRow> {
    Ok(KeyRow {
        kid: row.get(0)?,
        purpose: KeyPurpose::from_word(row.get_ref(1)?.as_str()?).ok_or(rusqlite::Error::InvalidQuery)?,
        public: row.get(2)?,
        private: sealed(row, 3)?.ok_or(rusqlite::Error::InvalidQuery)?,
        created_at: row.get(5)?,
        signs_from: row.get(6)?,
        retired_at: row.get(7)?,
        verify_until: row.get(8)?,
        revoked_at: row.get(9)?,
    })
}
