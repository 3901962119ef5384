//! A history that went on from another State than the journal's last: where its earlier generations ended (H2, H11).
use std::sync::Arc;

use super::State;
use crate::types::{BrokerId, Head, Offset, Slot};

/// The snapshots that hold a [`Fork`] are of this feature level at least.
const FORKS_LEVEL: u32 = 3;

/// The end of one generation of the history: partitions that had records then, by slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fork {
    pub(super) generation: u16,
    pub(super) ends: Vec<(Slot, Offset)>,
}

/// The generations before the present one, oldest first; cloning shares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forks(pub(super) Arc<[Fork]>);

impl Fork {
    fn end(&self, slot: Slot) -> Offset {
        let found = self.ends.binary_search_by_key(&slot, |(slot, _)| *slot);
        found.map_or(Offset(0), |at| self.ends[at].1)
    }
}

impl Forks {
    /// The generation in which the record at `offset` was written; `present` if it was none of the earlier ones.
    #[must_use]
    pub fn generation_at(&self, slot: Slot, offset: Offset, present: u16) -> u16 {
        self.0.iter().find(|fork| offset < fork.end(slot)).map_or(present, |fork| fork.generation)
    }

    /// The offset at which an earlier generation of a partition ended; `None` for one that is none of them. Of one that
    /// this history has not known, since it went another way before, that is where the next one that it knows ended.
    #[must_use]
    pub fn end(&self, generation: u16, slot: Slot) -> Option<Offset> {
        self.0.iter().find(|fork| fork.generation >= generation).map(|fork| fork.end(slot))
    }
}

impl State {
    /// The earlier generations of the history.
    #[must_use]
    pub fn forks(&self) -> &Forks {
        &self.forks
    }

    /// The same State as the beginning of a new generation of the history, whose last entry is `at`, after those up to
    /// `newest`. What the journal or some broker had beyond `parted`, this State or an earlier one, is none of an older
    /// generation: consumers that saw it are told where those end, and take their place by the rules for a log that was
    /// truncated (KIP-320).
    #[must_use]
    pub fn begin_generation(&self, at: Head, newest: u16, parted: &Self) -> Self {
        let mut state = self.clone();
        let written = parted.partitions.iter().flatten().filter(|partition| partition.end > Offset(0));
        let ends = written.map(|partition| (partition.slot, partition.end)).collect();
        let ended = Fork { generation: newest, ends };
        state.forks = Forks(self.forks.0.iter().cloned().chain([ended]).collect());
        state.generation = newest.saturating_add(1);
        state.feature_level = self.feature_level.max(FORKS_LEVEL);
        state.head = at;
        state.topics_changed = at.position;
        state
    }

    /// Forgets that a broker was ever there: one that was none. Only in a State that nobody has but the caller.
    pub fn forget_broker(&mut self, broker: BrokerId) {
        self.brokers.remove(&broker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Position, Token};

    fn fork(generation: u16, ends: &[(u32, i64)]) -> Fork {
        Fork { generation, ends: ends.iter().map(|&(slot, end)| (Slot(slot), Offset(end))).collect() }
    }

    #[test]
    fn an_offset_is_of_the_generation_that_wrote_it() {
        let forks = Forks([fork(0, &[(1, 10), (4, 7)]), fork(1, &[(1, 12), (3, 5), (4, 7)])].into());
        let at = |slot, offset| forks.generation_at(Slot(slot), Offset(offset), 2);
        assert_eq!([at(1, 0), at(1, 9), at(1, 10), at(1, 11), at(1, 12)], [0, 0, 1, 1, 2]);
        assert_eq!([at(3, 0), at(3, 4), at(3, 5)], [1, 1, 2]);
        // Nothing was written to it between the two.
        assert_eq!([at(4, 6), at(4, 7)], [0, 2]);
        assert_eq!(at(9, 0), 2);
        let end = |generation, slot| forks.end(generation, Slot(slot)).map(|end| end.0);
        assert_eq!([end(0, 1), end(1, 1), end(0, 3), end(2, 1)], [Some(10), Some(12), Some(0), None]);
    }

    #[test]
    fn a_new_generation_outlives_a_snapshot() {
        let forks = Forks([fork(0, &[(1, 10)])].into());
        let state = State { forks, generation: 1, ..State::default() };
        let at = Head { position: Position(77), token: Token(5) };
        let begun = state.begin_generation(at, 1, &state);
        assert_eq!((begun.head(), begun.generation(), begun.forks().0.len()), (at, 2, 2));
        let (header, bytes) = begun.encode_snapshot();
        let (read, restored) = State::decode_snapshot(&bytes).unwrap();
        assert_eq!((header.at, read, restored.forks(), restored.generation()), (at, header, begun.forks(), 2));
    }
}
