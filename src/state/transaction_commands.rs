//! Commands about transactions, from feature level 4 on. Specified in `docs/formats/journal.md`.

/// Gives a transactional id's producer id and epoch to a new instance of its producer, which fences the one before. A
/// transaction that is open is aborted first (InitProducerId).
#[derive(Clone, PartialEq, prost::Message)]
pub struct InitProducer {
    #[prost(string, tag = "1")]
    pub transactional_id: String,
    #[prost(int32, tag = "2")]
    pub timeout_ms: i32,
    /// Who asks, where it has been given an epoch before; refused if that is not the present one (KIP-360).
    #[prost(message, optional, tag = "3")]
    pub exchanged: Option<ProducerStamp>,
}

/// A producer id and its epoch.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ProducerStamp {
    #[prost(int64, tag = "1")]
    pub id: i64,
    #[prost(sint32, tag = "2")]
    pub epoch: i32,
}

/// Adds partitions and groups to a transaction, which begins with them if it is not open (AddPartitionsToTxn,
/// AddOffsetsToTxn).
#[derive(Clone, PartialEq, prost::Message)]
pub struct AddToTransaction {
    #[prost(string, tag = "1")]
    pub transactional_id: String,
    #[prost(message, required, tag = "2")]
    pub producer: ProducerStamp,
    #[prost(uint32, repeated, tag = "3")]
    pub slots: Vec<u32>,
    #[prost(string, repeated, tag = "4")]
    pub groups: Vec<String>,
}

/// Ends a transaction: its markers get their offsets, and the offsets of its groups are committed, all at once (EndTxn).
#[derive(Clone, PartialEq, prost::Message)]
pub struct EndTransaction {
    #[prost(string, tag = "1")]
    pub transactional_id: String,
    #[prost(message, required, tag = "2")]
    pub producer: ProducerStamp,
    #[prost(bool, tag = "3")]
    pub commit: bool,
    /// The producer goes on with another epoch (version 2 of transactions, KIP-890).
    #[prost(bool, tag = "4")]
    pub bump: bool,
}

/// Aborts a transaction without its producer, which is fenced: because of its time-out, or by an operator. Only the
/// transaction that is named: not one that has begun since (H16).
#[derive(Clone, PartialEq, prost::Message)]
pub struct AbortTransaction {
    #[prost(string, tag = "1")]
    pub transactional_id: String,
    #[prost(message, required, tag = "2")]
    pub producer: ProducerStamp,
    /// The entry with which it began.
    #[prost(uint64, tag = "3")]
    pub since: u64,
}

/// Forgets transactional ids that were not used since (H16).
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExpireTransactionalIds {
    #[prost(message, repeated, tag = "1")]
    pub ids: Vec<ExpiredTransactionalId>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ExpiredTransactionalId {
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its last use as the proposer saw it; a later one saves it.
    #[prost(uint64, tag = "2")]
    pub last_used: u64,
}

/// The transaction that a commit of offsets is part of.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OffsetsTransaction {
    #[prost(string, tag = "1")]
    pub transactional_id: String,
    #[prost(message, required, tag = "2")]
    pub producer: ProducerStamp,
    /// The group joins the transaction with it, which begins if it is not open (version 2). Else it was added before.
    #[prost(bool, tag = "3")]
    pub joins: bool,
}
