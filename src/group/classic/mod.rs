//! The classic protocol: JoinGroup, SyncGroup, Heartbeat, LeaveGroup. One member, the leader, assigns; the group only
//! gathers subscriptions and hands assignments out, generation by generation.
use std::collections::BTreeSet;

use super::consumer::ConsumerGroup;
use super::machine::{Phase, RequestId, Step, View};
use super::message::{Description, Identity, JoinGroup, LeavingMember, SyncGroup};
use crate::state::{Group, GroupHeader, GroupProtocol};
use crate::types::KafkaError;
use crate::world::Instant;

/// A group of the classic protocol, or one that has no members and never had.
pub(super) struct ClassicGroup {
    header: GroupHeader,
    phase: Phase,
}

impl ClassicGroup {
    /// As State has it; an empty one for `None`.
    pub(super) fn load(group: Option<&Group>, _view: &View<'_>) -> Self {
        Self { header: group.map(|g| g.header.clone()).unwrap_or_default(), phase: Phase::Empty }
    }

    /// After an empty group of the consumer protocol.
    pub(super) fn succeed(group: &ConsumerGroup) -> Self {
        Self { header: GroupHeader { epoch: group.epoch(), ..GroupHeader::default() }, phase: Phase::Empty }
    }

    pub(super) fn join(&mut self, step: &mut Step<'_>, id: RequestId, _join: JoinGroup) {
        step.refuse(id, KafkaError::CoordinatorNotAvailable);
    }

    pub(super) fn sync(&mut self, step: &mut Step<'_>, id: RequestId, _sync: SyncGroup) {
        step.refuse(id, KafkaError::UnknownMemberId);
    }

    pub(super) fn heartbeat(&mut self, step: &mut Step<'_>, id: RequestId, _identity: &Identity) {
        step.refuse(id, KafkaError::UnknownMemberId);
    }

    pub(super) fn leave(&mut self, step: &mut Step<'_>, id: RequestId, _leaving: Vec<LeavingMember>) {
        step.refuse(id, KafkaError::UnknownMemberId);
    }

    /// Whether this client may commit now; a member's session begins anew.
    ///
    /// # Errors
    /// Kafka's.
    pub(super) fn may_commit(&mut self, _step: &Step<'_>, identity: &Identity) -> Result<(), KafkaError> {
        if identity.generation < 0 && self.phase == Phase::Empty {
            return Ok(());
        }
        Err(KafkaError::UnknownMemberId)
    }

    /// The topics that members are subscribed to; `None` if that can't be known, since they are not consumers.
    pub(super) fn subscribed_topics(&self) -> Option<BTreeSet<&str>> {
        Some(BTreeSet::new())
    }

    pub(super) fn elapsed(&mut self, _step: &mut Step<'_>) {}

    pub(super) fn deadline(&self) -> Option<Instant> {
        None
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn describe(&self) -> Description {
        Description {
            protocol: GroupProtocol::Classic,
            phase: self.phase,
            epoch: self.header.epoch,
            assignment_epoch: self.header.epoch,
            protocol_type: self.header.protocol_type.clone().unwrap_or_default(),
            protocol_name: self.header.protocol_name.clone().unwrap_or_default(),
            members: Vec::new(),
        }
    }
}
