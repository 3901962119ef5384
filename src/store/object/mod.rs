//! A bucket in S3, GCS or Azure, over the `object_store` crate, which is used in this folder only.
//!
//! A create is a conditional PUT (`If-None-Match: *`, generation 0). Every answer but a plain success or a refusal is
//! settled by reading the object back and comparing it with what was sent: the same bytes are ours (objects carry a
//! nonce), other bytes are somebody else's, and an absent object is tried again under the same key until the deadline,
//! since after an ambiguous PUT an absence is not final. The library's own retries are off: it would retry a PUT that
//! was applied and report our own object as `AlreadyExists`.
//!
//! Two clients, so that small control requests never queue behind 8 MiB bodies. Tests: `faults.rs` injects answers at
//! the HTTP level; the contract suite runs against real servers (`store_contract_*`).
mod answer;
mod connect;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod gcs_emulator;

use super::deadline::Tries;
use super::{Body, Bucket, BucketSettings, CreateOutcome, Key, Listed, Purpose, StoreError, key};
use crate::planted::{Defect, planted};
use crate::telemetry::metrics::Counter;
use crate::world::World;
use answer::{Failure, failure};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
pub use connect::{ConnectError, azure, gcs, s3};
use futures::{StreamExt, TryStreamExt};
use object_store::client::HttpConnector;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// See the module.
pub struct ObjectBucket {
    data: Arc<dyn ObjectStore>,
    control: Arc<dyn ObjectStore>,
    /// For deletes of many objects.
    bulk: Arc<dyn ObjectStore>,
    /// What stands before each key in the store: empty, or segments with a `/` after each.
    prefix: String,
    /// Whether the store lists in the order of keys. S3 Express does not.
    sorted: bool,
    world: World,
    /// Counts attempts that were repeated.
    repeated: Counter,
}

impl ObjectBucket {
    pub(super) fn new(clients: Clients, prefix: &str, world: World, repeated: Counter) -> Self {
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let Clients { data, control, bulk, sorted } = clients;
        Self { data, control, bulk, prefix, sorted, world, repeated }
    }

    /// An S3 bucket behind `connector` in place of a network, for simulations.
    ///
    /// # Errors
    /// None that depends on the connector.
    pub fn s3_over<C: HttpConnector + Clone>(connector: C, world: World) -> Result<Self, ConnectError> {
        let settings = BucketSettings {
            region: Some("us-east-1".into()),
            access_key_id: Some("id".into()),
            secret_access_key: Some("secret".into()),
            ..BucketSettings::default()
        };
        let clients = connect::s3_with(&settings, "bucket", |b| b.with_http_connector(connector.clone()))?;
        Ok(Self::new(clients, "", world, Counter::default()))
    }

    fn client(&self, purpose: Purpose) -> &Arc<dyn ObjectStore> {
        match purpose {
            Purpose::Journal | Purpose::Control | Purpose::Upkeep => &self.control,
            Purpose::Ingest | Purpose::Tail | Purpose::Cold | Purpose::Snapshot | Purpose::Compaction => &self.data,
        }
    }

    /// The path of a key, or of a directory of keys.
    fn path(&self, key: &str) -> Result<Path, StoreError> {
        let path = format!("{}{key}", self.prefix);
        Path::parse(path.trim_end_matches('/'))
            .map_err(|e| StoreError::Refused { what: format!("key {key:?}"), reason: e.to_string() })
    }

    /// Whether the object at `path` has the bytes of `body`: none if it is not there.
    async fn compare(&self, path: &Path, body: &[Bytes], purpose: Purpose) -> Result<Option<bool>, Failure> {
        let got = match self.client(purpose).get_opts(path, GetOptions::default()).await.map_err(|e| failure(&e)) {
            Ok(got) => got,
            Err(Failure::Absent(_)) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let bytes: u64 = body.iter().map(|c| c.len() as u64).sum();
        if got.meta.size != bytes {
            return Ok(Some(false));
        }
        let mut expected = body.iter().filter(|c| !c.is_empty()).cloned();
        let mut ahead = Bytes::new();
        let mut there = got.into_stream();
        let mut seen = 0;
        while let Some(mut chunk) = there.try_next().await.map_err(|e| failure(&e))? {
            seen += chunk.len() as u64;
            while !chunk.is_empty() {
                if ahead.is_empty() {
                    ahead = expected.next().unwrap_or_default();
                }
                let n = ahead.len().min(chunk.len());
                if n == 0 || ahead.split_to(n) != chunk.split_to(n) {
                    return Ok(Some(false));
                }
            }
        }
        if seen == bytes { Ok(Some(true)) } else { Err(Failure::Silent("the answer was cut".into())) }
    }

    /// One GET, of all or of a range that is not empty.
    async fn get(&self, path: &Path, range: Option<&Range<u64>>, purpose: Purpose) -> Result<GetResult, Failure> {
        let range = range.map(|r| GetRange::Bounded(r.clone()));
        let options = GetOptions { range, ..GetOptions::default() };
        self.client(purpose).get_opts(path, options).await.map_err(|e| failure(&e))
    }

    async fn read_once(
        &self,
        key: &Key,
        path: &Path,
        range: Option<&Range<u64>>,
        purpose: Purpose,
    ) -> Result<Bytes, ReadFailure> {
        let got = match range {
            // HTTP has no empty range.
            Some(range) if range.is_empty() => {
                let meta = self.client(purpose).head(path).await.map_err(|e| failure(&e))?;
                let inside = range.start <= range.end && range.end <= meta.size;
                return if inside {
                    Ok(Bytes::new())
                } else {
                    Err(super::out_of_range(key, range, Some(meta.size)).into())
                };
            }
            range => self.get(path, range, purpose).await,
        };
        let got = match (got, range) {
            (Err(Failure::Range(_)), Some(range)) => return Err(super::out_of_range(key, range, None).into()),
            (got, _) => got?,
        };
        if let Some(range) = range.filter(|r| got.range != **r) {
            return Err(super::out_of_range(key, range, Some(got.meta.size)).into());
        }
        let expected = got.range.end - got.range.start;
        let bytes = collect(got, expected).await?;
        if bytes.len() as u64 != expected {
            return Err(Failure::Silent(format!("{} bytes came instead of {expected}", bytes.len())).into());
        }
        Ok(bytes)
    }

    async fn list_once(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Result<Vec<Listed>, Failure>, StoreError> {
        let directory = key::directory(prefix);
        let at = self.path(directory)?;
        let at = Some(&at).filter(|p| !p.as_ref().is_empty());
        let mut rows = match after {
            Some(after) if after.as_str() > directory => self.control.list_with_offset(at, &self.path(after)?),
            _ => self.control.list(at),
        };
        // The smallest `limit` keys; one by one where the store sorts, of the whole listing where it does not.
        let mut found = BTreeMap::new();
        loop {
            let row = match rows.next().await {
                None => break,
                Some(Err(e)) => return Ok(Err(failure(&e))),
                Some(Ok(row)) => row,
            };
            let Some(key) = row.location.as_ref().strip_prefix(&self.prefix) else { continue };
            if !key.starts_with(prefix) || after.is_some_and(|after| key <= after.as_str()) {
                if self.sorted && key > prefix && !key.starts_with(prefix) {
                    break;
                }
                continue;
            }
            if found.len() < limit {
                found.insert(key.to_owned(), row.size);
            } else if self.sorted {
                break;
            } else if found.last_key_value().is_some_and(|(last, _)| key < last.as_str()) {
                found.pop_last();
                found.insert(key.to_owned(), row.size);
            }
            if self.sorted && found.len() == limit {
                break;
            }
        }
        Ok(Ok(found.into_iter().map(|(key, bytes)| Listed { key, bytes }).collect()))
    }
}

#[async_trait]
impl Bucket for ObjectBucket {
    async fn create(&self, key: &Key, body: Body, purpose: Purpose) -> Result<CreateOutcome, StoreError> {
        key::check(key)?;
        let path = self.path(key)?;
        let payload: PutPayload = body.iter().filter(|c| !c.is_empty()).cloned().collect();
        let mut tries = Tries::new(&self.world, purpose, &self.repeated);
        // Whether no attempt so far can have reached the store, or can still.
        let mut certain = true;
        loop {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let put = self.client(purpose).put_opts(&path, payload.clone(), options);
            let failed = match tries.attempt(put).await {
                Some(Ok(_)) => return Ok(CreateOutcome::Created),
                Some(Err(e)) => failure(&e),
                None => Failure::Silent("no answer in time".into()),
            };
            let mut reason = match failed {
                Failure::Refused(reason) | Failure::Absent(reason) => {
                    return Err(ended(format!("create {key}"), reason, certain));
                }
                Failure::NotSent(reason) => reason,
                Failure::Conflict(_) if planted(Defect::ConflictIsOurs) => return Ok(CreateOutcome::Created),
                Failure::Conflict(reason) | Failure::Range(reason) | Failure::Silent(reason) => {
                    certain = false;
                    reason
                }
            };
            if !certain {
                match tries.attempt(self.compare(&path, &body, purpose)).await {
                    Some(Ok(Some(true))) => return Ok(CreateOutcome::Created),
                    Some(Ok(Some(false))) => return Ok(CreateOutcome::Taken),
                    Some(Ok(None)) if planted(Defect::SilenceIsCreated) => return Ok(CreateOutcome::Created),
                    Some(Ok(None)) => {}
                    Some(Err(e)) => reason = format!("{reason}; and looking at it: {e:?}"),
                    None => reason = format!("{reason}; and looking at it: no answer in time"),
                }
            }
            if !tries.again().await {
                return Err(ended(format!("create {key}"), reason, certain));
            }
        }
    }

    async fn read(&self, key: &Key, range: Option<Range<u64>>, purpose: Purpose) -> Result<Bytes, StoreError> {
        key::check(key)?;
        let path = self.path(key)?;
        if let Some(range) = range.as_ref().filter(|r| i64::try_from(r.end).is_err()) {
            // Stores take such a header for a mistake, and answer with the whole object.
            return Err(super::out_of_range(key, range, None));
        }
        let mut tries = Tries::new(&self.world, purpose, &self.repeated);
        loop {
            let what = || format!("read {key}");
            let reason = match tries.attempt(self.read_once(key, &path, range.as_ref(), purpose)).await {
                Some(Ok(bytes)) => return Ok(bytes),
                Some(Err(ReadFailure::Final(e))) => return Err(e),
                Some(Err(ReadFailure::Answer(Failure::Absent(_)))) => {
                    return Err(StoreError::NotFound { key: key.clone() });
                }
                Some(Err(ReadFailure::Answer(Failure::Refused(reason)))) => {
                    return Err(StoreError::Refused { what: what(), reason });
                }
                Some(Err(ReadFailure::Answer(
                    Failure::NotSent(reason)
                    | Failure::Conflict(reason)
                    | Failure::Range(reason)
                    | Failure::Silent(reason),
                ))) => reason,
                None => "no answer in time".into(),
            };
            if !tries.again().await {
                return Err(StoreError::Unknown { what: what(), reason });
            }
        }
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
        purpose: Purpose,
    ) -> Result<Vec<Listed>, StoreError> {
        let what = || format!("list {prefix}");
        let mut tries = Tries::new(&self.world, purpose, &self.repeated);
        loop {
            let reason = match tries.attempt(self.list_once(prefix, after, limit)).await {
                Some(answer) => match answer? {
                    Ok(rows) => return Ok(rows),
                    Err(Failure::Refused(reason) | Failure::Absent(reason)) => {
                        return Err(StoreError::Refused { what: what(), reason });
                    }
                    Err(
                        Failure::NotSent(reason)
                        | Failure::Conflict(reason)
                        | Failure::Range(reason)
                        | Failure::Silent(reason),
                    ) => reason,
                },
                None => "no answer in time".into(),
            };
            if !tries.again().await {
                return Err(StoreError::Unknown { what: what(), reason });
            }
        }
    }

    async fn delete(&self, key: &Key, purpose: Purpose) -> Result<(), StoreError> {
        key::check(key)?;
        let path = self.path(key)?;
        let mut tries = Tries::new(&self.world, purpose, &self.repeated);
        let mut certain = true;
        loop {
            let reason = match tries.attempt(self.control.delete(&path)).await {
                Some(Ok(())) => return Ok(()),
                Some(Err(e)) => match failure(&e) {
                    Failure::Absent(_) => return Ok(()),
                    Failure::Refused(reason) => return Err(ended(format!("delete {key}"), reason, certain)),
                    Failure::NotSent(reason) => reason,
                    Failure::Conflict(reason) | Failure::Range(reason) | Failure::Silent(reason) => {
                        certain = false;
                        reason
                    }
                },
                None => {
                    certain = false;
                    "no answer in time".into()
                }
            };
            if !tries.again().await {
                return Err(ended(format!("delete {key}"), reason, certain));
            }
        }
    }

    async fn delete_all(&self, keys: &[Key], purpose: Purpose) -> Vec<Result<(), StoreError>> {
        let mut results: Vec<Result<(), StoreError>> = keys.iter().map(key::check).collect();
        let mut tries = Tries::new(&self.world, purpose, &self.repeated);
        let mut left: Vec<usize> = (0..keys.len()).filter(|at| results[*at].is_ok()).collect();
        while !left.is_empty() {
            let failed = self.delete_once(keys, &left, &tries).await;
            left.iter().for_each(|at| results[*at] = Ok(()));
            left.clear();
            for (at, error) in failed {
                if matches!(error, StoreError::Unknown { .. }) {
                    left.push(at);
                }
                results[at] = Err(error);
            }
            if left.is_empty() || !tries.again().await {
                break;
            }
        }
        results
    }
}

impl ObjectBucket {
    async fn delete_each(&self, keys: &[Key], left: &[usize]) -> Vec<(usize, StoreError)> {
        let mut failed = Vec::new();
        for at in left {
            failed.extend(self.delete(&keys[*at], Purpose::Upkeep).await.err().map(|error| (*at, error)));
        }
        failed
    }

    /// One attempt at the keys of `left`, by their places in `keys`; those of which it is not certain that they are gone. A
    /// store may answer a bulk with success and say in its body which it did not delete.
    async fn delete_once(&self, keys: &[Key], left: &[usize], tries: &Tries<'_>) -> Vec<(usize, StoreError)> {
        let what = |at: usize| format!("delete {}", keys[at]);
        let paths: Result<Vec<Path>, StoreError> = left.iter().map(|at| self.path(&keys[*at])).collect();
        let paths = match paths {
            Ok(paths) => paths,
            Err(error) => return left.iter().map(|at| (*at, error.clone())).collect(),
        };
        let silent = |reason: &str| {
            let unknown = |at: &usize| (*at, StoreError::Unknown { what: what(*at), reason: reason.to_owned() });
            left.iter().map(unknown).collect::<Vec<_>>()
        };
        let locations = futures::stream::iter(paths.into_iter().map(Ok)).boxed();
        let Some(results) = tries.attempt(self.bulk.delete_stream(locations).collect::<Vec<_>>()).await else {
            return silent("no answer in time");
        };
        if results.len() != left.len() {
            // The request failed as a whole.
            return match results.into_iter().find_map(Result::err).map(|e| failure(&e)) {
                // A store that knows no bulks.
                Some(Failure::Refused(_)) => self.delete_each(keys, left).await,
                other => silent(&other.map_or_else(|| "an answer for other objects".into(), Failure::reason)),
            };
        }
        let failed = left.iter().zip(results).filter_map(|(at, result)| match result.map_err(|e| failure(&e)) {
            Ok(_) | Err(Failure::Absent(_)) => None,
            Err(Failure::Refused(reason)) => Some((*at, StoreError::Refused { what: what(*at), reason })),
            Err(other) => Some((*at, StoreError::Unknown { what: what(*at), reason: other.reason() })),
        });
        failed.collect()
    }
}

/// The clients of one bucket, as `connect` makes them.
pub struct Clients {
    pub(super) data: Arc<dyn ObjectStore>,
    pub(super) control: Arc<dyn ObjectStore>,
    pub(super) bulk: Arc<dyn ObjectStore>,
    pub(super) sorted: bool,
}

/// Why a GET gave nothing: an answer to be judged, or a verdict.
enum ReadFailure {
    Answer(Failure),
    Final(StoreError),
}

impl From<Failure> for ReadFailure {
    fn from(failure: Failure) -> Self {
        Self::Answer(failure)
    }
}

impl From<StoreError> for ReadFailure {
    fn from(error: StoreError) -> Self {
        Self::Final(error)
    }
}

/// The end of a write that did not succeed.
fn ended(what: String, reason: String, certain: bool) -> StoreError {
    if certain { StoreError::Refused { what, reason } } else { StoreError::Unknown { what, reason } }
}

/// The body in one buffer of `expected` bytes, whatever pieces it came in, so that a small object does not pin the
/// connection's large buffer.
async fn collect(got: GetResult, expected: u64) -> Result<Bytes, Failure> {
    let mut all = BytesMut::with_capacity(usize::try_from(expected).unwrap_or(0));
    let mut pieces = got.into_stream();
    while let Some(piece) = pieces.try_next().await.map_err(|e| failure(&e))? {
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}
