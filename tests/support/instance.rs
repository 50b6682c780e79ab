//! An instance: what `mcias init` made in a folder of the test's own, its configuration, and its database seen from
//! outside.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Instant;

use rusqlite::types::FromSql;
use rusqlite::{Connection, OpenFlags, Params};
use tempfile::TempDir;

use super::server::{Guard, Server, wait};
use super::{Log, PATIENCE};

/// The program under test.
pub const MCIAS: &str = env!("CARGO_BIN_EXE_mcias");

/// The program under test, or another build of it: `make bench` measures the static executable.
pub fn program() -> PathBuf {
    std::env::var_os("MCIAS_EXECUTABLE").unwrap_or_else(|| MCIAS.into()).into()
}

/// What every instance of a test is set to: free ports, the least work that a configuration allows a password hash,
/// no rate limit, and a log that tells why.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("server", "listen_addr", "\"127.0.0.1:0\""),
    ("server", "grpc_addr", "\"127.0.0.1:0\""),
    ("argon2", "time", "2"),
    ("argon2", "memory", "65536"),
    ("argon2", "threads", "1"),
    ("rate_limit", "rps", "1000000"),
    ("rate_limit", "burst", "1000000"),
    ("rate_limit", "validate_rps", "0"),
    ("rate_limit", "api_rps", "0"),
    ("log", "level", "\"debug\""),
];

/// An instance, running or not.
pub struct Instance {
    settings: Vec<(String, String, String)>,
    environment: Vec<(OsString, OsString)>,
    program: PathBuf,
    arguments: Vec<OsString>,
    log: Arc<Log>,
    pub(super) guard: Arc<Guard>,
    folder: TempDir,
}

/// A server that didn't start.
#[derive(Debug)]
pub struct Refusal {
    /// Its exit code.
    pub code: Option<i32>,
    /// Everything it said.
    pub stderr: String,
}

impl Refusal {
    /// Insists on the exit code, and on all of the words in what it said last.
    #[track_caller]
    pub fn says(&self, code: i32, words: &[&str]) {
        let last = self.stderr.lines().last().unwrap_or_default();
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        for word in words {
            assert!(last.contains(word), "{word:?} isn't in the last line of:\n{}", self.stderr);
        }
    }
}

impl Instance {
    /// A new one, opened by a key file.
    pub fn new() -> Self {
        Self::init(&[], &[])
    }

    /// A new one, opened by a passphrase, which is in the environment of its server.
    pub fn with_passphrase(variable: &str, passphrase: &str) -> Self {
        Self::init(&["--passphrase-env", variable], &[(variable, passphrase)])
    }

    /// A new one, with more to say to `init`.
    pub fn init(flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("mcias-test-").tempdir().unwrap();
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let mut instance = Self {
            settings: Vec::new(),
            environment,
            program: program(),
            arguments: Vec::new(),
            log: Arc::default(),
            guard: Guard::new(folder.path()),
            folder,
        };
        instance.arguments = ["server".into(), "--config".into(), instance.path("mcias.conf").into()].into();
        let mut init = instance.command();
        let made = init.arg("init").arg("--dir").arg(instance.folder()).args(flags).output().unwrap();
        assert!(made.status.success(), "mcias init: {}", String::from_utf8_lossy(&made.stderr));
        instance.settings = settings(&instance.text("mcias.conf"));
        for (section, key, value) in SETTINGS {
            instance.set(section, key, value);
        }
        instance
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// The bytes of a file in its folder.
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The text of a file in its folder.
    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    /// Writes a file in its folder, which only we may read.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        self.chmod(name, 0o600);
    }

    /// Sets a file's mode.
    pub fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The password that `init` gave the admin.
    pub fn admin_password(&self) -> String {
        self.text("admin-password").trim_end().to_owned()
    }

    /// Sets a key of the configuration; the value is TOML. A running server reads it when it starts the next time.
    pub fn set(&mut self, section: &str, key: &str, value: &str) {
        self.unset(section, key);
        self.settings.push((section.to_owned(), key.to_owned(), value.to_owned()));
        self.write_config();
    }

    /// Takes a key out of the configuration.
    pub fn unset(&mut self, section: &str, key: &str) {
        self.settings.retain(|(s, k, _)| (s.as_str(), k.as_str()) != (section, key));
        self.write_config();
    }

    fn write_config(&self) {
        self.write("mcias.conf", self.config());
    }

    /// The text of the configuration.
    pub fn config(&self) -> String {
        let mut sections: BTreeMap<&str, String> = BTreeMap::new();
        for (section, key, value) in &self.settings {
            sections.entry(section).or_default().push_str(&format!("{key} = {value}\n"));
        }
        sections.iter().map(|(name, keys)| format!("[{name}]\n{keys}")).collect()
    }

    /// Sets a variable of the server's environment.
    pub fn env(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.into(), value.as_ref().into()));
    }

    /// Takes a variable out of the server's environment.
    pub fn unset_env(&mut self, name: &str) {
        self.environment.retain(|(known, _)| known != name);
    }

    /// Calls the program by another name, and with other arguments.
    pub fn call_as(&mut self, name: &str, arguments: &[&str]) {
        fs::create_dir_all(self.path("bin")).unwrap();
        self.program = self.path("bin").join(name);
        let _ = fs::remove_file(&self.program);
        symlink(MCIAS, &self.program).unwrap();
        self.arguments = arguments.iter().map(OsString::from).collect();
    }

    /// The program, with the instance's environment and nothing else's, in the instance's folder.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.folder()).stdin(Stdio::null());
        // Of a Ctrl-C only the test hears, and the guard sees to the rest.
        command.process_group(0);
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    /// Starts the server.
    #[track_caller]
    pub fn start(self) -> Server {
        Server::of(self)
    }

    /// Starts the server, which is expected not to.
    #[track_caller]
    pub fn refuses(&self) -> Refusal {
        let log = Arc::default();
        let mut child = self.launch(&log);
        let status = wait(&mut child);
        log.wait_for_the_end();
        match status {
            Some(status) => Refusal { code: status.code(), stderr: log.text() },
            None => panic!("the server started after all:\n{}", log.tail()),
        }
    }

    pub(super) fn launch(&self, log: &Arc<Log>) -> Child {
        let mut command = self.command();
        command.args(&self.arguments).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        log.follow(child.stderr.take().unwrap());
        child
    }

    /// What its servers have said.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// A connection to its database, as another process has one.
    pub fn database(&self) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.path("mcias.db"), flags).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection
    }

    /// Changes its database behind the server's back; gives the number of rows changed.
    #[track_caller]
    pub fn sql(&self, sql: &str, params: impl Params) -> usize {
        self.database().execute(sql, params).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// The first column of every row.
    #[track_caller]
    pub fn query<T: FromSql>(&self, sql: &str, params: impl Params) -> Vec<T> {
        self.rows(sql, params, |row| row.get(0))
    }

    /// The first column of the one row.
    #[track_caller]
    pub fn query_one<T: FromSql>(&self, sql: &str, params: impl Params) -> T {
        let mut all = self.query(sql, params);
        assert_eq!(all.len(), 1, "rows of {sql}");
        all.remove(0)
    }

    /// Every row.
    #[track_caller]
    pub fn rows<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Vec<T> {
        let connection = self.database();
        let rows = connection.prepare(sql).and_then(|mut s| s.query_map(params, read)?.collect());
        rows.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }
}

/// Every file below a folder with its mode and its bytes.
pub fn tree(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            found.extend(tree(&path));
        }
        let bytes = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        found.insert(path, (metadata.permissions().mode(), bytes));
    }
    found
}

/// The keys of a configuration as `init` writes it: one a line.
fn settings(text: &str) -> Vec<(String, String, String)> {
    let mut section = "";
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            found.push((section.to_owned(), key.to_owned(), value.to_owned()));
        }
    }
    found
}
