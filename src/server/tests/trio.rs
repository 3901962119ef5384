//! Three brokers over a journal in the bucket: what they tell each other of entries, and what they ask the bucket for while
//! nothing happens. Virtual time.
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;

use super::neighbours::{Way, Ways};
use super::slow_bucket::write;
use super::*;
use crate::journal::BucketJournal;
use crate::store::faulty::{Fault, Faulty};
use crate::store::{Bucket, MemoryBucket, Observed};

const HOUR: Duration = Duration::from_secs(3600);
const MS: Duration = Duration::from_millis(1);

struct Trio {
    world: World,
    brokers: Vec<Arc<Context>>,
    bucket: Faulty,
    /// Their membership tasks live as long as these.
    _drained: Vec<watch::Receiver<bool>>,
}

impl Trio {
    /// They know each other, and topic `t`. Whether they `reach` each other, too.
    async fn new(reach: bool) -> Self {
        let world = World::seeded(1);
        let bucket = Faulty::new(Arc::new(MemoryBucket::new()), world.clone());
        let (ways, mut brokers, mut drained) = (Ways::default(), Vec::new(), Vec::new());
        for id in 1..=3 {
            let yaml = format!("broker_id: {id}\njournal: {{kind: bucket}}\nbucket: {{url: \"memory:\"}}\n");
            let config = Arc::new(Config::from_yaml(&yaml).unwrap());
            let metrics = Arc::new(Metrics::new(TimestampMs(0)));
            let seen = Observed::new(Arc::new(bucket.clone()), world.clone(), metrics.clone());
            let seen: Arc<dyn Bucket> = Arc::new(seen);
            let journal = Arc::new(BucketJournal::new(seen.clone(), world.clone(), build::poll_policy(&config)));
            let (dial, entrances) = (Arc::new(ways.clone()), [entrance(id)]);
            let broker = build::assemble(&config, &world, &metrics, journal, seen, dial, &entrances).await.unwrap();
            if reach {
                ways.lead(entrance(id).advertised.host, Way::Leads(broker.context.clone(), broker.limits));
            }
            brokers.push(broker.context);
            drained.push(broker.drained);
        }
        create(&brokers[0], "t", 2).await.unwrap();
        world.sleep(Duration::from_secs(60)).await;
        Self { world, brokers, bucket, _drained: drained }
    }

    /// What all have asked the bucket for so far, by operation and purpose.
    fn asked(&self) -> BTreeMap<(String, String), u64> {
        let mut asked = BTreeMap::new();
        for broker in &self.brokers {
            for line in broker.metrics.render(TimestampMs(0)).lines() {
                let Some(rest) = line.strip_prefix("strandline_bucket_requests_total{operation=\"") else { continue };
                let (labels, count) = rest.split_once("} ").unwrap();
                let mut labels = labels.split('"');
                let (operation, purpose) = (labels.next().unwrap(), labels.nth(1).unwrap());
                *asked.entry((operation.to_owned(), purpose.to_owned())).or_default() += count.parse::<u64>().unwrap();
            }
        }
        asked
    }

    /// The time from a record's acknowledgement at the first broker until the second has applied its entry.
    async fn seen_after(&self) -> Duration {
        let waiter = self.brokers[1].replica.watch([self.slot()].into_iter());
        write(&self.brokers[0], 0).await;
        let acknowledged = self.world.now();
        waiter.woken().await;
        acknowledged.elapsed()
    }

    fn slot(&self) -> crate::types::Slot {
        self.brokers[1].replica.state().topic_by_name("t").unwrap().slots[0]
    }
}

/// Dollars a month of 30 days on S3, from what was asked in `time`.
fn dollars(asked: &BTreeMap<(String, String), u64>, time: Duration) -> f64 {
    let months = time.as_secs_f64() / (30.0 * 24.0 * 3600.0);
    let million = |operation: &str| match operation {
        "create" | "list" => 5.0,
        "read" => 0.4,
        _ => 0.0,
    };
    asked.iter().map(|((operation, _), count)| *count as f64 / months * million(operation) / 1e6).sum()
}

#[tokio::test(start_paused = true)]
async fn three_idle_brokers_cost_less_than_ten_dollars_a_month() {
    let trio = Trio::new(true).await;
    trio.bucket.set_all(Some(Fault::Slow(15 * MS)));
    // What was done before falls due for a snapshot once more.
    trio.world.sleep(HOUR / 4).await;
    let before = trio.asked();
    trio.world.sleep(HOUR * 2).await;
    let mut asked = trio.asked();
    asked.iter_mut().for_each(|(what, count)| *count -= before.get(what).copied().unwrap_or(0));
    let cost = dollars(&asked, HOUR * 2);
    println!("{cost:.2} dollars a month: {asked:?}");
    assert!(cost < 10.0, "{cost} dollars a month: {asked:?}");
    let state = trio.brokers[0].replica.barrier().await.unwrap();
    assert_eq!(state.membership(), 3, "and nobody was given up");
    assert!(trio.brokers.iter().all(|broker| broker.members().serves()), "or thinks that it is cut off");
}

#[tokio::test(start_paused = true)]
async fn an_entry_is_seen_elsewhere_as_soon_as_it_can_be_read() {
    let trio = Trio::new(true).await;
    trio.bucket.set_all(Some(Fault::Slow(15 * MS)));
    for pause_ms in [1, 40, 700, 5_000, 30_000] {
        trio.world.sleep(pause_ms * MS).await;
        let took = trio.seen_after().await;
        // It, and the boundary after it.
        assert!(took <= 40 * MS, "{took:?} after {pause_ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn entries_that_nobody_tells_of_are_looked_for() {
    let trio = Trio::new(false).await;
    for pause_ms in [1, 40, 700, 5_000, 30_000] {
        trio.world.sleep(pause_ms * MS).await;
        let took = trio.seen_after().await;
        assert!(took <= 1_000 * MS, "{took:?} after {pause_ms} ms");
    }
}

/// Whoever reaches a listener may tell of entries that are not there.
#[tokio::test(start_paused = true)]
async fn what_is_made_up_costs_one_look_a_poll() {
    let trio = Trio::new(true).await;
    let before = trio.asked();
    for n in 0..10_000 {
        let hint =
            crate::types::Hint { incarnation: crate::types::Incarnation(n), position: crate::types::Position(1 << 40) };
        trio.brokers[0].replica.hint(hint);
        trio.world.sleep(MS).await;
    }
    let looked = trio.asked().values().sum::<u64>() - before.values().sum::<u64>();
    assert!(looked <= 100, "{looked} requests in ten seconds");
}
