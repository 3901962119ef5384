use super::*;
use crate::state::*;
use crate::types::{Position, Uuid};
use std::collections::BTreeMap;

const KEYS: i32 = 9_000;

/// A cluster's State, changed by its brokers.
struct Fold {
    state: State,
    counter: u64,
}

impl Fold {
    /// Brokers by their ids and zones.
    fn new(brokers: &[(i32, &str)]) -> Self {
        let mut fold = Self { state: State::default(), counter: 0 };
        fold.apply(0, Bootstrap { cluster_id: "c".into(), settings: Settings::default() }.into(), None);
        brokers.iter().for_each(|(id, zone)| fold.join(*id, zone));
        fold
    }

    fn join(&mut self, id: i32, zone: &str) {
        let register = RegisterBroker { broker: id, incarnation: id as u64, feature_level_max: 2 };
        let endpoint =
            |listener: &str, port| Endpoint { listener: listener.into(), host: format!("broker-{id}"), port };
        let endpoints = vec![endpoint("plain", 9092), endpoint("other", 9093)];
        self.apply(id, register.into(), Some(AnnounceBroker { zone: zone.into(), endpoints }.into()));
    }

    fn leave(&mut self, id: i32) {
        self.apply(id, UnregisterBroker { broker: id }.into(), None);
    }

    fn apply(&mut self, broker: i32, command: Command, next: Option<Command>) {
        self.counter += 1;
        let head = self.state.head().position;
        let entry = Entry {
            feature_level: 2,
            broker,
            incarnation: broker as u64,
            counter: self.counter,
            token: self.counter,
            after_position: head.0,
            commands: std::iter::once(command).chain(next).collect(),
            ..Entry::default()
        };
        let outcomes = self.state.apply(Position(head.0 + 1), &entry);
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
    }

    fn members(&self, me: i32) -> Members {
        Members::of(BrokerId(me), &self.state)
    }
}

fn topic(n: i32) -> TopicId {
    TopicId(Uuid::from_u128(n as u128 % 7))
}

/// The leaders of many partitions of a few topics.
fn led(members: &Members, zone: Option<&str>) -> Vec<Led> {
    let seen = members.seen_from(zone);
    (0..KEYS).map(|n| seen.leader(topic(n), PartitionIndex(n / 7))).collect()
}

/// The leaders of many partitions, then the coordinators of as many groups.
fn chosen(members: &Members) -> Vec<i32> {
    let leaders = led(members, None).into_iter().map(|led| led.leader.0);
    leaders.chain((0..KEYS).map(|n| members.coordinator(&format!("group-{n}")).0)).collect()
}

#[test]
fn shares_are_even_and_each_broker_sees_the_same() {
    let fold = Fold::new(&[(1, ""), (2, ""), (3, "")]);
    let first = chosen(&fold.members(1));
    assert_eq!(first, chosen(&fold.members(3)));
    for keys in first.chunks(KEYS as usize) {
        for id in 1..=3 {
            let share = keys.iter().filter(|chosen| **chosen == id).count();
            assert!((2_850..=3_150).contains(&share), "broker {id} has {share} of {KEYS}");
        }
    }
}

#[test]
fn only_the_share_of_a_broker_that_leaves_moves() {
    let mut fold = Fold::new(&[(1, ""), (2, ""), (3, "")]);
    let three = chosen(&fold.members(1));
    fold.leave(3);
    let two = chosen(&fold.members(1));
    assert!(three.iter().zip(&two).all(|(before, after)| before == after || *before == 3));
    let taken = three.iter().zip(&two).filter(|(before, after)| **before == 3 && **after == 2).count();
    assert!((2_700..=3_300).contains(&taken), "broker 2 takes {taken} of about 6000 over");
}

/// Brokers of different versions run side by side during an upgrade.
#[test]
fn the_choice_is_the_same_in_every_version() {
    let members = Fold::new(&[(1, ""), (2, ""), (3, "")]).members(1);
    let seen = members.seen_from(None);
    let leaders = (0..8).map(|p| seen.leader(TopicId(Uuid::from_u128(42)), PartitionIndex(p)).leader.0);
    assert_eq!(leaders.collect::<Vec<_>>(), [2, 3, 2, 3, 3, 1, 1, 1]);
    let groups = ["", "a", "b", "orders", "payments", "audit"].map(|group| members.coordinator(group).0);
    assert_eq!(groups, [2, 1, 1, 3, 1, 1]);
}

#[test]
fn a_lone_broker_is_everything_at_the_address_that_clients_came_by() {
    let (alone, came_by) = (Members::of(BrokerId(7), &State::default()), HostPort { host: "here".into(), port: 1 });
    assert_eq!(alone.brokers("plain", &came_by).collect::<Vec<_>>(), [(BrokerId(7), came_by.clone(), None)]);
    assert_eq!(alone.coordinator_at("g", "plain", &came_by), (BrokerId(7), came_by.clone()));
    assert!(alone.coordinates("g") && alone.serves() && !alone.has_others());
    let led = alone.seen_from(Some("z")).leader(TopicId(Uuid::nil()), PartitionIndex(0));
    assert_eq!(led, Led { leader: BrokerId(7), epoch: LeaderEpoch(0) });
}

#[test]
fn clients_are_told_the_addresses_of_their_listener() {
    let members = Fold::new(&[(1, ""), (2, "b")]).members(2);
    let came_by = HostPort { host: "here".into(), port: 1 };
    let told = |listener: &str| {
        let brokers = members.brokers(listener, &came_by).map(|(id, at, zone)| (id.0, at.to_string(), zone));
        brokers.map(|(id, at, zone)| (id, at, zone.map(str::to_owned))).collect::<Vec<_>>()
    };
    let zone = Some("b".to_owned());
    assert_eq!(told("other"), [(1, "broker-1:9093".into(), None), (2, "here:1".into(), zone.clone())]);
    assert_eq!(told("third"), [(1, "broker-1:9092".into(), None), (2, "here:1".into(), zone)]);
}

#[test]
fn each_zone_is_led_by_its_own_brokers_as_long_as_it_has_some() {
    let mut fold = Fold::new(&[(1, "a"), (2, "a"), (3, "b"), (4, "c")]);
    let leaders = |members: &Members, zone: &str| -> BTreeSet<i32> {
        led(members, Some(zone)).into_iter().map(|led| led.leader.0).collect()
    };
    let members = fold.members(1);
    assert_eq!(leaders(&members, "a"), BTreeSet::from([1, 2]));
    assert_eq!(leaders(&members, "b"), BTreeSet::from([3]));
    assert_eq!(leaders(&members, "elsewhere"), BTreeSet::from([1, 2, 3, 4]));
    let seen = members.seen_from(Some("b"));
    let replicas = seen.replicas(topic(1), PartitionIndex(0));
    assert_eq!((replicas[0], replicas.len()), (BrokerId(3), 3), "one of each zone, the leader first");
    fold.leave(3);
    assert_eq!(leaders(&fold.members(1), "b"), BTreeSet::from([1, 2, 4]));
}

/// Whatever comes and goes: a client that stays in its zone never sees an epoch fall, sees it rise where the leader
/// changed, and of most others nothing (H11).
#[test]
fn h11_epochs_rise_where_leaders_change() {
    let mut fold = Fold::new(&[(1, "a"), (2, "a"), (3, "b")]);
    let mut last: BTreeMap<Option<&str>, Vec<Led>> = BTreeMap::new();
    let steps: [(i32, Option<&str>); 15] = [
        (4, Some("b")),
        (1, None),
        (3, None),
        (4, None),
        (2, None),
        (1, Some("a")),
        (5, Some("a")),
        (4, Some("b")),
        (1, None),
        (4, None),
        (3, Some("b")),
        (5, None),
        (2, Some("b")),
        (1, Some("a")),
        (4, Some("a")),
    ];
    let mut kept = 0;
    for (id, zone) in steps {
        for zone in [None, Some("a"), Some("b"), Some("none's")] {
            let now = led(&fold.members(1), zone);
            if let Some(last) = last.get(&zone) {
                for (old, new) in last.iter().zip(&now) {
                    assert!(new.epoch >= old.epoch, "{zone:?}: {old:?} became {new:?}");
                    assert!(new.leader == old.leader || new.epoch > old.epoch, "{zone:?}: {old:?} became {new:?}");
                    kept += usize::from(old == new);
                }
            }
            assert!(now.iter().all(|led| led.epoch <= epochs(&fold.state).1));
            last.insert(zone, now);
        }
        match zone {
            Some(zone) => fold.join(id, zone),
            None => fold.leave(id),
        }
    }
    assert!(kept > 14 * 4 * KEYS as usize / 4, "{kept} answers stayed as they were");
}

#[test]
fn h9_who_is_cut_off_names_the_others_at_the_epochs_it_told_before() {
    let fold = Fold::new(&[(1, ""), (2, ""), (3, "")]);
    let members = fold.members(1);
    let cut_off = members.clone().without_me();
    assert!(members.serves() && !cut_off.serves());
    for (before, after) in led(&members, None).iter().zip(led(&cut_off, None)) {
        // It may be back before the others miss it, and clients refuse what has an older epoch than they have seen.
        assert!(after.leader != BrokerId(1) && after.epoch == before.epoch);
        assert!(before.leader == BrokerId(1) || *before == after, "what others led they lead");
    }
    assert!(!cut_off.coordinates("a") && members.coordinates("a"));
    let zones = Fold::new(&[(1, "a"), (2, "b"), (3, "b")]).members(1);
    for (before, after) in led(&zones, Some("a")).iter().zip(led(&zones.clone().without_me(), Some("a"))) {
        assert!(before.leader == BrokerId(1) && after.leader != BrokerId(1) && after.epoch == before.epoch);
    }
    let alone = Fold::new(&[(1, "")]).members(1);
    assert_eq!(alone.clone().without_me(), alone, "there is nobody to go to");
}
