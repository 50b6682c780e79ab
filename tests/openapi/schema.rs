//! Values held against schemas: the part of JSON Schema (2020-12) that the document uses. A keyword that isn't known
//! here is a failure, so that none is passed over in silence.

use std::net::{Ipv4Addr, Ipv6Addr};

use regex_lite::Regex;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Follows `$ref`s within the document.
#[track_caller]
pub fn resolve<'d>(document: &'d Value, node: &'d Value) -> &'d Value {
    let Some(reference) = node.get("$ref") else { return node };
    let pointer = reference.as_str().and_then(|text| text.strip_prefix('#'));
    let target = pointer.and_then(|pointer| document.pointer(pointer));
    resolve(document, target.unwrap_or_else(|| panic!("{reference} leads nowhere")))
}

/// What is wrong with a value; nothing, if it fits.
pub fn misfits(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    Checker { document, found: &mut found }.check(schema, value, "");
    found
}

struct Checker<'a> {
    document: &'a Value,
    found: &'a mut Vec<String>,
}

impl Checker<'_> {
    fn check(&mut self, schema: &Value, value: &Value, at: &str) {
        let keywords = schema.as_object().unwrap_or_else(|| panic!("no schema: {schema}"));
        for (keyword, wanted) in keywords {
            if !self.fits(keyword, wanted, keywords, value, at) {
                self.found.push(format!("at {at:?}: {value} against {keyword}: {wanted}"));
            }
        }
    }

    fn fits_schema(&self, schema: &Value, value: &Value) -> bool {
        misfits(self.document, schema, value).is_empty()
    }

    /// Whether the value fits one keyword. A keyword for values of another type fits.
    fn fits(&mut self, keyword: &str, wanted: &Value, beside: &Map<String, Value>, value: &Value, at: &str) -> bool {
        let count = |wanted: &Value| wanted.as_u64().unwrap() as usize;
        match keyword {
            "title" | "description" | "default" => true,
            "$ref" => {
                let target = self.document.pointer(&wanted.as_str().unwrap()[1..]);
                self.check(target.unwrap_or_else(|| panic!("{wanted} leads nowhere")), value, at);
                true
            }
            "const" => value == wanted,
            "enum" => wanted.as_array().unwrap().contains(value),
            "type" => is_a(wanted.as_str().unwrap(), value),
            "allOf" => {
                wanted.as_array().unwrap().iter().for_each(|schema| self.check(schema, value, at));
                true
            }
            "anyOf" => wanted.as_array().unwrap().iter().any(|schema| self.fits_schema(schema, value)),
            "oneOf" => wanted.as_array().unwrap().iter().filter(|schema| self.fits_schema(schema, value)).count() == 1,
            "not" => !self.fits_schema(wanted, value),
            "minimum" => value.as_i64().is_none_or(|number| number >= wanted.as_i64().unwrap()),
            "maximum" => value.as_i64().is_none_or(|number| number <= wanted.as_i64().unwrap()),
            "minLength" => value.as_str().is_none_or(|text| text.chars().count() >= count(wanted)),
            "maxLength" => value.as_str().is_none_or(|text| text.chars().count() <= count(wanted)),
            "pattern" => value.as_str().is_none_or(|text| Regex::new(wanted.as_str().unwrap()).unwrap().is_match(text)),
            "format" => value.as_str().is_none_or(|text| has_format(wanted.as_str().unwrap(), text)),
            "minItems" => value.as_array().is_none_or(|items| items.len() >= count(wanted)),
            "maxItems" => value.as_array().is_none_or(|items| items.len() <= count(wanted)),
            "uniqueItems" => {
                let all = value.as_array().map(Vec::as_slice).unwrap_or_default();
                wanted != &Value::Bool(true) || all.iter().enumerate().all(|(n, item)| !all[..n].contains(item))
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    self.check(wanted, item, &format!("{at}/{n}"));
                }
                true
            }
            "required" => {
                let names = wanted.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
                value.as_object().is_none_or(|members| names.into_iter().all(|name| members.contains_key(name)))
            }
            "minProperties" => value.as_object().is_none_or(|members| members.len() >= count(wanted)),
            "properties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    if let Some(schema) = wanted.get(name) {
                        self.check(schema, member, &format!("{at}/{name}"));
                    }
                }
                true
            }
            "additionalProperties" => {
                assert_eq!(wanted, false);
                let known = |name: &String| beside["properties"].get(name).is_some();
                value.as_object().is_none_or(|members| members.keys().all(known))
            }
            _ => panic!("the keyword {keyword} isn't known here"),
        }
    }
}

fn is_a(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => panic!("the type {name} isn't known here"),
    }
}

fn has_format(name: &str, text: &str) -> bool {
    match name {
        "uuid" => uuid::Uuid::parse_str(text).is_ok(),
        "date-time" => OffsetDateTime::parse(text, &Rfc3339).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "password" => true,
        _ => panic!("the format {name} isn't known here"),
    }
}

#[test]
fn what_does_not_fit_is_found() {
    let document = serde_json::json!({"names": {"type": "array", "items": {"type": "string"}, "uniqueItems": true}});
    let schema = serde_json::json!({
        "type": "object", "required": ["n"], "additionalProperties": false,
        "properties": {
            "n": {"type": "integer", "minimum": 1, "maximum": 3}, "names": {"$ref": "#/names"},
            "t": {"oneOf": [{"type": "string", "pattern": "^a+$", "maxLength": 3}, {"type": "null"}]},
        },
    });
    let fits = |text: &str| misfits(&document, &schema, &serde_json::from_str(text).unwrap()).is_empty();
    for good in [r#"{"n":1}"#, r#"{"n":3,"names":[],"t":null}"#, r#"{"n":2,"names":["a","b"],"t":"aaa"}"#] {
        assert!(fits(good), "{good}");
    }
    for bad in [
        "[]",
        "{}",
        r#"{"n":0}"#,
        r#"{"n":4}"#,
        r#"{"n":1.5}"#,
        r#"{"n":"1"}"#,
        r#"{"n":1,"x":1}"#,
        r#"{"n":1,"names":["a","a"]}"#,
        r#"{"n":1,"names":[1]}"#,
        r#"{"n":1,"t":"b"}"#,
        r#"{"n":1,"t":"aaaa"}"#,
        r#"{"n":1,"t":1}"#,
    ] {
        assert!(!fits(bad), "{bad}");
    }
}
