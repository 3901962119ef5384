//! The consumer protocol (KIP-848): members say in heartbeats what they are subscribed to and own; the coordinator
//! assigns, and moves each member to its part without stopping the others. Kafka's `GroupMetadataManager` and
//! `ConsumerGroup` are the reference for every rule. Promises that a partition is given to a member only after the one
//! that had it gave it up, left or was fenced, and that a heartbeat of a settled member changes nothing and costs nothing
//! that grows with the group. Never looks at the journal. Tests: `tests/`.
mod change;
mod guests;
mod heartbeat;
mod leave;
mod member;
mod migrate;
pub(super) mod pattern;
mod range;
mod reconcile;
mod subscriptions;
mod target;
mod timers;
mod uniform;
mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::machine::{Phase, Step, View};
use super::message::{CommitRequest, DescribedMember, Description, Reader};
use crate::planted::{Defect, planted};
use crate::state::{Group, GroupHeader, GroupName, GroupProtocol, OffsetSpec, State};
use crate::types::{KafkaError, Slot, TopicId};
use crate::world::Instant;
use change::Changes;
use member::{Member, MemberId, Partitions, Standing, partitions_record, restore_target, without_epochs};
use subscriptions::Subscriptions;
use timers::{Timer, Timers};
pub(super) use validate::validate;

/// The protocol type of consumers in the classic protocol.
const CONSUMER: &str = "consumer";

/// A group of the consumer protocol. Some of its members may speak the classic one, while the group moves over.
pub(super) struct ConsumerGroup {
    name: GroupName,
    header: GroupHeader,
    members: BTreeMap<MemberId, Member>,
    targets: BTreeMap<MemberId, Partitions>,
    // From here: what follows from the above.
    /// By instance id.
    statics: BTreeMap<Arc<str>, MemberId>,
    /// Who has a partition, or has not yet given it back.
    owners: BTreeMap<(TopicId, i32), MemberId>,
    /// Members that speak the classic protocol.
    guests: usize,
    /// Members that are not reconciled to the assignment epoch.
    lagging: BTreeSet<MemberId>,
    subscriptions: Subscriptions,
    // From here: what State does not have.
    timers: Timers,
    /// When the targets were computed.
    assigned_at: Option<Instant>,
    changes: Changes,
}

impl ConsumerGroup {
    /// As State has it. Sessions begin anew.
    pub(super) fn load(name: GroupName, group: Option<&Group>, view: &View<'_>) -> Self {
        let header = group.map(|g| g.header.clone()).unwrap_or_default();
        let mut loaded = Self::empty(name, header);
        let Some(group) = group else { return loaded };
        for (id, target) in &group.targets {
            loaded.targets.insert(id.clone(), restore_target(target));
        }
        for record in group.members.values() {
            let member = Member::restore(record);
            let session_ms = member.classic.as_ref().map(|c| c.session_timeout_ms);
            let session_ms = session_ms.unwrap_or_else(|| loaded.setting_session_ms(view));
            loaded.timers.set((member.id.clone(), Timer::Session), view.after_ms(session_ms));
            if member.standing == Standing::Unrevoked && member.classic.is_none() {
                loaded.timers.set((member.id.clone(), Timer::Revoke), view.after_ms(member.rebalance_timeout_ms));
            }
            loaded.put(view.state, member);
        }
        loaded.changes = Changes::default();
        loaded
    }

    fn empty(name: GroupName, header: GroupHeader) -> Self {
        let header = GroupHeader { protocol: GroupProtocol::Consumer as i32, ..header };
        Self {
            name,
            header,
            members: BTreeMap::new(),
            targets: BTreeMap::new(),
            statics: BTreeMap::new(),
            owners: BTreeMap::new(),
            guests: 0,
            lagging: BTreeSet::new(),
            subscriptions: Subscriptions::default(),
            timers: Timers::default(),
            assigned_at: None,
            changes: Changes::default(),
        }
    }

    /// Whether this client may commit these offsets now; the generation is a member epoch. An epoch that is not the
    /// member's any more is accepted for partitions that it had at that epoch already and still has (KIP-1251).
    ///
    /// # Errors
    /// Kafka's.
    pub(super) fn may_commit(&self, step: &Step<'_>, commit: &CommitRequest) -> Result<(), KafkaError> {
        let CommitRequest { identity, offsets, before_epochs, .. } = commit;
        if identity.generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        let known = self.members.get(identity.member_id.as_str());
        if known.is_none() && identity.generation <= self.header.epoch && planted(Defect::FencedMemberCommits) {
            return Ok(());
        }
        let member = known.ok_or(KafkaError::UnknownMemberId)?;
        if *before_epochs && member.classic.is_none() {
            return Err(KafkaError::UnsupportedVersion);
        }
        if identity.generation == member.epoch {
            return Ok(());
        }
        let is_since = |spec: &OffsetSpec| {
            let partition = step.view.state.partition(Slot(spec.slot));
            let of = |owned: &member::Owned| {
                partition.and_then(|p| owned.get(&p.topic)?.get(&p.index.0)).is_some_and(|e| *e <= identity.generation)
            };
            // Of a partition that was deleted meanwhile nothing is committed.
            partition.is_none() || of(&member.assigned) || of(&member.revoking)
        };
        let has_them = offsets.iter().all(is_since) || planted(Defect::StaleEpochCommits);
        if identity.generation < member.epoch && has_them {
            return Ok(());
        }
        Err(stale(member))
    }

    /// Whether this member may read offsets now.
    ///
    /// # Errors
    /// Kafka's.
    pub(super) fn may_read(&self, reader: &Reader) -> Result<(), KafkaError> {
        let member = self.members.get(reader.member_id.as_str()).ok_or(KafkaError::UnknownMemberId)?;
        if reader.member_epoch == member.epoch { Ok(()) } else { Err(stale(member)) }
    }

    /// Whether a member is subscribed to the topic, by name or by a regular expression.
    pub(super) fn is_subscribed(&self, topic: &str) -> bool {
        self.subscriptions.contains(topic)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timers.first()
    }

    pub(super) fn phase(&self) -> Phase {
        if self.members.is_empty() {
            Phase::Empty
        } else if self.header.epoch > self.header.assignment_epoch {
            Phase::Assigning
        } else if self.lagging.is_empty() {
            Phase::Stable
        } else {
            Phase::Reconciling
        }
    }

    pub(super) fn epoch(&self) -> i32 {
        self.header.epoch
    }

    pub(super) fn describe(&self, step: &Step<'_>) -> Description {
        let member = |m: &Member| DescribedMember {
            member_id: m.id.to_string(),
            instance_id: m.instance_id.as_deref().map(str::to_owned),
            rack: m.rack.clone(),
            client_id: m.client_id.clone(),
            client_host: m.client_host.clone(),
            epoch: m.epoch,
            subscribed_topics: m.subscription.topics.iter().map(ToString::to_string).collect(),
            subscribed_regex: m.subscription.regex.as_deref().map(str::to_owned),
            assigned: partitions_record(&without_epochs(&m.assigned)),
            target: self.targets.get(&m.id).map(partitions_record).unwrap_or_default(),
            is_classic: m.classic.is_some(),
            ..DescribedMember::default()
        };
        Description {
            protocol: GroupProtocol::Consumer,
            phase: self.phase(),
            epoch: self.header.epoch,
            assignment_epoch: self.header.assignment_epoch,
            protocol_type: CONSUMER.to_owned(),
            protocol_name: self.preferred_assignor(step).name().to_owned(),
            members: self.members.values().map(member).collect(),
        }
    }
}

/// Members come, change and go; everything that follows from them is kept true here.
impl ConsumerGroup {
    fn put(&mut self, state: &State, member: Member) {
        let id = member.id.clone();
        let old = self.members.remove(&id);
        if old.as_ref() == Some(&member) {
            self.members.insert(id, member);
            return;
        }
        self.subscriptions.add(&member.subscription, state);
        self.guests += usize::from(member.classic.is_some());
        if let Some(old) = &old {
            self.forget(old);
        }
        if let Some(instance) = &member.instance_id {
            self.statics.insert(instance.clone(), id.clone());
        }
        let revoking = |(topic, p): &(TopicId, i32)| member.revoking.get(topic).is_some_and(|r| r.contains_key(p));
        for partition in member.held().filter(|held| !(revoking(held) && planted(Defect::RevokingIsFree))) {
            // Two members with one partition can only come from a group of the classic protocol; the first has it.
            self.owners.entry(partition).or_insert_with(|| id.clone());
        }
        if !member.is_reconciled_to(self.header.assignment_epoch) {
            self.lagging.insert(id.clone());
        }
        self.changes.members.insert(id.clone());
        self.members.insert(id, member);
    }

    /// Takes out what follows from the member as it was.
    fn forget(&mut self, old: &Member) {
        self.subscriptions.remove(&old.subscription);
        self.guests -= usize::from(old.classic.is_some());
        if let Some(instance) = &old.instance_id
            && self.statics.get(instance) == Some(&old.id)
        {
            self.statics.remove(instance);
        }
        for partition in old.held() {
            if self.owners.get(&partition) == Some(&old.id) {
                self.owners.remove(&partition);
            }
        }
        self.lagging.remove(&old.id);
    }

    fn remove(&mut self, id: &MemberId) {
        if let Some(old) = self.members.remove(id) {
            self.forget(&old);
        }
        self.targets.remove(id);
        self.changes.members.remove(id);
        self.changes.targets.remove(id);
        self.changes.gone.insert(id.clone());
    }

    /// `member` takes the place of `old`, with its target.
    fn replace(&mut self, step: &Step<'_>, old: &MemberId, member: Member) {
        let (id, target) = (member.id.clone(), self.targets.remove(old));
        self.timers.clear_all(old);
        self.remove(old);
        self.put(step.view.state, member);
        if let Some(target) = target {
            self.changes.targets.insert(id.clone());
            self.targets.insert(id, target);
        }
    }
}

/// The group's own settings, or the broker's.
impl ConsumerGroup {
    fn session_timeout_ms(&self, step: &Step<'_>) -> i32 {
        self.setting_session_ms(&step.view)
    }

    fn setting_session_ms(&self, view: &View<'_>) -> i32 {
        let kafka = &view.settings.kafka;
        let (min, max) = (kafka.group_consumer_min_session_timeout_ms, kafka.group_consumer_max_session_timeout_ms);
        self.setting(view, "consumer.session.timeout.ms", kafka.group_consumer_session_timeout_ms, min, max)
    }

    fn heartbeat_interval_ms(&self, step: &Step<'_>) -> i32 {
        let kafka = &step.view.settings.kafka;
        let (min, max) =
            (kafka.group_consumer_min_heartbeat_interval_ms, kafka.group_consumer_max_heartbeat_interval_ms);
        let default = kafka.group_consumer_heartbeat_interval_ms;
        self.setting(&step.view, "consumer.heartbeat.interval.ms", default, min, max)
    }

    fn assignment_interval_ms(&self, step: &Step<'_>) -> i32 {
        // The bounds are the defaults of Kafka's group.consumer.min/max.assignment.interval.ms.
        let default = step.view.settings.kafka.group_consumer_assignment_interval_ms;
        self.setting(&step.view, "consumer.assignment.interval.ms", default, 0, 15_000)
    }

    /// What was set for the group, brought between the bounds; what was not set is the broker's own, as it is.
    fn setting(&self, view: &View<'_>, name: &str, default: i32, min: i32, max: i32) -> i32 {
        let configs = view.state.group_configs(&self.name);
        let set = configs.and_then(|c| c.get(name)).and_then(|v| v.parse::<i32>().ok());
        set.map_or(default, |value| value.min(max).max(min))
    }
}

fn stale(member: &Member) -> KafkaError {
    if member.classic.is_some() { KafkaError::IllegalGeneration } else { KafkaError::StaleMemberEpoch }
}

#[cfg(test)]
mod tests;
