//! Accounts: made, listed, looked at.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::access::Admin;
use super::session::password_place;
use super::{Call, Service, nonce};
use crate::crypto::password;
use crate::error::{Error, Kind, Result};
use crate::model::account::{
    Account, AccountFilter, AccountId, AccountStatus, AccountType, Listing, MAX_ROLES, NewAccount, RoleOf, Username,
};
use crate::model::audit::{EventType, NewEvent, Party};
use crate::random;
use crate::store::NewAccountRow;

/// `POST /v1/accounts`.
///
/// # Errors
/// `InvalidRequest` for a person without a password, a program with one, or a password that breaks a rule;
/// `NameTaken`.
pub fn create(service: &Service, call: &Call, proof: &Admin, input: NewAccount) -> Result<Account> {
    let id = AccountId::new(random::uuid()?);
    let sealed = match (input.account_type, &input.password) {
        (AccountType::System, None) => None,
        (AccountType::System, Some(_)) => {
            return Err(Error::invalid("a system account has no password: issue it a token"));
        }
        (AccountType::Human, None) => return Err(Error::invalid("a human account needs a password")),
        (AccountType::Human, Some(chosen)) => {
            service.policy().check_new_password(&input.username, chosen)?;
            let salt = random::bytes()?;
            let phc = service.slots.run(|memory| password::hash(memory, chosen, service.policy().argon2, salt))?;
            Some(service.core.seal(&password_place(id), nonce()?, &phc))
        }
    };
    let occasion = service.occasion(call);
    let row = NewAccountRow {
        id,
        username: input.username,
        account_type: input.account_type,
        password: sealed,
        created_at: occasion.time.timestamp(),
    };
    let admin = proof.party();
    service.write_as(proof, move |tx, _| {
        if !tx.insert_account(&row)? {
            return Err(Error::new(Kind::NameTaken, "an account of that name exists"));
        }
        let event = NewEvent::of(EventType::AccountCreated)
            .by(admin.clone())
            .to(Some(Party { id, username: row.username.clone() }))
            .with("account_type", row.account_type.as_str());
        tx.append(event, occasion)?;
        tx.account(id)?.ok_or_else(|| Error::internal("the account just made is not there"))
    })
}

/// `GET /v1/accounts`: by name.
///
/// # Errors
/// `InvalidRequest` for a cursor that isn't ours.
pub fn list(service: &Service, _: &Call, _: &Admin, filter: AccountFilter) -> Result<Listing<Account>> {
    let after = filter.page.cursor.as_deref().map(read_cursor).transpose()?;
    let after = after.as_ref().map(|(name, id)| (name.as_str(), id.as_str()));
    let limit = filter.page.limit;
    let mut rows = service.store.read(|view| view.list_accounts(&filter, after, limit + 1))?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|last| cursor(&last.username, last.id));
    Ok(Listing { rows, next })
}

/// `GET /v1/accounts/{id}`.
///
/// # Errors
/// `NotFound`, also once it is deleted.
pub fn get(service: &Service, _: &Call, _: &Admin, id: AccountId) -> Result<Account> {
    living(service.store.read(|view| view.account(id))?)
}

/// `PUT /v1/accounts/{id}/roles/{role}`: also if it was held already, which makes no event.
///
/// # Errors
/// `NotFound`; `Conflict` where the account has as many roles as there may be.
pub fn grant_role(service: &Service, call: &Call, proof: &Admin, input: RoleOf) -> Result<()> {
    let occasion = service.occasion(call);
    let (admin, by) = (proof.party(), proof.account());
    service.write_as(proof, move |tx, _| {
        let account = living(tx.account(input.account)?)?;
        if !tx.grant_role(account.id, &input.role, by, occasion.time.timestamp())? {
            return Ok(());
        }
        if account.roles.len() >= MAX_ROLES {
            return Err(Error::conflict(format!("an account has at most {MAX_ROLES} roles")));
        }
        let event = NewEvent::of(EventType::RoleGranted)
            .by(admin.clone())
            .to(Some(Party { id: account.id, username: account.username }))
            .with("role", input.role.as_str());
        tx.append(event, occasion)
    })
}

/// The account, unless it is deleted.
fn living(found: Option<Account>) -> Result<Account> {
    found.filter(|account| account.status != AccountStatus::Deleted).ok_or_else(no_such_account)
}

/// 404 for an account.
pub(super) fn no_such_account() -> Error {
    Error::not_found("no such account")
}

/// Where a page of accounts ended: name and id, since deleted accounts can share a name.
fn cursor(name: &Username, id: AccountId) -> String {
    URL_SAFE_NO_PAD.encode(format!("{name}/{id}"))
}

fn read_cursor(text: &str) -> Result<(String, String)> {
    let read = || {
        let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let (name, id) = plain.split_once('/')?;
        (Username::parse(name).is_ok_and(|n| n.as_str() == name) && AccountId::parse(id).is_some())
            .then(|| (name.to_owned(), id.to_owned()))
    };
    read().ok_or_else(|| Error::invalid("cursor is not one that this server gave"))
}
