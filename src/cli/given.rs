//! What several commands read from a flag in the same way: a value that can't be is asked wrongly, and names the flag.

use super::parse::{Parsed, Usage};
use super::term::{self, Failure};
use crate::error::Result;
use crate::model::account::{AccountType, RoleName, Username};
use crate::model::audit::EventType;
use crate::model::credential::{PgAddress, TotpCode};
use crate::model::time::Timestamp;
use crate::model::token::{Audience, Jti};
use crate::secret::Password;

/// A flag's value, if it is given, read by one of the model's own readers.
fn read<T>(parsed: &Parsed, flag: &str, reader: impl Fn(&str) -> Result<T>) -> std::result::Result<Option<T>, Usage> {
    let read = parsed.text(flag)?.map(reader).transpose();
    read.map_err(|e| parsed.usage(format!("--{flag}: {}", e.client())))
}

/// The value of a flag that has to be given; the parser has seen to it that it is.
///
/// # Errors
/// [`Usage`]
pub fn required<T>(
    parsed: &Parsed,
    flag: &str,
    reader: impl Fn(&Parsed, &str) -> std::result::Result<Option<T>, Usage>,
) -> std::result::Result<T, Usage> {
    reader(parsed, flag)?.ok_or_else(|| parsed.usage(format!("--{flag} is missing")))
}

/// A number of at least 1; `otherwise` where none is given.
///
/// # Errors
/// [`Usage`]
pub fn count(parsed: &Parsed, flag: &str, otherwise: usize) -> std::result::Result<usize, Usage> {
    let Some(text) = parsed.text(flag)? else { return Ok(otherwise) };
    let n = text.parse().ok().filter(|n| *n > 0 && text.bytes().all(|b| b.is_ascii_digit()));
    n.ok_or_else(|| parsed.usage(format!("--{flag} must be a number, 1 or more")))
}

/// A time (RFC 3339).
///
/// # Errors
/// [`Usage`]
pub fn time(parsed: &Parsed, flag: &str) -> std::result::Result<Option<Timestamp>, Usage> {
    read(parsed, flag, Timestamp::parse)
}

/// A type of event.
///
/// # Errors
/// [`Usage`], naming all there are.
pub fn event_type(parsed: &Parsed, flag: &str) -> std::result::Result<Option<EventType>, Usage> {
    let Some(word) = parsed.text(flag)? else { return Ok(None) };
    let names = || EventType::ALL.iter().map(|known| known.as_str()).collect::<Vec<_>>().join(", ");
    let found = EventType::from_word(word);
    found.map(Some).ok_or_else(|| parsed.usage(format!("--{flag} must be a type of event: {}", names())))
}

/// A username.
///
/// # Errors
/// [`Usage`]
pub fn username(parsed: &Parsed, flag: &str) -> std::result::Result<Option<Username>, Usage> {
    read(parsed, flag, Username::parse)
}

/// A role.
///
/// # Errors
/// [`Usage`]
pub fn role(parsed: &Parsed, flag: &str) -> std::result::Result<Option<RoleName>, Usage> {
    read(parsed, flag, RoleName::parse)
}

/// Whom a token is for.
///
/// # Errors
/// [`Usage`]
pub fn audience(parsed: &Parsed, flag: &str) -> std::result::Result<Option<Audience>, Usage> {
    read(parsed, flag, Audience::parse)
}

/// A one-time code.
///
/// # Errors
/// [`Usage`]
pub fn code(parsed: &Parsed, flag: &str) -> std::result::Result<Option<TotpCode>, Usage> {
    read(parsed, flag, TotpCode::parse)
}

/// A token's id.
///
/// # Errors
/// [`Usage`]
pub fn jti(parsed: &Parsed, flag: &str) -> std::result::Result<Jti, Usage> {
    let text = parsed.text(flag)?.unwrap_or_default().to_ascii_lowercase();
    Jti::parse(&text).ok_or_else(|| parsed.usage(format!("--{flag} must be a token's id, a UUID")))
}

/// Where a Postgres database is, of `--host`, `--port`, `--db` and `--user`.
///
/// # Errors
/// [`Usage`]
pub fn pg_address(parsed: &Parsed) -> std::result::Result<PgAddress, Usage> {
    let text = |name: &str| parsed.text(name).map(Option::unwrap_or_default);
    let port = text("port")?.parse().map_err(|_| parsed.usage("--port must be a number from 1 to 65535"))?;
    PgAddress::parse(text("host")?, port, text("db")?, text("user")?).map_err(|e| parsed.usage(e.client().to_owned()))
}

/// The kind of a new account, of `--type`. A password for a system account is asked wrongly.
///
/// # Errors
/// [`Usage`]
pub fn new_account_type(parsed: &Parsed) -> std::result::Result<AccountType, Usage> {
    let of = required(parsed, "type", |parsed, flag| Ok(parsed.text(flag)?.and_then(AccountType::from_word)))?;
    if of == AccountType::System && parsed.switch(PASSWORD_STDIN) {
        return Err(parsed.usage(format!("--{PASSWORD_STDIN}: a system account has no password")));
    }
    Ok(of)
}

/// The switch that takes a password from standard input.
const PASSWORD_STDIN: &str = "password-stdin";

/// A password, asked for on the terminal or read from standard input.
///
/// # Errors
/// There is none to be had.
pub fn password(parsed: &Parsed, prompt: &str) -> std::result::Result<Password, Failure> {
    if parsed.switch(PASSWORD_STDIN) { term::read_secret_stdin() } else { term::prompt_secret(prompt, INSTEAD) }
}

/// What helps where there is no terminal.
const INSTEAD: &str = "--password-stdin";

/// A new password, asked for twice on the terminal or read from standard input.
///
/// # Errors
/// There is none to be had, or the two differ.
pub fn new_password(parsed: &Parsed) -> std::result::Result<Password, Failure> {
    if parsed.switch(PASSWORD_STDIN) { term::read_secret_stdin() } else { twice() }
}

/// Asks for a new password, and for the same again.
///
/// # Errors
/// There is no terminal, or the two differ.
pub fn twice() -> std::result::Result<Password, Failure> {
    let first = term::prompt_secret("New password: ", INSTEAD)?;
    let second = term::prompt_secret("The same again: ", INSTEAD)?;
    if first.expose() == second.expose() {
        Ok(first)
    } else {
        Err(Failure::new("the two passwords differ; nothing was changed"))
    }
}
