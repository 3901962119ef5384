//! What the clients do: make and delete topics, produce with and without idempotence, fetch, ask for offsets.
use bytes::Bytes;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use strandline::records::{BatchBuilder, BatchHeader, Codec, Level, NewRecord, walk};
use strandline::types::{ProducerEpoch, ProducerId as Id, Sequence, TimestampMs, Uuid};
use strandline::world::World;

use super::wire::{Due, Wire};
use super::{Harbour, OPERATIONS};

/// Where each acknowledged value lies: topic id, partition, offset.
pub(crate) type Acked = BTreeMap<(Uuid, i32, i64), String>;

const TOPICS: u64 = 5;
const PRODUCERS: usize = 4;
const CONSUMERS: usize = 3;
/// Each client's share; the topics' maker is one more.
const EACH: usize = OPERATIONS / (PRODUCERS + CONSUMERS + 1) + 1;

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

fn topic(n: u64) -> TopicName {
    TopicName(text(format!("topic-{n}")))
}

/// Runs all clients until each has had its share of answers.
pub(crate) async fn run(harbour: &Harbour, seed: u64) -> Acked {
    let mut clients = Vec::new();
    for n in 0..=PRODUCERS + CONSUMERS {
        // A world of its own, so that what a client draws does not depend on the broker's drawing.
        let client = Client { n, wire: harbour.connect(n), chance: World::seeded(seed << 8 | n as u64), answers: 0 };
        let world = harbour.world.clone();
        clients.push(match n {
            0 => world.spawn("topics", client.make_topics()),
            n if n <= PRODUCERS => world.spawn("producer", client.produce()),
            _ => world.spawn("consumer", client.consume()),
        });
    }
    let mut acked = Acked::new();
    for client in clients {
        acked.extend(client.await.unwrap());
    }
    acked
}

struct Client {
    n: usize,
    wire: Wire,
    chance: World,
    answers: usize,
}

/// A topic as Metadata tells it.
#[derive(Clone)]
struct Known {
    name: TopicName,
    id: Uuid,
    partitions: i32,
}

impl Client {
    fn draw(&self, bound: u64) -> u64 {
        self.chance.random_below(bound)
    }

    fn version(&self, from: i16, to: i16) -> i16 {
        from + self.draw((to - from + 1) as u64) as i16
    }

    async fn pause(&self, ms_max: u64) {
        self.chance.sleep(Duration::from_millis(self.draw(ms_max))).await;
    }

    async fn ask<R: kafka_protocol::protocol::Request>(&mut self, version: i16, request: R) -> R::Response
    where
        R::Response: kafka_protocol::protocol::Decodable + kafka_protocol::protocol::HeaderVersion,
    {
        self.answers += 1;
        self.wire.ask(version, request).await
    }

    /// The topics that there are, at least one.
    async fn topics(&mut self) -> Vec<Known> {
        loop {
            let request = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false);
            let version = self.version(10, 13);
            let answer = self.ask(version, request).await;
            let known = answer.topics.into_iter().filter(|t| t.error_code == 0).map(|t| Known {
                name: t.name.unwrap(),
                id: t.topic_id,
                partitions: t.partitions.len() as i32,
            });
            let known: Vec<Known> = known.collect();
            if !known.is_empty() {
                return known;
            }
            self.pause(200).await;
        }
    }

    /// Topic 0 stays; the others come and go.
    async fn make_topics(mut self) -> Acked {
        self.create(topic(0)).await;
        while self.answers < EACH {
            self.pause(150).await;
            let name = topic(1 + self.draw(TOPICS));
            match self.draw(14) {
                0..4 => self.create(name).await,
                4 => {
                    let state = DeleteTopicState::default().with_name(Some(name));
                    let request = DeleteTopicsRequest::default().with_topics(vec![state]).with_timeout_ms(1000);
                    self.ask(6, request).await;
                }
                5 => {
                    let count = 1 + self.draw(8) as i32;
                    let one = CreatePartitionsTopic::default().with_name(name).with_count(count);
                    let version = self.version(2, 3);
                    self.ask(version, CreatePartitionsRequest::default().with_topics(vec![one])).await;
                }
                6 => {
                    let resource = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(name.0);
                    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
                    let version = self.version(1, 4);
                    self.ask(version, request).await;
                }
                7 => {
                    let value = Some(text(format!("{}", 1000 + self.draw(1 << 20))));
                    let config = AlterableConfig::default().with_name(text("retention.ms")).with_value(value);
                    let resource = AlterConfigsResource::default().with_resource_type(2).with_resource_name(name.0);
                    let resources = vec![resource.with_configs(vec![config])];
                    self.ask(1, IncrementalAlterConfigsRequest::default().with_resources(resources)).await;
                }
                8 => {
                    let partition = DeleteRecordsPartition::default().with_offset(self.draw(20) as i64);
                    let one = DeleteRecordsTopic::default().with_name(name).with_partitions(vec![partition]);
                    let request = DeleteRecordsRequest::default().with_topics(vec![one]).with_timeout_ms(1000);
                    self.ask(2, request).await;
                }
                9 | 10 => {
                    let times = [-1, -2, -3, self.chance.wall_ms().0 - self.draw(60_000) as i64];
                    let partition = |t: &i64| ListOffsetsPartition::default().with_timestamp(*t);
                    let one = ListOffsetsTopic::default().with_name(name);
                    let one = one.with_partitions(times.iter().map(partition).collect());
                    let version = self.version(7, 10);
                    self.ask(version, ListOffsetsRequest::default().with_topics(vec![one])).await;
                }
                11 => {
                    let partition = OffsetForLeaderPartition::default().with_leader_epoch(self.draw(2) as i32);
                    let one = OffsetForLeaderTopic::default().with_topic(name).with_partitions(vec![partition]);
                    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![one]);
                    let version = self.version(2, 4);
                    self.ask(version, request).await;
                }
                12 => {
                    let version = self.version(0, 4);
                    let named = ApiVersionsRequest::default().with_client_software_name(text("test"));
                    let request =
                        if version >= 3 { named.with_client_software_version(text("1")) } else { Default::default() };
                    self.ask(version, request).await;
                }
                _ => drop(self.topics().await),
            }
        }
        Acked::new()
    }

    async fn create(&mut self, name: TopicName) {
        let partitions = 1 + self.draw(4) as i32;
        let one = CreatableTopic::default().with_name(name).with_num_partitions(partitions);
        let request = CreateTopicsRequest::default().with_topics(vec![one.with_replication_factor(1)]);
        let version = self.version(2, 7);
        self.ask(version, request.with_timeout_ms(1000)).await;
    }

    /// Keeps up to five requests in flight. Half of the producers are idempotent; after an error one takes a new id.
    async fn produce(mut self) -> Acked {
        let (mut acked, mut waiting) = (Acked::new(), VecDeque::new());
        let mut known = self.topics().await;
        let mut id = self.producer_id().await;
        let mut sequences: BTreeMap<(Uuid, i32), i32> = BTreeMap::new();
        let mut failed = false;
        while self.answers + waiting.len() < EACH || !waiting.is_empty() {
            let more = self.answers + waiting.len() < EACH && !failed;
            if more && waiting.len() < 5 && self.draw(4) > 0 {
                waiting.push_back(self.send_batches(&known, id, &mut sequences).await);
                self.pause(30).await;
                continue;
            }
            if let Some((sent, due)) = waiting.pop_front() {
                self.answers += 1;
                let answer = self.wire.answer(due).await;
                failed |= !heard(&sent, &answer, &mut acked);
            } else if failed {
                failed = false;
                known = self.topics().await;
                id = self.producer_id().await;
                sequences.clear();
            }
        }
        acked
    }

    async fn producer_id(&mut self) -> Option<(Id, ProducerEpoch)> {
        while self.n % 2 == 1 {
            let version = self.version(0, 5);
            let answer = self.ask(version, InitProducerIdRequest::default().with_transactional_id(None)).await;
            if answer.error_code == 0 {
                return Some((Id(answer.producer_id.0), ProducerEpoch(answer.producer_epoch)));
            }
            self.pause(100).await;
        }
        None
    }

    /// Sends one batch each to some partitions; what it gives stands for them until the answer comes.
    async fn send_batches(
        &mut self,
        known: &[Known],
        id: Option<(Id, ProducerEpoch)>,
        sequences: &mut BTreeMap<(Uuid, i32), i32>,
    ) -> (Vec<Sent>, Due<ProduceResponse>) {
        let mut sent: Vec<Sent> = Vec::new();
        let mut topics: BTreeMap<usize, Vec<PartitionProduceData>> = BTreeMap::new();
        for _ in 0..=self.draw(3) {
            let at = self.draw(known.len() as u64) as usize;
            let (topic, partition) = (known[at].id, self.draw(known[at].partitions as u64) as i32);
            if sent.iter().any(|s| s.topic == topic && s.partition == partition) {
                continue;
            }
            let sequence = sequences.entry((topic, partition)).or_insert(0);
            let values: Vec<String> = (0..=self.draw(3)).map(|n| self.value(n)).collect();
            let batch = self.batch(&values, id, *sequence);
            *sequence += values.len() as i32;
            let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
            topics.entry(at).or_default().push(data);
            sent.push(Sent { topic, name: known[at].name.clone(), partition, values });
        }
        let data = topics.into_iter().map(|(at, partitions)| {
            let data = TopicProduceData::default().with_name(known[at].name.clone()).with_topic_id(known[at].id);
            data.with_partition_data(partitions)
        });
        let request = ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(-1)
            .with_timeout_ms(30_000)
            .with_topic_data(data.collect());
        // Below 13 a topic is known by its name, which another may have by now; then its offsets tell nothing.
        let due = self.wire.send(if self.draw(3) == 0 { 9 } else { 13 }, request).await;
        (sent, due)
    }

    fn value(&self, n: u64) -> String {
        let length = [10, 100, 3000][self.draw(3) as usize];
        let mut value = format!("{} {n} {:016x} ", self.n, self.chance.random_u64());
        value.extend(std::iter::repeat_n('.', length));
        value
    }

    fn batch(&self, values: &[String], id: Option<(Id, ProducerEpoch)>, sequence: i32) -> Bytes {
        let codec = [Codec::None, Codec::None, Codec::Lz4, Codec::Zstd][self.draw(4) as usize];
        let mut builder = BatchBuilder::new().codec(codec, Level::Default);
        if let Some((id, epoch)) = id {
            builder = builder.producer(id, epoch, Sequence(sequence));
        }
        let timestamp = TimestampMs(self.chance.wall_ms().0 - self.draw(1000) as i64);
        for value in values {
            builder.push(&NewRecord { timestamp, value: Some(value.as_bytes()), ..Default::default() });
        }
        builder.build().unwrap()
    }

    /// Reads with a fetch session; begins anew when anything is wrong.
    async fn consume(mut self) -> Acked {
        let mut positions: BTreeMap<(Uuid, i32), i64> = BTreeMap::new();
        while self.answers < EACH {
            let known = self.topics().await;
            let assigned = known.iter().flat_map(|topic| (0..topic.partitions).map(|p| (topic.id, p)));
            let assigned: Vec<(Uuid, i32)> = assigned.collect();
            let (mut session, mut epoch, mut changed) = (0, 0, assigned.clone());
            let version = self.version(13, 18);
            while self.answers < EACH {
                let mut topics: BTreeMap<Uuid, Vec<FetchPartition>> = BTreeMap::new();
                for (id, partition) in changed.drain(..) {
                    let asked = FetchPartition::default().with_partition(partition).with_partition_max_bytes(2000);
                    let asked = asked.with_fetch_offset(positions.get(&(id, partition)).copied().unwrap_or(0));
                    topics.entry(id).or_default().push(asked);
                }
                let topic = |(id, partitions)| FetchTopic::default().with_topic_id(id).with_partitions(partitions);
                let request = FetchRequest::default()
                    .with_max_wait_ms(50 + self.draw(400) as i32)
                    .with_min_bytes(1 + self.draw(3000) as i32)
                    .with_max_bytes(10_000)
                    .with_session_id(session)
                    .with_session_epoch(epoch)
                    .with_topics(topics.into_iter().map(topic).collect());
                let answer = self.ask(version, request).await;
                let mut errors = false;
                for (topic, data) in answer.responses.iter().flat_map(|t| t.partitions.iter().map(move |p| (t, p))) {
                    errors |= data.error_code != 0;
                    if data.error_code == 1 {
                        // What was asked for was deleted.
                        positions.insert((topic.topic_id, data.partition_index), data.log_start_offset.max(0));
                    }
                }
                if answer.error_code != 0 || errors || self.draw(40) == 0 {
                    self.pause(100).await;
                    break;
                }
                (session, epoch) = (answer.session_id, if answer.session_id == 0 { 0 } else { epoch + 1 });
                for (topic, data) in answer.responses.iter().flat_map(|t| t.partitions.iter().map(move |p| (t, p))) {
                    let at = (topic.topic_id, data.partition_index);
                    let position = positions.entry(at).or_insert(0);
                    if let Some((last, _)) = values(data.records.as_ref()).last() {
                        *position = (*position).max(last + 1);
                        changed.push(at);
                    }
                }
                if session == 0 {
                    changed = assigned.clone();
                }
                self.pause(60).await;
            }
        }
        Acked::new()
    }
}

struct Sent {
    topic: Uuid,
    name: TopicName,
    partition: i32,
    values: Vec<String>,
}

/// Remembers what was acknowledged; false if anything was refused.
fn heard(sent: &[Sent], answer: &ProduceResponse, acked: &mut Acked) -> bool {
    let mut fine = true;
    for (topic, partition) in answer.responses.iter().flat_map(|t| t.partition_responses.iter().map(move |p| (t, p))) {
        let same = |s: &&Sent| s.partition == partition.index && (s.topic == topic.topic_id || s.name == topic.name);
        let of = sent.iter().find(same).unwrap();
        fine &= partition.error_code == 0;
        if partition.error_code == 0 && !topic.topic_id.is_nil() {
            for (offset, value) in (partition.base_offset..).zip(&of.values) {
                acked.insert((of.topic, of.partition, offset), value.clone());
            }
        }
    }
    fine
}

/// Offsets and values of fetched records.
fn values(records: Option<&Bytes>) -> Vec<(i64, String)> {
    let (mut values, mut rest) = (Vec::new(), records.cloned().unwrap_or_default());
    while !rest.is_empty() {
        let header = BatchHeader::parse(&rest).unwrap();
        let batch = rest.split_to(header.total_bytes());
        walk(&batch, 1 << 20, |record| {
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            values.push((header.base_offset.0 + i64::from(record.offset_delta), value));
        })
        .unwrap();
    }
    values
}

/// KAFKA_STORAGE_ERROR, which clients retry.
const STORAGE_ERROR: i16 = 56;

/// Reads everything that is left and compares it with what was acknowledged.
pub(crate) async fn check(harbour: &Harbour, acked: Acked) {
    let wire = harbour.connect(99);
    let mut reader = Client { n: 99, wire, chance: World::seeded(99), answers: 0 };
    let known = reader.topics().await;
    let (mut found, mut starts) = (Acked::new(), BTreeMap::new());
    for topic in &known {
        for partition in 0..topic.partitions {
            let (mut next, mut tries) = (None, 100);
            loop {
                let from = next.unwrap_or(0);
                let asked = FetchPartition::default().with_partition(partition).with_partition_max_bytes(1 << 20);
                let one = FetchTopic::default().with_topic_id(topic.id);
                let one = one.with_partitions(vec![asked.with_fetch_offset(from)]);
                let request = FetchRequest::default().with_max_bytes(1 << 20).with_min_bytes(1).with_session_epoch(-1);
                let answer = reader.ask(16, request.with_topics(vec![one])).await;
                let data = &answer.responses[0].partitions[0];
                if data.error_code == 1 {
                    next = Some(data.log_start_offset.max(from + 1));
                    continue;
                }
                if data.error_code == STORAGE_ERROR && tries > 0 {
                    // The bucket goes on failing now and then, and clients go on asking.
                    tries -= 1;
                    continue;
                }
                assert_eq!(data.error_code, 0, "partition {partition} at {from}");
                starts.insert((topic.id, partition), data.log_start_offset);
                let values = values(data.records.as_ref());
                match values.last() {
                    Some((last, _)) => next = Some(last + 1),
                    None if data.high_watermark <= from => break,
                    // The bucket is slow; the object is on its way.
                    None => continue,
                }
                found.extend(values.into_iter().map(|(offset, value)| ((topic.id, partition, offset), value)));
            }
        }
    }
    let mut seen = 0;
    for ((id, partition, offset), value) in &acked {
        // What was deleted, with its topic or before the log's start, needs not be there.
        if starts.get(&(*id, *partition)).is_some_and(|start| offset >= start) {
            assert_eq!(found.get(&(*id, *partition, *offset)), Some(value), "partition {partition} at {offset}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} of {} acknowledged records are there", acked.len());
}
