//! What the rules look things up in: which operation concerns which log, what stood at which offset, and the bounds that
//! hold in real time.
use std::collections::{BTreeSet, HashMap};

use super::Options;
use super::bounds::{Ceiling, Rising};
use super::eras::{Spans, deletions, ids_of_eras};
use super::keys::gone_from;
use super::transactions::Transactions;
use crate::operation::{End, History, Log, Operation, Seen, What};
use crate::payload::Value;

/// Stands for no log, no value.
pub(super) const NONE: u32 = u32::MAX;
/// The value of a record that is broken or that nobody sent.
pub(super) const UNKNOWN: u32 = u32::MAX - 1;

pub(super) struct Facts<'a> {
    /// In the order in which they began.
    pub(super) operations: Vec<&'a Operation>,
    pub(super) healed_us: Option<u64>,
    pub(super) options: &'a Options,
    pub(super) deletions: HashMap<&'a str, Spans>,
    pub(super) logs: Vec<LogFacts<'a>>,
    /// Of each operation, the index of its log, or `NONE`.
    pub(super) placed: Vec<u32>,
    /// Of each fetch, the one before it that it goes on from, or `NONE`. They may concern different logs of one name.
    pub(super) follows: Vec<u32>,
    /// Of each value, the operation that sent it, and where in the batch.
    pub(super) sent: Vec<(u32, u32)>,
    /// Of each value, whether some reader got it.
    pub(super) read: Vec<bool>,
    /// Topics whose records carry the broker's times.
    pub(super) broker_time: BTreeSet<&'a str>,
    pub(super) transactions: Transactions,
    values: HashMap<(u32, u64), u32>,
}

/// One log, as the operations on it show it. Operations are given by their index in the history.
pub(super) struct LogFacts<'a> {
    pub(super) topic: &'a str,
    /// `None` where no operation told it.
    pub(super) id: Option<&'a str>,
    pub(super) partition: i32,
    pub(super) sends: Vec<u32>,
    pub(super) polls: Vec<u32>,
    pub(super) lookups: Vec<u32>,
    pub(super) epoch_ends: Vec<u32>,
    pub(super) trims: Vec<u32>,
    /// Sorted by offset, then value; each pair once.
    pub(super) contents: Vec<Entry>,
    /// The log's end, by all answers.
    pub(super) ends: Rising,
    /// The log's end, by what producers were answered.
    pub(super) acked: Rising,
    /// The log start, by all answers.
    pub(super) starts: Rising,
    /// What DeleteRecords asked for, by when.
    trims_asked: Rising,
    starts_later: Ceiling,
    /// Of records that vanish by time, until when each is certainly there; `None` where they do not vanish so.
    pub(super) kept: Option<Ceiling>,
    /// By position in `contents`, from when on the record may be gone, in µs; `None` where all are kept.
    pub(super) gone_from: Option<Vec<u64>>,
}

/// One value at one offset.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) offset: i64,
    pub(super) value: u32,
    /// The operation that told of it: a poll if there is one.
    pub(super) operation: u32,
    pub(super) read: bool,
    /// `i64::MIN` where it is not known.
    pub(super) timestamp_ms: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place<'a> {
    Id(&'a str),
    Era(usize),
}

/// When the operation certainly was over; `u64::MAX` if nobody knows.
pub(super) fn end_of(operation: &Operation) -> u64 {
    match operation.end {
        End::Ok | End::Fail(_) => operation.end_us.unwrap_or(u64::MAX),
        End::Info(_) => u64::MAX,
    }
}

pub(super) fn log_of(what: &What) -> Option<&Log> {
    match what {
        What::Send { log, .. }
        | What::Poll { log, .. }
        | What::ListOffsets { log, .. }
        | What::EpochEnd { log, .. }
        | What::DeleteRecords { log, .. } => Some(log),
        _ => None,
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("fewer than four thousand million of anything")
}

impl<'a> Facts<'a> {
    pub(super) fn gather(history: &'a History, options: &'a Options) -> Self {
        let mut operations: Vec<&Operation> = history.operations.iter().collect();
        operations.sort_by_key(|operation| (operation.start_us, operation.id));
        let mut facts = Self {
            healed_us: history.healed_us,
            options,
            deletions: deletions(&operations),
            logs: Vec::new(),
            placed: Vec::new(),
            follows: follows(&operations),
            sent: Vec::new(),
            read: Vec::new(),
            broker_time: broker_time(&operations),
            transactions: Transactions::default(),
            values: HashMap::new(),
            operations,
        };
        facts.place();
        facts.know_values();
        let mut trims: HashMap<(&str, i32), Vec<u32>> = HashMap::new();
        for (number, operation) in (0..).zip(&facts.operations) {
            if let What::DeleteRecords { log, .. } = &operation.what {
                trims.entry((&log.topic, log.partition)).or_default().push(number);
            }
        }
        for at in 0..facts.logs.len() {
            let by_name = trims.get(&(facts.logs[at].topic, facts.logs[at].partition));
            facts.fill(at, by_name.map_or(&[], Vec::as_slice));
        }
        facts.transactions = Transactions::gather(&facts);
        let all_gone: Vec<_> = facts.logs.iter().map(|log| gone_from(&facts, log)).collect();
        for (log, gone) in facts.logs.iter_mut().zip(all_gone) {
            log.gone_from = gone;
        }
        facts
    }

    /// The operation's number in reports.
    pub(super) fn id(&self, operation: u32) -> u64 {
        self.operations[operation as usize].id
    }

    pub(super) fn op(&self, operation: u32) -> &'a Operation {
        self.operations[operation as usize]
    }

    /// The value's number, `UNKNOWN` if the record is broken or nobody sent it.
    pub(super) fn value_of(&self, seen: &Seen) -> u32 {
        let Ok(value) = &seen.value else { return UNKNOWN };
        let Some(at) = self.values.get(&(value.process, value.counter)) else { return UNKNOWN };
        let (operation, position) = self.sent[*at as usize];
        match &self.op(operation).what {
            What::Send { values, .. } if values[position as usize] == *value => *at,
            _ => UNKNOWN,
        }
    }

    /// The number of what that process sent under that counter; `UNKNOWN` if it did not.
    pub(super) fn value_by(&self, (process, counter): (u32, u64)) -> u32 {
        self.values.get(&(process, counter)).copied().unwrap_or(UNKNOWN)
    }

    /// The value of that number.
    pub(super) fn value(&self, number: u32) -> Option<&'a Value> {
        let (operation, position) = self.sent.get(number as usize)?;
        let What::Send { values, .. } = &self.op(*operation).what else { return None };
        values.get(*position as usize)
    }

    /// Whether some reader got it.
    pub(super) fn was_read(&self, value: &Value) -> bool {
        let number = self.values.get(&(value.process, value.counter));
        number.and_then(|number| self.read.get(*number as usize)).is_some_and(|read| *read)
    }

    /// The value as people read it.
    pub(super) fn name(&self, value: u32) -> String {
        let Some(value) = self.value(value) else { return "a foreign record".into() };
        format!("value {}/{}", value.process, value.counter)
    }

    fn place(&mut self) {
        let era = |operation: &Operation, topic: &str| {
            // What is read by name may be answered by a broker that has not yet heard of a deletion.
            let may_lag = matches!(operation.what, What::Poll { .. } | What::Describe { .. });
            let lag = if may_lag { self.options.poll_lag_us } else { 0 };
            let start_us = operation.start_us.saturating_sub(lag);
            self.deletions.get(topic).map_or(Some(0), |deletions| deletions.era(start_us, end_of(operation)))
        };
        let ids = ids_of_eras(&self.operations, &era);
        let mut known: HashMap<(&str, Place<'_>, i32), u32> = HashMap::new();
        let (mut logs, mut placed) = (Vec::new(), Vec::with_capacity(self.operations.len()));
        for (at, operation) in self.operations.iter().enumerate() {
            let Some(log) = log_of(&operation.what) else {
                placed.push(NONE);
                continue;
            };
            let place = match &log.id {
                Some(id) => Some(Place::Id(id)),
                None => era(operation, &log.topic).map(|era| match ids.get(&(log.topic.as_str(), era)) {
                    Some(Some(id)) => Place::Id(id),
                    _ => Place::Era(era),
                }),
            };
            let Some(place) = place else {
                placed.push(NONE);
                continue;
            };
            let number = *known.entry((&log.topic, place, log.partition)).or_insert_with(|| {
                logs.push(LogFacts::new(log, place));
                index(logs.len() - 1)
            });
            placed.push(number);
            let (log, at) = (&mut logs[number as usize], index(at));
            match operation.what {
                What::Send { .. } => log.sends.push(at),
                What::Poll { .. } => log.polls.push(at),
                What::ListOffsets { .. } => log.lookups.push(at),
                What::EpochEnd { .. } => log.epoch_ends.push(at),
                _ => log.trims.push(at),
            }
        }
        (self.logs, self.placed) = (logs, placed);
    }

    fn know_values(&mut self) {
        for (at, operation) in self.operations.iter().enumerate() {
            let What::Send { values, .. } = &operation.what else { continue };
            for (position, value) in values.iter().enumerate() {
                let number = index(self.sent.len());
                self.values.entry((value.process, value.counter)).or_insert(number);
                self.sent.push((index(at), index(position)));
            }
        }
        self.read = vec![false; self.sent.len()];
        for operation in self.operations.iter().filter(|operation| operation.end == End::Ok) {
            let What::Poll { records, .. } = &operation.what else { continue };
            for seen in records {
                let value = self.value_of(seen);
                if let Some(read) = self.read.get_mut(value as usize) {
                    *read = true;
                }
            }
        }
    }

    /// Contents and bounds of one log. `trims` are all of its name, which may have reached it.
    fn fill(&mut self, at: usize, trims: &[u32]) {
        let mut log = std::mem::replace(&mut self.logs[at], LogFacts::empty());
        let mut entries = Vec::new();
        for list in [&log.sends, &log.polls] {
            for &operation in list {
                self.entries(operation, &mut entries);
            }
        }
        entries.sort_unstable_by_key(|entry: &Entry| (entry.offset, entry.value, !entry.read, entry.operation));
        entries.dedup_by_key(|entry| (entry.offset, entry.value));
        entries.shrink_to_fit();
        log.contents = entries;
        let lists = [&log.sends, &log.polls, &log.lookups, &log.epoch_ends, &log.trims];
        let all: Vec<u32> = lists.into_iter().flatten().copied().collect();
        for operation in all {
            self.bound(operation, &mut log);
        }
        for &trim in trims {
            self.trim_asked(trim, &mut log);
        }
        for rising in [&mut log.ends, &mut log.acked, &mut log.starts, &mut log.trims_asked] {
            rising.seal();
        }
        log.starts_later.seal();
        log.kept = kept(&log, self.options);
        self.logs[at] = log;
    }

    fn entries(&self, number: u32, entries: &mut Vec<Entry>) {
        let operation = self.op(number);
        match &operation.what {
            What::Send { log, values, offset: Some(offset @ 0..), .. } if operation.end == End::Ok => {
                let by_broker = self.options.log_append_time || self.broker_time.contains(log.topic.as_str());
                for (offset, value) in (*offset..).zip(values) {
                    let timestamp_ms = if by_broker { i64::MIN } else { value.timestamp_ms };
                    let value = self.values[&(value.process, value.counter)];
                    entries.push(Entry { offset, value, operation: number, read: false, timestamp_ms });
                }
            }
            What::Poll { records, .. } if operation.end == End::Ok => {
                entries.extend(records.iter().map(|seen| Entry {
                    offset: seen.offset,
                    value: self.value_of(seen),
                    operation: number,
                    read: true,
                    timestamp_ms: seen.timestamp_ms,
                }));
            }
            _ => {}
        }
    }

    fn trim_asked(&self, number: u32, log: &mut LogFacts<'a>) {
        let operation = self.op(number);
        let What::DeleteRecords { log: named, before, low_watermark } = &operation.what else { return };
        // A request by name may be delayed until the name is another log's.
        if named.id.is_some() && named.id.as_deref() != log.id {
            return;
        }
        let asked = match operation.end {
            End::Fail(_) => return,
            End::Ok => (*before).max(*low_watermark),
            End::Info(_) if *before < 0 => i64::MAX,
            End::Info(_) => *before,
        };
        log.trims_asked.tell(operation.start_us, asked, number);
    }

    fn bound(&self, number: u32, log: &mut LogFacts<'a>) {
        let operation = self.op(number);
        let (start, end) = (operation.start_us, end_of(operation));
        if operation.end != End::Ok {
            return;
        }
        match &operation.what {
            What::Send { values, offset: Some(offset @ 0..), .. } => {
                let next = offset.saturating_add(i64::try_from(values.len()).unwrap_or(i64::MAX));
                log.ends.tell(end, next, number);
                log.acked.tell(end, next, number);
            }
            What::Poll { records, high_watermark, log_start_offset, .. } => {
                let last = records.last().map_or(0, |seen| seen.offset.saturating_add(1));
                log.ends.tell(end, last.max(*high_watermark), number);
                if *log_start_offset >= 0 {
                    log.starts.tell(end, *log_start_offset, number);
                    log.starts_later.tell(start.saturating_sub(self.options.poll_lag_us), *log_start_offset);
                }
            }
            What::ListOffsets { timestamp: -1, offset, .. } => log.ends.tell(end, *offset, number),
            What::ListOffsets { timestamp: -2, offset, .. } => {
                log.starts.tell(end, *offset, number);
                log.starts_later.tell(start, *offset);
            }
            What::ListOffsets { offset: offset @ 0.., .. } => log.ends.tell(end, offset.saturating_add(1), number),
            What::EpochEnd { end_offset, .. } => log.ends.tell(end, *end_offset, number),
            What::DeleteRecords { low_watermark, .. } => {
                log.ends.tell(end, *low_watermark, number);
                log.starts.tell(end, *low_watermark, number);
                log.starts_later.tell(start, *low_watermark);
            }
            _ => {}
        }
    }
}

impl<'a> LogFacts<'a> {
    fn empty() -> Self {
        Self {
            topic: "",
            id: None,
            partition: 0,
            sends: Vec::new(),
            polls: Vec::new(),
            lookups: Vec::new(),
            epoch_ends: Vec::new(),
            trims: Vec::new(),
            contents: Vec::new(),
            ends: Rising::default(),
            acked: Rising::default(),
            starts: Rising::default(),
            trims_asked: Rising::default(),
            starts_later: Ceiling::default(),
            kept: None,
            gone_from: None,
        }
    }

    fn new(log: &'a Log, place: Place<'a>) -> Self {
        let id = if let Place::Id(id) = place { Some(id) } else { None };
        Self { topic: &log.topic, id, partition: log.partition, ..Self::empty() }
    }

    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }

    /// The highest that the log start can have been at any time up to then; `i64::MAX` where anything is possible.
    pub(super) fn start_possible(&self, until_us: u64, options: &Options) -> i64 {
        let later = self.starts_later.from(until_us);
        if options.retention {
            return later;
        }
        let asked = self.trims_asked.before(until_us.saturating_add(1)).map_or(0, |(asked, _)| asked);
        let expired = self.kept.as_ref().map_or(0, |kept| kept.from(until_us));
        asked.max(expired).min(later)
    }

    /// Whether the record at that position of `contents` may be gone by then, as another of its key lies behind it.
    pub(super) fn may_be_gone(&self, position: usize, by_us: u64) -> bool {
        self.gone_from.as_ref().is_some_and(|gone_from| gone_from[position] <= by_us)
    }

    /// Whether the record at that position is there for ever.
    pub(super) fn stays(&self, position: usize) -> bool {
        self.gone_from.as_ref().is_none_or(|gone_from| gone_from[position] == u64::MAX)
    }

    /// Where in `contents` the first entry at or behind that offset is.
    pub(super) fn position(&self, offset: i64) -> usize {
        self.contents.partition_point(|entry| entry.offset < offset)
    }
}

fn kept(log: &LogFacts<'_>, options: &Options) -> Option<Ceiling> {
    let expiry = options.expiry.as_ref()?;
    let kept_ms = expiry.kept_ms.get(log.topic)?;
    let mut kept = Ceiling::default();
    for entry in log.contents.iter().filter(|entry| entry.timestamp_ms != i64::MIN) {
        let until_ms = entry.timestamp_ms.saturating_add(*kept_ms) - expiry.wall_ms - expiry.ahead_ms;
        kept.tell(u64::try_from(until_ms).unwrap_or(0).saturating_mul(1000), entry.offset);
    }
    kept.seal();
    Some(kept)
}

fn follows(operations: &[&Operation]) -> Vec<u32> {
    let mut last: HashMap<(u32, u64, &str, i32), u32> = HashMap::new();
    let mut follows = vec![NONE; operations.len()];
    for (at, operation) in operations.iter().enumerate() {
        if let What::Poll { log, position_of, .. } = &operation.what
            && operation.end == End::Ok
        {
            let chain = (operation.process, *position_of, log.topic.as_str(), log.partition);
            follows[at] = last.insert(chain, index(at)).unwrap_or(NONE);
        }
    }
    follows
}

fn broker_time<'a>(operations: &[&'a Operation]) -> BTreeSet<&'a str> {
    let mut topics = BTreeSet::new();
    for operation in operations {
        match &operation.what {
            What::AlterConfig { name, key, .. } if key == "message.timestamp.type" => topics.insert(name.as_str()),
            What::DescribeConfig { name, values } if values.contains_key("message.timestamp.type") => {
                topics.insert(name.as_str())
            }
            _ => false,
        };
    }
    topics
}
