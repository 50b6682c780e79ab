//! The tests' own helper: real instances of the real program, each in a folder of its own on a free port with real
//! TLS, and clients that trust nothing but their instance's CA.
//!
//! ```ignore
//! let server = Server::with(|c| c.set("tokens", "default_expiry", "\"2s\""));
//! let alice = server.human("alice");                                      // made by the admin, and logged in
//! let me = alice.get("/v1/auth/me").ok(200);                              // status, and every header of the contract
//! assert_eq!(me["username"], "alice");
//! server.client().get("/v1/auth/me").expect(401, "unauthorized");         // status, code, headers, shape
//! server.sql("UPDATE accounts SET status = 'suspended' WHERE uuid = ?1", [alice.id()]);
//! alice.get("/v1/auth/me").expect(401, "unauthorized");
//! assert_eq!(server.query::<i64>("SELECT count(*) FROM token_revocation", []), [2]);
//! ```
//!
//! What fails tells the request, the answer and the end of the server's log. Whatever becomes of a test, also where it
//! panics, aborts or is killed, and where the server is in a `static` that nobody drops: its processes end and its
//! folder goes.

#![allow(dead_code, unused_imports, reason = "each file of tests uses a part of this")]

mod answer;
mod chain;
mod client;
mod connection;
mod forge;
mod grpc;
mod http2;
mod instance;
mod log;
mod maintenance;
mod server;
mod terminal;

use std::time::Duration;

pub use answer::Answer;
pub use chain::{Event, canonical};
pub use client::{Client, Door, Request};
pub use connection::{Connection, RawAnswer, trusting, trusting_by, trusting_with};
pub use forge::{Forge, b64, claims_of, claims_text, parts_of, unb64};
pub use grpc::{Call, Grpc, GrpcAnswer, Messages};
pub use instance::{Instance, MCIAS, Refusal, program, tree};
pub use log::Log;
pub use maintenance::{Mount, fed};
pub use server::Server;
pub use terminal::Terminal;

/// How long anything may take before it counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Unix seconds as the contract writes a time.
pub fn rfc3339(seconds: i64) -> String {
    let format = time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::from_unix_timestamp(seconds).unwrap().format(&format).unwrap()
}

/// Unix seconds, now.
pub fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

/// Runs it in so many threads, which begin together; gives what each came to.
pub fn at_once<T: Send>(threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = std::sync::Barrier::new(threads);
    let one = &|n| {
        barrier.wait();
        work(n)
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|n| scope.spawn(move || one(n))).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
    })
}

/// Asks until it is so; for what happens soon, but not at once.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it never came about that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
