//! Sockets ⇄ frames: listeners, connections, the request pipeline. It promises that answers leave in the order of their
//! requests, that only Produce is overtaken by what follows it (H17), and that the memory of all requests in the process
//! stays below one limit, counted by what is allocated. It never looks into a request beyond its header. A client that
//! stalls in the middle of a frame, or does not read its answers, is disconnected after a named time. Tests: beside each
//! file, and `integration-tests/tests/test_hostile.py`.
mod connection;
mod frame;
mod listener;
mod write;

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

use crate::memory::Buffers;

pub use connection::attach;
pub use listener::{Bound, ListenError, bind, serve};
pub use write::Sink;

/// Limits of all connections together.
#[derive(Clone)]
pub struct Limits {
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    /// Bytes of the largest request.
    pub frame_bytes_max: usize,
    pub pipeline_depth_max: usize,
    /// `None` is for ever.
    pub idle: Option<Duration>,
    pub frame_stall: Duration,
    pub write_stall: Duration,
    pub budget: Arc<Budget>,
    /// Where the memory of frames comes from.
    pub buffers: Arc<Buffers>,
}

/// The memory of all requests, from their first byte until their records are stored or their answer is written.
pub struct Budget {
    bytes: Arc<Semaphore>,
    /// A part that only small requests other than Produce may use: while producers wait for a bucket that is away, others
    /// are still answered.
    reserve: Arc<Semaphore>,
    /// Size of `bytes`.
    total: usize,
    reserve_total: usize,
    /// Held by the one request that may grow beyond a share of the budget, so that large ones can't wait for each other.
    large: Arc<Semaphore>,
}

/// The reserve is one part in this many.
const RESERVE_SHARE: usize = 8;

impl Budget {
    /// A budget of `total` bytes.
    #[must_use]
    pub fn new(total: usize) -> Self {
        let total = total.min(u32::MAX as usize);
        let reserve_total = total / RESERVE_SHARE;
        let total = total - reserve_total;
        Self {
            bytes: Arc::new(Semaphore::new(total)),
            reserve: Arc::new(Semaphore::new(reserve_total)),
            total,
            reserve_total,
            large: Arc::new(Semaphore::new(1)),
        }
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.total + self.reserve_total - self.bytes.available_permits() - self.reserve.available_permits()
    }
}
