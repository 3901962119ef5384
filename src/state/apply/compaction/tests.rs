use bytes::Bytes;

use super::*;
use crate::state::*;
use crate::types::{Head, Position, ProducerId, TimestampMs, Token, Uuid};

/// A journal of one broker at the level of compaction, with a topic of three partitions in slots 0 to 2.
struct Fold {
    state: State,
    counter: u64,
    level: u32,
}

impl Fold {
    fn new() -> Self {
        Self::at(COMPACTION_LEVEL)
    }

    fn at(level: u32) -> Self {
        let mut fold = Self { state: State::default(), counter: 0, level };
        let settings = Settings {
            topics_max: 10,
            partitions_max: 100,
            partitions_per_topic_max: 50,
            producers_max: 1000,
            producers_per_partition_max: 8,
            transactional_ids_max: 3,
            transaction_partitions_max: 5,
            ..Settings::default()
        };
        let found = Bootstrap { cluster_id: "c".into(), settings };
        let register = RegisterBroker { broker: 1, incarnation: 5, feature_level_max: level };
        fold.apply(vec![found.into(), register.into()]);
        let id = Bytes::from(Uuid::from_u128(1).as_bytes().to_vec());
        fold.one(CreateTopic { name: "t".into(), id, partitions: 3, replication_factor: 1, configs: vec![] });
        fold
    }

    fn apply(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        self.counter += 1;
        let entry = Entry {
            feature_level: self.level,
            broker: 1,
            incarnation: 5,
            counter: self.counter,
            token: 1000 + self.counter,
            wall_ms: 1_000_000 + self.counter as i64,
            commands,
            ..Default::default()
        };
        self.state.apply(self.state.head().position.next(), &entry)
    }

    fn one(&mut self, command: impl Into<Command>) -> Outcome {
        let outcome = self.apply(vec![command.into()]).remove(0);
        self.check();
        outcome
    }

    /// What State counts is what there is, and a snapshot holds all of it.
    fn check(&self) {
        let mut live = std::collections::BTreeMap::new();
        let mut runs = 0;
        for partition in self.state.partitions() {
            let mut next = None;
            for run in partition.tail.iter() {
                assert!(next.is_none_or(|next| next == run.base_offset), "a gap before {run:?}");
                next = Some(run.end_offset);
                if run.marker.is_none() {
                    *live.entry(run.object).or_insert(0) += 1;
                }
                runs += 1;
            }
            let bytes: u64 = partition.tail.iter().map(|run| u64::from(run.bytes)).sum();
            assert_eq!((partition.bytes, next.unwrap_or(partition.end)), (bytes, partition.end));
            let first = partition.tail.iter().next();
            assert!(
                first.is_none_or(|run| run.base_offset <= partition.log_start && partition.log_start < run.end_offset)
            );
        }
        assert_eq!(self.state.run_count(), runs);
        for (id, meta) in self.state.objects() {
            assert_eq!(meta.live_runs, live.get(&id).copied().unwrap_or(0), "{id:?}");
        }
        let (header, bytes) = self.state.encode_snapshot();
        let (again, restored) = State::decode_snapshot(&bytes).unwrap();
        assert_eq!((header, restored.encode_snapshot().1), (again, bytes));
    }

    /// A flush with ten records in each of these slots.
    fn flush(&mut self, slots: &[u32]) -> ObjectId {
        let mut writer = RunsWriter::default();
        for (n, slot) in slots.iter().enumerate() {
            let batches = vec![BatchSpec { bytes: 100, records: 10, producer: None }];
            let position = 64 + 100 * n as u32;
            writer.push(&RunSpec { slot: Slot(*slot), position, max_timestamp: TimestampMs(7), batches });
        }
        let name = ObjectName::data(self.state.head(), u128::from(self.counter));
        match self.one(CommitRuns::new(name, 1 << 20, None, writer)) {
            Outcome::Batches { object, .. } => object.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// One transaction with ten records in slot 0.
    fn transaction(&mut self, commit: bool) {
        let init = InitProducer { transactional_id: "x".into(), timeout_ms: 10_000, exchanged: None };
        let Outcome::Producer { producer, .. } = self.one(init) else { panic!("no producer") };
        let (id, epoch) = (producer.id, producer.epoch);
        let first_sequence = crate::types::Sequence(0);
        let spec = ProducerSpec { id, epoch, first_sequence, transactional: true, joins: true };
        let batches = vec![BatchSpec { bytes: 100, records: 10, producer: Some(spec) }];
        let mut writer = RunsWriter::default();
        writer.push(&RunSpec { slot: Slot(0), position: 64, max_timestamp: TimestampMs(7), batches });
        let name = ObjectName::data(self.state.head(), u128::from(self.counter));
        self.one(CommitRuns::new(name, 1 << 20, None, writer));
        let producer = ProducerStamp { id: id.0, epoch: i32::from(epoch.0) };
        self.one(EndTransaction { transactional_id: "x".into(), producer, commit, bump: true });
    }

    fn tail(&self, slot: u32) -> Vec<(i64, i64, Option<u64>)> {
        let object = |run: &Run| run.marker.is_none().then_some(run.object.0);
        let tail = &self.state.partition(Slot(slot)).unwrap().tail;
        tail.iter().map(|run| (run.base_offset.0, run.end_offset.0, object(&run))).collect()
    }

    fn delete_records(&mut self, offset: i64) {
        assert_eq!(self.one(DeleteRecords { slot: 0, offset }), Outcome::LogStart { offset: Offset(offset) });
    }
}

/// Runs that end at these offsets.
fn share(slot: u32, base: i64, ends: &[i64]) -> CompactedShare {
    let run = |end: &i64| CompactedRun { end_offset: Offset(*end), bytes: 150, max_timestamp: TimestampMs(5) };
    CompactedShare { slot: Slot(slot), base_offset: Offset(base), runs: ends.iter().map(run).collect() }
}

fn compaction(fold: &Fold, ulid: u128, inputs: &[ObjectId], shares: &[CompactedShare]) -> CommitCompaction {
    let name = ObjectName::compacted(fold.state.head(), ulid);
    CommitCompaction::new(name, 1 << 20, None, (1, inputs), HEADER_BYTES, shares)
}

fn compacted(object: Option<u64>, taken: u32, dropped: u32) -> Outcome {
    Outcome::Compacted { object: object.map(ObjectId), taken, dropped }
}

fn refused(outcome: Outcome) -> KafkaError {
    match outcome {
        Outcome::Refused(refusal) => refusal.error,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn the_same_records_lie_elsewhere() {
    let mut fold = Fold::new();
    let inputs = [fold.flush(&[0, 1]), fold.flush(&[0])];
    let later = fold.flush(&[0]);
    let command = compaction(&fold, 77, &inputs, &[share(0, 0, &[5, 20]), share(1, 0, &[10])]);
    assert_eq!(fold.one(command), compacted(Some(3), 2, 0));
    assert_eq!(fold.tail(0), [(0, 5, Some(3)), (5, 20, Some(3)), (20, 30, Some(later.0))]);
    let positions: Vec<u32> = [0, 1]
        .iter()
        .flat_map(|slot| fold.state.partition(Slot(*slot)).unwrap().tail.iter().take(2).map(|r| r.position))
        .collect();
    assert_eq!(positions, [64, 214, 364]);
    let metas: Vec<_> = fold.state.objects().map(|(_, meta)| (meta.level, meta.live_runs, meta.was_input)).collect();
    assert_eq!(metas, [(0, 0, true), (0, 0, true), (0, 1, false), (1, 3, false)]);
    assert!(fold.state.object(ObjectId(3)).unwrap().name.key().starts_with("compacted/"));
}

#[test]
fn h17_what_changed_meanwhile_is_dropped_and_the_rest_kept() {
    let mut fold = Fold::new();
    let inputs = [fold.flush(&[0, 1, 2]), fold.flush(&[0, 1, 2])];
    // Another job was faster with partition 1.
    let other = compaction(&fold, 1, &inputs, &[share(1, 0, &[20])]);
    assert_eq!(fold.one(other), compacted(Some(2), 1, 0));
    let shares = [share(0, 0, &[20]), share(1, 0, &[20]), share(2, 0, &[10]), share(9, 0, &[20])];
    let command = compaction(&fold, 2, &inputs[..1], &shares);
    assert_eq!(fold.one(command), compacted(Some(3), 1, 3), "of 0 the second flush is no input; 9 is not there");
    assert_eq!(fold.tail(0), [(0, 10, Some(0)), (10, 20, Some(1))]);
    assert_eq!(fold.tail(1), [(0, 20, Some(2))]);
    assert_eq!(fold.tail(2), [(0, 10, Some(3)), (10, 20, Some(1))]);
}

#[test]
fn ends_and_beginnings_must_be_those_of_runs() {
    let mut fold = Fold::new();
    let inputs = [fold.flush(&[0]), fold.flush(&[0])];
    for (base, end) in [(0, 15), (5, 20), (0, 25), (20, 30)] {
        let command = compaction(&fold, 1, &inputs, &[share(0, base, &[end])]);
        assert_eq!(fold.one(command), compacted(None, 0, 1), "{base} to {end}");
    }
    assert_eq!(fold.tail(0), [(0, 10, Some(0)), (10, 20, Some(1))]);
}

#[test]
fn what_the_log_start_passed_meanwhile_may_be_missing() {
    for (log_start, expected) in [
        (0, vec![(0, 12, Some(3)), (12, 30, Some(3))]),
        (5, vec![(0, 12, Some(3)), (12, 30, Some(3))]),
        (11, vec![(0, 12, Some(3)), (12, 30, Some(3))]),
        (12, vec![(12, 30, Some(3))]),
        (29, vec![(12, 30, Some(3))]),
    ] {
        let mut fold = Fold::new();
        let inputs = [fold.flush(&[0]), fold.flush(&[0]), fold.flush(&[0])];
        fold.delete_records(log_start);
        let command = compaction(&fold, 1, &inputs, &[share(0, 0, &[12, 30])]);
        assert_eq!(fold.one(command), compacted(Some(3), 1, 0), "{log_start}");
        assert_eq!(fold.tail(0), expected, "{log_start}");
        fold.delete_records(30);
    }
    let mut fold = Fold::new();
    let inputs = [fold.flush(&[0])];
    fold.delete_records(10);
    let command = compaction(&fold, 1, &inputs, &[share(0, 0, &[10])]);
    assert_eq!(fold.one(command), compacted(None, 0, 1), "nothing of it is left");
}

#[test]
fn a_commit_that_comes_again_changes_nothing() {
    let mut fold = Fold::new();
    let inputs = [fold.flush(&[0, 1])];
    let command = compaction(&fold, 1, &inputs, &[share(0, 0, &[10]), share(1, 0, &[10])]);
    assert_eq!(fold.one(command.clone()), compacted(Some(1), 2, 0));
    assert_eq!(refused(fold.one(command.clone())), KafkaError::UnknownServerError, "the name is known");
    let again = CommitCompaction { object: Some(1), ..command.clone() };
    assert_eq!(fold.one(again), compacted(Some(1), 0, 2));
    let other = CommitCompaction { ulid: Bytes::from(vec![9; 16]), ..command };
    assert_eq!(fold.one(other), compacted(None, 0, 2));
    assert_eq!(fold.state.object_count(), 2);
}

#[test]
fn h15_an_object_is_committed_by_several_commands() {
    let mut fold = Fold::new();
    let inputs = [fold.flush(&[0, 1])];
    let name = ObjectName::compacted(fold.state.head(), 7);
    let part = |object: Option<u64>, position, share| {
        CommitCompaction::new(name, 1000, object.map(ObjectId), (1, &inputs), position, &[share])
    };
    assert_eq!(fold.one(part(None, 64, share(0, 0, &[10]))), compacted(Some(1), 1, 0));
    assert_eq!(fold.one(part(Some(1), 214, share(1, 0, &[10]))), compacted(Some(1), 1, 0));
    assert_eq!(fold.state.object(ObjectId(1)).unwrap().live_runs, 2);
    let other = ObjectName::compacted(fold.state.head(), 8);
    let wrong = CommitCompaction::new(other, 1000, Some(ObjectId(1)), (1, &inputs), 64, &[]);
    assert_eq!(refused(fold.one(wrong)), KafkaError::UnknownServerError);
}

#[test]
fn h14_markers_go_with_their_runs_and_transactions_stay() {
    let mut fold = Fold::new();
    fold.transaction(false);
    fold.transaction(true);
    let before = fold.state.partition(Slot(0)).unwrap().clone();
    assert_eq!(fold.tail(0), [(0, 10, Some(0)), (10, 11, None), (11, 21, Some(1)), (21, 22, None)]);
    let aborted = before.transactions().unwrap().aborted.clone();
    let inputs = [ObjectId(0), ObjectId(1)];
    let command = compaction(&fold, 1, &inputs, &[share(0, 0, &[22])]);
    assert_eq!(fold.one(command), compacted(Some(2), 1, 0));
    assert_eq!(fold.tail(0), [(0, 22, Some(2))]);
    let after = fold.state.partition(Slot(0)).unwrap();
    assert_eq!((after.last_stable(), after.end), (before.last_stable(), before.end));
    assert_eq!(after.transactions().unwrap().aborted, aborted);
    let sequences = |state: &State| state.producer(Slot(0), ProducerId(0)).map(|p| p.batches().to_vec());
    assert!(sequences(&fold.state).is_some_and(|batches| !batches.is_empty()));
}

#[test]
fn a_deleted_topic_gets_nothing_back() {
    let mut fold = Fold::new();
    let inputs = [fold.flush(&[0, 1])];
    let command = compaction(&fold, 1, &inputs, &[share(0, 0, &[10]), share(1, 0, &[10])]);
    let topic_id = Bytes::from(Uuid::from_u128(1).as_bytes().to_vec());
    assert_eq!(fold.one(DeleteTopic { topic_id }), Outcome::Done);
    assert_eq!(fold.one(command), compacted(None, 0, 2));
    assert_eq!((fold.state.run_count(), fold.state.object_count()), (0, 1));
}

#[test]
fn what_is_impossible_is_refused_whole() {
    let mut fold = Fold::new();
    let inputs = [fold.flush(&[0])];
    let good = compaction(&fold, 1, &inputs, &[share(0, 0, &[10])]);
    let unknown = KafkaError::UnknownServerError;
    for (bad, error) in [
        (CommitCompaction { ulid: Bytes::from_static(b"short"), ..good.clone() }, unknown),
        (CommitCompaction { level: 0, ..good.clone() }, unknown),
        (CommitCompaction { level: 3, ..good.clone() }, unknown),
        (CommitCompaction { position: 63, ..good.clone() }, unknown),
        (CommitCompaction { position: u32::MAX, ..good.clone() }, unknown),
        (CommitCompaction { object_bytes: 213, ..good.clone() }, unknown),
        (CommitCompaction { object: Some(99), ..good.clone() }, unknown),
        (CommitCompaction { shares: Bytes::from_static(&[1, 2, 3]), ..good.clone() }, unknown),
    ] {
        assert_eq!(refused(fold.one(bad)), error);
    }
    fold.state.orphan_horizon = Position(100);
    assert_eq!(refused(fold.one(good.clone())), KafkaError::KafkaStorageError, "H4");
    fold.state.orphan_horizon = Position(0);
    fold.state.feature_level = COMPACTION_LEVEL - 1;
    assert_eq!(refused(fold.one(good.clone())), KafkaError::UnsupportedVersion);
    fold.state.feature_level = COMPACTION_LEVEL;
    assert_eq!(fold.one(good), compacted(Some(1), 1, 0));
    assert_eq!(fold.state.head().token, Token(1000 + fold.counter));
    assert_ne!(fold.state.head(), Head::default());
}

/// What log compaction says of a share.
fn cleaned(to: u64) -> CleanedShare {
    CleanedShare { config_version: 1, cleaned: to }
}

#[test]
fn log_compaction_notes_how_far_a_log_is_clean_and_forgets_what_was_aborted_there() {
    let mut fold = Fold::at(CLEANING_LEVEL);
    let first = fold.flush(&[0]);
    fold.transaction(false);
    fold.transaction(false);
    let (start, middle, end) = (0, 21, 32);
    let inputs: Vec<ObjectId> = fold.state.objects().map(|(id, _)| id).collect();
    let aborted = |fold: &Fold| {
        let partition = fold.state.partition(Slot(0)).unwrap();
        partition.transactions().map_or(0, |transactions| transactions.all_aborted().count())
    };
    assert_eq!((fold.state.partition(Slot(0)).unwrap().end, aborted(&fold), first), (Offset(end), 2, inputs[0]));
    // A piece, and more to come.
    let piece = compaction(&fold, 1, &inputs, &[share(0, start, &[middle])]).with_cleaned(&[cleaned(0)]);
    assert!(matches!(fold.one(piece), Outcome::Compacted { taken: 1, dropped: 0, .. }));
    assert_eq!((fold.state.partition(Slot(0)).unwrap().cleaned, aborted(&fold)), (Offset(0), 2));
    // The rest, but for what had no room.
    let rest = compaction(&fold, 2, &inputs, &[share(0, middle, &[end])]).with_cleaned(&[cleaned(25)]);
    assert!(matches!(fold.one(rest), Outcome::Compacted { taken: 1, dropped: 0, .. }));
    assert_eq!((fold.state.partition(Slot(0)).unwrap().cleaned, aborted(&fold)), (Offset(25), 1));
    // It does not go back.
    let objects: Vec<ObjectId> = fold.state.objects().map(|(id, _)| id).collect();
    let again = compaction(&fold, 3, &objects, &[share(0, start, &[end])]).with_cleaned(&[cleaned(10)]);
    assert!(matches!(fold.one(again), Outcome::Compacted { taken: 1, dropped: 0, .. }));
    assert_eq!(fold.state.partition(Slot(0)).unwrap().cleaned, Offset(25));
}

#[test]
fn log_compaction_by_other_settings_or_below_its_level_is_not_taken() {
    let mut fold = Fold::at(CLEANING_LEVEL);
    let inputs = [fold.flush(&[0, 1])];
    let good = compaction(&fold, 1, &inputs, &[share(0, 0, &[10]), share(1, 0, &[10])]);
    let other = good.clone().with_cleaned(&[CleanedShare { config_version: 7, cleaned: 10 }, cleaned(10)]);
    assert_eq!(fold.one(other), compacted(Some(1), 1, 1));
    let rest = compaction(&fold, 2, &inputs, &[share(0, 0, &[10])]);
    for bad in [&[cleaned(11)][..], &[cleaned(10), cleaned(10)]] {
        assert_eq!(refused(fold.one(rest.clone().with_cleaned(bad))), KafkaError::UnknownServerError);
    }
    let mut old = Fold::new();
    let inputs = [old.flush(&[0])];
    let command = compaction(&old, 1, &inputs, &[share(0, 0, &[10])]).with_cleaned(&[cleaned(10)]);
    assert_eq!(refused(old.one(command)), KafkaError::UnsupportedVersion);
}
