//! What this broker could hear of the others: only for that time their silence counts (H12). Pure; time is passed in.
use std::time::Duration;

use crate::world::Instant;

/// Followed without a gap from `since` to `until`: everything is applied that the journal had then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hearing {
    since: Instant,
    until: Instant,
}

impl Hearing {
    /// Of a broker that begins to listen `now`.
    pub(super) fn from(now: Instant) -> Self {
        Self { since: now, until: now }
    }

    /// Everything is applied that the journal had at `confirmed`. If that was last so longer ago than `gap`, others may
    /// have tried to be heard in between and could not: all begin anew.
    pub(super) fn reach(&mut self, confirmed: Instant, gap: Duration) {
        if confirmed.saturating_duration_since(self.until) > gap {
            self.since = self.since.max(confirmed);
        }
        self.until = self.until.max(confirmed);
    }

    /// The journal did not answer until `now`.
    pub(super) fn interrupted(&mut self, now: Instant) {
        self.since = self.since.max(now);
    }

    /// For how long somebody was silent and would have been heard, who was last heard at `last`.
    pub(super) fn silence_since(&self, last: Instant) -> Duration {
        self.silence_until(self.until, last)
    }

    /// The same, if everything is applied by `now`.
    pub(super) fn silence_until(&self, now: Instant, last: Instant) -> Duration {
        now.saturating_duration_since(last.max(self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    const S: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn h12_silence_counts_while_the_journal_was_followed() {
        let start = World::seeded(1).now();
        let mut hearing = Hearing::from(start);
        (1..=10).for_each(|n| hearing.reach(start + S * n, S * 2));
        assert_eq!(hearing.silence_since(start + S * 3), S * 7);
        // What is not confirmed yet is not counted.
        assert_eq!(hearing.silence_since(start + S * 30), Duration::ZERO);
        // An older confirmation, which another task learnt of late, takes nothing back.
        hearing.reach(start + S * 5, S * 2);
        assert_eq!(hearing.silence_since(start), S * 10);
    }

    #[tokio::test(start_paused = true)]
    async fn h12_after_a_gap_everybody_has_the_whole_time_again() {
        let start = World::seeded(1).now();
        let mut hearing = Hearing::from(start);
        hearing.reach(start + S, S * 2);
        hearing.reach(start + S * 4, S * 2);
        assert_eq!(hearing.silence_since(start), Duration::ZERO);
        hearing.reach(start + S * 6, S * 2);
        assert_eq!(hearing.silence_since(start), S * 2);
        hearing.interrupted(start + S * 7);
        hearing.reach(start + S * 8, S * 2);
        assert_eq!(hearing.silence_since(start), S);
    }
}
