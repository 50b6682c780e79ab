//! The hot path: checking tokens, and the connections over which that is done.

use crate::Scale;
use crate::bare::Bare;
use crate::database::{Filled, filled};
use crate::load::{Target, Until};
use crate::report::{self, Report, each, median};
use crate::server::Server;
use crate::support::{Connection, RawAnswer};

/// Checks over kept connections, beside the bare responder with the same requests and answers of the same size.
pub fn against_bare(scale: &Scale, report: &mut Report) {
    let small = small(scale);
    let server = Server::start(&small.instance);
    let bare = Bare::start(&small.instance, &one_answer(&server.target, &small.checks[0]));
    // It learns nothing from the one request, whose token is one of the list.
    let cold = server.target.rate(&small.checks, Until::EachOnce);
    let (ours, theirs) = in_turns(scale, |window| {
        let ours = server.target.rate(&small.checks, Until::Passed(window));
        (ours, bare.target.rate(&small.checks, Until::Passed(window)))
    });
    let how = format!("32 kept TLS connections, {} distinct tokens", scale.drawn);
    report.row("token checks, warm", median(ours.clone()), 0, " /s", report::Target::None, each(&ours));
    report.row("bare responder", median(theirs.clone()), 0, " /s", report::Target::None, each(&theirs));
    let ratio = median(ours) / median(theirs);
    report.row("checks against the bare responder", ratio, 2, "", report::Target::AtLeast(0.6), how);
    report.row("token checks, cold", cold, 0, " /s", report::Target::None, "each token once, after a start");
}

/// The same over many accounts and tokens.
pub fn large_against_small(scale: &Scale, report: &mut Report) {
    let small = small(scale);
    let (accounts, tokens) = scale.large;
    let large = filled(accounts, tokens, scale.drawn);
    let size = std::fs::metadata(large.instance.path("mcias.db")).unwrap().len() as f64;
    let (of_small, of_large) = (Server::start(&small.instance), Server::start(&large.instance));
    let took = of_large.took.as_secs_f64() * 1000.0;
    let how = format!("{accounts} accounts, {tokens} tokens, {:.2} GB", size / 1e9);
    report.row("start to answering, large database", took, 1, " ms", report::Target::None, how.clone());
    of_small.target.rate(&small.checks, Until::EachOnce);
    let cold = of_large.target.rate(&large.checks, Until::EachOnce);
    report.row(
        "token checks, large database, cold",
        cold,
        0,
        " /s",
        report::Target::None,
        "each token once, after a start",
    );
    let (of_large, of_small) = in_turns(scale, |window| {
        let large = of_large.target.rate(&large.checks, Until::Passed(window));
        (large, of_small.target.rate(&small.checks, Until::Passed(window)))
    });
    report.row(
        "token checks, large database",
        median(of_large.clone()),
        0,
        " /s",
        report::Target::None,
        each(&of_large),
    );
    let ratio = median(of_large) / median(of_small);
    report.row("large database against the small one", ratio, 2, "", report::Target::AtLeast(0.9), how);
}

/// New TLS connections.
pub fn handshakes(scale: &Scale, report: &mut Report) {
    let instance = crate::server::instance();
    let server = Server::start(&instance);
    let health = one_answer(&server.target, b"GET /v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let bare = Bare::start(&instance, &health);
    let (ours, theirs) =
        in_turns(scale, |window| (server.target.connection_rate(window), bare.target.connection_rate(window)));
    let how = "TLS 1.3 with X25519MLKEM768, P-256 certificate, one request each";
    report.row("new TLS connections", median(ours.clone()), 0, " /s", report::Target::None, each(&ours));
    report.row(
        "new TLS connections, bare responder",
        median(theirs.clone()),
        0,
        " /s",
        report::Target::None,
        each(&theirs),
    );
    let ratio = median(ours) / median(theirs);
    report.row("connections against the bare responder", ratio, 2, "", report::Target::AtLeast(0.9), how);
}

/// The small database: a tenth as many accounts as tokens, and every token is drawn.
pub fn small(scale: &Scale) -> Filled {
    filled(scale.drawn / 10, scale.drawn, scale.drawn)
}

/// Measures two in turns, so that what else the machine does strikes both alike.
fn in_turns(scale: &Scale, mut round: impl FnMut(std::time::Duration) -> (f64, f64)) -> (Vec<f64>, Vec<f64>) {
    (0..scale.rounds).map(|_| round(scale.window)).unzip()
}

fn one_answer(target: &Target, request: &[u8]) -> RawAnswer {
    let mut connection = Connection::open(target.address, target.tls.clone()).unwrap();
    let answer = connection.say(request).answer();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}
