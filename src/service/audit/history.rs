//! What the log says the accounts are: status and roles, replayed from its events, and held against the accounts
//! themselves. Of an account whose beginning was archived, only what the log still tells can be compared.

use std::collections::HashMap;

use super::reader::{Reader, Stop};
use crate::error::Result;
use crate::model::account::{AccountId, AccountStatus};
use crate::model::audit::EventType;
use crate::model::chain::Link;
use crate::service::Service;
use crate::store::{Standing, View};

/// Rows read at once.
const BATCH: u32 = 500;

/// What the comparison came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// How many accounts were held against the log.
    pub accounts: u64,
    /// Of how many the beginning was archived, so that a part only could be compared.
    pub partly: u64,
    /// What doesn't fit, a sentence each.
    pub faults: Vec<String>,
}

/// Replays the log and compares. `progress` is told how many events are done, and how many there are.
///
/// # Errors
/// Trouble with the file. What doesn't fit is no error but in the comparison; a log that can't be followed compares
/// nothing, since verifying the chain names what is wrong with it.
pub fn compare_accounts(service: &Service, progress: &mut dyn FnMut(u64, u64)) -> Result<Comparison> {
    loop {
        match compare(service, progress) {
            Ok(comparison) => return Ok(comparison),
            Err(Stop::Fault(_)) => return Ok(Comparison::default()),
            Err(Stop::Archived) => {} // with what the log tells now, then
            Err(Stop::Trouble(error)) => return Err(error),
        }
    }
}

/// An account as the log tells it.
#[derive(Default)]
struct Told {
    /// Whether the log tells of its making.
    made: bool,
    status: Option<AccountStatus>,
    /// Roles that were given, or taken, last.
    roles: Vec<(String, bool)>,
}

#[derive(Default)]
struct History(HashMap<AccountId, Told>);

fn compare(service: &Service, progress: &mut dyn FnMut(u64, u64)) -> std::result::Result<Comparison, Stop> {
    let mut reader = Reader::begin(&service.store)?;
    let is_archived = reader.anchor.is_some();
    let mut history = History::default();
    let (mut done, total) = (0, u64::try_from(reader.head).unwrap_or(0));
    while let Some(row) = reader.next_row()? {
        history.take(&row.link.ok_or_else(unreadable)?);
        done += 1;
        progress(done, total);
    }
    // What was done since, and what the accounts are, at one moment: a server may be at work.
    service.store.snapshot(|view| {
        if view.first_event()? != reader.first {
            return Ok(Err(Stop::Archived));
        }
        let mut from = reader.head.saturating_add(1);
        loop {
            let rows = view.links(from, i64::MAX, BATCH)?;
            let Some(last) = rows.last().map(|row| row.id) else { break };
            for row in rows {
                let Some(link) = row.link else { return Ok(Err(unreadable().into())) };
                history.take(&link);
            }
            from = last.saturating_add(1);
        }
        history.against(view, is_archived).map(Ok)
    })?
}

fn unreadable() -> String {
    "an event isn't as this program writes it".into()
}

impl History {
    fn take(&mut self, link: &Link) {
        let Some(event) = EventType::from_word(&link.event_type) else { return };
        let is_told = matches!(
            event,
            EventType::AccountCreated
                | EventType::AccountUpdated
                | EventType::AccountDeleted
                | EventType::RoleGranted
                | EventType::RoleRevoked
        );
        let Some(id) = link.target().and_then(AccountId::parse).filter(|_| is_told) else { return };
        let told = self.0.entry(id).or_default();
        match event {
            EventType::AccountCreated => {
                *told = Told { made: true, status: Some(AccountStatus::Active), roles: Vec::new() };
            }
            EventType::AccountUpdated => {
                let to = link.detail("changed").and_then(|changed| changed.get("status")?.get("to")?.as_str());
                told.status = to.and_then(AccountStatus::from_word).or(told.status);
            }
            EventType::AccountDeleted => {
                // It has no roles from here on, whatever it had before.
                *told = Told { made: true, status: Some(AccountStatus::Deleted), roles: Vec::new() };
            }
            _ => {
                if let Some(role) = link.detail("role").and_then(|role| role.as_str()) {
                    told.roles.retain(|(known, _)| known != role);
                    told.roles.push((role.to_owned(), event == EventType::RoleGranted));
                }
            }
        }
    }

    fn against(mut self, view: &View<'_>, is_archived: bool) -> Result<Comparison> {
        let mut comparison = Comparison::default();
        let mut after = 0;
        loop {
            let accounts = view.standings(after, BATCH)?;
            let Some(last) = accounts.last() else { break };
            after = last.row;
            for account in &accounts {
                let told = AccountId::parse(&account.id).and_then(|id| self.0.remove(&id));
                comparison.accounts += 1;
                match told {
                    None if is_archived => comparison.partly += 1,
                    None => comparison.faults.push(format!("{} was made without an event", named(account))),
                    Some(told) => {
                        comparison.partly += u64::from(!told.made);
                        told.against(account, &mut comparison.faults);
                    }
                }
            }
        }
        let mut missing: Vec<_> = self.0.into_keys().map(|id| id.to_string()).collect();
        missing.sort_unstable();
        comparison.faults.extend(missing.iter().map(|id| format!("account {id} is gone, though the log tells of it")));
        Ok(comparison)
    }
}

impl Told {
    fn against(&self, account: &Standing, faults: &mut Vec<String>) {
        let name = named(account);
        if let Some(status) = self.status.filter(|status| status.as_str() != account.status) {
            faults.push(format!("{name} is {}, but the log says {status}", account.status));
        }
        let held = |role: &str| self.roles.iter().find(|(known, _)| known == role).map(|(_, held)| *held);
        for role in &account.roles {
            // With its beginning archived, a role that nothing is told of may have been given before.
            if !held(role).unwrap_or(!self.made) {
                faults.push(format!("{name} has the role {role}, but the log says not"));
            }
        }
        for (role, _) in self.roles.iter().filter(|(role, held)| *held && !account.roles.contains(role)) {
            faults.push(format!("{name} hasn't the role {role}, but the log says so"));
        }
    }
}

fn named(account: &Standing) -> String {
    format!("account {} ({})", account.username, account.id)
}
