//! Reading: on from the head to the journal's end, and older entries. What a request has found is believed after a look at
//! the boundary that begins when the answer is there (H3), and not before.
use super::Inner;
use super::format::Entry;
use super::objects::RUN_ENTRIES_MAX;
use crate::journal::{JournalError, Stored};
use crate::types::{Head, Position};

impl Inner {
    /// The head, which is at least what it was when this was called.
    pub(super) async fn catch_up(&self) -> Result<Head, JournalError> {
        let head = self.catch_up_expecting(1).await?;
        self.postpone_poll();
        Ok(head)
    }

    /// As [`Inner::catch_up`], by one who has reason to ask for so many positions at once.
    pub(super) async fn catch_up_expecting(&self, expected: usize) -> Result<Head, JournalError> {
        loop {
            let head = self.known_head().await?;
            let run = self.objects.run(head.position.next(), expected, RUN_ENTRIES_MAX).await?;
            let first = self.look_at_boundary().await?;
            if first > head.position.next() {
                continue;
            }
            if let (Some(head), true) = (self.believe(run.entries)?, run.is_over) {
                return Ok(head);
            }
        }
    }

    /// Takes in what follows the head now, if anything does: one request if there is nothing. What it does not find may
    /// have been trimmed, so it tells nothing about the head.
    pub(super) async fn peek(&self) -> Result<bool, JournalError> {
        let head = self.known_head().await?;
        let Some(next) = self.timed_entry(head.position.next()).await? else { return Ok(false) };
        if self.look_at_boundary().await? > head.position.next() {
            return Ok(true);
        }
        self.believe(vec![next])?;
        Ok(true)
    }

    /// The entries from `from` on, up to a page.
    pub(super) async fn read(&self, from: Position) -> Result<Vec<Stored>, JournalError> {
        let mut head = self.known_head().await?;
        if from > head.position {
            head = self.catch_up().await?;
        }
        let known = {
            let view = self.view();
            if from < view.boundary.first {
                return Err(JournalError::Trimmed { first: view.boundary.first });
            }
            view.remembered(from, Position(u64::MAX))
        };
        if !known.is_empty() || from > head.position {
            return Ok(known);
        }
        let count = usize::try_from(head.position.0 - from.0).unwrap_or(usize::MAX).saturating_add(1);
        let found = self.objects.run(from, count, count.min(RUN_ENTRIES_MAX)).await?.entries;
        let first = self.look_at_boundary().await?;
        if from < first {
            return Err(JournalError::Trimmed { first });
        }
        if found.is_empty() {
            return Err(gone(from));
        }
        in_one_history(&found)?;
        Ok(found.into_iter().map(|entry| entry.stored).collect())
    }

    /// Asks for the trims that came after the one that is known. The answer is the oldest position that could be read when
    /// this was called, or a later one.
    pub(super) async fn look_at_boundary(&self) -> Result<Position, JournalError> {
        let began = self.world.now();
        loop {
            let next = self.view().boundary.number + 1;
            let asked = self.world.now();
            let found = self.objects.boundary(next).await?;
            let mut view = self.view();
            view.turns.measured_read(self.world.now().saturating_duration_since(asked));
            match found {
                Some(boundary) => view.trimmed(boundary),
                None => {
                    view.boundary_seen = view.boundary_seen.max(began);
                    return Ok(view.boundary.first);
                }
            }
        }
    }

    /// Adds entries that were found and are not trimmed, and wakes who waits for them. None if everything that was known
    /// has been trimmed meanwhile.
    pub(super) fn believe(&self, entries: Vec<Entry>) -> Result<Option<Head>, JournalError> {
        let now = self.world.now();
        let (moved, head) = {
            let mut view = self.view();
            let moved = view.extend(entries, now);
            (moved, view.fold.as_ref().map(|fold| fold.head))
        };
        if moved? {
            self.moved.notify_waiters();
        }
        Ok(head)
    }

    pub(super) async fn timed_entry(&self, position: Position) -> Result<Option<Entry>, JournalError> {
        let asked = self.world.now();
        let found = self.objects.entry(position).await?;
        self.view().turns.measured_read(self.world.now().saturating_duration_since(asked));
        Ok(found)
    }
}

/// An entry that the boundary says is there, and that is not.
pub(super) fn gone(position: Position) -> JournalError {
    JournalError::Damaged { position, reason: "its object is not in the bucket".into() }
}

/// Entries that follow one another must have been written onto one another.
fn in_one_history(entries: &[Entry]) -> Result<(), JournalError> {
    for pair in entries.windows(2) {
        let [before, entry] = pair else { continue };
        let after = Head { position: before.stored.position, token: before.stored.proposal.token };
        if entry.previous != after.token {
            let reason = format!("the entry after it was written onto one with token {:016x}", entry.previous.0);
            return Err(JournalError::Forked { after, reason });
        }
    }
    Ok(())
}
