//! What all tests share: how one says that this machine can't run it.

use std::io::Write as _;

/// Says so on standard error, past the test harness, which keeps back what a passing test prints. Where `CI` is set
/// everything has to run.
pub fn not_run(test: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{test} can't be run here: {why}");
    // Where nothing can be said there is nothing to be done either.
    let _ = writeln!(std::io::stderr(), "NOT RUN: {test}: {why}");
}
