//! Where the operator's secrets come from: the master key, the TLS key, the list of passwords that nobody may have.

use std::path::Path;

use super::term::Failure;
use crate::config::{Config, MasterKeySource};
use crate::secret::{Password, SecretBytes};
use crate::secretfile;
use crate::service::keys::MasterSecret;
use crate::service::policy::Blocklist;

/// Reads the master key from where the configuration says it is.
///
/// # Errors
/// A failure that names the file or variable and what is wrong with it.
pub fn master_key(config: &Config) -> Result<MasterSecret, Failure> {
    let folder = config.database.path.parent();
    match &config.master_key {
        MasterKeySource::PassphraseEnv(name) => passphrase_in(name, "[master_key] passphrase_env"),
        MasterKeySource::PassphraseFile(path) => passphrase_file(path, "[master_key] passphrase_file", folder),
        MasterKeySource::KeyFile(path) => key_file(path, "[master_key] keyfile", folder),
    }
}

/// A passphrase from an environment variable. `what` names who says so.
///
/// # Errors
/// As [`master_key`].
pub fn passphrase_in(name: &str, what: &str) -> Result<MasterSecret, Failure> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty());
    let value =
        value.ok_or_else(|| Failure::new(format!("{name} is not set: {what} says that it holds the passphrase")))?;
    let text = value.into_string().map_err(|_| Failure::new(format!("the passphrase in {name} isn't UTF-8")))?;
    Ok(MasterSecret::Passphrase(Password::new(text)))
}

/// A passphrase from a file.
///
/// # Errors
/// As [`master_key`].
pub fn passphrase_file(path: &Path, what: &str, folder: Option<&Path>) -> Result<MasterSecret, Failure> {
    let passphrase = secretfile::one_line(read(path, what, folder)?);
    passphrase.map(MasterSecret::Passphrase).map_err(|e| named(what, path, &e))
}

/// A key from a file.
///
/// # Errors
/// As [`master_key`].
pub fn key_file(path: &Path, what: &str, folder: Option<&Path>) -> Result<MasterSecret, Failure> {
    let key = secretfile::key_bytes(&read(path, what, folder)?);
    key.map(MasterSecret::KeyFile).map_err(|e| named(what, path, &e))
}

/// The shortest passphrase that becomes a master key, in characters. One that is a master key already is taken as it is.
const MIN_PASSPHRASE: usize = 12;

/// Whether a passphrase is long enough to become a master key. `whence` says where it came from.
///
/// # Errors
/// A failure that names it.
pub fn long_enough(passphrase: &Password, whence: &str) -> Result<(), Failure> {
    match passphrase.expose().chars().count() {
        MIN_PASSPHRASE.. => Ok(()),
        _ => Err(Failure::new(format!("the passphrase in {whence} must have at least {MIN_PASSPHRASE} characters"))),
    }
}

/// Reads the private key of the server certificate.
///
/// # Errors
/// As [`master_key`].
pub fn tls_key(config: &Config) -> Result<SecretBytes, Failure> {
    read(&config.server.tls_key, "[server] tls_key", config.database.path.parent())
}

/// Reads the list of passwords that nobody may have, if there is one.
///
/// # Errors
/// As [`master_key`].
pub fn blocklist(config: &Config) -> Result<Blocklist, Failure> {
    let Some(path) = &config.passwords.blocklist_file else { return Ok(Blocklist::default()) };
    let bytes = std::fs::read(path).map_err(|e| named("[passwords] blocklist_file", path, &e.to_string()))?;
    Ok(Blocklist::from_lines(&String::from_utf8_lossy(&bytes)))
}

fn read(path: &Path, what: &str, folder: Option<&Path>) -> Result<SecretBytes, Failure> {
    secretfile::read(path, what, folder).map_err(Failure::new)
}

fn named(what: &str, path: &Path, why: &str) -> Failure {
    Failure::new(format!("{what} {}: {why}", path.display()))
}
