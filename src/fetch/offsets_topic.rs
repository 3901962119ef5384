//! The records of `__consumer_offsets`, made from State whenever somebody fetches them. Keys and values are Kafka's
//! (`group-coordinator/src/main/resources/common/message`): OffsetCommitKey 1, OffsetCommitValue 3 (1 where the offset has
//! a time at which it expires), GroupMetadataKey 2, GroupMetadataValue 3. Kafka 4.3 writes OffsetCommitValue 4, which adds
//! the topic's id as a tagged field; 3 holds the rest, and tools that know nothing newer read it too. Groups of the
//! consumer protocol have no records but their offsets.
use bytes::Bytes;

use super::Records;
use super::times::TimedOffset;
use crate::records::{BatchBuilder, HEADER_BYTES, NewRecord};
use crate::state::{CommittedOffset, Group, OffsetsRecord, Partition, RecordEpochs, State, Tombstone};
use crate::types::{LeaderEpoch, Offset, Slot, TimestampMs};

/// Bytes of records in one batch, before the one that ends it.
const BATCH_BYTES: usize = 64 << 10;

/// A record of the topic.
struct Made {
    offset: Offset,
    timestamp: TimestampMs,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// The records of `partition` from `from` on in about `bytes_max` bytes, at least one. Offsets between them were compacted
/// away; the last batch covers those up to the end, so that a reader comes to the end even where no record is left.
pub(super) fn records(state: &State, partition: &Partition, from: Offset, bytes_max: usize) -> Records {
    let mut out = Records::default();
    let mut batch: Option<Building> = None;
    let epochs = RecordEpochs::of(state);
    let begin = |offset| Building::at(offset, epochs.at(partition.slot, offset));
    for made in all(state, partition.slot, from) {
        let size = made.size();
        let have = out.bytes + batch.as_ref().map_or(0, Building::bytes);
        if have > 0 && have + size > bytes_max {
            push(&mut out, batch);
            return out;
        }
        if batch.as_ref().is_some_and(|b| b.builder.body_bytes() + size > BATCH_BYTES || b.gap(made.offset).is_none()) {
            push(&mut out, batch.take());
        }
        batch.get_or_insert_with(|| begin(made.offset)).add(&made);
    }
    let mut last = batch.unwrap_or_else(|| begin(from));
    last.cover(partition.end);
    push(&mut out, Some(last));
    out
}

/// Bytes that [`records`] would find from `from` on, counted up to `enough`.
pub(super) fn available(state: &State, partition: &Partition, from: Offset, enough: usize) -> usize {
    if from >= partition.end {
        return 0;
    }
    let mut found = HEADER_BYTES;
    for made in all(state, partition.slot, from) {
        found += made.size();
        if found >= enough {
            break;
        }
    }
    found
}

/// The first record at or after `at` in time.
pub(super) fn first_at(state: &State, slot: Slot, at: TimestampMs) -> Option<TimedOffset> {
    times(state, slot).find(|timed| timed.timestamp >= at)
}

/// The first of the records with the largest timestamp.
pub(super) fn latest_in_time(state: &State, slot: Slot) -> Option<TimedOffset> {
    times(state, slot).reduce(|best, timed| if timed.timestamp > best.timestamp { timed } else { best })
}

fn times(state: &State, slot: Slot) -> impl Iterator<Item = TimedOffset> {
    let timed = |(offset, record)| Some(TimedOffset { offset, timestamp: timestamp(state, record)? });
    state.offsets_records(slot, Offset(0)).filter_map(timed)
}

fn all(state: &State, slot: Slot, from: Offset) -> impl Iterator<Item = Made> {
    state.offsets_records(slot, from).filter_map(|(offset, record)| made(state, offset, record))
}

fn push(out: &mut Records, batch: Option<Building>) {
    let Some(Building { builder, .. }) = batch else { return };
    let records = u64::from(builder.count().unsigned_abs());
    // Too large for a length field is what no limit on groups allows.
    let Ok(bytes) = builder.build() else { return };
    out.bytes += bytes.len();
    out.own_bytes += bytes.len();
    out.records += records;
    out.chunks.push(bytes.into());
}

/// A batch in the making.
struct Building {
    builder: BatchBuilder,
    /// The offset that the next record would have.
    next: Offset,
}

impl Building {
    fn at(offset: Offset, epoch: LeaderEpoch) -> Self {
        let builder = BatchBuilder::new().base_offset(offset).leader_epoch(epoch);
        Self { builder, next: offset }
    }

    fn bytes(&self) -> usize {
        HEADER_BYTES + self.builder.body_bytes()
    }

    /// Offsets to skip before one at `offset`; `None` if that is too far for one batch.
    fn gap(&self, offset: Offset) -> Option<i32> {
        let far = offset.0.saturating_sub(self.builder.first_offset().0);
        let gap = offset.0.saturating_sub(self.next.0);
        i32::try_from(far).ok().filter(|far| *far < i32::MAX).and(i32::try_from(gap).ok())
    }

    fn add(&mut self, made: &Made) {
        self.builder.skip(self.gap(made.offset).unwrap_or(0));
        let (key, value) = (Some(made.key.as_slice()), made.value.as_deref());
        self.builder.push(&NewRecord { timestamp: made.timestamp, key, value, headers: &[] });
        self.next = made.offset.plus(1);
    }

    /// Takes the offsets before `end` into the batch.
    fn cover(&mut self, end: Offset) {
        if let Some(gap) = self.gap(end) {
            self.builder.skip(gap);
            self.next = end;
        }
    }
}

impl Made {
    /// Bytes that it takes in a batch, or a little more.
    fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len) + 32
    }
}

fn timestamp(state: &State, record: &OffsetsRecord) -> Option<TimestampMs> {
    match record {
        OffsetsRecord::Commit(group, slot) => Some(state.group(group)?.offsets.get(slot)?.committed_ms),
        OffsetsRecord::Group(group) => Some(TimestampMs(state.group(group)?.header.since_ms)),
        OffsetsRecord::Tombstone(tombstone) => Some(tombstone.deleted_ms),
    }
}

/// `None` where State has lost what the record is about, which it never does.
fn made(state: &State, offset: Offset, record: &OffsetsRecord) -> Option<Made> {
    let (key, value) = match record {
        OffsetsRecord::Commit(group, slot) => {
            let partition = state.partition(*slot)?;
            let key = offset_key(group, &state.topic(partition.topic)?.name, partition.index.0);
            (key, Some(offset_value(state.group(group)?.offsets.get(slot)?)))
        }
        OffsetsRecord::Group(group) => (group_key(group), Some(group_value(state.group(group)?))),
        OffsetsRecord::Tombstone(tombstone) => match &**tombstone {
            Tombstone { group, partition: Some((topic, index)), .. } => (offset_key(group, topic, index.0), None),
            Tombstone { group, partition: None, .. } => (group_key(group), None),
        },
    };
    Some(Made { offset, timestamp: timestamp(state, record)?, key, value })
}

fn offset_key(group: &str, topic: &str, partition: i32) -> Vec<u8> {
    let mut out = Writer::version(1);
    out.string(Some(group));
    out.string(Some(topic));
    out.int(partition);
    out.0
}

fn offset_value(committed: &CommittedOffset) -> Vec<u8> {
    let mut out = Writer::version(if committed.expires_ms.is_some() { 1 } else { 3 });
    out.long(committed.offset.0);
    if committed.expires_ms.is_none() {
        out.int(committed.leader_epoch.0);
    }
    out.string(Some(&committed.metadata));
    out.long(committed.committed_ms.0);
    if let Some(expires) = committed.expires_ms {
        out.long(expires.0);
    }
    out.0
}

fn group_key(group: &str) -> Vec<u8> {
    let mut out = Writer::version(2);
    out.string(Some(group));
    out.0
}

fn group_value(group: &Group) -> Vec<u8> {
    let header = &group.header;
    let mut out = Writer::version(3);
    out.string(Some(header.protocol_type.as_deref().unwrap_or_default()));
    out.int(header.epoch);
    out.string(header.protocol_name.as_deref());
    out.string(header.leader.as_deref());
    out.long(header.since_ms);
    out.length(group.members.len());
    for member in group.members.values() {
        out.string(Some(&member.id));
        out.string(member.instance_id.as_deref());
        out.string(Some(&member.client_id));
        out.string(Some(&member.client_host));
        out.int(member.rebalance_timeout_ms);
        out.int(member.session_timeout_ms);
        let chosen = member.protocols.iter().find(|p| header.protocol_name.as_ref() == Some(&p.name));
        out.bytes(chosen.map_or(&Bytes::new(), |p| &p.metadata));
        out.bytes(&member.assignment);
    }
    out.0
}

/// Kafka's types as they are outside of flexible versions.
struct Writer(Vec<u8>);

impl Writer {
    fn version(version: i16) -> Self {
        Self(version.to_be_bytes().to_vec())
    }

    fn int(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn long(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn length(&mut self, length: usize) {
        self.int(i32::try_from(length).unwrap_or(i32::MAX));
    }

    /// Limits keep every text below the 32 KiB that its length can say; what is longer is cut.
    fn string(&mut self, text: Option<&str>) {
        let Some(text) = text else { return self.0.extend_from_slice(&(-1_i16).to_be_bytes()) };
        let text = text.get(..text.floor_char_boundary(i16::MAX.unsigned_abs().into())).unwrap_or_default();
        self.0.extend_from_slice(&i16::try_from(text.len()).unwrap_or(i16::MAX).to_be_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests;
