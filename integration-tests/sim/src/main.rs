//! Runs seeds and says what came of them: `sim --seeds 200`, `sim --seed 17`, `sim twice --seeds 100`, `sim mutants`.
use clap::{Parser, Subcommand};
use std::io::{BufRead, BufReader};
use std::process::{self, ExitCode, Stdio};
use std::time::Instant;
use strandline_sim::plan::Plan;
use strandline_sim::run::{catch_panics, run, virtual_time};
use strandline_sim::summary::Summary;
use strandline_sim::verdict::Verdict;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

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
    /// Seeds that run side by side, each in a process of its own: what threads share (the reclaiming of a cache's memory)
    /// would let one run's timing into another.
    #[arg(long, global = true, default_value_t = 2)]
    jobs: u64,
    /// Every how many seeds one is run.
    #[arg(long, global = true, default_value_t = 1, hide = true)]
    stride: u64,
    /// Without faults.
    #[arg(long, global = true)]
    calm: bool,
    /// Prints what brokers log from this level on (info, debug, trace), with the virtual time.
    #[arg(long, global = true)]
    log: Option<tracing::Level>,
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
    fn seeds(&self) -> impl Iterator<Item = u64> {
        let step = usize::try_from(self.stride.max(1)).unwrap_or(1);
        self.seed.map_or(self.from..self.from + self.seeds, |seed| seed..seed + 1).step_by(step)
    }

    fn plan(&self, seed: u64) -> Plan {
        if self.calm { Plan::calm(seed) } else { Plan::of(seed) }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    catch_panics();
    if let Some(level) = arguments.log {
        tracing_subscriber::fmt().with_max_level(level).with_timer(VirtualTime).with_ansi(false).init();
    }
    let begun = now();
    let alone = arguments.seed.is_some() || arguments.jobs <= 1;
    let summary = match &arguments.command {
        #[cfg(feature = "planted")]
        Some(Command::Mutants(which)) => return mutants::hunt(which, arguments.jobs),
        _ if !alone => divide(&arguments),
        Some(Command::Twice) => twice(&arguments),
        None => simulate(&arguments),
    };
    if arguments.stride > 1 {
        println!("{SUMMARY}{}", serde_json::to_string(&summary).expect("it is made of names and numbers"));
    } else if arguments.seed.is_none() {
        println!("{summary} in {:.0} s", begun.elapsed().as_secs_f64());
    }
    if summary.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What stands before the summary that a process gives to the one that started it.
const SUMMARY: &str = "summary: ";

/// Runs the seeds in `jobs` processes, each its share.
fn divide(arguments: &Arguments) -> Summary {
    let program = std::env::current_exe().expect("this process has a program");
    let jobs = arguments.jobs.min(arguments.seeds.max(1));
    let share = |job: u64| {
        let mut process = process::Command::new(&program);
        let number = |n: u64| n.to_string();
        process.args(["--jobs", "1", "--stride", &number(jobs), "--from", &number(arguments.from + job)]);
        process.args(["--seeds", &number(arguments.seeds.saturating_sub(job))]);
        process.args(arguments.calm.then_some("--calm")).args(arguments.command.as_ref().map(|_| "twice"));
        let mut child = process.stdout(Stdio::piped()).spawn().expect("it can be started again");
        let mut summary = Summary::default();
        for line in BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok) {
            match line.strip_prefix(SUMMARY) {
                Some(json) => summary = serde_json::from_str(json).expect("it is as it was written"),
                None => println!("{line}"),
            }
        }
        if !child.wait().is_ok_and(|status| status.success()) && summary.failed.is_empty() {
            println!("a process ended early");
            summary.failed.insert(u64::MAX);
        }
        summary
    };
    std::thread::scope(|scope| {
        let shares: Vec<_> = (0..jobs).map(|job| scope.spawn(move || share(job))).collect();
        let mut all = Summary::default();
        shares.into_iter().for_each(|share| all.merge(share.join().expect("it does not panic")));
        all
    })
}

fn simulate(arguments: &Arguments) -> Summary {
    let mut summary = Summary::default();
    for seed in arguments.seeds() {
        let ran = run(seed, &arguments.plan(seed));
        if arguments.history {
            ran.history.operations.iter().for_each(|operation| println!("{operation:?}"));
        }
        let verdict = Verdict::of(ran);
        summary.add(seed, &verdict);
        if !verdict.is_clean() {
            println!("seed {seed} fails; again with: make sim SEED={seed}\n{verdict}");
        }
    }
    summary
}

fn twice(arguments: &Arguments) -> Summary {
    let mut summary = Summary::default();
    for seed in arguments.seeds() {
        let [one, two] = [(); 2].map(|()| run(seed, &arguments.plan(seed)));
        let (traces, same) = ((one.trace, two.trace), one.trace == two.trace && one.history == two.history);
        if !same {
            let operations = one.history.operations.iter().zip(&two.history.operations);
            let at = operations.take_while(|(one, two)| one == two).count();
            println!("seed {seed} is not the same twice, from operation {at} on: {traces:x?}");
        }
        summary.compared(seed, same);
    }
    summary
}

/// Seconds since the beginning of the run.
struct VirtualTime;

impl FormatTime for VirtualTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:10.3}", virtual_time().as_secs_f64())
    }
}

/// Real time, for people.
fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "it tells people how long something took")]
    Instant::now()
}
