//! The one thing about tokens that is remembered from check to check, because it can't change: that these exact bytes
//! carry a good signature.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// SHA-256 over a public key and a token.
type Sha256Digest = [u8; 32];

const SHARDS: usize = 64;
const SETS: usize = 256;
const WAYS: usize = 4;

/// A table of 65,536 digests, 2 MiB, that never grows; its 64 shards are allocated when they are first written to. A
/// new digest pushes out the oldest of the four that share its place, and a digest that isn't found only costs a
/// verification. It needs no secret index: only tokens we signed get in.
pub struct SignatureCache {
    shards: [Mutex<Vec<[Sha256Digest; WAYS]>>; SHARDS],
}

impl SignatureCache {
    /// An empty table.
    pub fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }

    /// Whether the digest is here, all 256 bits of it. An empty place is all zeros, which is no token's digest.
    pub(super) fn contains(&self, digest: &Sha256Digest) -> bool {
        let (shard, set) = place(digest);
        self.shard(shard).get(set).is_some_and(|ways| ways.contains(digest))
    }

    /// Remembers the digest of a token whose signature was just verified.
    pub(super) fn insert(&self, digest: Sha256Digest) {
        let (shard, set) = place(&digest);
        let mut sets = self.shard(shard);
        if sets.is_empty() {
            *sets = vec![[[0; 32]; WAYS]; SETS];
        }
        let ways = &mut sets[set];
        if !ways.contains(&digest) {
            ways.rotate_right(1);
            ways[0] = digest;
        }
    }

    /// A panic can't leave a shard half changed in a way that matters: a mixture of two digests is no token's digest.
    fn shard(&self, shard: usize) -> MutexGuard<'_, Vec<[Sha256Digest; WAYS]>> {
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for SignatureCache {
    fn default() -> Self {
        Self::new()
    }
}

/// The shard and the set within it.
fn place(digest: &Sha256Digest) -> (usize, usize) {
    (usize::from(digest[0]) % SHARDS, usize::from(digest[1]) % SETS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(first: u8, last: u8) -> Sha256Digest {
        let mut digest = [7; 32];
        (digest[0], digest[31]) = (first, last);
        digest
    }

    #[test]
    fn a_set_keeps_its_four_newest() {
        let cache = SignatureCache::new();
        assert!(!cache.contains(&digest(0, 1)));
        for last in 1..=5 {
            cache.insert(digest(0, last));
            cache.insert(digest(0, last));
        }
        assert!(!cache.contains(&digest(0, 1)));
        assert!((2..=5).all(|last| cache.contains(&digest(0, last))));
    }

    #[test]
    fn digests_are_compared_whole() {
        let cache = SignatureCache::new();
        cache.insert(digest(0, 1));
        for bit in 0..256 {
            let mut other = digest(0, 1);
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!cache.contains(&other));
        }
        assert!(!cache.contains(&digest(64, 1)), "same shard and set, another digest");
    }

    #[test]
    fn nothing_is_allocated_before_it_is_needed() {
        let cache = SignatureCache::new();
        cache.insert(digest(3, 1));
        let allocated: usize = (0..SHARDS).map(|shard| cache.shard(shard).capacity()).sum();
        assert_eq!(allocated, SETS);
        assert_eq!(SHARDS * SETS * WAYS, 65_536);
    }
}
