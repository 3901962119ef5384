//! Kafka's own broker settings, under `kafka:` by their Kafka names, with Kafka 4.3's types, defaults and ranges (its
//! `ConfigDef`s, as a running broker prints them). What is not here is in `foreign.rs`, with a word on why.
use super::setting::section;
use super::value::{Cleanup, choice};

choice!(
    /// Kafka's `compression.type`.
    Compression {
        /// As the producer sent it.
        Producer = "producer",
        Uncompressed = "uncompressed",
        Gzip = "gzip",
        Snappy = "snappy",
        Lz4 = "lz4",
        Zstd = "zstd",
    }
);
choice!(
    /// Kafka's `message.timestamp.type`.
    TimestampType {
        /// The producer's time.
        CreateTime = "CreateTime",
        /// The broker's time when the batch arrived.
        LogAppendTime = "LogAppendTime",
    }
);
choice!(
    /// Which way groups may move between the protocols (KIP-848).
    Migration { Disabled = "disabled", Downgrade = "downgrade", Upgrade = "upgrade", Bidirectional = "bidirectional" }
);

pub(super) const SEGMENTS: &str = "there are no log segment files";
pub(super) const REPLICAS: &str = "the bucket replicates";
pub(super) const TIERS: &str = "all data is in the object store already";

section! {
    /// Kafka's own broker settings by their Kafka names. The defaults are Kafka's.
    KafkaSettings, "kafka" {
        /// Partitions of a topic that is created without saying how many.
        num_partitions("num.partitions"): i32 = 1, { min: 1, metric: "strandline_state_partitions" };
        /// A client that asks for a topic that does not exist gets it created, if it allows it too.
        auto_create_topics_enable("auto.create.topics.enable"): bool = true, { metric: "strandline_state_topics" };
        /// Topics may be deleted.
        delete_topic_enable("delete.topic.enable"): bool = true;
        /// Replication factor that topics created without one are shown with; any is accepted.
        default_replication_factor("default.replication.factor"): i32 = 1, { min: 1, max: 32_767, none: REPLICAS };
        /// The largest record batch, as it is stored.
        message_max_bytes("message.max.bytes"): i32 = 1_048_588, { min: 0, metric: "strandline_produce_refused_batches" };
        /// The codec that batches are stored with; `producer` keeps the producer's.
        compression_type("compression.type"): Compression = Compression::Producer;
        /// Level for gzip.
        compression_gzip_level("compression.gzip.level"): i32 = -1, { min: 1, max: 9, or: -1 };
        /// Level for lz4.
        compression_lz4_level("compression.lz4.level"): i32 = 9, { min: 1, max: 17 };
        /// Level for zstd.
        compression_zstd_level("compression.zstd.level"): i32 = 3, { min: -131_072, max: 22 };

        /// Whose time a record has: the producer's, or that of its arrival.
        log_message_timestamp_type("log.message.timestamp.type"): TimestampType = TimestampType::CreateTime;
        /// Records whose time is further in the past than this are refused.
        log_message_timestamp_before_max_ms("log.message.timestamp.before.max.ms"): i64 = i64::MAX, { min: 0, metric: "strandline_produce_refused_batches" };
        /// Records whose time is further in the future than this are refused.
        log_message_timestamp_after_max_ms("log.message.timestamp.after.max.ms"): i64 = 3_600_000, { min: 0, metric: "strandline_produce_refused_batches" };

        /// What happens to old records: `delete` by age and size, `compact` to the last of each key, or both.
        log_cleanup_policy("log.cleanup.policy"): Vec<Cleanup> = vec![Cleanup::Delete];
        /// Age at which records are deleted; -1 is never. Counts before `log.retention.minutes` and `log.retention.hours`.
        log_retention_ms("log.retention.ms"): Option<i64> = None, { min: 1, or: -1, unset: "`log.retention.minutes`" };
        /// As `log.retention.ms`, in minutes.
        log_retention_minutes("log.retention.minutes"): Option<i32> = None, { min: 1, or: -1, unset: "`log.retention.hours`" };
        /// As `log.retention.ms`, in hours.
        log_retention_hours("log.retention.hours"): i32 = 168, { min: 1, or: -1 };
        /// Bytes of a partition beyond which the oldest are deleted; -1 is no limit.
        log_retention_bytes("log.retention.bytes"): i64 = -1, { min: -1 };
        /// How often retention is checked.
        log_retention_check_interval_ms("log.retention.check.interval.ms"): i64 = 300_000, { min: 1, metric: "strandline_upkeep_overdue_bytes" };
        /// Logs of topics with `compact` in their policy are compacted by this broker. `compaction.enabled` counts too.
        log_cleaner_enable("log.cleaner.enable"): bool = true, { metric: "strandline_cleaning_due_bytes" };
        /// Memory for the keys of logs that are compacted at a time, 24 bytes each, of which a fifth stays free. It is taken while a log is
        /// compacted; one that has more keys is compacted in several passes.
        log_cleaner_dedupe_buffer_size("log.cleaner.dedupe.buffer.size"): i64 = 128 << 20, { min: 1 << 20, max: 1 << 36, metric: "strandline_cleaning_due_bytes" };
        /// How often it is looked which logs are to be compacted.
        log_cleaner_backoff_ms("log.cleaner.backoff.ms"): i64 = 15_000, { min: 0, metric: "strandline_cleaning_due_partitions" };
        /// How long tombstones stay readable after compaction has passed them.
        log_cleaner_delete_retention_ms("log.cleaner.delete.retention.ms"): i64 = 86_400_000, { min: 0 };
        /// The least time that a record stays uncompacted.
        log_cleaner_min_compaction_lag_ms("log.cleaner.min.compaction.lag.ms"): i64 = 0, { min: 0, metric: "strandline_cleaning_due_bytes" };
        /// The longest time that a record may stay uncompacted.
        log_cleaner_max_compaction_lag_ms("log.cleaner.max.compaction.lag.ms"): i64 = i64::MAX, { min: 1, metric: "strandline_cleaning_due_bytes" };
        /// The share of uncompacted bytes at which a partition is compacted.
        log_cleaner_min_cleanable_ratio("log.cleaner.min.cleanable.ratio"): f64 = 0.5, { min: 0, max: 1, metric: "strandline_cleaning_due_bytes" };

        /// Size of Kafka's segment files.
        log_segment_bytes("log.segment.bytes"): i32 = 1_073_741_824, { min: 1_048_576, none: SEGMENTS };
        /// Age of Kafka's segment files.
        log_roll_ms("log.roll.ms"): Option<i64> = None, { min: 1, unset: "`log.roll.hours`", none: SEGMENTS };
        /// As `log.roll.ms`, in hours.
        log_roll_hours("log.roll.hours"): i32 = 168, { min: 1, none: SEGMENTS };
        /// Random part of `log.roll.ms`.
        log_roll_jitter_ms("log.roll.jitter.ms"): Option<i64> = None, { min: 0, unset: "`log.roll.jitter.hours`", none: SEGMENTS };
        /// As `log.roll.jitter.ms`, in hours.
        log_roll_jitter_hours("log.roll.jitter.hours"): i32 = 0, { min: 0, none: SEGMENTS };
        /// Delay before a deleted segment's file goes.
        log_segment_delete_delay_ms("log.segment.delete.delay.ms"): i64 = 60_000, { min: 0, none: SEGMENTS };
        /// Bytes between two entries of a segment's index.
        log_index_interval_bytes("log.index.interval.bytes"): i32 = 4_096, { min: 0, none: SEGMENTS };
        /// Size of a segment's index.
        log_index_size_max_bytes("log.index.size.max.bytes"): i32 = 10_485_760, { min: 4, none: SEGMENTS };
        /// Segment files are allocated at full size.
        log_preallocate("log.preallocate"): bool = false, { none: SEGMENTS };
        /// Records between two syncs. Here every acknowledged record is durable.
        log_flush_interval_messages("log.flush.interval.messages"): i64 = i64::MAX, { min: 1, none: "every acknowledged record is durable" };
        /// Time between two syncs. Here every acknowledged record is durable.
        log_flush_interval_ms("log.flush.interval.ms"): Option<i64> = None, { min: 0, unset: "never", none: "every acknowledged record is durable" };
        /// Bytes kept on local disk of a tiered topic; -2 is as `log.retention.bytes`.
        log_local_retention_bytes("log.local.retention.bytes"): i64 = -2, { min: -2, none: TIERS };
        /// Time kept on local disk of a tiered topic; -2 is as `log.retention.ms`.
        log_local_retention_ms("log.local.retention.ms"): i64 = -2, { min: -2, none: TIERS };
        /// Replicas that must have a record before it is acknowledged with `acks=all`.
        min_insync_replicas("min.insync.replicas"): i32 = 1, { min: 1, none: REPLICAS };
        /// A replica that lags may become leader, with loss.
        unclean_leader_election_enable("unclean.leader.election.enable"): bool = false, { none: REPLICAS };

        /// The largest request. Larger ones close the connection.
        socket_request_max_bytes("socket.request.max.bytes"): i32 = 104_857_600, { min: 1_024, metric: "strandline_net_refused_frames" };
        /// A connection without a request for this long is closed; below 0 it never is.
        connections_max_idle_ms("connections.max.idle.ms"): i64 = 600_000, { metric: "strandline_net_closed_connections" };
        /// Open client connections; `net.connections_max` counts too.
        max_connections("max.connections"): i32 = i32::MAX, { min: 0, metric: "strandline_net_closed_connections" };
        /// Open connections from one address.
        max_connections_per_ip("max.connections.per.ip"): i32 = i32::MAX, { min: 0, metric: "strandline_net_closed_connections" };
        /// Bytes of the largest answer to a fetch; `fetch.response_bytes_max` counts too.
        fetch_max_bytes("fetch.max.bytes"): i32 = 57_671_680, { min: 1_024, metric: "strandline_fetch_out_bytes" };
        /// Fetch sessions (KIP-227) at a time; consumers beyond it send their whole list of partitions each time.
        max_incremental_fetch_session_cache_slots("max.incremental.fetch.session.cache.slots"): i32 = 1_000, { min: 0, metric: "strandline_fetch_sessions" };
        /// Partitions in one answer to DescribeTopicPartitions.
        max_request_partition_size_limit("max.request.partition.size.limit"): i32 = 2_000, { min: 1 };

        /// An idempotent producer's state in a partition is forgotten after this long without a batch. Longer is safer for
        /// producers that pause and then retry, and takes more memory.
        producer_id_expiration_ms("producer.id.expiration.ms"): i32 = 86_400_000, { min: 1, metric: "strandline_state_producers" };
        /// A transactional id is forgotten after this long without use.
        transactional_id_expiration_ms("transactional.id.expiration.ms"): i32 = 604_800_000, { min: 1, metric: "strandline_state_transactional_ids" };
        /// The longest transaction time-out that a client may ask for.
        transaction_max_timeout_ms("transaction.max.timeout.ms"): i32 = 900_000, { min: 1, metric: "strandline_state_longest_transaction_seconds" };

        /// The shortest session time-out that a group member may ask for.
        group_min_session_timeout_ms("group.min.session.timeout.ms"): i32 = 6_000, { min: 1 };
        /// The longest session time-out that a group member may ask for.
        group_max_session_timeout_ms("group.max.session.timeout.ms"): i32 = 1_800_000, { min: 1 };
        /// How long a new group waits for more members before its first assignment.
        group_initial_rebalance_delay_ms("group.initial.rebalance.delay.ms"): i32 = 3_000, { min: 0 };
        /// Members of a group.
        group_max_size("group.max.size"): i32 = i32::MAX, { min: 1 };
        /// Group protocols that are offered.
        group_coordinator_rebalance_protocols("group.coordinator.rebalance.protocols"): Vec<String> = vec!["classic".to_owned(), "consumer".to_owned()];
        /// Session time-out of members that use the consumer protocol (KIP-848).
        group_consumer_session_timeout_ms("group.consumer.session.timeout.ms"): i32 = 45_000, { min: 1 };
        /// The shortest that a group's own setting may choose.
        group_consumer_min_session_timeout_ms("group.consumer.min.session.timeout.ms"): i32 = 45_000, { min: 1 };
        /// The longest that a group's own setting may choose.
        group_consumer_max_session_timeout_ms("group.consumer.max.session.timeout.ms"): i32 = 60_000, { min: 1 };
        /// Time between heartbeats of members that use the consumer protocol.
        group_consumer_heartbeat_interval_ms("group.consumer.heartbeat.interval.ms"): i32 = 5_000, { min: 1 };
        /// The shortest that a group's own setting may choose.
        group_consumer_min_heartbeat_interval_ms("group.consumer.min.heartbeat.interval.ms"): i32 = 5_000, { min: 1 };
        /// The longest that a group's own setting may choose.
        group_consumer_max_heartbeat_interval_ms("group.consumer.max.heartbeat.interval.ms"): i32 = 15_000, { min: 1 };
        /// The least time between two assignments of a group that uses the consumer protocol.
        group_consumer_assignment_interval_ms("group.consumer.assignment.interval.ms"): i32 = 1_000, { min: 0 };
        /// Members of a group that uses the consumer protocol.
        group_consumer_max_size("group.consumer.max.size"): i32 = i32::MAX, { min: 1 };
        /// Assignors that the broker offers, the default first.
        group_consumer_assignors("group.consumer.assignors"): Vec<String> = vec!["uniform".to_owned(), "range".to_owned()];
        /// Which way groups may move between the classic and the consumer protocol.
        group_consumer_migration_policy("group.consumer.migration.policy"): Migration = Migration::Bidirectional;
        /// Committed offsets of an empty group are forgotten after this long.
        offsets_retention_minutes("offsets.retention.minutes"): i32 = 10_080, { min: 1 };
        /// How often committed offsets are looked through for old ones.
        offsets_retention_check_interval_ms("offsets.retention.check.interval.ms"): i64 = 600_000, { min: 1 };
        /// Bytes of the text that a client may add to a committed offset.
        offset_metadata_max_bytes("offset.metadata.max.bytes"): i32 = 4_096, { min: 0, max: 32_767 };
        /// Partitions that the topic `__consumer_offsets` is created with, when groups are used first. It shows what groups
        /// commit and stores nothing.
        offsets_topic_num_partitions("offsets.topic.num.partitions"): i32 = 50, { min: 1, metric: "strandline_state_partitions" };
        /// Replication factor that `__consumer_offsets` is shown with.
        offsets_topic_replication_factor("offsets.topic.replication.factor"): i16 = 3, { min: 1, none: REPLICAS };
        /// Partitions of Kafka's topic for transactions.
        transaction_state_log_num_partitions("transaction.state.log.num.partitions"): i32 = 50, { min: 1, none: "transactions are no topic" };
        /// Replication factor of Kafka's topic for transactions.
        transaction_state_log_replication_factor("transaction.state.log.replication.factor"): i16 = 3, { min: 1, none: "transactions are no topic" };
        /// In-sync replicas of Kafka's topic for transactions.
        transaction_state_log_min_isr("transaction.state.log.min.isr"): i32 = 2, { min: 1, none: "transactions are no topic" };
    }
}

impl KafkaSettings {
    /// The default of a topic's `retention.ms`: the finest of Kafka's three settings that is set; -1 is never.
    #[must_use]
    pub fn retention_ms(&self) -> i64 {
        let scaled = |n: i64, ms: i64| if n < 0 { -1 } else { n.saturating_mul(ms) };
        self.log_retention_ms
            .or(self.log_retention_minutes.map(|n| scaled(i64::from(n), 60_000)))
            .unwrap_or_else(|| scaled(i64::from(self.log_retention_hours), 3_600_000))
    }

    /// The default of a topic's `segment.ms`.
    #[must_use]
    pub fn roll_ms(&self) -> i64 {
        self.log_roll_ms.unwrap_or_else(|| i64::from(self.log_roll_hours).saturating_mul(3_600_000))
    }

    /// The default of a topic's `segment.jitter.ms`.
    #[must_use]
    pub fn roll_jitter_ms(&self) -> i64 {
        self.log_roll_jitter_ms.unwrap_or_else(|| i64::from(self.log_roll_jitter_hours).saturating_mul(3_600_000))
    }
}
