//! Commands about groups. What a group's members may do was decided by its coordinator; here its version is checked,
//! which tells a coordinator that is not one any more, and the limits.
use std::sync::Arc;

use super::State;
use crate::state::command::AlterGroupConfigs;
use crate::state::group::{
    ChangeGroup, CommitOffsets, CommittedOffset, DeleteGroup, DeleteOffsets, Group, GroupName, GroupOffsets, OffsetSpec,
};
use crate::state::outcome::{OffsetsOutcome, Outcome};
use crate::types::{KafkaError, LeaderEpoch, Offset, Slot, TimestampMs};

impl State {
    pub(super) fn change_group(&mut self, command: &ChangeGroup) -> Outcome {
        let old = self.groups.get(command.group.as_str());
        if old.map_or(0, |g| g.version) != command.from_version {
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
        group.version += 1;
        group.sequence = self.take_group_sequence();
        self.group_bytes = bytes;
        self.groups.insert(Arc::from(command.group.as_str()), Arc::new(group));
        Outcome::Done
    }

    pub(super) fn delete_group(&mut self, command: &DeleteGroup) -> Outcome {
        let Some(group) = self.groups.get(command.group.as_str()) else {
            return Outcome::refused(KafkaError::GroupIdNotFound, "There is no such group.");
        };
        if group.version != command.from_version {
            return stale();
        }
        self.group_bytes -= group.bytes;
        self.group_offsets -= group.offsets.len() as u64;
        self.groups.remove(command.group.as_str());
        Outcome::Done
    }

    pub(super) fn commit_offsets(&mut self, now: TimestampMs, command: &CommitOffsets) -> Outcome {
        Outcome::Offsets(command.groups.iter().map(|request| self.commit_group_offsets(now, request)).collect())
    }

    fn commit_group_offsets(&mut self, now: TimestampMs, request: &GroupOffsets) -> OffsetsOutcome {
        let old = self.groups.get(request.group.as_str());
        if old.map_or(0, |g| g.version) != request.from_version {
            return OffsetsOutcome::Refused { error: KafkaError::NotCoordinator };
        }
        let fresh = request.offsets.iter().filter(|o| old.is_none_or(|g| !g.offsets.contains_key(&Slot(o.slot))));
        let full = self.group_offsets + fresh.count() as u64 > u64::from(self.settings.group_offsets_max);
        if full || (old.is_none() && self.groups.len() >= self.settings.groups_max as usize) {
            return OffsetsOutcome::Refused { error: KafkaError::InvalidCommitOffsetSize };
        }
        let name: GroupName = Arc::from(request.group.as_str());
        let mut group = self.groups.get(&name).map_or_else(Arc::default, Arc::clone);
        let expires_ms = request.retention_ms.map(|kept| TimestampMs(now.0.saturating_add(kept)));
        let mut deleted = Vec::new();
        for spec in &request.offsets {
            if self.partition(Slot(spec.slot)).is_none() {
                deleted.push(Slot(spec.slot));
                continue;
            }
            let committed = committed(spec, now, expires_ms, self.take_group_sequence());
            if Arc::make_mut(&mut group).offsets.insert(Slot(spec.slot), committed).is_none() {
                self.group_offsets += 1;
            }
        }
        if deleted.len() < request.offsets.len() {
            self.groups.insert(name, group);
        }
        OffsetsOutcome::Committed { deleted }
    }

    pub(super) fn delete_offsets(&mut self, command: &DeleteOffsets) -> Outcome {
        let Some(group) = self.groups.get_mut(command.group.as_str()) else {
            return Outcome::refused(KafkaError::GroupIdNotFound, "There is no such group.");
        };
        if group.version != command.from_version {
            return stale();
        }
        let group = Arc::make_mut(group);
        for seen in &command.offsets {
            if group.offsets.get(&Slot(seen.slot)).is_some_and(|c| c.sequence == seen.sequence) {
                group.offsets.remove(&Slot(seen.slot));
                self.group_offsets -= 1;
            }
        }
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

    /// The offsets that any group has committed for these slots go with them.
    pub(super) fn forget_offsets_of(&mut self, slots: &[Slot]) {
        let holds = |group: &Group| slots.iter().any(|slot| group.offsets.contains_key(slot));
        let names: Vec<GroupName> =
            self.groups.iter().filter(|(_, group)| holds(group)).map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(group) = self.groups.get_mut(&name) else { continue };
            let group = Arc::make_mut(group);
            let gone = slots.iter().filter(|slot| group.offsets.remove(*slot).is_some()).count();
            self.group_offsets -= gone as u64;
        }
    }

    fn take_group_sequence(&mut self) -> u64 {
        self.next_group_sequence += 1;
        self.next_group_sequence - 1
    }
}

fn committed(spec: &OffsetSpec, now: TimestampMs, expires_ms: Option<TimestampMs>, sequence: u64) -> CommittedOffset {
    CommittedOffset {
        offset: Offset(spec.offset),
        leader_epoch: LeaderEpoch(spec.leader_epoch),
        metadata: Arc::from(spec.metadata.as_str()),
        committed_ms: now,
        expires_ms,
        sequence,
    }
}

fn stale() -> Outcome {
    Outcome::refused(KafkaError::NotCoordinator, "The group was changed by another coordinator meanwhile.")
}
