//! A file that wasn't there before and is there whole or not at all: written under a temporary name, on the disk before
//! it has its own, private, and owned as the database's folder is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::cli::signals::Undo;
use crate::cli::term::Failure;
use crate::random;
use crate::store::files::{beside, folder_of, rename_new, settle, sync_folder};

/// What the name of a file under way ends with, after eight hexadecimal digits.
const PARTIAL: &str = ".partial";
/// What SQLite has beside a file that it writes.
const JOURNAL: &str = "-journal";

/// A file under way, locked for as long as it is. Dropped before [`NewFile::put`], or ended by a signal that can be
/// caught, it is gone; where the process was killed it stays, until the next run that makes a file of the same name.
pub(super) struct NewFile {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    _undo: Undo,
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
        sweep(path);
        let begun = loop {
            // A name of its own: two at once mustn't write into one file.
            let partial = beside(path, &format!(".{:08x}{PARTIAL}", u32::from_be_bytes(random::bytes()?)));
            let undone = partial.clone();
            let undo = Undo::on_signal(move || remove(&undone));
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
            let file = file.map_err(|e| at(&partial, &e))?;
            let file = BufWriter::with_capacity(1 << 16, file);
            let begun = Self { path: path.to_owned(), partial, file, _undo: undo };
            if begun.is_ours() {
                break begun;
            }
        };
        settle(begun.file.get_ref(), folder, 0o600).map_err(|e| at(path, &e))?;
        Ok(begun)
    }

    /// Locks it. `false` where somebody has swept it away between its making and its locking.
    fn is_ours(&self) -> bool {
        let file = self.file.get_ref();
        // A file system without such locks keeps what a killed process left.
        let locked = flock(file, FlockOperation::NonBlockingLockExclusive) != Err(rustix::io::Errno::WOULDBLOCK);
        let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        locked && file.metadata().map(inode).ok() == self.partial.symlink_metadata().map(inode).ok()
    }

    /// Where it is for now: for what writes it by name. It is empty, and ours alone to read.
    pub fn partial(&self) -> &Path {
        &self.partial
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
        rename_new(&self.partial, &self.path).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => there(&self.path),
            _ => at(&self.path, &e),
        })?;
        let folder = folder_of(&self.path);
        sync_folder(folder).map_err(|e| at(folder, &e))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Gone already once it is in its place.
        remove(&self.partial);
    }
}

/// Removes what a process that was killed left of a file of this name. What is locked is still under way.
fn sweep(path: &Path) {
    let Some(name) = path.file_name() else { return };
    for entry in fs::read_dir(folder_of(path)).into_iter().flatten().flatten() {
        let other = entry.file_name();
        let rest = other.as_encoded_bytes().strip_prefix(name.as_encoded_bytes());
        let Some(rest) = rest.and_then(|rest| rest.strip_prefix(b".")) else { continue };
        let (digits, end) = rest.split_at(rest.len().min(8));
        let is_partial = digits.len() == 8 && digits.iter().all(u8::is_ascii_hexdigit);
        if !is_partial || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        // What can't be removed stays, by a name that tells.
        if end == PARTIAL.as_bytes() {
            if let Ok(file) = File::open(entry.path())
                && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            {
                remove(&entry.path());
            }
        } else if end.strip_prefix(PARTIAL.as_bytes()) == Some(JOURNAL.as_bytes()) {
            // Of one that is gone.
            let partial = entry.path().with_extension(&PARTIAL[1..]);
            if partial.symlink_metadata().is_err() {
                remove(&entry.path());
            }
        }
    }
}

/// A file under way, and what SQLite may have beside it while it writes one.
fn remove(partial: &Path) {
    let _ = fs::remove_file(partial);
    let _ = fs::remove_file(beside(partial, JOURNAL));
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
    fn what_a_killed_process_left_is_swept_away_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let stays = ["out", "out.partial", "out.0123456.partial", "out.0123456x.partial", "other.01234567.partial"];
        let goes = ["out.01234567.partial", "out.01234567.partial-journal", "out.89abcdef.partial-journal"];
        for name in stays.iter().skip(1).chain(&goes) {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let under_way = NewFile::begin(&path, dir.path()).unwrap();
        NewFile::begin(&path, dir.path()).unwrap().put().unwrap();
        assert!(under_way.partial().exists(), "what is under way stays");
        drop(under_way);
        let names: std::collections::BTreeSet<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(names, stays.map(str::to_owned).into());
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
