//! The clients of one run: producers, consumers and administrators that speak the wire protocol as Java's and
//! librdkafka's do, with their retries and time-outs, and write down what they asked for and what they were told. How
//! many there are and how each is set up follows from the seed. Values are checked where they are read; what it all
//! means is for the checker to say.
mod admin;
mod chain;
mod classic;
mod client;
mod connection;
mod consumer;
mod consumer_group;
mod group_admin;
mod lane;
mod membership;
mod offsets;
mod producer;
mod read_back;
mod reader;
mod records;
mod session;
mod topics;
mod transaction;
mod transactional;
mod transactional_batch;

use kafka_protocol::error::ResponseError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use strandline::world::{JoinHandle, World};
use strandline_history::End;
use tokio::sync::watch;

pub use client::{FLEETING, TABLES};
pub use consumer_group::UNNAMED;
pub use topics::{KEPT_MS, TOMBSTONES_KEPT_MS};

use crate::Site;
use client::{Client, error_name};

/// Clients at work.
pub struct Clients {
    world: World,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// What a client is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Idempotent,
    Plain,
    Assigned,
    Transactional,
    /// One that takes over what others have written.
    Chain,
    /// The same as a member of a group.
    ChainMember,
    /// A member of the classic group.
    Classic,
    /// A member of the group of the consumer protocol.
    Consumer,
    Admin,
    /// One that watches what groups have committed.
    Exporter,
}

/// Which of how many of its kind one is.
#[derive(Clone, Copy, Debug)]
struct Place {
    number: u64,
    of: u64,
}

/// The groups; a member's protocol is in the name, so that whoever reads everything back knows how to join.
const CLASSIC_GROUP: &str = "classic";
const CONSUMER_GROUP: &str = "consumer";
/// Of those who take over what others have written; offsets are committed with transactions.
const CHAIN_GROUP: &str = "chain";

/// Of each kind, how many a run has at least and at most.
const KINDS: [(Kind, u64, u64); 9] = [
    (Kind::Idempotent, 2, 3),
    (Kind::Plain, 0, 2),
    (Kind::Assigned, 1, 3),
    (Kind::Transactional, 1, 2),
    (Kind::Chain, 0, 2),
    (Kind::Classic, 0, 3),
    (Kind::Consumer, 0, 3),
    (Kind::Admin, 1, 2),
    (Kind::Exporter, 0, 1),
];

/// How long clients may finish what they are at; then they are cut off.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// Starts clients of all kinds; how many of each, and how they are set up, follows from `seed`.
#[must_use]
pub fn start(site: &Site, seed: u64) -> Clients {
    let chance = World::seeded(seed ^ 0x0063_6c69_656e_7473);
    let (stop, stopping) = watch::channel(false);
    let crowd = Crowd { site: site.clone(), seed, stopping, next: Arc::new(AtomicU32::new(site.process + 1)) };
    let (mut kinds, chain_by_group) = (Vec::new(), chance.random_below(2) == 0);
    for (kind, from, to) in KINDS {
        let count = from + chance.random_below(to - from + 1);
        let kind = if matches!(kind, Kind::Chain) && chain_by_group { Kind::ChainMember } else { kind };
        kinds.extend((0..count).map(|number| (kind, Place { number, of: count })));
    }
    let mut tasks = vec![site.world.spawn("topics", topics::make_lasting(crowd.client()))];
    for (n, (kind, place)) in kinds.into_iter().enumerate() {
        let instance = (chance.random_below(4) == 0).then(|| format!("instance-{n}"));
        // Some live as long as the run, others are thrown away and followed by fresh ones.
        let life_ms =
            if chance.random_below(2) == 0 { u64::from(u32::MAX) } else { 8_000 + chance.random_below(30_000) };
        // Now and then two are started with the same instance id, or transactional id, of which each takes the other's
        // place.
        let takes = matches!(kind, Kind::Classic | Kind::Transactional | Kind::Chain);
        if instance.is_some() && takes && chance.random_below(2) == 0 {
            tasks.push(site.world.spawn("client", crowd.clone().live((kind, place), instance.clone(), life_ms)));
        }
        tasks.push(site.world.spawn("client", crowd.clone().live((kind, place), instance, life_ms)));
    }
    Clients { world: site.world.clone(), stop, tasks }
}

/// Where clients come from.
#[derive(Clone)]
struct Crowd {
    site: Site,
    seed: u64,
    stopping: watch::Receiver<bool>,
    next: Arc<AtomicU32>,
}

impl Crowd {
    /// A client that nobody has seen before.
    fn client(&self) -> Client {
        let site = Site { process: self.next.fetch_add(1, Ordering::Relaxed), ..self.site.clone() };
        Client::new(&site, self.seed, self.stopping.clone())
    }

    /// One client after the other.
    async fn live(self, (kind, place): (Kind, Place), instance: Option<String>, life_ms: u64) {
        let chance = World::seeded(self.seed ^ u64::from(self.next.load(Ordering::Relaxed)));
        while !*self.stopping.borrow() {
            let client = self.client();
            let life = Duration::from_millis(life_ms / 2 + client.draw(life_ms));
            match kind {
                Kind::Idempotent => producer::run(client, true, life).await,
                Kind::Plain => producer::run(client, false, life).await,
                Kind::Assigned => consumer::run(client, life).await,
                Kind::Transactional => transactional::run(client, place, life).await,
                Kind::Chain => chain::run(client, place, life).await,
                Kind::ChainMember => chain::run_as_member(client, life).await,
                Kind::Admin => admin::run(client, life).await,
                Kind::Exporter => group_admin::watch(&client, life).await,
                Kind::Classic => classic::run(client, CLASSIC_GROUP, instance.clone(), life).await,
                Kind::Consumer => consumer_group::run(client, CONSUMER_GROUP, instance.clone(), life).await,
            }
            let rest_ms = match kind {
                _ if instance.is_some() => 2_000 + chance.random_below(6_000),
                // What it has left open stays open for a while.
                Kind::Transactional | Kind::Chain => 100 + chance.random_below(4_000),
                _ => 100,
            };
            self.site.world.sleep(Duration::from_millis(rest_ms)).await;
        }
    }
}

impl Clients {
    /// Lets them finish what they are at, and waits until all have ended.
    ///
    /// # Panics
    /// If one of them did.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let until = self.world.now() + STOP_PATIENCE;
        for mut task in self.tasks {
            let left = until.saturating_duration_since(self.world.now());
            match self.world.timeout(left, &mut task).await {
                Some(Err(failed)) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
                Some(_) => {}
                None => task.abort(),
            }
        }
    }
}

/// The final phase: fresh readers read everything from the beginning.
pub async fn read_back(site: &Site) {
    read_back::run(site).await;
}

fn is_retriable(code: i16) -> bool {
    ResponseError::try_from_code(code).is_some_and(|error| error.is_retriable())
}

/// How a call that changes something ended, by its error: those that a broker gives when it has begun something and does
/// not know how it ended leave it open.
fn admin_end(code: i16) -> End {
    const UNKNOWN_SERVER_ERROR: i16 = -1;
    const REQUEST_TIMED_OUT: i16 = 7;
    const NETWORK_EXCEPTION: i16 = 13;
    match code {
        0 => End::Ok,
        UNKNOWN_SERVER_ERROR | REQUEST_TIMED_OUT | NETWORK_EXCEPTION => End::Info(error_name(code)),
        _ => End::Fail(error_name(code)),
    }
}
