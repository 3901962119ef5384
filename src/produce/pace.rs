//! When a PUT takes unusually long, and how many second copies of slow ones are allowed. Pure.
use std::collections::VecDeque;
use std::time::Duration;

/// PUTs that are remembered: at four flushes a second, the last half minute.
const RECENT: usize = 128;
/// Below this the quantile says nothing.
const SAMPLES_MIN: usize = 32;
/// Nothing is unusual below this: a second copy would take as long as the wait for the first.
const UNUSUAL_MIN: Duration = Duration::from_millis(50);
/// What each PUT allows of second copies, in hundredths: they cost at most 5 % more PUTs.
const CREDIT_PER_PUT: u32 = 5;
/// Saved up for a bad moment, in hundredths: as many as are in flight in one are seldom all slow.
const CREDIT_MAX: u32 = 400;

/// How long PUTs took lately.
#[derive(Debug, Default)]
pub(super) struct Pace {
    recent: VecDeque<Duration>,
    credit: u32,
}

impl Pace {
    /// A PUT began.
    pub(super) fn began(&mut self) {
        self.credit = (self.credit + CREDIT_PER_PUT).min(CREDIT_MAX);
    }

    /// A PUT took so long, or so long and was not done.
    pub(super) fn took(&mut self, time: Duration) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(time);
    }

    /// The time that 95 of 100 PUTs took at most; `None` while too few are known.
    pub(super) fn unusual_after(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.recent.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * 95).div_ceil(100);
        let p95 = sorted.get(rank.checked_sub(1)?).filter(|_| sorted.len() >= SAMPLES_MIN)?;
        Some((*p95).max(UNUSUAL_MIN))
    }

    /// Takes what a second copy costs; false if it is not there.
    pub(super) fn spend(&mut self) -> bool {
        let left = self.credit.checked_sub(100);
        self.credit = left.unwrap_or(self.credit);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn unusual_is_what_one_in_twenty_exceeds_lately() {
        let mut pace = Pace::default();
        (1..SAMPLES_MIN as u64).for_each(|n| pace.took(ms(n)));
        assert_eq!(pace.unusual_after(), None, "too few");
        pace.took(ms(32));
        assert_eq!(pace.unusual_after(), Some(UNUSUAL_MIN), "never below the floor");
        (0..RECENT as u64).for_each(|n| pace.took(ms(1000 + n)));
        assert_eq!(pace.unusual_after(), Some(ms(1000 + 121)), "the old ones are forgotten");
    }

    #[test]
    fn second_copies_are_one_in_twenty() {
        let mut pace = Pace::default();
        assert!(!pace.spend());
        let spent = (0..1000).filter(|_| {
            pace.began();
            pace.spend()
        });
        assert_eq!(spent.count(), 50);
        (0..1000).for_each(|_| pace.began());
        assert_eq!((0..10).filter(|_| pace.spend()).count(), 4, "and few at once");
    }
}
