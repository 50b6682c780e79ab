//! The one seam through which randomness comes in: the operating system's, and nothing else.

use std::cell::RefCell;

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

/// A random UUID for what needs no secrecy and comes with every request: out of a stock of each thread's own, so that
/// the system is asked once for 64 of them.
///
/// # Errors
/// As [`bytes`].
pub fn uuid_from_stock() -> Result<Uuid> {
    thread_local! {
        static STOCK: RefCell<Vec<[u8; 16]>> = const { RefCell::new(Vec::new()) };
    }
    STOCK.with_borrow_mut(|stock| {
        if stock.is_empty() {
            stock.extend_from_slice(bytes::<1024>()?.as_chunks().0);
        }
        let taken = stock.pop().ok_or_else(|| Error::internal("no randomness in stock"))?;
        Ok(uuid::Builder::from_random_bytes(taken).into_uuid())
    })
}

/// A random UUID (RFC 9562, version 4).
pub fn uuid() -> Result<Uuid> {
    Ok(uuid::Builder::from_random_bytes(bytes()?).into_uuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_comes_out_of_a_stock_twice() {
        let of_a_thread = || (0..1000).map(|_| uuid_from_stock().unwrap()).collect::<Vec<_>>();
        let mut all: Vec<Uuid> = std::thread::scope(|scope| {
            let threads = [scope.spawn(of_a_thread), scope.spawn(of_a_thread)];
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|id| id.get_version_num() == 4));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2000);
    }
}
