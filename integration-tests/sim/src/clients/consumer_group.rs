//! Members of the consumer protocol (KIP-848): one heartbeat carries everything, the broker shares out, and a member
//! gives back before it says so.
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use std::collections::BTreeMap;
use std::time::Duration;
use strandline::types::Uuid;
use strandline::world::Instant;
use strandline_history::{End, GroupProtocol};

use super::client::{Client, STABLE, VOLATILE, error_name, text, topic_name};
use super::connection::Fault;
use super::membership::Membership;
use super::reader::At;
use crate::recorder::Begun;

/// How an assignment ends of which a part has no name yet.
pub const UNNAMED: &str = "a topic has no name";
const UNKNOWN_MEMBER_ID: i16 = 25;
const FENCED_MEMBER_EPOCH: i16 = 110;
const UNRELEASED_INSTANCE_ID: i16 = 111;
const LEAVE: i32 = -1;
const LEAVE_FOR_NOW: i32 = -2;

/// A member and how it is set up.
struct Consumer {
    member: Membership,
    topics: Vec<String>,
    rebalance: Duration,
    commit_every: Duration,
    /// What it has, by the topics' ids.
    owned: BTreeMap<Uuid, Vec<i32>>,
    /// The same by name, and whether all of it is being read.
    reads: Vec<At>,
    /// What it had at which epoch, since it joined.
    past: Vec<(i32, Vec<At>)>,
    reading: bool,
    /// The broker has to hear everything: what it has changed, or it may not know.
    tell_all: bool,
    /// The beginning of what will be its next assignment.
    joining: Option<Begun>,
}

/// One life: until clients stop, or `life` is over; then it leaves, or vanishes.
pub(super) async fn run(client: Client, group: &str, instance: Option<String>, life: Duration) {
    let end = client.now() + life;
    client.await_topics().await;
    let mut consumer = Consumer::new(&client, group, instance);
    let mut next_beat = client.now();
    let mut next_commit = next_beat + consumer.commit_every;
    while client.now() < end && !client.is_stopping() {
        let now = client.now();
        if now >= next_beat {
            let Some(interval) = consumer.beat().await else { break };
            next_beat = client.now() + interval;
        }
        if now >= next_commit {
            next_commit = now + consumer.commit_every;
            consumer.commit().await;
        }
        if !consumer.reading {
            let reads = consumer.reads.clone();
            consumer.reading = consumer.member.read_only(&reads).await;
        }
        let patience = next_beat.min(next_commit).saturating_duration_since(client.now());
        consumer.member.reader.turn(patience.max(Duration::from_millis(1))).await;
    }
    consumer.go(end).await;
}

/// Joins and gets an assignment, and leaves again: whether all of it went well before `until`.
pub(super) async fn join_once(client: &Client, group: &str, until: Instant) -> bool {
    let mut consumer = Consumer::new(client, group, None);
    let mut joined = false;
    while client.now() < until && !joined {
        if consumer.beat().await.is_none() {
            return false;
        }
        joined = consumer.joining.is_none();
        client.back_off().await;
    }
    if joined {
        consumer.leave().await;
    } else {
        consumer.give_up();
    }
    joined
}

impl Consumer {
    fn new(client: &Client, group: &str, instance: Option<String>) -> Self {
        let mut member = Membership::new(client, group, GroupProtocol::Consumer, instance);
        (member.id, member.generation) = (client.random_uuid().to_string(), 0);
        let mut topics = vec![STABLE.to_owned()];
        if client.odds(3) {
            topics.push(format!("{VOLATILE}0"));
        }
        let ms = |from, to| Duration::from_millis(from + client.draw(to - from));
        let (rebalance, commit_every) = (ms(2_000, 8_000), Membership::draw_commit_interval(client));
        let (owned, reads, past) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self {
            member,
            topics,
            rebalance,
            commit_every,
            owned,
            reads,
            past,
            reading: true,
            tell_all: true,
            joining: None,
        }
    }

    /// One heartbeat; gives the time until the next, `None` where the group does not want it.
    async fn beat(&mut self) -> Option<Duration> {
        let client = self.member.client.clone();
        let site = client.site().clone();
        let retry = client.retry_backoff();
        let begun = if self.member.generation == 0 {
            let nothing = self.member.took(&[], true);
            self.joining.get_or_insert_with(|| site.recorder.begin(site.process, nothing));
            None
        } else {
            Some(site.recorder.begin(site.process, self.member.heartbeat()))
        };
        let asked = self.member.heartbeat();
        let answer = self.ask(self.member.generation).await;
        if let Some(begun) = begun {
            let end = match &answer {
                Ok(answer) if answer.error_code == 0 => End::Ok,
                Ok(answer) => End::Fail(error_name(answer.error_code)),
                Err(fault) => End::Info(fault.why.clone()),
            };
            site.recorder.end(begun, self.member.node(), end, asked);
        }
        let Ok(answer) = answer else {
            self.tell_all = true;
            return Some(retry);
        };
        match answer.error_code {
            0 => {
                self.tell_all = false;
                self.member.generation = answer.member_epoch;
                if let Some(id) = answer.member_id.filter(|id| !id.is_empty()) {
                    self.member.id = id.to_string();
                }
                let interval = u64::try_from(answer.heartbeat_interval_ms).unwrap_or(1_000).clamp(50, 5_000);
                match answer.assignment {
                    Some(assignment) => {
                        let target = assignment.topic_partitions.into_iter().map(|t| (t.topic_id, t.partitions));
                        self.reconcile(target.collect()).await;
                        Some(Duration::from_millis(1))
                    }
                    None => Some(Duration::from_millis(interval)),
                }
            }
            FENCED_MEMBER_EPOCH | UNKNOWN_MEMBER_ID => {
                if let Some(begun) = self.joining.take() {
                    let what = self.member.took(&[], true);
                    site.recorder.end(begun, self.member.node(), End::Fail(error_name(answer.error_code)), what);
                } else {
                    self.member.left(End::Ok);
                    // As one commits that does not know yet.
                    if client.odds(3) {
                        self.commit().await;
                    }
                }
                self.member.reader.assigned().iter().for_each(|at| self.member.reader.revoke(at));
                (self.member.generation, self.tell_all) = (0, true);
                self.owned.clear();
                self.reads.clear();
                self.past.clear();
                Some(retry)
            }
            UNRELEASED_INSTANCE_ID => Some(retry),
            code if self.member.is_moved(code) => {
                self.tell_all = true;
                Some(retry)
            }
            code if super::is_retriable(code) => Some(retry),
            code => {
                if let Some(begun) = self.joining.take() {
                    let what = self.member.took(&[], true);
                    site.recorder.end(begun, self.member.node(), End::Fail(error_name(code)), what);
                }
                None
            }
        }
    }

    /// Gives back what is not in `target` any more, then takes what is new; the next heartbeat says so.
    async fn reconcile(&mut self, target: BTreeMap<Uuid, Vec<i32>>) {
        let site = self.member.client.site().clone();
        if target == self.owned && self.joining.is_none() {
            return;
        }
        self.member.client.refresh_if_due();
        let names: BTreeMap<Uuid, String> = {
            let view = self.member.client.view();
            view.topics.into_iter().filter_map(|(name, topic)| Some((topic.id?, name))).collect()
        };
        // What has no name yet is not read, and nobody may conclude that it was not given.
        let all_named = target.keys().all(|id| names.contains_key(id));
        if !all_named {
            self.member.client.want_refresh();
        }
        let owned: Vec<At> = target
            .iter()
            .filter_map(|(id, partitions)| Some((names.get(id)?, partitions)))
            .flat_map(|(name, partitions)| partitions.iter().map(move |p| (name.clone(), *p)))
            .collect();
        if self.joining.is_none() {
            self.commit().await;
        }
        let nothing = self.member.took(&[], true);
        let begun = self.joining.take().unwrap_or_else(|| site.recorder.begin(site.process, nothing));
        for at in self.member.reader.assigned().iter().filter(|at| !owned.contains(at)) {
            self.member.reader.revoke(at);
        }
        self.owned = target;
        self.tell_all = true;
        let what = self.member.took(&owned, true);
        let end = if all_named { End::Ok } else { End::Info(UNNAMED.into()) };
        site.recorder.end(begun, self.member.node(), end, what);
        self.reading = self.member.read_only(&owned).await;
        if all_named {
            self.past.push((self.member.generation, owned.clone()));
        }
        self.reads = owned;
    }

    async fn commit(&mut self) {
        if self.member.generation <= 0 {
            return;
        }
        self.member.commit_positions().await;
        if self.member.client.odds(8)
            && let Some((at, epoch)) = self.stale()
        {
            let (id, offset) = (self.member.id.clone(), self.member.client.between(0, 50));
            self.member.commit(&BTreeMap::from([(at, offset)]), &id, epoch).await;
        }
    }

    /// A partition and an epoch that it did not have it at yet, if there is such a thing.
    fn stale(&self) -> Option<(At, i32)> {
        let at = self.member.client.pick(&self.reads)?;
        let (without, _) = self.past.iter().rev().find(|(_, had)| !had.contains(at))?;
        (*without > 1).then(|| (at.clone(), without - 1))
    }

    async fn ask(&mut self, epoch: i32) -> Result<ConsumerGroupHeartbeatResponse, Fault> {
        let mut request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(self.member.group_id())
            .with_member_id(text(self.member.id.clone()))
            .with_member_epoch(epoch)
            .with_instance_id(self.member.instance.clone().map(text));
        request.rebalance_timeout_ms = -1;
        if epoch >= 0 && self.tell_all {
            let owned = self.owned.iter().map(|(id, partitions)| {
                TopicPartitions::default().with_topic_id(*id).with_partitions(partitions.clone())
            });
            request.topic_partitions = Some(owned.collect());
            request.rebalance_timeout_ms = i32::try_from(self.rebalance.as_millis()).unwrap_or(i32::MAX);
            request.subscribed_topic_names = Some(self.topics.iter().map(|topic| topic_name(topic)).collect());
        }
        let patience = self.member.client.request_timeout();
        self.member.ask(0..=1, patience, |_| request).await
    }

    async fn go(&mut self, end: Instant) {
        let client = self.member.client.clone();
        self.give_up();
        if self.member.generation <= 0 {
            return;
        }
        self.commit().await;
        if client.now() >= end && client.odds(3) {
            self.member.left(End::Info("went without a word".into()));
            client.sleep_ms(client.draw(12_000)).await;
            self.commit().await;
            return;
        }
        self.leave().await;
    }

    /// Does not wait for an assignment any more.
    fn give_up(&mut self) {
        if let Some(begun) = self.joining.take() {
            let what = self.member.took(&[], true);
            self.member.client.site().recorder.end(begun, None, End::Info("the client gave up".into()), what);
        }
    }

    async fn leave(&mut self) {
        // A static member that will come back keeps its place.
        let epoch = if self.member.instance.is_some() { LEAVE_FOR_NOW } else { LEAVE };
        let end = match self.ask(epoch).await {
            Ok(answer) if answer.error_code == 0 => End::Ok,
            Ok(answer) => End::Info(error_name(answer.error_code)),
            Err(fault) => End::Info(fault.why),
        };
        self.member.left(end);
    }
}
