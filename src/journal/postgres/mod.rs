//! The journal in PostgreSQL, or in what speaks its protocol: one function call per append, which locks the head's row until
//! its commit ends. It promises that an append answered with a position was committed by a server with safe settings and,
//! where one is named, its synchronous standby; that a lost answer is `Unknown`, and the same bytes sent again find out;
//! and that a server that lacks what was there before is noticed on every new connection (H2). It keeps no state outside of
//! the database. Appends, heads, reads and the tail have a connection each, so that none waits behind another's.
//! Tests: `tests/` (the contract suite and what is PostgreSQL's own, on servers that they start), run by
//! `integration-tests/test_journals.py`.
mod address;
mod checks;
mod connect;
mod failure;
mod news;
mod schema;
mod session;
mod slot;
mod sweep;
mod tail;
mod tls;

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

use super::rules::{self, Verdict};
use super::{Appended, Journal, JournalError, PAYLOAD_BYTES_MAX, Proposal, Stored, Witnesses, went_on};
use crate::config::{Config, PostgresDurability};
use crate::telemetry::Metrics;
use crate::types::{Head, Position};
use crate::world::{JoinHandle, World};
use connect::{Connector, Unconnected, Unfit};
use failure::Failure;
use session::Session;
use slot::Slot;

/// How long a server that has just committed is believed to be the one that others write to (H10). Shorter than any
/// fail-over takes, and long enough that reads do not write each time.
const LEASE: Duration = Duration::from_secs(1);

/// Where the journal is, and what is asked of it.
#[derive(Clone)]
pub struct PostgresSettings {
    /// `postgres://user@host1,host2/database?sslmode=…`
    pub url: String,
    /// Replaces the URL's.
    pub password: Option<String>,
    /// Holds the journal; lower-case letters, digits and `_`.
    pub schema: String,
    /// PEM; the URL's, or the system's, if there is none.
    pub root_certificates: Option<PathBuf>,
    pub durability: PostgresDurability,
    /// For one host, with all that is looked at before it is used.
    pub connect_timeout: Duration,
    /// Between looks at the journal's end; chosen by what the server can do if there is none.
    pub poll_interval: Option<Duration>,
    /// Between attempts to connect, at most.
    pub pause_max: Duration,
}

/// Parts of the fencing time that pass between two attempts to connect, at most: after an outage nobody is to be missed who
/// has only waited for its next attempt (H12).
const PAUSES_MIN: u32 = 8;
/// Where the fencing time is long.
const PAUSE_MAX: Duration = Duration::from_secs(2);

impl From<&Config> for PostgresSettings {
    fn from(config: &Config) -> Self {
        let journal = &config.journal;
        Self {
            url: journal.postgres_url.as_ref().map_or(String::new(), |url| url.expose().to_owned()),
            password: journal.postgres_password.as_ref().map(|password| password.expose().to_owned()),
            schema: journal.postgres_schema.clone(),
            root_certificates: journal.postgres_root_certificates.clone(),
            durability: journal.postgres_durability,
            connect_timeout: Duration::from_millis(journal.postgres_connect_timeout_ms),
            poll_interval: journal.postgres_poll_interval_ms.map(Duration::from_millis),
            pause_max: PAUSE_MAX.min(Duration::from_millis(config.fencing_timeout_ms()) / PAUSES_MIN),
        }
    }
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL and the password are secrets.
        f.debug_struct("PostgresSettings").field("schema", &self.schema).field("durability", &self.durability).finish()
    }
}

/// A setting with which a server may lose what it has committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "its setting {setting} {what}; {remedy}, or set journal.postgres_durability if this engine's storage is another"
)]
pub struct UnsafeServer {
    pub setting: &'static str,
    pub what: &'static str,
    pub remedy: &'static str,
}

/// Why the journal could not be opened. Nothing was changed in an existing one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("journal.postgres_url: {reason}; right is postgres://user@host:5432/database")]
    Url { reason: String },
    #[error(
        "journal.postgres_root_certificates: {} can't be used: {reason}; name a PEM file with the certificates that the \
         server's is signed by",
        path.display()
    )]
    RootCertificates { path: PathBuf, reason: String },
    #[error("journal.postgres_url: TLS can't be used: {reason}")]
    Tls { reason: String },
    #[error(
        "journal.postgres_url: no server that takes writes can be used ({reason}); check host, user, database and \
         journal.postgres_password, and that one of the hosts is a primary"
    )]
    Unreachable { reason: String },
    #[error("journal.postgres_durability: the server {host} is not safe: {found}")]
    Unsafe { host: String, found: UnsafeServer },
    #[error(
        "journal.postgres_schema: {schema} can't be made or used: {reason}; an administrator can make it: CREATE SCHEMA \
         {schema} AUTHORIZATION the user of journal.postgres_url"
    )]
    Privileges { schema: String, reason: String },
    #[error(
        "journal.postgres_schema: the tables in {schema} can't be made: {reason}; choose a schema of the journal's own"
    )]
    Schema { schema: String, reason: String },
    #[error(
        "journal.postgres_schema: {schema} has format {found}, and this version knows {known}: start the version that \
         wrote it"
    )]
    Newer { schema: String, found: i32, known: i32 },
    #[error("the journal in schema {schema} is damaged ({reason}); restore the database from a backup")]
    Corrupt { schema: String, reason: String },
}

/// An open journal. Dropping it cuts its connections.
pub struct PostgresJournal {
    connector: Arc<Connector>,
    appends: Slot,
    heads: Slot,
    reads: Slot,
    trimmed: Arc<Notify>,
    tasks: [JoinHandle<()>; 2],
}

impl PostgresJournal {
    /// Opens the journal, or makes an empty one. A server that takes another one's place later is held against
    /// `witnesses` before anything is taken from it.
    ///
    /// # Errors
    /// See [`OpenError`]; each says what to do.
    pub async fn open(
        settings: PostgresSettings,
        world: World,
        metrics: Arc<Metrics>,
        witnesses: Arc<dyn Witnesses>,
    ) -> Result<Self, OpenError> {
        let connector = Arc::new(Connector::new(settings, world.clone(), metrics, witnesses)?);
        let mut session = connector.connect().await?;
        schema::migrate(&session.client, session.engine, &connector.settings.schema, &world).await?;
        check_last(&mut session, &connector.settings.schema).await?;
        drop(session);
        let trimmed = Arc::new(Notify::new());
        let tasks = [
            world.spawn("postgres tail", tail::run(connector.clone())),
            world.spawn("postgres sweep", sweep::run(connector.clone(), trimmed.clone())),
        ];
        let slot = || Slot::new(connector.clone());
        let (appends, heads, reads) = (slot(), slot(), slot());
        Ok(Self { connector, appends, heads, reads, trimmed, tasks })
    }
}

impl Drop for PostgresJournal {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The last entry must be whole, and the one that the head's row names.
async fn check_last(session: &mut Session, schema: &str) -> Result<(), OpenError> {
    let corrupt = |reason: String| OpenError::Corrupt { schema: schema.to_owned(), reason };
    let of_call = |failure: Failure| match failure {
        Failure::Journal(error) => corrupt(error.to_string()),
        Failure::NotSent(reason) | Failure::Undone(reason) | Failure::Open(reason) => OpenError::Unreachable { reason },
        Failure::Forked { reason, .. } => corrupt(reason),
    };
    let head = session.head().await.map_err(of_call)?;
    if head == Head::default() {
        return Ok(());
    }
    // Others may append meanwhile, so it is the first of a page.
    let page = session.read(head.position).await.map_err(of_call)?;
    match page.first() {
        Some(last) if last.proposal.token == head.token => Ok(()),
        _ => Err(corrupt(format!("the last entry is not the one that the head at position {} names", head.position))),
    }
}

#[async_trait]
impl Journal for PostgresJournal {
    async fn append(&self, proposal: Proposal, after: Head) -> Result<Appended, JournalError> {
        if proposal.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(JournalError::TooLarge { bytes: proposal.payload.len() });
        }
        let done = self.appends.with(async |session| session.append(&proposal, after).await).await?;
        let appended = match (done.added, rules::judge(&done.facts, &proposal, after)) {
            (Some(position), Ok(Verdict::New)) => Appended { position, missed: done.missed },
            (None, Ok(Verdict::Known(position))) => Appended { position, missed: Vec::new() },
            (None, Err(refused)) => return Err(refused),
            (added, judged) => {
                let reason = format!("the append function says {added:?} where {judged:?} is right");
                return Err(JournalError::Damaged { position: after.position.next(), reason });
            }
        };
        self.connector.rely_on(Head { position: appended.position, token: proposal.token });
        self.connector.news.saw(appended.position);
        Ok(appended)
    }

    async fn read(&self, from: Position) -> Result<Vec<Stored>, JournalError> {
        let from = from.max(Position(1));
        let page = self.reads.with(async |session| session.read(from).await).await.map_err(of_read)?;
        if let Some(last) = page.last() {
            self.connector.rely_on(Head { position: last.position, token: last.proposal.token });
        }
        Ok(page)
    }

    async fn head(&self) -> Result<Head, JournalError> {
        let world = &self.connector.world;
        let ask = async |session: &mut Session| {
            let leased = |begun| world.now().saturating_duration_since(begun) < LEASE;
            if session.confirmed.is_some_and(leased) {
                return session.head().await;
            }
            let begun = world.now();
            let head = session.confirmed_head().await?;
            session.confirmed = Some(begun);
            Ok(head)
        };
        self.heads.with(ask).await.map_err(of_read)
    }

    async fn changed(&self, beyond: Position) {
        self.connector.news.beyond(beyond).await;
    }

    async fn trim(&self, below: Position) -> Result<(), JournalError> {
        self.reads.with(async |session| session.trim(below).await).await?;
        self.trimmed.notify_one();
        Ok(())
    }

    async fn restart(&self, only: Stored, expected: Head) -> Result<(), JournalError> {
        let found = self.appends.with(async |session| session.restart(&only, expected).await).await?;
        if found != expected {
            return Err(went_on(found));
        }
        self.connector.rely_on(Head { position: only.position, token: only.proposal.token });
        self.connector.news.saw(only.position);
        Ok(())
    }
}

/// A read that failed says nothing of what was looked for.
fn of_read(failure: Failure) -> JournalError {
    match failure {
        Failure::NotSent(reason) | Failure::Undone(reason) => JournalError::Unknown(reason),
        other => other.into(),
    }
}

impl From<Unconnected> for OpenError {
    fn from(unconnected: Unconnected) -> Self {
        for (host, unfit) in &unconnected.0 {
            if let Unfit::Unsafe(found) = unfit {
                return Self::Unsafe { host: host.clone(), found: found.clone() };
            }
        }
        Self::Unreachable { reason: unconnected.text() }
    }
}
