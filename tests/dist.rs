//! The files of `dist/` against the program: every example configuration is one that the parser takes, the commented
//! values of the full one are the defaults, and it has every key.

use std::collections::BTreeSet;
use std::path::Path;

use mcias::config::{self, Config};

/// Keys that have no default: what the example shows of them is an example.
const NO_DEFAULT: [&str; 4] = ["grpc_addr", "blocklist_file", "passphrase_file", "passphrase_env"];

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[track_caller]
fn parse(text: &str) -> Config {
    config::parse(text, Path::new("/etc/mcias/mcias.conf")).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The key in a line that is one, commented out or not.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.strip_prefix('#').unwrap_or(line).split_once(" = ")?;
    key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_').then_some(key)
}

/// The text with those commented keys put in force that `wanted` says.
fn with(text: &str, wanted: impl Fn(&str) -> bool) -> String {
    let line = |line: &str| match (line.strip_prefix('#'), key(line)) {
        (Some(rest), Some(key)) if wanted(key) => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn every_example_is_taken() {
    for name in ["mcias.conf", "mcias-dev.conf", "mcias.conf.docker"] {
        parse(&read(&format!("dist/{name}.example")));
    }
    let docker = parse(&read("dist/mcias.conf.docker.example"));
    assert_eq!(docker.database.path, Path::new("/data/mcias.db"));
    assert!(docker.server.grpc_addr.is_some());
    let dev = parse(&read("dist/mcias-dev.conf.example"));
    assert!(dev.server.listen_addr.ip().is_loopback() && dev.server.grpc_addr.unwrap().ip().is_loopback());
}

#[test]
fn the_commented_values_are_the_defaults() {
    let text = read("dist/mcias.conf.example");
    let all = with(&text, |key| !NO_DEFAULT.contains(&key));
    assert_ne!(all, text);
    assert_eq!(parse(&all), parse(&text));
    // The test sees a value that is none.
    let other = all.replace("\nburst = 10\n", "\nburst = 11\n");
    assert_ne!(parse(&other), parse(&text));
}

#[test]
fn what_has_no_default_works_as_it_is_shown() {
    let text = read("dist/mcias.conf.example");
    let optional = parse(&with(&text, |key| ["grpc_addr", "blocklist_file"].contains(&key)));
    assert!(optional.server.grpc_addr.is_some() && optional.passwords.blocklist_file.is_some());
    for source in ["passphrase_file", "passphrase_env"] {
        let text = with(&text, |key| key == source).replace("\nkeyfile = ", "\n#keyfile = ");
        assert_ne!(parse(&text).master_key, parse(&read("dist/mcias.conf.example")).master_key, "{source}");
    }
}

#[test]
fn every_key_is_in_the_example_in_its_section() {
    let keys = |text: &str| {
        let mut section = String::new();
        let mut keys = BTreeSet::new();
        for line in text.lines() {
            if line.starts_with('[') {
                section = line.split(']').next().unwrap_or_default().to_owned();
            } else if let Some((key, _)) = line.split_once('=') {
                let key = key.trim_start_matches('#').trim();
                if key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !section.is_empty() {
                    keys.insert(format!("{section}] {key}"));
                }
            }
        }
        keys
    };
    let (reference, example) =
        (keys(&read("tests/vectors/config/reference.toml")), keys(&read("dist/mcias.conf.example")));
    assert!(reference.len() > 30, "{reference:?}");
    assert_eq!(example, reference);
}

#[test]
fn the_example_is_where_init_puts_things() {
    let config = parse(&read("dist/mcias.conf.example"));
    for path in [&config.server.tls_cert, &config.server.tls_key, &config.database.path] {
        assert!(path.starts_with("/etc/mcias/tls") || path.starts_with("/var/lib/mcias"), "{}", path.display());
    }
    // And the unit lets the server write there.
    let unit = read("dist/mcias.service");
    let folder = config.database.path.parent().unwrap().display();
    assert!(unit.contains(&format!("\nReadWritePaths={folder}\n")));
}
