//! A history: what each client asked for, when, and what came of it. Times are microseconds of one monotonic clock.
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::payload::Value;

/// Everything that the clients of one run did, in the order in which they began it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The run that its values name.
    pub run: u64,
    pub operations: Vec<Operation>,
    /// When the last fault was over; operations that begin later are the final phase.
    pub healed_us: Option<u64>,
}

/// One call of one logical client. Retries that a client makes by itself are inside one operation, with one exception:
/// where an attempt went unanswered and may still be carried out, and doing so after what came later would change
/// something (Commit, CreateTopic, DeleteTopic, DeleteGroup), that attempt is an operation of its own that ends as `Info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Rises by the order of the beginnings.
    pub id: u64,
    /// The logical client; it may have several operations under way (a producer's pipeline).
    pub process: u32,
    pub start_us: u64,
    /// `None` where the client never learnt how it ended.
    pub end_us: Option<u64>,
    /// The broker that answered.
    pub broker: Option<i32>,
    pub end: End,
    pub what: What,
}

/// How an operation ended. The texts begin with Kafka's name of the error where there is one (`NOT_LEADER_OR_FOLLOWER`);
/// more may follow after a space or a colon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    Ok,
    /// It certainly did not happen and will not happen.
    Fail(String),
    /// It may have happened, or may happen later.
    Info(String),
}

impl End {
    /// Kafka's name of the error, or the first word of what the client wrote; empty where it ended well.
    #[must_use]
    pub fn error(&self) -> &str {
        match self {
            Self::Ok => "",
            Self::Fail(text) | Self::Info(text) => text.split([' ', ':']).next().unwrap_or_default(),
        }
    }
}

/// Which of Kafka's group protocols a member speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupProtocol {
    /// JoinGroup and SyncGroup: all members share one generation.
    #[default]
    Classic,
    /// ConsumerGroupHeartbeat (KIP-848): each member has an epoch of its own, which is what `generation` holds.
    Consumer,
}

/// One partition of one topic. A topic that is deleted and made again has another id. The id is there only where the
/// request or its answer named it: a request by name may reach a newer topic of that name than the client knows of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Log {
    pub topic: String,
    /// The topic's id as text; `None` where the client named the topic only.
    pub id: Option<String>,
    pub partition: i32,
}

/// A partition's committed offset; `None` where there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    pub log: Log,
    pub offset: Option<i64>,
    /// The text that is committed with it; `None` where the client library does not show it.
    #[serde(default)]
    pub metadata: Option<String>,
}

/// A record as a reader got it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub offset: i64,
    pub timestamp_ms: i64,
    /// Of its batch; `None` where the client library does not show it.
    #[serde(default)]
    pub leader_epoch: Option<i32>,
    pub value: Result<Value, Broken>,
}

/// A record that is not as anybody wrote it: what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken(pub String);

/// What was asked for, and what was answered where the end is `Ok` (elsewhere the fields of the answer mean nothing). An
/// answer that a client library does not show is -1 or `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// One batch to one partition.
    Send {
        log: Log,
        values: Vec<Value>,
        /// It may stand in the log once only: the producer was idempotent, or sent it a single time.
        once: bool,
        /// The client asked to be told (acks is not 0).
        acked: bool,
        /// The first record's offset; `None` where the answer had none (acks is 0, or the broker knew the batch as a
        /// duplicate without its offset).
        offset: Option<i64>,
        /// The producer's transaction that it is part of: a number that rises with each of its process.
        #[serde(default)]
        transaction: Option<u64>,
    },
    /// One partition's share of one fetch.
    Poll {
        log: Log,
        /// Equal for polls of this process and log that follow each other without a seek, a reset or a new assignment in
        /// between.
        position_of: u64,
        /// Where the poll began to read.
        from: i64,
        /// Where the next one would go on.
        next: i64,
        records: Vec<Seen>,
        high_watermark: i64,
        last_stable_offset: i64,
        log_start_offset: i64,
        read_committed: bool,
    },
    /// ListOffsets: `timestamp` as on the wire (-1 latest, -2 earliest, -3 the largest timestamp, else a time in ms).
    ListOffsets {
        log: Log,
        timestamp: i64,
        offset: i64,
        found_timestamp: i64,
    },
    /// OffsetForLeaderEpoch.
    EpochEnd {
        log: Log,
        epoch: i32,
        end_offset: i64,
    },
    DeleteRecords {
        log: Log,
        before: i64,
        low_watermark: i64,
    },
    CreateTopic {
        topic: String,
        id: Option<String>,
        partitions: i32,
    },
    DeleteTopic {
        topic: String,
        id: Option<String>,
    },
    /// CreatePartitions: the new count.
    Grow {
        topic: String,
        partitions: i32,
    },
    /// One setting of a topic or a group.
    AlterConfig {
        name: String,
        key: String,
        value: String,
    },
    /// DescribeConfigs of one topic's or group's settings, those that were set.
    DescribeConfig {
        name: String,
        values: BTreeMap<String, String>,
    },
    /// Metadata of one topic: `None` where it was said not to exist.
    Describe {
        topic: String,
        found: Option<(String, i32)>,
    },
    InitProducer {
        transactional_id: Option<String>,
        producer_id: i64,
        epoch: i16,
        /// Of transactions; -1 where the library does not show it.
        #[serde(default = "unknown")]
        timeout_ms: i32,
    },
    /// Offsets that a group gets when the process' transaction is committed (AddOffsetsToTxn, TxnOffsetCommit). Who speaks
    /// for no member has an empty one and the generation -1.
    SendOffsets {
        transaction: u64,
        group: String,
        member: String,
        generation: i32,
        offsets: Vec<Commit>,
    },
    /// EndTxn. It begins with the first attempt, before which nobody can have seen the transaction as committed; there
    /// is none for a transaction that its producer never ended.
    EndTransaction {
        transaction: u64,
        commit: bool,
    },
    /// A member took over an assignment, from this operation's end until its next `Assigned` or `Left` begins.
    /// The operation begins with the join, or with the first heartbeat of a member that has none yet.
    Assigned {
        group: String,
        member: String,
        instance: Option<String>,
        #[serde(default)]
        protocol: GroupProtocol,
        generation: i32,
        logs: Vec<Log>,
    },
    /// A member let go of everything. `Ok`: the group answered its leave, or told it that it is no member; `Info`: it went
    /// without a word, or without an answer.
    Left {
        group: String,
        member: String,
    },
    Heartbeat {
        group: String,
        member: String,
        generation: i32,
    },
    /// OffsetCommit: those of its partitions that ended alike (others make an operation of their own). A commit from
    /// outside has an empty member and the generation -1.
    Commit {
        group: String,
        member: String,
        generation: i32,
        offsets: Vec<Commit>,
    },
    /// OffsetFetch.
    Committed {
        group: String,
        offsets: Vec<Commit>,
    },
    DeleteGroup {
        group: String,
    },
    /// A broker died, was paused, or came back: for people who read the history.
    Note(String),
}

fn unknown() -> i32 {
    -1
}

impl What {
    /// The kind of operation, for reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Send { .. } => "send",
            Self::Poll { .. } => "poll",
            Self::ListOffsets { .. } => "list offsets",
            Self::EpochEnd { .. } => "epoch end",
            Self::DeleteRecords { .. } => "delete records",
            Self::CreateTopic { .. } => "create topic",
            Self::DeleteTopic { .. } => "delete topic",
            Self::Grow { .. } => "grow",
            Self::AlterConfig { .. } => "alter config",
            Self::DescribeConfig { .. } => "describe config",
            Self::Describe { .. } => "describe",
            Self::InitProducer { .. } => "init producer",
            Self::SendOffsets { .. } => "send offsets",
            Self::EndTransaction { .. } => "end transaction",
            Self::Assigned { .. } => "assigned",
            Self::Left { .. } => "left",
            Self::Heartbeat { .. } => "heartbeat",
            Self::Commit { .. } => "commit",
            Self::Committed { .. } => "committed",
            Self::DeleteGroup { .. } => "delete group",
            Self::Note(..) => "note",
        }
    }
}
