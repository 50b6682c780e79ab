//! How each operation's input is written into a request, for clients: the other side of [`super::inputs`].

use zeroize::Zeroizing;

use super::inputs::NamedAccount;
use super::json::MAX_BODY;
use crate::model::account::{AccountChange, AccountFilter, AccountId, NewAccount, Page, RoleName, RoleOf, SetRoles};
use crate::model::audit::{EventFilter, EventType};
use crate::model::credential::{ChangePassword, ConfirmTotp, EnrollTotp, SetPassword, SetPgCredentials, TotpCode};
use crate::model::token::{
    Audience, CheckTerms, ExchangeToken, IssueServiceToken, Jti, ListTokens, Login, ValidateToken,
};

/// A request as a client writes it.
#[derive(Default)]
pub struct Request {
    /// What stands for the `{…}` segments of the path, in order, not encoded.
    pub path: Vec<String>,
    /// The query's parameters, not encoded.
    pub query: Vec<(&'static str, String)>,
    /// The JSON body, if there is one.
    pub body: Option<Zeroizing<Vec<u8>>>,
}

/// An input that can be written into a request.
pub trait ToRequest {
    /// Writes it.
    fn to_request(&self) -> Request;
}

impl ToRequest for () {
    fn to_request(&self) -> Request {
        Request::default()
    }
}

impl ToRequest for Login {
    fn to_request(&self) -> Request {
        Object::new()
            .string("username", &self.username)
            .string("password", self.password.expose())
            .optional("totp_code", self.totp_code.as_ref().map(digits))
            .optional("audience", self.audience.as_ref().map(Audience::as_str))
            .request([])
    }
}

impl ToRequest for ChangePassword {
    fn to_request(&self) -> Request {
        Object::new()
            .string("current_password", self.current.expose())
            .string("new_password", self.new.expose())
            .optional("totp_code", self.totp_code.as_ref().map(digits))
            .request([])
    }
}

impl ToRequest for EnrollTotp {
    fn to_request(&self) -> Request {
        Object::new()
            .string("password", self.password.expose())
            .optional("totp_code", self.totp_code.as_ref().map(digits))
            .request([])
    }
}

impl ToRequest for ConfirmTotp {
    fn to_request(&self) -> Request {
        Object::new().string("code", digits(&self.code)).request([])
    }
}

impl ToRequest for NamedAccount {
    fn to_request(&self) -> Request {
        Object::new().string("account_id", &self.0.to_string()).request([])
    }
}

impl ToRequest for IssueServiceToken {
    fn to_request(&self) -> Request {
        Object::new()
            .string("account_id", &self.account.to_string())
            .optional("audience", self.audience.as_ref().map(Audience::as_str))
            .integer("overlap", i64::from(self.overlap))
            .request([])
    }
}

impl ToRequest for Jti {
    fn to_request(&self) -> Request {
        at([self.to_string()])
    }
}

impl ToRequest for ExchangeToken {
    fn to_request(&self) -> Request {
        Object::new().string("audience", self.audience.as_str()).request([])
    }
}

impl ToRequest for ValidateToken {
    fn to_request(&self) -> Request {
        Object::new()
            .string("token", self.token.expose())
            .optional("audience", self.audience.as_ref().map(Audience::as_str))
            .request([])
    }
}

impl ToRequest for CheckTerms {
    fn to_request(&self) -> Request {
        let audience = self.audience.iter().map(|audience| ("audience", audience.to_string()));
        let roles = self.any_role.iter().map(|role| ("role", role.to_string()));
        Request { query: audience.chain(roles).collect(), ..Request::default() }
    }
}

impl ToRequest for NewAccount {
    fn to_request(&self) -> Request {
        Object::new()
            .string("username", self.username.as_str())
            .string("account_type", self.account_type.as_str())
            .optional("password", self.password.as_ref().map(|password| password.expose()))
            .request([])
    }
}

impl ToRequest for AccountFilter {
    fn to_request(&self) -> Request {
        let username = self.username.iter().map(|name| ("username", name.to_string()));
        let account_type = self.account_type.iter().map(|of| ("account_type", of.to_string()));
        let status = self.status.iter().map(|status| ("status", status.to_string()));
        let query = username.chain(account_type).chain(status).chain(page(&self.page));
        Request { query: query.collect(), ..Request::default() }
    }
}

impl ToRequest for AccountId {
    fn to_request(&self) -> Request {
        at([self.to_string()])
    }
}

impl ToRequest for AccountChange {
    fn to_request(&self) -> Request {
        Object::new()
            .optional("username", self.username.as_ref().map(|name| name.as_str()))
            .optional("status", self.status.map(|status| status.as_str()))
            .request([self.account.to_string()])
    }
}

impl ToRequest for SetPassword {
    fn to_request(&self) -> Request {
        Object::new().string("new_password", self.new.expose()).request([self.account.to_string()])
    }
}

impl ToRequest for SetRoles {
    fn to_request(&self) -> Request {
        let roles: Vec<&str> = self.roles.0.iter().map(RoleName::as_str).collect();
        Object::new().strings("roles", &roles).request([self.account.to_string()])
    }
}

impl ToRequest for RoleOf {
    fn to_request(&self) -> Request {
        at([self.account.to_string(), self.role.to_string()])
    }
}

impl ToRequest for ListTokens {
    fn to_request(&self) -> Request {
        Request { query: page(&self.page).collect(), ..at([self.account.to_string()]) }
    }
}

impl ToRequest for SetPgCredentials {
    fn to_request(&self) -> Request {
        let address = &self.credentials.address;
        Object::new()
            .string("host", address.host())
            .integer("port", i64::from(address.port()))
            .string("database", address.database())
            .string("username", address.username())
            .string("password", self.credentials.password().expose())
            .request([self.account.to_string()])
    }
}

impl ToRequest for EventFilter {
    fn to_request(&self) -> Request {
        let nobody = self.nobody.then_some(AccountId::NOBODY);
        let account = self.account.or(nobody).map(|account| ("account", account.to_string()));
        let event_type = self.event_type.map(|of: EventType| ("type", of.to_string()));
        let since = self.since.map(|at| ("since", at.to_string()));
        let until = self.until.map(|at| ("until", at.to_string()));
        let query = [account, event_type, since, until].into_iter().flatten().chain(page(&self.page));
        Request { query: query.collect(), ..Request::default() }
    }
}

fn at<const N: usize>(path: [String; N]) -> Request {
    Request { path: path.into(), ..Request::default() }
}

fn page(page: &Page) -> impl Iterator<Item = (&'static str, String)> {
    let cursor = page.cursor.iter().map(|cursor| ("cursor", cursor.clone())).collect::<Vec<_>>();
    std::iter::once(("limit", page.limit.to_string())).chain(cursor)
}

fn digits(code: &TotpCode) -> &str {
    // Six ASCII digits: always text.
    str::from_utf8(code.as_bytes()).unwrap_or_default()
}

/// A JSON object in the making. Any member may be a secret, so it is wiped when dropped, and as large from the start as
/// a body can get: a vector that grows leaves copies behind.
struct Object(Zeroizing<Vec<u8>>);

impl Object {
    fn new() -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BODY));
        bytes.push(b'{');
        Self(bytes)
    }

    fn member(mut self, name: &str, value: &impl serde::Serialize) -> Self {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        // Neither a vector nor text can fail to be written.
        let _ = serde_json::to_writer(&mut *self.0, name);
        self.0.push(b':');
        let _ = serde_json::to_writer(&mut *self.0, value);
        self
    }

    fn string(self, name: &str, value: &str) -> Self {
        self.member(name, &value)
    }

    fn optional(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.member(name, &value),
            None => self,
        }
    }

    fn integer(self, name: &str, value: i64) -> Self {
        self.member(name, &value)
    }

    fn strings(self, name: &str, values: &[&str]) -> Self {
        self.member(name, &values)
    }

    fn request<const N: usize>(mut self, path: [String; N]) -> Request {
        self.0.push(b'}');
        Request { body: Some(self.0), ..at(path) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::json::{FromRequest, Members, Parts, Query};
    use super::*;
    use crate::model::account::{AccountStatus, AccountType, Roles, Username};
    use crate::model::credential::{PgAddress, PgCredentials};
    use crate::model::time::Timestamp;
    use crate::secret::{BearerToken, Password};

    const ID: &str = "0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11";

    /// What the server makes of what the client writes; nothing may be left over.
    fn read<I: ToRequest + FromRequest>(input: &I) -> I {
        let request = input.to_request();
        let query: Vec<String> =
            request.query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let mut parts = Parts {
            path: request.path,
            query: Query::parse(&query.join("&")).unwrap(),
            body: request.body.map(|body| Members::parse(&body).unwrap()),
            bearer: None,
        };
        let read = I::from_request(&mut parts).unwrap_or_else(|e| panic!("{e}"));
        parts.query.finish().unwrap();
        assert!(parts.body.is_none_or(|members| members.is_empty()));
        read
    }

    fn encoded(text: &str) -> String {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    }

    fn password(text: &str) -> Password {
        Password::new(text.to_owned())
    }

    #[test]
    fn the_server_reads_what_a_client_writes() {
        let account = AccountId::parse(ID).unwrap();
        let code = TotpCode::parse("012345").unwrap();
        let audience = Audience::parse("https://a.example/?x=1&y=\" \\").unwrap();
        let odd = "p\u{0}\"\\\u{1f}ä漢🦭\n";

        let login = Login {
            username: "Alice\"".into(),
            password: password(odd),
            totp_code: Some(code),
            audience: Some(audience.clone()),
        };
        let again = read(&login);
        assert_eq!((again.username.as_str(), again.password.expose()), ("Alice\"", odd));
        assert!(again.totp_code == Some(code) && again.audience == Some(audience.clone()));
        let bare = Login { totp_code: None, audience: None, ..login };
        assert!(read(&bare).totp_code.is_none());

        let change = read(&ChangePassword { current: password("a"), new: password(odd), totp_code: Some(code) });
        assert_eq!((change.current.expose(), change.new.expose()), ("a", odd));
        assert_eq!(read(&EnrollTotp { password: password(odd), totp_code: None }).password.expose(), odd);
        assert!(read(&ConfirmTotp { code }).code == code);
        assert_eq!(read(&NamedAccount(account)).0, account);
        let issue = read(&IssueServiceToken { account, audience: Some(audience.clone()), overlap: 86_400 });
        assert_eq!((issue.account, issue.audience, issue.overlap), (account, Some(audience.clone()), 86_400));
        let jti = Jti::parse(ID).unwrap();
        assert_eq!(read(&jti), jti);
        assert_eq!(read(&ExchangeToken { audience: audience.clone() }).audience, audience);
        let validate = ValidateToken {
            token: BearerToken::new("a.b.c".into()),
            audience: Some(audience.clone()),
            bad_is_error: false,
        };
        let again = read(&validate);
        assert!(again.token.expose() == "a.b.c" && again.audience == validate.audience && !again.bad_is_error);
        let terms = read(&CheckTerms { audience: Some(audience), any_role: vec![RoleName::parse("a:b").unwrap()] });
        assert_eq!(terms.any_role.len(), 1);

        let username = Username::parse("a+b@c.d").unwrap();
        let new =
            NewAccount { username: username.clone(), account_type: AccountType::Human, password: Some(password(odd)) };
        assert_eq!(read(&new).password.unwrap().expose(), odd);
        let page = Page { limit: 7, cursor: Some("x-1_".into()) };
        let filter = AccountFilter {
            username: Some(username.clone()),
            account_type: Some(AccountType::System),
            status: Some(AccountStatus::Deleted),
            page: page.clone(),
        };
        let again = read(&filter);
        assert_eq!(
            (again.username, again.account_type, again.status, again.page.limit, again.page.cursor),
            (filter.username, filter.account_type, filter.status, 7, page.cursor.clone())
        );
        assert_eq!(read(&account), account);
        let change = read(&AccountChange { account, username: Some(username), status: Some(AccountStatus::Suspended) });
        assert!(change.username.is_some() && change.status == Some(AccountStatus::Suspended));
        assert_eq!(read(&SetPassword { account, new: password(odd) }).new.expose(), odd);
        let roles = Roles::new(vec![RoleName::admin(), RoleName::parse("x:y").unwrap()]).unwrap();
        assert_eq!(read(&SetRoles { account, roles: roles.clone() }).roles, roles);
        assert!(read(&SetRoles { account, roles: Roles(vec![]) }).roles.0.is_empty());
        let role = read(&RoleOf { account, role: RoleName::parse("x:y").unwrap() });
        assert_eq!((role.account, role.role.as_str()), (account, "x:y"));
        assert_eq!(read(&ListTokens { account, page: page.clone() }).page.cursor, page.cursor);
        let address = PgAddress::parse("db \"x\"", 5432, "d", "u").unwrap();
        let credentials = PgCredentials::new(address.clone(), password("p\"ä")).unwrap();
        let again = read(&SetPgCredentials { account, credentials }).credentials;
        assert!(again.address == address && again.password().expose() == "p\"ä");
        let filter = EventFilter {
            account: Some(account),
            nobody: false,
            event_type: Some(EventType::LoginOk),
            since: Some(Timestamp::new(1)),
            until: Some(Timestamp::new(2)),
            page,
        };
        let again = read(&filter);
        assert_eq!(
            (again.account, again.event_type, again.since, again.until),
            (filter.account, filter.event_type, filter.since, filter.until)
        );
        assert_eq!(read(&EventFilter { account: None, nobody: true, ..filter }).account, Some(AccountId::NOBODY));
    }
}
