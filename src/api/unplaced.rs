//! Idempotent producers of which a batch was refused before anybody could say which partition it is for: the topic was
//! not known yet, or the journal did not answer. The batch comes again. What comes behind it may find the topic known,
//! and must not be accepted first (H7), so the batcher is told what it has to wait for.
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::fetch::TopicKey;
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

impl Unplaced {
    /// A batch that begins at `first` was refused.
    pub(super) fn refused(&self, producer: ProducerId, topic: &TopicKey, partition: PartitionIndex, first: Sequence) {
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

    /// The partition is known now: the earliest of the producer's batches that were refused, which is told once.
    pub(super) fn take(&self, producer: ProducerId, topic: &TopicKey, partition: PartitionIndex) -> Option<Sequence> {
        let mut batches = self.batches();
        if batches.first.is_empty() {
            return None;
        }
        let key = (producer, topic.clone(), partition);
        let first = batches.first.remove(&key)?;
        batches.oldest.retain(|other| *other != key);
        Some(first)
    }

    fn batches(&self) -> MutexGuard<'_, Batches> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_of_a_partition_is_told_once() {
        let (unplaced, topic, partition) = (Unplaced::default(), TopicKey::Name("t".into()), PartitionIndex(0));
        for first in [5, 3, 9] {
            unplaced.refused(ProducerId(1), &topic, partition, Sequence(first));
        }
        assert_eq!(unplaced.take(ProducerId(2), &topic, partition), None);
        assert_eq!(unplaced.take(ProducerId(1), &topic, PartitionIndex(1)), None);
        assert_eq!(unplaced.take(ProducerId(1), &topic, partition), Some(Sequence(3)));
        assert_eq!(unplaced.take(ProducerId(1), &topic, partition), None);
    }

    #[test]
    fn so_many_are_remembered() {
        let (unplaced, topic) = (Unplaced::default(), TopicKey::Name("t".into()));
        for producer in 0..=BATCHES_MAX as i64 {
            unplaced.refused(ProducerId(producer), &topic, PartitionIndex(0), Sequence(0));
        }
        assert_eq!(unplaced.take(ProducerId(0), &topic, PartitionIndex(0)), None);
        assert_eq!(unplaced.take(ProducerId(1), &topic, PartitionIndex(0)), Some(Sequence(0)));
    }
}
