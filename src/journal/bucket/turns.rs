//! Whose turn it is to append, when several want to (H18). Nobody hands out turns: every handle sees the same journal, and
//! gives way to those who appended less recently than itself. Correctness does not depend on it. Pure; time is passed in.
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::types::Incarnation;
use crate::world::Instant;

/// Entries whose writers count as competitors: more than three rounds of ten brokers.
const REMEMBERED: usize = 32;
/// After this many appends in a row without anybody else's, one waits a moment: who lost to all of them needs it to be
/// seen at all.
const IN_A_ROW_MAX: u32 = 8;
/// What a request is taken to last before one was measured.
const FIRST_GUESS: Duration = Duration::from_millis(20);
/// Bounds of what a request is taken to last, so that one that hung makes nobody wait for minutes.
const REQUEST_MAX: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Turns {
    /// Who appended the last entries, the newest last, and when this handle saw them.
    seen: VecDeque<(Incarnation, Instant)>,
    /// Measured durations of a create and of a read, smoothed.
    create: Duration,
    read: Duration,
    /// The last append of this handle met others.
    pub(super) contended: bool,
    /// This handle's appends since it last saw another's, or waited.
    in_a_row: u32,
    /// Which incarnation this handle appends for.
    own: Option<Incarnation>,
    /// When another's entry was last seen, and the smoothed time between two of them: what polling adapts to.
    other_seen: Instant,
    other_gap: Duration,
}

impl Turns {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            seen: VecDeque::new(),
            create: FIRST_GUESS,
            read: FIRST_GUESS,
            contended: false,
            in_a_row: 0,
            own: None,
            other_seen: now,
            other_gap: Duration::from_secs(1),
        }
    }

    pub(super) fn is_mine(&mut self, incarnation: Incarnation) {
        self.own = Some(incarnation);
    }

    pub(super) fn own(&self) -> Option<Incarnation> {
        self.own
    }

    /// An entry was seen for the first time.
    pub(super) fn note(&mut self, incarnation: Incarnation, now: Instant) {
        if self.seen.len() == REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back((incarnation, now));
        if self.own == Some(incarnation) {
            self.in_a_row = self.in_a_row.saturating_add(1);
            return;
        }
        self.in_a_row = 0;
        let gap = now.saturating_duration_since(self.other_seen);
        self.other_gap = (self.other_gap + gap) / 2;
        self.other_seen = now;
    }

    pub(super) fn measured_create(&mut self, took: Duration) {
        self.create = smoothed(self.create, took);
    }

    pub(super) fn measured_read(&mut self, took: Duration) {
        self.read = smoothed(self.read, took);
    }

    /// How long one append of somebody else takes, until it is seen here.
    pub(super) fn slot(&self) -> Duration {
        self.create + self.read * 3
    }

    /// How often whoever is next looks whether its turn has come.
    pub(super) fn look_every(&self) -> Duration {
        self.slot() / 4
    }

    /// How many of the others go first: those who appended lately, but less lately than `me`.
    pub(super) fn rank(&self, me: Incarnation, now: Instant) -> u32 {
        let Some(mine) = self.seen.iter().rposition(|(incarnation, _)| *incarnation == me) else { return 0 };
        let after_mine: BTreeSet<_> = self.seen.iter().skip(mine).map(|(incarnation, _)| *incarnation).collect();
        let before: BTreeSet<_> = self.lately(now).filter(|incarnation| !after_mine.contains(incarnation)).collect();
        u32::try_from(before.len()).unwrap_or(u32::MAX)
    }

    /// How long the first attempt of an append waits for others, who needed two reads to learn that the last entry is ours
    /// and are about to append. Nothing, if somebody else's entry is the last, or nobody else is there.
    pub(super) fn courtesy(&mut self, me: Incarnation, now: Instant) -> Duration {
        if self.seen.back().is_none_or(|(incarnation, _)| *incarnation != me) {
            return Duration::ZERO;
        }
        if !self.among_others(me, now) && self.in_a_row < IN_A_ROW_MAX {
            return Duration::ZERO;
        }
        self.in_a_row = 0;
        self.look_every() + self.read * 3
    }

    /// Whether others append too.
    pub(super) fn among_others(&self, me: Incarnation, now: Instant) -> bool {
        self.lately(now).any(|incarnation| incarnation != me)
    }

    /// The time between two looks of somebody who waits for others' entries: a quarter of the time that passes between
    /// them, or has passed since the last one.
    pub(super) fn poll_every(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.other_seen).max(self.other_gap) / 4
    }

    /// Who appended within the time that all of them need for two rounds.
    fn lately(&self, now: Instant) -> impl Iterator<Item = Incarnation> {
        let all: BTreeSet<_> = self.seen.iter().map(|(incarnation, _)| *incarnation).collect();
        let rounds = self.slot() * u32::try_from(2 * all.len() + 2).unwrap_or(u32::MAX);
        let since = move |at: Instant| now.saturating_duration_since(at) <= rounds;
        self.seen.iter().filter(move |(_, at)| since(*at)).map(|(incarnation, _)| *incarnation)
    }
}

fn smoothed(old: Duration, new: Duration) -> Duration {
    (old * 7 + new.min(REQUEST_MAX)) / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const ME: Incarnation = Incarnation(1);

    /// A handle that appends for [`ME`] and has seen entries of these incarnations, 100 ms apart.
    fn seen(incarnations: &[u64]) -> (Turns, Instant) {
        let mut now = crate::world::World::seeded(1).now();
        let mut turns = Turns::new(now);
        turns.is_mine(ME);
        for incarnation in incarnations {
            now += MS * 100;
            turns.note(Incarnation(*incarnation), now);
        }
        (turns, now)
    }

    #[tokio::test]
    async fn who_appended_least_lately_goes_first() {
        let (turns, now) = seen(&[1, 2, 3]);
        assert_eq!(turns.rank(ME, now), 0);
        assert_eq!(turns.rank(Incarnation(2), now), 1);
        assert_eq!(turns.rank(Incarnation(3), now), 2);
        assert_eq!(turns.rank(Incarnation(9), now), 0, "a newcomer");
        assert_eq!(turns.rank(Incarnation(3), now + MS * 5_000), 0, "the others have gone");
    }

    #[tokio::test]
    async fn who_is_alone_gives_way_now_and_then_and_among_others_always() {
        let (mut turns, now) = seen(&[1; 7]);
        assert_eq!(turns.courtesy(ME, now), Duration::ZERO);
        turns.note(ME, now);
        assert!(turns.courtesy(ME, now) > Duration::ZERO);
        assert_eq!(turns.courtesy(ME, now), Duration::ZERO, "once");
        let (mut turns, now) = seen(&[2, 1]);
        assert!(turns.courtesy(ME, now) > Duration::ZERO);
        let (mut turns, now) = seen(&[1, 2]);
        assert_eq!(turns.courtesy(ME, now), Duration::ZERO, "it is our turn");
    }

    #[tokio::test]
    async fn polls_follow_the_pace_of_others() {
        let (turns, now) = seen(&[2; 12]);
        assert!(turns.poll_every(now) < MS * 30, "{:?}", turns.poll_every(now));
        assert_eq!(turns.poll_every(now + MS * 8_000), MS * 2_000, "quiet");
        let (turns, now) = seen(&[1; 12]);
        assert_eq!(turns.poll_every(now), MS * 300, "our own entries are no news");
    }
}
