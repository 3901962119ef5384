//! Expiry of idempotent producers: names those that were not used for `producer.id.expiration.ms`, with their last use,
//! so that `apply` spares one that was used since (H16).
use std::time::Duration;

use super::Replica;
use crate::planted::{Defect, planted};
use crate::state::{ExpireProducers, ExpiredProducer, State};
use crate::types::TimestampMs;
use crate::world::World;

/// How often State is looked through: producers live for a day by default, so a minute late is nothing.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Producers that one command names at most (H15).
const NAMED_MAX: usize = 10_000;

/// Proposes expiries until the broker stops.
pub(super) async fn run(replica: Replica, world: World) {
    loop {
        world.sleep(if planted(Defect::ExpiryOfUsed) { LOOK_EVERY / 6 } else { LOOK_EVERY }).await;
        loop {
            let producers = expired(&replica.state(), world.wall_ms());
            let more = producers.len() == NAMED_MAX;
            if producers.is_empty() || replica.propose(ExpireProducers { producers }).await.is_err() || !more {
                break;
            }
        }
    }
}

fn expired(state: &State, now: TimestampMs) -> Vec<ExpiredProducer> {
    let kept_ms = state.settings().producer_expiration_ms;
    let kept_ms = if planted(Defect::ExpiryOfUsed) { kept_ms / 10_000 } else { kept_ms };
    let old = state.producers().filter(|(_, _, p)| now.0.saturating_sub(p.last_used_ms.0) > kept_ms);
    old.take(NAMED_MAX)
        .map(|(slot, id, p)| ExpiredProducer { slot: slot.0, id: id.0, last_used: p.last_used.0 })
        .collect()
}
