//! `mciasdb` on the real program: what each command does and prints, what it refuses and how, alone and beside a server
//! that is asked all the time. What the audit commands find in a log that was tampered with is in `tests/audit.rs`, and
//! what becomes of a command that is killed in `tests/kill.rs`.

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use support::{Instance, Server, Terminal, at_once, now};

#[path = "../src/testing.rs"]
mod testing;

const NOBODY: &str = "0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11";
const PASSWORD: &str = "the passphrase of somebody";

/// Every command, with all that it needs to get as far as the database, and none that changes anything without an
/// account.
const COMMANDS: &[&[&str]] = &[
    &["account", "list"],
    &["account", "get", "--id", NOBODY],
    &["account", "create", "--username", "new", "--type", "system"],
    &["account", "set-password", "--id", NOBODY, "--password-stdin"],
    &["account", "set-status", "--id", NOBODY, "--status", "active"],
    &["account", "reset-totp", "--id", NOBODY],
    &["role", "list", "--id", NOBODY],
    &["role", "grant", "--id", NOBODY, "--role", "editor"],
    &["role", "revoke", "--id", NOBODY, "--role", "editor"],
    &["token", "list", "--id", NOBODY],
    &["token", "revoke", "--jti", NOBODY],
    &["token", "revoke-all", "--id", NOBODY],
    &["prune", "tokens"],
    &["audit", "tail"],
    &["audit", "query"],
    &["audit", "verify"],
    &["audit", "export"],
    &["audit", "archive", "--before", "2020-01-01T00:00:00Z", "--out", "out"],
    &["audit", "key"],
    &["pgcreds", "get", "--id", NOBODY],
    &["pgcreds", "set", "--id", NOBODY, "--host", "h", "--port", "1", "--db", "d", "--user", "u", "--password-stdin"],
    &["pgcreds", "delete", "--id", NOBODY],
    &["keys", "list"],
    &["keys", "rotate"],
    &["keys", "revoke", "--kid", "nobody", "--yes"],
    &["rekey", "--new-keyfile", "new.key"],
    &["clock", "accept"],
];

fn events(instance: &Instance) -> usize {
    instance.query_one::<i64>("SELECT count(*) FROM audit_log", []) as usize
}

/// Runs what changes something, and insists on exactly these events of it: tagged, by nobody, from nowhere, and signed.
#[track_caller]
fn writes<T>(instance: &Instance, kinds: &[&str], work: impl FnOnce() -> T) -> T {
    let before = events(instance);
    let done = work();
    let since = instance.events_since(before);
    let found: Vec<&str> = since.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(found, kinds);
    assert!(since.iter().all(|e| e.via == "mciasdb" && e.actor.is_null() && e.ip.is_none()), "{since:?}");
    let signed = instance.query_one::<i64>("SELECT max(count) FROM audit_checkpoints", []);
    assert_eq!(signed as usize, before + kinds.len(), "the newest event is signed");
    done
}

#[track_caller]
fn json_of(instance: &Instance, arguments: &[&str]) -> Value {
    serde_json::from_str(&instance.db(arguments)).unwrap()
}

/// A command's table, word by word.
#[track_caller]
fn table(instance: &Instance, arguments: &[&str]) -> Vec<Vec<String>> {
    instance.db(arguments).lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn help_lists_every_command_and_each_has_its_own() {
    let instance = Instance::new();
    let all = instance.run(&["db", "--help"]);
    assert!(all.status.success() && all.stderr.is_empty());
    let all = String::from_utf8(all.stdout).unwrap();
    for command in COMMANDS.iter().chain(&[&["schema", "verify"][..], &["schema", "migrate"]]) {
        let words = if command[0] == "rekey" { &command[..1] } else { &command[..2] };
        assert!(all.contains(&words.join(" ")), "{words:?}");
        let own = instance.run(&[&["db"], words, &["--help"]].concat());
        let text = String::from_utf8(own.stdout).unwrap();
        assert!(
            own.status.success() && own.stderr.is_empty() && text.contains("--config FILE") && text.contains("Example"),
            "{text}"
        );
    }
}

#[test]
fn what_is_missing_or_wrong_is_named_and_nothing_is_touched() {
    let instance = Instance::new();
    let before = instance.read("mcias.db");
    for (command, words) in [
        (&["account", "get"][..], &["--id"][..]),
        (&["account", "create", "--username", "x"], &["--type"]),
        (&["account", "create", "--type", "human"], &["--username"]),
        (&["account", "create", "--username", "x", "--type", "robot"], &["--type", "human", "system"]),
        (&["account", "create", "--username", "no spaces", "--type", "system"], &["--username"]),
        (&["account", "create", "--username", "x", "--type", "system", "--password-stdin"], &["--password-stdin"]),
        (&["account", "create", "--username", "x", "--type", "human", "--password", "y"], &["--password"]),
        (&["account", "set-password"], &["--id"]),
        (&["account", "set-password", "--id", "admin", "--password", "y"], &["--password"]),
        (&["account", "set-status", "--id", "admin"], &["--status"]),
        (&["account", "set-status", "--id", "admin", "--status", "gone"], &["--status", "active", "suspended"]),
        (&["account", "reset-totp"], &["--id"]),
        (&["role", "list"], &["--id"]),
        (&["role", "grant", "--id", "admin"], &["--role"]),
        (&["role", "grant", "--id", "admin", "--role", "no spaces"], &["--role"]),
        (&["role", "revoke", "--role", "admin"], &["--id"]),
        (&["token", "list"], &["--id"]),
        (&["token", "revoke"], &["--jti"]),
        (&["token", "revoke", "--jti", "17"], &["--jti", "UUID"]),
        (&["token", "revoke-all"], &["--id"]),
        (&["audit", "tail", "--n", "0"], &["--n"]),
        (&["audit", "tail", "--n", "many"], &["--n"]),
        (&["audit", "query", "--type", "login"], &["--type", "login_ok"]),
        (&["audit", "query", "--since", "yesterday"], &["--since"]),
        (&["audit", "archive", "--before", "2020-01-01T00:00:00Z"], &["--out"]),
        (&["pgcreds", "get"], &["--id"]),
        (&["pgcreds", "set", "--id", "a", "--host", "h", "--port", "1", "--db", "d"], &["--user"]),
        (&["pgcreds", "set", "--id", "a", "--host", "h", "--port", "0", "--db", "d", "--user", "u"], &["port"]),
        (&["pgcreds", "set", "--id", "a", "--host", "h", "--port", "x", "--db", "d", "--user", "u"], &["--port"]),
        (&["keys", "rotate", "--now", "--soak", "1s"], &["--now", "--soak"]),
        (&["keys", "rotate", "--soak", "soon"], &["--soak"]),
        (&["keys", "rotate", "--audit", "--soak", "1s"], &["--audit", "--soak"]),
        (&["keys", "revoke", "--yes"], &["--kid"]),
        (&["keys", "revoke", "--kid", "x"], &["--yes"]),
        (&["rekey"], &["--new-keyfile", "--new-passphrase-env", "--new-passphrase-file"]),
        (&["rekey", "--new-keyfile", "a", "--new-passphrase-file", "b"], &["exactly one"]),
        (&["account", "list", "--id", "admin"], &["--id"]),
        (&["account", "drop"], &["account"]),
        (&["nonsense"], &["nonsense"]),
    ] {
        instance.db_fails(2, command, words);
    }
    let none = instance.run(&["db", "account", "list"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8(none.stderr).unwrap().contains("--config"));
    assert!(instance.read("mcias.db") == before, "the database was changed");
}

#[test]
fn an_account_a_token_or_a_key_that_is_not_there_is_said_and_changes_nothing() {
    let instance = Instance::new();
    let before = events(&instance);
    for command in COMMANDS.iter().filter(|command| command.contains(&NOBODY) && command[0] != "token") {
        for id in [NOBODY, "nobody", "no spaces"] {
            let command: Vec<&str> = command.iter().map(|word| if *word == NOBODY { id } else { word }).collect();
            instance.db_fails_with(PASSWORD, 1, &command, &["no such account", "account list"]);
        }
    }
    instance.db_fails(1, &["token", "list", "--id", NOBODY], &["no such account"]);
    instance.db_fails(1, &["token", "revoke-all", "--id", "nobody"], &["no such account"]);
    instance.db_fails(1, &["token", "revoke", "--jti", NOBODY], &["no such token"]);
    instance.db_fails(1, &["keys", "revoke", "--kid", "nobody", "--yes"], &["no such key"]);
    assert_eq!(events(&instance), before);
    assert!(!instance.path("mcias.db-wal").exists());
}

#[test]
fn schema_verify_and_migrate() {
    let instance = Instance::new();
    assert_eq!(instance.db(&["schema", "verify"]), "1");
    assert_eq!(instance.db(&["schema", "migrate"]), "", "there is nothing to do");
    // A fresh one. No key is needed.
    instance.write("mcias.db", "");
    let key = instance.read("master.key");
    std::fs::remove_file(instance.path("master.key")).unwrap();
    let told = instance.mciasdb(&["schema", "verify"]).output().unwrap();
    let err = String::from_utf8(told.stderr).unwrap();
    assert_eq!((told.status.code(), told.stdout.as_slice()), (Some(1), &b"0\n"[..]));
    assert!(err.contains("migrations pending: 1") && err.contains("mciasdb schema migrate"), "{err}");
    assert_eq!(instance.db(&["schema", "migrate"]), "1");
    assert_eq!(instance.db(&["schema", "verify"]), "1");
    let kinds: Vec<_> = instance.events().into_iter().map(|event| (event.kind, event.via)).collect();
    assert_eq!(kinds, [("schema_migrated".to_owned(), "mciasdb".to_owned())]);
    // Keys are made by the first command that has the master key, once.
    assert_eq!(instance.query_one::<i64>("SELECT count(*) FROM signing_keys", []), 0);
    instance.write("master.key", key);
    at_once(4, |_| instance.db(&["account", "list"]));
    assert_eq!(
        instance.query::<String>("SELECT purpose FROM signing_keys ORDER BY purpose", []),
        ["audit", "token"],
        "of several at once one makes them"
    );
    instance.is_sound();
    let mut server = instance.start();
    server.client().get("/v1/ready").ok(200);
    server.stop();
    std::fs::remove_file(server.path("mcias.db")).unwrap();
    server.db_fails(1, &["schema", "verify"], &["there is no database at"]);
    server.db_fails(1, &["account", "list"], &["there is no database at"]);
}

#[test]
fn on_another_schema_every_command_but_schema_is_refused() {
    let instance = Instance::new();
    instance.write("new.key", "5a".repeat(32));
    for (version, words) in [
        (0, &["schema version 0", "run 'mciasdb schema migrate'"][..]),
        (2, &["schema version 2", "newer than this program's 1"]),
    ] {
        instance.database().pragma_update(None, "user_version", version).unwrap();
        let before = instance.read("mcias.db");
        for command in COMMANDS {
            instance.db_fails_with(PASSWORD, 1, command, words);
        }
        assert!(instance.read("mcias.db") == before, "the database was changed");
    }
    instance.db_fails(1, &["schema", "migrate"], &["newer than this program's 1"]);
    let told = instance.mciasdb(&["schema", "verify"]).output().unwrap();
    assert_eq!((told.status.code(), told.stdout.as_slice()), (Some(1), &b"2\n"[..]));
}

#[test]
fn a_wrong_master_key_opens_nothing_and_changes_nothing() {
    let instance = Instance::new();
    let before = instance.read("mcias.db");
    instance.write("new.key", "5a".repeat(32));
    instance.write("master.key", "5a".repeat(32));
    for command in COMMANDS {
        instance.db_fails_with(PASSWORD, 1, command, &["the master key does not open this database"]);
    }
    assert!(instance.read("mcias.db") == before, "the database was changed");
}

#[test]
fn accounts_from_making_to_deleting() {
    let mut server = Server::start();
    let id = writes(&server, &["account_created"], || {
        server.db_with(
            &format!("{PASSWORD}\n"),
            &["account", "create", "--username", "Ann", "--type", "human", "--password-stdin"],
        )
    });
    let ann = server.login("ann", PASSWORD);
    assert_eq!(ann.id(), id);
    let app = writes(&server, &["account_created"], || {
        server.db(&["account", "create", "--username", "app", "--type", "system"])
    });
    server.db_fails(
        1,
        &["account", "create", "--username", "app", "--type", "system"],
        &["an account of that name exists"],
    );

    let listed = table(&server, &["account", "list"]);
    assert_eq!(listed[0], ["ID", "USERNAME", "TYPE", "STATUS", "TOTP", "ROLES"]);
    assert!(listed.contains(&[&*id, "ann", "human", "active", "no"].map(str::to_owned).to_vec()), "{listed:?}");
    assert!(listed.contains(&[&*app, "app", "system", "active", "no"].map(str::to_owned).to_vec()), "{listed:?}");
    assert_eq!(json_of(&server, &["account", "list", "--json"]).as_array().unwrap().len(), 3);
    for named in [&*id, &id.to_uppercase(), "ann", "ANN"] {
        assert_eq!(json_of(&server, &["account", "get", "--id", named, "--json"])["id"], id);
    }
    assert!(server.db(&["account", "get", "--id", "ann"]).contains(&id));

    // A password that is set ends what was got with the one before.
    let other = "quite another passphrase";
    writes(&server, &["password_reset", "tokens_revoked"], || {
        server.db_with(other, &["account", "set-password", "--id", "ann", "--password-stdin"])
    });
    assert!(!ann.is_good());
    ann.try_login("ann", PASSWORD).expect(401, "unauthorized");
    let ann = server.login("ann", other);
    server.db_fails_with("short", 1, &["account", "set-password", "--id", "ann", "--password-stdin"], &["15"]);
    server.db_fails_with(other, 1, &["account", "set-password", "--id", "app", "--password-stdin"], &["system"]);
    assert!(ann.is_good());

    writes(&server, &["account_updated", "tokens_revoked"], || {
        server.db(&["account", "set-status", "--id", "ann", "--status", "suspended"])
    });
    assert!(!ann.is_good());
    ann.try_login("ann", other).expect(401, "unauthorized");
    writes(&server, &["account_updated"], || {
        server.db(&["account", "set-status", "--id", "ann", "--status", "active"])
    });
    let ann = server.login("ann", other);

    // One-time codes of a lost device.
    server.turn_totp_on(ann.id());
    ann.try_login("ann", other).expect(401, "unauthorized");
    writes(&server, &["totp_removed", "tokens_revoked"], || server.db(&["account", "reset-totp", "--id", "ann"]));
    assert!(!ann.is_good());
    let kept: Vec<Option<Vec<u8>>> = server.query("SELECT totp_secret_enc FROM accounts WHERE uuid = ?1", [&id]);
    assert_eq!(kept, [None]);
    let ann = server.login("ann", other);

    writes(&server, &["account_deleted", "tokens_revoked"], || {
        server.db(&["account", "set-status", "--id", "ann", "--status", "deleted"])
    });
    assert!(!ann.is_good());
    server.db_fails(1, &["account", "set-status", "--id", &id, "--status", "active"], &["no such account"]);
    assert!(!server.db(&["account", "list"]).contains(&id));
    assert!(server.db(&["account", "list", "--all"]).contains(&id));
    assert_eq!(json_of(&server, &["account", "get", "--id", &id, "--json"])["status"], "deleted");
    server.stop();
    server.is_sound();
}

#[test]
fn the_last_admin_can_be_let_go_and_made_again() {
    let server = Server::start();
    let admin = server.login("admin", &server.admin_password());
    writes(&server, &["role_revoked"], || server.db(&["role", "revoke", "--id", "admin", "--role", "admin"]));
    admin.get("/v1/accounts").expect(403, "forbidden");
    assert_eq!(table(&server, &["role", "list", "--id", "admin"]), [["ROLE"]]);
    writes(&server, &["role_granted"], || server.db(&["role", "grant", "--id", "admin", "--role", "admin"]));
    writes(&server, &["role_granted"], || server.db(&["role", "grant", "--id", "admin", "--role", "editor"]));
    assert_eq!(table(&server, &["role", "list", "--id", "admin"]), [["ROLE"], ["admin"], ["editor"]]);
    assert_eq!(json_of(&server, &["role", "list", "--id", "admin", "--json"])["roles"], json!(["admin", "editor"]));
    admin.get("/v1/accounts").ok(200);
    // What is so already is no event.
    writes(&server, &[], || server.db(&["role", "grant", "--id", "admin", "--role", "editor"]));
    server.db(&["role", "revoke", "--id", "admin", "--role", "editor"]);
    writes(&server, &["account_updated", "tokens_revoked"], || {
        server.db(&["account", "set-status", "--id", "admin", "--status", "suspended"])
    });
    admin.try_login("admin", &server.admin_password()).expect(401, "unauthorized");
}

#[test]
fn tokens_listed_revoked_and_pruned() {
    let server = Server::start();
    let ann = server.human("ann");
    let (second, third) = (ann.again(), ann.again());
    let listed = table(&server, &["token", "list", "--id", "ann"]);
    assert_eq!(listed[0], ["JTI", "AUDIENCE", "ISSUED", "EXPIRES", "REVOKED", "REASON"]);
    assert_eq!(listed.len(), 4);
    assert_eq!(listed[1][0], third.jti(), "newest first");

    writes(&server, &["token_revoked"], || server.db(&["token", "revoke", "--jti", &second.jti().to_uppercase()]));
    assert!(ann.is_good() && !second.is_good() && third.is_good());
    writes(&server, &[], || server.db(&["token", "revoke", "--jti", &second.jti()]));
    let listed = json_of(&server, &["token", "list", "--id", "ann", "--json"]);
    let shown = listed.as_array().unwrap().iter().find(|row| row["jti"] == second.jti()).unwrap();
    assert!(shown["revoked_at"].is_string() && shown["revoke_reason"] == "revoked", "{shown}");

    assert_eq!(writes(&server, &["tokens_revoked"], || server.db(&["token", "revoke-all", "--id", "ann"])), "2");
    assert!(!ann.is_good() && !third.is_good());
    assert_eq!(writes(&server, &[], || server.db(&["token", "revoke-all", "--id", "ann"])), "0", "nothing to do");

    // Only what has expired goes: revoked or not.
    let live = ann.again();
    let rows = || server.query::<String>("SELECT jti FROM token_revocation ORDER BY id", []);
    let all = rows();
    assert_eq!(writes(&server, &[], || server.db(&["prune", "tokens"])), "0");
    assert_eq!(rows(), all);
    let expire = "UPDATE token_revocation SET issued_at = ?2 - 10, expires_at = ?2 WHERE jti = ?1";
    for (jti, at) in [(ann.jti(), now() - 1), (second.jti(), now() - 1_000_000), (third.jti(), now() + 1000)] {
        assert_eq!(server.sql(expire, (jti, at)), 1);
    }
    assert_eq!(writes(&server, &["tokens_pruned"], || server.db(&["prune", "tokens"])), "2");
    let left: Vec<String> = all.into_iter().filter(|jti| *jti != ann.jti() && *jti != second.jti()).collect();
    assert_eq!(rows(), left);
    assert!(live.is_good());
}

#[test]
fn what_is_pruned_is_pruned_in_small_batches() {
    let instance = Instance::new();
    let admin: i64 = instance.query_one("SELECT id FROM accounts", []);
    let kid: String = instance.query_one("SELECT kid FROM signing_keys WHERE purpose = 'token'", []);
    let database = instance.database();
    let sql = "WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < 1300)
        INSERT INTO token_revocation (jti, account_id, kid, audience, issued_at, expires_at, auth_time)
        SELECT printf('%08x-0000-4000-8000-000000000000', n), ?1, ?2, 'a', 1, 2, 1 FROM n";
    database.execute(sql, (admin, kid)).unwrap();
    drop(database);
    let kinds = ["tokens_pruned"; 3];
    assert_eq!(writes(&instance, &kinds, || instance.db(&["prune", "tokens"])), "1300");
    let events = instance.events();
    let counts: Vec<_> = events[events.len() - 3..].iter().map(|event| event.details["count"].clone()).collect();
    assert_eq!(counts, [500, 500, 300]);
}

#[test]
fn audit_tail_and_query() {
    let server = Server::start();
    let ann = server.human("ann");
    ann.try_login("ann", "not the passphrase of ann").expect(401, "unauthorized");
    server.db(&["role", "grant", "--id", "ann", "--role", "editor"]);
    let lines = |arguments: &[&str]| -> Vec<Value> {
        let text = server.db(arguments);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let kinds = |arguments: &[&str]| -> Vec<String> {
        lines(arguments).iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    };
    let all = events(&server);
    assert_eq!(lines(&["audit", "tail", "--json"]).len(), all.min(50));
    assert_eq!(kinds(&["audit", "tail", "--n", "2", "--json"]), ["login_fail", "role_granted"], "newest last");
    assert_eq!(server.db(&["audit", "tail", "--n", "2"]).lines().count(), 3, "and a header line");
    let of_ann = ["audit", "query", "--account", "ann", "--json"];
    assert_eq!(kinds(&of_ann), ["account_created", "login_ok", "login_fail", "role_granted"]);
    assert_eq!(kinds(&["audit", "query", "--account", ann.id(), "--type", "login_ok", "--json"]), ["login_ok"]);
    assert_eq!(kinds(&["audit", "query", "--type", "login_ok", "--json"]).len(), 2, "the admin's, too");
    let (past, future) = ("2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z");
    assert_eq!(lines(&["audit", "query", "--since", past, "--json"]).len(), all);
    assert_eq!(server.db(&["audit", "query", "--since", future, "--json"]), "");
    let some = ["audit", "query", "--account", "ann", "--type", "login_fail", "--since", past, "--json"];
    assert_eq!(kinds(&some), ["login_fail"]);
    let none = ["audit", "query", "--account", "ann", "--type", "login_fail", "--since", future, "--json"];
    assert_eq!(server.db(&none), "");
    assert_eq!(lines(&["audit", "tail", "--n", "1", "--json"])[0]["via"], "mciasdb");
}

#[test]
fn postgres_credentials_set_read_and_deleted() {
    let server = Server::start();
    let app = server.system("app");
    server.db_fails(1, &["pgcreds", "get", "--id", "app"], &["no"]);
    let set = [
        "pgcreds",
        "set",
        "--id",
        "app",
        "--host",
        "db.example.com",
        "--port",
        "5433",
        "--db",
        "d",
        "--user",
        "u",
        "--password-stdin",
    ];
    writes(&server, &["pgcred_updated"], || server.db_with("s3cr3t | \\ of Postgres\n", &set));
    let warning = "warning: what follows is secret";
    let get = writes(&server, &["pgcred_accessed"], || server.db_warns(&["pgcreds", "get", "--id", "app"], warning));
    for words in ["db.example.com", "5433", "s3cr3t | \\ of Postgres"] {
        assert!(get.contains(words), "{get}");
    }
    let json: Value =
        serde_json::from_str(&server.db_warns(&["pgcreds", "get", "--id", "app", "--json"], warning)).unwrap();
    let seen = app.get(&format!("/v1/accounts/{}/pgcreds", app.id())).ok(200);
    assert_eq!((&json, json["password"].as_str()), (seen.json(), Some("s3cr3t | \\ of Postgres")));
    writes(&server, &["pgcred_deleted"], || server.db(&["pgcreds", "delete", "--id", "app"]));
    server.db_fails(1, &["pgcreds", "delete", "--id", "app"], &["no"]);
    server.db_fails_with("x", 1, &[&set[..2], &["--id", "admin"], &set[4..]].concat(), &["system"]);
}

#[test]
fn signing_keys_listed_rotated_and_revoked() {
    let server = Server::start();
    let ann = server.human("ann");
    let signing = || server.client().get("/v1/keys/public").ok(200).text("kid").to_owned();
    let states = || -> Vec<(String, String)> {
        let keys = json_of(&server, &["keys", "list", "--json"]);
        let keys = keys.as_array().unwrap().iter().filter(|key| key["purpose"] == "token");
        keys.map(|key| (key["kid"].as_str().unwrap().into(), key["state"].as_str().unwrap().into())).collect()
    };
    let state = |kid: &str| states().into_iter().find(|(known, _)| known == kid).unwrap().1;
    let first = signing();
    assert_eq!(states(), [(first.clone(), "signs".to_owned())]);
    assert_eq!(table(&server, &["keys", "list"]).len(), 3, "a header, and the audit key, too");

    let created = ["signing_key_rotated", "signing_key_created"];
    let second = writes(&server, &created, || server.db(&["keys", "rotate"]));
    assert_eq!((signing(), state(&first), state(&second)), (first.clone(), "signs".into(), "waiting".into()));
    let published = server.client().get("/.well-known/jwks.json").ok(200);
    assert_eq!(published["keys"].as_array().unwrap().len(), 2, "before it signs");
    server.db_fails(1, &["keys", "rotate"], &[&second, "still waiting to sign"]);
    server.db_fails(1, &["keys", "rotate", "--now"], &[&second, "still waiting to sign"]);

    // The one that signs has leaked: the one that waits takes over.
    let revoked = ["signing_key_revoked", "tokens_revoked"];
    let count = writes(&server, &revoked, || server.db(&["keys", "revoke", "--kid", &first, "--yes"]));
    assert_eq!((count.as_str(), signing(), ann.is_good()), ("2", second.clone(), false), "the admin's, and ann's");
    assert_eq!((state(&first), state(&second)), ("revoked".into(), "signs".into()));
    let ann = ann.again();
    assert_eq!(writes(&server, &[], || server.db(&["keys", "revoke", "--kid", &first, "--yes"])), "0");
    let third = writes(&server, &created, || server.db(&["keys", "rotate", "--now"]));
    assert_eq!((signing(), state(&second), state(&third)), (third.clone(), "verifies".into(), "signs".into()));
    assert!(ann.is_good());
    // And where there is none to take over, one is made.
    let only = ["signing_key_revoked", "signing_key_created"];
    writes(&server, &only, || server.db(&["keys", "revoke", "--kid", &third, "--yes"]));
    assert!(![first, second, third].contains(&signing()));
    assert!(ann.is_good());

    let audit: Value = serde_json::from_str(&server.db(&["audit", "key"])).unwrap();
    let kid = audit["kid"].as_str().unwrap();
    server.db_fails(1, &["keys", "revoke", "--kid", kid, "--yes"], &["keys rotate --audit"]);
    assert_ne!(writes(&server, &created, || server.db(&["keys", "rotate", "--audit"])), kid);
    server.db(&["audit", "verify"]);
}

#[test]
fn rekey_changes_what_opens_the_database_and_leaves_no_trace() {
    let mut server = Server::start();
    let ann = server.human("ann");
    let old: Vec<u8> = server.query_one("SELECT value FROM server_config WHERE key = 'data_key/1'", []);
    server.write("new.key", "5a".repeat(32));
    let says = "keep the old key for as long as you keep backups";
    writes(&server, &["master_key_changed"], || server.db_warns(&["rekey", "--new-keyfile", "new.key"], says));
    server.login("ann", ann.password());
    server.db_fails(1, &["account", "list"], &["the master key does not open this database"]);
    for name in ["mcias.db", "mcias.db-wal"] {
        assert!(!server.read(name).windows(old.len()).any(|bytes| bytes == old), "{name} holds the old wrapped key");
    }
    server.stop();
    server.refuses().says(1, &["the master key does not open this database"]);
    server.set("master_key", "keyfile", "\"new.key\"");
    server.start_again();
    assert!(ann.is_good());

    for (flags, words) in [
        (["--new-keyfile", "gone"], &["--new-keyfile", "gone", "No such file"][..]),
        (["--new-keyfile", "mcias.conf"], &["--new-keyfile"]),
        (["--new-passphrase-env", "NOT_SET"], &["NOT_SET is not set"]),
        (["--new-passphrase-file", "tls/server.crt"], &["--new-passphrase-file"]),
    ] {
        writes(&server, &[], || server.db_fails(1, &[&["rekey"][..], &flags].concat(), words));
    }
    let too_short = "must have at least 12 characters";
    server.env("NEW", "eleven char");
    writes(&server, &[], || server.db_fails(1, &["rekey", "--new-passphrase-env", "NEW"], &["NEW", too_short]));
    server.write("short", "eleven char\n");
    writes(&server, &[], || server.db_fails(1, &["rekey", "--new-passphrase-file", "short"], &["short", too_short]));
    server.env("NEW", "correct horse battery staple");
    server.db_warns(&["rekey", "--new-passphrase-env", "NEW"], says);
    server.unset("master_key", "keyfile");
    server.set("master_key", "passphrase_env", "\"NEW\"");
    server.db(&["account", "list"]);
    server.restart();
    assert!(ann.is_good());
}

#[test]
fn a_new_data_key_is_taken_by_the_server_that_runs() {
    let mut server = Server::start();
    let ann = server.human("ann");
    let app = server.system("app");
    let pg = json!({"host": "db", "port": 5432, "database": "d", "username": "u", "password": "of Postgres"});
    let pgcreds = format!("/v1/accounts/{}/pgcreds", app.id());
    server.admin().put(&pgcreds).json(pg.clone()).ok(204);
    server.write("new.key", "5a".repeat(32));
    let rekey = ["rekey", "--new-keyfile", "new.key", "--new-data-key"];
    let child = server.mciasdb(&rekey).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let done = AtomicUsize::new(0);
    let (logins, output) = std::thread::scope(|scope| {
        // Checks go on all the time; what is written may have to wait until the server has the key, and says so.
        let checks = scope.spawn(|| {
            while done.load(Ordering::Relaxed) == 0 {
                assert!(ann.is_good());
            }
        });
        let logins = scope.spawn(|| {
            let mut came = 0;
            while done.load(Ordering::Relaxed) == 0 {
                let answer = ann.try_login("ann", ann.password()).without("authorization").send();
                assert!(matches!(answer.status, 200 | 503), "{}", answer.story());
                came += usize::from(answer.status == 200);
            }
            came
        });
        let output = child.wait_with_output().unwrap();
        done.store(1, Ordering::Relaxed);
        checks.join().unwrap();
        (logins.join().unwrap(), output)
    });
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && err.contains("waiting for the running server"), "{err}");
    assert!(logins > 0);
    server.login("ann", ann.password());
    assert_eq!(app.get(&pgcreds).ok(200)["password"], "of Postgres");
    server.admin().put(&pgcreds).json(pg).ok(204);
    assert_eq!(server.query::<String>("SELECT key FROM server_config WHERE key LIKE 'data_key/%'", []), ["data_key/2"]);
    server.stop();
    server.set("master_key", "keyfile", "\"new.key\"");
    server.start_again();
    server.login("ann", ann.password());
    assert_eq!(app.get(&pgcreds).ok(200)["password"], "of Postgres");
    server.stop();
    server.is_sound();
}

#[test]
fn a_data_key_that_the_server_cannot_open_is_not_sealed_with() {
    let mut server = Server::start();
    let ann = server.human("ann");
    server.write("new.key", "5a".repeat(32));
    server.write("newer.key", "a5".repeat(32));
    assert_eq!(server.text("mcias.db.lock"), "data_key 1\n");
    server.db_warns(&["rekey", "--new-keyfile", "new.key"], "the master key is changed");
    // The server has the old master key still, which opens no key that is made from here on.
    server.set("master_key", "keyfile", "\"new.key\"");
    let rekey = ["rekey", "--new-keyfile", "newer.key", "--new-data-key"];
    let output = server.mciasdb(&rekey).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && err.contains("was started with an older master key"), "{err}");
    assert_eq!(server.text("mcias.db.lock"), "data_key 1\nlocked_out 2\n");

    // What it can't do it says, and checks go on.
    let not_now = server.client().get("/v1/ready").expect(503, "unavailable");
    assert!(not_now.text("error").contains("master key"), "{}", not_now.story());
    ann.try_login("ann", ann.password()).without("authorization").expect(503, "unavailable");
    assert!(ann.is_good());

    // Nothing is sealed with it yet, so that the server needs only the right master key.
    server.restart();
    assert_eq!(server.text("mcias.db.lock"), "data_key 2\n");
    server.client().get("/v1/ready").ok(200);
    server.login("ann", ann.password());
    server.db_warns(&rekey, "the master key is changed");
    server.login("ann", ann.password());
    server.stop();
    server.set("master_key", "keyfile", "\"newer.key\"");
    server.start_again();
    server.login("ann", ann.password());
    server.stop();
    server.is_sound();
}

#[test]
fn what_is_sealed_under_a_data_key_that_the_server_cannot_open_is_not_there_for_now() {
    let server = Server::start();
    let ann = server.human("ann");
    // As by a program that waits for nobody: the key is another, and the password is sealed under it.
    let database = server.database();
    let key: Vec<u8> = server.query_one("SELECT value FROM server_config WHERE key = 'data_key/1'", []);
    database.execute("INSERT INTO server_config (key, value) VALUES ('data_key/2', ?1)", [&key]).unwrap();
    let resealed = "UPDATE accounts SET password_enc = CAST(x'00000002' || substr(password_enc, 5) AS BLOB)";
    database.execute(resealed, []).unwrap();
    let not_now = server.client().get("/v1/ready").expect(503, "unavailable");
    assert!(not_now.text("error").contains("master key"), "{}", not_now.story());
    ann.try_login("ann", ann.password()).without("authorization").expect(503, "unavailable");
    let change = json!({"current_password": ann.password(), "new_password": "another walrus altogether"});
    ann.put("/v1/auth/password").json(change).expect(503, "unavailable");
    assert!(ann.is_good());
}

#[test]
fn who_may_not_read_the_database_is_told_so() {
    use std::os::unix::process::CommandExt;
    let instance = Instance::new();
    if !rustix::process::geteuid().is_root() {
        return testing::not_run("who_may_not_read_the_database_is_told_so", "it takes root to be somebody else");
    }
    for (folder, name) in [(".", "mcias.db"), (".", "mcias.conf")] {
        instance.chmod(folder, 0o755);
        instance.chmod(name, if name == "mcias.db" { 0o600 } else { 0o644 });
    }
    for command in [&["account", "list"][..], &["schema", "verify"], &["schema", "migrate"], &["backup", "--out", "b"]]
    {
        let output = instance.mciasdb(command).uid(65534).gid(65534).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(1) && err.contains("/mcias.db: permission denied\n"),
            "{command:?}: {err}"
        );
    }
}

#[test]
fn a_row_of_the_log_that_cannot_be_read_hides_no_other() {
    let instance = Instance::new();
    instance.db(&["account", "create", "--username", "one", "--type", "system"]);
    let database = instance.database();
    database
        .execute_batch("DROP TRIGGER audit_log_no_update; UPDATE audit_log SET details = 'x' WHERE id = 2")
        .unwrap();
    drop(database);
    for command in [&["audit", "tail"][..], &["audit", "query", "--since", "2020-01-01T00:00:00Z"]] {
        let output = instance.mciasdb(command).output().unwrap();
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(out.contains("schema_migrated") && out.contains("account_created"), "{out}");
        let named = "event 2 isn't as this program writes it";
        assert!(output.status.code() == Some(1) && err.contains(named), "{err}");
    }
}

#[test]
fn a_blocklist_that_is_gone_stops_only_who_sets_a_password() {
    let mut instance = Instance::new();
    instance.set("passwords", "blocklist_file", "\"gone\"");
    instance.db(&["account", "list"]);
    instance.db(&["role", "list", "--id", "admin"]);
    instance.db(&["backup", "--out", "b.db"]);
    let set = ["account", "set-password", "--id", "admin", "--password-stdin"];
    instance.db_fails_with(PASSWORD, 1, &set, &["blocklist_file", "gone"]);
}

#[test]
fn a_database_that_somebody_holds_is_said_so() {
    let instance = Instance::new();
    let database = instance.database();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let busy = &["locked", "another process holds the database for longer than 5 s"];
    instance.db_fails(1, &["account", "create", "--username", "one", "--type", "system"], busy);
    instance.db(&["account", "list"]);
    database.execute_batch("ROLLBACK").unwrap();
    drop(database);
    assert_eq!(instance.query_one::<i64>("SELECT count(*) FROM accounts", []), 1, "what was refused didn't happen");
    // And where nobody may so much as read.
    let database = instance.database();
    database.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    instance.db_fails(1, &["account", "list"], &["locked"]);
    database.execute_batch("ROLLBACK").unwrap();
    drop(database);
    instance.db(&["account", "create", "--username", "one", "--type", "system"]);
}

#[test]
fn many_at_once_beside_a_server_all_have_their_turn() {
    let mut server = Server::start();
    let ann = server.human("ann");
    let made = at_once(6, |n| match n {
        0 => (0..10).map(|_| ann.again().token().to_owned()).collect(),
        n => {
            let make = |m| server.db(&["account", "create", "--username", &format!("app{n}-{m}"), "--type", "system"]);
            (0..4).map(make).collect::<Vec<_>>()
        }
    });
    assert_eq!(made.concat().len(), 30);
    server.stop();
    server.is_sound();
    server.db(&["audit", "verify"]);
}

#[test]
fn of_what_mciasdb_has_revoked_nothing_is_taken_by_a_server_that_is_asked_all_the_time() {
    let server = Server::start();
    let ann = server.human("ann");
    let tokens: Vec<_> =
        (0..24).map(|n| if n % 2 == 0 { ann.again() } else { server.system(&format!("app{n}")) }).collect();
    let revoked = AtomicUsize::new(0);
    let (asked, live) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while revoked.load(Ordering::SeqCst) < tokens.len() {
                    for (n, token) in tokens.iter().enumerate() {
                        let dead = n < revoked.load(Ordering::SeqCst);
                        let good = token.is_good();
                        assert!(!(dead && good), "{n} was taken after mciasdb had exited");
                        asked.fetch_add(1, Ordering::Relaxed);
                        live.fetch_add(usize::from(good), Ordering::Relaxed);
                    }
                }
            });
        }
        for (n, token) in tokens.iter().enumerate() {
            match n % 4 {
                0 => server.db(&["token", "revoke", "--jti", &token.jti()]),
                1 => server.db(&["token", "revoke-all", "--id", token.id()]),
                2 => server.db(&["token", "revoke", "--jti", &token.jti()]),
                _ => server.db(&["account", "set-status", "--id", token.username(), "--status", "suspended"]),
            };
            revoked.store(n + 1, Ordering::SeqCst);
        }
    });
    let (asked, live) = (asked.into_inner(), live.into_inner());
    assert!(0 < live && live < asked, "{live} of {asked}");
    assert!(ann.is_good(), "and only those");
}

#[test]
fn passwords_are_asked_for_twice_on_a_terminal_and_never_shown() {
    if !Terminal::is_possible() {
        return testing::not_run("passwords_are_asked_for_twice_on_a_terminal_and_never_shown", "there is no script");
    }
    let server = Server::start();
    let set = ["account", "set-password", "--id", "admin"];
    let before = events(&server);
    let mut terminal = server.mciasdb_on_a_terminal(&set);
    terminal.shows("New password: ");
    terminal.types_unseen(PASSWORD);
    terminal.shows("The same again: ");
    terminal.types_unseen("the passphrase of anybody");
    let (code, shown) = terminal.ends();
    assert_eq!(code, Some(1));
    assert!(shown.contains("the two passwords differ; nothing was changed"), "{shown}");
    assert!(!shown.contains("passphrase"), "{shown}");
    assert_eq!(events(&server), before);
    server.login("admin", &server.admin_password());

    writes(&server, &["password_reset", "tokens_revoked"], || {
        let mut terminal = server.mciasdb_on_a_terminal(&set);
        for prompt in ["New password: ", "The same again: "] {
            terminal.shows(prompt);
            terminal.types_unseen(PASSWORD);
        }
        let (code, shown) = terminal.ends();
        assert_eq!((code, shown.contains(PASSWORD)), (Some(0), false), "{shown}");
    });
    server.login("admin", PASSWORD);

    // A new account's is asked for once, and so is that of Postgres.
    let mut terminal = server.mciasdb_on_a_terminal(&["account", "create", "--username", "ann", "--type", "human"]);
    terminal.shows("Password: ");
    terminal.types_unseen(PASSWORD);
    let (code, shown) = terminal.ends();
    assert_eq!((code, shown.contains(PASSWORD)), (Some(0), false), "{shown}");
    server.login("ann", PASSWORD);
    server.db(&["account", "create", "--username", "app", "--type", "system"]);
    let mut terminal = server.mciasdb_on_a_terminal(&[
        "pgcreds", "set", "--id", "app", "--host", "h", "--port", "1", "--db", "d", "--user", "u",
    ]);
    terminal.shows("Postgres password: ");
    terminal.types_unseen("of Postgres");
    let (code, shown) = terminal.ends();
    assert_eq!((code, shown.contains("of Postgres")), (Some(0), false), "{shown}");
    assert!(server.db_warns(&["pgcreds", "get", "--id", "app"], "secret").contains("of Postgres"));
}

#[test]
fn a_signal_at_a_password_prompt_leaves_the_terminal_as_it_was() {
    if !Terminal::is_possible() {
        return testing::not_run("a_signal_at_a_password_prompt_leaves_the_terminal_as_it_was", "there is no script");
    }
    let instance = Instance::new();
    let program = format!("'{}' db --config mcias.conf account set-password --id admin", support::MCIAS);
    // The shell is asked by the same ^C, and goes on to tell.
    let line = format!("trap : INT; sh -c \"echo \\$\\$ >pid; exec {program}\"; echo code $?; stty -a");
    for signal in [None, Some("TERM"), Some("HUP")] {
        let mut terminal = Terminal::of(&line, instance.path("terminal"), |command| {
            command.current_dir(instance.folder());
        });
        terminal.shows("New password: ");
        assert!(!terminal.echoes(), "what is typed would be shown by now");
        match signal {
            None => terminal.types("half a pass\u{3}"),
            Some(signal) => {
                let pid = instance.text("pid");
                assert!(Command::new("kill").args(["-s", signal, pid.trim()]).status().unwrap().success());
            }
        }
        let (_, shown) = terminal.ends();
        let code = [130, 143, 129][["TERM", "HUP"].iter().position(|one| Some(*one) == signal).map_or(0, |n| n + 1)];
        assert!(shown.contains(&format!("New password: \ncode {code}\n")), "{signal:?}: {shown}");
        assert!(shown.contains(" echo ") && shown.contains(" -echonl "), "{signal:?}: {shown}");
    }
    // The end of the input is no answer.
    let mut terminal = instance.mciasdb_on_a_terminal(&["account", "set-password", "--id", "admin"]);
    terminal.shows("New password: ");
    terminal.types("\u{4}");
    let (code, shown) = terminal.ends();
    assert!(code == Some(1) && shown.contains("there was no answer"), "{shown}");
}

#[test]
fn without_a_terminal_a_password_is_not_asked_for() {
    let instance = Instance::new();
    let alone = |arguments: &[&str]| {
        // In a session of its own, which has no terminal.
        let mut command = Command::new("setsid");
        command.args(["-w", support::MCIAS, "db", "--config"]).arg(instance.path("mcias.conf")).args(arguments);
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for command in [
        &["account", "set-password", "--id", "admin"][..],
        &["account", "create", "--username", "ann", "--type", "human"],
    ] {
        let (code, err) = alone(command);
        assert!(code == Some(1) && err.contains("use --password-stdin"), "{code:?} {err}");
    }
    for input in ["", "\n", "two lines are\ntoo many for it\n"] {
        let command = ["account", "set-password", "--id", "admin", "--password-stdin"];
        instance.db_fails_with(input, 1, &command, &["standard input"]);
    }
}

#[test]
fn the_clock_is_accepted_as_an_event() {
    let instance = Instance::new();
    writes(&instance, &["clock_accepted"], || instance.db(&["clock", "accept"]));
    assert!(!Path::new(&instance.path("mcias.db-wal")).exists(), "a clean end leaves one file");
    instance.db(&["audit", "verify"]);
}
