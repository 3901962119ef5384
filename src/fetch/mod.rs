//! Offsets → ranges → bytes. Plans which runs a fetch needs, loads their objects, and gives the batches with their
//! offsets patched into a copy of the first 16 bytes, the rest uncopied where it is large. It promises whole batches in
//! offset order, the first one even if it is larger than the limit, and that an object which is gone is looked for again
//! in a newer State before it is an error. It keeps the fetch sessions of KIP-227. It does not wait: `api` does.
//! Tests: beside each file.
mod ahead;
mod answers;
mod assemble;
mod copies;
mod files;
mod job;
mod offsets_topic;
mod plan;
mod read;
mod session;
mod times;

pub use crate::cache::CachedObject;
pub use answers::{AnswerBudget, Reserved};
pub use plan::{Plan, available};
pub use read::{FetchError, Fetched, Fetcher, PartRead};
pub use session::{SessionError, SessionPartition, SessionRequest, SessionView, Sessions, TopicKey};
pub use times::TimedOffset;

use crate::types::{Offset, Piece};

/// Record batches to send: pieces one after another.
#[derive(Clone, Debug, Default)]
pub struct Records {
    pub chunks: Vec<Piece>,
    pub bytes: usize,
    /// Memory that only they pin, in bytes: not that of cached objects, and not what stays in files.
    pub own_bytes: usize,
    /// Records in them; the first batch may begin before the offset that was asked for.
    pub records: u64,
    /// The offset after the last of them.
    pub end: Offset,
}
