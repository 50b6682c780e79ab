//! The gRPC door as clients meet it, whatever the operation: access before everything, messages that are none, limits,
//! deadlines, pages, health and reflection. What the operations do is in `parity.rs`; floods are in `floods.rs`; how the
//! door opens and closes is in `grpc_life.rs`.

mod support;

use std::sync::LazyLock;

use mcias::wire::ops::{Decl, Level};
use mcias::wire::proto::v1;
use prost::Message;
use serde_json::json;
use support::{Call, Client, Forge, Grpc, Instance, Server, claims_of, eventually, now};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// For tests that need no configuration of their own.
static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

const NOBODY: &str = "0194e2f0-7d3a-4c1e-9b52-2f6d0a4c8e11";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// No message: a field of a wire type that there isn't.
const MALFORMED: &[u8] = &[0x0f, 0xff];

fn methods() -> Vec<(&'static str, &'static Decl)> {
    let mut methods = mcias::grpc::table();
    methods.sort_by_key(|(path, _)| *path);
    assert!(methods.len() > 30);
    methods
}

fn login(username: &str, password: &str) -> v1::LoginRequest {
    v1::LoginRequest { username: username.into(), password: password.into(), ..Default::default() }
}

#[test]
fn every_method_is_knocked_on_with_every_bad_credential() {
    let server = Server::start();
    let grpc = server.grpc();
    let (victim, plain, former) = (server.human("victim"), server.human("plain"), server.human("former"));
    let robot = server.system("robot");
    server.give_role(former.id(), "admin");
    let former = former.again();
    former.get("/v1/accounts").ok(200);
    server.take_role(former.id(), "admin");

    let forge = Forge::of(&server);
    let with = |change: fn(&mut serde_json::Value)| {
        let mut claims = plain.claims();
        change(&mut claims);
        forge.sign(&claims)
    };
    let revoked = plain.again();
    revoked.post("/v1/auth/logout").ok(204);
    let suspended = server.human("suspended");
    server.sql("UPDATE accounts SET status = 'suspended' WHERE uuid = ?1", [suspended.id()]);
    let elsewhere = plain.post("/v1/auth/token").json(json!({"audience": "https://elsewhere.example.com"})).ok(200);
    let bearer = |token: &str| format!("Bearer {token}");
    let good = bearer(plain.token());
    let bad: Vec<(&str, Vec<String>)> = vec![
        ("none", vec![]),
        ("garbage", vec![bearer("not.a.token")]),
        ("no scheme", vec![plain.token().to_owned()]),
        ("another scheme", vec!["Basic eDp5".into()]),
        ("two entries", vec![good.clone(), good.clone()]),
        ("two in one entry", vec![format!("{good}, {good}")]),
        ("expired", vec![bearer(&with(|c| (c["iat"], c["exp"]) = (json!(now() - 100), json!(now() - 1))))]),
        ("never issued", vec![bearer(&with(|c| c["jti"] = json!(NOBODY)))]),
        ("forged role", vec![bearer(&with(|c| c["roles"] = json!(["admin"])))]),
        ("revoked", vec![bearer(revoked.token())]),
        ("suspended", vec![bearer(suspended.token())]),
        ("for another audience", vec![bearer(elsewhere.text("token"))]),
    ];
    let about_victim = v1::ListTokensRequest { id: victim.id().into(), page_size: -1, page_token: "x".into() };
    let before = server.events().len();
    let mut knocked = 0;
    for (path, decl) in methods() {
        // Whatever it is, it isn't looked at.
        let knocks = || {
            let call = grpc.call(path);
            [call.clone(), call.clone().framed(0, MALFORMED), call.clone().framed(1, b"x"), call.bytes(&[0, 0])]
        };
        if decl.level == Level::Public {
            // Here a token, good or bad, is nothing at all.
            for authorization in [&good, "Bearer x"] {
                let answer = grpc.call(path).framed(0, MALFORMED).header("authorization", authorization).send();
                assert_eq!(answer.status(), Code::InvalidArgument, "{}", answer.story());
            }
            continue;
        }
        for (what, entries) in &bad {
            if decl.level == Level::AnyToken && *what == "for another audience" {
                continue;
            }
            for call in knocks() {
                let call = entries.iter().fold(call, |call, entry| call.header("authorization", entry));
                let answer = call.expect(Code::Unauthenticated, "unauthorized");
                assert_eq!(answer.text(), "authentication failed", "{what}, {path}");
                knocked += 1;
            }
        }
        match decl.level {
            // A good session without the role, and one whose role was taken since.
            Level::Admin => {
                for call in knocks() {
                    call.clone().token(plain.token()).expect(Code::PermissionDenied, "forbidden");
                    call.token(former.token()).expect(Code::PermissionDenied, "forbidden");
                }
            }
            // Of the message no more is looked at than whom it is about.
            Level::AdminOrOwner | Level::AdminOrProgram => {
                let nobody = v1::ListTokensRequest { id: NOBODY.into(), ..about_victim.clone() };
                for message in [&about_victim, &nobody, &v1::ListTokensRequest::default()] {
                    for client in [&plain, &former, &robot] {
                        let call = grpc.call(path).message(message).token(client.token());
                        call.expect(Code::PermissionDenied, "forbidden");
                    }
                }
            }
            Level::Person => {
                for call in knocks() {
                    call.token(robot.token()).expect(Code::PermissionDenied, "forbidden");
                }
            }
            Level::Public | Level::AnyToken | Level::Session => {}
        }
    }
    assert!(knocked > 1000, "{knocked}");
    // A person's own Postgres credentials are none of theirs.
    let own = v1::GetPgCredsRequest { id: plain.id().into() };
    let own = grpc.call("CredentialService/GetPGCreds").message(&own).token(plain.token());
    own.expect(Code::PermissionDenied, "forbidden");
    assert_eq!(server.events().len(), before, "nothing happened");
    assert!(plain.is_good() && victim.is_good());
}

#[test]
fn what_is_no_message_is_told_apart_and_every_refusal_has_its_code_word() {
    let server = &*SERVER;
    let (grpc, admin) = (server.grpc(), server.admin());
    let before = server.query_one::<i64>("SELECT count(*) FROM accounts", []);
    let make = || grpc.call("AccountService/CreateAccount").token(admin.token());
    let account = v1::CreateAccountRequest { username: "once".into(), account_type: 2, password: None };
    let whole = account.encode_to_vec();
    let cut = [&[0, 0, 0, 0, whole.len() as u8 + 1][..], &*whole].concat();
    let malformed: Vec<(&str, Call<'_>)> = vec![
        ("no message", make()),
        ("half a frame's head", make().bytes(&[0, 0])),
        ("a cut message", make().bytes(&cut)),
        ("no protobuf", make().framed(0, MALFORMED)),
        ("text that is no UTF-8", make().framed(0, &[0x0a, 2, 0xff, 0xfe])),
        ("a field of another type", make().framed(0, &[0x08, 1])),
        ("a compressed flag", make().framed(1, &whole)),
        ("another flag", make().framed(2, &whole)),
        ("two messages", make().message(&account).message(&account)),
        ("a message and half a one", make().message(&account).bytes(&[0, 0, 0])),
        ("a message and something malformed", make().message(&account).framed(0, MALFORMED)),
        ("a message and JSON", make().message(&account).bytes(b"{}")),
    ];
    for (what, call) in malformed {
        let answer = call.send();
        let told = (answer.status(), answer.word("mcias-code"));
        assert_eq!(told, (Code::InvalidArgument, Some("invalid_request")), "{what}{}", answer.story());
    }
    let compressed = make().header("grpc-encoding", "gzip").framed(1, &whole);
    compressed.expect(Code::Unimplemented, "unimplemented");

    // 64 KiB and no more, whether it comes or is only announced, in one message or after the first.
    let padded = |size: usize| {
        let mut message = whole.clone();
        // A field that we don't know is passed over.
        message.extend([0xfa, 0x01]);
        let length = size - message.len() - 3;
        message.extend([0x80 | (length & 0x7f) as u8, 0x80 | (length >> 7 & 0x7f) as u8, (length >> 14) as u8]);
        message.resize(size, b'x');
        message
    };
    for call in [
        make().framed(0, &padded(64 * 1024 + 1)),
        make().framed(0, &vec![0x0a; 4 << 20]),
        make().bytes(&[0, 0xff, 0xff, 0xff, 0xff]),
        grpc.call("AuthService/Login").framed(0, &vec![0x0a; 65 * 1024]),
        grpc.call(CHECK).framed(0, &vec![0x0a; 65 * 1024]),
    ] {
        call.expect(Code::ResourceExhausted, "payload_too_large");
    }

    for path in [
        "/mcias.v1.AuthService/Nothing",
        "/mcias.v1.AuthService/login",
        "/mcias.v1.AuthService/Login/",
        "/mcias.v1.AuthService",
        "/mcias.v1.Nothing/Login",
        "/mcias.v2.AuthService/Login",
        "/AuthService/Login",
        "/grpc.health.v1.Health/Nothing",
        "/grpc.reflection.v1.ServerReflection/Nothing",
        "/v1/health",
        "/",
        "//",
    ] {
        grpc.call(path).message(&account).token(admin.token()).expect(Code::Unimplemented, "unimplemented");
    }

    let wait = |text: &str| make().header("grpc-timeout", text);
    for bad in ["", "S", "1", "1s", "-1S", "123456789S", "1 S", "1.5S", "NaNS", "1SS"] {
        wait(bad).message(&account).expect(Code::InvalidArgument, "invalid_request");
        // It is a part of the request like any other: access comes first, and whether there is such a method.
        let nobody = wait(bad).without("authorization").message(&account);
        nobody.expect(Code::Unauthenticated, "unauthorized");
        grpc.call("AuthService/Nothing").header("grpc-timeout", bad).expect(Code::Unimplemented, "unimplemented");
    }
    let made = "SELECT count(*) FROM accounts";
    assert_eq!(server.query_one::<i64>(made, []), before, "what was refused didn't happen");

    // And all that can be right.
    make().framed(0, &padded(64 * 1024)).ok::<v1::CreateAccountResponse>();
    for (n, kind) in ["application/grpc+proto", "application/grpc;x=y"].into_iter().enumerate() {
        let account = v1::CreateAccountRequest { username: format!("once-{n}"), ..account.clone() };
        let make = make().without("content-type").header("content-type", kind).header("grpc-timeout", "99999999H");
        make.message(&account).ok::<v1::CreateAccountResponse>();
    }
}

#[test]
fn what_is_no_grpc_gets_an_answer_of_http_s() {
    let server = &*SERVER;
    let grpc = server.grpc();
    let call = || grpc.call("AdminService/Health").message(&v1::HealthRequest {});
    for (method, kind) in [
        ("GET", Some("application/grpc")),
        ("PUT", Some("application/grpc")),
        ("OPTIONS", None),
        ("POST", None),
        ("POST", Some("application/json")),
        ("POST", Some("application/grpc-web+proto")),
        ("POST", Some("application/grpcx")),
    ] {
        let call = call().http_method(method).without("content-type");
        let call = kind.into_iter().fold(call, |call, kind| call.header("content-type", kind));
        let answer = call.expect(Code::InvalidArgument, "unsupported_media_type");
        assert_eq!(answer.http, 415, "{}", answer.story());
        // The log has it as it came.
        let method = format!("method={method}");
        server.log().wait(&["request", &method, "path=/mcias.v1.AdminService/Health status=3"]);
    }
    call().ok::<v1::HealthResponse>();
}

#[test]
fn what_can_not_be_is_refused_and_what_is_in_the_way_says_how() {
    let server = &*SERVER;
    let (grpc, admin) = (server.grpc(), server.admin());
    let user = server.human("in-the-way");
    let call = |method: &str| grpc.call(method).token(admin.token());
    let create = |username: &str, account_type: i32| {
        let account = v1::CreateAccountRequest { username: username.into(), account_type, password: None };
        call("AccountService/CreateAccount").message(&account)
    };
    for account_type in [0, 3, -1, 77] {
        create("unspecified", account_type).expect(Code::InvalidArgument, "invalid_request");
    }
    let update = |id: &str, username: Option<&str>, status: Option<i32>| {
        let change = v1::UpdateAccountRequest { id: id.into(), username: username.map(str::to_owned), status };
        call("AccountService/UpdateAccount").message(&change)
    };
    for status in [0, 3, 9] {
        update(user.id(), None, Some(status)).expect(Code::InvalidArgument, "invalid_request");
        let filter = v1::ListAccountsRequest { status: Some(status), ..Default::default() };
        let listed = call("AccountService/ListAccounts").message(&filter).send();
        // Those that are deleted can be asked for, but nobody is deleted by a change of status.
        let expected = if status == 3 { Code::Ok } else { Code::InvalidArgument };
        assert_eq!(listed.status(), expected, "{}", listed.story());
    }
    update(user.id(), None, None).expect(Code::InvalidArgument, "invalid_request");

    // A name that is taken is one thing, a state that is in the way another; REST has one status for both.
    create("ADMIN", 2).expect(Code::AlreadyExists, "conflict");
    update(user.id(), Some("admin"), None).expect(Code::AlreadyExists, "conflict");
    update(admin.id(), None, Some(2)).expect(Code::FailedPrecondition, "conflict");
    let delete = v1::DeleteAccountRequest { id: admin.id().into() };
    call("AccountService/DeleteAccount").message(&delete).expect(Code::FailedPrecondition, "conflict");
    let issue = v1::IssueServiceTokenRequest { account_id: user.id().into(), ..Default::default() };
    call("TokenService/IssueServiceToken").message(&issue).expect(Code::FailedPrecondition, "conflict");

    for id in [NOBODY, "", "x", "../admin"] {
        let get = v1::GetAccountRequest { id: id.into() };
        call("AccountService/GetAccount").message(&get).expect(Code::NotFound, "not_found");
        let revoke = v1::RevokeTokenRequest { jti: id.into() };
        call("TokenService/RevokeToken").message(&revoke).expect(Code::NotFound, "not_found");
    }
    for overlap in [-1, 86_401, i64::MAX, i64::MIN] {
        let issue = v1::IssueServiceTokenRequest { account_id: user.id().into(), overlap, ..Default::default() };
        call("TokenService/IssueServiceToken").message(&issue).expect(Code::InvalidArgument, "invalid_request");
    }
    for port in [0, -1, 65_536, i32::MAX] {
        let text = || "x".to_owned();
        let set = v1::SetPgCredsRequest {
            id: user.id().into(),
            host: text(),
            port,
            database: text(),
            username: text(),
            password: text(),
        };
        call("CredentialService/SetPGCreds").message(&set).expect(Code::InvalidArgument, "invalid_request");
    }

    // A bad token is an answer, never an error; it says nothing else.
    for token in ["", "x", "a.b.c", "🦭"] {
        let ask = v1::ValidateTokenRequest { token: token.into(), audience: None };
        let told = grpc.call("TokenService/ValidateToken").message(&ask).ok::<v1::ValidateTokenResponse>();
        assert!(told == v1::ValidateTokenResponse::default(), "{token}");
    }
    // The token counts that is in the message, and nothing in the metadata.
    let ask = v1::ValidateTokenRequest { token: String::new(), audience: None };
    let ask = grpc.call("TokenService/ValidateToken").token(admin.token()).message(&ask);
    assert!(!ask.ok::<v1::ValidateTokenResponse>().valid);
    let ask = v1::ValidateTokenRequest { token: admin.token().into(), audience: Some("files".into()) };
    assert!(!grpc.call("TokenService/ValidateToken").message(&ask).ok::<v1::ValidateTokenResponse>().valid);
    let ask = v1::ValidateTokenRequest { token: admin.token().into(), audience: None };
    let told = grpc.call("TokenService/ValidateToken").message(&ask).ok::<v1::ValidateTokenResponse>();
    assert_eq!((told.valid, told.username.as_str(), told.account_type), (true, "admin", 1));
    assert_eq!(told.expires_at.unwrap().seconds, admin.claims()["exp"].as_i64().unwrap());
}

#[test]
fn a_fault_of_ours_tells_the_client_nothing() {
    let server = Server::start();
    let (grpc, robot) = (server.grpc(), server.system("robot"));
    let id = robot.id().to_owned();
    let creds = json!({"host": "h", "port": 1, "database": "d", "username": "u", "password": "p"});
    server.admin().put(&format!("/v1/accounts/{id}/pgcreds")).json(creds).ok(204);
    server.sql("UPDATE pg_credentials SET pg_host = 'evil.example.com'", []);
    let get = grpc.call("CredentialService/GetPGCreds").token(robot.token()).message(&v1::GetPgCredsRequest { id });
    let answer = get.expect(Code::Internal, "internal");
    assert_eq!(answer.text(), "internal error");
    server.log().wait(&["ERROR", "internal error", "cause="]);
}

/// Every username of a listing, page by page.
fn pages(grpc: &Grpc, admin: &Client, filter: v1::ListAccountsRequest) -> Vec<Vec<String>> {
    let (mut pages, mut page_token) = (Vec::new(), String::new());
    loop {
        let filter = v1::ListAccountsRequest { page_token, ..filter.clone() };
        let call = grpc.call("AccountService/ListAccounts").token(admin.token()).message(&filter);
        let page = call.ok::<v1::ListAccountsResponse>();
        pages.push(page.accounts.into_iter().map(|account| account.username).collect());
        page_token = page.next_page_token;
        assert!(pages.len() < 100, "the pages have no end");
        if page_token.is_empty() {
            return pages;
        }
    }
}

#[test]
fn lists_come_in_pages() {
    let server = Server::start();
    let (grpc, admin) = (server.grpc(), server.admin());
    for n in 1..=5 {
        let account = json!({"username": format!("robot-{n}"), "account_type": "system"});
        admin.post("/v1/accounts").json(account).ok(201);
    }
    let list = |page_size| v1::ListAccountsRequest { page_size, ..Default::default() };
    let all: Vec<String> = ["admin", "robot-1", "robot-2", "robot-3", "robot-4", "robot-5"].map(String::from).to_vec();
    assert_eq!(pages(&grpc, &admin, list(0)), std::slice::from_ref(&all));
    assert_eq!(
        pages(&grpc, &admin, list(6)),
        std::slice::from_ref(&all),
        "no token where the last page is exactly full"
    );
    assert_eq!(pages(&grpc, &admin, list(4)), [all[..4].to_vec(), all[4..].to_vec()]);
    let robots = v1::ListAccountsRequest { account_type: Some(2), ..list(3) };
    assert_eq!(pages(&grpc, &admin, robots), [all[1..4].to_vec(), all[4..].to_vec()]);
    let named = v1::ListAccountsRequest { username: Some("Robot-4".into()), ..list(1000) };
    assert_eq!(pages(&grpc, &admin, named), [[all[4].clone()]]);
    let mut bad = [list(-1), list(1001), list(i32::MIN), list(1), list(1), list(1)];
    for (call, token) in bad[3..].iter_mut().zip(["x", "\0", "AAAA"]) {
        call.page_token = token.into();
    }
    for filter in bad {
        let call = grpc.call("AccountService/ListAccounts").token(admin.token()).message(&filter);
        call.expect(Code::InvalidArgument, "invalid_request");
    }

    // The log, newest first, is what REST has.
    let stored = admin.get("/v1/audit?limit=1000").ok(200).json().clone();
    let (mut walked, mut page_token) = (Vec::new(), String::new());
    loop {
        let filter = v1::ListEventsRequest { page_size: 2, page_token, ..Default::default() };
        let call = grpc.call("AuditService/ListEvents").token(admin.token()).message(&filter);
        let page = call.ok::<v1::ListEventsResponse>();
        walked.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(walked.len(), stored.as_array().unwrap().len());
    for (event, stored) in walked.iter().zip(stored.as_array().unwrap()) {
        assert_eq!(
            json!([event.id, event.time_ms, event.r#type, event.hash]),
            json!([stored["id"], stored["time_ms"], stored["type"], stored["hash"]])
        );
    }
}

/// A server whose buckets hold some requests and never more, and that believes what we say of our address.
fn limited(burst: u32) -> Server {
    Server::with(|c| {
        c.set("server", "trusted_proxies", "[\"127.0.0.0/8\"]");
        for bucket in ["", "validate_", "api_"] {
            c.set("rate_limit", &format!("{bucket}rps"), "0.001");
            c.set("rate_limit", &format!("{bucket}burst"), &burst.to_string());
        }
    })
}

#[test]
fn one_client_has_one_budget_at_both_doors() {
    const BURST: u32 = 6;
    let server = limited(BURST);
    let (rest, grpc) = (server.client(), server.grpc());
    let nobody = login("nobody", "no password of anybody's");
    let buckets = [
        ("/v1/auth/login", "AuthService/Login", nobody.encode_to_vec()),
        ("/v1/token/validate", "TokenService/ValidateToken", vec![]),
        ("/v1/health", "AdminService/Health", vec![]),
        ("/v1/health", CHECK, vec![]),
        ("/v1/health", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", vec![]),
    ];
    for (n, (path, method, message)) in buckets.iter().enumerate() {
        let address = format!("198.51.100.{}", n + 1);
        let by_rest = || {
            let request = if n < 2 { rest.post(path) } else { rest.get(path) };
            request.forwarded_for(&address).send().status
        };
        let by_grpc = |address: &str| grpc.call(method).framed(0, message).forwarded_for(address);
        let status = |call: Call<'_>| call.try_send().unwrap().status();
        for _ in 0..BURST / 2 {
            assert_ne!(by_rest(), 429, "{method}");
            assert_ne!(status(by_grpc(&address)), Code::ResourceExhausted, "{method}");
        }
        assert_eq!(by_rest(), 429, "{method}");
        for refused in [by_grpc(&address), by_grpc(&format!("203.0.113.9, {address}, 127.0.0.5"))] {
            let answer = refused.expect(Code::ResourceExhausted, "rate_limited");
            assert!(answer.word("retry-after").unwrap().parse::<u32>().unwrap() > 1, "a bucket that fills that slowly");
        }
        // Before the token, and before the message.
        by_grpc(&address).token("x").framed(0, MALFORMED).expect(Code::ResourceExhausted, "rate_limited");
        assert_ne!(status(by_grpc(&format!("192.0.2.{}", n + 1))), Code::ResourceExhausted, "another client");
        assert_ne!(status(by_grpc(&format!("{address}, 192.0.2.{}", n + 11))), Code::ResourceExhausted);
    }
    // Who isn't a trusted proxy isn't believed.
    let nobody = SERVER.grpc().call("AuthService/Login").message(&nobody).forwarded_for("192.0.2.77").send();
    assert_eq!(nobody.status(), Code::Unauthenticated);
    eventually("the log names the peer", || SERVER.log().text().contains("path=/mcias.v1.AuthService/Login status=16"));
    assert!(!SERVER.log().text().contains("192.0.2.77"));
}

/// One slot and one place before it, and hashes that take a while.
fn slow_to_hash(instance: &mut Instance) {
    for (key, value) in [("time", "12"), ("slots", "1"), ("queue", "4")] {
        instance.set("argon2", key, value);
    }
}

#[test]
fn a_deadline_counts_also_in_the_hashing_queue() {
    let server = Server::with(slow_to_hash);
    let (grpc, admin, late) = (server.grpc(), server.admin(), server.human("late"));
    let logins = || server.events_of(late.id()).iter().filter(|event| event.kind == "login_ok").count();
    let mut connections: Vec<_> = (0..2).map(|_| server.raw()).collect();
    // What counts is what comes first, so a machine that stands still for a moment gets another try.
    let never_begun = (0..5).any(|_| {
        let before = logins();
        for connection in &mut connections {
            connection.say(server.client().try_login("admin", admin.password()).bytes());
        }
        let call = grpc.call("AuthService/Login").message(&login("late", late.password()));
        call.header("grpc-timeout", "60m").expect(Code::DeadlineExceeded, "deadline_exceeded");
        for connection in &mut connections {
            // Nobody waits for longer than anybody has to.
            assert!(matches!(connection.answer().status, 200 | 503));
        }
        // Behind it in the queue.
        late.again();
        logins() == before + 1
    });
    assert!(never_begun, "who has given up is hashed for all the same");

    // One that has passed already, whatever the operation: nothing is done.
    let events = server.events().len();
    for (path, _) in methods() {
        let call = grpc.call(path).token(admin.token()).header("grpc-timeout", "0n").framed(0, &[]);
        call.expect(Code::DeadlineExceeded, "deadline_exceeded");
    }
    grpc.call("AuthService/WhoAmI").header("grpc-timeout", "0n").expect(Code::Unauthenticated, "unauthorized");
    assert_eq!(server.events().len(), events);
    // And one that passes while the message is still awaited.
    let waiting = grpc.call("AuthService/Login").bytes(&[0, 0, 0, 0, 9, b'x']).endless();
    waiting.header("grpc-timeout", "50m").expect(Code::DeadlineExceeded, "deadline_exceeded");
}

fn asked<'a>(grpc: &'a Grpc, service: &str) -> Call<'a> {
    grpc.call(CHECK).message(&HealthCheckRequest { service: service.into() })
}

#[test]
fn health_is_as_every_grpc_server_has_it() {
    let server = Server::start();
    let grpc = server.grpc();
    let check = |service: &str| asked(&grpc, service);
    for service in ["", "mcias.v1.AuthService", "mcias.v1.AuditService"] {
        assert_eq!(check(service).ok::<HealthCheckResponse>().status(), ServingStatus::Serving, "{service}");
    }
    for nothing in ["x", "mcias.v1", "AuthService", "mcias.v1.AuthService/Login"] {
        check(nothing).expect(Code::NotFound, "not_found");
    }
    let watch = |service: &str| grpc.call(WATCH).message(&HealthCheckRequest { service: service.into() }).open();
    let mut watching = watch("").unwrap();
    assert_eq!(watching.next::<HealthCheckResponse>().status(), ServingStatus::Serving);
    let mut nothing = watch("nothing").unwrap();
    assert_eq!(nothing.next::<HealthCheckResponse>().status(), ServingStatus::ServiceUnknown);

    // A database that takes no writes any more.
    let version = server.query_one::<i64>("PRAGMA user_version", []);
    let set = |version: i64| server.database().pragma_update(None, "user_version", version).unwrap();
    let admin = server.admin();
    set(version + 1);
    let account = v1::CreateAccountRequest { username: "refused".into(), account_type: 2, password: None };
    let make = grpc.call("AccountService/CreateAccount").token(admin.token()).message(&account);
    make.expect(Code::Unavailable, "unavailable");
    assert_eq!(watching.next::<HealthCheckResponse>().status(), ServingStatus::NotServing);
    assert_eq!(check("").ok::<HealthCheckResponse>().status(), ServingStatus::NotServing);
    let ask = v1::ValidateTokenRequest { token: admin.token().into(), audience: None };
    let told = grpc.call("TokenService/ValidateToken").message(&ask).ok::<v1::ValidateTokenResponse>();
    assert!(told.valid, "checks go on");
    assert_eq!(grpc.call("AdminService/Health").message(&v1::HealthRequest {}).ok::<v1::HealthResponse>().status, "ok");
}

#[test]
fn while_the_clock_is_behind_nothing_but_health_is_served() {
    let mut server = Server::start();
    let admin = server.admin();
    server.stop();
    server.event_in_the_future(3600);
    let events = server.events().len();
    server.start_again();
    let grpc = server.grpc();
    for (path, decl) in methods() {
        let call = grpc.call(path).token(admin.token()).framed(0, &[]);
        if decl.name == "Health" {
            assert_eq!(call.ok::<v1::HealthResponse>().status, "ok");
            continue;
        }
        let answer = call.expect(Code::Unavailable, "unavailable");
        assert!(answer.text().contains("clock"), "{}", answer.story());
    }
    grpc.call("AuthService/Nothing").expect(Code::Unavailable, "unavailable");
    assert_eq!(asked(&grpc, "").ok::<HealthCheckResponse>().status(), ServingStatus::NotServing);
    let mut watching = grpc.call(WATCH).message(&HealthCheckRequest::default()).open().unwrap();
    assert_eq!(watching.next::<HealthCheckResponse>().status(), ServingStatus::NotServing);
    // Reflection tells of no account and no token.
    let files = reflected_v1(&grpc, "mcias.v1.AuthService");
    assert!(!files.is_empty());
    assert_eq!(server.events().len(), events);
}

macro_rules! reflection {
    ($($name:ident $version:ident $path:literal;)*) => {$(
        /// The files that have a symbol, by this version; and insists on the services that are listed.
        fn $name(grpc: &Grpc, symbol: &str) -> Vec<prost_types::FileDescriptorProto> {
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            use tonic_reflection::pb::$version::{ServerReflectionRequest, ServerReflectionResponse};

            let ask = |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
            let call = grpc.call(concat!("/grpc.reflection.", $path, ".ServerReflection/ServerReflectionInfo"));
            let call = call.message(&ask(MessageRequest::ListServices(String::new())));
            let call = call.message(&ask(MessageRequest::FileContainingSymbol(symbol.to_owned())));
            let mut messages = call.open().unwrap();
            let listed = messages.next::<ServerReflectionResponse>().message_response.unwrap();
            let MessageResponse::ListServicesResponse(listed) = listed else { panic!("{listed:?}") };
            let services: Vec<_> = listed.service.iter().map(|service| service.name.as_str()).collect();
            for service in mcias::wire::proto::SERVICES.iter().chain(&["grpc.health.v1.Health"]) {
                assert!(services.contains(service), "{service} isn't in {services:?}");
            }
            let found = messages.next::<ServerReflectionResponse>().message_response.unwrap();
            let MessageResponse::FileDescriptorResponse(found) = found else { panic!("{found:?}") };
            assert_eq!(messages.ends(), Code::Ok);
            let files = found.file_descriptor_proto.iter();
            files.map(|file| prost_types::FileDescriptorProto::decode(&**file).unwrap()).collect()
        }
    )*};
}
reflection! {
    reflected_v1 v1 "v1";
    reflected_v1alpha v1alpha "v1alpha";
}

#[test]
fn reflection_tells_both_generations_of_tools_what_there_is() {
    let grpc = SERVER.grpc();
    for reflected in [reflected_v1, reflected_v1alpha] {
        for (symbol, file) in [
            ("mcias.v1.AuthService", "mcias/v1/auth.proto"),
            ("mcias.v1.AuthService.Login", "mcias/v1/auth.proto"),
            ("mcias.v1.Account", "mcias/v1/common.proto"),
            ("grpc.health.v1.Health", "health.proto"),
        ] {
            let files = reflected(&grpc, symbol);
            assert!(files.iter().any(|found| found.name().ends_with(file)), "{symbol}");
        }
    }
}

#[test]
fn every_call_is_a_line_in_the_log_and_no_token_is_in_it() {
    let server = Server::start();
    let (grpc, admin) = (server.grpc(), server.admin());
    let mark = server.log().mark();
    let message = v1::WhoAmIRequest {};
    let who = grpc.call("AuthService/WhoAmI").token(admin.token()).message(&message).ok::<v1::WhoAmIResponse>();
    assert_eq!(who.account.unwrap().id, admin.id());
    let ask = v1::ValidateTokenRequest { token: admin.token().into(), audience: None };
    grpc.call("TokenService/ValidateToken").message(&ask).ok::<v1::ValidateTokenResponse>();
    grpc.call("AuthService/WhoAmI").message(&message).expect(Code::Unauthenticated, "unauthorized");
    let token = admin.token();
    grpc.call(&format!("/x/{token}?token={token}")).message(&message).send();
    grpc.call("AuthService/WhoAmI").token("no.token\u{20}x").header("grpc-timeout", token).message(&message).send();
    grpc.call(CHECK).message(&HealthCheckRequest { service: token.into() }).send();
    let logged_in = grpc.call("AuthService/Login").message(&login("admin", admin.password()));
    let logged_in = logged_in.ok::<v1::LoginResponse>();
    assert_eq!(claims_of(&logged_in.token)["sub"], admin.id());
    for (path, status) in [
        ("/mcias.v1.AuthService/WhoAmI", 0),
        ("/mcias.v1.TokenService/ValidateToken", 0),
        ("/mcias.v1.AuthService/WhoAmI", 16),
        ("/x/…", 12),
        (CHECK, 5),
        ("/mcias.v1.AuthService/Login", 0),
    ] {
        let (path, status) = (format!(" path={path} "), format!("status={status} "));
        let line = ["INFO", " request ", "id=", "method=POST", &path, &status, "duration_ms=", "address=127.0.0.1"];
        server.log().wait_since(mark, &line);
    }
    let log = server.log().text();
    for token in [token, &logged_in.token] {
        for part in token.split('.') {
            assert!(!log.contains(part), "a token is in the log");
        }
    }
    assert!(!log.contains(admin.password()));
}

#[test]
fn a_message_that_does_not_come_harms_nobody_else() {
    let server = &*SERVER;
    let grpc = server.grpc();
    let slow: Vec<_> =
        (0..100).map(|_| grpc.call("AuthService/Login").bytes(&[0, 0, 0, 0, 9, b'x']).endless()).collect();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = slow
            .into_iter()
            .map(|call| scope.spawn(move || call.header("grpc-timeout", "3S").send().status()))
            .collect();
        // On the same connection, and on others.
        for _ in 0..20 {
            grpc.call("AdminService/Health").message(&v1::HealthRequest {}).ok::<v1::HealthResponse>();
            server.client().get("/v1/health").ok(200);
        }
        for one in waiting {
            assert_eq!(one.join().unwrap(), Code::DeadlineExceeded);
        }
    });
}

#[test]
fn a_connection_lives_through_any_number_of_refusals() {
    // What is still on its way when the answer comes is a fault of nobody's.
    let server = &*SERVER;
    let (grpc, message) = (server.grpc(), vec![b'x'; 60_000]);
    for _ in 0..300 {
        let call = grpc.call("AccountService/CreateAccount").token("x").framed(0, &message);
        call.expect(Code::Unauthenticated, "unauthorized");
    }
    grpc.call("AdminService/Health").message(&v1::HealthRequest {}).ok::<v1::HealthResponse>();
}
