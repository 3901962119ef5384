//! FetchSnapshot (59): an object of the bucket, for a broker that would have to read it from there. Kafka's quorum reads its
//! snapshots so (KIP-630); here the one topic's name is the object's key, and `max_bytes` its size. ApiVersions does not
//! list it.
use kafka_protocol::messages::fetch_snapshot_response::{PartitionSnapshot, TopicSnapshot};
use kafka_protocol::messages::{ApiKey, FetchSnapshotRequest, FetchSnapshotResponse, TopicName};
use std::sync::Arc;
use std::time::Duration;

use super::table::{Offered, encode};
use super::{Answer, Call, Context, Reply};
use crate::fetch::{CachedObject, Reserved};
use crate::protocol::Splices;
use crate::segment::ObjectName;
use crate::types::{KafkaError, Piece};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::FetchSnapshot, 1, 1);

/// How long it waits for memory: whoever asks does not wait for much longer.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// An object, and what it keeps in memory until it is sent.
struct Found {
    key: TopicName,
    object: Arc<CachedObject>,
    reserved: Reserved,
}

pub(super) async fn handle(ctx: &Context, call: &Call, request: FetchSnapshotRequest) -> Answer {
    let mut splices = Splices::default();
    let (response, held) = match find(ctx, request).await {
        Ok(Found { key, object, reserved }) => {
            let mut chunks: Vec<Piece> = Vec::new();
            let whole = object.slice_into(0..object.len(), &mut chunks);
            debug_assert!(whole, "an object ends where it ends");
            let partition =
                PartitionSnapshot::default().with_size(object.len().into()).with_unaligned_records(splices.add(chunks));
            let topic = TopicSnapshot::default().with_name(key).with_partitions(vec![partition]);
            (FetchSnapshotResponse::default().with_topics(vec![topic]), Some((object, reserved)))
        }
        Err(error) => (FetchSnapshotResponse::default().with_error_code(error.code()), None),
    };
    let Some(frame) = encode(call, &response, splices) else {
        return Answer::Close("the answer can't be encoded".to_owned());
    };
    Answer::Now(match held {
        Some((object, reserved)) => Reply { frame, holds: vec![object], reserved: Some(reserved) },
        None => frame.into(),
    })
}

async fn find(ctx: &Context, request: FetchSnapshotRequest) -> Result<Found, KafkaError> {
    let ours = ctx.replica.state().cluster_id().cloned();
    if request.cluster_id.as_deref() != ours.as_deref() {
        return Err(KafkaError::InconsistentClusterId);
    }
    let [topic] = <[_; 1]>::try_from(request.topics).map_err(|_| KafkaError::InvalidRequest)?;
    let name = ObjectName::parse(&topic.name).ok_or(KafkaError::SnapshotNotFound)?;
    let bytes = u32::try_from(request.max_bytes).map_err(|_| KafkaError::InvalidRequest)?;
    let until = ctx.world.now() + WAIT_MAX;
    let reserved = ctx.answers.reserve(bytes as usize, until).await.ok_or(KafkaError::SnapshotNotFound)?;
    let object = ctx.fetcher.object_for_neighbour(name, bytes).await.map_err(|_| KafkaError::SnapshotNotFound)?;
    Ok(Found { key: topic.name, object, reserved })
}
