//! K13: consume, transform, produce. Values that were made from others, by transactions that also commit how far they have
//! read: of what stands below the group's committed offset each record has one outcome, and of what stands beyond none.
use std::collections::{BTreeMap, HashMap};

use super::facts::{Facts, LogFacts};
use super::report::{Report, Rule};
use super::transactions::{Fate, Transactions};
use crate::operation::{End, What};

/// Of each value that others were made from, those that readers of committed records got, or must get, by their topic.
type Outcomes<'a> = HashMap<(u32, &'a str), Vec<u32>>;

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    // After a fork committed transactions may be gone.
    if facts.options.salvaged {
        return;
    }
    let outcomes = outcomes(facts);
    for ((source, topic), made) in &outcomes {
        let mut proof: Vec<u64> = made.iter().map(|value| facts.id(facts.sent[*value as usize].0)).collect();
        proof.sort_unstable();
        report.expect(Rule::K13, made.len() == 1, &proof, || {
            let mut names: Vec<String> = made.iter().map(|value| facts.name(*value)).collect();
            names.sort();
            format!("{} was taken to {topic} more than once: {}", facts.name(*source), names.join(", "))
        });
    }
    for (group, topic) in groups(facts) {
        let Some((told, offsets)) = committed_in_the_end(facts, group) else { continue };
        for ((of, partition), offset) in offsets {
            let log = |log: &&LogFacts<'_>| log.topic == of && log.partition == partition;
            if let Some(log) = facts.logs.iter().find(log).filter(|log| !facts.deletions.contains_key(log.topic)) {
                against(facts, log, (group, topic, told, offset), &outcomes, report);
            }
        }
    }
}

fn outcomes<'a>(facts: &Facts<'a>) -> Outcomes<'a> {
    let mut outcomes: Outcomes<'_> = HashMap::new();
    for (number, (send, _)) in (0u32..).zip(&facts.sent) {
        let Some(value) = facts.value(number) else { continue };
        let Some(source) = value.source else { continue };
        let source = facts.value_by(source);
        if stands_once(facts, source) && is_there(facts, number, *send) {
            outcomes.entry((source, &value.topic)).or_default().push(number);
        }
    }
    outcomes
}

/// Plain producers may have written it twice; then each is taken.
fn stands_once(facts: &Facts<'_>, value: u32) -> bool {
    let send = facts.sent.get(value as usize).map(|(send, _)| &facts.op(*send).what);
    matches!(send, Some(What::Send { once: true, .. }))
}

/// A reader of committed records got it, or must get it.
fn is_there(facts: &Facts<'_>, value: u32, send: u32) -> bool {
    let Transactions { read_committed, .. } = &facts.transactions;
    let committed = facts.transactions.of_operation(send).is_none_or(|t| t.fate == Fate::Committed);
    read_committed[value as usize] || committed && facts.op(send).end == End::Ok
}

/// The groups whose offsets are sent with transactions, and where to these take what they read.
fn groups<'a>(facts: &Facts<'a>) -> BTreeMap<&'a str, &'a str> {
    let mut groups = BTreeMap::new();
    for transaction in &facts.transactions.all {
        let topic = transaction.sends.first().map(|send| &facts.op(*send).what);
        let (Some(What::Send { log, .. }), Some(offsets)) = (topic, transaction.offsets.first()) else { continue };
        if let What::SendOffsets { group, .. } = &facts.op(*offsets).what {
            groups.insert(group.as_str(), log.topic.as_str());
        }
    }
    groups
}

/// Offsets by topic and partition.
type Committed<'a> = BTreeMap<(&'a str, i32), i64>;

/// What the group was last said to have committed, in the final phase, and by which operation.
fn committed_in_the_end<'a>(facts: &Facts<'a>, group: &str) -> Option<(u32, Committed<'a>)> {
    let healed_us = facts.healed_us.filter(|_| facts.options.final_reads)?;
    let asked = (0..).zip(&facts.operations).filter_map(|(number, operation)| match &operation.what {
        What::Committed { group: of, offsets } if of == group && operation.end == End::Ok => Some((number, offsets)),
        _ => None,
    });
    let (told, offsets) = asked.last().filter(|(number, _)| facts.op(*number).start_us >= healed_us)?;
    let offsets = offsets.iter().map(|c| ((c.log.topic.as_str(), c.log.partition), c.offset.unwrap_or(0)));
    Some((told, offsets.collect()))
}

/// What readers of committed records got from the log, against how far the group has read it.
fn against(
    facts: &Facts<'_>,
    log: &LogFacts<'_>,
    (group, topic, told, committed): (&str, &str, u32, i64),
    outcomes: &Outcomes<'_>,
    report: &mut Report,
) {
    let start = log.start_possible(u64::MAX, facts.options);
    let read = &facts.transactions.read_committed;
    let there = |value: u32| stands_once(facts, value) && read.get(value as usize).is_some_and(|read| *read);
    for entry in log.contents.iter().filter(|entry| entry.offset >= start && there(entry.value)) {
        let made = outcomes.contains_key(&(entry.value, topic));
        report.expect(
            Rule::K13,
            made == (entry.offset < committed),
            &[facts.id(entry.operation), facts.id(told)],
            || {
                let (log, offset, value) = (log.name(), entry.offset, facts.name(entry.value));
                let is = if made { "was taken" } else { "was not taken" };
                format!("{log} offset {offset}, {value}, {is} to {topic}, and {group} has committed {committed}")
            },
        );
    }
}
