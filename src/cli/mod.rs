//! The command lines: which role was called, and what was asked of it. Roles and commands are rows of a table.

pub mod cert;
pub mod command;
pub mod completions;
pub mod db;
pub mod dev;
pub mod given;
pub mod help;
pub mod init;
pub mod parse;
pub mod pki;
pub mod remote;
pub mod secrets;
pub mod server;
pub mod show;
pub mod signals;
pub mod term;

use std::ffi::{OsStr, OsString};
use std::path::Path;

use command::{Arg, Command, Flag, Role};
use parse::{Outcome, Parsed};
use serde_json::json;
use term::Failure;

/// The version: what the release was tagged with, else the crate's.
pub const VERSION: &str = match option_env!("MCIAS_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// The roles that can be called by their own name, or by a word after `mcias`.
pub static ROLES: &[&Role] = &[&server::ROLE, &remote::CTL, &remote::GRPCCTL, &db::ROLE];

/// What is called as `mcias`, or as anything else that is no role's name.
pub static MCIAS: Role = Role {
    name: "mcias",
    word: "",
    about: "identity and access for people who own their infrastructure",
    common: &[],
    commands: &[
        init::COMMAND,
        dev::COMMAND,
        cert::RENEW,
        LINKS,
        completions::COMMAND,
        Command {
            name: "version",
            about: "show the version",
            notes: &[],
            flags: &[Flag::switch("json", "as JSON, with the platform and the roles that are built in")],
            args: &[],
            example: "version --json",
            run: version,
        },
        Command {
            name: "help",
            about: "show the help of a role or command",
            notes: &[],
            flags: &[],
            args: &[Arg { name: "ROLE", about: "which; without it, mcias itself", required: false, choices: &[] }],
            example: "help server",
            run: help,
        },
    ],
    example: "init --dir /srv/mcias",
    roles: ROLES,
};

/// The command's row.
const LINKS: Command = Command {
    name: "links",
    about: "make a symlink for each role, to this executable",
    notes: &["Links that are there and point here stay; anything else of that name is refused and left alone."],
    flags: &[],
    args: &[Arg { name: "DIR", about: "where to make them", required: true, choices: &[] }],
    example: "links /usr/local/bin",
    run: links,
};

/// A role that was called, and what was said to it.
pub struct Call {
    role: &'static Role,
    /// How the user has named the role, e.g. `mcias server`.
    called_as: String,
    args: Vec<OsString>,
}

impl Call {
    /// Finds the role: by the whole basename of the first of `args`, else by the argument after it.
    pub fn find(args: impl IntoIterator<Item = OsString>) -> Self {
        let mut args = args.into_iter();
        let program = args.next().unwrap_or_default();
        let basename = Path::new(&program).file_name().unwrap_or(OsStr::new(MCIAS.name));
        if let Some(role) = ROLES.iter().find(|role| basename == role.name) {
            return Self { role, called_as: role.name.to_owned(), args: args.collect() };
        }
        let mut args = args.peekable();
        let word = args.peek().map(OsString::as_os_str);
        let named = ROLES.iter().find(|role| word == Some(OsStr::new(role.word)));
        match named {
            Some(role) => {
                Self { role, called_as: format!("{} {}", MCIAS.name, role.word), args: args.skip(1).collect() }
            }
            None => Self { role: &MCIAS, called_as: MCIAS.name.to_owned(), args: args.collect() },
        }
    }

    /// The name that its messages begin with.
    pub fn program(&self) -> &'static str {
        if self.called_as == self.role.name { self.role.name } else { MCIAS.name }
    }

    /// Does what was asked.
    ///
    /// # Errors
    /// What is to be said on standard error, and the exit code.
    pub fn run(self) -> Result<(), Failure> {
        match parse::parse(self.role, &self.called_as, self.args)? {
            Outcome::Run(parsed) => (parsed.command().run)(&parsed),
            Outcome::Help(text) => term::out(&text),
            Outcome::Version => term::out(&format!("{} {VERSION}\n", self.role.name)),
            Outcome::NoCommand(text) => {
                term::err(&text);
                Err(Failure::quiet(term::ASKED_WRONGLY))
            }
        }
    }
}

/// The platform, as in `x86_64-linux-musl`.
fn target() -> String {
    let environment = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    format!("{}-{}-{environment}", std::env::consts::ARCH, std::env::consts::OS)
}

fn version(parsed: &Parsed) -> Result<(), Failure> {
    if !parsed.switch("json") {
        return term::out(&format!("{} {VERSION}\n", MCIAS.name));
    }
    let roles: Vec<_> = ROLES.iter().map(|role| role.word).collect();
    let all = json!({ "name": MCIAS.name, "version": VERSION, "target": target(), "roles": roles });
    term::out(&format!("{all}\n"))
}

/// Makes the links that aren't there, or none.
fn links(parsed: &Parsed) -> Result<(), Failure> {
    let folder = Path::new(parsed.arg("DIR").unwrap_or_default());
    let at = |path: &Path, e: std::io::Error| Failure::new(format!("{}: {e}", path.display()));
    let executable = std::env::current_exe().map_err(|e| Failure::new(format!("where this executable is: {e}")))?;
    // All are looked at before the first is made.
    let mut missing = Vec::new();
    for role in ROLES {
        let link = folder.join(role.name);
        match link.read_link() {
            Ok(to) if to == executable => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => missing.push(link),
            Ok(_) => return Err(Failure::new(format!("{} is there already and links elsewhere", link.display()))),
            // Not a link.
            Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => {
                return Err(Failure::new(format!("{} is there already and no link", link.display())));
            }
            Err(e) => return Err(at(&link, e)),
        }
    }
    missing.iter().try_for_each(|link| std::os::unix::fs::symlink(&executable, link).map_err(|e| at(link, e)))
}

fn help(parsed: &Parsed) -> Result<(), Failure> {
    let Some(word) = parsed.arg("ROLE") else { return term::out(&help::of_role(&MCIAS, "", MCIAS.name)) };
    if let Some(role) = ROLES.iter().find(|role| word == role.word || word == role.name) {
        let called_as = if word == role.name { role.name.to_owned() } else { format!("{} {}", MCIAS.name, role.word) };
        return term::out(&help::of_role(role, "", &called_as));
    }
    match MCIAS.commands.iter().find(|command| word == command.name) {
        Some(command) => term::out(&help::of_command(&MCIAS, command, MCIAS.name)),
        None => Err(parsed.usage(format!("unknown role '{}'", term::escape(&word.to_string_lossy()))).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn call(args: &[&str]) -> (String, Vec<OsString>) {
        let call = Call::find(args.iter().map(OsString::from));
        assert_eq!(call.called_as.split(' ').next(), Some(call.program()));
        (call.called_as, call.args)
    }

    #[test]
    fn the_role_is_the_whole_basename_or_else_the_first_argument() {
        for (args, called_as) in [
            (["mciassrv", "-config", "F"].as_slice(), "mciassrv"),
            (&["/opt/bin/mciassrv"], "mciassrv"),
            (&["./mciassrv", "server"], "mciassrv"),
            (&["mcias", "server", "-config", "F"], "mcias server"),
            (&["/opt/mcias-0.1.0", "server"], "mcias server"),
            (&["xmciassrv", "server"], "mcias server"),
            (&["mciassrv2"], "mcias"),
            (&["xmciassrv"], "mcias"),
            (&["server"], "mcias"),
            (&["mcias", "mciassrv"], "mcias"),
            (&["mcias", "servers"], "mcias"),
            (&["mcias", "--config", "F", "server"], "mcias"),
            (&["mcias"], "mcias"),
            (&[""], "mcias"),
            (&[], "mcias"),
        ] {
            assert_eq!(call(args).0, called_as, "{args:?}");
        }
        assert_eq!(call(&["mciassrv", "-config", "F"]).1, ["-config", "F"]);
        assert_eq!(call(&["mcias", "server", "-config", "F"]).1, ["-config", "F"]);
        assert_eq!(call(&["mcias", "init", "server"]).1, ["init", "server"]);
    }

    #[test]
    fn every_table_is_sound() {
        let mut names = HashSet::new();
        for role in ROLES.iter().copied().chain([&MCIAS]) {
            assert!(names.insert(role.name) && names.insert(role.word), "{} is there twice", role.name);
            assert!(!role.about.is_empty());
            sound(role, role.example, "");
            let unnamed = role.commands.iter().filter(|command| command.name.is_empty()).count();
            assert_eq!(unnamed, usize::from(role.only_command().is_some()), "{}", role.name);
            for command in role.commands {
                let name = format!("{} {}", role.name, command.name);
                assert!(!command.about.is_empty(), "{name}");
                sound(role, command.example, command.name);
                let beginning = format!("{} ", command.name);
                let longer = |other: &&Command| other.name.starts_with(&beginning);
                assert_eq!(role.commands.iter().filter(longer).count(), 0, "{name} is the beginning of another");
                assert_eq!(role.commands.iter().filter(|other| other.name == command.name).count(), 1, "{name}");
                let mut flags = HashSet::from(["help", "version"]);
                for flag in command.common(role).chain(command.flags) {
                    assert!(flags.insert(flag.name), "{name} has --{} twice", flag.name);
                    assert!(!flag.about.is_empty() && !matches!(flag.name, "" | "h"), "{name} --{}", flag.name);
                    assert!(flag.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{name} --{}", flag.name);
                    assert!(flag.value.is_some() || (flag.choices.is_empty() && !flag.required), "--{}", flag.name);
                }
                assert!(command.args.iter().all(|arg| !arg.about.is_empty()), "{name}");
                assert!(command.args.is_sorted_by_key(|arg| !arg.required), "{name}: what may be left out comes last");
            }
        }
        assert!(MCIAS.commands.iter().all(|command| ROLES.iter().all(|role| role.word != command.name)));
    }

    /// An example is a line that works: it asks for the command it stands at.
    fn sound(role: &'static Role, example: &str, command: &str) {
        match parse::parse(role, role.name, example.split(' ').map(OsString::from).collect()) {
            Ok(Outcome::Run(parsed)) => {
                assert!(command.is_empty() || parsed.command().name == command, "{example}");
            }
            Ok(_) => panic!("{example} is no command"),
            Err(usage) => panic!("{example}: {usage}"),
        }
    }

    #[test]
    fn help_fits_eighty_columns() {
        for role in ROLES.iter().copied().chain([&MCIAS]) {
            let pages = role.commands.iter().map(|command| help::of_command(role, command, role.name));
            for page in pages.chain([help::of_role(role, "", role.name)]) {
                for line in page.lines() {
                    assert!(line.chars().count() <= 80 && line.trim_end() == line, "{line}");
                }
            }
        }
    }
}
