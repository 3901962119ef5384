//! One run: a cluster, its clients, its faults, and what the clients saw.
use strandline::world::World;
use strandline_history::History;

use crate::network::Network;
use crate::recorder::Recorder;
use crate::{Site, clients, cluster};

/// What a run leaves behind.
pub struct Ran {
    pub history: History,
}

/// Runs one seed, on a runtime of its own.
///
/// # Panics
/// If no runtime can be made.
#[must_use]
pub fn run(seed: u64) -> Ran {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("it needs no resource of the system").block_on(run_inside(seed))
}

async fn run_inside(seed: u64) -> Ran {
    let world = World::seeded(seed);
    let network = Network::new();
    let address = cluster::start(&network, &world, seed).await;
    let recorder = Recorder::new(&world, seed);
    let site = Site {
        world: world.clone(),
        network,
        recorder: recorder.clone(),
        run: seed,
        process: 0,
        bootstrap: vec![address],
    };
    let clients = clients::start(&site, seed);
    clients.stop().await;
    recorder.healed();
    clients::read_back(&site).await;
    Ran { history: recorder.take() }
}
