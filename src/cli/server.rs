//! The role `mciassrv`: the REST and gRPC server.

mod certificates;
mod chores;
mod healthcheck;
mod pace;
pub(super) mod run;
mod signals;

use std::path::Path;

use super::command::{Command, Flag, Role};
use super::parse::Parsed;
use super::term::Failure;
use crate::config::{self, Config};
use run::Besides;

/// The role's table.
pub static ROLE: Role = Role {
    name: "mciassrv",
    word: "server",
    about: "the REST and gRPC server",
    common: &[],
    commands: &[Command {
        name: "",
        about: "the REST and gRPC server",
        notes: &[
            "Runs in the foreground and logs to standard error. SIGTERM ends it once requests under way are done; \
             SIGHUP reads certificate, key and log level again.",
        ],
        flags: &[
            Flag::value("config", "FILE", "the configuration").required(),
            Flag::switch("healthcheck", "ask the running server whether it is well; exit code 0 or 1"),
        ],
        args: &[],
        example: "--config /etc/mcias/mcias.conf",
        run,
    }],
    example: "--config /etc/mcias/mcias.conf",
    roles: &[],
};

fn run(parsed: &Parsed) -> Result<(), Failure> {
    let config = load(parsed)?;
    if parsed.switch("healthcheck") { healthcheck::ask(&config) } else { run::run(&config, Besides::default()) }
}

/// The configuration that `--config` names.
///
/// # Errors
/// Asked wrongly: the file isn't there, or something is wrong in it.
pub(super) fn load(parsed: &Parsed) -> Result<Config, Failure> {
    let path = parsed.value("config").unwrap_or_default();
    config::load(Path::new(path)).map_err(|e| Failure { code: super::term::ASKED_WRONGLY, message: e.to_string() })
}
