//! Reads a command line by the table of [`super::command`]. It only says what was asked, or what was wrong with the
//! question; acting on it comes after. No value is ever repeated in an error: it may be a secret in the wrong place.

use std::ffi::{OsStr, OsString};
use std::fmt;

use super::command::{Command, Flag, Role, named};
use super::help;
use super::term::{ASKED_WRONGLY, Failure, escape};

/// What a command line comes to.
pub enum Outcome {
    /// A command, with everything it needs.
    Run(Parsed),
    /// Help was asked for.
    Help(String),
    /// No command was named, or only the beginning of one: the help, for standard error.
    NoCommand(String),
    /// The version was asked for.
    Version,
}

/// A valid command line. No `Debug`: a value may be a secret.
pub struct Parsed {
    role: &'static Role,
    command: &'static Command,
    called_as: String,
    flags: Vec<(&'static Flag, OsString)>,
    args: Vec<OsString>,
}

/// A command line that asks for nothing that can be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    message: String,
    see: String,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; see '{} --help'", self.message, self.see)
    }
}

impl From<Usage> for Failure {
    fn from(usage: Usage) -> Self {
        Self { code: ASKED_WRONGLY, message: usage.to_string() }
    }
}

/// Reads `args`, which come after the role's name. `called_as` is how the user has named the role, e.g. `mcias server`.
///
/// # Errors
/// [`Usage`], naming the flag or argument that is unknown, missing, given twice or has no such value.
pub fn parse(role: &'static Role, called_as: &str, args: Vec<OsString>) -> Result<Outcome, Usage> {
    let mut line = Line {
        role,
        called_as,
        command: role.only_command(),
        words: String::new(),
        flags: Vec::new(),
        args: Vec::new(),
    };
    let mut parser = lexopt::Parser::from_args(args);
    // A word with one dash is a long flag; lexopt hands it over as a letter and, with this, the whole rest.
    parser.set_short_equals(false);
    loop {
        match next(&mut parser).map_err(|_| line.usage("a flag has a value that it doesn't take"))? {
            None => return line.finish(),
            Some(Word::Plain(word)) => line.take_word(word)?,
            Some(Word::Flag(name, value)) => match name.as_str() {
                "help" | "h" | "version" if value.is_some() => {
                    return Err(line.usage(format!("--{name} takes no value")));
                }
                "help" | "h" => return Ok(Outcome::Help(line.help())),
                "version" => return Ok(Outcome::Version),
                _ => line.take_flag(&name, value, &mut parser)?,
            },
        }
    }
}

impl Parsed {
    /// The role it was said to.
    pub fn role(&self) -> &'static Role {
        self.role
    }

    /// The command.
    pub fn command(&self) -> &'static Command {
        self.command
    }

    /// How the user has named the role, e.g. `mcias ctl`.
    pub fn called_as(&self) -> &str {
        &self.called_as
    }

    /// The value of a flag that was given; the first, if it may be repeated.
    pub fn value(&self, name: &str) -> Option<&OsStr> {
        self.all(name).next()
    }

    /// The same as text.
    ///
    /// # Errors
    /// Where it isn't UTF-8. The parser lets that pass for paths only.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Usage> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => {
                value.to_str().map(Some).ok_or_else(|| self.usage(format!("the value of --{name} isn't UTF-8")))
            }
        }
    }

    /// Whether a switch was given.
    pub fn switch(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// All values of a flag that may be repeated, in order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &OsStr> {
        debug_assert!(self.role.has_flag(name), "no command of {} has --{name}", self.role.name);
        self.flags.iter().filter(move |(flag, _)| flag.name == name).map(|(_, value)| value.as_os_str())
    }

    /// What was given in the place of that name.
    pub fn arg(&self, name: &str) -> Option<&OsStr> {
        let place = self.command.args.iter().position(|arg| arg.name == name);
        debug_assert!(place.is_some(), "{} takes no {name}", self.command.name);
        self.args.get(place?).map(OsString::as_os_str)
    }

    /// What a command finds wrong in its second step: an impossible value, two flags that exclude each other.
    pub fn usage(&self, message: impl Into<String>) -> Usage {
        Usage { message: message.into(), see: named(&self.called_as, self.command.name) }
    }
}

enum Word {
    Flag(String, Option<OsString>),
    Plain(OsString),
}

fn next(parser: &mut lexopt::Parser) -> Result<Option<Word>, lexopt::Error> {
    let mut name = match parser.next()? {
        None => return Ok(None),
        Some(lexopt::Arg::Value(word)) => return Ok(Some(Word::Plain(word))),
        Some(lexopt::Arg::Long(name)) => {
            let name = name.to_owned();
            return Ok(Some(Word::Flag(name, parser.optional_value())));
        }
        Some(lexopt::Arg::Short(first)) => OsString::from(first.to_string()),
    };
    name.push(parser.optional_value().unwrap_or_default());
    // The value may be anything, so the cut is made in bytes; the name is for comparing and showing only.
    let bytes = name.as_encoded_bytes();
    Ok(Some(match bytes.iter().position(|&byte| byte == b'=') {
        None => Word::Flag(name.to_string_lossy().into_owned(), None),
        Some(cut) => {
            use std::os::unix::ffi::OsStrExt;
            let value = OsStr::from_bytes(&bytes[cut + 1..]).to_owned();
            Word::Flag(String::from_utf8_lossy(&bytes[..cut]).into_owned(), Some(value))
        }
    }))
}

/// A command line as far as it has been read.
struct Line<'a> {
    role: &'static Role,
    called_as: &'a str,
    command: Option<&'static Command>,
    words: String,
    flags: Vec<(&'static Flag, OsString)>,
    args: Vec<OsString>,
}

impl Line<'_> {
    /// A word that is no flag: the next of the command's, or an argument.
    fn take_word(&mut self, word: OsString) -> Result<(), Usage> {
        let Some(command) = self.command else { return self.take_command_word(&word) };
        let Some(arg) = command.args.get(self.args.len()) else {
            let what = if command.args.is_empty() { "no argument beside its flags" } else { "no further argument" };
            return Err(self.usage(format!("'{}' takes {what}", named(self.called_as, command.name))));
        };
        if !arg.takes_path() && word.to_str().is_none() {
            return Err(self.usage(format!("{} isn't UTF-8", arg.name)));
        }
        if !allowed(arg.choices, &word) {
            return Err(self.usage(format!("{} must be {}", arg.name, either(arg.choices))));
        }
        self.args.push(word);
        Ok(())
    }

    fn take_command_word(&mut self, word: &OsStr) -> Result<(), Usage> {
        let words = named(&self.words, &word.to_string_lossy());
        let beginning = format!("{words} ");
        self.command = self.role.commands.iter().find(|command| command.name == words);
        if self.command.is_none() && !self.role.commands.iter().any(|command| command.name.starts_with(&beginning)) {
            return Err(self.usage(format!("unknown command '{}'", escape(&words))));
        }
        self.words = words;
        Ok(())
    }

    fn take_flag(&mut self, name: &str, inline: Option<OsString>, parser: &mut lexopt::Parser) -> Result<(), Usage> {
        let own = self.command.map_or(&[][..], |command| command.flags);
        let Some(flag) = self.role.common.iter().chain(own).find(|flag| flag.name == name) else {
            let place = if self.command.is_none() { " before the command" } else { "" };
            return Err(self.usage(format!("unknown flag --{}{place}", escape(name))));
        };
        if !flag.repeatable && self.flags.iter().any(|(given, _)| given.name == name) {
            return Err(self.usage(format!("--{name} is given twice")));
        }
        let value = match (flag.value, inline) {
            (None, None) => OsString::new(),
            (None, Some(_)) => return Err(self.usage(format!("--{name} takes no value"))),
            (Some(_), Some(value)) => value,
            (Some(placeholder), None) => {
                parser.value().map_err(|_| self.usage(format!("--{name} needs a value ({placeholder})")))?
            }
        };
        if flag.value.is_some() && !flag.takes_path() && value.to_str().is_none() {
            return Err(self.usage(format!("the value of --{name} isn't UTF-8")));
        }
        if !allowed(flag.choices, &value) {
            return Err(self.usage(format!("--{name} must be {}", either(flag.choices))));
        }
        self.flags.push((flag, value));
        Ok(())
    }

    fn finish(self) -> Result<Outcome, Usage> {
        let Some(command) = self.command else { return Ok(Outcome::NoCommand(self.help())) };
        let given = |flag: &Flag| self.flags.iter().any(|(given, _)| given.name == flag.name);
        let wanted = command.common(self.role).chain(command.flags).find(|flag| flag.required && !given(flag));
        if let Some(flag) = wanted {
            return Err(self.usage(format!("{} is missing", flag.shown())));
        }
        if let Some(arg) = command.args.get(self.args.len()).filter(|arg| arg.required) {
            return Err(self.usage(format!("{} is missing", arg.shown())));
        }
        let called_as = self.called_as.to_owned();
        Ok(Outcome::Run(Parsed { role: self.role, command, called_as, flags: self.flags, args: self.args }))
    }

    /// The help of the command, of the commands that begin like this, or of the role.
    fn help(&self) -> String {
        match self.command {
            Some(command) => help::of_command(self.role, command, self.called_as),
            None => help::of_role(self.role, &self.words, self.called_as),
        }
    }

    fn usage(&self, message: impl Into<String>) -> Usage {
        Usage { message: message.into(), see: named(self.called_as, &self.words) }
    }
}

fn allowed(choices: &[&str], value: &OsStr) -> bool {
    choices.is_empty() || choices.iter().any(|choice| value == *choice)
}

fn either(choices: &[&str]) -> String {
    match choices {
        [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
        _ => choices.concat(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::super::command::Arg;
    use super::super::term::Failure;
    use super::*;

    fn nothing(_: &Parsed) -> Result<(), Failure> {
        Ok(())
    }

    const PLAIN: Command =
        Command { name: "", about: "act", notes: &[], flags: &[], args: &[], example: "", run: nothing };

    static TOOL: Role = Role {
        name: "tool",
        word: "t",
        about: "a tool",
        common: &[Flag::value("config", "FILE", "the configuration"), Flag::switch("json", "as JSON")],
        commands: &[
            Command {
                name: "account create",
                flags: &[
                    Flag::value("username", "NAME", "the name").required(),
                    Flag::value("type", "TYPE", "the type").one_of(&["human", "system"]),
                    Flag::value("role", "ROLE", "a role").repeatable(),
                    Flag::switch("yes", "don't ask"),
                ],
                ..PLAIN
            },
            Command { name: "account list", ..PLAIN },
            Command {
                name: "links",
                args: &[
                    Arg { name: "DIR", about: "where", required: true, choices: &[] },
                    Arg { name: "SHELL", about: "which", required: false, choices: &["bash", "zsh", "fish"] },
                ],
                ..PLAIN
            },
        ],
        example: "account list",
        roles: &[],
    };

    static SERVER: Role = Role {
        name: "serve",
        word: "server",
        about: "a server",
        common: &[],
        commands: &[Command { flags: &[Flag::value("config", "FILE", "the configuration").required()], ..PLAIN }],
        example: "--config F",
        roles: &[],
    };

    fn read(role: &'static Role, args: &[&str]) -> Result<Outcome, Usage> {
        parse(role, role.name, args.iter().map(OsString::from).collect())
    }

    fn parsed(args: &[&str]) -> Parsed {
        match read(&TOOL, args) {
            Ok(Outcome::Run(parsed)) => parsed,
            Ok(_) => panic!("{args:?} is no command"),
            Err(usage) => panic!("{args:?}: {usage}"),
        }
    }

    fn refusal(args: &[&str]) -> String {
        match read(&TOOL, args) {
            Err(usage) => usage.to_string(),
            Ok(_) => panic!("{args:?} was taken"),
        }
    }

    #[test]
    fn one_dash_is_as_good_as_two_and_the_value_may_be_joined() {
        for args in [
            ["--config", "F", "account", "list"].as_slice(),
            &["-config", "F", "account", "list"],
            &["--config=F", "account", "list"],
            &["-config=F", "account", "list"],
            &["account", "--config", "F", "list"],
            &["account", "list", "-config", "F"],
            &["account", "list", "-config=F"],
        ] {
            let parsed = parsed(args);
            assert_eq!(parsed.command().name, "account list");
            assert_eq!(parsed.value("config"), Some(OsStr::new("F")), "{args:?}");
        }
    }

    #[test]
    fn the_word_after_a_flag_is_its_value_whatever_it_looks_like() {
        for value in ["-config", "--help", "--", "-", "-h", "--username=x", "", "a=b"] {
            let parsed = parsed(&["account", "create", "--username", value]);
            assert_eq!(parsed.text("username"), Ok(Some(value)));
        }
        for (word, value) in [("--username=", ""), ("-username=", ""), ("--username=a=b", "a=b"), ("-username==", "=")]
        {
            assert_eq!(parsed(&["account", "create", word]).text("username"), Ok(Some(value)), "{word}");
        }
    }

    #[test]
    fn switches_repeated_flags_and_arguments() {
        let line = parsed(&["--json", "account", "create", "--username", "a", "-role", "x", "--yes", "--role=y"]);
        assert!(line.switch("json") && line.switch("yes"));
        assert_eq!(line.all("role").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(line.text("type"), Ok(None));
        let line = parsed(&["links", "--", "--help", "zsh"]);
        assert_eq!((line.arg("DIR"), line.arg("SHELL")), (Some(OsStr::new("--help")), Some(OsStr::new("zsh"))));
        assert_eq!(parsed(&["links", "-"]).arg("SHELL"), None);
    }

    #[test]
    fn what_is_wrong_is_named_and_no_value_is() {
        let create = "see 'tool account create --help'";
        for (args, message) in [
            (["account", "create"].as_slice(), format!("--username NAME is missing; {create}")),
            (&["account", "create", "--username"], format!("--username needs a value (NAME); {create}")),
            (&["account", "create", "--user", "hunter2"], format!("unknown flag --user; {create}")),
            (&["account", "create", "-user=hunter2"], format!("unknown flag --user; {create}")),
            (&["account", "create", "--yes=hunter2"], format!("--yes takes no value; {create}")),
            (&["account", "create", "--yes="], format!("--yes takes no value; {create}")),
            (&["account", "create", "-yes=hunter2"], format!("--yes takes no value; {create}")),
            (&["account", "create", "--help=hunter2"], format!("--help takes no value; {create}")),
            (&["account", "create", "--yes", "-yes"], format!("--yes is given twice; {create}")),
            (&["--json", "account", "create", "--json"], format!("--json is given twice; {create}")),
            (&["account", "create", "--type", "hunter2"], format!("--type must be human or system; {create}")),
            (
                &["account", "create", "hunter2"],
                format!("'tool account create' takes no argument beside its flags; {create}"),
            ),
            (&["--username", "a", "account"], "unknown flag --username before the command; see 'tool --help'".into()),
            (&["accounts"], "unknown command 'accounts'; see 'tool --help'".into()),
            (&["account", "x\n\u{1b}[m"], r"unknown command 'account x\n\u{1b}[m'; see 'tool account --help'".into()),
            (&["account", "list", "--\u{202e}a"], r"unknown flag --\u{202e}a; see 'tool account list --help'".into()),
            (&["links"], "DIR is missing; see 'tool links --help'".into()),
            (&["links", "d", "hunter2"], "SHELL must be bash, zsh or fish; see 'tool links --help'".into()),
            (&["links", "d", "zsh", "e"], "'tool links' takes no further argument; see 'tool links --help'".into()),
            (&["account", "list", "--"], String::new()),
        ] {
            if message.is_empty() {
                parsed(args);
            } else {
                assert_eq!(refusal(args), message);
            }
        }
    }

    #[test]
    fn help_stands_on_every_level_and_the_version_beside_it() {
        for (args, beginning) in [
            (["--help"].as_slice(), "tool - a tool\n"),
            (&["-h"], "tool - a tool\n"),
            (&["-help", "account"], "tool - a tool\n"),
            (&["account", "--help"], "tool account - "),
            (&["account", "create", "-h"], "tool account create - act\n"),
            (&["account", "create", "--yes", "--help", "--bad"], "tool account create - act\n"),
        ] {
            match read(&TOOL, args) {
                Ok(Outcome::Help(text)) => assert!(text.starts_with(beginning), "{args:?}: {text}"),
                _ => panic!("{args:?} gives no help"),
            }
        }
        assert!(matches!(read(&TOOL, &["--version"]), Ok(Outcome::Version)));
        assert!(matches!(read(&SERVER, &["-version"]), Ok(Outcome::Version)));
        assert!(matches!(read(&SERVER, &["--help"]), Ok(Outcome::Help(text)) if text.starts_with("serve - act\n")));
        for args in [[].as_slice(), &["account"], &["--json", "account"]] {
            assert!(matches!(read(&TOOL, args), Ok(Outcome::NoCommand(_))), "{args:?}");
        }
    }

    #[test]
    fn a_role_of_one_command_needs_no_word_for_it() {
        let Ok(Outcome::Run(line)) = read(&SERVER, &["-config", "F"]) else { panic!("not taken") };
        assert_eq!(line.value("config"), Some(OsStr::new("F")));
        let Err(usage) = read(&SERVER, &[]) else { panic!("taken") };
        assert_eq!(usage.to_string(), "--config FILE is missing; see 'serve --help'");
        assert!(read(&SERVER, &["server"]).is_err());
    }

    #[test]
    fn only_paths_may_be_anything_but_utf_8() {
        let odd = || OsString::from_vec(b"\xff-x".to_vec());
        let joined = |flag: &str| [flag.as_bytes(), b"=\xff-x"].concat();
        let with = |words: &[&str], last: Vec<OsString>| {
            parse(&TOOL, "tool", words.iter().map(OsString::from).chain(last).collect())
        };
        for args in [vec!["--config".into(), odd()], vec![OsString::from_vec(joined("-config"))]] {
            let Ok(Outcome::Run(line)) = with(&["account", "list"], args) else { panic!("not taken") };
            assert_eq!(line.value("config"), Some(odd().as_os_str()));
            assert!(line.text("config").is_err());
        }
        let Ok(Outcome::Run(line)) = with(&["links"], vec![odd()]) else { panic!("not taken") };
        assert_eq!(line.arg("DIR"), Some(odd().as_os_str()));
        for args in [vec!["--username".into(), odd()], vec![OsString::from_vec(joined("--username"))]] {
            let Err(usage) = with(&["account", "create"], args) else { panic!("taken") };
            assert!(usage.to_string().starts_with("the value of --username isn't UTF-8;"), "{usage}");
        }
        for word in [odd(), OsString::from_vec(b"--\xff".to_vec()), OsString::from_vec(b"-\xff".to_vec())] {
            let Err(usage) = with(&["account", "list"], vec![word]) else { panic!("taken") };
            assert!(!usage.to_string().contains('\u{1b}'));
        }
        assert!(with(&[], vec![odd()]).is_err());
    }
}
