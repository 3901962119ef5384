//! The `uniform` assignor: members get equally many partitions, as far as their subscriptions allow, and keep what they
//! have as far as that allows.
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::member::Partitions;
use super::target::Problem;
use crate::types::TopicId;

/// Times that all topics are looked at to even members out; it ends much earlier where nothing is left to move.
const ROUNDS_MAX: usize = 32;

/// A target for each member, in their order.
pub(super) fn assign(problem: &Problem<'_>) -> Vec<Partitions> {
    let mut work = Work::begin(problem);
    let mut members = problem.members.iter();
    let first = members.next().map(|m| &m.topics);
    if members.all(|m| first == Some(&m.topics)) {
        work.even_out(problem);
    } else {
        work.spread(problem);
        for _ in 0..ROUNDS_MAX {
            if !work.balance() {
                break;
            }
        }
    }
    work.targets
}

struct Work {
    targets: Vec<Partitions>,
    /// Partitions of each.
    loads: Vec<usize>,
    /// What nobody had.
    free: Vec<(TopicId, i32)>,
    /// Who is subscribed.
    subscribers: BTreeMap<TopicId, Vec<usize>>,
}

impl Work {
    /// Everybody keeps what it had and may have; of two who had the same, the first.
    fn begin(problem: &Problem<'_>) -> Self {
        let mut taken: BTreeMap<TopicId, Vec<bool>> = BTreeMap::new();
        for (topic, partitions) in &problem.topics {
            taken.insert(*topic, vec![false; usize::try_from(*partitions).unwrap_or(0)]);
        }
        let mut targets = Vec::with_capacity(problem.members.len());
        let mut subscribers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
        for (at, member) in problem.members.iter().enumerate() {
            member.topics.iter().for_each(|topic| subscribers.entry(*topic).or_default().push(at));
            let mut target = Partitions::new();
            for (topic, partitions) in member.previous.into_iter().flatten() {
                let Some(taken) = taken.get_mut(topic).filter(|_| member.topics.contains(topic)) else { continue };
                let mut take = |p: &i32| {
                    let free = usize::try_from(*p).ok().and_then(|p| taken.get_mut(p)).filter(|taken| !**taken);
                    free.map(|taken| *taken = true).is_some()
                };
                let kept: BTreeSet<i32> = partitions.iter().copied().filter(|p| take(p)).collect();
                if !kept.is_empty() {
                    target.insert(*topic, kept);
                }
            }
            targets.push(target);
        }
        let is_free = |(topic, taken): (&TopicId, &Vec<bool>)| {
            let topic = *topic;
            let free = taken.iter().zip(0..).filter(|(taken, _)| !**taken);
            free.map(|(_, p)| (topic, p)).collect::<Vec<_>>()
        };
        let free = taken.iter().flat_map(is_free).collect();
        let loads = targets.iter().map(|t| t.values().map(BTreeSet::len).sum()).collect();
        Self { targets, loads, free, subscribers }
    }

    fn give(&mut self, to: usize, topic: TopicId, partition: i32) {
        self.targets[to].entry(topic).or_default().insert(partition);
        self.loads[to] += 1;
    }

    /// Takes the last one.
    fn take(&mut self, from: usize, topic: TopicId) -> Option<i32> {
        let partitions = self.targets[from].get_mut(&topic)?;
        let partition = partitions.pop_last()?;
        if partitions.is_empty() {
            self.targets[from].remove(&topic);
        }
        self.loads[from] -= 1;
        Some(partition)
    }

    /// Where all members have one subscription: all get the same number, and as many as need be one more, those first
    /// who have more already. Nothing moves that would not have to.
    fn even_out(&mut self, problem: &Problem<'_>) {
        let members = self.targets.len();
        let total: usize = problem.topics.values().map(|p| usize::try_from(*p).unwrap_or(0)).sum();
        if members == 0 || problem.members.first().is_none_or(|m| m.topics.is_empty()) {
            return;
        }
        let (least, longer) = (total / members, total % members);
        let mut order: Vec<usize> = (0..members).collect();
        order.sort_by_key(|at| Reverse(self.loads[*at].min(least + 1)));
        let mut quotas = vec![least; members];
        order.iter().take(longer).for_each(|at| quotas[*at] += 1);
        for (at, quota) in quotas.iter().enumerate() {
            while self.loads[at] > *quota {
                let Some(topic) = self.targets[at].last_key_value().map(|(topic, _)| *topic) else { break };
                if let Some(partition) = self.take(at, topic) {
                    self.free.push((topic, partition));
                }
            }
        }
        let mut free = std::mem::take(&mut self.free).into_iter();
        for (at, quota) in quotas.iter().enumerate() {
            while self.loads[at] < *quota
                && let Some((topic, partition)) = free.next()
            {
                self.give(at, topic, partition);
            }
        }
    }

    /// What nobody has goes to who has least of those who may have it; topics that few may have come first.
    fn spread(&mut self, problem: &Problem<'_>) {
        let mut by_topic: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in std::mem::take(&mut self.free) {
            by_topic.entry(topic).or_default().push(partition);
        }
        let mut order: Vec<TopicId> = by_topic.keys().copied().collect();
        order.sort_by_key(|topic| {
            let partitions = problem.topics.get(topic).copied();
            (self.subscribers.get(topic).map_or(0, Vec::len), Reverse(partitions), *topic)
        });
        for topic in order {
            let Some(subscribers) = self.subscribers.get(&topic) else { continue };
            let mut heap: BinaryHeap<_> = subscribers.iter().map(|at| Reverse((self.loads[*at], *at))).collect();
            for partition in by_topic.remove(&topic).into_iter().flatten() {
                let Some(Reverse((load, at))) = heap.pop() else { break };
                self.give(at, topic, partition);
                heap.push(Reverse((load + 1, at)));
            }
        }
    }

    /// Of each topic, partitions go from who has most to who has least, while that makes the two more even. Says whether
    /// any did.
    fn balance(&mut self) -> bool {
        let mut moved = false;
        let topics: Vec<(TopicId, Vec<usize>)> = self.subscribers.iter().map(|(t, s)| (*t, s.clone())).collect();
        for (topic, subscribers) in topics {
            let holds = |at: &&usize| self.targets[**at].contains_key(&topic);
            let mut givers: BinaryHeap<_> = subscribers.iter().filter(holds).map(|at| (self.loads[*at], *at)).collect();
            let mut takers: BinaryHeap<_> = subscribers.iter().map(|at| Reverse((self.loads[*at], *at))).collect();
            while let (Some((_, giver)), Some(Reverse((_, taker)))) = (givers.peek().copied(), takers.peek().copied()) {
                // A load in a heap may be an old one.
                if givers.peek().is_some_and(|(load, at)| *load != self.loads[*at]) {
                    givers.pop();
                    if self.targets[giver].contains_key(&topic) {
                        givers.push((self.loads[giver], giver));
                    }
                    continue;
                }
                if takers.peek().is_some_and(|Reverse((load, at))| *load != self.loads[*at]) {
                    takers.pop();
                    takers.push(Reverse((self.loads[taker], taker)));
                    continue;
                }
                if self.loads[giver] <= self.loads[taker] + 1 {
                    break;
                }
                let Some(partition) = self.take(giver, topic) else { break };
                self.give(taker, topic, partition);
                moved = true;
                if !self.targets[giver].contains_key(&topic) {
                    givers.pop();
                }
            }
        }
        moved
    }
}
