//! What brokers would delete from the bucket, on the stores that the configuration names and without a broker.
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::fork::surroundings;
use super::{ServerError, build};
use crate::config::Config;
use crate::journal::NoWitnesses;
use crate::metadata::read_state;
use crate::state::{COLLECTION_LEVEL, State};
use crate::store::Bucket;
use crate::types::{Position, TimestampMs};
use crate::upkeep::{Due, Orphan, orphans};

/// What lies in the bucket and nobody needs, for people to read. Changes nothing.
///
/// # Errors
/// Why the stores can't be read.
pub async fn show(config: &Config) -> Result<String, ServerError> {
    let (world, metrics) = surroundings()?;
    let (journal, bucket) = build::stores(config, &world, &metrics, |_| Arc::new(NoWitnesses)).await?;
    let state = Arc::new(read_state(journal, bucket.clone(), world.clone(), metrics).await?);
    told(&state, &*bucket, Duration::from_millis(config.upkeep.orphan_age_ms), world.wall_ms()).await
}

async fn told(state: &Arc<State>, bucket: &dyn Bucket, age: Duration, now: TimestampMs) -> Result<String, ServerError> {
    let unreadable = |error| ServerError::System(format!("the bucket can't be listed: {error}"));
    let due = Due { now, age, old: Position(0) };
    let found = orphans(bucket, || state.clone(), due).await.map_err(unreadable)?;
    let mut text = String::new();
    if state.feature_level() < COLLECTION_LEVEL {
        let level = state.feature_level();
        line(
            &mut text,
            &format!("The cluster is at feature level {level}: nothing is deleted below {COLLECTION_LEVEL}."),
        );
    }
    let (count, bytes, grace) = (state.dead_object_count(), state.dead_bytes(), state.settings().garbage_grace_ms);
    line(
        &mut text,
        &format!("dead     {count} objects, {bytes} bytes: nothing refers to them; deleted after {grace} ms"),
    );
    for (_, death, meta) in state.dead_objects() {
        let seconds = now.0.saturating_sub(death.since_ms.0) / 1000;
        line(&mut text, &format!("  {} {} bytes, for {seconds} s", meta.name.key(), meta.bytes));
    }
    let bytes = found.iter().map(|orphan| orphan.bytes).sum::<u64>();
    let (count, ms) = (found.len(), age.as_millis());
    line(&mut text, &format!("orphans  {count} objects, {bytes} bytes: no entry names them; looked at after {ms} ms"));
    for Orphan { name, bytes } in &found {
        line(&mut text, &format!("  {} {bytes} bytes", name.key()));
    }
    line(&mut text, &format!("horizon  {}: what was named below it can't be committed", state.orphan_horizon()));
    Ok(text)
}

fn line(text: &mut String, what: &str) {
    // Writing to a String can't fail.
    let _ = writeln!(text, "{what}");
}
