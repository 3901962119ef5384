//! Builds a broker out of its rooms, from the bucket up.
use std::fs::DirBuilder;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{info, warn};

use super::ServerError;
use crate::api::{Context, ProducerIds, TopicSettingsCache, Unplaced};
use crate::cache::{CacheLimits, Neighbours, ObjectCache};
use crate::cluster::{Membership, Task, Timing};
use crate::compaction::{CleaningLimits, Compactor, Limits as CompactionLimits, Pace as CompactionPace};
use crate::config::zones::AddressZones;
use crate::config::{Config, Entrance, JournalKind};
use crate::disk::make_durable;
use crate::fetch::{AnswerBudget, Fetcher, Sessions};
use crate::group::{GroupSettings, Groups};
use crate::journal::{
    BucketJournal, Journal, MemoryJournal, Observed as ObservedJournal, PollPolicy, PostgresJournal, SqliteJournal,
    Witnesses,
};
use crate::memory::Buffers;
use crate::metadata::{BucketWitnesses, Fatal, Parts, SnapshotPolicy, Started, start};
use crate::net::{Budget, Limits};
use crate::peers::{Dial, Hints, Known, Peers, Tcp};
use crate::produce::{Batcher, FlushRule, PutPolicy};
use crate::state::{BrokerProfile, Endpoint, FEATURE_LEVEL_MAX, Settings};
use crate::store::{Bucket, BucketSettings, open_observed, probe::probe};
use crate::telemetry::Metrics;
use crate::txn::{Expiry, ExpirySettings, Pace};
use crate::types::BrokerId;
use crate::upkeep::Upkeep;
use crate::world::{JoinHandle, World};

/// A broker whose tasks run, and which nobody can reach yet.
pub struct Broker {
    pub context: Arc<Context>,
    pub limits: Limits,
    /// True when others have told the broker to go (`strandline broker drain`).
    pub drained: watch::Receiver<bool>,
    /// Ends when the broker can't go on.
    pub owner: JoinHandle<Result<(), Fatal>>,
    /// Ends after the last answer, when `context` is gone.
    pub batcher: JoinHandle<()>,
}

/// A broker over the journal and the bucket that its configuration names.
pub(super) async fn broker(
    config: &Arc<Config>,
    world: &World,
    metrics: &Arc<Metrics>,
    entrances: &[Entrance],
) -> Result<Broker, ServerError> {
    let (journal, bucket) = stores(config, world, metrics, |bucket| Arc::new(BucketWitnesses(bucket))).await?;
    let journal = Arc::new(ObservedJournal::new(journal, world.clone(), metrics.clone()));
    assemble(config, world, metrics, journal, bucket, Arc::new(Tcp), entrances).await
}

/// The journal and the bucket that the configuration names; a journal that can change its server is held against
/// `witnesses`.
pub(super) async fn stores(
    config: &Config,
    world: &World,
    metrics: &Arc<Metrics>,
    witnesses: impl FnOnce(Arc<dyn Bucket>) -> Arc<dyn Witnesses>,
) -> Result<(Arc<dyn Journal>, Arc<dyn Bucket>), ServerError> {
    create_data_dir(config)?;
    Ok(match config.journal.kind {
        JournalKind::Sqlite => {
            // First the file that tells that another process runs on this directory.
            let journal: Arc<dyn Journal> = Arc::new(SqliteJournal::open(&config.journal_path()).await?);
            (journal, bucket(config, world, metrics).await?)
        }
        JournalKind::Postgres => {
            let bucket = bucket(config, world, metrics).await?;
            let witnesses = witnesses(bucket.clone());
            let opened = PostgresJournal::open(config.into(), world.clone(), metrics.clone(), witnesses);
            let journal: Arc<dyn Journal> = Arc::new(opened.await?);
            (journal, bucket)
        }
        JournalKind::Bucket => {
            let bucket = bucket(config, world, metrics).await?;
            let journal: Arc<dyn Journal> =
                Arc::new(BucketJournal::new(bucket.clone(), world.clone(), poll_policy(config)));
            (journal, bucket)
        }
        JournalKind::Memory => {
            warn!("journal.kind is memory: everything is gone when this process ends");
            let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::default());
            (journal, bucket(config, world, metrics).await?)
        }
    })
}

/// A broker over this journal and bucket, in this world, which clients reach by these `entrances` and which reaches others
/// by `dial`; of its configuration
/// only what is about none of them is used.
///
/// # Errors
/// Every reason for which going on could lose or mix up data.
pub async fn assemble(
    config: &Arc<Config>,
    world: &World,
    metrics: &Arc<Metrics>,
    journal: Arc<dyn Journal>,
    bucket: Arc<dyn Bucket>,
    dial: Arc<dyn Dial>,
    entrances: &[Entrance],
) -> Result<Broker, ServerError> {
    let (profile, settings) = (profile(config, entrances), settings(config));
    let parts = Parts {
        journal,
        bucket: bucket.clone(),
        world: world.clone(),
        metrics: metrics.clone(),
        broker: BrokerId(config.broker_id),
        profile: profile.clone(),
        founding_level: FEATURE_LEVEL_MAX,
        settings,
        snapshots: SnapshotPolicy {
            entries: config.snapshot.entries_between,
            bytes: config.snapshot.bytes_between,
            age_ms: i64::try_from(config.snapshot.age_ms_max).unwrap_or(i64::MAX),
            kept_ms: i64::try_from(config.snapshot.kept_hours.saturating_mul(3_600_000)).unwrap_or(i64::MAX),
        },
        // A journal in the bucket loses nothing that the bucket has.
        witness_interval: (config.journal.kind != JournalKind::Bucket)
            .then(|| Duration::from_millis(config.cluster.witness_interval_ms)),
        append_deadline: Duration::from_millis(config.journal.append_deadline_ms),
    };
    let Started { replica, owner } = start(parts).await?;
    let ms = Duration::from_millis;
    let staleness_max = ms(config.cluster.journal_staleness_max_ms);
    let membership = Membership::new(world.clone(), replica.clone(), staleness_max);
    let (told, drained) = watch::channel(false);
    let timing = Timing { heartbeat: ms(config.heartbeat_interval_ms()), staleness_max };
    let task = Task {
        world: world.clone(),
        replica: replica.clone(),
        membership: membership.clone(),
        timing,
        profile,
        settings,
        drained: told,
    };
    task.start();
    let listener = entrances.first().map(|entrance| entrance.listener.clone()).unwrap_or_default();
    if config.journal.kind == JournalKind::Bucket {
        let (world, replica, membership) = (world.clone(), replica.clone(), membership.clone());
        Hints { world, replica, membership, dial: dial.clone(), listener: listener.clone() }.start();
    }
    let buffers = Buffers::start(world);
    let cache_limits = CacheLimits { bytes: size(config.fetch.cache_bytes_max), loads: config.fetch.cold_reads_max };
    let neighbours = config.fetch.from_neighbours.then(|| {
        let peers = Peers {
            world: world.clone(),
            metrics: metrics.clone(),
            replica: replica.clone(),
            membership: membership.clone(),
            dial,
            listener,
            known: Known::default(),
        };
        Arc::new(peers) as Arc<dyn Neighbours>
    });
    let (room, counted) = (buffers.clone(), metrics.clone());
    let cache = Arc::new(ObjectCache::new(bucket.clone(), neighbours, world.clone(), counted, room, cache_limits));
    let upkeep_bucket = bucket.clone();
    if config.compaction.enabled {
        let compactor = Compactor {
            world: world.clone(),
            replica: replica.clone(),
            membership: membership.clone(),
            bucket: bucket.clone(),
            cache: cache.clone(),
            metrics: metrics.clone(),
            limits: compaction_limits(config),
            pace: CompactionPace {
                bytes_per_second: config.compaction.bytes_per_second_max,
                takeover: ms(config.compaction.takeover_ms),
            },
            cleaning: cleaning_limits(config),
        };
        compactor.start();
    }
    let (producer, batcher) = crate::produce::start(Batcher {
        replica: replica.clone(),
        bucket,
        cache: cache.clone(),
        world: world.clone(),
        metrics: metrics.clone(),
        flush: flush_rule(config),
        put: PutPolicy {
            deadline: Duration::from_millis(config.produce.deadline_ms),
            // Flushes are spaced where PUTs go far; where they don't, a slow one is a busy disk.
            hedge: config.flush_interval_ms() > 0,
        },
    });
    let expiry = Expiry {
        world: world.clone(),
        replica: replica.clone(),
        membership: membership.clone(),
        metrics: metrics.clone(),
        settings: ExpirySettings { ids_ms: i64::from(config.kafka.transactional_id_expiration_ms) },
    };
    expiry.start();
    let upkeep = Upkeep {
        world: world.clone(),
        replica: replica.clone(),
        membership: membership.clone(),
        bucket: upkeep_bucket,
        metrics: metrics.clone(),
        config: config.clone(),
    };
    upkeep.start();
    let slots = usize::try_from(config.kafka.max_incremental_fetch_session_cache_slots).unwrap_or(0);
    let context = Context {
        producer,
        fetcher: Fetcher::new(cache, replica.clone(), world.clone(), size(config.fetch.answer_bytes_max) / 4),
        sessions: Sessions::new(world.clone(), slots),
        answers: AnswerBudget::new(world.clone(), size(config.fetch.answer_bytes_max)),
        producer_ids: ProducerIds::start(world, replica.clone()),
        topic_settings: TopicSettingsCache::new(config.clone()),
        unplaced: Unplaced::default(),
        groups: Groups::start(world, replica.clone(), membership.clone(), group_settings(config)),
        transactions: Pace::new(world.clone()),
        membership,
        address_zones: AddressZones::parse(&config.cluster.zones_by_address).unwrap_or_default(),
        replica,
        config: config.clone(),
        world: world.clone(),
        metrics: metrics.clone(),
    };
    Ok(Broker { context: Arc::new(context), limits: limits(config, buffers), drained, owner, batcher })
}

fn create_data_dir(config: &Config) -> Result<(), ServerError> {
    make_durable(&config.data_dir, &DirBuilder::new()).map_err(|e| {
        let dir = config.data_dir.display();
        ServerError::System(format!("data_dir: {dir} can't be created: {e}; choose another with --data"))
    })
}

/// How often a journal that others tell of their entries is looked at all the same: so much later is one seen whose hint was
/// lost, once.
const TOLD_POLL: Duration = Duration::from_secs(10);

pub(super) fn poll_policy(config: &Config) -> PollPolicy {
    let (fastest, slowest) = (config.journal.bucket_poll_ms_min, config.journal.bucket_poll_ms_max);
    PollPolicy { fastest: Duration::from_millis(fastest), slowest: Duration::from_millis(slowest), told: TOLD_POLL }
}

async fn bucket(config: &Config, world: &World, metrics: &Arc<Metrics>) -> Result<Arc<dyn Bucket>, ServerError> {
    let settings = BucketSettings::from(config);
    let bucket = open_observed(&settings, world.clone(), metrics.clone()).await?;
    probe(&*bucket, world).await?;
    info!(url = settings.url, "bucket has what is relied on");
    if !config.bucket_is_local() && config.journal.kind == JournalKind::Sqlite {
        warn!(
            "the journal is a file on this machine: metadata is as durable as this disk, and after its loss what was \
             written since the newest snapshot in the bucket is lost (strandline_snapshot_newest_age_seconds)"
        );
    }
    Ok(bucket)
}

fn settings(config: &Config) -> Settings {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let limits = &config.limits;
    Settings {
        topics_max: count(limits.topics_max),
        partitions_max: count(limits.partitions_max),
        partitions_per_topic_max: count(limits.partitions_per_topic_max),
        producers_max: count(limits.producers_max),
        producers_per_partition_max: count(limits.producers_per_partition_max),
        producer_expiration_ms: i64::from(config.kafka.producer_id_expiration_ms),
        snapshots_min: u32::try_from(config.snapshot.kept_min).unwrap_or(u32::MAX),
        groups_max: count(limits.groups_max),
        group_offsets_max: count(limits.group_offsets_max),
        group_bytes_max: limits.group_bytes_max,
        transactional_ids_max: count(limits.transactional_ids_max),
        transaction_partitions_max: count(limits.transaction_partitions_max),
        fencing_ms: i64::try_from(config.fencing_timeout_ms()).unwrap_or(i64::MAX),
        garbage_grace_ms: i64::try_from(config.upkeep.garbage_grace_ms).unwrap_or(i64::MAX),
    }
}

/// What the others tell clients of this broker.
fn profile(config: &Config, entrances: &[Entrance]) -> BrokerProfile {
    let endpoint = |entrance: &Entrance| Endpoint {
        listener: entrance.listener.clone(),
        host: entrance.advertised.host.clone(),
        port: entrance.advertised.port.into(),
    };
    BrokerProfile { zone: config.zone.clone().unwrap_or_default(), endpoints: entrances.iter().map(endpoint).collect() }
}

fn compaction_limits(config: &Config) -> CompactionLimits {
    let compaction = &config.compaction;
    let ms = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    CompactionLimits {
        objects: compaction.objects_per_job,
        runs: compaction.runs_per_job,
        bytes: compaction.bytes_per_job,
        age_ms: ms(compaction.age_ms_max),
        rest_ms: ms(compaction.rest_ms),
        merged: compaction.objects_per_merge,
    }
}

fn cleaning_limits(config: &Arc<Config>) -> CleaningLimits {
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    CleaningLimits {
        enabled: config.kafka.log_cleaner_enable,
        keys_bytes: count(config.kafka.log_cleaner_dedupe_buffer_size),
        backoff: Duration::from_millis(count(config.kafka.log_cleaner_backoff_ms)),
        config: config.clone(),
    }
}

fn group_settings(config: &Config) -> GroupSettings {
    GroupSettings { kafka: config.kafka.clone(), id_bytes_max: config.limits.group_id_bytes_max }
}

fn flush_rule(config: &Config) -> FlushRule {
    FlushRule {
        interval: Duration::from_millis(config.flush_interval_ms()),
        object_bytes: size(config.produce.object_bytes_max),
        puts_max: config.produce.puts_in_flight_max,
        puts_unfull_max: config.produce.puts_in_flight_local,
    }
}

fn limits(config: &Config, buffers: Arc<Buffers>) -> Limits {
    let count = |n: i32| usize::try_from(n).unwrap_or(0);
    let idle = u64::try_from(config.kafka.connections_max_idle_ms).ok().map(Duration::from_millis);
    Limits {
        connections_max: config.connections_max(),
        connections_per_address_max: count(config.kafka.max_connections_per_ip),
        frame_bytes_max: count(config.kafka.socket_request_max_bytes),
        pipeline_depth_max: config.net.pipeline_depth_max,
        idle,
        frame_stall: Duration::from_millis(config.net.frame_stall_timeout_ms),
        write_stall: Duration::from_millis(config.net.write_stall_timeout_ms),
        budget: Arc::new(Budget::new(size(config.net.request_bytes_max))),
        buffers,
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
