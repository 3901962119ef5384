//! What is to be compacted, by State alone. Pure: brokers with the same State come to the same windows, so a job has one
//! name everywhere, and who does it can be told from that.
use std::collections::BTreeSet;

use crate::state::{ObjectMeta, Run, State};
use crate::types::{ObjectId, Offset, Slot, TimestampMs};

/// When jobs are due, and how large they get.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Flushes in one job.
    pub objects: usize,
    /// Runs in them.
    pub runs: u64,
    /// Bytes of one job's inputs, which are in memory at a time; also of what the second level writes as one object.
    pub bytes: u64,
    /// A flush that is older is compacted in a job however small, in ms.
    pub age_ms: i64,
    /// A flush is left alone for so long: readers at the log's end have it in memory, and the rest of its runs may still be
    /// on the way to the journal. In ms.
    pub rest_ms: i64,
    /// Objects of the first level that become objects of the second.
    pub merged: usize,
}

/// Objects that become others together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Of what is made.
    pub(super) level: u8,
    pub(super) inputs: Vec<(ObjectId, ObjectMeta)>,
}

/// A stretch of one partition's log, all of it from a window's objects, and the ends of transactions among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) slot: Slot,
    pub(super) runs: Vec<Run>,
}

/// What waits, of one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    pub(super) objects: u64,
    pub(super) runs: u64,
    pub(super) bytes: u64,
}

impl Window {
    /// What brokers call the job.
    pub(super) fn name(&self) -> String {
        let first = self.inputs.first().map_or(0, |(id, _)| id.0);
        format!("compaction-{}-{first}", self.level)
    }

    pub(super) fn ids(&self) -> Vec<ObjectId> {
        self.inputs.iter().map(|(id, _)| *id).collect()
    }
}

impl Share {
    pub(super) fn base_offset(&self) -> Offset {
        self.runs.first().map_or(Offset(0), |run| run.base_offset)
    }

    pub(super) fn end_offset(&self) -> Offset {
        self.runs.last().map_or(Offset(0), |run| run.end_offset)
    }
}

/// What objects of `level` there are that some partition needs.
pub(super) fn backlog(state: &State, level: u8) -> Backlog {
    let waiting = state.objects().filter(|(_, meta)| meta.level == level && meta.live_runs > 0);
    waiting.fold(Backlog::default(), |sum, (_, meta)| Backlog {
        objects: sum.objects + 1,
        runs: sum.runs + u64::from(meta.live_runs),
        bytes: sum.bytes + u64::from(meta.bytes),
    })
}

/// The windows that are due, of flushes first, oldest first. What is in `avoided` is left out.
pub(super) fn windows(state: &State, limits: &Limits, now: TimestampMs, avoided: &BTreeSet<ObjectId>) -> Vec<Window> {
    let mut due = flushes(state, limits, now, avoided);
    due.extend(merges(state, limits, avoided));
    due
}

fn live(state: &State, level: u8, avoided: &BTreeSet<ObjectId>) -> Vec<(ObjectId, ObjectMeta)> {
    let live = state.objects().filter(|(id, meta)| meta.level == level && meta.live_runs > 0 && !avoided.contains(id));
    live.map(|(id, meta)| (id, *meta)).collect()
}

fn flushes(state: &State, limits: &Limits, now: TimestampMs, avoided: &BTreeSet<ObjectId>) -> Vec<Window> {
    let mut waiting = live(state, 0, avoided);
    let age = |meta: &ObjectMeta| now.0.saturating_sub(meta.name.written_ms().0);
    // However wrong the clocks of brokers are, what waits is bounded.
    let spared = if waiting.len() > 2 * limits.objects { i64::MIN } else { limits.rest_ms };
    waiting.retain(|(_, meta)| age(meta) >= spared);
    let (mut due, mut inputs, mut runs, mut bytes) = (Vec::new(), Vec::new(), 0, 0);
    for (id, meta) in waiting {
        let overflows = bytes + u64::from(meta.bytes) > limits.bytes;
        if overflows && !inputs.is_empty() {
            due.push(Window { level: 1, inputs: std::mem::take(&mut inputs) });
            (runs, bytes) = (0, 0);
        }
        inputs.push((id, meta));
        runs += u64::from(meta.live_runs);
        bytes += u64::from(meta.bytes);
        if inputs.len() >= limits.objects || runs >= limits.runs || bytes >= limits.bytes {
            due.push(Window { level: 1, inputs: std::mem::take(&mut inputs) });
            (runs, bytes) = (0, 0);
        }
    }
    if inputs.iter().any(|(_, meta)| age(meta) >= limits.age_ms) {
        due.push(Window { level: 1, inputs });
    }
    due
}

fn merges(state: &State, limits: &Limits, avoided: &BTreeSet<ObjectId>) -> Vec<Window> {
    let waiting = live(state, 1, avoided);
    let whole = waiting.chunks_exact(limits.merged.max(2));
    whole.map(|inputs| Window { level: 2, inputs: inputs.to_vec() }).collect()
}

/// What each partition has in the window's objects, by slot and offset. Looks through all runs.
pub(super) fn shares(state: &State, window: &Window) -> Vec<Share> {
    let inputs: BTreeSet<ObjectId> = window.inputs.iter().map(|(id, _)| *id).collect();
    let mut shares = Vec::new();
    for partition in state.partitions() {
        let (mut runs, mut has_input) = (Vec::new(), false);
        let mut end = |runs: &mut Vec<Run>, has_input: &mut bool| {
            let runs = std::mem::take(runs);
            if std::mem::take(has_input) {
                shares.push(Share { slot: partition.slot, runs });
            }
        };
        for run in partition.tail.iter() {
            let is_input = run.marker.is_none() && inputs.contains(&run.object);
            if is_input || run.marker.is_some() {
                has_input |= is_input;
                runs.push(run);
            } else {
                end(&mut runs, &mut has_input);
            }
        }
        end(&mut runs, &mut has_input);
    }
    shares
}

/// Cuts shares into outputs of about `bytes`: between partitions, or between two runs of one.
pub(super) fn outputs(shares: Vec<Share>, bytes: u64) -> Vec<Vec<Share>> {
    let (mut outputs, mut output, mut filled) = (Vec::new(), Vec::new(), 0);
    for share in shares {
        let mut rest = Share { slot: share.slot, runs: Vec::new() };
        for run in share.runs {
            if filled + u64::from(run.bytes) > bytes && filled > 0 {
                if !rest.runs.is_empty() {
                    output.push(Share { slot: rest.slot, runs: std::mem::take(&mut rest.runs) });
                }
                outputs.push(std::mem::take(&mut output));
                filled = 0;
            }
            filled += u64::from(run.bytes);
            rest.runs.push(run);
        }
        if !rest.runs.is_empty() {
            output.push(rest);
        }
    }
    if !output.is_empty() {
        outputs.push(output);
    }
    outputs
}

#[cfg(test)]
mod tests;
