//! What each version wrote stays readable for ever, and today's code still writes exactly that: an entry of every command,
//! the outcomes and the State that they make, a snapshot of it, an object. The files in `tests/golden`, a folder for each
//! feature level, are never changed; a new command or format gets new ones beside them. `GOLDEN_WRITE=1` writes those that are not there.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
use bytes::Bytes;
use std::path::PathBuf;
use strandline::segment::{FooterRun, ObjectHeader, ObjectName, ObjectWriter, read_footer};
use strandline::state::*;
use strandline::types::*;

/// The golden file of this name; `today` is written into it if it is not there.
fn file(name: &str, today: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if !path.exists() && std::env::var_os("GOLDEN_WRITE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, today).unwrap();
    }
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Compares `bytes` with the golden file of this name, and gives what the file holds.
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let lines = bytes.chunks(32).map(|line| line.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n");
    let text = file(&format!("{name}.hex"), &lines.collect::<String>());
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let held: Vec<u8> = digits.chunks(2).map(byte).collect();
    assert!(held == bytes, "{name}: today's encoding differs from the golden file");
    held
}

const SETTINGS: Settings = Settings {
    topics_max: 1000,
    partitions_max: 100_000,
    partitions_per_topic_max: 10_000,
    producers_max: 1_000_000,
    producers_per_partition_max: 10_000,
    producer_expiration_ms: 86_400_000,
    snapshots_min: 3,
    groups_max: 0,
    group_offsets_max: 0,
    group_bytes_max: 0,
    fencing_ms: 0,
    transactional_ids_max: 0,
    transaction_partitions_max: 0,
    garbage_grace_ms: 0,
};

fn id(n: u128) -> Bytes {
    Uuid::from_u128(n).as_bytes().to_vec().into()
}

fn set(name: &str, value: Option<&str>) -> ConfigChange {
    ConfigChange { name: name.to_owned(), value: value.map(str::to_owned) }
}

fn batch(bytes: u32, records: u32, producer: Option<(i64, i16, i32)>) -> BatchSpec {
    let producer = producer.map(|(id, epoch, first)| ProducerSpec {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
        first_sequence: Sequence(first),
        transactional: false,
        joins: false,
    });
    BatchSpec { bytes, records, producer }
}

fn run(slot: u32, position: u32, max_timestamp: i64, batches: Vec<BatchSpec>) -> RunSpec {
    RunSpec { slot: Slot(slot), position, max_timestamp: TimestampMs(max_timestamp), batches }
}

fn commit(ulid: u128, object: Option<u64>, runs: &[RunSpec]) -> CommitRuns {
    let mut writer = RunsWriter::default();
    runs.iter().for_each(|run| writer.push(run));
    let (base_timestamp, runs) = writer.finish();
    CommitRuns {
        ulid: ulid.to_be_bytes().to_vec().into(),
        applied_position: 7,
        applied_token: 0x0102_0304_0506_0708,
        object_bytes: 10_000,
        object,
        base_timestamp,
        runs: runs.into(),
    }
}

/// One command of every kind, in an order in which all but the refused ones do something.
fn story() -> Vec<CommandKind> {
    let configs = vec![set("cleanup.policy", Some("compact")), set("retention.ms", Some("-1"))];
    let topic = |name: &str, n, partitions, configs| CreateTopic {
        name: name.to_owned(),
        id: id(n),
        partitions,
        replication_factor: 3,
        configs,
    };
    let first = [
        run(0, 64, 1_700_000_000_000, vec![batch(100, 3, None), batch(200, 2, Some((5, 0, 0)))]),
        run(2, 364, 1_700_000_000_500, vec![batch(70, 1, Some((5, 0, 0)))]),
        run(4, 500, 1_699_999_999_000, vec![batch(4000, 5000, Some((1 << 40, 3, 2_147_483_640)))]),
    ];
    let second = [
        run(0, 4500, 1_700_000_001_000, vec![batch(200, 2, Some((5, 0, 0))), batch(200, 2, Some((5, 0, 2)))]),
        run(4, 4900, -1, vec![batch(80, 20, Some((1 << 40, 3, 4992))), batch(80, 1, Some((1 << 40, 2, 0)))]),
        run(99, 5060, 0, vec![batch(80, 1, None)]),
    ];
    let changes = vec![set("retention.ms", None), set("max.message.bytes", Some("2000000"))];
    let expired = vec![
        ExpiredProducer { slot: 2, id: 5, last_used: 8 },
        ExpiredProducer { slot: 0, id: 5, last_used: 8 },
        ExpiredProducer { slot: 9, id: -1, last_used: u64::MAX },
    ];
    vec![
        CommandKind::Bootstrap(Bootstrap { cluster_id: "4L6g3nShT-eMCtK--X86sw".into(), settings: SETTINGS }),
        CommandKind::RegisterBroker(RegisterBroker { broker: 1, incarnation: 1 << 60, feature_level_max: 1 }),
        CommandKind::SetSettings(SetSettings { settings: Settings { topics_max: 2000, ..SETTINGS } }),
        CommandKind::CreateTopic(topic("orders", 0xa, 3, configs)),
        CommandKind::CreateTopic(topic("orders", 0xb, 1, vec![])),
        CommandKind::CreatePartitions(CreatePartitions { topic_id: id(0xa), count: 5 }),
        CommandKind::AlterTopicConfigs(AlterTopicConfigs { topic_id: id(0xa), changes, from_version: 1 }),
        CommandKind::CommitRuns(commit(1, None, &first)),
        CommandKind::CommitRuns(commit(1, Some(0), &second)),
        CommandKind::AllocateProducerIds(AllocateProducerIds { count: 1000 }),
        CommandKind::DeleteRecords(DeleteRecords { slot: 4, offset: 5000 }),
        CommandKind::ExpireProducers(ExpireProducers { producers: expired }),
        CommandKind::SnapshotTaken(SnapshotTaken {
            position: 9,
            token: 99,
            key: "snapshots/0000000000000009-0000000000000063-0000000000000001".into(),
            bytes: 12_345,
            applied_position: 9,
            wall_ms: 1_700_000_002_000,
            given_up: vec![1, 300],
        }),
        CommandKind::CreateTopic(topic("gone", 0xc, 2, vec![])),
        CommandKind::DeleteTopic(DeleteTopic { topic_id: id(0xc) }),
        CommandKind::UnregisterBroker(UnregisterBroker { broker: 1 }),
    ]
}

/// The file's name; a new command does not compile until it has one, and a place in the story.
fn name(kind: &CommandKind) -> &'static str {
    match kind {
        CommandKind::Bootstrap(_) => "bootstrap",
        CommandKind::RegisterBroker(_) => "register-broker",
        CommandKind::UnregisterBroker(_) => "unregister-broker",
        CommandKind::SetSettings(_) => "set-settings",
        CommandKind::CreateTopic(_) => "create-topic",
        CommandKind::CreatePartitions(_) => "create-partitions",
        CommandKind::DeleteTopic(_) => "delete-topic",
        CommandKind::AlterTopicConfigs(_) => "alter-topic-configs",
        CommandKind::CommitRuns(_) => "commit-runs",
        CommandKind::AllocateProducerIds(_) => "allocate-producer-ids",
        CommandKind::DeleteRecords(_) => "delete-records",
        CommandKind::ExpireProducers(_) => "expire-producers",
        CommandKind::SnapshotTaken(_) => "snapshot-taken",
        CommandKind::ChangeGroup(_) => "change-group",
        CommandKind::DeleteGroup(_) => "delete-group",
        CommandKind::CommitOffsets(_) => "commit-offsets",
        CommandKind::DeleteOffsets(_) => "delete-offsets",
        CommandKind::AlterGroupConfigs(_) => "alter-group-configs",
        CommandKind::AnnounceBroker(_) => "announce-broker",
        CommandKind::DrainBroker(_) => "drain-broker",
        CommandKind::FenceBroker(_) => "fence-broker",
        CommandKind::RaiseFeatureLevel(_) => "raise-feature-level",
        CommandKind::InitProducer(_) => "init-producer",
        CommandKind::AddToTransaction(_) => "add-to-transaction",
        CommandKind::EndTransaction(_) => "end-transaction",
        CommandKind::AbortTransaction(_) => "abort-transaction",
        CommandKind::ExpireTransactionalIds(_) => "expire-transactional-ids",
        CommandKind::TrimLogs(_) => "trim-logs",
        CommandKind::ForgetObjects(_) => "forget-objects",
        CommandKind::RaiseOrphanHorizon(_) => "raise-orphan-horizon",
        CommandKind::CommitCompaction(_) => "commit-compaction",
    }
}

/// The commands about groups, which came after the first story was written down.
fn groups_story() -> Vec<CommandKind> {
    let header = |epoch, protocol| GroupHeader {
        protocol,
        epoch,
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        leader: Some("m-1".into()),
        assignment_epoch: epoch - 1,
        topics_hash: 77,
        since_ms: 1_700_000_000_000,
    };
    let part = || TopicPartitions { topic_id: id(0xa), partitions: vec![0, 2], epochs: vec![3, 4] };
    let member = |id: &str| MemberRecord {
        id: id.into(),
        instance_id: Some("i".into()),
        rack: Some("zone-a".into()),
        client_id: "client".into(),
        client_host: "/10.0.0.1".into(),
        rebalance_timeout_ms: 60_000,
        session_timeout_ms: 45_000,
        protocols: vec![MemberProtocol { name: "range".into(), metadata: Bytes::from_static(b"\0\x01") }],
        assignment: Bytes::from_static(b"\0\x03"),
        subscribed_topics: vec!["orders".into()],
        subscribed_regex: Some("or.*".into()),
        assignor: Some("uniform".into()),
        epoch: 4,
        previous_epoch: 3,
        phase: 1,
        assigned: vec![part()],
        revoking: vec![part()],
    };
    let change = |from_version, header, gone: &[&str], members: &[&str]| ChangeGroup {
        group: "readers".into(),
        from_version,
        header,
        gone: gone.iter().map(|id| (*id).to_owned()).collect(),
        members: members.iter().map(|id| member(id)).collect(),
        targets: members.iter().map(|id| TargetRecord { member: (*id).into(), partitions: vec![part()] }).collect(),
        to_version: 0,
    };
    let offset = |slot, offset| OffsetSpec { slot, offset, leader_epoch: -1, metadata: "m".into() };
    let commit = |group: &str, from_version, slots: &[u32]| GroupOffsets {
        group: group.into(),
        from_version,
        offsets: slots.iter().map(|slot| offset(*slot, 42)).collect(),
        retention_ms: (from_version == 0).then_some(1000),
        transaction: None,
    };
    let topic =
        CreateTopic { name: "orders".into(), id: id(0xa), partitions: 3, replication_factor: 1, configs: vec![] };
    let limits = Settings { groups_max: 3, group_offsets_max: 3, group_bytes_max: 1000, ..SETTINGS };
    vec![
        CommandKind::Bootstrap(Bootstrap { cluster_id: "4L6g3nShT-eMCtK--X86sw".into(), settings: limits }),
        CommandKind::RegisterBroker(RegisterBroker { broker: 1, incarnation: 1 << 60, feature_level_max: 1 }),
        CommandKind::CreateTopic(topic),
        CommandKind::ChangeGroup(change(0, Some(header(1, 1)), &[], &["m-1", "m-2"])),
        CommandKind::ChangeGroup(change(1, Some(header(2, 2)), &["m-2"], &["m-3"])),
        CommandKind::ChangeGroup(change(1, None, &[], &[])),
        CommandKind::CommitOffsets(CommitOffsets {
            groups: vec![commit("readers", 2, &[0, 1, 99]), commit("alone", 0, &[2]), commit("readers", 1, &[0])],
        }),
        CommandKind::CommitOffsets(CommitOffsets { groups: vec![commit("readers", 2, &[2, 0])] }),
        CommandKind::DeleteOffsets(DeleteOffsets {
            group: "readers".into(),
            from_version: 2,
            offsets: vec![SeenOffset { slot: 0, sequence: 2 }, SeenOffset { slot: 1, sequence: 0 }],
        }),
        CommandKind::AlterGroupConfigs(AlterGroupConfigs {
            group: "readers".into(),
            changes: vec![set("consumer.session.timeout.ms", Some("50000"))],
        }),
        CommandKind::DeleteGroup(DeleteGroup { group: "alone".into(), from_version: 0 }),
        CommandKind::DeleteGroup(DeleteGroup { group: "alone".into(), from_version: 0 }),
    ]
}

fn entry(state: &State, kind: CommandKind) -> Entry {
    let after = state.head();
    let counter = after.position.0 + 1;
    Entry {
        feature_level: 1,
        broker: 1,
        incarnation: 1 << 60,
        counter,
        token: 0xfeed_0000_0000_0000 + counter,
        wall_ms: 1_700_000_000_000 + counter as i64,
        after_position: after.position.0,
        after_token: after.token.0,
        after_outcomes: state.outcomes_hash(),
        commands: vec![Command { kind: Some(kind) }],
    }
}

#[test]
fn entries_outcomes_and_snapshot_of_version_1() {
    let mut state = State::default();
    let mut outcomes = String::new();
    for (n, kind) in (1..).zip(story()) {
        let name = name(&kind);
        let entry = entry(&state, kind);
        let held = golden(&format!("v1/entry-{n:02}-{name}"), &entry.encode_framed());
        assert_eq!(Entry::decode_framed(held.into()).unwrap(), entry, "{name}");
        state.apply(Position(n), &entry);
        outcomes.push_str(&format!("{n:02} {name} {:016x}\n", state.outcomes_hash()));
    }
    // The chain hash says that `apply` still does what it did, refusals included (H5).
    assert_eq!(outcomes, file("v1/outcomes.txt", &outcomes));
    let (header, snapshot) = state.encode_snapshot();
    let held = golden("v1/snapshot", &snapshot);
    let (read, state) = State::decode_snapshot(&held).unwrap();
    assert_eq!((read, header.at), (header, Head { position: Position(16), token: Token(0xfeed_0000_0000_0010) }));
    assert_eq!(state.encode_snapshot().1, snapshot);
    let orders = state.topic_by_name("orders").unwrap();
    let ends: Vec<i64> = orders.slots.iter().map(|slot| state.partition(*slot).unwrap().end.0).collect();
    assert_eq!(ends, [7, 0, 1, 0, 5020]);
    assert_eq!((orders.configs.len(), state.snapshots().len(), state.producer_count()), (2, 1, 2));
}

/// Applies the commands as entries, which `stamp` may say more of, and compares entries, outcomes and the snapshot with the
/// golden files that begin with `prefix`. Gives the State that was read from the snapshot.
fn play(prefix: &str, story: Vec<CommandKind>, stamp: impl Fn(usize, &mut Entry)) -> State {
    let mut state = State::default();
    let mut outcomes = String::new();
    for (at, kind) in story.into_iter().enumerate() {
        let (n, name, mut entry) = (at as u64 + 1, name(&kind), entry(&state, kind));
        entry.feature_level = entry.commands.iter().map(Command::feature_level).fold(state.feature_level(), u32::max);
        stamp(at, &mut entry);
        let held = golden(&format!("{prefix}-{n:02}-{name}"), &entry.encode_framed());
        assert_eq!(Entry::decode_framed(held.into()).unwrap(), entry, "{name}");
        let outcome = state.apply(Position(n), &entry);
        outcomes.push_str(&format!("{n:02} {name} {outcome:?} {:016x}\n", state.outcomes_hash()));
    }
    assert_eq!(outcomes, file(&format!("{prefix}-outcomes.txt"), &outcomes));
    let snapshot = state.encode_snapshot().1;
    let held = golden(&format!("{prefix}-snapshot"), &snapshot);
    let state = State::decode_snapshot(&held).unwrap().1;
    assert_eq!(state.encode_snapshot().1, snapshot);
    state
}

#[test]
fn groups_of_version_1() {
    let state = play("v1/groups", groups_story(), |_, _| {});
    assert_eq!((state.group_count(), state.group_offset_count()), (1, 1));
}

/// A cluster of level 1 that is brought to level 2, and the brokers of one that is. Each command is of that broker, so many
/// seconds after the beginning.
fn members_story() -> Vec<(i32, i64, CommandKind)> {
    let register = |broker| RegisterBroker { broker, incarnation: (1 << 60) + broker as u64, feature_level_max: 2 };
    let announce = |broker: i32, zone: &str| {
        let endpoint = |listener: &str, port| Endpoint {
            listener: listener.into(),
            host: format!("broker-{broker}.example"),
            port,
        };
        AnnounceBroker { zone: zone.into(), endpoints: vec![endpoint("plain", 9092), endpoint("public", 9093)] }
    };
    let fence = |last_position| FenceBroker { broker: 2, incarnation: (1 << 60) + 2, last_position };
    vec![
        (1, 0, CommandKind::Bootstrap(Bootstrap { cluster_id: "4L6g3nShT-eMCtK--X86sw".into(), settings: SETTINGS })),
        (1, 0, CommandKind::RegisterBroker(register(1))),
        (1, 0, CommandKind::AnnounceBroker(announce(1, "zone-a"))),
        (1, 0, CommandKind::RaiseFeatureLevel(RaiseFeatureLevel { level: 2 })),
        (1, 0, CommandKind::SetSettings(SetSettings { settings: Settings { fencing_ms: 10_000, ..SETTINGS } })),
        (1, 1, CommandKind::AnnounceBroker(announce(1, "zone-a"))),
        (2, 1, CommandKind::RegisterBroker(register(2))),
        (2, 1, CommandKind::AnnounceBroker(announce(2, "zone-b"))),
        (3, 1, CommandKind::RegisterBroker(register(3))),
        (3, 1, CommandKind::AnnounceBroker(announce(3, ""))),
        (1, 5, CommandKind::FenceBroker(fence(8))),
        (1, 9, CommandKind::AllocateProducerIds(AllocateProducerIds { count: 10 })),
        (1, 13, CommandKind::FenceBroker(fence(7))),
        (1, 16, CommandKind::FenceBroker(fence(8))),
        (2, 17, CommandKind::AllocateProducerIds(AllocateProducerIds { count: 10 })),
        (1, 17, CommandKind::DrainBroker(DrainBroker { broker: 3 })),
        (3, 18, CommandKind::UnregisterBroker(UnregisterBroker { broker: 3 })),
        (1, 18, CommandKind::DrainBroker(DrainBroker { broker: 1 })),
        (2, 19, CommandKind::RegisterBroker(register(2))),
        (1, 19, CommandKind::RaiseFeatureLevel(RaiseFeatureLevel { level: 1 })),
    ]
}

#[test]
fn members_of_version_2() {
    let (said, story): (Vec<(i32, i64)>, _) =
        members_story().into_iter().map(|(id, at, kind)| ((id, at), kind)).unzip();
    let state = play("v2/members", story, |at, entry| {
        let (broker, seconds) = said[at];
        (entry.broker, entry.incarnation) = (broker, (1 << 60) + broker as u64);
        entry.wall_ms = 1_700_000_000_000 + seconds * 1000;
    });
    let standings = [1, 2, 3].map(|id| state.broker(BrokerId(id)).unwrap().standing);
    assert_eq!(standings, [Standing::Draining, Standing::Active, Standing::Gone]);
    assert_eq!(state.membership(), 7);
}

/// Groups whose coordinators count for themselves.
fn own_versions_story() -> Vec<CommandKind> {
    let change = |from_version, to_version, epoch| {
        let header = Some(GroupHeader { protocol: 2, epoch, ..GroupHeader::default() });
        CommandKind::ChangeGroup(ChangeGroup {
            group: "readers".into(),
            from_version,
            header,
            to_version,
            ..Default::default()
        })
    };
    let offset = OffsetSpec { slot: 0, offset: 42, leader_epoch: -1, metadata: String::new() };
    let commit = |from_version| GroupOffsets {
        group: "readers".into(),
        from_version,
        offsets: vec![offset.clone()],
        retention_ms: None,
        transaction: None,
    };
    let topic =
        CreateTopic { name: "orders".into(), id: id(0xa), partitions: 1, replication_factor: 1, configs: vec![] };
    let limits = Settings { groups_max: 3, group_offsets_max: 3, group_bytes_max: 1000, ..SETTINGS };
    vec![
        CommandKind::Bootstrap(Bootstrap { cluster_id: "4L6g3nShT-eMCtK--X86sw".into(), settings: limits }),
        CommandKind::RegisterBroker(RegisterBroker { broker: 1, incarnation: 1 << 60, feature_level_max: 3 }),
        CommandKind::RaiseFeatureLevel(RaiseFeatureLevel { level: 3 }),
        CommandKind::CreateTopic(topic),
        CommandKind::ChangeGroup(ChangeGroup { group: "readers".into(), ..Default::default() }),
        change(1, 0xab_cdef_0123, 1),
        change(1, 0x12_3456_789a, 1),
        change(2, 3, 2),
        change(0xab_cdef_0123, 0xab_cdef_0124, 2),
        CommandKind::CommitOffsets(CommitOffsets { groups: vec![commit(2), commit(0xab_cdef_0124)] }),
    ]
}

#[test]
fn own_versions_of_version_3() {
    let state = play("v3/groups", own_versions_story(), |_, _| {});
    assert_eq!(state.group("readers").unwrap().version, 0xab_cdef_0124);
}

/// Transactions of both versions: committed, aborted, timed out, and two that are open in the end.
fn transactions_story() -> Vec<CommandKind> {
    let limits = Settings { groups_max: 3, group_offsets_max: 6, group_bytes_max: 1000, ..SETTINGS };
    let settings = Settings { transactional_ids_max: 3, transaction_partitions_max: 5, ..limits };
    let producer = |id, epoch| ProducerStamp { id, epoch };
    let init = |id: &str, exchanged| {
        CommandKind::InitProducer(InitProducer { transactional_id: id.into(), timeout_ms: 60_000, exchanged })
    };
    let add = |producer, slots: &[u32], groups: &[&str]| {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let slots = slots.to_vec();
        CommandKind::AddToTransaction(AddToTransaction { transactional_id: "x".into(), producer, slots, groups })
    };
    let end = |producer, commit, bump| {
        CommandKind::EndTransaction(EndTransaction { transactional_id: "x".into(), producer, commit, bump })
    };
    let batch = |id, epoch, first, joins| {
        let mut batch = batch(100, 3, Some((id, epoch, first)));
        batch.producer = batch.producer.map(|producer| ProducerSpec { transactional: true, joins, ..producer });
        batch
    };
    let runs = |ulid, runs: &[RunSpec]| CommandKind::CommitRuns(commit(ulid, None, runs));
    let offsets = |producer, joins, slots: &[u32]| {
        let offset = |slot: &u32| OffsetSpec { slot: *slot, offset: 42, leader_epoch: 3, metadata: "m".into() };
        let transaction = Some(OffsetsTransaction { transactional_id: "x".into(), producer, joins });
        let offsets = slots.iter().map(offset).collect();
        let group = GroupOffsets { group: "readers".into(), offsets, transaction, ..GroupOffsets::default() };
        CommandKind::CommitOffsets(CommitOffsets { groups: vec![group] })
    };
    let topic =
        CreateTopic { name: "orders".into(), id: id(0xa), partitions: 3, replication_factor: 1, configs: vec![] };
    let abort = |id: &str, producer, since| {
        CommandKind::AbortTransaction(AbortTransaction { transactional_id: id.into(), producer, since })
    };
    let expired = |id: &str, last_used| ExpiredTransactionalId { id: id.into(), last_used };
    vec![
        CommandKind::Bootstrap(Bootstrap { cluster_id: "4L6g3nShT-eMCtK--X86sw".into(), settings: limits }),
        CommandKind::RegisterBroker(RegisterBroker { broker: 1, incarnation: 1 << 60, feature_level_max: 4 }),
        CommandKind::CreateTopic(topic),
        init("x", None),
        CommandKind::RaiseFeatureLevel(RaiseFeatureLevel { level: 4 }),
        CommandKind::SetSettings(SetSettings { settings }),
        init("x", None),
        init("x", Some(producer(0, 0))),
        init("x", Some(producer(0, 0))),
        init("x", Some(producer(0, 7))),
        add(producer(0, 1), &[0, 1], &["readers"]),
        runs(1, &[run(0, 64, 1_700_000_000_000, vec![batch(0, 1, 0, false), batch(0, 1, 3, false)])]),
        runs(2, &[run(2, 64, 1_700_000_000_000, vec![batch(0, 1, 0, false), batch(5, 1, 0, false)])]),
        offsets(producer(0, 1), false, &[0, 2, 99]),
        end(producer(0, 1), true, false),
        end(producer(0, 1), true, false),
        runs(3, &[run(0, 64, 1_700_000_001_000, vec![batch(0, 1, 6, true), batch(0, 0, 9, true)])]),
        offsets(producer(0, 1), true, &[0]),
        end(producer(0, 1), false, true),
        end(producer(0, 1), false, true),
        end(producer(0, 1), true, true),
        init("y", None),
        init("z", None),
        init("too many", None),
        runs(4, &[run(0, 64, -1, vec![batch(1, 0, 0, true)]), run(1, 364, -1, vec![batch(1, 0, 0, true)])]),
        abort("y", producer(1, 0), 24),
        abort("y", producer(1, 0), 25),
        CommandKind::ExpireTransactionalIds(ExpireTransactionalIds { ids: vec![expired("z", 23), expired("y", 1)] }),
        runs(5, &[run(1, 64, 1_700_000_002_000, vec![batch(0, 2, 0, true), batch(1, 1, 0, true)])]),
        offsets(producer(0, 2), true, &[1]),
    ]
}

#[test]
fn transactions_of_version_4() {
    let state = play("v4/transactions", transactions_story(), |_, _| {});
    let ends = [0, 1, 2].map(|slot| state.partition(Slot(slot)).map(|p| (p.last_stable().0, p.end.0)).unwrap());
    assert_eq!(ends, [(15, 15), (4, 10), (0, 0)]);
    let states = ["x", "y"].map(|id| state.transactional_producer(id).unwrap().state_name());
    assert_eq!((states, state.has_pending_offset("readers", Slot(1))), (["Ongoing", "Ongoing"], true));
    assert!(state.transactional_producer("z").is_none());
}

/// Objects that die before and after the level that knows of it, are forgotten, and are refused below the horizon.
fn collection_story() -> Vec<CommandKind> {
    let topic = |name: &str, n, partitions| {
        let (name, id) = (name.to_owned(), id(n));
        CommandKind::CreateTopic(CreateTopic { name, id, partitions, replication_factor: 1, configs: vec![] })
    };
    let runs = |ulid, object, runs: &[RunSpec]| CommandKind::CommitRuns(commit(ulid, object, runs));
    let plain = |slot, position| run(slot, position, 1_700_000_000_000, vec![batch(100, 3, None)]);
    let trim = |n, config_version, trims: &[(i32, i64)]| {
        let trims: Vec<_> = trims.iter().map(|(index, offset)| (PartitionIndex(*index), Offset(*offset))).collect();
        TopicTrims::new(TopicId(Uuid::from_u128(n)), config_version, &trims)
    };
    let trims = |topics| CommandKind::TrimLogs(TrimLogs { topics });
    let forget = |objects: &[(u64, u64)]| {
        let objects: Vec<_> = objects.iter().map(|(id, since)| (ObjectId(*id), Position(*since))).collect();
        CommandKind::ForgetObjects(ForgetObjects::new(&objects))
    };
    let horizon = |position| CommandKind::RaiseOrphanHorizon(RaiseOrphanHorizon { position });
    let settings = Settings { garbage_grace_ms: 600_000, ..SETTINGS };
    let changes = vec![set("retention.ms", Some("1000"))];
    vec![
        CommandKind::Bootstrap(Bootstrap { cluster_id: "4L6g3nShT-eMCtK--X86sw".into(), settings: SETTINGS }),
        CommandKind::RegisterBroker(RegisterBroker { broker: 1, incarnation: 1 << 60, feature_level_max: 5 }),
        topic("orders", 0xa, 3),
        runs(1, None, &[plain(0, 64), plain(1, 164)]),
        runs(2, None, &[plain(0, 64)]),
        CommandKind::DeleteRecords(DeleteRecords { slot: 0, offset: 6 }),
        CommandKind::RaiseFeatureLevel(RaiseFeatureLevel { level: 5 }),
        CommandKind::SetSettings(SetSettings { settings }),
        runs(3, None, &[plain(0, 64), plain(2, 164)]),
        runs(4, None, &[plain(2, 64)]),
        CommandKind::AlterTopicConfigs(AlterTopicConfigs { topic_id: id(0xa), changes, from_version: 1 }),
        trims(vec![trim(0xa, 1, &[(0, 9), (2, 3)]), trim(0xd, 1, &[(0, 1)])]),
        trims(vec![trim(0xa, 2, &[(0, 99), (2, 4), (7, 1)])]),
        trims(vec![TopicTrims { trims: vec![0x80].into(), ..trim(0xa, 2, &[]) }]),
        runs(3, Some(2), &[plain(1, 264)]),
        forget(&[(0, 4), (1, 7), (2, 12), (9, 1)]),
        forget(&[(2, 13)]),
        horizon(99),
        horizon(18),
        horizon(5),
        runs(5, None, &[plain(0, 64)]),
        topic("gone", 0xb, 1),
        CommandKind::CommitRuns(CommitRuns { applied_position: 21, ..commit(6, None, &[plain(3, 64), plain(2, 164)]) }),
        CommandKind::DeleteTopic(DeleteTopic { topic_id: id(0xb) }),
        CommandKind::DeleteTopic(DeleteTopic { topic_id: id(0xa) }),
    ]
}

#[test]
fn collection_of_version_5() {
    let state = play("v5/collection", collection_story(), |_, _| {});
    let dead: Vec<(u64, u64)> = state.dead_objects().map(|(id, death, _)| (id.0, death.since.0)).collect();
    assert_eq!(dead, [(0, 25), (3, 25), (4, 25)]);
    assert_eq!((state.dead_bytes(), state.orphan_horizon(), state.object_count()), (30_000, Position(18), 3));
}

/// Flushes of two partitions and a transaction become one object of each level; some shares have changed meanwhile.
fn compaction_story() -> Vec<CommandKind> {
    let settings = Settings { transactional_ids_max: 3, transaction_partitions_max: 5, ..SETTINGS };
    let topic =
        CreateTopic { name: "orders".into(), id: id(0xa), partitions: 3, replication_factor: 1, configs: vec![] };
    let flush = |ulid, runs: &[RunSpec]| CommandKind::CommitRuns(commit(ulid, None, runs));
    let share = |slot, base: i64, runs: &[(i64, u32, i64)]| CompactedShare {
        slot: Slot(slot),
        base_offset: Offset(base),
        runs: runs
            .iter()
            .map(|&(end, bytes, timestamp)| CompactedRun {
                end_offset: Offset(end),
                bytes,
                max_timestamp: TimestampMs(timestamp),
            })
            .collect(),
    };
    let applied = Head { position: Position(9), token: Token(0x0102_0304_0506_0708) };
    let compaction = |ulid, object: Option<u64>, level, inputs: &[u64], position, shares: &[CompactedShare]| {
        let (name, inputs) = (ObjectName::compacted(applied, ulid), inputs.iter().map(|n| ObjectId(*n)));
        let inputs: Vec<ObjectId> = inputs.collect();
        let command = CommitCompaction::new(name, 10_000, object.map(ObjectId), (level, &inputs), position, shares);
        CommandKind::CommitCompaction(command)
    };
    let mut transactional = batch(100, 3, Some((0, 0, 0)));
    transactional.producer = transactional.producer.map(|p| ProducerSpec { transactional: true, joins: true, ..p });
    let producer = ProducerStamp { id: 0, epoch: 0 };
    let first = [(3, 300, 1_700_000_000_000), (8, 478, 1_700_000_001_000)];
    vec![
        CommandKind::Bootstrap(Bootstrap { cluster_id: "4L6g3nShT-eMCtK--X86sw".into(), settings }),
        CommandKind::RegisterBroker(RegisterBroker { broker: 1, incarnation: 1 << 60, feature_level_max: 6 }),
        CommandKind::RaiseFeatureLevel(RaiseFeatureLevel { level: 6 }),
        CommandKind::CreateTopic(topic),
        CommandKind::InitProducer(InitProducer { transactional_id: "x".into(), timeout_ms: 60_000, exchanged: None }),
        flush(
            1,
            &[run(0, 64, 1_700_000_000_000, vec![batch(300, 3, None)]), run(1, 364, -1, vec![batch(70, 2, None)])],
        ),
        flush(2, &[run(0, 64, 1_700_000_001_000, vec![transactional])]),
        CommandKind::EndTransaction(EndTransaction {
            transactional_id: "x".into(),
            producer,
            commit: false,
            bump: true,
        }),
        flush(3, &[run(0, 64, 1_700_000_001_000, vec![batch(300, 1, None)]), run(1, 364, 5, vec![batch(70, 2, None)])]),
        compaction(10, None, 1, &[0, 1, 2], 64, &[share(0, 0, &first), share(2, 0, &[(1, 50, 0)])]),
        compaction(10, Some(3), 1, &[0, 1, 2], 892, &[share(1, 0, &[(4, 140, i64::MIN)])]),
        compaction(10, None, 1, &[0, 1, 2], 64, &[share(0, 0, &first)]),
        flush(4, &[run(0, 64, 7, vec![batch(300, 3, None)])]),
        CommandKind::DeleteRecords(DeleteRecords { slot: 0, offset: 4 }),
        compaction(11, None, 2, &[3], 64, &[share(0, 0, &[(3, 300, 1), (8, 478, 2)]), share(1, 0, &[(3, 90, 3)])]),
    ]
}

#[test]
fn compaction_of_version_6() {
    let state = play("v6/compaction", compaction_story(), |_, _| {});
    let runs = |slot| {
        let tail = &state.partition(Slot(slot)).unwrap().tail;
        tail.iter().map(|run| (run.end_offset.0, run.object.0, run.position)).collect::<Vec<_>>()
    };
    assert_eq!(runs(0), [(8, 5, 364), (11, 4, 64)]);
    assert_eq!(runs(1), [(4, 3, 892)]);
    let objects: Vec<_> = state.objects().map(|(_, meta)| (meta.level, meta.live_runs, meta.was_input)).collect();
    assert_eq!(objects, [(0, 0, true), (0, 0, true), (0, 0, true), (1, 1, true), (0, 1, false), (2, 1, false)]);
}

/// A log of two flushes, one of them aborted, that is compacted and cleaned: in two pieces, then by settings that the topic has
/// no more.
fn cleaning_story() -> Vec<CommandKind> {
    let mut story = compaction_story();
    story.truncate(10);
    for kind in &mut story {
        match kind {
            CommandKind::RegisterBroker(register) => register.feature_level_max = 7,
            CommandKind::RaiseFeatureLevel(raise) => raise.level = 7,
            _ => {}
        }
    }
    let applied = Head { position: Position(10), token: Token(0x0102_0304_0506_0708) };
    let clean = |ulid, position, base: i64, ends: &[i64], cleaned| {
        let run = |end: &i64| CompactedRun { end_offset: Offset(*end), bytes: 61, max_timestamp: TimestampMs(5) };
        let share = CompactedShare { slot: Slot(0), base_offset: Offset(base), runs: ends.iter().map(run).collect() };
        let name = ObjectName::compacted(applied, ulid);
        let command = CommitCompaction::new(name, 10_000, None, (1, &[ObjectId(3)]), position, &[share]);
        CommandKind::CommitCompaction(command.with_cleaned(&[cleaned]))
    };
    let config_version = 1;
    let configs = vec![set("cleanup.policy", Some("compact,delete"))];
    story.extend([
        clean(20, 64, 0, &[3], CleanedShare { config_version, cleaned: 0 }),
        clean(21, 64, 3, &[8], CleanedShare { config_version, cleaned: 8 }),
        CommandKind::AlterTopicConfigs(AlterTopicConfigs { topic_id: id(0xa), changes: configs, from_version: 1 }),
        clean(22, 64, 0, &[8], CleanedShare { config_version, cleaned: 8 }),
    ]);
    story
}

#[test]
fn cleaning_of_version_7() {
    let state = play("v7/cleaning", cleaning_story(), |_, _| {});
    let partition = state.partition(Slot(0)).unwrap();
    let runs: Vec<_> = partition.tail.iter().map(|run| (run.end_offset.0, run.object.0, run.bytes)).collect();
    assert_eq!((runs, partition.cleaned), (vec![(3, 4, 61), (8, 5, 61)], Offset(8)));
    assert_eq!(partition.transactions().map_or(0, |transactions| transactions.all_aborted().count()), 0);
}

#[test]
fn offsets_topic_of_version_1() {
    let topic = |name: &str, n, partitions| CreateTopic {
        name: name.to_owned(),
        id: id(n),
        partitions,
        replication_factor: 1,
        configs: vec![],
    };
    let limits = Settings { groups_max: 3, group_offsets_max: 3, group_bytes_max: 1000, ..SETTINGS };
    let offset = |slot| OffsetSpec { slot, offset: 42, leader_epoch: 3, metadata: "m".into() };
    let commit = GroupOffsets { group: "alone".into(), offsets: vec![offset(0), offset(1)], ..Default::default() };
    let offsets = vec![SeenOffset { slot: 1, sequence: 1 }];
    let story = [
        CommandKind::Bootstrap(Bootstrap { cluster_id: "4L6g3nShT-eMCtK--X86sw".into(), settings: limits }),
        CommandKind::RegisterBroker(RegisterBroker { broker: 1, incarnation: 1 << 60, feature_level_max: 1 }),
        CommandKind::CreateTopic(topic("orders", 0xa, 2)),
        CommandKind::CreateTopic(topic(OFFSETS_TOPIC, 0xb, 2)),
        CommandKind::CommitOffsets(CommitOffsets { groups: vec![commit] }),
        CommandKind::DeleteOffsets(DeleteOffsets { group: "alone".into(), from_version: 0, offsets }),
        CommandKind::DeleteGroup(DeleteGroup { group: "alone".into(), from_version: 0 }),
    ];
    let mut state = State::default();
    for (n, kind) in (1..).zip(story) {
        state.apply(Position(n), &entry(&state, kind));
    }
    let held = golden("v1/offsets-topic-snapshot", &state.encode_snapshot().1);
    let state = State::decode_snapshot(&held).unwrap().1;
    assert_eq!(state.encode_snapshot().1, held);
    let records = state.offsets_records(state.offsets_slot("alone").unwrap(), Offset(0));
    let offsets: Vec<i64> = records.map(|(offset, _)| offset.0).collect();
    assert_eq!(offsets, [2, 3, 4]);
}

#[test]
fn object_of_version_2() {
    let applied = Head { position: Position(7), token: Token(0x0102_0304_0506_0708) };
    let name = ObjectName::compacted(applied, 0x018b_cfe5_6800_0123_4567_89ab_cdef_0011);
    let header = ObjectHeader { name, incarnation: Incarnation(1 << 60), written_ms: TimestampMs(1_700_000_000_000) };
    let mut writer = ObjectWriter::new(&header);
    let topic = TopicId(Uuid::from_u128(0xa));
    for text in ["the first run", "and another of the same partition"] {
        let position = writer.position();
        writer.push(Bytes::from(text));
        writer.end_run(topic, PartitionIndex(0), position, 1);
    }
    let held = golden("v6/object", &writer.finish().0.concat());
    let (read, rows) = read_footer(&held).unwrap();
    assert_eq!((read, rows.len()), (header, 2));
    assert_eq!(
        name.key(),
        "compacted/1/0000000000000007-0102030405060708-018bcfe5680001234567 89abcdef0011".replace(' ', "")
    );
}

#[test]
fn object_of_version_1() {
    let applied = Head { position: Position(7), token: Token(0x0102_0304_0506_0708) };
    let name = ObjectName::data(applied, 0x018b_cfe5_6800_0123_4567_89ab_cdef_0011);
    let header = ObjectHeader { name, incarnation: Incarnation(1 << 60), written_ms: TimestampMs(1_700_000_000_000) };
    let mut writer = ObjectWriter::new(&header);
    let mut runs = Vec::new();
    let topic = TopicId(Uuid::from_u128(0xa));
    for (partition, batches) in [(0, vec!["one batch", "and another"]), (2, vec!["of another partition"])] {
        let (position, batches_in) = (writer.position(), batches.len() as u32);
        batches.iter().for_each(|b| writer.push(Bytes::from(*b)));
        writer.end_run(topic, PartitionIndex(partition), position, batches_in);
        let bytes = writer.position() - position;
        runs.push(FooterRun { topic, partition: PartitionIndex(partition), position, bytes, batches: batches_in });
    }
    let (body, _) = writer.finish();
    let held = golden("v1/object", &body.concat());
    assert_eq!(read_footer(&held).unwrap(), (header, runs));
    assert_eq!(
        name.key(),
        "data/1/0000000000000007-0102030405060708-018bcfe5680001234567 89abcdef0011".replace(' ', "")
    );
}
