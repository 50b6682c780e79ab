//! Secrets that wipe themselves when dropped. None of these types has `Debug`, `Display` or `Serialize`, so that a
//! secret can't slip into a log line, an error or an answer.

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A password or passphrase exactly as it was sent.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Password(String);

impl Password {
    /// Takes over the text; the caller keeps no copy.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// A 32-byte symmetric key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct KeyBytes([u8; 32]);

impl KeyBytes {
    /// Takes over the bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Constant-time comparison.
    pub fn same_as(&self, other: &KeyBytes) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// A JWT as it came in or goes out.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct BearerToken(String);

impl BearerToken {
    /// Takes over the text; whether it is a token at all is for the check to say.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Any other secret bytes (a TOTP secret, a PHC string, a private key), wiped on drop.
pub type SecretBytes = Zeroizing<Vec<u8>>;

/// A value sealed with AES-256-GCM under a data key. Not secret itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// 12 random bytes, fresh for every sealing.
    pub nonce: [u8; 12],
    /// The data key's id (4 bytes, big-endian), the ciphertext, the 16-byte tag.
    pub ciphertext: Vec<u8>,
}
