//! SyncGroup: the leader's assignments, put into State before anybody has them.
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ClassicGroup, GROUP_BYTES_MAX};
use crate::group::machine::{Phase, RequestId, Step};
use crate::group::message::{Reply, SyncGroup, SyncReply};
use crate::types::KafkaError;

impl ClassicGroup {
    /// SyncGroup: answered when the leader has assigned.
    pub(in crate::group) fn sync(&mut self, step: &mut Step<'_>, id: RequestId, sync: SyncGroup) {
        if let Err(error) = self.try_sync(step, id, &sync) {
            step.refuse(id, error);
        }
    }

    fn try_sync(&mut self, step: &mut Step<'_>, id: RequestId, sync: &SyncGroup) -> Result<(), KafkaError> {
        let member_id = sync.identity.member_id.as_str();
        self.members.check_generation(&sync.identity, self.header.epoch)?;
        let differs = |believed: &Option<String>, known: &Option<String>| believed.is_some() && believed != known;
        if differs(&sync.protocol_type, &self.header.protocol_type)
            || differs(&sync.protocol_name, &self.header.protocol_name)
        {
            return Err(KafkaError::InconsistentGroupProtocol);
        }
        match self.phase {
            Phase::PreparingRebalance => Err(KafkaError::RebalanceInProgress),
            Phase::CompletingRebalance => {
                self.synced(member_id);
                if let Some(before) = self.syncing.insert(Arc::from(member_id), id) {
                    step.refuse(before, KafkaError::RebalanceInProgress);
                }
                if self.is_leader(member_id) {
                    self.assign(step, &sync.assignments);
                }
                Ok(())
            }
            Phase::Stable => {
                self.synced(member_id);
                self.begin_session(step, member_id);
                step.reply(id, self.assignment(member_id));
                Ok(())
            }
            Phase::Empty | Phase::Assigning | Phase::Reconciling | Phase::Dead => Err(KafkaError::UnknownMemberId),
        }
    }

    fn assign(&mut self, step: &mut Step<'_>, assignments: &[(String, Bytes)]) {
        let known = assignments.iter().filter(|(id, _)| self.members.has(id));
        let assignments: BTreeMap<&str, &Bytes> = known.map(|(id, assignment)| (id.as_str(), assignment)).collect();
        let gone = self.persisted.iter().filter(|id| !self.members.has(id)).map(|id| id.len()).sum::<usize>();
        let bytes = self.members.bytes() + gone + assignments.values().map(|a| a.len()).sum::<usize>();
        if bytes > GROUP_BYTES_MAX {
            // What Kafka answers where the group does not fit into a record.
            self.answer_syncs(step, Err(KafkaError::UnknownServerError));
            return self.rebalance(step);
        }
        self.members.assign(&assignments);
        self.phase = Phase::Stable;
        self.header.since_ms = step.view.wall_ms.0;
        self.persist(step, self.records().cloned().collect());
        self.answer_syncs(step, Ok(()));
    }

    /// Answers everybody who waits for an assignment. What was missed of their sessions while they waited is forgiven.
    pub(super) fn answer_syncs(&mut self, step: &mut Step<'_>, result: Result<(), KafkaError>) {
        for (member_id, request) in std::mem::take(&mut self.syncing) {
            self.begin_session(step, &member_id);
            match result {
                Ok(()) => step.reply(request, self.assignment(&member_id)),
                Err(error) => step.refuse(request, error),
            }
        }
    }

    fn assignment(&self, member_id: &str) -> Reply {
        Reply::Sync(SyncReply {
            protocol_type: self.header.protocol_type.clone(),
            protocol_name: self.header.protocol_name.clone(),
            assignment: self.members.get(member_id).map(|m| m.record.assignment.clone()).unwrap_or_default(),
        })
    }

    /// The member has asked for its assignment, or is no member any more.
    pub(super) fn synced(&mut self, member_id: &str) {
        self.unsynced.remove(member_id);
        if self.unsynced.is_empty() {
            self.sync_deadline = None;
        }
    }
}
