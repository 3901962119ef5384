//! AddPartitionsToTxn (24): partitions join a transaction, before records come (version 1 of transactions). Versions 4 and 5
//! are for brokers among themselves, and not offered. If one partition can't be added, none is.
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ApiKey};
use std::sync::Arc;

use super::resolve::{is_internal, slot, state_with};
use super::table::Offered;
use super::transactions::{check_transactional_id, fenced_in_version, propose, stamp};
use super::{Call, Context};
use crate::fetch::TopicKey;
use crate::state::{AddToTransaction, State};
use crate::types::{KafkaError, PartitionIndex, Slot};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::AddPartitionsToTxn, 0, 3);

pub(super) async fn handle(
    ctx: &Context,
    call: &Call,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let codes = add(ctx, call, &request).await;
    let mut codes = codes.into_iter();
    let topics = request.v3_and_below_topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|index| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*index)
                .with_partition_error_code(codes.next().unwrap_or(0))
        });
        let partitions = partitions.collect();
        AddPartitionsToTxnTopicResult::default().with_name(topic.name).with_results_by_partition(partitions)
    });
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(topics.collect())
}

/// An error code for each partition, in the order of the request.
async fn add(ctx: &Context, call: &Call, request: &AddPartitionsToTxnRequest) -> Vec<i16> {
    let topics = || request.v3_and_below_topics.iter();
    let count = topics().map(|topic| topic.partitions.len()).sum();
    let all = |error: KafkaError| vec![fenced_in_version(call, 2, error).code(); count];
    if let Err(error) = check_transactional_id(ctx, &request.v3_and_below_transactional_id) {
        return all(error);
    }
    let keys: Vec<TopicKey> = topics().map(|topic| TopicKey::Name(Arc::from(topic.name.as_str()))).collect();
    let Ok(state) = state_with(ctx, keys.iter()).await else { return all(KafkaError::CoordinatorNotAvailable) };
    let found = topics().zip(&keys).flat_map(|(topic, key)| topic.partitions.iter().map(|i| find(&state, key, *i)));
    let found: Vec<Result<Slot, KafkaError>> = found.collect();
    if found.iter().any(Result::is_err) {
        let not_tried = |slot: Result<Slot, KafkaError>| match slot {
            Ok(_) => KafkaError::OperationNotAttempted.code(),
            Err(error) => error.code(),
        };
        return found.into_iter().map(not_tried).collect();
    }
    let add = AddToTransaction {
        transactional_id: request.v3_and_below_transactional_id.to_string(),
        producer: stamp(request.v3_and_below_producer_id.0, request.v3_and_below_producer_epoch),
        slots: found.into_iter().flatten().map(|slot| slot.0).collect(),
        groups: Vec::new(),
    };
    match propose(ctx, add).await {
        Ok(_) => vec![0; count],
        Err(error) => all(error),
    }
}

fn find(state: &State, key: &TopicKey, index: i32) -> Result<Slot, KafkaError> {
    match key {
        TopicKey::Name(name) if is_internal(name) => Err(KafkaError::TopicAuthorizationFailed),
        key => slot(state, key, PartitionIndex(index)),
    }
}
