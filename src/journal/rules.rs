//! Which append is new, which is known, and which is refused: one place, so that every journal decides alike. Pure; the
//! journal passes in what it can look up.
use super::{ENTRY_OVERHEAD_BYTES, JournalError, PAGE_BYTES_MAX, PAYLOAD_BYTES_MAX, Proposal, Stored};
use crate::types::{Head, Incarnation, Position, Token};

/// What a journal looks up to judge an append. Errors say why the look-up failed.
pub(super) trait Lookup {
    /// The oldest position that can be read; 1 where nothing was trimmed.
    fn first(&self) -> Position;
    fn head(&self) -> Head;
    /// The token of the entry at `position`, which lies in `first..=head`.
    fn token_at(&self, position: Position) -> Result<Token, JournalError>;
    /// The entry of `incarnation` with the lowest counter that is not below `counter`, trimmed ones included where they
    /// are their incarnation's newest.
    fn at_or_above(&self, incarnation: Incarnation, counter: u64) -> Result<Option<Known>, JournalError>;
}

/// An entry that the journal has, or remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub counter: u64,
    pub position: Position,
    pub token: Token,
}

/// What is to be done with an append that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It takes the position after the head.
    New,
    /// It is there already.
    Known(Position),
}

/// Judges `proposal`, made by somebody who has applied the journal up to `after`. A fork is told before anything else;
/// a proposal that is there is recognised even if `after` was trimmed meanwhile.
pub(super) fn judge(journal: &impl Lookup, proposal: &Proposal, after: Head) -> Result<Verdict, JournalError> {
    if proposal.payload.len() > PAYLOAD_BYTES_MAX {
        return Err(JournalError::TooLarge { bytes: proposal.payload.len() });
    }
    let trimmed = JournalError::Trimmed { first: journal.first() };
    let after_is_there = guard(journal, after)?;
    match journal.at_or_above(proposal.incarnation, proposal.counter)? {
        Some(known) if known.counter == proposal.counter && known.token == proposal.token => {
            Ok(Verdict::Known(known.position))
        }
        Some(known) if known.counter > proposal.counter && journal.first() > Position(1) => Err(trimmed),
        Some(_) => Err(JournalError::CounterTaken { incarnation: proposal.incarnation, counter: proposal.counter }),
        None if after_is_there => Ok(Verdict::New),
        None => Err(trimmed),
    }
}

/// True if the journal still has `after`, false if it was trimmed; `Forked` if it never had it (H2).
fn guard(journal: &impl Lookup, after: Head) -> Result<bool, JournalError> {
    let head = journal.head();
    let forked = |reason: String| Err(JournalError::Forked { after, reason });
    if after.position > head.position {
        return forked(format!("it ends at position {}", head.position));
    }
    if after.position < journal.first() && after != Head::default() {
        return if after.position == Position(0) { forked("position 0 has no entry".into()) } else { Ok(false) };
    }
    if after.position == Position(0) {
        return Ok(journal.first() == Position(1));
    }
    let found = journal.token_at(after.position)?;
    if found == after.token { Ok(true) } else { forked(format!("its token is {:016x}", found.0)) }
}

/// The first entries that fit one page.
pub(super) fn page(entries: impl Iterator<Item = Stored>) -> Vec<Stored> {
    let mut budget = Page::default();
    entries.take_while(|entry| budget.takes(entry.proposal.payload.len())).collect()
}

/// Counts what a page holds.
#[derive(Default)]
pub(super) struct Page {
    bytes: usize,
}

impl Page {
    /// Whether an entry of `payload` bytes still fits; the first one always does.
    pub(super) fn takes(&mut self, payload: usize) -> bool {
        let before = self.bytes;
        self.bytes = before.saturating_add(payload).saturating_add(ENTRY_OVERHEAD_BYTES);
        before == 0 || self.bytes <= PAGE_BYTES_MAX
    }
}
