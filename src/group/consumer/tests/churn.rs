//! Clients that come, go, stall and die, over a network that loses and repeats, before a coordinator that crashes, in
//! virtual time. Clients behave as KIP-848 wants: what is taken from them they give up after a while, then they say so.
//! Requests of one client overtake each other only where they say nothing of what it owns: such a one, late, would be
//! taken for news by Kafka's coordinator too.
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::migration::subscription;
use super::*;
use crate::config::Migration;
use crate::group::embedded::EmbeddedAssignment;

type Set = BTreeSet<(TopicId, i32)>;

#[derive(Clone, Default)]
struct Client {
    id: String,
    instance: Option<String>,
    epoch: i32,
    topics: Vec<&'static str>,
    regex: Option<&'static str>,
    subscription_changed: bool,
    /// What it works on.
    owned: Set,
    /// What it was told to have.
    assigned: Set,
    /// What the coordinator was last told that it owns.
    told: Option<Set>,
    gives_up_at_ms: u64,
    next_beat_ms: u64,
    /// Never gives anything up, and never speaks of it.
    is_stuck: bool,
    is_dead: bool,
}

struct Churn {
    bench: Bench,
    rng: StdRng,
    ms: u64,
    clients: Vec<Client>,
    names: u32,
    /// Requests that come once more, later.
    late: Vec<(u64, ConsumerHeartbeat)>,
    trouble: bool,
    /// Members of the classic protocol come too. The group then stays one of the consumer protocol, and topics stay.
    has_guests: bool,
    guests: Vec<Guest>,
}

/// A consumer of the classic protocol.
#[derive(Clone, Default)]
struct Guest {
    id: String,
    /// `None` while it has to join.
    generation: Option<i32>,
    is_synced: bool,
    /// It keeps what it has while it joins.
    is_cooperative: bool,
    owned: Set,
    next_ms: u64,
}

const TOPICS: [&str; 4] = ["aa", "ab", "bb", "cc"];

impl Churn {
    fn new(seed: u64, has_guests: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let interval = if rng.random_bool(0.5) { 0 } else { 1_000 };
        let mut bench = Bench::with(|kafka| {
            kafka.group_consumer_session_timeout_ms = 6_000;
            kafka.group_consumer_assignment_interval_ms = interval;
            kafka.group_consumer_migration_policy = Migration::Upgrade;
        });
        bench.topic("aa", 5);
        bench.topic("bb", 3);
        Self {
            bench,
            rng,
            ms: 0,
            clients: Vec::new(),
            names: 0,
            late: Vec::new(),
            trouble: true,
            has_guests,
            guests: Vec::new(),
        }
    }

    fn run(&mut self) {
        while self.ms < 30_000 {
            self.churn();
            self.pass(500);
        }
        // The trouble ends; members that are dead are found out, and the others come to rest.
        self.trouble = false;
        self.clients.retain(|c| !c.is_dead);
        self.clients.iter_mut().for_each(|c| c.is_stuck = false);
        self.late.clear();
        self.guests.retain(|g| !g.id.is_empty());
        self.pass(20_000);
        self.check_settled();
    }

    fn churn(&mut self) {
        let alive: Vec<usize> = (0..self.clients.len()).filter(|at| !self.clients[*at].is_dead).collect();
        let some = alive.get(self.rng.random_range(0..alive.len().max(1))).copied();
        if self.has_guests && self.rng.random_bool(0.4) {
            return self.guests_change();
        }
        match (self.rng.random_range(0..20), some) {
            (0..=6, _) | (_, None) => self.come(None),
            (7..=10, Some(at)) => self.leave(at),
            (11, Some(at)) => self.clients[at].is_dead = true,
            (12, Some(at)) => self.clients[at].is_stuck = true,
            (13..=14, Some(at)) => {
                self.clients[at].topics = self.some_topics();
                self.clients[at].subscription_changed = true;
            }
            (15, Some(_)) if !self.has_guests => self.topics_change(),
            (16..=17, _) => self.bench.crash(),
            (_, Some(_)) => {}
        }
    }

    fn some_topics(&mut self) -> Vec<&'static str> {
        TOPICS.into_iter().filter(|_| self.rng.random_bool(0.7)).collect()
    }

    fn come(&mut self, instance: Option<String>) {
        self.names += 1;
        let mut client = Client { id: format!("m{}", self.names), topics: self.some_topics(), ..Client::default() };
        client.regex = self.rng.random_bool(0.3).then_some("a.*");
        client.instance = instance.or_else(|| self.rng.random_bool(0.3).then(|| format!("i{}", self.names)));
        client.next_beat_ms = self.ms;
        self.clients.push(client);
    }

    fn leave(&mut self, at: usize) {
        let client = self.clients.remove(at);
        let back = client.instance.clone().filter(|_| self.rng.random_bool(0.6));
        let mut request = beat(&client.id, if back.is_some() { -2 } else { -1 });
        request.0.instance_id = client.instance;
        if self.rng.random_bool(0.8) {
            let _ = self.bench.beat(request);
        }
        if back.is_some() {
            self.come(back);
        }
    }

    fn topics_change(&mut self) {
        let name = TOPICS[self.rng.random_range(0..TOPICS.len())];
        match self.bench.state.topic_by_name(name).map(|t| t.slots.len() as u32) {
            None => drop(self.bench.topic(name, 3).to_string()),
            Some(partitions) if self.rng.random_bool(0.5) => self.bench.grow(name, partitions + 2),
            Some(_) => self.bench.delete(name),
        }
    }

    fn pass(&mut self, ms: u64) {
        let until = self.ms + ms;
        while self.ms < until {
            self.ms += 50;
            self.bench.pass_ms(50);
            for (_, request) in self.late.extract_if(.., |(at, _)| *at <= self.ms).collect::<Vec<_>>() {
                let _ = self.bench.beat(Beat(request));
            }
            for at in 0..self.clients.len() {
                self.step(at);
            }
            for at in 0..self.guests.len() {
                self.step_guest(at);
            }
            self.check_safe();
        }
    }

    fn step(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if client.is_dead {
            return;
        }
        if !client.is_stuck && client.owned != client.assigned && self.ms >= client.gives_up_at_ms {
            client.owned = client.assigned.clone();
            client.next_beat_ms = self.ms;
        }
        if self.ms < client.next_beat_ms {
            return;
        }
        client.next_beat_ms = self.ms + self.rng.random_range(300..1_000);
        let request = self.clients[at].request();
        let lost = |churn: &mut Self, p| churn.trouble && churn.rng.random_bool(p);
        if lost(self, 0.1) {
            // Nothing is known of it, so all is told again.
            self.clients[at].told = None;
            return;
        }
        let answer = self.bench.beat(Beat(request.clone()));
        if lost(self, 0.05) && request.member_epoch != 0 {
            let _ = self.bench.beat(Beat(request.clone()));
        }
        if request.owned.is_none() && lost(self, 0.1) {
            let delay_ms = self.rng.random_range(50..2_000);
            self.late.push((self.ms + delay_ms, request.clone()));
        }
        if lost(self, 0.1) {
            self.clients[at].told = None;
            return;
        }
        let gives_up_at_ms = self.ms + self.rng.random_range(0..1_500);
        let client = &mut self.clients[at];
        match answer {
            Ok(reply) => {
                client.epoch = reply.member_epoch;
                client.subscription_changed = false;
                if let Some(assignment) = reply.assignment {
                    client.assigned =
                        assignment.iter().flat_map(|t| t.partitions.iter().map(|p| (t.topic, *p))).collect();
                    client.gives_up_at_ms = gives_up_at_ms;
                }
            }
            Err(error) => client.refused(&error),
        }
    }

    fn guests_change(&mut self) {
        if self.guests.is_empty() || self.rng.random_bool(0.6) {
            self.guests.push(Guest { is_cooperative: self.rng.random_bool(0.5), ..Guest::default() });
            return;
        }
        // Some say that they leave, others are found out.
        let guest = self.guests.remove(self.rng.random_range(0..self.guests.len()));
        if self.rng.random_bool(0.5) && matches!(self.bench.machine.members, Members::Consumer(_)) {
            let leaving = LeavingMember { member_id: guest.id, instance_id: None };
            let _ = self.bench.ask(Request::Leave(vec![leaving]));
        }
    }

    fn step_guest(&mut self, at: usize) {
        let in_group = matches!(self.bench.machine.members, Members::Consumer(_));
        if !in_group || self.bench.machine.phase() == Phase::Empty || self.ms < self.guests[at].next_ms {
            return;
        }
        self.guests[at].next_ms = self.ms + self.rng.random_range(100..600);
        let mut guest = self.guests[at].clone();
        let error = match guest.generation {
            None => self.join_guest(&mut guest),
            Some(generation) if !guest.is_synced => self.sync_guest(&mut guest, generation),
            Some(generation) => {
                let identity = Identity { member_id: guest.id.clone(), instance_id: None, generation };
                self.bench.ask(Request::Heartbeat(identity)).map(drop)
            }
        };
        match error.map_err(|e| e.error) {
            Ok(()) => {}
            Err(KafkaError::RebalanceInProgress) => guest.generation = None,
            Err(KafkaError::UnknownMemberId | KafkaError::IllegalGeneration) => {
                guest = Guest { is_cooperative: guest.is_cooperative, ..Guest::default() };
            }
            Err(error) => panic!("{error:?}"),
        }
        self.guests[at] = guest;
    }

    fn join_guest(&mut self, guest: &mut Guest) -> Result<(), GroupError> {
        if !guest.is_cooperative {
            guest.owned.clear();
        }
        let mut by_name: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &guest.owned {
            by_name.entry(&self.bench.state.topic(*topic).unwrap().name).or_default().push(*partition);
        }
        let owned: Vec<(&str, &[i32])> = by_name.iter().map(|(name, p)| (*name, p.as_slice())).collect();
        let join = JoinGroup {
            member_id: guest.id.clone(),
            session_timeout_ms: 6_000,
            rebalance_timeout_ms: 3_000,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), subscription(&["aa", "bb"], &owned))],
            ..JoinGroup::default()
        };
        let Reply::Join(reply) = self.bench.ask(Request::Join(join))? else { panic!("no answer to a join") };
        (guest.id, guest.generation, guest.is_synced) = (reply.member_id, Some(reply.generation), false);
        Ok(())
    }

    fn sync_guest(&mut self, guest: &mut Guest, generation: i32) -> Result<(), GroupError> {
        let identity = Identity { member_id: guest.id.clone(), instance_id: None, generation };
        let Reply::Sync(reply) = self.bench.ask(Request::Sync(SyncGroup { identity, ..SyncGroup::default() }))? else {
            panic!("no answer to a sync")
        };
        let id = |name: &str| self.bench.state.topic_by_name(name).unwrap().id;
        let assignment = EmbeddedAssignment::read(&reply.assignment).unwrap().partitions;
        let assigned: Set = assignment.iter().flat_map(|(name, p)| p.iter().map(|p| (id(name), *p))).collect();
        guest.is_synced = true;
        if guest.owned.iter().any(|partition| !assigned.contains(partition)) {
            // What it gave up it tells by joining again.
            guest.generation = None;
        }
        guest.owned = assigned;
        Ok(())
    }

    /// No partition is worked on by two clients that the coordinator both takes for members.
    fn check_safe(&self) {
        let Members::Consumer(group) = &self.bench.machine.members else { return };
        let mut seen: BTreeMap<(TopicId, i32), &str> = BTreeMap::new();
        for client in self.clients.iter().filter(|c| !c.is_dead) {
            let Some(member) = group.members.get(client.id.as_str()) else { continue };
            if client.epoch != member.epoch && client.epoch != member.previous_epoch {
                continue;
            }
            for partition in &client.owned {
                let other = seen.insert(*partition, &client.id);
                assert!(other.is_none(), "{partition:?} is worked on by {} and {other:?} at {} ms", client.id, self.ms);
            }
        }
        for guest in &self.guests {
            let Some(member) = group.members.get(guest.id.as_str()) else { continue };
            if guest.generation.is_some_and(|generation| generation != member.epoch) {
                continue;
            }
            for partition in &guest.owned {
                let other = seen.insert(*partition, &guest.id);
                assert!(other.is_none(), "{partition:?} is worked on by {} and {other:?} at {} ms", guest.id, self.ms);
            }
        }
        for (id, member) in &group.members {
            assert!(member.epoch <= group.header.epoch && group.header.assignment_epoch <= group.header.epoch);
            assert!(member.held().all(|partition| group.owners.get(&partition) == Some(id)));
        }
        assert_eq!(group.owners.len(), group.members.values().map(|m| m.held().count()).sum::<usize>());
    }

    /// Everybody who is there is a member, and all that is subscribed to is worked on.
    fn check_settled(&mut self) {
        let is_empty = self.clients.is_empty() && self.guests.is_empty();
        assert_eq!(self.bench.machine.phase(), if is_empty { Phase::Empty } else { Phase::Stable });
        let (mut wanted, mut owned) = (Set::new(), Set::new());
        for client in &self.clients {
            let topics = self
                .bench
                .state
                .topics()
                .filter(|t| client.topics.contains(&&*t.name) || client.regex.is_some() && t.name.starts_with('a'));
            wanted.extend(topics.flat_map(|t| (0..t.slots.len() as i32).map(|p| (t.id, p))));
            owned.extend(client.owned.iter().copied());
        }
        for guest in &self.guests {
            let topics = self.bench.state.topics().filter(|t| matches!(&*t.name, "aa" | "bb"));
            wanted.extend(topics.flat_map(|t| (0..t.slots.len() as i32).map(|p| (t.id, p))));
            owned.extend(guest.owned.iter().copied());
        }
        assert_eq!(owned, wanted);
        let each = self.clients.iter().map(|c| c.owned.len()).chain(self.guests.iter().map(|g| g.owned.len()));
        assert_eq!(owned.len(), each.sum::<usize>());
        // The next coordinator finds nothing to do.
        self.bench.crash();
        self.bench.taken_changes();
        self.pass(2_000);
        assert_eq!(self.bench.taken_changes(), 0);
    }
}

impl Client {
    fn request(&mut self) -> ConsumerHeartbeat {
        let joins = self.epoch == 0;
        let mut request = beat(&self.id, self.epoch);
        request.0.instance_id.clone_from(&self.instance);
        if joins || self.subscription_changed || self.told.is_none() {
            request = request.topics(&self.topics).timeout(3_000);
            request.0.subscribed_regex = self.regex.map(str::to_owned);
        }
        if joins {
            self.owned.clear();
            self.assigned.clear();
            self.told = None;
        }
        if self.told.as_ref() != Some(&self.owned) && !self.is_stuck || joins {
            let mut owned: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
            self.owned.iter().for_each(|(t, p)| owned.entry(*t).or_default().push(*p));
            let owned = owned.into_iter().map(|(topic, partitions)| OwnedPartitions { topic, partitions });
            request.0.owned = Some(owned.collect());
            self.told = Some(self.owned.clone());
        }
        request.0
    }

    fn refused(&mut self, error: &GroupError) {
        match error.error {
            KafkaError::FencedMemberEpoch | KafkaError::UnknownMemberId | KafkaError::GroupIdNotFound => {
                // What it had it drops at once, and begins anew.
                let (id, instance, topics, regex) = (&self.id, &self.instance, &self.topics, self.regex);
                let anew = Self {
                    id: id.clone(),
                    instance: instance.clone(),
                    topics: topics.clone(),
                    regex,
                    ..Self::default()
                };
                *self = anew;
            }
            // The place of a static member that is not known to have left is free when its session ends.
            KafkaError::UnreleasedInstanceId => {}
            other => panic!("{other:?}: {error}"),
        }
    }
}

#[test]
fn groups_settle_whatever_happens() {
    for seed in 0..200 {
        let result = std::panic::catch_unwind(|| Churn::new(seed, false).run());
        assert!(result.is_ok(), "seed {seed}");
    }
}

#[test]
fn groups_of_both_protocols_settle() {
    for seed in 0..50 {
        let result = std::panic::catch_unwind(|| Churn::new(seed, true).run());
        assert!(result.is_ok(), "seed {seed}");
    }
}
