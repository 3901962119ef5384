//! The running replica of State. One owner task appends what this broker proposes, group-committed, and folds every
//! entry in; everybody else reads a shared State. It promises that an outcome is given only after its entry is durable
//! and applied (invariant 1), that a proposal is appended once (H8), and that [`Replica::barrier`] has applied the head
//! as it was when it was asked (invariant 5). It never decides anything by itself: `state` does. Tests: `tests.rs`.
mod barrier;
mod clock;
mod expiry;
mod fork;
mod life;
mod load;
mod mend;
mod owner;
mod salvage;
mod snapshots;
mod start;
mod watch;
mod witness;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::watch::{Receiver, Sender};
use tokio::sync::{mpsc, oneshot};

pub use fork::FORK_PREFIX;
pub use load::read_state;
pub use mend::{Choice, Kept, MendError, Mended, Presence, Survey, mend, survey};
pub use owner::{Fatal, Identity};
pub use salvage::Salvaged;
pub use snapshots::{SNAPSHOT_PREFIX, SnapshotPolicy};
pub use start::{Parts, StartError, Started, start};
pub use watch::Waiter;
pub use witness::{BucketWitnesses, WITNESS_PREFIX};

use crate::journal::Journal;
use crate::state::{Command, Outcome, State};
use crate::types::{BrokerId, Head, Hint, Incarnation, Slot};
use crate::world::Instant;
use watch::Hub;

/// What brokers call the journal where they speak to each other: the topic of what they say.
pub const JOURNAL_TOPIC: &str = "journal";

/// Commands that may wait for the append in flight; beyond it proposers wait.
const QUEUE_MAX: usize = 8192;

/// The handle that every other room holds; cheap to clone.
#[derive(Clone)]
pub struct Replica {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Proposed>,
    barriers: mpsc::Sender<oneshot::Sender<Result<Arc<State>, Unavailable>>>,
}

struct Shared {
    /// The State that readers see. A lock, held for a pointer's copy: an owner task would cost each reader a message.
    state: RwLock<Arc<State>>,
    hub: Hub,
    broker: BrokerId,
    /// The life that it is in. It begins another when the others have fenced it, or gone on without it.
    incarnation: AtomicU64,
    /// Up to when everything is applied: the time at which the last call began that told a head which now is. A lock, held
    /// for a copy.
    confirmed: Mutex<Instant>,
    /// Payload bytes that this broker appended since it started; a snapshot falls due by them.
    journal_bytes: AtomicU64,
    /// Commands that were applied since this broker started, but those about snapshots: whether there is anything new to keep.
    changes: AtomicU64,
    /// The last entry of this broker.
    appended: Sender<Hint>,
    /// Told what the others say of it; the owner alone appends.
    journal: Arc<dyn Journal>,
    /// Whether State is being loaded anew, since the journal was trimmed beyond it.
    reloading: Sender<bool>,
}

/// A command on its way to the owner, and where its outcome goes.
struct Proposed {
    /// `None` where only an entry is wanted: a heartbeat.
    command: Option<Command>,
    reply: oneshot::Sender<Result<Outcome, ProposeError>>,
}

/// Why a proposal has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It certainly did not happen and may be proposed again.
    #[error("the journal did not take it: {0}")]
    NotDone(String),
    /// This broker has stopped, or was overtaken by a trim before it knew (H13); it is not known whether it happened.
    #[error("the broker has stopped, or lost sight of it")]
    Stopped,
}

/// The journal's head could not be learnt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal's head can't be read: {0}")]
pub struct Unavailable(pub String);

impl Shared {
    /// Everything is applied that the journal had when a call began, at `begun`.
    fn confirm(&self, begun: Instant) {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        *confirmed = begun.max(*confirmed);
    }
}

impl Replica {
    /// State as it is now. Keep it as long as a request takes, not longer.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last entry applied; goes into the names of new objects (H4).
    #[must_use]
    pub fn applied(&self) -> Head {
        self.state().head()
    }

    /// Who this broker is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let incarnation = Incarnation(self.shared.incarnation.load(Ordering::Relaxed));
        Identity { broker: self.shared.broker, incarnation }
    }

    /// Since when something may be in the journal that this broker has not applied. If that is long ago, others may have
    /// gone on without it (H9).
    #[must_use]
    pub fn confirmed(&self) -> Instant {
        *self.shared.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entries that this broker appends, each once it is durable; the last of several.
    #[must_use]
    pub fn appended(&self) -> Receiver<Hint> {
        self.shared.appended.subscribe()
    }

    /// Another broker says that it has appended: a journal that is not told of entries looks at once. It may be wrong.
    pub fn hint(&self, said: Hint) {
        self.shared.journal.hint(said);
    }

    /// Tells whether State is being loaded anew: from when the journal was found to be trimmed beyond it until this broker is
    /// registered again (H13). What is read meanwhile is old.
    #[must_use]
    pub fn reloading(&self) -> Receiver<bool> {
        self.shared.reloading.subscribe()
    }

    /// Whether State is being loaded anew now.
    #[must_use]
    pub fn is_reloading(&self) -> bool {
        *self.shared.reloading.borrow()
    }

    /// Whether nothing can be proposed any more.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.queue.is_closed()
    }

    /// Ends when nothing can be proposed any more.
    pub async fn stopped(&self) {
        self.queue.closed().await;
    }

    /// Appends an entry without a command, so that the others see that this broker is there.
    ///
    /// # Errors
    /// As [`Replica::propose`].
    pub async fn heartbeat(&self) -> Result<(), ProposeError> {
        self.enqueue(None).await?.await.map_err(|_| ProposeError::Stopped)?.map(|_| ())
    }

    /// Appends `command` and gives its outcome. Dropping the future does not take the command back.
    ///
    /// # Errors
    /// `NotDone` may be retried; after `Stopped` nothing is known.
    pub async fn propose(&self, command: impl Into<Command>) -> Result<Outcome, ProposeError> {
        self.submit(command).await?.await.map_err(|_| ProposeError::Stopped)?
    }

    /// Queues `command`; the receiver gives its outcome. Commands are appended in the order of these calls.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn submit(
        &self,
        command: impl Into<Command>,
    ) -> Result<oneshot::Receiver<Result<Outcome, ProposeError>>, ProposeError> {
        self.enqueue(Some(command.into())).await
    }

    async fn enqueue(
        &self,
        command: Option<Command>,
    ) -> Result<oneshot::Receiver<Result<Outcome, ProposeError>>, ProposeError> {
        let (reply, outcome) = oneshot::channel();
        self.queue.send(Proposed { command, reply }).await.map_err(|_| ProposeError::Stopped)?;
        Ok(outcome)
    }

    /// State with everything applied that was in the journal when this was called (invariant 5). One read of the head
    /// is shared by all who wait for it.
    ///
    /// # Errors
    /// If the journal does not answer: then only a retriable error may be answered.
    pub async fn barrier(&self) -> Result<Arc<State>, Unavailable> {
        let (reply, state) = oneshot::channel();
        let stopped = || Unavailable("the broker has stopped".to_owned());
        self.barriers.send(reply).await.map_err(|_| stopped())?;
        state.await.map_err(|_| stopped())?
    }

    /// A waiter that is woken when one of `slots` gets records, from now on.
    #[must_use]
    pub fn watch(&self, slots: impl Iterator<Item = Slot>) -> Waiter {
        self.shared.hub.register(slots)
    }
}

#[cfg(test)]
pub(crate) mod tests;
