//! ElectLeaders (43): never needed, since the first replica always leads. As in Kafka, only a request that names
//! partitions is told so.
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ApiKey, ElectLeadersRequest, ElectLeadersResponse};
use std::sync::Arc;

use super::propose::{code_and_message, deadline, refusal, state};
use super::resolve::slot;
use super::table::Offered;
use super::{Call, Context};
use crate::fetch::TopicKey;
use crate::state::{Refusal, State};
use crate::types::{KafkaError, PartitionIndex};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::ElectLeaders, 0, 2);

pub(super) async fn handle(ctx: &Context, _: &Call, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let Some(asked) = request.topic_partitions else { return ElectLeadersResponse::default() };
    let state = state(ctx, deadline(ctx, request.timeout_ms)).await;
    let results = asked.into_iter().map(|topic| {
        let key = TopicKey::Name(Arc::from(topic.topic.as_str()));
        let partitions = topic.partitions.iter().map(|index| {
            let refused = match &state {
                Ok(state) => judge(state, &key, PartitionIndex(*index)),
                Err(error) => error.clone(),
            };
            let (code, message) = code_and_message::<()>(&Err(refused));
            PartitionResult::default().with_partition_id(*index).with_error_code(code).with_error_message(message)
        });
        let partitions = partitions.collect();
        ReplicaElectionResult::default().with_topic(topic.topic).with_partition_result(partitions)
    });
    ElectLeadersResponse::default().with_replica_election_results(results.collect())
}

fn judge(state: &State, key: &TopicKey, index: PartitionIndex) -> Refusal {
    match slot(state, key, index) {
        Ok(_) => refusal(KafkaError::ElectionNotNeeded, "Leader election not needed for topic partition."),
        Err(error) => refusal(error, "The topic or partition does not exist."),
    }
}
