//! The things that State is made of: topics, partitions, objects, kept snapshots.
use std::collections::BTreeMap;

use crate::segment::ObjectName;
use crate::types::{Head, Offset, PartitionIndex, Position, Slot, TimestampMs, TopicId, TopicName};

use super::tail::Tail;

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub id: TopicId,
    pub name: TopicName,
    /// The slots of its partitions, by index.
    pub slots: Vec<Slot>,
    /// As the creator asked; shown to tools, without effect.
    pub replication_factor: u32,
    /// The settings that were set, by Kafka's names; the others have defaults.
    pub configs: BTreeMap<String, String>,
    /// Rises with each change of `configs`.
    pub config_version: u64,
}

/// A partition's log.
#[derive(Clone, Debug)]
pub struct Partition {
    pub slot: Slot,
    pub topic: TopicId,
    pub index: PartitionIndex,
    /// The first offset that can be read.
    pub log_start: Offset,
    /// The offset that the next record gets: the log end offset, which is also the high watermark.
    pub end: Offset,
    /// Bytes of all runs in `tail`.
    pub bytes: u64,
    /// Producers that are remembered for it.
    pub producers: u32,
    /// When a producer was forgotten last. What was on its way before may be of that one, and in the log already.
    pub forgotten: Position,
    pub tail: Tail,
}

/// An object that State refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    pub name: ObjectName,
    pub bytes: u32,
    /// Runs in it that a partition still holds.
    pub live_runs: u32,
}

/// A snapshot that State keeps from being swept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSnapshot {
    pub at: Head,
    pub key: String,
    pub bytes: u64,
    pub taken_ms: TimestampMs,
}
