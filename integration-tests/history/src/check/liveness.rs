//! A32: when all faults are over, every partition and group that is asked for something answers within the allowed time.
use std::collections::BTreeMap;

use super::facts::{Facts, NONE, end_of};
use super::report::{Report, Rule};
use super::topics::Topics;
use crate::operation::{End, Operation, What};

/// Errors that say "not now": with them, a question counts as unanswered.
const NOT_NOW: &[&str] = &[
    "BROKER_NOT_AVAILABLE",
    "CONCURRENT_TRANSACTIONS",
    "COORDINATOR_LOAD_IN_PROGRESS",
    "COORDINATOR_NOT_AVAILABLE",
    "KAFKA_STORAGE_ERROR",
    "LEADER_NOT_AVAILABLE",
    "NETWORK_EXCEPTION",
    "NOT_COORDINATOR",
    "NOT_ENOUGH_REPLICAS",
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
    "NOT_LEADER_OR_FOLLOWER",
    "REQUEST_TIMED_OUT",
    "UNKNOWN_LEADER_EPOCH",
    "UNSTABLE_OFFSET_COMMIT",
];

#[derive(Clone, Copy)]
struct Asked {
    first: u32,
    first_us: u64,
    /// Up to when somebody certainly waited for an answer.
    waited_us: u64,
    /// From when on nobody can have waited; `u64::MAX` where one question's end is not known.
    idle_us: u64,
    answered_us: u64,
}

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    let Some(healed_us) = facts.healed_us else { return };
    let topics = Topics::gather(facts);
    let mut all: BTreeMap<(&str, String), Asked> = BTreeMap::new();
    for (number, operation) in (0u32..).zip(&facts.operations) {
        if operation.start_us < healed_us {
            continue;
        }
        let transactional = match &operation.what {
            What::InitProducer { .. } | What::EndTransaction { .. } => facts.transactions.id_of(operation.process),
            _ => None,
        };
        let subject = match group_of(&operation.what) {
            Some((group, kind)) => (kind, format!("group {group}")),
            None if transactional.is_some() => {
                ("transactions", format!("producer {}", transactional.unwrap_or_default()))
            }
            None if facts.placed[number as usize] != NONE => {
                let log = &facts.logs[facts.placed[number as usize] as usize];
                let there = || topics.certain(facts, log.topic, log.partition, operation).is_some();
                if operation.end != End::Ok && facts.deletions.contains_key(log.topic) && !there() {
                    continue;
                }
                let kind = if matches!(operation.what, What::Send { .. }) { "writes" } else { "reads" };
                (kind, log.name())
            }
            None => continue,
        };
        if !counts(operation) {
            continue;
        }
        let first_us = operation.start_us;
        let asked = Asked { first: number, first_us, waited_us: 0, idle_us: 0, answered_us: u64::MAX };
        let entry = all.entry(subject).or_insert(asked);
        if first_us > entry.idle_us.saturating_add(facts.options.liveness_us / 2) && entry.answered_us == u64::MAX {
            // Who asked before has long given up.
            *entry = asked;
        }
        entry.waited_us = entry.waited_us.max(operation.end_us.unwrap_or(first_us));
        entry.idle_us = entry.idle_us.max(operation.end_us.unwrap_or(u64::MAX));
        if operation.end == End::Ok {
            entry.answered_us = entry.answered_us.min(end_of(operation));
        }
    }
    for ((kind, name), asked) in all {
        let due = asked.first_us.saturating_add(facts.options.liveness_us);
        // Who gave up before the answer was due says nothing.
        if asked.answered_us == u64::MAX && asked.waited_us < due {
            continue;
        }
        report.expect(Rule::A32, asked.answered_us <= due, &[facts.id(asked.first)], || {
            let seconds = facts.options.liveness_us / 1_000_000;
            format!("{name}: {kind} had no answer for {seconds} s after all faults were over")
        });
    }
}

/// A refusal for the question's own sake is neither an answer nor a missing one.
fn counts(operation: &Operation) -> bool {
    let error = operation.end.error();
    let is_kafkas = !error.is_empty() && error.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    match &operation.end {
        End::Ok => true,
        End::Info(_) => !is_kafkas || NOT_NOW.contains(&error),
        End::Fail(_) => NOT_NOW.contains(&error),
    }
}

fn group_of(what: &What) -> Option<(&str, &'static str)> {
    match what {
        What::Assigned { group, .. } => Some((group, "joins")),
        What::Commit { group, .. } | What::SendOffsets { group, .. } => Some((group, "commits")),
        What::Committed { group, .. } => Some((group, "committed offsets")),
        _ => None,
    }
}
