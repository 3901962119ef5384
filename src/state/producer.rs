//! What a partition remembers of an idempotent producer: its epoch and its last five batches, so that a retry gets the
//! old offset and a gap is refused. Rules: Kafka's `ProducerStateManager` and `ProducerAppendInfo`.
use crate::planted::{Defect, planted};
use crate::types::{KafkaError, Offset, Position, ProducerEpoch, Sequence, TimestampMs};

use super::runs::ProducerSpec;

/// Batches that are remembered: `max.in.flight.requests.per.connection` of an idempotent producer is at most this.
const WINDOW: usize = 5;

/// A batch that was accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchSequence {
    pub first: Sequence,
    pub records: u32,
    pub base_offset: Offset,
}

/// One producer in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    pub epoch: ProducerEpoch,
    /// The entry that it last wrote with; expiry names it, so that a use since is not lost (H16).
    pub last_used: Position,
    /// That entry's wall clock, by which it falls due to expire.
    pub last_used_ms: TimestampMs,
    /// Records accepted one after another in this epoch, since the producer is known. Their sequences are proved to be
    /// in the log, also where their batches are not remembered any more.
    pub accepted: u64,
    window: [BatchSequence; WINDOW],
    filled: u8,
}

/// An entry's place and time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) position: Position,
    pub(super) wall_ms: TimestampMs,
}

/// What a batch is to a producer's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Duplicate(Offset),
    Refuse(KafkaError),
}

impl BatchSequence {
    /// The sequence of its last record; sequences wrap from 2^31-1 to 0.
    #[must_use]
    pub fn last(&self) -> Sequence {
        advance(self.first, self.records - 1)
    }
}

/// How far `to` is beyond `from`.
fn distance(from: Sequence, to: Sequence) -> u64 {
    (i64::from(to.0) - i64::from(from.0)).rem_euclid(1 << 31).unsigned_abs()
}

fn advance(sequence: Sequence, by: u32) -> Sequence {
    let sum = i64::from(sequence.0) + i64::from(by);
    let skipped = i64::from(sum >= 1 << 31 && planted(Defect::SequenceWrap));
    let sum = (sum + skipped) % (1 << 31);
    Sequence(i32::try_from(sum).expect("a remainder of 2^31 fits"))
}

impl ProducerState {
    /// A producer that wrote nothing yet.
    pub(super) fn new(epoch: ProducerEpoch) -> Self {
        let (last_used, last_used_ms) = (Position(0), TimestampMs(-1));
        Self { epoch, last_used, last_used_ms, accepted: 0, window: Default::default(), filled: 0 }
    }

    /// The remembered batches, oldest first.
    #[must_use]
    pub fn batches(&self) -> &[BatchSequence] {
        &self.window[..usize::from(self.filled)]
    }

    /// Judges a batch of `records` records by what this producer wrote before. Without state any first sequence is
    /// taken, since the state may have expired; a new epoch starts at 0. A batch that is certainly in the log, but too
    /// long ago for its offset to be known, is `DuplicateSequenceNumber`, which clients take for success (H7; Kafka
    /// itself answers out of order here, which is fatal to some).
    pub(super) fn judge(state: Option<&Self>, batch: &ProducerSpec, records: u32) -> Verdict {
        let Some(state) = state else {
            let late = batch.first_sequence != Sequence(0) && planted(Defect::StrictUnknown);
            return if late { Verdict::Refuse(KafkaError::OutOfOrderSequenceNumber) } else { Verdict::Accept };
        };
        if batch.epoch < state.epoch && !planted(Defect::SkippedEpochCheck) {
            return Verdict::Refuse(KafkaError::InvalidProducerEpoch);
        }
        if batch.epoch > state.epoch {
            let fresh = batch.first_sequence == Sequence(0);
            return if fresh { Verdict::Accept } else { Verdict::Refuse(KafkaError::OutOfOrderSequenceNumber) };
        }
        let same = |b: &&BatchSequence| b.first == batch.first_sequence && b.records == records;
        let known = if planted(Defect::WindowTooShort) { 3 } else { WINDOW };
        if let Some(old) = state.batches().iter().rev().take(known).find(same) {
            let old = state.batches().last().filter(|_| planted(Defect::DuplicateNewestOffset)).unwrap_or(old);
            let again = planted(Defect::WindowIgnored);
            return if again { Verdict::Accept } else { Verdict::Duplicate(old.base_offset) };
        }
        let (Some(oldest), Some(last)) = (state.batches().first(), state.batches().last()) else {
            return Verdict::Accept;
        };
        let next = advance(last.last(), 1);
        if next == batch.first_sequence {
            return Verdict::Accept;
        }
        let (begins, ends) = (distance(batch.first_sequence, next), distance(oldest.first, next) + u64::from(records));
        let proved = begins >= ends && begins <= state.accepted && begins < 1 << 30;
        Verdict::Refuse(if proved { KafkaError::DuplicateSequenceNumber } else { KafkaError::OutOfOrderSequenceNumber })
    }

    /// Remembers an accepted batch.
    pub(super) fn record(&mut self, epoch: ProducerEpoch, batch: BatchSequence, at: Moment) {
        if epoch != self.epoch {
            self.epoch = epoch;
            if !planted(Defect::EpochKeepsWindow) {
                (self.filled, self.accepted) = (0, 0);
            }
        }
        if usize::from(self.filled) == WINDOW {
            self.window.rotate_left(1);
            self.filled -= 1;
        }
        self.window[usize::from(self.filled)] = batch;
        self.filled += 1;
        self.accepted += u64::from(batch.records);
        (self.last_used, self.last_used_ms) = (at.position, at.wall_ms);
    }

    /// Rebuilds a state from a snapshot; `None` if it has more batches than can be.
    pub(super) fn restore(
        epoch: ProducerEpoch,
        last: Moment,
        accepted: u64,
        batches: &[BatchSequence],
    ) -> Option<Self> {
        let mut state = Self { last_used: last.position, last_used_ms: last.wall_ms, accepted, ..Self::new(epoch) };
        state.window.get_mut(..batches.len())?.copy_from_slice(batches);
        state.filled = u8::try_from(batches.len()).ok()?;
        Some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ProducerId;

    fn batch(epoch: i16, first: i32) -> ProducerSpec {
        ProducerSpec {
            id: ProducerId(1),
            epoch: ProducerEpoch(epoch),
            first_sequence: Sequence(first),
            transactional: false,
            joins: false,
        }
    }

    fn after(batches: &[(i32, u32)]) -> ProducerState {
        let mut state = ProducerState::new(ProducerEpoch(3));
        for (i, &(first, records)) in batches.iter().enumerate() {
            let batch = BatchSequence { first: Sequence(first), records, base_offset: Offset(100 + i as i64) };
            state.record(ProducerEpoch(3), batch, Moment { position: Position(1), wall_ms: TimestampMs(0) });
        }
        state
    }

    #[test]
    fn verdicts_are_those_of_kafka() {
        use Verdict::{Accept, Duplicate, Refuse};
        let six: Vec<(i32, u32)> = (0..6).map(|i| (i * 10, 10)).collect();
        // What a producer wrote before State knew it proves nothing.
        let later: Vec<(i32, u32)> = (10..20).map(|i| (i * 10, 10)).collect();
        let around: Vec<(i32, u32)> = [(i32::MAX - 9, 10)].into_iter().chain((0..5).map(|i| (i * 10, 10))).collect();
        let wrap = [(i32::MAX - 4, 10)];
        let out_of_order = Refuse(KafkaError::OutOfOrderSequenceNumber);
        type History<'a> = &'a [(i32, u32)];
        let cases: &[(History<'_>, (i16, i32, u32), Verdict)] = &[
            (&[(0, 10)], (3, 10, 1), Accept),
            (&[(0, 10)], (3, 0, 10), Duplicate(Offset(100))),
            (&[(0, 10)], (3, 0, 9), out_of_order),
            (&[(0, 10)], (3, 11, 1), out_of_order),
            (&[(0, 10)], (2, 10, 1), Refuse(KafkaError::InvalidProducerEpoch)),
            (&[(0, 10)], (4, 0, 1), Accept),
            (&[(0, 10)], (4, 10, 1), out_of_order),
            (&six, (3, 10, 10), Duplicate(Offset(101))),
            (&six, (3, 0, 10), Refuse(KafkaError::DuplicateSequenceNumber)),
            (&six, (3, 0, 9), Refuse(KafkaError::DuplicateSequenceNumber)),
            (&six, (3, 0, 11), out_of_order),
            (&six, (3, i32::MAX, 1), out_of_order),
            (&six, (3, 70, 10), out_of_order),
            (&later, (3, 90, 10), out_of_order),
            (&around, (3, i32::MAX - 9, 10), Refuse(KafkaError::DuplicateSequenceNumber)),
            (&wrap, (3, 5, 1), Accept),
            (&wrap, (3, i32::MAX - 4, 10), Duplicate(Offset(100))),
            (&wrap, (3, 6, 1), out_of_order),
        ];
        for (history, (epoch, first, records), expected) in cases {
            let verdict = ProducerState::judge(Some(&after(history)), &batch(*epoch, *first), *records);
            assert_eq!(verdict, *expected, "{history:?} then epoch {epoch} sequence {first} of {records}");
        }
        assert_eq!(ProducerState::judge(None, &batch(0, 77), 1), Accept);
    }
}
