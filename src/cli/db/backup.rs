//! `mciasdb backup` and `mciasdb verify`.

use std::path::Path;
use std::time::Duration;

use super::audit::count;
use super::newfile::NewFile;
use super::progress::Parts;
use super::{Command, Failure, Flag, Opened, Parsed, command};
use crate::cli::secrets;
use crate::cli::server;
use crate::cli::term;
use crate::clock::Clock;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::audit::{EventType, Via};
use crate::model::time::Timestamp;
use crate::service::backup::{self, Backup};
use crate::service::policy::Blocklist;
use crate::service::verify::{Report, verify};
use crate::service::{Policy, Service};
use crate::store::Store;

pub(super) const BACKUP: Command = Command {
    notes: &[
        "Consistent, while the server runs. The file is sealed, opened again and verified before it has its name. It \
         holds what the database holds, sealed alike: to restore it takes the master key, which isn't in it.",
        "Where something in the database doesn't verify, the backup is kept, but the exit code is 1. Ended by a signal it \
         leaves nothing; killed, it leaves a file that ends in .partial, which the next run with the same name removes.",
        "Where the database's own disk is full or can't be written a backup to another place still works; it warns \
         then that the audit log couldn't be told.",
    ],
    flags: &[Flag::value("out", "FILE", "write to this file, which must not be there").required()],
    ..command(
        "backup",
        "make a sealed copy of the database",
        "--config mcias.conf backup --out /mnt/backup/mcias-1.db",
        make,
    )
};

pub(super) const VERIFY: Command = Command {
    notes: &[
        "The file itself, its foreign keys, every sealed value, the audit chain; and whether each account's status and \
         roles are what the audit log says. Names what is wrong; exit code 1 then. Changes nothing.",
        "With --file a backup, and its seal as well. It is only read, and needs no database beside it.",
    ],
    flags: &[Flag::value("file", "FILE", "verify this backup, not the database")],
    ..command("verify", "verify the database, or a backup", "--config mcias.conf verify --file backup.db", check)
};

fn make(parsed: &Parsed) -> std::result::Result<(), Failure> {
    let out = Path::new(parsed.value("out").unwrap_or_default());
    let opened = Opened { service: open_to_read(&server::load(parsed)?)? };
    let file = NewFile::begin(out, opened.folder())?;
    let failed = |e: Error| Failure::new(format!("{}: {e}", out.display()));
    let made_at = copy(&opened.service, file.partial()).map_err(failed)?;
    let mut parts = Parts::default();
    let report =
        backup::seal(&opened.service, file.partial(), made_at, &mut |what, done, of| parts.tell(what, done, of))
            .map_err(failed)?;
    drop(parts);
    file.put()?;
    let noted = opened.service.ensure_signing_keys().and_then(|()| opened.service.note(EventType::BackupMade));
    if let Err(e) = noted.and_then(|()| opened.service.checkpoint().map(drop)) {
        let e = e.to_string();
        term::err(&format!("mciasdb: the backup is made, but the audit log couldn't be told: {}\n", term::escape(&e)));
    }
    match report.damage() {
        None => Ok(()),
        // Of what there is: better than none, but nothing to rely on.
        Some(damage) => {
            Err(Failure::new(format!("{} is made, but what is in it doesn't verify: {damage}", out.display())))
        }
    }
}

/// Opens the database for what mostly reads; it makes no keys.
fn open_to_read(config: &Config) -> std::result::Result<Service, Failure> {
    let store = Store::open_to_read(&config.database.path)?;
    if store.read(|view| view.data_keys())?.is_empty() {
        return Err(Failure::new("the database has no keys yet: nothing has ever been stored in it"));
    }
    let master = secrets::master_key(config)?;
    Ok(Service::open(store, &master, policy(config)?, Clock::System, Via::Mciasdb)?)
}

pub(super) fn policy(config: &Config) -> std::result::Result<Policy, Failure> {
    // No password is set here, so none is looked up.
    Ok(Policy::new(config, Blocklist::default(), 1)?)
}

/// Copies; SQLite doesn't tell how far it has come, but the file's length does.
fn copy(service: &Service, to: &Path) -> Result<Timestamp> {
    if !Parts::is_seen() {
        return backup::copy(service, to);
    }
    let total = service.store().size();
    let mut parts = Parts::default();
    std::thread::scope(|scope| {
        let copying = scope.spawn(|| backup::copy(service, to));
        while !copying.is_finished() {
            parts.tell("copying", to.metadata().map_or(0, |file| file.len()), total);
            std::thread::sleep(Duration::from_millis(50));
        }
        copying.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn check(parsed: &Parsed) -> std::result::Result<(), Failure> {
    let config = server::load(parsed)?;
    let mut parts = Parts::default();
    let mut progress = |what, done, of| parts.tell(what, done, of);
    let Some(file) = parsed.value("file") else {
        let service = open_to_read(&config)?;
        let report = verify(&service, &mut progress);
        drop(parts);
        return tell(&config.database.path, &report, "");
    };
    let file = Path::new(file);
    let failed = |e: Error| Failure::new(format!("{}: {e}", file.display()));
    let master = secrets::master_key(&config)?;
    let backup = Backup::open(file, &master).map_err(failed)?;
    backup.check_seal(&mut progress).map_err(failed)?;
    let made_at = backup.made_at();
    if !backup.is_up_to_date().map_err(failed)? {
        drop(parts);
        return term::out(&format!(
            "the seal fits; made {made_at}, with an older schema: what is in it is verified when it is restored\n"
        ));
    }
    let service = backup.into_service(policy(&config)?, Clock::System).map_err(failed)?;
    let report = verify(&service, &mut progress);
    drop(parts);
    tell(file, &report, &format!("; the seal fits, made {made_at}"))
}

/// Says what was found, in one line.
fn tell(path: &Path, report: &Report, more: &str) -> std::result::Result<(), Failure> {
    let wrong: Vec<String> = [report.damage(), report.deviations()].into_iter().flatten().collect();
    if !wrong.is_empty() {
        return Err(Failure::new(format!("{} doesn't verify: {}", path.display(), wrong.join("; "))));
    }
    let (log, accounts) = (&report.log, &report.accounts);
    let mut text = format!(
        "sound: {}, {}, {}",
        count(report.values, "sealed value"),
        count(log.rows, "event"),
        count(log.checkpoints, "checkpoint")
    );
    if log.not_anchored > 0 {
        text.push_str(&format!(" ({} not yet anchored)", count(log.not_anchored, "event")));
    }
    text.push_str(&format!(", {}", count(accounts.accounts, "account")));
    if accounts.partly > 0 {
        text.push_str(&format!(" ({} only as far as the log goes back: the rest is archived)", accounts.partly));
    }
    term::out(&format!("{text}{more}\n"))
}
