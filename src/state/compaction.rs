//! `CommitCompaction`: the command that puts what compaction wrote in the place of what it was made from, and the packed
//! list of its runs.
//!
//! The list is of shares: stretches of one partition's log, by slot and offset. Per share, as LEB128 (zigzag where signed):
//! slot minus the last share's slot (signed); base offset; number of runs; then per run: offsets; bytes; largest timestamp
//! minus the command's base (signed, wrapping). Each run begins in the object where the one before ended, and in the log too,
//! if it is no share's first.
use bytes::Bytes;

use super::varint;
use crate::segment::ObjectName;
use crate::types::{Head, ObjectId, Offset, Position, Slot, TimestampMs, Token};

/// The feature level that knows compaction.
pub const COMPACTION_LEVEL: u32 = 6;

/// The feature level that knows log compaction (`cleanup.policy=compact`).
pub const CLEANING_LEVEL: u32 = 7;

/// The highest level of an object.
pub const OBJECT_LEVEL_MAX: u8 = 2;

/// Puts runs of a compacted object in the place of the runs of its inputs, share by share: where a partition has changed
/// meanwhile, or is gone, its share is dropped (H17). From level 6 on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommitCompaction {
    /// The object's name, as in `CommitRuns` (H4).
    #[prost(bytes = "bytes", tag = "1")]
    pub ulid: Bytes,
    #[prost(uint64, tag = "2")]
    pub applied_position: u64,
    #[prost(fixed64, tag = "3")]
    pub applied_token: u64,
    #[prost(uint32, tag = "4")]
    pub object_bytes: u32,
    /// The number that an earlier entry gave to the same object, of which other runs were committed there (H15).
    #[prost(uint64, optional, tag = "5")]
    pub object: Option<u64>,
    /// 1 for what was made of flushes, 2 for what was made of such objects.
    #[prost(uint32, tag = "6")]
    pub level: u32,
    /// The objects that it was made from.
    #[prost(uint64, repeated, tag = "7")]
    pub inputs: Vec<u64>,
    /// Where the first run begins in the object.
    #[prost(uint32, tag = "8")]
    pub position: u32,
    #[prost(sint64, tag = "9")]
    pub base_timestamp: i64,
    /// See the module.
    #[prost(bytes = "bytes", tag = "10")]
    pub shares: Bytes,
    /// Of log compaction: what it did, one for each share; else none. From level 7 on.
    #[prost(message, repeated, tag = "11")]
    pub cleaned: Vec<CleanedShare>,
}

/// What log compaction did with a share.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct CleanedShare {
    /// The topic's, whose settings it followed: with others the share is dropped.
    #[prost(uint64, tag = "1")]
    pub config_version: u64,
    /// With this share everything below this offset is cleaned; 0 if there is more to come.
    #[prost(uint64, tag = "2")]
    pub cleaned: u64,
}

/// A stretch of one partition's log in a compacted object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactedShare {
    pub slot: Slot,
    pub base_offset: Offset,
    pub runs: Vec<CompactedRun>,
}

/// One run of it: from where the run before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactedRun {
    /// The offset after its last record.
    pub end_offset: Offset,
    pub bytes: u32,
    /// The largest of its records; markers do not count (H14). The smallest number of all where there are none.
    pub max_timestamp: TimestampMs,
}

impl CompactedShare {
    /// The offset after its last record.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.runs.last().map_or(self.base_offset, |run| run.end_offset)
    }

    /// Its bytes in the object.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.bytes)).sum()
    }
}

impl CommitCompaction {
    /// Commits `shares` of an object, which lie in it one after another from `position` on; `object` is the number that an
    /// earlier command for it was given.
    #[must_use]
    pub fn new(
        name: ObjectName,
        object_bytes: u32,
        object: Option<ObjectId>,
        (level, inputs): (u8, &[ObjectId]),
        position: u32,
        shares: &[CompactedShare],
    ) -> Self {
        let first = shares.iter().flat_map(|share| &share.runs).next();
        let base_timestamp = first.map_or(0, |run| run.max_timestamp.0);
        Self {
            ulid: Bytes::copy_from_slice(&name.ulid.to_be_bytes()),
            applied_position: name.applied.position.0,
            applied_token: name.applied.token.0,
            object_bytes,
            object: object.map(|object| object.0),
            level: level.into(),
            inputs: inputs.iter().map(|input| input.0).collect(),
            position,
            base_timestamp,
            shares: pack(base_timestamp, shares).into(),
            cleaned: Vec::new(),
        }
    }

    /// As log compaction does it: what it did with each of the shares.
    #[must_use]
    pub fn with_cleaned(mut self, cleaned: &[CleanedShare]) -> Self {
        self.cleaned = cleaned.to_vec();
        self
    }

    /// The object's name; `None` if it is none.
    pub(super) fn name(&self) -> Option<ObjectName> {
        let ulid = u128::from_be_bytes(self.ulid[..].try_into().ok()?);
        let applied = Head { position: Position(self.applied_position), token: Token(self.applied_token) };
        Some(ObjectName::compacted(applied, ulid))
    }

    /// The shares, in order; `None` if they are not what [`CommitCompaction::new`] packs.
    pub(super) fn unpacked(&self) -> Option<Vec<CompactedShare>> {
        let (mut input, mut shares, mut slot) = (&self.shares[..], Vec::new(), 0_i64);
        while !input.is_empty() {
            slot = slot.checked_add(varint::take_signed(&mut input)?)?;
            let base_offset = Offset(i64::try_from(varint::take(&mut input)?).ok()?);
            let count = usize::try_from(varint::take(&mut input)?).ok()?;
            // A run takes three bytes at least, so a count beyond that is a lie that must not reserve memory.
            if count == 0 || count > input.len() / 3 {
                return None;
            }
            let (mut runs, mut end_offset) = (Vec::with_capacity(count), base_offset);
            for _ in 0..count {
                let offsets = varint::take(&mut input).filter(|offsets| *offsets > 0)?;
                end_offset = Offset(end_offset.0.checked_add_unsigned(offsets)?);
                let bytes = varint::take_u32(&mut input)?;
                let timestamp = self.base_timestamp.wrapping_add(varint::take_signed(&mut input)?);
                runs.push(CompactedRun { end_offset, bytes, max_timestamp: TimestampMs(timestamp) });
            }
            shares.push(CompactedShare { slot: Slot(u32::try_from(slot).ok()?), base_offset, runs });
        }
        Some(shares)
    }
}

fn pack(base_timestamp: i64, shares: &[CompactedShare]) -> Vec<u8> {
    let (mut out, mut slot) = (Vec::new(), 0);
    for share in shares {
        varint::put_signed(&mut out, i64::from(share.slot.0) - slot);
        varint::put(&mut out, share.base_offset.0.unsigned_abs());
        varint::put(&mut out, share.runs.len() as u64);
        let mut at = share.base_offset.0;
        for run in &share.runs {
            varint::put(&mut out, run.end_offset.0.wrapping_sub(at).cast_unsigned());
            varint::put(&mut out, u64::from(run.bytes));
            varint::put_signed(&mut out, run.max_timestamp.0.wrapping_sub(base_timestamp));
            at = run.end_offset.0;
        }
        slot = i64::from(share.slot.0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shares() -> impl Strategy<Value = Vec<CompactedShare>> {
        let run = (1..1_000_000_u32, any::<u32>(), any::<i64>());
        let share =
            (any::<u32>(), 0..1_i64 << 40, proptest::collection::vec(run, 1..5)).prop_map(|(slot, base, runs)| {
                let mut end_offset = Offset(base);
                let runs = runs.into_iter().map(|(offsets, bytes, timestamp)| {
                    end_offset = end_offset.plus(u64::from(offsets));
                    CompactedRun { end_offset, bytes, max_timestamp: TimestampMs(timestamp) }
                });
                CompactedShare { slot: Slot(slot), base_offset: Offset(base), runs: runs.collect() }
            });
        proptest::collection::vec(share, 0..6)
    }

    proptest! {
        #[test]
        fn shares_come_back_as_they_were_packed(shares in shares()) {
            let name = ObjectName::compacted(Head::default(), 7);
            let command = CommitCompaction::new(name, 1, None, (1, &[]), 64, &shares);
            prop_assert_eq!(command.unpacked(), Some(shares));
            prop_assert_eq!(command.name(), Some(name));
        }

        #[test]
        fn random_bytes_never_panic(base_timestamp: i64, shares: Vec<u8>) {
            let _ = CommitCompaction { base_timestamp, shares: shares.into(), ..Default::default() }.unpacked();
        }
    }
}
