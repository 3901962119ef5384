//! Waiting for entries of others, at a pace that follows theirs: what is asked for costs money, and what comes late costs
//! the consumers of other brokers' records time.
use std::sync::PoisonError;
use std::time::Duration;

use super::Inner;
use super::view::View;
use crate::types::Position;
use crate::world::Instant;

/// A poll asks for the next position only, which stays absent where it was trimmed; so the boundary is asked for too, when
/// nothing else has for this long.
const BOUNDARY_EVERY: Duration = Duration::from_secs(60);

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
            let due = *self.next_poll.lock().unwrap_or_else(PoisonError::into_inner);
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
        let boundary_is_due = {
            let view = self.view();
            let every = self.poll_every(&view, now);
            let mut next_poll = self.next_poll.lock().unwrap_or_else(PoisonError::into_inner);
            if *next_poll > now {
                return;
            }
            *next_poll = now + every;
            now.saturating_duration_since(view.boundary_seen) >= BOUNDARY_EVERY
        };
        // Who waits asks for what was found, and hears of errors then.
        let found = self.peek().await;
        if boundary_is_due && found == Ok(false) {
            let _ = self.look_at_boundary().await;
        }
    }

    /// The journal's end was just seen: a poll now would find nothing.
    pub(super) fn postpone_poll(&self) {
        let now = self.world.now();
        let every = self.poll_every(&self.view(), now);
        let mut next_poll = self.next_poll.lock().unwrap_or_else(PoisonError::into_inner);
        *next_poll = (now + every).max(*next_poll);
    }

    fn poll_every(&self, view: &View, now: Instant) -> Duration {
        view.turns.poll_every(now).clamp(self.polls.fastest, self.polls.slowest)
    }

    pub(super) fn hint(&self, position: Position) {
        if self.view().fold.as_ref().is_some_and(|fold| fold.head.position >= position) {
            return;
        }
        *self.next_poll.lock().unwrap_or_else(PoisonError::into_inner) = self.world.now();
        self.moved.notify_waiters();
    }
}
