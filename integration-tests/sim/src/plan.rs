//! What a seed decides about a run: how many brokers, how they are set up, how far apart everything is, and what may go
//! wrong how often.
use std::collections::BTreeMap;
use std::time::Duration;
use strandline::world::World;

use crate::faults::Fault;

/// See the module.
#[derive(Clone, Debug)]
pub struct Plan {
    pub brokers: i32,
    /// How long clients work under faults.
    pub length: Duration,
    pub network_delay_ms: u64,
    pub bucket_delay_ms: u64,
    pub journal_delay_ms: u64,
    /// Chances of 1,000 that a task that could go on lets others go first.
    pub yields: u32,
    /// Chances of 10,000 per opportunity: for what happens to requests and bytes.
    pub rates: BTreeMap<Fault, u64>,
    /// What is done to brokers and links now and then, and the mean time between two such events.
    pub events: Vec<Fault>,
    pub between_events: Duration,
    /// After this silence a broker is missed.
    pub fencing: Duration,
    pub tidy_after: Tidy,
    /// The brokers' configuration, but for who they are.
    pub yaml: String,
}

/// How long after the last fault nothing is left in the bucket of what nobody needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tidy {
    /// Of objects that nothing refers to any more.
    pub dead: Option<Duration>,
    /// Of objects that no entry names.
    pub orphans: Option<Duration>,
}

/// What may befall a request, an answer or a connection, and the highest chance in 10,000 that a seed gives it.
const BY_CHANCE: [(Fault, u64); 22] = [
    (Fault::ConnectionCut, 60),
    (Fault::HalfOpen, 20),
    (Fault::ConnectHangs, 300),
    (Fault::BucketSlow, 300),
    (Fault::BucketConflict, 200),
    (Fault::BucketPrecondition, 200),
    (Fault::BucketError, 300),
    (Fault::BucketBusy, 400),
    (Fault::BucketDoneThenBusy, 300),
    (Fault::BucketDoneThenConflict, 200),
    (Fault::BucketReset, 200),
    (Fault::BucketReplyLost, 300),
    (Fault::BucketDoneLater, 100),
    (Fault::BucketHangs, 60),
    (Fault::BucketCut, 200),
    (Fault::BucketNoConnection, 300),
    (Fault::JournalSlow, 200),
    (Fault::JournalNotDone, 200),
    (Fault::JournalLost, 150),
    (Fault::JournalReplyLost, 200),
    (Fault::JournalDoneLater, 150),
    (Fault::JournalHangs, 60),
];

/// The same, for what is about reading.
const READS_BY_CHANCE: [(Fault, u64); 4] = [
    (Fault::JournalReadFails, 300),
    (Fault::JournalHeadFails, 200),
    (Fault::JournalNoticeLate, 2_000),
    (Fault::BucketCorrupt, 200),
];

/// What a run may have much of, so that what needs several mishaps at once happens too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Storm {
    Bucket,
    Journal,
    Crashes,
}

/// How much more often than else a fault happens in a storm of its kind.
const STORM: u64 = 20;
/// The most of it: a store that does hardly anything else shows little.
const STORM_RATE_MAX: u64 = 1_500;

impl Storm {
    fn has(self, fault: Fault) -> bool {
        match self {
            // Damage on the way comes again and again only where all is lost.
            Self::Bucket => (Fault::BucketSlow..=Fault::BucketFull).contains(&fault) && fault != Fault::BucketCorrupt,
            Self::Journal => (Fault::JournalSlow..=Fault::JournalFull).contains(&fault),
            Self::Crashes => matches!(fault, Fault::Crash | Fault::PowerLoss | Fault::Replaced | Fault::Stop),
        }
    }
}

/// What is done to brokers and links.
const EVENTS: [Fault; 10] = [
    Fault::Crash,
    Fault::PowerLoss,
    Fault::Stop,
    Fault::Pause,
    Fault::Replaced,
    Fault::ClientPartition,
    Fault::JournalPartition,
    Fault::BucketPartition,
    Fault::ClockJump,
    Fault::BucketFull,
];

impl Plan {
    /// The plan of `seed`.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        // A world of its own: what a plan draws must not shift what the run draws.
        let chance = World::seeded(seed ^ 0x5eed);
        let draw = |bound| chance.random_below(bound);
        let pick = |choices: &[u64]| choices[draw(choices.len() as u64) as usize];
        let storm = [None, None, Some(Storm::Bucket), Some(Storm::Journal), Some(Storm::Crashes)][draw(5) as usize];
        let in_storm = |fault| storm.is_some_and(|storm| storm.has(fault));
        let mut rates = BTreeMap::new();
        for (fault, highest) in BY_CHANCE.iter().chain(&READS_BY_CHANCE) {
            // Half of them are on, most of them mildly, so that the system gets somewhere.
            if draw(2) == 0 {
                let rate = 1 + draw(pick(&[*highest / 8, *highest / 3, *highest]).max(1));
                let rate = if in_storm(*fault) { (rate * STORM).min(STORM_RATE_MAX.max(rate)) } else { rate };
                rates.insert(*fault, rate);
            }
        }
        let mut events: Vec<Fault> = EVENTS.into_iter().filter(|event| in_storm(*event) || draw(2) == 0).collect();
        // Every run has a crash.
        if !events.contains(&Fault::Crash) {
            events.push(Fault::Crash);
        }
        if draw(3) == 0 {
            events.push(Fault::JournalFull);
        }
        if draw(3) == 0 {
            events.push(Fault::ClockSkew);
        }
        let mut plan = Self {
            brokers: pick(&[1, 2, 2, 3, 3]) as i32,
            length: Duration::from_secs(62 + draw(20)),
            network_delay_ms: pick(&[1, 2, 10, 40]),
            bucket_delay_ms: pick(&[2, 20, 60, 200]),
            journal_delay_ms: pick(&[1, 5, 20]),
            yields: pick(&[0, 20, 200]) as u32,
            rates,
            events,
            between_events: Duration::from_millis(match storm {
                Some(Storm::Crashes) => 1_500,
                _ => pick(&[4_000, 8_000, 14_000]),
            }),
            fencing: Duration::ZERO,
            tidy_after: Tidy::default(),
            yaml: String::new(),
        };
        // Staleness is less than a third of the shortest session.
        let (fencing_ms, staleness_ms) = [(1_500, 800), (4_000, 900), (12_000, 900)][draw(3) as usize];
        plan.fencing = Duration::from_millis(fencing_ms);
        plan.yaml = yaml(&pick, &draw, storm, (fencing_ms, staleness_ms));
        let (upkeep, tidy_after) = upkeep(&draw);
        plan.yaml.push_str(&upkeep);
        plan.tidy_after = tidy_after;
        if draw(6) == 0 {
            plan.events.push(Fault::Fork);
            plan.yaml = plan.yaml.replace("cluster:\n", "cluster:\n  witness_interval_ms: 500\n");
        }
        if draw(3) == 0 {
            plan.events.push(Fault::JournalAway);
        }
        plan.yaml.push_str(&compaction(&pick));
        plan
    }

    /// A plan in which nothing goes wrong.
    #[must_use]
    pub fn calm(seed: u64) -> Self {
        Self { rates: BTreeMap::new(), events: Vec::new(), ..Self::of(seed) }
    }
}

/// What nobody needs goes soon, or stays.
fn upkeep(draw: &impl Fn(u64) -> u64) -> (String, Tidy) {
    const LONG_MS: u64 = 86_400_000;
    let grace_ms = [400, 3_000, LONG_MS][draw(3) as usize];
    let (age_ms, sweep_ms) = [(1_500, 1_000), (4_000, 2_000), (LONG_MS, LONG_MS)][draw(3) as usize];
    let text = format!(
        "upkeep:\n  garbage_grace_ms: {grace_ms}\n  orphan_age_ms: {age_ms}\n  sweep_interval_ms: {sweep_ms}\n"
    );
    let soon = |ms: u64| (ms < LONG_MS).then(|| Duration::from_millis(ms + 4_000));
    // A sweep that waits for brokers, and the one after it.
    (text, Tidy { dead: soon(2 * grace_ms), orphans: soon(8 * age_ms + 3 * sweep_ms) })
}

/// Small jobs all the time; where nobody waits before taking over, several brokers do one job.
fn compaction(pick: &impl Fn(&[u64]) -> u64) -> String {
    format!(
        "compaction:\n  objects_per_job: {objects}\n  bytes_per_job: {bytes}\n  age_ms_max: {age}\n  rest_ms: {rest}\n  \
         objects_per_merge: {merged}\n  takeover_ms: {takeover}\n",
        objects = pick(&[2, 5, 20]),
        bytes = pick(&[65_536, 1 << 20]),
        age = pick(&[500, 3_000, 10_000]),
        rest = pick(&[0, 500, 3_000]),
        merged = pick(&[2, 3, 6]),
        takeover = pick(&[0, 1_000, 10_000]),
    )
}

/// Stores near and far, limits that are reached, and snapshots and trims all the time.
fn yaml(
    pick: &impl Fn(&[u64]) -> u64,
    draw: &impl Fn(u64) -> u64,
    storm: Option<Storm>,
    (fencing, staleness): (u64, u64),
) -> String {
    format!(
        "journal:\n  kind: memory\n  append_deadline_ms: {append}\n\
         cluster:\n  heartbeat_interval_ms: 300\n  fencing_timeout_ms: {fencing}\n  \
         journal_staleness_max_ms: {staleness}\n  drain_wait_ms: {drain}\n\
         bucket:\n  url: \"memory:\"\n\
         produce:\n  flush_interval_ms: {flush}\n  deadline_ms: {produce}\n  object_bytes_max: {object}\n\
         fetch:\n  cache_bytes_max: {cache}\n  answer_bytes_max: 1100000\n  response_bytes_max: 1100000\n\
         snapshot:\n  entries_between: {entries}\n  kept_hours: 0\n\
         kafka:\n  group.min.session.timeout.ms: 1000\n  group.initial.rebalance.delay.ms: {delay}\n  \
         group.consumer.min.session.timeout.ms: 1000\n  group.consumer.session.timeout.ms: {session}\n  \
         group.consumer.min.heartbeat.interval.ms: 200\n  group.consumer.heartbeat.interval.ms: {heartbeat}\n  \
         producer.id.expiration.ms: {expiry}\n  log.retention.check.interval.ms: 400\n  \
         log.cleaner.backoff.ms: {cleaner}\n",
        append = pick(&[500, 1_000, 5_000]),
        drain = pick(&[0, 500, 3_000]),
        flush = pick(&[0, 20, 250]),
        produce = if storm == Some(Storm::Bucket) { pick(&[1_000, 2_000]) } else { pick(&[5_000, 15_000]) },
        object = pick(&[65_536, 256 << 10, 1 << 20]),
        cache = pick(&[2 << 20, 64 << 20]),
        entries = if storm == Some(Storm::Crashes) { 10 + draw(20) } else { 20 + draw(200) },
        delay = pick(&[0, 500]),
        session = pick(&[3_000, 8_000]),
        heartbeat = pick(&[300, 1_000]),
        cleaner = pick(&[200, 2_000]),
        // A request may lie in front of a broker that stands still as long as a pause is.
        expiry = pick(&[35_000, 86_400_000]),
    )
}
