//! Passwords between their slow hash and the transaction that relies on it. Meanwhile the data key may have been changed
//! and everything sealed again under another: a stored hash is compared by what it is, and a new one is sealed at last.

use subtle::ConstantTimeEq;

use super::{Core, nonce};
use crate::crypto::seal::Place;
use crate::error::Result;
use crate::model::account::AccountId;
use crate::secret::{Sealed, SecretBytes};

/// Where an account's password hash is sealed.
pub(super) fn password_place(account: AccountId) -> Place {
    Place::new("accounts", "password_enc", &account.to_string())
}

/// The stored hash that a password was found to fit.
pub(super) struct Verified {
    account: AccountId,
    sealed: Sealed,
    phc: SecretBytes,
}

impl Verified {
    /// As it was read, and opened.
    pub fn new(account: AccountId, sealed: Sealed, phc: SecretBytes) -> Self {
        Self { account, sealed, phc }
    }

    /// The sealed value, as it was read.
    pub fn sealed(&self) -> &Sealed {
        &self.sealed
    }

    /// Whether it is the account's hash still.
    ///
    /// # Errors
    /// `Internal` where what is stored by now doesn't open.
    pub fn is_still(&self, core: &Core, stored: Option<&Sealed>) -> Result<bool> {
        match stored {
            Some(stored) if *stored == self.sealed => Ok(true),
            Some(stored) => Ok(core.open(&password_place(self.account), stored)?.ct_eq(&self.phc).into()),
            None => Ok(false),
        }
    }
}

/// A new hash, to be sealed in the transaction that stores it.
pub(super) struct NewHash {
    account: AccountId,
    phc: SecretBytes,
    nonce: [u8; 12],
}

impl NewHash {
    /// Of an account's password.
    ///
    /// # Errors
    /// `Internal` where the system has no randomness.
    pub fn new(account: AccountId, phc: SecretBytes) -> Result<Self> {
        Ok(Self { account, phc, nonce: nonce()? })
    }

    /// Sealed under the data key of now.
    pub fn seal(&self, core: &Core) -> Sealed {
        core.seal(&password_place(self.account), self.nonce, &self.phc)
    }
}
