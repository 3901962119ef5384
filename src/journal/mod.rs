//! The ordered log of opaque entries that everything which brokers must agree on goes through. It promises positions
//! 1, 2, 3 … without gaps, one entry per (incarnation, counter), and that a lost tail is noticed (`FORKED`). It never
//! looks into an entry. `contract.rs` is the suite that every implementation passes.
//! Which append is new, known or refused is decided in `rules.rs`, the same for all.
mod bucket;
mod deadlined;
mod memory;
mod observed;
mod postgres;
mod rules;
mod sqlite;

#[cfg(test)]
pub(crate) mod contract;

use async_trait::async_trait;
use bytes::Bytes;

pub use bucket::{BucketJournal, PollPolicy};
pub use deadlined::Deadlined;
pub use memory::MemoryJournal;
pub use observed::Observed;
pub use postgres::{OpenError as PostgresOpenError, PostgresJournal, PostgresSettings, UnsafeServer};
pub use sqlite::{OpenError, SqliteJournal};

use crate::types::{Head, Hint, Incarnation, Position, Token};

/// What one append proposes. Its bytes are frozen once it has a counter (H8): retrying the identical proposal is
/// always safe, and gives the position of the first success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub incarnation: Incarnation,
    /// Counts the entries of this incarnation, from 1.
    pub counter: u64,
    pub token: Token,
    pub payload: Bytes,
}

/// An entry as it stands in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub position: Position,
    pub proposal: Proposal,
}

/// An append that succeeded: the entry is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    pub position: Position,
    /// The entries between `after` and `position`, oldest first and without a gap; at most [`PAGE_BYTES_MAX`] of
    /// payload, and perhaps none, where the journal would have to search for them. What they do not reach is had by
    /// [`Journal::read`].
    pub missed: Vec<Stored>,
}

/// Bytes of one page of entries (`read`, `missed`), counting [`ENTRY_OVERHEAD_BYTES`] for each beside its payload; at
/// least one entry is given even if it is larger.
pub const PAGE_BYTES_MAX: usize = 8 << 20;

/// What an entry weighs beside its payload, in bytes, so that a page of empty entries has an end too.
pub const ENTRY_OVERHEAD_BYTES: usize = 64;

/// The largest payload that an entry may have, in bytes; the proposer splits what is larger.
pub const PAYLOAD_BYTES_MAX: usize = 4 << 20;

/// Why a call did not succeed. Only [`JournalError::Unknown`] leaves open whether an append happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The journal does not have the entry `after` any more, or never had it: its history is another one (H2).
    #[error("the journal's history forked: position {} has not the token that was applied ({reason})", after.position)]
    Forked { after: Head, reason: String },
    /// The position asked for was trimmed; a snapshot has to be loaded. `first` is the oldest that can be read.
    #[error("the journal was trimmed below position {first}")]
    Trimmed { first: Position },
    /// An entry with this (incarnation, counter) exists and has another token: two processes live one life (H8).
    #[error("counter {counter} of incarnation {incarnation} is taken by an entry with another token")]
    CounterTaken { incarnation: Incarnation, counter: u64 },
    /// The payload is larger than [`PAYLOAD_BYTES_MAX`].
    #[error("an entry of {bytes} bytes is over the limit of {PAYLOAD_BYTES_MAX}")]
    TooLarge { bytes: usize },
    /// The journal holds this entry, but not as it was written. Retrying does not help; the operator has to look.
    #[error("the journal's entry at position {position} is damaged: {reason}")]
    Damaged { position: Position, reason: String },
    /// It certainly did not happen; may be retried.
    #[error("the journal did not take it: {0}")]
    NotDone(String),
    /// An append that may have happened, or a read that failed: retry the same bytes until one of the other answers.
    #[error("the journal gave no answer: {0}")]
    Unknown(String),
}

/// The ordered log. One owner appends through it at a time; any number may read.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Adds `proposal` at the end, durably, if the journal's entry at `after.position` has `after.token` (position 0
    /// with token 0 stands for the empty beginning). Entries of others between `after` and the end are normal and are
    /// returned. A proposal whose (incarnation, counter, token) is already there is not added again: the answer is the
    /// old position, also after a trim where it is its incarnation's newest. Counters of one incarnation rise: a lower
    /// one that is not there is never added; it was trimmed (`Trimmed`), or two processes live one life
    /// (`CounterTaken`). If `after` was trimmed and the proposal is new, the answer is `Trimmed`.
    async fn append(&self, proposal: Proposal, after: Head) -> Result<Appended, JournalError>;

    /// Entries from `from` on, oldest first, at most [`PAGE_BYTES_MAX`] of payload; empty at the end.
    async fn read(&self, from: Position) -> Result<Vec<Stored>, JournalError>;

    /// The last entry; position 0 and token 0 if there never was one. After a trim of everything it is still the last.
    async fn head(&self) -> Result<Head, JournalError>;

    /// Resolves when the head is, or may be, beyond `position`; spurious wake-ups are allowed.
    async fn changed(&self, beyond: Position);

    /// Another broker says that it has appended: who waits for entries may look at once. Nothing is believed of it.
    fn hint(&self, _said: Hint) {}

    /// Gives up the entries below `below` (they answer `Trimmed` from then on, also after a restart). Never trims the
    /// last entry, whatever `below` says. A trimmed position never becomes writable again.
    async fn trim(&self, below: Position) -> Result<(), JournalError>;

    /// Gives up every entry, and begins again with this one as the last and the only one, if the last one is `expected`
    /// still. For the command that ends a fork: whoever has applied another history is told `Trimmed` or `Forked` from
    /// then on.
    ///
    /// # Errors
    /// `NotDone` from a journal that can't, or that has another last entry; `Unknown` leaves open whether it happened.
    async fn restart(&self, _only: Stored, _expected: Head) -> Result<(), JournalError> {
        Err(JournalError::NotDone("a journal of this kind can't begin again".to_owned()))
    }
}

/// What is known of the journal's history from outside of it, where the loss of its store does not reach (H2).
#[async_trait]
pub trait Witnesses: Send + Sync {
    /// Entries at `position` or later that some broker has applied; not all, but those of each broker's last minute.
    async fn since(&self, position: Position) -> Result<Vec<Head>, WitnessError>;
}

/// Nobody has seen anything: for who looks at a fork itself.
pub struct NoWitnesses;

#[async_trait]
impl Witnesses for NoWitnesses {
    async fn since(&self, _: Position) -> Result<Vec<Head>, WitnessError> {
        Ok(Vec::new())
    }
}

/// A journal that is not begun anew, since it went on.
fn went_on(head: Head) -> JournalError {
    JournalError::NotDone(format!("somebody has appended to it meanwhile, it ends at position {}", head.position))
}

/// Why a journal can't be held against what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    #[error("what other brokers have seen of the journal can't be read: {0}")]
    Unavailable(String),
    /// Somebody has found a fork, and nobody has resolved it.
    #[error("{0}")]
    Forked(String),
}
