//! Which partitions are to be cleaned, by State and the topics' settings. Pure.
use std::collections::BTreeMap;

use super::sieve::AbortedOnes;
use crate::config::Config;
use crate::config::topic::TopicSettings;
use crate::state::{OFFSETS_TOPIC, ObjectMeta, Partition, Run, State, Topic};
use crate::types::{ObjectId, Offset, PartitionIndex, Slot, TimestampMs, TopicId};

/// One cleaning of one partition's log.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    pub(super) slot: Slot,
    pub(super) topic: TopicId,
    pub(super) index: PartitionIndex,
    /// The settings that it follows.
    pub(super) config_version: u64,
    pub(super) delete_retention_ms: i64,
    /// Where the log starts, from where on it is not clean, and where what is cleaned ends: there is no flush before that.
    pub(super) start: Offset,
    pub(super) dirty_from: Offset,
    pub(super) end: Offset,
    /// Bytes of all that, and of what is not clean.
    pub(super) bytes: u64,
    pub(super) dirty_bytes: u64,
}

/// What a pass needs of State besides.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    pub(super) objects: BTreeMap<ObjectId, ObjectMeta>,
    pub(super) aborted: AbortedOnes,
}

impl Pass {
    /// What brokers call it.
    pub(super) fn name(&self) -> String {
        format!("cleaning-{}-{}", self.topic.0, self.index.0)
    }

    /// Offsets that are not clean: no more keys than that.
    pub(super) fn dirty_offsets(&self) -> u64 {
        u64::try_from(self.end.0.saturating_sub(self.dirty_from.0)).unwrap_or(0)
    }

    /// The runs, oldest first.
    pub(super) fn runs(&self, state: &State) -> Vec<Run> {
        let tail = state.partition(self.slot).map(|partition| partition.tail.from(self.start));
        tail.into_iter().flatten().take_while(|run| run.end_offset <= self.end).collect()
    }

    /// What else a pass over these runs needs.
    pub(super) fn surroundings(&self, state: &State, runs: &[Run]) -> Surroundings {
        let ids = runs.iter().filter(|run| run.marker.is_none()).map(|run| run.object);
        let objects = ids.filter_map(|id| Some((id, *state.object(id)?))).collect();
        let partition = state.partition(self.slot);
        let transactions = partition.and_then(|partition| partition.transactions());
        let aborted = transactions.into_iter().flat_map(|t| t.all_aborted());
        let aborted = aborted.map(|(marker, aborted)| (aborted.producer, aborted.first, marker)).collect();
        Surroundings { objects, aborted }
    }

    /// The share that is not clean, as Kafka's dirty ratio: 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
    fn dirty_ratio(&self) -> f64 {
        self.dirty_bytes as f64 / self.bytes.max(1) as f64
    }
}

/// What is due at `now`, the dirtiest first.
pub(super) fn due(state: &State, config: &Config, now: TimestampMs) -> Vec<Pass> {
    let mut due = Vec::new();
    // What `__consumer_offsets` shows lies in State.
    for topic in state.topics().filter(|topic| &*topic.name != OFFSETS_TOPIC) {
        let settings = TopicSettings::resolve(&topic.configs, config);
        if settings.compacted {
            let partitions = topic.slots.iter().filter_map(|slot| state.partition(*slot));
            due.extend(partitions.filter_map(|partition| pass(state, topic, partition, &settings, now)));
        }
    }
    due.sort_by(|one, other| other.dirty_ratio().total_cmp(&one.dirty_ratio()));
    due
}

/// The pass that is due on a partition.
fn pass(
    state: &State,
    topic: &Topic,
    partition: &Partition,
    settings: &TopicSettings,
    now: TimestampMs,
) -> Option<Pass> {
    let dirty_from = partition.cleaned.max(partition.log_start);
    // Most partitions have nothing new, which is cheaper to find than all that is clean.
    let first = cleanable(state, partition, dirty_from, settings, now).find(|run| run.marker.is_none())?;
    let waits_ms = i128::from(now.0) - i128::from(state.time_of(&first).0);
    let is_late = waits_ms > i128::from(settings.max_compaction_lag_ms);
    let (start, mut end, mut bytes, mut dirty_bytes) = (partition.log_start, dirty_from, 0, 0);
    for run in cleanable(state, partition, start, settings, now) {
        let is_dirty = run.end_offset > dirty_from;
        bytes += u64::from(run.bytes);
        dirty_bytes += if is_dirty { u64::from(run.bytes) } else { 0 };
        end = run.end_offset;
    }
    let pass = Pass {
        slot: partition.slot,
        topic: topic.id,
        index: partition.index,
        config_version: topic.config_version,
        delete_retention_ms: settings.delete_retention_ms,
        start,
        dirty_from,
        end,
        bytes,
        dirty_bytes,
    };
    (is_late || pass.dirty_ratio() > settings.min_cleanable_dirty_ratio).then_some(pass)
}

/// The runs from `from` on that may be cleaned: those that no open transaction has to do with, that are in no flush, and old
/// enough if they are not clean.
fn cleanable<'a>(
    state: &'a State,
    partition: &'a Partition,
    from: Offset,
    settings: &'a TopicSettings,
    now: TimestampMs,
) -> impl Iterator<Item = Run> + 'a {
    let stable = partition.last_stable();
    partition.tail.from(from).take_while(move |run| {
        let is_compacted = run.marker.is_some() || state.object(run.object).is_some_and(|meta| meta.level > 0);
        let age_ms = i128::from(now.0) - i128::from(state.time_of(run).0);
        let is_old = settings.min_compaction_lag_ms == 0 || age_ms >= i128::from(settings.min_compaction_lag_ms);
        run.end_offset <= stable && is_compacted && (is_old || run.end_offset <= partition.cleaned)
    })
}

/// The first passes, those that one job does together: as many as have `bytes` bytes and `keys_bytes` for their keys. What
/// `is_alone` says is done by itself.
pub(super) fn together(
    due: Vec<Pass>,
    bytes_max: u64,
    keys_bytes: impl Fn(&Pass) -> u64,
    keys_bytes_max: u64,
    is_alone: impl Fn(&Pass) -> bool,
) -> Vec<Pass> {
    let (mut job, mut bytes, mut keys): (Vec<Pass>, u64, u64) = (Vec::new(), 0, 0);
    for pass in due {
        let alone = is_alone(&pass);
        (bytes, keys) = (bytes.saturating_add(pass.bytes), keys.saturating_add(keys_bytes(&pass)));
        if !job.is_empty() && (alone || bytes > bytes_max || keys > keys_bytes_max) {
            break;
        }
        job.push(pass);
        if alone {
            break;
        }
    }
    job
}

#[cfg(test)]
mod tests;
