//! What the writer has published: the head, the oldest readable position, and the last entries, which readers take from
//! memory without waiting for a disk.
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

use crate::journal::rules::page;
use crate::journal::{ENTRY_OVERHEAD_BYTES, JournalError, Stored};
use crate::types::{Head, Position};

/// How much of the tail is kept in memory, in bytes. A replica that reads on is behind by one commit, so this is ample;
/// the newest entry is kept even if it is larger.
const TAIL_BYTES_MAX: usize = 1 << 20;

pub(super) struct Recent {
    /// A mutex and not an owner task: a reader must not wait behind appends. Nothing blocks while it is held.
    tail: Mutex<Tail>,
    head: watch::Sender<Head>,
}

struct Tail {
    first: Position,
    /// Without gaps up to the head; empty until the first append of this process.
    entries: VecDeque<Stored>,
    bytes: usize,
}

impl Recent {
    pub(super) fn new(first: Position, head: Head) -> Self {
        let tail = Tail { first, entries: VecDeque::new(), bytes: 0 };
        Self { tail: Mutex::new(tail), head: watch::Sender::new(head) }
    }

    /// Shows `entries`, which are durable and follow the head.
    pub(super) fn publish(&self, entries: Vec<Stored>) {
        let Some(last) = entries.last() else { return };
        let head = Head { position: last.position, token: last.proposal.token };
        {
            let mut tail = self.tail();
            tail.bytes = tail.bytes.saturating_add(entries.iter().map(weight).sum());
            tail.entries.extend(entries);
            while tail.bytes > TAIL_BYTES_MAX && tail.entries.len() > 1 {
                let gone = tail.entries.pop_front().as_ref().map_or(0, weight);
                tail.bytes = tail.bytes.saturating_sub(gone);
            }
        }
        self.head.send_replace(head);
    }

    /// Shows `only` in place of everything.
    pub(super) fn restart(&self, only: Stored) {
        *self.tail() = Tail { first: only.position, entries: VecDeque::new(), bytes: 0 };
        self.publish(vec![only]);
    }

    pub(super) fn set_first(&self, first: Position) {
        self.tail().first = first;
    }

    pub(super) fn head(&self) -> Head {
        *self.head.borrow()
    }

    pub(super) async fn changed(&self, beyond: Position) {
        // An error would mean that the sender is gone, but `self` holds it.
        let _ = self.head.subscribe().wait_for(|head| head.position > beyond).await;
    }

    /// The entries from `from` on, or `None` if they are only on disk.
    pub(super) fn read(&self, from: Position) -> Option<Result<Vec<Stored>, JournalError>> {
        if from > self.head().position {
            let first = self.tail().first;
            return Some(if from < first { Err(JournalError::Trimmed { first }) } else { Ok(Vec::new()) });
        }
        let tail = self.tail();
        if from < tail.first {
            return Some(Err(JournalError::Trimmed { first: tail.first }));
        }
        tail.from(from).map(|entries| Ok(page(entries.cloned())))
    }

    /// The entries after `after` and before `before` that fit a page; none if the first of them is only on disk.
    pub(super) fn between(&self, after: Position, before: Position) -> Vec<Stored> {
        if after.next() >= before {
            return Vec::new();
        }
        let tail = self.tail();
        let entries = tail.from(after.next()).into_iter().flatten();
        page(entries.take_while(|entry| entry.position < before).cloned())
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    fn from(&self, from: Position) -> Option<impl Iterator<Item = &Stored>> {
        let skip = from.0.checked_sub(self.entries.front()?.position.0)?;
        Some(self.entries.range(usize::try_from(skip).ok().filter(|skip| *skip < self.entries.len())?..))
    }
}

fn weight(entry: &Stored) -> usize {
    entry.proposal.payload.len().saturating_add(ENTRY_OVERHEAD_BYTES)
}
