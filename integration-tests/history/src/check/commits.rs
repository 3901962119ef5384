//! A20: a group's committed offset of a partition is a register. What is read was the last write, where writes whose end
//! is unknown may have happened at any time since they began. Deleting the group writes "none", and so may deleting the
//! topic, at any time since that began. A21: what is sent with a transaction is written by its commit, and by nothing else.
use std::collections::HashMap;

use super::bounds::Rising;
use super::facts::{Facts, end_of};
use super::report::{Report, Rule};
use super::transactions::Fate;
use crate::operation::{Commit, End, Operation, What};

#[derive(Default)]
struct Register<'a> {
    writes: Vec<Write<'a>>,
    reads: Vec<Read<'a>>,
    /// Transactions write it too.
    of_transactions: bool,
}

/// An offset and its text.
type Said<'a> = Option<(i64, Option<&'a str>)>;

struct Write<'a> {
    said: Said<'a>,
    start_us: u64,
    /// When it certainly had happened; `u64::MAX` if never.
    end_us: u64,
    operation: u32,
}

struct Read<'a> {
    said: Said<'a>,
    operation: u32,
}

type Key<'a> = (&'a str, &'a str, i32);

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    let (keys, mut registers) = registers(facts);
    let mut groups: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, (group, ..)) in keys.iter().enumerate() {
        groups.entry(group).or_default().push(at);
    }
    for (number, operation) in (0..).zip(&facts.operations) {
        let What::DeleteGroup { group } = &operation.what else { continue };
        let end_us = match operation.end {
            End::Ok => end_of(operation),
            End::Info(_) => u64::MAX,
            End::Fail(_) => continue,
        };
        for &at in groups.get(group.as_str()).into_iter().flatten() {
            let write = Write { said: None, start_us: operation.start_us, end_us, operation: number };
            registers[at].writes.push(write);
        }
    }
    for (key, register) in keys.iter().zip(&registers) {
        check_register(facts, key, register, report);
    }
}

fn registers<'a>(facts: &Facts<'a>) -> (Vec<Key<'a>>, Vec<Register<'a>>) {
    let mut known: HashMap<Key<'_>, usize> = HashMap::new();
    let (mut keys, mut registers) = (Vec::new(), Vec::<Register<'_>>::new());
    for (number, operation) in (0..).zip(&facts.operations) {
        let (group, offsets) = match (&operation.what, &operation.end) {
            (What::Commit { group, offsets, .. }, End::Ok | End::Info(_)) => (group, offsets),
            (What::Committed { group, offsets }, End::Ok) => (group, offsets),
            (What::SendOffsets { group, offsets, .. }, End::Ok | End::Info(_)) => (group, offsets),
            _ => continue,
        };
        for commit in offsets {
            let key = (group.as_str(), commit.log.topic.as_str(), commit.log.partition);
            let at = *known.entry(key).or_insert_with(|| {
                keys.push(key);
                registers.push(Register::default());
                keys.len() - 1
            });
            let offset = commit.offset.filter(|offset| *offset >= 0);
            let said = offset.map(|offset| (offset, commit.metadata.as_deref()));
            match &operation.what {
                What::Committed { .. } => registers[at].reads.push(Read { said, operation: number }),
                What::SendOffsets { .. } => {
                    registers[at].of_transactions = true;
                    let end = end_of_transaction(facts, number, commit);
                    registers[at].writes.extend(end.map(|(operation, end_us)| {
                        let start_us = facts.op(operation).start_us;
                        Write { said, start_us, end_us, operation }
                    }));
                }
                _ => {
                    let (start_us, end_us) = (operation.start_us, over_at(operation));
                    registers[at].writes.push(Write { said, start_us, end_us, operation: number });
                }
            }
        }
    }
    (keys, registers)
}

fn over_at(operation: &Operation) -> u64 {
    if operation.end == End::Ok { end_of(operation) } else { u64::MAX }
}

/// The operation that commits what was sent with a transaction, if any may have, and when it certainly had; none where the
/// transaction has sent another offset since.
fn end_of_transaction(facts: &Facts<'_>, sent: u32, commit: &Commit) -> Option<(u32, u64)> {
    let transaction = facts.transactions.of_operation(sent)?;
    let replaces = |later: &&u32| match &facts.op(**later).what {
        What::SendOffsets { offsets, .. } if **later > sent => offsets.iter().any(|other| other.log == commit.log),
        _ => false,
    };
    if transaction.fate == Fate::NotCommitted || transaction.offsets.iter().any(|later| replaces(&later)) {
        return None;
    }
    let certain = transaction.fate == Fate::Committed && facts.op(sent).end == End::Ok;
    let over = if certain { over_at(facts.op(transaction.commit)) } else { u64::MAX };
    Some((transaction.commit, over))
}

fn check_register(facts: &Facts<'_>, key: &Key<'_>, register: &Register<'_>, report: &mut Report) {
    // Of each offset and text, the writes by their begin, with the latest end of those that began up to then. A register
    // begins with "none".
    let mut by_said: HashMap<Said<'_>, Rising> = HashMap::new();
    let mut first: HashMap<Said<'_>, u64> = HashMap::from([(None, 0)]);
    // By when a write had certainly happened, and when it began at the earliest.
    let mut certain = Rising::default();
    for write in &register.writes {
        let end = i64::try_from(write.end_us).unwrap_or(i64::MAX);
        by_said.entry(write.said).or_default().tell(write.start_us, end, write.operation);
        let earliest = first.entry(write.said).or_insert(write.start_us);
        *earliest = write.start_us.min(*earliest);
        if write.end_us < u64::MAX {
            certain.tell(write.end_us, i64::try_from(write.start_us).unwrap_or(i64::MAX), write.operation);
        }
    }
    // A read proves that a write of that offset had happened: at the earliest when the first such write began.
    for read in &register.reads {
        if let Some(earliest) = first.get(&read.said) {
            let start = i64::try_from(*earliest).unwrap_or(i64::MAX);
            certain.tell(end_of(facts.op(read.operation)), start, read.operation);
        }
    }
    certain.seal();
    by_said.values_mut().for_each(Rising::seal);
    let (group, topic, partition) = key;
    for read in &register.reads {
        let operation = facts.op(read.operation);
        let until = end_of(operation).saturating_add(1);
        let candidate = by_said.get(&read.said).and_then(|writes| writes.before(until)).map(|(end, _)| end);
        let topic_gone = || facts.deletions.get(topic).is_some_and(|deleted| deleted.touch(0, end_of(operation)));
        let candidate = match read.said {
            None if topic_gone() => Some(i64::MAX),
            // The register's beginning.
            None => candidate.or(Some(0)),
            Some(_) => candidate,
        };
        let newer = certain.before(operation.start_us);
        let holds = candidate.is_some_and(|end| newer.is_none_or(|(start, _)| end >= start));
        let operations: Vec<u64> =
            newer.iter().map(|(_, by)| *by).chain([read.operation]).map(|by| facts.id(by)).collect();
        let rule = if register.of_transactions { Rule::A21 } else { Rule::A20 };
        report.expect(rule, holds, &operations, || {
            let said = read.said.map_or("no offset".into(), |(offset, text)| match text {
                Some(text) => format!("the offset {offset} with the text {text:?}"),
                None => format!("the offset {offset}"),
            });
            let why = if candidate.is_none() { "which nobody committed" } else { "and another was committed since" };
            format!("group {group}, {topic}-{partition}: {said} is said to be committed, {why}")
        });
    }
}
