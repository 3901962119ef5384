use async_trait::async_trait;
use rusqlite::{Connection, StatementStatus};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use tempfile::TempDir;

use super::*;
use crate::journal::contract::{self, Harness, entry};
use crate::types::Token;

struct OnDisk(TempDir);

impl OnDisk {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("data").join("journal.db")
    }

    async fn journal(&self) -> Result<SqliteJournal, OpenError> {
        SqliteJournal::open(&self.path()).await
    }

    /// The file as another program sees it; the journal must be closed.
    fn raw(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }
}

#[async_trait]
impl Harness for OnDisk {
    async fn open(&self) -> Arc<dyn Journal> {
        Arc::new(self.journal().await.unwrap())
    }
}

contract::suite!(OnDisk::new());

impl SqliteJournal {
    /// Runs `touch` on the writer's thread, between appends.
    async fn touch(&self, touch: impl FnOnce(&Connection) + Send + 'static) {
        self.send(Job::Touch(Box::new(touch))).await.unwrap();
    }
}

/// Appends `counters` of incarnation 1 after the head, each with `payload`.
async fn fill(journal: &SqliteJournal, counters: std::ops::RangeInclusive<u64>, payload: &[u8]) -> Head {
    let mut head = journal.head().await.unwrap();
    for counter in counters {
        let proposal = entry(1, counter, payload);
        let position = journal.append(proposal.clone(), head).await.unwrap().position;
        head = Head { position, token: proposal.token };
    }
    head
}

#[tokio::test]
async fn a_statement_is_prepared_once_for_many_appends() {
    let place = OnDisk::new();
    let journal = place.journal().await.unwrap();
    fill(&journal, 1..=9, b"payload").await;
    let (prepared_again, seen) = tokio::sync::oneshot::channel();
    let look = |db: &Connection| {
        let statement = db.prepare_cached(table::BY_COUNTER).unwrap();
        let used = statement.get_status(StatementStatus::Run);
        prepared_again.send((used, statement.get_status(StatementStatus::RePrepare))).unwrap();
    };
    journal.touch(look).await;
    assert_eq!(seen.await.unwrap(), (9, 0));
}

#[tokio::test]
async fn the_files_are_for_their_owner_alone() {
    let disk = OnDisk::new();
    let journal = disk.journal().await.unwrap();
    fill(&journal, 1..=3, b"x").await;
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let path = PathBuf::from(format!("{}{suffix}", disk.path().display()));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
}

#[tokio::test]
async fn a_second_process_is_told_who_has_it() {
    let disk = OnDisk::new();
    let first = disk.journal().await.unwrap();
    let refused = disk.journal().await.err().unwrap();
    let holder = format!("process {}", std::process::id());
    assert_eq!(refused, OpenError::InUse { lock: file::lock_path(&disk.path()), holder });
    drop(first);
    disk.journal().await.unwrap();
}

#[tokio::test]
async fn what_is_no_journal_is_left_alone() {
    let disk = OnDisk::new();
    std::fs::create_dir(disk.path().parent().unwrap()).unwrap();
    disk.raw().execute_batch("CREATE TABLE other (x)").unwrap();
    assert_eq!(disk.journal().await.err().unwrap(), OpenError::Foreign { path: disk.path() });
    std::fs::write(disk.path(), vec![b'x'; 10_000]).unwrap();
    let refused = disk.journal().await.err().unwrap();
    assert!(matches!(refused, OpenError::Corrupt { .. }), "{refused}");
    assert_eq!(std::fs::read(disk.path()).unwrap(), vec![b'x'; 10_000]);
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let disk = OnDisk::new();
    drop(disk.journal().await.unwrap());
    disk.raw().pragma_update(None, "user_version", 9).unwrap();
    let refused = disk.journal().await.err().unwrap();
    assert_eq!(refused, OpenError::Newer { path: disk.path(), found: 9, known: table::FORMAT });
}

#[tokio::test]
async fn a_half_made_file_is_made_anew() {
    let disk = OnDisk::new();
    std::fs::create_dir(disk.path().parent().unwrap()).unwrap();
    // As after a crash between the first pragma and the tables.
    disk.raw().pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())).unwrap();
    let journal = disk.journal().await.unwrap();
    assert_eq!(fill(&journal, 1..=1, b"x").await.position, Position(1));
}

#[tokio::test]
async fn a_place_that_can_not_be_written_is_named() {
    let disk = OnDisk::new();
    std::fs::write(disk.0.path().join("data"), b"a file where the directory should be").unwrap();
    let refused = disk.journal().await.err().unwrap().to_string();
    assert!(refused.contains("data"), "{refused}");
}

#[tokio::test]
async fn a_damaged_entry_is_named_and_the_others_are_read() {
    let disk = OnDisk::new();
    let journal = disk.journal().await.unwrap();
    fill(&journal, 1..=5, b"payload").await;
    drop(journal);
    disk.raw().execute("UPDATE entries SET payload = x'00' WHERE position = 3", []).unwrap();
    let journal = disk.journal().await.unwrap();
    let damaged = journal.read(Position(1)).await.unwrap_err();
    assert!(matches!(damaged, JournalError::Damaged { position: Position(3), .. }), "{damaged}");
    assert_eq!(journal.read(Position(4)).await.unwrap().len(), 2);
    drop(journal);
    disk.raw().execute("DELETE FROM entries WHERE position = 2", []).unwrap();
    let journal = disk.journal().await.unwrap();
    let damaged = journal.read(Position(1)).await.unwrap_err();
    assert!(matches!(damaged, JournalError::Damaged { position: Position(2), .. }), "{damaged}");
}

#[tokio::test]
async fn a_damaged_last_entry_refuses_the_start() {
    let disk = OnDisk::new();
    let journal = disk.journal().await.unwrap();
    fill(&journal, 1..=5, b"payload").await;
    drop(journal);
    disk.raw().execute("UPDATE entries SET token = 4 WHERE position = 5", []).unwrap();
    let refused = disk.journal().await.err().unwrap();
    assert!(matches!(refused, OpenError::Corrupt { .. }), "{refused}");
}

#[tokio::test]
async fn a_full_disk_is_not_done_and_passes() {
    let disk = OnDisk::new();
    let journal = disk.journal().await.unwrap();
    let head = fill(&journal, 1..=5, b"x").await;
    journal.touch(|db| db.pragma_update_and_check(None, "max_page_count", 30, |_| Ok(())).unwrap()).await;
    for _ in 0..3 {
        let refused = journal.append(entry(1, 6, &[0; 200_000]), head).await.unwrap_err();
        assert!(matches!(refused, JournalError::NotDone(_)), "{refused}");
    }
    // Who is in a group with it is told no lie, whatever that is, and a retry settles it.
    let big = journal.append(entry(2, 1, &[0; 200_000]), head);
    let small = journal.append(entry(3, 1, b"small"), head);
    let again = journal.append(entry(1, 5, b"x"), head);
    let (big, _, again) = tokio::join!(big, small, again);
    big.unwrap_err();
    assert!(matches!(&again, Ok(Appended { position: Position(5), .. }) | Err(JournalError::Unknown(_))), "{again:?}");
    assert_eq!(journal.append(entry(3, 1, b"small"), head).await.unwrap().position, Position(6));
    journal.touch(|db| db.pragma_update_and_check(None, "max_page_count", 100_000, |_| Ok(())).unwrap()).await;
    assert_eq!(journal.append(entry(1, 6, &[0; 200_000]), head).await.unwrap().position, Position(7));
    drop(journal);
    assert_eq!(disk.journal().await.unwrap().head().await.unwrap().position, Position(7));
}

#[tokio::test]
async fn a_trim_frees_the_rows_and_survives_an_interruption() {
    let disk = OnDisk::new();
    let journal = disk.journal().await.unwrap();
    let head = fill(&journal, 1..=1000, b"x").await;
    journal.trim(Position(900)).await.unwrap();
    // Closed while rows are left, most likely; the next start deletes the rest.
    drop(journal);
    let journal = disk.journal().await.unwrap();
    fill(&journal, 1001..=1010, b"x").await;
    assert_eq!(journal.append(entry(1, 1000, b"x"), head).await.unwrap().position, Position(1000));
    // Deleting goes on between appends; each append allows one piece.
    drop(journal);
    let rows: i64 = disk.raw().query_row("SELECT count(*) FROM entries", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 111);
}

#[tokio::test]
async fn the_log_is_emptied_as_it_grows() {
    let disk = OnDisk::new();
    let journal = disk.journal().await.unwrap();
    let mut head = Head::default();
    for counter in 1..=40 {
        let proposal = entry(1, counter, &vec![7; 1 << 20]);
        let position = journal.append(proposal.clone(), head).await.unwrap().position;
        head = Head { position, token: proposal.token };
    }
    let log = std::fs::metadata(format!("{}-wal", disk.path().display())).unwrap().len();
    assert!(log < 24 << 20, "{log} bytes");
}

#[tokio::test]
async fn older_entries_are_read_while_others_are_appended() {
    let disk = OnDisk::new();
    let journal = Arc::new(disk.journal().await.unwrap());
    fill(&journal, 1..=3000, &[1; 1000]).await;
    let reading = async {
        let mut next = Position(1);
        while next <= Position(3000) {
            let page = journal.read(next).await.unwrap();
            assert_eq!(page[0].position, next);
            next = page.last().unwrap().position.next();
        }
    };
    tokio::join!(reading, fill(&journal, 3001..=3200, b"y"));
}

#[tokio::test]
async fn an_append_whose_caller_left_is_still_whole() {
    let disk = OnDisk::new();
    let journal = disk.journal().await.unwrap();
    let proposal = entry(1, 1, b"x");
    {
        let append = journal.append(proposal.clone(), Head::default());
        let mut append = std::pin::pin!(append);
        assert!(futures::poll!(append.as_mut()).is_pending());
    }
    journal.changed(Position(0)).await;
    assert_eq!(journal.append(proposal.clone(), Head::default()).await.unwrap().position, Position(1));
    assert_eq!(journal.head().await.unwrap(), Head { position: Position(1), token: Token(proposal.token.0) });
}
