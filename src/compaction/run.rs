//! The task: looks what is due, does what is this broker's part, at a bounded pace, one job at a time.
//!
//! Jobs are not claimed. Each broker works out the same windows, and who is first in line for a job by a hash of its name;
//! if it is still due after a while, the next in line may do it. Two that do the same job cost the work, and the second
//! one's commit finds nothing to replace (ADR 0018).
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

use super::clean::{self, CleaningLimits};
use super::job::{Done, Failed};
use super::plan::{self, Limits, Window};
use crate::cache::ObjectCache;
use crate::cluster::Membership;
use crate::metadata::Replica;
use crate::state::{COMPACTION_LEVEL, State};
use crate::store::Bucket;
use crate::telemetry::Metrics;
use crate::types::ObjectId;
use crate::world::{Instant, World};

/// How often it is looked what is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// After a job failed, its input is left alone for this long, twice as long each time, up to the second.
const AVOIDED_FIRST: Duration = Duration::from_secs(10);
const AVOIDED_MAX: Duration = Duration::from_secs(600);

/// After one failed that was no input's fault.
const FAILED_PAUSE: Duration = Duration::from_secs(5);

/// How fast a broker compacts, and when it does what is another's part.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes read and written per second.
    pub bytes_per_second: u64,
    /// A job that is due for so long may be done by the next in line; twice as long, by the one behind it.
    pub takeover: Duration,
}

/// What compacts on one broker.
pub struct Compactor {
    pub world: World,
    pub replica: Replica,
    pub membership: Membership,
    pub bucket: Arc<dyn Bucket>,
    pub cache: Arc<ObjectCache>,
    pub metrics: Arc<Metrics>,
    pub limits: Limits,
    pub pace: Pace,
    pub cleaning: CleaningLimits,
}

/// Spends bytes no faster than they come.
pub(super) struct Pacer {
    bytes_per_second: u64,
    next: Instant,
}

impl Pacer {
    pub(super) fn new(bytes_per_second: u64, now: Instant) -> Self {
        Self { bytes_per_second, next: now }
    }

    pub(super) async fn spend(&mut self, world: &World, bytes: u64) {
        world.sleep_until(self.next).await;
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.max(1));
        self.next = world.now() + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    }
}

/// What a broker remembers of jobs, for as long as it runs.
#[derive(Default)]
struct Memory {
    /// Since when a job is due.
    due: BTreeMap<String, Instant>,
    /// Inputs that could not be used: until when they are left alone, and for how long that is.
    avoided: BTreeMap<ObjectId, (Instant, Duration)>,
}

impl Compactor {
    /// Compacts until the broker stops.
    pub fn start(self) {
        let (world, compactor) = (self.world.clone(), Arc::new(self));
        if compactor.cleaning.enabled {
            world.spawn("log-compaction", clean::run(compactor.clone()));
        }
        world.spawn("compaction", compactor.run());
    }

    async fn run(self: Arc<Self>) {
        let mut memory = Memory::default();
        let mut pacer = Pacer::new(self.pace.bytes_per_second, self.world.now());
        while !self.replica.has_stopped() {
            let state = self.replica.state();
            self.show(&state);
            let window = self.choose(&state, &mut memory);
            let Some(window) = window else {
                drop(state);
                self.world.sleep(LOOK_EVERY).await;
                continue;
            };
            if !self.work(state, &window, &mut memory, &mut pacer).await {
                self.world.sleep(FAILED_PAUSE).await;
            }
        }
    }

    /// The first job that is this broker's now.
    fn choose(&self, state: &State, memory: &mut Memory) -> Option<Window> {
        if state.feature_level() < COMPACTION_LEVEL {
            return None;
        }
        let now = self.world.now();
        memory.avoided.retain(|id, _| state.object(*id).is_some_and(|meta| meta.live_runs > 0));
        let avoided: BTreeSet<ObjectId> =
            memory.avoided.iter().filter(|(_, (until, _))| *until > now).map(|(id, _)| *id).collect();
        let windows = plan::windows(state, &self.limits, self.world.wall_ms(), &avoided);
        let names: BTreeSet<String> = windows.iter().map(Window::name).collect();
        memory.due.retain(|name, _| names.contains(name));
        let members = self.membership.now();
        windows.into_iter().find(|window| {
            let name = window.name();
            let Some(place) = members.place_in_line(&name) else { return false };
            let since = *memory.due.entry(name).or_insert(now);
            now.saturating_duration_since(since) >= self.pace.takeover * u32::try_from(place).unwrap_or(u32::MAX)
        })
    }

    /// Does a job; false if it is to be tried again after a while.
    async fn work(&self, state: Arc<State>, window: &Window, memory: &mut Memory, pacer: &mut Pacer) -> bool {
        let begun = self.world.now();
        let metrics = &self.metrics.compaction;
        let mut done = Done::default();
        let ended = self.carry_out(state, window, pacer, &mut done).await;
        metrics.moved(window.level, done.read_bytes, done.written_bytes);
        metrics.dropped_shares.inc_by(done.dropped);
        memory.due.remove(&window.name());
        match ended {
            Ok(()) => {
                metrics.ended(window.level, if done.taken > 0 { "done" } else { "in_vain" });
                metrics.job_seconds.observe((self.world.now() - begun).as_secs_f64());
                for (id, _) in &window.inputs {
                    memory.avoided.remove(id);
                }
                // If State did not take it, it has changed: look again, but not at once.
                done.taken > 0
            }
            Err(failed) => {
                metrics.ended(window.level, "failed");
                self.failed(&failed, window, memory);
                false
            }
        }
    }

    fn failed(&self, failed: &Failed, window: &Window, memory: &mut Memory) {
        let Failed::Input { object, .. } = failed else {
            info!(job = window.name(), error = %failed, "a compaction was given up, it is tried again");
            return;
        };
        let before = memory.avoided.get(object).map(|(_, pause)| *pause);
        let pause = before.map_or(AVOIDED_FIRST, |pause| (pause * 2).min(AVOIDED_MAX));
        memory.avoided.insert(*object, (self.world.now() + pause, pause));
        warn!(job = window.name(), error = %failed, ?pause, "a compaction was given up, its inputs are kept as they are");
    }

    fn show(&self, state: &State) {
        let metrics = &self.metrics.compaction;
        let (flushes, first) = (plan::backlog(state, 0), plan::backlog(state, 1));
        let shown = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        metrics.backlog_objects.set(shown(flushes.objects));
        metrics.backlog_runs.set(shown(flushes.runs));
        metrics.backlog_bytes.set(shown(flushes.bytes));
        metrics.unmerged_objects.set(shown(first.objects));
    }
}
