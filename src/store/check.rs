//! Whether the file is whole, as far as SQLite can tell, and what the accounts are, for holding them against the log.

use super::{View, statements};
use crate::error::Result;

/// What decides what an account may do, as it stands in the table, whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The row's number.
    pub row: i64,
    /// The UUID.
    pub id: String,
    /// The name.
    pub username: String,
    /// The status.
    pub status: String,
    /// The roles held, sorted.
    pub roles: Vec<String>,
}

statements! {
    INTEGRITY Walk = "PRAGMA integrity_check(3)";
    BROKEN Walk = r#"SELECT "table", rowid, parent FROM pragma_foreign_key_check LIMIT 3"#;
    STANDINGS Walk = "SELECT id, uuid, username, status,
            (SELECT group_concat(role, ' ') FROM account_roles WHERE account_id = accounts.id)
        FROM accounts WHERE id > ?1 ORDER BY id LIMIT ?2";
}

impl View<'_> {
    /// The first three things that SQLite finds wrong with pages, rows, indexes and constraints.
    pub fn integrity_faults(&self) -> Result<Vec<String>> {
        let mut found: Vec<String> = self.rows(INTEGRITY, [], |row| row.get(0))?;
        found.retain(|line| line != "ok");
        Ok(found)
    }

    /// The first three rows that point to no row.
    pub fn reference_faults(&self) -> Result<Vec<String>> {
        self.rows(BROKEN, [], |row| {
            let (table, number, parent): (String, Option<i64>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let number = number.map_or_else(String::new, |number| format!(" {number}"));
            Ok(format!("row{number} of {table} points to no row of {parent}"))
        })
    }

    /// At most `limit` accounts, beginning after the row `after`.
    pub fn standings(&self, after: i64, limit: u32) -> Result<Vec<Standing>> {
        self.rows(STANDINGS, (after, limit), |row| {
            let joined: Option<String> = row.get(4)?;
            let mut roles: Vec<String> = joined.iter().flat_map(|text| text.split(' ')).map(str::to_owned).collect();
            roles.sort_unstable();
            Ok(Standing { row: row.get(0)?, id: row.get(1)?, username: row.get(2)?, status: row.get(3)?, roles })
        })
    }
}
