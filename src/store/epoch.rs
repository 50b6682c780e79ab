//! A new epoch: what an old database may not bring back to life. In small batches, each a range of row numbers.

use super::{Tx, View, statements};
use crate::error::Result;
use crate::model::time::Timestamp;

statements! {
    LAST_ACCOUNT Search = "SELECT max(id) FROM accounts";
    REVOKE_TOKENS Search = "UPDATE token_revocation SET revoked_at = ?3, revoke_reason = 'restored'
        WHERE id > ?1 AND id <= ?2 AND revoked_at IS NULL";
    USE_UP_CODES Search = "UPDATE accounts SET totp_last_step = max(totp_last_step, ?3),
            totp_pending_enc = NULL, totp_pending_nonce = NULL, totp_pending_at = NULL
        WHERE id > ?1 AND id <= ?2";
}

impl View<'_> {
    /// The number of the newest account's row.
    pub fn last_account_place(&self) -> Result<i64> {
        Ok(self.row(LAST_ACCOUNT, [], |row| row.get(0))?.flatten().unwrap_or(0))
    }
}

impl Tx<'_> {
    /// Revokes all tokens of those after the place `after` up to `to`, also those that have expired; what was revoked
    /// before keeps its reason. Gives how many.
    pub fn revoke_restored_tokens(&self, after: i64, to: i64, now: Timestamp) -> Result<u64> {
        self.run(REVOKE_TOKENS, (after, to, now)).map(|count| count as u64)
    }

    /// Takes all one-time codes up to `step` as used, and drops secrets that wait to be confirmed, of the accounts after
    /// the row `after` up to `to`.
    pub fn use_up_codes(&self, after: i64, to: i64, step: i64) -> Result<()> {
        self.run(USE_UP_CODES, (after, to, step)).map(drop)
    }
}
