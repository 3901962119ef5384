//! ListOffsets (2): earliest, latest, by time, the record with the largest time, and Kafka's tiered-storage questions. A
//! reader of committed records is told nothing beyond the last stable offset, which is its latest (KIP-98).
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ApiKey, ListOffsetsRequest, ListOffsetsResponse};
use std::sync::Arc;

use super::fetch::READ_COMMITTED;
use super::resolve::{check_epoch, slot};
use super::table::Offered;
use super::{Call, Context};
use crate::fetch::{FetchError, TimedOffset, TopicKey};
use crate::planted::{Defect, planted};
use crate::state::{Partition, RecordEpochs, State};
use crate::types::{KafkaError, LeaderEpoch, Offset, PartitionIndex, TimestampMs};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::ListOffsets, 1, 11);

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

pub(super) async fn handle(ctx: &Context, call: &Call, request: ListOffsetsRequest) -> ListOffsetsResponse {
    // Every answer is a maximum, a minimum or an absence (H10).
    let state = match planted(Defect::StaleLatestOffset) {
        true => Ok(ctx.replica.state()),
        false => ctx.replica.barrier().await,
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    let question = Question { version: call.header.version, committed: request.isolation_level == READ_COMMITTED };
    for topic in request.topics {
        let key = TopicKey::Name(Arc::from(topic.name.as_str()));
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let found = match &state {
                Ok(state) => find(ctx, state, &key, &partition, question).await,
                Err(_) => Err(KafkaError::NotLeaderOrFollower),
            };
            partitions.push(respond(call.header.version, partition.partition_index, found));
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// What all partitions of a request are asked alike.
#[derive(Clone, Copy)]
struct Question {
    version: i16,
    committed: bool,
}

impl Question {
    /// The end of what the client may read.
    fn end(self, partition: &Partition) -> Offset {
        if self.committed { partition.last_stable() } else { partition.end }
    }
}

fn respond(
    version: i16,
    index: i32,
    found: Result<Option<(TimedOffset, LeaderEpoch)>, KafkaError>,
) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default()
        .with_partition_index(index)
        .with_timestamp(-1)
        .with_offset(-1)
        .with_leader_epoch(-1);
    match found {
        Ok(Some((TimedOffset { offset, timestamp }, epoch))) => {
            let epoch = if version >= 4 { epoch.0 } else { -1 };
            response.with_offset(offset.0).with_timestamp(timestamp.0).with_leader_epoch(epoch)
        }
        Ok(None) => response,
        Err(error) => response.with_error_code(error.code()),
    }
}

/// What is asked for, and the epoch of the record at that offset.
async fn find(
    ctx: &Context,
    state: &State,
    key: &TopicKey,
    asked: &ListOffsetsPartition,
    question: Question,
) -> Result<Option<(TimedOffset, LeaderEpoch)>, KafkaError> {
    let slot = slot(state, key, PartitionIndex(asked.partition_index))?;
    if question.version >= 4 {
        check_epoch(state, asked.current_leader_epoch)?;
    }
    let partition = state.partition(slot).ok_or(KafkaError::UnknownTopicOrPartition)?;
    let found = look(ctx, state, partition, asked.timestamp, question).await?;
    let end = question.end(partition);
    let is_search = asked.timestamp >= 0 || asked.timestamp == MAX_TIMESTAMP;
    let found = found.filter(|found| !is_search || found.offset < end);
    Ok(found.map(|found| (found, RecordEpochs::of(state).at(slot, found.offset))))
}

async fn look(
    ctx: &Context,
    state: &State,
    partition: &Partition,
    timestamp: i64,
    question: Question,
) -> Result<Option<TimedOffset>, KafkaError> {
    let at = |offset: Offset| Ok(Some(TimedOffset { offset, timestamp: TimestampMs(-1) }));
    let supported = |min: i16| if question.version >= min { Ok(()) } else { Err(KafkaError::UnsupportedVersion) };
    match timestamp {
        LATEST => at(question.end(partition)),
        EARLIEST => at(partition.log_start),
        MAX_TIMESTAMP => {
            supported(7)?;
            ctx.fetcher.latest_in_time(state, partition).await.map_err(kafka_error)
        }
        EARLIEST_LOCAL => supported(8).and_then(|()| at(partition.log_start)),
        // There is no second tier, so nothing is in it.
        LATEST_TIERED => supported(9).map(|()| None),
        EARLIEST_PENDING_UPLOAD => supported(11).map(|()| None),
        time if time < 0 => Err(KafkaError::UnsupportedForMessageFormat),
        time => ctx.fetcher.first_at(state, partition, TimestampMs(time)).await.map_err(kafka_error),
    }
}

/// What a client is told of records that can't be read.
pub(super) fn kafka_error(error: FetchError) -> KafkaError {
    match error {
        FetchError::Gone => KafkaError::UnknownTopicOrPartition,
        FetchError::Late => KafkaError::RequestTimedOut,
        FetchError::Unavailable if planted(Defect::SlowBucketOutOfRange) => KafkaError::OffsetOutOfRange,
        FetchError::Unavailable | FetchError::Damaged => KafkaError::KafkaStorageError,
    }
}
