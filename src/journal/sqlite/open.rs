//! From a path to two checked connections.
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};
use std::path::Path;
use std::time::Duration;

use super::file::{self, Lock};
use super::{OpenError, failure, table};
use crate::types::{Head, Position};

/// The first version without the WAL-reset corruption (sqlite.org/wal.html, "the WAL-reset bug").
const VERSION_MIN: i32 = 3_051_003;

/// Bytes of a database page: one block of today's disks and file systems. A small append dirties two of them.
const PAGE_BYTES: i64 = 4096;

/// To what the log is cut when it starts over, in bytes, should it ever have grown beyond. Above the checkpoints' usual
/// size, so that in normal operation the log is written in place and a sync need not write a new file size.
const LOG_BYTES_KEPT: i64 = 16 << 20;

/// How long to wait for a lock that a person's `sqlite3` shell may hold on the file, in ms.
const BUSY_MS: u64 = 1000;

/// An open journal's parts. The lock is to be dropped last.
pub(super) struct Open {
    pub db: Connection,
    pub reader: Connection,
    pub lock: Lock,
    pub first: Position,
    pub head: Head,
}

/// Opens or makes the journal at `path`.
pub(super) fn open(path: &Path) -> Result<Open, OpenError> {
    if rusqlite::version_number() < VERSION_MIN {
        return Err(OpenError::OldSqlite { found: rusqlite::version() });
    }
    let lock = file::prepare(path)?;
    let failed = |e: rusqlite::Error| failed(path, &e);
    let db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
    if is_new(&db).map_err(failed)? {
        make(&db).map_err(failed)?;
    }
    check_format(&db, path)?;
    settings(&db).map_err(failed)?;
    settle(&db, path)?;
    let first = table::first(&db).map_err(failed)?;
    let head = check_last(&db, first, path)?;
    let reader = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
    Ok(Open { db, reader, lock, first, head })
}

fn failed(path: &Path, error: &rusqlite::Error) -> OpenError {
    if failure::is_corruption(error) {
        return OpenError::Corrupt { path: path.to_owned(), reason: error.to_string() };
    }
    file::storage(path, "open", error)
}

fn connect(path: &Path, mode: OpenFlags) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(Duration::from_millis(BUSY_MS))?;
    // No memory map: a disk error in one is a SIGBUS instead of an error code.
    db.pragma_update(None, "mmap_size", 0)?;
    db.pragma_update(None, "foreign_keys", false)?;
    db.pragma_update(None, "trusted_schema", false)?;
    db.pragma_update(None, "cell_size_check", true)?;
    db.pragma_update(None, "cache_size", -1024)?;
    // Plans that may depend on what is bound are made anew each time: our statements have one plan each.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(db)
}

/// True for an empty file, and for one whose maker died before its tables were committed.
fn is_new(db: &Connection) -> rusqlite::Result<bool> {
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(tables == 0 && number(db, "application_id")? == 0 && number(db, "user_version")? == 0)
}

fn number(db: &Connection, pragma: &str) -> rusqlite::Result<i32> {
    db.pragma_query_value(None, pragma, |row| row.get(0))
}

fn make(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "page_size", PAGE_BYTES)?;
    settings(db)?;
    let transaction = db.unchecked_transaction()?;
    transaction.execute_batch(table::SCHEMA)?;
    transaction.pragma_update(None, "application_id", table::APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", table::FORMAT)?;
    transaction.commit()
}

fn check_format(db: &Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |e: rusqlite::Error| failed(path, &e);
    if number(db, "application_id").map_err(failed)? != table::APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    let found = number(db, "user_version").map_err(failed)?;
    if found != table::FORMAT {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: table::FORMAT });
    }
    Ok(())
}

/// What a commit's promise rests on. Checkpoints are the writer's own business, see `writer.rs`.
fn settings(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update_and_check(None, "journal_mode", "wal", |row| {
        let mode: String = row.get(0)?;
        if mode == "wal" { Ok(()) } else { Err(refused(&format!("journal mode {mode} instead of wal"))) }
    })?;
    db.pragma_update(None, "synchronous", "full")?;
    if number(db, "synchronous")? != 2 {
        return Err(refused("synchronous=FULL was not taken"));
    }
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    db.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)
}

fn refused(what: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_ERROR), Some(what.into()))
}

/// Moves the log into the database and syncs it. A process that was killed may have written a commit that it never
/// synced: the file shows it, and so would we, until a power cut takes it away again. From here on it is durable, since
/// the log was written anew when the file was prepared.
fn settle(db: &Connection, path: &Path) -> Result<(), OpenError> {
    let checkpoint = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    match checkpoint.map_err(|e| failed(path, &e))? {
        0 => Ok(()),
        _ => Err(file::storage(path, "settle", &"another program reads it; close it and try again")),
    }
}

/// The head, after the last entry has shown that its checksum holds.
fn check_last(db: &Connection, first: Position, path: &Path) -> Result<Head, OpenError> {
    let corrupt = |reason: String| OpenError::Corrupt { path: path.to_owned(), reason };
    let head = table::head(db).map_err(|e| failed(path, &e))?;
    if head.position < first && (first, head) != (Position(1), Head::default()) {
        return Err(corrupt(format!("it ends at position {} and begins at {first}", head.position)));
    }
    if head != Head::default() {
        table::read(db, head.position).map_err(|e| corrupt(e.to_string()))?;
    }
    Ok(head)
}
