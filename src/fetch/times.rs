//! Offsets by time: State finds the run, the batches and their records find the rest (K28, KIP-79, KIP-734).
use super::assemble::Walk;
use super::offsets_topic;
use super::plan::unit;
use super::read::{FetchError, Fetcher};
use crate::records::{BatchHeader, Placed, WalkError, first_at_or_after, max_timestamp_record};
use crate::state::{Partition, Run, State};
use crate::types::{Offset, TimestampMs};
use std::cmp::Reverse;

/// Records of one batch that are decompressed at most to find a time in them, in bytes.
const INFLATED_MAX: usize = 128 << 20;

/// Runs that are read at most to find the largest timestamp: State's is a bound. Where a batch of a run was a duplicate or
/// refused, each piece of the rest carries the largest of all, and a compressed batch is believed what its header says.
const RUNS_MAX: u32 = 16;

/// A record's place and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOffset {
    pub offset: Offset,
    pub timestamp: TimestampMs,
}

impl Fetcher {
    /// The first record at or after `at` in time; `None` if there is none.
    ///
    /// # Errors
    /// As reads.
    pub async fn first_at(
        &self,
        state: &State,
        partition: &Partition,
        at: TimestampMs,
    ) -> Result<Option<TimedOffset>, FetchError> {
        if state.is_offsets_slot(partition.slot) {
            return Ok(offsets_topic::first_at(state, partition.slot, at));
        }
        let log_start = partition.log_start;
        let runs: Vec<Run> = partition.tail.from_time(log_start, at).collect();
        for run in runs {
            let found = self.search(state, &run, |header, batch, base| {
                // The header's claim spares the records of batches that are wholly before.
                if header.max_timestamp < at {
                    return Ok(None);
                }
                first_at_or_after(batch, Placed { base, log_start }, at, INFLATED_MAX)
            });
            if let Some(found) = found.await?.into_iter().next() {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The first of the records with the largest timestamp; `None` in an empty partition.
    ///
    /// # Errors
    /// As reads.
    pub async fn latest_in_time(
        &self,
        state: &State,
        partition: &Partition,
    ) -> Result<Option<TimedOffset>, FetchError> {
        if state.is_offsets_slot(partition.slot) {
            return Ok(offsets_topic::latest_in_time(state, partition.slot));
        }
        let log_start = partition.log_start;
        let mut best: Option<TimedOffset> = None;
        let mut last = None;
        for _ in 0..RUNS_MAX {
            let Some(run) = partition.tail.latest_in_time(log_start, last) else { break };
            let order = |found: TimedOffset| (found.timestamp, Reverse(found.offset));
            if best.is_some_and(|best| order(best) > (run.max_timestamp, Reverse(run.base_offset))) {
                break;
            }
            let found = self.search(state, &run, |_, batch, base| {
                max_timestamp_record(batch, Placed { base, log_start }, INFLATED_MAX)
            });
            best = found.await?.into_iter().chain(best).max_by_key(|found| order(*found));
            last = Some(run);
        }
        Ok(best)
    }

    /// What `look` finds in each batch of `run`.
    async fn search(
        &self,
        state: &State,
        run: &Run,
        look: impl Fn(&BatchHeader, &[u8], Offset) -> Result<Option<(Offset, TimestampMs)>, WalkError>,
    ) -> Result<Vec<TimedOffset>, FetchError> {
        let meta = state.object(run.object).ok_or(FetchError::Damaged)?;
        let mut objects = self.load(std::iter::once(unit(meta, run)), None).await;
        let object = objects.pop().map_or(Err(FetchError::Unavailable), |(_, loaded)| loaded)?;
        let mut found = Vec::new();
        for batch in Walk::new(&object, run.bounds(meta.level > 0)) {
            let batch = batch.map_err(|_| FetchError::Damaged)?;
            // The end of a transaction is no record (H14).
            if batch.header.is_control() {
                continue;
            }
            let mut slices: Vec<bytes::Bytes> = Vec::new();
            if !object.slice_into(batch.position..batch.position + batch.bytes, &mut slices) {
                return Err(FetchError::Damaged);
            }
            let whole = match slices.as_slice() {
                [one] => one.clone(),
                more => more.concat().into(),
            };
            // A batch that can't be walked holds no record that could be named.
            if let Ok(Some((offset, timestamp))) = look(&batch.header, &whole, batch.base_offset) {
                found.push(TimedOffset { offset, timestamp });
            }
        }
        Ok(found)
    }
}
