//! What any engine behind `store` has to keep. Everything here goes through [`Store`]; what an engine has of its own
//! (how it is opened, and how somebody else gets at its rows) is behind [`Engine`], so that another can be dropped in.

use std::any::Any;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mcias::error::{Error, Kind, Result};
use mcias::model::account::{AccountId, AccountType, RoleName, Username};
use mcias::model::audit::{Checkpoint, Event, EventType, NewEvent, Occasion, Party, Via, canonical};
use mcias::model::time::{Millis, Timestamp};
use mcias::model::token::{Audience, Jti, RevokeReason};
use mcias::secret::Sealed;
use mcias::store::{Condition, KeyPurpose, KeyRow, LATEST_SCHEMA, NewAccountRow, NewTokenRow, Store, Tx};
use sha2::{Digest, Sha256};

#[path = "../src/testing.rs"]
mod testing;

/// One empty database of the engine that is tested.
trait Engine: Sync {
    /// Opens it, as one process would. It can be open several times.
    fn open(&self) -> Store;

    /// Changes it behind the store's back, as somebody else would who has the rights.
    fn behind(&self, sql: &str) -> std::result::Result<(), String>;

    /// Asks it behind the store's back.
    fn count(&self, sql: &str) -> i64;

    /// The audit log, oldest first.
    fn events(&self) -> Vec<Event>;

    /// What lies about after the last handle is closed, beside the database itself.
    fn leftovers(&self) -> Vec<String>;

    /// Takes the right to write, as a stuck process would, until the returned value is dropped.
    fn stall(&self) -> Box<dyn Any>;
}

/// The engine there is.
fn engine() -> Sqlite {
    Sqlite::in_folder(tempfile::tempdir().unwrap())
}

struct Sqlite {
    folder: tempfile::TempDir,
}

impl Sqlite {
    fn in_folder(folder: tempfile::TempDir) -> Self {
        Self { folder }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("t.db")
    }

    fn connection(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.path()).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        connection.pragma_update(None, "foreign_keys", true).unwrap();
        connection
    }
}

impl Engine for Sqlite {
    fn open(&self) -> Store {
        Store::open_and_migrate(&self.path(), occasion()).unwrap()
    }

    fn behind(&self, sql: &str) -> std::result::Result<(), String> {
        self.connection().execute_batch(sql).map_err(|e| e.to_string())
    }

    fn count(&self, sql: &str) -> i64 {
        self.connection().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn events(&self) -> Vec<Event> {
        let connection = self.connection();
        let sql = "SELECT id, event_time, event_type, via, actor_uuid, actor_name, target_uuid, target_name,
            ip_address, details, hash FROM audit_log ORDER BY id";
        let mut statement = connection.prepare(sql).unwrap();
        let party = |row: &rusqlite::Row<'_>, at: usize| -> rusqlite::Result<Option<Party>> {
            let (id, name): (Option<String>, Option<String>) = (row.get(at)?, row.get(at + 1)?);
            Ok(id.zip(name).map(|(id, name)| Party {
                id: AccountId::parse(&id).unwrap(),
                username: Username::parse(&name).unwrap(),
            }))
        };
        let rows = statement.query_map([], |row| {
            Ok(Event {
                id: row.get(0)?,
                time: Millis::new(row.get(1)?),
                event_type: EventType::from_word(&row.get::<_, String>(2)?).unwrap(),
                via: Via::from_word(&row.get::<_, String>(3)?).unwrap(),
                actor: party(row, 4)?,
                target: party(row, 6)?,
                ip: row.get(8)?,
                details: serde_json::from_str(&row.get::<_, String>(9)?).unwrap(),
                hash: row.get(10)?,
            })
        });
        rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    fn leftovers(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).filter(|name| name != "t.db").collect()
    }

    fn stall(&self) -> Box<dyn Any> {
        let connection = self.connection();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Box::new(connection)
    }
}

const NOW: Timestamp = Timestamp::new(1_800_000_000);

fn occasion() -> Occasion {
    Occasion { time: Millis::new(1_800_000_000_000), via: Via::Server, ip: Some([192, 0, 2, 7].into()) }
}

/// A UUID that is different for every number.
fn uuid(n: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(n << 96 | n)
}

fn sealed(byte: u8) -> Sealed {
    Sealed { nonce: [byte; 12], ciphertext: vec![byte; 60] }
}

fn new_account(n: u128, name: &str) -> NewAccountRow {
    NewAccountRow {
        id: AccountId::new(uuid(n)),
        username: Username::parse(name).unwrap(),
        account_type: AccountType::Human,
        password: Some(sealed(1)),
        created_at: NOW,
    }
}

/// Makes an account, and says who it is.
fn account(store: &Store, n: u128, name: &str) -> AccountId {
    let row = new_account(n, name);
    let id = row.id;
    assert!(store.write(move |tx| tx.insert_account(&row)).unwrap());
    id
}

fn signing_key(store: &Store, kid: &str, purpose: KeyPurpose) {
    let kid = kid.to_owned();
    let insert = move |tx: &Tx<'_>| {
        tx.insert_signing_key(&KeyRow {
            kid: kid.clone(),
            purpose,
            public: [7; 32],
            private: sealed(2),
            created_at: NOW,
            signs_from: NOW,
            retired_at: None,
            verify_until: None,
            revoked_at: None,
        })
    };
    store.write(insert).unwrap();
}

fn new_token(n: u128, account: AccountId, parent: Option<u128>) -> NewTokenRow {
    NewTokenRow {
        jti: Jti::new(uuid(n)),
        account,
        kid: "k1".into(),
        audience: Audience::parse("https://auth.example.com").unwrap(),
        parent: parent.map(|n| Jti::new(uuid(n))),
        issued_at: NOW,
        expires_at: NOW.plus(3600),
        auth_time: NOW,
        digest: [0; 16],
    }
}

fn token(store: &Store, n: u128, account: AccountId, parent: Option<u128>) -> Result<()> {
    let row = new_token(n, account, parent);
    store.write(move |tx| tx.insert_token(&row))
}

fn is_revoked(store: &Store, n: u128) -> bool {
    store.read(|view| view.token_state(Jti::new(uuid(n)))).unwrap().unwrap().revoked
}

fn put(store: &Store, key: &str, value: u32) -> Result<()> {
    let key = key.to_owned();
    store.write(move |tx| tx.put_setting(&key, &value.to_be_bytes()))
}

fn get(store: &Store, key: &str) -> Option<u32> {
    store.read(|view| view.setting(key)).unwrap().map(|value| u32::from_be_bytes(value.try_into().unwrap()))
}

fn event(n: u32) -> NewEvent {
    NewEvent::of(EventType::LoginOk).with("n", n)
}

#[track_caller]
fn fails<T>(outcome: Result<T>, kind: Kind) {
    assert_eq!(outcome.map(drop).unwrap_err().kind(), kind);
}

/// Holds the writer, lets `meanwhile` queue writes, then lets go: they wait together and may share a transaction.
fn together<T>(store: &Store, meanwhile: impl FnOnce() -> T) -> T {
    let (begun, has_begun) = channel();
    let (let_go, go) = channel::<()>();
    std::thread::scope(|scope| {
        let go = Mutex::new(go);
        scope.spawn(move || {
            let first = AtomicBool::new(true);
            let hold = move |_: &Tx<'_>| {
                if first.swap(false, Ordering::SeqCst) {
                    begun.send(()).unwrap();
                    go.lock().unwrap().recv().unwrap();
                }
                Ok(())
            };
            store.write(hold).unwrap();
        });
        has_begun.recv().unwrap();
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            let_go.send(()).unwrap();
        });
        meanwhile()
    })
}

/// Checks every link of the chain, and gives its length.
fn unbroken(engine: &impl Engine) -> usize {
    let events = engine.events();
    let mut previous = [0; 32];
    for (event, place) in events.iter().zip(1..) {
        assert_eq!(event.id, place, "numbers have no gaps");
        let hash: [u8; 32] = Sha256::new().chain_update(previous).chain_update(canonical(event)).finalize().into();
        assert_eq!(event.hash, hash, "event {place} doesn't fit the one before");
        previous = hash;
    }
    events.len()
}

/// Runs one of the tests below in a process of its own, started by `launcher`; it does its part where
/// `MCIAS_TEST_FOLDER` is set.
fn in_another_process(test: &str, folder: &std::path::Path, launcher: &[&str]) {
    let own = std::env::current_exe().unwrap();
    let words = launcher.iter().map(std::ffi::OsStr::new).chain([own.as_os_str()]);
    let words: Vec<_> =
        words.chain(["--exact", test, "--nocapture", "--test-threads=1"].map(std::ffi::OsStr::new)).collect();
    let output = Command::new(words[0]).args(&words[1..]).env("MCIAS_TEST_FOLDER", folder).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// The folder, in a process that [`in_another_process`] has started.
fn own_folder() -> Option<std::path::PathBuf> {
    std::env::var_os("MCIAS_TEST_FOLDER").map(Into::into)
}

#[test]
fn what_a_closure_refuses_leaves_nothing() {
    let engine = engine();
    let store = engine.open();
    put(&store, "kept", 1).unwrap();
    let before = engine.events().len();
    let outcome: Result<()> = store.write(|tx| {
        tx.put_setting("kept", b"over")?;
        tx.put_setting("new", b"x")?;
        assert!(tx.insert_account(&new_account(1, "alice"))?);
        tx.append(event(1), occasion())?;
        assert_eq!(tx.setting("new")?.unwrap(), b"x", "it sees its own writes");
        Err(Error::conflict("no"))
    });
    fails(outcome, Kind::Conflict);
    assert_eq!((get(&store, "kept"), get(&store, "new")), (Some(1), None));
    assert_eq!(engine.count("SELECT count(*) FROM accounts"), 0);
    assert_eq!(engine.events().len(), before);
    put(&store, "next", 1).unwrap();
}

#[test]
fn what_was_acknowledged_is_seen_by_every_thread_handle_and_process() {
    if let Some(folder) = own_folder() {
        let store = Store::open(&folder.join("t.db")).unwrap();
        assert_eq!(get(&store, "n"), Some(99));
        return put(&store, "n", 100).unwrap();
    }
    let engine = engine();
    let (one, other) = (engine.open(), engine.open());
    // Each thread has read before, so it has a connection, and whatever that remembers, of its own.
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|n| {
                let (ask, asked) = channel::<u32>();
                let (answer, answered) = channel();
                let store = if n % 2 == 0 { &one } else { &other };
                scope.spawn(move || {
                    while let Ok(wanted) = asked.recv() {
                        answer.send(get(store, "n") == Some(wanted)).unwrap();
                    }
                });
                (ask, answered)
            })
            .collect();
        for n in 0..100 {
            put(if n % 3 == 0 { &other } else { &one }, "n", n).unwrap();
            for (ask, answered) in &readers {
                ask.send(n).unwrap();
                assert!(answered.recv().unwrap(), "{n}");
            }
        }
        drop(readers);
    });
    in_another_process("what_was_acknowledged_is_seen_by_every_thread_handle_and_process", engine.folder.path(), &[]);
    assert_eq!((get(&one, "n"), get(&other, "n")), (Some(100), Some(100)));
}

#[test]
fn a_closure_may_be_run_again_and_its_last_run_counts() {
    let engine = engine();
    let store = engine.open();
    // Whoever writes `boom` ends the whole transaction, whoever else is in it.
    engine
        .behind(
            "CREATE TRIGGER boom BEFORE INSERT ON server_config WHEN NEW.key = 'boom'
             BEGIN SELECT RAISE(ROLLBACK, 'boom'); END",
        )
        .unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let mut writes = 0;
    // Whether they wait together is for the scheduler to say; sooner or later they do.
    for attempt in 0..50 {
        together(&store, || {
            std::thread::scope(|scope| {
                for n in 0..8 {
                    let (store, runs) = (&store, runs.clone());
                    scope.spawn(move || {
                        let value = store.write(move |tx| {
                            tx.put_setting(&format!("fine{n}"), b"x")?;
                            tx.append(event(n), occasion())?;
                            Ok(runs.fetch_add(1, Ordering::SeqCst))
                        });
                        value.unwrap()
                    });
                }
                let failed = scope.spawn(|| put(&store, "boom", 1));
                fails(failed.join().unwrap(), Kind::Internal);
            });
        });
        writes += 8;
        assert_eq!(unbroken(&engine), 1 + writes as usize, "each write once, in attempt {attempt}");
        if runs.load(Ordering::SeqCst) > writes {
            break;
        }
    }
    assert!(runs.load(Ordering::SeqCst) > writes, "no closure was ever run again: nothing was shown");
    assert_eq!((get(&store, "boom"), engine.count("SELECT count(*) FROM server_config")), (None, 8));
}

#[test]
fn writes_that_wait_together_are_refused_one_by_one() {
    let engine = engine();
    let store = engine.open();
    together(&store, || {
        std::thread::scope(|scope| {
            for n in 0..20u32 {
                let store = &store;
                scope.spawn(move || {
                    let outcome = store.write(move |tx| {
                        tx.append(event(n), occasion())?;
                        if n % 2 == 0 { Ok(n) } else { Err(Error::conflict("odd")) }
                    });
                    assert_eq!(outcome.map_err(|e| e.kind()), if n % 2 == 0 { Ok(n) } else { Err(Kind::Conflict) });
                });
            }
        });
    });
    assert_eq!(unbroken(&engine), 1 + 10);
}

#[test]
fn a_closure_that_panics_takes_only_its_own_writes_along() {
    let engine = engine();
    let store = engine.open();
    together(&store, || {
        std::thread::scope(|scope| {
            for n in 0..6u32 {
                let store = &store;
                scope.spawn(move || {
                    let outcome = store.write(move |tx| {
                        tx.append(event(n), occasion())?;
                        assert!(n % 2 == 0, "on purpose");
                        Ok(())
                    });
                    assert_eq!(outcome.map_err(|e| e.kind()), if n % 2 == 0 { Ok(()) } else { Err(Kind::Internal) });
                });
            }
        });
    });
    assert_eq!(unbroken(&engine), 1 + 3);
    put(&store, "next", 1).unwrap();
    assert_eq!(store.condition(), Condition::Good);
}

#[test]
fn the_chain_is_unbroken_under_eight_writers_of_two_processes_worth() {
    let engine = engine();
    let stores = [engine.open(), engine.open()];
    std::thread::scope(|scope| {
        for thread in 0..8u32 {
            let store = &stores[thread as usize % 2];
            scope.spawn(move || {
                for n in 0..50 {
                    store.write(move |tx| tx.append(event(thread * 100 + n), occasion())).unwrap();
                }
            });
        }
    });
    assert_eq!(unbroken(&engine), 1 + 400);
    let said: HashSet<_> = engine.events().iter().skip(1).map(|event| event.details["n"].to_string()).collect();
    assert_eq!(said.len(), 400, "each event once");
    let head = stores[0].read(|view| view.audit_head()).unwrap();
    assert_eq!(head, (401, engine.events().last().unwrap().hash));
}

#[test]
fn an_event_keeps_all_that_was_said() {
    let engine = engine();
    let store = engine.open();
    let alice = Party { id: AccountId::new(uuid(1)), username: Username::parse("alice").unwrap() };
    let said = NewEvent::of(EventType::RoleGranted).by(Some(alice.clone())).to(Some(alice)).with("role", "\u{1f}ä\"|");
    let happened = Occasion { time: Millis::new(1_800_000_000_123), via: Via::Mciasdb, ip: Some([0; 16].into()) };
    let written = said.clone();
    store.write(move |tx| tx.append(written.clone(), happened)).unwrap();
    let event = engine.events().pop().unwrap();
    assert_eq!((event.id, event.time, event.via), (2, happened.time, Via::Mciasdb));
    assert_eq!((event.event_type, event.actor, event.target), (said.event_type, said.actor, said.target));
    assert_eq!((event.ip.as_deref(), event.details), (Some("::"), said.details));
    unbroken(&engine);
    assert_eq!(store.read(|view| view.newest_event_time()).unwrap(), Some(NOW));
}

#[test]
fn a_checkpoint_is_of_the_newest_event_as_its_transaction_sees_it() {
    let engine = engine();
    let store = engine.open();
    signing_key(&store, "audit", KeyPurpose::Audit);
    let sign = |behind: i64, kid: &'static str| {
        store.write(move |tx| {
            let (last_id, hash) = tx.audit_head()?;
            tx.append(event(1), occasion())?;
            let (last_id, hash) = if behind == 0 { tx.audit_head()? } else { (last_id, hash) };
            let (kid, signature) = (kid.to_owned(), [3; 64]);
            tx.insert_checkpoint(&Checkpoint { last_id, count: last_id, hash, time: 1, kid, signature, anchor: false })
        })
    };
    sign(0, "audit").unwrap();
    fails(sign(1, "audit"), Kind::Internal);
    fails(sign(0, "no such key"), Kind::Internal);
    assert_eq!(engine.count("SELECT count(*) FROM audit_checkpoints"), 1);
    assert_eq!(unbroken(&engine), 2, "what was refused left no event either");
}

#[test]
fn the_log_is_append_only() {
    let engine = engine();
    let store = engine.open();
    store.write(|tx| tx.append(event(1), occasion())).unwrap();
    for change in [
        "UPDATE audit_log SET details = '{}'",
        "UPDATE audit_log SET id = id + 10",
        "DELETE FROM audit_log",
        "DELETE FROM audit_log WHERE id = 2",
        "INSERT OR REPLACE INTO audit_log SELECT * FROM audit_log WHERE id = 1",
    ] {
        let refused = engine.behind(change).unwrap_err();
        assert!(refused.contains("append-only"), "{change}: {refused}");
    }
    assert_eq!(unbroken(&engine), 2);
}

#[test]
fn nothing_points_to_what_is_not_there() {
    let engine = engine();
    let store = engine.open();
    let alice = account(&store, 1, "alice");
    fails(token(&store, 10, alice, None), Kind::Internal);
    signing_key(&store, "k1", KeyPurpose::Token);
    token(&store, 10, alice, None).unwrap();
    fails(token(&store, 11, alice, Some(99)), Kind::Internal);
    fails(token(&store, 12, AccountId::new(uuid(99)), None), Kind::Internal);
    assert_eq!(engine.count("SELECT count(*) FROM token_revocation"), 1);
    for orphan in [
        "INSERT INTO account_roles VALUES (99, 'x', NULL, 1)",
        "INSERT INTO account_roles SELECT id, 'x', 99, 1 FROM accounts",
        "INSERT INTO system_tokens SELECT id, 'x', 'no such token' FROM accounts",
        "INSERT INTO pg_credentials VALUES (1, 99, 'default', 'h', 1, 'd', 'u', x'00', x'00', 1, 1)",
        "INSERT INTO audit_checkpoints VALUES (1, 1, 1, zeroblob(32), 1, 'no such key', zeroblob(64), 0)",
        "DELETE FROM accounts",
        "DELETE FROM signing_keys",
    ] {
        assert!(engine.behind(orphan).unwrap_err().contains("FOREIGN KEY"), "{orphan}");
    }
}

#[test]
fn a_name_is_one_accounts_at_a_time() {
    let engine = engine();
    let (one, other) = (engine.open(), engine.open());
    let made = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for n in 1..=8 {
            let (store, made) = (if n % 2 == 0 { &one } else { &other }, &made);
            scope.spawn(move || {
                let row = new_account(n, "Alice");
                made.fetch_add(u32::from(store.write(move |tx| tx.insert_account(&row)).unwrap()), Ordering::SeqCst);
            });
        }
    });
    assert_eq!(made.load(Ordering::SeqCst), 1);
    let twice = "INSERT INTO accounts (uuid, username, account_type, status, created_at, updated_at)
        VALUES ('x', 'alice', 'human', 'suspended', 1, 1)";
    assert!(engine.behind(twice).unwrap_err().contains("UNIQUE"), "not only the program sees to it");
    for n in 10..13 {
        engine.behind("UPDATE accounts SET status = 'deleted', deleted_at = 1").unwrap();
        let id = account(&one, n, "alice");
        let named = other.read(|view| view.account_named(&Username::parse("alice").unwrap())).unwrap().unwrap();
        assert_eq!(named.id, id);
    }
    assert_eq!(engine.count("SELECT count(*) FROM accounts WHERE username = 'alice'"), 4);
}

#[test]
fn an_account_comes_back_as_it_went_in() {
    let engine = engine();
    let store = engine.open();
    let id = account(&store, 1, "alice");
    let role = |name| RoleName::parse(name).unwrap();
    store
        .write(move |tx| {
            assert!(tx.grant_role(id, &role("ops"), None, NOW)?);
            assert!(tx.grant_role(id, &role("admin"), Some(id), NOW)?);
            assert!(!tx.grant_role(id, &role("ops"), None, NOW)?, "held already");
            tx.enable_totp(id, &sealed(3), 7, NOW)
        })
        .unwrap();
    let row = store.read(|view| view.login_row(id)).unwrap().unwrap();
    assert_eq!(row.account.roles, [role("admin"), role("ops")]);
    assert_eq!((row.account.username.as_str(), row.account.account_type), ("alice", AccountType::Human));
    assert!(row.account.totp_enabled && row.password == Some(sealed(1)) && row.totp.secret == Some(sealed(3)));
    assert_eq!((row.totp.last_step, row.totp.failures), (7, 0));

    let replace = |old: u8, new: u8| store.write(move |tx| tx.replace_password_hash(id, &sealed(old), &sealed(new)));
    assert!(replace(1, 4).unwrap());
    assert!(!replace(1, 5).unwrap(), "it is no longer the one that was looked at");
    assert!(store.read(|view| view.login_row(id)).unwrap().unwrap().password == Some(sealed(4)));
}

#[test]
fn a_snapshot_agrees_with_itself_while_writes_go_on() {
    let engine = engine();
    let (store, other) = (engine.open(), engine.open());
    let write = |store: &Store, n: u32| {
        store.write(move |tx| {
            tx.put_setting("a", &n.to_be_bytes())?;
            tx.put_setting("b", &n.to_be_bytes())
        })
    };
    write(&store, 0).unwrap();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| (1..=300).for_each(|n| write(&other, n).unwrap()));
        let mut last = vec![];
        let mut seen = HashSet::new();
        while !writing.is_finished() {
            let (a, b) = store.snapshot(|view| Ok((view.setting("a")?, view.setting("b")?))).unwrap();
            assert_eq!(a, b);
            let a = a.unwrap();
            assert!(a >= last, "time goes forwards");
            last.clone_from(&a);
            seen.insert(a);
        }
        assert!(seen.len() > 10, "nothing was read meanwhile");
    });
    // What a read would see between two statements, a snapshot doesn't.
    let between = store.snapshot(|view| {
        let before = view.setting("a")?;
        write(&other, 1 << 30)?;
        Ok(before == view.setting("a")?)
    });
    assert!(between.unwrap());
    let between = store.read(|view| {
        let before = view.setting("a")?;
        write(&other, 1 << 31)?;
        Ok(before == view.setting("a")?)
    });
    assert!(!between.unwrap(), "every statement of a read sees what was acknowledged before it");
}

#[test]
fn a_revoked_token_takes_along_what_was_got_with_it_and_only_once() {
    let engine = engine();
    let (store, other) = (engine.open(), engine.open());
    let alice = account(&store, 1, "alice");
    signing_key(&store, "k1", KeyPurpose::Token);
    // 10 → 11 → 12 → 13, and 10 → 14; 20 stands alone.
    for (n, parent) in [(10, None), (11, Some(10)), (12, Some(11)), (13, Some(12)), (14, Some(10)), (20, None)] {
        token(&store, n, alice, parent).unwrap();
    }
    let revoke = |store: &Store, n, reason| store.write(move |tx| tx.revoke_token(Jti::new(uuid(n)), reason, NOW));
    assert!(revoke(&store, 12, RevokeReason::Revoked).unwrap());
    assert_eq!([10, 11, 12, 13, 14].map(|n| is_revoked(&other, n)), [false, false, true, true, false]);

    let wins = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (store, wins) = (if n % 2 == 0 { &store } else { &other }, &wins);
            scope.spawn(move || {
                wins.fetch_add(u32::from(revoke(store, 10, RevokeReason::Logout).unwrap()), Ordering::SeqCst)
            });
        }
    });
    assert_eq!(wins.load(Ordering::SeqCst), 1, "of eight at once one wins");
    assert_eq!([10, 11, 12, 13, 14, 20].map(|n| is_revoked(&store, n)), [true, true, true, true, true, false]);
    assert!(!revoke(&store, 12, RevokeReason::Logout).unwrap());
    assert!(!revoke(&store, 99, RevokeReason::Logout).unwrap(), "one that isn't there");
    let reason = |n: u128| {
        let sql = format!("SELECT count(*) FROM token_revocation WHERE jti = '{}' AND revoke_reason = ", uuid(n));
        ["logout", "revoked", "parent_revoked"].map(|reason| engine.count(&format!("{sql}'{reason}'")))
    };
    assert_eq!(reason(10), [1, 0, 0]);
    assert_eq!((reason(11), reason(14)), ([0, 0, 1], [0, 0, 1]));
    assert_eq!((reason(12), reason(13)), ([0, 1, 0], [0, 0, 1]), "the first reason stays");
}

#[test]
fn a_step_is_claimed_once_and_only_forwards() {
    let engine = engine();
    let stores = [engine.open(), engine.open()];
    let alice = account(&stores[0], 1, "alice");
    std::thread::scope(|scope| {
        for thread in 0..8u32 {
            let store = &stores[thread as usize % 2];
            scope.spawn(move || {
                for n in 0..40u32 {
                    // Every thread takes the steps in an order of its own, roughly upwards.
                    let step = (n ^ thread) + 1;
                    let claim = move |tx: &Tx<'_>| {
                        if tx.claim_totp_step(alice, step.into())? {
                            tx.append(event(step), occasion())?;
                        }
                        Ok(())
                    };
                    store.write(claim).unwrap();
                }
            });
        }
    });
    let claimed: Vec<u64> = engine.events().iter().skip(1).map(|event| event.details["n"].as_u64().unwrap()).collect();
    assert!(claimed.is_sorted_by(|a, b| a < b), "{claimed:?}");
    assert_eq!(claimed.last(), Some(&40));
    assert_eq!(stores[1].read(|view| view.login_row(alice)).unwrap().unwrap().totp.last_step, 40);
}

#[test]
fn closing_leaves_nothing_but_the_database() {
    let engine = engine();
    let (store, other) = (engine.open(), engine.open());
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let store = if thread % 2 == 0 { &store } else { &other };
            scope.spawn(move || {
                for n in 0..20 {
                    put(store, "n", n).unwrap();
                    get(store, "n");
                }
            });
        }
    });
    put(&store, "n", 77).unwrap();
    drop(other);
    assert_eq!(get(&store, "n"), Some(77));
    drop(store);
    assert_eq!(engine.leftovers(), [""; 0]);
    assert_eq!(get(&engine.open(), "n"), Some(77));
}

#[test]
fn a_reader_that_panics_harms_nobody() {
    let engine = engine();
    let (store, other) = (engine.open(), engine.open());
    put(&store, "n", 0).unwrap();
    // More than there can be connections.
    let times = std::thread::available_parallelism().unwrap().get() * 2 + 20;
    for n in 0..times {
        let panicking = catch_unwind(AssertUnwindSafe(|| {
            store.snapshot::<()>(|view| {
                view.setting("n")?;
                panic!("on purpose")
            })
        }));
        assert!(panicking.is_err());
        let n = n as u32 + 1;
        put(&other, "n", n).unwrap();
        assert_eq!(get(&store, "n"), Some(n), "no reader sees the past");
        assert_eq!(store.snapshot(|view| view.setting("n")).unwrap().unwrap(), n.to_be_bytes());
    }
    drop((store, other));
    assert_eq!(engine.leftovers(), [""; 0], "none of them is left open");
}

#[test]
fn more_readers_than_connections_wait_for_each_other() {
    let engine = engine();
    let store = engine.open();
    put(&store, "n", 5).unwrap();
    let inside = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().unwrap().get() * 4 + 16 {
            scope.spawn(|| {
                let read = store.read(|view| {
                    inside.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(10));
                    view.setting("n")
                });
                assert_eq!(read.unwrap().unwrap(), 5u32.to_be_bytes());
            });
        }
    });
    put(&store, "n", 6).unwrap();
}

#[test]
fn a_newer_schema_is_read_but_not_written() {
    let engine = engine();
    let store = engine.open();
    put(&store, "n", 1).unwrap();
    engine.behind(&format!("PRAGMA user_version = {}", LATEST_SCHEMA + 1)).unwrap();
    for _ in 0..2 {
        fails(put(&store, "n", 2), Kind::Unavailable);
        assert_eq!((store.condition(), get(&store, "n")), (Condition::Newer, Some(1)));
    }
    drop(store);
    for opened in [Store::open(&engine.path()), Store::open_and_migrate(&engine.path(), occasion())] {
        let refused = opened.err().unwrap().to_string();
        assert!(refused.contains("newer than this program"), "{refused}");
    }
    assert!(Store::open(&engine.folder.path().join("none.db")).is_err(), "nor is one made where none is");
    assert_eq!(engine.leftovers(), [""; 0]);
}

#[test]
fn another_process_that_keeps_the_lock_makes_writes_wait_then_fail() {
    let engine = engine();
    let store = engine.open();
    put(&store, "n", 1).unwrap();
    let stalled = engine.stall();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| fails(put(&store, "n", 2), Kind::Unavailable));
        }
    });
    // Twice at most: one who was being waited for, and then all who had queued behind, together.
    assert!(begun.elapsed() < Duration::from_secs(20), "everybody waited for everybody else: {:?}", begun.elapsed());
    assert_eq!((get(&store, "n"), store.condition()), (Some(1), Condition::Good), "the file is in order");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| put(&store, "n", 3));
        std::thread::sleep(Duration::from_millis(300));
        drop(stalled);
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(get(&store, "n"), Some(3));
}

/// Writes until there is no room, and says how many writes there was room for.
fn fill(store: &Store) -> u32 {
    for n in 0..100_000u32 {
        let outcome = store.write(move |tx| {
            tx.put_setting(&format!("fill{n}"), &[0; 4000])?;
            tx.append(event(n), occasion())
        });
        if let Err(error) = outcome {
            assert_eq!(error.kind(), Kind::Unavailable, "{error}");
            return n;
        }
    }
    panic!("there is no end to the disk");
}

#[test]
fn a_full_disk_makes_writes_unavailable_and_passes() {
    let name = "a_full_disk_makes_writes_unavailable_and_passes";
    let Some(folder) = own_folder() else {
        let folder = tempfile::tempdir().unwrap();
        if !Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success()) {
            return testing::not_run(name, "'unshare -rm' is not possible");
        }
        let mount = "mount -t tmpfs -o size=3m none \"$MCIAS_TEST_FOLDER\" && exec \"$0\" \"$@\"";
        let mounted = ["unshare", "-rm", "sh", "-c", mount];
        return in_another_process(name, folder.path(), &mounted);
    };
    let engine = Sqlite::in_folder(tempfile::tempdir_in(&folder).unwrap());
    let store = engine.open();
    let ballast = folder.join("ballast");
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let fitted = fill(&store);
    assert_eq!(store.condition(), Condition::Full);
    fails(put(&store, "n", 1), Kind::Unavailable);
    let last = format!("fill{}", fitted - 1);
    assert!(store.read(|view| view.setting(&last)).unwrap().is_some(), "reads go on");
    assert!(store.read(|view| view.setting(&format!("fill{fitted}"))).unwrap().is_none());

    std::fs::remove_file(&ballast).unwrap();
    put(&store, "n", 1).unwrap();
    assert_eq!((store.condition(), get(&store, "n")), (Condition::Good, Some(1)));
    assert_eq!(unbroken(&engine), 1 + fitted as usize, "nothing by halves");
    drop(store);
    assert_eq!(engine.leftovers(), [""; 0]);
}

#[test]
fn after_an_io_error_only_a_restart_trusts_the_file() {
    let name = "after_an_io_error_only_a_restart_trusts_the_file";
    let Some(folder) = own_folder() else {
        let folder = tempfile::tempdir().unwrap();
        // A write beyond the limit is an error then, not the end of the process.
        return in_another_process(name, folder.path(), &["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
    };
    let engine = Sqlite::in_folder(tempfile::tempdir_in(&folder).unwrap());
    let store = engine.open();
    let limit = |bytes| {
        let now = rustix::process::getrlimit(rustix::process::Resource::Fsize);
        let new = rustix::process::Rlimit { current: bytes, maximum: now.maximum };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, new).unwrap();
    };
    let store = Arc::new(store);
    put(&store, "before", 1).unwrap();
    limit(Some(400_000));
    // They wait together, and one of them doesn't fit. Nobody is tried again on a file that isn't trusted.
    let tried_after = Arc::new(AtomicU32::new(0));
    together(&store, || {
        std::thread::scope(|scope| {
            for n in 0..8u32 {
                let (handle, tried_after) = (Arc::downgrade(&store), tried_after.clone());
                let size = if n == 4 { 1 << 20 } else { 100 };
                let write = move |tx: &Tx<'_>| {
                    let failed = handle.upgrade().is_some_and(|store| store.condition() == Condition::Failed);
                    tried_after.fetch_add(u32::from(failed), Ordering::SeqCst);
                    tx.put_setting(&format!("together{n}"), &vec![0; size])
                };
                let store = &store;
                scope.spawn(move || assert!(store.write(write).is_ok() || store.condition() == Condition::Failed));
            }
        });
    });
    assert_eq!((store.condition(), tried_after.load(Ordering::SeqCst)), (Condition::Failed, 0));
    limit(None);
    fails(put(&store, "n", 1), Kind::Unavailable);
    assert_eq!(get(&store, "before"), Some(1), "reads go on");
    drop(store);
    let store = engine.open();
    put(&store, "n", 1).unwrap();
    assert_eq!(store.condition(), Condition::Good);
    assert_eq!(unbroken(&engine), 1, "nothing by halves");
}
