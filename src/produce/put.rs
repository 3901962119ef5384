//! One flush's PUT: tried until it is known, hedged when it takes unusually long, given up before clients do.
use bytes::Bytes;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::pace::Pace;
use crate::planted::{Defect, planted};
use crate::segment::{ObjectHeader, ObjectName, renamed};
use crate::store::{Bucket, CreateOutcome, Purpose, StoreError};
use crate::telemetry::Metrics;
use crate::types::{Head, Incarnation};
use crate::world::{Instant, World};

/// How a PUT is retried.
#[derive(Clone, Copy, Debug)]
pub struct PutPolicy {
    /// From the oldest batch's arrival until its flush is given up; ends before the clients' 30 s.
    pub deadline: Duration,
    /// Whether a PUT that takes longer than 95 of 100 gets a second copy under another key. For stores that are far
    /// away; where a PUT is slow because the disk is busy, a second one makes it slower.
    pub hedge: bool,
}

/// Between two attempts: short enough that recovery is noticed within two seconds.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Stores objects; one for all PUTs of a broker.
pub(super) struct Putter {
    bucket: Arc<dyn Bucket>,
    world: World,
    incarnation: Incarnation,
    metrics: Arc<Metrics>,
    policy: PutPolicy,
    /// A mutex, held for a sort of some 100 numbers: PUTs run on tasks of their own.
    pace: Mutex<Pace>,
}

/// An object that is in the bucket.
pub(super) struct Stored {
    pub(super) name: ObjectName,
    pub(super) body: Vec<Bytes>,
}

impl Putter {
    pub(super) fn new(
        bucket: Arc<dyn Bucket>,
        world: World,
        incarnation: Incarnation,
        metrics: Arc<Metrics>,
        policy: PutPolicy,
    ) -> Self {
        Self { bucket, world, incarnation, metrics, policy, pace: Mutex::default() }
    }

    /// Stores `body` under its header's name, or a second copy under another, whichever is there first. Gives the
    /// reason once the deadline is over. What was not given back may still appear in the bucket; no entry will name it,
    /// so it is garbage.
    pub(super) async fn put(&self, since: Instant, name: ObjectName, body: Vec<Bytes>) -> Result<Stored, String> {
        let last = since + self.policy.deadline;
        self.pace().began();
        let unusual_after = self.pace().unusual_after().filter(|_| self.policy.hedge);
        let mut first = pin!(self.store(last, name, body.clone()));
        let Some(unusual_after) = unusual_after else { return first.await };
        if let Some(result) = self.world.timeout(unusual_after, &mut first).await {
            return result;
        }
        if !self.pace().spend() {
            return first.await;
        }
        self.metrics.produce.hedged_puts.inc();
        let begun = self.world.now();
        let header = fresh_header(&self.world, self.incarnation, name.applied);
        let mut second = pin!(self.store(last, header.name, renamed(&body, &header)));
        let (result, second_won) = tokio::select! {
            biased;
            result = &mut first => (result, false),
            result = &mut second => (result, true),
        };
        if result.is_err() {
            return if second_won { first.await } else { second.await };
        }
        if planted(Defect::HedgeCleansWinner) {
            let _ = self.bucket.delete(&name.key(), Purpose::Ingest).await;
        }
        if second_won {
            self.metrics.produce.hedges_won.inc();
            // The first took longer than this; without it the slow ones would never be known.
            self.pace().took(unusual_after + (self.world.now() - begun));
        }
        result
    }

    /// Stores one object under one name.
    async fn store(&self, last: Instant, name: ObjectName, body: Vec<Bytes>) -> Result<Stored, String> {
        let key = name.key();
        let mut looked_again = false;
        loop {
            let begun = self.world.now();
            let left = last.saturating_duration_since(begun);
            let tried = self.world.timeout(left, self.bucket.create(&key, body.clone(), Purpose::Ingest)).await;
            let reason = match tried {
                Some(Ok(CreateOutcome::Created)) => {
                    self.pace().took(self.world.now() - begun);
                    return Ok(Stored { name, body });
                }
                // Nobody else has the name, so it is more likely that what was read back was not what is there.
                Some(Ok(CreateOutcome::Taken)) if !std::mem::replace(&mut looked_again, true) => {
                    "it looks as if it existed with other bytes".to_owned()
                }
                Some(Ok(CreateOutcome::Taken)) => return Err(format!("{key} exists with other bytes")),
                Some(Err(error @ (StoreError::Refused { .. } | StoreError::Unknown { .. }))) => error.to_string(),
                Some(Err(error)) => return Err(error.to_string()),
                None => "no answer before the deadline".to_owned(),
            };
            if self.world.now() + RETRY_AFTER >= last {
                return Err(reason);
            }
            self.world.sleep(RETRY_AFTER).await;
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fresh name for an object: a ULID of the wall clock and 80 random bits, and what was `applied` when the first of its
/// batches came (H4). What was forgotten since may be of their producers, so a later position would say too much.
pub(super) fn fresh_header(world: &World, incarnation: Incarnation, applied: Head) -> ObjectHeader {
    let written_ms = world.wall_ms();
    let random = u128::from(world.random_u64()) << 16 | u128::from(world.random_u64() & 0xffff);
    let random = if planted(Defect::NamesByClock) { 0 } else { random };
    let ulid = u128::from(written_ms.0.unsigned_abs() & 0xffff_ffff_ffff) << 80 | random;
    ObjectHeader { name: ObjectName::data(applied, ulid), incarnation, written_ms }
}
