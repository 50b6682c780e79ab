//! Logging in and out, renewing and exchanging, and asking whether a token is good.

use super::access::{AnyToken, Person, Session};
use super::check::check;
use super::hashed::{NewHash, Verified, password_place};
use super::issue::{Grant, issue};
use super::policy::MAX_PASSWORD_BYTES;
use super::{Call, Core, Service};
use crate::crypto::seal::Place;
use crate::crypto::{password, totp};
use crate::error::{Error, Result};
use crate::model::account::{AccountId, AccountStatus, AccountType, Username};
use crate::model::audit::{EventType, LoginFailure, NewEvent, Party, TotpFailure};
use crate::model::credential::TotpCode;
use crate::model::time::Timestamp;
use crate::model::token::{
    Amr, CheckTerms, ExchangeToken, Guarded, IssuedToken, Jti, Login, RevokeReason, ValidateToken, Validation, WhoAmI,
};
use crate::random;
use crate::store::{LoginRow, TotpRow, Tx};

/// Wrong codes in a row before codes are held back.
const TOTP_FAILURES_ALLOWED: i64 = 5;
/// The first time codes are held back, in seconds; it doubles from there.
const TOTP_FIRST_HOLD: i64 = 30;
/// The longest time codes are held back, in seconds.
const TOTP_LONGEST_HOLD: i64 = 3600;

/// Where an account's TOTP secret is sealed.
pub(super) fn totp_place(account: AccountId) -> Place {
    Place::new("accounts", "totp_secret_enc", &account.to_string())
}

/// What hashing found out about a login, before anything is decided.
struct Hashed {
    /// The account of that name, if there was one.
    account: Option<AccountId>,
    /// The stored hash that the password fits.
    verified: Option<Verified>,
    /// The same password under today's parameters, where the stored hash has others.
    rehashed: Option<NewHash>,
}

/// `POST /v1/auth/login`. Every failure is the same refusal after the same work; what it was is in the audit log.
///
/// # Errors
/// `Unauthorized`; `Unavailable` where it can't be audited.
pub fn login(service: &Service, call: &Call, input: Login) -> Result<IssuedToken> {
    let name = Username::parse(&input.username).ok();
    let length = input.password.expose().len();
    let malformed = name.is_none() || length == 0 || length > MAX_PASSWORD_BYTES;
    let hashed = hash(service, name.as_ref(), &input)?;

    // The hash took its time: what is decided now is decided on the world as it is now, in one transaction.
    let now = service.now();
    let occasion = service.occasion(call);
    let jti = Jti::new(random::uuid()?);
    let audience = input.audience.unwrap_or_else(|| service.policy().issuer.clone());
    let code = input.totp_code;
    let outcome = service.write(move |tx, core| {
        let found = match hashed.account {
            Some(id) => tx.login_row(id)?,
            None => None,
        };
        let (failed, target) = match judge(tx, core, &hashed, found.as_ref(), name.as_ref(), malformed, code, now)? {
            Judged::In { amr } => {
                let row = found.as_ref().ok_or_else(|| Error::internal("a login without an account"))?;
                if let Some((old, new)) = hashed.verified.as_ref().zip(hashed.rehashed.as_ref()) {
                    tx.replace_password_hash(row.account.id, old.sealed(), &new.seal(core))?;
                }
                let with_totp = amr.contains(&Amr::Otp);
                let event = NewEvent::of(EventType::LoginOk)
                    .by(Some(party(row)))
                    .with("jti", jti.to_string())
                    .with("audience", audience.as_str())
                    .with("amr", amr.iter().map(|m| m.as_str()).collect::<Vec<_>>());
                let grant = Grant {
                    jti,
                    account: row.account.id,
                    account_type: row.account.account_type,
                    roles: core.policy.roles_for_token(&row.account.roles, with_totp),
                    audience: audience.clone(),
                    auth_time: now,
                    amr,
                    parent: None,
                    not_after: None,
                };
                let issued = issue(tx, core, grant, now)?;
                tx.append(event, occasion)?;
                return Ok(Some(issued));
            }
            Judged::Out { reason, target } => {
                (NewEvent::of(EventType::LoginFail).with("reason", reason.as_str()), target)
            }
            Judged::Code(reason) => {
                (NewEvent::of(EventType::LoginTotpFail).with("reason", reason.as_str()), found.as_ref().map(party))
            }
        };
        tx.append(failed.to(target), occasion)?;
        Ok(None)
    })?;
    outcome.ok_or_else(Error::unauthorized)
}

/// The slow part: one Argon2id, whether or not there is such an account.
fn hash(service: &Service, name: Option<&Username>, input: &Login) -> Result<Hashed> {
    let found = match name {
        Some(name) => service.store.read(|view| view.login_row_named(name))?,
        None => None,
    };
    let account = found.as_ref().map(|row| row.account.id);
    let stored = found.and_then(|row| row.password.map(|sealed| (row.account.id, sealed)));
    let Some((id, sealed)) = stored else {
        let params = service.params_for_stranger(name.map_or(input.username.as_str(), Username::as_str));
        service.slots.run(|memory| password::decoy(memory, &input.password, params))?;
        return Ok(Hashed { account, verified: None, rehashed: None });
    };
    let phc = service.core.open(&password_place(id), &sealed)?;
    let wanted = service.policy().argon2;
    let salt = random::bytes()?;
    let (matches, rehashed) = service.slots.run(|memory| {
        let verdict = password::verify(memory, &input.password, &phc)?;
        let outdated = verdict.matches && verdict.params != wanted;
        let again = outdated.then(|| password::hash(memory, &input.password, wanted, salt)).transpose()?;
        Ok::<_, Error>((verdict.matches, again))
    })?;
    Ok(Hashed {
        account,
        rehashed: rehashed.map(|phc| NewHash::new(id, phc)).transpose()?,
        verified: matches.then(|| Verified::new(id, sealed, phc)),
    })
}

/// What a login comes to.
enum Judged {
    In { amr: Vec<Amr> },
    Out { reason: LoginFailure, target: Option<Party> },
    Code(TotpFailure),
}

#[expect(clippy::too_many_arguments, reason = "the one place where everything about a login comes together")]
fn judge(
    tx: &Tx<'_>,
    core: &Core,
    hashed: &Hashed,
    found: Option<&LoginRow>,
    name: Option<&Username>,
    malformed: bool,
    code: Option<TotpCode>,
    now: Timestamp,
) -> Result<Judged> {
    let Some(row) = found else {
        let former = match name {
            Some(name) => tx.deleted_account_named(name)?,
            None => None,
        };
        let reason = match &former {
            _ if malformed => LoginFailure::Malformed,
            Some(_) => LoginFailure::Deleted,
            None => LoginFailure::UnknownUser,
        };
        let target = former.map(|account| Party { id: account.id, username: account.username });
        return Ok(Judged::Out { reason, target });
    };
    let is_still = || hashed.verified.as_ref().map_or(Ok(false), |v| v.is_still(core, row.password.as_ref()));
    let reason = if row.account.account_type == AccountType::System {
        Some(LoginFailure::SystemAccount)
    } else if row.account.status == AccountStatus::Suspended {
        Some(LoginFailure::Suspended)
    } else if row.account.status == AccountStatus::Deleted {
        Some(LoginFailure::Deleted)
    } else if malformed {
        Some(LoginFailure::Malformed)
    } else if !is_still()? {
        // It never fitted, or it was changed while it was being hashed.
        Some(LoginFailure::BadPassword)
    } else {
        None
    };
    if let Some(reason) = reason {
        return Ok(Judged::Out { reason, target: Some(party(row)) });
    }
    if !row.account.totp_enabled {
        return Ok(Judged::In { amr: vec![Amr::Pwd] });
    }
    Ok(match check_code(tx, core, row.account.id, &row.totp, code, now)? {
        Ok(()) => Judged::In { amr: vec![Amr::Pwd, Amr::Otp] },
        Err(failure) => Judged::Code(failure),
    })
}

/// Checks a one-time code that came after a right password, and uses up its step.
pub(super) fn check_code(
    tx: &Tx<'_>,
    core: &Core,
    account: AccountId,
    totp: &TotpRow,
    code: Option<TotpCode>,
    now: Timestamp,
) -> Result<std::result::Result<(), TotpFailure>> {
    let Some(code) = code else { return Ok(Err(TotpFailure::Missing)) };
    if now < totp.locked_until {
        return Ok(Err(TotpFailure::HeldBack));
    }
    let sealed = totp.secret.as_ref().ok_or_else(|| Error::internal("TOTP is on without a secret"))?;
    let secret = core.open(&totp_place(account), sealed)?;
    let Some(step) = totp::matching_step(&secret, &code, now) else {
        count_failure(tx, account, totp, now)?;
        return Ok(Err(TotpFailure::Wrong));
    };
    Ok(if tx.claim_totp_step(account, step)? { Ok(()) } else { Err(TotpFailure::Replayed) })
}

/// Counts one more wrong code, and holds codes back if it was one too many.
pub(super) fn count_failure(tx: &Tx<'_>, account: AccountId, totp: &TotpRow, now: Timestamp) -> Result<()> {
    let failures = totp.failures.saturating_add(1);
    tx.set_totp_failures(account, failures, now.plus(hold(failures)))
}

/// How long codes are held back after so many wrong ones in a row, in seconds.
fn hold(failures: i64) -> i64 {
    match failures - TOTP_FAILURES_ALLOWED {
        beyond @ 0..=6 => TOTP_LONGEST_HOLD.min(TOTP_FIRST_HOLD << beyond),
        beyond if beyond > 6 => TOTP_LONGEST_HOLD,
        _ => 0,
    }
}

fn party(row: &LoginRow) -> Party {
    Party { id: row.account.id, username: row.account.username.clone() }
}

/// `POST /v1/auth/logout`: the token is revoked, and those got with it.
///
/// # Errors
/// `Unauthorized` where it was revoked meanwhile.
pub fn logout(service: &Service, call: &Call, proof: &AnyToken, (): ()) -> Result<()> {
    let caller = proof.caller().clone();
    let occasion = service.occasion(call);
    service.write_as(proof, move |tx, _| {
        if !tx.revoke_token(caller.jti, RevokeReason::Logout, occasion.time.timestamp())? {
            return Err(Error::unauthorized());
        }
        let event = NewEvent::of(EventType::TokenRevoked)
            .by(Some(caller.party()))
            .to(Some(caller.party()))
            .with("jti", caller.jti.to_string())
            .with("audience", caller.audience.as_str())
            .with("reason", RevokeReason::Logout.as_str());
        tx.append(event, occasion)
    })
}

/// `POST /v1/auth/renew`: a new token with today's roles, the old one revoked in the same transaction.
///
/// # Errors
/// `Unauthorized` past `max_session`, or for the second of two at once.
pub fn renew(service: &Service, call: &Call, proof: &Person, (): ()) -> Result<IssuedToken> {
    let caller = proof.caller().clone();
    let occasion = service.occasion(call);
    let now = occasion.time.timestamp();
    if caller.auth_time.plus(service.policy().max_session) <= now {
        return Err(Error::unauthorized().because("past max_session: a new login is needed"));
    }
    let jti = Jti::new(random::uuid()?);
    service.write_as(proof, move |tx, core| {
        if !tx.revoke_token(caller.jti, RevokeReason::Renewed, now)? {
            return Err(Error::unauthorized());
        }
        let account = tx.account(caller.account)?.ok_or_else(Error::unauthorized)?;
        let grant = Grant {
            jti,
            account: caller.account,
            account_type: caller.account_type,
            roles: core.policy.roles_for_token(&account.roles, caller.amr.contains(&Amr::Otp)),
            audience: caller.audience.clone(),
            auth_time: caller.auth_time,
            amr: caller.amr.clone(),
            // A token that dies with another goes on doing so, and not later.
            parent: caller.parent,
            not_after: caller.parent.map(|_| caller.expires_at),
        };
        let issued = issue(tx, core, grant, now)?;
        let event = NewEvent::of(EventType::TokenRenewed)
            .by(Some(caller.party()))
            .to(Some(caller.party()))
            .with("jti", jti.to_string())
            .with("audience", caller.audience.as_str());
        tx.append(event, occasion)?;
        Ok(issued)
    })
}

/// `POST /v1/auth/token`: a token for another audience, that dies with the caller's and carries no role it doesn't.
///
/// # Errors
/// `Unauthorized` where the caller's token was revoked meanwhile.
pub fn exchange(service: &Service, call: &Call, proof: &Session, input: ExchangeToken) -> Result<IssuedToken> {
    let caller = proof.caller().clone();
    let occasion = service.occasion(call);
    let now = occasion.time.timestamp();
    let jti = Jti::new(random::uuid()?);
    service.write_as(proof, move |tx, core| {
        let held = tx.account(caller.account)?.ok_or_else(Error::unauthorized)?.roles;
        let grant = Grant {
            jti,
            account: caller.account,
            account_type: caller.account_type,
            roles: caller.roles.iter().filter(|role| held.contains(role)).cloned().collect(),
            audience: input.audience.clone(),
            auth_time: caller.auth_time,
            amr: caller.amr.clone(),
            parent: Some(caller.jti),
            not_after: Some(caller.expires_at),
        };
        let issued = issue(tx, core, grant, now)?;
        let event = NewEvent::of(EventType::TokenExchanged)
            .by(Some(caller.party()))
            .to(Some(caller.party()))
            .with("jti", jti.to_string())
            .with("audience", input.audience.as_str());
        tx.append(event, occasion)?;
        Ok(issued)
    })
}

/// `GET /v1/auth/me`.
///
/// # Errors
/// `Unauthorized` where the account is gone meanwhile.
pub fn whoami(service: &Service, _: &Call, proof: &Session, (): ()) -> Result<WhoAmI> {
    let caller = proof.caller();
    let account = service.store.read(|view| view.account(caller.account))?;
    Ok(WhoAmI {
        account: account.ok_or_else(Error::unauthorized)?,
        expires_at: caller.expires_at,
        audience: caller.audience.clone(),
        token_roles: caller.roles.clone(),
    })
}

/// `POST /v1/token/validate`: is this token good right now?
///
/// # Errors
/// `Unauthorized` for a bad token where `bad_is_error`; trouble with the file.
pub fn validate(service: &Service, _: &Call, input: ValidateToken) -> Result<Validation> {
    let good = check(service, &input.token)?
        .filter(|caller| input.audience.as_ref().is_none_or(|wanted| *wanted == caller.audience));
    match good {
        Some(caller) => Ok(Validation::Good(caller.to_valid_token())),
        None if input.bad_is_error => Err(Error::unauthorized()),
        None => Ok(Validation::Bad),
    }
}

/// `GET /v1/token/validate`: may the bearer of this token pass?
///
/// # Errors
/// `Unauthorized` for a bad token or another audience, `Forbidden` where no role fits.
pub fn guard(_: &Service, _: &Call, proof: &AnyToken, terms: CheckTerms) -> Result<Guarded> {
    let caller = proof.caller();
    if terms.audience.is_some_and(|wanted| wanted != caller.audience) {
        return Err(Error::unauthorized());
    }
    if !terms.any_role.is_empty() && !terms.any_role.iter().any(|role| caller.roles.contains(role)) {
        return Err(Error::forbidden("the token carries none of the roles that are wanted"));
    }
    Ok(Guarded(caller.to_valid_token()))
}
