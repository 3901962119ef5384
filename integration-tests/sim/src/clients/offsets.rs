//! ListOffsets, as one operation of the history.
use kafka_protocol::messages::ListOffsetsRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use strandline::world::Instant;
use strandline_history::{End, What};

use super::client::{Client, Lane, error_name, topic_name};
use super::connection::Fault;
use super::reader::At;

/// The offset of `at` for a timestamp, asked of its leader; `None` where it was not told.
pub(super) async fn list_offset(client: &Client, at: &At, timestamp: i64) -> Option<i64> {
    let leader = client.view().topics.get(&at.0).and_then(|topic| topic.leaders.get(&at.1).copied());
    match leader {
        Some(leader) => list_offset_of(client, client.route(leader.node), at, timestamp).await,
        None => {
            client.want_refresh();
            None
        }
    }
}

/// As above, asked of broker `node`.
pub(super) async fn list_offset_of(client: &Client, node: i32, at: &At, timestamp: i64) -> Option<i64> {
    let site = client.site();
    let log = client.log_by_name(at);
    let what = |offset, found_timestamp| What::ListOffsets { log: log.clone(), timestamp, offset, found_timestamp };
    let begun = site.recorder.begin(site.process, what(-1, -1));
    let (end, offset, found_timestamp) = match ask(client, node, at, timestamp).await {
        Ok((0, offset, found)) => (End::Ok, offset, found),
        Ok((code, ..)) => (End::Fail(error_name(code)), -1, -1),
        Err(fault) => (End::Info(fault.why), -1, -1),
    };
    let is_ok = end == End::Ok;
    if !is_ok {
        client.want_refresh();
    }
    site.recorder.end(begun, Some(node), end, what(offset, found_timestamp));
    (is_ok && offset >= 0).then_some(offset)
}

/// The offset for a timestamp, asked again and again until `until`; then the operation stays without an end. -1, where no
/// record is that late, is an answer too.
pub(super) async fn list_offset_until(client: &Client, at: &At, timestamp: i64, until: Instant) -> Option<i64> {
    let site = client.site();
    let log = client.log_by_name(at);
    let what = |offset, found_timestamp| What::ListOffsets { log: log.clone(), timestamp, offset, found_timestamp };
    let begun = site.recorder.begin(site.process, what(-1, -1));
    while client.now() < until {
        let leader = client.view().topics.get(&at.0).and_then(|topic| topic.leaders.get(&at.1).copied());
        if let Some(leader) = leader
            && let Ok((0, offset, found)) = ask(client, leader.node, at, timestamp).await
        {
            site.recorder.end(begun, Some(leader.node), End::Ok, what(offset, found));
            return Some(offset);
        }
        client.back_off().await;
        client.refresh().await;
    }
    None
}

async fn ask(client: &Client, node: i32, at: &At, timestamp: i64) -> Result<(i16, i64, i64), Fault> {
    let connection = client.node(node, Lane::Data).await?;
    // -3 came with version 7.
    let usable = if timestamp == -3 { 7..=10 } else { 1..=10 };
    let answer = connection
        .ask(usable, |_| {
            let one = ListOffsetsPartition::default().with_partition_index(at.1).with_timestamp(timestamp);
            let topic = ListOffsetsTopic::default().with_name(topic_name(&at.0)).with_partitions(vec![one]);
            ListOffsetsRequest::default().with_topics(vec![topic])
        })
        .await?;
    let answered = answer.topics.first().and_then(|topic| topic.partitions.first());
    let answered = answered.map(|answered| (answered.error_code, answered.offset, answered.timestamp));
    answered.ok_or_else(|| Fault { sent: true, why: "ListOffsets answers nothing".into() })
}
