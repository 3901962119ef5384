//! `CommitCompaction`: the same records from now on lie elsewhere. Offsets, producers and transactions stay as they are.
use std::collections::BTreeSet;

use super::State;
use crate::planted::{Defect, planted};
use crate::segment::{HEADER_BYTES, ObjectName};
use crate::state::compaction::{
    CLEANING_LEVEL, COMPACTION_LEVEL, CleanedShare, CommitCompaction, CompactedShare, OBJECT_LEVEL_MAX,
};
use crate::state::outcome::Outcome;
use crate::state::producer::Moment;
use crate::state::tail::Run;
use crate::state::topic::ObjectMeta;
use crate::types::{KafkaError, ObjectId, Offset, Slot};

/// A command that says nothing impossible.
struct Checked {
    name: ObjectName,
    level: u8,
    inputs: BTreeSet<ObjectId>,
    shares: Vec<CompactedShare>,
}

/// What of a partition's log goes, and what comes in its place.
struct Exchange {
    slot: Slot,
    /// From where to where; nothing of it is left.
    base: Offset,
    end: Offset,
    gone: Vec<Run>,
    come: Vec<Run>,
}

impl State {
    pub(super) fn commit_compaction(&mut self, at: Moment, command: &CommitCompaction) -> Outcome {
        let checked = match self.check_compaction(command) {
            Ok(checked) => checked,
            Err(refusal) => return refusal,
        };
        let object = command.object.map_or(self.next_object, ObjectId);
        let (mut position, mut live_runs) = (command.position, 0_u32);
        let (mut taken, mut dropped, mut released) = (0, 0, Vec::new());
        for (n, share) in checked.shares.iter().enumerate() {
            let runs = placed(share, object, position);
            position = runs.last().map_or(position, |run| run.position + run.bytes);
            let cleaned = command.cleaned.get(n);
            let exchange = self.exchange(share, runs, &checked.inputs);
            match exchange.filter(|_| cleaned.is_none_or(|cleaned| self.is_of_now(share.slot, cleaned))) {
                Some(exchange) => {
                    live_runs += exchange.come.len() as u32;
                    taken += 1;
                    self.carry_out(exchange, &mut released);
                    self.note_cleaned(share, cleaned);
                }
                None => dropped += 1,
            }
        }
        if live_runs == 0 {
            return Outcome::Compacted { object: command.object.map(ObjectId), taken, dropped };
        }
        if let Some(meta) = self.objects.get_mut(&object) {
            meta.live_runs += live_runs;
        } else {
            let (name, level) = (checked.name, checked.level);
            let meta = ObjectMeta { name, bytes: command.object_bytes, live_runs, level, was_input: false };
            self.objects.insert(object, meta);
            self.next_object = ObjectId(object.0 + 1);
        }
        self.release(at, released);
        Outcome::Compacted { object: Some(object), taken, dropped }
    }

    /// Reads the command through, so that nothing is changed by half of a bad one.
    fn check_compaction(&self, command: &CommitCompaction) -> Result<Checked, Outcome> {
        let invalid = |message| Outcome::refused(KafkaError::UnknownServerError, message);
        if self.feature_level < COMPACTION_LEVEL {
            return Err(Outcome::refused(
                KafkaError::UnsupportedVersion,
                "the cluster's feature level has no compaction",
            ));
        }
        let name = command.name().ok_or_else(|| invalid("the object's ULID is not 16 bytes"))?;
        if self.is_below_horizon(name.applied.position) {
            let message = "the object is older than the orphan horizon";
            return Err(Outcome::refused(KafkaError::KafkaStorageError, message));
        }
        let level = u8::try_from(command.level).ok().filter(|level| (1..=OBJECT_LEVEL_MAX).contains(level));
        let level = level.ok_or_else(|| invalid("there is no such level"))?;
        match command.object {
            Some(object) => {
                self.check_continued(ObjectId(object), |known| known.name == name && known.level == level)?
            }
            None if self.objects.values().any(|meta| meta.name == name) => {
                return Err(invalid("an object of this name is known"));
            }
            None => {}
        }
        let shares = command.unpacked().ok_or_else(|| invalid("its shares are malformed"))?;
        self.check_cleaned(command, &shares)?;
        let bytes = shares.iter().map(CompactedShare::bytes).try_fold(0_u64, u64::checked_add);
        let end = bytes.and_then(|bytes| bytes.checked_add(u64::from(command.position)));
        let lies_within = end.is_some_and(|end| end <= u64::from(command.object_bytes));
        if command.position < HEADER_BYTES || !lies_within {
            return Err(invalid("a run lies beyond its object"));
        }
        let inputs = command.inputs.iter().map(|input| ObjectId(*input)).collect();
        Ok(Checked { name, level, inputs, shares })
    }

    /// What log compaction says of the shares.
    fn check_cleaned(&self, command: &CommitCompaction, shares: &[CompactedShare]) -> Result<(), Outcome> {
        if command.cleaned.is_empty() {
            return Ok(());
        }
        if self.feature_level < CLEANING_LEVEL {
            let message = "the cluster's feature level has no log compaction";
            return Err(Outcome::refused(KafkaError::UnsupportedVersion, message));
        }
        let lies_within =
            |(cleaned, share): (&CleanedShare, &CompactedShare)| cleaned.cleaned <= share.end_offset().0.unsigned_abs();
        if command.cleaned.len() != shares.len() || !command.cleaned.iter().zip(shares).all(lies_within) {
            let message = "what was cleaned is not what its shares are";
            return Err(Outcome::refused(KafkaError::UnknownServerError, message));
        }
        Ok(())
    }

    /// Whether log compaction followed the settings that the topic has: who is told that it has others loses nothing after that.
    fn is_of_now(&self, slot: Slot, cleaned: &CleanedShare) -> bool {
        let topic = self.partition(slot).and_then(|partition| self.topic(partition.topic));
        topic.is_some_and(|topic| topic.config_version == cleaned.config_version)
    }

    /// Notes how far a partition is cleaned. Of aborted transactions that ended before, no record is left.
    fn note_cleaned(&mut self, share: &CompactedShare, cleaned: Option<&CleanedShare>) {
        let point = cleaned.and_then(|cleaned| i64::try_from(cleaned.cleaned).ok()).map_or(Offset(0), Offset);
        if let Some(partition) = self.partition_mut(share.slot).filter(|partition| partition.cleaned < point) {
            partition.cleaned = point;
            partition.forget_aborted_below(point);
        }
    }

    /// What a share changes; `None` if its partition is not any more what the share was made from. What the log start has
    /// passed meanwhile may be missing at the front.
    fn exchange(&self, share: &CompactedShare, runs: Vec<Run>, inputs: &BTreeSet<ObjectId>) -> Option<Exchange> {
        let partition = self.partition(share.slot)?;
        let end = share.end_offset();
        let gone: Vec<Run> = partition.tail.from(share.base_offset).take_while(|run| run.base_offset < end).collect();
        let (first, last) = (gone.first()?, gone.last()?);
        let is_input = |run: &Run| run.marker.is_some() || inputs.contains(&run.object);
        let unchanged = first.base_offset >= share.base_offset && last.end_offset == end && gone.iter().all(is_input);
        if !unchanged && !planted(Defect::CompactionCommitsBlindly) {
            return None;
        }
        let mut come: Vec<Run> = runs.into_iter().filter(|run| run.end_offset > partition.log_start).collect();
        // Unless a defect was planted, the two are the same already.
        come.last_mut()?.end_offset = last.end_offset;
        if !unchanged {
            come.first_mut()?.base_offset = first.base_offset;
        }
        let (base, end) = (first.base_offset, last.end_offset);
        Some(Exchange { slot: share.slot, base, end, gone, come })
    }

    /// Adds the objects of the runs that go to `released`, once for each run.
    fn carry_out(&mut self, exchange: Exchange, released: &mut Vec<ObjectId>) {
        let Exchange { slot, base, end, gone, come } = exchange;
        if let Some(partition) = self.partition_mut(slot) {
            let bytes = |runs: &[Run]| runs.iter().map(|run| u64::from(run.bytes)).sum::<u64>();
            partition.tail.replace(base, end, &come);
            partition.bytes = partition.bytes - bytes(&gone) + bytes(&come);
        }
        for run in gone.iter().filter(|run| run.marker.is_none()) {
            if let Some(input) = self.objects.get_mut(&run.object).filter(|input| !input.was_input) {
                input.was_input = true;
            }
            released.push(run.object);
        }
        self.runs = self.runs + come.len() as u64 - gone.len() as u64;
    }
}

/// The runs of a share, which lie in `object` from `position` on.
fn placed(share: &CompactedShare, object: ObjectId, mut position: u32) -> Vec<Run> {
    let mut base_offset = share.base_offset;
    let placed = share.runs.iter().map(|run| {
        let (end_offset, bytes, max_timestamp) = (run.end_offset, run.bytes, run.max_timestamp);
        let placed = Run { base_offset, end_offset, object, position, bytes, max_timestamp, marker: None };
        (base_offset, position) = (end_offset, position + bytes);
        placed
    });
    placed.collect()
}

#[cfg(test)]
mod tests;
