//! Batches out of objects that are files here. Large ones stay in their file, and the kernel sends them from there behind
//! a patched prefix. Small ones are copied, many in one read, and patched where they lie. Blocks.
use bytes::Bytes;
use rustix::fs::{Advice, fadvise};
use rustix::io::{ReadWriteFlags, preadv2};
use std::io::IoSliceMut;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::Records;
use super::assemble::{Broken, Located, Target, locate, prefix};
use super::copies::{BUFFER_BYTES, Copies};
use crate::cache::ObjectFile;
use crate::records::{HEADER_BYTES, PREFIX_BYTES};
use crate::state::Run;
use crate::types::{FileRange, LeaderEpoch, Offset, Piece};

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
        let end = run.position.saturating_add(run.bytes);
        let (mut at, mut next) = file.nearest(run.position, target.offset).unwrap_or((run.position, run.base_offset));
        while at < end {
            if next >= target.until {
                return Ok(false);
            }
            let left = (end - at) as usize;
            if left > WHOLE_BYTES_MAX {
                let mut header = [0; HEADER_BYTES];
                file.read_at(at, &mut header).map_err(|e| Broken::reading(&e))?;
                let batch = locate(&header, at, end, next)?;
                let (whole, after) = (batch.bytes as usize, batch.end_offset());
                let is_sent = whole >= SENT_BYTES_MIN && file.may_be_held();
                if after <= target.offset || is_sent {
                    if after > target.offset {
                        if !target.admits(out, whole) {
                            file.mark(run.position, at, next);
                            return Ok(false);
                        }
                        self.send(out, file, &batch, target.epoch);
                    }
                    (at, next) = (at + batch.bytes, after);
                    continue;
                }
            }
            let (consumed, after, room) = self.copy(out, file, at, end, next, target)?;
            (at, next) = (at + consumed, after);
            if !room {
                file.mark(run.position, at, next);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A batch that stays in its file.
    fn send(&mut self, out: &mut Records, file: &Arc<ObjectFile>, batch: &Located, epoch: LeaderEpoch) {
        let (at, bytes) = (u64::from(batch.position) + PREFIX_BYTES as u64, batch.bytes as usize - PREFIX_BYTES);
        make_resident(file, at, bytes);
        out.chunks.push(Bytes::copy_from_slice(&prefix(batch, epoch)).into());
        out.chunks.push(Piece::File(FileRange { file: file.clone(), at, bytes }));
        out.own_bytes += PREFIX_BYTES;
        out.count(batch);
    }

    /// Reads on from `at` and takes the batches that are whole in what was read. Gives the bytes that are done with, the
    /// offset behind them, and whether there is room for more.
    fn copy(
        &mut self,
        out: &mut Records,
        file: &ObjectFile,
        at: u32,
        end: u32,
        mut next: Offset,
        target: Target,
    ) -> Result<(u32, Offset, bool), Broken> {
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
                let batch = locate(rest, at + done as u32, end, next)?;
                let whole = batch.bytes as usize;
                if done > 0 && whole >= SENT_BYTES_MIN && file.may_be_held() {
                    break;
                }
                if batch.end_offset() > target.offset {
                    if batch.base_offset >= target.until || !target.admits(out, whole) {
                        room = false;
                        break;
                    }
                    if whole > rest.len() {
                        needed = Some(whole);
                        break;
                    }
                    rest[..PREFIX_BYTES].copy_from_slice(&prefix(&batch, target.epoch));
                    out.count(&batch);
                    taken_from.get_or_insert(done);
                } else if whole > rest.len() {
                    // Skipped without being read.
                    done += whole;
                    next = batch.end_offset();
                    return Ok((done as u32, next, true));
                }
                done += whole;
                next = batch.end_offset();
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
