//! Tests that need to see the statements themselves; what any engine must keep is in `tests/store_conformance.rs`.

use rusqlite::StatementStatus;

use super::*;
use crate::model::audit::Via;
use crate::model::time::Millis;

fn occasion() -> Occasion {
    Occasion { time: Millis::new(1_800_000_000_000), via: Via::Server, ip: None }
}

/// Every statement of the room: its name, its text, and how far it may reach.
fn statements() -> Vec<(&'static str, &'static str, Reach)> {
    [
        accounts::STATEMENTS,
        audit::STATEMENTS,
        chain::STATEMENTS,
        check::STATEMENTS,
        epoch::STATEMENTS,
        keys::STATEMENTS,
        reseal::STATEMENTS,
        sealed::STATEMENTS,
        tokens::STATEMENTS,
    ]
    .concat()
}

/// The engine may look at what is bound to a parameter when it plans; it then plans anew with every other value, and
/// where that was so, a server checked a seventh of the tokens.
#[test]
fn no_statement_is_prepared_again_for_other_parameters() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_and_migrate(&dir.path().join("t.db"), occasion()).unwrap();
    let mut again = Vec::new();
    store
        .with_reader(|connection| {
            // A pragma is none that is planned.
            for (name, sql, _) in statements().into_iter().filter(|(_, sql, _)| !sql.starts_with("PRAGMA")) {
                for value in 0..3 {
                    let mut statement = connection.prepare_cached(sql).unwrap_or_else(|e| panic!("{name}: {e}"));
                    for parameter in 1..=statement.parameter_count() {
                        statement.raw_bind_parameter(parameter, format!("value {value}")).unwrap();
                    }
                    // What a statement refuses, in a connection that only reads above all, is nothing to it.
                    let _ = statement.raw_query().next();
                    if statement.get_status(StatementStatus::RePrepare) > 0 {
                        again.push(name);
                        break;
                    }
                }
            }
            Ok(())
        })
        .unwrap();
    assert!(again.is_empty(), "{again:?}");
}

#[test]
fn no_statement_scans_a_large_table_unless_it_lists() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_and_migrate(&dir.path().join("t.db"), occasion()).unwrap();
    let all = statements();
    let mut misfits = Vec::new();
    store
        .with_reader(|connection| {
            for (name, sql, reach) in &all {
                let plan: Vec<String> = connection
                    .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
                    .and_then(|mut statement| {
                        // Unbound parameters are NULL, which is all that a plan needs.
                        statement.raw_query().mapped(|row| row.get(3)).collect()
                    })
                    .unwrap_or_else(|e| panic!("{name}: {e}"));
                let fits = match reach {
                    Reach::Search => !plan.iter().any(|step| scans_rows(step)),
                    Reach::Newest => {
                        sql.contains("ORDER BY id DESC LIMIT") && !plan.iter().any(|step| step.contains("TEMP B-TREE"))
                    }
                    Reach::Walk => true,
                };
                if !fits {
                    misfits.push(format!("{name}: {plan:?}"));
                }
            }
            Ok(())
        })
        .unwrap();
    assert!(all.len() > 20 && misfits.is_empty(), "{misfits:#?}");
}

/// A scan of the working table of a recursive query, or of a constant row, is none of a table.
fn scans_rows(step: &str) -> bool {
    step.starts_with("SCAN") && !matches!(step, "SCAN gone" | "SCAN line" | "SCAN CONSTANT ROW")
}

#[test]
fn a_scan_would_be_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_and_migrate(&dir.path().join("t.db"), occasion()).unwrap();
    store
        .with_reader(|connection| {
            let plan: String = connection
                .query_row("EXPLAIN QUERY PLAN SELECT jti FROM token_revocation WHERE audience = 'x'", [], |r| r.get(3))
                .unwrap();
            assert!(scans_rows(&plan), "{plan}");
            Ok(())
        })
        .unwrap();
}
