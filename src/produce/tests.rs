//! The batcher over a bucket whose PUTs end in the order that a test wants, in a seeded world on a paused clock.
mod appends;
mod gate;
mod hedges;
mod model;
mod order;

use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

use super::*;
use crate::cache::{CacheLimits, ObjectCache};
use crate::metadata::Started;
use crate::metadata::tests::Site;
use crate::metadata::tests::troubled::Troubled;
use crate::records::{BatchBuilder, NewRecord};
use crate::segment::read_footer;
use crate::state::State;
use crate::telemetry::Metrics;
use crate::types::{ProducerEpoch, ProducerId, Sequence, TimestampMs};
use crate::world::{JoinHandle, World};
use gate::{Fate, Gate};

/// Every request leaves as a flush of its own.
const AT_ONCE: FlushRule =
    FlushRule { interval: Duration::ZERO, object_bytes: 1 << 20, puts_max: 8, puts_unfull_max: 8 };
/// Flushes leave 250 ms apart.
const SPACED: FlushRule = FlushRule { interval: Duration::from_millis(250), ..AT_ONCE };
const DEADLINE: Duration = Duration::from_secs(25);

/// A broker without its network: batcher, replica, journal, bucket. It has one topic of two partitions.
struct Rig {
    world: World,
    site: Site,
    broker: Started,
    journal: Troubled,
    bucket: Gate,
    cache: Arc<ObjectCache>,
    metrics: Arc<Metrics>,
    producer: Producer,
    batcher: JoinHandle<()>,
}

type Results = oneshot::Receiver<Vec<BatchResult>>;

impl Rig {
    async fn new(seed: u64, flush: FlushRule) -> Self {
        Self::with(seed, flush, PutPolicy { deadline: DEADLINE, hedge: false }).await
    }

    async fn with(seed: u64, flush: FlushRule, put: PutPolicy) -> Self {
        Self::over(Site::new(seed), flush, put).await
    }

    async fn over(site: Site, flush: FlushRule, put: PutPolicy) -> Self {
        let (broker, journal) = site.start_troubled(1).await;
        broker.replica.propose(crate::metadata::tests::topic("t", 1)).await.unwrap();
        let world = site.world.clone();
        let bucket = Gate::new(Arc::new(site.bucket.clone()), world.clone());
        let metrics = Arc::new(Metrics::new(TimestampMs(0)));
        let limits = CacheLimits { bytes: 64 << 20, loads: 4 };
        let cache = Arc::new(ObjectCache::new(
            Arc::new(bucket.clone()),
            None,
            world.clone(),
            metrics.clone(),
            Arc::default(),
            limits,
        ));
        let (producer, batcher) = start(Batcher {
            replica: broker.replica.clone(),
            bucket: Arc::new(bucket.clone()),
            cache: cache.clone(),
            world: world.clone(),
            metrics: metrics.clone(),
            flush,
            put,
        });
        Self { world, site, broker, journal, bucket, cache, metrics, producer, batcher }
    }

    fn state(&self) -> Arc<State> {
        self.broker.replica.state()
    }

    /// A batch of one record, or of a producer's (id, first sequence).
    fn batch(&self, partition: i32, value: &str, producer: Option<(i64, i32)>) -> PartBatch {
        let state = self.state();
        let topic = state.topic_by_name("t").unwrap();
        let mut builder = BatchBuilder::new();
        if let Some((id, first)) = producer {
            builder = builder.producer(ProducerId(id), ProducerEpoch(0), Sequence(first));
        }
        let record = NewRecord { timestamp: TimestampMs(7), value: Some(value.as_bytes()), ..Default::default() };
        let bytes = builder.with(&record).build().unwrap();
        PartBatch {
            slot: topic.slots[partition as usize],
            topic: topic.id,
            partition: PartitionIndex(partition),
            header: BatchHeader::parse(&bytes).unwrap(),
            bytes: BatchBytes::whole(bytes),
            awaits: None,
            joins: false,
        }
    }

    /// Lets State forget a producer of partition 0, as if it were long unused.
    async fn forget(&self, id: i64) {
        let slot = self.state().topic_by_name("t").unwrap().slots[0];
        let last_used = self.state().producer(slot, ProducerId(id)).unwrap().last_used.0;
        let producers = vec![crate::state::ExpiredProducer { slot: slot.0, id, last_used }];
        self.broker.replica.propose(crate::state::ExpireProducers { producers }).await.unwrap();
    }

    /// Another broker of the same cluster.
    async fn beside(&self) -> (Started, Producer) {
        let broker = self.site.start(2).await;
        let (producer, _) = start(Batcher {
            replica: broker.replica.clone(),
            bucket: Arc::new(self.bucket.clone()),
            cache: self.cache.clone(),
            world: self.world.clone(),
            metrics: self.metrics.clone(),
            flush: AT_ONCE,
            put: PutPolicy { deadline: DEADLINE, hedge: false },
        });
        (broker, producer)
    }

    /// Hands a request over and gives the batcher the time to take it.
    async fn send(&self, connection: u64, batches: Vec<PartBatch>) -> Results {
        self.send_by(&self.producer, connection, batches).await
    }

    async fn send_by(&self, producer: &Producer, connection: u64, batches: Vec<PartBatch>) -> Results {
        let frame_bytes = batches.iter().map(|b| b.bytes.len()).sum::<usize>() + 100;
        let submission = Submission { connection: ConnectionId(connection), batches, permit: None, frame_bytes };
        let results = producer.submit(submission).await.unwrap();
        self.world.sleep(Duration::from_millis(1)).await;
        results
    }

    /// As [`Rig::send`], of one plain record to partition 0.
    async fn say(&self, connection: u64, value: &str) -> Results {
        self.send(connection, vec![self.batch(0, value, None)]).await
    }

    /// The values of a partition, in the order of their offsets, read from the bucket as State says.
    async fn log(&self, partition: i32) -> Vec<String> {
        log(&self.state(), &self.site, partition)
    }
}

fn log(state: &State, site: &Site, partition: i32) -> Vec<String> {
    let slot = state.topic_by_name("t").unwrap().slots[partition as usize];
    let objects = site.bucket.contents();
    let mut values = Vec::new();
    for run in state.partition(slot).unwrap().tail.iter() {
        let object = &objects[&state.object(run.object).unwrap().name.key()];
        let mut bytes = object.slice(run.position as usize..(run.position + run.bytes) as usize);
        while !bytes.is_empty() {
            let header = BatchHeader::parse(&bytes).unwrap();
            let batch = bytes.split_to(header.total_bytes());
            crate::records::walk(&batch, 1 << 20, |record| {
                values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
            })
            .unwrap();
        }
        assert_eq!(values.len() as i64, run.end_offset.0, "State counts the records that are there");
    }
    values
}

/// The offset, if the one batch of the request was placed.
fn offset(results: &[BatchResult]) -> Result<i64, KafkaError> {
    assert_eq!(results.len(), 1);
    results[0].as_ref().map(|placed| placed.base_offset.0).map_err(|e| e.error)
}

async fn placed(results: Results) -> Result<i64, KafkaError> {
    offset(&results.await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn objects_say_what_is_in_them() {
    let rig = Rig::new(1, SPACED).await;
    placed(rig.say(1, "a").await).await.unwrap();
    let many = rig.send(1, vec![rig.batch(1, "b", None), rig.batch(0, "c", None)]).await;
    let more = rig.say(2, "d").await;
    many.await.unwrap();
    placed(more).await.unwrap();
    let state = rig.state();
    assert_eq!((state.object_count(), state.run_count()), (2, 3));
    for (_, meta) in state.objects() {
        let object = rig.site.bucket.contents()[&meta.name.key()].clone();
        let (header, runs) = read_footer(&object).unwrap();
        assert_eq!((header.name, object.len()), (meta.name, meta.bytes as usize));
        assert_eq!(runs.len() as u32, meta.live_runs);
        assert!(header.name.applied.position < rig.broker.replica.applied().position);
    }
    assert_eq!((rig.log(0).await, rig.log(1).await), (vec!["a".into(), "c".into(), "d".into()], vec!["b".into()]));
}

#[tokio::test(start_paused = true)]
async fn a_written_object_is_read_from_memory() {
    let rig = Rig::new(2, AT_ONCE).await;
    placed(rig.say(1, "a").await).await.unwrap();
    let state = rig.state();
    let (_, meta) = state.objects().next().unwrap();
    rig.cache.get(meta.name, meta.bytes).await.unwrap();
    assert_eq!(rig.metrics.cache.hits.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_of_nothing_is_answered_and_leaves_no_trace() {
    let rig = Rig::new(3, AT_ONCE).await;
    assert_eq!(rig.send(1, vec![]).await.await.unwrap(), []);
    // Long after it, the next one has its whole time.
    rig.world.sleep(DEADLINE * 2).await;
    rig.bucket.next([Fate::After(Duration::from_secs(5))]);
    assert_eq!(placed(rig.say(1, "a").await).await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn duplicates_are_answered_with_their_offset() {
    let rig = Rig::new(4, AT_ONCE).await;
    let again = |n| rig.batch(0, "x", Some((9, n)));
    for n in 0..6 {
        assert_eq!(placed(rig.send(1, vec![again(n)]).await).await, Ok(i64::from(n)));
    }
    for n in 1..6 {
        assert_eq!(placed(rig.send(2, vec![again(n)]).await).await, Ok(i64::from(n)), "over another connection");
    }
    assert_eq!(placed(rig.send(1, vec![again(0)]).await).await, Err(KafkaError::DuplicateSequenceNumber));
    assert_eq!(rig.log(0).await.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_goes_meanwhile_takes_nothing_with_it() {
    let rig = Rig::new(5, AT_ONCE).await;
    rig.broker.replica.propose(crate::metadata::tests::topic("u", 2)).await.unwrap();
    let mut of_u = rig.batch(0, "x", None);
    let state = rig.state();
    let u = state.topic_by_name("u").unwrap();
    (of_u.slot, of_u.topic) = (u.slots[0], u.id);
    rig.bucket.next([Fate::After(Duration::from_secs(1))]);
    let results = rig.send(1, vec![of_u, rig.batch(0, "y", None)]).await;
    let topic_id = Bytes::copy_from_slice(u.id.0.as_bytes());
    rig.broker.replica.propose(crate::state::DeleteTopic { topic_id }).await.unwrap();
    let results = results.await.unwrap();
    assert_eq!(offset(&results[..1]), Err(KafkaError::UnknownTopicOrPartition));
    assert_eq!(offset(&results[1..]), Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_stop_answers_everything() {
    let rig = Rig::new(6, SPACED).await;
    rig.bucket.next([Fate::After(Duration::from_secs(9)), Fate::After(Duration::from_secs(3)), Fate::Fails(99)]);
    let mut results = Vec::new();
    for n in 0..30 {
        results.push(rig.say(n % 3, &n.to_string()).await);
        rig.world.sleep(Duration::from_millis(20)).await;
    }
    let Rig { producer, batcher, broker, site, .. } = rig;
    drop(producer);
    batcher.await.unwrap();
    let mut acked = Vec::new();
    for (n, mut results) in results.into_iter().enumerate() {
        match offset(&results.try_recv().expect("it is answered")) {
            Ok(offset) => acked.push((offset, n.to_string())),
            Err(error) => assert_eq!(error, KafkaError::RequestTimedOut),
        }
    }
    acked.sort_unstable();
    let log = log(&broker.replica.state(), &site, 0);
    assert_eq!(acked.into_iter().map(|(_, value)| value).collect::<Vec<_>>(), log);
    assert!(!log.is_empty() && log.len() < 30);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_limit_of_puts_requests_wait_and_objects_stay_of_a_size() {
    let flush = FlushRule { puts_max: 2, puts_unfull_max: 2, object_bytes: 10_000, ..AT_ONCE };
    let rig = Rig::new(7, flush).await;
    rig.bucket.next([Fate::After(Duration::from_secs(8)); 2]);
    let value = "v".repeat(900);
    let mut results = Vec::new();
    for _ in 0..102 {
        results.push(rig.say(1, &value).await);
    }
    assert_eq!(rig.bucket.open(), 2, "the rest waits");
    let begun = rig.world.now();
    for result in results {
        placed(result).await.unwrap();
    }
    assert!(begun.elapsed() <= Duration::from_secs(8));
    assert_eq!(rig.bucket.most_open(), 2);
    let largest = rig.state().objects().map(|(_, meta)| meta.bytes).max().unwrap();
    assert!((10_000..21_000).contains(&largest), "{largest}");
}

#[tokio::test(start_paused = true)]
async fn memory_of_a_request_is_given_back_when_it_is_stored() {
    let rig = Rig::new(8, AT_ONCE).await;
    let budget = Arc::new(tokio::sync::Semaphore::new(100));
    rig.bucket.next([Fate::After(Duration::from_secs(2)), Fate::After(Duration::from_secs(1))]);
    // Of the third nothing is held.
    for (n, batches) in [vec![rig.batch(0, "a", None)], vec![rig.batch(1, "b", None)], vec![]].into_iter().enumerate() {
        let permit = Some(budget.clone().acquire_many_owned(10).await.unwrap());
        let submission = Submission { connection: ConnectionId(n as u64), batches, permit, frame_bytes: 10 };
        drop(rig.producer.submit(submission).await.unwrap());
        rig.world.sleep(Duration::from_millis(1)).await;
    }
    assert_eq!((budget.available_permits(), rig.metrics.produce.buffered_bytes.get()), (80, 20));
    rig.world.sleep(Duration::from_millis(1_100)).await;
    assert_eq!(budget.available_permits(), 90);
    rig.world.sleep(Duration::from_secs(1)).await;
    assert_eq!((budget.available_permits(), rig.metrics.produce.buffered_bytes.get()), (100, 0));
}
