//! What the command lines share on a terminal: how they fail, what they print and how they ask. Nothing else in the
//! program writes to standard output.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::signals::Undo;
use crate::error::{Error, Kind};
use crate::secret::Password;

/// Exit code: it could not do what was asked.
pub const FAILED: u8 = 1;
/// Exit code: it was asked wrongly.
pub const ASKED_WRONGLY: u8 = 2;
/// Exit code: the server said 401 or 403.
pub const REFUSED: u8 = 3;

/// The longest secret that is read, in bytes: a token at its limit.
pub const MAX_SECRET: usize = 4096;

/// Why a program ends, and with which exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// One line; empty where all has been said.
    pub message: String,
}

impl Failure {
    /// It could not do what was asked.
    pub fn new(message: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into() }
    }

    /// Nothing more to say.
    pub fn quiet(code: u8) -> Self {
        Self { code, message: String::new() }
    }

    /// Prints the one line, if there is one, after the program's name, and gives the code to exit with.
    pub fn print(&self, program: &str) -> ExitCode {
        if !self.message.is_empty() {
            let stderr = io::stderr();
            let program = coloured("1;31", program, colour(&stderr));
            // Where nothing can be said there is still the exit code.
            let _ = writeln!(stderr.lock(), "{program}: {}", escape(&self.message));
        }
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            Kind::Unauthorized | Kind::Forbidden => REFUSED,
            _ => FAILED,
        };
        Self { code, message: error.to_string() }
    }
}

/// Writes to standard output.
///
/// # Errors
/// Where it can't be written. A reader that went away had enough: exit code 0, and nothing is said.
pub fn out(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => Failure::quiet(0),
        _ => Failure::new(format!("cannot write to standard output: {e}")),
    })
}

/// Writes to standard error; where that fails there is nobody to tell.
pub fn err(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Whether to colour what goes to this stream: a terminal, and nobody has set `NO_COLOR`.
pub fn colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn coloured<'a>(code: &str, text: &'a str, on: bool) -> Cow<'a, str> {
    if on { Cow::Owned(format!("\u{1b}[{code}m{text}\u{1b}[0m")) } else { Cow::Borrowed(text) }
}

/// Text that can't steer a terminal: control characters, and those that turn the direction of writing or break the
/// line, are written as Rust would, e.g. `\n`, `\u{1b}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if steers(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A word that a POSIX shell reads back as this; with bytes that have no plain form it takes bash, zsh or ksh.
pub fn shell_word(word: &OsStr) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"_-./:@%+,=".contains(b);
    match word.to_str() {
        Some(text) if !text.is_empty() && text.bytes().all(|b| plain(&b)) => text.to_owned(),
        Some(text) if !text.contains(steers) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => {
            let bytes =
                word.as_bytes().iter().map(|b| if plain(b) { char::from(*b).into() } else { format!("\\{b:03o}") });
            format!("$'{}'", bytes.collect::<String>())
        }
    }
}

/// Rows under a header line, in columns two spaces apart. Widths are counted in characters; nothing is cut.
pub struct Table {
    header: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(header: &'static [&'static str]) -> Self {
        Self { header, rows: Vec::new() }
    }

    /// Adds a row; control characters are escaped here.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let cells: Vec<_> = cells.into_iter().map(|cell| escape(cell.as_ref()).into_owned()).collect();
        debug_assert_eq!(cells.len(), self.header.len(), "a cell for every column");
        self.rows.push(cells);
    }

    /// Prints it, the header in bold on a terminal.
    ///
    /// # Errors
    /// Those of [`out`].
    pub fn print(&self) -> Result<(), Failure> {
        out(&self.render(colour(&io::stdout())))
    }

    fn render(&self, bold: bool) -> String {
        let mut widths: Vec<_> = self.header.iter().map(|cell| cell.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded: Vec<_> = cells.zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
            padded.join("  ").trim_end().to_owned()
        };
        let header = line(&mut self.header.iter().copied());
        let mut text = format!("{}\n", coloured("1", &header, bold));
        for row in &self.rows {
            text.push_str(&line(&mut row.iter().map(String::as_str)));
            text.push('\n');
        }
        text
    }
}

/// A count on standard error that is written over again, where that is a terminal; nothing elsewhere.
pub struct Progress {
    what: &'static str,
    shown: Option<Instant>,
    on: bool,
}

impl Progress {
    /// Nothing yet; `what` is counted.
    pub fn new(what: &'static str) -> Self {
        Self { what, shown: None, on: io::stderr().is_terminal() }
    }

    /// Shows how many there are, ten times a second at most.
    pub fn show(&mut self, done: u64) {
        if self.on && self.shown.is_none_or(|at| at.elapsed() >= Duration::from_millis(100)) {
            self.shown = Some(Instant::now());
            err(&format!("\r\u{1b}[K{done} {}", self.what));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            err("\r\u{1b}[K");
        }
    }
}

/// Asks on the terminal, without echo. `instead` is what to use where there is no terminal, e.g. `--password-stdin`.
///
/// # Errors
/// Without a terminal, and where there is no answer. A signal at the question ends the program, with the terminal as it
/// was.
pub fn prompt_secret(prompt: &str, instead: &str) -> Result<Password, Failure> {
    let ask = || -> io::Result<Password> {
        let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
        // Before the question is there to be answered.
        let _silence = Silence::on(&terminal)?;
        terminal.write_all(prompt.as_bytes())?;
        read_line_unseen(&mut terminal)
    };
    ask().map_err(|e| Failure::new(format!("cannot ask on a terminal ({e}); use {instead}")))
}

/// A terminal that doesn't show what is typed, but the end of the line; as before when dropped, or when a signal ends the
/// program.
struct Silence {
    terminal: File,
    before: Termios,
    _undo: Undo,
}

impl Silence {
    fn on(terminal: &File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let (undone, as_before) = (terminal.try_clone()?, before.clone());
        let undo = Undo::on_signal(move || {
            // Nothing more can be done about it than this.
            let _ = tcsetattr(&undone, OptionalActions::Now, &as_before);
            let _ = (&undone).write_all(b"\n");
        });
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(terminal, OptionalActions::Now, &silent)?;
        Ok(Self { terminal: terminal.try_clone()?, before, _undo: undo })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// A line, without its end, through no buffer but one that is wiped.
fn read_line_unseen(terminal: &mut impl Read) -> io::Result<Password> {
    // A terminal has no longer lines.
    let mut line = Zeroizing::new([0; MAX_SECRET + 1]);
    let mut filled = 0;
    while !line[..filled].ends_with(b"\n") {
        match terminal.read(&mut line[filled..]) {
            Ok(0) if filled == line.len() => return Err(io::Error::other("the answer is too long")),
            Ok(0) => return Err(io::Error::other("there was no answer")),
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let text = line[..filled - 1].strip_suffix(b"\r").unwrap_or(&line[..filled - 1]);
    let text = str::from_utf8(text).map_err(|_| io::Error::other("the answer isn't UTF-8"))?;
    Ok(Password::new(text.to_owned()))
}

/// Whether somebody sits at standard input.
pub fn at_a_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Asks on the terminal, with echo; `instead` as in [`prompt_secret`].
///
/// # Errors
/// Without a terminal, and where the answer is interrupted.
pub fn prompt(prompt: &str, instead: &str) -> Result<String, Failure> {
    let ask = || -> io::Result<String> {
        let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
        terminal.write_all(prompt.as_bytes())?;
        let mut answer = String::new();
        if io::BufReader::new(terminal).read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(answer.trim().to_owned())
    };
    ask().map_err(|e| Failure::new(format!("cannot ask on a terminal ({e}); use {instead}")))
}

/// One secret from standard input: a line, without its line end.
///
/// # Errors
/// Those of [`read_secrets`].
pub fn read_secret_stdin() -> Result<Password, Failure> {
    let [secret] = read_secrets_stdin()?;
    Ok(secret)
}

/// `N` secrets from standard input, a line each.
///
/// # Errors
/// Those of [`read_secrets`].
pub fn read_secrets_stdin<const N: usize>() -> Result<[Password; N], Failure> {
    // Not through std's buffer: it would keep a copy.
    let stdin = io::stdin().as_fd().try_clone_to_owned();
    let mut stdin = File::from(stdin.map_err(|e| Failure::new(format!("cannot read standard input: {e}")))?);
    read_secrets(&mut stdin)
}

/// `N` lines, each without exactly one line end, LF or CRLF; the last may have none. Doesn't wait for the input's end.
///
/// # Errors
/// Fewer lines or visibly more, an empty one, one that is too long or not UTF-8.
fn read_secrets<const N: usize>(source: &mut impl Read) -> Result<[Password; N], Failure> {
    let wrong = |what: String| Failure::new(format!("standard input {what}"));
    // As large as it can get from the start, since a vector that grows leaves copies behind.
    let mut buffer = Zeroizing::new(vec![0; N * (MAX_SECRET + 2) + 1]);
    let mut filled = 0;
    while filled < buffer.len() && buffer[..filled].iter().filter(|&&b| b == b'\n').count() < N {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(wrong(format!("can't be read: {e}"))),
        }
    }
    if filled == buffer.len() {
        return Err(wrong(format!("has a line of more than {MAX_SECRET} bytes")));
    }
    let text = std::str::from_utf8(&buffer[..filled]).map_err(|_| wrong("isn't UTF-8".into()))?;
    let mut secrets = Vec::with_capacity(N);
    for line in text.split_inclusive('\n') {
        let line = line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
        if line.len() > MAX_SECRET {
            return Err(wrong(format!("has a line of more than {MAX_SECRET} bytes")));
        }
        if line.is_empty() {
            return Err(wrong("has an empty line".into()));
        }
        secrets.push(Password::new(line.to_owned()));
    }
    let lines = if N == 1 { "one line is".to_owned() } else { format!("{N} lines are") };
    secrets.try_into().map_err(|found: Vec<_>| {
        wrong(if found.is_empty() { "is empty".to_owned() } else { format!("has {}: {lines} wanted", found.len()) })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    /// Gives one piece a read, and fails where more is read than was sent.
    struct Pieces(Vec<&'static [u8]>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            assert!(!self.0.is_empty(), "waits for more than it needs");
            let piece = self.0.remove(0);
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    fn one(input: &[u8]) -> Result<String, String> {
        read_secrets(&mut &*input).map(|[secret]| secret.expose().to_owned()).map_err(|failure| failure.message)
    }

    #[test]
    fn a_secret_loses_exactly_one_line_end() {
        for (input, secret) in [
            ("pass word", "pass word"),
            ("pass\n", "pass"),
            ("pass\r\n", "pass"),
            ("pass\r\r\n", "pass\r"),
            ("pass\r", "pass\r"),
            (" p\t\n", " p\t"),
        ] {
            assert_eq!(one(input.as_bytes()).as_deref(), Ok(secret), "{input:?}");
        }
        let longest = "x".repeat(MAX_SECRET);
        assert_eq!(one(format!("{longest}\r\n").as_bytes()), Ok(longest.clone()));
        for (input, message) in [
            (b"".as_slice(), "standard input is empty"),
            (b"\n", "standard input has an empty line"),
            (b"a\n\n", "standard input has an empty line"),
            (b"a\nb\n", "standard input has 2: one line is wanted"),
            (b"\xff\n", "standard input isn't UTF-8"),
            (format!("{longest}x\n").as_bytes(), "standard input has a line of more than 4096 bytes"),
            (format!("{longest}{longest}").as_bytes(), "standard input has a line of more than 4096 bytes"),
        ] {
            assert_eq!(one(input), Err(message.to_owned()));
        }
    }

    #[test]
    fn two_secrets_come_in_pieces_and_the_end_is_not_waited_for() {
        let [old, new] = read_secrets(&mut Pieces(vec![b"ol", b"d\nn", b"ew\n"])).unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!((old.expose(), new.expose()), ("old", "new"));
        let Err(failure) = read_secrets::<2>(&mut b"old\n".as_slice()) else { panic!("one line was enough") };
        assert_eq!(failure.message, "standard input has 1: 2 lines are wanted");
    }

    #[test]
    fn text_cannot_steer_the_terminal() {
        assert!(matches!(escape("plain ünïcode 漢字 ' \\"), Cow::Borrowed(_)));
        assert_eq!(
            escape("a\n\t\u{1b}[31m\u{7f}\u{9b}\u{202e}\u{2066}z"),
            r"a\n\t\u{1b}[31m\u{7f}\u{9b}\u{202e}\u{2066}z"
        );
    }

    #[test]
    fn tables_are_aligned_and_nothing_is_cut() {
        let mut table = Table::new(&["NAME", "ID", "NOTE"]);
        table.row(["ünïcode-name", "1", ""]);
        table.row(["a\u{1b}", "22", "last"]);
        assert_eq!(table.render(false), "NAME          ID  NOTE\nünïcode-name  1\na\\u{1b}       22  last\n");
        assert!(table.render(true).starts_with("\u{1b}[1mNAME          ID  NOTE\u{1b}[0m\n"));
    }

    #[test]
    fn a_shell_reads_the_word_back() {
        let odd = std::ffi::OsString::from_vec(b"/a\xff'\n\\1".to_vec());
        assert_eq!(shell_word(OsStr::new("/srv/mcias-1/mcias.conf")), "/srv/mcias-1/mcias.conf");
        assert_eq!(shell_word(OsStr::new("")), "''");
        assert_eq!(shell_word(OsStr::new("/a b/it's $x")), r"'/a b/it'\''s $x'");
        assert_eq!(shell_word(&odd), r"$'/a\377\047\012\1341'");
        for word in [OsStr::new("/a b/it's $x `y` \"z\" \\"), &odd] {
            let script = format!("printf %s {}", shell_word(word));
            match std::process::Command::new("bash").args(["-c", &script]).output() {
                Ok(output) => assert_eq!(output.stdout, word.as_bytes()),
                Err(_) => crate::testing::not_run("a_shell_reads_the_word_back", "there is no bash"),
            }
        }
    }

    #[test]
    fn failures_have_the_codes_of_the_contract() {
        assert_eq!(Failure::from(Error::unauthorized()).code, REFUSED);
        assert_eq!(Failure::from(Error::forbidden("no")).code, REFUSED);
        assert_eq!(Failure::from(Error::invalid("no")), Failure::new("no"));
        assert_eq!(Failure::from(Error::internal("disk full")), Failure::new("disk full"));
    }
}
