//! What members are given time for.
use super::member::MemberId;
use crate::group::deadlines::Deadlines;

/// What a member is given time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// To send its next heartbeat.
    Session,
    /// To give back what it must.
    Revoke,
    /// Of the classic protocol: to join again.
    Join,
    /// Of the classic protocol: to fetch its assignment.
    Sync,
}

/// All timers of a group.
pub(super) type Timers = Deadlines<(MemberId, Timer)>;

impl Timers {
    pub(super) fn clear_all(&mut self, member: &MemberId) {
        for timer in [Timer::Session, Timer::Revoke, Timer::Join, Timer::Sync] {
            self.clear(&(member.clone(), timer));
        }
    }
}
