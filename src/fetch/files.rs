//! Batches out of objects that are files here. Large ones stay in their file, and the kernel sends them from there behind
//! a patched prefix. Small ones are copied, many in one read, and patched where they lie. Blocks.
use bytes::Bytes;
use rustix::fs::{Advice, fadvise};
use rustix::io::{ReadWriteFlags, preadv2};
use std::io::IoSliceMut;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::Records;
use super::assemble::{Broken, Target};
use super::copies::{BUFFER_BYTES, Copies};
use crate::cache::ObjectFile;
use crate::records::{HEADER_BYTES, PREFIX_BYTES};
use crate::segment::{Located, RunBounds, locate};
use crate::state::Run;
use crate::types::{FileRange, Offset, Piece};

/// Batches from this size on are sent from their file: two calls of the kernel a batch cost less than two copies of it.
const SENT_BYTES_MIN: usize = 32 << 10;

/// What is left of a run is read at once, without a look at its first header, if it is at most this long.
const WHOLE_BYTES_MAX: usize = 2 * SENT_BYTES_MIN;

impl Copies {
    /// Adds the batches of `run` that `target` wants. Gives whether there is room for more.
    pub(super) fn append_file(
        &mut self,
        out: &mut Records,
        file: &Arc<ObjectFile>,
        run: &Run,
        target: Target,
    ) -> Result<bool, Broken> {
        let bounds = run.bounds(target.is_final);
        let (mut at, mut next) = file.nearest(run.position, target.offset).unwrap_or((run.position, run.base_offset));
        if let Some(room) = send_rest(out, file, (at, next), &bounds, target) {
            return Ok(room);
        }
        while at < bounds.end {
            if next >= target.until {
                return Ok(false);
            }
            let left = (bounds.end - at) as usize;
            if left > WHOLE_BYTES_MAX {
                let mut header = [0; HEADER_BYTES];
                file.read_at(at, &mut header).map_err(|e| Broken::reading(&e))?;
                let batch = locate(&header, at, next, &bounds).map_err(|_| Broken::Contradiction)?;
                let (whole, after) = (batch.bytes as usize, batch.end_offset);
                let is_sent = whole >= SENT_BYTES_MIN && file.may_be_held();
                if after <= target.offset || is_sent {
                    if after > target.offset {
                        if batch.base_offset >= target.until || !target.admits(out, whole) {
                            file.mark(run.position, at, next);
                            return Ok(false);
                        }
                        send(out, file, &batch, target);
                    }
                    (at, next) = (at + batch.bytes, after);
                    continue;
                }
            }
            let (consumed, after, room) = self.copy(out, file, at, next, &bounds, target)?;
            (at, next) = (at + consumed, after);
            if !room {
                file.mark(run.position, at, next);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads on from `at` and takes the batches that are whole in what was read. Gives the bytes that are done with, the
    /// offset behind them, and whether there is room for more.
    fn copy(
        &mut self,
        out: &mut Records,
        file: &ObjectFile,
        at: u32,
        mut next: Offset,
        bounds: &RunBounds,
        target: Target,
    ) -> Result<(u32, Offset, bool), Broken> {
        let end = bounds.end;
        let wanted = target.bytes_max.saturating_sub(out.bytes).max(WHOLE_BYTES_MAX);
        let mut window = wanted.min((end - at) as usize);
        if window > WHOLE_BYTES_MAX {
            window = window.min(BUFFER_BYTES);
        }
        let free = self.free();
        if free >= WHOLE_BYTES_MAX {
            window = window.min(free);
        }
        loop {
            let (start, place) = self.space(out, window);
            file.read_at(at, place).map_err(|e| Broken::reading(&e))?;
            let (mut done, mut taken_from, mut room) = (0, None, true);
            let mut needed = None;
            while done < window && room {
                let rest = &mut place[done..];
                if rest.len() < HEADER_BYTES {
                    break;
                }
                let batch = locate(rest, at + done as u32, next, bounds).map_err(|_| Broken::Contradiction)?;
                let whole = batch.bytes as usize;
                if done > 0 && whole >= SENT_BYTES_MIN && file.may_be_held() {
                    break;
                }
                if batch.end_offset > target.offset {
                    if batch.base_offset >= target.until || !target.admits(out, whole) {
                        room = false;
                        break;
                    }
                    if whole > rest.len() {
                        needed = Some(whole);
                        break;
                    }
                    rest[..PREFIX_BYTES].copy_from_slice(&target.prefix(&batch));
                    out.count(&batch);
                    taken_from.get_or_insert(done);
                } else if whole > rest.len() {
                    // Skipped without being read.
                    done += whole;
                    next = batch.end_offset;
                    return Ok((done as u32, next, true));
                }
                done += whole;
                next = batch.end_offset;
            }
            if let Some(from) = taken_from {
                self.keep(out, start + from..start + done);
            }
            match needed {
                // The first of them is longer than what was read.
                Some(whole) if done == 0 => window = whole,
                _ if done == 0 && room => return Err(Broken::Contradiction),
                _ => return Ok((done as u32, next, room)),
            }
        }
    }
}

/// A batch that stays in its file.
fn send(out: &mut Records, file: &Arc<ObjectFile>, batch: &Located, target: Target) {
    let (at, bytes) = (u64::from(batch.position) + PREFIX_BYTES as u64, batch.bytes as usize - PREFIX_BYTES);
    make_resident(file, at, bytes);
    out.chunks.push(Bytes::copy_from_slice(&target.prefix(batch)).into());
    out.chunks.push(Piece::File(FileRange { file: file.clone(), at, bytes }));
    out.own_bytes += PREFIX_BYTES;
    out.count(batch);
}

/// All that is left of a run from `at`, where a batch begins, as it lies in its file, if its headers are final and all of it
/// is wanted: no byte of it is looked at. Gives whether there is room for more, and nothing if it can't be done so. A run of
/// which there is no room for all is left to the next fetch if this one has read enough.
fn send_rest(
    out: &mut Records,
    file: &Arc<ObjectFile>,
    (at, next): (u32, Offset),
    bounds: &RunBounds,
    target: Target,
) -> Option<bool> {
    let left = bounds.end.saturating_sub(at) as usize;
    let is_wanted = target.offset <= next && target.until >= bounds.end_offset;
    let can_be_sent = target.is_final && target.forked.is_none() && file.may_be_held();
    if !can_be_sent || !is_wanted || left < SENT_BYTES_MIN {
        return None;
    }
    if out.bytes + left > target.bytes_max {
        return (out.bytes > target.bytes_max / 2).then_some(false);
    }
    make_resident(file, u64::from(at), left);
    out.chunks.push(Piece::File(FileRange { file: file.clone(), at: u64::from(at), bytes: left }));
    out.bytes += left;
    out.records += u64::try_from(bounds.end_offset.0 - next.0).unwrap_or(0);
    out.end = bounds.end_offset;
    Some(true)
}

/// Has the kernel read the range before it is sent, so that sending waits for no disk. Failing costs only time.
fn make_resident(file: &ObjectFile, at: u64, bytes: usize) {
    let last = at + bytes as u64 - 1;
    let mut byte = [0];
    let mut probe = |flags| preadv2(file, &mut [IoSliceMut::new(&mut byte)], last, flags);
    if probe(ReadWriteFlags::NOWAIT).is_err() {
        let _ = fadvise(file, at, NonZeroU64::new(bytes as u64), Advice::WillNeed);
        let _ = probe(ReadWriteFlags::empty());
    }
}

#[cfg(test)]
mod tests;
