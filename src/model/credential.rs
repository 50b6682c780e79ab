//! Passwords to be changed, one-time codes and Postgres credentials, valid once built.

use zeroize::Zeroizing;

use super::account::AccountId;
use crate::error::{Error, Result};
use crate::secret::Password;

/// Exactly six ASCII digits (RFC 6238 with 6 digits).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TotpCode([u8; 6]);

impl TotpCode {
    /// Checks the form.
    ///
    /// # Errors
    /// `InvalidRequest` naming the form.
    pub fn parse(text: &str) -> Result<Self> {
        <[u8; 6]>::try_from(text.as_bytes())
            .ok()
            .filter(|code| code.iter().all(u8::is_ascii_digit))
            .map(Self)
            .ok_or_else(|| Error::invalid("a one-time code is exactly six digits"))
    }

    /// The six ASCII digits.
    pub fn as_bytes(&self) -> &[u8; 6] {
        &self.0
    }
}

/// A person's own change of password.
pub struct ChangePassword {
    /// The password until now.
    pub current: Password,
    /// The password from now on.
    pub new: Password,
    /// Needed where TOTP is on.
    pub totp_code: Option<TotpCode>,
}

/// An admin's reset of somebody's password.
pub struct SetPassword {
    /// Whose.
    pub account: AccountId,
    /// The password from now on.
    pub new: Password,
}

/// What it takes to begin with one-time codes, or with others.
pub struct EnrollTotp {
    /// The current password.
    pub password: Password,
    /// A code of the device until now, where TOTP is on.
    pub totp_code: Option<TotpCode>,
}

/// A secret to be put into an authenticator, shown once.
pub struct TotpEnrolment {
    /// Base32 (RFC 4648), without padding.
    pub secret: Zeroizing<String>,
    /// The same as an `otpauth` URI.
    pub uri: Zeroizing<String>,
}

/// The first code of a new device.
pub struct ConfirmTotp {
    /// The code.
    pub code: TotpCode,
}

/// Where a database is and who a program is there: everything but the password. 1-253 characters of host, 1-63 bytes of
/// database and username (PostgreSQL's `NAMEDATALEN`), no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgAddress {
    host: String,
    port: u16,
    database: String,
    username: String,
}

impl PgAddress {
    /// Checks the rules.
    ///
    /// # Errors
    /// `InvalidRequest` naming the member.
    pub fn parse(host: &str, port: i64, database: &str, username: &str) -> Result<Self> {
        let text = |member: &str, value: &str, longest: usize| {
            if value.is_empty() || value.len() > longest || value.chars().any(char::is_control) {
                return Err(Error::invalid(format!(
                    "{member} must be 1-{longest} bytes of text without control characters"
                )));
            }
            Ok(value.to_owned())
        };
        Ok(Self {
            host: text("host", host, 253)?,
            port: u16::try_from(port)
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| Error::invalid("port must be a number from 1 to 65535"))?,
            database: text("database", database, 63)?,
            username: text("username", username, 63)?,
        })
    }

    /// The host's name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// 1-65535.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The role to log in as.
    pub fn username(&self) -> &str {
        &self.username
    }
}

/// Postgres credentials: the address and the password, 1-1024 bytes without control characters.
#[derive(Clone)]
pub struct PgCredentials {
    /// Where and who.
    pub address: PgAddress,
    password: Password,
}

impl PgCredentials {
    /// Checks the password's rule.
    ///
    /// # Errors
    /// `InvalidRequest` naming it.
    pub fn new(address: PgAddress, password: Password) -> Result<Self> {
        let text = password.expose();
        if text.is_empty() || text.len() > 1024 || text.chars().any(char::is_control) {
            return Err(Error::invalid("password must be 1-1024 bytes of text without control characters"));
        }
        Ok(Self { address, password })
    }

    /// The password.
    pub fn password(&self) -> &Password {
        &self.password
    }
}

/// Postgres credentials for an account.
pub struct SetPgCredentials {
    /// Whose.
    pub account: AccountId,
    /// Which.
    pub credentials: PgCredentials,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_six_ascii_digits() {
        assert!(TotpCode::parse("012345").is_ok());
        for bad in ["", "12345", "1234567", "12345a", " 12345", "１２３４５６", "-12345"] {
            assert!(TotpCode::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_address_is_bounded() {
        let fits =
            |host: &str, port, database: &str, username: &str| PgAddress::parse(host, port, database, username).is_ok();
        assert!(fits("db.example.com", 5432, "app", "app") && fits(&"h".repeat(253), 65535, &"d".repeat(63), "u"));
        assert!(!fits("", 5432, "app", "app") && !fits(&"h".repeat(254), 1, "d", "u") && !fits("h\n", 1, "d", "u"));
        assert!(!fits("h", 0, "d", "u") && !fits("h", 65536, "d", "u") && !fits("h", -1, "d", "u"));
        assert!(!fits("h", 1, &"d".repeat(64), "u") && !fits("h", 1, "d", "") && !fits("h", 1, "d\0", "u"));
        let address = PgAddress::parse("h", 1, "d", "u").unwrap();
        for bad in ["", "a\nb", &"x".repeat(1025)] {
            assert!(PgCredentials::new(address.clone(), Password::new(bad.into())).is_err(), "{bad:?}");
        }
    }
}
