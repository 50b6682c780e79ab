//! The one seam through which randomness comes in: the operating system's, and nothing else.

use uuid::Uuid;

use crate::error::{Error, Result};
use crate::secret::KeyBytes;

/// Fills an array from the operating system.
///
/// # Errors
/// `Internal` where the system has no randomness to give; nothing goes on without it.
pub fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut out = [0; N];
    getrandom::fill(&mut out).map_err(|e| Error::internal(format!("no randomness from the system: {e}")))?;
    Ok(out)
}

/// A fresh 32-byte key.
pub fn key() -> Result<KeyBytes> {
    Ok(KeyBytes::new(bytes()?))
}

/// A random UUID (RFC 9562, version 4).
pub fn uuid() -> Result<Uuid> {
    Ok(uuid::Builder::from_random_bytes(bytes()?).into_uuid())
}
