//! The tables: `docs/formats/journal-sqlite.md` specifies them. The last entry is never deleted, so the head is the row
//! with the highest position, and there is no second place that could disagree with it.
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::failure;
use crate::journal::rules::{Known, Lookup, Page};
use crate::journal::{JournalError, Proposal, Stored};
use crate::types::{Head, Incarnation, Position, Token};

/// "STLJ", which tells a journal from any other SQLite file.
pub(super) const APPLICATION_ID: i32 = 0x5354_4c4a;

/// Raised when the tables change.
pub(super) const FORMAT: i32 = 1;

/// Small columns stand before the payload, so that looking at a token does not walk an entry's overflow pages.
pub(super) const SCHEMA: &str = "
    CREATE TABLE journal (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        first INTEGER NOT NULL -- the oldest position that may be read; entries below it are being deleted
    ) STRICT;
    INSERT INTO journal (id, first) VALUES (1, 1);
    CREATE TABLE entries (
        position INTEGER PRIMARY KEY,
        incarnation INTEGER NOT NULL,
        counter INTEGER NOT NULL,
        token INTEGER NOT NULL,
        checksum INTEGER NOT NULL, -- CRC-32C of the four numbers above, little-endian, and the payload
        payload BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX entries_by_counter ON entries (incarnation, counter);
    CREATE TABLE retired ( -- of each incarnation the newest entry that was deleted, so that a retry of it is recognised
        incarnation INTEGER PRIMARY KEY,
        counter INTEGER NOT NULL,
        position INTEGER NOT NULL,
        token INTEGER NOT NULL
    ) STRICT;
";

/// The oldest kept entry of an incarnation from a counter on: every append asks for it.
pub(super) const BY_COUNTER: &str = "SELECT counter, position, token FROM entries INDEXED BY entries_by_counter \
     WHERE incarnation = ?1 AND counter >= ?2 ORDER BY counter LIMIT 1";

pub(super) type Result<T> = rusqlite::Result<T>;

/// The oldest position that may be read.
pub(super) fn first(db: &Connection) -> Result<Position> {
    let mut query = db.prepare_cached("SELECT first FROM journal WHERE id = 1")?;
    query.query_row([], |row| position(row, 0))
}

/// The last entry, or the empty beginning.
pub(super) fn head(db: &Connection) -> Result<Head> {
    let mut query = db.prepare_cached("SELECT position, token FROM entries ORDER BY position DESC LIMIT 1")?;
    let last = query.query_row([], |row| Ok(Head { position: position(row, 0)?, token: Token(unsigned(row, 1)?) }));
    Ok(last.optional()?.unwrap_or_default())
}

/// Adds an entry at `position`, which must be the head's successor.
pub(super) fn insert(db: &Connection, position: Position, entry: &Proposal) -> Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO entries (position, incarnation, counter, token, checksum, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    insert.execute(params![
        signed(position.0),
        signed(entry.incarnation.0),
        signed(entry.counter),
        signed(entry.token.0),
        checksum(position, entry),
        &entry.payload[..],
    ])?;
    Ok(())
}

/// The entries from `from` on that fit one page, each checked; empty where `from` is beyond the head.
pub(super) fn read(db: &Connection, from: Position) -> std::result::Result<Vec<Stored>, JournalError> {
    let mut entries = Vec::new();
    let mut expected = from;
    let mut budget = Page::default();
    let of_read = |e: rusqlite::Error| failure::of_read(&e);
    let mut query = db
        .prepare_cached(
            "SELECT position, incarnation, counter, token, checksum, payload FROM entries WHERE position >= ?1 \
             ORDER BY position",
        )
        .map_err(of_read)?;
    let mut rows = query.query([signed(from.0)]).map_err(of_read)?;
    while let Some(row) = rows.next().map_err(of_read)? {
        let found = position(row, 0).map_err(of_read)?;
        if found != expected {
            return Err(JournalError::Damaged { position: expected, reason: format!("{found} stands in its place") });
        }
        let payload = row.get_ref(5).map_err(of_read)?.as_blob().map_err(|e| failure::of_read(&e.into()))?;
        if !budget.takes(payload.len()) {
            break;
        }
        entries.push(checked(row, found, payload)?);
        expected = found.next();
    }
    Ok(entries)
}

fn checked(row: &Row<'_>, position: Position, payload: &[u8]) -> std::result::Result<Stored, JournalError> {
    let number = |column| unsigned(row, column).map_err(|e| failure::of_read(&e));
    let proposal = Proposal {
        incarnation: Incarnation(number(1)?),
        counter: number(2)?,
        token: Token(number(3)?),
        payload: Bytes::copy_from_slice(payload),
    };
    let stored: u32 = row.get(4).map_err(|e| failure::of_read(&e))?;
    let actual = checksum(position, &proposal);
    if stored != actual {
        let reason = format!("its checksum is {actual:08x} and should be {stored:08x}");
        return Err(JournalError::Damaged { position, reason });
    }
    Ok(Stored { position, proposal })
}

/// Makes `to` the oldest position that may be read.
pub(super) fn set_first(db: &Connection, to: Position) -> Result<()> {
    db.prepare_cached("UPDATE journal SET first = ?1 WHERE id = 1")?.execute([signed(to.0)])?;
    Ok(())
}

/// The last position of the next `rows` entries below `first`, or fewer where they hold more than `bytes`; `None` if
/// nothing is left to delete.
pub(super) fn next_to_delete(db: &Connection, first: Position, rows: u32, bytes: u64) -> Result<Option<Position>> {
    let mut query = db.prepare_cached(
        "SELECT position, length(payload) FROM entries WHERE position < ?1 ORDER BY position LIMIT ?2",
    )?;
    let mut last = None;
    let mut sum = 0_u64;
    let mut rows = query.query(params![signed(first.0), rows])?;
    while let Some(row) = rows.next()? {
        sum = sum.saturating_add(unsigned(row, 1)?);
        if last.is_some() && sum > bytes {
            break;
        }
        last = Some(position(row, 0)?);
    }
    Ok(last)
}

/// Deletes every entry, and what is remembered of deleted ones.
pub(super) fn forget_all(db: &Connection) -> Result<()> {
    db.execute_batch("DELETE FROM entries; DELETE FROM retired;")
}

/// Deletes the entries up to `last`, and remembers the newest of each incarnation among them.
pub(super) fn delete_up_to(db: &Connection, last: Position) -> Result<()> {
    // In ascending order, so that an incarnation's newest comes last and stays.
    let mut remember = db.prepare_cached(
        "INSERT INTO retired (incarnation, counter, position, token) \
         SELECT incarnation, counter, position, token FROM entries WHERE position <= ?1 ORDER BY position \
         ON CONFLICT (incarnation) DO UPDATE SET \
            counter = excluded.counter, position = excluded.position, token = excluded.token",
    )?;
    remember.execute([signed(last.0)])?;
    db.prepare_cached("DELETE FROM entries WHERE position <= ?1")?.execute([signed(last.0)])?;
    Ok(())
}

/// What the rules ask, answered from the tables; `first` and `head` are the writer's, entries of this transaction
/// included.
pub(super) struct Tables<'a> {
    pub db: &'a Connection,
    pub first: Position,
    pub head: Head,
}

impl Lookup for Tables<'_> {
    fn first(&self) -> Position {
        self.first
    }

    fn head(&self) -> Head {
        self.head
    }

    fn token_at(&self, at: Position) -> std::result::Result<Token, JournalError> {
        if at == self.head.position {
            return Ok(self.head.token);
        }
        let find = || {
            let mut query = self.db.prepare_cached("SELECT token FROM entries WHERE position = ?1")?;
            query.query_row([signed(at.0)], |row| unsigned(row, 0)).optional()
        };
        let found = find().map_err(|e: rusqlite::Error| failure::of_read(&e))?;
        found.map(Token).ok_or_else(|| JournalError::Damaged { position: at, reason: "it is missing".into() })
    }

    fn at_or_above(&self, incarnation: Incarnation, counter: u64) -> std::result::Result<Option<Known>, JournalError> {
        let find = || {
            let mut kept = self.db.prepare_cached(BY_COUNTER)?;
            let key = params![signed(incarnation.0), signed(counter)];
            if let Some(known) = kept.query_row(key, known).optional()? {
                // A retired one is older than every kept one, but may be the very entry that is asked for.
                if known.counter == counter {
                    return Ok(Some(known));
                }
                return Ok(Some(self.retired(incarnation, counter)?.unwrap_or(known)));
            }
            self.retired(incarnation, counter)
        };
        find().map_err(|e: rusqlite::Error| failure::of_read(&e))
    }
}

impl Tables<'_> {
    fn retired(&self, incarnation: Incarnation, counter: u64) -> Result<Option<Known>> {
        let mut query = self
            .db
            .prepare_cached("SELECT counter, position, token FROM retired WHERE incarnation = ?1 AND counter >= ?2")?;
        query.query_row(params![signed(incarnation.0), signed(counter)], known).optional()
    }
}

fn known(row: &Row<'_>) -> Result<Known> {
    Ok(Known { counter: unsigned(row, 0)?, position: position(row, 1)?, token: Token(unsigned(row, 2)?) })
}

fn position(row: &Row<'_>, column: usize) -> Result<Position> {
    unsigned(row, column).map(Position)
}

/// SQLite's integers are signed. Incarnations and tokens use all 64 bits and are only compared for equality; positions
/// and counters count from 1 and do not get to 2^63.
fn signed(number: u64) -> i64 {
    number.cast_signed()
}

fn unsigned(row: &Row<'_>, column: usize) -> Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

fn checksum(position: Position, entry: &Proposal) -> u32 {
    let numbers = [position.0, entry.incarnation.0, entry.counter, entry.token.0];
    let crc = numbers.iter().fold(0, |crc, number| crc32c::crc32c_append(crc, &number.to_le_bytes()));
    crc32c::crc32c_append(crc, &entry.payload)
}
