//! The checker: whether a correct broker can have shown this history. It flags nothing that is legal, also where that
//! costs it an anomaly: operations whose end is unknown may have happened, or happen later; plain producers may write
//! twice; topics are deleted and made again under one name; a reader may have begun before something was there; times
//! that are equal or overlap say nothing of an order. Each file is one family of rules, with what they promise.
mod bounds;
mod chain;
mod commits;
mod contents;
mod eras;
mod errors;
mod facts;
mod groups;
mod inventory;
mod isolation;
mod keys;
mod liveness;
mod lookups;
mod loss;
mod order;
mod polls;
mod report;
mod topics;
mod transactions;

use std::collections::BTreeMap;

use super::operation::{End, History, What};
use facts::Facts;
pub use inventory::{Inventory, LogInventory, Object, Run};
pub use report::{Anomaly, Count, Report, Rule};

/// What the cluster that made the history was asked to promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How far a fetch may lag behind what other brokers acknowledged, in µs: the longest time that a broker which is cut
    /// off goes on to serve reads. Only fetches may lag.
    pub poll_lag_us: u64,
    /// The same for a fetch that finds itself at the end: a broker that is cut off sends those away who could wait in vain.
    pub end_lag_us: u64,
    /// How far a fetch, or a heartbeat, may lag behind what the same broker told before, in µs: not at all, unless a broker
    /// may answer that another of its name has replaced.
    pub own_lag_us: u64,
    /// Records may vanish by time or size. Without it, only DeleteRecords moves a log start.
    pub retention: bool,
    /// Topics whose records vanish by time, and by nothing else but DeleteRecords.
    pub expiry: Option<Expiry>,
    /// Topics that keep the last record of each key, with how long tombstones stay at least, in ms.
    pub compacted: BTreeMap<String, i64>,
    /// Offsets may have holes (transactions, compaction).
    pub holes_legal: bool,
    /// Every topic keeps its broker's times. Topics whose `message.timestamp.type` is set in the history are known.
    pub log_append_time: bool,
    /// A refusal that says "there is none" is final and exact: unknown topics, offsets out of range, deleted topics that
    /// are gone. Kafka itself is not so strict while metadata travel.
    pub strict_no: bool,
    /// There is one leader epoch for all that was acknowledged.
    pub one_epoch: bool,
    /// Records were taken from objects by `fork resolve`: among them may be some that were refused.
    pub salvaged: bool,
    /// Brokers' clocks were wrong at times, so that a broker that starts may take a transaction for older than it is.
    pub clocks_differ: bool,
    /// The longest time until an answer, after healing and the first question, in µs.
    pub liveness_us: u64,
    /// The final phase reads every log that was acknowledged anything, from beginning to end.
    pub final_reads: bool,
    /// Principals are authorized, or not: then refusals by authorization are legal.
    pub authorization: bool,
    /// More orphans than this are an anomaly.
    pub orphans_max: Option<u64>,
}

/// Retention by time, of topics that have the same for as long as they are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expiry {
    /// How long records are kept since their timestamp, by topic, in ms.
    pub kept_ms: BTreeMap<String, i64>,
    /// The wall clock at time 0 of the history, in ms.
    pub wall_ms: i64,
    /// How far a broker's clock may be ahead, in ms.
    pub ahead_ms: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            poll_lag_us: 10_000_000,
            end_lag_us: 10_000_000,
            own_lag_us: 0,
            retention: false,
            expiry: None,
            compacted: BTreeMap::new(),
            holes_legal: false,
            log_append_time: false,
            strict_no: true,
            one_epoch: true,
            salvaged: false,
            clocks_differ: false,
            liveness_us: 30_000_000,
            final_reads: false,
            authorization: false,
            orphans_max: None,
        }
    }
}

/// The verdict on what clients saw.
#[must_use]
pub fn check(history: &History, options: &Options) -> Report {
    check_with(history, None, options)
}

/// The verdict on what clients saw, and on what metadata and bucket hold when all is over.
#[must_use]
pub fn check_with(history: &History, inventory: Option<&Inventory>, options: &Options) -> Report {
    let mut report = Report::new();
    count_outcomes(history, &mut report);
    let facts = Facts::gather(history, options);
    contents::check(&facts, &mut report);
    loss::check(&facts, &mut report);
    keys::check(&facts, &mut report);
    order::check(&facts, &mut report);
    polls::check(&facts, &mut report);
    lookups::check(&facts, &mut report);
    isolation::check(&facts, &mut report);
    chain::check(&facts, &mut report);
    commits::check(&facts, &mut report);
    groups::check(&facts, &mut report);
    topics::check(&facts, &mut report);
    errors::check(&facts, &mut report);
    liveness::check(&facts, &mut report);
    if let Some(inventory) = inventory {
        inventory::check(&facts, inventory, &mut report);
    }
    report
}

fn count_outcomes(history: &History, report: &mut Report) {
    for operation in &history.operations {
        let end = match &operation.end {
            End::Ok => "ok".to_owned(),
            End::Fail(_) => format!("fail {}", operation.end.error()),
            End::Info(_) => format!("info {}", operation.end.error()),
        };
        *report.outcomes.entry(kind(&operation.what)).or_default().entry(end).or_default() += 1;
    }
}

/// The operation's kind, as it is written in JSON lines.
fn kind(what: &What) -> &'static str {
    match what {
        What::Send { .. } => "send",
        What::Poll { .. } => "poll",
        What::ListOffsets { .. } => "list_offsets",
        What::EpochEnd { .. } => "epoch_end",
        What::DeleteRecords { .. } => "delete_records",
        What::CreateTopic { .. } => "create_topic",
        What::DeleteTopic { .. } => "delete_topic",
        What::Grow { .. } => "grow",
        What::AlterConfig { .. } => "alter_config",
        What::DescribeConfig { .. } => "describe_config",
        What::Describe { .. } => "describe",
        What::InitProducer { .. } => "init_producer",
        What::SendOffsets { .. } => "send_offsets",
        What::EndTransaction { .. } => "end_transaction",
        What::Assigned { .. } => "assigned",
        What::Left { .. } => "left",
        What::Heartbeat { .. } => "heartbeat",
        What::Commit { .. } => "commit",
        What::Committed { .. } => "committed",
        What::DeleteGroup { .. } => "delete_group",
        What::Note(_) => "note",
    }
}
