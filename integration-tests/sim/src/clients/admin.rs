//! Administrators: topics made, grown, deleted and made again, records deleted, settings changed, and questions about
//! all that there is and is not.
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{
    CreatePartitionsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    DescribeTopicPartitionsRequest, IncrementalAlterConfigsRequest, MetadataRequest, OffsetForLeaderEpochRequest,
};
use std::time::Duration;
use strandline::types::Uuid;
use strandline_history::{End, What};

use super::client::{Client, LEDGER, Lane, STABLE, VOLATILE, error_name, text, topic_name};
use super::connection::Fault;
use super::reader::At;
use super::{CLASSIC_GROUP, CONSUMER_GROUP, admin_end, group_admin, offsets, topics};

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const TOPIC: i8 = 2;
const PATIENCE_MS: i32 = 5_000;
/// DescribeConfigs' word for a setting of the topic itself.
const OF_THE_TOPIC: i8 = 1;
/// Settings that change nothing that clients see.
const SETTINGS: [&str; 3] = ["retention.ms", "segment.bytes", "max.message.bytes"];

/// One life: until clients stop or `life` is over.
pub(super) async fn run(client: Client, life: Duration) {
    let end = client.now() + life;
    client.await_topics().await;
    let (pause_ms, volatile) = (100 + client.draw(600), 1 + client.draw(3));
    while client.now() < end && !client.is_stopping() {
        client.sleep_ms(client.draw(2 * pause_ms)).await;
        client.refresh_if_due();
        turn(&client, &format!("{VOLATILE}{}", client.draw(volatile))).await;
    }
}

async fn turn(client: &Client, volatile: &str) {
    let partitions = i32::try_from(client.between(1, 4)).unwrap_or(1);
    let name = if client.odds(3) { STABLE } else { volatile };
    let looked_at = if client.odds(4) { LEDGER } else { name };
    let group = if client.odds(2) { CLASSIC_GROUP } else { CONSUMER_GROUP };
    match client.draw(32) {
        0..=4 => {
            let created = topics::create(client, volatile, partitions).await;
            // Another broker may not have heard of it.
            if created == Some(0) && client.odds(2) {
                describe(client, volatile).await;
            }
        }
        5 => delete(client, volatile).await,
        6 | 7 => grow(client, name).await,
        8..=10 => delete_records(client, looked_at).await,
        11..=13 => alter(client, name).await,
        14 | 15 => describe_config(client, name).await,
        16..=20 => list(client, looked_at).await,
        21 | 22 => epoch_end(client, looked_at).await,
        23..=25 => describe(client, name).await,
        26 | 27 => describe_partitions(client, looked_at).await,
        28 => group_admin::delete(client, group).await,
        29 => group_admin::delete_offsets(client, group).await,
        30 => group_admin::list(client, group).await,
        _ => group_admin::commit_from_outside(client, group).await,
    }
}

/// How a change ended: by its error, or by whether it may have been done without an answer.
fn change(asked: Result<Option<i16>, Fault>) -> End {
    match asked {
        Ok(Some(code)) => admin_end(code),
        Ok(None) => End::Info("nothing was answered".into()),
        Err(fault) if fault.sent => End::Info(fault.why),
        Err(fault) => End::Fail(fault.why),
    }
}

fn some_partition(client: &Client, name: &str) -> Option<At> {
    let partitions: Vec<i32> = client.view().topics.get(name)?.leaders.keys().copied().collect();
    Some((name.to_owned(), *client.pick(&partitions)?))
}

async fn delete(client: &Client, name: &str) {
    let site = client.site();
    let known = client.view().topics.get(name).and_then(|topic| topic.id);
    // By id only from version 6 on; then nothing else can be hit.
    let by_id = known.filter(|_| client.odds(2));
    let what = |id: Option<Uuid>| What::DeleteTopic { topic: name.to_owned(), id: id.map(|id| id.to_string()) };
    let begun = site.recorder.begin(site.process, what(by_id));
    let request = |version: i16| {
        let request = DeleteTopicsRequest::default().with_timeout_ms(PATIENCE_MS);
        match by_id {
            _ if version < 6 => request.with_topic_names(vec![topic_name(name)]),
            Some(id) => request.with_topics(vec![DeleteTopicState::default().with_name(None).with_topic_id(id)]),
            None => request.with_topics(vec![DeleteTopicState::default().with_name(Some(topic_name(name)))]),
        }
    };
    let answer = client.ask_any(if by_id.is_some() { 6..=6 } else { 1..=6 }, request).await;
    let result = answer.as_ref().ok().and_then(|answer| answer.responses.first());
    let id = result.map(|result| result.topic_id).filter(|id| !id.is_nil()).or(by_id);
    let end = change(answer.map(|answer| answer.responses.first().map(|result| result.error_code)));
    site.recorder.end(begun, None, end, what(id));
    client.want_refresh();
}

async fn grow(client: &Client, name: &str) {
    let site = client.site();
    let now = client.view().topics.get(name).map_or(0, |topic| topic.leaders.len());
    let limit = if name == STABLE { 6 } else { 8 };
    let count = i32::try_from(now).unwrap_or(0).saturating_add(i32::from(client.odds(2)));
    if count > limit {
        return;
    }
    let what = What::Grow { topic: name.to_owned(), partitions: count };
    let begun = site.recorder.begin(site.process, what.clone());
    let one = CreatePartitionsTopic::default().with_name(topic_name(name)).with_count(count).with_assignments(None);
    let request = |_| CreatePartitionsRequest::default().with_topics(vec![one]).with_timeout_ms(PATIENCE_MS);
    let answer = client.ask_any(0..=3, request).await;
    let end = change(answer.map(|answer| answer.results.first().map(|result| result.error_code)));
    site.recorder.end(begun, None, end, what);
    client.want_refresh();
}

async fn delete_records(client: &Client, name: &str) {
    let (site, view) = (client.site(), client.view());
    let Some(at) = some_partition(client, name) else { return };
    let node = client.route(view.topics[name].leaders[&at.1].node);
    // -1 is all that there is; seldom, since then there is nothing left to look at.
    let before = if client.odds(15) { -1 } else { client.between(0, 40) };
    let what = |low_watermark| What::DeleteRecords { log: client.log_by_name(&at), before, low_watermark };
    let begun = site.recorder.begin(site.process, what(-1));
    let asked = async {
        let one = DeleteRecordsPartition::default().with_partition_index(at.1).with_offset(before);
        let topic = DeleteRecordsTopic::default().with_name(topic_name(name)).with_partitions(vec![one]);
        let request = |_| DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(PATIENCE_MS);
        client.node(node, Lane::Data).await?.ask(0..=2, request).await
    };
    let answer = asked.await;
    let part = |answer: &kafka_protocol::messages::DeleteRecordsResponse| {
        let part = answer.topics.first()?.partitions.first()?;
        Some((part.error_code, part.low_watermark))
    };
    let low = answer.as_ref().ok().and_then(part).map_or(-1, |(_, low)| low);
    let end = change(answer.map(|answer| part(&answer).map(|(code, _)| code)));
    site.recorder.end(begun, Some(node), end, what(low));
}

async fn alter(client: &Client, name: &str) {
    let key = *client.pick(&SETTINGS).expect("there are some");
    // Where not everything depends on it, no batch is small enough for a while.
    let tiny = key == "max.message.bytes" && name != STABLE && client.odds(2);
    let value = if tiny { 10 } else { 2_000_000 + client.draw(100_000_000) };
    set(client, name, key, &value.to_string()).await;
}

/// Changes one setting of a topic; says whether it was answered well.
pub(super) async fn set(client: &Client, name: &str, key: &str, value: &str) -> bool {
    let site = client.site();
    let what = What::AlterConfig { name: name.to_owned(), key: key.to_owned(), value: value.to_owned() };
    let begun = site.recorder.begin(site.process, what.clone());
    let config = AlterableConfig::default().with_name(text(key)).with_value(Some(text(value)));
    let resource = AlterConfigsResource::default().with_resource_type(TOPIC).with_resource_name(text(name));
    let request = |_| {
        let resources = vec![resource.with_configs(vec![config])];
        IncrementalAlterConfigsRequest::default().with_resources(resources)
    };
    let (node, address) = client.any_broker();
    let asked = async { client.connect(&address, Lane::Data).await?.ask(0..=1, request).await };
    let end = change(asked.await.map(|answer| answer.responses.first().map(|response| response.error_code)));
    let is_ok = end == End::Ok;
    site.recorder.end(begun, node, end, what);
    is_ok
}

async fn describe_config(client: &Client, name: &str) {
    let site = client.site();
    let what = |values| What::DescribeConfig { name: name.to_owned(), values };
    let begun = site.recorder.begin(site.process, what(Default::default()));
    let resource = DescribeConfigsResource::default().with_resource_type(TOPIC).with_resource_name(text(name));
    let request = |_| DescribeConfigsRequest::default().with_resources(vec![resource.with_configuration_keys(None)]);
    let answer = client.ask_any(1..=4, request).await;
    let values = answer.as_ref().ok().and_then(|answer| answer.results.first()).map(|result| {
        let own = result.configs.iter().filter(|config| config.config_source == OF_THE_TOPIC);
        own.filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.to_string()))).collect()
    });
    let end = match answer.map(|answer| answer.results.first().map(|result| result.error_code)) {
        Ok(Some(0)) => End::Ok,
        Ok(code) => End::Fail(error_name(code.unwrap_or(-1))),
        Err(fault) => End::Info(fault.why),
    };
    site.recorder.end(begun, None, end, what(values.unwrap_or_default()));
}

async fn list(client: &Client, name: &str) {
    let wall = client.site().world.wall_ms().0;
    let timestamp = *client.pick(&[-1, -2, -3, wall - client.between(0, 30_000)]).expect("there are some");
    if let Some(at) = some_partition(client, name) {
        offsets::list_offset(client, &at, timestamp).await;
    }
}

async fn epoch_end(client: &Client, name: &str) {
    let (site, view) = (client.site(), client.view());
    let Some(at) = some_partition(client, name) else { return };
    let leader = view.topics[name].leaders[&at.1];
    let node = client.route(leader.node);
    let epoch = if client.odds(4) { leader.epoch + 1 } else { leader.epoch.max(0) };
    let what = |end_offset| What::EpochEnd { log: client.log_by_name(&at), epoch, end_offset };
    let begun = site.recorder.begin(site.process, what(-1));
    let asked = async {
        let one = OffsetForLeaderPartition::default().with_partition(at.1).with_leader_epoch(epoch);
        let topic = OffsetForLeaderTopic::default().with_topic(topic_name(name)).with_partitions(vec![one]);
        let request = |version| {
            let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
            if version >= 3 { request.with_replica_id((-1).into()) } else { request }
        };
        client.node(node, Lane::Data).await?.ask(2..=4, request).await
    };
    let (end, offset) = match asked.await {
        Ok(answer) => match answer.topics.first().and_then(|topic| topic.partitions.first()) {
            Some(part) if part.error_code == 0 => (End::Ok, part.end_offset),
            Some(part) => (End::Fail(error_name(part.error_code)), -1),
            None => (End::Info("nothing was answered".into()), -1),
        },
        Err(fault) => (End::Info(fault.why), -1),
    };
    site.recorder.end(begun, Some(node), end, what(offset));
}

/// Metadata of one topic, which may not be there; it must not be made by asking.
async fn describe(client: &Client, name: &str) {
    let site = client.site();
    let what = |found| What::Describe { topic: name.to_owned(), found };
    let begun = site.recorder.begin(site.process, what(None));
    let request = |_| {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false)
    };
    let (end, found) = match client.ask_any(4..=13, request).await {
        Ok(answer) => match answer.topics.first() {
            Some(topic) => found(topic.error_code, topic.topic_id, topic.partitions.len()),
            None => (End::Info("nothing was answered".into()), None),
        },
        Err(fault) => (End::Info(fault.why), None),
    };
    site.recorder.end(begun, None, end, what(found));
}

async fn describe_partitions(client: &Client, name: &str) {
    let site = client.site();
    let what = |found| What::Describe { topic: name.to_owned(), found };
    let begun = site.recorder.begin(site.process, what(None));
    let request = |_| {
        let topics = vec![TopicRequest::default().with_name(topic_name(name))];
        DescribeTopicPartitionsRequest::default().with_topics(topics).with_response_partition_limit(100)
    };
    let (end, found) = match client.ask_any(0..=0, request).await {
        Ok(answer) => match answer.topics.first() {
            Some(topic) => found(topic.error_code, topic.topic_id, topic.partitions.len()),
            None => (End::Info("nothing was answered".into()), None),
        },
        Err(fault) => (End::Info(fault.why), None),
    };
    site.recorder.end(begun, None, end, what(found));
}

/// What an answer says of a topic. That there is none is an answer too.
fn found(code: i16, id: Uuid, partitions: usize) -> (End, Option<(String, i32)>) {
    let id = if id.is_nil() { String::new() } else { id.to_string() };
    match code {
        0 => (End::Ok, Some((id, i32::try_from(partitions).unwrap_or(0)))),
        UNKNOWN_TOPIC_OR_PARTITION => (End::Ok, None),
        code => (End::Fail(error_name(code)), None),
    }
}
