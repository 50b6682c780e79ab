//! Requests: what each operation's input is as a message. Held to what REST holds them to, in the same order.

use prost_types::Timestamp as Stamp;

use super::super::inputs::{NamedAccount, account_id};
use super::{Request, v1};
use crate::error::{Error, Result};
use crate::model::account::{
    AccountChange, AccountFilter, AccountId, AccountStatus, AccountType, NewAccount, Page, RoleName, RoleOf, Roles,
    SetRoles, Username,
};
use crate::model::audit::{EventFilter, EventType};
use crate::model::credential::{
    ChangePassword, ConfirmTotp, EnrollTotp, PgAddress, PgCredentials, SetPassword, SetPgCredentials, TotpCode,
};
use crate::model::time::Timestamp;
use crate::model::token::{Audience, ExchangeToken, IssueServiceToken, Jti, ListTokens, Login, ValidateToken};
use crate::secret::{BearerToken, Password};

macro_rules! nothing {
    ($($message:ident),*) => {$(
        impl Request<v1::$message> for () {
            fn from_message(_: v1::$message) -> Result<Self> {
                Ok(())
            }

            fn to_message(&self) -> v1::$message {
                v1::$message {}
            }
        }
    )*};
}
nothing!(HealthRequest, GetPublicKeyRequest, ListPublicKeysRequest, LogoutRequest, RenewTokenRequest, WhoAmIRequest);

macro_rules! an_account {
    ($($message:ident),*) => {$(
        impl Request<v1::$message> for AccountId {
            fn from_message(message: v1::$message) -> Result<Self> {
                Ok(account_id(&message.id))
            }

            fn to_message(&self) -> v1::$message {
                v1::$message { id: self.to_string() }
            }

            fn owner(message: &v1::$message) -> Option<AccountId> {
                Some(account_id(&message.id))
            }
        }
    )*};
}
an_account!(
    GetAccountRequest,
    DeleteAccountRequest,
    GetRolesRequest,
    RevokeAllTokensRequest,
    GetPgCredsRequest,
    DeletePgCredsRequest
);

macro_rules! a_role {
    ($($message:ident),*) => {$(
        impl Request<v1::$message> for RoleOf {
            fn from_message(message: v1::$message) -> Result<Self> {
                let role = RoleName::parse(&message.role)?;
                Ok(Self { account: account_id(&message.id), role })
            }

            fn to_message(&self) -> v1::$message {
                v1::$message { id: self.account.to_string(), role: self.role.to_string() }
            }
        }
    )*};
}
a_role!(GrantRoleRequest, RevokeRoleRequest);

impl Request<v1::LoginRequest> for Login {
    fn from_message(message: v1::LoginRequest) -> Result<Self> {
        Ok(Self {
            password: Password::new(message.password),
            totp_code: code(message.totp_code)?,
            audience: audience(message.audience)?,
            username: message.username,
        })
    }

    fn to_message(&self) -> v1::LoginRequest {
        v1::LoginRequest {
            username: self.username.clone(),
            password: self.password.expose().to_owned(),
            totp_code: self.totp_code.as_ref().map(digits),
            audience: self.audience.as_ref().map(Audience::to_string),
        }
    }
}

impl Request<v1::ExchangeTokenRequest> for ExchangeToken {
    fn from_message(message: v1::ExchangeTokenRequest) -> Result<Self> {
        Ok(Self { audience: Audience::parse(&message.audience)? })
    }

    fn to_message(&self) -> v1::ExchangeTokenRequest {
        v1::ExchangeTokenRequest { audience: self.audience.to_string() }
    }
}

impl Request<v1::ChangePasswordRequest> for ChangePassword {
    fn from_message(message: v1::ChangePasswordRequest) -> Result<Self> {
        Ok(Self {
            current: Password::new(message.current_password),
            new: Password::new(message.new_password),
            totp_code: code(message.totp_code)?,
        })
    }

    fn to_message(&self) -> v1::ChangePasswordRequest {
        v1::ChangePasswordRequest {
            current_password: self.current.expose().to_owned(),
            new_password: self.new.expose().to_owned(),
            totp_code: self.totp_code.as_ref().map(digits),
        }
    }
}

impl Request<v1::EnrollTotpRequest> for EnrollTotp {
    fn from_message(message: v1::EnrollTotpRequest) -> Result<Self> {
        Ok(Self { password: Password::new(message.password), totp_code: code(message.totp_code)? })
    }

    fn to_message(&self) -> v1::EnrollTotpRequest {
        v1::EnrollTotpRequest {
            password: self.password.expose().to_owned(),
            totp_code: self.totp_code.as_ref().map(digits),
        }
    }
}

impl Request<v1::ConfirmTotpRequest> for ConfirmTotp {
    fn from_message(message: v1::ConfirmTotpRequest) -> Result<Self> {
        Ok(Self { code: TotpCode::parse(&message.code)? })
    }

    fn to_message(&self) -> v1::ConfirmTotpRequest {
        v1::ConfirmTotpRequest { code: digits(&self.code) }
    }
}

impl Request<v1::RemoveTotpRequest> for NamedAccount {
    fn from_message(message: v1::RemoveTotpRequest) -> Result<Self> {
        Ok(Self(account_id(&message.account_id)))
    }

    fn to_message(&self) -> v1::RemoveTotpRequest {
        v1::RemoveTotpRequest { account_id: self.0.to_string() }
    }
}

impl Request<v1::ValidateTokenRequest> for ValidateToken {
    fn from_message(message: v1::ValidateTokenRequest) -> Result<Self> {
        let audience = audience(message.audience)?;
        Ok(Self { token: BearerToken::new(message.token), audience, bad_is_error: false })
    }

    fn to_message(&self) -> v1::ValidateTokenRequest {
        v1::ValidateTokenRequest {
            token: self.token.expose().to_owned(),
            audience: self.audience.as_ref().map(Audience::to_string),
        }
    }
}

impl Request<v1::IssueServiceTokenRequest> for IssueServiceToken {
    fn from_message(message: v1::IssueServiceTokenRequest) -> Result<Self> {
        let audience = audience(message.audience)?;
        Ok(Self { account: account_id(&message.account_id), audience, overlap: Self::overlap(message.overlap)? })
    }

    fn to_message(&self) -> v1::IssueServiceTokenRequest {
        v1::IssueServiceTokenRequest {
            account_id: self.account.to_string(),
            audience: self.audience.as_ref().map(Audience::to_string),
            overlap: self.overlap.into(),
        }
    }
}

impl Request<v1::ListTokensRequest> for ListTokens {
    fn from_message(message: v1::ListTokensRequest) -> Result<Self> {
        let page = page(message.page_size, message.page_token)?;
        Ok(Self { account: account_id(&message.id), page })
    }

    fn to_message(&self) -> v1::ListTokensRequest {
        let (page_size, page_token) = shown_page(&self.page);
        v1::ListTokensRequest { id: self.account.to_string(), page_size, page_token }
    }

    fn owner(message: &v1::ListTokensRequest) -> Option<AccountId> {
        Some(account_id(&message.id))
    }
}

impl Request<v1::RevokeTokenRequest> for Jti {
    fn from_message(message: v1::RevokeTokenRequest) -> Result<Self> {
        Self::parse(&message.jti).ok_or_else(|| Error::not_found("no such token"))
    }

    fn to_message(&self) -> v1::RevokeTokenRequest {
        v1::RevokeTokenRequest { jti: self.to_string() }
    }
}

impl Request<v1::ListAccountsRequest> for AccountFilter {
    fn from_message(message: v1::ListAccountsRequest) -> Result<Self> {
        Ok(Self {
            username: message.username.map(|text| Username::parse(&text)).transpose()?,
            account_type: message.account_type.map(account_type).transpose()?,
            status: message.status.map(status).transpose()?,
            page: page(message.page_size, message.page_token)?,
        })
    }

    fn to_message(&self) -> v1::ListAccountsRequest {
        let (page_size, page_token) = shown_page(&self.page);
        v1::ListAccountsRequest {
            username: self.username.as_ref().map(Username::to_string),
            account_type: self.account_type.map(|of| of.into()),
            status: self.status.map(|status| status.into()),
            page_size,
            page_token,
        }
    }
}

impl Request<v1::CreateAccountRequest> for NewAccount {
    fn from_message(message: v1::CreateAccountRequest) -> Result<Self> {
        Ok(Self {
            username: Username::parse(&message.username)?,
            account_type: account_type(message.account_type)?,
            password: message.password.map(Password::new),
        })
    }

    fn to_message(&self) -> v1::CreateAccountRequest {
        v1::CreateAccountRequest {
            username: self.username.to_string(),
            account_type: self.account_type.into(),
            password: self.password.as_ref().map(|password| password.expose().to_owned()),
        }
    }
}

impl Request<v1::UpdateAccountRequest> for AccountChange {
    fn from_message(message: v1::UpdateAccountRequest) -> Result<Self> {
        let username = message.username.map(|text| Username::parse(&text)).transpose()?;
        let status = message.status.map(status).transpose()?;
        Self::new(account_id(&message.id), username, status)
    }

    fn to_message(&self) -> v1::UpdateAccountRequest {
        v1::UpdateAccountRequest {
            id: self.account.to_string(),
            username: self.username.as_ref().map(Username::to_string),
            status: self.status.map(|status| status.into()),
        }
    }
}

impl Request<v1::SetPasswordRequest> for SetPassword {
    fn from_message(message: v1::SetPasswordRequest) -> Result<Self> {
        Ok(Self { account: account_id(&message.id), new: Password::new(message.new_password) })
    }

    fn to_message(&self) -> v1::SetPasswordRequest {
        v1::SetPasswordRequest { id: self.account.to_string(), new_password: self.new.expose().to_owned() }
    }
}

impl Request<v1::SetRolesRequest> for SetRoles {
    fn from_message(message: v1::SetRolesRequest) -> Result<Self> {
        let roles = Roles::new(message.roles.iter().map(|role| RoleName::parse(role)).collect::<Result<_>>()?)?;
        Ok(Self { account: account_id(&message.id), roles })
    }

    fn to_message(&self) -> v1::SetRolesRequest {
        let roles = self.roles.0.iter().map(RoleName::to_string).collect();
        v1::SetRolesRequest { id: self.account.to_string(), roles }
    }
}

impl Request<v1::SetPgCredsRequest> for SetPgCredentials {
    fn from_message(message: v1::SetPgCredsRequest) -> Result<Self> {
        let password = Password::new(message.password);
        let address = PgAddress::parse(&message.host, message.port.into(), &message.database, &message.username)?;
        let credentials = PgCredentials::new(address, password)?;
        Ok(Self { account: account_id(&message.id), credentials })
    }

    fn to_message(&self) -> v1::SetPgCredsRequest {
        let address = &self.credentials.address;
        v1::SetPgCredsRequest {
            id: self.account.to_string(),
            host: address.host().to_owned(),
            port: address.port().into(),
            database: address.database().to_owned(),
            username: address.username().to_owned(),
            password: self.credentials.password().expose().to_owned(),
        }
    }
}

impl Request<v1::ListEventsRequest> for EventFilter {
    fn from_message(message: v1::ListEventsRequest) -> Result<Self> {
        let account = message.account.as_deref().and_then(AccountId::parse);
        let event_type = message
            .r#type
            .map(|word| EventType::from_word(&word).ok_or_else(|| Error::invalid("type is not a type of event")));
        Ok(Self {
            nobody: message.account.is_some() && account.is_none(),
            account,
            event_type: event_type.transpose()?,
            since: time(message.since, "since")?,
            until: time(message.until, "until")?,
            page: page(message.page_size, message.page_token)?,
        })
    }

    fn to_message(&self) -> v1::ListEventsRequest {
        let (page_size, page_token) = shown_page(&self.page);
        let nobody = self.nobody.then_some(AccountId::NOBODY);
        v1::ListEventsRequest {
            account: self.account.or(nobody).map(|account| account.to_string()),
            r#type: self.event_type.map(|of| of.to_string()),
            since: self.since.map(super::outputs::stamp),
            until: self.until.map(super::outputs::stamp),
            page_size,
            page_token,
        }
    }
}

fn code(text: Option<String>) -> Result<Option<TotpCode>> {
    text.map(|text| TotpCode::parse(&text)).transpose()
}

fn digits(code: &TotpCode) -> String {
    code.as_bytes().iter().map(|digit| char::from(*digit)).collect()
}

fn audience(text: Option<String>) -> Result<Option<Audience>> {
    text.map(|text| Audience::parse(&text)).transpose()
}

fn account_type(number: i32) -> Result<AccountType> {
    let known = v1::AccountType::try_from(number).ok().and_then(Option::from);
    known.ok_or_else(|| Error::invalid("account_type must be ACCOUNT_TYPE_HUMAN or ACCOUNT_TYPE_SYSTEM"))
}

fn status(number: i32) -> Result<AccountStatus> {
    let known = v1::AccountStatus::try_from(number).ok().and_then(Option::from);
    known.ok_or_else(|| {
        Error::invalid("status must be ACCOUNT_STATUS_ACTIVE, ACCOUNT_STATUS_SUSPENDED or ACCOUNT_STATUS_DELETED")
    })
}

fn page(size: i32, token: String) -> Result<Page> {
    let limit = match size {
        0 => Page::DEFAULT_LIMIT,
        _ => u32::try_from(size)
            .ok()
            .filter(|limit| *limit <= Page::MAX_LIMIT)
            .ok_or_else(|| Error::invalid("page_size must be a number from 1 to 1000"))?,
    };
    Ok(Page { limit, cursor: Some(token).filter(|token| !token.is_empty()) })
}

fn shown_page(page: &Page) -> (i32, String) {
    (i32::try_from(page.limit).unwrap_or(i32::MAX), page.cursor.clone().unwrap_or_default())
}

/// Whole seconds: of a part of one the beginning counts, as in REST.
fn time(stamp: Option<Stamp>, name: &str) -> Result<Option<Timestamp>> {
    let Some(stamp) = stamp else { return Ok(None) };
    // The years 1 to 9999 (google/protobuf/timestamp.proto).
    let fits =
        (-62_135_596_800..=253_402_300_799).contains(&stamp.seconds) && (0..1_000_000_000).contains(&stamp.nanos);
    if !fits {
        return Err(Error::invalid(format!("{name} is no time")));
    }
    Ok(Some(Timestamp::new(stamp.seconds)))
}

impl From<AccountType> for i32 {
    fn from(of: AccountType) -> Self {
        match of {
            AccountType::Human => v1::AccountType::Human as i32,
            AccountType::System => v1::AccountType::System as i32,
        }
    }
}

impl From<v1::AccountType> for Option<AccountType> {
    fn from(of: v1::AccountType) -> Self {
        match of {
            v1::AccountType::Unspecified => None,
            v1::AccountType::Human => Some(AccountType::Human),
            v1::AccountType::System => Some(AccountType::System),
        }
    }
}

impl From<AccountStatus> for i32 {
    fn from(status: AccountStatus) -> Self {
        match status {
            AccountStatus::Active => v1::AccountStatus::Active as i32,
            AccountStatus::Suspended => v1::AccountStatus::Suspended as i32,
            AccountStatus::Deleted => v1::AccountStatus::Deleted as i32,
        }
    }
}

impl From<v1::AccountStatus> for Option<AccountStatus> {
    fn from(status: v1::AccountStatus) -> Self {
        match status {
            v1::AccountStatus::Unspecified => None,
            v1::AccountStatus::Active => Some(AccountStatus::Active),
            v1::AccountStatus::Suspended => Some(AccountStatus::Suspended),
            v1::AccountStatus::Deleted => Some(AccountStatus::Deleted),
        }
    }
}
