use bytes::Bytes;

use crate::state::*;
use crate::types::*;

/// A journal of one broker with the topic `t` (slots 0 and 1) in a State.
struct Fold(State, u64);

impl Fold {
    fn new() -> Self {
        let mut fold = Self(State::default(), 0);
        let settings = Settings {
            topics_max: 10,
            partitions_max: 100,
            partitions_per_topic_max: 50,
            groups_max: 100,
            group_offsets_max: 100_000,
            group_bytes_max: 1 << 20,
            ..Settings::default()
        };
        fold.apply(Bootstrap { cluster_id: "c".into(), settings });
        fold.apply(RegisterBroker { broker: 1, incarnation: 5, feature_level_max: 1 });
        fold.topic("t", 2);
        fold
    }

    /// With `__consumer_offsets` in slots 2 to 11.
    fn with_offsets_topic() -> Self {
        let mut fold = Self::new();
        fold.topic(OFFSETS_TOPIC, 10);
        fold
    }

    fn apply(&mut self, command: impl Into<Command>) {
        self.1 += 1;
        let entry = Entry {
            feature_level: 1,
            broker: 1,
            incarnation: 5,
            counter: self.1,
            token: self.1,
            wall_ms: 1000 + self.1 as i64,
            commands: vec![command.into()],
            ..Entry::default()
        };
        let outcomes = self.0.apply(self.0.head().position.next(), &entry);
        assert!(!matches!(outcomes[..], [Outcome::Refused(_) | Outcome::Fenced]), "{outcomes:?}");
    }

    fn topic(&mut self, name: &str, partitions: u32) {
        let id = Bytes::copy_from_slice(Uuid::from_u128(u128::from(self.1) + 1).as_bytes());
        self.apply(CreateTopic { name: name.into(), id, partitions, replication_factor: 1, configs: vec![] });
    }

    fn delete_topic(&mut self, name: &str) {
        let id = self.0.topic_by_name(name).unwrap().id;
        self.apply(DeleteTopic { topic_id: Bytes::copy_from_slice(id.0.as_bytes()) });
    }

    fn commit(&mut self, group: &str, slots: &[u32]) {
        let spec = |slot: &u32| OffsetSpec { slot: *slot, offset: 7, leader_epoch: -1, metadata: String::new() };
        let from_version = self.0.group(group).map_or(0, |g| g.version);
        let offsets = slots.iter().map(spec).collect();
        self.apply(CommitOffsets {
            groups: vec![GroupOffsets {
                group: group.into(),
                from_version,
                offsets,
                retention_ms: None,
                transaction: None,
            }],
        });
    }

    fn change(&mut self, group: &str, protocol: GroupProtocol) {
        let from_version = self.0.group(group).map_or(0, |g| g.version);
        let header = GroupHeader { protocol: protocol as i32, ..GroupHeader::default() };
        self.apply(ChangeGroup { group: group.into(), from_version, header: Some(header), ..ChangeGroup::default() });
    }

    fn delete_group(&mut self, group: &str) {
        let from_version = self.0.group(group).unwrap().version;
        self.apply(DeleteGroup { group: group.into(), from_version });
    }

    /// The records of the group's partition as text, and where it ends.
    fn log(&self, group: &str) -> (Vec<String>, i64) {
        let slot = self.0.offsets_slot(group).unwrap();
        let text = |(offset, record): (Offset, &OffsetsRecord)| match record {
            OffsetsRecord::Commit(group, slot) => format!("{offset} {group} {slot}"),
            OffsetsRecord::Group(group) => format!("{offset} {group}"),
            OffsetsRecord::Tombstone(t) => match &t.partition {
                Some((topic, index)) => format!("{offset} -{} {topic}-{index} at {}", t.group, t.deleted_ms),
                None => format!("{offset} -{} at {}", t.group, t.deleted_ms),
            },
        };
        (self.0.offsets_records(slot, Offset(0)).map(text).collect(), self.0.partition(slot).unwrap().end.0)
    }

    /// A snapshot gives the same records, and is the same again.
    fn check_snapshot(&self, groups: &[&str]) {
        let bytes = self.0.encode_snapshot().1;
        let again = Self(State::decode_snapshot(&bytes).unwrap().1, self.1);
        assert_eq!(again.0.encode_snapshot().1, bytes);
        groups.iter().for_each(|group| assert_eq!(again.log(group), self.log(group)));
    }
}

#[test]
fn a_commit_stands_at_its_sequence_and_replaces_the_one_before() {
    let mut fold = Fold::with_offsets_topic();
    fold.commit("simple", &[0, 1]);
    fold.commit("classic", &[0]);
    fold.commit("simple", &[0]);
    assert_eq!(fold.0.offsets_slot("simple"), Some(Slot(8)));
    assert_eq!(fold.log("simple"), (vec!["1 simple 1".into(), "3 simple 0".into()], 4));
    assert_eq!(fold.log("classic"), (vec!["2 classic 0".into()], 3));
    assert!(fold.0.is_offsets_slot(Slot(8)) && !fold.0.is_offsets_slot(Slot(1)));
    assert_eq!(fold.0.offsets_records(Slot(8), Offset(2)).count(), 1);
    fold.check_snapshot(&["simple", "classic"]);
}

#[test]
fn what_was_committed_before_there_was_a_topic_is_in_it() {
    let mut fold = Fold::new();
    fold.commit("simple", &[0, 1]);
    fold.change("classic", GroupProtocol::Classic);
    assert_eq!(fold.0.offsets_slot("simple"), None);
    fold.topic(OFFSETS_TOPIC, 10);
    assert_eq!(fold.log("simple"), (vec!["0 simple 0".into(), "1 simple 1".into()], 2));
    assert_eq!(fold.log("classic"), (vec!["2 classic".into()], 3));
    // It is as if it had always been there.
    fold.commit("simple", &[0]);
    assert_eq!(fold.log("simple").0, ["1 simple 1", "3 simple 0"]);
    let topic_id = Bytes::copy_from_slice(fold.0.topic_by_name(OFFSETS_TOPIC).unwrap().id.0.as_bytes());
    fold.apply(CreatePartitions { topic_id, count: 23 });
    assert_eq!(fold.log("simple"), (vec!["1 simple 1".into(), "3 simple 0".into()], 4));
    fold.delete_topic(OFFSETS_TOPIC);
    assert_eq!(fold.0.group("simple").unwrap().offsets.len(), 2);
    fold.topic(OFFSETS_TOPIC, 1);
    assert_eq!(fold.log("simple"), (vec!["1 simple 1".into(), "2 classic".into(), "3 simple 0".into()], 4));
    fold.check_snapshot(&["simple"]);
}

#[test]
fn what_is_deleted_leaves_tombstones() {
    let mut fold = Fold::with_offsets_topic();
    fold.commit("simple", &[0, 1]);
    fold.change("simple", GroupProtocol::Classic);
    let seen = SeenOffset { slot: 0, sequence: 0 };
    fold.apply(DeleteOffsets { group: "simple".into(), from_version: 1, offsets: vec![seen] });
    let now = 1000 + fold.1 as i64;
    let expected = vec!["1 simple 1".to_owned(), "2 simple".to_owned(), format!("3 -simple t-0 at {now}")];
    assert_eq!(fold.log("simple"), (expected, 4));
    fold.check_snapshot(&["simple"]);
    fold.delete_group("simple");
    let expected = [
        format!("3 -simple t-0 at {now}"),
        format!("4 -simple t-1 at {}", now + 1),
        format!("5 -simple at {}", now + 1),
    ];
    assert_eq!(fold.log("simple"), (expected.to_vec(), 6));
    fold.check_snapshot(&["simple"]);
}

#[test]
fn offsets_of_a_deleted_topic_leave_tombstones_that_name_it() {
    let mut fold = Fold::with_offsets_topic();
    fold.commit("simple", &[1]);
    fold.delete_topic("t");
    assert_eq!(fold.log("simple").0, [format!("1 -simple t-1 at {}", 1000 + fold.1)]);
    fold.check_snapshot(&["simple"]);
}

#[test]
fn groups_of_the_other_protocol_have_no_record() {
    let mut fold = Fold::with_offsets_topic();
    fold.change("simple", GroupProtocol::Consumer);
    assert_eq!(fold.log("simple"), (vec![], 0));
    fold.change("simple", GroupProtocol::Classic);
    assert_eq!(fold.log("simple"), (vec!["1 simple".into()], 2));
    fold.change("simple", GroupProtocol::Consumer);
    assert_eq!(fold.log("simple").0, [format!("3 -simple at {}", 1000 + fold.1)]);
    fold.check_snapshot(&["simple"]);
}

#[test]
fn tombstones_are_bounded_and_the_end_stays() {
    let mut fold = Fold::with_offsets_topic();
    fold.commit("simple", &[0]);
    fold.delete_group("simple");
    assert_eq!(fold.log("simple").0.len(), 2);
    for _ in 0..super::TOMBSTONES_MAX / 2 {
        fold.commit("classic", &[0]);
        fold.delete_group("classic");
    }
    assert_eq!(fold.log("simple"), (vec![], 3));
    assert_eq!(fold.log("classic").0.len(), super::TOMBSTONES_MAX);
    fold.check_snapshot(&["simple", "classic"]);
}
