//! How each operation's output is read back from an answer, for clients: the other side of [`super::outputs`]. Members
//! that this version doesn't know are passed over: a newer server may say more.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::model::account::{Account, AccountId, AccountStatus, AccountType, Listing, RoleName, Roles, Username};
use crate::model::audit::{Event, EventType, Party, Via};
use crate::model::chain::unhex;
use crate::model::credential::{PgAddress, PgCredentials, TotpEnrolment};
use crate::model::time::{Millis, Timestamp};
use crate::model::token::{
    Audience, HealthStatus, IssuedToken, Jti, PublicKey, PublicKeys, RevokeReason, Revoked, TokenRow, ValidToken,
    Validation, WhoAmI,
};
use crate::secret::{BearerToken, Password};

/// An output that can be read back from an answer.
pub trait FromAnswer: Sized {
    /// Reads it from the JSON body (`null` where there is none), and the cursor of the next page; none where the answer
    /// isn't of this shape. Secrets are taken out of `body`.
    fn from_answer(body: &mut Value, next: Option<String>) -> Option<Self>;
}

impl FromAnswer for () {
    fn from_answer(_: &mut Value, _: Option<String>) -> Option<Self> {
        Some(())
    }
}

impl FromAnswer for HealthStatus {
    fn from_answer(body: &mut Value, _: Option<String>) -> Option<Self> {
        match text(body, "status")? {
            "ok" => Some(Self::Ok),
            "ready" => Some(Self::Ready),
            _ => None,
        }
    }
}

impl FromAnswer for PublicKey {
    fn from_answer(body: &mut Value, _: Option<String>) -> Option<Self> {
        jwk(body)
    }
}

impl FromAnswer for PublicKeys {
    fn from_answer(body: &mut Value, _: Option<String>) -> Option<Self> {
        body["keys"].as_array()?.iter().map(jwk).collect::<Option<_>>().map(Self)
    }
}

impl FromAnswer for IssuedToken {
    fn from_answer(body: &mut Value, _: Option<String>) -> Option<Self> {
        let expires_at = time(body, "expires_at")?;
        Some(Self { token: BearerToken::new(take(body, "token")?), expires_at })
    }
}

impl FromAnswer for TotpEnrolment {
    fn from_answer(body: &mut Value, _: Option<String>) -> Option<Self> {
        Some(Self { secret: Zeroizing::new(take(body, "secret")?), uri: Zeroizing::new(take(body, "otpauth_uri")?) })
    }
}

impl FromAnswer for Roles {
    fn from_answer(body: &mut Value, _: Option<String>) -> Option<Self> {
        roles(body, "roles").map(Self)
    }
}

impl FromAnswer for Revoked {
    fn from_answer(body: &mut Value, _: Option<String>) -> Option<Self> {
        body["revoked"].as_u64().map(Self)
    }
}

impl FromAnswer for PgCredentials {
    fn from_answer(body: &mut Value, _: Option<String>) -> Option<Self> {
        let password = Password::new(take(body, "password")?);
        let (host, database, username) = (text(body, "host")?, text(body, "database")?, text(body, "username")?);
        let address = PgAddress::parse(host, body["port"].as_i64()?, database, username).ok()?;
        Self::new(address, password).ok()
    }
}

impl FromAnswer for Validation {
    fn from_answer(body: &mut Value, _: Option<String>) -> Option<Self> {
        if !body["valid"].as_bool()? {
            return Some(Self::Bad);
        }
        Some(Self::Good(ValidToken {
            subject: AccountId::parse(text(body, "sub")?)?,
            username: Username::parse(text(body, "username")?).ok()?,
            account_type: AccountType::from_word(text(body, "account_type")?)?,
            roles: roles(body, "roles")?,
            audience: Audience::parse(text(body, "audience")?).ok()?,
            expires_at: time(body, "expires_at")?,
            jti: Jti::parse(text(body, "jti")?)?,
        }))
    }
}

impl FromAnswer for Account {
    fn from_answer(body: &mut Value, _: Option<String>) -> Option<Self> {
        account(body)
    }
}

impl FromAnswer for WhoAmI {
    fn from_answer(body: &mut Value, _: Option<String>) -> Option<Self> {
        Some(Self {
            account: account(body)?,
            expires_at: time(body, "expires_at")?,
            audience: Audience::parse(text(body, "audience")?).ok()?,
            token_roles: roles(body, "token_roles")?,
        })
    }
}

impl FromAnswer for Listing<Account> {
    fn from_answer(body: &mut Value, next: Option<String>) -> Option<Self> {
        listing(body, next, account)
    }
}

impl FromAnswer for Listing<TokenRow> {
    fn from_answer(body: &mut Value, next: Option<String>) -> Option<Self> {
        listing(body, next, |row| {
            Some(TokenRow {
                jti: Jti::parse(text(row, "jti")?)?,
                audience: Audience::parse(text(row, "audience")?).ok()?,
                issued_at: time(row, "issued_at")?,
                expires_at: time(row, "expires_at")?,
                revoked_at: nullable(row, "revoked_at", time)?,
                revoke_reason: nullable(row, "revoke_reason", |row, name| RevokeReason::from_word(text(row, name)?))?,
            })
        })
    }
}

impl FromAnswer for Listing<Event> {
    fn from_answer(body: &mut Value, next: Option<String>) -> Option<Self> {
        listing(body, next, event)
    }
}

fn event(row: &Value) -> Option<Event> {
    Some(Event {
        id: row["id"].as_i64()?,
        time: Millis::new(row["time_ms"].as_i64()?),
        event_type: EventType::from_word(text(row, "type")?)?,
        via: Via::from_word(text(row, "via")?)?,
        actor: nullable(row, "actor", party)?,
        target: nullable(row, "target", party)?,
        ip: nullable(row, "ip", |row, name| text(row, name).map(str::to_owned))?,
        details: row["details"].as_object().cloned()?,
        hash: unhex(text(row, "hash")?)?,
    })
}

fn party(row: &Value, name: &str) -> Option<Party> {
    let party = &row[name];
    Some(Party { id: AccountId::parse(text(party, "id")?)?, username: Username::parse(text(party, "username")?).ok()? })
}

fn account(row: &Value) -> Option<Account> {
    Some(Account {
        id: AccountId::parse(text(row, "id")?)?,
        username: Username::parse(text(row, "username")?).ok()?,
        account_type: AccountType::from_word(text(row, "account_type")?)?,
        status: AccountStatus::from_word(text(row, "status")?)?,
        totp_enabled: row["totp_enabled"].as_bool()?,
        roles: roles(row, "roles")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

/// RFC 8037, section 2.
fn jwk(key: &Value) -> Option<PublicKey> {
    let fits = text(key, "kty")? == "OKP" && text(key, "crv")? == "Ed25519";
    let bytes = URL_SAFE_NO_PAD.decode(text(key, "x")?).ok()?;
    fits.then_some(())?;
    Some(PublicKey { kid: text(key, "kid")?.to_owned(), bytes: bytes.try_into().ok()? })
}

fn listing<T>(body: &Value, next: Option<String>, row: impl Fn(&Value) -> Option<T>) -> Option<Listing<T>> {
    let rows = body.as_array()?.iter().map(row).collect::<Option<_>>()?;
    Some(Listing { rows, next })
}

fn text<'v>(object: &'v Value, name: &str) -> Option<&'v str> {
    object[name].as_str()
}

fn take(object: &mut Value, name: &str) -> Option<String> {
    match object.get_mut(name)?.take() {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn time(object: &Value, name: &str) -> Option<Timestamp> {
    Timestamp::parse(text(object, name)?).ok()
}

fn roles(object: &Value, name: &str) -> Option<Vec<RoleName>> {
    let names = object[name].as_array()?.iter();
    names.map(|role| RoleName::parse(role.as_str()?).ok()).collect()
}

/// A member that may be `null`: none only where it is of a wrong kind.
fn nullable<T>(object: &Value, name: &str, read: impl Fn(&Value, &str) -> Option<T>) -> Option<Option<T>> {
    if object.get(name)?.is_null() { Some(None) } else { read(object, name).map(Some) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::json::{Answer, Reply};
    use super::*;

    const ID: &str = "0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11";

    /// What the client makes of what the server writes is what the server had.
    fn reads<T: Answer + FromAnswer>(output: T) {
        let (body, next) = taken_apart(output.reply());
        let mut with_more = body.clone();
        for object in with_more.as_array_mut().into_iter().flatten() {
            object["later"] = json!(1);
        }
        if let Some(object) = with_more.as_object_mut() {
            object.insert("later".into(), json!({"a": [1]}));
        }
        for body in [&body, &with_more] {
            let Some(read) = T::from_answer(&mut body.clone(), next.clone()) else { panic!("{body}") };
            assert_eq!(taken_apart(read.reply()), (with_more_removed(body), next.clone()));
        }
    }

    fn taken_apart(mut reply: Reply) -> (Value, Option<String>) {
        let next = reply.next.take();
        (reply.into_text().map(|text| serde_json::from_str(&text).unwrap()).unwrap_or_default(), next)
    }

    fn with_more_removed(body: &Value) -> Value {
        let mut body = body.clone();
        for object in body.as_array_mut().into_iter().flatten() {
            object.as_object_mut().unwrap().remove("later");
        }
        if let Some(object) = body.as_object_mut() {
            object.remove("later");
        }
        body
    }

    #[test]
    fn a_client_reads_what_the_server_writes() {
        let id = AccountId::parse(ID).unwrap();
        let (username, role) = (Username::parse("alice").unwrap(), RoleName::parse("x:y").unwrap());
        let audience = Audience::parse("https://a.example").unwrap();
        let at = Timestamp::new(1_795_262_400);
        let account = Account {
            id,
            username: username.clone(),
            account_type: AccountType::Human,
            status: AccountStatus::Suspended,
            totp_enabled: true,
            roles: vec![RoleName::admin(), role.clone()],
            created_at: at,
            updated_at: at.plus(1),
        };
        reads(());
        reads(HealthStatus::Ok);
        reads(HealthStatus::Ready);
        let key = PublicKey { kid: "k".into(), bytes: [7; 32] };
        reads(key.clone());
        reads(PublicKeys(vec![key.clone(), key]));
        reads(IssuedToken { token: BearerToken::new("a.b.c".into()), expires_at: at });
        reads(TotpEnrolment { secret: "ABC".to_owned().into(), uri: "otpauth://".to_owned().into() });
        reads(Roles(vec![role.clone()]));
        reads(Revoked(3));
        let address = PgAddress::parse("h", 1, "d", "u").unwrap();
        reads(PgCredentials::new(address, Password::new("p".into())).unwrap());
        reads(Validation::Bad);
        let jti = Jti::parse(ID).unwrap();
        reads(Validation::Good(ValidToken {
            subject: id,
            username: username.clone(),
            account_type: AccountType::System,
            roles: vec![],
            audience: audience.clone(),
            expires_at: at,
            jti,
        }));
        reads(WhoAmI { account: account.clone(), expires_at: at, audience: audience.clone(), token_roles: vec![role] });
        reads(Listing { rows: vec![account.clone(), account], next: Some("x".into()) });
        let row = TokenRow {
            jti,
            audience,
            issued_at: at,
            expires_at: at,
            revoked_at: Some(at),
            revoke_reason: Some(RevokeReason::Logout),
        };
        let live = TokenRow { revoked_at: None, revoke_reason: None, ..row.clone() };
        reads(Listing { rows: vec![row, live], next: None });
        let event = Event {
            id: 7,
            time: Millis::new(1_795_262_400_123),
            event_type: EventType::RoleGranted,
            via: Via::Server,
            actor: Some(Party { id, username }),
            target: None,
            ip: Some("::1".into()),
            details: json!({"role": "x"}).as_object().unwrap().clone(),
            hash: [1; 32],
        };
        reads(Listing { rows: vec![Event { ip: None, ..event.clone() }, event], next: None });
    }

    #[test]
    fn another_shape_is_no_answer() {
        for body in [json!(null), json!({}), json!([]), json!({"token": 1, "expires_at": "x"}), json!("x")] {
            assert!(IssuedToken::from_answer(&mut body.clone(), None).is_none(), "{body}");
            assert!(Validation::from_answer(&mut body.clone(), None).is_none(), "{body}");
            assert!(Account::from_answer(&mut body.clone(), None).is_none(), "{body}");
        }
        assert!(Listing::<Account>::from_answer(&mut json!([{"id": ID}]), None).is_none());
        assert!(Validation::from_answer(&mut json!({"valid": "true"}), None).is_none());
    }
}
