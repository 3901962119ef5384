use bytes::Bytes;

use super::*;
use crate::segment::ObjectName;
use crate::state::*;
use crate::types::*;

const NOW: TimestampMs = TimestampMs(1_000_000);

/// A State whose topic `t` has these settings, and in each partition these runs: largest timestamp and bytes, a record each.
fn state_with(configs: &[(&str, &str)], partitions: &[&[(i64, u32)]]) -> State {
    let set = |(name, value): &(&str, &str)| ConfigChange { name: (*name).into(), value: Some((*value).into()) };
    let settings = Settings { topics_max: 9, partitions_max: 99, partitions_per_topic_max: 99, ..Settings::default() };
    let topic = CreateTopic {
        name: "t".into(),
        id: Bytes::copy_from_slice(Uuid::from_u128(7).as_bytes()),
        partitions: partitions.len() as u32,
        replication_factor: 1,
        configs: configs.iter().map(set).collect(),
    };
    let mut commands: Vec<Command> = vec![
        Bootstrap { cluster_id: "c".into(), settings }.into(),
        RegisterBroker { broker: 1, incarnation: 1, feature_level_max: FEATURE_LEVEL_MAX }.into(),
        topic.into(),
    ];
    for (slot, runs) in (0..).zip(partitions) {
        for (n, (timestamp, bytes)) in (0_u128..).zip(*runs) {
            let batches = vec![BatchSpec { bytes: *bytes, records: 1, producer: None }];
            let mut writer = RunsWriter::default();
            writer.push(&RunSpec { slot: Slot(slot), position: 0, max_timestamp: TimestampMs(*timestamp), batches });
            // The object was written half a million ms ago.
            let ulid = (500_000_u128 << 80) + (u128::from(slot) << 40) + n;
            commands.push(CommitRuns::new(ObjectName::data(Head::default(), ulid), 1 << 20, None, writer).into());
        }
    }
    let mut state = State::default();
    let entry = Entry { feature_level: 5, broker: 1, incarnation: 1, counter: 1, commands, ..Entry::default() };
    let outcomes = state.apply(Position(1), &entry);
    assert!(!outcomes.iter().any(|outcome| matches!(outcome, Outcome::Refused(_))), "{outcomes:?}");
    state
}

/// Per partition its log start and what is given up.
fn planned(
    configs: &[(&str, &str)],
    partitions: &[&[(i64, u32)]],
    now: Option<TimestampMs>,
) -> Vec<(i32, i64, u64, u64)> {
    let trims = plan(&state_with(configs, partitions), &Config::default(), now);
    trims.iter().map(|trim| (trim.index.0, trim.offset.0, trim.runs, trim.bytes)).collect()
}

#[test]
fn runs_go_by_their_largest_timestamp() {
    let log: &[(i64, u32)] = &[(100, 10), (899_999, 10), (900_000, 10), (5, 10)];
    let hundred = [("retention.ms", "100000")];
    assert_eq!(planned(&hundred, &[log, &[], &[(950_000, 1)]], Some(NOW)), [(0, 2, 2, 20)]);
    assert_eq!(planned(&hundred, &[&[(1 << 60, 10), (5, 10)]], Some(NOW)), [], "one of the future holds the others");
    assert_eq!(planned(&hundred, &[log], None), [], "nobody knows what time it is");
    assert_eq!(planned(&[("retention.ms", "-1")], &[log], Some(NOW)), []);
    assert_eq!(planned(&[("retention.ms", "0")], &[log], Some(NOW)), [(0, 4, 4, 40)], "all may go");
    // The default is a week.
    assert_eq!(planned(&[], &[log], Some(TimestampMs(604_800_000 + 1_000_000))), [(0, 4, 4, 40)]);
}

#[test]
fn without_timestamps_the_time_of_writing_counts() {
    let unknown: &[(i64, u32)] = &[(-1, 10)];
    assert_eq!(planned(&[("retention.ms", "499999")], &[unknown], Some(NOW)), [(0, 1, 1, 10)]);
    assert_eq!(planned(&[("retention.ms", "500000")], &[unknown], Some(NOW)), []);
}

#[test]
fn size_keeps_at_least_what_it_says() {
    let log: &[(i64, u32)] = &[(5, 100), (5, 60), (5, 40)];
    let by_size = |bytes: &str| planned(&[("retention.bytes", bytes), ("retention.ms", "-1")], &[log], None);
    assert_eq!(by_size("101"), [], "without the first there would be too little");
    assert_eq!(by_size("100"), [(0, 1, 1, 100)]);
    assert_eq!(by_size("40"), [(0, 2, 2, 160)]);
    assert_eq!(by_size("0"), [(0, 3, 3, 200)]);
    assert_eq!(by_size("-1"), []);
}

#[test]
fn only_topics_that_delete_give_anything_up() {
    let limits = |policy: &'static str| [("cleanup.policy", policy), ("retention.ms", "1"), ("retention.bytes", "1")];
    let log: &[(i64, u32)] = &[(5, 100)];
    for keeps in ["compact", ""] {
        assert_eq!(planned(&limits(keeps), &[log], Some(NOW)), [], "{keeps:?}");
    }
    assert_eq!(planned(&limits("compact,delete"), &[log], Some(NOW)).len(), 1);
    let local = [("local.retention.ms", "1"), ("local.retention.bytes", "1")];
    assert_eq!(planned(&local, &[log], Some(NOW)), []);
}

#[test]
fn h15_no_command_is_too_large() {
    let trim = |topic: u128, index, runs| Trim {
        topic: TopicId(Uuid::from_u128(topic)),
        config_version: 3,
        index: PartitionIndex(index),
        offset: Offset(9),
        runs,
        bytes: 1,
    };
    let many: Vec<Trim> = (0..12_000).map(|index| trim(1, index, 1)).collect();
    assert_eq!(parts(&many).map(<[Trim]>::len).collect::<Vec<_>>(), [5000, 5000, 2000]);
    let large = [trim(1, 0, RUNS_MAX), trim(1, 0, 5), trim(1, 1, RUNS_MAX - 5), trim(2, 0, 1)];
    assert_eq!(parts(&large).map(<[Trim]>::len).collect::<Vec<_>>(), [1, 2, 1]);
    assert_eq!(parts(&[]).count(), 0);
    let command = command(&large[1..]);
    assert_eq!(command.topics.len(), 2);
    let whole: Vec<(i64, u32)> = (0..RUNS_MAX as i64 + 7).map(|_| (5, 10)).collect();
    let split = planned(&[("retention.ms", "1")], &[&whole], Some(NOW));
    assert_eq!(split, [(0, 20_000, 20_000, 200_000), (0, 20_007, 7, 70)]);
}
