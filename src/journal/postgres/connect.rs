//! From several hosts to one session with the one that may be written to, whose settings are safe, and which has what was
//! appended before. It promises that a session is never of a server with an older history than another one's, and that
//! attempts are spaced.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::{error, info, warn};

use super::address::{self, Target, with_cause};
use super::checks::{self, Engine, Found, ServerSettings};
use super::failure::Failure;
use super::news::News;
use super::session::Session;
use super::{OpenError, PostgresSettings, UnsafeServer, schema, tls};
use crate::journal::{WitnessError, Witnesses};
use crate::telemetry::Metrics;
use crate::types::{Head, Position};
use crate::world::{Instant, World};

/// Between attempts at all hosts: the first wait, doubled with each failure up to [`PostgresSettings::pause_max`]; a random
/// half of it is left out, so that brokers do not come back all at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Entries that other brokers have seen, of which a server has to have each: the last ones.
const COMPARED_MAX: usize = 16;

pub(super) struct Connector {
    hosts: Vec<Target>,
    tls: MakeRustlsConnect,
    pub settings: PostgresSettings,
    pub world: World,
    pub metrics: Arc<Metrics>,
    pub news: Arc<News>,
    witnesses: Arc<dyn Witnesses>,
    /// A mutex and not an owner task: nothing blocks while it is held, and connecting is anybody's.
    known: Mutex<Known>,
}

/// What earlier connections have shown.
#[derive(Default)]
struct Known {
    /// The host that answered last.
    host: usize,
    failures: u32,
    not_before: Option<Instant>,
    server: Option<Server>,
    /// The last entry that this process has appended or read: a server that lacks it has another history.
    witness: Head,
    /// The host that people were told of last, and whether it was unreplicated.
    told: Option<(String, bool)>,
}

/// One history of one database: after a fail-over the timeline is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    system: String,
    timeline: u32,
}

/// Why one host could not be used.
pub(super) enum Unfit {
    Unreachable(String),
    Unsafe(UnsafeServer),
    Forked { after: Head, reason: String },
}

/// No host could be used; each with its reason.
pub(super) struct Unconnected(pub Vec<(String, Unfit)>);

impl Connector {
    pub(super) fn new(
        settings: PostgresSettings,
        world: World,
        metrics: Arc<Metrics>,
        witnesses: Arc<dyn Witnesses>,
    ) -> Result<Self, OpenError> {
        let address = address::parse(&settings.url, settings.password.as_deref(), settings.root_certificates.clone())?;
        let tls = tls::connector(address.verify, address.root_certificates.as_deref())?;
        for host in address.hosts.iter().filter(|host| host.is_remote && address.verify == address::Verify::Nothing) {
            warn!(
                host = host.name,
                "the journal's server is not verified: whoever sits in between can read and change entries; use \
                 sslmode=verify-full in journal.postgres_url"
            );
        }
        let known = Mutex::new(Known::default());
        let news = Arc::new(News::new());
        Ok(Self { hosts: address.hosts, tls, settings, world, metrics, news, witnesses, known })
    }

    /// A session with a server that is fit. Waits first if attempts failed just before.
    pub(super) async fn connect(&self) -> Result<Session, Unconnected> {
        let (first, not_before) = {
            let known = self.known();
            (known.host, known.not_before)
        };
        if let Some(at) = not_before {
            self.world.sleep_until(at).await;
        }
        let mut unfit = Vec::new();
        for i in 0..self.hosts.len() {
            let host = (first + i) % self.hosts.len();
            let target = &self.hosts[host];
            let opened = self.world.timeout(self.settings.connect_timeout, self.open(target)).await;
            let slow = || Err(Unfit::Unreachable(format!("no answer within {:?}", self.settings.connect_timeout)));
            match opened.unwrap_or_else(slow) {
                Ok(session) => {
                    self.connected(host);
                    return Ok(session);
                }
                Err(reason) => unfit.push((target.name.clone(), reason)),
            }
        }
        let unconnected = Unconnected(unfit);
        self.failed(&unconnected);
        Err(unconnected)
    }

    /// Remembers an entry that this process relies on.
    pub(super) fn rely_on(&self, entry: Head) {
        let mut known = self.known();
        if entry.position > known.witness.position {
            known.witness = entry;
        }
    }

    async fn open(&self, target: &Target) -> Result<Session, Unfit> {
        let unreachable = |e: tokio_postgres::Error| Unfit::Unreachable(with_cause(&e));
        let (client, connection) = target.config.connect(self.tls.clone()).await.map_err(unreachable)?;
        let channel = schema::channel(&self.settings.schema);
        let mut session = Session::start(client, connection, &self.world, self.news.clone(), channel);
        let (engine, server) = asked(&session.client).await.map_err(unreachable)?;
        let found = checks::judge(self.settings.durability, engine, &server).map_err(Unfit::Unsafe)?;
        session.engine = engine;
        let wanted = checks::session_settings(engine, &self.settings.schema, &server);
        session.client.batch_execute(&wanted).await.map_err(unreachable)?;
        let recognised = if engine == Engine::Postgres { self.recognise(&mut session).await? } else { None };
        let is_another = recognised.is_none() || self.known().server != recognised;
        self.compare(&mut session, is_another).await?;
        self.known().server = recognised;
        self.tell(target, engine, &server, &found);
        Ok(session)
    }

    /// Refuses a server that was left behind by a fail-over, and tells of one that took over. Not every service lets one
    /// ask; then what [`Connector::compare`] finds has to do.
    async fn recognise(&self, session: &mut Session) -> Result<Option<Server>, Unfit> {
        let asked = session
            .client
            .query_one(
                "SELECT system_identifier::TEXT, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) FROM pg_control_system()",
                &[],
            )
            .await;
        let Ok(row) = asked else { return Ok(None) };
        let (Ok(system), Ok(Ok(timeline))) =
            (row.try_get(0), row.try_get(1).map(|hex: String| u32::from_str_radix(&hex, 16)))
        else {
            return Ok(None);
        };
        let server = Server { system, timeline };
        if let Some(old) = self.known().server.as_ref().filter(|old| **old != server) {
            if old.system == server.system && old.timeline > timeline {
                let what = format!("it was left behind: it is on timeline {timeline}, and {} has begun", old.timeline);
                return Err(Unfit::Unreachable(what));
            }
            warn!(?old, new = ?server, "the journal is on another server or timeline, looking whether it has everything");
            // Whoever waits looks again, and other sessions end when they are used next.
            self.news.renew();
        }
        session.generation = self.news.generation();
        Ok(Some(server))
    }

    /// H2: refuses a server that lacks an entry which was there before, or one that some other broker has seen: this one may
    /// lag. Nothing is compared before this process has read anything, since its start does that.
    async fn compare(&self, session: &mut Session, is_another: bool) -> Result<(), Unfit> {
        let own = self.known().witness;
        if own.position == Position(0) {
            return Ok(());
        }
        self.has(session, own).await?;
        // A bucket that is silent must not cost the connection to a server that is the same as before.
        let limit = self.settings.connect_timeout / 2;
        let seen = self.world.timeout(limit, self.witnesses.since(own.position)).await;
        let slow = || Err(WitnessError::Unavailable(format!("no answer within {limit:?}")));
        let mut seen = match seen.unwrap_or_else(slow) {
            Ok(seen) => seen,
            Err(WitnessError::Forked(reason)) => return Err(Unfit::Forked { after: own, reason }),
            // The same server as before has lost something only if somebody has put another disk below it.
            Err(WitnessError::Unavailable(_)) if !is_another => Vec::new(),
            Err(unavailable) => return Err(Unfit::Unreachable(unavailable.to_string())),
        };
        seen.sort_unstable_by(|a, b| b.cmp(a));
        seen.dedup();
        // Who has the last entry of a history has all of it.
        for witness in seen.into_iter().take(COMPARED_MAX) {
            let Err(lacks) = self.has(session, witness).await else { continue };
            // A name that was damaged on its way is not there when asked for again.
            let again = self.witnesses.since(witness.position).await;
            if again.is_ok_and(|again| !again.contains(&witness)) {
                continue;
            }
            return Err(lacks);
        }
        Ok(())
    }

    /// Refuses a server that lacks the entry. One that was cut off from its standbys lacks what another one has committed
    /// since, and is no fork: only who can commit is believed.
    async fn has(&self, session: &mut Session, witness: Head) -> Result<(), Unfit> {
        if self.lacks(session, witness).await?.is_none() {
            return Ok(());
        }
        session.confirmed_head().await.map_err(of_looking)?;
        match self.lacks(session, witness).await? {
            Some(reason) => Err(Unfit::Forked { after: witness, reason }),
            None => Ok(()),
        }
    }

    /// What the server has in the place of the entry, if it is not that.
    async fn lacks(&self, session: &mut Session, witness: Head) -> Result<Option<String>, Unfit> {
        let there = session.token_at(witness.position).await.map_err(of_looking)?;
        if there.token == Some(witness.token) || witness.position < there.first {
            return Ok(None);
        }
        Ok(Some(match there.token {
            Some(token) => format!("its token is {:016x}", token.0),
            None => format!("it ends at position {}", there.end),
        }))
    }

    fn tell(&self, target: &Target, engine: Engine, server: &ServerSettings, found: &Found) {
        self.metrics.journal.unreplicated.set(i64::from(found.unreplicated));
        let now = (target.name.clone(), found.unreplicated);
        if self.known().told.replace(now.clone()) == Some(now) {
            return;
        }
        let commit = server.get("synchronous_commit").map_or("unknown", String::as_str);
        info!(host = target.name, ?engine, synchronous_commit = commit, "connected to the journal's server");
        if found.unreplicated {
            warn!(
                host = target.name,
                "the journal's server commits without a synchronous standby: a fail-over to another one stops the \
                 cluster; set synchronous_standby_names (strandline_journal_unreplicated)"
            );
        }
        if let Some(encoding) = &found.encoding {
            warn!(
                host = target.name,
                encoding, "the database's encoding is not UTF8; its error messages may be garbled"
            );
        }
    }

    fn connected(&self, host: usize) {
        let mut known = self.known();
        if known.failures > 0 {
            info!(host = self.hosts[host].name, "the journal's server answers again");
        }
        (known.host, known.failures, known.not_before) = (host, 0, None);
    }

    fn failed(&self, unconnected: &Unconnected) {
        let mut known = self.known();
        if unconnected.0.iter().any(|(_, unfit)| matches!(unfit, Unfit::Forked { .. } | Unfit::Unsafe(_))) {
            error!(reason = unconnected.text(), "the journal's server is not fit");
        } else if known.failures == 0 {
            warn!(reason = unconnected.text(), "the journal's server can't be reached, trying on");
        }
        known.failures = known.failures.saturating_add(1);
        known.not_before = Some(self.world.now() + pause(&self.world, known.failures, self.settings.pause_max));
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Before the next attempt, after so many that failed.
fn pause(world: &World, failures: u32, most: Duration) -> Duration {
    let half = PAUSE.saturating_mul(1 << failures.min(10)).min(most) / 2;
    half + Duration::from_micros(world.random_below(u64::try_from(half.as_micros()).unwrap_or(0)))
}

fn of_looking(failure: Failure) -> Unfit {
    match failure {
        Failure::NotSent(reason) | Failure::Undone(reason) | Failure::Open(reason) => Unfit::Unreachable(reason),
        Failure::Forked { after, reason } => Unfit::Forked { after, reason },
        Failure::Journal(error) => Unfit::Unreachable(error.to_string()),
    }
}

async fn asked(client: &Client) -> Result<(Engine, ServerSettings), tokio_postgres::Error> {
    let version: String = client.query_one("SELECT version()", &[]).await?.try_get(0)?;
    let names: Vec<&str> = checks::ASKED.to_vec();
    let rows = client.query("SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY($1)", &[&names]).await?;
    let pair = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
    Ok((Engine::of(&version), rows.iter().map(pair).collect::<Result<_, tokio_postgres::Error>>()?))
}

impl Unconnected {
    /// Each host with its reason.
    pub(super) fn text(&self) -> String {
        let one = |(host, unfit): &(String, Unfit)| match unfit {
            Unfit::Unreachable(reason) => format!("{host}: {reason}"),
            Unfit::Unsafe(found) => format!("{host}: {found}"),
            Unfit::Forked { after, reason } => format!("{host}: it lacks position {} ({reason})", after.position),
        };
        self.0.iter().map(one).collect::<Vec<_>>().join("; ")
    }
}

impl From<Unconnected> for Failure {
    fn from(unconnected: Unconnected) -> Self {
        let fork = unconnected.0.iter().find_map(|(host, unfit)| match unfit {
            Unfit::Forked { after, reason } => {
                Some(Self::Forked { after: *after, reason: format!("on {host} {reason}") })
            }
            _ => None,
        });
        fork.unwrap_or_else(|| Self::NotSent(unconnected.text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn h12_attempts_to_connect_are_closer_than_a_broker_is_missed() {
        let world = World::seeded(1);
        for (fencing_ms, most_ms) in [(500, 62), (1_000, 125), (15_000, 1_875), (60_000, 2_000)] {
            let config = format!(
                "cluster: {{fencing_timeout_ms: {fencing_ms}, heartbeat_interval_ms: 100, journal_staleness_max_ms: 400}}"
            );
            let most = PostgresSettings::from(&Config::from_yaml(&config).unwrap()).pause_max;
            assert_eq!(most.as_millis(), most_ms);
            let pauses: Vec<Duration> = (1..200).map(|failures| pause(&world, failures, most)).collect();
            assert!(pauses.iter().all(|pause| *pause <= most), "{pauses:?}");
            let (shortest, longest) = (pauses[10..].iter().min().unwrap(), pauses[10..].iter().max().unwrap());
            assert!(*shortest < most * 6 / 10 && *longest > most * 9 / 10, "{shortest:?} to {longest:?} of {most:?}");
        }
    }
}
