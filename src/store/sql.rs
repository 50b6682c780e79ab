//! How the model's types are stored: the only place that turns them into SQL values and back.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::model::account::{AccountId, AccountStatus, AccountType, RoleName, Username};
use crate::model::audit::{EventType, Via};
use crate::model::time::{Millis, Timestamp};
use crate::model::token::{Audience, Jti, RevokeReason};

/// A stored value that no longer is one of ours.
fn not_ours(what: &str) -> FromSqlError {
    FromSqlError::Other(format!("the stored value is no {what}").into())
}

macro_rules! as_word {
    ($($name:ident),*) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }
        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                $name::from_word(value.as_str()?).ok_or_else(|| not_ours(stringify!($name)))
            }
        }
    )*};
}
as_word!(AccountType, AccountStatus, EventType, Via, RevokeReason);

macro_rules! as_parsed_text {
    ($($name:ident),*) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }
        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                $name::parse(value.as_str()?).map_err(|_| not_ours(stringify!($name)))
            }
        }
    )*};
}
as_parsed_text!(Username, RoleName, Audience);

macro_rules! as_id {
    ($($name:ident),*) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.to_string().into())
            }
        }
        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                $name::parse(value.as_str()?).ok_or_else(|| not_ours(stringify!($name)))
            }
        }
    )*};
}
as_id!(AccountId, Jti);

impl ToSql for Timestamp {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.seconds().into())
    }
}

impl FromSql for Timestamp {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Self::new)
    }
}

impl ToSql for Millis {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.get().into())
    }
}

impl FromSql for Millis {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Self::new)
    }
}
