//! The roles `mciasctl` and `mciasgrpcctl`: administration and self-service through a running server, over REST or over
//! gRPC, with the same commands. What every command needs is here: the table, the server, the token, and what to say when
//! a call comes to nothing.

mod accounts;
mod audit;
mod pgcreds;
mod qr;
mod roles;
mod saved;
mod session;
mod tokens;
mod totp;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::command::{Command, Flag, Role};
use super::parse::Parsed;
use super::term::{self, ASKED_WRONGLY, Failure, REFUSED};
use crate::client::{Callable, Client, Distrust, Protocol, Server, Trouble, Trust};
use crate::config;
use crate::error::{Error, Kind};
use crate::model::account::{AccountFilter, AccountId, AccountStatus, Username};
use crate::secret::BearerToken;
use crate::wire::ops::{self, Level};
use saved::Saved;

/// The role's table.
pub static CTL: Role = Role {
    name: "mciasctl",
    word: "ctl",
    about: "administration over REST",
    common: &[Flag::value("server", "URL", "the server; without it, MCIAS_SERVER"), TOKEN, CACERT, TIMEOUT, JSON],
    commands: COMMANDS,
    example: "--server https://auth.example.com:8443 account list",
    roles: &[],
};

/// The same over gRPC.
pub static GRPCCTL: Role = Role {
    name: "mciasgrpcctl",
    word: "grpcctl",
    about: "administration over gRPC",
    common: &[
        Flag::value("server", "HOST:PORT", "the server; without it, MCIAS_GRPC_SERVER, or MCIAS_SERVER"),
        TOKEN,
        CACERT,
        TIMEOUT,
        JSON,
    ],
    commands: COMMANDS,
    example: "--server auth.example.com:9443 account list",
    roles: &[],
};

const COMMANDS: &[Command] = &[
    session::LOGIN,
    session::LOGOUT,
    session::RENEW,
    session::WHOAMI,
    session::HEALTH,
    session::PUBKEY,
    session::PASSWORD_CHANGE,
    accounts::CREATE,
    accounts::LIST,
    accounts::GET,
    accounts::UPDATE,
    accounts::SUSPEND,
    accounts::ACTIVATE,
    accounts::DELETE,
    accounts::SET_PASSWORD,
    roles::LIST,
    roles::GRANT,
    roles::REVOKE,
    roles::SET,
    tokens::ISSUE,
    tokens::EXCHANGE,
    tokens::VALIDATE,
    tokens::LIST,
    tokens::REVOKE,
    tokens::REVOKE_ALL,
    totp::ENROLL,
    totp::CONFIRM,
    totp::REMOVE,
    pgcreds::GET,
    pgcreds::SET,
    pgcreds::DELETE,
    audit::LIST,
];

const TOKEN: Flag = Flag::value("token", "T", "the token; better in MCIAS_TOKEN, or saved by 'login --save'");
const CACERT: Flag = Flag::value("cacert", "FILE", "trust this CA alone; without it, MCIAS_CACERT, or the system's");
const TIMEOUT: Flag = Flag::value("timeout", "D", "how long each call may take; 30s without it");
const JSON: Flag = Flag::switch("json", "print JSON");
const ID: Flag = Flag::value("id", "A", "the account, by UUID or username").required();
const ACCOUNT: Flag = Flag::value("account", "A", "the account, by UUID or username").required();
const PASSWORD_STDIN: Flag = Flag::switch("password-stdin", "read the password from standard input, one line");

/// How long a call may take unless `--timeout` says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// Says on whose behalf a request comes.
const AGENT: &str = concat!("mciasctl/", env!("CARGO_PKG_VERSION"));

/// How a role speaks to its server, and which variables name that.
fn protocol(role: &Role) -> (Protocol, &'static [&'static str]) {
    if role.name == GRPCCTL.name {
        (Protocol::Grpc, &["MCIAS_GRPC_SERVER", "MCIAS_SERVER"])
    } else {
        (Protocol::Rest, &["MCIAS_SERVER"])
    }
}

/// A command of these roles without flags of its own.
const fn command(
    name: &'static str,
    about: &'static str,
    example: &'static str,
    run: fn(&Parsed) -> Result<(), Failure>,
) -> Command {
    Command { name, about, notes: &[], flags: &[], args: &[], example, run }
}

/// The server that a command is about, and the token it goes there with.
struct Remote<'p> {
    parsed: &'p Parsed,
    server: Server,
    client: Client,
    token: Option<BearerToken>,
    /// Where the token came from.
    whence: Whence,
}

/// Where a token comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whence {
    /// `--token`.
    Flag,
    /// The variable of this name.
    Variable(&'static str),
    /// The file of saved ones.
    Saved,
}

impl fmt::Display for Whence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("the token of --token"),
            Self::Variable(name) => write!(f, "the token in {name}"),
            Self::Saved => f.write_str("the saved token"),
        }
    }
}

impl<'p> Remote<'p> {
    /// For a command that needs a token: the one of `--token`, else of `MCIAS_TOKEN`, else of `MCIAS_ADMIN_TOKEN`, else
    /// the one that was saved for this server.
    fn open(parsed: &'p Parsed) -> Result<Self, Failure> {
        let mut remote = Self::open_without_token(parsed)?;
        match given_token(parsed)? {
            Some((token, whence)) => (remote.token, remote.whence) = (Some(token), whence),
            None => remote.token = Saved::load()?.get(&remote.server),
        }
        if remote.token.is_none() {
            let login = login(parsed);
            let message = format!("there is no token for {}: '{login} --save' gets one and keeps it", remote.server);
            return Err(Failure { code: REFUSED, message });
        }
        Ok(remote)
    }

    /// For a command that needs none.
    fn open_without_token(parsed: &'p Parsed) -> Result<Self, Failure> {
        let (protocol, variables) = protocol(parsed.role());
        let read = match protocol {
            Protocol::Rest => Server::parse_url,
            Protocol::Grpc => Server::parse_authority,
        };
        let server = match parsed.text("server")? {
            Some(text) => read(text).map_err(|why| parsed.usage(format!("--server: {why}")))?,
            None => {
                let mut found = None;
                for name in variables {
                    found = variable(name)?.map(|text| (*name, text));
                    if found.is_some() {
                        break;
                    }
                }
                let Some((name, text)) = found else {
                    let names = variables.join(" or ");
                    return Err(parsed.usage(format!("which server? --server or {names} says")).into());
                };
                read(&text).map_err(|why| Failure { code: ASKED_WRONGLY, message: format!("{name}: {why}") })?
            }
        };
        let timeout = match parsed.text("timeout")? {
            Some(text) => config::parse_duration(text).map_err(|e| parsed.usage(format!("--timeout: {e}")))?,
            None => PATIENCE,
        };
        let trust = match (parsed.value("cacert"), std::env::var_os("MCIAS_CACERT").filter(|path| !path.is_empty())) {
            (Some(path), _) => Trust::file(Path::new(path)).map_err(|why| Failure::new(format!("--cacert {why}")))?,
            (None, Some(path)) => {
                Trust::file(Path::new(&path)).map_err(|why| Failure::new(format!("MCIAS_CACERT {why}")))?
            }
            (None, None) => {
                let variable = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty());
                Trust::system(variable.map(Into::into)).map_err(Failure::new)?
            }
        };
        let client = Client::new(protocol, server.clone(), &trust, AGENT, timeout)
            .map_err(|e| Failure::new(format!("cannot get ready to connect: {e}")))?;
        Ok(Self { parsed, server, client, token: None, whence: Whence::Saved })
    }

    /// Calls an operation, with the token unless it is for everybody.
    fn call<O: Callable>(&mut self, input: &O::Input) -> Result<O::Output, Failure> {
        self.try_call::<O>(input).map_err(|trouble| self.failure(trouble, O::DECL.level))
    }

    fn try_call<O: Callable>(&mut self, input: &O::Input) -> Result<O::Output, Trouble> {
        let token = self.token.as_ref().filter(|_| O::DECL.level != Level::Public);
        self.client.call::<O>(token, input)
    }

    /// What to say, and what to do next.
    fn failure(&self, trouble: Trouble, level: Level) -> Failure {
        let server = &self.server;
        Failure::new(match trouble {
            Trouble::Refused(error) => return self.refused(&error, level),
            Trouble::NotTrusted(why) => format!("{server} isn't trusted: {why}{}", advice(&why)),
            Trouble::Unreachable(why) => format!("{server} can't be reached: {why}"),
            Trouble::TooSlow(after) => {
                format!("{server} gave no answer within {} s; --timeout allows for more", after.as_secs_f64())
            }
            Trouble::Garbled(why) => format!("{server} doesn't answer as MCIAS does: {why}; is --server right?"),
        })
    }

    fn refused(&self, error: &Error, level: Level) -> Failure {
        let login = login(self.parsed);
        let message = match error.kind() {
            Kind::Unauthorized if level == Level::Public => {
                "the login was refused: the name, the password or the one-time code is wrong".to_owned()
            }
            Kind::Unauthorized => {
                let save = if self.whence == Whence::Saved { " --save" } else { "" };
                format!("{} is no longer good, or not for {}: '{login}{save}' gets another", self.whence, self.server)
            }
            Kind::RateLimited | Kind::Unavailable => match error.retry_after() {
                Some(seconds) => format!("{}: try again in {seconds} s", error.client()),
                None => error.client().to_owned(),
            },
            _ => error.client().to_owned(),
        };
        let code = Failure::from(Error::new(error.kind(), "")).code;
        Failure { code, message }
    }

    /// The account that a flag names, by UUID or username.
    fn account(&mut self, flag: &str) -> Result<AccountId, Failure> {
        self.account_of_status(flag, None)
    }

    /// The same among the accounts of one status; without it, among those that aren't deleted.
    fn account_of_status(&mut self, flag: &str, status: Option<AccountStatus>) -> Result<AccountId, Failure> {
        let named = self.parsed.text(flag)?.unwrap_or_default().to_owned();
        if let Some(id) = AccountId::parse(&named.to_ascii_lowercase()) {
            return Ok(id);
        }
        let none = || Failure::new(format!("there is no account '{}'", term::escape(&named)));
        let username = Username::parse(&named).map_err(|_| none())?;
        let filter = AccountFilter { username: Some(username.clone()), status, ..AccountFilter::default() };
        match self.try_call::<ops::ListAccounts>(&filter) {
            Ok(found) => found.rows.first().map(|account| account.id).ok_or_else(none),
            // Whoever is no admin may still mean themselves.
            Err(Trouble::Refused(error)) if error.kind() == Kind::Forbidden => {
                let me = self.call::<ops::WhoAmI>(&())?;
                let is_me = me.account.username == username;
                is_me.then_some(me.account.id).ok_or_else(|| self.refused(&error, Level::Admin))
            }
            Err(trouble) => Err(self.failure(trouble, Level::Admin)),
        }
    }

    fn json(&self) -> bool {
        self.parsed.switch(JSON.name)
    }
}

/// What to do about a certificate that isn't believed.
fn advice(why: &Distrust) -> &'static str {
    match why {
        Distrust::UnknownIssuer => "; --cacert FILE (or MCIAS_CACERT) names the CA to trust",
        Distrust::Ended => "; 'mcias cert renew' on its machine makes the next; is the clock here right?",
        Distrust::NotYet => "; is the clock right?",
        Distrust::OtherNames => "; --server (or MCIAS_SERVER) has to name it as its certificate does",
        Distrust::OfAnAuthority => "; [server] tls_cert on its machine has to name one that a CA has signed for it",
        Distrust::Other(_) => "",
    }
}

/// The token that is given for this one command, and where.
fn given_token(parsed: &Parsed) -> Result<Option<(BearerToken, Whence)>, Failure> {
    if let Some(token) = parsed.text("token")? {
        term::err(&format!(
            "{}: warning: --token shows in the list of processes; MCIAS_TOKEN doesn't\n",
            parsed.role().name
        ));
        let token = token_of(token).ok_or_else(|| parsed.usage(format!("--token: {NO_TOKEN}")))?;
        return Ok(Some((token, Whence::Flag)));
    }
    for name in ["MCIAS_TOKEN", "MCIAS_ADMIN_TOKEN"] {
        if let Some(text) = variable(name)? {
            let unusable = || Failure { code: ASKED_WRONGLY, message: format!("{name}: {NO_TOKEN}") };
            return Ok(Some((token_of(&text).ok_or_else(unusable)?, Whence::Variable(name))));
        }
    }
    Ok(None)
}

/// What to say of it.
const NO_TOKEN: &str = "that can't be a token, which is one word of plain text";

/// A token as it can be sent.
fn token_of(text: &str) -> Option<BearerToken> {
    let word = text.trim();
    let plain = !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic());
    plain.then(|| BearerToken::new(word.to_owned()))
}

/// What a variable holds; one that is empty counts as not set.
fn variable(name: &str) -> Result<Option<String>, Failure> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty());
    let text = value.map(|value| value.into_string().map_err(|_| Failure::new(format!("{name} isn't UTF-8"))));
    text.transpose()
}

/// How to log in with this program.
fn login(parsed: &Parsed) -> String {
    format!("{} login", parsed.called_as())
}
