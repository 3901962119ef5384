//! How fast a broker is back, and what State weighs: 1,000,000 runs in 2,000 entries over 10,000 partitions, 100,000 of
//! them each of another idempotent producer and partition, made through the real SQLite journal and the local bucket, a
//! tail of 10 % behind the newest snapshot. A start is measured in a process of its own, so that nothing but the start
//! is in its memory. Built without optimisation a tenth of it is made, and times are not judged.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use strandline::journal::{Journal, SqliteJournal};
use strandline::metadata::{Parts, Replica, SnapshotPolicy, Started, start};
use strandline::segment::ObjectName;
use strandline::state::*;
use strandline::store::{BucketSettings, open};
use strandline::telemetry::Metrics;
use strandline::types::*;
use strandline::world::World;
use tokio::runtime::Runtime;
use xxhash_rust::xxh3::Xxh3;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const OPTIMISED: bool = !cfg!(debug_assertions);
const SCALE: u32 = if OPTIMISED { 1 } else { 10 };
const TOPICS: u32 = 10;
const PARTITIONS: u32 = 10_000 / SCALE;
const ENTRIES: u32 = 2_000;
const RUNS_PER_ENTRY: u32 = 500 / SCALE;
const RUNS: u32 = ENTRIES * RUNS_PER_ENTRY;
/// Runs of an entry that have a producer.
const PRODUCED_PER_ENTRY: u32 = RUNS_PER_ENTRY / 10;
/// Between two entries, as flushes to an S3-like store are.
const LINGER_MS: i64 = 250;
/// Tells the process that measures what to start.
const SITE: &str = "RESTART_SITE";

/// Judges resident memory and `apply` too, which are not shown to be within their bars yet; else they are only printed.
const STRICT: &str = "RESTART_STRICT";

const START_MAX: Duration = Duration::from_secs(2);
const BYTES_PER_RUN_MAX: f64 = 24.0;
const APPLY_NS_PER_RUN_MAX: f64 = 300.0;

const SETTINGS: Settings = Settings {
    topics_max: 1000,
    partitions_max: 100_000,
    partitions_per_topic_max: 10_000,
    producers_max: 1_000_000,
    producers_per_partition_max: 10_000,
    producer_expiration_ms: i64::MAX,
    // So many that the journal stays whole, however slow the machine is that takes one each second.
    snapshots_min: 1000,
    groups_max: 1000,
    group_offsets_max: 1_000_000,
    group_bytes_max: 64 << 20,
    fencing_ms: 15_000,
    transactional_ids_max: 100,
    transaction_partitions_max: 100,
    garbage_grace_ms: 600_000,
};

/// What a broker that starts at a site says of its start.
#[derive(Debug)]
struct Figures {
    seconds: f64,
    /// Resident bytes of its own (without those of its file) some seconds after it was ready, less those before.
    grown: f64,
    /// The most that was resident until it was ready, less what was its own before.
    peak: f64,
    /// Of all that the site's load made.
    digest: u64,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A broker at `site`. With `snapshots` it takes one each second in which something was appended.
async fn broker(site: &Path, snapshots: bool) -> Started {
    let world = World::real().unwrap();
    let bucket = BucketSettings { url: site.join("bucket").display().to_string(), ..Default::default() };
    let entries = if snapshots { 1 } else { u64::MAX };
    let parts = Parts {
        profile: BrokerProfile::default(),
        founding_level: FEATURE_LEVEL_MAX,
        journal: Arc::new(SqliteJournal::open(&site.join("journal.db")).await.unwrap()),
        bucket: open(&bucket, world.clone()).await.unwrap(),
        metrics: Arc::new(Metrics::new(world.wall_ms())),
        world,
        broker: BrokerId(1),
        settings: SETTINGS,
        snapshots: SnapshotPolicy { entries, bytes: u64::MAX, age_ms: i64::MAX, kept_ms: i64::MAX },
        witness_interval: None,
        append_deadline: Duration::from_secs(10),
    };
    start(parts).await.unwrap()
}

/// Runs of random sizes, each entry's spread over all partitions as a flush lays them out.
struct Load {
    rng: StdRng,
    entry: u32,
}

impl Load {
    fn next(&mut self, applied: Head) -> CommitRuns {
        let first = self.rng.random_range(0..PARTITIONS);
        let mut slots: Vec<u32> = (0..RUNS_PER_ENTRY).map(|i| (first + i * 7919) % PARTITIONS).collect();
        let produced = slots[..PRODUCED_PER_ENTRY as usize].to_vec();
        slots.sort_unstable();
        let (mut writer, mut position) = (RunsWriter::default(), 64);
        for slot in slots {
            let (bytes, records) = (self.rng.random_range(100..32_000), self.rng.random_range(1..300));
            let producer = produced.contains(&slot).then(|| ProducerSpec {
                id: ProducerId(1000 + i64::from(self.entry)),
                epoch: ProducerEpoch(0),
                first_sequence: Sequence(self.rng.random_range(0..100_000)),
                transactional: false,
                joins: false,
            });
            let now = 1_700_000_000_000 + i64::from(self.entry) * LINGER_MS;
            let max_timestamp = TimestampMs(now - self.rng.random_range(0..LINGER_MS));
            let batches = vec![BatchSpec { bytes, records, producer }];
            writer.push(&RunSpec { slot: Slot(slot), position, max_timestamp, batches });
            position += bytes;
        }
        self.entry += 1;
        let (base_timestamp, runs) = writer.finish();
        CommitRuns {
            ulid: Bytes::copy_from_slice(&self.rng.random::<u128>().to_be_bytes()),
            applied_position: applied.position.0,
            applied_token: applied.token.0,
            object_bytes: position,
            object: None,
            base_timestamp,
            runs: runs.into(),
        }
    }

    /// Commits until `entries` are in the journal, beside an object in the bucket for each.
    async fn commit(&mut self, site: &Path, replica: &Replica, entries: u32) {
        while self.entry < entries {
            let applied = replica.applied();
            let commit = self.next(applied);
            let ulid = u128::from_be_bytes(commit.ulid[..].try_into().unwrap());
            let object = site.join("bucket").join(ObjectName::data(applied, ulid).key());
            std::fs::create_dir_all(object.parent().unwrap()).unwrap();
            std::fs::write(object, b"not read here").unwrap();
            let Outcome::Batches { batches, .. } = replica.propose(commit).await.unwrap() else { panic!("refused") };
            assert!(batches.iter().all(|b| matches!(b, BatchOutcome::Accepted { .. })));
        }
    }
}

async fn create_topics(replica: &Replica) {
    for n in 0..TOPICS {
        let id = Bytes::copy_from_slice(Uuid::from_u128(u128::from(n) + 1).as_bytes());
        let (name, partitions) = (format!("topic-{n}"), PARTITIONS / TOPICS);
        let create = CreateTopic { name, id, partitions, replication_factor: 3, configs: vec![] };
        assert_eq!(replica.propose(create).await.unwrap(), Outcome::Done);
    }
}

/// Waits for a snapshot that holds everything up to now.
async fn snapshot(replica: &Replica) {
    let now = replica.applied().position;
    while replica.state().snapshots().last().is_none_or(|s| s.at.position < now) {
        tokio::task::yield_now().await;
        World::real().unwrap().sleep(Duration::from_millis(20)).await;
    }
}

/// A cluster of `entries` entries, snapshots at 80 and 90 % of them.
fn build(site: &Path, entries: u32) {
    let mut load = Load { rng: StdRng::seed_from_u64(3), entry: 0 };
    let lives = [(false, entries * 8 / 10), (true, entries * 9 / 10), (false, entries)];
    for (snapshots, until) in lives {
        runtime().block_on(async {
            let Started { replica, .. } = broker(site, snapshots).await;
            if load.entry == 0 {
                create_topics(&replica).await;
            }
            if snapshots {
                snapshot(&replica).await;
            }
            load.commit(site, &replica, until).await;
            if snapshots {
                snapshot(&replica).await;
            }
        });
    }
}

/// Everything that the load made, without what a start adds.
fn digest(state: &State) -> u64 {
    let mut hash = Xxh3::new();
    let mut add = |value: &dyn std::fmt::Debug| hash.update(format!("{value:?}").as_bytes());
    for topic in state.topics() {
        for partition in topic.slots.iter().map(|slot| state.partition(*slot).unwrap()) {
            add(&(partition.slot, partition.log_start, partition.end, partition.bytes, partition.producers));
            partition.tail.iter().for_each(|run| add(&run));
        }
    }
    state.producers().for_each(|producer| add(&producer));
    state.objects().for_each(|object| add(&object));
    hash.digest()
}

/// A line of `/proc/self/status`, in bytes.
fn memory(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

/// ns that this thread has had a processor: what else the machine does meanwhile does not count.
fn cpu_ns() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

/// What the other process does; nothing in the test's own.
#[test]
fn start_as_asked() {
    let Some(site) = std::env::var_os(SITE).map(PathBuf::from) else { return };
    // As in the binary.
    rustix::thread::disable_transparent_huge_pages(true).unwrap();
    let runtime = runtime();
    let before = memory("RssAnon");
    runtime.block_on(async {
        let world = World::real().unwrap();
        let begun = world.now();
        let Started { replica, .. } = broker(&site, false).await;
        let seconds = (world.now() - begun).as_secs_f64();
        let peak = memory("VmHWM");
        // The allocator gives back what it has no use for, but not at once, and only while it is used.
        for _ in 0..20 {
            world.sleep(Duration::from_millis(150)).await;
            world.compute(|| drop(std::hint::black_box(vec![1_u8; 1 << 20]))).await;
        }
        let after = memory("RssAnon");
        let digest = digest(&replica.state());
        println!("FIGURES {seconds} {} {} {digest}", after - before, peak - before);
    });
}

/// Starts a broker at `site` in another process.
fn started(site: &Path) -> Figures {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", "start_as_asked", "--nocapture"]).env(SITE, site).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|l| l.split_once("FIGURES ").map(|(_, figures)| figures));
    let line = line.unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)));
    let figures: Vec<&str> = line.split(' ').collect();
    let number = |i: usize| figures[i].parse::<f64>().unwrap();
    Figures { seconds: number(0), grown: number(1), peak: number(2), digest: figures[3].parse().unwrap() }
}

/// The snapshots at `site`, oldest first.
fn snapshots(site: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(site.join("bucket/snapshots")).unwrap();
    files.map(|file| file.unwrap().path()).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

/// All entries of the journal, and the bytes of their payloads.
fn entries(site: &Path) -> (Vec<Entry>, usize) {
    runtime().block_on(async {
        let journal = SqliteJournal::open(&site.join("journal.db")).await.unwrap();
        let (mut entries, mut bytes, mut next) = (Vec::new(), 0, Position(1));
        loop {
            let page = journal.read(next).await.unwrap();
            let Some(last) = page.last() else { return (entries, bytes) };
            next = last.position.next();
            for stored in page {
                bytes += stored.proposal.payload.len();
                entries.push(Entry::decode_framed(stored.proposal.payload).unwrap());
            }
        }
    })
}

/// ns that `apply` takes per run, over all entries, and the State that they make. With `overlay` each entry is applied
/// to a clone of a State that is held meanwhile, as a broker that appends does it; a broker that starts does without.
fn apply(entries: &[Entry], overlay: bool) -> (f64, State) {
    let (begun, mut state) = (cpu_ns(), State::default());
    for (position, entry) in (1..).map(Position).zip(entries) {
        let held = overlay.then(|| state.clone());
        state.apply(position, entry);
        drop(held);
    }
    ((cpu_ns() - begun) / f64::from(RUNS), state)
}

#[test]
fn a_million_runs_are_back_in_two_seconds() {
    let directory = tempfile::tempdir().unwrap();
    let (site, empty) = (directory.path().join("site"), directory.path().join("empty"));
    for place in [&site, &empty] {
        std::fs::create_dir_all(place.join("bucket")).unwrap();
    }
    build(&site, ENTRIES);
    let file = std::fs::metadata(site.join("journal.db")).unwrap().len();
    let (entries, journal_bytes) = entries(&site);
    let (_, applied) = apply(&entries, false);
    let least = |overlay| (0..3).map(|_| apply(&entries, overlay).0).fold(f64::MAX, f64::min);
    let (ns, overlaid) = (least(false), least(true));
    assert_eq!((applied.run_count(), applied.partition_count()), (u64::from(RUNS), PARTITIONS));
    assert_eq!(applied.producer_count(), (ENTRIES * PRODUCED_PER_ENTRY) as usize);
    assert_eq!(applied.snapshots().last().map(|s| s.at.position.0 < entries.len() as u64 - 150), Some(true));
    let expected = digest(&applied);

    let nothing = started(&empty);
    let figures: Vec<Figures> = (0..3).map(|_| started(&site)).collect();
    let best = |of: fn(&Figures) -> f64| figures.iter().map(of).fold(f64::MAX, f64::min);
    let runs = f64::from(RUNS);
    let (seconds, resident) = (best(|f| f.seconds), (best(|f| f.grown) - nothing.grown) / runs);
    let journal = journal_bytes as f64 / runs;
    let snapshot_bytes = std::fs::metadata(snapshots(&site).pop().unwrap()).unwrap().len();
    println!("{RUNS} runs, {PARTITIONS} partitions, {} entries, optimised: {OPTIMISED}", entries.len());
    println!("start: {seconds:.3} s; {resident:.1} bytes a run resident");
    println!("  peak {:.1}; empty cluster {:.1}", best(|f| f.peak) / runs, nothing.grown / runs);
    println!("journal: {journal:.1} bytes a run, {:.1} in its file", file as f64 / runs);
    println!(
        "snapshot: {:.1} bytes a run; apply: {ns:.0} ns a run, {overlaid:.0} beside a held State",
        snapshot_bytes as f64 / runs / 0.9
    );
    assert!(figures.iter().all(|f| f.digest == expected), "a start gives what the journal's entries make");

    let newest = snapshots(&site).pop().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    let fallen_back = started(&site);
    println!("start from the snapshot before: {:.3} s", fallen_back.seconds);
    assert_eq!(fallen_back.digest, expected, "the snapshot before gives the same State");

    assert!(journal <= BYTES_PER_RUN_MAX, "{journal} journal bytes a run");
    assert!(!OPTIMISED || seconds <= START_MAX.as_secs_f64(), "a start takes {seconds} s");
    if OPTIMISED && std::env::var_os(STRICT).is_some() {
        assert!(resident <= BYTES_PER_RUN_MAX, "{resident} bytes a run resident");
        assert!(ns <= APPLY_NS_PER_RUN_MAX, "apply takes {ns} ns a run");
    }
}
