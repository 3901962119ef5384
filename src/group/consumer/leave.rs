//! Members that go: by themselves, for a while (static members), or because they were silent.
use tracing::info;

use super::ConsumerGroup;
use super::member::{EPOCH_AWAY, Member, MemberId, Owned, Standing};
use super::timers::Timer;
use crate::group::machine::Step;
use crate::group::message::{ConsumerHeartbeat, ConsumerHeartbeatReply, GroupError};

impl ConsumerGroup {
    pub(super) fn leave_by_heartbeat(
        &mut self,
        step: &Step<'_>,
        request: &ConsumerHeartbeat,
    ) -> Result<ConsumerHeartbeatReply, GroupError> {
        let id: MemberId = match request.instance_id.as_deref() {
            None => match self.members.get_key_value(request.member_id.as_str()) {
                Some((id, _)) => id.clone(),
                None => return Err(self.unknown_member(&request.member_id)),
            },
            Some(instance) => {
                let existing = self.statics.get(instance).and_then(|id| self.members.get(id));
                self.check_static(existing, &request.member_id, instance)?.id.clone()
            }
        };
        if request.member_epoch == EPOCH_AWAY {
            self.leave_for_a_while(step, &id);
        } else {
            self.fence(step, vec![id]);
        }
        Ok(ConsumerHeartbeatReply {
            member_id: Some(request.member_id.clone()),
            member_epoch: request.member_epoch,
            heartbeat_interval_ms: 0,
            assignment: None,
        })
    }

    /// A static member that will be back within its session time-out keeps its partitions, but has none of them now.
    fn leave_for_a_while(&mut self, step: &Step<'_>, id: &MemberId) {
        let Some(member) = self.members.get(id) else { return };
        let mut away = Member { epoch: EPOCH_AWAY, revoking: Owned::new(), ..member.clone() };
        // So that what its old process still commits is refused, and its new one's is not.
        away.assigned.values_mut().flat_map(|p| p.values_mut()).for_each(|epoch| *epoch = 0);
        self.timers.clear(&(id.clone(), Timer::Revoke));
        self.put(step.view.state, away);
    }

    /// Members go for good. What they had is free, and the others get it when they next ask.
    pub(super) fn fence(&mut self, step: &Step<'_>, ids: Vec<MemberId>) {
        if ids.is_empty() {
            return;
        }
        for id in ids {
            self.timers.clear_all(&id);
            self.remove(&id);
        }
        if self.members.is_empty() {
            self.header.since_ms = step.view.wall_ms.0;
        }
        self.bump_if(step, true);
    }

    /// Members that were silent, or did not give back what they had to, go.
    pub(in crate::group) fn elapsed(&mut self, step: &mut Step<'_>) {
        let mut fenced = Vec::new();
        while let Some((id, timer)) = self.timers.take_due(step.view.now) {
            let reason = match timer {
                Timer::Session => "its session expired",
                Timer::Revoke => "it did not give its partitions back in time",
                Timer::Join => "it did not join in time",
                Timer::Sync => "it did not sync in time",
            };
            let still =
                self.members.get(&id).is_some_and(|m| timer != Timer::Revoke || m.standing == Standing::Unrevoked);
            if still && !fenced.contains(&id) {
                info!(group = %self.name, member = %id, reason, "member fenced");
                fenced.push(id);
            }
        }
        self.fence(step, fenced);
        self.flush(step);
    }
}
