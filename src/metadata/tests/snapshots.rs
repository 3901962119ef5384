//! Snapshots: verified before they count, kept as long as they should be, and the journal trimmed no further.
use super::*;
use crate::journal::JournalError;
use crate::store::{CreateOutcome, Key, Listed, Purpose, StoreError};
use async_trait::async_trait;
use std::ops::Range;

/// Proposes one entry each 100 ms.
async fn work(site: &Site, broker: &Replica, entries: u32) {
    for _ in 0..entries {
        broker.propose(ids(1)).await.unwrap();
        site.world.sleep(Duration::from_millis(100)).await;
    }
}

fn stored(site: &Site) -> Vec<String> {
    site.bucket.contents().into_keys().filter(|k| k.starts_with(SNAPSHOT_PREFIX)).collect()
}

async fn oldest_entry(site: &Site) -> Position {
    match site.journal.read(Position(1)).await {
        Ok(_) => Position(1),
        Err(JournalError::Trimmed { first }) => first,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn h13_three_are_kept_and_the_journal_from_the_oldest_of_them() {
    let mut site = Site::new(30);
    site.policy = SnapshotPolicy { entries: 10, kept_ms: 0, ..NO_SNAPSHOTS };
    let broker = site.start(1).await;
    work(&site, &broker.replica, 15).await;
    assert_eq!((stored(&site).len(), oldest_entry(&site).await), (1, Position(1)), "one is not enough to trim");
    work(&site, &broker.replica, 200).await;
    let state = broker.replica.state();
    let kept: Vec<String> = state.snapshots().iter().map(|s| s.key.clone()).collect();
    assert_eq!(kept, stored(&site), "the bucket holds those that State keeps");
    assert_eq!(kept.len(), 3);
    assert_eq!(oldest_entry(&site).await, state.snapshots()[0].at.position);
}

#[tokio::test(start_paused = true)]
async fn h13_young_ones_are_kept_whatever_their_number() {
    let mut site = Site::new(31);
    site.policy = SnapshotPolicy { entries: 10, kept_ms: 60_000, ..NO_SNAPSHOTS };
    let broker = site.start(1).await;
    work(&site, &broker.replica, 500).await;
    let state = broker.replica.state();
    assert!(state.snapshots().len() > 20, "{}", state.snapshots().len());
    assert_eq!(oldest_entry(&site).await, state.snapshots()[state.snapshots().len() - 3].at.position);
    work(&site, &broker.replica, 500).await;
    let now = site.world.wall_ms().0;
    let oldest = broker.replica.state().snapshots()[0].taken_ms.0;
    assert!((60_000..70_000).contains(&(now - oldest)), "{} ms old", now - oldest);
}

#[tokio::test(start_paused = true)]
async fn an_idle_broker_takes_none() {
    let mut site = Site::new(32);
    site.policy = SnapshotPolicy { entries: 1, age_ms: 1000, kept_ms: 0, ..NO_SNAPSHOTS };
    let broker = site.start(1).await;
    work(&site, &broker.replica, 3).await;
    site.world.sleep(Duration::from_secs(5)).await;
    let head = site.head().await;
    site.world.sleep(Duration::from_secs(3600)).await;
    assert_eq!(site.head().await, head);
}

/// Gives the snapshots back with a byte changed.
struct Damaging(MemoryBucket);

#[async_trait]
impl Bucket for Damaging {
    async fn create(&self, key: &Key, body: Vec<Bytes>, purpose: Purpose) -> Result<CreateOutcome, StoreError> {
        self.0.create(key, body, purpose).await
    }

    async fn read(&self, key: &Key, range: Option<Range<u64>>, purpose: Purpose) -> Result<Bytes, StoreError> {
        let mut bytes = self.0.read(key, range, purpose).await?.to_vec();
        if let Some(byte) = bytes.last_mut().filter(|_| key.starts_with(SNAPSHOT_PREFIX)) {
            *byte ^= 1;
        }
        Ok(bytes.into())
    }

    async fn list(
        &self,
        p: &str,
        after: Option<&Key>,
        limit: usize,
        purpose: Purpose,
    ) -> Result<Vec<Listed>, StoreError> {
        self.0.list(p, after, limit, purpose).await
    }

    async fn delete(&self, key: &Key, purpose: Purpose) -> Result<(), StoreError> {
        self.0.delete(key, purpose).await
    }
}

#[tokio::test(start_paused = true)]
async fn h13_one_that_does_not_read_back_does_not_count() {
    let mut site = Site::new(33);
    site.policy = SnapshotPolicy { entries: 10, kept_ms: 0, ..NO_SNAPSHOTS };
    let parts = Parts { bucket: Arc::new(Damaging(site.bucket.clone())), ..site.parts(1) };
    let metrics = parts.metrics.clone();
    let broker = start(parts).await.unwrap();
    work(&site, &broker.replica, 200).await;
    assert!(metrics.snapshot.failed.get() > 3 && metrics.snapshot.written.get() == 0);
    assert_eq!((broker.replica.state().snapshots().len(), oldest_entry(&site).await), (0, Position(1)));
}
