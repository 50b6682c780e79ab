//! Sealing: values under a data key, data keys under the master key (AES-256-GCM, NIST SP 800-38D), and keys derived
//! from a data key. A nonce comes in fresh from the caller and is never used twice under one key.

use std::fmt;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::secret::{KeyBytes, Sealed, SecretBytes};

const ID_LEN: usize = 4;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
const KEY_LEN: usize = 32;

/// What all associated data begins with: the program and the version of this scheme.
const SCHEME: &str = "mcias/1|";

/// Where a sealed value lives. It gives the associated data, so that a value moved elsewhere doesn't open.
pub struct Place {
    associated: String,
    /// Where `table.column|row` ends in `associated`: what a log line may name.
    named: usize,
}

impl Place {
    /// `mcias/1|<table>.<column>|<row>`; `row` is the row's UUID, kid or key.
    pub fn new(table: &'static str, column: &'static str, row: &str) -> Self {
        let mut associated = format!("{SCHEME}{table}.{column}");
        append(&mut associated, row);
        Self { named: associated.len(), associated }
    }

    /// Appends `|<host>|<port>|<database>|<user>`, so that Postgres credentials open for one address only.
    #[must_use]
    pub fn with_address(mut self, host: &str, port: u16, database: &str, user: &str) -> Self {
        for part in [host, &port.to_string(), database, user] {
            append(&mut self.associated, part);
        }
        self
    }
}

/// For the log: the column and the row, without an address.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.associated[SCHEME.len()..self.named])
    }
}

/// Appends `|` and a part. A `|` or `\` inside the part gets a `\` before it: otherwise the database `a|b` of the user
/// `c` and the database `a` of the user `b|c` would be the same place.
fn append(associated: &mut String, part: &str) {
    associated.push('|');
    for c in part.chars() {
        if matches!(c, '|' | '\\') {
            associated.push('\\');
        }
        associated.push(c);
    }
}

/// The data keys by id. New values are sealed under the current one; values under the others still open.
pub struct DataKeys {
    current_id: u32,
    current: KeyBytes,
    others: Vec<(u32, KeyBytes)>,
}

impl DataKeys {
    /// None where no key has the id `current`, where an id comes twice, or where two ids share a key: the key an id
    /// stands for is what binds the id to a sealed value.
    pub fn new(current: u32, keys: impl IntoIterator<Item = (u32, KeyBytes)>) -> Option<Self> {
        let mut others: Vec<(u32, KeyBytes)> = Vec::new();
        for (id, key) in keys {
            if others.iter().any(|(other_id, other)| *other_id == id || other.same_as(&key)) {
                return None;
            }
            others.push((id, key));
        }
        let at = others.iter().position(|(id, _)| *id == current)?;
        let (current_id, current) = others.swap_remove(at);
        Some(Self { current_id, current, others })
    }

    /// The id of the key that seals.
    pub fn current_id(&self) -> u32 {
        self.current_id
    }

    /// Seals `plaintext` for one place under the current key. `nonce` must be fresh randomness.
    pub fn seal(&self, place: &Place, nonce: [u8; NONCE_LEN], plaintext: &[u8]) -> Sealed {
        // Sized at once: a buffer that grew would leave plaintext behind.
        let mut ciphertext = Vec::with_capacity(ID_LEN + plaintext.len() + TAG_LEN);
        ciphertext.extend_from_slice(&self.current_id.to_be_bytes());
        ciphertext.extend_from_slice(plaintext);
        let tag = encrypt(&self.current, &nonce, place.associated.as_bytes(), &mut ciphertext[ID_LEN..]);
        ciphertext.extend_from_slice(&tag);
        Sealed { nonce, ciphertext }
    }

    /// Opens a value where it was sealed.
    ///
    /// # Errors
    /// `Internal` naming the place where the value is cut short, its key isn't here, or it was changed or moved;
    /// `Unavailable` where its key is newer than those that are here.
    pub fn open(&self, place: &Place, sealed: &Sealed) -> Result<SecretBytes> {
        let cut = || Error::internal(format!("the sealed value {place} is cut short"));
        let (id, rest) = sealed.ciphertext.split_first_chunk().ok_or_else(cut)?;
        let (body, tag) = rest.split_last_chunk().ok_or_else(cut)?;
        let id = u32::from_be_bytes(*id);
        let key = self.key(id).ok_or_else(|| {
            let isnt_here = format!("the sealed value {place} is under data key {id}, which isn't here");
            // Sealed by somebody who has another master key by now, so whole as far as anybody here can tell.
            match id > self.current_id() {
                true => Error::unavailable("the data key is being changed", 5).because(isnt_here),
                false => Error::internal(isnt_here),
            }
        })?;
        let mut plaintext = Zeroizing::new(body.to_vec());
        if decrypt(key, &sealed.nonce, place.associated.as_bytes(), &mut plaintext, tag) {
            Ok(plaintext)
        } else {
            Err(Error::internal(format!("the sealed value {place} does not open: it was changed or moved")))
        }
    }

    /// A key for one purpose: HMAC-SHA-256 (RFC 2104) of the current data key over `purpose`. It changes with the
    /// current data key.
    pub fn derive(&self, purpose: &str) -> KeyBytes {
        // An HMAC takes a key of any length.
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(self.current.expose()).expect("any length will do");
        mac.update(purpose.as_bytes());
        KeyBytes::new(mac.finalize().into_bytes().into())
    }

    /// Begins an HMAC-SHA-256 (RFC 2104) under the key that [`DataKeys::derive`] gives for `purpose`.
    pub fn mac(&self, purpose: &str) -> ContentMac {
        // An HMAC takes a key of any length.
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(self.derive(purpose).expose()).expect("any length will do");
        ContentMac(mac)
    }

    fn key(&self, id: u32) -> Option<&KeyBytes> {
        if id == self.current_id {
            return Some(&self.current);
        }
        self.others.iter().find(|(other, _)| *other == id).map(|(_, key)| key)
    }
}

/// An HMAC over what comes in pieces: for what is too large to be in memory at once. Where one piece ends and the next
/// begins makes no difference to it.
pub struct ContentMac(Hmac<Sha256>);

impl ContentMac {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The 32 bytes over all that came.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into_bytes().into()
    }

    /// Whether they are these; compared in constant time.
    pub fn is(self, expected: &[u8; 32]) -> bool {
        self.0.verify_slice(expected).is_ok()
    }
}

/// The id of the data key that a value is sealed under; none for what is too short to be sealed.
pub fn key_id(sealed: &Sealed) -> Option<u32> {
    sealed.ciphertext.first_chunk().map(|id| u32::from_be_bytes(*id))
}

/// Seals a data key under the master key: nonce ‖ ciphertext ‖ tag, 60 bytes, the value of `data_key/<id>` in
/// `server_config`. `nonce` must be fresh randomness.
pub fn wrap(master: &KeyBytes, id: u32, nonce: [u8; NONCE_LEN], data_key: &KeyBytes) -> Vec<u8> {
    let mut value = Vec::with_capacity(NONCE_LEN + KEY_LEN + TAG_LEN);
    value.extend_from_slice(&nonce);
    value.extend_from_slice(data_key.expose());
    let tag = encrypt(master, &nonce, wrapping_place(id).associated.as_bytes(), &mut value[NONCE_LEN..]);
    value.extend_from_slice(&tag);
    value
}

/// Opens what [`wrap`] made; none where the master key is another, or the value was changed or stands under another id.
pub fn unwrap(master: &KeyBytes, id: u32, value: &[u8]) -> Option<KeyBytes> {
    let (nonce, rest) = value.split_first_chunk()?;
    let (body, tag) = rest.split_last_chunk()?;
    let mut key: Zeroizing<[u8; KEY_LEN]> = Zeroizing::new(body.try_into().ok()?);
    decrypt(master, nonce, wrapping_place(id).associated.as_bytes(), key.as_mut_slice(), tag)
        .then(|| KeyBytes::new(*key))
}

fn wrapping_place(id: u32) -> Place {
    Place::new("server_config", "value", &format!("data_key/{id}"))
}

/// Encrypts `buffer` in place and gives the tag.
fn encrypt(key: &KeyBytes, nonce: &[u8; NONCE_LEN], associated: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
    Aes256Gcm::new(key.expose().into())
        .encrypt_inout_detached(nonce.into(), associated, buffer.into())
        // GCM's limit is 64 GiB of plaintext; what is sealed here is a few kilobytes.
        .expect("within GCM's length limit")
        .into()
}

/// Decrypts `buffer` in place if the tag fits (compared in constant time); otherwise leaves it as it is.
fn decrypt(key: &KeyBytes, nonce: &[u8; NONCE_LEN], associated: &[u8], buffer: &mut [u8], tag: &[u8; TAG_LEN]) -> bool {
    Aes256Gcm::new(key.expose().into())
        .decrypt_inout_detached(nonce.into(), associated, buffer.into(), tag.into())
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::vectors::{array, bytes, cases};
    use crate::error::Kind;

    const ROW: &str = "0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11";

    fn key(byte: u8) -> KeyBytes {
        KeyBytes::new([byte; KEY_LEN])
    }

    fn keys() -> DataKeys {
        DataKeys::new(2, [(1, key(1)), (2, key(2))]).unwrap()
    }

    fn place() -> Place {
        Place::new("accounts", "password_enc", ROW)
    }

    #[test]
    fn nist_aes_256_gcm() {
        for case in cases(include_str!("../../tests/vectors/aes_256_gcm_nist.json")) {
            let (key, nonce) = (KeyBytes::new(array(&case, "key")), array(&case, "nonce"));
            let (aad, plaintext) = (bytes(&case, "aad"), bytes(&case, "plaintext"));
            let mut buffer = plaintext.clone();
            let mut tag = encrypt(&key, &nonce, &aad, &mut buffer);
            assert_eq!(buffer, bytes(&case, "ciphertext"), "{case}");
            assert_eq!(tag, array(&case, "tag"), "{case}");

            assert!(decrypt(&key, &nonce, &aad, &mut buffer.clone(), &tag));
            let mut other_aad = aad.clone();
            other_aad.push(0);
            assert!(!decrypt(&key, &nonce, &other_aad, &mut buffer.clone(), &tag), "tampered AAD: {case}");
            tag[15] ^= 1;
            assert!(!decrypt(&key, &nonce, &aad, &mut buffer.clone(), &tag), "tampered tag: {case}");
        }
    }

    #[test]
    fn a_value_opens_where_it_was_sealed() {
        for plaintext in [b"".as_slice(), b"secret", &[7; 3000]] {
            let sealed = keys().seal(&place(), [9; 12], plaintext);
            assert_eq!(sealed.ciphertext[..4], 2u32.to_be_bytes());
            assert_eq!(sealed.ciphertext.len(), 4 + plaintext.len() + 16);
            assert_eq!(*keys().open(&place(), &sealed).unwrap(), plaintext);
        }
    }

    #[test]
    fn the_associated_data_is_the_documented_text() {
        assert_eq!(place().associated, format!("mcias/1|accounts.password_enc|{ROW}"));
        let place = Place::new("pg_credentials", "pg_password_enc", ROW).with_address("db.example", 5432, "app", "me");
        assert_eq!(place.associated, format!("mcias/1|pg_credentials.pg_password_enc|{ROW}|db.example|5432|app|me"));
        assert_eq!(place.to_string(), format!("pg_credentials.pg_password_enc|{ROW}"));
        assert_eq!(wrapping_place(7).associated, "mcias/1|server_config.value|data_key/7");
    }

    #[test]
    fn a_value_moved_or_redirected_does_not_open() {
        let at = |host, port, database, user| place().with_address(host, port, database, user);
        let sealed = keys().seal(&at("h", 1, "d", "u"), [9; 12], b"secret");
        assert!(keys().open(&at("h", 1, "d", "u"), &sealed).is_ok());
        let elsewhere = [
            at("g", 1, "d", "u"),
            at("h", 2, "d", "u"),
            at("h", 1, "e", "u"),
            at("h", 1, "d", "v"),
            place(),
            Place::new("accounts", "totp_secret_enc", ROW).with_address("h", 1, "d", "u"),
            Place::new("pg_credentials", "password_enc", ROW).with_address("h", 1, "d", "u"),
            Place::new("accounts", "password_enc", "other").with_address("h", 1, "d", "u"),
        ];
        for other in elsewhere {
            assert_eq!(keys().open(&other, &sealed).unwrap_err().kind(), Kind::Internal, "{}", other.associated);
        }

        // Without the escape these two would be one place.
        let sealed = keys().seal(&at("h", 1, "a|b", "c"), [9; 12], b"secret");
        assert!(keys().open(&at("h", 1, "a|b", "c"), &sealed).is_ok());
        assert!(keys().open(&at("h", 1, "a", "b|c"), &sealed).is_err());
        // Nor would it do to escape the bar alone.
        let sealed = keys().seal(&at("h", 1, "a\\", "b|c"), [9; 12], b"secret");
        assert!(keys().open(&at("h", 1, "a\\", "b|c"), &sealed).is_ok());
        assert!(keys().open(&at("h", 1, "a|b\\", "c"), &sealed).is_err());
    }

    #[test]
    fn any_changed_bit_is_found() {
        let sealed = keys().seal(&place(), [9; 12], b"secret");
        assert!(keys().open(&place(), &sealed).is_ok());
        for bit in 0..sealed.ciphertext.len() * 8 {
            let mut changed = sealed.clone();
            changed.ciphertext[bit / 8] ^= 1 << (bit % 8);
            let error = keys().open(&place(), &changed).unwrap_err();
            assert!(error.log().unwrap().contains("accounts.password_enc"), "{error}");
        }
        for bit in 0..96 {
            let mut changed = sealed.clone();
            changed.nonce[bit / 8] ^= 1 << (bit % 8);
            assert!(keys().open(&place(), &changed).is_err());
        }
        for len in 0..sealed.ciphertext.len() {
            let cut = Sealed { nonce: sealed.nonce, ciphertext: sealed.ciphertext[..len].to_vec() };
            assert!(keys().open(&place(), &cut).is_err());
        }
    }

    #[test]
    fn the_key_id_is_bound_to_the_key() {
        let mut sealed = keys().seal(&place(), [9; 12], b"secret");
        assert!(keys().open(&place(), &sealed).is_ok());
        sealed.ciphertext[3] = 1;
        assert!(keys().open(&place(), &sealed).is_err(), "key 1 is here too, but it isn't the one");
        let rotated = DataKeys::new(3, [(1, key(1)), (2, key(2)), (3, key(3))]).unwrap();
        assert!(rotated.open(&place(), &keys().seal(&place(), [9; 12], b"secret")).is_ok(), "old values still open");

        assert!(DataKeys::new(3, [(1, key(1)), (2, key(2))]).is_none());
        assert!(DataKeys::new(1, [(1, key(1)), (1, key(2))]).is_none());
        assert!(DataKeys::new(1, [(1, key(1)), (2, key(1))]).is_none());
        assert_eq!(rotated.current_id(), 3);
    }

    #[test]
    fn a_wrapped_key_opens_with_its_master_key_and_id_only() {
        let value = wrap(&key(8), 4, [9; 12], &key(3));
        assert_eq!(value.len(), 60);
        assert_eq!(value[..12], [9; 12]);
        assert!(unwrap(&key(8), 4, &value).unwrap().same_as(&key(3)));
        assert!(unwrap(&key(7), 4, &value).is_none(), "another master key");
        assert!(unwrap(&key(8), 5, &value).is_none(), "another id");
        assert!(unwrap(&key(8), 4, &value[..59]).is_none());
        assert!(unwrap(&key(8), 4, &[value.as_slice(), &[0]].concat()).is_none());
        for bit in 0..value.len() * 8 {
            let mut changed = value.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(unwrap(&key(8), 4, &changed).is_none());
        }
    }

    #[test]
    fn a_derived_key_is_hmac_sha_256_of_the_current_key() {
        use sha2::Digest;
        // RFC 2104, section 2, with the key padded to SHA-256's block of 64 bytes.
        let pad = |byte: u8| [[2 ^ byte; 32], [byte; 32]].concat();
        let inner = Sha256::digest([pad(0x36).as_slice(), b"backup"].concat());
        let expected = Sha256::digest([pad(0x5c).as_slice(), &inner].concat());
        assert_eq!(keys().derive("backup").expose(), expected.as_slice());
        assert!(!keys().derive("backup").same_as(&keys().derive("decoy")));
    }

    #[test]
    fn a_mac_over_pieces_is_hmac_sha_256_under_the_derived_key() {
        let mac = |pieces: &[&[u8]]| {
            let mut mac = keys().mac("backup");
            pieces.iter().for_each(|piece| mac.update(piece));
            mac
        };
        let mut plain = <Hmac<Sha256> as KeyInit>::new_from_slice(keys().derive("backup").expose()).unwrap();
        plain.update(b"all of it");
        let expected: [u8; 32] = plain.finalize().into_bytes().into();
        assert_eq!(mac(&[b"all", b" of", b"", b" it"]).finish(), expected);
        assert!(mac(&[b"all of it"]).is(&expected));
        assert!(!mac(&[b"all of It"]).is(&expected));
        assert!(!keys().mac("other").is(&expected));
    }
}
