//! The part of the machine that is about offsets and about the group as a whole: who may commit, read and delete, and
//! what is forgotten when.
use super::expiry::is_old;
use super::machine::{Action, Machine, Members, Phase, RequestId, Step};
use super::message::{CommitRequest, Identity, Reader, Reply};
use crate::state::{CommittedOffset, DeleteGroup, DeleteOffsets, Group, GroupOffsets, SeenOffset};
use crate::types::{KafkaError, Slot, TimestampMs};

impl Machine {
    /// OffsetCommit, as Kafka checks it (`OffsetMetadataManager.validateOffsetCommit`).
    pub(super) fn commit(&mut self, step: &mut Step<'_>, id: RequestId, commit: CommitRequest) {
        // Within a transaction only those are checked who say that they are members (KIP-447).
        let says_nothing = commit.identity == Identity { generation: -1, ..Identity::default() };
        let allowed = match &mut self.members {
            _ if commit.transaction.is_some() && says_nothing => Ok(()),
            Members::Classic(group) => group.may_commit(step, &commit.identity),
            Members::Consumer(group) => group.may_commit(step, &commit),
        };
        match allowed {
            Err(error) => step.refuse(id, error),
            Ok(()) if commit.offsets.is_empty() => step.reply(id, Reply::Committed(Vec::new())),
            Ok(()) => {
                let CommitRequest { retention_ms, offsets, transaction, .. } = commit;
                let offsets = GroupOffsets { retention_ms, offsets, transaction, ..GroupOffsets::default() };
                step.act(Action::Commit(id, offsets));
            }
        }
    }

    pub(super) fn read_offsets(&mut self, step: &mut Step<'_>, id: RequestId, reader: Option<Reader>) {
        let allowed = match (&self.members, reader) {
            (Members::Consumer(group), Some(reader)) => group.may_read(&reader),
            _ => Ok(()),
        };
        match allowed {
            Ok(()) => step.reply(id, Reply::Done),
            Err(error) => step.refuse(id, error),
        }
    }

    /// OffsetDelete: of topics that no member is subscribed to.
    pub(super) fn delete_offsets(&mut self, step: &mut Step<'_>, id: RequestId, slots: Vec<Slot>) {
        let Some(group) = step.view.state.group(self.name()).cloned() else {
            return step.refuse(id, KafkaError::GroupIdNotFound);
        };
        if self.phase() != Phase::Empty && !self.is_subscription_known() {
            return step.refuse(id, KafkaError::NonEmptyGroup);
        }
        let (mut results, mut offsets) = (Vec::with_capacity(slots.len()), Vec::new());
        for slot in slots {
            if self.is_subscribed(step, slot) {
                results.push((slot, Some(KafkaError::GroupSubscribedToTopic)));
                continue;
            }
            results.push((slot, None));
            offsets.extend(group.offsets.get(&slot).map(|c| SeenOffset { slot: slot.0, sequence: c.sequence }));
        }
        if !offsets.is_empty() {
            step.act(Action::DeleteOffsets(DeleteOffsets { offsets, ..DeleteOffsets::default() }));
        }
        step.reply(id, Reply::OffsetsDeleted(results));
    }

    pub(super) fn delete_group(&mut self, step: &mut Step<'_>, id: RequestId) {
        if step.view.state.group(self.name()).is_none() && self.phase() == Phase::Empty {
            return step.refuse(id, KafkaError::GroupIdNotFound);
        }
        if self.phase() != Phase::Empty || step.view.state.has_pending_offsets(self.name()) {
            return step.refuse(id, KafkaError::NonEmptyGroup);
        }
        step.act(Action::DeleteGroup(DeleteGroup::default()));
        step.reply(id, Reply::Done);
    }

    /// Forgets offsets as Kafka does (KIP-211): of an empty group `offsets.retention.minutes` after it became empty or the
    /// commit, whichever is later; of a living one where no member is subscribed to the topic; of a group that never had
    /// members by the commit's age; and where the client gave a time, by that. A group without members and offsets goes.
    pub(super) fn expire(&mut self, step: &mut Step<'_>, id: RequestId) {
        if let Some(group) = step.view.state.group(self.name()).cloned() {
            let due: Vec<_> = group.offsets.iter().filter(|(slot, c)| self.is_due(step, &group, **slot, c)).collect();
            let blank = group.members.is_empty() && self.phase() == Phase::Empty && due.len() == group.offsets.len();
            let awaited = step.view.state.has_pending_offsets(self.name());
            if blank && !awaited {
                step.act(Action::DeleteGroup(DeleteGroup::default()));
            } else if !due.is_empty() {
                let seen = |(slot, c): (&Slot, &CommittedOffset)| SeenOffset { slot: slot.0, sequence: c.sequence };
                let offsets = due.into_iter().map(seen).collect();
                step.act(Action::DeleteOffsets(DeleteOffsets { offsets, ..DeleteOffsets::default() }));
            }
        }
        step.reply(id, Reply::Done);
    }

    fn is_due(&self, step: &Step<'_>, group: &Group, slot: Slot, committed: &CommittedOffset) -> bool {
        let since = match self.phase() {
            Phase::Empty if group.header.protocol_type.is_some() || group.version > 0 => {
                Some(TimestampMs(committed.committed_ms.0.max(group.header.since_ms)))
            }
            Phase::Empty => Some(committed.committed_ms),
            // Who joins may be subscribed to it.
            Phase::PreparingRebalance | Phase::CompletingRebalance => None,
            _ if self.is_subscription_known() && !self.is_subscribed(step, slot) => Some(committed.committed_ms),
            _ => None,
        };
        is_old(committed, since, step.view.wall_ms, step.view.settings.kafka.offsets_retention_minutes)
    }

    /// Whether the members' subscriptions can be read: those of consumers can, those of Connect workers can't.
    fn is_subscription_known(&self) -> bool {
        match &self.members {
            Members::Classic(group) => group.subscribed_topics().is_some(),
            Members::Consumer(_) => true,
        }
    }

    fn is_subscribed(&self, step: &Step<'_>, slot: Slot) -> bool {
        let state = step.view.state;
        let Some(topic) = state.partition(slot).and_then(|p| state.topic(p.topic)) else { return false };
        match &self.members {
            Members::Classic(group) => group.subscribed_topics().is_none_or(|topics| topics.contains(&*topic.name)),
            Members::Consumer(group) => group.is_subscribed(&topic.name),
        }
    }
}
