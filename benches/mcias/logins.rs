//! Logins: what one costs, what a thousand at once cost, and what they cost those who only check tokens.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::Scale;
use crate::argon2::{self, Reused};
use crate::checks::small;
use crate::report::{self, Report, median, p99, with_commas};
use crate::server::{Server, instance};
use crate::support::{Connection, Instance};

/// Checks a second while logins take all there is.
const CHECKS: u32 = 500;

fn login(username: &str, password: &str) -> Vec<u8> {
    let body = json!({"username": username, "password": password}).to_string();
    let length = body.len();
    format!(
        "POST /v1/auth/login HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn admin(instance: &Instance) -> Vec<u8> {
    login("admin", &instance.admin_password())
}

/// Processor time of one login, in turns with what it is compared to.
pub fn price(scale: &Scale, report: &mut Report) {
    let instance = instance();
    let server = Server::start(&instance);
    let mut connection = Connection::open(server.target.address, server.target.tls.clone()).unwrap();
    let mut login = |times: u32| {
        let begun = server.cpu();
        for _ in 0..times {
            assert_eq!(connection.say(admin(&instance)).answer().status, 200);
        }
        server.cpu() - begun
    };
    let mut reused = Reused::default();
    // The first of each allocates.
    login(1);
    reused.hash(1);
    let (mut logins, mut hashes, mut references) = (Vec::new(), Vec::new(), Vec::new());
    let mut missing = None;
    let each = |took: Duration| took.as_secs_f64() * 1000.0 / f64::from(scale.logins);
    for _ in 0..scale.rounds {
        logins.push(each(login(scale.logins)));
        hashes.push(each(reused.hash(scale.logins)));
        match argon2::reference(scale.logins) {
            Ok(took) => references.push(each(took)),
            Err(why) => missing = Some(why),
        }
    }
    let (login, hash) = (median(logins), median(hashes));
    let how =
        format!("processor time of the server, {} times {} logins; t=3, m=64 MiB, p=4", scale.rounds, scale.logins);
    report.row("one login", login, 1, " ms", report::Target::None, how);
    report.row(
        "one hash, memory reused",
        hash,
        1,
        " ms",
        report::Target::None,
        "the same crate, compiled the same way",
    );
    report.row("login against the hash alone", login / hash, 2, "", report::Target::AtMost(1.1), "");
    if let Some(why) = missing {
        return report.not_run("login against the reference", &why);
    }
    let reference = median(references);
    report.row("one hash, reference in C", reference, 1, " ms", report::Target::None, "`argon2 -id`, user and system");
    report.row("login against the reference", login / reference, 2, "", report::Target::AtMost(0.5), "");
}

/// The memory that a storm of logins takes, at most.
pub fn storm(scale: &Scale, report: &mut Report) {
    let instance = instance();
    let server = Server::start(&instance);
    let password = instance.admin_password();
    let requests = (0..scale.storm).map(|n| match n % 2 {
        0 => login("admin", &password),
        _ => login(&format!("nobody-{n}"), "a wrong password"),
    });
    let statuses = server.target.storm(requests.collect());
    let peak = server.memory("VmHWM") / 1e6;
    let slots = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let most = slots as f64 * f64::from(argon2::PARAMS.memory_kib) * 1024.0 / 1e6 + 64.0;
    let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    let how = format!(
        "VmHWM; slots × m + 64 MB with {slots} slots; {} in, {} refused, {} sent away",
        count(200),
        count(401),
        count(503)
    );
    let what = format!("memory, {} TLS logins at once", with_commas(scale.storm as f64));
    report.row(&what, peak, 1, " MB", report::Target::AtMost(most), how);
}

/// What a check takes while logins keep every hashing slot busy.
pub fn checks_beside_logins(scale: &Scale, report: &mut Report) {
    let small = small(scale);
    let server = Server::start(&small.instance);
    let window = scale.window * 2;
    let ask = || p99(server.target.open_loop(&small.checks, CHECKS, window));
    ask();
    let idle = ask();
    let (stop, logins) = (AtomicBool::new(false), AtomicU32::new(0));
    let request = admin(&small.instance);
    let saturated = std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut connection = Connection::open(server.target.address, server.target.tls.clone()).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    match connection.say(&request).answer().status {
                        200 => _ = logins.fetch_add(1, Ordering::Relaxed),
                        503 => std::thread::sleep(Duration::from_millis(20)),
                        other => panic!("a login got {other}"),
                    }
                }
            });
        }
        std::thread::sleep(scale.window / 4);
        let saturated = ask();
        stop.store(true, Ordering::Relaxed);
        saturated
    });
    let how = format!("open loop, {CHECKS} /s, timed from the intended send");
    report.row("token check, p99, idle", idle, 2, " ms", report::Target::None, how);
    let how = format!("the same while {} logins went through", logins.load(Ordering::Relaxed));
    report.row("token check, p99, every slot busy", saturated, 2, " ms", report::Target::None, how);
    report.row("busy against idle", saturated / idle, 2, "", report::Target::AtMost(2.0), "");
}
