//! The bucket: immutable objects that are created once, read by ranges, listed and deleted. It promises that a create
//! answered [`Created`](CreateOutcome::Created) is durable and whole, and that "not done" and "unknown" are never
//! mixed up. It never changes an object. `contract.rs` is the suite that every implementation passes; formats and the
//! names of keys are in `docs/formats/bucket.md`, what each store deviates in is in `docs/stores.md`.
mod deadline;
pub mod faulty;
mod key;
pub mod local;
pub mod marker;
pub mod memory;
pub mod modelled;
pub mod object;
pub mod observed;
pub mod open;
pub mod probe;

#[cfg(test)]
mod contract;

use async_trait::async_trait;
use bytes::Bytes;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

pub use faulty::Faulty;
pub use local::LocalBucket;
pub use memory::MemoryBucket;
pub use modelled::Modelled;
pub use observed::Observed;
pub use open::{BucketSettings, OpenError, open, open_observed};

/// An object's name below the bucket's prefix: `/`-separated, ASCII letters, digits, `.`, `-`, `_`.
pub type Key = String;

/// What a request is for; a label of the metrics and a choice of deadline and pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// L0 objects of the produce path.
    Ingest,
    /// Reads for tailing consumers (whole L0 objects).
    Tail,
    /// Catch-up reads; they have a bounded pool of their own.
    Cold,
    Snapshot,
    /// What compaction reads and writes.
    Compaction,
    /// Entries and trims of the journal, where it is kept in the bucket.
    Journal,
    /// Markers, witnesses, probes.
    Control,
    /// Listing for what nobody needs any more, and deleting it.
    Upkeep,
}

impl Purpose {
    /// The label of metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Tail => "tail",
            Self::Cold => "cold",
            Self::Snapshot => "snapshot",
            Self::Compaction => "compaction",
            Self::Journal => "journal",
            Self::Control => "control",
            Self::Upkeep => "upkeep",
        }
    }
}

/// The four requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Create,
    Read,
    List,
    Delete,
}

impl Operation {
    /// The label of metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// The three ways in which a create can end, see `docs/formats/bucket.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateOutcome {
    /// The object is there, durable, and has exactly these bytes (perhaps by an earlier attempt of ours).
    Created,
    /// An object with other bytes has this key.
    Taken,
}

/// Why a request to the bucket failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A read's object is not there.
    #[error("object {key} is not in the bucket")]
    NotFound { key: Key },
    /// The request certainly had no effect: refused before or by the store (403, bad credentials, disk full, read-only).
    #[error("the bucket refused {what}: {reason}")]
    Refused { what: String, reason: String },
    /// No answer within the deadline, or one that says nothing (500, 503, a reset): it may have happened, or may yet.
    #[error("the bucket did not answer {what}: {reason}")]
    Unknown { what: String, reason: String },
    /// A read gave other bytes than it should: a wrong length, or a checksum that does not hold.
    #[error("object {key} is damaged: {reason}")]
    Damaged { key: Key, reason: String },
}

/// Objects that one call of [`Bucket::delete_all`] deletes at most: what S3 takes in one request.
pub const DELETES_MAX: usize = 1_000;

/// One row of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub key: Key,
    pub bytes: u64,
}

/// An object's content as a list of buffers that are written one after another, without joining them.
pub type Body = Vec<Bytes>;

/// A bucket. Every call has a deadline of its own that ends before Kafka's request time-out of 30 s.
#[async_trait]
pub trait Bucket: Send + Sync + 'static {
    /// Creates `key` with `body` if it is not there. An ambiguous answer of the store (409, 500, 503, none) is settled
    /// before this returns where the deadline allows it, by looking at the object; `Unknown` is what remains, and then
    /// the same key may be tried again with the same bytes, or be abandoned, never be taken for absent.
    async fn create(&self, key: &Key, body: Body, purpose: Purpose) -> Result<CreateOutcome, StoreError>;

    /// The object's bytes in `range`, or all of them. A range that ends beyond the object is an error.
    async fn read(&self, key: &Key, range: Option<Range<u64>>, purpose: Purpose) -> Result<Bytes, StoreError>;

    /// Up to `limit` objects whose keys start with `prefix` and are greater than `after`, sorted by key (bytewise).
    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
        purpose: Purpose,
    ) -> Result<Vec<Listed>, StoreError>;

    /// Deletes `key`; true also if it was not there.
    async fn delete(&self, key: &Key, purpose: Purpose) -> Result<(), StoreError>;

    /// Deletes all of `keys`, of which there may be [`DELETES_MAX`], in as few requests as the store can do it; one result for
    /// each, in their order. What failed may be deleted again, whatever became of it.
    async fn delete_all(&self, keys: &[Key], purpose: Purpose) -> Vec<Result<(), StoreError>> {
        let mut results = Vec::with_capacity(keys.len());
        for key in keys {
            results.push(self.delete(key, purpose).await);
        }
        results
    }

    /// The door to the objects as files, where this bucket keeps them so. A decorator that gives its bucket's door lets
    /// reads pass by it.
    fn files(&self) -> Option<Arc<dyn ObjectFiles>> {
        None
    }
}

/// Objects that are files of this machine: the kernel's page cache is their cache, and it can send them by itself.
pub trait ObjectFiles: Send + Sync + 'static {
    /// Opens an object to read. Its bytes stay readable through the file when it is deleted. Blocks.
    ///
    /// # Errors
    /// As reads; a file that can't be opened for want of descriptors is `Unknown`.
    fn open(&self, key: &Key) -> Result<File, StoreError>;
}

/// The error of a read whose `range` does not lie in an object of `bytes` (where they are known).
pub(crate) fn out_of_range(key: &Key, range: &Range<u64>, bytes: Option<u64>) -> StoreError {
    let object = bytes.map_or_else(|| "a shorter object".into(), |n| format!("an object of {n}"));
    let reason = format!("asked for bytes {}..{} of {object}", range.start, range.end);
    StoreError::Damaged { key: key.clone(), reason }
}
