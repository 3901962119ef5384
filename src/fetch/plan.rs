//! Which runs a read needs. Pure.
use crate::state::{Partition, Run};
use crate::types::Offset;

/// Runs that one partition's read uses at most: bounds the objects that one fetch may ask for.
const RUNS_MAX: usize = 256;

/// The runs from `offset` on whose bytes reach `bytes_max`; at least one if there is any.
pub(super) fn plan(partition: &Partition, offset: Offset, bytes_max: usize) -> Vec<Run> {
    let mut planned = 0_usize;
    let mut runs = Vec::new();
    for run in partition.tail.from(offset).take(RUNS_MAX) {
        if planned >= bytes_max && !runs.is_empty() {
            break;
        }
        planned += run.bytes as usize;
        runs.push(run);
    }
    runs
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
