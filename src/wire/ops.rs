//! The operations, each declared once: name, method and path, access, rate-limit bucket, lane, input, output, status.
//! Routes, gRPC methods and client calls are built from here.

use super::inputs::NamedAccount;
use super::json::{Answer, FromRequest};
use super::outputs::OpenApi;
use crate::model::account::{
    self, Account, AccountChange, AccountFilter, AccountId, Listing, NewAccount, RoleOf, Roles,
};
use crate::model::audit::{Event, EventFilter};
use crate::model::credential::{self, PgCredentials, SetPgCredentials, TotpEnrolment};
use crate::model::token::{
    self, CheckTerms, Guarded, HealthStatus, IssuedToken, Jti, PublicKey, PublicKeys, Revoked, TokenRow, Validation,
};

/// An operation's method (RFC 9110, section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads; HEAD goes with it.
    Get,
    /// Does something.
    Post,
    /// Sets something whole.
    Put,
    /// Changes a part.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    /// As in a request line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// How a request waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// A few single-row reads: at once.
    Check,
    /// A bounded pool of threads.
    Work,
    /// A hashing slot, for the whole operation.
    Hash,
}

/// Which budget of a client a request is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bucket {
    /// What tries a credential.
    Credential,
    /// Token checks.
    Validate,
    /// Everything else.
    Api,
}

/// Who may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Anybody.
    Public,
    /// The bearer of any valid token, whatever its audience.
    AnyToken,
    /// The bearer of a valid token for MCIAS itself.
    Session,
    /// A session of a person's.
    Person,
    /// A session with the role `admin`.
    Admin,
    /// An admin, or the account the operation is about.
    AdminOrOwner,
    /// An admin, or the system account that the operation is about.
    AdminOrProgram,
}

/// A level of access as a type, so that a handler of another level doesn't compile.
pub trait Access {
    /// The same as a value.
    const LEVEL: Level;
}

macro_rules! levels {
    ($($name:ident),*) => {$(
        /// See [`Level`].
        pub struct $name;
        impl Access for $name {
            const LEVEL: Level = Level::$name;
        }
    )*};
}
levels!(Public, AnyToken, Session, Person, Admin, AdminOrOwner, AdminOrProgram);

/// Everything about an operation that isn't a type.
#[derive(Debug)]
pub struct Decl {
    /// Its name, in gRPC too.
    pub name: &'static str,
    /// Its method.
    pub method: Method,
    /// Its path; `{…}` stands for one segment.
    pub path: &'static str,
    /// Who may.
    pub level: Level,
    /// Which budget it is taken from.
    pub bucket: Bucket,
    /// How it waits.
    pub lane: Lane,
    /// The status of success.
    pub status: u16,
    /// Whether a JSON body is expected.
    pub body: super::json::Body,
}

/// An operation.
pub trait Operation: 'static {
    /// Who may.
    type Access: Access;
    /// What it takes.
    type Input: FromRequest + Send + 'static;
    /// What it gives.
    type Output: Answer + Send + 'static;
    /// The rest.
    const DECL: Decl;
}

macro_rules! operations {
    ($($name:ident: $method:ident $path:literal $level:ident $bucket:ident $lane:ident $input:ty => $output:ty, $status:literal;)*) => {
        $(
            #[doc = concat!("`", stringify!($method), " ", $path, "`")]
            pub struct $name;
            impl Operation for $name {
                type Access = $level;
                type Input = $input;
                type Output = $output;
                const DECL: Decl = Decl {
                    name: stringify!($name),
                    method: Method::$method,
                    path: $path,
                    level: Level::$level,
                    bucket: Bucket::$bucket,
                    lane: Lane::$lane,
                    status: $status,
                    body: <$input as FromRequest>::BODY,
                };
            }
        )*

        /// Every operation, in the order of the contract.
        pub const ALL: &[&Decl] = &[$(&$name::DECL),*];
    };
}

operations! {
    Health: Get "/v1/health" Public Api Check () => HealthStatus, 200;
    Ready: Get "/v1/ready" Public Api Check () => HealthStatus, 200;
    GetPublicKey: Get "/v1/keys/public" Public Api Check () => PublicKey, 200;
    ListPublicKeys: Get "/.well-known/jwks.json" Public Api Check () => PublicKeys, 200;
    GetOpenApi: Get "/v1/openapi.json" Public Api Check () => OpenApi, 200;
    Login: Post "/v1/auth/login" Public Credential Hash token::Login => IssuedToken, 200;
    Logout: Post "/v1/auth/logout" AnyToken Api Work () => (), 204;
    RenewToken: Post "/v1/auth/renew" Person Api Work () => IssuedToken, 200;
    ExchangeToken: Post "/v1/auth/token" Session Api Work token::ExchangeToken => IssuedToken, 200;
    WhoAmI: Get "/v1/auth/me" Session Api Check () => token::WhoAmI, 200;
    ChangePassword: Put "/v1/auth/password" Person Credential Hash credential::ChangePassword => (), 204;
    EnrollTotp: Post "/v1/auth/totp/enroll" Person Credential Hash credential::EnrollTotp => TotpEnrolment, 200;
    ConfirmTotp: Post "/v1/auth/totp/confirm" Person Credential Work credential::ConfirmTotp => (), 204;
    RemoveTotp: Delete "/v1/auth/totp" Admin Api Work NamedAccount => (), 204;
    GuardToken: Get "/v1/token/validate" AnyToken Validate Check CheckTerms => Guarded, 200;
    ValidateToken: Post "/v1/token/validate" Public Validate Check token::ValidateToken => Validation, 200;
    IssueServiceToken: Post "/v1/token/issue" Admin Api Work token::IssueServiceToken => IssuedToken, 201;
    RevokeToken: Delete "/v1/token/{jti}" Session Api Work Jti => (), 204;
    CreateAccount: Post "/v1/accounts" Admin Api Hash NewAccount => Account, 201;
    ListAccounts: Get "/v1/accounts" Admin Api Work AccountFilter => Listing<Account>, 200;
    GetAccount: Get "/v1/accounts/{id}" Admin Api Work AccountId => Account, 200;
    UpdateAccount: Patch "/v1/accounts/{id}" Admin Api Work AccountChange => Account, 200;
    DeleteAccount: Delete "/v1/accounts/{id}" Admin Api Work AccountId => (), 204;
    SetPassword: Put "/v1/accounts/{id}/password" Admin Api Hash credential::SetPassword => (), 204;
    RemoveAccountTotp: Delete "/v1/accounts/{id}/totp" Admin Api Work AccountId => (), 204;
    GetRoles: Get "/v1/accounts/{id}/roles" Admin Api Work AccountId => Roles, 200;
    SetRoles: Put "/v1/accounts/{id}/roles" Admin Api Work account::SetRoles => (), 204;
    GrantRole: Put "/v1/accounts/{id}/roles/{role}" Admin Api Work RoleOf => (), 204;
    RevokeRole: Delete "/v1/accounts/{id}/roles/{role}" Admin Api Work RoleOf => (), 204;
    ListTokens: Get "/v1/accounts/{id}/tokens" AdminOrOwner Api Work token::ListTokens => Listing<TokenRow>, 200;
    RevokeAllTokens: Delete "/v1/accounts/{id}/tokens" AdminOrOwner Api Work AccountId => Revoked, 200;
    GetPGCreds: Get "/v1/accounts/{id}/pgcreds" AdminOrProgram Api Work AccountId => PgCredentials, 200;
    SetPGCreds: Put "/v1/accounts/{id}/pgcreds" Admin Api Work SetPgCredentials => (), 204;
    DeletePGCreds: Delete "/v1/accounts/{id}/pgcreds" Admin Api Work AccountId => (), 204;
    ListEvents: Get "/v1/audit" Admin Api Work EventFilter => Listing<Event>, 200;
}
