//! Idempotent producers of which a batch was refused before it came to the batcher: its topic was not known yet, the
//! journal did not answer, the batch was too large. It comes again, or another one of its sequence does. What its producer
//! has sent behind it must not be accepted first (H7), so the batcher is told what it has to wait for.
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::resolve::check_topic_name;
use crate::fetch::TopicKey;
use crate::state::Topic;
use crate::types::{PartitionIndex, ProducerId, Sequence};

/// Batches that are remembered; beyond it the oldest is forgotten, which costs only the protection above.
const BATCHES_MAX: usize = 10_000;

type Key = (ProducerId, TopicKey, PartitionIndex);

/// A mutex, held for a look-up: mostly there is nothing in it.
#[derive(Default)]
pub struct Unplaced(Mutex<Batches>);

#[derive(Default)]
struct Batches {
    first: BTreeMap<Key, Sequence>,
    oldest: VecDeque<Key>,
}

impl Batches {
    fn remove(&mut self, key: &Key) -> Option<Sequence> {
        let first = self.first.remove(key)?;
        self.oldest.retain(|other| other != key);
        Some(first)
    }
}

impl Unplaced {
    /// A batch that begins at `first` was refused. No topic ever gets a name that Kafka does not take, so nothing of it has
    /// to be remembered, and what is remembered is short.
    pub(super) fn refused(&self, producer: ProducerId, topic: &TopicKey, partition: PartitionIndex, first: Sequence) {
        if matches!(topic, TopicKey::Name(name) if check_topic_name(name).is_err()) {
            return;
        }
        let key = (producer, topic.clone(), partition);
        let mut batches = self.batches();
        if let Some(earliest) = batches.first.get_mut(&key) {
            if first.precedes(*earliest) {
                *earliest = first;
            }
            return;
        }
        if batches.oldest.len() >= BATCHES_MAX
            && let Some(forgotten) = batches.oldest.pop_front()
        {
            batches.first.remove(&forgotten);
        }
        batches.first.insert(key.clone(), first);
        batches.oldest.push_back(key);
    }

    /// A batch was not refused: the earliest of its producer's that were, however they named the topic, which is told once.
    pub(super) fn take(&self, producer: ProducerId, topic: &Topic, partition: PartitionIndex) -> Option<Sequence> {
        let mut batches = self.batches();
        if batches.first.is_empty() {
            return None;
        }
        let names = [TopicKey::Id(topic.id), TopicKey::Name(topic.name.clone())];
        let mut refused = names.into_iter().filter_map(|name| batches.remove(&(producer, name, partition)));
        let first = refused.next()?;
        Some(refused.next().filter(|other| other.precedes(first)).unwrap_or(first))
    }

    fn batches(&self) -> MutexGuard<'_, Batches> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{TopicId, Uuid};

    fn topic() -> Topic {
        Topic {
            id: TopicId(Uuid::from_u128(1)),
            name: "t".into(),
            slots: Vec::new(),
            replication_factor: 1,
            configs: BTreeMap::new(),
            config_version: 0,
        }
    }

    #[test]
    fn the_earliest_of_a_partition_is_told_once() {
        let (unplaced, partition) = (Unplaced::default(), PartitionIndex(0));
        let take = |producer, partition| unplaced.take(ProducerId(producer), &topic(), partition);
        for (name, first) in [(TopicKey::Name("t".into()), 5), (TopicKey::Id(topic().id), 3)] {
            unplaced.refused(ProducerId(1), &name, partition, Sequence(first));
            unplaced.refused(ProducerId(1), &name, partition, Sequence(9));
        }
        assert_eq!((take(2, partition), take(1, PartitionIndex(1))), (None, None));
        assert_eq!((take(1, partition), take(1, partition)), (Some(Sequence(3)), None));
    }

    #[test]
    fn a_name_that_no_topic_has_takes_no_memory() {
        let unplaced = Unplaced::default();
        let long = TopicKey::Name("x".repeat(30_000).into());
        unplaced.refused(ProducerId(1), &long, PartitionIndex(0), Sequence(0));
        assert!(unplaced.batches().first.is_empty());
    }

    #[test]
    fn so_many_are_remembered() {
        let (unplaced, name) = (Unplaced::default(), TopicKey::Name("t".into()));
        let take = |producer| unplaced.take(ProducerId(producer), &topic(), PartitionIndex(0));
        for producer in 0..=BATCHES_MAX as i64 {
            unplaced.refused(ProducerId(producer), &name, PartitionIndex(0), Sequence(0));
        }
        assert_eq!((take(0), take(1)), (None, Some(Sequence(0))));
    }
}
