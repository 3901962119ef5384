//! The few requests beside Produce and Fetch: topics, offsets, producer ids.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, InitProducerIdRequest, ListOffsetsRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::batch::Producer;
use crate::wire::Wire;

const TIMEOUT_MS: i32 = 30_000;
const TOPIC_ALREADY_EXISTS: i16 = 36;
/// `ListOffsets` for the end of the log.
pub const LATEST: i64 = -1;
/// `ListOffsets` for its beginning.
pub const EARLIEST: i64 = -2;

/// A topic's name as the message crate wants it.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// Kafka's name for an error code.
pub fn error_name(code: i16) -> String {
    ResponseError::try_from_code(code).map_or_else(|| "NONE".to_owned(), |error| format!("{error:?} ({code})"))
}

/// Fails with Kafka's name for the code, if it is one.
pub fn check(what: &str, code: i16) -> Result<()> {
    match code {
        0 => Ok(()),
        _ => bail!("{what}: {}", error_name(code)),
    }
}

/// Creates a topic with one replica and waits until all of its partitions answer. One that exists already is left as
/// it is.
pub async fn create_topic(wire: &mut Wire, name: &str, partitions: i32, configs: &[(String, String)]) -> Result<()> {
    let configs = configs.iter().map(|(key, value)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_string(key.clone()))
            .with_value(Some(StrBytes::from_string(value.clone())))
    });
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS);
    for topic in wire.call(&request, 5).await?.topics {
        if topic.error_code != TOPIC_ALREADY_EXISTS {
            check(&format!("create {name}"), topic.error_code)?;
        }
    }
    let deadline = Instant::now() + Duration::from_millis(TIMEOUT_MS as u64);
    while let Err(error) = list_offsets(wire, name, partitions, LATEST).await {
        if Instant::now() > deadline {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

pub async fn delete_topic(wire: &mut Wire, name: &str) -> Result<()> {
    let request = DeleteTopicsRequest::default().with_topic_names(vec![topic_name(name)]).with_timeout_ms(TIMEOUT_MS);
    for topic in wire.call(&request, 4).await?.responses {
        check(&format!("delete {name}"), topic.error_code)?;
    }
    Ok(())
}

/// A fresh producer id, for an idempotent producer without transactions. A broker that has just started may ask to try
/// again.
pub async fn init_producer_id(wire: &mut Wire) -> Result<Producer> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(TIMEOUT_MS)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    let deadline = Instant::now() + Duration::from_millis(TIMEOUT_MS as u64);
    loop {
        let response = wire.call(&request, 4).await?;
        if !is_retriable(response.error_code) || Instant::now() > deadline {
            check("InitProducerId", response.error_code)?;
            return Ok(Producer { id: response.producer_id.0, epoch: response.producer_epoch });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether a client may send the same request again.
pub fn is_retriable(code: i16) -> bool {
    ResponseError::try_from_code(code).is_some_and(|error| error.is_retriable())
}

/// Where each partition of a topic starts or ends: `timestamp` is `EARLIEST` or `LATEST`.
pub async fn list_offsets(wire: &mut Wire, topic: &str, partitions: i32, timestamp: i64) -> Result<BTreeMap<i32, i64>> {
    let partition = |index| {
        ListOffsetsPartition::default()
            .with_partition_index(index)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp)
    };
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name(topic))
        .with_partitions((0..partitions).map(partition).collect());
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
    let response = wire.call(&request, 6).await?;
    let mut offsets = BTreeMap::new();
    for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
        check(&format!("ListOffsets of partition {}", partition.partition_index), partition.error_code)?;
        offsets.insert(partition.partition_index, partition.offset);
    }
    Ok(offsets)
}
