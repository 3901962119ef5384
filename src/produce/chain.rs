//! Who waits for whom: a batch is proposed only when no earlier flush still holds one of the same connection and
//! partition (invariant 3, H17), and when such an earlier one fails, so do those behind it (H7).
use std::collections::{BTreeMap, VecDeque};

use crate::types::{ConnectionId, ProducerId, Sequence, Slot};

/// A flush, in the order in which they left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FlushId(pub(super) u64);

/// What must stay in order.
pub(super) type Link = (ConnectionId, Slot);

/// The flushes that hold batches of each link, oldest first.
#[derive(Debug, Default)]
pub(super) struct Chains(BTreeMap<Link, VecDeque<FlushId>>);

impl Chains {
    /// `flush` holds a batch of `link`. Flushes are entered in order.
    pub(super) fn enter(&mut self, link: Link, flush: FlushId) {
        let chain = self.0.entry(link).or_default();
        if chain.back() != Some(&flush) {
            chain.push_back(flush);
        }
    }

    /// Whether no earlier flush holds a batch of `link`.
    pub(super) fn is_first(&self, link: Link, flush: FlushId) -> bool {
        self.0.get(&link).and_then(VecDeque::front).is_none_or(|first| *first == flush)
    }

    /// The only flush that holds a batch of `link` before `flush` does.
    pub(super) fn just_before(&self, link: Link, flush: FlushId) -> Option<FlushId> {
        let chain = self.0.get(&link).filter(|chain| chain.get(1) == Some(&flush))?;
        chain.front().copied()
    }

    /// `flush` is done with `link`.
    pub(super) fn leave(&mut self, link: Link, flush: FlushId) {
        if let Some(chain) = self.0.get_mut(&link) {
            chain.retain(|f| *f != flush);
            if chain.is_empty() {
                self.0.remove(&link);
            }
        }
    }

    /// The flushes behind `flush` that hold batches of `link`.
    pub(super) fn behind(&self, link: Link, flush: FlushId) -> Vec<FlushId> {
        self.0.get(&link).map_or_else(Vec::new, |chain| chain.iter().copied().filter(|f| *f > flush).collect())
    }
}

/// Idempotent producers that State does not know, and of which a batch was given up. Until that batch is sent again,
/// later ones are refused: they would be accepted first, and the order lost (H7). Of producers that it knows, State
/// itself refuses them.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    expected: BTreeMap<(ProducerId, Slot), Sequence>,
    oldest: VecDeque<(ProducerId, Slot)>,
}

/// Producers that are remembered; beyond it the oldest is forgotten, which costs only the protection above.
const GIVEN_UP_MAX: usize = 10_000;

impl GivenUp {
    /// The batch that begins at `first` was given up. The earliest is the one that is waited for, also where a later
    /// one's PUT failed before its own.
    pub(super) fn give_up(&mut self, producer: ProducerId, slot: Slot, first: Sequence) {
        if let Some(expected) = self.expected.get_mut(&(producer, slot)) {
            if first.precedes(*expected) {
                *expected = first;
            }
            return;
        }
        if self.oldest.len() >= GIVEN_UP_MAX
            && let Some(forgotten) = self.oldest.pop_front()
        {
            self.expected.remove(&forgotten);
        }
        self.expected.insert((producer, slot), first);
        self.oldest.push_back((producer, slot));
    }

    /// Whether a batch that begins at `first` may be taken: there is nothing to wait for, or it is what was given up or
    /// was sent before that, or a new start.
    pub(super) fn admits(&self, producer: ProducerId, slot: Slot, first: Sequence) -> bool {
        self.expected.get(&(producer, slot)).is_none_or(|expected| !expected.precedes(first) || first == Sequence(0))
    }

    /// Nothing is waited for any more.
    pub(super) fn end(&mut self, producer: ProducerId, slot: Slot) {
        if self.expected.remove(&(producer, slot)).is_some() {
            self.oldest.retain(|key| *key != (producer, slot));
        }
    }
}

/// Batches on their way of idempotent producers that State does not know. Over another connection, which owes no order,
/// a later one may not overtake them: it would be accepted first (H7).
#[derive(Debug, Default)]
pub(super) struct Newcomers(BTreeMap<(ProducerId, Slot), Vec<(ConnectionId, Sequence)>>);

impl Newcomers {
    pub(super) fn enter(&mut self, producer: ProducerId, slot: Slot, connection: ConnectionId, first: Sequence) {
        self.0.entry((producer, slot)).or_default().push((connection, first));
    }

    pub(super) fn leave(&mut self, producer: ProducerId, slot: Slot, connection: ConnectionId, first: Sequence) {
        let Some(batches) = self.0.get_mut(&(producer, slot)) else { return };
        if let Some(at) = batches.iter().position(|batch| *batch == (connection, first)) {
            batches.swap_remove(at);
        }
        if batches.is_empty() {
            self.0.remove(&(producer, slot));
        }
    }

    /// Whether a batch of `connection` that begins at `first`, or one before it, is on its way over another one too.
    pub(super) fn comes_again(
        &self,
        producer: ProducerId,
        slot: Slot,
        connection: ConnectionId,
        first: Sequence,
    ) -> bool {
        let same = |(other, begins): &(ConnectionId, Sequence)| *other != connection && !first.precedes(*begins);
        self.0.get(&(producer, slot)).is_some_and(|batches| batches.iter().any(same))
    }

    /// Whether a batch of `connection` that begins at `first` would overtake one of another. What is before it on its own
    /// connection comes first in any case, so that is what would overtake.
    pub(super) fn overtakes(
        &self,
        producer: ProducerId,
        slot: Slot,
        connection: ConnectionId,
        first: Sequence,
    ) -> bool {
        let Some(batches) = self.0.get(&(producer, slot)) else { return false };
        let own = batches.iter().filter(|(other, _)| *other == connection).map(|(_, first)| *first);
        let begins = own.fold(first, |earliest, other| if other.precedes(earliest) { other } else { earliest });
        batches.iter().any(|(other, earlier)| *other != connection && earlier.precedes(begins))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_oldest_flush_of_a_link_is_first() {
        let (mut chains, link) = (Chains::default(), (ConnectionId(1), Slot(2)));
        let (a, b, c) = (FlushId(1), FlushId(2), FlushId(3));
        [a, a, b, c].into_iter().for_each(|f| chains.enter(link, f));
        assert!(chains.is_first(link, a) && !chains.is_first(link, b));
        assert_eq!(chains.behind(link, a), [b, c]);
        assert_eq!((chains.just_before(link, b), chains.just_before(link, c)), (Some(a), None));
        chains.leave(link, a);
        assert!(chains.is_first(link, b) && !chains.is_first(link, c));
        assert!(chains.is_first((ConnectionId(9), Slot(2)), c), "another connection owes no order");
    }

    #[test]
    fn h7_after_a_batch_was_given_up_it_comes_first() {
        let (mut given_up, producer, slot) = (GivenUp::default(), ProducerId(5), Slot(1));
        given_up.give_up(producer, slot, Sequence(10));
        given_up.give_up(producer, slot, Sequence(20));
        given_up.give_up(producer, slot, Sequence(i32::MAX));
        given_up.give_up(producer, slot, Sequence(30));
        assert!(!given_up.admits(producer, slot, Sequence(10)));
        assert!(given_up.admits(producer, slot, Sequence(0)), "a new start");
        assert!(given_up.admits(producer, slot, Sequence(i32::MAX)));
        given_up.end(producer, slot);
        given_up.give_up(producer, slot, Sequence(20));
        given_up.give_up(producer, slot, Sequence(10));
        assert!(!given_up.admits(producer, slot, Sequence(20)));
        assert!(given_up.admits(producer, Slot(2), Sequence(20)));
        assert!(given_up.admits(producer, slot, Sequence(10)));
        given_up.end(producer, slot);
        assert!(given_up.admits(producer, slot, Sequence(20)));
    }

    #[test]
    fn h7_a_newcomer_is_not_overtaken_over_another_connection() {
        let (mut newcomers, producer, slot) = (Newcomers::default(), ProducerId(5), Slot(1));
        let (one, other) = (ConnectionId(1), ConnectionId(2));
        newcomers.enter(producer, slot, one, Sequence(7));
        let overtakes = |newcomers: &Newcomers, by, first| newcomers.overtakes(producer, slot, by, Sequence(first));
        assert!(overtakes(&newcomers, other, 8));
        assert!(!overtakes(&newcomers, one, 8), "its own order is kept by the chain");
        assert!(!overtakes(&newcomers, other, 7) && !overtakes(&newcomers, other, 6));
        newcomers.enter(producer, slot, other, Sequence(7));
        assert!(!overtakes(&newcomers, other, 8), "the first is sent again before it");
        newcomers.leave(producer, slot, other, Sequence(7));
        assert!(overtakes(&newcomers, other, 8));
        newcomers.leave(producer, slot, one, Sequence(7));
        assert!(!overtakes(&newcomers, other, 8));
    }
}
