//! Sealed Postgres credentials, and the server's own settings: key derivation, wrapped data keys, the epoch. Values are
//! bytes; what they mean is for the service to know.

use super::accounts::sealed;
use super::{Tx, View, statements};
use crate::error::Result;
use crate::model::account::AccountId;
use crate::model::credential::PgAddress;
use crate::model::time::Timestamp;
use crate::secret::Sealed;

statements! {
    GET Search = "SELECT value FROM server_config WHERE key = ?1";
    DELETE_SETTING Search = "DELETE FROM server_config WHERE key = ?1";
    CURRENT_DATA_KEY Search = "SELECT max(CAST(substr(key, 10) AS INTEGER)) FROM server_config
        WHERE key >= 'data_key/' AND key < 'data_key0'";
    WITH_PREFIX Walk = "SELECT key, value FROM server_config WHERE key >= ?1 AND key < ?2 ORDER BY key";
    PUT Search = "INSERT INTO server_config (key, value) VALUES (?1, ?2)
        ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    PG_GET Search = "SELECT pg_host, pg_port, pg_database, pg_username, pg_password_enc, pg_password_nonce
        FROM pg_credentials WHERE account_id = (SELECT id FROM accounts WHERE uuid = ?1) AND name = 'default'";
    PG_PUT Search = "INSERT INTO pg_credentials (account_id, name, pg_host, pg_port, pg_database, pg_username,
            pg_password_enc, pg_password_nonce, created_at, updated_at)
        SELECT id, 'default', ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8 FROM accounts WHERE uuid = ?1
        ON CONFLICT (account_id, name) DO UPDATE SET pg_host = excluded.pg_host, pg_port = excluded.pg_port,
            pg_database = excluded.pg_database, pg_username = excluded.pg_username,
            pg_password_enc = excluded.pg_password_enc, pg_password_nonce = excluded.pg_password_nonce,
            updated_at = excluded.updated_at";
    PG_DELETE Search = "DELETE FROM pg_credentials WHERE account_id = (SELECT id FROM accounts WHERE uuid = ?1)";
}

/// Postgres credentials as they are stored: the address as it stands in the row, whatever somebody made of it.
pub struct PgRow {
    /// `pg_host`
    pub host: String,
    /// `pg_port`
    pub port: i64,
    /// `pg_database`
    pub database: String,
    /// `pg_username`
    pub username: String,
    /// The sealed password.
    pub password: Sealed,
}

impl View<'_> {
    /// An account's Postgres credentials.
    pub fn pg_credentials(&self, account: AccountId) -> Result<Option<PgRow>> {
        self.row(PG_GET, [account], |row| {
            Ok(PgRow {
                host: row.get(0)?,
                port: row.get(1)?,
                database: row.get(2)?,
                username: row.get(3)?,
                password: sealed(row, 4)?.ok_or(rusqlite::Error::InvalidQuery)?,
            })
        })
    }

    /// The value of a setting.
    pub fn setting(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.row(GET, [key], |row| row.get(0))
    }

    /// The id of the data key that seals, as this transaction sees it; 0 where there is none.
    pub fn current_data_key(&self) -> Result<u32> {
        Ok(self.row(CURRENT_DATA_KEY, [], |row| row.get(0))?.flatten().unwrap_or(0))
    }

    /// All wrapped data keys: (id, nonce ‖ ciphertext).
    pub fn data_keys(&self) -> Result<Vec<(u32, Vec<u8>)>> {
        let rows: Vec<(String, Vec<u8>)> =
            self.rows(WITH_PREFIX, ("data_key/", "data_key0"), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows
            .into_iter()
            .filter_map(|(key, value)| Some((key.strip_prefix("data_key/")?.parse().ok()?, value)))
            .collect())
    }
}

impl Tx<'_> {
    /// Sets an account's Postgres credentials, in the place of any others.
    pub fn put_pg_credentials(
        &self,
        account: AccountId,
        address: &PgAddress,
        password: &Sealed,
        now: Timestamp,
    ) -> Result<()> {
        let values = (
            account,
            address.host(),
            address.port(),
            address.database(),
            address.username(),
            &password.ciphertext,
            password.nonce,
            now,
        );
        self.run(PG_PUT, values).map(drop)
    }

    /// Removes an account's Postgres credentials; `false` where there were none.
    pub fn delete_pg_credentials(&self, account: AccountId) -> Result<bool> {
        Ok(self.run(PG_DELETE, [account])? > 0)
    }

    /// Removes a setting.
    pub fn delete_setting(&self, key: &str) -> Result<()> {
        self.run(DELETE_SETTING, [key]).map(drop)
    }

    /// Sets a setting.
    pub fn put_setting(&self, key: &str, value: &[u8]) -> Result<()> {
        self.run(PUT, (key, value)).map(drop)
    }
}
