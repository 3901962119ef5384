//! One member on its way from what it has to what it is to have. Kafka's `CurrentAssignmentBuilder`, with the rules of
//! KIP-848: it first gives back what is not in its target, then its epoch rises to the target's, then it gets what is
//! free, and what others still hold when they have given it back.
use std::collections::{BTreeMap, BTreeSet};

use super::member::{Member, Owned, Partitions, Standing};
use crate::group::message::OwnedPartitions;
use crate::types::TopicId;

/// Where a member is to go.
pub(super) struct Goal<'a> {
    /// The assignment epoch of the target.
    pub epoch: i32,
    pub target: &'a Partitions,
    /// The topics that it is subscribed to, of those that exist.
    pub subscribed: &'a BTreeSet<TopicId>,
    /// The member's subscription changed just now: what it does not want any more is taken from it at once.
    pub subscription_changed: bool,
    /// What the member says that it has; `None` if it says nothing.
    pub owned: Option<&'a [OwnedPartitions]>,
}

/// The member one step further; the same if there is nothing to do. `is_free` says whether no member holds a partition.
pub(super) fn reconcile(member: &Member, goal: &Goal<'_>, is_free: impl Fn(TopicId, i32) -> bool) -> Member {
    match member.standing {
        Standing::Stable if member.epoch != goal.epoch => advance(member, goal, member.epoch, is_free),
        Standing::Unrevoked if !owns_any(goal.owned, &member.revoking) => {
            // With an epoch of its own for each revocation, a late request of the time before it is told apart.
            advance(member, goal, member.epoch.saturating_add(1), is_free)
        }
        Standing::Unreleased => advance(member, goal, member.epoch, is_free),
        Standing::Stable | Standing::Unrevoked if goal.subscription_changed => drop_unsubscribed(member, goal),
        Standing::Stable | Standing::Unrevoked => member.clone(),
    }
}

/// Whether the member has, or may have, any of these.
fn owns_any(owned: Option<&[OwnedPartitions]>, these: &Owned) -> bool {
    let Some(owned) = owned else { return !these.is_empty() };
    let in_these = |o: &OwnedPartitions| {
        these.get(&o.topic).is_some_and(|partitions| o.partitions.iter().any(|p| partitions.contains_key(p)))
    };
    owned.iter().any(in_these)
}

fn advance(member: &Member, goal: &Goal<'_>, epoch: i32, is_free: impl Fn(TopicId, i32) -> bool) -> Member {
    let (mut assigned, mut revoking) = (Owned::new(), Owned::new());
    for (topic, partitions) in &member.assigned {
        let target = goal.target.get(topic).filter(|_| goal.subscribed.contains(topic));
        let is_kept = |p: &i32| target.is_some_and(|t| t.contains(p));
        let (kept, back): (BTreeMap<i32, i32>, BTreeMap<i32, i32>) = partitions.iter().partition(|(p, _)| is_kept(p));
        put(&mut assigned, *topic, kept);
        put(&mut revoking, *topic, back);
    }
    if !revoking.is_empty() && owns_any(goal.owned, &revoking) {
        return with(member, Standing::Unrevoked, epoch, assigned, revoking);
    }
    let mut standing = Standing::Stable;
    for (topic, target) in goal.target.iter().filter(|(topic, _)| goal.subscribed.contains(topic)) {
        let has = member.assigned.get(topic);
        for partition in target.iter().filter(|p| has.is_none_or(|has| !has.contains_key(p))) {
            if is_free(*topic, *partition) {
                assigned.entry(*topic).or_default().insert(*partition, goal.epoch);
            } else {
                standing = Standing::Unreleased;
            }
        }
    }
    with(member, standing, goal.epoch, assigned, Owned::new())
}

fn drop_unsubscribed(member: &Member, goal: &Goal<'_>) -> Member {
    let (assigned, dropped): (Owned, Owned) =
        member.assigned.clone().into_iter().partition(|(topic, _)| goal.subscribed.contains(topic));
    if dropped.is_empty() {
        return member.clone();
    }
    let mut revoking = member.revoking.clone();
    for (topic, partitions) in dropped {
        revoking.entry(topic).or_default().extend(partitions);
    }
    if owns_any(goal.owned, &revoking) {
        return with(member, Standing::Unrevoked, member.epoch, assigned, revoking);
    }
    with(member, member.standing, member.epoch, assigned, member.revoking.clone())
}

fn put(owned: &mut Owned, topic: TopicId, partitions: BTreeMap<i32, i32>) {
    if !partitions.is_empty() {
        owned.insert(topic, partitions);
    }
}

fn with(member: &Member, standing: Standing, epoch: i32, assigned: Owned, revoking: Owned) -> Member {
    Member { standing, previous_epoch: member.epoch, epoch, assigned, revoking, ..member.clone() }
}
