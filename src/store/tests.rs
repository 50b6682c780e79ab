//! Tests that need to see the statements themselves; what any engine must keep is in `tests/store_conformance.rs`.

use super::*;
use crate::model::audit::Via;
use crate::model::time::Millis;

fn occasion() -> Occasion {
    Occasion { time: Millis::new(1_800_000_000_000), via: Via::Server, ip: None }
}

#[test]
fn no_statement_scans_a_large_table_unless_it_lists() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_and_migrate(&dir.path().join("t.db"), occasion()).unwrap();
    let all = [
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
    .concat();
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
