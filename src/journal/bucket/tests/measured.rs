//! Figures of `docs/journal-bucket.md`, on real time: `cargo test --release --lib -- --ignored --nocapture
//! bucket::tests::measured`, with the variables of the contract suite for the one on a server.
use std::sync::Arc;
use std::time::Duration;

use super::contracts::s3;
use super::turns::append_for;
use crate::store::{Bucket, LocalBucket, open};
use crate::world::World;

async fn measure(what: &str, bucket: Arc<dyn Bucket>, world: &World, handles: u64, pause_ms: u64) {
    let ran = append_for(bucket, world, handles, Duration::from_millis(pause_ms), Duration::from_secs(10)).await;
    println!("{what}, {pause_ms} ms between: {}", ran.describe());
    assert!(ran.count() > 10 * handles, "{}", ran.describe());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn on_the_local_directory() {
    let world = World::real().unwrap();
    for (handles, pause_ms) in [(1, 0), (3, 0), (3, 250)] {
        let dir = tempfile::tempdir_in(".").unwrap();
        let bucket = LocalBucket::open(dir.path(), world.clone()).unwrap();
        measure("local directory", Arc::new(bucket), &world, handles, pause_ms).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, and needs a server"]
async fn on_a_server() {
    let world = World::real().unwrap();
    for (handles, pause_ms) in [(1, 0), (3, 0), (3, 250)] {
        let bucket = open(&s3::settings(), world.clone()).await.unwrap();
        measure("server", bucket, &world, handles, pause_ms).await;
    }
}
