//! Help texts, made from the table of [`super::command`]. Plain text, at most [`WIDTH`] columns where words allow it.

use super::command::{Command, Flag, HELP, Role, VERSION, named};

/// Columns of a line of help.
const WIDTH: usize = 80;

/// Columns that names may take before their explanation moves to the next line.
const NAMES: usize = 24;

/// The help of one command. `called_as` is how the user has named the role.
pub fn of_command(role: &Role, command: &Command, called_as: &str) -> String {
    let name = named(called_as, command.name);
    let mut out = format!("{name} - {}\n\n", command.about);
    out.push_str(&usage(&name, role, command));
    for note in command.notes {
        out.push('\n');
        out.push_str(&wrapped(note, "", ""));
    }
    let args: Vec<_> = command.args.iter().map(|arg| (arg.shown(), arg.about.to_owned())).collect();
    section(&mut out, "Arguments", &args);
    let version = command.name.is_empty().then_some(&VERSION);
    section(&mut out, "Flags", &rows(command.flags.iter().chain([&HELP]).chain(version)));
    section(&mut out, "Flags of every command", &rows(command.common(role)));
    out.push_str(&example(command.example, called_as));
    out
}

/// The help of a role, or of those of its commands that begin with `words`.
pub fn of_role(role: &Role, words: &str, called_as: &str) -> String {
    if let Some(command) = role.only_command() {
        return of_command(role, command, called_as);
    }
    let name = named(called_as, words);
    let beginning = if words.is_empty() { String::new() } else { format!("{words} ") };
    let listed: Vec<_> = role.commands.iter().filter(|command| command.name.starts_with(&beginning)).collect();
    let about = if words.is_empty() { role.about } else { "one of the commands below" };
    let mut out = format!("{name} - {about}\n\nUsage: {name} COMMAND [FLAGS]\n");
    if words.is_empty() {
        let roles: Vec<_> =
            role.roles.iter().map(|role| (role.word.to_owned(), format!("{} ({})", role.about, role.name))).collect();
        section(&mut out, "Roles", &roles);
    }
    let commands: Vec<_> = listed.iter().map(|command| (command.name.to_owned(), command.about.to_owned())).collect();
    section(&mut out, "Commands", &commands);
    section(&mut out, "Flags", &rows(role.common.iter().chain([&HELP, &VERSION])));
    let line = if words.is_empty() { role.example } else { listed.first().map_or("", |command| command.example) };
    out.push_str(&example(line, called_as));
    out.push_str(&format!("\n'{name} COMMAND --help' says more about each.\n"));
    out
}

fn usage(name: &str, role: &Role, command: &Command) -> String {
    let mut words = vec![];
    for flag in command.common(role).chain(command.flags) {
        let bare = flag.shown();
        let more = if flag.repeatable { "..." } else { "" };
        words.push(if flag.required { format!("{bare}{more}") } else { format!("[{bare}]{more}") });
    }
    for arg in command.args {
        words.push(if arg.required { arg.shown() } else { format!("[{}]", arg.shown()) });
    }
    let first = format!("Usage: {name} ");
    let indent = " ".repeat(first.len());
    fill(words.iter().map(String::as_str), &first, &indent)
}

fn rows<'a>(flags: impl IntoIterator<Item = &'a Flag>) -> Vec<(String, String)> {
    let about = |flag: &Flag| match (flag.required, flag.repeatable) {
        (true, _) => format!("{} (required)", flag.about),
        (_, true) => format!("{} (may be repeated)", flag.about),
        _ => flag.about.to_owned(),
    };
    flags.into_iter().map(|flag| (flag.shown(), about(flag))).collect()
}

fn section(out: &mut String, title: &str, rows: &[(String, String)]) {
    if rows.is_empty() {
        return;
    }
    out.push_str(&format!("\n{title}:\n"));
    let column = rows.iter().map(|(name, _)| name.chars().count()).filter(|&w| w <= NAMES).max().unwrap_or(0);
    let indent = " ".repeat(column + 4);
    for (name, about) in rows {
        let first = if name.chars().count() <= column {
            format!("  {name:<column$}  ")
        } else {
            out.push_str(&format!("  {name}\n"));
            indent.clone()
        };
        out.push_str(&wrapped(about, &first, &indent));
    }
}

fn example(line: &str, called_as: &str) -> String {
    format!("\nExample:\n  {called_as} {line}\n")
}

fn wrapped(text: &str, first: &str, indent: &str) -> String {
    fill(text.split_whitespace(), first, indent)
}

/// Words in lines of at most [`WIDTH`] columns; a word that is longer has a line of its own.
fn fill<'a>(words: impl Iterator<Item = &'a str>, first: &str, indent: &str) -> String {
    let mut lines = vec![];
    let mut line = first.to_owned();
    let mut empty = true;
    for word in words {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, indent.to_owned()));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_filled_and_long_words_stand_alone() {
        let long = "x".repeat(100);
        let text = format!("{} {long} end", ["word"; 20].join(" "));
        let out = wrapped(&text, "  a  ", "     ");
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].starts_with("  a  word") && lines[0].len() <= WIDTH && lines[0].len() > WIDTH - 5);
        assert_eq!(lines[2], format!("     {long}"));
        assert_eq!(lines[3], "     end");
        assert_eq!(wrapped("", "Usage: tool ", ""), "Usage: tool\n");
    }
}
