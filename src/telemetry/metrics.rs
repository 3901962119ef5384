//! Every number that the broker publishes, a struct per room, as resolved handles: `metrics.produce.in_bytes.inc_by(n)`.
//! The doc comment of a field is its help text. Names are `strandline_<room>_<field>`, with the unit last and `_total`
//! added to counters by the encoder.
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
pub use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::cleaning::Cleaning;
use super::lags::Lags;
use super::process;
use super::requests::Net;
use crate::types::{KafkaError, TimestampMs};

/// A gauge with fractions.
pub type GaugeF64 = Gauge<f64, AtomicU64>;

/// Latencies: 0.5 ms to 65 s, each bucket twice the one before.
pub(super) fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 18))
}

/// Sizes: 256 B to 256 MiB, each bucket four times the one before.
fn bytes() -> Histogram {
    Histogram::new(exponential_buckets(256.0, 4.0, 11))
}

/// Declares a room's metrics: the struct, and its registration under `strandline_<room>_`.
macro_rules! room {
    ($(#[doc = $room_doc:literal])* $name:ident, $room:literal {
        $($(#[doc = $doc:literal])* $field:ident: $ty:ty $(= $make:expr)?,)*
    }) => {
        $(#[doc = $room_doc])*
        pub struct $name {
            $($(#[doc = $doc])* pub $field: $ty,)*
        }

        impl $name {
            pub(super) const NAMES: &'static [&'static str] = &[$(concat!("strandline_", $room, "_", stringify!($field))),*];

            pub(super) fn register(registry: &mut Registry) -> Self {
                let room = registry.sub_registry_with_prefix($room);
                $(
                    let $field: $ty = room!(@make $($make)?);
                    room.register(stringify!($field), concat!($($doc),*).trim().trim_end_matches('.'), $field.clone());
                )*
                Self { $($field,)* }
            }
        }
    };
    (@make) => { Default::default() };
    (@make $make:expr) => { $make };
}
pub(super) use room;

/// Labels of one kind of request to the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BucketLabels {
    /// `create`, `read`, `list` or `delete`.
    pub operation: &'static str,
    /// The `store::Purpose`, in lower case.
    pub purpose: &'static str,
    /// `done`, `taken`, `not_found`, `refused`, `unknown` or `damaged`.
    pub outcome: &'static str,
}

/// As [`BucketLabels`], without the outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BucketWork {
    pub operation: &'static str,
    pub purpose: &'static str,
}

/// Why something happened; a small fixed set per metric.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiVersionLabels {
    pub api: &'static str,
    pub version: i16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiLabels {
    pub api: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ErrorLabels {
    pub api: &'static str,
    pub code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedLabels {
    /// Kafka's error.
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LevelLabels {
    pub level: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct JobLabels {
    pub level: u8,
    pub result: &'static str,
}

room! {
    /// Requests to the object store.
    Bucket, "bucket" {
        /// Requests to the bucket, by operation, purpose and outcome.
        requests: Family<BucketLabels, Counter>,
        /// Bytes sent to or read from the bucket, by operation and purpose.
        bytes: Family<BucketWork, Counter>,
        /// Time of a request to the bucket, retries included.
        request_seconds: Family<BucketWork, Histogram> = Family::new_with_constructor(seconds),
        /// Attempts that were repeated after an ambiguous or refused answer.
        retries: Counter,
        /// 1 while the bucket does not answer, else 0.
        outage: Gauge,
    }
}

room! {
    /// The ordered log.
    Journal, "journal" {
        /// Entries that this broker appended.
        appends: Counter,
        /// Appends that failed, by reason (not_done, unknown, forked, trimmed).
        append_errors: Family<Reason, Counter>,
        /// Time from handing an entry to the journal to its answer.
        append_seconds: Histogram = seconds(),
        /// Payload bytes of an entry.
        entry_bytes: Histogram = bytes(),
        /// Commands in an entry (group commit).
        entry_commands: Histogram = Histogram::new(exponential_buckets(1.0, 2.0, 13)),
        /// Position of the last entry that this broker has applied.
        head_position: Gauge,
        /// Position below which the journal was trimmed.
        trimmed_position: Gauge,
        /// Times that this broker loaded a snapshot while it ran, since the journal was trimmed beyond what it had applied.
        reloads: Counter,
        /// Commands that wait for the append in flight to end.
        queued_commands: Gauge,
        /// 1 if a fork of the journal's history was found: this broker acknowledges nothing until it is resolved.
        forked: Gauge,
        /// 1 while what the journal's server commits is on one machine only, as far as its settings say (`postgres`).
        unreplicated: Gauge,
    }
}

room! {
    /// The path of records into the bucket.
    Produce, "produce" {
        /// Bytes of record batches received.
        in_bytes: Counter,
        /// Records received.
        in_records: Counter,
        /// Record batches refused, by reason (Kafka's error).
        refused_batches: Family<RefusedLabels, Counter>,
        /// Flushes, by what let them go (size, interval, idle, buffer, drain).
        flushes: Family<Reason, Counter>,
        /// Bytes of record data in one flush.
        flush_bytes: Histogram = bytes(),
        /// Partitions in one flush.
        flush_partitions: Histogram = Histogram::new(exponential_buckets(1.0, 4.0, 9)),
        /// PUTs of this path that are in flight.
        puts_in_flight: Gauge,
        /// Second copies of PUTs that took unusually long.
        hedged_puts: Counter,
        /// Those that were there before the first.
        hedges_won: Counter,
        /// Memory pinned by batches that are not committed yet, in bytes (allocations, not slices).
        buffered_bytes: Gauge,
        /// Requests that wait for room in the buffer.
        waiting_requests: Gauge,
        /// Time from a flush's PUT having ended to its entry applied.
        commit_seconds: Histogram = seconds(),
        /// Time from a batch buffered to its outcome known.
        ack_seconds: Histogram = seconds(),
    }
}

room! {
    /// The path of records out of the bucket.
    Fetch, "fetch" {
        /// Bytes of record batches sent.
        out_bytes: Counter,
        /// Records sent; counted by batch, so those before the asked offset in the first batch are included.
        out_records: Counter,
        /// Fetches that wait for data to arrive.
        waiting_requests: Gauge,
        /// Reads of the bucket for consumers that are behind.
        cold_reads: Counter,
        /// Cold reads in flight.
        cold_reads_in_flight: Gauge,
        /// Fetch sessions (KIP-227).
        sessions: Gauge,
        /// Memory pinned by answers that their clients have not read yet, in bytes.
        answer_bytes: Gauge,
    }
}

room! {
    /// Objects in memory.
    Cache, "cache" {
        /// Reads answered from memory.
        hits: Counter,
        /// Reads that had to ask a neighbour or the bucket.
        misses: Counter,
        /// Objects that another broker of the zone gave.
        given: Counter,
        /// Objects that came damaged from another broker, and were read from the bucket.
        given_damaged: Counter,
        /// Runs of compacted objects that were loaded before a reader asked for them.
        read_ahead: Counter,
        /// Times that another broker was asked for an object and did not have it, or did not answer.
        asked_in_vain: Counter,
        /// Bytes held, by the size of allocations.
        bytes: Gauge,
    }
}

room! {
    /// The metadata that this broker holds in memory.
    State, "state" {
        /// Topics.
        topics: Gauge,
        /// Partitions of all topics.
        partitions: Gauge,
        /// Runs in the tails of all partitions.
        runs: Gauge,
        /// Objects that State names.
        objects: Gauge,
        /// Producer states (one per producer and partition).
        producers: Gauge,
        /// Consumer groups.
        groups: Gauge,
        /// Committed offsets, one per group and partition.
        group_offsets: Gauge,
        /// Bytes of the members and assignments of all groups.
        group_bytes: Gauge,
        /// Transactional ids.
        transactional_ids: Gauge,
        /// Transactions that are open.
        open_transactions: Gauge,
        /// Age of the transaction that is open for the longest time.
        longest_transaction_seconds: GaugeF64,
        /// Time to apply one entry.
        apply_seconds: Histogram = Histogram::new(exponential_buckets(0.000_01, 4.0, 10)),
    }
}

room! {
    /// Transactions that this broker ended as a coordinator.
    Transactions, "transactions" {
        /// Transactions that their producers committed.
        committed: Counter,
        /// Transactions that were aborted, by reason (client, timeout, operator).
        aborted_by: Family<Reason, Counter>,
    }
}

room! {
    /// Snapshots of State in the bucket.
    Snapshot, "snapshot" {
        /// Snapshots written.
        written: Counter,
        /// Snapshots that failed.
        failed: Counter,
        /// Time to write a snapshot.
        write_seconds: Histogram = seconds(),
        /// Bytes of the newest snapshot.
        newest_bytes: Gauge,
        /// Position of the newest snapshot.
        newest_position: Gauge,
        /// Age of the newest snapshot in the bucket; where there is none, the time since this broker started.
        newest_age_seconds: GaugeF64,
    }
}

room! {
    /// What keeps the bucket to what retention allows. Counted by the broker that does it for all, but for what is dead.
    Upkeep, "upkeep" {
        /// Bytes of runs that are past their topics' retention and still there, as of the last look.
        overdue_bytes: Gauge,
        /// Runs that are past their topics' retention and still there, as of the last look.
        overdue_runs: Gauge,
        /// Bytes that retention gave up.
        expired_bytes: Counter,
        /// Objects that nothing refers to and that are not deleted yet.
        dead_objects: Gauge,
        /// Bytes of objects that nothing refers to and that are not deleted yet.
        dead_bytes: Gauge,
        /// Objects deleted, by what they were (dead, orphan).
        deleted_objects: Family<Reason, Counter>,
        /// Bytes of objects deleted, by what they were (dead, orphan).
        deleted_bytes: Family<Reason, Counter>,
        /// Deletions that the bucket refused or did not answer; they are tried again.
        failed_deletions: Counter,
        /// Objects that no entry names and that are old enough to be deleted, as of the last sweep, less those that it deleted.
        orphans: Gauge,
        /// Bytes of objects that no entry names and that are old enough to be deleted, as of the last sweep, less those that
        /// it deleted.
        orphan_bytes: Gauge,
        /// Times that the bucket was listed for orphans.
        sweeps: Counter,
        /// Times that logs and bucket were audited.
        audits: Counter,
        /// What the last audit found: records that are lost, or will be.
        audit_problems: Gauge,
        /// Objects that no entry names and that are old enough that the sweep should have deleted them, as of the last audit.
        audit_leftovers: Gauge,
        /// Objects whose writers had applied less than this position are refused.
        horizon_position: Gauge,
    }
}

room! {
    /// Objects that become larger ones.
    Compaction, "compaction" {
        /// Objects of flushes that wait to be compacted.
        backlog_objects: Gauge,
        /// Runs in them that partitions hold.
        backlog_runs: Gauge,
        /// Bytes of them.
        backlog_bytes: Gauge,
        /// Objects of the first level, which wait until there are enough to be merged.
        unmerged_objects: Gauge,
        /// Jobs of this broker that ended, by level of what they made and by result (done, in_vain, failed).
        jobs: Family<JobLabels, Counter>,
        /// Time of a job that was done.
        job_seconds: Histogram = seconds(),
        /// Bytes that were read from the bucket, by level of what was made of them.
        read_bytes: Family<LevelLabels, Counter>,
        /// Bytes that were written, by their level.
        written_bytes: Family<LevelLabels, Counter>,
        /// Shares of partitions that had changed meanwhile, and were dropped.
        dropped_shares: Counter,
    }
}

room! {
    /// Connections and requests; [`Net`] adds the handles per API.
    NetTotals, "net" {
        /// Open client connections.
        connections: Gauge,
        /// Connections accepted.
        accepted_connections: Counter,
        /// Connections refused or closed by this broker, by reason (limit, idle, frame, stalled, memory, client, stop).
        closed_connections: Family<Reason, Counter>,
        /// Frames refused, by reason (size, verifier, header, version).
        refused_frames: Family<Reason, Counter>,
        /// Requests received, by API and version.
        requests: Family<ApiVersionLabels, Counter>,
        /// Time from a request's last byte received to its answer handed to the socket, by API.
        request_seconds: Family<ApiLabels, Histogram> = Family::new_with_constructor(seconds),
        /// Bytes of requests, by API.
        request_bytes: Family<ApiLabels, Counter>,
        /// Bytes of answers, by API.
        response_bytes: Family<ApiLabels, Counter>,
        /// Kafka errors answered, by API and code.
        errors: Family<ErrorLabels, Counter>,
        /// Requests of all connections that are being served.
        requests_in_flight: Gauge,
        /// Memory pinned by request frames, in bytes.
        frame_bytes: Gauge,
    }
}

room! {
    /// The brokers of the cluster, as this one sees them.
    Cluster, "cluster" {
        /// Brokers that take part.
        members: Gauge,
        /// 1 while clients may stay at this broker; 0 while it drains, or has not heard of the journal for long.
        serves: Gauge,
        /// Brokers that are fenced for their silence and did not come back.
        fenced_brokers: Gauge,
        /// How far the clock of this broker is from the median of the brokers', in ms, give or take their last heartbeat. Over
        /// a minute, and the fencing time, it lets nothing expire.
        clock_apart_ms: Gauge,
    }
}

room! {
    /// The process.
    Process, "process" {
        /// Resident memory, in bytes (Linux; else 0).
        resident_bytes: Gauge,
        /// Open files and sockets (Linux; else 0).
        open_files: Gauge,
        /// When this process started, in seconds since the Unix epoch.
        start_time_seconds: GaugeF64,
    }
}

/// The names of all metrics, as the scrape's help lines have them (counters end in `_total` besides).
pub fn names() -> impl Iterator<Item = &'static str> {
    let rooms = [
        Bucket::NAMES,
        Journal::NAMES,
        Produce::NAMES,
        Fetch::NAMES,
        Cache::NAMES,
        State::NAMES,
        Transactions::NAMES,
        Snapshot::NAMES,
        Upkeep::NAMES,
        Compaction::NAMES,
        Cleaning::NAMES,
        NetTotals::NAMES,
        Cluster::NAMES,
        Process::NAMES,
        Lags::NAMES,
    ];
    rooms.into_iter().flatten().copied()
}

impl Bucket {
    /// Counts one request to the bucket that took `seconds` and moved `bytes`.
    pub fn observe(&self, labels: &BucketLabels, seconds: f64, bytes: u64) {
        self.requests.get_or_create(labels).inc();
        let work = BucketWork { operation: labels.operation, purpose: labels.purpose };
        self.bytes.get_or_create(&work).inc_by(bytes);
        self.request_seconds.get_or_create(&work).observe(seconds);
    }
}

impl Compaction {
    /// Counts a job that ended.
    pub fn ended(&self, level: u8, result: &'static str) {
        self.jobs.get_or_create(&JobLabels { level, result }).inc();
    }

    /// Counts what a job read and wrote.
    pub fn moved(&self, level: u8, read: u64, written: u64) {
        self.read_bytes.get_or_create(&LevelLabels { level }).inc_by(read);
        self.written_bytes.get_or_create(&LevelLabels { level }).inc_by(written);
    }
}

impl Transactions {
    /// Counts a transaction that was aborted.
    pub fn aborted(&self, reason: &'static str) {
        self.aborted_by.get_or_create(&Reason { reason }).inc();
    }
}

impl Upkeep {
    /// Counts an object of `bytes` bytes that was deleted.
    pub fn deleted(&self, what: &'static str, bytes: u64) {
        let reason = Reason { reason: what };
        self.deleted_objects.get_or_create(&reason).inc();
        self.deleted_bytes.get_or_create(&reason).inc_by(bytes);
    }
}

impl Produce {
    /// Counts a batch that was refused.
    pub fn refused(&self, error: KafkaError) {
        self.refused_batches.get_or_create(&RefusedLabels { reason: format!("{error:?}") }).inc();
    }

    /// Counts one flush.
    pub fn flushed(&self, reason: &'static str, bytes: u64, partitions: usize) {
        self.flushes.get_or_create(&Reason { reason }).inc();
        #[expect(clippy::cast_precision_loss, reason = "a histogram's buckets are coarser than 2^-52")]
        self.flush_bytes.observe(bytes as f64);
        #[expect(clippy::cast_precision_loss, reason = "a histogram's buckets are coarser than 2^-52")]
        self.flush_partitions.observe(partitions as f64);
    }
}

/// All metrics of one broker; shared by `Arc`. Two brokers in one process (the simulation) have one each.
pub struct Metrics {
    registry: Registry,
    started: TimestampMs,
    /// When the newest snapshot was written, in ms since the Unix epoch; [`NEVER`] before the first.
    snapshot_at_ms: AtomicI64,
    pub bucket: Bucket,
    pub journal: Journal,
    pub produce: Produce,
    pub fetch: Fetch,
    pub cache: Cache,
    pub state: State,
    pub transactions: Transactions,
    pub snapshot: Snapshot,
    pub upkeep: Upkeep,
    pub compaction: Compaction,
    pub cleaning: Cleaning,
    pub net: Net,
    pub cluster: Cluster,
    pub process: Process,
    pub lags: Lags,
}

const NEVER: i64 = i64::MIN;

impl Metrics {
    /// All metrics at zero. `started` is the wall-clock time of the process's start.
    #[must_use]
    pub fn new(started: TimestampMs) -> Self {
        let mut registry = Registry::with_prefix("strandline");
        let (bucket, journal) = (Bucket::register(&mut registry), Journal::register(&mut registry));
        let (produce, fetch) = (Produce::register(&mut registry), Fetch::register(&mut registry));
        let (cache, state) = (Cache::register(&mut registry), State::register(&mut registry));
        let transactions = Transactions::register(&mut registry);
        let (snapshot, net) = (Snapshot::register(&mut registry), Net::register(&mut registry));
        let (compaction, cleaning) = (Compaction::register(&mut registry), Cleaning::register(&mut registry));
        let (cluster, process) = (Cluster::register(&mut registry), Process::register(&mut registry));
        let (upkeep, lags) = (Upkeep::register(&mut registry), Lags::register(&mut registry));
        process.start_time_seconds.set(seconds_of(started.0));
        let snapshot_at_ms = AtomicI64::new(NEVER);
        Self {
            registry,
            started,
            snapshot_at_ms,
            bucket,
            journal,
            produce,
            fetch,
            cache,
            state,
            transactions,
            snapshot,
            upkeep,
            compaction,
            cleaning,
            net,
            cluster,
            process,
            lags,
        }
    }

    /// Notes that the newest snapshot in the bucket was written at `at`: by this broker now, or found at start.
    pub fn snapshot_newest(&self, at: TimestampMs) {
        self.snapshot_at_ms.fetch_max(at.0, Ordering::Relaxed);
    }

    /// The text that Prometheus scrapes (OpenMetrics), as of `now`.
    #[must_use]
    pub fn render(&self, now: TimestampMs) -> String {
        let newest = self.snapshot_at_ms.load(Ordering::Relaxed);
        let since = if newest == NEVER { self.started.0 } else { newest };
        self.snapshot.newest_age_seconds.set(seconds_of(now.0.saturating_sub(since).max(0)));
        let (resident, files) = process::usage();
        self.process.resident_bytes.set(resident);
        self.process.open_files.set(files);
        let mut text = String::new();
        // Writing to a String can't fail, and an encoder that does leaves a text that lacks its end mark.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 ms are 285,000 years")]
fn seconds_of(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_prefix_and_a_help_text() {
        let text = Metrics::new(TimestampMs(0)).render(TimestampMs(0));
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            assert!(line.starts_with("strandline_"), "{line}");
        }
        assert!(text.contains("# HELP strandline_produce_in_bytes Bytes of record batches received.\n"), "{text}");
        assert!(text.contains("strandline_produce_in_bytes_total 0\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_snapshots_age_is_that_of_the_scrape() {
        let metrics = Metrics::new(TimestampMs(1_000));
        assert!(metrics.render(TimestampMs(3_500)).contains("strandline_snapshot_newest_age_seconds 2.5\n"));
        metrics.snapshot_newest(TimestampMs(3_000));
        assert!(metrics.render(TimestampMs(3_500)).contains("strandline_snapshot_newest_age_seconds 0.5\n"));
    }
}
