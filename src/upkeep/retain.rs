//! Retention by time and size, as Kafka does it for segments: a partition's oldest run goes as a whole, while it is older than
//! `retention.ms` by its largest timestamp, or the partition without it has `retention.bytes` still. A run with a timestamp in
//! the future holds back those behind it. Log starts move by one command for many partitions (H15).
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, info};

use super::Upkeep;
use crate::config::Config;
use crate::config::topic::Retention;
use crate::planted::{Defect, planted};
use crate::state::{OFFSETS_TOPIC, Outcome, Partition, State, Topic, TopicTrims, TrimLogs};
use crate::types::{Offset, PartitionIndex, TimestampMs, TopicId};

/// Partitions, and runs, that one command gives up at most: some ms for each broker that applies it.
const TRIMS_MAX: usize = 5_000;
const RUNS_MAX: u64 = 20_000;

/// Between two commands: entries of producers come in between.
const BETWEEN_COMMANDS: Duration = Duration::from_millis(100);

/// A partition's log start, and what lies below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trim {
    topic: TopicId,
    config_version: u64,
    index: PartitionIndex,
    offset: Offset,
    runs: u64,
    bytes: u64,
}

/// Looks at all partitions as often as `log.retention.check.interval.ms` says.
pub(super) async fn run(upkeep: Arc<Upkeep>) {
    let every = u64::try_from(upkeep.config.kafka.log_retention_check_interval_ms).unwrap_or(1).max(1);
    while upkeep.rest(Duration::from_millis(every)).await {
        if upkeep.is_ours() {
            upkeep.retain().await;
        } else {
            upkeep.show_overdue(0, 0);
        }
    }
}

impl Upkeep {
    async fn retain(&self) {
        let (state, config) = (self.replica.state(), self.config.clone());
        // What goes by size needs no clock.
        let now = self.replica.agreed_wall_ms(&self.world);
        let trims = self.world.compute(move || plan(&state, &config, now)).await;
        let (mut runs, mut bytes) = sum(&trims);
        self.show_overdue(runs, bytes);
        let (partitions, all_bytes) = (trims.len(), bytes);
        for part in parts(&trims) {
            match self.replica.propose(command(part)).await {
                Ok(Outcome::Counted { .. }) => {}
                // What is due now is due at the next look, too.
                other => {
                    debug!(?other, "log starts are not moved yet");
                    return;
                }
            }
            let (gone, gone_bytes) = sum(part);
            (runs, bytes) = (runs - gone, bytes - gone_bytes);
            self.metrics.upkeep.expired_bytes.inc_by(gone_bytes);
            self.show_overdue(runs, bytes);
            if runs == 0 || !self.rest(BETWEEN_COMMANDS).await {
                break;
            }
        }
        if partitions > 0 {
            info!(partitions, bytes = all_bytes, "records past their retention are given up");
        }
    }

    fn show_overdue(&self, runs: u64, bytes: u64) {
        self.metrics.upkeep.overdue_runs.set(i64::try_from(runs).unwrap_or(i64::MAX));
        self.metrics.upkeep.overdue_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

fn sum(trims: &[Trim]) -> (u64, u64) {
    trims.iter().fold((0, 0), |(runs, bytes), trim| (runs + trim.runs, bytes + trim.bytes))
}

/// What is due of all topics at `now`, by topic and partition, none of it more than one command may give up. Without `now`
/// nothing goes by time.
fn plan(state: &State, config: &Config, now: Option<TimestampMs>) -> Vec<Trim> {
    let mut trims = Vec::new();
    // What it shows lies in State, and goes with the groups.
    for topic in state.topics().filter(|topic| &*topic.name != OFFSETS_TOPIC) {
        let mut retention = Retention::resolve(&topic.configs, config);
        retention.ms = retention.ms.map(|ms| if planted(Defect::RetentionTooEarly) { ms / 3 } else { ms });
        for partition in topic.slots.iter().filter_map(|slot| state.partition(*slot)) {
            of_partition(state, topic, partition, retention, now, &mut trims);
        }
    }
    trims
}

fn of_partition(
    state: &State,
    topic: &Topic,
    partition: &Partition,
    retention: Retention,
    now: Option<TimestampMs>,
    trims: &mut Vec<Trim>,
) {
    let (id, config_version, index) = (topic.id, topic.config_version, partition.index);
    let nothing = Trim { topic: id, config_version, index, offset: partition.log_start, runs: 0, bytes: 0 };
    let (mut trim, mut left) = (nothing, partition.bytes);
    for run in partition.tail.iter() {
        let old =
            |ms: u64| now.is_some_and(|now| i128::from(now.0) - i128::from(state.time_of(&run).0) > i128::from(ms));
        let without = left.saturating_sub(u64::from(run.bytes));
        if !retention.ms.is_some_and(old) && retention.bytes.is_none_or(|bytes| without < bytes) {
            break;
        }
        left = without;
        (trim.runs, trim.bytes) = (trim.runs + 1, trim.bytes + u64::from(run.bytes));
        trim.offset = run.end_offset;
        if trim.runs == RUNS_MAX {
            trims.push(trim);
            trim = nothing;
        }
    }
    trims.extend(Some(trim).filter(|trim| trim.runs > 0));
}

/// Neighbours that fit into one command.
fn parts(trims: &[Trim]) -> impl Iterator<Item = &[Trim]> {
    let mut rest = trims;
    std::iter::from_fn(move || {
        let mut runs = 0;
        let fits = |trim: &&Trim| {
            runs += trim.runs;
            runs <= RUNS_MAX
        };
        let count = rest.iter().take(TRIMS_MAX).take_while(fits).count().max(1);
        let (part, after) = rest.split_at_checked(count)?;
        rest = after;
        Some(part)
    })
}

fn command(part: &[Trim]) -> TrimLogs {
    let topics = part.chunk_by(|one, other| one.topic == other.topic).map(|of_topic| {
        let trims: Vec<_> = of_topic.iter().map(|trim| (trim.index, trim.offset)).collect();
        TopicTrims::new(of_topic[0].topic, of_topic[0].config_version, &trims)
    });
    TrimLogs { topics: topics.collect() }
}

#[cfg(test)]
mod tests;
