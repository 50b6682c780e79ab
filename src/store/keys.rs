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

    /// The key that signs at `now`: of several, the one that began last.
    pub fn signing_key_at(&self, purpose: KeyPurpose, now: Timestamp) -> Result<Option<KeyRow>> {
        let keys = self.signing_keys()?;
        Ok(keys.into_iter().filter(|key| key.purpose == purpose && key.signs(now)).max_by_key(|key| key.signs_from))
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
