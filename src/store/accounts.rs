//! Accounts, their sealed passwords and TOTP state, and their roles.

use rusqlite::{Row, named_params};

use super::{Tx, View, statements};
use crate::error::Result;
use crate::model::account::{Account, AccountFilter, AccountId, AccountStatus, AccountType, RoleName, Username};
use crate::model::time::Timestamp;
use crate::secret::Sealed;

/// An account with what a login has to look at.
pub struct LoginRow {
    /// The account.
    pub account: Account,
    /// The sealed PHC string, if it has a password.
    pub password: Option<Sealed>,
    /// Its one-time codes.
    pub totp: TotpRow,
}

/// The state of an account's one-time codes.
pub struct TotpRow {
    /// The sealed secret, where TOTP is on.
    pub secret: Option<Sealed>,
    /// The newest time step whose code was accepted.
    pub last_step: i64,
    /// Wrong codes in a row that followed a right password.
    pub failures: i64,
    /// No code is looked at before this.
    pub locked_until: Timestamp,
    /// A secret that isn't confirmed yet, and when it was made.
    pub pending: Option<(Sealed, Timestamp)>,
}

/// A new account, ready to be stored.
pub struct NewAccountRow {
    /// The UUID.
    pub id: AccountId,
    /// The name.
    pub username: Username,
    /// Person or program.
    pub account_type: AccountType,
    /// The sealed PHC string.
    pub password: Option<Sealed>,
    /// When.
    pub created_at: Timestamp,
}

/// The columns of [`Account`], in the order [`account`] reads them.
macro_rules! account_columns {
    () => {
        "uuid, username, account_type, status, totp_required, created_at, updated_at,
         (SELECT group_concat(role, ' ') FROM account_roles WHERE account_id = accounts.id)"
    };
}

macro_rules! login_columns {
    () => {
        concat!(
            account_columns!(),
            ", password_enc, password_nonce, totp_secret_enc, totp_secret_nonce,
               totp_last_step, totp_failures, totp_locked_until, totp_pending_enc, totp_pending_nonce, totp_pending_at"
        )
    };
}

statements! {
    BY_ID Search = concat!("SELECT ", account_columns!(), " FROM accounts WHERE uuid = ?1");
    BY_NAME Search = concat!("SELECT ", account_columns!(), " FROM accounts WHERE username = ?1 AND status <> 'deleted'");
    LOGIN_BY_ID Search = concat!("SELECT ", login_columns!(), " FROM accounts WHERE uuid = ?1");
    LOGIN_BY_NAME Search = concat!("SELECT ", login_columns!(), " FROM accounts WHERE username = ?1 AND status <> 'deleted'");
    DELETED_BY_NAME Search = concat!("SELECT ", account_columns!(), " FROM accounts
        WHERE username = ?1 AND status = 'deleted' ORDER BY uuid LIMIT 1");
    LIST_LIVE Walk = concat!("SELECT ", account_columns!(), " FROM accounts
        WHERE status <> 'deleted' AND username > :name
          AND (:type IS NULL OR account_type = :type) AND (:status IS NULL OR status = :status)
        ORDER BY username LIMIT :limit");
    LIST_DELETED Walk = concat!("SELECT ", account_columns!(), " FROM accounts
        WHERE status = 'deleted' AND (username, uuid) > (:name, :uuid)
          AND (:type IS NULL OR account_type = :type) AND (:exact IS NULL OR username = :exact)
        ORDER BY username, uuid LIMIT :limit");
    INSERT Search = "INSERT INTO accounts
        (uuid, username, account_type, status, password_enc, password_nonce, created_at, updated_at)
        VALUES (?1, ?2, ?3, 'active', ?4, ?5, ?6, ?6)";
    REPLACE_PASSWORD_HASH Search = "UPDATE accounts SET password_enc = ?2, password_nonce = ?3
        WHERE uuid = ?1 AND password_enc = ?4 AND password_nonce = ?5";
    CLAIM_TOTP_STEP Search = "UPDATE accounts SET totp_last_step = ?2, totp_failures = 0, totp_locked_until = 0
        WHERE uuid = ?1 AND totp_last_step < ?2";
    SET_TOTP_FAILURES Search = "UPDATE accounts SET totp_failures = ?2, totp_locked_until = ?3 WHERE uuid = ?1";
    ENABLE_TOTP Search = "UPDATE accounts SET totp_required = 1, totp_secret_enc = ?2, totp_secret_nonce = ?3,
        totp_last_step = ?4, totp_failures = 0, totp_locked_until = 0,
        totp_pending_enc = NULL, totp_pending_nonce = NULL, totp_pending_at = NULL, updated_at = ?5 WHERE uuid = ?1";
    SET_PASSWORD Search = "UPDATE accounts SET password_enc = ?2, password_nonce = ?3, updated_at = ?4 WHERE uuid = ?1";
    SET_PENDING_TOTP Search = "UPDATE accounts SET totp_pending_enc = ?2, totp_pending_nonce = ?3, totp_pending_at = ?4
        WHERE uuid = ?1";
    DISABLE_TOTP Search = "UPDATE accounts SET totp_required = 0, totp_secret_enc = NULL, totp_secret_nonce = NULL,
        totp_pending_enc = NULL, totp_pending_nonce = NULL, totp_pending_at = NULL,
        totp_failures = 0, totp_locked_until = 0, updated_at = ?2 WHERE uuid = ?1";
    RENAME Search = "UPDATE accounts SET username = ?2, updated_at = ?3 WHERE uuid = ?1";
    SET_STATUS Search = "UPDATE accounts SET status = ?2, updated_at = ?3 WHERE uuid = ?1";
    DELETE Search = "UPDATE accounts SET status = 'deleted', deleted_at = ?2, updated_at = ?2,
        password_enc = NULL, password_nonce = NULL, totp_required = 0, totp_secret_enc = NULL, totp_secret_nonce = NULL,
        totp_pending_enc = NULL, totp_pending_nonce = NULL, totp_pending_at = NULL,
        totp_failures = 0, totp_locked_until = 0 WHERE uuid = ?1";
    DELETE_ROLES Search = "DELETE FROM account_roles WHERE account_id = (SELECT id FROM accounts WHERE uuid = ?1)";
    REVOKE_ROLE Search = "DELETE FROM account_roles
        WHERE account_id = (SELECT id FROM accounts WHERE uuid = ?1) AND role = ?2";
    OTHER_ADMINS Search = "SELECT count(*) FROM account_roles JOIN accounts ON accounts.id = account_roles.account_id
        WHERE account_roles.role = 'admin' AND accounts.account_type = 'human' AND accounts.status = 'active'
          AND accounts.uuid <> ?1";
    GRANT_ROLE Search = "INSERT INTO account_roles (account_id, role, granted_by, granted_at)
        SELECT id, ?2, (SELECT id FROM accounts WHERE uuid = ?3), ?4 FROM accounts WHERE uuid = ?1
        ON CONFLICT DO NOTHING";
    PASSWORDS_AFTER Walk = "SELECT id, uuid, password_enc, password_nonce FROM accounts
        WHERE id > ?1 AND password_enc IS NOT NULL ORDER BY id LIMIT ?2";
}

impl View<'_> {
    /// The account with this UUID, deleted or not.
    pub fn account(&self, id: AccountId) -> Result<Option<Account>> {
        self.row(BY_ID, [id], account)
    }

    /// The account that has this name now.
    pub fn account_named(&self, username: &Username) -> Result<Option<Account>> {
        self.row(BY_NAME, [username], account)
    }

    /// A deleted account that had this name.
    pub fn deleted_account_named(&self, username: &Username) -> Result<Option<Account>> {
        self.row(DELETED_BY_NAME, [username], account)
    }

    /// The account that has this name now, with what a login looks at.
    pub fn login_row_named(&self, username: &Username) -> Result<Option<LoginRow>> {
        self.row(LOGIN_BY_NAME, [username], login_row)
    }

    /// The account with this UUID, with what a login looks at.
    pub fn login_row(&self, id: AccountId) -> Result<Option<LoginRow>> {
        self.row(LOGIN_BY_ID, [id], login_row)
    }

    /// At most `limit` accounts by name (then UUID), beginning after `after`.
    pub fn list_accounts(
        &self,
        filter: &AccountFilter,
        after: Option<(&str, &str)>,
        limit: u32,
    ) -> Result<Vec<Account>> {
        let (name, uuid) = after.unwrap_or(("", ""));
        if filter.status == Some(AccountStatus::Deleted) {
            let exact = filter.username.as_ref().map(Username::as_str);
            return self.rows(
                LIST_DELETED,
                named_params! {":name": name, ":uuid": uuid, ":type": filter.account_type, ":exact": exact, ":limit": limit},
                account,
            );
        }
        if let Some(username) = &filter.username {
            let found = self.account_named(username)?.filter(|account| {
                filter.account_type.is_none_or(|wanted| wanted == account.account_type)
                    && filter.status.is_none_or(|wanted| wanted == account.status)
                    && account.username.as_str() > name
            });
            return Ok(found.into_iter().collect());
        }
        self.rows(
            LIST_LIVE,
            named_params! {":name": name, ":type": filter.account_type, ":status": filter.status, ":limit": limit},
            account,
        )
    }

    /// How many active people beside this account hold the role `admin`.
    pub fn other_admins(&self, id: AccountId) -> Result<i64> {
        Ok(self.row(OTHER_ADMINS, [id], |row| row.get(0))?.unwrap_or(0))
    }

    /// Sealed passwords in order of row number, beginning after `after`: (row number, account, password).
    pub fn passwords_after(&self, after: i64, limit: u32) -> Result<Vec<(i64, AccountId, Sealed)>> {
        self.rows(PASSWORDS_AFTER, (after, limit), |row| {
            let password = sealed(row, 2)?.ok_or(rusqlite::Error::InvalidQuery)?;
            Ok((row.get(0)?, row.get(1)?, password))
        })
    }
}

impl Tx<'_> {
    /// Stores a new account; `false` where somebody has the name.
    pub fn insert_account(&self, new: &NewAccountRow) -> Result<bool> {
        if self.account_named(&new.username)?.is_some() {
            return Ok(false);
        }
        let (enc, nonce) = columns(new.password.as_ref());
        self.run(INSERT, (new.id, &new.username, new.account_type, enc, nonce, new.created_at))?;
        Ok(true)
    }

    /// Puts a hash of the same password in the place of `old`; `false` where `old` is no longer there.
    pub fn replace_password_hash(&self, id: AccountId, old: &Sealed, new: &Sealed) -> Result<bool> {
        let values = (id, &new.ciphertext, new.nonce, &old.ciphertext, old.nonce);
        Ok(self.run(REPLACE_PASSWORD_HASH, values)? == 1)
    }

    /// Takes a time step for good and forgets the failures; `false` where it, or a later one, was taken before.
    pub fn claim_totp_step(&self, id: AccountId, step: i64) -> Result<bool> {
        Ok(self.run(CLAIM_TOTP_STEP, (id, step))? == 1)
    }

    /// Remembers wrong codes, and until when none is looked at.
    pub fn set_totp_failures(&self, id: AccountId, failures: i64, locked_until: Timestamp) -> Result<()> {
        self.run(SET_TOTP_FAILURES, (id, failures, locked_until)).map(drop)
    }

    /// Turns TOTP on with this secret; codes up to `last_step` count as used.
    pub fn enable_totp(&self, id: AccountId, secret: &Sealed, last_step: i64, now: Timestamp) -> Result<()> {
        self.run(ENABLE_TOTP, (id, &secret.ciphertext, secret.nonce, last_step, now)).map(drop)
    }

    /// Sets a password, whatever was there.
    pub fn set_password(&self, id: AccountId, password: &Sealed, now: Timestamp) -> Result<()> {
        self.run(SET_PASSWORD, (id, &password.ciphertext, password.nonce, now)).map(drop)
    }

    /// Remembers a TOTP secret that waits to be confirmed, in the place of any other.
    pub fn set_pending_totp(&self, id: AccountId, secret: &Sealed, now: Timestamp) -> Result<()> {
        self.run(SET_PENDING_TOTP, (id, &secret.ciphertext, secret.nonce, now)).map(drop)
    }

    /// Turns TOTP off, and forgets what was pending.
    pub fn disable_totp(&self, id: AccountId, now: Timestamp) -> Result<()> {
        self.run(DISABLE_TOTP, (id, now)).map(drop)
    }

    /// Gives an account another name; `false` where somebody else has it.
    pub fn rename(&self, id: AccountId, username: &Username, now: Timestamp) -> Result<bool> {
        if self.account_named(username)?.is_some() {
            return Ok(false);
        }
        self.run(RENAME, (id, username, now)).map(|_| true)
    }

    /// Makes an account active or suspended.
    pub fn set_status(&self, id: AccountId, status: AccountStatus, now: Timestamp) -> Result<()> {
        self.run(SET_STATUS, (id, status, now)).map(drop)
    }

    /// Deletes an account: what is secret of it is erased, its name is free, its row stays for the audit log.
    pub fn delete_account(&self, id: AccountId, now: Timestamp) -> Result<()> {
        self.delete_pg_credentials(id)?;
        self.run(DELETE_ROLES, [id])?;
        self.forget_system_tokens(id)?;
        self.run(DELETE, (id, now)).map(drop)
    }

    /// Takes a role; `false` where it wasn't held.
    pub fn revoke_role(&self, id: AccountId, role: &RoleName) -> Result<bool> {
        Ok(self.run(REVOKE_ROLE, (id, role))? == 1)
    }

    /// Gives a role; `false` where it was held already.
    pub fn grant_role(&self, id: AccountId, role: &RoleName, by: Option<AccountId>, now: Timestamp) -> Result<bool> {
        Ok(self.run(GRANT_ROLE, (id, role, by, now))? == 1)
    }
}

/// Reads the columns of `account_columns!`.
fn account(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        id: row.get(0)?,
        username: row.get(1)?,
        account_type: row.get(2)?,
        status: row.get(3)?,
        totp_enabled: row.get(4)?,
        created_at: row.get(5)?,
        updated_at: row.get(6)?,
        roles: roles(row, 7)?,
    })
}

fn login_row(row: &Row<'_>) -> rusqlite::Result<LoginRow> {
    Ok(LoginRow {
        account: account(row)?,
        password: sealed(row, 8)?,
        totp: TotpRow {
            secret: sealed(row, 10)?,
            last_step: row.get(12)?,
            failures: row.get(13)?,
            locked_until: row.get(14)?,
            pending: sealed(row, 15)?.zip(row.get(17)?),
        },
    })
}

/// Reads space-separated roles, sorted; a role's name has no space in it.
pub(super) fn roles(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<RoleName>> {
    let joined: Option<&str> = row.get_ref(column)?.as_str_or_null()?;
    let mut roles = joined
        .into_iter()
        .flat_map(|text| text.split(' '))
        .map(|name| RoleName::parse(name).map_err(|_| rusqlite::Error::InvalidQuery))
        .collect::<rusqlite::Result<Vec<_>>>()?;
    roles.sort_unstable();
    Ok(roles)
}

/// Reads a ciphertext column and the nonce column after it.
pub(super) fn sealed(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Sealed>> {
    let ciphertext: Option<Vec<u8>> = row.get(column)?;
    let nonce: Option<[u8; 12]> = row.get(column + 1)?;
    Ok(ciphertext.zip(nonce).map(|(ciphertext, nonce)| Sealed { nonce, ciphertext }))
}

fn columns(sealed: Option<&Sealed>) -> (Option<&[u8]>, Option<&[u8]>) {
    sealed.map(|s| (s.ciphertext.as_slice(), s.nonce.as_slice())).unzip()
}
