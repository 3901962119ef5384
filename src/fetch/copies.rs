//! Batches that are copied, because the copies pin less than what they lie in: many in a buffer that is used again, and
//! patched there.
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

use super::Records;
use super::assemble::{Broken, Target, choose};
use crate::cache::CachedObject;
use crate::memory::{Buffer, Buffers};
use crate::planted::{Defect, planted};
use crate::records::{PREFIX_BYTES, patched_prefix};
use crate::state::Run;
use crate::types::LeaderEpoch;

/// Copies go into buffers of this size.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

/// The copied batches of one partition, until all are there.
pub(super) struct Copies {
    home: Arc<Buffers>,
    buffers: Vec<Buffer>,
    /// Bytes of the last buffer that are in use.
    filled: usize,
    /// Bytes that may still come.
    expected: usize,
    holes: Vec<Hole>,
}

/// A piece of the partition that lies in one of the buffers.
struct Hole {
    piece: usize,
    buffer: usize,
    range: Range<usize>,
}

impl Copies {
    /// For a partition of about `expected` bytes.
    pub(super) fn new(home: Arc<Buffers>, expected: usize) -> Self {
        Self { home, buffers: Vec::new(), filled: 0, expected, holes: Vec::new() }
    }

    /// Adds copies of the batches of `run` that `target` wants. Gives whether there is room for more.
    pub(super) fn append_object(
        &mut self,
        out: &mut Records,
        object: &CachedObject,
        run: &Run,
        target: Target,
    ) -> Result<bool, Broken> {
        let (taken, room) = choose(out, object, run, target)?;
        for batch in taken {
            let bytes = batch.bytes as usize;
            let (start, place) = self.space(out, bytes);
            if !object.copy_to(batch.position, place) {
                return Err(Broken::Contradiction);
            }
            place[..PREFIX_BYTES].copy_from_slice(&target.prefix(&batch));
            if planted(Defect::EpochOfCopies) {
                place[..PREFIX_BYTES].copy_from_slice(&patched_prefix(
                    &batch.header,
                    batch.base_offset,
                    LeaderEpoch(1),
                ));
            }
            self.keep(out, start..start + bytes);
        }
        Ok(room)
    }

    /// Bytes of the last buffer that are not in use.
    pub(super) fn free(&self) -> usize {
        self.buffers.last().map_or(0, |b| b.as_ref().len() - self.filled)
    }

    /// Room for the next `bytes` bytes, and where it begins in the last buffer.
    pub(super) fn space(&mut self, out: &mut Records, bytes: usize) -> (usize, &mut [u8]) {
        if self.buffers.is_empty() || self.free() < bytes {
            let buffer = self.home.take(bytes.max(self.expected.min(BUFFER_BYTES)));
            out.own_bytes += buffer.as_ref().len();
            self.buffers.push(buffer);
            self.filled = 0;
        }
        let (start, last) = (self.filled, self.buffers.len() - 1);
        (start, &mut self.buffers[last].bytes_mut()[start..start + bytes])
    }

    /// Takes `range` of the last buffer as the partition's next bytes.
    pub(super) fn keep(&mut self, out: &mut Records, range: Range<usize>) {
        self.filled = range.end;
        self.expected = self.expected.saturating_sub(range.len());
        let buffer = self.buffers.len() - 1;
        if let Some(last) = self.holes.last_mut()
            && (last.piece + 1, last.buffer, last.range.end) == (out.chunks.len(), buffer, range.start)
        {
            last.range.end = range.end;
            return;
        }
        self.holes.push(Hole { piece: out.chunks.len(), buffer, range });
        out.chunks.push(Bytes::new().into());
    }

    /// Puts the copied pieces in their places.
    pub(super) fn finish(self, out: &mut Records) {
        let buffers: Vec<Bytes> = self.buffers.into_iter().map(Bytes::from_owner).collect();
        for Hole { piece, buffer, range } in self.holes {
            out.chunks[piece] = buffers[buffer].slice(range).into();
        }
    }
}
