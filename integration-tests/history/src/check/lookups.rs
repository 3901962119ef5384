//! Offsets that are asked for: A30 (by time), K28 (latest), K26 (end of an epoch), A27 (earliest, DeleteRecords).
use std::collections::BTreeMap;

use super::bounds::RangeMax;
use super::facts::{Facts, LogFacts, end_of};
use super::report::{Report, Rule};
use crate::operation::{End, What};

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    for log in &facts.logs {
        let mut by_time = None;
        for &lookup in log.lookups.iter().filter(|lookup| facts.op(**lookup).end == End::Ok) {
            let What::ListOffsets { timestamp, offset, .. } = facts.op(lookup).what else { continue };
            match timestamp {
                -1 => not_below_the_end(facts, log, lookup, (Rule::K28, offset), report),
                -2 => start(facts, log, lookup, offset, report),
                -3 | 0.. => {
                    let times = || RangeMax::new((0..log.contents.len()).map(|at| time_of(log, at)));
                    time(facts, log, lookup, by_time.get_or_insert_with(times), report);
                }
                _ => {}
            }
        }
        let mut later = None;
        for &asked in log.epoch_ends.iter().filter(|asked| facts.op(**asked).end == End::Ok) {
            let What::EpochEnd { epoch, end_offset: end @ 0.., .. } = facts.op(asked).what else { continue };
            if facts.options.one_epoch {
                not_below_the_end(facts, log, asked, (Rule::K26, end), report);
            }
            let later = later.get_or_insert_with(|| first_of_epochs(facts, log));
            before_later_epochs(facts, log, asked, (epoch, end), later, report);
        }
        for &trim in log.trims.iter().filter(|trim| facts.op(**trim).end == End::Ok) {
            let What::DeleteRecords { before, low_watermark, .. } = facts.op(trim).what else { continue };
            let known = || log.ends.before(facts.op(trim).start_us).map_or(0, |(end, _)| end);
            let wanted = if before < 0 { known() } else { before };
            report.expect(Rule::A27, low_watermark >= wanted, &[facts.id(trim)], || {
                format!("{}: records below {wanted} were deleted, and the log starts at {low_watermark}", log.name())
            });
        }
    }
}

fn not_below_the_end(
    facts: &Facts<'_>,
    log: &LogFacts<'_>,
    asked: u32,
    (rule, said): (Rule, i64),
    report: &mut Report,
) {
    let Some((end, teller)) = log.ends.before(facts.op(asked).start_us) else { return };
    report.expect(rule, said >= end, &[facts.id(teller), facts.id(asked)], || {
        format!("{}: said to end at {said}, and at {end} before", log.name())
    });
}

/// Of each leader epoch that a record was read with, the lowest offset, and who read it.
fn first_of_epochs(facts: &Facts<'_>, log: &LogFacts<'_>) -> BTreeMap<i32, (i64, u32)> {
    let mut first = BTreeMap::new();
    for &poll in log.polls.iter().filter(|poll| facts.op(**poll).end == End::Ok) {
        let What::Poll { records, .. } = &facts.op(poll).what else { continue };
        for (epoch, offset) in records.iter().filter_map(|seen| Some((seen.leader_epoch?, seen.offset))) {
            let lowest = first.entry(epoch).or_insert((offset, poll));
            *lowest = (offset, poll).min(*lowest);
        }
    }
    first
}

fn before_later_epochs(
    facts: &Facts<'_>,
    log: &LogFacts<'_>,
    asked: u32,
    (epoch, end): (i32, i64),
    first: &BTreeMap<i32, (i64, u32)>,
    report: &mut Report,
) {
    for (later, (offset, poll)) in first.range(epoch.saturating_add(1)..) {
        report.expect(Rule::K26, *offset >= end, &[facts.id(*poll), facts.id(asked)], || {
            format!("{}: epoch {epoch} is said to end at {end}, and {offset} is of epoch {later}", log.name())
        });
    }
}

fn start(facts: &Facts<'_>, log: &LogFacts<'_>, lookup: u32, said: i64, report: &mut Report) {
    if let Some((start, teller)) = log.starts.before(facts.op(lookup).start_us) {
        report.expect(Rule::A27, said >= start, &[facts.id(teller), facts.id(lookup)], || {
            format!("{}: said to start at {said}, and at {start} before", log.name())
        });
    }
    let most = log.start_possible(end_of(facts.op(lookup)), facts.options);
    report.expect(Rule::A27, said <= most, &[facts.id(lookup)], || {
        format!("{}: said to start at {said}, asked for was {most} at most", log.name())
    });
}

/// `i64::MIN` of a record that may not have been there for ever.
fn time_of(log: &LogFacts<'_>, at: usize) -> i64 {
    if log.stays(at) { log.contents[at].timestamp_ms } else { i64::MIN }
}

/// By time, and the largest timestamp (-3): against every record that certainly was there.
fn time(facts: &Facts<'_>, log: &LogFacts<'_>, lookup: u32, times: &RangeMax, report: &mut Report) {
    let operation = facts.op(lookup);
    let What::ListOffsets { timestamp, offset, found_timestamp, .. } = operation.what else { return };
    let start = log.start_possible(end_of(operation), facts.options);
    let end = log.ends.before(operation.start_us).map_or(0, |(end, _)| end);
    let largest = |to: i64| times.largest(log.position(start), log.position(to.max(start)));
    let (largest, holds) = match (timestamp, offset) {
        (-3, _) => (largest(end), offset >= 0 || largest(end) == i64::MIN),
        (_, 0..) => (largest(offset), largest(offset) < timestamp),
        _ => (largest(end), largest(end) < timestamp),
    };
    let holds = holds && (timestamp != -3 || found_timestamp < 0 || found_timestamp >= largest);
    let at = log.contents.get(log.position(offset)).filter(|entry| entry.offset == offset);
    let own = at.map(|entry| entry.timestamp_ms).filter(|time| *time != i64::MIN && offset >= 0);
    let own_holds = own.is_none_or(|own| own >= timestamp && (found_timestamp < 0 || found_timestamp == own));
    report.expect(Rule::A30, holds && own_holds, &[facts.id(lookup)], || {
        let log = log.name();
        format!("{log}: asked for {timestamp}, got {offset} ({found_timestamp}; there {own:?}), known {largest}")
    });
}
