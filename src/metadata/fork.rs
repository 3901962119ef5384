//! The durable mark of a forked history (H2). Whoever finds that the journal has lost what was there leaves the mark in
//! the bucket; while one is there no broker starts or goes on, and only the operator's command removes it. A broker that
//! ran leaves its State beside it: it has everything that was acknowledged up to its last entry, so the furthest of
//! them is what the history can go on from.
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info};

use super::owner::Fatal;
use super::witness::{key, moment};
use crate::state::State;
use crate::store::{Bucket, Purpose, StoreError};
use crate::types::Head;
use crate::world::World;

/// Any object below it is a mark.
pub const FORK_PREFIX: &str = "fork/";
/// What brokers found, in words.
pub(super) const FOUND_PREFIX: &str = "fork/found/";
/// The States of those that ran, as snapshots.
pub(super) const STATE_PREFIX: &str = "fork/state/";
/// What an operator's command is about to go on from.
pub(super) const NEXT_PREFIX: &str = "fork/next/";

/// How long a broker that stops tries to leave its mark.
const TRIED_FOR: Duration = Duration::from_secs(60);
const BETWEEN: Duration = Duration::from_secs(1);

/// A mark, if there is one: its key.
pub(super) async fn found(bucket: &dyn Bucket) -> Result<Option<String>, StoreError> {
    let marks = bucket.list(FORK_PREFIX, None, 1, Purpose::Control).await?;
    Ok(marks.into_iter().next().map(|mark| mark.key))
}

/// Leaves a mark that says `why`, found by somebody who had applied `at`.
pub(super) async fn mark(bucket: &dyn Bucket, world: &World, at: Head, why: &str) -> Result<(), StoreError> {
    let body = format!("{why}\n").into();
    bucket.create(&key(FOUND_PREFIX, at, world.random_u64()), vec![body], Purpose::Control).await.map(drop)
}

/// Leaves a mark and the State of a broker that stops because of a fork, as long as the bucket takes them in time.
pub(super) async fn tell(bucket: Arc<dyn Bucket>, world: World, state: Arc<State>, why: &Fatal) {
    let at = state.head();
    let (_, snapshot) = world.compute(move || state.encode_snapshot()).await;
    let leave = async {
        loop {
            let mut left = mark(&*bucket, &world, at, &why.to_string()).await;
            if left.is_ok() {
                left = leave_state(&*bucket, &world, at, snapshot.clone()).await;
            }
            match left {
                Ok(()) => return,
                Err(error) => info!(%error, "the mark of the fork was not left, trying on"),
            }
            world.sleep(BETWEEN).await;
        }
    };
    match world.timeout(TRIED_FOR, leave).await {
        Some(()) => info!(position = at.position.0, "what this broker knew is in the bucket, below {STATE_PREFIX}"),
        None => error!("the bucket did not take the mark of the fork: make sure that no other broker goes on"),
    }
}

async fn leave_state(bucket: &dyn Bucket, world: &World, at: Head, snapshot: bytes::Bytes) -> Result<(), StoreError> {
    let left = bucket.list(STATE_PREFIX, None, 1000, Purpose::Control).await?;
    if left.iter().any(|other| moment(STATE_PREFIX, &other.key) == Some(at)) {
        return Ok(());
    }
    bucket.create(&key(STATE_PREFIX, at, world.random_u64()), vec![snapshot], Purpose::Snapshot).await.map(drop)
}
