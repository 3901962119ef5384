//! The consumer protocol (KIP-848): members say in heartbeats what they are subscribed to and own; the coordinator
//! assigns, and moves each member to its part without stopping the others.
use super::classic::ClassicGroup;
use super::machine::{Phase, RequestId, Step, View};
use super::message::{
    ConsumerHeartbeat, Description, GroupError, Identity, JoinGroup, LeavingMember, Reader, SyncGroup,
};
use crate::state::{Group, GroupHeader, GroupProtocol};
use crate::types::KafkaError;
use crate::world::Instant;

/// A group of the consumer protocol. Some of its members may speak the classic one, while the group moves over.
pub(super) struct ConsumerGroup {
    header: GroupHeader,
}

impl ConsumerGroup {
    /// As State has it.
    pub(super) fn load(group: Option<&Group>, _view: &View<'_>) -> Self {
        Self { header: group.map(|g| g.header.clone()).unwrap_or_default() }
    }

    /// After a group of the classic protocol: an empty one, or with its members, as the migration policy allows.
    ///
    /// # Errors
    /// If the policy does not, or its members are no consumers.
    pub(super) fn succeed(_group: &ClassicGroup, _step: &mut Step<'_>) -> Result<Self, GroupError> {
        Err(KafkaError::UnsupportedVersion.into())
    }

    pub(super) fn heartbeat(&mut self, step: &mut Step<'_>, id: RequestId, _heartbeat: ConsumerHeartbeat) {
        step.refuse(id, KafkaError::UnsupportedVersion);
    }

    pub(super) fn join(&mut self, step: &mut Step<'_>, id: RequestId, _join: JoinGroup) {
        step.refuse(id, KafkaError::InconsistentGroupProtocol);
    }

    pub(super) fn sync(&mut self, step: &mut Step<'_>, id: RequestId, _sync: SyncGroup) {
        step.refuse(id, KafkaError::UnknownMemberId);
    }

    pub(super) fn classic_heartbeat(&mut self, step: &mut Step<'_>, id: RequestId, _identity: &Identity) {
        step.refuse(id, KafkaError::UnknownMemberId);
    }

    pub(super) fn leave(&mut self, step: &mut Step<'_>, id: RequestId, _leaving: Vec<LeavingMember>) {
        step.refuse(id, KafkaError::UnknownMemberId);
    }

    /// Whether this client may commit now; the generation is a member epoch.
    ///
    /// # Errors
    /// Kafka's.
    pub(super) fn may_commit(&mut self, _step: &Step<'_>, _identity: &Identity) -> Result<(), KafkaError> {
        Err(KafkaError::UnknownMemberId)
    }

    /// Whether this member may read offsets now.
    ///
    /// # Errors
    /// Kafka's.
    pub(super) fn may_read(&self, _reader: &Reader) -> Result<(), KafkaError> {
        Err(KafkaError::UnknownMemberId)
    }

    /// Whether a member is subscribed to the topic, by name or by a regular expression.
    pub(super) fn is_subscribed(&self, _topic: &str) -> bool {
        false
    }

    pub(super) fn elapsed(&mut self, _step: &mut Step<'_>) {}

    pub(super) fn deadline(&self) -> Option<Instant> {
        None
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::Empty
    }

    pub(super) fn epoch(&self) -> i32 {
        self.header.epoch
    }

    pub(super) fn describe(&self) -> Description {
        Description {
            protocol: GroupProtocol::Consumer,
            phase: self.phase(),
            epoch: self.header.epoch,
            assignment_epoch: self.header.assignment_epoch,
            protocol_type: "consumer".to_owned(),
            protocol_name: String::new(),
            members: Vec::new(),
        }
    }
}
