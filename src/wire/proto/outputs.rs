//! Responses: what each operation's output is as a message, and how a client reads it back.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost_types::{Struct, Timestamp as Stamp, Value as Wire, value::Kind};
use serde_json::{Map, Number, Value};
use zeroize::Zeroizing;

use super::{Response, v1};
use crate::model::account::{Account, AccountId, Listing, RoleName, Roles, Username};
use crate::model::audit::{Event, EventType, Party, Via};
use crate::model::chain::{hex, unhex};
use crate::model::credential::{PgAddress, PgCredentials, TotpEnrolment};
use crate::model::time::{Millis, Timestamp};
use crate::model::token::{
    Audience, HealthStatus, IssuedToken, Jti, PublicKey, PublicKeys, RevokeReason, Revoked, TokenRow, ValidToken,
    Validation, WhoAmI,
};
use crate::secret::{BearerToken, Password};

macro_rules! nothing {
    ($($message:ident),*) => {$(
        impl Response<v1::$message> for () {
            fn into_message(self) -> v1::$message {
                v1::$message {}
            }

            fn from_message(_: v1::$message) -> Option<Self> {
                Some(())
            }
        }
    )*};
}
nothing!(
    LogoutResponse,
    ChangePasswordResponse,
    ConfirmTotpResponse,
    RemoveTotpResponse,
    RevokeTokenResponse,
    DeleteAccountResponse,
    SetPasswordResponse,
    SetRolesResponse,
    GrantRoleResponse,
    RevokeRoleResponse,
    SetPgCredsResponse,
    DeletePgCredsResponse
);

macro_rules! a_token {
    ($($message:ident),*) => {$(
        impl Response<v1::$message> for IssuedToken {
            fn into_message(self) -> v1::$message {
                v1::$message { token: self.token.expose().to_owned(), expires_at: Some(stamp(self.expires_at)) }
            }

            fn from_message(message: v1::$message) -> Option<Self> {
                Some(Self { token: BearerToken::new(message.token), expires_at: time(message.expires_at)? })
            }
        }
    )*};
}
a_token!(LoginResponse, RenewTokenResponse, ExchangeTokenResponse, IssueServiceTokenResponse);

macro_rules! an_account {
    ($($message:ident),*) => {$(
        impl Response<v1::$message> for Account {
            fn into_message(self) -> v1::$message {
                v1::$message { account: Some(account(self)) }
            }

            fn from_message(message: v1::$message) -> Option<Self> {
                read_account(message.account?)
            }
        }
    )*};
}
an_account!(CreateAccountResponse, GetAccountResponse, UpdateAccountResponse);

impl Response<v1::HealthResponse> for HealthStatus {
    fn into_message(self) -> v1::HealthResponse {
        let status = match self {
            Self::Ok => "ok",
            Self::Ready => "ready",
        };
        v1::HealthResponse { status: status.to_owned() }
    }

    fn from_message(message: v1::HealthResponse) -> Option<Self> {
        (message.status == "ok").then_some(Self::Ok)
    }
}

impl Response<v1::GetPublicKeyResponse> for PublicKey {
    fn into_message(self) -> v1::GetPublicKeyResponse {
        let v1::PublicKey { kty, crv, r#use, alg, kid, x } = key(self);
        v1::GetPublicKeyResponse { kty, crv, r#use, alg, kid, x }
    }

    fn from_message(message: v1::GetPublicKeyResponse) -> Option<Self> {
        let v1::GetPublicKeyResponse { kty, crv, r#use, alg, kid, x } = message;
        read_key(v1::PublicKey { kty, crv, r#use, alg, kid, x })
    }
}

impl Response<v1::ListPublicKeysResponse> for PublicKeys {
    fn into_message(self) -> v1::ListPublicKeysResponse {
        v1::ListPublicKeysResponse { keys: self.0.into_iter().map(key).collect() }
    }

    fn from_message(message: v1::ListPublicKeysResponse) -> Option<Self> {
        message.keys.into_iter().map(read_key).collect::<Option<_>>().map(Self)
    }
}

impl Response<v1::WhoAmIResponse> for WhoAmI {
    fn into_message(self) -> v1::WhoAmIResponse {
        v1::WhoAmIResponse {
            account: Some(account(self.account)),
            expires_at: Some(stamp(self.expires_at)),
            audience: self.audience.to_string(),
            token_roles: names(&self.token_roles),
        }
    }

    fn from_message(message: v1::WhoAmIResponse) -> Option<Self> {
        Some(Self {
            account: read_account(message.account?)?,
            expires_at: time(message.expires_at)?,
            audience: Audience::parse(&message.audience).ok()?,
            token_roles: roles(&message.token_roles)?,
        })
    }
}

impl Response<v1::EnrollTotpResponse> for TotpEnrolment {
    fn into_message(self) -> v1::EnrollTotpResponse {
        v1::EnrollTotpResponse { secret: self.secret.to_string(), otpauth_uri: self.uri.to_string() }
    }

    fn from_message(message: v1::EnrollTotpResponse) -> Option<Self> {
        Some(Self { secret: Zeroizing::new(message.secret), uri: Zeroizing::new(message.otpauth_uri) })
    }
}

impl Response<v1::ValidateTokenResponse> for Validation {
    fn into_message(self) -> v1::ValidateTokenResponse {
        match self {
            Self::Bad => v1::ValidateTokenResponse::default(),
            Self::Good(token) => v1::ValidateTokenResponse {
                valid: true,
                sub: token.subject.to_string(),
                username: token.username.to_string(),
                account_type: token.account_type.into(),
                roles: names(&token.roles),
                audience: token.audience.to_string(),
                expires_at: Some(stamp(token.expires_at)),
                jti: token.jti.to_string(),
            },
        }
    }

    fn from_message(message: v1::ValidateTokenResponse) -> Option<Self> {
        if !message.valid {
            return Some(Self::Bad);
        }
        Some(Self::Good(ValidToken {
            subject: AccountId::parse(&message.sub)?,
            username: Username::parse(&message.username).ok()?,
            account_type: Option::from(message.account_type())?,
            roles: roles(&message.roles)?,
            audience: Audience::parse(&message.audience).ok()?,
            expires_at: time(message.expires_at)?,
            jti: Jti::parse(&message.jti)?,
        }))
    }
}

impl Response<v1::ListTokensResponse> for Listing<TokenRow> {
    fn into_message(self) -> v1::ListTokensResponse {
        let tokens = self.rows.into_iter().map(|row| v1::TokenRow {
            jti: row.jti.to_string(),
            audience: row.audience.to_string(),
            issued_at: Some(stamp(row.issued_at)),
            expires_at: Some(stamp(row.expires_at)),
            revoked_at: row.revoked_at.map(stamp),
            revoke_reason: row.revoke_reason.map(|reason| reason.to_string()),
        });
        v1::ListTokensResponse { tokens: tokens.collect(), next_page_token: self.next.unwrap_or_default() }
    }

    fn from_message(message: v1::ListTokensResponse) -> Option<Self> {
        let rows = message.tokens.into_iter().map(|row| {
            Some(TokenRow {
                jti: Jti::parse(&row.jti)?,
                audience: Audience::parse(&row.audience).ok()?,
                issued_at: time(row.issued_at)?,
                expires_at: time(row.expires_at)?,
                revoked_at: row.revoked_at.map(|at| Timestamp::new(at.seconds)),
                revoke_reason: match row.revoke_reason {
                    Some(word) => Some(RevokeReason::from_word(&word)?),
                    None => None,
                },
            })
        });
        Some(Self { rows: rows.collect::<Option<_>>()?, next: next(message.next_page_token) })
    }
}

impl Response<v1::RevokeAllTokensResponse> for Revoked {
    fn into_message(self) -> v1::RevokeAllTokensResponse {
        v1::RevokeAllTokensResponse { revoked: i64::try_from(self.0).unwrap_or(i64::MAX) }
    }

    fn from_message(message: v1::RevokeAllTokensResponse) -> Option<Self> {
        u64::try_from(message.revoked).ok().map(Self)
    }
}

impl Response<v1::ListAccountsResponse> for Listing<Account> {
    fn into_message(self) -> v1::ListAccountsResponse {
        v1::ListAccountsResponse {
            accounts: self.rows.into_iter().map(account).collect(),
            next_page_token: self.next.unwrap_or_default(),
        }
    }

    fn from_message(message: v1::ListAccountsResponse) -> Option<Self> {
        let rows = message.accounts.into_iter().map(read_account).collect::<Option<_>>()?;
        Some(Self { rows, next: next(message.next_page_token) })
    }
}

impl Response<v1::GetRolesResponse> for Roles {
    fn into_message(self) -> v1::GetRolesResponse {
        v1::GetRolesResponse { roles: names(&self.0) }
    }

    fn from_message(message: v1::GetRolesResponse) -> Option<Self> {
        roles(&message.roles).map(Self)
    }
}

impl Response<v1::GetPgCredsResponse> for PgCredentials {
    fn into_message(self) -> v1::GetPgCredsResponse {
        let address = &self.address;
        v1::GetPgCredsResponse {
            host: address.host().to_owned(),
            port: address.port().into(),
            database: address.database().to_owned(),
            username: address.username().to_owned(),
            password: self.password().expose().to_owned(),
        }
    }

    fn from_message(message: v1::GetPgCredsResponse) -> Option<Self> {
        let password = Password::new(message.password);
        let address = PgAddress::parse(&message.host, message.port.into(), &message.database, &message.username);
        Self::new(address.ok()?, password).ok()
    }
}

impl Response<v1::ListEventsResponse> for Listing<Event> {
    fn into_message(self) -> v1::ListEventsResponse {
        v1::ListEventsResponse {
            events: self.rows.into_iter().map(event).collect(),
            next_page_token: self.next.unwrap_or_default(),
        }
    }

    fn from_message(message: v1::ListEventsResponse) -> Option<Self> {
        let rows = message.events.into_iter().map(read_event).collect::<Option<_>>()?;
        Some(Self { rows, next: next(message.next_page_token) })
    }
}

fn account(account: Account) -> v1::Account {
    v1::Account {
        id: account.id.to_string(),
        username: account.username.to_string(),
        account_type: account.account_type.into(),
        status: account.status.into(),
        totp_enabled: account.totp_enabled,
        roles: names(&account.roles),
        created_at: Some(stamp(account.created_at)),
        updated_at: Some(stamp(account.updated_at)),
    }
}

fn read_account(message: v1::Account) -> Option<Account> {
    Some(Account {
        id: AccountId::parse(&message.id)?,
        username: Username::parse(&message.username).ok()?,
        account_type: Option::from(message.account_type())?,
        status: Option::from(message.status())?,
        totp_enabled: message.totp_enabled,
        roles: roles(&message.roles)?,
        created_at: time(message.created_at)?,
        updated_at: time(message.updated_at)?,
    })
}

/// RFC 8037, section 2.
fn key(key: PublicKey) -> v1::PublicKey {
    v1::PublicKey {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        r#use: "sig".to_owned(),
        alg: "EdDSA".to_owned(),
        x: URL_SAFE_NO_PAD.encode(key.bytes),
        kid: key.kid,
    }
}

fn read_key(message: v1::PublicKey) -> Option<PublicKey> {
    let fits = message.kty == "OKP" && message.crv == "Ed25519";
    let bytes = URL_SAFE_NO_PAD.decode(&message.x).ok().filter(|_| fits)?;
    Some(PublicKey { kid: message.kid, bytes: bytes.try_into().ok()? })
}

fn event(event: Event) -> v1::Event {
    let party = |party: Party| v1::Party { id: party.id.to_string(), username: party.username.to_string() };
    v1::Event {
        id: event.id,
        time: Some(stamp(event.time.timestamp())),
        time_ms: event.time.get(),
        r#type: event.event_type.to_string(),
        actor: event.actor.map(party),
        target: event.target.map(party),
        via: event.via.to_string(),
        ip: event.ip,
        details: Some(to_struct(event.details)),
        hash: hex(&event.hash),
    }
}

fn read_event(message: v1::Event) -> Option<Event> {
    let party = |party: Option<v1::Party>| match party {
        Some(party) => {
            let id = AccountId::parse(&party.id)?;
            Some(Some(Party { id, username: Username::parse(&party.username).ok()? }))
        }
        None => Some(None),
    };
    Some(Event {
        id: message.id,
        time: Millis::new(message.time_ms),
        event_type: EventType::from_word(&message.r#type)?,
        via: Via::from_word(&message.via)?,
        actor: party(message.actor)?,
        target: party(message.target)?,
        ip: message.ip,
        details: from_struct(message.details?),
        hash: unhex(&message.hash)?,
    })
}

fn to_struct(members: Map<String, Value>) -> Struct {
    Struct { fields: members.into_iter().map(|(name, value)| (name, to_wire(value))).collect() }
}

fn to_wire(value: Value) -> Wire {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(bool) => Kind::BoolValue(bool),
        // Every number in an event's details is a count.
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(0.0)),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => {
            Kind::ListValue(prost_types::ListValue { values: items.into_iter().map(to_wire).collect() })
        }
        Value::Object(members) => Kind::StructValue(to_struct(members)),
    };
    Wire { kind: Some(kind) }
}

fn from_struct(members: Struct) -> Map<String, Value> {
    members.fields.into_iter().map(|(name, value)| (name, from_wire(value))).collect()
}

fn from_wire(value: Wire) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(bool)) => Value::Bool(bool),
        Some(Kind::NumberValue(number)) => {
            // JSON knows one kind of number, and this wire writes it as a fraction.
            let whole = number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0;
            let number = if whole { Some(Number::from(number as i64)) } else { Number::from_f64(number) };
            number.map_or(Value::Null, Value::Number)
        }
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(from_wire).collect(),
        Some(Kind::StructValue(members)) => Value::Object(from_struct(members)),
    }
}

pub(super) fn stamp(at: Timestamp) -> Stamp {
    Stamp { seconds: at.seconds(), nanos: 0 }
}

fn time(stamp: Option<Stamp>) -> Option<Timestamp> {
    stamp.map(|stamp| Timestamp::new(stamp.seconds))
}

fn names(roles: &[RoleName]) -> Vec<String> {
    roles.iter().map(RoleName::to_string).collect()
}

fn roles(names: &[String]) -> Option<Vec<RoleName>> {
    names.iter().map(|name| RoleName::parse(name).ok()).collect()
}

fn next(token: String) -> Option<String> {
    Some(token).filter(|token| !token.is_empty())
}
