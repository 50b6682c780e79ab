//! `token …`.

use super::{ACCOUNT, Command, Failure, Flag, Parsed, Remote, command};
use crate::cli::{given, show, term};
use crate::config;
use crate::model::account::Page;
use crate::model::token::{ExchangeToken, IssueServiceToken, IssuedToken, ListTokens, ValidateToken, Validation};
use crate::secret::BearerToken;
use crate::wire::ops;

const AUDIENCE: Flag = Flag::value("audience", "A", "whom the token is for; without it, MCIAS itself");

pub(super) const ISSUE: Command = Command {
    notes: &["The account's former token for that audience is revoked, or dies after the overlap. Prints the token."],
    flags: &[ACCOUNT, AUDIENCE, Flag::value("overlap", "D", "let the former token live on for so long, at most 24h")],
    ..command("token issue", "issue a system account's next token", "token issue --account wiki --overlap 1h", issue)
};

pub(super) const EXCHANGE: Command = Command {
    notes: &["The new token lives no longer than yours, and ends with it. Prints it."],
    flags: &[Flag::value("audience", "A", "whom the token is for").required()],
    ..command(
        "token exchange",
        "get a token for another service",
        "token exchange --audience https://files.example.com",
        exchange,
    )
};

pub(super) const VALIDATE: Command = Command {
    notes: &[
        "Asks about your own token, or about the one on standard input. Exit code 0: it is good; 1: it isn't, for \
         whatever reason.",
    ],
    flags: &[
        Flag::switch("token-stdin", "read the token from standard input, one line"),
        Flag::value("audience", "A", "whom it has to be for"),
    ],
    ..command("token validate", "ask whether a token is good", "token validate --token-stdin", validate)
};

pub(super) const LIST: Command = Command {
    notes: &["Newest first. Needs no role for your own account."],
    flags: &[ACCOUNT],
    ..command("token list", "list an account's tokens", "token list --account alice", list)
};

pub(super) const REVOKE: Command = Command {
    notes: &["It counts at the next check."],
    flags: &[Flag::value("jti", "J", "the token's id, as 'token list' shows it").required()],
    ..command("token revoke", "revoke a token", "token revoke --jti 0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11", revoke)
};

pub(super) const REVOKE_ALL: Command = Command {
    notes: &["Prints how many were live."],
    flags: &[ACCOUNT],
    ..command("token revoke-all", "revoke all tokens of an account", "token revoke-all --account alice", revoke_all)
};

/// Prints a token alone; as JSON, with its end.
pub(super) fn print(parsed: &Parsed, issued: IssuedToken) -> Result<(), Failure> {
    if parsed.switch(super::JSON.name) {
        show::json(issued)
    } else {
        term::out(&format!("{}\n", issued.token.expose()))
    }
}

fn issue(parsed: &Parsed) -> Result<(), Failure> {
    let audience = given::audience(parsed, AUDIENCE.name)?;
    let overlap = match parsed.text("overlap")? {
        None => 0,
        Some(text) => {
            let overlap = config::parse_duration(text).map_err(|e| parsed.usage(format!("--overlap: {e}")))?;
            let seconds = u32::try_from(overlap.as_secs()).ok();
            seconds
                .filter(|seconds| i64::from(*seconds) <= IssueServiceToken::MAX_OVERLAP)
                .ok_or_else(|| parsed.usage("--overlap must be at most 24h"))?
        }
    };
    let mut remote = Remote::open(parsed)?;
    let account = remote.account(ACCOUNT.name)?;
    let issued = remote.call::<ops::IssueServiceToken>(&IssueServiceToken { account, audience, overlap })?;
    print(parsed, issued)
}

fn exchange(parsed: &Parsed) -> Result<(), Failure> {
    let audience = given::required(parsed, AUDIENCE.name, given::audience)?;
    let mut remote = Remote::open(parsed)?;
    let issued = remote.call::<ops::ExchangeToken>(&ExchangeToken { audience })?;
    print(parsed, issued)
}

fn validate(parsed: &Parsed) -> Result<(), Failure> {
    let audience = given::audience(parsed, AUDIENCE.name)?;
    let (mut remote, token) = if parsed.switch("token-stdin") {
        let token = BearerToken::new(term::read_secret_stdin()?.expose().to_owned());
        (Remote::open_without_token(parsed)?, Some(token))
    } else {
        let remote = Remote::open(parsed)?;
        let token = remote.token.clone();
        (remote, token)
    };
    // There is one by now.
    let token = token.unwrap_or_else(|| BearerToken::new(String::new()));
    let validation = remote.call::<ops::ValidateToken>(&ValidateToken { token, audience, bad_is_error: false })?;
    let good = matches!(validation, Validation::Good(_));
    match validation {
        validation if remote.json() => show::json(validation)?,
        Validation::Good(token) => show::valid_token(&token)?,
        Validation::Bad => {}
    }
    if good { Ok(()) } else { Err(Failure::new("the token isn't good")) }
}

fn list(parsed: &Parsed) -> Result<(), Failure> {
    let mut remote = Remote::open(parsed)?;
    let account = remote.account(ACCOUNT.name)?;
    let (mut rows, mut cursor) = (Vec::new(), None);
    loop {
        let page = Page { limit: Page::MAX_LIMIT, cursor };
        let listing = remote.call::<ops::ListTokens>(&ListTokens { account, page })?;
        rows.extend(listing.rows);
        cursor = listing.next;
        if cursor.is_none() {
            return show::tokens(rows, remote.json());
        }
    }
}

fn revoke(parsed: &Parsed) -> Result<(), Failure> {
    let jti = given::jti(parsed, "jti")?;
    Remote::open(parsed)?.call::<ops::RevokeToken>(&jti)
}

fn revoke_all(parsed: &Parsed) -> Result<(), Failure> {
    let mut remote = Remote::open(parsed)?;
    let account = remote.account(ACCOUNT.name)?;
    let revoked = remote.call::<ops::RevokeAllTokens>(&account)?;
    if remote.json() { show::json(revoked) } else { term::out(&format!("{}\n", revoked.0)) }
}
