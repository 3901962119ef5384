//! State and the fold: one entry in, outcomes out. The arms for each command are in the files beside this one; they
//! validate fully before they change anything (H15).
use imbl::{OrdMap, Vector};
use std::collections::BTreeMap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

mod brokers;
mod cluster;
mod collection;
mod commit;
mod compaction;
mod groups;
mod offsets_topic;
mod topics;
mod transactions;

pub use collection::NAMED_MAX;
use offsets_topic::OffsetsLog;

use super::broker::Broker;
use super::collection::Death;
use super::command::{Command, CommandKind};
use super::entry::Entry;
use super::forks::Forks;
use super::group::{Group, GroupName};
use super::outcome::Outcome;
use super::producer::{Moment, ProducerState};
use super::producers::Producers;
use super::settings::Settings;
use super::tail::Run;
use super::topic::{KeptSnapshot, ObjectMeta, Partition, Topic};
use super::transaction::{TransactionalId, TransactionalProducer};
use crate::types::{
    BrokerId, Head, KafkaError, ObjectId, Position, ProducerId, Slot, TimestampMs, Token, TopicId, TopicName,
};

/// Everything that brokers agree on, as of one journal position. Cloning shares; a clone costs well under a µs.
#[derive(Clone, Debug)]
pub struct State {
    pub(super) head: Head,
    /// Chain hash of all outcomes so far.
    pub(super) outcomes: u64,
    pub(super) feature_level: u32,
    /// Rises only when a forked history is resolved (H11).
    pub(super) generation: u16,
    pub(super) forks: Forks,
    pub(super) cluster_id: Option<Arc<str>>,
    pub(super) settings: Settings,
    /// Objects whose writer had applied less than this when it named them are refused (H4).
    pub(super) orphan_horizon: Position,
    pub(super) next_object: ObjectId,
    pub(super) next_producer: ProducerId,
    pub(super) topics: OrdMap<TopicId, Arc<Topic>>,
    pub(super) names: OrdMap<TopicName, TopicId>,
    /// Names with `.` as `_`: Kafka refuses two topics that are equal in this form.
    pub(super) canonical: OrdMap<TopicName, TopicId>,
    /// By slot; `None` where the topic was deleted.
    pub(super) partitions: Vector<Option<Arc<Partition>>>,
    pub(super) live_partitions: u32,
    pub(super) runs: u64,
    pub(super) producers: Producers,
    pub(super) objects: OrdMap<ObjectId, ObjectMeta>,
    /// Those of them that nothing refers to. From level 5 on.
    pub(super) dead: OrdMap<ObjectId, Death>,
    /// Their bytes. Not in snapshots: it follows.
    pub(super) dead_bytes: u64,
    pub(super) brokers: OrdMap<BrokerId, Broker>,
    /// How often a broker came or went. From level 2 on, as is the next.
    pub(super) membership: u32,
    /// At least this often before: of earlier changes it is not known any more who came or went.
    pub(super) membership_floor: u32,
    pub(super) groups: OrdMap<GroupName, Arc<Group>>,
    /// The settings that were set, by group, whether or not it exists.
    pub(super) group_configs: OrdMap<GroupName, Arc<BTreeMap<String, String>>>,
    /// The next change of a group or an offset gets this number.
    pub(super) next_group_sequence: u64,
    pub(super) group_offsets: u64,
    pub(super) group_bytes: u64,
    /// The records of `__consumer_offsets`. In snapshots are only the tombstones: the rest follows from the groups.
    pub(super) offsets_log: OffsetsLog,
    /// After this entry topics and partitions are as they are now. Not in snapshots: a restored State says its head.
    pub(super) topics_changed: Position,
    pub(super) snapshots: Vec<KeptSnapshot>,
    /// From level 4 on, as are the next.
    pub(super) transactional: OrdMap<TransactionalId, Arc<TransactionalProducer>>,
    /// By present producer id. Not in snapshots, as the next two: it follows.
    pub(super) transactional_ids: OrdMap<ProducerId, TransactionalId>,
    /// How many open transactions have an offset for this group and partition.
    pub(super) pending_offsets: OrdMap<(GroupName, Slot), u32>,
    /// All of them together.
    pub(super) pending: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            head: Head::default(),
            outcomes: 0,
            feature_level: 1,
            generation: 0,
            forks: Forks::default(),
            cluster_id: None,
            settings: Settings::default(),
            orphan_horizon: Position(0),
            next_object: ObjectId(0),
            next_producer: ProducerId(0),
            topics: OrdMap::new(),
            names: OrdMap::new(),
            canonical: OrdMap::new(),
            partitions: Vector::new(),
            live_partitions: 0,
            runs: 0,
            producers: Producers::default(),
            objects: OrdMap::new(),
            dead: OrdMap::new(),
            dead_bytes: 0,
            brokers: OrdMap::new(),
            membership: 0,
            membership_floor: 0,
            groups: OrdMap::new(),
            group_configs: OrdMap::new(),
            next_group_sequence: 0,
            group_offsets: 0,
            group_bytes: 0,
            offsets_log: OffsetsLog::default(),
            topics_changed: Position(0),
            snapshots: Vec::new(),
            transactional: OrdMap::new(),
            transactional_ids: OrdMap::new(),
            pending_offsets: OrdMap::new(),
            pending: 0,
        }
    }
}

impl State {
    /// Folds the entry at `position` in, and gives one outcome per command. The entries before it have been applied.
    ///
    /// # Panics
    /// If `position` is not the next one: then this is not the same history any more.
    pub fn apply(&mut self, position: Position, entry: &Entry) -> Vec<Outcome> {
        assert_eq!(position, self.head.position.next(), "entries are applied one after another");
        let outcomes: Vec<Outcome> = if self.admit(position, entry) {
            entry.commands.iter().map(|c| self.apply_command(position, entry, c)).collect()
        } else {
            entry.commands.iter().map(|_| Outcome::Fenced).collect()
        };
        self.head = Head { position, token: Token(entry.token) };
        let mut hashed = Vec::with_capacity(16 * outcomes.len());
        outcomes.iter().for_each(|o| o.hash_into(&mut hashed));
        self.outcomes = xxh3_64_with_seed(&hashed, self.outcomes);
        outcomes
    }

    fn apply_command(&mut self, position: Position, entry: &Entry, command: &Command) -> Outcome {
        let Some(kind) = &command.kind else {
            return Outcome::refused(KafkaError::UnknownServerError, "a command without a kind");
        };
        let wall_ms = TimestampMs(entry.wall_ms);
        match kind {
            CommandKind::Bootstrap(c) => self.bootstrap(entry, c),
            CommandKind::RegisterBroker(c) => self.register_broker(position, entry, c),
            CommandKind::UnregisterBroker(c) => self.unregister_broker(position, entry, c),
            CommandKind::AnnounceBroker(c) => self.announce_broker(entry, c),
            CommandKind::DrainBroker(c) => self.drain_broker(position, c),
            CommandKind::FenceBroker(c) => self.fence_broker(position, entry, c),
            CommandKind::RaiseFeatureLevel(c) => self.raise_feature_level(Moment { position, wall_ms }, c),
            CommandKind::SetSettings(c) => self.set_settings(c),
            CommandKind::CreateTopic(c) => self.topics_change(position, |state| state.create_topic(c)),
            CommandKind::CreatePartitions(c) => self.topics_change(position, |state| state.create_partitions(c)),
            CommandKind::DeleteTopic(c) => {
                self.topics_change(position, |state| state.delete_topic(Moment { position, wall_ms }, c))
            }
            CommandKind::AlterTopicConfigs(c) => self.alter_topic_configs(c),
            CommandKind::CommitRuns(c) => self.commit_runs(Moment { position, wall_ms }, c),
            CommandKind::AllocateProducerIds(c) => self.allocate_producer_ids(c),
            CommandKind::DeleteRecords(c) => self.delete_records(Moment { position, wall_ms }, c),
            CommandKind::ExpireProducers(c) => self.expire_producers(position, c),
            CommandKind::SnapshotTaken(c) => self.snapshot_taken(c),
            CommandKind::ChangeGroup(c) => self.change_group(wall_ms, c),
            CommandKind::DeleteGroup(c) => self.delete_group(wall_ms, c),
            CommandKind::CommitOffsets(c) => self.commit_offsets(Moment { position, wall_ms }, c),
            CommandKind::DeleteOffsets(c) => self.delete_offsets(wall_ms, c),
            CommandKind::AlterGroupConfigs(c) => self.alter_group_configs(c),
            CommandKind::InitProducer(c) => self.init_producer(Moment { position, wall_ms }, c),
            CommandKind::AddToTransaction(c) => self.add_to_transaction(Moment { position, wall_ms }, c),
            CommandKind::EndTransaction(c) => self.end_transaction(Moment { position, wall_ms }, c),
            CommandKind::AbortTransaction(c) => self.abort_transaction(Moment { position, wall_ms }, c),
            CommandKind::ExpireTransactionalIds(c) => self.expire_transactional_ids(c),
            CommandKind::TrimLogs(c) => self.trim_logs(Moment { position, wall_ms }, c),
            CommandKind::ForgetObjects(c) => self.forget_objects(c),
            CommandKind::RaiseOrphanHorizon(c) => self.raise_orphan_horizon(c),
            CommandKind::CommitCompaction(c) => self.commit_compaction(Moment { position, wall_ms }, c),
        }
    }

    fn topics_change(&mut self, position: Position, change: impl FnOnce(&mut Self) -> Outcome) -> Outcome {
        let outcome = change(self);
        if outcome == Outcome::Done {
            self.topics_changed = position;
        }
        outcome
    }

    /// The last entry that is in it.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// The chain hash of all outcomes up to [`State::head`].
    #[must_use]
    pub fn outcomes_hash(&self) -> u64 {
        self.outcomes
    }

    /// The level that entries and snapshots are written at.
    #[must_use]
    pub fn feature_level(&self) -> u32 {
        self.feature_level
    }

    /// The cluster's id; `None` before the first entry.
    #[must_use]
    pub fn cluster_id(&self) -> Option<&Arc<str>> {
        self.cluster_id.as_ref()
    }

    /// What `apply` obeys.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The topic of this name.
    #[must_use]
    pub fn topic_by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.names.get(name).and_then(|id| self.topics.get(id))
    }

    /// The topic of this id.
    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.names.values().filter_map(|id| self.topics.get(id))
    }

    /// Topics that there are.
    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// The partition in this slot; `None` if its topic was deleted or the slot was never given.
    #[must_use]
    pub fn partition(&self, slot: Slot) -> Option<&Arc<Partition>> {
        self.partitions.get(slot.0 as usize).and_then(Option::as_ref)
    }

    /// The partitions that there are, by slot.
    pub fn partitions(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.partitions.iter().flatten()
    }

    /// Partitions that there are, deleted ones not counted.
    #[must_use]
    pub fn partition_count(&self) -> u32 {
        self.live_partitions
    }

    /// Runs in all partitions.
    #[must_use]
    pub fn run_count(&self) -> u64 {
        self.runs
    }

    /// An object that runs refer to, or did.
    #[must_use]
    pub fn object(&self, id: ObjectId) -> Option<&ObjectMeta> {
        self.objects.get(&id)
    }

    /// The largest timestamp of a run; where its producers gave none, or it has no records, when it was written, as Kafka takes
    /// the time of the file.
    #[must_use]
    pub fn time_of(&self, run: &Run) -> TimestampMs {
        if run.max_timestamp.0 >= 0 || run.marker.is_some() {
            return run.max_timestamp;
        }
        self.object(run.object).map_or(run.max_timestamp, |meta| meta.name.written_ms())
    }

    /// All objects, in the order of their first commit.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectId, &ObjectMeta)> {
        self.objects.iter().map(|(id, meta)| (*id, meta))
    }

    /// Objects that State knows.
    #[must_use]
    pub fn object_count(&self) -> usize {
        self.objects.len()
    }

    /// The remembered producers of a partition.
    pub fn producers_of(&self, slot: Slot) -> impl Iterator<Item = (ProducerId, ProducerState)> {
        self.producers.of(slot)
    }

    /// What a partition remembers of this producer.
    #[must_use]
    pub fn producer(&self, slot: Slot, id: ProducerId) -> Option<ProducerState> {
        self.producers.get(&(slot, id))
    }

    /// All remembered producers.
    pub fn producers(&self) -> impl Iterator<Item = (Slot, ProducerId, ProducerState)> {
        self.producers.iter().map(|((slot, id), producer)| (slot, id, producer))
    }

    /// Producers that are remembered, over all partitions.
    #[must_use]
    pub fn producer_count(&self) -> usize {
        self.producers.len()
    }

    /// The broker of this id, if it ever registered.
    #[must_use]
    pub fn broker(&self, id: BrokerId) -> Option<&Broker> {
        self.brokers.get(&id)
    }

    /// All brokers that ever registered and are remembered, by id.
    pub fn brokers(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values()
    }

    /// How often brokers have come or gone. While it stays, so does who leads and coordinates what.
    #[must_use]
    pub fn membership(&self) -> u32 {
        self.membership
    }

    /// Of changes up to this one it is not remembered who came or went.
    #[must_use]
    pub fn membership_floor(&self) -> u32 {
        self.membership_floor
    }

    /// How often the history was forked and mended (H11).
    #[must_use]
    pub fn generation(&self) -> u16 {
        self.generation
    }

    /// The group of this name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&Arc<Group>> {
        self.groups.get(name)
    }

    /// All groups, by name.
    pub fn groups(&self) -> impl Iterator<Item = (&GroupName, &Arc<Group>)> {
        self.groups.iter()
    }

    /// The settings that were set for a group, by Kafka's names; the others have defaults.
    #[must_use]
    pub fn group_configs(&self, name: &str) -> Option<&Arc<BTreeMap<String, String>>> {
        self.group_configs.get(name)
    }

    /// Groups that have settings, by name.
    pub fn configured_groups(&self) -> impl Iterator<Item = &GroupName> {
        self.group_configs.keys()
    }

    /// Groups that there are.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// Committed offsets of all groups.
    #[must_use]
    pub fn group_offset_count(&self) -> u64 {
        self.group_offsets
    }

    /// Bytes of the members and assignments of all groups.
    #[must_use]
    pub fn group_bytes(&self) -> u64 {
        self.group_bytes
    }

    /// The entry after which topics and partitions are as they are now, or a later one: while it stays, they stay.
    #[must_use]
    pub fn topics_changed(&self) -> Position {
        self.topics_changed
    }

    /// What is known of a transactional id.
    #[must_use]
    pub fn transactional_producer(&self, id: &str) -> Option<&Arc<TransactionalProducer>> {
        self.transactional.get(id)
    }

    /// All transactional ids, in order.
    pub fn transactional_producers(&self) -> impl Iterator<Item = (&TransactionalId, &Arc<TransactionalProducer>)> {
        self.transactional.iter()
    }

    /// The transactional id that this producer id was given for, and is not replaced in.
    #[must_use]
    pub fn transactional_id_of(&self, producer: ProducerId) -> Option<&TransactionalId> {
        self.transactional_ids.get(&producer)
    }

    /// Whether an open transaction will change the group's offset for this partition if it is committed.
    #[must_use]
    pub fn has_pending_offset(&self, group: &str, slot: Slot) -> bool {
        self.pending > 0 && self.pending_offsets.contains_key(&(Arc::from(group), slot))
    }

    /// Whether an open transaction has offsets for the group.
    #[must_use]
    pub fn has_pending_offsets(&self, group: &str) -> bool {
        let name: GroupName = Arc::from(group);
        let all = (name.clone(), Slot(0))..=(name, Slot(u32::MAX));
        self.pending > 0 && self.pending_offsets.range(all).next().is_some()
    }

    /// The snapshots that are kept, oldest first.
    #[must_use]
    pub fn snapshots(&self) -> &[KeptSnapshot] {
        &self.snapshots
    }
}

#[cfg(test)]
mod tests;
