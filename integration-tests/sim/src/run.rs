//! One run: a cluster, its clients, its faults, and what the clients saw.
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use strandline::metadata::Replica;
use strandline::state::State;
use strandline::types::BrokerId;
use strandline::world::{Instant, World};
use strandline_history::History;
use strandline_history::check::Inventory;

use crate::cluster::Cluster;
use crate::faults::{Fault, Faults};
use crate::inventory::Spared;
use crate::nemesis::Nemesis;
use crate::network::Network;
use crate::plan::{Plan, Tidy};
use crate::recorder::Recorder;
use crate::{Site, clients, inventory};

/// What a run leaves behind.
pub struct Ran {
    pub history: History,
    /// What State and bucket hold in the end; none if no broker could say.
    pub inventory: Option<Inventory>,
    pub faults: BTreeMap<Fault, u64>,
    /// Which faults met which operations.
    pub met: BTreeSet<(Fault, &'static str)>,
    /// The hash over everything that passed the network and the stores, and how much it was.
    pub trace: (u64, u64),
    pub virtual_time: Duration,
    /// True time at the beginning, in ms.
    pub wall_ms: i64,
    /// How often brokers have come or gone, as the others know; nothing if nobody could say.
    pub membership: Option<u32>,
    /// A broker has thought for a while that it is the only one, and would not have noticed that it is cut off.
    pub alone: bool,
    /// What went wrong beside what clients saw: panics, brokers that stopped themselves, hangs.
    pub troubles: Vec<String>,
}

/// A number of clients that no run has.
const CLIENTS_MAX: u32 = 64;

/// How long brokers may take to be ready when nothing goes wrong (any more).
const READY_PATIENCE: Duration = Duration::from_secs(90);

/// How long clients go on after the last fault.
const CALM: Duration = Duration::from_secs(5);

/// How long clients may take to stop, and to read everything back.
const END_PATIENCE: Duration = Duration::from_secs(240);

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Panics of a run's tasks become its troubles instead of text on the screen.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = match std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            true => format!("\n{}", std::backtrace::Backtrace::force_capture()),
            false => String::new(),
        };
        PANICS.with_borrow_mut(|panics| panics.push(format!("{panic}{backtrace}")));
    }));
}

/// How long this thread's run has lasted, in its own time.
#[must_use]
pub fn virtual_time() -> Duration {
    START.get().map_or(Duration::ZERO, |start| start.elapsed())
}

/// Runs one seed with its faults, or without any if `calm`, on a runtime of its own.
///
/// # Panics
/// If no runtime can be made.
#[must_use]
pub fn run(seed: u64, plan: &Plan) -> Ran {
    PANICS.with_borrow_mut(Vec::clear);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("it needs no resource of the system");
    let mut ran = runtime.block_on(run_inside(seed, plan));
    // Tasks that are dropped now may panic too.
    drop(runtime);
    let panics = PANICS.with_borrow_mut(std::mem::take);
    ran.troubles.extend(panics.into_iter().map(|panic| format!("panic: {panic}")));
    ran
}

async fn run_inside(seed: u64, plan: &Plan) -> Ran {
    let world = World::seeded(seed);
    let (start, wall_ms) = (world.now(), world.wall_ms().0);
    START.set(Some(start));
    let recorder = Recorder::new(&world, seed);
    let faults = Faults::new(world.clone(), recorder.clone());
    let network = Network::new(&world, &faults, plan.network_delay_ms);
    let cluster = Cluster::start(seed, plan, &world, &network, &faults);
    let mut troubles = Vec::new();
    if !cluster.ready(READY_PATIENCE).await {
        troubles.push("the brokers were not ready at the beginning".to_owned());
    }
    let alone = Arc::new(AtomicBool::new(false));
    let watch = world.spawn("watch", watch_for_alone(world.clone(), cluster.clone(), alone.clone()));
    let bootstrap = cluster.ids().into_iter().map(Cluster::address).collect();
    let site = Site { world, network, recorder, run: seed, process: 0, bootstrap };
    let nemesis = Nemesis {
        world: site.world.clone(),
        plan: plan.clone(),
        cluster: cluster.clone(),
        network: site.network.clone(),
        faults: faults.clone(),
        clients: CLIENTS_MAX,
    };
    let nemesis = site.world.spawn("nemesis", nemesis.run());
    let clients = clients::start(&site, seed);
    site.world.sleep(plan.length).await;
    nemesis.abort();
    faults.end();
    site.network.heal();
    if !cluster.heal(READY_PATIENCE).await {
        troubles.push("the brokers were not ready after the last fault".to_owned());
    }
    site.recorder.healed();
    site.world.sleep(CALM).await;
    if site.world.timeout(END_PATIENCE, clients.stop()).await.is_none() {
        troubles.push("the clients did not stop".to_owned());
    }
    site.recorder.give_up();
    if site.world.timeout(END_PATIENCE, clients::read_back(&site)).await.is_none() {
        troubles.push("what was written could not be read back".to_owned());
    }
    watch.abort();
    let spared = tidy(&site.world, plan, &cluster).await;
    let (state, differences) = agree(&cluster).await;
    troubles.extend(differences);
    troubles.extend(cluster.troubles());
    let trace = site.network.trace();
    site.network.close();
    Ran {
        history: site.recorder.take(),
        wall_ms,
        membership: state.as_ref().map(|state| state.membership()),
        inventory: state.map(|state| inventory::take(&state, &cluster.objects().contents(), &spared)),
        faults: faults.counts(),
        met: faults.met(),
        trace,
        virtual_time: site.world.now() - start,
        alone: alone.load(Ordering::Relaxed),
        troubles,
    }
}

/// Waits until nothing is left of what nobody needs, as far as the plan says that it goes.
async fn tidy(world: &World, plan: &Plan, cluster: &Cluster) -> Spared {
    let (begun, Tidy { dead, orphans }) = (world.now(), plan.tidy_after);
    let applied = cluster.replicas().into_iter().map(|(_, replica)| replica.applied().position).min();
    world.sleep(dead.max(orphans).unwrap_or_default()).await;
    Spared { objects: orphans.map(|_| cluster.objects().after(begun)), dead_until: dead.and(applied) }
}

/// Looks at what brokers know of each other as long as clients are at work.
async fn watch_for_alone(world: World, cluster: Cluster, alone: Arc<AtomicBool>) {
    loop {
        let knows_others = |(id, replica): (i32, Replica)| {
            replica.state().brokers().any(|broker| broker.is_member() && broker.id != BrokerId(id))
        };
        if !cluster.replicas().into_iter().all(knows_others) {
            return alone.store(true, Ordering::Relaxed);
        }
        world.sleep(Duration::from_millis(200)).await;
    }
}

/// The newest State; all brokers that have it have the same, byte for byte, or it is said which have not.
async fn agree(cluster: &Cluster) -> (Option<Arc<State>>, Vec<String>) {
    let mut troubles = Vec::new();
    let mut newest: Option<Arc<State>> = None;
    let mut hashes: BTreeMap<u64, BTreeMap<u64, Vec<i32>>> = BTreeMap::new();
    for (id, replica) in cluster.replicas() {
        match replica.barrier().await {
            Ok(state) => {
                let (header, _) = state.encode_snapshot();
                let position = header.at.position.0;
                hashes.entry(position).or_default().entry(header.state_hash).or_default().push(id);
                if newest.as_ref().is_none_or(|newest| newest.head().position < state.head().position) {
                    newest = Some(state);
                }
            }
            Err(unavailable) => troubles.push(format!("broker {id} has no State at the end: {unavailable}")),
        }
    }
    let differ = hashes.into_iter().filter(|(_, hashes)| hashes.len() > 1);
    troubles.extend(differ.map(|(position, hashes)| format!("brokers differ at position {position}: {hashes:?}")));
    (newest, troubles)
}
