//! How a broker stops: signals, and the order in which its tasks end.
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

/// How often it is looked whether the last client of a draining broker has gone.
const CLIENTS_LOOK_EVERY: Duration = Duration::from_millis(100);

use super::{ServerError, fatal};
use crate::api::Context;
use crate::metadata::Fatal;
use crate::state::{DrainBroker, UnregisterBroker};
use crate::world::JoinHandle;

/// Resolves to the name of the first signal that tells the process to stop.
pub(super) fn signals() -> std::io::Result<impl Future<Output = &'static str>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// Takes the broker out of the cluster, and goes on answering until its clients have gone to the others or the time for it
/// is over. Ends at once where there are no others.
pub async fn hand_over(context: &Context) {
    if !context.members().has_others() {
        return;
    }
    let (world, broker) = (&context.world, context.membership.me().0);
    let patience = Duration::from_millis(context.config.cluster.drain_wait_ms);
    let moved = async {
        // If the journal does not take it, the others notice when this broker has been silent for long.
        let _ = context.replica.propose(DrainBroker { broker }).await;
        while context.metrics.net.connections.get() > 0 {
            world.sleep(CLIENTS_LOOK_EVERY).await;
        }
    };
    if world.timeout(patience, moved).await.is_none() {
        info!(millis = patience.as_millis(), "some clients have not moved to the other brokers");
    }
}

/// Ends what no client can reach any more: the last flush, then the registration as the very last entry (H8).
pub async fn finish(
    context: Arc<Context>,
    batcher: JoinHandle<()>,
    owner: JoinHandle<Result<(), Fatal>>,
) -> Result<(), ServerError> {
    let replica = context.replica.clone();
    // The batcher ends when the last handle of it is gone, after its last flush is answered.
    drop(context);
    let _ = batcher.await;
    let broker = replica.identity().broker.0;
    // If the journal does not take it, the next registration ends this incarnation instead.
    let _ = replica.propose(UnregisterBroker { broker }).await;
    if owner.is_finished() {
        return Err(fatal(owner.await));
    }
    Ok(())
}
