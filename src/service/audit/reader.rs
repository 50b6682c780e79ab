//! The whole log in order, in batches, with no long read transaction: as nothing is ever changed but by archiving, all
//! batches are of one log as long as it begins with the same event.

use std::collections::VecDeque;

use crate::error::Error;
use crate::model::audit::Checkpoint;
use crate::store::{CheckpointRow, KeyPurpose, KeyRow, LogRow, Store, View};

/// Rows read at once.
const BATCH: u32 = 500;

/// Why a walk ends before its end.
pub(super) enum Stop {
    /// Something doesn't fit.
    Fault(String),
    /// Somebody has archived rows meanwhile: what was read is of the log as it was.
    Archived,
    /// The database can't be read.
    Trouble(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Trouble(error)
    }
}

impl From<String> for Stop {
    fn from(fault: String) -> Self {
        Self::Fault(fault)
    }
}

/// A walk over the log as it is when the walk begins.
pub(super) struct Reader<'s> {
    store: &'s Store,
    /// The number of the first event that is there.
    pub first: Option<i64>,
    /// What stands for archived rows.
    pub anchor: Option<Checkpoint>,
    /// The number of the newest event.
    pub head: i64,
    /// Every key that ever signed checkpoints.
    pub keys: Vec<KeyRow>,
    rows: Part<LogRow>,
    checkpoints: Part<CheckpointRow>,
}

/// One of the two tables: what was read and not yet taken, and what to read next.
struct Part<T> {
    read: VecDeque<T>,
    from: Option<i64>,
    to: i64,
}

impl<T> Part<T> {
    /// All up to the number `to`, however odd the numbers are.
    fn up_to(to: i64) -> Self {
        Self { read: VecDeque::new(), from: Some(i64::MIN), to }
    }

    fn take_in(&mut self, batch: Vec<T>, number: impl Fn(&T) -> i64) {
        let full = batch.len() == BATCH as usize;
        self.from = batch.last().filter(|_| full).and_then(|last| number(last).checked_add(1));
        self.read.extend(batch);
    }
}

impl<'s> Reader<'s> {
    /// Sees how far the log reaches.
    pub fn begin(store: &'s Store) -> Result<Self, Stop> {
        let (first, anchor, (head, _), newest, keys) = store.snapshot(|view| {
            let newest = view.newest_checkpoint()?;
            Ok((view.first_event()?, anchor(view)?, view.audit_head()?, newest, view.signing_keys()?))
        })?;
        Ok(Self {
            store,
            first,
            anchor: anchor.map_err(Stop::Fault)?,
            head,
            keys: keys.into_iter().filter(|key| key.purpose == KeyPurpose::Audit).collect(),
            rows: Part::up_to(head),
            checkpoints: Part::up_to(newest.map_or(i64::MIN, |(id, _)| id)),
        })
    }

    /// The next event.
    pub fn next_row(&mut self) -> Result<Option<LogRow>, Stop> {
        if self.rows.read.is_empty()
            && let Some(from) = self.rows.from
        {
            let batch = self.unless_archived(|view| view.links(from, self.rows.to, BATCH))?;
            self.rows.take_in(batch, |row| row.id);
        }
        Ok(self.rows.read.pop_front())
    }

    /// The next checkpoint, left where it is.
    pub fn peek_checkpoint(&mut self) -> Result<Option<&CheckpointRow>, Stop> {
        if self.checkpoints.read.is_empty()
            && let Some(from) = self.checkpoints.from
        {
            let batch = self.unless_archived(|view| view.checkpoints(from, self.checkpoints.to, BATCH))?;
            self.checkpoints.take_in(batch, |row| row.id);
        }
        Ok(self.checkpoints.read.front())
    }

    /// Goes past the checkpoint that was looked at.
    pub fn pass_checkpoint(&mut self) {
        self.checkpoints.read.pop_front();
    }

    fn unless_archived<T>(&self, read: impl FnOnce(&View<'_>) -> crate::error::Result<T>) -> Result<T, Stop> {
        let (first, batch) = self.store.snapshot(|view| Ok((view.first_event()?, read(view)?)))?;
        if first == self.first { Ok(batch) } else { Err(Stop::Archived) }
    }
}

/// The one anchor, if there is one; or what is wrong with it.
fn anchor(view: &View<'_>) -> crate::error::Result<Result<Option<Checkpoint>, String>> {
    let mut rows = view.anchors()?;
    Ok(match (rows.pop(), rows.len()) {
        (None, _) => Ok(None),
        (Some(row), 0) => row.checkpoint.map(Some).ok_or_else(|| "the anchor isn't as this program writes it".into()),
        (Some(_), more) => Err(format!("there are {} anchors, where there can be one", more + 1)),
    })
}
