//! Members and what they own: A23 (a stale member is refused), A24 (one owner), K15 (a good member is not refused).
//!
//! A member that took over an assignment and later, without joining again, had a heartbeat or a commit accepted was a
//! member all the time from the first answer to the second question. Such a stay is what the rules compare: the broker
//! itself has vouched for it, so a consumer that merely does not know yet that it lost its place is nobody's fault.
use std::collections::{BTreeMap, HashMap};

use super::bounds::Rising;
use super::facts::{Facts, end_of};
use super::report::{Report, Rule};
use crate::operation::{End, GroupProtocol, Log, Operation, What};

/// What happened in one group, by the operations' begins.
#[derive(Default)]
struct Group {
    joins: Vec<u32>,
    /// Heartbeats and commits, whatever came of them.
    calls: Vec<u32>,
    /// Of each member, its joins and leaves, whatever came of them.
    turns: HashMap<String, Vec<u32>>,
    /// When somebody was told that its coordinator is no more, or did not learn anything.
    moves: Vec<u64>,
    /// It may have been deleted, or vanished while it was empty, and begun anew with the first generation.
    renewed: bool,
    /// It has members of the newer protocol, with epochs of their own.
    newer: bool,
}

/// From the end of a join until the last accepted call that began before the member's next turn.
struct Stay<'a> {
    member: &'a str,
    instance: Option<&'a str>,
    logs: &'a [Log],
    from_us: u64,
    to_us: u64,
    join: u32,
    last_call: u32,
}

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    for (name, group) in groups(facts) {
        let stays = stays(facts, &group);
        stale(facts, name, &group, report);
        came_later(facts, name, &group, report);
        gone(facts, name, &group, report);
        outsiders(facts, name, &group, &stays, report);
        owners(facts, name, &stays, report);
        generations(facts, name, &group, report);
        wrongly_refused(facts, name, &group, &stays, report);
    }
}

fn groups<'a>(facts: &Facts<'a>) -> BTreeMap<&'a str, Group> {
    let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
    for (number, operation) in (0..).zip(&facts.operations) {
        match &operation.what {
            What::Assigned { group, member, protocol, .. } => {
                let group = groups.entry(group).or_default();
                group.newer |= *protocol == GroupProtocol::Consumer;
                if operation.end == End::Ok {
                    group.joins.push(number);
                }
                group.turns.entry(member.clone()).or_default().push(number);
            }
            What::Left { group, member } => {
                let group = groups.entry(group).or_default();
                group.turns.entry(member.clone()).or_default().push(number);
            }
            // Whoever speaks for no member may send offsets with a transaction at any time.
            What::SendOffsets { generation: ..0, .. } => {}
            What::Heartbeat { group, .. } | What::Commit { group, .. } | What::SendOffsets { group, .. } => {
                let group = groups.entry(group).or_default();
                group.calls.push(number);
                if matches!(operation.end, End::Info(_)) || operation.end.error().contains("COORDINATOR") {
                    group.moves.push(operation.end_us.unwrap_or(u64::MAX));
                }
            }
            What::DeleteGroup { group } if !matches!(operation.end, End::Fail(_)) => {
                groups.entry(group).or_default().renewed = true;
            }
            _ => {}
        }
    }
    for group in groups.values_mut() {
        let mut known = Rising::default();
        for &join in &group.joins {
            known.tell(end_of(facts.op(join)), i64::from(generation(facts.op(join))), join);
        }
        known.seal();
        group.renewed |= group.joins.iter().any(|join| {
            let operation = facts.op(*join);
            known.before(operation.start_us).is_some_and(|(most, _)| most > i64::from(generation(operation)))
        });
    }
    groups
}

fn generation(operation: &Operation) -> i32 {
    match operation.what {
        What::Assigned { generation, .. }
        | What::Heartbeat { generation, .. }
        | What::Commit { generation, .. }
        | What::SendOffsets { generation, .. } => generation,
        _ => -1,
    }
}

fn member(operation: &Operation) -> &str {
    match &operation.what {
        What::Assigned { member, .. }
        | What::Heartbeat { member, .. }
        | What::Commit { member, .. }
        | What::SendOffsets { member, .. }
        | What::Left { member, .. } => member,
        _ => "",
    }
}

/// Up to when an accepted call shows that all was well. A coordinator that was replaced and does not know it yet may
/// answer heartbeats for as long as a broker may lag behind itself; commits it can't take.
fn vouched(facts: &Facts<'_>, call: &Operation) -> u64 {
    match call.what {
        What::Heartbeat { .. } => call.start_us.saturating_sub(facts.options.own_lag_us),
        _ => call.start_us,
    }
}

fn accepted<'b>(facts: &'b Facts<'_>, group: &'b Group) -> impl Iterator<Item = u32> + 'b {
    group.calls.iter().copied().filter(|call| facts.op(*call).end == End::Ok)
}

/// The member's last turn that began before then.
fn turn_before(facts: &Facts<'_>, group: &Group, member: &str, when_us: u64) -> Option<u32> {
    let turns = group.turns.get(member)?;
    let count = turns.partition_point(|turn| facts.op(*turn).start_us < when_us);
    count.checked_sub(1).map(|last| turns[last])
}

fn stays<'a>(facts: &Facts<'a>, group: &Group) -> Vec<Stay<'a>> {
    let mut stays: BTreeMap<u32, Stay<'_>> = BTreeMap::new();
    for call in accepted(facts, group) {
        let operation = facts.op(call);
        let Some(join) = turn_before(facts, group, member(operation), operation.start_us) else { continue };
        let joined = facts.op(join);
        let What::Assigned { member, instance, logs, protocol, generation: own, .. } = &joined.what else { continue };
        let same = *protocol == GroupProtocol::Consumer || *own == generation(operation);
        if joined.end != End::Ok || end_of(joined) > operation.start_us || !same {
            continue;
        }
        let (from_us, instance) = (end_of(joined), instance.as_deref());
        let stay = stays.entry(join).or_insert(Stay {
            member,
            instance,
            logs,
            from_us,
            to_us: from_us,
            join,
            last_call: call,
        });
        (stay.to_us, stay.last_call) = (from_us.max(vouched(facts, operation)), call);
    }
    stays.into_values().collect()
}

/// Classic protocol: no call of a generation is accepted after a newer one was answered to anybody. A rebalance that is
/// only being prepared has not answered a newer generation yet, so commits of the old one are still legal then.
fn stale(facts: &Facts<'_>, name: &str, group: &Group, report: &mut Report) {
    if group.newer {
        return;
    }
    let mut newest = Rising::default();
    for &join in &group.joins {
        newest.tell(end_of(facts.op(join)), i64::from(generation(facts.op(join))), join);
    }
    newest.seal();
    for call in accepted(facts, group).filter(|call| generation(facts.op(*call)) >= 0) {
        let operation = facts.op(call);
        let own = i64::from(generation(operation));
        let Some((newest, teller)) = newest.before(vouched(facts, operation)) else { continue };
        // Where generations may have begun anew, the newer one has to be younger than the member's own.
        let own_join = turn_before(facts, group, member(operation), operation.start_us);
        let own_join = own_join.filter(|join| generation(facts.op(*join)) == generation(operation));
        let younger = own_join.is_some_and(|join| end_of(facts.op(join)) < facts.op(teller).start_us);
        let stale = newest > own && (!group.renewed || younger);
        report.expect(Rule::A23, !stale, &[facts.id(teller), facts.id(call)], || {
            let member = member(operation);
            format!("group {name}: {member} of generation {own} is accepted after generation {newest}")
        });
    }
}

/// Members that left, or whose static instance was taken over, are not accepted any more.
fn gone(facts: &Facts<'_>, name: &str, group: &Group, report: &mut Report) {
    let mut holders: HashMap<&str, Vec<u32>> = HashMap::new();
    for &join in &group.joins {
        if let What::Assigned { instance: Some(instance), .. } = &facts.op(join).what {
            holders.entry(instance).or_default().push(join);
        }
    }
    for call in accepted(facts, group) {
        let operation = facts.op(call);
        let Some(turn) = turn_before(facts, group, member(operation), operation.start_us) else { continue };
        let last = facts.op(turn);
        let both = |other: u32| [facts.id(other), facts.id(call)];
        match &last.what {
            What::Left { member, .. } => {
                let left = last.end == End::Ok && end_of(last) < vouched(facts, operation);
                report.expect(Rule::A23, !left, &both(turn), || {
                    format!("group {name}: {member} is accepted after it left")
                });
            }
            What::Assigned { member, instance: Some(instance), .. } if last.end == End::Ok => {
                let taken = holders[instance.as_str()].iter().copied().find(|join| {
                    let other = facts.op(*join);
                    let What::Assigned { member: holder, .. } = &other.what else { return false };
                    holder != member && other.start_us > end_of(last) && end_of(other) < vouched(facts, operation)
                });
                report.expect(Rule::A23, taken.is_none(), &both(taken.unwrap_or(turn)), || {
                    format!("group {name}: {member} is accepted after another took over its instance {instance}")
                });
            }
            _ => {}
        }
    }
}

/// A commit from outside is only accepted while the group has no members.
fn outsiders(facts: &Facts<'_>, name: &str, group: &Group, stays: &[Stay<'_>], report: &mut Report) {
    let mut by_begin: Vec<&Stay<'_>> = stays.iter().collect();
    by_begin.sort_unstable_by_key(|stay| stay.from_us);
    let mut longest = Rising::default();
    for stay in &by_begin {
        longest.tell(stay.from_us, i64::try_from(stay.to_us).unwrap_or(i64::MAX), stay.join);
    }
    longest.seal();
    for call in accepted(facts, group).filter(|call| member(facts.op(*call)).is_empty()) {
        let operation = facts.op(call);
        let Some((to_us, join)) = longest.before(operation.start_us) else { continue };
        let inside = i64::try_from(end_of(operation)).is_ok_and(|end| end < to_us);
        report.expect(Rule::A23, !inside, &[facts.id(join), facts.id(call)], || {
            format!("group {name}: a commit from outside is accepted while it has members")
        });
    }
}

fn owners(facts: &Facts<'_>, name: &str, stays: &[Stay<'_>], report: &mut Report) {
    let mut owned: BTreeMap<&Log, Vec<&Stay<'_>>> = BTreeMap::new();
    for stay in stays {
        for log in stay.logs {
            owned.entry(log).or_default().push(stay);
        }
    }
    for (log, mut stays) in owned {
        stays.sort_by_key(|stay| stay.from_us);
        let mut longest: Option<&Stay<'_>> = None;
        for stay in stays {
            // One member's stays never overlap, so it is enough to remember the one that lasts longest.
            if let Some(other) = longest {
                let both = other.member != stay.member && stay.from_us < other.to_us && stay.from_us < stay.to_us;
                let proof = [other.join, other.last_call, stay.join, stay.last_call].map(|by| facts.id(by));
                report.expect(Rule::A24, !both, &proof, || {
                    let instances = [other, stay].map(|stay| stay.instance.unwrap_or("dynamic"));
                    let (topic, partition) = (&log.topic, log.partition);
                    format!(
                        "group {name}: {} and {} own {topic}-{partition} ({instances:?})",
                        other.member, stay.member
                    )
                });
            } else {
                report.checked(Rule::A24, 1);
            }
            longest = longest.filter(|other| other.to_us >= stay.to_us).or(Some(stay));
        }
    }
}

/// In one generation of the classic protocol all is shared out once; a static member passes its share on to who takes
/// its place.
fn generations(facts: &Facts<'_>, name: &str, group: &Group, report: &mut Report) {
    if group.renewed {
        return;
    }
    let mut owners: HashMap<(i32, &Log), (u32, &str, Option<&str>)> = HashMap::new();
    for &join in &group.joins {
        let What::Assigned { member, instance, protocol: GroupProtocol::Classic, generation, logs, .. } =
            &facts.op(join).what
        else {
            continue;
        };
        for log in logs {
            let (first, owner, its) = *owners.entry((*generation, log)).or_insert((join, member, instance.as_deref()));
            let same = owner == member || its.is_some() && its == instance.as_deref();
            report.expect(Rule::A24, same, &[facts.id(first), facts.id(join)], || {
                let (topic, partition) = (&log.topic, log.partition);
                format!("group {name}: {owner} and {member} own {topic}-{partition} in generation {generation}")
            });
        }
    }
}

/// The newer protocol: a commit of a past epoch is accepted for what the member had then, not for what came later
/// (KIP-1251).
fn came_later(facts: &Facts<'_>, name: &str, group: &Group, report: &mut Report) {
    for call in accepted(facts, group) {
        let operation = facts.op(call);
        let What::Commit { member, generation: epoch @ 0.., offsets, .. } = &operation.what else { continue };
        let Some(turns) = group.turns.get(member) else { continue };
        let begun = turns.partition_point(|turn| facts.op(*turn).start_us < operation.start_us);
        let had = turns[..begun].iter().rev().map_while(|turn| match (&facts.op(*turn).what, &facts.op(*turn).end) {
            (What::Assigned { protocol: GroupProtocol::Consumer, generation, logs, .. }, End::Ok) => {
                Some((*turn, *generation, logs))
            }
            _ => None,
        });
        let had: Vec<_> = had.collect();
        for commit in offsets {
            let there = |log: &Log| log.topic == commit.log.topic && log.partition == commit.log.partition;
            if !had.first().is_some_and(|(_, _, logs)| logs.iter().any(there)) {
                continue;
            }
            let Some((turn, without, _)) = had.iter().find(|(_, _, logs)| !logs.iter().any(there)) else { continue };
            report.expect(Rule::A23, epoch >= without, &[facts.id(*turn), facts.id(call)], || {
                let (topic, partition) = (&commit.log.topic, commit.log.partition);
                format!(
                    "group {name}: {member} commits {topic}-{partition} of epoch {epoch}, and got it after {without}"
                )
            });
        }
    }
}

/// Inside a stay, the broker may not say that there is no such member; nor, in the classic protocol, that the generation
/// is another.
fn wrongly_refused(facts: &Facts<'_>, name: &str, group: &Group, stays: &[Stay<'_>], report: &mut Report) {
    let mut by_join: HashMap<u32, &Stay<'_>> = HashMap::new();
    for stay in stays {
        by_join.insert(stay.join, stay);
    }
    for &call in &group.calls {
        let operation = facts.op(call);
        let Some(join) = turn_before(facts, group, member(operation), operation.start_us) else { continue };
        let Some(stay) = by_join.get(&join) else { continue };
        let inside = stay.from_us < operation.start_us && end_of(operation) < stay.to_us;
        let What::Assigned { protocol, generation: own, .. } = &facts.op(join).what else { continue };
        if !inside || *own != generation(operation) {
            continue;
        }
        let lies = match operation.end.error() {
            // That a silent member was removed, or a static one replaced, is in a coordinator's memory until the next
            // generation: the next coordinator knows it again.
            "UNKNOWN_MEMBER_ID" | "FENCED_INSTANCE_ID" => {
                !group.moves.iter().any(|at| (operation.start_us..stay.to_us).contains(at))
            }
            "ILLEGAL_GENERATION" => *protocol == GroupProtocol::Classic,
            _ => false,
        };
        report.expect(Rule::K15, !lies, &[facts.id(join), facts.id(call), facts.id(stay.last_call)], || {
            let (member, error) = (stay.member, operation.end.error());
            format!("group {name}: {member} is told {error}, and is accepted later without joining again")
        });
    }
}
