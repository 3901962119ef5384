//! Every handle is a broker of its own: it shares nothing with the others but the bucket.
use async_trait::async_trait;
use std::sync::Arc;

use super::handle;
use crate::journal::Journal;
use crate::journal::contract::{self, Harness};
use crate::store::{Bucket, LocalBucket, MemoryBucket};
use crate::world::World;

struct Over {
    bucket: Arc<dyn Bucket>,
    _dir: Option<tempfile::TempDir>,
}

impl Over {
    fn memory() -> Self {
        Self { bucket: Arc::new(MemoryBucket::new()), _dir: None }
    }

    fn directory() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bucket = LocalBucket::open(dir.path(), World::real().unwrap()).unwrap();
        Self { bucket: Arc::new(bucket), _dir: Some(dir) }
    }
}

#[async_trait]
impl Harness for Over {
    async fn open(&self) -> Arc<dyn Journal> {
        Arc::new(handle(&self.bucket, &World::real().unwrap()))
    }

    async fn another(&self, _: &Arc<dyn Journal>) -> Arc<dyn Journal> {
        self.open().await
    }
}

mod memory {
    use super::*;
    contract::suite!(Over::memory());
}

mod directory {
    use super::*;
    contract::suite!(Over::directory());
}

/// On a server, under a prefix of the case's own: `integration-tests/test_journal_bucket.py` starts one.
pub(super) mod s3 {
    use super::*;
    use crate::store::{BucketSettings, open};

    struct OnServer(BucketSettings);

    /// A new prefix on the server that the environment names.
    pub(in super::super) fn settings() -> BucketSettings {
        let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
        let run = World::real().unwrap().random_u64();
        BucketSettings {
            url: format!("s3://{}/journal-{run:016x}", variable("STORE_TEST_S3_BUCKET")),
            endpoint: Some(variable("STORE_TEST_S3_ENDPOINT")),
            allow_http: true,
            ..BucketSettings::default()
        }
    }

    #[async_trait]
    impl Harness for OnServer {
        async fn open(&self) -> Arc<dyn Journal> {
            let world = World::real().unwrap();
            Arc::new(handle(&open(&self.0, world.clone()).await.unwrap(), &world))
        }

        async fn another(&self, _: &Arc<dyn Journal>) -> Arc<dyn Journal> {
            self.open().await
        }
    }

    contract::suite!(OnServer(settings()), ignore = "needs a server");
}
