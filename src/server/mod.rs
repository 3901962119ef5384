//! Wiring only: builds the rooms in order, starts them, and stops them in the opposite one. It decides nothing that a
//! room decides. Started from `main`; the tests of the whole are in `integration-tests/`, and `integration-tests/sim`
//! runs clusters of it from a seed.
mod audit;
mod build;
mod fork;
mod garbage;
mod gauges;
mod segment;
mod stop;
mod topic;

pub use audit::run as audit;
pub use build::{Broker, assemble};
pub use fork::{resolve as resolve_fork, show as show_fork};
pub use garbage::show as show_garbage;
pub use segment::dump as dump_segment;
pub use stop::{finish, hand_over};
pub use topic::describe as describe_topic;

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::cli;
use crate::config::{Config, Entrance, JournalKind};
use crate::metadata::{Fatal, MendError, StartError};
use crate::net::{self, Bound, ListenError};
use crate::store::OpenError as BucketError;
use crate::store::probe::ProbeError;
use crate::telemetry::{Health, Metrics, admin};
use crate::types::TimestampMs;
use crate::world::{Instant, World};

/// Why a broker could not be started, or stopped other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("{0}")]
    System(String),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("bucket: {0}")]
    Bucket(#[from] BucketError),
    #[error("bucket: {0}")]
    Probe(#[from] ProbeError),
    #[error("journal: {0}")]
    Journal(#[from] crate::journal::OpenError),
    #[error("{0}")]
    Postgres(#[from] crate::journal::PostgresOpenError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("stopped, since going on could give offsets twice or lose records: {0}")]
    Fatal(#[from] Fatal),
    #[error(transparent)]
    Mend(#[from] MendError),
    /// What an audit found.
    #[error("{0}")]
    Unsound(String),
}

impl ServerError {
    fn is_fork(&self) -> bool {
        match self {
            Self::Start(error) => error.is_fork(),
            Self::Fatal(fatal) => fatal.is_fork(),
            _ => false,
        }
    }
}

/// Runs a broker until it is told to stop (SIGTERM, SIGINT): then it stops accepting, flushes, answers, and returns. One
/// that finds the journal's history forked lets its clients go and stays, to say so, until it is told to stop.
///
/// # Errors
/// Why it could not be started, or can't go on.
pub async fn run(config: Config) -> Result<(), ServerError> {
    let world = World::real().map_err(|e| ServerError::System(format!("no random numbers: {e}")))?;
    let begun = world.now();
    let metrics = Arc::new(Metrics::new(TimestampMs(world.wall_ms().0)));
    let health = Health::starting();
    let told_by = stop::signals().map_err(|e| ServerError::System(format!("signals can't be received: {e}")))?;
    let (tell, mut told) = watch::channel(None);
    world.spawn("signals", async move {
        tell.send_replace(Some(told_by.await));
    });
    let config = Arc::new(config);
    let mut bound = Vec::new();
    for listener in &config.listeners {
        bound.push(net::bind(listener).await?);
    }
    let (_admin_stops_when_dropped, stopping) = watch::channel(false);
    serve_admin(&config, &world, &metrics, &health, stopping).await?;
    let ended = serve(&config, &world, &metrics, &health, bound, &mut told, begun).await;
    if let Err(error) = &ended
        && error.is_fork()
    {
        error!(%error, "this broker acknowledges nothing any more; it stays until it is told to stop");
        health.object("journal", error.to_string());
        metrics.journal.forked.set(1);
        // An error would mean that the task that waits for signals is gone.
        let _ = told.wait_for(Option::is_some).await;
    }
    ended
}

async fn serve(
    config: &Arc<Config>,
    world: &World,
    metrics: &Arc<Metrics>,
    health: &Health,
    bound: Vec<Bound>,
    told: &mut watch::Receiver<Option<&'static str>>,
    begun: Instant,
) -> Result<(), ServerError> {
    let (stop, stopping) = watch::channel(false);
    let entrances: Vec<Entrance> = bound.iter().map(|b| b.entrance.clone()).collect();
    let broker = build::broker(config, world, metrics, &entrances).await?;
    gauges::show_lags(&broker.context);
    world.spawn("gauges", gauges::run(broker.context.clone(), broker.limits.budget.clone()));
    world.spawn("readiness", object_while_reloading(broker.context.replica.reloading(), health.clone()));
    let addresses: Vec<_> = bound.iter().map(|b| (b.entrance.listener.clone(), b.address)).collect();
    let listeners: Vec<_> = bound
        .into_iter()
        .map(|b| net::serve(broker.context.clone(), broker.limits.clone(), b, stopping.clone()))
        .collect();
    health.clear("start");
    for (name, address) in &addresses {
        info!(listener = name, %address, "listening");
    }
    let millis = (world.now() - begun).as_millis();
    info!(broker = config.broker_id, millis, "broker is ready");
    greet(config, &addresses);
    let (mut owner, mut told_to_go) = (broker.owner, broker.drained);
    let told = tokio::select! {
        biased;
        ended = &mut owner => {
            stop.send_replace(true);
            return Err(fatal(ended));
        }
        told = told.wait_for(Option::is_some) => told.map_or("SIGTERM", |told| told.unwrap_or("SIGTERM")),
        _ = told_to_go.wait_for(|told| *told) => "drain",
    };
    health.object("stop", "the broker is stopping");
    info!(signal = told, "stopping: clients are sent to the others, if there are any");
    tokio::select! {
        biased;
        ended = &mut owner => return Err(fatal(ended)),
        () = stop::hand_over(&broker.context) => {}
    }
    info!("no new connections, what was taken is finished");
    stop.send_replace(true);
    let patience = Duration::from_millis(config.net.drain_timeout_ms);
    let drained = world.timeout(patience, async {
        for listener in listeners {
            // A listener's task that failed has no connections left.
            let _ = listener.await;
        }
    });
    if drained.await.is_none() {
        warn!(millis = patience.as_millis(), "clients did not let go in time, their connections are cut");
    }
    drop(told_to_go);
    stop::finish(broker.context, broker.batcher, owner).await?;
    info!("stopped");
    Ok(())
}

/// A broker that loads its metadata anew is to be left alone until it has it.
async fn object_while_reloading(mut reloading: watch::Receiver<bool>, health: Health) {
    while reloading.changed().await.is_ok() {
        if *reloading.borrow_and_update() {
            health.object("journal", "its metadata was overtaken by a trim of the journal, a snapshot is being loaded");
        } else {
            health.clear("journal");
        }
    }
}

/// Says on standard output where clients connect and what to try next.
fn greet(config: &Config, listeners: &[(String, std::net::SocketAddr)]) {
    let Some((_, address)) = listeners.first() else { return };
    let mut text = format!(
        "\nStrandline {} is ready. Kafka clients connect to {address}.\n  bucket   {}\n",
        env!("CARGO_PKG_VERSION"),
        config.bucket_url(),
    );
    if config.journal.kind == JournalKind::Sqlite {
        text.push_str(&format!("  journal  {}\n", config.journal_path().display()));
    }
    if let Some(url) = config.journal.postgres_url.as_ref().filter(|_| config.journal.kind == JournalKind::Postgres) {
        text.push_str(&format!("  journal  {}\n", url.shown()));
    }
    if let Some(admin) = &config.admin.address {
        text.push_str(&format!("  metrics  http://{admin}/metrics\n"));
    }
    text.push_str(&format!(
        "Try, with Kafka's tools or kcat:\n  \
         kafka-topics.sh --bootstrap-server {address} --create --topic first --partitions 3\n  \
         echo 'key:value' | kcat -b {address} -t first -P -K:\n  \
         kcat -b {address} -t first -C -o beginning -e -f '%p/%o %k=%s\\n'\n\
         Ctrl-C or SIGTERM stops it after everything that it took is finished.\n\n"
    ));
    cli::print(&text);
}

fn fatal(ended: Result<Result<(), Fatal>, tokio::task::JoinError>) -> ServerError {
    match ended {
        Ok(Err(fatal)) => ServerError::Fatal(fatal),
        Ok(Ok(())) => ServerError::System("the metadata task ended by itself".to_owned()),
        Err(panicked) => ServerError::System(format!("the metadata task failed: {panicked}")),
    }
}

async fn serve_admin(
    config: &Config,
    world: &World,
    metrics: &Arc<Metrics>,
    health: &Health,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ServerError> {
    let Some(address) = &config.admin.address else { return Ok(()) };
    let listener = tokio::net::TcpListener::bind(address.as_str()).await.map_err(|e| {
        ServerError::System(format!("admin.address: can't listen on {address}: {e}; choose another, or null for none"))
    })?;
    if let Ok(address) = listener.local_addr() {
        info!(%address, "metrics and health");
    }
    let stopped = async move {
        // A sender that is gone means the same.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let serve = admin::serve(listener, world.clone(), metrics.clone(), health.clone(), stopped);
    world.spawn("admin", async move {
        if let Err(error) = serve.await {
            warn!(%error, "the admin port ended");
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests;
