//! What many runs were together: how much they did, what went wrong on purpose, and what was never reached.
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;
use strandline_history::check::Rule;

use crate::faults::Fault;
use crate::verdict::Verdict;

/// What a run must have had to count.
const PROCESSES_MIN: usize = 3;
const OPERATIONS_MIN: usize = 2_000;
const VIRTUAL_TIME_MIN: Duration = Duration::from_secs(60);
const KINDS_OF_FAULT_MIN: usize = 3;

/// The sum of the verdicts so far; by names, so that processes can tell each other.
#[derive(Default, Serialize, Deserialize)]
pub struct Summary {
    pub runs: u64,
    /// Runs that did enough to count.
    pub counted: u64,
    /// Runs with an anomaly or a trouble.
    pub failed: BTreeSet<u64>,
    virtual_time: Duration,
    operations: u64,
    outcomes: BTreeMap<String, BTreeMap<String, u64>>,
    faults: BTreeMap<String, u64>,
    /// Which fault happened while what was under way.
    met: BTreeSet<(String, String)>,
    checked: BTreeMap<String, u64>,
    too_small: BTreeMap<String, u64>,
    offsets: u64,
    compacted_offsets: u64,
    /// Runs in which compaction did something that was there in the end.
    compacted: u64,
}

impl Summary {
    pub fn add(&mut self, seed: u64, verdict: &Verdict) {
        self.runs += 1;
        let small = too_small(verdict);
        self.counted += u64::from(small.is_none());
        if let Some(why) = small {
            *self.too_small.entry(why.to_owned()).or_default() += 1;
        }
        if !verdict.is_clean() {
            self.failed.insert(seed);
        }
        self.virtual_time += verdict.virtual_time;
        self.offsets += verdict.offsets;
        self.compacted_offsets += verdict.compacted_offsets;
        self.compacted += u64::from(verdict.compacted_offsets > 0);
        self.operations += verdict.operations as u64;
        for (kind, ends) in &verdict.report.outcomes {
            add_all(
                self.outcomes.entry((*kind).to_owned()).or_default(),
                ends.iter().map(|(end, n)| (end.clone(), *n)),
            );
        }
        add_all(&mut self.faults, verdict.faults.iter().map(|(fault, n)| (fault.name().to_owned(), *n)));
        self.met.extend(verdict.met.iter().map(|(fault, kind)| (fault.name().to_owned(), (*kind).to_owned())));
        add_all(&mut self.checked, verdict.report.counts.iter().map(|(rule, n)| (rule.to_string(), n.checked)));
    }

    /// Counts a seed that was run twice.
    pub fn compared(&mut self, seed: u64, same: bool) {
        self.runs += 1;
        if !same {
            self.failed.insert(seed);
        }
    }

    /// Adds what another process has summed up.
    pub fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.counted += other.counted;
        self.failed.extend(other.failed);
        self.virtual_time += other.virtual_time;
        self.offsets += other.offsets;
        self.compacted_offsets += other.compacted_offsets;
        self.compacted += other.compacted;
        self.operations += other.operations;
        for (kind, ends) in other.outcomes {
            add_all(self.outcomes.entry(kind).or_default(), ends);
        }
        add_all(&mut self.faults, other.faults);
        self.met.extend(other.met);
        add_all(&mut self.checked, other.checked);
        add_all(&mut self.too_small, other.too_small);
    }
}

fn add_all(sums: &mut BTreeMap<String, u64>, counts: impl IntoIterator<Item = (String, u64)>) {
    for (name, count) in counts {
        *sums.entry(name).or_default() += count;
    }
}

/// Why a run does not count, if it does not.
fn too_small(verdict: &Verdict) -> Option<&'static str> {
    let crashes = [Fault::Crash, Fault::PowerLoss].iter().any(|fault| verdict.faults.contains_key(fault));
    match () {
        () if verdict.processes < PROCESSES_MIN => Some("too few clients"),
        () if verdict.operations < OPERATIONS_MIN => Some("too few operations"),
        () if verdict.virtual_time < VIRTUAL_TIME_MIN => Some("too short"),
        () if verdict.faults.len() < KINDS_OF_FAULT_MIN => Some("too few kinds of fault"),
        () if !crashes => Some("no crash"),
        () => None,
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\noperations and how they ended:")?;
        for (kind, ends) in &self.outcomes {
            let ends: Vec<String> = ends.iter().map(|(end, count)| format!("{end} {count}")).collect();
            writeln!(f, "  {kind}: {}", ends.join(", "))?;
        }
        writeln!(f, "faults:")?;
        for fault in Fault::ALL {
            writeln!(f, "  {:>8} {}", self.faults.get(fault.name()).copied().unwrap_or(0), fault.name())?;
        }
        writeln!(f, "never under way when a fault happened:")?;
        let kinds: BTreeSet<&String> = self.met.iter().map(|(_, kind)| kind).collect();
        for fault in Fault::ALL {
            let met = |kind: &str| self.met.contains(&(fault.name().to_owned(), kind.to_owned()));
            let missed: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).filter(|kind| !met(kind)).collect();
            if !missed.is_empty() {
                writeln!(f, "  {}: {}", fault.name(), missed.join(", "))?;
            }
        }
        writeln!(f, "checked:")?;
        for rule in Rule::ALL {
            let count = self.checked.get(&rule.to_string()).copied().unwrap_or(0);
            writeln!(f, "  {count:>10} {rule}  {}", rule.promise())?;
        }
        let Self { offsets, compacted_offsets, compacted, .. } = self;
        writeln!(
            f,
            "{compacted_offsets} of {offsets} offsets lay in compacted objects in the end, in {compacted} runs"
        )?;
        for (why, count) in &self.too_small {
            writeln!(f, "{count} runs do not count: {why}")?;
        }
        write!(
            f,
            "{} runs, {} count, {} operations in {:.1} virtual hours, {} runs failed",
            self.runs,
            self.counted,
            self.operations,
            self.virtual_time.as_secs_f64() / 3600.0,
            self.failed.len()
        )
    }
}
