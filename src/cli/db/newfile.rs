//! A file that wasn't there before and is there whole or not at all: written under a temporary name, on the disk before
//! it has its own, private, and owned as the database's folder is.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::cli::term::Failure;
use crate::random;

/// A file under way. Dropped before [`NewFile::put`], it is gone.
pub(super) struct NewFile {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
}

impl NewFile {
    /// Begins one that will be at `path`, owned as `folder` is.
    ///
    /// # Errors
    /// Something is at `path`; it can't be written there.
    pub fn begin(path: &Path, folder: &Path) -> Result<Self, Failure> {
        match path.symlink_metadata() {
            Ok(_) => return Err(there(path)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(at(path, &e)),
        }
        // A name of its own: two at once mustn't write into one file.
        let mut partial = OsString::from(path);
        partial.push(format!(".{:08x}.partial", u32::from_be_bytes(random::bytes()?)));
        let partial = PathBuf::from(partial);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
        let file = file.map_err(|e| at(&partial, &e))?;
        let begun = Self { path: path.to_owned(), partial, file: BufWriter::with_capacity(1 << 16, file) };
        begun.settle(folder).map_err(|e| at(path, &e))?;
        Ok(begun)
    }

    /// The owner and mode, whatever the umask and the folder say.
    fn settle(&self, folder: &Path) -> io::Result<()> {
        let (file, folder) = (self.file.get_ref(), fs::metadata(folder)?);
        let own = file.metadata()?;
        // Nobody else may give files away.
        if rustix::process::geteuid().is_root() && (own.uid(), own.gid()) != (folder.uid(), folder.gid()) {
            fchown(file, Some(folder.uid()), Some(folder.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(0o600))
    }

    /// Adds a line.
    ///
    /// # Errors
    /// It can't be written.
    pub fn line(&mut self, line: &str) -> Result<(), Failure> {
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|e| at(&self.path, &e))
    }

    /// Puts it in its place once all of it is on the disk.
    ///
    /// # Errors
    /// Something is there by now; it can't be written.
    pub fn put(mut self) -> Result<(), Failure> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_all()).map_err(|e| at(&self.path, &e))?;
        match renameat_with(CWD, &self.partial, CWD, &self.path, RenameFlags::NOREPLACE) {
            // A file system that can't refuse by itself.
            Err(Errno::INVAL | Errno::NOSYS) if self.path.symlink_metadata().is_err() => {
                fs::rename(&self.partial, &self.path).map_err(|e| at(&self.path, &e))?;
            }
            Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS) => return Err(there(&self.path)),
            done => done.map_err(|e| at(&self.path, &e.into()))?,
        }
        let folder = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| at(folder, &e))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Gone already once it is in its place.
        let _ = fs::remove_file(&self.partial);
    }
}

fn there(path: &Path) -> Failure {
    Failure::new(format!("{} is there already; nothing was changed", path.display()))
}

fn at(path: &Path, e: &io::Error) -> Failure {
    Failure::new(format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_whole_and_private_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let names = || fs::read_dir(dir.path()).unwrap().count();
        let mut dropped = NewFile::begin(&path, dir.path()).unwrap();
        dropped.line("x").unwrap();
        assert_eq!((path.exists(), names()), (false, 1));
        drop(dropped);
        assert_eq!(names(), 0);

        let (mut first, mut second) =
            (NewFile::begin(&path, dir.path()).unwrap(), NewFile::begin(&path, dir.path()).unwrap());
        first.line("first").unwrap();
        second.line("second").unwrap();
        first.put().unwrap();
        assert!(second.put().unwrap_err().message.contains("is there already"));
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names()), ("first\n", 1));
        let (file, folder) = (fs::metadata(&path).unwrap(), fs::metadata(dir.path()).unwrap());
        assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o600, folder.uid(), folder.gid()));
        assert!(NewFile::begin(&path, dir.path()).is_err());

        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(NewFile::begin(&link, dir.path()).is_err(), "a link is something that is there");
    }

    #[test]
    fn it_belongs_to_whom_the_folder_belongs_to() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root here: not tried");
            return;
        }
        let (dir, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::chown(folder.path(), Some(12345), Some(54321)).unwrap();
        let path = dir.path().join("out");
        NewFile::begin(&path, folder.path()).unwrap().put().unwrap();
        let file = fs::metadata(&path).unwrap();
        assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o600, 12345, 54321));
    }
}
