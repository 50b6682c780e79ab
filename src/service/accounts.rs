//! Accounts: made, listed, looked at, changed, deleted.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, json};

use super::access::Admin;
use super::hashed::NewHash;
use super::living::living;
use super::roles::keep_an_admin;
use super::tokens::revoke_all;
use super::{Call, Service};
use crate::crypto::password;
use crate::error::{Error, Kind, Result};
use crate::model::account::{
    Account, AccountChange, AccountFilter, AccountId, AccountStatus, AccountType, Listing, NewAccount, Username,
};
use crate::model::audit::{EventType, NewEvent, Party};
use crate::model::token::RevokeReason;
use crate::random;
use crate::store::NewAccountRow;

/// `POST /v1/accounts`.
///
/// # Errors
/// `InvalidRequest` for a person without a password, a program with one, or a password that breaks a rule;
/// `NameTaken`.
pub fn create(service: &Service, call: &Call, proof: &Admin, input: NewAccount) -> Result<Account> {
    let id = AccountId::new(random::uuid()?);
    let hashed = match (input.account_type, &input.password) {
        (AccountType::System, None) => None,
        (AccountType::System, Some(_)) => {
            return Err(Error::invalid("a system account has no password: issue it a token"));
        }
        (AccountType::Human, None) => return Err(Error::invalid("a human account needs a password")),
        (AccountType::Human, Some(chosen)) => {
            service.policy().check_new_password(&input.username, chosen)?;
            let salt = random::bytes()?;
            let phc = service.slots.run(|memory| password::hash(memory, chosen, service.policy().argon2, salt))?;
            Some(NewHash::new(id, phc)?)
        }
    };
    let occasion = service.occasion(call);
    let mut row = NewAccountRow {
        id,
        username: input.username,
        account_type: input.account_type,
        password: None,
        created_at: occasion.time.timestamp(),
    };
    let admin = proof.party();
    service.write_as(proof, move |tx, core| {
        row.password = hashed.as_ref().map(|hashed| hashed.seal(core));
        if !tx.insert_account(&row)? {
            return Err(name_taken());
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

/// `PATCH /v1/accounts/{id}`: another name, another status, or both; what changes nothing makes no event. A suspended
/// account's tokens are revoked.
///
/// # Errors
/// `NotFound`, `NameTaken`; `Conflict` where it would leave no active admin.
pub fn update(service: &Service, call: &Call, proof: &Admin, input: AccountChange) -> Result<Account> {
    let occasion = service.occasion(call);
    let now = occasion.time.timestamp();
    let (admin, as_maintenance) = (proof.party(), proof.is_maintenance());
    service.write_as(proof, move |tx, _| {
        let account = living(tx.account(input.account)?)?;
        let username = input.username.as_ref().filter(|name| **name != account.username);
        let status = input.status.filter(|status| *status != account.status);
        let party = Party { id: account.id, username: account.username.clone() };
        let mut changed = Map::new();
        if let Some(name) = username {
            if !tx.rename(account.id, name, now)? {
                return Err(name_taken());
            }
            changed.insert("username".into(), json!({"from": account.username.as_str(), "to": name.as_str()}));
        }
        if let Some(status) = status {
            if status == AccountStatus::Suspended {
                keep_an_admin(tx, &account, as_maintenance)?;
            }
            tx.set_status(account.id, status, now)?;
            changed.insert("status".into(), json!({"from": account.status.as_str(), "to": status.as_str()}));
        }
        if !changed.is_empty() {
            let event = NewEvent::of(EventType::AccountUpdated)
                .by(admin.clone())
                .to(Some(party.clone()))
                .with("changed", changed);
            tx.append(event, occasion)?;
        }
        if status == Some(AccountStatus::Suspended) {
            revoke_all(tx, &party, admin.clone(), RevokeReason::Suspended, None, occasion)?;
        }
        living(tx.account(account.id)?)
    })
}

/// `DELETE /v1/accounts/{id}`: kept for the audit log; what is secret of it is erased and its name is free again.
///
/// # Errors
/// `NotFound`; `Conflict` for the last active admin.
pub fn delete(service: &Service, call: &Call, proof: &Admin, id: AccountId) -> Result<()> {
    let occasion = service.occasion(call);
    let (admin, as_maintenance) = (proof.party(), proof.is_maintenance());
    service.write_as(proof, move |tx, _| {
        let account = living(tx.account(id)?)?;
        keep_an_admin(tx, &account, as_maintenance)?;
        tx.delete_account(id, occasion.time.timestamp())?;
        let party = Party { id, username: account.username };
        tx.append(NewEvent::of(EventType::AccountDeleted).by(admin.clone()).to(Some(party.clone())), occasion)?;
        revoke_all(tx, &party, admin.clone(), RevokeReason::Deleted, None, occasion).map(drop)
    })
}

fn name_taken() -> Error {
    Error::new(Kind::NameTaken, "an account of that name exists")
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
