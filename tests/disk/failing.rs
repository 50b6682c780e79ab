//! A disk that fails on command: a file system (FUSE) that passes everything on to a folder, until it is told to answer
//! some of it with an error.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

/// What may fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    Read,
    /// Writing, and nothing else.
    Write,
    Sync,
    /// Everything that changes something: writing, making, removing, cutting, and opening to write.
    Change,
}

/// How it fails.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    work: Work,
    error: Errno,
    /// Only in files whose name ends so.
    of: &'static str,
}

impl Fault {
    /// EIO.
    pub fn io(work: Work, of: &'static str) -> Self {
        Self { work, error: Errno::EIO, of }
    }

    /// ENOSPC.
    pub fn no_space() -> Self {
        Self { work: Work::Write, error: Errno::ENOSPC, of: "" }
    }

    /// EROFS.
    pub fn read_only() -> Self {
        Self { work: Work::Change, error: Errno::EROFS, of: "" }
    }
}

#[derive(Default)]
struct Faults {
    now: Option<Fault>,
    /// How often it was answered with.
    hits: usize,
}

/// The disk, mounted; gone when dropped.
pub struct FailingDisk {
    faults: Arc<Mutex<Faults>>,
    session: Option<BackgroundSession>,
    mounted_at: PathBuf,
}

impl FailingDisk {
    /// Shows `folder` at `at`.
    pub fn mount(folder: &Path, at: &Path) -> io::Result<Self> {
        let faults = Arc::<Mutex<Faults>>::default();
        let disk = Disk { folder: folder.to_owned(), faults: faults.clone(), state: Mutex::new(State::new()) };
        let session = fuser::spawn_mount(disk, at, &Config::default())?;
        Ok(Self { faults, session: Some(session), mounted_at: at.to_owned() })
    }

    /// From here on it fails.
    pub fn fails(&self, fault: Fault) {
        *self.faults.lock().unwrap() = Faults { now: Some(fault), hits: 0 };
    }

    /// From here on it does what it should. Gives how often it didn't.
    pub fn works(&self) -> usize {
        let mut faults = self.faults.lock().unwrap();
        faults.now = None;
        faults.hits
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        self.works();
        // Whoever still has a file open there keeps it to the end.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.mounted_at).status();
        drop(self.session.take());
    }
}

/// What is served.
struct Disk {
    folder: PathBuf,
    faults: Arc<Mutex<Faults>>,
    state: Mutex<State>,
}

/// Names by number, and files that are open. There are no folders in it.
struct State {
    next: u64,
    names: HashMap<u64, OsString>,
    files: HashMap<u64, (OsString, Arc<File>)>,
}

impl State {
    fn new() -> Self {
        Self { next: 2, names: HashMap::new(), files: HashMap::new() }
    }

    fn number(&mut self, name: &OsStr) -> u64 {
        if let Some((number, _)) = self.names.iter().find(|(_, known)| *known == name) {
            return *number;
        }
        self.next += 1;
        self.names.insert(self.next, name.to_owned());
        self.next
    }

    fn open(&mut self, name: &OsStr, file: File) -> FileHandle {
        self.next += 1;
        self.files.insert(self.next, (name.to_owned(), Arc::new(file)));
        FileHandle(self.next)
    }
}

/// As long as what was told of a file may be believed.
const TTL: Duration = Duration::from_secs(1);

impl Disk {
    /// Whether it is to fail, and with what.
    fn may(&self, work: Work, name: &OsStr) -> Result<(), Errno> {
        let mut faults = self.faults.lock().unwrap();
        let Some(fault) = faults.now else { return Ok(()) };
        let meant = fault.work == work || (fault.work == Work::Change && work == Work::Write);
        if meant && name.to_str().is_some_and(|name| name.ends_with(fault.of)) {
            faults.hits += 1;
            return Err(fault.error);
        }
        Ok(())
    }

    fn name(&self, ino: INodeNo) -> Result<OsString, Errno> {
        self.state.lock().unwrap().names.get(&ino.0).cloned().ok_or(Errno::ENOENT)
    }

    fn path(&self, name: &OsStr) -> PathBuf {
        self.folder.join(name)
    }

    fn file(&self, handle: FileHandle) -> Result<(OsString, Arc<File>), Errno> {
        self.state.lock().unwrap().files.get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn attributes(&self, ino: INodeNo, handle: Option<FileHandle>) -> Result<FileAttr, Errno> {
        if ino == INodeNo::ROOT {
            return Ok(attributes(ino, &fs::metadata(&self.folder)?));
        }
        let metadata = match handle {
            Some(handle) => self.file(handle)?.1.metadata()?,
            None => fs::metadata(self.path(&self.name(ino)?))?,
        };
        Ok(attributes(ino, &metadata))
    }

    /// Whatever is read or written comes by here. Not so what is mapped into memory, as only the index of the log is.
    fn flags(name: &OsStr) -> FopenFlags {
        let mapped = name.to_str().is_some_and(|name| name.ends_with("-shm"));
        if mapped { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::FOPEN_DIRECT_IO }
    }
}

fn attributes(ino: INodeNo, of: &Metadata) -> FileAttr {
    let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs());
    FileAttr {
        ino,
        size: of.size(),
        blocks: of.blocks(),
        atime: time(of.atime()),
        mtime: time(of.mtime()),
        ctime: time(of.ctime()),
        crtime: time(of.ctime()),
        kind: if of.is_dir() { FileType::Directory } else { FileType::RegularFile },
        perm: (of.mode() & 0o7777) as u16,
        nlink: of.nlink() as u32,
        uid: of.uid(),
        gid: of.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Answers with one thing or the other.
macro_rules! answer {
    ($reply:ident, $done:expr, $value:pat => $well:expr) => {
        match (|| -> Result<_, Errno> { $done })() {
            Ok($value) => $well,
            Err(error) => $reply.error(error),
        }
    };
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, {
            let metadata = fs::metadata(self.path(name))?;
            let ino = INodeNo(self.state.lock().unwrap().number(name));
            Ok(attributes(ino, &metadata))
        }, found => reply.entry(&TTL, &found, Generation(0)));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino, handle) {
            Ok(found) => reply.attr(&TTL, &found),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        answer!(reply, {
            let name = self.name(ino)?;
            self.may(Work::Change, &name)?;
            if let Some(size) = size {
                match handle {
                    Some(handle) => self.file(handle)?.1.set_len(size)?,
                    None => File::options().write(true).open(self.path(&name))?.set_len(size)?,
                }
            }
            if let Some(mode) = mode {
                fs::set_permissions(self.path(&name), fs::Permissions::from_mode(mode & 0o7777))?;
            }
            if uid.is_some() || gid.is_some() {
                chown(self.path(&name), uid, gid)?;
            }
            self.attributes(ino, handle)
        }, found => reply.attr(&TTL, &found));
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        answer!(reply, {
            let name = self.name(ino)?;
            let writes = flags.acc_mode() != OpenAccMode::O_RDONLY;
            if writes {
                self.may(Work::Change, &name)?;
            }
            let file = File::options().read(true).write(writes).open(self.path(&name))?;
            Ok((self.state.lock().unwrap().open(&name, file), Self::flags(&name)))
        }, (handle, flags) => reply.opened(handle, flags));
    }

    fn create(&self, _: &Request, _: INodeNo, name: &OsStr, mode: u32, _: u32, _: i32, reply: ReplyCreate) {
        answer!(reply, {
            self.may(Work::Change, name)?;
            let mut options = File::options();
            let file = options.read(true).write(true).create(true).truncate(false).mode(mode).open(self.path(name))?;
            let metadata = file.metadata()?;
            let mut state = self.state.lock().unwrap();
            let ino = INodeNo(state.number(name));
            Ok((attributes(ino, &metadata), state.open(name, file), Self::flags(name)))
        }, (found, handle, flags) => reply.created(&TTL, &found, Generation(0), handle, flags));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        answer!(reply, {
            let (name, file) = self.file(handle)?;
            self.may(Work::Read, &name)?;
            let mut bytes = vec![0; size as usize];
            let mut filled = 0;
            while filled < bytes.len() {
                match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
                    0 => break,
                    read => filled += read,
                }
            }
            bytes.truncate(filled);
            Ok(bytes)
        }, bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answer!(reply, {
            let (name, file) = self.file(handle)?;
            // What is mapped is written without anybody's being there to be told.
            if !Self::flags(&name).contains(FopenFlags::FOPEN_KEEP_CACHE) {
                self.may(Work::Write, &name)?;
            }
            file.write_all_at(data, offset)?;
            Ok(data.len() as u32)
        }, length => reply.written(length));
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.state.lock().unwrap().files.remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, {
            let (name, file) = self.file(handle)?;
            self.may(Work::Sync, &name)?;
            Ok(file.sync_all()?)
        }, () => reply.ok());
    }

    fn unlink(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, {
            self.may(Work::Change, name)?;
            fs::remove_file(self.path(name))?;
            self.state.lock().unwrap().names.retain(|_, known| known != name);
            Ok(())
        }, () => reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        name: &OsStr,
        _: INodeNo,
        new: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        answer!(reply, {
            self.may(Work::Change, name)?;
            fs::rename(self.path(name), self.path(new))?;
            let mut state = self.state.lock().unwrap();
            state.names.retain(|_, known| known != new);
            if let Some(known) = state.names.values_mut().find(|known| *known == name) {
                new.clone_into(known);
            }
            Ok(())
        }, () => reply.ok());
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        answer!(reply, {
            let mut names = vec![(ino, FileType::Directory, ".".into()), (ino, FileType::Directory, "..".into())];
            for entry in fs::read_dir(&self.folder)? {
                let name = entry?.file_name();
                let ino = INodeNo(self.state.lock().unwrap().number(&name));
                names.push((ino, FileType::RegularFile, name));
            }
            names.sort_by(|a: &(_, _, OsString), b| a.2.cmp(&b.2));
            for (n, (ino, kind, name)) in names.into_iter().enumerate().skip(offset as usize) {
                if reply.add(ino, n as u64 + 1, kind, name) {
                    break;
                }
            }
            Ok(())
        }, () => reply.ok());
    }
}
