//! The JSON shape of each operation's output (`spec/rest.md`, "Objects").

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::json::{Answer, Reply};
use crate::model::account::{Account, Listing, RoleName, Roles};
use crate::model::audit::{Event, Party};
use crate::model::chain::hex;
use crate::model::credential::{PgCredentials, TotpEnrolment};
use crate::model::token::{
    Guarded, HealthStatus, IssuedToken, PublicKey, PublicKeys, RevokeReason, Revoked, TokenRow, ValidToken, Validation,
    WhoAmI,
};

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

/// The API's description (`proto/openapi.yaml`), as JSON.
pub struct OpenApi;

impl Answer for OpenApi {
    fn reply(self) -> Reply {
        Reply::written(include_str!("../../proto/openapi.json"))
    }
}

impl Answer for TotpEnrolment {
    fn reply(self) -> Reply {
        Reply::json(json!({"secret": *self.secret, "otpauth_uri": *self.uri}))
    }
}

impl Answer for Roles {
    fn reply(self) -> Reply {
        Reply::json(json!({"roles": names(&self.0)}))
    }
}

impl Answer for Revoked {
    fn reply(self) -> Reply {
        Reply::json(json!({"revoked": self.0}))
    }
}

impl Answer for PgCredentials {
    fn reply(self) -> Reply {
        let address = &self.address;
        Reply::json(json!({"host": address.host(), "port": address.port(), "database": address.database(),
                           "username": address.username(), "password": self.password().expose()}))
    }
}

impl Answer for Listing<TokenRow> {
    fn reply(self) -> Reply {
        page(self, |row| {
            json!({"jti": row.jti.to_string(), "audience": row.audience.as_str(),
                   "issued_at": row.issued_at.to_string(), "expires_at": row.expires_at.to_string(),
                   "revoked_at": row.revoked_at.map(|at| at.to_string()),
                   "revoke_reason": row.revoke_reason.map(RevokeReason::as_str)})
        })
    }
}

impl Answer for Listing<Event> {
    fn reply(self) -> Reply {
        page(self, event)
    }
}

/// An event as REST, the export and the command lines show it.
pub fn event(event: &Event) -> Value {
    json!({"id": event.id, "time": event.time.timestamp().to_string(), "time_ms": event.time.get(),
           "type": event.event_type.as_str(), "via": event.via.as_str(),
           "actor": event.actor.as_ref().map(Party::to_json), "target": event.target.as_ref().map(Party::to_json),
           "ip": event.ip, "details": event.details, "hash": hex(&event.hash)})
}

fn page<T>(listing: Listing<T>, row: impl Fn(&T) -> Value) -> Reply {
    let rows: Vec<Value> = listing.rows.iter().map(row).collect();
    Reply { next: listing.next, ..Reply::json(rows.into()) }
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
        match self {
            Self::Good(token) => valid_token(&token),
            Self::Bad => Reply::json(json!({"valid": false})),
        }
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
        Reply { headers, ..valid_token(&token) }
    }
}

/// Written straight into text: every check of a token ends with it, and a tree of it would be thrown away.
fn valid_token(token: &ValidToken) -> Reply {
    // There is nothing in it that JSON can't say.
    Reply::written(serde_json::to_string(&ValidTokenText(token)).unwrap_or_default())
}

struct ValidTokenText<'a>(&'a ValidToken);

impl Serialize for ValidTokenText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(token) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("account_type", token.account_type.as_str())?;
        map.serialize_entry("audience", token.audience.as_str())?;
        map.serialize_entry("expires_at", &token.expires_at.to_string())?;
        map.serialize_entry("jti", &token.jti.to_string())?;
        map.serialize_entry("roles", &names(&token.roles))?;
        map.serialize_entry("sub", &token.subject.to_string())?;
        map.serialize_entry("username", token.username.as_str())?;
        map.serialize_entry("valid", &true)?;
        map.end()
    }
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
        page(self, |row| Value::Object(account(row)))
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
