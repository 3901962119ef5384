//! What administrators do with groups: list, describe and delete them, commit from outside, and watch what is committed.
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, DeleteGroupsRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest,
    OffsetDeleteRequest,
};
use std::collections::BTreeMap;
use std::time::Duration;
use strandline_history::{Commit, End, GroupProtocol, What};

use super::client::{Client, STABLE, error_name, text, topic_name};
use super::membership::Membership;
use super::reader::At;
use super::{CLASSIC_GROUP, CONSUMER_GROUP, admin_end};

fn outsider(client: &Client, group: &str) -> Membership {
    Membership::new(client, group, GroupProtocol::Classic, None)
}

pub(super) async fn delete(client: &Client, group: &str) {
    let site = client.site();
    let what = What::DeleteGroup { group: group.to_owned() };
    let begun = site.recorder.begin(site.process, what.clone());
    let mut asking = outsider(client, group);
    let id = asking.group_id();
    let request = |_| DeleteGroupsRequest::default().with_groups_names(vec![id]);
    let answer = asking.ask(0..=2, client.request_timeout(), request).await;
    let end = match answer.map(|answer| answer.results.first().map(|result| result.error_code)) {
        Ok(Some(code)) => admin_end(code),
        Ok(None) => End::Info("nothing was answered".into()),
        Err(fault) if fault.sent => End::Info(fault.why),
        Err(fault) => End::Fail(fault.why),
    };
    site.recorder.end(begun, asking.node(), end, what);
}

/// OffsetDelete of one partition: the same as committing nothing.
pub(super) async fn delete_offsets(client: &Client, group: &str) {
    let (site, at) = (client.site(), (STABLE.to_owned(), 0));
    let mut asking = outsider(client, group);
    let offsets = vec![Commit { log: client.log_by_name(&at), offset: None, metadata: None }];
    let what = What::Commit { group: group.to_owned(), member: String::new(), generation: -1, offsets };
    let begun = site.recorder.begin(site.process, what.clone());
    let id = asking.group_id();
    let request = |_| {
        let part = OffsetDeleteRequestPartition::default().with_partition_index(0);
        let topic = OffsetDeleteRequestTopic::default().with_name(topic_name(STABLE)).with_partitions(vec![part]);
        OffsetDeleteRequest::default().with_group_id(id).with_topics(vec![topic])
    };
    let answer = asking.ask(0..=0, client.request_timeout(), request).await;
    let end = match answer {
        Ok(answer) if answer.error_code != 0 => admin_end(answer.error_code),
        Ok(answer) => match answer.topics.first().and_then(|topic| topic.partitions.first()) {
            Some(part) => admin_end(part.error_code),
            None => End::Info("nothing was answered".into()),
        },
        Err(fault) if fault.sent => End::Info(fault.why),
        Err(fault) => End::Fail(fault.why),
    };
    site.recorder.end(begun, asking.node(), end, what);
}

/// A commit by nobody, which only a group without members takes.
pub(super) async fn commit_from_outside(client: &Client, group: &str) {
    let at: At = (STABLE.to_owned(), 0);
    let offset = client.between(0, 100);
    outsider(client, group).commit(&BTreeMap::from([(at, offset)]), "", -1).await;
}

/// Asks for the committed offsets of all groups again and again, as exporters of lag do, until clients stop or `life` is
/// over. It keeps to a coordinator as long as that answers.
pub(super) async fn watch(client: &Client, life: Duration) {
    let end = client.now() + life;
    client.await_topics().await;
    let pause_ms = 50 + client.draw(200);
    let mut groups = [CLASSIC_GROUP, CONSUMER_GROUP].map(|group| outsider(client, group));
    while client.now() < end && !client.is_stopping() {
        for group in &mut groups {
            group.committed(&[(STABLE.to_owned(), 0), (STABLE.to_owned(), 1)]).await;
        }
        client.sleep_ms(pause_ms).await;
    }
}

/// Lists all groups and describes one; what comes of it only has to be well-formed.
pub(super) async fn list(client: &Client, group: &str) {
    let site = client.site();
    let what = What::Note(format!("groups listed, {group} described"));
    let begun = site.recorder.begin(site.process, what.clone());
    let listed = client.ask_any(0..=5, |_| ListGroupsRequest::default()).await;
    let mut asking = outsider(client, group);
    let (id, patience) = (GroupId(text(group)), client.request_timeout());
    let described = if client.odds(2) {
        let request = |_| DescribeGroupsRequest::default().with_groups(vec![id]);
        let answer = asking.ask(0..=6, patience, request).await;
        answer.map(|answer| answer.groups.first().map_or(-1, |group| group.error_code))
    } else {
        let request = |_| ConsumerGroupDescribeRequest::default().with_group_ids(vec![id]);
        let answer = asking.ask(0..=1, patience, request).await;
        answer.map(|answer| answer.groups.first().map_or(-1, |group| group.error_code))
    };
    let end = match (listed, described) {
        (Ok(listed), Ok(0)) if listed.error_code == 0 => End::Ok,
        (Ok(listed), Ok(code)) => End::Info(error_name(if listed.error_code == 0 { code } else { listed.error_code })),
        (Err(fault), _) | (_, Err(fault)) => End::Info(fault.why),
    };
    site.recorder.end(begun, None, end, what);
}
