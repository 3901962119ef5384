use super::*;
use crate::records::{BatchBuilder, Batches, NewRecord};
use crate::segment::{ObjectName, read_footer};
use crate::types::{Head, Incarnation, ProducerEpoch, ProducerId, Uuid};

const TOPIC: TopicId = TopicId(Uuid::from_u128(7));

fn batch(records: usize, value: &[u8], timestamp: i64) -> Bytes {
    let record = NewRecord { value: Some(value), timestamp: TimestampMs(timestamp), ..NewRecord::default() };
    (0..records).fold(BatchBuilder::new(), |b, _| b.with(&record)).base_offset(Offset(-5)).build().unwrap()
}

/// An object of batches of one partition, and a run of each `lens` of them.
fn flush(id: u64, base: i64, batches: &[Bytes]) -> (Run, (ObjectId, Input)) {
    let content = Bytes::from(batches.concat());
    let records: usize =
        batches.iter().map(|b| Batches::new(b.clone()).next().unwrap().unwrap().header.count as usize).sum();
    let run = Run {
        base_offset: Offset(base),
        end_offset: Offset(base + records as i64),
        object: ObjectId(id),
        position: 64,
        bytes: content.len() as u32,
        max_timestamp: TimestampMs(0),
        marker: None,
    };
    (run, (ObjectId(id), input(64, content, false)))
}

fn input(position: u32, content: Bytes, is_final: bool) -> Input {
    Input { is_final, stretches: BTreeMap::from([(position, Arc::new(CachedObject::apart(position, content)))]) }
}

fn marker(offset: i64, committed: bool) -> Run {
    let marker = Marker { producer: ProducerId(9), epoch: ProducerEpoch(1), committed };
    Run {
        base_offset: Offset(offset),
        end_offset: Offset(offset + 1),
        object: ObjectId(u64::MAX),
        position: 0,
        bytes: crate::records::MARKER_BYTES,
        max_timestamp: TimestampMs(99),
        marker: Some(marker),
    }
}

fn merged(shares: &[Share], inputs: &BTreeMap<ObjectId, Input>) -> Result<Merged, MergeError> {
    let header = ObjectHeader {
        name: ObjectName::compacted(Head::default(), 5),
        incarnation: Incarnation(1),
        written_ms: TimestampMs(0),
    };
    let partitions = BTreeMap::from([(Slot(3), (TOPIC, PartitionIndex(0))), (Slot(4), (TOPIC, PartitionIndex(1)))]);
    merge(
        &header,
        shares,
        inputs,
        &Names { partitions: &partitions, epochs: &RecordEpochs::default() },
        &mut Sieves::new(),
    )
}

/// The batches of an object from its header on: offsets, and the bytes that a checksum covers.
fn read(object: &[u8], shares: &[CompactedShare]) -> Vec<(i64, i64, Bytes)> {
    let bytes: u64 = shares.iter().map(CompactedShare::bytes).sum();
    let content = Bytes::copy_from_slice(&object[64..64 + bytes as usize]);
    let batches = Batches::new(content).map(Result::unwrap);
    batches.map(|b| (b.header.base_offset.0, b.header.last_offset().0 + 1, b.bytes.slice(21..))).collect()
}

#[test]
fn flushes_become_one_with_final_headers_and_a_merge_of_these_changes_nothing() {
    let (first, one) = flush(1, 10, &[batch(3, b"a", 50), batch(1, b"bb", 70)]);
    let (second, two) = flush(2, 15, &[batch(2, b"c", 60)]);
    let (third, three) = flush(3, 0, &[batch(5, b"d", -1)]);
    let shares = [
        Share { slot: Slot(3), runs: vec![first, marker(14, false), second] },
        Share { slot: Slot(4), runs: vec![third] },
    ];
    let made = merged(&shares, &BTreeMap::from([one, two, three])).unwrap();
    let object = made.body.concat();
    assert_eq!(object.len(), made.bytes as usize);
    let (header, rows) = read_footer(&object).unwrap();
    assert_eq!((header.name.kind, rows.len()), (crate::segment::ObjectKind::Compacted, 2));
    let found = read(&object, &made.shares);
    let offsets: Vec<_> = found.iter().map(|(base, end, _)| (*base, *end)).collect();
    assert_eq!(offsets, [(10, 13), (13, 14), (14, 15), (15, 17), (0, 5)]);
    assert_eq!(found[0].2, batch(3, b"a", 50).slice(21..));
    let runs: Vec<_> = made.shares.iter().map(|s| (s.base_offset.0, s.runs.len(), s.end_offset().0)).collect();
    assert_eq!(runs, [(10, 1, 17), (0, 1, 5)]);
    assert_eq!(made.shares[0].runs[0].max_timestamp, TimestampMs(70), "markers do not count");

    // The second level takes the stretches as they are.
    let run = |share: &CompactedShare, position| Run {
        base_offset: share.base_offset,
        end_offset: share.end_offset(),
        object: ObjectId(8),
        position,
        bytes: share.bytes() as u32,
        max_timestamp: TimestampMs(0),
        marker: None,
    };
    let shares = [
        Share { slot: Slot(3), runs: vec![run(&made.shares[0], 64)] },
        Share { slot: Slot(4), runs: vec![run(&made.shares[1], rows[1].position)] },
    ];
    let inputs = BTreeMap::from([(ObjectId(8), input(64, Bytes::from(object[64..].to_vec()), true))]);
    let again = merged(&shares, &inputs).unwrap();
    assert_eq!(again.body.concat(), object);
    assert_eq!(again.body.len(), 4, "header, a slice for each run, footer");
}

#[test]
fn runs_are_cut_at_about_a_mebibyte() {
    let large = batch(1, &vec![1; 400_000], 0);
    let (first, one) = flush(1, 0, &vec![large.clone(); 5]);
    let (second, two) = flush(2, 5, &[batch(1, &vec![1; 3 << 20], 0), large]);
    let made = merged(&[Share { slot: Slot(3), runs: vec![first, second] }], &BTreeMap::from([one, two])).unwrap();
    let ends: Vec<i64> = made.shares[0].runs.iter().map(|run| run.end_offset.0).collect();
    assert_eq!(ends, [2, 4, 5, 6, 7]);
    assert_eq!(read_footer(&made.body.concat()).unwrap().1.len(), 5);
}

#[test]
fn whatever_is_lost_twice_there_or_damaged_gives_up_the_job() {
    let share = |runs: Vec<Run>| [Share { slot: Slot(3), runs }];
    let fails = |runs: Vec<Run>, inputs: Vec<(ObjectId, Input)>| {
        let error = merged(&share(runs), &inputs.into_iter().collect()).err().unwrap();
        (error.object.map(|object| object.0), error.reason)
    };
    let ten = || flush(1, 0, &[batch(10, b"x", 0)]);
    let next = |base| flush(2, base, &[batch(10, b"y", 0)]);
    let gap = "the offsets of its batches do not follow each other";
    let ((a, one), (b, two)) = (ten(), next(11));
    assert_eq!(fails(vec![a, b], vec![one, two]), (Some(2), gap));
    let ((a, one), (b, two)) = (ten(), next(9));
    assert_eq!(fails(vec![a, b], vec![one, two]), (Some(2), gap));
    let ((a, one), m) = (ten(), marker(12, true));
    assert_eq!(fails(vec![a, m], vec![one]), (None, gap));
    let (mut a, one) = ten();
    a.end_offset = Offset(11);
    assert_eq!(fails(vec![a], vec![one]), (Some(1), "a run has other offsets than its batches"));
    let (a, _) = ten();
    assert_eq!(fails(vec![a], vec![]), (Some(1), "an input was not read"));
    let mut damaged = batch(10, b"x", 0).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let (a, one) = flush(1, 0, &[damaged.into()]);
    assert_eq!(fails(vec![a], vec![one]), (Some(1), "a batch's checksum does not hold"));
    let (mut a, one) = ten();
    a.bytes += 10;
    assert_eq!(fails(vec![a], vec![one]), (Some(1), "an input is shorter than its runs"));
}

#[test]
fn gaps_that_log_compaction_left_stay_before_their_batches() {
    let at = |base: i64| {
        let record = NewRecord { value: Some(b"v"), ..NewRecord::default() };
        BatchBuilder::new()
            .base_offset(Offset(base))
            .leader_epoch(LeaderEpoch(0))
            .with(&record)
            .with(&record)
            .build()
            .unwrap()
    };
    let content = Bytes::from([at(12), at(18)].concat());
    let run = |end: i64| Run {
        base_offset: Offset(10),
        end_offset: Offset(end),
        object: ObjectId(8),
        position: 64,
        bytes: content.len() as u32,
        max_timestamp: TimestampMs(0),
        marker: None,
    };
    let inputs = || BTreeMap::from([(ObjectId(8), input(64, content.clone(), true))]);
    let made = merged(&[Share { slot: Slot(3), runs: vec![run(20)] }], &inputs()).unwrap();
    let found = read(&made.body.concat(), &made.shares);
    assert_eq!(found.iter().map(|(base, end, _)| (*base, *end)).collect::<Vec<_>>(), [(12, 14), (18, 20)]);
    assert_eq!((made.shares[0].base_offset, made.shares[0].end_offset()), (Offset(10), Offset(20)));
    let lost = merged(&[Share { slot: Slot(3), runs: vec![run(21)] }], &inputs());
    assert_eq!(lost.err().unwrap().reason, "a run has other offsets than its batches");
}
