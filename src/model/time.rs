//! Points in time and lengths of time, in the two units that are stored and sent.

use std::fmt;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Error, Result};

/// Whole seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From Unix seconds.
    pub const fn new(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Unix seconds.
    pub const fn seconds(self) -> i64 {
        self.0
    }

    /// This point, moved by `seconds`; stops at the ends of the range.
    pub const fn plus(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Reads RFC 3339 with any offset; a fraction of a second is cut off.
    ///
    /// # Errors
    /// `InvalidRequest` naming the form that is wanted.
    pub fn parse(text: &str) -> Result<Self> {
        OffsetDateTime::parse(text, &Rfc3339)
            .map(|at| Self(at.unix_timestamp()))
            .map_err(|_| Error::invalid("a time must be RFC 3339, like 2026-11-21T12:00:00Z"))
    }
}

/// RFC 3339, UTC, whole seconds; the raw number where the year has no four digits.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match OffsetDateTime::from_unix_timestamp(self.0) {
            Ok(time) if (0..=9999).contains(&time.year()) => {
                f.write_str(str::from_utf8(&date_and_time(time)).unwrap_or_default())?;
                f.write_str("Z")
            }
            _ => write!(f, "{}", self.0),
        }
    }
}

/// `2026-11-21T12:00:00`, for the years 0 to 9999. It is in every answer to a token check and in every line of the log,
/// which is why nothing is asked of the formatting machinery.
pub fn date_and_time(time: OffsetDateTime) -> [u8; 19] {
    let mut text = *b"0000-00-00T00:00:00";
    let year = time.year().unsigned_abs();
    let parts = [
        (0, year / 100),
        (2, year),
        (5, u8::from(time.month()).into()),
        (8, time.day().into()),
        (11, time.hour().into()),
        (14, time.minute().into()),
        (17, time.second().into()),
    ];
    for (at, number) in parts {
        text[at] += (number / 10 % 10) as u8;
        text[at + 1] += (number % 10) as u8;
    }
    text
}

/// Milliseconds since the Unix epoch; audit events carry them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(i64);

impl Millis {
    /// From Unix milliseconds.
    pub const fn new(millis: i64) -> Self {
        Self(millis)
    }

    /// Unix milliseconds.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The second this lies in.
    pub const fn timestamp(self) -> Timestamp {
        Timestamp(self.0.div_euclid(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_contract_says_and_read_with_any_offset() {
        assert_eq!(Timestamp::new(1_795_262_400).to_string(), "2026-11-21T12:00:00Z");
        assert_eq!(Timestamp::new(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp::new(-62_135_596_801).to_string(), "0000-12-31T23:59:59Z");
        assert_eq!(Timestamp::new(253_402_300_799).to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Timestamp::new(253_402_300_800).to_string(), "253402300800");
        assert_eq!(Timestamp::parse("2026-11-21T13:00:00.9+01:00").unwrap().seconds(), 1_795_262_400);
        for bad in ["", "2026-11-21", "2026-11-21 12:00", "2026-13-01T00:00:00Z", "now"] {
            assert!(Timestamp::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Timestamp::new(i64::MAX).plus(1).to_string(), i64::MAX.to_string());
        assert_eq!(Millis::new(-1).timestamp(), Timestamp::new(-1));
    }
}
