//! ElectLeaders (43): never needed, since the first replica always leads. As in Kafka, only a request that names
//! partitions is told so.
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ApiKey, ElectLeadersRequest, ElectLeadersResponse};
use std::sync::Arc;

use super::propose::{code_and_message, deadline, refusal, state};
use super::resolve::{slot, topic};
use super::table::Offered;
use super::{Call, Context};
use crate::fetch::TopicKey;
use crate::state::{Refusal, State};
use crate::types::{KafkaError, PartitionIndex};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::ElectLeaders, 0, 2);

/// Kafka's numbers for how a leader may be chosen: the preferred replica, or any that is left.
const KNOWN_TYPES: [i8; 2] = [0, 1];

pub(super) async fn handle(ctx: &Context, call: &Call, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let unknown = !KNOWN_TYPES.contains(&request.election_type);
    let election_type = request.election_type;
    let mut response = ElectLeadersResponse::default();
    if unknown && call.header.version >= 1 {
        response.error_code = KafkaError::InvalidRequest.code();
    }
    let Some(asked) = request.topic_partitions else { return response };
    let state = state(ctx, deadline(ctx, request.timeout_ms)).await;
    let results = asked.into_iter().map(|topic| {
        let key = TopicKey::Name(Arc::from(topic.topic.as_str()));
        let partitions = topic.partitions.iter().map(|index| {
            let refused = match &state {
                _ if unknown => refusal(KafkaError::InvalidRequest, format!("Unknown election type {election_type}")),
                Ok(state) => judge(state, &key, PartitionIndex(*index)),
                Err(error) => error.clone(),
            };
            let (code, message) = code_and_message::<()>(&Err(refused));
            PartitionResult::default().with_partition_id(*index).with_error_code(code).with_error_message(message)
        });
        let partitions = partitions.collect();
        ReplicaElectionResult::default().with_topic(topic.topic).with_partition_result(partitions)
    });
    response.with_replica_election_results(results.collect())
}

fn judge(state: &State, key: &TopicKey, index: PartitionIndex) -> Refusal {
    let TopicKey::Name(name) = key else { return refusal(KafkaError::InvalidRequest, "") };
    match slot(state, key, index) {
        Ok(_) => refusal(KafkaError::ElectionNotNeeded, "Leader election not needed for topic partition."),
        Err(error) if topic(state, key).is_none() => refusal(error, format!("No such topic as {name}")),
        Err(error) => refusal(error, format!("No such partition as {name}-{index}")),
    }
}
