//! Names and ids → topics and partitions, with the read barrier before a "no" (invariant 5).
use std::sync::Arc;

use super::Context;
use crate::fetch::TopicKey;
use crate::metadata::Unavailable;
use crate::planted::{Defect, planted};
use crate::state::{OFFSETS_TOPIC, State, Topic, epochs, generation_of};
use crate::types::{KafkaError, PartitionIndex, Slot};

/// State in which all of `keys` are found, or, if some are not, State after a read barrier, in which a topic that is
/// still missing does not exist.
pub(super) async fn state_with<'a>(
    ctx: &Context,
    mut keys: impl Iterator<Item = &'a TopicKey>,
) -> Result<Arc<State>, Unavailable> {
    let state = ctx.replica.state();
    let known = keys.all(|key| topic(&state, key).is_some()) || planted(Defect::StaleUnknownTopic);
    if known { Ok(state) } else { ctx.replica.barrier().await }
}

pub(super) fn topic<'a>(state: &'a State, key: &TopicKey) -> Option<&'a Arc<Topic>> {
    match key {
        TopicKey::Id(id) => state.topic(*id),
        TopicKey::Name(name) => state.topic_by_name(name),
    }
}

/// The partition's slot, or Kafka's error for what is missing.
pub(super) fn slot(state: &State, key: &TopicKey, partition: PartitionIndex) -> Result<Slot, KafkaError> {
    let missing = match key {
        TopicKey::Id(_) => KafkaError::UnknownTopicId,
        TopicKey::Name(_) => KafkaError::UnknownTopicOrPartition,
    };
    let topic = topic(state, key).ok_or(missing)?;
    let index = usize::try_from(partition.0).map_err(|_| KafkaError::UnknownTopicOrPartition)?;
    topic.slots.get(index).copied().ok_or(KafkaError::UnknownTopicOrPartition)
}

/// Whether the topic is one of Kafka's own, which clients may read and not write
/// (`org.apache.kafka.common.internals.Topic.isInternal`).
pub(super) fn is_internal(name: &str) -> bool {
    matches!(name, OFFSETS_TOPIC | "__transaction_state" | "__share_group_state")
}

/// A client's idea of the leader epoch against the highest that there is (H11). An older one of the same generation, or
/// none, is served.
///
/// # Errors
/// `UNKNOWN_LEADER_EPOCH`, which is true only if `state` is one after a read barrier; `FENCED_LEADER_EPOCH` for one from
/// before a fork, whose client has to see whether what it read is still there.
pub(super) fn check_epoch(state: &State, current_leader_epoch: i32) -> Result<(), KafkaError> {
    match current_leader_epoch {
        epoch if epoch > epochs(state).1.0 => Err(KafkaError::UnknownLeaderEpoch),
        epoch if epoch >= 0 && generation_of(epoch) < state.generation() => Err(KafkaError::FencedLeaderEpoch),
        _ => Ok(()),
    }
}

/// Whether Kafka takes `name` for a topic (`org.apache.kafka.common.internals.Topic.validate`), with its message.
pub(super) fn check_topic_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("Topic name is invalid: the empty string is not allowed".to_owned());
    }
    if name == "." || name == ".." {
        return Err(format!("Topic name is invalid: '{name}' is not allowed"));
    }
    if name.len() > 249 {
        return Err(format!("Topic name is invalid: the length of '{name}' is longer than the max allowed length 249"));
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return Err(format!(
            "Topic name is invalid: '{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' \
             and '-'"
        ));
    }
    Ok(())
}
