//! Metadata (3): brokers, topics, partitions. The leader is who clients of the asking one's zone are sent to. The bucket
//! replicates, so replicas and ISR are the leaders that each zone's clients have, whatever replication factor was asked
//! for: rack-aware consumers and producers find a broker of their own among them (KIP-392, KIP-881, KIP-1123). Every
//! broker is a controller, so each names itself.
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{ApiKey, BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::create_topics::auto_create;
use super::describe_cluster::CLUSTER_OPERATIONS;
use super::resolve::{check_topic_name, is_internal, state_with, topic};
use super::table::Offered;
use super::{Call, Context};
use crate::cluster::Seen;
use crate::config::HostPort;
use crate::fetch::TopicKey;
use crate::state::Topic;
use crate::types::{KafkaError, PartitionIndex, TopicId};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::Metadata, 0, 13);

/// Everything that can be done to a topic, as bits by Kafka's `AclOperation`: read, write, create, delete, alter,
/// describe, describe and alter configs. Without an authorizer everybody may do all of it.
pub(super) const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;

pub(super) async fn handle(ctx: &Context, call: &Call, request: MetadataRequest) -> MetadataResponse {
    let version = call.header.version;
    let wanted = match request.topics {
        Some(topics) if version > 0 || !topics.is_empty() => Some(topics),
        _ => None,
    };
    let keys: Option<Vec<TopicKey>> = wanted.map(|topics| {
        let key = |t: kafka_protocol::messages::metadata_request::MetadataRequestTopic| match t.name {
            Some(name) => TopicKey::Name(Arc::from(name.as_str())),
            None => TopicKey::Id(TopicId(t.topic_id)),
        };
        // Each topic once, as in Kafka, however often it is named.
        let mut seen = BTreeSet::new();
        topics.into_iter().map(key).filter(|key| seen.insert(key.clone())).collect()
    });
    let members = ctx.members();
    let seen = members.seen_from(ctx.zone_of(call));
    let told = members.brokers(&call.entrance.listener, &call.entrance.advertised);
    let mut response = MetadataResponse::default()
        .with_brokers(told.map(|told| broker(version, told)).collect())
        .with_cluster_id(ctx.replica.state().cluster_id().map(|id| StrBytes::from_string(id.to_string())))
        .with_controller_id(BrokerId(members.me().0));
    response.topics = match keys {
        None => all(ctx, &seen).await,
        Some(keys) => some(ctx, &seen, &keys, version < 4 || request.allow_auto_topic_creation).await,
    };
    // Versions that don't have these flags leave them unset.
    if request.include_topic_authorized_operations {
        let known = response.topics.iter_mut().filter(|topic| topic.error_code == 0);
        known.for_each(|topic| topic.topic_authorized_operations = TOPIC_OPERATIONS);
    }
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}

fn broker(version: i16, (id, at, zone): (crate::types::BrokerId, HostPort, Option<&str>)) -> MetadataResponseBroker {
    MetadataResponseBroker::default()
        .with_node_id(BrokerId(id.0))
        .with_host(StrBytes::from_string(at.host))
        .with_port(i32::from(at.port))
        .with_rack(zone.filter(|_| version >= 1).map(|zone| StrBytes::from_string(zone.to_owned())))
}

async fn all(ctx: &Context, seen: &Seen<'_>) -> Vec<MetadataResponseTopic> {
    // A list of everything is also a claim about what does not exist.
    let state = match ctx.replica.barrier().await {
        Ok(state) => state,
        Err(_) => ctx.replica.state(),
    };
    state.topics().map(|topic| describe(seen, topic)).collect()
}

async fn some(ctx: &Context, seen: &Seen<'_>, keys: &[TopicKey], may_create: bool) -> Vec<MetadataResponseTopic> {
    let Ok(mut state) = state_with(ctx, keys.iter()).await else {
        return keys.iter().map(|key| missing(key, KafkaError::LeaderNotAvailable)).collect();
    };
    let absent = keys.iter().filter(|key| topic(&state, key).is_none()).filter_map(|key| match key {
        TopicKey::Name(name) => Some(&**name),
        TopicKey::Id(_) => None,
    });
    let (good, bad): (Vec<&str>, Vec<&str>) = absent.partition(|name| check_topic_name(name).is_ok());
    let mut errors = BTreeMap::new();
    if may_create && ctx.config.kafka.auto_create_topics_enable && !good.is_empty() {
        errors = auto_create(ctx, &good).await;
        state = ctx.replica.state();
    }
    errors.extend(bad.into_iter().map(|name| (name, KafkaError::InvalidTopicException)));
    let answer = |key: &TopicKey| match topic(&state, key) {
        Some(topic) => describe(seen, topic),
        None => {
            let unknown = match key {
                TopicKey::Id(_) => KafkaError::UnknownTopicId,
                TopicKey::Name(name) => errors.get(&**name).copied().unwrap_or(KafkaError::UnknownTopicOrPartition),
            };
            missing(key, unknown)
        }
    };
    keys.iter().map(answer).collect()
}

fn describe(seen: &Seen<'_>, topic: &Topic) -> MetadataResponseTopic {
    let partition = |index: usize| {
        let index = PartitionIndex(i32::try_from(index).unwrap_or(i32::MAX));
        let led = seen.leader(topic.id, index);
        let replicas: Vec<BrokerId> = seen.replicas(topic.id, index).into_iter().map(|id| BrokerId(id.0)).collect();
        MetadataResponsePartition::default()
            .with_partition_index(index.0)
            .with_leader_id(BrokerId(led.leader.0))
            .with_leader_epoch(led.epoch.0)
            .with_replica_nodes(replicas.clone())
            .with_isr_nodes(replicas)
    };
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.to_string()))))
        .with_topic_id(topic.id.0)
        .with_is_internal(is_internal(&topic.name))
        .with_partitions((0..topic.slots.len()).map(partition).collect())
}

fn missing(key: &TopicKey, error: KafkaError) -> MetadataResponseTopic {
    let topic = MetadataResponseTopic::default().with_error_code(error.code());
    match key {
        TopicKey::Name(name) => topic.with_name(Some(TopicName(StrBytes::from_string(name.to_string())))),
        TopicKey::Id(id) => topic.with_name(None).with_topic_id(id.0),
    }
}
