//! gRPC's side of the operations (`spec/grpc.md`): which method each is, which messages it has, and how those become the
//! operations' own types and back. What is in `v1.rs` is made from `proto/`.

mod inputs;
mod outputs;
pub mod v1;

use super::ops::{self, Operation};
use crate::error::Result;
use crate::model::account::AccountId;

/// The files of `proto/mcias/v1` with all that they import, as reflection serves them: a `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!("../../proto/descriptors.bin");

/// The largest message that a request may be, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// An input as a message, and back.
pub trait Request<M>: Sized {
    /// What a server makes of it.
    ///
    /// # Errors
    /// `InvalidRequest` naming what is wrong.
    fn from_message(message: M) -> Result<Self>;

    /// What a client makes of it.
    fn to_message(&self) -> M;

    /// The account that a message is about, where access may depend on that.
    fn owner(_: &M) -> Option<AccountId> {
        None
    }
}

/// An output as a message, and back.
pub trait Response<M>: Sized {
    /// What a server makes of it.
    fn into_message(self) -> M;

    /// What a client makes of it; none where the message isn't one that a server sends.
    fn from_message(message: M) -> Option<Self>;
}

/// An operation that gRPC has, too.
pub trait Method: Operation<Input: Request<Self::Request>, Output: Response<Self::Response>> {
    /// Its path in HTTP/2.
    const PATH: &'static str;
    /// What is sent.
    type Request: prost::Message + Default + 'static;
    /// What comes back.
    type Response: prost::Message + Default + 'static;
}

macro_rules! methods {
    ($($service:literal { $($operation:ident $method:literal $request:ident => $response:ident;)* })*) => {
        $($(impl Method for ops::$operation {
            const PATH: &'static str = concat!("/mcias.v1.", $service, "/", $method);
            type Request = v1::$request;
            type Response = v1::$response;
        })*)*

        /// The services.
        pub const SERVICES: &[&str] = &[$(concat!("mcias.v1.", $service)),*];

        /// Every method with its operation's name.
        pub const METHODS: &[(&str, &str)] =
            &[$($((concat!("/mcias.v1.", $service, "/", $method), stringify!($operation))),*),*];
    };
}

methods! {
    "AdminService" {
        Health "Health" HealthRequest => HealthResponse;
        GetPublicKey "GetPublicKey" GetPublicKeyRequest => GetPublicKeyResponse;
        ListPublicKeys "ListPublicKeys" ListPublicKeysRequest => ListPublicKeysResponse;
    }
    "AuthService" {
        Login "Login" LoginRequest => LoginResponse;
        Logout "Logout" LogoutRequest => LogoutResponse;
        RenewToken "RenewToken" RenewTokenRequest => RenewTokenResponse;
        ExchangeToken "ExchangeToken" ExchangeTokenRequest => ExchangeTokenResponse;
        WhoAmI "WhoAmI" WhoAmIRequest => WhoAmIResponse;
        ChangePassword "ChangePassword" ChangePasswordRequest => ChangePasswordResponse;
        EnrollTotp "EnrollTOTP" EnrollTotpRequest => EnrollTotpResponse;
        ConfirmTotp "ConfirmTOTP" ConfirmTotpRequest => ConfirmTotpResponse;
        RemoveTotp "RemoveTOTP" RemoveTotpRequest => RemoveTotpResponse;
    }
    "TokenService" {
        ValidateToken "ValidateToken" ValidateTokenRequest => ValidateTokenResponse;
        IssueServiceToken "IssueServiceToken" IssueServiceTokenRequest => IssueServiceTokenResponse;
        ListTokens "ListTokens" ListTokensRequest => ListTokensResponse;
        RevokeAllTokens "RevokeAllTokens" RevokeAllTokensRequest => RevokeAllTokensResponse;
        RevokeToken "RevokeToken" RevokeTokenRequest => RevokeTokenResponse;
    }
    "AccountService" {
        ListAccounts "ListAccounts" ListAccountsRequest => ListAccountsResponse;
        CreateAccount "CreateAccount" CreateAccountRequest => CreateAccountResponse;
        GetAccount "GetAccount" GetAccountRequest => GetAccountResponse;
        UpdateAccount "UpdateAccount" UpdateAccountRequest => UpdateAccountResponse;
        DeleteAccount "DeleteAccount" DeleteAccountRequest => DeleteAccountResponse;
        SetPassword "SetPassword" SetPasswordRequest => SetPasswordResponse;
        GetRoles "GetRoles" GetRolesRequest => GetRolesResponse;
        SetRoles "SetRoles" SetRolesRequest => SetRolesResponse;
        GrantRole "GrantRole" GrantRoleRequest => GrantRoleResponse;
        RevokeRole "RevokeRole" RevokeRoleRequest => RevokeRoleResponse;
    }
    "CredentialService" {
        GetPGCreds "GetPGCreds" GetPgCredsRequest => GetPgCredsResponse;
        SetPGCreds "SetPGCreds" SetPgCredsRequest => SetPgCredsResponse;
        DeletePGCreds "DeletePGCreds" DeletePgCredsRequest => DeletePgCredsResponse;
    }
    "AuditService" {
        ListEvents "ListEvents" ListEventsRequest => ListEventsResponse;
    }
}

#[cfg(test)]
mod tests;
