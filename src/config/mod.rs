//! The configuration file: every key of it, typed and within its range, or an error that names the key, the file and
//! the line. Looks at nothing but the text: whether a file it names is there is for those to say who open it.

mod document;
mod value;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::document::{Document, Schema, Table, broken};
pub use self::value::{MAX_DURATION, check_issuer, parse_duration};
use crate::model::account::RoleName;
use crate::model::net::{Cidr, LogFormat, LogLevel, MinTls};

/// A configuration that can't be used. It always means "asked wrongly", exit 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    /// `file:line: [table] key: complaint`, on one line.
    fn at(file: &Path, line: usize, place: &str, complaint: &str) -> Self {
        let colon = if place.is_empty() { "" } else { ": " };
        Self(format!("{}:{line}: {place}{colon}{}", file.display(), complaint.replace('\n', " ")))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// The whole configuration. Nothing in it is secret: it names where secrets are.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it came from, as it was named.
    pub file: PathBuf,
    /// `[server]`
    pub server: Server,
    /// `[database]`
    pub database: Database,
    /// `[tokens]`
    pub tokens: Tokens,
    /// `[passwords]`
    pub passwords: Passwords,
    /// `[totp]`
    pub totp: Totp,
    /// `[argon2]`
    pub argon2: Argon2,
    /// `[rate_limit]`
    pub rate_limit: RateLimit,
    /// `[master_key]`
    pub master_key: MasterKeySource,
    /// `[log]`
    pub log: Log,
}

/// Where and how the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// REST; port 0 takes a free one.
    pub listen_addr: SocketAddr,
    /// gRPC; none without it.
    pub grpc_addr: Option<SocketAddr>,
    /// PEM chain, leaf first.
    pub tls_cert: PathBuf,
    /// PEM private key.
    pub tls_key: PathBuf,
    /// The oldest TLS that is spoken.
    pub min_tls: MinTls,
    /// How long SIGTERM waits for requests under way: 1 s to 1 day.
    pub drain: Duration,
    /// Networks whose `X-Forwarded-For` is believed; never all addresses.
    pub trusted_proxies: Vec<Cidr>,
    /// Connections on both listeners together: 1-1000000.
    pub max_connections: u32,
    /// Connections of one client: 1 to `max_connections`.
    pub max_connections_per_client: u32,
}

/// Where the data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// The SQLite file; always with a folder before its name, so that SQLite takes no name for something else.
    pub path: PathBuf,
}

/// Who issues tokens and how long they live. Whole seconds, 1 s to [`MAX_DURATION`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// `iss`, and the audience of those who ask for none; see [`check_issuer`].
    pub issuer: String,
    /// A human's token.
    pub default_expiry: Duration,
    /// A token with the role `admin`.
    pub admin_expiry: Duration,
    /// A system account's token.
    pub service_expiry: Duration,
    /// How long after the login renewal ends.
    pub max_session: Duration,
}

impl Tokens {
    /// The host in the issuer's URL, without port and brackets.
    pub fn issuer_host(&self) -> &str {
        value::issuer_host(&self.issuer)
    }
}

/// What a new password must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passwords {
    /// Characters, 8-128.
    pub min_length: u32,
    /// Passwords nobody may have, one a line.
    pub blocklist_file: Option<PathBuf>,
}

/// What a one-time code is needed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totp {
    /// Roles left out of a token that was got without TOTP.
    pub required_for: Vec<RoleName>,
}

/// How passwords are hashed (RFC 9106), and how many at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argon2 {
    /// Passes, 2-64.
    pub time: u32,
    /// KiB, 65536-4194304; `memory` in the file.
    pub memory_kib: u32,
    /// Lanes, 1-16.
    pub threads: u32,
    /// Hashes at once, 1-256; 0: as many as the machine bears.
    pub slots: u32,
    /// Logins that may wait for a slot, 1-65536.
    pub queue: u32,
}

/// Requests of one client: a second, and at once. A rate of 0 is no limit, and its burst then says nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// What tries a credential; never 0.
    pub rps: f64,
    /// 1-1000000.
    pub burst: u32,
    /// Token checks.
    pub validate_rps: f64,
    /// 1-1000000, or 0 where the rate is.
    pub validate_burst: u32,
    /// Networks without a limit on token checks.
    pub validate_exempt: Vec<Cidr>,
    /// Everything else.
    pub api_rps: f64,
    /// 1-1000000, or 0 where the rate is.
    pub api_burst: u32,
}

/// Where the master key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterKeySource {
    /// The environment variable that holds the passphrase.
    PassphraseEnv(String),
    /// The file that holds the passphrase.
    PassphraseFile(PathBuf),
    /// The file that holds the key itself.
    KeyFile(PathBuf),
}

/// How the log looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Text or JSON lines.
    pub format: LogFormat,
    /// The least important lines that are still written.
    pub level: LogLevel,
}

/// Every table and key there is.
const SCHEMA: &Schema = &[
    (
        "server",
        &[
            "listen_addr",
            "grpc_addr",
            "tls_cert",
            "tls_key",
            "min_tls",
            "drain",
            "trusted_proxies",
            "max_connections",
            "max_connections_per_client",
        ],
    ),
    ("database", &["path"]),
    ("tokens", &["issuer", "default_expiry", "admin_expiry", "service_expiry", "max_session"]),
    ("passwords", &["min_length", "blocklist_file"]),
    ("totp", &["required_for"]),
    ("argon2", &["time", "memory", "threads", "slots", "queue"]),
    ("rate_limit", &["rps", "burst", "validate_rps", "validate_burst", "validate_exempt", "api_rps", "api_burst"]),
    ("master_key", &["passphrase_env", "passphrase_file", "keyfile"]),
    ("log", &["format", "level"]),
];

/// More than this is no configuration.
const MAX_FILE: u64 = 1 << 20;

const DAY: Duration = Duration::from_secs(86_400);
const MANY: u32 = 1_000_000;

const ARGON2_MIN_MEMORY: u32 = 65_536;
const ARGON2_MAX_THREADS: u32 = 16;
// RFC 9106, 3.1: at least 8 KiB of memory a lane; the ranges see to it.
const _: () = assert!(ARGON2_MIN_MEMORY >= 8 * ARGON2_MAX_THREADS);

/// Reads the file. Relative paths in it are relative to its folder.
///
/// # Errors
/// The file can't be read, isn't UTF-8 or is over 1 MiB, or what [`parse`] refuses.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|e| ConfigError(format!("{}: the config file can't be read: {e}", path.display())))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(ConfigError(format!("{}: the config file is over 1 MiB", path.display())));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, path),
        Err(e) => {
            let good = String::from_utf8_lossy(bytes.get(..e.valid_up_to()).unwrap_or_default());
            Err(broken(&good, path, good.len(), "not UTF-8"))
        }
    }
}

/// Reads the text of the file `path`, which names it in errors and gives relative paths their folder.
///
/// # Errors
/// The first thing wrong: not TOML, a table or key that isn't known or comes twice, a required one missing, a value of
/// the wrong type, out of range or at odds with another, not exactly one source of the master key.
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let document = Document::parse(text, path, SCHEMA)?;
    // "." rather than nothing: SQLite would take a bare ":memory:" for its own.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let config = Config {
        file: path.to_owned(),
        server: server(&document.table("server"), folder)?,
        database: Database { path: document.table("database").required("path", value::file_in(folder))? },
        tokens: tokens(&document.table("tokens"))?,
        passwords: passwords(&document.table("passwords"), folder)?,
        totp: Totp { required_for: document.table("totp").list("required_for", value::role)? },
        argon2: argon2(&document.table("argon2"))?,
        rate_limit: rate_limit(&document.table("rate_limit"))?,
        master_key: master_key(&document.table("master_key"), folder)?,
        log: log(&document.table("log"))?,
    };
    Ok(config)
}

fn server(table: &Table<'_>, folder: &Path) -> Result<Server, ConfigError> {
    let listen_addr = table.required("listen_addr", value::address)?;
    let grpc_addr = table.optional("grpc_addr", value::address)?;
    if grpc_addr.is_some_and(|grpc_addr| value::clash(listen_addr, grpc_addr)) {
        return Err(table.wrong("grpc_addr", "can't be the address of listen_addr"));
    }
    let max_connections = table.optional("max_connections", value::integer(1..=MANY))?.unwrap_or(4096);
    let per_client = table.optional("max_connections_per_client", value::integer(1..=MANY))?;
    if per_client.is_some_and(|per_client| per_client > max_connections) {
        let complaint = format!("can't be more than max_connections, {max_connections}");
        return Err(table.wrong("max_connections_per_client", &complaint));
    }
    Ok(Server {
        listen_addr,
        grpc_addr,
        tls_cert: table.required("tls_cert", value::file_in(folder))?,
        tls_key: table.required("tls_key", value::file_in(folder))?,
        min_tls: table.optional("min_tls", value::word(MinTls::ALL, MinTls::as_str))?.unwrap_or(MinTls::V1_2),
        drain: table.optional("drain", value::duration_up_to(DAY))?.unwrap_or(Duration::from_secs(30)),
        trusted_proxies: table.list("trusted_proxies", value::proxies)?,
        max_connections,
        max_connections_per_client: per_client.unwrap_or(256.min(max_connections)),
    })
}

fn tokens(table: &Table<'_>) -> Result<Tokens, ConfigError> {
    let length = |key, default: Duration| Ok(table.optional(key, value::duration)?.unwrap_or(default));
    Ok(Tokens {
        issuer: table.required("issuer", value::issuer)?,
        default_expiry: length("default_expiry", DAY)?,
        admin_expiry: length("admin_expiry", DAY / 3)?,
        service_expiry: length("service_expiry", DAY * 365)?,
        max_session: length("max_session", DAY * 30)?,
    })
}

fn passwords(table: &Table<'_>, folder: &Path) -> Result<Passwords, ConfigError> {
    Ok(Passwords {
        min_length: table.optional("min_length", value::integer(8..=128))?.unwrap_or(15),
        blocklist_file: table.optional("blocklist_file", value::file_in(folder))?,
    })
}

fn argon2(table: &Table<'_>) -> Result<Argon2, ConfigError> {
    let number = |key, range, default| Ok(table.optional(key, value::integer(range))?.unwrap_or(default));
    Ok(Argon2 {
        time: number("time", 2..=64, 3)?,
        memory_kib: number("memory", ARGON2_MIN_MEMORY..=4_194_304, 65_536)?,
        threads: number("threads", 1..=ARGON2_MAX_THREADS, 4)?,
        slots: number("slots", 0..=256, 0)?,
        queue: number("queue", 1..=65_536, 64)?,
    })
}

fn rate_limit(table: &Table<'_>) -> Result<RateLimit, ConfigError> {
    let bucket = |rps_key, burst_key, (rps, burst), unlimited| {
        let rps = table.optional(rps_key, value::rate(unlimited))?.unwrap_or(rps);
        // A bucket without room for one request lets nothing through.
        let least = if rps > 0.0 { 1 } else { 0 };
        let burst = table.optional(burst_key, value::integer(least..=MANY))?.unwrap_or(burst);
        Ok((rps, burst))
    };
    let (rps, burst) = bucket("rps", "burst", (10.0, 10), false)?;
    let (validate_rps, validate_burst) = bucket("validate_rps", "validate_burst", (2000.0, 4000), true)?;
    let (api_rps, api_burst) = bucket("api_rps", "api_burst", (200.0, 400), true)?;
    let validate_exempt = table.list("validate_exempt", value::network)?;
    Ok(RateLimit { rps, burst, validate_rps, validate_burst, validate_exempt, api_rps, api_burst })
}

fn master_key(table: &Table<'_>, folder: &Path) -> Result<MasterKeySource, ConfigError> {
    let sources = [
        ("passphrase_env", table.optional("passphrase_env", value::variable)?.map(MasterKeySource::PassphraseEnv)),
        (
            "passphrase_file",
            table.optional("passphrase_file", value::file_in(folder))?.map(MasterKeySource::PassphraseFile),
        ),
        ("keyfile", table.optional("keyfile", value::file_in(folder))?.map(MasterKeySource::KeyFile)),
    ];
    let mut given = sources.into_iter().filter_map(|(key, source)| Some((key, source?)));
    let choice = "exactly one of passphrase_env, passphrase_file and keyfile";
    let (first_key, source) = given.next().ok_or_else(|| table.wrong_table(&format!("must have {choice}")))?;
    match given.next() {
        None => Ok(source),
        Some((key, _)) => Err(table.wrong(key, &format!("{first_key} is there too; [master_key] must have {choice}"))),
    }
}

fn log(table: &Table<'_>) -> Result<Log, ConfigError> {
    Ok(Log {
        format: table.optional("format", value::word(LogFormat::ALL, LogFormat::as_str))?.unwrap_or(LogFormat::Text),
        level: table.optional("level", value::word(LogLevel::ALL, LogLevel::as_str))?.unwrap_or(LogLevel::Info),
    })
}

#[cfg(test)]
mod tests;
