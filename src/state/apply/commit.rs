//! `CommitRuns`: the command that gives offsets.

use super::State;
use crate::planted::{Defect, planted};
use crate::segment::ObjectName;
use crate::state::collection::COLLECTION_LEVEL;
use crate::state::command::CommitRuns;
use crate::state::outcome::{BatchOutcome, Outcome};
use crate::state::producer::{BatchSequence, Moment, ProducerState, Verdict};
use crate::state::runs::{BatchSpec, RunSpec, RunsReader};
use crate::state::tail::Run;
use crate::state::topic::ObjectMeta;
use crate::types::{Head, KafkaError, ObjectId, Offset, Position, ProducerEpoch, ProducerId, Slot, Token};

/// Where the runs of one command lie.
struct Target {
    object: ObjectId,
    /// What the object's writer had applied.
    applied: Position,
    /// Runs of it that were accepted.
    runs: u32,
}

impl State {
    pub(super) fn commit_runs(&mut self, at: Moment, command: &CommitRuns) -> Outcome {
        let runs = match self.check_commit(command) {
            Ok(runs) => runs,
            Err(refusal) => return refusal,
        };
        let name = object_name(command).expect("it was checked");
        let mut target = Target {
            object: command.object.map_or(self.next_object, ObjectId),
            applied: name.applied.position,
            runs: 0,
        };
        let mut outcomes = Vec::with_capacity(runs);
        let mut reader = RunsReader::new(command.base_timestamp, &command.runs);
        let mut run = RunSpec::empty();
        while reader.next_into(&mut run).expect("it was checked") {
            self.commit_run(at, &run, &mut target, &mut outcomes);
        }
        if target.runs == 0 {
            return Outcome::Batches { object: command.object.map(ObjectId), batches: outcomes };
        }
        self.runs += u64::from(target.runs);
        if let Some(meta) = self.objects.get_mut(&target.object) {
            meta.live_runs += target.runs;
        } else {
            let meta =
                ObjectMeta { name, bytes: command.object_bytes, live_runs: target.runs, level: 0, was_input: false };
            self.objects.insert(target.object, meta);
            self.next_object = ObjectId(target.object.0 + 1);
        }
        Outcome::Batches { object: Some(target.object), batches: outcomes }
    }

    /// Reads the command through once, so that nothing is changed by half of a bad one; gives the number of batches.
    fn check_commit(&self, command: &CommitRuns) -> Result<usize, Outcome> {
        let invalid = |message| Outcome::refused(KafkaError::UnknownServerError, message);
        let name = object_name(command).ok_or_else(|| invalid("the object's ULID is not 16 bytes"))?;
        if self.is_below_horizon(name.applied.position) {
            let message = "the object is older than the orphan horizon";
            return Err(Outcome::refused(KafkaError::KafkaStorageError, message));
        }
        if let Some(object) = command.object {
            self.check_continued(ObjectId(object), |known| known.name == name)?;
        }
        let mut reader = RunsReader::new(command.base_timestamp, &command.runs);
        let (mut run, mut batches) = (RunSpec::empty(), 0);
        while reader.next_into(&mut run).map_err(|_| invalid("its runs are malformed"))? {
            let bytes = run.batches.iter().map(|b| u64::from(b.bytes)).sum::<u64>();
            if u64::from(run.position) + bytes > u64::from(command.object_bytes) {
                return Err(invalid("a run lies beyond its object"));
            }
            batches += run.batches.len();
        }
        Ok(batches)
    }

    /// Whether more of an object may be committed, which has a number by an earlier command.
    pub(super) fn check_continued(
        &self,
        object: ObjectId,
        is_same: impl Fn(&ObjectMeta) -> bool,
    ) -> Result<(), Outcome> {
        let invalid = Outcome::refused(KafkaError::UnknownServerError, "the object that it continues is another one");
        let is_gone = match self.objects.get(&object) {
            Some(known) if is_same(known) => self.dead.contains_key(&object),
            None if self.feature_level >= COLLECTION_LEVEL && object < self.next_object => true,
            _ => return Err(invalid),
        };
        // It may be deleted already; what was to be had of it is sent again.
        let message = "the object that it continues is given up";
        if is_gone { Err(Outcome::refused(KafkaError::KafkaStorageError, message)) } else { Ok(()) }
    }

    /// Gives the run's batches their offsets; refused ones split it (H6).
    fn commit_run(&mut self, at: Moment, run: &RunSpec, target: &mut Target, outcomes: &mut Vec<BatchOutcome>) {
        let Some(mut end) = self.partition(run.slot).map(|p| p.end) else {
            let unknown = BatchOutcome::Refused { error: KafkaError::UnknownTopicOrPartition };
            outcomes.extend(run.batches.iter().map(|_| unknown));
            return;
        };
        let mut piece_at = run.position;
        let mut piece = Piece::default();
        for batch in &run.batches {
            let outcome = self.commit_batch(at, run.slot, batch, target.applied, end);
            if matches!(outcome, BatchOutcome::Accepted { .. }) {
                piece.bytes += batch.bytes;
                piece.records += u64::from(batch.records);
                end = end.plus(u64::from(batch.records));
            } else {
                self.push_piece(run, piece_at, &piece, target);
                piece_at += piece.bytes + if planted(Defect::RunKeepsRefused) { 0 } else { batch.bytes };
                piece = Piece::default();
            }
            outcomes.push(outcome);
        }
        self.push_piece(run, piece_at, &piece, target);
    }

    /// Judges one batch, which gets `base_offset` if it is accepted; its writer had `applied` that much.
    fn commit_batch(
        &mut self,
        at: Moment,
        slot: Slot,
        batch: &BatchSpec,
        applied: Position,
        base_offset: Offset,
    ) -> BatchOutcome {
        if base_offset.0.checked_add(i64::from(batch.records)).is_none() {
            return BatchOutcome::Refused { error: KafkaError::KafkaStorageError };
        }
        if let Some(producer) = &batch.producer {
            let key = (slot, producer.id);
            let state = self.producers.get(&key);
            // Any first sequence would be taken, also that of a batch which was in the log before its producer was
            // forgotten. Sent again it is judged by what is known then.
            if state.is_none() && self.partition(slot).is_some_and(|p| applied < p.forgotten) {
                return BatchOutcome::Refused { error: KafkaError::NotLeaderOrFollower };
            }
            let idle = |p: &&ProducerState| at.wall_ms.0 - p.last_used_ms.0 > 5_000;
            let known = state.as_ref().filter(|p| !(idle(p) && planted(Defect::DuplicateAfterIdle)));
            let verdict = ProducerState::judge(known, producer, batch.records);
            let transaction = match self.check_transaction(slot, producer, state.is_some()) {
                Ok(transaction) => transaction,
                // It is in the log already, however the transaction stands now.
                Err(KafkaError::InvalidTxnState) if matches!(verdict, Verdict::Duplicate(_)) => None,
                Err(error) => return BatchOutcome::Refused { error },
            };
            match verdict {
                Verdict::Accept => {
                    if let Some(id) = &transaction {
                        self.join_transaction(at, id, slot, base_offset);
                    }
                    let first = producer.first_sequence;
                    let batch = BatchSequence { first, records: batch.records, base_offset };
                    self.remember(at, key, state, producer.epoch, batch);
                }
                Verdict::Duplicate(base_offset) => return BatchOutcome::Duplicate { base_offset },
                Verdict::Refuse(error) => {
                    if error == KafkaError::OutOfOrderSequenceNumber && planted(Defect::RefusedIsRemembered) {
                        let (first, records) = (producer.first_sequence, batch.records);
                        self.remember(at, key, state, producer.epoch, BatchSequence { first, records, base_offset });
                    }
                    return BatchOutcome::Refused { error };
                }
            }
        }
        BatchOutcome::Accepted { base_offset }
    }

    /// Notes an accepted batch in what is remembered of its producer, `None` if it is new.
    fn remember(
        &mut self,
        at: Moment,
        key: (Slot, ProducerId),
        state: Option<ProducerState>,
        epoch: ProducerEpoch,
        batch: BatchSequence,
    ) {
        let new = state.is_none();
        if new {
            self.make_room_for_producer(at.position, key.0);
        }
        let mut state = state.unwrap_or_else(|| ProducerState::new(epoch));
        state.record(epoch, batch, at);
        self.producers.set(key, &state);
        if let Some(partition) = self.partition_mut(key.0).filter(|_| new) {
            partition.producers += 1;
        }
    }

    /// Keeps the producers below their ceilings (H16): at one, the longest unused quarter is forgotten, so that the
    /// work per new producer stays small.
    fn make_room_for_producer(&mut self, position: Position, slot: Slot) {
        let in_partition = self.partition(slot).map_or(0, |p| p.producers);
        if in_partition >= self.settings.producers_per_partition_max.max(1) {
            let idle = self.producers_of(slot).filter(|(id, _)| !self.is_in_transaction(slot, *id));
            let keys = idle.map(|(id, p)| (p.last_used, (slot, id))).collect();
            self.forget_oldest_quarter(position, keys);
        }
        if self.producers.len() >= self.settings.producers_max.max(1) as usize {
            let idle = self.producers.iter().filter(|((slot, id), _)| !self.is_in_transaction(*slot, *id));
            let keys = idle.map(|(key, p)| (p.last_used, key)).collect();
            self.forget_oldest_quarter(position, keys);
        }
    }

    fn forget_oldest_quarter(&mut self, position: Position, mut keys: Vec<(Position, (Slot, ProducerId))>) {
        keys.sort_unstable();
        let quarter = keys.len().div_ceil(4);
        keys.iter().take(quarter).for_each(|(_, key)| self.forget_producer(position, *key));
    }

    fn push_piece(&mut self, run: &RunSpec, position: u32, piece: &Piece, target: &mut Target) {
        if piece.records == 0 {
            return;
        }
        let object = target.object;
        let Some(partition) = self.partition_mut(run.slot) else { return };
        let (base_offset, end_offset) = (partition.end, partition.end.plus(piece.records));
        let max_timestamp = run.max_timestamp;
        let bytes = piece.bytes;
        partition.tail.push(&Run { base_offset, end_offset, object, position, bytes, max_timestamp, marker: None });
        partition.end = end_offset;
        partition.bytes += u64::from(bytes);
        target.runs += 1;
    }
}

/// Accepted neighbours of one run.
#[derive(Default)]
struct Piece {
    bytes: u32,
    records: u64,
}

fn object_name(command: &CommitRuns) -> Option<ObjectName> {
    let ulid = u128::from_be_bytes(command.ulid[..].try_into().ok()?);
    let applied = Head { position: Position(command.applied_position), token: Token(command.applied_token) };
    Some(ObjectName::data(applied, ulid))
}
