//! The machine under a seeded world: its tasks die together at whatever they wait for, stand still and go on, are run
//! in an order that the seed decides, and have a wall clock that may be wrong.
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::task::{AbortHandle, JoinHandle};

/// See the module; clones are the same machine.
#[derive(Clone)]
pub struct Host(Arc<Mutex<Inner>>);

/// How unevenly a machine runs its tasks, in chances of 1,000.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// A task that could go on lets all others go first.
    pub yields: u32,
}

struct Inner {
    alive: bool,
    paused: bool,
    wall_offset_ms: i64,
    pace: Pace,
    rng: StdRng,
    next: u64,
    tasks: BTreeMap<u64, Option<AbortHandle>>,
    /// Tasks that want to go on when the machine does.
    parked: Vec<Waker>,
}

impl Host {
    /// A machine that runs.
    #[must_use]
    pub fn new(seed: u64, pace: Pace) -> Self {
        let rng = StdRng::seed_from_u64(seed ^ 0x9e37_79b9_7f4a_7c15);
        let inner = Inner {
            alive: true,
            paused: false,
            wall_offset_ms: 0,
            pace,
            rng,
            next: 0,
            tasks: BTreeMap::new(),
            parked: Vec::new(),
        };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Kills it: no task goes on, and all that they held is let go.
    pub fn crash(&self) {
        let tasks = {
            let mut inner = self.inner();
            inner.alive = false;
            std::mem::take(&mut inner.tasks)
        };
        tasks.into_values().flatten().for_each(|task| task.abort());
    }

    /// Its tasks stand still until [`Host::resume`], as after SIGSTOP; time goes on.
    pub fn pause(&self) {
        self.inner().paused = true;
    }

    pub fn resume(&self) {
        let parked = {
            let mut inner = self.inner();
            inner.paused = false;
            std::mem::take(&mut inner.parked)
        };
        parked.into_iter().for_each(Waker::wake);
    }

    /// Whether its tasks stand still.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.inner().paused
    }

    /// Sets its wall clock this far from the true time, in ms.
    pub fn set_wall_offset_ms(&self, offset_ms: i64) {
        self.inner().wall_offset_ms = offset_ms;
    }

    pub(super) fn wall_offset_ms(&self) -> i64 {
        self.inner().wall_offset_ms
    }

    pub(super) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let id = {
            let mut inner = self.inner();
            inner.next += 1;
            let id = inner.next;
            inner.tasks.insert(id, None);
            id
        };
        let task = Task { host: self.clone(), id, future: Box::pin(future) };
        #[expect(clippy::disallowed_methods, reason = "this is behind the door")]
        let handle = tokio::spawn(task);
        let mut inner = self.inner();
        if inner.alive {
            inner.tasks.entry(id).and_modify(|task| *task = Some(handle.abort_handle()));
        } else {
            handle.abort();
        }
        drop(inner);
        handle
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task of a machine.
struct Task<F> {
    host: Host,
    id: u64,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Task<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut inner = self.host.inner();
        if inner.paused {
            inner.parked.push(cx.waker().clone());
            return Poll::Pending;
        }
        let yields = inner.pace.yields;
        if yields > 0 && inner.rng.random_range(0..1000) < yields {
            drop(inner);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        drop(inner);
        self.future.as_mut().poll(cx)
    }
}

impl<F> Drop for Task<F> {
    fn drop(&mut self) {
        self.host.inner().tasks.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::super::World;
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;
    use tokio::time::Instant;

    fn counting(world: &World) -> Arc<AtomicU64> {
        let count = Arc::new(AtomicU64::new(0));
        let (counted, world) = (count.clone(), world.clone());
        world.clone().spawn("counting", async move {
            loop {
                world.sleep(Duration::from_secs(1)).await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        count
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_stands_still_goes_on_and_dies() {
        let outside = World::seeded(1);
        let host = Host::new(2, Pace { yields: 200 });
        let world = World::on(host.clone(), outside.now(), 2);
        let count = counting(&world);
        let second = Duration::from_secs(1);
        outside.sleep(second * 10 + second / 2).await;
        assert_eq!(count.load(Ordering::Relaxed), 10);
        host.pause();
        outside.sleep(second * 10).await;
        assert_eq!(count.load(Ordering::Relaxed), 10);
        host.resume();
        outside.sleep(second * 10).await;
        assert_eq!(count.load(Ordering::Relaxed), 20, "a timer that was due fires once");
        assert_eq!(Arc::strong_count(&count), 2);
        host.crash();
        let late = world.spawn("late", async {});
        assert!(late.await.is_err(), "nothing starts on a dead machine");
        outside.sleep(second * 10).await;
        assert_eq!(Arc::strong_count(&count), 1, "what its tasks held is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn its_wall_clock_may_be_wrong() {
        let host = Host::new(3, Pace::default());
        let (right, wrong) = (World::seeded(3), World::on(host.clone(), Instant::now(), 3));
        host.set_wall_offset_ms(-5_000);
        assert_eq!(wrong.wall_ms().0 - right.wall_ms().0, -5_000);
    }
}
