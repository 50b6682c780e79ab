//! Tokens: what they are for, what they say, and what is remembered of them.

use std::fmt;

use uuid::Uuid;

use super::account::{Account, AccountId, AccountType, Page, RoleName, Username, parse_uuid};
use super::credential::TotpCode;
use super::time::Timestamp;
use super::words;
use crate::error::{Error, Result};
use crate::secret::{BearerToken, Password};

words! {
    /// How the bearer proved who they are (RFC 8176 where it has a word for it).
    Amr {
        /// A password.
        Pwd = "pwd",
        /// A one-time code.
        Otp = "otp",
        /// Issued by an admin to a system account.
        Svc = "svc",
    }
}

words! {
    /// Why a token was revoked.
    RevokeReason {
        Logout = "logout", Renewed = "renewed", Revoked = "revoked", RevokedAll = "revoked_all", Rotated = "rotated",
        Suspended = "suspended", Deleted = "deleted", PasswordChanged = "password_changed",
        PasswordReset = "password_reset", TotpChanged = "totp_changed", ParentRevoked = "parent_revoked",
        KeyRevoked = "key_revoked", Restored = "restored",
    }
}

/// A token's own id (RFC 7519, 4.1.7): a random UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Jti(Uuid);

impl Jti {
    /// From a UUID made by us.
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// Reads the one form that is an id: lower case, hyphenated.
    pub fn parse(text: &str) -> Option<Self> {
        parse_uuid(text).map(Self)
    }
}

impl fmt::Display for Jti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// Whom a token is for (RFC 7519, 4.1.3): 1-256 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Audience(String);

impl Audience {
    /// Checks the rule.
    ///
    /// # Errors
    /// `InvalidRequest` naming the rule.
    pub fn parse(text: &str) -> Result<Self> {
        let printable = text.bytes().all(|b| (0x20..=0x7e).contains(&b));
        if text.is_empty() || text.len() > 256 || !printable {
            return Err(Error::invalid("audience must be 1-256 printable ASCII characters"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a token says (RFC 7519; `auth_time` and `amr` as in OpenID Connect Core, section 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `iss`
    pub issuer: String,
    /// `sub`
    pub subject: AccountId,
    /// `aud`
    pub audience: Audience,
    /// `iat`
    pub issued_at: Timestamp,
    /// `exp`
    pub expires_at: Timestamp,
    /// `jti`
    pub jti: Jti,
    /// `roles`, sorted
    pub roles: Vec<RoleName>,
    /// `auth_time`: when a credential was last checked; kept through renewals and exchanges.
    pub auth_time: Timestamp,
    /// `amr`
    pub amr: Vec<Amr>,
}

/// What is asked of a login. Name and password are as they came: one that couldn't exist is a failed login, not a
/// malformed request.
pub struct Login {
    /// As sent.
    pub username: String,
    /// As sent.
    pub password: Password,
    /// As sent; read only where the account has TOTP.
    pub totp_code: Option<TotpCode>,
    /// Whom the token is for; without it, the issuer.
    pub audience: Option<Audience>,
}

/// A token just issued: the only place where one leaves the house.
pub struct IssuedToken {
    /// The JWT.
    pub token: BearerToken,
    /// Its `exp`.
    pub expires_at: Timestamp,
}

/// What is asked of a check. No audience: any will do. No role: none is needed.
#[derive(Debug, Clone, Default)]
pub struct CheckTerms {
    /// The audience the token must be for.
    pub audience: Option<Audience>,
    /// Roles of which the bearer must have one.
    pub any_role: Vec<RoleName>,
}

/// A token to be checked and the terms, as `POST /v1/token/validate` takes them.
pub struct ValidateToken {
    /// The token.
    pub token: BearerToken,
    /// The audience it must be for.
    pub audience: Option<Audience>,
    /// Whether a bad token is an error, as it is where it was the caller's own in the header.
    pub bad_is_error: bool,
}

/// What a validation finds: nothing more of a bad token than that it is bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validation {
    /// It is good right now.
    Good(ValidToken),
    /// It isn't, for whatever reason.
    Bad,
}

/// A good token, for a proxy that asks before it lets a request through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded(pub ValidToken);

/// What is asked of an exchange.
#[derive(Debug, Clone)]
pub struct ExchangeToken {
    /// Whom the new token is for.
    pub audience: Audience,
}

/// What a good token comes to, right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidToken {
    /// The account's UUID.
    pub subject: AccountId,
    /// The account's name today.
    pub username: Username,
    /// Person or program.
    pub account_type: AccountType,
    /// Roles in the token and still held, sorted.
    pub roles: Vec<RoleName>,
    /// Whom the token is for.
    pub audience: Audience,
    /// Its `exp`.
    pub expires_at: Timestamp,
    /// Its `jti`.
    pub jti: Jti,
}

/// The caller's own account and token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhoAmI {
    /// The account, with the roles held today.
    pub account: Account,
    /// The token's `exp`.
    pub expires_at: Timestamp,
    /// The token's `aud`.
    pub audience: Audience,
    /// The roles that the token carries and that are still held.
    pub token_roles: Vec<RoleName>,
}

/// A token as the list of an account's tokens shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its id.
    pub jti: Jti,
    /// Whom it is for.
    pub audience: Audience,
    /// Its `iat`.
    pub issued_at: Timestamp,
    /// Its `exp`.
    pub expires_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
    /// Why.
    pub revoke_reason: Option<RevokeReason>,
}

/// What it takes to issue a system account's next token.
#[derive(Debug, Clone)]
pub struct IssueServiceToken {
    /// Whose.
    pub account: AccountId,
    /// Whom it is for; without it, the issuer.
    pub audience: Option<Audience>,
    /// How long the former token for that audience lives on, in seconds, 0-86400.
    pub overlap: u32,
}

impl IssueServiceToken {
    /// The longest overlap, in seconds.
    pub const MAX_OVERLAP: i64 = 86_400;

    /// An overlap that may be.
    ///
    /// # Errors
    /// `InvalidRequest`
    pub fn overlap(seconds: i64) -> Result<u32> {
        let overlap = u32::try_from(seconds).ok().filter(|_| seconds <= Self::MAX_OVERLAP);
        overlap.ok_or_else(|| Error::invalid("overlap must be a number of seconds from 0 to 86400"))
    }
}

/// Which tokens to list: an account's, and which page of them.
#[derive(Debug, Clone)]
pub struct ListTokens {
    /// Whose.
    pub account: AccountId,
    /// Which page.
    pub page: Page,
}

/// How many live tokens were revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked(pub u64);

/// A public signing key as a JWK (RFC 8037, section 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// RFC 7638 thumbprint of the key, base64url.
    pub kid: String,
    /// The 32 bytes of the Ed25519 public key.
    pub bytes: [u8; 32],
}

/// Every key that verifies or soon signs (RFC 7517, section 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKeys(pub Vec<PublicKey>);

/// Whether the house is in order, as health and readiness tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthStatus {
    /// The process serves.
    Ok,
    /// The process serves everything.
    Ready,
}
