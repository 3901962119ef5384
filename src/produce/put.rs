//! One flush's PUT: tried until it is known, hedged when it takes unusually long, given up before clients do.
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

use crate::segment::{ObjectHeader, ObjectName};
use crate::store::{Bucket, CreateOutcome, Purpose, StoreError};
use crate::world::{Instant, World};

/// How a PUT is retried.
#[derive(Clone, Copy, Debug)]
pub struct PutPolicy {
    /// From the oldest batch's arrival until its flush is given up; ends before the clients' 30 s.
    pub deadline: Duration,
}

/// Between two attempts: short enough that recovery is noticed within two seconds.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Stores `body` under the header's key. Gives the reason once the deadline is over; then the object may still appear
/// in the bucket, unnamed by any entry, and is garbage.
pub(super) async fn put(
    bucket: Arc<dyn Bucket>,
    world: World,
    policy: PutPolicy,
    since: Instant,
    name: ObjectName,
    body: Vec<Bytes>,
) -> Result<(), String> {
    let key = name.key();
    let last = since + policy.deadline;
    loop {
        let left = last.saturating_duration_since(world.now());
        let tried = world.timeout(left, bucket.create(&key, body.clone(), Purpose::Ingest)).await;
        let reason = match tried {
            Some(Ok(CreateOutcome::Created)) => return Ok(()),
            Some(Ok(CreateOutcome::Taken)) => return Err(format!("{key} exists with other bytes")),
            Some(Err(error @ (StoreError::Refused { .. } | StoreError::Unknown { .. }))) => error.to_string(),
            Some(Err(error)) => return Err(error.to_string()),
            None => "no answer before the deadline".to_owned(),
        };
        if world.now() + RETRY_AFTER >= last {
            return Err(reason);
        }
        world.sleep(RETRY_AFTER).await;
    }
}

/// A fresh name for an object: what was applied, and a ULID of the wall clock and 80 random bits.
pub(super) fn fresh_header(world: &World, replica: &crate::metadata::Replica) -> ObjectHeader {
    let written_ms = world.wall_ms();
    let random = u128::from(world.random_u64()) << 16 | u128::from(world.random_u64() & 0xffff);
    let ulid = u128::from(written_ms.0.unsigned_abs() & 0xffff_ffff_ffff) << 80 | random;
    let name = ObjectName { applied: replica.applied(), ulid };
    ObjectHeader { name, incarnation: replica.identity().incarnation, written_ms }
}
