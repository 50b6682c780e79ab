//! Passwords, one-time codes and Postgres credentials: changed, reset, enrolled, read.

use super::access::{Admin, AdminOrOwner, Person};
use super::check::Caller;
use super::hashed::{NewHash, Verified, password_place};
use super::living::{living, no_such_account};
use super::session::{check_code, count_failure, totp_place};
use super::tokens::revoke_all;
use super::{Call, Core, Service, nonce};
use crate::crypto::seal::Place;
use crate::crypto::{password, totp};
use crate::error::{Error, Result};
use crate::model::account::{AccountId, AccountType};
use crate::model::audit::{EventType, NewEvent, Occasion, Party, TotpFailure};
use crate::model::credential::{
    ChangePassword, ConfirmTotp, EnrollTotp, PgAddress, PgCredentials, SetPassword, SetPgCredentials, TotpCode,
    TotpEnrolment,
};
use crate::model::token::RevokeReason;
use crate::random;
use crate::secret::{Password, SecretBytes};
use crate::store::{LoginRow, PgRow, Tx};
use zeroize::Zeroizing;

/// How long a new TOTP secret may wait for its first code, in seconds.
const TOTP_PENDING: i64 = 600;
/// The name of the one set of Postgres credentials that an account can have for now.
const PG_NAME: &str = "default";

/// `PUT /v1/auth/password`: the account's other tokens are revoked.
///
/// # Errors
/// `Forbidden` for a wrong current password or code, or one of them held back; `InvalidRequest` for a new password that
/// breaks a rule.
pub fn change_password(service: &Service, call: &Call, proof: &Person, input: ChangePassword) -> Result<()> {
    let caller = proof.caller().clone();
    service.policy().check_new_password(&caller.username, &input.new)?;
    let verified = verify(service, caller.account, &input.current)?;
    let new = match verified {
        Some(_) => Some(hash(service, caller.account, &input.new)?),
        None => None,
    };
    let occasion = service.occasion(call);
    let now = occasion.time.timestamp();
    service.write_as(proof, move |tx, core| {
        if prove(tx, core, &caller, verified.as_ref(), input.totp_code, occasion)?.is_none() {
            return Ok(Err(wrong_credential()));
        }
        let new = new.as_ref().ok_or_else(|| Error::internal("a proven password without the next one"))?;
        tx.set_password(caller.account, &new.seal(core), now)?;
        let party = Some(caller.party());
        tx.append(NewEvent::of(EventType::PasswordChanged).by(party.clone()).to(party.clone()), occasion)?;
        revoke_all(tx, &caller.party(), party, RevokeReason::PasswordChanged, Some(caller.jti), occasion)?;
        Ok(Ok(()))
    })?
}

/// `PUT /v1/accounts/{id}/password`: all tokens of the account are revoked.
///
/// # Errors
/// `InvalidRequest`, `NotFound`; `Conflict` for a system account.
pub fn set_password(service: &Service, call: &Call, proof: &Admin, input: SetPassword) -> Result<()> {
    service.policy().check_password_text(&input.new)?;
    let account = living(service.store.read(|view| view.account(input.account))?)?;
    if account.account_type == AccountType::System {
        return Err(Error::conflict("a system account has no password"));
    }
    service.policy().check_new_password(&account.username, &input.new)?;
    let new = hash(service, account.id, &input.new)?;
    let occasion = service.occasion(call);
    let admin = proof.party();
    service.write_as(proof, move |tx, core| {
        let account = living(tx.account(account.id)?)?;
        tx.set_password(account.id, &new.seal(core), occasion.time.timestamp())?;
        let party = Party { id: account.id, username: account.username };
        tx.append(NewEvent::of(EventType::PasswordReset).by(admin.clone()).to(Some(party.clone())), occasion)?;
        revoke_all(tx, &party, admin.clone(), RevokeReason::PasswordReset, None, occasion).map(drop)
    })
}

/// `POST /v1/auth/totp/enroll`: pending until confirmed, and in the place of what was pending before.
///
/// # Errors
/// `Forbidden` for a wrong password, or a wrong code of the device until now.
pub fn enroll_totp(service: &Service, call: &Call, proof: &Person, input: EnrollTotp) -> Result<TotpEnrolment> {
    let caller = proof.caller().clone();
    let verified = verify(service, caller.account, &input.password)?;
    let secret: SecretBytes = Zeroizing::new(random::bytes::<{ totp::SECRET_LEN }>()?.to_vec());
    let nonce = nonce()?;
    let enrolment = TotpEnrolment {
        secret: totp::base32(&secret),
        uri: totp::uri(&service.policy().issuer_host, caller.username.as_str(), &secret),
    };
    let occasion = service.occasion(call);
    let proven = service.write_as(proof, move |tx, core| {
        if prove(tx, core, &caller, verified.as_ref(), input.totp_code, occasion)?.is_none() {
            return Ok(false);
        }
        let sealed = core.seal(&pending_place(caller.account), nonce, &secret);
        tx.set_pending_totp(caller.account, &sealed, occasion.time.timestamp())?;
        let party = Some(caller.party());
        tx.append(NewEvent::of(EventType::TotpEnrolled).by(party.clone()).to(party), occasion)?;
        Ok(true)
    })?;
    if proven { Ok(enrolment) } else { Err(wrong_credential()) }
}

/// `POST /v1/auth/totp/confirm`: codes are required from now on; the account's other tokens are revoked.
///
/// # Errors
/// `Forbidden` for a wrong code; `Conflict` where nothing is pending.
pub fn confirm_totp(service: &Service, call: &Call, proof: &Person, input: ConfirmTotp) -> Result<()> {
    let caller = proof.caller().clone();
    let occasion = service.occasion(call);
    let now = occasion.time.timestamp();
    let nonce = nonce()?;
    service.write_as(proof, move |tx, core| {
        let row = tx.login_row(caller.account)?.ok_or_else(Error::unauthorized)?;
        let fresh = row.totp.pending.as_ref().filter(|(_, since)| now < since.plus(TOTP_PENDING));
        let Some((sealed, _)) = fresh else {
            return Ok(Err(Error::conflict("no TOTP enrolment is pending")));
        };
        let secret = core.open(&pending_place(caller.account), sealed)?;
        let held_back = now < row.totp.locked_until;
        let Some(step) = totp::matching_step(&secret, &input.code, now).filter(|_| !held_back) else {
            if !held_back {
                count_failure(tx, caller.account, &row.totp, now)?;
            }
            tx.append(credential_fail(&caller, "totp"), occasion)?;
            return Ok(Err(wrong_credential()));
        };
        tx.enable_totp(caller.account, &core.seal(&totp_place(caller.account), nonce, &secret), step, now)?;
        let party = Some(caller.party());
        tx.append(NewEvent::of(EventType::TotpConfirmed).by(party.clone()).to(party.clone()), occasion)?;
        revoke_all(tx, &caller.party(), party, RevokeReason::TotpChanged, Some(caller.jti), occasion)?;
        Ok(Ok(()))
    })?
}

/// `DELETE /v1/accounts/{id}/totp`: also if there was none, which makes no event.
///
/// # Errors
/// `NotFound`.
pub fn remove_totp(service: &Service, call: &Call, proof: &Admin, account: AccountId) -> Result<()> {
    let occasion = service.occasion(call);
    let admin = proof.party();
    service.write_as(proof, move |tx, _| {
        let account = living(tx.account(account)?)?;
        let row = tx.login_row(account.id)?.ok_or_else(no_such_account)?;
        if !account.totp_enabled && row.totp.pending.is_none() {
            return Ok(());
        }
        tx.disable_totp(account.id, occasion.time.timestamp())?;
        let party = Party { id: account.id, username: account.username };
        tx.append(NewEvent::of(EventType::TotpRemoved).by(admin.clone()).to(Some(party.clone())), occasion)?;
        if account.totp_enabled {
            revoke_all(tx, &party, admin.clone(), RevokeReason::TotpChanged, None, occasion)?;
        }
        Ok(())
    })
}

/// `GET /v1/accounts/{id}/pgcreds`: audited before it is answered.
///
/// # Errors
/// `NotFound` where none are set; `Internal` where the row was redirected to
/// another address, which the sealed password doesn't open under.
pub fn get_pg_credentials(
    service: &Service,
    call: &Call,
    proof: &AdminOrOwner,
    account: AccountId,
) -> Result<PgCredentials> {
    let occasion = service.occasion(call);
    let actor = proof.party();
    service.write_as(proof, move |tx, core| {
        let account = living(tx.account(account)?)?;
        let row = tx.pg_credentials(account.id)?.ok_or_else(none_set)?;
        let credentials = open_pg(core, account.id, &row)?;
        let event = NewEvent::of(EventType::PgcredAccessed)
            .by(actor.clone())
            .to(Some(Party { id: account.id, username: account.username }))
            .with("name", PG_NAME);
        tx.append(event, occasion)?;
        Ok(credentials)
    })
}

/// `PUT /v1/accounts/{id}/pgcreds`.
///
/// # Errors
/// `NotFound`; `Conflict` for a human account.
pub fn set_pg_credentials(service: &Service, call: &Call, proof: &Admin, input: SetPgCredentials) -> Result<()> {
    let occasion = service.occasion(call);
    let (admin, nonce) = (proof.party(), nonce()?);
    service.write_as(proof, move |tx, core| {
        let account = living(tx.account(input.account)?)?;
        if account.account_type == AccountType::Human {
            return Err(Error::conflict("only system accounts have Postgres credentials"));
        }
        let address = &input.credentials.address;
        let plain = input.credentials.password().expose().as_bytes();
        let sealed = core.seal(&pg_place(account.id, address), nonce, plain);
        tx.put_pg_credentials(account.id, address, &sealed, occasion.time.timestamp())?;
        let event = NewEvent::of(EventType::PgcredUpdated)
            .by(admin.clone())
            .to(Some(Party { id: account.id, username: account.username }))
            .with("name", PG_NAME);
        tx.append(event, occasion)
    })
}

/// `DELETE /v1/accounts/{id}/pgcreds`.
///
/// # Errors
/// `NotFound`, also where none are set.
pub fn delete_pg_credentials(service: &Service, call: &Call, proof: &Admin, account: AccountId) -> Result<()> {
    let occasion = service.occasion(call);
    let admin = proof.party();
    service.write_as(proof, move |tx, _| {
        let account = living(tx.account(account)?)?;
        if !tx.delete_pg_credentials(account.id)? {
            return Err(none_set());
        }
        let event = NewEvent::of(EventType::PgcredDeleted)
            .by(admin.clone())
            .to(Some(Party { id: account.id, username: account.username }))
            .with("name", PG_NAME);
        tx.append(event, occasion)
    })
}

/// The stored hash, if the password fits it. Slow.
fn verify(service: &Service, account: AccountId, given: &Password) -> Result<Option<Verified>> {
    let row = service.store.read(|view| view.login_row(account))?.ok_or_else(Error::unauthorized)?;
    let sealed = row.password.ok_or_else(|| Error::internal("a human account without a password"))?;
    let phc = service.core.open(&password_place(account), &sealed)?;
    let verdict = service.slots.run(|memory| password::verify(memory, given, &phc))?;
    Ok(verdict.matches.then(|| Verified::new(account, sealed, phc)))
}

/// A new password, hashed. Slow.
fn hash(service: &Service, account: AccountId, new: &Password) -> Result<NewHash> {
    let salt = random::bytes()?;
    let phc = service.slots.run(|memory| password::hash(memory, new, service.policy().argon2, salt))?;
    NewHash::new(account, phc)
}

/// Decides whether the caller has proved to be themselves once more: the password is still the one that was verified,
/// and where TOTP is on the code is good. What is wrong is written down and counts for the back-off; while codes are
/// held back nothing is looked at.
fn prove(
    tx: &Tx<'_>,
    core: &Core,
    caller: &Caller,
    verified: Option<&Verified>,
    code: Option<TotpCode>,
    occasion: Occasion,
) -> Result<Option<LoginRow>> {
    let now = occasion.time.timestamp();
    let row = tx.login_row(caller.account)?.ok_or_else(Error::unauthorized)?;
    let wrong = if now < row.totp.locked_until {
        // What is held back is codes, where there are any; nobody is guessing at the password.
        Some(if row.account.totp_enabled { "totp" } else { "password" })
    } else if !verified.map_or(Ok(false), |verified| verified.is_still(core, row.password.as_ref()))? {
        count_failure(tx, caller.account, &row.totp, now)?;
        Some("password")
    } else if row.account.totp_enabled {
        let failure: std::result::Result<(), TotpFailure> = check_code(tx, core, caller.account, &row.totp, code, now)?;
        failure.err().map(|_| "totp")
    } else {
        if row.totp.failures > 0 {
            tx.set_totp_failures(caller.account, 0, now)?;
        }
        None
    };
    match wrong {
        None => Ok(Some(row)),
        Some(what) => tx.append(credential_fail(caller, what), occasion).map(|()| None),
    }
}

fn credential_fail(caller: &Caller, what: &str) -> NewEvent {
    let party = Some(caller.party());
    NewEvent::of(EventType::CredentialFail).by(party.clone()).to(party).with("what", what)
}

fn wrong_credential() -> Error {
    Error::forbidden("the current password or code is wrong")
}

fn none_set() -> Error {
    Error::not_found("no Postgres credentials are set")
}

pub(super) fn pending_place(account: AccountId) -> Place {
    Place::new("accounts", "totp_pending_enc", &account.to_string())
}

pub(super) fn pg_place(account: AccountId, address: &PgAddress) -> Place {
    Place::new("pg_credentials", "pg_password_enc", &account.to_string()).with_address(
        address.host(),
        address.port(),
        address.database(),
        address.username(),
    )
}

fn open_pg(core: &Core, account: AccountId, row: &PgRow) -> Result<PgCredentials> {
    let stored = |e: Error| Error::internal(format!("stored Postgres credentials: {}", e.client()));
    let address = PgAddress::parse(&row.host, row.port, &row.database, &row.username).map_err(stored)?;
    let plain = core.open(&pg_place(account, &address), &row.password)?;
    let text = str::from_utf8(&plain).map_err(|_| Error::internal("a stored Postgres password is not UTF-8"))?;
    PgCredentials::new(address, Password::new(text.to_owned())).map_err(stored)
}
