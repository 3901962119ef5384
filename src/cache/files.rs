//! Objects as open files, for a bucket that is a directory of this machine: the kernel has a cache of them already, so
//! readers take from it just what they want, and nothing of an object stays in our memory. It promises that no more
//! than a named number of files is open for longer than one read. All of it blocks.
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::segment::ObjectName;
use crate::store::{ObjectFiles, StoreError};
use crate::telemetry::Metrics;
use crate::types::Offset;

/// Files that stay open for the next read: those that readers at some distance of each other go through, with objects of
/// 100 KiB. Descriptors are scarce: often a process has 1,024.
const KEPT_MAX: usize = 128;

/// Files that are kept, or that answers wait to be sent from.
const HELD_MAX: usize = 256;

/// Places in one object that are remembered: the partitions whose readers are in the middle of a run there.
const MARKS_MAX: usize = 64;

/// The open files of one broker.
pub struct FileCache {
    objects: Arc<dyn ObjectFiles>,
    metrics: Arc<Metrics>,
    places: Arc<Semaphore>,
    /// A mutex, held for map operations only.
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    files: BTreeMap<u128, (Arc<ObjectFile>, u64)>,
    uses: u64,
}

/// An object as an open file.
pub struct ObjectFile {
    file: File,
    /// A mutex, held for list operations only.
    marks: Mutex<VecDeque<Mark>>,
    place: Option<OwnedSemaphorePermit>,
}

/// Where a batch lies that a reader wants next.
#[derive(Clone, Copy, Debug)]
struct Mark {
    run: u32,
    position: u32,
    base_offset: Offset,
}

impl FileCache {
    pub(super) fn new(objects: Arc<dyn ObjectFiles>, metrics: Arc<Metrics>) -> Self {
        let places = Arc::new(Semaphore::new(HELD_MAX));
        Self { objects, metrics, places, kept: Mutex::default() }
    }

    /// The object's file.
    ///
    /// # Errors
    /// Those of the bucket.
    pub fn open(&self, name: ObjectName) -> Result<Arc<ObjectFile>, StoreError> {
        if let Some(file) = self.kept().find(name.ulid) {
            return Ok(file);
        }
        self.metrics.fetch.cold_reads.inc();
        let file = self.objects.open(&name.key())?;
        let mut kept = self.kept();
        if kept.files.len() >= KEPT_MAX || self.places.available_permits() == 0 {
            kept.evict();
        }
        let place = self.places.clone().try_acquire_owned().ok();
        let file = Arc::new(ObjectFile { file, marks: Mutex::default(), place });
        if file.may_be_held() {
            kept.uses += 1;
            let used = kept.uses;
            kept.files.insert(name.ulid, (file.clone(), used));
        }
        Ok(file)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn find(&mut self, ulid: u128) -> Option<Arc<ObjectFile>> {
        self.uses += 1;
        let (file, used) = self.files.get_mut(&ulid)?;
        *used = self.uses;
        Some(file.clone())
    }

    /// Lets go of the file that was not used for longest.
    fn evict(&mut self) {
        let oldest = self.files.iter().min_by_key(|(_, (_, used))| *used).map(|(ulid, _)| *ulid);
        oldest.map(|ulid| self.files.remove(&ulid));
    }
}

impl ObjectFile {
    /// Whether an answer may keep it open until its client has read it. If not, it has to be closed after the read.
    #[must_use]
    pub fn may_be_held(&self) -> bool {
        self.place.is_some()
    }

    /// Fills `out` with the bytes from `at` on.
    ///
    /// # Errors
    /// The kernel's; `UnexpectedEof` if the file ends before.
    pub fn read_at(&self, at: u32, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, u64::from(at))
    }

    /// Remembers that the run at `run` goes on with a batch at `position`, which begins with `base_offset`.
    pub fn mark(&self, run: u32, position: u32, base_offset: Offset) {
        let mut marks = self.marks();
        marks.retain(|m| m.run != run || m.base_offset != base_offset);
        if marks.len() >= MARKS_MAX {
            marks.pop_front();
        }
        marks.push_back(Mark { run, position, base_offset });
    }

    /// The nearest known place at or before `offset` in the run at `run`.
    #[must_use]
    pub fn nearest(&self, run: u32, offset: Offset) -> Option<(u32, Offset)> {
        let marks = self.marks();
        let before = marks.iter().filter(|m| m.run == run && m.base_offset <= offset);
        before.max_by_key(|m| m.base_offset).map(|m| (m.position, m.base_offset))
    }

    fn marks(&self) -> MutexGuard<'_, VecDeque<Mark>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for ObjectFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Key;
    use crate::types::{Head, TimestampMs};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Objects that are all the same file.
    #[derive(Default)]
    struct Same(AtomicUsize);

    impl ObjectFiles for Same {
        fn open(&self, key: &Key) -> Result<File, StoreError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            File::open("/proc/self/exe").map_err(|_| StoreError::NotFound { key: key.clone() })
        }
    }

    fn name(ulid: u128) -> ObjectName {
        ObjectName::data(Head::default(), ulid)
    }

    #[test]
    fn a_file_is_opened_once_and_few_stay_open() {
        let same = Arc::new(Same::default());
        let cache = FileCache::new(same.clone(), Arc::new(Metrics::new(TimestampMs(0))));
        for _ in 0..2 {
            (0..KEPT_MAX as u128).for_each(|ulid| assert!(cache.open(name(ulid)).unwrap().may_be_held()));
        }
        assert_eq!(same.0.load(Ordering::Relaxed), KEPT_MAX);
        for ulid in 0..3 * HELD_MAX as u128 {
            assert!(cache.open(name(ulid)).unwrap().may_be_held(), "nobody else holds files");
        }
        assert_eq!(cache.kept().files.len(), KEPT_MAX);
    }

    #[test]
    fn what_readers_hold_counts() {
        let cache = FileCache::new(Arc::new(Same::default()), Arc::new(Metrics::new(TimestampMs(0))));
        let held: Vec<_> = (0..HELD_MAX as u128).map(|ulid| cache.open(name(ulid)).unwrap()).collect();
        assert!(held.iter().all(|file| file.may_be_held()));
        let more: Vec<_> = (0..10).map(|i| cache.open(name(1000 + i)).unwrap()).collect();
        assert!(more.iter().all(|file| !file.may_be_held()), "it has to be closed after the read");
        assert!(cache.kept().files.len() <= KEPT_MAX);
        drop((held, more));
        assert!(cache.open(name(2000)).unwrap().may_be_held());
    }
}
