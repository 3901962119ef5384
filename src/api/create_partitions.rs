//! CreatePartitions (37): topics grow, and never shrink. Manual assignments only have to be as many as there are new
//! partitions and consistent. Rules and messages: Kafka's `ReplicationControlManager.createPartitions`.
use bytes::Bytes;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{ApiKey, CreatePartitionsRequest, CreatePartitionsResponse, TopicName};
use std::collections::BTreeMap;

use super::create_topics::check_assignment;
use super::propose::{code_and_message, deadline, propose_all, refusal, state};
use super::table::Offered;
use super::{Call, Context};
use crate::state::{CreatePartitions, Refusal, State};
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::CreatePartitions, 0, 3);

pub(super) async fn handle(ctx: &Context, _: &Call, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let deadline = deadline(ctx, request.timeout_ms);
    let mut times = BTreeMap::<&str, u32>::new();
    request.topics.iter().for_each(|topic| *times.entry(topic.name.as_str()).or_default() += 1);
    let state = state(ctx, deadline).await;
    let mut added = 0;
    let mut planned: Vec<(TopicName, Result<CreatePartitions, Refusal>)> = Vec::with_capacity(times.len());
    for topic in &request.topics {
        let plan = match (times.insert(topic.name.as_str(), 0), &state) {
            (Some(0), _) => continue,
            (Some(2..), _) => Err(refusal(KafkaError::InvalidRequest, "Duplicate topic name.")),
            (_, Ok(state)) => plan(ctx, state, topic, &mut added),
            (_, Err(error)) => Err(error.clone()),
        };
        planned.push((topic.name.clone(), plan));
    }
    if !request.validate_only {
        let commands = planned.iter().filter_map(|(_, plan)| plan.as_ref().ok().cloned().map(Into::into)).collect();
        let mut outcomes = propose_all(ctx, deadline, commands).await.into_iter();
        for (_, plan) in planned.iter_mut().filter(|(_, plan)| plan.is_ok()) {
            if let Some(Err(error)) = outcomes.next() {
                *plan = Err(error);
            }
        }
    }
    let results = planned.into_iter().map(|(name, result)| {
        let (code, message) = code_and_message(&result);
        CreatePartitionsTopicResult::default().with_name(name).with_error_code(code).with_error_message(message)
    });
    CreatePartitionsResponse::default().with_results(results.collect())
}

/// The command, after every check that a proposer can make. `added` counts the new partitions of the whole request.
fn plan(
    ctx: &Context,
    state: &State,
    asked: &CreatePartitionsTopic,
    added: &mut usize,
) -> Result<CreatePartitions, Refusal> {
    let Some(topic) = state.topic_by_name(&asked.name) else {
        return Err(refusal(KafkaError::UnknownTopicOrPartition, ""));
    };
    // A negative count is no increase either.
    let have = topic.slots.len();
    let Ok(count) = u32::try_from(asked.count) else {
        let (name, count) = (&topic.name, asked.count);
        let message = format!("The topic {name} currently has {have} partition(s); {count} would not be an increase.");
        return Err(refusal(KafkaError::InvalidPartitions, message));
    };
    state.check_create_partitions(topic, count)?;
    let more = (count as usize).saturating_sub(have);
    if let Some(assignments) = &asked.assignments {
        if assignments.len() != more {
            let message = format!(
                "Attempted to add {more} additional partition(s), but only {} assignment(s) were specified.",
                assignments.len()
            );
            return Err(refusal(KafkaError::InvalidReplicaAssignment, message));
        }
        let mut replicas = None;
        for assignment in assignments {
            let brokers: Vec<i32> = assignment.broker_ids.iter().map(|id| id.0).collect();
            replicas = Some(check_assignment(&brokers, replicas)?);
        }
    }
    *added = added.saturating_add(more);
    if *added > ctx.config.limits.partitions_per_request_max {
        let message = "Excessively large number of partitions per request.";
        return Err(refusal(KafkaError::PolicyViolation, message));
    }
    Ok(CreatePartitions { topic_id: Bytes::copy_from_slice(topic.id.0.as_bytes()), count })
}
