use super::*;
use crate::state::*;
use crate::types::*;

const FENCING_MS: i64 = 10_000;

/// A cluster's journal, held in a State.
struct Fold {
    state: State,
    counters: std::collections::BTreeMap<i32, u64>,
}

impl Fold {
    fn new(level: u32) -> Self {
        let mut fold = Self { state: State::default(), counters: Default::default() };
        let settings = Settings { fencing_ms: FENCING_MS, ..Settings::default() }.at_level(level);
        let found = fold.entry(level, 1, 0, vec![Bootstrap { cluster_id: "c".into(), settings }.into()]);
        fold.apply(&found);
        fold
    }

    /// Of broker `id`, whose incarnation is ten times its id, at this time of its clock.
    fn entry(&mut self, level: u32, id: i32, wall_ms: i64, commands: Vec<Command>) -> Entry {
        let counter = self.counters.entry(id).or_default();
        *counter += 1;
        Entry {
            feature_level: level,
            broker: id,
            incarnation: id as u64 * 10,
            counter: *counter,
            wall_ms,
            after_position: self.state.head().position.0,
            commands,
            ..Entry::default()
        }
    }

    fn apply(&mut self, entry: &Entry) -> Vec<Outcome> {
        self.state.apply(self.state.head().position.next(), entry)
    }

    fn at(&mut self, id: i32, wall_ms: i64, command: impl Into<Command>) -> Outcome {
        let entry = self.entry(self.state.feature_level(), id, wall_ms, vec![command.into()]);
        self.apply(&entry).remove(0)
    }

    fn beat(&mut self, id: i32, wall_ms: i64) {
        let entry = self.entry(2, id, wall_ms, vec![]);
        self.apply(&entry);
    }

    fn join(&mut self, id: i32, wall_ms: i64, zone: &str) {
        let commands = vec![register(id).into(), announce(id, zone).into()];
        let entry = self.entry(2, id, wall_ms, commands);
        assert_eq!(self.apply(&entry), [Outcome::Done, Outcome::Done]);
    }

    fn fence(&self, id: i32) -> FenceBroker {
        let broker = self.state.broker(BrokerId(id)).unwrap();
        let incarnation = broker.incarnation.map_or(0, |incarnation| incarnation.0);
        FenceBroker { broker: id, incarnation, last_position: broker.last_position.0 }
    }

    fn standing(&self, id: i32) -> Standing {
        self.state.broker(BrokerId(id)).unwrap().standing
    }
}

fn register(id: i32) -> RegisterBroker {
    RegisterBroker { broker: id, incarnation: id as u64 * 10, feature_level_max: 2 }
}

fn announce(id: i32, zone: &str) -> AnnounceBroker {
    let endpoint = Endpoint { listener: "plain".into(), host: format!("broker-{id}"), port: 9092 };
    AnnounceBroker { zone: zone.into(), endpoints: vec![endpoint] }
}

fn refused(outcome: Outcome) -> KafkaError {
    match outcome {
        Outcome::Refused(refusal) => refusal.error,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_broker_takes_part_from_its_announcement_until_it_drains() {
    let mut fold = Fold::new(2);
    assert_eq!(fold.at(1, 0, register(1)), Outcome::Done);
    assert!(!fold.state.broker(BrokerId(1)).unwrap().is_member());
    assert_eq!(fold.state.membership(), 0);
    fold.at(1, 0, announce(1, "a"));
    fold.at(1, 0, announce(1, "a"));
    assert!(fold.state.broker(BrokerId(1)).unwrap().is_member());
    assert_eq!(fold.state.membership(), 1, "the second said nothing new");
    fold.join(2, 0, "b");
    assert_eq!(fold.at(2, 0, DrainBroker { broker: 1 }), Outcome::Done);
    assert_eq!((fold.standing(1), fold.state.membership()), (Standing::Draining, 3));
    assert_eq!(fold.at(1, 0, AllocateProducerIds { count: 1 }), Outcome::ProducerIds { first: ProducerId(0) });
    assert_eq!(fold.at(2, 0, DrainBroker { broker: 1 }), Outcome::Done, "as often as one likes");
    assert_eq!(fold.at(1, 0, UnregisterBroker { broker: 1 }), Outcome::Done);
    assert_eq!((fold.standing(1), fold.state.membership()), (Standing::Gone, 3), "it moved when it began to drain");
    assert_eq!(refused(fold.at(2, 0, DrainBroker { broker: 1 })), KafkaError::BrokerIdNotRegistered);
    fold.join(1, 0, "a");
    assert_eq!((fold.standing(1), fold.state.membership()), (Standing::Active, 4));
}

#[test]
fn h8_a_registration_that_comes_late_does_not_replace_a_newer_one() {
    let mut fold = Fold::new(2);
    let late = fold.entry(2, 1, 0, vec![register(1).into()]);
    let newer = RegisterBroker { incarnation: 77, ..register(1) };
    let entry = Entry { incarnation: 77, ..fold.entry(2, 1, 0, vec![newer.into()]) };
    assert_eq!(fold.apply(&entry), [Outcome::Done]);
    assert_eq!(refused(fold.apply(&late).remove(0)), KafkaError::DuplicateBrokerRegistration);
    assert_eq!(fold.state.broker(BrokerId(1)).unwrap().incarnation, Some(Incarnation(77)));
    // What came with it says nothing of the new one.
    let commands = vec![register(1).into(), announce(1, "zombie").into()];
    let late = Entry { after_position: 0, ..fold.entry(2, 1, 0, commands) };
    assert_eq!(refused(fold.apply(&late).remove(1)), KafkaError::BrokerIdNotRegistered);
    assert_eq!(fold.state.broker(BrokerId(1)).unwrap().profile.zone, "");
}

#[test]
fn h12_only_long_silence_that_others_have_listened_to_counts() {
    let mut fold = Fold::new(2);
    fold.join(1, 0, "");
    fold.join(2, 0, "");
    for second in 1..=9 {
        fold.beat(1, second * 1_000);
    }
    assert_eq!(refused(fold.at(1, 9_900, fold.fence(2))), KafkaError::InvalidRequest, "not for long enough");
    let before = fold.fence(2);
    fold.beat(2, 0);
    for second in 10..=22 {
        fold.beat(1, second * 1_000);
    }
    assert_eq!(refused(fold.at(1, 22_000, before)), KafkaError::InvalidRequest, "it has spoken since");
    assert_eq!(refused(fold.at(1, 22_000, fold.fence(1))), KafkaError::InvalidRequest, "nobody fences itself");
    assert_eq!(fold.at(1, 22_500, fold.fence(2)), Outcome::Done);
    assert_eq!((fold.standing(2), fold.state.membership()), (Standing::Fenced, 3));
    assert_eq!(fold.at(2, 23_000, AllocateProducerIds { count: 1 }), Outcome::Fenced);
    fold.join(2, 23_000, "");
    assert_eq!(fold.standing(2), Standing::Active);
}

#[test]
fn h12_who_was_silent_itself_fences_nobody() {
    let mut fold = Fold::new(2);
    (1..=3).for_each(|id| fold.join(id, 0, ""));
    // The journal stood still; the first to come back finds the others silent.
    fold.beat(1, 60_000);
    for second in 61..=69 {
        fold.beat(1, second * 1_000);
        assert_eq!(refused(fold.at(1, second * 1_000, fold.fence(2))), KafkaError::InvalidRequest);
    }
    fold.beat(1, 70_001);
    assert_eq!(fold.at(1, 70_001, fold.fence(2)), Outcome::Done);
    // Not many at once, whatever the proposer says.
    assert_eq!(refused(fold.at(1, 70_002, fold.fence(3))), KafkaError::ThrottlingQuotaExceeded);
    for second in 71..=82 {
        fold.beat(1, second * 1_000);
    }
    assert_eq!(fold.at(1, 82_000, fold.fence(3)), Outcome::Done);
}

#[test]
fn h5_a_level_is_raised_when_all_registered_brokers_know_it_and_not_lowered() {
    let mut fold = Fold::new(1);
    assert_eq!(fold.at(1, 0, register(1)), Outcome::Done);
    assert_eq!(fold.at(2, 0, RegisterBroker { feature_level_max: 1, ..register(2) }), Outcome::Done);
    for command in [Command::from(announce(1, "")), DrainBroker { broker: 2 }.into(), fold.fence(2).into()] {
        assert_eq!(refused(fold.at(1, 0, command)), KafkaError::UnsupportedVersion);
    }
    let raise = |level| RaiseFeatureLevel { level };
    assert_eq!(refused(fold.at(1, 0, raise(2))), KafkaError::InvalidUpdateVersion);
    fold.at(2, 0, UnregisterBroker { broker: 2 });
    assert_eq!(fold.at(1, 0, raise(2)), Outcome::Done);
    assert_eq!(fold.state.feature_level(), 2);
    for level in [1, 2, 3] {
        assert_eq!(refused(fold.at(1, 0, raise(level))), KafkaError::InvalidUpdateVersion, "{level}");
    }
    let old = RegisterBroker { feature_level_max: 1, ..register(3) };
    assert_eq!(refused(fold.at(3, 0, old)), KafkaError::UnsupportedVersion);
    assert_eq!(fold.at(1, 0, announce(1, "a")), Outcome::Done);
    assert!(fold.state.broker(BrokerId(1)).unwrap().is_member());
}

#[test]
fn a_snapshot_has_everything_about_brokers() {
    let mut fold = Fold::new(2);
    (1..=4).for_each(|id| fold.join(id, 0, &format!("zone-{id}")));
    (1..=12).for_each(|second| fold.beat(1, second * 1_000));
    fold.at(1, 12_000, fold.fence(2));
    fold.at(1, 12_000, DrainBroker { broker: 3 });
    fold.at(4, 0, UnregisterBroker { broker: 4 });
    let (header, bytes) = fold.state.encode_snapshot();
    let (read, mut restored) = State::decode_snapshot(&bytes).unwrap();
    assert_eq!(read, header);
    assert!(restored.brokers().eq(fold.state.brokers()));
    let next = fold.entry(2, 1, 13_000, vec![]);
    let position = restored.head().position.next();
    restored.apply(position, &next);
    fold.apply(&next);
    assert_eq!(restored.encode_snapshot().0, fold.state.encode_snapshot().0);
}

#[test]
fn who_is_gone_for_long_is_forgotten_and_epochs_do_not_fall() {
    let mut fold = Fold::new(2);
    for id in 1..=DEPARTED_MAX as i32 + 2 {
        fold.join(id, 0, "");
        fold.at(id, 0, UnregisterBroker { broker: id });
    }
    assert_eq!(fold.state.brokers().count(), DEPARTED_MAX + 1);
    assert!(fold.state.broker(BrokerId(1)).is_none());
    assert_eq!(fold.state.membership_floor(), 2, "broker 1 was gone with the second change");
}

#[test]
fn names_without_bounds_are_refused() {
    let mut fold = Fold::new(2);
    fold.join(1, 0, "");
    let many = vec![announce(1, "").endpoints.remove(0); ENDPOINTS_MAX + 1];
    for bad in [announce(1, &"z".repeat(256)), AnnounceBroker { zone: String::new(), endpoints: many }] {
        assert_eq!(refused(fold.at(1, 0, bad)), KafkaError::InvalidRequest);
    }
}
