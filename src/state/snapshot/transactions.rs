//! Transactional ids and aborted transactions in a snapshot. What is open in a partition follows from the former.
use std::sync::Arc;

use super::varint;
use crate::state::apply::State;
use crate::state::group::{CommittedBody, GroupName};
use crate::state::topic::Partition;
use crate::state::transaction::{
    Aborted, Ended, OpenTransaction, PartitionTransactions, Producing, TransactionalId, TransactionalProducer,
};
use crate::state::transaction_commands::ProducerStamp;
use crate::types::{Offset, Position, ProducerEpoch, ProducerId, Slot, TimestampMs};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TransactionalBody {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, required, tag = "2")]
    producer: ProducerStamp,
    #[prost(int32, tag = "3")]
    timeout_ms: i32,
    #[prost(uint64, tag = "4")]
    last_used: u64,
    #[prost(int64, tag = "5")]
    last_used_ms: i64,
    #[prost(message, optional, tag = "6")]
    open: Option<OpenBody>,
    #[prost(message, optional, tag = "7")]
    ended: Option<EndedBody>,
    #[prost(message, optional, tag = "8")]
    exchanged: Option<ProducerStamp>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OpenBody {
    #[prost(uint64, tag = "1")]
    since: u64,
    #[prost(int64, tag = "2")]
    since_ms: i64,
    /// Per partition, by slot: slot (difference), first offset + 1 or 0 for none.
    #[prost(bytes = "vec", tag = "3")]
    partitions: Vec<u8>,
    #[prost(message, repeated, tag = "4")]
    groups: Vec<PendingBody>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PendingBody {
    #[prost(string, tag = "1")]
    group: String,
    #[prost(message, repeated, tag = "2")]
    offsets: Vec<CommittedBody>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct EndedBody {
    #[prost(message, optional, tag = "1")]
    by: Option<ProducerStamp>,
    #[prost(bool, tag = "2")]
    committed: bool,
    #[prost(message, required, tag = "3")]
    next: ProducerStamp,
}

impl TransactionalBody {
    pub(super) fn of(id: &str, known: &TransactionalProducer) -> Self {
        let ended = |e: Ended| EndedBody { by: e.by.map(stamp), committed: e.committed, next: stamp(e.next) };
        Self {
            id: id.to_owned(),
            producer: stamp(known.producer),
            timeout_ms: known.timeout_ms,
            last_used: known.last_used.0,
            last_used_ms: known.last_used_ms.0,
            open: known.open.as_ref().map(OpenBody::of),
            ended: known.ended.map(ended),
            exchanged: known.exchanged.map(stamp),
        }
    }

    /// Puts what [`TransactionalBody::of`] took back; `None` if it contradicts what `state` has already.
    pub(super) fn restore(self, state: &mut State) -> Option<()> {
        let id: TransactionalId = Arc::from(self.id);
        let producer = producing(self.producer)?;
        let ended = match self.ended {
            Some(e) => Some(Ended {
                by: match e.by {
                    Some(by) => Some(producing(by)?),
                    None => None,
                },
                committed: e.committed,
                next: producing(e.next)?,
            }),
            None => None,
        };
        let open = match self.open {
            Some(open) => Some(open.restore(state, producer.id)?),
            None => None,
        };
        let exchanged = match self.exchanged {
            Some(exchanged) => Some(producing(exchanged)?),
            None => None,
        };
        let known = TransactionalProducer {
            producer,
            timeout_ms: self.timeout_ms,
            last_used: Position(self.last_used),
            last_used_ms: TimestampMs(self.last_used_ms),
            open,
            ended,
            exchanged,
        };
        state.transactional_ids.insert(producer.id, id.clone());
        state.transactional.insert(id, Arc::new(known)).is_none().then_some(())
    }
}

impl OpenBody {
    fn of(open: &OpenTransaction) -> Self {
        let (mut partitions, mut before) = (Vec::new(), 0);
        for (slot, first) in &open.partitions {
            varint::put(&mut partitions, u64::from(slot.0 - before));
            varint::put(&mut partitions, first.map_or(0, |first| first.0.unsigned_abs() + 1));
            before = slot.0;
        }
        let pending = |(group, offsets): (&GroupName, &imbl::OrdMap<Slot, _>)| PendingBody {
            group: group.to_string(),
            offsets: offsets.iter().map(|(slot, offset)| CommittedBody::of(*slot, offset)).collect(),
        };
        let groups = open.groups.iter().map(pending).collect();
        Self { since: open.since.0, since_ms: open.since_ms.0, partitions, groups }
    }

    fn restore(self, state: &mut State, producer: ProducerId) -> Option<OpenTransaction> {
        let mut open = OpenTransaction::new(Position(self.since), TimestampMs(self.since_ms));
        let (mut input, mut slot) = (self.partitions.as_slice(), 0_u32);
        while !input.is_empty() {
            slot = slot.checked_add(varint::take_u32(&mut input)?)?;
            let first = varint::take(&mut input)?.checked_sub(1).map(i64::try_from).transpose().ok()?.map(Offset);
            open.partitions.insert(Slot(slot), first);
            // The partition may be deleted.
            if let (Some(first), Some(partition)) = (first, state.partition_mut(Slot(slot))) {
                partition.transactions_mut().open.insert(first, producer);
            }
        }
        for pending in self.groups {
            let name = state.group_name(&pending.group);
            let offsets: imbl::OrdMap<Slot, _> = pending.offsets.into_iter().map(CommittedBody::restore).collect();
            for slot in offsets.keys() {
                *state.pending_offsets.entry((name.clone(), *slot)).or_insert(0) += 1;
                state.pending += 1;
            }
            open.groups.insert(name, offsets);
        }
        Some(open)
    }
}

/// Per aborted transaction, by its marker: the marker's offset (difference); ~producer; marker's offset minus the first;
/// ~last stable offset minus the marker's.
pub(super) fn aborted_bytes(partition: &Partition) -> Vec<u8> {
    let (mut out, mut before) = (Vec::new(), 0);
    for (marker, aborted) in partition.transactions().into_iter().flat_map(|t| &t.aborted) {
        varint::put(&mut out, (marker.0 - before).unsigned_abs());
        varint::put_signed(&mut out, aborted.producer.0);
        varint::put(&mut out, (marker.0 - aborted.first.0).unsigned_abs());
        varint::put_signed(&mut out, aborted.stable.0 - marker.0);
        before = marker.0;
    }
    out
}

/// What [`aborted_bytes`] wrote.
pub(super) fn restore_aborted(mut input: &[u8]) -> Option<Option<Arc<PartitionTransactions>>> {
    let (mut transactions, mut marker) = (PartitionTransactions::default(), 0_i64);
    while !input.is_empty() {
        marker = marker.checked_add_unsigned(varint::take(&mut input)?)?;
        let producer = ProducerId(varint::take_signed(&mut input)?);
        let first = Offset(marker.checked_sub_unsigned(varint::take(&mut input)?)?);
        let stable = Offset(marker.checked_add(varint::take_signed(&mut input)?)?);
        transactions.aborted.insert(Offset(marker), Aborted { producer, first, stable });
    }
    Some((!transactions.aborted.is_empty()).then(|| Arc::new(transactions)))
}

fn stamp(producer: Producing) -> ProducerStamp {
    ProducerStamp { id: producer.id.0, epoch: i32::from(producer.epoch.0) }
}

fn producing(stamp: ProducerStamp) -> Option<Producing> {
    Some(Producing { id: ProducerId(stamp.id), epoch: ProducerEpoch(i16::try_from(stamp.epoch).ok()?) })
}
