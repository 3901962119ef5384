//! One job: cleans a few partitions. First it reads what is not clean and notes where each key is last; then it reads all,
//! piece by piece from the logs' starts on, and writes what stays. The order matters: an old value is gone before the tombstone
//! that took it back is dated, or goes. So a job ends at the first piece that State does not take.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::keys::Keys;
use super::plan::{Pass, Surroundings};
use super::sieve::{SieveError, Survey};
use crate::compaction::job::{Basis, Done, Failed, bad_input};
use crate::compaction::merge::{Input, Sieves, checked_batches, whole};
use crate::compaction::plan::{Share, Window, outputs};
use crate::compaction::run::{Compactor, Pacer};
use crate::records::BatchHeader;
use crate::state::{CleanedShare, ObjectMeta, Run, State};
use crate::types::{ObjectId, Offset, Slot, TimestampMs};

/// How a job ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Done,
    /// A partition had changed meanwhile. What was committed before that stays.
    Overtaken,
}

/// What is written of a pass's partition.
struct Plan {
    config_version: u64,
    end: Offset,
    cleaned: Offset,
}

impl Compactor {
    /// Memory for the keys of a pass, in bytes.
    pub(super) fn keys_bytes(&self, pass: &Pass) -> u64 {
        Keys::bytes(pass.dirty_offsets(), self.cleaning.keys_bytes)
    }

    /// Cleans the partitions of `passes`, which are of `state`, at the time `now`.
    pub(super) async fn clean(
        &self,
        state: Arc<State>,
        passes: Vec<Pass>,
        now: TimestampMs,
        pacer: &mut Pacer,
        done: &mut Done,
    ) -> Result<Ended, Failed> {
        let shares: Vec<Share> = passes.iter().map(|p| Share { slot: p.slot, runs: p.runs(&state) }).collect();
        let around = passes.iter().zip(&shares).map(|(pass, share)| pass.surroundings(&state, &share.runs));
        let around: Vec<Surroundings> = around.collect();
        let basis = Arc::new(Basis::of(&state, &shares));
        drop(state);
        let mut objects: BTreeMap<ObjectId, ObjectMeta> = BTreeMap::new();
        around.iter().for_each(|around| objects.extend(&around.objects));
        // What fits into one job's memory is read once.
        let bytes: u64 = passes.iter().map(|pass| pass.bytes).sum();
        let all = if bytes <= self.limits.bytes {
            Some(self.read(&window(&objects, &shares), &shares, pacer, done).await?)
        } else {
            None
        };
        let (mut sieves, mut plans, mut kept) = (Sieves::new(), BTreeMap::new(), Vec::new());
        for ((pass, around), mut share) in passes.iter().zip(around).zip(shares) {
            let survey = self.survey(pass, &share.runs, around, all.as_ref(), pacer, done).await?;
            let until = survey.until();
            share.runs.retain(|run| run.base_offset < until);
            let end = share.end_offset();
            plans.insert(pass.slot, Plan { config_version: pass.config_version, end, cleaned: until });
            sieves.insert(pass.slot, survey.into_sieve(now, pass.delete_retention_ms));
            kept.push(share);
        }
        for shares in outputs(kept, self.limits.bytes).into_iter().filter(|shares| !shares.is_empty()) {
            let mut window = window(&objects, &shares);
            let inputs = match &all {
                Some(all) => all.clone(),
                None => self.read(&window, &shares, pacer, done).await?,
            };
            // Each piece is named by what is known now: a long pass would fall below the orphan horizon else.
            let known = (&basis, self.replica.state().head());
            let (name, merged, after) = self.make(known, &window, &shares, inputs, sieves).await?;
            sieves = after;
            // Small ones are merged with others; a large one would only be written once more.
            window.level = if u64::from(merged.bytes) * 2 >= self.limits.bytes { 2 } else { 1 };
            self.write(name, &merged, pacer, done).await?;
            let cleaned: Vec<CleanedShare> = shares.iter().map(|share| cleaned(&plans, share)).collect();
            self.commit(name, &window, &shares, (&merged, &cleaned), done).await?;
            if done.dropped > 0 {
                return Ok(Ended::Overtaken);
            }
        }
        Ok(Ended::Done)
    }

    /// Where the keys of a pass are last.
    async fn survey(
        &self,
        pass: &Pass,
        runs: &[Run],
        around: Surroundings,
        all: Option<&BTreeMap<ObjectId, Input>>,
        pacer: &mut Pacer,
        done: &mut Done,
    ) -> Result<Survey, Failed> {
        let keys = Keys::new(self.keys_bytes(pass), self.world.random_u64());
        let mut survey = Survey::new(keys, around.aborted, pass.dirty_from);
        let dirty: Vec<Run> = runs.iter().filter(|run| run.end_offset > pass.dirty_from).copied().collect();
        let pieces = if all.is_some() {
            vec![vec![Share { slot: pass.slot, runs: dirty }]]
        } else {
            outputs(vec![Share { slot: pass.slot, runs: dirty }], self.limits.bytes)
        };
        for shares in pieces {
            let inputs = match all {
                Some(all) => all.clone(),
                None => self.read(&window(&around.objects, &shares), &shares, pacer, done).await?,
            };
            let added = self.world.compute(move || {
                let runs = shares.iter().flat_map(|share| &share.runs);
                let more = add(&mut survey, runs, &inputs);
                more.map(|more| (survey, more))
            });
            let (back, more) = added.await.map_err(|(object, reason)| match around.objects.get(&object) {
                Some(meta) => bad_input(object, meta, &reason),
                None => Failed::Output(reason),
            })?;
            survey = back;
            if !more {
                break;
            }
        }
        if survey.until() <= pass.dirty_from {
            let reason = "a batch has more records than log.cleaner.dedupe.buffer.size has room for keys";
            return Err(Failed::Output(reason.to_owned()));
        }
        Ok(survey)
    }
}

/// Adds the batches of `runs`; false if there is no room for more.
fn add<'a>(
    survey: &mut Survey,
    runs: impl Iterator<Item = &'a Run>,
    inputs: &BTreeMap<ObjectId, Input>,
) -> Result<bool, (ObjectId, String)> {
    for run in runs {
        if run.marker.is_some() {
            survey.pass(run.end_offset);
            continue;
        }
        let failed = |reason: &str| (run.object, reason.to_owned());
        let input = inputs.get(&run.object).ok_or_else(|| failed("an input was not read"))?;
        let stretch = input.stretches.range(..=run.position).next_back();
        let (_, stretch) = stretch.ok_or_else(|| failed("an input was not read where a run lies"))?;
        for batch in checked_batches(run, input.is_final, stretch).map_err(failed)? {
            let header = BatchHeader { base_offset: batch.base_offset, ..batch.header };
            let bytes = whole(stretch, &batch).ok_or_else(|| failed("an input is shorter than its runs"))?;
            let added = survey.add(&header, &bytes).map_err(|error: SieveError| (run.object, error.to_string()))?;
            if !added {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn cleaned(plans: &BTreeMap<Slot, Plan>, share: &Share) -> CleanedShare {
    let Some(plan) = plans.get(&share.slot) else { return CleanedShare::default() };
    let is_last = share.end_offset() == plan.end;
    let cleaned = if is_last { plan.cleaned.0.unsigned_abs() } else { 0 };
    CleanedShare { config_version: plan.config_version, cleaned }
}

/// The objects that shares need.
fn window(objects: &BTreeMap<ObjectId, ObjectMeta>, shares: &[Share]) -> Window {
    let runs = shares.iter().flat_map(|share| &share.runs).filter(|run| run.marker.is_none());
    let inputs: BTreeMap<ObjectId, ObjectMeta> =
        runs.filter_map(|run| Some((run.object, *objects.get(&run.object)?))).collect();
    Window { level: 1, inputs: inputs.into_iter().collect() }
}
