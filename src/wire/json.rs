//! Strict JSON and what a request and an answer consist of. Strict: a member given twice at any depth, an unknown
//! member, a wrong type, a missing member, `null`, a byte-order mark, or anything after the value is refused by name.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::model::account::Page;
use crate::secret::{BearerToken, Password};

/// The largest body that is read, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// Whether an operation takes a JSON body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// It ignores one.
    None,
    /// It takes one if there is one.
    Optional,
    /// It needs one.
    Required,
}

/// A request, taken apart.
#[derive(Default)]
pub struct Parts {
    /// What the `{…}` segments of the path are, percent-decoded, in order.
    pub path: Vec<String>,
    /// The query's parameters, decoded, in order; taken out as they are read.
    pub query: Query,
    /// The body's members, where one was sent.
    pub body: Option<Members>,
    /// The token of the `Authorization` header, if it has the right form.
    pub bearer: Option<BearerToken>,
}

impl Parts {
    /// The body's members; a missing body was refused before.
    pub fn members(&mut self) -> Result<Members> {
        self.body.take().ok_or_else(|| Error::invalid("a JSON body is expected"))
    }

    /// The n-th variable segment of the path.
    pub fn segment(&self, n: usize) -> &str {
        self.path.get(n).map_or("", String::as_str)
    }
}

/// An input that can be read from a request.
pub trait FromRequest: Sized {
    /// Whether it takes a JSON body.
    const BODY: Body;

    /// Reads it. What it doesn't read of query and body is refused afterwards.
    ///
    /// # Errors
    /// `InvalidRequest` naming what is wrong; `NotFound` for an id in the path that can't be one.
    fn from_request(parts: &mut Parts) -> Result<Self>;
}

/// What an operation answers with, before it is bytes.
#[derive(Debug, Default)]
pub struct Reply {
    /// The JSON body, if there is one.
    pub body: Option<Value>,
    /// JSON that is text already, in its place.
    pub text: Option<Cow<'static, str>>,
    /// Headers that belong to the answer itself.
    pub headers: Vec<(&'static str, String)>,
    /// The cursor of the next page.
    pub next: Option<String>,
}

impl Reply {
    /// A body and nothing else.
    pub fn json(body: Value) -> Self {
        Self { body: Some(body), ..Self::default() }
    }

    /// A body that is text already.
    pub fn written(text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }

    /// The body as text, if there is one.
    pub fn into_text(self) -> Option<Cow<'static, str>> {
        self.text.or_else(|| self.body.map(|body| body.to_string().into()))
    }
}

/// An output that can be answered with.
pub trait Answer {
    /// Makes the reply.
    fn reply(self) -> Reply;
}

/// The parameters of a query string.
#[derive(Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Takes apart `a=b&c=d`; `+` is a space, as forms and HTTP libraries write it.
    ///
    /// # Errors
    /// `InvalidRequest` for what isn't UTF-8 when decoded.
    pub fn parse(raw: &str) -> Result<Self> {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        pairs.collect::<Result<_>>().map(Self)
    }

    /// Takes a parameter out; given twice it is refused.
    pub fn take(&mut self, name: &str) -> Result<Option<String>> {
        let mut all = self.take_all(name);
        match all.len() {
            0 | 1 => Ok(all.pop()),
            _ => Err(Error::invalid(format!("query parameter {name} is given more than once"))),
        }
    }

    /// Takes out every value of a parameter that may be repeated.
    pub fn take_all(&mut self, name: &str) -> Vec<String> {
        let taken = self.0.extract_if(.., |(known, _)| known == name);
        taken.map(|(_, value)| value).collect()
    }

    /// Takes out `limit` and `cursor`.
    pub fn take_page(&mut self) -> Result<Page> {
        let limit = match self.take("limit")? {
            None => Page::DEFAULT_LIMIT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=Page::MAX_LIMIT).contains(limit) && text.bytes().all(|b| b.is_ascii_digit()))
                .ok_or_else(|| Error::invalid("limit must be a number from 1 to 1000"))?,
        };
        Ok(Page { limit, cursor: self.take("cursor")? })
    }

    /// Refuses what nobody took.
    pub fn finish(&self) -> Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Error::invalid(format!("unknown query parameter {}", shown(name)))),
        }
    }
}

fn decode(raw: &str) -> Result<String> {
    let spaced = raw.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8();
    decoded.map(Into::into).map_err(|_| Error::invalid("the query is not UTF-8"))
}

/// The members of a JSON object, taken out as they are read.
pub struct Members(Vec<(String, Json)>);

impl Members {
    /// Parses a body that has to be one JSON object.
    ///
    /// # Errors
    /// `InvalidRequest` saying what is wrong and where, without a word of the content.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = str::from_utf8(bytes).map_err(|_| Error::invalid("the body is not UTF-8"))?;
        let mut reader = serde_json::Deserializer::from_str(text);
        let parsed = Json::deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
        match parsed {
            Ok(Json::Object(members)) => Ok(Self(members)),
            Ok(_) => Err(Error::invalid("the body must be a JSON object")),
            Err(e) => Err(Error::invalid(match e.classify() {
                // Ours say what is wrong; they hold a member's name at most.
                serde_json::error::Category::Data => format!("the body is not acceptable JSON: {e}"),
                _ => format!("the body is not JSON (line {}, column {})", e.line(), e.column()),
            })),
        }
    }

    /// Whether no member is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, name: &str) -> Option<Json> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// A string that has to be there.
    pub fn string(&mut self, name: &str) -> Result<Zeroizing<String>> {
        self.optional_string(name)?.ok_or_else(|| Error::invalid(format!("member {name} is missing")))
    }

    /// A string that may be left out, but not be `null`.
    pub fn optional_string(&mut self, name: &str) -> Result<Option<Zeroizing<String>>> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(_) => Err(Error::invalid(format!("member {name} must be a string"))),
        }
    }

    /// A whole number that has to be there.
    pub fn integer(&mut self, name: &str) -> Result<i64> {
        self.optional_integer(name)?.ok_or_else(|| Error::invalid(format!("member {name} is missing")))
    }

    /// A whole number that may be left out, but not be `null`.
    pub fn optional_integer(&mut self, name: &str) -> Result<Option<i64>> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::Integer(number)) => Ok(Some(number)),
            Some(_) => Err(Error::invalid(format!("member {name} must be a whole number"))),
        }
    }

    /// A list of strings that has to be there.
    pub fn strings(&mut self, name: &str) -> Result<Vec<Zeroizing<String>>> {
        let wrong = || Error::invalid(format!("member {name} must be a list of strings"));
        match self.take(name) {
            None => Err(Error::invalid(format!("member {name} is missing"))),
            Some(Json::Array(items)) => items
                .into_iter()
                .map(|item| if let Json::String(text) = item { Ok(text) } else { Err(wrong()) })
                .collect(),
            Some(_) => Err(wrong()),
        }
    }

    /// A password that has to be there.
    pub fn password(&mut self, name: &str) -> Result<Password> {
        self.optional_password(name)?.ok_or_else(|| Error::invalid(format!("member {name} is missing")))
    }

    /// A password that may be left out.
    pub fn optional_password(&mut self, name: &str) -> Result<Option<Password>> {
        let text = self.optional_string(name)?;
        Ok(text.map(|mut text| Password::new(std::mem::take(&mut text))))
    }

    /// Refuses what nobody took.
    pub fn finish(&self) -> Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Error::invalid(format!("unknown member {}", shown(name)))),
        }
    }
}

/// A name from a request, short and without control characters, for an error message.
fn shown(name: &str) -> String {
    name.chars().take(64).flat_map(char::escape_debug).collect()
}

/// A JSON value whose strings are wiped when dropped: any of them may be a secret.
enum Json {
    /// `null`, a boolean or a fraction: nothing that an operation takes.
    Other,
    /// A whole number.
    Integer(i64),
    String(Zeroizing<String>),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Json, E> {
        // JSON knows one kind of number: 22.0 is as whole as 22 (JSON Schema, core 6.3). Beyond 2^53 none is exact.
        let whole = value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0;
        Ok(if whole { Json::Integer(value as i64) } else { Json::Other })
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Json, E> {
        Ok(Json::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Json, E> {
        Ok(i64::try_from(value).map_or(Json::Other, Json::Integer))
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Json, E> {
        Ok(Json::String(Zeroizing::new(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Json, A::Error> {
        let mut names = std::collections::HashSet::new();
        let mut members = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Json>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("member {} is given twice", shown(&name))));
            }
            members.push((name, value));
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &[u8]) -> String {
        let read = Members::parse(body).and_then(|mut m| {
            m.string("a")?;
            m.optional_string("b")?;
            m.finish()
        });
        read.expect_err("should be refused").client().to_owned()
    }

    #[test]
    fn only_the_object_that_is_expected_is_taken() {
        let mut good = Members::parse(br#" {"a": "x", "b": "y"} "#).unwrap();
        assert_eq!(*good.string("a").unwrap(), "x");
        assert_eq!(*good.optional_string("b").unwrap().unwrap(), "y");
        good.finish().unwrap();

        assert!(refusal(br#"{"a":"x","c":1}"#).contains("unknown member c"));
        assert!(refusal(br#"{"a":"x","a":"x"}"#).contains("member a is given twice"));
        assert!(refusal(br#"{"a":"x","b":{"c":[{"d":1,"d":1}]}}"#).contains("member d is given twice"));
        assert!(refusal(br#"{"a":"x","a":"y"}"#).contains("twice"), "also when escaped");
        assert!(refusal(br#"{"b":"x"}"#).contains("member a is missing"));
        for wrong in ["1", "1.5", "true", "null", "[]", "{}", "1e400"] {
            let body = format!(r#"{{"a":"x","b":{wrong}}}"#);
            assert!(!refusal(body.as_bytes()).is_empty(), "{wrong}");
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(500), "]".repeat(500));
        for bad in [
            &b""[..],
            b"null",
            b"[]",
            b"\"a\"",
            b"{\"a\":\"x\"}x",
            b"{\"a\":\"x\"}{}",
            b"\xef\xbb\xbf{\"a\":\"x\"}",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":\"\\ud800\"}",
            b"{\"a\":\"x\",}",
            b"{'a':'x'}",
            b"{\"a\":\"\n\"}",
            b"{\"a\":\"x\"} // x",
            deep.as_bytes(),
        ] {
            assert!(!refusal(bad).is_empty(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_refusal_repeats_nothing_of_a_value() {
        for body in [r#"{"a":"s3cret","a":"s3cret"}"#, r#"{"a":["s3cret"]}"#, r#"{"a":"s3cret"#, r#"{"a":"s3cret" x"#] {
            assert!(!refusal(body.as_bytes()).contains("s3cret"), "{body}");
        }
    }

    #[test]
    fn queries_are_decoded_and_checked() {
        let mut query = Query::parse("username=a%2Bb+c&limit=5&role=x&role=y").unwrap();
        assert_eq!(query.take("username").unwrap().unwrap(), "a+b c");
        assert_eq!(query.take_page().unwrap().limit, 5);
        assert!(query.finish().is_err());
        assert_eq!(query.take_all("role"), ["x", "y"]);
        query.finish().unwrap();
        assert!(Query::parse("a=1&a=2").unwrap().take("a").is_err());
        assert!(Query::parse("a=%ff").is_err());
        for bad in ["0", "1001", "-1", "+5", "1.0", "x", "", "99999999999"] {
            assert!(Query::parse(&format!("limit={bad}")).unwrap().take_page().is_err(), "{bad}");
        }
    }
}
