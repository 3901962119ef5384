//! The things that State is made of: topics, partitions, objects, kept snapshots.
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::segment::ObjectName;
use crate::types::{Head, Offset, PartitionIndex, Position, ProducerId, Slot, TimestampMs, TopicId, TopicName};

use super::tail::Tail;
use super::transaction::PartitionTransactions;

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
    /// What is below it has been cleaned, as `cleanup.policy=compact` says: of each key that it has there is one value, of no
    /// aborted transaction a record. From level 7 on.
    pub cleaned: Offset,
    /// When a producer was forgotten last. What was on its way before may be of that one, and in the log already.
    pub forgotten: Position,
    pub tail: Tail,
    /// `None` where no transaction is open and none was aborted.
    pub(super) transactions: Option<Arc<PartitionTransactions>>,
}

impl Partition {
    /// The last stable offset: the end of what readers of committed records see (KIP-98).
    #[must_use]
    pub fn last_stable(&self) -> Offset {
        let open = self.transactions.as_ref().and_then(|t| t.open.get_min());
        open.map_or(self.end, |(first, _)| (*first).max(self.log_start))
    }

    /// Its open and aborted transactions.
    #[must_use]
    pub fn transactions(&self) -> Option<&PartitionTransactions> {
        self.transactions.as_deref()
    }

    /// Open transactions that have a record here, with the offset of the first.
    pub fn open_transactions(&self) -> impl Iterator<Item = (Offset, ProducerId)> {
        self.transactions.iter().flat_map(|t| t.open.iter().map(|(first, producer)| (*first, *producer)))
    }

    /// Aborted transactions that ended before `offset` concern nobody any more.
    pub(super) fn forget_aborted_below(&mut self, offset: Offset) {
        let gone = |t: &Arc<PartitionTransactions>| t.aborted.get_min().is_some_and(|(marker, _)| *marker < offset);
        if !self.transactions.as_ref().is_some_and(gone) {
            return;
        }
        let transactions = self.transactions_mut();
        let (_, at, kept) = transactions.aborted.split_lookup(&offset);
        transactions.aborted = kept;
        transactions.aborted.extend(at.map(|aborted| (offset, aborted)));
        if transactions.is_empty() {
            self.transactions = None;
        }
    }

    pub(super) fn transactions_mut(&mut self) -> &mut PartitionTransactions {
        Arc::make_mut(self.transactions.get_or_insert_default())
    }
}

/// An object that State refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    pub name: ObjectName,
    pub bytes: u32,
    /// Runs in it that a partition still holds.
    pub live_runs: u32,
    /// 0 for what a flush wrote, 1 for what was made of that, 2 for what was made of those. From level 6 on, as is the next.
    pub level: u8,
    /// Compaction has put another object in its place, for a partition at least.
    pub was_input: bool,
}

/// A snapshot that State keeps from being swept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSnapshot {
    pub at: Head,
    pub key: String,
    pub bytes: u64,
    pub taken_ms: TimestampMs,
}
