//! Real answers to every operation, held against the document: a day on which everything succeeds once, and every
//! refusal that can be brought about.

use std::collections::BTreeSet;
use std::sync::Mutex;

use mcias::crypto::totp;
use mcias::model::time::Timestamp;
use mcias::wire::ops::{self, Decl, Level};
use serde_json::{Value, json};

use super::schema::{misfits, resolve};
use super::support::{Answer, Client, Instance, Request, Server, now};
use super::{DOCUMENT, described, parameters, responses};

/// Looks at answers and remembers which there have been.
#[derive(Default)]
struct Witness(Mutex<BTreeSet<(&'static str, u16)>>);

impl Witness {
    /// Sends a request, insists on a status, and holds the answer against the document.
    #[track_caller]
    fn ok(&self, request: Request, status: u16) -> Answer {
        let answer = request.ok(status);
        let decl = declared(&answer);
        let Some((_, response)) = responses(decl).find(|(described, _)| *described == status) else {
            panic!("{status} isn't described for {}\n{}", decl.name, answer.story());
        };
        let headers = response["headers"].as_object().unwrap();
        for (name, header) in headers {
            let header = resolve(&DOCUMENT, header);
            let Some(text) = answer.header(&name.to_lowercase()) else {
                assert_ne!(header["required"], true, "{name} isn't there\n{}", answer.story());
                continue;
            };
            let number = header["schema"]["type"] == "integer";
            let value = if number { json!(text.parse::<i64>().unwrap()) } else { json!(text) };
            let found = misfits(&DOCUMENT, &header["schema"], &value);
            assert!(found.is_empty(), "{name}: {found:#?}\n{}", answer.story());
        }
        let of_http = ["content-type", "content-length", "date"];
        for (name, _) in &answer.raw().headers {
            let known =
                of_http.contains(&name.as_str()) || headers.keys().any(|known| known.eq_ignore_ascii_case(name));
            assert!(known, "{name} isn't described\n{}", answer.story());
        }
        match response.get("content") {
            None => assert!(answer.body().is_empty(), "{}", answer.story()),
            Some(content) => {
                let found = misfits(&DOCUMENT, &content["application/json"]["schema"], answer.json());
                assert!(found.is_empty(), "{found:#?}\n{}", answer.story());
            }
        }
        self.0.lock().unwrap().insert((decl.name, status));
        answer
    }
}

/// The operation that an answer came from.
fn declared(answer: &Answer) -> &'static Decl {
    let path = answer.path.split('?').next().unwrap();
    let fits = |template: &str| {
        template.split('/').count() == path.split('/').count()
            && template
                .split('/')
                .zip(path.split('/'))
                .all(|(wanted, given)| wanted.starts_with('{') || wanted == given)
    };
    let found = ops::ALL.iter().find(|decl| decl.method.as_str() == answer.method && fits(decl.path));
    found.unwrap_or_else(|| panic!("no operation: {} {}", answer.method, answer.path))
}

/// A request as the document shows it: the examples of its path and body.
fn as_shown(client: &Client, decl: &Decl) -> Request {
    let mut path = decl.path.to_owned();
    for parameter in parameters(decl).iter().filter(|parameter| parameter["in"] == "path") {
        let name = parameter["name"].as_str().unwrap();
        path = path.replace(&format!("{{{name}}}"), parameter["example"].as_str().unwrap());
    }
    let request = client.request(decl.method.as_str(), &path);
    let Some(body) = described(decl).get("requestBody") else { return request };
    let media = &body["content"]["application/json"];
    let named = || &media["examples"].as_object().unwrap().values().next().unwrap()["value"];
    request.json(media.get("example").unwrap_or_else(named).clone())
}

#[test]
fn every_answer_is_as_described() {
    let witness = Witness::default();
    let server = Server::start();
    a_day(&server, &witness);
    refusals(&server, &witness);
    too_many(&witness);
    not_now(&witness);

    let seen = witness.0.into_inner().unwrap();
    let described = ops::ALL.iter().flat_map(|decl| responses(decl).map(|(status, _)| (decl.name, status)));
    let unseen: Vec<_> = described.filter(|pair| pair.1 != 500 && !seen.contains(pair)).collect();
    assert!(unseen.is_empty(), "described, and never seen: {unseen:?}");
}

/// Everything succeeds, and what depends on the state of things fails once.
fn a_day(server: &Server, witness: &Witness) {
    let ok = |request: Request, status: u16| witness.ok(request, status);
    let (anybody, admin) = (server.client(), server.admin());
    for path in ["/v1/health", "/v1/ready", "/v1/keys/public", "/.well-known/jwks.json"] {
        ok(anybody.get(path), 200);
    }
    let given_out = ok(anybody.get("/v1/openapi.json"), 200);
    assert!(*given_out.json() == *DOCUMENT, "the server gives out another document");

    // A person.
    let password = "a walrus drinks cold tea";
    let new = json!({"username": "alice", "account_type": "human", "password": password});
    let alice = ok(admin.post("/v1/accounts").json(new.clone()), 201).text("id").to_owned();
    ok(admin.post("/v1/accounts").json(new), 409);
    let account = |rest: &str| format!("/v1/accounts/{alice}{rest}");
    ok(admin.get(&account("")), 200);
    ok(admin.put(&account("/roles")).json(json!({"roles": ["viewer", "editor"]})), 204);
    ok(admin.put(&account("/roles/auditor")), 204);
    ok(admin.delete(&account("/roles/viewer")), 204);
    ok(admin.get(&account("/roles")), 200).is(json!({"roles": ["auditor", "editor"]}));
    ok(admin.put(&account("/pgcreds")).json(pgcreds()), 409);

    // Her session.
    let log_in = json!({"username": "alice", "password": password, "audience": "https://localhost:8443"});
    let login = || anybody.post("/v1/auth/login").json(log_in.clone());
    let token = ok(login(), 200);
    let her = anybody.with_token(token.text("token"));
    ok(her.get("/v1/auth/me"), 200);
    ok(her.get(&account("/tokens")), 200);
    ok(her.get(&account("/pgcreds")), 403);
    ok(her.get("/v1/token/validate?role=nobody"), 403);
    ok(her.get("/v1/token/validate?role=nobody&role=editor&audience=https://localhost:8443"), 200);
    let exchanged = ok(her.post("/v1/auth/token").json(json!({"audience": "files"})), 200);
    ok(anybody.with_token(exchanged.text("token")).get("/v1/token/validate?audience=files"), 200);
    for audience in ["files", "other"] {
        let asked = json!({"token": exchanged.text("token"), "audience": audience});
        assert_eq!(ok(anybody.post("/v1/token/validate").json(asked), 200)["valid"], audience == "files");
    }
    ok(her.post("/v1/token/validate"), 200);
    ok(anybody.post("/v1/token/validate"), 401);
    let her = anybody.with_token(ok(her.post("/v1/auth/renew"), 200).text("token"));

    // One-time codes.
    ok(her.post("/v1/auth/totp/confirm").json(json!({"code": "000000"})), 409);
    ok(her.post("/v1/auth/totp/enroll").json(json!({"password": "not hers"})), 403);
    let secret = ok(her.post("/v1/auth/totp/enroll").json(json!({"password": password})), 200);
    let secret = unbase32(secret.text("secret"));
    ok(her.post("/v1/auth/totp/confirm").json(json!({"code": wrong_code(&secret)})), 403);
    let code = totp::code_at(&secret, totp::step_at(Timestamp::new(now())));
    let code = str::from_utf8(code.as_bytes()).unwrap();
    ok(her.post("/v1/auth/totp/confirm").json(json!({"code": code})), 204);
    ok(login(), 401);
    let changed = json!({"current_password": password, "new_password": password});
    ok(her.put("/v1/auth/password").json(changed.clone()), 403);
    ok(admin.delete("/v1/auth/totp").json(json!({"account_id": alice})), 204);
    ok(admin.delete(&account("/totp")), 204);

    // Her password.
    let her = anybody.with_token(ok(login(), 200).text("token"));
    ok(her.put("/v1/auth/password").json(changed), 204);
    ok(admin.put(&account("/password")).json(json!({"new_password": password})), 204);

    // A program.
    let new = json!({"username": "files", "account_type": "system"});
    let files = ok(admin.post("/v1/accounts").json(new), 201).text("id").to_owned();
    let program = |rest: &str| format!("/v1/accounts/{files}{rest}");
    ok(admin.put(&program("/password")).json(json!({"new_password": password})), 409);
    let issue = |account: &str| admin.post("/v1/token/issue").json(json!({"account_id": account, "overlap": 60}));
    ok(issue(&alice), 409);
    ok(issue(&files), 201);
    let its = anybody.with_token(ok(issue(&files), 201).text("token"));
    ok(its.get(&program("/pgcreds")), 404);
    ok(admin.delete(&program("/pgcreds")), 404);
    ok(admin.put(&program("/pgcreds")).json(pgcreds()), 204);
    ok(its.get(&program("/pgcreds")), 200).is(pgcreds());
    ok(admin.delete(&program("/pgcreds")), 204);
    for decl in ops::ALL.iter().filter(|decl| decl.level == Level::Person) {
        ok(as_shown(&its, decl), 403);
    }
    let page = ok(its.get(&program("/tokens?limit=1")), 200);
    let next = page.header("link").and_then(|link| link.strip_prefix('<')?.split_once('>')).expect("a next page").0;
    let former = ok(its.get(next), 200);
    assert!(former.header("link").is_none());
    ok(its.delete(&format!("/v1/token/{}", former[0]["jti"].as_str().unwrap())), 204);
    ok(its.delete(&program("/tokens")), 200).is(json!({"revoked": 1}));
    let all = (0..32).map(|n| format!("role-{n}")).collect::<Vec<_>>();
    ok(admin.put(&program("/roles")).json(json!({"roles": all})), 204);
    ok(admin.put(&program("/roles/one-more")), 409);

    // The last admin stays one.
    let its_own = |rest: &str| format!("/v1/accounts/{}{rest}", admin.id());
    ok(admin.patch(&its_own("")).json(json!({"status": "suspended"})), 409);
    ok(admin.put(&its_own("/roles")).json(json!({"roles": []})), 409);
    ok(admin.delete(&its_own("/roles/admin")), 409);
    ok(admin.delete(&its_own("")), 409);

    // The end of the day. Everything that happened can be read, a few events a page.
    ok(admin.patch(&account("")).json(json!({"username": "alice.b", "status": "suspended"})), 200);
    ok(admin.delete(&account("")), 204);
    ok(admin.get("/v1/accounts?status=deleted"), 200);
    let mut page = ok(admin.get("/v1/audit?limit=7"), 200);
    while let Some(link) = page.header("link") {
        let next = link.strip_prefix('<').and_then(|rest| rest.split_once('>')).unwrap().0.to_owned();
        page = ok(admin.get(&next), 200);
    }
    assert_eq!(page.json().as_array().unwrap().last().unwrap()["id"], 1);
    ok(admin.again().post("/v1/auth/logout"), 204);

    // Every parameter of a query, as it is shown.
    for decl in ops::ALL {
        for parameter in parameters(decl).iter().filter(|parameter| parameter["in"] == "query") {
            let name = parameter["name"].as_str().unwrap();
            let example = match &parameter["example"] {
                Value::String(text) => text.clone(),
                Value::Array(several) => several[1].as_str().unwrap().to_owned(),
                Value::Null => continue,
                other => other.to_string(),
            };
            let shown = as_shown(&admin, decl);
            let path = declared_path(decl, admin.id());
            let audience = decl.name == "GuardToken" && name == "audience";
            ok(shown.path(&format!("{path}?{name}={example}")), if audience { 401 } else { 200 });
        }
    }
}

/// What depends on nothing but the request.
fn refusals(server: &Server, witness: &Witness) {
    let ok = |request: Request, status: u16| witness.ok(request, status);
    let (anybody, admin, nobody) = (server.client(), server.admin(), server.human("nobody"));
    for decl in ops::ALL {
        let path = declared_path(decl, "5f1d7f7c-2b0a-4f0e-9a52-0e6cf6a1d3b4");
        ok(as_shown(&admin, decl).path(&format!("{path}?surely-not=1")), 400);
        if decl.level != Level::Public {
            ok(as_shown(&anybody, decl), 401);
        }
        if matches!(decl.level, Level::Admin | Level::AdminOrOwner | Level::AdminOrProgram) {
            ok(as_shown(&nobody, decl), 403);
        }
        if described(decl).get("requestBody").is_some() {
            ok(as_shown(&admin, decl).without("content-type"), 415);
            ok(as_shown(&admin, decl).body(vec![b' '; 65_537]), 413);
        }
        if responses(decl).any(|(status, _)| status == 404) {
            ok(as_shown(&admin, decl), 404);
        }
    }
}

/// 429, from every bucket.
fn too_many(witness: &Witness) {
    let server = Server::with(|c| {
        for bucket in ["", "validate_", "api_"] {
            c.set("rate_limit", &format!("{bucket}rps"), "1");
            c.set("rate_limit", &format!("{bucket}burst"), "1");
        }
    });
    for decl in ops::ALL {
        let request = || as_shown(&server.client(), decl);
        while request().send().status != 429 {}
        witness.ok(request(), 429);
    }
}

/// 503: the clock is behind the newest event, and nothing but health is served.
fn not_now(witness: &Witness) {
    let instance = Instance::new();
    let sql = "INSERT INTO audit_log (id, event_time, event_type, via, details, hash)
        SELECT max(id) + 1, ?1, 'clock_accepted', 'mciasdb', '{}', zeroblob(32) FROM audit_log";
    instance.sql(sql, [(now() + 3600) * 1000]);
    let server = instance.start();
    for decl in ops::ALL {
        witness.ok(as_shown(&server.client(), decl), if decl.name == "Health" { 200 } else { 503 });
    }
}

fn declared_path(decl: &Decl, id: &str) -> String {
    decl.path.replace("{id}", id).replace("{jti}", id).replace("{role}", "editor")
}

fn pgcreds() -> Value {
    json!({"host": "db.example.com", "port": 5432, "database": "files", "username": "files", "password": "hWm7e1p0"})
}

/// A code of no step around now.
fn wrong_code(secret: &[u8]) -> String {
    let step = totp::step_at(Timestamp::new(now()));
    let right: Vec<_> = (step - 2..=step + 2).map(|step| *totp::code_at(secret, step).as_bytes()).collect();
    let mut codes = (0..).map(|n| format!("{n:06}"));
    codes.find(|code| right.iter().all(|right| right != code.as_bytes())).unwrap()
}

/// RFC 4648, section 6.
fn unbase32(text: &str) -> Vec<u8> {
    let mut bits = 0u64;
    let mut bytes = Vec::new();
    for (n, c) in text.bytes().enumerate() {
        bits = bits << 5 | u64::from(if c.is_ascii_uppercase() { c - b'A' } else { c - b'2' + 26 });
        if n % 8 == 7 {
            bytes.extend_from_slice(&bits.to_be_bytes()[3..]);
        }
    }
    bytes
}
