//! Deletes objects that nothing refers to. State says which (`State::dead_objects`); when a grace has passed since this broker
//! saw it, they are deleted from the bucket, and then forgotten by State. None comes alive again, so that a broker that stood
//! still may go on with what it knew; and a reader that knew them longer looks again (`fetch`).
use std::sync::Arc;
use std::time::Duration;
use tracing::debug;

use super::ages::Ages;
use super::{BETWEEN_BULKS, Upkeep};
use crate::segment::ObjectName;
use crate::state::{ForgetObjects, Outcome, State};
use crate::store::DELETES_MAX;
use crate::types::{ObjectId, Position};

/// How often it is looked for what has died: so that one entry forgets many, a part of the grace.
const LOOKS_IN_GRACE: u32 = 8;
const LOOK_EVERY_MIN: Duration = Duration::from_millis(100);
const LOOK_EVERY_MAX: Duration = Duration::from_secs(10);

/// An object to be deleted: its number and the entry by which it died, its name, its bytes.
type Dead = ((ObjectId, Position), ObjectName, u64);

/// Looks and deletes until the broker stops.
pub(super) async fn run(upkeep: Arc<Upkeep>) {
    let mut ages = Ages::default();
    loop {
        let grace = grace(&upkeep.replica.state());
        if !upkeep.rest((grace / LOOKS_IN_GRACE).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX)).await {
            return;
        }
        // Also while another broker does it: whoever takes over knows what is old.
        let old = ages.look(upkeep.world.now(), upkeep.replica.applied().position, grace);
        if let Some(old) = old
            && upkeep.is_ours()
        {
            upkeep.collect(old).await;
        }
    }
}

fn grace(state: &State) -> Duration {
    Duration::from_millis(u64::try_from(state.settings().garbage_grace_ms).unwrap_or(0))
}

impl Upkeep {
    /// Deletes what has been dead since `old` or earlier. The orphan horizon is raised above it before: a second copy of it, or
    /// one that the bucket makes of a PUT that comes late, is nobody's then, also for the salvage after a fork.
    async fn collect(&self, old: Position) {
        loop {
            let mut due = due(&self.replica.state(), old);
            let Some(last) = due.iter().map(|(_, name, _)| name.applied.position).max() else { return };
            let horizon = self.raise_horizon_towards(last.next()).await;
            due.retain(|(_, name, _)| name.applied.position < horizon);
            if due.is_empty() {
                return;
            }
            let mut gone = self.delete("dead", &due).await;
            gone.sort_unstable();
            let (all, forgotten) = (due.len(), gone.len());
            if !gone.is_empty() {
                match self.replica.propose(ForgetObjects::new(&gone)).await {
                    Ok(Outcome::Counted { .. }) => debug!(objects = forgotten, "dead objects are deleted"),
                    // They are deleted once more.
                    other => debug!(?other, "deleted objects are not forgotten yet"),
                }
            }
            if forgotten < all || all < DELETES_MAX || !self.rest(BETWEEN_BULKS).await {
                return;
            }
        }
    }
}

/// What is to be deleted, as much as one bulk takes.
fn due(state: &State, old: Position) -> Vec<Dead> {
    let due = state.deaths().filter(|(_, death)| death.since <= old).take(DELETES_MAX);
    let with_name = due.filter_map(|(id, death)| {
        let meta = state.object(id)?;
        Some(((id, death.since), meta.name, u64::from(meta.bytes)))
    });
    with_name.collect()
}
