//! Files with secrets: who may own them, who may read them, and what of their bytes counts. The rule is PostgreSQL's
//! for its `ssl_key_file`, and it is checked on the opened file. No message says anything of a file's content but its
//! length.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use zeroize::Zeroizing;

use crate::secret::{KeyBytes, Password, SecretBytes};

/// More than this, in bytes, is not read.
const MAX_SIZE: usize = 64 * 1024;

const ROOT: u32 = 0;

/// Reads a whole file with a secret in it, of at most 64 KiB. `what` says in messages what it is for; a symbolic link
/// is followed. With `database_folder`, and where we are root, the file may also belong to that folder's owner.
///
/// # Errors
/// It can't be read, isn't a regular file, is too large, or its owner or mode is against the rule; the message names
/// the file and, for the rule, the command that mends it.
pub fn read(path: &Path, what: &str, database_folder: Option<&Path>) -> Result<SecretBytes, String> {
    read_by(path, what, |owner, mode, us| {
        let database_owner = database_folder.and_then(|folder| rustix::fs::stat(folder).ok()).map(|stat| stat.st_uid);
        judge(owner, mode, us, database_owner)
    })
}

/// Reads a file that only we may own and read.
///
/// # Errors
/// As [`read`].
pub fn read_own(path: &Path, what: &str) -> Result<SecretBytes, String> {
    read_by(path, what, |owner, mode, us| match mode & 0o7777 {
        _ if owner != us => Err(Fault::Owner(owner)),
        mode if mode & 0o077 == 0 => Ok(()),
        mode => Err(Fault::Mode { mode, allowed: 0o600 }),
    })
}

fn read_by(
    path: &Path,
    what: &str,
    rule: impl FnOnce(u32, u32, u32) -> Result<(), Fault>,
) -> Result<SecretBytes, String> {
    let refuse = |why: String| format!("{what} {}: {why}", path.display());
    // NONBLOCK, or a FIFO without a writer would keep us here for ever; it says nothing to a regular file.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| refuse(format!("can't be opened: {e}")))?;
    let stat = rustix::fs::fstat(&opened).map_err(|e| refuse(format!("can't be looked at: {e}")))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(refuse("is not a regular file".into()));
    }
    let us = rustix::process::geteuid().as_raw();
    rule(stat.st_uid, stat.st_mode, us).map_err(|fault| refuse(fault.tell(path, us)))?;

    // All of the room at once: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(vec![0; MAX_SIZE + 1]);
    let mut file = File::from(opened);
    let mut length = 0;
    while let Some(room) = bytes.get_mut(length..).filter(|room| !room.is_empty()) {
        match file.read(room) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(refuse(format!("can't be read: {e}"))),
        }
    }
    if length > MAX_SIZE {
        return Err(refuse("is over 64 KiB".into()));
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// What is wrong with a file's owner or mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It belongs to this user.
    Owner(u32),
    /// It is rightly owned, but open to more than `allowed`.
    Mode { mode: u32, allowed: u32 },
}

impl Fault {
    /// The fault, and the command that mends it.
    fn tell(self, path: &Path, us: u32) -> String {
        let file = shell_word(&path.display().to_string());
        match self {
            Self::Owner(owner) => format!(
                "belongs to user {owner}, not to us (user {us}) or root; \
                 mend it with: chown {us} {file} && chmod 0600 {file}"
            ),
            Self::Mode { mode, allowed } => {
                let group =
                    if allowed & 0o040 == 0 { "group or others" } else { "others, or group for more than reading" };
                format!("its mode, {mode:04o}, lets in {group}; mend it with: chmod {allowed:04o} {file}")
            }
        }
    }
}

/// The rule. Owned by us, no group or other access; owned by root, the group may read; and where we are root, owned by
/// the database folder's owner, no group or other access.
fn judge(owner: u32, mode: u32, us: u32, database_owner: Option<u32>) -> Result<(), Fault> {
    let mode = mode & 0o7777;
    let allowed = match owner {
        ROOT => 0o640,
        _ if owner == us => 0o600,
        _ if us == ROOT && database_owner == Some(owner) => 0o600,
        _ => return Err(Fault::Owner(owner)),
    };
    if mode & 0o077 & !allowed == 0 { Ok(()) } else { Err(Fault::Mode { mode, allowed }) }
}

/// The text as one word of a shell command.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The passphrase or password in what was read from a file or standard input: everything but one line end at its end,
/// `\n` or `\r\n`.
///
/// # Errors
/// Nothing is left, or it isn't UTF-8.
pub fn one_line(mut bytes: SecretBytes) -> Result<Password, String> {
    let length = without_line_end(&bytes).len();
    if length == 0 {
        return Err("is empty".into());
    }
    bytes.truncate(length);
    // The vector itself moves on, so that no copy stays behind; one that isn't UTF-8 is wiped here.
    String::from_utf8(std::mem::take(&mut *bytes)).map(Password::new).map_err(|e| {
        drop(Zeroizing::new(e.into_bytes()));
        "is not UTF-8 text".to_owned()
    })
}

/// The key in a key file's bytes: exactly 32 raw bytes, whatever they are, or 64 hex digits and perhaps one line end.
///
/// # Errors
/// Anything else; the message tells the length, or that there is something else than hex digits.
pub fn key_bytes(bytes: &[u8]) -> Result<KeyBytes, String> {
    // The raw form first: a raw key may well end in a line end.
    if let Ok(raw) = <[u8; 32]>::try_from(bytes) {
        return Ok(KeyBytes::new(raw));
    }
    let digits = without_line_end(bytes);
    if digits.len() != 64 {
        return Err(format!("holds {} bytes; a key is 32 raw bytes or 64 hex digits", bytes.len()));
    }
    let mut key = Zeroizing::new([0u8; 32]);
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                b'A'..=b'F' => digit - b'A' + 10,
                _ => return Err("holds 64 characters that are not all hex digits".into()),
            };
            *byte = *byte << 4 | value;
        }
    }
    Ok(KeyBytes::new(*key))
}

fn without_line_end(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(b"\r\n").or_else(|| bytes.strip_suffix(b"\n")).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A folder of the test's own, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!("mcias-secretfile-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let folder = std::env::temp_dir().join(name);
            std::fs::create_dir(&folder).unwrap();
            Self(folder)
        }

        fn file(&self, name: &str, content: &[u8], mode: u32) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    fn refusal(path: &Path) -> String {
        match read(path, "keyfile", None) {
            Ok(_) => panic!("{} was read", path.display()),
            Err(message) => message,
        }
    }

    #[test]
    fn the_rule() {
        const ME: u32 = 998;
        const OTHER: u32 = 1000;
        let owner = |uid| Err(Fault::Owner(uid));
        let mode = |mode, allowed| Err(Fault::Mode { mode, allowed });
        for (file_owner, file_mode, us, database_owner, verdict) in [
            // Ours: nothing for group and others, each bit of it.
            (ME, 0o600, ME, None, Ok(())),
            (ME, 0o400, ME, None, Ok(())),
            (ME, 0o700, ME, None, Ok(())),
            (ME, 0o000, ME, None, Ok(())),
            (ME, 0o640, ME, None, mode(0o640, 0o600)),
            (ME, 0o620, ME, None, mode(0o620, 0o600)),
            (ME, 0o610, ME, None, mode(0o610, 0o600)),
            (ME, 0o604, ME, None, mode(0o604, 0o600)),
            (ME, 0o602, ME, None, mode(0o602, 0o600)),
            (ME, 0o601, ME, None, mode(0o601, 0o600)),
            (ME, 0o644, ME, Some(ME), mode(0o644, 0o600)),
            // Root's: the group may read, and nothing more.
            (ROOT, 0o600, ME, None, Ok(())),
            (ROOT, 0o640, ME, None, Ok(())),
            (ROOT, 0o440, ME, None, Ok(())),
            (ROOT, 0o660, ME, None, mode(0o660, 0o640)),
            (ROOT, 0o650, ME, None, mode(0o650, 0o640)),
            (ROOT, 0o644, ME, None, mode(0o644, 0o640)),
            (ROOT, 0o642, ME, None, mode(0o642, 0o640)),
            (ROOT, 0o641, ME, None, mode(0o641, 0o640)),
            (ROOT, 0o640, ROOT, None, Ok(())),
            (ROOT, 0o644, ROOT, None, mode(0o644, 0o640)),
            // Somebody else's: only where we are root, and only the database folder's owner's.
            (OTHER, 0o600, ME, None, owner(OTHER)),
            (OTHER, 0o600, ME, Some(OTHER), owner(OTHER)),
            (OTHER, 0o600, ROOT, None, owner(OTHER)),
            (OTHER, 0o600, ROOT, Some(ME), owner(OTHER)),
            (OTHER, 0o600, ROOT, Some(OTHER), Ok(())),
            (OTHER, 0o640, ROOT, Some(OTHER), mode(0o640, 0o600)),
            (OTHER, 0o604, ROOT, Some(OTHER), mode(0o604, 0o600)),
            // The file type's bits don't matter here.
            (ME, 0o100_600, ME, None, Ok(())),
        ] {
            let judged = judge(file_owner, file_mode, us, database_owner);
            assert_eq!(judged, verdict, "owner {file_owner} mode {file_mode:o} us {us} database {database_owner:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_mends_it() {
        let folder = Folder::new();
        let path = folder.file("key", b"x", 0o644);
        let allowed = if is_root() { "0640" } else { "0600" };
        let message = refusal(&path);
        assert!(message.starts_with(&format!("keyfile {}: its mode, 0644, lets in", path.display())), "{message}");
        assert!(message.ends_with(&format!("mend it with: chmod {allowed} {}", path.display())), "{message}");

        let told = Fault::Owner(1000).tell(Path::new("/etc/my keys/it's"), 998);
        let file = r"'/etc/my keys/it'\''s'";
        assert!(told.ends_with(&format!("mend it with: chown 998 {file} && chmod 0600 {file}")), "{told}");
    }

    #[test]
    fn reads_what_it_may_through_symbolic_links_as_well() {
        let folder = Folder::new();
        let path = folder.file("key", b"\0secret\n", 0o600);
        assert_eq!(*read(&path, "keyfile", None).unwrap(), b"\0secret\n");
        symlink(&path, folder.0.join("link")).unwrap();
        assert_eq!(*read(&folder.0.join("link"), "keyfile", None).unwrap(), b"\0secret\n");
        // It is the file that is judged, not the link.
        folder.file("key", b"secret", 0o604);
        assert!(refusal(&folder.0.join("link")).contains("0604"));
    }

    #[test]
    fn refuses_what_is_no_file_and_does_not_hang_on_a_fifo() {
        let folder = Folder::new();
        let fifo = folder.0.join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(refusal(&fifo).ends_with("is not a regular file"));
        assert!(refusal(&folder.0).ends_with("is not a regular file"));
        assert!(refusal(Path::new("/dev/null")).ends_with("is not a regular file"));
        assert!(refusal(&folder.0.join("nothing")).contains("can't be opened: No such file"));
    }

    #[test]
    fn reads_up_to_64_kib() {
        let folder = Folder::new();
        assert_eq!(*read(&folder.file("full", &[7; MAX_SIZE], 0o600), "keyfile", None).unwrap(), [7; MAX_SIZE]);
        assert!(refusal(&folder.file("over", &[7; MAX_SIZE + 1], 0o600)).ends_with("is over 64 KiB"));
        assert!(read(&folder.file("empty", b"", 0o600), "keyfile", None).unwrap().is_empty());
    }

    #[test]
    fn root_takes_files_of_the_database_folders_owner() {
        if !is_root() {
            return crate::testing::not_run(
                "root_takes_files_of_the_database_folders_owner",
                "only root can give files away",
            );
        }
        let folder = Folder::new();
        let database = folder.0.join("database");
        std::fs::create_dir(&database).unwrap();
        chown(&database, Some(12345), None).unwrap();
        let path = folder.file("key", b"secret", 0o600);
        chown(&path, Some(12345), None).unwrap();
        assert!(refusal(&path).contains("belongs to user 12345, not to us (user 0) or root"));
        assert!(read(&path, "keyfile", Some(&folder.0)).is_err());
        assert!(read(&path, "keyfile", Some(&folder.0.join("nothing"))).is_err());
        assert_eq!(*read(&path, "keyfile", Some(&database)).unwrap(), b"secret");
    }

    #[test]
    fn one_line_end_is_not_part_of_a_passphrase() {
        let line = |bytes: &[u8]| one_line(Zeroizing::new(bytes.to_vec())).map(|password| password.expose().to_owned());
        for (bytes, passphrase) in [
            (b"pass".as_slice(), "pass"),
            (b"pass\n", "pass"),
            (b"pass\r\n", "pass"),
            (b"pass\n\n", "pass\n"),
            (b"pass\r\n\r\n", "pass\r\n"),
            (b"pass\r", "pass\r"),
            (b" pass \n", " pass "),
            (b"two\nlines\n", "two\nlines"),
            (b"\n\n", "\n"),
            ("pässwörd\n".as_bytes(), "pässwörd"),
        ] {
            assert_eq!(line(bytes).as_deref(), Ok(passphrase), "{bytes:?}");
        }
        for empty in [b"".as_slice(), b"\n", b"\r\n"] {
            assert_eq!(line(empty), Err("is empty".into()), "{empty:?}");
        }
        assert_eq!(line(b"pass\xff\n"), Err("is not UTF-8 text".into()));
    }

    #[test]
    fn keys_are_32_raw_bytes_or_64_hex_digits() {
        let key = |bytes: &[u8]| key_bytes(bytes).map(|key| *key.expose());
        let expected: [u8; 32] = std::array::from_fn(|i| i as u8 * 8 + 5);
        let hex: String = expected.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(key(&expected), Ok(expected));
        for form in [hex.clone(), hex.to_uppercase(), format!("{hex}\n"), format!("{hex}\r\n")] {
            assert_eq!(key(form.as_bytes()), Ok(expected), "{form:?}");
        }
        // Raw bytes are raw, whatever they look like.
        let mut ends_in_a_line_end = expected;
        ends_in_a_line_end[31] = b'\n';
        assert_eq!(key(&ends_in_a_line_end), Ok(ends_in_a_line_end));
        assert_eq!(key(&[b'a'; 32]), Ok([b'a'; 32]));

        for (bytes, length) in [
            (b"".as_slice(), 0),
            (&expected[..31], 31),
            (&[7; 33], 33),
            (&[expected.as_slice(), b"\n"].concat(), 33),
            (&hex.as_bytes()[..63], 63),
            (format!("{hex}0").as_bytes(), 65),
            (format!("{hex}\n\n").as_bytes(), 66),
            (format!("0x{hex}").as_bytes(), 66),
        ] {
            let message = format!("holds {length} bytes; a key is 32 raw bytes or 64 hex digits");
            assert_eq!(key(bytes), Err(message), "{length}");
        }
        for bad in ["g", "G", "/", ":", "@", "`", " ", "\n"] {
            let text = format!("{bad}{}", &hex[1..]);
            assert_eq!(key(text.as_bytes()), Err("holds 64 characters that are not all hex digits".into()), "{bad:?}");
        }
    }
}
