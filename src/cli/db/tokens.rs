//! `mciasdb token …` and `mciasdb prune tokens`.

use super::{Command, Failure, Flag, ID, JSON, Opened, Parsed, command};
use crate::cli::{given, show, term};
use crate::model::account::Page;
use crate::model::token::ListTokens;
use crate::service::tokens;

pub(super) const LIST: Command = Command {
    flags: &[ID, JSON],
    ..command("token list", "list an account's tokens", "--config mcias.conf token list --id alice", list)
};

pub(super) const REVOKE: Command = Command {
    notes: &["Counts at the next check, also of a running server."],
    flags: &[Flag::value("jti", "J", "the token's id").required()],
    ..command(
        "token revoke",
        "revoke a token",
        "--config F token revoke --jti 0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11",
        revoke,
    )
};

pub(super) const REVOKE_ALL: Command = Command {
    notes: &["Prints how many were live."],
    flags: &[ID],
    ..command(
        "token revoke-all",
        "revoke all tokens of an account",
        "--config mcias.conf token revoke-all --id alice",
        revoke_all,
    )
};

pub(super) const PRUNE: Command = Command {
    notes: &["Refused while the clock is behind the newest event. Prints how many there were."],
    ..command("prune tokens", "remove the rows of expired tokens", "--config mcias.conf prune tokens", prune)
};

fn list(parsed: &Parsed) -> Result<(), Failure> {
    let opened = Opened::open(parsed)?;
    let account = opened.account(parsed, false)?.id;
    let mut rows = Vec::new();
    let mut cursor = None;
    loop {
        let input = ListTokens { account, page: Page { limit: Page::MAX_LIMIT, cursor } };
        let listing = tokens::list(&opened.service, &opened.call(), &opened.admin_or_owner(), input)?;
        rows.extend(listing.rows);
        cursor = listing.next;
        if cursor.is_none() {
            break;
        }
    }
    show::tokens(rows, parsed.switch("json"))
}

fn revoke(parsed: &Parsed) -> Result<(), Failure> {
    let jti = given::jti(parsed, "jti")?;
    let opened = Opened::open(parsed)?;
    tokens::revoke_as_admin(&opened.service, &opened.call(), &opened.admin(), jti)?;
    opened.changed()
}

fn revoke_all(parsed: &Parsed) -> Result<(), Failure> {
    let opened = Opened::open(parsed)?;
    let account = opened.account(parsed, false)?.id;
    let revoked = tokens::revoke_all_of(&opened.service, &opened.call(), &opened.admin_or_owner(), account)?;
    opened.changed()?;
    term::out(&format!("{}\n", revoked.0))
}

fn prune(parsed: &Parsed) -> Result<(), Failure> {
    let opened = Opened::open(parsed)?;
    opened.service.admit()?;
    let pruned = opened.service.prune_expired(0)?;
    opened.changed()?;
    term::out(&format!("{pruned}\n"))
}
