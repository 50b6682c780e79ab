//! What MCIAS has to reach in speed and in memory, measured on this machine, in one run: `make bench`. Standard output
//! is a table in Markdown, standard error tells how it goes on. Nothing is asserted; a figure that misses its target
//! says so.
//!
//! Names of sections as arguments run these alone. Without `--bench`, which `cargo bench` gives, everything is done
//! once with hardly any of it: that is how `cargo test` sees that the bench still runs.

mod argon2;
mod bare;
mod checks;
mod database;
mod load;
mod logins;
mod report;
mod server;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use report::Report;

/// How much of everything.
pub struct Scale {
    /// How long a rate is measured.
    pub window: Duration,
    /// How often, in turns with what it is compared to; the median counts.
    pub rounds: usize,
    /// Tokens that are asked about.
    pub drawn: usize,
    /// Accounts and tokens of the large database.
    pub large: (usize, usize),
    /// Logins in a round, for the price of one.
    pub logins: u32,
    /// Logins at once.
    pub storm: usize,
    /// Starts.
    pub starts: usize,
}

const FULL: Scale = Scale {
    window: Duration::from_secs(4),
    rounds: 5,
    drawn: 10_000,
    large: (1_000_000, 10_000_000),
    logins: 8,
    storm: 1000,
    starts: 21,
};

const HARDLY_ANY: Scale = Scale {
    window: Duration::from_millis(100),
    rounds: 1,
    drawn: 20,
    large: (200, 1000),
    logins: 1,
    storm: 10,
    starts: 1,
};

type Section = (&'static str, fn(&Scale, &mut Report));

const SECTIONS: &[Section] = &[
    ("start", server::start_and_idle),
    ("check", checks::against_bare),
    ("large", checks::large_against_small),
    ("handshake", checks::handshakes),
    ("login", logins::price),
    ("storm", logins::storm),
    ("beside", logins::checks_beside_logins),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == bare::ROLE) {
        return bare::serve(&arguments[1..]);
    }
    let in_earnest = arguments.iter().any(|argument| argument == "--bench");
    let scale = if in_earnest { FULL } else { HARDLY_ANY };
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = wanted.iter().find(|name| SECTIONS.iter().all(|(known, _)| known != *name)) {
        let known: Vec<_> = SECTIONS.iter().map(|(name, _)| *name).collect();
        eprintln!("there is no section {unknown:?}; there are: {}", known.join(", "));
        std::process::exit(2);
    }
    if !in_earnest {
        eprintln!("a trial of the bench itself: its figures mean nothing");
    }
    let mut report = Report::new();
    for (name, run) in SECTIONS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            eprintln!("{name} …");
            run(&scale, &mut report);
        }
    }
    if in_earnest {
        report.print();
    }
}
