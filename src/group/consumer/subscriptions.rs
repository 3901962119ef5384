//! What a group's members are subscribed to, all together: names, and regular expressions with the topics that they
//! stand for now.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::Xxh3;

use super::member::Subscription;
use super::pattern;
use crate::state::State;
use crate::types::{Position, TopicId, TopicName};
use crate::world::Instant;

/// Different regular expressions of one group. All of them are matched with all topics whenever topics change.
pub(super) const PATTERNS_MAX: usize = 64;

/// Topics that are matched with an expression in a ms, at least; looking is spaced so that it takes a tenth of a core.
const MATCHES_PER_MS: usize = 1_000;

/// Subscriptions of all members.
#[derive(Clone, Debug, Default)]
pub(super) struct Subscriptions {
    /// How many members named the topic.
    names: BTreeMap<Arc<str>, usize>,
    patterns: BTreeMap<Arc<str>, Pattern>,
    /// As of [`State::topics_changed`].
    topics_seen: Position,
    /// Before this, patterns are not matched again.
    rest_until: Option<Instant>,
}

/// A regular expression.
#[derive(Clone, Debug, Default)]
struct Pattern {
    members: usize,
    topics: BTreeSet<TopicName>,
}

impl Subscriptions {
    /// A member's subscription comes. Its expression was found right by [`pattern::compile`].
    pub(super) fn add(&mut self, subscription: &Subscription, state: &State) {
        for name in &subscription.topics {
            *self.names.entry(name.clone()).or_default() += 1;
        }
        if let Some(regex) = &subscription.regex {
            let pattern = self.patterns.entry(regex.clone()).or_insert_with(|| Pattern::of(regex, state));
            pattern.members += 1;
        }
    }

    /// A member's subscription goes.
    pub(super) fn remove(&mut self, subscription: &Subscription) {
        for name in &subscription.topics {
            if let Some(count) = self.names.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.names.remove(name);
                }
            }
        }
        if let Some(regex) = &subscription.regex
            && let Some(pattern) = self.patterns.get_mut(regex)
        {
            pattern.members -= 1;
            if pattern.members == 0 {
                self.patterns.remove(regex);
            }
        }
    }

    /// Some member has this expression.
    pub(super) fn has_pattern(&self, regex: &str) -> bool {
        self.patterns.contains_key(regex)
    }

    pub(super) fn is_full(&self) -> bool {
        self.patterns.len() >= PATTERNS_MAX
    }

    /// Topics may have come, gone or grown since [`Subscriptions::look`] was called.
    pub(super) fn is_stale(&self, state: &State, now: Instant) -> bool {
        state.topics_changed() != self.topics_seen && self.rest_until.is_none_or(|until| now >= until)
    }

    /// Matches all expressions again, if topics changed.
    pub(super) fn look(&mut self, state: &State, now: Instant) {
        if !self.is_stale(state, now) {
            return;
        }
        self.topics_seen = state.topics_changed();
        for (regex, pattern) in &mut self.patterns {
            pattern.topics = Pattern::of(regex, state).topics;
        }
        let busy_ms = self.patterns.len().saturating_mul(state.topic_count()) / MATCHES_PER_MS;
        self.rest_until = Some(now + Duration::from_millis(busy_ms as u64).saturating_mul(9));
    }

    /// Some member is subscribed to the topic.
    pub(super) fn contains(&self, topic: &str) -> bool {
        self.names.contains_key(topic) || self.patterns.values().any(|p| p.topics.contains(topic))
    }

    /// Changes with the topics that members are subscribed to, of those that exist, and with their partitions.
    pub(super) fn topics_hash(&self, state: &State) -> u64 {
        let named = self.names.keys().filter_map(|name| state.topic_by_name(name));
        let matched = self.patterns.values().flat_map(|p| &p.topics).filter_map(|name| state.topic_by_name(name));
        let topics: BTreeMap<TopicId, u64> = named.chain(matched).map(|t| (t.id, t.slots.len() as u64)).collect();
        if topics.is_empty() {
            return 0;
        }
        let mut hash = Xxh3::new();
        for (id, partitions) in topics {
            hash.update(id.0.as_bytes());
            hash.update(&partitions.to_le_bytes());
        }
        hash.digest()
    }

    /// The topics that exist and that this member's subscription means.
    pub(super) fn topics_of(&self, subscription: &Subscription, state: &State) -> BTreeSet<TopicId> {
        let pattern = subscription.regex.as_ref().and_then(|regex| self.patterns.get(regex));
        let matched = pattern.into_iter().flat_map(|p| &p.topics);
        subscription.topics.iter().chain(matched).filter_map(|name| state.topic_by_name(name)).map(|t| t.id).collect()
    }
}

impl Pattern {
    /// As topics are now. An expression that is not right, which only an older version can have let in, matches none.
    fn of(regex: &str, state: &State) -> Self {
        let Ok(compiled) = pattern::compile(regex) else { return Self::default() };
        let topics = state.topics().filter(|t| compiled.is_match(&t.name)).map(|t| t.name.clone()).collect();
        Self { members: 0, topics }
    }
}
