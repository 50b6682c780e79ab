//! Signing keys rotated and revoked with `mciasdb` under a server that is asked all the time, by services that ask it
//! and by services that check tokens themselves: not one false refusal, not one false acceptance.
//!
//! `MCIAS_ROTATIONS=1000` for so many rotations; 40 without it.

mod support;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Value, json};
use support::{Client, Server, parts_of, unb64};

/// One in so many rotations soaks; the others sign at once.
const SOAKS: usize = 20;
/// After one in so many a key is revoked.
const REVOKES: usize = 9;
/// For how long the new key of a rotation that soaks is published before it signs.
const SOAK: &str = "1s";
/// For how long who checks tokens offline keeps the key set: half of a soak, as the server's `max-age` tells them.
const KEEPS_KEYS: Duration = Duration::from_millis(500);

/// What the server has acknowledged of a token, or of a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Fate {
    Live,
    /// Its end was asked for and not acknowledged yet.
    Doubtful,
    Dead,
}

/// A token that was acknowledged.
struct Token {
    text: String,
    /// The key it is signed with, and before it those of the tokens that it was got with.
    kids: Vec<String>,
    fate: Fate,
}

/// All that was acknowledged.
#[derive(Default)]
struct Ledger {
    tokens: RwLock<Vec<Token>>,
    /// Keys that were revoked or are being revoked.
    keys: Mutex<Vec<(String, Fate)>>,
    /// Keys that were published for a whole soak before they signed, the first one included.
    soaked: Mutex<HashSet<String>>,
    done: AtomicBool,
    checks: AtomicUsize,
    refused: AtomicUsize,
    offline: AtomicUsize,
    issued: AtomicUsize,
}

fn kid_of(token: &str) -> String {
    let header: Value = serde_json::from_slice(&unb64(parts_of(token)[0])).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

impl Ledger {
    /// What has become of anything that hangs on these keys.
    fn of_keys(&self, kids: &[String]) -> Fate {
        let keys = self.keys.lock().unwrap();
        let fates = keys.iter().filter(|(kid, _)| kids.contains(kid)).map(|(_, fate)| *fate);
        fates.max().unwrap_or(Fate::Live)
    }

    fn fate(&self, n: usize) -> Fate {
        let tokens = self.tokens.read().unwrap();
        tokens[n].fate.max(self.of_keys(&tokens[n].kids))
    }

    fn set(&self, n: usize, fate: Fate) {
        self.tokens.write().unwrap()[n].fate = fate;
    }

    fn set_key(&self, kid: &str, fate: Fate) {
        let mut keys = self.keys.lock().unwrap();
        keys.retain(|(known, _)| known != kid);
        keys.push((kid.to_owned(), fate));
    }

    /// Writes a token down; gives its number.
    fn add(&self, text: &str, got_with: &[String]) -> usize {
        let mut kids = got_with.to_vec();
        kids.push(kid_of(text));
        let mut tokens = self.tokens.write().unwrap();
        tokens.push(Token { text: text.to_owned(), kids, fate: Fate::Live });
        self.issued.fetch_add(1, Ordering::Relaxed);
        tokens.len() - 1
    }

    fn token(&self, n: usize) -> (String, Vec<String>) {
        let tokens = self.tokens.read().unwrap();
        (tokens[n].text.clone(), tokens[n].kids.clone())
    }

    /// Some token: one of the last few as often as any.
    fn some(&self, turn: usize) -> usize {
        let count = self.tokens.read().unwrap().len();
        let random = u32::from_le_bytes(mcias::random::bytes().unwrap()) as usize;
        if turn.is_multiple_of(2) { random % count } else { count - 1 - random % count.min(20) }
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// Logs in, gets tokens with tokens, and logs some of them out.
    fn issue(&self, user: &Client) {
        while !self.is_done() {
            let session = user.again();
            let session = self.add(session.token(), &[]);
            for turn in 0..8 {
                let Some(own) = self.exchange(user, session, "https://localhost:8443") else { break };
                let Some(for_files) = self.exchange(user, own, "files") else { break };
                let going = if turn % 2 == 0 { for_files } else { continue };
                self.set(going, Fate::Doubtful);
                let answer = user.with_token(&self.token(going).0).post("/v1/auth/logout").send();
                let by_key = self.of_keys(&self.token(going).1);
                assert!(answer.status == 204 || by_key != Fate::Live, "{}", answer.story());
                self.set(going, Fate::Dead);
            }
        }
    }

    /// Gets a token with a token; none if that one has died with its key.
    fn exchange(&self, user: &Client, with: usize, audience: &str) -> Option<usize> {
        let (text, kids) = self.token(with);
        let answer = user.with_token(&text).post("/v1/auth/token").json(json!({"audience": audience})).send();
        if answer.status == 401 && self.fate(with) != Fate::Live {
            return None;
        }
        assert_eq!(answer.status, 200, "{}", answer.story());
        Some(self.add(answer.text("token"), &kids))
    }

    /// Asks the server about tokens.
    fn check(&self, client: &Client) {
        for turn in 0.. {
            if self.is_done() {
                return;
            }
            let n = self.some(turn);
            let (text, kids) = self.token(n);
            let before = self.fate(n);
            let answer = client.post("/v1/token/validate").json(json!({"token": text})).ok(200);
            let good = answer["valid"] == true;
            match (before, good) {
                (Fate::Dead, true) => panic!("a dead token of {kids:?} is taken: {}", answer.story()),
                // What was live before and still is afterwards was so in between.
                (Fate::Live, false) => {
                    assert_ne!(self.fate(n), Fate::Live, "a live token of {kids:?} is refused: {}", answer.story());
                }
                _ => {}
            }
            self.checks.fetch_add(1, Ordering::Relaxed);
            self.refused.fetch_add(usize::from(!good), Ordering::Relaxed);
        }
    }

    /// Checks tokens without asking about each, with a key set that is kept for a while.
    fn check_offline(&self, client: &Client) {
        let mut keys = KeySet::fetch(client, self);
        for turn in 0.. {
            if self.is_done() {
                return;
            }
            let n = self.some(turn);
            let (text, kids) = self.token(n);
            let kid = &kids[kids.len() - 1];
            let before = self.of_keys(&kids[kids.len() - 1..]);
            // Only the newest keys may be unknown, and only to who has kept an older set: they are for rotations in
            // a hurry.
            let known_to_all = self.soaked.lock().unwrap().contains(kid);
            if keys.asked.elapsed() > KEEPS_KEYS || !(known_to_all || keys.holds(kid)) {
                keys = KeySet::fetch(client, self);
            }
            if before == Fate::Live && self.of_keys(&kids[kids.len() - 1..]) == Fate::Live {
                assert!(keys.verifies(&text), "a token of {kid} is refused by who checks it offline");
                self.offline.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// A key set, as somebody has fetched it.
struct KeySet {
    keys: Vec<(String, VerifyingKey)>,
    asked: Instant,
}

impl KeySet {
    fn fetch(client: &Client, ledger: &Ledger) -> Self {
        let dead: Vec<String> = {
            let keys = ledger.keys.lock().unwrap();
            keys.iter().filter(|(_, fate)| *fate == Fate::Dead).map(|(kid, _)| kid.clone()).collect()
        };
        let asked = Instant::now();
        let answer = client.get("/.well-known/jwks.json").ok(200);
        let keys = answer["keys"].as_array().unwrap().iter().map(|key| {
            let bytes = unb64(key["x"].as_str().unwrap());
            (key["kid"].as_str().unwrap().to_owned(), VerifyingKey::try_from(bytes.as_slice()).unwrap())
        });
        let set = Self { keys: keys.collect(), asked };
        assert!(!dead.iter().any(|kid| set.holds(kid)), "a revoked key is published");
        set
    }

    fn key(&self, kid: &str) -> Option<&VerifyingKey> {
        self.keys.iter().find(|(known, _)| known == kid).map(|(_, key)| key)
    }

    fn holds(&self, kid: &str) -> bool {
        self.key(kid).is_some()
    }

    fn verifies(&self, token: &str) -> bool {
        let (message, signature) = token.rsplit_once('.').unwrap();
        let signature = Signature::from_slice(&unb64(signature)).unwrap();
        self.key(&kid_of(token)).is_some_and(|key| key.verify_strict(message.as_bytes(), &signature).is_ok())
    }
}

#[test]
fn keys_rotated_and_revoked_under_load_refuse_nothing_good_and_take_nothing_bad() {
    let rotations = std::env::var("MCIAS_ROTATIONS").map_or(40, |n| n.parse().unwrap());
    let mut server = Server::with(|c| {
        // The log is for people, and there is a lot to tell.
        c.set("log", "level", "\"info\"");
    });
    let users = ["ann", "bob"].map(|name| server.human(name));
    let ledger = Ledger::default();
    ledger.soaked.lock().unwrap().insert(signing(&server));
    for user in &users {
        ledger.add(user.token(), &[]);
    }
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let ledger = &ledger;
        for user in &users {
            scope.spawn(move || until_panic(ledger, || ledger.issue(user)));
        }
        for _ in 0..2 {
            let client = server.client();
            scope.spawn(move || until_panic(ledger, || ledger.check(&client)));
        }
        let client = server.client();
        scope.spawn(move || until_panic(ledger, || ledger.check_offline(&client)));
        until_panic(ledger, || {
            for n in (1..=rotations).take_while(|_| !ledger.is_done()) {
                rotate(&server, ledger, n);
            }
        });
        ledger.done.store(true, Ordering::Relaxed);
    });
    let took = begun.elapsed();
    let told = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    let (checks, refused) = (told(&ledger.checks), told(&ledger.refused));
    eprintln!(
        "{rotations} rotations in {} s: {checks} checks by the server, {refused} of them refused, {} offline; {} tokens",
        took.as_secs(),
        told(&ledger.offline),
        told(&ledger.issued)
    );
    assert!(checks > rotations && refused > 0 && refused < checks && told(&ledger.offline) > 0);

    // And each once more at the end, when all is quiet.
    let client = server.client();
    for n in 0..ledger.tokens.read().unwrap().len() {
        let fate = ledger.fate(n);
        let (text, kids) = ledger.token(n);
        assert_ne!(fate, Fate::Doubtful);
        assert_eq!(client.with_token(&text).is_good(), fate == Fate::Live, "a token of {kids:?} that is {fate:?}");
    }
    let listed: Value = serde_json::from_str(&server.db(&["keys", "list", "--json"])).unwrap();
    let tokens = listed.as_array().unwrap().iter().filter(|key| key["purpose"] == "token");
    assert!(tokens.count() > rotations);
    server.stop();
    let events = server.is_sound();
    let rotated = events.iter().filter(|event| event.kind == "signing_key_created").count();
    assert!(rotated > rotations);
    server.db(&["audit", "verify"]);
}

/// Lets everybody else come to an end if this one fails.
fn until_panic(ledger: &Ledger, work: impl FnOnce()) {
    struct Done<'a>(&'a Ledger);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.done.fetch_or(std::thread::panicking(), Ordering::Relaxed);
        }
    }
    let _done = Done(ledger);
    work();
}

/// The key that signs.
fn signing(server: &Server) -> String {
    server.client().get("/v1/keys/public").ok(200).text("kid").to_owned()
}

/// One rotation, and now and then a key that has leaked.
fn rotate(server: &Server, ledger: &Ledger, n: usize) {
    if n.is_multiple_of(SOAKS) {
        let before = signing(server);
        let kid = server.db(&["keys", "rotate", "--soak", SOAK]);
        assert_ne!(kid, before);
        ledger.soaked.lock().unwrap().insert(kid.clone());
        support::eventually("the new key signs", || ledger.is_done() || signing(server) == kid);
    } else {
        let kid = server.db(&["keys", "rotate", "--now"]);
        assert_eq!(signing(server), kid);
    }
    if n.is_multiple_of(REVOKES) {
        // The one that signs now, or one of those before it.
        let kids = server.query::<String>(
            "SELECT kid FROM signing_keys WHERE purpose = 'token' AND revoked_at IS NULL ORDER BY id DESC LIMIT 4",
            [],
        );
        let kid = &kids[n / REVOKES % kids.len()];
        ledger.set_key(kid, Fate::Doubtful);
        server.db(&["keys", "revoke", "--kid", kid, "--yes"]);
        ledger.set_key(kid, Fate::Dead);
        assert_ne!(&signing(server), kid);
    }
}
