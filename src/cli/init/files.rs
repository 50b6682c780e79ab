//! The files of a new instance: where they are, who may read them, and how they come to be there or not at all.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};

use super::owner::Owner;
use crate::cli::term::Failure;
use crate::error;

/// Where everything goes.
pub struct Layout {
    /// `mcias.conf`
    pub config: PathBuf,
    /// `tls/ca.crt`
    pub ca_cert: PathBuf,
    /// `tls/ca.key`
    pub ca_key: PathBuf,
    /// `tls/server.crt`
    pub server_cert: PathBuf,
    /// `tls/server.key`
    pub server_key: PathBuf,
    /// `master.key`
    pub master_key: PathBuf,
    /// `admin-password`
    pub admin_password: PathBuf,
    /// `mcias.db`
    pub database: PathBuf,
    /// On an installed system, the server's user; else everything is ours.
    pub owner: Option<Owner>,
    folder: PathBuf,
    data: PathBuf,
    tls: PathBuf,
}

impl Layout {
    /// Everything in one folder, and ours.
    pub fn in_folder(folder: &Path) -> Self {
        Self::new(folder, folder, None)
    }

    /// The places of an installed system.
    pub fn system(owner: Owner) -> Self {
        Self::new(Path::new("/etc/mcias"), Path::new("/var/lib/mcias"), Some(owner))
    }

    pub(super) fn new(folder: &Path, data: &Path, owner: Option<Owner>) -> Self {
        let tls = folder.join("tls");
        Self {
            config: folder.join("mcias.conf"),
            ca_cert: tls.join("ca.crt"),
            ca_key: tls.join("ca.key"),
            server_cert: tls.join("server.crt"),
            server_key: tls.join("server.key"),
            master_key: folder.join("master.key"),
            admin_password: folder.join("admin-password"),
            database: data.join("mcias.db"),
            owner,
            folder: folder.to_owned(),
            data: data.to_owned(),
            tls,
        }
    }

    /// The folder that the configuration is in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Looks for every file that would be made, whatever it is, and for anything that belongs to a database.
    ///
    /// # Errors
    /// Naming the first that is there. Nothing has been touched.
    pub fn refuse_what_is_there(&self) -> Result<(), Failure> {
        let files = [
            &self.config,
            &self.ca_cert,
            &self.ca_key,
            &self.server_cert,
            &self.server_key,
            &self.master_key,
            &self.admin_password,
        ];
        let mut there = self.database_files()?;
        for path in files {
            match path.symlink_metadata() {
                Ok(_) => there.push(path.clone()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(at(path, &e)),
            }
        }
        match there.first() {
            Some(path) => Err(Failure::new(format!("{} is there already; nothing was changed", path.display()))),
            None => Ok(()),
        }
    }

    /// The database, and what SQLite and we put beside it: everything whose name begins with the database's.
    fn database_files(&self) -> Result<Vec<PathBuf>, Failure> {
        let entries = match fs::read_dir(&self.data) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            Err(e) => return Err(at(&self.data, &e)),
        };
        let name = self.database.file_name().unwrap_or(OsStr::new("mcias.db")).as_encoded_bytes();
        let mut found = vec![];
        for entry in entries {
            let entry = entry.map_err(|e| at(&self.data, &e))?;
            if entry.file_name().as_encoded_bytes().starts_with(name) {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Who besides their owner has to read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Nobody: whoever made the instance. On an installed system, root.
    Operator,
    /// The server; on an installed system through its group.
    Server,
    /// Anybody: certificates.
    Anybody,
}

/// Work under way. Dropped before [`Work::finish`], it removes again what it has made.
pub struct Work<'a> {
    layout: &'a Layout,
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    database_begun: bool,
    finished: bool,
}

impl<'a> Work<'a> {
    /// Makes the folders that aren't there.
    ///
    /// `tls` is open to all (0755): what is secret in it has a mode of its own, and clients want `ca.crt`. The folder
    /// around it decides who gets that far.
    pub fn begin(layout: &'a Layout) -> Result<Self, Failure> {
        let mut work = Self { layout, files: vec![], folders: vec![], database_begun: false, finished: false };
        match layout.owner {
            None => work.folder(&layout.folder, 0o700, None)?,
            Some(owner) => {
                work.folder(&layout.folder, 0o750, Some(Owner { uid: ROOT, ..owner }))?;
                work.folder(&layout.data, 0o700, Some(owner))?;
                let metadata = fs::metadata(&layout.data).map_err(|e| at(&layout.data, &e))?;
                if metadata.uid() != owner.uid {
                    let (path, name) = (layout.data.display(), super::owner::NAME);
                    return Err(Failure::new(format!("{path} must belong to the user '{name}'")));
                }
            }
        }
        work.folder(&layout.tls, 0o755, None)?;
        Ok(work)
    }

    /// Makes a folder unless it is there; one that is there stays as it is.
    fn folder(&mut self, path: &Path, mode: u32, owner: Option<Owner>) -> Result<(), Failure> {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => self.folders.push(path.to_owned()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
            Err(e) => return Err(at(path, &e)),
        }
        owner
            .map_or(Ok(()), |owner| chown(path, Some(owner.uid), Some(owner.gid)))
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
            .map_err(|e| at(path, &e))
    }

    /// Makes a file; the umask has no say in its mode.
    pub fn file(&mut self, path: &Path, contents: &[u8], reader: Reader) -> Result<(), Failure> {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|e| at(path, &e))?;
        self.files.push(path.to_owned());
        let (mode, owner) = match (self.layout.owner, reader) {
            (None, Reader::Operator | Reader::Server) | (Some(_), Reader::Operator) => (0o600, None),
            (Some(owner), Reader::Server) => (0o640, Some(Owner { uid: ROOT, ..owner })),
            (_, Reader::Anybody) => (0o644, None),
        };
        let mut fill = || {
            file.write_all(contents)?;
            give(&file, owner)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            file.sync_all()
        };
        fill().map_err(|e| at(path, &e))
    }

    /// Has the database made, and makes all its files private to whom the server runs as.
    pub fn database(&mut self, create: impl FnOnce(&Path) -> error::Result<()>) -> Result<(), Failure> {
        self.database_begun = true;
        create(&self.layout.database)?;
        for path in self.layout.database_files()? {
            self.settle(&path).map_err(|e| at(&path, &e))?;
        }
        Ok(())
    }

    fn settle(&self, path: &Path) -> io::Result<()> {
        // In a folder of somebody else's: a link must not make us give away another file.
        let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(no_follow).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.nlink() != 1 {
            return Err(io::Error::other("is not a file of its own"));
        }
        give(&file, self.layout.owner)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.sync_all()
    }

    /// Makes sure that all of it survives a power cut, and keeps it.
    pub fn finish(mut self) -> Result<(), Failure> {
        let layout = self.layout;
        let made_in = self.folders.iter().filter_map(|folder| folder.parent());
        for folder in [&*layout.tls, &*layout.folder, &*layout.data].into_iter().chain(made_in) {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| at(folder, &e))?;
        }
        self.finished = true;
        Ok(())
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // What can't be removed stays, and the next attempt will name it.
        if self.database_begun {
            self.files.extend(self.layout.database_files().unwrap_or_default());
        }
        for file in self.files.iter().rev() {
            let _ = fs::remove_file(file);
        }
        for folder in self.folders.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

const ROOT: u32 = 0;

fn give(file: &File, owner: Option<Owner>) -> io::Result<()> {
    owner.map_or(Ok(()), |owner| fchown(file, Some(owner.uid), Some(owner.gid)))
}

fn at(path: &Path, e: &io::Error) -> Failure {
    Failure::new(format!("{}: {e}", path.display()))
}
