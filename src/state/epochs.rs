//! Leader epochs: the history's generation, and below it how often the membership had changed (H11). Records have the
//! lowest one of the generation that wrote them, on every broker and day.
use super::{Forks, State};
use crate::types::{LeaderEpoch, Offset, Slot};

/// The low bits, which count changes of the membership.
const COUNT_BITS: u32 = 24;

/// The highest generation that has an epoch of its own.
const GENERATION_MAX: u32 = (1 << (31 - COUNT_BITS)) - 1;

/// The lowest and the highest leader epoch that any partition has in the present generation of the history.
#[must_use]
pub fn epochs(state: &State) -> (LeaderEpoch, LeaderEpoch) {
    (epoch(state.generation(), 0), epoch(state.generation(), state.membership()))
}

/// A leader epoch as a client names it: the generation that it belongs to.
#[must_use]
pub fn generation_of(epoch: i32) -> u16 {
    u16::try_from(epoch >> COUNT_BITS).unwrap_or(0)
}

/// The leader epoch of a partition whose leader came with this change of the membership.
#[must_use]
pub fn epoch(generation: u16, turn: u32) -> LeaderEpoch {
    let generation = u32::from(generation).min(GENERATION_MAX);
    let epoch = generation << COUNT_BITS | turn.min((1 << COUNT_BITS) - 1);
    LeaderEpoch(i32::try_from(epoch).unwrap_or(i32::MAX))
}

/// The epochs of records, as one State has them.
#[derive(Clone, Debug, Default)]
pub struct RecordEpochs {
    forks: Forks,
    present: u16,
}

impl RecordEpochs {
    /// Those of `state`.
    #[must_use]
    pub fn of(state: &State) -> Self {
        Self { forks: state.forks().clone(), present: state.generation() }
    }

    /// Whether there is more than one: the history was forked.
    #[must_use]
    pub fn are_many(&self) -> bool {
        self.present > 0
    }

    /// The epoch of the record at `offset`.
    #[must_use]
    pub fn at(&self, slot: Slot, offset: Offset) -> LeaderEpoch {
        epoch(self.forks.generation_at(slot, offset, self.present), 0)
    }
}
