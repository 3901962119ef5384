//! What other brokers tell of their entries, and whether it may be relied on: who is told of each entry has little to look
//! for. Nothing else follows from it. Pure; time is passed in.
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::types::{Hint, Incarnation, Position};
use crate::world::Instant;

/// Entries by which it is judged: several of each broker of a cluster that keeps its journal in a bucket.
const JUDGED: usize = 32;

/// Incarnations whose word is remembered. Whoever reaches a listener may say anything.
const SAID_MAX: usize = 64;

/// An entry that nobody has told of for this long was found by looking.
const LATE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub(super) struct Hints {
    /// The last entry that each says it has appended.
    said: BTreeMap<Incarnation, Position>,
    /// The last entries, and when they were seen.
    seen: VecDeque<(Hint, Instant)>,
    /// Until then what is said is not followed, since it was wrong.
    deaf_until: Option<Instant>,
}

impl Hints {
    /// Somebody says that it has appended.
    pub(super) fn hear(&mut self, said: Hint) {
        if self.said.len() < SAID_MAX || self.said.contains_key(&said.incarnation) {
            let known = self.said.entry(said.incarnation).or_default();
            *known = said.position.max(*known);
        }
    }

    /// An entry was seen.
    pub(super) fn note(&mut self, entry: Hint, now: Instant) {
        if self.seen.len() == JUDGED {
            self.seen.pop_front();
            let seen: Vec<Incarnation> = self.seen.iter().map(|(entry, _)| entry.incarnation).collect();
            self.said.retain(|incarnation, _| seen.contains(incarnation));
        }
        self.seen.push_back((entry, now));
    }

    /// What was told is not in the journal.
    pub(super) fn was_vain(&mut self, until: Instant) {
        self.deaf_until = Some(until);
    }

    /// Whether it is to be looked at once for what is told: not if that was in vain just now.
    pub(super) fn is_followed(&self, now: Instant) -> bool {
        self.deaf_until.is_none_or(|until| until <= now)
    }

    /// Whether others than `own` append, and tell of each of their entries.
    pub(super) fn is_told(&self, own: Option<Incarnation>, now: Instant) -> bool {
        let mut others = self.seen.iter().filter(|(entry, _)| Some(entry.incarnation) != own).peekable();
        let told = |(entry, seen): &(Hint, Instant)| {
            let late = now.saturating_duration_since(*seen) >= LATE;
            !late || self.said.get(&entry.incarnation).is_some_and(|said| *said >= entry.position)
        };
        others.peek().is_some() && others.all(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    const ME: Option<Incarnation> = Some(Incarnation(1));

    fn hint(incarnation: u64, position: u64) -> Hint {
        Hint { incarnation: Incarnation(incarnation), position: Position(position) }
    }

    #[tokio::test(start_paused = true)]
    async fn who_tells_of_each_entry_is_relied_on() {
        let (now, mut hints) = (World::seeded(1).now(), Hints::default());
        assert!(!hints.is_told(ME, now), "nobody is there");
        hints.note(hint(1, 1), now);
        assert!(!hints.is_told(ME, now), "nobody else is");
        hints.hear(hint(2, 2));
        hints.note(hint(2, 2), now);
        assert!(hints.is_told(ME, now + LATE));
        // One that is told of late, and one that nobody tells of.
        hints.note(hint(2, 3), now + LATE);
        assert!(hints.is_told(ME, now + LATE) && !hints.is_told(ME, now + LATE * 2));
        hints.hear(hint(2, 3));
        hints.note(hint(3, 4), now + LATE);
        assert!(!hints.is_told(ME, now + LATE * 2), "another broker is not heard");
        (5..5 + JUDGED as u64).for_each(|n| {
            hints.hear(hint(2, n));
            hints.note(hint(2, n), now + LATE);
        });
        assert!(hints.is_told(ME, now + LATE * 3), "that is long ago");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_made_up_does_not_pile_up() {
        let (now, mut hints) = (World::seeded(1).now(), Hints::default());
        (0..10_000).for_each(|n| hints.hear(hint(n, u64::MAX)));
        assert_eq!(hints.said.len(), SAID_MAX);
        (0..=JUDGED as u64).for_each(|n| hints.note(hint(20_000, n), now));
        hints.hear(hint(20_000, JUDGED as u64));
        assert!(hints.is_told(ME, now + LATE), "there is room again");
        hints.was_vain(now + LATE);
        assert!(!hints.is_followed(now) && hints.is_followed(now + LATE));
    }
}
