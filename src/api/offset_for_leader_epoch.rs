//! OffsetForLeaderEpoch (23): where an epoch ends. Records have the lowest epoch of their history generation (H11): every
//! epoch of the present one ends at the high watermark, whoever led when, so no consumer sees truncation without a fork.
//! Those of an earlier one end where the fork was.
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{ApiKey, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use std::sync::Arc;

use super::resolve::{check_epoch, slot};
use super::table::Offered;
use super::{Call, Context};
use crate::fetch::TopicKey;
use crate::planted::{Defect, planted};
use crate::state::{epochs, generation_of};
use crate::types::{KafkaError, PartitionIndex};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::OffsetForLeaderEpoch, 2, 4);

pub(super) async fn handle(
    ctx: &Context,
    _: &Call,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let state = match planted(Defect::StaleEpochEnd) {
        true => Ok(ctx.replica.state()),
        false => ctx.replica.barrier().await,
    };
    let topics = request.topics.into_iter().map(|topic| {
        let key = TopicKey::Name(Arc::from(topic.topic.as_str()));
        let partitions = topic.partitions.into_iter().map(|asked| {
            let found = state.as_ref().map_err(|_| KafkaError::NotLeaderOrFollower).and_then(|state| {
                let slot = slot(state, &key, PartitionIndex(asked.partition))?;
                check_epoch(state, asked.current_leader_epoch)?;
                let partition = state.partition(slot).ok_or(KafkaError::UnknownTopicOrPartition)?;
                // An epoch that never was has no end.
                let (first, last) = epochs(state);
                Ok(match asked.leader_epoch {
                    epoch if (first.0..=last.0).contains(&epoch) => Some(partition.end),
                    epoch if epoch < 0 => None,
                    epoch => state.forks().end(generation_of(epoch), slot),
                })
            });
            let response = EpochEndOffset::default().with_partition(asked.partition);
            match found {
                Ok(Some(end)) => response.with_leader_epoch(asked.leader_epoch).with_end_offset(end.0),
                Ok(None) => response.with_leader_epoch(-1).with_end_offset(-1),
                Err(error) => response.with_leader_epoch(-1).with_end_offset(-1).with_error_code(error.code()),
            }
        });
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions.collect())
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}
