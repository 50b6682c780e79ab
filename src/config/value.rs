//! Readers of single values: each takes what TOML gave it to its type, or says what the value must be. A value is
//! quoted in a complaint only where it can't be a secret put in the wrong place.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::document::kind;
use crate::model::account::RoleName;
use crate::model::net::Cidr;

/// The longest duration that is taken: 36500 days, about a hundred years.
pub const MAX_DURATION: Duration = Duration::from_secs(36_500 * 86_400);

/// The units of a duration, largest first, in seconds.
const UNITS: [(u8, u64); 4] = [(b'd', 86_400), (b'h', 3_600), (b'm', 60), (b's', 1)];

/// Reads `"90s"`, `"15m"`, `"1h30m"`, `"720h"`, `"30d"`: whole numbers with the units `d`, `h`, `m`, `s`, each once at
/// most and the larger first.
///
/// # Errors
/// Another form, nothing in total, or more than [`MAX_DURATION`]; the message names what was read.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let form = || format!("{} is not a duration like \"90s\", \"1h30m\" or \"30d\"", quoted(text));
    let too_long = || format!("{} is too long; a duration goes up to 36500d", quoted(text));
    let mut units = UNITS.iter();
    let mut total: u64 = 0;
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (number, tail) = rest.split_at(digits);
        let (Some(unit), false) = (tail.first(), number.is_empty()) else { return Err(form()) };
        // The iterator goes on from the last unit, so that none comes twice or after a smaller one.
        let (_, seconds) = units.find(|(letter, _)| letter == unit).ok_or_else(form)?;
        let number = number
            .iter()
            .try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
            .ok_or_else(too_long)?;
        total = number.checked_mul(*seconds).and_then(|part| total.checked_add(part)).ok_or_else(too_long)?;
        rest = tail.get(1..).unwrap_or_default();
    }
    match Duration::from_secs(total) {
        _ if text.is_empty() => Err(form()),
        Duration::ZERO => Err(format!("{} is no time at all; a duration is at least \"1s\"", quoted(text))),
        length if length > MAX_DURATION => Err(too_long()),
        length => Ok(length),
    }
}

/// Checks an issuer (`iss`, RFC 7519, 4.1.1; the form is that of RFC 8414, section 2): `https://`, a host, perhaps a
/// port and a path; no user, query or fragment; at most 256 ASCII characters, since it is the default audience as well.
///
/// # Errors
/// What is wrong with it.
pub fn check_issuer(text: &str) -> Result<(), String> {
    let rest = text.strip_prefix("https://").ok_or("must be a URL that begins with https://")?;
    if text.len() > 256 {
        return Err("must have at most 256 characters".into());
    }
    // RFC 3986, 3.3 and 3.2.2: what may stand in a path and in an authority.
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/[]".contains(&b);
    if !rest.bytes().all(fits) {
        return Err("must have no spaces, query, fragment or other characters that don't belong in a URL's path".into());
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if path.contains(['[', ']']) {
        return Err("must have no brackets in its path".into());
    }
    let (host, port) = split_authority(authority);
    let host_fits = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => {
            host.len() <= 253
                && host.split('.').all(|label| {
                    (1..=63).contains(&label.len())
                        && !label.starts_with('-')
                        && !label.ends_with('-')
                        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                })
        }
    };
    if !host_fits {
        return Err("must have a host, a name or an address, after https://".into());
    }
    let port_fits =
        |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse().is_ok_and(|n: u16| n > 0);
    if port.is_some_and(|digits| !port_fits(digits)) {
        return Err("has a port that is not 1-65535".into());
    }
    Ok(())
}

/// The host of an issuer, without port and brackets.
pub(super) fn issuer_host(issuer: &str) -> &str {
    let rest = issuer.strip_prefix("https://").unwrap_or(issuer);
    let (host, _) = split_authority(rest.split('/').next().unwrap_or_default());
    host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host)
}

/// Host and port, the host of an IPv6 address with its brackets (RFC 3986, 3.2).
fn split_authority(authority: &str) -> (&str, Option<&str>) {
    let host_end = authority.rfind(']').map_or(0, |at| at + 1);
    match authority.get(host_end..).and_then(|tail| tail.find(':')) {
        Some(at) => (&authority[..host_end + at], authority.get(host_end + at + 1..)),
        None => (authority, None),
    }
}

/// A string.
pub(super) fn string<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| format!("must be a string, not {}", kind(value)))
}

/// `IP:port`.
pub(super) fn address(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let text = string(value)?;
    text.parse().map_err(|_| format!("{} is not IP:port, like \"0.0.0.0:8443\" or \"[::]:8443\"", quoted(text)))
}

/// A duration of at most `longest`.
pub(super) fn duration_up_to(longest: Duration) -> impl FnOnce(&DeValue<'_>) -> Result<Duration, String> {
    move |value| {
        let text = string(value)?;
        let length = parse_duration(text)?;
        if length > longest {
            return Err(format!("{} is too long; it goes up to \"{}s\"", quoted(text), longest.as_secs()));
        }
        Ok(length)
    }
}

/// A duration.
pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    parse_duration(string(value)?)
}

/// A whole number within the range.
pub(super) fn integer(range: RangeInclusive<u32>) -> impl FnOnce(&DeValue<'_>) -> Result<u32, String> {
    move |value| {
        let (low, high) = (range.start(), range.end());
        let integer =
            value.as_integer().ok_or_else(|| format!("must be an integer, {low}-{high}, not {}", kind(value)))?;
        u32::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("{integer} is out of range; it must be {low}-{high}"))
    }
}

/// Requests a second, whole or not: 0.001-1000000. Where `unlimited` may be, 0 stands for it.
pub(super) fn rate(unlimited: bool) -> impl FnOnce(&DeValue<'_>) -> Result<f64, String> {
    move |value| {
        let form = if unlimited { "0.001-1000000, or 0 for no limit" } else { "0.001-1000000" };
        let (number, shown) = match value {
            DeValue::Integer(i) => (i64::from_str_radix(i.as_str(), i.radix()).ok().map(|n| n as f64), i.to_string()),
            DeValue::Float(f) => (f.as_str().parse::<f64>().ok(), f.to_string()),
            _ => return Err(format!("must be a number, {form}, not {}", kind(value))),
        };
        match number {
            Some(0.0) if unlimited => Ok(0.0),
            Some(number) if (0.001..=1_000_000.0).contains(&number) => Ok(number),
            _ => Err(format!("{shown} is out of range; it must be {form}")),
        }
    }
}

/// One of the words of a closed enum.
pub(super) fn word<T: Copy>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl FnOnce(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let words: Vec<_> = all.iter().map(|one| format!("{:?}", name(*one))).collect();
        let words = words.join(", ");
        let text = value.as_str().ok_or_else(|| format!("must be one of the strings {words}, not {}", kind(value)))?;
        all.iter()
            .copied()
            .find(|one| name(*one) == text)
            .ok_or_else(|| format!("{} is not one of {words}", quoted(text)))
    }
}

/// A file's path; a relative one is relative to `folder`.
pub(super) fn file_in(folder: &Path) -> impl Fn(&DeValue<'_>) -> Result<PathBuf, String> {
    move |value| {
        let text = string(value)?;
        let path = Path::new(text);
        if text.contains('\0') || text.ends_with('/') || path.file_name().is_none() {
            return Err("must be a file's path".into());
        }
        Ok(folder.join(path))
    }
}

/// The name of an environment variable (POSIX, 8.1). The text isn't quoted: it may be the passphrase itself.
pub(super) fn variable(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if text.is_empty() || text.len() > 256 || !fits || text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("must be the name of an environment variable: letters, digits and _, not a digit first".into());
    }
    Ok(text.to_owned())
}

/// An issuer; see [`check_issuer`]. The text isn't quoted: somebody may have put a user and a password in it.
pub(super) fn issuer(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    check_issuer(text)?;
    Ok(text.to_owned())
}

/// A role's name.
pub(super) fn role(value: &DeValue<'_>) -> Result<RoleName, String> {
    let text = string(value)?;
    RoleName::parse(text).map_err(|e| format!("{} is no role: {}", quoted(text), e.client()))
}

/// A network.
pub(super) fn network(value: &DeValue<'_>) -> Result<Cidr, String> {
    Cidr::parse(string(value)?).map_err(|e| e.client().to_owned())
}

/// A network of proxies. Not everybody: where all are trusted, nobody is left to be the client.
pub(super) fn proxies(value: &DeValue<'_>) -> Result<Cidr, String> {
    let network = network(value)?;
    if network.prefix() == 0 {
        return Err(format!("{network} trusts everybody, so anybody could say they are somebody else"));
    }
    Ok(network)
}

/// Whether two addresses can't both be listened on. Different families are left for the system to say.
pub(super) fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b): (IpAddr, IpAddr) = (one.ip(), other.ip());
    let same_host = a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()));
    one.port() != 0 && one.port() == other.port() && same_host
}

/// A value in a message: in quotes, escaped, and not endless.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
