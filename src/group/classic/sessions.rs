//! When each member is to be heard of again. A heartbeat costs two look-ups, however many members there are.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::world::Instant;

/// Deadlines of members, pending ones included.
#[derive(Default)]
pub(super) struct Sessions {
    by_time: BTreeSet<(Instant, Arc<str>)>,
    by_member: BTreeMap<Arc<str>, Instant>,
}

impl Sessions {
    /// The member has until then.
    pub(super) fn set(&mut self, member: &str, until: Instant) {
        let name = match self.by_member.get_key_value(member) {
            Some((name, old)) => {
                let (name, old) = (name.clone(), *old);
                self.by_time.remove(&(old, name.clone()));
                name
            }
            None => Arc::from(member),
        };
        self.by_member.insert(name.clone(), until);
        self.by_time.insert((until, name));
    }

    /// Nothing is expected of the member any more.
    pub(super) fn clear(&mut self, member: &str) {
        if let Some((name, until)) = self.by_member.remove_entry(member) {
            self.by_time.remove(&(until, name));
        }
    }

    /// The next deadline of any.
    pub(super) fn first(&self) -> Option<Instant> {
        self.by_time.first().map(|(until, _)| *until)
    }

    /// Takes a member whose deadline has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Arc<str>> {
        let (until, _) = self.by_time.first()?;
        if *until > now {
            return None;
        }
        let (_, name) = self.by_time.pop_first()?;
        self.by_member.remove(&name);
        Some(name)
    }

    #[cfg(test)]
    pub(super) fn has(&self, member: &str) -> bool {
        self.by_member.contains_key(member)
    }
}
