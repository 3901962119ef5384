//! L0 objects in memory: what this broker wrote, and what readers loaded, each object once however many wait for it.
//! A load that has begun goes on when its readers give up, so that the next one finds it.
//! It promises that all bytes it holds, and all that readers still hold after an eviction, stay below one limit. It
//! never changes an object. moka does the eviction (LRU: with its default policy a log's newest objects are refused),
//! and its maintenance is run after each insert. What it evicts it may keep for long (crossbeam-epoch), so it is given
//! slots, which are emptied when it says that they are evicted: memory follows at once. No clock of moka's decides about
//! anything; its `future` cache would let tasks wait now and then by the system's. Tests are at the end of this file.
//!
//! What is not in memory comes from a neighbour, where it is another broker's part to have it, or from the bucket. Where the
//! bucket is a directory of this machine, `files.rs` is the way to it.
mod files;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::memory::Buffers;
use crate::segment::{self, ObjectName};
use crate::store::{Bucket, Purpose, StoreError};
use crate::telemetry::Metrics;
use crate::world::World;

pub use files::{FileCache, ObjectFile};

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
/// objects that are still being sent. Written objects are apart from loaded ones, so that a replay of old data does
/// not evict what tailing readers use.
const WRITTEN_PERCENT: usize = 35;
const LOADED_PERCENT: usize = 15;

type Objects = Cache<u128, Arc<Slot>, BuildHasherDefault<DefaultHasher>>;
type Loaded = Result<Arc<CachedObject>, Arc<StoreError>>;
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
    room: Arc<Semaphore>,
    loads: Arc<Semaphore>,
    neighbours: Option<Arc<dyn Neighbours>>,
    /// Loads that ask neighbours.
    asks: Arc<Semaphore>,
    /// Loads that have begun. A mutex, held for map operations only.
    in_flight: Mutex<BTreeMap<u128, Load>>,
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

/// A whole object in memory.
#[derive(Debug)]
pub struct CachedObject {
    chunks: Arc<[Bytes]>,
    /// Where each chunk begins, and the object's size at the end.
    starts: Vec<u32>,
    pinned_bytes: usize,
    /// Its share of the limit; given back when the last holder lets go.
    _room: OwnedSemaphorePermit,
}

impl CachedObject {
    fn new(chunks: Arc<[Bytes]>, pinned_bytes: usize, room: OwnedSemaphorePermit) -> Self {
        let mut starts = Vec::with_capacity(chunks.len() + 1);
        let mut at = 0_u32;
        for chunk in chunks.iter() {
            starts.push(at);
            at = at.saturating_add(u32::try_from(chunk.len()).unwrap_or(u32::MAX));
        }
        starts.push(at);
        Self { chunks, starts, pinned_bytes, _room: room }
    }

    /// The object's size in bytes.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the bytes in `range` to `out`, as slices that keep the object's buffers alive; false if it ends early.
    #[must_use]
    pub fn slice_into<T: From<Bytes>>(&self, range: Range<u32>, out: &mut Vec<T>) -> bool {
        self.pieces(range, |chunk, from, to| out.push(chunk.slice(from..to).into()))
    }

    /// Copies the bytes from `at` on into `out`; false if the object ends before.
    #[must_use]
    pub fn copy_to(&self, at: u32, out: &mut [u8]) -> bool {
        let Some(end) = u32::try_from(out.len()).ok().and_then(|n| at.checked_add(n)) else { return false };
        let mut filled = 0;
        self.pieces(at..end, |chunk, from, to| {
            out[filled..filled + to - from].copy_from_slice(&chunk[from..to]);
            filled += to - from;
        })
    }

    /// Visits the parts of chunks that make up `range`; false, and no visit, if the object ends early.
    fn pieces(&self, range: Range<u32>, mut visit: impl FnMut(&Bytes, usize, usize)) -> bool {
        if range.end > self.len() || range.start > range.end {
            return false;
        }
        let mut index = self.starts.partition_point(|s| *s <= range.start).saturating_sub(1);
        let mut at = range.start;
        while at < range.end {
            let (start, end) = (self.starts[index], self.starts[index + 1].min(range.end));
            visit(&self.chunks[index], (at - start) as usize, (end - start) as usize);
            at = end;
            index += 1;
        }
        true
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
            room: Arc::new(Semaphore::new(limits.bytes)),
            loads: Arc::new(Semaphore::new(limits.loads)),
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
        self.get_for(Asker::Reader, name, bytes).await
    }

    /// The same for a neighbour that asks for it.
    ///
    /// # Errors
    /// As [`ObjectCache::get`], and `Unknown` if it is just being asked for elsewhere.
    pub async fn get_for_neighbour(self: &Arc<Self>, name: ObjectName, bytes: u32) -> Loaded {
        self.get_for(Asker::Neighbour, name, bytes).await
    }

    async fn get_for(self: &Arc<Self>, asker: Asker, name: ObjectName, bytes: u32) -> Loaded {
        if let Some(object) = self.in_memory(name) {
            self.metrics.cache.hits.inc();
            return Ok(object);
        }
        self.metrics.cache.misses.inc();
        let begun = self.in_flight().get(&name.ulid).cloned();
        if let Some(begun) = begun {
            return begun.ended(asker, name).await;
        }
        let elsewhere = asker == Asker::Reader && self.neighbours.as_ref().is_some_and(|n| n.are_to_read(name));
        let (origin, turns) = if elsewhere { (Origin::Neighbours, &self.asks) } else { (Origin::Bucket, &self.loads) };
        let turn = turns.clone().acquire_owned().await.map_err(|_| Arc::new(no_load(name, "the broker stops")))?;
        // Somebody else's load may have ended meanwhile.
        if let Some(object) = self.in_memory(name) {
            return Ok(object);
        }
        self.begin(origin, name, bytes, turn).ended(asker, name).await
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
        let object = self.in_memory(name);
        let counter = if object.is_some() { &self.metrics.cache.hits } else { &self.metrics.cache.misses };
        counter.inc();
        object
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

    fn in_memory(&self, name: ObjectName) -> Option<Arc<CachedObject>> {
        for part in [&self.written, &self.loaded] {
            let object = part.get(&name.ulid).and_then(|slot| slot.object().clone());
            if object.is_some() {
                return object;
            }
        }
        None
    }

    fn in_flight(&self) -> MutexGuard<'_, BTreeMap<u128, Load>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The load of an object, as a task of its own; the one in flight, if there is one.
    fn begin(self: &Arc<Self>, origin: Origin, name: ObjectName, bytes: u32, turn: OwnedSemaphorePermit) -> Load {
        let start = || {
            let cache = Arc::clone(self);
            let task = self.world.spawn("load of an object", async move {
                let loaded = cache.load(origin, name, bytes).await.map_err(Arc::new);
                if let Ok(object) = &loaded {
                    cache.loaded.insert(name.ulid, Slot::of(object.clone()));
                    cache.settle(&cache.loaded);
                }
                cache.in_flight().remove(&name.ulid);
                drop(turn);
                loaded
            });
            let ended = task.map(move |ended| ended.unwrap_or_else(|_| Err(Arc::new(no_load(name, "the task ended")))));
            Load { origin, loaded: ended.boxed().shared() }
        };
        self.in_flight().entry(name.ulid).or_insert_with(start).clone()
    }

    /// Takes the buffers of an object that is in the bucket now; they pin `pinned_bytes`. Without room it is not kept:
    /// readers load it from the bucket.
    pub fn insert_written(&self, name: ObjectName, body: Arc<[Bytes]>, pinned_bytes: usize) {
        let Ok(bytes) = u32::try_from(pinned_bytes) else { return };
        let Ok(room) = self.room.clone().try_acquire_many_owned(bytes) else { return };
        self.written.insert(name.ulid, Slot::of(Arc::new(CachedObject::new(body, pinned_bytes, room))));
        self.settle(&self.written);
    }

    async fn load(&self, origin: Origin, name: ObjectName, bytes: u32) -> Result<Arc<CachedObject>, StoreError> {
        let room =
            self.wait_for_room(bytes as usize).await.ok_or_else(|| no_load(name, "the cache has no room for it"))?;
        let given = match &self.neighbours {
            Some(neighbours) if origin == Origin::Neighbours => self.read_nearby(&**neighbours, name, bytes).await,
            _ => None,
        };
        let content = match given {
            Some(content) => content,
            None => self.read_bucket(origin, name, bytes).await?,
        };
        let pinned = content.len();
        Ok(Arc::new(CachedObject::new(Arc::from([content]), pinned, room)))
    }

    /// The object as a neighbour has it, if it is whole.
    async fn read_nearby(&self, neighbours: &dyn Neighbours, name: ObjectName, bytes: u32) -> Option<Bytes> {
        let given = neighbours.object(name, bytes).await?;
        let whole = whole(name, given).ok();
        let counter = if whole.is_some() { &self.metrics.cache.given } else { &self.metrics.cache.given_damaged };
        counter.inc();
        whole
    }

    async fn read_bucket(&self, origin: Origin, name: ObjectName, bytes: u32) -> Result<Bytes, StoreError> {
        let turn = async { if origin == Origin::Bucket { None } else { self.loads.acquire().await.ok() } };
        let _turn = turn.await;
        match self.read_whole(name, bytes).await {
            // Damaged on its way, mostly: a second copy comes over another connection.
            Err(StoreError::Damaged { .. }) => self.read_whole(name, bytes).await,
            read => read,
        }
    }

    async fn read_whole(&self, name: ObjectName, bytes: u32) -> Result<Bytes, StoreError> {
        self.metrics.fetch.cold_reads.inc();
        self.metrics.fetch.cold_reads_in_flight.inc();
        let content = self.bucket.read(&name.key(), Some(0..u64::from(bytes)), Purpose::Cold).await;
        self.metrics.fetch.cold_reads_in_flight.dec();
        whole(name, content?)
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

fn no_load(name: ObjectName, reason: &str) -> StoreError {
    StoreError::Unknown { what: format!("read of {}", name.key()), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{ObjectHeader, ObjectWriter};
    use crate::store::{CreateOutcome, Key, Listed, MemoryBucket};
    use crate::types::{Head, Incarnation, PartitionIndex, TimestampMs, TopicId};
    use async_trait::async_trait;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn name(ulid: u128) -> ObjectName {
        ObjectName { applied: Head::default(), ulid }
    }

    async fn cache(limit: usize, objects: u128) -> Arc<ObjectCache> {
        let bucket = Arc::new(MemoryBucket::new());
        for ulid in 0..objects {
            bucket.create(&name(ulid).key(), object(ulid), Purpose::Ingest).await.unwrap();
        }
        over(bucket, limit)
    }

    /// An object of 1,000 bytes.
    fn object(ulid: u128) -> Vec<Bytes> {
        let (incarnation, written_ms) = (Incarnation(1), TimestampMs(0));
        let mut writer = ObjectWriter::new(&ObjectHeader { name: name(ulid), incarnation, written_ms });
        let position = writer.position();
        writer.push(Bytes::from(vec![ulid as u8; 888]));
        writer.end_run(TopicId::default(), PartitionIndex(0), position, 1);
        writer.finish().0
    }

    fn over(bucket: Arc<dyn Bucket>, limit: usize) -> Arc<ObjectCache> {
        let metrics = Arc::new(Metrics::new(TimestampMs(0)));
        let limits = CacheLimits { bytes: limit, loads: 4 };
        Arc::new(ObjectCache::new(bucket, None, World::seeded(1), metrics, Arc::default(), limits))
    }

    #[tokio::test(start_paused = true)]
    async fn many_readers_load_an_object_once() {
        let cache = cache(10_000, 1).await;
        let loads = futures::future::join_all((0..100).map(|_| cache.get(name(0), 1000))).await;
        assert!(loads.iter().all(|l| l.as_ref().unwrap().len() == 1000));
        assert_eq!(cache.metrics.fetch.cold_reads.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn readers_that_hold_on_count_against_the_limit() {
        let cache = cache(4_000, 10).await;
        let mut held = Vec::new();
        for ulid in 0..4 {
            held.push(cache.get(name(ulid), 1000).await.unwrap());
        }
        let error = cache.get(name(4), 1000).await.unwrap_err();
        assert!(matches!(&*error, StoreError::Unknown { reason, .. } if reason.contains("no room")), "{error:?}");
        held.clear();
        assert_eq!(cache.get(name(4), 1000).await.unwrap().len(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn slices_run_over_chunks() {
        let cache = cache(1000, 0).await;
        let chunks: Arc<[Bytes]> = [&b"abc"[..], b"", b"defgh"].map(Bytes::from_static).into();
        cache.insert_written(name(1), chunks, 8);
        let object = cache.get(name(1), 8).await.unwrap();
        let mut out: Vec<Bytes> = Vec::new();
        assert!(object.slice_into(1..6, &mut out));
        assert_eq!(out.concat(), b"bcdef");
        assert!(!object.slice_into(1..9, &mut out));
        let mut copy = [0; 4];
        assert!(object.copy_to(2, &mut copy) && &copy == b"cdef");
        assert!(!object.copy_to(5, &mut copy));
    }

    /// A bucket whose next reads have a byte that was not written.
    struct Corrupting(MemoryBucket, AtomicU32);

    #[async_trait]
    impl Bucket for Corrupting {
        async fn create(&self, key: &Key, body: Vec<Bytes>, purpose: Purpose) -> Result<CreateOutcome, StoreError> {
            self.0.create(key, body, purpose).await
        }
        async fn read(&self, key: &Key, range: Option<Range<u64>>, purpose: Purpose) -> Result<Bytes, StoreError> {
            let mut content = self.0.read(key, range, purpose).await?.to_vec();
            if self.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                content[500] ^= 1;
            }
            Ok(content.into())
        }
        async fn list(&self, p: &str, a: Option<&Key>, n: usize, purpose: Purpose) -> Result<Vec<Listed>, StoreError> {
            self.0.list(p, a, n, purpose).await
        }
        async fn delete(&self, key: &Key, purpose: Purpose) -> Result<(), StoreError> {
            self.0.delete(key, purpose).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_damaged_on_its_way_is_read_again_and_never_kept() {
        let bucket = Arc::new(Corrupting(MemoryBucket::new(), AtomicU32::new(1)));
        bucket.create(&name(0).key(), object(0), Purpose::Ingest).await.unwrap();
        let cache = over(bucket.clone(), 10_000);
        let whole = object(0).concat();
        let mut read = vec![0; 1000];
        assert!(cache.get(name(0), 1000).await.unwrap().copy_to(0, &mut read) && read == whole);
        let cache = over(bucket.clone(), 10_000);
        bucket.1.store(2, Ordering::Relaxed);
        let error = cache.get(name(0), 1000).await.unwrap_err();
        assert!(matches!(&*error, StoreError::Damaged { .. }), "{error:?}");
        assert_eq!(cache.get(name(0), 1000).await.unwrap().len(), 1000, "the next reader's copy is whole");
    }

    /// Neighbours that give what is set, after a while.
    struct Giving(World, Option<Bytes>);

    #[async_trait]
    impl Neighbours for Giving {
        fn are_to_read(&self, _: ObjectName) -> bool {
            true
        }
        async fn object(&self, _: ObjectName, _: u32) -> Option<Bytes> {
            self.0.sleep(Duration::from_secs(1)).await;
            self.1.clone()
        }
    }

    async fn beside(given: Option<Vec<u8>>) -> Arc<ObjectCache> {
        let bucket = Arc::new(MemoryBucket::new());
        bucket.create(&name(0).key(), object(0), Purpose::Ingest).await.unwrap();
        let (metrics, limits) = (Arc::new(Metrics::new(TimestampMs(0))), CacheLimits { bytes: 10_000, loads: 4 });
        let world = World::seeded(1);
        let neighbours: Arc<dyn Neighbours> = Arc::new(Giving(world.clone(), given.map(Into::into)));
        Arc::new(ObjectCache::new(bucket, Some(neighbours), world, metrics, Arc::default(), limits))
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_neighbour_gives_is_looked_at() {
        let whole = object(0).concat();
        let mut damaged = whole.clone();
        damaged[500] ^= 1;
        for (given, reads) in [(Some(whole.clone()), 0), (Some(damaged), 1), (Some(object(1).concat()), 1), (None, 1)] {
            let cache = beside(given).await;
            let mut read = vec![0; 1000];
            assert!(cache.get(name(0), 1000).await.unwrap().copy_to(0, &mut read) && read == whole);
            assert_eq!(cache.metrics.fetch.cold_reads.get(), reads);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn neighbours_do_not_wait_for_each_other() {
        let cache = beside(None).await;
        let (own, for_neighbour) = tokio::join!(cache.get(name(0), 1000), async {
            tokio::task::yield_now().await;
            cache.get_for_neighbour(name(0), 1000).await
        });
        assert!(own.is_ok() && for_neighbour.is_err());
        assert!(cache.get_for_neighbour(name(0), 1000).await.is_ok(), "it is in memory now");
    }
}
