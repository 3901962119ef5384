//! What stands in a log, put together from every answer: A3 (one record an offset), A4 (duplicates), A5 (offsets in
//! answers), A8 (whole batches), A25 (phantoms), A26 (damage), A35 (what was refused is not there).
use super::facts::{Facts, LogFacts, UNKNOWN, end_of, log_of};
use super::report::{Report, Rule};
use crate::operation::{End, Seen, What};

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    for (at, log) in (0..).zip(&facts.logs) {
        conflicts(facts, log, report);
        for &poll in log.polls.iter().filter(|poll| facts.op(**poll).end == End::Ok) {
            let What::Poll { records, .. } = &facts.op(poll).what else { continue };
            for seen in records {
                record(facts, log, poll, seen, report);
            }
        }
        copies(facts, (at, log), report);
    }
}

fn conflicts(facts: &Facts<'_>, log: &LogFacts<'_>, report: &mut Report) {
    report.checked(Rule::A3, log.contents.len() as u64);
    for pair in log.contents.windows(2) {
        let [one, other] = pair else { continue };
        if one.offset == other.offset && one.value != UNKNOWN && other.value != UNKNOWN {
            report.found(Rule::A3, &[facts.id(one.operation), facts.id(other.operation)], || {
                let (one_name, other_name) = (facts.name(one.value), facts.name(other.value));
                format!("{} offset {}: {one_name} and {other_name}", log.name(), one.offset)
            });
        }
    }
}

/// One record of one answer, for itself.
fn record(facts: &Facts<'_>, log: &LogFacts<'_>, poll: u32, seen: &Seen, report: &mut Report) {
    let at = || format!("{} offset {}", log.name(), seen.offset);
    let value = match &seen.value {
        Ok(value) => value,
        Err(broken) => return report.expect(Rule::A26, false, &[facts.id(poll)], || format!("{}: {}", at(), broken.0)),
    };
    let by_broker = facts.options.log_append_time || facts.broker_time.contains(log.topic);
    report.expect(Rule::A26, by_broker || seen.timestamp_ms == value.timestamp_ms, &[facts.id(poll)], || {
        format!("{}: written with the timestamp {}, read with {}", at(), value.timestamp_ms, seen.timestamp_ms)
    });
    let number = facts.value_of(seen);
    if number == UNKNOWN {
        return report.expect(Rule::A25, false, &[facts.id(poll)], || {
            format!("{}: nobody sent value {}/{} of run {}", at(), value.process, value.counter, value.run)
        });
    }
    let send = facts.sent[number as usize].0;
    let both = [facts.id(send), facts.id(poll)];
    // A request by name may be delayed until the name is another log's.
    let home = log_of(&facts.op(send).what).and_then(|home| home.id.as_deref());
    let elsewhere = home.is_some() && log.id.is_some() && home != log.id;
    let here = value.topic == log.topic && value.partition == log.partition && !elsewhere;
    report.expect(Rule::A25, here, &both, || {
        format!("{}: {} was sent to {}-{}", at(), facts.name(number), value.topic, value.partition)
    });
    report.expect(Rule::A25, facts.op(send).start_us <= end_of(facts.op(poll)), &both, || {
        format!("{}: {} was read before it was sent", at(), facts.name(number))
    });
    let refused = matches!(facts.op(send).end, End::Fail(_));
    report.expect(Rule::A35, !refused || facts.options.salvaged, &both, || {
        format!("{}: {} was refused ({})", at(), facts.name(number), facts.op(send).end.error())
    });
}

/// The value, an offset that it has, and the operation that told of it.
type Copy = (u32, i64, u32);

fn copies(facts: &Facts<'_>, (at, log): (u32, &LogFacts<'_>), report: &mut Report) {
    let read = log.contents.iter().filter(|entry| entry.read && entry.value < UNKNOWN);
    let mut read: Vec<Copy> = read.map(|entry| (entry.value, entry.offset, entry.operation)).collect();
    read.sort_unstable();
    let passed = Passed::new(facts, (at, log));
    for copies in read.chunk_by(|one, other| one.0 == other.0) {
        let (send, position) = facts.sent[copies[0].0 as usize];
        let What::Send { values, once, offset, .. } = &facts.op(send).what else { continue };
        let name = || format!("{}: {}", log.name(), facts.name(copies[0].0));
        let mut operations = vec![facts.id(send)];
        operations.extend(copies.iter().map(|copy| facts.id(copy.2)));
        let offsets = || copies.iter().map(|copy| copy.1).collect::<Vec<_>>();
        if *once {
            report.expect(Rule::A4, copies.len() == 1, &operations, || format!("{} at {:?}", name(), offsets()));
        }
        if facts.op(send).end == End::Ok
            && facts.placed[send as usize] == at
            && let Some(offset @ 0..) = offset
        {
            let told = offset.saturating_add(i64::from(position));
            // Of a record that may stand there twice, the first may be gone since the second is of its key.
            let may_be_gone = !*once && log.gone_from.is_some();
            let holds = copies.iter().any(|copy| copy.1 == told) || may_be_gone || !(*once || passed.over(told));
            report.expect(Rule::A5, holds, &operations, || {
                format!("{} was acknowledged at {told} and read at {:?}", name(), offsets())
            });
        }
        if log.gone_from.is_some() {
            continue;
        }
        let last = position as usize + 1 == values.len();
        let neighbours = [(1, !last), (-1, position > 0)];
        for (step, _) in neighbours.into_iter().filter(|(_, there)| *there) {
            let wanted = copies[0].0.wrapping_add_signed(step);
            for copy in copies {
                let beside = copy.1.saturating_add(i64::from(step));
                let there = read.binary_search_by_key(&(wanted, beside), |copy| (copy.0, copy.1)).is_ok();
                report.expect(Rule::A8, there || !passed.over(beside), &operations, || {
                    format!("{} at {} without its neighbour at {beside}", name(), copy.1)
                });
            }
        }
    }
    for &send in &log.sends {
        let What::Send { acked: true, offset: Some(offset), .. } = &facts.op(send).what else { continue };
        if facts.op(send).end == End::Ok {
            let text = || format!("{}: acknowledged at the offset {offset}", log.name());
            report.expect(Rule::A5, *offset >= 0, &[facts.id(send)], text);
        }
    }
}

/// Where readers have passed, as far as nothing can have been deleted.
struct Passed {
    /// Sorted and apart.
    ranges: Vec<(i64, i64)>,
    start: i64,
}

impl Passed {
    fn new(facts: &Facts<'_>, (at, log): (u32, &LogFacts<'_>)) -> Self {
        // Who reads committed records passes over others.
        let all_seen = facts.transactions.markers(at) == 0;
        let range = |poll: &u32| match &facts.op(*poll).what {
            What::Poll { read_committed: true, .. } if !all_seen => None,
            What::Poll { from, next, .. } if facts.op(*poll).end == End::Ok && from < next => Some((*from, *next)),
            _ => None,
        };
        let mut ranges: Vec<(i64, i64)> = log.polls.iter().filter_map(range).collect();
        ranges.sort_unstable();
        ranges.dedup_by(|later, earlier| {
            let touches = later.0 <= earlier.1;
            if touches {
                earlier.1 = earlier.1.max(later.1);
            }
            touches
        });
        Self { ranges, start: log.start_possible(u64::MAX, facts.options) }
    }

    fn over(&self, offset: i64) -> bool {
        let begun = self.ranges.partition_point(|range| range.0 <= offset);
        offset >= self.start && begun.checked_sub(1).is_some_and(|last| self.ranges[last].1 > offset)
    }
}
