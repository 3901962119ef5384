//! How the runs of many objects become those of one. Pure, and without a copy of records: what is written are slices of the
//! inputs, with 16 bytes anew in front of a batch that did not have its offset. Each batch is held against its checksum
//! and its place before anything is made of it, and what comes out covers the offsets that went in, each once. Of log compaction batches are left out, or become others: what it
//! leaves out at the end of a share becomes an empty batch, so that a run has something for each offset that is asked for.
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::clean::{Sieve, Verdict};
use super::plan::Share;
use crate::cache::CachedObject;
use crate::planted::{Defect, planted};
use crate::records::{BatchHeader, EndMarker, HEADER_BYTES, PREFIX_BYTES, crc_of_pieces, empty_batch, patched_prefix};
use crate::segment::{Located, ObjectHeader, ObjectWriter, locate};
use crate::state::{CompactedRun, CompactedShare, Marker, RecordEpochs, Run};
use crate::types::{LeaderEpoch, ObjectId, Offset, PartitionIndex, Slot, TimestampMs, TopicId};

/// A run gets about this long, or as long as its one batch: readers take a run at a time, and Kafka's clients ask for this
/// much of a partition (`max.partition.fetch.bytes`).
const RUN_BYTES_MAX: u32 = 1 << 20;

/// An input in memory: all of it, or stretches by where they begin.
#[derive(Clone)]
pub(super) struct Input {
    pub(super) is_final: bool,
    pub(super) stretches: BTreeMap<u32, Arc<CachedObject>>,
}

/// What is written.
pub(super) struct Merged {
    pub(super) body: Vec<Bytes>,
    pub(super) bytes: u32,
    /// One for each share, in order, from the end of the header on.
    pub(super) shares: Vec<CompactedShare>,
}

/// Why nothing can be made of the inputs.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(super) struct MergeError {
    /// The input that is not what State says.
    pub(super) object: Option<ObjectId>,
    pub(super) reason: &'static str,
}

/// What the output says of a partition, and its batches of leader epochs.
pub(super) struct Names<'a> {
    pub(super) partitions: &'a BTreeMap<Slot, (TopicId, PartitionIndex)>,
    pub(super) epochs: &'a RecordEpochs,
}

/// What log compaction leaves of the partitions that it works on; empty for other compactions.
pub(super) type Sieves = BTreeMap<Slot, Sieve>;

/// Makes one object of the shares' runs.
pub(super) fn merge(
    header: &ObjectHeader,
    shares: &[Share],
    inputs: &BTreeMap<ObjectId, Input>,
    names: &Names<'_>,
    sieves: &mut Sieves,
) -> Result<Merged, MergeError> {
    let mut writer = ObjectWriter::new(header);
    let mut merged = Vec::with_capacity(shares.len());
    for share in shares {
        let Some((topic, partition)) = names.partitions.get(&share.slot) else {
            return Err(MergeError { object: None, reason: "a partition is not known" });
        };
        let sieve = sieves.get_mut(&share.slot);
        let mut out = Output::new(&mut writer, (*topic, *partition), share.base_offset(), sieve);
        for (n, run) in share.runs.iter().enumerate() {
            if n == share.runs.len() / 2 && n > 0 && run.marker.is_none() && planted(Defect::CompactionLosesARun) {
                continue;
            }
            let epoch = |offset| names.epochs.at(share.slot, offset);
            match run.marker {
                Some(marker) if !marker.committed && planted(Defect::CompactionForgetsMarker) => {}
                Some(marker) => out.marker(run, marker, epoch(run.base_offset))?,
                None => out.run(run, inputs, epoch)?,
            }
        }
        merged.push(out.finish(share)?);
    }
    let (body, bytes) = writer.finish();
    Ok(Merged { body, bytes, shares: merged })
}

/// One share on its way into the object.
struct Output<'a> {
    writer: &'a mut ObjectWriter,
    topic: TopicId,
    partition: PartitionIndex,
    share: Vec<CompactedRun>,
    /// Where the next run of the inputs belongs: what went in up to here came out, each offset once, or was left out.
    next: Offset,
    /// Where the last batch that was written ends.
    written: Offset,
    open: Option<Open>,
    sieve: Option<&'a mut Sieve>,
    /// The last batch, if it was left out.
    left_out: Option<(BatchHeader, LeaderEpoch)>,
}

/// A run that is being written.
struct Open {
    position: u32,
    batches: u32,
    max_timestamp: TimestampMs,
    epoch: LeaderEpoch,
}

impl<'a> Output<'a> {
    fn new(
        writer: &'a mut ObjectWriter,
        (topic, partition): (TopicId, PartitionIndex),
        base: Offset,
        sieve: Option<&'a mut Sieve>,
    ) -> Self {
        Self {
            writer,
            topic,
            partition,
            share: Vec::new(),
            next: base,
            written: base,
            open: None,
            sieve,
            left_out: None,
        }
    }

    /// The control batch that ends a transaction, written down.
    fn marker(&mut self, run: &Run, marker: Marker, epoch: LeaderEpoch) -> Result<(), MergeError> {
        let batch = EndMarker {
            offset: run.base_offset,
            leader_epoch: epoch,
            producer: marker.producer,
            epoch: marker.epoch,
            committed: marker.committed,
            ended: run.max_timestamp,
        };
        let (batch, object) = (batch.batch(), None);
        let failed = |reason| MergeError { object, reason };
        self.follow(run, object)?;
        let header = BatchHeader::parse(&batch).map_err(|_| failed("the end of a transaction is no batch"))?;
        match self.judge(&header, || Some(batch.clone())).map_err(failed)? {
            Verdict::Keep => self.put(batch, epoch).map_err(failed),
            Verdict::Replace(other) => self.put(other, epoch).map_err(failed),
            Verdict::Drop => {
                self.leave_out(header, epoch);
                Ok(())
            }
        }
    }

    /// A run of the inputs begins where the one before ended.
    fn follow(&mut self, run: &Run, object: Option<ObjectId>) -> Result<(), MergeError> {
        if run.base_offset != self.next && !covers_by_defect() {
            return Err(MergeError { object, reason: "the offsets of its batches do not follow each other" });
        }
        self.next = run.end_offset;
        Ok(())
    }

    /// What becomes of a batch.
    fn judge(&mut self, header: &BatchHeader, bytes: impl FnOnce() -> Option<Bytes>) -> Result<Verdict, &'static str> {
        let Some(sieve) = &mut self.sieve else { return Ok(Verdict::Keep) };
        let bytes = bytes().ok_or("an input is shorter than its runs")?;
        sieve.judge(header, &bytes).map_err(|_| "a batch's records can't be read")
    }

    fn leave_out(&mut self, header: BatchHeader, epoch: LeaderEpoch) {
        self.left_out = Some((header, epoch));
    }

    /// Writes a whole batch that says its offsets.
    fn put(&mut self, batch: Bytes, epoch: LeaderEpoch) -> Result<(), &'static str> {
        let header = BatchHeader::parse(&batch).map_err(|_| "what was made is no batch")?;
        let offsets = (header.base_offset, header.last_offset().plus(1));
        self.place_behind(0, offsets, batch.len() as u32, time_of(&header), epoch)?;
        self.writer.push(Bytes::copy_from_slice(&patched_prefix(&header, header.base_offset, epoch)));
        self.writer.push(batch.slice(PREFIX_BYTES..));
        Ok(())
    }

    /// The batches of an input's run.
    fn run(
        &mut self,
        run: &Run,
        inputs: &BTreeMap<ObjectId, Input>,
        epoch: impl Fn(Offset) -> LeaderEpoch,
    ) -> Result<(), MergeError> {
        let failed = |reason| MergeError { object: Some(run.object), reason };
        let input = inputs.get(&run.object).ok_or_else(|| failed("an input was not read"))?;
        let stretch = input.stretches.range(..=run.position).next_back();
        let stretch = stretch.ok_or_else(|| failed("an input was not read where a run lies"))?.1;
        self.follow(run, Some(run.object))?;
        let batches = checked_batches(run, input.is_final, stretch).map_err(failed)?;
        let mut prefixes = BytesMut::with_capacity(batches.len() * PREFIX_BYTES);
        for batch in &batches {
            prefixes.extend_from_slice(&patched_prefix(&batch.header, batch.base_offset, epoch(batch.base_offset)));
        }
        let mut prefixes = prefixes.freeze();
        let mut as_it_is: Option<std::ops::Range<u32>> = None;
        for batch in &batches {
            let (epoch, prefix) = (epoch(batch.base_offset), prefixes.split_to(PREFIX_BYTES));
            let header = BatchHeader { base_offset: batch.base_offset, ..batch.header };
            let verdict = self.judge(&header, || whole(stretch, batch)).map_err(failed)?;
            if verdict != Verdict::Keep {
                self.take(stretch, as_it_is.take(), run)?;
                match verdict {
                    Verdict::Replace(other) => self.put(other, epoch).map_err(failed)?,
                    _ => self.leave_out(header, epoch),
                }
                continue;
            }
            let timestamp = time_of(&batch.header);
            let range = batch.position..batch.position + batch.bytes;
            let offsets = (batch.base_offset, batch.end_offset);
            let unwritten = as_it_is.as_ref().map_or(0, |r| r.end - r.start);
            if self.must_end(unwritten, batch.bytes, epoch) {
                self.take(stretch, as_it_is.take(), run)?;
            }
            let unwritten = as_it_is.as_ref().map_or(0, |r| r.end - r.start);
            self.place_behind(unwritten, offsets, batch.bytes, timestamp, epoch).map_err(failed)?;
            let is_final = batch.header.base_offset == batch.base_offset && batch.header.leader_epoch == epoch;
            if is_final {
                as_it_is = Some(as_it_is.map_or(range.start, |r| r.start)..range.end);
            } else {
                self.take(stretch, as_it_is.take(), run)?;
                self.writer.push(prefix);
                self.take(stretch, Some(range.start + PREFIX_BYTES as u32..range.end), run)?;
            }
        }
        self.take(stretch, as_it_is, run)
    }

    /// Writes slices of an input.
    fn take(
        &mut self,
        stretch: &CachedObject,
        range: Option<std::ops::Range<u32>>,
        run: &Run,
    ) -> Result<(), MergeError> {
        let Some(range) = range else { return Ok(()) };
        let mut slices: Vec<Bytes> = Vec::new();
        if !stretch.slice_into(range, &mut slices) {
            return Err(MergeError { object: Some(run.object), reason: "an input is shorter than its runs" });
        }
        slices.into_iter().for_each(|slice| self.writer.push(slice));
        Ok(())
    }

    /// Whether the open run, of which `unwritten` bytes are still to be written, has no place for a batch.
    fn must_end(&self, unwritten: u32, bytes: u32, epoch: LeaderEpoch) -> bool {
        let Some(open) = &self.open else { return false };
        let filled = self.writer.position() - open.position + unwritten;
        open.epoch != epoch || filled + bytes > RUN_BYTES_MAX
    }

    /// Counts the next batch, which will be written behind `unwritten` bytes of earlier ones. A run has batches of one epoch, and
    /// ends where its last one ends: what was left out behind that belongs to the next.
    fn place_behind(
        &mut self,
        unwritten: u32,
        (base, end): (Offset, Offset),
        bytes: u32,
        timestamp: TimestampMs,
        epoch: LeaderEpoch,
    ) -> Result<(), &'static str> {
        if base < self.written && !covers_by_defect() {
            return Err("the offsets of its batches do not follow each other");
        }
        if self.must_end(unwritten, bytes, epoch) {
            assert_eq!(unwritten, 0, "a run ends when its batches are written");
            self.end_run(self.written);
        }
        let position = self.writer.position();
        let none = TimestampMs(i64::MIN);
        let open = self.open.get_or_insert(Open { position, batches: 0, max_timestamp: none, epoch });
        open.batches += 1;
        open.max_timestamp = open.max_timestamp.max(timestamp);
        self.written = end;
        self.left_out = None;
        Ok(())
    }

    /// Ends the open run, behind which the log goes on at `end`.
    fn end_run(&mut self, end: Offset) {
        let Some(open) = self.open.take() else { return };
        self.writer.end_run(self.topic, self.partition, open.position, open.batches);
        let (bytes, max_timestamp) = (self.writer.position() - open.position, open.max_timestamp);
        self.share.push(CompactedRun { end_offset: end, bytes, max_timestamp });
    }

    fn finish(mut self, share: &Share) -> Result<CompactedShare, MergeError> {
        let failed = |reason| MergeError { object: None, reason };
        if let Some((header, epoch)) = self.left_out.take() {
            self.put(empty_batch(&header), epoch).map_err(failed)?;
        }
        let ends = [self.next, self.written];
        if ends != [share.end_offset(); 2] && !covers_by_defect() {
            return Err(failed("what came out ends elsewhere than what went in"));
        }
        self.end_run(share.end_offset());
        Ok(CompactedShare { slot: share.slot, base_offset: share.base_offset(), runs: self.share })
    }
}

/// Defects that lose something do not look whether anything is lost.
fn covers_by_defect() -> bool {
    planted(Defect::CompactionLosesARun) || planted(Defect::CompactionForgetsMarker)
}

/// What a batch has for a largest timestamp; the end of a transaction has none (H14).
fn time_of(header: &BatchHeader) -> TimestampMs {
    if header.is_control() { TimestampMs(i64::MIN) } else { header.max_timestamp }
}

/// A batch in one piece.
pub(super) fn whole(object: &CachedObject, batch: &Located) -> Option<Bytes> {
    let mut pieces: Vec<Bytes> = Vec::new();
    if !object.slice_into(batch.position..batch.position + batch.bytes, &mut pieces) {
        return None;
    }
    match pieces.as_slice() {
        [one] => Some(one.clone()),
        more => Some(more.concat().into()),
    }
}

/// The batches of a run, each as its checksum says, which cover the run's offsets.
pub(super) fn checked_batches(run: &Run, is_final: bool, object: &CachedObject) -> Result<Vec<Located>, &'static str> {
    let bounds = run.bounds(is_final);
    let (mut at, mut next, mut batches) = (run.position, run.base_offset, Vec::new());
    while at < bounds.end {
        let mut header = [0; HEADER_BYTES];
        if !object.copy_to(at, &mut header) {
            return Err("an input is shorter than its runs");
        }
        let batch = locate(&header, at, next, &bounds).map_err(|_| "a run holds something else than its batches")?;
        let mut pieces: Vec<Bytes> = Vec::new();
        if !object.slice_into(at..at + batch.bytes, &mut pieces) {
            return Err("an input is shorter than its runs");
        }
        if crc_of_pieces(pieces.iter().map(|piece| &piece[..])) != batch.header.crc {
            return Err("a batch's checksum does not hold");
        }
        (at, next) = (at + batch.bytes, batch.end_offset);
        batches.push(batch);
    }
    if next != run.end_offset && !covers_by_defect() {
        return Err("a run has other offsets than its batches");
    }
    Ok(batches)
}

#[cfg(test)]
mod tests;
