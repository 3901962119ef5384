//! What readers are told, answer after answer: A13 and A14 (order), A12 (between answers), A18, A19, A31 (how far the log
//! goes), A27 (where it begins).
use std::collections::HashMap;

use super::bounds::Rising;
use super::facts::{Facts, LogFacts, NONE, end_of};
use super::loss::missing;
use super::report::{Report, Rule};
use crate::operation::{End, Operation, What};

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    let transactions =
        facts.operations.iter().any(|o| matches!(&o.what, What::InitProducer { transactional_id: Some(_), .. }));
    for (at, log) in (0..).zip(&facts.logs) {
        let told = by_broker(facts, log);
        for &poll in log.polls.iter().filter(|poll| facts.op(**poll).end == End::Ok) {
            offsets(facts, log, poll, report);
            follows(facts, (at, log), poll, report);
            extent(facts, log, poll, &told, report);
            beginning(facts, log, poll, &told, report);
            let What::Poll { high_watermark, last_stable_offset, .. } = facts.op(poll).what else { continue };
            if !transactions && high_watermark >= 0 && last_stable_offset >= 0 {
                report.expect(Rule::A19, last_stable_offset == high_watermark, &[facts.id(poll)], || {
                    format!("{}: stable up to {last_stable_offset} of {high_watermark}", log.name())
                });
            }
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
        missing(facts, log, poll, (next.max(start), from), Rule::A12, report);
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
    let What::Poll { high_watermark, last_stable_offset, from, ref records, .. } = operation.what else { return };
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
    expect(Rule::A18, last_stable_offset, own.and_then(|own| own.stable.before(now)), "last stable offset");
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
