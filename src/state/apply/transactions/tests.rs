use bytes::Bytes;

use super::*;
use crate::state::*;
use crate::types::{Sequence, TimestampMs, Uuid};

/// A journal of one broker at the level of transactions, held in a State, with a topic of four partitions in slots 0 to 3.
struct Fold {
    state: State,
    counter: u64,
}

const SETTINGS: Settings = Settings {
    topics_max: 10,
    partitions_max: 100,
    partitions_per_topic_max: 50,
    producers_max: 1000,
    producers_per_partition_max: 8,
    producer_expiration_ms: 1000,
    snapshots_min: 1,
    groups_max: 100,
    group_offsets_max: 20,
    group_bytes_max: 1 << 20,
    fencing_ms: 0,
    transactional_ids_max: 3,
    transaction_partitions_max: 5,
    garbage_grace_ms: 0,
};

impl Fold {
    fn new() -> Self {
        let mut fold = Self { state: State::default(), counter: 0 };
        let found = Bootstrap { cluster_id: "c".into(), settings: SETTINGS };
        let register = RegisterBroker { broker: 1, incarnation: 5, feature_level_max: TRANSACTIONS_LEVEL };
        fold.apply(vec![found.into(), register.into()]);
        assert_eq!(fold.topic("t", 4), Outcome::Done);
        fold
    }

    fn apply(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        self.counter += 1;
        let entry = Entry {
            feature_level: TRANSACTIONS_LEVEL,
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
        self.apply(vec![command.into()]).remove(0)
    }

    fn topic(&mut self, name: &str, partitions: u32) -> Outcome {
        let id = Bytes::from(Uuid::from_u128(u128::from(self.counter) + 1).as_bytes().to_vec());
        self.one(CreateTopic { name: name.into(), id, partitions, replication_factor: 1, configs: vec![] })
    }

    fn init(&mut self, id: &str, exchanged: Option<Producing>) -> Result<Producing, KafkaError> {
        let exchanged = exchanged.map(stamp);
        let outcome = self.one(InitProducer { transactional_id: id.into(), timeout_ms: 10_000, exchanged });
        match outcome {
            Outcome::Producer { producer, .. } => Ok(producer),
            other => Err(error(other)),
        }
    }

    fn add(&mut self, id: &str, producer: Producing, slots: &[u32], groups: &[&str]) -> Outcome {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let (transactional_id, producer) = (id.to_owned(), stamp(producer));
        self.one(AddToTransaction { transactional_id, producer, slots: slots.to_vec(), groups })
    }

    /// With version 2 of transactions.
    fn end(&mut self, id: &str, producer: Producing, commit: bool) -> Result<Producing, KafkaError> {
        self.end_of(id, producer, commit, true)
    }

    fn end_of(&mut self, id: &str, by: Producing, commit: bool, bump: bool) -> Result<Producing, KafkaError> {
        let (transactional_id, producer) = (id.to_owned(), stamp(by));
        match self.one(EndTransaction { transactional_id, producer, commit, bump }) {
            Outcome::Producer { producer, .. } => Ok(producer),
            other => Err(error(other)),
        }
    }

    /// One batch of `records`, in a transaction that its partition joins.
    fn send(&mut self, slot: u32, producer: Producing, first: i32, records: u32) -> BatchOutcome {
        self.write(slot, Some(spec(producer, first, true, true)), records)
    }

    /// As above, into a partition that was added before.
    fn send_added(&mut self, slot: u32, producer: Producing, first: i32, records: u32) -> BatchOutcome {
        self.write(slot, Some(spec(producer, first, true, false)), records)
    }

    fn write(&mut self, slot: u32, producer: Option<ProducerSpec>, records: u32) -> BatchOutcome {
        let batches = vec![BatchSpec { bytes: 100, records, producer }];
        let mut writer = RunsWriter::default();
        writer.push(&RunSpec { slot: Slot(slot), position: 64, max_timestamp: TimestampMs(7), batches });
        let (base_timestamp, runs) = writer.finish();
        let ulid = Bytes::from(u128::from(self.counter).to_be_bytes().to_vec());
        let command = CommitRuns {
            ulid,
            object_bytes: 1 << 20,
            base_timestamp,
            runs: runs.into(),
            applied_position: self.state.head().position.0,
            ..Default::default()
        };
        match self.one(command) {
            Outcome::Batches { batches, .. } => batches[0],
            other => panic!("{other:?}"),
        }
    }

    fn offsets(&mut self, id: &str, producer: Producing, joins: bool, offsets: &[(u32, i64)]) -> OffsetsOutcome {
        let transaction = OffsetsTransaction { transactional_id: id.into(), producer: stamp(producer), joins };
        let spec = |&(slot, offset)| OffsetSpec { slot, offset, leader_epoch: -1, metadata: "m".into() };
        let request = GroupOffsets {
            group: "g".into(),
            offsets: offsets.iter().map(spec).collect(),
            transaction: Some(transaction),
            ..GroupOffsets::default()
        };
        match self.one(CommitOffsets { groups: vec![request] }) {
            Outcome::Offsets(mut each) => each.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn committed(&self, slot: u32) -> Option<i64> {
        self.state.group("g").and_then(|g| g.offsets.get(&Slot(slot))).map(|c| c.offset.0)
    }

    fn ends(&self, slot: u32) -> (i64, i64) {
        let partition = self.state.partition(Slot(slot)).unwrap();
        (partition.last_stable().0, partition.end.0)
    }

    fn aborted(&self, slot: u32, from: i64, until: i64) -> Vec<(i64, i64)> {
        let partition = self.state.partition(Slot(slot)).unwrap();
        let all = partition.transactions().into_iter().flat_map(|t| t.aborted(Offset(from), Offset(until)));
        all.map(|aborted| (aborted.producer.0, aborted.first.0)).collect()
    }

    /// A State that was read from this one's snapshot is the same, and knows the same.
    fn check_snapshot(&self) {
        let (header, bytes) = self.state.encode_snapshot();
        let (read, state) = State::decode_snapshot(&bytes).unwrap();
        assert_eq!((read, state.encode_snapshot().1), (header, bytes));
        assert_eq!(state.pending, self.state.pending);
        assert_eq!(state.pending_offsets, self.state.pending_offsets);
        assert_eq!(state.transactional_ids, self.state.transactional_ids);
        assert_eq!(state.run_count(), self.state.run_count());
        for slot in 0..4 {
            let of = |state: &State| {
                let partition = state.partition(Slot(slot))?;
                Some((partition.last_stable(), partition.open_transactions().collect::<Vec<_>>(), partition.bytes))
            };
            assert_eq!(of(&state), of(&self.state));
        }
    }
}

fn error(outcome: Outcome) -> KafkaError {
    match outcome {
        Outcome::Refused(refusal) => refusal.error,
        other => panic!("not refused: {other:?}"),
    }
}

fn stamp(producer: Producing) -> ProducerStamp {
    ProducerStamp { id: producer.id.0, epoch: i32::from(producer.epoch.0) }
}

fn spec(producer: Producing, first: i32, transactional: bool, joins: bool) -> ProducerSpec {
    ProducerSpec { id: producer.id, epoch: producer.epoch, first_sequence: Sequence(first), transactional, joins }
}

fn at(base_offset: i64) -> BatchOutcome {
    BatchOutcome::Accepted { base_offset: Offset(base_offset) }
}

fn refused_with(error: KafkaError) -> BatchOutcome {
    BatchOutcome::Refused { error }
}

fn next_epoch(producer: Producing) -> Producing {
    Producing { epoch: ProducerEpoch(producer.epoch.0 + 1), ..producer }
}

#[test]
fn a_transaction_is_seen_when_it_has_ended_in_all_partitions_at_once() {
    let mut fold = Fold::new();
    let first = fold.init("x", None).unwrap();
    assert_eq!(first, Producing { id: ProducerId(0), epoch: ProducerEpoch(0) });
    assert_eq!(fold.send(0, first, 0, 3), at(0));
    assert_eq!(fold.send(0, first, 3, 2), at(3));
    assert_eq!(fold.send(1, first, 0, 1), at(0));
    assert_eq!((fold.ends(0), fold.ends(1), fold.ends(2)), ((0, 5), (0, 1), (0, 0)));
    fold.check_snapshot();
    let second = fold.end("x", first, true).unwrap();
    assert_eq!(second, next_epoch(first));
    assert_eq!((fold.ends(0), fold.ends(1), fold.ends(2)), ((6, 6), (2, 2), (0, 0)));
    let runs: Vec<Run> = fold.state.partition(Slot(0)).unwrap().tail.iter().collect();
    let marker = Marker { producer: first.id, epoch: second.epoch, committed: true };
    assert_eq!((runs.len(), runs[2].marker, runs[2].base_offset), (3, Some(marker), Offset(5)));
    assert!(fold.aborted(0, 0, 6).is_empty());
    fold.check_snapshot();
}

#[test]
fn a_deleted_topic_takes_its_part_of_a_transaction_along() {
    let mut fold = Fold::new();
    assert_eq!(fold.topic("gone", 1), Outcome::Done);
    let x = fold.init("x", None).unwrap();
    assert_eq!((fold.send(4, x, 0, 1), fold.send(0, x, 0, 1)), (at(0), at(0)));
    let topic_id = Bytes::copy_from_slice(fold.state.topic_by_name("gone").unwrap().id.0.as_bytes());
    assert_eq!(fold.one(DeleteTopic { topic_id }), Outcome::Done);
    fold.check_snapshot();
    fold.end("x", x, true).unwrap();
    assert_eq!(fold.ends(0), (2, 2));
    fold.check_snapshot();
}

#[test]
fn records_can_be_deleted_below_an_open_transaction_and_within_it() {
    let mut fold = Fold::new();
    let x = fold.init("x", None).unwrap();
    fold.send(0, x, 0, 5);
    let y = fold.init("y", None).unwrap();
    fold.send(0, y, 0, 5);
    let y = fold.end("y", y, false).unwrap();
    assert_eq!((fold.ends(0), fold.aborted(0, 0, 11)), ((0, 11), vec![(1, 5)]));
    fold.one(DeleteRecords { slot: 0, offset: 7 });
    assert_eq!((fold.ends(0), fold.aborted(0, 7, 11)), ((7, 11), vec![(1, 5)]));
    fold.one(DeleteRecords { slot: 0, offset: 11 });
    assert_eq!((fold.ends(0), fold.aborted(0, 0, 11)), ((11, 11), vec![]));
    fold.end("x", x, false).unwrap();
    assert_eq!((fold.ends(0), fold.aborted(0, 0, 12)), ((12, 12), vec![(0, 0)]));
    fold.send(0, y, 0, 1);
    fold.check_snapshot();
}

/// The first batches of an epoch are judged as Kafka 4.3 does; what is sent again gets its old offset.
#[test]
fn k1_k4_sequences_begin_anew_with_each_transaction() {
    let mut fold = Fold::new();
    let x = fold.init("x", None).unwrap();
    assert_eq!(
        fold.send(0, x, 5, 1),
        refused_with(KafkaError::OutOfOrderSequenceNumber),
        "a first one before it is lost"
    );
    assert_eq!(fold.send(0, x, 0, 2), at(0));
    assert_eq!(fold.send(0, x, 0, 2), BatchOutcome::Duplicate { base_offset: Offset(0) });
    assert_eq!(fold.send(0, x, 3, 1), refused_with(KafkaError::OutOfOrderSequenceNumber));
    assert_eq!(fold.send(0, x, 2, 1), at(2));
    let next = fold.end("x", x, true).unwrap();
    assert_eq!(fold.send(0, next, 3, 1), refused_with(KafkaError::OutOfOrderSequenceNumber));
    assert_eq!(fold.send(0, next, 0, 2), at(4));
}

#[test]
fn k4_a_producer_in_a_transaction_is_not_forgotten() {
    let mut fold = Fold::new();
    let x = fold.init("x", None).unwrap();
    assert_eq!(fold.send(0, x, 0, 2), at(0));
    let last_used = fold.state.producer(Slot(0), x.id).unwrap().last_used.0;
    let producers = vec![ExpiredProducer { slot: 0, id: x.id.0, last_used }];
    fold.one(ExpireProducers { producers: producers.clone() });
    for other in 0..20 {
        let producer = Producing { id: ProducerId(100 + other), epoch: ProducerEpoch(0) };
        fold.write(0, Some(spec(producer, 0, false, false)), 1);
    }
    assert!(fold.state.producer(Slot(0), x.id).is_some());
    fold.end("x", x, true).unwrap();
    fold.one(ExpireProducers { producers });
    assert!(fold.state.producer(Slot(0), x.id).is_none());
}

#[test]
fn k5_the_last_epoch_of_a_producer_id_is_followed_by_another_id() {
    let mut fold = Fold::new();
    let x = fold.init("x", None).unwrap();
    let near = |fold: &mut Fold, epoch| {
        let known = fold.state.transactional.get_mut("x").map(Arc::make_mut).unwrap();
        known.producer.epoch = ProducerEpoch(epoch);
        known.producer
    };
    let last = near(&mut fold, i16::MAX - 1);
    assert_eq!(fold.send(0, last, 0, 1), at(0));
    let next = fold.end("x", last, true).unwrap();
    assert_eq!((next.epoch, next.id > x.id), (ProducerEpoch(0), true));
    let marker = fold.state.partition(Slot(0)).unwrap().tail.iter().last().unwrap().marker.unwrap();
    assert_eq!((marker.producer, marker.epoch), (x.id, ProducerEpoch(i16::MAX)));
    assert_eq!(fold.end("x", last, true), Ok(next), "asked again");
    assert_eq!(fold.send(0, last, 1, 1), refused_with(KafkaError::InvalidProducerIdMapping));
    assert_eq!(fold.send(0, next, 0, 1), at(2));
    // By InitProducerId with a transaction open, and with none.
    let last = near(&mut fold, i16::MAX - 1);
    let after = fold.init("x", Some(last)).unwrap();
    assert_eq!((after.epoch, after.id > next.id), (ProducerEpoch(0), true));
    assert_eq!(fold.init("x", Some(last)), Ok(after), "asked again");
    assert_eq!(fold.ends(0), (4, 4));
    fold.check_snapshot();
}

#[test]
fn k6_a_new_instance_fences_the_old_one_and_aborts_its_transaction() {
    let mut fold = Fold::new();
    let old = fold.init("x", None).unwrap();
    assert_eq!(fold.send(0, old, 0, 2), at(0));
    let new = fold.init("x", None).unwrap();
    assert_eq!(new, next_epoch(old));
    assert_eq!((fold.ends(0), fold.aborted(0, 0, 3)), ((3, 3), vec![(old.id.0, 0)]));
    assert_eq!(fold.send(0, old, 2, 1), refused_with(KafkaError::InvalidProducerEpoch));
    assert_eq!(fold.send(1, old, 0, 1), refused_with(KafkaError::InvalidProducerEpoch), "where it never wrote");
    assert_eq!(error(fold.add("x", old, &[0], &[])), KafkaError::ProducerFenced);
    assert_eq!(fold.end("x", old, true), Err(KafkaError::ProducerFenced));
    assert_eq!(fold.end("x", old, false), Err(KafkaError::ProducerFenced));
    assert_eq!(fold.init("x", Some(old)), Err(KafkaError::ProducerFenced));
    let refused = OffsetsOutcome::Refused { error: KafkaError::InvalidProducerEpoch };
    assert_eq!(fold.offsets("x", old, true, &[(0, 1)]), refused);
    assert_eq!(fold.send(0, new, 0, 1), at(3));
    let other = Producing { id: ProducerId(99), ..new };
    assert_eq!(fold.init("x", Some(other)), Err(KafkaError::ProducerFenced), "and the open transaction stays");
    assert_eq!(fold.ends(0), (3, 4));
    assert_eq!(fold.end("x", other, true), Err(KafkaError::InvalidProducerIdMapping));
    assert_eq!(fold.end("unknown", new, true), Err(KafkaError::InvalidProducerIdMapping));
    fold.end("x", new, true).unwrap();
    assert_eq!(fold.ends(0), (5, 5));
    fold.check_snapshot();
}

#[test]
fn k6_an_epoch_is_exchanged_once_and_told_again() {
    let mut fold = Fold::new();
    let first = fold.init("x", None).unwrap();
    let second = fold.init("x", Some(first)).unwrap();
    assert_eq!(second, next_epoch(first));
    assert_eq!(fold.init("x", Some(first)), Ok(second), "its answer was lost");
    assert_eq!(fold.init("x", Some(second)), Ok(next_epoch(second)));
    assert_eq!(fold.init("x", Some(first)), Err(KafkaError::ProducerFenced));
    // One whose transactional id has expired.
    let new = fold.init("y", Some(first)).unwrap();
    assert_eq!(new, Producing { id: ProducerId(1), epoch: ProducerEpoch(0) });
    assert_eq!(fold.init("y", Some(first)), Ok(new));
    fold.check_snapshot();
}

#[test]
fn k7_what_is_late_does_not_join_the_next_transaction() {
    let mut fold = Fold::new();
    let first = fold.init("x", None).unwrap();
    assert_eq!(fold.send(0, first, 0, 1), at(0));
    let second = fold.end("x", first, false).unwrap();
    assert_eq!(fold.send(0, first, 1, 1), refused_with(KafkaError::InvalidProducerEpoch), "before the next begins");
    assert_eq!(fold.send(0, second, 0, 1), at(2));
    assert_eq!(fold.send(0, first, 1, 1), refused_with(KafkaError::InvalidProducerEpoch), "and after");
    // The client never had the answer. It gets the same, and the transaction that is open now stays so.
    assert_eq!(fold.end("x", first, false), Ok(second));
    assert_eq!(fold.end("x", first, true), Err(KafkaError::ProducerFenced));
    assert_eq!(fold.ends(0), (2, 3));
    fold.check_snapshot();
    let third = fold.end("x", second, true).unwrap();
    assert_eq!((fold.end("x", second, true), fold.ends(0)), (Ok(third), (4, 4)));
    // What was aborted before it had a record: the record that was on its way is fenced.
    let fourth = fold.end("x", third, false).unwrap();
    assert_eq!(fold.send(0, third, 0, 1), refused_with(KafkaError::InvalidProducerEpoch));
    assert_eq!(fold.end("x", fourth, true), Err(KafkaError::InvalidTxnState), "there is nothing to commit");
}

#[test]
fn k8_with_version_1_a_partition_is_added_before_records_come() {
    let mut fold = Fold::new();
    let x = fold.init("x", None).unwrap();
    assert_eq!(fold.send_added(0, x, 0, 1), refused_with(KafkaError::InvalidTxnState));
    assert_eq!(fold.end_of("x", x, true, false), Err(KafkaError::InvalidTxnState));
    assert_eq!(fold.end_of("x", x, false, false), Err(KafkaError::InvalidTxnState));
    assert_eq!(fold.add("x", x, &[0, 1], &[]), Outcome::Done);
    assert_eq!(fold.send_added(0, x, 0, 1), at(0));
    assert_eq!(fold.send_added(2, x, 0, 1), refused_with(KafkaError::InvalidTxnState));
    assert_eq!(fold.end_of("x", x, false, false), Ok(x), "the epoch stays");
    assert_eq!(fold.end_of("x", x, false, false), Ok(x), "asked again");
    assert_eq!(fold.end_of("x", x, true, false), Err(KafkaError::InvalidTxnState));
    assert_eq!((fold.ends(0), fold.ends(1)), ((2, 2), (0, 0)));
    assert_eq!(fold.send_added(0, x, 1, 1), refused_with(KafkaError::InvalidTxnState), "it was not added again");
    assert_eq!(fold.send_added(0, x, 0, 1), BatchOutcome::Duplicate { base_offset: Offset(0) });
    assert_eq!(fold.add("x", x, &[0], &[]), Outcome::Done);
    assert_eq!(fold.send_added(0, x, 1, 1), at(2));
    assert_eq!(fold.end_of("x", x, true, false), Ok(x));
    assert_eq!((fold.ends(0), fold.aborted(0, 0, 4)), ((4, 4), vec![(0, 0)]));
    assert_eq!(error(fold.add("x", x, &[77], &[])), KafkaError::UnknownTopicOrPartition);
    fold.check_snapshot();
}

#[test]
fn k9_the_last_stable_offset_is_where_the_oldest_open_transaction_begins() {
    let mut fold = Fold::new();
    let (x, y) = (fold.init("x", None).unwrap(), fold.init("y", None).unwrap());
    fold.write(0, None, 2);
    assert_eq!(fold.ends(0), (2, 2));
    assert_eq!((fold.send(0, x, 0, 1), fold.send(0, y, 0, 1)), (at(2), at(3)));
    fold.write(0, None, 1);
    assert_eq!(fold.ends(0), (2, 5));
    fold.end("x", x, true).unwrap();
    assert_eq!(fold.ends(0), (3, 6));
    // Nobody ends it but time.
    let since = fold.state.transactional_producer("y").unwrap().open.as_ref().unwrap().since.0;
    let abort = |since| AbortTransaction { transactional_id: "y".into(), producer: stamp(y), since };
    assert_eq!(error(fold.one(abort(since + 1))), KafkaError::InvalidTxnState, "it is another one that timed out");
    let fenced = Outcome::Producer { producer: next_epoch(y), grown: vec![Slot(0)] };
    assert_eq!(fold.one(abort(since)), fenced);
    assert_eq!(error(fold.one(abort(since))), KafkaError::ProducerFenced);
    assert_eq!(fold.ends(0), (7, 7));
    assert_eq!(fold.end("y", y, true), Err(KafkaError::ProducerFenced));
    assert_eq!(fold.end("y", y, false), Err(KafkaError::ProducerFenced));
    assert_eq!(fold.state.transactional_producer("y").unwrap().state_name(), "CompleteAbort");
    fold.check_snapshot();
}

#[test]
fn k11_every_aborted_transaction_that_overlaps_is_listed() {
    let mut fold = Fold::new();
    let mut producers: Vec<Producing> = ["x", "y", "z"].map(|id| fold.init(id, None).unwrap()).to_vec();
    let mut open: Vec<Option<i64>> = vec![None; 3];
    let mut sequences = [0; 3];
    let mut aborted: Vec<(i64, i64, i64)> = Vec::new();
    // A fixed course in which transactions overlap in all ways.
    let mut chance = 12_345_u32;
    for _ in 0..300 {
        chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (who, what) = ((chance >> 16) as usize % 3, (chance >> 24) % 4);
        let id = ["x", "y", "z"][who];
        let end = fold.ends(0).1;
        if what < 2 {
            assert_eq!(fold.send(0, producers[who], sequences[who], 2), at(end));
            sequences[who] += 2;
            open[who].get_or_insert(end);
        } else if let Some(first) = open[who].take() {
            if what == 2 {
                aborted.push((producers[who].id.0, first, end));
            }
            producers[who] = fold.end(id, producers[who], what == 3).unwrap();
            sequences[who] = 0;
        }
        let stable = open.iter().flatten().min().copied().unwrap_or(fold.ends(0).1);
        assert_eq!(fold.ends(0).0, stable);
    }
    fold.check_snapshot();
    let end = fold.ends(0).1;
    assert!(aborted.len() > 10);
    for from in 0..end {
        for until in from + 1..=end {
            let overlap = |(_, first, last): &&(i64, i64, i64)| *last >= from && *first < until;
            let expected: Vec<(i64, i64)> =
                aborted.iter().filter(overlap).map(|(id, first, _)| (*id, *first)).collect();
            assert_eq!(fold.aborted(0, from, until), expected, "{from}..{until}");
        }
    }
}

#[test]
fn k12_a_marker_fences_and_stands_behind_the_data() {
    let mut fold = Fold::new();
    let x = fold.init("x", None).unwrap();
    fold.send(0, x, 0, 1);
    let commands: Vec<Command> = vec![
        EndTransaction { transactional_id: "x".into(), producer: stamp(x), commit: true, bump: true }.into(),
        EndTransaction { transactional_id: "x".into(), producer: stamp(x), commit: true, bump: true }.into(),
    ];
    let again = Outcome::Producer { producer: next_epoch(x), grown: vec![] };
    assert_eq!(fold.apply(commands), [Outcome::Producer { producer: next_epoch(x), grown: vec![Slot(0)] }, again]);
    assert_eq!(fold.ends(0), (2, 2), "one marker");
    assert_eq!(fold.write(0, Some(spec(next_epoch(x), 0, false, false)), 1), refused_with(KafkaError::InvalidTxnState));
    let idempotent = Producing { id: ProducerId(500), epoch: ProducerEpoch(0) };
    let mapping = KafkaError::InvalidProducerIdMapping;
    assert_eq!(fold.send(0, idempotent, 0, 1), refused_with(mapping));
    assert_eq!(fold.write(0, Some(spec(idempotent, 0, false, false)), 1), at(2));
}

#[test]
fn k13_offsets_are_committed_with_the_transaction_or_not_at_all() {
    let mut fold = Fold::new();
    let x = fold.init("x", None).unwrap();
    let refused = OffsetsOutcome::Refused { error: KafkaError::InvalidTxnState };
    assert_eq!(fold.offsets("x", x, false, &[(0, 5)]), refused, "the group was not added");
    let committed = OffsetsOutcome::Committed { deleted: vec![Slot(99)] };
    assert_eq!(fold.offsets("x", x, true, &[(0, 5), (1, 6), (99, 1)]), committed);
    assert_eq!(fold.offsets("x", x, true, &[(0, 7)]), OffsetsOutcome::Committed { deleted: vec![] });
    assert_eq!((fold.committed(0), fold.state.pending), (None, 2));
    assert!(fold.state.has_pending_offset("g", Slot(1)) && !fold.state.has_pending_offset("g", Slot(2)));
    fold.check_snapshot();
    let next = fold.end("x", x, true).unwrap();
    assert_eq!((fold.committed(0), fold.committed(1), fold.state.pending), (Some(7), Some(6), 0));
    assert_eq!(fold.state.group_offset_count(), 2);
    assert_eq!(fold.add("x", next, &[], &["g"]), Outcome::Done);
    assert_eq!(fold.offsets("x", next, false, &[(0, 100)]), OffsetsOutcome::Committed { deleted: vec![] });
    let delete = DeleteGroup { group: "g".into(), from_version: 0 };
    assert_eq!(error(fold.one(delete.clone())), KafkaError::NonEmptyGroup, "its expiry would lose what is staged");
    fold.end("x", next, false).unwrap();
    assert_eq!((fold.committed(0), fold.state.has_pending_offsets("g")), (Some(7), false));
    assert_eq!(fold.one(delete), Outcome::Done);
    fold.check_snapshot();
}

#[test]
fn what_a_client_can_make_state_hold_is_limited() {
    let mut fold = Fold::new();
    let x = fold.init("x", None).unwrap();
    fold.init("y", None).unwrap();
    fold.init("z", None).unwrap();
    assert_eq!(fold.init("one too many", None), Err(KafkaError::PolicyViolation));
    assert!(fold.init("x", Some(x)).is_ok(), "one that is known");
    let x = next_epoch(x);
    assert_eq!(fold.add("x", x, &[0, 1, 2], &["g"]), Outcome::Done);
    assert_eq!(fold.add("x", x, &[0, 1, 2], &["g"]), Outcome::Done, "nothing new");
    assert_eq!(fold.offsets("x", x, true, &[(0, 1)]), OffsetsOutcome::Committed { deleted: vec![] });
    assert_eq!(error(fold.add("x", x, &[3], &[])), KafkaError::PolicyViolation);
    assert_eq!(fold.send(3, x, 0, 1), refused_with(KafkaError::PolicyViolation));
    let full = OffsetsOutcome::Refused { error: KafkaError::InvalidCommitOffsetSize };
    assert_eq!(fold.offsets("x", x, true, &[(1, 1)]), full);
    assert_eq!(fold.offsets("x", x, true, &[(0, 2)]), OffsetsOutcome::Committed { deleted: vec![] });
    let last_used = |fold: &Fold, id: &str| fold.state.transactional_producer(id).unwrap().last_used.0;
    let ids = ["x", "y"].map(|id| ExpiredTransactionalId { id: id.into(), last_used: last_used(&fold, id) }).to_vec();
    fold.one(ExpireTransactionalIds { ids });
    assert!(fold.state.transactional_producer("x").is_some(), "its transaction is open");
    assert!(fold.state.transactional_producer("y").is_none());
    let ids = vec![ExpiredTransactionalId { id: "z".into(), last_used: 1 }];
    fold.one(ExpireTransactionalIds { ids });
    assert!(fold.state.transactional_producer("z").is_some(), "it was used since");
}

#[test]
fn below_the_feature_level_there_are_none() {
    let mut fold = Fold::new();
    fold.state.feature_level = 3;
    assert_eq!(fold.init("x", None), Err(KafkaError::UnsupportedVersion));
    let nobody = Producing { id: ProducerId(0), epoch: ProducerEpoch(0) };
    assert_eq!(error(fold.add("x", nobody, &[0], &[])), KafkaError::UnsupportedVersion);
    assert_eq!(fold.end("x", nobody, true), Err(KafkaError::InvalidProducerIdMapping));
}
