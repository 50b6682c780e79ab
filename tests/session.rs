//! A session's life, as a person and as a program live it: logging in, asking, exchanging, renewing, logging out; and
//! the logins that fail, all alike to whoever tries and each with its reason in the audit log.

mod support;

use std::sync::LazyLock;

use mcias::crypto::totp;
use mcias::model::time::Timestamp;
use serde_json::{Value, json};
use support::{Answer, Client, Event, Server, at_once, claims_of, eventually, now, parts_of, rfc3339, unb64};

/// For tests that need no configuration of their own.
static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

const ISSUER: &str = "https://localhost:8443";

/// What a validation of this client's token has to say, with these roles.
fn good(client: &Client, roles: &[&str]) -> Value {
    let claims = client.claims();
    json!({
        "valid": true, "sub": client.id(), "username": client.username(), "account_type": "human", "roles": roles,
        "audience": claims["aud"], "expires_at": rfc3339(claims["exp"].as_i64().unwrap()), "jti": claims["jti"],
    })
}

/// Type, actor, target and details of an event that came over the network.
#[track_caller]
fn told(event: &Event) -> (&str, &Value, &Value, &Value) {
    assert_eq!((event.via.as_str(), event.ip.as_deref()), ("server", Some("127.0.0.1")), "{event:?}");
    (&event.kind, &event.actor, &event.target, &event.details)
}

#[test]
fn a_person_logs_in_asks_exchanges_renews_and_logs_out() {
    let server = &*SERVER;
    let alice = server.human("alice");
    let party = json!({"id": alice.id(), "username": "alice"});
    let claims = alice.claims();

    // The token says what the contract says it says, and nothing else.
    let header: Value = serde_json::from_slice(&unb64(parts_of(alice.token())[0])).unwrap();
    let key = server.client().get("/v1/keys/public").ok(200);
    assert_eq!(header, json!({"alg": "EdDSA", "typ": "JWT", "kid": key["kid"]}));
    let (iat, exp) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
    let expected = json!({
        "iss": ISSUER, "sub": alice.id(), "aud": ISSUER, "iat": iat, "exp": iat + 24 * 3600, "jti": alice.jti(),
        "roles": [], "auth_time": iat, "amr": ["pwd"],
    });
    assert_eq!(claims, expected);
    assert!((now() - 60..=now()).contains(&iat));

    // The answer of a login is the token and its end.
    let answer = server.client().try_login("alice", alice.password()).ok(200);
    let exp_of_it = claims_of(answer.text("token"))["exp"].as_i64().unwrap();
    answer.is(json!({"token": answer["token"], "expires_at": rfc3339(exp_of_it)}));
    assert_ne!(answer.text("token"), alice.token(), "every login has a token of its own");

    // Three ways to ask whether it is good.
    let anybody = server.client();
    anybody.post("/v1/token/validate").json(json!({"token": alice.token()})).ok(200).is(good(&alice, &[]));
    alice.post("/v1/token/validate").ok(200).is(good(&alice, &[]));
    let guarded = alice.get("/v1/token/validate").ok(200);
    guarded.is(good(&alice, &[]));
    let headers = ["x-mcias-subject", "x-mcias-username", "x-mcias-roles"].map(|name| guarded.header(name));
    assert_eq!(headers, [Some(alice.id()), Some("alice"), Some("")]);

    let me = alice.get("/v1/auth/me").ok(200);
    let made = server.query_one::<i64>("SELECT created_at FROM accounts WHERE uuid = ?1", [alice.id()]);
    me.is(json!({
        "id": alice.id(), "username": "alice", "account_type": "human", "status": "active", "totp_enabled": false,
        "roles": [], "created_at": rfc3339(made), "updated_at": rfc3339(made), "expires_at": rfc3339(exp),
        "audience": ISSUER, "token_roles": [],
    }));

    // A token for somebody else.
    let exchanged = alice.post("/v1/auth/token").json(json!({"audience": "files"})).ok(200);
    let for_files = alice.with_token(exchanged.text("token"));
    let exp_of_it = for_files.claims()["exp"].as_i64().unwrap();
    exchanged.is(json!({"token": exchanged["token"], "expires_at": rfc3339(exp_of_it)}));
    assert_eq!((&for_files.claims()["aud"], &for_files.claims()["sub"]), (&json!("files"), &json!(alice.id())));
    assert!(for_files.is_good() && exp_of_it <= exp);

    // Renewed: the next one is good, the former isn't.
    let another = alice.again();
    let renewed = another.post("/v1/auth/renew").ok(200);
    let renewed = another.with_token(renewed.text("token"));
    assert!(renewed.is_good());
    another.get("/v1/auth/me").expect(401, "unauthorized");
    assert!(!another.is_good());
    assert_eq!(renewed.claims()["auth_time"], another.claims()["auth_time"]);

    // Logged out: gone, and what was got with it too; another session of the same person lives on.
    alice.post("/v1/auth/logout").ok(204);
    for dead in [&alice, &for_files] {
        assert!(!dead.is_good());
        dead.get("/v1/token/validate").expect(401, "unauthorized");
        dead.post("/v1/token/validate").expect(401, "unauthorized");
        dead.post("/v1/auth/logout").expect(401, "unauthorized");
        dead.get("/v1/auth/me").expect(401, "unauthorized");
    }
    assert!(renewed.is_good());

    // And all of it is in the audit log, in the words of the contract.
    let events = server.events_of(alice.id());
    let admin = json!({"id": server.admin().id(), "username": "admin"});
    let issued = |client: &Client, audience: &str| json!({"jti": client.jti(), "audience": audience});
    let login = |jti: &str| json!({"jti": jti, "audience": ISSUER, "amr": ["pwd"]});
    let second = claims_of(answer.text("token"))["jti"].as_str().unwrap().to_owned();
    let logout = json!({"jti": alice.jti(), "audience": ISSUER, "reason": "logout"});
    let expected = [
        ("account_created", &admin, &party, &json!({"account_type": "human"})),
        ("login_ok", &party, &Value::Null, &login(&alice.jti())),
        ("login_ok", &party, &Value::Null, &login(&second)),
        ("token_exchanged", &party, &party, &issued(&for_files, "files")),
        ("login_ok", &party, &Value::Null, &login(&another.jti())),
        ("token_renewed", &party, &party, &issued(&renewed, ISSUER)),
        ("token_revoked", &party, &party, &logout),
    ];
    assert_eq!(events.iter().map(told).collect::<Vec<_>>(), expected);

    let reason = |client: &Client| {
        let sql = "SELECT revoke_reason FROM token_revocation WHERE jti = ?1";
        server.query_one::<Option<String>>(sql, [client.jti()])
    };
    assert_eq!(reason(&alice).as_deref(), Some("logout"));
    assert_eq!(reason(&for_files).as_deref(), Some("parent_revoked"));
    assert_eq!(reason(&another).as_deref(), Some("renewed"));
    assert_eq!(reason(&renewed), None);
}

#[test]
fn names_fold_and_an_audience_can_be_asked_for() {
    let server = &*SERVER;
    let folded = server.human("folded");
    let again = server.login("FolDed", folded.password());
    assert_eq!(again.id(), folded.id());

    let body = json!({"username": "folded", "password": folded.password(), "audience": "https://wiki.example.com/"});
    let answer = server.client().post("/v1/auth/login").json(body).ok(200);
    let wiki = folded.with_token(answer.text("token"));
    assert_eq!(wiki.claims()["aud"], "https://wiki.example.com/");
    assert!(wiki.is_good());
    // It opens nothing here: a hostile service that is handed it can't turn round and use it.
    wiki.get("/v1/auth/me").expect(401, "unauthorized");
    wiki.post("/v1/auth/renew").expect(401, "unauthorized");
    wiki.post("/v1/auth/token").json(json!({"audience": "x"})).expect(401, "unauthorized");
    wiki.get("/v1/accounts").expect(401, "unauthorized");
    // But it can be logged out.
    wiki.post("/v1/auth/logout").ok(204);
    assert!(!wiki.is_good());
}

#[test]
fn an_exchanged_token_dies_with_its_parent_and_not_the_other_way_round() {
    let server = &*SERVER;
    let carol = server.human("carol");
    let exchange = |client: &Client, audience: &str| {
        let answer = client.post("/v1/auth/token").json(json!({"audience": audience})).ok(200);
        client.with_token(answer.text("token"))
    };
    let one = exchange(&carol, "one");
    let two = exchange(&carol, "two");
    one.post("/v1/auth/logout").ok(204);
    assert!(!one.is_good() && two.is_good() && carol.is_good());

    // A renewal ends what was got with the former token.
    let answer = carol.post("/v1/auth/renew").ok(200);
    let renewed = carol.with_token(answer.text("token"));
    assert!(!two.is_good() && renewed.is_good());

    // One for the issuer itself is a session, and may go on exchanging; all of it hangs on the first.
    let child = exchange(&renewed, ISSUER);
    let grandchild = exchange(&child, "three");
    child.get("/v1/auth/me").ok(200);
    assert!(grandchild.is_good());
    let answer = child.post("/v1/auth/renew").ok(200);
    let child = child.with_token(answer.text("token"));
    assert!(!grandchild.is_good(), "its parent was renewed");
    let grandchild = exchange(&child, "three");
    assert!(child.claims()["exp"].as_i64() <= renewed.claims()["exp"].as_i64(), "never longer than the first");
    renewed.post("/v1/auth/logout").ok(204);
    assert!(!child.is_good() && !grandchild.is_good());
}

#[test]
fn of_two_renewals_at_once_one_wins() {
    let server = &*SERVER;
    let dave = server.human("dave");
    let mut session = dave.clone();
    for round in 0..10 {
        let mut answers = at_once(4, |_| session.post("/v1/auth/renew").send());
        answers.sort_by_key(|answer| answer.status);
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [200, 401, 401, 401], "round {round}");
        session = session.with_token(answers[0].text("token"));
    }
    let live = "SELECT count(*) FROM token_revocation WHERE revoked_at IS NULL AND account_id =
        (SELECT id FROM accounts WHERE uuid = ?1)";
    assert_eq!(server.query_one::<i64>(live, [dave.id()]), 1);
    let renewals = server.events_of(dave.id()).into_iter().filter(|event| event.kind == "token_renewed").count();
    assert_eq!(renewals, 10);
}

#[test]
fn of_logouts_at_once_one_wins() {
    let server = &*SERVER;
    let user = server.human("twice-out");
    let mut statuses = at_once(4, |_| user.post("/v1/auth/logout").send().status);
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 401, 401, 401]);
    assert_eq!(server.events_of(user.id()).iter().filter(|event| event.kind == "token_revoked").count(), 1);
}

#[test]
fn renewing_ends_with_the_longest_session() {
    let server = Server::with(|c| c.set("tokens", "max_session", "\"3s\""));
    let mut session = server.human("frank");
    let logged_in = session.claims()["auth_time"].as_i64().unwrap();
    eventually("renewing is refused", || {
        let answer = session.post("/v1/auth/renew").send();
        if answer.status == 401 {
            return true;
        }
        assert_eq!(answer.status, 200, "{}", answer.story());
        session = session.with_token(answer.text("token"));
        assert_eq!(session.claims()["auth_time"], logged_in, "renewing isn't logging in");
        false
    });
    assert!(now() >= logged_in + 3);
    assert!(session.is_good(), "what was got stays good until its own end");
    assert!(session.again().post("/v1/auth/logout").send().status == 204, "a new login begins anew");
}

#[test]
fn a_token_ends_when_it_says() {
    let server = Server::with(|c| c.set("tokens", "default_expiry", "\"2s\""));
    let heidi = server.human("heidi");
    let (iat, exp) = (heidi.claims()["iat"].as_i64().unwrap(), heidi.claims()["exp"].as_i64().unwrap());
    assert_eq!(exp, iat + 2);
    eventually("the token ends", || {
        let before = now();
        let good = heidi.is_good();
        assert!(good || now() >= exp, "it ended before its time");
        assert!(!good || before < exp, "it lives on after its time");
        !good
    });
    heidi.get("/v1/auth/me").expect(401, "unauthorized");
    heidi.get("/v1/token/validate").expect(401, "unauthorized");
    heidi.post("/v1/auth/renew").expect(401, "unauthorized");
    heidi.post("/v1/auth/logout").expect(401, "unauthorized");
}

#[test]
fn the_shortest_lifetime_counts() {
    let server = Server::with(|c| {
        c.set("tokens", "default_expiry", "\"30m\"");
        c.set("tokens", "admin_expiry", "\"1h\"");
    });
    let lifetime =
        |client: &Client| client.claims()["exp"].as_i64().unwrap() - client.claims()["iat"].as_i64().unwrap();
    assert_eq!(lifetime(&server.admin()), 1800);
    assert_eq!(lifetime(&server.human("ivan")), 1800);
    let admin = SERVER.admin();
    assert_eq!(lifetime(&admin), 8 * 3600, "an admin's is shorter by default");
    let answer = admin.post("/v1/auth/token").json(json!({"audience": "x"})).ok(200);
    let exchanged = admin.with_token(answer.text("token"));
    assert!(exchanged.claims()["exp"].as_i64() <= admin.claims()["exp"].as_i64());
}

#[test]
fn roles_count_where_they_are_in_the_token_and_still_held() {
    let server = &*SERVER;
    let judy = server.human("judy");
    let roles = |client: &Client| {
        let validated = client.post("/v1/token/validate").ok(200);
        let guarded = client.get("/v1/token/validate").ok(200);
        assert_eq!(validated["roles"], guarded["roles"]);
        let me = client.get("/v1/auth/me").ok(200);
        assert_eq!(validated["roles"], me["token_roles"]);
        let words: Vec<&str> = validated["roles"].as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect();
        assert_eq!(guarded.header("x-mcias-roles"), Some(words.join(",").as_str()));
        (validated["roles"].clone(), me["roles"].clone())
    };
    assert_eq!(roles(&judy), (json!([]), json!([])));
    // Given: with the next login or renewal.
    for role in ["reader", "editor", "admin"] {
        server.give_role(judy.id(), role);
    }
    let held = json!(["admin", "editor", "reader"]);
    assert_eq!(roles(&judy), (json!([]), held.clone()));
    judy.get("/v1/accounts").expect(403, "forbidden");
    let with_roles = judy.again();
    assert_eq!(roles(&with_roles), (held.clone(), held.clone()));
    assert_eq!(with_roles.claims()["roles"], held);
    with_roles.get("/v1/accounts").ok(200);
    let answer = judy.post("/v1/auth/renew").ok(200);
    assert_eq!(roles(&judy.with_token(answer.text("token"))), (held.clone(), held));
    // Taken: at once.
    server.take_role(judy.id(), "admin");
    assert_eq!(roles(&with_roles), (json!(["editor", "reader"]), json!(["editor", "reader"])));
    with_roles.get("/v1/accounts").expect(403, "forbidden");

    // A guard may ask for any of some.
    let ask = |query: &str| with_roles.get(&format!("/v1/token/validate{query}"));
    ask("?role=editor").ok(200);
    ask("?role=admin&role=reader").ok(200);
    ask("?role=admin").expect(403, "forbidden");
    ask("?role=admin&role=root").expect(403, "forbidden");
    ask(&format!("?role=editor&audience={ISSUER}")).ok(200);
    ask("?role=editor&audience=files").expect(401, "unauthorized");
    ask("?role=Editor").expect(400, "invalid_request");
}

#[test]
fn a_system_account_asks_and_exchanges_but_neither_logs_in_nor_renews() {
    let server = &*SERVER;
    let robot = server.system("robot");
    let me = robot.get("/v1/auth/me").ok(200);
    assert_eq!(
        (&me["account_type"], &me["username"], &me["id"]),
        (&json!("system"), &json!("robot"), &json!(robot.id()))
    );
    let validated = robot.post("/v1/token/validate").ok(200);
    assert_eq!((&validated["account_type"], &validated["sub"]), (&json!("system"), &json!(robot.id())));
    robot.post("/v1/auth/renew").expect(403, "forbidden");
    assert!(robot.is_good(), "asking for a renewal costs nothing");
    let answer = robot.post("/v1/auth/token").json(json!({"audience": "backup"})).ok(200);
    let exchanged = robot.with_token(answer.text("token"));
    assert!(exchanged.is_good());
    server.client().try_login("robot", "any password at all").expect(401, "unauthorized");
    robot.post("/v1/auth/logout").ok(204);
    assert!(!robot.is_good() && !exchanged.is_good());
}

/// Six digits that are no code of now, of the step before, or of the two after.
fn wrong_code(secret: &[u8]) -> String {
    let step = totp::step_at(Timestamp::new(now()));
    let right: Vec<_> = (step - 1..=step + 2).map(|step| *totp::code_at(secret, step).as_bytes()).collect();
    let mut wrong = (0..).map(|n| format!("{n:06}"));
    wrong.find(|code| right.iter().all(|right| right != code.as_bytes())).unwrap()
}

/// The code of the step that is `later` after this one.
fn code(secret: &[u8], later: i64) -> String {
    let step = totp::step_at(Timestamp::new(now()));
    String::from_utf8(totp::code_at(secret, step + later).as_bytes().to_vec()).unwrap()
}

#[track_caller]
fn with_code(server: &Server, user: &Client, password: &str, code: Option<&str>) -> Answer {
    let mut body = json!({"username": user.username(), "password": password});
    if let Some(code) = code {
        body["totp_code"] = code.into();
    }
    server.client().post("/v1/auth/login").json(body).send()
}

#[test]
fn one_time_codes_count_once_and_are_held_back_after_a_right_password_only() {
    let server = &*SERVER;
    let kim = server.human("kim");
    let ignored = with_code(server, &kim, kim.password(), Some("123456"));
    assert_eq!(ignored.status, 200, "where there are no codes, one is ignored");
    let secret = server.turn_totp_on(kim.id());
    assert_eq!(kim.get("/v1/auth/me").ok(200)["totp_enabled"], true);

    let mark = server.events_of(kim.id()).len();
    let log_in = |password: &str, code: Option<&str>| with_code(server, &kim, password, code).status;
    let right = kim.password();
    // A failed login uses up no step.
    let first = code(&secret, 0);
    assert_eq!(log_in("not the password of kim", Some(&first)), 401);
    let answer = with_code(server, &kim, right, Some(&first));
    assert_eq!(answer.status, 200, "{}", answer.story());
    assert_eq!(claims_of(answer.text("token"))["amr"], json!(["pwd", "otp"]));
    assert_eq!(log_in(right, Some(&first)), 401, "used up");
    // The next step's is good a little early; it uses up those before.
    assert_eq!(log_in(right, Some(&code(&secret, 1))), 200);
    assert_eq!(log_in(right, Some(&first)), 401, "older than the newest used one");
    assert_eq!(log_in(right, None), 401);
    // A stranger without the password holds nothing back, however often they try.
    for _ in 0..6 {
        assert_eq!(log_in("not the password of kim", Some(&wrong_code(&secret))), 401);
    }
    for _ in 0..5 {
        assert_eq!(log_in(right, Some(&wrong_code(&secret))), 401);
    }
    assert_eq!(log_in(right, Some(&wrong_code(&secret))), 401);

    let events = server.events_of(kim.id()).split_off(mark);
    let reasons: Vec<_> =
        events.iter().map(|e| (e.kind.as_str(), e.details["reason"].as_str().unwrap_or(""))).collect();
    let (password, code) = ("login_fail", "login_totp_fail");
    let mut expected = vec![(password, "bad_password"), ("login_ok", ""), (code, "replayed"), ("login_ok", "")];
    expected.extend([(code, "replayed"), (code, "missing")]);
    expected.extend([(password, "bad_password"); 6]);
    expected.extend([(code, "wrong"); 5]);
    expected.push((code, "held_back"));
    assert_eq!(reasons, expected);
}

#[test]
fn a_code_is_taken_once_also_by_many_at_once() {
    let server = &*SERVER;
    let lena = server.human("lena");
    let secret = server.turn_totp_on(lena.id());
    let code = code(&secret, 0);
    let mut statuses = at_once(4, |_| with_code(server, &lena, lena.password(), Some(&code)).status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401, 401, 401]);
}

#[test]
fn roles_that_want_a_code_are_left_out_of_a_token_got_without() {
    let server = Server::with(|c| c.set("totp", "required_for", "[\"admin\"]"));
    let admin = server.admin();
    assert_eq!(admin.claims()["roles"], json!([]));
    admin.get("/v1/accounts").expect(403, "forbidden");
    let secret = server.turn_totp_on(admin.id());
    let answer = with_code(&server, &admin, admin.password(), Some(&code(&secret, 0)));
    let admin = admin.with_token(answer.text("token"));
    assert_eq!(admin.claims()["roles"], json!(["admin"]));
    admin.get("/v1/accounts").ok(200);
    let answer = admin.post("/v1/auth/renew").ok(200);
    let renewed = admin.with_token(answer.text("token"));
    assert_eq!((&renewed.claims()["roles"], &renewed.claims()["amr"]), (&json!(["admin"]), &json!(["pwd", "otp"])));
}

#[test]
fn every_failed_login_looks_the_same_and_the_audit_log_knows_better() {
    let server = Server::start();
    let named = |name: &str| server.human(name);
    let (active, suspended, deleted) = (named("active"), named("suspended"), named("deleted"));
    let codes = named("codes");
    let robot = server.system("robot");
    server.sql("UPDATE accounts SET status = 'suspended' WHERE uuid = ?1", [suspended.id()]);
    let delete = "UPDATE accounts SET status = 'deleted', deleted_at = 1, password_enc = NULL, password_nonce = NULL
        WHERE uuid = ?1";
    server.sql(delete, [deleted.id()]);
    let secret = server.turn_totp_on(codes.id());
    let used = code(&secret, 0);
    assert_eq!(with_code(&server, &codes, codes.password(), Some(&used)).status, 200);

    let party = |client: &Client| json!({"id": client.id(), "username": client.username()});
    let nobody = Value::Null;
    let long = "a".repeat(129);
    let huge = "ä".repeat(513);
    let wrong = wrong_code(&secret);
    let fail = "login_fail";
    let (code_missing, code_wrong) = (json!({}), json!({"totp_code": wrong}));
    let cases: Vec<(&str, &str, Value, &str, &str, Value)> = vec![
        ("codes", codes.password(), code_missing, "login_totp_fail", "missing", party(&codes)),
        ("codes", codes.password(), json!({"totp_code": used}), "login_totp_fail", "replayed", party(&codes)),
        ("codes", codes.password(), code_wrong.clone(), "login_totp_fail", "wrong", party(&codes)),
        ("codes", codes.password(), code_wrong.clone(), "login_totp_fail", "wrong", party(&codes)),
        ("codes", codes.password(), code_wrong.clone(), "login_totp_fail", "wrong", party(&codes)),
        ("codes", codes.password(), code_wrong.clone(), "login_totp_fail", "wrong", party(&codes)),
        ("codes", codes.password(), code_wrong.clone(), "login_totp_fail", "wrong", party(&codes)),
        ("codes", codes.password(), code_wrong, "login_totp_fail", "held_back", party(&codes)),
        ("nobody", "any password at all", json!({}), fail, "unknown_user", nobody.clone()),
        ("admin@example.com", "", json!({}), fail, "malformed", nobody.clone()),
        ("active", "not the password of it", json!({}), fail, "bad_password", party(&active)),
        ("ACTIVE", "The passphrase of active", json!({}), fail, "bad_password", party(&active)),
        ("active", "not the password of it", json!({"totp_code": "123456"}), fail, "bad_password", party(&active)),
        ("active", "not the password of it", json!({"audience": "files"}), fail, "bad_password", party(&active)),
        ("active", "", json!({}), fail, "malformed", party(&active)),
        ("active", &huge, json!({}), fail, "malformed", party(&active)),
        ("suspended", suspended.password(), json!({}), fail, "suspended", party(&suspended)),
        ("suspended", "not the password of it", json!({}), fail, "suspended", party(&suspended)),
        ("deleted", deleted.password(), json!({}), fail, "deleted", party(&deleted)),
        ("robot", "any password at all", json!({}), fail, "system_account", party(&robot)),
        ("", "any password at all", json!({}), fail, "malformed", nobody.clone()),
        (" active", active.password(), json!({}), fail, "malformed", nobody.clone()),
        ("active\u{0}", active.password(), json!({}), fail, "malformed", nobody.clone()),
        ("' OR 1=1 --", "any password at all", json!({}), fail, "malformed", nobody.clone()),
        (&long, "any password at all", json!({}), fail, "malformed", nobody.clone()),
        (active.id(), active.password(), json!({}), fail, "malformed", nobody),
        ("codes", "not the password of it", json!({}), fail, "bad_password", party(&codes)),
    ];

    let mut looks: Option<String> = None;
    for over_http2 in [false, true] {
        let client = if over_http2 { server.client().over_http2() } else { server.client() };
        for (username, password, more, kind, reason, target) in &cases {
            // By now every wrong code is held back.
            let reason = match *reason {
                "wrong" | "replayed" if over_http2 => "held_back",
                reason => reason,
            };
            let mut body = json!({"username": username, "password": password});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let answer = client.post("/v1/auth/login").json(body.clone()).expect(401, "unauthorized");
            if over_http2 {
                assert_eq!(answer["error"], "authentication failed");
            } else {
                let this = answer.without_id_and_date();
                assert_eq!(*looks.get_or_insert(this.clone()), this, "{body} can be told from the others");
            }
            let event = server.last_event();
            assert_eq!(told(&event), (*kind, &Value::Null, target, &json!({"reason": reason})), "{body}");
        }
    }
    // And with the right password, but for the one thing, it would have been let in.
    active.again();
    let looks = looks.unwrap();
    assert!(looks.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{looks}");
    assert!(looks.ends_with("\r\n\r\n{\"code\":\"unauthorized\",\"error\":\"authentication failed\"}"), "{looks}");
    server.is_sound();
}

#[test]
fn only_a_malformed_login_is_a_bad_request() {
    let server = &*SERVER;
    let probe = server.human("probe");
    let events = server.events_of(probe.id()).len();
    for body in [
        json!({}),
        json!({"username": "probe"}),
        json!({"password": "any password at all"}),
        json!({"username": "probe", "password": null}),
        json!({"username": null, "password": "any password at all"}),
        json!({"username": "probe", "password": 1}),
        json!({"username": ["probe"], "password": "any password at all"}),
        json!({"username": "probe", "password": "any password at all", "totp_code": null}),
        json!({"username": "probe", "password": "any password at all", "totp_code": 123456}),
        json!({"username": "probe", "password": "any password at all", "audience": null}),
        json!({"username": "probe", "password": "any password at all", "audience": ""}),
        json!({"username": "probe", "password": "any password at all", "audience": "ä"}),
        json!({"username": "probe", "password": "any password at all", "audience": "a".repeat(257)}),
        json!({"username": "probe", "password": "any password at all", "remember": true}),
        json!([]),
        json!("probe"),
    ] {
        let answer = server.client().post("/v1/auth/login").json(body).expect(400, "invalid_request");
        assert!(!answer.text("error").contains("any password"), "{}", answer.story());
    }
    assert_eq!(server.events_of(probe.id()).len(), events, "it wasn't tried at all");
}

#[test]
fn what_the_bearer_is_called_counts_today() {
    let server = &*SERVER;
    let mia = server.human("mia");
    server.sql("UPDATE accounts SET username = 'mia-2' WHERE uuid = ?1", [mia.id()]);
    assert_eq!(mia.get("/v1/auth/me").ok(200)["username"], "mia-2");
    assert_eq!(mia.post("/v1/token/validate").ok(200)["username"], "mia-2");
    assert_eq!(mia.get("/v1/token/validate").ok(200).header("x-mcias-username"), Some("mia-2"));
}
