//! The brokers of one run, and the journal and bucket that they share. Each broker has a keeper that starts it again
//! when it has died, as a supervisor does.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use strandline::api::Context;
use strandline::config::{Config, Entrance, HostPort};
use strandline::journal::{Journal, MemoryJournal, Witnesses};
use strandline::metadata::{BucketWitnesses, Choice, Fatal, Mended, Replica, mend};
use strandline::server::{self, Broker, assemble};
use strandline::store::object::ObjectBucket;
use strandline::telemetry::Metrics;
use strandline::types::{Head, Position, TimestampMs};
use strandline::world::{Host, Instant, Pace, World};
use tokio::sync::{Notify, mpsc, watch};

use crate::faults::{Fault, Faults};
use crate::network::{FromBroker, Listener, Network};
use crate::plan::Plan;
use crate::{bucket, journal};

/// The cluster; clones are the same one.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    seed: u64,
    plan: Plan,
    world: World,
    start: Instant,
    network: Network,
    faults: Faults,
    journal: MemoryJournal,
    objects: bucket::Objects,
    brokers: BTreeMap<i32, Keeper>,
    /// What brokers did that none should do.
    troubles: Mutex<Vec<String>>,
    /// Nothing is down any more on purpose.
    healed: (AtomicBool, Notify),
    /// How often the journal has lost entries, whether that was not resolved yet, and who tells that it was.
    losses: Arc<AtomicU64>,
    forked: AtomicBool,
    resolved: Notify,
}

/// What the others know of a broker's keeper.
struct Keeper {
    orders: mpsc::Sender<Order>,
    now: Mutex<Now>,
}

/// A broker's present life.
#[derive(Default)]
struct Now {
    host: Option<Host>,
    replica: Option<Replica>,
    lives: u64,
    /// How often in a row it has refused to start.
    refused: u32,
    wall_offset_ms: i64,
}

/// What a keeper is told to do with its broker.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Ends it at once; it is started again after the time. `dark`: its connections are not closed.
    Kill { dark: bool, down: Duration },
    /// Ends it in order, and starts it again after the time.
    Stop { down: Duration },
    /// Stops its machine, starts another of the same id, and lets the first go on after the time.
    Replace { after: Duration },
}

/// Entries that a journal loses at most.
const LOST_MAX: u64 = 60;

/// How often it is looked whether a fork can begin.
const FORK_LOOKS: u32 = 100;

/// How long brokers may take to notice that the journal lost entries: partitions end, and nobody stands still for longer.
const FORK_PATIENCE: Duration = Duration::from_secs(150);

/// How long an orderly stop may take.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// How long a broker that was replaced goes on beside the one that replaced it.
const ZOMBIE_TIME: Duration = Duration::from_secs(15);

impl Cluster {
    /// Starts the brokers of `plan`; they may not be ready yet.
    #[must_use]
    pub fn start(seed: u64, plan: &Plan, world: &World, network: &Network, faults: &Faults) -> Self {
        let mut orders = BTreeMap::new();
        let mut brokers = BTreeMap::new();
        for id in 1..=plan.brokers {
            let (send, receive) = mpsc::channel(16);
            orders.insert(id, receive);
            brokers.insert(id, Keeper { orders: send, now: Mutex::default() });
        }
        let cluster = Self(Arc::new(Inner {
            seed,
            plan: plan.clone(),
            world: world.clone(),
            start: world.now(),
            network: network.clone(),
            faults: faults.clone(),
            journal: MemoryJournal::new(),
            objects: bucket::Objects::default(),
            brokers,
            troubles: Mutex::default(),
            healed: (AtomicBool::new(false), Notify::new()),
            losses: Arc::default(),
            forked: AtomicBool::new(false),
            resolved: Notify::new(),
        }));
        for (id, orders) in orders {
            world.spawn("keeper", cluster.clone().keep(id, orders));
        }
        cluster
    }

    #[must_use]
    pub fn ids(&self) -> Vec<i32> {
        self.0.brokers.keys().copied().collect()
    }

    /// Where broker `id` listens.
    #[must_use]
    pub fn address(id: i32) -> HostPort {
        HostPort { host: format!("broker-{id}"), port: 9092 }
    }

    /// Tells a broker's keeper what to do, unless it has much to do already.
    pub fn order(&self, id: i32, order: Order) {
        // What a broker knows has to get into the bucket: this is no run in which a journal and a broker are lost at once.
        if self.is_forked() {
            return;
        }
        if let Some(keeper) = self.0.brokers.get(&id) {
            // A keeper that has no room is in the middle of the same.
            let _ = keeper.orders.try_send(order);
        }
    }

    /// The machine that broker `id` runs on now.
    #[must_use]
    pub fn host(&self, id: i32) -> Option<Host> {
        self.now(id).host.clone()
    }

    /// Sets a broker's wall clock, in this life and the next ones.
    pub fn set_wall_offset_ms(&self, id: i32, offset_ms: i64) {
        let mut now = self.now(id);
        now.wall_offset_ms = offset_ms;
        if let Some(host) = &now.host {
            host.set_wall_offset_ms(offset_ms);
        }
    }

    /// A replica of every broker that runs.
    #[must_use]
    pub fn replicas(&self) -> Vec<(i32, Replica)> {
        self.ids().into_iter().filter_map(|id| Some((id, self.now(id).replica.clone()?))).collect()
    }

    #[must_use]
    pub fn objects(&self) -> &bucket::Objects {
        &self.0.objects
    }

    #[must_use]
    pub fn journal(&self) -> &MemoryJournal {
        &self.0.journal
    }

    /// Lets everything go on that is down or stands still; true when all brokers are ready within `patience`.
    pub async fn heal(&self, patience: Duration) -> bool {
        let (healed, told) = &self.0.healed;
        healed.store(true, Ordering::Relaxed);
        told.notify_waiters();
        while self.is_forked() {
            self.0.world.sleep(Duration::from_millis(100)).await;
        }
        for id in self.ids() {
            if let Some(host) = self.host(id) {
                host.resume();
            }
        }
        self.ready(patience).await
    }

    /// Whether all brokers are ready within `patience`.
    pub async fn ready(&self, patience: Duration) -> bool {
        let world = &self.0.world;
        let ready = async {
            while self.replicas().len() < self.0.brokers.len() {
                world.sleep(Duration::from_millis(50)).await;
            }
        };
        world.timeout(patience, ready).await.is_some()
    }

    /// Passes `time`, or less when everything is healed.
    async fn rest(&self, time: Duration) {
        let (healed, told) = &self.0.healed;
        let told = told.notified();
        if !healed.load(Ordering::Relaxed) {
            self.0.world.timeout(time, told).await;
        }
    }

    /// Whether the journal has lost entries, and nobody has decided how to go on.
    #[must_use]
    pub fn is_forked(&self) -> bool {
        self.0.forked.load(Ordering::Relaxed)
    }

    /// Makes the journal lose its last entries, among them one that somebody has left word of; waits until every broker has
    /// noticed, and resolves it as an operator does. It waits for a moment at which all brokers run, since what nobody
    /// knows any more is lost; nothing if none comes.
    pub async fn fork(&self) {
        let Inner { world, journal, faults, losses, forked, resolved, .. } = &*self.0;
        let bucket = self.operators_bucket();
        let (mut seen, mut head);
        let mut looks = 0;
        loop {
            let oldest = Position(journal.head().await.map_or(0, |head| head.position.0).saturating_sub(LOST_MAX));
            let since = BucketWitnesses(bucket.clone()).since(oldest).await.unwrap_or_default();
            seen = since.into_iter().map(|seen| seen.position.0).filter(|at| *at > oldest.0).collect::<Vec<_>>();
            head = journal.head().await.unwrap_or_default();
            if !seen.is_empty() && self.all_run_and_one_knows(head) {
                break;
            }
            looks += 1;
            if looks == FORK_LOOKS || self.is_forked() {
                return;
            }
            world.sleep(Duration::from_millis(100)).await;
        }
        tracing::debug!(%head.position, ?seen, "the journal loses entries");
        faults.fired(Fault::Fork);
        seen.sort_unstable();
        let first_lost = seen[world.random_below(seen.len() as u64) as usize];
        forked.store(true, Ordering::Relaxed);
        losses.fetch_add(1, Ordering::Relaxed);
        journal.lose(usize::try_from(head.position.0 + 1 - first_lost).unwrap_or(0));
        let noticed = async {
            while !self.replicas().is_empty() {
                world.sleep(Duration::from_millis(50)).await;
            }
        };
        if world.timeout(FORK_PATIENCE, noticed).await.is_none() {
            let on: Vec<i32> = self.replicas().into_iter().map(|(id, _)| id).collect();
            self.trouble(format!("brokers {on:?} went on with a journal that had lost entries"));
        }
        match mend(journal, &*bucket, world, Choice::Bucket).await {
            Ok(Mended::Begun { lost_entries: 0, .. }) => {}
            other => self.trouble(format!("the fork was not resolved with everything: {other:?}")),
        }
        forked.store(false, Ordering::Relaxed);
        resolved.notify_waiters();
    }

    fn all_run_and_one_knows(&self, head: Head) -> bool {
        let runs = |id: i32| self.host(id).is_some_and(|host| !host.is_paused());
        let replicas = self.replicas();
        let all = replicas.len() == self.0.brokers.len() && replicas.iter().all(|(id, _)| runs(*id));
        all && replicas.iter().any(|(_, replica)| replica.applied() == head)
    }

    /// The bucket as somebody has it whom no fault befalls.
    fn operators_bucket(&self) -> Arc<ObjectBucket> {
        let Inner { world, network, objects, .. } = &*self.0;
        let faults = self.0.faults.none();
        let access = bucket::Access {
            objects: objects.clone(),
            world: world.clone(),
            faults,
            network: network.clone(),
            broker: 0,
            delay_ms: 1,
        };
        Arc::new(ObjectBucket::s3_over(access, world.clone()).expect("its settings are the simulation's own"))
    }

    /// What brokers did that none should do.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        self.0.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn trouble(&self, what: String) {
        tracing::debug!(what, "trouble");
        self.0.troubles.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn now(&self, id: i32) -> MutexGuard<'_, Now> {
        self.0.brokers[&id].now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often in a row broker `id` has refused to start.
    fn refused(&self, id: i32, again: bool) -> u32 {
        let mut now = self.now(id);
        now.refused = if again { now.refused + 1 } else { 0 };
        now.refused
    }

    async fn keep(self, id: i32, mut orders: mpsc::Receiver<Order>) {
        loop {
            let Some(life) = self.live(id).await else {
                self.0.world.sleep(Duration::from_millis(500)).await;
                continue;
            };
            self.keep_alive(id, life, &mut orders).await;
        }
    }

    /// Serves one life and what replaces it while it goes on, until there is none.
    async fn keep_alive(&self, id: i32, mut life: Life, orders: &mut mpsc::Receiver<Order>) {
        let world = &self.0.world;
        loop {
            let order = tokio::select! {
                biased;
                ended = &mut life.owner => {
                    match ended {
                        Ok(Err(Fatal::Replaced { .. })) if life.contested => {}
                        Ok(Err(fatal)) if fatal.is_fork() && self.is_forked() => {
                            self.bury(id, &life, false);
                            return self.0.resolved.notified().await;
                        }
                        Ok(Err(fatal)) => self.trouble(format!("broker {id} stopped itself: {fatal}")),
                        Ok(Ok(())) | Err(_) => {}
                    }
                    self.bury(id, &life, false);
                    world.sleep(Duration::from_secs(1)).await;
                    return;
                }
                order = orders.recv() => order,
            };
            tracing::debug!(id, ?order, "order");
            match order {
                // It was given before.
                Some(_) if self.is_forked() => {}
                None => return std::future::pending().await,
                Some(Order::Kill { dark, down }) => {
                    self.bury(id, &life, dark);
                    self.rest(down).await;
                    return;
                }
                Some(Order::Stop { down }) => {
                    self.stop(id, life).await;
                    self.rest(down).await;
                    return;
                }
                Some(Order::Replace { after }) => {
                    life.host.pause();
                    let Some(next) = self.live(id).await else {
                        life.host.resume();
                        life.contested = true;
                        continue;
                    };
                    let (zombie, cluster) = (std::mem::replace(&mut life, next), self.clone());
                    world.spawn("zombie", async move {
                        cluster.rest(after).await;
                        zombie.host.resume();
                        // It notices by itself, sooner or later, and ends as a process does.
                        let noticed = cluster.0.world.timeout(ZOMBIE_TIME, zombie.owner).await;
                        if let Some(Ok(Err(fatal))) = noticed
                            && !matches!(fatal, Fatal::Replaced { .. })
                            && !(fatal.is_fork() && cluster.0.losses.load(Ordering::Relaxed) > 0)
                        {
                            cluster.trouble(format!("broker {id}, which was replaced, stopped itself: {fatal}"));
                        }
                        zombie.host.crash();
                    });
                }
            }
        }
    }

    fn bury(&self, id: i32, life: &Life, dark: bool) {
        self.0.network.leave(&Self::address(id).host, dark);
        life.host.crash();
        let mut now = self.now(id);
        now.host = None;
        now.replica = None;
    }

    async fn stop(&self, id: i32, life: Life) {
        self.0.world.timeout(STOP_PATIENCE, server::hand_over(&life.context)).await;
        self.0.network.leave(&Self::address(id).host, false);
        self.now(id).replica = None;
        let Life { host, context, drained, batcher, owner, contested } = life;
        drop(drained);
        self.0.network.stop(id);
        let finished = self.0.world.timeout(STOP_PATIENCE, server::finish(context, batcher, owner)).await;
        if let Some(Err(error)) = finished
            && !(contested && error.to_string().contains("another process is registered"))
            && !(self.0.losses.load(Ordering::Relaxed) > 0 && error.to_string().contains("fork"))
        {
            self.trouble(format!("broker {id} did not stop in order: {error}"));
        }
        host.crash();
        self.now(id).host = None;
    }

    /// Starts a broker; none if it does not start, which faults may cause.
    async fn live(&self, id: i32) -> Option<Life> {
        let Inner { seed, plan, world, start, network, faults, journal, objects, .. } = &*self.0;
        let (life, wall_offset_ms) = {
            let mut now = self.now(id);
            now.lives += 1;
            (now.lives, now.wall_offset_ms)
        };
        let seed = seed << 16 | (id as u64) << 12 | life << 1 | 1;
        let host = Host::new(seed, Pace { yields: plan.yields });
        host.set_wall_offset_ms(wall_offset_ms);
        let inside = World::on(host.clone(), *start, seed);
        let yaml = format!("broker_id: {id}\n{}", plan.yaml);
        let config = Arc::new(Config::from_yaml(&yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}")));
        let bucket = bucket::Access {
            objects: objects.clone(),
            world: world.clone(),
            faults: faults.clone(),
            network: network.clone(),
            broker: id,
            delay_ms: plan.bucket_delay_ms,
        };
        let seen_by_others = bucket.clone();
        let seen_by_others = ObjectBucket::s3_over(seen_by_others, inside.clone()).ok()?;
        let losses = self.0.losses.clone();
        let line =
            journal::Line::new(losses.load(Ordering::Relaxed), Arc::new(BucketWitnesses(Arc::new(seen_by_others))));
        let journal = journal::Access {
            losses,
            line: Arc::new(line),
            journal: journal.clone(),
            world: world.clone(),
            faults: faults.clone(),
            network: network.clone(),
            broker: id,
            delay_ms: plan.journal_delay_ms,
        };
        let metrics = Arc::new(Metrics::new(TimestampMs(0)));
        let entrance = Entrance { listener: "plain".to_owned(), advertised: Self::address(id), zone: None };
        let (starting, entrances) = (inside.clone(), [entrance.clone()]);
        let dial = Arc::new(FromBroker { network: network.clone(), id });
        let started = inside.spawn("start", async move {
            let bucket = ObjectBucket::s3_over(bucket, starting.clone()).map_err(|e| e.to_string())?;
            let (journal, bucket) = (Arc::new(journal), Arc::new(bucket));
            let broker = assemble(&config, &starting, &metrics, journal, bucket, dial, &entrances).await;
            broker.map_err(|e| e.to_string())
        });
        let was_forked = self.is_forked();
        let started = started.await;
        tracing::debug!(id, life, error = ?started.as_ref().map(|started| started.as_ref().err()), "start");
        let broker = match started {
            Ok(Ok(broker)) => broker,
            Ok(Err(error)) => {
                // What was damaged on its way is not damaged every time.
                let chances = if plan.rates.contains_key(&Fault::BucketCorrupt) { 3 } else { 1 };
                let rightly = was_forked || self.is_forked() || !is_alarm(&error);
                let refused = self.refused(id, !rightly);
                if refused >= chances {
                    self.trouble(format!("broker {id} does not start: {error}"));
                }
                host.crash();
                return None;
            }
            Err(_) => return None,
        };
        let Broker { context, limits, drained, owner, batcher } = broker;
        network.note("start", &entrance.advertised.host, &[]);
        let replica = context.replica.clone();
        network.listen(Listener { context: context.clone(), limits, id, world: inside, entrance: Arc::new(entrance) });
        self.refused(id, false);
        let mut now = self.now(id);
        now.host = Some(host.clone());
        now.replica = Some(replica);
        Some(Life { host, context, drained, batcher, owner, contested: false })
    }
}

/// Whether a start failed for a reason that no fault here can cause: it says that data is lost or mixed up.
fn is_alarm(error: &str) -> bool {
    !(error.contains("simulation") || error.contains("answer") || error.contains("refused"))
}

/// One life of one broker.
struct Life {
    host: Host,
    context: Arc<Context>,
    /// Its membership task lives as long as this.
    drained: watch::Receiver<bool>,
    batcher: strandline::world::JoinHandle<()>,
    owner: strandline::world::JoinHandle<Result<(), Fatal>>,
    /// Whether another process with its id has tried to start. Perhaps it failed only after it had registered.
    contested: bool,
}
