//! What members of both protocols have in common: the coordinator, committed offsets, and reading what is assigned.
use bytes::Bytes;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetFetchRequest, OffsetFetchResponse};
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request, StrBytes};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;
use strandline::world::Instant;
use strandline_history::{Commit, End, GroupProtocol, What};

use super::client::{Client, CoordinatorOf, Lane, error_name, text, topic_name};
use super::connection::Fault;
use super::reader::{At, EARLIEST, Manner, Reader};

/// An offset, and the text that was committed with it.
pub(super) type Committed = (i64, String);

/// A member of a group, or somebody who asks about one.
pub(super) struct Membership {
    pub(super) client: Client,
    pub(super) group: String,
    pub(super) protocol: GroupProtocol,
    pub(super) instance: Option<String>,
    /// Empty before it has one.
    pub(super) id: String,
    /// Of the classic protocol the generation, of the other the member's epoch.
    pub(super) generation: i32,
    coordinator: Option<i32>,
    /// It waits for transactions that may change what is committed (KIP-447).
    pub(super) stable: bool,
    pub(super) reader: Reader,
}

const NOT_COORDINATOR: i16 = 16;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;

impl Membership {
    pub(super) fn new(client: &Client, group: &str, protocol: GroupProtocol, instance: Option<String>) -> Self {
        Self {
            client: client.clone(),
            group: group.to_owned(),
            protocol,
            instance,
            id: String::new(),
            generation: -1,
            coordinator: None,
            stable: false,
            reader: Reader::new(client, Manner::draw(client)),
        }
    }

    pub(super) fn group_id(&self) -> GroupId {
        GroupId(text(self.group.clone()))
    }

    /// Asks the coordinator; looks it up when it is not known, and again after errors.
    pub(super) async fn ask<R>(
        &mut self,
        usable: RangeInclusive<i16>,
        patience: Duration,
        make: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, Fault>
    where
        R: Request,
        R::Response: Decodable + HeaderVersion,
    {
        let node = match self.coordinator {
            Some(node) => node,
            None => self.client.find_coordinator(CoordinatorOf::Group, &self.group).await?,
        };
        self.coordinator = Some(node);
        let asked = async { self.client.node(node, Lane::Group).await?.ask_long(usable, patience, make).await };
        let answer = asked.await;
        if answer.is_err() {
            self.coordinator = None;
        }
        answer
    }

    /// Whether an error only says that another broker must be asked, or later. Then it will be.
    pub(super) fn is_moved(&mut self, code: i16) -> bool {
        let moved = matches!(code, NOT_COORDINATOR | COORDINATOR_NOT_AVAILABLE | COORDINATOR_LOAD_IN_PROGRESS);
        if moved {
            self.coordinator = None;
        }
        moved
    }

    pub(super) fn commits(&self, offsets: &BTreeMap<At, Option<Committed>>) -> Vec<Commit> {
        let commit = |(at, committed): (&At, &Option<Committed>)| {
            let (offset, metadata) = committed.clone().unzip();
            Commit { log: self.client.log_by_name(at), offset, metadata }
        };
        offsets.iter().map(commit).collect()
    }

    /// Reads what is `owned` and nothing else: what is new from the committed offset, or where it says `None` from the
    /// beginning. False if the offsets could not be got.
    pub(super) async fn read_only(&mut self, owned: &[At]) -> bool {
        for at in self.reader.assigned() {
            if !owned.contains(&at) {
                self.reader.revoke(&at);
            }
        }
        let reading = self.reader.assigned();
        let new: Vec<At> = owned.iter().filter(|at| !reading.contains(at)).cloned().collect();
        if new.is_empty() {
            return true;
        }
        let Some(committed) = self.committed(&new).await else { return false };
        for (at, committed) in committed {
            self.reader.assign(at, committed.map_or(EARLIEST, |(offset, _)| offset));
        }
        true
    }

    /// OffsetFetch of these partitions, once.
    pub(super) async fn committed(&mut self, of: &[At]) -> Option<BTreeMap<At, Option<Committed>>> {
        let now = self.client.now();
        self.committed_until(of, now).await
    }

    /// OffsetFetch of these partitions, again and again until `until`.
    pub(super) async fn committed_until(
        &mut self,
        of: &[At],
        until: Instant,
    ) -> Option<BTreeMap<At, Option<Committed>>> {
        let site = self.client.site().clone();
        let unknown: BTreeMap<At, Option<Committed>> = of.iter().map(|at| (at.clone(), None)).collect();
        let what = What::Committed { group: self.group.clone(), offsets: self.commits(&unknown) };
        let begun = site.recorder.begin(site.process, what.clone());
        loop {
            let (group, by_topic, patience) = (self.group_id(), by_topic(of), self.client.request_timeout());
            let member = (self.protocol == GroupProtocol::Consumer).then(|| (text(self.id.clone()), self.generation));
            let (stable, usable) = (self.stable, if self.stable { 7..=9 } else { 1..=9 });
            let request = |version| offset_fetch(group, by_topic, member, version).with_require_stable(stable);
            let answer = self.ask(usable, patience, request).await;
            let node = self.coordinator;
            let end = match answer.map(read_offsets) {
                Ok((0, offsets)) if offsets.len() == of.len() => {
                    let what = What::Committed { group: self.group.clone(), offsets: self.commits(&offsets) };
                    site.recorder.end(begun, node, End::Ok, what);
                    return Some(offsets);
                }
                Ok((code, _)) => {
                    self.is_moved(code);
                    End::Fail(error_name(code))
                }
                Err(fault) => End::Info(fault.why),
            };
            if self.client.now() >= until {
                site.recorder.end(begun, node, end, what);
                return None;
            }
            self.client.back_off().await;
        }
    }

    /// How often a member commits by itself; some hardly do, whose offsets are kept elsewhere.
    pub(super) fn draw_commit_interval(client: &Client) -> Duration {
        Duration::from_millis(if client.odds(4) { 120_000 } else { client.between(300, 3_000).unsigned_abs() })
    }

    /// Commits where the reader stands.
    pub(super) async fn commit_positions(&mut self) -> Option<i16> {
        let assigned = self.reader.assigned();
        let positions = assigned.into_iter().filter_map(|at| self.reader.position(&at).map(|offset| (at, offset)));
        let positions: BTreeMap<At, i64> = positions.collect();
        let (member, generation) = (self.id.clone(), self.generation);
        self.commit(&positions, &member, generation).await
    }

    /// OffsetCommit by `member` of `generation`, which may be of the past; gives the first error code, 0 where there is
    /// none, `None` where nothing was told.
    pub(super) async fn commit(&mut self, offsets: &BTreeMap<At, i64>, member: &str, generation: i32) -> Option<i16> {
        if offsets.is_empty() {
            return Some(0);
        }
        let site = self.client.site().clone();
        // No other commit has this text.
        let metadata = format!("{}/{:x}", site.process, self.client.draw(1 << 40));
        let some = offsets.iter().map(|(at, offset)| (at.clone(), Some((*offset, metadata.clone()))));
        let some: BTreeMap<At, Option<Committed>> = some.collect();
        let group = self.group.clone();
        let what = |offsets| What::Commit { group: group.clone(), member: member.to_owned(), generation, offsets };
        let begun = site.recorder.begin(site.process, what(self.commits(&some)));
        // Epochs of the new protocol came with version 9, static members with 7.
        let usable = match (self.protocol, &self.instance) {
            (GroupProtocol::Consumer, _) => 9..=9,
            (_, Some(_)) => 7..=9,
            _ => 2..=9,
        };
        let instance = self.instance.clone().map(text);
        let (id, member_id, patience) = (self.group_id(), text(member), self.client.request_timeout());
        let request = |_| {
            let request = OffsetCommitRequest::default()
                .with_group_id(id)
                .with_member_id(member_id)
                .with_generation_id_or_member_epoch(generation)
                .with_group_instance_id(instance);
            request.with_topics(commit_topics(offsets, &metadata))
        };
        let answer = self.ask(usable, patience, request).await;
        let node = self.coordinator;
        let answer = match answer {
            Ok(answer) => answer,
            Err(fault) => {
                let end = if fault.sent { End::Info(fault.why) } else { End::Fail(fault.why) };
                site.recorder.end(begun, node, end, what(self.commits(&some)));
                return None;
            }
        };
        let mut by_code: BTreeMap<i16, BTreeMap<At, Option<Committed>>> = BTreeMap::new();
        for (topic, part) in answer.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (t, p))) {
            let at = (topic.name.0.to_string(), part.partition_index);
            let committed = some.get(&at).cloned().flatten();
            by_code.entry(part.error_code).or_default().insert(at, committed);
        }
        let first = by_code.keys().next().copied();
        for (n, (code, offsets)) in by_code.into_iter().enumerate() {
            let begun = if n == 0 { begun } else { site.recorder.split(begun) };
            site.recorder.end(begun, node, commit_end(code), what(self.commits(&offsets)));
            self.is_moved(code);
        }
        first
    }

    /// One heartbeat or the like of either protocol, written down; `ask` does it and gives the error code.
    pub(super) fn heartbeat(&self) -> What {
        What::Heartbeat { group: self.group.clone(), member: self.id.clone(), generation: self.generation }
    }

    /// Writes down that it is no member any more.
    pub(super) fn left(&self, end: End) {
        let site = self.client.site();
        let what = What::Left { group: self.group.clone(), member: self.id.clone() };
        let begun = site.recorder.begin(site.process, what.clone());
        site.recorder.end(begun, self.coordinator, end, what);
    }

    pub(super) fn node(&self) -> Option<i32> {
        self.coordinator
    }

    /// What it took over, as the history has it.
    pub(super) fn took(&self, owned: &[At], by_id: bool) -> What {
        let view = self.client.view();
        let log = |at: &At| match by_id {
            true => self.client.log(&at.0, view.topics.get(&at.0).and_then(|topic| topic.id), at.1),
            false => self.client.log_by_name(at),
        };
        What::Assigned {
            group: self.group.clone(),
            member: self.id.clone(),
            instance: self.instance.clone(),
            protocol: self.protocol,
            generation: self.generation,
            logs: owned.iter().map(log).collect(),
        }
    }
}

/// A commit that timed out, or whose coordinator gave up, may be there.
fn commit_end(code: i16) -> End {
    match code {
        COORDINATOR_NOT_AVAILABLE | COORDINATOR_LOAD_IN_PROGRESS | NOT_COORDINATOR => End::Info(error_name(code)),
        code => super::admin_end(code),
    }
}

fn by_topic(of: &[At]) -> BTreeMap<String, Vec<i32>> {
    let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in of {
        topics.entry(topic.clone()).or_default().push(*partition);
    }
    topics
}

fn commit_topics(offsets: &BTreeMap<At, i64>, metadata: &str) -> Vec<OffsetCommitRequestTopic> {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for ((topic, partition), offset) in offsets {
        let one = OffsetCommitRequestPartition::default()
            .with_partition_index(*partition)
            .with_committed_offset(*offset)
            .with_committed_metadata(Some(text(metadata)));
        topics.entry(topic).or_default().push(one);
    }
    let topic = |(name, partitions)| {
        OffsetCommitRequestTopic::default().with_name(topic_name(name)).with_partitions(partitions)
    };
    topics.into_iter().map(topic).collect()
}

fn offset_fetch(
    group: GroupId,
    topics: BTreeMap<String, Vec<i32>>,
    member: Option<(StrBytes, i32)>,
    version: i16,
) -> OffsetFetchRequest {
    if version < 8 {
        let topic = |(name, partitions): (String, _)| {
            OffsetFetchRequestTopic::default().with_name(topic_name(&name)).with_partition_indexes(partitions)
        };
        let topics = topics.into_iter().map(topic).collect();
        return OffsetFetchRequest::default().with_group_id(group).with_topics(Some(topics));
    }
    let topic = |(name, partitions): (String, _)| {
        OffsetFetchRequestTopics::default().with_name(topic_name(&name)).with_partition_indexes(partitions)
    };
    let mut one = OffsetFetchRequestGroup::default().with_group_id(group);
    one.topics = Some(topics.into_iter().map(topic).collect());
    if let Some((id, epoch)) = member.filter(|_| version >= 9) {
        one = one.with_member_id(Some(id)).with_member_epoch(epoch);
    }
    OffsetFetchRequest::default().with_groups(vec![one])
}

/// The error, or the offsets.
fn read_offsets(answer: OffsetFetchResponse) -> (i16, BTreeMap<At, Option<Committed>>) {
    let (mut code, mut offsets) = (answer.error_code, BTreeMap::new());
    let mut take = |topic: &str, partition: i32, offset: i64, metadata: &Option<StrBytes>| {
        let metadata = metadata.as_ref().map(StrBytes::to_string).unwrap_or_default();
        offsets.insert((topic.to_owned(), partition), (offset >= 0).then_some((offset, metadata)));
    };
    for topic in &answer.topics {
        for part in &topic.partitions {
            take(&topic.name.0, part.partition_index, part.committed_offset, &part.metadata);
            code = if code == 0 { part.error_code } else { code };
        }
    }
    for group in &answer.groups {
        code = if code == 0 { group.error_code } else { code };
        for topic in &group.topics {
            for part in &topic.partitions {
                take(&topic.name.0, part.partition_index, part.committed_offset, &part.metadata);
                code = if code == 0 { part.error_code } else { code };
            }
        }
    }
    (code, offsets)
}

/// A list of topics with their partitions, as classic consumers write it (version 0): what a member wants, without
/// partitions, or what it gets.
pub(super) fn encode_topics(topics: &BTreeMap<String, Option<Vec<i32>>>) -> Bytes {
    let mut out = vec![0, 0];
    out.extend(i32::try_from(topics.len()).unwrap_or(0).to_be_bytes());
    for (topic, partitions) in topics {
        out.extend(i16::try_from(topic.len()).unwrap_or(0).to_be_bytes());
        out.extend(topic.as_bytes());
        if let Some(partitions) = partitions {
            out.extend(i32::try_from(partitions.len()).unwrap_or(0).to_be_bytes());
            partitions.iter().for_each(|partition| out.extend(partition.to_be_bytes()));
        }
    }
    out.extend((-1_i32).to_be_bytes());
    out.into()
}

/// Reads back what [`encode_topics`] wrote; `None` where it is cut off.
pub(super) fn decode_topics(bytes: &[u8], with_partitions: bool) -> Option<Vec<(String, Vec<i32>)>> {
    let (_, mut rest) = bytes.split_first_chunk::<2>()?;
    let number = |rest: &mut &[u8]| {
        let (number, after) = rest.split_first_chunk::<4>()?;
        *rest = after;
        Some(i32::from_be_bytes(*number))
    };
    let mut topics = Vec::new();
    for _ in 0..number(&mut rest)? {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (name, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = after;
        let mut partitions = Vec::new();
        if with_partitions {
            for _ in 0..number(&mut rest)? {
                partitions.push(number(&mut rest)?);
            }
        }
        topics.push((String::from_utf8(name.to_vec()).ok()?, partitions));
    }
    Some(topics)
}
