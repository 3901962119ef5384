//! Commands about topics. What depends on the broker's configuration (defaults, config validation) was checked by the
//! proposer; here is checked what may have changed since, and what all must agree on.
use std::sync::Arc;

use super::State;
use crate::planted::{Defect, planted};
use crate::state::command::{
    AlterTopicConfigs, ConfigChange, CreatePartitions, CreateTopic, DeleteRecords, DeleteTopic,
};
use crate::state::offsets_topic::OFFSETS_TOPIC;
use crate::state::outcome::{Outcome, Refusal};
use crate::state::producer::Moment;
use crate::state::settings::Settings;
use crate::state::tail::Tail;
use crate::state::topic::{Partition, Topic};
use crate::types::Position;
use crate::types::{KafkaError, Offset, PartitionIndex, Slot, TopicId, TopicName, Uuid};

impl State {
    pub(super) fn create_topic(&mut self, command: &CreateTopic) -> Outcome {
        if let Err(refusal) = self.check_topic_name(&command.name).and_then(|()| self.check_create_topic(command)) {
            return Outcome::Refused(refusal);
        }
        let Some(id) = topic_id(&command.id).filter(|id| !self.topics.contains_key(id)) else {
            return Outcome::refused(KafkaError::InvalidRequest, "the topic id is not a fresh UUID");
        };
        let name: TopicName = Arc::from(command.name.as_str());
        let mut topic = Topic {
            id,
            name: name.clone(),
            slots: Vec::new(),
            replication_factor: command.replication_factor,
            configs: Default::default(),
            config_version: 0,
        };
        change_configs(&mut topic, &command.configs);
        self.grow(&mut topic, command.partitions);
        self.canonical.insert(canonical(&name), id);
        self.names.insert(name, id);
        let is_offsets = topic.name.as_ref() == OFFSETS_TOPIC;
        self.topics.insert(id, Arc::new(topic));
        if is_offsets {
            self.log_all_offsets();
        }
        Outcome::Done
    }

    /// Whether a topic may be called so, as far as the topics that there are have a say.
    ///
    /// # Errors
    /// What `apply` would refuse it with.
    pub fn check_topic_name(&self, name: &str) -> Result<(), Refusal> {
        if self.names.contains_key(name) {
            return refuse(KafkaError::TopicAlreadyExists, format!("Topic '{name}' already exists."));
        }
        if let Some(other) = self.canonical.get(&canonical(name)).and_then(|id| self.topics.get(id)) {
            let message = format!("Topic '{name}' collides with existing topic: {}", other.name);
            return refuse(KafkaError::InvalidTopicException, message);
        }
        Ok(())
    }

    /// Whether there is room for the topic; its name is [`State::check_topic_name`]'s.
    ///
    /// # Errors
    /// What `apply` would refuse it with.
    pub fn check_create_topic(&self, command: &CreateTopic) -> Result<(), Refusal> {
        if self.topics.len() >= self.settings.topics_max as usize {
            let message = format!("The cluster has its limit of {} topics (topics_max).", self.settings.topics_max);
            return refuse(KafkaError::PolicyViolation, message);
        }
        self.check_partitions(0, command.partitions)
    }

    /// Whether a topic that has `have` partitions may have `count`.
    ///
    /// # Errors
    /// What `apply` would refuse it with.
    pub fn check_partitions(&self, have: usize, count: u32) -> Result<(), Refusal> {
        let Settings { partitions_per_topic_max: per_topic, partitions_max: all, .. } = self.settings;
        if count == 0 {
            return refuse(KafkaError::InvalidPartitions, "A topic has one partition at least.");
        }
        if count > per_topic {
            let message =
                format!("{count} partitions are over the limit of {per_topic} per topic (partitions_per_topic_max).");
            return refuse(KafkaError::InvalidPartitions, message);
        }
        let more = u64::from(count).saturating_sub(have as u64);
        if u64::from(self.live_partitions) + more > u64::from(all) {
            let message = format!("The cluster would have more than its limit of {all} partitions (partitions_max).");
            return refuse(KafkaError::PolicyViolation, message);
        }
        Ok(())
    }

    /// Gives `topic` partitions up to `count`, in fresh slots.
    fn grow(&mut self, topic: &mut Topic, count: u32) {
        for index in topic.slots.len() as u32..count {
            let slot = Slot(u32::try_from(self.partitions.len()).expect("the limits keep slots far below 2^32"));
            let free = || self.partitions.iter().position(Option::is_none);
            let reused = planted(Defect::SlotReused).then(free).flatten();
            let slot = reused.map_or(slot, |at| Slot(at as u32));
            topic.slots.push(slot);
            let partition = Some(Arc::new(Partition {
                slot,
                topic: topic.id,
                index: PartitionIndex(index as i32),
                log_start: Offset(0),
                end: Offset(0),
                bytes: 0,
                producers: 0,
                cleaned: Offset(0),
                forgotten: Position(0),
                tail: Tail::default(),
                transactions: None,
            }));
            match reused {
                Some(at) => drop(self.partitions.set(at, partition)),
                None => self.partitions.push_back(partition),
            }
            self.live_partitions += 1;
        }
    }

    pub(super) fn create_partitions(&mut self, command: &CreatePartitions) -> Outcome {
        let Some(topic) = topic_id(&command.topic_id).and_then(|id| self.topics.get(&id)).cloned() else {
            return unknown_topic();
        };
        if let Err(refusal) = self.check_create_partitions(&topic, command.count) {
            return Outcome::Refused(refusal);
        }
        let mut topic = Topic::clone(&topic);
        self.grow(&mut topic, command.count);
        let is_offsets = topic.name.as_ref() == OFFSETS_TOPIC;
        self.topics.insert(topic.id, Arc::new(topic));
        if is_offsets {
            // Groups hash to other partitions now.
            self.log_all_offsets();
        }
        Outcome::Done
    }

    /// Whether `topic` may grow to `count` partitions.
    ///
    /// # Errors
    /// What `apply` would refuse it with; the messages are Kafka's.
    pub fn check_create_partitions(&self, topic: &Topic, count: u32) -> Result<(), Refusal> {
        let have = topic.slots.len();
        if count as usize == have {
            return refuse(KafkaError::InvalidPartitions, format!("Topic already has {have} partition(s)."));
        }
        if (count as usize) < have {
            let message = format!(
                "The topic {} currently has {have} partition(s); {count} would not be an increase.",
                topic.name
            );
            return refuse(KafkaError::InvalidPartitions, message);
        }
        self.check_partitions(have, count)
    }

    pub(super) fn delete_topic(&mut self, at: Moment, command: &DeleteTopic) -> Outcome {
        let Some(topic) = topic_id(&command.topic_id).and_then(|id| self.topics.remove(&id)) else {
            return unknown_topic();
        };
        self.names.remove(&*topic.name);
        self.canonical.remove(&canonical(&topic.name));
        let mut released = Vec::new();
        for &slot in &topic.slots {
            let Some(partition) = self.partitions.get_mut(slot.0 as usize).and_then(Option::take) else { continue };
            self.live_partitions -= 1;
            self.runs -= partition.tail.len() as u64;
            released.extend(partition.tail.iter().filter(|run| run.marker.is_none()).map(|run| run.object));
            if partition.producers > 0 {
                let keys: Vec<_> = self.producers_of(slot).map(|(id, _)| (slot, id)).collect();
                for key in &keys {
                    self.producers.remove(key);
                }
            }
        }
        self.release(at, released);
        self.forget_offsets_of(&topic, at.wall_ms);
        if topic.name.as_ref() == OFFSETS_TOPIC {
            // No offset goes with it: it comes back with the next change of a group.
            self.log_all_offsets_with(Vec::new());
        }
        Outcome::Done
    }

    pub(super) fn alter_topic_configs(&mut self, command: &AlterTopicConfigs) -> Outcome {
        let Some(topic) = topic_id(&command.topic_id).and_then(|id| self.topics.get_mut(&id)) else {
            return unknown_topic();
        };
        if topic.config_version != command.from_version {
            let message = "The topic's configuration was changed by somebody else meanwhile; try again.";
            return Outcome::refused(KafkaError::ConcurrentTransactions, message);
        }
        change_configs(Arc::make_mut(topic), &command.changes);
        Outcome::Done
    }

    pub(super) fn delete_records(&mut self, at: Moment, command: &DeleteRecords) -> Outcome {
        let (slot, offset) = (Slot(command.slot), Offset(command.offset));
        let Some(partition) = self.partition(slot) else { return unknown_topic() };
        if offset > partition.end {
            let message = format!("Offset {offset} is beyond the high watermark {}.", partition.end);
            return Outcome::refused(KafkaError::OffsetOutOfRange, message);
        }
        let whole = || partition.tail.from(offset).next().filter(|run| run.base_offset < offset);
        let whole = planted(Defect::DeletesWholeRun).then(whole).flatten();
        let offset = whole.map_or(offset, |run| run.end_offset);
        let mut released = Vec::new();
        let Some((log_start, _)) = self.cut_below(slot, offset, &mut released) else { return unknown_topic() };
        self.release(at, released);
        Outcome::LogStart { offset: log_start }
    }

    pub(in crate::state) fn partition_mut(&mut self, slot: Slot) -> Option<&mut Partition> {
        self.partitions.get_mut(slot.0 as usize).and_then(Option::as_mut).map(Arc::make_mut)
    }
}

fn change_configs(topic: &mut Topic, changes: &[ConfigChange]) {
    for change in changes {
        match &change.value {
            Some(value) => drop(topic.configs.insert(change.name.clone(), value.clone())),
            None => drop(topic.configs.remove(&change.name)),
        }
    }
    topic.config_version += 1;
}

/// Kafka's metric names have `_` for `.`, so it refuses topics that differ in nothing else
/// (`org.apache.kafka.common.internals.Topic.hasCollision`).
fn canonical(name: &str) -> TopicName {
    Arc::from(name.replace('.', "_"))
}

fn topic_id(bytes: &[u8]) -> Option<TopicId> {
    Uuid::from_slice(bytes).ok().filter(|id| !id.is_nil()).map(TopicId)
}

fn refuse(error: KafkaError, message: impl Into<String>) -> Result<(), Refusal> {
    Err(Refusal { error, message: message.into() })
}

fn unknown_topic() -> Outcome {
    Outcome::refused(KafkaError::UnknownTopicOrPartition, "This server does not host this topic-partition.")
}
