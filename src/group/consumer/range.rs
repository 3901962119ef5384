//! The `range` assignor: each topic's partitions are cut into as many ranges as members are subscribed to it, and these
//! are given to them in order. Members with equal subscriptions so get equal partitions of topics of equal size, which
//! joins of topics rely on. As in Kafka 4, static members come first, by their instance ids, so a restart moves nothing.
use std::collections::BTreeMap;

use super::member::Partitions;
use super::target::{Candidate, Problem};
use crate::types::TopicId;

/// How far a topic is given out.
struct Cutting {
    partitions: i32,
    next: i32,
    /// Of each range, and how many get one more.
    least: i32,
    longer: i32,
}

/// A target for each member, in their order.
pub(super) fn assign(problem: &Problem<'_>) -> Vec<Partitions> {
    let mut subscribers: BTreeMap<TopicId, i32> = BTreeMap::new();
    for topic in problem.members.iter().flat_map(|m| m.topics.iter()) {
        *subscribers.entry(*topic).or_default() += 1;
    }
    let cutting = |(topic, members): (&TopicId, &i32)| {
        let partitions = problem.topics.get(topic).copied().unwrap_or(0);
        let (least, longer) = (partitions / members, partitions % members);
        (*topic, Cutting { partitions, next: 0, least, longer })
    };
    let mut cuttings: BTreeMap<TopicId, Cutting> = subscribers.iter().map(cutting).collect();
    let mut order: Vec<(usize, &Candidate<'_>)> = problem.members.iter().enumerate().collect();
    order.sort_by_key(|(_, m)| (m.instance_id.is_none(), m.instance_id, m.id.clone()));
    let mut targets = vec![Partitions::new(); problem.members.len()];
    for (at, member) in order {
        for topic in member.topics.iter() {
            let Some(cutting) = cuttings.get_mut(topic) else { continue };
            let range = cutting.take();
            if !range.is_empty() {
                targets[at].insert(*topic, range.collect());
            }
        }
    }
    targets
}

impl Cutting {
    fn take(&mut self) -> std::ops::Range<i32> {
        let longer = i32::from(self.longer > 0);
        self.longer -= longer;
        let start = self.next;
        self.next = (start + self.least + longer).min(self.partitions);
        start..self.next
    }
}
