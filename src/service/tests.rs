//! The service against a real database: what changes while a login hashes, two at once, keys and clock.
//!
//! A slow operation is paused by holding the only hashing slot: it has read what it reads, and hasn't hashed yet. Then
//! the world is changed through a connection of its own, as another process would, and the slot is let go.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use super::access::{Admin, AnyToken, Person, Session};
use super::keys::MasterSecret;
use super::policy::tests::policy;
use super::*;
use crate::crypto::password::{self, Params};
use crate::crypto::totp;
use crate::error::Kind;
use crate::model::account::{Account, AccountType, NewAccount, RoleName, Username};
use crate::model::credential::{ChangePassword, EnrollTotp, SetPassword, TotpCode};
use crate::model::token::{Audience, ExchangeToken, IssuedToken, Login, ValidateToken, Validation};
use crate::secret::{BearerToken, KeyBytes, Password};

const NOW: i64 = 1_800_000_000;
const PASSWORD: &str = "correct horse battery staple";
const CALL: Call = Call { ip: None };

struct Fixture {
    dir: tempfile::TempDir,
    service: Arc<Service>,
    clock: Arc<AtomicI64>,
}

impl Fixture {
    fn new() -> Self {
        Self::with(policy())
    }

    fn with(policy: Policy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (clock, handle) = Clock::fixed(Timestamp::new(NOW));
        let service = open(&dir, KeyBytes::new([1; 32]), policy, clock).unwrap();
        Self { dir, service: Arc::new(service), clock: handle }
    }

    fn human(&self, name: &str) -> Account {
        let new = NewAccount {
            username: Username::parse(name).unwrap(),
            account_type: AccountType::Human,
            password: Some(Password::new(PASSWORD.into())),
        };
        accounts::create(&self.service, &CALL, &Admin::maintenance(&self.service), new).unwrap()
    }

    fn system(&self, name: &str) -> Account {
        let new =
            NewAccount { username: Username::parse(name).unwrap(), account_type: AccountType::System, password: None };
        accounts::create(&self.service, &CALL, &Admin::maintenance(&self.service), new).unwrap()
    }

    fn admin(&self, name: &str) -> Account {
        let account = self.human(name);
        self.grant(&account, RoleName::ADMIN);
        account
    }

    fn grant(&self, account: &Account, role: &str) {
        let (id, role) = (account.id, RoleName::parse(role).unwrap());
        self.service.store.write(move |tx| tx.grant_role(id, &role, None, Timestamp::new(NOW))).unwrap();
    }

    fn enable_totp(&self, account: &Account, secret: &[u8; 20]) {
        let sealed = self.service.core.seal(&session::totp_place(account.id), nonce().unwrap(), secret);
        let id = account.id;
        self.service.store.write(move |tx| tx.enable_totp(id, &sealed, 0, Timestamp::new(NOW))).unwrap();
    }

    fn login(&self, name: &str) -> Result<IssuedToken> {
        login(&self.service, name, PASSWORD, None)
    }

    /// Changes the database as another process would.
    fn sql(&self, sql: &str) {
        let connection = rusqlite::Connection::open(self.dir.path().join("t.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        connection.execute_batch(sql).unwrap();
    }

    fn one<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        let connection = rusqlite::Connection::open(self.dir.path().join("t.db")).unwrap();
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn last_event(&self) -> (String, String) {
        let connection = rusqlite::Connection::open(self.dir.path().join("t.db")).unwrap();
        let newest = "SELECT event_type, details FROM audit_log ORDER BY id DESC LIMIT 1";
        connection.query_row(newest, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    }

    /// Runs `slow` up to its hash, then `meanwhile`, then lets it go on.
    fn paused<T: Send>(&self, slow: impl FnOnce(&Service) -> T + Send, meanwhile: impl FnOnce()) -> T {
        let (taken, is_taken) = channel();
        let (let_go, go) = channel::<()>();
        std::thread::scope(|scope| {
            let slots = &self.service.slots;
            scope.spawn(move || {
                slots.run(|_| {
                    taken.send(()).unwrap();
                    go.recv().unwrap();
                });
            });
            is_taken.recv().unwrap();
            let running = scope.spawn(|| slow(&self.service));
            // It has to have read before the world changes. There is no way to see that from outside; were it not to
            // have got there, the test would be weaker, not wrong.
            std::thread::sleep(Duration::from_millis(50));
            meanwhile();
            let_go.send(()).unwrap();
            running.join().unwrap()
        })
    }
}

fn open(dir: &tempfile::TempDir, key: KeyBytes, policy: Policy, clock: Clock) -> Result<Service> {
    let occasion = Occasion { time: clock.millis(), via: Via::Server, ip: None };
    let store = Store::open_and_migrate(&dir.path().join("t.db"), occasion)?;
    let service = Service::open(store, &MasterSecret::KeyFile(key), policy, clock, Via::Server)?;
    service.ensure_signing_keys()?;
    Ok(service)
}

fn login(service: &Service, name: &str, password: &str, code: Option<TotpCode>) -> Result<IssuedToken> {
    let input =
        Login { username: name.into(), password: Password::new(password.into()), totp_code: code, audience: None };
    session::login(service, &CALL, input)
}

fn validate(service: &Service, token: &BearerToken) -> Validation {
    let input = ValidateToken { token: token.clone(), audience: None, bad_is_error: false };
    session::validate(service, &CALL, input).unwrap()
}

fn is_good(service: &Service, token: &BearerToken) -> bool {
    matches!(validate(service, token), Validation::Good(_))
}

fn session_of(service: &Service, token: &BearerToken) -> Session {
    Session::ask(service, Some(token)).unwrap()
}

fn person(service: &Service, token: &BearerToken) -> Person {
    Person::ask(service, Some(token)).unwrap()
}

#[track_caller]
fn refused<T>(result: Result<T>, kind: Kind) {
    assert_eq!(result.err().map(|e| e.kind()), Some(kind));
}

#[test]
fn a_token_lives_from_login_to_logout() {
    let f = Fixture::new();
    let alice = f.human("alice");
    let issued = f.login("ALICE").unwrap();
    let Validation::Good(seen) = validate(&f.service, &issued.token) else { panic!("a fresh token is good") };
    assert_eq!((seen.subject, seen.username.as_str()), (alice.id, "alice"));
    assert_eq!(issued.expires_at, Timestamp::new(NOW + 24 * 3600));
    let proof = AnyToken::ask(&f.service, Some(&issued.token)).unwrap();
    session::logout(&f.service, &CALL, &proof, ()).unwrap();
    assert!(!is_good(&f.service, &issued.token));
    refused(session::logout(&f.service, &CALL, &proof, ()), Kind::Unauthorized);
    assert_eq!(f.last_event().0, "token_revoked");
}

#[test]
fn every_failed_login_is_the_same_refusal_with_its_reason_in_the_log() {
    let f = Fixture::new();
    for name in ["alice", "sue", "dan"] {
        f.human(name);
    }
    f.system("robot");
    f.sql(
        "UPDATE accounts SET status = 'suspended' WHERE username = 'sue';
           UPDATE accounts SET status = 'deleted', deleted_at = 1 WHERE username = 'dan'",
    );
    let long = "x".repeat(1025);
    let cases = [
        ("nobody", PASSWORD, "unknown_user"),
        ("alice", "wrong wrong wrong wrong", "bad_password"),
        ("alice", "", "malformed"),
        ("alice", &long, "malformed"),
        ("not a name", PASSWORD, "malformed"),
        ("sue", PASSWORD, "suspended"),
        ("dan", PASSWORD, "deleted"),
        ("robot", PASSWORD, "system_account"),
    ];
    for (name, password, reason) in cases {
        let error = login(&f.service, name, password, None).err().expect(reason);
        assert_eq!(error, Error::unauthorized(), "{reason}");
        assert_eq!(f.last_event(), ("login_fail".into(), format!("{{\"reason\":\"{reason}\"}}")));
    }
    assert_eq!(
        f.one::<i64>("SELECT count(*) FROM audit_log WHERE event_type = 'login_fail' AND actor_uuid IS NOT NULL"),
        0
    );
    assert_eq!(f.one::<i64>("SELECT count(*) FROM token_revocation"), 0);
}

#[test]
fn a_password_changed_while_it_was_hashed_logs_nobody_in() {
    let f = Fixture::new();
    let alice = f.human("alice");
    // The new hash stays, too: a re-hash of the old password must not overwrite it.
    let phc = f.service.slots.run(|memory| {
        password::hash(memory, &Password::new("another password altogether".into()), policy().argon2, [3; 16]).unwrap()
    });
    let sealed = f.service.core.seal(&hashed::password_place(alice.id), [9; 12], &phc);
    let set = format!(
        "UPDATE accounts SET password_enc = x'{}', password_nonce = x'{}'",
        hex(&sealed.ciphertext),
        hex(&sealed.nonce)
    );
    refused(f.paused(|service| login(service, "alice", PASSWORD, None), || f.sql(&set)), Kind::Unauthorized);
    assert_eq!(f.last_event().1, r#"{"reason":"bad_password"}"#);
    assert!(login(&f.service, "alice", "another password altogether", None).is_ok());
}

/// Another data key, as `mciasdb rekey --new-data-key` makes it.
fn change_data_key(f: &Fixture) {
    let admin = Admin::maintenance(&f.service);
    let master = MasterSecret::KeyFile(KeyBytes::new([1; 32]));
    rekey::begin_data_key(&f.service, &admin).unwrap();
    rekey::reseal(&f.service, &admin, &mut |_| {}).unwrap();
    assert!(rekey::finish_data_key(&f.service, &CALL, &admin, &master).unwrap());
}

#[test]
fn a_password_that_is_sealed_again_while_it_is_hashed_is_still_right() {
    let f = Fixture::new();
    f.human("alice");
    let issued = f.paused(|service| login(service, "alice", PASSWORD, None), || change_data_key(&f)).unwrap();
    let change = |service: &Service| {
        let input = ChangePassword {
            current: Password::new(PASSWORD.into()),
            new: Password::new("quite another passphrase".into()),
            totp_code: None,
        };
        credentials::change_password(service, &CALL, &person(service, &issued.token), input)
    };
    f.paused(change, || change_data_key(&f)).unwrap();
    assert!(login(&f.service, "alice", "quite another passphrase", None).is_ok());
}

#[test]
fn what_is_hashed_while_the_data_key_is_changed_is_sealed_under_the_new_one() {
    let f = Fixture::with(Policy { argon2: Params { time: 2, ..policy().argon2 }, ..policy() });
    let nothing_is_lost = || {
        let current = f.service.core.data_keys().current_id();
        assert_eq!(f.service.store.read(|view| view.count_sealed_under_others(current)).unwrap(), 0);
    };
    let alice = f.paused(|_| f.human("alice"), || change_data_key(&f));
    nothing_is_lost();
    let set = |service: &Service| {
        let input = SetPassword { account: alice.id, new: Password::new("quite another passphrase".into()) };
        credentials::set_password(service, &CALL, &Admin::maintenance(service), input)
    };
    f.paused(set, || change_data_key(&f)).unwrap();
    nothing_is_lost();
    let issued = login(&f.service, "alice", "quite another passphrase", None).unwrap();
    let enroll = |service: &Service| {
        let input = EnrollTotp { password: Password::new("quite another passphrase".into()), totp_code: None };
        credentials::enroll_totp(service, &CALL, &person(service, &issued.token), input)
    };
    f.paused(enroll, || change_data_key(&f)).unwrap();
    nothing_is_lost();
}

#[test]
fn an_account_that_changes_while_it_is_hashed_is_looked_at_again() {
    for (change, reason) in [
        ("UPDATE accounts SET status = 'suspended'", "suspended"),
        ("UPDATE accounts SET status = 'deleted', deleted_at = 1", "deleted"),
    ] {
        let f = Fixture::new();
        f.human("alice");
        assert!(f.paused(|service| login(service, "alice", PASSWORD, None), || ()).is_ok(), "unchanged it passes");
        refused(f.paused(|service| login(service, "alice", PASSWORD, None), || f.sql(change)), Kind::Unauthorized);
        assert_eq!(f.last_event().1, format!("{{\"reason\":\"{reason}\"}}"));
    }
}

#[test]
fn roles_taken_or_totp_turned_on_while_hashing_count() {
    let f = Fixture::new();
    let alice = f.admin("alice");
    let issued =
        f.paused(|service| login(service, "alice", PASSWORD, None), || f.sql("DELETE FROM account_roles")).unwrap();
    assert_eq!(issued.expires_at, Timestamp::new(NOW + 24 * 3600), "no longer an admin's token");
    refused(
        f.paused(|service| login(service, "alice", PASSWORD, None), || f.enable_totp(&alice, b"12345678901234567890")),
        Kind::Unauthorized,
    );
    assert_eq!(f.last_event(), ("login_totp_fail".into(), r#"{"reason":"missing"}"#.into()));
}

#[test]
fn a_hash_with_old_parameters_is_replaced_at_login() {
    let mut f = Fixture::new();
    f.human("alice");
    let before: Vec<u8> = f.one("SELECT password_enc FROM accounts");
    let newer = Policy { argon2: Params { time: 2, memory_kib: 128, lanes: 1 }, ..policy() };
    let clock = f.service.clock.clone();
    f.service = Arc::new(open(&f.dir, KeyBytes::new([1; 32]), newer, clock).unwrap());
    f.login("alice").unwrap();
    let after: Vec<u8> = f.one("SELECT password_enc FROM accounts");
    assert_ne!(before, after);
    f.login("alice").unwrap();
    assert_eq!(f.one::<Vec<u8>>("SELECT password_enc FROM accounts"), after, "once is enough");
}

#[test]
fn a_code_counts_once_and_wrong_ones_hold_codes_back() {
    let f = Fixture::new();
    let secret = b"12345678901234567890";
    f.enable_totp(&f.human("alice"), secret);
    let code = |offset: i64| {
        let now = Timestamp::new(f.clock.load(Ordering::SeqCst) / 1000);
        Some(totp::code_at(secret, totp::step_at(now) + offset))
    };
    let attempt = |code| login(&f.service, "alice", PASSWORD, code);
    refused(attempt(None), Kind::Unauthorized);
    assert_eq!(f.last_event().1, r#"{"reason":"missing"}"#);
    assert!(attempt(code(0)).is_ok());
    refused(attempt(code(0)), Kind::Unauthorized);
    assert_eq!(f.last_event().1, r#"{"reason":"replayed"}"#);
    refused(attempt(code(-1)), Kind::Unauthorized);
    assert_eq!(f.last_event().1, r#"{"reason":"replayed"}"#, "a step before the last one counts as used");

    // A stranger without the password can't hold codes back.
    for _ in 0..10 {
        refused(login(&f.service, "alice", "wrong wrong wrong", code(7)), Kind::Unauthorized);
    }
    f.clock.fetch_add(60_000, Ordering::SeqCst);
    assert!(attempt(code(0)).is_ok());

    f.clock.fetch_add(60_000, Ordering::SeqCst);
    for _ in 0..5 {
        refused(attempt(code(7)), Kind::Unauthorized);
        assert_eq!(f.last_event().1, r#"{"reason":"wrong"}"#);
    }
    for (held, doubled) in [(30, 60), (60, 120)] {
        f.clock.fetch_add((held - 1) * 1000, Ordering::SeqCst);
        refused(attempt(code(0)), Kind::Unauthorized);
        assert_eq!(f.last_event().1, r#"{"reason":"held_back"}"#);
        f.clock.fetch_add(1000, Ordering::SeqCst);
        refused(attempt(code(7)), Kind::Unauthorized);
        assert_eq!(f.last_event().1, r#"{"reason":"wrong"}"#);
        let until: i64 = f.one("SELECT totp_locked_until FROM accounts");
        assert_eq!(until, f.clock.load(Ordering::SeqCst) / 1000 + doubled);
    }
    f.clock.fetch_add(120_000, Ordering::SeqCst);
    assert!(attempt(code(0)).is_ok(), "a held-back code used up no step, and a good one ends it");
    assert_eq!(f.one::<i64>("SELECT totp_failures + totp_locked_until FROM accounts"), 0);
}

#[test]
fn of_two_logins_with_one_code_one_wins() {
    let f = Fixture::new();
    let secret = b"12345678901234567890";
    f.enable_totp(&f.human("alice"), secret);
    let code = Some(totp::code_at(secret, totp::step_at(Timestamp::new(NOW))));
    let wins = std::thread::scope(|scope| {
        let running: Vec<_> =
            (0..8).map(|_| scope.spawn(|| login(&f.service, "alice", PASSWORD, code).is_ok())).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).filter(|won| *won).count()
    });
    assert_eq!(wins, 1);
}

#[test]
fn of_two_renewals_at_once_one_wins() {
    let f = Fixture::new();
    f.human("alice");
    let issued = f.login("alice").unwrap();
    let proofs: Vec<_> = (0..8).map(|_| person(&f.service, &issued.token)).collect();
    let service = &f.service;
    let renewed: Vec<IssuedToken> = std::thread::scope(|scope| {
        let renew = |proof| move || session::renew(service, &CALL, proof, ());
        let running: Vec<_> = proofs.iter().map(|proof| scope.spawn(renew(proof))).collect();
        running.into_iter().filter_map(|thread| thread.join().unwrap().ok()).collect()
    });
    assert_eq!(renewed.len(), 1);
    assert!(!is_good(service, &issued.token) && is_good(service, &renewed[0].token));
}

#[test]
fn renewal_keeps_auth_time_and_ends_with_max_session() {
    let f = Fixture::with(Policy { max_session: 100, ..policy() });
    f.human("alice");
    let issued = f.login("alice").unwrap();
    f.clock.fetch_add(99_000, Ordering::SeqCst);
    let renewed = session::renew(&f.service, &CALL, &person(&f.service, &issued.token), ()).unwrap();
    f.clock.fetch_add(1_000, Ordering::SeqCst);
    let proof = person(&f.service, &renewed.token);
    refused(session::renew(&f.service, &CALL, &proof, ()), Kind::Unauthorized);
    assert!(is_good(&f.service, &renewed.token), "what was refused left the token as it was");
}

#[test]
fn a_token_got_by_exchange_dies_with_the_one_it_was_got_with() {
    let f = Fixture::new();
    f.human("alice");
    let session = f.login("alice").unwrap();
    let exchange = |token: &BearerToken, audience: &str| {
        let input = ExchangeToken { audience: Audience::parse(audience).unwrap() };
        session::exchange(&f.service, &CALL, &session_of(&f.service, token), input).unwrap()
    };
    let wiki = exchange(&session.token, "https://wiki.example.com");
    let own = exchange(&session.token, policy().issuer.as_str());
    let grandchild = exchange(&own.token, "https://git.example.com");
    assert_eq!(wiki.expires_at, session.expires_at);
    assert!(Session::ask(&f.service, Some(&wiki.token)).is_err(), "a token for another audience opens nothing here");

    // Renewed, a token that dies with another goes on doing so.
    f.clock.fetch_add(60_000, Ordering::SeqCst);
    let renewed = session::renew(&f.service, &CALL, &person(&f.service, &own.token), ()).unwrap();
    assert_eq!(renewed.expires_at, session.expires_at);
    assert!(!is_good(&f.service, &grandchild.token), "its parent was renewed");

    assert!(is_good(&f.service, &wiki.token) && is_good(&f.service, &renewed.token));
    let proof = AnyToken::ask(&f.service, Some(&session.token)).unwrap();
    session::logout(&f.service, &CALL, &proof, ()).unwrap();
    for gone in [&session, &wiki, &own, &grandchild, &renewed] {
        assert!(!is_good(&f.service, &gone.token));
    }
}

#[test]
fn roles_are_those_in_the_token_and_still_held() {
    let f = Fixture::with(Policy { totp_required_for: vec![RoleName::parse("vault").unwrap()], ..policy() });
    let alice = f.human("alice");
    for role in ["ops", "dev", "vault"] {
        f.grant(&alice, role);
    }
    let issued = f.login("alice").unwrap();
    let roles = || match validate(&f.service, &issued.token) {
        Validation::Good(token) => token.roles.iter().map(ToString::to_string).collect::<Vec<_>>(),
        Validation::Bad => vec!["bad".into()],
    };
    assert_eq!(roles(), ["dev", "ops"], "vault needs a one-time code");
    f.sql("DELETE FROM account_roles WHERE role = 'ops'");
    assert_eq!(roles(), ["dev"], "taken away at once");
    f.grant(&alice, "new");
    f.grant(&alice, "ops");
    assert_eq!(roles(), ["dev", "ops"], "given only with the next token");
    let proof = person(&f.service, &issued.token);
    let renewed = session::renew(&f.service, &CALL, &proof, ()).unwrap();
    let Validation::Good(seen) = validate(&f.service, &renewed.token) else { panic!() };
    assert_eq!(seen.roles.iter().map(RoleName::as_str).collect::<Vec<_>>(), ["dev", "new", "ops"]);
}

#[test]
fn what_an_admin_loses_while_waiting_is_lost() {
    for (change, kind) in [
        ("DELETE FROM account_roles", Kind::Forbidden),
        ("UPDATE token_revocation SET revoked_at = 1, revoke_reason = 'revoked'", Kind::Unauthorized),
        ("UPDATE accounts SET status = 'suspended'", Kind::Unauthorized),
        ("UPDATE signing_keys SET revoked_at = 1", Kind::Unauthorized),
    ] {
        let f = Fixture::new();
        f.admin("root");
        let token = f.login("root").unwrap().token;
        let proof = Admin::ask(&f.service, Some(&token)).unwrap();
        let create = |service: &Service| {
            let new = NewAccount {
                username: Username::parse("eve").unwrap(),
                account_type: AccountType::Human,
                password: Some(Password::new(PASSWORD.into())),
            };
            accounts::create(service, &CALL, &proof, new)
        };
        refused(f.paused(create, || f.sql(change)), kind);
        assert_eq!(f.one::<i64>("SELECT count(*) FROM accounts WHERE username = 'eve'"), 0, "{change}");
    }
}

#[test]
fn what_another_process_does_to_a_token_counts_at_the_next_check() {
    for change in [
        "UPDATE token_revocation SET revoked_at = 1, revoke_reason = 'revoked'",
        "UPDATE accounts SET status = 'suspended'",
        "UPDATE signing_keys SET revoked_at = 1",
        "UPDATE signing_keys SET verify_until = 1800000000",
        "DELETE FROM token_revocation",
        "UPDATE token_revocation SET expires_at = expires_at + 1",
        "UPDATE token_revocation SET issued_at = issued_at - 1",
        "UPDATE token_revocation SET audience = 'x'",
        "UPDATE token_revocation SET account_id = (SELECT id FROM accounts WHERE username = 'bob')",
    ] {
        let f = Fixture::new();
        f.human("alice");
        f.human("bob");
        let issued = f.login("alice").unwrap();
        assert!(is_good(&f.service, &issued.token));
        f.sql(change);
        assert!(!is_good(&f.service, &issued.token), "{change}");
    }
}

#[test]
fn a_key_that_another_process_made_is_found() {
    let f = Fixture::new();
    f.human("alice");
    let clock = f.service.clock.clone();
    let other = open(&f.dir, KeyBytes::new([1; 32]), policy(), clock).unwrap();
    f.sql("UPDATE signing_keys SET retired_at = 1800000000 WHERE purpose = 'token'");
    other.ensure_signing_keys().unwrap();
    let issued = login(&other, "alice", PASSWORD, None).unwrap();
    assert!(is_good(&f.service, &issued.token));
}

#[test]
fn a_key_that_another_process_made_is_found_by_all_who_look_at_once() {
    let f = Fixture::new();
    f.human("alice");
    let session = f.login("alice").unwrap();
    let other = open(&f.dir, KeyBytes::new([1; 32]), policy(), Clock::fixed(Timestamp::new(NOW)).0).unwrap();
    for _ in 0..150 {
        rotation::rotate(&other, &CALL, &Admin::maintenance(&other), 0).unwrap();
        let input = ExchangeToken { audience: Audience::parse("files").unwrap() };
        let issued = session::exchange(&other, &CALL, &session_of(&other, &session.token), input).unwrap();
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    barrier.wait();
                    assert!(is_good(&f.service, &issued.token));
                });
            }
        });
    }
}

/// A person's session; a token for MCIAS itself that was got with it; one for another service that was got with that.
/// Each under a key of its own, whose `kid`s come with them.
fn three_generations(f: &Fixture) -> [(IssuedToken, String); 3] {
    let admin = Admin::maintenance(&f.service);
    let signing = || f.one::<String>("SELECT kid FROM signing_keys WHERE purpose = 'token' ORDER BY id DESC LIMIT 1");
    let exchange = |token: &BearerToken, audience: &str| {
        rotation::rotate(&f.service, &CALL, &admin, 0).unwrap();
        let input = ExchangeToken { audience: Audience::parse(audience).unwrap() };
        session::exchange(&f.service, &CALL, &session_of(&f.service, token), input).unwrap()
    };
    let session = (f.login("alice").unwrap(), signing());
    let own = (exchange(&session.0.token, policy().issuer.as_str()), signing());
    let files = (exchange(&own.0.token, "files"), signing());
    [session, own, files]
}

#[test]
fn a_revoked_key_takes_along_what_was_got_with_its_tokens() {
    for revoked in 0..3 {
        let f = Fixture::new();
        f.human("alice");
        let tokens = three_generations(&f);
        let live = f.login("alice").unwrap();
        let admin = Admin::maintenance(&f.service);
        rotation::revoke(&f.service, &CALL, &admin, &tokens[revoked].1).unwrap();
        let good: Vec<_> = tokens.iter().map(|(issued, _)| is_good(&f.service, &issued.token)).collect();
        let expected: Vec<_> = (0..3).map(|n| n < revoked).collect();
        assert_eq!(good, expected, "the key of number {revoked} was revoked");
        assert_eq!(is_good(&f.service, &live.token), revoked < 2, "of another session, under the newest key");
    }
}

#[test]
fn a_revoked_key_counts_at_once_and_its_tokens_are_marked_also_by_a_second_try() {
    let f = Fixture::new();
    f.human("alice");
    let [(session, kid), (own, _), (files, _)] = three_generations(&f);
    // So far has a revocation come that was killed.
    f.sql(&format!("UPDATE signing_keys SET revoked_at = {NOW} WHERE kid = '{kid}'"));
    assert!(!is_good(&f.service, &session.token) && !is_good(&f.service, &own.token));
    let count = rotation::revoke(&f.service, &CALL, &Admin::maintenance(&f.service), &kid).unwrap();
    assert_eq!(count, 3);
    assert!(!is_good(&f.service, &files.token));
}

#[test]
fn where_a_key_is_revoked_that_waits_to_sign_the_one_before_goes_on() {
    let f = Fixture::new();
    f.human("alice");
    let admin = Admin::maintenance(&f.service);
    let first = keys::public_key(&f.service, &CALL, ()).unwrap().kid;
    let waiting = rotation::rotate(&f.service, &CALL, &admin, 600).unwrap();
    rotation::revoke(&f.service, &CALL, &admin, &waiting).unwrap();
    for _ in 0..3 {
        f.clock.fetch_add(601_000, Ordering::SeqCst);
        assert_eq!(keys::public_key(&f.service, &CALL, ()).unwrap().kid, first);
        assert!(f.login("alice").is_ok());
    }
    let next = rotation::rotate(&f.service, &CALL, &admin, 0).unwrap();
    assert_eq!(keys::public_key(&f.service, &CALL, ()).unwrap().kid, next);
}

#[test]
fn a_soak_is_no_shorter_than_was_asked() {
    let f = Fixture::new();
    let signing = || keys::public_key(&f.service, &CALL, ()).unwrap().kid;
    for ms in [0, 1, 500, 999] {
        let begun = (NOW + 10 * (ms + 1)) * 1000 + ms;
        f.clock.store(begun, Ordering::SeqCst);
        let former = signing();
        let kid = rotation::rotate(&f.service, &CALL, &Admin::maintenance(&f.service), 2).unwrap();
        f.clock.store(begun + 1999, Ordering::SeqCst);
        assert_eq!(signing(), former);
        f.clock.store(begun + 3000, Ordering::SeqCst);
        assert_eq!(signing(), kid);
    }
}

#[test]
fn a_write_that_waited_while_the_key_was_replaced_finds_one_that_signs() {
    let f = Fixture::new();
    f.human("alice");
    let kids = || f.one::<i64>("SELECT count(*) FROM signing_keys");
    let before = kids();
    // The time that a write goes by is read before its turn comes: it may be one before the only key there is now.
    for seconds in [1, 5, 240] {
        f.clock.fetch_add(1_000_000, Ordering::SeqCst);
        let signing = keys::public_key(&f.service, &CALL, ()).unwrap().kid;
        rotation::revoke(&f.service, &CALL, &Admin::maintenance(&f.service), &signing).unwrap();
        f.clock.fetch_sub(seconds * 1000, Ordering::SeqCst);
        assert!(f.login("alice").is_ok(), "{seconds} s before it");
        assert_ne!(keys::public_key(&f.service, &CALL, ()).unwrap().kid, signing);
        f.service.ensure_signing_keys().unwrap();
        f.clock.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
    assert_eq!(kids(), before + 3, "each revocation made one, and a clock that is a little behind none");
}

#[test]
fn tokens_end_to_the_second() {
    let f = Fixture::new();
    f.human("alice");
    let issued = f.login("alice").unwrap();
    f.clock.store((NOW + 24 * 3600) * 1000 - 1, Ordering::SeqCst);
    assert!(is_good(&f.service, &issued.token));
    f.clock.fetch_add(1, Ordering::SeqCst);
    assert!(!is_good(&f.service, &issued.token));
}

#[test]
fn a_wrong_master_key_changes_nothing() {
    let f = Fixture::new();
    f.human("alice");
    let Fixture { dir, service, clock } = f;
    drop(service);
    let before = std::fs::read(dir.path().join("t.db")).unwrap();
    let (again, _) = Clock::fixed(Timestamp::new(clock.load(Ordering::SeqCst) / 1000));
    let error = open(&dir, KeyBytes::new([2; 32]), policy(), again).err().unwrap();
    assert_eq!(error.to_string(), "the master key does not open this database");
    assert_eq!(std::fs::read(dir.path().join("t.db")).unwrap(), before);
}

#[test]
fn nothing_but_health_goes_on_while_the_clock_is_behind() {
    let f = Fixture::new();
    f.human("alice");
    let behind_by = |seconds: i64| {
        f.clock.store((NOW - seconds) * 1000, Ordering::SeqCst);
        f.service.look_at_clock().unwrap();
        f.service.readiness()
    };
    assert_eq!(behind_by(300), Readiness::Ready);
    assert_eq!(behind_by(301), Readiness::ClockBehind);
    refused(f.service.admit(), Kind::Unavailable);
    assert_eq!(behind_by(0), Readiness::Ready);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
