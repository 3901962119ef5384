//! Lets requests about transactions go to the journal together: many that come within a short time share few entries.
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::world::{Instant, World};

/// Under load requests go this far apart: one waits 5 ms on average, and a lone one not at all.
const BETWEEN: Duration = Duration::from_millis(10);

/// See the module.
pub struct Pace {
    world: World,
    /// When requests went last. A lock, held for a comparison: an owner task would cost each request two messages.
    last: Mutex<Option<Instant>>,
}

impl Pace {
    /// Nobody went yet.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self { world, last: Mutex::default() }
    }

    /// Comes back when the caller's request may go.
    pub async fn go(&self) {
        let now = self.world.now();
        let at = self.next(now);
        if at > now {
            self.world.sleep_until(at).await;
        }
    }

    /// When a request that comes `now` goes: at once, or with all others that wait for the same time.
    fn next(&self, now: Instant) -> Instant {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let at = match *last {
            // Others wait for that time already.
            Some(last) if last > now => last,
            Some(last) => now.max(last + BETWEEN),
            None => now,
        };
        *last = Some(at);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lone_request_goes_at_once_and_many_go_together() {
        let world = World::seeded(1);
        let pace = Pace::new(world.clone());
        let began = world.now();
        pace.go().await;
        assert_eq!(world.now(), began);
        world.sleep(Duration::from_millis(3)).await;
        futures::join!(pace.go(), pace.go(), async {
            world.sleep(Duration::from_millis(2)).await;
            pace.go().await;
        });
        assert_eq!(world.now(), began + BETWEEN);
        pace.go().await;
        assert_eq!(world.now(), began + 2 * BETWEEN);
        world.sleep(Duration::from_millis(30)).await;
        pace.go().await;
        assert_eq!(world.now(), began + 5 * BETWEEN);
    }
}
