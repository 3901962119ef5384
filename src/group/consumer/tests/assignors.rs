//! The assignors: everything is given out once, evenly, and moves no more than it must.
use proptest::prelude::*;
use std::time::Instant as Clock;

use super::target::{Assignor, Candidate, Problem};
use super::*;

/// Members with their subscriptions and what they had.
#[derive(Clone, Debug)]
struct Case {
    /// Partitions of each topic.
    topics: Vec<i32>,
    members: Vec<(BTreeSet<usize>, Partitions)>,
}

fn topic(at: usize) -> TopicId {
    TopicId(Uuid::from_u128(at as u128 + 1))
}

impl Case {
    fn homogeneous(topics: &[i32], members: usize) -> Self {
        let all = (0..topics.len()).collect::<BTreeSet<_>>();
        Self { topics: topics.to_vec(), members: vec![(all, Partitions::new()); members] }
    }

    fn solve(&self, assignor: Assignor) -> Vec<Partitions> {
        let ids: Vec<MemberId> = (0..self.members.len()).map(|i| Arc::from(format!("m{i:05}"))).collect();
        let members = self.members.iter().zip(&ids).map(|((subscribed, previous), id)| Candidate {
            id,
            instance_id: None,
            topics: Arc::new(subscribed.iter().map(|t| topic(*t)).collect()),
            previous: Some(previous),
        });
        let wanted: BTreeSet<usize> = self.members.iter().flat_map(|m| m.0.iter().copied()).collect();
        let topics = wanted.into_iter().map(|t| (topic(t), self.topics[t])).collect();
        let targets = assignor.assign(&Problem { topics, members: members.collect() });
        self.check(&targets);
        targets
    }

    /// Every partition that somebody wants is given to one who does.
    fn check(&self, targets: &[Partitions]) {
        let mut seen = BTreeSet::new();
        for ((subscribed, _), target) in self.members.iter().zip(targets) {
            for (id, partitions) in target {
                let at = id.0.as_u128() as usize - 1;
                assert!(subscribed.contains(&at) && !partitions.is_empty());
                partitions.iter().for_each(|p| assert!((0..self.topics[at]).contains(p) && seen.insert((*id, *p))));
            }
        }
        let wanted: BTreeSet<usize> = self.members.iter().flat_map(|m| m.0.iter().copied()).collect();
        assert_eq!(seen.len() as i32, wanted.iter().map(|t| self.topics[*t]).sum::<i32>());
    }

    fn settle(&mut self, assignor: Assignor) -> Vec<Partitions> {
        let targets = self.solve(assignor);
        self.members.iter_mut().zip(&targets).for_each(|(m, t)| m.1 = t.clone());
        targets
    }

    /// Partitions that somebody had and somebody else is to have.
    fn moved(&self, targets: &[Partitions]) -> usize {
        let lost = |((_, had), target): (&(BTreeSet<usize>, Partitions), &Partitions)| {
            had.iter()
                .map(|(t, p)| p.iter().filter(|p| !target.get(t).is_some_and(|n| n.contains(p))).count())
                .sum::<usize>()
        };
        self.members.iter().zip(targets).map(lost).sum()
    }
}

fn load(target: &Partitions) -> usize {
    target.values().map(BTreeSet::len).sum()
}

fn spread(targets: &[Partitions]) -> usize {
    let loads = || targets.iter().map(load);
    loads().max().unwrap_or(0) - loads().min().unwrap_or(0)
}

fn cases() -> impl Strategy<Value = Case> {
    let topics = prop::collection::vec(0..12_i32, 1..8);
    (topics, 1..9_usize).prop_flat_map(|(topics, members)| {
        let subscriptions =
            prop::collection::vec(prop::collection::btree_set(0..topics.len(), 0..=topics.len()), members);
        (Just(topics), subscriptions).prop_map(|(topics, subscriptions)| Case {
            topics,
            members: subscriptions.into_iter().map(|s| (s, Partitions::new())).collect(),
        })
    })
}

proptest! {
    #[test]
    fn uniform_is_even_and_sticky(topics in prop::collection::vec(0..12_i32, 1..8), members in 1..9_usize, gone in 0..9_usize) {
        let mut case = Case::homogeneous(&topics, members);
        let targets = case.settle(Assignor::Uniform);
        prop_assert!(spread(&targets) <= 1);
        // Nothing changes: nothing moves.
        prop_assert_eq!(case.moved(&case.solve(Assignor::Uniform)), 0);
        // One comes: exactly its share moves.
        let mut more = case.clone();
        more.members.push(case.members[0].clone());
        more.members[members].1 = Partitions::new();
        let targets = more.solve(Assignor::Uniform);
        prop_assert!(spread(&targets) <= 1);
        prop_assert_eq!(more.moved(&targets), load(&targets[members]));
        // One goes: nobody else loses anything.
        if members > 1 {
            case.members.remove(gone % members);
            let targets = case.solve(Assignor::Uniform);
            prop_assert!(spread(&targets) <= 1);
            prop_assert_eq!(case.moved(&targets), 0);
        }
    }

    #[test]
    fn uniform_moves_the_least_whatever_members_had(seed in prop::collection::vec((0..6_usize, 0..10_i32), 0..40)) {
        let mut case = Case::homogeneous(&[10], 6);
        for (member, partition) in seed {
            case.members[member].1.entry(topic(0)).or_default().insert(partition);
        }
        let targets = case.solve(Assignor::Uniform);
        prop_assert!(spread(&targets) <= 1);
    }

    #[test]
    fn uniform_with_different_subscriptions_is_as_even_as_moves_make_it(mut case in cases(), other in cases()) {
        let targets = case.settle(Assignor::Uniform);
        for (from, (_, has)) in case.members.iter().enumerate() {
            for (to, (wants, _)) in case.members.iter().enumerate() {
                let could = has.keys().any(|t| wants.contains(&(t.0.as_u128() as usize - 1)));
                prop_assert!(!could || load(&targets[from]) <= load(&targets[to]) + 1, "{from} to {to}: {targets:?}");
            }
        }
        prop_assert_eq!(case.moved(&case.solve(Assignor::Uniform)), 0);
        // Other subscriptions and topics, with what members had: still right.
        for (member, (subscribed, _)) in case.members.iter_mut().zip(&other.members) {
            member.0.clone_from(subscribed);
        }
        case.members.truncate(other.members.len());
        case.topics = other.topics;
        case.topics.resize(8, 0);
        case.solve(Assignor::Uniform);
    }

    #[test]
    fn range_gives_ranges_and_the_same_of_equal_topics(mut case in cases(), partitions in 0..12_i32) {
        case.topics.iter_mut().for_each(|t| *t = partitions);
        for target in case.solve(Assignor::Range) {
            for partitions in target.values() {
                let (first, last) = (partitions.first().unwrap(), partitions.last().unwrap());
                prop_assert_eq!((last - first + 1) as usize, partitions.len());
            }
        }
        let all: BTreeSet<usize> = (0..case.topics.len()).collect();
        case.members.iter_mut().for_each(|m| m.0.clone_from(&all));
        let targets = case.solve(Assignor::Range);
        for target in targets {
            prop_assert!(target.values().all(|p| Some(p) == target.values().next()));
        }
    }
}

#[test]
fn range_orders_static_members_by_instance() {
    let ids: Vec<MemberId> = ["a", "b", "c"].into_iter().map(Arc::from).collect();
    let topics = Arc::new(BTreeSet::from([topic(0)]));
    let member = |(id, instance_id)| Candidate { id, instance_id, topics: topics.clone(), previous: None };
    let members = ids.iter().zip([None, Some("z"), Some("y")]).map(member).collect();
    let targets = Assignor::Range.assign(&Problem { topics: BTreeMap::from([(topic(0), 4)]), members });
    let has: Vec<Vec<i32>> = targets.iter().map(|t| t.values().flatten().copied().collect()).collect();
    assert_eq!(has, [vec![3], vec![2], vec![0, 1]]);
}

/// The figure is for a release build; what stands here only says that it does not take minutes.
#[test]
fn a_thousand_members_share_ten_thousand_partitions() {
    let mut even = Case::homogeneous(&[100; 100], 1000);
    let mut uneven = even.clone();
    uneven.members.iter_mut().enumerate().for_each(|(i, m)| m.0 = (0..100).filter(|t| (t + i) % 3 != 0).collect());
    for (case, assignor) in
        [(&mut even, Assignor::Uniform), (&mut uneven.clone(), Assignor::Range), (&mut uneven, Assignor::Uniform)]
    {
        #[expect(clippy::disallowed_methods, reason = "a figure to print")]
        let start = Clock::now();
        case.settle(assignor);
        let first = start.elapsed();
        case.members.pop();
        #[expect(clippy::disallowed_methods, reason = "a figure to print")]
        let start = Clock::now();
        let targets = case.solve(assignor);
        println!("{assignor:?}: {first:?} the first time, {:?} when one left", start.elapsed());
        assert!(assignor == Assignor::Range || spread(&targets) <= 1);
    }
}
