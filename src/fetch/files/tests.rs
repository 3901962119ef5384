use proptest::prelude::*;
use std::os::unix::fs::FileExt;

use super::super::assemble;
use super::*;
use crate::cache::{CacheLimits, CachedObject, ObjectCache};
use crate::records::{BatchBuilder, NewRecord};
use crate::segment::{ObjectHeader, ObjectName, ObjectWriter};
use crate::store::{Bucket, LocalBucket, Purpose};
use crate::telemetry::Metrics;
use crate::types::{Head, Incarnation, LeaderEpoch, ObjectId, PartitionIndex, TimestampMs, TopicId};
use crate::world::World;

/// A run of batches with these sizes (of the record's value), as an object in a directory.
struct Stored {
    cache: Arc<ObjectCache>,
    name: ObjectName,
    run: Run,
    object: Arc<CachedObject>,
    _dir: tempfile::TempDir,
}

async fn stored(values: &[usize]) -> Stored {
    let batch = |(i, bytes): (usize, &usize)| {
        let value = vec![i as u8; *bytes];
        let record = NewRecord { value: Some(&value), ..NewRecord::default() };
        (0..=i % 3).fold(BatchBuilder::new(), |b, _| b.with(&record)).build().unwrap()
    };
    let batches: Vec<Bytes> = values.iter().enumerate().map(batch).collect();
    let records: usize = (0..values.len()).map(|i| i % 3 + 1).sum();
    let run_bytes: usize = batches.iter().map(Bytes::len).sum();
    let name = ObjectName { applied: Head::default(), ulid: 7 };
    let header = ObjectHeader { name, incarnation: Incarnation(1), written_ms: TimestampMs(0) };
    let mut writer = ObjectWriter::new(&header);
    let position = writer.position();
    batches.into_iter().for_each(|batch| writer.push(batch));
    writer.end_run(TopicId::default(), PartitionIndex(0), position, values.len() as u32);
    let (body, bytes) = writer.finish();
    let run = Run {
        base_offset: Offset(1000),
        end_offset: Offset(1000 + records as i64),
        object: ObjectId(1),
        position,
        bytes: run_bytes as u32,
        max_timestamp: TimestampMs(0),
        marker: None,
    };
    let dir = tempfile::tempdir().unwrap();
    let world = World::real().unwrap();
    let bucket = LocalBucket::open(dir.path(), world.clone()).unwrap();
    bucket.create(&name.key(), body, Purpose::Ingest).await.unwrap();
    let limits = CacheLimits { bytes: 64 << 20, loads: 2 };
    let metrics = Arc::new(Metrics::new(TimestampMs(0)));
    let cache = Arc::new(ObjectCache::new(Arc::new(bucket), None, world, metrics, Arc::default(), limits));
    let object = cache.get(name, bytes).await.unwrap();
    Stored { cache, name, run, object, _dir: dir }
}

/// What a client gets to see.
fn joined(records: &Records) -> Vec<u8> {
    let mut whole = Vec::new();
    for piece in &records.chunks {
        match piece {
            Piece::Memory(bytes) => whole.extend_from_slice(bytes),
            Piece::File(range) => {
                let mut bytes = vec![0; range.bytes];
                let file = std::fs::File::from(range.file.as_fd().try_clone_to_owned().unwrap());
                file.read_exact_at(&mut bytes, range.at).unwrap();
                whole.extend(bytes);
            }
        }
    }
    whole
}

fn target(offset: Offset, bytes_max: usize) -> Target {
    Target { offset, until: Offset(i64::MAX), bytes_max, epoch: LeaderEpoch(7) }
}

impl Stored {
    async fn by_file(&self, target: Target) -> (Result<bool, Broken>, Records) {
        let (name, run, buffers) = (self.name, self.run, self.cache.buffers().clone());
        let read = self.cache.read_files(move |files| {
            let mut out = Records::default();
            let mut copies = Copies::new(buffers, (run.bytes as usize).min(target.bytes_max));
            let more = copies.append_file(&mut out, &files.open(name).unwrap(), &run, target);
            copies.finish(&mut out);
            (more, out)
        });
        read.await.unwrap()
    }

    fn by_memory(&self, target: Target) -> (Result<bool, Broken>, Records) {
        let mut out = Records::default();
        let more = assemble::append(&mut out, &self.object, &self.run, target);
        (more, out)
    }

    fn by_copies(&self, target: Target) -> (Result<bool, Broken>, Records) {
        let mut out = Records::default();
        let expected = (self.run.bytes as usize).min(target.bytes_max);
        let mut copies = Copies::new(self.cache.buffers().clone(), expected);
        let more = copies.append_object(&mut out, &self.object, &self.run, target);
        copies.finish(&mut out);
        (more, out)
    }

    async fn compare(&self, target: Target) {
        let memory = self.by_memory(target);
        for found in [self.by_file(target).await, self.by_copies(target)] {
            assert_eq!((found.0, found.1.bytes, found.1.records), (memory.0, memory.1.bytes, memory.1.records));
            assert!(joined(&found.1) == joined(&memory.1), "the bytes differ");
            let copied: usize = found.1.chunks.iter().filter_map(Piece::in_memory).map(Bytes::len).sum();
            assert!(found.1.own_bytes >= copied, "{} bytes pinned for {copied}", found.1.own_bytes);
        }
    }
}

#[tokio::test]
async fn large_batches_stay_in_their_file_and_small_ones_share_a_buffer() {
    let stored = stored(&[100_000, 100, 100, 100, 100_000, 40_000, 100]).await;
    let (more, records) = stored.by_file(target(Offset(0), 1 << 20)).await;
    assert_eq!(more, Ok(true));
    let sizes: Vec<(bool, usize)> = records.chunks.iter().map(|p| (p.in_memory().is_some(), p.len())).collect();
    assert_eq!(sizes.iter().filter(|(memory, _)| !memory).count(), 3, "{sizes:?}");
    assert!(records.own_bytes < 512 << 10, "{}", records.own_bytes);
}

#[tokio::test]
async fn a_reader_that_comes_back_begins_where_it_ended() {
    let stored = stored(&[1000; 2000]).await;
    let mut offset = Offset(1500);
    for _ in 0..10 {
        let target = target(offset, 150_000);
        stored.compare(target).await;
        offset = offset.plus(stored.by_memory(target).1.records);
    }
    let name = stored.name;
    let marked = stored.cache.read_files(move |files| files.open(name).unwrap().nearest(64, offset)).await.unwrap();
    assert!(marked.is_some_and(|(at, next)| at > 64 && next <= offset && next.0 > 1500), "{marked:?}");
}

#[tokio::test]
async fn a_file_that_is_not_what_state_says_is_noticed() {
    let mut stored = stored(&[1000, 1000, 100_000]).await;
    let all = target(Offset(0), 1 << 20);
    stored.run.position = 0;
    assert_eq!(stored.by_file(all).await.0, Err(Broken::Contradiction));
    (stored.run.position, stored.run.bytes) = (64, 1500);
    assert_eq!(stored.by_file(all).await.0, Err(Broken::Contradiction));
    stored.run.bytes = 10_000_000;
    assert_eq!(stored.by_file(all).await.0, Err(Broken::Contradiction));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn files_give_what_memory_gives(
        values in prop::collection::vec(prop_oneof![0..3000_usize, 0..3000_usize, Just(33_000), 60_000..300_000_usize], 1..60),
        reads in prop::collection::vec((0..200_i64, prop_oneof![0..5000_usize, 0..2_000_000_usize]), 1..10),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stored = stored(&values).await;
            for (offset, bytes_max) in reads {
                stored.compare(target(Offset(990 + offset), bytes_max)).await;
            }
        });
    }
}
