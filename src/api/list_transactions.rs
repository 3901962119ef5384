//! ListTransactions (66): the transactional ids that this broker coordinates, by state, producer id, age, and pattern
//! (KIP-664, KIP-994, KIP-1152). Rules: Kafka's `TransactionStateManager.listTransactionStates`.
use kafka_protocol::messages::list_transactions_response::TransactionState;
use kafka_protocol::messages::{
    ApiKey, ListTransactionsRequest, ListTransactionsResponse, ProducerId as WireProducerId,
    TransactionalId as WireTransactionalId,
};
use std::collections::BTreeSet;

use super::propose::{default_deadline, state, text};
use super::table::Offered;
use super::{Call, Context};
use crate::group::compile_pattern;
use crate::state::TransactionalProducer;
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::ListTransactions, 0, 2);

/// Kafka's names of states. Of some there is nothing here, since a transaction ends in one step.
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

pub(super) async fn handle(ctx: &Context, call: &Call, request: ListTransactionsRequest) -> ListTransactionsResponse {
    let response = ListTransactionsResponse::default();
    let pattern = request.transactional_id_pattern.as_deref().filter(|pattern| !pattern.is_empty());
    let pattern = match pattern.map(compile_pattern).transpose() {
        Ok(pattern) => pattern,
        Err(_) => return response.with_error_code(KafkaError::InvalidRegularExpression.code()),
    };
    let Ok(state) = state(ctx, default_deadline(ctx)).await else {
        return response.with_error_code(KafkaError::CoordinatorNotAvailable.code());
    };
    let known = |name: &str| STATES.contains(&name);
    let names: BTreeSet<&str> = request.state_filters.iter().map(|name| name.as_str()).collect();
    let unknown = request.state_filters.iter().filter(|name| !known(name.as_str())).cloned().collect();
    let producers: BTreeSet<i64> = request.producer_id_filters.iter().map(|id| id.0).collect();
    let older_than_ms = if call.header.version >= 1 { request.duration_filter } else { -1 };
    let now = ctx.world.wall_ms();
    let is_old = |known: &TransactionalProducer| {
        // As in Kafka one that is not open has begun before all times.
        let since = known.open.as_ref().map_or(-1, |open| open.since_ms.0);
        older_than_ms < 0 || now.0.saturating_sub(since) > older_than_ms
    };
    let members = ctx.members();
    let listed = state.transactional_producers().filter(|(id, known)| {
        (producers.is_empty() || producers.contains(&known.producer.id.0))
            && (names.is_empty() || names.contains(known.state_name()))
            && is_old(known)
            && pattern.as_ref().is_none_or(|pattern| pattern.is_match(id))
            && members.coordinates(id)
    });
    let listed = listed.map(|(id, known)| {
        TransactionState::default()
            .with_transactional_id(WireTransactionalId(text(&**id)))
            .with_producer_id(WireProducerId(known.producer.id.0))
            .with_transaction_state(text(known.state_name()))
    });
    response.with_unknown_state_filters(unknown).with_transaction_states(listed.collect())
}
