//! The journal of one machine: one table in one SQLite file. It promises that an append answered with a position has
//! been synced, that one process at a time has the file, and that a full disk is `NotDone` and passes without a restart.
//! One thread owns the writing connection and commits whatever has queued meanwhile as one transaction; what was
//! appended last is read from memory, older entries by a second thread with a read-only connection. It never runs on a
//! network file system. Tests: `tests.rs` (the contract suite and what is SQLite's own), `crash.rs` (kill -9), and
//! `integration-tests/powercut` (what was not synced is lost).
mod failure;
mod file;
mod open;
mod reader;
mod recent;
mod table;
mod writer;

#[cfg(test)]
mod crash;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

use super::{Appended, Journal, JournalError, Proposal, Stored};
use crate::types::{Head, Position};
use recent::Recent;
use writer::Job;

/// Calls that may wait in front of each of the two threads; more wait in their callers. A broker has one append in
/// flight, so this is for tests and tools.
const QUEUE_MAX: usize = 128;

/// Why a journal could not be opened. Nothing was changed in an existing one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{} is locked: a second process on the same data directory ({holder}). Stop it, or give this one a data \
         directory of its own",
        lock.display()
    )]
    InUse { lock: PathBuf, holder: String },
    #[error(
        "{} is on {kind}: SQLite's log is not safe on a network or FUSE file system. Use a local disk, or another \
         journal",
        directory.display()
    )]
    NetworkFileSystem { directory: PathBuf, kind: &'static str },
    #[error("SQLite {found} is linked; versions before 3.51.3 can corrupt their log. Build with the bundled one")]
    OldSqlite { found: &'static str },
    #[error("{} is a SQLite file of another program; give the journal a path of its own", path.display())]
    Foreign { path: PathBuf },
    #[error("{} has format {found}, and this version knows {known}: start the version that wrote it", path.display())]
    Newer { path: PathBuf, found: i32, known: i32 },
    #[error(
        "{} is damaged ({reason}). Do not write to it: copy the directory, then restore the journal from a backup or \
         salvage it with `sqlite3 FILE .recover`",
        path.display()
    )]
    Corrupt { path: PathBuf, reason: String },
    /// Permissions, a read-only or full disk, a missing or strange path.
    #[error("can't {what} {}: {reason}", path.display())]
    Storage { path: PathBuf, what: String, reason: String },
}

/// An open journal. Dropping it answers what has queued, closes the file and lets go of the lock before it returns.
pub struct SqliteJournal {
    recent: Arc<Recent>,
    /// `None` only while it is dropped.
    writer: Option<(mpsc::Sender<Job>, JoinHandle<()>)>,
    reader: Option<(mpsc::Sender<reader::Job>, JoinHandle<()>)>,
}

impl SqliteJournal {
    /// Opens the journal at `path`, or makes an empty one there (with its directory). What it then answers is durable,
    /// also what a process that was killed had written and not synced.
    ///
    /// # Errors
    /// See [`OpenError`]; each says what to do.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let path = path.to_owned();
        let (opened, ready) = oneshot::channel();
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let place = path.clone();
        let writer = start("journal-writer", &path, move || match open::open(&place) {
            Ok(open) => {
                let recent = Arc::new(Recent::new(open.first, open.head));
                if opened.send(Ok((Arc::clone(&recent), open.reader))).is_ok() {
                    writer::Writer::new(open.db, open.first, open.head, recent).run(queue);
                }
                // The connection is closed by now: another process may have the file.
                drop(open.lock);
            }
            Err(e) => drop(opened.send(Err(e))),
        })?;
        let ended = |_| file::storage(&path, "open", &"the journal's thread ended");
        let (recent, db) = ready.await.map_err(ended)??;
        let (reads, read_queue) = mpsc::channel(QUEUE_MAX);
        let reader = start("journal-reader", &path, move || reader::run(&db, read_queue))?;
        Ok(Self { recent, writer: Some((jobs, writer)), reader: Some((reads, reader)) })
    }

    async fn send(&self, job: Job) -> Result<(), JournalError> {
        let sent = match &self.writer {
            Some((jobs, _)) => jobs.send(job).await.is_ok(),
            None => false,
        };
        if sent { Ok(()) } else { Err(JournalError::NotDone("the journal's writer has ended".into())) }
    }
}

fn start(name: &str, path: &Path, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    let builder = std::thread::Builder::new().name(name.into());
    builder.spawn(run).map_err(|e| file::storage(path, "start a thread for", &e))
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn append(&self, proposal: Proposal, after: Head) -> Result<Appended, JournalError> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Append(writer::Append { proposal, after, reply })).await?;
        answer.await.unwrap_or_else(|_| Err(JournalError::Unknown("the journal's writer has ended".into())))
    }

    async fn read(&self, from: Position) -> Result<Vec<Stored>, JournalError> {
        let from = from.max(Position(1));
        if let Some(answer) = self.recent.read(from) {
            return answer;
        }
        let ended = || JournalError::Unknown("the journal's reader has ended".into());
        let (reply, answer) = oneshot::channel();
        let (reads, _) = self.reader.as_ref().ok_or_else(ended)?;
        reads.send(reader::Job { from, reply }).await.map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    async fn head(&self) -> Result<Head, JournalError> {
        Ok(self.recent.head())
    }

    async fn changed(&self, beyond: Position) {
        self.recent.changed(beyond).await;
    }

    async fn trim(&self, below: Position) -> Result<(), JournalError> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Trim { below, reply }).await?;
        answer.await.unwrap_or_else(|_| Err(JournalError::Unknown("the journal's writer has ended".into())))
    }

    async fn restart(&self, only: Stored, expected: Head) -> Result<(), JournalError> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Restart { only, expected, reply }).await?;
        answer.await.unwrap_or_else(|_| Err(JournalError::Unknown("the journal's writer has ended".into())))
    }
}

impl Drop for SqliteJournal {
    fn drop(&mut self) {
        // The reader first: whoever closes last empties the log into the database and deletes it, which a read-only
        // connection can't.
        if let Some((reads, thread)) = self.reader.take() {
            drop(reads);
            let _ = thread.join();
        }
        if let Some((jobs, thread)) = self.writer.take() {
            drop(jobs);
            let _ = thread.join();
        }
    }
}
