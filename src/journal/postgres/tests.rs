//! On real servers, which the tests start: ignored where none is installed, run by `integration-tests/test_journals.py`.
mod failover;
mod loss;
mod proxy;
mod server;
mod speed;
mod start;

use async_trait::async_trait;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::journal::contract::{self, Harness, entry};
use crate::journal::{Deadlined, WitnessError};
use crate::types::TimestampMs;
use server::Server;

fn settings(url: String, schema: &str) -> PostgresSettings {
    PostgresSettings {
        url,
        password: None,
        schema: schema.to_owned(),
        root_certificates: None,
        durability: PostgresDurability::Disk,
        connect_timeout: Duration::from_secs(5),
        poll_interval: None,
        pause_max: PAUSE_MAX,
    }
}

/// What was seen elsewhere.
#[derive(Default)]
struct Seen(Vec<Head>);

#[async_trait]
impl Witnesses for Seen {
    async fn since(&self, position: Position) -> Result<Vec<Head>, WitnessError> {
        Ok(self.0.iter().copied().filter(|head| head.position >= position).collect())
    }
}

async fn open(settings: PostgresSettings) -> Result<PostgresJournal, OpenError> {
    open_beside(settings, Seen::default()).await
}

async fn open_beside(settings: PostgresSettings, seen: Seen) -> Result<PostgresJournal, OpenError> {
    let metrics = Arc::new(Metrics::new(TimestampMs(0)));
    PostgresJournal::open(settings, World::real().unwrap(), metrics, Arc::new(seen)).await
}

/// A handle as a broker has it: each call has a time limit.
async fn deadlined(url: String, deadline: Duration) -> Arc<dyn Journal> {
    let journal = Arc::new(open(settings(url, "strandline")).await.unwrap());
    Arc::new(Deadlined::new(journal, World::real().unwrap(), deadline))
}

/// Sends the same bytes until the journal says what became of them, as a broker does.
async fn append_until_known(journal: &Arc<dyn Journal>, proposal: &Proposal, after: Head) -> Appended {
    let world = World::real().unwrap();
    loop {
        match journal.append(proposal.clone(), after).await {
            Ok(appended) => return appended,
            Err(JournalError::Unknown(_) | JournalError::NotDone(_)) => world.sleep(Duration::from_millis(20)).await,
            Err(fatal) => panic!("{fatal}"),
        }
    }
}

fn head_of(appended: &Appended, proposal: &Proposal) -> Head {
    Head { position: appended.position, token: proposal.token }
}

/// Everything in the journal; its positions have no gap.
async fn everything(journal: &Arc<dyn Journal>) -> Vec<Stored> {
    let mut all: Vec<Stored> = Vec::new();
    loop {
        match journal.read(Position(all.len() as u64 + 1)).await {
            Ok(page) if page.is_empty() => return all,
            Ok(page) => all.extend(page),
            Err(JournalError::Unknown(_)) => {}
            Err(fatal) => panic!("{fatal}"),
        }
    }
}

/// A schema of one server for each case.
struct OnServer<'a> {
    server: &'a Server,
    schema: String,
}

#[async_trait]
impl Harness for OnServer<'_> {
    async fn open(&self) -> Arc<dyn Journal> {
        Arc::new(open(settings(self.server.url(), &self.schema)).await.unwrap())
    }
    async fn another(&self, _: &Arc<dyn Journal>) -> Arc<dyn Journal> {
        self.open().await
    }
}

#[tokio::test]
#[ignore = "starts a PostgreSQL server"]
async fn contract() {
    let server = Server::new().await;
    let count = AtomicU64::new(0);
    let fresh = || {
        let schema = format!("case{}", count.fetch_add(1, Ordering::Relaxed));
        OnServer { server: &server, schema }
    };
    contract::suite!(run fresh());
}
