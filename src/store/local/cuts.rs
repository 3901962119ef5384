//! Power cuts under the local bucket: a disk that keeps after a cut only what was synced, and of the rest a random
//! part. What was acknowledged must be there, and whatever is there must be whole. Leaving out any one of the syncs has
//! to make this fail, or the test would prove nothing.
use super::disk::{Disk, RealDisk};
use super::temp::TempDir;
use super::{Root, walk::Walk};
use crate::store::CreateOutcome;
use crate::world::World;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// One of the syncs that a create is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sync {
    File,
    /// Of the directory that an object's name is in.
    Leaf,
    /// Of the directories above it.
    Parents,
}

/// A disk on which all is done for real, and which remembers what of it a cut would keep. Before step `cut_at` it puts
/// that into another directory.
struct CutDisk {
    base: PathBuf,
    after: PathBuf,
    world: World,
    without: Option<Sync>,
    cut_at: u64,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    steps: u64,
    /// Names that are on the disk for sure, and names that a cut may take back.
    durable: BTreeSet<PathBuf>,
    loose: BTreeSet<PathBuf>,
    /// Whether the file that now has (also) this name was synced.
    synced: BTreeMap<PathBuf, bool>,
}

impl CutDisk {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Begins a step, with a cut before it when its turn has come.
    fn step(&self) -> std::sync::MutexGuard<'_, Seen> {
        if self.seen().steps == self.cut_at {
            self.cut();
        }
        let mut seen = self.seen();
        seen.steps += 1;
        seen
    }

    fn was_cut(&self) -> bool {
        self.seen().steps > self.cut_at
    }

    /// Copies what a cut at this moment would leave.
    fn cut(&self) {
        let (seen, to, world) = (self.seen(), &self.after, &self.world);
        let mut kept = seen.durable.clone();
        kept.extend(seen.loose.iter().filter(|_| world.random_below(2) == 0).cloned());
        fs::create_dir_all(to).unwrap();
        // In the order of paths, so that a parent comes before what is in it; what has no parent is lost with it.
        for path in kept {
            let copy = to.join(path.strip_prefix(&self.base).unwrap());
            if path.is_dir() {
                let _ = fs::create_dir(&copy);
            } else if let Ok(content) = fs::read(&path) {
                let synced = seen.synced.get(&path).copied().unwrap_or(false);
                let bytes = content.len() as u64;
                let keep = if synced { bytes } else { world.random_below(bytes + 1) };
                let _ = fs::write(copy, &content[..usize::try_from(keep).unwrap()]);
            }
        }
    }
}

impl Disk for CutDisk {
    type File = (fs::File, PathBuf);

    fn make_dir(&self, path: &Path) -> io::Result<bool> {
        let mut seen = self.step();
        let made = RealDisk.make_dir(path)?;
        if made {
            seen.loose.insert(path.to_owned());
        }
        Ok(made)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut seen = self.step();
        let is_leaf = path.strip_prefix(&self.base).unwrap().components().count() == 3;
        if self.without == Some(if is_leaf { Sync::Leaf } else { Sync::Parents }) {
            return Ok(());
        }
        let (synced, loose): (BTreeSet<_>, _) =
            std::mem::take(&mut seen.loose).into_iter().partition(|p| p.parent() == Some(path));
        seen.loose = loose;
        seen.durable.extend(synced);
        Ok(())
    }

    fn create_file(&self, path: &Path) -> io::Result<Self::File> {
        self.step().synced.insert(path.to_owned(), false);
        Ok((RealDisk.create_file(path)?, path.to_owned()))
    }

    fn write(&self, file: &mut Self::File, chunks: &[Bytes]) -> io::Result<()> {
        // A cut may come between two writes.
        for chunk in chunks {
            drop(self.step());
            RealDisk.write(&mut file.0, std::slice::from_ref(chunk))?;
        }
        Ok(())
    }

    fn sync_file(&self, file: &Self::File) -> io::Result<()> {
        let mut seen = self.step();
        if self.without != Some(Sync::File) {
            seen.synced.insert(file.1.clone(), true);
        }
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut seen = self.step();
        RealDisk.link(from, to)?;
        let synced = seen.synced[from];
        seen.synced.insert(to.to_owned(), synced);
        seen.loose.insert(to.to_owned());
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        drop(self.step());
        RealDisk.remove_file(path)
    }
}

/// A directory in memory where the machine has such: nothing here needs the syncs of a real disk, which cost 30 times
/// more.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A root in a new directory, on a disk that is cut before step `cut_at`.
fn root(dir: &Path, world: &World, without: Option<Sync>, cut_at: u64) -> Root<CutDisk> {
    let (base, after) = (dir.join("live"), dir.join("after"));
    fs::create_dir(&base).unwrap();
    let world = world.clone();
    let temp = TempDir::open(&base, &world).unwrap();
    let disk = CutDisk { base: base.clone(), after, world, without, cut_at, seen: Mutex::default() };
    Root { dir: base, temp, disk, durable_dirs: Mutex::default() }
}

fn content(key: &str) -> Bytes {
    Bytes::from(format!("content of {key} ").repeat(20))
}

/// Creates objects until the cut, and says what was wrong after it.
fn run(seed: u64, without: Option<Sync>) -> Result<(), String> {
    let dir = scratch();
    let world = World::seeded(seed);
    let root = root(dir.path(), &world, without, world.random_below(60));
    let mut acknowledged = Vec::new();
    for round in 0.. {
        // Three levels, a few directories each, so that new parents are made in most rounds.
        let key = format!("{}/{}/{}/{round}", world.random_below(2), world.random_below(3), world.random_below(2));
        let content = content(&key);
        let outcome = root.create(&key, &[content.slice(..7), content.slice(7..)]);
        if root.disk.was_cut() {
            return check(&root.disk.after, &acknowledged);
        }
        assert_eq!(outcome, Ok(CreateOutcome::Created));
        acknowledged.push(key);
    }
    Ok(())
}

fn check(after: &Path, acknowledged: &[String]) -> Result<(), String> {
    let listed = Walk::page(after, "", None, usize::MAX).unwrap();
    let listed: BTreeSet<_> = listed.into_iter().map(|row| row.key).collect();
    if let Some(lost) = acknowledged.iter().find(|key| !listed.contains(*key)) {
        return Err(format!("{lost} was acknowledged and is lost"));
    }
    for key in listed {
        if fs::read(after.join(&key)).unwrap() != content(&key) {
            return Err(format!("{key} is not whole"));
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_power_cut() {
    for seed in 0..1000 {
        assert_eq!(run(seed, None), Ok(()), "seed {seed}");
    }
}

#[tokio::test]
async fn no_sync_is_superfluous() {
    for sync in [Sync::File, Sync::Leaf, Sync::Parents] {
        assert!((0..100).any(|seed| run(seed, Some(sync)).is_err()), "nothing was lost without {sync:?}");
    }
}

/// A process that was killed between making a directory and syncing it leaves one that is there, but not for sure.
#[tokio::test]
async fn a_directory_that_a_killed_process_left_is_synced_again() {
    for seed in 0..20 {
        let dir = scratch();
        let root = root(dir.path(), &World::seeded(seed), None, u64::MAX);
        for made in ["a", "a/b", "a/b/c"] {
            root.disk.make_dir(&root.dir.join(made)).unwrap();
        }
        let key = "a/b/c/d".to_owned();
        assert_eq!(root.create(&key, &[content(&key)]), Ok(CreateOutcome::Created));
        root.disk.cut();
        assert_eq!(check(&root.disk.after, &[key]), Ok(()), "seed {seed}");
    }
}
