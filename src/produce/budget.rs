//! When a flush may leave. On a store that charges for requests: at a steady rate, or when an object is full; after a
//! quiet time at once. Where requests cost nothing: whenever fewer than k PUTs are in flight.
use std::time::Duration;

use crate::world::Instant;

/// The dial between latency and the number of PUTs.
#[derive(Clone, Copy, Debug)]
pub struct FlushRule {
    /// Time between two flushes that are not full; zero on stores where a PUT costs nothing.
    pub interval: Duration,
    /// A flush of this many bytes is full.
    pub object_bytes: usize,
    /// PUTs in flight beyond which nothing leaves.
    pub puts_max: usize,
    /// PUTs in flight beyond which only full flushes leave, where the interval is zero.
    pub puts_unfull_max: usize,
}

/// A flush below this many bytes is small: most of what it costs is the same for every flush.
const SMALL_BYTES: usize = 256 << 10;
/// For how long a small flush waits for the outcome of the one before it, whose producers will send again when they
/// have it. A journal beside such a store answers in a fraction of this.
const OUTCOME_PATIENCE: Duration = Duration::from_millis(1);
/// For how long it waits, after that, until they have: a round trip to a client nearby. (The runtime's timer makes it a
/// millisecond or two where they don't come.)
const RETURN_PATIENCE: Duration = Duration::from_micros(200);
/// Flushes that don't wait for that after it was in vain: producers that keep to a rate have nothing to send yet.
const DISCOURAGED_FLUSHES: u32 = 16;

/// What to do with what has been gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Flush(&'static str),
    /// At that time, if nothing changes before.
    At(Instant),
    /// When a PUT ends or more arrives.
    Wait,
}

/// What is on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InFlight {
    pub(super) puts: usize,
    /// Flushes that are stored and wait for their outcome.
    pub(super) stored: usize,
}

/// Follows the flushes that left.
#[derive(Debug)]
pub(super) struct Budget {
    rule: FlushRule,
    next: Option<Instant>,
    /// When a PUT last ended.
    stored: Option<Instant>,
    /// When a request was last answered, and how many of those answered since the last flush have had no successor yet.
    answered: Option<Instant>,
    owed: usize,
    /// How many have.
    returned: usize,
    /// Flushes for which nobody is waited for.
    discouraged: u32,
}

impl Budget {
    pub(super) fn new(rule: FlushRule) -> Self {
        Self { rule, next: None, stored: None, answered: None, owed: 0, returned: 0, discouraged: 0 }
    }

    /// What to do with `bytes` gathered.
    pub(super) fn decide(&self, now: Instant, bytes: usize, in_flight: InFlight) -> Decision {
        if bytes == 0 || in_flight.puts >= self.rule.puts_max {
            return Decision::Wait;
        }
        if bytes >= self.rule.object_bytes {
            return Decision::Flush("size");
        }
        if self.rule.interval.is_zero() {
            if in_flight.puts >= self.rule.puts_unfull_max {
                return Decision::Wait;
            }
            let worth_waiting = self.worth_waiting_until(in_flight).filter(|until| bytes < SMALL_BYTES && *until > now);
            return worth_waiting.map_or(Decision::Flush("idle"), Decision::At);
        }
        match self.next {
            Some(next) if next > now => Decision::At(next),
            _ => Decision::Flush("interval"),
        }
    }

    /// Producers that wait for an answer before they send more are many to a flush only if it waits for them too. On a
    /// broker that was quiet there is nobody to wait for.
    fn worth_waiting_until(&self, in_flight: InFlight) -> Option<Instant> {
        if in_flight.stored > 0 {
            return self.stored.map(|at| at + OUTCOME_PATIENCE);
        }
        self.answered.filter(|_| self.owed > 0 && self.discouraged == 0).map(|at| at + RETURN_PATIENCE)
    }

    /// A PUT ended well.
    pub(super) fn stored(&mut self, now: Instant) {
        self.stored = Some(now);
    }

    /// A request was answered.
    pub(super) fn answered(&mut self, now: Instant) {
        self.answered = Some(now);
        self.owed += 1;
    }

    /// A request was taken.
    pub(super) fn taken(&mut self) {
        if self.owed > 0 {
            self.owed -= 1;
            self.returned += 1;
        }
    }

    /// A flush left at `now`, full or not: the next that is not full is due an interval later. Full ones that leave
    /// together don't add up, or what is left over behind them would wait for each of them.
    pub(super) fn flushed(&mut self, now: Instant) {
        self.next = Some(now + self.rule.interval);
        let in_vain =
            self.owed > 0 && self.returned == 0 && self.answered.is_some_and(|at| at + RETURN_PATIENCE <= now);
        self.discouraged = if in_vain { DISCOURAGED_FLUSHES } else { self.discouraged.saturating_sub(1) };
        (self.owed, self.returned) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(interval_ms: u64) -> Budget {
        let interval = Duration::from_millis(interval_ms);
        Budget::new(FlushRule { interval, object_bytes: 1000, puts_max: 4, puts_unfull_max: 2 })
    }

    fn puts(puts: usize) -> InFlight {
        InFlight { puts, stored: 0 }
    }

    #[tokio::test(start_paused = true)]
    async fn after_quiet_at_once_then_at_the_interval() {
        let (mut budget, now) = (budget(250), Instant::now());
        assert_eq!(budget.decide(now, 1, puts(0)), Decision::Flush("interval"));
        budget.flushed(now);
        let due = now + Duration::from_millis(250);
        assert_eq!(budget.decide(now, 1, puts(1)), Decision::At(due));
        assert_eq!(budget.decide(now, 1000, puts(1)), Decision::Flush("size"));
        assert_eq!(budget.decide(due, 1, puts(1)), Decision::Flush("interval"));
        assert_eq!(budget.decide(due, 1000, puts(4)), Decision::Wait);
    }

    #[tokio::test(start_paused = true)]
    async fn full_flushes_do_not_add_up() {
        let (mut budget, now) = (budget(250), Instant::now());
        (0..5).for_each(|_| budget.flushed(now));
        assert_eq!(budget.decide(now, 1, puts(0)), Decision::At(now + Duration::from_millis(250)));
    }

    #[tokio::test(start_paused = true)]
    async fn where_puts_are_free_a_lone_record_never_waits() {
        let (mut budget, now) = (budget(0), Instant::now());
        assert_eq!(budget.decide(now, 0, puts(0)), Decision::Wait);
        assert_eq!(budget.decide(now, 1, puts(1)), Decision::Flush("idle"));
        budget.flushed(now);
        assert_eq!(budget.decide(now, 999, puts(2)), Decision::Wait);
        assert_eq!(budget.decide(now, 1000, puts(2)), Decision::Flush("size"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_flush_waits_for_those_who_are_just_being_answered() {
        let (mut budget, now) = (budget(0), Instant::now());
        budget.flushed(now);
        budget.stored(now);
        let one_stored = InFlight { puts: 0, stored: 1 };
        assert_eq!(budget.decide(now, 1, one_stored), Decision::At(now + OUTCOME_PATIENCE));
        assert_eq!(budget.decide(now + OUTCOME_PATIENCE, 1, one_stored), Decision::Flush("idle"));
        (0..2).for_each(|_| budget.answered(now));
        budget.taken();
        assert_eq!(budget.decide(now, 1, puts(0)), Decision::At(now + RETURN_PATIENCE), "one may still come");
        assert_eq!(budget.decide(now + RETURN_PATIENCE, 1, puts(0)), Decision::Flush("idle"));
        budget.taken();
        assert_eq!(budget.decide(now, 1, puts(0)), Decision::Flush("idle"), "all have come");
        budget.flushed(now);
        budget.answered(now);
        budget.flushed(now + RETURN_PATIENCE);
        budget.answered(now);
        assert_eq!(budget.decide(now, 1, puts(0)), Decision::Flush("idle"), "it was in vain the last time");
    }
}
