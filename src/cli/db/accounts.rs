//! `mciasdb account …` and `mciasdb role …`.

use super::{Command, Failure, Flag, ID, JSON, Opened, PASSWORD_STDIN, Parsed, command};
use crate::cli::{given, show, term};
use crate::model::account::{AccountChange, AccountFilter, AccountStatus, AccountType, NewAccount, Page, RoleOf};
use crate::model::credential::SetPassword;
use crate::service::{accounts, credentials, roles};

pub(super) const LIST: Command = Command {
    flags: &[Flag::switch("all", "the deleted ones, too"), JSON],
    ..command("account list", "list the accounts", "--config mcias.conf account list", list)
};

pub(super) const GET: Command = Command {
    flags: &[ID, JSON],
    ..command("account get", "show an account", "--config mcias.conf account get --id alice", get)
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
        "--config mcias.conf account create --username alice --type human",
        create,
    )
};

pub(super) const SET_PASSWORD: Command = Command {
    notes: &["The password is asked for twice, or read from standard input. The account's tokens are revoked."],
    flags: &[ID, PASSWORD_STDIN],
    ..command(
        "account set-password",
        "set a person's password",
        "--config mcias.conf account set-password --id admin",
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
        "--config mcias.conf account set-status --id alice --status active",
        set_status,
    )
};

pub(super) const RESET_TOTP: Command = Command {
    notes: &["For a lost device. The account's tokens are revoked."],
    flags: &[ID],
    ..command(
        "account reset-totp",
        "turn one-time codes off for an account",
        "--config mcias.conf account reset-totp --id alice",
        reset_totp,
    )
};

pub(super) const ROLE_LIST: Command = Command {
    flags: &[ID, JSON],
    ..command("role list", "list an account's roles", "--config mcias.conf role list --id alice", role_list)
};

const ROLE: Flag = Flag::value("role", "R", "the role").required();

pub(super) const ROLE_GRANT: Command = Command {
    flags: &[ID, ROLE],
    ..command("role grant", "give a role", "--config mcias.conf role grant --id alice --role admin", role_grant)
};

pub(super) const ROLE_REVOKE: Command = Command {
    notes: &["Unlike the server, this takes admin from the last one who has it, too."],
    flags: &[ID, ROLE],
    ..command("role revoke", "take a role", "--config mcias.conf role revoke --id alice --role admin", role_revoke)
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
    show::accounts(all, parsed.switch("json"))
}

fn get(parsed: &Parsed) -> Result<(), Failure> {
    let opened = Opened::open(parsed)?;
    show::account(opened.account(parsed, true)?, parsed.switch("json"))
}

fn create(parsed: &Parsed) -> Result<(), Failure> {
    let account_type = given::new_account_type(parsed)?;
    let username = given::required(parsed, "username", given::username)?;
    let opened = Opened::open_for_passwords(parsed)?;
    let password = match account_type {
        AccountType::System => None,
        AccountType::Human => Some(given::password(parsed, "Password: ")?),
    };
    let new = NewAccount { username, account_type, password };
    let account = accounts::create(&opened.service, &opened.call(), &opened.admin(), new)?;
    opened.changed()?;
    term::out(&format!("{}\n", account.id))
}

fn set_password(parsed: &Parsed) -> Result<(), Failure> {
    let opened = Opened::open_for_passwords(parsed)?;
    let account = opened.account(parsed, false)?;
    let new = given::new_password(parsed)?;
    let input = SetPassword { account: account.id, new };
    credentials::set_password(&opened.service, &opened.call(), &opened.admin(), input)?;
    opened.changed()
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
    show::roles(roles, parsed.switch("json"))
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
    let role = given::required(parsed, "role", given::role)?;
    let opened = Opened::open(parsed)?;
    let account = opened.account(parsed, false)?.id;
    Ok((opened, RoleOf { account, role }))
}
