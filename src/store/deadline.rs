//! How long a request to the bucket may take. All end well before Kafka's 30 s (`request.timeout.ms` of its clients),
//! so that a client still hears from us why nothing came of its request.
use super::Purpose;
use crate::telemetry::metrics::Counter;
use crate::world::{Instant, World};
use std::time::Duration;

/// The time of one request: `total` for everything, `attempt` for one try inside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) attempt: Duration,
    pub(crate) total: Duration,
}

/// The limits of `purpose`. An attempt is long enough for the slowest PUT in a thousand of a busy S3 (3 to 5 s) and
/// for 8 MiB at 2 MB/s; a new attempt goes over another connection.
pub(crate) fn limits(purpose: Purpose) -> Limits {
    let (attempt_s, total_s) = match purpose {
        Purpose::Ingest => (5, 20),
        Purpose::Tail => (4, 15),
        Purpose::Cold => (8, 24),
        // Chunks of up to 64 MiB; nobody waits for them but the snapshotter.
        Purpose::Snapshot => (13, 27),
        // The same, by a task that nobody waits for.
        Purpose::Compaction => (13, 27),
        // Small, and everybody's records wait for them; an append that was not answered is asked for again.
        Purpose::Journal => (2, 8),
        Purpose::Control => (4, 12),
        // Pages of a listing and bulks of deletes; nobody waits for them.
        Purpose::Upkeep => (12, 27),
    };
    Limits { attempt: Duration::from_secs(attempt_s), total: Duration::from_secs(total_s) }
}

/// Below this an attempt is not begun any more.
const WORTH_A_TRY: Duration = Duration::from_millis(50);
const BACKOFF_FIRST_MS: u64 = 50;
/// Also how long it takes to notice that an outage is over.
const BACKOFF_LAST_MS: u64 = 1_000;

/// The tries of one request: counts down its limits and waits between tries, longer each time and jittered.
pub(crate) struct Tries<'a> {
    world: &'a World,
    end: Instant,
    attempt: Duration,
    backoff_ms: u64,
    repeated: &'a Counter,
}

impl<'a> Tries<'a> {
    /// `repeated` counts the tries after the first.
    pub(crate) fn new(world: &'a World, purpose: Purpose, repeated: &'a Counter) -> Self {
        let limits = limits(purpose);
        Self { world, end: world.now() + limits.total, attempt: limits.attempt, backoff_ms: BACKOFF_FIRST_MS, repeated }
    }

    /// `future`'s output, unless the attempt's time passes first.
    pub(crate) async fn attempt<F: Future>(&self, future: F) -> Option<F::Output> {
        self.world.timeout(self.attempt.min(self.left()), future).await
    }

    /// Waits before the next try; false when there is no time for one.
    pub(crate) async fn again(&mut self) -> bool {
        let pause_ms = self.backoff_ms / 2 + self.world.random_below(self.backoff_ms / 2 + 1);
        self.backoff_ms = (self.backoff_ms * 2).min(BACKOFF_LAST_MS);
        let pause = Duration::from_millis(pause_ms);
        if self.left() < pause + WORTH_A_TRY {
            return false;
        }
        self.repeated.inc();
        self.world.sleep(pause).await;
        true
    }

    fn left(&self) -> Duration {
        self.end.saturating_duration_since(self.world.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_request_ends_before_kafka_gives_up() {
        let (world, repeated) = (World::seeded(1), Counter::default());
        for purpose in [
            Purpose::Ingest,
            Purpose::Tail,
            Purpose::Cold,
            Purpose::Snapshot,
            Purpose::Journal,
            Purpose::Control,
            Purpose::Upkeep,
        ] {
            let start = world.now();
            let mut tries = Tries::new(&world, purpose, &repeated);
            let mut count = 0;
            loop {
                count += 1;
                assert!(tries.attempt(std::future::pending::<()>()).await.is_none());
                if !tries.again().await {
                    break;
                }
            }
            assert!(count >= 2, "{purpose:?}");
            assert!(start.elapsed() <= Duration::from_secs(28), "{purpose:?}");
        }
    }
}
