//! `mciasdb schema …`: which version the database has, and bringing it up to date. The only commands that work on a
//! schema that isn't the program's. `verify` needs no key.

use super::{Command, Failure, Parsed, command};
use crate::cli::{server, term};
use crate::clock::Clock;
use crate::model::audit::{Occasion, Via};
use crate::store::{self, LATEST_SCHEMA, Store};

pub(super) const VERIFY: Command = Command {
    notes: &["Exit code 0: up to date. 1: migrations are pending, or the database is newer than this program."],
    ..command("schema verify", "show the schema version", "--config mcias.conf schema verify", verify)
};

pub(super) const MIGRATE: Command =
    command("schema migrate", "apply pending migrations", "--config mcias.conf schema migrate", migrate);

fn verify(parsed: &Parsed) -> Result<(), Failure> {
    let config = server::load(parsed)?;
    let version = store::schema_version(&config.database.path)?;
    term::out(&format!("{version}\n"))?;
    match version {
        LATEST_SCHEMA => Ok(()),
        older if older < LATEST_SCHEMA => {
            let pending = LATEST_SCHEMA - older;
            Err(Failure::new(format!("migrations pending: {pending}; run 'mciasdb schema migrate'")))
        }
        _ => Err(Failure::new(format!("the database is newer than this program, whose version is {LATEST_SCHEMA}"))),
    }
}

fn migrate(parsed: &Parsed) -> Result<(), Failure> {
    let config = server::load(parsed)?;
    let path = &config.database.path;
    let before = store::schema_version(path)?;
    Store::open_and_migrate(path, Occasion { time: Clock::System.millis(), via: Via::Mciasdb, ip: None })?;
    let applied: String = (before + 1..=LATEST_SCHEMA).map(|version| format!("{version}\n")).collect();
    term::out(&applied)
}
