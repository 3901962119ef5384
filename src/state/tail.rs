//! A partition's runs in offset order, packed to about 12 bytes each: a run is written as its difference to the one
//! before. The markers of transactions stand among them, one offset each: they are in no object. Sealed chunks of
//! [`CHUNK_RUNS`] runs are shared between clones of State; only the open chunk is copied when an older State is still in use.
use std::cmp::Reverse;
use std::sync::Arc;

use super::varint;
use crate::records::MARKER_BYTES;
use crate::segment::RunBounds;
use crate::types::{ObjectId, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// Runs in a sealed chunk: large enough that its header hardly counts, small enough that copying an open one, or reading
/// one through, takes well below a µs.
const CHUNK_RUNS: u32 = 64;

/// Room for one run more, in bytes, that a copied chunk has: it is copied to be added to.
const RUN_ROOM: usize = 16;

/// A run as State remembers it: where it lies, and its share of the partition's offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub base_offset: Offset,
    /// The offset after its last record.
    pub end_offset: Offset,
    /// Of a marker: none, as its position.
    pub object: ObjectId,
    /// Where its first byte lies in the object.
    pub position: u32,
    pub bytes: u32,
    /// Of a marker: when its transaction ended.
    pub max_timestamp: TimestampMs,
    /// It is no run of an object but the end of a transaction.
    pub marker: Option<Marker>,
}

impl Run {
    /// Where its batches lie. `is_final` says whether their headers have their offsets.
    #[must_use]
    pub fn bounds(&self, is_final: bool) -> RunBounds {
        let Self { base_offset, end_offset, position, bytes, .. } = *self;
        RunBounds { position, end: position.saturating_add(bytes), base_offset, end_offset, is_final }
    }
}

/// The end of a transaction in one partition. Readers get a control batch for it, which is made when they come (H14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    pub producer: ProducerId,
    pub epoch: ProducerEpoch,
    pub committed: bool,
}

/// What a marker has for an object; no object gets this number.
const NO_OBJECT: ObjectId = ObjectId(u64::MAX);

impl Run {
    /// The marker of a transaction that ended at `ended`.
    #[must_use]
    pub(super) fn marker(offset: Offset, marker: Marker, ended: TimestampMs) -> Self {
        Self {
            base_offset: offset,
            end_offset: offset.plus(1),
            object: NO_OBJECT,
            position: 0,
            bytes: MARKER_BYTES,
            max_timestamp: ended,
            marker: Some(marker),
        }
    }
}

/// Neighbouring runs, packed.
#[derive(Debug)]
struct Chunk {
    /// Offset of the first run, and where the last one ends.
    base: i64,
    end: i64,
    /// The largest timestamp of its runs.
    max_timestamp: i64,
    /// Object and timestamp of the last run, which the next one is written relative to.
    object: u64,
    timestamp: i64,
    len: u32,
    /// Per run as LEB128: records; object minus the last run's (signed); position; bytes; timestamp minus the last
    /// run's (signed). Per marker: 0; producer (signed); epoch << 1 | committed; timestamp as of a run.
    packed: Vec<u8>,
}

/// The runs of a partition, oldest first, without gaps between their offsets.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    sealed: Arc<Vec<Arc<Chunk>>>,
    open: Chunk,
    len: usize,
}

impl Tail {
    /// Adds a run at the end.
    pub(super) fn push(&mut self, run: &Run) {
        if self.open.len == CHUNK_RUNS {
            self.seal();
        }
        self.open.push(run);
        self.len += 1;
    }

    fn seal(&mut self) {
        let mut open = std::mem::take(&mut self.open);
        open.packed.shrink_to_fit();
        let sealed = Arc::make_mut(&mut self.sealed);
        if sealed.len() == sealed.capacity() {
            sealed.reserve_exact(sealed.len() / 4 + 1);
        }
        sealed.push(Arc::new(open));
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
        let chunks = self.sealed[first..].iter().map(|c| &**c).chain(Some(&self.open).filter(|c| c.end > offset.0));
        chunks.flat_map(Chunk::runs).filter(move |r| r.end_offset > offset)
    }

    /// All runs, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Run> + '_ {
        self.from(Offset(i64::MIN))
    }

    /// The runs, oldest first, that have a record at or after `timestamp`, beginning with `offset`'s. Markers are no
    /// records (H14).
    pub fn from_time(&self, offset: Offset, timestamp: TimestampMs) -> impl Iterator<Item = Run> + '_ {
        let chunks = self.sealed.iter().map(|c| &**c).chain([&self.open]);
        chunks
            .filter(move |c| c.end > offset.0 && c.max_timestamp >= timestamp.0)
            .flat_map(Chunk::runs)
            .filter(move |r| r.marker.is_none() && r.end_offset > offset && r.max_timestamp >= timestamp)
    }

    /// The first of the runs with the largest timestamp, among those that reach beyond `offset`; the one that comes next
    /// by this order after `last`, if there is one.
    #[must_use]
    pub fn latest_in_time(&self, offset: Offset, last: Option<Run>) -> Option<Run> {
        let order = |run: &Run| (run.max_timestamp, Reverse(run.base_offset));
        let after = |run: &Run| run.marker.is_none() && last.is_none_or(|last| order(run) < order(&last));
        self.from(offset).filter(after).max_by_key(order)
    }

    /// Puts `runs`, which cover the same offsets, in the place of those from `base` to `end`, where two runs begin and end.
    /// Only the chunks that hold these are made anew.
    pub(super) fn replace(&mut self, base: Offset, end: Offset, runs: &[Run]) {
        let first = self.sealed.partition_point(|c| c.end <= base.0);
        let last = self.sealed.partition_point(|c| c.base < end.0).max(first);
        let reaches_open = self.open.len > 0 && self.open.base < end.0;
        let inside = |run: &Run| run.base_offset >= base && run.end_offset <= end;
        // What is left of the chunk before takes them in if there is room, or each replacement would leave a small one.
        let before = first.checked_sub(1).filter(|at| self.sealed[*at].len as usize + runs.len() < CHUNK_RUNS as usize);
        let first = before.unwrap_or(first);
        let old = self.sealed[first..last].iter().map(|c| &**c).chain(reaches_open.then_some(&self.open));
        let old: Vec<Run> = old.flat_map(Chunk::runs).collect();
        let (kept_before, rest): (Vec<Run>, Vec<Run>) = old.into_iter().partition(|run| run.end_offset <= base);
        let gone = rest.iter().filter(|run| inside(run)).count();
        let kept_after = rest.into_iter().filter(|run| !inside(run));
        let mut rebuilt = vec![Chunk::default()];
        for run in kept_before.into_iter().chain(runs.iter().copied()).chain(kept_after) {
            if rebuilt.last().is_none_or(|chunk| chunk.len == CHUNK_RUNS) {
                rebuilt.push(Chunk::default());
            }
            rebuilt.last_mut().expect("there is one at least").push(&run);
        }
        rebuilt.retain(|chunk| chunk.len > 0);
        if reaches_open {
            self.open = rebuilt.pop().unwrap_or_default();
        }
        let rebuilt = rebuilt.into_iter().map(|mut chunk| {
            chunk.packed.shrink_to_fit();
            Arc::new(chunk)
        });
        Arc::make_mut(&mut self.sealed).splice(first..last, rebuilt);
        self.len = self.len - gone + runs.len();
    }

    /// Gives up the runs that end at or below `offset`, and hands each to `dropped`.
    pub(super) fn drop_below(&mut self, offset: Offset, mut dropped: impl FnMut(Run)) {
        let whole = self.sealed.partition_point(|c| c.end <= offset.0);
        if whole > 0 {
            for chunk in Arc::make_mut(&mut self.sealed).drain(..whole) {
                chunk.runs().for_each(&mut dropped);
                self.len -= chunk.len as usize;
            }
        }
        let part = self.sealed.first().map_or(&self.open, |c| c);
        let (gone, kept): (Vec<Run>, Vec<Run>) = part.runs().partition(|r| r.end_offset <= offset);
        if gone.is_empty() {
            return;
        }
        let mut rest = Chunk::default();
        kept.iter().for_each(|r| rest.push(r));
        if let Some(first) = Arc::make_mut(&mut self.sealed).first_mut() {
            *first = Arc::new(rest);
        } else {
            self.open = rest;
        }
        self.len -= gone.len();
        gone.into_iter().for_each(dropped);
    }
}

impl Chunk {
    fn push(&mut self, run: &Run) {
        if self.len == 0 {
            (self.base, self.end) = (run.base_offset.0, run.base_offset.0);
        }
        assert_eq!(self.end, run.base_offset.0, "runs follow each other without gaps");
        let timestamp = varint::zigzag(run.max_timestamp.0.wrapping_sub(self.timestamp));
        if let Some(marker) = run.marker {
            self.put(&[0, varint::zigzag(marker.producer.0), packed_end(marker), timestamp]);
        } else {
            let records = (run.end_offset.0 - run.base_offset.0) as u64;
            let object = varint::zigzag(run.object.0.wrapping_sub(self.object) as i64);
            self.put(&[records, object, u64::from(run.position), u64::from(run.bytes), timestamp]);
            self.max_timestamp = self.max_timestamp.max(run.max_timestamp.0);
            self.object = run.object.0;
        }
        self.end = run.end_offset.0;
        self.timestamp = run.max_timestamp.0;
        self.len += 1;
    }

    fn put(&mut self, fields: &[u64]) {
        let bytes = fields.iter().map(|&field| varint::len(field)).sum::<usize>();
        if self.packed.capacity() - self.packed.len() < bytes {
            self.packed.reserve_exact(bytes + self.packed.len() / 4);
        }
        fields.iter().for_each(|&field| varint::put(&mut self.packed, field));
    }

    fn runs(&self) -> Runs<'_> {
        Runs { packed: &self.packed, next: self.base, object: 0, timestamp: 0 }
    }
}

/// A marker's epoch and result in one number.
pub(super) fn packed_end(marker: Marker) -> u64 {
    u64::from(marker.epoch.0.cast_unsigned()) << 1 | u64::from(marker.committed)
}

/// What [`packed_end`] made, of this producer; `None` if it is no such number.
pub(super) fn unpacked_end(producer: ProducerId, packed: u64) -> Option<Marker> {
    let epoch = ProducerEpoch(u16::try_from(packed >> 1).ok()?.cast_signed());
    Some(Marker { producer, epoch, committed: packed & 1 == 1 })
}

impl Default for Chunk {
    fn default() -> Self {
        Self { base: 0, end: 0, max_timestamp: i64::MIN, object: 0, timestamp: 0, len: 0, packed: Vec::new() }
    }
}

impl Clone for Chunk {
    fn clone(&self) -> Self {
        let mut packed = Vec::with_capacity(self.packed.len() + RUN_ROOM);
        packed.extend_from_slice(&self.packed);
        Self { packed, ..*self }
    }
}

/// Reads a chunk's runs.
struct Runs<'a> {
    packed: &'a [u8],
    /// Base offset of the next run; object and timestamp of the last one.
    next: i64,
    object: u64,
    timestamp: i64,
}

impl Runs<'_> {
    fn read(&mut self) -> Option<Run> {
        let base_offset = Offset(self.next);
        let records = varint::take(&mut self.packed)?;
        if records == 0 {
            let producer = ProducerId(varint::take_signed(&mut self.packed)?);
            let marker = unpacked_end(producer, varint::take(&mut self.packed)?)?;
            self.timestamp = self.timestamp.wrapping_add(varint::take_signed(&mut self.packed)?);
            self.next = self.next.wrapping_add(1);
            return Some(Run::marker(base_offset, marker, TimestampMs(self.timestamp)));
        }
        self.next = self.next.wrapping_add_unsigned(records);
        self.object = self.object.wrapping_add_signed(varint::take_signed(&mut self.packed)?);
        let (position, bytes) = (varint::take_u32(&mut self.packed)?, varint::take_u32(&mut self.packed)?);
        self.timestamp = self.timestamp.wrapping_add(varint::take_signed(&mut self.packed)?);
        let (end_offset, object) = (Offset(self.next), ObjectId(self.object));
        let max_timestamp = TimestampMs(self.timestamp);
        Some(Run { base_offset, end_offset, object, position, bytes, max_timestamp, marker: None })
    }
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let more = !self.packed.is_empty();
        more.then(|| self.read().expect("a chunk holds what `push` wrote"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(sizes: &[(u32, i64)]) -> (Tail, Vec<Run>) {
        let (mut tail, mut runs, mut next) = (Tail::default(), Vec::new(), 0);
        for (i, &(records, timestamp)) in sizes.iter().enumerate() {
            let ended = (records == 0).then_some(Marker {
                producer: ProducerId(timestamp),
                epoch: ProducerEpoch((i % 7) as i16 - 1),
                committed: i % 2 == 0,
            });
            let run = ended.map(|marker| Run::marker(Offset(next), marker, TimestampMs(timestamp)));
            let run = run.unwrap_or(Run {
                base_offset: Offset(next),
                end_offset: Offset(next + i64::from(records)),
                object: ObjectId((i as u64 * 7) << 30),
                position: 64,
                bytes: i as u32,
                max_timestamp: TimestampMs(timestamp),
                marker: None,
            });
            next = run.end_offset.0;
            tail.push(&run);
            runs.push(run);
        }
        (tail, runs)
    }

    fn sizes() -> impl Strategy<Value = Vec<(u32, i64)>> {
        // Timestamps and record counts that differ little and much from their neighbours'.
        let timestamp = prop_oneof![Just(0_i64), -5_000_000_000..5_000_000_000_i64, 1000..1100_i64];
        proptest::collection::vec((prop_oneof![0..200_u32, Just(0), Just(u32::MAX)], timestamp), 0..300)
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
            let timed = |r: &Run| r.marker.is_none() && r.max_timestamp >= time;
            let expected: Vec<Run> = expected.into_iter().filter(timed).collect();
            prop_assert_eq!(tail.from_time(offset, time).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn a_replacement_equals_that_in_a_plain_list(
            sizes in sizes(),
            steps in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1..150_usize), 1..6),
            more in 0..70_u32,
        ) {
            let (mut tail, mut runs) = filled(&sizes);
            for (n, (from, count, pieces)) in steps.into_iter().enumerate() {
                if runs.is_empty() { return Ok(()); }
                let from = from.index(runs.len());
                let to = from + 1 + count.index(runs.len() - from);
                let (base, end) = (runs[from].base_offset, runs[to - 1].end_offset);
                let offsets = (end.0 - base.0) as u64;
                let pieces = (pieces as u64).min(offsets);
                let edge = |i: u64| base.plus(offsets / pieces * i);
                let new: Vec<Run> = (0..pieces).map(|i| Run {
                    base_offset: edge(i),
                    end_offset: if i + 1 == pieces { end } else { edge(i + 1) },
                    object: ObjectId(1000 + n as u64),
                    position: 64 + i as u32,
                    bytes: 7,
                    max_timestamp: TimestampMs(i64::MIN + i as i64),
                    marker: None,
                }).collect();
                let before = tail.clone();
                tail.replace(base, end, &new);
                prop_assert_eq!(before.iter().collect::<Vec<_>>(), runs.clone(), "a clone does not see it");
                runs.splice(from..to, new);
                prop_assert_eq!(tail.iter().collect::<Vec<_>>(), runs.clone());
                prop_assert_eq!(tail.len(), runs.len());
                prop_assert!(tail.sealed.iter().all(|c| (1..=CHUNK_RUNS).contains(&c.len)));
            }
            // It grows on as before.
            for i in 0..more {
                let next = runs.last().map_or(Offset(0), |r| r.end_offset);
                let run = Run { base_offset: next, end_offset: next.plus(1), object: ObjectId(5), position: i, bytes: 1,
                    max_timestamp: TimestampMs(0), marker: None };
                tail.push(&run);
                runs.push(run);
            }
            prop_assert_eq!(tail.iter().collect::<Vec<_>>(), runs);
        }
    }
}
