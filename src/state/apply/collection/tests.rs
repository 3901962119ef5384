use bytes::Bytes;

use super::*;
use crate::segment::ObjectName;
use crate::state::*;
use crate::types::*;

/// A journal of some brokers, whose incarnations are their ids, held in a State. An entry a second.
struct Fold {
    state: State,
    counter: u64,
}

impl Fold {
    fn new(level: u32) -> Self {
        let mut fold = Self { state: State::default(), counter: 0 };
        let settings = Settings {
            topics_max: 10,
            partitions_max: 100,
            partitions_per_topic_max: 50,
            snapshots_min: 1,
            ..Settings::default()
        };
        fold.by(1, level, vec![Bootstrap { cluster_id: "c".into(), settings }.into(), register(1).into()]);
        fold
    }

    fn by(&mut self, broker: i32, level: u32, commands: Vec<Command>) -> Vec<Outcome> {
        self.counter += 1;
        let entry = Entry {
            feature_level: level,
            broker,
            incarnation: broker as u64,
            counter: self.counter,
            token: self.counter,
            wall_ms: 1000 * self.counter as i64,
            after_position: self.state.head().position.0,
            commands,
            ..Entry::default()
        };
        self.state.apply(self.state.head().position.next(), &entry)
    }

    fn one(&mut self, command: impl Into<Command>) -> Outcome {
        self.by(1, self.state.feature_level(), vec![command.into()]).remove(0)
    }

    fn topic(&mut self, name: &str, partitions: u32) -> TopicId {
        let id = TopicId(Uuid::from_u128(u128::from(self.counter) + 1));
        let id_bytes = Bytes::copy_from_slice(id.0.as_bytes());
        let create =
            CreateTopic { name: name.into(), id: id_bytes, partitions, replication_factor: 1, configs: vec![] };
        assert_eq!(self.one(create), Outcome::Done);
        id
    }

    /// An object with a run of ten records of each of these slots.
    fn object(&mut self, slots: &[u32]) -> Outcome {
        self.object_of(self.state.head().position, None, slots)
    }

    fn object_of(&mut self, applied: Position, object: Option<u64>, slots: &[u32]) -> Outcome {
        let mut runs = RunsWriter::default();
        for slot in slots {
            let batches = vec![BatchSpec { bytes: 100, records: 10, producer: None }];
            runs.push(&RunSpec { slot: Slot(*slot), position: 64, max_timestamp: TimestampMs(7), batches });
        }
        let ulid = object.map_or(u128::from(self.counter), |object| {
            self.state.object(ObjectId(object)).map_or(0, |meta| meta.name.ulid)
        });
        let name = ObjectName::data(Head { position: applied, token: Token(0) }, ulid);
        self.one(CommitRuns::new(name, 1000, object.map(ObjectId), runs))
    }

    fn trim(&mut self, topic: TopicId, trims: &[(i32, i64)]) -> Outcome {
        let version = self.state.topic(topic).map_or(0, |topic| topic.config_version);
        let trims: Vec<_> = trims.iter().map(|(index, offset)| (PartitionIndex(*index), Offset(*offset))).collect();
        self.one(TrimLogs { topics: vec![TopicTrims::new(topic, version, &trims)] })
    }

    fn dead(&self) -> Vec<u64> {
        self.state.dead_objects().map(|(id, ..)| id.0).collect()
    }

    fn forget(&mut self, ids: &[u64]) -> Outcome {
        let since = |id: &u64| self.state.dead_objects().find(|(dead, ..)| dead.0 == *id).map(|(_, d, _)| d.since);
        let named: Vec<_> = ids.iter().map(|id| (ObjectId(*id), since(id).unwrap_or(Position(0)))).collect();
        self.one(ForgetObjects::new(&named))
    }

    fn comes_back(&self) {
        let (_, bytes) = self.state.encode_snapshot();
        let (_, read) = State::decode_snapshot(&bytes).unwrap();
        assert_eq!(read.encode_snapshot().1, bytes);
        let dead = |state: &State| state.dead_objects().map(|(id, death, _)| (id, death)).collect::<Vec<_>>();
        assert_eq!((dead(&read), read.dead_bytes()), (dead(&self.state), self.state.dead_bytes()));
        assert_eq!(read.oldest_reported(), self.state.oldest_reported());
    }
}

fn register(broker: i32) -> RegisterBroker {
    RegisterBroker { broker, incarnation: broker as u64, feature_level_max: FEATURE_LEVEL_MAX }
}

fn refused(outcome: Outcome) -> KafkaError {
    match outcome {
        Outcome::Refused(refusal) => refusal.error,
        other => panic!("not refused: {other:?}"),
    }
}

fn counted(count: u64) -> Outcome {
    Outcome::Counted { count }
}

#[test]
fn an_object_dies_with_its_last_run_however_that_goes() {
    let mut fold = Fold::new(5);
    let (kept, gone) = (fold.topic("kept", 2), fold.topic("gone", 1));
    fold.object(&[0, 1, 2]);
    fold.object(&[0, 0, 2]);
    assert_eq!(fold.trim(kept, &[(0, 10), (1, 10)]), counted(2));
    assert_eq!(fold.one(DeleteRecords { slot: 0, offset: 30 }), Outcome::LogStart { offset: Offset(30) });
    assert!(fold.dead().is_empty());
    let topic_id = Bytes::copy_from_slice(gone.0.as_bytes());
    fold.one(DeleteTopic { topic_id });
    assert_eq!((fold.dead(), fold.state.dead_bytes(), fold.state.run_count()), (vec![0, 1], 2000, 0));
    let death = fold.state.dead_objects().next().unwrap().1;
    assert_eq!((death.since, death.since_ms), (fold.state.head().position, TimestampMs(1000 * fold.counter as i64)));
    fold.comes_back();
    assert_eq!(fold.forget(&[0, 1, 2]), counted(2));
    assert_eq!((fold.state.object_count(), fold.state.dead_bytes()), (0, 0));
    fold.comes_back();
}

#[test]
fn a_trim_goes_forward_and_not_beyond_the_end() {
    let mut fold = Fold::new(5);
    let topic = fold.topic("t", 2);
    fold.object(&[0, 0, 1]);
    let start = |fold: &Fold, slot| fold.state.partition(Slot(slot)).unwrap().log_start.0;
    assert_eq!(fold.trim(topic, &[(0, 10), (1, 99)]), counted(2));
    assert_eq!((start(&fold, 0), start(&fold, 1)), (10, 10));
    assert_eq!(fold.trim(topic, &[(0, 3), (9, 3)]), counted(0));
    assert_eq!(start(&fold, 0), 10);
    let changes = vec![ConfigChange { name: "retention.ms".into(), value: Some("-1".into()) }];
    let topic_id = Bytes::copy_from_slice(topic.0.as_bytes());
    fold.one(AlterTopicConfigs { topic_id, changes, from_version: 1 });
    let old = TopicTrims::new(topic, 1, &[(PartitionIndex(0), Offset(20))]);
    assert_eq!(fold.one(TrimLogs { topics: vec![old] }), counted(0), "its settings are others now");
    assert_eq!(start(&fold, 0), 10);
    let many: Vec<_> = (0..=NAMED_MAX as i32).map(|index| (index, 1)).collect();
    assert_eq!(refused(fold.trim(topic, &many)), KafkaError::InvalidRequest);
}

#[test]
fn what_died_before_is_known_from_the_level_on() {
    let mut fold = Fold::new(4);
    let topic = fold.topic("t", 1);
    fold.object(&[0]);
    fold.object(&[0]);
    fold.one(DeleteRecords { slot: 0, offset: 10 });
    assert!(fold.dead().is_empty());
    assert_eq!(refused(fold.trim(topic, &[(0, 20)])), KafkaError::UnsupportedVersion);
    assert_eq!(refused(fold.forget(&[0])), KafkaError::UnsupportedVersion);
    assert_eq!(refused(fold.one(RaiseOrphanHorizon { position: 1 })), KafkaError::UnsupportedVersion);
    assert_eq!(fold.one(RaiseFeatureLevel { level: 5 }), Outcome::Done);
    assert_eq!(fold.dead(), [0]);
    fold.comes_back();
}

#[test]
fn a_dead_object_is_not_continued_nor_forgotten_for_another_death() {
    let mut fold = Fold::new(5);
    fold.topic("t", 2);
    fold.object(&[0]);
    let applied = fold.state.object(ObjectId(0)).unwrap().name.applied.position;
    assert!(matches!(fold.object_of(applied, Some(0), &[1]), Outcome::Batches { .. }));
    fold.one(DeleteRecords { slot: 0, offset: 10 });
    fold.one(DeleteRecords { slot: 1, offset: 10 });
    assert_eq!(refused(fold.object_of(applied, Some(0), &[1])), KafkaError::KafkaStorageError);
    assert_eq!(fold.one(ForgetObjects::new(&[(ObjectId(0), Position(1))])), counted(0));
    assert_eq!(fold.forget(&[0]), counted(1));
    assert_eq!(refused(fold.object_of(applied, Some(0), &[1])), KafkaError::KafkaStorageError, "it is forgotten");
    assert_eq!(refused(fold.object_of(applied, Some(1), &[1])), KafkaError::UnknownServerError, "there was none");
}

#[test]
fn h4_the_horizon_spares_what_a_live_broker_may_commit() {
    let mut fold = Fold::new(5);
    fold.topic("t", 1);
    fold.by(2, 5, vec![register(2).into()]);
    fold.by(1, 5, vec![]);
    let slow = fold.state.oldest_reported().unwrap();
    for _ in 0..5 {
        fold.by(1, 5, vec![]);
    }
    assert_eq!(fold.state.oldest_reported(), Some(slow));
    let above = RaiseOrphanHorizon { position: slow.0 + 1 };
    assert_eq!(refused(fold.one(above.clone())), KafkaError::InvalidRequest);
    fold.by(2, 5, vec![]);
    assert_eq!(fold.one(above), Outcome::Done);
    assert_eq!(fold.one(RaiseOrphanHorizon { position: 1 }), Outcome::Done, "it never goes back");
    assert_eq!(fold.state.orphan_horizon().0, slow.0 + 1);
    assert_eq!(refused(fold.object_of(slow, None, &[0])), KafkaError::KafkaStorageError);
    assert!(matches!(fold.object_of(Position(slow.0 + 1), None, &[0]), Outcome::Batches { .. }));
    let old = SnapshotTaken { position: slow.0, applied_position: slow.0, ..SnapshotTaken::default() };
    assert_eq!(refused(fold.one(old)), KafkaError::KafkaStorageError);
    fold.comes_back();
    // Who has gone commits nothing any more.
    fold.by(2, 5, vec![UnregisterBroker { broker: 2 }.into()]);
    let head = fold.state.head().position.0;
    assert_eq!(refused(fold.one(RaiseOrphanHorizon { position: head + 1 })), KafkaError::InvalidRequest);
    assert_eq!(fold.one(RaiseOrphanHorizon { position: head }), Outcome::Done);
}
