//! The tokens that `login --save` keeps, each under its server, so that a token goes to no other:
//! `mcias/token.json` in the user's folder for configuration, for nobody else to read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::cli::term::{self, Failure};
use crate::client::Server;
use crate::model::token::IssuedToken;
use crate::secret::BearerToken;
use crate::secretfile;

/// What is in the file.
pub(super) struct Saved {
    entries: Map<String, Value>,
}

impl Saved {
    /// Reads the file; where there is none, nothing is saved.
    pub fn load() -> Result<Self, Failure> {
        let entries = match path() {
            Some(path) => read(&path)?,
            None => Map::new(),
        };
        Ok(Self { entries })
    }

    /// The token for this server.
    pub fn get(&self, server: &Server) -> Option<BearerToken> {
        let token = self.entries.get(&server.to_string())?.get("token")?.as_str()?;
        Some(BearerToken::new(token.to_owned()))
    }

    /// Whether a token could be kept: before one is asked for that would otherwise be lost.
    ///
    /// # Errors
    /// The file can't be read or written.
    pub fn check() -> Result<(), Failure> {
        let file = Locked::open()?;
        // With room for one more.
        let spare = " ".repeat(term::MAX_SECRET);
        file.write(&spare).and_then(|()| file.drop_partial())
    }

    /// Keeps a token for this server, in the place of one that was there.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn keep(server: &Server, issued: &IssuedToken) -> Result<(), Failure> {
        let entry = json!({"token": issued.token.expose(), "expires_at": issued.expires_at.to_string()});
        let mut file = Locked::open()?;
        file.entries.insert(server.to_string(), entry);
        file.put()
    }

    /// Forgets this server's token, if it is this one.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn forget(server: &Server, token: &BearerToken) -> Result<(), Failure> {
        let is_it = |entry: &Value| entry["token"].as_str() == Some(token.expose());
        let server = server.to_string();
        if !Self::load()?.entries.get(&server).is_some_and(is_it) {
            return Ok(());
        }
        let mut file = Locked::open()?;
        if !file.entries.get(&server).is_some_and(is_it) {
            return Ok(());
        }
        file.entries.remove(&server);
        file.put()
    }
}

/// `XDG_CONFIG_HOME`, or `.config` in `HOME`: an absolute path, or none.
fn path() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
    Some(folder.join("mcias/token.json"))
}

fn read(path: &Path) -> Result<Map<String, Value>, Failure> {
    if let Err(e) = fs::symlink_metadata(path)
        && e.kind() == io::ErrorKind::NotFound
    {
        return Ok(Map::new());
    }
    let bytes = secretfile::read_own(path, "the saved tokens").map_err(Failure::new)?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(entries)) => Ok(entries),
        _ => Err(Failure::new(format!("the saved tokens in {} can't be read: remove the file", path.display()))),
    }
}

/// The file, read to be changed. Others that want to change it wait; who only reads sees it before or after.
struct Locked {
    path: PathBuf,
    /// What becomes the file.
    partial: PathBuf,
    entries: Map<String, Value>,
    _lock: File,
}

impl Locked {
    fn open() -> Result<Self, Failure> {
        let path = path()
            .ok_or_else(|| Failure::new("there is no place to save a token: neither XDG_CONFIG_HOME nor HOME"))?;
        let at = |e: io::Error| cannot(&path, &e);
        let folder = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join("token.lock"))
            .map_err(at)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|e| at(e.into()))?;
        let entries = read(&path)?;
        let partial = folder.join(format!("token.json.{}", std::process::id()));
        Ok(Self { path, partial, entries, _lock: lock })
    }

    /// Writes what becomes the file, and more after it.
    fn write(&self, more: &str) -> Result<(), Failure> {
        let text = Zeroizing::new(format!("{}\n{more}", Value::Object(self.entries.clone())));
        // Left by a process of the same number that was killed, or not there.
        let _ = fs::remove_file(&self.partial);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.partial);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        written.map_err(|e| {
            let _ = fs::remove_file(&self.partial);
            cannot(&self.path, &e)
        })
    }

    fn drop_partial(&self) -> Result<(), Failure> {
        fs::remove_file(&self.partial).map_err(|e| cannot(&self.path, &e))
    }

    /// Puts it in its place as one step.
    fn put(self) -> Result<(), Failure> {
        self.write("")?;
        fs::rename(&self.partial, &self.path).map_err(|e| {
            let _ = fs::remove_file(&self.partial);
            cannot(&self.path, &e)
        })
    }
}

fn cannot(path: &Path, e: &io::Error) -> Failure {
    Failure::new(format!("{}: {e}", path.display()))
}
