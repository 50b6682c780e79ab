//! The role `mciasdb`: maintenance directly on the database file, for when the server is down or nobody can log in.
//! Whoever can read the database and its master key is trusted; no token is asked for.

mod accounts;
mod audit;
mod backup;
mod keys;
mod newfile;
mod pgcreds;
mod progress;
mod restore;
mod schema;
mod tokens;

use std::path::Path;

use super::command::{Command, Flag, Role};
use super::parse::Parsed;
use super::secrets;
use super::server;
use super::term::Failure;
use crate::clock::Clock;
use crate::config::Config;
use crate::model::account::{Account, AccountId, AccountStatus, Username};
use crate::model::audit::{EventType, Via};
use crate::service::access::{Admin, AdminOrOwner};
use crate::service::policy::Blocklist;
use crate::service::{Call, Policy, Service};
use crate::store::Store;

/// The role's table.
pub static ROLE: Role = Role {
    name: "mciasdb",
    word: "db",
    about: "maintenance directly on the database file",
    common: &[CONFIG],
    commands: &[
        schema::VERIFY,
        schema::MIGRATE,
        accounts::LIST,
        accounts::GET,
        accounts::CREATE,
        accounts::SET_PASSWORD,
        accounts::SET_STATUS,
        accounts::RESET_TOTP,
        accounts::ROLE_LIST,
        accounts::ROLE_GRANT,
        accounts::ROLE_REVOKE,
        tokens::LIST,
        tokens::REVOKE,
        tokens::REVOKE_ALL,
        tokens::PRUNE,
        audit::TAIL,
        audit::QUERY,
        audit::VERIFY,
        audit::EXPORT,
        audit::ARCHIVE,
        audit::KEY,
        pgcreds::GET,
        pgcreds::SET,
        pgcreds::DELETE,
        keys::LIST,
        keys::ROTATE,
        keys::REVOKE,
        keys::REKEY,
        backup::BACKUP,
        restore::RESTORE,
        backup::VERIFY,
        CLOCK_ACCEPT,
    ],
    example: "--config /etc/mcias/mcias.conf account list",
    roles: &[],
};

const CONFIG: Flag = Flag::value("config", "FILE", "the server's configuration").required();
const ID: Flag = Flag::value("id", "A", "the account, by UUID or username").required();
const JSON: Flag = Flag::switch("json", "print JSON");
const PASSWORD_STDIN: Flag = Flag::switch("password-stdin", "read the password from standard input, one line");

const CLOCK_ACCEPT: Command = Command {
    notes: &[
        "A server whose clock is more than five minutes before the newest event in the database serves nothing but \
         health. Say this once you have made sure that the clock is right and the events are not.",
    ],
    ..command(
        "clock accept",
        "take the clock as it is, though events are in its future",
        "--config mcias.conf clock accept",
        clock_accept,
    )
};

fn clock_accept(parsed: &Parsed) -> Result<(), Failure> {
    let opened = Opened::open(parsed)?;
    opened.service.note(EventType::ClockAccepted)?;
    opened.changed()
}

/// A command of this role without flags of its own.
const fn command(
    name: &'static str,
    about: &'static str,
    example: &'static str,
    run: fn(&Parsed) -> Result<(), Failure>,
) -> Command {
    Command { name, about, notes: &[], flags: &[], args: &[], example, run }
}

/// An opened database with its keys.
struct Opened {
    service: Service,
}

impl Opened {
    /// Opens what the configuration names; makes the keys of a database that has none yet. Not for a command that sets a
    /// password.
    fn open(parsed: &Parsed) -> Result<Self, Failure> {
        Self::with_blocklist(parsed, |_| Ok(Blocklist::default()))
    }

    /// The same, with the passwords that nobody may have.
    fn open_for_passwords(parsed: &Parsed) -> Result<Self, Failure> {
        Self::with_blocklist(parsed, secrets::blocklist)
    }

    fn with_blocklist(
        parsed: &Parsed,
        blocklist: impl FnOnce(&Config) -> Result<Blocklist, Failure>,
    ) -> Result<Self, Failure> {
        let config = server::load(parsed)?;
        let store = Store::open(&config.database.path)?;
        let master = secrets::master_key(&config)?;
        let policy = Policy::new(&config, blocklist(&config)?, 1)?;
        let service = Service::open(store, &master, policy, Clock::System, Via::Mciasdb)?;
        service.ensure_signing_keys()?;
        Ok(Self { service })
    }

    fn admin(&self) -> Admin {
        Admin::maintenance(&self.service)
    }

    fn admin_or_owner(&self) -> AdminOrOwner {
        AdminOrOwner::maintenance(&self.service)
    }

    fn call(&self) -> Call {
        Call::default()
    }

    /// The folder that the database is in, whose owner gets the files that are made.
    fn folder(&self) -> &Path {
        let folder = self.service.store().path().parent();
        folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// Signs a checkpoint: the tool holds the audit key and anchors each change that it makes.
    fn changed(&self) -> Result<(), Failure> {
        Ok(self.service.checkpoint().map(drop)?)
    }

    /// The account that `--id` names, by UUID or username; with `deleted`, by UUID also one that is deleted.
    fn account(&self, parsed: &Parsed, deleted: bool) -> Result<Account, Failure> {
        let named = parsed.text("id")?.unwrap_or_default();
        let found = self.service.store().read(|view| match AccountId::parse(&named.to_ascii_lowercase()) {
            Some(id) => view.account(id),
            None => match Username::parse(named) {
                Ok(name) => view.account_named(&name),
                Err(_) => Ok(None),
            },
        })?;
        found
            .filter(|account| deleted || account.status != AccountStatus::Deleted)
            .ok_or_else(|| Failure::new("no such account; 'mciasdb account list' shows those there are"))
    }
}
