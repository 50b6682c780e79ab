//! Password hashing: Argon2id (RFC 9106) on memory that is kept and used again, PHC strings, and the master key from a
//! passphrase. The `argon2` crate looks for AVX2 at run time, so one build is quick where the processor has it.

use std::hint::black_box;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use argon2::{Algorithm, Argon2, Block, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as B64;
use serde_json::Value;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Result};
use crate::secret::{KeyBytes, Password, SecretBytes};

const SALT_LEN: usize = 16;
const TAG_LEN: usize = 32;

/// Longer than any PHC string of ours, so that building one never moves it.
const PHC_CAPACITY: usize = 128;

/// Argon2id's cost (RFC 9106, section 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Params {
    /// Passes over the memory, `t`: 1-64.
    pub time: u32,
    /// Memory in KiB, `m`: 8 × `lanes` to 4194304 (4 GiB).
    pub memory_kib: u32,
    /// Lanes, `p`: 1-16. They are computed one after the other, so they cost no more threads.
    pub lanes: u32,
}

impl Params {
    const MAX_TIME: u32 = 64;
    const MAX_MEMORY_KIB: u32 = 4_194_304;
    const MAX_LANES: u32 = 16;

    /// The crate's own parameters; none outside the ranges above.
    fn checked(self) -> Option<argon2::Params> {
        let bounded =
            self.time <= Self::MAX_TIME && self.memory_kib <= Self::MAX_MEMORY_KIB && self.lanes <= Self::MAX_LANES;
        bounded.then(|| argon2::Params::new(self.memory_kib, self.time, self.lanes, Some(TAG_LEN)).ok()).flatten()
    }
}

/// Argon2's working memory, kept from one hash to the next. What a hash left in it would let somebody who read it try
/// passwords at a fraction of their price, so it is wiped when its slot is given back, and when it is dropped.
#[derive(Default)]
pub struct Memory {
    blocks: Vec<Block>,
    /// How many blocks from the front may hold something.
    dirty: usize,
}

impl Memory {
    /// At least `count` blocks of 1 KiB. A larger allocation replaces the smaller one, which is freed first.
    fn blocks(&mut self, count: usize) -> Result<&mut [Block]> {
        if self.blocks.len() < count {
            self.wipe();
            self.blocks = Vec::new();
            let mut blocks = Vec::new();
            blocks.try_reserve_exact(count).map_err(|_| {
                Error::unavailable("overloaded", 5).because(format!("no {count} KiB of memory for Argon2"))
            })?;
            // Argon2 writes every block, so zeroing lazily would put off nothing: the pages are touched all the same.
            blocks.resize(count, Block::new());
            self.blocks = blocks;
        }
        self.dirty = self.dirty.max(count);
        Ok(&mut self.blocks[..count])
    }

    fn wipe(&mut self) {
        self.blocks[..self.dirty].iter_mut().zeroize();
        self.dirty = 0;
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.wipe();
    }
}

/// A fixed number of hashing slots, each with Argon2 memory of its own that is allocated on first use and grows to the
/// largest `m` it was used with: memory never exceeds slots × that `m`.
pub struct Slots {
    free: Mutex<Vec<Memory>>,
    given_back: Condvar,
    count: usize,
}

impl Slots {
    /// `n` slots, at least one. Nothing is allocated yet.
    pub fn new(n: usize) -> Self {
        let count = n.max(1);
        let free = std::iter::repeat_with(Memory::default).take(count).collect();
        Self { free: Mutex::new(free), given_back: Condvar::new(), count }
    }

    /// Runs `work` on a free slot, waiting for one if there is none. The slot comes back also where `work` panics. The
    /// slot that was used last goes first, so memory is only allocated for as many as are ever busy at once.
    pub fn run<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        let mut free = self.free();
        let memory = loop {
            match free.pop() {
                Some(memory) => break memory,
                None => free = self.given_back.wait(free).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(free);
        let mut slot = Slot { slots: self, memory };
        work(&mut slot.memory)
    }

    /// How many slots there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// A panic can't leave the list half changed, so a poisoned lock is as good as any.
    fn free(&self) -> MutexGuard<'_, Vec<Memory>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot that is taken; dropping it gives it back.
struct Slot<'a> {
    slots: &'a Slots,
    memory: Memory,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.memory.wipe();
        self.slots.free().push(mem::take(&mut self.memory));
        self.slots.given_back.notify_one();
    }
}

/// Hashes a password into a PHC string: Argon2id, version 19, a 16-byte salt and a 32-byte tag, base64 without padding.
///
/// # Errors
/// `Internal` for parameters out of range, `Unavailable` where the system has no memory to give.
pub fn hash(memory: &mut Memory, password: &Password, params: Params, salt: [u8; SALT_LEN]) -> Result<SecretBytes> {
    let mut tag = Zeroizing::new([0; TAG_LEN]);
    compute(memory, password.expose().as_bytes(), &salt, params, &mut tag)?;
    let mut phc = Zeroizing::new(String::with_capacity(PHC_CAPACITY));
    let Params { time, memory_kib, lanes } = params;
    phc.push_str(&format!("$argon2id$v=19$m={memory_kib},t={time},p={lanes}$"));
    B64.encode_string(salt, &mut phc);
    phc.push('$');
    B64.encode_string(tag.as_slice(), &mut phc);
    Ok(Zeroizing::new(mem::take(&mut *phc).into_bytes()))
}

/// What comparing a password with a stored hash came to.
pub struct Verdict {
    /// Whether it is the password.
    pub matches: bool,
    /// The parameters of the stored hash, for whoever wants to hash anew with others.
    pub params: Params,
}

/// Compares a password with a stored PHC string, in constant time once the hash is computed.
///
/// # Errors
/// `Internal` for a PHC string that isn't ours, `Unavailable` where the system has no memory to give.
pub fn verify(memory: &mut Memory, password: &Password, phc: &[u8]) -> Result<Verdict> {
    let stored = Phc::parse(phc)?;
    let mut tag = Zeroizing::new([0; TAG_LEN]);
    compute(memory, password.expose().as_bytes(), &stored.salt, stored.params, &mut tag)?;
    Ok(Verdict { matches: tag.ct_eq(&*stored.tag).into(), params: stored.params })
}

/// The parameters in a PHC string.
///
/// # Errors
/// `Internal` for a PHC string that isn't ours.
pub fn params_of(phc: &[u8]) -> Result<Params> {
    Phc::parse(phc).map(|stored| stored.params)
}

/// The same work as [`verify`], for a name that isn't there. It always comes to nothing.
///
/// # Errors
/// As [`verify`], so that this way of failing tells nothing either.
pub fn decoy(memory: &mut Memory, password: &Password, params: Params) -> Result<()> {
    let mut tag = Zeroizing::new([0; TAG_LEN]);
    compute(memory, password.expose().as_bytes(), &[0; SALT_LEN], params, &mut tag)?;
    black_box(bool::from(tag.ct_eq(black_box(&[0; TAG_LEN]))));
    Ok(())
}

/// How a master key comes from a passphrase: what `kdf` in `server_config` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kdf {
    /// 16 random bytes.
    pub salt: [u8; SALT_LEN],
    /// `m` 131072-4194304 KiB, `t` 3-64, `p` 1-16.
    pub params: Params,
}

impl Kdf {
    const MIN_MEMORY_KIB: u32 = 131_072;
    const MIN_TIME: u32 = 3;

    /// `{"m":…,"p":…,"salt":"<hex>","t":…}`, no spaces.
    pub fn to_json(&self) -> String {
        let Params { time, memory_kib, lanes } = self.params;
        let salt: String = self.salt.iter().map(|byte| format!("{byte:02x}")).collect();
        format!(r#"{{"m":{memory_kib},"p":{lanes},"salt":"{salt}","t":{time}}}"#)
    }

    /// Reads exactly what [`Kdf::to_json`] writes, with parameters in their ranges: too little would be weak, and too
    /// much in a database that somebody changed would keep the server from ever starting.
    ///
    /// # Errors
    /// `Internal` for anything else.
    pub fn from_json(text: &str) -> Result<Self> {
        Self::parse(text).ok_or_else(|| Error::internal("the stored parameters of the master key are damaged"))
    }

    fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let number = |member: &str| value[member].as_u64().and_then(|n| u32::try_from(n).ok());
        let salt = u128::from_str_radix(value["salt"].as_str()?, 16).ok()?.to_be_bytes();
        let kdf = Self { salt, params: Params { time: number("t")?, memory_kib: number("m")?, lanes: number("p")? } };
        // Only one text stands for these values: no other member, none twice, no other order or spelling.
        (kdf.in_range() && kdf.to_json() == text).then_some(kdf)
    }

    fn in_range(&self) -> bool {
        self.params.memory_kib >= Self::MIN_MEMORY_KIB
            && self.params.time >= Self::MIN_TIME
            && self.params.checked().is_some()
    }
}

/// The master key from a passphrase, on memory of its own that is wiped and freed afterwards.
///
/// # Errors
/// `Internal` for parameters out of [`Kdf`]'s ranges, `Unavailable` where the system has no memory to give.
pub fn derive_master_key(passphrase: &Password, kdf: &Kdf) -> Result<KeyBytes> {
    if !kdf.in_range() {
        return Err(Error::internal("the parameters of the master key are out of range"));
    }
    let mut key = Zeroizing::new([0; TAG_LEN]);
    compute(&mut Memory::default(), passphrase.expose().as_bytes(), &kdf.salt, kdf.params, &mut key)?;
    Ok(KeyBytes::new(*key))
}

fn compute(memory: &mut Memory, password: &[u8], salt: &[u8], params: Params, tag: &mut [u8; TAG_LEN]) -> Result<()> {
    let checked = params.checked().ok_or_else(|| Error::internal("Argon2 parameters out of range"))?;
    let blocks = memory.blocks(checked.block_count())?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, checked)
        .hash_password_into_with_memory(password, salt, tag, blocks)
        .map_err(|e| Error::internal(format!("Argon2: {e}")))
}

/// A PHC string, taken apart.
struct Phc {
    params: Params,
    salt: [u8; SALT_LEN],
    tag: Zeroizing<[u8; TAG_LEN]>,
}

impl Phc {
    fn parse(phc: &[u8]) -> Result<Self> {
        Self::read(phc).ok_or_else(|| Error::internal("a stored password hash is not one of ours"))
    }

    /// `$argon2id$v=19$m=<m>,t=<t>,p=<p>$<salt>$<tag>`, as [`hash`] writes it and no other way.
    fn read(phc: &[u8]) -> Option<Self> {
        let rest = str::from_utf8(phc).ok()?.strip_prefix("$argon2id$v=19$m=")?;
        let (memory_kib, rest) = rest.split_once(",t=")?;
        let (time, rest) = rest.split_once(",p=")?;
        let (lanes, rest) = rest.split_once('$')?;
        let (salt, tag) = rest.split_once('$')?;
        let params = Params { time: decimal(time)?, memory_kib: decimal(memory_kib)?, lanes: decimal(lanes)? };
        params.checked()?;
        let mut stored = Self { params, salt: [0; SALT_LEN], tag: Zeroizing::new([0; TAG_LEN]) };
        fill(&mut stored.salt, salt)?;
        fill(stored.tag.as_mut_slice(), tag)?;
        Some(stored)
    }
}

/// A number without sign or leading zeros.
fn decimal(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

/// Decodes base64 that fills `out` exactly.
fn fill(out: &mut [u8], text: &str) -> Option<()> {
    let len = B64.decode_slice(text, out).ok()?;
    (len == out.len()).then_some(())
}

#[cfg(test)]
mod tests;
