//! What log compaction leaves of a partition's batches. Pure: one sieve for one pass over one log, which is given all batches
//! from the log's start on, in their order.
//!
//! The rules are Kafka's (KIP-98, KIP-534), and one is stricter. Of each key the last record stays; a last one without value
//! (a tombstone) until the time that the first pass which kept it has written into its batch. Records of aborted transactions
//! go. The end of a transaction stays as long as something of it was left before the pass; then it is dated like a tombstone,
//! and goes after that time. The stricter one: the end of an aborted transaction stays while State lists the transaction, since
//! readers leave out what such a producer writes until they come to the end of it.
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

use super::keys::Keys;
use crate::planted::{Defect, planted};
use crate::records::{BatchHeader, RecompressError, Records, Retained, WalkError, body};
use crate::types::{Offset, ProducerId, TimestampMs};

/// Records of one batch, decompressed, in bytes: producers are allowed half of that.
const INFLATED_MAX: usize = 128 << 20;

/// Why a batch can't be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::compaction) enum SieveError {
    #[error("a batch can't be read: {0}")]
    Read(#[from] WalkError),
    #[error("a batch can't be written: {0}")]
    Write(#[from] RecompressError),
}

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::compaction) enum Verdict {
    Keep,
    Drop,
    /// It becomes this one, at the same offsets.
    Replace(Bytes),
}

/// The aborted transactions of a partition.
#[derive(Clone, Debug, Default)]
pub(super) struct AbortedOnes {
    /// By producer, in order: first offset, offset of the marker.
    ranges: BTreeMap<ProducerId, Vec<(Offset, Offset)>>,
}

impl FromIterator<(ProducerId, Offset, Offset)> for AbortedOnes {
    /// Of producers, the first offsets, and the offsets of markers, in order.
    fn from_iter<I: IntoIterator<Item = (ProducerId, Offset, Offset)>>(aborted: I) -> Self {
        let mut ranges: BTreeMap<ProducerId, Vec<(Offset, Offset)>> = BTreeMap::new();
        for (producer, first, marker) in aborted {
            ranges.entry(producer).or_default().push((first, marker));
        }
        Self { ranges }
    }
}

impl AbortedOnes {
    /// Whether the producer's transaction that has something at `offset` was aborted. Its end counts too.
    fn has(&self, producer: ProducerId, offset: Offset) -> bool {
        let Some(ranges) = self.ranges.get(&producer) else { return false };
        let next = ranges.partition_point(|(_, marker)| *marker < offset);
        ranges.get(next).is_some_and(|(first, _)| *first <= offset)
    }
}

/// The first part of a pass: what the last offset of each key is.
pub(super) struct Survey {
    keys: Keys,
    aborted: AbortedOnes,
    until: Offset,
    full: bool,
}

impl Survey {
    /// Of records from `from` on, which is where the log is not clean.
    pub(super) fn new(keys: Keys, aborted: AbortedOnes, from: Offset) -> Self {
        Self { keys, aborted, until: from, full: false }
    }

    /// Adds the next batch; false if its keys have no room, and the pass ends before it.
    pub(super) fn add(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<bool, SieveError> {
        if self.full || header.last_offset() < self.until {
            return Ok(!self.full);
        }
        let is_aborted = header.is_transactional() && self.aborted.has(header.producer_id, header.base_offset);
        if header.records() > 0 && !header.is_control() && !is_aborted {
            if self.keys.len() + header.records() as usize > self.keys.room() {
                self.full = true;
                return Ok(false);
            }
            let body = body(header, batch, INFLATED_MAX).map_err(WalkError::from)?;
            for record in Records::new(&body, header.records()) {
                let record = record?;
                if let Some(key) = record.key {
                    self.keys.put(key, header.base_offset.plus(record.offset_delta.unsigned_abs().into()));
                }
            }
        }
        self.until = header.last_offset().plus(1);
        Ok(true)
    }

    /// There is no record up to `offset`.
    pub(super) fn pass(&mut self, offset: Offset) {
        if !self.full {
            self.until = self.until.max(offset);
        }
    }

    /// Where it has come to.
    pub(super) fn until(&self) -> Offset {
        self.until
    }

    /// What the pass does with batches, as of `now`.
    pub(super) fn into_sieve(self, now: TimestampMs, delete_retention_ms: i64) -> Sieve {
        let Self { keys, aborted, until, .. } = self;
        let horizon = TimestampMs(now.0.saturating_add(delete_retention_ms.max(0)));
        Sieve { keys, aborted, until, now, horizon, unended: BTreeSet::new() }
    }
}

/// The second part.
pub(in crate::compaction) struct Sieve {
    keys: Keys,
    aborted: AbortedOnes,
    /// Nothing at or beyond it is touched.
    until: Offset,
    now: TimestampMs,
    /// What is dated in this pass stays until then.
    horizon: TimestampMs,
    /// Producers with something in the log of a transaction whose end has not come yet.
    unended: BTreeSet<ProducerId>,
}

impl Sieve {
    /// What becomes of the next batch of the log.
    pub(in crate::compaction) fn judge(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<Verdict, SieveError> {
        if header.last_offset() >= self.until {
            return Ok(Verdict::Keep);
        }
        if header.records() == 0 {
            return Ok(Verdict::Drop);
        }
        if header.is_control() {
            return self.judge_end(header, batch);
        }
        if header.is_transactional() {
            self.unended.insert(header.producer_id);
            if self.aborted.has(header.producer_id, header.base_offset) {
                return Ok(Verdict::Drop);
            }
        }
        self.judge_records(header, batch)
    }

    /// The end of a transaction.
    fn judge_end(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<Verdict, SieveError> {
        let has_something = self.unended.remove(&header.producer_id);
        if has_something || self.aborted.has(header.producer_id, header.base_offset) {
            return Ok(Verdict::Keep);
        }
        match header.delete_horizon() {
            Some(horizon) if horizon <= self.now => Ok(Verdict::Drop),
            Some(_) => Ok(Verdict::Keep),
            None => {
                let body = body(header, batch, INFLATED_MAX).map_err(WalkError::from)?;
                rewritten(header, &body, Some(self.horizon), &vec![true; header.records() as usize])
            }
        }
    }

    fn judge_records(&self, header: &BatchHeader, batch: &[u8]) -> Result<Verdict, SieveError> {
        let is_over = header.delete_horizon().is_some_and(|horizon| horizon <= self.now);
        let is_over = is_over || planted(Defect::TombstonesAtOnce);
        let body = body(header, batch, INFLATED_MAX).map_err(WalkError::from)?;
        let (mut kept, mut tombstones) = (Vec::with_capacity(header.records().min(1 << 16) as usize), false);
        for record in Records::new(&body, header.records()) {
            let record = record?;
            let offset = header.base_offset.plus(record.offset_delta.unsigned_abs().into());
            let is_last = record.key.is_some_and(|key| self.keys.get(key).is_none_or(|last| last <= offset));
            let stays = is_last && (record.value.is_some() || !is_over);
            tombstones |= stays && record.value.is_none();
            kept.push(stays);
        }
        let is_dated = !tombstones || header.has_delete_horizon();
        match kept.iter().filter(|stays| **stays).count() {
            0 => Ok(Verdict::Drop),
            all if all == kept.len() && is_dated => Ok(Verdict::Keep),
            _ => {
                let horizon = (!is_dated).then_some(self.horizon);
                rewritten(header, &body, horizon, &kept)
            }
        }
    }
}

fn rewritten(
    header: &BatchHeader,
    body: &[u8],
    horizon: Option<TimestampMs>,
    kept: &[bool],
) -> Result<Verdict, SieveError> {
    let mut retained = Retained::of(header, horizon);
    for (record, stays) in Records::new(body, header.records()).zip(kept) {
        let record = record?;
        if *stays {
            retained.push(&record);
        }
    }
    Ok(Verdict::Replace(retained.build()?))
}

#[cfg(test)]
mod tests;
