//! `mciasdb audit …` on the real program: what it prints, and that nobody edits, reorders, drops, cuts short or
//! re-chains a row, in the database or in an export, without its being named. Every attack is first kept from a copy
//! that verifies.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mcias::crypto::jwt::SigningKey;
use mcias::model::audit::Checkpoint;
use mcias::model::chain::{Line, hex};
use mcias::store::chained;
use rusqlite::Connection;
use serde_json::{Map, Value, json};

const MCIAS: &str = env!("CARGO_BIN_EXE_mcias");

/// A folder with an instance of its own, thrown away at the end.
struct Instance(tempfile::TempDir);

impl Instance {
    /// A copy of one that is made once: an admin and two system accounts, one of them with a role; each change of
    /// `mciasdb` signed.
    fn new() -> Self {
        static MODEL: OnceLock<Instance> = OnceLock::new();
        let model = MODEL.get_or_init(|| {
            let model = Self(tempfile::tempdir().unwrap());
            let init = Command::new(MCIAS).args(["init", "--dir"]).arg(model.0.path()).output().unwrap();
            assert!(init.status.success(), "{}", text(&init.stderr));
            for name in ["one", "two"] {
                model.ok(&["account", "create", "--username", name, "--type", "system"]);
            }
            model.ok(&["role", "grant", "--id", "two", "--role", "reader"]);
            model
        });
        model.copy()
    }

    fn copy(&self) -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        copy_folder(self.0.path(), copy.0.path());
        copy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(MCIAS);
        command.args(["db", "--config"]).arg(self.path("mcias.conf")).args(args).current_dir(self.0.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command that has to succeed and say nothing on standard error.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{args:?}");
        text(&output.stdout).to_owned()
    }

    /// Runs a command that has to fail, with `what` in the one line that it says.
    #[track_caller]
    fn fails(&self, code: i32, args: &[&str], what: &str) {
        failed(&self.run(args), code, what);
    }

    fn connection(&self) -> Connection {
        Connection::open(self.path("mcias.db")).unwrap()
    }

    /// Changes the file as somebody who can write it would.
    fn tamper(&self, change: impl Fn(&Connection)) {
        let connection = self.connection();
        let open = "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON;
                    DROP TRIGGER IF EXISTS audit_log_no_update; DROP TRIGGER IF EXISTS audit_log_no_delete;";
        connection.execute_batch(open).unwrap();
        change(&connection);
    }

    fn one<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        self.connection().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// The lines of an export to standard output.
    fn export(&self) -> Vec<String> {
        self.ok(&["audit", "export"]).lines().map(str::to_owned).collect()
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            fs::create_dir(&to).unwrap();
            copy_folder(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn failed(output: &Output, code: i32, what: &str) {
    let stderr = text(&output.stderr);
    assert!(stderr.contains(what), "{what:?} is not in {stderr:?}");
    assert_eq!((output.status.code(), text(&output.stdout), stderr.lines().count()), (Some(code), "", 1), "{stderr}");
}

/// Offline: in an empty folder, with nothing but the file and the key.
fn verify_file(lines: &[String], jwk: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    fs::write(dir.path().join("k"), jwk).unwrap();
    let args = ["db", "audit", "verify", "--file", "f", "--jwk", "k"];
    Command::new(MCIAS).args(args).current_dir(dir.path()).env_clear().output().unwrap()
}

#[track_caller]
fn fits(lines: &[String], jwk: &str, says: &str) {
    let output = verify_file(lines, jwk);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    assert!(text(&output.stdout).starts_with(says), "{}", text(&output.stdout));
}

#[test]
fn the_untouched_log_verifies_and_rows_after_the_last_checkpoint_are_counted() {
    let instance = Instance::new();
    let rows: i64 = instance.one("SELECT count(*) FROM audit_log");
    let checkpoints: i64 = instance.one("SELECT count(*) FROM audit_checkpoints");
    assert_eq!(instance.ok(&["audit", "verify"]), format!("{rows} events and {checkpoints} checkpoints fit\n"));
    instance.tamper(sql("DELETE FROM audit_checkpoints WHERE last_id = 8"));
    let text = format!("{rows} events and {} checkpoints fit\n1 event not yet anchored\n", checkpoints - 1);
    assert_eq!(instance.ok(&["audit", "verify"]), text);
}

#[test]
fn tail_and_query_show_the_newest_last() {
    let instance = Instance::new();
    let rows: usize = instance.one::<i64>("SELECT count(*) FROM audit_log").try_into().unwrap();
    let all = instance.ok(&["audit", "tail"]);
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.len(), rows + 1);
    let column = lines[0].find("TYPE").unwrap();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["ID", "TIME", "TYPE", "VIA", "ACTOR", "TARGET", "IP", "DETAILS"]
    );
    assert!(lines[1].starts_with("1 ") && lines[1][column..].starts_with("schema_migrated "), "{}", lines[1]);
    assert!(lines[rows][column..].starts_with("role_granted "), "{}", lines[rows]);
    assert!(lines[rows].ends_with(r#"{"role":"reader"}"#) && lines[rows].contains(" two "), "{}", lines[rows]);
    let newest = instance.ok(&["audit", "tail", "--n", "1"]);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(newest.lines().skip(1).map(words).collect::<Vec<_>>(), [words(lines[rows])]);

    let json = instance.ok(&["audit", "tail", "--json", "-n", "2"]);
    let events: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [before, last] = events.as_slice() else { panic!("{json}") };
    assert_eq!((before["type"].as_str(), last["type"].as_str()), (Some("account_created"), Some("role_granted")));
    assert_eq!((last["target"]["username"].as_str(), last["via"].as_str()), (Some("two"), Some("mciasdb")));
    assert!(last["time"].as_str().unwrap().ends_with('Z') && last["hash"].as_str().unwrap().len() == 64);

    let query = |args: &[&str]| instance.ok(&[&["audit", "query", "--json"], args].concat()).lines().count();
    let two = last["target"]["id"].as_str().unwrap();
    assert_eq!((query(&["--account", "two"]), query(&["--account", two])), (2, 2));
    assert_eq!(query(&["--account", "TWO", "--type", "role_granted"]), 1);
    assert_eq!(query(&["--account", "one", "--type", "role_granted"]), 0);
    assert_eq!(query(&["--since", "2100-01-01T00:00:00Z"]), 0);
    assert_eq!(query(&["--since", "2020-01-01T00:00:00+02:00", "--type", "account_created", "--account", "one"]), 1);
    let cut = instance.run(&["audit", "query", "--n", "2", "--json"]);
    assert_eq!((text(&cut.stdout), cut.status.code()), (json.as_str(), Some(0)));
    assert!(text(&cut.stderr).contains("--n shows more"));

    // The log remembers whoever is deleted.
    instance.ok(&["account", "set-status", "--id", "two", "--status", "deleted"]);
    assert_eq!(query(&["--account", "two", "--type", "role_granted"]), 1);
    instance.fails(1, &["audit", "query", "--account", "nobody"], "no such account");
    instance.fails(2, &["audit", "query", "--type", "logins"], "--type must be a type of event: server_started, ");
    instance.fails(2, &["audit", "query", "--since", "yesterday"], "--since: a time must be RFC 3339");
    for n in ["0", "-1", "+1", "x", ""] {
        instance.fails(2, &["audit", "tail", "--n", n], "--n must be a number, 1 or more");
    }
}

/// Makes the chain anew from the event with the number `from` on.
fn rechain(db: &Connection, from: i64) {
    let mut previous: [u8; 32] =
        db.query_row("SELECT hash FROM audit_log WHERE id = ?1", [from - 1], |row| row.get(0)).unwrap_or([0; 32]);
    let mut statement = db
        .prepare(
            "SELECT id, event_time, event_type, via, actor_uuid, actor_name, target_uuid, target_name, ip_address,
                  details FROM audit_log WHERE id >= ?1 ORDER BY id",
        )
        .unwrap();
    let canonical = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(i64, String)> {
        let party = |uuid: usize| -> rusqlite::Result<Value> {
            let (id, name): (Option<String>, Option<String>) = (row.get(uuid)?, row.get(uuid + 1)?);
            Ok(id.map_or(Value::Null, |id| json!({"id": id, "username": name})))
        };
        let details: Value = serde_json::from_str(&row.get::<_, String>(9)?).unwrap();
        let event = json!({"id": row.get::<_, i64>(0)?, "time_ms": row.get::<_, i64>(1)?,
            "type": row.get::<_, String>(2)?, "via": row.get::<_, String>(3)?, "actor": party(4)?, "target": party(6)?,
            "ip": row.get::<_, Option<String>>(8)?, "details": details});
        Ok((row.get(0)?, event.to_string()))
    };
    let rows: Vec<(i64, String)> = statement.query_map([from], canonical).unwrap().map(Result::unwrap).collect();
    for (id, canonical) in rows {
        previous = chained(&previous, &canonical);
        db.execute("UPDATE audit_log SET hash = ?2 WHERE id = ?1", (id, previous)).unwrap();
    }
}

/// A key of somebody else's.
fn theirs() -> SigningKey {
    SigningKey::from_seed(&[9; 32]).unwrap()
}

/// Puts the hashes that the log has now into the checkpoints, and signs them with a key of somebody else's.
fn resign(db: &Connection, sign: bool) {
    db.execute("UPDATE audit_checkpoints SET hash = (SELECT hash FROM audit_log WHERE id = last_id)", []).unwrap();
    let mut statement = db.prepare("SELECT id, count, hash, time FROM audit_checkpoints").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
    for (id, count, hash, time) in rows.map(|row: rusqlite::Result<(i64, i64, [u8; 32], i64)>| row.unwrap()) {
        if sign {
            let signature = theirs().sign_bytes(&Checkpoint::message(count, &hash, time));
            db.execute("UPDATE audit_checkpoints SET signature = ?2 WHERE id = ?1", (id, signature)).unwrap();
        }
    }
}

/// What is done to the database, and what verification says to it.
type Attack = (&'static str, &'static str, Box<dyn Fn(&Connection)>);

fn sql(text: &'static str) -> Box<dyn Fn(&Connection)> {
    Box::new(move |db| db.execute_batch(text).unwrap())
}

/// Edits with SQL, then goes on as `more` says.
fn sql_and(text: &'static str, more: impl Fn(&Connection) + 'static) -> Box<dyn Fn(&Connection)> {
    Box::new(move |db| {
        db.execute_batch(text).unwrap();
        more(db);
    })
}

/// Edits of rows, with nothing done about the chain.
fn edits() -> Vec<Attack> {
    let changed = |id: i64| -> &'static str { ["event 3 was changed", "event 5 was changed"][usize::from(id == 5)] };
    vec![
        ("a detail", "event 8 was changed", sql(r#"UPDATE audit_log SET details = '{"role":"admin"}' WHERE id = 8"#)),
        (
            "a detail's writing",
            "event 8 isn't as this program writes it",
            sql(r#"UPDATE audit_log SET details = '{"role":"admin","role":"reader"}' WHERE id = 8"#),
        ),
        ("a time", changed(3), sql("UPDATE audit_log SET event_time = event_time + 1 WHERE id = 3")),
        ("a type", changed(3), sql("UPDATE audit_log SET event_type = 'login_ok' WHERE id = 3")),
        ("a type to none of ours", changed(3), sql("UPDATE audit_log SET event_type = 'x' WHERE id = 3")),
        ("the program", changed(3), sql("UPDATE audit_log SET via = 'server' WHERE id = 3")),
        ("an address", changed(3), sql("UPDATE audit_log SET ip_address = '10.0.0.1' WHERE id = 3")),
        ("a name", changed(5), sql("UPDATE audit_log SET target_name = 'else' WHERE id = 5")),
        ("a name's case", changed(5), sql("UPDATE audit_log SET target_name = upper(target_name) WHERE id = 5")),
        (
            "half a party away",
            "event 5 isn't as this program writes it",
            sql("UPDATE audit_log SET target_name = NULL WHERE id = 5"),
        ),
        (
            "who did it",
            changed(5),
            sql("UPDATE audit_log SET actor_uuid = target_uuid, actor_name = target_name WHERE id = 5"),
        ),
        ("a hash", changed(5), sql("UPDATE audit_log SET hash = zeroblob(32) WHERE id = 5")),
        (
            "a hash's length",
            "event 5 isn't as this program writes it",
            sql("UPDATE audit_log SET hash = x'00' WHERE id = 5"),
        ),
        (
            "one row and its hash",
            changed(5),
            sql_and(
                "CREATE TEMP TABLE before AS SELECT id, hash FROM audit_log WHERE id > 4;
                 UPDATE audit_log SET target_name = 'else' WHERE id = 4",
                |db| {
                    rechain(db, 4);
                    let rest = "UPDATE audit_log SET hash = (SELECT hash FROM before WHERE before.id = audit_log.id)
                                WHERE id > 4";
                    db.execute(rest, []).unwrap();
                },
            ),
        ),
    ]
}

/// Rows moved, dropped and added, with nothing done about the chain.
fn moves() -> Vec<Attack> {
    vec![
        (
            "two swapped",
            "event 5 was changed",
            sql("UPDATE audit_log SET id = -5 WHERE id = 5; UPDATE audit_log SET id = 5 WHERE id = 6;
                 UPDATE audit_log SET id = 6 WHERE id = -5"),
        ),
        ("one dropped", "event 5 is missing", sql("DELETE FROM audit_log WHERE id = 5")),
        ("some dropped", "events 3 to 6 are missing", sql("DELETE FROM audit_log WHERE id BETWEEN 3 AND 6")),
        ("the first dropped", "event 1 is missing", sql("DELETE FROM audit_log WHERE id = 1")),
        (
            "one dropped and the gap closed",
            "event 5 was changed",
            sql("DELETE FROM audit_log WHERE id = 5; UPDATE audit_log SET id = id - 1 WHERE id > 5"),
        ),
        ("the last dropped", "the log ends with event 7: it was cut short", sql("DELETE FROM audit_log WHERE id = 8")),
        ("all dropped", "there is neither an event nor an anchor", sql("DELETE FROM audit_log")),
        (
            "one put before the first",
            "event 0 stands where event 1 should",
            sql("INSERT INTO audit_log SELECT 0, event_time, event_type, via, NULL, NULL, NULL, NULL, NULL, details,
                 hash FROM audit_log WHERE id = 1"),
        ),
        (
            "one repeated at the end",
            "event 9 was changed",
            sql("INSERT INTO audit_log SELECT 9, event_time, event_type, via, NULL, NULL, NULL, NULL, NULL, details,
                 hash FROM audit_log WHERE id = 1"),
        ),
    ]
}

/// The chain made anew, and what is signed about it edited.
fn rechains() -> Vec<Attack> {
    const EDIT: &str = "UPDATE audit_log SET target_name = 'else' WHERE id = 5";
    vec![
        ("from an edit", "isn't of these events", sql_and(EDIT, |db| rechain(db, 5))),
        (
            "from the beginning",
            "isn't of these events",
            sql_and("UPDATE audit_log SET event_time = 5 WHERE id = 1", |db| rechain(db, 1)),
        ),
        (
            "without one",
            "isn't of these events",
            sql_and("DELETE FROM audit_log WHERE id = 5; UPDATE audit_log SET id = id - 1 WHERE id > 5", |db| {
                rechain(db, 5);
            }),
        ),
        (
            "with the checkpoints mended",
            "has a bad signature",
            sql_and(EDIT, |db| {
                rechain(db, 5);
                resign(db, false);
            }),
        ),
        (
            "signed with another key",
            "has a bad signature",
            sql_and(EDIT, |db| {
                rechain(db, 5);
                resign(db, true);
            }),
        ),
        (
            "signed, with the public key put in the place of ours",
            "isn't the one that is sealed in its row",
            sql_and(EDIT, |db| {
                rechain(db, 5);
                resign(db, true);
                let theirs = theirs().public();
                db.execute("UPDATE signing_keys SET public_key = ?1 WHERE purpose = 'audit'", [theirs]).unwrap();
            }),
        ),
        ("audit key gone", "none of the audit keys", sql("DELETE FROM signing_keys WHERE purpose = 'audit'")),
        (
            "a checkpoint's time",
            "checkpoint 2 has a bad signature",
            sql("UPDATE audit_checkpoints SET time = time + 1 WHERE id = 2"),
        ),
        (
            "a checkpoint's count",
            "checkpoint 2 is of 99 events, not of ",
            sql("UPDATE audit_checkpoints SET count = 99 WHERE id = 2"),
        ),
        (
            "a checkpoint's hash",
            "checkpoint 2 isn't of these events",
            sql("UPDATE audit_checkpoints SET hash = zeroblob(32) WHERE id = 2"),
        ),
        (
            "a checkpoint's signature cut",
            "checkpoint 2 isn't as this program writes it",
            sql("UPDATE audit_checkpoints SET signature = x'00' WHERE id = 2"),
        ),
        (
            "a checkpoint moved",
            "which one before it was past",
            sql("UPDATE audit_checkpoints SET id = 99 WHERE id = 2"),
        ),
        (
            "an old log without checkpoints",
            "older than a day and no checkpoint",
            sql_and(
                "DELETE FROM audit_checkpoints; UPDATE audit_log SET event_time = event_time - 90000000 WHERE id = 2",
                |db| rechain(db, 1),
            ),
        ),
        (
            "a checkpoint called the anchor of what was dropped",
            "the anchor wasn't made by archiving",
            sql("DELETE FROM audit_log WHERE id <= 6; DELETE FROM audit_checkpoints WHERE last_id < 6;
                 UPDATE audit_checkpoints SET anchor = 1 WHERE last_id = 6"),
        ),
    ]
}

#[test]
fn whatever_is_done_to_the_database_is_named() {
    // Each event from 6 on has a checkpoint of its own.
    let model = Instance::new();
    assert_eq!(model.one::<i64>("SELECT max(id) FROM audit_log"), 8, "what the table speaks of");
    model.ok(&["audit", "verify"]);
    for (name, what, attack) in edits().into_iter().chain(moves()).chain(rechains()) {
        let instance = model.copy();
        instance.tamper(attack);
        let output = instance.run(&["audit", "verify"]);
        assert!(text(&output.stderr).contains(what), "{name}: {output:?}");
        failed(&output, 1, "mcias: the audit log doesn't verify: ");
        // Nor does anything that has to be of a log that verifies.
        instance.fails(1, &["audit", "export"], "doesn't verify");
        instance.fails(1, &["audit", "export", "--out", "out"], "doesn't verify");
        instance.fails(1, &["audit", "archive", "--before", "2100-01-01T00:00:00Z", "--out", "out"], "doesn't verify");
        assert!(!instance.path("out").exists(), "{name}");
    }
}

#[test]
fn an_export_verifies_with_no_database_and_no_configuration() {
    let instance = Instance::new();
    let jwk = instance.ok(&["audit", "key"]);
    let key: Value = serde_json::from_str(&jwk).unwrap();
    assert_eq!((key["kty"].as_str(), key["crv"].as_str()), (Some("OKP"), Some("Ed25519")));
    assert_eq!(
        key["kid"].as_str(),
        Some(instance.one::<String>("SELECT kid FROM signing_keys WHERE purpose = 'audit'").as_str())
    );

    assert_eq!(instance.ok(&["audit", "export", "--out", "out.jsonl"]), "8\n");
    let out = fs::read_to_string(instance.path("out.jsonl")).unwrap();
    let (file, folder) = (fs::metadata(instance.path("out.jsonl")).unwrap(), fs::metadata(instance.0.path()).unwrap());
    assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o600, folder.uid(), folder.gid()));
    instance.fails(1, &["audit", "export", "--out", "out.jsonl"], "out.jsonl is there already; nothing was changed");
    assert_eq!(fs::read_to_string(instance.path("out.jsonl")).unwrap(), out);
    assert!(
        fs::read_dir(instance.0.path())
            .unwrap()
            .all(|entry| entry.unwrap().path().extension() != Some("partial".as_ref()))
    );

    let lines: Vec<String> = out.lines().map(str::to_owned).collect();
    fits(&lines, &jwk, "8 events fit; signed 2");
    fits(&instance.export(), &jwk, "8 events fit; signed 2");
    let members: Map<String, Value> = serde_json::from_str(&lines[0]).unwrap();
    let names: Vec<&str> = members.keys().map(String::as_str).collect();
    assert_eq!(names, ["actor", "details", "hash", "id", "ip", "target", "time_ms", "type", "via"]);
    let last: Value = serde_json::from_str(&lines[8]).unwrap();
    assert_eq!(last["checkpoint"]["count"], 8);
    assert_eq!(instance.ok(&["audit", "verify"]).lines().count(), 1, "the fresh checkpoint is the log's, too");

    // The key itself in the place of a file that holds it.
    let path = instance.path("out.jsonl");
    let args = ["db", "audit", "verify", "--file", path.to_str().unwrap(), "--jwk", jwk.trim()];
    let output = Command::new(MCIAS).args(args).env_clear().output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));

    for (args, code, what) in [
        (["audit", "verify"].as_slice(), 2, "--config FILE is missing; see 'mcias db audit verify --help'"),
        (&["audit", "verify", "--file", "f"], 2, "--jwk FILE is missing"),
        (&["audit", "verify", "--jwk", "k"], 2, "--file FILE is missing"),
        (&["audit", "verify", "--file", "/nowhere/f", "--jwk", jwk.trim()], 1, "/nowhere/f: No such file"),
        (&["audit", "verify", "--file", "f", "--jwk", "/nowhere/k"], 1, "/nowhere/k: No such file"),
        (&["audit", "verify", "--file", "f", "--jwk", "{}"], 1, "--jwk: not the JWK of an Ed25519 key"),
        (&["audit", "tail"], 2, "--config FILE is missing"),
    ] {
        failed(&Command::new(MCIAS).arg("db").args(args).output().unwrap(), code, what);
    }
}

/// Changes a member of an event's line and makes its hash fit again, but not those that follow.
fn edit(line: &str, change: impl FnOnce(&mut Value), previous: &str) -> String {
    let mut event: Value = serde_json::from_str(line).unwrap();
    change(&mut event);
    let mut members = event.as_object().unwrap().clone();
    members.remove("hash");
    let Ok(Line::Event(before)) = Line::parse(previous) else { panic!("{previous}") };
    let hash = chained(&before.hash, &Value::from(members.clone()).to_string());
    members.insert("hash".into(), hex(&hash).into());
    Value::from(members).to_string()
}

/// Changes an event's line and makes all that follow fit, but for the checkpoint.
fn rechain_lines(lines: &mut [String], at: usize, change: impl FnOnce(&mut Value)) {
    let mut change = Some(change);
    let last = lines.len() - 1;
    for n in at..last {
        let previous = lines[n - 1].clone();
        lines[n] = edit(
            &lines[n],
            |event| {
                if let Some(change) = change.take() {
                    change(event)
                }
            },
            &previous,
        );
    }
}

/// The last line, with the hash of the event before it, signed by `key`.
fn resign_lines(lines: &mut [String], key: &SigningKey, kid: Option<&str>) {
    let last = lines.len() - 1;
    let Ok(Line::Event(event)) = Line::parse(&lines[last - 1]) else { panic!("{}", lines[last - 1]) };
    let Ok(Line::Checkpoint(checkpoint)) = Line::parse(&lines[last]) else { panic!("{}", lines[last]) };
    lines[last] = Line::Checkpoint(Checkpoint {
        count: event.id,
        hash: event.hash,
        kid: kid.unwrap_or(key.kid()).to_owned(),
        signature: key.sign_bytes(&Checkpoint::message(event.id, &event.hash, checkpoint.time)),
        ..checkpoint
    })
    .text();
}

/// What is done to the lines of a file, and what verification says; `0-9` and `10` are events and checkpoint.
type Edit = (&'static str, &'static str, fn(&mut Vec<String>));

#[test]
fn whatever_is_done_to_a_file_is_named_with_its_line() {
    fn set_time(event: &mut Value) {
        event["time_ms"] = 5.into();
    }
    let edits: &[Edit] = &[
        ("edit", "line 4: event 4 was changed", |lines| {
            lines[3] = lines[3].replace("account_created", "account_deleted")
        }),
        ("edit a hash", "line 4: event 4 was changed", |lines| {
            lines[3] = lines[3].replace(&hash_of(&lines[3]), &"0".repeat(64));
        }),
        ("edit and re-hash", "line 5: event 5 was changed", |lines| lines[3] = edit(&lines[3], set_time, &lines[2])),
        ("swap two", "line 4: event 4 is missing", |lines| lines.swap(3, 4)),
        ("swap the last with the checkpoint", "line 8: the checkpoint is of 8 events, not of 7", |lines| {
            lines.swap(7, 8)
        }),
        ("drop one", "line 4: event 4 is missing", |lines| drop(lines.remove(3))),
        ("drop the first", "line 1: event 1 is missing", |lines| drop(lines.remove(0))),
        ("drop the first three", "line 1: events 1 to 3 are missing", |lines| drop(lines.drain(..3))),
        ("drop the last event", "line 8: the checkpoint is of 8 events, not of 7", |lines| drop(lines.remove(7))),
        ("drop all events", "line 1: the checkpoint is of 8 events, not of 0", |lines| drop(lines.drain(..8))),
        ("cut short", "line 8: the file ends without a checkpoint: it was cut short", |lines| drop(lines.pop())),
        ("cut shorter", "line 4: the file ends without a checkpoint: it was cut short", |lines| lines.truncate(4)),
        ("cut within a line", "line 9: not JSON", |lines| lines[8].truncate(40)),
        ("cut all", "the file is empty", |lines| lines.clear()),
        ("repeat one", "line 5: event 4 stands where event 5 should", |lines| lines.insert(4, lines[3].clone())),
        ("repeat the checkpoint", "line 10: stands after the checkpoint", |lines| lines.push(lines[8].clone())),
        ("put the checkpoint before an event", "line 4: the checkpoint is of 8 events, not of 3", |lines| {
            lines.insert(3, lines[8].clone())
        }),
        ("add an event", "line 10: stands after the checkpoint", |lines| lines.push(lines[7].clone())),
        ("put an empty line in", "line 4: not JSON", |lines| lines.insert(3, String::new())),
        ("put something after", "line 10: not JSON", |lines| lines.push("x".into())),
        ("re-chain", "line 9: the checkpoint isn't of these events", |lines| rechain_lines(lines, 3, set_time)),
        ("re-chain without one", "line 8: the checkpoint is of 8 events, not of 7", |lines| {
            lines.remove(3);
            rechain_lines(lines, 3, |_| ());
            for n in 3..7 {
                let previous = lines[n - 1].clone();
                lines[n] = edit(&lines[n], |event| event["id"] = (n as i64 + 1).into(), &previous);
            }
        }),
        ("re-chain and mend the checkpoint", "line 9: the checkpoint has a bad signature", |lines| {
            rechain_lines(lines, 3, set_time);
            let Ok(Line::Checkpoint(mut checkpoint)) = Line::parse(&lines[8]) else { panic!() };
            let Ok(Line::Event(last)) = Line::parse(&lines[7]) else { panic!() };
            checkpoint.hash = last.hash;
            lines[8] = Line::Checkpoint(checkpoint).text();
        }),
        ("re-chain and sign with a foreign key", "which is none of the audit keys", |lines| {
            rechain_lines(lines, 3, set_time);
            resign_lines(lines, &theirs(), None);
        }),
        (
            "re-chain and sign with a foreign key under the name of ours",
            "line 9: the checkpoint has a bad signature",
            |lines| {
                rechain_lines(lines, 3, set_time);
                let Ok(Line::Checkpoint(checkpoint)) = Line::parse(&lines[8]) else { panic!() };
                resign_lines(lines, &theirs(), Some(&checkpoint.kid));
            },
        ),
        ("edit the checkpoint's time", "line 9: the checkpoint has a bad signature", |lines| {
            let Ok(Line::Checkpoint(mut checkpoint)) = Line::parse(&lines[8]) else { panic!() };
            checkpoint.time += 1;
            lines[8] = Line::Checkpoint(checkpoint).text();
        }),
        ("call the checkpoint an anchor", "line 9: an anchor can only be the first line", |lines| {
            lines[8] = lines[8].replace("checkpoint", "anchor");
        }),
        ("a member twice", "line 4: member via is given twice", |lines| {
            lines[3] = lines[3].replace(r#""via":"#, r#""via":"server","via":"#);
        }),
        ("a member twice in the details", "line 8: member role is given twice", |lines| {
            lines[7] = lines[7].replace(r#""role":"#, r#""role":"admin","role":"#);
        }),
        ("a member more", "line 4: unknown member note", |lines| {
            lines[3] = lines[3].replace(r#""via":"#, r#""note":1,"via":"#)
        }),
        ("a member less", "line 4: member ip is missing", |lines| lines[3] = lines[3].replace(r#""ip":null,"#, "")),
        ("a fraction", "line 4: a number is not a whole one", |lines| {
            lines[3] = lines[3].replace(r#""id":4,"#, r#""id":4.0,"#)
        }),
        ("two lines in one", "line 4: not JSON", |lines| {
            let next = lines.remove(4);
            lines[3].push_str(&next);
        }),
    ];
    let instance = Instance::new();
    let (lines, jwk) = (instance.export(), instance.ok(&["audit", "key"]));
    assert_eq!(lines.len(), 9, "what the table speaks of");
    fits(&lines, &jwk, "8 events fit");
    for (name, what, attack) in edits {
        let mut edited = lines.clone();
        attack(&mut edited);
        assert_ne!(edited, lines, "{name}");
        let output = verify_file(&edited, &jwk);
        assert!(text(&output.stderr).contains(what), "{name}: {output:?}");
        failed(&output, 1, "mcias: f: ");
    }
    // Another instance's key, and one that vouches for a file of its own.
    let other = Instance(tempfile::tempdir().unwrap());
    assert!(Command::new(MCIAS).args(["init", "--dir"]).arg(other.0.path()).output().unwrap().status.success());
    failed(&verify_file(&lines, &other.ok(&["audit", "key"])), 1, "line 9: the checkpoint is signed by ");
    // What JSON leaves open is nobody's edit.
    let spaced: Vec<String> =
        lines.iter().map(|line| format!(" {}\r", line.replace(":", ": ").replace("Z: ", "Z:"))).collect();
    fits(&spaced, &jwk, "8 events fit");
}

fn hash_of(line: &str) -> String {
    let Ok(Line::Event(event)) = Line::parse(line) else { panic!("{line}") };
    hex(&event.hash)
}

const FUTURE: &str = "2100-01-01T00:00:00Z";

#[test]
fn archives_verify_and_so_does_what_they_leave() {
    let instance = Instance::new();
    let jwk = instance.ok(&["audit", "key"]);
    let archive = |before: &str, out: &str| instance.ok(&["audit", "archive", "--before", before, "--out", out]);
    let read = |out: &str| -> Vec<String> {
        fs::read_to_string(instance.path(out)).unwrap().lines().map(str::to_owned).collect()
    };

    instance.fails(
        1,
        &["audit", "archive", "--before", "2020-01-01T00:00:00Z", "--out", "a"],
        "no event is from before 2020",
    );
    instance.fails(2, &["audit", "archive", "--before", "soon", "--out", "a"], "--before: a time must be RFC 3339");
    instance.fails(2, &["audit", "archive", "--out", "a"], "--before TIME is missing");
    instance.fails(2, &["audit", "archive", "--before", FUTURE], "--out FILE is missing");
    instance.fails(1, &["audit", "archive", "--before", FUTURE, "--out", "nowhere/a"], "nowhere/a");
    fs::write(instance.path("there"), "mine").unwrap();
    instance.fails(
        1,
        &["audit", "archive", "--before", FUTURE, "--out", "there"],
        "there is there already; nothing was changed",
    );
    assert_eq!(
        (instance.one::<i64>("SELECT count(*) FROM audit_log"), fs::read(instance.path("there")).unwrap()),
        (8, b"mine".to_vec())
    );

    assert_eq!(archive(FUTURE, "first"), "8\n");
    assert_eq!(fs::metadata(instance.path("first")).unwrap().mode() & 0o7777, 0o600);
    fits(&read("first"), &jwk, "8 events fit; signed 2");
    assert_eq!(instance.ok(&["audit", "verify"]), "1 event and 1 checkpoint fit\n");
    assert_eq!(instance.ok(&["audit", "tail", "--json"]).lines().count(), 1);
    assert!(instance.connection().execute("DELETE FROM audit_log", []).is_err(), "the trigger is back");
    assert!(instance.connection().execute("UPDATE audit_log SET via = 'server'", []).is_err());

    // The log goes on.
    instance.ok(&["account", "create", "--username", "four", "--type", "system"]);
    instance.ok(&["audit", "verify"]);
    let export = instance.export();
    assert!(export[0].starts_with(r#"{"anchor":{"count":8,"#));
    assert_eq!(export[0].replace("anchor", "checkpoint"), read("first")[8], "one file begins where the other ends");
    fits(&export, &jwk, "2 events fit, after 8 that were archived before; signed 2");

    assert_eq!(archive(FUTURE, "second"), "2\n");
    fits(&read("second"), &jwk, "2 events fit, after 8 that were archived before; signed 2");
    assert_eq!(read("second")[0], export[0]);
    instance.ok(&["audit", "verify"]);
    let export = instance.export();
    assert_eq!(export[0].replace("anchor", "checkpoint"), read("second")[3]);
    fits(&export, &jwk, "1 event fit, after 10 that were archived before");
    assert_eq!(instance.one::<i64>("SELECT count(*) FROM audit_checkpoints WHERE anchor = 1"), 1);

    // Without its anchor, with another's, or with a checkpoint in its place.
    for (first, what) in [
        (None, "line 1: events 1 to 10 are missing"),
        (Some(read("second")[0].clone()), "line 2: events 9 to 10 are missing"),
        (Some(export[0].replace("\"time\":1", "\"time\":2")), "line 1: the anchor has a bad signature"),
        (Some(export[0].replace("\"count\":10", "\"count\":9")), "line 1: the anchor has a bad signature"),
        (Some(export[0].replace("anchor", "checkpoint")), "line 1: the checkpoint is of 10 events, not of 0"),
    ] {
        let edited: Vec<String> = first.into_iter().chain(export[1..].iter().cloned()).collect();
        failed(&verify_file(&edited, &jwk), 1, what);
    }
    for (sql, what) in [
        ("DELETE FROM audit_checkpoints WHERE anchor = 1", "events 1 to 10 are missing"),
        ("UPDATE audit_log SET event_time = 1 WHERE id = 11", "event 11 was changed"),
        ("DELETE FROM audit_log", "it was cut short"),
    ] {
        let copy = instance.copy();
        copy.ok(&["audit", "verify"]);
        copy.tamper(|db| db.execute_batch(sql).unwrap());
        copy.fails(1, &["audit", "verify"], what);
    }
}

#[test]
fn after_kill_9_there_are_all_events_or_the_anchor_with_the_whole_file() {
    let model = Instance::new();
    // Enough events that it takes a while.
    let config = mcias::config::load(&model.path("mcias.conf")).unwrap();
    let store = mcias::store::Store::open(&config.database.path).unwrap();
    let occasion = mcias::model::audit::Occasion {
        time: mcias::clock::Clock::System.millis(),
        via: mcias::model::audit::Via::Server,
        ip: None,
    };
    let event = || mcias::model::audit::NewEvent::of(mcias::model::audit::EventType::ServerStarted);
    store.write(move |tx| (0..1500).try_for_each(|_| tx.append(event(), occasion))).unwrap();
    drop(store);
    std::thread::sleep(Duration::from_millis(1100)); // so that no run waits for a second of its own
    let jwk = model.ok(&["audit", "key"]);
    let archive = ["audit", "archive", "--before", FUTURE, "--out", "out"];

    let whole = model.copy();
    let begun = Instant::now();
    whole.ok(&archive);
    let (took, runs) = (begun.elapsed(), 16);
    let mut gone = 0;
    for run in 0..=runs {
        let instance = model.copy();
        let mut child = instance.command(&archive).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(took * run / runs);
        child.kill().unwrap();
        child.wait().unwrap();

        instance.ok(&["audit", "verify"]);
        let anchors: i64 = instance.one("SELECT count(*) FROM audit_checkpoints WHERE anchor = 1");
        let rows: i64 = instance.one("SELECT count(*) FROM audit_log");
        assert_eq!(rows, if anchors == 0 { 1508 } else { 1 }, "after {run} of {runs}");
        gone += anchors;
        if instance.path("out").exists() {
            let lines: Vec<String> =
                fs::read_to_string(instance.path("out")).unwrap().lines().map(str::to_owned).collect();
            fits(&lines, &jwk, "1508 events fit");
        } else {
            assert_eq!(anchors, 0, "events went before the file was there");
        }
        if anchors == 0 {
            assert_eq!(instance.ok(&["audit", "archive", "--before", FUTURE, "--out", "again"]), "1508\n");
        }
    }
    println!("{gone} of {} runs had come to the anchor", runs + 1);
}
