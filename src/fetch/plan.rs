//! Which runs a fetch needs, and how much memory their objects pin. Pure.
use std::collections::BTreeMap;

use super::read::PartRead;
use super::{Records, offsets_topic};
use crate::state::{ObjectMeta, Partition, RecordEpochs, Run, State};
use crate::types::{LeaderEpoch, ObjectId, Offset};

/// Runs that one partition's read uses at most: bounds the objects that one fetch may ask for.
const RUNS_MAX: usize = 256;

/// What a fetch reads.
#[derive(Debug, Default)]
pub struct Plan {
    /// `None` where the topic was deleted.
    pub(super) parts: Vec<Option<Part>>,
    pub(super) objects: BTreeMap<ObjectId, Planned>,
    pinned_bytes: usize,
    reading: Reading,
    /// Memory of what was made.
    made_bytes: usize,
    epochs: RecordEpochs,
}

/// What is read of one partition.
#[derive(Debug)]
pub(super) enum Part {
    /// Runs, oldest first.
    Runs(Vec<Run>),
    /// Of `__consumer_offsets`: what was made from State.
    Made(Records),
}

/// What it costs to read a part of an object that is not in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reading {
    /// The whole object is loaded.
    #[default]
    Whole,
    /// The object is a file: what is wanted of it is read.
    Files,
}

/// An object that a fetch uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    pub(super) meta: ObjectMeta,
    /// Bytes of it that are wanted.
    pub(super) used: usize,
}

impl Plan {
    /// Memory of all objects that the fetch uses, and of what was made for it, in bytes.
    #[must_use]
    pub fn pinned_bytes(&self) -> usize {
        self.pinned_bytes
    }

    /// Plans reads of `parts` in turn, up to `bytes_max` bytes of records and `pinned_max` bytes of objects; the first run
    /// of all is taken whatever its size.
    pub(super) fn new(
        state: &State,
        parts: &[PartRead],
        bytes_max: usize,
        pinned_max: usize,
        reading: Reading,
    ) -> Self {
        let mut plan = Self { reading, epochs: RecordEpochs::of(state), ..Self::default() };
        let mut left = bytes_max;
        for part in parts {
            let read = state.partition(part.slot).map(|partition| {
                if state.is_offsets_slot(part.slot) {
                    let made = plan.make(state, partition, part, left.min(part.bytes_max));
                    left = left.saturating_sub(made.bytes);
                    return Part::Made(made);
                }
                let mut runs = Vec::new();
                let mut room = left.min(part.bytes_max);
                let readable = partition.tail.from(part.offset).take_while(|run| run.base_offset < part.until);
                for run in readable.take(RUNS_MAX) {
                    let first = plan.is_empty();
                    if !first && (room == 0 || !plan.admits(state, &run, pinned_max)) {
                        break;
                    }
                    plan.take(state, &run);
                    room = room.saturating_sub(run.bytes as usize);
                    left = left.saturating_sub(run.bytes as usize);
                    runs.push(run);
                }
                Part::Runs(runs)
            });
            plan.parts.push(read);
        }
        plan
    }

    /// The leader epoch that the batches of `run` get.
    pub(super) fn epoch(&self, part: &PartRead, run: &Run) -> LeaderEpoch {
        self.epochs.at(part.slot, run.base_offset)
    }

    fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.made_bytes == 0
    }

    fn make(&mut self, state: &State, partition: &Partition, part: &PartRead, room: usize) -> Records {
        if room == 0 && !self.is_empty() {
            return Records::default();
        }
        let made = offsets_topic::records(state, partition, part.offset, room);
        if made.bytes > room && !self.is_empty() {
            return Records::default();
        }
        self.made_bytes += made.bytes;
        self.pinned_bytes += made.bytes;
        made
    }

    fn admits(&self, state: &State, run: &Run, pinned_max: usize) -> bool {
        if run.marker.is_some() {
            return true;
        }
        let Some(meta) = state.object(run.object) else { return true };
        self.pinned_bytes + self.pinned_by(run, meta) <= pinned_max
    }

    fn take(&mut self, state: &State, run: &Run) {
        if run.marker.is_some() {
            self.made_bytes += run.bytes as usize;
            self.pinned_bytes += run.bytes as usize;
            return;
        }
        let Some(meta) = state.object(run.object) else { return };
        self.pinned_bytes += self.pinned_by(run, meta);
        self.objects.entry(run.object).or_insert(Planned { meta: *meta, used: 0 }).used += run.bytes as usize;
    }

    /// Memory that a read of `run` pins more than what is planned already.
    fn pinned_by(&self, run: &Run, meta: &ObjectMeta) -> usize {
        let planned = self.objects.get(&run.object);
        let used = planned.map_or(0, |p| p.used);
        let pinned = |used: usize| match self.reading {
            Reading::Whole => meta.bytes as usize,
            Reading::Files => used.saturating_mul(self.share()).min(meta.bytes as usize),
        };
        pinned(used + run.bytes as usize) - planned.map_or(0, |_| pinned(used))
    }

    /// An object is kept in memory, until the client has read its answer, if more than one part in this many of it is
    /// used. Of less a copy is made.
    fn share(&self) -> usize {
        match self.reading {
            Reading::Whole => 4,
            // The object is in memory by chance, and a copy costs no load.
            Reading::Files => 2,
        }
    }

    /// Whether what is used of the object is copied.
    pub(super) fn is_copied(&self, object: ObjectId) -> bool {
        self.objects.get(&object).is_none_or(|p| p.used.saturating_mul(self.share()) < p.meta.bytes as usize)
    }
}

/// Bytes that a read from `offset` to `until` would find, counted up to `enough`. The runs that hold these two count whole.
#[must_use]
pub fn available(state: &State, partition: &Partition, offset: Offset, until: Offset, enough: usize) -> usize {
    if state.is_offsets_slot(partition.slot) {
        return offsets_topic::available(state, partition, offset, enough);
    }
    let mut found = 0_usize;
    if offset >= until {
        return 0;
    }
    for run in partition.tail.from(offset).take_while(|run| run.base_offset < until) {
        found += run.bytes as usize;
        if found >= enough {
            break;
        }
    }
    found
}
