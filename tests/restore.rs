//! `mciasdb restore`: nothing live is touched before all is well, an old backup brings nothing back to life, and
//! whenever it is killed there is one whole database.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mcias::crypto::totp;
use mcias::model::time::Timestamp;
use rusqlite::Connection;
use serde_json::json;
use support::{Answer, Client, Instance, Mount, Server, now, rfc3339, tree};

fn kids(server: &Server) -> Vec<String> {
    let jwks = server.client().get("/.well-known/jwks.json").ok(200);
    let keys = jwks["keys"].as_array().unwrap();
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

fn code(secret: &[u8], step: i64) -> String {
    String::from_utf8(totp::code_at(secret, step).as_bytes().to_vec()).unwrap()
}

fn log_in(server: &Server, user: &Client, code: Option<&str>) -> Answer {
    let mut body = json!({"username": user.username(), "password": user.password()});
    if let Some(code) = code {
        body["totp_code"] = code.into();
    }
    server.client().post("/v1/auth/login").json(body).send()
}

/// A server with something of everything, and a backup of it, `b.db`; what was done afterwards isn't in that.
struct Day {
    server: Server,
    /// Revoked since the backup.
    revoked: Client,
    /// Revoked before it.
    revoked_before: Client,
    /// Live still.
    live: Client,
    /// Issued since.
    later: Client,
    robot: Client,
    codes: Client,
    secret: [u8; 20],
    backup_time: i64,
}

impl Day {
    fn new() -> Self {
        let server = Server::start();
        let admin = server.admin();
        let alice = server.human("alice");
        admin.put(&format!("/v1/accounts/{}/roles", alice.id())).json(json!({"roles": ["reader"]})).ok(204);
        let (revoked_before, revoked, live) = (alice.again(), alice.again(), alice.again());
        revoked_before.post("/v1/auth/logout").ok(204);
        let robot = server.system("robot");
        let address = json!({"host": "db", "port": 5432, "database": "app", "username": "app", "password": "a secret"});
        admin.put(&format!("/v1/accounts/{}/pgcreds", robot.id())).json(address).ok(204);
        let codes = server.human("codes");
        let secret = server.turn_totp_on(codes.id());
        // An enrolment that waits to be confirmed.
        let enroll = json!({"password": alice.password()});
        alice.post("/v1/auth/totp/enroll").json(enroll).ok(200);
        let before = now();
        server.db(&["backup", "--out", "b.db"]);
        let backup_time: i64 = {
            let connection = Connection::open(server.path("b.db")).unwrap();
            connection.query_row("SELECT made_at FROM backup_seal", [], |row| row.get(0)).unwrap()
        };
        assert!((before..=now()).contains(&backup_time));
        revoked.post("/v1/auth/logout").ok(204);
        let later = alice.again();
        server.human("afterwards");
        Self { server, revoked, revoked_before, live, later, robot, codes, secret, backup_time }
    }
}

#[test]
fn an_old_backup_brings_nothing_back_to_life() {
    let Day { mut server, revoked, revoked_before, live, later, robot, codes, secret, backup_time } = Day::new();
    let old_kids = kids(&server);
    assert!([&live, &later, &robot].iter().all(|client| client.is_good()));
    server.stop();
    let kept = server.db(&["restore", "--from", "b.db", "--force"]);

    // Before anybody logs in.
    let events = server.is_sound();
    let kinds: Vec<&str> = events.iter().rev().take(4).map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["database_restored", "tokens_revoked", "signing_key_created", "signing_key_revoked"]);
    let last = &events[events.len() - 1];
    assert_eq!((last.details.clone(), last.via.as_str()), (json!({"backup_time": rfc3339(backup_time)}), "mciasdb"));
    assert!(last.time_ms / 1000 >= backup_time && last.time_ms / 1000 <= now());
    assert_eq!(server.query_one::<i64>("SELECT max(last_id) FROM audit_checkpoints", []), last.id);
    let reasons = server.rows("SELECT jti, revoke_reason FROM token_revocation", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?))
    });
    for (jti, reason) in &reasons {
        let expected = if *jti == revoked_before.jti() { "logout" } else { "restored" };
        assert_eq!(reason.as_deref(), Some(expected));
    }
    assert!(reasons.len() >= 5);
    assert_eq!(server.query_one::<Vec<u8>>("SELECT value FROM server_config WHERE key = 'epoch'", []), b"2");
    let pending = "SELECT count(*) FROM accounts WHERE coalesce(totp_pending_enc, totp_pending_at) IS NOT NULL";
    assert_eq!(server.query_one::<i64>(pending, []), 0);
    assert_eq!(server.query_one::<i64>("SELECT count(*) FROM sqlite_schema WHERE name = 'backup_seal'", []), 0);
    let steps: Vec<i64> = server.query("SELECT DISTINCT totp_last_step FROM accounts", []);
    let [step] = steps.as_slice() else { panic!("{steps:?}") };
    let next = totp::step_at(Timestamp::new(now())) + 1;
    assert!((next - 1..=next).contains(step));
    server.db(&["verify"]);
    server.db(&["audit", "verify"]);

    server.start_again();
    for (what, client) in [("revoked", &revoked), ("live", &live), ("later", &later), ("robot", &robot)] {
        assert!(!client.is_good(), "{what}");
        client.get("/v1/auth/me").expect(401, "unauthorized");
    }
    let new_kids = kids(&server);
    assert!(new_kids.len() == 1 && !old_kids.contains(&new_kids[0]), "{old_kids:?} {new_kids:?}");
    assert_eq!(server.client().get("/v1/keys/public").ok(200)["kid"], new_kids[0].as_str());

    // Every code that is good at the moment counts as used, also the next step's; without that it would open.
    for step in [step - 2, step - 1, *step] {
        assert_eq!(log_in(&server, &codes, Some(&code(&secret, step))).status, 401);
    }
    server.database().execute("UPDATE accounts SET totp_last_step = totp_last_step - 1", []).unwrap();
    assert_eq!(log_in(&server, &codes, Some(&code(&secret, *step))).status, 200);

    // What was in it is there, and what wasn't isn't.
    let alice = server.login("alice", live.password());
    assert_eq!(alice.get("/v1/auth/me").ok(200)["roles"], json!(["reader"]));
    let admin = server.login("admin", &server.admin_password());
    let pgcreds = admin.get(&format!("/v1/accounts/{}/pgcreds", robot.id())).ok(200);
    assert_eq!((&pgcreds["host"], &pgcreds["password"]), (&json!("db"), &json!("a secret")));
    server.client().try_login("afterwards", "the passphrase of afterwards").expect(401, "unauthorized");
    admin.post("/v1/token/issue").json(json!({"account_id": robot.id()})).ok(201);

    // The former database, whole.
    let former = Connection::open(kept.trim_end()).unwrap();
    let there: i64 =
        former.query_row("SELECT count(*) FROM accounts WHERE username = 'afterwards'", [], |row| row.get(0)).unwrap();
    assert_eq!(there, 1);
    server.stop();
    server.is_sound();
}

#[test]
fn with_keep_tokens_all_that_counted_counts_again_and_it_warns() {
    let Day { mut server, revoked, revoked_before, live, later, robot, .. } = Day::new();
    let old_kids = kids(&server);
    server.stop();
    let (stdout, stderr) = server.db_says(&["restore", "--from", "b.db", "--force", "--keep-tokens"]);
    assert!(stdout.contains(".replaced-") && stderr.contains("--keep-tokens"), "{stdout} {stderr}");
    assert_eq!(server.last_event().kind, "database_restored");
    server.start_again();
    assert!([&live, &robot, &revoked].iter().all(|client| client.is_good()));
    assert!(!revoked_before.is_good() && !later.is_good());
    assert_eq!(kids(&server), old_kids);
    server.stop();
    server.is_sound();
}

/// Everything there is but the lock file.
fn all(instance: &Instance) -> std::collections::BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut all = tree(instance.folder());
    all.retain(|path, _| path.extension().is_none_or(|end| end != "lock"));
    all
}

#[test]
fn what_is_refused_changes_nothing() {
    let Day { mut server, live, .. } = Day::new();
    server.db_fails(1, &["restore", "--from", "b.db", "--force"], &["another server is running on this database"]);
    assert!(live.is_good());
    server.stop();

    let backup = server.read("b.db");
    let mut bad = backup.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    server.write("bad.db", &bad);
    let other = Instance::new();
    other.db(&["backup", "--out", "b.db"]);
    fs::copy(other.path("b.db"), server.path("others.db")).unwrap();
    server.write("newer.db", &backup);
    Connection::open(server.path("newer.db")).unwrap().pragma_update(None, "user_version", 99).unwrap();
    // It was sound when it was sealed, but the database wasn't.
    let before = server.read("mcias.db");
    server.sql("UPDATE pg_credentials SET pg_host = 'elsewhere'", []);
    let words = &["unsound.db is made, but what is in it doesn't verify", "pg_credentials.pg_password_enc"];
    server.db_fails(1, &["backup", "--out", "unsound.db"], words);
    server.write("mcias.db", before);

    let before = all(&server);
    server.db_fails(1, &["restore", "--from", "b.db"], &["mcias.db is there already; --force replaces it"]);
    for (from, words) in [
        ("bad.db", ["bad.db", "nothing was changed"]),
        ("others.db", ["others.db", "the master key does not open this database"]),
        ("newer.db", ["newer.db", "newer than this program's"]),
        ("unsound.db", ["unsound.db", "pg_credentials.pg_password_enc"]),
        ("mcias.db", ["mcias.db", "no backup"]),
        ("mcias.conf", ["mcias.conf", "not a database"]),
        ("none.db", ["none.db", "No such file"]),
        (".", [".", "is no file"]),
    ] {
        server.db_fails(1, &["restore", "--from", from, "--force"], &words);
        assert!(all(&server) == before, "{from}");
    }
    // Somebody has the database open: not one of us, who would hold another lock.
    let connection = server.database();
    let count: i64 = connection.query_row("SELECT count(*) FROM accounts", [], |row| row.get(0)).unwrap();
    server.db_fails(1, &["restore", "--from", "b.db", "--force"], &["another process has the database open"]);
    assert_eq!(connection.query_row("SELECT count(*) FROM accounts", [], |row| row.get::<_, i64>(0)).unwrap(), count);
    drop(connection);
    server.is_sound();
    server.start_again();
    assert!(live.is_good());
}

#[test]
fn while_it_runs_no_server_starts_and_whoever_of_us_has_it_open_is_waited_for() {
    let Day { mut server, .. } = Day::new();
    server.stop();
    // One of us, in the middle of its work: it prints more than a pipe takes, and nobody reads.
    server.sql(
        "WITH RECURSIVE n (n) AS (VALUES (0) UNION ALL SELECT n + 1 FROM n WHERE n < 999)
         INSERT INTO accounts (uuid, username, account_type, status, created_at, updated_at)
         SELECT printf('0194e2f0-7d3a-7c1e-9b52-%012d', n), printf('n%d', n), 'system', 'active', 0, 0 FROM n",
        [],
    );
    let mut export = server.mciasdb(&["account", "list", "--json"]);
    let mut export = export.stdout(std::process::Stdio::piped()).spawn().unwrap();
    // As soon as one byte is there it has the database open.
    let mut stdout = export.stdout.take().unwrap();
    std::io::Read::read_exact(&mut stdout, &mut [0]).unwrap();
    let accounts = server.query_one::<i64>("SELECT count(*) FROM accounts", []);
    assert!(export.try_wait().unwrap().is_none(), "it waits for a reader");
    server.db_fails(
        1,
        &["restore", "--from", "b.db", "--force"],
        &["has the database, or one in the same folder, open"],
    );
    assert_eq!(server.query_one::<i64>("SELECT count(*) FROM accounts", []), accounts);
    drop(stdout);
    export.wait().unwrap();

    // The lock that a server holds: restore takes the same one, for as long as it runs.
    let lock = fs::File::open(server.path("mcias.db.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    server.db_fails(1, &["restore", "--from", "b.db", "--force"], &["another server is running"]);
    drop(lock);
    server.db(&["restore", "--from", "b.db", "--force"]);
}

#[test]
fn it_makes_a_database_where_there_is_none_and_mends_one_that_is_broken() {
    let Day { mut server, live, .. } = Day::new();
    server.stop();
    for end in ["", "-wal", "-shm", ".lock"] {
        let _ = fs::remove_file(server.path(&format!("mcias.db{end}")));
    }
    assert_eq!(server.db(&["restore", "--from", "b.db"]), "");
    server.db(&["verify"]);
    server.start_again();
    server.login("alice", live.password());
    server.stop();

    server.write("mcias.db", "this is no database any more".repeat(500));
    let kept = server.db(&["restore", "--from", "b.db", "--force"]);
    assert!(fs::read(kept.trim_end()).unwrap().starts_with(b"this is no database"));
    server.db(&["verify"]);

    // A link stays one.
    fs::create_dir(server.path("elsewhere")).unwrap();
    fs::rename(server.path("mcias.db"), server.path("elsewhere/real.db")).unwrap();
    std::os::unix::fs::symlink("elsewhere/real.db", server.path("mcias.db")).unwrap();
    let kept = server.db(&["restore", "--from", "b.db", "--force"]);
    assert!(kept.contains("elsewhere/real.db.replaced-"), "{kept}");
    assert!(server.path("mcias.db").symlink_metadata().unwrap().is_symlink());
    server.start_again();
    server.login("alice", live.password());
}

#[test]
fn what_it_makes_belongs_to_whom_the_folder_belongs_to() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: not root here");
        assert!(std::env::var_os("CI").is_none(), "in CI everything runs");
        return;
    }
    let instance = Instance::new();
    instance.db(&["backup", "--out", "b.db"]);
    fs::remove_file(instance.path("mcias.db")).unwrap();
    fs::set_permissions(instance.folder(), fs::Permissions::from_mode(0o750)).unwrap();
    std::os::unix::fs::chown(instance.folder(), Some(12345), Some(54321)).unwrap();
    instance.db(&["restore", "--from", "b.db"]);
    instance.db(&["restore", "--from", "b.db", "--force"]);
    let made = fs::read_dir(instance.folder()).unwrap().map(|entry| entry.unwrap().path());
    let made: Vec<PathBuf> = made.filter(|path| path.to_string_lossy().contains("mcias.db")).collect();
    assert_eq!(made.len(), 3, "{made:?}");
    for path in made {
        let file = path.metadata().unwrap();
        assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o600, 12345, 54321), "{}", path.display());
    }
}

#[test]
fn on_a_full_disk_it_fails_and_the_database_is_as_before() {
    let mut instance = Instance::new();
    instance.db(&["backup", "--out", "b.db"]);
    let Some(disk) = Mount::new(instance.path("disk"), "1m") else { return };
    fs::copy(instance.path("mcias.db"), disk.path().join("mcias.db")).unwrap();
    fs::remove_file(instance.path("mcias.db")).unwrap();
    instance.set("database", "path", "\"disk/mcias.db\"");
    // The lock file is there, as after any run of a server; then nothing more fits.
    fs::write(disk.path().join("mcias.db.lock"), "").unwrap();
    disk.fill();
    // More and more room, so that it fails in the middle as well; in pages of the database.
    let mut failed = 0;
    for more in [0, 1, 8, 12, 8, 8, 8, 8, 100] {
        let filler = fs::OpenOptions::new().write(true).open(disk.path().join("filler")).unwrap();
        filler.set_len(filler.metadata().unwrap().len() - more * 4096).unwrap();
        let before = tree(disk.path());
        let output = instance.mciasdb(&["restore", "--from", "b.db", "--force"]).output().unwrap();
        if output.status.success() {
            break;
        }
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        // SQLite calls it an I/O error where there is no room for the index of its log.
        let told = ["No space left", "full", "I/O error"].iter().any(|words| stderr.contains(words));
        assert!(told && stderr.contains("nothing was changed"), "{failed}: {stderr}");
        assert!(tree(disk.path()) == before, "{failed}: something changed");
        failed += 1;
    }
    assert!((4..=8).contains(&failed), "it failed {failed} times, and then there was room");
    fs::remove_file(disk.path().join("filler")).unwrap();
    instance.db(&["verify"]);
}

#[test]
fn a_clock_that_is_behind_the_backup_is_named() {
    let instance = Instance::new();
    // As if the backup came from a week ahead.
    let ahead = format!("{}", (now() + 7 * 86_400) * 1000);
    let connection = instance.database();
    let event = "INSERT INTO audit_log (id, event_time, event_type, via, details, hash)
        VALUES ((SELECT max(id) + 1 FROM audit_log), ?1, 'server_started', 'server', '{}', zeroblob(32))";
    connection.execute(event, [&ahead]).unwrap();
    let mut last = instance.events();
    let (added, before) = (last.pop().unwrap(), last.pop().unwrap());
    connection
        .execute_batch("DROP TRIGGER audit_log_no_update")
        .and_then(|()| {
            connection
                .execute("UPDATE audit_log SET hash = ?1 WHERE id = ?2", (added.chained(&before.hash), added.id))
                .map(drop)
        })
        .and_then(|()| {
            connection.execute_batch(
                "CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log
                     BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END",
            )
        })
        .unwrap();
    drop(connection);
    instance.db(&["backup", "--out", "b.db"]);
    let before = all(&instance);
    instance.db_fails(1, &["restore", "--from", "b.db", "--force"], &["the clock says", "set the clock first"]);
    assert!(all(&instance) == before);
}

/// How often it is killed; `MCIAS_TEST_KILLS` sets another number.
fn kills() -> u32 {
    std::env::var("MCIAS_TEST_KILLS").map_or(40, |text| text.parse().expect("MCIAS_TEST_KILLS is a number"))
}

#[test]
fn killed_at_any_moment_it_leaves_the_former_database_or_the_new_one() {
    let Day { mut server, .. } = Day::new();
    // What was done last is in the write-ahead log only.
    server.kill();
    assert!(server.path("mcias.db-wal").metadata().unwrap().len() > 0);
    let saved: Vec<(&str, Vec<u8>)> =
        ["mcias.db", "mcias.db-wal"].into_iter().map(|name| (name, server.read(name))).collect();
    let kept = |server: &Server| -> Vec<PathBuf> {
        let there = fs::read_dir(server.folder()).unwrap().map(|entry| entry.unwrap().path());
        there.filter(|path| path.to_string_lossy().contains(".replaced-")).collect()
    };
    let put_back = |server: &Server| {
        kept(server).iter().for_each(|path| fs::remove_file(path).unwrap());
        for end in ["", "-wal", "-shm", "-journal"] {
            let _ = fs::remove_file(server.path(&format!("mcias.db{end}")));
        }
        saved.iter().for_each(|(name, bytes)| server.write(name, bytes));
    };
    let restore = ["restore", "--from", "b.db", "--force"];
    let is_there = |name: &str| server.path(name).symlink_metadata().is_ok();
    // What shows from outside how far it has come, in this order.
    let steps: [&dyn Fn() -> bool; 7] = [
        &|| true,
        &|| is_there("mcias.db.restoring"),
        &|| is_there("mcias.db.restoring/mcias.db"),
        &|| is_there("mcias.db.restoring/mcias.db-wal"),
        &|| !is_there("mcias.db-wal"),
        &|| !kept(&server).is_empty(),
        &|| !kept(&server).is_empty() && !is_there("mcias.db.restoring/mcias.db"),
    ];

    let (mut formers, mut news) = (0, 0);
    let kills = kills();
    for n in 0..kills {
        let mut child = server.mciasdb(&restore).stdout(std::process::Stdio::null()).spawn().unwrap();
        let reached = steps[n as usize % steps.len()];
        while !reached() && child.try_wait().unwrap().is_none() {
            std::hint::spin_loop();
        }
        // And a little later each time.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_micros(400) * (n / steps.len() as u32) {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let is_new = {
            let events = server.is_sound();
            let restored = events.iter().any(|event| event.kind == "database_restored");
            let is_former =
                server.query_one::<i64>("SELECT count(*) FROM accounts WHERE username = 'afterwards'", []) == 1;
            assert!(restored != is_former, "{n}: neither the one nor the other");
            restored
        };
        assert!(server.db(&["verify"]).starts_with("sound: "), "{n}");
        if is_new {
            news += 1;
            let kept = kept(&server);
            let has_all = kept.iter().any(|path| {
                let sql = "SELECT count(*) FROM accounts WHERE username = 'afterwards'";
                Connection::open(path).unwrap().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() == 1
            });
            assert!(has_all, "{n}: the former database isn't kept: {kept:?}");
            put_back(&server);
        } else {
            formers += 1;
            // Sometimes from where it stands, with whatever was left.
            if n % 3 != 0 {
                put_back(&server);
            }
        }
    }
    eprintln!("{kills} kills: {formers} times the former database, {news} times the new one");
    server.db(&restore);
    let left: Vec<String> = fs::read_dir(server.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("mcias.db.") && !name.ends_with(".lock"))
        .collect();
    let inodes = |name: &String| server.path(name).metadata().unwrap().ino();
    assert!(left.iter().all(|name| name.contains(".replaced-")), "{left:?}");
    let own = server.path("mcias.db").metadata().unwrap().ino();
    assert!(left.iter().all(|name| inodes(name) != own), "{left:?}");
    server.start_again();
    server.client().get("/v1/ready").ok(200);
}
