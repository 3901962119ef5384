//! Batches out of cached objects: the walk over batch headers, and the 16 bytes that each gets anew.
use bytes::{Bytes, BytesMut};

use super::Records;
use crate::cache::CachedObject;
use crate::planted::{Defect, planted};
use crate::records::{EndMarker, HEADER_BYTES, PREFIX_BYTES, patched_prefix};
use crate::segment::{Located, RunBounds, locate};
use crate::state::{Marker, RecordEpochs, Run};
use crate::types::{LeaderEpoch, Offset, Slot};

/// Which batches of a partition are wanted.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    /// The first record's; batches that end at or below it are left out.
    pub(super) offset: Offset,
    /// Batches that begin at or beyond it are left out.
    pub(super) until: Offset,
    pub(super) bytes_max: usize,
    /// What they get.
    pub(super) epoch: LeaderEpoch,
    /// The run is of a compacted object: its headers say the offsets and epochs.
    pub(super) is_final: bool,
    /// Where the history was forked, perhaps since that was written: what tells the epoch of each batch.
    pub(super) forked: Option<(&'a RecordEpochs, Slot)>,
}

impl Target<'_> {
    /// The leader epoch that a batch gets.
    pub(super) fn epoch_of(&self, batch: &Located) -> LeaderEpoch {
        match self.forked {
            Some((epochs, slot)) if self.is_final => epochs.at(slot, batch.base_offset),
            _ => self.epoch,
        }
    }

    /// Whether the batch goes out as it lies in its object.
    fn is_as_stored(&self, batch: &Located) -> bool {
        self.is_final && batch.header.leader_epoch == self.epoch_of(batch)
    }

    /// The first bytes of the batch as clients get them.
    pub(super) fn prefix(&self, batch: &Located) -> [u8; PREFIX_BYTES] {
        patched_prefix(&batch.header, batch.base_offset, self.epoch_of(batch))
    }

    /// Whether there is room for a batch of `bytes`. The first of all is taken whatever its size.
    pub(super) fn admits(&self, out: &Records, bytes: usize) -> bool {
        (out.bytes == 0 && !planted(Defect::FirstBatchBounded)) || out.bytes + bytes <= self.bytes_max
    }
}

impl Records {
    pub(super) fn count(&mut self, batch: &Located) {
        self.bytes += batch.bytes as usize;
        if !batch.header.is_control() {
            self.records += u64::from(batch.header.records());
        }
        self.end = batch.end_offset;
    }
}

/// Why an object's batches can't be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The object does not hold what State says of it.
    Contradiction,
    /// It could not be read now.
    Unreadable,
}

impl Broken {
    pub(super) fn reading(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::Contradiction,
            _ => Self::Unreadable,
        }
    }
}

/// Walks the batches of `run`, oldest first.
pub(super) struct Walk<'a> {
    object: &'a CachedObject,
    position: u32,
    next: Offset,
    bounds: RunBounds,
}

impl<'a> Walk<'a> {
    pub(super) fn new(object: &'a CachedObject, bounds: RunBounds) -> Self {
        Self { object, position: bounds.position, next: bounds.base_offset, bounds }
    }

    fn step(&mut self) -> Result<Located, Broken> {
        let mut header = [0; HEADER_BYTES];
        if !self.object.copy_to(self.position, &mut header) {
            return Err(Broken::Contradiction);
        }
        let batch = locate(&header, self.position, self.next, &self.bounds).map_err(|_| Broken::Contradiction)?;
        self.position += batch.bytes;
        self.next = batch.end_offset;
        Ok(batch)
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Located, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.bounds.end {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.position = self.bounds.end;
        }
        Some(step)
    }
}

/// The batches of `run` that `target` wants, counted in `out`, and whether there is room for more.
pub(super) fn choose(
    out: &mut Records,
    object: &CachedObject,
    run: &Run,
    target: Target,
) -> Result<(Vec<Located>, bool), Broken> {
    let mut taken = Vec::new();
    for batch in Walk::new(object, run.bounds(target.is_final)) {
        let batch = batch?;
        let last = batch.header.records() > 1 && batch.end_offset == target.offset.plus(1);
        if batch.end_offset <= target.offset || last && planted(Defect::SkipsLastOfBatch) {
            continue;
        }
        if batch.base_offset >= target.until || !target.admits(out, batch.bytes as usize) {
            return Ok((taken, false));
        }
        out.count(&batch);
        taken.push(batch);
    }
    Ok((taken, true))
}

/// Adds the batches of `run` that `target` wants to `out`, as slices of the object, which must be held as long as they are
/// used. Gives whether there is room for more.
pub(super) fn append(out: &mut Records, object: &CachedObject, run: &Run, target: Target) -> Result<bool, Broken> {
    let (taken, room) = choose(out, object, run, target)?;
    splice(out, object, &taken, target)?;
    Ok(room)
}

/// Adds the control batch that ends a transaction. Gives whether there is room for more.
pub(super) fn append_marker(out: &mut Records, run: &Run, marker: Marker, target: Target) -> bool {
    if !target.admits(out, run.bytes as usize) {
        return false;
    }
    let batch = EndMarker {
        offset: run.base_offset,
        leader_epoch: target.epoch,
        producer: marker.producer,
        epoch: marker.epoch,
        committed: marker.committed,
        ended: run.max_timestamp,
    };
    let batch = batch.batch();
    out.bytes += batch.len();
    out.own_bytes += batch.len();
    out.end = run.end_offset;
    out.chunks.push(batch.into());
    true
}

/// The taken batches as buffers: fresh prefixes, of which all share one allocation, and slices of the object; what goes out
/// as it is stored is one slice however many batches it is.
fn splice(out: &mut Records, object: &CachedObject, taken: &[Located], target: Target) -> Result<(), Broken> {
    let patched = |batch: &&Located| !target.is_as_stored(batch);
    let mut prefixes = BytesMut::with_capacity(taken.iter().filter(patched).count() * PREFIX_BYTES);
    taken.iter().filter(patched).for_each(|batch| prefixes.extend_from_slice(&target.prefix(batch)));
    let mut prefixes: Bytes = prefixes.freeze();
    out.own_bytes += prefixes.len();
    let mut rest: &[Located] = taken;
    while let Some((first, behind)) = rest.split_first() {
        let mut range = first.position..first.position + first.bytes;
        rest = behind;
        if patched(&first) {
            out.chunks.push(prefixes.split_to(PREFIX_BYTES).into());
            range.start += PREFIX_BYTES as u32;
        } else {
            let stretch = rest.iter().take_while(|batch| !patched(batch)).count();
            let (whole, behind) = rest.split_at(stretch);
            range.end = whole.last().map_or(range.end, |last| last.position + last.bytes);
            rest = behind;
        }
        if !object.slice_into(range, &mut out.chunks) {
            return Err(Broken::Contradiction);
        }
    }
    Ok(())
}
