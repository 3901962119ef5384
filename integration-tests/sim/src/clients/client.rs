//! What every client has: habits of its own, one connection per broker, and metadata that it refreshes by age and after
//! errors.
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{FindCoordinatorRequest, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request, StrBytes};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use strandline::config::HostPort;
use strandline::types::Uuid;
use strandline::world::{Instant, World};
use strandline_history::Log;
use tokio::sync::watch;

use super::connection::{Connection, Fault, Habits};
use crate::Site;

/// Topics that are never deleted; others are [`VOLATILE`] and a number. Transactions write to the ledger, and what is made
/// of that goes to the copies.
pub(super) const STABLE: &str = "stable";
pub(super) const LEDGER: &str = "ledger";
pub(super) const COPIES: &str = "copies";
/// Records of this one go by time.
pub const FLEETING: &str = "fleeting";
/// Keeps the last record of each key.
pub const TABLES: &str = "tables";
pub(super) const LASTING: [&str; 5] = [STABLE, LEDGER, COPIES, FLEETING, TABLES];
pub(super) const VOLATILE: &str = "volatile-";

/// One logical client; clones are the same one.
#[derive(Clone)]
pub(super) struct Client(Arc<Inner>);

struct Inner {
    site: Site,
    /// Its own chance, so that what it draws depends on nobody else.
    chance: World,
    habits: Habits,
    retry_backoff: Duration,
    metadata_age_max: Duration,
    /// One request of so many for a partition goes to some broker instead of the leader; 0: none does. Each broker serves
    /// every partition, and a client may have been told of another leader a moment ago.
    strays: u64,
    stopping: watch::Receiver<bool>,
    /// Mutexes, since a client's fetches and sends run beside each other. The inner ones are held over a connect, so
    /// that nobody else connects to the same broker meanwhile.
    slots: Mutex<BTreeMap<(String, Lane), SharedSlot>>,
    view: Mutex<View>,
}

/// Clients talk to a group's coordinator on a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Data,
    Group,
}

type SharedSlot = Arc<tokio::sync::Mutex<Slot>>;

#[derive(Default)]
struct Slot {
    connection: Option<Arc<Connection>>,
    /// After a failed connect, until when nobody tries again.
    not_before: Option<Instant>,
}

/// The cluster as Metadata last told it.
#[derive(Clone, Default)]
pub(super) struct View {
    pub(super) brokers: BTreeMap<i32, HostPort>,
    pub(super) topics: BTreeMap<String, Topic>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
    refreshing: bool,
    wanted: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Topic {
    /// `None` where the version of Metadata does not tell it.
    pub(super) id: Option<Uuid>,
    pub(super) leaders: BTreeMap<i32, Leader>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leader {
    pub(super) node: i32,
    pub(super) epoch: i32,
}

impl Client {
    pub(super) fn new(site: &Site, seed: u64, stopping: watch::Receiver<bool>) -> Self {
        let chance = World::seeded(seed << 32 | u64::from(site.process));
        let between = |from: u64, to: u64| Duration::from_millis(from + chance.random_below(to - from));
        let habits = Habits {
            connect_timeout: between(1_000, 4_000),
            request_timeout: if chance.random_below(4) == 0 { between(700, 2_000) } else { between(2_000, 10_000) },
            versions: if chance.random_below(2) == 0 { 0 } else { chance.random_u64() | 1 },
            ahead: chance.random_below(4) == 0,
        };
        Self(Arc::new(Inner {
            site: site.clone(),
            habits,
            retry_backoff: between(50, 400),
            metadata_age_max: between(5_000, 30_000),
            strays: [0, 2, 6, 30][chance.random_below(4) as usize],
            stopping,
            slots: Mutex::default(),
            view: Mutex::default(),
            chance,
        }))
    }

    pub(super) fn site(&self) -> &Site {
        &self.0.site
    }

    pub(super) fn now(&self) -> Instant {
        self.0.site.world.now()
    }

    pub(super) fn draw(&self, bound: u64) -> u64 {
        self.0.chance.random_below(bound)
    }

    pub(super) fn between(&self, from: i64, to: i64) -> i64 {
        from + i64::try_from(self.draw(u64::try_from(to - from).unwrap_or(0))).unwrap_or(0)
    }

    pub(super) fn odds(&self, one_in: u64) -> bool {
        self.draw(one_in) == 0
    }

    pub(super) fn pick<'a, T>(&self, from: &'a [T]) -> Option<&'a T> {
        from.get(usize::try_from(self.draw(from.len() as u64)).unwrap_or(0))
    }

    pub(super) fn random_uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.0.chance.fill(&mut bytes);
        Uuid::from_bytes(bytes)
    }

    pub(super) async fn sleep_ms(&self, ms: u64) {
        self.0.site.world.sleep(Duration::from_millis(ms)).await;
    }

    pub(super) async fn back_off(&self) {
        self.0.site.world.sleep(self.retry_backoff()).await;
    }

    pub(super) fn retry_backoff(&self) -> Duration {
        self.0.retry_backoff
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.0.habits.request_timeout
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.0.stopping.borrow()
    }

    /// The open connection to `address`, or a new one.
    pub(super) async fn connect(&self, address: &HostPort, lane: Lane) -> Result<Arc<Connection>, Fault> {
        let key = (format!("{}:{}", address.host, address.port), lane);
        let slot = lock(&self.0.slots).entry(key).or_default().clone();
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.connection.as_ref().filter(|connection| connection.is_open()) {
            return Ok(connection.clone());
        }
        slot.connection = None;
        if let Some(at) = slot.not_before {
            self.0.site.world.sleep_until(at).await;
        }
        let opened = Connection::open(&self.0.site, address, self.0.habits).await;
        match &opened {
            Ok(connection) => (slot.connection, slot.not_before) = (Some(connection.clone()), None),
            Err(_) => slot.not_before = Some(self.now() + self.0.retry_backoff),
        }
        opened
    }

    /// The connection to a broker that Metadata named.
    pub(super) async fn node(&self, node: i32, lane: Lane) -> Result<Arc<Connection>, Fault> {
        let address = lock(&self.0.view).brokers.get(&node).cloned();
        let Some(address) = address else {
            self.want_refresh();
            return Err(Fault { sent: false, why: format!("broker {node} is not known") });
        };
        let connection = self.connect(&address, lane).await;
        if connection.is_err() {
            self.want_refresh();
        }
        connection
    }

    /// The broker that a request for a partition goes to.
    pub(super) fn route(&self, leader: i32) -> i32 {
        let brokers: Vec<i32> = lock(&self.0.view).brokers.keys().copied().collect();
        let strays = self.0.strays > 0 && self.odds(self.0.strays);
        self.pick(&brokers).copied().filter(|_| strays).unwrap_or(leader)
    }

    /// Some broker: one that Metadata named, or one to begin with.
    pub(super) fn any_broker(&self) -> (Option<i32>, HostPort) {
        let known: Vec<(i32, HostPort)> =
            lock(&self.0.view).brokers.iter().map(|(id, address)| (*id, address.clone())).collect();
        match self.pick(&known) {
            Some((id, address)) if !self.odds(4) => (Some(*id), address.clone()),
            _ => (None, self.pick(&self.0.site.bootstrap).expect("a run has brokers").clone()),
        }
    }

    /// Asks any broker.
    pub(super) async fn ask_any<R>(
        &self,
        usable: RangeInclusive<i16>,
        make: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, Fault>
    where
        R: Request,
        R::Response: Decodable + HeaderVersion,
    {
        let (_, address) = self.any_broker();
        self.connect(&address, Lane::Data).await?.ask(usable, make).await
    }

    pub(super) fn view(&self) -> View {
        lock(&self.0.view).clone()
    }

    /// Metadata is no longer to be believed.
    pub(super) fn want_refresh(&self) {
        lock(&self.0.view).wanted = true;
    }

    /// Starts a refresh of what is too old or was found wrong, unless one is under way or was just tried.
    pub(super) fn refresh_if_due(&self) {
        let now = self.now();
        let mut view = lock(&self.0.view);
        let is_old = view.fetched.is_none_or(|at| now >= at + self.0.metadata_age_max);
        let may = view.tried.is_none_or(|at| now >= at + self.0.retry_backoff);
        if view.refreshing || !may || !(is_old || view.wanted) {
            return;
        }
        view.refreshing = true;
        drop(view);
        let client = self.clone();
        self.0.site.world.spawn("metadata", async move { client.refresh().await });
    }

    /// Refreshes; says whether an answer came.
    pub(super) async fn refresh(&self) -> bool {
        let answer = self.ask_any(0..=13, all_topics).await;
        let now = self.now();
        let mut view = lock(&self.0.view);
        (view.refreshing, view.tried) = (false, Some(now));
        let Ok(answer) = answer.inspect_err(|_| view.wanted = true) else { return false };
        if answer.brokers.is_empty() {
            return false;
        }
        let (brokers, topics) = read_metadata(answer);
        *view = View { brokers, topics, fetched: Some(now), tried: Some(now), refreshing: false, wanted: false };
        true
    }

    /// Refreshes until the stable topic is there.
    pub(super) async fn await_topics(&self) {
        self.await_all(&[STABLE]).await;
    }

    /// Refreshes until all lasting topics are there.
    pub(super) async fn await_lasting(&self) {
        self.await_all(&LASTING).await;
    }

    async fn await_all(&self, topics: &[&str]) {
        let are_there = || topics.iter().all(|topic| lock(&self.0.view).topics.contains_key(*topic));
        while !(self.refresh().await && are_there()) {
            self.back_off().await;
        }
    }

    /// A log as a request by name names it: its id is beyond doubt only where the topic is never deleted.
    pub(super) fn log_by_name(&self, at: &(String, i32)) -> Log {
        let id = lock(&self.0.view).topics.get(&at.0).and_then(|topic| topic.id).filter(|_| is_lasting(&at.0));
        self.log(&at.0, id, at.1)
    }

    /// A log as the history names it, with the id that the request named.
    pub(super) fn log(&self, topic: &str, id: Option<Uuid>, partition: i32) -> Log {
        Log { topic: topic.to_owned(), id: id.map(|id| id.to_string()), partition }
    }

    /// Who coordinates the group or transactional id `key`.
    pub(super) async fn find_coordinator(&self, of: CoordinatorOf, key: &str) -> Result<i32, Fault> {
        let key = text(key);
        // What a key is came with version 1.
        let usable = if of == CoordinatorOf::Group { 0..=6 } else { 1..=6 };
        let answer = self
            .ask_any(usable, |version| {
                let request = FindCoordinatorRequest::default().with_key_type(of as i8);
                if version < 4 { request.with_key(key) } else { request.with_coordinator_keys(vec![key]) }
            })
            .await?;
        let of = |error_code: i16, node: i32, host: &StrBytes, port: i32| {
            if error_code != 0 {
                return Err(Fault { sent: false, why: error_name(error_code) });
            }
            let port = u16::try_from(port).unwrap_or(0);
            let address = HostPort { host: host.to_string(), port };
            lock(&self.0.view).brokers.entry(node).or_insert(address);
            Ok(node)
        };
        match answer.coordinators.first() {
            Some(found) => of(found.error_code, found.node_id.0, &found.host, found.port),
            None => of(answer.error_code, answer.node_id.0, &answer.host, answer.port),
        }
    }
}

/// What has a coordinator, by Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CoordinatorOf {
    Group = 0,
    Transactions = 1,
}

/// Whether the topic is never deleted.
pub(super) fn is_lasting(topic: &str) -> bool {
    LASTING.contains(&topic)
}

/// Metadata of all topics, as each version asks for it.
pub(super) fn all_topics(version: i16) -> MetadataRequest {
    let topics = if version == 0 { Some(Vec::new()) } else { None };
    MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(version < 4)
}

pub(super) fn read_metadata(answer: MetadataResponse) -> (BTreeMap<i32, HostPort>, BTreeMap<String, Topic>) {
    let brokers = answer.brokers.into_iter().map(|broker| {
        let port = u16::try_from(broker.port).unwrap_or(0);
        (broker.node_id.0, HostPort { host: broker.host.to_string(), port })
    });
    let brokers = brokers.collect();
    let topics = answer.topics.into_iter().filter(|topic| topic.error_code == 0).filter_map(|topic| {
        // Version 0 does not tell which topics are the brokers' own.
        let name = topic.name?.0.to_string();
        if topic.is_internal || name.starts_with("__") {
            return None;
        }
        let leaders = topic.partitions.iter().filter(|partition| partition.leader_id.0 >= 0).map(|partition| {
            let leader = Leader { node: partition.leader_id.0, epoch: partition.leader_epoch };
            (partition.partition_index, leader)
        });
        let leaders = leaders.collect();
        Some((name, Topic { id: (!topic.topic_id.is_nil()).then_some(topic.topic_id), leaders }))
    });
    (brokers, topics.collect())
}

pub(super) fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// An error's name in Kafka: `NOT_LEADER_OR_FOLLOWER`.
pub(super) fn error_name(code: i16) -> String {
    let name = ResponseError::try_from_code(code).map_or_else(|| "none".to_owned(), |error| format!("{error:?}"));
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.extend(letter.to_uppercase());
    }
    words
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
