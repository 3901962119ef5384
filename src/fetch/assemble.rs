//! Batches out of cached objects: the walk over batch headers, and the 16 bytes that each gets anew.
use bytes::{Bytes, BytesMut};

use super::Records;
use crate::cache::CachedObject;
use crate::planted::{Defect, planted};
use crate::records::{BatchHeader, EndMarker, HEADER_BYTES, PREFIX_BYTES, patched_prefix};
use crate::state::{Marker, Run};
use crate::types::{LeaderEpoch, Offset};

/// A batch in an object, and its place in the log.
pub(super) struct Located {
    pub(super) header: BatchHeader,
    pub(super) base_offset: Offset,
    /// Where it lies in the object.
    pub(super) position: u32,
    pub(super) bytes: u32,
}

impl Located {
    /// The offset after its last record.
    pub(super) fn end_offset(&self) -> Offset {
        self.base_offset.plus(u64::from(self.header.records()))
    }
}

/// Which batches of a partition are wanted.
#[derive(Clone, Copy)]
pub(super) struct Target {
    /// The first record's; batches that end at or below it are left out.
    pub(super) offset: Offset,
    /// Batches that begin at or beyond it are left out.
    pub(super) until: Offset,
    pub(super) bytes_max: usize,
    /// What they get.
    pub(super) epoch: LeaderEpoch,
}

impl Target {
    /// Whether there is room for a batch of `bytes`. The first of all is taken whatever its size.
    pub(super) fn admits(&self, out: &Records, bytes: usize) -> bool {
        (out.bytes == 0 && !planted(Defect::FirstBatchBounded)) || out.bytes + bytes <= self.bytes_max
    }
}

impl Records {
    pub(super) fn count(&mut self, batch: &Located) {
        self.bytes += batch.bytes as usize;
        self.records += u64::from(batch.header.records());
        self.end = batch.end_offset();
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

/// The batch whose header `bytes` begins with. It lies at `position` of a run that ends at `end`.
pub(super) fn locate(bytes: &[u8], position: u32, end: u32, base_offset: Offset) -> Result<Located, Broken> {
    let header = BatchHeader::parse(bytes).map_err(|_| Broken::Contradiction)?;
    let bytes = u32::try_from(header.total_bytes()).map_err(|_| Broken::Contradiction)?;
    position.checked_add(bytes).filter(|at| *at <= end).ok_or(Broken::Contradiction)?;
    Ok(Located { header, base_offset, position, bytes })
}

/// Walks the batches of `run`, oldest first.
pub(super) struct Walk<'a> {
    object: &'a CachedObject,
    position: u32,
    end: u32,
    next: Offset,
}

impl<'a> Walk<'a> {
    pub(super) fn new(object: &'a CachedObject, run: &Run) -> Self {
        Self { object, position: run.position, end: run.position.saturating_add(run.bytes), next: run.base_offset }
    }

    fn step(&mut self) -> Result<Located, Broken> {
        let mut header = [0; HEADER_BYTES];
        if !self.object.copy_to(self.position, &mut header) {
            return Err(Broken::Contradiction);
        }
        let batch = locate(&header, self.position, self.end, self.next)?;
        self.position += batch.bytes;
        self.next = batch.end_offset();
        Ok(batch)
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Located, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.end {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.position = self.end;
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
    for batch in Walk::new(object, run) {
        let batch = batch?;
        let last = batch.header.records() > 1 && batch.end_offset() == target.offset.plus(1);
        if batch.end_offset() <= target.offset || last && planted(Defect::SkipsLastOfBatch) {
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
    splice(out, object, &taken, target.epoch)?;
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

pub(super) fn prefix(batch: &Located, epoch: LeaderEpoch) -> [u8; PREFIX_BYTES] {
    patched_prefix(&batch.header, batch.base_offset, epoch)
}

/// The taken batches as buffers: fresh prefixes, of which all share one allocation, and slices of the object.
fn splice(out: &mut Records, object: &CachedObject, taken: &[Located], epoch: LeaderEpoch) -> Result<(), Broken> {
    let mut prefixes = BytesMut::with_capacity(taken.len() * PREFIX_BYTES);
    taken.iter().for_each(|batch| prefixes.extend_from_slice(&prefix(batch, epoch)));
    let prefixes: Bytes = prefixes.freeze();
    out.own_bytes += prefixes.len();
    for (i, batch) in taken.iter().enumerate() {
        out.chunks.push(prefixes.slice(i * PREFIX_BYTES..(i + 1) * PREFIX_BYTES).into());
        let rest = batch.position + PREFIX_BYTES as u32..batch.position + batch.bytes;
        if !object.slice_into(rest, &mut out.chunks) {
            return Err(Broken::Contradiction);
        }
    }
    Ok(())
}
