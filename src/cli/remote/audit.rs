//! `audit list`.

use super::{Command, Failure, Flag, Parsed, Remote, command};
use crate::cli::{given, show, term};
use crate::client::Trouble;
use crate::error::Kind;
use crate::model::account::{AccountId, AccountStatus, Page};
use crate::model::audit::EventFilter;
use crate::wire::ops;

pub(super) const LIST: Command = Command {
    notes: &["Of the events that fit all that is given, the newest; the newest of them comes last."],
    flags: &[
        Flag::value("account", "A", "with this account as actor or target, by UUID or username"),
        Flag::value("type", "T", "of this type, e.g. login_fail"),
        Flag::value("since", "TIME", "not older than this, e.g. 2026-11-21T12:00:00Z"),
        Flag::value("limit", "N", "how many at most; 50 without it"),
    ],
    ..command("audit list", "show the newest events", "audit list --account alice --type login_fail", list)
};

fn list(parsed: &Parsed) -> Result<(), Failure> {
    let limit = given::count(parsed, "limit", 50)?;
    let (event_type, since) = (given::event_type(parsed, "type")?, given::time(parsed, "since")?);
    let mut remote = Remote::open(parsed)?;
    let account = match parsed.text("account")? {
        // The log remembers those that are gone, too.
        Some(_) => Some(match remote.account("account") {
            Err(failure) if failure.code == term::FAILED => {
                remote.account_of_status("account", Some(AccountStatus::Deleted)).map_err(|_| failure)?
            }
            found => found?,
        }),
        None => None,
    };
    let (mut events, mut cursor) = (Vec::new(), None);
    while events.len() < limit {
        let left = u32::try_from(limit - events.len()).unwrap_or(u32::MAX).min(Page::MAX_LIMIT);
        let page = Page { limit: left, cursor };
        let filter = EventFilter { account, nobody: false, event_type, since, until: None, page };
        let listing = remote.call::<ops::ListEvents>(&filter)?;
        events.extend(listing.rows);
        cursor = listing.next;
        if cursor.is_none() {
            break;
        }
    }
    if let Some(id) = account
        && events.is_empty()
    {
        known(&mut remote, id)?;
    }
    events.reverse();
    show::events(&events, remote.json())
}

/// Whether there is or was an account of this id, as far as can be told: one that is gone has left events.
fn known(remote: &mut Remote, id: AccountId) -> Result<(), Failure> {
    match remote.try_call::<ops::GetAccount>(&id) {
        Err(Trouble::Refused(error)) if error.kind() == Kind::NotFound => {}
        // What else may be wrong has nothing to do with what was asked for.
        _ => return Ok(()),
    }
    let page = Page { limit: 1, cursor: None };
    let filter = EventFilter { account: Some(id), nobody: false, event_type: None, since: None, until: None, page };
    match remote.call::<ops::ListEvents>(&filter)?.rows.is_empty() {
        true => Err(Failure::new(format!("there is no account '{id}'"))),
        false => Ok(()),
    }
}
