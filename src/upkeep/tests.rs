//! The tasks over a journal and a bucket in memory, on a paused clock.
use bytes::Bytes;

use super::*;
use crate::metadata::Started;
use crate::metadata::tests::{Site, topic};
use crate::state::{BatchSpec, CommitRuns, DeleteRecords, Outcome, RunSpec, RunsWriter, State};
use crate::store::faulty::{Fault, Faulty};
use crate::store::{CreateOutcome, Operation};
use crate::types::{ObjectId, Position, Slot, TimestampMs};

const SECOND: Duration = Duration::from_secs(1);

struct Rig {
    site: Site,
    broker: Started,
    bucket: Faulty,
    metrics: Arc<Metrics>,
    objects: u128,
}

/// A broker that does upkeep: a grace of 10 s, orphans of 20 s, a sweep each 30 s, retention each second.
async fn rig(seed: u64) -> Rig {
    let mut site = Site::new(seed);
    site.settings.garbage_grace_ms = 10_000;
    let broker = site.start(1).await;
    let yaml = "upkeep:\n  orphan_age_ms: 20000\n  sweep_interval_ms: 30000\n\
                kafka:\n  log.retention.check.interval.ms: 1000\n";
    let (world, metrics) = (site.world.clone(), Arc::new(Metrics::new(TimestampMs(0))));
    let bucket = Faulty::new(Arc::new(site.bucket.clone()), world.clone());
    let upkeep = Upkeep {
        membership: Membership::new(world.clone(), broker.replica.clone(), 3600 * SECOND),
        world,
        replica: broker.replica.clone(),
        bucket: Arc::new(bucket.clone()),
        metrics: metrics.clone(),
        config: Arc::new(Config::from_yaml(yaml).unwrap()),
    };
    upkeep.start();
    broker.replica.propose(topic("t", 1)).await.unwrap();
    Rig { site, broker, bucket, metrics, objects: 0 }
}

impl Rig {
    fn state(&self) -> Arc<State> {
        self.broker.replica.state()
    }

    /// An object in the bucket, named now.
    async fn put(&mut self) -> ObjectName {
        self.objects += 1;
        let written_ms = u128::from(self.site.world.wall_ms().0.unsigned_abs());
        let name = ObjectName::data(self.broker.replica.applied(), written_ms << 80 | self.objects);
        let created = self.bucket.create(&name.key(), vec![Bytes::from_static(b"content")], Purpose::Ingest).await;
        assert_eq!(created, Ok(CreateOutcome::Created));
        name
    }

    /// Commits a record in it to each of these slots.
    async fn commit(&self, name: ObjectName, slots: &[u32]) -> Outcome {
        let mut runs = RunsWriter::default();
        for slot in slots {
            let batches = vec![BatchSpec { bytes: 7, records: 1, producer: None }];
            let max_timestamp = self.site.world.wall_ms();
            runs.push(&RunSpec { slot: Slot(*slot), position: 0, max_timestamp, batches });
        }
        self.broker.replica.propose(CommitRuns::new(name, 7, None, runs)).await.unwrap()
    }

    async fn delete_records(&self, slot: u32, offset: i64) {
        self.broker.replica.propose(DeleteRecords { slot, offset }).await.unwrap();
    }

    fn has(&self, name: ObjectName) -> bool {
        self.site.bucket.contents().contains_key(&name.key())
    }

    fn deleted(&self, reason: &'static str) -> u64 {
        let reason = crate::telemetry::metrics::Reason { reason };
        self.metrics.upkeep.deleted_objects.get_or_create(&reason).get()
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_goes_a_grace_after_the_last_of_its_runs() {
    let mut rig = rig(1).await;
    let (shared, kept) = (rig.put().await, rig.put().await);
    rig.commit(shared, &[0, 1]).await;
    rig.commit(kept, &[0]).await;
    rig.delete_records(0, 1).await;
    rig.site.world.sleep(60 * SECOND).await;
    assert!(rig.has(shared), "a partition refers to it");
    rig.delete_records(1, 1).await;
    let died = rig.state().deaths().next().unwrap().1.since;
    rig.site.world.sleep(9 * SECOND).await;
    assert!(rig.has(shared), "its grace is not over");
    assert_eq!((rig.state().dead_object_count(), rig.state().dead_bytes()), (1, 7));
    rig.site.world.sleep(4 * SECOND).await;
    assert!(!rig.has(shared) && rig.has(kept));
    assert_eq!((rig.state().dead_object_count(), rig.state().object_count(), rig.deleted("dead")), (0, 1, 1));
    assert!(rig.state().orphan_horizon() > shared.applied.position, "a second copy of it is nobody's");
    // The horizon, a heartbeat that shows that the history is whole, and the entry that forgets.
    assert_eq!(rig.state().head().position.0, died.0 + 3);
    rig.site.world.sleep(600 * SECOND).await;
    assert_eq!(rig.state().head().position.0, died.0 + 3, "who has nothing to do appends nothing");
}

#[tokio::test(start_paused = true)]
async fn what_the_bucket_does_not_delete_is_not_forgotten() {
    let mut rig = rig(2).await;
    let names = [rig.put().await, rig.put().await, rig.put().await];
    for name in names {
        rig.commit(name, &[0]).await;
    }
    rig.delete_records(0, 3).await;
    rig.bucket.script(Operation::Delete, [Fault::None, Fault::ReplyLost, Fault::Refused]);
    rig.site.world.sleep(Duration::from_millis(11_900)).await;
    assert_eq!(names.map(|name| rig.has(name)), [false, false, true]);
    let left: Vec<ObjectId> = rig.state().deaths().map(|(id, _)| id).collect();
    assert_eq!((left, rig.metrics.upkeep.failed_deletions.get()), (vec![ObjectId(1), ObjectId(2)], 2));
    rig.site.world.sleep(3 * SECOND).await;
    assert!(!rig.has(names[2]));
    assert_eq!((rig.state().object_count(), rig.deleted("dead")), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn h4_orphans_go_below_the_horizon_and_what_comes_late_is_refused() {
    let mut rig = rig(3).await;
    let (committed, orphan) = (rig.put().await, rig.put().await);
    rig.commit(committed, &[0]).await;
    let foreign = "data/0/-strange".to_owned();
    rig.bucket.create(&foreign, vec![Bytes::from_static(b"x")], Purpose::Ingest).await.unwrap();
    rig.site.world.sleep(15 * SECOND).await;
    let young = rig.put().await;
    // The sweep after 30 s nominates the orphan, and waits until the horizon may go so far.
    rig.site.world.sleep(14 * SECOND).await;
    assert!(rig.has(orphan) && rig.state().orphan_horizon() == Position(0));
    rig.site.world.sleep(25 * SECOND).await;
    assert!(!rig.has(orphan) && rig.has(committed) && rig.has(young));
    assert!(rig.state().orphan_horizon() > orphan.applied.position);
    assert_eq!((rig.deleted("orphan"), rig.metrics.upkeep.orphans.get()), (1, 0));
    assert!(matches!(rig.commit(orphan, &[0]).await, Outcome::Refused(_)), "its writer was slow");
    let named_later = rig.put().await;
    assert!(matches!(rig.commit(named_later, &[0]).await, Outcome::Batches { .. }));
    rig.site.world.sleep(200 * SECOND).await;
    assert!(!rig.has(young) && rig.has(committed) && rig.has(named_later));
    assert!(rig.site.bucket.contents().contains_key(&foreign));
}

#[tokio::test(start_paused = true)]
async fn h4_a_broker_that_lags_holds_up_the_sweep() {
    let mut rig = rig(4).await;
    // It is registered, and says nothing more.
    let other = rig.site.start(2).await;
    rig.broker.replica.barrier().await.unwrap();
    let said = rig.state().broker(crate::types::BrokerId(2)).unwrap().reported;
    let orphan = rig.put().await;
    assert!(orphan.applied.position > said);
    rig.site.world.sleep(200 * SECOND).await;
    assert!(rig.has(orphan));
    assert!(rig.state().orphan_horizon() <= said);
    assert_eq!(rig.metrics.upkeep.orphans.get(), 1);
    let _ = other.replica.heartbeat().await;
    let _ = other.replica.heartbeat().await;
    rig.site.world.sleep(200 * SECOND).await;
    assert!(!rig.has(orphan));
}

#[tokio::test(start_paused = true)]
async fn retention_is_one_entry_for_what_is_due() {
    let mut rig = rig(5).await;
    let change = |value: &str| crate::state::ConfigChange { name: "retention.ms".into(), value: Some(value.into()) };
    let topic_id = topic("t", 1).id;
    let changes = vec![change("5000")];
    rig.broker.replica.propose(crate::state::AlterTopicConfigs { topic_id, changes, from_version: 1 }).await.unwrap();
    let name = rig.put().await;
    rig.commit(name, &[0, 1]).await;
    let before = rig.state().head().position.0;
    rig.site.world.sleep(Duration::from_millis(4_500)).await;
    assert_eq!(rig.state().run_count(), 2);
    rig.site.world.sleep(2 * SECOND).await;
    assert_eq!((rig.state().run_count(), rig.state().head().position.0), (0, before + 1));
    assert_eq!((rig.metrics.upkeep.expired_bytes.get(), rig.metrics.upkeep.overdue_bytes.get()), (14, 0));
    rig.site.world.sleep(20 * SECOND).await;
    assert!(!rig.has(name));
}
