//! `mciasdb pgcreds …`.

use super::{Command, Failure, Flag, ID, JSON, Opened, PASSWORD_STDIN, Parsed, command};
use crate::cli::{given, show, term};
use crate::model::credential::{PgCredentials, SetPgCredentials};
use crate::service::credentials;

pub(super) const GET: Command = Command {
    notes: &[
        "Prints the password in clear, after a warning on standard error. Reading it is written to the audit log.",
    ],
    flags: &[ID, JSON],
    ..command("pgcreds get", "show an account's Postgres credentials", "--config mcias.conf pgcreds get --id app", get)
};

pub(super) const SET: Command = Command {
    notes: &["The password is asked for, or read from standard input."],
    flags: &[
        ID,
        Flag::value("host", "H", "the database server's name or address").required(),
        Flag::value("port", "P", "its port, 1-65535").required(),
        Flag::value("db", "D", "the database").required(),
        Flag::value("user", "U", "the Postgres user").required(),
        PASSWORD_STDIN,
    ],
    ..command(
        "pgcreds set",
        "set a system account's Postgres credentials",
        "--config F pgcreds set --id app --host db --port 5432 --db d --user u",
        set,
    )
};

pub(super) const DELETE: Command = Command {
    flags: &[ID],
    ..command(
        "pgcreds delete",
        "remove an account's Postgres credentials",
        "--config mcias.conf pgcreds delete --id app",
        delete,
    )
};

fn get(parsed: &Parsed) -> Result<(), Failure> {
    let opened = Opened::open(parsed)?;
    let account = opened.account(parsed, false)?.id;
    let found = credentials::get_pg_credentials(&opened.service, &opened.call(), &opened.admin_or_owner(), account)?;
    opened.changed()?;
    term::err("mciasdb: warning: what follows is secret\n");
    show::pg_credentials(found, parsed.switch("json"))
}

fn set(parsed: &Parsed) -> Result<(), Failure> {
    let address = given::pg_address(parsed)?;
    let opened = Opened::open(parsed)?;
    let account = opened.account(parsed, false)?.id;
    let password = given::password(parsed, "Postgres password: ")?;
    let input = SetPgCredentials { account, credentials: PgCredentials::new(address, password)? };
    credentials::set_pg_credentials(&opened.service, &opened.call(), &opened.admin(), input)?;
    opened.changed()
}

fn delete(parsed: &Parsed) -> Result<(), Failure> {
    let opened = Opened::open(parsed)?;
    let account = opened.account(parsed, false)?.id;
    credentials::delete_pg_credentials(&opened.service, &opened.call(), &opened.admin(), account)?;
    opened.changed()
}
