//! Where a topic's records lie, for people to read, on the stores that the configuration names and without a broker.
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use super::fork::surroundings;
use super::{ServerError, build};
use crate::config::Config;
use crate::journal::NoWitnesses;
use crate::metadata::read_state;
use crate::records::{BatchHeader, HEADER_BYTES};
use crate::state::{OBJECT_LEVEL_MAX, Partition, State, Topic};
use crate::store::{Bucket, Purpose, StoreError};
use crate::types::{ObjectId, TimestampMs};

/// A topic's partitions: offsets, and bytes and objects by level.
///
/// # Errors
/// Why the stores can't be read, or that there is no such topic.
pub async fn describe(config: &Config, name: &str) -> Result<String, ServerError> {
    let (world, metrics) = surroundings()?;
    let (journal, bucket) = build::stores(config, &world, &metrics, |_| Arc::new(NoWitnesses)).await?;
    let state = read_state(journal, bucket.clone(), world.clone(), metrics).await?;
    let topic = state.topic_by_name(name);
    let topic = topic.ok_or_else(|| ServerError::System(format!("there is no topic {name:?}")))?;
    let unreadable = |error| ServerError::System(format!("the bucket can't be read: {error}"));
    told(&state, topic, &*bucket, world.wall_ms()).await.map_err(unreadable)
}

async fn told(state: &State, topic: &Topic, bucket: &dyn Bucket, now: TimestampMs) -> Result<String, StoreError> {
    // Writing to a String can't fail.
    let mut out = format!("topic {}, id {}, {} partitions\n", topic.name, topic.id.0, topic.slots.len());
    for (name, value) in &topic.configs {
        let _ = writeln!(out, "  {name}={value}");
    }
    let _ = writeln!(out, "partition  log start  log end  runs  bytes  (level: bytes, objects)  oldest record");
    let mut all = Levels::default();
    for partition in topic.slots.iter().filter_map(|slot| state.partition(*slot)) {
        let levels = Levels::of(state, partition);
        let oldest = match oldest(state, bucket, partition).await? {
            Some(at) => format!("{} s ago", now.0.saturating_sub(at.0) / 1000),
            None => "none".to_owned(),
        };
        let Partition { index, log_start, end, bytes, .. } = &**partition;
        let (index, runs) = (index.0, partition.tail.len());
        let _ = writeln!(out, "{index}  {log_start}  {end}  {runs}  {bytes}  ({levels})  {oldest}");
        all.add(levels);
    }
    let _ = writeln!(out, "all  ({all})");
    Ok(out)
}

/// When the first batch's first record was made; `None` if there is none, or if it is being deleted just now.
async fn oldest(state: &State, bucket: &dyn Bucket, partition: &Partition) -> Result<Option<TimestampMs>, StoreError> {
    let first = partition.tail.iter().find(|run| run.marker.is_none());
    let Some((run, meta)) = first.and_then(|run| Some((run, state.object(run.object)?))) else { return Ok(None) };
    let position = u64::from(run.position);
    let range = position..position + HEADER_BYTES as u64;
    match bucket.read(&meta.name.key(), Some(range), Purpose::Control).await {
        Ok(header) => Ok(BatchHeader::parse(&header).ok().map(|header| header.base_timestamp)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes and objects by level.
#[derive(Default)]
struct Levels([(u64, BTreeSet<ObjectId>); OBJECT_LEVEL_MAX as usize + 1]);

impl Levels {
    fn of(state: &State, partition: &Partition) -> Self {
        let mut levels = Self::default();
        for run in partition.tail.iter().filter(|run| run.marker.is_none()) {
            let level = state.object(run.object).map_or(0, |meta| meta.level);
            if let Some((bytes, objects)) = levels.0.get_mut(usize::from(level)) {
                *bytes += u64::from(run.bytes);
                objects.insert(run.object);
            }
        }
        levels
    }

    fn add(&mut self, other: Self) {
        for ((bytes, objects), (more, others)) in self.0.iter_mut().zip(other.0) {
            *bytes += more;
            objects.extend(others);
        }
    }
}

impl std::fmt::Display for Levels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (level, (bytes, objects)) in self.0.iter().enumerate() {
            let comma = if level > 0 { "; " } else { "" };
            write!(f, "{comma}{level}: {bytes}, {}", objects.len())?;
        }
        Ok(())
    }
}
