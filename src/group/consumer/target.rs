//! What each member is to have in the end: the assignors, and what they are told.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::member::{MemberId, Partitions};
use super::{range, uniform};
use crate::group::router::GroupSettings;
use crate::types::TopicId;

/// Bytes of one member's target as State keeps it, at most. A member's record holds its target and what is left of the
/// one before, and must fit into a change. What would be beyond it stays without an owner.
const TARGET_BYTES_MAX: usize = 1 << 20;
/// Of a topic in it, and of a partition with its epoch.
const TOPIC_BYTES: usize = 32;
const PARTITION_BYTES: usize = 8;

/// A way to share partitions out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Assignor {
    /// As even as can be, and what members have they keep.
    Uniform,
    /// Of each topic a range, so that equal partitions of several topics go to one member.
    Range,
}

/// A member as an assignor sees it.
pub(super) struct Candidate<'a> {
    pub id: &'a MemberId,
    pub instance_id: Option<&'a str>,
    /// What it is subscribed to, of [`Problem::topics`]. Shared by members with equal subscriptions.
    pub topics: Arc<BTreeSet<TopicId>>,
    /// Its target until now.
    pub previous: Option<&'a Partitions>,
}

/// What is to be shared out.
pub(super) struct Problem<'a> {
    /// Topics that somebody is subscribed to, with the number of their partitions.
    pub topics: BTreeMap<TopicId, i32>,
    /// By id.
    pub members: Vec<Candidate<'a>>,
}

impl Assignor {
    /// Those that this broker offers, its default first.
    pub(super) fn offered(settings: &GroupSettings) -> impl DoubleEndedIterator<Item = Self> {
        let names = settings.kafka.group_consumer_assignors.iter();
        let mut known: Vec<Self> = names.filter_map(|name| Self::of(name)).collect();
        if known.is_empty() {
            known = vec![Self::Uniform, Self::Range];
        }
        known.into_iter()
    }

    pub(super) fn of(name: &str) -> Option<Self> {
        [Self::Uniform, Self::Range].into_iter().find(|a| a.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// The new targets, one for each member, in the order of `problem.members`. No partition is in two.
    pub(super) fn assign(self, problem: &Problem<'_>) -> Vec<Partitions> {
        let mut targets = match self {
            Self::Uniform => uniform::assign(problem),
            Self::Range => range::assign(problem),
        };
        targets.iter_mut().for_each(cut);
        targets
    }
}

/// Takes off what is beyond the limit.
fn cut(target: &mut Partitions) {
    let bytes = |partitions: usize| TOPIC_BYTES + partitions * PARTITION_BYTES;
    let mut total: usize = target.values().map(|p| bytes(p.len())).sum();
    while total > TARGET_BYTES_MAX
        && let Some((_, partitions)) = target.pop_last()
    {
        total -= bytes(partitions.len());
    }
}
