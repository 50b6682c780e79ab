//! What MCIAS does: one function per operation, used by every door and by the maintenance tool. Synchronous; knows no
//! HTTP, no protobuf and no async runtime.

pub mod access;
pub mod accounts;
pub mod audit;
pub mod backup;
mod check;
pub mod credentials;
mod hashed;
mod issue;
pub mod keys;
mod living;
pub mod policy;
pub mod rekey;
pub mod restore;
pub mod roles;
pub mod rotation;
pub mod session;
pub mod state;
mod strangers;
pub mod tokens;
pub mod verify;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use crate::clock::Clock;
use crate::crypto::jwt::{KeyRing, SignatureCache, SigningKey};
use crate::crypto::password::Slots;
use crate::crypto::seal::{DataKeys, Place};
use crate::error::{Error, Result};
use crate::model::audit::{Occasion, Via};
use crate::model::time::Timestamp;
use crate::random;
use crate::secret::{KeyBytes, Sealed, SecretBytes};
use crate::store::{KeyPurpose, KeyRow, ServerLock, Store, Tx, View};

pub use policy::Policy;
pub use state::Readiness;
use state::State;

/// The house: the database, its keys, and what is remembered between requests.
pub struct Service {
    store: Store,
    core: Arc<Core>,
    /// Opens data keys that come to be while the process runs.
    master: KeyBytes,
    clock: Clock,
    via: Via,
    slots: Slots,
    ring: RwLock<Arc<Ring>>,
    signatures: SignatureCache,
    params_in_use: RwLock<policy::ParamsInUse>,
    state: State,
    /// A server's, told which data key there is. Let go after the database is closed: fields are dropped in order.
    lock: OnceLock<ServerLock>,
}

/// What a write may use besides its transaction: rules and keys, no I/O, no clock, no randomness.
pub struct Core {
    policy: Arc<Policy>,
    /// Replaced as a whole when the database has got another data key.
    data_keys: RwLock<Arc<DataKeys>>,
    /// Opened signing keys by `kid`. What was opened stays right: a `kid` is a hash of its key.
    opened: Mutex<HashMap<String, Arc<SigningKey>>>,
}

/// The keys that tokens may be signed with, and how many rows they were read from.
struct Ring {
    keys: KeyRing,
    rows: i64,
}

/// Who is asking, as far as the network tells.
#[derive(Debug, Clone, Copy, Default)]
pub struct Call {
    /// The client's address; none for `mciasdb`.
    pub ip: Option<IpAddr>,
}

impl Service {
    /// Opens the house on a database, making its keys where there are none yet.
    ///
    /// # Errors
    /// `Internal` with a text for the operator: the master key doesn't open this database, or the database can't be
    /// read or written.
    pub fn open(store: Store, master: &keys::MasterSecret, policy: Policy, clock: Clock, via: Via) -> Result<Self> {
        let (master, data_keys) = keys::unlock(&store, master)?;
        Self::with_keys(store, master, data_keys, Arc::new(policy), clock, via)
    }

    /// The same house on another database that has the same master key, such as a copy of this one.
    ///
    /// # Errors
    /// `Conflict` where the master key doesn't open it; trouble with the file.
    fn on(&self, store: Store) -> Result<Self> {
        let wrapped = store.read(|view| view.data_keys())?;
        let data_keys = keys::unwrap_all(&self.master, &wrapped)
            .ok_or_else(|| Error::conflict("the master key was changed meanwhile; try again"))?;
        Self::with_keys(store, self.master.clone(), data_keys, self.core.policy.clone(), self.clock.clone(), self.via)
    }

    fn with_keys(
        store: Store,
        master: KeyBytes,
        data_keys: DataKeys,
        policy: Arc<Policy>,
        clock: Clock,
        via: Via,
    ) -> Result<Self> {
        let slots = Slots::new(policy.hashing_slots);
        let params_in_use = RwLock::new(policy::ParamsInUse::only(policy.argon2));
        let core = Arc::new(Core { policy, data_keys: RwLock::new(Arc::new(data_keys)), opened: Mutex::default() });
        let service = Self {
            store,
            core,
            master,
            clock,
            via,
            slots,
            ring: RwLock::new(Arc::new(Ring { keys: KeyRing::new([])?, rows: 0 })),
            signatures: SignatureCache::new(),
            params_in_use,
            state: State::default(),
            lock: OnceLock::new(),
        };
        service.refresh_ring()?;
        service.look_at_clock()?;
        Ok(service)
    }

    /// Keeps the lock of a server for as long as the house is there, and says in its file which data key the server has.
    pub fn keep(&self, lock: ServerLock) {
        self.lock.get_or_init(|| lock).tell(self.data_key(), None);
    }

    /// The number of the data key that this house seals with.
    pub fn data_key(&self) -> u32 {
        self.core.data_keys().current_id()
    }

    /// The rules this house goes by.
    pub fn policy(&self) -> &Policy {
        &self.core.policy
    }

    /// The database.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The hashing slots; tests hold them to pause a login.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn occasion(&self, call: &Call) -> Occasion {
        Occasion { time: self.clock.millis(), via: self.via, ip: call.ip }
    }

    /// Changes something, with rules and keys at hand.
    fn write<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&Tx<'_>, &Core) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let core = self.core.clone();
        self.store.write(move |tx| {
            if tx.current_data_key()? != core.data_keys().current_id() {
                return Err(other_data_key());
            }
            work(tx, &core)
        })
    }

    /// Reads the data keys again if the database has got another; says whether it had.
    ///
    /// # Errors
    /// `Internal` where the master key that this process was started with doesn't open them.
    pub fn refresh_data_keys(&self) -> Result<bool> {
        let wrapped = self.store.read(|view| view.data_keys())?;
        let newest = wrapped.iter().map(|(id, _)| *id).max();
        let ours = self.core.data_keys().current_id();
        if newest == Some(ours) {
            self.state.locked_out.store(false, Ordering::Release);
            return Ok(false);
        }
        let Some(keys) = keys::unwrap_all(&self.master, &wrapped) else {
            if !self.state.locked_out.swap(true, Ordering::AcqRel)
                && let Some(lock) = self.lock.get()
            {
                lock.tell(ours, newest);
            }
            return Err(Error::internal(
                "the database has another data key, which needs the new master key: start the server again",
            ));
        };
        let taken = keys.current_id();
        *self.core.data_keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        self.state.locked_out.store(false, Ordering::Release);
        if let Some(lock) = self.lock.get() {
            lock.tell(taken, None);
        }
        Ok(true)
    }

    /// The keys that verify tokens, as read last.
    fn ring(&self) -> Arc<Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the keys again if there are others than last time.
    fn refresh_ring(&self) -> Result<()> {
        if self.store.read(|view| view.signing_key_count())? == self.ring().rows {
            return Ok(());
        }
        let keys = self.store.read(|view| view.signing_keys())?;
        let tokens = keys.iter().filter(|key| key.purpose == KeyPurpose::Token).map(|key| key.public);
        let ring = Ring { keys: KeyRing::new(tokens)?, rows: i64::try_from(keys.len()).unwrap_or(i64::MAX) };
        let mut current = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        // Keys are never removed: what another thread has read meanwhile may be newer.
        if ring.rows > current.rows {
            *current = Arc::new(ring);
        }
        Ok(())
    }
}

impl Core {
    /// The key that signs for one who goes by `now`, as this transaction sees it.
    fn signer(&self, view: &View<'_>, purpose: KeyPurpose, now: Timestamp) -> Result<Arc<SigningKey>> {
        let row = view
            .signing_key_for(purpose, now)?
            .ok_or_else(|| Error::internal(format!("there is no {purpose} signing key in force")))?;
        self.open_key(&row)
    }

    fn open_key(&self, row: &KeyRow) -> Result<Arc<SigningKey>> {
        if let Some(key) = self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(&row.kid) {
            return Ok(key.clone());
        }
        let seed = self.open(&keys::private_key_place(&row.kid), &row.private)?;
        let key = Arc::new(SigningKey::from_seed(&seed)?);
        if key.kid() != row.kid || key.public() != row.public {
            return Err(Error::internal(format!("signing key {} isn't the one its row names", row.kid)));
        }
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(row.kid.clone(), key.clone());
        Ok(key)
    }

    fn data_keys(&self) -> Arc<DataKeys> {
        self.data_keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn seal(&self, place: &Place, nonce: [u8; 12], plaintext: &[u8]) -> Sealed {
        self.data_keys().seal(place, nonce, plaintext)
    }

    fn open(&self, place: &Place, sealed: &Sealed) -> Result<SecretBytes> {
        self.data_keys().open(place, sealed)
    }
}

/// What is sealed under a data key that is no longer the current one might be lost with it.
fn other_data_key() -> Error {
    Error::unavailable("the data key is being changed", 5).because("the database has got another data key")
}

/// A fresh id for a request. Nil where the system has no randomness, without which nothing secret works either.
pub fn request_id() -> uuid::Uuid {
    random::uuid_from_stock().unwrap_or_default()
}

/// A fresh nonce for one sealing.
fn nonce() -> Result<[u8; 12]> {
    random::bytes()
}

#[cfg(test)]
mod tests;
