//! What a login costs for a name that isn't there: what it would cost for one that is.

use std::sync::PoisonError;

use super::Service;
use super::hashed::password_place;
use super::policy::ParamsInUse;
use crate::crypto::password::{Params, params_of};
use crate::error::Result;

/// How many stored hashes are looked at in one read.
const BATCH: u32 = 500;

impl Service {
    /// Counts the parameters of all stored hashes again, in small reads.
    ///
    /// # Errors
    /// Trouble with the file, or a stored hash that doesn't open.
    pub fn count_params_in_use(&self) -> Result<()> {
        let mut all = Vec::new();
        let mut after = 0;
        loop {
            let rows = self.store.read(|view| view.passwords_after(after, BATCH))?;
            let Some((last, ..)) = rows.last() else { break };
            after = *last;
            for (_, id, sealed) in &rows {
                all.push(params_of(&self.core.open(&password_place(*id), sealed)?)?);
            }
        }
        let counted = ParamsInUse::count(all, self.policy().argon2);
        *self.params_in_use.write().unwrap_or_else(PoisonError::into_inner) = counted;
        Ok(())
    }

    /// The parameters for a name that isn't there.
    pub(super) fn params_for_stranger(&self, name: &str) -> Params {
        let in_use = self.params_in_use.read().unwrap_or_else(PoisonError::into_inner);
        in_use.for_stranger(&self.core.data_keys().derive("strangers"), name)
    }
}
