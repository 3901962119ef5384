//! What was gathered and has not left yet, oldest first.
use tokio::sync::OwnedSemaphorePermit;

use super::PartBatch;
use super::chain::Link;
use crate::types::{ConnectionId, Head};
use crate::world::Instant;

/// A batch that waits to be stored and committed.
pub(super) struct Held {
    pub(super) connection: ConnectionId,
    pub(super) batch: PartBatch,
    /// Whether the object holds slices of the frame, or copies.
    pub(super) keep_slices: bool,
    /// Its share of the frame that its slices keep allocated.
    pub(super) pinned_bytes: usize,
    pub(super) request: u64,
    pub(super) index: usize,
    pub(super) since: Instant,
    /// What was applied when it came.
    pub(super) applied: Head,
    /// Whether State did not know its producer then.
    pub(super) newcomer: bool,
    /// The frame's share of the request budget; the last batch of a request has it.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    pub(super) fn link(&self) -> Link {
        (self.connection, self.batch.slot)
    }
}

/// What was gathered, oldest first.
#[derive(Default)]
pub(super) struct Open {
    pub(super) held: Vec<Held>,
    pub(super) bytes: usize,
}

impl Open {
    pub(super) fn push(&mut self, held: Held) {
        self.bytes += held.batch.bytes.len();
        self.held.push(held);
    }

    /// What goes into the next object: everything, or, where PUTs could not keep up and far more waits, an object's
    /// worth: a PUT that is many times larger would need more time than it has.
    pub(super) fn leave(&mut self, object_bytes: usize) -> Self {
        if self.bytes < object_bytes.saturating_mul(2) {
            return std::mem::take(self);
        }
        let (mut bytes, mut count) = (0, 0);
        while bytes < object_bytes {
            bytes += self.held[count].batch.bytes.len();
            count += 1;
        }
        let rest = self.held.split_off(count);
        self.bytes -= bytes;
        Self { held: std::mem::replace(&mut self.held, rest), bytes }
    }

    /// Takes out what must not be stored any more.
    pub(super) fn drop_if(&mut self, gone: impl Fn(&Held) -> bool) -> Vec<Held> {
        let (gone, kept): (Vec<_>, Vec<_>) = self.held.drain(..).partition(gone);
        self.held = kept;
        self.bytes -= gone.iter().map(|h| h.batch.bytes.len()).sum::<usize>();
        gone
    }
}

/// Bytes of the request budget that `permits` hold.
pub(super) fn pinned<'a>(permits: impl Iterator<Item = &'a OwnedSemaphorePermit>) -> i64 {
    permits.map(|permit| permit.num_permits() as i64).sum()
}
