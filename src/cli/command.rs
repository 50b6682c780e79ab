//! The shape of the table of commands. The parser, the help, and whatever else describes a command line (completions,
//! manual pages) come from it; what a command does is behind its `run`.

use super::parse::Parsed;
use super::term::Failure;

/// A program as its user sees it: one name, its flags and its commands.
pub struct Role {
    /// The whole basename it is called by, e.g. `mciassrv`.
    pub name: &'static str,
    /// The first argument of `mcias` that means it, e.g. `server`.
    pub word: &'static str,
    /// What it is, in a phrase.
    pub about: &'static str,
    /// Flags of every command; they may stand before or after it.
    pub common: &'static [Flag],
    /// Its commands; a role that is one command has a single row, without a name.
    pub commands: &'static [Command],
    /// One line that works, without the role's name before it.
    pub example: &'static str,
    /// The roles that its first argument may name instead of a command.
    pub roles: &'static [&'static Role],
}

/// One row: a command, what may be said to it, and what it does.
pub struct Command {
    /// Its words, e.g. `account create`; empty for a role's only command.
    pub name: &'static str,
    /// What it does, in a phrase.
    pub about: &'static str,
    /// What else has to be known, a paragraph each.
    pub notes: &'static [&'static str],
    /// Its own flags. One that has the name of a common flag stands in its place.
    pub flags: &'static [Flag],
    /// What it takes besides flags, in order; those that must be given come first.
    pub args: &'static [Arg],
    /// One line that works, without the role's name before it.
    pub example: &'static str,
    /// Acts on what the parser has found valid.
    pub run: fn(&Parsed) -> Result<(), Failure>,
}

/// A long flag.
#[derive(Clone, Copy)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// What its value is called in the help; none for a switch. [`PATHS`] mean a path.
    pub value: Option<&'static str>,
    /// What it is for, in a phrase.
    pub about: &'static str,
    /// Whether the command makes no sense without it.
    pub required: bool,
    /// Whether it may be given more than once.
    pub repeatable: bool,
    /// The only values it takes; empty: any.
    pub choices: &'static [&'static str],
}

/// Something that is given by its place.
#[derive(Clone, Copy)]
pub struct Arg {
    /// What it is called in the help. [`PATHS`] mean a path.
    pub name: &'static str,
    /// What it is for, in a phrase.
    pub about: &'static str,
    /// Whether the command makes no sense without it.
    pub required: bool,
    /// The only values it takes; empty: any.
    pub choices: &'static [&'static str],
}

/// Values of these names are paths: they are kept as they came, text or not.
const PATHS: [&str; 2] = ["FILE", "DIR"];

/// What every command line understands, besides what is in its table.
pub const HELP: Flag = Flag::switch("help", "show this help");
/// See [`HELP`]; shown once for a role.
pub const VERSION: Flag = Flag::switch("version", "show the version");

impl Flag {
    /// A flag without a value.
    pub const fn switch(name: &'static str, about: &'static str) -> Self {
        Self { name, value: None, about, required: false, repeatable: false, choices: &[] }
    }

    /// A flag with a value.
    pub const fn value(name: &'static str, value: &'static str, about: &'static str) -> Self {
        Self { value: Some(value), ..Self::switch(name, about) }
    }

    /// The same, and the command makes no sense without it.
    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// The same, and it may be given more than once.
    pub const fn repeatable(self) -> Self {
        Self { repeatable: true, ..self }
    }

    /// The same, and it takes only these values.
    pub const fn one_of(self, choices: &'static [&'static str]) -> Self {
        Self { choices, ..self }
    }

    /// With its dashes and the name of its value: `--dir DIR`, `--type human|system`, `--yes`.
    pub fn shown(&self) -> String {
        match self.value {
            Some(value) => format!("--{} {}", self.name, shown_value(value, self.choices)),
            None => format!("--{}", self.name),
        }
    }

    /// Whether the value may be anything the system can name a file by.
    pub fn takes_path(&self) -> bool {
        self.value.is_some_and(|value| PATHS.contains(&value))
    }
}

impl Arg {
    /// Its name, or what it may be: `DIR`, `bash|zsh|fish`.
    pub fn shown(&self) -> String {
        shown_value(self.name, self.choices)
    }

    /// Whether it may be anything the system can name a file by.
    pub fn takes_path(&self) -> bool {
        PATHS.contains(&self.name)
    }
}

impl Command {
    /// Those of the role's common flags that it hasn't one of its own for.
    pub fn common(&self, role: &Role) -> impl Iterator<Item = &'static Flag> {
        role.common.iter().filter(|flag| self.flags.iter().all(|own| own.name != flag.name))
    }
}

impl Role {
    /// The command of a role that has only one, without a name.
    pub fn only_command(&self) -> Option<&'static Command> {
        match self.commands {
            [command] if command.name.is_empty() => Some(command),
            _ => None,
        }
    }

    /// Whether any command of the role has a flag of that name; a question after one that none has is a slip of ours.
    pub fn has_flag(&self, name: &str) -> bool {
        let own = self.commands.iter().flat_map(|command| command.flags);
        self.common.iter().chain(own).any(|flag| flag.name == name)
    }
}

fn shown_value(name: &str, choices: &[&str]) -> String {
    if choices.is_empty() { name.to_owned() } else { choices.join("|") }
}

/// Words after words, without a space at either end.
pub fn named(before: &str, after: &str) -> String {
    format!("{before} {after}").trim().to_owned()
}
