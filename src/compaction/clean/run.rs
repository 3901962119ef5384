//! The task: looks now and then which partitions are due, and cleans those that are this broker's, one job at a time. Nobody
//! claims a partition, as with other compactions (ADR 18).
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, info, warn};

use super::job::Ended;
use super::plan::{self, Pass};
use crate::compaction::job::Done;
use crate::compaction::run::{Compactor, Pacer};
use crate::config::Config;
use crate::state::{CLEANING_LEVEL, State};
use crate::types::TimestampMs;
use crate::world::Instant;

/// A partition whose cleaning failed is left alone for this long, twice as long each time, up to the second.
const AVOIDED_FIRST: Duration = Duration::from_secs(10);
const AVOIDED_MAX: Duration = Duration::from_secs(600);

/// How much log compaction may use, and how often it looks.
#[derive(Clone, Debug)]
pub struct CleaningLimits {
    /// `log.cleaner.enable`
    pub enabled: bool,
    /// Memory for keys, in bytes (`log.cleaner.dedupe.buffer.size`).
    pub keys_bytes: u64,
    /// Between two looks (`log.cleaner.backoff.ms`).
    pub backoff: Duration,
    /// What topics without settings of their own have.
    pub config: Arc<Config>,
}

/// What a broker remembers of partitions, by the names of their passes.
#[derive(Default)]
struct Memory {
    /// Since when they are due.
    due: BTreeMap<String, Instant>,
    /// Those that could not be cleaned: until when they are left alone, and for how long that is.
    avoided: BTreeMap<String, (Instant, Duration)>,
}

/// Cleans until the broker stops.
pub(in crate::compaction) async fn run(compactor: Arc<Compactor>) {
    let mut memory = Memory::default();
    let mut pacer = Pacer::new(compactor.pace.bytes_per_second, compactor.world.now());
    while !compactor.replica.has_stopped() {
        let more = compactor.clean_some(&mut memory, &mut pacer).await;
        let pause = if more { Duration::ZERO } else { compactor.cleaning.backoff };
        compactor.world.sleep(pause.max(Duration::from_millis(100))).await;
    }
}

impl Compactor {
    /// Looks, and does a job if one is due; whether more is to be done.
    async fn clean_some(&self, memory: &mut Memory, pacer: &mut Pacer) -> bool {
        let state = self.replica.state();
        if state.feature_level() < CLEANING_LEVEL {
            return false;
        }
        // Tombstones go by time, and whoever has a wrong one must not judge.
        let Some(now) = self.replica.agreed_wall_ms(&self.world) else { return false };
        let (of, config) = (state.clone(), self.cleaning.config.clone());
        let due = self.world.compute(move || plan::due(&of, &config, now)).await;
        self.show_dirty(&due);
        let count = due.len();
        let job = self.choose_passes(due, memory);
        if job.is_empty() {
            return false;
        }
        let left = count > job.len();
        self.clean_and_tell(state, job, now, memory, pacer).await && left
    }

    fn show_dirty(&self, due: &[Pass]) {
        let shown = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.cleaning.due_partitions.set(shown(due.len() as u64));
        self.metrics.cleaning.due_bytes.set(shown(due.iter().map(|pass| pass.dirty_bytes).sum()));
    }

    /// The passes that are this broker's now, as many as one job does.
    fn choose_passes(&self, due: Vec<Pass>, memory: &mut Memory) -> Vec<Pass> {
        let (now, members) = (self.world.now(), self.membership.now());
        let names: std::collections::BTreeSet<String> = due.iter().map(Pass::name).collect();
        memory.due.retain(|name, _| names.contains(name));
        memory.avoided.retain(|name, _| names.contains(name));
        let ours = due.into_iter().filter(|pass| {
            let name = pass.name();
            if memory.avoided.get(&name).is_some_and(|(until, _)| *until > now) {
                return false;
            }
            let Some(place) = members.place_in_line(&name) else { return false };
            let since = *memory.due.entry(name).or_insert(now);
            now.saturating_duration_since(since) >= self.pace.takeover * u32::try_from(place).unwrap_or(u32::MAX)
        });
        let (ours, avoided) = (ours.collect(), &memory.avoided);
        let failed_before = |pass: &Pass| avoided.contains_key(&pass.name());
        plan::together(ours, self.limits.bytes, |pass| self.keys_bytes(pass), self.cleaning.keys_bytes, failed_before)
    }

    /// Does a job; false if it failed.
    async fn clean_and_tell(
        &self,
        state: Arc<State>,
        job: Vec<Pass>,
        now: TimestampMs,
        memory: &mut Memory,
        pacer: &mut Pacer,
    ) -> bool {
        let begun = self.world.now();
        let (names, bytes): (Vec<String>, u64) =
            (job.iter().map(Pass::name).collect(), job.iter().map(|pass| pass.bytes).sum());
        let mut done = Done::default();
        let ended = self.clean(state, job, now, pacer, &mut done).await;
        let metrics = &self.metrics.cleaning;
        metrics.read_bytes.inc_by(done.read_bytes);
        metrics.written_bytes.inc_by(done.written_bytes);
        memory.due.retain(|name, _| !names.contains(name));
        match ended {
            Ok(ended) => {
                metrics.ended(if ended == Ended::Done { "done" } else { "overtaken" });
                metrics.job_seconds.observe((self.world.now() - begun).as_secs_f64());
                memory.avoided.retain(|name, _| !names.contains(name));
                debug!(partitions = names.len(), bytes, written = done.written_bytes, ?ended, "logs are compacted");
                if ended == Ended::Overtaken {
                    info!(?names, "a log changed while it was compacted, it is tried again");
                }
                true
            }
            Err(failed) => {
                metrics.ended("failed");
                for name in &names {
                    let before = memory.avoided.get(name).map(|(_, pause)| *pause);
                    let pause = before.map_or(AVOIDED_FIRST, |pause| (pause * 2).min(AVOIDED_MAX));
                    memory.avoided.insert(name.clone(), (self.world.now() + pause, pause));
                }
                warn!(?names, error = %failed, "a log compaction was given up, the logs are as they were");
                false
            }
        }
    }
}
