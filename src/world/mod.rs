//! The only door to time, chance and tasks. Everything that decides by a clock, a random number or a task asks a
//! [`World`], so that a whole broker can run from one seed on a virtual clock. It promises that two worlds of the same
//! seed give the same numbers and, on a paused single-threaded runtime, the same times. It never reads the system clock
//! for a seeded world. Tests are at the end of this file; `integration-tests/sim` runs clusters in it.
mod host;

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
pub use tokio::task::JoinHandle;
pub use tokio::time::Instant;

pub use host::{Host, Pace};

use crate::types::TimestampMs;

/// 2024-01-01T00:00:00Z, where a seeded world's wall clock starts.
const SEEDED_EPOCH_MS: i64 = 1_704_067_200_000;

/// Clock, chance and tasks of one process; cheap to clone.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    wall: Wall,
    /// A mutex and not an owner task: drawing a number must not await.
    rng: Mutex<StdRng>,
}

enum Wall {
    System,
    Seeded { start: Instant, host: Host },
}

impl World {
    /// The real world: the system's clock, and chance from the operating system.
    ///
    /// # Errors
    /// If the operating system gives no random bytes.
    pub fn real() -> std::io::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|e| std::io::Error::other(e.to_string()))?;
        Ok(Self(Arc::new(Inner { wall: Wall::System, rng: Mutex::new(StdRng::from_seed(seed)) })))
    }

    /// A world that follows from `seed` and the runtime's (paused) clock. Must be called inside a runtime.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::on(Host::new(seed, Pace::default()), Instant::now(), seed)
    }

    /// A seeded world on a machine that can be made to die, to stand still and to have a wrong clock. `start` is when
    /// the wall clocks of all machines stood at the same time.
    #[must_use]
    pub fn on(host: Host, start: Instant, seed: u64) -> Self {
        let wall = Wall::Seeded { start, host };
        Self(Arc::new(Inner { wall, rng: Mutex::new(StdRng::seed_from_u64(seed)) }))
    }

    /// Monotonic time, for time-outs and latencies.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Wall-clock time in ms, for timestamps that people or clients see. May jump.
    #[must_use]
    pub fn wall_ms(&self) -> TimestampMs {
        TimestampMs(match &self.0.wall {
            Wall::System => {
                #[expect(clippy::disallowed_methods, reason = "this is the door")]
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            }
            Wall::Seeded { start, host } => {
                let since = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                SEEDED_EPOCH_MS.saturating_add_unsigned(since).saturating_add(host.wall_offset_ms())
            }
        })
    }

    /// Resolves after `duration`.
    pub async fn sleep(&self, duration: Duration) {
        #[expect(clippy::disallowed_methods, reason = "this is the door")]
        tokio::time::sleep(duration).await;
    }

    /// Resolves at `at`.
    pub async fn sleep_until(&self, at: Instant) {
        #[expect(clippy::disallowed_methods, reason = "this is the door")]
        tokio::time::sleep_until(at).await;
    }

    /// `future`'s output, or `None` when `duration` passes first (the future is dropped then).
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Option<F::Output> {
        tokio::time::timeout(duration, future).await.ok()
    }

    /// A random number over the whole range.
    #[must_use]
    pub fn random_u64(&self) -> u64 {
        self.rng().next_u64()
    }

    /// A random number in `0..bound`; 0 where `bound` is 0.
    #[must_use]
    pub fn random_below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.rng().random_range(0..bound) }
    }

    /// Fills `bytes` with random bytes.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.rng().fill_bytes(bytes);
    }

    /// Starts a task. `name` says in a debugger and in panics what it is.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let _ = name;
        match &self.0.wall {
            #[expect(clippy::disallowed_methods, reason = "this is the door")]
            Wall::System => tokio::spawn(future),
            Wall::Seeded { host, .. } => host.spawn(future),
        }
    }

    /// Runs `work`, which computes for long or blocks, beside the async threads; in a seeded world right here, so that
    /// no thread's timing leaks in.
    pub async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        if matches!(self.0.wall, Wall::Seeded { .. }) {
            return work();
        }
        match tokio::task::spawn_blocking(work).await {
            Ok(value) => value,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }

    fn rng(&self) -> std::sync::MutexGuard<'_, StdRng> {
        self.0.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_gives_the_same_numbers_and_times() {
        let (a, b) = (World::seeded(7), World::seeded(7));
        assert_eq!(a.random_u64(), b.random_u64());
        a.sleep(Duration::from_secs(3)).await;
        assert_eq!(a.wall_ms(), b.wall_ms());
        assert_eq!(a.wall_ms().0, SEEDED_EPOCH_MS + 3000);
    }
}
