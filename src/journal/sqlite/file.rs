//! The files: where they may lie, who may have them, and that their names are durable before anything is in them.
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::OpenError;
use crate::disk::{self, make_durable};

/// Held for as long as the journal is open; the operating system lets go of it when the process ends, however it ends.
/// The file stays, since deleting it would race with the next owner.
pub(super) struct Lock {
    _file: File,
}

/// Makes the directory of `database`, checks its file system, takes the lock and creates the file, all durably.
pub(super) fn prepare(database: &Path) -> Result<Lock, OpenError> {
    let directory = directory_of(database);
    make_durable(directory, DirBuilder::new().mode(0o700))
        .map_err(|e| storage(directory, "create the directory", &e))?;
    refuse_network_file_system(directory)?;
    let lock = lock(&lock_path(database))?;
    create(database).map_err(|e| storage(database, "create the file", &e))?;
    // Also when the file was there: the process that made it may have died before it could sync.
    disk::sync(directory).map_err(|e| storage(directory, "sync the directory", &e))?;
    renew_log(database).map_err(|e| storage(database, "sync the log of", &e))?;
    Ok(lock)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn lock_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

pub(super) fn storage(path: &Path, what: &str, error: &dyn std::fmt::Display) -> OpenError {
    OpenError::Storage { path: path.to_owned(), what: what.to_owned(), reason: error.to_string() }
}

fn create(database: &Path) -> io::Result<()> {
    // SQLite gives its other files the mode of this one. An existing file is not opened here: closing it again would
    // drop every lock that this process holds on it.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(database) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}

fn lock(path: &Path) -> Result<Lock, OpenError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(path).map_err(|e| storage(path, "open the lock file", &e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.take(64).read_to_string(&mut holder);
            return Err(OpenError::InUse { lock: path.to_owned(), holder: holder.trim().to_owned() });
        }
        Err(TryLockError::Error(e)) => return Err(storage(path, "lock", &e)),
    }
    // Only for the message above, so it need not be durable, nor succeed.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "process {}", std::process::id()));
    Ok(Lock { _file: file })
}

/// Writes the log that a killed process left once more, and syncs it. It may hold commits that were never synced, or
/// whose sync failed; after a failed sync Linux counts pages as clean that are not on the disk, so a sync alone would not
/// reach them. SQLite relies on the log being durable before it moves it into the database.
fn renew_log(database: &Path) -> io::Result<()> {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let log = match OpenOptions::new().read(true).write(true).open(log) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut chunk = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let bytes = log.read_at(&mut chunk, at)?;
        if bytes == 0 {
            return log.sync_all();
        }
        log.write_all_at(&chunk[..bytes], at)?;
        at = at.saturating_add(bytes as u64);
    }
}

/// Kinds of file systems on which SQLite's log is not safe: locks or shared memory do not reach other machines, or a
/// sync does not reach a disk. FUSE is among them, since nothing tells an sshfs or a bucket mount from a local one. An
/// overlay (a container's own root) is local and honours syncs.
#[cfg(target_os = "linux")]
const NETWORK_FILE_SYSTEMS: [(u32, &str); 16] = [
    (0x0000_6969, "NFS"),
    (0x0000_517b, "SMB"),
    (0xfe53_4d42, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "CephFS"),
    (0x6573_5546, "FUSE"),
    (0x5346_414f, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x1983_0326, "BeeGFS"),
    (0x0000_564c, "NCP"),
    (0x786f_4256, "VirtualBox shared folder"),
];

/// File systems that forget everything when the machine stops.
#[cfg(target_os = "linux")]
const MEMORY_FILE_SYSTEMS: [u32; 2] = [0x0102_1994, 0x8584_58f6];

#[cfg(target_os = "linux")]
fn refuse_network_file_system(directory: &Path) -> Result<(), OpenError> {
    let found = rustix::fs::statfs(directory).map_err(|e| storage(directory, "look at the file system", &e))?;
    // The type is wider than 32 bits and signed on some machines; the magic numbers are not.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let magic = found.f_type as u32;
    if MEMORY_FILE_SYSTEMS.contains(&magic) {
        tracing::warn!(directory = %directory.display(), "the journal lies in memory: a restart of the machine loses it");
    }
    match NETWORK_FILE_SYSTEMS.iter().find(|(known, _)| *known == magic) {
        Some((_, kind)) => Err(OpenError::NetworkFileSystem { directory: directory.to_owned(), kind }),
        None => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_network_file_system(_: &Path) -> Result<(), OpenError> {
    Ok(())
}
