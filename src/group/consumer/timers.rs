//! When which member is due to be looked at.
use std::collections::{BTreeMap, BTreeSet};

use super::member::MemberId;
use crate::world::Instant;

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

/// All timers of a group; everything costs the logarithm of their number.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    at: BTreeMap<(MemberId, Timer), Instant>,
    queue: BTreeSet<(Instant, MemberId, Timer)>,
}

impl Timers {
    /// Begins anew if it ran.
    pub(super) fn set(&mut self, member: &MemberId, timer: Timer, at: Instant) {
        self.cancel(member, timer);
        self.at.insert((member.clone(), timer), at);
        self.queue.insert((at, member.clone(), timer));
    }

    pub(super) fn set_if_absent(&mut self, member: &MemberId, timer: Timer, at: Instant) {
        if !self.at.contains_key(&(member.clone(), timer)) {
            self.set(member, timer, at);
        }
    }

    pub(super) fn cancel(&mut self, member: &MemberId, timer: Timer) {
        if let Some(at) = self.at.remove(&(member.clone(), timer)) {
            self.queue.remove(&(at, member.clone(), timer));
        }
    }

    pub(super) fn cancel_all(&mut self, member: &MemberId) {
        for timer in [Timer::Session, Timer::Revoke, Timer::Join, Timer::Sync] {
            self.cancel(member, timer);
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _, _)| *at)
    }

    /// Takes one that is due off.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(MemberId, Timer)> {
        let (_, member, timer) = self.queue.first().filter(|(at, _, _)| *at <= now)?.clone();
        self.cancel(&member, timer);
        Some((member, timer))
    }
}
