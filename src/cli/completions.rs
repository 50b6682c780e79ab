//! `mcias completions`: what a shell needs to complete the command lines, made from the table of
//! [`super::command`]. One list for all shells, keyed by what has been typed, and a few lines of each shell's own that
//! look things up in it.
//!
//! | key | what is listed |
//! |---|---|
//! | `mciasctl account` | the words that may come next, or what the next argument may be |
//! | `mciasctl account create -` | the flags |
//! | `mciasctl account create --type` | the values; `FILE` and `DIR` alone mean paths |
//! | `mciasctl --type` | nothing, but it is there: the flag takes a value |

use std::collections::{BTreeMap, BTreeSet};

use super::command::{Arg, Command, Flag, HELP, Role, VERSION, named};
use super::parse::Parsed;
use super::term::{self, Failure};
use super::{MCIAS, ROLES};

const SHELLS: &[&str] = &["bash", "zsh", "fish"];

/// The command's row.
pub const COMMAND: Command = Command {
    name: "completions",
    about: "print what a shell needs to complete commands and flags",
    notes: &[
        "bash: source <(mcias completions bash), or to a file in /etc/bash_completion.d. zsh: to a file _mcias in a \
         folder of $fpath. fish: to ~/.config/fish/completions/mcias.fish, sourced in config.fish for the other names.",
    ],
    flags: &[],
    args: &[Arg { name: "SHELL", about: "for which shell", required: true, choices: SHELLS }],
    example: "completions bash",
    run,
};

fn run(parsed: &Parsed) -> Result<(), Failure> {
    let shell = parsed.arg("SHELL").and_then(|shell| shell.to_str()).unwrap_or_default();
    term::out(&script(shell))
}

/// A word and what it is for.
type Entry = (String, String);

/// Every key with its entries.
fn lists() -> BTreeMap<String, Vec<Entry>> {
    let mut lists = BTreeMap::new();
    for role in ROLES.iter().copied().chain([&MCIAS]) {
        let flags = role.common.iter().chain([&HELP, &VERSION]);
        lists.insert(format!("{} -", role.name), flags.map(of_flag).collect());
        for command in role.commands {
            add_words(&mut lists, role, command.name);
            let key = named(role.name, command.name);
            if let Some(arg) = command.args.first() {
                lists.insert(key.clone(), values(arg.choices, arg.name, arg.takes_path()));
            }
            let flags: Vec<&Flag> = command.flags.iter().chain(command.common(role)).collect();
            lists.insert(format!("{key} -"), flags.iter().copied().chain([&HELP]).map(of_flag).collect());
            for flag in flags {
                let Some(value) = flag.value else { continue };
                lists.insert(format!("{} --{}", role.name, flag.name), Vec::new());
                lists.insert(format!("{key} --{}", flag.name), values(flag.choices, value, flag.takes_path()));
            }
        }
        // Before the command is known.
        for flag in role.common {
            let Some(value) = flag.value else { continue };
            lists.insert(format!("{} --{}", role.name, flag.name), values(flag.choices, value, flag.takes_path()));
        }
    }
    let roles = ROLES.iter().map(|role| (role.word.to_owned(), role.about.to_owned()));
    lists.entry(MCIAS.name.to_owned()).or_default().extend(roles);
    lists.insert(
        format!("{} help", MCIAS.name),
        ROLES
            .iter()
            .map(|role| (role.word, role.about))
            .chain(
                MCIAS
                    .commands
                    .iter()
                    .map(|command| (command.name.split(' ').next().unwrap_or_default(), command.about)),
            )
            .map(|(word, about)| (word.to_owned(), about.to_owned()))
            .collect(),
    );
    lists
}

/// Adds each word of a command's name after those before it.
fn add_words(lists: &mut BTreeMap<String, Vec<Entry>>, role: &Role, name: &str) {
    let mut before = role.name.to_owned();
    for word in name.split(' ').filter(|word| !word.is_empty()) {
        let so_far = named(&before, word);
        let typed = so_far.strip_prefix(role.name).unwrap_or_default().trim_start();
        let about = match role.commands.iter().find(|command| command.name == typed) {
            Some(command) => command.about.to_owned(),
            None => format!("{word} …"),
        };
        let list = lists.entry(before).or_default();
        if list.iter().all(|(known, _)| known != word) {
            list.push((word.to_owned(), about));
        }
        before = so_far;
    }
}

fn of_flag(flag: &Flag) -> Entry {
    (format!("--{}", flag.name), flag.about.to_owned())
}

fn values(choices: &[&str], name: &str, is_path: bool) -> Vec<Entry> {
    if is_path {
        return vec![(name.to_owned(), String::new())];
    }
    choices.iter().map(|choice| ((*choice).to_owned(), String::new())).collect()
}

fn script(shell: &str) -> String {
    let names: BTreeSet<&str> = ROLES.iter().copied().chain([&MCIAS]).map(|role| role.name).collect();
    let names: Vec<&str> = names.into_iter().collect();
    match shell {
        // Found in a folder of $fpath it is called; sourced, it makes itself known.
        "zsh" => {
            let names = names.join(" ");
            let call = "if [[ ${funcstack[1]-} == _mcias ]]; then _mcias \"$@\"";
            let known = format!("elif (( $+functions[compdef] )); then compdef _mcias {names}; fi");
            format!("#compdef {names}\n\n{}{}{ZSH}\n{call}; {known}\n", posix_table(), roles_of_words())
        }
        "fish" => {
            let complete = |name: &&str| format!("complete -c {name} -f -a '(__mcias_complete)'\n");
            format!("{}{}{}", fish_table(), FISH, names.iter().map(complete).collect::<String>())
        }
        _ => format!("{}{}{}complete -F _mcias {}\n", posix_table(), roles_of_words(), BASH, names.join(" ")),
    }
}

/// The list as a function that bash and zsh read alike; it fails for a key that isn't there.
fn posix_table() -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut out = "_mcias_list() {\n    case $1 in\n".to_owned();
    for (key, entries) in lists() {
        out.push_str(&format!("        {})", quoted(&key)));
        if entries.is_empty() {
            out.push_str(" ;;\n");
            continue;
        }
        out.push_str(" printf '%s\\t%s\\n'");
        for (word, about) in entries {
            out.push_str(&format!(" \\\n            {} {}", quoted(&word), quoted(&about)));
        }
        out.push_str(" ;;\n");
    }
    out.push_str("        *) return 1 ;;\n    esac\n}\n\n");
    out
}

/// Which role `mcias` is when its first argument is this.
fn roles_of_words() -> String {
    let mut out = "_mcias_role() {\n    case $1 in\n".to_owned();
    for role in ROLES {
        out.push_str(&format!("        {}) echo {} ;;\n", role.word, role.name));
    }
    out.push_str("        *) return 1 ;;\n    esac\n}\n\n");
    out
}

fn fish_table() -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"));
    let mut out = "function __mcias_list\n    switch $argv[1]\n".to_owned();
    for (key, entries) in lists() {
        out.push_str(&format!("        case {}\n", quoted(&key)));
        if entries.is_empty() {
            out.push_str("            true\n");
            continue;
        }
        out.push_str("            printf '%s\\t%s\\n'");
        for (word, about) in entries {
            out.push_str(&format!(" \\\n                {} {}", quoted(&word), quoted(&about)));
        }
        out.push('\n');
    }
    out.push_str("        case '*'\n            return 1\n    end\nend\n\n");
    out.push_str("function __mcias_role\n    switch $argv[1]\n");
    for role in ROLES {
        out.push_str(&format!("        case {}\n            echo {}\n", role.word, role.name));
    }
    out.push_str("        case '*'\n            return 1\n    end\nend\n\n");
    out
}

/// Bash cuts words at `=`, so that a joined value comes as three.
const BASH: &str = r#"_mcias() {
    local current=${COMP_WORDS[COMP_CWORD]} role=${COMP_WORDS[0]##*/} at=1 line= value= word found
    if [ "$role" = mcias ] && [ "$COMP_CWORD" -gt 1 ] && _mcias_role "${COMP_WORDS[1]}" >/dev/null; then
        role=$(_mcias_role "${COMP_WORDS[1]}")
        at=2
    fi
    while [ "$at" -lt "$COMP_CWORD" ]; do
        word=${COMP_WORDS[at]}
        case $word in
            -*)
                word=${word#-}
                word=--${word#-}
                if _mcias_list "$role $word" >/dev/null; then
                    at=$((at + 1))
                    [ "${COMP_WORDS[at]}" != = ] || { [ "$at" -ge "$COMP_CWORD" ] && current= || at=$((at + 1)); }
                    [ "$at" -lt "$COMP_CWORD" ] || value=$word
                fi
                ;;
            *) line="$line $word" ;;
        esac
        at=$((at + 1))
    done
    COMPREPLY=()
    if [ -n "$value" ]; then
        found=$(_mcias_list "$role$line $value" || _mcias_list "$role $value")
    elif [ "${current#-}" != "$current" ]; then
        current=${current#-}
        current=--${current#-}
        found=$(_mcias_list "$role$line -" || _mcias_list "$role -")
    else
        found=$(_mcias_list "$role$line")
    fi
    case $found in
        FILE$'\t'*) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        DIR$'\t'*) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
        ?*) mapfile -t COMPREPLY < <(compgen -W "$(printf '%s\n' "$found" | cut -f 1)" -- "$current") ;;
    esac
}
"#;

const ZSH: &str = r#"_mcias() {
    local role=${words[1]:t} line= value= word about found
    local -i at=2
    local -a entries
    if [[ $role == mcias && $CURRENT -gt 2 ]] && _mcias_role "$words[2]" >/dev/null; then
        role=$(_mcias_role "$words[2]")
        at=3
    fi
    while (( at < CURRENT )); do
        word=$words[at]
        case $word in
            (-*=*) ;;
            (-*)
                word=--${${word#-}#-}
                if _mcias_list "$role $word" >/dev/null; then
                    (( at += 1 ))
                    (( at < CURRENT )) || value=$word
                fi
                ;;
            (*) line="$line $word" ;;
        esac
        (( at += 1 ))
    done
    if [[ -z $value && $words[CURRENT] == -*=* ]]; then
        value=--${${${words[CURRENT]%%=*}#-}#-}
        compset -P '*='
    fi
    if [[ -n $value ]]; then
        found=$(_mcias_list "$role$line $value" || _mcias_list "$role $value")
    elif [[ $words[CURRENT] == -* ]]; then
        found=$(_mcias_list "$role$line -" || _mcias_list "$role -")
    else
        found=$(_mcias_list "$role$line")
    fi
    case $found in
        (FILE$'\t'*) _files ;;
        (DIR$'\t'*) _files -/ ;;
        (?*)
            while IFS=$'\t' read -r word about; do
                entries+=("${word//:/\\:}${about:+:$about}")
            done <<<"$found"
            _describe -t words word entries
            ;;
    esac
}
"#;

const FISH: &str = r#"function __mcias_complete
    set -l tokens (commandline -opc)
    set -l current (commandline -ct)
    set -l role (string replace -r '.*/' '' -- $tokens[1])
    set -l at 2
    set -l line ''
    set -l value ''
    if test "$role" = mcias; and set -l called (__mcias_role "$tokens[2]")
        set role $called
        set at 3
    end
    while test $at -le (count $tokens)
        set -l word $tokens[$at]
        if string match -q -- '-*=*' $word
            true
        else if string match -q -- '-*' $word
            set word (string replace -r -- '^--?' '--' $word)
            if __mcias_list "$role $word" >/dev/null
                set at (math $at + 1)
                test $at -le (count $tokens); or set value $word
            end
        else
            set line "$line $word"
        end
        set at (math $at + 1)
    end
    set -l before ''
    if test -z "$value"; and string match -q -- '-*=*' $current
        set before (string replace -r -- '=.*' '=' $current)
        set value (string replace -r -- '^--?' '--' (string replace -r -- '=.*' '' $current))
        set current (string replace -r -- '^[^=]*=' '' $current)
    end
    set -l found
    if test -n "$value"
        set found (__mcias_list "$role$line $value"; or __mcias_list "$role $value")
    else if string match -q -- '-*' $current
        set found (__mcias_list "$role$line -"; or __mcias_list "$role -")
    else
        set found (__mcias_list "$role$line")
    end
    if string match -q -r -- '^(FILE|DIR)\t' $found[1]
        __fish_complete_path $current | string replace -r -- '^' "$before"
    else
        string join \n -- $before$found
    end
end

"#;

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Lines of commands, and words that must, and must not, be offered for the last of them.
    const LINES: &[(&[&str], &[&str], &[&str])] = &[
        (&["mciasctl", ""], &["account", "login", "token"], &["create", "--server", "server"]),
        (&["mciasctl", "acc"], &["account"], &["login"]),
        (&["mciasctl", "account", ""], &["create", "list", "set-password"], &["account", "grant"]),
        (
            &["mciasctl", "account", "create", "--"],
            &["--username", "--type", "--server", "--json", "--help"],
            &["--id"],
        ),
        (&["mciasctl", "account", "create", "--type", ""], &["human", "system"], &["account", "--type"]),
        (&["mciasctl", "--server", "account", "role", ""], &["list", "grant"], &["account"]),
        (&["mciasctl", "-timeout", "5s", "audit", ""], &["list"], &["5s"]),
        (&["mcias", ""], &["init", "server", "ctl", "db", "help", "version"], &["account"]),
        (&["mcias", "ctl", "totp", ""], &["enroll", "confirm", "remove"], &["ctl"]),
        (&["mcias", "completions", ""], &["bash", "zsh", "fish"], &["--help"]),
        (&["mcias", "help", ""], &["server", "ctl", "db", "init", "cert"], &["account", "--help"]),
        (&["/usr/bin/mciasdb", "--config", "F", "token", "r"], &["revoke", "revoke-all"], &["list"]),
        (&["mciassrv", "--"], &["--config", "--healthcheck"], &["--json"]),
        (&["mcias", "init", "--dir", "/proc/self/f"], &["/proc/self/fd"], &["/proc/self/environ"]),
        (&["mciasdb", "--config", "/proc/self/env"], &["/proc/self/environ"], &[]),
    ];

    /// What a shell offers for each line; `ask` makes the lines of script that print it, one word a line, with what
    /// follows a tab left out.
    fn offers(shell: &str, arguments: &[&str], ask: impl Fn(&[&str]) -> String) -> Option<Vec<Vec<String>>> {
        let mut text = script(shell);
        for (words, ..) in LINES {
            text.push_str(&ask(words));
            text.push_str("\necho '==='\n");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let output = Command::new(shell).args(arguments).arg(file.path()).stdin(Stdio::null()).output();
        let Ok(output) = output else {
            crate::testing::not_run(&format!("completions for {shell}"), &format!("there is no {shell}"));
            return None;
        };
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{shell}: {errors}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        let word = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
        let mut offered: Vec<Vec<_>> = stdout.split("===\n").map(|part| part.lines().map(word).collect()).collect();
        offered.pop();
        Some(offered)
    }

    fn holds(shell: &str, offered: Option<Vec<Vec<String>>>) {
        for ((words, wanted, not), offered) in LINES.iter().zip(offered.iter().flatten()) {
            for word in *wanted {
                assert!(offered.iter().any(|o| o == word), "{shell}: {words:?} lacks {word}: {offered:?}");
            }
            for word in *not {
                assert!(offered.iter().all(|o| o != word), "{shell}: {words:?} has {word}: {offered:?}");
            }
        }
        assert!(offered.is_none_or(|offered| offered.len() == LINES.len()));
    }

    fn quoted(words: &[&str]) -> String {
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn bash_completes() {
        let ask = |words: &[&str]| {
            let last = words.len() - 1;
            format!("COMP_WORDS=({}) COMP_CWORD={last}; _mcias; printf '%s\\n' \"${{COMPREPLY[@]}}\"", quoted(words))
        };
        holds("bash", offers("bash", &["--norc"], ask));
    }

    #[test]
    fn zsh_completes() {
        // What zsh's own functions would be called with; a word that isn't a beginning of it is filtered by them.
        let ask = |words: &[&str]| {
            let (last, place) = (words[words.len() - 1], words.len());
            format!(
                "_describe() {{ local e; for e in $entries; do e=${{e%%:*}}; [[ $e != {last}* ]] || print -r -- $e; done }}
                _files() {{ [[ $1 == -/ ]] && print -rl -- {last}*(/N) || print -rl -- {last}*(N) }}
                compset() {{ : }}
                words=({}); CURRENT={place}; _mcias",
                quoted(words)
            )
        };
        // `/proc/self/fd` is a link's folder in zsh's eyes, too.
        holds("zsh", offers("zsh", &["-f"], ask));
    }

    #[test]
    fn fish_completes() {
        let ask = |words: &[&str]| format!("complete -C \"{}\"", words.join(" "));
        let offered = offers("fish", &["--no-config"], ask);
        // It writes a folder with a stroke.
        let plain = |word: &String| word.trim_end_matches('/').to_owned();
        holds("fish", offered.map(|all| all.iter().map(|one| one.iter().map(plain).collect()).collect()));
    }

    #[test]
    fn every_command_and_every_flag_is_in_the_list() {
        let lists = lists();
        for role in ROLES {
            for command in role.commands {
                let key = named(role.name, command.name);
                let flags = &lists[&format!("{key} -")];
                for flag in command.flags.iter().chain(command.common(role)) {
                    assert!(flags.iter().any(|(word, _)| *word == format!("--{}", flag.name)), "{key} --{}", flag.name);
                    assert_eq!(lists.contains_key(&format!("{} --{}", role.name, flag.name)), flag.value.is_some());
                }
            }
        }
    }
}
