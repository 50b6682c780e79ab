//! Holds what the documents name against what there is: files, tests, rooms of the house, targets of the Makefile. A
//! document that tells of something gone fails here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const DOCUMENTS: [&str; 4] = ["README.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md"];

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The words between backquotes, outside of blocks, with their line.
fn code_spans(text: &str) -> Vec<(usize, &str)> {
    let mut in_block = false;
    let mut spans = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            spans.extend(line.split('`').skip(1).step_by(2).map(|span| (number, span)));
        }
    }
    spans
}

/// Where a file is that a document names, from the top or from `src`.
fn named_file(name: &str) -> Option<PathBuf> {
    [root().join(name), root().join("src").join(name)].into_iter().find(|path| path.exists())
}

#[test]
fn every_file_that_is_named_is_there() {
    let mut seen = 0;
    for document in DOCUMENTS {
        let text = read(document);
        for (line, span) in code_spans(&text) {
            let is_file = [".rs", ".md", ".toml"].iter().any(|end| span.ends_with(end))
                || ["src/", "tests/", ".ci/"].iter().any(|start| span.starts_with(start));
            if is_file && !span.contains(' ') {
                assert!(named_file(span).is_some(), "{document}:{line} names {span}, which isn't there");
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "only {seen}: this test no longer reads the documents right");
}

#[test]
fn every_test_that_security_md_names_is_there() {
    let text = read("SECURITY.md");
    let mut seen = 0;
    for (line, row) in text.lines().enumerate().filter(|(_, line)| line.starts_with("| **")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        assert_eq!(cells.len(), 3, "SECURITY.md:{} is no row of three", line + 1);
        let mut file = String::new();
        let mut files = 0;
        for (_, span) in code_spans(cells[2]) {
            if span.ends_with(".rs") {
                file = read(span);
                assert!(file.contains("#[test]") || file.contains("#[tokio::test"), "{span} has no tests");
                files += 1;
            } else {
                let declared = file.contains(&format!("\nfn {span}(")) || file.contains(&format!(" fn {span}("));
                assert!(declared, "SECURITY.md:{} names the test {span}, which isn't in its file", line + 1);
                seen += 1;
            }
        }
        assert!(files > 0, "SECURITY.md:{} names no test", line + 1);
    }
    assert!(seen > 50, "only {seen}: this test no longer reads SECURITY.md right");
}

#[test]
fn the_map_in_architecture_md_is_that_of_the_source() {
    let (lib, text) = (read("src/lib.rs"), read("ARCHITECTURE.md"));
    let mut floor = "";
    let mut in_source = BTreeSet::new();
    for line in lib.lines() {
        if let Some(rest) = line.strip_prefix("// Floor ") {
            floor = rest.split(':').next().unwrap_or_default();
        } else if let Some(room) = line.strip_prefix("pub mod ") {
            in_source.insert((floor, room.trim_end_matches(';')));
        }
    }
    let rows = text.lines().filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit());
    let in_document: BTreeSet<_> = rows
        .flat_map(|row| {
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            let floor = cells[0].split(' ').next().unwrap_or_default();
            // A room's name stands at the beginning, and after each dot.
            cells[1].split(" · ").flat_map(|rooms| rooms.split(" and ")).filter_map(move |part| {
                let name = part.strip_prefix('`')?.split('`').next()?;
                Some((floor, name))
            })
        })
        .filter(|(_, name)| name.bytes().all(|b| b.is_ascii_lowercase()))
        .collect();
    assert_eq!(in_document, in_source);
}

#[test]
fn every_target_of_make_is_explained_and_every_one_that_is_named_is_there() {
    let makefile = read("Makefile");
    let targets: BTreeSet<_> = makefile
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()) && line.contains(" ## "))
        .filter_map(|line| line.split(':').next())
        .collect();
    let phony = makefile.lines().find_map(|line| line.strip_prefix(".PHONY: ")).unwrap();
    assert_eq!(phony.split(' ').collect::<BTreeSet<_>>(), targets);
    for document in DOCUMENTS.into_iter().chain(["Makefile"]) {
        let text = read(document);
        let commands =
            text.lines().filter(|line| line.starts_with("make ")).chain(code_spans(&text).into_iter().map(|(_, s)| s));
        for command in commands.filter_map(|command| command.strip_prefix("make ")) {
            let target = command.split(' ').next().unwrap_or_default();
            assert!(targets.contains(target), "{document} names make {target}");
        }
    }
}

#[test]
fn the_changelog_has_a_place_for_what_is_new_and_the_readme_the_version_of_rust() {
    assert!(read("CHANGELOG.md").contains("\n## [Unreleased]\n"));
    let manifest = read("Cargo.toml");
    let rust = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(read("README.md").contains(&format!("(https://rustup.rs) {rust} or later")), "Rust {rust}");
}
