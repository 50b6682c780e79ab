//! The audit chain as it is written down: an event with exactly the members that are chained, and the lines of an
//! export. An event is taken as it stands, also one of a type that this program has never heard of.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use serde_json::{Map, Value, json};

use super::audit::Checkpoint;
use super::strict;
use super::time::Millis;

/// An event's link of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its place, counted from 1.
    pub id: i64,
    /// When it happened.
    pub time: Millis,
    /// The name of its type.
    pub event_type: String,
    /// SHA-256 over the previous hash and [`Link::canonical`].
    pub hash: [u8; 32],
    members: Map<String, Value>,
}

/// What `actor` and `target` are made of, both or neither.
pub type PartyText = Option<(String, String)>;

/// An event's columns as they are stored.
pub struct Columns {
    /// Its place.
    pub id: i64,
    /// When, in milliseconds.
    pub time: Millis,
    /// The name of its type.
    pub event_type: String,
    /// Through which program.
    pub via: String,
    /// Who did it: UUID and name.
    pub actor: PartyText,
    /// To whom.
    pub target: PartyText,
    /// From where.
    pub ip: Option<String>,
    /// The type's own members.
    pub details: Map<String, Value>,
    /// Its hash.
    pub hash: [u8; 32],
}

impl From<Columns> for Link {
    fn from(row: Columns) -> Self {
        let party = |party: PartyText| party.map(|(id, username)| json!({"id": id, "username": username}));
        let members = [
            ("id", row.id.into()),
            ("time_ms", row.time.get().into()),
            ("type", row.event_type.clone().into()),
            ("via", row.via.into()),
            ("actor", party(row.actor).into()),
            ("target", party(row.target).into()),
            ("ip", row.ip.into()),
            ("details", row.details.into()),
        ];
        let members = members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { id: row.id, time: row.time, event_type: row.event_type, hash: row.hash, members }
    }
}

impl Link {
    /// The canonical JSON (RFC 8785) over exactly the members that are chained; see [`super::audit::canonical`].
    pub fn canonical(&self) -> String {
        // What a string of JSON values is made of can't fail to be written.
        serde_json::to_string(&self.members).unwrap_or_default()
    }

    /// The UUID of whom it was done to.
    pub fn target(&self) -> Option<&str> {
        self.members.get("target")?.get("id")?.as_str()
    }

    /// A member of its type's own.
    pub fn detail(&self, name: &str) -> Option<&Value> {
        self.members.get("details")?.get(name)
    }

    /// Its line in an export: the same and `hash`, without a line end.
    pub fn line(&self) -> String {
        let mut members = self.members.clone();
        members.insert("hash".into(), hex(&self.hash).into());
        Value::from(members).to_string()
    }

    /// From the members of its line.
    fn from_members(mut members: Map<String, Value>) -> Result<Self, String> {
        let hash = members.remove("hash").as_ref().and_then(Value::as_str).and_then(unhex);
        let hash = hash.ok_or("hash must be 64 hexadecimal digits in lower case")?;
        let text = |value: &Value| value.is_string();
        let party = |value: &Value| {
            let object = value.as_object();
            value.is_null()
                || object
                    .is_some_and(|o| o.len() == 2 && ["id", "username"].iter().all(|m| o.get(*m).is_some_and(text)))
        };
        let (id, time) = (integer(&members, "id")?, integer(&members, "time_ms")?);
        let event_type = string(&members, "type")?;
        string(&members, "via")?;
        for (name, fits) in [
            ("actor", &party as &dyn Fn(&Value) -> bool),
            ("target", &party),
            ("ip", &|value: &Value| value.is_null() || text(value)),
            ("details", &Value::is_object),
        ] {
            if !members.get(name).is_some_and(fits) {
                return Err(format!("member {name} is missing or of a wrong kind"));
            }
        }
        only(&members, &["id", "time_ms", "type", "via", "actor", "target", "ip", "details"])?;
        Ok(Self { id, time: Millis::new(time), event_type, hash, members })
    }
}

/// A line of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// What stands for the events before the first line.
    Anchor(Checkpoint),
    /// An event.
    Event(Link),
    /// What closes it.
    Checkpoint(Checkpoint),
}

impl Line {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it, in one phrase.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Value::Object(mut members) = strict::parse(text)? else { return Err("not a JSON object".into()) };
        for (name, anchor) in [("anchor", true), ("checkpoint", false)] {
            let Some(inner) = members.remove(name) else { continue };
            only(&members, &[])?;
            let Value::Object(inner) = inner else { return Err(format!("{name} must be an object")) };
            let checkpoint = read_checkpoint(&inner, anchor)?;
            return Ok(if anchor { Self::Anchor(checkpoint) } else { Self::Checkpoint(checkpoint) });
        }
        Link::from_members(members).map(Self::Event)
    }

    /// The line, without a line end.
    pub fn text(&self) -> String {
        match self {
            Self::Anchor(checkpoint) => json!({"anchor": shape(checkpoint)}).to_string(),
            Self::Event(link) => link.line(),
            Self::Checkpoint(checkpoint) => json!({"checkpoint": shape(checkpoint)}).to_string(),
        }
    }
}

fn shape(checkpoint: &Checkpoint) -> Value {
    json!({"count": checkpoint.count, "hash": hex(&checkpoint.hash), "time": checkpoint.time, "kid": checkpoint.kid,
           "signature": B64.encode(checkpoint.signature)})
}

fn read_checkpoint(members: &Map<String, Value>, anchor: bool) -> Result<Checkpoint, String> {
    only(members, &["count", "hash", "time", "kid", "signature"])?;
    let count = integer(members, "count")?;
    let hash = unhex(&string(members, "hash")?).ok_or("hash must be 64 hexadecimal digits in lower case")?;
    let signature = B64.decode(string(members, "signature")?).ok().and_then(|bytes| bytes.try_into().ok());
    Ok(Checkpoint {
        last_id: count,
        count,
        hash,
        time: integer(members, "time")?,
        kid: string(members, "kid")?,
        signature: signature.ok_or("signature must be 64 bytes in base64url")?,
        anchor,
    })
}

fn integer(members: &Map<String, Value>, name: &str) -> Result<i64, String> {
    let number = members.get(name).and_then(Value::as_i64);
    number.ok_or_else(|| format!("member {name} is missing or not a whole number"))
}

fn string(members: &Map<String, Value>, name: &str) -> Result<String, String> {
    let text = members.get(name).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| format!("member {name} is missing or not a string"))
}

fn only(members: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(format!("unknown member {}", name.chars().take(64).collect::<String>())),
    }
}

/// Bytes as hexadecimal digits in lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The 32 bytes of 64 hexadecimal digits in lower case; anything else is none.
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::account::{AccountId, Username};
    use crate::model::audit::{Event, EventType, Party, Via, canonical};

    const UUID: &str = "0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11";

    fn link() -> Link {
        let details = json!({"role": "a\u{8}\"é"});
        Link::from(Columns {
            id: 7,
            time: Millis::new(1_795_262_400_123),
            event_type: "role_granted".into(),
            via: "mciasdb".into(),
            actor: None,
            target: Some((UUID.into(), "bob".into())),
            ip: Some("2001:db8::1".into()),
            details: details.as_object().unwrap().clone(),
            hash: [0xab; 32],
        })
    }

    #[test]
    fn a_link_is_chained_as_the_event_it_holds() {
        let link = link();
        let event = Event {
            id: 7,
            time: link.time,
            event_type: EventType::RoleGranted,
            via: Via::Mciasdb,
            actor: None,
            target: Some(Party { id: AccountId::parse(UUID).unwrap(), username: Username::parse("bob").unwrap() }),
            ip: Some("2001:db8::1".into()),
            details: json!({"role": "a\u{8}\"é"}).as_object().unwrap().clone(),
            hash: link.hash,
        };
        assert_eq!(link.canonical(), canonical(&event));
        assert_eq!((link.target(), link.detail("role")), (Some(UUID), Some(&json!("a\u{8}\"é"))));
        assert_eq!(link.detail("kid"), None);
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let checkpoint = Checkpoint {
            last_id: 9,
            count: 9,
            hash: [1; 32],
            time: 1_795_262_400,
            kid: "k".into(),
            signature: [0xfe; 64],
            anchor: false,
        };
        let anchor = Checkpoint { anchor: true, ..checkpoint.clone() };
        for line in [Line::Event(link()), Line::Checkpoint(checkpoint), Line::Anchor(anchor)] {
            assert_eq!(Line::parse(&line.text()), Ok(line.clone()));
        }
        assert!(Line::Event(link()).text().contains(&format!(r#""hash":"{}","id":7"#, "ab".repeat(32))));
    }

    #[test]
    fn a_line_of_any_other_shape_is_refused() {
        let good = link().line();
        assert!(Line::parse(&good).is_ok());
        for (from, to) in [
            (r#""id":7"#, r#""id":"7""#),
            (r#""id":7"#, r#""id":7.0"#),
            (r#""id":7"#, r#""id":7,"id":7"#),
            (r#""id":7,"#, ""),
            (r#""ip":"2001:db8::1""#, r#""ip":1"#),
            (r#""actor":null"#, r#""actor":{"id":"x"}"#),
            (r#""actor":null"#, r#""actor":{"id":"x","username":"y","more":1}"#),
            (r#""actor":null,"#, ""),
            (r#""via":"mciasdb""#, r#""via":"mciasdb","more":1"#),
            ("abab", "ABAB"),
            ("abab", "ab"),
            (r#""details":{"#, r#""details":[],"x":{"#),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            assert!(Line::parse(&bad).is_err(), "{bad}");
        }
        for bad in ["[]", "null", "", r#"{"checkpoint":{}}"#, r#"{"anchor":1}"#, r#"{"checkpoint":{},"anchor":{}}"#] {
            assert!(Line::parse(bad).is_err(), "{bad}");
        }
    }
}
