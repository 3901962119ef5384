//! The journal of clusters without a database: entry N is an object of the bucket that was created where none was. It
//! promises what every journal does, with any number of brokers over one bucket. What is read is believed only after a
//! look at the trim boundary that began afterwards (H3); a position is given up only when somebody's object is there. It
//! never changes an object, never decides by a listing, and never takes silence for an absence.
//! Layout and rules: `docs/formats/journal-bucket.md`; costs: `docs/journal-bucket.md`; a model of the races:
//! `docs/models/`. Tests: `tests/`.
mod append;
mod follow;
mod format;
mod hints;
mod newest;
mod objects;
mod poll;
mod search;
mod trim;
mod turns;
mod view;

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

use super::{Appended, Journal, JournalError, Proposal, Stored};
use crate::store::Bucket;
use crate::types::{Head, Hint, Position};
use crate::world::World;
use objects::Objects;
use poll::NextPoll;
use view::View;

/// How often a broker that waits for others' entries asks for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollPolicy {
    /// While entries of others come.
    pub fastest: Duration,
    /// When nothing has come for a while.
    pub slowest: Duration,
    /// While the others tell of each of their entries.
    pub told: Duration,
}

/// A handle to the journal in a bucket; clones share what they know. Nothing is asked of the bucket before the first call.
#[derive(Clone)]
pub struct BucketJournal(Arc<Inner>);

struct Inner {
    objects: Objects,
    world: World,
    polls: PollPolicy,
    /// A mutex and not an owner task: appends, reads and polls go on side by side and each adds what it has found. No call
    /// awaits while it holds it.
    view: Mutex<View>,
    /// Told when the head has moved, or may have. It wakes in the order of waiting.
    moved: Notify,
    /// When the next poll is due; who waits and finds it due takes it.
    next_poll: Mutex<NextPoll>,
    /// Held by the append that is under way: a handle's appends are one after another, in the order of asking.
    appending: tokio::sync::Mutex<()>,
    /// Held by whoever looks for the journal's end, so that it is looked for once.
    searching: tokio::sync::Mutex<()>,
    /// Held while trimmed entries are deleted.
    sweeping: tokio::sync::Mutex<()>,
}

impl BucketJournal {
    /// The journal in `bucket`, empty if there is none yet.
    #[must_use]
    pub fn new(bucket: Arc<dyn Bucket>, world: World, polls: PollPolicy) -> Self {
        let now = world.now();
        Self(Arc::new(Inner {
            objects: Objects::new(bucket),
            polls,
            view: Mutex::new(View::new(now)),
            moved: Notify::new(),
            next_poll: Mutex::new(NextPoll { due: now, told: None }),
            appending: tokio::sync::Mutex::new(()),
            searching: tokio::sync::Mutex::new(()),
            sweeping: tokio::sync::Mutex::new(()),
            world,
        }))
    }
}

impl Inner {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Journal for BucketJournal {
    async fn append(&self, proposal: Proposal, after: Head) -> Result<Appended, JournalError> {
        self.0.append(proposal, after).await
    }

    async fn read(&self, from: Position) -> Result<Vec<Stored>, JournalError> {
        self.0.read(from.max(Position(1))).await
    }

    async fn head(&self) -> Result<Head, JournalError> {
        self.0.catch_up().await
    }

    async fn changed(&self, beyond: Position) {
        self.0.changed(beyond).await;
    }

    fn hint(&self, said: Hint) {
        self.0.hint(said);
    }

    async fn trim(&self, below: Position) -> Result<(), JournalError> {
        Inner::trim(&self.0, below).await
    }
}
