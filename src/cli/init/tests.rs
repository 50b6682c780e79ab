//! `init` with a database that is only a file.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command as Process;

use super::owner::Owner;
use super::*;
use crate::cli::MCIAS;
use crate::cli::parse::{Outcome, parse};

/// What was asked of the database: master key or passphrase, issuer, admin, password.
type Asked = RefCell<Option<(String, String, String, String)>>;

fn fake(asked: &Asked) -> impl FnOnce(&Path, Master, &Config, &Username, &Password) -> error::Result<()> {
    move |path, master, config, admin, password| {
        fs::write(path, "database").unwrap();
        fs::write(path.with_extension("db-wal"), "log").unwrap();
        let master = match master {
            Master::Passphrase(passphrase) => passphrase.expose().to_owned(),
            Master::KeyFile(key) => hex_line(&key).to_string(),
        };
        *asked.borrow_mut() = Some((master, config.tokens.issuer.clone(), admin.to_string(), password.expose().into()));
        Ok(())
    }
}

fn plan(args: &[&str]) -> Result<Plan, Failure> {
    let args = ["init"].iter().chain(args).map(OsString::from).collect();
    let Outcome::Run(parsed) = parse(&MCIAS, "mcias", args)? else { panic!("no command") };
    Plan::read(&parsed, |name| match name {
        "GOOD" => Some("correct horse battery".into()),
        "SHORT" => Some("elevenchars".into()),
        "EMPTY" => Some("".into()),
        _ => None,
    })
}

fn good(folder: &Path, args: &[&str]) -> Plan {
    plan(&[&["--dir", folder.to_str().unwrap()], args].concat()).unwrap()
}

fn now() -> Timestamp {
    Clock::System.now()
}

/// Every path below the folder with its mode and contents.
fn tree(folder: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            found.extend(tree(&path).into_iter().map(|(below, entry)| (format!("{name}/{below}"), entry)));
        }
        let contents = if metadata.is_file() { fs::read(&path).unwrap() } else { vec![] };
        found.insert(name, (metadata.permissions().mode() & 0o7777, contents));
    }
    found
}

fn modes(folder: &Path) -> Vec<(String, u32)> {
    tree(folder).into_iter().map(|(name, (mode, _))| (name, mode)).collect()
}

fn text(tree: &BTreeMap<String, (u32, Vec<u8>)>, name: &str) -> String {
    String::from_utf8(tree[name].1.clone()).unwrap()
}

/// The settings of `mcias.conf`, as `section.key`.
fn config(tree: &BTreeMap<String, (u32, Vec<u8>)>) -> BTreeMap<String, String> {
    let text = text(tree, "mcias.conf");
    let mut settings = BTreeMap::new();
    for (section, keys) in toml::de::DeTable::parse(&text).unwrap().get_ref() {
        for (key, value) in keys.get_ref().as_table().unwrap() {
            let value = value.get_ref().as_str().unwrap().to_owned();
            settings.insert(format!("{}.{}", section.get_ref(), key.get_ref()), value);
        }
    }
    settings
}

#[test]
fn everything_is_made_and_private_whatever_the_umask() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("new");
    let asked = Asked::default();
    // For the whole process; the other tests' files don't depend on it.
    let before = rustix::process::umask(rustix::fs::Mode::empty());
    let made = make(&good(&folder, &[]), now(), fake(&asked));
    rustix::process::umask(before);
    made.unwrap();

    assert_eq!(folder.metadata().unwrap().mode() & 0o7777, 0o700);
    let expected = [
        ("admin-password", 0o600),
        ("master.key", 0o600),
        ("mcias.conf", 0o600),
        ("mcias.db", 0o600),
        ("mcias.db-wal", 0o600),
        ("tls", 0o755),
        ("tls/ca.crt", 0o644),
        ("tls/ca.key", 0o600),
        ("tls/server.crt", 0o644),
        ("tls/server.key", 0o600),
    ];
    assert_eq!(modes(&folder), expected.map(|(name, mode)| (name.to_owned(), mode)));

    let tree = tree(&folder);
    let (master, issuer, admin, password) = asked.take().unwrap();
    assert_eq!(text(&tree, "master.key"), master);
    assert!(master.len() == 65 && master.trim_end().bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(text(&tree, "admin-password"), format!("{password}\n"));
    assert_eq!((issuer.as_str(), admin.as_str()), ("https://localhost:8443", "admin"));

    let config = config(&tree);
    assert_eq!(config.get("server.listen_addr").map(String::as_str), Some("127.0.0.1:8443"));
    assert_eq!(config.get("tokens.issuer").map(String::as_str), Some("https://localhost:8443"));
    for (section, key) in
        [("server", "tls_cert"), ("server", "tls_key"), ("database", "path"), ("master_key", "keyfile")]
    {
        let path = &config[&format!("{section}.{key}")];
        assert!(Path::new(path).is_relative() && folder.join(path).is_file(), "{section}.{key} is {path}");
    }
    assert_eq!(config.len(), 6, "{config:?}");
}

#[test]
fn an_existing_folder_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tls")).unwrap();
    fs::write(folder.path().join("tls/notes"), "mine").unwrap();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o751)).unwrap();
    fs::set_permissions(folder.path().join("tls"), PermissionsExt::from_mode(0o711)).unwrap();
    make(&good(folder.path(), &[]), now(), fake(&Asked::default())).unwrap();
    assert_eq!(folder.path().metadata().unwrap().mode() & 0o7777, 0o751);
    assert_eq!(folder.path().join("tls").metadata().unwrap().mode() & 0o7777, 0o711);
    assert_eq!(fs::read(folder.path().join("tls/notes")).unwrap(), b"mine");
}

#[test]
fn what_is_there_is_refused_by_name_and_nothing_is_touched() {
    for name in [
        "mcias.conf",
        "tls/ca.crt",
        "tls/ca.key",
        "tls/server.crt",
        "tls/server.key",
        "master.key",
        "admin-password",
        "mcias.db",
        "mcias.db-wal",
        "mcias.db.before-v2",
    ] {
        for link in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if link {
                symlink("nowhere", &path).unwrap()
            } else {
                fs::write(&path, "mine").unwrap()
            }
            let before = tree(folder.path());
            let unasked = |_: &Path, _, _: &Config, _: &Username, _: &Password| panic!("made a database");
            let failure = make(&good(folder.path(), &["--passphrase-env", "GOOD"]), now(), unasked).unwrap_err();
            assert_eq!(failure.message, format!("{} is there already; nothing was changed", path.display()));
            assert_eq!(tree(folder.path()), before);
        }
    }
}

#[test]
fn a_second_time_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let plan = good(folder.path(), &[]);
    make(&plan, now(), fake(&Asked::default())).unwrap();
    let before = tree(folder.path());
    assert_eq!(make(&plan, now(), fake(&Asked::default())).unwrap_err().code, 1);
    assert_eq!(tree(folder.path()), before);
}

#[test]
fn a_failure_halfway_takes_everything_back_and_nothing_else() {
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("notes"), "mine").unwrap();
    let before = tree(outer.path());
    for folder in [outer.path().join("new"), outer.path().to_owned()] {
        let plan = good(&folder, &[]);
        let asked = Asked::default();
        let failure = make(&plan, now(), |path, master, config, admin, password| {
            fake(&asked)(path, master, config, admin, password)?;
            assert!(tree(&folder).len() >= 9, "{:?}", modes(&folder));
            Err(Error::internal("disk full"))
        });
        assert_eq!(failure.unwrap_err(), Failure::new("disk full"));
        assert_eq!(tree(outer.path()), before);

        // The configuration comes last: something has taken its place in the meantime.
        let failure = make(&plan, now(), |path, master, issuer, admin, password| {
            fs::create_dir(&plan.layout.config).unwrap();
            fake(&asked)(path, master, issuer, admin, password)
        });
        assert!(failure.unwrap_err().message.contains("mcias.conf: File exists"));
        fs::remove_dir(&plan.layout.config).unwrap();
        if folder != outer.path() {
            fs::remove_dir(&folder).unwrap();
        }
        assert_eq!(tree(outer.path()), before);
    }
}

#[test]
fn a_folder_that_cannot_be_is_a_failure() {
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("file"), "mine").unwrap();
    fs::write(outer.path().join("tls"), "mine").unwrap();
    let before = tree(outer.path());
    for folder in ["file", "none/below", "."] {
        let plan = good(&outer.path().join(folder), &[]);
        assert_eq!(make(&plan, now(), fake(&Asked::default())).unwrap_err().code, 1, "{folder}");
        assert_eq!(tree(outer.path()), before);
    }
}

#[test]
fn a_database_that_is_a_link_is_not_given_away() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("new");
    let victim = outer.path().join("victim");
    fs::write(&victim, "mine").unwrap();
    fs::set_permissions(&victim, PermissionsExt::from_mode(0o644)).unwrap();
    for hard in [false, true] {
        let failure = make(&good(&folder, &[]), now(), |path, _, _, _, _| {
            if hard {
                fs::hard_link(&victim, path).unwrap()
            } else {
                symlink(&victim, path).unwrap()
            }
            Ok(())
        });
        assert_eq!(failure.unwrap_err().code, 1);
        assert_eq!(victim.metadata().unwrap().mode() & 0o7777, 0o644);
        assert!(!folder.exists());
    }
}

#[test]
fn with_a_passphrase_there_is_no_key_file() {
    let folder = tempfile::tempdir().unwrap();
    let asked = Asked::default();
    make(&good(folder.path(), &["--passphrase-env", "GOOD"]), now(), fake(&asked)).unwrap();
    assert_eq!(asked.take().unwrap().0, "correct horse battery");
    let tree = tree(folder.path());
    assert!(!tree.contains_key("master.key"));
    let config = config(&tree);
    assert!(!config.contains_key("master_key.keyfile"));
    assert_eq!(config.get("master_key.passphrase_env").map(String::as_str), Some("GOOD"));
    for contents in tree.values().map(|(_, contents)| String::from_utf8_lossy(contents)) {
        assert!(!contents.contains("correct horse"));
    }
    for (name, message) in [
        ("NONE", "NONE is not set: it must hold the passphrase"),
        ("EMPTY", "EMPTY is not set: it must hold the passphrase"),
        ("SHORT", "the passphrase in SHORT must have at least 12 characters"),
    ] {
        assert_eq!(plan(&["--passphrase-env", name]).err(), Some(Failure::new(message)));
    }
}

#[test]
fn names_go_into_the_certificate_the_issuer_and_the_address() {
    let folder = tempfile::tempdir().unwrap();
    let asked = Asked::default();
    let args =
        ["--hostname", "*.example.com", "--hostname", "Auth.example.com", "-hostname=2001:db8::1", "--admin", "Root"];
    let plan_ = good(folder.path(), &args);
    make(&plan_, now(), fake(&asked)).unwrap();
    let (_, issuer, admin, _) = asked.take().unwrap();
    assert_eq!((issuer.as_str(), admin.as_str()), ("https://auth.example.com:8443", "root"));
    let config = config(&tree(folder.path()));
    assert_eq!(config.get("server.listen_addr").map(String::as_str), Some("0.0.0.0:8443"));
    assert_eq!(plan_.hosts.len(), 3);

    for (args, issuer) in [
        (["--hostname", "2001:db8::1"], "https://[2001:db8::1]:8443"),
        (["--hostname", "192.0.2.1"], "https://192.0.2.1:8443"),
        (["--hostname", "*.example.com"], "https://localhost:8443"),
        (["--issuer", "https://sso/x"], "https://sso/x"),
    ] {
        assert_eq!(plan(&args).unwrap().issuer, issuer);
    }
}

#[test]
fn flags_that_make_no_sense_are_named() {
    for (args, message) in [
        (["--hostname", "https://a"].as_slice(), "--hostname: a host name must be"),
        (&["--admin", ".x"], "--admin: username must be"),
        (&["--issuer", "auth.example.com"], "--issuer: "),
        (&["--issuer", "https://"], "--issuer: "),
        (&["--issuer", "https://a\"b"], "--issuer: "),
        (&["--issuer", "https://a b"], "--issuer: "),
        (&["--dir", "x", "--system"], "--dir and --system exclude each other"),
        (&["--dir", ""], "--dir is empty"),
        (&["--passphrase-env", "A B"], "--passphrase-env must be the name of a variable"),
        (&["--passphrase-env", "1A"], "--passphrase-env must be the name of a variable"),
        (&["--passphrase-env="], "--passphrase-env must be the name of a variable"),
    ] {
        let failure = plan(args).err().unwrap_or_else(|| panic!("{args:?} was taken"));
        assert!(failure.code == 2 && failure.message.starts_with(message), "{args:?}: {failure:?}");
        assert!(failure.message.ends_with("; see 'mcias init --help'"), "{failure:?}");
    }
}

#[test]
fn an_installed_system_has_its_files_read_by_the_server_and_owned_by_root() {
    if !rustix::process::geteuid().is_root() {
        return crate::testing::not_run(
            "an_installed_system_has_its_files_read_by_the_server_and_owned_by_root",
            "only root can give files away",
        );
    }
    let outer = tempfile::tempdir().unwrap();
    let (etc, var) = (outer.path().join("etc"), outer.path().join("var"));
    let owner = Owner { uid: 60998, gid: 60997 };
    let mut plan = good(&etc, &[]);
    plan.layout = Layout::new(&etc, &var, Some(owner));
    make(&plan, now(), fake(&Asked::default())).unwrap();
    for (path, uid, gid, mode) in [
        ("etc", 0, owner.gid, 0o750),
        ("etc/mcias.conf", 0, owner.gid, 0o640),
        ("etc/master.key", 0, owner.gid, 0o640),
        ("etc/admin-password", 0, 0, 0o600),
        ("etc/tls", 0, 0, 0o755),
        ("etc/tls/ca.crt", 0, 0, 0o644),
        ("etc/tls/ca.key", 0, 0, 0o600),
        ("etc/tls/server.crt", 0, 0, 0o644),
        ("etc/tls/server.key", 0, owner.gid, 0o640),
        ("var", owner.uid, owner.gid, 0o700),
        ("var/mcias.db", owner.uid, owner.gid, 0o600),
        ("var/mcias.db-wal", owner.uid, owner.gid, 0o600),
    ] {
        let metadata = outer.path().join(path).metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (uid, gid, mode), "{path}");
    }
    let config = config(&tree(&etc));
    assert_eq!(config.get("database.path").map(String::as_str), var.join("mcias.db").to_str());
    assert_eq!(config.get("master_key.keyfile").map(String::as_str), etc.join("master.key").to_str());

    fs::remove_dir_all(&etc).unwrap();
    fs::remove_dir_all(&var).unwrap();
    fs::create_dir(&var).unwrap();
    let failure = make(&plan, now(), fake(&Asked::default())).unwrap_err();
    assert!(failure.message.ends_with("var must belong to the user 'mcias'"), "{failure:?}");
    assert!(!etc.exists());
}

#[test]
fn passwords_are_long_random_and_easy_to_type() {
    let mut seen = std::collections::HashSet::new();
    for _ in 0..200 {
        let password = new_password().unwrap();
        let groups: Vec<&str> = password.expose().split('-').collect();
        assert!(groups.len() == 5 && groups.iter().all(|group| group.len() == 5), "{}", password.expose());
        assert!(groups.concat().bytes().all(|b| ALPHABET.contains(&b)));
        seen.extend(groups.concat().into_bytes());
    }
    assert_eq!(seen.len(), ALPHABET.len());
    assert!((ALPHABET.len() as f64).log2() * 25.0 >= 115.0);
    assert!(!ALPHABET.iter().any(|b| b"01ilo".contains(b)));
}

#[test]
fn what_to_run_next_can_be_pasted() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("it's a folder");
    let mut plan = good(&folder, &["--passphrase-env", "GOOD"]);
    let asked = Asked::default();
    make(&plan, now(), fake(&asked)).unwrap();
    let password = asked.take().unwrap().3;
    let show = "for a in \"$@\"; do echo \"<$a>\"; done";
    let functions = format!("mcias() {{ {show}; [ \"${{6-}}\" != login ] || cat; }}; su() {{ eval \"$5\"; }}\n");
    let shown = |plan: &Plan| {
        let script = format!("{functions}{}", text::next_steps(plan, OsStr::new("mcias"), false));
        let output = Process::new("sh").args(["-eu", "-c", &script]).output().unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let folder = folder.to_str().unwrap();
    let ctl = format!("<ctl>\n<--server>\n<https://localhost:8443>\n<--cacert>\n<{folder}/tls/ca.crt>\n");
    let expected = format!(
        "<server>\n<--config>\n<{folder}/mcias.conf>\n{ctl}<login>\n<--username>\n<admin>\n<--password-stdin>\n\
         <--save>\n{password}\n{ctl}<account>\n<list>\n"
    );
    assert_eq!(shown(&plan), expected);
    assert!(text::next_steps(&plan, OsStr::new("mcias"), true).contains("\nexport GOOD\n"));
    plan.layout.owner = Some(Owner { uid: 1, gid: 1 });
    assert_eq!(shown(&plan), expected);
    let under_systemd = text::next_steps(&plan, OsStr::new("mcias"), true);
    assert!(under_systemd.contains("\nsystemctl enable --now mcias\n"), "{under_systemd}");
    assert!(
        under_systemd.contains("GOOD=... in /etc/mcias/env") && !under_systemd.contains("export"),
        "{under_systemd}"
    );
}
