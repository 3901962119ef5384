//! Directories that survive a power cut, for whoever keeps files on this machine. It promises that after
//! [`make_durable`] a directory and all above it have names that are on the disk. It never reads or writes a file.
//! Tests: below, and `integration-tests/test_power_cut.py`, which kills whoever makes them.
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Makes `dir` and what is above it, each with its name synced: what is durable in a directory is lost with its name.
/// Names that were there are synced too, since a predecessor may have been killed before it came to that. New
/// directories are made as `builder` says. Blocks; meant for starts.
///
/// # Errors
/// If a directory can't be made or synced; may be tried again.
pub fn make_durable(dir: &Path, builder: &DirBuilder) -> io::Result<()> {
    let dir = std::path::absolute(dir)?;
    let mut ancestors: Vec<&Path> = dir.ancestors().collect();
    ancestors.reverse();
    for pair in ancestors.windows(2) {
        let [parent, dir] = pair else { continue };
        let made = match builder.create(dir) {
            Ok(()) => true,
            Err(_) if dir.is_dir() => false,
            Err(e) => return Err(e),
        };
        match sync(parent) {
            Ok(()) => {}
            // Closed to us, so no predecessor made it either, or on a file system that knows no such syncs.
            Err(e) if !made && is_closed(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Makes the names in `dir` durable.
///
/// # Errors
/// Those of the operating system; the names may be durable or not.
pub fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn is_closed(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::InvalidInput)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let make = |dir: &str| make_durable(&root.path().join(dir), &DirBuilder::new());
        make("a/b").unwrap();
        make("a/b").unwrap();
        assert!(root.path().join("a/b").is_dir());
        fs::write(root.path().join("a/file"), b"").unwrap();
        assert!(make("a/file").is_err());
        assert!(make("a/file/c").is_err());
    }
}
