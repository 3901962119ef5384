//! Record batches of many partitions → one object → one command. The batcher gathers what connections submit, lets a
//! flush go when its budget allows, PUTs objects side by side, and proposes their runs so that batches which one
//! connection sends to one partition are committed in that order (invariant 3). It promises that an answer of success
//! follows the object and the entry (invariant 1), and that after a failure nothing that came behind it is committed
//! (H7). It does not validate batches (`records` does) and gives no offsets (`state` does). Tests: beside each file, and
//! `tests.rs` for the batcher over a bucket whose PUTs end as they like.
mod batcher;
mod budget;
mod chain;
mod flush;
mod open;
mod pace;
mod put;
#[cfg(test)]
mod tests;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

pub use batcher::{Batcher, start};
pub use budget::FlushRule;
pub use put::PutPolicy;

use crate::records::{BatchBytes, BatchHeader};
use crate::types::{ConnectionId, KafkaError, Offset, PartitionIndex, Sequence, Slot, TopicId};

/// Submissions that may wait for the batcher, which takes them at once unless it is busy laying out an object.
const QUEUE_MAX: usize = 1024;

/// One validated batch, and the partition it goes to.
#[derive(Debug)]
pub struct PartBatch {
    pub slot: Slot,
    pub topic: TopicId,
    pub partition: PartitionIndex,
    pub header: BatchHeader,
    pub bytes: BatchBytes,
    /// The first sequence of an earlier batch of the same producer that was refused before it came here: it comes again, and
    /// first (H7).
    pub awaits: Option<Sequence>,
    /// The partition joins the producer's transaction with the batch, if it is part of one (KIP-890).
    pub joins: bool,
}

/// The batches of one Produce request.
#[derive(Debug)]
pub struct Submission {
    pub connection: ConnectionId,
    pub batches: Vec<PartBatch>,
    /// The memory that the request's frame takes of the budget; given back when its object is stored.
    pub permit: Option<OwnedSemaphorePermit>,
    /// The frame's size in bytes: what the slices in `batches` pin.
    pub frame_bytes: usize,
}

/// What became of one batch.
pub type BatchResult = Result<Placed, ProduceError>;

/// A batch that is durable and has its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub base_offset: Offset,
}

/// Why a batch was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceError {
    pub error: KafkaError,
    pub message: Option<String>,
}

/// The handle that the Produce API holds; cheap to clone.
#[derive(Clone)]
pub struct Producer {
    queue: mpsc::Sender<(Submission, oneshot::Sender<Vec<BatchResult>>)>,
}

impl Producer {
    /// Hands a request's batches over, in the order of these calls for one connection; the receiver gives one result
    /// per batch when all are known. It is closed without one if the broker stops.
    pub async fn submit(&self, submission: Submission) -> Option<oneshot::Receiver<Vec<BatchResult>>> {
        let (reply, results) = oneshot::channel();
        self.queue.send((submission, reply)).await.ok().map(|()| results)
    }
}
