//! How a call ended that did not succeed: whether an append certainly did not happen, or may have.
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity};

use super::address::with_cause;
use crate::journal::JournalError;
use crate::types::Head;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing was sent: no server is there that could have taken it.
    NotSent(String),
    /// The server took it and said that it undid it.
    Undone(String),
    /// It may have happened. The connection is of no more use.
    Open(String),
    /// The servers that are there do not have what was appended before.
    Forked { after: Head, reason: String },
    /// What the server has is not what was written.
    Journal(JournalError),
}

impl Failure {
    /// Whether the connection may be used again.
    pub(super) fn leaves_connection(&self) -> bool {
        matches!(self, Self::Undone(_) | Self::Journal(_))
    }
}

impl From<Failure> for JournalError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent(reason) | Failure::Undone(reason) => Self::NotDone(reason),
            Failure::Open(reason) => Self::Unknown(reason),
            Failure::Forked { after, reason } => Self::Forked { after, reason },
            Failure::Journal(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = with_cause(&error);
        if error.as_db_error().is_some_and(undoes) { Self::Undone(text) } else { Self::Open(text) }
    }
}

/// Whether this error says that the statement left nothing behind. An error that ends the connection does not: a server
/// that is shut down while it waits for its standby has committed already. The classes are those of conditions that are
/// found before a commit; 40003 is CockroachDB's word for "may have happened".
fn undoes(error: &DbError) -> bool {
    const CLASSES: [&str; 10] = ["0A", "21", "22", "23", "25", "40", "42", "53", "54", "55"];
    let code = error.code().code();
    error.parsed_severity().is_none_or(|severity| severity == Severity::Error)
        && code != "40003"
        && CLASSES.iter().any(|class| code.starts_with(class))
}

/// Whether a notice that came during a commit says that its standby was not waited for: such a commit is visible, and is
/// answered as if all were well. Its words are translated and its code is any warning's, but it has a detail.
pub(super) fn is_unreplicated_commit(notice: &DbError) -> bool {
    notice.parsed_severity() == Some(Severity::Warning)
        && matches!(notice.code().code(), "01000" | "57P01")
        && notice.detail().is_some()
}
