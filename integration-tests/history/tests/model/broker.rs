//! A broker of a page: everything takes effect at one instant, in one place. A second broker answers fetches from what
//! was true a while ago. It can be made to do one thing wrong.
use std::collections::{BTreeMap, BTreeSet};
use strandline_history::{Broken, Commit, End, Log, Seen, Value, What};

/// What a model broker does wrong, now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    AckWithoutWrite,
    DroppedRecord,
    LostTail,
    DuplicateOnRetry,
    OffsetZero,
    Reorder,
    TornBatch,
    SkippedRecord,
    RepeatedRecord,
    HighWatermarkBack,
    StaleReads,
    StuckStable,
    LostCommit,
    ForgottenCommit,
    StaleGeneration,
    TwoOwners,
    ForeignRecord,
    Damage,
    ForgottenTrim,
    TimeIndex,
    RefusedButDone,
    FalseOutOfRange,
    LatestLags,
    FalseUnknownTopic,
    EpochEndsEarly,
    ZombieTopic,
    Stuck,
}

pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 32)) % bound
    }

    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

struct Topic {
    name: &'static str,
    id: String,
    from_us: u64,
    to_us: u64,
    partitions: Vec<Partition>,
}

#[derive(Clone, Default)]
struct Partition {
    start: i64,
    records: Vec<Option<Value>>,
    /// When, how long, and with which start.
    extents: Vec<(u64, i64, i64)>,
}

impl Partition {
    fn end(&self) -> i64 {
        i64::try_from(self.records.len()).unwrap()
    }

    fn changed(&mut self, now: u64) {
        self.extents.push((now, self.end(), self.start));
    }

    fn at(&self, when: u64) -> (i64, i64) {
        let extent = self.extents.iter().rev().find(|(time, ..)| *time <= when);
        extent.map_or((0, 0), |(_, end, start)| (*end, *start))
    }
}

/// One group, by the classic protocol.
#[derive(Default)]
pub(crate) struct Group {
    generation: i32,
    /// Members of this generation, and when they were last heard of.
    members: BTreeMap<String, u64>,
    /// Who joined the next one, and by which call.
    joining: BTreeMap<String, usize>,
    preparing_since: Option<u64>,
    offsets: BTreeMap<Log, i64>,
}

pub(crate) struct Broker {
    pub(crate) defect: Option<Defect>,
    pub(crate) chance: Chance,
    pub(crate) healed: bool,
    /// What the lagging broker has seen: everything up to then.
    seen_us: u64,
    topics: Vec<Topic>,
    group: Group,
}

const SESSION_US: u64 = 600;
const LAG_US: u64 = 80;

fn fail(error: &str) -> End {
    End::Fail(error.into())
}

impl Broker {
    pub(crate) fn new(seed: u64, defect: Option<Defect>) -> Self {
        Self { defect, chance: Chance(seed), healed: false, seen_us: 0, topics: Vec::new(), group: Group::default() }
    }

    pub(crate) fn hit(&mut self, defect: Defect) -> bool {
        self.defect == Some(defect) && self.chance.percent(20)
    }

    fn topic(&mut self, log: &Log, when: u64) -> Option<&mut Topic> {
        let there = |t: &&mut Topic| t.name == log.topic && t.from_us <= when && when < t.to_us;
        self.topics.iter_mut().find(|t| there(t) && log.id.as_ref().is_none_or(|id| *id == t.id))
    }

    fn partition(&mut self, log: &Log, when: u64) -> Option<&mut Partition> {
        self.topic(log, when)?.partitions.get_mut(usize::try_from(log.partition).ok()?)
    }

    /// Does what was asked, and says what there is to say.
    pub(crate) fn handle(&mut self, now: u64, broker: i32, mut what: What) -> (End, What) {
        let end = match &mut what {
            What::Send { log, values, once, offset, .. } => self.send(now, log, values, *once, offset),
            What::Poll { .. } => self.poll(now, broker, &mut what),
            What::ListOffsets { log, timestamp, offset, found_timestamp } => {
                self.list(now, log, *timestamp, offset, found_timestamp)
            }
            What::EpochEnd { log, end_offset, .. } => {
                let early = i64::from(self.hit(Defect::EpochEndsEarly));
                match self.partition(log, now) {
                    Some(partition) => {
                        *end_offset = (partition.end() - early).max(0);
                        End::Ok
                    }
                    None => fail("UNKNOWN_TOPIC_OR_PARTITION"),
                }
            }
            What::DeleteRecords { log, before, low_watermark } => {
                let forgotten = self.hit(Defect::ForgottenTrim);
                match self.partition(log, now) {
                    None => fail("UNKNOWN_TOPIC_OR_PARTITION"),
                    Some(partition) if *before > partition.end() => fail("OFFSET_OUT_OF_RANGE"),
                    Some(partition) => {
                        *low_watermark = partition.start.max(*before);
                        if !forgotten {
                            partition.start = *low_watermark;
                            partition.changed(now);
                        }
                        End::Ok
                    }
                }
            }
            What::CreateTopic { topic, id, partitions } => self.create(now, topic, id, *partitions),
            What::DeleteTopic { topic, .. } => {
                let zombie = self.hit(Defect::ZombieTopic);
                match self.topic(&Log { topic: topic.clone(), id: None, partition: 0 }, now) {
                    Some(topic) => {
                        if !zombie {
                            topic.to_us = now;
                            let name = topic.name;
                            self.group.offsets.retain(|log, _| log.topic != name);
                        }
                        End::Ok
                    }
                    None => fail("UNKNOWN_TOPIC_OR_PARTITION"),
                }
            }
            What::Describe { topic, found } => {
                let unknown = self.hit(Defect::FalseUnknownTopic);
                let log = Log { topic: topic.clone(), id: None, partition: 0 };
                let told = |t: &mut Topic| (t.id.clone(), i32::try_from(t.partitions.len()).unwrap());
                *found = self.topic(&log, now).filter(|_| !unknown).map(told);
                End::Ok
            }
            What::Heartbeat { member, generation, .. } => self.member(now, &member.clone(), *generation, false),
            What::Commit { member, generation, offsets, .. } => {
                let end = self.member(now, &member.clone(), *generation, true);
                if end == End::Ok && !self.hit(Defect::LostCommit) {
                    let there = offsets.iter().filter_map(|commit| Some((commit.log.clone(), commit.offset?)));
                    self.group.offsets.extend(there);
                }
                end
            }
            What::Committed { offsets, .. } => {
                let forgotten = self.hit(Defect::ForgottenCommit);
                for Commit { log, offset, .. } in offsets {
                    *offset = self.group.offsets.get(log).copied().filter(|_| !forgotten);
                }
                End::Ok
            }
            What::Left { member, .. } => {
                self.group.joining.remove(member);
                self.group.members.remove(member);
                self.group.preparing_since.get_or_insert(now);
                End::Ok
            }
            other => unreachable!("nobody asks {other:?}"),
        };
        (end, what)
    }

    fn create(&mut self, now: u64, topic: &str, id: &mut Option<String>, partitions: i32) -> End {
        let log = Log { topic: topic.into(), id: None, partition: 0 };
        if self.topic(&log, now).is_some() {
            return fail("TOPIC_ALREADY_EXISTS");
        }
        let name = if topic == "stable" { "stable" } else { "deleted" };
        let made = format!("{name}{}", self.topics.len());
        *id = Some(made.clone());
        let partitions = vec![Partition::default(); usize::try_from(partitions).unwrap()];
        self.topics.push(Topic { name, id: made, from_us: now, to_us: u64::MAX, partitions });
        End::Ok
    }

    fn send(&mut self, now: u64, log: &Log, values: &[Value], once: bool, offset: &mut Option<i64>) -> End {
        let forget = self.hit(Defect::AckWithoutWrite);
        let twice = once && self.hit(Defect::DuplicateOnRetry);
        let torn = self.hit(Defect::TornBatch);
        let (dropped, lost) = (self.hit(Defect::DroppedRecord), self.hit(Defect::LostTail));
        let (zero, refused) = (self.hit(Defect::OffsetZero), self.hit(Defect::RefusedButDone));
        let Some(partition) = self.partition(log, now) else { return fail("UNKNOWN_TOPIC_OR_PARTITION") };
        if lost && partition.end() > partition.start {
            partition.records.pop();
        }
        *offset = Some(if zero { 0 } else { partition.end() });
        let count = if torn { 1 } else { values.len() };
        if !forget {
            for _ in 0..=u32::from(twice) {
                partition.records.extend(values[..count].iter().cloned().map(Some));
            }
            if dropped && let Some(last) = partition.records.last_mut() {
                *last = None;
            }
        }
        partition.changed(now);
        if refused { fail("INVALID_TIMESTAMP") } else { End::Ok }
    }

    fn poll(&mut self, now: u64, broker: i32, what: &mut What) -> End {
        let What::Poll { log, from, next, records, high_watermark, last_stable_offset, log_start_offset, .. } = what
        else {
            unreachable!()
        };
        let lag = if self.defect == Some(Defect::StaleReads) { 20 * LAG_US } else { LAG_US };
        let when = if broker == 0 || self.healed { now } else { now.saturating_sub(lag).max(self.seen_us) };
        let (skip, repeat) = (self.hit(Defect::SkippedRecord), self.hit(Defect::RepeatedRecord));
        let (back, stuck) = (self.hit(Defect::HighWatermarkBack), self.hit(Defect::StuckStable));
        let (foreign, damaged) = (self.hit(Defect::ForeignRecord), self.hit(Defect::Damage));
        let other = Log { partition: 1 - log.partition, ..log.clone() };
        let stranger = self.partition(&other, when).and_then(|other| other.records.last().cloned().flatten());
        let out_of_range = self.hit(Defect::FalseOutOfRange);
        let extent = self.partition(log, when).map(|partition| partition.at(when));
        // What a lagging broker does not know, it looks up before it says no.
        let fits = extent.is_some_and(|(end, start)| (start..=end).contains(from));
        let when = if fits { when } else { now };
        if broker == 1 {
            self.seen_us = when;
        }
        let Some(partition) = self.partition(log, when) else { return fail("UNKNOWN_TOPIC_OR_PARTITION") };
        let (mut end, start) = partition.at(when);
        if out_of_range || !(start..=end).contains(from) {
            return fail("OFFSET_OUT_OF_RANGE");
        }
        if back {
            end = (end - 3).max(0);
        }
        let first = if repeat { (*from - 1).max(0) } else { *from };
        let seen = |(offset, value): (i64, Option<Value>)| {
            let value = value?;
            Some(Seen { offset, timestamp_ms: value.timestamp_ms, leader_epoch: None, value: Ok(value) })
        };
        // A truncated log may end before what was true a while ago.
        let last = first.saturating_add(5).min(end).min(partition.end());
        let range = usize::try_from(first).unwrap()..usize::try_from(last.max(first)).unwrap();
        let all = partition.records.get(range).unwrap_or_default().iter().cloned();
        *records = (first..).zip(all).filter_map(seen).collect();
        *next = (*from).max(last);
        (*high_watermark, *last_stable_offset, *log_start_offset) = (end, end - i64::from(stuck && end > 0), start);
        if skip && records.len() > 1 {
            records.remove(0);
        }
        if let Some(first) = records.first_mut() {
            if let Some(stranger) = stranger.filter(|_| foreign) {
                first.timestamp_ms = stranger.timestamp_ms;
                first.value = Ok(stranger);
            }
            if damaged {
                first.value = Err(Broken("damaged".into()));
            }
        }
        End::Ok
    }

    fn list(&mut self, now: u64, log: &Log, timestamp: i64, offset: &mut i64, found: &mut i64) -> End {
        let (lags, wrong) = (self.hit(Defect::LatestLags), self.hit(Defect::TimeIndex));
        let Some(partition) = self.partition(log, now) else { return fail("UNKNOWN_TOPIC_OR_PARTITION") };
        let start = usize::try_from(partition.start).unwrap();
        let all = (partition.start..).zip(&partition.records[start.min(partition.records.len())..]);
        let mut all = all.filter_map(|(offset, value)| Some((offset, value.as_ref()?.timestamp_ms)));
        let none = (-1, -1);
        (*offset, *found) = match timestamp {
            -1 => ((partition.end() - if lags { 2 } else { 0 }).max(0), -1),
            -2 => (partition.start, -1),
            -3 => all.max_by_key(|(offset, time)| (*time, -offset)).unwrap_or(none),
            time if wrong => all.filter(|(_, own)| *own >= time).nth(1).unwrap_or(none),
            time => all.find(|(_, own)| *own >= time).unwrap_or(none),
        };
        End::Ok
    }

    fn member(&mut self, now: u64, member: &str, generation: i32, commit: bool) -> End {
        let lenient = self.hit(Defect::StaleGeneration);
        let group = &mut self.group;
        let known = group.members.contains_key(member);
        if lenient && generation < group.generation {
            return End::Ok;
        }
        match () {
            () if !known => fail("UNKNOWN_MEMBER_ID"),
            () if generation != group.generation => fail("ILLEGAL_GENERATION"),
            () => {
                group.members.insert(member.into(), now);
                if group.preparing_since.is_some() && !commit { fail("REBALANCE_IN_PROGRESS") } else { End::Ok }
            }
        }
    }

    /// A member wants to join; the answer comes from `rebalance`.
    pub(crate) fn join(&mut self, now: u64, member: &str, call: usize) {
        self.group.joining.insert(member.into(), call);
        self.group.preparing_since.get_or_insert(now);
    }

    /// Expels who is silent, and ends a rebalance if all are there: the calls that are answered, with generation and logs.
    pub(crate) fn rebalance(&mut self, now: u64) -> Vec<(usize, i32, Vec<Log>)> {
        let everything = self.hit(Defect::TwoOwners);
        let group = &mut self.group;
        let before = group.members.len();
        group.members.retain(|member, seen| *seen + SESSION_US > now || group.joining.contains_key(member));
        if group.members.len() < before {
            group.preparing_since.get_or_insert(now);
        }
        let Some(since) = group.preparing_since else { return Vec::new() };
        let missing: BTreeSet<&String> =
            group.members.keys().filter(|member| !group.joining.contains_key(*member)).collect();
        if !missing.is_empty() && now < since + SESSION_US / 2 {
            return Vec::new();
        }
        let joined = std::mem::take(&mut group.joining);
        group.preparing_since = None;
        group.generation += 1;
        group.members = joined.keys().map(|member| (member.clone(), now)).collect();
        let count = joined.len();
        let owned = |at: usize| {
            let mine = |partition: &i32| everything || usize::try_from(*partition).unwrap() % count == at;
            let log = |partition| Log { topic: "stable".into(), id: None, partition };
            (0..2).filter(mine).map(log).collect()
        };
        let generation = group.generation;
        joined.into_values().enumerate().map(|(at, call)| (call, generation, owned(at))).collect()
    }
}
