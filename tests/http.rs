//! HTTP as the contract wants it, whatever the operation: which refusal comes first, what every answer carries, HEAD and
//! OPTIONS, strict JSON, types, sizes, queries, pages. TLS is in `tls.rs`.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::LazyLock;

use mcias::wire::json::Body;
use mcias::wire::ops::{Bucket, Decl, Level};
use serde_json::{Value, json};
use support::{Answer, Client, RawAnswer, Request, Server, eventually};

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

/// A server whose buckets hold some requests and never more, and that believes what we say of our address.
static LIMITED: LazyLock<Server> = LazyLock::new(|| {
    Server::with(|c| {
        c.set("server", "trusted_proxies", "[\"127.0.0.0/8\"]");
        for bucket in ["", "validate_", "api_"] {
            c.set("rate_limit", &format!("{bucket}rps"), "0.001");
            c.set("rate_limit", &format!("{bucket}burst"), &BURST.to_string());
        }
    })
});
const BURST: usize = 60;

/// An address that has nothing left in any bucket of [`LIMITED`].
static EXHAUSTED: LazyLock<&str> = LazyLock::new(|| {
    let address = "198.51.100.99";
    let client = LIMITED.client();
    for (method, path) in [("POST", "/v1/auth/login"), ("POST", "/v1/token/validate"), ("GET", "/v1/health")] {
        let ask = || client.request(method, path).forwarded_for(address).send().status;
        assert_eq!((0..BURST).filter(|_| ask() == 429).count(), 0, "{path}");
        assert_eq!(ask(), 429, "{path}");
    }
    address
});

const NO_ID: &str = "0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11";

/// Every operation's path with something in the place of what varies.
fn filled(decl: &Decl) -> String {
    let segments = decl.path.split('/').map(|segment| match segment {
        "{role}" => "reader",
        segment if segment.starts_with('{') => NO_ID,
        segment => segment,
    });
    segments.collect::<Vec<_>>().join("/")
}

#[test]
fn of_two_things_wrong_the_first_in_the_contract_s_order_is_told() {
    let server = &*LIMITED;
    let (admin, user) = (server.admin(), server.human("nobody-special"));
    let another = admin.post("/v1/auth/token").json(json!({"audience": "files"})).ok(200);
    let another = format!("Bearer {}", another.text("token"));
    let bearer = |client: &Client| format!("Bearer {}", client.token());
    type Spoil<'a> = Box<dyn Fn(Request) -> Request + 'a>;
    let authorization = |value: String| move |r: Request| r.without("authorization").header("authorization", &value);
    let faults: Vec<(&str, u16, &str, Spoil)> = vec![
        ("path", 404, "not_found", Box::new(|r| r.path("/v1/accounts/x/y/z"))),
        ("method", 405, "method_not_allowed", Box::new(|r| r.method("PUT"))),
        ("rate", 429, "rate_limited", Box::new(|r| r.without("x-forwarded-for").forwarded_for(&EXHAUSTED))),
        ("no token", 401, "unauthorized", Box::new(|r| r.without("authorization"))),
        ("bad token", 401, "unauthorized", Box::new(authorization("Bearer x".to_owned()))),
        ("audience", 401, "unauthorized", Box::new(authorization(another))),
        ("role", 403, "forbidden", Box::new(authorization(bearer(&user)))),
        (
            "type",
            415,
            "unsupported_media_type",
            Box::new(|r| r.without("content-type").header("content-type", "text/plain")),
        ),
        ("encoding", 415, "unsupported_media_type", Box::new(|r| r.header("content-encoding", "gzip"))),
        ("size", 413, "payload_too_large", Box::new(|r| r.body("{".repeat(64 * 1024 + 1)))),
        ("query", 400, "invalid_request", Box::new(|r| r.query("x=1"))),
        ("body", 400, "invalid_request", Box::new(|r| r.body("{"))),
        ("state", 409, "conflict", Box::new(|r| r.body(r#"{"username":"admin","account_type":"system"}"#))),
    ];
    // What can't be wrong together: both would change the same thing.
    let exclude = |a: &str, b: &str| {
        let token = ["no token", "bad token", "audience", "role"];
        let body = ["size", "body", "state"];
        (token.contains(&a) && token.contains(&b)) || (body.contains(&a) && body.contains(&b))
    };
    let mut names = 0;
    let mut good = |client: &Client| {
        names += 1;
        let account = json!({"username": format!("robot-{names}"), "account_type": "system"});
        client.post("/v1/accounts").json(account).forwarded_for(&format!("203.0.113.{names}"))
    };
    for client in [admin.clone(), admin.over_http2()] {
        good(&client).ok(201);
        for (n, (one, status, code, spoil)) in faults.iter().enumerate() {
            spoil(good(&client)).expect(*status, code);
            for (other, _, _, spoil_too) in &faults[n + 1..] {
                if exclude(one, other) {
                    continue;
                }
                let answer = spoil(spoil_too(good(&client))).send();
                assert_eq!(
                    (answer.status, &answer["code"]),
                    (*status, &json!(code)),
                    "{one}, {other}{}",
                    answer.story()
                );
            }
        }
    }

    // And for an object that isn't there.
    let get = |client: &Client, query: &str, address: &str| {
        client.get(&format!("/v1/accounts/{NO_ID}{query}")).forwarded_for(address).send().status
    };
    assert_eq!(get(&admin, "", "192.0.2.1"), 404);
    assert_eq!(get(&admin, "?x=1", "192.0.2.1"), 400);
    assert_eq!(get(&user, "?x=1", "192.0.2.1"), 403);
    assert_eq!(get(&user, "", "192.0.2.1"), 403, "whether it is there or not");
    assert_eq!(get(&server.client(), "?x=1", "192.0.2.1"), 401);
    assert_eq!(get(&admin, "", *EXHAUSTED), 429);
    // A login tells of its body before anything about the account.
    let login = server.client().post("/v1/auth/login").forwarded_for("192.0.2.2");
    login.clone().json(json!({"username": "nobody"})).expect(400, "invalid_request");
    login.clone().json(json!({"username": "nobody", "password": "x"})).expect(401, "unauthorized");
    login.json(json!({"username": "nobody", "password": "x"})).query("x=1").expect(400, "invalid_request");
}

#[test]
fn each_client_has_its_buckets() {
    let server = &*LIMITED;
    let address = *EXHAUSTED;
    let ask = |path: &str, address: &str| server.client().get(path).forwarded_for(address).send();
    let refused = ask("/v1/health", address);
    assert_eq!((refused.status, &refused["code"]), (429, &json!("rate_limited")));
    assert!(refused.header("retry-after").unwrap().parse::<u32>().unwrap() > 1, "a bucket that fills that slowly");
    assert_eq!(ask("/v1/health", "198.51.100.98").status, 200);
    // The left-most address is the client's own claim; the right-most untrusted one counts.
    assert_eq!(ask("/v1/health", &format!("192.0.2.9, {address}")).status, 429);
    assert_eq!(ask("/v1/health", &format!("{address}, 198.51.100.97")).status, 200);
    assert_eq!(ask("/v1/health", &format!("{address}, 127.0.0.7")).status, 429, "behind two proxies");
    assert_eq!(ask("/v1/health", &format!("::ffff:{address}")).status, 429, "an IPv4 address in IPv6's dress");
    // IPv6 by /64.
    let ipv6 = |last: u32| format!("2001:db8:1:2::{last:x}");
    let spent = (0..=BURST).map(|n| ask("/v1/health", &ipv6(n as u32 + 1)).status).collect::<Vec<_>>();
    assert_eq!(spent.iter().filter(|status| **status == 200).count(), BURST);
    assert_eq!(spent.last(), Some(&429));
    assert_eq!(ask("/v1/health", "2001:db8:1:3::1").status, 200);
    // The three buckets are apart.
    let login = |address: &str| server.client().post("/v1/auth/login").json(json!({})).forwarded_for(address).send();
    assert_eq!(login(&ipv6(1)).status, 400);
    assert_eq!(login(address).status, 429);
    // Who isn't a trusted proxy isn't believed.
    let answer = SERVER.client().try_login("nobody", "any password at all").forwarded_for("192.0.2.77").send();
    assert_eq!(answer.status, 401);
    eventually("the log names the peer", || SERVER.log().text().contains("path=/v1/auth/login status=401"));
    assert!(!SERVER.log().text().contains("192.0.2.77"));
}

#[test]
fn every_answer_carries_what_the_contract_says() {
    // The helper holds every answer of every test against the contract; here is one of each kind, over both protocols.
    let server = &*SERVER;
    let (admin, user) = (server.admin(), server.human("headers"));
    for (n, http2) in [false, true].into_iter().enumerate() {
        let over = |client: &Client| if http2 { client.over_http2() } else { client.clone() };
        let (admin, user, anybody) = (over(&admin), over(&user), over(&server.client()));
        let account = json!({"username": format!("header-{n}"), "account_type": "system"});
        let session = over(&user.again());
        let answers = [
            anybody.get("/v1/health").ok(200),
            anybody.get("/.well-known/jwks.json").ok(200),
            admin.post("/v1/accounts").json(account.clone()).ok(201),
            session.post("/v1/auth/logout").ok(204),
            anybody.options("/v1/health").ok(204),
            admin.post("/v1/accounts").json(json!({})).expect(400, "invalid_request"),
            anybody.get("/v1/auth/me").expect(401, "unauthorized"),
            user.get("/v1/accounts").expect(403, "forbidden"),
            anybody.get("/v1/nothing").expect(404, "not_found"),
            anybody.delete("/v1/health").expect(405, "method_not_allowed"),
            admin.post("/v1/accounts").json(account).expect(409, "conflict"),
            anybody.post("/v1/auth/login").json(json!("x".repeat(70_000))).expect(413, "payload_too_large"),
            anybody.post("/v1/auth/login").body("{}").expect(415, "unsupported_media_type"),
        ];
        let ids: BTreeSet<_> = answers.iter().map(|answer| answer.header("x-request-id").unwrap()).collect();
        assert_eq!(ids.len(), answers.len(), "each request has an id of its own");
        for answer in &answers {
            // One line for each, under the id that the client was told.
            let (id, path) = (answer.header("x-request-id").unwrap(), answer.path.split('?').next().unwrap());
            let (id, method) = (format!("id={id}"), format!("method={}", answer.method));
            let (path, status) = (format!("path={path}"), format!("status={}", answer.status));
            server.log().wait(&[
                "INFO",
                " request ",
                &id,
                &method,
                &path,
                &status,
                "duration_ms=",
                "address=127.0.0.1",
            ]);
        }
    }
}

#[test]
fn an_inbound_request_id_is_ignored() {
    let server = &*SERVER;
    let theirs = "11111111-2222-4333-8444-555555555555";
    for client in [server.client(), server.client().over_http2()] {
        let answer = client.get("/v1/health").header("x-request-id", theirs).ok(200);
        assert_ne!(answer.header("x-request-id"), Some(theirs));
        server.log().wait(&[answer.header("x-request-id").unwrap()]);
    }
    assert!(!server.log().text().contains(theirs));
}

/// What differs from one answer to the next by itself.
fn headers(answer: &Answer) -> BTreeMap<&str, &str> {
    let all = answer.raw().headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    all.filter(|(name, _)| !["x-request-id", "date"].contains(name)).collect()
}

#[test]
fn head_answers_like_get_without_a_body() {
    let server = &*SERVER;
    let admin = server.admin();
    let account = format!("/v1/accounts/{}", admin.id());
    let paths = [
        "/v1/health",
        "/v1/ready",
        "/v1/keys/public",
        "/.well-known/jwks.json",
        "/v1/auth/me",
        "/v1/token/validate",
        "/v1/token/validate?role=admin",
        "/v1/accounts?limit=1",
        account.as_str(),
        "/v1/accounts?x=1",
        "/v1/nothing",
        "/v1/token/validate?role=nobody",
    ];
    for http2 in [false, true] {
        for client in [admin.clone(), server.client()] {
            let client = if http2 { client.over_http2() } else { client };
            for path in paths {
                let (get, head) = (client.get(path).send(), client.request("HEAD", path).send());
                assert_eq!((head.status, headers(&head)), (get.status, headers(&get)), "{path}{}", head.story());
                assert_eq!(head.body(), b"", "{path}");
            }
        }
    }
    admin.request("HEAD", "/v1/auth/login").expect(405, "method_not_allowed");
}

#[test]
fn every_path_says_which_methods_it_has() {
    let server = &*SERVER;
    let mut methods: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for decl in mcias::rest::table() {
        methods.entry(filled(decl)).or_default().insert(decl.method.as_str());
    }
    for (path, mut has) in methods {
        if has.contains("GET") {
            has.insert("HEAD");
        }
        has.insert("OPTIONS");
        let allow = has.iter().copied().collect::<Vec<_>>().join(", ");
        for client in [server.client(), server.admin()] {
            assert_eq!(client.options(&path).ok(204).header("allow"), Some(allow.as_str()), "{path}");
            for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "get", "QUERY"] {
                if !has.contains(method) {
                    let answer = client.request(method, &path).expect(405, "method_not_allowed");
                    assert_eq!(answer.header("allow"), Some(allow.as_str()), "{method} {path}");
                }
            }
        }
        for other in [format!("{path}/"), format!("{path}/x/y"), format!("/{path}"), path.to_uppercase()] {
            server.client().options(&other).expect(404, "not_found");
        }
    }
}

#[test]
fn every_route_is_knocked_on_with_every_bad_credential() {
    let server = Server::start();
    let user = server.human("somebody");
    let expired = server.human("expired");
    let jti = expired.jti();
    server.sql("UPDATE token_revocation SET expires_at = issued_at WHERE jti = ?1", [jti]);
    let revoked = user.again();
    revoked.post("/v1/auth/logout").ok(204);
    let suspended = server.human("suspended");
    server.sql("UPDATE accounts SET status = 'suspended' WHERE uuid = ?1", [suspended.id()]);
    let files = user.post("/v1/auth/token").json(json!({"audience": "files"})).ok(200);
    let files = user.with_token(files.text("token"));
    let before = server.query_one::<i64>("SELECT count(*) FROM audit_log", []);
    let anybody = server.client();
    let garbage = anybody.with_token("garbage");

    for decl in mcias::rest::table() {
        let knock = |client: &Client| {
            // A body that is fine as far as anybody could tell before reading it.
            let request = client.request(decl.method.as_str(), &filled(decl));
            if decl.body == Body::None { request } else { request.json(json!({})) }
        };
        if decl.level == Level::Public {
            let status = knock(&anybody).send().status;
            // Who asks about a token and sends none is refused for that.
            let asked = decl.bucket == Bucket::Validate && status == 401;
            assert!(asked || matches!(status, 200 | 400), "{} {status}", decl.name);
            continue;
        }
        for bad in [&anybody, &garbage, &expired, &revoked, &suspended] {
            knock(bad).expect(401, "unauthorized");
        }
        if decl.level != Level::AnyToken {
            knock(&files).expect(401, "unauthorized");
        }
        if matches!(decl.level, Level::Admin | Level::AdminOrOwner) {
            knock(&user).expect(403, "forbidden");
        }
    }
    assert_eq!(server.query_one::<i64>("SELECT count(*) FROM audit_log", []), before, "nothing happened");
}

#[test]
fn only_the_one_form_of_the_authorization_header_counts() {
    let server = &*SERVER;
    let user = server.human("form");
    let token = user.token();
    for client in [server.client(), server.client().over_http2()] {
        let me = || client.get("/v1/auth/me");
        for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
            me().header("authorization", &format!("{scheme} {token}")).ok(200);
        }
        for bad in [
            token.to_owned(),
            format!("Bearer  {token}"),
            format!("Bearer\t{token}"),
            format!("Bearer{token}"),
            format!("Bearer: {token}"),
            format!("Bearer {token},"),
            format!("Bearer {token}, Bearer {token}"),
            format!("Bearer {token} {token}"),
            format!("Bearer \"{token}\""),
            format!("Bearer token={token}"),
            format!("Basic {token}"),
            format!("Token {token}"),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            String::new(),
        ] {
            me().header("authorization", &bad).expect(401, "unauthorized");
        }
        let value = format!("Bearer {token}");
        me().header("authorization", &value).header("authorization", &value).expect(401, "unauthorized");
        me().header("authorization", &value).header("authorization", "Basic eDp5").expect(401, "unauthorized");
        me().header("authorization", "Basic eDp5").header("authorization", &value).expect(401, "unauthorized");
        // Nor does it count anywhere else.
        me().header("cookie", &format!("token={token}")).expect(401, "unauthorized");
        me().header("x-authorization", &value).expect(401, "unauthorized");
        me().header("proxy-authorization", &value).expect(401, "unauthorized");
        me().query(&format!("access_token={token}")).expect(401, "unauthorized");
    }
}

#[test]
fn only_strict_json_is_read() {
    let server = &*SERVER;
    let user = server.human("strict");
    let token = user.token();
    let validate = |body: &[u8]| {
        let request = server.client().post("/v1/token/validate").header("content-type", "application/json");
        request.body(body).send()
    };
    // What is fine, in all its dresses.
    for body in [
        format!(r#"{{"token":"{token}"}}"#),
        format!(" \t\r\n{{ \"token\" : \"{token}\" }}\r\n"),
        format!(r#"{{"\u0074oken":"{token}"}}"#),
        format!(r#"{{"audience":"https://localhost:8443","token":"{token}"}}"#),
    ] {
        let answer = validate(body.as_bytes());
        assert_eq!((answer.status, &answer["valid"]), (200, &json!(true)), "{}", answer.story());
    }
    let deep = format!(r#"{{"token":{}"x"{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let member = |name: &str, value: &str| format!(r#"{{"token":"{token}","{name}":{value}}}"#).into_bytes();
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("nothing but a space", b" ".to_vec()),
        ("a list", format!(r#"["{token}"]"#).into()),
        ("a text", format!(r#""{token}""#).into()),
        ("a number", b"1".to_vec()),
        ("true", b"true".to_vec()),
        ("null", b"null".to_vec()),
        ("an unknown member", member("x", "1")),
        ("an unknown member, null", member("x", "null")),
        ("a member in other case", member("Audience", "\"x\"")),
        ("a member with a space", member("audience ", "\"x\"")),
        ("twice", member("token", &format!("\"{token}\""))),
        ("twice, one escaped", member("\\u0074oken", &format!("\"{token}\""))),
        ("twice, another", format!(r#"{{"token":"{token}","audience":"x","audience":"x"}}"#).into()),
        ("twice at depth", member("audience", r#"{"a":{"b":1,"b":1}}"#)),
        ("twice in a list at depth", member("audience", r#"[[{"b":1},{"b":1,"b":2}]]"#)),
        ("null where it may be left out", member("audience", "null")),
        ("a number for a text", member("audience", "1")),
        ("a fraction", member("audience", "1.5")),
        ("true for a text", member("audience", "true")),
        ("a list for a text", member("audience", r#"["x"]"#)),
        ("an object for a text", member("audience", "{}")),
        ("an endless number", member("audience", "1e999")),
        ("token is null", b"{\"token\":null}".to_vec()),
        ("token is a number", b"{\"token\":1}".to_vec()),
        ("token is a list", format!(r#"{{"token":["{token}"]}}"#).into()),
        ("something after", format!(r#"{{"token":"{token}"}}x"#).into()),
        ("another value after", format!(r#"{{"token":"{token}"}}{{}}"#).into()),
        ("a NUL after", format!("{{\"token\":\"{token}\"}}\0").into()),
        ("a byte-order mark", format!("\u{feff}{{\"token\":\"{token}\"}}").into()),
        ("UTF-16", format!(r#"{{"token":"{token}"}}"#).encode_utf16().flat_map(u16::to_be_bytes).collect()),
        ("bad UTF-8 in a value", [b"{\"token\":\"".as_slice(), token.as_bytes(), b"\xff\"}"].concat()),
        ("bad UTF-8 in a name", [b"{\"tok\xc0\xaf\":1,\"token\":\"".as_slice(), token.as_bytes(), b"\"}"].concat()),
        ("an overlong form", [b"{\"token\":\"\xc1\xa1".as_slice(), token.as_bytes(), b"\"}"].concat()),
        ("half a pair", member("audience", r#""\ud800""#)),
        ("a pair the wrong way round", member("audience", r#""\udc00\ud800""#)),
        ("a line end in a text", member("audience", "\"a\nb\"")),
        ("a comma too many", format!(r#"{{"token":"{token}",}}"#).into()),
        ("a comma too few", format!(r#"{{"token":"{token}" "audience":"x"}}"#).into()),
        ("single quotes", format!("{{'token':'{token}'}}").into()),
        ("no quotes", format!("{{token:\"{token}\"}}").into()),
        ("a comment", format!("{{\"token\":\"{token}\"}} // fine").into()),
        ("a comment within", format!("{{/**/\"token\":\"{token}\"}}").into()),
        ("cut off", format!(r#"{{"token":"{token}"#).into()),
        ("not closed", format!(r#"{{"token":"{token}""#).into()),
        ("NaN", member("audience", "NaN")),
        ("a form", format!("token={token}").into()),
        ("too deep", deep.into()),
    ];
    for (what, body) in bodies {
        let answer = validate(&body);
        assert_eq!((answer.status, &answer["code"]), (400, &json!("invalid_request")), "{what}{}", answer.story());
        assert!(!answer.text("error").contains(token), "{what}: it repeats the token");
    }
}

#[test]
fn only_json_that_is_called_so_is_read() {
    let server = &*SERVER;
    let token = server.human("types").token().to_owned();
    let validate = || server.client().post("/v1/token/validate").body(json!({"token": token}).to_string());
    for good in [
        "application/json",
        "Application/JSON",
        "APPLICATION/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "application/json ; charset=\"utf-8\"",
        "application/json;",
        "application/json; x=y; z",
    ] {
        validate().header("content-type", good).ok(200);
    }
    for bad in [
        "",
        "application",
        "application/",
        "application/jsonx",
        "application/json5",
        "application/json+x",
        "application/*",
        "application/problem+json",
        "text/json",
        "text/plain",
        "text/plain; application/json",
        "json",
        "*/*",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json, text/plain",
        "application/json application/json",
        "x;application/json",
    ] {
        validate().header("content-type", bad).expect(415, "unsupported_media_type");
    }
    validate().expect(415, "unsupported_media_type");
    let json = || validate().header("content-type", "application/json");
    json().header("content-type", "application/json").expect(415, "unsupported_media_type");
    json().header("content-type", "text/plain").expect(415, "unsupported_media_type");
    for encoding in ["gzip", "deflate", "br", "zstd", "identity", "", "x"] {
        json().header("content-encoding", encoding).expect(415, "unsupported_media_type");
    }
    // What takes no body doesn't look at its type; a login without one has no type.
    server.client().get("/v1/health").header("content-type", "text/plain").ok(200);
    server.client().post("/v1/auth/login").expect(415, "unsupported_media_type");
    let nothing = server.client().post("/v1/auth/login").header("content-type", "application/json");
    nothing.expect(400, "invalid_request");
}

/// A request's head for a body that is sent by hand.
fn head_of(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{more}\r\n")
}

/// In chunks of this size, or as one with its length.
fn sent(body: &[u8], chunks_of: Option<usize>) -> (String, Vec<u8>) {
    let Some(size) = chunks_of else { return (format!("content-length: {}\r\n", body.len()), body.to_vec()) };
    let mut sent = Vec::new();
    for chunk in body.chunks(size) {
        write!(sent, "{:x}\r\n", chunk.len()).unwrap();
        sent.extend_from_slice(chunk);
        sent.extend_from_slice(b"\r\n");
    }
    sent.extend_from_slice(b"0\r\n\r\n");
    ("transfer-encoding: chunked\r\n".to_owned(), sent)
}

#[track_caller]
fn code(answer: &RawAnswer) -> (u16, String) {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    (answer.status, body["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_body_has_64_kib_at_most() {
    let server = &*SERVER;
    let padded = |size: usize, body: &str| format!("{body}{}", " ".repeat(size - body.len())).into_bytes();
    let login = r#"{"username":"nobody","password":"any password at all"}"#;
    for (size, status, word) in [
        (64 * 1024 - 1, 401, "unauthorized"),
        (64 * 1024, 401, "unauthorized"),
        (64 * 1024 + 1, 413, "payload_too_large"),
        (128 * 1024, 413, "payload_too_large"),
    ] {
        for chunks_of in [None, Some(1000), Some(64 * 1024)] {
            let (header, body) = sent(&padded(size, login), chunks_of);
            let mut connection = server.raw();
            connection.say(head_of("POST", "/v1/auth/login", &header)).say(body);
            assert_eq!(code(&connection.answer()), (status, word.to_owned()), "{size} bytes in {chunks_of:?}");
        }
        let http2 = server.client().over_http2().post("/v1/auth/login").header("content-type", "application/json");
        http2.body(padded(size, login)).expect(status, word);
    }
    // It counts what is sent, not what it means: 64 KiB that aren't JSON are 400.
    let (header, body) = sent(&padded(64 * 1024, "x"), None);
    let mut connection = server.raw();
    connection.say(head_of("POST", "/v1/auth/login", &header)).say(body);
    assert_eq!(code(&connection.answer()), (400, "invalid_request".to_owned()));
}

#[test]
fn who_sends_far_too_much_still_reads_why_not() {
    let server = &*SERVER;
    let user = server.human("too-much");
    let authorization = format!("authorization: Bearer {}\r\n", user.token());
    let huge = vec![b' '; 5 * 1024 * 1024];
    let cases = [
        ("POST", "/v1/auth/login", "", 413, "payload_too_large"),
        ("POST", "/v1/token/validate", "", 413, "payload_too_large"),
        ("POST", "/v1/accounts", "", 401, "unauthorized"),
        ("POST", "/v1/accounts", &*authorization, 403, "forbidden"),
        ("POST", "/v1/nothing", "", 404, "not_found"),
        ("PUT", "/v1/auth/login", "", 405, "method_not_allowed"),
        ("POST", "/v1/auth/login", "content-encoding: gzip\r\n", 415, "unsupported_media_type"),
    ];
    for (method, path, more, status, word) in cases {
        for chunks_of in [None, Some(100_000), Some(1_000)] {
            let (header, body) = sent(&huge, chunks_of);
            let mut connection = server.raw();
            // All of it is sent before anything is read, as simple clients do.
            connection.say(head_of(method, path, &format!("{header}{more}"))).say(&body);
            let answer = connection.receive(false);
            let answer = answer.unwrap_or_else(|e| panic!("{method} {path} {chunks_of:?}: {e}"));
            assert_eq!(code(&answer), (status, word.to_owned()), "{method} {path} {chunks_of:?}");
        }
    }
    for _ in 0..5 {
        let http2 = server.client().over_http2();
        let request = http2.post("/v1/auth/login").header("content-type", "application/json");
        request.body(huge.clone()).expect(413, "payload_too_large");
        http2.get("/v1/health").ok(200);
    }
}

#[test]
fn a_body_that_nobody_asked_for_is_ignored() {
    let server = &*SERVER;
    let user = server.human("ignored");
    for size in [0, 10, 100_000] {
        for chunks_of in [None, Some(7000)] {
            let (header, body) = sent(&vec![b'x'; size], chunks_of);
            let mut connection = server.raw();
            let more = format!("{header}authorization: Bearer {}\r\n", user.token());
            for (method, path) in [("GET", "/v1/auth/me"), ("GET", "/v1/health"), ("GET", "/v1/token/validate")] {
                connection.say(head_of(method, path, &more)).say(&body);
                assert_eq!(connection.answer().status, 200, "{method} {path} {size} {chunks_of:?}");
            }
            // And what comes after it is the next request.
            let session = user.again();
            let more = format!("{header}authorization: Bearer {}\r\n", session.token());
            connection.say(head_of("POST", "/v1/auth/logout", &more)).say(&body);
            assert_eq!(connection.answer().status, 204);
            connection.say(head_of("GET", "/v1/ready", ""));
            assert_eq!(connection.answer().status, 200);
        }
    }
}

#[test]
fn a_validation_without_a_body_asks_about_the_header_however_empty_the_body_is() {
    let server = &*SERVER;
    let user = server.human("empty");
    let authorization = format!("authorization: Bearer {}\r\n", user.token());
    for (more, body) in [("", ""), ("content-length: 0\r\n", ""), ("transfer-encoding: chunked\r\n", "0\r\n\r\n")] {
        let head = format!("POST /v1/token/validate HTTP/1.1\r\nhost: localhost\r\n{authorization}{more}\r\n{body}");
        let answer = server.raw().say(head).answer();
        assert_eq!(answer.status, 200, "{more:?}: {answer:?}");
    }
    user.over_http2().post("/v1/token/validate").ok(200);
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on_or_not() {
    let server = &*SERVER;
    let body = r#"{"username":"nobody","password":"any password at all"}"#;
    let head = |path: &str, length: usize| {
        head_of("POST", path, &format!("content-length: {length}\r\nexpect: 100-continue\r\n"))
    };
    let mut connection = server.raw();
    connection.say(head("/v1/auth/login", body.len()));
    assert_eq!(connection.receive_bytes(), b"HTTP/1.1 100 Continue\r\n\r\n");
    connection.say(body);
    assert_eq!(code(&connection.answer()), (401, "unauthorized".to_owned()));
    for (path, length, status) in [("/v1/accounts", 10, 401), ("/v1/nothing", 10, 404), ("/v1/auth/login", 70_000, 413)]
    {
        let answer = server.raw().say(head(path, length)).answer();
        assert_eq!((answer.status, answer.interim), (status, vec![]), "{path}");
    }
}

#[test]
fn a_header_has_16_kib_altogether() {
    let server = &*SERVER;
    let ask = |size: usize, lines: usize| {
        let line = "x".repeat(size / lines);
        let more: String = (0..lines).map(|n| format!("x-{n:03}: {line}\r\n")).collect();
        let mut connection = server.raw();
        let told = connection.send(format!("GET /v1/health HTTP/1.1\r\nhost: localhost\r\n{more}\r\n"));
        let answer = connection.receive(false).map(|answer| answer.status);
        let closed = answer.as_ref().is_ok_and(|status| *status != 200) && connection.is_closed();
        (told.and(answer).ok(), closed)
    };
    for lines in [1, 10, 60] {
        assert_eq!(ask(15 * 1024, lines), (Some(200), false), "{lines} lines");
        assert_eq!(ask(17 * 1024, lines), (Some(431), true), "{lines} lines");
    }
    assert_eq!(ask(64 * 1024, 1), (Some(431), true));
    // Over HTTP/2 as well, where a name and a value count for 32 bytes more (RFC 9113, 6.5.2).
    let http2 = |size: usize| {
        let request = server.client().over_http2().get("/v1/health").header("x-large", &"x".repeat(size));
        request.try_send().ok().map(|answer| answer.status)
    };
    assert_eq!(http2(15 * 1024), Some(200));
    assert_ne!(http2(17 * 1024), Some(200));
    server.client().get("/v1/health").ok(200);
}

#[test]
fn requests_that_could_be_read_in_two_ways_are_not_read() {
    let server = &*SERVER;
    let smuggled = "GET /v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for head in [
        "POST /v1/auth/login HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        "POST /v1/auth/login HTTP/1.1\r\nhost: localhost\r\ncontent-length: +5\r\n\r\n",
        "POST /v1/auth/login HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5, 6\r\n\r\n",
        "POST /v1/auth/login HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n",
        "POST /v1/auth/login HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked, gzip\r\n\r\n",
        "POST /v1/auth/login HTTP/1.1\r\nhost: localhost\r\ncontent-length : 5\r\n\r\n",
        "POST /v1/auth/login HTTP/1.1\r\nhost: localhost\r\nx: y\r\n z\r\ncontent-length: 0\r\n\r\n",
        "POST /v1/auth/login HTTP/1.1\r\nhost: localhost\r\nx\0y: z\r\n\r\n",
        "GET /v1/health HTTP/1.1\r\nhost: localhost\r\nx: y\0z\r\n\r\n",
        "GET  /v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /v1/ health HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /v1/health HTTP/9.9\r\nhost: localhost\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03",
    ] {
        let mut connection = server.raw();
        let _ = connection.send(format!("{head}{smuggled}"));
        let answer = connection.receive(false);
        if let Ok(answer) = answer {
            assert_eq!(answer.status, 400, "{head:?}: {answer:?}");
        }
        assert!(connection.is_closed(), "{head:?}: a second answer");
    }
    // Where the rules leave no doubt, the chunks count and the length doesn't.
    let head = head_of("POST", "/v1/auth/login", "content-length: 5\r\ntransfer-encoding: chunked\r\n");
    let mut connection = server.raw();
    let _ = connection.send(format!("{head}2\r\n{{}}\r\n0\r\n\r\n{smuggled}"));
    assert_eq!(connection.answer().status, 400, "an empty object is no login");
    if let Ok(answer) = connection.receive(false) {
        assert_eq!(answer.status, 200, "the next request is the next request: {answer:?}");
    }
}

#[test]
fn one_connection_serves_many_requests() {
    let server = &*SERVER;
    let mut connection = server.raw();
    let ask = "GET /v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for _ in 0..200 {
        assert_eq!(connection.say(ask).answer().status, 200);
    }
    // All at once, answered in order.
    let lost = "GET /v1/nothing HTTP/1.1\r\nhost: localhost\r\n\r\n";
    connection.say([ask, lost, ask, lost].concat());
    let statuses: Vec<u16> = (0..4).map(|_| connection.answer().status).collect();
    assert_eq!(statuses, [200, 404, 200, 404]);
    // And it is closed when the client asks for that.
    connection.say("GET /v1/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert_eq!(connection.answer().header("connection"), Some("close"));
    assert!(connection.is_closed());
}

#[test]
fn a_query_is_taken_whole_or_not_at_all() {
    let server = &*SERVER;
    let admin = server.admin();
    for good in [
        "?",
        "?&",
        "?limit=1",
        "?limit=1000&",
        "?account_type=human&status=active",
        "?limit=%31",
        "?%6cimit=1",
        "?username=ADMIN",
    ] {
        admin.get(&format!("/v1/accounts{good}")).ok(200);
    }
    for bad in [
        "?x=1",
        "?x",
        "?=",
        "?=1",
        "?limit=1&limit=1",
        "?limit=1&%6cimit=1",
        "?limit=",
        "?limit=0",
        "?limit=1001",
        "?limit=-1",
        "?limit=+1",
        "?limit=%2B1",
        "?limit=1.0",
        "?limit=1e1",
        "?limit=0x1",
        "?limit=one",
        "?limit=%ff",
        "?limit=99999999999999999999",
        "?LIMIT=1",
        "?limit=1;status=active",
        "?cursor=",
        "?cursor=x",
        "?cursor=AAAA",
        "?cursor=YWRtaW4",
        "?cursor=YWRtaW4v",
        "?cursor=%00",
        "?status=gone",
        "?status=",
        "?status=ACTIVE",
        "?account_type=robot",
        "?username=",
        "?username=%20",
        "?username=admin&username=admin",
        "?username=a%20b",
        "?limit=1&x=%ff",
        "?limit=1&token=secret",
    ] {
        let answer = admin.get(&format!("/v1/accounts{bad}")).expect(400, "invalid_request");
        assert!(!answer.text("error").contains("secret"));
    }
    // Also where an operation takes no query at all.
    for path in ["/v1/health", "/v1/ready", "/.well-known/jwks.json", "/v1/keys/public", "/v1/auth/me"] {
        admin.get(&format!("{path}?x=1")).expect(400, "invalid_request");
        admin.get(&format!("{path}?")).ok(200);
    }
    let twice = "/v1/token/validate?audience=a&audience=a";
    admin.get(twice).expect(400, "invalid_request");
    admin.get("/v1/token/validate?role=admin&role=admin").ok(200);
}

#[test]
fn an_id_that_is_none_is_not_found() {
    let admin = SERVER.admin();
    admin.get(&format!("/v1/accounts/{}", admin.id())).ok(200);
    let shouted = admin.id().to_uppercase();
    let braces = format!("%7B{}%7D", admin.id());
    let plain = admin.id().replace('-', "");
    for id in [
        NO_ID,
        &shouted,
        &braces,
        &plain,
        "admin",
        "1",
        "-1",
        "..",
        "%2e%2e",
        "%2F",
        "%00",
        "%ff",
        "null",
        "x'--",
        "*",
        "0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e1",
        "0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e111",
        "%C3%A4",
    ] {
        admin.get(&format!("/v1/accounts/{id}")).expect(404, "not_found");
    }
}

/// Follows the links from a page to the last one; gives each page's usernames.
fn pages(client: &Client, first: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = Some(first.to_owned());
    while let Some(path) = next {
        let page = client.get(&path).ok(200);
        let rows = page.json().as_array().unwrap().iter();
        pages.push(rows.map(|row| row["username"].as_str().unwrap().to_owned()).collect());
        next = page.header("link").map(|link| {
            let target = link.strip_prefix('<').and_then(|rest| rest.strip_suffix(">; rel=\"next\"")).unwrap();
            assert!(target.starts_with("/v1/accounts?"), "relative: {link}");
            target.to_owned()
        });
        assert!(pages.len() < 100, "the pages have no end");
    }
    pages
}

#[test]
fn accounts_are_listed_by_name_in_pages() {
    let server = Server::start();
    let admin = server.admin();
    let insert = |name: &str, kind: &str, status: &str| {
        let deleted = (status == "deleted").then_some(1);
        let id = uuid::Uuid::from_bytes(mcias::random::bytes().unwrap()).to_string();
        let sql = "INSERT INTO accounts (uuid, username, account_type, status, created_at, updated_at, deleted_at)
            VALUES (?1, ?2, ?3, ?4, 1, 1, ?5)";
        server.sql(sql, (&id, name, kind, status, deleted));
        id
    };
    for n in 1..=6 {
        insert(&format!("robot-{n}"), "system", if n % 2 == 0 { "suspended" } else { "active" });
    }
    for n in 1..=5 {
        insert(if n < 5 { "gone" } else { "late" }, "human", "deleted");
    }
    let robots = |numbers: &[u32]| numbers.iter().map(|n| format!("robot-{n}")).collect::<Vec<_>>();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();

    let all = ["admin", "robot-1", "robot-2", "robot-3", "robot-4", "robot-5", "robot-6"];
    assert_eq!(pages(&admin, "/v1/accounts"), [names(&all)]);
    assert_eq!(pages(&admin, "/v1/accounts?limit=3"), [names(&all[..3]), names(&all[3..6]), names(&all[6..])]);
    assert_eq!(pages(&admin, "/v1/accounts?limit=7"), [names(&all)], "no link where the last page is exactly full");
    assert_eq!(pages(&admin, "/v1/accounts?limit=6"), [names(&all[..6]), names(&all[6..])]);
    assert_eq!(pages(&admin, "/v1/accounts?limit=1").len(), 7);
    assert_eq!(
        pages(&admin, "/v1/accounts?account_type=system&limit=2&status=active"),
        [robots(&[1, 3]), robots(&[5])],
        "the links keep the filters"
    );
    assert_eq!(pages(&admin, "/v1/accounts?limit=2&status=suspended"), [robots(&[2, 4]), robots(&[6])]);
    assert_eq!(pages(&admin, "/v1/accounts?username=Robot-4"), [robots(&[4])]);
    assert_eq!(pages(&admin, "/v1/accounts?username=robot"), [names(&[])], "exactly, not by its beginning");
    assert_eq!(pages(&admin, "/v1/accounts?username=robot-4&account_type=human"), [names(&[])]);
    assert_eq!(pages(&admin, "/v1/accounts?username=gone"), [names(&[])], "not the deleted, unless asked for");
    // The deleted can share a name: none is left out, none comes twice.
    let gone = pages(&admin, "/v1/accounts?status=deleted&limit=2");
    assert_eq!(gone, [names(&["gone", "gone"]), names(&["gone", "gone"]), names(&["late"])]);
    assert_eq!(pages(&admin, "/v1/accounts?status=deleted&username=gone&limit=4"), [names(&["gone"; 4])]);

    // The objects are whole, and a deleted one is found in the list only.
    let row = &admin.get("/v1/accounts?username=robot-4").ok(200)[0];
    let id = row["id"].as_str().unwrap();
    let expected = json!({"id": id, "username": "robot-4", "account_type": "system", "status": "suspended",
        "totp_enabled": false, "roles": [], "created_at": "1970-01-01T00:00:01Z", "updated_at": "1970-01-01T00:00:01Z"});
    assert_eq!(*row, expected);
    admin.get(&format!("/v1/accounts/{id}")).ok(200).is(expected);
    let deleted = admin.get("/v1/accounts?status=deleted&limit=1").ok(200);
    assert_eq!(deleted[0]["status"], "deleted");
    admin.get(&format!("/v1/accounts/{}", deleted[0]["id"].as_str().unwrap())).expect(404, "not_found");

    // A page goes on where the one before ended, whatever came and went meanwhile.
    let first = admin.get("/v1/accounts?limit=3").ok(200);
    let link = first.header("link").unwrap();
    let next = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
    insert("robot-2a", "system", "active");
    server.sql("DELETE FROM accounts WHERE username = 'robot-2'", []);
    assert_eq!(pages(&admin, &next)[0], names(&["robot-2a", "robot-3", "robot-4"]));

    // 100 where no limit is given.
    for n in 0..100 {
        insert(&format!("many-{n:03}"), "system", "active");
    }
    let lengths: Vec<usize> = pages(&admin, "/v1/accounts").iter().map(Vec::len).collect();
    assert_eq!(lengths, [100, 7]);
    assert_eq!(pages(&admin, "/v1/accounts?limit=1000").len(), 1);
}

#[test]
fn an_account_is_made_once() {
    let server = &*SERVER;
    let admin = server.admin();
    let before = server.query_one::<i64>("SELECT count(*) FROM accounts", []);
    let make = |body: Value| admin.post("/v1/accounts").json(body);
    let made = make(json!({"username": "Once", "account_type": "human", "password": "a password for once"})).ok(201);
    assert_eq!((&made["username"], &made["roles"], &made["status"]), (&json!("once"), &json!([]), &json!("active")));
    admin.get(made.header("location").unwrap()).ok(200).is(made.json().clone());
    for (status, body) in [
        (409, json!({"username": "once", "account_type": "human", "password": "a password for once"})),
        (409, json!({"username": "ONCE", "account_type": "system"})),
        (400, json!({"username": "once", "account_type": "human", "password": "short"})),
        (400, json!({"username": "twice", "account_type": "human"})),
        (400, json!({"username": "twice", "account_type": "system", "password": "a password for once"})),
        (400, json!({"username": "twice", "account_type": "robot"})),
        (400, json!({"username": "twice", "account_type": "Human", "password": "a password for once"})),
        (400, json!({"username": "twice"})),
        (400, json!({"account_type": "system"})),
        (400, json!({"username": NO_ID, "account_type": "system"})),
        (400, json!({"username": "a b", "account_type": "system"})),
        (400, json!({"username": "", "account_type": "system"})),
        (400, json!({"username": "twice", "account_type": "system", "password": null})),
        (400, json!({"username": "twice", "account_type": "system", "roles": ["admin"]})),
        (400, json!({"username": "localhost-admin", "account_type": "human", "password": "LOCALHOST-admin"})),
    ] {
        let answer = make(body).send();
        assert_eq!(answer.status, status, "{}", answer.story());
        assert!(!answer.text("error").contains("a password for once"));
    }
    let many = support::at_once(6, |_| make(json!({"username": "raced", "account_type": "system"})).send().status);
    assert_eq!(many.iter().filter(|status| **status == 201).count(), 1, "{many:?}");
    assert_eq!(many.iter().filter(|status| **status == 409).count(), 5, "{many:?}");
    let made = "SELECT count(*) FROM accounts WHERE username IN ('once', 'raced', 'twice')";
    assert_eq!(server.query_one::<i64>(made, []), 2);
    assert!(server.query_one::<i64>("SELECT count(*) FROM accounts", []) >= before + 2);
}

#[test]
fn the_keys_are_public_and_the_same_everywhere() {
    let server = &*SERVER;
    let key = server.client().get("/v1/keys/public").ok(200);
    let names: Vec<&String> = key.json().as_object().unwrap().keys().collect();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x"]);
    assert_eq!(json!([key["kty"], key["crv"], key["use"], key["alg"]]), json!(["OKP", "Ed25519", "sig", "EdDSA"]));
    server.client().get("/.well-known/jwks.json").ok(200).is(json!({"keys": [key.json()]}));
    let stored = "SELECT public_key FROM signing_keys WHERE purpose = 'token'";
    assert_eq!(support::unb64(key.text("x")), server.query_one::<Vec<u8>>(stored, []));
    server.client().get("/v1/health").ok(200).is(json!({"status": "ok"}));
    server.client().get("/v1/ready").ok(200).is(json!({"status": "ready"}));
}
