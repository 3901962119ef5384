//! Histories in a few words: one topic `t`, made at time 0 with two partitions; values are numbered by process and
//! counter, their timestamps are 1000 + counter.
#![allow(dead_code, reason = "each test takes what it needs")]
use strandline_history::{
    Broken, Commit, End, GroupProtocol, History, Inventory, Log, Operation, Options, Rule, Seen, Value, What,
    check_with,
};

pub(crate) struct Build {
    pub(crate) history: History,
    pub(crate) options: Options,
    pub(crate) inventory: Option<Inventory>,
}

/// Histories that break the rule (it is among those found), and legal ones (nothing at all is found).
pub(crate) fn table(rule: Rule, broken: Vec<(&str, Build)>, legal: Vec<(&str, Build)>) {
    for (name, build) in broken {
        let report = check_with(&build.history, build.inventory.as_ref(), &build.options);
        assert!(report.broken().contains(&rule), "{rule}: {name} is not found:\n{report}");
        let listed = report.anomalies.iter().find(|anomaly| anomaly.rule == rule).unwrap();
        assert!(build.inventory.is_some() || !listed.operations.is_empty(), "{rule}: {name} is not proved");
    }
    for (name, build) in legal {
        let report = check_with(&build.history, build.inventory.as_ref(), &build.options);
        assert!(report.is_clean(), "{rule}: {name} is legal:\n{report}");
    }
}

pub(crate) fn log() -> Log {
    Log { topic: "t".into(), id: None, partition: 0 }
}

pub(crate) fn log_id(id: &str) -> Log {
    Log { id: Some(id.into()), ..log() }
}

pub(crate) fn value(process: u32, counter: u64) -> Value {
    let timestamp_ms = 1000 + i64::try_from(counter).unwrap();
    Value { run: 1, process, counter, topic: "t".into(), partition: 0, timestamp_ms, source: None, deletes: false }
}

pub(crate) fn seen(offset: i64, process: u32, counter: u64) -> Seen {
    let value = value(process, counter);
    Seen { offset, timestamp_ms: value.timestamp_ms, leader_epoch: None, value: Ok(value) }
}

pub(crate) fn broken(offset: i64) -> Seen {
    Seen { offset, timestamp_ms: 0, leader_epoch: None, value: Err(Broken("the checksum is wrong".into())) }
}

pub(crate) fn send(process: u32, counters: &[u64], offset: Option<i64>) -> What {
    let values = counters.iter().map(|counter| value(process, *counter)).collect();
    What::Send { log: log(), values, once: true, acked: true, offset, transaction: None }
}

/// The same, to the topic with that id.
pub(crate) fn to(what: What, to: Log) -> What {
    match what {
        What::Send { values, once, acked, offset, transaction, .. } => {
            What::Send { log: to, values, once, acked, offset, transaction }
        }
        What::Poll {
            position_of,
            from,
            next,
            records,
            high_watermark,
            last_stable_offset,
            log_start_offset,
            read_committed,
            ..
        } => What::Poll {
            log: to,
            position_of,
            from,
            next,
            records,
            high_watermark,
            last_stable_offset,
            log_start_offset,
            read_committed,
        },
        other => other,
    }
}

pub(crate) fn plain(what: What) -> What {
    match what {
        What::Send { log, values, acked, offset, transaction, .. } => {
            What::Send { log, values, once: false, acked, offset, transaction }
        }
        other => other,
    }
}

/// Sent once, and nobody asked for an answer.
pub(crate) fn unacked(what: What) -> What {
    match what {
        What::Send { log, values, offset, transaction, .. } => {
            What::Send { log, values, once: false, acked: false, offset, transaction }
        }
        other => other,
    }
}

/// A fetch from an offset: its records are (offset, process, counter), it goes on behind the last one, and `end` is the
/// high watermark.
pub(crate) fn poll(from: i64, records: &[(i64, u32, u64)], end: i64) -> What {
    poll_as(0, from, records.iter().map(|(offset, process, counter)| seen(*offset, *process, *counter)).collect(), end)
}

pub(crate) fn poll_as(position_of: u64, from: i64, records: Vec<Seen>, end: i64) -> What {
    let next = records.last().map_or(from, |last| last.offset + 1);
    What::Poll {
        log: log(),
        position_of,
        from,
        next,
        records,
        high_watermark: end,
        last_stable_offset: end,
        log_start_offset: -1,
        read_committed: false,
    }
}

pub(crate) fn starts_at(what: What, start: i64) -> What {
    match what {
        What::Poll { log, position_of, from, next, records, high_watermark, .. } => What::Poll {
            log,
            position_of,
            from,
            next,
            records,
            high_watermark,
            last_stable_offset: high_watermark,
            log_start_offset: start,
            read_committed: false,
        },
        other => other,
    }
}

pub(crate) fn list(timestamp: i64, offset: i64, found_timestamp: i64) -> What {
    What::ListOffsets { log: log(), timestamp, offset, found_timestamp }
}

pub(crate) fn trim(before: i64, low_watermark: i64) -> What {
    What::DeleteRecords { log: log(), before, low_watermark }
}

pub(crate) fn describe(found: Option<(&str, i32)>) -> What {
    What::Describe { topic: "t".into(), found: found.map(|(id, count)| (id.to_owned(), count)) }
}

pub(crate) fn delete() -> What {
    What::DeleteTopic { topic: "t".into(), id: None }
}

pub(crate) fn create() -> What {
    What::CreateTopic { topic: "t".into(), id: None, partitions: 2 }
}

pub(crate) fn assigned(member: &str, generation: i32) -> What {
    let (group, member) = ("g".into(), member.into());
    What::Assigned { group, member, instance: None, protocol: GroupProtocol::Classic, generation, logs: vec![log()] }
}

/// The same by the newer protocol.
pub(crate) fn newer(what: What) -> What {
    match what {
        What::Assigned { group, member, instance, generation, logs, .. } => {
            What::Assigned { group, member, instance, protocol: GroupProtocol::Consumer, generation, logs }
        }
        other => other,
    }
}

pub(crate) fn as_instance(what: What, instance: &str) -> What {
    match what {
        What::Assigned { group, member, protocol, generation, logs, .. } => {
            What::Assigned { group, member, instance: Some(instance.into()), protocol, generation, logs }
        }
        other => other,
    }
}

pub(crate) fn owning_nothing(what: What) -> What {
    match what {
        What::Assigned { group, member, instance, protocol, generation, .. } => {
            What::Assigned { group, member, instance, protocol, generation, logs: Vec::new() }
        }
        other => other,
    }
}

pub(crate) fn heartbeat(member: &str, generation: i32) -> What {
    What::Heartbeat { group: "g".into(), member: member.into(), generation }
}

pub(crate) fn left(member: &str) -> What {
    What::Left { group: "g".into(), member: member.into() }
}

pub(crate) fn commit(member: &str, generation: i32, offset: i64) -> What {
    let offsets = vec![Commit { log: log(), offset: Some(offset), metadata: None }];
    What::Commit { group: "g".into(), member: member.into(), generation, offsets }
}

pub(crate) fn committed(offset: Option<i64>) -> What {
    What::Committed { group: "g".into(), offsets: vec![Commit { log: log(), offset, metadata: None }] }
}

/// The same, with that text.
pub(crate) fn said(mut what: What, text: &str) -> What {
    if let What::Commit { offsets, .. } | What::Committed { offsets, .. } = &mut what {
        offsets.iter_mut().for_each(|commit| commit.metadata = Some(text.to_owned()));
    }
    what
}

/// The producer of the transactional id `x`, whose time-out is 1 ms.
pub(crate) fn init(epoch: i16) -> What {
    What::InitProducer { transactional_id: Some("x".into()), producer_id: 7, epoch, timeout_ms: 1 }
}

/// The same, of another transactional id.
pub(crate) fn init_as(id: &str) -> What {
    What::InitProducer { transactional_id: Some(id.into()), producer_id: 8, epoch: 0, timeout_ms: 1 }
}

/// A send that is part of its process' transaction of that number.
pub(crate) fn within(number: u64, what: What) -> What {
    match what {
        What::Send { log, values, once, acked, offset, .. } => {
            What::Send { log, values, once, acked, offset, transaction: Some(number) }
        }
        other => other,
    }
}

/// A send of a value that was made from that of `source`.
pub(crate) fn made_from(mut what: What, source: (u32, u64)) -> What {
    if let What::Send { values, .. } = &mut what {
        values.iter_mut().for_each(|value| value.source = Some(source));
    }
    what
}

pub(crate) fn ended(number: u64, commit: bool) -> What {
    What::EndTransaction { transaction: number, commit }
}

/// The offset that group `g` gets with the transaction.
pub(crate) fn sent_offset(number: u64, offset: i64) -> What {
    let offsets = vec![Commit { log: log(), offset: Some(offset), metadata: None }];
    What::SendOffsets { transaction: number, group: "g".into(), member: String::new(), generation: -1, offsets }
}

/// A fetch of committed records: those given, and on to `next`; stable is all below it, and `end` is the high watermark.
pub(crate) fn poll_committed(from: i64, records: &[(i64, u32, u64)], next: i64, end: i64) -> What {
    let records = records.iter().map(|(offset, process, counter)| seen(*offset, *process, *counter)).collect();
    What::Poll {
        log: log(),
        position_of: 0,
        from,
        next,
        records,
        high_watermark: end,
        last_stable_offset: next,
        log_start_offset: -1,
        read_committed: true,
    }
}

/// A fetch that goes on at `next`.
pub(crate) fn on_to(mut what: What, to: i64) -> What {
    if let What::Poll { next, .. } = &mut what {
        *next = to;
    }
    what
}

impl Build {
    pub(crate) fn new() -> Self {
        let options = Options { poll_lag_us: 100, end_lag_us: 100, liveness_us: 1000, ..Options::default() };
        Self { history: History { run: 1, ..History::default() }, options, inventory: None }.ok(99, (0, 1), create())
    }

    fn push(
        mut self,
        process: u32,
        start_us: u64,
        end_us: Option<u64>,
        broker: Option<i32>,
        end: End,
        what: What,
    ) -> Self {
        let id = self.history.operations.len() as u64;
        self.history.operations.push(Operation { id, process, start_us, end_us, broker, end, what });
        self
    }

    /// From and to: in microseconds.
    pub(crate) fn ok(self, process: u32, (from, to): (u64, u64), what: What) -> Self {
        self.push(process, from, Some(to), None, End::Ok, what)
    }

    pub(crate) fn ok_by(self, broker: i32, process: u32, (from, to): (u64, u64), what: What) -> Self {
        self.push(process, from, Some(to), Some(broker), End::Ok, what)
    }

    pub(crate) fn fail(self, process: u32, (from, to): (u64, u64), error: &str, what: What) -> Self {
        self.push(process, from, Some(to), None, End::Fail(error.into()), what)
    }

    pub(crate) fn fail_by(self, broker: i32, process: u32, (from, to): (u64, u64), error: &str, what: What) -> Self {
        self.push(process, from, Some(to), Some(broker), End::Fail(error.into()), what)
    }

    pub(crate) fn info(self, process: u32, from: u64, what: What) -> Self {
        self.push(process, from, None, None, End::Info("REQUEST_TIMED_OUT".into()), what)
    }

    /// The last of its attempts was answered with an error, and nobody knows of the others.
    pub(crate) fn doubtful(self, process: u32, (from, to): (u64, u64), error: &str, what: What) -> Self {
        self.push(process, from, Some(to), None, End::Info(error.into()), what)
    }

    pub(crate) fn healed(mut self, at: u64) -> Self {
        self.history.healed_us = Some(at);
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }
}
