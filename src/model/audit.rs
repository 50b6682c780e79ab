//! What the audit log says: closed event types, who did it to whom, and the canonical form that is chained.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::account::{AccountId, Page, Username};
use super::time::{Millis, Timestamp};
use super::words;

words! {
    /// Everything that can happen. The names are stored, sent and filtered by.
    EventType {
        ServerStarted = "server_started", ServerStopped = "server_stopped", CredentialFail = "credential_fail",
        LoginOk = "login_ok", LoginFail = "login_fail", LoginTotpFail = "login_totp_fail",
        TokenIssued = "token_issued", TokenExchanged = "token_exchanged", TokenRenewed = "token_renewed",
        TokenRevoked = "token_revoked", TokensRevoked = "tokens_revoked", TokensPruned = "tokens_pruned",
        AccountCreated = "account_created", AccountUpdated = "account_updated", AccountDeleted = "account_deleted",
        PasswordChanged = "password_changed", PasswordReset = "password_reset",
        RoleGranted = "role_granted", RoleRevoked = "role_revoked",
        TotpEnrolled = "totp_enrolled", TotpConfirmed = "totp_confirmed", TotpRemoved = "totp_removed",
        PgcredAccessed = "pgcred_accessed", PgcredUpdated = "pgcred_updated", PgcredDeleted = "pgcred_deleted",
        SigningKeyCreated = "signing_key_created", SigningKeyRotated = "signing_key_rotated",
        SigningKeyRevoked = "signing_key_revoked", MasterKeyChanged = "master_key_changed",
        DataKeyChanged = "data_key_changed", BackupMade = "backup_made", DatabaseRestored = "database_restored",
        SchemaMigrated = "schema_migrated", ClockAccepted = "clock_accepted", AuditArchived = "audit_archived",
    }
}

words! {
    /// Through which program a change was made.
    Via { Server = "server", Mciasdb = "mciasdb" }
}

words! {
    /// Why a login failed before or at the password.
    LoginFailure {
        UnknownUser = "unknown_user", BadPassword = "bad_password", Suspended = "suspended", Deleted = "deleted",
        SystemAccount = "system_account", Malformed = "malformed",
    }
}

words! {
    /// Why a login with a right password failed at the one-time code.
    TotpFailure { Missing = "missing", Wrong = "wrong", Replayed = "replayed", HeldBack = "held_back" }
}

/// An account as an event names it: by UUID, and by the name it had then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// The UUID.
    pub id: AccountId,
    /// The name at the time.
    pub username: Username,
}

impl Party {
    /// `{"id","username"}`.
    pub fn to_json(&self) -> Value {
        json!({"id": self.id.to_string(), "username": self.username.as_str()})
    }
}

/// Something that happens, before it has a place in the chain.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// What.
    pub event_type: EventType,
    /// Who did it; none for a stranger, the server itself and `mciasdb`.
    pub actor: Option<Party>,
    /// To whom.
    pub target: Option<Party>,
    /// The members that `spec/data.md` gives for the type; integers, booleans, strings and objects of them.
    pub details: Map<String, Value>,
}

impl NewEvent {
    /// An event with nobody in it and no details.
    pub fn of(event_type: EventType) -> Self {
        Self { event_type, actor: None, target: None, details: Map::new() }
    }

    /// Names who did it.
    pub fn by(mut self, actor: Option<Party>) -> Self {
        self.actor = actor;
        self
    }

    /// Names to whom it was done.
    pub fn to(mut self, target: Option<Party>) -> Self {
        self.target = target;
        self
    }

    /// Adds one member of `details`.
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.details.insert(member.to_owned(), value.into());
        self
    }
}

/// Where and when an event happened.
#[derive(Debug, Clone, Copy)]
pub struct Occasion {
    /// When.
    pub time: Millis,
    /// Through which program.
    pub via: Via,
    /// From which address, for what came over the network.
    pub ip: Option<IpAddr>,
}

/// An event as it stands in the log.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its place, counted from 1.
    pub id: i64,
    /// When.
    pub time: Millis,
    /// What.
    pub event_type: EventType,
    /// Through which program.
    pub via: Via,
    /// Who did it.
    pub actor: Option<Party>,
    /// To whom.
    pub target: Option<Party>,
    /// From where, as RFC 5952 writes it.
    pub ip: Option<String>,
    /// The type's own members.
    pub details: Map<String, Value>,
    /// SHA-256 over the previous row's hash and this row's canonical JSON.
    pub hash: [u8; 32],
}

/// Which events to list. All that is given must fit.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// With this account as actor or target.
    pub account: Option<AccountId>,
    /// An account was asked for that can't be there: nothing fits.
    pub nobody: bool,
    /// Of this type.
    pub event_type: Option<EventType>,
    /// Not before this second.
    pub since: Option<Timestamp>,
    /// Not after this second.
    pub until: Option<Timestamp>,
    /// Which page.
    pub page: Page,
}

/// The canonical JSON of an event (RFC 8785) over exactly the members that are chained, without `hash`.
///
/// `serde_json` without `preserve_order` sorts members by byte, which for our ASCII member names is RFC 8785's order,
/// and escapes strings as it asks (section 3.2.2.2); numbers here are integers only.
pub fn canonical(event: &Event) -> String {
    json!({
        "id": event.id,
        "time_ms": event.time.get(),
        "type": event.event_type.as_str(),
        "via": event.via.as_str(),
        "actor": event.actor.as_ref().map(Party::to_json),
        "target": event.target.as_ref().map(Party::to_json),
        "ip": event.ip,
        "details": event.details,
    })
    .to_string()
}

/// A signed statement that the log had `count` events and ended in `hash`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The newest event's id.
    pub last_id: i64,
    /// How many events there had been, archived ones included.
    pub count: i64,
    /// The newest event's hash.
    pub hash: [u8; 32],
    /// When it was signed, Unix seconds.
    pub time: i64,
    /// The audit key's id.
    pub kid: String,
    /// Ed25519 over [`Checkpoint::message`].
    pub signature: [u8; 64],
    /// Whether it stands for archived rows and verification starts from it.
    pub anchor: bool,
}

impl Checkpoint {
    /// What is signed: `mcias-audit-1\0`, count and time as 8 bytes big-endian around the hash.
    pub fn message(count: i64, hash: &[u8; 32], time: i64) -> Vec<u8> {
        [b"mcias-audit-1\0".as_slice(), &count.to_be_bytes(), hash, &time.to_be_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_is_rfc_8785() {
        let event = Event {
            id: 7,
            time: Millis::new(1_795_262_400_123),
            event_type: EventType::RoleGranted,
            via: Via::Mciasdb,
            actor: None,
            target: Some(Party {
                id: AccountId::parse("0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11").unwrap(),
                username: Username::parse("bob").unwrap(),
            }),
            ip: Some("2001:db8::1".into()),
            details: [("role".to_owned(), json!("a\u{8}\"\u{1f}é")), ("count".to_owned(), json!(3))]
                .into_iter()
                .collect(),
            hash: [0; 32],
        };
        assert_eq!(
            canonical(&event),
            r#"{"actor":null,"details":{"count":3,"role":"a\b\"\u001fé"},"id":7,"ip":"2001:db8::1","target":{"id":"0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11","username":"bob"},"time_ms":1795262400123,"type":"role_granted","via":"mciasdb"}"#
        );
    }
}
