//! `mciasdb verify` on the database: what somebody with write access to the file could do, and what decays by itself,
//! each named. Every attack is done to a copy of one that verifies.

mod support;

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use serde_json::json;
use support::{Instance, Server, tree};

/// Alice with two roles, one of them taken again; bob, who was suspended; carl, who was deleted; a program with Postgres
/// credentials.
fn filled() -> Instance {
    let mut server = Server::start();
    let admin = server.admin();
    let alice = server.human("alice");
    for roles in [json!(["reader", "writer"]), json!(["reader"])] {
        admin.put(&format!("/v1/accounts/{}/roles", alice.id())).json(json!({"roles": roles})).ok(204);
    }
    let bob = server.human("bob");
    admin.patch(&format!("/v1/accounts/{}", bob.id())).json(json!({"status": "suspended"})).ok(200);
    let carl = server.human("carl");
    admin.put(&format!("/v1/accounts/{}/roles", carl.id())).json(json!({"roles": ["reader"]})).ok(204);
    admin.delete(&format!("/v1/accounts/{}", carl.id())).ok(204);
    let robot = server.system("robot");
    let address = json!({"host": "db", "port": 5432, "database": "app", "username": "app", "password": "a secret"});
    admin.put(&format!("/v1/accounts/{}/pgcreds", robot.id())).json(address).ok(204);
    server.stop();
    server.into_instance()
}

/// Does it to the file, as somebody who can write it would.
fn tamper(file: &Path, change: &str) {
    let connection = Connection::open(file).unwrap();
    let open = "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON; DROP TRIGGER audit_log_no_update;
                DROP TRIGGER audit_log_no_delete;";
    let close = "CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log
                     BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END;
                 CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log
                     BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END;";
    connection.execute_batch(&format!("{open} {change}; {close}")).unwrap();
}

/// What is done, and what is said of it.
const ATTACKS: &[(&str, &[&str])] = &[
    (
        "INSERT INTO account_roles SELECT id, 'admin', NULL, 0 FROM accounts WHERE username = 'alice'",
        &["account alice (", "has the role admin, but the log says not"],
    ),
    (
        "INSERT INTO account_roles SELECT id, 'writer', NULL, 0 FROM accounts WHERE username = 'alice'",
        &["account alice (", "has the role writer, but the log says not"],
    ),
    (
        "DELETE FROM account_roles WHERE role = 'reader'",
        &["account alice (", "hasn't the role reader, but the log says so"],
    ),
    (
        "UPDATE accounts SET status = 'active' WHERE username = 'bob'",
        &["account bob (", "is active, but the log says suspended"],
    ),
    (
        "UPDATE accounts SET status = 'active', deleted_at = NULL WHERE username = 'carl'",
        &["account carl (", "is active, but the log says deleted"],
    ),
    (
        "INSERT INTO account_roles SELECT id, 'reader', NULL, 0 FROM accounts WHERE username = 'carl'",
        &["account carl (", "has the role reader"],
    ),
    (
        "INSERT INTO accounts (uuid, username, account_type, status, created_at, updated_at)
         VALUES ('0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11', 'mallory', 'human', 'active', 0, 0)",
        &["account mallory (0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11) was made without an event"],
    ),
    ("DELETE FROM accounts WHERE username = 'carl'", &["is gone, though the log tells of it"]),
    (
        "UPDATE accounts SET (password_enc, password_nonce) =
             (SELECT password_enc, password_nonce FROM accounts WHERE username = 'alice') WHERE username = 'admin'",
        &["the sealed value accounts.password_enc|", "was changed or moved"],
    ),
    (
        "UPDATE accounts SET (totp_secret_enc, totp_secret_nonce) = (password_enc, password_nonce)
             WHERE username = 'alice'",
        &["the sealed value accounts.totp_secret_enc|"],
    ),
    ("UPDATE accounts SET password_enc = x'00' WHERE username = 'alice'", &["is cut short"]),
    ("UPDATE pg_credentials SET pg_host = 'elsewhere'", &["the sealed value pg_credentials.pg_password_enc|"]),
    ("UPDATE signing_keys SET private_key_nonce = zeroblob(12)", &["the sealed value signing_keys.private_key_enc|"]),
    (
        "UPDATE signing_keys SET public_key = (SELECT public_key FROM signing_keys WHERE purpose = 'audit')
             WHERE purpose = 'token'",
        &["isn't the one its row names"],
    ),
    ("UPDATE signing_keys SET public_key = zeroblob(32) WHERE purpose = 'token'", &["is not an Ed25519 key"]),
    ("INSERT INTO account_roles VALUES (999, 'admin', NULL, 0)", &["of account_roles points to no row of accounts"]),
    ("UPDATE token_revocation SET kid = 'none'", &["of token_revocation points to no row of signing_keys"]),
    // An index that no longer is of what its table holds.
    (
        "PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'event_time', 'event_type') WHERE name = 'audit_log_time'",
        &["the file isn't whole", "audit_log_time"],
    ),
    ("UPDATE accounts SET totp_required = 7 WHERE username = 'alice'", &["the file isn't whole", "accounts"]),
    ("UPDATE audit_log SET event_type = 'login_ok' WHERE id = 4", &["the audit log: event 4 was changed"]),
    ("DELETE FROM audit_log WHERE id = 5", &["the audit log: event 5 is missing"]),
    ("DELETE FROM audit_log WHERE id = (SELECT max(id) FROM audit_log)", &["the audit log:", "cut short"]),
    ("UPDATE server_config SET value = zeroblob(60) WHERE key = 'data_key/1'", &["the master key does not open"]),
];

#[test]
fn whatever_is_done_to_the_file_is_named() {
    let instance = filled();
    let good = instance.read("mcias.db");
    let sound = instance.db(&["verify"]);
    assert!(sound.starts_with("sound: ") && sound.contains(", 5 accounts"), "{sound}");
    for (change, words) in ATTACKS {
        instance.write("mcias.db", &good);
        tamper(&instance.path("mcias.db"), change);
        instance.db_fails(1, &["verify"], words);
    }
    // What opens and closes the triggers isn't what was found.
    instance.write("mcias.db", &good);
    tamper(&instance.path("mcias.db"), "SELECT 1");
    assert_eq!(instance.db(&["verify"]), sound);
}

#[test]
fn pages_that_decay_are_found_without_a_panic() {
    let instance = filled();
    let good = instance.read("mcias.db");
    for begin in (4096..good.len()).step_by(4096) {
        let mut bad = good.clone();
        // The beginning of the page tells its kind and how many cells it has.
        bad[begin..begin + 8].fill(0xa5);
        instance.write("mcias.db", &bad);
        instance.db_fails(1, &["verify"], &[]);
    }
}

#[test]
fn several_faults_are_named_in_one_line_and_a_database_that_is_not_there_is_no_panic() {
    let instance = filled();
    for (change, _) in [ATTACKS[0], ATTACKS[3], ATTACKS[11]] {
        tamper(&instance.path("mcias.db"), change);
    }
    instance.db_fails(1, &["verify"], &["role admin", "bob", "pg_password_enc"]);
    fs::remove_file(instance.path("mcias.db")).unwrap();
    instance.db_fails(1, &["verify"], &["there is no database at"]);
    assert!(!instance.path("mcias.db").exists());
}

#[test]
fn verifying_changes_nothing() {
    let instance = filled();
    let before = tree(instance.folder());
    instance.db(&["verify"]);
    let after = tree(instance.folder());
    assert!(
        before == after,
        "{:?}",
        after.keys().filter(|path| after.get(*path) != before.get(*path)).collect::<Vec<_>>()
    );
}

#[test]
fn what_was_archived_is_left_out_and_said() {
    let instance = filled();
    instance.db(&["audit", "archive", "--before", "2100-01-01T00:00:00Z", "--out", "old.jsonl"]);
    let sound = instance.db(&["verify"]);
    assert!(sound.contains("5 accounts (5 only as far as the log goes back"), "{sound}");
    // From here on the log tells again.
    instance.db(&["role", "grant", "--id", "alice", "--role", "admin"]);
    instance.db(&["role", "revoke", "--id", "alice", "--role", "admin"]);
    instance.db(&["account", "set-status", "--id", "bob", "--status", "active"]);
    instance.db(&["account", "create", "--username", "later", "--type", "system"]);
    let sound = instance.db(&["verify"]);
    assert!(sound.contains("6 accounts (5 only as far as the log goes back"), "{sound}");
    let good = instance.read("mcias.db");
    for (change, words) in [
        (ATTACKS[0].0, "account alice ("),
        ("UPDATE accounts SET status = 'suspended' WHERE username = 'bob'", "account bob ("),
        ("UPDATE accounts SET status = 'suspended' WHERE username = 'later'", "account later ("),
        ("INSERT INTO account_roles SELECT id, 'x', NULL, 0 FROM accounts WHERE username = 'later'", "the role x"),
    ] {
        instance.write("mcias.db", &good);
        tamper(&instance.path("mcias.db"), change);
        instance.db_fails(1, &["verify"], &[words, "but the log says"]);
    }
}
