//! `login`, `logout`, `renew`, `whoami`, `health`, `pubkey` and `password change`.

use std::io::{self, IsTerminal};

use super::saved::Saved;
use super::{Command, Failure, Flag, PASSWORD_STDIN, Parsed, Remote, Whence, command};
use crate::cli::{given, show, term};
use crate::client::Trouble;
use crate::error::Kind;
use crate::model::credential::{ChangePassword, TotpCode};
use crate::model::token::{HealthStatus, IssuedToken, Login};
use crate::wire::json::Answer;
use crate::wire::ops::{self, Operation};

pub(super) const LOGIN: Command = Command {
    notes: &[
        "Asks for what isn't given: the password without echo, and a one-time code, which is empty for none. Prints the \
         token; with --save it is kept for the commands that follow, and shown only where standard output is no \
         terminal.",
    ],
    flags: &[
        Flag::value("username", "U", "who logs in"),
        Flag::value("totp", "CODE", "the one-time code"),
        Flag::value("audience", "A", "whom the token is for; without it, MCIAS itself"),
        PASSWORD_STDIN,
        Flag::switch("save", "keep the token for this server, in mcias/token.json of your configuration folder"),
    ],
    ..command("login", "log in and get a token", "login --username alice --save", login)
};

pub(super) const LOGOUT: Command = Command {
    notes: &["The token is revoked, and forgotten if it was saved."],
    ..command("logout", "revoke the token", "logout", logout)
};

pub(super) const RENEW: Command = Command {
    notes: &[
        "The former token is revoked. A saved one is replaced, and nothing printed; one from elsewhere is printed.",
    ],
    ..command("renew", "get the next token for this one", "renew", renew)
};

pub(super) const WHOAMI: Command = command("whoami", "show whose token it is, and its roles", "whoami", whoami);
pub(super) const HEALTH: Command = command("health", "ask whether the server is up", "health", health);
pub(super) const PUBKEY: Command = command("pubkey", "show the key that signs tokens, as a JWK", "pubkey", public_key);

pub(super) const PASSWORD_CHANGE: Command = Command {
    notes: &["Your other tokens are revoked. Where one-time codes are on, a code is needed."],
    flags: &[
        Flag::value("totp", "CODE", "the one-time code"),
        Flag::switch("password-stdin", "read both from standard input: the current one, then the new one, a line each"),
    ],
    ..command("password change", "change your own password", "password change", change_password)
};

fn login(parsed: &Parsed) -> Result<(), Failure> {
    let (code, audience) = (given::code(parsed, "totp")?, given::audience(parsed, "audience")?);
    let (save, from_stdin) = (parsed.switch("save"), parsed.switch("password-stdin"));
    if save && audience.is_some() {
        return Err(parsed.usage("--save and --audience exclude each other: that token opens nothing here").into());
    }
    let mut remote = Remote::open_without_token(parsed)?;
    if save {
        Saved::check()?;
    }
    let username = match parsed.text("username")? {
        Some(name) => name.to_owned(),
        None if from_stdin => return Err(parsed.usage("--username U is missing").into()),
        None => term::prompt("Username: ", "--username")?,
    };
    let password = given::password(parsed, "Password: ")?;
    // The server's answer doesn't tell whether one is needed.
    let totp_code = if from_stdin || code.is_some() { code } else { ask_for_code("One-time code (empty for none): ")? };
    let mut issued = remote.call::<ops::Login>(&Login { username, password, totp_code, audience })?;
    if save {
        issued = keep(&remote, issued)?;
        if io::stdout().is_terminal() {
            term::err(&format!("{}: saved; good until {}\n", parsed.role().name, issued.expires_at));
            return Ok(());
        }
    }
    super::tokens::print(parsed, issued)
}

/// Keeps a token for its server. One that can't be kept in spite of [`Saved::check`] is printed: it is there already, and
/// a former one may be gone.
fn keep(remote: &Remote, issued: IssuedToken) -> Result<IssuedToken, Failure> {
    let Err(failure) = Saved::keep(&remote.server, &issued) else { return Ok(issued) };
    super::tokens::print(remote.parsed, issued)?;
    Err(Failure::new(format!("the token couldn't be saved, and is printed instead: {}", failure.message)))
}

/// Asks on the terminal; an empty answer is none.
pub(super) fn ask_for_code(prompt: &str) -> Result<Option<TotpCode>, Failure> {
    let answer = term::prompt(prompt, "--totp")?;
    if answer.is_empty() { Ok(None) } else { Ok(TotpCode::parse(&answer).map(Some)?) }
}

fn logout(parsed: &Parsed) -> Result<(), Failure> {
    let mut remote = Remote::open(parsed)?;
    let outcome = remote.try_call::<ops::Logout>(&());
    // One that is dead already has nothing more to be kept for.
    let dead = match &outcome {
        Ok(()) => true,
        Err(Trouble::Refused(error)) => error.kind() == Kind::Unauthorized,
        Err(_) => false,
    };
    if let Some(token) = remote.token.as_ref().filter(|_| dead) {
        Saved::forget(&remote.server, token)?;
    }
    outcome.map_err(|trouble| remote.failure(trouble, ops::Logout::DECL.level))
}

fn renew(parsed: &Parsed) -> Result<(), Failure> {
    let mut remote = Remote::open(parsed)?;
    let is_saved = remote.whence == Whence::Saved;
    if is_saved {
        Saved::check()?;
    }
    let issued = remote.call::<ops::RenewToken>(&())?;
    if is_saved { keep(&remote, issued).map(drop) } else { super::tokens::print(parsed, issued) }
}

fn whoami(parsed: &Parsed) -> Result<(), Failure> {
    let mut remote = Remote::open(parsed)?;
    let me = remote.call::<ops::WhoAmI>(&())?;
    show::who_am_i(me, remote.json())
}

fn health(parsed: &Parsed) -> Result<(), Failure> {
    let mut remote = Remote::open_without_token(parsed)?;
    let status = remote.call::<ops::Health>(&())?;
    match (remote.json(), status) {
        (true, status) => show::json(status),
        (false, HealthStatus::Ok) => term::out("ok\n"),
        (false, HealthStatus::Ready) => term::out("ready\n"),
    }
}

fn public_key(parsed: &Parsed) -> Result<(), Failure> {
    let mut remote = Remote::open_without_token(parsed)?;
    let key = remote.call::<ops::GetPublicKey>(&())?;
    term::out(&format!("{}\n", key.reply().into_text().unwrap_or_default()))
}

fn change_password(parsed: &Parsed) -> Result<(), Failure> {
    let code = given::code(parsed, "totp")?;
    let mut remote = Remote::open(parsed)?;
    let (current, new) = if parsed.switch("password-stdin") {
        let [current, new] = term::read_secrets_stdin()?;
        (current, new)
    } else {
        (term::prompt_secret("Current password: ", "--password-stdin")?, given::twice()?)
    };
    let totp_code = code_where_needed(&mut remote, code)?;
    remote.call::<ops::ChangePassword>(&ChangePassword { current, new, totp_code })
}

/// The code that is given, else asked for where there is somebody to ask and the account has codes on.
pub(super) fn code_where_needed(remote: &mut Remote, code: Option<TotpCode>) -> Result<Option<TotpCode>, Failure> {
    if code.is_some() || remote.parsed.switch("password-stdin") || !term::at_a_terminal() {
        return Ok(code);
    }
    let needed = remote.call::<ops::WhoAmI>(&())?.account.totp_enabled;
    if needed { ask_for_code("One-time code: ") } else { Ok(None) }
}
