//! Deletes orphans: objects that no entry names, since their flush failed, or another copy was faster, or their writer died. A
//! listing nominates what is old. Then the orphan horizon is raised above it, from which on no entry can name it any more (H4);
//! what State does not name after that is nobody's.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, info, warn};

use super::ages::Ages;
use super::{BETWEEN_BULKS, Upkeep};
use crate::segment::{ObjectKind, ObjectName};
use crate::state::{Outcome, RaiseOrphanHorizon, State};
use crate::store::{Bucket, DELETES_MAX, Listed, Purpose, StoreError};
use crate::types::{Position, TimestampMs};

/// Rows of one page of a listing.
const PAGE: usize = 1_000;

/// Orphans that one sweep deletes at most, so that it needs little memory; the next one goes on.
const ORPHANS_MAX: usize = 100_000;

/// The horizon stays so far behind what is applied, by this broker's own clock, or as far as the age of orphans, if that is
/// less: what is named after it and not committed after so long is given up by its writer (`produce.deadline_ms`).
const SETTLED: Duration = Duration::from_secs(60);

/// The first sweep of a broker comes after this part of the time between two, so that one that is started often sweeps too.
const FIRST_AFTER: u32 = 6;

/// How often it is looked in that time what was applied.
const LOOKS_IN_SETTLED: u32 = 4;

/// How often that time a sweep waits for brokers that are behind.
const PATIENCE: u32 = 3;

/// An object that no entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orphan {
    pub name: ObjectName,
    pub bytes: u64,
}

/// Which of them are looked at: those that are older than `age` at `now`, by their writers' clocks, which may be wrong; and
/// those that were named before the position `old` was applied, which is so long ago by this broker's own.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    pub now: TimestampMs,
    pub age: Duration,
    pub old: Position,
}

/// Sweeps as often as `upkeep.sweep_interval_ms` says.
pub(super) async fn run(upkeep: Arc<Upkeep>) {
    let ms = Duration::from_millis;
    let (every, age) = (ms(upkeep.config.upkeep.sweep_interval_ms), ms(upkeep.config.upkeep.orphan_age_ms));
    let (mut ages, mut settled_ages, settled) = (Ages::default(), Ages::default(), age.min(SETTLED));
    let mut due = upkeep.world.now() + every / FIRST_AFTER;
    while upkeep.rest(every.min(settled / LOOKS_IN_SETTLED)).await {
        let applied = upkeep.replica.applied().position;
        let old = ages.look(upkeep.world.now(), applied, age).unwrap_or_default();
        settled_ages.look(upkeep.world.now(), applied, settled);
        if upkeep.world.now() < due {
            continue;
        }
        due = upkeep.world.now() + every;
        if upkeep.is_ours() {
            let due = Due { now: upkeep.world.wall_ms(), age, old };
            upkeep.sweep(due, settled, &mut settled_ages).await;
        } else {
            upkeep.show_orphans(&[]);
        }
    }
}

impl Upkeep {
    async fn sweep(&self, due: Due, settled: Duration, ages: &mut Ages) {
        let found = match orphans(&*self.bucket, || self.replica.state(), due).await {
            Ok(found) => found,
            Err(error) => {
                warn!(%error, "the bucket can't be listed for orphans, the next sweep tries again");
                return;
            }
        };
        self.metrics.upkeep.sweeps.inc();
        self.show_orphans(&found);
        let Some(last) = found.iter().map(|orphan| orphan.name.applied.position).max() else { return };
        self.raise_horizon(last.next(), settled, ages).await;
        // After the entry that raised it: what this State does not name, no later one does.
        let state = self.replica.state();
        let horizon = state.orphan_horizon();
        let mut left = self.world.compute(move || unnamed(&state, found)).await;
        let all = left.len();
        left.retain(|orphan| orphan.name.applied.position < horizon);
        let (mut deleted, mut bytes) = (0, 0_u64);
        for bulk in left.chunks(DELETES_MAX) {
            let doomed: Vec<_> = bulk.iter().map(|orphan| (*orphan, orphan.name, orphan.bytes)).collect();
            let gone = self.delete("orphan", &doomed).await;
            let gone_bytes = gone.iter().map(|orphan| orphan.bytes).sum::<u64>();
            (deleted, bytes) = (deleted + gone.len(), bytes + gone_bytes);
            self.metrics.upkeep.orphans.dec_by(i64::try_from(gone.len()).unwrap_or(0));
            self.metrics.upkeep.orphan_bytes.dec_by(i64::try_from(gone_bytes).unwrap_or(0));
            if bulk.len() == DELETES_MAX && !self.rest(BETWEEN_BULKS).await {
                break;
            }
        }
        info!(found = all, deleted, bytes, horizon = horizon.0, "orphans are swept");
    }

    /// Raises the orphan horizon to `wanted`, or as far as the brokers that take part are by the end of the patience.
    async fn raise_horizon(&self, wanted: Position, settled: Duration, ages: &mut Ages) {
        let end = self.world.now() + settled * PATIENCE;
        loop {
            let state = self.replica.state();
            let old = ages.look(self.world.now(), state.head().position, settled);
            let possible = state.oldest_reported().min(old).unwrap_or_default().min(wanted);
            let over = self.world.now() >= end;
            if possible > state.orphan_horizon() && (possible == wanted || over) {
                self.propose_horizon(possible).await;
            }
            if over || possible == wanted || self.replica.state().orphan_horizon() >= wanted {
                return;
            }
            if !self.say_applied(wanted).await {
                return;
            }
            if !self.rest(settled / LOOKS_IN_SETTLED).await {
                return;
            }
        }
    }

    /// Raises the orphan horizon to `wanted`, or as far as the brokers that take part have said that they have applied; gives
    /// where it is then.
    pub(super) async fn raise_horizon_towards(&self, wanted: Position) -> Position {
        if self.replica.state().orphan_horizon() < wanted && self.say_applied(wanted).await {
            let state = self.replica.state();
            let possible = state.oldest_reported().unwrap_or_default().min(wanted);
            if possible > state.orphan_horizon() {
                self.propose_horizon(possible).await;
            }
        }
        self.replica.state().orphan_horizon()
    }

    async fn propose_horizon(&self, position: Position) {
        match self.replica.propose(RaiseOrphanHorizon { position: position.0 }).await {
            Ok(Outcome::Done) => debug!(position = position.0, "the orphan horizon is raised"),
            other => debug!(?other, "the orphan horizon is not raised"),
        }
    }

    /// Says that this broker has applied `wanted`, if it has not: who has nothing to say has not said it, and a broker alone is
    /// silent. False if the journal does not take it.
    async fn say_applied(&self, wanted: Position) -> bool {
        let said = self.replica.state().broker(self.membership.me()).map(|broker| broker.reported);
        said.is_some_and(|said| said >= wanted) || self.replica.heartbeat().await.is_ok()
    }

    fn show_orphans(&self, orphans: &[Orphan]) {
        let bytes = orphans.iter().map(|orphan| orphan.bytes).sum::<u64>();
        self.metrics.upkeep.orphans.set(i64::try_from(orphans.len()).unwrap_or(i64::MAX));
        self.metrics.upkeep.orphan_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// Objects of the bucket that State does not name and that are due. No more than a sweep deletes.
///
/// # Errors
/// If the bucket can't be listed.
pub async fn orphans(bucket: &dyn Bucket, state: impl Fn() -> Arc<State>, due: Due) -> Result<Vec<Orphan>, StoreError> {
    let mut found = Vec::new();
    let prefixes = [ObjectKind::Data, ObjectKind::Compacted]
        .into_iter()
        .flat_map(|kind| ObjectName::prefixes(kind).enumerate().map(move |(shard, prefix)| (kind, shard, prefix)));
    for (kind, shard, prefix) in prefixes {
        // One part of the names at a time lies in memory.
        let (horizon, named) = {
            let state = state();
            let named =
                state.objects().map(|(_, meta)| meta.name).filter(|name| (name.kind, name.shard()) == (kind, shard));
            let mut named: Vec<ObjectName> = named.collect();
            named.sort_unstable();
            (state.orphan_horizon(), named)
        };
        let mut after: Option<String> = None;
        loop {
            let page = bucket.list(&prefix, after.as_ref(), PAGE, Purpose::Upkeep).await?;
            let rows = page.len();
            let orphan = |listed: &Listed| {
                let name = ObjectName::parse(&listed.key).filter(|name| named.binary_search(name).is_err())?;
                due.has(name, horizon).then_some(Orphan { name, bytes: listed.bytes })
            };
            found.extend(page.iter().filter_map(orphan));
            after = page.into_iter().next_back().map(|listed| listed.key);
            if found.len() >= ORPHANS_MAX {
                found.truncate(ORPHANS_MAX);
                return Ok(found);
            }
            if rows < PAGE {
                break;
            }
        }
    }
    Ok(found)
}

impl Due {
    /// Whether an object that State does not name is looked at. Below the horizon it is certainly nobody's.
    fn has(&self, name: ObjectName, horizon: Position) -> bool {
        let age = self.now.0.saturating_sub(name.written_ms().0);
        u128::try_from(age).is_ok_and(|ms| ms > self.age.as_millis()) || name.applied.position < horizon.max(self.old)
    }
}

/// Those that `state` does not name.
fn unnamed(state: &State, found: Vec<Orphan>) -> Vec<Orphan> {
    let mut left: BTreeMap<ObjectName, u64> = found.into_iter().map(|orphan| (orphan.name, orphan.bytes)).collect();
    for (_, meta) in state.objects() {
        left.remove(&meta.name);
    }
    left.into_iter().map(|(name, bytes)| Orphan { name, bytes }).collect()
}

#[cfg(test)]
mod tests;
