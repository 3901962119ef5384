//! The proof of the checker: with each planted defect, seeds are run until what clients saw gives it away.
use clap::Args;
use std::collections::BTreeSet;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use strandline::planted::{Defect, activate};
use strandline_sim::plan::Plan;
use strandline_sim::run::run;
use strandline_sim::verdict::Verdict;

use crate::now;

#[derive(Args)]
pub(super) struct Arguments {
    /// Only this defect, by its name.
    #[arg(long)]
    only: Option<String>,
    /// Seeds after which a defect counts as not found.
    #[arg(long, default_value_t = 250)]
    patience: u64,
    /// Part of the defects that must be found, in percent.
    #[arg(long, default_value_t = 95)]
    score_min: usize,
}

/// How a defect was found.
struct Found {
    seeds: u64,
    rules: BTreeSet<String>,
    seconds: f64,
}

pub(super) fn hunt(arguments: &Arguments, jobs: u64) -> ExitCode {
    let wanted = |defect: &Defect| arguments.only.as_ref().is_none_or(|only| only == defect.name());
    let defects: Vec<Defect> = Defect::ALL.iter().copied().filter(wanted).collect();
    let found: Mutex<Vec<(Defect, Option<Found>)>> = Mutex::default();
    let longest = AtomicU64::new(0);
    side_by_side(0..defects.len() as u64, jobs, |at| {
        let defect = defects[usize::try_from(at).unwrap_or(0)];
        let result = search(defect, arguments.patience);
        let line = match &result {
            Some(Found { seeds, rules, seconds }) => {
                longest.fetch_max(*seeds, Ordering::Relaxed);
                let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
                format!("found after {seeds:>3} seeds, {seconds:>6.1} s, by {}", rules.join(" "))
            }
            None => format!("NOT FOUND in {} seeds", arguments.patience),
        };
        println!("{:<32} {:<6} {line}", defect.name(), defect.origin());
        found.lock().expect("no thread panics while it holds it").push((defect, result));
    });
    let found = found.into_inner().expect("no thread panics while it holds it");
    let mut seeds: Vec<u64> = found.iter().filter_map(|(_, found)| Some(found.as_ref()?.seeds)).collect();
    seeds.sort_unstable();
    let median = seeds.get(seeds.len() / 2).copied().unwrap_or(0);
    let score = 100 * seeds.len() / found.len().max(1);
    let alarms = control(longest.into_inner().max(1), jobs);
    println!(
        "{} of {} defects found ({score} %), median {median} seeds; the control ran {} seeds with {alarms} alarms",
        seeds.len(),
        found.len(),
        seeds.last().copied().unwrap_or(1),
    );
    if score >= arguments.score_min && alarms == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Calls `work` for each number on as many threads as `jobs` says.
fn side_by_side(numbers: Range<u64>, jobs: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(numbers.start);
    let worker = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= numbers.end {
                return;
            }
            work(number);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(worker);
        }
    });
}

/// Runs seeds until the checker finds the defect in what clients saw; what brokers say of themselves does not count.
fn search(defect: Defect, patience: u64) -> Option<Found> {
    let begun = now();
    activate(Some(defect));
    let found = (0..patience).find_map(|seed| {
        let verdict = Verdict::of(run(seed, &Plan::of(seed)));
        let rules: BTreeSet<String> = verdict.report.broken().iter().map(ToString::to_string).collect();
        let seconds = begun.elapsed().as_secs_f64();
        (!rules.is_empty()).then_some(Found { seeds: seed + 1, rules, seconds })
    });
    activate(None);
    found
}

/// The same seeds without a defect: how many of them raise an alarm.
fn control(seeds: u64, jobs: u64) -> u64 {
    let alarms = AtomicU64::new(0);
    side_by_side(0..seeds, jobs, |seed| {
        let verdict = Verdict::of(run(seed, &Plan::of(seed)));
        if !verdict.is_clean() {
            println!("the control fails at seed {seed}\n{verdict}");
            alarms.fetch_add(1, Ordering::Relaxed);
        }
    });
    alarms.into_inner()
}
