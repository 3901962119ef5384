//! Waiting for entries of others, at a pace that follows theirs: what is asked for costs money, and what comes late costs
//! the consumers of other brokers' records time.
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::view::View;
use super::{Inner, PollPolicy};
use crate::journal::JournalError;
use crate::types::{Hint, Position};
use crate::world::Instant;

/// A poll asks for the next position only, which stays absent where it was trimmed; so the boundary is asked for too, when
/// nothing else has for this long.
const BOUNDARY_EVERY: Duration = Duration::from_secs(60);

/// When the journal is looked at next.
#[derive(Clone, Copy)]
pub(super) struct NextPoll {
    pub(super) due: Instant,
    /// Somebody says that there is an entry here, or up to here.
    pub(super) told: Option<Position>,
}

impl Inner {
    pub(super) async fn changed(&self, beyond: Position) {
        loop {
            let moved = self.moved.notified();
            {
                let view = self.view();
                let head = view.fold.as_ref().map_or(Position(0), |fold| fold.head.position);
                if head > beyond || view.boundary.first > beyond.next() {
                    return;
                }
            }
            let due = self.next_poll().due;
            tokio::select! {
                biased;
                () = moved => {}
                () = self.world.sleep_until(due) => self.poll().await,
            }
        }
    }

    /// Looks for entries, if nobody else has taken this poll. A failure is the next one's to mend.
    async fn poll(&self) {
        let now = self.world.now();
        let (boundary_is_due, told) = {
            let view = self.view();
            let every = self.poll_every(&view, now);
            let mut next_poll = self.next_poll();
            if next_poll.due > now {
                return;
            }
            let told = std::mem::replace(&mut *next_poll, NextPoll { due: now + every, told: None }).told;
            if told.is_some_and(|told| view.fold.as_ref().is_some_and(|fold| fold.head.position >= told)) {
                // It was met on another way.
                return;
            }
            (now.saturating_duration_since(view.boundary_seen) >= BOUNDARY_EVERY, told)
        };
        // Who waits asks for what was found, and hears of errors then.
        let found = self.peek().await;
        self.judge_hints(told, &found, now);
        if boundary_is_due && found == Ok(false) {
            let _ = self.look_at_boundary().await;
        }
    }

    /// What was told of and is not there, or was there and not told of, is to be looked for soon, by the usual looks.
    fn judge_hints(&self, told: Option<Position>, found: &Result<bool, JournalError>, now: Instant) {
        let mut view = self.view();
        let reached = |told| view.fold.as_ref().is_some_and(|fold| fold.head.position >= told);
        let soon = now + self.polls.slowest;
        match (told, found) {
            (Some(told), Ok(false)) if !reached(told) => view.hints.was_vain(soon),
            (None, Ok(true)) => {}
            _ => return,
        }
        let mut next_poll = self.next_poll();
        next_poll.due = next_poll.due.min(soon);
    }

    /// The journal's end was just seen: a poll now would find nothing.
    pub(super) fn postpone_poll(&self) {
        let now = self.world.now();
        let every = self.poll_every(&self.view(), now);
        let mut next_poll = self.next_poll();
        if next_poll.told.is_none() {
            next_poll.due = next_poll.due.max(now + every);
        }
    }

    fn poll_every(&self, view: &View, now: Instant) -> Duration {
        let PollPolicy { fastest, slowest, told } = self.polls;
        if view.hints.is_told(view.turns.own(), now) {
            return told.max(slowest);
        }
        view.turns.poll_every(now).clamp(fastest, slowest)
    }

    pub(super) fn hint(&self, said: Hint) {
        let now = self.world.now();
        {
            let mut view = self.view();
            view.hints.hear(said);
            let is_known = view.fold.as_ref().is_some_and(|fold| fold.head.position >= said.position);
            if is_known || !view.hints.is_followed(now) {
                return;
            }
        }
        let mut next_poll = self.next_poll();
        *next_poll = NextPoll { due: now, told: next_poll.told.max(Some(said.position)) };
        drop(next_poll);
        self.moved.notify_waiters();
    }

    fn next_poll(&self) -> MutexGuard<'_, NextPoll> {
        self.next_poll.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
