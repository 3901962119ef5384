//! How far groups are behind, for `/metrics`.
use crate::cluster::Members;
use crate::state::State;
use crate::telemetry::lags::{GROUP_PARTITIONS_MAX, GroupLag, GroupLags};

/// The lag of every partition that a group of this coordinator has committed an offset for, up to
/// [`GROUP_PARTITIONS_MAX`].
#[must_use]
pub fn lags(state: &State, members: &Members) -> GroupLags {
    let groups = || state.groups().filter(|(name, _)| members.coordinates(name));
    let committed = groups().flat_map(|(name, group)| group.offsets.iter().map(move |(slot, c)| (name, slot, c)));
    let known = committed.filter_map(|(name, slot, committed)| {
        let partition = state.partition(*slot)?;
        Some(GroupLag {
            group: name.clone(),
            topic: state.topic(partition.topic)?.name.clone(),
            partition: partition.index.0,
            committed_offset: committed.offset.0,
            lag: partition.end.0.saturating_sub(committed.offset.0),
        })
    });
    let partitions: Vec<GroupLag> = known.take(GROUP_PARTITIONS_MAX).collect();
    let all: usize = groups().map(|(_, group)| group.offsets.len()).sum();
    let left_out = all.saturating_sub(partitions.len()) as u64;
    GroupLags { partitions, left_out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::*;
    use crate::types::*;
    use bytes::Bytes;

    #[test]
    fn lag_is_the_end_minus_what_is_committed_and_has_a_limit() {
        let partitions = u32::try_from(GROUP_PARTITIONS_MAX).unwrap() / 2 + 1;
        let settings = Settings {
            topics_max: 10,
            partitions_max: 100_000,
            partitions_per_topic_max: partitions,
            groups_max: 10,
            group_offsets_max: 100_000,
            ..Settings::default()
        };
        let id = Bytes::copy_from_slice(Uuid::from_u128(1).as_bytes());
        let spec = |slot| OffsetSpec { slot, offset: i64::from(slot), leader_epoch: -1, metadata: String::new() };
        let commit = |group: &str| GroupOffsets {
            group: group.into(),
            offsets: (0..partitions).map(spec).collect(),
            ..GroupOffsets::default()
        };
        let commands: Vec<Command> = vec![
            Bootstrap { cluster_id: "c".into(), settings }.into(),
            CreateTopic { name: "t".into(), id, partitions, replication_factor: 1, configs: vec![] }.into(),
            CommitOffsets { groups: vec![commit("b"), commit("a")] }.into(),
        ];
        let mut state = State::default();
        state.apply(Position(1), &Entry { commands, ..Entry::default() });
        let lags = lags(&state, &Members::of(BrokerId(1), &state));
        assert_eq!((lags.partitions.len(), lags.left_out), (GROUP_PARTITIONS_MAX, 2));
        let two = &lags.partitions[2];
        assert_eq!((&*two.group, &*two.topic, two.partition, two.committed_offset, two.lag), ("a", "t", 2, 2, -2));
        assert_eq!(&*lags.partitions[GROUP_PARTITIONS_MAX - 1].group, "b");
    }
}
