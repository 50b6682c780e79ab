//! `mciasdb keys …` and `mciasdb rekey`.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Command, Failure, Flag, JSON, Opened, Parsed, command};
use crate::cli::secrets;
use crate::cli::term::{self, Table};
use crate::config;
use crate::model::time::Timestamp;
use crate::service::keys::MasterSecret;
use crate::service::{Service, rekey, rotation};
use crate::store::ServerLock;

pub(super) const LIST: Command =
    Command { flags: &[JSON], ..command("keys list", "list the signing keys", "--config mcias.conf keys list", list) };

pub(super) const ROTATE: Command = Command {
    notes: &[
        "The new key is published at once and signs after the soak, so that whoever caches the key set knows it by then; \
         the old one verifies until its last token has ended. Prints the new key's kid.",
    ],
    flags: &[
        Flag::switch("now", "let the new key sign at once"),
        Flag::value("soak", "D", "how long the new key is published before it signs; without it, 10m"),
        Flag::switch("audit", "rotate the key that signs audit checkpoints"),
    ],
    ..command("keys rotate", "make the next signing key", "--config mcias.conf keys rotate --soak 20m", rotate)
};

pub(super) const REVOKE: Command = Command {
    notes: &[
        "For a key that has leaked. None of its tokens counts from here on; everybody has to log in again. Prints how many \
         live tokens there were. Revoking the one that signs lets one that is waiting take over: revoke that one before, \
         if it has leaked as well.",
        "An audit key can be revoked once 'keys rotate --audit' has made the next: what it signed until then stands, and \
         what somebody signs with it from here on doesn't.",
    ],
    flags: &[
        Flag::value("kid", "K", "the key, as 'keys list' names it").required(),
        Flag::switch("yes", "really: it can't be undone"),
    ],
    ..command(
        "keys revoke",
        "revoke a signing key and all its tokens",
        "--config mcias.conf keys revoke --kid KID --yes",
        revoke,
    )
};

pub(super) const REKEY: Command = Command {
    notes: &[
        "The master key is switched in the last transaction; until then the old one opens everything. Afterwards change \
         [master_key] in the configuration before the server is started again. Backups made before still need the old key.",
    ],
    flags: &[
        Flag::value("new-keyfile", "FILE", "the new master key is in this file"),
        Flag::value("new-passphrase-env", "VAR", "the new passphrase is in this variable"),
        Flag::value("new-passphrase-file", "FILE", "the new passphrase is in this file"),
        Flag::switch("new-data-key", "make another data key, too, and seal everything again"),
    ],
    ..command("rekey", "change the master key", "--config mcias.conf rekey --new-keyfile new.key", change)
};

fn list(parsed: &Parsed) -> Result<(), Failure> {
    let opened = Opened::open(parsed)?;
    let keys = rotation::list(&opened.service, &opened.admin())?;
    let now = crate::clock::Clock::System.now();
    let state = |key: &crate::store::KeyRow| match () {
        () if key.revoked_at.is_some() => "revoked",
        () if !key.verifies(now) => "ended",
        () if key.signs_from > now => "waiting",
        () if key.signs(now) => "signs",
        () => "verifies",
    };
    let text = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    if parsed.switch("json") {
        let shown = |at: Option<Timestamp>| at.map(|at| at.to_string());
        let rows: Vec<_> = keys
            .iter()
            .map(|key| {
                json!({"kid": key.kid, "purpose": key.purpose.as_str(), "state": state(key),
                       "created_at": key.created_at.to_string(), "signs_from": key.signs_from.to_string(),
                       "retired_at": shown(key.retired_at), "verify_until": shown(key.verify_until),
                       "revoked_at": shown(key.revoked_at)})
            })
            .collect();
        return term::out(&format!("{}\n", serde_json::Value::from(rows)));
    }
    let mut table =
        Table::new(&["KID", "PURPOSE", "STATE", "CREATED", "SIGNS FROM", "RETIRED", "VERIFIES UNTIL", "REVOKED"]);
    for key in &keys {
        table.row([
            key.kid.clone(),
            key.purpose.to_string(),
            state(key).to_owned(),
            key.created_at.to_string(),
            key.signs_from.to_string(),
            text(key.retired_at),
            text(key.verify_until),
            text(key.revoked_at),
        ]);
    }
    table.print()
}

fn rotate(parsed: &Parsed) -> Result<(), Failure> {
    let soak = match (parsed.switch("now"), parsed.text("soak")?) {
        (true, Some(_)) => return Err(parsed.usage("--now and --soak exclude each other").into()),
        (true, None) => 0,
        (false, None) => rotation::SOAK,
        (false, Some(text)) => {
            let soak = config::parse_duration(text).map_err(|e| parsed.usage(format!("--soak: {e}")))?;
            i64::try_from(soak.as_secs()).unwrap_or(i64::MAX)
        }
    };
    let audit = parsed.switch("audit");
    if audit && parsed.text("soak")?.is_some() {
        return Err(parsed.usage("--audit and --soak exclude each other: an audit key signs at once").into());
    }
    let opened = Opened::open(parsed)?;
    let kid = if audit {
        rotation::rotate_audit(&opened.service, &opened.call(), &opened.admin())?
    } else {
        rotation::rotate(&opened.service, &opened.call(), &opened.admin(), soak)?
    };
    opened.changed()?;
    term::out(&format!("{kid}\n"))
}

fn revoke(parsed: &Parsed) -> Result<(), Failure> {
    if !parsed.switch("yes") {
        return Err(parsed.usage("--yes is missing: every token of the key ends").into());
    }
    let kid = parsed.text("kid")?.unwrap_or_default();
    let opened = Opened::open(parsed)?;
    let count = rotation::revoke(&opened.service, &opened.call(), &opened.admin(), kid)?;
    opened.changed()?;
    term::out(&format!("{count}\n"))
}

/// How long a running server has to take another data key: it looks every five seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often what it says is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Waits for the server that runs, if one does, to have the current data key: what is sealed again under a key that it
/// can't open is out of its reach.
fn wait_for_server(service: &Service) -> Result<(), Failure> {
    let (database, wanted) = (service.store().path(), service.data_key());
    let begun = Instant::now();
    let mut said = false;
    while let Some(told) = ServerLock::told(database) {
        if told.data_key == Some(wanted) {
            break;
        }
        if told.locked_out == Some(wanted) {
            return Err(Failure::new(
                "the running server can't open the new data key: it was started with an older master key; restart it \
                 and run this again",
            ));
        }
        if begun.elapsed() >= PATIENCE {
            return Err(Failure::new(format!(
                "the running server hasn't taken the new data key within {} s; look at its log, restart it and run \
                 this again",
                PATIENCE.as_secs()
            )));
        }
        if !std::mem::replace(&mut said, true) {
            term::err("mciasdb: waiting for the running server to take the new data key\n");
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn change(parsed: &Parsed) -> Result<(), Failure> {
    let sources = ["new-keyfile", "new-passphrase-env", "new-passphrase-file"];
    if sources.iter().filter(|name| parsed.value(name).is_some()).count() != 1 {
        let message = "exactly one of --new-keyfile, --new-passphrase-env and --new-passphrase-file is needed";
        return Err(parsed.usage(message).into());
    }
    let opened = Opened::open(parsed)?;
    let (service, call, admin) = (&opened.service, opened.call(), opened.admin());
    let new = new_master(parsed, service.store().path())?;
    if parsed.switch("new-data-key") {
        rekey::begin_data_key(service, &admin)?;
        wait_for_server(service)?;
        let mut progress = term::Progress::new("values sealed again");
        loop {
            rekey::reseal(service, &admin, &mut |done| progress.show(done))?;
            if rekey::finish_data_key(service, &call, &admin, &new)? {
                break;
            }
        }
    } else {
        rekey::change_master(service, &call, &admin, &new)?;
    }
    opened.changed()?;
    term::err(
        "mciasdb: the master key is changed. Change [master_key] in the configuration before the next start, and keep \
         the old key for as long as you keep backups made before: they still need it\n",
    );
    Ok(())
}

/// Reads the new master key from where the flags say it is.
fn new_master(parsed: &Parsed, database: &Path) -> Result<MasterSecret, Failure> {
    let folder = database.parent();
    if let Some(path) = parsed.value("new-keyfile") {
        return secrets::key_file(Path::new(path), "--new-keyfile", folder);
    }
    let (new, whence) = match parsed.value("new-passphrase-file") {
        Some(path) => {
            let path = Path::new(path);
            (secrets::passphrase_file(path, "--new-passphrase-file", folder)?, path.display().to_string())
        }
        None => {
            let name = parsed.text("new-passphrase-env")?.unwrap_or_default();
            (secrets::passphrase_in(name, "--new-passphrase-env")?, name.to_owned())
        }
    };
    if let MasterSecret::Passphrase(passphrase) = &new {
        secrets::long_enough(passphrase, &whence)?;
    }
    Ok(new)
}
