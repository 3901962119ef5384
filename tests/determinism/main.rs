//! A whole broker from one seed: connections over pipes in memory, journal and bucket in memory behind delays and
//! faults, clients that do 2,000 things at once, all on one thread and a paused clock. The same seed twice gives the
//! same answers, to the byte and the microsecond; another seed others. What makes it fail is a leak: a clock, a random
//! number, a thread or a hash seed that does not come from `world`.
//!
//! `SEED=n cargo test --test determinism` runs one seed, `SEEDS=n` more or fewer than usual.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
mod clients;
mod journal;
mod wire;

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use strandline::cluster::Members;
use strandline::config::{Config, HostPort};
use strandline::net;
use strandline::server::{Broker, assemble};
use strandline::store::faulty::{Faulty, Rates};
use strandline::store::{Bucket, MemoryBucket};
use strandline::telemetry::Metrics;
use strandline::types::{BrokerId, TimestampMs};
use strandline::world::{Instant, JoinHandle, World};
use tokio::sync::watch;

use journal::Uneven;
use wire::Wire;

/// Requests that the clients of one run send.
const OPERATIONS: usize = 2_000;

/// What one client saw at one time, in the order in which all clients saw things.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    client: usize,
    micros: u128,
    what: String,
    hash: u64,
}

type Trace = Arc<Mutex<Vec<Row>>>;

/// Everything that clients need to connect.
#[derive(Clone)]
struct Harbour {
    broker: Arc<Mutex<Option<Broker>>>,
    world: World,
    start: Instant,
    trace: Trace,
    stop: watch::Receiver<bool>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Harbour {
    fn connect(&self, client: usize) -> Wire {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (read, write) = tokio::io::split(theirs);
        let broker = self.broker.lock().unwrap();
        let Broker { context, limits, .. } = broker.as_ref().unwrap();
        let advertised = Arc::new(HostPort::parse("broker.example:9092").unwrap());
        let serve = net::attach(context.clone(), limits.clone(), read, write, None, advertised, self.stop.clone());
        self.connections.lock().unwrap().push(self.world.spawn("connection", serve));
        Wire::new(client, ours, self.clone())
    }

    fn record(&self, client: usize, what: String, hash: u64) {
        let micros = (self.world.now() - self.start).as_micros();
        self.trace.lock().unwrap().push(Row { client, micros, what, hash });
    }
}

fn config(seed: u64) -> Config {
    // Stores near and far, and limits that are reached.
    let interval = [0, 20, 250][(seed % 3) as usize];
    let yaml = format!(
        "journal:\n  kind: memory\n  append_deadline_ms: 1000\nbucket:\n  url: \"memory:\"\n\
         produce:\n  flush_interval_ms: {interval}\n  deadline_ms: 5000\n  object_bytes_max: 65536\n\
         fetch:\n  cache_bytes_max: 2097152\n  answer_bytes_max: 1100000\n  response_bytes_max: 1100000\n\
         snapshot:\n  entries_between: 50\n  kept_hours: 0\n"
    );
    Config::from_yaml(&yaml).unwrap()
}

/// What a run leaves behind.
struct Ran {
    rows: Vec<Row>,
    answers: usize,
}

async fn run(seed: u64) -> Ran {
    let world = World::seeded(seed);
    let metrics = Arc::new(Metrics::new(TimestampMs(0)));
    let memory = MemoryBucket::new();
    let bucket = Faulty::new(Arc::new(memory.clone()), world.clone());
    let journal = Arc::new(Uneven::new(world.clone()));
    let (config, near): (_, Arc<dyn Bucket>) = (Arc::new(config(seed)), Arc::new(bucket.clone()));
    let members = Members::alone(BrokerId(1));
    let broker = assemble(&config, &world, &metrics, journal.clone(), near, members).await.unwrap();
    let replica = broker.context.replica.clone();
    let rates =
        Rates { not_done: 60, reply_lost: 60, done_later: 40, refused: 20, hangs: 5, delay_ms_max: 20 + seed % 5 * 30 };
    bucket.set_rates(rates);
    journal.uneven(true);
    let (stop, stopping) = watch::channel(false);
    let harbour = Harbour {
        broker: Arc::new(Mutex::new(Some(broker))),
        start: world.now(),
        world: world.clone(),
        trace: Trace::default(),
        stop: stopping,
        connections: Arc::default(),
    };
    let acked = clients::run(&harbour, seed).await;
    bucket.set_rates(Rates::default());
    journal.uneven(false);
    clients::check(&harbour, acked).await;
    stop.send_replace(true);
    let connections = std::mem::take(&mut *harbour.connections.lock().unwrap());
    for connection in connections {
        connection.await.unwrap();
    }
    let Broker { context, batcher, .. } = harbour.broker.lock().unwrap().take().unwrap();
    drop(context);
    batcher.await.unwrap();
    let answers = harbour.trace.lock().unwrap().len();
    let (header, _) = replica.state().encode_snapshot();
    harbour.record(0, format!("state at {:?}", header.at), header.state_hash);
    for (key, content) in memory.contents() {
        harbour.record(0, key, wire::hash(&content));
    }
    // The labels of one counter are printed in any order.
    let counters = metrics.render(world.wall_ms());
    let counters = counters.lines().filter(|line| line.contains("_total") && !line.contains("process"));
    for counter in std::collections::BTreeSet::from_iter(counters) {
        harbour.record(0, counter.to_owned(), 0);
    }
    let rows = harbour.trace.lock().unwrap().clone();
    Ran { rows, answers }
}

/// Each run has a runtime of its own, on which nothing happens but what the world lets happen.
fn run_alone(seed: u64) -> Ran {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        // Clients that wait for each other for ever would hang the test on a clock that runs away.
        tokio::time::timeout(Duration::from_secs(6 * 3600), run(seed))
            .await
            .unwrap_or_else(|_| panic!("seed {seed} hangs"))
    })
}

fn seeds() -> std::ops::Range<u64> {
    let given = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match given("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..given("SEEDS").unwrap_or(10),
    }
}

#[test]
fn a_seed_gives_one_history() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in seeds() {
        let (one, two) = (run_alone(seed), run_alone(seed));
        assert!(one.answers >= OPERATIONS, "seed {seed}: {} answers", one.answers);
        if let Some(at) = (0..one.rows.len().max(two.rows.len())).find(|at| one.rows.get(*at) != two.rows.get(*at)) {
            let around = |ran: &Ran| format!("{:#?}", &ran.rows[at.saturating_sub(2)..(at + 2).min(ran.rows.len())]);
            panic!("seed {seed}: the runs differ from row {at} on:\n{}\n{}", around(&one), around(&two));
        }
        let hash = wire::hash(format!("{:?}", one.rows).as_bytes());
        // Read by the test below.
        println!("{HISTORY}{hash:016x}");
        hashes.insert(hash);
    }
    assert_eq!(hashes.len() as u64, seeds().end - seeds().start, "each seed has its own history");
}

const HISTORY: &str = "history: ";

#[test]
fn another_process_gives_the_same_history() {
    let history = || {
        let mut process = Command::new(std::env::current_exe().unwrap());
        process.args(["--exact", "a_seed_gives_one_history", "--nocapture"]).env("SEED", "4");
        let output = String::from_utf8(process.output().unwrap().stdout).unwrap();
        output.lines().find_map(|line| line.split_once(HISTORY)).map(|(_, hash)| hash.to_owned()).expect("it passes")
    };
    assert_eq!(history(), history());
}
