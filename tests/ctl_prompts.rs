//! What `mciasctl` asks on a terminal: by somebody who sits there, over REST and over gRPC.

mod support;

#[path = "../src/testing.rs"]
mod testing;

use support::{MCIAS, Server, Terminal};

/// The program on a terminal, logged in as the admin or not yet; both doors take turns.
struct Desk {
    server: Server,
    over_grpc: bool,
}

impl Desk {
    fn each(test: &str, work: impl Fn(&Self)) {
        if !Terminal::is_possible() {
            return testing::not_run(test, "there is no script, of util-linux");
        }
        for over_grpc in [false, true] {
            let server = Server::start();
            std::fs::create_dir(server.path("home")).unwrap();
            work(&Self { server, over_grpc });
        }
    }

    fn on_a_terminal(&self, arguments: &str) -> Terminal {
        let role = if self.over_grpc { "grpcctl" } else { "ctl" };
        let address = match self.over_grpc {
            true => format!("localhost:{}", self.server.grpc_address().port()),
            false => format!("https://localhost:{}", self.server.door().address().unwrap().port()),
        };
        let line = format!("exec '{MCIAS}' {role} {arguments}");
        Terminal::of(&line, self.server.path("terminal"), |command| {
            command.env("MCIAS_SERVER", &address).env("MCIAS_CACERT", self.server.path("tls/ca.crt"));
            command.env("HOME", self.server.path("home")).env("NO_COLOR", "1").env_remove("XDG_CONFIG_HOME");
            command.env_remove("MCIAS_GRPC_SERVER").env_remove("MCIAS_TOKEN").env_remove("MCIAS_ADMIN_TOKEN");
            command.current_dir(self.server.folder());
        })
    }

    /// Logs the admin in, who saves the token.
    fn log_in(&self) {
        let mut terminal = self.on_a_terminal("login --save");
        terminal.shows("Username: ");
        terminal.types("admin\n");
        terminal.shows("Password: ");
        terminal.types_unseen(&self.server.admin_password());
        terminal.shows("One-time code (empty for none): ");
        terminal.types("\n");
        let (code, shown) = terminal.ends();
        assert_eq!(code, Some(0), "{shown}");
        assert!(shown.contains("saved; good until") && !shown.contains("eyJ"), "a saved token isn't shown: {shown}");
        assert!(!shown.contains(&self.server.admin_password()), "{shown}");
    }
}

#[test]
fn a_login_asks_for_name_password_and_code() {
    Desk::each("a_login_asks_for_name_password_and_code", |desk| {
        desk.log_in();
        let mut terminal = desk.on_a_terminal("login --username admin");
        terminal.shows("Password: ");
        terminal.types_unseen("not the password");
        terminal.shows("One-time code (empty for none): ");
        terminal.types("123456\n");
        let (code, shown) = terminal.ends();
        assert_eq!(code, Some(3), "{shown}");
        assert!(shown.contains("the login was refused"), "{shown}");
        // And one that prints the token, since it isn't saved.
        let mut terminal = desk.on_a_terminal("login --username admin --totp 123456");
        terminal.shows("Password: ");
        terminal.types_unseen(&desk.server.admin_password());
        let (code, shown) = terminal.ends();
        assert!(code == Some(0) && shown.contains("eyJ"), "no second question for the code that was given: {shown}");
    });
}

#[test]
fn a_password_is_changed_only_where_both_times_it_is_the_same() {
    Desk::each("a_password_is_changed_only_where_both_times_it_is_the_same", |desk| {
        desk.log_in();
        let change = |again: &str| {
            let mut terminal = desk.on_a_terminal("password change");
            terminal.shows("Current password: ");
            terminal.types_unseen(&desk.server.admin_password());
            terminal.shows("New password: ");
            terminal.types_unseen("a walrus drinks cold tea");
            terminal.shows("The same again: ");
            terminal.types_unseen(again);
            terminal.ends()
        };
        let (code, shown) = change("a walrus drinks hot tea");
        assert!(code == Some(1) && shown.contains("the two passwords differ; nothing was changed"), "{shown}");
        desk.server.login("admin", &desk.server.admin_password());
        let (code, shown) = change("a walrus drinks cold tea");
        assert!(code == Some(0) && !shown.contains("walrus"), "{shown}");
        desk.server.login("admin", "a walrus drinks cold tea");
    });
}

#[test]
fn deleting_is_asked_about() {
    Desk::each("deleting_is_asked_about", |desk| {
        desk.log_in();
        desk.server.system("wiki");
        for (answer, code, left) in [("y", 1, true), ("yes", 0, false)] {
            let mut terminal = desk.on_a_terminal("account delete --id wiki");
            terminal.shows("Type 'yes': ");
            terminal.types(&format!("{answer}\n"));
            let (ended, shown) = terminal.ends();
            assert_eq!(ended, Some(code), "{shown}");
            let there = "SELECT count(*) FROM accounts WHERE username = 'wiki' AND status = 'active'";
            assert_eq!(desk.server.query_one::<i64>(there, []), i64::from(left));
        }
    });
}

#[test]
fn a_qr_code_is_drawn_on_a_terminal() {
    Desk::each("a_qr_code_is_drawn_on_a_terminal", |desk| {
        desk.log_in();
        let mut terminal = desk.on_a_terminal("totp enroll");
        terminal.shows("Password: ");
        terminal.types_unseen(&desk.server.admin_password());
        let (code, shown) = terminal.ends();
        assert_eq!(code, Some(0), "{shown}");
        assert!(shown.contains("████") && shown.contains("otpauth://totp/"), "{shown}");
        assert!(shown.contains("totp confirm --code CODE"), "what comes next is said: {shown}");
    });
}
