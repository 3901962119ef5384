//! Kafka 4.3's topic settings, all 33, and one of ours: name, type, range, and the broker setting that gives the
//! default. Types and ranges are those that a running Kafka describes and enforces; `tests.rs` has its answers.
use crate::config::kafka::{REPLICAS, SEGMENTS, TIERS};
use crate::config::setting::Effect;
use crate::config::value::Kind;
use crate::config::{Config, Validation};

/// One topic setting.
pub struct TopicSetting {
    pub name: &'static str,
    pub kind: Kind,
    pub min: Option<i64>,
    pub max: Option<i64>,
    /// Allowed beside the range.
    pub or: Option<i64>,
    /// The broker settings that give the default, the finest first; empty where it is fixed.
    pub synonyms: &'static [&'static str],
    pub effect: Effect,
    pub doc: &'static str,
    /// The value that a topic without its own has.
    pub default: fn(&Config) -> String,
}

const WORKS: Effect = Effect::Works;
const DURABLE: Effect = Effect::None("every acknowledged record is durable");
const RANGE: Range = (None, None, None);
type Range = (Option<i64>, Option<i64>, Option<i64>);

const fn least(min: i64) -> Range {
    (Some(min), None, None)
}

const fn between(min: i64, max: i64) -> Range {
    (Some(min), Some(max), None)
}

const fn row(
    (name, synonyms): (&'static str, &'static [&'static str]),
    kind: Kind,
    (min, max, or): Range,
    default: fn(&Config) -> String,
    effect: Effect,
    doc: &'static str,
) -> TopicSetting {
    TopicSetting { name, kind, min, max, or, synonyms, effect, doc, default }
}

/// The default is a broker setting.
macro_rules! broker {
    ($field:ident) => {
        |config: &Config| crate::config::value::Value::text(&config.kafka.$field).unwrap_or_default()
    };
}

/// The default is a fixed text.
macro_rules! fixed {
    ($text:literal) => {
        |_: &Config| $text.to_owned()
    };
}

const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
const VALIDATIONS: &[&str] = &[Validation::Header.name(), Validation::Full.name()];

/// All topic settings, sorted by name.
pub static TABLE: &[TopicSetting] = &[
    row(
        ("cleanup.policy", &["log.cleanup.policy"]),
        Kind::Choices(&["compact", "delete"]),
        RANGE,
        broker!(log_cleanup_policy),
        WORKS,
        "What happens to old records: `delete` by age and size, `compact` to the last of each key, or both. Empty keeps everything. `compact` is not in effect yet: alone it keeps everything too.",
    ),
    row(
        ("compression.gzip.level", &["compression.gzip.level"]),
        Kind::Int,
        (Some(1), Some(9), Some(-1)),
        broker!(compression_gzip_level),
        WORKS,
        "Level for gzip, where `compression.type` is gzip.",
    ),
    row(
        ("compression.lz4.level", &["compression.lz4.level"]),
        Kind::Int,
        between(1, 17),
        broker!(compression_lz4_level),
        WORKS,
        "Level for lz4, where `compression.type` is lz4.",
    ),
    row(
        ("compression.type", &["compression.type"]),
        Kind::Choice(CODECS),
        RANGE,
        broker!(compression_type),
        WORKS,
        "The codec that batches are stored with; `producer` keeps the producer's.",
    ),
    row(
        ("compression.zstd.level", &["compression.zstd.level"]),
        Kind::Int,
        between(-131_072, 22),
        broker!(compression_zstd_level),
        WORKS,
        "Level for zstd, where `compression.type` is zstd.",
    ),
    row(
        ("delete.retention.ms", &["log.cleaner.delete.retention.ms"]),
        Kind::Long,
        least(0),
        broker!(log_cleaner_delete_retention_ms),
        WORKS,
        "How long tombstones stay readable after compaction has passed them.",
    ),
    row(
        ("file.delete.delay.ms", &["log.segment.delete.delay.ms"]),
        Kind::Long,
        least(0),
        broker!(log_segment_delete_delay_ms),
        Effect::None(SEGMENTS),
        "Delay before a deleted segment's file goes.",
    ),
    row(
        ("flush.messages", &["log.flush.interval.messages"]),
        Kind::Long,
        least(1),
        broker!(log_flush_interval_messages),
        DURABLE,
        "Records between two syncs.",
    ),
    row(
        ("flush.ms", &["log.flush.interval.ms"]),
        Kind::Long,
        least(0),
        |config| config.kafka.log_flush_interval_ms.unwrap_or(i64::MAX).to_string(),
        DURABLE,
        "Time between two syncs.",
    ),
    row(
        ("follower.replication.throttled.replicas", &[]),
        Kind::List,
        RANGE,
        fixed!(""),
        Effect::None(REPLICAS),
        "Replicas whose fetching is throttled, as partition:broker pairs, or `*`.",
    ),
    row(
        ("index.interval.bytes", &["log.index.interval.bytes"]),
        Kind::Int,
        least(0),
        broker!(log_index_interval_bytes),
        Effect::None(SEGMENTS),
        "Bytes between two entries of a segment's index.",
    ),
    row(
        ("leader.replication.throttled.replicas", &[]),
        Kind::List,
        RANGE,
        fixed!(""),
        Effect::None(REPLICAS),
        "Replicas whose sending is throttled, as partition:broker pairs, or `*`.",
    ),
    row(
        ("local.retention.bytes", &["log.local.retention.bytes"]),
        Kind::Long,
        least(-2),
        broker!(log_local_retention_bytes),
        Effect::None(TIERS),
        "Bytes kept on local disk of a tiered topic; -2 is as `retention.bytes`.",
    ),
    row(
        ("local.retention.ms", &["log.local.retention.ms"]),
        Kind::Long,
        least(-2),
        broker!(log_local_retention_ms),
        Effect::None(TIERS),
        "Time kept on local disk of a tiered topic; -2 is as `retention.ms`.",
    ),
    row(
        ("max.compaction.lag.ms", &["log.cleaner.max.compaction.lag.ms"]),
        Kind::Long,
        least(1),
        broker!(log_cleaner_max_compaction_lag_ms),
        WORKS,
        "The longest time that a record may stay uncompacted.",
    ),
    row(
        ("max.message.bytes", &["message.max.bytes"]),
        Kind::Int,
        least(0),
        broker!(message_max_bytes),
        WORKS,
        "The largest record batch, as it is stored.",
    ),
    row(
        ("message.timestamp.after.max.ms", &["log.message.timestamp.after.max.ms"]),
        Kind::Long,
        least(0),
        broker!(log_message_timestamp_after_max_ms),
        WORKS,
        "Records whose time is further in the future than this are refused. Not with LogAppendTime.",
    ),
    row(
        ("message.timestamp.before.max.ms", &["log.message.timestamp.before.max.ms"]),
        Kind::Long,
        least(0),
        broker!(log_message_timestamp_before_max_ms),
        WORKS,
        "Records whose time is further in the past than this are refused. Not with LogAppendTime.",
    ),
    row(
        ("message.timestamp.type", &["log.message.timestamp.type"]),
        Kind::Choice(&["CreateTime", "LogAppendTime"]),
        RANGE,
        broker!(log_message_timestamp_type),
        WORKS,
        "Whose time a record has: the producer's, or that of its arrival.",
    ),
    row(
        ("min.cleanable.dirty.ratio", &["log.cleaner.min.cleanable.ratio"]),
        Kind::Double,
        between(0, 1),
        broker!(log_cleaner_min_cleanable_ratio),
        WORKS,
        "The share of uncompacted bytes at which a partition is compacted.",
    ),
    row(
        ("min.compaction.lag.ms", &["log.cleaner.min.compaction.lag.ms"]),
        Kind::Long,
        least(0),
        broker!(log_cleaner_min_compaction_lag_ms),
        WORKS,
        "The least time that a record stays uncompacted.",
    ),
    row(
        ("min.insync.replicas", &["min.insync.replicas"]),
        Kind::Int,
        least(1),
        broker!(min_insync_replicas),
        Effect::None(REPLICAS),
        "Replicas that must have a record before it is acknowledged with acks=all.",
    ),
    row(
        ("preallocate", &["log.preallocate"]),
        Kind::Bool,
        RANGE,
        broker!(log_preallocate),
        Effect::None(SEGMENTS),
        "Segment files are allocated at full size.",
    ),
    row(
        ("remote.log.copy.disable", &[]),
        Kind::Bool,
        RANGE,
        fixed!("false"),
        Effect::None(TIERS),
        "A tiered topic copies nothing more.",
    ),
    row(
        ("remote.log.delete.on.disable", &[]),
        Kind::Bool,
        RANGE,
        fixed!("false"),
        Effect::None(TIERS),
        "A tiered topic's remote data goes when tiering is turned off.",
    ),
    row(
        ("remote.storage.enable", &[]),
        Kind::Bool,
        RANGE,
        fixed!("false"),
        Effect::None(TIERS),
        "Makes the topic tiered. Refused, as by a Kafka without tiering.",
    ),
    row(
        ("retention.bytes", &["log.retention.bytes"]),
        Kind::Long,
        RANGE,
        broker!(log_retention_bytes),
        WORKS,
        "Bytes of a partition beyond which the oldest are deleted; -1 is no limit.",
    ),
    row(
        ("retention.ms", &["log.retention.ms", "log.retention.minutes", "log.retention.hours"]),
        Kind::Long,
        least(-1),
        |config| config.kafka.retention_ms().to_string(),
        WORKS,
        "Age at which records are deleted; -1 is never.",
    ),
    row(
        ("segment.bytes", &["log.segment.bytes"]),
        Kind::Int,
        least(1_048_576),
        broker!(log_segment_bytes),
        Effect::None(SEGMENTS),
        "Size of Kafka's segment files.",
    ),
    row(
        ("segment.index.bytes", &["log.index.size.max.bytes"]),
        Kind::Int,
        least(4),
        broker!(log_index_size_max_bytes),
        Effect::None(SEGMENTS),
        "Size of a segment's index.",
    ),
    row(
        ("segment.jitter.ms", &["log.roll.jitter.ms", "log.roll.jitter.hours"]),
        Kind::Long,
        least(0),
        |config| config.kafka.roll_jitter_ms().to_string(),
        Effect::None(SEGMENTS),
        "Random part of `segment.ms`.",
    ),
    row(
        ("segment.ms", &["log.roll.ms", "log.roll.hours"]),
        Kind::Long,
        least(1),
        |config| config.kafka.roll_ms().to_string(),
        Effect::None(SEGMENTS),
        "Age of Kafka's segment files.",
    ),
    row(
        ("strandline.validation", &[]),
        Kind::Choice(VALIDATIONS),
        RANGE,
        |config| config.produce.validation_default.name().to_owned(),
        WORKS,
        "How deep a batch is checked before it is stored: `header` believes what compressed records say, `full` walks every record. The default is the broker's `produce.validation_default`.",
    ),
    row(
        ("unclean.leader.election.enable", &["unclean.leader.election.enable"]),
        Kind::Bool,
        RANGE,
        broker!(unclean_leader_election_enable),
        Effect::None(REPLICAS),
        "A replica that lags may become leader, with loss.",
    ),
];
