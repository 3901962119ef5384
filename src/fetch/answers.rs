//! The memory of answers that their clients have not read yet. A fetch reserves its part before it reads; at the limit it
//! waits, and if it waits in vain it answers without records. While somebody waits, clients that do not read are cut off
//! early, so that a few lazy ones can't starve the rest.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::world::{Instant, World};

/// A fetch waits at least this long for memory, even if it asked for an answer at once.
const PATIENCE_MIN: Duration = Duration::from_millis(500);

/// Shared by all fetches of the broker.
pub struct AnswerBudget {
    world: World,
    bytes: Arc<Semaphore>,
    total: usize,
    waiting: AtomicUsize,
}

/// Memory that an answer has; given back when it is dropped.
#[derive(Debug)]
pub struct Reserved(OwnedSemaphorePermit);

impl AnswerBudget {
    /// A budget of `total` bytes.
    #[must_use]
    pub fn new(world: World, total: usize) -> Self {
        let total = total.min(u32::MAX as usize);
        Self { world, bytes: Arc::new(Semaphore::new(total)), total, waiting: AtomicUsize::new(0) }
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.total - self.bytes.available_permits()
    }

    /// Whether fetches wait for memory.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Memory for an answer of `bytes` (all there is, if that is less); `None` if there is none by `until`.
    pub async fn reserve(&self, bytes: usize, until: Instant) -> Option<Reserved> {
        let bytes = u32::try_from(bytes.min(self.total)).unwrap_or(u32::MAX);
        if let Ok(permit) = self.bytes.clone().try_acquire_many_owned(bytes) {
            return Some(Reserved(permit));
        }
        let patience = until.saturating_duration_since(self.world.now()).max(PATIENCE_MIN);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Leave(&self.waiting);
        let permit = self.world.timeout(patience, self.bytes.clone().acquire_many_owned(bytes)).await?;
        permit.ok().map(Reserved)
    }
}

impl Reserved {
    /// Gives back what an answer of `bytes` does not need.
    pub fn shrink_to(&mut self, bytes: usize) {
        let spare = self.0.num_permits().saturating_sub(bytes);
        drop(self.0.split(spare));
    }
}

/// Counts a waiter out, also if its fetch is given up in the middle.
struct Leave<'a>(&'a AtomicUsize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn at_the_limit_fetches_wait_and_say_so() {
        let world = World::seeded(1);
        let budget = Arc::new(AnswerBudget::new(world.clone(), 100));
        let mut all = budget.reserve(1000, world.now()).await.unwrap();
        assert_eq!(budget.used(), 100);
        assert!(budget.reserve(1, world.now()).await.is_none());
        let (waiting, until) = (budget.clone(), world.now() + Duration::from_secs(10));
        let waiter = world.spawn("waiter", async move { waiting.reserve(60, until).await.is_some() });
        world.sleep(Duration::from_secs(1)).await;
        assert!(budget.is_pressed());
        all.shrink_to(40);
        assert!(waiter.await.unwrap());
        assert!(!budget.is_pressed());
    }
}
