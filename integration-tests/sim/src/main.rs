//! Runs seeds and says what came of them.
use clap::Parser;
use std::time::Instant;
use strandline_sim::plan::Plan;
use strandline_sim::run::{catch_panics, run};

/// Runs the simulation.
#[derive(Parser)]
struct Arguments {
    /// The one seed to run.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds, from 0 on.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// Without faults.
    #[arg(long)]
    calm: bool,
}

#[allow(clippy::disallowed_methods, reason = "this clock tells people how long it took")]
fn main() {
    let arguments = Arguments::parse();
    catch_panics();
    let seeds = arguments.seed.map_or(0..arguments.seeds, |seed| seed..seed + 1);
    for seed in seeds {
        let plan = if arguments.calm { Plan::calm(seed) } else { Plan::of(seed) };
        let begun = Instant::now();
        let ran = run(seed, &plan);
        println!(
            "seed {seed}: {} operations in {:?}, {:?} real, trace {:016x} of {} events",
            ran.history.operations.len(),
            ran.virtual_time,
            begun.elapsed(),
            ran.trace.0,
            ran.trace.1
        );
        for (fault, count) in ran.faults {
            println!("  {count:>6} {}", fault.name());
        }
        for trouble in ran.troubles {
            println!("  TROUBLE {trouble}");
        }
    }
}
