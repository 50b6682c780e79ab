//! `mciasdb` on an instance, as an operator calls it: run to its end, and held to what the command line promises. And
//! file systems of a test's own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::instance::{Instance, MCIAS};

impl Instance {
    /// `mciasdb` with the instance's configuration, not yet run.
    pub fn mciasdb(&self, arguments: &[&str]) -> Command {
        // Whatever name the server is called by.
        let server = self.command();
        let mut command = Command::new(MCIAS);
        command.env_clear().envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.args(["db", "--config", "mcias.conf"]).args(arguments).current_dir(self.folder());
        command.stdin(Stdio::null());
        command
    }

    /// Runs it; insists on exit code 0, and that a line which isn't kept for a warning says nothing. Gives what it
    /// printed, without the last line end.
    #[track_caller]
    pub fn db(&self, arguments: &[&str]) -> String {
        succeeds(arguments, &self.mciasdb(arguments).output().unwrap(), "")
    }

    /// The same, with this on its standard input.
    #[track_caller]
    pub fn db_with(&self, input: &str, arguments: &[&str]) -> String {
        succeeds(arguments, &fed(&mut self.mciasdb(arguments), input), "")
    }

    /// The same for a command that has to say this besides, on standard error.
    #[track_caller]
    pub fn db_warns(&self, arguments: &[&str], words: &str) -> String {
        succeeds(arguments, &self.mciasdb(arguments).output().unwrap(), words)
    }

    /// The same; gives also what it said on standard error.
    #[track_caller]
    pub fn db_says(&self, arguments: &[&str]) -> (String, String) {
        let output = self.mciasdb(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (succeeds(arguments, &output, &said), said)
    }

    /// Runs it; insists on this exit code, on nothing printed, and on all of the words in what it says, which it gives.
    #[track_caller]
    pub fn db_fails(&self, code: i32, arguments: &[&str], words: &[&str]) -> String {
        fails(arguments, &self.mciasdb(arguments).output().unwrap(), code, words)
    }

    /// The same, with this on its standard input.
    #[track_caller]
    pub fn db_fails_with(&self, input: &str, code: i32, arguments: &[&str], words: &[&str]) {
        fails(arguments, &fed(&mut self.mciasdb(arguments), input), code, words);
    }
}

/// Runs a command with this on its standard input.
pub fn fed(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that fails early doesn't read it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[track_caller]
fn succeeds(arguments: &[&str], output: &Output, says: &str) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?} ended with {}: {err}", output.status);
    assert!(err.contains(says) && (says.is_empty() == err.is_empty()), "{arguments:?} said {err:?}");
    out.strip_suffix('\n').unwrap_or(&out).to_owned()
}

#[track_caller]
fn fails(arguments: &[&str], output: &Output, code: i32, words: &[&str]) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*out), (Some(code), ""), "{arguments:?}: {err}");
    assert!(err.starts_with("mcias: "), "{arguments:?}: {err}");
    // A failure is one line; a usage error may show the command's help after it.
    assert!(code != 1 || err.lines().count() == 1, "{arguments:?}: {err}");
    for word in words {
        assert!(err.contains(word), "{arguments:?}: {word:?} isn't in {err:?}");
    }
    err.into_owned()
}

/// A file system in memory, of a size of its own; gone when dropped.
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts one on a new folder. None where this machine doesn't let anybody.
    pub fn new(folder: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir(&folder).unwrap();
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&folder).status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("NOT RUN: a tmpfs can't be mounted here");
            assert!(std::env::var_os("CI").is_none(), "in CI everything runs");
            return None;
        }
        Some(Self(folder))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        for block in [1 << 16, 4096, 512, 1] {
            while std::io::Write::write_all(&mut file, &vec![0; block]).is_ok() {}
        }
    }

    /// From here on nobody can write to it.
    pub fn make_read_only(&self) {
        let mounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).status();
        assert!(mounted.is_ok_and(|status| status.success()), "somebody has a file there open for writing");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
