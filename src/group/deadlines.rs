//! What is to be looked at when. Everything costs the logarithm of how much there is.
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use crate::world::Instant;

/// At most one deadline for each key.
pub(super) struct Deadlines<K> {
    at: BTreeMap<K, Instant>,
    queue: BTreeSet<(Instant, K)>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self { at: BTreeMap::new(), queue: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Deadlines<K> {
    /// Another one that it had is forgotten.
    pub(super) fn set(&mut self, key: K, at: Instant) {
        self.clear(&key);
        self.at.insert(key.clone(), at);
        self.queue.insert((at, key));
    }

    /// Nothing is expected of it any more.
    pub(super) fn clear<Q: Ord + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if let Some((key, at)) = self.at.remove_entry(key) {
            self.queue.remove(&(at, key));
        }
    }

    pub(super) fn has<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.at.contains_key(key)
    }

    /// The next one.
    pub(super) fn first(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes one off that has come, the earliest first; of those at the same time, by their keys.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<K> {
        let (at, _) = self.queue.first()?;
        if *at > now {
            return None;
        }
        let (_, key) = self.queue.pop_first()?;
        self.at.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::world::World;

    #[test]
    fn each_key_comes_once_at_its_last_deadline() {
        let start = World::seeded(1).now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::default();
        for (key, seconds) in [("a", 5), ("b", 2), ("c", 2), ("d", 1), ("a", 3)] {
            deadlines.set(key, at(seconds));
        }
        deadlines.clear("d");
        deadlines.clear("never");
        assert_eq!((deadlines.first(), deadlines.has("a"), deadlines.has("d")), (Some(at(2)), true, false));
        assert_eq!(deadlines.take_due(at(1)), None);
        let due: Vec<_> = std::iter::from_fn(|| deadlines.take_due(at(3))).collect();
        assert_eq!(due, ["b", "c", "a"]);
        assert_eq!((deadlines.first(), deadlines.has("a"), deadlines.take_due(at(9))), (None, false, None));
    }
}
