//! `role …`.

use super::{ACCOUNT, Command, Failure, Flag, Parsed, Remote, command};
use crate::cli::{given, show};
use crate::model::account::{RoleName, RoleOf, Roles, SetRoles};
use crate::wire::ops;

const ROLE: Flag = Flag::value("role", "R", "the role").required();

pub(super) const LIST: Command =
    Command { flags: &[ACCOUNT], ..command("role list", "list an account's roles", "role list --account alice", list) };

pub(super) const GRANT: Command = Command {
    notes: &["It counts from the account's next login or renewal on."],
    flags: &[ACCOUNT, ROLE],
    ..command("role grant", "give a role", "role grant --account alice --role editor", grant)
};

pub(super) const REVOKE: Command = Command {
    notes: &["It counts at once."],
    flags: &[ACCOUNT, ROLE],
    ..command("role revoke", "take a role", "role revoke --account alice --role editor", revoke)
};

pub(super) const SET: Command = Command {
    notes: &["Takes what isn't named. An empty list takes all."],
    flags: &[ACCOUNT, Flag::value("roles", "A,B", "all the roles, with commas between").required()],
    ..command("role set", "set all roles of an account", "role set --account alice --roles editor,viewer", set)
};

fn list(parsed: &Parsed) -> Result<(), Failure> {
    let mut remote = Remote::open(parsed)?;
    let account = remote.account(ACCOUNT.name)?;
    let roles = remote.call::<ops::GetRoles>(&account)?;
    show::roles(roles, remote.json())
}

fn grant(parsed: &Parsed) -> Result<(), Failure> {
    let role = given::required(parsed, ROLE.name, given::role)?;
    let mut remote = Remote::open(parsed)?;
    let account = remote.account(ACCOUNT.name)?;
    remote.call::<ops::GrantRole>(&RoleOf { account, role })
}

fn revoke(parsed: &Parsed) -> Result<(), Failure> {
    let role = given::required(parsed, ROLE.name, given::role)?;
    let mut remote = Remote::open(parsed)?;
    let account = remote.account(ACCOUNT.name)?;
    remote.call::<ops::RevokeRole>(&RoleOf { account, role })
}

fn set(parsed: &Parsed) -> Result<(), Failure> {
    let words = parsed.text("roles")?.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty());
    let roles = words.map(RoleName::parse).collect::<Result<_, _>>().and_then(Roles::new);
    let roles = roles.map_err(|e| parsed.usage(format!("--roles: {}", e.client())))?;
    let mut remote = Remote::open(parsed)?;
    let account = remote.account(ACCOUNT.name)?;
    remote.call::<ops::SetRoles>(&SetRoles { account, roles })
}
