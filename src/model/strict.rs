//! JSON whose meaning nobody can argue about: a member that is given twice, a number that isn't a whole one of 64 bits,
//! and anything after the value are refused. For what is signed or chained.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Value};

/// Reads one JSON value (RFC 8259).
///
/// # Errors
/// What is wrong, in one phrase.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    match Strict::deserialize(&mut reader).and_then(|Strict(value)| reader.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(e) if e.classify() == Category::Data => {
            // Ours; serde_json adds where it happened.
            let text = e.to_string();
            Err(text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what).to_owned())
        }
        Err(e) => Err(format!("not JSON (column {})", e.column())),
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value).map(Value::from).map_err(|_| E::custom("a number is too large"))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Value, E> {
        Err(E::custom("a number is not a whole one"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((name, Strict(value))) = map.next_entry::<String, Strict>()? {
            let shown: String = name.chars().take(64).collect();
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom(format_args!("member {shown} is given twice")));
            }
        }
        Ok(members.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_with_one_meaning_is_read() {
        let good = r#" {"b":[1,-2,{"c":null}],"a":"\u00e9","t":true} "#;
        assert_eq!(parse(good).unwrap().to_string(), r#"{"a":"é","b":[1,-2,{"c":null}],"t":true}"#);
        for (bad, why) in [
            (r#"{"a":1,"a":1}"#, "member a is given twice"),
            (r#"{"a":1,"\u0061":2}"#, "member a is given twice"),
            (r#"[{"x":{"b":1,"b":2}}]"#, "member b is given twice"),
            ("1.5", "a number is not a whole one"),
            ("1.0", "a number is not a whole one"),
            ("1e2", "a number is not a whole one"),
            ("-0", "a number is not a whole one"),
            ("9223372036854775808", "a number is too large"),
            ("{} {}", "not JSON (column 4)"),
            ("{'a':1}", "not JSON (column 2)"),
            ("", "not JSON (column 0)"),
        ] {
            assert_eq!(parse(bad), Err(why.to_owned()), "{bad}");
        }
        assert!(parse(&format!("{}1{}", "[".repeat(500), "]".repeat(500))).is_err());
    }
}
