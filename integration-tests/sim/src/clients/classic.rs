//! Members of the classic protocol: join, sync, heartbeat, commit, leave, or go without a word. Everything is given back
//! before each join (eager), and the leader shares out by range.
use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;
use strandline::world::Instant;
use strandline_history::{End, GroupProtocol};

use super::client::{Client, STABLE, VOLATILE, View, error_name, text};
use super::membership::{Membership, decode_topics, encode_topics};
use super::reader::At;

const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER_ID: i16 = 25;
const REBALANCE_IN_PROGRESS: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;
const ASSIGNOR: &str = "range";

/// A member and how it is set up.
pub(super) struct Classic {
    pub(super) member: Membership,
    /// Its offsets are committed by others than it.
    pub(super) commits_itself: bool,
    topics: Vec<String>,
    session: Duration,
    rebalance: Duration,
    commit_every: Duration,
    /// Of the partitions of its topics, how many it knew of when it shared them out; `None` where another does that.
    shared_out: Option<usize>,
}

/// Why a member does not go on as it is.
pub(super) enum Over {
    /// It is to join again.
    Rejoin,
    /// Its time is over, or it is not wanted.
    Ended,
}

/// One life: until clients stop, or `life` is over; then it leaves, or vanishes.
pub(super) async fn run(client: Client, group: &str, instance: Option<String>, life: Duration) {
    let end = client.now() + life;
    client.await_topics().await;
    let mut classic = Classic::new(&client, group, instance);
    while let Some(owned) = classic.join(end).await {
        if classic.work(&owned, end).await {
            break;
        }
    }
    classic.go(end).await;
}

/// Joins and gets an assignment, and leaves again: whether all of it went well before `until`.
pub(super) async fn join_once(client: &Client, group: &str, until: Instant) -> bool {
    let mut classic = Classic::new(client, group, None);
    let joined = classic.join(until).await.is_some();
    if joined {
        classic.leave().await;
    }
    joined
}

impl Classic {
    fn new(client: &Client, group: &str, instance: Option<String>) -> Self {
        let mut topics = vec![STABLE.to_owned()];
        if client.odds(3) {
            topics.push(format!("{VOLATILE}0"));
        }
        Self::of(client, group, instance, topics)
    }

    /// One that wants those topics.
    pub(super) fn of(client: &Client, group: &str, instance: Option<String>, topics: Vec<String>) -> Self {
        let member = Membership::new(client, group, GroupProtocol::Classic, instance);
        let ms = |from, to| Duration::from_millis(from + client.draw(to - from));
        Self {
            member,
            commits_itself: true,
            topics,
            session: ms(2_000, 8_000),
            rebalance: ms(2_000, 8_000),
            commit_every: Membership::draw_commit_interval(client),
            shared_out: None,
        }
    }

    /// Static members need versions that know them.
    fn usable(&self, static_min: i16, max: i16) -> RangeInclusive<i16> {
        if self.member.instance.is_some() { static_min..=max } else { 0..=max }
    }

    /// Joins until there is an assignment; `None` when its time is over or the group does not want it.
    pub(super) async fn join(&mut self, end: Instant) -> Option<Vec<At>> {
        let client = self.member.client.clone();
        let site = client.site().clone();
        let nothing = self.member.took(&[], false);
        let begun = site.recorder.begin(site.process, nothing);
        while client.now() < end && !client.is_stopping() {
            match self.join_and_sync().await {
                Ok(owned) => {
                    let what = self.member.took(&owned, false);
                    site.recorder.end(begun, self.member.node(), End::Ok, what);
                    return Some(owned);
                }
                Err(None) => client.back_off().await,
                Err(Some(code)) => match code {
                    UNKNOWN_MEMBER_ID => self.member.id = String::new(),
                    MEMBER_ID_REQUIRED => {}
                    REBALANCE_IN_PROGRESS | ILLEGAL_GENERATION => client.back_off().await,
                    code if self.member.is_moved(code) => client.back_off().await,
                    code => {
                        let what = self.member.took(&[], false);
                        site.recorder.end(begun, self.member.node(), End::Fail(error_name(code)), what);
                        return None;
                    }
                },
            }
        }
        site.recorder.end(begun, None, End::Info("gave up".into()), self.member.took(&[], false));
        None
    }

    /// One round. An error is a code, or nothing where nothing was answered.
    async fn join_and_sync(&mut self) -> Result<Vec<At>, Option<i16>> {
        let usable = self.usable(5, 9);
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text(ASSIGNOR))
            .with_metadata(encode_topics(&self.topics.iter().map(|topic| (topic.clone(), None)).collect()));
        let (group, id, instance) = (self.member.group_id(), text(self.member.id.clone()), self.instance());
        let (session, rebalance) = (millis(self.session), millis(self.rebalance));
        let patience = self.session.max(self.rebalance) + Duration::from_secs(5);
        let request = |version| {
            let request = JoinGroupRequest::default()
                .with_group_id(group)
                .with_session_timeout_ms(session)
                .with_member_id(id)
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol])
                .with_group_instance_id(instance);
            if version >= 1 { request.with_rebalance_timeout_ms(rebalance) } else { request }
        };
        let joined = self.member.ask(usable, patience, request).await.map_err(|_| None)?;
        if joined.error_code == 0 || joined.error_code == MEMBER_ID_REQUIRED {
            self.member.id = joined.member_id.to_string();
        }
        if joined.error_code != 0 {
            return Err(Some(joined.error_code));
        }
        self.member.generation = joined.generation_id;
        let (leads, view) = (joined.leader == joined.member_id, self.member.client.view());
        self.shared_out = leads.then(|| self.count_partitions(&view));
        let shares = if leads { share_out(&joined, &view) } else { vec![] };
        let usable = self.usable(3, 5);
        let (group, id, instance) = (self.member.group_id(), text(self.member.id.clone()), self.instance());
        let generation = self.member.generation;
        let request = |version| {
            let request = SyncGroupRequest::default()
                .with_group_id(group)
                .with_generation_id(generation)
                .with_member_id(id)
                .with_group_instance_id(instance)
                .with_assignments(shares);
            match version {
                5.. => request.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text(ASSIGNOR))),
                _ => request,
            }
        };
        let synced = self.member.ask(usable, patience, request).await.map_err(|_| None)?;
        if synced.error_code != 0 {
            return Err(Some(synced.error_code));
        }
        Ok(read_share(&synced.assignment))
    }

    /// Reads, heartbeats and commits until it has to join again, or (true) its time is over.
    async fn work(&mut self, owned: &[At], end: Instant) -> bool {
        let client = self.member.client.clone();
        let beat = self.beat_every();
        let (mut next_beat, mut next_commit) = (client.now() + beat, client.now() + self.commit_every);
        let mut reading = self.member.read_only(owned).await;
        loop {
            let now = client.now();
            if now >= end || client.is_stopping() {
                return true;
            }
            // Who shares out does so again when there is more, or less.
            if self.shared_out.is_some_and(|count| count != self.count_partitions(&client.view())) {
                self.commit().await;
                self.let_go();
                return false;
            }
            if !reading {
                reading = self.member.read_only(owned).await;
            }
            if now >= next_beat {
                next_beat = now + beat;
                if let Some(over) = self.beat().await {
                    return matches!(over, Over::Ended);
                }
            }
            if now >= next_commit {
                next_commit = now + self.commit_every;
                self.commit().await;
                // A commit of an older generation, as one makes that was away for too long.
                if client.odds(20) {
                    self.commit_stale().await;
                }
            }
            let patience = next_beat.min(next_commit).saturating_duration_since(client.now());
            self.member.reader.turn(patience.max(Duration::from_millis(1))).await;
        }
    }

    pub(super) fn beat_every(&self) -> Duration {
        self.session / 4
    }

    async fn commit(&mut self) {
        if self.commits_itself {
            self.member.commit_positions().await;
        }
    }

    fn count_partitions(&self, view: &View) -> usize {
        self.topics.iter().filter_map(|topic| view.topics.get(topic)).map(|topic| topic.leaders.len()).sum()
    }

    pub(super) async fn beat(&mut self) -> Option<Over> {
        let site = self.member.client.site().clone();
        let begun = site.recorder.begin(site.process, self.member.heartbeat());
        let usable = self.usable(3, 4);
        let (group, id, instance) = (self.member.group_id(), text(self.member.id.clone()), self.instance());
        let (generation, patience) = (self.member.generation, self.member.client.request_timeout());
        let request = |_| {
            let request = HeartbeatRequest::default().with_group_id(group).with_generation_id(generation);
            request.with_member_id(id).with_group_instance_id(instance)
        };
        let answer = self.member.ask(usable, patience, request).await;
        let end = match &answer {
            Ok(answer) if answer.error_code == 0 => End::Ok,
            Ok(answer) => End::Fail(error_name(answer.error_code)),
            Err(fault) => End::Info(fault.why.clone()),
        };
        site.recorder.end(begun, self.member.node(), end, self.member.heartbeat());
        match answer.map(|answer| answer.error_code) {
            Ok(REBALANCE_IN_PROGRESS) => {
                self.commit().await;
                self.let_go();
                Some(Over::Rejoin)
            }
            Ok(ILLEGAL_GENERATION) => {
                self.let_go();
                Some(Over::Rejoin)
            }
            Ok(UNKNOWN_MEMBER_ID) => {
                self.member.left(End::Ok);
                if self.member.client.odds(2) {
                    self.commit().await;
                }
                self.member.id = String::new();
                self.let_go();
                Some(Over::Rejoin)
            }
            Ok(code) if code == 0 || self.member.is_moved(code) => None,
            Ok(_) => Some(Over::Ended),
            Err(_) => None,
        }
    }

    async fn commit_stale(&mut self) {
        let Some(at) = self.member.reader.assigned().first().cloned() else { return };
        let (id, generation) = (self.member.id.clone(), self.member.generation - 1);
        let offset = self.member.client.between(0, 50);
        self.member.commit(&BTreeMap::from([(at, offset)]), &id, generation).await;
    }

    pub(super) fn let_go(&mut self) {
        self.member.reader.assigned().iter().for_each(|at| self.member.reader.revoke(at));
    }

    /// Leaves; one whose time was over may as well vanish, and commit later as if it were still there.
    async fn go(&mut self, end: Instant) {
        let client = self.member.client.clone();
        if self.member.id.is_empty() {
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

    pub(super) async fn leave(&mut self) {
        let patience = self.member.client.request_timeout();
        let usable = self.usable(3, 5);
        let (group, id, instance) = (self.member.group_id(), text(self.member.id.clone()), self.instance());
        let request = |version| {
            if version < 3 {
                return LeaveGroupRequest::default().with_group_id(group).with_member_id(id);
            }
            let member = MemberIdentity::default().with_member_id(id).with_group_instance_id(instance);
            LeaveGroupRequest::default().with_group_id(group).with_members(vec![member])
        };
        let answer = self.member.ask(usable, patience, request).await;
        let end = match answer {
            Ok(answer) if answer.error_code == 0 && answer.members.iter().all(|m| m.error_code == 0) => End::Ok,
            Ok(answer) => End::Info(error_name(answer.error_code)),
            Err(fault) => End::Info(fault.why),
        };
        self.member.left(end);
    }

    fn instance(&self) -> Option<kafka_protocol::protocol::StrBytes> {
        self.member.instance.clone().map(text)
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// Each topic's partitions in even ranges, to the members that want it, by their ids.
fn share_out(joined: &JoinGroupResponse, view: &View) -> Vec<SyncGroupRequestAssignment> {
    let wants = joined.members.iter().map(|member| {
        let topics = decode_topics(&member.metadata, false).unwrap_or_default();
        (member.member_id.clone(), topics.into_iter().map(|(topic, _)| topic).collect::<BTreeSet<_>>())
    });
    let wants: BTreeMap<_, _> = wants.collect();
    let mut shares: BTreeMap<_, BTreeMap<String, Option<Vec<i32>>>> =
        wants.keys().map(|member| (member.clone(), BTreeMap::new())).collect();
    let topics: BTreeSet<&String> = wants.values().flatten().collect();
    for topic in topics {
        let members: Vec<_> =
            wants.iter().filter(|(_, topics)| topics.contains(topic)).map(|(member, _)| member).collect();
        let partitions: Vec<i32> =
            view.topics.get(topic).into_iter().flat_map(|topic| topic.leaders.keys().copied()).collect();
        for (n, member) in members.iter().enumerate() {
            let (from, to) = (n * partitions.len() / members.len(), (n + 1) * partitions.len() / members.len());
            if let Some(share) = shares.get_mut(*member).filter(|_| from < to) {
                share.insert(topic.clone(), Some(partitions[from..to].to_vec()));
            }
        }
    }
    let share = |(member, topics)| {
        SyncGroupRequestAssignment::default().with_member_id(member).with_assignment(encode_topics(&topics))
    };
    shares.into_iter().map(share).collect()
}

fn read_share(assignment: &Bytes) -> Vec<At> {
    let topics = decode_topics(assignment, true).unwrap_or_default();
    topics.into_iter().flat_map(|(topic, partitions)| partitions.into_iter().map(move |p| (topic.clone(), p))).collect()
}
