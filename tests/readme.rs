//! Does what README.md tells a newcomer to do, line by line as it stands there, and holds what is printed against what
//! README.md shows.
//!
//! A shell block after `<!-- test: … -->` is run; the block after a following `<!-- prints -->` is what its lines print,
//! with `…` for what is different every time. `make run` is started from the real Makefile, with what was built for the
//! tests and without building anything; the port 8443 becomes a free one. Nothing else is changed.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

#[path = "support/readme.rs"]
mod readme;
#[path = "support/shown.rs"]
mod shown;
#[path = "../src/testing.rs"]
mod testing;

use readme::{Block, blocks};
use shown::matches;

const README: &str = include_str!("../README.md");

#[test]
fn a_newcomer_can_paste_it_line_by_line() {
    for tool in ["make", "curl"] {
        if Command::new(tool).arg("--version").output().is_err() {
            return testing::not_run("a_newcomer_can_paste_it_line_by_line", &format!("there is no {tool}"));
        }
    }
    let blocks = blocks(README);
    let other_terminal: Vec<_> =
        blocks.iter().filter(|block| block.name == "quickstart, in another terminal").flat_map(|b| &b.lines).collect();
    assert_eq!(other_terminal, ["make run"]);
    let with_codes = Command::new("oathtool").arg("--version").output().is_ok();
    if !with_codes {
        testing::not_run("a_newcomer_can_paste_it_line_by_line, the afternoon", "there is no oathtool");
    }
    let wanted = |block: &&Block| block.name == "quickstart" || (with_codes && block.name == "walk");
    let blocks: Vec<_> = blocks.iter().filter(wanted).collect();
    assert!(blocks.iter().map(|block| block.lines.len()).sum::<usize>() >= 5, "{blocks:#?}");

    let folder = tempfile::tempdir().unwrap();
    let (server, said) = Server::start(folder.path(), &[]);
    assert!(said.contains("https://localhost:8443") && said.contains("instance/admin-password"), "{said}");
    let port = format!("localhost:{}", server.port);
    let real = |text: &str| text.replace("localhost:8443", &port);

    // One shell for all of it, as in a terminal. After each line it says how that went.
    let mut script = String::new();
    for line in blocks.iter().flat_map(|block| &block.lines) {
        writeln!(script, "{}\nprintf '\\001%s\\001' $?", real(line)).unwrap();
    }
    let output = in_folder("sh", folder.path()).args(["-c", &format!("exec 2>&1\n{script}")]).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let mut outcomes = output.split('\x01');
    for block in blocks {
        let mut printed = String::new();
        for line in &block.lines {
            printed.push_str(outcomes.next().unwrap_or_default());
            assert_eq!(outcomes.next(), Some("0"), "{line}\n{printed}");
        }
        let printed: Vec<_> = printed.lines().collect();
        // The issuer stays what `mcias init` wrote, with the port it was made for.
        let as_shown = block.prints.len() == printed.len()
            && printed
                .iter()
                .zip(&block.prints)
                .all(|(line, shown)| matches(line, shown) || matches(line, &real(shown)));
        assert!(as_shown, "{:#?}\nprints\n{printed:#?}\nbut README.md shows\n{:#?}", block.lines, block.prints);
    }
    server.stop();
}

/// The server that `make run` started.
struct Server {
    make: Child,
    port: u16,
    /// Where it speaks gRPC, if it was told to.
    grpc_port: Option<u16>,
}

impl Server {
    /// Starts it, and gives what `make run` says before it serves.
    fn start(folder: &Path, before: &[String]) -> (Self, String) {
        let built = folder.join("built/release");
        std::fs::create_dir_all(&built).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_mcias"), built.join("mcias")).unwrap();
        let makefile = Path::new(env!("CARGO_MANIFEST_DIR")).join("Makefile");
        let make = |target: &str| {
            let mut make = in_folder("make", folder);
            make.arg("-f").arg(&makefile).args(["-o", "build", "TARGET_DIR=built", target]);
            make
        };
        // In two steps, for the port.
        let init = make("instance/mcias.conf").output().unwrap();
        assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        let path = folder.join("instance/mcias.conf");
        let config = std::fs::read_to_string(&path).unwrap();
        assert!(config.contains("127.0.0.1:8443") && config.contains("127.0.0.1:9443"), "{config}");
        std::fs::write(&path, config.replace("127.0.0.1:8443", "127.0.0.1:0").replace("127.0.0.1:9443", "127.0.0.1:0"))
            .unwrap();
        for line in before {
            assert!(in_folder("sh", folder).args(["-c", line]).status().unwrap().success(), "{line}");
        }

        // In a group of its own, so that the end is everybody's.
        let mut make = make("run").stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().unwrap();
        let stderr = BufReader::new(make.stderr.take().unwrap());
        let mut log = String::new();
        let mut lines = stderr.lines().map_while(|line| line.ok());
        let mut port = |door: &str| {
            let port = lines.by_ref().find_map(|line| {
                writeln!(log, "{line}").unwrap();
                let here = line.contains(" listening ") && line.contains(&format!(" door={door} "));
                let address = here.then(|| line.rsplit_once("address=127.0.0.1:"))??.1;
                Some(address.parse().unwrap())
            });
            let Some(port) = port else { panic!("the server didn't start:\n{log}") };
            port
        };
        let (port, grpc_port) = (port("rest"), (!before.is_empty()).then(|| port("grpc")));
        // Whoever logs into a pipe that nobody reads comes to a stop.
        std::thread::spawn(move || lines.for_each(drop));
        let said = BufReader::new(make.stdout.take().unwrap()).lines().map_while(|line| line.ok());
        let said = said.take_while(|line| !line.contains("Ctrl-C")).collect::<Vec<_>>().join("\n");
        (Self { make, port, grpc_port }, said)
    }

    /// As Ctrl-C does.
    fn stop(mut self) {
        self.signal(rustix::process::Signal::INT);
        self.make.wait().unwrap();
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let group = rustix::process::Pid::from_child(&self.make);
        // It may be gone already.
        let _ = rustix::process::kill_process_group(group, signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(rustix::process::Signal::KILL);
    }
}

fn in_folder(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null()).env("NO_PROXY", "localhost");
    // What a make around this test has left.
    for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"] {
        command.env_remove(variable);
    }
    command
}

#[test]
fn grpcurl_s_lines_work_as_pasted() {
    if Command::new("grpcurl").arg("--version").output().is_err() {
        return testing::not_run("grpcurl_s_lines_work_as_pasted", "there is no grpcurl");
    }
    let named = |name: &str| blocks(README).into_iter().find(|block| block.name == name).unwrap();
    let (before, block) = (named("grpc"), named("grpc, once it runs"));
    let folder = tempfile::tempdir().unwrap();
    let (server, _) = Server::start(folder.path(), &before.lines);
    let script = format!("set -e\n{}", block.lines.join("\n"));
    let script = script.replace("localhost:9443", &format!("localhost:{}", server.grpc_port.unwrap()));
    let output = in_folder("sh", folder.path()).args(["-c", &script]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(matches(printed.trim(), block.prints.join("\n").trim()), "{printed}");
    server.stop();
}
