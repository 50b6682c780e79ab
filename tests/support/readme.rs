//! The blocks of README.md that are marked as tests: `<!-- test: NAME -->`, then, where lines of it ask on a terminal,
//! `<!-- types: WORDS -->`, then the block; the block after a following `<!-- prints -->` is what it prints.

#![allow(dead_code, reason = "each file of tests uses a part of this")]

/// A shell block that is marked, and what README.md says it prints.
#[derive(Debug, PartialEq)]
pub struct Block {
    pub name: String,
    pub lines: Vec<String>,
    /// What a line that asks on a terminal is given.
    pub types: Option<String>,
    pub prints: Vec<String>,
}

/// The blocks that are marked, in order.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(mark) = mark_of(line) else { continue };
        let mut fence = lines.next().unwrap_or_default();
        let types = mark_of(fence).and_then(|mark| mark.strip_prefix("types: ")).map(str::to_owned);
        if types.is_some() {
            fence = lines.next().unwrap_or_default();
        }
        assert!(fence.starts_with("```"), "no block follows {line}");
        let body: Vec<_> = lines.by_ref().take_while(|line| *line != "```").map(str::to_owned).collect();
        match mark.strip_prefix("test: ") {
            Some(name) => {
                assert_eq!(fence, "```sh", "{line}");
                blocks.push(Block { name: name.to_owned(), lines: body, types, prints: vec![] });
            }
            None => {
                assert_eq!(mark, "prints");
                blocks.last_mut().unwrap().prints = body;
            }
        }
    }
    blocks
}

fn mark_of(line: &str) -> Option<&str> {
    line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"))
}

#[test]
fn blocks_are_read_and_held_against_what_is_shown() {
    let text = "# T\n<!-- test: a -->\n```sh\none\ntwo\n```\ntext\n<!-- prints -->\n```\nx\n```\n```sh\nnot run\n```\n\
        <!-- test: b -->\n<!-- types: a b -->\n```sh\nthree\n```\n";
    let one =
        Block { name: "a".into(), lines: vec!["one".into(), "two".into()], types: None, prints: vec!["x".into()] };
    let other = Block { name: "b".into(), lines: vec!["three".into()], types: Some("a b".into()), prints: vec![] };
    assert_eq!(blocks(text), [one, other]);
}
