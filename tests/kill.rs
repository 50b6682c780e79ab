//! Commands of `mciasdb` killed with SIGKILL, at moments spread evenly over the time that each takes. After every kill
//! the database opens with exactly one master key, holds everything that was ever acknowledged, and its audit log
//! verifies; and the command, given again, comes to its end. A further command is a further row of [`CASES`].
//!
//! `MCIAS_KILLS=500` for so many kills altogether; 18 without it.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use mcias::clock::Clock;
use mcias::crypto::seal::{DataKeys, Place};
use mcias::model::audit::{EventType, NewEvent, Occasion, Via};
use mcias::secret::Password;
use mcias::secretfile::key_bytes;
use mcias::service::keys::{MasterSecret, unlock};
use mcias::store::{SealedColumn, Store};
use rusqlite::Connection;
use serde_json::json;
use support::{Instance, tree};

/// A command that is killed.
struct Case {
    command: &'static [&'static str],
    /// The master key that opens the database once the command has done its work.
    key_after: Key,
    /// Whether it has.
    is_done: fn(&Instance) -> bool,
    /// Given to go on with what was killed, where that isn't the same again.
    again: &'static [&'static str],
    /// The tokens that it is there to end; all others have to stay as they are.
    ends: fn(&Token) -> bool,
    /// What it makes besides, which is looked at after each kill.
    makes: fn(&Instance),
}

/// The master keys there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    /// The one that `init` made.
    First,
    /// Another key file.
    File,
    /// A passphrase.
    Passphrase,
}

const FUTURE: &str = "2999-01-01T00:00:00Z";

const REKEY: Case = Case {
    command: &["rekey", "--new-keyfile", "new.key"],
    key_after: Key::File,
    is_done: |instance| opens(instance, Key::File),
    again: &[],
    ends: |_| false,
    makes: |_| {},
};

/// By its name: a test of each.
const CASES: &[(&str, Case)] = &[
    ("rekey", REKEY),
    (
        "rekey with a passphrase",
        Case {
            command: &["rekey", "--new-passphrase-file", "new.passphrase"],
            key_after: Key::Passphrase,
            is_done: |instance| opens(instance, Key::Passphrase),
            ..REKEY
        },
    ),
    ("rekey with a new data key", Case { command: &["rekey", "--new-keyfile", "new.key", "--new-data-key"], ..REKEY }),
    (
        "archive",
        Case {
            command: &["audit", "archive", "--before", FUTURE, "--out", "archive.jsonl"],
            key_after: Key::First,
            is_done: |instance| {
                instance.query_one::<i64>("SELECT count(*) FROM audit_checkpoints WHERE anchor = 1", []) == 1
            },
            // What an interrupted one has written is never written over.
            again: &["audit", "archive", "--before", FUTURE, "--out", "again.jsonl"],
            makes: an_archive_is_whole,
            ..REKEY
        },
    ),
    (
        "keys rotate",
        Case {
            command: &["keys", "rotate", "--now"],
            key_after: Key::First,
            is_done: |instance| signing_keys(instance) > signing_keys_of_the_model(),
            ..REKEY
        },
    ),
    (
        "keys revoke",
        Case {
            command: &["keys", "revoke", "--kid", "LEAKED", "--yes"],
            key_after: Key::First,
            is_done: |instance| {
                let live =
                    "SELECT count(*) FROM token_revocation WHERE kid = ?1 AND revoked_at IS NULL AND expires_at > ?2";
                instance.query_one::<i64>(live, (leaked(), support::now())) == 0
            },
            ends: |token| token.kid == leaked(),
            ..REKEY
        },
    ),
    (
        "prune",
        Case {
            command: &["prune", "tokens"],
            key_after: Key::First,
            is_done: |instance| {
                let expired = "SELECT count(*) FROM token_revocation WHERE expires_at <= ?1";
                instance.query_one::<i64>(expired, [support::now()]) == 0
            },
            ends: |token| token.expired,
            ..REKEY
        },
    ),
];

#[test]
fn rekey_killed_at_any_moment_leaves_exactly_one_master_key() {
    kill_all_over("rekey");
}

#[test]
fn rekey_to_a_passphrase_killed_at_any_moment_leaves_exactly_one_master_key() {
    kill_all_over("rekey with a passphrase");
}

#[test]
fn rekey_with_a_new_data_key_killed_at_any_moment_is_gone_on_with() {
    kill_all_over("rekey with a new data key");
}

#[test]
fn archive_killed_at_any_moment_loses_no_event() {
    kill_all_over("archive");
}

#[test]
fn rotating_killed_at_any_moment_leaves_a_key_that_signs() {
    kill_all_over("keys rotate");
}

#[test]
fn revoking_a_key_killed_at_any_moment_is_gone_on_with() {
    kill_all_over("keys revoke");
}

#[test]
fn prune_killed_at_any_moment_removes_only_what_had_expired() {
    kill_all_over("prune");
}

#[test]
fn migrate_killed_at_any_moment_leaves_all_of_it_or_nothing() {
    let mut instance = Instance::new();
    instance.set("log", "level", "\"info\"");
    let whole: Vec<String> = schema(&instance);
    for name in ["mcias.db", "mcias.db-wal", "mcias.db-shm"] {
        let _ = fs::remove_file(instance.path(name));
    }
    instance.write("mcias.db", "");
    let saved = tree(instance.folder());
    let command = ["schema", "migrate"];
    let mut moments = Moments::measured(|| {
        put_back(&saved, instance.folder());
        assert_eq!(instance.db(&command), "1");
    });
    let mut done = 0;
    for _ in 0..kills() {
        moments.kill(|| {
            put_back(&saved, instance.folder());
            instance.mciasdb(&command)
        });
        let found = schema(&instance);
        let version = instance.query_one::<i64>("PRAGMA user_version", []);
        assert!(version == 0 && found.is_empty() || version == 1 && found == whole, "{version}: {found:?}");
        done += version;
        if version == 0 {
            instance.db_fails(1, &["account", "list"], &["schema version 0", "mciasdb schema migrate"]);
        }
        assert_eq!(instance.db(&command), if version == 0 { "1" } else { "" });
        assert_eq!(instance.db(&["schema", "verify"]), "1");
        instance.db(&["account", "create", "--username", "one", "--type", "system"]);
        let events = instance.is_sound();
        assert_eq!(events.iter().filter(|event| event.kind == "schema_migrated").count(), 1);
    }
    moments.tell("schema migrate", done as usize);
}

#[test]
fn rekey_killed_beside_a_running_server_bothers_nobody() {
    let model = model();
    let instance = Instance::new();
    put_back(&model.files, instance.folder());
    let server = instance.start();
    let ann = server.client().with_token(&model.tokens[0]);
    assert!(ann.is_good());
    // To and fro: what is the new key in one turn is the old one in the next.
    let turn = |n: usize| {
        if n.is_multiple_of(2) { (Key::First, Key::File, "new.key") } else { (Key::File, Key::First, "master.key") }
    };
    let mut turns = 0;
    let mut moments = Moments::measured(|| {
        let (old, _, file) = turn(turns);
        run(&server, old, &["rekey", "--new-keyfile", file]);
        turns += 1;
    });
    let mut done = 0;
    for _ in 0..kills() {
        moments.kill(|| {
            // One that had come to its end before it could be killed.
            turns += usize::from(!opens(&server, turn(turns).0));
            let (old, _, file) = turn(turns);
            prepare(&server, old, &["rekey", "--new-keyfile", file])
        });
        let (old, new, file) = turn(turns);
        assert_ne!(opens(&server, old), opens(&server, new), "exactly one of them opens it");
        assert!(ann.is_good());
        server.login("ann", "the passphrase of ann").post("/v1/auth/logout").ok(204);
        if opens(&server, old) {
            run(&server, old, &["rekey", "--new-keyfile", file]);
        } else {
            done += 1;
        }
        assert!(opens(&server, new) && !opens(&server, old));
        run(&server, new, &["audit", "verify"]);
        turns += 1;
    }
    moments.tell("rekey beside a server", done);
    assert!(ann.is_good());
    server.client().get("/v1/ready").ok(200);
    file_is_sound(&server);
}

/// Every table, index and trigger.
fn schema(instance: &Instance) -> Vec<String> {
    instance.query("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name", [])
}

/// How many kills each case gets.
fn kills() -> usize {
    let all: usize = std::env::var("MCIAS_KILLS").map_or(18, |n| n.parse().unwrap());
    all.div_ceil(CASES.len() + 2)
}

/// When to kill: moments spread evenly over the time that the command takes.
struct Moments {
    takes: Duration,
    tried: u32,
    killed: usize,
}

impl Moments {
    /// Of a command that this runs to its end.
    fn measured(mut whole: impl FnMut()) -> Self {
        let mut one = || {
            let begun = Instant::now();
            whole();
            begun.elapsed()
        };
        let takes = one().max(one()).max(one());
        Self { takes, tried: 0, killed: 0 }
    }

    /// Kills what this prepares, anew until one was still running.
    fn kill(&mut self, mut prepare: impl FnMut() -> Command) {
        loop {
            // The multiples of the golden ratio, modulo 1, lie evenly however many are taken.
            let moment = self.takes.mul_f64((f64::from(self.tried) * 0.618_033_988_749_895).fract());
            self.tried += 1;
            let mut child = prepare().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(moment);
            child.kill().unwrap();
            if child.wait().unwrap().signal() == Some(9) {
                self.killed += 1;
                return;
            }
            assert!(self.tried < 50 + 20 * self.killed as u32, "hardly one is still running when it is killed");
        }
    }

    fn tell(&self, name: &str, done: usize) {
        let (killed, takes) = (self.killed, self.takes.as_millis());
        eprintln!("{name}: {killed} kills within {takes} ms, {done} of them after it was done");
    }
}

/// The instance that every case begins with.
struct Model {
    /// Its files.
    files: BTreeMap<PathBuf, (u32, Vec<u8>)>,
    truth: Truth,
    /// The key that a case revokes.
    leaked: String,
    signing_keys: usize,
    /// The tokens themselves, for a server to be asked about.
    tokens: Vec<String>,
}

/// What must not be lost.
#[derive(PartialEq, Debug)]
struct Truth {
    /// Every sealed value, opened, by its column and row.
    sealed: BTreeMap<(&'static str, String), Vec<u8>>,
    /// Every account with its roles, and every setting that isn't a key.
    rows: Vec<String>,
    tokens: BTreeMap<String, Token>,
}

/// A token as the database has it.
#[derive(PartialEq, Debug)]
struct Token {
    kid: String,
    revoked: bool,
    expired: bool,
}

fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        let mut server = Instance::new().start();
        let (ann, bob) = (server.human("ann"), server.human("bob"));
        server.turn_totp_on(bob.id());
        let leaked = server.client().get("/v1/keys/public").ok(200).text("kid").to_owned();
        let mut tokens = vec![ann.token().to_owned()];
        for n in 0..80 {
            if n == 40 {
                server.db(&["keys", "rotate", "--now"]);
            }
            let app = server.system(&format!("app{n}"));
            let pg = json!({"host": "db.example.com", "port": 5432, "database": format!("d{n}"), "username": "app",
                            "password": format!("the password of app{n}")});
            server.admin().put(&format!("/v1/accounts/{}/pgcreds", app.id())).json(pg).ok(204);
            tokens.push(app.token().to_owned());
            if n % 8 == 0 {
                app.post("/v1/auth/logout").ok(204);
            }
        }
        server.give_role(ann.id(), "editor");
        server.stop();
        // Some have expired, and there is a log that takes its time.
        server.sql("UPDATE token_revocation SET issued_at = 1, expires_at = 2 WHERE id % 9 = 0", []);
        let store = Store::open(&server.path("mcias.db")).unwrap();
        let occasion = Occasion { time: Clock::System.millis(), via: Via::Server, ip: None };
        let event = || NewEvent::of(EventType::ServerStarted);
        store.write(move |tx| (0..1000).try_for_each(|_| tx.append(event(), occasion))).unwrap();
        drop(store);
        server.db(&["keys", "rotate", "--audit"]);

        server.write("new.key", "5a".repeat(32));
        server.write("new.passphrase", "correct horse battery staple\n");
        let config = server.text("mcias.conf");
        let with = |line: &str| config.replace("keyfile = \"master.key\"", line);
        assert_ne!(with(""), config);
        server.write("new.conf", with("keyfile = \"new.key\""));
        server.write("passphrase.conf", with("passphrase_file = \"new.passphrase\""));
        // An archive ends with a whole second.
        std::thread::sleep(Duration::from_millis(1100));
        Model {
            truth: truth(&server, Key::First),
            files: tree(server.folder()),
            leaked,
            signing_keys: signing_keys(&server),
            tokens,
        }
    })
}

fn leaked() -> &'static str {
    &model().leaked
}

fn signing_keys(instance: &Instance) -> usize {
    instance.query::<String>("SELECT kid FROM signing_keys WHERE purpose = 'token'", []).len()
}

fn signing_keys_of_the_model() -> usize {
    model().signing_keys
}

/// Makes the folder what it was.
fn put_back(files: &BTreeMap<PathBuf, (u32, Vec<u8>)>, folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
    // Relative to the folder that holds the database, wherever the files are from.
    let from = files.keys().find(|path| path.ends_with("mcias.db")).unwrap().parent().unwrap();
    for (path, (mode, bytes)) in files {
        let to = folder.join(path.strip_prefix(from).unwrap());
        if mode & 0o170_000 == 0o100_000 {
            fs::write(&to, bytes).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(mode & 0o7777)).unwrap();
        }
    }
}

impl Key {
    fn config(self) -> &'static str {
        match self {
            Self::First => "mcias.conf",
            Self::File => "new.conf",
            Self::Passphrase => "passphrase.conf",
        }
    }

    fn secret(self, instance: &Instance) -> MasterSecret {
        match self {
            Self::First => MasterSecret::KeyFile(key_bytes(&instance.read("master.key")).unwrap()),
            Self::File => MasterSecret::KeyFile(key_bytes(&instance.read("new.key")).unwrap()),
            Self::Passphrase => {
                MasterSecret::Passphrase(Password::new(instance.text("new.passphrase").trim_end().to_owned()))
            }
        }
    }
}

fn data_keys(instance: &Instance, key: Key) -> Option<(Store, DataKeys)> {
    let store = Store::open(&instance.path("mcias.db")).unwrap();
    let (_, keys) = unlock(&store, &key.secret(instance)).ok()?;
    Some((store, keys))
}

fn opens(instance: &Instance, key: Key) -> bool {
    data_keys(instance, key).is_some()
}

/// Everything there is, with what is sealed opened.
fn truth(instance: &Instance, key: Key) -> Truth {
    let (store, keys) = data_keys(instance, key).unwrap();
    let mut sealed = BTreeMap::new();
    for column in SealedColumn::ALL {
        let values = store.read(|view| view.sealed_values(*column, 0, 10_000)).unwrap();
        for value in values {
            let (table, name) = column.as_str().split_once('.').unwrap();
            let place = Place::new(table, name, &value.name);
            let place = match &value.pg {
                Some(pg) => place.with_address(&pg.host, u16::try_from(pg.port).unwrap(), &pg.database, &pg.username),
                None => place,
            };
            let plain = keys.open(&place, &value.sealed).unwrap_or_else(|e| panic!("{column} {}: {e}", value.name));
            sealed.insert((column.as_str(), value.name), plain.to_vec());
        }
    }
    drop(store);
    let rows = instance.query(
        "SELECT concat_ws(' ', uuid, username, status, totp_required, (SELECT group_concat(role) FROM account_roles
            WHERE account_id = accounts.id)) FROM accounts ORDER BY id",
        [],
    );
    let now = support::now();
    let tokens = instance.rows("SELECT jti, kid, revoked_at, expires_at FROM token_revocation", [], |row| {
        let revoked = row.get::<_, Option<i64>>(2)?.is_some();
        Ok((row.get(0)?, Token { kid: row.get(1)?, revoked, expired: row.get::<_, i64>(3)? <= now }))
    });
    Truth { sealed, rows, tokens: tokens.into_iter().collect() }
}

/// Insists that nothing of the model's is lost, whatever else there is.
#[track_caller]
fn nothing_is_lost(found: &Truth, ends: fn(&Token) -> bool) {
    let expected = &model().truth;
    for (place, value) in &expected.sealed {
        assert!(found.sealed.get(place) == Some(value), "{place:?} is lost");
    }
    assert_eq!(found.rows, expected.rows);
    for (jti, token) in &expected.tokens {
        let found = found.tokens.get(jti);
        assert!(found == Some(token) || ends(token), "{jti} was {token:?} and is {found:?}");
    }
    assert!(found.tokens.len() <= expected.tokens.len());
}

/// Runs `mciasdb` with the configuration that names this key; insists that it succeeds.
#[track_caller]
fn run(instance: &Instance, key: Key, arguments: &[&str]) {
    let output = prepare(instance, key, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn prepare(instance: &Instance, key: Key, arguments: &[&str]) -> Command {
    let mut command = instance.command();
    command.args(["db", "--config", key.config()]);
    command.args(arguments.iter().map(|word| if *word == "LEAKED" { leaked() } else { word }));
    command
}

/// The wrapped data keys, as bytes that must be found nowhere once they are of the past.
fn wrapped(instance: &Instance) -> BTreeSet<Vec<u8>> {
    instance.query("SELECT value FROM server_config WHERE key LIKE 'data_key/%'", []).into_iter().collect()
}

fn kill_all_over(name: &str) {
    let (_, case) = CASES.iter().find(|(known, _)| *known == name).unwrap();
    let model = model();
    let instance = Instance::new();
    let again = if case.again.is_empty() { case.command } else { case.again };
    let mut moments = Moments::measured(|| {
        put_back(&model.files, instance.folder());
        run(&instance, Key::First, case.command);
    });
    assert!((case.is_done)(&instance));
    let mut done = 0;
    for _ in 0..kills() {
        moments.kill(|| {
            put_back(&model.files, instance.folder());
            prepare(&instance, Key::First, case.command)
        });
        let mut past = wrapped_before(&model.files);
        past.extend(wrapped(&instance));

        let key = if opens(&instance, Key::First) { Key::First } else { case.key_after };
        let others = [Key::First, Key::File, Key::Passphrase].into_iter().filter(|other| *other != key);
        assert!(opens(&instance, key), "no master key opens it");
        for other in others {
            assert!(!opens(&instance, other), "{other:?} opens it, and so does {key:?}");
        }
        nothing_is_lost(&truth(&instance, key), case.ends);
        file_is_sound(&instance);
        run(&instance, key, &["audit", "verify"]);
        (case.makes)(&instance);

        if (case.is_done)(&instance) {
            done += 1;
            run(&instance, case.key_after, &["keys", "list"]);
        } else {
            assert_eq!(key, Key::First);
            run(&instance, key, again);
        }
        assert!((case.is_done)(&instance));
        assert!(opens(&instance, case.key_after));
        assert_eq!(opens(&instance, Key::First), case.key_after == Key::First);
        nothing_is_lost(&truth(&instance, case.key_after), case.ends);
        file_is_sound(&instance);
        run(&instance, case.key_after, &["audit", "verify"]);
        if case.key_after != Key::First {
            nothing_is_left_of(&past, &instance);
        }
    }
    moments.tell(name, done);
    a_server_takes_it(instance, case);
}

/// The wrapped data keys of the model's file.
fn wrapped_before(files: &BTreeMap<PathBuf, (u32, Vec<u8>)>) -> BTreeSet<Vec<u8>> {
    static BEFORE: Mutex<Option<BTreeSet<Vec<u8>>>> = Mutex::new(None);
    let mut before = BEFORE.lock().unwrap();
    before
        .get_or_insert_with(|| {
            let folder = tempfile::tempdir().unwrap();
            let (_, (_, bytes)) = files.iter().find(|(path, _)| path.ends_with("mcias.db")).unwrap();
            fs::write(folder.path().join("t.db"), bytes).unwrap();
            let connection = Connection::open(folder.path().join("t.db")).unwrap();
            let mut found = connection.prepare("SELECT value FROM server_config WHERE key LIKE 'data_key/%'").unwrap();
            let found = found.query_map([], |row| row.get(0)).unwrap();
            found.collect::<Result<_, _>>().unwrap()
        })
        .clone()
}

#[track_caller]
fn file_is_sound(instance: &Instance) {
    assert_eq!(instance.query::<String>("PRAGMA integrity_check", []), ["ok"]);
    assert!(instance.rows("PRAGMA foreign_key_check", [], |_| Ok(())).is_empty());
}

/// Insists that none of these wrapped keys can be found in the file or its log, unless it is one of today's.
#[track_caller]
fn nothing_is_left_of(past: &BTreeSet<Vec<u8>>, instance: &Instance) {
    let present = wrapped(instance);
    for name in ["mcias.db", "mcias.db-wal"] {
        let bytes = fs::read(instance.path(name)).unwrap_or_default();
        let holds = |key: &Vec<u8>| bytes.windows(key.len()).any(|window| window == key.as_slice());
        assert!(name != "mcias.db" || present.iter().all(holds), "this search finds nothing");
        for key in past.difference(&present) {
            assert!(!holds(key), "{name} still holds a wrapped key of before");
        }
    }
}

/// The archive is there whole or not at all, and there before its events are gone.
fn an_archive_is_whole(instance: &Instance) {
    let gone = instance.query::<i64>("SELECT count(*) FROM audit_log", [])[0] < 100;
    let path = instance.path("archive.jsonl");
    assert!(path.exists() || !gone, "the events are gone, and the archive isn't there");
    if path.exists() {
        let key = instance.db(&["audit", "key"]);
        let told = instance.mciasdb(&["audit", "verify", "--file", "archive.jsonl", "--jwk", &key]).output().unwrap();
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    }
}

/// In the end a server starts on it, and knows everybody and every token.
fn a_server_takes_it(mut instance: Instance, case: &Case) {
    let model = model();
    instance.call_as("mciassrv", &["--config", case.key_after.config()]);
    let mut server = instance.start();
    server.login("ann", "the passphrase of ann");
    server.client().get("/v1/ready").ok(200);
    let now = truth_of_tokens(&server);
    for token in &model.tokens {
        let client = server.client().with_token(token);
        assert_eq!(client.is_good(), now.get(&client.jti()).copied().unwrap_or_default(), "{}", client.jti());
    }
    assert!(now.values().any(|good| *good));
    server.stop();
}

fn truth_of_tokens(instance: &Instance) -> BTreeMap<String, bool> {
    let rows =
        instance.rows("SELECT jti, revoked_at IS NULL AND expires_at > unixepoch() FROM token_revocation", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        });
    rows.into_iter().collect()
}
