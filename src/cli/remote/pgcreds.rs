//! `pgcreds …`.

use super::{ACCOUNT, Command, Failure, Flag, PASSWORD_STDIN, Parsed, Remote, command};
use crate::cli::{given, show, term};
use crate::model::credential::{PgCredentials, SetPgCredentials};
use crate::secret::Password;
use crate::wire::ops;

pub(super) const GET: Command = Command {
    notes: &["Prints the password in clear. Reading it is written to the audit log."],
    flags: &[ACCOUNT],
    ..command("pgcreds get", "show an account's Postgres credentials", "pgcreds get --account wiki", get)
};

pub(super) const SET: Command = Command {
    notes: &["The password is asked for, or read from standard input; a flag shows in the list of processes."],
    flags: &[
        ACCOUNT,
        Flag::value("host", "H", "the database server's name or address").required(),
        Flag::value("port", "P", "its port, 1-65535").required(),
        Flag::value("db", "D", "the database").required(),
        Flag::value("user", "U", "the Postgres user").required(),
        Flag::value("password", "P", "the password, for all to see"),
        PASSWORD_STDIN,
    ],
    ..command(
        "pgcreds set",
        "set a system account's Postgres credentials",
        "pgcreds set --account wiki --host db --port 5432 --db w --user w",
        set,
    )
};

pub(super) const DELETE: Command = Command {
    flags: &[ACCOUNT],
    ..command("pgcreds delete", "remove an account's Postgres credentials", "pgcreds delete --account wiki", delete)
};

fn get(parsed: &Parsed) -> Result<(), Failure> {
    let mut remote = Remote::open(parsed)?;
    let account = remote.account(ACCOUNT.name)?;
    let credentials = remote.call::<ops::GetPGCreds>(&account)?;
    show::pg_credentials(credentials, remote.json())
}

fn set(parsed: &Parsed) -> Result<(), Failure> {
    let address = given::pg_address(parsed)?;
    let in_a_flag = parsed.text("password")?;
    if in_a_flag.is_some() && parsed.switch("password-stdin") {
        return Err(parsed.usage("--password and --password-stdin exclude each other").into());
    }
    let mut remote = Remote::open(parsed)?;
    let account = remote.account(ACCOUNT.name)?;
    let password = match in_a_flag {
        Some(text) => {
            term::err(&format!(
                "{}: warning: --password shows in the list of processes; --password-stdin doesn't\n",
                parsed.role().name
            ));
            Password::new(text.to_owned())
        }
        None => given::password(parsed, "Postgres password: ")?,
    };
    let credentials = PgCredentials::new(address, password).map_err(|e| Failure::new(e.client().to_owned()))?;
    remote.call::<ops::SetPGCreds>(&SetPgCredentials { account, credentials })
}

fn delete(parsed: &Parsed) -> Result<(), Failure> {
    let mut remote = Remote::open(parsed)?;
    let account = remote.account(ACCOUNT.name)?;
    remote.call::<ops::DeletePGCreds>(&account)
}
