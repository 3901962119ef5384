//! Runs seeds and says what came of them.
use clap::Parser;

/// Runs the simulation.
#[derive(Parser)]
struct Arguments {
    /// The one seed to run.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds, from 0 on.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
}

fn main() {
    let arguments = Arguments::parse();
    let seeds = arguments.seed.map_or(0..arguments.seeds, |seed| seed..seed + 1);
    for seed in seeds {
        let ran = strandline_sim::run::run(seed);
        println!("seed {seed}: {} operations", ran.history.operations.len());
    }
}
