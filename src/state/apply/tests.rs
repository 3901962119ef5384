use bytes::Bytes;

use super::*;
use crate::state::*;
use crate::types::*;

/// A journal of one broker, held in a State.
struct Fold {
    state: State,
    counter: u64,
}

impl Fold {
    fn new() -> Self {
        let mut fold = Self { state: State::default(), counter: 0 };
        let settings = Settings {
            topics_max: 10,
            partitions_max: 100,
            partitions_per_topic_max: 50,
            producers_max: 1000,
            producers_per_partition_max: 8,
            producer_expiration_ms: 1000,
            snapshots_min: 1,
            groups_max: 100,
            group_offsets_max: 10_000,
            group_bytes_max: 1 << 20,
            fencing_ms: 0,
            transactional_ids_max: 0,
            transaction_partitions_max: 0,
            garbage_grace_ms: 0,
        };
        let found = Bootstrap { cluster_id: "c".into(), settings };
        let register = RegisterBroker { broker: 1, incarnation: 5, feature_level_max: 1 };
        assert_eq!(fold.apply(vec![found.into(), register.into()]), [Outcome::Done, Outcome::Done]);
        fold
    }

    fn entry(&mut self, commands: Vec<Command>) -> Entry {
        self.counter += 1;
        let token = 1000 + self.counter;
        Entry {
            feature_level: 1,
            broker: 1,
            incarnation: 5,
            counter: self.counter,
            token,
            commands,
            ..Default::default()
        }
    }

    fn apply(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let entry = self.entry(commands);
        self.state.apply(self.state.head().position.next(), &entry)
    }

    fn one(&mut self, command: impl Into<Command>) -> Outcome {
        self.apply(vec![command.into()]).remove(0)
    }

    fn topic(&mut self, name: &str, partitions: u32) -> Outcome {
        let id = Bytes::from(Uuid::from_u128(u128::from(self.counter) + 1).as_bytes().to_vec());
        self.one(CreateTopic { name: name.into(), id, partitions, replication_factor: 1, configs: vec![] })
    }

    fn commit(&mut self, runs: &[RunSpec]) -> Vec<BatchOutcome> {
        self.commit_of(self.state.head().position, runs)
    }

    /// As above, by a broker that had applied that much when it wrote the object.
    fn commit_of(&mut self, applied: Position, runs: &[RunSpec]) -> Vec<BatchOutcome> {
        let mut writer = RunsWriter::default();
        runs.iter().for_each(|r| writer.push(r));
        let (base_timestamp, runs) = writer.finish();
        let ulid = Bytes::from(u128::from(self.counter).to_be_bytes().to_vec());
        let runs = runs.into();
        let (object_bytes, applied_position) = (1 << 20, applied.0);
        let command = CommitRuns { ulid, object_bytes, base_timestamp, runs, applied_position, ..Default::default() };
        match self.one(command) {
            Outcome::Batches { batches, .. } => batches,
            other => panic!("{other:?}"),
        }
    }
}

fn refused(outcome: Outcome) -> KafkaError {
    match outcome {
        Outcome::Refused(refusal) => refusal.error,
        other => panic!("not refused: {other:?}"),
    }
}

fn batch(records: u32, producer: Option<(i64, i32)>) -> BatchSpec {
    let producer = producer.map(|(id, first)| ProducerSpec {
        id: ProducerId(id),
        epoch: ProducerEpoch(0),
        first_sequence: Sequence(first),
        transactional: false,
        joins: false,
    });
    BatchSpec { bytes: 100, records, producer }
}

fn run(slot: u32, batches: Vec<BatchSpec>) -> RunSpec {
    RunSpec { slot: Slot(slot), position: 64, max_timestamp: TimestampMs(7), batches }
}

fn accepted(offset: i64) -> BatchOutcome {
    BatchOutcome::Accepted { base_offset: Offset(offset) }
}

#[test]
fn offsets_follow_each_other_per_partition() {
    let mut fold = Fold::new();
    assert_eq!(fold.topic("t", 2), Outcome::Done);
    let outcomes = fold.commit(&[run(0, vec![batch(3, None), batch(2, None)]), run(1, vec![batch(9, None)])]);
    assert_eq!(outcomes, [accepted(0), accepted(3), accepted(0)]);
    assert_eq!(fold.commit(&[run(0, vec![batch(1, None)])]), [accepted(5)]);
    let partition = fold.state.partition(Slot(0)).unwrap();
    assert_eq!((partition.end, partition.tail.len(), partition.bytes), (Offset(6), 2, 300));
    assert_eq!(fold.state.object(ObjectId(0)).unwrap().live_runs, 2);
}

#[test]
fn h6_a_refused_batch_splits_its_run() {
    let mut fold = Fold::new();
    fold.topic("t", 1);
    assert_eq!(fold.commit(&[run(0, vec![batch(5, Some((9, 0)))])]), [accepted(0)]);
    let mixed =
        vec![batch(1, None), batch(5, Some((9, 0))), batch(5, Some((9, 5))), batch(1, Some((9, 77))), batch(2, None)];
    let expected = [
        accepted(5),
        BatchOutcome::Duplicate { base_offset: Offset(0) },
        accepted(6),
        BatchOutcome::Refused { error: KafkaError::OutOfOrderSequenceNumber },
        accepted(11),
    ];
    assert_eq!(fold.commit(&[run(0, mixed)]), expected);
    let tail: Vec<_> =
        fold.state.partition(Slot(0)).unwrap().tail.iter().map(|r| (r.base_offset.0, r.position)).collect();
    assert_eq!(tail, [(0, 64), (5, 64), (6, 264), (11, 464)]);
}

#[test]
fn h8_only_the_registered_incarnation_acts_and_only_once() {
    let mut fold = Fold::new();
    fold.topic("t", 1);
    let mut old = fold.entry(vec![AllocateProducerIds { count: 10 }.into()]);
    let next = |fold: &Fold| fold.state.head().position.next();
    let at = next(&fold);
    assert_eq!(fold.state.apply(at, &old), [Outcome::ProducerIds { first: ProducerId(0) }]);
    let at = next(&fold);
    assert_eq!(fold.state.apply(at, &old), [Outcome::Fenced], "the same counter again");
    old.counter += 10;
    old.incarnation = 4;
    let at = next(&fold);
    assert_eq!(fold.state.apply(at, &old), [Outcome::Fenced], "another incarnation");
}

#[test]
fn topics_keep_kafkas_rules() {
    let mut fold = Fold::new();
    assert_eq!(fold.topic("a.b", 1), Outcome::Done);
    assert_eq!(refused(fold.topic("a.b", 1)), KafkaError::TopicAlreadyExists);
    assert_eq!(refused(fold.topic("a_b", 1)), KafkaError::InvalidTopicException);
    assert_eq!(refused(fold.topic("wide", 51)), KafkaError::InvalidPartitions);
    assert_eq!(fold.topic("b", 50), Outcome::Done);
    assert_eq!(refused(fold.topic("c", 50)), KafkaError::PolicyViolation);
    let id = Bytes::from(fold.state.topic_by_name("a.b").unwrap().id.0.as_bytes().to_vec());
    let grow = |count| CreatePartitions { topic_id: id.clone(), count };
    assert_eq!(refused(fold.one(grow(1))), KafkaError::InvalidPartitions);
    assert_eq!(fold.one(grow(3)), Outcome::Done);
    assert_eq!(fold.state.topic_by_name("a.b").unwrap().slots, [Slot(0), Slot(51), Slot(52)]);
}

#[test]
fn a_recreated_topic_has_nothing_of_the_old_one() {
    let mut fold = Fold::new();
    fold.topic("t", 1);
    fold.commit(&[run(0, vec![batch(5, Some((9, 0)))])]);
    let topic_id = Bytes::from(fold.state.topic_by_name("t").unwrap().id.0.as_bytes().to_vec());
    assert_eq!(fold.one(DeleteTopic { topic_id }), Outcome::Done);
    assert_eq!((fold.state.producer_count(), fold.state.run_count()), (0, 0));
    assert_eq!(fold.topic("t", 1), Outcome::Done);
    let late = fold.commit(&[run(0, vec![batch(5, None)])]);
    assert_eq!(late, [BatchOutcome::Refused { error: KafkaError::UnknownTopicOrPartition }]);
    assert_eq!(fold.state.topic_by_name("t").unwrap().slots, [Slot(1)]);
    assert_eq!(fold.commit(&[run(1, vec![batch(5, None)])]), [accepted(0)]);
}

#[test]
fn h16_expiry_spares_a_producer_that_was_used_since() {
    let mut fold = Fold::new();
    fold.topic("t", 1);
    fold.commit(&[run(0, vec![batch(1, Some((9, 0))), batch(1, Some((10, 0)))])]);
    let seen = fold.state.head().position.0;
    fold.commit(&[run(0, vec![batch(1, Some((10, 1)))])]);
    let producers = [9, 10].map(|id| ExpiredProducer { slot: 0, id, last_used: seen }).to_vec();
    fold.one(ExpireProducers { producers });
    let left: Vec<_> = fold.state.producers_of(Slot(0)).map(|(id, _)| id.0).collect();
    assert_eq!(left, [10]);
}

#[test]
fn h16_what_was_on_its_way_while_its_producer_was_forgotten_comes_again() {
    let mut fold = Fold::new();
    fold.topic("t", 1);
    let before = fold.state.head().position;
    let sent = [run(0, vec![batch(1, Some((9, 0)))])];
    assert_eq!(fold.commit(&sent), [accepted(0)]);
    let last_used = fold.state.head().position.0;
    fold.one(ExpireProducers { producers: vec![ExpiredProducer { slot: 0, id: 9, last_used }] });
    // The same batch over another broker, which stood still since.
    let again = [BatchOutcome::Refused { error: KafkaError::NotLeaderOrFollower }];
    assert_eq!(fold.commit_of(before, &sent), again);
    assert_eq!(fold.commit_of(before, &[run(0, vec![batch(1, None)])]), [accepted(1)], "plain ones are not concerned");
    // What is sent by somebody who knows of it goes on where it likes.
    assert_eq!(fold.commit(&[run(0, vec![batch(1, Some((9, 1)))])]), [accepted(2)]);
}

#[test]
fn producers_stay_below_their_ceiling() {
    let mut fold = Fold::new();
    fold.topic("t", 1);
    for id in 0..100 {
        fold.commit(&[run(0, vec![batch(1, Some((id, 0)))])]);
        assert!(fold.state.producer_count() <= 8);
    }
    let left: Vec<_> = fold.state.producers_of(Slot(0)).map(|(id, _)| id.0).collect();
    assert!(left.contains(&99) && !left.contains(&0), "{left:?}");
}

#[test]
fn deleted_records_release_their_objects() {
    let mut fold = Fold::new();
    fold.topic("t", 1);
    for _ in 0..3 {
        fold.commit(&[run(0, vec![batch(10, None)])]);
    }
    assert_eq!(refused(fold.one(DeleteRecords { slot: 0, offset: 31 })), KafkaError::OffsetOutOfRange);
    assert_eq!(fold.one(DeleteRecords { slot: 0, offset: 15 }), Outcome::LogStart { offset: Offset(15) });
    assert_eq!(fold.one(DeleteRecords { slot: 0, offset: 3 }), Outcome::LogStart { offset: Offset(15) });
    let live: Vec<_> = fold.state.objects().map(|(_, o)| o.live_runs).collect();
    assert_eq!(live, [0, 1, 1]);
    assert_eq!(fold.one(DeleteRecords { slot: 0, offset: 30 }), Outcome::LogStart { offset: Offset(30) });
    assert_eq!((fold.state.run_count(), fold.state.partition(Slot(0)).unwrap().bytes), (0, 0));
    assert_eq!(fold.commit(&[run(0, vec![batch(1, None)])]), [accepted(30)], "offsets are not given twice");
}

#[test]
fn h4_an_object_below_the_horizon_is_refused() {
    let mut fold = Fold::new();
    fold.topic("t", 1);
    fold.state.orphan_horizon = Position(100);
    let ulid = Bytes::from(vec![0; 16]);
    let command = CommitRuns { ulid, applied_position: 99, object_bytes: 1000, ..Default::default() };
    assert_eq!(refused(fold.one(command)), KafkaError::KafkaStorageError);
}

#[test]
fn the_same_entries_give_the_same_outcomes_hash_and_snapshot() {
    let make = || {
        let mut fold = Fold::new();
        fold.topic("t", 3);
        for i in 0..20 {
            fold.commit(&[run(i % 3, vec![batch(1 + i, Some((i64::from(i % 5), 0)))])]);
        }
        fold.state
    };
    let (a, b) = (make(), make());
    assert_eq!(a.outcomes_hash(), b.outcomes_hash());
    assert_eq!(a.encode_snapshot(), b.encode_snapshot());
}
