//! Reads of one or many partitions, as of one State.
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::error;

use super::Records;
use super::assemble::{Contradiction, append};
use super::plan::{Part, Plan};
use crate::cache::{CachedObject, ObjectCache};
use crate::metadata::Replica;
use crate::state::{ObjectMeta, Run, State};
use crate::store::StoreError;
use crate::types::{ObjectId, Offset, Slot};
use crate::world::{Instant, World};

/// An answer waits at least this long for the bucket, even if its client wants it at once: most reads end within it.
/// Kafka's default for reads of its second tier (`remote.fetch.max.wait.ms`).
const BUCKET_WAIT_MIN: Duration = Duration::from_millis(500);

/// Serves reads.
#[derive(Clone)]
pub struct Fetcher {
    cache: Arc<ObjectCache>,
    replica: Replica,
    world: World,
    /// Bytes of objects that one fetch may pin.
    pinned_max: usize,
}

/// What is wanted of one partition. The offset lies between its log start and its end.
#[derive(Clone, Copy, Debug)]
pub struct PartRead {
    pub slot: Slot,
    pub offset: Offset,
    pub bytes_max: usize,
}

/// What was read: per partition its records, and the objects that stay in memory until they are sent.
#[derive(Debug)]
pub struct Fetched {
    pub parts: Vec<Result<Records, FetchError>>,
    pub holds: Vec<Arc<CachedObject>>,
    /// Memory of the holds and of what was copied, in bytes.
    pub held_bytes: usize,
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
    /// The bucket has not answered yet; the read goes on.
    #[error("the bucket has not answered yet")]
    Late,
    /// What State names is not in the bucket, or is something else.
    #[error("the records are damaged or missing")]
    Damaged,
}

/// The objects of a fetch, loaded once each.
type Objects = BTreeMap<ObjectId, Result<Arc<CachedObject>, FetchError>>;

impl Fetcher {
    /// Reads through `cache`; one fetch pins at most `pinned_max` bytes of objects, or one object.
    #[must_use]
    pub fn new(cache: Arc<ObjectCache>, replica: Replica, world: World, pinned_max: usize) -> Self {
        Self { cache, replica, world, pinned_max }
    }

    /// Which objects a read of `parts` in turn needs, until `bytes_max` bytes are found in all.
    #[must_use]
    pub fn plan(&self, state: &State, parts: &[PartRead], bytes_max: usize) -> Plan {
        Plan::new(state, parts, bytes_max, self.pinned_max)
    }

    /// Reads what was planned for `parts`. The first batch found is given whatever its size, so that a reader with small
    /// limits goes on (KIP-74). What the bucket has not given by `until` (or soon, if that is sooner) is left out without
    /// an error, as Kafka does for its second tier: the client asks again, and finds the read done or joins it.
    pub async fn read(&self, plan: Plan, parts: &[PartRead], bytes_max: usize, until: Instant) -> Fetched {
        let until = until.max(self.world.now() + BUCKET_WAIT_MIN);
        let wanted = plan.objects.iter().map(|(id, planned)| (*id, planned.meta));
        let objects = self.load(wanted, Some(until)).await;
        let mut taken = 0_usize;
        let mut results = Vec::with_capacity(parts.len());
        for (part, read) in parts.iter().zip(&plan.parts) {
            let room = part.bytes_max.min(bytes_max.saturating_sub(taken));
            let result = match read {
                None => Err(FetchError::Gone),
                Some(_) if taken > 0 && room == 0 => Ok(Records::default()),
                Some(Part::Made(made)) if taken > 0 && made.bytes > room => Ok(Records::default()),
                Some(Part::Made(made)) => Ok(made.clone()),
                Some(Part::Runs(runs)) => {
                    let found = self.assemble(part, runs, &plan, &objects, room, taken == 0);
                    match self.before(Some(until), found).await {
                        Err(FetchError::Late) => Ok(Records::default()),
                        found => found,
                    }
                }
            };
            taken += result.as_ref().map_or(0, |r| r.bytes);
            results.push(result);
        }
        let (mut holds, mut held_bytes) = (Vec::new(), taken);
        for (id, object) in objects {
            let spliced = plan.objects.get(&id).is_some_and(|planned| !planned.is_copied());
            if let (true, Ok(object)) = (spliced, object) {
                held_bytes += object.len() as usize;
                holds.push(object);
            }
        }
        Fetched { parts: results, holds, held_bytes }
    }

    async fn assemble(
        &self,
        part: &PartRead,
        runs: &[Run],
        plan: &Plan,
        objects: &Objects,
        room: usize,
        first: bool,
    ) -> Result<Records, FetchError> {
        let mut out = Records::default();
        for run in runs {
            let (object, copied) = match objects.get(&run.object) {
                Some(Ok(object)) => {
                    (object.clone(), plan.objects.get(&run.object).is_none_or(|planned| planned.is_copied()))
                }
                // What is found elsewhere is not held until the answer is sent, so it has to be copied.
                Some(Err(FetchError::Damaged)) if out.bytes == 0 => (self.look_again(part, run).await?, true),
                Some(Err(_)) if out.bytes > 0 => break,
                Some(Err(error)) => return Err(*error),
                None => return Err(FetchError::Unavailable),
            };
            match append(&mut out, &object, run, part.offset, room, copied) {
                Ok(true) => {}
                Ok(false) => break,
                Err(Contradiction) => {
                    error!(object = run.object.0, ?run, "an object does not hold what the journal says of it");
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

    /// Loads objects side by side, each once; `Late` is what is not there by `until`.
    pub(super) async fn load(
        &self,
        wanted: impl Iterator<Item = (ObjectId, ObjectMeta)>,
        until: Option<Instant>,
    ) -> Objects {
        let load = |(id, meta): (ObjectId, ObjectMeta)| async move {
            let got = async { self.cache.get(meta.name, meta.bytes).await.map_err(|e| kind_of(&e)) };
            (id, self.before(until, got).await)
        };
        join_all(wanted.map(load)).await.into_iter().collect()
    }

    /// What `work` gives, or `Late`.
    async fn before<T>(
        &self,
        until: Option<Instant>,
        work: impl Future<Output = Result<T, FetchError>>,
    ) -> Result<T, FetchError> {
        let Some(until) = until else { return work.await };
        let left = until.saturating_duration_since(self.world.now());
        self.world.timeout(left, work).await.unwrap_or(Err(FetchError::Late))
    }
}

fn kind_of(error: &StoreError) -> FetchError {
    match error {
        StoreError::NotFound { .. } | StoreError::Damaged { .. } => FetchError::Damaged,
        StoreError::Refused { .. } | StoreError::Unknown { .. } => FetchError::Unavailable,
    }
}
