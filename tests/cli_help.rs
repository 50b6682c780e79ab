//! The real executable: which role it takes itself for, its help word for word, where it prints and how it exits.
//! `UPDATE_GOLDEN=1` rewrites the golden files.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const MCIAS: &str = env!("CARGO_BIN_EXE_mcias");

fn run(program: &Path, args: &[&str]) -> Output {
    Command::new(program).args(args).stdin(Stdio::null()).output().unwrap()
}

fn mcias(args: &[&str]) -> Output {
    run(Path::new(MCIAS), args)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn says(output: &Output, code: i32, stdout: &str, stderr: &str) {
    assert_eq!((output.status.code(), text(&output.stdout), text(&output.stderr)), (Some(code), stdout, stderr));
}

/// The same text on standard output as in the file.
#[track_caller]
fn golden(name: &str, output: &Output) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/help").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &output.stdout).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    says(output, 0, &expected, "");
}

#[test]
fn help_is_word_for_word_what_it_was() {
    golden("mcias", &mcias(&["--help"]));
    for command in ["init", "version", "help", "server", "completions", "ctl"] {
        golden(&format!("mcias-{command}"), &mcias(&[command, "--help"]));
        golden(&format!("mcias-{command}"), &mcias(&[command, "-h"]));
        golden(&format!("mcias-{command}"), &mcias(&["help", command]));
    }
    golden("mcias", &mcias(&["help"]));
    golden("mciassrv", &mcias(&["help", "mciassrv"]));
}

#[test]
fn a_link_of_a_role_s_name_is_that_role() {
    let folder = tempfile::tempdir().unwrap();
    let link = |name: &str| {
        let path = folder.path().join(name);
        symlink(MCIAS, &path).unwrap();
        path
    };
    let server = link("mciassrv");
    golden("mciassrv", &run(&server, &["--help"]));
    says(&run(&server, &["--version"]), 0, "mciassrv 0.1.0\n", "");
    let missing = "mciassrv: --config FILE is missing; see 'mciassrv --help'\n";
    says(&run(&server, &[]), 2, "", missing);
    let output = run(&server, &["-config", "F", "-config=F"]);
    says(&output, 2, "", "mciassrv: --config is given twice; see 'mciassrv --help'\n");
    // No role's name, whatever it begins or ends with.
    for name in ["xmciassrv", "mciassrv2", "mcias-0.1.0"] {
        golden("mcias", &run(&link(name), &["--help"]));
    }
}

#[test]
fn versions() {
    says(&mcias(&["version"]), 0, "mcias 0.1.0\n", "");
    says(&mcias(&["--version"]), 0, "mcias 0.1.0\n", "");
    says(&mcias(&["server", "--version"]), 0, "mciassrv 0.1.0\n", "");
    let output = mcias(&["version", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((json["name"].as_str(), json["version"].as_str()), (Some("mcias"), Some("0.1.0")));
    assert!(json["target"].as_str().unwrap().starts_with(std::env::consts::ARCH));
    assert!(json["roles"].as_array().unwrap().contains(&"server".into()));
}

#[test]
fn what_was_asked_wrongly_is_exit_2_on_stderr() {
    let help = mcias(&["--help"]).stdout;
    says(&mcias(&[]), 2, "", text(&help));
    for (args, message) in [
        (["nonsense"].as_slice(), "unknown command 'nonsense'; see 'mcias --help'"),
        (&["\u{1b}[31m"], r"unknown command '\u{1b}[31m'; see 'mcias --help'"),
        (&["init", "--nonsense"], "unknown flag --nonsense; see 'mcias init --help'"),
        (&["init", "--dir"], "--dir needs a value (DIR); see 'mcias init --help'"),
        (
            &["init", "--hostname", "a:1"],
            "--hostname: a host name must be a DNS name in ASCII or an IP address, without scheme, port or brackets; see 'mcias init --help'",
        ),
        (&["server"], "--config FILE is missing; see 'mcias server --help'"),
        (
            &["server", "--config", "F", "hunter2"],
            "'mcias server' takes no argument beside its flags; see 'mcias server --help'",
        ),
        (&["version", "--json=hunter2"], "--json takes no value; see 'mcias version --help'"),
        (&["help", "nonsense"], "unknown role 'nonsense'; see 'mcias help --help'"),
    ] {
        says(&mcias(args), 2, "", &format!("mcias: {message}\n"));
    }
}

#[test]
fn a_failure_is_exit_1_and_one_line_on_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in\nstance");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("mcias.conf"), "").unwrap();
    let shown = path.display().to_string().replace('\n', r"\n");
    let output = mcias(&["init", "--dir", path.to_str().unwrap()]);
    says(&output, 1, "", &format!("mcias: {shown}/mcias.conf is there already; nothing was changed\n"));
    let dir = folder.path().join("new");
    let output = mcias(&["init", "--dir", dir.to_str().unwrap(), "--passphrase-env", "MCIAS_TEST_UNSET"]);
    says(&output, 1, "", "mcias: MCIAS_TEST_UNSET is not set: it must hold the passphrase\n");
    assert!(!dir.exists());
}

#[test]
fn a_reader_that_goes_away_is_no_failure_and_a_full_disk_is() {
    let script = format!("{{ '{MCIAS}' --help; echo $? >&2; }} | true; '{MCIAS}' --help >/dev/full; echo $? >&2");
    // The reader may be gone before or after the help is written: exit code 0 either way.
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let full = "mcias: cannot write to standard output: No space left on device (os error 28)";
    assert_eq!(text(&output.stderr), format!("0\n{full}\n1\n"));
}
