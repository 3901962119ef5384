//! WriteTxnMarkers (27): in Kafka the coordinator's way to end a transaction in its partitions, and the operator's
//! (`kafka-transactions abort`). Here no broker needs it. An abort ends the whole transaction that is open in the
//! partition, in all partitions, and fences its producer; a commit is refused.
use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{ApiKey, WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use std::sync::Arc;

use super::propose::{default_deadline, state};
use super::resolve::slot;
use super::table::Offered;
use super::transactions::{propose, stamp};
use super::{Call, Context};
use crate::fetch::TopicKey;
use crate::state::{AbortTransaction, State};
use crate::types::{KafkaError, PartitionIndex, ProducerId};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::WriteTxnMarkers, 1, 1);

pub(super) async fn handle(ctx: &Context, _: &Call, request: WriteTxnMarkersRequest) -> WriteTxnMarkersResponse {
    let mut results = Vec::with_capacity(request.markers.len());
    for marker in request.markers {
        let state = state(ctx, default_deadline(ctx)).await.map_err(|_| KafkaError::NotLeaderOrFollower);
        let found = state.and_then(|state| find(&state, &marker));
        let ended = match found {
            Ok(abort) => propose(ctx, abort).await.map(|_| ctx.metrics.transactions.aborted("operator")),
            Err(error) => Err(error),
        };
        let code = ended.err().map_or(0, |error| error.code());
        let topics = marker.topics.into_iter().map(|topic| {
            let partition = |index: &i32| {
                WritableTxnMarkerPartitionResult::default().with_partition_index(*index).with_error_code(code)
            };
            let partitions = topic.partition_indexes.iter().map(partition).collect();
            WritableTxnMarkerTopicResult::default().with_name(topic.name).with_partitions(partitions)
        });
        let topics = topics.collect();
        results.push(WritableTxnMarkerResult::default().with_producer_id(marker.producer_id).with_topics(topics));
    }
    WriteTxnMarkersResponse::default().with_markers(results)
}

/// The transaction that is meant: the producer's open one, which has all these partitions.
fn find(state: &State, marker: &WritableTxnMarker) -> Result<AbortTransaction, KafkaError> {
    if marker.transaction_result {
        return Err(KafkaError::InvalidRequest);
    }
    let id = state.transactional_id_of(ProducerId(marker.producer_id.0)).ok_or(KafkaError::InvalidProducerIdMapping)?;
    let open = state.transactional_producer(id).and_then(|known| known.open.as_ref());
    let open = open.ok_or(KafkaError::InvalidTxnState)?;
    for topic in &marker.topics {
        let key = TopicKey::Name(Arc::from(topic.name.as_str()));
        for index in &topic.partition_indexes {
            let slot = slot(state, &key, PartitionIndex(*index))?;
            if !open.partitions.contains_key(&slot) {
                return Err(KafkaError::InvalidTxnState);
            }
        }
    }
    Ok(AbortTransaction {
        transactional_id: id.to_string(),
        producer: stamp(marker.producer_id.0, marker.producer_epoch),
        since: open.since.0,
    })
}
