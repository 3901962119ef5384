//! How a broker stops: signals, and the order in which its tasks end.
use std::future::Future;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

use super::{ServerError, fatal};
use crate::api::Context;
use crate::metadata::Fatal;
use crate::state::UnregisterBroker;
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
