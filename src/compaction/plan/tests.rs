use super::*;
use crate::segment::ObjectName;
use crate::state::{
    BatchSpec, Bootstrap, COMPACTION_LEVEL, Command, CommitCompaction, CommitRuns, CompactedRun, CompactedShare,
    CreateTopic, Entry, RegisterBroker, RunSpec, RunsWriter, Settings,
};
use crate::types::{Head, Position, Uuid};
use bytes::Bytes;

const LIMITS: Limits = Limits { objects: 4, runs: 1000, bytes: 10_000, age_ms: 60_000, rest_ms: 5_000, merged: 2 };

/// Everything is written at this time.
const WRITTEN: i64 = 1_000_000;

struct Fold(State, u64);

impl Fold {
    fn new() -> Self {
        let mut fold = Self(State::default(), 0);
        let settings =
            Settings { topics_max: 10, partitions_max: 100, partitions_per_topic_max: 50, ..Settings::default() };
        fold.apply(Bootstrap { cluster_id: "c".into(), settings }.into());
        fold.apply(RegisterBroker { broker: 1, incarnation: 5, feature_level_max: COMPACTION_LEVEL }.into());
        let id = Bytes::from(Uuid::from_u128(1).as_bytes().to_vec());
        let topic = CreateTopic { name: "t".into(), id, partitions: 3, replication_factor: 1, configs: vec![] };
        fold.apply(topic.into());
        fold
    }

    fn apply(&mut self, command: Command) {
        self.1 += 1;
        let (feature_level, commands) = (COMPACTION_LEVEL, vec![command]);
        let entry = Entry { feature_level, broker: 1, incarnation: 5, counter: self.1, commands, ..Entry::default() };
        self.0.apply(self.0.head().position.next(), &entry);
    }

    /// A flush of `bytes` in all with a run in each of these slots.
    fn flush(&mut self, slots: &[u32], bytes: u32, written_ms: i64) -> &mut Self {
        let mut writer = RunsWriter::default();
        for slot in slots {
            let batches = vec![BatchSpec { bytes: 10, records: 1, producer: None }];
            writer.push(&RunSpec { slot: Slot(*slot), position: 64, max_timestamp: TimestampMs(0), batches });
        }
        let name = ObjectName::data(self.0.head(), u128::from(written_ms.unsigned_abs()) << 80 | u128::from(self.1));
        self.apply(CommitRuns::new(name, bytes, None, writer).into());
        self
    }

    fn due(&self, after_ms: i64) -> Vec<(u8, Vec<u64>)> {
        let due = windows(&self.0, &LIMITS, TimestampMs(WRITTEN + after_ms), &BTreeSet::new());
        due.iter().map(|window| (window.level, window.ids().iter().map(|id| id.0).collect())).collect()
    }
}

#[test]
fn a_job_is_due_by_number_runs_bytes_or_age_and_not_while_its_objects_rest() {
    let mut fold = Fold::new();
    for _ in 0..3 {
        fold.flush(&[0], 100, WRITTEN);
    }
    assert_eq!(fold.due(10_000), []);
    assert_eq!(fold.due(59_999), []);
    assert_eq!(fold.due(60_000), [(1, vec![0, 1, 2])], "by age");
    fold.flush(&[0, 1], 100, WRITTEN).flush(&[0], 100, WRITTEN);
    assert_eq!(fold.due(4_999), []);
    assert_eq!(fold.due(5_000), [(1, vec![0, 1, 2, 3])], "by number");
    let mut fold = Fold::new();
    fold.flush(&[0], 6_000, WRITTEN).flush(&[0], 6_000, WRITTEN).flush(&[0], 30_000, WRITTEN);
    assert_eq!(fold.due(10_000), [(1, vec![0]), (1, vec![1]), (1, vec![2])], "by bytes");
    let few_runs = Limits { runs: 3, ..LIMITS };
    let mut fold = Fold::new();
    fold.flush(&[0, 1, 2], 100, WRITTEN).flush(&[0], 100, WRITTEN);
    let due = windows(&fold.0, &few_runs, TimestampMs(WRITTEN + 10_000), &BTreeSet::new());
    assert_eq!(due.iter().map(Window::name).collect::<Vec<_>>(), ["compaction-1-0"], "by runs");
    assert_eq!(backlog(&fold.0, 0), Backlog { objects: 2, runs: 4, bytes: 200 });
}

#[test]
fn clocks_that_are_ahead_do_not_let_the_backlog_grow() {
    let mut fold = Fold::new();
    for _ in 0..8 {
        fold.flush(&[0], 100, WRITTEN + 1_000_000_000);
    }
    assert_eq!(fold.due(0), []);
    fold.flush(&[0], 100, WRITTEN + 1_000_000_000);
    assert_eq!(fold.due(0), [(1, vec![0, 1, 2, 3]), (1, vec![4, 5, 6, 7])]);
}

#[test]
fn a_bad_input_does_not_hold_up_the_others() {
    let mut fold = Fold::new();
    for _ in 0..5 {
        fold.flush(&[0], 100, WRITTEN);
    }
    let avoided = BTreeSet::from([ObjectId(1)]);
    let due = windows(&fold.0, &LIMITS, TimestampMs(WRITTEN + 10_000), &avoided);
    assert_eq!(due[0].ids(), [0, 2, 3, 4].map(ObjectId));
    let shares = shares(&fold.0, &due[0]);
    let ranges: Vec<_> = shares.iter().map(|s| (s.base_offset().0, s.end_offset().0)).collect();
    assert_eq!(ranges, [(0, 1), (2, 5)], "two stretches of one partition");
}

#[test]
fn what_flushes_became_is_merged_in_turn() {
    let mut fold = Fold::new();
    for n in 0..3 {
        fold.flush(&[0, 1], 100, WRITTEN);
        let name = ObjectName::compacted(Head { position: Position(90), ..Head::default() }, 1 << 90 | n);
        let run = CompactedRun { end_offset: Offset(n as i64 + 1), bytes: 10, max_timestamp: TimestampMs(0) };
        let share = |slot| CompactedShare { slot: Slot(slot), base_offset: Offset(n as i64), runs: vec![run] };
        let input = ObjectId(2 * n as u64);
        let command = CommitCompaction::new(name, 1000, None, (1, &[input]), 64, &[share(0), share(1)]);
        fold.apply(command.into());
    }
    assert_eq!(fold.due(0), [(2, vec![1, 3])], "the third waits for a fourth");
    let window = &windows(&fold.0, &LIMITS, TimestampMs(WRITTEN), &BTreeSet::new())[0];
    let shares = shares(&fold.0, window);
    assert_eq!(
        shares
            .iter()
            .map(|s| (s.slot.0, s.runs.len(), s.runs.iter().map(|run| run.bytes).sum::<u32>()))
            .collect::<Vec<_>>(),
        [(0, 2, 20), (1, 2, 20)]
    );
    let cut = |bytes| {
        let outputs = outputs(shares.clone(), bytes);
        let sizes = |output: &Vec<Share>| output.iter().map(|s| (s.slot.0, s.runs.len())).collect::<Vec<_>>();
        outputs.iter().map(sizes).collect::<Vec<_>>()
    };
    assert_eq!(cut(1000), [vec![(0, 2), (1, 2)]]);
    assert_eq!(cut(20), [vec![(0, 2)], vec![(1, 2)]]);
    assert_eq!(cut(30), [vec![(0, 2), (1, 1)], vec![(1, 1)]]);
    assert_eq!(cut(1), [vec![(0, 1)], vec![(0, 1)], vec![(1, 1)], vec![(1, 1)]]);
}
