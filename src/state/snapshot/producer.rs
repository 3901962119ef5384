//! What a partition remembers of a producer, in a snapshot.
use prost::Message;
use std::sync::Arc;

use crate::planted::{Defect, planted};
use crate::state::apply::State;
use crate::state::producer::{BatchSequence, Moment, ProducerState};
use crate::state::varint;
use crate::types::{Offset, Position, ProducerEpoch, ProducerId, Sequence, Slot, TimestampMs};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProducerBody {
    #[prost(uint32, tag = "1")]
    slot: u32,
    #[prost(int64, tag = "2")]
    id: i64,
    #[prost(sint32, tag = "3")]
    epoch: i32,
    #[prost(uint64, tag = "4")]
    last_used: u64,
    #[prost(int64, tag = "5")]
    last_used_ms: i64,
    /// Per remembered batch, oldest first: first sequence, records, base offset.
    #[prost(bytes = "vec", tag = "6")]
    batches: Vec<u8>,
    #[prost(uint64, tag = "7")]
    accepted: u64,
}

pub(super) fn producer_body(slot: Slot, id: ProducerId, producer: &ProducerState) -> ProducerBody {
    let mut batches = Vec::new();
    for batch in producer.batches().iter().filter(|_| !planted(Defect::SnapshotForgetsWindows)) {
        varint::put_signed(&mut batches, i64::from(batch.first.0));
        varint::put(&mut batches, u64::from(batch.records));
        varint::put_signed(&mut batches, batch.base_offset.0);
    }
    ProducerBody {
        slot: slot.0,
        id: id.0,
        epoch: i32::from(producer.epoch.0),
        last_used: producer.last_used.0,
        last_used_ms: producer.last_used_ms.0,
        batches,
        accepted: producer.accepted,
    }
}

pub(super) fn restore_producer(state: &mut State, producer: &[u8]) -> Option<()> {
    let body = ProducerBody::decode(producer).ok()?;
    let (mut batches, mut input) = (Vec::new(), body.batches.as_slice());
    while !input.is_empty() {
        batches.push(BatchSequence {
            first: Sequence(i32::try_from(varint::take_signed(&mut input)?).ok()?),
            records: varint::take_u32(&mut input)?,
            base_offset: Offset(varint::take_signed(&mut input)?),
        });
    }
    let epoch = ProducerEpoch(i16::try_from(body.epoch).ok()?);
    let last = Moment { position: Position(body.last_used), wall_ms: TimestampMs(body.last_used_ms) };
    let producer = ProducerState::restore(epoch, last, body.accepted, &batches)?;
    let slot = Slot(body.slot);
    let place = state.partitions.get_mut(slot.0 as usize)?.as_mut()?;
    Arc::make_mut(place).producers += 1;
    state.producers.set((slot, ProducerId(body.id)), &producer).then_some(())
}
