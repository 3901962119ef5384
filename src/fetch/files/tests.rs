use proptest::prelude::*;
use std::os::unix::fs::FileExt;

use super::super::assemble;
use super::*;
use crate::cache::{CacheLimits, CachedObject, ObjectCache, Unit};
use crate::records::{BatchBuilder, Batches, NewRecord};
use crate::segment::{ObjectHeader, ObjectName, ObjectWriter};
use crate::state::RecordEpochs;
use crate::store::{Bucket, LocalBucket, Purpose};
use crate::telemetry::Metrics;
use crate::types::{Head, Incarnation, LeaderEpoch, ObjectId, PartitionIndex, Slot, TimestampMs, TopicId};
use crate::world::World;

/// A run of batches with these sizes (of the record's value), as an object in a directory.
struct Stored {
    cache: Arc<ObjectCache>,
    name: ObjectName,
    run: Run,
    object: Arc<CachedObject>,
    is_final: bool,
    _dir: tempfile::TempDir,
}

async fn stored(values: &[usize]) -> Stored {
    stored_as(values, false).await
}

/// The same as what compaction writes, if `is_final`.
async fn stored_as(values: &[usize], is_final: bool) -> Stored {
    let mut next = Offset(1000);
    let batch = |(i, bytes): (usize, &usize)| {
        let value = vec![i as u8; *bytes];
        let record = NewRecord { value: Some(&value), ..NewRecord::default() };
        let mut batch = (0..=i % 3).fold(BatchBuilder::new(), |b, _| b.with(&record));
        if is_final {
            batch = batch.base_offset(next).leader_epoch(LeaderEpoch(7));
        }
        next = next.plus(i as u64 % 3 + 1);
        batch.build().unwrap()
    };
    let batches: Vec<Bytes> = values.iter().enumerate().map(batch).collect();
    let records: usize = (0..values.len()).map(|i| i % 3 + 1).sum();
    let run_bytes: usize = batches.iter().map(Bytes::len).sum();
    let make = if is_final { ObjectName::compacted } else { ObjectName::data };
    let name = make(Head::default(), 7);
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
    let offsets = is_final.then_some((run.base_offset, run.end_offset));
    let unit = if is_final { Unit { name, position, bytes: run.bytes, offsets } } else { Unit::whole(name, bytes) };
    let object = cache.get_unit(unit).await.unwrap();
    Stored { cache, name, run, object, is_final, _dir: dir }
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

fn target(offset: Offset, bytes_max: usize) -> Target<'static> {
    let (until, epoch) = (Offset(i64::MAX), LeaderEpoch(7));
    Target { offset, until, bytes_max, epoch, is_final: false, forked: None }
}

impl Stored {
    async fn by_file(&self, target: Target<'static>) -> (Result<bool, Broken>, Records) {
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

    async fn compare(&self, target: Target<'static>) {
        let target = Target { is_final: self.is_final, ..target };
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

#[tokio::test]
async fn what_compaction_wrote_is_sent_whole_and_without_a_look() {
    let stored = stored_as(&[1000; 500], true).await;
    let all = Target { is_final: true, ..target(Offset(1000), 1 << 20) };
    for (more, records) in [stored.by_file(all).await, stored.by_memory(all)] {
        assert_eq!((more, records.chunks.len(), records.own_bytes), (Ok(true), 1, 0));
        assert_eq!((records.records, records.end), (999, stored.run.end_offset));
    }
    // What does not fit is copied batch by batch, and the next read sends the rest.
    let part = Target { bytes_max: 100_000, ..all };
    let (more, records) = stored.by_file(part).await;
    assert!(more == Ok(false) && records.bytes <= 100_000 && records.own_bytes > 0);
    let (more, rest) = stored.by_file(Target { offset: records.end, ..all }).await;
    assert_eq!((more, rest.chunks.len(), rest.own_bytes), (Ok(true), 1, 0));
    assert!([joined(&records), joined(&rest)].concat() == joined(&stored.by_memory(all).1));
    let until = Target { until: Offset(1500), ..all };
    let (more, records) = stored.by_file(until).await;
    assert!(more == Ok(false) && records.end >= Offset(1500) && records.bytes < stored.run.bytes as usize);
}

#[tokio::test]
async fn after_a_fork_each_batch_has_the_epoch_that_state_gives_it() {
    let stored = stored_as(&[1000; 100], true).await;
    let epochs = Box::leak(Box::new(RecordEpochs::default()));
    let all = Target { is_final: true, forked: Some((epochs, Slot(1))), ..target(Offset(1000), 1 << 20) };
    let seen = |records: &Records| {
        let batches = Batches::new(joined(records).into()).map(Result::unwrap);
        batches.map(|batch| batch.header.leader_epoch.0).collect::<std::collections::BTreeSet<_>>()
    };
    for (_, records) in [stored.by_file(all).await, stored.by_memory(all), stored.by_copies(all)] {
        assert_eq!(seen(&records), [0].into(), "not the 7 that is stored");
    }
    let plain = Target { forked: None, ..all };
    assert_eq!(seen(&stored.by_memory(plain).1), [7].into());
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
            for is_final in [false, true] {
                let stored = stored_as(&values, is_final).await;
                for (offset, bytes_max) in &reads {
                    stored.compare(target(Offset(990 + offset), *bytes_max)).await;
                }
            }
        });
    }
}
