//! Members of the classic protocol in a group of the consumer protocol, while the group moves over: JoinGroup takes the
//! place of the heartbeat that says what a member wants and owns, SyncGroup tells it what it has, and a new rebalance is
//! how it is told to ask again. Kafka's `classicGroup…ToConsumerGroup`.
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::sync::Arc;

use super::member::{ClassicSide, Member, MemberId, Standing, Subscription};
use super::timers::Timer;
use super::validate::SUBSCRIPTION_BYTES_MAX;
use super::{CONSUMER, ConsumerGroup};
use crate::config::Migration;
use crate::group::embedded::{EmbeddedSubscription, write_assignment};
use crate::group::machine::{RequestId, Step};
use crate::group::message::{
    GroupError, Identity, JoinGroup, JoinReply, LeaveReply, LeavingMember, OwnedPartitions, Reply, SyncGroup, SyncReply,
};
use crate::state::{MemberProtocol, State};
use crate::types::KafkaError;
use crate::world::Instant;

impl ConsumerGroup {
    /// JoinGroup; answered at once.
    pub(in crate::group) fn join(&mut self, step: &mut Step<'_>, id: RequestId, join: &JoinGroup) {
        match self.guest_join(step, join) {
            Ok(reply) => {
                self.flush(step);
                step.reply(id, Reply::Join(reply));
            }
            Err(error) => {
                step.refuse(id, GroupError { member_id: error.member_id.or(Some(join.member_id.clone())), ..error });
            }
        }
    }

    fn guest_join(&mut self, step: &Step<'_>, join: &JoinGroup) -> Result<JoinReply, GroupError> {
        let id: MemberId = match join.member_id.as_str() {
            "" => Arc::from(URL_SAFE_NO_PAD.encode(step.view.random.to_be_bytes())),
            id => Arc::from(id),
        };
        let subscription = self.check_guest(step, &id, join)?;
        if join.member_id_required && join.member_id.is_empty() && join.instance_id.is_none() {
            let error = GroupError::from(KafkaError::MemberIdRequired);
            return Err(GroupError { member_id: Some(id.to_string()), ..error });
        }
        let (base, replaced) = self.admit_guest(&id, join)?;
        let member = guest(&base, join, &subscription);
        let changed = base.subscription != member.subscription;
        if let Some(old) = replaced {
            self.replace(step, &old, base);
        }
        self.put(step.view.state, member);
        self.bump_if(step, changed);
        self.assign_if_due(step);
        let owned = known(&subscription, step.view.state);
        self.advance(step, &id, Some(&owned), changed);
        self.timers.clear(&(id.clone(), Timer::Join));
        self.timers.clear(&(id.clone(), Timer::Revoke));
        self.timers.set((id.clone(), Timer::Session), step.view.after_ms(join.session_timeout_ms));
        self.timers.set((id.clone(), Timer::Sync), step.view.after_ms(join.rebalance_timeout_ms));
        Ok(JoinReply {
            generation: self.members.get(&id).map_or(0, |m| m.epoch),
            protocol_type: Some(CONSUMER.to_owned()),
            protocol_name: join.protocols.first().map(|(name, _)| name.clone()),
            leader: String::new(),
            skip_assignment: false,
            member_id: id.to_string(),
            members: Vec::new(),
        })
    }

    /// Whether this client may be here at all; gives what it subscribes to.
    fn check_guest(&self, step: &Step<'_>, id: &str, join: &JoinGroup) -> Result<EmbeddedSubscription, GroupError> {
        let settings = step.view.settings;
        let inconsistent = |message: String| GroupError::new(KafkaError::InconsistentGroupProtocol, message);
        let sessions = settings.kafka.group_min_session_timeout_ms..=settings.kafka.group_max_session_timeout_ms;
        if !sessions.contains(&join.session_timeout_ms) {
            return Err(KafkaError::InvalidSessionTimeout.into());
        }
        if id.len().max(join.instance_id.as_ref().map_or(0, String::len)) > settings.id_bytes_max {
            return Err(GroupError::new(KafkaError::InvalidRequest, "An id is too long (limits.group_id_bytes_max)."));
        }
        if settings.kafka.group_consumer_migration_policy == Migration::Disabled {
            let name = &self.name;
            return Err(inconsistent(format!(
                "Cannot join the consumer group {name} with the classic protocol because the group migration is disabled."
            )));
        }
        self.check_size(step, id)?;
        let bytes = join.protocols.iter().map(|(name, metadata)| name.len() + metadata.len() + 16).sum::<usize>();
        let guests = || self.members.values().filter(|m| *m.id != *id).filter_map(|m| m.classic.as_ref());
        let supported = |name: &str| guests().all(|g| g.protocols.iter().any(|p| p.name == name));
        let fits = join.protocol_type == CONSUMER && bytes <= SUBSCRIPTION_BYTES_MAX;
        let first = join.protocols.first().and_then(|(_, metadata)| EmbeddedSubscription::read(metadata));
        let subscription = first.filter(|_| fits && join.protocols.iter().any(|(name, _)| supported(name)));
        subscription.ok_or_else(|| inconsistent(format!("Member {id}'s protocols are not supported.")))
    }

    /// The member as it was, and whose place it takes.
    fn admit_guest(&self, id: &MemberId, join: &JoinGroup) -> Result<(Member, Option<MemberId>), GroupError> {
        if let Some(instance) = join.instance_id.as_deref() {
            let existing = self.statics.get(instance).and_then(|id| self.members.get(id));
            if !join.member_id.is_empty() {
                return Ok((self.check_static(existing, id, instance)?.clone(), None));
            }
            if let Some(existing) = existing {
                let base = Member { id: id.clone(), epoch: 0, previous_epoch: 0, ..existing.clone() };
                return Ok((base, Some(existing.id.clone())));
            }
        }
        Ok((self.members.get(id).cloned().unwrap_or_else(|| Member::new(id.clone())), None))
    }

    /// SyncGroup: what the member has now.
    pub(in crate::group) fn sync(&mut self, step: &mut Step<'_>, id: RequestId, sync: &SyncGroup) {
        match self.guest_sync(step, sync) {
            Ok(reply) => step.reply(id, Reply::Sync(reply)),
            Err(error) => step.refuse(id, error),
        }
    }

    fn guest_sync(&mut self, step: &Step<'_>, sync: &SyncGroup) -> Result<SyncReply, GroupError> {
        let (member, side) = self.find_guest(&sync.identity)?;
        let (id, name) = (member.id.clone(), side.protocols.first().map(|p| p.name.as_str()));
        let other_type = sync.protocol_type.as_deref().is_some_and(|t| t != CONSUMER);
        if other_type || sync.protocol_name.as_deref().is_some_and(|n| Some(n) != name) {
            return Err(KafkaError::InconsistentGroupProtocol.into());
        }
        if self.header.epoch > member.epoch && member.standing != Standing::Unrevoked {
            let until = step.view.after_ms(member.rebalance_timeout_ms);
            self.give_time_to_join(id, until);
            return Err(KafkaError::RebalanceInProgress.into());
        }
        let reply = SyncReply {
            protocol_type: sync.protocol_type.clone(),
            protocol_name: sync.protocol_name.clone(),
            assignment: assignment_bytes(member, side, step.view.state),
        };
        let session_ms = side.session_timeout_ms;
        self.timers.clear(&(id.clone(), Timer::Sync));
        self.timers.set((id.clone(), Timer::Session), step.view.after_ms(session_ms));
        Ok(reply)
    }

    /// Heartbeat: tells the member to join again when there is something to give, to take or to learn.
    pub(in crate::group) fn classic_heartbeat(&mut self, step: &mut Step<'_>, id: RequestId, identity: &Identity) {
        let (member, side) = match self.find_guest(identity) {
            Ok(found) => found,
            Err(error) => return step.refuse(id, error),
        };
        let must_join = member.epoch < self.header.epoch
            || member.standing == Standing::Unrevoked
            || member.standing == Standing::Unreleased && !self.waits_for_others(member);
        let member_id = member.id.clone();
        let (session_ms, rebalance_ms) = (side.session_timeout_ms, member.rebalance_timeout_ms);
        self.timers.set((member_id.clone(), Timer::Session), step.view.after_ms(session_ms));
        if must_join {
            self.give_time_to_join(member_id, step.view.after_ms(rebalance_ms));
            return step.refuse(id, KafkaError::RebalanceInProgress);
        }
        step.reply(id, Reply::Done);
    }

    /// It was told to join; how often it is told does not matter.
    fn give_time_to_join(&mut self, id: MemberId, until: Instant) {
        let join = (id, Timer::Join);
        if !self.timers.has(&join) {
            self.timers.set(join, until);
        }
    }

    /// Some partition of its target is still held.
    fn waits_for_others(&self, member: &Member) -> bool {
        let target = self.targets.get(&member.id).into_iter().flatten();
        let mut missing = target.flat_map(|(topic, partitions)| partitions.iter().map(move |p| (*topic, *p)));
        missing.any(|(t, p)| {
            !member.assigned.get(&t).is_some_and(|a| a.contains_key(&p)) && self.owners.contains_key(&(t, p))
        })
    }

    /// LeaveGroup: of members of the classic protocol.
    pub(in crate::group) fn leave(&mut self, step: &mut Step<'_>, id: RequestId, leaving: Vec<LeavingMember>) {
        let (mut gone, mut members) = (Vec::new(), Vec::with_capacity(leaving.len()));
        for mut each in leaving {
            let error = match self.leaving_guest(&each) {
                Ok(member) if gone.contains(&member) => Some(KafkaError::UnknownMemberId),
                Ok(member) => {
                    each.member_id = member.to_string();
                    gone.push(member);
                    None
                }
                Err(error) => Some(error.error),
            };
            members.push((each, error));
        }
        self.fence(step, gone);
        self.flush(step);
        step.reply(id, Reply::Leave(LeaveReply { members }));
    }

    fn leaving_guest(&self, leaving: &LeavingMember) -> Result<MemberId, GroupError> {
        let member = match leaving.instance_id.as_deref() {
            None => self.members.get(leaving.member_id.as_str()),
            Some(instance) => {
                let existing = self.statics.get(instance).and_then(|id| self.members.get(id));
                match leaving.member_id.as_str() {
                    "" => existing,
                    id => Some(self.check_static(existing, id, instance)?),
                }
            }
        };
        let member = member.filter(|m| m.classic.is_some()).ok_or_else(|| self.unknown_member(&leaving.member_id))?;
        Ok(member.id.clone())
    }

    /// The member of the classic protocol that this is, at its generation.
    fn find_guest(&self, identity: &Identity) -> Result<(&Member, &ClassicSide), GroupError> {
        let id = identity.member_id.as_str();
        let member = match identity.instance_id.as_deref() {
            None => self.members.get(id),
            Some(instance) => {
                let existing = self.statics.get(instance).and_then(|id| self.members.get(id));
                Some(self.check_static(existing, id, instance)?)
            }
        };
        let found = member.and_then(|m| Some((m, m.classic.as_ref()?)));
        let (member, side) = found.ok_or_else(|| self.unknown_member(id))?;
        if member.epoch == identity.generation {
            return Ok((member, side));
        }
        Err(KafkaError::IllegalGeneration.into())
    }
}

/// What the member has, as it reads it.
pub(super) fn assignment_bytes(member: &Member, side: &ClassicSide, state: &State) -> bytes::Bytes {
    let subscription = side.protocols.first().and_then(|p| EmbeddedSubscription::read(&p.metadata));
    let named = |(topic, partitions): (&_, &std::collections::BTreeMap<i32, i32>)| {
        Some((state.topic(*topic)?.name.clone(), partitions.keys().copied().collect()))
    };
    let partitions: Vec<(Arc<str>, Vec<i32>)> = member.assigned.iter().filter_map(named).collect();
    let version = subscription.map_or(0, |s| s.version.min(3));
    write_assignment(version, partitions.iter().map(|(name, partitions)| (&**name, partitions.clone())))
}

fn guest(base: &Member, join: &JoinGroup, subscription: &EmbeddedSubscription) -> Member {
    let topics = subscription.topics.iter().map(|t| Arc::from(t.as_str())).collect();
    let subscribed = Subscription { topics, regex: None };
    let protocol = |(name, metadata): &(String, bytes::Bytes)| MemberProtocol {
        name: name.clone(),
        // A copy: a slice would hold the whole request in memory.
        metadata: bytes::Bytes::copy_from_slice(metadata),
    };
    Member {
        instance_id: join.instance_id.as_deref().map(Arc::from).or_else(|| base.instance_id.clone()),
        rack: subscription.rack.clone().or_else(|| base.rack.clone()),
        client_id: join.client_id.clone(),
        client_host: join.client_host.clone(),
        rebalance_timeout_ms: join.rebalance_timeout_ms,
        subscription: if subscribed == *base.subscription { base.subscription.clone() } else { Arc::new(subscribed) },
        classic: Some(ClassicSide {
            session_timeout_ms: join.session_timeout_ms,
            protocols: join.protocols.iter().map(protocol).collect(),
        }),
        ..base.clone()
    }
}

/// What it says that it owns, of topics that exist.
fn known(subscription: &EmbeddedSubscription, state: &State) -> Vec<OwnedPartitions> {
    let owned = |(name, partitions): &(String, Vec<i32>)| {
        Some(OwnedPartitions { topic: state.topic_by_name(name)?.id, partitions: partitions.clone() })
    };
    subscription.owned.iter().filter_map(owned).collect()
}
