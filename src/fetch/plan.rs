//! Which runs a fetch needs, and how much memory their objects pin. Pure.
use std::collections::BTreeMap;

use super::read::PartRead;
use crate::state::{ObjectMeta, Partition, Run, State};
use crate::types::{ObjectId, Offset};

/// Runs that one partition's read uses at most: bounds the objects that one fetch may ask for.
const RUNS_MAX: usize = 256;

/// What a fetch reads.
#[derive(Debug, Default)]
pub struct Plan {
    /// Per partition its runs, oldest first; `None` where the topic was deleted.
    pub(super) parts: Vec<Option<Vec<Run>>>,
    pub(super) objects: BTreeMap<ObjectId, Planned>,
    pinned_bytes: usize,
}

/// An object that a fetch uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    pub(super) meta: ObjectMeta,
    /// Bytes of it that are wanted.
    pub(super) used: usize,
}

impl Plan {
    /// Memory of all objects that the fetch uses, in bytes.
    #[must_use]
    pub fn pinned_bytes(&self) -> usize {
        self.pinned_bytes
    }

    /// Plans reads of `parts` in turn, up to `bytes_max` bytes of records and `pinned_max` bytes of objects; the first run
    /// of all is taken whatever its size.
    pub(super) fn new(state: &State, parts: &[PartRead], bytes_max: usize, pinned_max: usize) -> Self {
        let mut plan = Self::default();
        let mut left = bytes_max;
        for part in parts {
            let runs = state.partition(part.slot).map(|partition| {
                let mut runs = Vec::new();
                let mut room = left.min(part.bytes_max);
                for run in partition.tail.from(part.offset).take(RUNS_MAX) {
                    let first = plan.objects.is_empty();
                    if !first && (room == 0 || !plan.admits(state, &run, pinned_max)) {
                        break;
                    }
                    plan.take(state, &run);
                    room = room.saturating_sub(run.bytes as usize);
                    left = left.saturating_sub(run.bytes as usize);
                    runs.push(run);
                }
                runs
            });
            plan.parts.push(runs);
        }
        plan
    }

    fn admits(&self, state: &State, run: &Run, pinned_max: usize) -> bool {
        let more = || state.object(run.object).map_or(0, |meta| meta.bytes as usize);
        self.objects.contains_key(&run.object) || self.pinned_bytes + more() <= pinned_max
    }

    fn take(&mut self, state: &State, run: &Run) {
        let Some(meta) = state.object(run.object) else { return };
        let planned = self.objects.entry(run.object).or_insert_with(|| {
            self.pinned_bytes += meta.bytes as usize;
            Planned { meta: *meta, used: 0 }
        });
        planned.used += run.bytes as usize;
    }
}

impl Planned {
    /// Whether so little of the object is used that copying it is better than keeping the whole in memory until the client
    /// has read its answer.
    pub(super) fn is_copied(&self) -> bool {
        self.used.saturating_mul(4) < self.meta.bytes as usize
    }
}

/// Bytes that a read from `offset` would find, counted up to `enough`. The run that holds `offset` counts whole.
#[must_use]
pub fn available(partition: &Partition, offset: Offset, enough: usize) -> usize {
    let mut found = 0_usize;
    for run in partition.tail.from(offset) {
        found += run.bytes as usize;
        if found >= enough {
            break;
        }
    }
    found
}
