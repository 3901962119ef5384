//! Proves that what State says is so: every partition's offsets follow one another from its log start to its end, every object
//! that a log refers to is in the bucket and holds what it should, and what nobody refers to is told. It reads and repairs
//! nothing. Objects are gone through in State's order, so that of any number of runs only a part lies in memory.
mod object;

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info, warn};

use super::Upkeep;
use crate::segment::{HEADER_BYTES, ObjectKind, ObjectName};
use crate::state::{ObjectMeta, Partition, Run, State};
use crate::store::{Bucket, Purpose, StoreError};
use crate::types::{ObjectId, Offset, PartitionIndex, TimestampMs, TopicId};
use crate::world::World;
use object::{Expected, check_object};

/// Runs of objects that lie in memory at a time.
const RUNS_AT_ONCE: u64 = 500_000;

/// Problems that are told one by one; more are counted.
const TOLD_MAX: usize = 1_000;

/// Of these, a broker logs so many.
const LOGGED_MAX: usize = 20;

/// A name that State does not know is a leftover when it is this many times as old as an orphan has to be for the sweep.
const SWEEPS_MISSED: u64 = 2;

/// Rows of one page of a listing.
const PAGE: usize = 1_000;

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// One topic; `None`: everything, and what is left over.
    pub topic: Option<TopicId>,
    /// Objects are read as fast as this, in bytes a second, to prove their contents; 0: they are only listed.
    pub bytes_per_second: u64,
    /// Age at which the sweep looks at orphans.
    pub orphan_age: Duration,
}

/// What an audit found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub partitions: u64,
    pub runs: u64,
    /// Objects that were looked at, of all that are in the scope.
    pub objects: u64,
    pub objects_all: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Objects that no entry names and that the sweep should have deleted.
    pub leftovers: u64,
    pub leftover_bytes: u64,
    /// The first thousand, and the number of all.
    pub problems: Vec<Problem>,
    pub problems_all: u64,
}

/// What is not as State says. Records are lost, or will be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Of a partition's log.
    #[error("{topic}-{partition}: {flaw}")]
    Log { topic: String, partition: PartitionIndex, flaw: LogFlaw },
    /// Of an object that logs refer to.
    #[error("{key}: {what}")]
    Object { id: ObjectId, key: String, what: String },
}

/// See [`Problem::Log`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFlaw {
    #[error("nothing holds the offsets from {from} to {to}")]
    Gap { from: Offset, to: Offset },
    #[error("offset {at} is there twice")]
    Twice { at: Offset },
    #[error("the object with offset {at} is not known")]
    Unknown { at: Offset },
    #[error("what has offset {at} lies beyond its object")]
    Beyond { at: Offset },
}

/// Goes through everything in `scope`; `seen` is told how far it is.
///
/// # Errors
/// If the bucket can't be listed or read.
pub async fn audit(
    bucket: &dyn Bucket,
    world: &World,
    state: &Arc<State>,
    scope: Scope,
    mut seen: impl FnMut(&Report),
) -> Result<Report, StoreError> {
    let mut report = Report::default();
    check_logs(state, scope.topic, &mut report);
    report.objects_all = objects_of(state, scope.topic);
    let listed = compare_names(bucket, world.wall_ms(), state, scope, &mut report).await?;
    let objects: Vec<(ObjectId, ObjectMeta)> = state.objects().map(|(id, meta)| (id, *meta)).collect();
    let mut left = &objects[..];
    while !left.is_empty() {
        let part;
        (part, left) = left.split_at(within(left));
        let expected = expected_of(state, scope.topic, part);
        for (id, meta) in part {
            let Some(runs) = expected.get(id) else {
                if scope.topic.is_none() && meta.live_runs > 0 {
                    report.object(*id, meta, "no log refers to it, and State counts some that do");
                }
                continue;
            };
            if scope.topic.is_none() && runs.len() != meta.live_runs as usize {
                report.object(*id, meta, "State counts other references to it than there are");
            }
            if listed.get(id) != Some(&u64::from(meta.bytes)) {
                let found = listed.get(id).map_or("it is not there".to_owned(), |b| format!("it has {b} bytes"));
                report.object(*id, meta, &format!("{found}; {} bytes were written", meta.bytes));
            } else if let Some(pause_ms) = (u64::from(meta.bytes) * 1000).checked_div(scope.bytes_per_second) {
                read_object(bucket, world, *id, meta, runs.clone(), &mut report).await?;
                world.sleep(Duration::from_millis(pause_ms)).await;
            }
            report.objects += 1;
            seen(&report);
        }
    }
    Ok(report)
}

/// How many objects logs in scope refer to.
fn objects_of(state: &State, scope: Option<TopicId>) -> u64 {
    let Some(topic) = scope.map(|id| state.topic(id)) else {
        return state.objects().filter(|(_, meta)| meta.live_runs > 0).count() as u64;
    };
    let slots = topic.iter().flat_map(|topic| topic.slots.iter());
    let tails = slots.filter_map(|slot| state.partition(*slot)).flat_map(|partition| partition.tail.iter());
    tails.filter(|run| run.marker.is_none()).map(|run| run.object).collect::<BTreeSet<_>>().len() as u64
}

/// How many of these objects are looked at together.
fn within(objects: &[(ObjectId, ObjectMeta)]) -> usize {
    let mut runs = 0_u64;
    let fit = objects.iter().take_while(|(_, meta)| {
        runs += u64::from(meta.live_runs);
        runs <= RUNS_AT_ONCE
    });
    fit.count().max(1)
}

fn check_logs(state: &State, scope: Option<TopicId>, report: &mut Report) {
    for topic in state.topics().filter(|topic| scope.is_none_or(|id| topic.id == id)) {
        for partition in topic.slots.iter().filter_map(|slot| state.partition(*slot)) {
            report.partitions += 1;
            report.runs += partition.tail.len() as u64;
            for flaw in flaws_of(state, partition) {
                report.add(Problem::Log { topic: topic.name.to_string(), partition: partition.index, flaw });
            }
        }
    }
}

/// What is wrong with a partition's log by itself.
fn flaws_of(state: &State, partition: &Partition) -> Vec<LogFlaw> {
    let (mut flaws, mut next) = (Vec::new(), None);
    for run in partition.tail.iter() {
        let at = run.base_offset;
        match next.unwrap_or(partition.log_start) {
            from if at > from => flaws.push(LogFlaw::Gap { from, to: at }),
            _ if next.is_some_and(|next| at < next) => flaws.push(LogFlaw::Twice { at }),
            _ => {}
        }
        next = Some(run.end_offset);
        if run.marker.is_some() {
            continue;
        }
        let end = u64::from(run.position) + u64::from(run.bytes);
        match state.object(run.object) {
            None => flaws.push(LogFlaw::Unknown { at }),
            Some(meta) if run.position < HEADER_BYTES || end > u64::from(meta.bytes) => {
                flaws.push(LogFlaw::Beyond { at });
            }
            Some(_) => {}
        }
    }
    let end = next.unwrap_or(partition.log_start);
    if end != partition.end {
        flaws.push(LogFlaw::Gap { from: end, to: partition.end });
    }
    flaws
}

/// What the logs in scope have in these objects.
fn expected_of(
    state: &State,
    scope: Option<TopicId>,
    objects: &[(ObjectId, ObjectMeta)],
) -> BTreeMap<ObjectId, Vec<Expected>> {
    let (first, last) = match (objects.first(), objects.last()) {
        (Some((first, _)), Some((last, _))) => (*first, *last),
        _ => return BTreeMap::new(),
    };
    let mut expected: BTreeMap<ObjectId, Vec<Expected>> = BTreeMap::new();
    for topic in state.topics().filter(|topic| scope.is_none_or(|id| topic.id == id)) {
        for partition in topic.slots.iter().filter_map(|slot| state.partition(*slot)) {
            let here = |run: &Run| run.marker.is_none() && (first..=last).contains(&run.object);
            for run in partition.tail.iter().filter(here) {
                let of = Expected { topic: topic.id, partition: partition.index, run };
                expected.entry(run.object).or_default().push(of);
            }
        }
    }
    expected
}

/// Lists the bucket: of which objects that State names there are how many bytes; what it does not name is counted if it
/// should be gone.
async fn compare_names(
    bucket: &dyn Bucket,
    now: TimestampMs,
    state: &State,
    scope: Scope,
    report: &mut Report,
) -> Result<BTreeMap<ObjectId, u64>, StoreError> {
    let named: BTreeMap<ObjectName, ObjectId> = state.objects().map(|(id, meta)| (meta.name, id)).collect();
    let old_ms = u64::try_from(scope.orphan_age.as_millis()).unwrap_or(u64::MAX).saturating_mul(SWEEPS_MISSED);
    let mut there = BTreeMap::new();
    for prefix in [ObjectKind::Data, ObjectKind::Compacted].into_iter().flat_map(ObjectName::prefixes) {
        let mut after: Option<String> = None;
        loop {
            let page = bucket.list(&prefix, after.as_ref(), PAGE, Purpose::Upkeep).await?;
            for listed in &page {
                let Some(name) = ObjectName::parse(&listed.key) else { continue };
                let age_ms = now.0.saturating_sub(name.written_ms().0);
                if let Some(id) = named.get(&name) {
                    there.insert(*id, listed.bytes);
                } else if scope.topic.is_none() && u64::try_from(age_ms).is_ok_and(|ms| ms > old_ms) {
                    report.leftovers += 1;
                    report.leftover_bytes += listed.bytes;
                }
            }
            let is_last = page.len() < PAGE;
            after = page.into_iter().next_back().map(|listed| listed.key);
            if is_last {
                break;
            }
        }
    }
    Ok(there)
}

/// Reads an object, a second time if it is not as it should be, since a read may be damaged on its way.
async fn read_object(
    bucket: &dyn Bucket,
    world: &World,
    id: ObjectId,
    meta: &ObjectMeta,
    runs: Vec<Expected>,
    report: &mut Report,
) -> Result<(), StoreError> {
    let runs = Arc::new(runs);
    let mut flaw = String::new();
    for _ in 0..2 {
        let content: Bytes = match bucket.read(&meta.name.key(), None, Purpose::Upkeep).await {
            Ok(content) => content,
            Err(error @ (StoreError::NotFound { .. } | StoreError::Damaged { .. })) => {
                flaw = error.to_string();
                continue;
            }
            Err(error) => return Err(error),
        };
        report.bytes += content.len() as u64;
        let (name, runs) = (meta.name, runs.clone());
        match world.compute(move || check_object(&content, name, &runs)).await {
            Ok(()) => return Ok(()),
            Err(what) => flaw = what,
        }
    }
    report.object(id, meta, &flaw);
    Ok(())
}

impl Report {
    fn object(&mut self, id: ObjectId, meta: &ObjectMeta, what: &str) {
        self.add(Problem::Object { id, key: meta.name.key(), what: what.to_owned() });
    }

    fn add(&mut self, problem: Problem) {
        self.problems_all += 1;
        if self.problems.len() < TOLD_MAX {
            self.problems.push(problem);
        }
    }

    /// Whether a later State would change what was found of objects.
    #[must_use]
    pub fn has_doubts(&self) -> bool {
        self.problems.iter().any(|problem| matches!(problem, Problem::Object { .. }))
    }

    /// Takes back what was found of objects that died, by a later State, while they were looked at.
    pub fn settle(&mut self, later: &State) {
        let dead: BTreeMap<_, _> = later.deaths().collect();
        let before = self.problems.len();
        self.problems.retain(|problem| match problem {
            Problem::Object { id, .. } => later.object(*id).is_some() && !dead.contains_key(id),
            Problem::Log { .. } => true,
        });
        self.problems_all -= (before - self.problems.len()) as u64;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "PROBLEM {problem}")?;
        }
        if self.problems_all > self.problems.len() as u64 {
            writeln!(f, "… and {} more", self.problems_all - self.problems.len() as u64)?;
        }
        let Self { partitions, runs, objects, objects_all, bytes, leftovers, leftover_bytes, problems_all, .. } = self;
        writeln!(f, "logs       {partitions} partitions, {runs} runs")?;
        writeln!(f, "objects    {objects} of {objects_all}, {bytes} bytes read")?;
        writeln!(f, "leftovers  {leftovers} objects, {leftover_bytes} bytes that no entry names and no sweep took")?;
        writeln!(f, "problems   {problems_all}")
    }
}

/// Audits as often as `upkeep.audit_interval_ms` says.
pub(super) async fn run(upkeep: Arc<Upkeep>) {
    let config = &upkeep.config.upkeep;
    let every = Duration::from_millis(config.audit_interval_ms);
    let scope = Scope {
        topic: None,
        bytes_per_second: config.audit_bytes_per_second,
        orphan_age: Duration::from_millis(config.orphan_age_ms),
    };
    while upkeep.rest(every).await {
        if !upkeep.is_ours() {
            upkeep.metrics.upkeep.audit_problems.set(0);
            continue;
        }
        let state = upkeep.replica.state();
        let pass = audit(&*upkeep.bucket, &upkeep.world, &state, scope, |_| ());
        let found = tokio::select! {
            biased;
            found = pass => found,
            () = upkeep.replica.stopped() => return,
        };
        match found {
            Ok(report) => upkeep.tell(report).await,
            Err(error) => warn!(%error, "the audit can't be ended, the next one tries again"),
        }
    }
}

impl Upkeep {
    async fn tell(&self, mut report: Report) {
        if report.has_doubts() && self.replica.barrier().await.is_ok() {
            report.settle(&self.replica.state());
        }
        for problem in report.problems.iter().take(LOGGED_MAX) {
            error!(%problem, "an audit found that records are lost, or will be");
        }
        let metrics = &self.metrics.upkeep;
        metrics.audits.inc();
        metrics.audit_problems.set(i64::try_from(report.problems_all).unwrap_or(i64::MAX));
        metrics.audit_leftovers.set(i64::try_from(report.leftovers).unwrap_or(i64::MAX));
        let (problems, objects, bytes) = (report.problems_all, report.objects, report.bytes);
        info!(problems, objects, bytes, leftovers = report.leftovers, "the logs and the bucket are audited");
    }
}

#[cfg(test)]
mod tests;
