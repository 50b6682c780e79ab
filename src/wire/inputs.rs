//! How each operation's input is read from a request (`spec/rest.md`). Members are read before the path, so that a
//! malformed body is named before an object that isn't there.

use super::json::{Body, FromRequest, Members, Parts};
use crate::error::{Error, Result};
use crate::model::account::{
    AccountChange, AccountFilter, AccountId, AccountStatus, AccountType, NewAccount, RoleName, RoleOf, Roles, SetRoles,
    Username,
};
use crate::model::audit::{EventFilter, EventType};
use crate::model::credential::{
    ChangePassword, ConfirmTotp, EnrollTotp, PgAddress, PgCredentials, SetPassword, SetPgCredentials, TotpCode,
};
use crate::model::time::Timestamp;
use crate::model::token::{
    Audience, CheckTerms, ExchangeToken, IssueServiceToken, Jti, ListTokens, Login, ValidateToken,
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
            totp_code: totp_code(&mut members, "totp_code")?,
            audience: members.optional_string("audience")?.map(|text| Audience::parse(&text)).transpose()?,
        };
        members.finish()?;
        Ok(login)
    }
}

impl FromRequest for ChangePassword {
    const BODY: Body = Body::Required;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        let mut members = parts.members()?;
        let change = Self {
            current: members.password("current_password")?,
            new: members.password("new_password")?,
            totp_code: totp_code(&mut members, "totp_code")?,
        };
        members.finish()?;
        Ok(change)
    }
}

impl FromRequest for EnrollTotp {
    const BODY: Body = Body::Required;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        let mut members = parts.members()?;
        let enrolment =
            Self { password: members.password("password")?, totp_code: totp_code(&mut members, "totp_code")? };
        members.finish()?;
        Ok(enrolment)
    }
}

impl FromRequest for ConfirmTotp {
    const BODY: Body = Body::Required;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        let mut members = parts.members()?;
        let code = TotpCode::parse(&members.string("code")?)?;
        members.finish()?;
        Ok(Self { code })
    }
}

/// An account that a body names.
pub struct NamedAccount(pub AccountId);

impl FromRequest for NamedAccount {
    const BODY: Body = Body::Required;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        let mut members = parts.members()?;
        let account = members.string("account_id")?;
        members.finish()?;
        Ok(Self(account_id(&account)))
    }
}

impl FromRequest for IssueServiceToken {
    const BODY: Body = Body::Required;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        let mut members = parts.members()?;
        let account = members.string("account_id")?;
        let audience = members.optional_string("audience")?.map(|text| Audience::parse(&text)).transpose()?;
        let overlap = members.optional_integer("overlap")?.unwrap_or(0);
        members.finish()?;
        Ok(Self { account: account_id(&account), audience, overlap: Self::overlap(overlap)? })
    }
}

impl FromRequest for Jti {
    const BODY: Body = Body::None;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        Self::parse(parts.segment(0)).ok_or_else(|| Error::not_found("no such token"))
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
        Ok(account_id(parts.segment(0)))
    }
}

impl FromRequest for AccountChange {
    const BODY: Body = Body::Required;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        let mut members = parts.members()?;
        let username = members.optional_string("username")?.map(|text| Username::parse(&text)).transpose()?;
        let status = members.optional_string("status")?.map(|text| status(&text)).transpose()?;
        members.finish()?;
        Self::new(account_id(parts.segment(0)), username, status)
    }
}

impl FromRequest for SetPassword {
    const BODY: Body = Body::Required;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        let mut members = parts.members()?;
        let new = members.password("new_password")?;
        members.finish()?;
        Ok(Self { account: account_id(parts.segment(0)), new })
    }
}

impl FromRequest for SetRoles {
    const BODY: Body = Body::Required;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        let mut members = parts.members()?;
        let roles = members.strings("roles")?;
        members.finish()?;
        let roles = Roles::new(roles.iter().map(|role| RoleName::parse(role)).collect::<Result<_>>()?)?;
        Ok(Self { account: account_id(parts.segment(0)), roles })
    }
}

impl FromRequest for RoleOf {
    const BODY: Body = Body::None;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        let role = RoleName::parse(parts.segment(1))?;
        Ok(Self { account: account_id(parts.segment(0)), role })
    }
}

impl FromRequest for ListTokens {
    const BODY: Body = Body::None;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        let page = parts.query.take_page()?;
        Ok(Self { account: account_id(parts.segment(0)), page })
    }
}

impl FromRequest for SetPgCredentials {
    const BODY: Body = Body::Required;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        let mut members = parts.members()?;
        let host = members.string("host")?;
        let port = members.integer("port")?;
        let (database, username) = (members.string("database")?, members.string("username")?);
        let password = members.password("password")?;
        members.finish()?;
        let credentials = PgCredentials::new(PgAddress::parse(&host, port, &database, &username)?, password)?;
        Ok(Self { account: account_id(parts.segment(0)), credentials })
    }
}

impl FromRequest for EventFilter {
    const BODY: Body = Body::None;

    fn from_request(parts: &mut Parts) -> Result<Self> {
        let query = &mut parts.query;
        let named = query.take("account")?;
        let account = named.as_deref().and_then(AccountId::parse);
        let event_type = query
            .take("type")?
            .map(|word| EventType::from_word(&word).ok_or_else(|| Error::invalid("type is not a type of event")));
        Ok(Self {
            nobody: named.is_some() && account.is_none(),
            account,
            event_type: event_type.transpose()?,
            since: time(query.take("since")?, "since")?,
            until: time(query.take("until")?, "until")?,
            page: query.take_page()?,
        })
    }
}

/// An account's id, in a path or a body: what can't be one is like one that isn't there, so that what else is wrong
/// with the request is named first.
pub(super) fn account_id(text: &str) -> AccountId {
    AccountId::parse(text).unwrap_or(AccountId::NOBODY)
}

fn totp_code(members: &mut Members, name: &str) -> Result<Option<TotpCode>> {
    members.optional_string(name)?.map(|code| TotpCode::parse(&code)).transpose()
}

fn time(text: Option<String>, name: &str) -> Result<Option<Timestamp>> {
    let wrong = |e: Error| Error::invalid(format!("{name}: {}", e.client()));
    text.map(|text| Timestamp::parse(&text).map_err(wrong)).transpose()
}

fn account_type(text: &str) -> Result<AccountType> {
    AccountType::from_word(text).ok_or_else(|| Error::invalid("account_type must be human or system"))
}

fn status(text: &str) -> Result<AccountStatus> {
    AccountStatus::from_word(text).ok_or_else(|| Error::invalid("status must be active, suspended or deleted"))
}
