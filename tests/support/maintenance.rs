//! `mciasdb` on an instance, and file systems of a test's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::instance::{Instance, MCIAS};

impl Instance {
    /// `mciasdb` with the instance's configuration, not run yet.
    pub fn db_command(&self, arguments: &[&str]) -> Command {
        // Whatever name the server is called by.
        let server = self.command();
        let mut command = Command::new(MCIAS);
        command.env_clear().envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.args(["db", "--config", "mcias.conf"]).args(arguments).current_dir(self.folder());
        command.stdin(Stdio::null());
        command
    }

    /// Runs it.
    pub fn db(&self, arguments: &[&str]) -> Output {
        self.db_command(arguments).output().unwrap()
    }

    /// Runs it, insists on success and on nothing on standard error, and gives what it printed.
    #[track_caller]
    pub fn db_ok(&self, arguments: &[&str]) -> String {
        let (stdout, stderr) = self.db_warns(arguments);
        assert_eq!(stderr, "", "{arguments:?}");
        stdout
    }

    /// Runs it, insists on success, and gives what it printed and what it said on standard error.
    #[track_caller]
    pub fn db_warns(&self, arguments: &[&str]) -> (String, String) {
        let output = self.db(arguments);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
        (stdout, stderr)
    }

    /// Runs it, and insists on exit code 1, on nothing on standard output, and on one line that has all of the words;
    /// gives the line.
    #[track_caller]
    pub fn db_fails(&self, arguments: &[&str], words: &[&str]) -> String {
        let output = self.db(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), output.stdout.as_slice()),
            (Some(1), b"".as_slice()),
            "{arguments:?}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "{arguments:?}: {word:?} isn't in {stderr:?}");
        }
        stderr
    }
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
