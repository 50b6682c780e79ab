//! Roles: who holds which, given and taken. The last active person with the role `admin` keeps it.

use super::access::Admin;
use super::living::living;
use super::{Call, Service};
use crate::error::{Error, Result};
use crate::model::account::{
    Account, AccountId, AccountStatus, AccountType, MAX_ROLES, RoleName, RoleOf, Roles, SetRoles,
};
use crate::model::audit::{EventType, NewEvent, Occasion, Party};
use crate::store::Tx;

/// `GET /v1/accounts/{id}/roles`.
///
/// # Errors
/// `NotFound`.
pub fn get(service: &Service, _: &Call, _: &Admin, account: AccountId) -> Result<Roles> {
    Ok(Roles(living(service.store.read(|view| view.account(account))?)?.roles))
}

/// `PUT /v1/accounts/{id}/roles`: exactly these from now on; one event for each given or taken.
///
/// # Errors
/// `NotFound`; `Conflict` where it would leave no admin.
pub fn set(service: &Service, call: &Call, proof: &Admin, input: SetRoles) -> Result<()> {
    let change = Change::by(service, call, proof);
    service.write_as(proof, move |tx, _| {
        let account = living(tx.account(input.account)?)?;
        let Roles(wanted) = &input.roles;
        for role in account.roles.iter().filter(|role| !wanted.contains(role)) {
            change.take(tx, &account, role)?;
        }
        for role in wanted.iter().filter(|role| !account.roles.contains(role)) {
            change.give(tx, &account, role)?;
        }
        Ok(())
    })
}

/// `PUT /v1/accounts/{id}/roles/{role}`: also if it was held already, which makes no event.
///
/// # Errors
/// `NotFound`; `Conflict` where the account has as many roles as there may be.
pub fn grant(service: &Service, call: &Call, proof: &Admin, input: RoleOf) -> Result<()> {
    let change = Change::by(service, call, proof);
    service.write_as(proof, move |tx, _| {
        let account = living(tx.account(input.account)?)?;
        if account.roles.contains(&input.role) {
            return Ok(());
        }
        if account.roles.len() >= MAX_ROLES {
            return Err(Error::conflict(format!("an account has at most {MAX_ROLES} roles")));
        }
        change.give(tx, &account, &input.role)
    })
}

/// `DELETE /v1/accounts/{id}/roles/{role}`: also if it wasn't held, which makes no event.
///
/// # Errors
/// `NotFound`; `Conflict` where it would leave no admin.
pub fn revoke(service: &Service, call: &Call, proof: &Admin, input: RoleOf) -> Result<()> {
    let change = Change::by(service, call, proof);
    service.write_as(proof, move |tx, _| {
        let account = living(tx.account(input.account)?)?;
        if account.roles.contains(&input.role) { change.take(tx, &account, &input.role) } else { Ok(()) }
    })
}

/// Refuses what would leave no active person with the role `admin`; the maintenance tool may.
pub(super) fn keep_an_admin(tx: &Tx<'_>, account: &Account, as_maintenance: bool) -> Result<()> {
    let counts = account.account_type == AccountType::Human
        && account.status == AccountStatus::Active
        && account.roles.iter().any(RoleName::is_admin);
    if counts && !as_maintenance && tx.other_admins(account.id)? == 0 {
        return Err(Error::conflict("this is the last active admin"));
    }
    Ok(())
}

/// Who changes roles, and when.
struct Change {
    admin: Option<Party>,
    by: Option<AccountId>,
    as_maintenance: bool,
    occasion: Occasion,
}

impl Change {
    fn by(service: &Service, call: &Call, proof: &Admin) -> Self {
        Self {
            admin: proof.party(),
            by: proof.account(),
            as_maintenance: proof.is_maintenance(),
            occasion: service.occasion(call),
        }
    }

    fn give(&self, tx: &Tx<'_>, account: &Account, role: &RoleName) -> Result<()> {
        tx.grant_role(account.id, role, self.by, self.occasion.time.timestamp())?;
        self.note(tx, EventType::RoleGranted, account, role)
    }

    fn take(&self, tx: &Tx<'_>, account: &Account, role: &RoleName) -> Result<()> {
        if role.is_admin() {
            keep_an_admin(tx, account, self.as_maintenance)?;
        }
        tx.revoke_role(account.id, role)?;
        self.note(tx, EventType::RoleRevoked, account, role)
    }

    fn note(&self, tx: &Tx<'_>, event_type: EventType, account: &Account, role: &RoleName) -> Result<()> {
        let event = NewEvent::of(event_type)
            .by(self.admin.clone())
            .to(Some(Party { id: account.id, username: account.username.clone() }))
            .with("role", role.as_str());
        tx.append(event, self.occasion)
    }
}
