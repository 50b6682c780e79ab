//! `mciasdb` on an instance, as an operator calls it: run to its end, and held to what the command line promises.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use super::instance::Instance;

impl Instance {
    /// `mciasdb` with the instance's configuration, not yet run.
    pub fn mciasdb(&self, arguments: &[&str]) -> Command {
        let mut command = self.command();
        command.args(["db", "--config", "mcias.conf"]).args(arguments);
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

    /// Runs it; insists on this exit code, on nothing printed, and on all of the words in what it says.
    #[track_caller]
    pub fn db_fails(&self, code: i32, arguments: &[&str], words: &[&str]) {
        fails(arguments, &self.mciasdb(arguments).output().unwrap(), code, words);
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
fn fails(arguments: &[&str], output: &Output, code: i32, words: &[&str]) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*out), (Some(code), ""), "{arguments:?}: {err}");
    assert!(err.starts_with("mcias: "), "{arguments:?}: {err}");
    // A failure is one line; a usage error may show the command's help after it.
    assert!(code != 1 || err.lines().count() == 1, "{arguments:?}: {err}");
    for word in words {
        assert!(err.contains(word), "{arguments:?}: {word:?} isn't in {err:?}");
    }
}
