//! What an admin, a person and a program do in a year, over HTTPS: every operation of the contract with its rules, and
//! two at once on everything that can race.

mod support;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use mcias::crypto::totp;
use mcias::model::time::Timestamp;
use serde_json::{Value, json};
use support::{Client, Forge, Server, at_once, claims_of, now};

/// For tests that need no configuration of their own.
static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

/// A well-formed id of nobody.
const NOBODY: &str = "0194e2f0-7d3a-4c1e-9b52-2f6d0a4c8e11";

fn base32(text: &str) -> Vec<u8> {
    let mut bits = 0u64;
    let (mut count, mut out) = (0, Vec::new());
    for c in text.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'2'..=b'7' => c - b'2' + 26,
            _ => panic!("no base32"),
        };
        bits = bits << 5 | u64::from(value);
        count += 5;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}

/// The code of a secret, so many steps from now.
fn code(secret: &[u8], offset: i64) -> String {
    let code = totp::code_at(secret, totp::step_at(Timestamp::new(now())) + offset);
    String::from_utf8(code.as_bytes().to_vec()).unwrap()
}

/// Waits until a step has begun not long ago, so that what follows happens within it.
fn early_in_a_step() {
    while now() % 30 > 20 {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// Enrols a device and confirms it; gives the secret. The step now is used up.
fn enrol(client: &Client) -> Vec<u8> {
    early_in_a_step();
    let answer = client.post("/v1/auth/totp/enroll").json(json!({"password": client.password()})).ok(200);
    let secret = base32(answer.text("secret"));
    client.post("/v1/auth/totp/confirm").json(json!({"code": code(&secret, 0)})).ok(204);
    secret
}

fn kinds(server: &Server, account: &str) -> Vec<String> {
    server.events_of(account).into_iter().map(|event| event.kind).collect()
}

fn program(server: &Server, name: &str) -> String {
    let made = server.admin().post("/v1/accounts").json(json!({"username": name, "account_type": "system"})).ok(201);
    made.text("id").to_owned()
}

#[test]
fn e2e_login_logout() {
    let server = &*SERVER;
    let alice = server.human("login-logout");
    assert!(alice.is_good());
    alice.post("/v1/auth/logout").ok(204);
    assert!(!alice.is_good());
    alice.get("/v1/auth/me").expect(401, "unauthorized");
}

#[test]
fn a_bad_token_comes_before_a_bad_query_and_a_missing_right_too() {
    let server = &*SERVER;
    let ida = server.human("ida");
    let bad = ida.with_token("a.b.c");
    for path in ["/v1/token/validate?x=1", "/v1/token/validate?audience=", "/v1/token/validate"] {
        bad.post(path).expect(401, "unauthorized");
        bad.get(path).expect(401, "unauthorized");
    }
    ida.post("/v1/token/validate?x=1").expect(400, "invalid_request");
    ida.post("/v1/token/validate").ok(200);
    ida.get(&format!("/v1/accounts/{}/pgcreds?x=1", ida.id())).expect(403, "forbidden");
    ida.get(&format!("/v1/accounts/{}/pgcreds", ida.id())).expect(403, "forbidden");
}

#[test]
fn e2e_token_renewal() {
    let server = &*SERVER;
    let alice = server.human("renewal");
    let renewed = alice.post("/v1/auth/renew").ok(200);
    assert!(!alice.is_good() && alice.with_token(renewed.text("token")).is_good());
    assert_eq!(claims_of(renewed.text("token"))["auth_time"], alice.claims()["auth_time"]);
}

#[test]
fn e2e_admin_flow() {
    let server = &*SERVER;
    let admin = server.admin();
    let carol = server.human("carol");
    let path = format!("/v1/accounts/{}", carol.id());
    admin.put(&format!("{path}/roles")).json(json!({"roles": ["ops", "dev", "ops"]})).ok(204);
    admin.get(&format!("{path}/roles")).ok(200).is(json!({"roles": ["dev", "ops"]}));
    assert_eq!(carol.again().get("/v1/auth/me").ok(200)["token_roles"], json!(["dev", "ops"]));

    // Each is one event, and what changes nothing is none.
    let roles = kinds(server, carol.id()).iter().filter(|kind| *kind == "role_granted").count();
    assert_eq!(roles, 2);
    admin.put(&format!("{path}/roles/ops")).ok(204);
    admin.delete(&format!("{path}/roles/none-such")).ok(204);
    admin.put(&format!("{path}/roles")).json(json!({"roles": ["ops", "dev"]})).ok(204);
    assert_eq!(kinds(server, carol.id()).iter().filter(|kind| kind.starts_with("role_")).count(), 2);
    admin.delete(&format!("{path}/roles/ops")).ok(204);
    assert_eq!(server.last_event_of(carol.id()).details, json!({"role": "ops"}));

    // A name of its own, and a name that is taken.
    admin.patch(&path).json(json!({"username": "ADMIN"})).expect(409, "conflict");
    admin.patch(&path).json(json!({"username": "Caroline"})).ok(200);
    let event = server.last_event_of(carol.id());
    assert_eq!(event.details, json!({"changed": {"username": {"from": "carol", "to": "caroline"}}}));
    admin.patch(&path).json(json!({"username": "caroline", "status": "active"})).ok(200);
    assert_eq!(server.last_event_of(carol.id()).id, event.id, "what changes nothing makes no event");
    for bad in [json!({}), json!({"status": "deleted"}), json!({"status": null}), json!({"username": "a b"})] {
        admin.patch(&path).json(bad).expect(400, "invalid_request");
    }

    // Suspended: every token is dead at once, and no login; active again: a new login.
    let session = carol.login("caroline", carol.password());
    admin.patch(&path).json(json!({"status": "suspended"})).ok(200);
    assert!(!session.is_good());
    carol.try_login("caroline", carol.password()).expect(401, "unauthorized");
    admin.patch(&path).json(json!({"status": "active"})).ok(200);
    assert!(!session.is_good(), "what was revoked stays so");
    let session = carol.login("caroline", carol.password());

    // A reset by the admin.
    let new = "an altogether new passphrase";
    admin.put(&format!("{path}/password")).json(json!({"new_password": new})).ok(204);
    assert!(!session.is_good());
    carol.try_login("caroline", carol.password()).expect(401, "unauthorized");
    carol.login("caroline", new);

    // Gone: kept for the audit log, the name free for somebody else.
    admin.delete(&path).ok(204);
    for request in [
        admin.get(&path),
        admin.delete(&path),
        admin.patch(&path).json(json!({"status": "active"})),
        admin.get(&format!("{path}/roles")),
        admin.put(&format!("{path}/roles/x")),
        admin.get(&format!("{path}/tokens")),
        admin.delete(&format!("{path}/tokens")),
        admin.delete(&format!("{path}/totp")),
        admin.put(&format!("{path}/password")).json(json!({"new_password": new})),
    ] {
        request.expect(404, "not_found");
    }
    let listed = |query: &str| admin.get(&format!("/v1/accounts?username=caroline{query}")).ok(200).json().clone();
    assert_eq!(listed(""), json!([]));
    assert_eq!(listed("&status=deleted")[0]["id"], json!(carol.id()));
    assert_ne!(server.human("caroline").id(), carol.id());
    let erased = "SELECT count(*) FROM accounts WHERE uuid = ?1 AND password_enc IS NULL AND totp_secret_enc IS NULL";
    assert_eq!(server.query_one::<i64>(erased, [carol.id()]), 1);
}

#[test]
fn e2e_totp_flow() {
    let server = &*SERVER;
    let dora = server.human("dora");
    let other = dora.again();
    let login = |code: Option<String>| {
        let mut body = json!({"username": "dora", "password": dora.password()});
        if let Some(code) = code {
            body["totp_code"] = json!(code);
        }
        dora.without_token().post("/v1/auth/login").json(body)
    };
    early_in_a_step();
    dora.post("/v1/auth/totp/confirm").json(json!({"code": "000000"})).expect(409, "conflict");
    dora.post("/v1/auth/totp/enroll").json(json!({"password": "not the password"})).expect(403, "forbidden");
    assert_eq!(server.last_event_of(dora.id()).details, json!({"what": "password"}));
    let first = dora.post("/v1/auth/totp/enroll").json(json!({"password": dora.password()})).ok(200);
    let replaced = dora.post("/v1/auth/totp/enroll").json(json!({"password": dora.password()})).ok(200);
    assert!(replaced.text("otpauth_uri").contains(replaced.text("secret")));
    login(None).ok(200);
    assert!(!server.admin().get(&format!("/v1/accounts/{}", dora.id())).ok(200)["totp_enabled"].as_bool().unwrap());

    let secret = base32(replaced.text("secret"));
    let wrong = code(&base32(first.text("secret")), 0);
    dora.post("/v1/auth/totp/confirm").json(json!({"code": wrong})).expect(403, "forbidden");
    let confirming = code(&secret, 0);
    dora.post("/v1/auth/totp/confirm").json(json!({"code": &confirming})).ok(204);
    assert!(dora.is_good() && !other.is_good(), "the account's other tokens are revoked");
    login(None).expect(401, "unauthorized");
    login(Some(confirming)).expect(401, "unauthorized");
    assert_eq!(server.last_event_of(dora.id()).details, json!({"reason": "replayed"}));
    let token = login(Some(code(&secret, 1))).ok(200);
    assert_eq!(claims_of(token.text("token"))["amr"], json!(["pwd", "otp"]));

    // Another device: the code of the old one is needed, and confirming replaces it.
    let enroll = json!({"password": dora.password()});
    dora.post("/v1/auth/totp/enroll").json(enroll).expect(403, "forbidden");
    assert_eq!(server.last_event_of(dora.id()).details, json!({"what": "totp"}));

    // The admin takes it off for a device that is lost.
    let path = format!("/v1/accounts/{}/totp", dora.id());
    server.admin().delete(&path).ok(204);
    assert_eq!(kinds(server, dora.id()).iter().filter(|kind| *kind == "totp_removed").count(), 1);
    assert!(!dora.is_good());
    login(None).ok(200);
    server.admin().delete(&path).ok(204);
    server.admin().delete("/v1/auth/totp").json(json!({"account_id": dora.id()})).ok(204);
    server.admin().delete("/v1/auth/totp").json(json!({"account_id": "x"})).expect(404, "not_found");
    assert_eq!(kinds(server, dora.id()).iter().filter(|kind| *kind == "totp_removed").count(), 1);
}

#[test]
fn wrong_credentials_in_a_session_are_held_back_like_wrong_codes() {
    let server = &*SERVER;
    let erin = server.human("erin");
    let change = |current: &str| {
        let body = json!({"current_password": current, "new_password": "yet another long passphrase"});
        erin.put("/v1/auth/password").json(body)
    };
    for _ in 0..5 {
        change("a wrong current password").expect(403, "forbidden");
    }
    change(erin.password()).expect(403, "forbidden");
    server.sql("UPDATE accounts SET totp_locked_until = 0 WHERE uuid = ?1", [erin.id()]);
    change(erin.password()).ok(204);
    assert_eq!(kinds(server, erin.id()).iter().filter(|kind| *kind == "credential_fail").count(), 6);
}

#[test]
fn a_changed_password_ends_the_other_sessions_and_keeps_this_one() {
    let server = &*SERVER;
    let fred = server.human("fred");
    let other = fred.again();
    let change = |current: &str, new: &str| {
        fred.put("/v1/auth/password").json(json!({"current_password": current, "new_password": new}))
    };
    for bad in ["too short", "fred", &"x".repeat(1025)] {
        change(fred.password(), bad).expect(400, "invalid_request");
    }
    change(fred.password(), "a new and long passphrase").ok(204);
    assert!(fred.is_good() && !other.is_good());
    assert_eq!(server.last_event_of(fred.id()).details, json!({"count": 1, "reason": "password_changed"}));
    fred.try_login("fred", fred.password()).expect(401, "unauthorized");
    let again = fred.login("fred", "a new and long passphrase");

    // A session that was got with another is kept as well, though that other goes.
    let issuer = again.claims()["iss"].clone();
    let got = again.with_token(again.post("/v1/auth/token").json(json!({"audience": issuer})).ok(200).text("token"));
    let passwords = json!({"current_password": "a new and long passphrase", "new_password": "yet another passphrase"});
    got.put("/v1/auth/password").json(passwords).ok(204);
    assert!(got.is_good() && !again.is_good() && !fred.is_good());
    let revoked = got.delete(&format!("/v1/accounts/{}/tokens", fred.id())).ok(200);
    assert_eq!(revoked.json()["revoked"], 1, "it was the one that lived");
}

#[test]
fn e2e_system_account() {
    let server = &*SERVER;
    let admin = server.admin();
    let id = program(server, "backup-job");
    let issue = |more: Value| {
        let mut body = json!({"account_id": &id});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        admin.post("/v1/token/issue").json(body)
    };
    let first = admin.with_token(issue(json!({})).ok(201).text("token"));
    assert!(first.is_good());
    assert_eq!(first.claims()["amr"], json!(["svc"]));
    assert_eq!(first.claims()["exp"].as_i64().unwrap() - first.claims()["iat"].as_i64().unwrap(), 8760 * 3600);
    let elsewhere = admin.with_token(issue(json!({"audience": "https://git.example.com"})).ok(201).text("token"));
    let second = admin.with_token(issue(json!({})).ok(201).text("token"));
    assert!(!first.is_good() && second.is_good() && elsewhere.is_good(), "rotated for its audience alone");
    let third = admin.with_token(issue(json!({"overlap": 2})).ok(201).text("token"));
    assert!(second.is_good() && third.is_good(), "the former lives on for the overlap");
    support::eventually("the overlap is over", || !second.is_good());
    assert!(third.is_good());
    let fourth = admin.with_token(issue(json!({"overlap": 3600})).ok(201).text("token"));
    assert!(third.is_good() && fourth.is_good());
    let fifth = admin.with_token(issue(json!({})).ok(201).text("token"));
    assert!(!third.is_good() && !fourth.is_good(), "whoever wants no overlap wants none of an earlier one either");
    let third = fifth;
    let path = format!("/v1/accounts/{id}/tokens");
    let rows = third.get(&path).ok(200).json().clone();
    let reasons: Vec<_> =
        rows.as_array().unwrap().iter().map(|row| row["revoke_reason"].as_str().unwrap_or("null")).collect();
    assert_eq!(reasons, ["null", "rotated", "rotated", "rotated", "null", "rotated"], "newest first");

    third.post("/v1/auth/renew").expect(403, "forbidden");
    third.put("/v1/auth/password").json(json!({"current_password": "x", "new_password": "y"})).expect(403, "forbidden");
    third.post("/v1/auth/totp/enroll").json(json!({"password": "x"})).expect(403, "forbidden");
    for bad in [json!({"overlap": -1}), json!({"overlap": 86401}), json!({"overlap": 1.5}), json!({"audience": ""})] {
        issue(bad).expect(400, "invalid_request");
    }
    let human = server.human("no-program");
    admin.post("/v1/token/issue").json(json!({"account_id": human.id()})).expect(409, "conflict");
    for nobody in [NOBODY, "x", ""] {
        admin.post("/v1/token/issue").json(json!({"account_id": nobody})).expect(404, "not_found");
    }
    admin.patch(&format!("/v1/accounts/{id}")).json(json!({"status": "suspended"})).ok(200);
    issue(json!({})).expect(409, "conflict");
    assert!(!third.is_good() && !elsewhere.is_good());
}

#[test]
fn tokens_are_listed_and_revoked_by_their_owner_and_by_an_admin() {
    let server = &*SERVER;
    let (gina, hugo) = (server.human("gina"), server.human("hugo"));
    let second = gina.again();
    let path = format!("/v1/accounts/{}/tokens", gina.id());
    let mine = gina.get(&path).ok(200);
    assert_eq!(mine[0]["jti"], json!(second.jti()));
    assert_eq!(mine.json().as_array().unwrap().len(), 2);
    let page = gina.get(&format!("{path}?limit=1")).ok(200);
    let next = page.header("link").unwrap().trim_start_matches('<').split('>').next().unwrap().to_owned();
    let last = gina.get(&next).ok(200);
    assert_eq!((last[0]["jti"].clone(), last.header("link")), (json!(gina.jti()), None));

    // Another's: the same whether it is there or not.
    hugo.get(&path).expect(403, "forbidden");
    hugo.delete(&path).expect(403, "forbidden");
    hugo.get(&format!("/v1/accounts/{NOBODY}/tokens")).expect(403, "forbidden");
    hugo.get("/v1/accounts/not-an-id/tokens").expect(403, "forbidden");
    hugo.delete(&format!("/v1/token/{}", gina.jti())).expect(404, "not_found");
    gina.delete(&format!("/v1/token/{NOBODY}")).expect(404, "not_found");
    gina.delete("/v1/token/x").expect(404, "not_found");

    gina.delete(&format!("/v1/token/{}", second.jti())).ok(204);
    let events = server.events_of(gina.id()).len();
    gina.delete(&format!("/v1/token/{}", second.jti())).ok(204);
    assert_eq!(server.events_of(gina.id()).len(), events, "already revoked: no event");
    assert!(!second.is_good() && gina.is_good());
    let third = gina.again();
    server.admin().delete(&path).ok(200).is(json!({"revoked": 2}));
    assert!(!gina.is_good() && !third.is_good());
    assert_eq!(server.last_event_of(gina.id()).details, json!({"count": 2, "reason": "revoked_all"}));
    server.admin().delete(&path).ok(200).is(json!({"revoked": 0}));
}

#[test]
fn postgres_credentials_are_sealed_with_their_address() {
    let server = &*SERVER;
    let admin = server.admin();
    let id = program(server, "app-with-database");
    let path = format!("/v1/accounts/{id}/pgcreds");
    let creds =
        json!({"host": "db.internal", "port": 5432, "database": "app", "username": "app", "password": "pg-s3cret"});
    admin.get(&path).expect(404, "not_found");
    admin.delete(&path).expect(404, "not_found");
    admin.put(&path).json(creds.clone()).ok(204);
    admin.get(&path).ok(200).is(creds.clone());
    assert_eq!(server.last_event_of(&id).kind, "pgcred_accessed");
    let token = admin.post("/v1/token/issue").json(json!({"account_id": &id})).ok(201).text("token").to_owned();
    let app = admin.with_token(&token);
    app.get(&path).ok(200).is(creds.clone());
    assert_eq!(server.last_event_of(&id).actor["username"], "app-with-database");
    app.put(&path).json(creds.clone()).expect(403, "forbidden");
    for (member, bad) in [
        ("host", json!("")),
        ("host", json!("h\n")),
        ("host", json!("h".repeat(254))),
        ("port", json!(0)),
        ("port", json!(65536)),
        ("port", json!("5432")),
        ("port", json!(5432.5)),
        ("database", json!("d".repeat(64))),
        ("username", json!("")),
        ("password", json!("")),
        ("password", json!("p".repeat(1025))),
        ("password", json!(null)),
    ] {
        let mut creds = creds.clone();
        creds[member] = bad;
        admin.put(&path).json(creds).expect(400, "invalid_request");
    }

    // A row that was redirected to another host doesn't give the password away.
    server.sql("UPDATE pg_credentials SET pg_host = 'evil.example.com'", []);
    admin.get(&path).expect(500, "internal");
    admin.put(&path).json(creds).ok(204);
    admin.delete(&path).ok(204);
    admin.get(&path).expect(404, "not_found");

    let human = server.human("with-no-database");
    let path = format!("/v1/accounts/{}/pgcreds", human.id());
    let creds = json!({"host": "h", "port": 1, "database": "d", "username": "u", "password": "p"});
    admin.put(&path).json(creds).expect(409, "conflict");
    human.get(&path).expect(403, "forbidden");
}

#[test]
fn the_last_admin_stays() {
    let server = Server::start();
    let admin = server.admin();
    let path = format!("/v1/accounts/{}", admin.id());
    let attempts = || {
        vec![
            admin.delete(&path),
            admin.patch(&path).json(json!({"status": "suspended"})),
            admin.delete(&format!("{path}/roles/admin")),
            admin.put(&format!("{path}/roles")).json(json!({"roles": []})),
        ]
    };
    // An admin who is a program, or suspended, is none that counts.
    let robot = program(&server, "robot");
    admin.put(&format!("/v1/accounts/{robot}/roles/admin")).ok(204);
    for attempt in attempts() {
        attempt.expect(409, "conflict");
    }
    let second = server.human("second");
    server.give_role(second.id(), "admin");
    admin.patch(&format!("/v1/accounts/{}", second.id())).json(json!({"status": "suspended"})).ok(200);
    for attempt in attempts() {
        attempt.expect(409, "conflict");
    }
    admin.patch(&format!("/v1/accounts/{}", second.id())).json(json!({"status": "active"})).ok(200);

    // Two admins who take it from each other at once: one is left.
    let second = second.again();
    let (mine, other) = (format!("{path}/roles/admin"), format!("/v1/accounts/{}/roles/admin", second.id()));
    at_once(2, |n| if n == 0 { admin.delete(&other).send().status } else { second.delete(&mine).send().status });
    let left = "SELECT count(*) FROM account_roles JOIN accounts ON id = account_id
        WHERE role = 'admin' AND account_type = 'human' AND status = 'active'";
    assert_eq!(server.query_one::<i64>(left, []), 1);
}

#[test]
fn two_at_once() {
    // Of its own: nobody else's logins are in the hashing queue.
    let server = &Server::start();
    let admin = server.admin();
    let statuses = |results: Vec<u16>| {
        let mut sorted = results;
        sorted.sort_unstable();
        sorted
    };

    let ivan = server.human("ivan");
    let renewed = at_once(6, |_| ivan.post("/v1/auth/renew").send().status);
    assert_eq!(statuses(renewed), [200, 401, 401, 401, 401, 401]);

    let made = at_once(6, |_| {
        admin.post("/v1/accounts").json(json!({"username": "only-one", "account_type": "system"})).send().status
    });
    assert_eq!(statuses(made), [201, 409, 409, 409, 409, 409]);

    let id = program(server, "issued-at-once");
    let issued = at_once(6, |_| admin.post("/v1/token/issue").json(json!({"account_id": &id})).send());
    let good = issued.iter().filter(|answer| admin.with_token(answer.text("token")).is_good()).count();
    assert_eq!(good, 1, "each revokes the one before");

    let judy = server.human("judy");
    let secret = enrol(&judy);
    let next = code(&secret, 1);
    let body = json!({"username": "judy", "password": judy.password(), "totp_code": next});
    let logins = at_once(4, |_| judy.without_token().post("/v1/auth/login").json(body.clone()).send().status);
    assert_eq!(statuses(logins), [200, 401, 401, 401]);

    let path = format!("/v1/accounts/{}/roles", judy.id());
    at_once(8, |n| admin.put(&format!("{path}/r{n}")).ok(204).status);
    assert_eq!(admin.get(&path).ok(200)["roles"].as_array().unwrap().len(), 8, "none was overwritten");
    let sets = [json!(["a", "b"]), json!(["c"])];
    at_once(4, |n| admin.put(&path).json(json!({"roles": sets[n % 2]})).ok(204).status);
    assert!(sets.contains(&admin.get(&path).ok(200)["roles"]), "one of the two, whole");

    let kate = server.human("kate");
    early_in_a_step();
    let enrolment = kate.post("/v1/auth/totp/enroll").json(json!({"password": kate.password()})).ok(200);
    let first = code(&base32(enrolment.text("secret")), 0);
    let confirmed = at_once(4, |_| kate.post("/v1/auth/totp/confirm").json(json!({"code": &first})).send().status);
    assert_eq!(statuses(confirmed), [204, 409, 409, 409]);
    server.is_sound();
}

#[test]
fn roles_have_their_limits() {
    let server = &*SERVER;
    let admin = server.admin();
    let path = format!("/v1/accounts/{}/roles", program(server, "of-many-roles"));
    let many = |n: usize| (0..n).map(|n| format!("role-{n}")).collect::<Vec<_>>();
    admin.put(&path).json(json!({"roles": many(33)})).expect(400, "invalid_request");
    admin.put(&path).json(json!({"roles": many(32)})).ok(204);
    admin.put(&format!("{path}/one-more")).expect(409, "conflict");
    admin.put(&format!("{path}/role-0")).ok(204);
    for bad in ["Admin", "a%20b", "%C3%A4", ".x"] {
        admin.put(&format!("{path}/{bad}")).expect(400, "invalid_request");
    }
    for bad in [json!(["Admin"]), json!([1]), json!("x"), json!([null])] {
        admin.put(&path).json(json!({"roles": bad})).expect(400, "invalid_request");
    }
    admin.put(&format!("{path}/a%3Ab")).expect(409, "conflict");
    admin.put("/v1/accounts/x/roles/Admin").expect(400, "invalid_request");
    admin.put("/v1/accounts/x/roles/admin").expect(404, "not_found");
}

#[test]
fn the_audit_log_is_listed_newest_first_and_filtered() {
    let server = Server::start();
    let admin = server.admin();
    let mia = server.human("mia");
    server.client().try_login("mia", "wrong wrong wrong").expect(401, "unauthorized");
    let all = admin.get("/v1/audit?limit=1000").ok(200).json().clone();
    let all = all.as_array().unwrap();
    assert!(all.windows(2).all(|pair| pair[0]["id"].as_i64() > pair[1]["id"].as_i64()));
    let members: Vec<_> = all[0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(members, ["actor", "details", "hash", "id", "ip", "target", "time", "time_ms", "type", "via"]);
    let stored = server.events();
    let newest = stored.last().unwrap();
    assert_eq!(all[0]["type"], json!(newest.kind));
    assert_eq!(all[0]["hash"].as_str().unwrap(), newest.hash.iter().map(|b| format!("{b:02x}")).collect::<String>());

    let ids = |query: &str| -> Vec<i64> {
        let listed = admin.get(&format!("/v1/audit?limit=1000{query}")).ok(200);
        listed.json().as_array().unwrap().iter().map(|event| event["id"].as_i64().unwrap()).collect()
    };
    let of_mia: Vec<i64> = server.events_of(mia.id()).iter().rev().map(|event| event.id).collect();
    assert_eq!(ids(&format!("&account={}", mia.id())), of_mia);
    assert_eq!(ids(&format!("&account={}&type=login_fail", mia.id())), [newest.id]);
    assert_eq!(ids(&format!("&account={NOBODY}")), [] as [i64; 0]);
    assert_eq!(ids("&account=x"), [] as [i64; 0]);
    assert_eq!(ids("&type=login_fail"), [newest.id]);
    let second = all[0]["time"].as_str().unwrap();
    assert!(ids(&format!("&since={second}&until={second}")).contains(&newest.id), "both ends count");
    assert_eq!(ids("&until=2000-01-01T00:00:00Z"), [] as [i64; 0]);
    for bad in [
        "type=nonsense",
        "since=yesterday",
        "until=1",
        "cursor=x",
        "cursor=-1",
        "limit=0",
        "x=1",
        "type=login_ok&type=login_ok",
    ] {
        admin.get(&format!("/v1/audit?{bad}")).expect(400, "invalid_request");
    }

    // Page by page it is the same.
    let (mut path, mut walked) = ("/v1/audit?limit=3".to_owned(), Vec::new());
    loop {
        let page = admin.get(&path).ok(200);
        walked.extend(page.json().as_array().unwrap().clone());
        let Some(link) = page.header("link") else { break };
        path = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
    }
    assert_eq!(walked, *all);
}

/// Every route of the contract with a body that would do.
fn routes(id: &str, jti: &str) -> Vec<(&'static str, String, Option<Value>)> {
    let body = |text: &str| Some(serde_json::from_str(text).unwrap());
    mcias::wire::ops::ALL
        .iter()
        .map(|decl| {
            let path = decl.path.replace("{id}", id).replace("{jti}", jti).replace("{role}", "some-role");
            let body = match decl.name {
                "ExchangeToken" => body(r#"{"audience":"x"}"#),
                "ChangePassword" => body(r#"{"current_password":"x","new_password":"a long enough password"}"#),
                "EnrollTotp" | "EnrollTOTP" => body(r#"{"password":"x"}"#),
                "ConfirmTotp" | "ConfirmTOTP" => body(r#"{"code":"123456"}"#),
                "RemoveTotp" | "RemoveTOTP" | "IssueServiceToken" => Some(json!({"account_id": id})),
                "CreateAccount" => body(r#"{"username":"eve","account_type":"system"}"#),
                "UpdateAccount" => body(r#"{"status":"suspended"}"#),
                "SetPassword" => body(r#"{"new_password":"a long enough password"}"#),
                "SetRoles" => body(r#"{"roles":["admin"]}"#),
                "SetPGCreds" => body(r#"{"host":"h","port":1,"database":"d","username":"u","password":"p"}"#),
                _ => None,
            };
            (decl.method.as_str(), path, body)
        })
        .collect()
}

#[test]
fn every_route_is_knocked_on_with_every_bad_credential() {
    use mcias::wire::ops::{ALL, Level};
    let server = Server::start();
    let victim = server.human("victim");
    let forge = Forge::of(&server);
    let plain = server.human("plain");
    let claims = plain.claims();
    let expired = {
        let mut old = claims.clone();
        (old["iat"], old["exp"]) = (json!(now() - 100), json!(now() - 1));
        forge.sign(&old)
    };
    let revoked = plain.again();
    revoked.post("/v1/auth/logout").ok(204);
    let elsewhere = plain.post("/v1/auth/token").json(json!({"audience": "https://elsewhere.example.com"})).ok(200);
    let never_issued = {
        let mut other = claims.clone();
        other["jti"] = json!(NOBODY);
        forge.sign(&other)
    };
    let bad = [
        ("none", None),
        ("garbage", Some("not.a.token".to_owned())),
        ("expired", Some(expired)),
        ("revoked", Some(revoked.token().to_owned())),
        ("never issued", Some(never_issued)),
        ("for another audience", Some(elsewhere.text("token").to_owned())),
    ];
    let before = server.query_one::<i64>("SELECT count(*) FROM accounts", []);
    let victims_events = server.events_of(victim.id()).len();
    let mut knocked = 0;
    for (decl, (method, path, body)) in ALL.iter().zip(routes(victim.id(), &victim.jti())) {
        let knock = |client: Client| {
            let request = client.request(method, &path);
            match &body {
                Some(body) => request.json(body.clone()),
                None => request,
            }
        };
        for (what, token) in &bad {
            let other_audience_will_do = decl.level == Level::AnyToken && *what == "for another audience";
            if decl.level == Level::Public || other_audience_will_do {
                continue;
            }
            let client = token.as_ref().map_or(server.client(), |token| server.client().with_token(token));
            knock(client).expect(401, "unauthorized");
            knocked += 1;
        }
        // A good session without the role.
        if matches!(decl.level, Level::Admin | Level::AdminOrOwner) {
            knock(plain.clone()).expect(403, "forbidden");
            knocked += 1;
        }
        // A session of the role that was taken away since.
        if decl.level == Level::Admin {
            let former = server.query::<String>("SELECT uuid FROM accounts WHERE username = 'former'", []);
            let former = if former.is_empty() {
                let former = server.human("former");
                server.give_role(former.id(), "admin");
                let session = former.again();
                session.get("/v1/accounts").ok(200);
                server.take_role(former.id(), "admin");
                FORMER.set(session.token().to_owned()).unwrap();
                session
            } else {
                server.client().with_token(FORMER.get().unwrap())
            };
            knock(former).expect(403, "forbidden");
            knocked += 1;
        }
    }
    assert!(knocked > 150, "{knocked}");
    assert_eq!(server.query_one::<i64>("SELECT count(*) FROM accounts WHERE username <> 'former'", []), before);
    assert_eq!(server.events_of(victim.id()).len(), victims_events, "nothing happened to the victim");
}

static FORMER: std::sync::OnceLock<String> = std::sync::OnceLock::new();

#[test]
fn no_answer_carries_a_stored_secret() {
    let server = Server::start();
    let admin = server.admin();
    let nora = server.human("nora");
    let secret = enrol(&nora);
    let id = program(&server, "nightly");
    let path = format!("/v1/accounts/{id}");
    let creds = json!({"host": "h", "port": 1, "database": "d", "username": "u", "password": "pg-pass-7f3a"});
    admin.put(&format!("{path}/pgcreds")).json(creds).ok(204);
    let token = admin.post("/v1/token/issue").json(json!({"account_id": &id})).ok(201).text("token").to_owned();
    let before = server.door().answers().len();
    for path in [
        "/v1/accounts",
        "/v1/audit",
        "/v1/auth/me",
        "/v1/keys/public",
        "/.well-known/jwks.json",
        "/v1/openapi.json",
        &path,
        &format!("{path}/roles"),
        &format!("{path}/tokens"),
        &format!("/v1/accounts/{}", nora.id()),
        &format!("/v1/accounts/{}/tokens", nora.id()),
    ] {
        admin.get(path).ok(200);
    }
    admin.patch(&path).json(json!({"username": "weekly"})).ok(200);
    admin.without_token().post("/v1/token/validate").json(json!({"token": &token})).ok(200);
    nora.put("/v1/auth/password")
        .json(json!({"current_password": "w", "new_password": nora.password()}))
        .expect(403, "forbidden");
    server.client().try_login("nora", nora.password()).expect(401, "unauthorized");
    let secrets = [
        nora.password().to_owned(),
        server.admin_password(),
        "pg-pass-7f3a".into(),
        totp::base32(&secret).to_string(),
        token.rsplit('.').next().unwrap().to_owned(),
        nora.token().rsplit('.').next().unwrap().to_owned(),
        "$argon2".into(),
    ];
    let answers = server.door().answers().split_off(before);
    assert!(answers.len() >= 15);
    for answer in answers {
        for secret in &secrets {
            assert!(!answer.contains(secret.as_str()), "{secret} in {answer}");
        }
    }
}

#[test]
fn every_event_type_that_rest_makes_was_made_as_written() {
    // The details of each type have exactly the members that the contract gives them.
    let server = &*SERVER;
    let olga = server.human("olga");
    olga.post("/v1/auth/token").json(json!({"audience": "x"})).ok(200);
    olga.post("/v1/auth/renew").ok(200);
    let members = |kind: &str| -> Option<&[&str]> {
        Some(match kind {
            "login_ok" => &["amr", "audience", "jti"],
            "login_fail" | "login_totp_fail" => &["reason"],
            "token_issued" | "token_exchanged" | "token_renewed" => &["audience", "jti"],
            "token_revoked" => &["audience", "jti", "reason"],
            "tokens_revoked" => &["count", "reason"],
            "account_created" => &["account_type"],
            "account_updated" => &["changed"],
            "credential_fail" => &["what"],
            "role_granted" | "role_revoked" => &["role"],
            "pgcred_accessed" | "pgcred_updated" | "pgcred_deleted" => &["name"],
            "signing_key_created" => &["kid"],
            "schema_migrated" => &["from", "to"],
            "server_started" | "account_deleted" | "password_changed" | "password_reset" | "totp_enrolled"
            | "totp_confirmed" | "totp_removed" => &[],
            _ => return None,
        })
    };
    let mut seen = BTreeSet::new();
    for event in server.events() {
        let expected = members(&event.kind).unwrap_or_else(|| panic!("no member list for {event:?}"));
        let found: Vec<_> = event.details.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(found, expected, "{event:?}");
        seen.insert(event.kind);
    }
    assert!(seen.contains("token_exchanged") && seen.contains("token_renewed"));
}
