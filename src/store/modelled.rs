//! A bucket that answers as slowly as a remote one, for benchmarks on one machine: the time of each request is drawn
//! from a log-normal distribution, by the world's chance.
use super::{Body, Bucket, CreateOutcome, Key, Listed, Purpose, StoreError};
use crate::world::World;
use async_trait::async_trait;
use bytes::Bytes;
use std::f64::consts::TAU;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Latencies in ms with this median and 99th percentile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogNormal {
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// The quantile of the standard normal distribution at 0.99.
const Z99: f64 = 2.326_35;

impl LogNormal {
    fn draw(&self, world: &World) -> Duration {
        // Box-Muller, from two uniform numbers, the first of them not 0.
        let uniform = |n: u64| ((n >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        let (a, b) = (uniform(world.random_u64()), uniform(world.random_u64()));
        let normal = (-2.0 * a.ln()).sqrt() * (TAU * b).cos();
        let sigma = (self.p99_ms / self.p50_ms).ln() / Z99;
        Duration::from_secs_f64(self.p50_ms * (sigma * normal).exp() / 1000.0)
    }
}

/// How a store behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    pub create: LogNormal,
    /// Of the first byte; LIST and DELETE too.
    pub read: LogNormal,
    /// What one connection carries after the first byte.
    pub read_bytes_per_s: f64,
}

impl Model {
    /// S3 Standard: a PUT of 2 to 8 MiB takes 100 to 150 ms, at the 99th percentile 400; a GET 30 ms to the first byte
    /// and 93 MB/s from there.
    pub const S3: Self = Self {
        create: LogNormal { p50_ms: 120.0, p99_ms: 400.0 },
        read: LogNormal { p50_ms: 30.0, p99_ms: 150.0 },
        read_bytes_per_s: 93e6,
    };
    /// S3 Express One Zone: single-digit ms.
    pub const S3_EXPRESS: Self = Self {
        create: LogNormal { p50_ms: 8.0, p99_ms: 25.0 },
        read: LogNormal { p50_ms: 5.0, p99_ms: 15.0 },
        read_bytes_per_s: 150e6,
    };

    /// The model that `?model=` names.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "s3" => Some(Self::S3),
            "s3-express" => Some(Self::S3_EXPRESS),
            _ => None,
        }
    }
}

/// See the module.
pub struct Modelled {
    bucket: Arc<dyn Bucket>,
    world: World,
    model: Model,
}

impl Modelled {
    /// `bucket`, never faster than `model` says.
    #[must_use]
    pub fn new(bucket: Arc<dyn Bucket>, world: World, model: Model) -> Self {
        Self { bucket, world, model }
    }

    /// Does `request` in the middle of a time drawn from `latency`, plus that of the bytes it gives.
    async fn within<T>(
        &self,
        latency: LogNormal,
        request: impl Future<Output = Result<T, StoreError>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Result<T, StoreError> {
        let start = self.world.now();
        let latency = latency.draw(&self.world);
        self.world.sleep(latency / 2).await;
        let result = request.await;
        let bytes = result.as_ref().map_or(0, bytes);
        let transfer = Duration::from_secs_f64(bytes as f64 / self.model.read_bytes_per_s);
        self.world.sleep_until(start + latency + transfer).await;
        result
    }
}

#[async_trait]
impl Bucket for Modelled {
    async fn create(&self, key: &Key, body: Body, purpose: Purpose) -> Result<CreateOutcome, StoreError> {
        self.within(self.model.create, self.bucket.create(key, body, purpose), |_| 0).await
    }

    async fn read(&self, key: &Key, range: Option<Range<u64>>, purpose: Purpose) -> Result<Bytes, StoreError> {
        self.within(self.model.read, self.bucket.read(key, range, purpose), Bytes::len).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
        purpose: Purpose,
    ) -> Result<Vec<Listed>, StoreError> {
        self.within(self.model.read, self.bucket.list(prefix, after, limit, purpose), |_| 0).await
    }

    async fn delete(&self, key: &Key, purpose: Purpose) -> Result<(), StoreError> {
        self.within(self.model.read, self.bucket.delete(key, purpose), |()| 0).await
    }

    async fn delete_all(&self, keys: &[Key], purpose: Purpose) -> Vec<Result<(), StoreError>> {
        let request = async { Ok(self.bucket.delete_all(keys, purpose).await) };
        self.within(self.model.read, request, |_| 0).await.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryBucket;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn latencies_have_the_quantiles_of_the_model() {
        let world = World::seeded(1);
        let bucket = Modelled::new(Arc::new(MemoryBucket::new()), world.clone(), Model::S3);
        let mut times = Vec::new();
        for n in 0..4000 {
            let start = world.now();
            bucket.create(&format!("k{n}"), vec![], Purpose::Ingest).await.unwrap();
            times.push(start.elapsed().as_millis());
        }
        times.sort_unstable();
        assert!((115..125).contains(&times[2000]), "p50 {}", times[2000]);
        assert!((360..440).contains(&times[3960]), "p99 {}", times[3960]);

        bucket.create(&"big".into(), vec![vec![0; 9_300_000].into()], Purpose::Ingest).await.unwrap();
        let start = world.now();
        bucket.read(&"big".into(), None, Purpose::Tail).await.unwrap();
        assert!(start.elapsed() > Duration::from_millis(100), "the bytes take their time too");
    }
}
