//! The tables of `spec/data.md` as numbered migrations, each applied in one transaction with its audit event.

use rusqlite::Connection;

/// The migrations in order; the n-th leads to version n. Never edited once released: a change is a new one.
pub(super) const MIGRATIONS: &[&str] = &[VERSION_1];

/// The version this program works with.
pub const LATEST: i64 = MIGRATIONS.len() as i64;

const VERSION_1: &str = "
CREATE TABLE schema_version (
    version    INTEGER PRIMARY KEY,
    applied_at INTEGER NOT NULL
) STRICT;

CREATE TABLE server_config (
    key   TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE signing_keys (
    id                INTEGER PRIMARY KEY,
    kid               TEXT NOT NULL UNIQUE,
    purpose           TEXT NOT NULL CHECK (purpose IN ('token', 'audit')),
    public_key        BLOB NOT NULL CHECK (length(public_key) = 32),
    private_key_enc   BLOB NOT NULL,
    private_key_nonce BLOB NOT NULL,
    created_at        INTEGER NOT NULL,
    signs_from        INTEGER NOT NULL,
    retired_at        INTEGER,
    verify_until      INTEGER,
    revoked_at        INTEGER
) STRICT;

CREATE TABLE accounts (
    id                 INTEGER PRIMARY KEY,
    uuid               TEXT NOT NULL UNIQUE,
    username           TEXT NOT NULL,
    account_type       TEXT NOT NULL CHECK (account_type IN ('human', 'system')),
    status             TEXT NOT NULL CHECK (status IN ('active', 'suspended', 'deleted')),
    password_enc       BLOB,
    password_nonce     BLOB,
    totp_required      INTEGER NOT NULL DEFAULT 0 CHECK (totp_required IN (0, 1)),
    totp_secret_enc    BLOB,
    totp_secret_nonce  BLOB,
    totp_pending_enc   BLOB,
    totp_pending_nonce BLOB,
    totp_pending_at    INTEGER,
    totp_last_step     INTEGER NOT NULL DEFAULT 0,
    totp_failures      INTEGER NOT NULL DEFAULT 0,
    totp_locked_until  INTEGER NOT NULL DEFAULT 0,
    created_at         INTEGER NOT NULL,
    updated_at         INTEGER NOT NULL,
    deleted_at         INTEGER,
    CHECK ((password_enc IS NULL) = (password_nonce IS NULL)),
    CHECK ((totp_secret_enc IS NULL) = (totp_secret_nonce IS NULL)),
    CHECK ((totp_pending_enc IS NULL) = (totp_pending_nonce IS NULL)),
    CHECK ((totp_pending_enc IS NULL) = (totp_pending_at IS NULL)),
    CHECK (totp_required = 0 OR totp_secret_enc IS NOT NULL),
    CHECK ((status = 'deleted') = (deleted_at IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX accounts_username ON accounts (username) WHERE status <> 'deleted';
CREATE INDEX accounts_deleted ON accounts (username, uuid) WHERE status = 'deleted';

CREATE TABLE account_roles (
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    role       TEXT NOT NULL,
    granted_by INTEGER REFERENCES accounts (id),
    granted_at INTEGER NOT NULL,
    PRIMARY KEY (account_id, role)
) STRICT, WITHOUT ROWID;
CREATE INDEX account_roles_role ON account_roles (role, account_id);

CREATE TABLE token_revocation (
    id            INTEGER PRIMARY KEY,
    jti           TEXT NOT NULL UNIQUE,
    account_id    INTEGER NOT NULL REFERENCES accounts (id),
    kid           TEXT NOT NULL REFERENCES signing_keys (kid),
    audience      TEXT NOT NULL,
    parent_jti    TEXT REFERENCES token_revocation (jti) ON DELETE SET NULL,
    issued_at     INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    auth_time     INTEGER NOT NULL,
    digest        BLOB CHECK (length(digest) = 16),
    dies_at       INTEGER,
    revoked_at    INTEGER,
    revoke_reason TEXT,
    CHECK ((revoked_at IS NULL) = (revoke_reason IS NULL))
) STRICT;
CREATE INDEX token_revocation_account ON token_revocation (account_id, id);
CREATE INDEX token_revocation_parent ON token_revocation (parent_jti) WHERE parent_jti IS NOT NULL;
CREATE INDEX token_revocation_expiry ON token_revocation (expires_at);

CREATE TABLE system_tokens (
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    audience   TEXT NOT NULL,
    jti        TEXT NOT NULL REFERENCES token_revocation (jti) ON DELETE CASCADE,
    PRIMARY KEY (account_id, audience)
) STRICT, WITHOUT ROWID;
CREATE INDEX system_tokens_jti ON system_tokens (jti);

CREATE TABLE pg_credentials (
    id                INTEGER PRIMARY KEY,
    account_id        INTEGER NOT NULL REFERENCES accounts (id),
    name              TEXT NOT NULL DEFAULT 'default',
    pg_host           TEXT NOT NULL,
    pg_port           INTEGER NOT NULL CHECK (pg_port BETWEEN 1 AND 65535),
    pg_database       TEXT NOT NULL,
    pg_username       TEXT NOT NULL,
    pg_password_enc   BLOB NOT NULL,
    pg_password_nonce BLOB NOT NULL,
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    UNIQUE (account_id, name)
) STRICT;

CREATE TABLE audit_log (
    id          INTEGER PRIMARY KEY,
    event_time  INTEGER NOT NULL,
    event_type  TEXT NOT NULL,
    via         TEXT NOT NULL CHECK (via IN ('server', 'mciasdb')),
    actor_uuid  TEXT,
    actor_name  TEXT,
    target_uuid TEXT,
    target_name TEXT,
    ip_address  TEXT,
    details     TEXT NOT NULL,
    hash        BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE INDEX audit_log_time ON audit_log (event_time);
CREATE INDEX audit_log_type ON audit_log (event_type, id);
CREATE INDEX audit_log_actor ON audit_log (actor_uuid, id) WHERE actor_uuid IS NOT NULL;
CREATE INDEX audit_log_target ON audit_log (target_uuid, id) WHERE target_uuid IS NOT NULL;
CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log
    BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END;
CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log
    BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END;
-- INSERT OR REPLACE deletes without asking the trigger above.
CREATE TRIGGER audit_log_no_replace BEFORE INSERT ON audit_log WHEN EXISTS (SELECT 1 FROM audit_log WHERE id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END;

CREATE TABLE audit_checkpoints (
    id        INTEGER PRIMARY KEY,
    last_id   INTEGER NOT NULL,
    count     INTEGER NOT NULL,
    hash      BLOB NOT NULL CHECK (length(hash) = 32),
    time      INTEGER NOT NULL,
    kid       TEXT NOT NULL REFERENCES signing_keys (kid),
    signature BLOB NOT NULL CHECK (length(signature) = 64),
    anchor    INTEGER NOT NULL DEFAULT 0 CHECK (anchor IN (0, 1))
) STRICT;
";

/// The version a database says it has; 0 for an empty file.
pub(super) fn version_of(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA user_version")?.query_row([], |row| row.get(0))
}
