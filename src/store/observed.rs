//! A bucket whose requests are counted and timed, and that says once when it stops and when it starts to answer.
use super::{Body, Bucket, CreateOutcome, Key, Listed, ObjectFiles, Operation, Purpose, StoreError};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::BucketLabels;
use crate::world::{Instant, World};
use async_trait::async_trait;
use bytes::Bytes;
use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// See the module.
pub struct Observed {
    bucket: Arc<dyn Bucket>,
    watch: Arc<Watch>,
}

/// What was seen of the bucket so far.
struct Watch {
    world: World,
    metrics: Arc<Metrics>,
    /// A mutex and not an owner task: nothing awaits while it is held.
    health: Mutex<Health>,
}

#[derive(Default)]
struct Health {
    answered: Option<Instant>,
    out_since: Option<Instant>,
}

impl Observed {
    /// Observes `bucket`, which is taken to be available until a request shows otherwise.
    #[must_use]
    pub fn new(bucket: Arc<dyn Bucket>, world: World, metrics: Arc<Metrics>) -> Self {
        Self { bucket, watch: Arc::new(Watch { world, metrics, health: Mutex::default() }) }
    }

    /// For how long the bucket has refused or not answered; none while it answers.
    #[must_use]
    pub fn outage(&self) -> Option<Duration> {
        let health = self.watch.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.out_since.map(|since| self.watch.world.now().saturating_duration_since(since))
    }

    async fn observe<T>(
        &self,
        operation: Operation,
        purpose: Purpose,
        request: impl Future<Output = Result<T, StoreError>>,
        judge: impl FnOnce(&T) -> (&'static str, u64),
    ) -> Result<T, StoreError> {
        let start = self.watch.world.now();
        let result = request.await;
        self.watch.observe(operation, purpose, start, &result, judge);
        result
    }
}

impl Watch {
    fn observe<T>(
        &self,
        operation: Operation,
        purpose: Purpose,
        start: Instant,
        result: &Result<T, StoreError>,
        judge: impl FnOnce(&T) -> (&'static str, u64),
    ) {
        let (outcome, bytes) = match result {
            Ok(done) => judge(done),
            Err(StoreError::NotFound { .. }) => ("not_found", 0),
            Err(StoreError::Refused { .. }) => ("refused", 0),
            Err(StoreError::Unknown { .. }) => ("unknown", 0),
            Err(StoreError::Damaged { .. }) => ("damaged", 0),
        };
        let labels = BucketLabels { operation: operation.name(), purpose: purpose.name(), outcome };
        let seconds = self.world.now().saturating_duration_since(start).as_secs_f64();
        self.metrics.bucket.observe(&labels, seconds, bytes);
        match result {
            Err(e @ (StoreError::Refused { .. } | StoreError::Unknown { .. })) => self.failed(start, e),
            _ => self.answered(),
        }
    }

    /// One failure among successes is no outage: it is one when nothing was answered since the failed request began.
    fn failed(&self, start: Instant, error: &StoreError) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if health.out_since.is_some() || health.answered.is_some_and(|at| at >= start) {
            return;
        }
        health.out_since = Some(start);
        self.metrics.bucket.outage.set(1);
        tracing::warn!(%error, "the bucket does not serve us; requests go on and will be answered when it does again");
    }

    fn answered(&self) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.world.now();
        health.answered = Some(now);
        if let Some(since) = health.out_since.take() {
            self.metrics.bucket.outage.set(0);
            let seconds = now.saturating_duration_since(since).as_secs_f64();
            tracing::warn!(seconds, "the bucket serves us again");
        }
    }
}

#[async_trait]
impl Bucket for Observed {
    async fn create(&self, key: &Key, body: Body, purpose: Purpose) -> Result<CreateOutcome, StoreError> {
        let bytes = body.iter().map(|c| c.len() as u64).sum();
        let request = self.bucket.create(key, body, purpose);
        self.observe(Operation::Create, purpose, request, |outcome| match outcome {
            CreateOutcome::Created => ("done", bytes),
            CreateOutcome::Taken => ("taken", bytes),
        })
        .await
    }

    async fn read(&self, key: &Key, range: Option<Range<u64>>, purpose: Purpose) -> Result<Bytes, StoreError> {
        let request = self.bucket.read(key, range, purpose);
        self.observe(Operation::Read, purpose, request, |content| ("done", content.len() as u64)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
        purpose: Purpose,
    ) -> Result<Vec<Listed>, StoreError> {
        let request = self.bucket.list(prefix, after, limit, purpose);
        self.observe(Operation::List, purpose, request, |_| ("done", 0)).await
    }

    async fn delete(&self, key: &Key, purpose: Purpose) -> Result<(), StoreError> {
        self.observe(Operation::Delete, purpose, self.bucket.delete(key, purpose), |()| ("done", 0)).await
    }

    async fn delete_all(&self, keys: &[Key], purpose: Purpose) -> Vec<Result<(), StoreError>> {
        let start = self.watch.world.now();
        let results = self.bucket.delete_all(keys, purpose).await;
        let whole = results.iter().find_map(|result| result.clone().err()).map_or(Ok(()), Err);
        self.watch.observe(Operation::Delete, purpose, start, &whole, |()| ("done", 0));
        results
    }

    fn files(&self) -> Option<Arc<dyn ObjectFiles>> {
        let files = self.bucket.files()?;
        Some(Arc::new(ObservedFiles { files, watch: Arc::clone(&self.watch) }))
    }
}

/// Files whose openings count as reads. What is read through them costs no request and is not seen.
struct ObservedFiles {
    files: Arc<dyn ObjectFiles>,
    watch: Arc<Watch>,
}

impl ObjectFiles for ObservedFiles {
    fn open(&self, key: &Key) -> Result<File, StoreError> {
        let start = self.watch.world.now();
        let opened = self.files.open(key);
        self.watch.observe(Operation::Read, Purpose::Cold, start, &opened, |_| ("done", 0));
        opened
    }
}

#[cfg(test)]
mod tests {
    use super::super::faulty::{Fault, Faulty};
    use super::super::memory::MemoryBucket;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_are_counted_and_an_outage_is_one_change() {
        let world = World::seeded(1);
        let metrics = Arc::new(Metrics::new(world.wall_ms()));
        let faulty = Faulty::new(Arc::new(MemoryBucket::new()), world.clone());
        let bucket = Observed::new(Arc::new(faulty.clone()), world.clone(), Arc::clone(&metrics));
        let (key, body) = (Key::from("a"), vec![Bytes::from_static(b"12345")]);

        bucket.create(&key, body.clone(), Purpose::Ingest).await.unwrap();
        assert!(bucket.read(&"b".into(), None, Purpose::Tail).await.is_err());
        assert_eq!(bucket.outage(), None, "an answer that it is not there is an answer");

        world.sleep(Duration::from_secs(1)).await;
        faulty.script(Operation::Read, [Fault::Refused, Fault::NotDone]);
        for _ in 0..2 {
            assert!(bucket.read(&key, None, Purpose::Tail).await.is_err());
            world.sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(bucket.outage(), Some(Duration::from_secs(2)));
        assert_eq!(metrics.bucket.outage.get(), 1);
        bucket.read(&key, None, Purpose::Tail).await.unwrap();
        assert_eq!((bucket.outage(), metrics.bucket.outage.get()), (None, 0));

        let text = metrics.render(world.wall_ms());
        for line in [
            "strandline_bucket_requests_total{operation=\"create\",purpose=\"ingest\",outcome=\"done\"} 1",
            "strandline_bucket_requests_total{operation=\"read\",purpose=\"tail\",outcome=\"not_found\"} 1",
            "strandline_bucket_requests_total{operation=\"read\",purpose=\"tail\",outcome=\"unknown\"} 1",
            "strandline_bucket_bytes_total{operation=\"create\",purpose=\"ingest\"} 5",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
