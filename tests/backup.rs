//! `mciasdb backup`, and `mciasdb verify` on what it made: consistent while the server writes, sealed to the bit, never
//! in the place of another file, also from a disk that is full or can't be written.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use mcias::secretfile::key_bytes;
use mcias::service::backup::Backup;
use mcias::service::keys::MasterSecret;
use rusqlite::{Connection, OpenFlags};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use support::{Instance, Mount, Server, eventually, tree};

/// An instance with something of each kind in it.
fn filled() -> Instance {
    let mut server = Server::start();
    let alice = server.human("alice");
    server.turn_totp_on(alice.id());
    let robot = server.system("robot");
    let address = json!({"host": "db", "port": 5432, "database": "app", "username": "app", "password": "a secret"});
    server.admin().put(&format!("/v1/accounts/{}/pgcreds", robot.id())).json(address).ok(204);
    server.admin().put(&format!("/v1/accounts/{}/roles", alice.id())).json(json!({"roles": ["a", "b"]})).ok(204);
    server.stop();
    server.into_instance()
}

fn names_in(backup: &Path) -> Vec<String> {
    let connection = Connection::open_with_flags(backup, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut statement = connection.prepare("SELECT username FROM accounts").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_backup_made_while_the_server_writes_holds_all_that_was_acknowledged() {
    let server = Server::start();
    let acknowledged = Mutex::new(Vec::new());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (admin, acknowledged, done) = (server.admin(), &acknowledged, &done);
            scope.spawn(move || {
                for n in 0.. {
                    let name = format!("n-{thread}-{n}");
                    admin.post("/v1/accounts").json(json!({"username": name, "account_type": "system"})).ok(201);
                    acknowledged.lock().unwrap().push(name);
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        for n in 0..8 {
            let had = acknowledged.lock().unwrap().len();
            eventually("there is more", || acknowledged.lock().unwrap().len() > had + 10);
            let before = acknowledged.lock().unwrap().clone();
            let file = format!("backup-{n}.db");
            assert_eq!(server.db(&["backup", "--out", &file]), "");
            // Had the server stood still this would show nothing.
            assert!(acknowledged.lock().unwrap().len() > before.len(), "nothing was written meanwhile");
            let there = names_in(&server.path(&file));
            assert!(before.iter().all(|name| there.contains(name)), "backup {n}");
            assert!(server.db(&["verify", "--file", &file]).starts_with("sound: "));
            // The database itself, too, while it is written.
            assert!(server.db(&["verify"]).starts_with("sound: "));
        }
        done.store(true, Ordering::Relaxed);
    });
    let made: Vec<_> = server.events().into_iter().filter(|event| event.kind == "backup_made").collect();
    assert_eq!(made.len(), 8);
    assert!(made.iter().all(|event| event.via == "mciasdb" && event.details == json!({})));
    server.is_sound();
}

#[test]
fn it_is_one_private_file_that_is_never_put_in_the_place_of_another() {
    let instance = filled();
    let before: Vec<_> = tree(instance.folder()).into_keys().collect();
    fs::set_permissions(instance.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(instance.db(&["backup", "--out", "b.db"]), "");
    let new: Vec<_> = tree(instance.folder()).into_keys().filter(|path| !before.contains(path)).collect();
    assert_eq!(new, [instance.path("b.db")]);
    let file = instance.path("b.db").metadata().unwrap();
    let folder = instance.folder().metadata().unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o600, folder.uid(), folder.gid()));
    assert_eq!(instance.last_event().kind, "backup_made");
    let anchored: i64 = instance.query_one("SELECT max(last_id) FROM audit_checkpoints", []);
    assert_eq!(anchored, instance.last_event().id);

    let events = instance.events().len();
    let bytes = instance.read("b.db");
    instance.db_fails(1, &["backup", "--out", "b.db"], &["b.db is there already", "nothing was changed"]);
    symlink("nowhere", instance.path("link.db")).unwrap();
    instance.db_fails(1, &["backup", "--out", "link.db"], &["link.db is there already"]);
    instance.db_fails(1, &["backup", "--out", "mcias.db"], &["mcias.db is there already"]);
    instance.db_fails(1, &["backup", "--out", "nowhere/b.db"], &["No such file"]);
    assert_eq!((instance.read("b.db"), instance.events().len()), (bytes, events));
}

#[test]
fn it_belongs_to_whom_the_folder_of_the_database_belongs_to() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: not root here");
        assert!(std::env::var_os("CI").is_none(), "in CI everything runs");
        return;
    }
    let instance = filled();
    let out = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(instance.folder(), Some(12345), Some(54321)).unwrap();
    let file = out.path().join("b.db");
    instance.db(&["backup", "--out", file.to_str().unwrap()]);
    let metadata = file.metadata().unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o600, 12345, 54321));
}

#[test]
fn a_bit_that_flips_anywhere_is_found_and_the_file_is_only_read() {
    let instance = filled();
    instance.db(&["backup", "--out", "b.db"]);
    let good = instance.read("b.db");
    let page = usize::from(u16::from_be_bytes([good[16], good[17]]));
    assert!(good.len() > 20 * page, "there is something to flip");
    let flipped = |at: usize, bit: u32| {
        let mut bad = good.clone();
        bad[at] ^= 1 << bit;
        bad
    };

    // The whole program, on each page: where it begins, in the middle, and its last byte.
    let mut random = 1u32;
    for at in (0..good.len()).step_by(page).flat_map(|begin| [begin + 3, begin + page / 2, begin + page - 1]) {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let bad = flipped(at, random >> 29);
        instance.write("bad.db", &bad);
        instance.db_fails(1, &["verify", "--file", "bad.db"], &["bad.db"]);
        assert!(instance.read("bad.db") == bad, "it was written to");
    }
    for (what, bad) in [("cut", good[..good.len() - page].to_vec()), ("longer", [&good[..], &[0]].concat())] {
        instance.write("bad.db", &bad);
        let line = instance.db_fails(1, &["verify", "--file", "bad.db"], &["bad.db"]);
        assert!(line.contains("changed") || line.contains("malformed") || line.contains("seal"), "{what}: {line}");
    }
    assert!(instance.path("bad.db-journal").metadata().is_err() && instance.path("bad.db-wal").metadata().is_err());

    // The same code without a process for each, on every byte of the header, and on some of every page's.
    let master = MasterSecret::KeyFile(key_bytes(&instance.read("master.key")).unwrap());
    let path = instance.path("bad.db");
    let holds = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Backup::open(&path, &master).and_then(|backup| backup.check_seal(&mut |_, _, _| {})).is_ok()
    };
    assert!(holds(&good));
    for at in (0..108).chain((108..good.len()).step_by(97)) {
        assert!(!holds(&flipped(at, at as u32 % 8)), "a bit of byte {at}");
    }
    assert!(holds(&good));
}

#[test]
fn what_is_no_backup_of_ours_is_told_apart() {
    let instance = filled();
    instance.db(&["backup", "--out", "b.db"]);
    let other = Instance::new();
    other.db(&["backup", "--out", "b.db"]);
    fs::copy(other.path("b.db"), instance.path("others.db")).unwrap();
    instance.write("text.db", "this is no database at all".repeat(1000));
    instance.write("empty.db", "");
    instance.db_fails(1, &["verify", "--file", "none.db"], &["none.db", "No such file"]);
    instance.db_fails(1, &["verify", "--file", "."], &["no file"]);
    instance.db_fails(1, &["verify", "--file", "text.db"], &["text.db", "not a database"]);
    instance.db_fails(1, &["verify", "--file", "empty.db"], &["no backup: it has no seal"]);
    instance.db_fails(1, &["verify", "--file", "mcias.db"], &["no backup: it has no seal"]);
    instance.db_fails(1, &["verify", "--file", "others.db"], &["the master key does not open this database"]);

    // One of a program to come, sealed or not.
    let newer = instance.path("newer.db");
    fs::copy(instance.path("b.db"), &newer).unwrap();
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    instance.db_fails(1, &["verify", "--file", "newer.db"], &["schema version 99, newer than this program's"]);

    // Rows changed by whoever can write the file, and a part of the schema.
    for change in [
        "INSERT INTO account_roles SELECT id, 'admin', NULL, 0 FROM accounts WHERE username = 'alice'",
        "DROP TRIGGER audit_log_no_update",
        "DROP INDEX audit_log_time",
        "UPDATE backup_seal SET made_at = made_at + 1",
        "UPDATE backup_seal SET data_key = 7",
        "UPDATE backup_seal SET version = 2",
        "UPDATE backup_seal SET file = zeroblob(32)",
        "INSERT INTO backup_seal SELECT * FROM backup_seal",
        "DELETE FROM backup_seal",
    ] {
        fs::copy(instance.path("b.db"), instance.path("edited.db")).unwrap();
        Connection::open(instance.path("edited.db")).unwrap().execute_batch(change).unwrap();
        instance.db_fails(1, &["verify", "--file", "edited.db"], &["edited.db", "seal"]);
    }
    assert!(instance.db(&["verify", "--file", "b.db"]).starts_with("sound: "));
}

#[test]
fn a_backup_is_verified_on_a_medium_that_can_not_be_written() {
    let instance = filled();
    let Some(medium) = Mount::new(instance.path("medium"), "2m") else { return };
    let file = medium.path().join("b.db");
    instance.db(&["backup", "--out", file.to_str().unwrap()]);
    medium.make_read_only();
    assert!(instance.db(&["verify", "--file", file.to_str().unwrap()]).contains("the seal fits"));
}

/// An instance whose database is on a file system of its own.
fn on_a_disk(size: &str) -> Option<(Instance, Mount)> {
    let mut instance = filled();
    let disk = Mount::new(instance.path("disk"), size)?;
    fs::copy(instance.path("mcias.db"), disk.path().join("mcias.db")).unwrap();
    fs::remove_file(instance.path("mcias.db")).unwrap();
    instance.set("database", "path", "\"disk/mcias.db\"");
    Some((instance, disk))
}

#[test]
fn from_a_full_disk_a_backup_to_another_place_works_and_warns() {
    let Some((instance, disk)) = on_a_disk("3m") else { return };
    let server = instance.start();
    let last = server.human("last");
    disk.fill();
    // The write-ahead log may have room left inside itself.
    let path = format!("/v1/accounts/{}/roles", last.id());
    eventually("a write is refused", || {
        ["a", "b"].iter().any(|role| server.admin().put(&path).json(json!({"roles": [role]})).send().status == 503)
    });
    let (stdout, stderr) = server.db_says(&["backup", "--out", "b.db"]);
    assert_eq!(stdout, "");
    assert!(stderr.contains("the backup is made, but the audit log couldn't be told"), "{stderr}");
    assert!(names_in(&server.path("b.db")).contains(&"last".to_owned()));
    server.db(&["verify", "--file", "b.db"]);
    // To the full disk itself it doesn't, and leaves nothing there.
    let before = fs::read_dir(disk.path()).unwrap().count();
    server.db_fails(1, &["backup", "--out", "disk/b.db"], &["disk/b.db", "full"]);
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), before);
}

#[test]
fn from_a_disk_that_can_not_be_written_a_backup_to_another_place_works_and_warns() {
    for killed in [false, true] {
        let Some((instance, disk)) = on_a_disk("3m") else { return };
        let mut server = instance.start();
        server.human("last");
        if killed {
            server.kill();
        } else {
            server.stop();
        }
        assert_eq!(disk.path().join("mcias.db-wal").exists(), killed);
        disk.make_read_only();
        let (_, stderr) = server.db_says(&["backup", "--out", "b.db"]);
        assert!(stderr.contains("the audit log couldn't be told"), "{stderr}");
        assert!(names_in(&server.path("b.db")).contains(&"last".to_owned()), "killed: {killed}");
        server.db(&["verify", "--file", "b.db"]);
        server.db(&["verify"]);
    }
}

/// Whether this process, and so what it starts, doesn't hear a signal.
fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
}

#[test]
fn a_backup_that_a_signal_ends_leaves_nothing() {
    let instance = filled();
    let partials = || {
        let names = fs::read_dir(instance.folder()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().contains(".partial")).count()
    };
    for (name, signal, code) in [("INT", Signal::INT, 130), ("TERM", Signal::TERM, 143), ("HUP", Signal::HUP, 129)] {
        if is_ignored(signal) {
            // By nohup, say: then it means nothing to what we start either.
            let mut child = instance.mciasdb(&["backup", "--out", &format!("{name}.db")]).spawn().unwrap();
            while partials() == 0 && child.try_wait().unwrap().is_none() {}
            let _ = kill_process(Pid::from_child(&child), signal); // it may be gone by now
            assert!(child.wait().unwrap().success() && partials() == 0, "{name}");
            continue;
        }
        // One that is done before the signal is there has no part in this.
        let ended = (0..200).any(|n| {
            let file = format!("{name}-{n}.db");
            let mut child = instance.mciasdb(&["backup", "--out", &file]).spawn().unwrap();
            while partials() == 0 && child.try_wait().unwrap().is_none() {}
            // It may be gone by now.
            let _ = kill_process(Pid::from_child(&child), signal);
            let ended = child.wait().unwrap();
            assert_eq!(partials(), 0, "{name}: {ended}");
            assert!(ended.success() || (ended.code(), instance.path(&file).exists()) == (Some(code), false), "{ended}");
            !ended.success()
        });
        assert!(ended, "{name} came too late every time");
    }
}

#[test]
fn a_backup_that_was_killed_leaves_no_file_of_its_name_and_the_next_clears_up() {
    let instance = filled();
    let named = |instance: &Instance| instance.path("b.db").exists();
    let partials = |instance: &Instance| {
        let names = fs::read_dir(instance.folder()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().contains(".partial")).count()
    };
    let mut left = 0;
    for n in 0..24 {
        let mut child = instance.mciasdb(&["backup", "--out", "b.db"]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(3 * n));
        child.kill().unwrap();
        child.wait().unwrap();
        left += partials(&instance);
        if named(&instance) {
            instance.db(&["verify", "--file", "b.db"]);
            fs::remove_file(instance.path("b.db")).unwrap();
        }
    }
    eprintln!("{left} of 24 left something");
    instance.db(&["backup", "--out", "b.db"]);
    assert_eq!(partials(&instance), 0);
    instance.is_sound();
}
