//! What is said of one run.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;
use strandline::segment::COMPACTED_PREFIX;
use strandline_history::check::{Expiry, Options, Report, Run, check_with};
use strandline_history::{End, What};

use crate::clients::{FLEETING, KEPT_MS, TABLES, TOMBSTONES_KEPT_MS};
use crate::faults::Fault;
use crate::run::Ran;

/// See the module.
pub struct Verdict {
    /// What the checker says of what clients saw.
    pub report: Report,
    /// What went wrong beside it.
    pub troubles: Vec<String>,
    pub operations: usize,
    pub processes: usize,
    pub virtual_time: Duration,
    pub faults: BTreeMap<Fault, u64>,
    pub met: BTreeSet<(Fault, &'static str)>,
    pub trace: (u64, u64),
    /// Offsets in the end, and those of them that lie in compacted objects.
    pub offsets: u64,
    pub compacted_offsets: u64,
}

/// Longer than anything keeps a broker from the journal.
const LAG_US: u64 = 60_000_000;

/// Longer than a broker that knows of others, and not what the journal has, keeps those who wait for what comes.
const STALENESS_US: u64 = 2_000_000;

/// How far a broker's clock is ahead at most, where clocks are wrong.
const AHEAD_MS: i64 = 3_600_000;

impl Verdict {
    /// Looks through what a run has left.
    #[must_use]
    pub fn of(ran: Ran) -> Self {
        // One that stood still while another took its name serves reads and members for a moment.
        let replaced = ran.faults.contains_key(&Fault::Replaced);
        let own_lag_us = if replaced { LAG_US } else { 0 };
        // A broker that is cut off from the journal serves what it knows for as long as that lasts. Who has read all of it
        // is sent away, unless the broker is the only one as far as it knows.
        let end_lag_us = if replaced || ran.alone { LAG_US } else { STALENESS_US };
        // Each fork begins a generation of the history, which has epochs of its own.
        let salvaged = ran.faults.contains_key(&Fault::Fork);
        let one_epoch = !salvaged;
        let lags = Options { poll_lag_us: LAG_US, end_lag_us, own_lag_us, ..Options::default() };
        let clocks_differ = [Fault::ClockJump, Fault::ClockSkew].iter().any(|fault| ran.faults.contains_key(fault));
        // A broker that is alone has nobody's clock but its own.
        let ahead_ms = if clocks_differ { AHEAD_MS } else { 100 };
        let expiry = Expiry { kept_ms: [(FLEETING.to_owned(), KEPT_MS)].into(), wall_ms: ran.wall_ms, ahead_ms };
        let expiry = Some(expiry);
        let orphans_max = Some(0);
        let tombstones_ms = if clocks_differ { 0 } else { TOMBSTONES_KEPT_MS };
        let compacted = [(TABLES.to_owned(), tombstones_ms)].into();
        let facts = Options { one_epoch, salvaged, clocks_differ, ..lags };
        let options = Options { final_reads: true, expiry, compacted, orphans_max, ..facts };
        let report = check_with(&ran.history, ran.inventory.as_ref(), &options);
        let runs = || ran.inventory.iter().flat_map(|inventory| inventory.logs.iter().flat_map(|log| &log.runs));
        let offsets = |runs: &mut dyn Iterator<Item = &Run>| runs.map(|run| run.count.unsigned_abs()).sum::<u64>();
        let compacted_offsets = offsets(&mut runs().filter(|run| run.object.starts_with(COMPACTED_PREFIX)));
        let offsets = offsets(&mut runs());
        let processes: BTreeSet<u32> = ran.history.operations.iter().map(|operation| operation.process).collect();
        let mut troubles = ran.troubles;
        let protocol = ran.history.operations.iter().filter_map(|operation| match (&operation.what, &operation.end) {
            (What::Note(text), End::Fail(_)) => Some(text.clone()),
            _ => None,
        });
        troubles.extend(protocol);
        Self {
            report,
            troubles,
            operations: ran.history.operations.len(),
            processes: processes.len(),
            virtual_time: ran.virtual_time,
            faults: ran.faults,
            met: ran.met,
            trace: ran.trace,
            offsets,
            compacted_offsets,
        }
    }

    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.report.is_clean() && self.troubles.is_empty()
    }
}

/// Characters of one anomaly or trouble that are shown.
const SHOWN_MAX: usize = 600;

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for anomaly in &self.report.anomalies {
            let text = format!("{}: {} {:?}", anomaly.rule, anomaly.text, anomaly.operations);
            writeln!(f, "  {}", text.chars().take(SHOWN_MAX).collect::<String>())?;
        }
        for trouble in &self.troubles {
            writeln!(f, "  trouble: {}", trouble.chars().take(SHOWN_MAX).collect::<String>())?;
        }
        Ok(())
    }
}
