//! Reads of one or many partitions, as of one State.
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tracing::error;

use super::Records;
use super::ahead::Streams;
use super::copies::Copies;
use super::job::{Failed, Job, Source, Sources, broken_run};
use super::plan::{Plan, Planned, Reading, UnitId, target, unit};
use crate::cache::{CachedObject, ObjectCache, Unit};
use crate::metadata::Replica;
use crate::segment::ObjectName;
use crate::state::{RecordEpochs, Run, State};
use crate::store::StoreError;
use crate::types::{Offset, Slot};
use crate::world::{Instant, World};

/// An answer waits at least this long for the bucket, even if its client wants it at once: most reads end within it.
/// Kafka's default for reads of its second tier (`remote.fetch.max.wait.ms`).
const BUCKET_WAIT_MIN: Duration = Duration::from_millis(500);

/// Of an object in memory that an answer does not hold, this many bytes or more are read from its file, if it has one:
/// the kernel sends large batches from there without a copy. For fewer it is not worth a visit to another thread.
const FILE_BYTES_MIN: usize = 64 << 10;

/// Serves reads.
#[derive(Clone)]
pub struct Fetcher {
    cache: Arc<ObjectCache>,
    replica: Replica,
    world: World,
    /// Bytes of objects that one fetch may pin.
    pinned_max: usize,
    streams: Arc<Streams>,
}

/// What is wanted of one partition. The offset lies between its log start and its end.
#[derive(Clone, Copy, Debug)]
pub struct PartRead {
    pub slot: Slot,
    pub offset: Offset,
    /// Records from here on are left out.
    pub until: Offset,
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

/// What a newer State has in the place of what was not there.
struct Found {
    object: Arc<CachedObject>,
    run: Run,
    is_final: bool,
    epochs: RecordEpochs,
}

/// What was loaded, each once.
type Loaded = Vec<(Unit, Result<Arc<CachedObject>, FetchError>)>;

impl Fetcher {
    /// Reads through `cache`; one fetch pins at most `pinned_max` bytes of objects, or one object.
    #[must_use]
    pub fn new(cache: Arc<ObjectCache>, replica: Replica, world: World, pinned_max: usize) -> Self {
        Self { cache, replica, world, pinned_max, streams: Arc::default() }
    }

    /// Which objects a read of `parts` in turn needs, until `bytes_max` bytes are found in all.
    #[must_use]
    pub fn plan(&self, state: &State, parts: &[PartRead], bytes_max: usize) -> Plan {
        let reading = if self.cache.has_files() { Reading::Files } else { Reading::Whole };
        Plan::new(state, parts, bytes_max, self.pinned_max, reading)
    }

    /// Reads what was planned for `parts`. The first batch found is given whatever its size, so that a reader with small
    /// limits goes on (KIP-74). What the bucket has not given by `until` (or soon, if that is sooner) is left out without
    /// an error, as Kafka does for its second tier: the client asks again, and finds the read done or joins it.
    pub async fn read(&self, plan: Plan, parts: &[PartRead], bytes_max: usize, until: Instant) -> Fetched {
        let until = until.max(self.world.now() + BUCKET_WAIT_MIN);
        let sources = if self.cache.has_files() {
            self.find(&plan)
        } else {
            self.load_ahead(&plan);
            let loaded = self.load(plan.units.values().map(|planned| planned.unit), Some(until)).await;
            let sources = plan.units.keys().zip(loaded);
            sources.map(|(id, (_, object))| (*id, object.map(Source::Memory))).collect()
        };
        let job = Job { plan, parts: parts.to_vec(), bytes_max, sources, buffers: self.cache.buffers().clone() };
        let (job, mut found) = self.run(job, until).await;
        let taken = |found: &[Result<Records, Failed>]| found.iter().flatten().map(|r| r.bytes).sum::<usize>();
        for i in 0..found.len() {
            if let (Err(Failed::Missing(run)), Some(part)) = (&found[i], parts.get(i)) {
                let taken = taken(&found);
                let room = part.bytes_max.min(bytes_max.saturating_sub(taken));
                let again = self.before(Some(until), self.read_again(part, run, room, taken == 0)).await;
                found[i] = again.map_err(Failed::For);
            }
        }
        let results = found.into_iter().map(|result| match result {
            Ok(records) => Ok(records),
            Err(Failed::For(FetchError::Late)) => Ok(Records::default()),
            Err(Failed::For(error)) => Err(error),
            Err(Failed::Missing(_)) => Err(FetchError::Damaged),
        });
        let parts: Vec<_> = results.collect();
        let holds = job.holds();
        let own: usize = parts.iter().flatten().map(|r| r.own_bytes).sum();
        let held_bytes = own + holds.iter().map(|object| object.len() as usize).sum::<usize>();
        Fetched { parts, holds, held_bytes }
    }

    /// An object of `bytes` bytes for a neighbour.
    ///
    /// # Errors
    /// `Unavailable` or `Damaged`, for which the neighbour asks the bucket.
    pub async fn object_for_neighbour(&self, name: ObjectName, bytes: u32) -> Result<Arc<CachedObject>, FetchError> {
        self.cache.get_for_neighbour(name, bytes).await.map_err(|e| kind_of(&e))
    }

    /// Begins to load what readers of compacted runs will want next, the more the longer they go on.
    fn load_ahead(&self, plan: &Plan) {
        for ahead in &plan.ahead {
            let runs = self.streams.window(ahead.slot, ahead.from, ahead.to);
            ahead.runs.iter().take(runs).for_each(|run| self.cache.read_ahead(*run));
        }
    }

    /// Where each object is read: in memory or in its file.
    fn find(&self, plan: &Plan) -> Sources {
        let source = |(id, planned): (&UnitId, &Planned)| {
            let name = planned.unit.name;
            let by_file = planned.is_final || plan.is_copied(*id) && planned.used >= FILE_BYTES_MIN;
            let object = if by_file { None } else { self.cache.peek(name) };
            (*id, Ok(object.map_or(Source::File(name), Source::Memory)))
        };
        plan.units.iter().map(source).collect()
    }

    /// Runs the job, where it may block if it has to.
    async fn run(&self, job: Job, until: Instant) -> (Arc<Job>, Vec<Result<Records, Failed>>) {
        let job = Arc::new(job);
        if !job.sources.values().any(|source| matches!(source, Ok(Source::File(_)))) {
            let found = job.run(None);
            return (job, found);
        }
        let shared = job.clone();
        let read =
            async { self.cache.read_files(move |files| shared.run(Some(files))).await.ok_or(FetchError::Unavailable) };
        let found = self.before(Some(until), read).await;
        let found = found.unwrap_or_else(|error| job.parts.iter().map(|_| Err(Failed::For(error))).collect());
        (job, found)
    }

    /// Reads a run whose object was not there. What is found elsewhere is not held until the answer is sent, so it is
    /// copied.
    async fn read_again(&self, part: &PartRead, run: &Run, room: usize, first: bool) -> Result<Records, FetchError> {
        let Found { object, run, is_final, epochs } = self.look_again(part, run).await?;
        let target = target(&epochs, part, &run, is_final, room);
        let mut out = Records::default();
        let mut copies = Copies::new(self.cache.buffers().clone(), room.min(run.bytes as usize));
        copies.append_object(&mut out, &object, &run, target).map_err(|broken| broken_run(&run, broken))?;
        copies.finish(&mut out);
        if !first && out.bytes > room { Ok(Records::default()) } else { Ok(out) }
    }

    /// An object was not there: perhaps a newer State names another one for the same records.
    async fn look_again(&self, part: &PartRead, run: &Run) -> Result<Found, FetchError> {
        let state = self.replica.barrier().await.map_err(|_| FetchError::Unavailable)?;
        let partition = state.partition(part.slot).ok_or(FetchError::Gone)?;
        let wanted = part.offset.max(run.base_offset);
        // Not if they were deleted meanwhile: the client asks again, and is told so.
        let again = partition.tail.from(wanted).next().filter(|now| now.base_offset <= wanted);
        let (run, meta) =
            again.and_then(|run| Some((run, state.object(run.object)?))).ok_or(FetchError::Unavailable)?;
        let object = self.cache.get_unit(unit(meta, &run)).await.map_err(|e| {
            error!(key = meta.name.key(), error = %e, "records that were acknowledged can't be read");
            kind_of(&e)
        })?;
        Ok(Found { object, run, is_final: meta.level > 0, epochs: RecordEpochs::of(&state) })
    }

    /// Loads units side by side, in their order; `Late` is what is not there by `until`.
    pub(super) async fn load(&self, wanted: impl Iterator<Item = Unit>, until: Option<Instant>) -> Loaded {
        let load = |unit: Unit| async move {
            let got = async { self.cache.get_unit(unit).await.map_err(|e| kind_of(&e)) };
            (unit, self.before(until, got).await)
        };
        join_all(wanted.map(load)).await
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

pub(super) fn kind_of(error: &StoreError) -> FetchError {
    match error {
        StoreError::NotFound { .. } | StoreError::Damaged { .. } => FetchError::Damaged,
        StoreError::Refused { .. } | StoreError::Unknown { .. } => FetchError::Unavailable,
    }
}
