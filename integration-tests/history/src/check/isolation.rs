//! What transactions promise to those who read committed records, A7, A10 and A11, and to each other, A22. That a committed
//! one is there whole (A8) is in `loss`, its offsets (A21) are in `commits`.
use std::collections::HashMap;

use super::facts::{Facts, end_of};
use super::report::{Report, Rule};
use super::transactions::Fate;
use crate::operation::{End, What};

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    for (poll, operation) in (0..).zip(&facts.operations) {
        let What::Poll { records, read_committed: true, last_stable_offset, .. } = &operation.what else { continue };
        if operation.end != End::Ok {
            continue;
        }
        if let (Some(last), 0..) = (records.last(), *last_stable_offset) {
            report.expect(Rule::A11, last.offset < *last_stable_offset, &[facts.id(poll)], || {
                format!("the offset {} is given, and stable is all below {last_stable_offset}", last.offset)
            });
        }
        for seen in records {
            given(facts, poll, facts.value_of(seen), report);
        }
    }
    fenced(facts, report);
    circles(facts, report);
}

/// A record of a transaction was given to a reader of committed ones.
fn given(facts: &Facts<'_>, poll: u32, value: u32, report: &mut Report) {
    let Some(transaction) = facts.transactions.of_value(facts, value) else { return };
    let send = facts.sent[value as usize].0;
    let name = || {
        let (id, number) = (facts.transactions.id_of(transaction.process).unwrap_or_default(), transaction.number);
        format!("{} of transaction {number} of {id}, process {}", facts.name(value), transaction.process)
    };
    report.checked(Rule::A8, 1);
    report.expect(Rule::A7, transaction.fate != Fate::NotCommitted, &[facts.id(send), facts.id(poll)], || {
        format!("{}, which was not committed, is read as committed", name())
    });
    if let Some(commit) = facts.operations.get(transaction.commit as usize) {
        let asked = commit.start_us <= end_of(facts.op(poll));
        report.expect(Rule::A11, asked, &[facts.id(send), facts.id(poll), commit.id], || {
            format!("{} is read as committed before its commit was asked for", name())
        });
    }
}

/// What a producer begins after another has taken its transactional id does not end well, and leaves nothing behind.
fn fenced(facts: &Facts<'_>, report: &mut Report) {
    let mut read: HashMap<u32, u32> = HashMap::new();
    for ((send, _), read_by_any) in facts.sent.iter().zip(&facts.read) {
        if *read_by_any {
            *read.entry(*send).or_default() += 1;
        }
    }
    if facts.options.salvaged {
        return;
    }
    for (number, operation) in (0..).zip(&facts.operations) {
        if facts.transactions.of_operation(number).is_none() {
            continue;
        }
        let Some(by) = facts.transactions.fenced(facts, number) else { continue };
        let proof = [facts.id(by), facts.id(number)];
        let is_there = read.contains_key(&number);
        report.expect(Rule::A22, operation.end != End::Ok && !is_there, &proof, || {
            let (process, other) = (operation.process, facts.op(by).process);
            let what = if is_there { "is read" } else { "ends well" };
            format!("a {} of process {process} {what}, whose id process {other} had taken", operation.what.name())
        });
    }
}

/// Who read what a transaction had written, between the end of its own last one and the end of this, depends on that
/// one. Dependences that come back to where they began are in no order at all.
fn circles(facts: &Facts<'_>, report: &mut Report) {
    let edges = edges(facts);
    report.checked(Rule::A10, edges.iter().map(|to| to.len() as u64).sum());
    for circle in components(&edges) {
        let commits = circle.iter().map(|index| facts.transactions.all[*index as usize].commit);
        let proof: Vec<u64> =
            commits.filter_map(|commit| facts.operations.get(commit as usize)).map(|o| o.id).collect();
        report.found(Rule::A10, &proof, || {
            let name = |index: &u32| {
                let transaction = &facts.transactions.all[*index as usize];
                format!("{}/{}", transaction.process, transaction.number)
            };
            let names: Vec<String> = circle.iter().take(10).map(name).collect();
            format!("transactions {} each depend on the others", names.join(", "))
        });
    }
}

/// Of each transaction, those that it depends on, from its own reads.
fn edges(facts: &Facts<'_>) -> Vec<Vec<u32>> {
    let all = &facts.transactions.all;
    let mut commits: HashMap<u32, Vec<(u64, u32)>> = HashMap::new();
    for (index, transaction) in (0..).zip(all) {
        if let Some(commit) = facts.operations.get(transaction.commit as usize) {
            commits.entry(transaction.process).or_default().push((commit.start_us, index));
        }
    }
    commits.values_mut().for_each(|of| of.sort_unstable());
    let mut edges = vec![Vec::new(); all.len()];
    for operation in facts.operations.iter().filter(|operation| operation.end == End::Ok) {
        let What::Poll { records, read_committed: true, .. } = &operation.what else { continue };
        let Some(commits) = commits.get(&operation.process) else { continue };
        let next = commits.partition_point(|(asked_us, _)| *asked_us < end_of(operation));
        let Some((_, reader)) = commits.get(next) else { continue };
        for seen in records {
            let send = facts.sent.get(facts.value_of(seen) as usize).map(|(send, _)| *send);
            let writer = send.and_then(|send| facts.transactions.index_of(send));
            edges[*reader as usize].extend(writer.filter(|writer| writer != reader));
        }
    }
    for to in &mut edges {
        to.sort_unstable();
        to.dedup();
    }
    edges
}

/// The strongly connected components of more than one (Tarjan), without recursion: chains may be long.
fn components(edges: &[Vec<u32>]) -> Vec<Vec<u32>> {
    const NEW: u32 = u32::MAX;
    let (mut order, mut low) = (vec![NEW; edges.len()], vec![0; edges.len()]);
    let (mut on_stack, mut stack, mut found, mut count) = (vec![false; edges.len()], Vec::new(), Vec::new(), 0);
    for root in 0..edges.len() {
        // A node, and how many of its edges were looked at.
        let mut path: Vec<(usize, usize)> = if order[root] == NEW { vec![(root, 0)] } else { Vec::new() };
        while let Some((node, looked_at)) = path.pop() {
            if looked_at == 0 {
                (order[node], low[node], on_stack[node]) = (count, count, true);
                stack.push(node);
                count += 1;
            } else {
                let child = edges[node][looked_at - 1] as usize;
                if on_stack[child] {
                    low[node] = low[node].min(low[child]);
                }
            }
            if let Some(child) = edges[node].get(looked_at) {
                path.push((node, looked_at + 1));
                if order[*child as usize] == NEW {
                    path.push((*child as usize, 0));
                }
                continue;
            }
            if low[node] == order[node] {
                let from = stack.iter().rposition(|on| *on == node).unwrap_or(0);
                let component: Vec<u32> = stack.drain(from..).map(|on| u32::try_from(on).unwrap_or(NEW)).collect();
                component.iter().for_each(|on| on_stack[*on as usize] = false);
                if component.len() > 1 {
                    found.push(component);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_found_in_any_shape() {
        let of = |edges: &[&[u32]]| {
            let edges: Vec<Vec<u32>> = edges.iter().map(|to| to.to_vec()).collect();
            let mut found = components(&edges);
            found.iter_mut().for_each(|component| component.sort_unstable());
            found.sort();
            found
        };
        assert!(of(&[&[1], &[2], &[]]).is_empty());
        assert_eq!(of(&[&[1], &[0]]), [[0, 1]]);
        assert_eq!(of(&[&[1], &[2, 3], &[0], &[4], &[3], &[0]]), [vec![0, 1, 2], vec![3, 4]]);
        assert!(of(&[&[1, 2], &[3], &[3], &[]]).is_empty());
        let long: Vec<Vec<u32>> = (0..100_000).map(|node| vec![(node + 1) % 100_000]).collect();
        assert_eq!(components(&long).len(), 1);
    }
}
