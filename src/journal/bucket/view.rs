//! What a handle knows of the journal and may believe: the newest trim, the head, what is newest of each incarnation up to
//! it, and the last entries. Everything that comes in here was checked against the boundary (H3). Pure.
use std::collections::VecDeque;

use super::format::{Boundary, Entry};
use super::hints::Hints;
use super::newest::Newest;
use super::turns::Turns;
use crate::journal::rules::{Known, Lookup, page};
use crate::journal::{ENTRY_OVERHEAD_BYTES, JournalError, Stored};
use crate::types::{Head, Hint, Incarnation, Position, Token};
use crate::world::Instant;

/// How much of the tail is kept in memory, in bytes. A replica reads on behind the head by one look, so this is ample; the
/// newest entry is kept even if it is larger.
const TAIL_BYTES_MAX: usize = 8 << 20;

/// See the module.
pub(super) struct View {
    /// The newest trim that this handle knows of; number 0 and first position 1 while there is none.
    pub(super) boundary: Boundary,
    /// None until the journal's end was looked for, and again when all that is known was trimmed.
    pub(super) fold: Option<Fold>,
    /// The boundary was last seen to be the newest one by a look that began then.
    pub(super) boundary_seen: Instant,
    pub(super) turns: Turns,
    pub(super) hints: Hints,
    /// The proposal whose create has not been answered.
    pub(super) in_doubt: Option<(Incarnation, u64)>,
}

/// The journal's entries up to its head.
#[derive(Clone, Debug, Default)]
pub(super) struct Fold {
    pub(super) head: Head,
    pub(super) newest: Newest,
    /// Without gaps up to the head; perhaps empty.
    tail: VecDeque<Stored>,
    tail_bytes: usize,
}

impl View {
    pub(super) fn new(now: Instant) -> Self {
        let boundary = Boundary { first: Position(1), ..Boundary::default() };
        Self {
            boundary,
            fold: None,
            boundary_seen: now,
            turns: Turns::new(now),
            hints: Hints::default(),
            in_doubt: None,
        }
    }

    /// Takes in a trim that is in the bucket. What is known of the entries is given up if it ends below what is left.
    pub(super) fn trimmed(&mut self, boundary: Boundary) {
        if boundary.number <= self.boundary.number {
            return;
        }
        let first = boundary.first;
        self.boundary = boundary;
        if self.fold.as_ref().is_some_and(|fold| fold.head.position.next() < first) {
            self.fold = None;
        }
        if let Some(fold) = &mut self.fold {
            fold.forget_below(first);
        }
    }

    /// Takes in entries that follow one another; those that are known are passed over. True if the head has moved.
    pub(super) fn extend(&mut self, entries: Vec<Entry>, now: Instant) -> Result<bool, JournalError> {
        let Some(fold) = &mut self.fold else { return Ok(false) };
        let before = fold.head.position;
        for entry in entries {
            if entry.stored.position == fold.head.position.next() {
                let (incarnation, position) = (entry.stored.proposal.incarnation, entry.stored.position);
                self.turns.note(incarnation, now);
                self.hints.note(Hint { incarnation, position }, now);
                fold.push(entry)?;
            }
        }
        Ok(fold.head.position > before)
    }

    /// The entries from `from` on that fit a page, if they are in memory; none also if they are not.
    pub(super) fn remembered(&self, from: Position, before: Position) -> Vec<Stored> {
        let entries = self.fold.as_ref().and_then(|fold| fold.from(from));
        page(entries.into_iter().flatten().take_while(|entry| entry.position < before).cloned())
    }
}

impl Fold {
    /// The journal as of a trim, before the first entry that is left.
    pub(super) fn after(boundary: &Boundary) -> Self {
        let position = Position(boundary.first.0.saturating_sub(1));
        Self { head: Head { position, token: boundary.before }, newest: boundary.newest.clone(), ..Self::default() }
    }

    /// The journal right before `checkpoint`, which says what was newest there.
    pub(super) fn before(checkpoint: &Entry) -> Self {
        let position = Position(checkpoint.stored.position.0.saturating_sub(1));
        let head = Head { position, token: checkpoint.previous };
        Self { head, newest: checkpoint.below.clone().unwrap_or_default(), ..Self::default() }
    }

    /// Takes in the entry after the head; it must have been written onto this head (H2).
    pub(super) fn push(&mut self, entry: Entry) -> Result<(), JournalError> {
        let Entry { stored, previous, .. } = entry;
        assert_eq!(stored.position, self.head.position.next(), "entries are folded in order");
        if previous != self.head.token {
            let reason = format!("the entry after it was written onto one with token {:016x}", previous.0);
            return Err(JournalError::Forked { after: self.head, reason });
        }
        let Stored { position, proposal } = &stored;
        let known = Known { counter: proposal.counter, position: *position, token: proposal.token };
        self.newest.note(proposal.incarnation, known);
        self.head = Head { position: *position, token: proposal.token };
        self.tail_bytes += weight(&stored);
        self.tail.push_back(stored);
        while self.tail_bytes > TAIL_BYTES_MAX && self.tail.len() > 1 {
            self.forget_oldest();
        }
        Ok(())
    }

    fn from(&self, from: Position) -> Option<impl Iterator<Item = &Stored>> {
        let skip = from.0.checked_sub(self.tail.front()?.position.0)?;
        Some(self.tail.range(usize::try_from(skip).ok().filter(|skip| *skip < self.tail.len())?..))
    }

    fn forget_below(&mut self, first: Position) {
        while self.tail.front().is_some_and(|oldest| oldest.position < first) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let gone = self.tail.pop_front().as_ref().map_or(0, weight);
        self.tail_bytes -= gone;
    }
}

fn weight(entry: &Stored) -> usize {
    entry.proposal.payload.len() + ENTRY_OVERHEAD_BYTES
}

/// What an append is judged by: the view, and what had to be looked up for it.
pub(super) struct Evidence<'a> {
    pub(super) first: Position,
    pub(super) fold: &'a Fold,
    /// The token of an entry that is not in memory.
    pub(super) token: Option<Head>,
    /// The entry of the proposal's incarnation with the lowest counter not below the proposal's, if it is not the newest.
    pub(super) older: Option<Known>,
}

impl Evidence<'_> {
    /// The token of the entry at `position`, if it is known.
    pub(super) fn known_token(&self, position: Position) -> Option<Token> {
        if position == self.fold.head.position {
            return Some(self.fold.head.token);
        }
        let looked_up = self.token.filter(|head| head.position == position).map(|head| head.token);
        looked_up.or_else(|| self.fold.from(position)?.next().map(|entry| entry.proposal.token))
    }
}

impl Lookup for Evidence<'_> {
    fn first(&self) -> Position {
        self.first
    }

    fn head(&self) -> Head {
        self.fold.head
    }

    fn token_at(&self, position: Position) -> Result<Token, JournalError> {
        let unknown = || JournalError::Unknown(format!("the entry at position {position} was not looked up"));
        self.known_token(position).ok_or_else(unknown)
    }

    fn at_or_above(&self, incarnation: Incarnation, counter: u64) -> Result<Option<Known>, JournalError> {
        let newest = self.fold.newest.of(incarnation).filter(|known| known.counter >= counter);
        Ok(newest.map(|newest| self.older.unwrap_or(newest)))
    }
}
