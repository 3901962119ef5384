//! A bucket that misbehaves by a script or by chance, for tests and the simulation. It does what real stores were seen
//! to do: answers that are lost, requests that take effect long after they were given up, refusals, silence.
use super::{Body, Bucket, CreateOutcome, Key, Listed, Operation, Purpose, StoreError, deadline};
use crate::world::World;
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Not done; answered `Unknown`.
    NotDone,
    /// Done; answered `Unknown`.
    ReplyLost,
    /// Answered `Unknown`; done after this time, while the caller may already try again.
    DoneLater(Duration),
    /// Not done; answered `Refused`.
    Refused,
    /// Not done; answered `Unknown` at the deadline of its purpose.
    Hangs,
    /// Done after this time.
    Slow(Duration),
}

/// How often each fault happens by chance, in requests of 10,000, and how slow requests are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    pub not_done: u64,
    pub reply_lost: u64,
    pub done_later: u64,
    pub refused: u64,
    pub hangs: u64,
    /// Every request takes a time up to this.
    pub delay_ms_max: u64,
}

/// See the module. Clones share the plan and the bucket.
#[derive(Clone)]
pub struct Faulty(Arc<Inner>);

struct Inner {
    bucket: Arc<dyn Bucket>,
    world: World,
    /// A mutex and not an owner task: nothing awaits while it is held.
    plan: Mutex<Plan>,
}

#[derive(Default)]
struct Plan {
    script: BTreeMap<Operation, VecDeque<Fault>>,
    rates: Rates,
    all: Option<Fault>,
}

impl Faulty {
    /// `bucket` without faults, until it is told of some.
    #[must_use]
    pub fn new(bucket: Arc<dyn Bucket>, world: World) -> Self {
        Self(Arc::new(Inner { bucket, world, plan: Mutex::default() }))
    }

    /// The next requests of this kind get these faults, one each.
    pub fn script(&self, operation: Operation, faults: impl IntoIterator<Item = Fault>) {
        self.plan().script.entry(operation).or_default().extend(faults);
    }

    /// From now on what no script covers fails by chance, drawn from the world.
    pub fn set_rates(&self, rates: Rates) {
        self.plan().rates = rates;
    }

    /// From now on every request gets `fault` (an outage), until this is called with none.
    pub fn set_all(&self, fault: Option<Fault>) {
        self.plan().all = fault;
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault of the next request, and how slow it is besides.
    fn next(&self, operation: Operation) -> (Fault, Duration) {
        let mut plan = self.plan();
        let world = &self.0.world;
        let scripted = plan.script.get_mut(&operation).and_then(VecDeque::pop_front);
        let rates = plan.rates;
        if let Some(fault) = plan.all.or(scripted) {
            return (fault, Duration::ZERO);
        }
        let delay = Duration::from_millis(world.random_below(rates.delay_ms_max.saturating_add(1)));
        let later = Duration::from_millis(1 + world.random_below(60_000));
        let mut drawn = world.random_below(10_000);
        for (rate, fault) in [
            (rates.not_done, Fault::NotDone),
            (rates.reply_lost, Fault::ReplyLost),
            (rates.done_later, Fault::DoneLater(later)),
            (rates.refused, Fault::Refused),
            (rates.hangs, Fault::Hangs),
        ] {
            match drawn.checked_sub(rate) {
                Some(rest) => drawn = rest,
                None => return (fault, delay),
            }
        }
        (Fault::None, delay)
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: Operation,
        purpose: Purpose,
        request: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let world = &self.0.world;
        let what = operation.name().to_owned();
        let unknown = |what| Err(StoreError::Unknown { what, reason: "injected".into() });
        let (fault, delay) = self.next(operation);
        if !delay.is_zero() {
            world.sleep(delay).await;
        }
        match fault {
            Fault::None => request.await,
            Fault::NotDone => unknown(what),
            Fault::ReplyLost => request.await.and_then(|_| unknown(what)),
            Fault::DoneLater(after) => {
                let later = world.clone();
                world.spawn("a request that is done later", async move {
                    later.sleep(after).await;
                    let _ = request.await;
                });
                unknown(what)
            }
            Fault::Refused => Err(StoreError::Refused { what, reason: "injected".into() }),
            Fault::Hangs => {
                world.sleep(deadline::limits(purpose).total).await;
                unknown(what)
            }
            Fault::Slow(time) => {
                world.sleep(time).await;
                request.await
            }
        }
    }
}

#[async_trait]
impl Bucket for Faulty {
    async fn create(&self, key: &Key, body: Body, purpose: Purpose) -> Result<CreateOutcome, StoreError> {
        let (bucket, key) = (Arc::clone(&self.0.bucket), key.clone());
        self.run(Operation::Create, purpose, async move { bucket.create(&key, body, purpose).await }).await
    }

    async fn read(&self, key: &Key, range: Option<Range<u64>>, purpose: Purpose) -> Result<Bytes, StoreError> {
        let (bucket, key) = (Arc::clone(&self.0.bucket), key.clone());
        self.run(Operation::Read, purpose, async move { bucket.read(&key, range, purpose).await }).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
        purpose: Purpose,
    ) -> Result<Vec<Listed>, StoreError> {
        let (bucket, prefix, after) = (Arc::clone(&self.0.bucket), prefix.to_owned(), after.cloned());
        let request = async move { bucket.list(&prefix, after.as_ref(), limit, purpose).await };
        self.run(Operation::List, purpose, request).await
    }

    async fn delete(&self, key: &Key, purpose: Purpose) -> Result<(), StoreError> {
        let (bucket, key) = (Arc::clone(&self.0.bucket), key.clone());
        self.run(Operation::Delete, purpose, async move { bucket.delete(&key, purpose).await }).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryBucket;
    use super::*;

    async fn create(bucket: &Faulty, key: &str) -> Result<CreateOutcome, StoreError> {
        bucket.create(&key.to_owned(), vec![Bytes::from_static(b"x")], Purpose::Ingest).await
    }

    #[tokio::test(start_paused = true)]
    async fn each_fault_does_what_it_says() {
        let (world, memory) = (World::seeded(1), MemoryBucket::new());
        let bucket = Faulty::new(Arc::new(memory.clone()), world.clone());
        let later = Fault::DoneLater(Duration::from_secs(5));
        bucket.script(Operation::Create, [Fault::NotDone, Fault::ReplyLost, later, Fault::Refused, Fault::Hangs]);
        let has = |key: &str| memory.contents().contains_key(key);

        assert!(matches!(create(&bucket, "a").await, Err(StoreError::Unknown { .. })));
        assert!(!has("a"));
        assert!(matches!(create(&bucket, "b").await, Err(StoreError::Unknown { .. })));
        assert!(has("b"));
        assert!(matches!(create(&bucket, "c").await, Err(StoreError::Unknown { .. })));
        assert!(!has("c"));
        world.sleep(Duration::from_secs(6)).await;
        assert!(has("c"));
        assert!(matches!(create(&bucket, "d").await, Err(StoreError::Refused { .. })));
        let start = world.now();
        assert!(matches!(create(&bucket, "e").await, Err(StoreError::Unknown { .. })));
        assert_eq!(start.elapsed(), Duration::from_secs(20));
        assert_eq!(create(&bucket, "f").await, Ok(CreateOutcome::Created), "the script is over");
        assert!(!has("d") && !has("e"));
    }

    #[tokio::test(start_paused = true)]
    async fn chance_follows_the_seed() {
        let run = || async {
            let bucket = Faulty::new(Arc::new(MemoryBucket::new()), World::seeded(7));
            bucket.set_rates(Rates { not_done: 2000, refused: 1000, reply_lost: 1000, ..Rates::default() });
            let mut seen = Vec::new();
            for n in 0..1000 {
                seen.push(create(&bucket, &n.to_string()).await);
            }
            seen
        };
        let (one, two) = (run().await, run().await);
        assert_eq!(one, two);
        let failed = one.iter().filter(|r| r.is_err()).count();
        assert!((350..450).contains(&failed), "{failed} of 1000");
    }
}
