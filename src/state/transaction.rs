//! Transactions as State keeps them: per transactional id the producer that may use it and what its open transaction
//! holds, per partition which transactions are open and which were aborted. A transaction ends with one command, so there
//! is nothing between open and ended (KIP-98, KIP-890). From feature level 4 on.
use imbl::OrdMap;
use std::sync::Arc;

use super::group::{CommittedOffset, GroupName};
use crate::types::{Offset, Position, ProducerEpoch, ProducerId, Slot, TimestampMs};

/// From this feature level on there are transactions.
pub const TRANSACTIONS_LEVEL: u32 = 4;

/// A transactional id, shared rather than copied.
pub type TransactionalId = Arc<str>;

/// A producer id in one of its epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producing {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
}

/// What is known of a transactional id. Kafka's `TransactionMetadata`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionalProducer {
    /// Who may use it; everybody with another epoch is fenced.
    pub producer: Producing,
    /// A transaction that is open for longer is aborted, in ms.
    pub timeout_ms: i32,
    /// The entry of its last use but for records, by which its expiry names it (H16), and that entry's time.
    pub last_used: Position,
    pub last_used_ms: TimestampMs,
    pub open: Option<OpenTransaction>,
    /// How its last transaction ended.
    pub ended: Option<Ended>,
    /// Whom InitProducerId gave the present producer in exchange, so that asking again gives the same (KIP-360).
    pub exchanged: Option<Producing>,
}

/// A transaction that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    /// The entry with which it began, and that entry's time.
    pub since: Position,
    pub since_ms: TimestampMs,
    /// Partitions that take part, with the offset of its first record where it has one.
    pub partitions: OrdMap<Slot, Option<Offset>>,
    /// Groups that take part, with the offsets that they get when it is committed.
    pub groups: OrdMap<GroupName, OrdMap<Slot, CommittedOffset>>,
}

/// How a transaction ended, to answer an EndTxn that is sent again (H14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Who ended it by EndTxn; `None` where it was aborted without its producer.
    pub by: Option<Producing>,
    pub committed: bool,
    /// Who goes on; with version 2 of the protocol that is another epoch.
    pub next: Producing,
}

/// The transactions of one partition.
#[derive(Clone, Debug, Default)]
pub struct PartitionTransactions {
    /// Open ones, by their first offset.
    pub(super) open: OrdMap<Offset, ProducerId>,
    /// Aborted ones, by their marker's offset.
    pub(super) aborted: OrdMap<Offset, Aborted>,
}

/// An aborted transaction in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    pub producer: ProducerId,
    /// The offset of its first record.
    pub first: Offset,
    /// The last stable offset when it had ended: what ends later begins there or beyond.
    pub(super) stable: Offset,
}

impl Producing {
    /// The highest epoch that a client gets; the one beyond it is for markers.
    pub const EPOCH_MAX: ProducerEpoch = ProducerEpoch(i16::MAX - 1);

    /// The epoch that fences this one.
    #[must_use]
    pub(super) fn fencing(self) -> ProducerEpoch {
        ProducerEpoch(self.epoch.0.saturating_add(1))
    }
}

impl OpenTransaction {
    pub(super) fn new(since: Position, since_ms: TimestampMs) -> Self {
        Self { since, since_ms, partitions: OrdMap::new(), groups: OrdMap::new() }
    }
}

impl TransactionalProducer {
    /// Kafka's name of the state that it is in (`TransactionState`).
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        // A new instance of the producer begins with nothing.
        match (&self.open, self.ended.filter(|ended| ended.next == self.producer && self.exchanged.is_none())) {
            (Some(_), _) => "Ongoing",
            (None, Some(Ended { committed: true, .. })) => "CompleteCommit",
            (None, Some(_)) => "CompleteAbort",
            (None, None) => "Empty",
        }
    }
}

impl PartitionTransactions {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.aborted.is_empty()
    }

    /// All aborted ones, by the offsets of their markers, which they come with.
    pub fn all_aborted(&self) -> impl Iterator<Item = (Offset, &Aborted)> {
        self.aborted.iter().map(|(marker, aborted)| (*marker, aborted))
    }

    /// Aborted ones with a record in `from..until`, by the offsets of their markers.
    pub fn aborted(&self, from: Offset, until: Offset) -> impl Iterator<Item = &Aborted> {
        let mut last = false;
        let ended_later = self.aborted.range(from..).map(|(_, aborted)| aborted).take_while(move |aborted| {
            let over = last;
            last = aborted.stable >= until;
            !over
        });
        ended_later.filter(move |aborted| aborted.first < until)
    }
}
