//! A server whose clock is wrong: behind at its start or later, ahead for a moment, put right. The clock is set with
//! libfaketime, in a file that the server and `mciasdb` read again at every look; only the wall clock is, unless a test
//! lets all time go faster.

mod support;

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use support::{Client, Instance, Server, eventually, now};

#[path = "../src/testing.rs"]
mod testing;

const DAY: i64 = 86_400;

/// Where libfaketime is.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let places = folders.chain([PathBuf::from("/usr/lib"), PathBuf::from("/usr/local/lib")]);
    places.map(|folder| folder.join("faketime/libfaketime.so.1")).find(|path| path.exists())
}

/// An instance whose clock can be set; none where that isn't possible here.
fn with_a_clock(test: &str, only_the_wall_clock: bool) -> Option<Instance> {
    let Some(library) = library() else {
        testing::not_run(test, "there is no libfaketime");
        return None;
    };
    let mut instance = Instance::new();
    instance.env("LD_PRELOAD", library);
    instance.env("FAKETIME_TIMESTAMP_FILE", instance.path("clock"));
    instance.env("FAKETIME_NO_CACHE", "1");
    if only_the_wall_clock {
        instance.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        instance.env("DONT_FAKE_MONOTONIC", "1");
    }
    set(&instance, "+0");
    Some(instance)
}

/// Sets the clock, so many seconds from the true time.
fn put(instance: &Instance, seconds: i64) {
    set(instance, &format!("{seconds:+}"));
}

fn set(instance: &Instance, how: &str) {
    // Whole or not at all: it is read all the time.
    instance.write("clock.new", format!("{how}\n"));
    fs::rename(instance.path("clock.new"), instance.path("clock")).unwrap();
}

fn is_ready(server: &Server) -> bool {
    server.client().get("/v1/ready").send().status == 200
}

fn rows(server: &Server) -> Vec<String> {
    server.query("SELECT jti FROM token_revocation ORDER BY id", [])
}

/// Nothing but health is served, and nothing is written or removed.
#[track_caller]
fn everything_waits(server: &Server, user: &Client) {
    let (before, tokens) = (server.events().len(), rows(server));
    server.client().get("/v1/health").ok(200);
    for request in [
        server.client().get("/v1/ready"),
        server.client().post("/v1/token/validate").json(json!({"token": user.token()})),
        user.get("/v1/auth/me"),
        user.post("/v1/auth/logout"),
        user.try_login(user.username(), user.password()),
    ] {
        assert!(request.expect(503, "unavailable").text("error").contains("clock"));
    }
    server.db_fails(1, &["prune", "tokens"], &["clock"]);
    assert_eq!((server.events().len(), rows(server)), (before, tokens));
}

#[test]
fn a_clock_that_goes_back_under_a_server_is_noticed_and_so_is_its_catching_up() {
    let test = "a_clock_that_goes_back_under_a_server_is_noticed_and_so_is_its_catching_up";
    let Some(instance) = with_a_clock(test, true) else { return };
    let mut server = instance.start();
    let alice = server.human("alice");
    server.sql("UPDATE token_revocation SET issued_at = 1, expires_at = 2 WHERE jti <> ?1", [alice.jti()]);
    // By less than five minutes it may, but what was issued over a minute later than now is not believed.
    put(&server, -50);
    assert!(is_ready(&server) && alice.is_good());
    put(&server, -200);
    assert!(is_ready(&server) && !alice.is_good());
    assert!(server.login("alice", alice.password()).is_good());
    let mark = server.log().mark();
    put(&server, -3600);
    server.log().wait_since(mark, &["ERROR", "the clock went behind"]);
    everything_waits(&server, &alice);
    put(&server, 0);
    server.log().wait_since(mark, &["INFO", "the clock has caught up"]);
    assert!(is_ready(&server) && alice.is_good());
    assert_eq!(server.db(&["prune", "tokens"]), "1", "the admin's");
    server.stop();
    server.is_sound();
}

#[test]
fn with_a_clock_that_is_behind_a_server_starts_and_waits_until_it_is_accepted() {
    let test = "with_a_clock_that_is_behind_a_server_starts_and_waits_until_it_is_accepted";
    let Some(instance) = with_a_clock(test, true) else { return };
    let mut server = instance.start();
    let alice = server.human("alice");
    server.stop();
    let count = server.events().len();
    put(&server, -7 * DAY);
    let mark = server.log().mark();
    server.start_again();
    server.log().wait_since(mark, &["ERROR", "the clock is behind"]);
    everything_waits(&server, &alice);
    // Nor does mciasdb make another key because none is in force yet.
    server.db(&["keys", "list"]);
    assert_eq!(server.events().len(), count);

    server.db(&["clock", "accept"]);
    assert_eq!(server.last_event().kind, "clock_accepted");
    eventually("the server takes it", || is_ready(&server));
    eventually("the start is written", || server.last_event().kind == "server_started");
    let again = server.login("alice", alice.password());
    assert!(again.is_good());
    assert_eq!(server.query::<i64>("SELECT count(*) FROM signing_keys", []), [2]);
    server.db(&["audit", "verify"]);
    server.stop();

    // The clock was wrong after all: forward it goes without more ado.
    put(&server, 0);
    server.start_again();
    assert!(is_ready(&server) && alice.is_good());
    server.login("alice", alice.password());
    server.stop();
    server.is_sound();
    server.db(&["audit", "verify"]);
}

#[test]
fn a_clock_that_jumps_ahead_and_back_destroys_nothing() {
    let test = "a_clock_that_jumps_ahead_and_back_destroys_nothing";
    let Some(instance) = with_a_clock(test, true) else { return };
    let mut server = instance.start();
    let alice = server.human("alice");
    let tokens = rows(&server);
    put(&server, 400 * DAY);
    assert!(!alice.is_good(), "it has expired, as far as the server can tell");
    put(&server, 0);
    assert!(alice.is_good() && is_ready(&server), "nothing was written meanwhile, and nothing is to be remembered");

    // What is written by a clock that is ahead is the newest event, and the true time is behind it.
    put(&server, 400 * DAY);
    server.login("alice", alice.password());
    let mark = server.log().mark();
    put(&server, 0);
    server.log().wait_since(mark, &["ERROR", "the clock went behind"]);
    everything_waits(&server, &alice);
    server.db(&["clock", "accept"]);
    eventually("the server takes it", || is_ready(&server));
    assert!(alice.is_good());
    assert_eq!(rows(&server)[..tokens.len()], tokens[..], "no row is gone");
    // A start in the true time remembers what was accepted.
    server.restart();
    assert!(is_ready(&server) && alice.is_good());
    server.stop();
    server.is_sound();
    server.db(&["audit", "verify"]);
}

#[test]
fn nothing_is_pruned_in_the_first_hour_of_a_run_and_after_it_what_expired_a_week_ago() {
    let test = "nothing_is_pruned_in_the_first_hour_of_a_run_and_after_it_what_expired_a_week_ago";
    let Some(instance) = with_a_clock(test, false) else { return };
    let mut server = instance.start();
    let tokens: Vec<Client> = (0..3).map(|n| server.system(&format!("app{n}"))).collect();
    server.stop();
    let ends = [now() - 9 * DAY, now() - 5 * DAY, now() + 300 * DAY];
    for (token, end) in tokens.iter().zip(ends) {
        let sql = "UPDATE token_revocation SET issued_at = ?2 - 10, expires_at = ?2 WHERE jti = ?1";
        assert_eq!(server.sql(sql, (token.jti(), end)), 1);
    }
    // A short run doesn't do it, however often there is one.
    for _ in 0..2 {
        server.start_again();
        server.stop();
    }
    assert!(tokens.iter().all(|token| rows(&server).contains(&token.jti())));
    // All time goes ten minutes a second.
    set(&server, "+0 x600");
    let count = server.events().len();
    server.start_again();
    let pruned = || server.events_since(count).into_iter().find(|event| event.kind == "tokens_pruned");
    eventually("something is pruned", || pruned().is_some());
    let pruned = pruned().unwrap();
    let started = server.events_since(count).into_iter().find(|event| event.kind == "server_started").unwrap();
    let after = (pruned.time_ms - started.time_ms) / 1000;
    assert!(after >= 3595, "{after} s after the start");
    assert_eq!(
        (&pruned.details["count"], &pruned.details["reason"], pruned.via.as_str()),
        (&json!(1), &json!("expired"), "server")
    );
    let left = rows(&server);
    let there: Vec<bool> = tokens.iter().map(|token| left.contains(&token.jti())).collect();
    assert_eq!(there, [false, true, true]);
    server.kill();
    set(&server, "+0");
    server.is_sound();
}
