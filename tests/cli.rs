//! Runs the scripts in `tests/cli/` as an operator would, each against a server of its own, and holds what is printed
//! against what the script says.
//!
//! ```text
//! # Words about what comes.
//! $ mciasctl account list
//! ID  …
//! ! a line on standard error
//! ? 2
//! ```
//!
//! A line after `$ ` is run by one shell for the whole script, so variables stay; several in a row are run one by one.
//! After it comes what it prints: standard output as it is, standard error after `! `, and the exit code after `? `
//! where it isn't 0. `…` stands for anything. Empty lines mean nothing. The program is there under all its names;
//! `MCIAS_SERVER`, `MCIAS_CACERT` and a `HOME` are set, and the shell is in the instance's folder, where
//! `mcias.conf` and `admin-password` are. `UPDATE_GOLDEN=1` can't write these: they say what should be.

mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

#[path = "support/shown.rs"]
mod shown;
#[path = "../src/testing.rs"]
mod testing;

use shown::matches;
use support::{Instance, MCIAS, Server};

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            play(stringify!($name), false);
        })*

        /// The same scripts over gRPC, with `mciasgrpcctl`.
        mod over_grpc {
            $(#[test]
            fn $name() {
                super::play(stringify!($name), true);
            })*
        }

        #[test]
        fn every_script_is_played() {
            let played = [$(concat!(stringify!($name), ".txt")),*];
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli");
            let mut there: Vec<_> =
                std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            there.sort();
            assert_eq!(there, played);
        }
    };
}

scripts!(accounts, audit, lost_admin_password, mistakes, pgcreds, roles, self_service, session, tokens, totp);

/// A command, and what it is to say.
#[derive(Default)]
struct Step {
    line: usize,
    command: String,
    stdout: Vec<String>,
    stderr: Vec<String>,
    code: i32,
}

fn read(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if line.is_empty() || line.starts_with("# ") {
            continue;
        }
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { line: number, command: command.to_owned(), ..Step::default() });
            continue;
        }
        let step = steps.last_mut().unwrap_or_else(|| panic!("line {number} comes before any command"));
        match line.split_once(' ') {
            Some(("!", said)) => step.stderr.push(said.to_owned()),
            Some(("?", code)) => step.code = code.parse().unwrap(),
            _ => step.stdout.push(line.to_owned()),
        }
    }
    steps
}

fn play(name: &str, over_grpc: bool) {
    if name == "totp" && Command::new("oathtool").arg("--version").output().is_err() {
        return testing::not_run("tests/cli/totp.txt", "there is no oathtool");
    }
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/cli/{name}.txt")));
    let mut text = text.unwrap();
    if over_grpc {
        text = text.replace("mciasctl", "mciasgrpcctl").replace("over REST", "over gRPC");
        // A server is named by host and port, and so are messages.
        for host in ["localhost", "127.0.0.1"] {
            text = text.replace(&format!("https://{host}:…"), &format!("{host}:…"));
            text = text.replace(&format!("https://{host}:1 "), &format!("{host}:1 "));
        }
        text = text.replace("--server or MCIAS_SERVER says", "--server or MCIAS_GRPC_SERVER or MCIAS_SERVER says");
        text = text.replace("https://localhost:1:", "localhost:1:");
        text = text.replace("https://127.0.0.1:${MCIAS_SERVER##*:}", "127.0.0.1:${MCIAS_SERVER##*:}");
    }
    let steps = read(&text);
    assert!(!steps.is_empty());
    let server = Server::with(|instance: &mut Instance| {
        // What is on a command line when there's nothing to be got from anywhere else.
        std::fs::create_dir_all(instance.path("home")).unwrap();
        std::fs::create_dir_all(instance.path("out")).unwrap();
        std::fs::create_dir_all(instance.path("bin")).unwrap();
    });
    assert!(server.run(&["links", "bin"]).status.success());
    std::os::unix::fs::symlink(MCIAS, server.path("bin/mcias")).unwrap();

    let mut script = String::new();
    for (n, step) in steps.iter().enumerate() {
        writeln!(script, "{{ {}\n}} >out/{n}.stdout 2>out/{n}.stderr; echo $? >out/{n}.code", step.command).unwrap();
    }
    let path = std::env::var("PATH").unwrap();
    let address = match over_grpc {
        true => format!("localhost:{}", server.grpc_address().port()),
        false => format!("https://localhost:{}", server.door().address().unwrap().port()),
    };
    let output = Command::new("sh")
        .args(["-c", &script])
        .env_clear()
        .env("PATH", format!("{}:{path}", server.path("bin").display()))
        .env("HOME", server.path("home"))
        .env("MCIAS_SERVER", address)
        .env("MCIAS_CACERT", server.path("tls/ca.crt"))
        .current_dir(server.folder())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    for (n, step) in steps.iter().enumerate() {
        let said = |what: &str| server.text(&format!("out/{n}.{what}"));
        let (stdout, stderr, code) = (said("stdout"), said("stderr"), said("code"));
        let fits = same(&stdout, &step.stdout) && same(&stderr, &step.stderr) && code.trim() == step.code.to_string();
        assert!(
            fits,
            "tests/cli/{name}.txt:{}: {}\n\nprinted\n{stdout}{}? {code}\n\nand not\n{}\n{}\n? {}",
            step.line,
            step.command,
            stderr.lines().map(|line| format!("! {line}\n")).collect::<String>(),
            step.stdout.join("\n"),
            step.stderr.iter().map(|line| format!("! {line}")).collect::<Vec<_>>().join("\n"),
            step.code
        );
    }
}

fn same(said: &str, expected: &[String]) -> bool {
    // Empty lines mean nothing in a script.
    let said: Vec<_> = said.lines().filter(|line| !line.is_empty()).collect();
    said.len() == expected.len() && said.iter().zip(expected).all(|(line, shown)| matches(line, shown))
}

#[test]
fn a_script_that_says_something_else_fails() {
    let steps = read("# x\n$ a\nout\n! err …\n? 3\n\n$ b\n");
    assert_eq!((steps.len(), steps[0].line, steps[0].code, steps[1].command.as_str()), (2, 2, 3, "b"));
    assert!(same("out\n", &steps[0].stdout) && same("err x\n", &steps[0].stderr));
    assert!(!same("", &steps[0].stdout) && !same("out\nout\n", &steps[0].stdout) && !same("err", &steps[0].stderr));
}
