//! One connection that was found fit: what can be asked of it, and what it says by itself. A call that is given up drops
//! its session with it, so that no later call waits behind a hung one.
use bytes::Bytes;
use futures::future::poll_fn;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_postgres::tls::TlsStream;
use tokio_postgres::{AsyncMessage, Client, Connection, Row, Socket, Statement};

use super::checks::Engine;
use super::failure::{Failure, is_unreplicated_commit};
use super::news::News;
use crate::journal::rules::{Known, Lookup};
use crate::journal::{ENTRY_OVERHEAD_BYTES, JournalError, PAGE_BYTES_MAX, Proposal, Stored};
use crate::types::{Head, Incarnation, Position, Token};
use crate::world::{Instant, JoinHandle, World};

const APPEND: &str = "SELECT * FROM append_1($1, $2, $3, $4, $5, $6, $7)";
const HEAD: &str = "SELECT position, token FROM journal WHERE id = 1";
/// A write that changes nothing that anybody reads.
const CONFIRM: &str = "UPDATE journal SET confirmed = confirmed + 1 WHERE id = 1 RETURNING position, token";
const TOKEN_AT: &str =
    "SELECT first, position, (SELECT e.token FROM entries e WHERE e.position = $1) FROM journal WHERE id = 1";
/// One statement, so that the boundary and the entries are of one moment. The inner select looks at sizes alone.
const READ: &str = "SELECT j.first, j.position, e.position, e.incarnation, e.counter, e.token, e.checksum, e.payload
    FROM journal j LEFT JOIN entries e ON e.position >= $1 AND e.position >= j.first AND e.position <= (
        SELECT max(s.position) FROM (
            SELECT z.position, sum(z.bytes) OVER (ORDER BY z.position) AS bytes FROM (
                SELECT n.position, octet_length(n.payload) + $2::INT8 AS bytes FROM entries n
                WHERE n.position >= $1 ORDER BY n.position LIMIT $3
            ) z
        ) s WHERE s.bytes <= $4::INT8 OR s.position = $1
    )
    WHERE j.id = 1 ORDER BY e.position";
const TRIM: &str = "UPDATE journal SET first = LEAST($1, position) WHERE id = 1 AND first < LEAST($1, position)";
/// Deletes entries below the boundary, and keeps the newest of each incarnation among them. Two brokers may do it at once.
const SWEEP: &str = "WITH gone AS (
        DELETE FROM entries WHERE position IN (
            SELECT e.position FROM entries e WHERE e.position < (SELECT j.first FROM journal j WHERE j.id = 1)
            ORDER BY e.position LIMIT $1
        ) RETURNING incarnation, counter, position, token
    ), kept AS (
        INSERT INTO retired (incarnation, counter, position, token)
        SELECT g.incarnation, g.counter, g.position, g.token FROM gone g
        WHERE NOT EXISTS (SELECT 1 FROM gone h WHERE h.incarnation = g.incarnation AND h.counter > g.counter)
        ON CONFLICT (incarnation) DO UPDATE SET
            counter = excluded.counter, position = excluded.position, token = excluded.token
            WHERE retired.counter < excluded.counter
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM kept)";

const LOCKED_HEAD: &str = "SELECT position, token FROM journal WHERE id = 1 FOR UPDATE";
/// In one transaction, in place of everything: the one entry.
const ONLY_ENTRY: &str =
    "INSERT INTO entries (position, incarnation, counter, token, checksum, payload) VALUES ($1, $2, $3, $4, $5, $6)";
const ONLY_HEAD: &str = "UPDATE journal SET first = $1, position = $1, token = $2 WHERE id = 1";

/// Rows that one read looks at; of entries that are small and many, a page holds no more than this.
const PAGE_ROWS_MAX: i64 = 8192;

/// A fit connection. Dropping it cuts the connection.
pub(super) struct Session {
    pub client: Client,
    /// Which of the server's lives it belongs to; see [`News`].
    pub generation: u64,
    pub engine: Engine,
    /// When the last commit that proved it to be the primary began.
    pub confirmed: Option<Instant>,
    driver: JoinHandle<()>,
    /// The server said that it did not wait for its standby.
    doubt: Arc<AtomicBool>,
    statements: BTreeMap<&'static str, Statement>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What an append found and did.
pub(super) struct Append {
    pub facts: Facts,
    pub added: Option<Position>,
    pub missed: Vec<Stored>,
}

/// What the rules ask, as it was when the head's row was locked.
pub(super) struct Facts {
    first: Position,
    head: Head,
    after_token: Option<Token>,
    known: Option<Known>,
}

impl Lookup for Facts {
    fn first(&self) -> Position {
        self.first
    }

    fn head(&self) -> Head {
        self.head
    }

    fn token_at(&self, position: Position) -> Result<Token, JournalError> {
        self.after_token.ok_or_else(|| JournalError::Damaged { position, reason: "it is missing".into() })
    }

    fn at_or_above(&self, _: Incarnation, _: u64) -> Result<Option<Known>, JournalError> {
        Ok(self.known)
    }
}

/// Whether the journal has an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Presence {
    pub first: Position,
    pub end: Position,
    pub token: Option<Token>,
}

impl Session {
    /// Starts to serve the connection; what it says of `channel` goes to `news`.
    pub(super) fn start<T>(
        client: Client,
        connection: Connection<Socket, T>,
        world: &World,
        news: Arc<News>,
        channel: String,
    ) -> Self
    where
        T: TlsStream + Unpin + Send + 'static,
    {
        let doubt = Arc::new(AtomicBool::new(false));
        let driver = world.spawn("postgres connection", drive(connection, news.clone(), channel, doubt.clone()));
        Self {
            client,
            generation: news.generation(),
            engine: Engine::Postgres,
            confirmed: None,
            driver,
            doubt,
            statements: BTreeMap::new(),
        }
    }

    /// Whether it may be used for another call.
    pub(super) fn is_fit(&self, news: &News) -> bool {
        !self.client.is_closed() && self.generation == news.generation()
    }

    pub(super) async fn append(&mut self, proposal: &Proposal, after: Head) -> Result<Append, Failure> {
        let append = self.statement(APPEND).await?;
        let row = self
            .client
            .query_one(
                &append,
                &[
                    &signed(proposal.incarnation.0),
                    &signed(proposal.counter),
                    &signed(proposal.token.0),
                    &i64::from(checksum(proposal)),
                    &&proposal.payload[..],
                    &signed(after.position.0),
                    &signed(after.token.0),
                ],
            )
            .await?;
        // The answer is complete only when the server has committed and is ready for the next query.
        self.no_doubt()?;
        Ok(Append { facts: facts(&row)?, added: optional(&row, 7)?.map(Position), missed: missed(&row)? })
    }

    /// The last entry as this server sees it.
    pub(super) async fn head(&mut self) -> Result<Head, Failure> {
        let head = self.statement(HEAD).await?;
        head_of(&self.client.query_one(&head, &[]).await?)
    }

    /// The last entry, after a commit of this server, its standby's included, has shown that it may still write.
    pub(super) async fn confirmed_head(&mut self) -> Result<Head, Failure> {
        let confirm = self.statement(CONFIRM).await?;
        let row = self.client.query_one(&confirm, &[]).await?;
        self.no_doubt()?;
        head_of(&row)
    }

    pub(super) async fn token_at(&mut self, position: Position) -> Result<Presence, Failure> {
        let find = self.statement(TOKEN_AT).await?;
        let row = self.client.query_one(&find, &[&signed(position.0)]).await?;
        Ok(Presence {
            first: Position(number(&row, 0)?),
            end: Position(number(&row, 1)?),
            token: optional(&row, 2)?.map(Token),
        })
    }

    /// The entries from `from` on that fit a page.
    pub(super) async fn read(&mut self, from: Position) -> Result<Vec<Stored>, Failure> {
        let read = self.statement(READ).await?;
        let overhead = i64::try_from(ENTRY_OVERHEAD_BYTES).unwrap_or(i64::MAX);
        let bytes = i64::try_from(PAGE_BYTES_MAX).unwrap_or(i64::MAX);
        let rows = self.client.query(&read, &[&signed(from.0), &overhead, &PAGE_ROWS_MAX, &bytes]).await?;
        let Some(journal) = rows.first() else {
            let reason = "the row of the head is missing".to_owned();
            return Err(Failure::Journal(JournalError::Damaged { position: from, reason }));
        };
        let (first, end) = (Position(number(journal, 0)?), Position(number(journal, 1)?));
        if from < first {
            return Err(Failure::Journal(JournalError::Trimmed { first }));
        }
        let mut entries = Vec::with_capacity(rows.len());
        let mut expected = from;
        for row in rows.iter().filter(|_| from <= end) {
            let Some(position) = optional(row, 2)?.map(Position) else { break };
            if position != expected {
                return Err(damaged(expected, format!("{position} stands in its place")));
            }
            let payload: &[u8] = row.try_get(7)?;
            let proposal = Proposal {
                incarnation: Incarnation(number(row, 3)?),
                counter: number(row, 4)?,
                token: Token(number(row, 5)?),
                payload: Bytes::copy_from_slice(payload),
            };
            entries.push(checked(position, proposal, number(row, 6)?)?);
            expected = position.next();
        }
        if entries.is_empty() && from <= end {
            return Err(damaged(from, "it is missing".to_owned()));
        }
        Ok(entries)
    }

    pub(super) async fn trim(&mut self, below: Position) -> Result<(), Failure> {
        let trim = self.statement(TRIM).await?;
        let below = i64::try_from(below.0).unwrap_or(i64::MAX);
        self.client.execute(&trim, &[&below]).await?;
        self.no_doubt()
    }

    /// Puts one entry in the place of all if the last one is `expected`; gives the last one. An error leaves a transaction
    /// that ends with the connection.
    pub(super) async fn restart(&mut self, only: &Stored, expected: Head) -> Result<Head, Failure> {
        let Stored { position, proposal } = only;
        let transaction = self.client.transaction().await?;
        let found = head_of(&transaction.query_one(LOCKED_HEAD, &[]).await?)?;
        if found != expected {
            transaction.rollback().await?;
            return Ok(found);
        }
        transaction.batch_execute("DELETE FROM entries; DELETE FROM retired").await?;
        let (at, token) = (signed(position.0), signed(proposal.token.0));
        let (incarnation, counter) = (signed(proposal.incarnation.0), signed(proposal.counter));
        let sum = i64::from(checksum(proposal));
        transaction.execute(ONLY_ENTRY, &[&at, &incarnation, &counter, &token, &sum, &&proposal.payload[..]]).await?;
        transaction.execute(ONLY_HEAD, &[&at, &token]).await?;
        transaction.commit().await?;
        self.no_doubt()?;
        Ok(found)
    }

    /// Deletes up to `rows` entries below the boundary; how many they were.
    pub(super) async fn sweep(&mut self, rows: i64) -> Result<u64, Failure> {
        let sweep = self.statement(SWEEP).await?;
        number(&self.client.query_one(&sweep, &[&rows]).await?, 0)
    }

    /// True if the server will tell of appends.
    pub(super) async fn listen(&mut self, channel: &str) -> bool {
        self.client.batch_execute(&format!("LISTEN {channel}")).await.is_ok()
    }

    async fn statement(&mut self, sql: &'static str) -> Result<Statement, Failure> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }

    fn no_doubt(&self) -> Result<(), Failure> {
        if self.doubt.swap(false, Ordering::AcqRel) {
            return Err(Failure::Open("the server committed without waiting for its standby".to_owned()));
        }
        Ok(())
    }
}

/// Serves a connection until it ends. A notice is seen before the answer that it came with.
async fn drive<T>(mut connection: Connection<Socket, T>, news: Arc<News>, channel: String, doubt: Arc<AtomicBool>)
where
    T: TlsStream + Unpin,
{
    while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
        match message {
            AsyncMessage::Notification(told) if told.channel() == channel => {
                if let Ok(position) = told.payload().parse() {
                    news.saw(Position(position));
                }
            }
            AsyncMessage::Notice(notice) if is_unreplicated_commit(&notice) => doubt.store(true, Ordering::Release),
            _ => {}
        }
    }
}

fn facts(row: &Row) -> Result<Facts, Failure> {
    let known = match optional(row, 4)? {
        Some(counter) => Some(Known { counter, position: Position(number(row, 5)?), token: Token(number(row, 6)?) }),
        None => None,
    };
    Ok(Facts {
        first: Position(number(row, 0)?),
        head: Head { position: Position(number(row, 1)?), token: Token(number(row, 2)?) },
        after_token: optional(row, 3)?.map(Token),
        known,
    })
}

fn missed(row: &Row) -> Result<Vec<Stored>, Failure> {
    let Some(positions) = row.try_get::<_, Option<Vec<i64>>>(8)? else { return Ok(Vec::new()) };
    let column = |column: usize| row.try_get::<_, Vec<i64>>(column);
    let (incarnations, counters, tokens, checksums) = (column(9)?, column(10)?, column(11)?, column(12)?);
    let payloads: Vec<&[u8]> = row.try_get(13)?;
    let numbers = incarnations.into_iter().zip(counters).zip(tokens).zip(checksums);
    let rows = positions.into_iter().zip(numbers).zip(payloads);
    rows.map(|((position, (((incarnation, counter), token), sum)), payload)| {
        let proposal = Proposal {
            incarnation: Incarnation(incarnation.cast_unsigned()),
            counter: counter.cast_unsigned(),
            token: Token(token.cast_unsigned()),
            payload: Bytes::copy_from_slice(payload),
        };
        checked(Position(position.cast_unsigned()), proposal, sum.cast_unsigned())
    })
    .collect()
}

fn head_of(row: &Row) -> Result<Head, Failure> {
    Ok(Head { position: Position(number(row, 0)?), token: Token(number(row, 1)?) })
}

fn checked(position: Position, proposal: Proposal, stored: u64) -> Result<Stored, Failure> {
    let actual = checksum(&proposal);
    if stored != u64::from(actual) {
        return Err(damaged(position, format!("its checksum is {actual:08x} and should be {stored:08x}")));
    }
    Ok(Stored { position, proposal })
}

fn damaged(position: Position, reason: String) -> Failure {
    Failure::Journal(JournalError::Damaged { position, reason })
}

/// PostgreSQL's integers are signed. Incarnations and tokens use all 64 bits and are only compared for equality; positions
/// and counters count from 1 and do not get to 2^63.
fn signed(number: u64) -> i64 {
    number.cast_signed()
}

fn number(row: &Row, column: usize) -> Result<u64, Failure> {
    Ok(row.try_get::<_, i64>(column)?.cast_unsigned())
}

fn optional(row: &Row, column: usize) -> Result<Option<u64>, Failure> {
    Ok(row.try_get::<_, Option<i64>>(column)?.map(i64::cast_unsigned))
}

/// Of all but the position, which the server gives.
fn checksum(entry: &Proposal) -> u32 {
    let numbers = [entry.incarnation.0, entry.counter, entry.token.0];
    let crc = numbers.iter().fold(0, |crc, number| crc32c::crc32c_append(crc, &number.to_le_bytes()));
    crc32c::crc32c_append(crc, &entry.payload)
}
