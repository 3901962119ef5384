//! The few file operations that a create is made of, as a trait, so that a test can run them on a disk that forgets
//! at a power cut whatever was not synced.
use bytes::Bytes;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Write};
use std::path::Path;

/// A disk; every call blocks.
pub(crate) trait Disk: Send + Sync + 'static {
    type File;
    /// Makes the directory `path` in an existing one; true if it was not there.
    fn make_dir(&self, path: &Path) -> io::Result<bool>;
    /// Makes the names in the directory `path` durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// A new, empty file.
    fn create_file(&self, path: &Path) -> io::Result<Self::File>;
    /// Appends `chunks`.
    fn write(&self, file: &mut Self::File, chunks: &[Bytes]) -> io::Result<()>;
    /// Makes the content of `file` durable.
    fn sync_file(&self, file: &Self::File) -> io::Result<()>;
    /// Gives the file at `from` the second name `to`; fails with `AlreadyExists` where there is one.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
}

/// The operating system's.
#[derive(Debug)]
pub(crate) struct RealDisk;

/// Linux takes at most this many buffers in one call (`IOV_MAX`).
const SLICES_PER_WRITE: usize = 1024;
/// Larger calls make ext4 (Linux 6.18) allocate page-cache folios of up to MiBs, which in a virtual machine whose free
/// memory was never touched took four times as long: 8 MiB written and synced 25 ms in calls of 1 MiB and more, 5.7 ms
/// in calls of 256 KiB, 7.9 ms in calls of 16 KiB.
const BYTES_PER_WRITE: usize = 256 * 1024;
/// A large file is synced each time that so much of it has been written: who syncs a small one beside it waits, on file systems
/// like ext4, for all that the large one has not.
const BYTES_PER_SYNC: usize = 4 << 20;
/// A flush, which is a little larger than `produce.object_bytes_max` (8 MiB by default), is none: who waits for it waits for
/// each sync.
const LARGE_BYTES_MIN: usize = 12 << 20;

impl Disk for RealDisk {
    type File = File;

    fn make_dir(&self, path: &Path) -> io::Result<bool> {
        match fs::create_dir(path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn create_file(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).open(path)
    }

    fn write(&self, file: &mut File, chunks: &[Bytes]) -> io::Result<()> {
        let is_large = chunks.iter().map(Bytes::len).sum::<usize>() >= LARGE_BYTES_MIN;
        let mut pieces = chunks.iter().flat_map(|chunk| chunk.chunks(BYTES_PER_WRITE)).peekable();
        let mut unsynced = 0;
        while pieces.peek().is_some() {
            let (mut slices, mut bytes) = (Vec::new(), 0);
            while let Some(piece) = pieces.next_if(|p| bytes + p.len() <= BYTES_PER_WRITE) {
                bytes += piece.len();
                slices.push(IoSlice::new(piece));
                if slices.len() == SLICES_PER_WRITE {
                    break;
                }
            }
            write_all(file, &mut slices)?;
            unsynced += bytes;
            if is_large && unsynced >= BYTES_PER_SYNC {
                file.sync_data()?;
                unsynced = 0;
            }
        }
        Ok(())
    }

    /// `sync_all` and not `sync_data`: the file is new, so there is metadata to write in any case.
    fn sync_file(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

fn write_all(file: &mut File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut slices, n),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
