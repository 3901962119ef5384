//! What SQLite's errors mean: whether an append certainly did not happen, or may have.
use rusqlite::{Error, ErrorCode};

use crate::journal::JournalError;

/// An error before `COMMIT` was asked for. Nothing of a transaction without its commit frame survives, whatever failed.
pub(super) fn before_commit(error: &Error) -> JournalError {
    JournalError::NotDone(text(error))
}

/// An error of `COMMIT` itself. SQLite has rolled back for itself, but frames that reached the log before the sync
/// failed would count again after a crash, so the outcome is open until a later append has written over them. Two errors
/// are sure: a full disk cuts the commit frame, which is the last one written, and a lock that is held elsewhere comes
/// before any frame.
pub(super) fn at_commit(error: &Error) -> JournalError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => before_commit(error),
        _ => JournalError::Unknown(text(error)),
    }
}

/// An error of a read. What was looked for may be there, so for an append it is no certainty either.
pub(super) fn of_read(error: &Error) -> JournalError {
    JournalError::Unknown(text(error))
}

/// True if the file is not, or no longer, a whole database.
pub(super) fn is_corruption(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// SQLite's words, and its extended code, which says which system call failed.
fn text(error: &Error) -> String {
    match error {
        Error::SqliteFailure(cause, _) => format!("{error} (SQLite code {})", cause.extended_code),
        _ => error.to_string(),
    }
}
