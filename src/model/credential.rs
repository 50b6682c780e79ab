//! One-time codes and Postgres credentials, valid once built.

use crate::error::{Error, Result};

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
