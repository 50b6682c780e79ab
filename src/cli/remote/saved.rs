//! The tokens that `login --save` keeps, each under its server, so that a token goes to no other:
//! `mcias/token.json` in the user's folder for configuration, for nobody else to read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::cli::term::Failure;
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

    /// Keeps a token for this server, in the place of one that was there.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn keep(server: &Server, issued: &IssuedToken) -> Result<(), Failure> {
        let entry = json!({"token": issued.token.expose(), "expires_at": issued.expires_at.to_string()});
        change(|entries| {
            entries.insert(server.to_string(), entry);
            true
        })
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
        change(|entries| entries.get(&server).is_some_and(is_it) && entries.remove(&server).is_some())
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
    let bytes = secretfile::read(path, "the saved tokens", None).map_err(Failure::new)?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(entries)) => Ok(entries),
        _ => Err(Failure::new(format!("the saved tokens in {} can't be read: remove the file", path.display()))),
    }
}

/// Changes the file as one step, of which others that do the same see the whole or nothing.
fn change(work: impl FnOnce(&mut Map<String, Value>) -> bool) -> Result<(), Failure> {
    let path =
        path().ok_or_else(|| Failure::new("there is no place to save a token: neither XDG_CONFIG_HOME nor HOME"))?;
    let at = |e: io::Error| Failure::new(format!("{}: {e}", path.display()));
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at)?;
    // Held until it is dropped.
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(folder.join("token.lock"));
    let lock = lock.map_err(at)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| at(e.into()))?;
    let mut entries = read(&path)?;
    if !work(&mut entries) {
        return Ok(());
    }
    let text = Zeroizing::new(format!("{}\n", Value::Object(entries)));
    let partial = folder.join(format!("token.json.{}", std::process::id()));
    // Left by a process of the same number that was killed, or not there.
    let _ = fs::remove_file(&partial);
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial).and_then(|mut file: File| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&partial, &path)
        });
    written.map_err(|e| {
        let _ = fs::remove_file(&partial);
        at(e)
    })
}
