//! Puts a fetch's answer together out of objects in memory and in files. Files make it block.
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::error;

use super::Records;
use super::assemble::{Broken, Target, append, append_marker};
use super::copies::Copies;
use super::plan::{Part, Plan, UnitId};
use super::read::{FetchError, PartRead, kind_of};
use crate::cache::{CachedObject, FileCache, ObjectFile};
use crate::memory::Buffers;
use crate::segment::ObjectName;
use crate::state::Run;
use crate::types::ObjectId;

/// Where an object is.
pub(super) enum Source {
    Memory(Arc<CachedObject>),
    File(ObjectName),
}

/// The units of a fetch.
pub(super) type Sources = BTreeMap<UnitId, Result<Source, FetchError>>;

/// What a fetch reads, and where it lies.
pub(super) struct Job {
    pub(super) plan: Plan,
    pub(super) parts: Vec<PartRead>,
    pub(super) bytes_max: usize,
    pub(super) sources: Sources,
    /// For what is copied.
    pub(super) buffers: Arc<Buffers>,
}

/// Why a partition's records are not in the answer.
#[derive(Clone, Copy)]
pub(super) enum Failed {
    For(FetchError),
    /// The object of its first run is not in the bucket.
    Missing(Run),
}

/// The files that one run of a job uses.
struct Files<'a> {
    cache: &'a FileCache,
    open: RefCell<BTreeMap<ObjectId, Result<Arc<ObjectFile>, FetchError>>>,
}

impl Files<'_> {
    fn open(&self, id: ObjectId, name: ObjectName) -> Result<Arc<ObjectFile>, FetchError> {
        if let Some(known) = self.open.borrow().get(&id) {
            return known.clone();
        }
        let file = self.cache.open(name).map_err(|e| kind_of(&e));
        // One that may not be held is closed when its run is read.
        if file.as_ref().map_or(true, |file| file.may_be_held()) {
            self.open.borrow_mut().insert(id, file.clone());
        }
        file
    }
}

impl Job {
    /// The records of each part. Only the first batch of all may exceed the limits. Blocks where `files` are used.
    pub(super) fn run(&self, files: Option<&FileCache>) -> Vec<Result<Records, Failed>> {
        let files = files.map(|cache| Files { cache, open: RefCell::default() });
        let mut taken = 0_usize;
        let mut results = Vec::with_capacity(self.parts.len());
        for (part, read) in self.parts.iter().zip(&self.plan.parts) {
            let room = part.bytes_max.min(self.bytes_max.saturating_sub(taken));
            let result = match read {
                None => Err(Failed::For(FetchError::Gone)),
                Some(_) if taken > 0 && room == 0 => Ok(Records::default()),
                Some(Part::Made(made)) if taken > 0 && made.bytes > room => Ok(Records::default()),
                Some(Part::Made(made)) => Ok(made.clone()),
                Some(Part::Runs(runs)) => self.part(part, runs, files.as_ref(), room, taken == 0),
            };
            taken += result.as_ref().map_or(0, |r| r.bytes);
            results.push(result);
        }
        results
    }

    /// The objects of which the answer has slices.
    pub(super) fn holds(&self) -> Vec<Arc<CachedObject>> {
        let held = |(id, source): (&UnitId, &Result<Source, FetchError>)| match source {
            Ok(Source::Memory(object)) if !self.plan.is_copied(*id) => Some(object.clone()),
            _ => None,
        };
        self.sources.iter().filter_map(held).collect()
    }

    fn part(
        &self,
        part: &PartRead,
        runs: &[Run],
        files: Option<&Files<'_>>,
        room: usize,
        first: bool,
    ) -> Result<Records, Failed> {
        let mut out = Records::default();
        let expected = runs.iter().map(|run| run.bytes as usize).sum::<usize>().min(room);
        let mut copies = Copies::new(self.buffers.clone(), expected);
        for run in runs {
            let target = self.plan.target(part, run, room);
            if let Some(marker) = run.marker {
                if append_marker(&mut out, run, marker, target) {
                    continue;
                }
                break;
            }
            let more = match self.run_of(run, &mut out, target, files, &mut copies) {
                Ok(more) => more,
                Err(_) if out.bytes > 0 => break,
                Err(FetchError::Damaged) => return Err(Failed::Missing(*run)),
                Err(error) => return Err(Failed::For(error)),
            };
            match more {
                Ok(true) => {}
                Ok(false) => break,
                Err(broken) => return Err(Failed::For(broken_run(run, broken))),
            }
        }
        copies.finish(&mut out);
        if !first && out.bytes > room { Ok(Records::default()) } else { Ok(out) }
    }

    /// Adds a run; the outer error is that its object can't be had.
    fn run_of(
        &self,
        run: &Run,
        out: &mut Records,
        target: Target,
        files: Option<&Files<'_>>,
        copies: &mut Copies,
    ) -> Result<Result<bool, Broken>, FetchError> {
        let (unit, _) = self.plan.planned(run).ok_or(FetchError::Unavailable)?;
        let source = self.sources.get(&unit).ok_or(FetchError::Unavailable)?;
        match (source.as_ref().map_err(|error| *error)?, files) {
            (Source::Memory(object), _) if self.plan.is_copied(unit) => {
                Ok(copies.append_object(out, object, run, target))
            }
            (Source::Memory(object), _) => Ok(append(out, object, run, target)),
            (Source::File(name), Some(files)) => {
                let file = files.open(run.object, *name)?;
                Ok(copies.append_file(out, &file, run, target))
            }
            (Source::File(_), ..) => Err(FetchError::Unavailable),
        }
    }
}

/// Says what is wrong with a run's object.
pub(super) fn broken_run(run: &Run, broken: Broken) -> FetchError {
    match broken {
        Broken::Contradiction => {
            error!(object = run.object.0, ?run, "an object does not hold what the journal says of it");
            FetchError::Damaged
        }
        Broken::Unreadable => {
            error!(object = run.object.0, ?run, "an object can't be read");
            FetchError::Unavailable
        }
    }
}
