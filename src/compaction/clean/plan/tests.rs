use super::*;
use crate::segment::ObjectName;
use crate::state::{
    BatchSpec, Bootstrap, CLEANING_LEVEL, CleanedShare, Command, CommitCompaction, CommitRuns, CompactedRun,
    CompactedShare, ConfigChange, CreateTopic, Entry, RegisterBroker, RunSpec, RunsWriter, Settings,
};
use crate::types::Uuid;
use bytes::Bytes;

/// Everything is written at this time.
const WRITTEN: i64 = 1_000_000;

struct Fold(State, u64);

impl Fold {
    /// A compacted topic of two partitions.
    fn new(configs: &[(&str, &str)]) -> Self {
        let mut fold = Self(State::default(), 0);
        let settings =
            Settings { topics_max: 10, partitions_max: 100, partitions_per_topic_max: 50, ..Settings::default() };
        fold.apply(Bootstrap { cluster_id: "c".into(), settings }.into());
        fold.apply(RegisterBroker { broker: 1, incarnation: 5, feature_level_max: CLEANING_LEVEL }.into());
        let id = Bytes::from(Uuid::from_u128(1).as_bytes().to_vec());
        let config =
            |(name, value): &(&str, &str)| ConfigChange { name: (*name).to_owned(), value: Some((*value).to_owned()) };
        let configs = configs.iter().map(config).collect();
        fold.apply(CreateTopic { name: "t".into(), id, partitions: 2, replication_factor: 1, configs }.into());
        fold
    }

    fn apply(&mut self, command: Command) {
        self.1 += 1;
        let (feature_level, commands) = (CLEANING_LEVEL, vec![command]);
        let entry = Entry { feature_level, broker: 1, incarnation: 5, counter: self.1, commands, ..Entry::default() };
        self.0.apply(self.0.head().position.next(), &entry);
    }

    fn end(&self, slot: u32) -> i64 {
        self.0.partition(Slot(slot)).unwrap().end.0
    }

    /// A record in this slot.
    fn flush(&mut self, slot: u32) {
        let mut writer = RunsWriter::default();
        let batches = vec![BatchSpec { bytes: 100, records: 1, producer: None }];
        writer.push(&RunSpec { slot: Slot(slot), position: 64, max_timestamp: TimestampMs(WRITTEN), batches });
        let name = ObjectName::data(self.0.head(), u128::from(self.1));
        self.apply(CommitRuns::new(name, 1000, None, writer).into());
    }

    /// All of the slot's log becomes one run; that of a pass says how far it is clean.
    fn compact(&mut self, slot: u32, from: i64, bytes: u32, cleaned: Option<u64>) {
        let inputs: Vec<ObjectId> = self.0.objects().map(|(id, _)| id).collect();
        let run = CompactedRun { end_offset: Offset(self.end(slot)), bytes, max_timestamp: TimestampMs(WRITTEN) };
        let share = CompactedShare { slot: Slot(slot), base_offset: Offset(from), runs: vec![run] };
        let name = ObjectName::compacted(self.0.head(), u128::from(self.1));
        let command = CommitCompaction::new(name, 10_000, None, (1, &inputs), 64, &[share]);
        let cleaned = cleaned.map(|cleaned| CleanedShare { config_version: 1, cleaned });
        self.apply(command.with_cleaned(cleaned.as_slice()).into());
    }

    fn due(&self, after_ms: i64) -> Vec<(u32, i64, u64, u64)> {
        let config = Config::default();
        let due = due(&self.0, &config, TimestampMs(WRITTEN + after_ms));
        due.iter().map(|pass| (pass.slot.0, pass.dirty_from.0, pass.dirty_bytes, pass.bytes)).collect()
    }
}

#[test]
fn a_log_is_due_by_its_dirty_share_or_when_it_is_late() {
    let mut fold = Fold::new(&[("cleanup.policy", "compact"), ("max.compaction.lag.ms", "50000")]);
    fold.flush(0);
    assert_eq!(fold.due(0), [], "a flush");
    fold.compact(0, 0, 300, None);
    assert_eq!(fold.due(0), [(0, 0, 300, 300)]);
    fold.compact(0, 0, 200, Some(1));
    assert_eq!(fold.due(99_000), [], "nothing is new");
    fold.flush(0);
    fold.compact(0, 1, 200, None);
    assert_eq!(fold.due(0), [], "half of it");
    assert_eq!(fold.due(50_001), [(0, 1, 200, 400)], "late");
    fold.flush(0);
    fold.compact(0, 2, 1, None);
    fold.flush(1);
    fold.compact(1, 0, 10, None);
    assert_eq!(fold.due(0), [(1, 0, 10, 10), (0, 1, 201, 401)], "the dirtiest first");
    fold.flush(0);
    assert_eq!(fold.due(0), [(1, 0, 10, 10), (0, 1, 201, 401)], "up to the first flush");
}

#[test]
fn other_policies_and_young_records_are_left_alone() {
    let mut fold = Fold::new(&[("cleanup.policy", "delete")]);
    fold.flush(0);
    fold.compact(0, 0, 300, None);
    assert_eq!(fold.due(1 << 40), []);
    let mut fold = Fold::new(&[("cleanup.policy", "delete,compact"), ("min.compaction.lag.ms", "1000")]);
    fold.flush(0);
    fold.compact(0, 0, 300, None);
    assert_eq!((fold.due(999), fold.due(1000)), (vec![], vec![(0, 0, 300, 300)]));
}

#[test]
fn small_logs_are_cleaned_together_within_bounds() {
    let pass = |slot| Pass {
        slot: Slot(slot),
        topic: TopicId(Uuid::from_u128(1)),
        index: PartitionIndex(0),
        config_version: 0,
        delete_retention_ms: 0,
        start: Offset(0),
        dirty_from: Offset(0),
        end: Offset(0),
        bytes: 10,
        dirty_bytes: 10,
    };
    let slots = |passes: Vec<Pass>| passes.iter().map(|pass| pass.slot.0).collect::<Vec<_>>();
    let all = || (0..5).map(pass).collect::<Vec<_>>();
    let none = |_: &Pass| false;
    assert_eq!(slots(together(all(), 30, |_| 1, 100, none)), [0, 1, 2]);
    assert_eq!(slots(together(all(), 1000, |_| 1, 2, none)), [0, 1]);
    assert_eq!(slots(together(all(), 5, |_| 1, 0, none)), [0], "one in any case");
    assert_eq!(slots(together(all(), 1000, |_| 1, 100, |pass| pass.slot.0 == 2)), [0, 1]);
    assert_eq!(slots(together(all(), 1000, |_| 1, 100, |pass| pass.slot.0 == 0)), [0]);
}
