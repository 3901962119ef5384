//! State as bytes and back: magic, version, protobuf body, CRC-32C. The encoding is canonical (everything in order), so
//! equal States have equal bytes, and their hash proves it (H13). Specified in `docs/formats/snapshot.md`.
mod broker;
mod collection;
mod object;
mod producer;
mod transactions;

use bytes::Bytes;
use prost::Message;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

use self::broker::BrokerBody;
use self::collection::restore_dead;
use self::object::ObjectBody;
use self::producer::{ProducerBody, producer_body, restore_producer};
use self::transactions::{TransactionalBody, aborted_bytes, restore_aborted};
use super::apply::State;
use super::collection::pack_dead;
use super::command::ConfigChange;
use super::entry::FEATURE_LEVEL_MAX;
use super::fields;
use super::forks::{Fork, Forks};
use super::group::{Group, GroupBody};
use super::offsets_topic::{Tombstone, TombstoneBody};
use super::settings::Settings;
use super::tail::{Run, Tail, packed_end, unpacked_end};
use super::topic::{KeptSnapshot, ObjectMeta, Partition, Topic};
use super::varint;
use crate::types::{
    Head, ObjectId, Offset, PartitionIndex, Position, ProducerId, Slot, TimestampMs, Token, TopicId, TopicName, Uuid,
};

const MAGIC: [u8; 4] = *b"SLSN";
const VERSION: u8 = 1;

/// More places for partitions than any cluster gives out: each takes eight bytes for ever, also of a deleted partition.
const SLOTS_MAX: u32 = 1 << 28;

/// Tags of the lists that are read one by one, of `Body` and of a topic.
const TOPICS: u32 = 12;
const PRODUCERS: u32 = 14;
const PARTITIONS: u32 = 6;

/// Why a snapshot can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("the snapshot is damaged: {0}")]
    Damaged(String),
    #[error(
        "the snapshot is of feature level {level}, and this version of Strandline knows levels up to {FEATURE_LEVEL_MAX}; use a newer one"
    )]
    Level { level: u32 },
}

/// What identifies a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    pub at: Head,
    /// xxh3 of the whole body.
    pub state_hash: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Body {
    #[prost(uint32, tag = "1")]
    feature_level: u32,
    #[prost(uint64, tag = "2")]
    position: u64,
    #[prost(fixed64, tag = "3")]
    token: u64,
    #[prost(fixed64, tag = "4")]
    outcomes: u64,
    #[prost(uint32, tag = "5")]
    generation: u32,
    #[prost(string, optional, tag = "6")]
    cluster_id: Option<String>,
    #[prost(message, required, tag = "7")]
    settings: Settings,
    #[prost(uint64, tag = "8")]
    orphan_horizon: u64,
    #[prost(uint64, tag = "9")]
    next_object: u64,
    #[prost(int64, tag = "10")]
    next_producer: i64,
    #[prost(uint32, tag = "11")]
    next_slot: u32,
    #[prost(message, repeated, tag = "12")]
    topics: Vec<TopicBody>,
    #[prost(message, repeated, tag = "13")]
    objects: Vec<ObjectBody>,
    #[prost(message, repeated, tag = "14")]
    producers: Vec<ProducerBody>,
    #[prost(message, repeated, tag = "15")]
    brokers: Vec<BrokerBody>,
    #[prost(message, repeated, tag = "16")]
    snapshots: Vec<KeptBody>,
    #[prost(message, repeated, tag = "17")]
    groups: Vec<GroupBody>,
    #[prost(uint64, tag = "18")]
    next_group_sequence: u64,
    #[prost(message, repeated, tag = "19")]
    group_configs: Vec<GroupConfigsBody>,
    #[prost(message, repeated, tag = "20")]
    offset_tombstones: Vec<TombstoneBody>,
    /// From level 2 on, as is the next.
    #[prost(uint32, tag = "21")]
    membership: u32,
    #[prost(uint32, tag = "22")]
    membership_floor: u32,
    /// The generations before the present one, oldest first. From level 3 on.
    #[prost(message, repeated, tag = "23")]
    forks: Vec<ForkBody>,
    /// Transactional ids, in order. From level 4 on.
    #[prost(message, repeated, tag = "24")]
    transactional: Vec<TransactionalBody>,
    /// Objects that nothing refers to. From level 5 on.
    #[prost(bytes = "vec", tag = "25")]
    dead: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ForkBody {
    #[prost(uint32, tag = "1")]
    generation: u32,
    /// Per partition that had records, by slot: slot (difference), end.
    #[prost(bytes = "vec", tag = "2")]
    ends: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GroupConfigsBody {
    #[prost(string, tag = "1")]
    group: String,
    #[prost(message, repeated, tag = "2")]
    configs: Vec<ConfigChange>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TopicBody {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint32, tag = "3")]
    replication_factor: u32,
    #[prost(uint64, tag = "4")]
    config_version: u64,
    #[prost(message, repeated, tag = "5")]
    configs: Vec<ConfigChange>,
    /// By index.
    #[prost(message, repeated, tag = "6")]
    partitions: Vec<PartitionBody>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PartitionBody {
    #[prost(uint32, tag = "1")]
    slot: u32,
    #[prost(int64, tag = "2")]
    log_start: i64,
    #[prost(int64, tag = "3")]
    end: i64,
    /// Offset of the first run.
    #[prost(int64, tag = "4")]
    tail_start: i64,
    /// Per run: records, object (difference), position, bytes, timestamp (difference). Per marker: 0, producer, epoch and
    /// result, timestamp (difference).
    #[prost(bytes = "vec", tag = "5")]
    runs: Vec<u8>,
    /// Position of the entry by which a producer was forgotten last.
    #[prost(uint64, tag = "6")]
    forgotten: u64,
    /// Aborted transactions. From level 4 on.
    #[prost(bytes = "vec", tag = "7")]
    aborted: Vec<u8>,
    /// From level 7 on.
    #[prost(int64, tag = "8")]
    cleaned: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeptBody {
    #[prost(uint64, tag = "1")]
    position: u64,
    #[prost(fixed64, tag = "2")]
    token: u64,
    #[prost(string, tag = "3")]
    key: String,
    #[prost(uint64, tag = "4")]
    bytes: u64,
    #[prost(int64, tag = "5")]
    taken_ms: i64,
}

impl State {
    /// The State as a snapshot's bytes. Takes a few ms per 100,000 runs; call it off the async threads.
    #[must_use]
    pub fn encode_snapshot(&self) -> (SnapshotHeader, Bytes) {
        let body = self.body();
        let mut out = Vec::with_capacity(body.encoded_len() + 9);
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        body.encode(&mut out).expect("a Vec grows, which is the only thing that encoding can lack");
        let state_hash = xxh3_64(&out[5..]);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        (SnapshotHeader { at: self.head, state_hash }, out.into())
    }

    /// Reads what [`State::encode_snapshot`] wrote.
    ///
    /// # Errors
    /// If the bytes are damaged, contradict themselves, or are of a level that this version does not know.
    pub fn decode_snapshot(bytes: &[u8]) -> Result<(SnapshotHeader, Self), SnapshotError> {
        let damaged = |reason: &str| SnapshotError::Damaged(reason.to_owned());
        let (rest, crc) = bytes.split_last_chunk::<4>().ok_or_else(|| damaged("too short"))?;
        if crc32c::crc32c(rest) != u32::from_le_bytes(*crc) {
            return Err(damaged("its checksum does not hold"));
        }
        let body = rest.strip_prefix(&MAGIC).and_then(|r| r.strip_prefix(&[VERSION]));
        let body = body.ok_or_else(|| damaged("it has another magic or version"))?;
        let state_hash = xxh3_64(body);
        let short = fields::without(body, &[TOPICS, PRODUCERS]).ok_or_else(|| damaged("it is not a message"))?;
        let short = Body::decode(&*short).map_err(|e| SnapshotError::Damaged(e.to_string()))?;
        if short.feature_level > FEATURE_LEVEL_MAX {
            return Err(SnapshotError::Level { level: short.feature_level });
        }
        let state = restore(short, body).ok_or_else(|| damaged("it contradicts itself"))?;
        Ok((SnapshotHeader { at: state.head, state_hash }, state))
    }

    fn body(&self) -> Body {
        Body {
            feature_level: self.feature_level,
            position: self.head.position.0,
            token: self.head.token.0,
            outcomes: self.outcomes,
            generation: u32::from(self.generation),
            cluster_id: self.cluster_id.as_ref().map(|id| id.to_string()),
            settings: self.settings,
            orphan_horizon: self.orphan_horizon.0,
            next_object: self.next_object.0,
            next_producer: self.next_producer.0,
            next_slot: self.partitions.len() as u32,
            topics: self.topics.values().map(|t| self.topic_body(t)).collect(),
            objects: self.objects.iter().map(|(id, meta)| ObjectBody::of(*id, meta)).collect(),
            producers: self.producers().map(|(slot, id, p)| producer_body(slot, id, &p)).collect(),
            brokers: self.brokers.values().map(|broker| BrokerBody::of(broker, self.feature_level)).collect(),
            snapshots: self.snapshots.iter().map(kept_body).collect(),
            groups: self.groups.iter().map(|(name, group)| group.body(name)).collect(),
            next_group_sequence: self.next_group_sequence,
            group_configs: self.group_configs.iter().map(|(name, c)| group_configs_body(name, c)).collect(),
            offset_tombstones: self.tombstone_bodies(),
            membership: self.membership,
            membership_floor: self.membership_floor,
            forks: self.forks.0.iter().map(fork_body).collect(),
            transactional: self.transactional.iter().map(|(id, known)| TransactionalBody::of(id, known)).collect(),
            dead: pack_dead(self.dead.iter()),
        }
    }

    fn topic_body(&self, topic: &Topic) -> TopicBody {
        let config =
            |(name, value): (&String, &String)| ConfigChange { name: name.clone(), value: Some(value.clone()) };
        TopicBody {
            id: topic.id.0.as_bytes().to_vec(),
            name: topic.name.to_string(),
            replication_factor: topic.replication_factor,
            config_version: topic.config_version,
            configs: topic.configs.iter().map(config).collect(),
            partitions: topic
                .slots
                .iter()
                .filter_map(|&slot| self.partition(slot))
                .map(|p| partition_body(p))
                .collect(),
        }
    }
}

fn group_configs_body(group: &str, configs: &std::collections::BTreeMap<String, String>) -> GroupConfigsBody {
    let config = |(name, value): (&String, &String)| ConfigChange { name: name.clone(), value: Some(value.clone()) };
    GroupConfigsBody { group: group.to_owned(), configs: configs.iter().map(config).collect() }
}

fn fork_body(fork: &Fork) -> ForkBody {
    let (mut ends, mut before) = (Vec::new(), 0);
    for (slot, end) in &fork.ends {
        varint::put(&mut ends, u64::from(slot.0 - before));
        varint::put(&mut ends, end.0.unsigned_abs());
        before = slot.0;
    }
    ForkBody { generation: u32::from(fork.generation), ends }
}

fn partition_body(partition: &Partition) -> PartitionBody {
    let mut runs = Vec::with_capacity(partition.tail.len() * 12);
    let (mut object, mut timestamp) = (0, 0);
    for run in partition.tail.iter() {
        if let Some(marker) = run.marker {
            varint::put(&mut runs, 0);
            varint::put_signed(&mut runs, marker.producer.0);
            varint::put(&mut runs, packed_end(marker));
            varint::put_signed(&mut runs, run.max_timestamp.0.wrapping_sub(timestamp));
            timestamp = run.max_timestamp.0;
            continue;
        }
        varint::put(&mut runs, (run.end_offset.0 - run.base_offset.0) as u64);
        varint::put_signed(&mut runs, (run.object.0 as i64).wrapping_sub(object));
        varint::put(&mut runs, u64::from(run.position));
        varint::put(&mut runs, u64::from(run.bytes));
        varint::put_signed(&mut runs, run.max_timestamp.0.wrapping_sub(timestamp));
        (object, timestamp) = (run.object.0 as i64, run.max_timestamp.0);
    }
    PartitionBody {
        slot: partition.slot.0,
        log_start: partition.log_start.0,
        end: partition.end.0,
        tail_start: partition.tail.iter().next().map_or(partition.end.0, |r| r.base_offset.0),
        runs,
        forgotten: partition.forgotten.0,
        aborted: aborted_bytes(partition),
        cleaned: partition.cleaned.0,
    }
}

fn kept_body(kept: &KeptSnapshot) -> KeptBody {
    KeptBody {
        position: kept.at.position.0,
        token: kept.at.token.0,
        key: kept.key.clone(),
        bytes: kept.bytes,
        taken_ms: kept.taken_ms.0,
    }
}

/// State from a body: `body` is all of it without the lists that `whole` has.
fn restore(body: Body, whole: &[u8]) -> Option<State> {
    if body.next_slot > SLOTS_MAX {
        return None;
    }
    let head = Head { position: Position(body.position), token: Token(body.token) };
    let mut state = State {
        head,
        outcomes: body.outcomes,
        feature_level: body.feature_level,
        generation: u16::try_from(body.generation).ok()?,
        forks: Forks(body.forks.iter().map(restore_fork).collect::<Option<_>>()?),
        cluster_id: body.cluster_id.map(Arc::from),
        settings: body.settings,
        orphan_horizon: Position(body.orphan_horizon),
        next_object: ObjectId(body.next_object),
        next_producer: ProducerId(body.next_producer),
        partitions: std::iter::repeat_n(None, body.next_slot as usize).collect(),
        ..State::default()
    };
    let mut objects: std::collections::BTreeMap<ObjectId, ObjectMeta> = Default::default();
    for object in body.objects {
        let (id, meta) = object.restore()?;
        objects.insert(id, meta);
    }
    for topic in fields::each(whole, TOPICS) {
        restore_topic(&mut state, &mut objects, topic)?;
    }
    state.objects = objects.into_iter().collect();
    restore_dead(&mut state, &body.dead)?;
    fields::each(whole, PRODUCERS).try_for_each(|producer| restore_producer(&mut state, producer))?;
    let brokers = body.brokers.into_iter().map(|broker| broker.restore(state.feature_level));
    state.brokers = brokers.collect::<Option<_>>()?;
    (state.membership, state.membership_floor) = (body.membership, body.membership_floor);
    state.snapshots = body.snapshots.into_iter().map(restore_kept).collect();
    for group in body.groups {
        let (name, group) = Group::restore(group);
        state.group_offsets += group.offsets.len() as u64;
        state.group_bytes += group.bytes;
        state.groups.insert(name, Arc::new(group));
    }
    state.next_group_sequence = body.next_group_sequence;
    for group in body.group_configs {
        let configs = group.configs.into_iter().map(|c| Some((c.name, c.value?))).collect::<Option<_>>()?;
        state.group_configs.insert(Arc::from(group.group), Arc::new(configs));
    }
    body.transactional.into_iter().try_for_each(|known| known.restore(&mut state))?;
    state.log_all_offsets_with(body.offset_tombstones.into_iter().map(Tombstone::restore).collect());
    state.topics_changed = head.position;
    Some(state)
}

fn restore_fork(body: &ForkBody) -> Option<Fork> {
    let (mut ends, mut input, mut slot) = (Vec::new(), body.ends.as_slice(), 0_u32);
    while !input.is_empty() {
        slot = slot.checked_add(varint::take_u32(&mut input)?)?;
        ends.push((Slot(slot), Offset(i64::try_from(varint::take(&mut input)?).ok()?)));
    }
    Some(Fork { generation: u16::try_from(body.generation).ok()?, ends })
}

fn restore_topic(
    state: &mut State,
    objects: &mut std::collections::BTreeMap<ObjectId, ObjectMeta>,
    topic: &[u8],
) -> Option<()> {
    let body = TopicBody::decode(&*fields::without(topic, &[PARTITIONS])?).ok()?;
    let id = TopicId(Uuid::from_slice(&body.id).ok()?);
    let name: TopicName = Arc::from(body.name);
    let configs = body.configs.into_iter().map(|c| Some((c.name, c.value?))).collect::<Option<_>>()?;
    let mut slots = Vec::with_capacity(fields::each(topic, PARTITIONS).count());
    for (index, partition) in fields::each(topic, PARTITIONS).enumerate() {
        let partition = PartitionBody::decode(partition).ok()?;
        let partition = restore_partition(id, i32::try_from(index).ok()?, &partition)?;
        slots.push(partition.slot);
        for run in partition.tail.iter().filter(|run| run.marker.is_none()) {
            objects.get_mut(&run.object)?.live_runs += 1;
        }
        state.runs += partition.tail.len() as u64;
        state.live_partitions += 1;
        let place = state.partitions.get_mut(partition.slot.0 as usize)?;
        if place.replace(Arc::new(partition)).is_some() {
            return None;
        }
    }
    let (replication_factor, config_version) = (body.replication_factor, body.config_version);
    state.canonical.insert(Arc::from(name.replace('.', "_")), id);
    state.names.insert(name.clone(), id);
    state.topics.insert(id, Arc::new(Topic { id, name, slots, replication_factor, configs, config_version }));
    Some(())
}

fn restore_partition(topic: TopicId, index: i32, body: &PartitionBody) -> Option<Partition> {
    let (mut tail, mut input) = (Tail::default(), body.runs.as_slice());
    if body.tail_start < 0 || !(0..=body.end).contains(&body.log_start) {
        return None;
    }
    let (mut next, mut object, mut timestamp, mut bytes) = (body.tail_start, 0_i64, 0_i64, 0);
    while !input.is_empty() {
        let records = varint::take(&mut input)?;
        if records == 0 {
            let producer = ProducerId(varint::take_signed(&mut input)?);
            let marker = unpacked_end(producer, varint::take(&mut input)?)?;
            timestamp = timestamp.wrapping_add(varint::take_signed(&mut input)?);
            let run = Run::marker(Offset(next), marker, TimestampMs(timestamp));
            bytes += u64::from(run.bytes);
            tail.push(&run);
            next = next.checked_add(1)?;
            continue;
        }
        let end = next.checked_add_unsigned(records)?;
        object = object.wrapping_add(varint::take_signed(&mut input)?);
        let (position, size) = (varint::take_u32(&mut input)?, varint::take_u32(&mut input)?);
        timestamp = timestamp.wrapping_add(varint::take_signed(&mut input)?);
        bytes += u64::from(size);
        tail.push(&Run {
            base_offset: Offset(next),
            end_offset: Offset(end),
            object: ObjectId(object as u64),
            position,
            bytes: size,
            max_timestamp: TimestampMs(timestamp),
            marker: None,
        });
        next = end;
    }
    let (log_start, end) = (Offset(body.log_start), Offset(body.end));
    let index = PartitionIndex(index);
    (next == body.end).then_some(Partition {
        slot: Slot(body.slot),
        topic,
        index,
        log_start,
        end,
        bytes,
        producers: 0,
        cleaned: Offset(body.cleaned),
        forgotten: Position(body.forgotten),
        tail,
        transactions: restore_aborted(&body.aborted)?,
    })
}

fn restore_kept(body: KeptBody) -> KeptSnapshot {
    KeptSnapshot {
        at: Head { position: Position(body.position), token: Token(body.token) },
        key: body.key,
        bytes: body.bytes,
        taken_ms: TimestampMs(body.taken_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(body: &Body) -> Vec<u8> {
        let mut out = [&MAGIC[..], &[VERSION], &body.encode_to_vec()].concat();
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    fn body(next_slot: u32, partition: PartitionBody) -> Body {
        let topic =
            TopicBody { id: vec![7; 16], name: "topic".into(), partitions: vec![partition], ..TopicBody::default() };
        Body { next_slot, topics: vec![topic], ..Body::default() }
    }

    #[test]
    fn a_number_of_places_that_no_cluster_reaches_is_refused() {
        let last = |count| PartitionBody { slot: count - 1, ..PartitionBody::default() };
        assert!(State::decode_snapshot(&sealed(&body(u32::MAX, last(u32::MAX)))).is_err());
        let (_, state) = State::decode_snapshot(&sealed(&body(1000, last(1000)))).unwrap();
        assert_eq!(state.partitions.len(), 1000);
    }

    #[test]
    fn offsets_that_contradict_each_other_are_refused() {
        let refused = |partition| State::decode_snapshot(&sealed(&body(1, partition))).is_err();
        // One run from the smallest offset to the largest: more records than a number holds.
        let mut runs = Vec::new();
        varint::put(&mut runs, u64::MAX);
        runs.extend([0, 0, 1, 0]);
        let whole = PartitionBody { tail_start: i64::MIN, end: i64::MAX, runs, ..PartitionBody::default() };
        assert!(refused(whole));
        assert!(refused(PartitionBody { tail_start: -1, end: -1, ..PartitionBody::default() }));
        assert!(refused(PartitionBody { log_start: 1, ..PartitionBody::default() }));
        assert!(refused(PartitionBody { log_start: -1, ..PartitionBody::default() }));
        assert!(!refused(PartitionBody::default()));
    }
}
