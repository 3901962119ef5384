//! From one generation to the next: the join phase and its end, and the clock.
use std::sync::Arc;
use std::time::Duration;

use super::ClassicGroup;
use crate::group::machine::{Phase, Step, ms};
use crate::planted::{Defect, planted};
use crate::types::KafkaError;
use crate::world::Instant;

/// When the join phase ends.
pub(super) struct JoinTimer {
    at: Instant,
    /// Somebody came since the timer was set.
    pub newcomers: bool,
    /// Of a group that was empty.
    initial: Option<InitialDelay>,
}

/// A group that was empty waits for members that start at the same time; each time that somebody came it waits again, up
/// to the rebalance time-out (`group.initial.rebalance.delay.ms`).
struct InitialDelay {
    delay: Duration,
    remaining: Duration,
}

impl ClassicGroup {
    /// Something changed: members are to join again, or if they are at it, it may have been the last that was missing.
    pub(in crate::group) fn rebalance(&mut self, step: &mut Step<'_>) {
        match self.phase {
            Phase::PreparingRebalance => self.end_join_if_complete(step),
            _ => self.begin_join(step),
        }
    }

    /// After somebody went, who was a member or only had been given an id.
    pub(super) fn rebalance_without(&mut self, step: &mut Step<'_>, was_member: bool) {
        match self.phase {
            Phase::PreparingRebalance => self.end_join_if_complete(step),
            Phase::Stable | Phase::CompletingRebalance if was_member => self.begin_join(step),
            _ => {}
        }
    }

    pub(super) fn begin_join(&mut self, step: &mut Step<'_>) {
        if self.phase == Phase::CompletingRebalance {
            self.members.assign(&std::collections::BTreeMap::new());
            self.answer_syncs(step, Err(KafkaError::RebalanceInProgress));
        }
        self.unsynced.clear();
        self.sync_deadline = None;
        let was_empty = self.phase == Phase::Empty;
        self.phase = Phase::PreparingRebalance;
        let whole = ms(self.members.rebalance_timeout_ms());
        if was_empty {
            let delay = ms(step.view.settings.kafka.group_initial_rebalance_delay_ms);
            let initial = Some(InitialDelay { delay, remaining: whole.saturating_sub(delay) });
            self.join_timer = Some(JoinTimer { at: step.view.now + delay, newcomers: false, initial });
        } else if self.has_everybody_joined() {
            self.end_join(step);
        } else {
            self.join_timer = Some(JoinTimer { at: step.view.now + whole, newcomers: false, initial: None });
        }
    }

    fn has_everybody_joined(&self) -> bool {
        self.joining.len() == self.members.len() && self.pending.is_empty()
    }

    fn end_join_if_complete(&mut self, step: &mut Step<'_>) {
        let waits = self.join_timer.as_ref().is_some_and(|timer| timer.initial.is_some());
        if !waits && self.has_everybody_joined() {
            self.end_join(step);
        }
    }

    /// A new generation of those who joined, and of static members, whom only their session time-out removes.
    fn end_join(&mut self, step: &mut Step<'_>) {
        self.join_timer = None;
        let late = |(id, m): &(&Arc<str>, &super::roster::Member)| {
            m.record.instance_id.is_none() && !self.joining.contains_key(&**id)
        };
        let late: Vec<Arc<str>> = self.members.iter().filter(late).map(|(id, _)| id.clone()).collect();
        for id in late {
            self.drop_member(step, &id);
        }
        if !self.members.is_empty() && !self.elect() {
            let at = step.view.after_ms(self.members.rebalance_timeout_ms());
            self.join_timer = Some(JoinTimer { at, newcomers: false, initial: None });
            return;
        }
        let same = || self.persisted.iter().eq(self.members.iter().map(|(id, _)| id));
        if !(planted(Defect::GenerationStays) && same()) {
            self.header.epoch = self.header.epoch.checked_add(1).unwrap_or(1);
        }
        self.header.since_ms = step.view.wall_ms.0;
        self.header.protocol_name = self.members.choose_protocol();
        self.read_subscriptions();
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.persist(step, Vec::new());
            return;
        }
        self.phase = Phase::CompletingRebalance;
        self.members.settle();
        self.sync_deadline = Some(step.view.after_ms(self.members.rebalance_timeout_ms()));
        self.unsynced = self.members.iter().map(|(id, _)| id.clone()).collect();
        for id in self.unsynced.clone() {
            self.begin_session(step, &id);
        }
        for (id, request) in std::mem::take(&mut self.joining) {
            step.reply(request, self.generation(&id));
        }
    }

    /// Whether somebody who joined leads: the leader if it did, else the eldest who did.
    fn elect(&mut self) -> bool {
        if self.header.leader.as_deref().is_some_and(|leader| self.joining.contains_key(leader)) {
            return true;
        }
        let Some(eldest) = self.members.by_age().find(|id| self.joining.contains_key(&***id)) else { return false };
        self.header.leader = Some(eldest.to_string());
        true
    }

    /// Takes a member out, or an id that was given and not used. Gives whether it was a member.
    pub(super) fn drop_member(&mut self, step: &mut Step<'_>, id: &str) -> bool {
        self.sessions.clear(id);
        self.pending.remove(id);
        self.synced(id);
        // Its client, if it is there, joins as a new member.
        self.refuse_waiting(step, id, KafkaError::UnknownMemberId);
        if self.members.remove(id).is_none() {
            return false;
        }
        if self.is_leader(id) {
            self.header.leader = self.members.by_age().next().map(|id| id.to_string());
        }
        true
    }

    /// What waits for this member is refused.
    pub(super) fn refuse_waiting(&mut self, step: &mut Step<'_>, id: &str, error: KafkaError) {
        let waiting = [self.joining.remove(id), self.syncing.remove(id)];
        waiting.into_iter().flatten().for_each(|request| step.refuse(request, error));
    }

    /// When [`ClassicGroup::elapsed`] is due.
    pub(in crate::group) fn deadline(&self) -> Option<Instant> {
        let join = self.join_timer.as_ref().map(|timer| timer.at);
        [self.sessions.first(), join, self.sync_deadline].into_iter().flatten().min()
    }

    /// Time has passed.
    pub(in crate::group) fn elapsed(&mut self, step: &mut Step<'_>) {
        let now = step.view.now;
        while let Some(id) = self.sessions.take_due(now) {
            self.end_session(step, &id);
        }
        if self.sync_deadline.is_some_and(|at| at <= now) {
            self.sync_deadline = None;
            let late = std::mem::take(&mut self.unsynced);
            for id in &late {
                self.drop_member(step, id);
            }
            self.rebalance_without(step, !late.is_empty());
        }
        if self.join_timer.as_ref().is_some_and(|timer| timer.at <= now) {
            self.end_join_or_wait(step);
        }
    }

    fn end_join_or_wait(&mut self, step: &mut Step<'_>) {
        if let Some(timer) = &mut self.join_timer
            && let Some(initial) = &mut timer.initial
            && timer.newcomers
            && !initial.remaining.is_zero()
        {
            let waited = initial.delay;
            initial.delay = ms(step.view.settings.kafka.group_initial_rebalance_delay_ms).min(initial.remaining);
            initial.remaining = initial.remaining.saturating_sub(waited);
            timer.at = step.view.now + initial.delay;
            timer.newcomers = false;
            return;
        }
        self.end_join(step);
    }

    /// Nothing was heard of a member for its session time-out. One that waits for others is excused, unless it is new.
    fn end_session(&mut self, step: &mut Step<'_>, id: &str) {
        let is_new = self.members.get(id).is_some_and(|m| m.is_new);
        let waits = self.joining.contains_key(id) || self.syncing.contains_key(id);
        if waits && !is_new {
            return;
        }
        let was_member = self.drop_member(step, id);
        self.rebalance_without(step, was_member);
    }
}
