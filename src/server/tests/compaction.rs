//! Produce, compaction and fetch of every offset: readers find the same bytes before and after.
use std::time::Duration;

use super::transactions::{end, init, offset_at, send};
use super::*;
use crate::records::{BatchBuilder, Batches, NewRecord};
use crate::state::Run;
use crate::types::Offset;

/// Flushes rest for a minute; then twenty become one, the rest another when they are old, and these one of the second level.
const SETTINGS: &str =
    "compaction:\n  objects_per_job: 20\n  objects_per_merge: 2\n  rest_ms: 60000\n  age_ms_max: 90000\n";

async fn write(ctx: &Context, partition: i32, value: &[u8], records: usize) {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let record = NewRecord { timestamp: ctx.world.wall_ms(), key: None, value: Some(value), headers: &[] };
    let batch = (0..records).fold(BatchBuilder::new(), |batch, _| batch.with(&record)).build().unwrap();
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let topic = TopicProduceData::default().with_name(name("t")).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(5000).with_topic_data(vec![topic]);
    assert_eq!(ask(ctx, 9, request).await.responses.remove(0).partition_responses.remove(0).error_code, 0);
}

/// The first fetch from an offset: aborted transactions and records.
async fn read(ctx: &Context, partition: i32, offset: i64, bytes: i32) -> (Vec<(i64, i64)>, Bytes) {
    use fetch_request::{FetchPartition, FetchTopic};
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(bytes)
        .with_current_leader_epoch(-1);
    let topic = FetchTopic::default().with_topic(name("t")).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_bytes(16 << 20)
        .with_max_wait_ms(5000)
        .with_min_bytes(1)
        .with_isolation_level(1)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    let found = ask(ctx, 12, request).await.responses.remove(0).partitions.remove(0);
    assert_eq!(found.error_code, 0, "at {offset}");
    let aborted = found.aborted_transactions.unwrap_or_default();
    let aborted = aborted.iter().map(|a| (a.producer_id.0, a.first_offset)).collect();
    (aborted, found.records.unwrap_or_default())
}

/// All batches from the beginning on, as clients get them, and whether each is of an aborted transaction.
pub(super) async fn read_all(ctx: &Context, partition: i32, end: i64, bytes: i32) -> Vec<(Bytes, bool)> {
    let (mut offset, mut batches) = (0, Vec::new());
    while offset < end {
        let (mut listed, records) = read(ctx, partition, offset, bytes).await;
        let (before, mut aborted) = (offset, BTreeSet::new());
        for batch in Batches::new(records).map(Result::unwrap) {
            let (header, last) = (batch.header, batch.header.last_offset().0);
            aborted.extend(listed.iter().filter(|(_, first)| *first <= last).map(|(producer, _)| *producer));
            listed.retain(|(_, first)| *first > last);
            let is_aborted = header.is_transactional() && aborted.contains(&header.producer_id.0);
            if header.is_control() {
                aborted.remove(&header.producer_id.0);
            }
            if last >= offset {
                offset = last + 1;
                batches.push((batch.bytes, is_aborted));
            }
        }
        assert!(offset > before, "nothing at {offset} of {end}");
    }
    batches
}

/// The first offset at or after a time.
pub(super) async fn offset_at_time(ctx: &Context, timestamp: i64) -> i64 {
    offset_at(ctx, timestamp, 0).await
}

pub(super) fn runs(ctx: &Context, partition: usize) -> Vec<(u8, Run)> {
    let state = ctx.replica.state();
    let slot = state.topic_by_name("t").unwrap().slots[partition];
    let level = |run: &Run| state.object(run.object).map_or(99, |meta| meta.level);
    state.partition(slot).unwrap().tail.iter().map(|run| (level(&run), run)).collect()
}

/// The first record, the end and the record with the largest time.
async fn times(ctx: &Context) -> Vec<i64> {
    let mut times = Vec::new();
    for at in [0, -1, -3] {
        times.push(offset_at(ctx, at, 0).await);
    }
    times
}

/// A log of plain batches and of transactions, some of them aborted, in many flushes.
async fn filled(settings: &str) -> Arc<Context> {
    let ctx = broker(settings).await;
    create(&ctx, "t", 2).await.unwrap();
    let mut me = init(&ctx, 5, "x").await.unwrap();
    for round in 0..8 {
        write(&ctx, 0, format!("plain {round}").as_bytes(), round % 3 + 1).await;
        write(&ctx, 1, &vec![b'v'; 40_000 * round], 1).await;
        for _ in 0..2 {
            send(&ctx, 12, Some("x"), &mut me).await.unwrap();
        }
        assert_eq!(end(&ctx, 5, "x", &mut me, round % 2 == 0).await, 0);
    }
    ctx
}

#[tokio::test(start_paused = true)]
async fn every_offset_reads_the_same_before_and_after() {
    let ctx = &*filled(SETTINGS).await;
    let ends: Vec<i64> = [0, 1].map(|p| runs(ctx, p).last().unwrap().1.end_offset.0).to_vec();
    assert!(runs(ctx, 0).iter().all(|(level, _)| matches!(level, 0 | 99)), "nothing is compacted yet");
    let mut before = Vec::new();
    for (partition, end) in [(0, ends[0]), (1, ends[1])] {
        let mut first = Vec::new();
        for offset in 0..end {
            first.push(read(ctx, partition, offset, 1).await);
        }
        before.push((read_all(ctx, partition, end, 1 << 20).await, first));
    }
    let times = times(ctx).await;
    let producers = ctx.replica.state().producer_count();

    ctx.world.sleep(Duration::from_secs(200)).await;
    assert_eq!(ctx.metrics.compaction.backlog_objects.get(), 0);
    let after = runs(ctx, 0);
    assert!(after.iter().all(|(level, _)| (1..=2).contains(level)), "{after:?}");
    assert!(after.iter().any(|(level, _)| *level == 2), "{after:?}");
    assert!(after.len() < 8, "{after:?}");
    for (partition, end) in [(0, ends[0]), (1, ends[1])] {
        let (all, first) = &before[partition as usize];
        for bytes in [1, 1000, 100_000, 1 << 20] {
            assert!(read_all(ctx, partition, end, bytes).await == *all, "partition {partition} by {bytes}");
        }
        for offset in 0..end {
            let again = read(ctx, partition, offset, 1).await;
            assert!(again == first[offset as usize], "partition {partition} at {offset}");
        }
    }
    assert_eq!((self::times(ctx).await, ctx.replica.state().producer_count()), (times, producers));
    // The log goes on.
    write(ctx, 0, b"later", 1).await;
    assert_eq!(read_all(ctx, 0, ends[0] + 1, 1 << 20).await.len(), before[0].0.len() + 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_meanwhile_does_not_come_back() {
    let ctx = &*filled(SETTINGS).await;
    let end = runs(ctx, 0).last().unwrap().1.end_offset.0;
    let all = read_all(ctx, 0, end, 1 << 20).await;
    use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    for start in [5, end / 2] {
        let upto = DeleteRecordsPartition::default().with_partition_index(0).with_offset(start);
        let topic = DeleteRecordsTopic::default().with_name(name("t")).with_partitions(vec![upto]);
        let found = ask(ctx, 2, DeleteRecordsRequest::default().with_topics(vec![topic])).await;
        assert_eq!(found.topics[0].partitions[0].low_watermark, start);
        ctx.world.sleep(Duration::from_secs(200)).await;
        let (_, records) = read(ctx, 0, start, 1 << 20).await;
        let first = Batches::new(records).next().unwrap().unwrap();
        assert!(first.header.base_offset.0 <= start && first.header.last_offset().0 >= start);
        assert!(all.iter().any(|(batch, _)| *batch == first.bytes));
        let state = ctx.replica.state();
        let partition = state.partition(state.topic_by_name("t").unwrap().slots[0]).unwrap().clone();
        assert_eq!(partition.log_start, Offset(start));
        assert!(partition.tail.iter().all(|run| run.end_offset > Offset(start)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_told_not_to_does_nothing() {
    let ctx = &*filled("compaction:\n  enabled: false\n  age_ms_max: 1000\n  rest_ms: 0\n").await;
    ctx.world.sleep(Duration::from_secs(200)).await;
    assert!(runs(ctx, 0).iter().all(|(level, _)| matches!(level, 0 | 99)));
}
