//! The cluster's settings that `apply` obeys. They live in State, so that every broker applies with the same ones,
//! whatever its own configuration file says (H5).
use super::collection::COLLECTION_LEVEL;
use super::transaction::TRANSACTIONS_LEVEL;

/// Limits and times that `apply` uses. A broker whose configuration differs proposes `SetSettings` at start.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Settings {
    /// Topics in the cluster.
    #[prost(uint32, tag = "1")]
    pub topics_max: u32,
    /// Partitions in the cluster.
    #[prost(uint32, tag = "2")]
    pub partitions_max: u32,
    #[prost(uint32, tag = "3")]
    pub partitions_per_topic_max: u32,
    /// Idempotent producers that are remembered in the cluster; beyond it the longest unused are forgotten.
    #[prost(uint32, tag = "4")]
    pub producers_max: u32,
    /// The same for one partition.
    #[prost(uint32, tag = "5")]
    pub producers_per_partition_max: u32,
    /// How long an unused producer is remembered, in ms (`producer.id.expiration.ms`).
    #[prost(int64, tag = "6")]
    pub producer_expiration_ms: i64,
    /// Snapshots that are never given up, whatever their age (H13).
    #[prost(uint32, tag = "7")]
    pub snapshots_min: u32,
    /// Groups in the cluster.
    #[prost(uint32, tag = "8")]
    pub groups_max: u32,
    /// Committed offsets in the cluster, one per group and partition.
    #[prost(uint32, tag = "9")]
    pub group_offsets_max: u32,
    /// Bytes of the members and assignments of all groups.
    #[prost(uint64, tag = "10")]
    pub group_bytes_max: u64,
    /// A broker that is silent for this long may be fenced, in ms. From level 2 on; 0 is never.
    #[prost(int64, tag = "11")]
    pub fencing_ms: i64,
    /// Transactional ids in the cluster. From level 4 on, as is the next; 0 is none.
    #[prost(uint32, tag = "12")]
    pub transactional_ids_max: u32,
    /// Partitions, and offsets of groups, in one transaction.
    #[prost(uint32, tag = "13")]
    pub transaction_partitions_max: u32,
    /// How long an object is kept in the bucket that nothing refers to any more, in ms. From level 5 on.
    #[prost(int64, tag = "14")]
    pub garbage_grace_ms: i64,
}

impl Settings {
    /// As they are written at this feature level: without what it does not know.
    #[must_use]
    pub fn at_level(self, level: u32) -> Self {
        let from = |first: u32, value: u32| if level >= first { value } else { 0 };
        Self {
            fencing_ms: if level >= 2 { self.fencing_ms } else { 0 },
            transactional_ids_max: from(TRANSACTIONS_LEVEL, self.transactional_ids_max),
            transaction_partitions_max: from(TRANSACTIONS_LEVEL, self.transaction_partitions_max),
            garbage_grace_ms: if level >= COLLECTION_LEVEL { self.garbage_grace_ms } else { 0 },
            ..self
        }
    }
}
