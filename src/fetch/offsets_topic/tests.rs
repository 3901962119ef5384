use bytes::Bytes;

use super::*;
use crate::records::{Batches, walk};
use crate::state::*;
use crate::types::*;

const T0: i64 = 0x0000_018b_cfe5_6800;

fn state(commands: Vec<Command>) -> State {
    let settings = Settings {
        topics_max: 10,
        partitions_max: 100,
        partitions_per_topic_max: 50,
        groups_max: 100,
        group_offsets_max: 100_000,
        group_bytes_max: 1 << 20,
        ..Settings::default()
    };
    let topic = |name: &str, n: u128, partitions| CreateTopic {
        name: name.into(),
        id: Bytes::copy_from_slice(Uuid::from_u128(n).as_bytes()),
        partitions,
        replication_factor: 1,
        configs: vec![],
    };
    let mut all = vec![
        Bootstrap { cluster_id: "c".into(), settings }.into(),
        RegisterBroker { broker: 1, incarnation: 5, feature_level_max: 1 }.into(),
        topic("plums", 1, 3).into(),
        topic(OFFSETS_TOPIC, 2, 1).into(),
    ];
    all.extend(commands);
    let mut state = State::default();
    let entry = |command: &Command, n: u64| Entry {
        feature_level: 1,
        broker: 1,
        incarnation: 5,
        counter: n,
        token: n,
        wall_ms: T0 + n as i64,
        commands: vec![command.clone()],
        ..Entry::default()
    };
    for (n, command) in (1..).zip(&all) {
        let outcomes = state.apply(Position(n), &entry(command, n));
        assert!(!matches!(outcomes[..], [Outcome::Refused(_) | Outcome::Fenced]), "{outcomes:?}");
    }
    state
}

fn commit(group: &str, slot: u32, metadata: &str, retention_ms: Option<i64>) -> Command {
    let offsets = vec![OffsetSpec { slot, offset: 0x1234, leader_epoch: 6, metadata: metadata.into() }];
    CommitOffsets {
        groups: vec![GroupOffsets { group: group.into(), from_version: 0, offsets, retention_ms, transaction: None }],
    }
    .into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The only partition of the topic.
fn partition(state: &State) -> &Partition {
    state.partition(state.offsets_slot("any").unwrap()).unwrap()
}

/// Offset, timestamp, key and value of a record.
type Found = (i64, i64, String, Option<String>);

/// Every record, after a check of the batches' CRC, and the offset after the last batch.
fn read(state: &State, from: i64, bytes_max: usize) -> (Vec<Found>, i64) {
    let records = records(state, partition(state), Offset(from), bytes_max);
    let bytes: Bytes = records.chunks.iter().flat_map(|piece| piece.in_memory().unwrap()).copied().collect();
    assert_eq!(bytes.len(), records.bytes);
    let (mut found, mut next) = (Vec::new(), 0);
    for batch in Batches::new(bytes) {
        let batch = batch.unwrap();
        assert_eq!(batch.header.crc, crc32c::crc32c(&batch.bytes[21..]));
        assert!(batch.header.base_offset.0 >= next);
        next = batch.header.last_offset().0 + 1;
        walk(&batch.bytes, 1 << 20, |record| {
            let offset = batch.header.base_offset.0 + i64::from(record.offset_delta);
            let timestamp = record.timestamp(batch.header.base_timestamp).unwrap();
            found.push((offset, timestamp.0, hex(record.key.unwrap()), record.value.map(hex)));
        })
        .unwrap();
    }
    assert_eq!(found.len() as u64, records.records);
    (found, next)
}

#[test]
fn a_commit_has_kafkas_key_and_value() {
    let state = state(vec![commit("simple", 1, "hello", None), commit("old", 2, "", Some(16))]);
    let (records, next) = read(&state, 0, 1 << 20);
    let key = "0001\
               0006 73696d706c65\
               0005 706c756d73\
               00000001";
    let value = "0003\
                 0000000000001234\
                 00000006\
                 0005 68656c6c6f\
                 0000018bcfe56805";
    assert_eq!(records[0], (0, T0 + 5, key.replace(' ', ""), Some(value.replace(' ', ""))));
    let value = "0001\
                 0000000000001234\
                 0000\
                 0000018bcfe56806\
                 0000018bcfe56816";
    assert_eq!(records[1].3.as_deref(), Some(value));
    assert_eq!((records.len(), next, partition(&state).end), (2, 2, Offset(2)));
}

#[test]
fn a_group_has_kafkas_key_and_value() {
    let header = GroupHeader {
        protocol: GroupProtocol::Classic as i32,
        epoch: 3,
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        leader: Some("m".into()),
        since_ms: T0,
        ..GroupHeader::default()
    };
    let protocol = |name: &str, metadata| MemberProtocol { name: name.into(), metadata: Bytes::from_static(metadata) };
    let member = MemberRecord {
        id: "m".into(),
        client_id: "cid".into(),
        client_host: "/::1".into(),
        rebalance_timeout_ms: 300_000,
        session_timeout_ms: 45_000,
        protocols: vec![protocol("roundrobin", b"no"), protocol("range", b"yes")],
        assignment: Bytes::from_static(b"all"),
        ..MemberRecord::default()
    };
    let change = |from_version, header, members, gone| ChangeGroup {
        group: "g".into(),
        from_version,
        header: Some(header),
        members,
        gone,
        ..ChangeGroup::default()
    };
    let joined = change(0, header, vec![member], vec![]);
    let state_with = |more: Vec<Command>| state([vec![joined.clone().into()], more].concat());
    let (records, _) = read(&state_with(vec![]), 0, 1 << 20);
    let value = "0003\
                 0008 636f6e73756d6572\
                 00000003\
                 0005 72616e6765\
                 0001 6d\
                 0000018bcfe56800\
                 00000001\
                 0001 6d\
                 ffff\
                 0003 636964\
                 0004 2f3a3a31\
                 000493e0\
                 0000afc8\
                 00000003 796573\
                 00000003 616c6c";
    assert_eq!(records, [(0, T0, "0002000167".to_owned(), Some(value.replace(' ', "")))]);
    // Empty, as a running Kafka writes it, and then gone.
    let header = GroupHeader { protocol_name: None, leader: None, epoch: 4, ..joined.header.clone().unwrap() };
    let empty = change(1, header, vec![], vec!["m".into()]);
    let (records, _) = read(&state_with(vec![empty.clone().into()]), 0, 1 << 20);
    let value = "00030008636f6e73756d657200000004ffffffff0000018bcfe5680000000000";
    assert_eq!(records, [(1, T0, "0002000167".to_owned(), Some(value.to_owned()))]);
    let delete = DeleteGroup { group: "g".into(), from_version: 2 };
    let (records, _) = read(&state_with(vec![empty.into(), delete.into()]), 0, 1 << 20);
    assert_eq!(records, [(2, T0 + 7, "0002000167".to_owned(), None)]);
}

#[test]
fn offsets_have_gaps_and_limits_cut_between_records() {
    let again = |n: u32| commit(if n.is_multiple_of(2) { "even" } else { "odd" }, n % 3, "", None);
    let state = state((0..100).map(again).collect());
    let (records, next) = read(&state, 0, 1 << 20);
    assert_eq!((records.first().unwrap().0, records.len(), next), (94, 6, 100));
    let one_by_one = |from| read(&state, from, 1);
    assert_eq!(one_by_one(0), (vec![records[0].clone()], 95));
    assert_eq!(one_by_one(95), (vec![records[1].clone()], 96));
    assert_eq!(one_by_one(99), (vec![records[5].clone()], 100));
    assert_eq!(available(&state, partition(&state), Offset(100), 1), 0);
    assert!(available(&state, partition(&state), Offset(0), 1) >= 1);
    let all = available(&state, partition(&state), Offset(0), usize::MAX);
    let sent = super::records(&state, partition(&state), Offset(0), usize::MAX).bytes;
    assert!(sent <= all && all < 2 * sent, "{sent} {all}");
}

#[test]
fn many_records_are_many_batches_and_none_is_left_out() {
    let metadata = "x".repeat(3000);
    let state = state((0..90).map(|n| commit(&format!("g{n}"), n % 3, &metadata, None)).collect());
    let (records, next) = read(&state, 0, usize::MAX);
    assert_eq!((records.len(), next), (90, 90));
    assert!(super::records(&state, partition(&state), Offset(0), usize::MAX).chunks.len() > 3);
    let (mut from, mut found) = (0, Vec::new());
    while from < 90 {
        let (some, next) = read(&state, from, 10_000);
        (from, found) = (next, [found, some].concat());
    }
    assert_eq!(found, records);
}

#[test]
fn where_nothing_is_left_an_empty_batch_leads_to_the_end() {
    // The group's last record moved to another partition, so to say: its topic got more partitions.
    let topic_id = Bytes::copy_from_slice(Uuid::from_u128(2).as_bytes());
    let state = state(vec![commit("simple", 1, "", None), CreatePartitions { topic_id, count: 10 }.into()]);
    let topic = state.topic_by_name(OFFSETS_TOPIC).unwrap();
    let first = state.partition(topic.slots[0]).unwrap();
    assert_eq!(first.end, Offset(1));
    let made = super::records(&state, first, Offset(0), 1 << 20);
    let header = crate::records::BatchHeader::parse(made.chunks[0].in_memory().unwrap()).unwrap();
    assert_eq!((header.count, header.base_offset, header.last_offset()), (0, Offset(0), Offset(0)));
    assert!(available(&state, first, Offset(0), 1) > 0);
}

#[test]
fn times_are_those_of_the_commits() {
    let state = state(vec![commit("a", 1, "", None), commit("b", 1, "", None), commit("a", 1, "", None)]);
    let slot = partition(&state).slot;
    let at = |offset, n| Some(TimedOffset { offset: Offset(offset), timestamp: TimestampMs(T0 + n) });
    assert_eq!(first_at(&state, slot, TimestampMs(T0)), at(1, 6));
    assert_eq!(first_at(&state, slot, TimestampMs(T0 + 7)), at(2, 7));
    assert_eq!(first_at(&state, slot, TimestampMs(T0 + 8)), None);
    assert_eq!(latest_in_time(&state, slot), at(2, 7));
}
