//! The order of the house, read from its sources: who may import whom, which library lives in which room, and what no
//! file may do. Each rule is shown to fail on a small house that breaks it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The floors that the rooms of a floor may import. Their own is not among them: see [`NEIGHBOURS`].
const BELOW: &[&[u8]] = &[&[], &[0], &[0, 1], &[0], &[0, 2, 3], &[0, 1, 2, 3, 4]];

/// Rooms that may import less than their floor.
const LESS: &[(&str, &[u8])] = &[("client", &[0, 3])];

/// The rooms of its own floor that a room may import.
const NEIGHBOURS: &[(&str, &[&str])] = &[("model", &["error", "secret"]), ("rest", &["net"]), ("grpc", &["net"])];

/// Libraries that only these rooms may name.
const LIBRARIES: &[(&[&str], &[&str])] = &[
    (&["rusqlite"], &["store"]),
    (&["getrandom", "rand"], &["random"]),
    (&["argon2", "aes_gcm", "ed25519_dalek", "jsonwebtoken", "totp_rs"], &["crypto"]),
    (
        &["tokio", "tokio_rustls", "rustls", "hyper", "hyper_util", "http", "http_body", "http_body_util"],
        &["net", "rest", "grpc", "client", "cli"],
    ),
    (&["tonic"], &["grpc", "client", "wire"]),
    (&["tonic_health", "tonic_reflection", "tokio_stream"], &["grpc"]),
    (&["prost", "prost_types"], &["grpc", "client", "wire"]),
];

/// Imports that close a circle and are meant to: a row of the table of commands holds the function that acts on what the
/// parser read, and the parser reads by that table.
const MEANT: &[(&str, &str)] = &[("cli::command", "cli::parse")];

/// Who may ask for the proof of access that needs no token. `access.rs` declares it.
const MAINTENANCE: &[&str] = &["cli/db.rs", "cli/init.rs"];

#[test]
fn the_house_is_in_order() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    read_folder(&root, &root, &mut files);
    let house = House::of(files);
    assert!(house.files.len() > 50 && house.floors.len() > 10, "this is not the house: {:?}", house.floors);
    let faults = house.faults();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn read_folder(root: &Path, folder: &Path, files: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_folder(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// The sources, by path below `src`.
struct House {
    files: BTreeMap<String, String>,
    /// Room to floor, as the map in `lib.rs` has it: `// Floor N: …`, then its `pub mod` lines.
    floors: BTreeMap<String, u8>,
}

/// A module: the names from the crate's root to it.
type Module = Vec<String>;

/// A place in a file, for a fault.
struct Place<'a> {
    file: &'a str,
    line: usize,
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "src/{}:{}", self.file, self.line)
    }
}

impl House {
    fn of(files: BTreeMap<String, String>) -> Self {
        let mut floors = BTreeMap::new();
        let mut floor = None;
        for line in files["lib.rs"].lines() {
            if let Some(rest) = line.strip_prefix("// Floor ") {
                floor = rest.split(':').next().and_then(|number| number.parse().ok());
            } else if let Some(room) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) {
                floors.insert(room.to_owned(), floor.expect("a room without a floor"));
            }
        }
        Self { files, floors }
    }

    /// Everything that is out of order.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut reached = BTreeSet::new();
        // Module to (file, the modules it imports), for the search for cycles.
        let mut imports: BTreeMap<Module, Vec<Module>> = BTreeMap::new();
        let mut waiting = vec![("lib.rs".to_owned(), vec![], false), ("main.rs".to_owned(), vec![], false)];
        while let Some((file, module, in_tests)) = waiting.pop() {
            let Some(text) = self.files.get(&file) else {
                faults.push(format!("src/{file} isn't there, though a file declares it"));
                continue;
            };
            reached.insert(file.clone());
            if !text.starts_with("//! ") {
                faults.push(format!("src/{file} doesn't begin with a line that says what lives here (//!)"));
            }
            let source = Source::read(&file, text, module.clone(), in_tests);
            for (name, tests) in &source.declared {
                waiting.push((
                    self.file_of(&file, &module, name),
                    [&module[..], std::slice::from_ref(name)].concat(),
                    *tests,
                ));
            }
            faults.extend(source.faults(self));
            imports.entry(module).or_default().extend(source.imports.into_iter().map(|(path, _)| path));
        }
        for file in self.files.keys().filter(|file| !reached.contains(*file)) {
            faults.push(format!("src/{file} is not reached from the map in lib.rs"));
        }
        faults.extend(cycles(&imports));
        faults
    }

    /// The file of the module `name` that `parent` declares.
    fn file_of(&self, parent: &str, module: &[String], name: &str) -> String {
        let folder = match module {
            [] => String::new(),
            names => format!("{}/", names.join("/")),
        };
        let own_folder = format!("{folder}{name}/mod.rs");
        // `main.rs` has the same folder as `lib.rs`, but no rooms.
        assert!(parent != "main.rs", "main.rs declares {name}");
        if self.files.contains_key(&own_folder) { own_folder } else { format!("{folder}{name}.rs") }
    }

    fn may_import(&self, from: &str, to: &str) -> bool {
        let (Some(own), Some(other)) = (self.floors.get(from), self.floors.get(to)) else { return false };
        let below = BELOW[usize::from(*own)];
        let floors = LESS.iter().find(|(room, _)| *room == from).map_or(below, |(_, floors)| *floors);
        let neighbours = NEIGHBOURS.iter().find(|(room, _)| *room == from).map_or(&[][..], |(_, rooms)| *rooms);
        from == to || floors.contains(other) || (own == other && neighbours.contains(&to))
    }
}

/// One file, taken apart. What is for tests only is left out.
struct Source<'a> {
    file: &'a str,
    module: Module,
    tokens: Vec<Token<'a>>,
    /// Lines with a comment that isn't documentation.
    commented: BTreeSet<usize>,
    /// `unsafe` stands in these lines, tests included.
    unsafe_lines: Vec<usize>,
    /// The modules in files of their own, and whether they are for tests only.
    declared: Vec<(String, bool)>,
    /// What is imported from this crate, whole paths from its root.
    imports: Vec<(Module, usize)>,
    /// Lines that name the crate itself, for other names to hide behind.
    whole_crate: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

impl<'a> Source<'a> {
    fn read(file: &'a str, text: &'a str, module: Module, in_tests: bool) -> Self {
        let (tokens, commented) = tokens(text);
        let unsafe_lines = tokens.iter().filter(|token| token.text == "unsafe").map(|token| token.line).collect();
        let mut source = Self {
            file,
            module,
            tokens: vec![],
            commented,
            unsafe_lines,
            declared: vec![],
            imports: vec![],
            whole_crate: vec![],
        };
        let mut at = 0;
        while at < tokens.len() {
            if in_tests || is_at(&tokens, at, &["#", "[", "cfg", "(", "test", ")", "]"]) {
                let end = if in_tests { tokens.len() } else { end_of_item(&tokens, at + 7) };
                source.declare(&tokens[at..end], true);
                at = end;
            } else {
                source.tokens.push(tokens[at]);
                at += 1;
            }
        }
        let tokens = std::mem::take(&mut source.tokens);
        source.declare(&tokens, false);
        source.find_imports(&tokens);
        source.tokens = tokens;
        source
    }

    fn declare(&mut self, tokens: &[Token<'_>], in_tests: bool) {
        for window in tokens.windows(3).filter(|w| w[0].text == "mod" && w[2].text == ";") {
            self.declared.push((window[1].text.to_owned(), in_tests));
        }
    }

    /// Finds every path that begins with `crate`, `super` or `self`, in `use` lines and elsewhere.
    fn find_imports(&mut self, tokens: &[Token<'_>]) {
        // The inline modules around a token, each with the depth of its braces.
        let mut inline: Vec<(&str, usize)> = Vec::new();
        let mut depth = 0;
        for at in 0..tokens.len() {
            let (text, line) = (tokens[at].text, tokens[at].line);
            let before = at.checked_sub(1).map_or("", |before| tokens[before].text);
            match text {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    inline.pop_if(|(_, inside)| *inside > depth);
                }
                "mod" if is_at(tokens, at + 2, &["{"]) => inline.push((tokens[at + 1].text, depth + 1)),
                "mcias" if self.file != "main.rs" => {}
                "crate" | "super" | "self" | "mcias" if before != "::" => {
                    if is_at(tokens, at + 1, &["::"]) {
                        let here: Module =
                            self.module.iter().cloned().chain(inline.iter().map(|m| m.0.into())).collect();
                        let mut paths = Vec::new();
                        tree(tokens, at, &here, &mut paths);
                        self.imports.extend(paths.into_iter().map(|path| (path, line)));
                    } else if text == "crate" && before != "(" {
                        self.whole_crate.push(line);
                    }
                }
                _ => {}
            }
        }
    }

    fn place(&self, line: usize) -> Place<'a> {
        Place { file: self.file, line }
    }

    /// Whether the word is a member of something, not the beginning of a path; `::name` begins one.
    fn is_inside_a_path(&self, at: usize) -> bool {
        let back = |n: usize| at.checked_sub(n).map_or("", |at| self.tokens[at].text);
        let is_name = |text: &str| text != "use" && text.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        back(1) == "." || (back(1) == "::" && (is_name(back(2)) || back(2) == ">"))
    }

    /// Whether the line, or the one before it, has a comment.
    fn is_explained(&self, line: usize) -> bool {
        self.commented.contains(&line) || self.commented.contains(&(line - 1))
    }

    fn faults(&self, house: &House) -> Vec<String> {
        let room = self.module.first().map_or("", String::as_str);
        let mut faults: Vec<_> =
            self.whole_crate.iter().map(|line| format!("{} names the whole crate", self.place(*line))).collect();
        for (path, line) in &self.imports {
            let place = self.place(*line);
            match path.first() {
                None => faults.push(format!("{place} imports everything there is")),
                Some(to) if !house.floors.contains_key(to) => {
                    faults.push(format!("{place} imports {}, which is no room of the map", path.join("::")));
                }
                Some(to) if self.file == "main.rs" => {
                    if to != "cli" {
                        faults.push(format!("{place} imports {to}: main.rs finds the role and nothing else"));
                    }
                }
                Some(to) if !house.may_import(room, to) => {
                    faults.push(format!("{place} imports {to}: not for {room}"));
                }
                Some(_) => {}
            }
        }
        for line in &self.unsafe_lines {
            faults.push(format!("{} has unsafe code", self.place(*line)));
        }
        for (at, token) in self.tokens.iter().enumerate() {
            let place = self.place(token.line);
            let text = token.text;
            let before = at.checked_sub(1).map_or("", |before| self.tokens[before].text);
            for (libraries, rooms) in LIBRARIES {
                let named = libraries.contains(&text) && (is_at(&self.tokens, at + 1, &["::"]) || before == "use");
                if named && !self.is_inside_a_path(at) && !rooms.contains(&room) {
                    faults.push(format!("{place} uses {text}, which is for {}", rooms.join(", ")));
                }
            }
            let forbidden = is_at(&self.tokens, at + 1, &["!"]) && matches!(text, "todo" | "unimplemented" | "dbg");
            if forbidden {
                faults.push(format!("{place} has a {text}!"));
            }
            let may_panic = (text == "unwrap" && is_at(&self.tokens, at + 1, &["(", ")"]))
                || (text == "expect" && is_at(&self.tokens, at + 1, &["("]));
            if may_panic && before == "." && !self.is_explained(token.line) {
                faults
                    .push(format!("{place} has .{text}() and no comment there, or in the line before, that says why"));
            }
            if text == "maintenance" && before != "fn" && !MAINTENANCE.contains(&self.file) {
                faults.push(format!("{place} asks for Admin::maintenance, which is for {}", MAINTENANCE.join(" and ")));
            }
            if text == "path" && before == "[" && is_at(&self.tokens, at + 1, &["="]) {
                faults.push(format!("{place} takes a module from somewhere else"));
            }
        }
        faults
    }
}

/// Whether these tokens stand there.
fn is_at(tokens: &[Token<'_>], at: usize, texts: &[&str]) -> bool {
    texts.iter().enumerate().all(|(offset, text)| tokens.get(at + offset).is_some_and(|token| token.text == *text))
}

/// Where the item that begins there ends: after its `;`, or after its braces.
fn end_of_item(tokens: &[Token<'_>], from: usize) -> usize {
    let mut depth = 0;
    for (offset, token) in tokens[from..].iter().enumerate() {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" => depth -= 1,
            "}" if depth == 1 => return from + offset + 1,
            "}" => depth -= 1,
            ";" if depth == 0 => return from + offset + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// The paths of a use tree, or the one path of an expression; returns where it ends.
fn tree(tokens: &[Token<'_>], mut at: usize, from: &[String], paths: &mut Vec<Module>) -> usize {
    let mut path = from.to_vec();
    loop {
        match tokens.get(at).map_or("", |token| token.text) {
            "{" => {
                at += 1;
                while !is_at(tokens, at, &["}"]) && at < tokens.len() {
                    at = tree(tokens, at, &path, paths);
                    // On to the next branch, past another name or whatever a macro has here.
                    while !tokens.get(at).is_none_or(|token| matches!(token.text, "," | "}")) {
                        at += 1;
                    }
                    at += usize::from(is_at(tokens, at, &[","]));
                }
                return at + 1;
            }
            "crate" | "mcias" => {
                path.clear();
                at += 1;
            }
            "super" => {
                if path.pop().is_none() {
                    path.push("super of the crate".into());
                }
                at += 1;
            }
            "self" | "*" => at += 1,
            name if name.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                path.push(name.to_owned());
                at += 1;
            }
            _ => {}
        }
        if !is_at(tokens, at, &["::"]) {
            paths.push(path);
            return at;
        }
        at += 1;
    }
}

/// Files of one room that import each other in a circle. A file and the one that declares it belong together.
fn cycles(imports: &BTreeMap<Module, Vec<Module>>) -> Vec<String> {
    /// The file that an imported path leads to.
    fn file_of<'a>(imports: &BTreeMap<Module, Vec<Module>>, path: &'a [String]) -> Option<&'a [String]> {
        (0..=path.len()).rev().map(|n| &path[..n]).find(|part| imports.contains_key(*part))
    }
    let mut edges: BTreeMap<&[String], BTreeSet<&[String]>> = BTreeMap::new();
    for (from, paths) in imports {
        for to in paths.iter().filter_map(|path| file_of(imports, path)) {
            let is_meant = MEANT.contains(&(&from.join("::"), &to.join("::")));
            if !to.starts_with(from) && !from.starts_with(to) && !is_meant {
                edges.entry(from).or_default().insert(to);
            }
        }
    }
    // What only leads out of, or only into, a circle is taken away until nothing but circles is left.
    loop {
        let before = edges.len();
        let targets: BTreeSet<_> = edges.values().flatten().copied().collect();
        edges.retain(|from, _| targets.contains(from));
        let sources: BTreeSet<_> = edges.keys().copied().collect();
        edges.values_mut().for_each(|to| to.retain(|to| sources.contains(to)));
        edges.retain(|_, to| !to.is_empty());
        if edges.len() == before {
            break;
        }
    }
    let show = |module: &[String]| module.join("::");
    let circles = edges.iter().flat_map(|(from, to)| to.iter().map(move |to| (from, to)));
    circles.map(|(from, to)| format!("{} imports {}, in a circle", show(from), show(to))).collect()
}

/// Words and signs, without comments and literals; and the lines that have a comment which isn't documentation.
fn tokens(text: &str) -> (Vec<Token<'_>>, BTreeSet<usize>) {
    let (mut tokens, mut commented) = (Vec::new(), BTreeSet::new());
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            let documents = (rest.starts_with("///") && !rest.starts_with("////")) || rest.starts_with("//!");
            if !documents {
                commented.insert(line);
            }
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            commented.insert(line);
            block_comment(rest)
        } else if let Some(length) = literal(rest) {
            length
        } else if first.is_alphanumeric() || first == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(Token { text: &rest[..length], line });
            length
        } else if rest.starts_with("::") {
            tokens.push(Token { text: "::", line });
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(Token { text: &rest[..first.len_utf8()], line });
            }
            first.len_utf8()
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    (tokens, commented)
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// The length of the string, character or lifetime that the text begins with.
fn literal(text: &str) -> Option<usize> {
    let quoted = |text: &str, quote: char| {
        let mut escaped = false;
        let end = text.char_indices().skip(1).find(|(_, c)| {
            let ends = *c == quote && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        end.map_or(text.len(), |(at, _)| at + 1)
    };
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        text.strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with(['"', '\'']) || (prefix.ends_with('r') && rest.starts_with('#')))
    })?;
    let rest = &text[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        if !rest[hashes..].starts_with('"') {
            // A raw name, r#type: its sign is passed over, the name follows.
            return (hashes == 1).then_some(prefix.len() + 1);
        }
        let close = format!("\"{}", "#".repeat(hashes));
        let body = &rest[hashes + 1..];
        return Some(prefix.len() + hashes + 1 + body.find(&close).map_or(body.len(), |at| at + close.len()));
    }
    if rest.starts_with('"') {
        return Some(prefix.len() + quoted(rest, '"'));
    }
    let mut after = rest.chars().skip(1);
    match (after.next(), after.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => Some(prefix.len() + quoted(rest, '\'')),
        // A lifetime: only its sign is passed over, the name does no harm.
        _ => Some(1),
    }
}

mod tests {
    use super::*;

    const LIB: &str = "//! The map.\n\n// Floor 0: words.\npub mod error;\npub mod model;\n\n// Floor 1: tools.\n\
        pub mod clock;\npub mod store;\n\n// Floor 2: the service.\npub mod service;\n\n// Floor 3: the wire.\npub mod wire;\n\n\
        // Floor 4: the doors.\npub mod client;\npub mod net;\npub mod rest;\n\n// Floor 5: the roles.\npub mod cli;\n";

    /// A small house in order, with some files changed.
    fn faults(changed: &[(&str, &str)]) -> Vec<String> {
        let mut files: BTreeMap<String, String> = [
            ("lib.rs", LIB),
            ("main.rs", "//! Main.\nuse mcias::cli::Call;\n"),
            ("error.rs", "//! Errors.\n"),
            ("model.rs", "//! Model.\nuse crate::error::Error;\n"),
            ("clock.rs", "//! Clock.\nuse std::time::SystemTime;\nuse crate::error::Result;\n"),
            ("store/mod.rs", "//! Store.\nmod tokens;\nuse rusqlite::Connection;\nuse tokens::Row;\n"),
            ("store/tokens.rs", "//! Tokens.\nuse super::View;\nuse crate::model::X;\n"),
            ("service/mod.rs", "//! Service.\npub mod access;\nmod session;\n"),
            ("service/access.rs", "//! Access.\nuse super::Service;\nimpl Admin { pub fn maintenance() {} }\n"),
            ("service/session.rs", "//! Session.\nuse super::access::Admin;\nuse crate::store::{Store, Tx as T};\n"),
            ("wire.rs", "//! Wire.\nuse crate::model::{self, X};\n"),
            ("client.rs", "//! Client.\nuse crate::wire::X;\n"),
            ("net.rs", "//! Net.\nuse tokio::net::TcpListener;\nuse crate::service::Service;\n"),
            ("rest.rs", "//! Rest.\nuse crate::net::House;\nuse crate::wire::X;\n"),
            ("cli/mod.rs", "//! Cli.\nmod init;\n#[cfg(test)]\nmod tests;\n"),
            ("cli/init.rs", "//! Init.\nuse crate::store::Store;\nfn f() { Admin::maintenance(); }\n"),
            ("cli/tests.rs", "//! Tests.\nuse crate::client::X;\nfn f() { x.unwrap(); rusqlite::open(); }\n"),
        ]
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .collect();
        files.extend(changed.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())));
        House::of(files).faults()
    }

    #[track_caller]
    fn faulty(file: &str, text: &str, part: &str) {
        let faults = faults(&[(file, text)]);
        assert!(faults.iter().any(|fault| fault.contains(part)), "{part:?} is not in {faults:#?}");
    }

    #[track_caller]
    fn fine(file: &str, text: &str) {
        assert_eq!(faults(&[(file, text)]), [""; 0]);
    }

    #[test]
    fn the_small_house_is_in_order() {
        assert_eq!(faults(&[]), [""; 0]);
    }

    #[test]
    fn an_upward_import_is_found_however_it_is_written() {
        for text in [
            "//! E.\nuse crate::store::Store;\n",
            "//! E.\npub(crate) use crate::store::Store;\n",
            "//! E.\nuse crate::{\n    model::{X},\n    store,\n};\n",
            "//! E.\nuse super::store::Store;\n",
            "//! E.\nmod inner { use super::super::store::Store; }\n",
            "//! E.\nfn f() -> crate::store::Store { loop {} }\n",
            "//! E.\nuse self::super::store::Store;\n",
        ] {
            faulty("error.rs", text, "imports store: not for error");
        }
        faulty("error.rs", "//! E.\nuse super::super::X;\n", "no room of the map");
        for text in ["//! E.\nuse crate::*;\n", "//! E.\nuse super::*;\n"] {
            faulty("error.rs", text, "imports everything");
        }
        faulty("error.rs", "//! E.\nuse crate as house;\n", "names the whole crate");
        faulty("error.rs", "//! E.\nuse crate::Store;\n", "no room of the map");
        faulty("store/tokens.rs", "//! T.\nuse super::super::service::X;\n", "imports service: not for store");
        faulty("main.rs", "//! Main.\nuse mcias::store::Store;\n", "main.rs finds the role");
        fine("error.rs", "//! E.\npub(crate) fn f() {}\npub(in crate::error) fn g() {}\n");
        fine("error.rs", "//! E.\n/// As [`crate::store`].\nconst X: &str = \"crate::store\"; // not crate::store\n");
    }

    #[test]
    fn rooms_of_one_floor_keep_to_themselves() {
        faulty("clock.rs", "//! C.\nuse crate::store::Store;\n", "imports store: not for clock");
        faulty("error.rs", "//! E.\nuse crate::model::X;\n", "imports model: not for error");
        faulty("net.rs", "//! N.\nuse crate::rest::X;\n", "imports rest: not for net");
        fine("rest.rs", "//! R.\nuse crate::net::X;\n");
    }

    #[test]
    fn doors_and_wire_do_not_reach_for_tools() {
        faulty("rest.rs", "//! R.\nuse crate::store::Store;\n", "imports store: not for rest");
        faulty("wire.rs", "//! W.\nuse crate::clock::Clock;\n", "imports clock: not for wire");
        faulty("client.rs", "//! C.\nuse crate::service::Service;\n", "imports service: not for client");
        faulty("client.rs", "//! C.\nuse crate::net::House;\n", "imports net: not for client");
    }

    #[test]
    fn libraries_stay_in_their_rooms() {
        for text in ["use tokio::task;", "use hyper;", "fn f() { tokio::spawn(x); }", "use ::http::Method;"] {
            faulty("service/session.rs", &format!("//! S.\n{text}\n"), "which is for net, rest");
        }
        faulty("service/session.rs", "//! S.\nfn f(x: rusqlite::Row) {}\n", "uses rusqlite, which is for store");
        fine(
            "service/session.rs",
            "//! S.\nuse super::access::http::X;\nfn f() { x.http() }\n#[cfg(test)]\nuse rusqlite::X;\n",
        );
    }

    #[test]
    fn every_file_says_what_it_is_and_is_on_the_map() {
        faulty("error.rs", "use std::fmt;\n//! E.\n", "doesn't begin with a line");
        faulty("cli/tests.rs", "use super::*;\n", "src/cli/tests.rs doesn't begin");
        faulty("service/lost.rs", "//! Lost.\n", "src/service/lost.rs is not reached");
        faulty("notes.txt", "//! ", "src/notes.txt is not reached");
        faulty("error.rs", "//! E.\nmod gone;\n", "src/error/gone.rs isn't there");
        faulty("error.rs", "//! E.\n#[path = \"store/tokens.rs\"]\nmod x;\n", "from somewhere else");
    }

    #[test]
    fn maintenance_is_asked_for_in_two_files_only() {
        for text in [
            "fn f() { Admin::maintenance(x); }",
            "use crate::service::access::Admin as A;\nfn f() { A::maintenance(); }",
        ] {
            faulty(
                "cli/mod.rs",
                &format!("//! C.\nmod init;\n#[cfg(test)]\nmod tests;\n{text}\n"),
                "Admin::maintenance",
            );
        }
        faulty("service/session.rs", "//! S.\nfn f() { super::access::Admin::maintenance(); }\n", "Admin::maintenance");
    }

    #[test]
    fn nothing_panics_without_a_reason_and_nothing_is_unsafe() {
        faulty("error.rs", "//! E.\nfn f() { x.unwrap(); }\n", "src/error.rs:2 has .unwrap()");
        faulty("error.rs", "//! E.\n/// Documented.\nfn f() { x.expect(\"y\"); }\n", "src/error.rs:3 has .expect()");
        faulty("error.rs", "//! E.\nfn f() { todo!() }\n", "has a todo!");
        faulty("error.rs", "//! E.\nfn f() { unsafe { x() } }\n", "has unsafe code");
        faulty("cli/tests.rs", "//! T.\nfn f() { unsafe { x() } }\n", "has unsafe code");
        fine(
            "error.rs",
            "//! E.\nfn f() {\n    // It can't fail.\n    x.unwrap();\n    x.expect(\"y\"); // nor can this\n}\n",
        );
        fine(
            "error.rs",
            "//! E.\nfn f() { x.unwrap_or(1); expect(2); }\n#[cfg(test)]\nmod tests { fn f() { x.unwrap(); } }\n",
        );
        fine("error.rs", "//! E.\n#[cfg(test)]\nconst X: [u8; 1] = [x.unwrap()];\n");
        faulty("error.rs", "//! E.\n#[cfg(test)]\nuse x::y;\nfn f() { x.unwrap(); }\n", "has .unwrap()");
        fine(
            "error.rs",
            "//! E.\nconst X: (&str, char, &str) = (\"\\\".unwrap()\", '\"', r#\"\"unsafe\"#);\n/* x.unwrap() /* unsafe */ */\n",
        );
        faulty("error.rs", "//! E.\nfn f<'a>(x: &'a str) -> char { x.unwrap(); 'a' }\n", "has .unwrap()");
    }

    #[test]
    fn files_of_a_room_do_not_import_each_other_in_a_circle() {
        faulty(
            "service/access.rs",
            "//! A.\nuse super::session::X;\n",
            "service::access imports service::session, in a circle",
        );
        faulty("service/access.rs", "//! A.\nuse crate::service::session;\n", "in a circle");
        let three = [
            ("service/mod.rs", "//! S.\nmod access;\nmod issue;\nmod session;\n"),
            ("service/access.rs", "//! A.\nuse super::issue::X;\n"),
            ("service/issue.rs", "//! I.\nuse super::session::X;\n"),
        ];
        assert_eq!(faults(&three).len(), 3, "{:#?}", faults(&three));
    }
}
