//! Objects in memory: what this broker wrote, and what readers loaded, each once however many wait for it. A flush's object
//! is loaded whole, of a compacted one a run.
//! A load that has begun goes on when its readers give up, so that the next one finds it.
//! It promises that all bytes it holds, and all that readers still hold after an eviction, stay below one limit. It
//! never changes an object. moka does the eviction (LRU: with its default policy a log's newest objects are refused),
//! and its maintenance is run after each insert. What it evicts it may keep for long (crossbeam-epoch), so it is given
//! slots, which are emptied when it says that they are evicted: memory follows at once. No clock of moka's decides about
//! anything; its `future` cache would let tasks wait now and then by the system's. Tests: `tests.rs`.
//!
//! What is not in memory comes from a neighbour, where it is another broker's part to have it, or from the bucket. Where the
//! bucket is a directory of this machine, `files.rs` is the way to it.
mod files;
mod object;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::memory::Buffers;
use crate::segment::{self, ObjectName, RunBounds};
use crate::store::{Bucket, Purpose, StoreError};
use crate::telemetry::Metrics;
use crate::types::Offset;
use crate::world::World;

pub use files::{FileCache, ObjectFile};
pub use object::CachedObject;

/// How much the cache may hold.
#[derive(Clone, Copy, Debug)]
pub struct CacheLimits {
    /// Bytes of all objects, evicted ones that a reader still holds included.
    pub bytes: usize,
    /// Loads from the bucket that run at a time.
    pub loads: usize,
}

/// How long a load waits for room, while readers hold evicted objects.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// Share of the limit that each part may fill by itself, in percent: the rest is for loads in flight, and for evicted
/// objects that are still being sent. Written objects are apart from loaded ones, and those from runs of compacted objects,
/// so that a replay of old data does not evict what tailing readers use.
const WRITTEN_PERCENT: usize = 35;
const LOADED_PERCENT: usize = 15;
const RUNS_PERCENT: usize = 15;

/// The object's ULID, and where in it the unit begins.
type UnitKey = (u128, u32);
type Objects = Cache<UnitKey, Arc<Slot>, BuildHasherDefault<DefaultHasher>>;
type Loaded = Result<Arc<CachedObject>, Arc<StoreError>>;

/// What is loaded and kept as one: a whole object, or one run of a compacted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unit {
    pub name: ObjectName,
    /// Where it begins in the object.
    pub position: u32,
    pub bytes: u32,
    /// Of a run: its first offset, and the one after its last record.
    pub offsets: Option<(Offset, Offset)>,
}

impl Unit {
    /// A whole object of `bytes` bytes.
    #[must_use]
    pub fn whole(name: ObjectName, bytes: u32) -> Self {
        Self { name, position: 0, bytes, offsets: None }
    }

    fn key(&self) -> UnitKey {
        (self.name.ulid, self.position)
    }

    fn is_run(&self) -> bool {
        self.offsets.is_some()
    }
}

/// Other brokers that may have an object in memory.
#[async_trait]
pub trait Neighbours: Send + Sync {
    /// Whether it is a neighbour's part, and not ours, to read the object from the bucket.
    fn are_to_read(&self, name: ObjectName) -> bool;

    /// The object of `bytes` bytes, as a neighbour gave it and unchecked; `None` if the bucket is to be asked. It does not
    /// take long, whatever the neighbour does.
    async fn object(&self, name: ObjectName, bytes: u32) -> Option<Bytes>;
}

/// Who wants an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asker {
    Reader,
    Neighbour,
}

/// Where a load looks first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Neighbours,
    Bucket,
}

/// A load that has begun.
#[derive(Clone)]
struct Load {
    origin: Origin,
    loaded: Shared<BoxFuture<'static, Loaded>>,
}

impl Load {
    /// What it gives. Neighbours do not wait for one that asks neighbours, or two could wait for each other.
    async fn ended(self, asker: Asker, name: ObjectName) -> Loaded {
        if (asker, self.origin) == (Asker::Neighbour, Origin::Neighbours) {
            return Err(Arc::new(no_load(name, "a neighbour was asked for it")));
        }
        self.loaded.await
    }
}

/// The cache of one broker.
pub struct ObjectCache {
    bucket: Arc<dyn Bucket>,
    world: World,
    metrics: Arc<Metrics>,
    written: Objects,
    loaded: Objects,
    runs: Objects,
    room: Arc<Semaphore>,
    loads: Arc<Semaphore>,
    /// Loads of runs that a reader waits for, and of those that one will want next: catching up takes no turn from readers
    /// at the log's end.
    run_loads: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
    neighbours: Option<Arc<dyn Neighbours>>,
    /// Loads that ask neighbours.
    asks: Arc<Semaphore>,
    /// Loads that have begun. A mutex, held for map operations only.
    in_flight: Mutex<BTreeMap<UnitKey, Load>>,
    /// For what is copied out of objects.
    buffers: Arc<Buffers>,
    files: Option<Arc<FileCache>>,
    limit: usize,
}

/// An object until it is evicted. A mutex, held for a clone.
struct Slot {
    object: Mutex<Option<Arc<CachedObject>>>,
    pinned_bytes: usize,
}

impl Slot {
    fn of(object: Arc<CachedObject>) -> Arc<Self> {
        Arc::new(Self { pinned_bytes: object.pinned_bytes, object: Mutex::new(Some(object)) })
    }

    fn object(&self) -> MutexGuard<'_, Option<Arc<CachedObject>>> {
        self.object.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ObjectCache {
    /// An empty cache in front of `bucket`, and of `neighbours` if there may be any. `buffers` are for what is copied out of
    /// objects.
    #[must_use]
    pub fn new(
        bucket: Arc<dyn Bucket>,
        neighbours: Option<Arc<dyn Neighbours>>,
        world: World,
        metrics: Arc<Metrics>,
        buffers: Arc<Buffers>,
        limits: CacheLimits,
    ) -> Self {
        let part = |percent: usize| {
            Cache::builder()
                .max_capacity((limits.bytes / 100 * percent) as u64)
                .weigher(|_, slot: &Arc<Slot>| u32::try_from(slot.pinned_bytes).unwrap_or(u32::MAX))
                .eviction_policy(EvictionPolicy::lru())
                .eviction_listener(|_, slot: Arc<Slot>, _| drop(slot.object().take()))
                .build_with_hasher(BuildHasherDefault::<DefaultHasher>::default())
        };
        Self {
            files: bucket.files().map(|objects| Arc::new(FileCache::new(objects, metrics.clone()))),
            bucket,
            world,
            metrics,
            written: part(WRITTEN_PERCENT),
            loaded: part(LOADED_PERCENT),
            runs: part(RUNS_PERCENT),
            room: Arc::new(Semaphore::new(limits.bytes)),
            loads: Arc::new(Semaphore::new(limits.loads)),
            run_loads: Arc::new(Semaphore::new(limits.loads)),
            ahead: Arc::new(Semaphore::new(limits.loads.div_ceil(2))),
            neighbours,
            asks: Arc::new(Semaphore::new(limits.loads)),
            in_flight: Mutex::default(),
            buffers,
            limit: limits.bytes,
        }
    }

    /// The object, from memory, a neighbour or the bucket. `bytes` is its size. Whoever gives up while waiting for a load's
    /// turn leaves the queue; a load whose turn has come goes on without readers.
    ///
    /// # Errors
    /// Those of the bucket, and `Unknown` if there was no room for it in time.
    pub async fn get(self: &Arc<Self>, name: ObjectName, bytes: u32) -> Loaded {
        self.get_for(Asker::Reader, Unit::whole(name, bytes)).await
    }

    /// The same for any unit.
    ///
    /// # Errors
    /// As [`ObjectCache::get`].
    pub async fn get_unit(self: &Arc<Self>, unit: Unit) -> Loaded {
        self.get_for(Asker::Reader, unit).await
    }

    /// Loads a run that a reader will want soon, unless it is there, or others are being loaded in such a way already.
    pub fn read_ahead(self: &Arc<Self>, run: Unit) {
        if self.in_memory(run.key()).is_some() || self.in_flight().contains_key(&run.key()) {
            return;
        }
        if let Ok(turn) = self.ahead.clone().try_acquire_owned() {
            self.metrics.cache.read_ahead.inc();
            drop(self.begin(Origin::Bucket, run, turn));
        }
    }

    /// The same for a neighbour that asks for it.
    ///
    /// # Errors
    /// As [`ObjectCache::get`], and `Unknown` if it is just being asked for elsewhere.
    pub async fn get_for_neighbour(self: &Arc<Self>, name: ObjectName, bytes: u32) -> Loaded {
        self.get_for(Asker::Neighbour, Unit::whole(name, bytes)).await
    }

    async fn get_for(self: &Arc<Self>, asker: Asker, unit: Unit) -> Loaded {
        let name = unit.name;
        if let Some(object) = self.in_memory(unit.key()) {
            self.metrics.cache.hits.inc();
            return Ok(object);
        }
        self.metrics.cache.misses.inc();
        let begun = self.in_flight().get(&unit.key()).cloned();
        if let Some(begun) = begun {
            return begun.ended(asker, name).await;
        }
        let may_ask = asker == Asker::Reader && !unit.is_run();
        let elsewhere = may_ask && self.neighbours.as_ref().is_some_and(|n| n.are_to_read(name));
        let (origin, turns) = match (elsewhere, unit.is_run()) {
            (true, _) => (Origin::Neighbours, &self.asks),
            (false, true) => (Origin::Bucket, &self.run_loads),
            (false, false) => (Origin::Bucket, &self.loads),
        };
        let turn = turns.clone().acquire_owned().await.map_err(|_| Arc::new(no_load(name, "the broker stops")))?;
        // Somebody else's load may have ended meanwhile.
        if let Some(object) = self.in_memory(unit.key()) {
            return Ok(object);
        }
        self.begin(origin, unit, turn).ended(asker, name).await
    }

    /// Whether objects that are not in memory are read through [`ObjectCache::read_files`].
    #[must_use]
    pub fn has_files(&self) -> bool {
        self.files.is_some()
    }

    /// Buffers for what is copied out of objects.
    #[must_use]
    pub fn buffers(&self) -> &Arc<Buffers> {
        &self.buffers
    }

    /// The object, if it is in memory.
    pub fn peek(&self, name: ObjectName) -> Option<Arc<CachedObject>> {
        let object = self.in_memory((name.ulid, 0));
        let counter = if object.is_some() { &self.metrics.cache.hits } else { &self.metrics.cache.misses };
        counter.inc();
        object
    }

    /// The object, if it is in memory, for somebody who is no reader.
    #[must_use]
    pub fn kept(&self, name: ObjectName) -> Option<Arc<CachedObject>> {
        self.in_memory((name.ulid, 0))
    }

    /// What `work` makes of the objects' files, on a thread that may block, once it is its turn; `None` where objects are
    /// no files.
    pub async fn read_files<T: Send + 'static>(
        &self,
        work: impl FnOnce(&FileCache) -> T + Send + 'static,
    ) -> Option<T> {
        let files = self.files.clone()?;
        let slot = self.loads.clone().acquire_owned().await.ok()?;
        let metrics = self.metrics.clone();
        metrics.fetch.cold_reads_in_flight.inc();
        let work = move || {
            let done = work(&files);
            metrics.fetch.cold_reads_in_flight.dec();
            drop(slot);
            done
        };
        Some(self.world.compute(work).await)
    }

    fn in_memory(&self, unit: UnitKey) -> Option<Arc<CachedObject>> {
        for part in [&self.written, &self.loaded, &self.runs] {
            let object = part.get(&unit).and_then(|slot| slot.object().clone());
            if object.is_some() {
                return object;
            }
        }
        None
    }

    fn in_flight(&self) -> MutexGuard<'_, BTreeMap<UnitKey, Load>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The load of an object, as a task of its own; the one in flight, if there is one.
    fn begin(self: &Arc<Self>, origin: Origin, unit: Unit, turn: OwnedSemaphorePermit) -> Load {
        let start = || {
            let cache = Arc::clone(self);
            let task = self.world.spawn("load of an object", async move {
                let loaded = cache.load(origin, unit).await.map_err(Arc::new);
                if let Ok(object) = &loaded {
                    let part = if unit.is_run() { &cache.runs } else { &cache.loaded };
                    part.insert(unit.key(), Slot::of(object.clone()));
                    cache.settle(part);
                }
                cache.in_flight().remove(&unit.key());
                drop(turn);
                loaded
            });
            let lost = move || Err(Arc::new(no_load(unit.name, "the task ended")));
            let ended = task.map(move |ended| ended.unwrap_or_else(|_| lost()));
            Load { origin, loaded: ended.boxed().shared() }
        };
        self.in_flight().entry(unit.key()).or_insert_with(start).clone()
    }

    /// Takes the buffers of an object that is in the bucket now; they pin `pinned_bytes`. Without room it is not kept:
    /// readers load it from the bucket.
    pub fn insert_written(&self, name: ObjectName, body: Arc<[Bytes]>, pinned_bytes: usize) {
        let Ok(bytes) = u32::try_from(pinned_bytes) else { return };
        let Ok(room) = self.room.clone().try_acquire_many_owned(bytes) else { return };
        let object = CachedObject::new(body, 0, pinned_bytes, Some(room));
        self.written.insert((name.ulid, 0), Slot::of(Arc::new(object)));
        self.settle(&self.written);
    }

    async fn load(&self, origin: Origin, unit: Unit) -> Result<Arc<CachedObject>, StoreError> {
        let Unit { name, position, bytes, .. } = unit;
        let room =
            self.wait_for_room(bytes as usize).await.ok_or_else(|| no_load(name, "the cache has no room for it"))?;
        let given = match &self.neighbours {
            Some(neighbours) if origin == Origin::Neighbours => self.read_nearby(&**neighbours, name, bytes).await,
            _ => None,
        };
        let content = match given {
            Some(content) => content,
            None => self.read_bucket(origin, unit).await?,
        };
        let pinned = content.len();
        Ok(Arc::new(CachedObject::new(Arc::from([content]), position, pinned, Some(room))))
    }

    /// The object as a neighbour has it, if it is whole.
    async fn read_nearby(&self, neighbours: &dyn Neighbours, name: ObjectName, bytes: u32) -> Option<Bytes> {
        let given = neighbours.object(name, bytes).await?;
        let whole = whole(name, given).ok();
        let counter = if whole.is_some() { &self.metrics.cache.given } else { &self.metrics.cache.given_damaged };
        counter.inc();
        whole
    }

    async fn read_bucket(&self, origin: Origin, unit: Unit) -> Result<Bytes, StoreError> {
        let turn = async { if origin == Origin::Bucket { None } else { self.loads.acquire().await.ok() } };
        let _turn = turn.await;
        match self.read_checked(unit).await {
            // Damaged on its way, mostly: a second copy comes over another connection.
            Err(StoreError::Damaged { .. }) => self.read_checked(unit).await,
            read => read,
        }
    }

    async fn read_checked(&self, unit: Unit) -> Result<Bytes, StoreError> {
        let Unit { name, position, bytes, .. } = unit;
        let range = u64::from(position)..u64::from(position) + u64::from(bytes);
        self.metrics.fetch.cold_reads.inc();
        self.metrics.fetch.cold_reads_in_flight.inc();
        let content = self.bucket.read(&name.key(), Some(range), Purpose::Cold).await;
        self.metrics.fetch.cold_reads_in_flight.dec();
        match unit.offsets {
            Some(offsets) => run(unit, offsets, content?),
            None => whole(name, content?),
        }
    }

    /// Makes room by evicting loaded objects, then waits until readers let go of evicted ones.
    async fn wait_for_room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes.min(self.limit)).ok()?;
        match self.room.clone().try_acquire_many_owned(bytes) {
            Ok(room) => return Some(room),
            Err(TryAcquireError::Closed) => return None,
            Err(TryAcquireError::NoPermits) => {}
        }
        self.world.timeout(ROOM_WAIT, self.room.clone().acquire_many_owned(bytes)).await?.ok()
    }

    /// Applies evictions now.
    fn settle(&self, part: &Objects) {
        part.run_pending_tasks();
        self.metrics.cache.bytes.set((self.limit - self.room.available_permits()) as i64);
    }
}

/// The object, as it was written: what is kept is given to every reader.
fn whole(name: ObjectName, content: Bytes) -> Result<Bytes, StoreError> {
    let damaged = |reason: String| StoreError::Damaged { key: name.key(), reason };
    match segment::read_footer(&content) {
        Ok((header, _)) if header.name == name => Ok(content),
        Ok((header, _)) => Err(damaged(format!("it says that it is {}", header.name.key()))),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// A run, of which each batch is as it was produced, and where it belongs: a part of an object has no checksum of its own.
fn run(unit: Unit, (base_offset, end_offset): (Offset, Offset), content: Bytes) -> Result<Bytes, StoreError> {
    let end = unit.position.saturating_add(unit.bytes);
    let bounds = RunBounds { position: unit.position, end, base_offset, end_offset, is_final: true };
    let checked = segment::check_run(&content, &bounds);
    checked.map_err(|e| StoreError::Damaged { key: unit.name.key(), reason: e.to_string() }).map(|()| content)
}

fn no_load(name: ObjectName, reason: &str) -> StoreError {
    StoreError::Unknown { what: format!("read of {}", name.key()), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
