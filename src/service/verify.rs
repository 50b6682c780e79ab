//! Whether a database is all that it should be: the file, what points to what, every sealed value, the audit chain, and
//! the accounts as the log tells them. Changes nothing.

use super::audit::{self, Comparison};
use super::{Service, rekey};
use crate::error::Result;
use crate::store::SealedColumn;

/// Is told what is being done, how much of it is, and of how much.
pub type Progress<'p> = &'p mut dyn FnMut(&'static str, u64, u64);

/// How many values are opened from one reading.
const BATCH: u32 = 500;

/// How many faults are named.
const NAMED: usize = 10;

/// What verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many sealed values open.
    pub values: u64,
    /// The audit log.
    pub log: audit::Report,
    /// The accounts, held against the log.
    pub accounts: Comparison,
    /// The first things that are wrong, a sentence each for the operator, but for [`Report::accounts`]' own.
    pub faults: Vec<String>,
    /// How many more things are wrong.
    pub more: u64,
    /// Whether the file itself isn't whole.
    pub broken: bool,
}

impl Report {
    fn fault(&mut self, fault: String) {
        if self.faults.len() < NAMED { self.faults.push(fault) } else { self.more += 1 }
    }

    /// Takes trouble for a fault: what can't be read isn't sound.
    fn part(&mut self, part: impl FnOnce(&mut Self) -> Result<()>) {
        if let Err(error) = part(self) {
            self.fault(error.to_string());
        }
    }

    /// All that is wrong with the database itself in one sentence, accounts that don't fit their history not counted;
    /// none where nothing is.
    pub fn damage(&self) -> Option<String> {
        sentence(&self.faults, self.more)
    }

    /// What accounts are and, by the log, shouldn't be, in one sentence; none where they all fit.
    pub fn deviations(&self) -> Option<String> {
        let all = &self.accounts.faults;
        let named = &all[..all.len().min(NAMED)];
        sentence(named, (all.len() - named.len()) as u64)
    }
}

fn sentence(faults: &[String], more: u64) -> Option<String> {
    let mut text = faults.join("; ");
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    (!faults.is_empty()).then_some(text)
}

/// Goes through all of the database. A running server is no obstacle.
pub fn verify(service: &Service, progress: Progress<'_>) -> Report {
    let mut report = Report::default();
    report.part(|report| file(service, report, progress));
    report.part(|report| references(service, report, progress));
    report.part(|report| sealed_values(service, report, progress));
    report.part(|report| signing_keys(service, report));
    report.part(|report| {
        report.log = audit::verify_log(service, &mut |done, of| progress("verifying events", done, of))?;
        if let Some(fault) = &report.log.fault {
            report.fault(format!("the audit log: {fault}"));
        }
        Ok(())
    });
    report.part(|report| {
        report.accounts = audit::compare_accounts(service, &mut |done, of| progress("replaying events", done, of))?;
        Ok(())
    });
    report
}

fn file(service: &Service, report: &mut Report, progress: Progress<'_>) -> Result<()> {
    progress("looking at every page", 0, 1);
    // Until it is known.
    report.broken = true;
    let faults = service.store.read(|view| view.integrity_faults())?;
    report.broken = !faults.is_empty();
    faults.into_iter().for_each(|fault| report.fault(format!("the file isn't whole: {fault}")));
    Ok(())
}

fn references(service: &Service, report: &mut Report, progress: Progress<'_>) -> Result<()> {
    progress("following foreign keys", 0, 1);
    for fault in service.store.read(|view| view.reference_faults())? {
        report.fault(fault);
    }
    Ok(())
}

fn sealed_values(service: &Service, report: &mut Report, progress: Progress<'_>) -> Result<()> {
    // No data key has the number 0: all of them.
    let total = service.store.read(|view| view.count_sealed_under_others(0))?;
    let total = u64::try_from(total).unwrap_or(0);
    for column in SealedColumn::ALL {
        let mut after = 0;
        loop {
            let values = service.store.read(|view| view.sealed_values(*column, after, BATCH))?;
            let Some(last) = values.last().map(|value| value.row) else { break };
            let opened = values
                .iter()
                .map(|value| rekey::place(*column, value).and_then(|place| service.core.open(&place, &value.sealed)));
            let faults: Vec<_> = opened.filter_map(Result::err).collect();
            // It may have been sealed again meanwhile, under another data key.
            if !faults.is_empty() && service.refresh_data_keys()? {
                continue;
            }
            report.values += (values.len() - faults.len()) as u64;
            faults.into_iter().for_each(|fault| report.fault(fault.to_string()));
            progress("opening sealed values", report.values, total);
            after = last;
        }
    }
    Ok(())
}

/// That a private key opens doesn't say yet that it is the one of its row.
fn signing_keys(service: &Service, report: &mut Report) -> Result<()> {
    for row in service.store.read(|view| view.signing_keys())? {
        match service.core.open_key(&row) {
            Ok(key) if key.public() == row.public => {}
            // That it doesn't open at all was said before.
            Err(_) if service.core.open(&super::keys::private_key_place(&row.kid), &row.private).is_err() => {}
            _ => report.fault(format!("signing key {} isn't the one its row names", row.kid)),
        }
    }
    Ok(())
}
