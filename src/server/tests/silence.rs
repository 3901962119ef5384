//! Two brokers that the journal was away from: nobody is missed who only could not be heard (H12).
use std::time::Duration;

use super::*;
use crate::journal::MemoryJournal;
use crate::metadata::tests::troubled::Troubled;
use crate::peers::Tcp;
use crate::state::Standing;
use crate::store::MemoryBucket;

const FENCING: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Brokers 1 and 2, which have heard each other for a while.
struct Pair {
    world: World,
    brokers: Vec<build::Broker>,
    journals: Vec<Troubled>,
}

impl Pair {
    async fn new() -> Self {
        let (world, journal, bucket) = (World::seeded(1), Arc::new(MemoryJournal::default()), MemoryBucket::new());
        let (mut brokers, mut journals) = (Vec::new(), Vec::new());
        for id in [1, 2] {
            let config = config(&format!(
                "broker_id: {id}\ncluster: {{heartbeat_interval_ms: {}, fencing_timeout_ms: {}, \
                 journal_staleness_max_ms: 8000}}\n",
                HEARTBEAT.as_millis(),
                FENCING.as_millis()
            ));
            let troubled = Troubled::new(journal.clone(), world.clone());
            let metrics = Arc::new(Metrics::new(TimestampMs(0)));
            let (own, bucket, entrances) = (Arc::new(troubled.clone()), Arc::new(bucket.clone()), [entrance(id)]);
            let broker = build::assemble(&config, &world, &metrics, own, bucket, Arc::new(Tcp), &entrances);
            brokers.push(broker.await.unwrap());
            journals.push(troubled);
        }
        world.sleep(FENCING * 3).await;
        Self { world, brokers, journals }
    }

    /// Where broker 2 stands, as 1 knows it, and how often anybody came or went.
    fn second(&self) -> (Standing, u32) {
        let state = self.brokers[0].context.replica.state();
        (state.broker(crate::types::BrokerId(2)).unwrap().standing, state.membership())
    }

    /// The journal is away for both from `at` on, and comes back for the second `later` than for the first.
    async fn outage(&self, at: Duration, lasts: Duration, later: Duration) {
        self.world.sleep(at).await;
        self.journals.iter().for_each(|journal| journal.away(true));
        self.world.sleep(lasts).await;
        self.journals[0].away(false);
        self.world.sleep(later).await;
        self.journals[1].away(false);
        self.world.sleep(FENCING * 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn h12_after_an_outage_everybody_has_the_whole_time_again() {
    // Also one that ends before the time is over after which nothing that was heard before it counts.
    for outage_ms in [4_000, 4_400, 4_900, 6_000, 12_000, 60_000] {
        for at_ms in [0, 500, 1_000, 1_500, 1_900] {
            let pair = Pair::new().await;
            let before = pair.second();
            let (at, lasts) = (Duration::from_millis(at_ms), Duration::from_millis(outage_ms));
            pair.outage(at, lasts, FENCING * 9 / 10).await;
            assert_eq!(pair.second(), before, "away for {outage_ms} ms, {at_ms} ms after a heartbeat or so");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn h12_an_outage_that_nobody_noticed_leaves_time_to_find_the_journal_again() {
    for outage_ms in [100, 1_000, 2_000, 3_000] {
        for at_ms in [0, 500, 1_000, 1_500, 1_900] {
            let pair = Pair::new().await;
            let before = pair.second();
            let (at, lasts) = (Duration::from_millis(at_ms), Duration::from_millis(outage_ms));
            pair.outage(at, lasts, FENCING * 2 / 5).await;
            assert_eq!(pair.second(), before, "away for {outage_ms} ms, {at_ms} ms after a heartbeat or so");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_come_back_is_missed_in_time() {
    for outage_ms in [0, 3_000, 30_000] {
        let pair = Pair::new().await;
        pair.journals[1].away(true);
        pair.journals[0].away(outage_ms > 0);
        pair.world.sleep(Duration::from_millis(outage_ms)).await;
        pair.journals[0].away(false);
        let since = pair.world.now();
        while pair.second().0 == Standing::Active {
            pair.world.sleep(Duration::from_millis(50)).await;
        }
        let took = pair.world.now() - since;
        assert!(took <= FENCING * 11 / 10 + HEARTBEAT + Duration::from_secs(1), "{took:?} after {outage_ms} ms");
    }
}
