//! Batches out of cached objects: the walk over batch headers, and the 16 bytes that each gets anew.
use bytes::{Bytes, BytesMut};

use super::Records;
use crate::cache::CachedObject;
use crate::records::{BatchHeader, HEADER_BYTES, PREFIX_BYTES, patched_prefix};
use crate::state::Run;
use crate::types::{LeaderEpoch, Offset};

/// Batches carry the lowest leader epoch of their history generation, on every broker and day (H11).
pub(super) const BATCH_EPOCH: LeaderEpoch = LeaderEpoch(0);

/// A batch in an object, and its place in the log.
pub(super) struct Located {
    pub(super) header: BatchHeader,
    pub(super) base_offset: Offset,
    /// Where it lies in the object.
    pub(super) position: u32,
    pub(super) bytes: u32,
}

/// Walks the batches of `run`, oldest first.
pub(super) struct Walk<'a> {
    object: &'a CachedObject,
    position: u32,
    end: u32,
    next: Offset,
}

/// The object does not hold what State says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contradiction;

impl<'a> Walk<'a> {
    pub(super) fn new(object: &'a CachedObject, run: &Run) -> Self {
        Self { object, position: run.position, end: run.position.saturating_add(run.bytes), next: run.base_offset }
    }

    fn step(&mut self) -> Result<Located, Contradiction> {
        let mut header = [0; HEADER_BYTES];
        if !self.object.copy_to(self.position, &mut header) {
            return Err(Contradiction);
        }
        let header = BatchHeader::parse(&header).map_err(|_| Contradiction)?;
        let bytes = u32::try_from(header.total_bytes()).map_err(|_| Contradiction)?;
        let (position, base_offset) = (self.position, self.next);
        self.position = position.checked_add(bytes).filter(|at| *at <= self.end).ok_or(Contradiction)?;
        self.next = base_offset.plus(u64::from(header.records()));
        Ok(Located { header, base_offset, position, bytes })
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Located, Contradiction>;

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

/// Adds the batches of `run` from `offset` on to `out`, until `bytes_max` bytes are in it; the first batch of all is
/// taken whatever its size. Gives whether there is room for more. Where the bytes are not `copied` they are slices of the
/// object, which must be held as long as they are used.
pub(super) fn append(
    out: &mut Records,
    object: &CachedObject,
    run: &Run,
    offset: Offset,
    bytes_max: usize,
    copied: bool,
) -> Result<bool, Contradiction> {
    let mut taken = Vec::new();
    let mut room = true;
    for batch in Walk::new(object, run) {
        let batch = batch?;
        if batch.base_offset.plus(u64::from(batch.header.records())) <= offset {
            continue;
        }
        if out.bytes > 0 && out.bytes + batch.bytes as usize > bytes_max {
            room = false;
            break;
        }
        out.bytes += batch.bytes as usize;
        out.records += u64::from(batch.header.records());
        taken.push(batch);
    }
    if copied {
        copy(out, object, &taken)?;
    } else {
        splice(out, object, &taken)?;
    }
    Ok(room)
}

fn prefix(batch: &Located) -> [u8; PREFIX_BYTES] {
    patched_prefix(&batch.header, batch.base_offset, BATCH_EPOCH)
}

/// The taken batches as buffers: fresh prefixes, of which all share one allocation, and slices of the object.
fn splice(out: &mut Records, object: &CachedObject, taken: &[Located]) -> Result<(), Contradiction> {
    let mut prefixes = BytesMut::with_capacity(taken.len() * PREFIX_BYTES);
    taken.iter().for_each(|batch| prefixes.extend_from_slice(&prefix(batch)));
    let prefixes: Bytes = prefixes.freeze();
    for (i, batch) in taken.iter().enumerate() {
        out.chunks.push(prefixes.slice(i * PREFIX_BYTES..(i + 1) * PREFIX_BYTES));
        let rest = batch.position + PREFIX_BYTES as u32..batch.position + batch.bytes;
        if !object.slice_into(rest, &mut out.chunks) {
            return Err(Contradiction);
        }
    }
    Ok(())
}

/// The taken batches in one buffer of their own.
fn copy(out: &mut Records, object: &CachedObject, taken: &[Located]) -> Result<(), Contradiction> {
    let mut buffer = vec![0; taken.iter().map(|b| b.bytes as usize).sum()];
    let mut at = 0;
    for batch in taken {
        let place = &mut buffer[at..at + batch.bytes as usize];
        if !object.copy_to(batch.position, place) {
            return Err(Contradiction);
        }
        place[..PREFIX_BYTES].copy_from_slice(&prefix(batch));
        at += batch.bytes as usize;
    }
    if !buffer.is_empty() {
        out.chunks.push(buffer.into());
    }
    Ok(())
}
