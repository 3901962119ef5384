//! Which runs a fetch needs, and how much memory their objects pin. Pure.
use std::collections::BTreeMap;

use super::assemble::Target;
use super::read::PartRead;
use super::{Records, offsets_topic};
use crate::cache::Unit;
use crate::state::{ObjectMeta, Partition, RecordEpochs, Run, State};
use crate::types::{ObjectId, Offset, Slot};

/// Runs that one partition's read uses at most: bounds the objects that one fetch may ask for.
const RUNS_MAX: usize = 256;

/// Runs of compacted objects that may be loaded ahead of one reader. With runs of 1 MiB the bound of one stream from S3
/// (93 MB/s) is hidden behind a first byte of 20 ms with two; the rest is for the store's slower moments.
pub(super) const AHEAD_MAX: usize = 8;

/// What a fetch reads.
#[derive(Debug, Default)]
pub struct Plan {
    /// `None` where the topic was deleted.
    pub(super) parts: Vec<Option<Part>>,
    pub(super) units: BTreeMap<UnitId, Planned>,
    /// What readers that go on will want next.
    pub(super) ahead: Vec<Ahead>,
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

/// The object, and where in it the unit begins.
pub(super) type UnitId = (ObjectId, u32);

/// What is loaded for `run`: its whole object, or of a compacted object the run.
pub(super) fn unit(meta: &ObjectMeta, run: &Run) -> Unit {
    match meta.level {
        0 => Unit::whole(meta.name, meta.bytes),
        _ => {
            let offsets = Some((run.base_offset, run.end_offset));
            Unit { name: meta.name, position: run.position, bytes: run.bytes, offsets }
        }
    }
}

/// A unit that a fetch uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    pub(super) unit: Unit,
    /// Whether it is of a compacted object.
    pub(super) is_final: bool,
    /// Bytes of it that are wanted.
    pub(super) used: usize,
}

/// A read that ends in compacted runs, and those that follow.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) slot: Slot,
    pub(super) from: Offset,
    pub(super) to: Offset,
    pub(super) runs: Vec<Unit>,
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
                    plan.take(state, &run, room);
                    room = room.saturating_sub(run.bytes as usize);
                    left = left.saturating_sub(run.bytes as usize);
                    runs.push(run);
                }
                plan.look_ahead(state, partition, part, runs.last());
                Part::Runs(runs)
            });
            plan.parts.push(read);
        }
        plan
    }

    /// What is wanted of `run`, at most `bytes_max` bytes.
    pub(super) fn target<'a>(&'a self, part: &PartRead, run: &Run, bytes_max: usize) -> Target<'a> {
        let is_final = self.planned(run).is_some_and(|(_, planned)| planned.is_final);
        target(&self.epochs, part, run, is_final, bytes_max)
    }

    /// What is loaded for `run`.
    pub(super) fn planned(&self, run: &Run) -> Option<(UnitId, &Planned)> {
        let of_object = self.units.range((run.object, 0)..=(run.object, run.position)).next_back()?;
        (of_object.0.1 == 0 || of_object.0.1 == run.position).then_some((*of_object.0, of_object.1))
    }

    /// Notes the compacted runs behind the last one that is read.
    fn look_ahead(&mut self, state: &State, partition: &Partition, part: &PartRead, last: Option<&Run>) {
        let Some(last) = last.filter(|last| self.planned(last).is_some_and(|(_, planned)| planned.is_final)) else {
            return;
        };
        if self.reading == Reading::Files {
            return;
        }
        let next = partition.tail.from(last.end_offset).take(AHEAD_MAX).map_while(|run| {
            let meta = state.object(run.object).filter(|meta| meta.level > 0)?;
            Some(unit(meta, &run))
        });
        let runs: Vec<Unit> = next.collect();
        self.ahead.push(Ahead { slot: part.slot, from: part.offset, to: last.end_offset, runs });
    }

    fn is_empty(&self) -> bool {
        self.units.is_empty() && self.made_bytes == 0
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

    fn take(&mut self, state: &State, run: &Run, room: usize) {
        if run.marker.is_some() {
            self.made_bytes += run.bytes as usize;
            self.pinned_bytes += run.bytes as usize;
            return;
        }
        let Some(meta) = state.object(run.object) else { return };
        self.pinned_bytes += self.pinned_by(run, meta);
        let (unit, is_final) = (unit(meta, run), meta.level > 0);
        let used = if is_final { (run.bytes as usize).min(room.max(1)) } else { run.bytes as usize };
        self.units.entry((run.object, unit.position)).or_insert(Planned { unit, is_final, used: 0 }).used += used;
    }

    /// Memory that a read of `run` pins more than what is planned already.
    fn pinned_by(&self, run: &Run, meta: &ObjectMeta) -> usize {
        let unit = unit(meta, run);
        let planned = self.units.get(&(run.object, unit.position));
        let used = planned.map_or(0, |p| p.used);
        let pinned = |used: usize| match self.reading {
            Reading::Whole => unit.bytes as usize,
            Reading::Files => used.saturating_mul(self.share()).min(unit.bytes as usize),
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

    /// Whether what is used of the unit is copied.
    pub(super) fn is_copied(&self, unit: UnitId) -> bool {
        self.units.get(&unit).is_none_or(|p| p.used.saturating_mul(self.share()) < p.unit.bytes as usize)
    }
}

/// What of `run` is wanted for `part`, at most `bytes_max` bytes, by what a State says of epochs.
pub(super) fn target<'a>(
    epochs: &'a RecordEpochs,
    part: &PartRead,
    run: &Run,
    is_final: bool,
    bytes_max: usize,
) -> Target<'a> {
    let (offset, until, epoch) = (part.offset, part.until, epochs.at(part.slot, run.base_offset));
    let forked = epochs.are_many().then_some((epochs, part.slot));
    Target { offset, until, bytes_max, epoch, is_final, forked }
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
