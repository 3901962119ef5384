//! The classic protocol: JoinGroup, SyncGroup, Heartbeat, LeaveGroup. One member, the leader, assigns; the group only
//! gathers subscriptions and hands assignments out, generation by generation. Rules and errors are those of Kafka's group
//! coordinator. A generation is put into State whole when its leader has assigned, and when a group becomes empty; what
//! happens between is only here, so after a restart the group stands at the last generation that was assigned.
//! Tests: `tests.rs` (rules), `churn.rs` (random clients).
#[cfg(test)]
mod churn;
mod join;
mod membership;
mod rebalance;
#[cfg(test)]
mod rig;
mod roster;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::consumer::ConsumerGroup;
use super::deadlines::Deadlines;
use super::embedded::subscribed_topics;
use super::machine::{Phase, RequestId, Step, View, ms};
use super::message::{DescribedMember, Description, Identity};
use crate::planted::{Defect, planted};
use crate::state::{ChangeGroup, Group, GroupHeader, GroupProtocol, MemberRecord};
use crate::types::KafkaError;
use crate::world::Instant;
use rebalance::JoinTimer;
use roster::Roster;

/// What members of this protocol type put into their metadata can be read.
const CONSUMER: &str = "consumer";

/// Bytes of all members and assignments: a generation is one journal entry, which takes 4 MiB.
const GROUP_BYTES_MAX: usize = 3 << 20;

/// A group of the classic protocol, or one that has no members and never had.
pub(super) struct ClassicGroup {
    /// As it is to stand in State after the next change. The epoch is the generation.
    header: GroupHeader,
    phase: Phase,
    members: Roster,
    /// When each is to be heard of again, pending ones included.
    sessions: Deadlines<Arc<str>>,
    /// JoinGroups that wait for the others, by member.
    joining: BTreeMap<Arc<str>, RequestId>,
    /// SyncGroups that wait for the leader's assignment, by member.
    syncing: BTreeMap<Arc<str>, RequestId>,
    /// Ids that were given to clients who are to join with them (KIP-394).
    pending: BTreeSet<Arc<str>>,
    /// Members that were told of this generation and have not asked for their assignment.
    unsynced: BTreeSet<Arc<str>>,
    /// When the join phase ends, whoever has joined by then.
    join_timer: Option<JoinTimer>,
    /// When those that have not asked for their assignment are removed.
    sync_deadline: Option<Instant>,
    /// The topics of the members of this generation; `None` if they can't be known.
    subscribed: Option<BTreeSet<String>>,
    /// Members that State has.
    persisted: BTreeSet<Arc<str>>,
    /// Something of the group is in State.
    is_known: bool,
}

impl ClassicGroup {
    /// As State has it; an empty one for `None`. Members get their whole session time-out from now.
    pub(super) fn load(group: Option<&Group>, view: &View<'_>) -> Self {
        let header = group.map(|g| g.header.clone()).unwrap_or_default();
        let members = group.into_iter().flat_map(|g| g.members.values().map(|m| MemberRecord::clone(m)));
        let mut loaded = Self::with_members(header, members, view.now);
        loaded.is_known = group.is_some();
        loaded
    }

    /// After an empty group of the consumer protocol.
    pub(super) fn succeed(group: &ConsumerGroup) -> Self {
        let header = GroupHeader { epoch: group.epoch(), ..GroupHeader::default() };
        Self::of(header, Roster::default(), Deadlines::default())
    }

    /// A stable group with these members, which are or will be in State.
    pub(super) fn with_members(
        header: GroupHeader,
        records: impl IntoIterator<Item = MemberRecord>,
        now: Instant,
    ) -> Self {
        let (mut members, mut sessions) = (Roster::default(), Deadlines::default());
        for record in records {
            sessions.set(Arc::from(record.id.as_str()), now + ms(record.session_timeout_ms));
            members.insert(record, false);
        }
        Self::of(header, members, sessions)
    }

    fn of(mut header: GroupHeader, members: Roster, sessions: Deadlines<Arc<str>>) -> Self {
        header.set_protocol(GroupProtocol::Classic);
        if header.leader.as_deref().is_none_or(|leader| !members.has(leader)) {
            header.leader = members.by_age().next().map(|id| id.to_string());
        }
        let mut group = Self {
            phase: if members.is_empty() { Phase::Empty } else { Phase::Stable },
            persisted: members.by_age().cloned().collect(),
            header,
            members,
            sessions,
            joining: BTreeMap::new(),
            syncing: BTreeMap::new(),
            pending: BTreeSet::new(),
            unsynced: BTreeSet::new(),
            join_timer: None,
            sync_deadline: None,
            subscribed: None,
            is_known: true,
        };
        group.read_subscriptions();
        group
    }

    /// Whether this client may commit now; a member's session begins anew.
    ///
    /// # Errors
    /// Kafka's.
    pub(super) fn may_commit(&mut self, step: &Step<'_>, identity: &Identity) -> Result<(), KafkaError> {
        let is_member = !identity.member_id.is_empty() || identity.instance_id.is_some();
        if identity.generation < 0 && self.phase == Phase::Empty {
            // A client that only commits. The group is in State after that.
            self.is_known = true;
            return Ok(());
        }
        if !self.is_known && self.members.is_empty() && self.phase == Phase::Empty {
            return Err(KafkaError::IllegalGeneration);
        }
        if identity.generation < 0 && !is_member {
            return Err(KafkaError::UnknownMemberId);
        }
        let is_late = identity.generation < self.header.epoch && planted(Defect::StaleGeneration);
        let generation = if is_late { identity.generation } else { self.header.epoch };
        let gone = || !self.members.has(&identity.member_id) && identity.generation == self.header.epoch;
        if planted(Defect::FencedMemberCommits) && gone() {
            return Ok(());
        }
        self.members.check_generation(identity, generation)?;
        if self.phase == Phase::CompletingRebalance {
            return Err(KafkaError::RebalanceInProgress);
        }
        self.begin_session(step, &identity.member_id);
        Ok(())
    }

    /// The topics that members are subscribed to; `None` if that can't be known, since they are not consumers.
    pub(super) fn subscribed_topics(&self) -> Option<&BTreeSet<String>> {
        self.subscribed.as_ref()
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// The generation in `epoch`, and who leads. The epoch is ahead of State's while the group rebalances.
    pub(super) fn header(&self) -> &GroupHeader {
        &self.header
    }

    /// Members with their assignments, by id.
    pub(super) fn records(&self) -> impl Iterator<Item = &MemberRecord> {
        self.members.iter().map(|(_, m)| &m.record)
    }

    /// Members that State has.
    pub(super) fn persisted(&self) -> impl Iterator<Item = &Arc<str>> {
        self.persisted.iter()
    }

    /// Requests that wait for other members: whoever ends this group answers them.
    pub(super) fn waiting(&self) -> impl Iterator<Item = RequestId> {
        self.joining.values().chain(self.syncing.values()).copied()
    }

    pub(super) fn describe(&self) -> Description {
        let stable = self.phase == Phase::Stable;
        let protocol = self.header.protocol_name.as_deref().filter(|_| stable).unwrap_or_default();
        let members = self.members.iter().map(|(_, member)| DescribedMember {
            member_id: member.record.id.clone(),
            instance_id: member.record.instance_id.clone(),
            client_id: member.record.client_id.clone(),
            client_host: member.record.client_host.clone(),
            metadata: member.metadata(protocol),
            assignment_bytes: member.record.assignment.clone(),
            is_classic: true,
            ..DescribedMember::default()
        });
        Description {
            protocol: GroupProtocol::Classic,
            phase: self.phase,
            epoch: self.header.epoch,
            assignment_epoch: self.header.epoch,
            protocol_type: self.header.protocol_type.clone().unwrap_or_default(),
            protocol_name: protocol.to_owned(),
            members: members.collect(),
        }
    }

    fn is_leader(&self, member_id: &str) -> bool {
        self.header.leader.as_deref() == Some(member_id)
    }

    /// The member has its session time-out from now.
    fn begin_session(&mut self, step: &Step<'_>, member_id: &str) {
        if let Some((id, member)) = self.members.get_entry(member_id) {
            self.sessions.set(id.clone(), step.view.after_ms(member.record.session_timeout_ms));
        }
    }

    /// Notes what the members of this generation are subscribed to.
    fn read_subscriptions(&mut self) {
        let mut all = BTreeSet::new();
        let protocol = self.header.protocol_name.as_deref().unwrap_or_default();
        for (_, member) in self.members.iter() {
            let metadata = member.metadata(protocol);
            let topics = if self.header.protocol_type.as_deref() == Some(CONSUMER) {
                subscribed_topics(&metadata)
            } else {
                None
            };
            let Some(topics) = topics else {
                self.subscribed = None;
                return;
            };
            for topic in topics {
                if !all.contains(topic) {
                    all.insert(topic.to_owned());
                }
            }
        }
        self.subscribed = Some(all);
    }

    /// Puts the header and these members into State, and takes those out that are gone.
    fn persist(&mut self, step: &mut Step<'_>, members: Vec<MemberRecord>) {
        let gone = self.persisted.iter().filter(|id| !self.members.has(id)).map(|id| id.to_string()).collect();
        self.persisted = self.members.iter().map(|(id, _)| id.clone()).collect();
        self.is_known = true;
        step.change(ChangeGroup { header: Some(self.header.clone()), gone, members, ..ChangeGroup::default() });
    }
}

#[cfg(test)]
impl ClassicGroup {
    /// What always holds.
    fn check(&self) {
        assert_eq!(self.join_timer.is_some(), self.phase == Phase::PreparingRebalance);
        assert!(self.joining.is_empty() || self.phase == Phase::PreparingRebalance);
        assert!(self.syncing.is_empty() || self.phase == Phase::CompletingRebalance);
        assert_eq!(self.sync_deadline.is_some(), !self.unsynced.is_empty());
        assert!(self.unsynced.is_empty() || matches!(self.phase, Phase::CompletingRebalance | Phase::Stable));
        assert!(!self.members.is_empty() || matches!(self.phase, Phase::Empty | Phase::PreparingRebalance));
        assert!(self.members.is_empty() || self.phase != Phase::Empty);
        assert!(self.members.is_empty() || self.members.choose_protocol().is_some());
        let leads = self.header.leader.as_deref().map(|leader| self.members.has(leader));
        assert_eq!(leads, (!self.members.is_empty()).then_some(true));
        for (id, member) in self.members.iter() {
            let waits = self.joining.contains_key(id) || self.syncing.contains_key(id);
            assert!(self.sessions.has(id) || (waits && !member.is_new), "nobody would miss {id}");
        }
        assert!(self.pending.iter().all(|id| self.sessions.has(id) && !self.members.has(id)));
        let waiting = self.joining.keys().chain(self.syncing.keys()).chain(&self.unsynced);
        assert!(waiting.into_iter().all(|id| self.members.has(id)));
    }
}
