//! A program on a terminal of its own, asked and answered as by somebody who sits there.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::eventually;
use super::instance::{Instance, MCIAS};

/// The terminal. It is `script`'s, of util-linux, since a new one can't be given to a process without unsafe code.
pub struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: ChildStdout,
    shown: String,
    /// Where its name is written down.
    name: PathBuf,
}

impl Terminal {
    /// Whether there is one to be had here.
    pub fn is_possible() -> bool {
        Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success())
    }

    /// A line of shell on a terminal whose name is written to `name`; `prepare` sets folder and environment.
    pub fn of(line: &str, name: PathBuf, prepare: impl FnOnce(&mut Command)) -> Self {
        // One that waits for ever for what isn't shown is a failure as well.
        let mut command = Command::new("timeout");
        let line = format!("tty >'{}'; {line}", name.display());
        command.args(["60", "script", "-q", "-e", "-f", "-c", &line, "/dev/null"]);
        prepare(&mut command);
        command.env("SHELL", "/bin/sh").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let (keyboard, screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Terminal { child, keyboard, screen, shown: String::new(), name }
    }

    /// Waits until this is shown, as [`Terminal::shows`]; `false` where the program ends before.
    pub fn asks(&mut self, words: &str) -> bool {
        let mut byte = [0];
        let before = self.shown.len();
        while self.shown.len() == before || !self.shown.ends_with(words) {
            if self.screen.read(&mut byte).unwrap() == 0 {
                return false;
            }
            self.shown.push(char::from(byte[0]));
        }
        true
    }

    /// Waits until this is shown after all that was waited for before.
    #[track_caller]
    pub fn shows(&mut self, words: &str) {
        let mut byte = [0];
        while !self.shown.ends_with(words) {
            let read = self.screen.read(&mut byte).unwrap();
            assert!(read == 1, "{words:?} isn't shown, but {:?}", self.shown);
            self.shown.push(char::from(byte[0]));
        }
    }

    /// Types a line, once what is typed is no longer shown.
    #[track_caller]
    pub fn types_unseen(&mut self, line: &str) {
        eventually("what is typed isn't shown", || !self.echoes());
        writeln!(self.keyboard, "{line}").unwrap();
    }

    /// Whether what is typed is shown.
    pub fn echoes(&self) -> bool {
        let terminal = fs::read_to_string(&self.name).unwrap();
        let state = Command::new("stty").args(["-a", "-F", terminal.trim()]).output().unwrap();
        !String::from_utf8_lossy(&state.stdout).split_whitespace().any(|setting| setting == "-echo")
    }

    /// Types this, without a line end.
    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Waits for the end; gives the exit code and everything that was shown.
    pub fn ends(mut self) -> (Option<i32>, String) {
        let mut rest = Vec::new();
        self.screen.read_to_end(&mut rest).unwrap();
        self.shown.push_str(&String::from_utf8_lossy(&rest));
        (self.child.wait().unwrap().code(), self.shown.replace('\r', ""))
    }
}

impl Instance {
    /// `mciasdb` with the instance's configuration, on a terminal.
    pub fn mciasdb_on_a_terminal(&self, arguments: &[&str]) -> Terminal {
        let mut line = format!("exec '{MCIAS}' db --config mcias.conf");
        for argument in arguments {
            line.push_str(&format!(" '{argument}'"));
        }
        Terminal::of(&line, self.path("terminal"), |command| {
            command.current_dir(self.folder());
        })
    }
}
