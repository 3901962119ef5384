//! Runs seeds and says what came of them: `sim --seeds 200`, `sim --seed 17`, `sim twice --seeds 100`, `sim mutants`.
use clap::{Parser, Subcommand};
use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use strandline_sim::plan::Plan;
use strandline_sim::run::{catch_panics, run};
use strandline_sim::summary::Summary;
use strandline_sim::verdict::Verdict;

#[cfg(feature = "planted")]
mod mutants;

/// A whole cluster in one thread, with clients and faults from a seed.
#[derive(Parser)]
struct Arguments {
    /// The one seed to run, with all that its clients did if `--history` is given.
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// How many seeds.
    #[arg(long, global = true, default_value_t = 20)]
    seeds: u64,
    /// The first of them.
    #[arg(long, global = true, default_value_t = 0)]
    from: u64,
    /// Seeds that run side by side.
    #[arg(long, global = true, default_value_t = 2)]
    jobs: usize,
    /// Without faults.
    #[arg(long, global = true)]
    calm: bool,
    /// Prints every operation.
    #[arg(long, global = true)]
    history: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs every seed twice and compares what happened.
    Twice,
    /// Runs seeds with each planted defect until the checker finds it.
    #[cfg(feature = "planted")]
    Mutants(mutants::Arguments),
}

impl Arguments {
    fn seeds(&self) -> Range<u64> {
        self.seed.map_or(self.from..self.from + self.seeds, |seed| seed..seed + 1)
    }

    fn plan(&self, seed: u64) -> Plan {
        if self.calm { Plan::calm(seed) } else { Plan::of(seed) }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    catch_panics();
    match &arguments.command {
        None => simulate(&arguments),
        Some(Command::Twice) => twice(&arguments),
        #[cfg(feature = "planted")]
        Some(Command::Mutants(which)) => mutants::hunt(which, arguments.jobs),
    }
}

/// Calls `work` for each seed on as many threads as `jobs` says.
fn side_by_side(seeds: Range<u64>, jobs: usize, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    work(seed);
                }
            });
        }
    });
}

fn simulate(arguments: &Arguments) -> ExitCode {
    let begun = now();
    let summary = Mutex::new(Summary::default());
    side_by_side(arguments.seeds(), arguments.jobs, |seed| {
        let ran = run(seed, &arguments.plan(seed));
        if arguments.history {
            ran.history.operations.iter().for_each(|operation| println!("{operation:?}"));
        }
        let verdict = Verdict::of(ran);
        let mut summary = summary.lock().expect("no thread panics while it holds it");
        summary.add(seed, &verdict);
        if !verdict.is_clean() {
            println!("seed {seed} fails; again with: make sim SEED={seed}\n{verdict}");
        }
        if summary.runs % 100 == 0 {
            println!("{} runs after {:.0} s", summary.runs, begun.elapsed().as_secs_f64());
        }
    });
    let summary = summary.into_inner().expect("no thread panics while it holds it");
    println!("{summary} in {:.0} s", begun.elapsed().as_secs_f64());
    if summary.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn twice(arguments: &Arguments) -> ExitCode {
    let differ = Mutex::new(BTreeMap::new());
    side_by_side(arguments.seeds(), arguments.jobs, |seed| {
        let [one, two] = [(); 2].map(|()| run(seed, &arguments.plan(seed)));
        if one.trace != two.trace || one.history != two.history {
            let operations = one.history.operations.iter().zip(&two.history.operations);
            let at = operations.take_while(|(one, two)| one == two).count();
            differ.lock().expect("no thread panics while it holds it").insert(seed, (one.trace, two.trace, at));
        }
    });
    let differ = differ.into_inner().expect("no thread panics while it holds it");
    for (seed, (one, two, at)) in &differ {
        println!("seed {seed} is not the same twice, from operation {at} on: {one:x?} and {two:x?}");
    }
    println!("{} seeds twice, {} differ", arguments.seeds().count(), differ.len());
    if differ.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Real time, for people.
fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "it tells people how long something took")]
    Instant::now()
}
