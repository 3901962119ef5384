//! The journal's objects in the bucket, one request each, and what an answer means to the journal.
use bytes::Bytes;
use futures::future::join_all;
use std::sync::Arc;

use super::format::{self, Boundary, Entry, HEADER_BYTES};
use crate::journal::JournalError;
use crate::journal::rules::Page;
use crate::store::Purpose::Journal as JOURNAL;
use crate::store::{Bucket, CreateOutcome, StoreError};
use crate::types::{Position, Token};

/// Requests side by side where many entries are read or deleted: far below what a prefix of S3 serves, and entries of the
/// largest size still fit into memory.
pub(super) const SIDE_BY_SIDE: usize = 16;

/// Entries of one run, which is believed as a whole: few enough that two of its reads seldom hang, which would be longer
/// than the call's deadline and the run in vain, and enough that the look at the boundary after it costs little.
pub(super) const RUN_ENTRIES_MAX: usize = 128;

/// Entries that follow one another.
pub(super) struct Run {
    pub(super) entries: Vec<Entry>,
    /// The position after them had no object.
    pub(super) is_over: bool,
}

/// See the module. Nothing that is read here is to be believed before the boundary was looked at (H3).
pub(super) struct Objects {
    bucket: Arc<dyn Bucket>,
}

impl Objects {
    pub(super) fn new(bucket: Arc<dyn Bucket>) -> Self {
        Self { bucket }
    }

    /// The entry at `position`, or none if no object is there.
    pub(super) async fn entry(&self, position: Position) -> Result<Option<Entry>, JournalError> {
        let key = format::entry_key(position);
        self.decoded(&key, position, |bytes| format::decode_entry(position, bytes)).await
    }

    /// The token of the entry at `position`, without reading the rest of it.
    pub(super) async fn token(&self, position: Position) -> Result<Option<Token>, JournalError> {
        match self.bucket.read(&format::entry_key(position), Some(0..HEADER_BYTES), JOURNAL).await {
            Ok(header) => match format::decode_token(&header) {
                Ok(token) => Ok(Some(token)),
                // Perhaps it was damaged on its way; a whole entry has a checksum.
                Err(_) => Ok(self.entry(position).await?.map(|entry| entry.stored.proposal.token)),
            },
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(unread(position, error)),
        }
    }

    /// The entries from `from` on, without a gap, up to the first that is not there or the end of a page.
    /// `expected` are asked for at once; where more is there, more and more. A read without an answer ends the run where something
    /// was found before it: who is far behind would else begin anew with each failure, and never get to the end.
    pub(super) async fn run(&self, from: Position, expected: usize, entries_max: usize) -> Result<Run, JournalError> {
        let (mut found, mut page) = (Vec::new(), Page::default());
        let mut side_by_side = expected.clamp(1, SIDE_BY_SIDE);
        while found.len() < entries_max {
            let next = from.0.saturating_add(found.len() as u64);
            let ask = side_by_side.min(entries_max - found.len()) as u64;
            let reads = (next..next.saturating_add(ask)).map(|position| self.entry(Position(position)));
            for answer in join_all(reads).await {
                match answer {
                    Ok(Some(entry)) if page.takes(entry.stored.proposal.payload.len()) => found.push(entry),
                    Ok(None) => return Ok(Run { entries: found, is_over: true }),
                    Ok(Some(_)) => return Ok(Run { entries: found, is_over: false }),
                    Err(JournalError::Unknown(_)) if !found.is_empty() => {
                        return Ok(Run { entries: found, is_over: false });
                    }
                    Err(error) => return Err(error),
                }
            }
            side_by_side = (side_by_side * 2).min(SIDE_BY_SIDE);
        }
        Ok(Run { entries: found, is_over: false })
    }

    /// Creates the object of `position`.
    pub(super) async fn create(&self, position: Position, bytes: Bytes) -> Result<CreateOutcome, StoreError> {
        self.bucket.create(&format::entry_key(position), vec![bytes], JOURNAL).await
    }

    /// The `number`th trim, or none if there was none yet.
    pub(super) async fn boundary(&self, number: u64) -> Result<Option<Boundary>, JournalError> {
        self.decoded(&format::boundary_key(number), Position(0), |bytes| format::decode_boundary(number, bytes)).await
    }

    pub(super) async fn create_boundary(&self, boundary: &Boundary) -> Result<CreateOutcome, StoreError> {
        let bytes = format::encode_boundary(boundary);
        self.bucket.create(&format::boundary_key(boundary.number), vec![bytes], JOURNAL).await
    }

    /// Deletes the objects of entries at these positions; false if some could not be.
    pub(super) async fn delete(&self, positions: &[Position]) -> bool {
        let mut all = true;
        for some in positions.chunks(SIDE_BY_SIDE) {
            let keys: Vec<_> = some.iter().map(|position| format::entry_key(*position)).collect();
            let deleted = join_all(keys.iter().map(|key| self.bucket.delete(key, JOURNAL))).await;
            all &= deleted.iter().all(Result::is_ok);
        }
        all
    }

    /// The lowest positions that have an object, up to `limit` of them.
    pub(super) async fn lowest(&self, limit: usize) -> Result<Vec<Position>, StoreError> {
        let rows = self.bucket.list(format::ENTRY_PREFIX, None, limit, JOURNAL).await?;
        Ok(rows.iter().filter_map(|row| format::position_of(&row.key)).collect())
    }

    /// An object's content, read again if it can't be decoded: perhaps it was damaged on its way.
    async fn decoded<T>(
        &self,
        key: &String,
        position: Position,
        decode: impl Fn(Bytes) -> Result<T, String> + Send + Sync,
    ) -> Result<Option<T>, JournalError> {
        let mut reason = None;
        for _ in 0..2 {
            match self.bucket.read(key, None, JOURNAL).await {
                Ok(bytes) => match decode(bytes) {
                    Ok(value) => return Ok(Some(value)),
                    Err(why) => reason = Some(why),
                },
                Err(StoreError::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(unread(position, error)),
            }
        }
        let reason = reason.unwrap_or_default();
        Err(JournalError::Damaged { position, reason: format!("object {key}: {reason}") })
    }
}

/// What a read that failed means: for an append it is no certainty either.
fn unread(position: Position, error: StoreError) -> JournalError {
    match error {
        StoreError::Damaged { .. } => JournalError::Damaged { position, reason: error.to_string() },
        StoreError::NotFound { .. } | StoreError::Refused { .. } | StoreError::Unknown { .. } => {
            JournalError::Unknown(error.to_string())
        }
    }
}
