//! `mciasdb token …` and `mciasdb prune tokens`.

use serde_json::Value;

use super::{Command, Failure, Flag, ID, JSON, Opened, Parsed, command};
use crate::cli::term::{self, Table};
use crate::model::account::{Listing, Page};
use crate::model::token::{Jti, ListTokens, RevokeReason};
use crate::service::tokens;
use crate::wire::json::Answer;

pub(super) const LIST: Command = Command {
    flags: &[ID, JSON],
    ..command("token list", "list an account's tokens", "mciasdb --config mcias.conf token list --id alice", list)
};

pub(super) const REVOKE: Command = Command {
    notes: &["Counts at the next check, also of a running server."],
    flags: &[Flag::value("jti", "J", "the token's id").required()],
    ..command(
        "token revoke",
        "revoke a token",
        "mciasdb --config F token revoke --jti 0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11",
        revoke,
    )
};

pub(super) const REVOKE_ALL: Command = Command {
    notes: &["Prints how many were live."],
    flags: &[ID],
    ..command(
        "token revoke-all",
        "revoke all tokens of an account",
        "mciasdb --config mcias.conf token revoke-all --id alice",
        revoke_all,
    )
};

pub(super) const PRUNE: Command = Command {
    notes: &["Refused while the clock is behind the newest event. Prints how many there were."],
    ..command("prune tokens", "remove the rows of expired tokens", "mciasdb --config mcias.conf prune tokens", prune)
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
    if parsed.switch("json") {
        let all = Listing { rows, next: None };
        return term::out(&format!("{}\n", all.reply().body.unwrap_or(Value::Null)));
    }
    let mut table = Table::new(&["JTI", "AUDIENCE", "ISSUED", "EXPIRES", "REVOKED", "REASON"]);
    for row in rows {
        table.row([
            row.jti.to_string(),
            row.audience.to_string(),
            row.issued_at.to_string(),
            row.expires_at.to_string(),
            row.revoked_at.map_or_else(|| "-".to_owned(), |at| at.to_string()),
            row.revoke_reason.map_or("-", RevokeReason::as_str).to_owned(),
        ]);
    }
    table.print()
}

fn revoke(parsed: &Parsed) -> Result<(), Failure> {
    let jti = Jti::parse(&parsed.text("jti")?.unwrap_or_default().to_ascii_lowercase())
        .ok_or_else(|| parsed.usage("--jti must be a token's id, a UUID"))?;
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
