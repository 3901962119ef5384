//! Where a process writes files before they get their names: a directory of its own below `#tmp`, locked while it
//! lives, so that what a killed process left is removed by the next one, and what a living neighbour writes is not.
use crate::world::World;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Not a key's segment (`#`), so never listed.
pub(crate) const TEMP_DIR: &str = "#tmp";

/// This process's directory; removed with its content when dropped.
#[derive(Debug)]
pub(crate) struct TempDir {
    path: PathBuf,
    next: AtomicU64,
    _lock: File,
}

impl TempDir {
    /// Makes a directory below `root`, and removes those of processes that are gone. Blocks.
    pub(crate) fn open(root: &Path, world: &World) -> io::Result<Self> {
        let all = root.join(TEMP_DIR);
        match fs::create_dir(&all) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
            _ => remove_leftovers(&all)?,
        }
        loop {
            let path = all.join(format!("{:016x}", world.random_u64()));
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e),
            }
            // Another process that starts now may have found it unlocked and removed it: then a new one.
            match File::open(&path) {
                Ok(lock) if lock.try_lock().is_ok() && path.exists() => {
                    return Ok(Self { path, next: AtomicU64::new(0), _lock: lock });
                }
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// A path that nothing has.
    pub(crate) fn file(&self) -> PathBuf {
        self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn remove_leftovers(all: &Path) -> io::Result<()> {
    for entry in fs::read_dir(all)? {
        let path = entry?.path();
        let removed = match File::open(&path) {
            Ok(dir) => match dir.try_lock() {
                Ok(()) => fs::remove_dir_all(&path),
                Err(TryLockError::WouldBlock) => Ok(()),
                Err(TryLockError::Error(e)) => Err(e),
            },
            Err(e) => Err(e),
        };
        match removed {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_process_s_files_are_removed_and_a_living_one_s_are_not() {
        let root = tempfile::tempdir().unwrap();
        let world = World::seeded(1);
        let living = TempDir::open(root.path(), &world).unwrap();
        fs::write(living.file(), b"half").unwrap();
        let dead = root.path().join(TEMP_DIR).join("dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("0"), b"half").unwrap();

        let other = TempDir::open(root.path(), &world).unwrap();
        assert!(!dead.exists());
        assert!(living.path.join("0").exists());
        drop(living);
        drop(other);
        assert_eq!(fs::read_dir(root.path().join(TEMP_DIR)).unwrap().count(), 0);
    }
}
