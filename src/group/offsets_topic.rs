//! The topic `__consumer_offsets`, which State fills from what groups commit. It is created as in Kafka: when groups are
//! used first, or when a client asks for it.
use bytes::Bytes;

use crate::config::KafkaSettings;
use crate::state::{ConfigChange, CreateTopic, OFFSETS_TOPIC};
use crate::world::World;

/// The command that creates it, with Kafka's settings for it (`GroupCoordinatorService.groupMetadataTopicConfigs`).
#[must_use]
pub fn create_offsets_topic(world: &World, kafka: &KafkaSettings) -> CreateTopic {
    let mut random = [0; 16];
    world.fill(&mut random);
    let id = uuid::Builder::from_random_bytes(random).into_uuid();
    let set = |(name, value): (&str, &str)| ConfigChange { name: name.to_owned(), value: Some(value.to_owned()) };
    let configs = [("cleanup.policy", "compact"), ("compression.type", "producer"), ("segment.bytes", "104857600")];
    CreateTopic {
        name: OFFSETS_TOPIC.to_owned(),
        id: Bytes::copy_from_slice(id.as_bytes()),
        partitions: u32::try_from(kafka.offsets_topic_num_partitions).unwrap_or(1),
        replication_factor: u32::try_from(kafka.offsets_topic_replication_factor).unwrap_or(1),
        configs: configs.into_iter().map(set).collect(),
    }
}
