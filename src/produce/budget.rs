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

/// What to do with what has been gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Flush(&'static str),
    /// At that time, if nothing changes before.
    At(Instant),
    /// When a PUT ends or more arrives.
    Wait,
}

/// Follows the flushes that left.
#[derive(Debug)]
pub(super) struct Budget {
    rule: FlushRule,
    next: Option<Instant>,
}

impl Budget {
    pub(super) fn new(rule: FlushRule) -> Self {
        Self { rule, next: None }
    }

    /// What to do with `bytes` gathered while `in_flight` PUTs are on their way.
    pub(super) fn decide(&self, now: Instant, bytes: usize, in_flight: usize) -> Decision {
        if bytes == 0 || in_flight >= self.rule.puts_max {
            return Decision::Wait;
        }
        if bytes >= self.rule.object_bytes {
            return Decision::Flush("size");
        }
        if self.rule.interval.is_zero() {
            let idle = in_flight < self.rule.puts_unfull_max;
            return if idle { Decision::Flush("idle") } else { Decision::Wait };
        }
        match self.next {
            Some(next) if next > now => Decision::At(next),
            _ => Decision::Flush("interval"),
        }
    }

    /// A flush left at `now`, full or not: the next that is not full is due an interval later. Full ones that leave
    /// together don't add up, or what is left over behind them would wait for each of them.
    pub(super) fn flushed(&mut self, now: Instant) {
        self.next = Some(now + self.rule.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(interval_ms: u64) -> Budget {
        let interval = Duration::from_millis(interval_ms);
        Budget::new(FlushRule { interval, object_bytes: 1000, puts_max: 4, puts_unfull_max: 2 })
    }

    #[tokio::test(start_paused = true)]
    async fn after_quiet_at_once_then_at_the_interval() {
        let (mut budget, now) = (budget(250), Instant::now());
        assert_eq!(budget.decide(now, 1, 0), Decision::Flush("interval"));
        budget.flushed(now);
        let due = now + Duration::from_millis(250);
        assert_eq!(budget.decide(now, 1, 1), Decision::At(due));
        assert_eq!(budget.decide(now, 1000, 1), Decision::Flush("size"));
        assert_eq!(budget.decide(due, 1, 1), Decision::Flush("interval"));
        assert_eq!(budget.decide(due, 1000, 4), Decision::Wait);
    }

    #[tokio::test(start_paused = true)]
    async fn full_flushes_do_not_add_up() {
        let (mut budget, now) = (budget(250), Instant::now());
        (0..5).for_each(|_| budget.flushed(now));
        assert_eq!(budget.decide(now, 1, 0), Decision::At(now + Duration::from_millis(250)));
    }

    #[tokio::test(start_paused = true)]
    async fn where_puts_are_free_a_lone_record_never_waits() {
        let (mut budget, now) = (budget(0), Instant::now());
        assert_eq!(budget.decide(now, 0, 0), Decision::Wait);
        assert_eq!(budget.decide(now, 1, 1), Decision::Flush("idle"));
        budget.flushed(now);
        assert_eq!(budget.decide(now, 999, 2), Decision::Wait);
        assert_eq!(budget.decide(now, 1000, 2), Decision::Flush("size"));
    }
}
