//! A disk that is full or fails: the server goes read-only. Checks are answered, what has to be written gets 503,
//! readiness says no, and what was acknowledged is there afterwards.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use support::{Instance, Server, eventually};

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
            eprintln!("NOT RUN: tests/disk.rs: a tmpfs can't be mounted here");
            assert!(std::env::var_os("CI").is_none(), "in CI everything runs");
            return None;
        }
        let disk = Self(folder);
        fs::copy(instance.path("mcias.db"), disk.0.join("mcias.db")).unwrap();
        fs::remove_file(instance.path("mcias.db")).unwrap();
        instance.set("database", "path", "\"disk/mcias.db\"");
        Some(disk)
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
    std::thread::sleep(std::time::Duration::from_secs(6));
    server.client().get("/v1/ready").expect(503, "unavailable");
    server.restart();
    server.client().get("/v1/ready").ok(200);
    assert!(alice.is_good());
    alice.post("/v1/auth/logout").ok(204);
    server.is_sound();
}
