//! FetchSnapshot (59): an object of the bucket, for a broker that would have to read it from there. Kafka's quorum reads its
//! snapshots so (KIP-630); here the one topic's name is the object's key, and `max_bytes` its size. The topic
//! [`JOURNAL_TOPIC`] asks for nothing and tells of an entry: the snapshot's end is its position, the position the
//! incarnation of who has appended it. ApiVersions does not list it.
use kafka_protocol::messages::fetch_snapshot_response::{PartitionSnapshot, TopicSnapshot};
use kafka_protocol::messages::{ApiKey, FetchSnapshotRequest, FetchSnapshotResponse, TopicName};
use std::sync::Arc;
use std::time::Duration;

use super::table::{Offered, encode};
use super::{Answer, Call, Context, Reply};
use crate::fetch::{CachedObject, Reserved};
use crate::metadata::JOURNAL_TOPIC;
use crate::protocol::Splices;
use crate::segment::{ObjectKind, ObjectName};
use crate::types::{Hint, Incarnation, KafkaError, Piece, Position};

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
        Ok(None) => (FetchSnapshotResponse::default(), None),
        Ok(Some(Found { key, object, reserved })) => {
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

/// The object that is asked for; none where there is only something to be heard.
async fn find(ctx: &Context, request: FetchSnapshotRequest) -> Result<Option<Found>, KafkaError> {
    let ours = ctx.replica.state().cluster_id().cloned();
    if request.cluster_id.as_deref() != ours.as_deref() {
        return Err(KafkaError::InconsistentClusterId);
    }
    let [topic] = <[_; 1]>::try_from(request.topics).map_err(|_| KafkaError::InvalidRequest)?;
    if topic.name.as_str() == JOURNAL_TOPIC {
        let [told] = <[_; 1]>::try_from(topic.partitions).map_err(|_| KafkaError::InvalidRequest)?;
        let (position, incarnation) = (told.snapshot_id.end_offset.cast_unsigned(), told.position.cast_unsigned());
        ctx.replica.hint(Hint { incarnation: Incarnation(incarnation), position: Position(position) });
        return Ok(None);
    }
    // What compaction wrote is read by ranges, and from the bucket.
    let name = ObjectName::parse(&topic.name).filter(|name| name.kind == ObjectKind::Data);
    let name = name.ok_or(KafkaError::SnapshotNotFound)?;
    let bytes = u32::try_from(request.max_bytes).map_err(|_| KafkaError::InvalidRequest)?;
    let until = ctx.world.now() + WAIT_MAX;
    let reserved = ctx.answers.reserve(bytes as usize, until).await.ok_or(KafkaError::SnapshotNotFound)?;
    let object = ctx.fetcher.object_for_neighbour(name, bytes).await.map_err(|_| KafkaError::SnapshotNotFound)?;
    Ok(Some(Found { key: topic.name, object, reserved }))
}
