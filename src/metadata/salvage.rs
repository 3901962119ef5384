//! Records of entries that the journal lost, out of the objects that hold them (H2). An object is in the bucket before the
//! entry that commits it, so everything that was acknowledged can be had from there; what was not, too, and it may have
//! happened. Offsets are given anew, in the new generation of the history.
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use tracing::{debug, warn};
use xxhash_rust::xxh3::xxh3_128;

use super::life::new_incarnation;
use super::witness::list_since;
use crate::records::Batches;
use crate::segment::{FooterRun, HEADER_BYTES, ObjectKind, ObjectName, read_footer};
use crate::state::{
    BatchOutcome, BatchSpec, Command, CommitRuns, Entry, ObjectMeta, Outcome, Partition, RegisterBroker, RunSpec,
    RunsWriter, State,
};
use crate::store::{Bucket, Purpose, StoreError};
use crate::types::{BrokerId, Head, KafkaError, ObjectId, Offset, Position, Slot, TimestampMs};
use crate::world::World;

/// An object's name says what its writer had applied when its first batch came; it was committed at most so many entries
/// later, while its PUT and its append were tried again and again.
const ENTRIES_ON_THE_WAY: u64 = 10_000;

/// Of objects that State names, those of as many entries are looked at for what it does not have of them.
const PARTLY_COMMITTED: u64 = 1_000;

/// Under which the records are committed; no broker has it.
const BROKER: i32 = i32::MAX;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Objects that had something.
    pub objects: u64,
    /// Records that are in the log again.
    pub records: u64,
    /// Objects of which something could not be had: they are damaged, their topics are not known, or batches before theirs
    /// are missing.
    pub left: Vec<String>,
}

/// Commits to `state` what the bucket has and the State up to `base` does not name.
pub(super) async fn salvage(
    bucket: &dyn Bucket,
    world: &World,
    state: &mut State,
    base: Position,
) -> Result<Salvaged, StoreError> {
    let since = Position(base.0.saturating_sub(ENTRIES_ON_THE_WAY));
    let recent = state.objects().filter(|(_, meta)| meta.name.applied.position >= since);
    let known: BTreeMap<ObjectName, ObjectId> = recent.map(|(id, meta)| (meta.name, id)).collect();
    let mut found: Vec<(ObjectName, u64)> = Vec::new();
    for prefix in ObjectName::prefixes(ObjectKind::Data) {
        let listed = list_since(bucket, &prefix, since).await?;
        let named = listed.into_iter().filter_map(|listed| Some((ObjectName::parse(&listed.key)?, listed.bytes)));
        // What is below the horizon was never acknowledged, and may be gone in a moment.
        let horizon = state.orphan_horizon();
        found.extend(named.filter(|(name, _)| name.applied.position >= horizon || known.contains_key(name)));
    }
    // As they were written.
    found.sort_unstable_by_key(|(name, _)| (name.applied.position, name.ulid));
    let mut salvaged = Salvaged::default();
    if found.is_empty() {
        return Ok(salvaged);
    }
    let committed = committed_runs(state, &known);
    let (mut pieces, mut twins) = (Vec::new(), BTreeSet::new());
    // Named ones first: what equals them is a second copy.
    let (mut named, unnamed): (Vec<_>, Vec<_>) = found.into_iter().partition(|(name, _)| known.contains_key(name));
    let doubtful: BTreeSet<(Head, u64)> = unnamed.iter().map(|(name, bytes)| (name.applied, *bytes)).collect();
    let partly = Position(base.0.saturating_sub(PARTLY_COMMITTED));
    named.retain(|(name, bytes)| name.applied.position >= partly || doubtful.contains(&(name.applied, *bytes)));
    for (name, _) in named.into_iter().chain(unnamed) {
        let id = known.get(&name).copied();
        let object = match bucket.read(&name.key(), None, Purpose::Snapshot).await {
            Ok(object) => object,
            Err(StoreError::NotFound { .. } | StoreError::Damaged { .. }) => {
                salvaged.left.push(name.key());
                continue;
            }
            Err(error) => return Err(error),
        };
        // A PUT that takes long has a second copy, by the same writer under the same last entry.
        if !twins.insert((name.applied, hash(&object))) && id.is_none() {
            continue;
        }
        match pieces_of(state, name, id, &object, &committed) {
            Some(of_object) => {
                let runs = of_object.len();
                debug!(key = name.key(), ?id, runs, "looked at for what the journal lost");
                pieces.extend(of_object);
            }
            None => {
                warn!(key = name.key(), "nothing can be had from this object");
                salvaged.left.push(name.key());
            }
        }
    }
    commit_all(world, state, pieces, &mut salvaged);
    Ok(salvaged)
}

/// Of which partitions the State has records in each of these objects.
fn committed_runs(state: &State, known: &BTreeMap<ObjectName, ObjectId>) -> BTreeSet<(ObjectId, Slot)> {
    let ids: BTreeSet<ObjectId> = known.values().copied().collect();
    let slots = state.topics().flat_map(|topic| topic.slots.iter().copied());
    let runs = slots.filter_map(|slot| state.partition(slot)).flat_map(|partition| {
        let runs = partition.tail.iter().filter(|run| ids.contains(&run.object));
        runs.map(|run| (run.object, partition.slot)).collect::<Vec<_>>()
    });
    runs.collect()
}

/// One partition's batches in an object that State may not have.
struct Piece {
    name: ObjectName,
    object_bytes: u32,
    /// What State calls the object, if it has anything of it.
    id: Option<ObjectId>,
    run: RunSpec,
}

/// The runs of an object of which State has nothing; `None` if it is none, or of topics that are not known alone. Of an
/// object that was committed in part, those of partitions from which records were deleted may have been there before.
fn pieces_of(
    state: &State,
    name: ObjectName,
    id: Option<ObjectId>,
    object: &Bytes,
    committed: &BTreeSet<(ObjectId, Slot)>,
) -> Option<Vec<Piece>> {
    let (header, runs) = read_footer(object).ok()?;
    if header.name != name {
        return None;
    }
    let object_bytes = u32::try_from(object.len()).ok()?;
    let (mut pieces, mut known) = (Vec::new(), false);
    for run in &runs {
        let topic = state.topic(run.topic);
        let slot = topic.and_then(|topic| topic.slots.get(usize::try_from(run.partition.0).ok()?).copied());
        let Some(partition) = slot.and_then(|slot| state.partition(slot)) else { continue };
        known = true;
        let has = |id: ObjectId| {
            let compacted = || was_compacted_since(state, partition, id, name);
            committed.contains(&(id, partition.slot)) || partition.log_start > Offset(0) || compacted()
        };
        if id.is_some_and(has) {
            continue;
        }
        let run = run_of(partition.slot, run, object)?;
        pieces.push(Piece { name, object_bytes, id, run });
    }
    known.then_some(pieces)
}

/// Whether the records of an object that compaction has read lie elsewhere now. Of one that was committed in part, and whose
/// partition was compacted since, this can't be told from a share that was never committed; the rest of an object follows
/// within seconds, and compaction lets objects rest.
fn was_compacted_since(state: &State, partition: &Partition, id: ObjectId, name: ObjectName) -> bool {
    if !state.object(id).is_some_and(|meta| meta.was_input) {
        return false;
    }
    let objects: BTreeSet<ObjectId> = partition.tail.iter().filter(|r| r.marker.is_none()).map(|r| r.object).collect();
    let later = |meta: &ObjectMeta| meta.level > 0 && meta.name.applied.position >= name.applied.position;
    objects.into_iter().any(|object| state.object(object).is_some_and(later))
}

/// Commits the pieces in turn, and those that were out of order again and again, until nothing more is taken: the order of
/// names is not always that in which producers sent.
fn commit_all(world: &World, state: &mut State, mut pieces: Vec<Piece>, salvaged: &mut Salvaged) {
    let mut writer = Writer { world, incarnation: new_incarnation(world), counter: 0 };
    let (incarnation, level) = (writer.incarnation, state.feature_level());
    writer.write(state, RegisterBroker { broker: BROKER, incarnation, feature_level_max: level });
    let mut ids: BTreeMap<ObjectName, ObjectId> = BTreeMap::new();
    loop {
        let (mut again, mut taken) = (Vec::new(), 0);
        for mut piece in pieces {
            piece.id = piece.id.or_else(|| ids.get(&piece.name).copied());
            let outcomes = writer.write(state, command(&piece));
            let Some(Outcome::Batches { object, batches }) = outcomes.into_iter().next() else {
                salvaged.left.push(piece.name.key());
                continue;
            };
            if let Some(id) = object {
                salvaged.objects += u64::from(ids.insert(piece.name, id).is_none() && piece.id.is_none());
            }
            let (records, refused) = judged(piece, &batches);
            taken += records;
            again.extend(refused);
        }
        salvaged.records += taken;
        pieces = again;
        if taken == 0 || pieces.is_empty() {
            break;
        }
    }
    salvaged.left.extend(pieces.into_iter().map(|piece| piece.name.key()));
    salvaged.left.sort();
    salvaged.left.dedup();
    state.forget_broker(BrokerId(BROKER));
}

/// Records of a piece that were taken, and its batches that may be taken later, each as a piece of its own.
fn judged(piece: Piece, outcomes: &[BatchOutcome]) -> (u64, Vec<Piece>) {
    let Piece { name, object_bytes, id, run } = piece;
    let (mut records, mut refused, mut position) = (0, Vec::new(), run.position);
    for (batch, outcome) in run.batches.iter().zip(outcomes) {
        match outcome {
            BatchOutcome::Accepted { .. } => records += u64::from(batch.records),
            BatchOutcome::Refused { error: KafkaError::OutOfOrderSequenceNumber } => {
                let run = RunSpec { position, batches: vec![*batch], ..run };
                refused.push(Piece { name, object_bytes, id, run });
            }
            BatchOutcome::Duplicate { .. } | BatchOutcome::Refused { .. } => {}
        }
        position += batch.bytes;
    }
    (records, refused)
}

fn command(piece: &Piece) -> CommitRuns {
    let mut writer = RunsWriter::default();
    writer.push(&piece.run);
    CommitRuns::new(piece.name, piece.object_bytes, piece.id, writer)
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
