//! The JSON shape of each input and output of the operations (`spec/rest.md`, "Objects").

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::json::{Answer, Body, FromRequest, Parts, Reply};
use crate::error::{Error, Result};
use crate::model::account::{
    Account, AccountFilter, AccountId, AccountStatus, AccountType, Listing, NewAccount, RoleName, Username,
};
use crate::model::credential::TotpCode;
use crate::model::token::{
    Audience, CheckTerms, ExchangeToken, Guarded, HealthStatus, IssuedToken, Login, PublicKey, PublicKeys, ValidToken,
    ValidateToken, Validation, WhoAmI,
};
use crate::secret::BearerToken;

impl FromRequest for () {
    const BODY: Body = Body::None;

    fn from_request(_: &mut Parts) -> Result<Self> {
        Ok(())
    }
}

impl FromRequest for Login {
    const BODY: Body = Body::Required;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        let mut members = parts.members()?;
        let login = Self {
            username: std::mem::take(&mut *members.string("username")?),
            password: members.password("password")?,
            totp_code: members.optional_string("totp_code")?.map(|code| TotpCode::parse(&code)).transpose()?,
            audience: members.optional_string("audience")?.map(|text| Audience::parse(&text)).transpose()?,
        };
        members.finish()?;
        Ok(login)
    }
}

impl FromRequest for ExchangeToken {
    const BODY: Body = Body::Required;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        let mut members = parts.members()?;
        let audience = Audience::parse(&members.string("audience")?)?;
        members.finish()?;
        Ok(Self { audience })
    }
}

impl FromRequest for ValidateToken {
    const BODY: Body = Body::Optional;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        let (mut in_body, mut audience) = (None, None);
        if let Some(mut members) = parts.body.take() {
            in_body = members.optional_string("token")?.map(|mut text| BearerToken::new(std::mem::take(&mut text)));
            audience = members.optional_string("audience")?.map(|text| Audience::parse(&text)).transpose()?;
            members.finish()?;
        }
        match (in_body, parts.bearer.take()) {
            (Some(token), _) => Ok(Self { token, audience, bad_is_error: false }),
            (None, Some(token)) => Ok(Self { token, audience, bad_is_error: true }),
            (None, None) => Err(Error::unauthorized()),
        }
    }
}

impl FromRequest for CheckTerms {
    const BODY: Body = Body::None;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        let audience = parts.query.take("audience")?.map(|text| Audience::parse(&text)).transpose()?;
        let roles = parts.query.take_all("role");
        Ok(Self { audience, any_role: roles.iter().map(|role| RoleName::parse(role)).collect::<Result<_>>()? })
    }
}

impl FromRequest for NewAccount {
    const BODY: Body = Body::Required;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        let mut members = parts.members()?;
        let account = Self {
            username: Username::parse(&members.string("username")?)?,
            account_type: account_type(&members.string("account_type")?)?,
            password: members.optional_password("password")?,
        };
        members.finish()?;
        Ok(account)
    }
}

impl FromRequest for AccountFilter {
    const BODY: Body = Body::None;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        let query = &mut parts.query;
        Ok(Self {
            username: query.take("username")?.map(|text| Username::parse(&text)).transpose()?,
            account_type: query.take("account_type")?.map(|text| account_type(&text)).transpose()?,
            status: query.take("status")?.map(|text| status(&text)).transpose()?,
            page: query.take_page()?,
        })
    }
}

impl FromRequest for AccountId {
    const BODY: Body = Body::None;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        AccountId::parse(parts.segment(0)).ok_or_else(|| Error::not_found("no such account"))
    }
}

fn account_type(text: &str) -> Result<AccountType> {
    AccountType::from_word(text).ok_or_else(|| Error::invalid("account_type must be human or system"))
}

fn status(text: &str) -> Result<AccountStatus> {
    AccountStatus::from_word(text).ok_or_else(|| Error::invalid("status must be active, suspended or deleted"))
}

impl Answer for () {
    fn reply(self) -> Reply {
        Reply::default()
    }
}

impl Answer for HealthStatus {
    fn reply(self) -> Reply {
        Reply::json(json!({"status": match self { Self::Ok => "ok", Self::Ready => "ready" }}))
    }
}

impl Answer for PublicKey {
    fn reply(self) -> Reply {
        Reply::json(jwk(&self))
    }
}

impl Answer for PublicKeys {
    fn reply(self) -> Reply {
        let keys: Vec<Value> = self.0.iter().map(jwk).collect();
        Reply {
            headers: vec![("cache-control", "public, max-age=300".to_owned())],
            ..Reply::json(json!({ "keys": keys }))
        }
    }
}

/// RFC 8037, section 2.
fn jwk(key: &PublicKey) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": key.kid,
           "x": URL_SAFE_NO_PAD.encode(key.bytes)})
}

impl Answer for IssuedToken {
    fn reply(self) -> Reply {
        Reply::json(json!({"token": self.token.expose(), "expires_at": self.expires_at.to_string()}))
    }
}

impl Answer for Validation {
    fn reply(self) -> Reply {
        Reply::json(match self {
            Self::Good(token) => valid_token(&token),
            Self::Bad => json!({"valid": false}),
        })
    }
}

impl Answer for Guarded {
    fn reply(self) -> Reply {
        let Self(token) = self;
        let headers = vec![
            ("x-mcias-subject", token.subject.to_string()),
            ("x-mcias-username", token.username.to_string()),
            ("x-mcias-roles", names(&token.roles).join(",")),
        ];
        Reply { headers, ..Reply::json(valid_token(&token)) }
    }
}

fn valid_token(token: &ValidToken) -> Value {
    json!({"valid": true, "sub": token.subject.to_string(), "username": token.username.as_str(),
           "account_type": token.account_type.as_str(), "roles": names(&token.roles),
           "audience": token.audience.as_str(), "expires_at": token.expires_at.to_string(),
           "jti": token.jti.to_string()})
}

impl Answer for WhoAmI {
    fn reply(self) -> Reply {
        let mut members = account(&self.account);
        members.insert("expires_at".into(), self.expires_at.to_string().into());
        members.insert("audience".into(), self.audience.as_str().into());
        members.insert("token_roles".into(), names(&self.token_roles).into());
        Reply::json(Value::Object(members))
    }
}

impl Answer for Account {
    fn reply(self) -> Reply {
        Reply::json(Value::Object(account(&self)))
    }
}

impl Answer for Listing<Account> {
    fn reply(self) -> Reply {
        let rows: Vec<Value> = self.rows.iter().map(|row| Value::Object(account(row))).collect();
        Reply { next: self.next, ..Reply::json(rows.into()) }
    }
}

fn account(account: &Account) -> Map<String, Value> {
    let members = [
        ("id", account.id.to_string().into()),
        ("username", account.username.as_str().into()),
        ("account_type", account.account_type.as_str().into()),
        ("status", account.status.as_str().into()),
        ("totp_enabled", account.totp_enabled.into()),
        ("roles", names(&account.roles).into()),
        ("created_at", account.created_at.to_string().into()),
        ("updated_at", account.updated_at.to_string().into()),
    ];
    members.into_iter().map(|(name, value): (_, Value)| (name.to_owned(), value)).collect()
}

fn names(roles: &[RoleName]) -> Vec<&str> {
    roles.iter().map(RoleName::as_str).collect()
}
