//! The server's life: what keeps it from starting and how it says so, how it stops, what it does on a signal, and what
//! it tells the service manager.

mod support;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Output;
use std::sync::mpsc;
use std::time::Duration;

use mcias::cli::pki;
use mcias::model::time::Timestamp;
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use support::{Instance, PATIENCE, Server, eventually, now, tree, trusting};

const PASSPHRASE: &str = "correct horse battery staple";
const VARIABLE: &str = "MCIAS_MASTER_PASSPHRASE";

/// Insists that the server doesn't start, says this with exit code 1, and leaves the database as it was.
#[track_caller]
fn refuses(instance: &Instance, words: &[&str]) {
    let before = instance.read("mcias.db");
    instance.refuses().says(1, words);
    assert!(instance.read("mcias.db") == before, "the database was changed");
    nothing_is_left_behind(instance);
}

/// A clean end leaves the database in one file.
#[track_caller]
fn nothing_is_left_behind(instance: &Instance) {
    for name in ["mcias.db-wal", "mcias.db-shm", "mcias.db-journal"] {
        assert!(!instance.path(name).exists(), "{name} is left");
    }
}

#[test]
fn a_wrong_master_key_is_told_and_changes_nothing() {
    let mut instance = Instance::new();
    let wrong = "the master key does not open this database";
    let right = instance.read("master.key");
    for other in ["0".repeat(64) + "\n", "ab".repeat(32), "\0".repeat(32)] {
        instance.write("master.key", other);
        refuses(&instance, &[wrong]);
    }
    let key = instance.path("master.key").display().to_string();
    for (bad, why) in [("", "holds 0 bytes"), ("0123", "holds 4 bytes"), (&"x".repeat(64), "not all hex digits")] {
        instance.write("master.key", bad);
        refuses(&instance, &["keyfile", &key, why]);
    }
    std::fs::remove_file(&key).unwrap();
    refuses(&instance, &["keyfile", &key, "No such file"]);
    // A passphrase, where there is a key file.
    instance.unset("master_key", "keyfile");
    instance.set("master_key", "passphrase_env", &format!("{VARIABLE:?}"));
    refuses(&instance, &[VARIABLE, "is not set"]);
    instance.env(VARIABLE, "");
    refuses(&instance, &[VARIABLE, "is not set"]);
    instance.env(VARIABLE, PASSPHRASE);
    refuses(&instance, &[wrong, "it needs a key file"]);
    // And it was only that.
    instance.write("master.key", right);
    instance.unset("master_key", "passphrase_env");
    instance.set("master_key", "keyfile", "\"master.key\"");
    let server = instance.start();
    server.admin().get("/v1/accounts").ok(200);
}

#[test]
fn a_passphrase_opens_its_instance_and_no_other_does() {
    let mut instance = Instance::with_passphrase(VARIABLE, PASSPHRASE);
    assert!(!instance.path("master.key").exists());
    let wrong = "the master key does not open this database";
    for other in ["correct horse battery stapler", "Correct horse battery staple", "correct horse battery staple "] {
        instance.env(VARIABLE, other);
        refuses(&instance, &[wrong]);
    }
    instance.unset_env(VARIABLE);
    refuses(&instance, &[VARIABLE, "is not set"]);
    // A key file, where there is a passphrase.
    instance.unset("master_key", "passphrase_env");
    instance.set("master_key", "keyfile", "\"master.key\"");
    instance.write("master.key", "ab".repeat(32));
    refuses(&instance, &[wrong, "it needs a passphrase"]);
    // The same passphrase out of a file, whose one line end is no part of it.
    instance.unset("master_key", "keyfile");
    instance.set("master_key", "passphrase_file", "\"passphrase\"");
    instance.write("passphrase", format!("{PASSPHRASE}\n\n"));
    refuses(&instance, &[wrong]);
    instance.write("passphrase", "\n");
    refuses(&instance, &["passphrase_file", "is empty"]);
    instance.write("passphrase", format!("{PASSPHRASE}\n"));
    let mut server = instance.start();
    let admin = server.admin();
    // And out of the environment again.
    server.stop();
    server.unset("master_key", "passphrase_file");
    server.set("master_key", "passphrase_env", &format!("{VARIABLE:?}"));
    server.env(VARIABLE, PASSPHRASE);
    server.start_again();
    admin.get("/v1/accounts").ok(200);
}

#[test]
fn files_with_secrets_that_others_may_read_are_refused_by_name() {
    let instance = Instance::new();
    for (name, key) in [("master.key", "[master_key] keyfile"), ("tls/server.key", "[server] tls_key")] {
        let path = instance.path(name).display().to_string();
        for mode in [0o644, 0o604, 0o602, 0o660, 0o666] {
            instance.chmod(name, mode);
            refuses(&instance, &[key, &path, &format!("{mode:04o}"), "chmod"]);
        }
        instance.chmod(name, 0o600);
    }
    let mut instance = Instance::with_passphrase(VARIABLE, PASSPHRASE);
    instance.unset("master_key", "passphrase_env");
    instance.set("master_key", "passphrase_file", "\"passphrase\"");
    instance.write("passphrase", PASSPHRASE);
    instance.chmod("passphrase", 0o644);
    refuses(&instance, &["[master_key] passphrase_file", "0644"]);
    // What the program itself says mends it.
    let refusal = instance.refuses();
    let (_, command) = refusal.stderr.lines().last().unwrap().split_once("mend it with: ").unwrap();
    assert!(std::process::Command::new("sh").args(["-c", command]).status().unwrap().success());
    instance.start().client().get("/v1/ready").ok(200);
}

#[test]
fn a_wrong_configuration_is_named_with_key_file_and_line() {
    let instance = Instance::new();
    let good = instance.text("mcias.conf");
    let path = instance.path("mcias.conf").display().to_string();
    let line_of = |text: &str, word: &str| text.lines().position(|line| line.contains(word)).unwrap() + 1;
    let change = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} isn't in {good}");
        good.replacen(from, to, 1)
    };
    for (text, named, words) in [
        (change("[database]\n", "[database]\nsize = 1\n"), "size = 1", vec!["size"]),
        (change("[database]\n", "[data]\nx = 1\n[database]\n"), "[data]", vec!["data"]),
        (change("listen_addr = \"127.0.0.1:0\"", "listen_addr = 8443"), "listen_addr", vec!["listen_addr"]),
        (change("listen_addr = \"127.0.0.1:0\"", "listen_addr = \"here\""), "listen_addr", vec!["listen_addr"]),
        (change("time = 2", "time = 1"), "time = 1", vec!["time", "2-64"]),
        (change("memory = 65536", "memory = 1024"), "memory = 1024", vec!["memory", "65536"]),
        (change("rps = 1000000", "rps = 0"), "rps = 0", vec!["rps"]),
        (change("[argon2]\n", "[argon2]\ntime = 3\n"), "time = 2", vec!["time"]),
        (change("[tokens]\n", "[tokens]\nadmin_expiry = \"0s\"\n"), "admin_expiry", vec!["admin_expiry"]),
        (change("[tokens]\n", "[tokens]\nadmin_expiry = 8\n"), "admin_expiry", vec!["admin_expiry"]),
        (change("issuer = \"https", "issuer = \"http"), "issuer", vec!["issuer"]),
        (change("level = \"debug\"", "level = \"loud\""), "level", vec!["level", "loud"]),
        (change("[server]\n", "[server]\nmin_tls = \"1.1\"\n"), "min_tls", vec!["min_tls"]),
        (
            change("[server]\n", "[server]\ntrusted_proxies = [\"0.0.0.0/0\"]\n"),
            "trusted_proxies",
            vec!["trusted_proxies"],
        ),
        (change("[master_key]\n", "[master_key]\npassphrase_env = \"X\"\n"), "keyfile", vec!["keyfile", "exactly one"]),
        (change("[argon2]\n", "[argon2\n"), "[argon2", vec![]),
    ] {
        instance.write("mcias.conf", &text);
        let at = format!("{path}:{}", line_of(&text, named));
        let refusal = instance.refuses();
        refusal.says(2, &words);
        assert!(refusal.stderr.contains(&at), "{at} isn't in:\n{}", refusal.stderr);
        assert_eq!(refusal.stderr.lines().count(), 1, "one line:\n{}", refusal.stderr);
    }
    for (missing, section) in
        [("listen_addr", "server"), ("path", "database"), ("issuer", "tokens"), ("keyfile", "master_key")]
    {
        let text: String =
            good.lines().filter(|line| !line.starts_with(missing)).map(|line| format!("{line}\n")).collect();
        instance.write("mcias.conf", text);
        instance.refuses().says(2, &[&path, section, missing]);
    }
    std::fs::remove_file(&path).unwrap();
    instance.refuses().says(2, &[&path, "No such file"]);
    instance.write("mcias.conf", good);
    instance.start().client().get("/v1/ready").ok(200);
}

#[test]
fn a_file_that_the_configuration_names_and_that_is_not_there_is_named() {
    for (section, key) in [("server", "tls_cert"), ("server", "tls_key"), ("passwords", "blocklist_file")] {
        let mut instance = Instance::new();
        instance.set(section, key, "\"gone\"");
        let path = instance.path("gone").display().to_string();
        refuses(&instance, &[&format!("[{section}] {key}"), &path, "No such file"]);
    }
    let mut instance = Instance::new();
    instance.set("database", "path", "\"gone/mcias.db\"");
    instance.refuses().says(1, &[&instance.path("gone/mcias.db").display().to_string(), "No such file"]);
    let instance = Instance::new();
    instance.write("tls/server.crt", "not a certificate");
    refuses(&instance, &["[server] tls_cert", "there is no certificate"]);
    let instance = Instance::new();
    instance.write("tls/server.key", instance.text("tls/ca.key"));
    refuses(&instance, &["[server] tls_cert", "the private key does not belong to"]);
    let instance = Instance::new();
    instance.write("mcias.db", "SQLite this is not, and long enough to look like a file with something in it.");
    refuses(&instance, &["cannot open the database", "not a database"]);
}

#[test]
fn a_database_has_one_server() {
    let mut first = Server::start();
    let second = first.refuses();
    second.says(1, &["another server is running on this database", "mcias.db.lock"]);
    first.client().get("/v1/ready").ok(200);
    first.kill();
    first.start_again();
    first.stop();
    first.is_sound();
}

#[test]
fn a_port_that_somebody_has_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut instance = Instance::new();
    instance.set("server", "listen_addr", &format!("{address:?}"));
    instance.refuses().says(1, &["cannot listen on [server] listen_addr", &address, "in use"]);
    nothing_is_left_behind(&instance);
    assert!(instance.events().iter().all(|event| event.kind != "server_started"));
}

#[test]
fn a_newer_database_is_refused_and_made_newer_under_a_running_server_it_is_read_only() {
    let mut server = Server::start();
    let user = server.human("reader");
    let version = server.query_one::<i64>("PRAGMA user_version", []);
    let set = |server: &Server, version: i64| server.database().pragma_update(None, "user_version", version).unwrap();
    set(&server, version + 1);
    assert!(user.is_good());
    user.try_login("reader", user.password()).expect(503, "unavailable");
    user.post("/v1/auth/logout").expect(503, "unavailable");
    server.client().get("/v1/ready").expect(503, "unavailable");
    server.client().get("/v1/health").ok(200);
    assert!(user.is_good(), "checks are answered");
    user.get("/v1/auth/me").ok(200);
    set(&server, version);
    server.kill();
    set(&server, version + 1);
    let newer = format!("schema version {}, newer than this program's {version}", version + 1);
    refuses(&server, &[&newer]);
    set(&server, version);
    server.start_again();
    assert!(user.is_good());
}

#[test]
fn while_the_clock_is_behind_nothing_but_health_is_served() {
    let mut server = Server::start();
    let admin = server.admin();
    server.stop();
    server.event_in_the_future(3600);
    let count = server.is_sound().len();
    let mark = server.log().mark();
    server.start_again();
    server.log().wait_since(mark, &["ERROR", "the clock is behind"]);
    for client in [admin.clone(), admin.over_http2()] {
        client.get("/v1/health").ok(200).is(json!({"status": "ok"}));
        client.request("HEAD", "/v1/health").ok(200);
        for decl in mcias::rest::table() {
            if decl.path != "/v1/health" {
                let path = decl.path.replace("{id}", admin.id());
                let answer = client.request(decl.method.as_str(), &path).expect(503, "unavailable");
                assert!(answer.text("error").contains("clock"), "{}", answer.story());
            }
        }
        client.get("/v1/nothing").expect(503, "unavailable");
        client.delete("/v1/health").expect(503, "unavailable");
        client.options("/v1/accounts").expect(503, "unavailable");
        client.try_login("admin", admin.password()).expect(503, "unavailable");
    }
    assert_eq!(server.events().len(), count, "nothing was written with a clock that is wrong");
    server.stop();
    assert_eq!(server.events().len(), count);
    nothing_is_left_behind(&server);

    // Once it has caught up, which it does here by the event's going, everything is served without a restart.
    server.start_again();
    admin.get("/v1/ready").expect(503, "unavailable");
    let database = server.database();
    database.execute_batch("DROP TRIGGER audit_log_no_delete").unwrap();
    database.execute("DELETE FROM audit_log WHERE id = ?1", [count as i64]).unwrap();
    drop(database);
    eventually("the clock has caught up", || admin.get("/v1/ready").send().status == 200);
    admin.get("/v1/accounts").ok(200);
    eventually("the start is written", || server.events().len() == count);
    assert_eq!(server.last_event().kind, "server_started");
    server.stop();
    server.is_sound();
}

#[test]
fn a_clock_that_is_a_little_behind_is_no_reason() {
    let mut server = Server::start();
    server.stop();
    server.event_in_the_future(240);
    server.start_again();
    server.client().get("/v1/ready").ok(200);
    server.human("in-time");
}

/// Three logins at once with one slot and one place before it: the one that is sent away says that one of the others
/// is being hashed and one waits.
fn with_logins_under_way(server: &mut Server, then: impl FnOnce(&mut Server)) -> Vec<support::Answer> {
    let (told, answers) = mpsc::channel();
    let client = server.client();
    let password = server.admin_password();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (told, client, password) = (told.clone(), client.clone(), password.clone());
            scope.spawn(move || told.send(client.try_login("admin", &password).try_send()).unwrap());
        }
        let first = answers.recv_timeout(PATIENCE).unwrap().unwrap();
        assert_eq!(first.status, 503, "{}", first.story());
        then(server);
        (0..2).map(|_| answers.recv_timeout(PATIENCE).unwrap().expect("an answer")).collect()
    })
}

fn slow_to_hash(instance: &mut Instance) {
    for (key, value) in [("time", "24"), ("slots", "1"), ("queue", "1")] {
        instance.set("argon2", key, value);
    }
}

#[test]
fn a_signal_lets_what_is_under_way_come_to_its_end() {
    let mut told = Vec::new();
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::with(slow_to_hash);
        let mut idle = server.raw();
        let answers = with_logins_under_way(&mut server, |server| {
            let mark = server.log().mark();
            server.signal(signal);
            server.log().wait_since(mark, &["draining"]);
            // For a second, so that a load balancer can see it; this machine may have had none for us.
            if server.door().connect().is_ok() {
                told.push(server.client().get("/v1/ready").try_send().ok().map(|answer| answer.status));
            }
            assert!(idle.is_closed(), "who waits for nothing is sent home");
            support::eventually("nobody new is let in", || server.door().connect().is_err());
        });
        server.ends_well();
        nothing_is_left_behind(&server);
        let logged_in: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
        // The second may have waited for longer than anybody has to.
        assert!(!logged_in.is_empty() && answers.iter().all(|answer| matches!(answer.status, 200 | 503)));
        let log = server.log().text();
        assert!(log.trim_end().ends_with("stopped") && !log.contains("still under way"), "{log}");
        assert_eq!(server.last_event().kind, "server_stopped");
        server.is_sound();
        server.start_again();
        for answer in logged_in {
            assert!(server.client().with_token(answer.text("token")).is_good(), "what was answered counts");
        }
    }
    assert!(told.contains(&Some(503)), "nobody was told that it is draining: {told:?}");
}

/// A login whose body doesn't come to an end.
fn half_a_login(server: &Server) -> support::Connection {
    let mut connection = server.raw();
    connection.say("POST /v1/auth/login HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
    connection.say("content-length: 100\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(connection.receive_bytes(), b"HTTP/1.1 100 Continue\r\n\r\n", "it is being read");
    connection.say("{\"username\":");
    connection
}

#[test]
fn draining_ends_when_its_time_is_over_or_at_the_second_signal() {
    let mut server = Server::with(|c| c.set("server", "drain", "\"1s\""));
    let _endless = half_a_login(&server);
    server.stop();
    server.log().wait(&["WARN", "requests were still under way"]);
    nothing_is_left_behind(&server);

    let mut server = Server::with(|c| c.set("server", "drain", "\"1h\""));
    let _endless = half_a_login(&server);
    let mark = server.log().mark();
    server.signal(Signal::TERM);
    server.log().wait_since(mark, &["draining"]);
    server.stop();
    server.log().wait(&["WARN", "requests were still under way"]);
    nothing_is_left_behind(&server);
    server.is_sound();
}

#[test]
fn its_coming_and_going_are_events_with_a_checkpoint_each() {
    let mut server = Server::start();
    server.restart();
    server.stop();
    let events = server.is_sound();
    let kinds: Vec<&str> =
        events.iter().map(|event| event.kind.as_str()).filter(|k| k.starts_with("server_")).collect();
    assert_eq!(kinds, ["server_started", "server_stopped", "server_started", "server_stopped"]);
    assert!(events.iter().all(|event| event.actor == Value::Null || event.kind != "server_started"));
    let checkpoints = server.query::<i64>("SELECT count FROM audit_checkpoints ORDER BY id", []);
    // One of init's, and one of each coming and going; the log holds them too, out of the database's reach.
    assert_eq!(checkpoints.len(), 5);
    assert_eq!(checkpoints.last(), Some(&(events.len() as i64)));
    for count in &checkpoints[1..] {
        server.log().wait(&["audit checkpoint", &format!("count={count} "), "hash=", "kid=", "signature="]);
    }
}

#[test]
fn what_it_makes_is_its_own() {
    let mut server = Server::start();
    server.admin();
    for name in ["mcias.db", "mcias.db-wal", "mcias.db-shm", "mcias.db.lock"] {
        let mode = server.path(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    server.stop();
    nothing_is_left_behind(&server);
    for (name, expected) in
        [("master.key", 0o600), ("admin-password", 0o600), ("tls/server.key", 0o600), ("tls/ca.key", 0o600)]
    {
        assert_eq!(server.path(name).metadata().unwrap().permissions().mode() & 0o777, expected, "{name}");
    }
}

#[test]
fn where_there_is_no_database_it_makes_one() {
    let instance = Instance::new();
    std::fs::remove_file(instance.path("mcias.db")).unwrap();
    let mut server = instance.start();
    server.log().wait(&["WARN", "there is no database yet"]);
    server.client().get("/v1/ready").ok(200);
    server.client().get("/v1/keys/public").ok(200);
    server.stop();
    server.is_sound();
}

fn listening_at(server: &Server) -> String {
    let address = server.door().address().unwrap();
    server.config().replace("listen_addr = \"127.0.0.1:0\"", &format!("listen_addr = \"{address}\""))
}

#[test]
fn the_health_check_tells_by_its_exit_code() {
    let mut server = Server::start();
    server.write("here.conf", listening_at(&server));
    let ask = |server: &Server| server.run(&["server", "--config", "here.conf", "--healthcheck"]);
    let fails = |output: Output, words: &[&str]| {
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "{word}: {stderr}");
        }
    };
    let well = ask(&server);
    assert_eq!((well.status.code(), well.stdout, well.stderr), (Some(0), vec![], vec![]));
    assert_eq!(server.run(&["server", "-healthcheck", "-config=here.conf"]).status.code(), Some(0));
    // An answer under another certificate is another server's.
    let certificate = server.text("tls/server.crt");
    server.write("tls/server.crt", server.text("tls/ca.crt"));
    fails(ask(&server), &["isn't well", "certificate"]);
    server.write("tls/server.crt", certificate);
    server.write("all.conf", server.text("here.conf").replace("127.0.0.1:", "0.0.0.0:"));
    assert_eq!(server.run(&["server", "--config", "all.conf", "--healthcheck"]).status.code(), Some(0));
    server.kill();
    fails(ask(&server), &["isn't well", "refused"]);
    fails(server.run(&["server", "--config", "mcias.conf", "--healthcheck"]), &["port 0"]);
}

fn heard(ear: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let length = ear.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn the_service_manager_is_told() {
    let mut instance = Instance::new();
    let ear = UnixDatagram::bind(instance.path("notify")).unwrap();
    ear.set_read_timeout(Some(PATIENCE)).unwrap();
    instance.env("NOTIFY_SOCKET", instance.path("notify"));
    let mut server = instance.start();
    assert_eq!(heard(&ear), "READY=1");
    server.client().get("/v1/ready").ok(200);
    server.signal(Signal::HUP);
    assert!(heard(&ear).starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(heard(&ear), "READY=1");
    server.stop();
    assert_eq!(heard(&ear), "STOPPING=1");
    ear.set_nonblocking(true).unwrap();
    assert!(ear.recv(&mut [0; 256]).is_err(), "nothing more");

    // Alive, as long as it is.
    ear.set_nonblocking(false).unwrap();
    server.env("WATCHDOG_USEC", "200000");
    server.start_again();
    assert_eq!([heard(&ear), heard(&ear), heard(&ear)], ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    server.stop();
    // Nothing is said of a server that didn't come up.
    while heard(&ear) != "STOPPING=1" {}
    server.write("master.key", "0".repeat(64));
    server.unset_env("WATCHDOG_USEC");
    refuses(&server, &["the master key"]);
    ear.set_nonblocking(true).unwrap();
    assert!(ear.recv(&mut [0; 256]).is_err());
}

#[test]
fn a_link_of_the_server_s_name_is_the_server_and_a_name_like_it_isn_t() {
    let mut instance = Instance::new();
    for (name, arguments) in [
        ("mciassrv", vec!["-config", "mcias.conf"]),
        ("mciassrv", vec!["--config=mcias.conf"]),
        ("mcias", vec!["server", "-config=mcias.conf"]),
        ("mcias-0.1.0", vec!["server", "--config", "mcias.conf"]),
    ] {
        instance.call_as(name, &arguments);
        let mut server = instance.start();
        server.client().get("/v1/health").ok(200);
        server.stop();
        instance = server.into_instance();
    }
    for name in ["xmciassrv", "mciassrv2", "mciassrv.exe", "mciassr", "MCIASSRV", "srv"] {
        instance.call_as(name, &["--config", "mcias.conf"]);
        assert_eq!(instance.refuses().code, Some(2), "{name}");
    }
}

#[test]
fn init_makes_an_instance_or_touches_nothing() {
    let made = Instance::new();
    let names: Vec<_> =
        tree(made.folder()).into_keys().map(|path| path.strip_prefix(made.folder()).unwrap().to_owned()).collect();
    let init = |folder: &std::path::Path| made.command().arg("init").arg("--dir").arg(folder).output().unwrap();
    let refuses = |folder: &std::path::Path| {
        let before = tree(folder);
        let output = init(folder);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout), (Some(1), vec![]), "{stderr}");
        assert!(stderr.contains("is there already; nothing was changed"), "{stderr}");
        assert!(tree(folder) == before, "something was touched");
    };
    // One that is there.
    refuses(made.folder());
    // Any part of one.
    let side_files = ["mcias.db-wal", "mcias.db-shm", "mcias.db.lock"].map(std::path::PathBuf::from);
    for name in names.iter().filter(|name| name.as_os_str() != "tls").chain(&side_files) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("tls")).unwrap();
        std::fs::write(folder.path().join(name), "mine").unwrap();
        refuses(folder.path());
    }
    // A folder that isn't there yet, and what else is in one that is.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let output = init(folder.path());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read(folder.path().join("notes.txt")).unwrap(), b"mine");
    let output = init(&folder.path().join("new"));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(folder.path().join("new/mcias.db").exists());
}

#[test]
fn what_init_makes_is_named_as_asked() {
    let flags = [
        "--hostname",
        "auth.example.com",
        "--hostname",
        "192.0.2.7",
        "--admin",
        "Root",
        "--issuer",
        "https://id.example.com/mcias",
    ];
    let instance = Instance::init(&flags, &[]);
    let server = instance.start();
    let root = server.login("root", &server.admin_password());
    assert_eq!(
        (&root.claims()["iss"], &root.claims()["aud"]),
        (&json!("https://id.example.com/mcias"), &json!("https://id.example.com/mcias"))
    );
    assert_eq!(root.get("/v1/auth/me").ok(200)["roles"], json!(["admin"]));
    let events = server.events();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).take(5).collect();
    let expected = ["schema_migrated", "signing_key_created", "signing_key_created", "account_created", "role_granted"];
    assert_eq!(kinds, expected);
    assert!(events[..5].iter().all(|event| event.via == "mciasdb" && event.actor.is_null() && event.ip.is_none()));
}

/// The certificate that a new connection is shown.
fn shown(server: &Server) -> CertificateDer<'static> {
    // With a TLS of its own: a session that is resumed shows none.
    let fresh = trusting(&server.text("tls/ca.crt"), &[b"http/1.1"]);
    let connection = server.door().connect_with(fresh).unwrap();
    connection.session().peer_certificates().unwrap()[0].clone().into_owned()
}

#[test]
fn a_new_certificate_is_taken_at_sighup_and_a_bad_one_is_not() {
    let server = Server::start();
    let pem = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
    let new = || {
        let (ca, key) = (server.text("tls/ca.crt"), server.text("tls/ca.key"));
        pki::issue_server(&ca, &key, &[], Timestamp::new(now())).unwrap()
    };
    let hang_up = |words: &[&str]| {
        let mark = server.log().mark();
        server.signal(Signal::HUP);
        server.log().wait_since(mark, words);
    };
    assert_eq!(shown(&server), pem(&server.text("tls/server.crt")));
    let mut before = server.raw();
    let pair = new();
    server.write("tls/server.crt", &pair.cert);
    server.write("tls/server.key", pair.key.as_bytes());
    hang_up(&["INFO", "the certificate was read again"]);
    let current = pem(&pair.cert);
    assert_eq!(shown(&server), current);
    assert_eq!(before.say("GET /v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n").answer().status, 200);

    let refused = ["ERROR", "the certificate can't be read again"];
    let (other, [cert, key]) = (new(), ["tls/server.crt", "tls/server.key"]);
    server.write(cert, &other.cert);
    hang_up(&[&refused[..], &["does not belong"]].concat());
    assert_eq!(shown(&server), current);
    server.write(key, "nonsense");
    hang_up(&refused);
    assert_eq!(shown(&server), current);
    std::fs::remove_file(server.path(key)).unwrap();
    hang_up(&[&refused[..], &["No such file"]].concat());
    assert_eq!(shown(&server), current);
    server.write(key, other.key.as_bytes());
    server.chmod(key, 0o644);
    hang_up(&[&refused[..], &["0644"]].concat());
    assert_eq!(shown(&server), current);
    server.chmod(key, 0o600);
    hang_up(&["INFO", "the certificate was read again"]);
    assert_eq!(shown(&server), pem(&other.cert));
    server.client().get("/v1/ready").ok(200);
}

#[test]
fn the_log_level_is_read_again_at_sighup() {
    let mut server = Server::start();
    let request_is_logged = |server: &Server| {
        let mark = server.log().mark();
        server.client().get("/v1/health").ok(200);
        std::thread::sleep(Duration::from_millis(100));
        server.log().since(mark).iter().any(|line| line.contains(" request "))
    };
    assert!(request_is_logged(&server));
    server.set("log", "level", "\"warn\"");
    server.signal(Signal::HUP);
    eventually("requests are no longer logged", || !request_is_logged(&server));
    // A configuration that can't be read changes nothing.
    let mark = server.log().mark();
    server.write("mcias.conf", "[log]\nlevel = \"info\"\nnonsense = 1\n");
    server.signal(Signal::HUP);
    server.log().wait_since(mark, &["ERROR", "the log level stays", "nonsense"]);
    assert!(!request_is_logged(&server));
    server.set("log", "level", "\"info\"");
    server.signal(Signal::HUP);
    eventually("requests are logged again", || request_is_logged(&server));
}

#[test]
fn a_json_log_is_json_line_by_line() {
    let mut server = Server::with(|c| {
        c.set("log", "format", "\"json\"");
        c.set("log", "level", "\"trace\"");
    });
    server.client().with_token("no\"nsense").get("/v1/auth/me").expect(401, "unauthorized");
    server.client().get("/v1/%22%0a{x}\"'?token=secret").expect(404, "not_found");
    server.client().try_login("nobody", "any password at all").expect(401, "unauthorized");
    server.stop();
    let lines = server.log().lines();
    assert!(lines.len() > 5);
    for line in lines {
        let read: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(read["time"].is_string() && read["level"].is_string() && read["message"].is_string(), "{line}");
    }
    assert!(!server.log().text().contains("secret"));
}

#[test]
fn passwords_from_the_block_list_are_not_taken() {
    let instance = Instance::new();
    let server = {
        let mut instance = instance;
        instance.write("common.txt", "password12345678\r\nCorrect Horse Battery Staple\n\n");
        instance.set("passwords", "blocklist_file", "\"common.txt\"");
        instance.set("passwords", "min_length", "12");
        instance.start()
    };
    let make = |name: &str, password: &str| {
        let body = json!({"username": name, "account_type": "human", "password": password});
        server.admin().post("/v1/accounts").json(body).send().status
    };
    assert_eq!(make("a", "PASSWORD12345678"), 400);
    assert_eq!(make("b", "correct horse battery staple"), 400);
    assert_eq!(make("c", "correct horse battery stapler"), 201);
    assert_eq!(make("d", "twelve chars"), 201);
    assert_eq!(make("e", "eleven char"), 400);
}
