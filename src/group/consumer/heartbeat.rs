//! A heartbeat of a member that stays, and what follows from it: it is taken in or changed, the group's epoch rises if
//! subscriptions or topics changed, a new target is computed if the epoch rose, and the member goes one step towards its
//! part of it.
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::member::{EPOCH_AWAY, Member, MemberId, Owned, Partitions, Standing, Subscription, named};
use super::reconcile::{Goal, reconcile};
use super::target::{Assignor, Candidate, Problem};
use super::timers::Timer;
use super::{ConsumerGroup, pattern, subscriptions};
use crate::group::machine::{RequestId, Step};
use crate::group::message::{ConsumerHeartbeat, ConsumerHeartbeatReply, GroupError, OwnedPartitions, Reply};
use crate::types::KafkaError;

/// Who speaks.
struct Admission {
    /// The member as it was; a new one as it begins.
    base: Member,
    /// The member whose place it takes.
    replaced: Option<MemberId>,
}

impl ConsumerGroup {
    /// ConsumerGroupHeartbeat; the request was found right by [`super::validate`]. Says whether it was accepted: if not,
    /// nothing changed.
    pub(in crate::group) fn heartbeat(
        &mut self,
        step: &mut Step<'_>,
        id: RequestId,
        request: &ConsumerHeartbeat,
    ) -> bool {
        let result = if request.member_epoch < 0 {
            self.leave_by_heartbeat(step, request)
        } else {
            self.live_heartbeat(step, request)
        };
        match result {
            Ok(reply) => {
                self.flush(step);
                step.reply(id, Reply::ConsumerHeartbeat(reply));
                true
            }
            Err(error) => {
                step.refuse(id, error);
                false
            }
        }
    }

    fn live_heartbeat(
        &mut self,
        step: &Step<'_>,
        request: &ConsumerHeartbeat,
    ) -> Result<ConsumerHeartbeatReply, GroupError> {
        let id: MemberId = match request.member_id.as_str() {
            "" => Arc::from(URL_SAFE_NO_PAD.encode(step.view.random.to_be_bytes())),
            id => Arc::from(id),
        };
        self.check_size(step, &id)?;
        let Admission { base, replaced } = self.admit(&id, request)?;
        let member = updated(&base, request);
        self.check_pattern(&base, &member)?;
        // From here nothing fails.
        let before = base.assigned.clone();
        let subscription_changed = base.subscription != member.subscription;
        if let Some(old) = replaced {
            self.replace(step, &old, base);
        }
        self.put(step.view.state, member);
        self.bump_if(step, subscription_changed);
        self.assign_if_due(step);
        self.advance(step, &id, request.owned.as_deref(), subscription_changed);
        self.timers.set((id.clone(), Timer::Session), step.view.after_ms(self.session_timeout_ms(step)));
        self.timers.clear(&(id.clone(), Timer::Join));
        self.timers.clear(&(id.clone(), Timer::Sync));
        Ok(self.answer(step, &id, request, &before))
    }

    /// With the assignment where the member asked in full, or where it changed.
    fn answer(
        &self,
        step: &Step<'_>,
        id: &MemberId,
        request: &ConsumerHeartbeat,
        before: &Owned,
    ) -> ConsumerHeartbeatReply {
        let in_full = request.member_epoch == 0
            || request.rebalance_timeout_ms != -1
                && (request.subscribed_topics.is_some() || request.subscribed_regex.is_some())
                && request.owned.is_some();
        let member = self.members.get(id);
        ConsumerHeartbeatReply {
            member_id: Some(id.to_string()),
            member_epoch: member.map_or(0, |m| m.epoch),
            heartbeat_interval_ms: self.heartbeat_interval_ms(step),
            assignment: member.map(|m| &m.assigned).filter(|a| in_full || *a != before).map(named),
        }
    }

    pub(super) fn check_size(&self, step: &Step<'_>, id: &str) -> Result<(), GroupError> {
        let max = step.view.settings.kafka.group_consumer_max_size;
        if self.members.len() < usize::try_from(max).unwrap_or(0) || self.members.contains_key(id) {
            return Ok(());
        }
        let message = format!("The consumer group has reached its maximum capacity of {max} members.");
        Err(GroupError::new(KafkaError::GroupMaxSizeReached, message))
    }

    fn admit(&self, id: &MemberId, request: &ConsumerHeartbeat) -> Result<Admission, GroupError> {
        let joins = request.member_epoch == 0;
        let known = match request.instance_id.as_deref() {
            None => self.members.get(id),
            Some(instance) => {
                let existing = self.statics.get(instance).and_then(|id| self.members.get(id));
                if joins && let Some(existing) = existing {
                    return self.admit_returning(id, instance, existing);
                }
                if joins { self.members.get(id) } else { Some(self.check_static(existing, id, instance)?) }
            }
        };
        let base = match known {
            Some(member) => {
                check_epoch(member, request.member_epoch, request.owned.as_deref())?;
                member.clone()
            }
            None if joins => Member::new(id.clone()),
            None => return Err(self.unknown_member(id)),
        };
        Ok(Admission { base, replaced: None })
    }

    /// A static member that joins although its instance is there: it takes the place of one that left to come back, or
    /// that spoke the classic protocol.
    fn admit_returning(&self, id: &MemberId, instance: &str, existing: &Member) -> Result<Admission, GroupError> {
        if existing.classic.is_none() && existing.epoch != EPOCH_AWAY {
            let message = format!(
                "Static member {id} with instance id {instance} cannot join the group because the instance id is owned \
                 by {} member.",
                existing.id
            );
            return Err(GroupError::new(KafkaError::UnreleasedInstanceId, message));
        }
        let base = Member { id: id.clone(), epoch: 0, previous_epoch: 0, ..existing.clone() };
        Ok(Admission { base, replaced: Some(existing.id.clone()) })
    }

    /// The member of this instance, if it is this one.
    pub(super) fn check_static<'a>(
        &self,
        existing: Option<&'a Member>,
        id: &str,
        instance: &str,
    ) -> Result<&'a Member, GroupError> {
        let Some(existing) = existing else {
            return Err(GroupError::new(KafkaError::UnknownMemberId, format!("Instance id {instance} is unknown.")));
        };
        if &*existing.id == id {
            return Ok(existing);
        }
        let message = format!("Static member {id} with instance id {instance} was fenced by member {}.", existing.id);
        Err(GroupError::new(KafkaError::FencedInstanceId, message))
    }

    pub(super) fn unknown_member(&self, id: &str) -> GroupError {
        GroupError::new(KafkaError::UnknownMemberId, format!("Member {id} is not a member of group {}.", self.name))
    }

    fn check_pattern(&self, base: &Member, member: &Member) -> Result<(), GroupError> {
        let Some(regex) = &member.subscription.regex else { return Ok(()) };
        if base.subscription.regex.as_ref() == Some(regex) || self.subscriptions.has_pattern(regex) {
            return Ok(());
        }
        let reason = match pattern::compile(regex) {
            Err(reason) => reason,
            Ok(_) if self.subscriptions.is_full() => {
                format!("the group has {} different expressions, which is the limit", subscriptions::PATTERNS_MAX)
            }
            Ok(_) => return Ok(()),
        };
        let shown: String = regex.chars().take(256).collect();
        let message = format!("SubscribedTopicRegex `{shown}` is not a valid regular expression: {reason}.");
        Err(GroupError::new(KafkaError::InvalidRegularExpression, message))
    }

    /// The group's epoch rises, if it must anyway or if the topics are not what they were.
    pub(super) fn bump_if(&mut self, step: &Step<'_>, must: bool) {
        let (state, now) = (step.view.state, step.view.now);
        if !must && !self.subscriptions.is_stale(state, now) {
            return;
        }
        self.subscriptions.look(state, now);
        let hash = self.subscriptions.topics_hash(state);
        if must || hash != self.header.topics_hash {
            self.header.epoch = self.header.epoch.saturating_add(1);
            self.header.topics_hash = hash;
            self.changes.header = true;
        }
    }

    /// Computes the targets, if the epoch rose since they were, and they are not too young.
    pub(super) fn assign_if_due(&mut self, step: &Step<'_>) {
        let interval = Duration::from_millis(u64::from(self.assignment_interval_ms(step).unsigned_abs()));
        let is_young = self.assigned_at.is_some_and(|at| step.view.now < at + interval);
        if self.header.epoch <= self.header.assignment_epoch || is_young {
            return;
        }
        let assignor = self.preferred_assignor(step);
        let new = assignor.assign(&self.problem(step));
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for (id, target) in ids.into_iter().zip(new) {
            if self.targets.get(&id) != Some(&target) {
                self.changes.targets.insert(id.clone());
                self.targets.insert(id, target);
            }
        }
        self.header.assignment_epoch = self.header.epoch;
        self.assigned_at = Some(step.view.now);
        self.changes.header = true;
        let epoch = self.header.assignment_epoch;
        let lagging = self.members.values().filter(|m| !m.is_reconciled_to(epoch));
        self.lagging = lagging.map(|m| m.id.clone()).collect();
    }

    fn problem(&self, step: &Step<'_>) -> Problem<'_> {
        let state = step.view.state;
        let mut by_subscription = BTreeMap::new();
        let mut problem = Problem { topics: BTreeMap::new(), members: Vec::with_capacity(self.members.len()) };
        for (id, member) in &self.members {
            let topics = by_subscription.entry(&*member.subscription).or_insert_with(|| {
                let topics = self.subscriptions.topics_of(&member.subscription, state);
                let sizes = topics.iter().filter_map(|id| state.topic(*id));
                problem.topics.extend(sizes.map(|t| (t.id, i32::try_from(t.slots.len()).unwrap_or(i32::MAX))));
                Arc::new(topics)
            });
            problem.members.push(Candidate {
                id,
                instance_id: member.instance_id.as_deref(),
                topics: topics.clone(),
                previous: self.targets.get(id),
            });
        }
        problem
    }

    /// What most members ask for that ask; the broker's first where none does or two are equal.
    pub(super) fn preferred_assignor(&self, step: &Step<'_>) -> Assignor {
        let votes = |assignor: Assignor| {
            self.members.values().filter(|m| m.assignor.as_deref() == Some(assignor.name())).count()
        };
        let best = Assignor::offered(step.view.settings).rev().max_by_key(|assignor| votes(*assignor));
        best.unwrap_or(Assignor::Uniform)
    }

    /// The member goes one step towards its target.
    pub(super) fn advance(
        &mut self,
        step: &Step<'_>,
        id: &MemberId,
        owned: Option<&[OwnedPartitions]>,
        subscription_changed: bool,
    ) {
        let Some(member) = self.members.get(id) else { return };
        if member.is_reconciled_to(self.header.assignment_epoch) && !subscription_changed {
            return;
        }
        let none = Partitions::new();
        let goal = Goal {
            epoch: self.header.assignment_epoch,
            target: self.targets.get(id).unwrap_or(&none),
            subscribed: &self.subscriptions.topics_of(&member.subscription, step.view.state),
            subscription_changed,
            owned,
        };
        let next = reconcile(member, &goal, |topic, partition| !self.owners.contains_key(&(topic, partition)));
        if next == *member {
            return;
        }
        match next.standing {
            _ if next.classic.is_some() => {}
            Standing::Unrevoked => {
                self.timers.set((id.clone(), Timer::Revoke), step.view.after_ms(next.rebalance_timeout_ms))
            }
            Standing::Stable | Standing::Unreleased => self.timers.clear(&(id.clone(), Timer::Revoke)),
        }
        self.put(step.view.state, next);
    }
}

/// A member may be behind by one answer, which was lost: then it has nothing but what it is known to have.
fn check_epoch(member: &Member, epoch: i32, owned: Option<&[OwnedPartitions]>) -> Result<(), GroupError> {
    let word = match epoch {
        0 => return Ok(()),
        _ if epoch == member.epoch => return Ok(()),
        _ if epoch > member.epoch => "greater",
        _ if epoch == member.previous_epoch && owned.is_some_and(|owned| has_all(&member.assigned, owned)) => {
            return Ok(());
        }
        _ => "smaller",
    };
    let message = format!(
        "The consumer group member has a {word} member epoch ({epoch}) than the one known by the group coordinator ({}). \
         The member must abandon all its partitions and rejoin.",
        member.epoch
    );
    Err(GroupError::new(KafkaError::FencedMemberEpoch, message))
}

fn has_all(assigned: &Owned, owned: &[OwnedPartitions]) -> bool {
    let has = |o: &OwnedPartitions| {
        assigned.get(&o.topic).is_some_and(|assigned| o.partitions.iter().all(|p| assigned.contains_key(p)))
    };
    owned.iter().all(has)
}

/// The member as the heartbeat wants it.
fn updated(base: &Member, request: &ConsumerHeartbeat) -> Member {
    let mut member = base.clone();
    if request.instance_id.is_some() {
        member.instance_id = request.instance_id.as_deref().map(Arc::from);
    }
    if request.rack.is_some() {
        member.rack.clone_from(&request.rack);
    }
    if request.rebalance_timeout_ms != -1 {
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if request.assignor.is_some() {
        member.assignor.clone_from(&request.assignor);
    }
    let mut subscription = Subscription::clone(&base.subscription);
    if let Some(topics) = &request.subscribed_topics {
        subscription.topics = topics.iter().map(|t| Arc::from(t.as_str())).collect();
    }
    if let Some(regex) = &request.subscribed_regex {
        subscription.regex = (!regex.is_empty()).then(|| Arc::from(regex.as_str()));
    }
    if subscription != *base.subscription {
        member.subscription = Arc::new(subscription);
    }
    member.client_id.clone_from(&request.client_id);
    member.client_host.clone_from(&request.client_host);
    member.classic = None;
    member
}
