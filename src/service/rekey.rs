//! Another master key, and on demand another data key with everything sealed again under it. The old master key opens
//! everything until the last transaction; after it, only the new one does.

use std::time::{Duration, Instant};

use super::access::Admin;
use super::credentials::{pending_place, pg_place};
use super::hashed::password_place;
use super::keys::{MasterSecret, new_master, private_key_place};
use super::session::totp_place;
use super::{Call, Core, Service, nonce};
use crate::crypto::seal::{self, Place};
use crate::error::{Error, Result};
use crate::model::audit::{EventType, NewEvent};
use crate::model::credential::PgAddress;
use crate::random;
use crate::secret::{KeyBytes, Sealed};
use crate::store::{SealedColumn, SealedValue};

/// How many values are sealed again in one transaction.
const BATCH: usize = 100;

/// How long the write-ahead log may take to be empty.
const LOG_PATIENCE: Duration = Duration::from_secs(10);

/// Makes `new` the master key.
///
/// # Errors
/// Trouble with the file; the old master key goes on opening everything.
pub fn change_master(service: &Service, call: &Call, proof: &Admin, new: &MasterSecret) -> Result<()> {
    let (master, kdf) = new_master(new)?;
    switch(service, call, proof, master, kdf, None)?;
    empty_log(service)
}

/// The first step to another data key: it is there, under the old master key, and seals from now on. Where a former
/// attempt got so far, its key is taken.
///
/// # Errors
/// Trouble with the file.
pub fn begin_data_key(service: &Service, proof: &Admin) -> Result<()> {
    let wrapped = service.store.read(|view| view.data_keys())?;
    if wrapped.len() > 1 {
        return service.refresh_data_keys().map(drop);
    }
    let id = service.core.data_keys().current_id() + 1;
    let data_key = random::key()?;
    let value = seal::wrap(&service.master, id, nonce()?, &data_key);
    service.write_as(proof, move |tx, _| tx.put_setting(&format!("data_key/{id}"), &value))?;
    service.refresh_data_keys().map(drop)
}

/// The second: seals everything again, in small batches; a former attempt is gone on with. `progress` is told how many
/// values are done.
///
/// # Errors
/// Trouble with the file, or a value that doesn't open; what is done is done.
pub fn reseal(service: &Service, proof: &Admin, progress: &mut dyn FnMut(u64)) -> Result<()> {
    let mut done = 0;
    for column in SealedColumn::ALL {
        let mut after = 0;
        loop {
            let nonces = (0..BATCH).map(|_| nonce()).collect::<Result<Vec<_>>>()?;
            let column = *column;
            let (last, count) = service.write_as(proof, move |tx, core| {
                let current = core.data_keys().current_id();
                let values = tx.sealed_values(column, after, BATCH as u32)?;
                let Some(last) = values.last().map(|value| value.row) else { return Ok((None, 0)) };
                let mut count = 0;
                for (value, nonce) in values.iter().zip(&nonces) {
                    if seal::key_id(&value.sealed) != Some(current) {
                        let again = seal_again(core, column, value, *nonce)?;
                        tx.replace_sealed(column, value.row, &again)?;
                        count += 1;
                    }
                }
                Ok((Some(last), count))
            })?;
            done += count;
            progress(done);
            match last {
                Some(last) => after = last,
                None => break,
            }
        }
    }
    Ok(())
}

/// The last: checks that nothing is left under an older data key, drops those, and makes `new` the master key, in one
/// transaction. `false` where something was sealed meanwhile and has to be sealed again first.
///
/// # Errors
/// Trouble with the file; the old master key goes on opening everything.
pub fn finish_data_key(service: &Service, call: &Call, proof: &Admin, new: &MasterSecret) -> Result<bool> {
    let (master, kdf) = new_master(new)?;
    let current = service.core.data_keys().current_id();
    if !switch(service, call, proof, master, kdf, Some(current))? {
        return Ok(false);
    }
    empty_log(service).map(|()| true)
}

/// Wraps the data keys under another master key; with `only`, that one alone, if nothing else is in use.
fn switch(
    service: &Service,
    call: &Call,
    proof: &Admin,
    master: KeyBytes,
    kdf: Option<String>,
    only: Option<u32>,
) -> Result<bool> {
    let occasion = service.occasion(call);
    let old = service.master.clone();
    // More than there ever are at once.
    let nonces = (0..8).map(|_| nonce()).collect::<Result<Vec<_>>>()?;
    service.write_as(proof, move |tx, _| {
        if let Some(only) = only
            && tx.count_sealed_under_others(only)? > 0
        {
            return Ok(false);
        }
        let wrapped = tx.data_keys()?;
        if wrapped.len() > nonces.len() {
            return Err(Error::internal("there are more data keys than there can be"));
        }
        for ((id, value), nonce) in wrapped.iter().zip(&nonces) {
            let name = format!("data_key/{id}");
            if only.is_some_and(|only| only != *id) {
                tx.delete_setting(&name)?;
                continue;
            }
            let key = seal::unwrap(&old, *id, value)
                .ok_or_else(|| Error::conflict("the master key was changed meanwhile, by somebody else"))?;
            tx.put_setting(&name, &seal::wrap(&master, *id, *nonce, &key))?;
        }
        match &kdf {
            Some(kdf) => tx.put_setting("kdf", kdf.as_bytes())?,
            None => tx.delete_setting("kdf")?,
        }
        if only.is_some() {
            tx.append(NewEvent::of(EventType::DataKeyChanged), occasion)?;
        }
        tx.append(NewEvent::of(EventType::MasterKeyChanged), occasion)?;
        Ok(true)
    })
}

fn seal_again(core: &Core, column: SealedColumn, value: &SealedValue, nonce: [u8; 12]) -> Result<Sealed> {
    let place = place(column, value)?;
    let plain = core.open(&place, &value.sealed)?;
    Ok(core.seal(&place, nonce, &plain))
}

/// Where a stored value is sealed.
pub(super) fn place(column: SealedColumn, value: &SealedValue) -> Result<Place> {
    let account = || value.account.ok_or_else(|| Error::internal("a sealed value of no account"));
    Ok(match column {
        SealedColumn::Password => password_place(account()?),
        SealedColumn::TotpSecret => totp_place(account()?),
        SealedColumn::TotpPending => pending_place(account()?),
        SealedColumn::PrivateKey => private_key_place(&value.name),
        SealedColumn::PgPassword => {
            let pg = value.pg.as_ref().ok_or_else(|| Error::internal("Postgres credentials without an address"))?;
            let address = PgAddress::parse(&pg.host, pg.port, &pg.database, &pg.username)
                .map_err(|e| Error::internal(format!("stored Postgres credentials: {}", e.client())))?;
            pg_place(account()?, &address)
        }
    })
}

/// Empties the write-ahead log, where the old wrapped keys still stand. A reader that holds it up is waited for.
fn empty_log(service: &Service) -> Result<()> {
    let begun = Instant::now();
    while !service.store.empty_log()? {
        if begun.elapsed() > LOG_PATIENCE {
            return Err(Error::internal(
                "the key is changed, but a long read keeps the old wrapped key in the write-ahead log; \
                 it goes with the log when the last program closes the database",
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
