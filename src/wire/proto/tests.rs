//! Every message there and back; and `proto/` held against the operations.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::FileDescriptorSet;
use serde_json::json;

use super::*;
use crate::model::account::{
    Account, AccountChange, AccountFilter, AccountStatus, AccountType, Listing, NewAccount, Page, RoleName, RoleOf,
    Roles, SetRoles, Username,
};
use crate::model::audit::{Event, EventFilter, EventType, Party, Via};
use crate::model::credential::{
    ChangePassword, ConfirmTotp, EnrollTotp, PgAddress, PgCredentials, SetPassword, SetPgCredentials, TotpCode,
    TotpEnrolment,
};
use crate::model::time::{Millis, Timestamp};
use crate::model::token::{
    Audience, ExchangeToken, HealthStatus, IssueServiceToken, IssuedToken, Jti, ListTokens, Login, PublicKey,
    PublicKeys, RevokeReason, Revoked, TokenRow, ValidToken, ValidateToken, Validation, WhoAmI,
};
use crate::secret::{BearerToken, Password};
use crate::wire::inputs::NamedAccount;
use crate::wire::json::Answer;

const ID: &str = "0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11";

/// What a server makes of what a client sends says the same again.
fn sends<O: Method<Request: PartialEq>>(input: O::Input) {
    let message = input.to_message();
    let sent = message.encode_to_vec();
    let received = O::Request::decode(&*sent).unwrap();
    let Ok(read) = O::Input::from_message(received) else { panic!("{} isn't read", O::PATH) };
    assert!(read.to_message() == message, "{}", O::PATH);
}

/// What a client makes of what a server sends is, in JSON, what the server had.
fn answers<O: Method>(output: impl Fn() -> O::Output) {
    let sent = output().into_message().encode_to_vec();
    let received = O::Response::decode(&*sent).unwrap();
    let Some(read) = O::Output::from_message(received) else { panic!("{} isn't read", O::PATH) };
    let (mut read, mut had) = (read.reply(), output().reply());
    assert_eq!((read.next.take(), read.into_text()), (had.next.take(), had.into_text()), "{}", O::PATH);
}

fn password(text: &str) -> Password {
    Password::new(text.to_owned())
}

#[test]
fn the_server_reads_what_a_client_sends() {
    let account = AccountId::parse(ID).unwrap();
    let code = TotpCode::parse("012345").unwrap();
    let audience = || Audience::parse("https://a.example/?\"").unwrap();
    let username = || Username::parse("a+b@c.d").unwrap();
    let odd = "p\u{0}\"ä漢🦭";
    let page = || Page { limit: 7, cursor: Some("x-1_".into()) };
    for totp_code in [None, Some(code)] {
        let audience = totp_code.map(|_| audience());
        sends::<ops::Login>(Login { username: "A\"".into(), password: password(odd), totp_code, audience });
        sends::<ops::ChangePassword>(ChangePassword { current: password("a"), new: password(odd), totp_code });
        sends::<ops::EnrollTotp>(EnrollTotp { password: password(odd), totp_code });
    }
    sends::<ops::ConfirmTotp>(ConfirmTotp { code });
    sends::<ops::RemoveTotp>(NamedAccount(account));
    sends::<ops::ExchangeToken>(ExchangeToken { audience: audience() });
    for audience in [None, Some(audience())] {
        let token = BearerToken::new("a.b.c".into());
        sends::<ops::ValidateToken>(ValidateToken { token, audience: audience.clone(), bad_is_error: false });
        sends::<ops::IssueServiceToken>(IssueServiceToken { account, audience, overlap: 86_400 });
    }
    sends::<ops::ListTokens>(ListTokens { account, page: page() });
    sends::<ops::RevokeToken>(Jti::parse(ID).unwrap());
    sends::<ops::RevokeAllTokens>(account);
    sends::<ops::ListAccounts>(AccountFilter::default());
    sends::<ops::ListAccounts>(AccountFilter {
        username: Some(username()),
        account_type: Some(AccountType::System),
        status: Some(AccountStatus::Deleted),
        page: page(),
    });
    for (account_type, password) in [(AccountType::System, None), (AccountType::Human, Some(password(odd)))] {
        sends::<ops::CreateAccount>(NewAccount { username: username(), account_type, password });
    }
    sends::<ops::GetAccount>(account);
    sends::<ops::DeleteAccount>(account);
    for status in [AccountStatus::Active, AccountStatus::Suspended] {
        sends::<ops::UpdateAccount>(AccountChange { account, username: None, status: Some(status) });
    }
    sends::<ops::UpdateAccount>(AccountChange { account, username: Some(username()), status: None });
    sends::<ops::SetPassword>(SetPassword { account, new: password(odd) });
    sends::<ops::GetRoles>(account);
    let role = || RoleName::parse("x:y").unwrap();
    sends::<ops::SetRoles>(SetRoles { account, roles: Roles(vec![RoleName::admin(), role()]) });
    sends::<ops::GrantRole>(RoleOf { account, role: role() });
    sends::<ops::RevokeRole>(RoleOf { account, role: role() });
    let credentials = PgCredentials::new(PgAddress::parse("h", 65535, "d", "u").unwrap(), password("pä")).unwrap();
    sends::<ops::SetPGCreds>(SetPgCredentials { account, credentials });
    sends::<ops::GetPGCreds>(account);
    sends::<ops::DeletePGCreds>(account);
    sends::<ops::ListEvents>(EventFilter::default());
    sends::<ops::ListEvents>(EventFilter {
        account: Some(account),
        nobody: false,
        event_type: Some(EventType::LoginOk),
        since: Some(Timestamp::new(1)),
        until: Some(Timestamp::new(2)),
        page: page(),
    });
    let id = account.to_string();
    assert_eq!(<AccountId as Request<_>>::owner(&v1::GetPgCredsRequest { id: id.clone() }), Some(account));
    assert_eq!(ListTokens::owner(&v1::ListTokensRequest { id, page_size: -1, page_token: "?".into() }), Some(account));
}

#[test]
fn a_client_reads_what_the_server_answers() {
    let id = AccountId::parse(ID).unwrap();
    let jti = Jti::parse(ID).unwrap();
    let at = Timestamp::new(1_795_262_400);
    let (username, audience) = (|| Username::parse("alice").unwrap(), || Audience::parse("https://a.example").unwrap());
    let account = || Account {
        id,
        username: username(),
        account_type: AccountType::Human,
        status: AccountStatus::Suspended,
        totp_enabled: true,
        roles: vec![RoleName::admin(), RoleName::parse("x:y").unwrap()],
        created_at: at,
        updated_at: at.plus(1),
    };
    let key = || PublicKey { kid: "k".into(), bytes: [7; 32] };
    let issued = || IssuedToken { token: BearerToken::new("a.b.c".into()), expires_at: at };
    answers::<ops::Health>(|| HealthStatus::Ok);
    answers::<ops::GetPublicKey>(key);
    answers::<ops::ListPublicKeys>(|| PublicKeys(vec![key(), key()]));
    answers::<ops::Login>(issued);
    answers::<ops::RenewToken>(issued);
    answers::<ops::ExchangeToken>(issued);
    answers::<ops::IssueServiceToken>(issued);
    answers::<ops::Logout>(|| ());
    answers::<ops::WhoAmI>(|| WhoAmI {
        account: account(),
        expires_at: at,
        audience: audience(),
        token_roles: vec![RoleName::admin()],
    });
    answers::<ops::EnrollTotp>(|| TotpEnrolment { secret: "A".to_owned().into(), uri: "otpauth://".to_owned().into() });
    answers::<ops::ValidateToken>(|| Validation::Bad);
    answers::<ops::ValidateToken>(|| {
        Validation::Good(ValidToken {
            subject: id,
            username: username(),
            account_type: AccountType::System,
            roles: vec![RoleName::admin()],
            audience: audience(),
            expires_at: at,
            jti,
        })
    });
    let row = || TokenRow {
        jti,
        audience: audience(),
        issued_at: at,
        expires_at: at,
        revoked_at: Some(at),
        revoke_reason: Some(RevokeReason::Logout),
    };
    let live = || TokenRow { revoked_at: None, revoke_reason: None, ..row() };
    answers::<ops::ListTokens>(|| Listing { rows: vec![row(), live()], next: Some("x".into()) });
    answers::<ops::RevokeAllTokens>(|| Revoked(3));
    answers::<ops::ListAccounts>(|| Listing { rows: vec![account()], next: None });
    answers::<ops::CreateAccount>(account);
    answers::<ops::GetAccount>(account);
    answers::<ops::UpdateAccount>(account);
    answers::<ops::GetRoles>(|| Roles(vec![RoleName::admin()]));
    answers::<ops::GetPGCreds>(|| {
        PgCredentials::new(PgAddress::parse("h", 65535, "d", "u").unwrap(), password("p")).unwrap()
    });
    let details = json!({"role": "x", "count": 3, "changed": {"status": {"from": "a", "to": "b"}}, "amr": ["pwd"]});
    let event = || Event {
        id: 7,
        time: Millis::new(1_795_262_400_123),
        event_type: EventType::RoleGranted,
        via: Via::Server,
        actor: Some(Party { id, username: username() }),
        target: None,
        ip: Some("::1".into()),
        details: details.as_object().unwrap().clone(),
        hash: [1; 32],
    };
    answers::<ops::ListEvents>(|| Listing { rows: vec![Event { ip: None, ..event() }, event()], next: None });
}

#[test]
fn what_can_not_be_is_refused() {
    let unspecified = v1::CreateAccountRequest { username: "a".into(), account_type: 0, password: None };
    assert!(NewAccount::from_message(unspecified.clone()).is_err());
    assert!(NewAccount::from_message(v1::CreateAccountRequest { account_type: 77, ..unspecified }).is_err());
    let list = |page_size, status| v1::ListAccountsRequest { page_size, status, ..Default::default() };
    assert_eq!(AccountFilter::from_message(list(0, None)).unwrap().page.limit, 100);
    for bad in [list(-1, None), list(1001, None), list(0, Some(0)), list(0, Some(9))] {
        assert!(AccountFilter::from_message(bad).is_err());
    }
    let since = |seconds, nanos| v1::ListEventsRequest {
        since: Some(prost_types::Timestamp { seconds, nanos }),
        ..Default::default()
    };
    assert_eq!(EventFilter::from_message(since(5, 999_999_999)).unwrap().since, Some(Timestamp::new(5)));
    for bad in [since(5, -1), since(5, 1_000_000_000), since(i64::MAX, 0), since(i64::MIN, 0)] {
        assert!(EventFilter::from_message(bad).is_err());
    }
    // An empty string is what REST's is: no name, no code, no account.
    assert!(Login::from_message(v1::LoginRequest { totp_code: Some(String::new()), ..Default::default() }).is_err());
    assert!(ExchangeToken::from_message(v1::ExchangeTokenRequest::default()).is_err());
    let nobody = <AccountId as Request<v1::GetAccountRequest>>::from_message(v1::GetAccountRequest::default());
    assert_eq!(nobody.unwrap(), AccountId::NOBODY);
}

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(DESCRIPTORS).unwrap()
}

#[test]
fn the_files_declare_the_operations_and_nothing_else() {
    let mut declared = BTreeSet::new();
    for file in descriptors().file.iter().filter(|file| file.package() == "mcias.v1") {
        assert_eq!(file.syntax(), "proto3");
        for service in &file.service {
            assert!(SERVICES.contains(&format!("mcias.v1.{}", service.name()).as_str()));
            for method in &service.method {
                // As buf's rules have it: of its own, and called after it.
                assert_eq!(method.input_type(), format!(".mcias.v1.{}Request", method.name()));
                assert_eq!(method.output_type(), format!(".mcias.v1.{}Response", method.name()));
                assert!(!method.client_streaming() && !method.server_streaming());
                declared.insert(format!("/mcias.v1.{}/{}", service.name(), method.name()));
            }
        }
        for set in &file.enum_type {
            let zero = &set.value[0];
            assert!(zero.number() == 0 && zero.name().ends_with("_UNSPECIFIED"), "{}", set.name());
        }
    }
    let ours: BTreeSet<String> = METHODS.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(declared, ours);
    // What REST has alone is as the contract says.
    let both: BTreeSet<&str> = METHODS.iter().map(|(_, operation)| *operation).collect();
    let rest_alone: Vec<&str> = ops::ALL.iter().map(|decl| decl.name).filter(|name| !both.contains(name)).collect();
    assert_eq!(rest_alone, ["Ready", "GetOpenApi", "GuardToken", "RemoveAccountTotp"]);
}

#[test]
fn no_response_has_room_for_a_stored_secret() {
    let files = descriptors();
    let messages = files.file.iter().flat_map(|file| &file.message_type);
    let mut seen = 0;
    for message in messages.filter(|message| !message.name().ends_with("Request")) {
        for field in &message.field {
            seen += 1;
            let secret = ["password", "secret", "hash", "private", "seed", "otpauth", "token", "credential", "key"]
                .iter()
                .any(|word| field.name().contains(word));
            let allowed = matches!(
                (message.name(), field.name()),
                ("GetPGCredsResponse", "password")
                    | ("EnrollTOTPResponse", "secret" | "otpauth_uri")
                    | (
                        "LoginResponse"
                            | "RenewTokenResponse"
                            | "ExchangeTokenResponse"
                            | "IssueServiceTokenResponse",
                        "token"
                    )
                    | ("ListTokensResponse", "tokens" | "next_page_token")
                    | ("ListAccountsResponse" | "ListEventsResponse", "next_page_token")
                    | ("WhoAmIResponse", "token_roles")
                    | ("ListPublicKeysResponse", "keys")
                    // Of the chain, and public.
                    | ("Event", "hash")
            );
            assert!(!secret || allowed, "{} has {}", message.name(), field.name());
        }
    }
    assert!(seen > 60, "only {seen} fields: this test no longer reads the files right");
}
