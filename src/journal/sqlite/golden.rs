//! What format 1 wrote stays readable for ever, and today's code still writes exactly that.
//! `tests/golden/v1/journal-sqlite.sql` is a whole journal as SQL, and is never changed; a new format gets a file of
//! its own beside it.
use rusqlite::Connection;
use rusqlite::types::Value;
use std::path::Path;
use tempfile::TempDir;

use super::*;
use crate::journal::contract::entry;
use crate::types::Incarnation;

const GOLDEN: &str = include_str!("../../../tests/golden/v1/journal-sqlite.sql");

/// Three entries of two incarnations, of which the first was trimmed.
fn proposals() -> [Proposal; 3] {
    let largest = Proposal { incarnation: Incarnation(u64::MAX), ..entry(7, 1, b"") };
    [entry(1, 1, b"trimmed"), entry(1, 2, b"kept"), largest]
}

async fn write(path: &Path) {
    let journal = SqliteJournal::open(path).await.unwrap();
    let mut head = Head::default();
    for proposal in proposals() {
        let position = journal.append(proposal.clone(), head).await.unwrap().position;
        head = Head { position, token: proposal.token };
        // Rows that were trimmed are deleted between appends.
        journal.trim(Position(2)).await.unwrap();
    }
}

#[tokio::test]
async fn today_s_journal_is_the_one_of_format_1() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("journal.db");
    write(&path).await;
    let dumped = dump(&Connection::open(&path).unwrap());
    assert!(dumped == GOLDEN, "today's tables differ from the golden file:\n{dumped}");
}

#[tokio::test]
async fn a_journal_of_format_1_is_read_and_goes_on() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("journal.db");
    Connection::open(&path).unwrap().execute_batch(GOLDEN).unwrap();
    let journal = SqliteJournal::open(&path).await.unwrap();
    let [trimmed, kept, last] = proposals();
    let head = Head { position: Position(3), token: last.token };
    assert_eq!(journal.read(Position(1)).await, Err(JournalError::Trimmed { first: Position(2) }));
    let whole = [(2, kept), (3, last)].map(|(at, proposal)| Stored { position: Position(at), proposal });
    assert_eq!(journal.read(Position(2)).await.unwrap(), whole);
    assert_eq!(journal.append(trimmed, head).await.unwrap().position, Position(1), "a retry is recognised");
    assert_eq!(journal.append(entry(1, 3, b"next"), head).await.unwrap().position, Position(4));
}

/// The database as SQL; comments and white space of its definitions are no part of the format.
fn dump(db: &Connection) -> String {
    let number = |pragma| db.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).unwrap();
    let mut sql = String::new();
    for pragma in ["application_id", "user_version"] {
        sql += &format!("PRAGMA {pragma} = {};\n", number(pragma));
    }
    let definitions = rows(db, "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid");
    for definition in definitions {
        let Value::Text(text) = &definition[0] else { panic!("{definition:?}") };
        let words: Vec<_> = text.lines().flat_map(|l| l.split("--").next().unwrap().split_whitespace()).collect();
        sql += &format!("{};\n", words.join(" "));
    }
    for table in ["journal", "entries", "retired"] {
        for row in rows(db, &format!("SELECT * FROM {table} ORDER BY 1")) {
            let values: Vec<_> = row.iter().map(literal).collect();
            sql += &format!("INSERT INTO {table} VALUES ({});\n", values.join(", "));
        }
    }
    sql
}

fn rows(db: &Connection, query: &str) -> Vec<Vec<Value>> {
    let mut query = db.prepare(query).unwrap();
    let columns = query.column_count();
    let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
    query.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
}

fn literal(value: &Value) -> String {
    match value {
        Value::Integer(number) => number.to_string(),
        Value::Blob(bytes) => format!("x'{}'", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()),
        other => panic!("the format has no {other:?}"),
    }
}
