//! Expiry of idempotent producers: names those that were not used for `producer.id.expiration.ms`, with their last use,
//! so that `apply` spares one that was used since, and waits while this broker's clock is not the others' (H16).
use std::collections::VecDeque;
use std::time::Duration;

use super::Replica;
use crate::planted::{Defect, planted};
use crate::state::{ExpireProducers, ExpiredProducer, State};
use crate::types::{Position, TimestampMs};
use crate::world::{Instant, World};

/// How often State is looked through: producers live for a day by default, so a minute late is nothing.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How long a producer is certainly remembered, however wrong the clocks of brokers are (or as long as it is kept at
/// all, if that is less): clients send a batch that may be in the log again for some minutes, and the state is what
/// recognises it.
const SPARED: Duration = Duration::from_secs(600);

/// Producers that one command names at most (H15).
const NAMED_MAX: usize = 10_000;

/// Proposes expiries until the broker stops.
pub(super) async fn run(replica: Replica, world: World) {
    let mut looks = Looks::default();
    loop {
        let kept = u64::try_from(replica.state().settings().producer_expiration_ms).unwrap_or(0);
        let kept = Duration::from_millis(kept);
        let every = kept.clamp(LOOK_EVERY / 60, LOOK_EVERY);
        world.sleep(if planted(Defect::ExpiryOfUsed) { LOOK_EVERY / 6 } else { every }).await;
        let unused_since = looks.look(world.now(), replica.state().head().position, kept.min(SPARED));
        let unused_since = if planted(Defect::ExpiryOfUsed) { Some(Position(u64::MAX)) } else { unused_since };
        while let Some(unused_since) = unused_since
            && let Some(now) = replica.agreed_wall_ms(&world)
        {
            let producers = expired(&replica.state(), now, unused_since);
            let more = producers.len() == NAMED_MAX;
            if producers.is_empty() || replica.propose(ExpireProducers { producers }).await.is_err() || !more {
                break;
            }
        }
    }
}

/// Where the journal was at the last looks: entries carry wall clocks of brokers, which may be wrong, and this tells
/// what is old by the clock of this broker alone.
#[derive(Default)]
struct Looks {
    recent: VecDeque<(Instant, Position)>,
    old: Option<Position>,
}

impl Looks {
    /// One more look. What was last used up to the position it gives has been unused for `spared`.
    fn look(&mut self, now: Instant, head: Position, spared: Duration) -> Option<Position> {
        self.recent.push_back((now, head));
        while let Some((_, position)) = self.recent.pop_front_if(|(at, _)| *at + spared <= now) {
            self.old = Some(position);
        }
        self.old
    }
}

fn expired(state: &State, now: TimestampMs, unused_since: Position) -> Vec<ExpiredProducer> {
    let kept_ms = state.settings().producer_expiration_ms;
    let kept_ms = if planted(Defect::ExpiryOfUsed) { kept_ms / 10_000 } else { kept_ms };
    let producers = state.producers().filter(|(_, _, p)| p.last_used <= unused_since);
    let old = producers.filter(|(_, _, p)| now.0.saturating_sub(p.last_used_ms.0) > kept_ms);
    old.take(NAMED_MAX)
        .map(|(slot, id, p)| ExpiredProducer { slot: slot.0, id: id.0, last_used: p.last_used.0 })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_used_a_short_while_ago_is_spared_whatever_the_clocks_say() {
        let (world, mut looks) = (World::seeded(1), Looks::default());
        let minute = Duration::from_secs(60);
        let mut found = Vec::new();
        for head in 0..4 {
            found.push(looks.look(world.now(), Position(head), 2 * minute));
            world.sleep(minute).await;
        }
        assert_eq!(found, [None, None, Some(Position(0)), Some(Position(1))]);
    }
}
