//! What was acknowledged is there, and nothing is there by halves, whenever the server is killed.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;
use support::{Client, Instance, Server, eventually};

/// What became of a token, as far as the server has said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Live,
    /// Its end was asked for, and no answer came.
    Doubtful,
    LoggedOut,
}

/// Everything that the server has acknowledged.
#[derive(Default)]
struct Ledger(Mutex<BTreeMap<String, Fate>>);

impl Ledger {
    fn note(&self, fate: Fate, tokens: &[&Client]) {
        let mut ledger = self.0.lock().unwrap();
        for token in tokens {
            ledger.insert(token.token().to_owned(), fate);
        }
    }

    fn acknowledged(&self) -> usize {
        self.0.lock().unwrap().values().filter(|fate| **fate != Fate::Doubtful).count()
    }

    /// Logs in, exchanges and logs out until the server is gone.
    fn fill(&self, user: &Client, logs_out: bool) -> Option<()> {
        loop {
            let login = user.try_login(user.username(), user.password()).without("authorization").try_send().ok()?;
            assert_eq!(login.status, 200, "{}", login.story());
            let session = user.with_token(login.text("token"));
            self.note(Fate::Live, &[&session]);
            let mut exchanged = Vec::new();
            for n in 0..12 {
                let answer = session.post("/v1/auth/token").json(json!({"audience": "files"})).try_send().ok()?;
                assert_eq!(answer.status, 200, "{}", answer.story());
                exchanged.push(user.with_token(answer.text("token")));
                self.note(Fate::Live, &[&exchanged[n]]);
                if n % 2 == 0 {
                    self.log_out(&exchanged[n], &[&exchanged[n]])?;
                }
            }
            if logs_out {
                let gone: Vec<&Client> = exchanged.iter().chain([&session]).collect();
                self.log_out(&session, &gone)?;
            }
        }
    }

    fn log_out(&self, session: &Client, gone: &[&Client]) -> Option<()> {
        let before: Vec<Option<Fate>> = gone.iter().map(|c| self.0.lock().unwrap().get(c.token()).copied()).collect();
        for (client, _) in gone.iter().zip(&before).filter(|(_, fate)| **fate == Some(Fate::Live)) {
            self.note(Fate::Doubtful, &[client]);
        }
        let answer = session.post("/v1/auth/logout").try_send().ok()?;
        assert_eq!(answer.status, 204, "{}", answer.story());
        self.note(Fate::LoggedOut, gone);
        Some(())
    }
}

#[test]
fn kill_9_in_the_middle_of_logins_and_logouts_loses_nothing_that_was_acknowledged() {
    let mut server = Server::start();
    let users: Vec<Client> = ["ann", "bob", "cleo"].map(|name| server.human(name)).into();
    let ledger = Ledger::default();
    for round in 1..=6 {
        let enough = ledger.acknowledged() + 20 * round;
        let ledger = &ledger;
        std::thread::scope(|scope| {
            for user in &users {
                for logs_out in [false, true] {
                    scope.spawn(move || ledger.fill(user, logs_out));
                }
            }
            eventually("there is enough to lose", || ledger.acknowledged() >= enough);
            server.kill();
        });
        server.start_again();
        nothing_is_lost(&server, ledger);
        server.login("ann", users[0].password()).post("/v1/auth/logout").ok(204);
    }
    server.stop();
    nothing_is_there_by_halves(&server);
}

fn nothing_is_lost(server: &Server, ledger: &Ledger) {
    let client = server.client();
    let ledger = ledger.0.lock().unwrap();
    let rows: BTreeMap<String, bool> = server
        .rows("SELECT jti, revoked_at IS NOT NULL FROM token_revocation", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .into_iter()
        .collect();
    let mut told: BTreeMap<bool, usize> = BTreeMap::new();
    for (token, fate) in ledger.iter() {
        let client = client.with_token(token);
        let revoked =
            *rows.get(&client.jti()).unwrap_or_else(|| panic!("the row of {fate:?} {} is lost", client.jti()));
        let good = client.is_good();
        assert_eq!(good, !revoked);
        match fate {
            Fate::Live => assert!(good, "{} was acknowledged and is lost", client.jti()),
            Fate::LoggedOut => assert!(!good, "{} was logged out and lives", client.jti()),
            Fate::Doubtful => {}
        }
        *told.entry(good).or_default() += 1;
    }
    assert!(told[&true] > 0 && told[&false] > 0, "{told:?}");
    nothing_is_there_by_halves(server);
}

/// A token's row and its event are there both or not at all, whether or not anybody was told; and so are its end and
/// the event of it.
fn nothing_is_there_by_halves(instance: &Instance) {
    let events = instance.is_sound();
    let of = |kinds: &[&str]| -> Vec<String> {
        let told = events.iter().filter(|event| kinds.contains(&event.kind.as_str()));
        let mut jtis: Vec<_> = told.map(|event| event.details["jti"].as_str().unwrap().to_owned()).collect();
        jtis.sort();
        jtis
    };
    let rows = |condition: &str| {
        instance.query::<String>(&format!("SELECT jti FROM token_revocation WHERE {condition} ORDER BY jti"), [])
    };
    assert_eq!(of(&["login_ok", "token_exchanged"]), rows("true"));
    assert_eq!(of(&["token_revoked"]), rows("revoke_reason = 'logout'"));
    let kids: BTreeSet<String> = instance.query("SELECT DISTINCT kid FROM token_revocation", []).into_iter().collect();
    assert_eq!(kids.len(), 1, "no start made a second key");
}

#[test]
fn a_server_killed_at_any_moment_of_its_start_starts_the_next_time() {
    let mut server = Server::start();
    let user = server.human("steady");
    server.kill();
    for n in 0..12 {
        let mut child = server.command();
        child.args(["server", "--config", "mcias.conf"]).stderr(std::process::Stdio::null());
        let mut child = child.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(n * 4));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    server.start_again();
    assert!(user.is_good());
    user.again();
    server.stop();
    server.is_sound();
}

#[test]
fn a_first_start_that_was_killed_leaves_nothing_that_stops_the_second() {
    // A database is made by the first server that finds none, in more than one step.
    let mut instance = Instance::new();
    for n in 0..12 {
        for name in ["mcias.db", "mcias.db-wal", "mcias.db-shm"] {
            let _ = std::fs::remove_file(instance.path(name));
        }
        let mut child = instance.command();
        child.args(["server", "--config", "mcias.conf"]).stderr(std::process::Stdio::null());
        let mut child = child.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(n * 3));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut server = instance.start();
        server.client().get("/v1/ready").ok(200);
        server.client().get("/v1/keys/public").ok(200);
        server.stop();
        let events = server.is_sound();
        let made = events.iter().filter(|event| event.kind == "signing_key_created").count();
        assert_eq!(made, 2, "a token key and an audit key");
        instance = server.into_instance();
    }
}
