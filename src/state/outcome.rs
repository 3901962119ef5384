//! What applying a command gave. Every broker computes the same outcomes; the chain hash over them proves it (H5).
use crate::types::{KafkaError, ObjectId, Offset, ProducerId, Slot};

use super::transaction::Producing;
use super::varint;

/// A command's outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The entry's incarnation is not, or not any more, the broker's (H8): nothing of it happened.
    Fenced,
    Refused(Refusal),
    /// Of `CommitRuns`: one outcome per batch, in order, and the object's number if any was accepted.
    Batches {
        object: Option<ObjectId>,
        batches: Vec<BatchOutcome>,
    },
    /// Of `AllocateProducerIds`: the first id of the block.
    ProducerIds {
        first: ProducerId,
    },
    /// Of `DeleteRecords`: the partition's log start offset afterwards.
    LogStart {
        offset: Offset,
    },
    /// Of `CommitOffsets`: one for each request, in order.
    Offsets(Vec<OffsetsOutcome>),
    /// Of `InitProducer`, `EndTransaction` and `AbortTransaction`: who has the transactional id then, and the partitions
    /// that got a marker or a record.
    Producer {
        producer: Producing,
        grown: Vec<Slot>,
    },
    /// Of `TrimLogs`: the runs that went. Of `ForgetObjects`: the objects.
    Counted {
        count: u64,
    },
    /// Of `CommitCompaction`: the object's number if anything of it was ever taken, and the shares that were taken and
    /// dropped now.
    Compacted {
        object: Option<ObjectId>,
        taken: u32,
        dropped: u32,
    },
}

/// What became of one request of `CommitOffsets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OffsetsOutcome {
    /// All are committed, but those of partitions that are deleted.
    Committed { deleted: Vec<Slot> },
    /// Nothing is: the group has another version, or there is no room.
    Refused { error: KafkaError },
}

/// Why a command was refused, as the client will hear it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub error: KafkaError,
    pub message: String,
}

/// One batch of `CommitRuns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    Accepted {
        base_offset: Offset,
    },
    /// It is in the log already, at this offset.
    Duplicate {
        base_offset: Offset,
    },
    Refused {
        error: KafkaError,
    },
}

impl Outcome {
    pub(super) fn refused(error: KafkaError, message: impl Into<String>) -> Self {
        Self::Refused(Refusal { error, message: message.into() })
    }

    /// Appends what the chain hash covers. Messages are not part of it, so that they may be reworded.
    pub(super) fn hash_into(&self, out: &mut Vec<u8>) {
        match self {
            Self::Done => out.push(0),
            Self::Fenced => out.push(1),
            Self::Refused(refusal) => {
                out.push(2);
                varint::put_signed(out, i64::from(refusal.error.code()));
            }
            Self::Batches { object, batches } => {
                out.push(3);
                varint::put(out, object.map_or(0, |o| o.0 + 1));
                batches.iter().for_each(|b| b.hash_into(out));
            }
            Self::ProducerIds { first } => {
                out.push(4);
                varint::put_signed(out, first.0);
            }
            Self::LogStart { offset } => {
                out.push(5);
                varint::put_signed(out, offset.0);
            }
            Self::Offsets(requests) => {
                out.push(6);
                requests.iter().for_each(|r| r.hash_into(out));
            }
            Self::Producer { producer, grown } => {
                out.push(7);
                varint::put_signed(out, producer.id.0);
                varint::put_signed(out, i64::from(producer.epoch.0));
                grown.iter().for_each(|slot| varint::put(out, u64::from(slot.0)));
            }
            Self::Counted { count } => {
                out.push(8);
                varint::put(out, *count);
            }
            Self::Compacted { object, taken, dropped } => {
                out.push(40);
                varint::put(out, object.map_or(0, |o| o.0 + 1));
                varint::put(out, u64::from(*taken));
                varint::put(out, u64::from(*dropped));
            }
        }
    }
}

impl OffsetsOutcome {
    fn hash_into(&self, out: &mut Vec<u8>) {
        match self {
            Self::Committed { deleted } => {
                varint::put(out, 2 * deleted.len() as u64);
                deleted.iter().for_each(|slot| varint::put(out, u64::from(slot.0)));
            }
            Self::Refused { error } => {
                varint::put(out, 1);
                varint::put_signed(out, i64::from(error.code()));
            }
        }
    }
}

impl BatchOutcome {
    fn hash_into(self, out: &mut Vec<u8>) {
        let (kind, number) = match self {
            Self::Accepted { base_offset } => (0, base_offset.0),
            Self::Duplicate { base_offset } => (1, base_offset.0),
            Self::Refused { error } => (2, i64::from(error.code())),
        };
        out.push(kind);
        varint::put_signed(out, number);
    }
}
