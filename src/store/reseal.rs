//! Every sealed value there is, column by column, for sealing again and for verifying.

use rusqlite::Row;

use super::accounts::sealed;
use super::{PgRow, Tx, View, statements};
use crate::error::{Error, Result};
use crate::model::account::AccountId;
use crate::model::words;
use crate::secret::Sealed;

words! {
    /// A column of sealed values.
    SealedColumn {
        Password = "accounts.password_enc",
        TotpSecret = "accounts.totp_secret_enc",
        TotpPending = "accounts.totp_pending_enc",
        PgPassword = "pg_credentials.pg_password_enc",
        PrivateKey = "signing_keys.private_key_enc",
    }
}

/// One sealed value and what its place is made of.
pub struct SealedValue {
    /// The row's number.
    pub row: i64,
    /// The row's UUID or `kid`.
    pub name: String,
    /// The account, where the row is one's.
    pub account: Option<AccountId>,
    /// The address, for Postgres credentials; their password is the sealed value itself.
    pub pg: Option<PgRow>,
    /// The value.
    pub sealed: Sealed,
}

statements! {
    PASSWORDS Walk = "SELECT id, uuid, password_enc, password_nonce FROM accounts
        WHERE id > ?1 AND password_enc IS NOT NULL ORDER BY id LIMIT ?2";
    TOTP_SECRETS Walk = "SELECT id, uuid, totp_secret_enc, totp_secret_nonce FROM accounts
        WHERE id > ?1 AND totp_secret_enc IS NOT NULL ORDER BY id LIMIT ?2";
    TOTP_PENDING Walk = "SELECT id, uuid, totp_pending_enc, totp_pending_nonce FROM accounts
        WHERE id > ?1 AND totp_pending_enc IS NOT NULL ORDER BY id LIMIT ?2";
    PG_PASSWORDS Walk = "SELECT pg_credentials.id, accounts.uuid, pg_password_enc, pg_password_nonce,
            pg_host, pg_port, pg_database, pg_username
        FROM pg_credentials JOIN accounts ON accounts.id = pg_credentials.account_id
        WHERE pg_credentials.id > ?1 ORDER BY pg_credentials.id LIMIT ?2";
    PRIVATE_KEYS Walk = "SELECT id, kid, private_key_enc, private_key_nonce FROM signing_keys
        WHERE id > ?1 ORDER BY id LIMIT ?2";
    SET_PASSWORD Search = "UPDATE accounts SET password_enc = ?2, password_nonce = ?3 WHERE id = ?1";
    SET_TOTP_SECRET Search = "UPDATE accounts SET totp_secret_enc = ?2, totp_secret_nonce = ?3 WHERE id = ?1";
    SET_TOTP_PENDING Search = "UPDATE accounts SET totp_pending_enc = ?2, totp_pending_nonce = ?3 WHERE id = ?1";
    SET_PG_PASSWORD Search = "UPDATE pg_credentials SET pg_password_enc = ?2, pg_password_nonce = ?3 WHERE id = ?1";
    SET_PRIVATE_KEY Search = "UPDATE signing_keys SET private_key_enc = ?2, private_key_nonce = ?3 WHERE id = ?1";
    UNDER_OTHERS Walk = "SELECT
        (SELECT count(*) FROM accounts WHERE substr(password_enc, 1, 4) <> ?1)
        + (SELECT count(*) FROM accounts WHERE substr(totp_secret_enc, 1, 4) <> ?1)
        + (SELECT count(*) FROM accounts WHERE substr(totp_pending_enc, 1, 4) <> ?1)
        + (SELECT count(*) FROM pg_credentials WHERE substr(pg_password_enc, 1, 4) <> ?1)
        + (SELECT count(*) FROM signing_keys WHERE substr(private_key_enc, 1, 4) <> ?1)";
}

impl View<'_> {
    /// At most `limit` sealed values of a column, beginning after the row `after`.
    pub fn sealed_values(&self, column: SealedColumn, after: i64, limit: u32) -> Result<Vec<SealedValue>> {
        let statement = match column {
            SealedColumn::Password => PASSWORDS,
            SealedColumn::TotpSecret => TOTP_SECRETS,
            SealedColumn::TotpPending => TOTP_PENDING,
            SealedColumn::PgPassword => PG_PASSWORDS,
            SealedColumn::PrivateKey => PRIVATE_KEYS,
        };
        self.rows(statement, (after, limit), |row| value(row, column))
    }

    /// How many values are sealed under another data key than this one.
    pub fn count_sealed_under_others(&self, data_key: u32) -> Result<i64> {
        let count = self.row(UNDER_OTHERS, [data_key.to_be_bytes()], |row| row.get(0))?;
        count.ok_or_else(|| Error::internal("a count without a row"))
    }
}

impl Tx<'_> {
    /// Puts another sealing of the same value in the place of one.
    pub fn replace_sealed(&self, column: SealedColumn, row: i64, sealed: &Sealed) -> Result<()> {
        let statement = match column {
            SealedColumn::Password => SET_PASSWORD,
            SealedColumn::TotpSecret => SET_TOTP_SECRET,
            SealedColumn::TotpPending => SET_TOTP_PENDING,
            SealedColumn::PgPassword => SET_PG_PASSWORD,
            SealedColumn::PrivateKey => SET_PRIVATE_KEY,
        };
        self.run(statement, (row, &sealed.ciphertext, sealed.nonce)).map(drop)
    }
}

fn value(row: &Row<'_>, column: SealedColumn) -> rusqlite::Result<SealedValue> {
    let name: String = row.get(1)?;
    let pg = match column {
        SealedColumn::PgPassword => Some(PgRow {
            host: row.get(4)?,
            port: row.get(5)?,
            database: row.get(6)?,
            username: row.get(7)?,
            password: sealed(row, 2)?.ok_or(rusqlite::Error::InvalidQuery)?,
        }),
        _ => None,
    };
    Ok(SealedValue {
        row: row.get(0)?,
        account: AccountId::parse(&name),
        name,
        pg,
        sealed: sealed(row, 2)?.ok_or(rusqlite::Error::InvalidQuery)?,
    })
}
