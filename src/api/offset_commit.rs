//! OffsetCommit (8): of members, and of clients that only commit. From version 10 topics are named by id. Rules: Kafka's
//! `KafkaApis.handleOffsetCommitRequest`, and the group's machine for who may commit.
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::{ApiKey, OffsetCommitRequest, OffsetCommitResponse, TopicName};
use std::collections::BTreeSet;
use std::sync::Arc;

use super::groups::{check_group_length, exists, identity};
use super::resolve::slot;
use super::table::Offered;
use super::{Call, Context};
use crate::fetch::TopicKey;
use crate::group::{CommitRequest, GroupError, Reply, Request};
use crate::state::{OffsetSpec, State};
use crate::types::{KafkaError, PartitionIndex, Slot, TopicId};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::OffsetCommit, 2, 10);

/// The first version that names topics by id.
const BY_ID: i16 = 10;
/// The first version that knows member epochs and the errors of KIP-848.
const EPOCHS: i16 = 9;

/// One offset of a request, of whichever API.
pub(super) struct AskedOffset<'a> {
    pub index: i32,
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: Option<&'a str>,
}

/// What becomes of one partition's offset.
pub(super) enum Planned {
    Refused(KafkaError),
    /// Refused as well, but only if the client may commit at all.
    MetadataTooLarge,
    Commit(OffsetSpec),
}

pub(super) async fn handle(ctx: &Context, call: &Call, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let version = call.header.version;
    let planned = match check_group_length(ctx, &request.group_id) {
        Ok(()) => plan(ctx, &asked(version, &request)).await,
        Err(refused) => Err(refused.error),
    };
    let codes = match planned {
        Ok(planned) => commit(ctx, version, &request, planned).await,
        Err(error) => request.topics.iter().map(|t| vec![error.code(); t.partitions.len()]).collect(),
    };
    let topics = request.topics.into_iter().zip(codes).map(|(topic, codes)| {
        let partitions = topic.partitions.iter().zip(codes).map(|(partition, code)| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic.name)
            .with_topic_id(topic.topic_id)
            .with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// Per topic and partition, as they stand in the request. What is not found is looked for again after a read barrier.
pub(super) async fn plan(
    ctx: &Context,
    asked: &[(TopicKey, Vec<AskedOffset<'_>>)],
) -> Result<Vec<Vec<Planned>>, KafkaError> {
    let max = usize::try_from(ctx.config.kafka.offset_metadata_max_bytes).unwrap_or(0);
    let missing = |planned: &Vec<Vec<Planned>>| planned.iter().flatten().any(|p| matches!(p, Planned::Refused(_)));
    let planned = plan_with(&ctx.replica.state(), max, asked);
    if !missing(&planned) {
        return Ok(planned);
    }
    let state = ctx.replica.barrier().await.map_err(|_| KafkaError::CoordinatorNotAvailable)?;
    Ok(plan_with(&state, max, asked))
}

fn plan_with(state: &State, metadata_max: usize, asked: &[(TopicKey, Vec<AskedOffset<'_>>)]) -> Vec<Vec<Planned>> {
    let topics = asked.iter().map(|(key, offsets)| {
        let one = |asked: &AskedOffset<'_>| plan_one(state, key, metadata_max, asked);
        offsets.iter().map(one).collect()
    });
    topics.collect()
}

fn plan_one(state: &State, key: &TopicKey, metadata_max: usize, asked: &AskedOffset<'_>) -> Planned {
    let slot = match slot(state, key, PartitionIndex(asked.index)) {
        Ok(slot) => slot,
        Err(error) => return Planned::Refused(error),
    };
    let metadata = asked.metadata.unwrap_or_default();
    // Kafka counts as Java does.
    if metadata.len() > metadata_max && metadata.encode_utf16().count() > metadata_max {
        return Planned::MetadataTooLarge;
    }
    Planned::Commit(OffsetSpec {
        slot: slot.0,
        offset: asked.offset,
        leader_epoch: asked.leader_epoch,
        metadata: metadata.to_owned(),
    })
}

impl Planned {
    /// What is to be committed.
    pub(super) fn spec(&self) -> Option<&OffsetSpec> {
        match self {
            Self::Commit(spec) => Some(spec),
            _ => None,
        }
    }

    /// The error code, when the group has said that the client may commit; `gone` is of partitions in `deleted`.
    pub(super) fn code(&self, deleted: &BTreeSet<Slot>, gone: KafkaError) -> i16 {
        match self {
            Self::Refused(error) => error.code(),
            Self::MetadataTooLarge => KafkaError::OffsetMetadataTooLarge.code(),
            Self::Commit(spec) if deleted.contains(&Slot(spec.slot)) => gone.code(),
            Self::Commit(_) => 0,
        }
    }
}

fn asked(version: i16, request: &OffsetCommitRequest) -> Vec<(TopicKey, Vec<AskedOffset<'_>>)> {
    let topics = request.topics.iter().map(|topic| {
        let offsets = topic.partitions.iter().map(|p| AskedOffset {
            index: p.partition_index,
            offset: p.committed_offset,
            leader_epoch: p.committed_leader_epoch,
            metadata: p.committed_metadata.as_deref(),
        });
        (topic_key(version, &topic.name, topic.topic_id), offsets.collect())
    });
    topics.collect()
}

/// Commits what can be, and gives the error codes. Of partitions that exist, none is answered for before the group has
/// said that the client may commit.
async fn commit(
    ctx: &Context,
    version: i16,
    request: &OffsetCommitRequest,
    planned: Vec<Vec<Planned>>,
) -> Vec<Vec<i16>> {
    let specs: Vec<OffsetSpec> = planned.iter().flatten().filter_map(Planned::spec).cloned().collect();
    let any = planned.iter().flatten().any(|p| !matches!(p, Planned::Refused(_)));
    let committed = if any { ask(ctx, version, request, specs).await } else { Ok(BTreeSet::new()) };
    let gone = if version >= BY_ID { KafkaError::UnknownTopicId } else { KafkaError::UnknownTopicOrPartition };
    let code = |planned: &Planned| match (planned, &committed) {
        (Planned::Refused(error), _) => error.code(),
        (_, Err(error)) => error.code(),
        (planned, Ok(deleted)) => planned.code(deleted, gone),
    };
    planned.iter().map(|topic| topic.iter().map(code).collect()).collect()
}

/// Gives the partitions that were deleted meanwhile.
async fn ask(
    ctx: &Context,
    version: i16,
    request: &OffsetCommitRequest,
    offsets: Vec<OffsetSpec>,
) -> Result<BTreeSet<Slot>, KafkaError> {
    // Only who is no member makes a group by committing.
    if request.generation_id_or_member_epoch >= 0 && !exists(ctx, &request.group_id).await? {
        return Err(in_version(version, KafkaError::GroupIdNotFound));
    }
    let instance_id = request.group_instance_id.as_deref();
    let commit = CommitRequest {
        identity: identity(&request.member_id, instance_id, request.generation_id_or_member_epoch),
        retention_ms: Some(request.retention_time_ms).filter(|ms| *ms != -1),
        offsets,
        before_epochs: version < EPOCHS,
        transaction: None,
    };
    match ctx.groups.ask(&request.group_id, Request::Commit(commit)).await {
        Ok(Reply::Committed(deleted)) => Ok(deleted.into_iter().collect()),
        Ok(_) => Err(KafkaError::UnknownServerError),
        Err(GroupError { error, .. }) => Err(in_version(version, error)),
    }
}

/// Older clients don't know the error: for them a group that is not there has another generation.
fn in_version(version: i16, error: KafkaError) -> KafkaError {
    match error {
        KafkaError::GroupIdNotFound if version < EPOCHS => KafkaError::IllegalGeneration,
        error => error,
    }
}

/// How OffsetCommit and OffsetFetch name a topic.
pub(super) fn topic_key(version: i16, name: &TopicName, id: uuid::Uuid) -> TopicKey {
    if version >= BY_ID { TopicKey::Id(TopicId(id)) } else { TopicKey::Name(Arc::from(name.as_str())) }
}
