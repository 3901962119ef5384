//! Produce where the topic is made while its batches are on their way.
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};

use super::*;
use crate::records::{BatchBuilder, NewRecord};
use crate::types::{ProducerEpoch, ProducerId, Sequence};

/// Sends one record of an idempotent producer; gives the error's code and the offset.
async fn send(ctx: &Context, topic: TopicProduceData, version: i16, sequence: i32) -> (i16, i64) {
    let record = NewRecord { timestamp: ctx.world.wall_ms(), key: None, value: Some(b"v"), headers: &[] };
    let batch = BatchBuilder::new().producer(ProducerId(7), ProducerEpoch(0), Sequence(sequence)).with(&record);
    let data = PartitionProduceData::default().with_index(0).with_records(Some(batch.build().unwrap()));
    let topic = topic.with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(5000).with_topic_data(vec![topic]);
    let answer = ask(ctx, version, request).await.responses.remove(0).partition_responses.remove(0);
    (answer.error_code, answer.base_offset)
}

#[tokio::test(start_paused = true)]
async fn h7_what_came_before_its_topic_comes_before_what_came_after() {
    let ctx = &*broker("").await;
    let topic = || TopicProduceData::default().with_name(name("t"));
    assert_eq!(send(ctx, topic(), 9, 0).await, (KafkaError::UnknownTopicOrPartition.code(), -1));
    create(ctx, "t", 1).await.unwrap();
    assert_eq!(send(ctx, topic(), 9, 1).await, (KafkaError::NotLeaderOrFollower.code(), -1));
    assert_eq!(send(ctx, topic(), 9, 0).await, (0, 0));
    assert_eq!(send(ctx, topic(), 9, 1).await, (0, 1));
}
