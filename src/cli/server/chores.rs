//! What a server does beside the requests: what a start and an end leave in the log, what is looked at now and then, and
//! what is done every hour.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tracing::{error, info, warn};

use crate::model::audit::EventType;
use crate::net::house::House;
use crate::service::{Readiness, Service};
use crate::store::Condition;

/// How often it is said that the database takes no writes.
const COMPLAIN: Duration = Duration::from_secs(60);
/// How long the row of an expired token is kept, in seconds.
const KEEP_EXPIRED: i64 = 7 * 86_400;

/// The keys, the event and the checkpoint that a start begins with; not while the clock is behind, and not on a disk
/// that takes none, where checks go on.
pub(super) fn begin(service: &Service) -> bool {
    if service.readiness() == Readiness::ClockBehind {
        error!(
            "the clock is behind the newest event in the database: nothing but health is served until it has \
                caught up"
        );
        return false;
    }
    let begun = service
        .ensure_signing_keys()
        .and_then(|()| service.note(EventType::ServerStarted))
        .and_then(|()| sign_checkpoint(service));
    if let Err(e) = begun {
        error!(cause = %e, "the start can't be written to the database");
        return false;
    }
    true
}

/// What is done every hour, and so never in the first of a run: a checkpoint, and the rows of tokens that expired more
/// than a week ago go. Not while the clock is behind; and what is removed only where it hasn't jumped for an hour.
pub(super) fn hourly(service: &Service, may_prune: bool) -> crate::error::Result<()> {
    service.admit()?;
    sign_checkpoint(service)?;
    if !may_prune {
        warn!("the clock has jumped: nothing is pruned before it has been steady for an hour");
        return Ok(());
    }
    let pruned = service.prune_expired(KEEP_EXPIRED)?;
    if pruned > 0 {
        info!(pruned, "removed the rows of expired tokens");
    }
    Ok(())
}

/// Takes another data key, if mciasdb has made one.
pub(super) fn look_at_data_keys(service: &Service) {
    match service.refresh_data_keys() {
        Ok(true) => info!("the data key was changed"),
        Ok(false) => {}
        Err(e) => error!(cause = %e, "the data keys can't be read"),
    }
}

/// Looks at the clock, and says so when it changed; whether it is in order.
pub(super) fn look_at_clock(service: &Service) -> bool {
    match service.look_at_clock() {
        Ok(Some(true)) => {
            error!("the clock went behind the newest event in the database: nothing but health is served")
        }
        Ok(Some(false)) => info!("the clock has caught up with the database"),
        Ok(None) => {}
        Err(e) => error!(cause = %e, "the database can't be read"),
    }
    if service.readiness() == Readiness::ReadOnly && service.checkpoint().is_ok() {
        info!("the database takes writes again");
    }
    service.readiness() == Readiness::Ready
}

/// What is said while the database takes no writes: at once, and then once a minute.
#[derive(Default)]
pub(super) struct Complaint {
    last: Option<Instant>,
}

impl Complaint {
    /// Says it if it is time.
    pub(super) fn look_at(&mut self, service: &Service) {
        let why = match service.store().condition() {
            Condition::Good => {
                self.last = None;
                return;
            }
            Condition::Full => "its disk is full or read-only",
            Condition::Failed => "after an I/O error it is not trusted before a restart",
            Condition::Newer => "its schema is newer than this program",
        };
        if self.last.is_none_or(|last| last.elapsed() >= COMPLAIN) {
            error!("the database takes no writes: {why}; checks are answered");
            self.last = Some(Instant::now());
        }
    }
}

/// Signs the audit log's head, and logs the signature: whoever collects the log holds an anchor.
fn sign_checkpoint(service: &Service) -> crate::error::Result<()> {
    let checkpoint = service.checkpoint()?;
    let (hash, signature) = (URL_SAFE_NO_PAD.encode(checkpoint.hash), URL_SAFE_NO_PAD.encode(checkpoint.signature));
    info!(
        count = checkpoint.count,
        hash,
        signed_at = checkpoint.time,
        kid = checkpoint.kid,
        signature,
        "audit checkpoint"
    );
    Ok(())
}

/// The event and the checkpoint that an ordinary end leaves.
pub(super) fn say_stopped(service: &Service) {
    // Not by the readiness: a server that stops is draining before it is anything else.
    if service.admit().is_err() {
        return;
    }
    if let Err(e) = service.note(EventType::ServerStopped).and_then(|()| sign_checkpoint(service)) {
        error!(cause = %e, "the end can't be written to the database");
    }
}

/// Work of the server's own, beside the requests.
pub(super) fn on_a_thread(
    house: &Arc<House>,
    work: impl FnOnce(&Service) -> crate::error::Result<()> + Send + 'static,
) {
    let service = house.service.clone();
    tokio::task::spawn_blocking(move || {
        if let Err(e) = work(&service) {
            error!(cause = %e, "work on the database failed");
        }
    });
}
