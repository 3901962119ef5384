//! Random clients against one group in virtual time: they join, synchronise, heartbeat, commit, freeze, leave, come back,
//! and say things twice and late; the broker is killed in between. Whatever happens, the members of a generation are told
//! the same, an assignment is the one that the leader made for that member in that generation, nothing of an older
//! generation is accepted, State has what it is to have ([`Rig`] checks that), and once the churn ends everybody who is
//! left is a member of one stable generation within bounded time. A failure names its seed.
use std::collections::BTreeMap;

use super::rig::*;
use crate::group::machine::{Members, Phase, RequestId};
use crate::group::message::*;
use crate::types::KafkaError;
use crate::world::World;

const TICK_MS: u64 = 50;
const SESSION_MS: u64 = 6_000;
const REBALANCE_MS: u64 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Doing {
    Idle,
    Joining(RequestId),
    Syncing(RequestId),
    Member,
    /// Fenced by another client with its instance id.
    Over,
}

/// A consumer that does what the clients we know do.
struct Client {
    instance: Option<String>,
    member_id: String,
    generation: i32,
    protocols: Vec<&'static str>,
    doing: Doing,
    /// Ticks that it does nothing: the process hangs.
    frozen: u64,
    heartbeat_in_ms: u64,
    /// What it gives up and asks again after, in ms.
    patience_ms: u64,
}

struct Churn {
    rig: Rig,
    world: World,
    clients: Vec<Client>,
    /// What leader and protocol members of a generation were told, by times that the broker died and generation.
    told: BTreeMap<(usize, i32), (String, Option<String>)>,
    crashes: usize,
    /// What was asked, to be asked again late.
    said: Vec<Request>,
    instances: usize,
}

/// A member's name without what makes its id unique, if it is static: that is who it stays.
fn name(member_id: &str) -> &str {
    if member_id.starts_with("static") { member_id.split('-').next().unwrap() } else { member_id }
}

impl Churn {
    fn new(seed: u64) -> Self {
        Self {
            rig: Rig::new(&["group.initial.rebalance.delay.ms: 500"]),
            world: World::seeded(seed),
            clients: Vec::new(),
            told: BTreeMap::new(),
            crashes: 0,
            said: Vec::new(),
            instances: 0,
        }
    }

    fn chance(&self, one_in: u64) -> bool {
        self.world.random_below(one_in) == 0
    }

    fn pick(&self) -> Option<usize> {
        (!self.clients.is_empty()).then(|| self.world.random_below(self.clients.len() as u64) as usize)
    }

    fn epoch(&self) -> i32 {
        let Members::Classic(group) = &self.rig.machine.members else { panic!("it is a classic group") };
        group.header().epoch
    }

    fn come(&mut self, is_static: bool) {
        let instance = is_static.then(|| {
            self.instances += 1;
            format!("static{}", self.instances)
        });
        self.client(instance);
    }

    fn client(&mut self, instance: Option<String>) {
        let all = [vec!["range", "sticky"], vec!["sticky", "range"], vec!["range", "sticky", "other"]];
        self.clients.push(Client {
            instance,
            member_id: String::new(),
            generation: -1,
            protocols: all[self.world.random_below(3) as usize].clone(),
            doing: Doing::Idle,
            frozen: 0,
            heartbeat_in_ms: 0,
            patience_ms: 0,
        });
    }

    /// A client leaves, or just ends.
    fn go(&mut self) {
        let Some(at) = self.pick() else { return };
        let client = self.clients.swap_remove(at);
        if !client.member_id.is_empty() && client.instance.is_none() && !self.chance(3) {
            let who = LeavingMember { member_id: client.member_id, instance_id: None };
            self.say(Request::Leave(vec![who]));
        } else if client.instance.is_some() && self.chance(2) {
            // It is restarted: another process with the same instance id.
            self.client(client.instance);
        }
    }

    fn say(&mut self, request: Request) -> RequestId {
        if self.said.len() < 400 {
            self.said.push(request.clone());
        }
        self.rig.ask(request)
    }

    /// Something that was asked before arrives again. Who asked it first does not see the answer.
    fn repeat(&mut self) {
        if self.said.is_empty() {
            return;
        }
        let at = self.world.random_below(self.said.len() as u64) as usize;
        let request = self.said[at].clone();
        let (before, phase) = (self.epoch(), self.rig.phase());
        let id = self.rig.ask(request.clone());
        let Some(Ok(_)) = self.rig.answers.remove(&id) else { return };
        match request {
            Request::Heartbeat(identity) => assert_eq!(identity.generation, before, "a stale heartbeat"),
            Request::Sync(sync) => assert_eq!(sync.identity.generation, before, "a stale sync"),
            Request::Commit(commit) => {
                assert_eq!(commit.identity.generation, before, "a stale commit");
                assert_ne!(phase, Phase::CompletingRebalance);
            }
            _ => {}
        }
    }

    fn crash(&mut self) {
        self.rig.crash();
        self.crashes += 1;
        for client in &mut self.clients {
            if matches!(client.doing, Doing::Joining(_) | Doing::Syncing(_)) {
                client.doing = Doing::Idle;
            }
        }
    }

    /// All clients go on, and time with them.
    fn tick(&mut self) {
        for at in 0..self.clients.len() {
            if self.clients[at].frozen > 0 {
                self.clients[at].frozen -= 1;
                continue;
            }
            match self.clients[at].doing {
                Doing::Idle => self.begin_join(at),
                Doing::Joining(id) => self.end_join(at, id),
                Doing::Syncing(id) => self.end_sync(at, id),
                Doing::Member => self.beat(at),
                Doing::Over => {}
            }
        }
        self.rig.pass(TICK_MS);
    }

    fn begin_join(&mut self, at: usize) {
        let client = &self.clients[at];
        let protocols = client.protocols.iter().map(|p| ((*p).to_owned(), subscription(&["t"]))).collect();
        let join = JoinGroup {
            instance_id: client.instance.clone(),
            member_id_required: true,
            skip_assignment: true,
            session_timeout_ms: SESSION_MS as i32,
            rebalance_timeout_ms: REBALANCE_MS as i32,
            protocols,
            ..consumer(&client.member_id)
        };
        let id = self.say(Request::Join(join));
        self.clients[at].doing = Doing::Joining(id);
        self.clients[at].patience_ms = 2 * REBALANCE_MS;
    }

    fn end_join(&mut self, at: usize, id: RequestId) {
        let Some(answer) = self.answer(at, id) else { return };
        let reply = match answer {
            Ok(Reply::Join(reply)) => reply,
            Err(error) if error.error == KafkaError::MemberIdRequired => {
                self.clients[at].member_id = error.member_id.unwrap();
                return self.begin_join(at);
            }
            other => return self.refused(at, other),
        };
        assert!(!reply.protocol_name.as_deref().unwrap_or_default().is_empty());
        let told = (name(&reply.leader).to_owned(), reply.protocol_name.clone());
        let before = self.told.entry((self.crashes, reply.generation)).or_insert_with(|| told.clone());
        assert_eq!(*before, told, "generation {} has two leaders or protocols", reply.generation);
        let client = &mut self.clients[at];
        assert!(reply.generation >= client.generation || self.crashes > 0, "generations go up");
        (client.member_id, client.generation) = (reply.member_id.clone(), reply.generation);
        let assigned =
            |m: &JoinedMember| (m.member_id.clone(), format!("{}.{}", reply.generation, name(&m.member_id)).into());
        let leads = reply.leader == reply.member_id && !reply.skip_assignment;
        assert_eq!(leads || reply.skip_assignment, !reply.members.is_empty(), "only the leader is told of all");
        let sync = SyncGroup {
            identity: self.identity(at),
            protocol_type: reply.protocol_type,
            protocol_name: reply.protocol_name,
            assignments: if leads { reply.members.iter().map(assigned).collect() } else { Vec::new() },
        };
        let id = self.say(Request::Sync(sync));
        self.clients[at].doing = Doing::Syncing(id);
        self.clients[at].patience_ms = 2 * REBALANCE_MS;
    }

    fn end_sync(&mut self, at: usize, id: RequestId) {
        match self.answer(at, id) {
            None => {}
            Some(Ok(Reply::Sync(reply))) => {
                let client = &mut self.clients[at];
                let expected = format!("{}.{}", client.generation, name(&client.member_id));
                assert_eq!(reply.assignment, expected, "the assignment of another generation or member");
                (client.doing, client.heartbeat_in_ms) = (Doing::Member, 0);
            }
            Some(other) => self.refused(at, other),
        }
    }

    fn beat(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if client.heartbeat_in_ms > 0 {
            client.heartbeat_in_ms = client.heartbeat_in_ms.saturating_sub(TICK_MS);
            return;
        }
        client.heartbeat_in_ms = SESSION_MS / 6;
        let identity = self.identity(at);
        let commits = self.chance(3);
        let request = if commits {
            Request::Commit(CommitRequest { identity: identity.clone(), ..CommitRequest::default() })
        } else {
            Request::Heartbeat(identity.clone())
        };
        let id = self.say(request);
        match self.rig.take(id) {
            Ok(_) => assert_eq!(identity.generation, self.epoch(), "a stale generation was accepted"),
            other => self.refused(at, other),
        }
    }

    fn identity(&self, at: usize) -> Identity {
        let client = &self.clients[at];
        Identity { instance_id: client.instance.clone(), ..identity(&client.member_id, client.generation) }
    }

    /// The answer, if it is there. A client that has waited for long asks again.
    fn answer(&mut self, at: usize, id: RequestId) -> Option<Answer> {
        let answer = self.rig.answers.remove(&id);
        if answer.is_none() {
            let client = &mut self.clients[at];
            client.patience_ms = client.patience_ms.saturating_sub(TICK_MS);
            if client.patience_ms == 0 {
                client.doing = Doing::Idle;
            }
        }
        answer
    }

    fn refused(&mut self, at: usize, answer: Answer) {
        let client = &mut self.clients[at];
        client.doing = Doing::Idle;
        match answer.expect_err("a reply of another kind").error {
            KafkaError::RebalanceInProgress => {}
            KafkaError::IllegalGeneration => client.generation = -1,
            KafkaError::UnknownMemberId => (client.member_id, client.generation) = (String::new(), -1),
            KafkaError::FencedInstanceId => client.doing = Doing::Over,
            other => panic!("an error that no client caused: {other:?}"),
        }
    }

    /// No more churn: who is left becomes, within the time that sessions and rebalances take, the group.
    fn settle(&mut self) {
        self.clients.retain(|c| c.doing != Doing::Over);
        self.clients.iter_mut().for_each(|c| c.frozen = 0);
        let bound_ms = 2 * SESSION_MS + 4 * REBALANCE_MS;
        for _ in 0..bound_ms / TICK_MS {
            self.tick();
        }
        self.clients.retain(|c| c.doing != Doing::Over);
        let phase = if self.clients.is_empty() { Phase::Empty } else { Phase::Stable };
        assert_eq!(self.rig.phase(), phase);
        let mut members: Vec<String> = self.clients.iter().map(|c| c.member_id.clone()).collect();
        members.sort();
        let known: Vec<String> = self.rig.described().members.into_iter().map(|m| m.member_id).collect();
        assert_eq!(known, members, "members that are not there, or clients that are not members");
        let epoch = self.epoch();
        assert!(self.clients.iter().all(|c| c.doing == Doing::Member && c.generation == epoch));
        let changes = self.rig.changes;
        for _ in 0..2 * SESSION_MS / TICK_MS {
            self.tick();
        }
        assert_eq!(self.rig.changes, changes, "a settled group changes nothing");
        assert_eq!(self.epoch(), epoch);
    }
}

/// Names the seed of what failed.
fn with_seeds(seeds: std::ops::Range<u64>, run: impl Fn(&mut Churn)) {
    for seed in seeds {
        let mut churn = Churn::new(seed);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut churn)));
        assert!(result.is_ok(), "seed {seed} failed");
    }
}

#[test]
fn members_that_come_and_go_every_half_second_for_half_a_minute_leave_no_anomaly() {
    with_seeds(0..200, |churn| {
        for step in 0..60 {
            if step % 2 == 0 || churn.clients.len() < 3 {
                churn.come(false)
            } else {
                churn.go()
            }
            for _ in 0..500 / TICK_MS {
                churn.tick();
            }
        }
        churn.settle();
    });
}

#[test]
fn whatever_clients_do_and_whenever_the_broker_dies_the_group_settles() {
    with_seeds(1000..1150, |churn| {
        let crashes = churn.world.random_below(2) == 0;
        for _ in 0..600 {
            match churn.world.random_below(40) {
                0 if churn.clients.len() < 12 => churn.come(churn.chance(3)),
                1 if churn.clients.len() > 2 => churn.go(),
                2..6 => churn.repeat(),
                6 => {
                    let ticks = churn.world.random_below(3 * SESSION_MS / TICK_MS);
                    let Some(at) = churn.pick() else { continue };
                    churn.clients[at].frozen = ticks;
                }
                7 => {
                    let Some(at) = churn.pick() else { continue };
                    churn.clients[at].doing = Doing::Idle;
                }
                8 if crashes && churn.chance(4) => churn.crash(),
                9 if churn.chance(4) => churn.rig.pass(churn.world.random_below(2 * SESSION_MS)),
                _ => {}
            }
            churn.tick();
        }
        churn.settle();
    });
}
