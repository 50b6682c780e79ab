//! The rules of this house, from the configuration: lifetimes, passwords, hashing. Pure.

use std::collections::HashSet;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::crypto::password::Params;
use crate::error::{Error, Result};
use crate::model::account::{AccountType, RoleName, Username};
use crate::model::token::Audience;
use crate::secret::{KeyBytes, Password};

/// The longest password, in bytes of UTF-8.
pub const MAX_PASSWORD_BYTES: usize = 1024;

/// What the configuration says about accounts and tokens. Lengths of time in seconds.
pub struct Policy {
    /// `iss`, and the audience of a token that opens MCIAS itself.
    pub issuer: Audience,
    /// The issuer's host name, which is no password.
    pub issuer_host: String,
    /// How long a person's token lives.
    pub default_expiry: i64,
    /// How long a token with the role `admin` lives at most.
    pub admin_expiry: i64,
    /// How long a system account's token lives.
    pub service_expiry: i64,
    /// How long after the login a session can be renewed.
    pub max_session: i64,
    /// The fewest characters of a new password.
    pub min_password_chars: usize,
    /// Passwords that everybody tries.
    pub blocklist: Blocklist,
    /// Roles that a token got without TOTP doesn't carry.
    pub totp_required_for: Vec<RoleName>,
    /// How new passwords are hashed.
    pub argon2: Params,
    /// How many are hashed at once.
    pub hashing_slots: usize,
}

impl Policy {
    /// From the configuration.
    ///
    /// # Errors
    /// `InvalidRequest` for an issuer that is no audience; the configuration has none such.
    pub fn new(config: &Config, blocklist: Blocklist, hashing_slots: usize) -> Result<Self> {
        let seconds = |length: Duration| i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
        Ok(Self {
            issuer: Audience::parse(&config.tokens.issuer)?,
            issuer_host: config.tokens.issuer_host().to_owned(),
            default_expiry: seconds(config.tokens.default_expiry),
            admin_expiry: seconds(config.tokens.admin_expiry),
            service_expiry: seconds(config.tokens.service_expiry),
            max_session: seconds(config.tokens.max_session),
            min_password_chars: config.passwords.min_length as usize,
            blocklist,
            totp_required_for: config.totp.required_for.clone(),
            argon2: Params {
                time: config.argon2.time,
                memory_kib: config.argon2.memory_kib,
                lanes: config.argon2.threads,
            },
            hashing_slots,
        })
    }

    /// How long a token with these roles lives: the shortest that applies.
    pub fn lifetime(&self, account_type: AccountType, roles: &[RoleName]) -> i64 {
        let base = match account_type {
            AccountType::Human => self.default_expiry,
            AccountType::System => self.service_expiry,
        };
        if roles.iter().any(RoleName::is_admin) { base.min(self.admin_expiry) } else { base }
    }

    /// The roles a token may carry: all that are held, less those that need a one-time code where there was none.
    pub fn roles_for_token(&self, held: &[RoleName], with_totp: bool) -> Vec<RoleName> {
        held.iter().filter(|role| with_totp || !self.totp_required_for.contains(role)).cloned().collect()
    }

    /// Checks a new password for an account of this name.
    ///
    /// # Errors
    /// `InvalidRequest` naming the rule that it breaks.
    pub fn check_new_password(&self, username: &Username, password: &Password) -> Result<()> {
        if password.expose().eq_ignore_ascii_case(username.as_str()) {
            return Err(Error::invalid("password must not be the username"));
        }
        self.check_password_text(password)
    }

    /// Checks a new password as far as it can be without knowing whose it is.
    ///
    /// # Errors
    /// As [`Policy::check_new_password`].
    pub fn check_password_text(&self, password: &Password) -> Result<()> {
        let text = password.expose();
        if text.chars().count() < self.min_password_chars {
            return Err(Error::invalid(format!("password must have at least {} characters", self.min_password_chars)));
        }
        if text.len() > MAX_PASSWORD_BYTES {
            return Err(Error::invalid(format!("password must have at most {MAX_PASSWORD_BYTES} bytes")));
        }
        if text.eq_ignore_ascii_case(&self.issuer_host) {
            return Err(Error::invalid("password must not be the server's name"));
        }
        if self.blocklist.contains(text) {
            return Err(Error::invalid("password is too common: it is in the block list"));
        }
        Ok(())
    }
}

/// Passwords that are refused, in any case, remembered by the first 8 bytes of their SHA-256: a list of ten million
/// takes 160 MB at most, and takes another password for one of its own once in 10^12.
#[derive(Default)]
pub struct Blocklist(HashSet<u64>);

impl Blocklist {
    /// From a text with one password a line.
    pub fn from_lines(text: &str) -> Self {
        let lines = text.lines().map(|line| line.trim_end_matches('\r')).filter(|line| !line.is_empty());
        Self(lines.map(Self::digest).collect())
    }

    fn contains(&self, password: &str) -> bool {
        !self.0.is_empty() && self.0.contains(&Self::digest(password))
    }

    fn digest(password: &str) -> u64 {
        let folded = zeroize::Zeroizing::new(password.to_lowercase());
        let digest = Sha256::digest(folded.as_bytes());
        digest.iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte))
    }
}

/// The parameters that stored hashes have, with how many have them, so that a name which isn't there costs what one
/// that is there would.
pub struct ParamsInUse(Vec<(Params, u64)>);

impl ParamsInUse {
    /// As if every stored hash had these.
    pub fn only(params: Params) -> Self {
        Self(vec![(params, 1)])
    }

    /// From the parameters of all stored hashes; `fallback` where there are none.
    pub fn count(all: impl IntoIterator<Item = Params>, fallback: Params) -> Self {
        let mut counted: Vec<(Params, u64)> = Vec::new();
        for params in all {
            match counted.iter_mut().find(|(known, _)| *known == params) {
                Some((_, count)) => *count += 1,
                None => counted.push((params, 1)),
            }
        }
        if counted.is_empty() { Self::only(fallback) } else { Self(counted) }
    }

    /// The parameters for a name that isn't there: always the same for one name, and over many names distributed as
    /// those in use are.
    pub fn for_stranger(&self, key: &KeyBytes, name: &str) -> Params {
        // An HMAC takes a key of any length (RFC 2104, section 2).
        let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).expect("any length will do");
        mac.update(name.as_bytes());
        let digest = mac.finalize().into_bytes();
        let total: u64 = self.0.iter().map(|(_, count)| count).sum();
        let mut ticket = digest.iter().take(8).fold(0u64, |all, byte| all << 8 | u64::from(*byte)) % total.max(1);
        for (params, count) in &self.0 {
            if ticket < *count {
                return *params;
            }
            ticket -= count;
        }
        self.0[0].0 // not reached: the ticket is below the sum
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn policy() -> Policy {
        Policy {
            issuer: Audience::parse("https://auth.example.com").unwrap(),
            issuer_host: "auth.example.com".into(),
            default_expiry: 24 * 3600,
            admin_expiry: 8 * 3600,
            service_expiry: 8760 * 3600,
            max_session: 30 * 86400,
            min_password_chars: 15,
            blocklist: Blocklist::from_lines("Correct Horse Battery\r\npassword12345678\n"),
            totp_required_for: vec![],
            argon2: Params { time: 1, memory_kib: 64, lanes: 1 },
            hashing_slots: 1,
        }
    }

    #[test]
    fn the_shortest_lifetime_counts() {
        let policy = policy();
        let admin = [RoleName::admin()];
        assert_eq!(policy.lifetime(AccountType::Human, &[]), 24 * 3600);
        assert_eq!(policy.lifetime(AccountType::Human, &admin), 8 * 3600);
        assert_eq!(policy.lifetime(AccountType::System, &[]), 8760 * 3600);
        assert_eq!(policy.lifetime(AccountType::System, &admin), 8 * 3600);
    }

    #[test]
    fn new_passwords_are_counted_in_characters_and_held_against_the_lists() {
        let policy = policy();
        let name = Username::parse("a-very-long-user-name").unwrap();
        let check = |text: &str| policy.check_new_password(&name, &Password::new(text.into()));
        assert!(check("fifteen chars ok").is_ok());
        assert!(check("äöüäöüäöüäöüäöü").is_ok(), "15 characters, 30 bytes");
        assert!(check("äöüäöüäöüäöüäö").is_err(), "14 characters, 28 bytes");
        assert!(check(&"ä".repeat(512)).is_ok(), "1024 bytes");
        assert!(check(&format!("{}a", "ä".repeat(512))).is_err(), "1025 bytes");
        for bad in ["A-very-LONG-user-name", "AUTH.example.com", "CORRECT horse battery", "password12345678"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn strangers_are_distributed_like_the_accounts_there_are() {
        let (old, new) = (Params { time: 2, memory_kib: 64, lanes: 1 }, Params { time: 3, memory_kib: 64, lanes: 1 });
        let in_use = ParamsInUse::count([old, old, old, new], new);
        let key = KeyBytes::new([7; 32]);
        let names: Vec<String> = (0..1000).map(|n| format!("nobody{n}")).collect();
        let olds = names.iter().filter(|name| in_use.for_stranger(&key, name) == old).count();
        assert!((650..850).contains(&olds), "{olds} of 1000, about 750 are due");
        assert!(names.iter().all(|n| in_use.for_stranger(&key, n) == in_use.for_stranger(&key, n)));
    }
}
