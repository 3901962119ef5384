//! How old journal positions are by this broker's own clock since it started: what it had applied so long ago is at least as
//! old, whatever wall clocks say.
use std::collections::VecDeque;
use std::time::Duration;

use crate::types::Position;
use crate::world::Instant;

/// Looks that are remembered. More often than that in an age nobody has to know.
const LOOKS_MAX: u32 = 512;

/// See the module.
#[derive(Default)]
pub(super) struct Ages {
    looks: VecDeque<(Instant, Position)>,
    old: Option<Position>,
}

impl Ages {
    /// Now `applied` is the last that was applied. The position that was so `age` ago or earlier; `None` if this broker has not
    /// run for so long.
    pub(super) fn look(&mut self, now: Instant, applied: Position, age: Duration) -> Option<Position> {
        if self.looks.back().is_none_or(|(last, _)| *last + age / LOOKS_MAX <= now) {
            self.looks.push_back((now, applied));
        }
        while let Some((_, position)) = self.looks.pop_front_if(|(at, _)| *at + age <= now) {
            self.old = self.old.max(Some(position));
        }
        self.old
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    #[tokio::test(start_paused = true)]
    async fn a_position_is_as_old_as_it_was_seen() {
        let (world, mut ages) = (World::seeded(1), Ages::default());
        let mut found = Vec::new();
        for applied in 0..5 {
            found.push(ages.look(world.now(), Position(applied), Duration::from_secs(2)).map(|p| p.0));
            world.sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(found, [None, None, Some(0), Some(1), Some(2)]);
        for applied in 5..5000 {
            ages.look(world.now(), Position(applied), Duration::from_secs(100_000));
            world.sleep(Duration::from_secs(1)).await;
        }
        assert!(ages.looks.len() < 100, "{}", ages.looks.len());
    }
}
