//! The replica over a journal and a bucket in memory, in a seeded world on a paused clock.
mod faults;
mod forks;
mod histories;
mod snapshots;
mod starts;
mod trims;
pub(crate) mod troubled;

use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::journal::{Journal, MemoryJournal};
use crate::state::{
    AllocateProducerIds, BrokerProfile, CommitRuns, CreateTopic, Entry, FEATURE_LEVEL_MAX, Settings, UnregisterBroker,
};
use crate::store::{Bucket, MemoryBucket};
use crate::telemetry::Metrics;
use crate::types::{BrokerId, Position, ProducerId, TimestampMs, Uuid};
use crate::world::{Host, Pace, World};
use troubled::{End, Troubled};

pub(crate) const SETTINGS: Settings = Settings {
    topics_max: 100,
    partitions_max: 1000,
    partitions_per_topic_max: 100,
    producers_max: 1000,
    producers_per_partition_max: 100,
    producer_expiration_ms: 86_400_000,
    snapshots_min: 3,
    groups_max: 100,
    group_offsets_max: 10_000,
    group_bytes_max: 1 << 20,
    fencing_ms: 10_000,
    transactional_ids_max: 100,
    transaction_partitions_max: 100,
    garbage_grace_ms: 600_000,
};

pub(crate) const NO_SNAPSHOTS: SnapshotPolicy =
    SnapshotPolicy { entries: u64::MAX, bytes: u64::MAX, age_ms: i64::MAX, kept_ms: i64::MAX };

/// A cluster's journal and bucket, and the world around them.
pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) journal: MemoryJournal,
    pub(crate) bucket: MemoryBucket,
    pub(crate) policy: SnapshotPolicy,
    pub(crate) settings: Settings,
}

impl Site {
    pub(crate) fn new(seed: u64) -> Self {
        let world = World::seeded(seed);
        let (journal, bucket) = (MemoryJournal::new(), MemoryBucket::new());
        Self { world, journal, bucket, policy: NO_SNAPSHOTS, settings: SETTINGS }
    }

    fn parts(&self, broker: i32) -> Parts {
        Parts {
            profile: BrokerProfile::default(),
            founding_level: FEATURE_LEVEL_MAX,
            journal: Arc::new(self.journal.clone()),
            bucket: Arc::new(self.bucket.clone()),
            world: self.world.clone(),
            metrics: Arc::new(Metrics::new(TimestampMs(0))),
            broker: BrokerId(broker),
            settings: self.settings,
            snapshots: self.policy,
            witness_interval: None,
            append_deadline: Duration::from_secs(10),
        }
    }

    pub(crate) async fn start(&self, broker: i32) -> Started {
        start(self.parts(broker)).await.unwrap()
    }

    /// A broker whose calls to the journal can be told to go wrong.
    pub(crate) async fn start_troubled(&self, broker: i32) -> (Started, Troubled) {
        let troubled = Troubled::new(Arc::new(self.journal.clone()), self.world.clone());
        let parts = Parts { journal: Arc::new(troubled.clone()), ..self.parts(broker) };
        (start(parts).await.unwrap(), troubled)
    }

    /// What a broker that was never there before makes of the whole journal.
    async fn replayed(&self) -> State {
        let mut state = State::default();
        loop {
            let page = self.journal.read(state.head().position.next()).await.unwrap();
            if page.is_empty() {
                return state;
            }
            for stored in page {
                let entry = Entry::decode_framed(stored.proposal.payload).unwrap();
                state.apply(stored.position, &entry);
            }
        }
    }

    /// Payload bytes of the entries after `position`.
    pub(crate) async fn journal_bytes_after(&self, position: Position) -> usize {
        let (mut bytes, mut from) = (0, position.next());
        loop {
            let page = self.journal.read(from).await.unwrap();
            let Some(last) = page.last() else { return bytes };
            bytes += page.iter().map(|stored| stored.proposal.payload.len()).sum::<usize>();
            from = last.position.next();
        }
    }

    async fn head(&self) -> Position {
        self.journal.head().await.unwrap().position
    }
}

/// The seeds of a random test: `count` of them, `SEEDS=n` for more or fewer, `SEED=n` for the one that failed.
pub(crate) fn seeds(count: u64) -> std::ops::Range<u64> {
    let given = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match given("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..given("SEEDS").unwrap_or(count),
    }
}

fn ids(count: u32) -> AllocateProducerIds {
    AllocateProducerIds { count }
}

pub(crate) fn topic(name: &str, id: u128) -> CreateTopic {
    let id = Bytes::from(Uuid::from_u128(id).as_bytes().to_vec());
    CreateTopic { name: name.into(), id, partitions: 2, replication_factor: 1, configs: vec![] }
}

/// The first id of a block.
fn first(outcome: Result<Outcome, ProposeError>) -> i64 {
    match outcome {
        Ok(Outcome::ProducerIds { first: ProducerId(first) }) => first,
        other => panic!("no block of ids: {other:?}"),
    }
}

/// Equal States have equal bytes.
fn bytes_of(state: &State) -> Bytes {
    state.encode_snapshot().1
}

#[tokio::test(start_paused = true)]
async fn an_outcome_comes_after_its_append() {
    let site = Site::new(1);
    let (broker, journal) = site.start_troubled(1).await;
    let before = broker.replica.applied();
    journal.script([End::Done.after(Duration::from_secs(5))]);
    let outcome = broker.replica.submit(ids(10)).await.unwrap();
    site.world.sleep(Duration::from_millis(4_900)).await;
    assert_eq!(broker.replica.applied(), before, "nothing is seen before it is durable");
    let start = site.world.now();
    assert_eq!(first(outcome.await.unwrap()), 0);
    assert_eq!(start.elapsed(), Duration::from_millis(100));
    assert_eq!(broker.replica.applied().position, before.position.next());
}

#[tokio::test(start_paused = true)]
async fn what_queues_during_an_append_goes_with_the_next() {
    let site = Site::new(2);
    let (broker, journal) = site.start_troubled(1).await;
    journal.script([End::Done.after(Duration::from_secs(1))]);
    let before = site.head().await;
    let mut outcomes = Vec::new();
    for _ in 0..2000 {
        outcomes.push(broker.replica.submit(ids(1)).await.unwrap());
    }
    for (n, outcome) in (0..).zip(outcomes) {
        assert_eq!(first(outcome.await.unwrap()), n, "in the order of the calls");
    }
    // One command alone, then entries of 1024 at most.
    assert_eq!(site.head().await.0 - before.0, 3);
}

#[tokio::test(start_paused = true)]
async fn h15_an_entry_has_a_limit_in_bytes() {
    let site = Site::new(3);
    let broker = site.start(1).await;
    let before = site.head().await;
    let large = || CommitRuns { runs: vec![0xff; 300 << 10].into(), ..Default::default() };
    let outcomes = futures::future::join_all((0..10).map(|_| broker.replica.propose(large()))).await;
    assert!(outcomes.iter().all(|o| matches!(o, Ok(Outcome::Refused(_)))), "{outcomes:?}");
    let entries = site.journal.read(before.next()).await.unwrap();
    let sizes: Vec<usize> = entries.iter().map(|e| e.proposal.payload.len()).collect();
    assert!(sizes.len() >= 4 && sizes.iter().all(|s| *s < (1 << 20) + 1000), "{sizes:?}");
    let gigantic = CommitRuns { runs: vec![0xff; 5 << 20].into(), ..Default::default() };
    assert!(matches!(broker.replica.propose(gigantic).await, Err(ProposeError::NotDone(_))));
    assert_eq!(first(broker.replica.propose(ids(1)).await), 0, "it goes on");
}

#[tokio::test(start_paused = true)]
async fn two_brokers_see_each_others_entries() {
    let site = Site::new(4);
    let (a, b) = (site.start(1).await, site.start(2).await);
    a.replica.propose(topic("t", 1)).await.unwrap();
    let seen = b.replica.barrier().await.unwrap();
    let slot = seen.topic_by_name("t").unwrap().slots[1];
    let waiter = b.replica.watch([slot].into_iter());
    assert_eq!(a.replica.propose(commit(slot)).await.unwrap(), accepted(0));
    waiter.woken().await;
    assert_eq!(b.replica.state().partition(slot).unwrap().end.0, 1);
    assert_eq!(b.replica.propose(commit(slot)).await.unwrap(), accepted(1));
    let (a, b) = (a.replica.barrier().await.unwrap(), b.replica.barrier().await.unwrap());
    assert_eq!(bytes_of(&a), bytes_of(&b));
    assert_eq!(bytes_of(&a), bytes_of(&site.replayed().await));
}

#[tokio::test(start_paused = true)]
async fn h8_a_new_life_ends_the_old_one() {
    let site = Site::new(5);
    let old = site.start(1).await;
    let new = site.start(1).await;
    assert_eq!(old.replica.propose(ids(5)).await, Ok(Outcome::Fenced));
    assert_eq!(old.owner.await.unwrap(), Err(Fatal::Replaced { broker: BrokerId(1) }));
    assert_eq!(first(new.replica.propose(ids(5)).await), 0, "nothing came of the other");
}

#[tokio::test(start_paused = true)]
async fn h8_a_life_that_was_replaced_does_not_begin_again_when_the_other_has_ended() {
    let site = Site::new(5);
    let (old, troubled) = site.start_troubled(1).await;
    troubled.slow_reads(Duration::from_secs(10));
    let new = site.start(1).await;
    assert_eq!(new.replica.propose(UnregisterBroker { broker: 1 }).await, Ok(Outcome::Done));
    assert_eq!(old.owner.await.unwrap(), Err(Fatal::Replaced { broker: BrokerId(1) }));
}

/// Broker 1, which is slow to read, and was fenced for its silence, and the one that did it.
async fn one_that_was_fenced(site: &Site) -> (Started, Started) {
    let (silent, journal) = site.start_troubled(1).await;
    let other = site.start(2).await;
    silent.replica.barrier().await.unwrap();
    journal.slow_reads(Duration::from_secs(4));
    for _ in 0..12 {
        other.replica.heartbeat().await.unwrap();
        site.world.sleep(Duration::from_secs(1)).await;
    }
    let state = other.replica.state();
    let known = state.broker(BrokerId(1)).unwrap();
    let (incarnation, last_position) = (known.incarnation.unwrap().0, known.last_position.0);
    let fence = crate::state::FenceBroker { broker: 1, incarnation, last_position };
    assert_eq!(other.replica.propose(fence).await, Ok(Outcome::Done));
    (silent, other)
}

#[tokio::test(start_paused = true)]
async fn h8_what_was_asked_before_a_new_life_is_refused() {
    let site = Site::new(5);
    let (silent, _other) = one_that_was_fenced(&site).await;
    let before = silent.replica.identity();
    let late = silent.replica.propose(ids(5)).await;
    assert!(matches!(&late, Err(ProposeError::NotDone(reason)) if reason.contains("given this one up")), "{late:?}");
    assert_ne!(silent.replica.identity().incarnation, before.incarnation);
    assert_eq!(first(silent.replica.propose(ids(5)).await), 0, "nothing came of the other");
}

#[tokio::test(start_paused = true)]
async fn a_barrier_joins_only_a_read_that_starts_after_it() {
    let site = Site::new(6);
    let (broker, journal) = site.start_troubled(1).await;
    let other = site.start(2).await;
    broker.replica.barrier().await.unwrap();
    journal.slow_heads(Duration::from_secs(1));
    let heads = journal.heads();
    let (world, replica) = (site.world.clone(), broker.replica.clone());
    let early = world.spawn("early", async move { replica.barrier().await });
    world.sleep(Duration::from_millis(500)).await;
    other.replica.propose(topic("t", 1)).await.unwrap();
    let late = futures::future::join_all((0..100).map(|_| broker.replica.barrier())).await;
    assert!(late.iter().all(|state| state.as_ref().unwrap().topic_by_name("t").is_some()));
    early.await.unwrap().unwrap();
    assert_eq!(journal.heads() - heads, 2, "one read for all who came during the first");
}

/// A broker that takes 3 s to read what another has just appended: the topic `t`.
async fn one_that_lags(site: &Site) -> Started {
    let (broker, journal) = site.start_troubled(1).await;
    let other = site.start(2).await;
    broker.replica.barrier().await.unwrap();
    journal.slow_reads(Duration::from_secs(3));
    other.replica.propose(topic("t", 1)).await.unwrap();
    broker
}

#[tokio::test(start_paused = true)]
async fn a_barrier_waits_until_the_head_is_applied() {
    let site = Site::new(7);
    let broker = one_that_lags(&site).await;
    let start = site.world.now();
    assert!(broker.replica.barrier().await.unwrap().topic_by_name("t").is_some());
    assert!(start.elapsed() >= Duration::from_secs(2), "the entry is read after the head");
}

/// A broker whose State is old lets its clients go, also if it knows by how much.
#[tokio::test(start_paused = true)]
async fn h9_a_head_that_is_not_applied_confirms_nothing() {
    let site = Site::new(7);
    let broker = one_that_lags(&site).await;
    site.world.sleep(Duration::from_millis(1)).await;
    let start = site.world.now();
    let (world, replica) = (site.world.clone(), broker.replica.clone());
    let barrier = world.spawn("barrier", async move { replica.barrier().await });
    world.sleep(Duration::from_secs(1)).await;
    assert!(broker.replica.confirmed() < start, "the head is known by now");
    barrier.await.unwrap().unwrap();
    assert!(broker.replica.confirmed() >= start);
}

#[tokio::test(start_paused = true)]
async fn h9_an_append_that_is_known_late_confirms_only_what_is_applied() {
    let site = Site::new(7);
    let (broker, journal) = site.start_troubled(1).await;
    let other = site.start(2).await;
    broker.replica.barrier().await.unwrap();
    journal.script([End::LostAfter]);
    journal.script([End::NotDone; 20]);
    journal.slow_reads(Duration::from_secs(3));
    let replica = broker.replica.clone();
    let in_doubt = site.world.spawn("in doubt", async move { replica.propose(ids(1)).await });
    site.world.sleep(Duration::from_millis(500)).await;
    assert!(!in_doubt.is_finished());
    other.replica.propose(topic("t", 1)).await.unwrap();
    let appended = site.world.now();
    in_doubt.await.unwrap().unwrap();
    assert!(broker.replica.confirmed() >= appended);
    assert!(broker.replica.state().topic_by_name("t").is_some(), "it was there when the head was asked for");
}

#[tokio::test(start_paused = true)]
async fn h16_a_clock_that_is_not_the_others_decides_nothing() {
    let site = Site::new(7);
    let host = Host::new(7, Pace { yields: 0 });
    let wrong = World::on(host.clone(), site.world.now(), 7);
    let day_ms = 86_400_000;
    host.set_wall_offset_ms(day_ms);
    let first = site.start(1).await.replica;
    assert!(first.agreed_wall_ms(&wrong).is_some(), "there is no other clock");
    for id in [2, 3] {
        site.start(id).await;
        first.barrier().await.unwrap();
        assert_eq!(first.agreed_wall_ms(&wrong), None, "beside {} others", id - 1);
        assert_eq!(first.agreed_wall_ms(&site.world), Some(site.world.wall_ms()));
    }
    assert_eq!(first.clock_apart_ms(&wrong), day_ms);
}

#[tokio::test(start_paused = true)]
async fn without_a_head_there_is_no_barrier() {
    let site = Site::new(8);
    let (broker, journal) = site.start_troubled(1).await;
    journal.fail_heads(true);
    assert!(broker.replica.barrier().await.is_err());
    journal.fail_heads(false);
    broker.replica.barrier().await.unwrap();
    // A head that does not come at all is given up too.
    journal.slow_heads(Duration::from_secs(3600));
    let start = site.world.now();
    assert!(broker.replica.barrier().await.is_err());
    assert!(start.elapsed() <= Duration::from_secs(15));
}

/// One record in an object of its own.
fn commit(slot: Slot) -> CommitRuns {
    let mut writer = crate::state::RunsWriter::default();
    writer.push(&crate::state::RunSpec {
        slot,
        position: 64,
        max_timestamp: TimestampMs(7),
        batches: vec![crate::state::BatchSpec { bytes: 70, records: 1, producer: None }],
    });
    let (base_timestamp, runs) = writer.finish();
    let (ulid, runs) = (vec![7; 16].into(), runs.into());
    CommitRuns { ulid, object_bytes: 200, base_timestamp, runs, ..Default::default() }
}

fn accepted(offset: i64) -> Outcome {
    let object = Some(crate::types::ObjectId(offset as u64));
    let base_offset = crate::types::Offset(offset);
    Outcome::Batches { object, batches: vec![crate::state::BatchOutcome::Accepted { base_offset }] }
}
