//! Our own settings, a section per struct. The defaults fit a container of 512 MiB: requests 128, cache 128
//! (answers of 64 within it), and room for State and the process.
use std::path::PathBuf;

use super::setting::{path, section};
use super::value::{Secret, ServerUrl, choice};

choice!(
    /// How a log line looks.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line, for collectors.
        Json = "json",
    }
);
choice!(
    /// The least severe log line that is written.
    LogLevel { Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace" }
);
choice!(
    /// What keeps the journal.
    JournalKind {
        /// A file on this machine; one broker.
        Sqlite = "sqlite",
        /// A PostgreSQL server, or what speaks its protocol.
        Postgres = "postgres",
        /// Objects in the bucket; any number of brokers, and no database.
        Bucket = "bucket",
        /// Nothing survives the process; for trials and tests.
        Memory = "memory",
    }
);
choice!(
    /// What is asked of the PostgreSQL server that keeps the journal.
    PostgresDurability {
        /// Its disk settings are safe, and it commits to a synchronous standby.
        Standby = "standby",
        /// Its disk settings are safe; without a synchronous standby there is an alarm.
        Disk = "disk",
        /// Its settings are not looked at.
        Trusted = "trusted",
    }
);
choice!(
    /// How deep a produced batch is checked before it is stored.
    Validation {
        /// Header, CRC and counts; what compressed records say is believed.
        Header = "header",
        /// Every record is walked, compressed ones too, with limited output.
        Full = "full",
    }
);

section! {
    /// Keys at the top of the file.
    General, "" {
        /// Directory of everything that this broker keeps on this machine. Created if it is missing; one process at a
        /// time.
        data_dir: PathBuf = path("./data");
        /// This broker's id (Kafka's `node.id`). Must be another one for each broker of a cluster, and stay the same.
        broker_id: i32 = 1, { min: 0 };
        /// Where this broker is (Kafka's `broker.rack`): clients in the same zone are sent to it, as long as it is there.
        zone: Option<String> = None, { unset: "no zone" };
        /// Allows listeners that other machines can reach. There is no authentication yet: whoever reaches a listener may
        /// read, write and delete everything.
        insecure: bool = false;
    }
}

section! {
    /// The port for operators: `/metrics`, `/livez`, `/readyz`. Plain HTTP, reads only.
    Admin, "admin" {
        /// Host and port to listen on. Null turns it off.
        address: Option<String> = Some("127.0.0.1:9644".to_owned()), { unset: "off" };
    }
}

section! {
    /// Log lines, on standard error.
    Log, "log" {
        /// How a line looks.
        format: LogFormat = LogFormat::Text;
        /// The least severe line that is written. The environment variable `RUST_LOG` replaces it, by room if wished.
        level: LogLevel = LogLevel::Info;
    }
}

section! {
    /// The object store that holds all records.
    Bucket, "bucket" {
        /// Where it is: a directory, or `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, `memory:`.
        url: Option<String> = None, { unset: "the directory `bucket` in `data_dir`" };
        /// Address of the store's API, for other providers than the URL's own (MinIO, emulators).
        endpoint: Option<String> = None, { unset: "the provider's" };
        /// S3 region.
        region: Option<String> = None, { unset: "`us-east-1`" };
        /// S3 access key.
        access_key_id: Option<String> = None, { unset: "none" };
        /// S3 secret key. Better given by the environment than by the file.
        secret_access_key: Option<Secret> = None, { unset: "none" };
        /// S3 session token, with temporary keys.
        session_token: Option<Secret> = None, { unset: "none" };
        /// Allows an `http:` endpoint. Records and signatures travel in the clear.
        allow_http: bool = false;
        /// Puts the bucket's name into the host name instead of the path; some S3 providers ask for it.
        virtual_host_style: bool = false;
        /// Azure storage account.
        azure_account: Option<String> = None, { unset: "none" };
        /// Azure storage key.
        azure_key: Option<Secret> = None, { unset: "none" };
        /// File with a Google service account key.
        gcs_service_account_path: Option<PathBuf> = None, { unset: "the environment's" };
        /// Sends a checksum with each S3 object that the store verifies. Off only for stores that refuse the header.
        s3_checksum: bool = true;
        /// Sends requests without credentials, for emulators of GCS and Azure.
        anonymous: bool = false;
    }
}

section! {
    /// The ordered log of metadata.
    Journal, "journal" {
        /// What keeps it: `sqlite` (a file on this machine), `postgres` (a PostgreSQL server), `bucket` (objects beside the
        /// records: no database, and slower, see [journal-bucket.md](journal-bucket.md)) or `memory` (gone with the process).
        kind: JournalKind = JournalKind::Sqlite;
        /// The SQLite file. Must be on a local file system, since SQLite's locks do not hold on network ones.
        sqlite_path: Option<PathBuf> = None, { unset: "`journal.db` in `data_dir`" };
        /// How long an append may go without an answer before it is sent again; the same bytes, so never twice in the
        /// journal.
        append_deadline_ms: u64 = 10_000, { min: 100, max: 600_000, metric: "strandline_journal_append_seconds" };
        /// The PostgreSQL server, as libpq writes it: `postgres://user@host1:5432,host2:5432/database?sslmode=verify-full`.
        /// Of several hosts the one that takes writes is used. `sslmode` is `disable`, `prefer` (unless it is given),
        /// `require`, `verify-ca` or `verify-full`.
        postgres_url: Option<ServerUrl> = None, { unset: "none" };
        /// The password, if it is not in the URL. Better given by the environment than by the file.
        postgres_password: Option<Secret> = None, { unset: "the URL's" };
        /// The schema that holds the journal; made if it is missing. One for each cluster that shares a database.
        postgres_schema: String = "strandline".to_owned();
        /// File with the certificates (PEM) that the server's must be signed by.
        postgres_root_certificates: Option<PathBuf> = None, { unset: "the URL's `sslrootcert`, or the system's" };
        /// What is asked of the server at start and after each reconnect. `disk`: safe disk settings, and an alarm without
        /// a synchronous standby. `standby`: no start without one. `trusted`: nothing is looked at; for engines whose
        /// storage is not what these settings speak of.
        postgres_durability: PostgresDurability = PostgresDurability::Disk, { metric: "strandline_journal_unreplicated" };
        /// How long connecting to one host may take, until the next one is tried.
        postgres_connect_timeout_ms: u64 = 5_000, { min: 100, max: 60_000 };
        /// How often the journal is looked at for what was appended by others, beside the server's notifications.
        postgres_poll_interval_ms: Option<u64> = None,
            { min: 5, max: 1_000, unset: "500, or 50 where the server can't notify" };
        /// Kind `bucket`: while entries of other brokers come that they do not tell of, the bucket is asked for the next one at
        /// least this far apart. So much later do the consumers of this broker see what others took. No entry of our own waits
        /// for it.
        bucket_poll_ms_min: u64 = 50, { min: 1, max: 60_000, metric: "strandline_bucket_requests" };
        /// Kind `bucket`: when no other broker's entry has come for four times this long, the bucket is asked this often. On
        /// S3 a second costs each broker a dollar a month. Up to ten seconds lie between while the others tell of their entries.
        bucket_poll_ms_max: u64 = 1_000, { min: 10, max: 60_000, metric: "strandline_bucket_requests" };
    }
}

section! {
    /// How brokers of one cluster know of each other. A broker that is alone writes no heartbeats.
    Cluster, "cluster" {
        /// Time between the journal entries of a broker that has nothing to say but that it is there. Longer where the journal
        /// is slow for the number of brokers. A journal in the bucket pays for each: see [journal-bucket.md](journal-bucket.md).
        heartbeat_interval_ms: Option<u64> = None,
            { min: 50, max: 600_000, unset: "3000, or 10000 with `journal.kind: bucket`; at most a third of `fencing_timeout_ms`", metric: "strandline_journal_append_seconds" };
        /// A broker that is silent for this long is given up by the others, which take over what it led. The last broker that
        /// starts sets it for the cluster.
        fencing_timeout_ms: Option<u64> = None,
            { min: 500, max: 3_600_000, unset: "15000, or 30000 with `journal.kind: bucket`", metric: "strandline_cluster_fenced_brokers" };
        /// How often a broker leaves word of the journal's history in the bucket, where the loss of the journal's store does not
        /// reach, and looks whether another one has found a fork. What a store that lost its tail gives out in this time is
        /// perhaps noticed too late. A tenth of it costs ten times as much: 30 s are 1.7 dollars a broker and month on S3.
        witness_interval_ms: u64 = 30_000, { min: 100, max: 3_600_000, metric: "strandline_journal_forked" };
        /// A broker that has not heard of the journal for this long sends its clients to the others, if there are any. Must be
        /// less than `fencing_timeout_ms`, and than a third of the session time-out of consumers.
        journal_staleness_max_ms: u64 = 10_000, { min: 200, max: 3_600_000, metric: "strandline_cluster_serves" };
        /// How long a stopping broker goes on answering clients, which it sends to the others. It ends when they are gone.
        drain_wait_ms: u64 = 5_000, { min: 0, max: 600_000 };
        /// Zones of clients by their addresses, where neither the listener nor the client says where it is: `10.1.0.0/16=a`.
        zones_by_address: Vec<String> = Vec::new();
    }
}

section! {
    /// From records received to objects in the bucket.
    Produce, "produce" {
        /// A flush leaves when it holds this much. Larger objects cost less per byte and are read in fewer requests.
        object_bytes_max: u64 = 8 << 20, { min: 64 << 10, max: 256 << 20, metric: "strandline_produce_flush_bytes" };
        /// Under load flushes leave this far apart, until size takes over: the dial between cost (PUTs) and latency. A flush
        /// after a quiet time leaves at once. 0 flushes whenever fewer than `puts_in_flight_local` PUTs are in flight.
        flush_interval_ms: Option<u64> = None,
            { min: 0, max: 60_000, unset: "0 on a local directory or in memory, 250 elsewhere", metric: "strandline_produce_flushes" };
        /// PUTs in flight at a time.
        puts_in_flight_max: usize = 8, { min: 1, max: 256, metric: "strandline_produce_puts_in_flight" };
        /// PUTs in flight at a time where `flush_interval_ms` is 0: with more, flushes get smaller and not faster.
        puts_in_flight_local: usize = 1, { min: 1, max: 256, metric: "strandline_produce_puts_in_flight" };
        /// A batch that is not committed after this long is answered with a retriable error, if it certainly was not, and
        /// with nothing, if it may have been. Clients give up at 30 s.
        deadline_ms: u64 = 25_000, { min: 1_000, max: 600_000, metric: "strandline_produce_ack_seconds" };
        /// How deep a batch is checked on topics that do not set `strandline.validation`: `header` believes what compressed
        /// records say, `full` walks every record.
        validation_default: Validation = Validation::Header, { metric: "strandline_produce_refused_batches" };
    }
}

section! {
    /// From objects in the bucket to consumers.
    Fetch, "fetch" {
        /// Memory of cached objects. Should hold what arrives between writing and the slowest tailing consumer; the process
        /// needs about a third more than this.
        cache_bytes_max: u64 = 128 << 20, { min: 1 << 20, metric: "strandline_cache_misses" };
        /// Reads of the bucket at a time for consumers that are behind.
        cold_reads_max: usize = 8, { min: 1, max: 1024, metric: "strandline_fetch_cold_reads_in_flight" };
        /// What another broker of the same zone is to read from the bucket is asked from it, so that a zone reads each object
        /// about once. It is asked at its first listener, or the one that has the name of the first here. Without it each broker
        /// reads the bucket itself.
        from_neighbours: bool = true, { metric: "strandline_cache_given" };
        /// The largest answer to one fetch, if the client and `kafka.fetch.max.bytes` ask for more. The first batch is sent
        /// even if it is larger.
        response_bytes_max: u64 = 16 << 20, { min: 64 << 10, metric: "strandline_fetch_out_bytes" };
        /// Memory of answers that their clients have not read yet. At the limit fetches wait.
        answer_bytes_max: u64 = 64 << 20, { min: 1 << 20, metric: "strandline_fetch_answer_bytes" };
    }
}

section! {
    /// Sockets and requests.
    Net, "net" {
        /// Open client connections; `kafka.max.connections` can lower it. Each costs a file and about 20 KiB.
        connections_max: usize = 4_096, { min: 1, max: 1_000_000, metric: "strandline_net_closed_connections" };
        /// Requests of one connection that are being served at a time; beyond it the socket is not read.
        pipeline_depth_max: usize = 64, { min: 1, max: 1024, metric: "strandline_net_requests_in_flight" };
        /// Memory of all requests, from their first byte to their answer. At the limit sockets are not read.
        request_bytes_max: u64 = 128 << 20, { min: 1 << 20, metric: "strandline_net_frame_bytes" };
        /// A client that reads nothing of its answer for this long is disconnected.
        write_stall_timeout_ms: u64 = 30_000, { min: 100, max: 3_600_000, metric: "strandline_net_closed_connections" };
        /// A client that has begun a request and sends nothing more of it for this long is disconnected.
        frame_stall_timeout_ms: u64 = 30_000, { min: 100, max: 3_600_000, metric: "strandline_net_closed_connections" };
        /// How long a stopping broker waits for requests that are being served.
        drain_timeout_ms: u64 = 30_000, { min: 0, max: 3_600_000 };
    }
}

section! {
    /// Snapshots of the metadata in the bucket; the journal is trimmed behind them.
    Snapshot, "snapshot" {
        /// A snapshot is due after this many journal entries.
        entries_between: u64 = 10_000, { min: 10, metric: "strandline_snapshot_newest_age_seconds" };
        /// A snapshot is due after this many bytes of journal entries.
        bytes_between: u64 = 64 << 20, { min: 64 << 10, metric: "strandline_snapshot_newest_age_seconds" };
        /// A snapshot is due when the newest is this old and anything but heartbeats was appended since: with a journal on this
        /// machine's disk, this much metadata is lost with the disk.
        age_ms_max: u64 = 300_000, { min: 1_000, max: 86_400_000, metric: "strandline_snapshot_newest_age_seconds" };
        /// Snapshots that are kept, however old.
        kept_min: u64 = 3, { min: 1, max: 1_000 };
        /// Snapshots younger than this are kept, however many.
        kept_hours: u64 = 24, { min: 0, max: 87_600 };
    }
}

section! {
    /// What keeps the bucket to what retention allows ([retention.md](retention.md)). One broker does it for all.
    Upkeep, "upkeep" {
        /// How long an object stays in the bucket after the last of its records was given up. A reader that is late has so long
        /// before it has to look again, and a journal that is restored from a backup so long before its records are gone: more
        /// than a minute, and than the age of the backups. The last broker that starts sets it for the cluster.
        garbage_grace_ms: u64 = 600_000, { min: 100, max: 31_536_000_000, metric: "strandline_upkeep_dead_bytes" };
        /// Objects that no entry of the journal names (of flushes that failed, and second copies of slow ones) are looked at when
        /// they are this old. What a broker has on its way for longer than this may be refused, and is sent again.
        orphan_age_ms: u64 = 86_400_000, { min: 100, max: 31_536_000_000, metric: "strandline_upkeep_orphans" };
        /// How often the bucket is listed for them. A listing of a million objects costs half a cent on S3.
        sweep_interval_ms: u64 = 21_600_000, { min: 100, max: 31_536_000_000, metric: "strandline_upkeep_sweeps" };
        /// How often it is proved that logs are whole, that their objects are in the bucket, and what they hold.
        audit_interval_ms: u64 = 86_400_000, { min: 100, max: 31_536_000_000, metric: "strandline_upkeep_audits" };
        /// Objects are read as fast as this for it, which is a request for each. With 0 they are only listed.
        audit_bytes_per_second: u64 = 8 << 20, { min: 0, metric: "strandline_upkeep_audit_problems" };
    }
}

section! {
    /// Objects that flushes wrote become larger ones, in which each partition's records lie together: fewer objects, runs and
    /// reads. See [compaction.md](compaction.md).
    Compaction, "compaction" {
        /// Whether this broker does its part of it. One of the cluster should.
        enabled: bool = true, { metric: "strandline_compaction_backlog_objects" };
        /// So many flushes are compacted at once.
        objects_per_job: usize = 64, { min: 2, max: 4_096, metric: "strandline_compaction_backlog_objects" };
        /// Or as few as hold so many runs (a flush has one for each of its partitions).
        runs_per_job: u64 = 128_000, { min: 2, max: 10_000_000, metric: "strandline_compaction_backlog_runs" };
        /// Or as few as have so many bytes. A job has its inputs in memory. Also the size of objects of the second level.
        bytes_per_job: u64 = 64 << 20, { min: 64 << 10, max: 1 << 30, metric: "strandline_compaction_backlog_bytes" };
        /// A flush that is this old is compacted together with what there is. Each such job costs a PUT.
        age_ms_max: u64 = 600_000, { min: 100, max: 604_800_000, metric: "strandline_compaction_backlog_objects" };
        /// A flush is left alone for this long, so that consumers at the log's end find it in memory.
        rest_ms: u64 = 5_000, { min: 0, max: 3_600_000, metric: "strandline_compaction_backlog_objects" };
        /// So many objects that were made of flushes are merged into larger ones.
        objects_per_merge: usize = 8, { min: 2, max: 256, metric: "strandline_compaction_unmerged_objects" };
        /// Bytes read and written per second. Should be more than four times what is produced, or the backlog grows.
        bytes_per_second_max: u64 = 128 << 20, { min: 64 << 10, metric: "strandline_compaction_backlog_bytes" };
        /// A job that the broker whose part it is has not done after this long is done by another one.
        takeover_ms: u64 = 30_000, { min: 0, max: 3_600_000, metric: "strandline_compaction_jobs" };
    }
}

section! {
    /// What clients can make the metadata hold: it lies in each broker's memory. Beyond a limit they get Kafka's error for
    /// it (`POLICY_VIOLATION`, `INVALID_PARTITIONS`, `INVALID_REQUEST`).
    Limits, "limits" {
        /// Topics of the cluster.
        topics_max: usize = 50_000, { min: 1, max: 1_000_000, metric: "strandline_state_topics" };
        /// Partitions of the cluster, at about 400 bytes each.
        partitions_max: usize = 100_000, { min: 1, max: 10_000_000, metric: "strandline_state_partitions" };
        /// Partitions of one topic.
        partitions_per_topic_max: usize = 20_000, { min: 1, max: 1_000_000, metric: "strandline_state_partitions" };
        /// Partitions that one request may create (Kafka: 10,000).
        partitions_per_request_max: usize = 10_000, { min: 1, max: 100_000 };
        /// Producer states of the cluster, one per producer and partition; the longest unused go first.
        producers_max: usize = 500_000, { min: 1, max: 10_000_000, metric: "strandline_state_producers" };
        /// Producer states of one partition; the longest unused go first.
        producers_per_partition_max: usize = 10_000, { min: 1, max: 1_000_000, metric: "strandline_state_producers" };
        /// Groups of the cluster.
        groups_max: usize = 20_000, { min: 1, max: 1_000_000, metric: "strandline_state_groups" };
        /// Committed offsets of the cluster, one per group and partition, at about 300 bytes each.
        group_offsets_max: usize = 500_000, { min: 1, max: 100_000_000, metric: "strandline_state_group_offsets" };
        /// Memory of the members and assignments of all groups.
        group_bytes_max: u64 = 64 << 20, { min: 1 << 20, metric: "strandline_state_group_bytes" };
        /// Bytes of a group id, a member id, or an instance id.
        group_id_bytes_max: usize = 1_024, { min: 1, max: 32_767 };
        /// Transactional ids of the cluster, at about 500 bytes each.
        transactional_ids_max: usize = 50_000, { min: 1, max: 10_000_000, metric: "strandline_state_transactional_ids" };
        /// Partitions, and offsets of groups, in one transaction.
        transaction_partitions_max: usize = 10_000, { min: 1, max: 100_000 };
        /// Bytes of a transactional id.
        transactional_id_bytes_max: usize = 1_024, { min: 1, max: 32_767 };
        /// Bytes of a client id.
        client_id_bytes_max: usize = 1_024, { min: 1, max: 32_767 };
        /// Bytes of a topic setting's value.
        config_value_bytes_max: usize = 4_096, { min: 64, max: 32_767 };
    }
}
