//! DescribeProducers (61): the producers that partitions remember, and where their open transactions begin.
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::{
    ApiKey, DescribeProducersRequest, DescribeProducersResponse, ProducerId as WireProducerId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::propose::{code_and_message, default_deadline, refusal, state};
use super::resolve::slot;
use super::table::Offered;
use super::{Call, Context};
use crate::fetch::TopicKey;
use crate::state::{Refusal, State};
use crate::types::{KafkaError, Offset, PartitionIndex, ProducerId};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::DescribeProducers, 0, 0);

pub(super) async fn handle(ctx: &Context, _: &Call, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let state = state(ctx, default_deadline(ctx)).await.map_err(|mut refused| {
        refused.error = KafkaError::NotLeaderOrFollower;
        refused
    });
    let mut seen = BTreeSet::new();
    let topics = request.topics.into_iter().map(|topic| {
        let key = TopicKey::Name(Arc::from(topic.name.as_str()));
        // Each partition once, however often it is asked for: a partition may have thousands of producers.
        let fresh = |index: &&i32| seen.insert((topic.name.0.clone(), **index));
        let partitions = topic.partition_indexes.iter().filter(fresh).map(|index| {
            let found = state.as_ref().map_err(Clone::clone);
            let found = found.and_then(|state| producers(state, &key, PartitionIndex(*index)));
            let (code, message) = code_and_message(&found);
            PartitionResponse::default()
                .with_partition_index(*index)
                .with_error_code(code)
                .with_error_message(message)
                .with_active_producers(found.unwrap_or_default())
        });
        let partitions = partitions.collect();
        TopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

fn producers(state: &State, key: &TopicKey, index: PartitionIndex) -> Result<Vec<ProducerState>, Refusal> {
    let slot =
        slot(state, key, index).map_err(|error| refusal(error, "This server does not host this topic-partition."))?;
    let partition = state.partition(slot);
    let open: BTreeMap<ProducerId, Offset> = partition
        .into_iter()
        .flat_map(|partition| partition.open_transactions())
        .map(|(first, producer)| (producer, first))
        .collect();
    let describe = |(id, producer): (ProducerId, crate::state::ProducerState)| {
        ProducerState::default()
            .with_producer_id(WireProducerId(id.0))
            .with_producer_epoch(i32::from(producer.epoch.0))
            .with_last_sequence(producer.batches().last().map_or(-1, |batch| batch.last().0))
            .with_last_timestamp(producer.last_used_ms.0)
            .with_coordinator_epoch(-1)
            .with_current_txn_start_offset(open.get(&id).map_or(-1, |first| first.0))
    };
    Ok(state.producers_of(slot).map(describe).collect())
}
