//! What metadata and bucket hold when all is over, against what clients saw: A1, A16, A17, A27 (offsets), A33 (objects
//! that are missing or damaged), A34 (objects that nobody needs).
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Facts, LogFacts};
use super::report::{Report, Rule};
use crate::operation::Log;

/// The cluster's own account. Who fills it in reads the objects too, and says what is wrong with them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    pub logs: Vec<LogInventory>,
    pub objects: Vec<Object>,
    /// Keys that something other than a run refers to (snapshots, manifests).
    pub others: Vec<String>,
}

/// One partition, as metadata have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogInventory {
    pub log: Log,
    pub log_start: i64,
    /// The offset that the next record gets.
    pub end: i64,
    /// In the order of their offsets.
    pub runs: Vec<Run>,
}

/// Records that stand together in one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub base_offset: i64,
    /// Of offsets.
    pub count: i64,
    /// Its key; empty where it is the marker of a transaction, which no object holds.
    pub object: String,
    /// Where in the object, in bytes.
    pub at: u64,
    pub bytes: u64,
}

/// One object of the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    pub key: String,
    pub bytes: u64,
    /// Younger than the grace of orphans.
    pub young: bool,
    /// What is wrong with its bytes, where they were looked at.
    pub problem: Option<String>,
}

pub(super) fn check(facts: &Facts<'_>, inventory: &Inventory, report: &mut Report) {
    let objects: BTreeMap<&str, &Object> = inventory.objects.iter().map(|o| (o.key.as_str(), o)).collect();
    for account in &inventory.logs {
        let name = format!("{}-{}", account.log.topic, account.log.partition);
        runs(&name, account, report);
        for run in account.runs.iter().filter(|run| !run.object.is_empty()) {
            run_has_object(&name, run, objects.get(run.object.as_str()).copied(), report);
        }
        for log in facts.logs.iter().filter(|log| is_of(facts, log, &account.log)) {
            against(facts, log, account, report);
        }
    }
    let runs = inventory.logs.iter().flat_map(|log| &log.runs);
    let mut needed: BTreeSet<&str> = runs.map(|run| run.object.as_str()).collect();
    needed.extend(inventory.others.iter().map(String::as_str));
    for key in inventory.others.iter().filter(|key| !objects.contains_key(key.as_str())) {
        report.expect(Rule::A33, false, &[], || format!("{key} is referred to and not in the bucket"));
    }
    let is_orphan = |object: &&Object| !object.young && !needed.contains(object.key.as_str());
    let orphans: Vec<&str> = inventory.objects.iter().filter(is_orphan).map(|object| object.key.as_str()).collect();
    report.orphans = Some(orphans.len() as u64);
    if let Some(most) = facts.options.orphans_max {
        report.expect(Rule::A34, orphans.len() as u64 <= most, &[], || {
            format!("{} orphans, {most} allowed, the first is {}", orphans.len(), orphans.first().unwrap_or(&"none"))
        });
    }
}

fn is_of(facts: &Facts<'_>, log: &LogFacts<'_>, account: &Log) -> bool {
    let ids = match (log.id, &account.id) {
        (Some(one), Some(other)) => one == other,
        (None, Some(_)) => !facts.deletions.contains_key(log.topic),
        (_, None) => true,
    };
    log.topic == account.topic && log.partition == account.partition && ids
}

fn runs(name: &str, account: &LogInventory, report: &mut Report) {
    let mut expected = None;
    for run in &account.runs {
        let begins = expected.unwrap_or(run.base_offset.min(account.log_start));
        report.expect(Rule::A17, run.base_offset <= begins && run.count > 0, &[], || {
            format!("{name}: no run has the offsets {begins}..{}", run.base_offset)
        });
        let overlaps = expected.is_some_and(|expected| run.base_offset < expected);
        report.expect(Rule::A16, !overlaps, &[], || format!("{name}: two runs have the offset {}", run.base_offset));
        expected = Some(run.base_offset.saturating_add(run.count));
    }
    let last = expected.unwrap_or(account.log_start);
    report.expect(Rule::A17, last == account.end, &[], || {
        format!("{name}: the runs end at {last}, and the log at {}", account.end)
    });
}

fn run_has_object(name: &str, run: &Run, object: Option<&Object>, report: &mut Report) {
    let problem = match object {
        None => Some("is not in the bucket".into()),
        Some(object) if object.bytes < run.at.saturating_add(run.bytes) => {
            Some(format!("has {} bytes, and the run ends at {}", object.bytes, run.at.saturating_add(run.bytes)))
        }
        Some(object) => object.problem.clone(),
    };
    report.expect(Rule::A33, problem.is_none(), &[], || {
        let (from, object) = (run.base_offset, &run.object);
        format!("{name} offsets {from}..{}: {object} {}", from + run.count, problem.unwrap_or_default())
    });
}

fn against(facts: &Facts<'_>, log: &LogFacts<'_>, account: &LogInventory, report: &mut Report) {
    let name = log.name();
    if let Some((end, teller)) = log.acked.most() {
        report.expect(Rule::A1, account.end >= end, &[facts.id(teller)], || {
            format!("{name}: acknowledged up to {end}, and metadata end at {}", account.end)
        });
    }
    if let Some((end, teller)) = log.ends.most() {
        report.expect(Rule::A18, account.end >= end, &[facts.id(teller)], || {
            format!("{name}: said to end at {end}, and metadata end at {}", account.end)
        });
    }
    let told = log.starts.most();
    let teller: Vec<u64> = told.iter().map(|(_, by)| facts.id(*by)).collect();
    let told = told.map_or(0, |(start, _)| start);
    report.expect(Rule::A27, account.log_start >= told, &teller, || {
        format!("{name}: said to start at {told}, and metadata start at {}", account.log_start)
    });
    let most = log.start_possible(u64::MAX, facts.options);
    report.expect(Rule::A27, account.log_start <= most, &[], || {
        format!("{name}: metadata start at {}, asked for was {most} at most", account.log_start)
    });
}
