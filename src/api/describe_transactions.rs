//! DescribeTransactions (65): transactional ids as State has them.
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{
    ApiKey, DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId as WireProducerId, TopicName,
    TransactionalId as WireTransactionalId,
};
use std::collections::{BTreeMap, BTreeSet};

use super::propose::{default_deadline, state, text};
use super::table::Offered;
use super::transactions::check_transactional_id;
use super::{Call, Context};
use crate::state::{OFFSETS_TOPIC, OpenTransaction, State};
use crate::types::{KafkaError, Slot};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::DescribeTransactions, 0, 0);

pub(super) async fn handle(
    ctx: &Context,
    _: &Call,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let state = state(ctx, default_deadline(ctx)).await.map_err(|_| KafkaError::CoordinatorNotAvailable);
    // Each once: a small request must not make a large answer.
    let mut seen = BTreeSet::new();
    let ids = request.transactional_ids.into_iter().filter(|id| seen.insert(id.to_string()));
    let described = ids.map(|id| {
        let found = check_transactional_id(ctx, &id);
        let found = found.and_then(|()| describe(state.as_ref().map_err(|error| *error)?, &id));
        let unknown = |error: KafkaError| {
            TransactionState::default()
                .with_error_code(error.code())
                .with_producer_id(WireProducerId(-1))
                .with_producer_epoch(-1)
        };
        found.unwrap_or_else(unknown).with_transactional_id(id)
    });
    DescribeTransactionsResponse::default().with_transaction_states(described.collect())
}

fn describe(state: &State, id: &WireTransactionalId) -> Result<TransactionState, KafkaError> {
    let known = state.transactional_producer(id).ok_or(KafkaError::TransactionalIdNotFound)?;
    let open = known.open.as_ref();
    Ok(TransactionState::default()
        .with_transaction_state(text(known.state_name()))
        .with_transaction_timeout_ms(known.timeout_ms)
        .with_transaction_start_time_ms(open.map_or(-1, |open| open.since_ms.0))
        .with_producer_id(WireProducerId(known.producer.id.0))
        .with_producer_epoch(known.producer.epoch.0)
        .with_topics(open.map_or_else(Vec::new, |open| topics(state, open))))
}

/// The partitions that take part, as in Kafka with those of `__consumer_offsets` that its groups have.
fn topics(state: &State, open: &OpenTransaction) -> Vec<TopicData> {
    let groups = open.groups.keys().filter_map(|group| state.offsets_slot(group));
    let slots: BTreeSet<Slot> = open.partitions.keys().copied().chain(groups).collect();
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for slot in slots {
        // A topic that was deleted is no part of it any more.
        let Some(partition) = state.partition(slot) else { continue };
        let name = state.topic(partition.topic).map_or(OFFSETS_TOPIC, |topic| &topic.name);
        topics.entry(name).or_default().push(partition.index.0);
    }
    let topic = |(name, partitions): (&str, Vec<i32>)| {
        TopicData::default().with_topic(TopicName(text(name))).with_partitions(partitions)
    };
    topics.into_iter().map(topic).collect()
}
