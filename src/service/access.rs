//! Proofs of access. Only this file can make one, so an operation that takes `&Admin` can't be reached by anybody else.

use super::check::{Caller, check, standing};
use super::{Core, Service};
use crate::error::{Error, Result};
use crate::model::account::{AccountId, AccountType, RoleName};
use crate::model::audit::Party;
use crate::model::time::Timestamp;
use crate::secret::BearerToken;
use crate::store::Tx;

/// Proof of any valid token, whatever its audience.
pub struct AnyToken(Caller);

/// Proof of a valid token for MCIAS itself.
pub struct Session(Caller);

/// Proof of a person's session.
pub struct Person(Caller);

/// Proof of a session whose roles, still held, include `admin`; or of the maintenance tool, which has the database and
/// its keys in its hands.
pub struct Admin(Option<Caller>);

/// Proof of an admin, or of the very account that the operation is about; or of the maintenance tool.
pub struct AdminOrOwner {
    caller: Option<Caller>,
    granted_for: Option<AccountId>,
}

impl AnyToken {
    /// Asks for any good token.
    ///
    /// # Errors
    /// `Unauthorized`, one text for every reason.
    pub fn ask(service: &Service, token: Option<&BearerToken>) -> Result<Self> {
        let token = token.ok_or_else(Error::unauthorized)?;
        check(service, token)?.map(Self).ok_or_else(Error::unauthorized)
    }

    /// Who it is.
    pub fn caller(&self) -> &Caller {
        &self.0
    }
}

impl Session {
    /// Asks for a good token for MCIAS itself.
    ///
    /// # Errors
    /// `Unauthorized`, one text for every reason, another audience included.
    pub fn ask(service: &Service, token: Option<&BearerToken>) -> Result<Self> {
        let AnyToken(caller) = AnyToken::ask(service, token)?;
        if caller.audience != service.policy().issuer {
            return Err(Error::unauthorized().because("a token for another audience opens no session"));
        }
        Ok(Self(caller))
    }

    /// Who it is.
    pub fn caller(&self) -> &Caller {
        &self.0
    }
}

impl Person {
    /// Asks for a person's session: a program has no password, no one-time codes and nothing to renew with.
    ///
    /// # Errors
    /// `Unauthorized` without a session, `Forbidden` for a system account's.
    pub fn ask(service: &Service, token: Option<&BearerToken>) -> Result<Self> {
        let Session(caller) = Session::ask(service, token)?;
        match caller.account_type {
            AccountType::Human => Ok(Self(caller)),
            AccountType::System => Err(Error::forbidden("this is for people: a system account is issued tokens")),
        }
    }

    /// Who it is.
    pub fn caller(&self) -> &Caller {
        &self.0
    }
}

impl Session {
    /// Whether it is an admin's; whoever does something on the strength of it looks again in the transaction.
    pub fn is_admin(&self) -> bool {
        is_admin(&self.0)
    }
}

impl Admin {
    /// Asks for a session with the role `admin`.
    ///
    /// # Errors
    /// `Unauthorized` without a session, `Forbidden` without the role.
    pub fn ask(service: &Service, token: Option<&BearerToken>) -> Result<Self> {
        let Session(caller) = Session::ask(service, token)?;
        if is_admin(&caller) { Ok(Self(Some(caller))) } else { Err(not_admin()) }
    }

    /// The maintenance tool's: whoever holds an opened database and its keys is trusted. A test sees to it that only
    /// `cli/db.rs` and `cli/init.rs` ask for it.
    pub fn maintenance(_opened: &Service) -> Self {
        Self(None)
    }

    /// The admin as an event names it; none for the maintenance tool.
    pub fn party(&self) -> Option<Party> {
        self.0.as_ref().map(Caller::party)
    }

    /// Whether it is the maintenance tool's.
    pub fn is_maintenance(&self) -> bool {
        self.0.is_none()
    }

    /// The admin's account; none for the maintenance tool.
    pub fn account(&self) -> Option<AccountId> {
        self.0.as_ref().map(|caller| caller.account)
    }
}

impl AdminOrOwner {
    /// Asks for an admin's session, or one of `owner`. A caller who is neither learns nothing of whether `owner` exists.
    ///
    /// # Errors
    /// `Unauthorized` without a session, `Forbidden` for another account's.
    pub fn ask(service: &Service, token: Option<&BearerToken>, owner: Option<AccountId>) -> Result<Self> {
        let Session(caller) = Session::ask(service, token)?;
        if is_admin(&caller) {
            Ok(Self { caller: Some(caller), granted_for: None })
        } else if owner == Some(caller.account) {
            Ok(Self { caller: Some(caller), granted_for: owner })
        } else {
            Err(not_admin())
        }
    }

    /// The same where the account has to be a system account: what a program may read of its own, a person may not.
    ///
    /// # Errors
    /// As [`AdminOrOwner::ask`], and `Forbidden` for a person's own.
    pub fn ask_as_program(service: &Service, token: Option<&BearerToken>, owner: Option<AccountId>) -> Result<Self> {
        let granted = Self::ask(service, token, owner)?;
        let own = granted.caller.as_ref().filter(|_| granted.granted_for.is_some());
        match own {
            Some(caller) if caller.account_type == AccountType::Human => {
                Err(Error::forbidden("only a system account reads its own Postgres credentials"))
            }
            _ => Ok(granted),
        }
    }

    /// The maintenance tool's; as [`Admin::maintenance`].
    pub fn maintenance(_opened: &Service) -> Self {
        Self { caller: None, granted_for: None }
    }

    /// The caller as an event names it; none for the maintenance tool.
    pub fn party(&self) -> Option<Party> {
        self.caller.as_ref().map(Caller::party)
    }

    /// The only account that this was granted for; any, for an admin.
    pub fn granted_for(&self) -> Option<AccountId> {
        self.granted_for
    }
}

/// A proof that can be looked at again inside the transaction that relies on it.
pub trait Proof {
    /// Who has to be still in good standing, and whether as an admin; none for the maintenance tool.
    fn holder(&self) -> Option<(&Caller, bool)>;
}

impl Proof for AnyToken {
    fn holder(&self) -> Option<(&Caller, bool)> {
        Some((&self.0, false))
    }
}

impl Proof for Session {
    fn holder(&self) -> Option<(&Caller, bool)> {
        Some((&self.0, false))
    }
}

impl Proof for Person {
    fn holder(&self) -> Option<(&Caller, bool)> {
        Some((&self.0, false))
    }
}

impl Proof for Admin {
    fn holder(&self) -> Option<(&Caller, bool)> {
        self.0.as_ref().map(|caller| (caller, true))
    }
}

impl Proof for AdminOrOwner {
    fn holder(&self) -> Option<(&Caller, bool)> {
        self.caller.as_ref().map(|caller| (caller, self.granted_for.is_none()))
    }
}

impl Service {
    /// Changes something on the strength of a proof, which is looked at again in the same transaction: the token may
    /// have been revoked, the account suspended or the role taken while the request waited.
    pub(super) fn write_as<T: Send + 'static>(
        &self,
        proof: &impl Proof,
        mut work: impl FnMut(&Tx<'_>, &Core) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let holder = proof.holder().map(|(caller, as_admin)| (caller.clone(), as_admin));
        let now = self.now();
        self.write(move |tx, core| {
            if let Some((caller, as_admin)) = &holder {
                look_again(tx, caller, *as_admin, now)?;
            }
            work(tx, core)
        })
    }
}

fn look_again(tx: &Tx<'_>, caller: &Caller, as_admin: bool, now: Timestamp) -> Result<()> {
    let state = tx.token_state(caller.jti)?.ok_or_else(Error::unauthorized)?;
    if standing(&state, now).is_some() {
        return Err(Error::unauthorized());
    }
    if as_admin && !state.roles.iter().any(RoleName::is_admin) {
        return Err(not_admin());
    }
    Ok(())
}

fn is_admin(caller: &Caller) -> bool {
    caller.roles.iter().any(RoleName::is_admin)
}

fn not_admin() -> Error {
    Error::forbidden("this needs a role that the token doesn't carry")
}
