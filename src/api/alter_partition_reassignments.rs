//! AlterPartitionReassignments (45): refused, since the bucket replicates and partitions have no replicas that could
//! move. Asking for the replicas that there are is no move and succeeds, so that generated plans can be run.
use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ApiKey};
use std::sync::Arc;

use super::propose::{code_and_message, deadline, refusal, state};
use super::resolve::slot;
use super::table::Offered;
use super::{Call, Context};
use crate::fetch::TopicKey;
use crate::state::{Refusal, State};
use crate::types::{KafkaError, PartitionIndex};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::AlterPartitionReassignments, 0, 1);

pub(super) async fn handle(
    ctx: &Context,
    call: &Call,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let state = state(ctx, deadline(ctx, request.timeout_ms)).await;
    let topics = request.topics.into_iter().map(|topic| {
        let key = TopicKey::Name(Arc::from(topic.name.as_str()));
        let partitions = topic.partitions.iter().map(|asked| {
            let result = state.as_ref().map_err(Clone::clone).and_then(|state| judge(ctx, state, &key, asked));
            let (code, message) = code_and_message(&result);
            ReassignablePartitionResponse::default()
                .with_partition_index(asked.partition_index)
                .with_error_code(code)
                .with_error_message(message)
        });
        let partitions = partitions.collect();
        ReassignableTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    let mut response =
        AlterPartitionReassignmentsResponse::default().with_error_message(None).with_responses(topics.collect());
    if call.header.version >= 1 {
        response.allow_replication_factor_change = request.allow_replication_factor_change;
    }
    response
}

fn judge(ctx: &Context, state: &State, key: &TopicKey, asked: &ReassignablePartition) -> Result<(), Refusal> {
    let index = PartitionIndex(asked.partition_index);
    let slot = slot(state, key, index).map_err(|error| refusal(error, "Unable to find the topic or partition."))?;
    let members = ctx.members();
    let leader = state.partition(slot).map(|p| members.seen_from(None).leader(p.topic, index).leader.0);
    match &asked.replicas {
        None => Err(refusal(KafkaError::NoReassignmentInProgress, "")),
        Some(replicas) if replicas.len() == 1 && Some(replicas[0].0) == leader => Ok(()),
        Some(_) => Err(refusal(
            KafkaError::InvalidReplicaAssignment,
            "The bucket replicates: partitions have no replicas that could be moved.",
        )),
    }
}
