//! A partition's runs in offset order, packed to about 21 bytes each. Sealed chunks of [`CHUNK_RUNS`] runs are shared
//! between clones of State; only the open chunk is copied when an older State is still in use.
use std::sync::Arc;

use crate::types::{ObjectId, Offset, TimestampMs};

/// Runs in a sealed chunk: large enough that its header hardly counts, small enough that copying an open one is cheap.
const CHUNK_RUNS: usize = 64;

/// A run as State remembers it: where it lies, and its share of the partition's offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub base_offset: Offset,
    /// The offset after its last record.
    pub end_offset: Offset,
    pub object: ObjectId,
    /// Where its first byte lies in the object.
    pub position: u32,
    pub bytes: u32,
    pub max_timestamp: TimestampMs,
}

/// 20 bytes: offset, object and timestamp are relative to the chunk's anchor.
#[derive(Clone, Copy, Debug)]
struct Packed {
    base: u32,
    object: u32,
    position: u32,
    bytes: u32,
    timestamp: i32,
}

#[derive(Clone, Debug)]
struct Chunk {
    /// Offset of the first run, and where the last one ends.
    base: i64,
    end: i64,
    /// What the runs' object numbers are relative to.
    object: u64,
    /// What the runs' timestamps are relative to, and the largest of them.
    timestamp: i64,
    max_timestamp: i64,
    runs: Vec<Packed>,
}

/// The runs of a partition, oldest first, without gaps between their offsets.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    sealed: Arc<Vec<Arc<Chunk>>>,
    open: Option<Box<Chunk>>,
    len: usize,
}

impl Tail {
    /// Adds a run at the end.
    pub(super) fn push(&mut self, run: &Run) {
        self.len += 1;
        if let Some(open) = &mut self.open {
            if open.try_push(run) {
                return;
            }
            self.seal();
        }
        self.open = Some(Box::new(Chunk::starting_with(run)));
    }

    fn seal(&mut self) {
        if let Some(mut open) = self.open.take() {
            open.runs.shrink_to_fit();
            let sealed = Arc::make_mut(&mut self.sealed);
            if sealed.len() == sealed.capacity() {
                sealed.reserve_exact(sealed.len() / 4 + 1);
            }
            sealed.push(Arc::new(*open));
        }
    }

    /// Runs that it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The runs from the one that holds `offset` on (from the first if `offset` is below it), oldest first.
    pub fn from(&self, offset: Offset) -> impl Iterator<Item = Run> + '_ {
        let first = self.sealed.partition_point(|c| c.end <= offset.0);
        let chunks = self.sealed[first..].iter().map(|c| &**c).chain(self.open.as_deref());
        chunks.flat_map(move |chunk| {
            let start = chunk.runs.partition_point(|r| chunk.base + i64::from(r.base) <= offset.0).saturating_sub(1);
            (start..chunk.runs.len()).map(|i| chunk.run(i)).filter(move |r| r.end_offset > offset)
        })
    }

    /// All runs, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Run> + '_ {
        self.from(Offset(i64::MIN))
    }

    /// The runs, oldest first, that have a record at or after `timestamp`, beginning with `offset`'s.
    pub fn from_time(&self, offset: Offset, timestamp: TimestampMs) -> impl Iterator<Item = Run> + '_ {
        let chunks = self.sealed.iter().map(|c| &**c).chain(self.open.as_deref());
        chunks
            .filter(move |c| c.end > offset.0 && c.max_timestamp >= timestamp.0)
            .flat_map(|c| (0..c.runs.len()).map(|i| c.run(i)))
            .filter(move |r| r.end_offset > offset && r.max_timestamp >= timestamp)
    }

    /// The first of the runs with the largest timestamp, among those that reach beyond `offset`.
    #[must_use]
    pub fn latest_in_time(&self, offset: Offset) -> Option<Run> {
        let best = self.from(offset).map(|r| r.max_timestamp).max()?;
        self.from_time(offset, best).next()
    }

    /// Gives up the runs that end at or below `offset`, and hands each to `dropped`.
    pub(super) fn drop_below(&mut self, offset: Offset, mut dropped: impl FnMut(Run)) {
        let whole = self.sealed.partition_point(|c| c.end <= offset.0);
        if whole > 0 {
            for chunk in Arc::make_mut(&mut self.sealed).drain(..whole) {
                (0..chunk.runs.len()).for_each(|i| dropped(chunk.run(i)));
                self.len -= chunk.runs.len();
            }
        }
        let (len, part) = if let Some(first) = Arc::make_mut(&mut self.sealed).first_mut() {
            (&mut self.len, Some(Arc::make_mut(first)))
        } else {
            (&mut self.len, self.open.as_deref_mut())
        };
        if let Some(chunk) = part {
            let gone = (0..chunk.runs.len()).take_while(|&i| chunk.run(i).end_offset <= offset).count();
            (0..gone).for_each(|i| dropped(chunk.run(i)));
            chunk.runs.drain(..gone);
            *len -= gone;
        }
        if self.open.as_ref().is_some_and(|c| c.runs.is_empty()) {
            self.open = None;
        }
    }
}

impl Chunk {
    fn starting_with(run: &Run) -> Self {
        let mut chunk = Self {
            base: run.base_offset.0,
            end: run.base_offset.0,
            object: run.object.0,
            timestamp: run.max_timestamp.0,
            max_timestamp: run.max_timestamp.0,
            runs: Vec::new(),
        };
        let pushed = chunk.try_push(run);
        assert!(pushed, "the first run of a chunk is its own anchor, so it fits");
        chunk
    }

    /// Adds `run` unless the chunk is full or the run is too far from its anchor to be packed.
    fn try_push(&mut self, run: &Run) -> bool {
        assert_eq!(self.end, run.base_offset.0, "runs follow each other without gaps");
        let base = u32::try_from(run.base_offset.0 - self.base);
        let timestamp = run.max_timestamp.0.checked_sub(self.timestamp).map(i32::try_from);
        let object = run.object.0.checked_sub(self.object).map(u32::try_from);
        let room = self.runs.len() < CHUNK_RUNS;
        let (Ok(base), Some(Ok(object)), Some(Ok(timestamp)), true) = (base, object, timestamp, room) else {
            return false;
        };
        if self.runs.len() == self.runs.capacity() {
            self.runs.reserve_exact(self.runs.len() / 4 + 2);
        }
        self.runs.push(Packed { base, object, position: run.position, bytes: run.bytes, timestamp });
        self.end = run.end_offset.0;
        self.max_timestamp = self.max_timestamp.max(run.max_timestamp.0);
        true
    }

    fn run(&self, i: usize) -> Run {
        let packed = self.runs[i];
        let end = self.runs.get(i + 1).map_or(self.end, |next| self.base + i64::from(next.base));
        Run {
            base_offset: Offset(self.base + i64::from(packed.base)),
            end_offset: Offset(end),
            object: ObjectId(self.object + u64::from(packed.object)),
            position: packed.position,
            bytes: packed.bytes,
            max_timestamp: TimestampMs(self.timestamp + i64::from(packed.timestamp)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(sizes: &[(u32, i64)]) -> (Tail, Vec<Run>) {
        let (mut tail, mut runs, mut next) = (Tail::default(), Vec::new(), 0);
        for (i, &(records, timestamp)) in sizes.iter().enumerate() {
            let run = Run {
                base_offset: Offset(next),
                end_offset: Offset(next + i64::from(records)),
                object: ObjectId((i as u64 * 7) << 30),
                position: 64,
                bytes: i as u32,
                max_timestamp: TimestampMs(timestamp),
            };
            next = run.end_offset.0;
            tail.push(&run);
            runs.push(run);
        }
        (tail, runs)
    }

    fn sizes() -> impl Strategy<Value = Vec<(u32, i64)>> {
        // Timestamps and record counts that do and do not fit beside their neighbours.
        let timestamp = prop_oneof![Just(0_i64), -5_000_000_000..5_000_000_000_i64, 1000..1100_i64];
        proptest::collection::vec((prop_oneof![1..200_u32, Just(u32::MAX)], timestamp), 0..300)
    }

    proptest! {
        #[test]
        fn equals_a_plain_list(sizes in sizes(), at: prop::sample::Index, cut: prop::sample::Index) {
            let (mut tail, mut runs) = filled(&sizes);
            prop_assert_eq!(tail.iter().collect::<Vec<_>>(), runs.clone());
            if runs.is_empty() { return Ok(()); }
            let cut_at = runs[cut.index(runs.len())].base_offset.plus(1);
            let mut dropped = Vec::new();
            let before = tail.clone();
            tail.drop_below(cut_at, |r| dropped.push(r));
            prop_assert_eq!(before.iter().collect::<Vec<_>>(), runs.clone(), "a clone does not see the drop");
            let (gone, kept): (Vec<Run>, Vec<Run>) = runs.iter().partition(|r| r.end_offset <= cut_at);
            runs = kept;
            prop_assert_eq!(dropped, gone);
            prop_assert_eq!(tail.len(), runs.len());
            if runs.is_empty() { return Ok(()); }
            let offset = runs[at.index(runs.len())].base_offset.plus(1);
            let expected: Vec<Run> = runs.iter().copied().filter(|r| r.end_offset > offset).collect();
            prop_assert_eq!(tail.from(offset).collect::<Vec<_>>(), expected.clone());
            let time = runs[at.index(runs.len())].max_timestamp;
            let expected: Vec<Run> = expected.into_iter().filter(|r| r.max_timestamp >= time).collect();
            prop_assert_eq!(tail.from_time(offset, time).collect::<Vec<_>>(), expected);
        }
    }
}
