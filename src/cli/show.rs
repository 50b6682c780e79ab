//! How the command lines show what there is: one form for the tool that works on the file and for those that ask a
//! server. Tables, or with `--json` the JSON of REST.

use serde_json::Value;

use super::term::{self, Failure, Table};
use crate::model::account::{Account, Listing, RoleName, Roles};
use crate::model::audit::{Event, Party};
use crate::model::credential::PgCredentials;
use crate::model::token::{RevokeReason, TokenRow, ValidToken, WhoAmI};
use crate::wire::json::Answer;
use crate::wire::outputs;

/// One value as JSON.
///
/// # Errors
/// Standard output can't be written.
pub fn json(output: impl Answer) -> Result<(), Failure> {
    term::out(&format!("{}\n", output.reply().into_text().unwrap_or_default()))
}

/// Accounts, a line each.
///
/// # Errors
/// Standard output can't be written.
pub fn accounts(rows: Vec<Account>, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return json(Listing { rows, next: None });
    }
    let mut table = Table::new(&["ID", "USERNAME", "TYPE", "STATUS", "TOTP", "ROLES"]);
    for account in &rows {
        table.row([
            account.id.to_string(),
            account.username.to_string(),
            account.account_type.to_string(),
            account.status.to_string(),
            yes_or_no(account.totp_enabled),
            names(&account.roles),
        ]);
    }
    table.print()
}

/// One account, a line a member.
///
/// # Errors
/// Standard output can't be written.
pub fn account(account: Account, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return json(account);
    }
    fields(&members(&account))
}

/// Who one is, a line a member.
///
/// # Errors
/// Standard output can't be written.
pub fn who_am_i(me: WhoAmI, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return json(me);
    }
    let mut rows = members(&me.account);
    rows.push(("expires_at", me.expires_at.to_string()));
    rows.push(("audience", me.audience.to_string()));
    rows.push(("token_roles", names(&me.token_roles)));
    fields(&rows)
}

fn members(account: &Account) -> Vec<(&'static str, String)> {
    vec![
        ("id", account.id.to_string()),
        ("username", account.username.to_string()),
        ("account_type", account.account_type.to_string()),
        ("status", account.status.to_string()),
        ("totp_enabled", yes_or_no(account.totp_enabled)),
        ("roles", names(&account.roles)),
        ("created_at", account.created_at.to_string()),
        ("updated_at", account.updated_at.to_string()),
    ]
}

/// What a good token says, a line a member.
///
/// # Errors
/// Standard output can't be written.
pub fn valid_token(token: &ValidToken) -> Result<(), Failure> {
    fields(&[
        ("sub", token.subject.to_string()),
        ("username", token.username.to_string()),
        ("account_type", token.account_type.to_string()),
        ("roles", names(&token.roles)),
        ("audience", token.audience.to_string()),
        ("expires_at", token.expires_at.to_string()),
        ("jti", token.jti.to_string()),
    ])
}

/// An account's roles, a line each.
///
/// # Errors
/// Standard output can't be written.
pub fn roles(roles: Roles, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return json(roles);
    }
    let mut table = Table::new(&["ROLE"]);
    for role in &roles.0 {
        table.row([role.as_str()]);
    }
    table.print()
}

/// Tokens, a line each.
///
/// # Errors
/// Standard output can't be written.
pub fn tokens(rows: Vec<TokenRow>, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return json(Listing { rows, next: None });
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

/// Postgres credentials, the password in clear.
///
/// # Errors
/// Standard output can't be written.
pub fn pg_credentials(credentials: PgCredentials, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return json(credentials);
    }
    let address = &credentials.address;
    let mut table = Table::new(&["FIELD", "VALUE"]);
    table.row(["host", address.host()]);
    table.row(["port", &address.port().to_string()]);
    table.row(["database", address.database()]);
    table.row(["username", address.username()]);
    table.row(["password", credentials.password().expose()]);
    table.print()
}

/// Events, a line each; as JSON, one value a line.
///
/// # Errors
/// Standard output can't be written.
pub fn events(events: &[Event], as_json: bool) -> Result<(), Failure> {
    if as_json {
        return events.iter().try_for_each(|event| term::out(&format!("{}\n", outputs::event(event))));
    }
    let name = |party: &Option<Party>| party.as_ref().map_or("-".to_owned(), |party| party.username.to_string());
    let mut table = Table::new(&["ID", "TIME", "TYPE", "VIA", "ACTOR", "TARGET", "IP", "DETAILS"]);
    for event in events {
        table.row([
            event.id.to_string(),
            event.time.timestamp().to_string(),
            event.event_type.to_string(),
            event.via.to_string(),
            name(&event.actor),
            name(&event.target),
            event.ip.clone().unwrap_or_else(|| "-".to_owned()),
            if event.details.is_empty() { "-".to_owned() } else { Value::from(event.details.clone()).to_string() },
        ]);
    }
    table.print()
}

fn fields(rows: &[(&str, String)]) -> Result<(), Failure> {
    let mut table = Table::new(&["FIELD", "VALUE"]);
    for (name, value) in rows {
        table.row([*name, value]);
    }
    table.print()
}

fn names(roles: &[RoleName]) -> String {
    roles.iter().map(RoleName::as_str).collect::<Vec<_>>().join(",")
}

fn yes_or_no(is_so: bool) -> String {
    if is_so { "yes" } else { "no" }.to_owned()
}
