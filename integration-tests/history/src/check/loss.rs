//! What should be there and is not: A1 (passed over by every reader), A2 (not there in the end), A12 (passed over by
//! this reader), A17 (holes).
use std::collections::HashMap;

use super::facts::{Facts, LogFacts, end_of};
use super::report::{Report, Rule};
use super::transactions::Fate;
use crate::operation::{End, What};

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    for (at, log) in (0..).zip(&facts.logs) {
        for &poll in &log.polls {
            if facts.op(poll).end == End::Ok {
                passed_over(facts, (at, log), poll, report);
            }
        }
        in_the_end(facts, log, report);
    }
}

/// Offsets inside a range that a reader passed and that its records leave out. That the reader came behind them says
/// that they existed when the answer was made.
fn passed_over(facts: &Facts<'_>, (at, log): (u32, &LogFacts<'_>), poll: u32, report: &mut Report) {
    let What::Poll { records, .. } = &facts.op(poll).what else { return };
    report.checked(Rule::A12, records.len() as u64);
    report.checked(Rule::A1, records.len() as u64);
    report.checked(Rule::A17, records.len() as u64);
    for gap in gaps(facts, log, poll) {
        missing(facts, (at, log), poll, gap, Rule::A17, report);
    }
}

/// The ranges of offsets that the reader passed without a record, as far as nothing there can have been deleted.
pub(super) fn gaps(facts: &Facts<'_>, log: &LogFacts<'_>, poll: u32) -> Vec<(i64, i64)> {
    let operation = facts.op(poll);
    let What::Poll { from, next, records, .. } = &operation.what else { return Vec::new() };
    let start = log.start_possible(end_of(operation), facts.options);
    let (mut expected, mut gaps) = (*from, Vec::new());
    for offset in records.iter().map(|seen| seen.offset).chain([*next]) {
        if expected.max(start) < offset {
            gaps.push((expected.max(start), offset));
        }
        expected = expected.max(offset.saturating_add(1));
    }
    gaps
}

/// `from` to `to` existed, were not deleted, and the reader did not get them; `unknown` is broken by those that nobody
/// knows.
pub(super) fn missing(
    facts: &Facts<'_>,
    (at, log): (u32, &LogFacts<'_>),
    poll: u32,
    (from, to): (i64, i64),
    unknown: Rule,
    report: &mut Report,
) {
    let committed_only = matches!(facts.op(poll).what, What::Poll { read_committed: true, .. });
    let first = log.position(from);
    let known = &log.contents[first..log.position(to)];
    let mut offsets = 0;
    for (nth, entry) in known.iter().enumerate() {
        offsets += i64::from(nth == 0 || known[nth - 1].offset != entry.offset);
        if log.may_be_gone(first + nth, end_of(facts.op(poll))) {
            continue;
        }
        if let Some(transaction) = facts.transactions.of_value(facts, entry.value).filter(|_| committed_only) {
            if transaction.fate == Fate::Committed {
                let proof = [entry.operation, transaction.commit, poll].map(|by| facts.id(by));
                report.found(Rule::A8, &proof, || {
                    let (log, offset, value) = (log.name(), entry.offset, facts.name(entry.value));
                    format!("{log} offset {offset} is passed over: {value}, whose transaction was committed")
                });
            }
            continue;
        }
        let read = entry.read || facts.read.get(entry.value as usize).is_some_and(|read| *read);
        let deletes = facts.value(entry.value).is_some_and(|value| value.deletes);
        let rule = match (log.gone_from.is_some(), read) {
            (true, _) if deletes => Rule::A29,
            (true, _) => Rule::A28,
            (false, true) => Rule::A12,
            (false, false) => Rule::A1,
        };
        report.found(rule, &[facts.id(entry.operation), facts.id(poll)], || {
            format!("{} offset {} is passed over: {}", log.name(), entry.offset, facts.name(entry.value))
        });
    }
    // Each transaction has a marker in the log. Who reads committed records passes over others too.
    let markers = facts.transactions.markers(at);
    let markers = if committed_only && markers > 0 { i64::MAX } else { markers };
    if to - from - offsets > markers && !facts.options.holes_legal && log.gone_from.is_none() {
        report.found(unknown, &[facts.id(poll)], || {
            format!("{}: {} of the offsets {from}..{to} have no record", log.name(), to - from - offsets)
        });
    }
}

/// A reader that began at the log's beginning and came to its end.
#[derive(Clone, Copy)]
struct Scan {
    start_us: u64,
    end_us: u64,
    next: i64,
    last_poll: u32,
}

fn in_the_end(facts: &Facts<'_>, log: &LogFacts<'_>, report: &mut Report) {
    let acked = |send: &&u32| {
        facts.op(**send).end == End::Ok && matches!(facts.op(**send).what, What::Send { acked: true, .. })
    };
    let Some(first) = log.sends.iter().find(acked) else { return };
    let may_be_gone =
        facts.deletions.get(log.topic).is_some_and(|deleted| deleted.touch(facts.op(*first).start_us, u64::MAX));
    if !may_be_gone {
        report.logs += 1;
    }
    let Some(scan) = last_scan(facts, log) else {
        // One whose records go by time may be empty by then.
        if facts.options.final_reads && !may_be_gone && log.kept.is_none() {
            report.expect(Rule::A2, false, &[facts.id(*first)], || {
                format!("{} was never read from its beginning to its end in the final phase", log.name())
            });
        }
        return;
    };
    report.logs_read_whole += u64::from(!may_be_gone);
    let start = log.start_possible(scan.end_us, facts.options);
    for &send in log.sends.iter().filter(acked) {
        let operation = facts.op(send);
        let What::Send { values, offset, .. } = &operation.what else { continue };
        if end_of(operation).saturating_add(facts.options.poll_lag_us) >= scan.start_us {
            continue;
        }
        let base = offset.filter(|offset| *offset >= 0);
        // Without an offset in the answer: at least behind all that was known when it was sent.
        let lowest = base.or_else(|| log.ends.before(operation.start_us).map(|(end, _)| end)).unwrap_or(0);
        for (position, value) in (0..).zip(values) {
            if lowest + position < start {
                continue;
            }
            let placed = base.map(|base| log.position(base + position));
            // Without its place nobody knows what lies behind it.
            if log.gone_from.is_some() && placed.is_none_or(|at| log.may_be_gone(at, scan.end_us)) {
                continue;
            }
            let read = facts.was_read(value);
            let behind = base.is_some_and(|base| base + position >= scan.next);
            report.expect(Rule::A2, read && !behind, &[facts.id(send), facts.id(scan.last_poll)], || {
                let at = base.map_or("unknown".into(), |base| (base + position).to_string());
                let (log, next) = (log.name(), scan.next);
                format!("{log}: value {}/{} acknowledged at {at}, read to {next}", value.process, value.counter)
            });
        }
    }
}

/// The scan of the final phase (of the whole history if there is none) that began last.
fn last_scan(facts: &Facts<'_>, log: &LogFacts<'_>) -> Option<Scan> {
    /// What was read without a gap from the beginning: since when, and up to where.
    struct Chain {
        start_us: u64,
        next: i64,
    }
    let mut chains: HashMap<(u32, u64), Option<Chain>> = HashMap::new();
    let mut last: Option<Scan> = None;
    for &poll in &log.polls {
        let operation = facts.op(poll);
        if operation.end != End::Ok || facts.healed_us.is_some_and(|healed| operation.start_us < healed) {
            continue;
        }
        let What::Poll { position_of, from, next, high_watermark, log_start_offset, .. } = operation.what else {
            continue;
        };
        let chain = chains.entry((operation.process, position_of)).or_default();
        let follows = chain.as_ref().is_some_and(|chain| chain.next == from);
        let begins = from == 0 || from <= log_start_offset;
        match chain {
            Some(chain) if follows => chain.next = next,
            _ if begins => *chain = Some(Chain { start_us: operation.start_us, next }),
            _ => *chain = None,
        }
        let Some(chain) = chain else { continue };
        // Where the library shows no high watermark: up to what was known when it began.
        let known = || log.ends.before(chain.start_us).map_or(i64::MAX, |(end, _)| end);
        let end = if high_watermark >= 0 { high_watermark } else { known() };
        if chain.next >= end && last.is_none_or(|last| last.start_us <= chain.start_us) {
            let (start_us, end_us) = (chain.start_us, end_of(operation));
            last = Some(Scan { start_us, end_us, next: chain.next, last_poll: poll });
        }
    }
    last
}
