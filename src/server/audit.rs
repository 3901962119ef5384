//! Whether the logs are whole and the bucket holds what they refer to, on the stores that the configuration names and without
//! a broker.
use std::sync::Arc;
use std::time::Duration;

use super::fork::surroundings;
use super::{ServerError, build};
use crate::cli::show_progress;
use crate::config::Config;
use crate::journal::NoWitnesses;
use crate::metadata::read_state;
use crate::upkeep::{Scope, audit};

/// Reads as fast as it can.
const UNPACED: u64 = u64::MAX;

/// What was found, for people to read. Changes nothing. With `fast` objects are not read.
///
/// # Errors
/// Why the stores can't be read; or [`ServerError::Unsound`] with what was found, if records are lost, or will be.
pub async fn run(config: &Config, topic: Option<&str>, fast: bool) -> Result<String, ServerError> {
    let (world, metrics) = surroundings()?;
    let (journal, bucket) = build::stores(config, &world, &metrics, |_| Arc::new(NoWitnesses)).await?;
    let read = || read_state(journal.clone(), bucket.clone(), world.clone(), metrics.clone());
    let state = Arc::new(read().await?);
    let topic = match topic {
        None => None,
        Some(name) => {
            let known = state.topic_by_name(name);
            Some(known.ok_or_else(|| ServerError::System(format!("there is no topic {name:?}")))?.id)
        }
    };
    let bytes_per_second = if fast { 0 } else { UNPACED };
    let scope = Scope { topic, bytes_per_second, orphan_age: Duration::from_millis(config.upkeep.orphan_age_ms) };
    let unreadable = |error| ServerError::System(format!("the bucket can't be read: {error}"));
    let shown = |objects, all| show_progress(objects, all);
    let found = audit(&*bucket, &world, &state, scope, |seen| shown(seen.objects, seen.objects_all)).await;
    let mut report = found.map_err(unreadable)?;
    if report.has_doubts() {
        report.settle(&read().await?);
    }
    if report.problems_all == 0 { Ok(report.to_string()) } else { Err(ServerError::Unsound(report.to_string())) }
}
