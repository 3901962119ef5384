//! Topics that keep the last record of each key (`cleanup.policy=compact`): A28 (the last one is there, and what is gone
//! does not come back) and A29 (a tombstone stays long enough). What is missing is found in `loss`.
use std::collections::{BTreeMap, HashMap};

use super::facts::{Facts, LogFacts, end_of};
use super::loss::gaps;
use super::report::{Report, Rule};
use super::transactions::Fate;
use crate::operation::{End, What};

/// By position in the log's contents: from when on, in µs, the record may be gone; `u64::MAX` for one that stays. `None` for
/// a log that keeps everything.
pub(super) fn gone_from(facts: &Facts<'_>, log: &LogFacts<'_>) -> Option<Vec<u64>> {
    let kept_us = u64::try_from(*facts.options.compacted.get(log.topic)?).unwrap_or(0).saturating_mul(1000);
    let doubts = doubts(facts, log);
    // Of each key, when the first of those was sent that lie behind.
    let mut later: HashMap<String, u64> = HashMap::new();
    let mut gone_from = vec![u64::MAX; log.contents.len()];
    for (entry, from) in log.contents.iter().zip(&mut gone_from).rev() {
        let Some(value) = facts.value(entry.value) else { continue };
        let key = value.key();
        let (there_us, stays) = there(facts, entry.value);
        if !stays {
            *from = there_us;
        } else if value.deletes {
            *from = there_us.saturating_add(kept_us);
        }
        let behind = later.get(&key).copied();
        // One whose place nobody knows may lie behind too. Something of its key is left, unless it is a tombstone.
        let doubt = doubts.get(&key).filter(|doubt| behind.is_some() || doubt.deletes).map(|doubt| doubt.sent_us);
        *from = [behind, doubt].into_iter().flatten().fold(*from, u64::min);
        if facts.transactions.of_value(facts, entry.value).is_none_or(|of| of.fate != Fate::NotCommitted) {
            later.entry(key).and_modify(|first| *first = there_us.min(*first)).or_insert(there_us);
        }
    }
    Some(gone_from)
}

/// Since when the value counts, at the earliest, and whether it certainly does: what a transaction wrote that is not committed
/// goes.
fn there(facts: &Facts<'_>, value: u32) -> (u64, bool) {
    let sent_us = facts.op(facts.sent[value as usize].0).start_us;
    match facts.transactions.of_value(facts, value) {
        Some(transaction) if transaction.fate == Fate::Committed => (facts.op(transaction.commit).start_us, true),
        Some(_) => (sent_us, false),
        None => (sent_us, true),
    }
}

/// Of one key: when the first was sent of those that may be in the log, and whose place nobody knows; whether a tombstone
/// is among them.
#[derive(Clone, Copy)]
struct Doubt {
    sent_us: u64,
    deletes: bool,
}

fn doubts(facts: &Facts<'_>, log: &LogFacts<'_>) -> HashMap<String, Doubt> {
    let mut doubts: HashMap<String, Doubt> = HashMap::new();
    for &send in &log.sends {
        let operation = facts.op(send);
        let What::Send { values, once, offset, .. } = &operation.what else { continue };
        // One that may have been written twice may stand at another place too.
        let placed = *once && operation.end == End::Ok && offset.is_some_and(|offset| offset >= 0);
        let refused = matches!(operation.end, End::Fail(_)) && !facts.options.salvaged;
        let aborted = facts.transactions.of_operation(send).is_some_and(|of| of.fate == Fate::NotCommitted);
        if placed || refused || aborted {
            continue;
        }
        for value in values {
            let found = Doubt { sent_us: operation.start_us, deletes: value.deletes };
            let of_key = doubts.entry(value.key()).or_insert(found);
            of_key.sent_us = of_key.sent_us.min(found.sent_us);
            of_key.deletes |= found.deletes;
        }
    }
    doubts
}

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    for log in facts.logs.iter().filter(|log| log.gone_from.is_some()) {
        come_back(facts, log, report);
    }
}

/// When a record was known to be gone, and who had found that.
type Gone = (u64, u32);

/// A record that was passed over, since it was gone, and is given to a later reader.
fn come_back(facts: &Facts<'_>, log: &LogFacts<'_>, report: &mut Report) {
    // By position in the contents, the first who passed over it of all, and of each broker's readers.
    let mut gone: BTreeMap<usize, Gone> = BTreeMap::new();
    let mut by_broker: BTreeMap<(usize, i32), Gone> = BTreeMap::new();
    for &poll in log.polls.iter().filter(|poll| facts.op(**poll).end == End::Ok) {
        let operation = facts.op(poll);
        let told = (end_of(operation), poll);
        for at in passed(facts, log, poll) {
            let first = gone.entry(at).or_insert(told);
            *first = told.min(*first);
            if let Some(broker) = operation.broker {
                let first = by_broker.entry((at, broker)).or_insert(told);
                *first = told.min(*first);
            }
        }
    }
    report.checked(Rule::A28, gone.len() as u64);
    let deletes = |at: &&usize| facts.value(log.contents[**at].value).is_some_and(|value| value.deletes);
    report.checked(Rule::A29, gone.keys().filter(deletes).count() as u64);
    for &poll in log.polls.iter().filter(|poll| facts.op(**poll).end == End::Ok) {
        let operation = facts.op(poll);
        let What::Poll { records, .. } = &operation.what else { continue };
        for seen in records {
            let at = log.position(seen.offset);
            let of_own = operation.broker.and_then(|broker| by_broker.get(&(at, broker)));
            let known = [(gone.get(&at), facts.options.poll_lag_us), (of_own, facts.options.own_lag_us)];
            let mut before =
                known.iter().filter_map(|(gone, lag)| gone.filter(|(end, _)| end + lag < operation.start_us));
            if let Some((_, by)) = before.next() {
                report.found(Rule::A28, &[facts.id(*by), facts.id(poll)], || {
                    format!("{} offset {} was gone, and is there again", log.name(), seen.offset)
                });
            }
        }
    }
}

/// Positions of what lies where the reader passed, and did not get.
fn passed(facts: &Facts<'_>, log: &LogFacts<'_>, poll: u32) -> Vec<usize> {
    // Who reads committed records passes over others too.
    let committed_only = matches!(facts.op(poll).what, What::Poll { read_committed: true, .. });
    let is_shown =
        |at: &usize| !committed_only || facts.transactions.of_value(facts, log.contents[*at].value).is_none();
    let gaps = gaps(facts, log, poll).into_iter();
    gaps.flat_map(|(from, to)| log.position(from)..log.position(to)).filter(is_shown).collect()
}
