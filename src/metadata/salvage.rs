//! Records of entries that the journal lost, out of the objects that hold them (H2). An object is in the bucket before the
//! entry that commits it, so everything that was acknowledged can be had from there; what was not, too, and it may have
//! happened. Offsets are given anew, in the new generation of the history.
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use tracing::warn;
use xxhash_rust::xxh3::xxh3_128;

use super::owner::new_incarnation;
use super::witness::list_since;
use crate::records::Batches;
use crate::segment::{FooterRun, HEADER_BYTES, ObjectName, read_footer};
use crate::state::{
    BatchOutcome, BatchSpec, Command, CommitRuns, Entry, Outcome, RegisterBroker, RunSpec, RunsReader, RunsWriter,
    State,
};
use crate::store::{Bucket, Purpose, StoreError};
use crate::types::{BrokerId, Position, Slot, TimestampMs};
use crate::world::World;

/// An object's name says what its writer had applied when its first batch came; it was committed at most so many entries
/// later.
const ENTRIES_ON_THE_WAY: u64 = 1000;

/// Under which the records are committed; no broker has it.
const BROKER: i32 = i32::MAX;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Objects that had something.
    pub objects: u64,
    /// Records that are in the log again.
    pub records: u64,
    /// Objects that can't be read, or of which the State knows no partition.
    pub left: Vec<String>,
}

/// Commits to `state` what the bucket has and the State up to `base` does not name.
pub(super) async fn salvage(
    bucket: &dyn Bucket,
    world: &World,
    state: &mut State,
    base: Position,
) -> Result<Salvaged, StoreError> {
    let named: BTreeMap<ObjectName, u32> = state.objects().map(|(_, meta)| (meta.name, meta.bytes)).collect();
    let mut unnamed = Vec::new();
    for prefix in ObjectName::prefixes() {
        let since = Position(base.0.saturating_sub(ENTRIES_ON_THE_WAY));
        let found = list_since(bucket, &prefix, since).await?;
        let names = found.into_iter().filter_map(|listed| Some((ObjectName::parse(&listed.key)?, listed.bytes)));
        unnamed.extend(names.filter(|(name, _)| !named.contains_key(name)));
    }
    // As they were written.
    unnamed.sort_unstable_by_key(|(name, _)| (name.applied.position, name.ulid));
    let mut salvaged = Salvaged::default();
    let mut contents = Contents { bucket, named, hashed: BTreeSet::new(), sizes: BTreeSet::new() };
    let mut writer = Writer { world, incarnation: new_incarnation(world), counter: 0 };
    if unnamed.is_empty() {
        return Ok(salvaged);
    }
    let level = state.feature_level();
    let incarnation = writer.incarnation;
    writer.write(state, RegisterBroker { broker: BROKER, incarnation, feature_level_max: level });
    for (name, bytes) in unnamed {
        let object = match bucket.read(&name.key(), None, Purpose::Snapshot).await {
            Ok(object) => object,
            Err(StoreError::NotFound { .. } | StoreError::Damaged { .. }) => {
                salvaged.left.push(name.key());
                continue;
            }
            Err(error) => return Err(error),
        };
        // A second copy, of a PUT that took long.
        if contents.has(&object, bytes).await? {
            continue;
        }
        let Some(commit) = commit(state, name, &object) else {
            warn!(key = name.key(), "nothing can be had from this object");
            salvaged.left.push(name.key());
            continue;
        };
        let records = committed(&commit, &writer.write(state, commit.clone()));
        salvaged.records += records;
        salvaged.objects += u64::from(records > 0);
    }
    state.forget_broker(BrokerId(BROKER));
    Ok(salvaged)
}

/// What objects hold, whatever they are called.
struct Contents<'a> {
    bucket: &'a dyn Bucket,
    named: BTreeMap<ObjectName, u32>,
    hashed: BTreeSet<u128>,
    /// Sizes of which every named object was looked at.
    sizes: BTreeSet<u64>,
}

impl Contents<'_> {
    /// Whether another object has the same content; it is known from now on.
    async fn has(&mut self, object: &Bytes, bytes: u64) -> Result<bool, StoreError> {
        if self.sizes.insert(bytes) {
            for (name, _) in self.named.iter().filter(|(_, size)| u64::from(**size) == bytes) {
                match self.bucket.read(&name.key(), None, Purpose::Snapshot).await {
                    Ok(other) => drop(self.hashed.insert(hash(&other))),
                    Err(StoreError::NotFound { .. } | StoreError::Damaged { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(!self.hashed.insert(hash(object)))
    }
}

/// Of all but the header, which is each copy's own.
fn hash(object: &Bytes) -> u128 {
    xxh3_128(object.get(HEADER_BYTES as usize..).unwrap_or_default())
}

/// Folds entries into a State that nobody else has.
struct Writer<'a> {
    world: &'a World,
    incarnation: u64,
    counter: u64,
}

impl Writer<'_> {
    fn write(&mut self, state: &mut State, command: impl Into<Command>) -> Vec<Outcome> {
        self.counter += 1;
        let entry = Entry {
            feature_level: state.feature_level(),
            broker: BROKER,
            incarnation: self.incarnation,
            counter: self.counter,
            token: self.world.random_u64(),
            wall_ms: self.world.wall_ms().0,
            after_position: state.head().position.0,
            after_token: state.head().token.0,
            after_outcomes: state.outcomes_hash(),
            commands: vec![command.into()],
        };
        state.apply(state.head().position.next(), &entry)
    }
}

/// The command that commits what the object has for partitions that there are; `None` if that is nothing.
pub(super) fn commit(state: &State, name: ObjectName, object: &Bytes) -> Option<CommitRuns> {
    let (header, runs) = read_footer(object).ok()?;
    if header.name != name {
        return None;
    }
    let mut writer = RunsWriter::default();
    for run in &runs {
        let slot = state.topic(run.topic).and_then(|topic| topic.slots.get(usize::try_from(run.partition.0).ok()?));
        if let Some(spec) = slot.and_then(|slot| run_of(*slot, run, object)) {
            writer.push(&spec);
        }
    }
    if writer.is_empty() {
        return None;
    }
    let (base_timestamp, runs) = writer.finish();
    Some(CommitRuns {
        ulid: Bytes::copy_from_slice(&name.ulid.to_be_bytes()),
        applied_position: name.applied.position.0,
        applied_token: name.applied.token.0,
        object_bytes: u32::try_from(object.len()).ok()?,
        object: None,
        base_timestamp,
        runs: runs.into(),
    })
}

fn run_of(slot: Slot, run: &FooterRun, object: &Bytes) -> Option<RunSpec> {
    let (start, end) = (run.position as usize, (run.position as usize).checked_add(run.bytes as usize)?);
    let bytes = object.get(start..end).map(|part| object.slice_ref(part))?;
    let (mut batches, mut max_timestamp) = (Vec::new(), TimestampMs(i64::MIN));
    for batch in Batches::new(bytes) {
        let batch = batch.ok()?;
        max_timestamp = max_timestamp.max(batch.header.max_timestamp);
        batches.push(BatchSpec::of(&batch.header, u32::try_from(batch.range.len()).ok()?));
    }
    (!batches.is_empty()).then_some(RunSpec { slot, position: run.position, max_timestamp, batches })
}

/// Records that were accepted.
fn committed(commit: &CommitRuns, outcomes: &[Outcome]) -> u64 {
    let Some(Outcome::Batches { batches, .. }) = outcomes.first() else { return 0 };
    let (mut reader, mut run) = (RunsReader::new(commit.base_timestamp, &commit.runs), RunSpec::empty());
    let (mut outcomes, mut records) = (batches.iter(), 0);
    while let Ok(true) = reader.next_into(&mut run) {
        let accepted = run.batches.iter().zip(outcomes.by_ref());
        let accepted = accepted.filter(|(_, outcome)| matches!(outcome, BatchOutcome::Accepted { .. }));
        records += accepted.map(|(batch, _)| u64::from(batch.records)).sum::<u64>();
    }
    records
}
