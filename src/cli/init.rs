//! `mcias init`: a working instance in an empty folder. All or nothing: what can't be finished is taken back.

mod files;
mod owner;
mod text;

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::command::{Command, Flag};
use super::parse::{Parsed, Usage};
use super::pki::{self, Host};
use super::secrets;
use super::term::{self, Failure};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::error::{self, Error};
use crate::model::account::{AccountType, NewAccount, RoleName, RoleOf, Username};
use crate::model::audit::{Occasion, Via};
use crate::model::time::Timestamp;
use crate::random;
use crate::secret::{KeyBytes, Password};
use crate::service::access::Admin;
use crate::service::keys::MasterSecret;
use crate::service::policy::Blocklist;
use crate::service::{Call, Policy, Service, accounts, roles};
use crate::store::Store;
use files::{Layout, Reader, Work};

/// The command's row.
pub const COMMAND: Command = Command {
    name: "init",
    about: "make a working instance in an empty folder",
    notes: &[
        "Makes mcias.conf, a local CA and a server certificate in tls, master.key, the database mcias.db with an admin \
         account, and admin-password; then says what to run next. Where any of these is there already it changes \
         nothing.",
        "The certificate is for the names or addresses given, and always for localhost and the loopback addresses. \
         Without --hostname the server will listen on loopback only.",
    ],
    flags: &[
        Flag::value("dir", "DIR", "where; made if it isn't there. Without it, the current folder"),
        Flag::value("hostname", "NAME", "a name or address that clients will use").repeatable(),
        Flag::value("admin", "NAME", "the admin's username; without it, admin"),
        Flag::value("issuer", "URL", "who issues the tokens; without it, https://, the first hostname, and :8443"),
        Flag::value(
            "passphrase-env",
            "VAR",
            "take the master key from the passphrase in this variable, not from a file",
        ),
        Flag::switch("system", "in /etc/mcias and /var/lib/mcias, for the user mcias; needs root"),
    ],
    args: &[],
    example: "init --dir /srv/mcias --hostname auth.example.com",
    run,
};

/// Where the master key comes from.
pub enum Master {
    /// From a passphrase; the key is derived from it.
    Passphrase(Password),
    /// From a key file; this is the key.
    KeyFile(KeyBytes),
}

/// What to make, once every flag is known to be good.
struct Plan {
    layout: Layout,
    hosts: Vec<Host>,
    admin: Username,
    issuer: String,
    /// The variable and what it holds; none: a key file.
    passphrase: Option<(String, Password)>,
    /// Where REST is to listen.
    listen: SocketAddr,
    /// Where gRPC is to listen; none: only a line that says how.
    grpc: Option<SocketAddr>,
    /// More of the configuration, as text.
    more: &'static str,
}

/// An instance that is soon gone again.
pub struct ThrowAway {
    /// Its configuration.
    pub config: PathBuf,
    /// The certificate that clients have to trust.
    pub ca_cert: PathBuf,
    /// The admin's name.
    pub admin: Username,
    /// The file with the admin's password.
    pub admin_password: PathBuf,
}

/// Makes an instance for trying out, without rate limits, in an empty folder.
///
/// # Errors
/// As `mcias init`.
pub fn throw_away(folder: &Path, listen: SocketAddr, grpc: SocketAddr) -> Result<ThrowAway, Failure> {
    let plan = Plan {
        layout: Layout::in_folder(folder),
        hosts: Vec::new(),
        admin: Username::parse("admin")?,
        issuer: default_issuer(&[]),
        passphrase: None,
        listen,
        grpc: Some(grpc),
        more: "
[rate_limit]
rps = 1000000
burst = 1000000
validate_rps = 0
validate_burst = 0
api_rps = 0
api_burst = 0
",
    };
    make(&plan, Clock::System.now(), create_database)?;
    let Plan { layout, admin, .. } = plan;
    Ok(ThrowAway { config: layout.config, ca_cert: layout.ca_cert, admin, admin_password: layout.admin_password })
}

fn run(parsed: &Parsed) -> Result<(), Failure> {
    let plan = Plan::read(parsed, |variable| std::env::var_os(variable))?;
    make(&plan, Clock::System.now(), create_database)?;
    let has_unit =
        Path::new("/run/systemd/system").is_dir() && Path::new("/etc/systemd/system/mcias.service").is_file();
    term::out(&text::next_steps(&plan, &program(), has_unit))
}

/// Makes the database with its keys, its first account and that account's role.
fn create_database(
    path: &Path,
    master: Master,
    config: &Config,
    admin: &Username,
    password: &Password,
) -> error::Result<()> {
    let clock = Clock::System;
    let store = Store::open_and_migrate(path, Occasion { time: clock.millis(), via: Via::Mciasdb, ip: None })?;
    let master = match master {
        Master::Passphrase(passphrase) => MasterSecret::Passphrase(passphrase),
        Master::KeyFile(key) => MasterSecret::KeyFile(key),
    };
    let policy = Policy::new(config, Blocklist::default(), 1)?;
    let service = Service::open(store, &master, policy, clock, Via::Mciasdb)?;
    service.ensure_signing_keys()?;
    let (call, proof) = (Call::default(), Admin::maintenance(&service));
    let account =
        NewAccount { username: admin.clone(), account_type: AccountType::Human, password: Some(password.clone()) };
    let account = accounts::create(&service, &call, &proof, account)?;
    roles::grant(&service, &call, &proof, RoleOf { account: account.id, role: RoleName::admin() })?;
    service.checkpoint().map(drop)
}

/// How to call this program again: by name where it was found by name, else by its path.
fn program() -> OsString {
    let called = std::env::args_os().next().unwrap_or_default();
    match std::env::current_exe() {
        Ok(path) if called.as_encoded_bytes().contains(&b'/') => path.into_os_string(),
        _ => "mcias".into(),
    }
}

impl Plan {
    /// Makes flags into a plan; `variable` reads the environment.
    fn read(parsed: &Parsed, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Failure> {
        let wrong = |flag: &str, e: &Error| parsed.usage(format!("--{flag}: {}", e.client()));
        let hosts = parsed.all("hostname").map(|name| {
            // The parser lets text pass only.
            Host::parse(&name.to_string_lossy()).map_err(|e| wrong("hostname", &e))
        });
        let hosts: Vec<Host> = hosts.collect::<Result<_, Usage>>()?;
        let admin = parsed.text("admin")?.unwrap_or("admin");
        let admin = Username::parse(admin).map_err(|e| wrong("admin", &e))?;
        let issuer = match parsed.text("issuer")? {
            Some(url) => {
                config::check_issuer(url).map_err(|e| parsed.usage(format!("--issuer: {e}")))?;
                url.to_owned()
            }
            None => default_issuer(&hosts),
        };
        let layout = match (parsed.switch("system"), parsed.value("dir")) {
            (true, Some(_)) => return Err(parsed.usage("--dir and --system exclude each other").into()),
            (true, None) => Layout::system(owner::of_system()?),
            (false, folder) => Layout::in_folder(&absolute(parsed, folder.unwrap_or(OsStr::new(".")))?),
        };
        let passphrase = match parsed.text("passphrase-env")? {
            Some(name) if !is_variable(name) => {
                return Err(parsed.usage("--passphrase-env must be the name of a variable").into());
            }
            Some(name) => Some((name.to_owned(), passphrase(name, variable(name))?)),
            None => None,
        };
        // Whoever names no host tries it out, on this machine.
        let ip: IpAddr = if hosts.is_empty() { Ipv4Addr::LOCALHOST.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let listen = SocketAddr::new(ip, text::REST_PORT);
        Ok(Self { layout, hosts, admin, issuer, passphrase, listen, grpc: None, more: "" })
    }
}

fn absolute(parsed: &Parsed, folder: &OsStr) -> Result<PathBuf, Failure> {
    if folder.is_empty() {
        return Err(parsed.usage("--dir is empty").into());
    }
    std::path::absolute(folder).map_err(|e| Failure::new(format!("{}: {e}", folder.display())))
}

fn default_issuer(hosts: &[Host]) -> String {
    match hosts.iter().find(|host| !host.is_wildcard()) {
        Some(Host::Address(address)) => format!("https://{}", std::net::SocketAddr::new(*address, text::REST_PORT)),
        Some(Host::Name(name)) => format!("https://{name}:{}", text::REST_PORT),
        None => format!("https://localhost:{}", text::REST_PORT),
    }
}

/// A name that every shell can export.
fn is_variable(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    name.bytes().all(fits) && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

fn passphrase(name: &str, value: Option<OsString>) -> Result<Password, Failure> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Err(Failure::new(format!("{name} is not set: it must hold the passphrase")));
    };
    let passphrase = value.into_string().map(Password::new);
    let passphrase = passphrase.map_err(|_| Failure::new(format!("the passphrase in {name} isn't UTF-8")))?;
    secrets::long_enough(&passphrase, name)?;
    Ok(passphrase)
}

/// Makes the instance, or nothing. `create_database` is what makes the database itself.
fn make(
    plan: &Plan,
    now: Timestamp,
    create_database: impl FnOnce(&Path, Master, &Config, &Username, &Password) -> error::Result<()>,
) -> Result<(), Failure> {
    let layout = &plan.layout;
    layout.refuse_what_is_there()?;

    let ca = pki::make_ca(now)?;
    let server = pki::issue_server(&ca.cert, &ca.key, &plan.hosts, now)?;
    let password = new_password()?;

    let mut work = Work::begin(layout)?;
    work.file(&layout.ca_cert, ca.cert.as_bytes(), Reader::Anybody)?;
    work.file(&layout.ca_key, ca.key.as_bytes(), Reader::Operator)?;
    work.file(&layout.server_cert, server.cert.as_bytes(), Reader::Anybody)?;
    work.file(&layout.server_key, server.key.as_bytes(), Reader::Server)?;
    let master = match &plan.passphrase {
        Some((_, passphrase)) => Master::Passphrase(passphrase.clone()),
        None => {
            let key = random::key()?;
            work.file(&layout.master_key, hex_line(&key).as_bytes(), Reader::Server)?;
            Master::KeyFile(key)
        }
    };
    let line = Zeroizing::new(format!("{}\n", password.expose()));
    work.file(&layout.admin_password, line.as_bytes(), Reader::Operator)?;
    let text = text::config(plan);
    let config =
        config::parse(&text, &layout.config).map_err(|e| Failure::new(format!("the new configuration: {e}")))?;
    work.database(|path| create_database(path, master, &config, &plan.admin, &password))?;
    // Last, so that where there is a configuration there is all that it names.
    work.file(&layout.config, text.as_bytes(), Reader::Server)?;
    work.finish()
}

/// 64 hexadecimal digits and a line end.
fn hex_line(key: &KeyBytes) -> Zeroizing<String> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut line = Zeroizing::new(String::with_capacity(65));
    for byte in key.expose() {
        line.push(char::from(DIGITS[usize::from(byte >> 4)]));
        line.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    line.push('\n');
    line
}

/// Nothing among them that is taken for another when it is typed from paper.
const ALPHABET: &[u8; 31] = b"23456789abcdefghjkmnpqrstuvwxyz";
/// 25 characters of 31 are 123 bits.
const GROUPS: usize = 5;
const GROUP: usize = 5;

/// A random password in groups, `xxxxx-xxxxx-xxxxx-xxxxx-xxxxx`.
fn new_password() -> error::Result<Password> {
    let mut text = Zeroizing::new(String::with_capacity(GROUPS * (GROUP + 1)));
    let mut drawn = 0;
    while drawn < GROUPS * GROUP {
        let bytes = Zeroizing::new(random::bytes::<64>()?);
        // Five bits of each byte; 31 is drawn again, so that every character is as likely as any other.
        let characters = bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 31)));
        for character in characters.take(GROUPS * GROUP - drawn) {
            if drawn > 0 && drawn.is_multiple_of(GROUP) {
                text.push('-');
            }
            text.push(char::from(*character));
            drawn += 1;
        }
    }
    Ok(Password::new(std::mem::take(&mut *text)))
}

#[cfg(test)]
mod tests;
