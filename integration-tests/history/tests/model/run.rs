//! Clients of the model broker, and the clock that they share. A call takes effect at some time between its begin and its
//! end; if the answer is lost, also later, or never.
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use strandline_history::{Commit, End, GroupProtocol, History, Log, Operation, Value, What};

use super::broker::{Broker, Defect};

const MEMBERS: std::ops::Range<u32> = 20..23;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Begin(u32),
    Effect(usize),
    Join(usize),
    End(usize),
    Tick,
}

#[derive(Default)]
struct Client {
    in_flight: u32,
    last_effect: u64,
    counter: u64,
    position: BTreeMap<(String, i32), (u64, i64)>,
    member: Option<(String, i32)>,
}

struct Run {
    broker: Broker,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    pushed: u64,
    clients: BTreeMap<u32, Client>,
    /// By operation: the answer, once there is one.
    answers: Vec<Option<(End, What)>>,
    lost: Vec<bool>,
    operations: Vec<Operation>,
    busy_until: u64,
}

/// The history of a run.
pub(crate) fn run(seed: u64, defect: Option<Defect>, busy_us: u64) -> History {
    let broker = Broker::new(seed, defect);
    let clients = [1, 2, 3, 10, 11, 12, 13, 30].into_iter().chain(MEMBERS);
    let mut run = Run {
        broker,
        now: 0,
        events: BinaryHeap::new(),
        pushed: 0,
        clients: clients.map(|client| (client, Client::default())).collect(),
        answers: Vec::new(),
        lost: Vec::new(),
        operations: Vec::new(),
        busy_until: busy_us,
    };
    run.alone(create("stable"));
    run.alone(create("deleted"));
    for client in run.clients.keys().copied().collect::<Vec<_>>() {
        run.later(20, Event::Begin(client));
    }
    run.later(50, Event::Tick);
    while let Some(Reverse((time, _, event))) = run.events.pop() {
        run.now = time;
        run.event(event);
    }
    run.finish()
}

fn create(topic: &str) -> What {
    What::CreateTopic { topic: topic.into(), id: None, partitions: 2 }
}

fn fetch(log: Log, position_of: u64, from: i64) -> What {
    What::Poll {
        log,
        position_of,
        from,
        next: from,
        records: Vec::new(),
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        read_committed: false,
    }
}

impl Run {
    fn later(&mut self, within_us: u64, event: Event) {
        let time = self.now + 1 + self.broker.chance.below(within_us);
        self.at(time, event);
    }

    fn at(&mut self, time: u64, event: Event) {
        self.pushed += 1;
        self.events.push(Reverse((time, self.pushed, event)));
    }

    /// An operation begins; it is unknown until it ends.
    fn begin(&mut self, process: u32, what: What) -> usize {
        let number = self.operations.len();
        let reads = matches!(what, What::Poll { .. });
        let broker = i32::try_from(if reads { process % 2 } else { 0 }).ok();
        let (id, start_us, end) = (number as u64, self.now, End::Info("no answer".into()));
        self.operations.push(Operation { id, process, start_us, end_us: None, broker, end, what });
        self.answers.push(None);
        self.lost.push(false);
        number
    }

    /// Without anybody beside it.
    fn alone(&mut self, what: What) -> (End, What) {
        let number = self.begin(90, what.clone());
        let stuck = self.broker.defect == Some(Defect::Stuck) && self.broker.healed;
        let stuck = stuck && matches!(&what, What::Send { log, .. } if log.partition == 0);
        self.now += 5;
        let answer = self.broker.handle(self.now, 0, what);
        self.now += 5;
        if !stuck {
            let operation = &mut self.operations[number];
            (operation.end, operation.what, operation.end_us) = (answer.0.clone(), answer.1.clone(), Some(self.now));
        }
        answer
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Begin(client) => self.next(client),
            Event::Effect(number) => {
                let operation = &self.operations[number];
                let (what, broker) = (operation.what.clone(), operation.broker.unwrap_or(0));
                // The broker is asked with what was asked; an answer to an earlier attempt is replaced.
                self.answers[number] = Some(self.broker.handle(self.now, broker, what));
            }
            Event::Join(number) => {
                let What::Assigned { member, .. } = self.operations[number].what.clone() else { return };
                self.broker.join(self.now, &member, number);
            }
            Event::End(number) => self.end(number),
            Event::Tick => {
                for (number, generation, logs) in self.broker.rebalance(self.now) {
                    let What::Assigned { group, member, .. } = self.operations[number].what.clone() else { continue };
                    let (instance, protocol) = (None, GroupProtocol::Classic);
                    let what = What::Assigned { group, member, instance, protocol, generation, logs };
                    self.answers[number] = Some((End::Ok, what));
                    self.later(60, Event::End(number));
                }
                if self.now < self.busy_until + 5000 {
                    self.at(self.now + 10, Event::Tick);
                }
            }
        }
    }

    /// The client does its next thing.
    fn next(&mut self, process: u32) {
        if self.now >= self.busy_until {
            return;
        }
        let what = match process {
            1..10 => self.produce(process),
            10 => self.administrate(),
            11..20 => self.consume(process),
            _ if MEMBERS.contains(&process) => return self.member(process),
            _ => {
                let logs = (0..2).map(|partition| Log { topic: "stable".into(), id: None, partition });
                let offsets = logs.map(|log| Commit { log, offset: None, metadata: None }).collect();
                What::Committed { group: "g".into(), offsets }
            }
        };
        let pipelined = matches!(what, What::Send { once: true, .. });
        self.call(process, what);
        let client = self.clients.get_mut(&process).unwrap();
        client.in_flight += 1;
        if pipelined && client.in_flight < 4 {
            self.later(30, Event::Begin(process));
        }
    }

    /// Decides when the call takes effect and when it ends.
    fn call(&mut self, process: u32, what: What) {
        let ordered = matches!(what, What::Send { once: true, .. });
        let plain = matches!(what, What::Send { once: false, .. });
        let number = self.begin(process, what);
        let lost = self.broker.chance.percent(10);
        self.lost[number] = lost;
        let mut effect = self.now + 1 + self.broker.chance.below(60);
        let (in_flight, last_effect) = (self.clients[&process].in_flight, self.clients[&process].last_effect);
        let in_order = ordered && !(self.broker.defect == Some(Defect::Reorder));
        if in_order {
            effect = effect.max(last_effect + 1);
        }
        let mut end = effect + 1 + self.broker.chance.below(60);
        if lost {
            match self.broker.chance.below(3) {
                0 if !ordered || in_flight == 0 => effect = u64::MAX,
                1 => effect += self.broker.chance.below(2000),
                _ => {}
            }
        }
        if effect < u64::MAX {
            self.at(effect, Event::Effect(number));
            self.clients.get_mut(&process).unwrap().last_effect = effect;
            if plain && self.broker.chance.percent(10) {
                let again = effect + 1 + self.broker.chance.below(20);
                self.at(again, Event::Effect(number));
                end = end.max(again + 1);
            }
        }
        self.at(end, Event::End(number));
    }

    fn end(&mut self, number: usize) {
        let process = self.operations[number].process;
        let answer = self.answers[number].clone().filter(|_| !self.lost[number]);
        let operation = &mut self.operations[number];
        operation.end_us = Some(self.now);
        if let Some((end, what)) = answer {
            (operation.end, operation.what) = (end, what);
        }
        let operation = operation.clone();
        if process >= 90 {
            return;
        }
        let client = self.clients.get_mut(&process).unwrap();
        client.in_flight = client.in_flight.saturating_sub(1);
        match (&operation.what, &operation.end) {
            (What::Poll { log, next, .. }, End::Ok) => {
                client.position.get_mut(&(log.topic.clone(), log.partition)).unwrap().1 = *next;
            }
            (What::Poll { log, .. }, End::Fail(_)) => {
                client.position.remove(&(log.topic.clone(), log.partition));
            }
            (What::Assigned { member, generation, .. }, End::Ok) => client.member = Some((member.clone(), *generation)),
            (What::Heartbeat { .. } | What::Commit { .. }, End::Fail(error)) => {
                let member = client.member.take();
                match member {
                    Some(member) if error == "REBALANCE_IN_PROGRESS" => client.member = Some((member.0, -1)),
                    Some(member) if error == "UNKNOWN_MEMBER_ID" => {
                        let left = self.begin(process, What::Left { group: "g".into(), member: member.0 });
                        (self.operations[left].end, self.operations[left].end_us) = (End::Ok, Some(self.now));
                    }
                    _ => {}
                }
            }
            (What::Assigned { .. } | What::Left { .. }, _) => client.member = None,
            _ => {}
        }
        let pause = if self.broker.chance.percent(3) { 1500 } else { 40 };
        self.later(pause, Event::Begin(process));
    }

    /// A log, sometimes by the id that the client last heard of.
    fn log(&mut self, by_id: bool) -> Log {
        let topic = if self.broker.chance.percent(70) { "stable" } else { "deleted" };
        let partition = i32::try_from(self.broker.chance.below(2)).unwrap();
        let known = self.operations.iter().rev().take(300).find_map(|operation| match &operation.what {
            What::Describe { topic: named, found: Some((id, _)) } if named == topic => Some(id.clone()),
            _ => None,
        });
        Log { topic: topic.into(), id: known.filter(|_| by_id), partition }
    }

    fn produce(&mut self, process: u32) -> What {
        let log = self.log(false);
        let count = 1 + self.broker.chance.below(3);
        self.values(process, log, count)
    }

    fn values(&mut self, process: u32, log: Log, count: u64) -> What {
        let mut value = || {
            let client = self.clients.entry(process).or_default();
            client.counter += 1;
            let (topic, partition) = (log.topic.clone(), log.partition);
            let timestamp_ms = i64::try_from(self.now + self.broker.chance.below(300)).unwrap();
            Value {
                run: 1,
                process,
                counter: client.counter,
                topic,
                partition,
                timestamp_ms,
                source: None,
                deletes: false,
            }
        };
        let values = (0..count).map(|_| value()).collect();
        What::Send { log, values, once: process < 3, acked: true, offset: None, transaction: None }
    }

    fn consume(&mut self, process: u32) -> What {
        let by_id = process.is_multiple_of(2);
        let log = self.log(by_id);
        let (fresh, seek) = (self.operations.len() as u64, self.broker.chance.percent(5));
        let client = self.clients.get_mut(&process).unwrap();
        let key = (log.topic.clone(), log.partition);
        if seek || !client.position.contains_key(&key) {
            let known = self.operations.iter().rev().take(200).find_map(|operation| match &operation.what {
                What::ListOffsets { log: of, timestamp: -2, offset, .. }
                    if operation.end == End::Ok && of.topic == log.topic && of.partition == log.partition =>
                {
                    Some(*offset)
                }
                _ => None,
            });
            client.position.insert(key.clone(), (fresh, known.unwrap_or(0)));
        }
        let (position_of, from) = client.position[&key];
        fetch(log, position_of, from)
    }

    fn administrate(&mut self) -> What {
        let log = self.log(false);
        let topic = log.topic.clone();
        match self.broker.chance.below(100) {
            0..3 => {
                let before = i64::try_from(self.broker.chance.below(30)).unwrap();
                What::DeleteRecords { log, before, low_watermark: -1 }
            }
            3..8 => What::DeleteTopic { topic: "deleted".into(), id: None },
            8..25 => create("deleted"),
            25..45 => What::Describe { topic, found: None },
            45..50 => What::EpochEnd { log, epoch: 0, end_offset: -1 },
            _ => {
                let time = i64::try_from(self.broker.chance.below(self.now + 300)).unwrap();
                let timestamp = [-1, -2, -3, time][usize::try_from(self.broker.chance.below(4)).unwrap()];
                What::ListOffsets { log, timestamp, offset: -1, found_timestamp: -1 }
            }
        }
    }

    fn member(&mut self, process: u32) {
        let group = || "g".to_owned();
        let roll = self.broker.chance.below(100);
        let known = self.clients[&process].member.clone();
        let call = match known {
            Some((member, generation)) if generation >= 0 => match roll {
                0..4 => What::Left { group: group(), member },
                4..60 => What::Heartbeat { group: group(), member, generation },
                _ => {
                    let offset = Some(i64::try_from(self.broker.chance.below(50)).unwrap());
                    let log = Log { topic: "stable".into(), id: None, partition: i32::try_from(roll % 2).unwrap() };
                    What::Commit {
                        group: group(),
                        member,
                        generation,
                        offsets: vec![Commit { log, offset, metadata: None }],
                    }
                }
            },
            again => {
                let member = again.map_or_else(|| format!("{process}-{}", self.operations.len()), |(member, _)| member);
                let (instance, protocol) = (None, GroupProtocol::Classic);
                let what =
                    What::Assigned { group: group(), member, instance, protocol, generation: -1, logs: Vec::new() };
                let number = self.begin(process, what);
                self.lost[number] = self.broker.chance.percent(5);
                return self.later(40, Event::Join(number));
            }
        };
        self.call(process, call);
    }

    /// No faults, nobody beside: everything is written to and read once more.
    fn finish(mut self) -> History {
        self.now += 3000;
        self.broker.healed = true;
        let healed_us = Some(self.now);
        self.alone(create("deleted"));
        for (topic, partition) in [("stable", 0), ("stable", 1), ("deleted", 0), ("deleted", 1)] {
            let log = Log { topic: topic.into(), id: None, partition };
            let send = self.values(90, log.clone(), 1);
            self.alone(send);
            let first = What::ListOffsets { log: log.clone(), timestamp: -2, offset: -1, found_timestamp: -1 };
            let (_, What::ListOffsets { offset: mut from, .. }) = self.alone(first) else { unreachable!() };
            let position_of = self.operations.len() as u64;
            while let (End::Ok, What::Poll { next, high_watermark, .. }) =
                self.alone(fetch(log.clone(), position_of, from))
            {
                from = next;
                if next >= high_watermark || self.operations.len() as u64 > position_of + 5000 {
                    break;
                }
            }
        }
        self.now += 2000;
        let send = self.values(90, Log { topic: "stable".into(), id: None, partition: 0 }, 1);
        self.alone(send);
        History { run: 1, operations: self.operations, healed_us }
    }
}
