//! The contract suite over each kind of bucket, and what is this journal's own.
mod contracts;
mod costs;
mod faults;
mod held;
mod measured;
mod trimmed;
mod turns;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::{BucketJournal, PollPolicy, format};
use crate::journal::contract::entry;
use crate::journal::{Journal, Proposal};
use crate::store::{Bucket, MemoryBucket};
use crate::types::{Head, Position};
use crate::world::World;

/// As shipped.
const POLLS: PollPolicy =
    PollPolicy { fastest: Duration::from_millis(50), slowest: Duration::from_secs(1), told: Duration::from_secs(10) };

fn handle(bucket: &Arc<dyn Bucket>, world: &World) -> BucketJournal {
    BucketJournal::new(Arc::clone(bucket), world.clone(), POLLS)
}

fn at(position: u64, proposal: &Proposal) -> Head {
    Head { position: Position(position), token: proposal.token }
}

/// Appends these counters of `incarnation`, from the head on, and gives the new head.
async fn append_all(journal: &BucketJournal, incarnation: u64, counters: RangeInclusive<u64>) -> Head {
    let mut head = journal.head().await.unwrap();
    for counter in counters {
        let proposal = entry(incarnation, counter, b"x");
        let appended = journal.append(proposal.clone(), head).await.unwrap();
        head = at(appended.position.0, &proposal);
    }
    head
}

/// Returns when no object of a position up to `last` is there any more.
async fn deleted(memory: &MemoryBucket, world: &World, last: u64) {
    let is_old = |key: &String| format::position_of(key).is_some_and(|position| position.0 <= last);
    for _ in 0..1_000 {
        if !memory.contents().keys().any(is_old) {
            return;
        }
        world.sleep(Duration::from_millis(10)).await;
    }
    panic!("what is trimmed is not deleted: {:?}", memory.contents().keys());
}
