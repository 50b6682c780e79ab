//! The one table that binds each operation to its access and its function. Both doors are built from it: a row whose
//! access, input or output doesn't fit the operation's declaration doesn't compile, and what isn't in it isn't served.

use crate::error::Result;
use crate::model::account::AccountId;
use crate::secret::BearerToken;
use crate::service::access;
use crate::service::{Call, Service, accounts, audit, credentials, keys, roles, session, state, tokens};
use crate::wire::inputs::NamedAccount;
use crate::wire::json::{Answer, FromRequest, Parts, Reply};
use crate::wire::ops::{self, Decl, Operation};
use crate::wire::outputs::OpenApi;
use crate::wire::proto::Method;

/// A level of access and the proof of it.
pub trait Grant: ops::Access {
    /// What the function is handed.
    type Proof: Send + 'static;

    /// Asks for the proof. `owner` is the account that the request is about, where it is about one.
    ///
    /// # Errors
    /// `Unauthorized`, `Forbidden`.
    fn ask(service: &Service, token: Option<&BearerToken>, owner: Option<AccountId>) -> Result<Self::Proof>;

    /// Asks for as much of the proof as can be given before it is known what the request is about.
    ///
    /// # Errors
    /// As [`Grant::ask`].
    fn ask_first(service: &Service, token: Option<&BearerToken>) -> Result<Option<Self::Proof>> {
        Self::ask(service, token, None).map(Some)
    }
}

impl Grant for ops::Public {
    type Proof = ();

    fn ask(_: &Service, _: Option<&BearerToken>, _: Option<AccountId>) -> Result<()> {
        Ok(())
    }
}

macro_rules! grants {
    ($($level:ident),*) => {$(
        impl Grant for ops::$level {
            type Proof = access::$level;

            fn ask(service: &Service, token: Option<&BearerToken>, _: Option<AccountId>) -> Result<access::$level> {
                access::$level::ask(service, token)
            }
        }
    )*};
}
grants!(AnyToken, Session, Person, Admin);

impl Grant for ops::AdminOrOwner {
    type Proof = access::AdminOrOwner;

    fn ask(service: &Service, token: Option<&BearerToken>, owner: Option<AccountId>) -> Result<access::AdminOrOwner> {
        access::AdminOrOwner::ask(service, token, owner)
    }

    fn ask_first(service: &Service, token: Option<&BearerToken>) -> Result<Option<access::AdminOrOwner>> {
        access::Session::ask(service, token).map(|_| None)
    }
}

impl Grant for ops::AdminOrProgram {
    type Proof = access::AdminOrOwner;

    fn ask(service: &Service, token: Option<&BearerToken>, owner: Option<AccountId>) -> Result<access::AdminOrOwner> {
        access::AdminOrOwner::ask_as_program(service, token, owner)
    }

    fn ask_first(service: &Service, token: Option<&BearerToken>) -> Result<Option<access::AdminOrOwner>> {
        access::Session::ask(service, token).map(|_| None)
    }
}

/// The proof that an operation's function takes.
pub type ProofOf<O> = <<O as Operation>::Access as Grant>::Proof;

/// A function that serves an operation.
pub trait Handler<O: Operation<Access: Grant>>: Copy + Send + Sync + 'static {
    /// Does it.
    ///
    /// # Errors
    /// The operation's own.
    fn serve(&self, service: &Service, call: &Call, proof: &ProofOf<O>, input: O::Input) -> Result<O::Output>;
}

/// Serves anybody.
#[derive(Clone, Copy)]
pub struct Public<F>(pub F);

impl<O, F> Handler<O> for Public<F>
where
    O: Operation<Access = ops::Public>,
    F: Fn(&Service, &Call, O::Input) -> Result<O::Output> + Copy + Send + Sync + 'static,
{
    fn serve(&self, service: &Service, call: &Call, (): &(), input: O::Input) -> Result<O::Output> {
        (self.0)(service, call, input)
    }
}

macro_rules! handlers {
    ($($(#[$doc:meta])* $level:ident $proof:ident),*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $level<F>(pub F);

        impl<O, F> Handler<O> for $level<F>
        where
            O: Operation<Access = ops::$level>,
            F: Fn(&Service, &Call, &access::$proof, O::Input) -> Result<O::Output> + Copy + Send + Sync + 'static,
        {
            fn serve(
                &self,
                service: &Service,
                call: &Call,
                proof: &access::$proof,
                input: O::Input,
            ) -> Result<O::Output> {
                (self.0)(service, call, proof, input)
            }
        }
    )*};
}
handlers!(
    /// Serves the bearer of any valid token.
    AnyToken AnyToken,
    /// Serves the bearer of a token for MCIAS itself.
    Session Session,
    /// Serves people.
    Person Person,
    /// Serves admins.
    Admin Admin,
    /// Serves admins, and the account that the operation is about.
    AdminOrOwner AdminOrOwner,
    /// Serves admins, and the system account that the operation is about.
    AdminOrProgram AdminOrOwner
);

/// Every operation with who may and what does it.
pub fn operations(table: &mut impl Table) {
    table.row::<ops::Health, _>(Public(state::health));
    table.row_of_rest::<ops::Ready, _>(Public(state::ready));
    table.row::<ops::GetPublicKey, _>(Public(keys::public_key));
    table.row::<ops::ListPublicKeys, _>(Public(keys::public_keys));
    table.row_of_rest::<ops::GetOpenApi, _>(Public(|_: &Service, _: &Call, (): ()| Ok(OpenApi)));
    table.row::<ops::Login, _>(Public(session::login));
    table.row::<ops::Logout, _>(AnyToken(session::logout));
    table.row::<ops::RenewToken, _>(Person(session::renew));
    table.row::<ops::ExchangeToken, _>(Session(session::exchange));
    table.row::<ops::WhoAmI, _>(Session(session::whoami));
    table.row::<ops::ChangePassword, _>(Person(credentials::change_password));
    table.row::<ops::EnrollTotp, _>(Person(credentials::enroll_totp));
    table.row::<ops::ConfirmTotp, _>(Person(credentials::confirm_totp));
    table.row::<ops::RemoveTotp, _>(Admin(|service: &Service, call: &Call, proof: &access::Admin, named| {
        let NamedAccount(account) = named;
        credentials::remove_totp(service, call, proof, account)
    }));
    table.row_of_rest::<ops::GuardToken, _>(AnyToken(session::guard));
    table.row::<ops::ValidateToken, _>(Public(session::validate));
    table.row::<ops::IssueServiceToken, _>(Admin(tokens::issue_service));
    table.row::<ops::RevokeToken, _>(Session(tokens::revoke));
    table.row::<ops::CreateAccount, _>(Admin(accounts::create));
    table.row::<ops::ListAccounts, _>(Admin(accounts::list));
    table.row::<ops::GetAccount, _>(Admin(accounts::get));
    table.row::<ops::UpdateAccount, _>(Admin(accounts::update));
    table.row::<ops::DeleteAccount, _>(Admin(accounts::delete));
    table.row::<ops::SetPassword, _>(Admin(credentials::set_password));
    table.row_of_rest::<ops::RemoveAccountTotp, _>(Admin(credentials::remove_totp));
    table.row::<ops::GetRoles, _>(Admin(roles::get));
    table.row::<ops::SetRoles, _>(Admin(roles::set));
    table.row::<ops::GrantRole, _>(Admin(roles::grant));
    table.row::<ops::RevokeRole, _>(Admin(roles::revoke));
    table.row::<ops::ListTokens, _>(AdminOrOwner(tokens::list));
    table.row::<ops::RevokeAllTokens, _>(AdminOrOwner(tokens::revoke_all_of));
    table.row::<ops::GetPGCreds, _>(AdminOrProgram(credentials::get_pg_credentials));
    table.row::<ops::SetPGCreds, _>(Admin(credentials::set_pg_credentials));
    table.row::<ops::DeletePGCreds, _>(Admin(credentials::delete_pg_credentials));
    table.row::<ops::ListEvents, _>(Admin(audit::list));
}

/// What a door makes of the rows.
pub trait Table {
    /// Takes one row, of an operation that both doors have.
    fn row<O: Method<Access: Grant>, H: Handler<O>>(&mut self, handler: H);

    /// Takes one row, of an operation that REST has alone.
    fn row_of_rest<O: Operation<Access: Grant>, H: Handler<O>>(&mut self, handler: H);
}

/// A row with its types forgotten, for REST: asks for access, then reads the request, then does it.
pub trait Bound: Send + Sync {
    /// The operation.
    fn decl(&self) -> &'static Decl;

    /// Asks for access; the body isn't looked at before.
    ///
    /// # Errors
    /// `Unauthorized`, `Forbidden`.
    fn ask(
        &self,
        service: &Service,
        token: Option<&BearerToken>,
        owner: Option<AccountId>,
    ) -> Result<Box<dyn Admitted>>;
}

/// A request that was granted access and isn't read yet.
pub trait Admitted: Send {
    /// Reads the request.
    ///
    /// # Errors
    /// `InvalidRequest`, `NotFound`.
    fn read(self: Box<Self>, parts: &mut Parts) -> Result<Job>;
}

/// What is left to do, in the operation's lane.
pub type Job = Box<dyn FnOnce(&Service, &Call) -> Result<Reply> + Send>;

/// Binds a row.
pub fn bind<O: Operation<Access: Grant>, H: Handler<O>>(handler: H) -> Box<dyn Bound> {
    Box::new(Row::<O, H> { handler, operation: std::marker::PhantomData })
}

struct Row<O, H> {
    handler: H,
    operation: std::marker::PhantomData<fn() -> O>,
}

impl<O: Operation<Access: Grant>, H: Handler<O>> Bound for Row<O, H> {
    fn decl(&self) -> &'static Decl {
        &O::DECL
    }

    fn ask(
        &self,
        service: &Service,
        token: Option<&BearerToken>,
        owner: Option<AccountId>,
    ) -> Result<Box<dyn Admitted>> {
        let proof = O::Access::ask(service, token, owner)?;
        Ok(Box::new(Granted::<O, H> { handler: self.handler, proof }))
    }
}

struct Granted<O: Operation<Access: Grant>, H> {
    handler: H,
    proof: ProofOf<O>,
}

impl<O: Operation<Access: Grant>, H: Handler<O>> Admitted for Granted<O, H> {
    fn read(self: Box<Self>, parts: &mut Parts) -> Result<Job> {
        let input = O::Input::from_request(parts)?;
        let Self { handler, proof } = *self;
        Ok(Box::new(move |service, call| handler.serve(service, call, &proof, input).map(Answer::reply)))
    }
}
