//! `account …`.

use super::{Command, Failure, Flag, ID, PASSWORD_STDIN, Parsed, Remote, command};
use crate::cli::{given, show, term};
use crate::model::account::{AccountChange, AccountFilter, AccountStatus, AccountType, NewAccount, Page};
use crate::model::credential::SetPassword;
use crate::wire::ops;

pub(super) const CREATE: Command = Command {
    notes: &[
        "A person's password is asked for, or read from standard input; a system account has none. Prints the id.",
    ],
    flags: &[
        Flag::value("username", "NAME", "the account's name").required(),
        Flag::value("type", "T", "a person or a program").required().one_of(&["human", "system"]),
        PASSWORD_STDIN,
    ],
    ..command("account create", "make an account", "account create --username alice --type human", create)
};

pub(super) const LIST: Command = Command {
    notes: &["Deleted accounts are listed only where --status asks for them."],
    flags: &[
        Flag::value("type", "T", "only people, or only programs").one_of(&["human", "system"]),
        Flag::value("status", "S", "only those").one_of(&["active", "suspended", "deleted"]),
    ],
    ..command("account list", "list the accounts", "account list --type human", list)
};

pub(super) const GET: Command =
    Command { flags: &[ID], ..command("account get", "show an account", "account get --id alice", get) };

pub(super) const UPDATE: Command = Command {
    flags: &[
        ID,
        Flag::value("username", "N", "another name"),
        Flag::value("status", "S", "another status").one_of(&["active", "suspended"]),
    ],
    ..command(
        "account update",
        "change an account's name or status",
        "account update --id alice --username alice.b",
        update,
    )
};

pub(super) const SUSPEND: Command = Command {
    notes: &["Its tokens are revoked, and nobody can log in with it."],
    flags: &[ID],
    ..command("account suspend", "suspend an account", "account suspend --id alice", suspend)
};

pub(super) const ACTIVATE: Command = Command {
    flags: &[ID],
    ..command("account activate", "end an account's suspension", "account activate --id alice", activate)
};

pub(super) const DELETE: Command = Command {
    notes: &[
        "Its tokens are revoked, and its password, roles and credentials are erased; its name is free again. It can't \
         be undone, so a terminal is asked first.",
    ],
    flags: &[ID, Flag::switch("yes", "don't ask")],
    ..command("account delete", "delete an account", "account delete --id alice --yes", delete)
};

pub(super) const SET_PASSWORD: Command = Command {
    notes: &["The password is asked for twice, or read from standard input. The account's tokens are revoked."],
    flags: &[ID, PASSWORD_STDIN],
    ..command("account set-password", "set a person's password", "account set-password --id alice", set_password)
};

fn create(parsed: &Parsed) -> Result<(), Failure> {
    let account_type = given::new_account_type(parsed)?;
    let username = given::required(parsed, "username", given::username)?;
    let mut remote = Remote::open(parsed)?;
    let password = match account_type {
        AccountType::System => None,
        AccountType::Human => Some(given::password(parsed, "Password: ")?),
    };
    let account = remote.call::<ops::CreateAccount>(&NewAccount { username, account_type, password })?;
    if remote.json() { show::json(account) } else { term::out(&format!("{}\n", account.id)) }
}

fn list(parsed: &Parsed) -> Result<(), Failure> {
    let account_type = parsed.text("type")?.and_then(AccountType::from_word);
    let status = parsed.text("status")?.and_then(AccountStatus::from_word);
    let mut remote = Remote::open(parsed)?;
    let (mut rows, mut cursor) = (Vec::new(), None);
    loop {
        let page = Page { limit: Page::MAX_LIMIT, cursor };
        let filter = AccountFilter { username: None, account_type, status, page };
        let listing = remote.call::<ops::ListAccounts>(&filter)?;
        rows.extend(listing.rows);
        cursor = listing.next;
        if cursor.is_none() {
            return show::accounts(rows, remote.json());
        }
    }
}

fn get(parsed: &Parsed) -> Result<(), Failure> {
    let mut remote = Remote::open(parsed)?;
    let id = remote.account(ID.name)?;
    let account = remote.call::<ops::GetAccount>(&id)?;
    show::account(account, remote.json())
}

fn update(parsed: &Parsed) -> Result<(), Failure> {
    let username = given::username(parsed, "username")?;
    let status = parsed.text("status")?.and_then(AccountStatus::from_word);
    if username.is_none() && status.is_none() {
        return Err(parsed.usage("one of --username and --status is needed").into());
    }
    change(parsed, |account| AccountChange { account, username, status })
}

fn suspend(parsed: &Parsed) -> Result<(), Failure> {
    change(parsed, |account| AccountChange { account, username: None, status: Some(AccountStatus::Suspended) })
}

fn activate(parsed: &Parsed) -> Result<(), Failure> {
    change(parsed, |account| AccountChange { account, username: None, status: Some(AccountStatus::Active) })
}

fn change(
    parsed: &Parsed,
    wanted: impl FnOnce(crate::model::account::AccountId) -> AccountChange,
) -> Result<(), Failure> {
    let mut remote = Remote::open(parsed)?;
    let id = remote.account(ID.name)?;
    let account = remote.call::<ops::UpdateAccount>(&wanted(id))?;
    if remote.json() { show::json(account) } else { Ok(()) }
}

fn delete(parsed: &Parsed) -> Result<(), Failure> {
    if !parsed.switch("yes") && !term::at_a_terminal() {
        return Err(parsed.usage("--yes is missing: there is no terminal to ask on").into());
    }
    let mut remote = Remote::open(parsed)?;
    let id = remote.account(ID.name)?;
    if !parsed.switch("yes") {
        let account = remote.call::<ops::GetAccount>(&id)?;
        let question = format!("Delete '{}' ({id}) for good? Type 'yes': ", account.username);
        if term::prompt(&question, "--yes")? != "yes" {
            return Err(Failure::new("nothing was deleted"));
        }
    }
    remote.call::<ops::DeleteAccount>(&id)
}

fn set_password(parsed: &Parsed) -> Result<(), Failure> {
    let mut remote = Remote::open(parsed)?;
    let account = remote.account(ID.name)?;
    let new = given::new_password(parsed)?;
    remote.call::<ops::SetPassword>(&SetPassword { account, new })
}
