//! The thread that reads what is not in memory any more: a replica that starts, or one that was away for long. It has a
//! connection of its own, so appends do not wait for it.
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{failure, table};
use crate::journal::{JournalError, Stored};
use crate::types::Position;

pub(super) struct Job {
    pub from: Position,
    pub reply: oneshot::Sender<Result<Vec<Stored>, JournalError>>,
}

/// Answers until nobody can ask any more.
pub(super) fn run(db: &Connection, mut queue: mpsc::Receiver<Job>) {
    while let Some(job) = queue.blocking_recv() {
        // Who asked may have gone meanwhile.
        if !job.reply.is_closed() {
            let _ = job.reply.send(read(db, job.from));
        }
    }
}

/// One page, and whether it may be read, from one state of the file: a trim may be deleting at the same time.
fn read(db: &Connection, from: Position) -> Result<Vec<Stored>, JournalError> {
    let of_read = |e: rusqlite::Error| failure::of_read(&e);
    let transaction = db.unchecked_transaction().map_err(of_read)?;
    let first = table::first(&transaction).map_err(of_read)?;
    if from < first {
        return Err(JournalError::Trimmed { first });
    }
    table::read(&transaction, from)
}
