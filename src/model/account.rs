//! Accounts, their names and roles: the types of the account operations, valid once built.

use std::fmt;

use uuid::Uuid;

use super::time::Timestamp;
use super::words;
use crate::error::{Error, Result};
use crate::secret::Password;

words! {
    /// A person or a program.
    AccountType { Human = "human", System = "system" }
}

words! {
    /// Where an account is in its life. Deleted accounts are kept for the audit log only.
    AccountStatus { Active = "active", Suspended = "suspended", Deleted = "deleted" }
}

/// An account's UUID: the `sub` of its tokens, and the only name that is never given to somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(Uuid);

impl AccountId {
    /// The nil UUID (RFC 9562, 5.9), which no account has: those are random.
    pub const NOBODY: Self = Self(Uuid::nil());

    /// From a UUID made by us.
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// Reads the one form that is an id: lower case, hyphenated.
    pub fn parse(text: &str) -> Option<Self> {
        parse_uuid(text).map(Self)
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// Reads a lower-case hyphenated UUID; anything else is none.
pub(super) fn parse_uuid(text: &str) -> Option<Uuid> {
    let plain = text.len() == 36 && !text.bytes().any(|b| b.is_ascii_uppercase());
    plain.then(|| Uuid::try_parse(text).ok()).flatten()
}

/// A login name: 1-128 of `a-z 0-9 . _ - @ +`, the first a letter or digit, folded to lower case, not shaped like a UUID.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Username(String);

impl Username {
    /// Folds ASCII to lower case and checks the rule.
    ///
    /// # Errors
    /// `InvalidRequest` naming the rule, never the name.
    pub fn parse(text: &str) -> Result<Self> {
        let folded = text.to_ascii_lowercase();
        let first_fits = folded.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let rest_fits = folded.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-@+".contains(&b));
        if folded.len() > 128 || !first_fits || !rest_fits {
            return Err(Error::invalid(
                "username must be 1-128 characters of a-z 0-9 . _ - @ +, the first a letter or digit",
            ));
        }
        if parse_uuid(&folded).is_some() {
            return Err(Error::invalid("username must not look like a UUID"));
        }
        Ok(Self(folded))
    }

    /// The folded name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A role's name: 1-64 of `a-z 0-9 . _ : -`, the first a letter or digit. Upper case is refused, not folded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoleName(String);

/// How many roles an account may hold.
pub const MAX_ROLES: usize = 32;

impl RoleName {
    /// The role that opens MCIAS's own admin operations.
    pub const ADMIN: &'static str = "admin";

    /// Checks the rule.
    ///
    /// # Errors
    /// `InvalidRequest` naming the rule.
    pub fn parse(text: &str) -> Result<Self> {
        let first_fits = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let rest_fits = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._:-".contains(&b));
        if text.len() > 64 || !first_fits || !rest_fits {
            return Err(Error::invalid(
                "a role must be 1-64 characters of a-z 0-9 . _ : -, the first a letter or digit",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The role `admin`.
    pub fn admin() -> Self {
        Self(Self::ADMIN.to_owned())
    }

    /// Whether this is the role `admin`.
    pub fn is_admin(&self) -> bool {
        self.0 == Self::ADMIN
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An account as everybody may see it: nothing secret is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The UUID.
    pub id: AccountId,
    /// The login name; free again once the account is deleted.
    pub username: Username,
    /// Person or program.
    pub account_type: AccountType,
    /// Active, suspended or deleted.
    pub status: AccountStatus,
    /// Whether a login needs a one-time code.
    pub totp_enabled: bool,
    /// Roles held today, sorted.
    pub roles: Vec<RoleName>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// What it takes to make an account.
pub struct NewAccount {
    /// The name it is to have.
    pub username: Username,
    /// Person or program.
    pub account_type: AccountType,
    /// A person's first password; a program has none.
    pub password: Option<Password>,
}

/// A change of an account; at least one member is there.
#[derive(Debug, Clone)]
pub struct AccountChange {
    /// Whose.
    pub account: AccountId,
    /// Another name.
    pub username: Option<Username>,
    /// Active or suspended.
    pub status: Option<AccountStatus>,
}

impl AccountChange {
    /// What may be asked of a server.
    ///
    /// # Errors
    /// `InvalidRequest` where nothing is asked, or an account would be deleted by the way.
    pub fn new(account: AccountId, username: Option<Username>, status: Option<AccountStatus>) -> Result<Self> {
        if username.is_none() && status.is_none() {
            return Err(Error::invalid("at least one of username and status is needed"));
        }
        if status == Some(AccountStatus::Deleted) {
            return Err(Error::invalid("status must be active or suspended: deleting is an operation of its own"));
        }
        Ok(Self { account, username, status })
    }
}

/// An account's roles, sorted, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles(pub Vec<RoleName>);

/// The roles that an account is to have from now on.
#[derive(Debug, Clone)]
pub struct SetRoles {
    /// Whose.
    pub account: AccountId,
    /// Sorted, each once, at most [`MAX_ROLES`].
    pub roles: Roles,
}

impl Roles {
    /// Sorts, and makes repeated names one.
    ///
    /// # Errors
    /// `InvalidRequest` for more than [`MAX_ROLES`].
    pub fn new(mut roles: Vec<RoleName>) -> Result<Self> {
        roles.sort_unstable();
        roles.dedup();
        if roles.len() > MAX_ROLES {
            return Err(Error::invalid(format!("an account has at most {MAX_ROLES} roles")));
        }
        Ok(Self(roles))
    }
}

/// A role of an account, to be given or taken.
#[derive(Debug, Clone)]
pub struct RoleOf {
    /// Whose.
    pub account: AccountId,
    /// Which.
    pub role: RoleName,
}

/// Which accounts to list, and which page of them.
#[derive(Debug, Clone, Default)]
pub struct AccountFilter {
    /// Exactly this name.
    pub username: Option<Username>,
    /// Only this type.
    pub account_type: Option<AccountType>,
    /// Only this status; without it, all but the deleted.
    pub status: Option<AccountStatus>,
    /// Which page.
    pub page: Page,
}

/// One page of a listing.
#[derive(Debug, Clone)]
pub struct Page {
    /// How many rows at most, 1-1000.
    pub limit: u32,
    /// Where the page before ended; opaque to the client.
    pub cursor: Option<String>,
}

impl Page {
    /// The number of rows where the client names none.
    pub const DEFAULT_LIMIT: u32 = 100;
    /// The most rows a page can have.
    pub const MAX_LIMIT: u32 = 1000;
}

impl Page {
    /// The number before which a page begins, for listings that count down; the very end without a cursor.
    ///
    /// # Errors
    /// `InvalidRequest` for a cursor that isn't ours.
    pub fn before(&self) -> Result<i64> {
        let Some(cursor) = &self.cursor else { return Ok(i64::MAX) };
        let number = cursor.parse().ok().filter(|number: &i64| *number > 0 && number.to_string() == *cursor);
        number.ok_or_else(|| Error::invalid("cursor is not one that this server gave"))
    }
}

impl Default for Page {
    fn default() -> Self {
        Self { limit: Self::DEFAULT_LIMIT, cursor: None }
    }
}

/// One page's rows, and where the next one begins if there is more.
#[derive(Debug, Clone)]
pub struct Listing<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// The cursor of the next page; none on the last.
    pub next: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fold_ascii_and_refuse_what_is_not_a_name() {
        assert_eq!(Username::parse("Alice.B+x@Example-1_2").unwrap().as_str(), "alice.b+x@example-1_2");
        let too_long = "a".repeat(129);
        for bad in
            ["", ".a", "-a", "a b", "ä", "a/b", "a\n", "K\u{212a}", &too_long, "0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11"]
        {
            assert!(Username::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Username::parse("0194E2F0-7D3A-7C1E-9B52-2F6D0A4C8E11").is_err(), "folded, it is a UUID");
        assert!(Username::parse(&"a".repeat(128)).is_ok());
    }

    #[test]
    fn roles_refuse_upper_case() {
        assert!(RoleName::parse("db:read-only_1.x").is_ok());
        let too_long = "a".repeat(65);
        for bad in ["", "Admin", ":x", "a,b", "a b", &too_long] {
            assert!(RoleName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_the_lower_case_hyphenated_form_is_an_id() {
        let id = "0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11";
        assert_eq!(AccountId::parse(id).unwrap().to_string(), id);
        for bad in
            [id.to_uppercase(), id.replace('-', ""), format!("{{{id}}}"), format!("urn:uuid:{id}"), String::new()]
        {
            assert!(AccountId::parse(&bad).is_none(), "{bad}");
        }
    }
}
