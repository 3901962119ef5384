//! kill -9 in the middle of appends and trims: every acknowledged entry is there afterwards. The process that is killed
//! is this test binary, started again with the journal's path in its environment.
use rusqlite::Connection;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

use super::*;
use crate::journal::contract::entry;

const CHILD_PATH: &str = "TEST_CRASH_JOURNAL";

/// More find more; a nightly run sets it.
const ROUNDS: &str = "TEST_CRASH_ROUNDS";

/// Entries of one life are told from those of another by their incarnation.
async fn append_until_killed(path: &Path) {
    let journal = SqliteJournal::open(path).await.unwrap();
    let mut head = journal.head().await.unwrap();
    let incarnation = head.position.0 + 1;
    for counter in 1.. {
        let bytes = usize::try_from(counter * 7919 % 9000).unwrap();
        let proposal = entry(incarnation, counter, &vec![b'p'; bytes]);
        let position = journal.append(proposal.clone(), head).await.unwrap().position;
        head = Head { position, token: proposal.token };
        // One write, so that a line is whole or not there.
        let mut out = std::io::stdout().lock();
        out.write_all(format!("acknowledged {position} {:x}\n", proposal.token.0).as_bytes()).unwrap();
        if counter % 50 == 0 {
            journal.trim(Position(position.0.saturating_sub(300))).await.unwrap();
        }
    }
}

#[tokio::test]
async fn child() {
    if let Some(path) = std::env::var_os(CHILD_PATH) {
        append_until_killed(Path::new(&path)).await;
    }
}

/// Runs a child, kills it after `lines` acknowledgements, and gives the last (position, token) that it has shown.
fn run_and_kill(path: &Path, lines: usize) -> (u64, u64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "journal::sqlite::crash::child", "--nocapture", "--test-threads=1"])
        .env(CHILD_PATH, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = 0;
    let mut last = None;
    for line in BufReader::new(child.stdout.take().unwrap()).split(b'\n') {
        let line = String::from_utf8_lossy(&line.unwrap()).into_owned();
        let Some((_, acknowledged)) = line.split_once("acknowledged ") else { continue };
        let (position, token) = acknowledged.split_once(' ').unwrap();
        last = Some((position.parse().unwrap(), u64::from_str_radix(token, 16).unwrap()));
        seen += 1;
        if seen == lines {
            // What it writes until the signal arrives is read too.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    last.expect("the child should have appended")
}

#[tokio::test]
async fn every_acknowledged_entry_survives_kill_9() {
    let rounds = std::env::var(ROUNDS).map_or(20, |rounds| rounds.parse().unwrap());
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("journal.db");
    let mut end = 0;
    for round in 0..rounds {
        let (acknowledged, token) = run_and_kill(&path, 1 + round * 37 % 250);
        assert!(acknowledged > end, "round {round}: position {acknowledged} was given before");
        let journal = SqliteJournal::open(&path).await.unwrap();
        let head = journal.head().await.unwrap().position.0;
        assert!(head == acknowledged || head == acknowledged + 1, "round {round}: {acknowledged} but head {head}");
        let mut next = match journal.read(Position(1)).await {
            Err(JournalError::Trimmed { first }) => first,
            _ => Position(1),
        };
        assert!(next.0 + 300 <= acknowledged.max(301), "round {round}: trimmed up to {next}");
        while next.0 <= head {
            for stored in journal.read(next).await.unwrap() {
                assert_eq!(stored.position, next, "round {round}");
                if next.0 == acknowledged {
                    assert_eq!(stored.proposal.token.0, token, "round {round}");
                }
                next = next.next();
            }
        }
        end = head;
        drop(journal);
        let check: String =
            Connection::open(&path).unwrap().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok", "round {round}");
    }
}
