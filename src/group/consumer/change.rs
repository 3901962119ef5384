//! What of a group differs from State, and how it gets there.
use prost::Message;
use std::collections::BTreeSet;

use super::ConsumerGroup;
use super::member::{MemberId, partitions_record};
use crate::group::machine::Step;
use crate::state::{ChangeGroup, GroupHeader, TargetRecord};

/// Bytes of members and targets in one change. An entry of the journal must hold it with room to spare; a member with
/// its largest record fits.
pub(super) const CHANGE_BYTES_MAX: usize = 5 << 19;

/// What was changed and not given out.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    pub header: bool,
    pub gone: BTreeSet<MemberId>,
    pub members: BTreeSet<MemberId>,
    pub targets: BTreeSet<MemberId>,
}

impl ConsumerGroup {
    /// Gives out what changed, in one change, or in several if it is large: until the last of them State has the group as
    /// one whose targets are still to be computed, so whoever loads it from there computes them again.
    pub(super) fn flush(&mut self, step: &mut Step<'_>) {
        let changes = std::mem::take(&mut self.changes);
        let mut parts = Parts { done: Vec::new(), part: ChangeGroup::default(), bytes: 0 };
        for id in changes.gone.iter().map(ToString::to_string) {
            parts.make_room(id.len() + 4);
            parts.part.gone.push(id);
        }
        for member in changes.members.iter().filter_map(|id| self.members.get(id)) {
            let record = member.record();
            parts.make_room(record.encoded_len() + 8);
            parts.part.members.push(record);
        }
        for (id, target) in changes.targets.iter().filter_map(|id| self.targets.get_key_value(id)) {
            let record = TargetRecord { member: id.to_string(), partitions: partitions_record(target) };
            parts.make_room(record.encoded_len() + 8);
            parts.part.targets.push(record);
        }
        let mut changes_out = parts.done;
        if parts.part != ChangeGroup::default() || changes.header {
            changes_out.push(parts.part);
        }
        let last = changes_out.len().saturating_sub(1);
        for (at, mut change) in changes_out.into_iter().enumerate() {
            if at == last {
                change.header = changes.header.then(|| self.header.clone());
            } else if at == 0 {
                let unassigned = self.header.assignment_epoch.min(self.header.epoch.saturating_sub(1));
                change.header = Some(GroupHeader { assignment_epoch: unassigned, ..self.header.clone() });
            }
            step.change(change);
        }
    }
}

struct Parts {
    done: Vec<ChangeGroup>,
    part: ChangeGroup,
    bytes: usize,
}

impl Parts {
    fn make_room(&mut self, bytes: usize) {
        if self.bytes + bytes > CHANGE_BYTES_MAX && self.bytes > 0 {
            self.done.push(std::mem::take(&mut self.part));
            self.bytes = 0;
        }
        self.bytes += bytes;
    }
}
