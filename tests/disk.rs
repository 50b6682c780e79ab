//! A disk that is full, read-only or fails: the server goes read-only. Checks are answered, what has to be written gets
//! 503, readiness says no, and what was acknowledged is there afterwards.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use support::{Client, Instance, Server, eventually};

#[path = "disk/failing.rs"]
mod failing;
#[path = "../src/testing.rs"]
mod testing;

use failing::{FailingDisk, Fault, Work};

/// A file system in memory, of so many bytes, in an instance's folder; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this machine doesn't let anybody mount one.
    fn new(instance: &mut Instance, size: &str) -> Option<Self> {
        let folder = instance.path("disk");
        fs::create_dir(&folder).unwrap();
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&folder).status();
        if !mounted.is_ok_and(|status| status.success()) {
            testing::not_run("tests/disk.rs", "a tmpfs can't be mounted here");
            return None;
        }
        let disk = Self(folder);
        move_database(instance, &disk.0);
        Some(disk)
    }

    /// Mounts it again, `ro` or `rw`.
    fn remount(&self, how: &str) -> bool {
        let status = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).status();
        status.is_ok_and(|status| status.success())
    }

    fn fill(&self) {
        let filler = self.0.join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        for block in [1 << 16, 4096, 512, 1] {
            while std::io::Write::write_all(&mut file, &vec![0; block]).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Puts the database into the folder `disk`, and leaves a link: the tests look at it where it was.
fn move_database(instance: &mut Instance, to: &std::path::Path) {
    fs::copy(instance.path("mcias.db"), to.join("mcias.db")).unwrap();
    fs::remove_file(instance.path("mcias.db")).unwrap();
    std::os::unix::fs::symlink("disk/mcias.db", instance.path("mcias.db")).unwrap();
    instance.set("database", "path", "\"disk/mcias.db\"");
}

/// An instance on a disk that fails on command; none where this machine doesn't let anybody mount one.
fn on_a_failing_disk(test: &str) -> Option<(Instance, FailingDisk)> {
    let mut instance = Instance::new();
    let (folder, at) = (instance.path("behind"), instance.path("disk"));
    fs::create_dir(&folder).unwrap();
    fs::create_dir(&at).unwrap();
    match FailingDisk::mount(&folder, &at) {
        Ok(disk) => {
            move_database(&mut instance, &at);
            Some((instance, disk))
        }
        Err(e) => {
            testing::not_run(test, &format!("a FUSE file system can't be mounted here: {e}"));
            None
        }
    }
}

/// Insists that the server is read-only: it says so, answers checks, and refuses what has to be written, which then
/// didn't happen.
#[track_caller]
fn is_read_only(server: &Server, user: &Client) {
    let admin = server.admin();
    server.client().get("/v1/ready").expect(503, "unavailable");
    server.client().get("/v1/health").ok(200);
    assert!(user.is_good(), "checks go on");
    user.get("/v1/auth/me").ok(200);
    admin.get("/v1/accounts").ok(200);
    let made = admin.post("/v1/accounts").json(json!({"username": "refused", "account_type": "system"}));
    assert!(made.expect(503, "unavailable").header("retry-after").is_some());
    user.try_login(user.username(), user.password()).expect(503, "unavailable");
    user.post("/v1/auth/logout").expect(503, "unavailable");
    assert!(user.is_good(), "what was refused didn't happen");
}

/// Tries to write until it is refused.
#[track_caller]
fn a_write_is_refused(server: &Server) {
    let mut n = 0;
    eventually("a write is refused", || {
        n += 1;
        let body = json!({"username": format!("n{n}"), "account_type": "system"});
        server.admin().post("/v1/accounts").json(body).send().status == 503
    });
}

#[test]
fn a_full_disk_is_read_only_until_there_is_room() {
    let mut instance = Instance::new();
    let Some(disk) = SmallDisk::new(&mut instance, "3m") else { return };
    let mut server = instance.start();
    let admin = server.admin();
    let alice = server.human("alice");
    let other = alice.again();
    server.client().get("/v1/ready").ok(200);

    disk.fill();
    // The log may have had room left inside itself.
    eventually("a write is refused", || {
        admin.put(&format!("/v1/accounts/{}/roles", alice.id())).json(json!({"roles": ["a"]})).send().status == 503
            || admin.put(&format!("/v1/accounts/{}/roles", alice.id())).json(json!({"roles": []})).send().status == 503
    });
    let refused = admin.post("/v1/accounts").json(json!({"username": "bob", "account_type": "system"}));
    assert!(refused.expect(503, "unavailable").header("retry-after").is_some());
    server.client().get("/v1/ready").expect(503, "unavailable");
    server.client().get("/v1/health").ok(200);
    assert!(alice.is_good(), "checks go on");
    alice.get("/v1/auth/me").ok(200);
    server.client().try_login("alice", alice.password()).expect(503, "unavailable");
    other.post("/v1/auth/logout").expect(503, "unavailable");
    assert!(other.is_good(), "what was refused didn't happen");

    disk.make_room();
    eventually("the server is ready by itself", || server.client().get("/v1/ready").send().status == 200);
    admin.post("/v1/accounts").json(json!({"username": "bob", "account_type": "system"})).ok(201);
    other.post("/v1/auth/logout").ok(204);
    assert!(!other.is_good());
    server.stop();
    assert!(!disk.0.join("mcias.db-wal").exists());
}

#[test]
fn after_an_io_error_only_a_restart_trusts_the_file() {
    let mut server = Server::start();
    let admin = server.admin();
    let alice = server.human("alice");
    let mark = server.log().mark();
    // A file may not grow beyond where the log is now: the write fails with EFBIG, which is no full disk.
    let limit = fs::metadata(server.path("mcias.db-wal")).map_or(4096, |log| log.len());
    let pid = server.pid().as_raw_nonzero().to_string();
    let limited = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={limit}:")]).status();
    assert!(limited.is_ok_and(|status| status.success()), "prlimit is in util-linux");
    eventually("a write is refused", || {
        let body = json!({"username": format!("n{}", support::now()), "account_type": "system"});
        admin.post("/v1/accounts").json(body).send().status == 503
    });
    server.client().get("/v1/ready").expect(503, "unavailable");
    assert!(alice.is_good(), "checks go on");
    let unlimited = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status();
    assert!(unlimited.is_ok_and(|status| status.success()));
    server.log().wait_since(mark, &["ERROR", "takes no writes", "not trusted before a restart"]);
    server.client().get("/v1/ready").expect(503, "unavailable");
    server.restart();
    server.client().get("/v1/ready").ok(200);
    assert!(alice.is_good());
    alice.post("/v1/auth/logout").ok(204);
    server.is_sound();
}

#[test]
fn a_disk_that_says_it_is_full_clears_by_itself() {
    let Some((instance, disk)) = on_a_failing_disk("a_disk_that_says_it_is_full_clears_by_itself") else { return };
    let mut server = instance.start();
    let alice = server.human("alice");
    let mark = server.log().mark();
    disk.fails(Fault::no_space());
    a_write_is_refused(&server);
    is_read_only(&server, &alice);
    server.log().wait_since(mark, &["ERROR", "takes no writes", "full"]);
    assert!(disk.works() > 0);
    server.log().wait_since(mark, &["the database takes writes again"]);
    server.client().get("/v1/ready").ok(200);
    alice.post("/v1/auth/logout").ok(204);
    assert!(!alice.is_good());
    server.stop();
    server.is_sound();
}

#[test]
fn what_mciasdb_cannot_write_or_read_it_says() {
    let Some((instance, disk)) = on_a_failing_disk("what_mciasdb_cannot_write_or_read_it_says") else { return };
    let create = ["account", "create", "--username", "one", "--type", "system"];
    instance.db(&["account", "list"]);
    let events = instance.events().len();
    disk.fails(Fault::no_space());
    instance.db_fails(1, &create, &["full"]);
    instance.db(&["account", "list"]);
    for work in [Work::Write, Work::Sync] {
        disk.fails(Fault::io(work, "-wal"));
        instance.db_fails(1, &create, &["I/O"]);
    }
    disk.fails(Fault::io(Work::Read, "mcias.db"));
    instance.db_fails(1, &["account", "list"], &["I/O"]);
    instance.refuses().says(1, &["cannot open the database", "I/O"]);
    assert!(disk.works() > 0);
    assert_eq!(instance.query::<String>("SELECT username FROM accounts", []), ["admin"], "nothing by halves");
    assert_eq!(instance.is_sound().len(), events);
    instance.db(&create);
}

#[test]
fn after_a_sync_that_failed_only_a_restart_trusts_the_file() {
    for (of, name) in [("-wal", "the log"), ("mcias.db", "the database")] {
        let test = "after_a_sync_that_failed_only_a_restart_trusts_the_file";
        let Some((instance, disk)) = on_a_failing_disk(test) else { return };
        let mut server = instance.start();
        let alice = server.human("alice");
        server.client().get("/v1/ready").ok(200);
        let mark = server.log().mark();
        disk.fails(Fault::io(Work::Sync, of));
        a_write_is_refused(&server);
        assert!(disk.works() > 0, "a sync of {name} failed");
        // The disk is well, and nobody believes it.
        is_read_only(&server, &alice);
        server.log().wait_since(mark, &["ERROR", "takes no writes", "not trusted before a restart"]);
        is_read_only(&server, &alice);
        server.kill();
        server.start_again();
        server.client().get("/v1/ready").ok(200);
        assert!(alice.is_good(), "what was acknowledged is there");
        alice.post("/v1/auth/logout").ok(204);
        server.stop();
        server.is_sound();
    }
}

#[test]
fn a_write_that_failed_is_an_io_error_as_well() {
    let Some((instance, disk)) = on_a_failing_disk("a_write_that_failed_is_an_io_error_as_well") else { return };
    let mut server = instance.start();
    let alice = server.human("alice");
    disk.fails(Fault::io(Work::Write, "-wal"));
    a_write_is_refused(&server);
    is_read_only(&server, &alice);
    disk.works();
    is_read_only(&server, &alice);
    server.kill();
    server.start_again();
    server.client().get("/v1/ready").ok(200);
    alice.post("/v1/auth/logout").ok(204);
    server.stop();
    server.is_sound();
}

#[test]
fn where_nothing_can_be_read_a_token_is_neither_good_nor_bad() {
    let test = "where_nothing_can_be_read_a_token_is_neither_good_nor_bad";
    let Some((instance, disk)) = on_a_failing_disk(test) else { return };
    let mut server = instance.start();
    let alice = server.human("alice");
    let gone = alice.again();
    gone.post("/v1/auth/logout").ok(204);
    let validate = |client: &Client| server.client().post("/v1/token/validate").json(json!({"token": client.token()}));
    // Another process changes the database, so that nobody goes on believing what they have read before.
    server.db(&["account", "create", "--username", "one", "--type", "system"]);
    disk.fails(Fault::io(Work::Read, ""));
    for _ in 0..20 {
        for client in [&alice, &gone] {
            validate(client).expect(503, "unavailable");
            client.get("/v1/token/validate").expect(503, "unavailable");
            client.get("/v1/auth/me").expect(503, "unavailable");
        }
        server.client().try_login("alice", alice.password()).expect(503, "unavailable");
        server.client().get("/.well-known/jwks.json").expect(503, "unavailable");
    }
    server.client().get("/v1/ready").expect(503, "unavailable");
    server.client().get("/v1/health").ok(200);
    assert!(disk.works() > 0);
    // What can be read again is right again; only writing waits for a restart.
    assert!(alice.is_good() && !gone.is_good());
    is_read_only(&server, &alice);
    server.kill();
    server.start_again();
    server.client().get("/v1/ready").ok(200);
    assert!(alice.is_good() && !gone.is_good());
    server.stop();
    server.is_sound();
}

#[test]
fn a_disk_that_becomes_read_only_is_served_from_also_after_a_restart() {
    let test = "a_disk_that_becomes_read_only_is_served_from_also_after_a_restart";
    let Some((instance, disk)) = on_a_failing_disk(test) else { return };
    let mut server = instance.start();
    let alice = server.human("alice");
    disk.fails(Fault::read_only());
    a_write_is_refused(&server);
    is_read_only(&server, &alice);
    server.stop();
    // Its end couldn't be written, and its log couldn't be removed; so a start works in that state.
    let mark = server.log().mark();
    server.start_again();
    server.log().wait_since(mark, &["ERROR", "the start can't be written to the database"]);
    assert!(alice.is_good());
    server.client().get("/v1/ready").expect(503, "unavailable");
    alice.post("/v1/auth/logout").expect(503, "unavailable");
    assert!(disk.works() > 0);
    server.restart();
    server.client().get("/v1/ready").ok(200);
    alice.post("/v1/auth/logout").ok(204);
    server.stop();
    server.is_sound();
}

#[test]
fn a_start_on_a_full_disk_answers_checks_and_begins_when_there_is_room() {
    let mut instance = Instance::new();
    let Some(disk) = SmallDisk::new(&mut instance, "3m") else { return };
    let mut server = instance.start();
    let alice = server.human("alice");
    let gone = alice.again();
    gone.post("/v1/auth/logout").ok(204);
    server.admin();
    server.kill();
    disk.fill();
    let mark = server.log().mark();
    server.start_again();
    server.log().wait_since(mark, &["ERROR", "the start can't be written to the database", "full"]);
    assert!(!gone.is_good());
    is_read_only(&server, &alice);
    let count = server.events().len();
    disk.make_room();
    server.log().wait_since(mark, &["the database takes writes again"]);
    eventually("the start is written", || server.events_since(count).iter().any(|e| e.kind == "server_started"));
    server.client().get("/v1/ready").ok(200);
    alice.post("/v1/auth/logout").ok(204);
    server.stop();
    server.is_sound();
}

#[test]
fn a_start_on_a_read_only_disk_answers_checks() {
    let mut instance = Instance::new();
    let Some(disk) = SmallDisk::new(&mut instance, "16m") else { return };
    let mut server = instance.start();
    let alice = server.human("alice");
    let gone = alice.again();
    gone.post("/v1/auth/logout").ok(204);
    server.admin();
    // The machine went down, and the disk comes back read-only.
    server.kill();
    assert!(disk.remount("ro"), "a tmpfs can be remounted");
    let mark = server.log().mark();
    server.start_again();
    server.log().wait_since(mark, &["ERROR", "the start can't be written to the database"]);
    assert!(!gone.is_good());
    is_read_only(&server, &alice);
    server.stop();
    assert!(disk.remount("rw"), "a tmpfs can be remounted");
    server.start_again();
    server.client().get("/v1/ready").ok(200);
    alice.post("/v1/auth/logout").ok(204);
    server.stop();
    server.is_sound();

    // After a clean end there is no log beside it, and SQLite can't open it there; it is said why.
    assert!(disk.remount("ro"), "a tmpfs can be remounted");
    server.refuses().says(1, &["cannot open the database", "disk/mcias.db", "its disk is read-only"]);
    assert!(disk.remount("rw"), "a tmpfs can be remounted");
    server.start_again();
    server.client().get("/v1/ready").ok(200);
}
