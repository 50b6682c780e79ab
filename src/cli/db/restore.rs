//! `mciasdb restore`: everything is done to a copy in the database's own folder, and only what is whole, verified and on
//! the disk takes the database's place.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::backup::policy;
use super::progress::Parts;
use super::{Command, Failure, Flag, Opened, Parsed, command};
use crate::cli::{secrets, server, term};
use crate::clock::Clock;
use crate::error::Error;
use crate::service::Service;
use crate::service::backup::Backup;
use crate::service::restore;
use crate::service::verify::verify;
use crate::store::files::{beside, folder_of, settle, sync_folder};
use crate::store::{self, ServerLock, Store};

pub(super) const RESTORE: Command = Command {
    notes: &[
        "The server has to be stopped. The backup is verified first, and nothing is changed unless all goes well. A new \
         epoch begins: no token, signing key or one-time code of the backup counts any more, so everybody logs in again \
         and programs need new tokens.",
        "With --force the database that is there is kept beside, and the name that it is kept by is printed.",
    ],
    flags: &[
        Flag::value("from", "FILE", "the backup").required(),
        Flag::switch("keep-tokens", "no new epoch: for a planned move of a stopped server, with its newest backup"),
        Flag::switch("force", "replace the database that is there, and keep it beside"),
    ],
    ..command(
        "restore",
        "make a backup the database again",
        "--config mcias.conf restore --from /mnt/backup/mcias-1.db",
        run,
    )
};

fn run(parsed: &Parsed) -> Result<(), Failure> {
    let from = Path::new(parsed.value("from").unwrap_or_default());
    let config = server::load(parsed)?;
    let database = real_path(&config.database.path)?;
    // To the end: no server may start meanwhile, either.
    let _lock = ServerLock::take(&config.database.path)?;
    let force = parsed.switch("force");
    if !force && database.symlink_metadata().is_ok() {
        return Err(Failure::new(format!(
            "{} is there already; --force replaces it and keeps it beside",
            database.display()
        )));
    }
    let master = secrets::master_key(&config)?;
    let policy = policy(&config)?;
    let failed = |e: Error| Failure::new(format!("{}: {e}; nothing was changed", from.display()));

    let mut parts = Parts::default();
    let mut progress = |what, done, of| parts.tell(what, done, of);
    let staging = Staging::begin(&database)?;
    staging.copy(from, &mut |done, of| progress("copying", done, of))?;
    let mut backup = Backup::open(&staging.file, &master).map_err(failed)?;
    backup.check_seal(&mut progress).map_err(failed)?;
    let made_at = backup.made_at();
    if !backup.is_up_to_date().map_err(failed)? {
        backup = backup.migrate(&Clock::System).map_err(failed)?;
    }
    let verified = backup.into_service(policy, Clock::System).map_err(failed)?;
    let report = verify(&verified, &mut progress);
    if let Some(damage) = report.damage() {
        return Err(failed(Error::conflict(format!("it doesn't verify: {damage}"))));
    }
    let opened = Opened { service: reopen(verified, &staging.file).map_err(failed)? };
    let (call, admin) = (opened.call(), opened.admin());
    if !parsed.switch("keep-tokens") {
        restore::begin_epoch(&opened.service, &call, &admin, &mut |done, of| progress("revoking", done, of))
            .map_err(failed)?;
    }
    restore::finish(opened.service, &call, &admin, made_at).map_err(failed)?;
    drop(parts);

    let stamp = Clock::System.now().to_string().replace(['-', ':'], "");
    let kept = staging.put(force.then_some(stamp.as_str()))?;
    if let Some(deviations) = report.deviations() {
        let deviations = term::escape(&deviations).into_owned();
        term::err(&format!("mciasdb: not all accounts are what the audit log says they are: {deviations}\n"));
    }
    if parsed.switch("keep-tokens") {
        term::err(
            "mciasdb: with --keep-tokens every token, signing key and one-time code of the backup counts, also what was \
             revoked or used since it was made\n",
        );
    }
    kept.map_or(Ok(()), |kept| term::out(&format!("{}\n", kept.display())))
}

/// The same copy, from here on to be changed.
fn reopen(verified: Service, file: &Path) -> Result<Service, Error> {
    restore::open(&verified, Store::open(file)?)
}

/// Where the database is, or will be: where a link leads to, so that it isn't the link that is replaced.
fn real_path(path: &Path) -> Result<PathBuf, Failure> {
    let failed = |e: io::Error| Failure::new(format!("{}: {e}", path.display()));
    if path.symlink_metadata().is_ok() {
        return fs::canonicalize(path).map_err(failed);
    }
    let folder = fs::canonicalize(folder_of(path)).map_err(failed)?;
    let name = path.file_name().ok_or_else(|| Failure::new(format!("{} names no file", path.display())))?;
    Ok(folder.join(name))
}

/// A folder in the database's own folder, in which the next database comes to be. Dropped, it is gone; where the process
/// was killed it stays until the next restore.
struct Staging {
    database: PathBuf,
    folder: PathBuf,
    file: PathBuf,
}

impl Staging {
    /// Begins one. Whoever calls holds the server's lock: what is there is of nobody who is still alive.
    fn begin(database: &Path) -> Result<Self, Failure> {
        let folder = beside(database, ".restoring");
        let failed = |e: io::Error| Failure::new(format!("{}: {e}", folder.display()));
        match fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        store::clear_leftovers(database).map_err(failed)?;
        DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
        let staging = Self { database: database.to_owned(), file: folder.join("mcias.db"), folder: folder.clone() };
        File::open(&folder).and_then(|opened| settle(&opened, folder_of(database), 0o700)).map_err(failed)?;
        Ok(staging)
    }

    /// Copies the backup, so that what is verified is what becomes the database.
    fn copy(&self, from: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Failure> {
        let unread = |e: io::Error| Failure::new(format!("{}: {e}", from.display()));
        let unwritten = |e: io::Error| Failure::new(format!("{}: {e}; nothing was changed", self.file.display()));
        let metadata = from.metadata().map_err(unread)?;
        if !metadata.is_file() {
            return Err(Failure::new(format!("{} is no file", from.display())));
        }
        let mut source = File::open(from).map_err(unread)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.file);
        let mut file = file.map_err(unwritten)?;
        settle(&file, folder_of(&self.database), 0o600).map_err(unwritten)?;
        let mut buffer = vec![0; 1 << 16];
        let mut done = 0;
        loop {
            let read = match source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(unread(e)),
            };
            file.write_all(&buffer[..read]).map_err(unwritten)?;
            done += read as u64;
            progress(done, metadata.len());
        }
    }

    /// Puts it in the database's place; gives where the former database is kept.
    fn put(self, keep: Option<&str>) -> Result<Option<PathBuf>, Failure> {
        sync_folder(&self.folder).map_err(|e| Failure::new(format!("{}: {e}", self.folder.display())))?;
        Ok(store::replace(&self.file, &self.database, keep)?)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What can't be removed now, the next restore removes.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
