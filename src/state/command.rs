//! The changes that brokers agree on, as they stand in entries. New commands and fields get new tags and are used only
//! after the cluster's feature level allows them; tags are never reused. Specified in `docs/formats/journal.md`.
use bytes::Bytes;

use super::collection::{COLLECTION_LEVEL, ForgetObjects, RaiseOrphanHorizon, TrimLogs};
use super::compaction::{CLEANING_LEVEL, COMPACTION_LEVEL, CommitCompaction};
use super::group::{ChangeGroup, CommitOffsets, DeleteGroup, DeleteOffsets, OWN_VERSIONS_LEVEL};
use super::runs::RunsWriter;
use super::settings::Settings;
use super::transaction::TRANSACTIONS_LEVEL;
use super::transaction_commands::{
    AbortTransaction, AddToTransaction, EndTransaction, ExpireTransactionalIds, InitProducer,
};
use crate::segment::ObjectName;
use crate::types::ObjectId;

macro_rules! commands {
    ($($tag:literal $name:ident),* $(,)?) => {
        /// One change.
        #[derive(Clone, PartialEq, prost::Message)]
        pub struct Command {
            #[prost(oneof = "CommandKind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 35")]
            pub kind: Option<CommandKind>,
        }

        /// Which change.
        #[derive(Clone, PartialEq, prost::Oneof)]
        pub enum CommandKind {
            $(#[prost(message, tag = $tag)] $name($name),)*
        }

        $(impl From<$name> for Command {
            fn from(command: $name) -> Self {
                Self { kind: Some(CommandKind::$name(command)) }
            }
        })*
    };
}

commands! {
    "1" Bootstrap,
    "2" RegisterBroker,
    "3" UnregisterBroker,
    "4" SetSettings,
    "5" CreateTopic,
    "6" CreatePartitions,
    "7" DeleteTopic,
    "8" AlterTopicConfigs,
    "9" CommitRuns,
    "10" AllocateProducerIds,
    "11" DeleteRecords,
    "12" ExpireProducers,
    "13" SnapshotTaken,
    "14" ChangeGroup,
    "15" DeleteGroup,
    "16" CommitOffsets,
    "17" DeleteOffsets,
    "18" AlterGroupConfigs,
    "19" AnnounceBroker,
    "20" DrainBroker,
    "21" FenceBroker,
    "22" RaiseFeatureLevel,
    "23" InitProducer,
    "24" AddToTransaction,
    "25" EndTransaction,
    "26" AbortTransaction,
    "27" ExpireTransactionalIds,
    "28" TrimLogs,
    "29" ForgetObjects,
    "30" RaiseOrphanHorizon,
    "35" CommitCompaction,
}

impl Command {
    /// The lowest feature level that knows this command.
    #[must_use]
    pub fn feature_level(&self) -> u32 {
        match &self.kind {
            Some(CommandKind::RaiseFeatureLevel(raise)) => raise.level,
            Some(CommandKind::ChangeGroup(change)) if change.to_version > 0 => OWN_VERSIONS_LEVEL,
            Some(
                CommandKind::InitProducer(_)
                | CommandKind::AddToTransaction(_)
                | CommandKind::EndTransaction(_)
                | CommandKind::AbortTransaction(_)
                | CommandKind::ExpireTransactionalIds(_),
            ) => TRANSACTIONS_LEVEL,
            Some(CommandKind::TrimLogs(_) | CommandKind::ForgetObjects(_) | CommandKind::RaiseOrphanHorizon(_)) => {
                COLLECTION_LEVEL
            }
            Some(CommandKind::CommitCompaction(c)) if !c.cleaned.is_empty() => CLEANING_LEVEL,
            Some(CommandKind::CommitCompaction(_)) => COMPACTION_LEVEL,
            Some(CommandKind::CommitOffsets(c)) if c.groups.iter().any(|g| g.transaction.is_some()) => {
                TRANSACTIONS_LEVEL
            }
            Some(CommandKind::AnnounceBroker(_) | CommandKind::DrainBroker(_) | CommandKind::FenceBroker(_)) => 2,
            _ => 1,
        }
    }
}

/// The first command of a journal: the cluster's id and its settings.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Bootstrap {
    #[prost(string, tag = "1")]
    pub cluster_id: String,
    #[prost(message, required, tag = "2")]
    pub settings: Settings,
}

/// Begins a broker's incarnation, and ends the one that had its id before (H8).
#[derive(Clone, PartialEq, prost::Message)]
pub struct RegisterBroker {
    #[prost(int32, tag = "1")]
    pub broker: i32,
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// The highest feature level that the broker understands; below the cluster's it is refused.
    #[prost(uint32, tag = "3")]
    pub feature_level_max: u32,
}

/// Ends a broker's incarnation; its very last command.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UnregisterBroker {
    #[prost(int32, tag = "1")]
    pub broker: i32,
}

/// Says where the proposer is and how clients reach it; from then on they are sent to it. From level 2 on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AnnounceBroker {
    /// Empty for none.
    #[prost(string, tag = "1")]
    pub zone: String,
    #[prost(message, repeated, tag = "2")]
    pub endpoints: Vec<Endpoint>,
}

/// Where clients reach a broker that came by a listener of this name.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Endpoint {
    #[prost(string, tag = "1")]
    pub listener: String,
    #[prost(string, tag = "2")]
    pub host: String,
    #[prost(uint32, tag = "3")]
    pub port: u32,
}

/// Takes leadership and coordination from a broker, which stops when they have moved. From level 2 on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DrainBroker {
    #[prost(int32, tag = "1")]
    pub broker: i32,
}

/// Ends the incarnation of a broker that was silent, unless it has spoken since (H12). From level 2 on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FenceBroker {
    #[prost(int32, tag = "1")]
    pub broker: i32,
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// Its last entry, as the proposer saw it; a later one saves it.
    #[prost(uint64, tag = "3")]
    pub last_position: u64,
}

/// Finalises a feature level: from here on entries and snapshots are written at it. Not taken back.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RaiseFeatureLevel {
    #[prost(uint32, tag = "1")]
    pub level: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SetSettings {
    #[prost(message, required, tag = "1")]
    pub settings: Settings,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateTopic {
    #[prost(string, tag = "1")]
    pub name: String,
    /// 16 bytes, chosen at random by the proposer.
    #[prost(bytes = "bytes", tag = "2")]
    pub id: Bytes,
    #[prost(uint32, tag = "3")]
    pub partitions: u32,
    /// What the creator asked for and is shown; the bucket replicates.
    #[prost(uint32, tag = "4")]
    pub replication_factor: u32,
    #[prost(message, repeated, tag = "5")]
    pub configs: Vec<ConfigChange>,
}

/// Sets a topic's setting, or takes it back to the default.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ConfigChange {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CreatePartitions {
    #[prost(bytes = "bytes", tag = "1")]
    pub topic_id: Bytes,
    /// The number that the topic has afterwards.
    #[prost(uint32, tag = "2")]
    pub count: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteTopic {
    #[prost(bytes = "bytes", tag = "1")]
    pub topic_id: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AlterTopicConfigs {
    #[prost(bytes = "bytes", tag = "1")]
    pub topic_id: Bytes,
    #[prost(message, repeated, tag = "2")]
    pub changes: Vec<ConfigChange>,
    /// The topic's config version that the changes were worked out from: two that race don't undo each other.
    #[prost(uint64, tag = "3")]
    pub from_version: u64,
}

/// As [`AlterTopicConfigs`], for a group, whether or not it exists.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AlterGroupConfigs {
    #[prost(string, tag = "1")]
    pub group: String,
    #[prost(message, repeated, tag = "2")]
    pub changes: Vec<ConfigChange>,
}

/// Gives offsets to the batches that lie in one object.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommitRuns {
    /// The object's name: its ULID (16 bytes) and what its writer had applied when it named it (H4).
    #[prost(bytes = "bytes", tag = "1")]
    pub ulid: Bytes,
    #[prost(uint64, tag = "2")]
    pub applied_position: u64,
    #[prost(fixed64, tag = "3")]
    pub applied_token: u64,
    #[prost(uint32, tag = "4")]
    pub object_bytes: u32,
    /// The number that an earlier entry gave to the same object, of which other runs were committed there (H17).
    #[prost(uint64, optional, tag = "5")]
    pub object: Option<u64>,
    #[prost(sint64, tag = "6")]
    pub base_timestamp: i64,
    /// See [`super::RunsWriter`].
    #[prost(bytes = "bytes", tag = "7")]
    pub runs: Bytes,
}

impl CommitRuns {
    /// Commits `runs` of an object; `object` is the number that an earlier command for it was given.
    #[must_use]
    pub fn new(name: ObjectName, object_bytes: u32, object: Option<ObjectId>, runs: RunsWriter) -> Self {
        let (base_timestamp, runs) = runs.finish();
        Self {
            ulid: Bytes::copy_from_slice(&name.ulid.to_be_bytes()),
            applied_position: name.applied.position.0,
            applied_token: name.applied.token.0,
            object_bytes,
            object: object.map(|object| object.0),
            base_timestamp,
            runs: runs.into(),
        }
    }
}

/// Takes a block of producer ids, so that a broker answers many InitProducerId from one entry.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AllocateProducerIds {
    #[prost(uint32, tag = "1")]
    pub count: u32,
}

/// Moves a partition's log start offset up to `offset`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteRecords {
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    #[prost(int64, tag = "2")]
    pub offset: i64,
}

/// Forgets producers that were not used since (H16).
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExpireProducers {
    #[prost(message, repeated, tag = "1")]
    pub producers: Vec<ExpiredProducer>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ExpiredProducer {
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    #[prost(int64, tag = "2")]
    pub id: i64,
    /// Its last use as the proposer saw it; a later one saves it.
    #[prost(uint64, tag = "3")]
    pub last_used: u64,
}

/// A snapshot was written, read back and found equal (H13).
#[derive(Clone, PartialEq, prost::Message)]
pub struct SnapshotTaken {
    #[prost(uint64, tag = "1")]
    pub position: u64,
    #[prost(fixed64, tag = "2")]
    pub token: u64,
    #[prost(string, tag = "3")]
    pub key: String,
    #[prost(uint64, tag = "4")]
    pub bytes: u64,
    /// What the writer had applied when it named the object (H4).
    #[prost(uint64, tag = "5")]
    pub applied_position: u64,
    /// When it was taken, by the proposer's clock.
    #[prost(int64, tag = "6")]
    pub wall_ms: i64,
    /// Positions of kept snapshots that are old enough to be given up.
    #[prost(uint64, repeated, tag = "7")]
    pub given_up: Vec<u64>,
}
