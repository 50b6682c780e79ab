//! Keys: the master key that opens the data keys, the signing keys, and what is public of them.

use tracing::info;

use super::{Call, Core, Service, nonce};
use crate::crypto::jwt::SigningKey;
use crate::crypto::password::derive_master_key;
use crate::crypto::password::{Kdf, Params};
use crate::crypto::seal::{self, DataKeys, Place};
use crate::error::{Error, Result};
use crate::model::audit::{EventType, NewEvent, Occasion};
use crate::model::time::Timestamp;
use crate::model::token::{PublicKey, PublicKeys};
use crate::random;
use crate::secret::{KeyBytes, Password};
use crate::store::{KeyPurpose, KeyRow, Store, Tx};

/// What opens the data keys: the operator's passphrase, or the bytes of a key file.
pub enum MasterSecret {
    /// Stretched with Argon2id under a salt of its own, stored in the database.
    Passphrase(Password),
    /// Used as it is.
    KeyFile(KeyBytes),
}

/// How a passphrase is stretched: more than a password, since it is done once a start (128 MiB, t=3, p=4).
const PASSPHRASE_PARAMS: Params = Params { time: 3, memory_kib: 128 * 1024, lanes: 4 };

/// Where a signing key's private half is sealed.
pub(super) fn private_key_place(kid: &str) -> Place {
    Place::new("signing_keys", "private_key_enc", kid)
}

/// Opens the data keys; in a database that has none, makes the first.
///
/// # Errors
/// "the master key does not open this database", with nothing changed.
pub fn unlock(store: &Store, master: &MasterSecret) -> Result<(KeyBytes, DataKeys)> {
    let (wrapped, kdf) = store.snapshot(|view| Ok((view.data_keys()?, view.setting("kdf")?)))?;
    if wrapped.is_empty() {
        return first_data_key(store, master);
    }
    let wrong = || Error::internal("the master key does not open this database");
    let key = match (master, kdf) {
        (MasterSecret::KeyFile(key), None) => key.clone(),
        (MasterSecret::Passphrase(passphrase), Some(kdf)) => derive_master_key(passphrase, &read_kdf(&kdf)?)?,
        (MasterSecret::KeyFile(_), Some(_)) => {
            return Err(Error::internal("the master key does not open this database: it needs a passphrase"));
        }
        (MasterSecret::Passphrase(_), None) => {
            return Err(Error::internal("the master key does not open this database: it needs a key file"));
        }
    };
    let keys = unwrap_all(&key, &wrapped).ok_or_else(wrong)?;
    Ok((key, keys))
}

/// Opens all data keys; none if one of them doesn't open. The newest is the current one.
pub(super) fn unwrap_all(master: &KeyBytes, wrapped: &[(u32, Vec<u8>)]) -> Option<DataKeys> {
    let keys = wrapped.iter().map(|(id, value)| seal::unwrap(master, *id, value).map(|key| (*id, key)));
    let keys = keys.collect::<Option<Vec<_>>>()?;
    let current = keys.iter().map(|(id, _)| *id).max()?;
    DataKeys::new(current, keys)
}

/// The master key from what the operator has, and the stored setting that goes with a passphrase: a salt of its own.
///
/// # Errors
/// `Internal` where the system has no randomness, `Unavailable` where there is no memory for the hash.
pub(super) fn new_master(master: &MasterSecret) -> Result<(KeyBytes, Option<String>)> {
    match master {
        MasterSecret::KeyFile(key) => Ok((key.clone(), None)),
        MasterSecret::Passphrase(passphrase) => {
            let kdf = Kdf { salt: random::bytes()?, params: PASSPHRASE_PARAMS };
            Ok((derive_master_key(passphrase, &kdf)?, Some(kdf.to_json())))
        }
    }
}

fn read_kdf(stored: &[u8]) -> Result<Kdf> {
    let text = str::from_utf8(stored).map_err(|_| Error::internal("the stored kdf setting is not UTF-8"))?;
    Kdf::from_json(text)
}

/// Makes data key 1, unless another process was quicker.
fn first_data_key(store: &Store, master: &MasterSecret) -> Result<(KeyBytes, DataKeys)> {
    let (key, kdf) = new_master(master)?;
    let data_key = random::key()?;
    let wrapped = seal::wrap(&key, 1, nonce()?, &data_key);
    let made = store.write(move |tx| {
        let first = tx.data_keys()?.is_empty();
        if first {
            tx.put_setting("data_key/1", &wrapped)?;
            tx.put_setting("epoch", b"1")?;
            if let Some(kdf) = &kdf {
                tx.put_setting("kdf", kdf.as_bytes())?;
            }
        }
        Ok(first)
    })?;
    if !made {
        return unlock(store, master);
    }
    let keys = DataKeys::new(1, [(1, data_key)]);
    keys.map(|keys| (key, keys)).ok_or_else(|| Error::internal("the data key just made is not there"))
}

impl Service {
    /// Makes the first token key and the first audit key where there are none in force: the first start does.
    ///
    /// # Errors
    /// Trouble with the file or the system's randomness.
    pub fn ensure_signing_keys(&self) -> Result<()> {
        for purpose in [KeyPurpose::Token, KeyPurpose::Audit] {
            let now = self.now();
            if self.store.read(|view| view.signing_key_for(purpose, now))?.is_some() {
                continue;
            }
            let occasion = self.occasion(&Call::default());
            let seed = random::key()?;
            let nonce = nonce()?;
            let made = self.write(move |tx, core| make_key(tx, core, purpose, &seed, nonce, occasion))?;
            if let Some(kid) = made {
                info!(%kid, %purpose, "made a signing key");
            }
        }
        self.refresh_ring()
    }
}

/// `GET /v1/keys/public`: the key that signs now.
///
/// # Errors
/// Trouble with the file.
pub fn public_key(service: &Service, _: &Call, (): ()) -> Result<PublicKey> {
    let now = service.now();
    let row = service.store.read(|view| view.signing_key_for(KeyPurpose::Token, now))?;
    row.map(|row| public(&row)).ok_or_else(|| Error::internal("there is no token signing key in force"))
}

/// `GET /.well-known/jwks.json`: every key that verifies or soon signs, oldest first.
///
/// # Errors
/// Trouble with the file.
pub fn public_keys(service: &Service, _: &Call, (): ()) -> Result<PublicKeys> {
    let now = service.now();
    let rows = service.store.read(|view| view.signing_keys())?;
    let tokens = rows.iter().filter(|key| key.purpose == KeyPurpose::Token && key.verifies(now));
    Ok(PublicKeys(tokens.map(public).collect()))
}

fn public(row: &KeyRow) -> PublicKey {
    PublicKey { kid: row.kid.clone(), bytes: row.public }
}

/// Makes a key that signs at once, unless there is one by now.
pub(super) fn make_key(
    tx: &Tx<'_>,
    core: &Core,
    purpose: KeyPurpose,
    seed: &KeyBytes,
    nonce: [u8; 12],
    occasion: Occasion,
) -> Result<Option<String>> {
    let now: Timestamp = occasion.time.timestamp();
    if tx.signing_key_for(purpose, now)?.is_some() {
        return Ok(None);
    }
    insert_key(tx, core, purpose, seed, nonce, now, occasion).map(Some)
}

/// Stores a new key that signs from `signs_from` on, with its event; gives its `kid`.
pub(super) fn insert_key(
    tx: &Tx<'_>,
    core: &Core,
    purpose: KeyPurpose,
    seed: &KeyBytes,
    nonce: [u8; 12],
    signs_from: Timestamp,
    occasion: Occasion,
) -> Result<String> {
    let key = SigningKey::from_seed(seed.expose())?;
    tx.insert_signing_key(&KeyRow {
        kid: key.kid().to_owned(),
        purpose,
        public: key.public(),
        private: core.seal(&private_key_place(key.kid()), nonce, seed.expose()),
        created_at: occasion.time.timestamp(),
        signs_from,
        retired_at: None,
        verify_until: None,
        revoked_at: None,
    })?;
    tx.append(NewEvent::of(EventType::SigningKeyCreated).with("kid", key.kid()), occasion)?;
    Ok(key.kid().to_owned())
}
