//! The final phase: fresh clients without faults read everything that is there, from each broker, and write once more.
//! Each operation is tried again until it is well; one that never is stays without an end.
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{FetchRequest, InitProducerIdRequest, MetadataResponse, ProduceRequest};
use std::time::Duration;
use strandline::config::HostPort;
use strandline::records::Codec;
use strandline::types::Uuid;
use strandline_history::{End, GroupProtocol, Value, What};
use tokio::sync::watch;

use super::client::{
    COPIES, Client, FLEETING, LEDGER, Lane, TABLES, Topic, all_topics, error_name, is_lasting, read_metadata,
    topic_name,
};
use super::membership::Membership;
use super::offsets;
use super::reader::{At, EARLIEST, LATEST};
use super::records::{self, Aborts, Form, Numbered};
use super::{CHAIN_GROUP, CLASSIC_GROUP, CONSUMER_GROUP, admin, classic, consumer_group};
use crate::Site;

/// Numbers of clients in this phase begin here.
const PROCESSES: u32 = 1_000_000;
/// Of one answer. What is there comes in it whatever its limits are, if only a batch.
const BYTES_MAX: i32 = 1 << 20;
const ALL: How = How { read_committed: false, bytes_max: BYTES_MAX };
/// How long one operation may be tried.
const PATIENCE: Duration = Duration::from_secs(60);
const MAX_TIMESTAMP: i64 = -3;
const OFFSET_OUT_OF_RANGE: i16 = 1;
/// How often the beginning of a log may go while it is read.
const EXPIRED_MAX: u32 = 50;

/// How a log is read.
#[derive(Clone, Copy)]
struct How {
    read_committed: bool,
    bytes_max: i32,
}

/// See the module.
pub(super) async fn run(site: &Site) {
    let (_stop, stopping) = watch::channel(false);
    let client = |n: u32| {
        let site = Site { process: PROCESSES + n, ..site.clone() };
        Client::new(&site, site.run, stopping.clone())
    };
    let mut readers = Vec::new();
    for (n, address) in (0..).zip(&site.bootstrap) {
        let reader = client(n);
        reader.await_topics().await;
        let Some(topics) = describe(&reader, address).await else { continue };
        readers.push((reader, topics));
    }
    let Some((first, topics)) = readers.first() else { return };
    let (mut ends, all) = (Vec::new(), partitions(topics));
    // One of them in the smallest bites.
    let slowly = first.pick(&all).map(|(at, _)| at.clone());
    for (at, topic) in all {
        for timestamp in [MAX_TIMESTAMP, first.site().world.wall_ms().0 - first.between(0, 60_000)] {
            list(first, &at, timestamp).await;
        }
        let node = topic.leaders[&at.1].node;
        let how = How { read_committed: false, bytes_max: if slowly.as_ref() == Some(&at) { 1 } else { BYTES_MAX } };
        ends.push((at.clone(), topic, read_log(first, node, &at, topic.id, None, how).await));
        if [LEDGER, COPIES, TABLES].contains(&at.0.as_str()) {
            read_log(first, node, &at, topic.id, None, How { read_committed: true, ..how }).await;
        }
    }
    for (reader, topics) in readers.iter().skip(1) {
        read_once(reader, topics).await;
    }
    // Some may have been left with a setting that nothing is small enough for.
    for (name, _) in topics {
        let until = first.now() + PATIENCE;
        while !admin::set(first, name, "max.message.bytes", "2000000").await && first.now() < until {
            first.back_off().await;
        }
    }
    write_once(&client(100), first, ends).await;
    for (n, group) in (200..).zip([CHAIN_GROUP, CLASSIC_GROUP, CONSUMER_GROUP]) {
        group_once(&client(n), group, topics).await;
    }
}

/// Asks for all that a group has committed, and takes a place in it and leaves again.
async fn group_once(client: &Client, group: &str, topics: &[(String, Topic)]) {
    client.await_topics().await;
    let until = client.now() + PATIENCE;
    let all: Vec<At> = partitions(topics).into_iter().map(|(at, _)| at).collect();
    Membership::new(client, group, GroupProtocol::Classic, None).committed_until(&all, until).await;
    match group {
        CONSUMER_GROUP => consumer_group::join_once(client, group, until).await,
        _ => classic::join_once(client, group, until).await,
    };
}

fn partitions(topics: &[(String, Topic)]) -> Vec<(At, &Topic)> {
    let of = |(name, topic): &(String, Topic)| topic.leaders.keys().map(|p| (name.clone(), *p)).collect::<Vec<_>>();
    topics.iter().flat_map(|topic| of(topic).into_iter().map(move |at| (at, &topic.1))).collect()
}

/// Reads one partition of the broker that `reader` began with, as that one sees it: one that it leads, if any.
async fn read_once(reader: &Client, topics: &[(String, Topic)]) {
    let Some((node, _)) = reader.view().brokers.into_iter().find(|(_, address)| *address == reader.site().bootstrap[0])
    else {
        return;
    };
    let all = partitions(topics);
    let led: Vec<_> = all.iter().filter(|(at, topic)| topic.leaders[&at.1].node == node).collect();
    let Some((at, topic)) = reader.pick(&led).copied().or_else(|| all.first()) else { return };
    let node = if led.is_empty() { topic.leaders[&at.1].node } else { node };
    read_log(reader, node, at, topic.id, None, How { read_committed: true, ..ALL }).await;
}

/// What the broker at `address` says that there is, each topic as one operation.
async fn describe(client: &Client, address: &HostPort) -> Option<Vec<(String, Topic)>> {
    let site = client.site();
    let until = client.now() + PATIENCE;
    let what = |topic: &str, found| What::Describe { topic: topic.to_owned(), found };
    let begun = site.recorder.begin(site.process, what("", None));
    let answer: MetadataResponse = loop {
        // Versions that tell ids.
        let asked = async { client.connect(address, Lane::Data).await?.ask(10..=13, all_topics).await };
        match asked.await {
            Ok(answer) if answer.topics.iter().all(|topic| topic.error_code == 0) => break answer,
            _ if client.now() > until => return None,
            _ => client.back_off().await,
        }
    };
    site.recorder.forget(begun);
    let (_, topics) = read_metadata(answer);
    for (name, topic) in &topics {
        let begun = site.recorder.begin(site.process, what(name, None));
        let id = topic.id.map(|id| id.to_string()).unwrap_or_default();
        let partitions = i32::try_from(topic.leaders.len()).unwrap_or(0);
        site.recorder.end(begun, None, End::Ok, what(name, Some((id, partitions))));
    }
    Some(topics.into_iter().collect())
}

async fn list(client: &Client, at: &At, timestamp: i64) -> Option<i64> {
    offsets::list_offset_until(client, at, timestamp, client.now() + PATIENCE).await
}

/// Reads from `from`, or the log's start, to its end; gives the end.
async fn read_log(client: &Client, node: i32, at: &At, id: Option<Uuid>, from: Option<i64>, how: How) -> Option<i64> {
    let asked = from;
    let end = list(client, at, LATEST).await?;
    let mut tries = 0;
    loop {
        let mut from = match asked {
            Some(from) => from,
            None => list(client, at, EARLIEST).await?,
        };
        let position_of = 1_000 + client.draw(1 << 40);
        while from < end {
            match poll(client, node, at, id, from, position_of, how).await {
                Some(next) => from = next,
                // What was about to be read has gone by its time.
                None if at.0 == FLEETING && asked.is_none() && tries < EXPIRED_MAX => break,
                None => return None,
            }
        }
        if from >= end {
            return Some(from);
        }
        tries += 1;
    }
}

/// One fetch that brings something, tried until it does.
async fn poll(
    client: &Client,
    mut node: i32,
    at: &At,
    id: Option<Uuid>,
    from: i64,
    position_of: u64,
    how: How,
) -> Option<i64> {
    let How { read_committed, .. } = how;
    let site = client.site();
    let empty = What::Poll {
        log: client.log_by_name(at),
        position_of,
        from,
        next: from,
        records: Vec::new(),
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        read_committed,
    };
    let begun = site.recorder.begin(site.process, empty);
    let until = client.now() + PATIENCE;
    loop {
        let mut log = client.log_by_name(at);
        let asked = async {
            // What is read by name soon after a deletion may be of the topic before it: it would say nothing.
            // Older versions do not tell the log start, without which nobody knows that this is the beginning.
            let usable = if is_lasting(&at.0) { 5..=18 } else { 13..=18 };
            let request = |version| {
                if version >= 13 {
                    log = client.log(&at.0, id, at.1);
                }
                fetch(at, id, from, how)
            };
            client.node(node, Lane::Data).await?.ask(usable, request).await
        };
        let answer = asked.await.ok();
        let data = answer.as_ref().and_then(|answer| answer.responses.first()?.partitions.first());
        if let Some(data) = data.filter(|data| data.error_code == 0) {
            let aborts = read_committed.then(|| Aborts::of(data));
            let got = records::read(&data.records.clone().unwrap_or_default(), &log, site.run, from, aborts);
            let next = got.next.filter(|next| *next > from);
            // One that never comes on is written down with why.
            if let Some(next) = next.or((client.now() > until).then_some(from)) {
                let what = What::Poll {
                    log,
                    position_of,
                    from,
                    next,
                    records: got.records,
                    high_watermark: data.high_watermark,
                    last_stable_offset: data.last_stable_offset,
                    log_start_offset: data.log_start_offset,
                    read_committed,
                };
                site.recorder.end(begun, Some(node), End::Ok, what);
                return (next > from).then_some(next);
            }
        }
        let gone = data.filter(|data| at.0 == FLEETING && data.error_code == OFFSET_OUT_OF_RANGE);
        if let Some(data) = gone {
            let end = End::Fail(error_name(data.error_code));
            let (high_watermark, next, records) = (data.high_watermark, from, Vec::new());
            let (last_stable_offset, log_start_offset) = (data.last_stable_offset, data.log_start_offset);
            let what = What::Poll {
                log,
                position_of,
                from,
                next,
                records,
                high_watermark,
                last_stable_offset,
                log_start_offset,
                read_committed,
            };
            site.recorder.end(begun, Some(node), end, what);
            return None;
        }
        if client.now() > until {
            return None;
        }
        client.back_off().await;
        client.refresh().await;
        node = client.view().topics.get(&at.0).and_then(|topic| topic.leaders.get(&at.1)).map_or(node, |l| l.node);
    }
}

fn fetch(at: &At, id: Option<Uuid>, from: i64, how: How) -> FetchRequest {
    let one = FetchPartition::default().with_partition(at.1).with_fetch_offset(from);
    let one = one.with_partition_max_bytes(how.bytes_max);
    let topic = FetchTopic::default().with_topic(topic_name(&at.0)).with_topic_id(id.unwrap_or_default());
    FetchRequest::default()
        .with_max_wait_ms(100)
        .with_min_bytes(1)
        .with_max_bytes(how.bytes_max)
        .with_session_epoch(-1)
        .with_isolation_level(i8::from(how.read_committed))
        .with_topics(vec![topic.with_partitions(vec![one])])
}

/// A fresh producer writes one batch to each partition, and what it wrote is read.
async fn write_once(writer: &Client, reader: &Client, logs: Vec<(At, &Topic, Option<i64>)>) {
    writer.await_topics().await;
    let Some((producer, epoch)) = init(writer).await else { return };
    for (counter, (at, topic, end)) in (1..).zip(logs) {
        if write(writer, &at, topic, counter, (producer, epoch, 0)).await.is_some() && end.is_some() {
            let node = topic.leaders[&at.1].node;
            read_log(reader, node, &at, topic.id, end, ALL).await;
        }
    }
}

async fn init(client: &Client) -> Option<(i64, i16)> {
    let (site, until) = (client.site(), client.now() + PATIENCE);
    let what = |producer_id, epoch| What::InitProducer { transactional_id: None, producer_id, epoch, timeout_ms: -1 };
    let begun = site.recorder.begin(site.process, what(-1, -1));
    while client.now() < until {
        let request =
            |_| InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(1_000);
        if let Ok(answer) = client.ask_any(0..=5, request).await
            && answer.error_code == 0
        {
            let (id, epoch) = (answer.producer_id.0, answer.producer_epoch);
            site.recorder.end(begun, None, End::Ok, what(id, epoch));
            return Some((id, epoch));
        }
        client.back_off().await;
    }
    None
}

async fn write(client: &Client, at: &At, topic: &Topic, counter: u64, numbered: Numbered) -> Option<i64> {
    let (site, until) = (client.site(), client.now() + PATIENCE);
    let timestamp_ms = site.world.wall_ms().0;
    let (run, process, topic_name_of, partition) = (site.run, site.process, at.0.clone(), at.1);
    let value =
        Value { run, process, counter, topic: topic_name_of, partition, timestamp_ms, source: None, deletes: false };
    let values = vec![value];
    let batch = records::make(&values, Form { codec: Codec::None, bytes_min: 0 }, Some(numbered));
    let transaction = None;
    let what = |log, offset| What::Send { log, values: values.clone(), once: true, acked: true, offset, transaction };
    let begun = site.recorder.begin(site.process, what(client.log_by_name(at), None));
    // By id it proves which topic has the name now.
    let usable = if is_lasting(&at.0) { 3..=13 } else { 13..=13 };
    while client.now() < until {
        let mut log = client.log_by_name(at);
        let asked = async {
            let node =
                client.view().topics.get(&at.0).and_then(|topic| topic.leaders.get(&at.1)).map_or(-1, |l| l.node);
            let connection = client.node(node, Lane::Data).await?;
            let answer = connection.ask(usable.clone(), |version| {
                if version >= 13 {
                    log = client.log(&at.0, topic.id, at.1);
                }
                let data = PartitionProduceData::default().with_index(at.1).with_records(Some(batch.clone()));
                let data = TopicProduceData::default().with_name(topic_name(&at.0)).with_partition_data(vec![data]);
                let data = data.with_topic_id(topic.id.unwrap_or_default());
                ProduceRequest::default().with_acks(-1).with_timeout_ms(5_000).with_topic_data(vec![data])
            });
            answer.await.map(|answer| (node, answer))
        };
        if let Ok((node, answer)) = asked.await
            && let Some(part) = answer.responses.first().and_then(|topic| topic.partition_responses.first())
            && part.error_code == 0
        {
            let offset = (part.base_offset >= 0).then_some(part.base_offset);
            site.recorder.end(begun, Some(node), End::Ok, what(log, offset));
            return Some(part.base_offset);
        }
        client.back_off().await;
        client.refresh().await;
    }
    None
}
