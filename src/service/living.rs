//! Accounts that are there: on a deleted one every operation is 404.

use crate::error::{Error, Result};
use crate::model::account::{Account, AccountStatus};

/// The account, unless it is deleted.
pub(super) fn living(found: Option<Account>) -> Result<Account> {
    found.filter(|account| account.status != AccountStatus::Deleted).ok_or_else(no_such_account)
}

/// 404 for an account.
pub(super) fn no_such_account() -> Error {
    Error::not_found("no such account")
}
