//! Fetches whose objects have to be read from a bucket that takes its time, and a journal in a bucket that refuses.
use describe_configs_request::DescribeConfigsResource;
use fetch_request::{FetchPartition, FetchTopic};
use fetch_response::PartitionData;
use produce_request::{PartitionProduceData, TopicProduceData};
use std::time::Duration;

use super::*;
use crate::journal::{BucketJournal, MemoryJournal, PollPolicy};
use crate::peers::Tcp;
use crate::records::{BatchBuilder, NewRecord};
use crate::store::faulty::{Fault, Faulty};
use crate::store::{MemoryBucket, Operation};

const MAX_WAIT: Duration = Duration::from_millis(500);

/// A broker with nothing in its cache but partition 1 of `t`; partition 0 is what a predecessor wrote.
async fn half_cold() -> (Arc<Context>, Faulty) {
    let world = World::seeded(1);
    let journal = Arc::new(MemoryJournal::default());
    let bucket = Faulty::new(Arc::new(MemoryBucket::new()), world.clone());
    let start = || async {
        let metrics = Arc::new(Metrics::new(TimestampMs(0)));
        let bucket = Arc::new(bucket.clone());
        build::assemble(&config(""), &world, &metrics, journal.clone(), bucket, Arc::new(Tcp), &[entrance(1)])
            .await
            .unwrap()
            .context
    };
    let first = start().await;
    create(&first, "t", 2).await.unwrap();
    write(&first, 0).await;
    drop(first);
    let second = start().await;
    write(&second, 1).await;
    (second, bucket)
}

pub(super) async fn write(ctx: &Context, partition: i32) {
    let record = NewRecord { timestamp: ctx.world.wall_ms(), key: None, value: Some(b"v"), headers: &[] };
    let batch = BatchBuilder::new().with(&record).build().unwrap();
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let topic = TopicProduceData::default().with_name(name("t")).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(5000).with_topic_data(vec![topic]);
    let answer = ask(ctx, 9, request).await.responses.remove(0).partition_responses.remove(0);
    assert_eq!(answer.error_code, 0);
}

/// Both partitions from their beginning, and how long the answer took.
pub(super) async fn fetch(ctx: &Context) -> (PartitionData, PartitionData, Duration) {
    let started = ctx.world.now();
    let of = |partition| FetchPartition::default().with_partition(partition).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(name("t")).with_partitions(vec![of(0), of(1)]);
    let request = FetchRequest::default()
        .with_max_wait_ms(i32::try_from(MAX_WAIT.as_millis()).unwrap())
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic]);
    let mut found = ask(ctx, 12, request).await.responses.remove(0).partitions;
    let second = found.pop().unwrap();
    (found.pop().unwrap(), second, started.elapsed())
}

fn bytes(data: &PartitionData) -> usize {
    data.records.as_ref().map_or(0, Bytes::len)
}

#[tokio::test(start_paused = true)]
async fn a_fetch_does_not_wait_for_a_bucket_that_hangs() {
    let (ctx, bucket) = half_cold().await;
    bucket.set_all(Some(Fault::Hangs));
    for _ in 0..3 {
        let (cold, cached, took) = fetch(&ctx).await;
        assert_eq!((cold.error_code, bytes(&cold), cold.high_watermark), (0, 0, 1), "nothing to skip, nothing to fear");
        assert!(bytes(&cached) > 0, "what is in memory is answered");
        assert!(took <= MAX_WAIT * 11 / 10, "{took:?}");
    }
    assert_eq!(ctx.metrics.fetch.cold_reads.get(), 1, "one read, however many ask for it");
    bucket.set_all(None);
    // The read that hangs ends at the store's deadline; the next one works.
    ctx.world.sleep(Duration::from_secs(30)).await;
    let (cold, _, _) = fetch(&ctx).await;
    assert!(bytes(&cold) > 0);
}

#[tokio::test(start_paused = true)]
async fn a_read_goes_on_after_its_fetch_was_answered() {
    let (ctx, bucket) = half_cold().await;
    bucket.script(Operation::Read, [Fault::Slow(Duration::from_millis(1200))]);
    let (cold, _, took) = fetch(&ctx).await;
    assert_eq!((bytes(&cold), took), (0, MAX_WAIT));
    ctx.world.sleep(Duration::from_secs(1)).await;
    let (cold, _, took) = fetch(&ctx).await;
    assert!(bytes(&cold) > 0 && took < Duration::from_millis(10), "{took:?}");
    assert_eq!(ctx.metrics.fetch.cold_reads.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn clients_are_not_told_what_a_store_says() {
    let world = World::seeded(1);
    let bucket = Faulty::new(Arc::new(MemoryBucket::new()), world.clone());
    let fastest = Duration::from_millis(10);
    let polls = PollPolicy { fastest, slowest: 10 * fastest, told: fastest };
    let journal = Arc::new(BucketJournal::new(Arc::new(bucket.clone()), world.clone(), polls));
    let (metrics, store) = (Arc::new(Metrics::new(TimestampMs(0))), Arc::new(bucket.clone()));
    let (config, entrances) = (config(""), [entrance(1)]);
    let ctx = build::assemble(&config, &world, &metrics, journal, store, Arc::new(Tcp), &entrances);
    let ctx = ctx.await.unwrap().context;
    bucket.set_all(Some(Fault::Refused));
    let made = ask(&ctx, 7, creation("t", 1, &[])).await.topics.remove(0);
    let resource = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text("t"));
    let described = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let described = ask(&ctx, 4, described).await.results.remove(0);
    for (code, message) in [(made.error_code, made.error_message), (described.error_code, described.error_message)] {
        assert!(code != 0);
        let message = message.unwrap();
        assert!(message.starts_with("The journal ") && !message.contains("bucket"), "{message}");
    }
}
