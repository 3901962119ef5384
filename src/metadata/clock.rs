//! Whether this broker's wall clock may decide that something is old (H16). What expires is named in a command, and `apply`
//! spares what was used since, but nobody else's clock is asked then: one that is years ahead would let everything expire.
use std::time::Duration;

use super::Replica;
use crate::state::State;
use crate::types::{BrokerId, TimestampMs};
use crate::world::World;

/// How far a clock may be from the others'. Machines with a time service differ by a fraction of a second.
const APART_MAX: Duration = Duration::from_secs(60);

impl Replica {
    /// The wall clock, if it agrees with the other brokers': a proposal that depends on it waits until then.
    #[must_use]
    pub fn agreed_wall_ms(&self, world: &World) -> Option<TimestampMs> {
        let (state, now) = (self.state(), world.wall_ms());
        // The others' last entries are as old as a broker that still takes part may be silent.
        let silent_ms = state.settings().fencing_ms;
        let apart_max = i64::try_from(APART_MAX.as_millis()).unwrap_or(i64::MAX).saturating_add(silent_ms);
        // Without heartbeats nobody says what time it is.
        let agrees = silent_ms <= 0 || apart_ms(&state, self.identity().broker, now) <= apart_max;
        agrees.then_some(now)
    }

    /// How far the wall clock is from the median of the brokers that take part, in ms. Their last entries may be some
    /// seconds old.
    #[must_use]
    pub fn clock_apart_ms(&self, world: &World) -> i64 {
        apart_ms(&self.state(), self.identity().broker, world.wall_ms())
    }
}

/// Of two clocks in the middle the further one counts: of two brokers nobody knows which is right.
fn apart_ms(state: &State, me: BrokerId, now: TimestampMs) -> i64 {
    let others = state.brokers().filter(|broker| broker.incarnation.is_some() && broker.id != me);
    let mut clocks: Vec<i64> = others.map(|broker| broker.pulse.last_ms.0).chain([now.0]).collect();
    clocks.sort_unstable();
    let middle = [clocks[(clocks.len() - 1) / 2], clocks[clocks.len() / 2]];
    middle.map(|clock| now.0.saturating_sub(clock).saturating_abs()).into_iter().max().unwrap_or(0)
}
