//! A bucket in a local directory: an object is a file whose path is its key.
//!
//! An acknowledged create survives a power cut. In this order: the content is written to a file below `#tmp` and
//! synced; the file gets its name by a hard link (which fails if the name is taken); the directory of the name is
//! synced; only then the create is answered. A directory is made durable, up to the root, before this process first
//! uses it, even if it was there: a predecessor that was killed may not have come to it. An answer `Taken`, or
//! `Created` for bytes that were already there, syncs the directory too. So a reader sees a whole object or none, at any
//! time and after any cut. A delete is not synced: an object that comes back is garbage that the audit finds.
//!
//! Why not `object_store`'s `LocalFileSystem::with_fsync(true)` (0.14.2, read in its source): it syncs the file and
//! the directory of the link, and new parents by whoever creates them; but a second writer that finds such a parent just
//! made acknowledges before the parent's own name is synced, a parent left unsynced by a killed process stays so, an
//! object found in place is never synced, a killed process's staged files stay for ever, and each chunk costs a write.
//!
//! Tests: the contract suite, `cuts.rs` for power cuts, and below.
mod disk;
mod temp;
mod walk;

#[cfg(test)]
mod cuts;

use super::{Body, Bucket, CreateOutcome, Key, Listed, ObjectFiles, Purpose, StoreError, deadline, key};
use crate::disk::make_durable;
use crate::world::World;
use async_trait::async_trait;
use bytes::Bytes;
use disk::{Disk, RealDisk};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use temp::TempDir;
use tokio::sync::Semaphore;

/// Requests that may be in the kernel at once. A disk that hangs holds this many threads and no more; the others wait
/// and run into their deadline. Far more than a disk works on at a time.
const WORKERS: usize = 64;
/// Directories that are known to be durable; beyond it the memory of them starts anew, which costs a sync each.
const DURABLE_DIRS_MAX: usize = 65_536;

/// See the module. Clones share it.
#[derive(Clone)]
pub struct LocalBucket {
    root: Arc<Root<RealDisk>>,
    world: World,
    workers: Arc<Semaphore>,
}

impl LocalBucket {
    /// Opens the bucket in `dir`, made if it is not there, and removes what killed processes have left half-written.
    /// Several processes may share a directory of one machine. Blocks.
    ///
    /// # Errors
    /// If the directory can't be made, written or locked in.
    pub fn open(dir: &Path, world: World) -> io::Result<Self> {
        let dir = std::path::absolute(dir)?;
        make_durable(&dir, &DirBuilder::new())?;
        let temp = TempDir::open(&dir, &world)?;
        let root = Root { dir, temp, disk: RealDisk, durable_dirs: Mutex::default() };
        Ok(Self { root: Arc::new(root), world, workers: Arc::new(Semaphore::new(WORKERS)) })
    }

    /// Runs `work` on a thread that may block. After the deadline the answer is `Unknown`, and `work` goes on.
    async fn blocking<T, W>(&self, what: String, purpose: Purpose, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&Root<RealDisk>) -> Result<T, StoreError> + Send + 'static,
    {
        let (root, workers) = (Arc::clone(&self.root), Arc::clone(&self.workers));
        let run = async move {
            let permit = workers.acquire_owned().await.map_err(|e| e.to_string())?;
            let thread = tokio::task::spawn_blocking(move || {
                let result = work(&root);
                drop(permit);
                result
            });
            thread.await.map_err(|e| e.to_string())
        };
        match self.world.timeout(deadline::limits(purpose).total, run).await {
            Some(Ok(result)) => result,
            Some(Err(reason)) => Err(StoreError::Unknown { what, reason }),
            None => Err(StoreError::Unknown { what, reason: "the disk did not answer in time".into() }),
        }
    }
}

#[async_trait]
impl Bucket for LocalBucket {
    async fn create(&self, key: &Key, body: Body, purpose: Purpose) -> Result<CreateOutcome, StoreError> {
        key::check(key)?;
        let name = key.clone();
        self.blocking(format!("create {key}"), purpose, move |root| root.create(&name, &body)).await
    }

    async fn read(&self, key: &Key, range: Option<Range<u64>>, purpose: Purpose) -> Result<Bytes, StoreError> {
        key::check(key)?;
        let name = key.clone();
        self.blocking(format!("read {key}"), purpose, move |root| root.read(&name, range)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
        purpose: Purpose,
    ) -> Result<Vec<Listed>, StoreError> {
        let what = format!("list {prefix}");
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.blocking(what.clone(), purpose, move |root| {
            walk::Walk::page(&root.dir, &prefix, after.as_ref(), limit).map_err(|e| sort_error(what, &e))
        })
        .await
    }

    async fn delete(&self, key: &Key, purpose: Purpose) -> Result<(), StoreError> {
        key::check(key)?;
        let name = key.clone();
        self.blocking(format!("delete {key}"), purpose, move |root| root.remove(&name)).await
    }

    async fn delete_all(&self, keys: &[Key], purpose: Purpose) -> Vec<Result<(), StoreError>> {
        let (names, what) = (keys.to_vec(), format!("delete {} objects", keys.len()));
        let removed = self.blocking(what, purpose, move |root| {
            let remove = |name: &Key| key::check(name).and_then(|()| root.remove(name));
            Ok(names.iter().map(remove).collect::<Vec<_>>())
        });
        removed.await.unwrap_or_else(|error| keys.iter().map(|_| Err(error.clone())).collect())
    }

    fn files(&self) -> Option<Arc<dyn ObjectFiles>> {
        Some(Arc::clone(&self.root) as Arc<dyn ObjectFiles>)
    }
}

impl ObjectFiles for Root<RealDisk> {
    fn open(&self, key: &Key) -> Result<File, StoreError> {
        key::check(key)?;
        File::open(self.dir.join(key)).map_err(|e| match e.kind() {
            _ if is_absence(&e) => StoreError::NotFound { key: key.clone() },
            _ => sort_error(format!("open {key}"), &e),
        })
    }
}

/// The directory, on some disk; every method blocks.
struct Root<D> {
    dir: PathBuf,
    temp: TempDir,
    disk: D,
    /// Directories whose names, up to the root, this process has synced. A mutex: held for look-ups only.
    durable_dirs: Mutex<BTreeSet<PathBuf>>,
}

impl<D: Disk> Root<D> {
    fn create(&self, key: &Key, body: &[Bytes]) -> Result<CreateOutcome, StoreError> {
        let what = || format!("create {key}");
        // Until the file has its name nobody can see it: whatever fails has had no effect.
        let refused = |e: io::Error| StoreError::Refused { what: what(), reason: e.to_string() };
        let path = self.dir.join(key);
        let parent = path.parent().unwrap_or(&self.dir);
        self.make_durable(parent).map_err(refused)?;

        let temp = self.temp.file();
        let linked = self.write(&temp, body).map(|()| self.disk.link(&temp, &path));
        let _ = self.disk.remove_file(&temp);
        let outcome = match linked.map_err(refused)? {
            Ok(()) => CreateOutcome::Created,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => match holds(&path, body) {
                Ok(true) => CreateOutcome::Created,
                Ok(false) => CreateOutcome::Taken,
                Err(reason) => return Err(StoreError::Unknown { what: what(), reason: reason.to_string() }),
            },
            Err(e) => {
                // Perhaps somebody removed the directory: the next create makes it again.
                self.durable_dirs().remove(parent);
                return Err(sort_error(what(), &e));
            }
        };
        match self.disk.sync_dir(parent) {
            Ok(()) => Ok(outcome),
            Err(e) => Err(StoreError::Unknown { what: what(), reason: format!("its directory is not synced: {e}") }),
        }
    }

    fn write(&self, temp: &Path, body: &[Bytes]) -> io::Result<()> {
        let mut file = self.disk.create_file(temp)?;
        self.disk.write(&mut file, body)?;
        self.disk.sync_file(&file)
    }

    /// Makes `dir` and what is above it, below the root, exist and outlive a power cut.
    fn make_durable(&self, dir: &Path) -> io::Result<()> {
        if self.durable_dirs().contains(dir) {
            return Ok(());
        }
        let Ok(below) = dir.strip_prefix(&self.dir) else { return Ok(()) };
        let mut path = self.dir.clone();
        for name in below.components() {
            let parent = path.clone();
            path.push(name);
            self.disk.make_dir(&path)?;
            self.disk.sync_dir(&parent)?;
        }
        let mut known = self.durable_dirs();
        if known.len() >= DURABLE_DIRS_MAX {
            known.clear();
        }
        known.insert(path);
        Ok(())
    }

    fn durable_dirs(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.durable_dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, key: &Key) -> Result<(), StoreError> {
        match fs::remove_file(self.dir.join(key)) {
            Err(e) if !is_absence(&e) => Err(sort_error(format!("delete {key}"), &e)),
            _ => Ok(()),
        }
    }

    fn read(&self, key: &Key, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let failed = |e: io::Error| match e.kind() {
            _ if is_absence(&e) => StoreError::NotFound { key: key.clone() },
            ErrorKind::UnexpectedEof => StoreError::Damaged { key: key.clone(), reason: "the file was cut".into() },
            _ => sort_error(format!("read {key}"), &e),
        };
        let file = File::open(self.dir.join(key)).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let range = range.unwrap_or(0..bytes);
        let wanted = range.end.checked_sub(range.start).filter(|_| range.end <= bytes);
        let wanted = wanted.and_then(|n| usize::try_from(n).ok());
        let mut content = vec![0; wanted.ok_or_else(|| super::out_of_range(key, &range, Some(bytes)))?];
        file.read_exact_at(&mut content, range.start).map_err(failed)?;
        Ok(Bytes::from(content))
    }
}

/// Whether the file at `path` has exactly the bytes of `body`.
fn holds(path: &Path, body: &[Bytes]) -> io::Result<bool> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() != body.iter().map(|c| c.len() as u64).sum::<u64>() {
        return Ok(false);
    }
    let mut there = Vec::new();
    for chunk in body {
        there.resize(chunk.len(), 0);
        file.read_exact(&mut there)?;
        if there != *chunk {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_absence(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory)
}

/// What the kernel refused had no effect; of the rest (an I/O error) nothing is known.
fn sort_error(what: String, e: &io::Error) -> StoreError {
    let reason = e.to_string();
    match e.kind() {
        ErrorKind::StorageFull
        | ErrorKind::QuotaExceeded
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::PermissionDenied
        | ErrorKind::NotFound
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::InvalidFilename
        | ErrorKind::InvalidInput
        | ErrorKind::TooManyLinks
        | ErrorKind::Unsupported => StoreError::Refused { what, reason },
        _ => StoreError::Unknown { what, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> LocalBucket {
        LocalBucket::open(dir, World::real().unwrap()).unwrap()
    }

    async fn create(bucket: &LocalBucket, key: &str, chunks: &[&'static str]) -> Result<CreateOutcome, StoreError> {
        let body = chunks.iter().map(|c| Bytes::from_static(c.as_bytes())).collect();
        bucket.create(&key.to_owned(), body, Purpose::Ingest).await
    }

    #[tokio::test]
    async fn an_object_is_a_file_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = open(&dir.path().join("new/data"));
        assert_eq!(create(&bucket, "a/b/c", &["x", "", "yz"]).await, Ok(CreateOutcome::Created));
        assert_eq!(create(&bucket, "a/b/c", &["xy", "z"]).await, Ok(CreateOutcome::Created));
        assert_eq!(create(&bucket, "a/b/c", &["xyw"]).await, Ok(CreateOutcome::Taken));
        assert_eq!(fs::read(dir.path().join("new/data/a/b/c")).unwrap(), b"xyz");
        drop(bucket);
        assert_eq!(fs::read_dir(dir.path().join("new/data/#tmp")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_file_that_is_no_object_is_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = open(dir.path());
        create(&bucket, "a", &["1"]).await.unwrap();
        fs::write(dir.path().join("a#1"), b"x").unwrap();
        fs::write(dir.path().join("#tmp/x"), b"x").unwrap();
        let listed = bucket.list("", None, 10, Purpose::Control).await.unwrap();
        assert_eq!(listed, [Listed { key: "a".into(), bytes: 1 }]);
    }

    #[tokio::test]
    async fn what_the_kernel_refuses_has_had_no_effect() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = open(dir.path());
        create(&bucket, "file", &["1"]).await.unwrap();
        assert!(matches!(create(&bucket, "file/below", &["1"]).await, Err(StoreError::Refused { .. })));
        assert!(matches!(
            bucket.read(&"file/below".into(), None, Purpose::Tail).await,
            Err(StoreError::NotFound { .. })
        ));
    }

    /// `/dev/full` refuses every byte as a full disk does.
    #[test]
    fn a_full_disk_is_a_refusal() {
        let mut full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let e = RealDisk.write(&mut full, &[Bytes::from_static(b"x")]).unwrap_err();
        assert!(matches!(sort_error(String::new(), &e), StoreError::Refused { .. }));
    }

    #[tokio::test]
    #[ignore = "STORE_TEST_SMALL_DIR has to be a directory on a file system of its own of 1 to 64 MiB"]
    async fn store_local_full_disk_keeps_whole_objects_only() {
        let bucket = open(Path::new(&std::env::var("STORE_TEST_SMALL_DIR").unwrap()));
        let body = vec![Bytes::from(vec![7; 100_000]); 3];
        let created = async |n: u32| bucket.create(&format!("full/{n}"), body.clone(), Purpose::Ingest).await;
        let mut whole = 0;
        while created(whole).await == Ok(CreateOutcome::Created) {
            whole += 1;
        }
        let refused = created(whole).await;
        assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
        let rows = bucket.list("full/", None, 1000, Purpose::Control).await.unwrap();
        assert_eq!(rows.len(), whole as usize);
        assert!(rows.iter().all(|row| row.bytes == 300_000));
        bucket.delete(&rows[0].key, Purpose::Control).await.unwrap();
        assert_eq!(
            created(whole).await,
            Ok(CreateOutcome::Created),
            "there is room again, and nothing half-written took it"
        );
        for n in 0..=whole {
            bucket.delete(&format!("full/{n}"), Purpose::Control).await.unwrap();
        }
    }
}
