//! Lays a flush out as an object: batches sorted by partition, runs described in its footer, no bytes copied but small
//! ones; and makes the command that commits it. Pure.
use bytes::{Bytes, BytesMut};

use super::open::Held;
use crate::planted::{Defect, planted};
use crate::segment::{ObjectHeader, ObjectName, ObjectWriter};
use crate::state::{BatchSpec, CommitRuns, RunSpec, RunsWriter};
use crate::types::{ObjectId, TimestampMs};

/// Buffers below this are copied together: one write costs more than moving them.
const COPY_BELOW: usize = 16 << 10;

/// A flush's object, and its batches in the order in which they lie in it.
pub(super) struct Layout {
    pub(super) body: Vec<Bytes>,
    pub(super) object_bytes: u32,
    /// What `body` keeps allocated: whole frames where it holds slices of them.
    pub(super) pinned_bytes: usize,
    pub(super) batches: Vec<LaidOut>,
}

/// A batch and its place.
pub(super) struct LaidOut {
    pub(super) held: Held,
    pub(super) position: u32,
    pub(super) spec: BatchSpec,
    pub(super) max_timestamp: TimestampMs,
}

/// Sorts `held` by partition, keeping the order in which batches came, and writes the object around them.
pub(super) fn lay_out(header: &ObjectHeader, mut held: Vec<Held>) -> Layout {
    if planted(Defect::UnstableSort) {
        held.sort_unstable_by_key(|h| h.batch.slot);
    }
    held.sort_by_key(|h| h.batch.slot);
    let mut writer = ObjectWriter::new(header);
    let (mut staged, mut batches, mut pinned_bytes) = (BytesMut::new(), Vec::with_capacity(held.len()), 0);
    let mut run_start = writer.position();
    let mut at = run_start;
    let mut in_run = 0;
    let mut held = held.into_iter().peekable();
    while let Some(mut one) = held.next() {
        let bytes = std::mem::replace(&mut one.batch.bytes, crate::records::BatchBytes::whole(Bytes::new()));
        let size = u32::try_from(bytes.len()).expect("a batch is bounded by the frame's limit");
        let max_timestamp = one.batch.header.max_timestamp;
        let mut spec = BatchSpec::of(&one.batch.header, size);
        if let Some(producer) = &mut spec.producer {
            producer.joins = producer.transactional && one.batch.joins;
        }
        if one.keep_slices {
            pinned_bytes += one.pinned_bytes;
        }
        for piece in bytes.pieces() {
            if one.keep_slices && piece.len() >= COPY_BELOW {
                flush_staged(&mut writer, &mut staged, &mut pinned_bytes);
                writer.push(piece);
            } else {
                staged.extend_from_slice(&piece);
            }
        }
        let (topic, partition, slot) = (one.batch.topic, one.batch.partition, one.batch.slot);
        batches.push(LaidOut { held: one, position: at, spec, max_timestamp });
        at += size;
        in_run += 1;
        if held.peek().is_none_or(|next| next.batch.slot != slot) {
            flush_staged(&mut writer, &mut staged, &mut pinned_bytes);
            writer.end_run(topic, partition, run_start, in_run);
            (run_start, in_run) = (at, 0);
        }
    }
    let (body, object_bytes) = writer.finish();
    Layout { body, object_bytes, pinned_bytes, batches }
}

fn flush_staged(writer: &mut ObjectWriter, staged: &mut BytesMut, pinned_bytes: &mut usize) {
    if !staged.is_empty() {
        *pinned_bytes += staged.len();
        writer.push(staged.split().freeze());
    }
}

/// The command for some of a flush's batches: neighbours of one partition make a run. `object` is the number that an
/// earlier command of the same flush was given.
pub(super) fn commit_runs(
    name: ObjectName,
    object_bytes: u32,
    object: Option<ObjectId>,
    batches: &[LaidOut],
) -> CommitRuns {
    let mut writer = RunsWriter::default();
    let mut run: Option<RunSpec> = None;
    let mut end = 0;
    for batch in batches {
        let slot = batch.held.batch.slot;
        match &mut run {
            Some(run) if run.slot == slot && end == batch.position => {
                run.batches.push(batch.spec);
                let before = if planted(Defect::TimeOfLastBatch) { batch.max_timestamp } else { run.max_timestamp };
                run.max_timestamp = before.max(batch.max_timestamp);
            }
            _ => {
                let next = RunSpec {
                    slot,
                    position: batch.position,
                    max_timestamp: batch.max_timestamp,
                    batches: vec![batch.spec],
                };
                if let Some(done) = run.replace(next) {
                    writer.push(&done);
                }
            }
        }
        end = batch.position + batch.spec.bytes;
    }
    if let Some(last) = run {
        writer.push(&last);
    }
    CommitRuns::new(name, object_bytes, object, writer)
}
