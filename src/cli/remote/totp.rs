//! `totp …`.

use std::io::{self, IsTerminal};

use super::session::code_where_needed;
use super::{ACCOUNT, Command, Failure, Flag, PASSWORD_STDIN, Parsed, Remote, command, qr};
use crate::cli::{given, show, term};
use crate::model::credential::{ConfirmTotp, EnrollTotp};
use crate::wire::inputs::NamedAccount;
use crate::wire::ops;

pub(super) const ENROLL: Command = Command {
    notes: &[
        "Prints the otpauth URI, on a terminal with its QR code. Nothing changes until 'totp confirm', which has to come \
         within 10 minutes. Where codes are on already, a code of the old device is needed, and confirming replaces it.",
    ],
    flags: &[Flag::value("totp", "CODE", "a code of the old device"), PASSWORD_STDIN],
    ..command("totp enroll", "get the secret for one-time codes", "totp enroll", enroll)
};

pub(super) const CONFIRM: Command = Command {
    notes: &["From now on a login needs a code. Your other tokens are revoked."],
    flags: &[Flag::value("code", "C", "the first code").required()],
    ..command("totp confirm", "turn one-time codes on", "totp confirm --code 123456", confirm)
};

pub(super) const REMOVE: Command = Command {
    notes: &["For a lost device. The account's tokens are revoked."],
    flags: &[ACCOUNT],
    ..command("totp remove", "turn one-time codes off for an account", "totp remove --account alice", remove)
};

fn enroll(parsed: &Parsed) -> Result<(), Failure> {
    let code = given::code(parsed, "totp")?;
    let mut remote = Remote::open(parsed)?;
    let password = given::password(parsed, "Password: ")?;
    let totp_code = code_where_needed(&mut remote, code)?;
    let enrolment = remote.call::<ops::EnrollTotp>(&EnrollTotp { password, totp_code })?;
    if remote.json() {
        return show::json(enrolment);
    }
    if io::stdout().is_terminal() {
        if let Some(picture) = qr::draw(&enrolment.uri, term::colour(&io::stdout())) {
            term::out(&picture)?;
        }
        term::err(&format!(
            "Scan it, or type in {}; then: {} totp confirm --code CODE\n",
            *enrolment.secret,
            parsed.called_as()
        ));
    }
    term::out(&format!("{}\n", *enrolment.uri))
}

fn confirm(parsed: &Parsed) -> Result<(), Failure> {
    let code = given::required(parsed, "code", given::code)?;
    Remote::open(parsed)?.call::<ops::ConfirmTotp>(&ConfirmTotp { code })
}

fn remove(parsed: &Parsed) -> Result<(), Failure> {
    let mut remote = Remote::open(parsed)?;
    let account = remote.account(ACCOUNT.name)?;
    remote.call::<ops::RemoveTotp>(&NamedAccount(account))
}
