//! The server's own settings: key derivation, wrapped data keys, the epoch. Values are bytes; what they mean is for the
//! service to know.

use super::{Tx, View, statements};
use crate::error::Result;

statements! {
    GET Search = "SELECT value FROM server_config WHERE key = ?1";
    WITH_PREFIX Walk = "SELECT key, value FROM server_config WHERE key >= ?1 AND key < ?2 ORDER BY key";
    PUT Search = "INSERT INTO server_config (key, value) VALUES (?1, ?2)
        ON CONFLICT (key) DO UPDATE SET value = excluded.value";
}

impl View<'_> {
    /// The value of a setting.
    pub fn setting(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.row(GET, [key], |row| row.get(0))
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
    /// Sets a setting.
    pub fn put_setting(&self, key: &str, value: &[u8]) -> Result<()> {
        self.run(PUT, (key, value)).map(drop)
    }
}
