//! Which records `__consumer_offsets` has: kept with every change of a group or an offset, for as long as there is a topic
//! of that name, and made anew where the topic is created, gets more partitions, or comes out of a snapshot.
use imbl::OrdMap;
use std::sync::Arc;

use super::State;
use crate::state::group::{Group, GroupName};
use crate::state::offsets_topic::{
    OFFSETS_TOPIC, OffsetsRecord, TOMBSTONES_MAX, Tombstone, TombstoneBody, offsets_partition_of,
};
use crate::state::topic::Topic;
use crate::types::{Offset, PartitionIndex, Slot, TimestampMs, TopicName};

/// The records of the topic.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct OffsetsLog {
    /// By the topic's slot and by sequence.
    records: OrdMap<(Slot, u64), OffsetsRecord>,
    /// Where the tombstones among them are, by sequence.
    tombstones: OrdMap<u64, Slot>,
}

impl State {
    fn offsets_topic(&self) -> Option<&Arc<Topic>> {
        self.topic_by_name(OFFSETS_TOPIC)
    }

    /// The slot of `__consumer_offsets` that the group's records are in; `None` while there is no such topic.
    #[must_use]
    pub fn offsets_slot(&self, group: &str) -> Option<Slot> {
        let slots = &self.offsets_topic()?.slots;
        slots.get(offsets_partition_of(group, slots.len())).copied()
    }

    /// Whether the slot is one of `__consumer_offsets`, whose records are [`State::offsets_records`] and in no object.
    #[must_use]
    pub fn is_offsets_slot(&self, slot: Slot) -> bool {
        let topic = self.partition(slot).and_then(|p| self.topic(p.topic));
        topic.is_some_and(|topic| *topic.name == *OFFSETS_TOPIC)
    }

    /// The records of a partition of `__consumer_offsets` from an offset on, in their order. Offsets have gaps.
    pub fn offsets_records(&self, slot: Slot, from: Offset) -> impl Iterator<Item = (Offset, &OffsetsRecord)> {
        let from = u64::try_from(from.0).unwrap_or(0);
        let records = self.offsets_log.records.range((slot, from)..=(slot, u64::MAX));
        records.map(|((_, sequence), record)| (offset(*sequence), record))
    }

    /// The group has committed an offset for `slot`, which replaces the one at `old`.
    pub(super) fn log_commit(&mut self, group: &GroupName, slot: Slot, old: Option<u64>, sequence: u64) {
        let Some(place) = self.offsets_slot(group) else { return };
        self.unlog(place, old);
        self.log(place, sequence, OffsetsRecord::Commit(group.clone(), slot));
    }

    /// The group has changed, from what it was to what State has now.
    pub(super) fn log_group(&mut self, name: &GroupName, old: Option<&Group>, now: TimestampMs) {
        let Some(place) = self.offsets_slot(name) else { return };
        let old = old.filter(|group| group.has_record());
        self.unlog(place, old.map(|group| group.sequence));
        match self.groups.get(name).filter(|group| group.has_record()).map(|group| group.sequence) {
            Some(sequence) => self.log(place, sequence, OffsetsRecord::Group(name.clone())),
            None if old.is_some() => self.log_tombstone(name, None, now),
            None => {}
        }
    }

    /// The group is deleted, with its offsets. As in Kafka their tombstones come first, and the group has one even if it
    /// never had a record.
    pub(super) fn log_group_deleted(&mut self, name: &GroupName, group: &Group, now: TimestampMs) {
        let Some(place) = self.offsets_slot(name) else { return };
        for (slot, committed) in &group.offsets {
            self.log_offset_deleted(name, *slot, committed.sequence, now);
        }
        self.unlog(place, Some(group.sequence).filter(|_| group.has_record()));
        self.log_tombstone(name, None, now);
    }

    /// A committed offset is deleted; its partition is still there.
    pub(super) fn log_offset_deleted(&mut self, group: &GroupName, slot: Slot, sequence: u64, now: TimestampMs) {
        let topic = self.partition(slot).and_then(|p| Some((self.topic(p.topic)?.name.clone(), p.index)));
        self.log_partition_deleted(group, topic, sequence, now);
    }

    /// As [`State::log_offset_deleted`], where State may not know the partition any more.
    pub(super) fn log_partition_deleted(
        &mut self,
        group: &GroupName,
        partition: Option<(TopicName, PartitionIndex)>,
        sequence: u64,
        now: TimestampMs,
    ) {
        let Some(place) = self.offsets_slot(group) else { return };
        self.unlog(place, Some(sequence));
        if partition.is_some() {
            self.log_tombstone(group, partition, now);
        }
    }

    fn log_tombstone(&mut self, group: &GroupName, partition: Option<(TopicName, PartitionIndex)>, now: TimestampMs) {
        let Some(place) = self.offsets_slot(group) else { return };
        let sequence = self.take_group_sequence();
        let tombstone = Tombstone { group: group.clone(), partition, deleted_ms: now };
        self.log(place, sequence, OffsetsRecord::Tombstone(Arc::new(tombstone)));
        self.offsets_log.tombstones.insert(sequence, place);
        if self.offsets_log.tombstones.len() > TOMBSTONES_MAX {
            let oldest = self.offsets_log.tombstones.get_min().map(|(sequence, place)| (*place, *sequence));
            let (place, sequence) = oldest.expect("there are more than none");
            self.offsets_log.tombstones.remove(&sequence);
            self.unlog(place, Some(sequence));
        }
    }

    /// Adds a record. The end of its partition follows, which makes it the high watermark.
    fn log(&mut self, place: Slot, sequence: u64, record: OffsetsRecord) {
        self.offsets_log.records.insert((place, sequence), record);
        if let Some(partition) = self.partition_mut(place) {
            partition.end = partition.end.max(offset(sequence).plus(1));
        }
    }

    /// What stood there is compacted away.
    fn unlog(&mut self, place: Slot, sequence: Option<u64>) {
        if let Some(sequence) = sequence {
            self.offsets_log.records.remove(&(place, sequence));
        }
    }

    /// Makes all records anew, with the tombstones that there are.
    pub(in crate::state) fn log_all_offsets(&mut self) {
        let tombstones: Vec<_> = self.offsets_tombstones().map(|(sequence, t)| (sequence, t.clone())).collect();
        self.log_all_offsets_with(tombstones);
    }

    /// Makes all records anew: of the groups that there are, and of these tombstones.
    pub(in crate::state) fn log_all_offsets_with(&mut self, tombstones: Vec<(u64, Arc<Tombstone>)>) {
        self.offsets_log = OffsetsLog::default();
        if self.offsets_topic().is_none() {
            return;
        }
        for (name, group) in self.groups.clone() {
            let Some(place) = self.offsets_slot(&name) else { continue };
            for (slot, committed) in &group.offsets {
                self.log(place, committed.sequence, OffsetsRecord::Commit(name.clone(), *slot));
            }
            if group.has_record() {
                self.log(place, group.sequence, OffsetsRecord::Group(name.clone()));
            }
        }
        for (sequence, tombstone) in tombstones {
            let Some(place) = self.offsets_slot(&tombstone.group) else { continue };
            self.log(place, sequence, OffsetsRecord::Tombstone(tombstone));
            self.offsets_log.tombstones.insert(sequence, place);
        }
    }

    /// The tombstones, by sequence.
    fn offsets_tombstones(&self) -> impl Iterator<Item = (u64, &Arc<Tombstone>)> {
        self.offsets_log.tombstones.iter().filter_map(|(sequence, place)| {
            match self.offsets_log.records.get(&(*place, *sequence)) {
                Some(OffsetsRecord::Tombstone(tombstone)) => Some((*sequence, tombstone)),
                _ => None,
            }
        })
    }

    /// The tombstones as they stand in a snapshot; the other records follow from the groups.
    pub(in crate::state) fn tombstone_bodies(&self) -> Vec<TombstoneBody> {
        self.offsets_tombstones().map(|(sequence, tombstone)| tombstone.body(sequence)).collect()
    }
}

fn offset(sequence: u64) -> Offset {
    Offset(i64::try_from(sequence).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
