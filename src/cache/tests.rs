use super::*;
use crate::records::{BatchBuilder, NewRecord};
use crate::segment::{ObjectHeader, ObjectWriter};
use crate::store::{CreateOutcome, Key, Listed, MemoryBucket};
use crate::types::{Head, Incarnation, PartitionIndex, TimestampMs, TopicId};
use async_trait::async_trait;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

fn name(ulid: u128) -> ObjectName {
    ObjectName::data(Head::default(), ulid)
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

/// An object of compaction with one-batch runs, and where these lie.
async fn compacted(bucket: &dyn Bucket, ulid: u128, runs: usize) -> Vec<Unit> {
    let name = ObjectName::compacted(Head::default(), ulid);
    let (incarnation, written_ms) = (Incarnation(1), TimestampMs(0));
    let mut writer = ObjectWriter::new(&ObjectHeader { name, incarnation, written_ms });
    let mut units = Vec::new();
    for n in 0..runs {
        let position = writer.position();
        let value = [n as u8; 900];
        let record = NewRecord { value: Some(&value), ..NewRecord::default() };
        let offset = Offset(n as i64);
        writer.push(BatchBuilder::new().base_offset(offset).with(&record).build().unwrap());
        writer.end_run(TopicId::default(), PartitionIndex(0), position, 1);
        let offsets = Some((offset, offset.plus(1)));
        units.push(Unit { name, position, bytes: writer.position() - position, offsets });
    }
    bucket.create(&name.key(), writer.finish().0, Purpose::Compaction).await.unwrap();
    units
}

#[tokio::test(start_paused = true)]
async fn of_a_compacted_object_runs_are_loaded_each_once() {
    let bucket = Arc::new(MemoryBucket::new());
    let units = compacted(&*bucket, 5, 3).await;
    let cache = over(bucket, 20_000);
    for _ in 0..2 {
        for unit in units.iter().rev() {
            let run = cache.get_unit(*unit).await.unwrap();
            assert_eq!(run.len(), unit.bytes);
            let mut slices: Vec<Bytes> = Vec::new();
            assert!(run.slice_into(unit.position + 100..unit.position + 200, &mut slices));
            assert!(
                !run.slice_into(unit.position - 1..unit.position + 1, &mut slices),
                "what lies before is not there"
            );
            assert!(!run.copy_to(unit.position + unit.bytes, &mut [0]));
        }
    }
    assert_eq!(cache.metrics.fetch.cold_reads.get(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_run_is_held_against_the_checksums_of_its_batches() {
    let bucket = Arc::new(Corrupting(MemoryBucket::new(), AtomicU32::new(0)));
    let unit = compacted(&*bucket, 5, 1).await[0];
    let cache = over(bucket.clone(), 20_000);
    bucket.1.store(2, Ordering::Relaxed);
    let error = cache.get_unit(unit).await.unwrap_err();
    assert!(matches!(&*error, StoreError::Damaged { .. }), "{error:?}");
    bucket.1.store(1, Ordering::Relaxed);
    assert!(cache.get_unit(unit).await.is_ok(), "the second copy is whole");
}

#[tokio::test(start_paused = true)]
async fn a_run_with_other_offsets_than_the_log_has_is_not_kept() {
    let bucket = MemoryBucket::new();
    let unit = compacted(&bucket, 5, 3).await[1];
    let (key, whole) = bucket.contents().into_iter().next().unwrap();
    let mut damaged = whole.to_vec();
    damaged[unit.position as usize + 6] ^= 1;
    bucket.overwrite(&key, damaged.into());
    let cache = over(Arc::new(bucket.clone()), 20_000);
    let error = cache.get_unit(unit).await.unwrap_err();
    assert!(matches!(&*error, StoreError::Damaged { .. }), "{error:?}");
    bucket.overwrite(&key, whole);
    assert!(cache.get_unit(unit).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn reading_ahead_waits_for_nothing_and_takes_no_turn_from_others() {
    let bucket = Arc::new(MemoryBucket::new());
    let units = compacted(&*bucket, 5, 10).await;
    let cache = over(bucket, 40_000);
    units.iter().for_each(|unit| cache.read_ahead(*unit));
    units.iter().for_each(|unit| cache.read_ahead(*unit));
    assert_eq!(cache.metrics.cache.read_ahead.get(), 2, "half as many as other loads");
    tokio::task::yield_now().await;
    assert!(cache.get_unit(units[9]).await.is_ok());
    assert!(cache.get_unit(units[0]).await.is_ok() && cache.get_unit(units[1]).await.is_ok());
    assert_eq!(cache.metrics.fetch.cold_reads.get(), 3, "they were loaded before");
}
