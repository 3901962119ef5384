//! Who waits for whom: a batch is proposed only when no earlier flush still holds one of the same connection and
//! partition (invariant 3, H17), and when such an earlier one fails, so do those behind it (H7).
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::PartBatch;
use crate::types::{ConnectionId, ProducerEpoch, ProducerId, Sequence, Slot};
use crate::world::Instant;

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

/// One batch of an idempotent producer, by what orders it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    pub(super) producer: ProducerId,
    pub(super) slot: Slot,
    pub(super) epoch: ProducerEpoch,
    pub(super) first: Sequence,
}

impl Numbered {
    pub(super) fn of(batch: &PartBatch) -> Self {
        let header = &batch.header;
        Self {
            producer: header.producer_id,
            slot: batch.slot,
            epoch: header.producer_epoch,
            first: header.base_sequence,
        }
    }

    fn key(self) -> (ProducerId, Slot) {
        (self.producer, self.slot)
    }

    /// Sequences of two epochs say nothing of each other.
    fn precedes(self, other: Self) -> bool {
        self.epoch == other.epoch && self.first.precedes(other.first)
    }
}

/// Idempotent producers that State does not know, and of which a batch was given up. Until that batch is sent again,
/// later ones are refused: they would be accepted first, and the order lost (H7). Of producers that it knows, State
/// itself refuses them.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    expected: BTreeMap<(ProducerId, Slot), Numbered>,
    oldest: VecDeque<(ProducerId, Slot)>,
}

/// Producers that are remembered; beyond it the oldest is forgotten, which costs only the protection above.
const GIVEN_UP_MAX: usize = 10_000;

impl GivenUp {
    /// The batch was given up. The earliest of the newest epoch is the one that is waited for, also where a later one's
    /// PUT failed before its own.
    pub(super) fn give_up(&mut self, batch: Numbered) {
        if let Some(expected) = self.expected.get_mut(&batch.key()) {
            if batch.precedes(*expected) || batch.epoch > expected.epoch {
                *expected = batch;
            }
            return;
        }
        if self.oldest.len() >= GIVEN_UP_MAX
            && let Some(forgotten) = self.oldest.pop_front()
        {
            self.expected.remove(&forgotten);
        }
        self.expected.insert(batch.key(), batch);
        self.oldest.push_back(batch.key());
    }

    /// Whether the batch may be taken: there is nothing to wait for, or it is what was given up or was sent before that,
    /// or a new start.
    pub(super) fn admits(&self, batch: Numbered) -> bool {
        let waits = |expected: &Numbered| expected.precedes(batch) && batch.first != Sequence(0);
        !self.expected.get(&batch.key()).is_some_and(waits)
    }

    /// Nothing is waited for any more: the batch is taken.
    pub(super) fn end(&mut self, batch: Numbered) {
        if self.expected.remove(&batch.key()).is_some() {
            self.oldest.retain(|key| *key != batch.key());
        }
    }
}

/// Idempotent producers of which a batch was given up here lately. Those of their batches that were behind it are out of order
/// only until it comes again, which its producer was told to let it. It is not told so: librdkafka takes a new epoch then,
/// and sends again under it what may be in the log already.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    until: BTreeMap<(ProducerId, Slot), Instant>,
    oldest: VecDeque<(Instant, (ProducerId, Slot))>,
}

/// How long: clients have tried again by then, unless they gave up the batch themselves and left a gap.
const UNSETTLED_FOR: Duration = Duration::from_secs(30);

impl Unsettled {
    pub(super) fn give_up(&mut self, batch: Numbered, now: Instant) {
        let over = |&(until, _): &(Instant, _)| until <= now;
        while self.oldest.len() >= GIVEN_UP_MAX || self.oldest.front().is_some_and(over) {
            let Some((until, key)) = self.oldest.pop_front() else { break };
            if self.until.get(&key) == Some(&until) {
                self.until.remove(&key);
            }
        }
        let until = now + UNSETTLED_FOR;
        if self.until.insert(batch.key(), until) != Some(until) {
            self.oldest.push_back((until, batch.key()));
        }
    }

    pub(super) fn holds(&self, batch: Numbered, now: Instant) -> bool {
        self.until.get(&batch.key()).is_some_and(|until| now < *until)
    }
}

/// Batches on their way of idempotent producers that State does not know. Over another connection, which owes no order,
/// a later one may not overtake them: it would be accepted first (H7).
#[derive(Debug, Default)]
pub(super) struct Newcomers(BTreeMap<(ProducerId, Slot), Vec<(ConnectionId, Numbered)>>);

impl Newcomers {
    pub(super) fn enter(&mut self, connection: ConnectionId, batch: Numbered) {
        self.0.entry(batch.key()).or_default().push((connection, batch));
    }

    pub(super) fn leave(&mut self, connection: ConnectionId, batch: Numbered) {
        let Some(batches) = self.0.get_mut(&batch.key()) else { return };
        if let Some(at) = batches.iter().position(|known| *known == (connection, batch)) {
            batches.swap_remove(at);
        }
        if batches.is_empty() {
            self.0.remove(&batch.key());
        }
    }

    /// Whether a batch of `connection`, or one before it, is on its way over another one too.
    pub(super) fn comes_again(&self, connection: ConnectionId, batch: Numbered) -> bool {
        self.others(connection, batch).any(|other| other == batch || other.precedes(batch))
    }

    /// Whether a batch of `connection` would overtake one of another. What is before it on its own connection comes first
    /// in any case, so that is what would overtake.
    pub(super) fn overtakes(&self, connection: ConnectionId, batch: Numbered) -> bool {
        let own = self.0.get(&batch.key()).into_iter().flatten().filter(|(by, _)| *by == connection);
        let begins = own.fold(batch, |first, (_, own)| if own.precedes(first) { *own } else { first });
        self.others(connection, batch).any(|other| other.precedes(begins))
    }

    /// Batches of the same producer and partition that are on their way over other connections.
    fn others(&self, connection: ConnectionId, batch: Numbered) -> impl Iterator<Item = Numbered> {
        let all = self.0.get(&batch.key()).into_iter().flatten();
        all.filter(move |(by, _)| *by != connection).map(|(_, batch)| *batch)
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

    /// A batch of epoch 0.
    fn batch(slot: u32, first: i32) -> Numbered {
        let (producer, epoch) = (ProducerId(5), ProducerEpoch(0));
        Numbered { producer, slot: Slot(slot), epoch, first: Sequence(first) }
    }

    fn next_epoch(batch: Numbered) -> Numbered {
        Numbered { epoch: ProducerEpoch(batch.epoch.0 + 1), ..batch }
    }

    #[test]
    fn h7_after_a_batch_was_given_up_it_comes_first() {
        let mut given_up = GivenUp::default();
        [10, 20, i32::MAX, 30].into_iter().for_each(|first| given_up.give_up(batch(1, first)));
        assert!(!given_up.admits(batch(1, 10)));
        assert!(given_up.admits(batch(1, 0)), "a new start");
        assert!(given_up.admits(batch(1, i32::MAX)) && given_up.admits(batch(1, i32::MAX - 1)));
        assert!(given_up.admits(next_epoch(batch(1, 10))), "another epoch's numbers say nothing");
        given_up.end(batch(1, i32::MAX));
        [20, 10].into_iter().for_each(|first| given_up.give_up(batch(1, first)));
        assert!(!given_up.admits(batch(1, 20)) && given_up.admits(batch(2, 20)) && given_up.admits(batch(1, 10)));
        given_up.give_up(next_epoch(batch(1, 40)));
        assert!(given_up.admits(batch(1, 20)) && !given_up.admits(next_epoch(batch(1, 50))));
        given_up.end(batch(1, 10));
        assert!(given_up.admits(next_epoch(batch(1, 50))));
    }

    #[test]
    fn h7_a_newcomer_is_not_overtaken_over_another_connection() {
        let (mut newcomers, one, other) = (Newcomers::default(), ConnectionId(1), ConnectionId(2));
        newcomers.enter(one, batch(1, 7));
        assert!(newcomers.overtakes(other, batch(1, 8)));
        assert!(!newcomers.overtakes(one, batch(1, 8)), "its own order is kept by the chain");
        assert!(!newcomers.overtakes(other, next_epoch(batch(1, 8))), "another epoch's numbers say nothing");
        assert!(!newcomers.overtakes(other, batch(1, 7)) && !newcomers.overtakes(other, batch(1, 6)));
        assert!(newcomers.comes_again(other, batch(1, 8)) && !newcomers.comes_again(other, batch(1, 6)));
        newcomers.enter(other, batch(1, 7));
        assert!(!newcomers.overtakes(other, batch(1, 8)), "the first is sent again before it");
        newcomers.leave(other, batch(1, 7));
        assert!(newcomers.overtakes(other, batch(1, 8)));
        newcomers.leave(one, batch(1, 7));
        assert!(!newcomers.overtakes(other, batch(1, 8)));
    }
}
