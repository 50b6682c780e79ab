//! The manual pages: what `man/*.in` say in prose, with the commands and flags of the table, and the keys of
//! `dist/mcias.conf.example`, put in. Fails where a page is stale; `UPDATE_GOLDEN=1` makes them again. Every line of
//! their examples that calls a role is one that its parser takes.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use mcias::cli::command::{Command, Flag, HELP, Role, VERSION, named};
use mcias::cli::parse::{self, Outcome};
use mcias::cli::{MCIAS, ROLES};

#[path = "../src/testing.rs"]
mod testing;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn roles() -> impl Iterator<Item = &'static Role> {
    ROLES.iter().copied().chain([&MCIAS])
}

#[test]
fn pages_are_what_the_table_and_the_prose_make_of_them() {
    for role in roles() {
        let name = format!("man/{}.1", role.name);
        golden(&name, &page(&name, |word| of_role(role, word)));
    }
    golden("man/mcias.conf.5", &page("man/mcias.conf.5", |word| (word == "KEYS").then(keys)));
}

/// The prose, with each line `@WORD@` replaced.
fn page(name: &str, generated: impl Fn(&str) -> Option<String>) -> String {
    let mut out = format!(".\\\" Made by tests/man.rs from {name}.in; UPDATE_GOLDEN=1 makes it again.\n");
    for line in read(&format!("{name}.in")).lines() {
        match line.strip_prefix('@').and_then(|rest| rest.strip_suffix('@')) {
            Some(word) => out.push_str(&generated(word).unwrap_or_else(|| panic!("{name}.in: {line} means nothing"))),
            None => writeln!(out, "{line}").unwrap(),
        }
    }
    out
}

fn golden(name: &str, page: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(root(name), page).unwrap();
    }
    let there = std::fs::read_to_string(root(name)).unwrap_or_default();
    assert!(there == page, "{name} is stale: UPDATE_GOLDEN=1 cargo test --test man makes it again");
}

fn of_role(role: &Role, word: &str) -> Option<String> {
    let mut out = String::new();
    match word {
        "SYNOPSIS" => {
            out.push_str(".Nm\n");
            match role.only_command() {
                Some(command) => {
                    for flag in command.flags {
                        writeln!(out, "{}", synopsis_of(flag)).unwrap();
                    }
                }
                None => {
                    for flag in role.common {
                        writeln!(out, "{}", synopsis_of(flag)).unwrap();
                    }
                    out.push_str(".Ar command\n.Op Ar flags\n");
                }
            }
        }
        "ROLES" => {
            out.push_str(".Bl -tag -width Ds\n");
            for role in ROLES {
                writeln!(out, ".It Ic {} Pq Xr {} 1", role.word, role.name).unwrap();
                out.push_str(&text(&sentence(role.about)));
            }
            out.push_str(".El\n");
        }
        "COMMANDS" => {
            out.push_str(".Bl -tag -width Ds\n");
            for command in role.commands {
                out.push_str(&of_command(command));
            }
            out.push_str(".El\n");
        }
        "FLAGS" => {
            let own = role.only_command().map_or(&[][..], |command| command.flags);
            out.push_str(&flags(role.common.iter().chain(own).chain([&HELP, &VERSION])));
        }
        _ => return None,
    }
    Some(out)
}

fn of_command(command: &Command) -> String {
    let mut out = format!(".It Ic {}", command.name);
    for flag in command.flags {
        write!(out, " {}", macros_of(flag)).unwrap();
    }
    for arg in command.args {
        let shown = if arg.choices.is_empty() { format!("Ar {}", arg.name) } else { format!("Cm {}", arg.shown()) };
        write!(out, " {}", if arg.required { shown } else { format!("Op {shown}") }).unwrap();
    }
    out.push('\n');
    out.push_str(&text(&sentence(command.about)));
    for note in command.notes {
        out.push_str(&text(note));
    }
    if !command.flags.is_empty() || !command.args.is_empty() {
        out.push_str(".Pp\n.Bl -tag -width Ds -compact\n");
        for flag in command.flags {
            out.push_str(&of_flag(flag));
        }
        for arg in command.args {
            let shown = if arg.choices.is_empty() { format!("Ar {}", arg.name) } else { format!("Cm {}", arg.shown()) };
            write!(out, ".It {shown}\n{}", text(&sentence(arg.about))).unwrap();
        }
        out.push_str(".El\n");
    }
    out
}

fn flags<'a>(flags: impl Iterator<Item = &'a Flag>) -> String {
    let items: String = flags.map(of_flag).collect();
    format!(".Bl -tag -width Ds\n{items}.El\n")
}

fn of_flag(flag: &Flag) -> String {
    let more = match (flag.required, flag.repeatable) {
        (true, _) => " (required)",
        (_, true) => " (may be repeated)",
        _ => "",
    };
    format!(".It {}\n{}", bare(flag), text(&sentence(&format!("{}{more}", flag.about))))
}

/// A flag as the words of a macro line: `Fl -type Cm human|system`.
fn bare(flag: &Flag) -> String {
    match flag.value {
        None => format!("Fl -{}", flag.name),
        Some(value) if flag.choices.is_empty() => format!("Fl -{} Ar {value}", flag.name),
        Some(_) => format!("Fl -{} Cm {}", flag.name, flag.choices.join("|")),
    }
}

/// The same within a line, in brackets where it may be left out.
fn macros_of(flag: &Flag) -> String {
    let more = if flag.repeatable { " ..." } else { "" };
    if flag.required { bare(flag) } else { format!("Oo {}{more} Oc", bare(flag)) }
}

/// The same as a line of its own.
fn synopsis_of(flag: &Flag) -> String {
    let more = if flag.repeatable { " ..." } else { "" };
    if flag.required { format!(".{}", bare(flag)) } else { format!(".Op {}{more}", bare(flag)) }
}

/// What an explanation of the table becomes in running text.
fn sentence(about: &str) -> String {
    let mut letters = about.chars();
    // A word that is a name or a literal stays as it is.
    let plain =
        about.split([' ', ',', ';', ':']).next().is_some_and(|word| word.bytes().all(|b| b.is_ascii_lowercase()));
    let first = letters.next().map(|c| if plain { c.to_ascii_uppercase() } else { c });
    let end = if about.ends_with(['.', ':']) { "" } else { "." };
    first.into_iter().chain(letters).chain(end.chars()).collect()
}

/// Text as mdoc has it: a new line for each sentence, and nothing in it that roff takes for its own.
fn text(text: &str) -> String {
    let mut out = String::new();
    for sentence in text.split_inclusive(". ") {
        let mut line = sentence.trim().replace('\\', "\\e");
        // What is quoted is meant letter by letter.
        while let Some((before, rest)) = line.split_once('`') {
            let Some((quoted, after)) = rest.split_once('`') else { break };
            line = format!("{before}\\(oq{quoted}\\(cq{after}");
        }
        for dashes in ["(--", " --", "'--", "q--"] {
            line = line.replace(dashes, &dashes.replace('-', "\\-"));
        }
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        writeln!(out, "{guard}{line}").unwrap();
    }
    out
}

/// The keys of the configuration, as the example explains them.
fn keys() -> String {
    let mut out = String::new();
    let (mut comment, mut in_list) = (Vec::new(), false);
    for line in read("dist/mcias.conf.example").lines().skip_while(|line| !line.starts_with('[')) {
        if let Some(words) = line.strip_prefix("# ") {
            comment.push(words);
        } else if let Some(section) = line.strip_prefix('[') {
            out.push_str(if in_list { ".El\n" } else { "" });
            writeln!(out, ".Ss Section {}", section.trim_end_matches(']')).unwrap();
            in_list = false;
        } else if let Some((key, value)) = line.trim_start_matches('#').split_once(" = ") {
            if !in_list {
                out.push_str(".Bl -tag -width Ds\n");
                in_list = true;
            }
            writeln!(out, ".It Ic {key} = {}", value.replace('"', "\\(dq")).unwrap();
            out.push_str(&text(&comment.join(" ")));
            comment.clear();
        } else if !comment.is_empty() {
            // About the section as a whole, if a key's hasn't taken it.
            out.push_str(&text(&comment.join(" ")));
            comment.clear();
        }
    }
    out + ".El\n"
}

#[test]
fn every_role_has_a_page_and_every_page_is_packed_with_its_name() {
    let install = read("install.sh");
    let image = read("ship/image");
    let docker = read("Dockerfile");
    for role in ROLES {
        assert!(root(&format!("man/{}.1", role.name)).exists(), "{}", role.name);
        for (file, text) in [("install.sh", &install), ("ship/image", &image), ("Dockerfile", &docker)] {
            assert!(text.contains(role.name), "{file} makes no link {}", role.name);
        }
    }
}

#[test]
fn every_example_is_a_line_that_is_taken() {
    let mut seen = 0;
    for role in roles() {
        let page = read(&format!("man/{}.1", role.name));
        for line in page.lines() {
            let line = line.strip_prefix(".Dl ").unwrap_or(line).replace("\\-", "-");
            let Some(args) = line.strip_prefix("$ ") else { continue };
            let args = args.split(" | ").last().unwrap_or_default();
            let args: Vec<_> = args.split(' ').take_while(|word| !word.starts_with(['<', '>', '|'])).collect();
            let called = args.first().copied().unwrap_or_default();
            let Some(role) = roles().find(|role| role.name == called) else { continue };
            let rest: Vec<_> = args[1..].iter().map(OsString::from).collect();
            // `mcias server …` is another role's.
            let by_word = (role.word.is_empty()).then(|| ROLES.iter().find(|other| args.get(1) == Some(&other.word)));
            let (role, rest) = match by_word.flatten() {
                Some(other) => (*other, rest[1..].to_vec()),
                None => (role, rest),
            };
            match parse::parse(role, &named(role.name, ""), rest) {
                Ok(Outcome::Run(_)) => seen += 1,
                Ok(_) => panic!("{line} is no command"),
                Err(usage) => panic!("{line}: {usage}"),
            }
        }
    }
    assert!(seen > 20, "only {seen}: this test no longer reads the pages right");
}

#[test]
fn mandoc_finds_nothing_to_warn_of() {
    let mut pages: Vec<_> = std::fs::read_dir(root("man")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.retain(|path| path.extension().is_some_and(|end| end == "1" || end == "5"));
    assert!(pages.len() >= 5);
    match Process::new("mandoc").args(["-T", "lint", "-W", "warning"]).args(&pages).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.is_empty(), "{said}");
        }
        Err(_) => testing::not_run("mandoc_finds_nothing_to_warn_of", "there is no mandoc"),
    }
}
