//! The audit log, read and recomputed without a line of the program's own code: the chain of `spec/data.md`.

use std::collections::HashMap;
use std::fmt::Write;

use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::instance::Instance;

/// An event as it stands in the database.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its place.
    pub id: i64,
    /// Milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// What.
    pub kind: String,
    /// Through which program.
    pub via: String,
    /// `{"id","username"}`, or null.
    pub actor: Value,
    /// `{"id","username"}`, or null.
    pub target: Value,
    /// From where, if it came over the network.
    pub ip: Option<String>,
    /// The members of its type.
    pub details: Value,
    /// As stored.
    pub hash: Vec<u8>,
}

impl Event {
    /// What is chained.
    pub fn to_json(&self) -> Value {
        json!({"id": self.id, "time_ms": self.time_ms, "type": self.kind, "via": self.via, "actor": self.actor,
               "target": self.target, "ip": self.ip, "details": self.details})
    }

    /// The hash that the chain wants here.
    pub fn chained(&self, previous: &[u8]) -> Vec<u8> {
        Sha256::new().chain_update(previous).chain_update(canonical(&self.to_json())).finalize().to_vec()
    }
}

impl Instance {
    /// Every event, oldest first, as stored.
    pub fn events(&self) -> Vec<Event> {
        let sql =
            "SELECT id, event_time, event_type, via, actor_uuid, actor_name, target_uuid, target_name, ip_address,
            details, hash FROM audit_log ORDER BY id";
        self.rows(sql, [], |row| {
            let party = |at: usize| -> rusqlite::Result<Value> {
                let (id, username): (Option<String>, Option<String>) = (row.get(at)?, row.get(at + 1)?);
                Ok(id.map_or(Value::Null, |id| json!({"id": id, "username": username})))
            };
            Ok(Event {
                id: row.get(0)?,
                time_ms: row.get(1)?,
                kind: row.get(2)?,
                via: row.get(3)?,
                actor: party(4)?,
                target: party(6)?,
                ip: row.get(8)?,
                details: serde_json::from_str(&row.get::<_, String>(9)?).unwrap(),
                hash: row.get(10)?,
            })
        })
    }

    /// The events after the first so many.
    pub fn events_since(&self, count: usize) -> Vec<Event> {
        self.events().split_off(count)
    }

    /// The events in which an account is actor or target, oldest first.
    pub fn events_of(&self, account: &str) -> Vec<Event> {
        let names = |party: &Value| party.get("id").and_then(Value::as_str) == Some(account);
        self.events().into_iter().filter(|event| names(&event.actor) || names(&event.target)).collect()
    }

    /// The newest event.
    #[track_caller]
    pub fn last_event(&self) -> Event {
        self.events().pop().expect("an event")
    }

    /// The newest event in which an account is actor or target; others may be making events at the same time.
    #[track_caller]
    pub fn last_event_of(&self, account: &str) -> Event {
        self.events_of(account).pop().expect("an event")
    }

    /// Puts an event at the end of the chain, so many seconds after now.
    pub fn event_in_the_future(&self, seconds: i64) {
        let last = self.last_event();
        let event = Event {
            id: last.id + 1,
            time_ms: (super::now() + seconds) * 1000,
            kind: "server_started".to_owned(),
            via: "server".to_owned(),
            actor: Value::Null,
            target: Value::Null,
            ip: None,
            details: json!({}),
            hash: Vec::new(),
        };
        let sql =
            "INSERT INTO audit_log (id, event_time, event_type, via, details, hash) VALUES (?1, ?2, ?3, ?4, '{}', ?5)";
        self.sql(sql, (event.id, event.time_ms, &event.kind, &event.via, event.chained(&last.hash)));
    }

    /// Recomputes the whole chain and every checkpoint, and checks the file itself.
    #[track_caller]
    pub fn is_sound(&self) -> Vec<Event> {
        assert_eq!(self.query::<String>("PRAGMA integrity_check", []), ["ok"]);
        let orphans = self.rows("PRAGMA foreign_key_check", [], |row| row.get::<_, String>(0));
        assert_eq!(orphans, [] as [String; 0], "foreign keys that lead nowhere");

        let events = self.events();
        let mut previous = vec![0; 32];
        for (n, event) in events.iter().enumerate() {
            assert_eq!(event.id, n as i64 + 1, "numbers have no gaps");
            assert_eq!(event.hash, event.chained(&previous), "the chain breaks at {event:?}");
            previous.clone_from(&event.hash);
        }

        let keys = self.rows("SELECT kid, public_key FROM signing_keys WHERE purpose = 'audit'", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, [u8; 32]>(1)?))
        });
        let keys: HashMap<_, _> = keys.into_iter().collect();
        let checkpoints =
            self.rows("SELECT last_id, count, hash, time, kid, signature FROM audit_checkpoints", [], |row| {
                let whole: (i64, i64, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok((whole, row.get::<_, i64>(3)?, row.get::<_, String>(4)?, row.get::<_, [u8; 64]>(5)?))
            });
        for ((last_id, count, hash), time, kid, signature) in checkpoints {
            assert_eq!(count, last_id, "nothing is archived");
            assert_eq!(events[last_id as usize - 1].hash, hash, "a checkpoint of another log");
            let key = VerifyingKey::from_bytes(&keys[&kid]).unwrap();
            let signed = [b"mcias-audit-1\0".as_slice(), &count.to_be_bytes(), &hash, &time.to_be_bytes()].concat();
            key.verify_strict(&signed, &Signature::from_bytes(&signature)).expect("a checkpoint's signature");
        }
        events
    }
}

/// RFC 8785, for the values that are in events: integers, strings, booleans, null, and arrays and objects of these.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Null | Value::Bool(_) => write!(text, "{value}").unwrap(),
        Value::Number(number) => write!(text, "{}", number.as_i64().expect("an integer")).unwrap(),
        Value::String(string) => write_string(string, text),
        Value::Array(items) => {
            text.push('[');
            for (n, item) in items.iter().enumerate() {
                text.push_str(if n > 0 { "," } else { "" });
                write_canonical(item, text);
            }
            text.push(']');
        }
        Value::Object(members) => write_object(members, text),
    }
}

/// Sorted by UTF-16 code units (section 3.2.3).
fn write_object(members: &Map<String, Value>, text: &mut String) {
    let mut names: Vec<&String> = members.keys().collect();
    names.sort_by_key(|name| name.encode_utf16().collect::<Vec<_>>());
    text.push('{');
    for (n, name) in names.into_iter().enumerate() {
        text.push_str(if n > 0 { "," } else { "" });
        write_string(name, text);
        text.push(':');
        write_canonical(&members[name], text);
    }
    text.push('}');
}

/// Section 3.2.2.2.
fn write_string(string: &str, text: &mut String) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\u{8}' => text.push_str("\\b"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\u{c}' => text.push_str("\\f"),
            '\r' => text.push_str("\\r"),
            c if c < ' ' => write!(text, "\\u{:04x}", u32::from(c)).unwrap(),
            c => text.push(c),
        }
    }
    text.push('"');
}
