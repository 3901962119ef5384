//! `__consumer_offsets` as State shows it. No record of it is stored: what groups have committed is in State anyway, and
//! each commit and each change of a group has a sequence, a number that rises over all groups. A partition of the topic
//! is the list of the groups that hash to it, as a compacted log has it: the record of a commit stands at its sequence,
//! and what it replaced is compacted away, so offsets have gaps. Here are the words; `apply` keeps the list.
use std::sync::Arc;

use super::group::{Group, GroupName, GroupProtocol};
use crate::types::{PartitionIndex, Slot, TimestampMs, TopicName};

/// Kafka's name of the topic.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Tombstones that are remembered, over all partitions; the oldest go first. A reader of the tail has seen a deletion
/// before that many others came; one from the beginning has no need of it. About 150 bytes each.
pub(super) const TOMBSTONES_MAX: usize = 10_000;

/// What a record of the topic is about. The values are where they always are: in the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OffsetsRecord {
    /// The group's committed offset for the partition in this slot.
    Commit(GroupName, Slot),
    /// The group's members; only groups of the classic protocol have such a record.
    Group(GroupName),
    /// Something that is not there any more.
    Tombstone(Arc<Tombstone>),
}

/// A committed offset or a group that was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    pub group: GroupName,
    /// What the offset was committed for; `None` where the group itself is gone.
    pub partition: Option<(TopicName, PartitionIndex)>,
    pub deleted_ms: TimestampMs,
}

/// A tombstone in a snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TombstoneBody {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(string, tag = "2")]
    group: String,
    #[prost(string, optional, tag = "3")]
    topic: Option<String>,
    #[prost(int32, tag = "4")]
    partition: i32,
    #[prost(int64, tag = "5")]
    deleted_ms: i64,
}

impl Tombstone {
    pub(super) fn body(&self, sequence: u64) -> TombstoneBody {
        let (topic, partition) = match &self.partition {
            Some((topic, index)) => (Some(topic.to_string()), index.0),
            None => (None, 0),
        };
        TombstoneBody { sequence, group: self.group.to_string(), topic, partition, deleted_ms: self.deleted_ms.0 }
    }

    /// What [`Tombstone::body`] made.
    pub(super) fn restore(body: TombstoneBody) -> (u64, Arc<Self>) {
        let partition = body.topic.map(|topic| (Arc::from(topic), PartitionIndex(body.partition)));
        let group = Arc::from(body.group);
        (body.sequence, Arc::new(Self { group, partition, deleted_ms: TimestampMs(body.deleted_ms) }))
    }
}

impl Group {
    /// Whether the topic has a record of the group itself.
    #[must_use]
    pub(super) fn has_record(&self) -> bool {
        self.version > 0 && self.protocol() == GroupProtocol::Classic
    }
}

/// The partition of the topic that a group's records are in: Java's `String.hashCode`, which counts UTF-16 units, as
/// Kafka takes it (`GroupCoordinatorService.partitionFor`).
#[must_use]
pub fn offsets_partition_of(group: &str, partitions: usize) -> usize {
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's abs of the smallest number is 0.
    let hash = hash.checked_abs().unwrap_or(0).unsigned_abs() as usize;
    hash.checked_rem(partitions).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hash_as_in_java() {
        // By a running Kafka 4.3.1 with 10 partitions.
        assert_eq!((offsets_partition_of("classic", 10), offsets_partition_of("simple", 10)), (2, 6));
        // By hand: "é" is one unit of 233, "😀" two of 55357 and 56832.
        assert_eq!(offsets_partition_of("é", 1000), 233);
        assert_eq!(offsets_partition_of("😀", 1 << 30), 55_357 * 31 + 56_832);
        // Its hash is -2^31.
        assert_eq!(offsets_partition_of("polygenelubricants", 50), 0);
        assert_eq!(offsets_partition_of("", 50), 0);
    }
}
