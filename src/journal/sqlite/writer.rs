//! The thread that owns the writing connection. It takes whatever has queued, judges each append in order, commits the
//! new ones as one transaction with one sync, publishes them and answers. Between groups it deletes what was trimmed, a
//! piece at a time, and moves the log into the database when nobody waits.
use rusqlite::{Connection, TransactionBehavior};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

use super::recent::Recent;
use super::{failure, table};
use crate::journal::rules::{self, Verdict};
use crate::journal::{Appended, JournalError, Proposal, Stored, went_on};
use crate::types::{Head, Position};

/// Payload bytes after which a group takes no more appends: more would only make those who wait wait longer.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Deleted in one transaction, so that an append waits for a piece and not for a whole trim.
const DELETE_ROWS_MAX: u32 = 128;
const DELETE_BYTES_MAX: u64 = 1 << 20;

/// Pages in the log from which a quiet moment is used for a checkpoint, and from which it is done in any case. An append
/// that arrives meanwhile waits, so the first is small; the second bounds the file.
const CHECKPOINT_PAGES_QUIET: i64 = 512;
const CHECKPOINT_PAGES_MAX: i64 = 1024;

/// Payload bytes of a page of the log, a low guess, and the pages that an append or a deletion changes beside it, a high
/// one: to ask SQLite how long the log is costs a statement, and is not worth it while it can't be long.
const PAGE_PAYLOAD_BYTES: i64 = 2048;
const PAGES_BESIDE: i64 = 8;

pub(super) enum Job {
    Append(Append),
    Trim {
        below: Position,
        reply: oneshot::Sender<Result<(), JournalError>>,
    },
    Restart {
        only: Stored,
        expected: Head,
        reply: oneshot::Sender<Result<(), JournalError>>,
    },
    /// Changes a setting of the connection in a test.
    #[cfg(test)]
    Touch(Box<dyn FnOnce(&Connection) + Send>),
}

pub(super) struct Append {
    pub proposal: Proposal,
    pub after: Head,
    pub reply: oneshot::Sender<Result<Appended, JournalError>>,
}

pub(super) struct Writer {
    db: Connection,
    first: Position,
    head: Head,
    recent: Arc<Recent>,
    /// Entries below `first` may be there still.
    deleting: bool,
    /// The last commit failed. Nothing is tidied up until one succeeds; who appends tells people.
    failing: bool,
    /// Pages that the log may have grown by since it was last looked at, its length then included.
    pages_at_most: i64,
    /// A commit failed in a way that may show after a crash. Until another has written over it in the log, nothing that
    /// fails is certain not to have happened.
    unsettled: bool,
}

impl Writer {
    pub(super) fn new(db: Connection, first: Position, head: Head, recent: Arc<Recent>) -> Self {
        Self { db, first, head, recent, deleting: true, failing: false, pages_at_most: i64::MAX, unsettled: false }
    }

    /// Works until nobody can ask any more and the queue is empty. The connection is closed when it returns.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        loop {
            let job = match queue.try_recv() {
                Ok(job) => Some(job),
                Err(mpsc::error::TryRecvError::Disconnected) => return,
                Err(mpsc::error::TryRecvError::Empty) if self.quiet_work() => None,
                Err(mpsc::error::TryRecvError::Empty) => match queue.blocking_recv() {
                    Some(job) => Some(job),
                    None => return,
                },
            };
            if let Some(job) = job {
                self.group(job, &mut queue);
                self.delete_some();
                self.checkpoint_from(CHECKPOINT_PAGES_MAX);
            }
        }
    }

    /// Does a piece of what can wait; false if nothing is left to do.
    fn quiet_work(&mut self) -> bool {
        self.delete_some() || self.checkpoint_from(CHECKPOINT_PAGES_QUIET)
    }

    /// Serves `job` and the appends that wait behind it.
    fn group(&mut self, job: Job, queue: &mut mpsc::Receiver<Job>) {
        let mut appends = Vec::new();
        let mut bytes = 0_usize;
        let mut next = Some(job);
        let mut other = None;
        while let Some(job) = next {
            match job {
                Job::Append(append) => {
                    bytes = bytes.saturating_add(append.proposal.payload.len());
                    appends.push(append);
                }
                job => {
                    other = Some(job);
                    break;
                }
            }
            next = if bytes < GROUP_BYTES_MAX { queue.try_recv().ok() } else { None };
        }
        self.append(appends);
        match other {
            Some(Job::Trim { below, reply }) => drop(reply.send(self.trim(below))),
            Some(Job::Restart { only, expected, reply }) => drop(reply.send(self.restart(only, expected))),
            #[cfg(test)]
            Some(Job::Touch(touch)) => touch(&self.db),
            Some(Job::Append(_)) | None => {}
        }
    }

    fn append(&mut self, appends: Vec<Append>) {
        if appends.is_empty() {
            return;
        }
        let payload: usize = appends.iter().map(|append| append.proposal.payload.len()).sum();
        let appended = i64::try_from(appends.len()).unwrap_or(i64::MAX).saturating_mul(PAGES_BESIDE);
        let filled = i64::try_from(payload).unwrap_or(i64::MAX) / PAGE_PAYLOAD_BYTES;
        self.grew(appended.saturating_add(filled));
        let mut group = Group { head: self.head, new: Vec::new(), verdicts: Vec::with_capacity(appends.len()) };
        let result = group.commit(&mut self.db, self.first, &appends);
        match &result {
            Ok(()) => {
                if !group.new.is_empty() {
                    (self.unsettled, self.failing) = (false, false);
                }
                self.head = group.head;
                self.recent.publish(std::mem::take(&mut group.new));
            }
            Err(error) => {
                self.unsettled |= matches!(error, JournalError::Unknown(_));
                self.failing = true;
            }
        }
        let mut answers = group.answers(result, self.unsettled).into_iter();
        for append in appends {
            let answer = answers.next().unwrap_or_else(|| Err(JournalError::Unknown("it was not looked at".into())));
            let answer = answer
                .map(|position| Appended { position, missed: self.recent.between(append.after.position, position) });
            // Who asked may have gone meanwhile.
            let _ = append.reply.send(answer);
        }
    }

    /// Raises the boundary durably; the rows below it are deleted later.
    fn trim(&mut self, below: Position) -> Result<(), JournalError> {
        let first = below.min(self.head.position);
        if first <= self.first {
            return Ok(());
        }
        // Outside of a transaction the statement is its own, so any error may be its commit's.
        table::set_first(&self.db, first).map_err(|e| failure::at_commit(&e))?;
        self.grew(PAGES_BESIDE);
        self.first = first;
        self.deleting = true;
        self.recent.set_first(first);
        Ok(())
    }

    fn restart(&mut self, only: Stored, expected: Head) -> Result<(), JournalError> {
        if self.head != expected {
            return Err(went_on(self.head));
        }
        let before_commit = |e: rusqlite::Error| failure::before_commit(&e);
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(before_commit)?;
        table::forget_all(&transaction).map_err(before_commit)?;
        table::insert(&transaction, only.position, &only.proposal).map_err(before_commit)?;
        table::set_first(&transaction, only.position).map_err(before_commit)?;
        transaction.commit().map_err(|e| failure::at_commit(&e))?;
        self.pages_at_most = i64::MAX;
        self.first = only.position;
        self.head = Head { position: only.position, token: only.proposal.token };
        self.recent.restart(only);
        Ok(())
    }

    /// Deletes a piece of what was trimmed; false if there is nothing to delete, or if that failed: then it is tried
    /// again after the next append.
    fn delete_some(&mut self) -> bool {
        if !self.deleting || self.failing {
            return false;
        }
        // Whole pages go, with what points at them.
        self.pages_at_most = i64::MAX;
        let deleted = delete_piece(&mut self.db, self.first);
        self.deleting = !matches!(deleted, Ok(false));
        matches!(deleted, Ok(true))
    }

    /// Moves the log into the database if it has `pages` or more. The next append then writes the log from its start.
    /// A failure leaves everything in the log, where it is durable.
    fn checkpoint_from(&mut self, pages: i64) -> bool {
        if self.pages_at_most < pages {
            return false;
        }
        let Ok((in_log, done)) = self.checkpoint("NOOP") else { return false };
        self.pages_at_most = in_log.saturating_sub(done);
        if self.pages_at_most < pages {
            return false;
        }
        let Ok((in_log, now)) = self.checkpoint("PASSIVE") else { return false };
        self.pages_at_most = in_log.saturating_sub(now);
        now > done
    }

    fn grew(&mut self, pages: i64) {
        self.pages_at_most = self.pages_at_most.saturating_add(pages);
    }

    /// The pages in the log, and how many of them the database has.
    fn checkpoint(&self, mode: &str) -> rusqlite::Result<(i64, i64)> {
        let mut pragma = self.db.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
        pragma.query_row([], |row| Ok((row.get(1)?, row.get(2)?)))
    }
}

fn delete_piece(db: &mut Connection, first: Position) -> rusqlite::Result<bool> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Some(last) = table::next_to_delete(&transaction, first, DELETE_ROWS_MAX, DELETE_BYTES_MAX)? else {
        return Ok(false);
    };
    table::delete_up_to(&transaction, last)?;
    transaction.commit()?;
    Ok(true)
}

/// Appends that are committed together.
struct Group {
    /// The last entry, those of this group included.
    head: Head,
    new: Vec<Stored>,
    /// In the order of the appends; ends early where SQLite failed.
    verdicts: Vec<Judged>,
}

/// What was found out about one append before the commit.
enum Judged {
    New(Position),
    /// It rests on nothing that this group adds.
    Settled(Result<Position, JournalError>),
    /// It holds only if the group is committed.
    Resting(Result<Position, JournalError>),
}

impl Group {
    /// Judges all, inserts the new ones and commits. After an error nothing is in the journal that was not before,
    /// unless it is `Unknown`.
    fn commit(&mut self, db: &mut Connection, first: Position, appends: &[Append]) -> Result<(), JournalError> {
        let before_commit = |e: rusqlite::Error| failure::before_commit(&e);
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(before_commit)?;
        for append in appends {
            let journal = table::Tables { db: &transaction, first, head: self.head };
            let answer = match rules::judge(&journal, &append.proposal, append.after) {
                Ok(Verdict::New) => {
                    let position = self.head.position.next();
                    self.verdicts.push(Judged::New(position));
                    table::insert(&transaction, position, &append.proposal).map_err(before_commit)?;
                    self.head = Head { position, token: append.proposal.token };
                    self.new.push(Stored { position, proposal: append.proposal.clone() });
                    continue;
                }
                Ok(Verdict::Known(position)) => Ok(position),
                Err(refused) => Err(refused),
            };
            let alone = self.new.is_empty();
            self.verdicts.push(if alone { Judged::Settled(answer) } else { Judged::Resting(answer) });
        }
        if self.new.is_empty() {
            return Ok(());
        }
        transaction.commit().map_err(|e| failure::at_commit(&e))
    }

    /// What each append that was judged is told. `NotDone` is for those alone of which it is sure that neither this
    /// attempt nor an earlier one is in the log.
    fn answers(self, result: Result<(), JournalError>, unsettled: bool) -> Vec<Result<Position, JournalError>> {
        let answer = |verdict| match (verdict, &result) {
            (Judged::Settled(answer), _) => answer,
            (Judged::New(position), Ok(())) => Ok(position),
            (Judged::Resting(answer), Ok(())) => answer,
            (Judged::New(_), Err(error)) if !unsettled => Err(error.clone()),
            (Judged::New(_) | Judged::Resting(_), Err(error)) => Err(JournalError::Unknown(error.to_string())),
        };
        self.verdicts.into_iter().map(answer).collect()
    }
}
