//! Brokers of one zone, which read each object of the bucket once for all of them.
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::watch;

use super::slow_bucket::{fetch, write};
use super::*;
use crate::journal::MemoryJournal;
use crate::net::{Limits, attach};
use crate::peers::{Dial, Stream};
use crate::store::MemoryBucket;
use crate::store::faulty::{Fault, Faulty};

/// The way between the brokers of a test, by their hosts.
#[derive(Clone, Default)]
pub(super) struct Ways(Arc<Mutex<BTreeMap<String, Way>>>);

pub(super) enum Way {
    Leads(Arc<Context>, Limits),
    /// Takes connections, and answers nothing.
    Deaf,
}

impl Ways {
    pub(super) fn lead(&self, host: String, way: Way) {
        self.0.lock().unwrap().insert(host, way);
    }
}

#[async_trait]
impl Dial for Ways {
    async fn dial(&self, address: &HostPort) -> io::Result<Box<dyn Stream>> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        match self.0.lock().unwrap().get(&address.host) {
            None => return Err(io::ErrorKind::ConnectionRefused.into()),
            Some(Way::Deaf) => std::mem::forget(theirs),
            Some(Way::Leads(context, limits)) => {
                let (read, write) = tokio::io::split(theirs);
                let (context, limits, entrance) = (context.clone(), limits.clone(), Arc::new(entrance(1)));
                let (stop, stopping) = watch::channel(false);
                context.world.clone().spawn("connection", async move {
                    attach(context, limits, read, write, None, entrance, stopping).await;
                    drop(stop);
                });
            }
        }
        Ok(Box::new(ours))
    }
}

/// A broker that writes in zone a, and three of zone b that have nothing in memory; an object for each of `objects` fetches.
async fn zone(objects: usize) -> (Arc<Context>, [Arc<Context>; 3], Ways) {
    let (world, journal) = (World::seeded(1), Arc::new(MemoryJournal::default()));
    let bucket = Faulty::new(Arc::new(MemoryBucket::new()), world.clone());
    let (ways, mut brokers) = (Ways::default(), Vec::new());
    for id in 1..=4 {
        let metrics = Arc::new(Metrics::new(TimestampMs(0)));
        let config = config(&format!("broker_id: {id}\nzone: {}\n", if id == 1 { "a" } else { "b" }));
        let (bucket, dial) = (Arc::new(bucket.clone()), Arc::new(ways.clone()));
        let entrances = [entrance(id)];
        let broker = build::assemble(&config, &world, &metrics, journal.clone(), bucket, dial, &entrances);
        let broker = broker.await.unwrap();
        let host = entrance(id).advertised.host;
        ways.0.lock().unwrap().insert(host, Way::Leads(broker.context.clone(), broker.limits));
        brokers.push(broker.context);
    }
    let writer = brokers.remove(0);
    create(&writer, "t", 2).await.unwrap();
    for _ in 0..objects {
        write(&writer, 0).await;
    }
    bucket.set_all(Some(Fault::Slow(Duration::from_millis(50))));
    let zone: [_; 3] = brokers.try_into().unwrap_or_else(|_| unreachable!());
    for broker in &zone {
        broker.replica.barrier().await.unwrap();
    }
    (writer, zone, ways)
}

fn total(zone: &[Arc<Context>], of: impl Fn(&Metrics) -> u64) -> u64 {
    zone.iter().map(|broker| of(&broker.metrics)).sum()
}

#[tokio::test(start_paused = true)]
async fn a_zone_reads_each_object_once() {
    let (_, zone, _) = zone(20).await;
    // All at once, and again when all is in memory.
    for _ in 0..2 {
        let answers = futures::future::join_all(zone.iter().map(|broker| fetch(broker))).await;
        let records: BTreeSet<_> = answers.iter().map(|(found, ..)| found.records.clone().unwrap()).collect();
        assert_eq!(records.len(), 1, "each has the same");
        assert_eq!(total(&zone, |m| m.fetch.cold_reads.get()), 20);
    }
    assert_eq!(total(&zone, |m| m.cache.given.get()), 2 * 20);
    assert_eq!(total(&zone, |m| m.cache.asked_in_vain.get()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_neighbour_that_does_not_answer_is_left_alone() {
    let (_, zone, ways) = zone(20).await;
    for id in 2..=4 {
        ways.0.lock().unwrap().insert(entrance(id).advertised.host, Way::Deaf);
    }
    let first = &zone[0];
    // The first objects wait for it, and go on loading when the fetch is over.
    fetch(first).await;
    first.world.sleep(Duration::from_secs(3)).await;
    let (found, _, took) = fetch(first).await;
    assert!(found.records.is_some_and(|records| !records.is_empty()) && took < Duration::from_millis(300), "{took:?}");
    assert_eq!((first.metrics.fetch.cold_reads.get(), first.metrics.cache.given.get()), (20, 0));
}

#[tokio::test(start_paused = true)]
async fn brokers_that_are_gone_cost_nothing() {
    let (_, zone, ways) = zone(20).await;
    ways.0.lock().unwrap().clear();
    let (found, _, took) = fetch(&zone[0]).await;
    assert!(found.records.is_some_and(|records| !records.is_empty()) && took < Duration::from_millis(300), "{took:?}");
    assert_eq!(zone[0].metrics.fetch.cold_reads.get(), 20);
}

#[tokio::test(start_paused = true)]
async fn an_object_is_given_to_brokers_of_the_cluster_alone() {
    let (writer, _, _) = zone(1).await;
    let state = writer.replica.state();
    let slot = state.topic_by_name("t").unwrap().slots[0];
    let run = state.partition(slot).unwrap().tail.from(crate::types::Offset(0)).next().unwrap();
    let meta = state.object(run.object).unwrap();
    let cluster = state.cluster_id().unwrap().to_string();
    let request = |cluster: &str, key: String| {
        let topic = fetch_snapshot_request::TopicSnapshot::default().with_name(name(&key));
        let cluster = Some(StrBytes::from(cluster.to_owned()));
        let request = FetchSnapshotRequest::default().with_cluster_id(cluster).with_topics(vec![topic]);
        request.with_max_bytes(i32::try_from(meta.bytes).unwrap())
    };
    let mut given = ask(&writer, 1, request(&cluster, meta.name.key())).await;
    assert_eq!(given.error_code, 0);
    let given = given.topics.remove(0).partitions.remove(0);
    assert_eq!((given.size, given.unaligned_records.len()), (i64::from(meta.bytes), meta.bytes as usize));
    let other = ask(&writer, 1, request("another", meta.name.key())).await;
    assert_eq!(other.error_code, KafkaError::InconsistentClusterId.code());
    for key in ["cluster".to_owned(), "../x".to_owned(), meta.name.key().replace('0', "1")] {
        let none = ask(&writer, 1, request(&cluster, key.clone())).await;
        assert_eq!(none.error_code, KafkaError::SnapshotNotFound.code(), "{key}");
    }
}
