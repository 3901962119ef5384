//! A group in virtual time, for tests: the machine, and a State that takes what the machine gives out. After every event
//! a machine that is loaded from State must know the same stable group.
use bytes::{BufMut, Bytes};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::group::machine::{Action, Event, Machine, Members, Phase, RequestId, View};
use crate::group::message::*;
use crate::group::router::GroupSettings;
use crate::state::*;
use crate::types::{KafkaError, TimestampMs};
use crate::world::{Instant, World};

pub(super) struct Rig {
    pub machine: Machine,
    pub state: State,
    pub settings: GroupSettings,
    pub answers: BTreeMap<RequestId, Answer>,
    /// Changes of the group that were given out.
    pub changes: usize,
    pub start: Instant,
    pub now: Instant,
    next_request: u64,
    counter: u64,
    /// Of the last check against State.
    checked: (usize, Phase),
}

pub(super) const GROUP: &str = "g";

/// What a consumer says that it is subscribed to.
pub(super) fn subscription(topics: &[&str]) -> Bytes {
    let mut out = Vec::new();
    out.put_i16(1);
    out.put_i32(topics.len() as i32);
    for topic in topics {
        out.put_i16(topic.len() as i16);
        out.put_slice(topic.as_bytes());
    }
    out.put_i32(-1);
    out.put_i32(0);
    out.into()
}

/// A consumer of topic `t` with session time-out 10 s and rebalance time-out 60 s.
pub(super) fn consumer(member_id: &str) -> JoinGroup {
    JoinGroup {
        member_id: member_id.into(),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), subscription(&["t"]))],
        ..JoinGroup::default()
    }
}

pub(super) fn fixed(instance: &str, member_id: &str) -> JoinGroup {
    JoinGroup { instance_id: Some(instance.into()), skip_assignment: true, ..consumer(member_id) }
}

pub(super) fn identity(member_id: &str, generation: i32) -> Identity {
    Identity { member_id: member_id.into(), instance_id: None, generation }
}

impl Rig {
    /// `settings` are lines of the configuration's section `kafka`.
    pub(super) fn new(settings: &[&str]) -> Self {
        let lines: String = settings.iter().map(|line| format!("  {line}\n")).collect();
        let section = if lines.is_empty() { String::new() } else { format!("kafka:\n{lines}") };
        let config = Config::from_yaml(&format!("data_dir: /nowhere\n{section}")).unwrap();
        let settings = GroupSettings { kafka: config.kafka.clone(), id_bytes_max: 128 };
        let now = World::seeded(1).now();
        let mut state = State::default();
        let limits =
            Settings { groups_max: 10, group_offsets_max: 100, group_bytes_max: 64 << 20, ..Settings::default() };
        let found = Bootstrap { cluster_id: "c".into(), settings: limits };
        let register = RegisterBroker { broker: 1, incarnation: 5, feature_level_max: 1 };
        let entry = Entry { feature_level: 1, broker: 1, incarnation: 5, counter: 1, token: 1, ..Entry::default() };
        state.apply(state.head().position.next(), &Entry { commands: vec![found.into(), register.into()], ..entry });
        let machine = load(&state, &settings, now);
        Self {
            machine,
            state,
            settings,
            answers: BTreeMap::new(),
            changes: 0,
            start: now,
            now,
            next_request: 0,
            counter: 1,
            checked: (0, Phase::Empty),
        }
    }

    pub(super) fn ask(&mut self, request: Request) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.event(Event::Request(id, request));
        id
    }

    /// As [`Rig::ask`], where the checks of so many members would take minutes.
    pub(super) fn ask_unchecked(&mut self, request: Request) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.carry_out(Event::Request(id, request));
        id
    }

    pub(super) fn join(&mut self, join: JoinGroup) -> RequestId {
        self.ask(Request::Join(join))
    }

    /// The answer to a request that is to have one by now.
    pub(super) fn take(&mut self, id: RequestId) -> Answer {
        self.answers.remove(&id).expect("it was answered")
    }

    pub(super) fn now_answered(&mut self, request: Request) -> Answer {
        let id = self.ask(request);
        self.take(id)
    }

    pub(super) fn joined(&mut self, id: RequestId) -> JoinReply {
        match self.take(id) {
            Ok(Reply::Join(reply)) => reply,
            other => panic!("not joined: {other:?}"),
        }
    }

    pub(super) fn assigned(&mut self, id: RequestId) -> Bytes {
        match self.take(id) {
            Ok(Reply::Sync(reply)) => reply.assignment,
            other => panic!("not assigned: {other:?}"),
        }
    }

    pub(super) fn error(&mut self, id: RequestId) -> KafkaError {
        self.take(id).expect_err("it was refused").error
    }

    pub(super) fn is_waiting(&self, id: RequestId) -> bool {
        !self.answers.contains_key(&id)
    }

    pub(super) fn sync(&mut self, identity: Identity, assignments: &[(&str, &'static str)]) -> RequestId {
        let assignments =
            assignments.iter().map(|(m, a)| ((*m).to_owned(), Bytes::from_static(a.as_bytes()))).collect();
        self.ask(Request::Sync(SyncGroup { identity, assignments, ..SyncGroup::default() }))
    }

    pub(super) fn heartbeat(&mut self, identity: Identity) -> Result<(), KafkaError> {
        self.now_answered(Request::Heartbeat(identity)).map(|_| ()).map_err(|e| e.error)
    }

    pub(super) fn commit(&mut self, identity: Identity) -> Result<(), KafkaError> {
        let commit = CommitRequest { identity, ..CommitRequest::default() };
        self.now_answered(Request::Commit(commit)).map(|_| ()).map_err(|e| e.error)
    }

    pub(super) fn leave(&mut self, leaving: &[(&str, Option<&str>)]) -> Vec<Option<KafkaError>> {
        let each = |(id, instance): &(&str, Option<&str>)| LeavingMember {
            member_id: (*id).into(),
            instance_id: instance.map(str::to_owned),
        };
        match self.now_answered(Request::Leave(leaving.iter().map(each).collect())) {
            Ok(Reply::Leave(reply)) => reply.members.into_iter().map(|(_, error)| error).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Time passes; what is due on the way happens when it is due.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(due) = self.machine.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.event(Event::Elapsed);
            assert!(self.machine.deadline() != Some(due) || due > self.now, "it was told and is still due");
        }
        self.now = end;
    }

    /// The broker is killed: what waits is never answered, and the group is loaded from State.
    pub(super) fn crash(&mut self) {
        self.machine = load(&self.state, &self.settings, self.now);
    }

    pub(super) fn phase(&self) -> Phase {
        self.machine.phase()
    }

    pub(super) fn described(&mut self) -> Description {
        match self.now_answered(Request::Describe) {
            Ok(Reply::Described(description)) => *description,
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, event: Event) {
        self.carry_out(event);
        self.check();
    }

    fn carry_out(&mut self, event: Event) {
        let random = u128::from(self.next_request).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let wall_ms = TimestampMs((self.now - self.start).as_millis() as i64);
        let view = View { now: self.now, wall_ms, state: &self.state, settings: &self.settings, random };
        for action in self.machine.on(event, view) {
            match action {
                Action::Reply(id, answer) => self.answer(id, answer),
                Action::Change(change) => {
                    self.changes += 1;
                    let outcome = self.apply(change.into());
                    assert_eq!(outcome, Outcome::Done);
                }
                Action::Commit(id, offsets) => {
                    let outcome = self.apply(CommitOffsets { groups: vec![offsets] }.into());
                    assert!(matches!(outcome, Outcome::Offsets(_)), "{outcome:?}");
                    self.answer(id, Ok(Reply::Committed(Vec::new())));
                }
                Action::DeleteOffsets(delete) => drop(self.apply(delete.into())),
                Action::DeleteGroup(delete) => drop(self.apply(delete.into())),
            }
        }
    }

    fn answer(&mut self, id: RequestId, answer: Answer) {
        let before = self.answers.insert(id, answer);
        assert_eq!(before, None, "a request is answered once");
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.counter += 1;
        let entry = Entry {
            feature_level: 1,
            broker: 1,
            incarnation: 5,
            counter: self.counter,
            token: self.counter,
            commands: vec![command],
            ..Entry::default()
        };
        self.state.apply(self.state.head().position.next(), &entry).remove(0)
    }

    /// What always holds.
    fn check(&mut self) {
        let checked = (self.changes, self.phase());
        if std::mem::replace(&mut self.checked, checked) != checked {
            self.check_state();
        }
        assert!(self.phase() != Phase::Stable || self.machine.deadline().is_some());
        let Members::Classic(group) = &self.machine.members else { panic!("the group is a classic one") };
        group.check();
    }

    fn check_state(&self) {
        let loaded = load(&self.state, &self.settings, self.now);
        let (Members::Classic(group), Members::Classic(loaded)) = (&self.machine.members, &loaded.members) else {
            panic!("the group is a classic one")
        };
        match group.phase() {
            Phase::Stable => {
                assert_eq!(group.describe(), loaded.describe());
                assert_eq!(group.header(), loaded.header());
                assert_eq!(group.subscribed_topics(), loaded.subscribed_topics());
                assert!(group.records().eq(loaded.records()));
            }
            Phase::Empty => assert_eq!(loaded.phase(), Phase::Empty, "State has members of an empty group"),
            _ => assert!(self.machine.deadline().is_some(), "a rebalance ends some time"),
        }
    }
}

fn load(state: &State, settings: &GroupSettings, now: Instant) -> Machine {
    let view = View { now, wall_ms: TimestampMs(0), state, settings, random: 0 };
    Machine::load(Arc::from(GROUP), view)
}
