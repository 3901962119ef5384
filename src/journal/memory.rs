//! A journal in memory, for tests and the seeded simulation. Deterministic: no thread, no clock, no chance. Handles are
//! clones over one log, as several brokers have over one journal. Nothing survives the process.
use async_trait::async_trait;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

use super::rules::{self, Known, Lookup, Verdict};
use super::{Appended, ENTRY_OVERHEAD_BYTES, Journal, JournalError, Proposal, Stored, went_on};
use crate::types::{Head, Incarnation, Position, Token};

/// A handle to a log in memory; a clone is another handle to the same log.
#[derive(Clone)]
pub struct MemoryJournal {
    /// A mutex and not an owner task: no call awaits while it holds it, and the simulation wants no task of ours.
    log: Arc<Mutex<Log>>,
    /// Told when the head has moved. It wakes in the order of waiting; a watch channel would draw that order.
    moved: Arc<Notify>,
}

impl MemoryJournal {
    /// An empty log without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::with_bytes_max(usize::MAX)
    }

    /// An empty log that takes no entry (`NotDone`) which would make it larger than `bytes_max`, as a full disk does.
    #[must_use]
    pub fn with_bytes_max(bytes_max: usize) -> Self {
        let log = Log { entries: VecDeque::new(), trimmed: 0, newest: BTreeMap::new(), bytes: 0, bytes_max };
        Self { log: Arc::new(Mutex::new(log)), moved: Arc::default() }
    }

    /// Forgets the last `count` entries, as a store does that fails over to a replica which had lagged; at least one is
    /// left.
    pub fn lose(&self, count: usize) {
        let mut log = self.log();
        for _ in 0..count.min(log.entries.len().saturating_sub(1)) {
            if let Some(lost) = log.entries.pop_back() {
                log.bytes = log.bytes.saturating_sub(weight(&lost.proposal));
            }
        }
        log.newest = BTreeMap::new();
        let log = &mut *log;
        for Stored { position, proposal } in &log.entries {
            let known = Known { counter: proposal.counter, position: *position, token: proposal.token };
            log.newest.insert(proposal.incarnation, known);
        }
        self.moved.notify_waiters();
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryJournal {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn append(&self, proposal: Proposal, after: Head) -> Result<Appended, JournalError> {
        let mut log = self.log();
        let position = match rules::judge(&*log, &proposal, after)? {
            Verdict::Known(position) => position,
            Verdict::New => {
                log.push(proposal)?;
                self.moved.notify_waiters();
                log.head().position
            }
        };
        let missed = if after.position.next() < log.first() {
            Vec::new()
        } else {
            rules::page(log.from(after.position.next()).take_while(|entry| entry.position < position))
        };
        Ok(Appended { position, missed })
    }

    async fn read(&self, from: Position) -> Result<Vec<Stored>, JournalError> {
        let log = self.log();
        let from = from.max(Position(1));
        if from < log.first() {
            return Err(JournalError::Trimmed { first: log.first() });
        }
        Ok(rules::page(log.from(from)))
    }

    async fn head(&self) -> Result<Head, JournalError> {
        Ok(self.log().head())
    }

    async fn changed(&self, beyond: Position) {
        loop {
            let moved = self.moved.notified();
            if self.log().head().position > beyond {
                return;
            }
            moved.await;
        }
    }

    async fn trim(&self, below: Position) -> Result<(), JournalError> {
        self.log().trim(below);
        Ok(())
    }

    async fn restart(&self, only: Stored, expected: Head) -> Result<(), JournalError> {
        let mut log = self.log();
        if log.head() != expected {
            return Err(went_on(log.head()));
        }
        log.entries.clear();
        log.newest.clear();
        (log.bytes, log.trimmed) = (0, only.position.0.saturating_sub(1));
        log.push(only.proposal)
    }
}

struct Log {
    /// What was not trimmed, oldest first, without gaps.
    entries: VecDeque<Stored>,
    /// How many entries were trimmed; the first of `entries` is at `trimmed + 1`.
    trimmed: u64,
    /// Each incarnation's newest entry, kept through trims (H8).
    newest: BTreeMap<Incarnation, Known>,
    bytes: usize,
    bytes_max: usize,
}

impl Log {
    fn push(&mut self, proposal: Proposal) -> Result<(), JournalError> {
        let bytes = self.bytes.saturating_add(weight(&proposal));
        if bytes > self.bytes_max {
            return Err(JournalError::NotDone("the journal in memory is full".into()));
        }
        self.bytes = bytes;
        let position = Position(self.trimmed + self.entries.len() as u64).next();
        let known = Known { counter: proposal.counter, position, token: proposal.token };
        self.newest.insert(proposal.incarnation, known);
        self.entries.push_back(Stored { position, proposal });
        Ok(())
    }

    fn from(&self, position: Position) -> impl Iterator<Item = Stored> {
        let skip = position.0.saturating_sub(self.first().0);
        self.entries.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).cloned()
    }

    fn trim(&mut self, below: Position) {
        while self.first() < below && self.entries.len() > 1 {
            if let Some(gone) = self.entries.pop_front() {
                self.bytes = self.bytes.saturating_sub(weight(&gone.proposal));
                self.trimmed = gone.position.0;
            }
        }
    }
}

impl Lookup for Log {
    fn first(&self) -> Position {
        Position(self.trimmed).next()
    }

    fn head(&self) -> Head {
        let last = self.entries.back();
        last.map_or(Head::default(), |last| Head { position: last.position, token: last.proposal.token })
    }

    fn token_at(&self, position: Position) -> Result<Token, JournalError> {
        let found = self.from(position).next();
        found.map(|entry| entry.proposal.token).ok_or_else(|| JournalError::Damaged {
            position,
            reason: "it is missing between the first and the last".into(),
        })
    }

    fn at_or_above(&self, incarnation: Incarnation, counter: u64) -> Result<Option<Known>, JournalError> {
        let Some(newest) = self.newest.get(&incarnation).filter(|newest| newest.counter >= counter) else {
            return Ok(None);
        };
        let exact = self
            .entries
            .iter()
            .rev()
            .find(|entry| entry.proposal.incarnation == incarnation && entry.proposal.counter == counter);
        Ok(Some(exact.map_or(*newest, |entry| Known {
            counter,
            position: entry.position,
            token: entry.proposal.token,
        })))
    }
}

fn weight(proposal: &Proposal) -> usize {
    proposal.payload.len().saturating_add(ENTRY_OVERHEAD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::contract::{self, Harness, entry};
    use std::sync::Arc;

    struct InMemory(MemoryJournal);

    #[async_trait]
    impl Harness for InMemory {
        async fn open(&self) -> Arc<dyn Journal> {
            Arc::new(self.0.clone())
        }
        async fn another(&self, _: &Arc<dyn Journal>) -> Arc<dyn Journal> {
            Arc::new(self.0.clone())
        }
    }

    contract::suite!(InMemory(MemoryJournal::new()));

    #[tokio::test]
    async fn a_full_log_takes_nothing_until_it_is_trimmed() {
        let journal = MemoryJournal::with_bytes_max(2 * (ENTRY_OVERHEAD_BYTES + 10));
        let mut after = Head::default();
        for counter in 1..=2 {
            let proposal = entry(1, counter, &[0; 10]);
            after.token = proposal.token;
            after.position = journal.append(proposal, after_of(&journal).await).await.unwrap().position;
        }
        let refused = journal.append(entry(1, 3, &[0; 10]), after).await.unwrap_err();
        assert!(matches!(refused, JournalError::NotDone(_)), "{refused}");
        journal.trim(Position(2)).await.unwrap();
        assert_eq!(journal.append(entry(1, 3, &[0; 10]), after).await.unwrap().position, Position(3));
    }

    async fn after_of(journal: &MemoryJournal) -> Head {
        journal.head().await.unwrap()
    }
}
