//! What keeps the bucket to exactly what retention allows, done by one broker for all: log starts move past old records
//! (`retain`), objects that nothing refers to are deleted (`collect`), and so are those that no entry ever named (`sweep`); and
//! what proves that it did so (`audit`).
//! It promises that nothing is deleted that State refers to, or may refer to again: State decides, listings and clocks only
//! nominate (H4), and a step that is interrupted is only repeated. Two brokers that both think it is theirs do no harm. It
//! never touches what lies outside `data/` and `compacted/`. Plans are pure. Tests: beside each file, and the simulation.
mod ages;
mod audit;
mod collect;
mod retain;
mod sweep;

use std::sync::Arc;
use std::time::Duration;
use tracing::debug;

use crate::cluster::Membership;
use crate::config::Config;
use crate::metadata::Replica;
use crate::segment::ObjectName;
use crate::state::COLLECTION_LEVEL;
use crate::store::{Bucket, DELETES_MAX, Purpose};
use crate::telemetry::Metrics;
use crate::world::World;

pub use audit::{Report, Scope, audit};
pub use sweep::{Due, Orphan, orphans};

/// Between two bulks of deletes: about a thousand objects a second, less than a third of what S3 gives one prefix, and far
/// more than a cluster makes.
const BETWEEN_BULKS: Duration = Duration::from_secs(1);

/// The tasks, and what they work on.
pub struct Upkeep {
    pub world: World,
    pub replica: Replica,
    pub membership: Membership,
    pub bucket: Arc<dyn Bucket>,
    pub metrics: Arc<Metrics>,
    pub config: Arc<Config>,
}

impl Upkeep {
    /// Works until the broker stops.
    pub fn start(self) {
        let (world, upkeep) = (self.world.clone(), Arc::new(self));
        world.spawn("retention", retain::run(upkeep.clone()));
        world.spawn("collection", collect::run(upkeep.clone()));
        world.spawn("sweep", sweep::run(upkeep.clone()));
        world.spawn("audit", audit::run(upkeep));
    }

    /// Whether the cluster knows of all this, and it is this broker's to do.
    fn is_ours(&self) -> bool {
        self.replica.state().feature_level() >= COLLECTION_LEVEL && self.membership.now().does_upkeep()
    }

    /// Passes `time`; false at once if the broker stops.
    async fn rest(&self, time: Duration) -> bool {
        self.world.timeout(time, self.replica.stopped()).await.is_none()
    }

    /// Deletes up to [`DELETES_MAX`] objects, which `what` tells in metrics; those of which it is certain that they are gone.
    /// Whoever stood still while the journal lost entries (H2) is told so by an append, before anything is gone that the State of
    /// now may name.
    async fn delete<T: Copy>(&self, what: &'static str, doomed: &[(T, ObjectName, u64)]) -> Vec<T> {
        debug_assert!(doomed.len() <= DELETES_MAX, "a bulk has at most that many");
        if self.replica.heartbeat().await.is_err() {
            return Vec::new();
        }
        let keys: Vec<String> = doomed.iter().map(|(_, name, _)| name.key()).collect();
        let results = self.bucket.delete_all(&keys, Purpose::Upkeep).await;
        let mut gone = Vec::with_capacity(doomed.len());
        for ((id, _, bytes), result) in doomed.iter().zip(results) {
            match result {
                Ok(()) => {
                    self.metrics.upkeep.deleted(what, *bytes);
                    gone.push(*id);
                }
                Err(error) => {
                    self.metrics.upkeep.failed_deletions.inc();
                    debug!(%error, what, "an object is not deleted yet, it is tried again");
                }
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests;
