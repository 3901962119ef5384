//! DeleteRecords (21): moves log start offsets up. Offset -1 is the high watermark. Rules: Kafka's
//! `Partition.deleteRecordsOnLeader`.
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{ApiKey, DeleteRecordsRequest, DeleteRecordsResponse};
use std::sync::Arc;

use super::propose::{deadline, propose_all, state};
use super::resolve::{is_internal, slot, topic};
use super::table::Offered;
use super::{Call, Context};
use crate::fetch::TopicKey;
use crate::state::{DeleteRecords, Outcome, State};
use crate::types::{KafkaError, Offset, PartitionIndex};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::DeleteRecords, 0, 2);

/// What stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;

pub(super) async fn handle(ctx: &Context, _: &Call, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let deadline = deadline(ctx, request.timeout_ms);
    let state = state(ctx, deadline).await;
    let mut planned: Vec<Result<DeleteRecords, KafkaError>> = Vec::new();
    for asked in &request.topics {
        let key = TopicKey::Name(Arc::from(asked.name.as_str()));
        for partition in &asked.partitions {
            planned.push(match &state {
                Ok(state) => plan(ctx, state, &key, PartitionIndex(partition.partition_index), partition.offset),
                Err(_) => Err(KafkaError::NotLeaderOrFollower),
            });
        }
    }
    let commands = planned.iter().filter_map(|plan| plan.clone().ok().map(Into::into)).collect();
    let mut outcomes = propose_all(ctx, deadline, commands).await.into_iter();
    let mut results = planned.into_iter().map(|plan| {
        plan?;
        match outcomes.next() {
            Some(Ok(Outcome::LogStart { offset })) => Ok(offset),
            Some(Err(refused)) if refused.error == KafkaError::NotController => Err(KafkaError::NotLeaderOrFollower),
            Some(Err(refused)) => Err(refused.error),
            Some(Ok(_)) | None => Err(KafkaError::UnknownServerError),
        }
    });
    let topics = request.topics.into_iter().map(|asked| {
        let partitions = asked.partitions.iter().map(|partition| {
            let response = DeleteRecordsPartitionResult::default().with_partition_index(partition.partition_index);
            match results.next().unwrap_or(Err(KafkaError::UnknownServerError)) {
                Ok(low) => response.with_low_watermark(low.0),
                Err(error) => response.with_low_watermark(-1).with_error_code(error.code()),
            }
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult::default().with_name(asked.name).with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

fn plan(
    ctx: &Context,
    state: &State,
    key: &TopicKey,
    index: PartitionIndex,
    offset: i64,
) -> Result<DeleteRecords, KafkaError> {
    let slot = slot(state, key, index)?;
    let partition = state.partition(slot).ok_or(KafkaError::UnknownTopicOrPartition)?;
    if let Some(topic) = topic(state, key) {
        if is_internal(&topic.name) {
            return Err(KafkaError::InvalidTopicException);
        }
        let settings = ctx.topic_settings.of(topic);
        // Records of a compacted topic go when a later one of their key comes, and not otherwise.
        if settings.compacted && !settings.deletes {
            return Err(KafkaError::PolicyViolation);
        }
    }
    let offset = if offset == HIGH_WATERMARK { partition.end } else { Offset(offset) };
    if offset.0 < 0 || offset > partition.end {
        return Err(KafkaError::OffsetOutOfRange);
    }
    Ok(DeleteRecords { slot: slot.0, offset: offset.0 })
}
