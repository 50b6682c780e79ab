//! Files that the program makes: private, owned as the database's folder is, and on the disk before they have their name.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// The folder that a file is in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path with something after it: `mcias.db` and `-wal`.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Sets owner and mode of a file, or of a folder, whatever the umask says: it belongs to whom `folder` belongs to.
///
/// # Errors
/// The system's.
pub fn settle(file: &File, folder: &Path, mode: u32) -> io::Result<()> {
    let (own, folder) = (file.metadata()?, fs::metadata(folder)?);
    // Nobody else may give files away.
    if rustix::process::geteuid().is_root() && (own.uid(), own.gid()) != (folder.uid(), folder.gid()) {
        fchown(file, Some(folder.uid()), Some(folder.gid()))?;
    }
    file.set_permissions(Permissions::from_mode(mode))
}

/// Gives a file its name, in one step, where nothing has it.
///
/// # Errors
/// `AlreadyExists` where something has; the system's.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that can't refuse by itself.
        Err(Errno::INVAL | Errno::NOSYS) if to.symlink_metadata().is_err() => fs::rename(from, to),
        Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS) => Err(io::ErrorKind::AlreadyExists.into()),
        done => Ok(done?),
    }
}

/// Makes the names in a folder survive a power cut.
///
/// # Errors
/// The system's.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
