//! Reads of one or many partitions, as of one State.
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::error;

use super::Records;
use super::assemble::{Contradiction, append};
use super::plan::plan;
use crate::cache::{CachedObject, ObjectCache};
use crate::metadata::Replica;
use crate::state::{Run, State};
use crate::store::StoreError;
use crate::types::{ObjectId, Offset, Slot};

/// Serves reads.
#[derive(Clone)]
pub struct Fetcher {
    pub(super) cache: Arc<ObjectCache>,
    pub(super) replica: Replica,
}

/// What is wanted of one partition. The offset lies between its log start and its end.
#[derive(Clone, Copy, Debug)]
pub struct PartRead {
    pub slot: Slot,
    pub offset: Offset,
    pub bytes_max: usize,
}

/// Why a partition could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The topic was deleted meanwhile.
    #[error("the partition is gone")]
    Gone,
    /// The bucket does not answer, or the cache has no room: may be tried again.
    #[error("the bucket does not answer")]
    Unavailable,
    /// What State names is not in the bucket, or is something else.
    #[error("the records are damaged or missing")]
    Damaged,
}

/// The objects of one round of reads, loaded once each.
type Objects = BTreeMap<ObjectId, Result<Arc<CachedObject>, FetchError>>;

impl Fetcher {
    #[must_use]
    pub fn new(cache: Arc<ObjectCache>, replica: Replica) -> Self {
        Self { cache, replica }
    }

    /// Reads the partitions in turn until `bytes_max` bytes are found in all. The first batch found is given whatever
    /// its size, so that a reader with small limits goes on (KIP-74).
    pub async fn read(&self, state: &State, parts: &[PartRead], bytes_max: usize) -> Vec<Result<Records, FetchError>> {
        let mut planned = 0_usize;
        let plans: Vec<Option<Vec<Run>>> = parts
            .iter()
            .map(|part| {
                let partition = state.partition(part.slot)?;
                let room = bytes_max.saturating_sub(planned).min(part.bytes_max);
                // Beyond the limit only a first batch is ever taken.
                if planned > 0 && room == 0 {
                    return Some(Vec::new());
                }
                let runs = plan(partition, part.offset, room);
                planned += runs.iter().map(|r| r.bytes as usize).sum::<usize>();
                Some(runs)
            })
            .collect();
        let objects = self.load(state, plans.iter().flatten().flatten().map(|run| run.object)).await;
        let mut taken = 0_usize;
        let mut results = Vec::with_capacity(parts.len());
        for (part, runs) in parts.iter().zip(plans) {
            let room = part.bytes_max.min(bytes_max.saturating_sub(taken));
            let result = match runs {
                None => Err(FetchError::Gone),
                Some(_) if taken > 0 && room == 0 => Ok(Records::default()),
                Some(runs) => self.assemble(state, part, &runs, &objects, room, taken == 0).await,
            };
            taken += result.as_ref().map_or(0, |r| r.bytes);
            results.push(result);
        }
        results
    }

    async fn assemble(
        &self,
        state: &State,
        part: &PartRead,
        runs: &[Run],
        objects: &Objects,
        room: usize,
        first: bool,
    ) -> Result<Records, FetchError> {
        let mut out = Records::default();
        for run in runs {
            let object = match objects.get(&run.object) {
                Some(Ok(object)) => object.clone(),
                Some(Err(FetchError::Damaged)) if out.bytes == 0 => self.look_again(part, run).await?,
                Some(Err(_)) if out.bytes > 0 => break,
                Some(Err(error)) => return Err(*error),
                None => return Err(FetchError::Unavailable),
            };
            match append(&mut out, &object, run, part.offset, room) {
                Ok(true) => {}
                Ok(false) => break,
                Err(Contradiction) => {
                    let key = state.object(run.object).map(|o| o.name.key());
                    error!(?key, ?run, "an object does not hold what the journal says of it");
                    return Err(FetchError::Damaged);
                }
            }
        }
        // Only the first batch of a whole fetch may exceed the limits.
        if !first && out.bytes > room { Ok(Records::default()) } else { Ok(out) }
    }

    /// An object was not there: perhaps a newer State names another one for the same records.
    async fn look_again(&self, part: &PartRead, run: &Run) -> Result<Arc<CachedObject>, FetchError> {
        let state = self.replica.barrier().await.map_err(|_| FetchError::Unavailable)?;
        let partition = state.partition(part.slot).ok_or(FetchError::Gone)?;
        let again = partition.tail.from(part.offset).next().filter(|now| now.base_offset == run.base_offset);
        let meta = again.and_then(|run| state.object(run.object)).ok_or(FetchError::Unavailable)?;
        self.cache.get(meta.name, meta.bytes).await.map_err(|e| {
            error!(key = meta.name.key(), error = %e, "records that were acknowledged can't be read");
            kind_of(&e)
        })
    }

    pub(super) async fn load(&self, state: &State, wanted: impl Iterator<Item = ObjectId>) -> Objects {
        let wanted: std::collections::BTreeSet<ObjectId> = wanted.collect();
        let loads = wanted.into_iter().map(|id| async move {
            let Some(meta) = state.object(id) else { return (id, Err(FetchError::Damaged)) };
            (id, self.cache.get(meta.name, meta.bytes).await.map_err(|e| kind_of(&e)))
        });
        join_all(loads).await.into_iter().collect()
    }
}

fn kind_of(error: &StoreError) -> FetchError {
    match error {
        StoreError::NotFound { .. } | StoreError::Damaged { .. } => FetchError::Damaged,
        StoreError::Refused { .. } | StoreError::Unknown { .. } => FetchError::Unavailable,
    }
}
