//! What all brokers agree on: commands, the State that they make, and `apply`, the one function that folds them. It
//! promises that the same entries give the same State and outcomes, byte for byte, on every broker and day (invariant
//! 2, H5): it reads State and the entry and nothing else, no clock, no randomness, no I/O, no broker's configuration.
//! A clone is cheap (shared structure), so a proposer applies an entry to a clone before it appends it (H15), readers
//! keep a State as long as they like, and a snapshot is written while the next entries are applied. Formats:
//! `docs/formats/journal.md`, `docs/formats/snapshot.md`. Tests: beside each file, golden files in `tests/golden/`.
mod apply;
mod broker;
mod collection;
mod command;
mod compaction;
mod entry;
mod epochs;
mod fields;
mod forks;
mod group;
mod offsets_topic;
mod outcome;
mod producer;
mod producers;
mod runs;
mod settings;
mod snapshot;
mod tail;
mod topic;
mod transaction;
mod transaction_commands;
mod varint;

pub use apply::{NAMED_MAX, State};
pub use broker::{Broker, BrokerProfile, Standing};
pub use collection::{COLLECTION_LEVEL, Death, ForgetObjects, RaiseOrphanHorizon, TopicTrims, TrimLogs};
pub use command::{
    AllocateProducerIds, AlterGroupConfigs, AlterTopicConfigs, AnnounceBroker, Bootstrap, Command, CommandKind,
    CommitRuns, ConfigChange, CreatePartitions, CreateTopic, DeleteRecords, DeleteTopic, DrainBroker, Endpoint,
    ExpireProducers, ExpiredProducer, FenceBroker, RaiseFeatureLevel, RegisterBroker, SetSettings, SnapshotTaken,
    UnregisterBroker,
};
pub use compaction::{
    CLEANING_LEVEL, COMPACTION_LEVEL, CleanedShare, CommitCompaction, CompactedRun, CompactedShare, OBJECT_LEVEL_MAX,
};
pub use entry::{Entry, EntryError, FEATURE_LEVEL_MAX};
pub use epochs::{RecordEpochs, epoch, epochs, generation_of};
pub use forks::Forks;
pub use group::{
    ChangeGroup, CommitOffsets, CommittedOffset, DeleteGroup, DeleteOffsets, Group, GroupHeader, GroupName,
    GroupOffsets, GroupProtocol, MemberProtocol, MemberRecord, OWN_VERSIONS_LEVEL, OffsetSpec, SeenOffset,
    TargetRecord, TopicPartitions,
};
pub use offsets_topic::{OFFSETS_TOPIC, OffsetsRecord, Tombstone, offsets_partition_of};
pub use outcome::{BatchOutcome, OffsetsOutcome, Outcome, Refusal};
pub use producer::{BatchSequence, ProducerState};
pub use runs::{BatchSpec, ProducerSpec, RunSpec, RunsReader, RunsWriter};
pub use settings::Settings;
pub use snapshot::{SnapshotError, SnapshotHeader};
pub use tail::{Marker, Run, Tail};
pub use topic::{KeptSnapshot, ObjectMeta, Partition, Topic};
pub use transaction::{
    Aborted, Ended, OpenTransaction, PartitionTransactions, Producing, TRANSACTIONS_LEVEL, TransactionalId,
    TransactionalProducer,
};
pub use transaction_commands::{
    AbortTransaction, AddToTransaction, EndTransaction, ExpireTransactionalIds, ExpiredTransactionalId, InitProducer,
    OffsetsTransaction, ProducerStamp,
};
