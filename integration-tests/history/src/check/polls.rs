//! What readers are told, answer after answer: A13 and A14 (order), A12 (between answers), A18, A19, A31 (how far the log
//! goes), A27 (where it begins).
use std::collections::HashMap;

use super::bounds::Rising;
use super::facts::{Entry, Facts, LogFacts, NONE, end_of};
use super::loss::missing;
use super::report::{Report, Rule};
use crate::operation::{End, Operation, What};

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    for (at, log) in (0..).zip(&facts.logs) {
        let told = by_broker(facts, log);
        let (stable, fresh) = (stable(facts, log), Fresh::new(facts, log));
        for &poll in log.polls.iter().filter(|poll| facts.op(**poll).end == End::Ok) {
            offsets(facts, log, poll, report);
            follows(facts, (at, log), poll, report);
            extent(facts, log, poll, &told, report);
            beginning(facts, log, poll, &told, report);
            stability(facts, (at, log), poll, (&told, &stable, &fresh), report);
        }
    }
}

fn offsets(facts: &Facts<'_>, log: &LogFacts<'_>, poll: u32, report: &mut Report) {
    let What::Poll { from, next, records, .. } = &facts.op(poll).what else { return };
    if let Some(first) = records.first() {
        report.expect(Rule::A13, first.offset >= *from, &[facts.id(poll)], || {
            format!("{}: a fetch from {from} begins with {}", log.name(), first.offset)
        });
    }
    let rises = records.is_sorted_by(|one, other| one.offset < other.offset);
    let ends = records.last().is_none_or(|last| last.offset < *next);
    report.expect(Rule::A14, rises && ends, &[facts.id(poll)], || {
        let offsets: Vec<i64> = records.iter().map(|seen| seen.offset).take(50).collect();
        format!("{}: one answer has {offsets:?}, and goes on at {next}", log.name())
    });
}

/// A reader that goes on begins where it stopped.
fn follows(facts: &Facts<'_>, (at, log): (u32, &LogFacts<'_>), poll: u32, report: &mut Report) {
    let operation = facts.op(poll);
    let What::Poll { from, .. } = operation.what else { return };
    let before = facts.follows[poll as usize];
    if before == NONE || facts.placed[before as usize] != at {
        return;
    }
    let What::Poll { next, .. } = facts.op(before).what else { return };
    if end_of(facts.op(before)) > operation.start_us {
        return;
    }
    report.expect(Rule::A13, from >= next, &[facts.id(before), facts.id(poll)], || {
        format!("{}: process {} went on at {from} after {next}", log.name(), operation.process)
    });
    let start = log.start_possible(end_of(operation), facts.options);
    if next.max(start) < from {
        missing(facts, (at, log), poll, (next.max(start), from), Rule::A12, report);
    }
}

/// What one broker told.
#[derive(Default)]
struct Told {
    ends: Rising,
    acked: Rising,
    stable: Rising,
    starts: Rising,
}

fn by_broker(facts: &Facts<'_>, log: &LogFacts<'_>) -> HashMap<i32, Told> {
    let mut brokers: HashMap<i32, Told> = HashMap::new();
    let lists = [&log.sends, &log.polls, &log.lookups, &log.trims];
    for &number in lists.into_iter().flatten() {
        let operation = facts.op(number);
        let Operation { end: End::Ok, broker: Some(broker), end_us: Some(end), .. } = operation else { continue };
        let told = brokers.entry(*broker).or_default();
        match &operation.what {
            What::Send { values, offset: Some(offset @ 0..), .. } => {
                told.acked.tell(*end, offset.saturating_add(i64::try_from(values.len()).unwrap_or(i64::MAX)), number);
            }
            What::Poll { high_watermark, last_stable_offset, log_start_offset, .. } => {
                told.ends.tell(*end, *high_watermark, number);
                told.stable.tell(*end, *last_stable_offset, number);
                told.starts.tell(*end, *log_start_offset, number);
            }
            What::ListOffsets { timestamp: -1, offset, .. } => told.ends.tell(*end, *offset, number),
            What::ListOffsets { timestamp: -2, offset, .. } => told.starts.tell(*end, *offset, number),
            What::DeleteRecords { low_watermark, .. } => told.starts.tell(*end, *low_watermark, number),
            _ => {}
        }
    }
    for told in brokers.values_mut() {
        for rising in [&mut told.ends, &mut told.acked, &mut told.stable, &mut told.starts] {
            rising.seal();
        }
    }
    brokers
}

fn extent(facts: &Facts<'_>, log: &LogFacts<'_>, poll: u32, told: &HashMap<i32, Told>, report: &mut Report) {
    let operation = facts.op(poll);
    let What::Poll { high_watermark, from, ref records, .. } = operation.what else { return };
    let now = operation.start_us.saturating_sub(facts.options.own_lag_us);
    let at_the_end = records.is_empty() && from >= high_watermark;
    let lag_us = if at_the_end { facts.options.end_lag_us } else { facts.options.poll_lag_us };
    let earlier = operation.start_us.saturating_sub(lag_us);
    let own = operation.broker.and_then(|broker| told.get(&broker));
    let mut expect = |rule, value: i64, bound: Option<(i64, u32)>, what: &str| {
        let (true, Some((bound, teller))) = (value >= 0, bound) else { return true };
        report.expect(rule, value >= bound, &[facts.id(teller), facts.id(poll)], || {
            format!("{}: a fetch says {what} {value}, and {bound} was told before", log.name())
        });
        value >= bound
    };
    let acked = expect(Rule::A31, high_watermark, log.acked.before(earlier), "that the log ends at")
        && expect(Rule::A31, high_watermark, own.and_then(|own| own.acked.before(now)), "that the log ends at");
    if acked {
        let _ = expect(Rule::A18, high_watermark, log.ends.before(earlier), "high watermark")
            && expect(Rule::A18, high_watermark, own.and_then(|own| own.ends.before(now)), "high watermark");
    }
}

/// The last stable offset, by all answers.
fn stable(facts: &Facts<'_>, log: &LogFacts<'_>) -> Rising {
    let mut stable = Rising::default();
    for &poll in log.polls.iter().filter(|poll| facts.op(**poll).end == End::Ok) {
        let What::Poll { last_stable_offset, .. } = facts.op(poll).what else { continue };
        stable.tell(end_of(facts.op(poll)), last_stable_offset, poll);
    }
    stable.seal();
    stable
}

/// By the offsets of records, when the latest of those up to there was sent: who knows the record is no older than that.
struct Fresh(Vec<(i64, u64)>);

impl Fresh {
    fn new(facts: &Facts<'_>, log: &LogFacts<'_>) -> Self {
        let sent = |entry: &Entry| {
            facts.sent.get(entry.value as usize).map(|(send, _)| (entry.offset, facts.op(*send).start_us))
        };
        let mut all: Vec<(i64, u64)> = log.contents.iter().filter_map(sent).collect();
        let mut latest = 0;
        for (_, sent_us) in &mut all {
            latest = latest.max(*sent_us);
            *sent_us = latest;
        }
        Self(all)
    }

    /// As of when at least a broker answers that says so.
    fn at_least(&self, high_watermark: i64) -> u64 {
        let known = self.0.partition_point(|(offset, _)| *offset < high_watermark);
        known.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}

/// The last stable offset never goes back, and is the high watermark where no transaction can be open.
fn stability(
    facts: &Facts<'_>,
    (at, log): (u32, &LogFacts<'_>),
    poll: u32,
    (told, stable, fresh): (&HashMap<i32, Told>, &Rising, &Fresh),
    report: &mut Report,
) {
    let operation = facts.op(poll);
    let What::Poll { high_watermark, last_stable_offset, .. } = operation.what else { return };
    if last_stable_offset < 0 {
        return;
    }
    let earlier = operation.start_us.saturating_sub(facts.options.poll_lag_us);
    let now = operation.start_us.saturating_sub(facts.options.own_lag_us);
    let own = operation.broker.and_then(|broker| told.get(&broker)?.stable.before(now));
    // After a fork a transaction whose end was lost is open again.
    let reopened = facts.options.salvaged && facts.transactions.markers(at) > 0;
    let bounds = [own, stable.before(earlier)].into_iter().flatten().max_by_key(|(bound, _)| *bound);
    if let Some((bound, teller)) = bounds.filter(|_| !reopened) {
        report.expect(Rule::A18, last_stable_offset >= bound, &[facts.id(teller), facts.id(poll)], || {
            format!("{}: a fetch says last stable offset {last_stable_offset}, and {bound} was told before", log.name())
        });
    }
    if high_watermark >= 0 {
        let behind = last_stable_offset < high_watermark;
        let caught_up = facts.healed_us.is_some_and(|healed| healed + facts.options.liveness_us <= operation.start_us);
        let since = if caught_up { operation.start_us } else { earlier.max(fresh.at_least(high_watermark)) };
        let open = || facts.transactions.may_be_open(at, since, end_of(operation));
        let holds = last_stable_offset <= high_watermark && (!behind || open());
        report.expect(Rule::A19, holds, &[facts.id(poll)], || {
            format!("{}: stable up to {last_stable_offset} of {high_watermark}", log.name())
        });
    }
}

fn beginning(facts: &Facts<'_>, log: &LogFacts<'_>, poll: u32, told: &HashMap<i32, Told>, report: &mut Report) {
    let operation = facts.op(poll);
    let What::Poll { log_start_offset, high_watermark, ref records, .. } = operation.what else { return };
    let earlier = operation.start_us.saturating_sub(facts.options.poll_lag_us);
    let now = operation.start_us.saturating_sub(facts.options.own_lag_us);
    let own = operation.broker.and_then(|broker| told.get(&broker)?.starts.before(now));
    let bound = [own, log.starts.before(earlier)].into_iter().flatten().max_by_key(|(start, _)| *start);
    if let Some((bound, teller)) = bound {
        let both = [facts.id(teller), facts.id(poll)];
        if log_start_offset >= 0 {
            report.expect(Rule::A27, log_start_offset >= bound, &both, || {
                format!("{}: the log starts at {log_start_offset}, and at {bound} before", log.name())
            });
        }
        let first = records.first().map_or(i64::MAX, |first| first.offset);
        report.expect(Rule::A27, first >= bound, &both, || {
            format!("{}: the offset {first} is served, and the log started at {bound} before", log.name())
        });
    }
    if log_start_offset >= 0 {
        let most = log.start_possible(end_of(operation), facts.options);
        let holds = log_start_offset <= most && (high_watermark < 0 || log_start_offset <= high_watermark);
        report.expect(Rule::A27, holds, &[facts.id(poll)], || {
            format!("{}: the log starts at {log_start_offset}, asked for was {most} at most", log.name())
        });
    }
}
