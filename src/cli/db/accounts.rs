//! `mciasdb account …` and `mciasdb role …`.

use serde_json::Value;

use super::{Command, Failure, Flag, ID, JSON, Opened, PASSWORD_STDIN, Parsed, command};
use crate::cli::term::{self, Table};
use crate::model::account::{
    Account, AccountChange, AccountFilter, AccountStatus, AccountType, NewAccount, Page, RoleName, RoleOf, Username,
};
use crate::model::credential::SetPassword;
use crate::secret::Password;
use crate::service::{accounts, credentials, roles};
use crate::wire::json::Answer;

pub(super) const LIST: Command = Command {
    flags: &[Flag::switch("all", "the deleted ones, too"), JSON],
    ..command("account list", "list the accounts", "mciasdb --config mcias.conf account list", list)
};

pub(super) const GET: Command = Command {
    flags: &[ID, JSON],
    ..command("account get", "show an account", "mciasdb --config mcias.conf account get --id alice", get)
};

pub(super) const CREATE: Command = Command {
    notes: &[
        "A person's password is asked for, or read from standard input; a system account has none. Prints the id.",
    ],
    flags: &[
        Flag::value("username", "NAME", "the account's name").required(),
        Flag::value("type", "T", "a person or a program").required().one_of(&["human", "system"]),
        PASSWORD_STDIN,
    ],
    ..command(
        "account create",
        "make an account",
        "mciasdb --config mcias.conf account create --username alice --type human",
        create,
    )
};

pub(super) const SET_PASSWORD: Command = Command {
    notes: &["The password is asked for twice, or read from standard input. The account's tokens are revoked."],
    flags: &[ID, PASSWORD_STDIN],
    ..command(
        "account set-password",
        "set a person's password",
        "mciasdb --config mcias.conf account set-password --id admin",
        set_password,
    )
};

pub(super) const SET_STATUS: Command = Command {
    notes: &[
        "The tokens of an account that is suspended or deleted are revoked. What is deleted stays so. Unlike the \
         server, this lets the last admin go.",
    ],
    flags: &[ID, Flag::value("status", "S", "the status").required().one_of(&["active", "suspended", "deleted"])],
    ..command(
        "account set-status",
        "make an account active, suspended or deleted",
        "mciasdb --config mcias.conf account set-status --id alice --status active",
        set_status,
    )
};

pub(super) const RESET_TOTP: Command = Command {
    notes: &["For a lost device. The account's tokens are revoked."],
    flags: &[ID],
    ..command(
        "account reset-totp",
        "turn one-time codes off for an account",
        "mciasdb --config mcias.conf account reset-totp --id alice",
        reset_totp,
    )
};

pub(super) const ROLE_LIST: Command = Command {
    flags: &[ID, JSON],
    ..command("role list", "list an account's roles", "mciasdb --config mcias.conf role list --id alice", role_list)
};

const ROLE: Flag = Flag::value("role", "R", "the role").required();

pub(super) const ROLE_GRANT: Command = Command {
    flags: &[ID, ROLE],
    ..command("role grant", "give a role", "mciasdb --config mcias.conf role grant --id alice --role admin", role_grant)
};

pub(super) const ROLE_REVOKE: Command = Command {
    notes: &["Unlike the server, this takes admin from the last one who has it, too."],
    flags: &[ID, ROLE],
    ..command(
        "role revoke",
        "take a role",
        "mciasdb --config mcias.conf role revoke --id alice --role admin",
        role_revoke,
    )
};

fn list(parsed: &Parsed) -> Result<(), Failure> {
    let opened = Opened::open(parsed)?;
    let mut all = Vec::new();
    let statuses: &[_] = if parsed.switch("all") { &[None, Some(AccountStatus::Deleted)] } else { &[None] };
    for status in statuses {
        let mut cursor = None;
        loop {
            let page = Page { limit: Page::MAX_LIMIT, cursor };
            let filter = AccountFilter { status: *status, page, ..AccountFilter::default() };
            let listing = accounts::list(&opened.service, &opened.call(), &opened.admin(), filter)?;
            all.extend(listing.rows);
            cursor = listing.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    if parsed.switch("json") {
        let rows: Vec<Value> = all.into_iter().filter_map(|account| account.reply().body).collect();
        return term::out(&format!("{}\n", Value::from(rows)));
    }
    let mut table = Table::new(&["ID", "USERNAME", "TYPE", "STATUS", "TOTP", "ROLES"]);
    for account in &all {
        table.row(cells(account));
    }
    table.print()
}

fn cells(account: &Account) -> [String; 6] {
    let roles: Vec<&str> = account.roles.iter().map(RoleName::as_str).collect();
    [
        account.id.to_string(),
        account.username.to_string(),
        account.account_type.to_string(),
        account.status.to_string(),
        if account.totp_enabled { "yes" } else { "no" }.to_owned(),
        roles.join(","),
    ]
}

fn get(parsed: &Parsed) -> Result<(), Failure> {
    let opened = Opened::open(parsed)?;
    let account = opened.account(parsed, true)?;
    if parsed.switch("json") {
        return term::out(&format!("{}\n", account.reply().body.unwrap_or_default()));
    }
    let [id, username, account_type, status, totp, roles] = cells(&account);
    let mut table = Table::new(&["FIELD", "VALUE"]);
    for (name, value) in [
        ("id", id),
        ("username", username),
        ("account_type", account_type),
        ("status", status),
        ("totp_enabled", totp),
        ("roles", roles),
        ("created_at", account.created_at.to_string()),
        ("updated_at", account.updated_at.to_string()),
    ] {
        table.row([name, &value]);
    }
    table.print()
}

fn create(parsed: &Parsed) -> Result<(), Failure> {
    let username = Username::parse(parsed.text("username")?.unwrap_or_default())
        .map_err(|e| parsed.usage(format!("--username: {}", e.client())))?;
    let human = parsed.text("type")? == Some(AccountType::Human.as_str());
    if !human && parsed.switch("password-stdin") {
        return Err(parsed.usage("--password-stdin: a system account has no password").into());
    }
    let opened = Opened::open(parsed)?;
    let password = match (human, parsed.switch("password-stdin")) {
        (false, _) => None,
        (true, true) => Some(term::read_secret_stdin()?),
        (true, false) => Some(term::prompt_secret("Password: ", "--password-stdin")?),
    };
    let account_type = if human { AccountType::Human } else { AccountType::System };
    let new = NewAccount { username, account_type, password };
    let account = accounts::create(&opened.service, &opened.call(), &opened.admin(), new)?;
    opened.changed()?;
    term::out(&format!("{}\n", account.id))
}

fn set_password(parsed: &Parsed) -> Result<(), Failure> {
    let opened = Opened::open(parsed)?;
    let account = opened.account(parsed, false)?;
    let new = if parsed.switch("password-stdin") { term::read_secret_stdin()? } else { twice()? };
    let input = SetPassword { account: account.id, new };
    credentials::set_password(&opened.service, &opened.call(), &opened.admin(), input)?;
    opened.changed()
}

/// Asks for a new password, and for the same again.
fn twice() -> Result<Password, Failure> {
    let first = term::prompt_secret("New password: ", "--password-stdin")?;
    let second = term::prompt_secret("The same again: ", "--password-stdin")?;
    if first.expose() == second.expose() {
        Ok(first)
    } else {
        Err(Failure::new("the two passwords differ; nothing was changed"))
    }
}

fn set_status(parsed: &Parsed) -> Result<(), Failure> {
    let opened = Opened::open(parsed)?;
    let account = opened.account(parsed, false)?;
    let status = AccountStatus::from_word(parsed.text("status")?.unwrap_or_default());
    if status == Some(AccountStatus::Deleted) {
        accounts::delete(&opened.service, &opened.call(), &opened.admin(), account.id)?;
    } else {
        let change = AccountChange { account: account.id, username: None, status };
        accounts::update(&opened.service, &opened.call(), &opened.admin(), change)?;
    }
    opened.changed()
}

fn reset_totp(parsed: &Parsed) -> Result<(), Failure> {
    let opened = Opened::open(parsed)?;
    let account = opened.account(parsed, false)?;
    credentials::remove_totp(&opened.service, &opened.call(), &opened.admin(), account.id)?;
    opened.changed()
}

fn role_list(parsed: &Parsed) -> Result<(), Failure> {
    let opened = Opened::open(parsed)?;
    let account = opened.account(parsed, false)?;
    let roles = roles::get(&opened.service, &opened.call(), &opened.admin(), account.id)?;
    if parsed.switch("json") {
        return term::out(&format!("{}\n", roles.reply().body.unwrap_or_default()));
    }
    let mut table = Table::new(&["ROLE"]);
    for role in &roles.0 {
        table.row([role.as_str()]);
    }
    table.print()
}

fn role_grant(parsed: &Parsed) -> Result<(), Failure> {
    let (opened, change) = role_change(parsed)?;
    roles::grant(&opened.service, &opened.call(), &opened.admin(), change)?;
    opened.changed()
}

fn role_revoke(parsed: &Parsed) -> Result<(), Failure> {
    let (opened, change) = role_change(parsed)?;
    roles::revoke(&opened.service, &opened.call(), &opened.admin(), change)?;
    opened.changed()
}

fn role_change(parsed: &Parsed) -> Result<(Opened, RoleOf), Failure> {
    let role = RoleName::parse(parsed.text("role")?.unwrap_or_default())
        .map_err(|e| parsed.usage(format!("--role: {}", e.client())))?;
    let opened = Opened::open(parsed)?;
    let account = opened.account(parsed, false)?.id;
    Ok((opened, RoleOf { account, role }))
}
