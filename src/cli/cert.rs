//! `mcias cert renew`: a new server certificate from the local CA that `mcias init` made.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::command::{Command, Flag};
use super::parse::{Parsed, Usage};
use super::pki::{self, Host};
use super::server;
use super::term::{self, Failure};
use crate::clock::Clock;
use crate::net::tls;

/// The command's row.
pub const RENEW: Command = Command {
    name: "cert renew",
    about: "make a new server certificate from the local CA",
    notes: &[
        "Takes ca.crt and ca.key from the folder of the server's certificate, and puts a new certificate and key in the \
         place of those that the configuration names. Without --hostname it is for the names of the old one. A running \
         server picks it up within a minute, or at once with SIGHUP. Prints when the new certificate ends.",
    ],
    flags: &[
        Flag::value("config", "FILE", "the configuration").required(),
        Flag::value("hostname", "NAME", "a name or address that clients will use").repeatable(),
    ],
    args: &[],
    example: "cert renew --config /etc/mcias/mcias.conf",
    run,
};

fn run(parsed: &Parsed) -> Result<(), Failure> {
    let config = server::load(parsed)?;
    let (cert_path, key_path) = (&config.server.tls_cert, &config.server.tls_key);
    let folder = cert_path.parent().unwrap_or(Path::new("."));
    let ca_cert = read(&folder.join("ca.crt"))?;
    let ca_key = read(&folder.join("ca.key"))?;
    let old = read(cert_path)?;

    let given = parsed.all("hostname").map(|name| {
        // The parser lets text pass only.
        Host::parse(&name.to_string_lossy()).map_err(|e| parsed.usage(format!("--hostname: {}", e.client())))
    });
    let given: Vec<Host> = given.collect::<Result<_, Usage>>()?;
    let hosts = if given.is_empty() { pki::hosts_of(&old)? } else { given };

    let pair = pki::issue_server(&ca_cert, &ca_key, &hosts, Clock::System.now())?;
    let certified = tls::load(pair.cert.as_bytes(), pair.key.as_bytes()).map_err(Failure::new)?;
    // Both are written before either is in place. Between the two renames a server that looks keeps the old pair.
    let key = Replacement::write(key_path, pair.key.as_bytes())?;
    let cert = Replacement::write(cert_path, pair.cert.as_bytes())?;
    key.put()?;
    cert.put()?;
    match tls::leaf_not_after(&certified) {
        Some(end) => term::out(&format!("{}\n", crate::model::time::Timestamp::new(end))),
        None => Ok(()),
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    fs::read_to_string(path).map(Zeroizing::new).map_err(|e| at(path, &e))
}

/// A file written beside the one it is to replace, with the same owner and mode.
struct Replacement {
    path: PathBuf,
    partial: PathBuf,
}

impl Replacement {
    fn write(path: &Path, contents: &[u8]) -> Result<Self, Failure> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let partial = PathBuf::from(name);
        let before = fs::metadata(path).map_err(|e| at(path, &e))?;
        let _ = fs::remove_file(&partial); // left by a renewal that was interrupted, or not there
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
        let mut file = file.map_err(|e| at(&partial, &e))?;
        let mut fill = || {
            fchown(&file, Some(before.uid()), Some(before.gid()))?;
            file.set_permissions(fs::Permissions::from_mode(before.mode() & 0o777))?;
            file.write_all(contents)?;
            file.sync_all()
        };
        let replacement = Self { path: path.to_owned(), partial: partial.clone() };
        fill().map(|()| replacement).map_err(|e| at(&partial, &e))
    }

    fn put(self) -> Result<(), Failure> {
        let folder = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::rename(&self.partial, &self.path)
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(|e| at(&self.path, &e))
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // Gone already once it was put in its place.
        let _ = fs::remove_file(&self.partial);
    }
}

fn at(path: &Path, e: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {e}", path.display()))
}
