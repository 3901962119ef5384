//! The durable mark of a forked history (H2). Whoever finds that the journal has lost what was there leaves the mark in
//! the bucket; while one is there no broker starts or goes on, and only the operator's command removes it. A broker that
//! ran leaves its State beside it: it has everything that was acknowledged up to its last entry, so the furthest of
//! them is what the history can go on from.
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info};

use super::owner::Fatal;
use super::witness::{key, list_since, moment};
use crate::planted::{Defect, planted};
use crate::state::State;
use crate::store::{Bucket, Purpose, StoreError};
use crate::types::{Head, Position};
use crate::world::World;

/// Any object below it is a mark, but for the one that says up to where forks are resolved, and those of before it.
pub const FORK_PREFIX: &str = "fork/";
/// What brokers found, in words.
pub(super) const FOUND_PREFIX: &str = "fork/found/";
/// The States of those that ran, as snapshots.
pub(super) const STATE_PREFIX: &str = "fork/state/";
/// What an operator's command is about to go on from.
pub(super) const NEXT_PREFIX: &str = "fork/next/";
/// Where the present generation of the history began.
pub(super) const RESOLVED_PREFIX: &str = "fork/resolved/";

/// How long a broker that stops tries to leave its mark.
const TRIED_FOR: Duration = Duration::from_secs(60);
const BETWEEN: Duration = Duration::from_secs(1);

/// A mark, if there is one that counts: its key. What a broker found before a fork was resolved, and could leave only
/// after that, since the bucket was away, is none any more.
pub(super) async fn found(bucket: &dyn Bucket) -> Result<Option<String>, StoreError> {
    if planted(Defect::ForkIgnored) {
        return Ok(None);
    }
    let marks = marks(bucket).await?;
    if marks.is_empty() {
        return Ok(None);
    }
    // A name that was damaged on its way is not there when asked for again.
    let again = self::marks(bucket).await?;
    Ok(marks.into_iter().find(|mark| again.contains(mark)))
}

async fn marks(bucket: &dyn Bucket) -> Result<Vec<String>, StoreError> {
    let mut left = keys(bucket).await?;
    let resolved = left.iter().filter_map(|key| moment(RESOLVED_PREFIX, key)).max().unwrap_or_default();
    left.retain(|key| {
        let at = [FOUND_PREFIX, STATE_PREFIX].iter().find_map(|prefix| moment(prefix, key));
        !key.starts_with(RESOLVED_PREFIX) && at.is_none_or(|at| at.position >= resolved.position)
    });
    Ok(left)
}

/// Everything that is left of forks.
async fn keys(bucket: &dyn Bucket) -> Result<Vec<String>, StoreError> {
    Ok(list_since(bucket, FORK_PREFIX, Position(0)).await?.into_iter().map(|listed| listed.key).collect())
}

/// Ends all forks that were found before `begun`, where a generation of the history begins: how many marks there were.
pub(super) async fn resolve(bucket: &dyn Bucket, begun: Option<Head>) -> Result<usize, StoreError> {
    let resolved = begun.map(|begun| key(RESOLVED_PREFIX, begun, 0));
    if let Some(resolved) = &resolved {
        let body = "a generation of the history begins here, marks of before it do not count\n".into();
        bucket.create(resolved, vec![body], Purpose::Control).await?;
    }
    let left = keys(bucket).await?.into_iter();
    let (earlier, mut marks): (Vec<_>, Vec<_>) = left.partition(|key| key.starts_with(RESOLVED_PREFIX));
    let count = marks.len();
    if resolved.is_some() {
        marks.extend(earlier.into_iter().filter(|key| Some(key) != resolved.as_ref()));
    }
    for mark in marks {
        bucket.delete(&mark, Purpose::Control).await?;
    }
    Ok(count)
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
