//! A group's machine beside a State that its changes are applied to, in virtual time.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::config::{Config, KafkaSettings};
use crate::group::machine::{Action, Event, Machine, Members, RequestId};
use crate::group::message::*;
use crate::group::router::GroupSettings;
use crate::state::*;
use crate::types::*;

mod assignors;
mod churn;
mod heartbeats;
mod limits;
mod migration;
mod patterns;

/// The group, the State that it is in, and a clock.
struct Bench {
    state: State,
    machine: Machine,
    settings: GroupSettings,
    now: Instant,
    wall_ms: i64,
    counter: u64,
    /// Commands that the machine gave out since it was last asked for.
    changes: Vec<ChangeGroup>,
    replies: BTreeMap<u64, Answer>,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| ())
    }

    /// With these settings; assignments are not spaced unless they say so.
    fn with(change: impl FnOnce(&mut KafkaSettings)) -> Self {
        let mut kafka = Config::default().kafka;
        kafka.group_consumer_assignment_interval_ms = 0;
        change(&mut kafka);
        let settings = GroupSettings { kafka, id_bytes_max: 100 };
        let state = State::default();
        let now = Instant::now();
        let machine = Machine::load(Arc::from("g"), view(&state, &settings, now, 0, 0));
        let (counter, changes, replies) = (0, Vec::new(), BTreeMap::new());
        let mut bench = Self { state, machine, settings, now, wall_ms: 1_000_000, counter, changes, replies };
        let limits = Settings {
            topics_max: 100_000,
            partitions_max: 1_000_000,
            partitions_per_topic_max: 1_000_000,
            snapshots_min: 1,
            groups_max: 10,
            group_offsets_max: 10_000,
            group_bytes_max: 1 << 30,
            ..Settings::default()
        };
        bench.apply(Bootstrap { cluster_id: "c".into(), settings: limits });
        bench.apply(RegisterBroker { broker: 1, incarnation: 5, feature_level_max: 1 });
        bench
    }

    fn apply(&mut self, command: impl Into<Command>) {
        self.counter += 1;
        let entry = Entry {
            feature_level: 1,
            broker: 1,
            incarnation: 5,
            counter: self.counter,
            token: self.counter,
            commands: vec![command.into()],
            ..Entry::default()
        };
        let outcomes = self.state.apply(self.state.head().position.next(), &entry);
        assert_eq!(outcomes, [Outcome::Done]);
    }

    fn topic(&mut self, name: &str, partitions: u32) -> TopicId {
        let id = Uuid::from_u128(u128::from(self.counter) + 1);
        let bytes = Bytes::copy_from_slice(id.as_bytes());
        self.apply(CreateTopic { name: name.into(), id: bytes, partitions, replication_factor: 1, configs: vec![] });
        TopicId(id)
    }

    fn grow(&mut self, name: &str, partitions: u32) {
        let topic = self.state.topic_by_name(name).expect("it exists");
        let topic_id = Bytes::copy_from_slice(topic.id.0.as_bytes());
        self.apply(CreatePartitions { topic_id, count: partitions });
    }

    fn delete(&mut self, name: &str) {
        let topic = self.state.topic_by_name(name).expect("it exists");
        let topic_id = Bytes::copy_from_slice(topic.id.0.as_bytes());
        self.apply(DeleteTopic { topic_id });
    }

    fn config(&mut self, name: &str, value: &str) {
        let change = ConfigChange { name: name.into(), value: Some(value.into()) };
        self.apply(AlterGroupConfigs { group: "g".into(), changes: vec![change] });
    }

    fn event(&mut self, event: Event) {
        let random = u128::from(self.counter) << 64 | 77;
        let view = view(&self.state, &self.settings, self.now, self.wall_ms, random);
        for action in self.machine.on(event, view) {
            match action {
                Action::Reply(id, answer) => drop(self.replies.insert(id.0, answer)),
                Action::Change(change) => {
                    use prost::Message;
                    assert!(change.encoded_len() < 3 << 20, "a change of {} bytes", change.encoded_len());
                    self.changes.push(change.clone());
                    self.apply(change);
                }
                Action::DeleteGroup(delete) => self.apply(delete),
                Action::Commit(id, _) => drop(self.replies.insert(id.0, Ok(Reply::Committed(Vec::new())))),
                Action::DeleteOffsets(_) => {}
            }
        }
    }

    fn ask(&mut self, request: Request) -> Answer {
        self.counter += 1;
        let id = self.counter;
        self.event(Event::Request(RequestId(id), request));
        self.replies.remove(&id).expect("an answer at once")
    }

    fn beat(&mut self, beat: Beat) -> Result<ConsumerHeartbeatReply, GroupError> {
        self.ask(Request::ConsumerHeartbeat(beat.0)).map(|reply| match reply {
            Reply::ConsumerHeartbeat(reply) => reply,
            other => panic!("{other:?}"),
        })
    }

    fn ok(&mut self, beat: Beat) -> ConsumerHeartbeatReply {
        self.beat(beat).expect("accepted")
    }

    fn error(&mut self, beat: Beat) -> (KafkaError, String) {
        let error = self.beat(beat).expect_err("refused");
        (error.error, error.message.unwrap_or_default())
    }

    /// Lets the time pass, with all that is due in it.
    fn pass_ms(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        while let Some(at) = self.machine.deadline().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.event(Event::Elapsed);
        }
        self.now = until;
        self.wall_ms += i64::try_from(ms).unwrap();
    }

    /// The coordinator dies, and another goes on.
    fn crash(&mut self) {
        let view = view(&self.state, &self.settings, self.now, self.wall_ms, 0);
        self.machine = Machine::load(Arc::from("g"), view);
    }

    fn group(&self) -> &ConsumerGroup {
        match &self.machine.members {
            Members::Consumer(group) => group,
            Members::Classic(_) => panic!("a classic group"),
        }
    }

    fn taken_changes(&mut self) -> usize {
        std::mem::take(&mut self.changes).len()
    }

    fn commit(&mut self, member: &str, epoch: i32, topic: TopicId, partition: usize) -> Result<(), KafkaError> {
        let slot = self.state.topic(topic).expect("it exists").slots[partition];
        let identity = Identity { member_id: member.into(), instance_id: None, generation: epoch };
        let offsets = vec![OffsetSpec { slot: slot.0, offset: 1, leader_epoch: -1, metadata: String::new() }];
        let answer = self.ask(Request::Commit(CommitRequest { identity, offsets, ..CommitRequest::default() }));
        answer.map(drop).map_err(|e| e.error)
    }
}

fn view<'a>(state: &'a State, settings: &'a GroupSettings, now: Instant, wall_ms: i64, random: u128) -> View<'a> {
    View { now, wall_ms: TimestampMs(wall_ms), state, settings, random }
}

/// A heartbeat.
#[derive(Clone)]
struct Beat(ConsumerHeartbeat);

/// One that joins with these topics.
fn join(member: &str, topics: &[&str]) -> Beat {
    beat(member, 0).topics(topics).owned(&[]).timeout(60_000)
}

fn beat(member: &str, epoch: i32) -> Beat {
    let rebalance_timeout_ms = -1;
    Beat(ConsumerHeartbeat {
        member_id: member.into(),
        member_epoch: epoch,
        rebalance_timeout_ms,
        ..ConsumerHeartbeat::default()
    })
}

impl Beat {
    fn topics(mut self, topics: &[&str]) -> Self {
        self.0.subscribed_topics = Some(topics.iter().map(ToString::to_string).collect());
        self
    }

    fn regex(mut self, regex: &str) -> Self {
        self.0.subscribed_regex = Some(regex.into());
        self
    }

    fn no_topics(mut self) -> Self {
        self.0.subscribed_topics = None;
        self
    }

    fn owned(mut self, owned: &[(TopicId, &[i32])]) -> Self {
        let each = |(topic, partitions): &(TopicId, &[i32])| OwnedPartitions {
            topic: *topic,
            partitions: partitions.to_vec(),
        };
        self.0.owned = Some(owned.iter().map(each).collect());
        self
    }

    fn timeout(mut self, ms: i32) -> Self {
        self.0.rebalance_timeout_ms = ms;
        self
    }

    fn instance(mut self, id: &str) -> Self {
        self.0.instance_id = Some(id.into());
        self
    }

    fn assignor(mut self, name: &str) -> Self {
        self.0.assignor = Some(name.into());
        self
    }
}

/// The partitions of an answer, of the one topic that it has.
fn partitions(reply: &ConsumerHeartbeatReply) -> Option<Vec<i32>> {
    let assignment = reply.assignment.as_ref()?;
    assert!(assignment.len() <= 1, "{assignment:?}");
    Some(assignment.first().map(|t| t.partitions.clone()).unwrap_or_default())
}
