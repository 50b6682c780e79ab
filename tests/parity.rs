//! One day of an admin, a person and a program, lived twice: through REST on one instance and through gRPC on another.
//! What comes of each call, every error and every event of the audit log have to be the same, and every operation that
//! both doors have is in it.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mcias::client::{self, Callable, Protocol, Trouble, Trust};
use mcias::crypto::totp;
use mcias::model::account::{
    AccountChange, AccountFilter, AccountId, AccountStatus, AccountType, NewAccount, Page, RoleName, RoleOf, Roles,
    SetRoles, Username,
};
use mcias::model::audit::{EventFilter, EventType};
use mcias::model::credential::{
    ChangePassword, ConfirmTotp, EnrollTotp, PgAddress, PgCredentials, SetPassword, SetPgCredentials, TotpCode,
};
use mcias::model::time::Timestamp;
use mcias::model::token::{Audience, ExchangeToken, IssueServiceToken, Jti, ListTokens, Login, ValidateToken};
use mcias::secret::{BearerToken, Password};
use mcias::wire::fault;
use mcias::wire::inputs::NamedAccount;
use mcias::wire::json::Answer;
use mcias::wire::ops;
use mcias::wire::proto::METHODS;
use serde_json::{Value, json};
use support::{Server, claims_of, now};

const NOBODY: &str = "0194e2f0-7d3a-4c1e-9b52-2f6d0a4c8e11";

/// A door, what came of all that was asked there, and the names for what differs from one instance to the next.
struct Day<'a> {
    server: &'a Server,
    client: client::Client,
    told: Vec<String>,
    called: BTreeSet<&'static str>,
    ids: BTreeMap<String, usize>,
}

impl<'a> Day<'a> {
    fn new(server: &'a Server, protocol: Protocol) -> Self {
        let address = match protocol {
            Protocol::Rest => client::Server::parse_url(&format!("https://localhost:{}", rest_port(server))),
            Protocol::Grpc => client::Server::parse_authority(&format!("localhost:{}", server.grpc_address().port())),
        };
        let trust = Trust::file(&server.path("tls/ca.crt")).unwrap();
        let client = client::Client::new(protocol, address.unwrap(), &trust, "parity", Duration::from_secs(60));
        Self { server, client: client.unwrap(), told: Vec::new(), called: BTreeSet::new(), ids: BTreeMap::new() }
    }

    /// Asks, and notes what comes of it; gives the answer, `null` for an error.
    #[track_caller]
    fn call<O: Callable>(&mut self, token: &str, input: O::Input) -> Value {
        self.called.insert(O::DECL.name);
        let bearer = BearerToken::new(token.to_owned());
        let came = self.client.call::<O>(Some(&bearer).filter(|_| !token.is_empty()), &input);
        let (answer, told) = match came {
            Ok(output) => {
                let reply = output.reply();
                // What a cursor is may differ, but not whether there is one.
                let answer = json!({"body": reply.body, "next": reply.next});
                let mut told = self.alike(answer.clone());
                told["next"] = json!(reply.next.is_some());
                (answer, told.to_string())
            }
            Err(Trouble::Refused(error)) => {
                let code = fault::of(error.kind()).code;
                (Value::Null, format!("{code}: {} {:?}", error.client(), error.retry_after()))
            }
            Err(trouble) => panic!("{}: {trouble}\n{}", O::DECL.name, self.server.log().tail()),
        };
        self.told.push(format!("{} {told}", O::DECL.name));
        answer
    }

    /// The same, and insists on success; gives the body.
    #[track_caller]
    fn ok<O: Callable>(&mut self, token: &str, input: O::Input) -> Value {
        let answer = self.call::<O>(token, input);
        assert!(!answer.is_null(), "{}", self.told.last().unwrap());
        answer["body"].clone()
    }

    /// The same, and insists on this error.
    #[track_caller]
    fn no<O: Callable>(&mut self, code: &str, token: &str, input: O::Input) {
        self.call::<O>(token, input);
        let told = self.told.last().unwrap();
        assert!(told.starts_with(&format!("{} {code}: ", O::DECL.name)), "{code}, but {told}");
    }

    /// A value without what differs from one instance to the next: ids by the order in which they were met, and times,
    /// tokens, secrets and keys by what they are.
    fn alike(&mut self, value: Value) -> Value {
        match value {
            Value::Object(members) => {
                let alike = |(name, value): (String, Value)| {
                    let differs = matches!(
                        name.as_str(),
                        "time"
                            | "time_ms"
                            | "created_at"
                            | "updated_at"
                            | "issued_at"
                            | "expires_at"
                            | "revoked_at"
                            | "token"
                            | "secret"
                            | "otpauth_uri"
                            | "hash"
                            | "kid"
                            | "x"
                    );
                    let value = if differs && !value.is_null() { json!(name) } else { self.alike(value) };
                    (name, value)
                };
                Value::Object(members.into_iter().map(alike).collect())
            }
            Value::Array(items) => items.into_iter().map(|item| self.alike(item)).collect(),
            Value::String(text) if uuid::Uuid::parse_str(&text).is_ok() => {
                let next = self.ids.len();
                json!(format!("id {}", self.ids.entry(text).or_insert(next)))
            }
            other => other,
        }
    }

    /// Every event, without what differs.
    fn events(&mut self) -> Vec<String> {
        let events = self.server.events().into_iter();
        events
            .map(|event| {
                let parties = [&event.actor["username"], &event.target["username"]].map(Value::clone);
                let told = json!([event.kind, event.via, parties, event.ip, self.alike(event.details)]);
                told.to_string()
            })
            .collect()
    }
}

fn rest_port(server: &Server) -> u16 {
    server.door().address().unwrap().port()
}

fn account(id: &Value) -> AccountId {
    AccountId::parse(id["id"].as_str().unwrap()).unwrap()
}

fn token(issued: &Value) -> String {
    issued["token"].as_str().unwrap().to_owned()
}

fn jti(token: &str) -> Jti {
    Jti::parse(claims_of(token)["jti"].as_str().unwrap()).unwrap()
}

fn name(text: &str) -> Username {
    Username::parse(text).unwrap()
}

fn role(text: &str) -> RoleName {
    RoleName::parse(text).unwrap()
}

fn secret(text: &str) -> Password {
    Password::new(text.to_owned())
}

fn login(username: &str, password: &str) -> Login {
    Login { username: username.into(), password: secret(password), totp_code: None, audience: None }
}

fn human(username: &str, password: Option<&str>) -> NewAccount {
    NewAccount { username: name(username), account_type: AccountType::Human, password: password.map(secret) }
}

fn program(username: &str, password: Option<&str>) -> NewAccount {
    NewAccount { account_type: AccountType::System, ..human(username, password) }
}

fn change(account: AccountId, username: Option<&str>, status: Option<AccountStatus>) -> AccountChange {
    AccountChange { account, username: username.map(name), status }
}

fn page(limit: u32, cursor: Option<&str>) -> Page {
    Page { limit, cursor: cursor.map(str::to_owned) }
}

/// The whole day.
fn live(day: &mut Day<'_>) {
    let nobody = AccountId::parse(NOBODY).unwrap();
    let admins = day.server.admin_password();
    let (first, second) = ("a walrus drinks cold tea", "a heron sleeps on one leg");

    // Anybody.
    day.ok::<ops::Health>("", ());
    day.ok::<ops::GetPublicKey>("", ());
    day.ok::<ops::ListPublicKeys>("", ());
    for (username, password) in [("admin", "wrong"), ("nobody", &*admins), ("", ""), ("a b", "x"), ("admin", "")] {
        day.no::<ops::Login>("unauthorized", "", login(username, password));
    }
    let admin = token(&day.ok::<ops::Login>("", login("Admin", &admins)));
    for bad in ["", "garbage", "a.b.c"] {
        day.no::<ops::WhoAmI>("unauthorized", bad, ());
        day.no::<ops::Logout>("unauthorized", bad, ());
        day.no::<ops::ListAccounts>("unauthorized", bad, AccountFilter::default());
    }
    let me = day.ok::<ops::WhoAmI>(&admin, ());

    // Accounts.
    let alice = account(&day.ok::<ops::CreateAccount>(&admin, human("alice", Some(first))));
    let bob = account(&day.ok::<ops::CreateAccount>(&admin, human("bob", Some(first))));
    let robot = account(&day.ok::<ops::CreateAccount>(&admin, program("robot", None)));
    day.no::<ops::CreateAccount>("conflict", &admin, human("alice", Some(first)));
    for bad in [human("carol", None), human("carol", Some("short")), program("carol", Some(first))] {
        day.no::<ops::CreateAccount>("invalid_request", &admin, bad);
    }
    day.ok::<ops::GetAccount>(&admin, alice);
    day.no::<ops::GetAccount>("not_found", &admin, nobody);
    let mut cursor = None;
    for n in 0..2 {
        let filter = AccountFilter { page: Page { limit: 2, cursor }, ..Default::default() };
        let listed = day.call::<ops::ListAccounts>(&admin, filter);
        cursor = listed["next"].as_str().map(str::to_owned);
        assert_eq!(cursor.is_some(), n == 0);
    }
    let filter = |username: Option<&str>, account_type, status| AccountFilter {
        username: username.map(name),
        account_type,
        status,
        ..Default::default()
    };
    day.ok::<ops::ListAccounts>(&admin, filter(Some("bob"), None, None));
    day.ok::<ops::ListAccounts>(&admin, filter(None, Some(AccountType::System), Some(AccountStatus::Active)));
    day.ok::<ops::ListAccounts>(&admin, filter(None, None, Some(AccountStatus::Deleted)));
    let lost = AccountFilter { page: page(5, Some("lost")), ..Default::default() };
    day.no::<ops::ListAccounts>("invalid_request", &admin, lost);
    day.ok::<ops::UpdateAccount>(&admin, change(bob, Some("bobby"), Some(AccountStatus::Suspended)));
    day.ok::<ops::UpdateAccount>(&admin, change(bob, Some("bobby"), None));
    day.no::<ops::Login>("unauthorized", "", login("bobby", first));
    day.ok::<ops::UpdateAccount>(&admin, change(bob, None, Some(AccountStatus::Active)));
    day.no::<ops::UpdateAccount>("conflict", &admin, change(bob, Some("alice"), None));
    day.no::<ops::UpdateAccount>("not_found", &admin, change(nobody, Some("carol"), None));
    day.no::<ops::UpdateAccount>("invalid_request", &admin, change(bob, None, Some(AccountStatus::Deleted)));
    day.no::<ops::UpdateAccount>("conflict", &admin, change(account(&me), None, Some(AccountStatus::Suspended)));
    day.no::<ops::DeleteAccount>("conflict", &admin, account(&me));

    // Roles.
    let roles = |account, names: &[&str]| SetRoles { account, roles: Roles(names.iter().map(|n| role(n)).collect()) };
    let role_of = |account, text: &str| RoleOf { account, role: role(text) };
    day.ok::<ops::SetRoles>(&admin, roles(alice, &["dev", "ops"]));
    day.ok::<ops::SetRoles>(&admin, roles(alice, &["ops", "wiki:write"]));
    day.ok::<ops::GrantRole>(&admin, role_of(alice, "dev"));
    day.ok::<ops::GrantRole>(&admin, role_of(alice, "dev"));
    day.ok::<ops::RevokeRole>(&admin, role_of(alice, "ops"));
    day.ok::<ops::RevokeRole>(&admin, role_of(alice, "ops"));
    let held = day.ok::<ops::GetRoles>(&admin, alice);
    assert_eq!(held, json!({"roles": ["dev", "wiki:write"]}));
    day.no::<ops::GetRoles>("not_found", &admin, nobody);
    day.no::<ops::GrantRole>("not_found", &admin, role_of(nobody, "dev"));
    day.no::<ops::RevokeRole>("conflict", &admin, role_of(account(&me), "admin"));
    day.no::<ops::SetRoles>("conflict", &admin, roles(account(&me), &[]));
    let many: Vec<String> = (0..32).map(|n| format!("r{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    day.ok::<ops::SetRoles>(&admin, roles(bob, &many));
    day.no::<ops::GrantRole>("conflict", &admin, role_of(bob, "one-more"));

    // A person.
    let session = token(&day.ok::<ops::Login>("", login("alice", first)));
    for forbidden in [nobody, bob] {
        day.no::<ops::GetAccount>("forbidden", &session, forbidden);
        day.no::<ops::ListTokens>("forbidden", &session, ListTokens { account: forbidden, page: page(5, Some("x")) });
        day.no::<ops::RevokeAllTokens>("forbidden", &session, forbidden);
        day.no::<ops::GetPGCreds>("forbidden", &session, forbidden);
    }
    day.no::<ops::GetPGCreds>("forbidden", &session, alice);
    day.no::<ops::RemoveTotp>("forbidden", &session, NamedAccount(alice));
    day.no::<ops::ListEvents>("forbidden", &session, EventFilter::default());
    day.ok::<ops::SetPassword>(&admin, SetPassword { account: alice, new: secret(second) });
    day.no::<ops::WhoAmI>("unauthorized", &session, ());
    day.no::<ops::SetPassword>("invalid_request", &admin, SetPassword { account: alice, new: secret("alice") });
    day.no::<ops::SetPassword>("conflict", &admin, SetPassword { account: robot, new: secret(second) });
    day.no::<ops::SetPassword>("not_found", &admin, SetPassword { account: nobody, new: secret(second) });
    let (session, other) = (
        token(&day.ok::<ops::Login>("", login("alice", second))),
        token(&day.ok::<ops::Login>("", login("alice", second))),
    );
    let password = |current: &str, new: &str| ChangePassword {
        current: secret(current),
        new: secret(new),
        totp_code: TotpCode::parse("123456").ok(),
    };
    day.no::<ops::ChangePassword>("forbidden", &session, password("wrong", first));
    day.no::<ops::ChangePassword>("invalid_request", &session, password(second, "short"));
    day.ok::<ops::ChangePassword>(&session, password(second, first));
    day.no::<ops::WhoAmI>("unauthorized", &other, ());

    // Tokens.
    let audience = || Audience::parse("https://files.example.com").unwrap();
    let validate = |token: &str, audience| ValidateToken {
        token: BearerToken::new(token.to_owned()),
        audience,
        bad_is_error: false,
    };
    let files = token(&day.ok::<ops::ExchangeToken>(&session, ExchangeToken { audience: audience() }));
    day.no::<ops::WhoAmI>("unauthorized", &files, ());
    day.no::<ops::ExchangeToken>("unauthorized", &files, ExchangeToken { audience: audience() });
    for (token, audience) in [(&*files, Some(audience())), (&files, None), (&session, Some(audience())), ("x", None)] {
        day.ok::<ops::ValidateToken>("", validate(token, audience));
    }
    day.ok::<ops::Logout>(&files, ());
    day.no::<ops::Logout>("unauthorized", &files, ());
    assert_eq!(day.ok::<ops::ValidateToken>("", validate(&files, None)), json!({"valid": false}));
    let renewed = token(&day.ok::<ops::RenewToken>(&session, ()));
    day.no::<ops::RenewToken>("unauthorized", &session, ());
    let elsewhere = Login { audience: Some(audience()), ..login("alice", first) };
    let elsewhere = token(&day.ok::<ops::Login>("", elsewhere));
    day.no::<ops::RenewToken>("unauthorized", &elsewhere, ());
    let mut cursor = None;
    for _ in 0..3 {
        let tokens = ListTokens { account: alice, page: Page { limit: 2, cursor } };
        cursor = day.call::<ops::ListTokens>(&renewed, tokens)["next"].as_str().map(str::to_owned);
    }
    day.no::<ops::ListTokens>("invalid_request", &renewed, ListTokens { account: alice, page: page(5, Some("?")) });
    day.no::<ops::ListTokens>("not_found", &admin, ListTokens { account: nobody, page: page(5, None) });
    day.no::<ops::RevokeToken>("not_found", &renewed, jti(&admin));
    day.no::<ops::RevokeToken>("not_found", &renewed, Jti::parse(NOBODY).unwrap());
    day.ok::<ops::RevokeToken>(&renewed, jti(&elsewhere));
    day.ok::<ops::RevokeToken>(&admin, jti(&elsewhere));

    // A program.
    let issue = |account, audience, overlap| IssueServiceToken { account, audience, overlap };
    let service = token(&day.ok::<ops::IssueServiceToken>(&admin, issue(robot, None, 0)));
    let next = token(&day.ok::<ops::IssueServiceToken>(&admin, issue(robot, None, 3600)));
    day.ok::<ops::WhoAmI>(&service, ());
    day.ok::<ops::IssueServiceToken>(&admin, issue(robot, Some(audience()), 0));
    day.no::<ops::IssueServiceToken>("conflict", &admin, issue(alice, None, 0));
    day.no::<ops::IssueServiceToken>("not_found", &admin, issue(nobody, None, 0));
    day.no::<ops::RenewToken>("forbidden", &next, ());
    day.no::<ops::ChangePassword>("forbidden", &next, password(first, second));
    day.no::<ops::EnrollTotp>("forbidden", &next, EnrollTotp { password: secret(first), totp_code: None });
    day.no::<ops::Login>("unauthorized", "", login("robot", first));
    let creds = |account| {
        let address = PgAddress::parse("db.internal", 5432, "app", "app").unwrap();
        SetPgCredentials { account, credentials: PgCredentials::new(address, secret("pg-s3cret ä")).unwrap() }
    };
    day.no::<ops::GetPGCreds>("not_found", &next, robot);
    day.ok::<ops::SetPGCreds>(&admin, creds(robot));
    day.no::<ops::SetPGCreds>("forbidden", &next, creds(robot));
    day.no::<ops::SetPGCreds>("conflict", &admin, creds(alice));
    day.no::<ops::SetPGCreds>("not_found", &admin, creds(nobody));
    let got = day.ok::<ops::GetPGCreds>(&next, robot);
    assert_eq!(got["password"], "pg-s3cret ä");
    day.ok::<ops::GetPGCreds>(&admin, robot);
    day.ok::<ops::DeletePGCreds>(&admin, robot);
    day.no::<ops::DeletePGCreds>("not_found", &admin, robot);
    let gone = day.ok::<ops::RevokeAllTokens>(&next, robot);
    assert_eq!(gone, json!({"revoked": 3}));

    // One-time codes.
    let confirm = |code: TotpCode| ConfirmTotp { code };
    let enroll = |password: &str, totp_code| EnrollTotp { password: secret(password), totp_code };
    let step = totp::step_at(Timestamp::new(now()));
    day.no::<ops::ConfirmTotp>("conflict", &renewed, confirm(TotpCode::parse("000000").unwrap()));
    day.no::<ops::EnrollTotp>("forbidden", &renewed, enroll("wrong", None));
    let enrolled = day.ok::<ops::EnrollTotp>(&renewed, enroll(first, None));
    let seed = base32(enrolled["secret"].as_str().unwrap());
    let code = |offset: i64| totp::code_at(&seed, step + offset);
    let wrong = (0..).map(|n| TotpCode::parse(&format!("{n:06}")).unwrap());
    let wrong = wrong.into_iter().find(|wrong| (-9..9).all(|n| code(n).as_bytes() != wrong.as_bytes())).unwrap();
    day.no::<ops::ConfirmTotp>("forbidden", &renewed, confirm(wrong));
    day.ok::<ops::ConfirmTotp>(&renewed, confirm(code(0)));
    let with = |code: TotpCode| Login { totp_code: Some(code), ..login("alice", first) };
    day.no::<ops::Login>("unauthorized", "", login("alice", first));
    day.no::<ops::Login>("unauthorized", "", with(code(0)));
    let session = token(&day.ok::<ops::Login>("", with(code(1))));
    day.no::<ops::EnrollTotp>("forbidden", &session, enroll(first, None));
    day.no::<ops::ChangePassword>("forbidden", &session, ChangePassword { totp_code: None, ..password(first, second) });
    for _ in 0..6 {
        day.no::<ops::Login>("unauthorized", "", with(wrong));
    }
    day.ok::<ops::RemoveTotp>(&admin, NamedAccount(alice));
    day.ok::<ops::RemoveTotp>(&admin, NamedAccount(alice));
    day.no::<ops::RemoveTotp>("not_found", &admin, NamedAccount(nobody));
    day.no::<ops::WhoAmI>("unauthorized", &session, ());
    day.ok::<ops::Login>("", login("alice", first));

    // The end, and what the log says of it all.
    day.ok::<ops::DeleteAccount>(&admin, alice);
    day.no::<ops::DeleteAccount>("not_found", &admin, alice);
    day.no::<ops::Login>("unauthorized", "", login("alice", first));
    let events = |event_type, account: Option<AccountId>, limit| EventFilter {
        nobody: false,
        account,
        event_type,
        since: Some(Timestamp::new(now() - 3600)),
        until: Some(Timestamp::new(now() + 3600)),
        page: page(limit, None),
    };
    day.ok::<ops::ListEvents>(&admin, events(None, None, 1000));
    day.ok::<ops::ListEvents>(&admin, events(Some(EventType::LoginTotpFail), None, 3));
    day.ok::<ops::ListEvents>(&admin, events(None, Some(bob), 1000));
    day.ok::<ops::ListEvents>(&admin, EventFilter { until: Some(Timestamp::new(1)), ..events(None, None, 5) });
    day.ok::<ops::ListEvents>(&admin, EventFilter { nobody: true, ..events(None, None, 5) });
    let lost = EventFilter { page: page(5, Some("lost")), ..events(None, None, 5) };
    day.no::<ops::ListEvents>("invalid_request", &admin, lost);
    day.ok::<ops::Logout>(&admin, ());
    day.no::<ops::Logout>("unauthorized", &admin, ());
}

fn base32(text: &str) -> Vec<u8> {
    let bits = text.bytes().flat_map(|c| {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|known| *known == c).expect("base32");
        (0..5).rev().map(move |n| value >> n & 1)
    });
    let bits: Vec<usize> = bits.collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |value, bit| value << 1 | *bit as u8)).collect()
}

#[test]
fn a_day_through_rest_and_a_day_through_grpc_come_to_the_same() {
    let lived = support::at_once(2, |n| {
        let server = Server::start();
        let mut day = Day::new(&server, [Protocol::Rest, Protocol::Grpc][n]);
        live(&mut day);
        let events = day.events();
        server.is_sound();
        (day.told, events, day.called)
    });
    let [(rest, rest_events, _), (grpc, grpc_events, called)] = <[_; 2]>::try_from(lived).ok().unwrap();
    for (rest, grpc) in [(rest, grpc), (rest_events, grpc_events)] {
        for (n, (rest, grpc)) in rest.iter().zip(&grpc).enumerate() {
            assert_eq!(grpc, rest, "number {n}: over gRPC (left) and over REST (right)");
        }
        assert_eq!(grpc.len(), rest.len());
        assert!(rest.len() > 80, "{}", rest.len());
    }
    let both: BTreeSet<&str> = METHODS.iter().map(|(_, operation)| *operation).collect();
    assert_eq!(called, both, "every operation that both doors have is in the script");
}
