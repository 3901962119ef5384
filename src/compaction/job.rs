//! One job: reads a window's objects, writes what they become, and tells the journal. Whatever fails before that leaves an
//! object that nobody names.
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::debug;

use super::merge::{Input, MergeError, Merged, Names, Sieves, merge};
use super::plan::{self, Share, Window};
use super::run::{Compactor, Pacer};
use crate::cache::CachedObject;
use crate::segment::{ObjectHeader, ObjectName, read_footer};
use crate::state::{CleanedShare, CommitCompaction, CompactedShare, ObjectMeta, Outcome, RecordEpochs, Run, State};
use crate::store::{CreateOutcome, Purpose, StoreError};
use crate::types::{Head, ObjectId, PartitionIndex, Slot, TopicId};

/// Runs and shares that one command replaces at most (H15): some milliseconds of `apply`.
const REPLACED_MAX: usize = 16_000;
const SHARES_MAX: usize = 2_000;

/// What lies between two runs of an object is read too if it is at most this long: a request costs more.
const GAP_BYTES_MAX: u32 = 256 << 10;

/// Attempts to write an object, and the time between them.
const PUTS_MAX: u32 = 5;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a job did.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) written_objects: u64,
    pub(super) written_bytes: u64,
    pub(super) read_bytes: u64,
    pub(super) taken: u64,
    pub(super) dropped: u64,
}

/// Why a job was given up. Its inputs are as they were.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("{key} can't be used: {reason}")]
    Input { object: ObjectId, key: String, reason: String },
    #[error("{0}")]
    Output(String),
    #[error("the journal did not take it: {0}")]
    Journal(String),
}

/// What a job needs of the State that it was planned from, which is not kept for as long as it takes.
pub(super) struct Basis {
    epochs: RecordEpochs,
    places: BTreeMap<Slot, (TopicId, PartitionIndex)>,
}

impl Basis {
    pub(super) fn of(state: &State, shares: &[Share]) -> Self {
        Self { epochs: RecordEpochs::of(state), places: places(state, shares) }
    }
}

impl Compactor {
    /// Does the job of `window` as `state` has it.
    pub(super) async fn carry_out(
        &self,
        state: Arc<State>,
        window: &Window,
        pacer: &mut Pacer,
        done: &mut Done,
    ) -> Result<(), Failed> {
        let of = window.clone();
        let planned = self.world.compute(move || {
            let shares = plan::shares(&state, &of);
            let basis = Basis::of(&state, &shares);
            (shares, basis, state.head())
        });
        let (shares, basis, head) = planned.await;
        let basis = Arc::new(basis);
        // What one flush's job reads fits into memory, and becomes one object.
        let outputs = if window.level == 1 { vec![shares] } else { plan::outputs(shares, self.limits.bytes) };
        for shares in outputs.into_iter().filter(|shares| !shares.is_empty()) {
            let inputs = self.read(window, &shares, pacer, done).await?;
            let (name, merged, _) = self.make((&basis, head), window, &shares, inputs, Sieves::new()).await?;
            self.write(name, &merged, pacer, done).await?;
            self.commit(name, window, &shares, (&merged, &[]), done).await?;
        }
        Ok(())
    }

    /// Puts what was made into the bucket.
    pub(super) async fn write(
        &self,
        name: ObjectName,
        merged: &Merged,
        pacer: &mut Pacer,
        done: &mut Done,
    ) -> Result<(), Failed> {
        pacer.spend(&self.world, u64::from(merged.bytes)).await;
        self.put(name, merged.body.clone()).await?;
        done.written_objects += 1;
        done.written_bytes += u64::from(merged.bytes);
        Ok(())
    }

    /// The objects that the shares need, or the stretches of them.
    pub(super) async fn read(
        &self,
        window: &Window,
        shares: &[Share],
        pacer: &mut Pacer,
        done: &mut Done,
    ) -> Result<BTreeMap<ObjectId, Input>, Failed> {
        let mut wanted: BTreeMap<ObjectId, Vec<&Run>> = BTreeMap::new();
        for run in shares.iter().flat_map(|share| &share.runs).filter(|run| run.marker.is_none()) {
            wanted.entry(run.object).or_default().push(run);
        }
        let mut inputs = BTreeMap::new();
        for (id, meta) in &window.inputs {
            let Some(runs) = wanted.get(id) else { continue };
            let is_final = meta.level > 0;
            let stretches = if is_final { stretches(runs) } else { vec![(0, meta.bytes)] };
            let mut read = BTreeMap::new();
            for (position, bytes) in stretches {
                let object = match self.cache.kept(meta.name).filter(|_| !is_final) {
                    Some(kept) => kept,
                    None => {
                        pacer.spend(&self.world, u64::from(bytes)).await;
                        done.read_bytes += u64::from(bytes);
                        let content = self.read_stretch(meta, position, bytes).await;
                        let content = content.map_err(|e| bad_input(*id, meta, &e.to_string()))?;
                        Arc::new(CachedObject::apart(position, content))
                    }
                };
                read.insert(position, object);
            }
            inputs.insert(*id, Input { is_final, stretches: read });
        }
        Ok(inputs)
    }

    async fn read_stretch(&self, meta: &ObjectMeta, position: u32, bytes: u32) -> Result<Bytes, StoreError> {
        match self.read_once(meta, position, bytes).await {
            // Damaged on its way, mostly: a second copy comes over another connection.
            Err(StoreError::Damaged { .. }) => self.read_once(meta, position, bytes).await,
            read => read,
        }
    }

    async fn read_once(&self, meta: &ObjectMeta, position: u32, bytes: u32) -> Result<Bytes, StoreError> {
        let range = u64::from(position)..u64::from(position) + u64::from(bytes);
        let content = self.bucket.read(&meta.name.key(), Some(range), Purpose::Compaction).await?;
        if meta.level == 0 { whole(meta.name, content) } else { Ok(content) }
    }

    /// The new object, and its name.
    pub(super) async fn make(
        &self,
        (basis, head): (&Arc<Basis>, Head),
        window: &Window,
        shares: &[Share],
        inputs: BTreeMap<ObjectId, Input>,
        mut sieves: Sieves,
    ) -> Result<(ObjectName, Merged, Sieves), Failed> {
        let name = ObjectName::compacted(head, self.fresh_ulid());
        let header =
            ObjectHeader { name, incarnation: self.replica.identity().incarnation, written_ms: self.world.wall_ms() };
        let (shares, basis) = (shares.to_vec(), basis.clone());
        let merged = self.world.compute(move || {
            let names = Names { partitions: &basis.places, epochs: &basis.epochs };
            merge(&header, &shares, &inputs, &names, &mut sieves).map(|merged| (merged, sieves))
        });
        let (merged, sieves) = merged.await.map_err(|MergeError { object, reason }| {
            let input = object.and_then(|id| window.inputs.iter().find(|(input, _)| *input == id));
            match input {
                Some((id, meta)) => bad_input(*id, meta, reason),
                None => Failed::Output(reason.to_owned()),
            }
        })?;
        Ok((name, merged, sieves))
    }

    /// Puts the object into the bucket. Of an attempt whose end is not known the same bytes go to the same key again.
    async fn put(&self, name: ObjectName, body: Vec<Bytes>) -> Result<(), Failed> {
        let key = name.key();
        let mut last = String::new();
        for _ in 0..PUTS_MAX {
            match self.bucket.create(&key, body.clone(), Purpose::Compaction).await {
                Ok(CreateOutcome::Created) => return Ok(()),
                Ok(CreateOutcome::Taken) => return Err(Failed::Output(format!("{key} exists with other bytes"))),
                Err(error) => last = error.to_string(),
            }
            self.world.sleep(RETRY_AFTER).await;
        }
        Err(Failed::Output(last))
    }

    /// Tells the journal, by as many commands as it takes. Log compaction says what it did with each share.
    pub(super) async fn commit(
        &self,
        name: ObjectName,
        window: &Window,
        shares: &[Share],
        (merged, mut cleaned): (&Merged, &[CleanedShare]),
        done: &mut Done,
    ) -> Result<(), Failed> {
        let (inputs, mut object, mut position) = (window.ids(), None, crate::segment::HEADER_BYTES);
        let mut rest = &merged.shares[..];
        for count in commands(shares) {
            let (now, later) = rest.split_at(count);
            rest = later;
            let (with, later) = cleaned.split_at(count.min(cleaned.len()));
            cleaned = later;
            let command = CommitCompaction::new(name, merged.bytes, object, (window.level, &inputs), position, now);
            let command = command.with_cleaned(with);
            match self.replica.propose(command).await {
                Ok(Outcome::Compacted { object: number, taken, dropped }) => {
                    object = number;
                    done.taken += u64::from(taken);
                    done.dropped += u64::from(dropped);
                }
                Ok(other) => return Err(Failed::Journal(format!("{other:?}"))),
                Err(error) => return Err(Failed::Journal(error.to_string())),
            }
            let bytes: u64 = now.iter().map(CompactedShare::bytes).sum();
            position = u32::try_from(u64::from(position) + bytes).unwrap_or(u32::MAX);
        }
        debug!(key = name.key(), taken = done.taken, dropped = done.dropped, "an object is compacted");
        Ok(())
    }

    fn fresh_ulid(&self) -> u128 {
        let random = u128::from(self.world.random_u64()) << 16 | u128::from(self.world.random_u64() & 0xffff);
        u128::from(self.world.wall_ms().0.unsigned_abs() & 0xffff_ffff_ffff) << 80 | random
    }
}

pub(super) fn bad_input(object: ObjectId, meta: &ObjectMeta, reason: &str) -> Failed {
    Failed::Input { object, key: meta.name.key(), reason: reason.to_owned() }
}

fn whole(name: ObjectName, content: Bytes) -> Result<Bytes, StoreError> {
    let damaged = |reason: String| StoreError::Damaged { key: name.key(), reason };
    match read_footer(&content) {
        Ok((header, _)) if header.name == name => Ok(content),
        Ok((header, _)) => Err(damaged(format!("it says that it is {}", header.name.key()))),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// The stretches of an object that hold `runs`, as positions and sizes.
fn stretches(runs: &[&Run]) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> =
        runs.iter().map(|run| (run.position, run.position.saturating_add(run.bytes))).collect();
    runs.sort_unstable();
    let mut stretches: Vec<(u32, u32)> = Vec::new();
    for (start, end) in runs {
        match stretches.last_mut() {
            Some((_, last)) if start.saturating_sub(*last) <= GAP_BYTES_MAX => *last = end.max(*last),
            _ => stretches.push((start, end)),
        }
    }
    stretches.into_iter().map(|(start, end)| (start, end - start)).collect()
}

/// What partitions are called.
fn places(state: &State, shares: &[Share]) -> BTreeMap<Slot, (TopicId, PartitionIndex)> {
    let partitions = shares.iter().filter_map(|share| state.partition(share.slot));
    partitions.map(|partition| (partition.slot, (partition.topic, partition.index))).collect()
}

/// How many shares each command takes.
fn commands(shares: &[Share]) -> Vec<usize> {
    let (mut commands, mut count, mut replaced) = (Vec::new(), 0, 0);
    for share in shares {
        if count > 0 && (count >= SHARES_MAX || replaced + share.runs.len() > REPLACED_MAX) {
            commands.push(std::mem::take(&mut count));
            replaced = 0;
        }
        count += 1;
        replaced += share.runs.len();
    }
    commands.push(count);
    commands
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Offset, TimestampMs};

    fn run(position: u32, bytes: u32) -> Run {
        Run {
            base_offset: Offset(0),
            end_offset: Offset(1),
            object: ObjectId(1),
            position,
            bytes,
            max_timestamp: TimestampMs(0),
            marker: None,
        }
    }

    #[test]
    fn runs_that_lie_near_each_other_are_read_at_once() {
        let runs = [run(1_000_000, 50), run(64, 100), run(164, 36), run(300, 10)];
        assert_eq!(stretches(&runs.iter().collect::<Vec<_>>()), [(64, 246), (1_000_000, 50)]);
    }

    #[test]
    fn no_command_does_much_work() {
        let share = |runs: usize| Share { slot: Slot(1), runs: vec![run(64, 1); runs] };
        assert_eq!(commands(&[share(1), share(1)]), [2]);
        assert_eq!(commands(&[share(REPLACED_MAX), share(1), share(REPLACED_MAX + 5), share(2)]), [1, 1, 1, 1]);
        assert_eq!(commands(&vec![share(1); SHARES_MAX + 1]), [SHARES_MAX, 1]);
    }
}
