//! The claims as JSON, both ways: written in one order, and read straight into [`Claims`] with nothing tolerated that
//! we don't write. What is read here carries a good signature already; strictness keeps it to what was meant by it.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::model::account::{AccountId, RoleName};
use crate::model::time::Timestamp;
use crate::model::token::{Amr, Audience, Claims, Jti};

/// Declares the claims by name, with what can be wrong with each.
macro_rules! claims {
    ($($variant:ident = $name:literal),* $(,)?) => {
        #[derive(Clone, Copy)]
        enum Claim { $($variant),* }

        impl Claim {
            fn of(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }

            fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            fn missing(self) -> &'static str {
                match self { $(Self::$variant => concat!("no ", $name)),* }
            }

            fn repeated(self) -> &'static str {
                match self { $(Self::$variant => concat!($name, " twice")),* }
            }

            fn malformed(self) -> &'static str {
                match self { $(Self::$variant => concat!("malformed ", $name)),* }
            }
        }
    };
}

claims! {
    Iss = "iss", Sub = "sub", Aud = "aud", Iat = "iat", Exp = "exp", Jti = "jti",
    Roles = "roles", AuthTime = "auth_time", Amr = "amr",
}

/// The payload of a token.
///
/// # Errors
/// None that can be brought about: nothing in [`Claims`] is beyond JSON.
pub(super) fn write(claims: &Claims) -> Result<Vec<u8>> {
    serde_json::to_vec(&Payload(claims)).map_err(|_| Error::internal("claims that JSON can't say"))
}

struct Payload<'a>(&'a Claims);

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let claims = self.0;
        let roles: Vec<&str> = claims.roles.iter().map(RoleName::as_str).collect();
        let amr: Vec<&str> = claims.amr.iter().map(|amr| amr.as_str()).collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(Claim::Iss.name(), &claims.issuer)?;
        map.serialize_entry(Claim::Sub.name(), &claims.subject.to_string())?;
        map.serialize_entry(Claim::Aud.name(), claims.audience.as_str())?;
        map.serialize_entry(Claim::Iat.name(), &claims.issued_at.seconds())?;
        map.serialize_entry(Claim::Exp.name(), &claims.expires_at.seconds())?;
        map.serialize_entry(Claim::Jti.name(), &claims.jti.to_string())?;
        map.serialize_entry(Claim::Roles.name(), &roles)?;
        map.serialize_entry(Claim::AuthTime.name(), &claims.auth_time.seconds())?;
        map.serialize_entry(Claim::Amr.name(), &amr)?;
        map.end()
    }
}

/// Reads a payload: one JSON object (RFC 8259) in UTF-8 and nothing after it, each of our claims once, no other.
///
/// # Errors
/// What is wrong, in words of ours.
pub(super) fn read(json: &[u8]) -> std::result::Result<Claims, &'static str> {
    let fault = Cell::new("the claims are not a JSON object");
    let mut json = serde_json::Deserializer::from_slice(json);
    let claims = json.deserialize_map(Object { fault: &fault }).map_err(|_| fault.get())?;
    json.end().map_err(|_| "something after the claims")?;
    Ok(claims)
}

/// Reads the object. `fault` is told what is wrong where there is more to say than that it isn't JSON; an error of
/// serde's could only carry it as text, mixed with the token's.
struct Object<'a> {
    fault: &'a Cell<&'static str>,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Claims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("claims")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<Claims, M::Error> {
        let (mut iss, mut sub, mut aud, mut iat, mut exp) = (None, None, None, None, None);
        let (mut jti, mut roles, mut auth_time, mut amr) = (None, None, None, None);
        let integer = PhantomData::<i64>;
        while let Some(claim) = map.next_key_seed(Word(|name: &str| self.known(name)))? {
            match claim {
                Claim::Iss => self.take(&mut map, claim, &mut iss, Word(|text: &str| Some(text.to_owned())))?,
                Claim::Sub => self.take(&mut map, claim, &mut sub, Word(AccountId::parse))?,
                Claim::Aud => self.take(&mut map, claim, &mut aud, Word(|text: &str| Audience::parse(text).ok()))?,
                Claim::Iat => self.take(&mut map, claim, &mut iat, integer)?,
                Claim::Exp => self.take(&mut map, claim, &mut exp, integer)?,
                Claim::Jti => self.take(&mut map, claim, &mut jti, Word(Jti::parse))?,
                Claim::Roles => {
                    self.take(&mut map, claim, &mut roles, Words(|text: &str| RoleName::parse(text).ok()))?
                }
                Claim::AuthTime => self.take(&mut map, claim, &mut auth_time, integer)?,
                Claim::Amr => self.take(&mut map, claim, &mut amr, Words(Amr::from_word))?,
            }
        }
        Ok(Claims {
            issuer: self.present(Claim::Iss, iss)?,
            subject: self.present(Claim::Sub, sub)?,
            audience: self.present(Claim::Aud, aud)?,
            issued_at: Timestamp::new(self.present(Claim::Iat, iat)?),
            expires_at: Timestamp::new(self.present(Claim::Exp, exp)?),
            jti: self.present(Claim::Jti, jti)?,
            roles: self.present(Claim::Roles, roles)?,
            auth_time: Timestamp::new(self.present(Claim::AuthTime, auth_time)?),
            amr: self.present(Claim::Amr, amr)?,
        })
    }
}

impl Object<'_> {
    fn known(&self, name: &str) -> Option<Claim> {
        let claim = Claim::of(name);
        if claim.is_none() {
            self.fault.set("a claim that we don't issue");
        }
        claim
    }

    fn take<'de, M: MapAccess<'de>, S: DeserializeSeed<'de>>(
        &self,
        map: &mut M,
        claim: Claim,
        slot: &mut Option<S::Value>,
        seed: S,
    ) -> std::result::Result<(), M::Error> {
        if slot.is_some() {
            self.fault.set(claim.repeated());
            return Err(M::Error::custom("repeated"));
        }
        let value = map.next_value_seed(seed).inspect_err(|_| self.fault.set(claim.malformed()))?;
        *slot = Some(value);
        Ok(())
    }

    fn present<T, E: serde::de::Error>(&self, claim: Claim, value: Option<T>) -> std::result::Result<T, E> {
        value.ok_or_else(|| {
            self.fault.set(claim.missing());
            E::custom("missing")
        })
    }
}

/// A JSON string that `F` makes something of.
struct Word<F>(F);

impl<'de, T, F: Fn(&str) -> Option<T>> DeserializeSeed<'de> for Word<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, T, F: Fn(&str) -> Option<T>> Visitor<'de> for Word<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<T, E> {
        (self.0)(text).ok_or_else(|| E::custom("malformed"))
    }
}

/// A JSON array of strings that `F` makes something of.
struct Words<F>(F);

impl<'de, T, F: Fn(&str) -> Option<T>> DeserializeSeed<'de> for Words<F> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T, F: Fn(&str) -> Option<T>> Visitor<'de> for Words<F> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Vec<T>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(Word(&self.0))? {
            values.push(value);
        }
        Ok(values)
    }
}
