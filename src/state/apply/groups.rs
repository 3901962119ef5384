//! Commands about groups. What a group's members may do was decided by its coordinator; here its version is checked,
//! which tells a coordinator that is not one any more, and the limits.
use std::sync::Arc;

use super::State;
use crate::planted::{Defect, planted};
use crate::state::command::AlterGroupConfigs;
use crate::state::group::{
    ChangeGroup, CommitOffsets, CommittedOffset, DeleteGroup, DeleteOffsets, Group, GroupName, GroupOffsets, OffsetSpec,
};
use crate::state::outcome::{OffsetsOutcome, Outcome};
use crate::state::producer::Moment;
use crate::state::topic::Topic;
use crate::types::{KafkaError, LeaderEpoch, Offset, PartitionIndex, Slot, TimestampMs};

impl State {
    pub(super) fn change_group(&mut self, now: TimestampMs, command: &ChangeGroup) -> Outcome {
        let old = self.groups.get(command.group.as_str());
        if old.map_or(0, |g| g.version) != command.from_version && !planted(Defect::TwoCoordinators) {
            return stale();
        }
        if old.is_none() && self.groups.len() >= self.settings.groups_max as usize {
            let message = format!("The cluster has its limit of {} groups (groups_max).", self.settings.groups_max);
            return Outcome::refused(KafkaError::GroupMaxSizeReached, message);
        }
        let mut group = old.map_or_else(Group::default, |g| Group::clone(g));
        let before = group.bytes;
        command.gone.iter().for_each(|id| group.remove_member(id));
        command.members.iter().for_each(|m| group.put_member(m.clone()));
        command.targets.iter().for_each(|t| group.put_target(t.clone()));
        let bytes = self.group_bytes - before + group.bytes;
        if group.bytes > before && bytes > self.settings.group_bytes_max {
            let max = self.settings.group_bytes_max;
            let message = format!("Members and assignments of all groups have their limit of {max} bytes.");
            return Outcome::refused(KafkaError::GroupMaxSizeReached, message);
        }
        if let Some(header) = &command.header {
            group.header = header.clone();
        }
        group.version = if command.to_version > 0 { command.to_version } else { group.version + 1 };
        group.sequence = self.take_group_sequence();
        self.group_bytes = bytes;
        let name = self.group_name(&command.group);
        let old = self.groups.insert(name.clone(), Arc::new(group));
        self.log_group(&name, old.as_deref(), now);
        Outcome::Done
    }

    pub(super) fn delete_group(&mut self, now: TimestampMs, command: &DeleteGroup) -> Outcome {
        let Some(group) = self.groups.get(command.group.as_str()).cloned() else {
            return Outcome::refused(KafkaError::GroupIdNotFound, "There is no such group.");
        };
        if group.version != command.from_version {
            return stale();
        }
        let name = self.group_name(&command.group);
        if self.has_pending_offsets(&name) {
            return Outcome::refused(
                KafkaError::NonEmptyGroup,
                "A transaction is open that commits offsets of the group.",
            );
        }
        self.log_group_deleted(&name, &group, now);
        self.group_bytes -= group.bytes;
        self.group_offsets -= group.offsets.len() as u64;
        self.groups.remove(command.group.as_str());
        Outcome::Done
    }

    pub(super) fn commit_offsets(&mut self, at: Moment, command: &CommitOffsets) -> Outcome {
        Outcome::Offsets(command.groups.iter().map(|request| self.commit_group_offsets(at, request)).collect())
    }

    fn commit_group_offsets(&mut self, at: Moment, request: &GroupOffsets) -> OffsetsOutcome {
        let now = at.wall_ms;
        let old = self.groups.get(request.group.as_str());
        if old.map_or(0, |g| g.version) != request.from_version && !planted(Defect::TwoCoordinators) {
            return OffsetsOutcome::Refused { error: KafkaError::NotCoordinator };
        }
        if let Some(transaction) = &request.transaction {
            return self.commit_with_transaction(at, request, transaction);
        }
        let fresh = request.offsets.iter().filter(|o| old.is_none_or(|g| !g.offsets.contains_key(&Slot(o.slot))));
        let full =
            self.group_offsets + self.pending + fresh.count() as u64 > u64::from(self.settings.group_offsets_max);
        if full || (old.is_none() && self.groups.len() >= self.settings.groups_max as usize) {
            return OffsetsOutcome::Refused { error: KafkaError::InvalidCommitOffsetSize };
        }
        let name = self.group_name(&request.group);
        let mut group = self.groups.get(&name).map_or_else(Arc::default, Arc::clone);
        let expires_ms = request.retention_ms.map(|kept| TimestampMs(now.0.saturating_add(kept)));
        let mut deleted = Vec::new();
        for spec in &request.offsets {
            if self.partition(Slot(spec.slot)).is_none() {
                deleted.push(Slot(spec.slot));
                continue;
            }
            let is_back = || group.offsets.get(&Slot(spec.slot)).is_some_and(|c| spec.offset < c.offset.0);
            if planted(Defect::CommitNeverGoesBack) && is_back() {
                continue;
            }
            let sequence = self.take_group_sequence();
            let committed = committed(spec, now, expires_ms, sequence);
            let old = Arc::make_mut(&mut group).offsets.insert(Slot(spec.slot), committed);
            self.group_offsets += u64::from(old.is_none());
            self.log_commit(&name, Slot(spec.slot), old.map(|c| c.sequence), sequence);
        }
        if deleted.len() < request.offsets.len() {
            self.groups.insert(name, group);
        }
        OffsetsOutcome::Committed { deleted }
    }

    pub(super) fn delete_offsets(&mut self, now: TimestampMs, command: &DeleteOffsets) -> Outcome {
        let Some(mut group) = self.groups.get(command.group.as_str()).cloned() else {
            return Outcome::refused(KafkaError::GroupIdNotFound, "There is no such group.");
        };
        if group.version != command.from_version {
            return stale();
        }
        let name = self.group_name(&command.group);
        for seen in &command.offsets {
            if group.offsets.get(&Slot(seen.slot)).is_some_and(|c| c.sequence == seen.sequence) {
                Arc::make_mut(&mut group).offsets.remove(&Slot(seen.slot));
                self.group_offsets -= 1;
                self.log_offset_deleted(&name, Slot(seen.slot), seen.sequence, now);
            }
        }
        self.groups.insert(name, group);
        Outcome::Done
    }

    pub(super) fn alter_group_configs(&mut self, command: &AlterGroupConfigs) -> Outcome {
        let name: GroupName = Arc::from(command.group.as_str());
        let fresh = !self.group_configs.contains_key(&name);
        if fresh && self.group_configs.len() >= self.settings.groups_max as usize {
            let message =
                format!("{} groups have settings, which is the limit (groups_max).", self.group_configs.len());
            return Outcome::refused(KafkaError::PolicyViolation, message);
        }
        let mut configs = self.group_configs.get(&name).map_or_else(Arc::default, Arc::clone);
        for change in &command.changes {
            match &change.value {
                Some(value) => drop(Arc::make_mut(&mut configs).insert(change.name.clone(), value.clone())),
                None => drop(Arc::make_mut(&mut configs).remove(&change.name)),
            }
        }
        if configs.is_empty() {
            self.group_configs.remove(&name);
        } else {
            self.group_configs.insert(name, configs);
        }
        Outcome::Done
    }

    /// The offsets that any group has committed for the deleted topic go with it.
    pub(super) fn forget_offsets_of(&mut self, topic: &Topic, now: TimestampMs) {
        let (Some(first), Some(last)) = (topic.slots.first(), topic.slots.last()) else { return };
        // Slots are given in rising order. A topic may have far more partitions than a group has offsets.
        let held = |group: &Group| -> Vec<(usize, Slot)> {
            let between = group.offsets.range(*first..=*last).map(|(slot, _)| *slot);
            between.filter_map(|slot| Some((topic.slots.binary_search(&slot).ok()?, slot))).collect()
        };
        let all = self.groups.iter().map(|(name, group)| (name.clone(), held(group)));
        let holders: Vec<(GroupName, Vec<(usize, Slot)>)> = all.filter(|(_, held)| !held.is_empty()).collect();
        for (name, held) in holders {
            let Some(mut group) = self.groups.get(&name).cloned() else { continue };
            for (index, slot) in held {
                let Some(gone) = Arc::make_mut(&mut group).offsets.remove(&slot) else { continue };
                self.group_offsets -= 1;
                let index = PartitionIndex(i32::try_from(index).expect("the limits keep partitions below 2^31"));
                self.log_partition_deleted(&name, Some((topic.name.clone(), index)), gone.sequence, now);
            }
            self.groups.insert(name, group);
        }
    }

    /// The name as State has it already, so that all that name a group share one text.
    pub(in crate::state) fn group_name(&self, name: &str) -> GroupName {
        self.groups.get_key_value(name).map_or_else(|| Arc::from(name), |(known, _)| known.clone())
    }

    pub(super) fn take_group_sequence(&mut self) -> u64 {
        self.next_group_sequence += 1;
        self.next_group_sequence - 1
    }
}

fn committed(spec: &OffsetSpec, now: TimestampMs, expires_ms: Option<TimestampMs>, sequence: u64) -> CommittedOffset {
    CommittedOffset {
        offset: Offset(spec.offset),
        leader_epoch: LeaderEpoch(spec.leader_epoch),
        metadata: Arc::from(if planted(Defect::CommitMetadataLost) { "" } else { spec.metadata.as_str() }),
        committed_ms: now,
        expires_ms,
        sequence,
    }
}

fn stale() -> Outcome {
    Outcome::refused(KafkaError::NotCoordinator, "The group was changed by another coordinator meanwhile.")
}
