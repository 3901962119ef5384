//! OffsetDelete (47): forgets committed offsets of topics that no member is subscribed to.
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{ApiKey, OffsetDeleteRequest, OffsetDeleteResponse};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::groups::{check_group_id, exists};
use super::resolve::slot;
use super::table::Offered;
use super::{Call, Context};
use crate::fetch::TopicKey;
use crate::group::{GroupError, Reply, Request};
use crate::types::{KafkaError, PartitionIndex, Slot};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::OffsetDelete, 0, 0);

/// The slots of a request in its order, or why there is none.
type Slots = Vec<Vec<Result<Slot, KafkaError>>>;

pub(super) async fn handle(ctx: &Context, _: &Call, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let deleted = delete(ctx, &request).await;
    let (slots, codes) = match deleted {
        Ok(deleted) => deleted,
        Err(refused) => return OffsetDeleteResponse::default().with_error_code(refused.error.code()),
    };
    let code = |slot: &Result<Slot, KafkaError>| match slot {
        Ok(slot) => codes.get(slot).copied().flatten().map_or(0, |error| error.code()),
        Err(error) => error.code(),
    };
    let topics = request.topics.into_iter().zip(slots).map(|(topic, slots)| {
        let partitions = topic.partitions.iter().zip(&slots).map(|(partition, slot)| {
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code(slot))
        });
        OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions.collect())
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}

async fn delete(
    ctx: &Context,
    request: &OffsetDeleteRequest,
) -> Result<(Slots, BTreeMap<Slot, Option<KafkaError>>), GroupError> {
    check_group_id(ctx, &request.group_id)?;
    if !exists(ctx, &request.group_id).await? {
        return Err(KafkaError::GroupIdNotFound.into());
    }
    let state = ctx.replica.barrier().await.map_err(|_| KafkaError::CoordinatorNotAvailable)?;
    let of = |topic: &kafka_protocol::messages::offset_delete_request::OffsetDeleteRequestTopic| {
        let key = TopicKey::Name(Arc::from(topic.name.as_str()));
        topic.partitions.iter().map(|p| slot(&state, &key, PartitionIndex(p.partition_index))).collect()
    };
    let slots: Slots = request.topics.iter().map(of).collect();
    let known = slots.iter().flatten().filter_map(|slot| slot.ok()).collect();
    match ctx.groups.ask(&request.group_id, Request::DeleteOffsets(known)).await? {
        Reply::OffsetsDeleted(results) => Ok((slots, results.into_iter().collect())),
        _ => Err(KafkaError::UnknownServerError.into()),
    }
}
