//! TxnOffsetCommit (28): offsets of a group that are committed with a transaction, or not at all. The group's coordinator
//! says who may; `apply` says whether the transaction is the producer's and open. From version 5 on the group joins the
//! transaction with it (KIP-890). Rules: Kafka's `OffsetMetadataManager.commitTransactionalOffset`.
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{ApiKey, TxnOffsetCommitRequest, TxnOffsetCommitResponse};
use std::collections::BTreeSet;
use std::sync::Arc;

use super::groups::{check_group_id, exists, identity};
use super::offset_commit::{AskedOffset, Planned, plan};
use super::table::Offered;
use super::transactions::{abortable_in_version, has_transactions, stamp};
use super::{Call, Context};
use crate::fetch::TopicKey;
use crate::group::{CommitRequest, GroupError, Reply, Request};
use crate::state::{OffsetSpec, OffsetsTransaction};
use crate::types::{KafkaError, Slot};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::TxnOffsetCommit, 0, 5);

/// The first version of transactions version 2.
const JOINS: i16 = 5;
/// The first version that knows TRANSACTION_ABORTABLE.
const ABORTABLE: i16 = 4;
/// The first version that says who commits.
const IDENTIFIES: i16 = 3;

pub(super) async fn handle(ctx: &Context, call: &Call, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let codes = match commit(ctx, call.header.version, &request).await {
        Ok(codes) => codes,
        Err(error) => request.topics.iter().map(|t| vec![error.code(); t.partitions.len()]).collect(),
    };
    let topics = request.topics.into_iter().zip(codes).map(|(topic, codes)| {
        let partitions = topic.partitions.iter().zip(codes).map(|(partition, code)| {
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        TxnOffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions.collect())
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}

/// An error code per topic and partition.
async fn commit(ctx: &Context, version: i16, request: &TxnOffsetCommitRequest) -> Result<Vec<Vec<i16>>, KafkaError> {
    check_group_id(ctx, &request.group_id).map_err(|refused| refused.error)?;
    if request.transactional_id.is_empty() || !has_transactions(ctx) {
        return Err(KafkaError::InvalidRequest);
    }
    let asked: Vec<(TopicKey, Vec<AskedOffset<'_>>)> = request
        .topics
        .iter()
        .map(|topic| {
            let offsets = topic.partitions.iter().map(|p| AskedOffset {
                index: p.partition_index,
                offset: p.committed_offset,
                leader_epoch: p.committed_leader_epoch,
                metadata: p.committed_metadata.as_deref(),
            });
            (TopicKey::Name(Arc::from(topic.name.as_str())), offsets.collect())
        })
        .collect();
    let planned = plan(ctx, &asked).await?;
    let specs: Vec<OffsetSpec> = planned.iter().flatten().filter_map(Planned::spec).cloned().collect();
    let any = planned.iter().flatten().any(|p| !matches!(p, Planned::Refused(_)));
    let deleted = if any { ask(ctx, version, request, specs).await? } else { BTreeSet::new() };
    let code = |planned: &Planned| planned.code(&deleted, KafkaError::UnknownTopicOrPartition);
    Ok(planned.iter().map(|topic| topic.iter().map(code).collect()).collect())
}

/// Gives the partitions that were deleted meanwhile.
async fn ask(
    ctx: &Context,
    version: i16,
    request: &TxnOffsetCommitRequest,
    offsets: Vec<OffsetSpec>,
) -> Result<BTreeSet<Slot>, KafkaError> {
    let generation = if version >= IDENTIFIES { request.generation_id } else { -1 };
    // Only who is no member makes a group by committing.
    if generation >= 0 && !exists(ctx, &request.group_id).await? {
        return Err(KafkaError::IllegalGeneration);
    }
    let transaction = OffsetsTransaction {
        transactional_id: request.transactional_id.to_string(),
        producer: stamp(request.producer_id.0, request.producer_epoch),
        joins: version >= JOINS,
    };
    let commit = CommitRequest {
        identity: identity(&request.member_id, request.group_instance_id.as_deref(), generation),
        offsets,
        transaction: Some(transaction),
        ..CommitRequest::default()
    };
    match ctx.groups.ask(&request.group_id, Request::Commit(commit)).await {
        Ok(Reply::Committed(deleted)) => Ok(deleted.into_iter().collect()),
        Ok(_) => Err(KafkaError::UnknownServerError),
        // These are not among the API's errors.
        Err(GroupError { error: KafkaError::GroupIdNotFound | KafkaError::StaleMemberEpoch, .. }) => {
            Err(KafkaError::IllegalGeneration)
        }
        Err(GroupError { error, .. }) => Err(abortable_in_version(version, ABORTABLE, error)),
    }
}
