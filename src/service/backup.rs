//! Backups: made while the server writes, and sealed, so that any change to them is found.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::keys::{MasterSecret, unlock};
use super::verify::{Progress, Report, verify};
use super::{Policy, Service};
use crate::clock::Clock;
use crate::crypto::seal::{ContentMac, DataKeys};
use crate::error::{Error, Result};
use crate::model::audit::{Occasion, Via};
use crate::model::time::Timestamp;
use crate::random;
use crate::secret::KeyBytes;
use crate::store::{LATEST_SCHEMA, SealRow, Store, read_sealed, seal_content, seal_file};

/// What the keys of a seal are derived for; and what its bytes begin with.
const CONTENT: &str = "mcias-backup-1 content";
const FILE: &str = "mcias-backup-1 file";
const BEGINS: &[u8] = b"mcias-backup-1\0";

/// How many bytes are gone through between two reports of progress.
const STEP: u64 = 1 << 16;

/// Copies the database, as it is at one moment, into the empty file `to`.
///
/// # Errors
/// `Internal`, with a text for the operator, where it can't be read or written.
pub fn copy(service: &Service, to: &Path) -> Result<Timestamp> {
    let made_at = service.now();
    service.store.copy_to(to).map(|()| made_at)
}

/// Seals a fresh copy, opens it again and goes through all of it.
///
/// # Errors
/// `Conflict` where the copy isn't sound in itself: nothing would be worth keeping. What else doesn't verify is in the
/// report: the database is like that, and a backup of it is better than none.
pub fn seal(service: &Service, copy: &Path, made_at: Timestamp, progress: Progress<'_>) -> Result<Report> {
    // With the copy's own data keys: the database may have got another since.
    let store = Store::open_unchanging(copy)?;
    let opened = service.on(store)?;
    let keys = opened.core.data_keys();
    let mut seal = SealRow {
        version: SealRow::VERSION,
        made_at,
        data_key: keys.current_id(),
        content: [0; 32],
        file: *random::key()?.expose(),
    };
    let total = opened.store.size();
    seal.content = content_mac(&opened.store, &keys, &seal, &mut |done| progress("sealing", done, total))?.finish();
    drop(opened);
    seal_content(copy, &seal)?;
    let file = file_mac(copy, &keys, &seal, &mut |done| progress("sealing", done, total))?.finish();
    seal_file(copy, &seal, file)?;

    let backup = Backup::of(copy, service.master.clone(), keys)?;
    backup.check_seal(progress)?;
    let report = verify(&service.on(backup.store)?, progress);
    match report.damage().filter(|_| report.broken) {
        Some(fault) => Err(Error::conflict(format!("the database can't be copied soundly: {fault}"))),
        None => Ok(report),
    }
}

/// A backup, opened for reading. Nothing of it is to be trusted before [`Backup::check_seal`].
pub struct Backup {
    path: PathBuf,
    store: Store,
    master: KeyBytes,
    keys: Arc<DataKeys>,
    seal: SealRow,
}

impl Backup {
    /// Opens the file and its data keys.
    ///
    /// # Errors
    /// With a text for the operator: it is no database, or one of a newer program, or has no seal; the master key
    /// doesn't open it.
    pub fn open(file: &Path, master: &MasterSecret) -> Result<Self> {
        let store = Store::open_unchanging(file)?;
        if store.read(|view| view.backup_seal())?.is_none() {
            return Err(Error::conflict("it is no backup: it has no seal"));
        }
        let version = store.schema_version()?;
        if version > LATEST_SCHEMA {
            return Err(Error::conflict(format!(
                "it has schema version {version}, newer than this program's {LATEST_SCHEMA}: use the newer program"
            )));
        }
        if store.read(|view| view.data_keys())?.is_empty() {
            return Err(Error::conflict("it has no data key"));
        }
        let (master, keys) = unlock(&store, master)?;
        Self::of(file, master, Arc::new(keys))
    }

    fn of(file: &Path, master: KeyBytes, keys: Arc<DataKeys>) -> Result<Self> {
        let store = Store::open_unchanging(file)?;
        let seal = store.read(|view| view.backup_seal())?;
        let seal = seal.ok_or_else(|| Error::conflict("it is no backup: it has no seal"))?;
        Ok(Self { path: file.to_owned(), store, master, keys, seal })
    }

    /// When it was made.
    pub fn made_at(&self) -> Timestamp {
        self.seal.made_at
    }

    /// Whether it has the schema of this program; otherwise an older one.
    ///
    /// # Errors
    /// Trouble with the file.
    pub fn is_up_to_date(&self) -> Result<bool> {
        Ok(self.store.schema_version()? == LATEST_SCHEMA)
    }

    /// Whether it is to the bit what was sealed.
    ///
    /// # Errors
    /// `Conflict` where it was changed; trouble with the file.
    pub fn check_seal(&self, progress: Progress<'_>) -> Result<()> {
        let (keys, seal, total) = (&self.keys, &self.seal, self.store.size());
        if seal.data_key != keys.current_id() {
            return Err(Error::conflict(format!(
                "its seal is by data key {}, but it has data key {}",
                seal.data_key,
                keys.current_id()
            )));
        }
        let mut tell = |done| progress("checking the seal", done, total);
        if !file_mac(&self.path, keys, seal, &mut tell)?.is(&seal.file) {
            return Err(Error::conflict("it was changed after it was made: its bytes aren't those that were sealed"));
        }
        if !content_mac(&self.store, keys, seal, &mut tell)?.is(&seal.content) {
            return Err(Error::conflict("it was changed after it was made: its rows aren't those that were sealed"));
        }
        Ok(())
    }

    /// Brings a copy that is ours up to date.
    ///
    /// # Errors
    /// A migration fails; trouble with the file.
    pub fn migrate(self, clock: &Clock) -> Result<Self> {
        let Self { path, store, master, keys, .. } = self;
        drop(store);
        Store::open_and_migrate(&path, Occasion { time: clock.millis(), via: Via::Mciasdb, ip: None })?;
        Self::of(&path, master, keys)
    }

    /// The house on it, which can only be read.
    ///
    /// # Errors
    /// Trouble with the file.
    pub fn into_service(self, policy: Policy, clock: Clock) -> Result<Service> {
        let keys = Arc::into_inner(self.keys).ok_or_else(|| Error::internal("the data keys are in use"))?;
        Service::with_keys(self.store, self.master, keys, Arc::new(policy), clock, Via::Mciasdb)
    }
}

/// Over what is in the tables.
fn content_mac(store: &Store, keys: &DataKeys, seal: &SealRow, progress: &mut dyn FnMut(u64)) -> Result<ContentMac> {
    let mut mac = keys.mac(CONTENT);
    mac.update(BEGINS);
    mac.update(&seal.data_key.to_be_bytes());
    mac.update(&seal.made_at.seconds().to_be_bytes());
    let mut counted = counting(&mut mac, progress);
    store.snapshot(|view| view.contents(&mut counted))?;
    drop(counted);
    Ok(mac)
}

/// Over the bytes of the file.
fn file_mac(path: &Path, keys: &DataKeys, seal: &SealRow, progress: &mut dyn FnMut(u64)) -> Result<ContentMac> {
    let mut mac = keys.mac(FILE);
    mac.update(BEGINS);
    let mut counted = counting(&mut mac, progress);
    read_sealed(path, seal, &mut counted)?;
    drop(counted);
    Ok(mac)
}

fn counting(mac: &mut ContentMac, progress: &mut dyn FnMut(u64)) -> impl FnMut(&[u8]) {
    let mut done: u64 = 0;
    move |piece| {
        mac.update(piece);
        let before = done;
        done += piece.len() as u64;
        if before / STEP != done / STEP {
            progress(done);
        }
    }
}
