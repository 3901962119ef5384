//! A group moves from one protocol to the other with its members (KIP-848): up when the first member of the consumer
//! protocol joins, down when the last one goes.
use prost::Message;
use std::sync::Arc;
use tracing::info;

use super::change::CHANGE_BYTES_MAX;
use super::guests::assignment_bytes;
use super::member::{ClassicSide, Member, Owned, Standing, Subscription, without_epochs};
use super::timers::Timer;
use super::validate::SUBSCRIPTION_BYTES_MAX;
use super::{CONSUMER, ConsumerGroup};
use crate::config::Migration;
use crate::group::classic::ClassicGroup;
use crate::group::embedded::{EmbeddedAssignment, EmbeddedSubscription};
use crate::group::machine::{Phase, Step};
use crate::group::message::GroupError;
use crate::state::{ChangeGroup, GroupHeader, GroupName, GroupProtocol, MemberRecord, State};
use crate::types::KafkaError;

impl ConsumerGroup {
    /// After a group of the classic protocol: an empty one, or with its members, as the migration policy allows. Nothing
    /// is given out: that is done with the heartbeat that makes it so. Who waits in the classic group is to be told then.
    ///
    /// # Errors
    /// `GROUP_ID_NOT_FOUND` with Kafka's words, if the policy does not allow it, or its members are no consumers.
    pub(in crate::group) fn succeed(
        name: GroupName,
        group: &ClassicGroup,
        step: &Step<'_>,
    ) -> Result<Self, GroupError> {
        let epoch = group.header().epoch;
        // Kafka's groups begin with epoch 1, and their first target is that of the first subscription, 2.
        let header = GroupHeader { epoch: epoch.max(1), assignment_epoch: epoch, ..GroupHeader::default() };
        let mut next = Self::empty(name, header);
        if group.phase() == Phase::Empty {
            return Ok(next);
        }
        let refused = |why: &str| {
            let message = format!("Cannot upgrade classic group {} to consumer group because {why}.", next.name);
            Err(GroupError::new(KafkaError::GroupIdNotFound, message))
        };
        let kafka = &step.view.settings.kafka;
        if !matches!(kafka.group_consumer_migration_policy, Migration::Bidirectional | Migration::Upgrade) {
            return refused("online upgrade is disabled");
        }
        if group.header().protocol_type.as_deref() != Some(CONSUMER) {
            return refused("the group does not use the consumer embedded protocol");
        }
        if group.records().count() > usize::try_from(kafka.group_consumer_max_size).unwrap_or(0) {
            return refused("the group size exceeds the consumer group maximum size");
        }
        let protocol = group.header().protocol_name.as_deref();
        let mut members = Vec::new();
        for record in group.records() {
            match upgraded(record, protocol, epoch, step.view.state) {
                Ok(member) => members.push(member),
                Err(why) => return refused(why),
            }
        }
        next.changes.gone = group.persisted().cloned().collect();
        for member in members {
            let (id, session_ms) = (member.id.clone(), member.classic.as_ref().map_or(0, |c| c.session_timeout_ms));
            next.timers.set((id.clone(), Timer::Session), step.view.after_ms(session_ms));
            next.targets.insert(id.clone(), without_epochs(&member.assigned));
            next.changes.targets.insert(id);
            next.put(step.view.state, member);
        }
        next.changes.header = true;
        next.header.topics_hash = next.subscriptions.topics_hash(step.view.state);
        Ok(next)
    }

    /// The group of the classic protocol that follows when all members speak it and the policy allows it; `None` if this
    /// group goes on. The change is given out, and a rebalance begins.
    pub(in crate::group) fn downgrade(&mut self, step: &mut Step<'_>) -> Option<ClassicGroup> {
        let kafka = &step.view.settings.kafka;
        let allowed = matches!(kafka.group_consumer_migration_policy, Migration::Bidirectional | Migration::Downgrade);
        if !allowed || self.members.is_empty() || self.guests < self.members.len() {
            return None;
        }
        if self.members.len() > usize::try_from(kafka.group_max_size).unwrap_or(0) {
            return None;
        }
        let records: Vec<MemberRecord> = self.members.values().map(|m| downgraded(m, step.view.state)).collect();
        if records.iter().map(Message::encoded_len).sum::<usize>() > CHANGE_BYTES_MAX {
            // A classic group is one entry of the journal.
            return None;
        }
        let header = GroupHeader {
            protocol: GroupProtocol::Classic as i32,
            epoch: self.header.epoch,
            protocol_type: Some(CONSUMER.to_owned()),
            protocol_name: common_protocol(&records),
            since_ms: step.view.wall_ms.0,
            ..GroupHeader::default()
        };
        info!(group = %self.name, members = records.len(), "group went back to the classic protocol");
        let mut group = ClassicGroup::with_members(header, records.iter().cloned(), step.view.now);
        step.change(ChangeGroup {
            header: Some(group.header().clone()),
            // All go and come again: their targets go for good.
            gone: self.members.keys().map(ToString::to_string).collect(),
            members: records,
            ..ChangeGroup::default()
        });
        group.rebalance(step);
        Some(group)
    }
}

/// A member with what the leader of its generation gave it.
fn upgraded(record: &MemberRecord, protocol: Option<&str>, epoch: i32, state: &State) -> Result<Member, &'static str> {
    const MALFORMED: &str = "the embedded consumer protocol is malformed";
    let chosen = record.protocols.iter().find(|p| protocol.is_none_or(|name| p.name == name));
    let metadata = chosen.or(record.protocols.first()).map(|p| &p.metadata).ok_or(MALFORMED)?;
    let subscription = EmbeddedSubscription::read(metadata).ok_or(MALFORMED)?;
    let assignment = EmbeddedAssignment::read(&record.assignment).ok_or(MALFORMED)?;
    if assignment.has_user_data {
        return Err(
            "an unsupported custom assignor is in use. Please refer to the documentation or switch to a default \
                    assignor before re-attempting the upgrade",
        );
    }
    if record.protocols.iter().map(|p| p.name.len() + p.metadata.len() + 16).sum::<usize>() > SUBSCRIPTION_BYTES_MAX {
        return Err("the subscription of a member is too large");
    }
    let mut assigned = Owned::new();
    for (name, partitions) in assignment.partitions {
        let Some(topic) = state.topic_by_name(&name) else { continue };
        let exists = |p: &i32| usize::try_from(*p).is_ok_and(|p| p < topic.slots.len());
        let partitions: Vec<(i32, i32)> = partitions.into_iter().filter(exists).map(|p| (p, epoch)).collect();
        if !partitions.is_empty() {
            assigned.entry(topic.id).or_default().extend(partitions);
        }
    }
    let topics = subscription.topics.iter().map(|t| Arc::from(t.as_str())).collect();
    Ok(Member {
        instance_id: record.instance_id.as_deref().map(Arc::from),
        rack: subscription.rack,
        client_id: record.client_id.clone(),
        client_host: record.client_host.clone(),
        rebalance_timeout_ms: record.rebalance_timeout_ms,
        subscription: Arc::new(Subscription { topics, regex: None }),
        epoch,
        previous_epoch: epoch,
        standing: Standing::Stable,
        assigned,
        classic: Some(ClassicSide {
            session_timeout_ms: record.session_timeout_ms,
            protocols: record.protocols.clone(),
        }),
        ..Member::new(Arc::from(record.id.as_str()))
    })
}

fn downgraded(member: &Member, state: &State) -> MemberRecord {
    let side = member.classic.clone().unwrap_or(ClassicSide { session_timeout_ms: 0, protocols: Vec::new() });
    MemberRecord {
        id: member.id.to_string(),
        instance_id: member.instance_id.as_deref().map(str::to_owned),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        session_timeout_ms: side.session_timeout_ms,
        assignment: assignment_bytes(member, &side, state),
        protocols: side.protocols,
        ..MemberRecord::default()
    }
}

/// An assignor that all support: joining asked for one.
fn common_protocol(records: &[MemberRecord]) -> Option<String> {
    let all = |name: &str| records.iter().all(|r| r.protocols.iter().any(|p| p.name == name));
    records.first()?.protocols.iter().map(|p| &p.name).find(|name| all(name)).cloned()
}
