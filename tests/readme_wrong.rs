//! Does what README.md says to do when things go wrong, line by line as it stands there: each block that is marked
//! `<!-- test: wrong, … -->` on an installed system of its own, on which the thing has gone wrong before.
//!
//! Only names are replaced: `/etc/mcias`, `/var/lib/mcias` and `/mnt/backup` by folders of the test's, the server's
//! address by the real one, and `systemctl` by a script that starts and stops the server in the same way. A line of a
//! block after `<!-- types: … -->` that asks on a terminal is given that, as often as it asks.

mod support;

#[path = "support/readme.rs"]
mod readme;
#[path = "support/shown.rs"]
mod shown;
#[path = "../src/testing.rs"]
mod testing;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use readme::Block;
use shown::matches;
use support::{Instance, MCIAS, Terminal, eventually};

/// What `systemctl` is to a server that no systemd runs. Restarting and reloading are over when they have had effect, as
/// with a unit of `Type=notify`.
const SYSTEMCTL: &str = r#"#!/bin/sh
cd "$(dirname "$0")/.." || exit 1
start() {
    bin/mcias server --config etc/mcias.conf </dev/null >/dev/null 2>server.log &
    echo $! >server.pid
    until grep -q listening server.log; do kill -0 "$(cat server.pid)" || { cat server.log >&2; exit 1; }; sleep 0.05; done
}
stop() {
    kill "$(cat server.pid)"
    while kill -0 "$(cat server.pid)" 2>/dev/null; do sleep 0.05; done
}
case "$1 $2" in
    "start mcias") start ;;
    "stop mcias") stop ;;
    "restart mcias") stop; start ;;
    "reload mcias") kill -HUP "$(cat server.pid)"; until grep -q 'certificate' server.log; do sleep 0.05; done ;;
    *) exit 1 ;;
esac
"#;

/// An installed system, as far as the lines can tell.
struct System {
    instance: Instance,
    port: u16,
}

impl System {
    /// With a running server, an admin who is logged in, alice with one-time codes, and the program wiki with a token.
    fn new() -> Self {
        let mut instance = Instance::new();
        // A port that was free a moment ago: a server that is started again has to be where it was.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        instance.set("server", "listen_addr", &format!("\"127.0.0.1:{port}\""));
        for folder in ["etc", "var", "backup", "bin", "home"] {
            fs::create_dir_all(instance.path(folder)).unwrap();
        }
        instance.set("database", "path", &format!("\"{}\"", instance.path("var/mcias.db").display()));
        fs::rename(instance.path("mcias.db"), instance.path("var/mcias.db")).unwrap();
        for name in ["mcias.conf", "tls", "master.key", "admin-password"] {
            fs::rename(instance.path(name), instance.path(&format!("etc/{name}"))).unwrap();
        }
        assert!(instance.run(&["links", "bin"]).status.success());
        std::os::unix::fs::symlink(MCIAS, instance.path("bin/mcias")).unwrap();
        instance.write("bin/systemctl", SYSTEMCTL);
        instance.chmod("bin/systemctl", 0o755);
        let system = Self { instance, port };
        system.well("systemctl start mcias");
        system.well(
            "mciasctl account create --username wiki --type system && mciasctl token issue --account wiki >wiki.token
            echo 'a walrus drinks cold tea' | mciasctl account create --username alice --type human --password-stdin",
        );
        system
    }

    fn path(&self, name: &str) -> PathBuf {
        self.instance.path(name)
    }

    /// A line of README.md as it has to be here.
    fn real(&self, line: &str) -> String {
        let folder = self.instance.folder().display();
        line.replace("/etc/mcias", &format!("{folder}/etc"))
            .replace("/var/lib/mcias", &format!("{folder}/var"))
            .replace("/mnt/backup", &format!("{folder}/backup"))
            .replace("auth.example.com:8443", &format!("localhost:{}", self.port))
    }

    fn environment(&self, command: &mut Command) {
        let path = std::env::var("PATH").unwrap();
        command.env_clear().env("PATH", format!("{}:{path}", self.path("bin").display()));
        command.env("HOME", self.path("home")).env("NO_PROXY", "localhost").current_dir(self.instance.folder());
    }

    /// Runs lines in one shell, after those that README.md has before each.
    fn run(&self, lines: &str) -> Output {
        let before: Vec<_> = blocks("before each").iter().flat_map(|block| block.lines.clone()).collect();
        // Not while the server is away, and not once its admin is another.
        let before: Vec<_> = before.iter().map(|line| format!("{line} 2>/dev/null || true")).collect();
        let script = format!("{}\nset -e\n{lines}", self.real(&before.join("\n")));
        let mut command = Command::new("sh");
        self.environment(command.args(["-c", &script]));
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// Runs lines; what goes wrong fails the test.
    #[track_caller]
    fn well(&self, lines: &str) -> String {
        let output = self.run(lines);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{lines}\n{out}{err}\n{}", self.log());
        out.into_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("server.log")).unwrap_or_default()
    }

    /// Does what README.md says under this name, and holds what is printed against what it shows.
    #[track_caller]
    fn follow(&self, name: &str) {
        let found = blocks(name);
        assert_eq!(found.len(), 1, "README.md has no block, or several, for {name}");
        let block = &found[0];
        let printed = match &block.types {
            None => self.well(&self.real(&block.lines.join("\n"))),
            Some(typed) => block.lines.iter().map(|line| self.typed(&self.real(line), typed)).collect(),
        };
        let printed: Vec<_> = printed.lines().filter(|line| !line.is_empty()).collect();
        let shown: Vec<_> = block.prints.iter().map(|line| self.real(line)).collect();
        let as_shown = shown.is_empty()
            || (printed.len() == shown.len() && printed.iter().zip(&shown).all(|(line, shown)| matches(line, shown)));
        assert!(as_shown, "{name} prints\n{printed:#?}\nbut README.md shows\n{shown:#?}");
    }

    /// A line on a terminal; every question gets the same answer.
    #[track_caller]
    fn typed(&self, line: &str, answer: &str) -> String {
        let mut terminal = Terminal::of(line, self.path("terminal"), |command| self.environment(command));
        while terminal.asks(": ") {
            terminal.types_unseen(answer);
        }
        let (code, shown) = terminal.ends();
        assert_eq!(code, Some(0), "{line}\n{shown}");
        String::new()
    }

    /// Whether a login works; the code is the one that is wanted, if there is one.
    fn logs_in(&self, user: &str, password: &str) -> bool {
        self.run(&format!("echo '{password}' | mciasctl login --username {user} --password-stdin")).status.success()
    }

    fn is_good(&self, token: &str) -> bool {
        self.run(&format!("mciasctl token validate --token-stdin <{token}")).status.success()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.path("server.pid")).unwrap_or_default();
        let _ = Command::new("kill").args(["-KILL", pid.trim()]).stderr(Stdio::null()).status();
    }
}

fn blocks(name: &str) -> Vec<Block> {
    let wanted = format!("wrong, {name}");
    readme::blocks(include_str!("../README.md")).into_iter().filter(|block| block.name == wanted).collect()
}

fn has(tool: &str) -> bool {
    Command::new(tool).arg("--version").stdin(Stdio::null()).output().is_ok()
}

#[test]
fn a_backup_is_made() {
    let system = System::new();
    system.follow("backup");
    assert!(system.path("backup/mcias-1.db").exists());
}

#[test]
fn a_lost_admin_password() {
    if !Terminal::is_possible() {
        return testing::not_run("a_lost_admin_password", "there is no script, of util-linux");
    }
    let system = System::new();
    system.well(
        "mciasdb --config etc/mcias.conf role revoke --id admin --role admin
        mciasdb --config etc/mcias.conf account set-status --id admin --status suspended",
    );
    system.follow("password");
    assert!(system.logs_in("admin", "a walrus in the morning"));
    let roles = "T=$(echo 'a walrus in the morning' | mciasctl login --username admin --password-stdin)
        MCIAS_TOKEN=$T mciasctl account list";
    assert!(system.well(roles).contains("wiki"));
}

#[test]
fn a_lost_device() {
    if !has("oathtool") {
        return testing::not_run("a_lost_device", "there is no oathtool");
    }
    let system = System::new();
    let turn_on = |user: &str, password: &str| {
        system.well(&format!(
            "export MCIAS_TOKEN=$({password} | mciasctl login --username {user} --password-stdin)
            SECRET=$({password} | mciasctl totp enroll --password-stdin | sed 's/.*secret=\\([A-Z2-7]*\\).*/\\1/')
            mciasctl totp confirm --code $(oathtool --totp -b $SECRET)"
        ));
    };
    turn_on("alice", "echo 'a walrus drinks cold tea'");
    assert!(!system.logs_in("alice", "a walrus drinks cold tea"));
    system.follow("device");
    assert!(system.logs_in("alice", "a walrus drinks cold tea"));
    // The admin's own, which nobody but mciasdb can turn off.
    turn_on("admin", "cat etc/admin-password");
    let password = system.instance.text("etc/admin-password");
    assert!(!system.logs_in("admin", password.trim()));
    let lines = &blocks("device")[0].lines;
    system.well(&system.real(&lines[1]));
    assert!(system.logs_in("admin", password.trim()));
}

#[test]
fn a_leaked_token() {
    let system = System::new();
    assert!(system.is_good("wiki.token"));
    system.follow("token");
    assert!(!system.is_good("wiki.token"));
}

#[test]
fn a_leaked_signing_key() {
    let system = System::new();
    assert!(system.is_good("wiki.token"));
    system.follow("signing key");
    assert!(!system.is_good("wiki.token"));
    system.well("mciasctl token issue --account wiki");
}

#[test]
fn a_leaked_master_key() {
    let system = System::new();
    fs::copy(system.path("etc/master.key"), system.path("leaked.key")).unwrap();
    system.follow("master key");
    assert!(system.is_good("wiki.token") && system.logs_in("alice", "a walrus drinks cold tea"));
    let config = system.instance.text("etc/mcias.conf").replace("master.key", "../leaked.key");
    system.instance.write("etc/leaked.conf", config);
    let output = system.run("mciasdb --config etc/leaked.conf account list");
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not open"), "{output:?}");
    assert_eq!(fs::read(system.path("etc/master.key.old")).unwrap(), fs::read(system.path("leaked.key")).unwrap());
    system.well("mciasdb --config etc/mcias.conf verify --file backup/mcias-2.db");

    // The thief has keys that sign, that verify still and that wait.
    system.well(
        "mciasdb --config etc/mcias.conf keys rotate --now && mciasdb --config etc/mcias.conf keys rotate
        echo 'a walrus drinks cold tea' | mciasctl login --username alice --password-stdin >alice.token",
    );
    let list = || system.well("mciasdb --config etc/mcias.conf keys list");
    let before: Vec<_> = list().lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    system.follow("everything has leaked");
    assert!(!system.is_good("wiki.token") && !system.is_good("alice.token"));
    let after = list();
    for kid in &before {
        let line = after.lines().find(|line| line.starts_with(kid.as_str())).unwrap();
        assert!(line.contains(" revoked "), "{line}");
    }
    assert_eq!(after.matches(" signs ").count(), 2, "{after}");
    system.well("mciasctl account list");
    system.well(
        "mciasdb --config etc/mcias.conf verify && mciasdb --config etc/mcias.conf verify --file backup/mcias-3.db",
    );
}

#[test]
fn a_stolen_backup() {
    let system = System::new();
    system.well("echo 'a walrus drinks cold tea' | mciasctl login --username alice --password-stdin >alice.token");
    system.follow("stolen backup");
    assert!(!system.is_good("alice.token") && system.is_good("wiki.token"));
}

#[test]
fn a_forgotten_passphrase() {
    if !has("sqlite3") {
        return testing::not_run("a_forgotten_passphrase", "there is no sqlite3");
    }
    let system = System::new();
    system.follow("passphrase");
    let password = system.instance.text("etc/admin-password");
    assert!(system.logs_in("admin", password.trim()));
    assert!(system.well("mciasctl account list").contains("admin"));
}

#[test]
fn a_full_disk() {
    let mounted = |at: &Path| {
        let options = ["-t", "tmpfs", "-o", "size=6m,mode=0700", "tmpfs"];
        Command::new("mount").args(options).arg(at).status().is_ok_and(|status| status.success())
    };
    let system = System::new();
    system.well("systemctl stop mcias && cp var/mcias.db backup");
    let disk = system.path("var");
    if !mounted(&disk) {
        return testing::not_run("a_full_disk", "a tmpfs can't be mounted here");
    }
    system.well("cp backup/mcias.db var && systemctl start mcias && mciasctl role grant --account alice --role a");
    let _ = Command::new("dd").args(["if=/dev/zero", "bs=512"]).arg(format!("of={}/filler", disk.display())).output();
    eventually("a write is refused", || {
        let one = system.run("mciasctl role grant --account alice --role b").status.success();
        let other = system.run("mciasctl role revoke --account alice --role b").status.success();
        !one || !other
    });
    assert!(system.is_good("wiki.token"), "checks go on");
    // What README.md tells to look at first, then room, then the rest.
    let block = &blocks("disk")[0];
    let (look, after) = block.lines.split_at(2);
    let told = system.well(&system.real(&look.join("\n")));
    assert!(matches(told.lines().last().unwrap(), &block.prints[2]), "{told}");
    fs::remove_file(disk.join("filler")).unwrap();
    eventually("it comes back by itself", || {
        system.run("mciasctl role grant --account alice --role c").status.success()
    });
    let told = system.well(&system.real(&after.join("\n")));
    assert!(matches(told.lines().last().unwrap(), &block.prints[3]), "{told}");
    system.well("mciasctl role grant --account alice --role d && systemctl stop mcias");
    let _ = Command::new("umount").arg("-l").arg(&disk).status();
}

#[test]
fn a_clock_that_was_wrong() {
    let system = System::new();
    system.well("systemctl stop mcias");
    // As if it had been a day ahead for a moment.
    std::os::unix::fs::symlink("var/mcias.db", system.path("mcias.db")).unwrap();
    system.instance.event_in_the_future(86_400);
    system.well("systemctl start mcias");
    let ask = "curl -sS --cacert etc/tls/ca.crt $MCIAS_SERVER/v1/ready";
    assert!(system.well(ask).contains("clock is behind"));
    system.follow("clock");
    eventually("it serves", || system.well(ask).contains("ready"));
    system.well("mciasctl token issue --account wiki && mciasdb --config etc/mcias.conf audit verify");
}

#[test]
fn a_certificate_that_has_ended() {
    let system = System::new();
    let shown = || {
        let port = system.port;
        system.well(&format!(
            "openssl s_client -connect localhost:{port} -CAfile etc/tls/ca.crt </dev/null 2>/dev/null |
                openssl x509 -noout -serial"
        ))
    };
    let before = shown();
    system.follow("certificate");
    eventually("the next certificate is shown", || shown() != before);
    system.well("mciasctl account list");
}

#[test]
fn a_lost_database() {
    let system = System::new();
    system.follow("backup");
    system.well("echo 'the one and only bob' | mciasctl account create --username bob --type human --password-stdin");
    system.follow("restore");
    assert!(!system.is_good("wiki.token"), "no token of the backup's time counts");
    let accounts = system.well("mciasctl account list");
    assert!(accounts.contains("alice") && !accounts.contains("bob"), "{accounts}");
    assert!(system.logs_in("alice", "a walrus drinks cold tea"));
}

#[test]
fn another_machine() {
    let system = System::new();
    system.follow("move, on the old machine");
    // The new one has what was taken over, and no database.
    system.well("mkdir gone && mv var/mcias.db* gone");
    system.follow("move, on the new machine");
    assert!(system.is_good("wiki.token") && system.logs_in("alice", "a walrus drinks cold tea"));
}

#[test]
fn every_block_is_followed() {
    let source = include_str!("readme_wrong.rs");
    for block in readme::blocks(include_str!("../README.md")) {
        let Some(name) = block.name.strip_prefix("wrong, ") else { continue };
        let followed = [format!("follow(\"{name}\")"), format!("blocks(\"{name}\")")];
        assert!(followed.iter().any(|words| source.contains(words)), "nobody follows {name}");
    }
}
