//! After a day's work no secret is anywhere but where it belongs: not in the log at its most talkative, not in the
//! clear in the database or its WAL, not in an answer, not in the process's arguments.

mod support;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mcias::crypto::{seal, totp};
use mcias::model::time::Timestamp;
use mcias::secretfile::key_bytes;
use mcias::store::KeyPurpose;
use serde_json::json;
use support::{Client, Forge, Instance, Server, now, parts_of};

/// What must not be found, and what it is called when it is.
#[derive(Default)]
struct Secrets(Vec<(String, Vec<u8>)>);

impl Secrets {
    fn text(&mut self, what: &str, secret: &str) {
        self.0.push((what.to_owned(), secret.into()));
    }

    /// Bytes, in all the forms in which somebody might write them.
    fn bytes(&mut self, what: &str, secret: &[u8]) {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let debug = secret.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        let base64 = STANDARD.encode(secret).trim_end_matches('=').to_owned();
        for form in [hex.to_uppercase(), hex, debug, base64, URL_SAFE_NO_PAD.encode(secret)] {
            self.text(what, &form);
        }
        self.0.push((what.to_owned(), secret.to_vec()));
    }

    #[track_caller]
    fn are_not_in(&self, place: &str, bytes: &[u8]) {
        self.some_are_not_in(place, bytes, |_| true);
    }

    #[track_caller]
    fn some_are_not_in(&self, place: &str, bytes: &[u8], which: impl Fn(&str) -> bool) {
        let text = searchable(bytes);
        for (what, secret) in self.0.iter().filter(|(what, _)| which(what)) {
            assert!(secret.len() >= 10, "{what} is too short to look for");
            let found = text.contains(&searchable(secret));
            assert!(!found, "{what} is in {place}: {:?}", String::from_utf8_lossy(secret));
        }
    }
}

/// A character for each byte: text is searched much faster than bytes are.
fn searchable(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn has(bytes: &[u8], word: &str) -> bool {
    searchable(bytes).contains(word)
}

/// The database as it lies on the disk, with what is still in its log.
fn on_disk(instance: &Instance) -> Vec<u8> {
    let read = |name: &str| std::fs::read(instance.path(name)).unwrap_or_default();
    [read("mcias.db"), read("mcias.db-wal"), read("mcias.db-shm")].concat()
}

/// Everything that the keys of an instance consist of.
fn keys_of(instance: &Instance, secrets: &mut Secrets) {
    let hex = instance.text("master.key");
    secrets.text("the master key", hex.trim());
    let master = key_bytes(hex.as_bytes()).unwrap();
    secrets.bytes("the master key", master.expose());
    let wrapped = instance.query_one::<Vec<u8>>("SELECT value FROM server_config WHERE key = 'data_key/1'", []);
    secrets.bytes("the data key", seal::unwrap(&master, 1, &wrapped).unwrap().expose());
    for purpose in [KeyPurpose::Token, KeyPurpose::Audit] {
        secrets.bytes("a signing key", Forge::with(instance, purpose).key.as_bytes());
    }
    for name in ["tls/server.key", "tls/ca.key"] {
        for line in instance.text(name).lines().filter(|line| !line.starts_with("---") && line.len() >= 10) {
            secrets.text(name, line);
        }
    }
}

/// RFC 4648, section 6.
fn unbase32(text: &str) -> Vec<u8> {
    let value = |c| "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".find(c).unwrap();
    let bits: Vec<bool> = text.chars().flat_map(|c| (0..5).rev().map(move |n| value(c) >> n & 1 == 1)).collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | u8::from(*bit))).collect()
}

#[test]
fn after_a_day_s_work_no_secret_is_where_it_does_not_belong() {
    let mut server = Server::with(|c| c.set("log", "level", "\"trace\""));
    let mut secrets = Secrets::default();
    keys_of(&server, &mut secrets);
    secrets.text("the admin's password", &server.admin_password());
    let mut tokens: Vec<String> = Vec::new();
    let mut keep = |client: Client| {
        tokens.push(client.token().to_owned());
        client
    };

    for http2 in [false, true] {
        let wire = |client: Client| if http2 { client.over_http2() } else { client };
        let name = if http2 { "newer" } else { "older" };
        let admin = keep(wire(server.login("admin", &server.admin_password())));
        let user = keep(wire(server.human(name)));
        secrets.text("a password", user.password());
        let robot = keep(wire(server.system(&format!("{name}-robot"))));
        let anybody = wire(server.client());

        // What goes well.
        let next = keep(user.with_token(user.post("/v1/auth/renew").ok(200).text("token")));
        let exchanged = next.post("/v1/auth/token").json(json!({"audience": "files"})).ok(200);
        let exchanged = keep(next.with_token(exchanged.text("token")));
        for client in [&admin, &robot, &next, &exchanged] {
            client.get("/v1/token/validate").ok(200);
            client.post("/v1/token/validate").ok(200);
            anybody.post("/v1/token/validate").json(json!({"token": client.token()})).ok(200);
        }
        admin.get("/v1/accounts").ok(200);
        admin.get(&format!("/v1/accounts/{}", user.id())).ok(200);
        next.get("/v1/auth/me").ok(200);
        let revoked = user.again();
        admin.delete(&format!("/v1/token/{}", revoked.jti())).ok(204);
        let again = admin.post("/v1/token/issue").json(json!({"account_id": robot.id(), "overlap": 60})).ok(201);
        keep(robot.with_token(again.text("token")));

        // One-time codes.
        let enrolment = next.post("/v1/auth/totp/enroll").json(json!({"password": user.password()})).ok(200);
        let secret = unbase32(enrolment.text("secret"));
        secrets.text("a TOTP secret", enrolment.text("secret"));
        secrets.bytes("a TOTP secret", &secret);
        let code = |later: i64| {
            let code = totp::code_at(&secret, totp::step_at(Timestamp::new(now())) + later);
            str::from_utf8(code.as_bytes()).unwrap().to_owned()
        };
        next.post("/v1/auth/totp/confirm").json(json!({"code": code(0)})).ok(204);
        let login = json!({"username": name, "password": user.password(), "totp_code": code(1)});
        let with_code = anybody.post("/v1/auth/login").json(login.clone()).ok(200);
        keep(user.with_token(with_code.text("token")));
        anybody.post("/v1/auth/login").json(login).expect(401, "unauthorized");
        admin.delete(&format!("/v1/accounts/{}/totp", user.id())).ok(204);
        let next = keep(wire(server.login(name, user.password())));

        // A password changed, and others that couldn't be.
        let changed = format!("the second passphrase of {name}");
        secrets.text("a password", &changed);
        let change = |current: &str| {
            next.put("/v1/auth/password").json(json!({"current_password": current, "new_password": changed}))
        };
        change("the wrong current one").expect(403, "forbidden");
        secrets.text("a wrong password", "the wrong current one");
        change(user.password()).ok(204);
        let reset = format!("what the admin made of {name}'s");
        secrets.text("a password", &reset);
        let path = format!("/v1/accounts/{}/password", user.id());
        admin.put(&path).json(json!({"new_password": reset})).ok(204);
        let next = keep(wire(server.login(name, &reset)));

        // Postgres credentials.
        let pgcreds = format!("/v1/accounts/{}/pgcreds", robot.id());
        let password = format!("the Postgres password of {name}");
        secrets.text("a Postgres password", &password);
        let address = json!({"host": "db", "port": 5432, "database": "app", "username": "app", "password": password});
        admin.put(&pgcreds).json(address).ok(204);
        assert_eq!(robot.get(&pgcreds).ok(200)["password"], password.as_str());
        admin.get(&pgcreds).ok(200);
        user.get(&pgcreds).expect(401, "unauthorized");
        next.get(&pgcreds).expect(403, "forbidden");
        if http2 {
            admin.delete(&pgcreds).ok(204);
        }
        admin.get("/v1/audit").ok(200);
        admin.get(&format!("/v1/accounts/{}/tokens", user.id())).ok(200);

        // What goes wrong, with a secret in every place where people put them.
        let typed = format!("typed-into-the-wrong-field-{name}");
        secrets.text("what was typed for a name", &typed);
        anybody.try_login(&typed, "whatever it may be").expect(401, "unauthorized");
        anybody.try_login(&typed.to_uppercase(), "whatever it may be").expect(401, "unauthorized");
        secrets.text("a wrong password", "whatever it may be");
        let account = json!({"username": typed, "account_type": "human", "password": "whatever it may be"});
        user.post("/v1/accounts").json(account).expect(401, "unauthorized");
        for body in [
            format!(
                "{{\"username\":\"{name}\",\"password\":\"{}\",\"password\":\"again, that password\"}}",
                user.password()
            ),
            format!("{{\"username\":\"{name}\",\"password\":\"{}\"", user.password()),
            format!("{{\"username\":\"{name}\",\"pass\":\"{}\"}}", user.password()),
            format!("{{\"username\":\"{name}\",\"password\":[\"{}\"]}}", user.password()),
            format!("{:?}", user.password()),
            format!("username={name}&password={}", user.password()),
        ] {
            let login = anybody.post("/v1/auth/login").header("content-type", "application/json");
            login.body(body.clone()).expect(400, "invalid_request");
            anybody
                .post("/v1/auth/login")
                .header("content-type", "text/plain")
                .body(body)
                .expect(415, "unsupported_media_type");
        }
        let [header, payload, signature] = parts_of(next.token());
        for bad in
            [format!("{header}.{payload}.{signature}A"), format!("{header}.{signature}"), user.token().to_owned()]
        {
            let client = anybody.with_token(&bad);
            client.get("/v1/auth/me").expect(401, "unauthorized");
            client.get("/v1/token/validate").expect(401, "unauthorized");
            client.post("/v1/auth/logout").expect(401, "unauthorized");
            anybody.post("/v1/token/validate").json(json!({"token": bad})).ok(200);
        }
        let token = next.token();
        for scheme in ["Basic", "bearer token", "Bearer  "] {
            let request = anybody.get("/v1/auth/me").header("authorization", &format!("{scheme} {token}"));
            request.expect(401, "unauthorized");
        }
        anybody.get(&format!("/v1/health?token={token}")).expect(400, "invalid_request");
        anybody.get(&format!("/v1/token/{token}")).expect(405, "method_not_allowed");
        anybody.delete(&format!("/v1/token/{token}")).expect(401, "unauthorized");
        admin.delete(&format!("/v1/token/{token}")).expect(404, "not_found");
        anybody.get(&format!("/v1/nothing/{token}?access_token={token}")).expect(404, "not_found");
        anybody.get(&format!("/{token}")).expect(404, "not_found");
        admin.get(&format!("/v1/accounts/{token}")).expect(404, "not_found");
        admin.get(&format!("/v1/accounts?username={token}")).expect(400, "invalid_request");
        admin.get(&format!("/v1/accounts?cursor={token}")).expect(400, "invalid_request");
        admin.get(&format!("/v1/accounts?{token}=1")).send();
        anybody
            .get("/v1/health")
            .header("x-request-id", token)
            .header("cookie", token)
            .header("user-agent", token)
            .ok(200);
        anybody.get("/v1/health").header("x-forwarded-for", token).header("referer", token).ok(200);
        next.post("/v1/auth/logout").ok(204);
    }

    for token in &tokens {
        let [_, payload, signature] = parts_of(token);
        secrets.text("a token's signature", signature);
        secrets.text("a token's payload", payload);
    }
    assert!(tokens.len() >= 18);

    // It would be found: what is no secret is.
    let disk = on_disk(&server);
    assert!(server.path("mcias.db-wal").metadata().unwrap().len() > 0);
    for (place, word) in [(disk.as_slice(), "older-robot"), (server.log().text().as_bytes(), "/v1/auth/login")] {
        assert!(has(place, word), "{word}");
    }
    secrets.are_not_in("the database on the disk", &disk);
    assert!(!has(&disk, "argon2id"), "a password hash is on the disk in the clear");
    let arguments = std::fs::read(format!("/proc/{}/cmdline", server.pid().as_raw_nonzero())).unwrap();
    secrets.are_not_in("the process's arguments", &arguments);
    server.stop();
    secrets.are_not_in("the database after the end", &on_disk(&server));
    let log = server.log().text();
    assert!(log.contains("DEBUG") && log.contains("token refused"), "the log wasn't at its most talkative");
    secrets.are_not_in("the log", log.as_bytes());

    // Each kind is in the answers that are for it, and in no other; most are in none.
    let giving = |what: &str, request: &str| match what.split(' ').nth(1).unwrap_or_default() {
        "token's" => {
            let paths = ["/v1/auth/login", "/v1/auth/renew", "/v1/auth/token", "/v1/token/issue"];
            paths.iter().any(|path| request == format!("POST {path}"))
        }
        "TOTP" => request == "POST /v1/auth/totp/enroll",
        "Postgres" => request.starts_with("GET /v1/accounts/") && request.ends_with("/pgcreds"),
        _ => false,
    };
    let answers = server.door().answers();
    for answer in &answers {
        let (request, answer) = answer.split_once('\n').unwrap();
        secrets.some_are_not_in(request, answer.as_bytes(), |what| !giving(what, request));
    }
    assert!(answers.len() > 100);
}

#[test]
fn a_passphrase_is_nowhere_to_be_found() {
    let passphrase = "correct horse battery staple";
    let mut instance = Instance::with_passphrase("MCIAS_MASTER_PASSPHRASE", passphrase);
    instance.set("log", "level", "\"trace\"");
    let mut secrets = Secrets::default();
    secrets.bytes("the passphrase", passphrase.as_bytes());
    secrets.text("the admin's password", &instance.admin_password());
    let mut server = instance.start();
    server.admin();
    secrets.are_not_in("the database on the disk", &on_disk(&server));
    server.stop();
    secrets.are_not_in("the database after the end", &on_disk(&server));
    // A wrong one isn't repeated, either.
    server.env("MCIAS_MASTER_PASSPHRASE", "wrong horse battery staple");
    let refusal = server.refuses();
    assert!(!refusal.stderr.contains("horse"), "{}", refusal.stderr);
    secrets.are_not_in("the log", server.log().text().as_bytes());
    for (name, (_, bytes)) in support::tree(server.folder()) {
        if !name.ends_with("admin-password") {
            secrets.are_not_in(&name.display().to_string(), &bytes);
        }
    }
}

#[test]
fn a_crash_leaves_no_image_of_the_memory() {
    let server = Server::start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid().as_raw_nonzero())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
}
