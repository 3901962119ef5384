//! Heartbeat and LeaveGroup: members stay, or go.
use super::ClassicGroup;
use crate::group::machine::{Phase, RequestId, Step};
use crate::group::message::{Identity, LeaveReply, LeavingMember, Reply};
use crate::types::KafkaError;

impl ClassicGroup {
    /// Heartbeat: the member's session begins anew, and it learns if it has to join again.
    pub(in crate::group) fn heartbeat(&mut self, step: &mut Step<'_>, id: RequestId, identity: &Identity) {
        if let Err(error) = self.members.check_generation(identity, self.header.epoch) {
            return step.refuse(id, error);
        }
        self.begin_session(step, &identity.member_id);
        match self.phase {
            Phase::PreparingRebalance => step.refuse(id, KafkaError::RebalanceInProgress),
            _ => step.reply(id, Reply::Done),
        }
    }

    /// LeaveGroup: a result for each; a rebalance if a member went. (Kafka makes one also if an id was given back that
    /// nobody had joined with, which disturbs a stable group for nothing.)
    pub(in crate::group) fn leave(&mut self, step: &mut Step<'_>, id: RequestId, leaving: Vec<LeavingMember>) {
        if !self.is_known && self.phase == Phase::Empty && self.pending.is_empty() {
            return step.refuse(id, KafkaError::UnknownMemberId);
        }
        let mut was_member = false;
        let mut remove = |group: &mut Self, who: &LeavingMember| {
            let found = group.find_leaving(who)?;
            was_member |= group.drop_member(step, &found);
            Ok(())
        };
        let members = leaving.into_iter().map(|who| {
            let result: Result<(), KafkaError> = remove(self, &who);
            (who, result.err())
        });
        let members: Vec<_> = members.collect();
        let went = members.iter().any(|(_, error)| error.is_none());
        if went {
            self.rebalance_without(step, was_member);
        }
        step.reply(id, Reply::Leave(LeaveReply { members }));
    }

    /// The id that is meant; an operator names the instance only.
    fn find_leaving(&self, who: &LeavingMember) -> Result<String, KafkaError> {
        let instance = who.instance_id.as_deref();
        if who.member_id.is_empty() {
            let found = instance.and_then(|i| self.members.instance(i));
            return found.map(|id| id.to_string()).ok_or(KafkaError::UnknownMemberId);
        }
        if !self.pending.contains(who.member_id.as_str()) {
            self.members.check(&who.member_id, instance)?;
        }
        Ok(who.member_id.clone())
    }
}
