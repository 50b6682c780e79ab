//! Password hashing under load: a bounded number at once in a bounded amount of memory, a bounded queue that is fair by
//! network, and everything else going on beside it.

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Client, Connection, Instance, PATIENCE, Request, Server, at_once};

/// One slot, and hashes of so many passes.
fn one_slot(passes: u32) -> impl FnOnce(&mut Instance) {
    move |c| {
        c.set("argon2", "slots", "1");
        c.set("argon2", "time", &passes.to_string());
        c.set("server", "trusted_proxies", "[\"127.0.0.0/8\"]");
    }
}

/// A login that was sent over a connection of its own.
fn sent_login(server: &Server, username: &str, password: &str) -> Connection {
    let mut connection = server.raw();
    connection.say(server.client().try_login(username, password).forwarded_for("198.51.100.1").bytes());
    connection
}

#[test]
fn of_a_storm_from_one_network_four_wait_and_the_rest_are_sent_away_at_once() {
    let server = Server::with(one_slot(12));
    let password = server.admin().password().to_owned();
    let (told, answers) = mpsc::channel();
    const STORM: usize = 30;
    let ready = std::sync::Barrier::new(STORM);
    std::thread::scope(|scope| {
        // All of one /24, over as many connections.
        for n in 0..STORM {
            let (told, ready, server, password) = (told.clone(), &ready, &server, &password);
            scope.spawn(move || {
                let mut connection = server.raw();
                let address = format!("198.51.100.{}", n + 1);
                let login = server.client().try_login("admin", password).forwarded_for(&address).bytes();
                ready.wait();
                connection.say(login);
                told.send(connection.answer()).unwrap();
            });
        }
        let statuses: Vec<u16> = (0..STORM)
            .map(|_| {
                let answer = answers.recv_timeout(PATIENCE).unwrap();
                let later = answer.header("retry-after").map(|seconds| seconds.parse::<u32>().unwrap() > 0);
                assert_eq!(later, (answer.status == 503).then_some(true), "{answer:?}");
                answer.status
            })
            .collect();
        let first_in = statuses.iter().position(|status| *status == 200).expect("one got in");
        assert!(first_in >= STORM - 5, "before the first was hashed, all but it and four were gone: {statuses:?}");
        assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
    });
    server.client().try_login("admin", &password).ok(200);
}

/// Logs in again and again from the given networks, wrongly, until `then` is done, which is told how many were sent
/// away by then.
fn in_a_storm(server: &Server, networks: usize, per_network: usize, then: impl FnOnce(&AtomicUsize)) {
    let (over, sent_away) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for network in 0..networks {
            for n in 0..per_network {
                let (over, sent_away) = (&over, &sent_away);
                scope.spawn(move || {
                    let address = format!("198.51.{network}.{}", n + 1);
                    while !over.load(Ordering::SeqCst) {
                        let login = server.client().try_login("admin", "not the admin's password");
                        let answer = login.forwarded_for(&address).send();
                        assert!(matches!(answer.status, 401 | 503), "{}", answer.story());
                        if answer.status == 503 {
                            sent_away.fetch_add(1, Ordering::SeqCst);
                            std::thread::sleep(Duration::from_millis(20));
                        }
                    }
                });
            }
        }
        while sent_away.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Also when it fails, the storm has to end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| then(&sent_away)));
        over.store(true, Ordering::SeqCst);
        outcome.unwrap_or_else(|e| std::panic::resume_unwind(e));
    });
}

/// Insists on a place in the queue. Nobody waits longer than 5 s, and on a machine that is busy with other things a turn
/// may not come by then; who waited for so long had a place, and tries again.
fn gets_its_turn(login: &Request) {
    for _ in 0..10 {
        let begun = Instant::now();
        let answer = login.clone().send();
        if answer.status == 200 {
            return;
        }
        assert_eq!(answer.status, 503, "{}", answer.story());
        assert!(begun.elapsed() > Duration::from_secs(4), "it was sent away at once{}", answer.story());
    }
    panic!("its turn never comes");
}

#[test]
fn others_get_their_turn_in_a_storm_from_one_network() {
    let server = Server::with(|c| {
        one_slot(2)(c);
        // The storm alone would fill it.
        c.set("argon2", "queue", "8");
    });
    let password = server.admin_password();
    in_a_storm(&server, 1, 12, |_| {
        for network in 1..=3 {
            // One that was never here before.
            let login = server.client().try_login("admin", &password);
            gets_its_turn(&login.forwarded_for(&format!("203.0.{network}.7")));
        }
    });
}

#[test]
fn a_network_that_has_logged_in_before_gets_its_turn_in_a_storm_from_everywhere() {
    let server = Server::with(|c| {
        one_slot(2)(c);
        c.set("argon2", "queue", "4");
    });
    let password = server.admin_password();
    let login = || server.client().try_login("admin", &password).forwarded_for("203.0.113.7");
    login().ok(200);
    in_a_storm(&server, 12, 1, |sent_away| {
        for _ in 0..3 {
            let before = sent_away.load(Ordering::SeqCst);
            gets_its_turn(&login());
            // The storm was really on: of strangers there is one after another who finds no place.
            while sent_away.load(Ordering::SeqCst) == before {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
}

#[test]
fn memory_has_a_ceiling_whatever_arrives() {
    let server = Server::with(one_slot(2));
    let password = server.admin().password().to_owned();
    let statuses = at_once(100, |n| {
        let mut connection = server.raw();
        let address = format!("198.51.{n}.1");
        connection.say(server.client().try_login("admin", &password).forwarded_for(&address).bytes());
        connection.answer().status
    });
    assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
    assert!(statuses.iter().filter(|status| **status == 200).count() > 4, "{statuses:?}");
    let highest = server.memory_kib("VmHWM");
    assert!(highest > 64 * 1024, "{highest} KiB: a slot's memory isn't in it?");
    assert!(highest < 64 * 1024 + 64 * 1000, "{highest} KiB");
}

/// Sends logins until one is sent away, which says that the slot and every place before it are taken; the rest of them
/// are not answered yet.
fn with_all_places_taken(server: &Server, users: &[Client]) -> Vec<(usize, Connection)> {
    let mut waiting: Vec<(usize, Connection)> =
        users.iter().enumerate().map(|(n, user)| (n, sent_login(server, user.username(), user.password()))).collect();
    loop {
        for at in 0..waiting.len() {
            if let Some(answer) = waiting[at].1.answer_within(Duration::from_millis(5)) {
                assert_eq!(answer.status, 503, "{answer:?}");
                waiting.remove(at);
                return waiting;
            }
        }
    }
}

#[test]
fn checks_and_writes_go_on_while_the_slot_is_busy_and_the_queue_full() {
    let server = Server::with(|c| {
        one_slot(24)(c);
        c.set("argon2", "queue", "1");
    });
    let admin = server.admin();
    let users = [admin.clone(), admin.clone(), admin.clone()];
    // What counts is what comes first, so a machine that stands still for a moment gets another try.
    let went_on = (0..5).any(|_| {
        let mut waiting = with_all_places_taken(&server, &users);
        assert!(admin.is_good());
        admin.get("/v1/token/validate").ok(200);
        admin.get("/v1/auth/me").ok(200);
        server.client().get("/v1/ready").ok(200);
        let exchanged = admin.post("/v1/auth/token").json(json!({"audience": "files"})).ok(200);
        admin.with_token(exchanged.text("token")).post("/v1/auth/logout").ok(204);
        admin.get("/v1/accounts").ok(200);
        let none_yet = waiting.iter_mut().all(|(_, c)| c.answer_within(Duration::from_millis(1)).is_none());
        for (_, connection) in waiting.iter_mut().filter(|_| none_yet) {
            assert!(matches!(connection.answer().status, 200 | 503));
        }
        none_yet
    });
    assert!(went_on, "a check waits behind a hash");
}

#[test]
fn who_went_away_is_dropped_from_the_queue() {
    let server = Server::with(|c| {
        one_slot(48)(c);
        c.set("argon2", "queue", "1");
    });
    let users = ["one", "two", "three"].map(|name| server.human(name));
    let next = server.admin();
    let logins = |user: &Client| server.events_of(user.id()).iter().filter(|event| event.kind == "login_ok").count();
    // As above: a machine that stands still for as long as a hash takes shows nothing, and gets another try.
    let shown = (0..5).any(|_| {
        let before = users.each_ref().map(logins);
        let waiting = with_all_places_taken(&server, &users);
        let numbers: Vec<usize> = waiting.iter().map(|(n, _)| *n).collect();
        let begun = || numbers.iter().map(|n| logins(&users[*n]) - before[*n]).sum::<usize>();
        drop(waiting);
        // Both went away, the one that is being hashed and the one that waits: there is a place again, although the
        // slot is still taken.
        let had_a_place = loop {
            let mut newcomer = sent_login(&server, next.username(), next.password());
            let answer = newcomer.answer_within(Duration::from_millis(100));
            if begun() > 0 {
                break false;
            }
            if answer.is_none() {
                assert!(matches!(newcomer.answer().status, 200 | 503), "it waited, perhaps for as long as anybody may");
                break true;
            }
        };
        // What had begun ran to its end; what waited never began.
        support::eventually("the slot is free", || {
            next.without_token().try_login(next.username(), next.password()).send().status == 200
        });
        assert_eq!(begun(), 1);
        had_a_place
    });
    assert!(shown, "who went away keeps a place");
}
