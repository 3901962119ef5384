//! The read barrier: one read of the journal's head, shared by all requests that came before it started.
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Shared, Unavailable};
use crate::journal::Journal;
use crate::state::State;
use crate::types::Position;

pub(super) type Asked = oneshot::Sender<Result<Arc<State>, Unavailable>>;

/// Requests that share one read of the head.
const WAITING_MAX: usize = 4096;

/// Serves barriers until the last handle is gone.
pub(super) async fn run(
    journal: Arc<dyn Journal>,
    shared: Arc<Shared>,
    mut applied: watch::Receiver<Position>,
    mut asked: mpsc::Receiver<Asked>,
) {
    let mut waiting = Vec::new();
    // Whoever is taken here asked before the read below starts (H10); who comes later waits for the next one.
    while asked.recv_many(&mut waiting, WAITING_MAX).await > 0 {
        let result = match journal.head().await {
            Ok(head) => match applied.wait_for(|at| *at >= head.position).await {
                Ok(_) => Ok(shared.state.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()),
                Err(_) => Err(Unavailable("the broker has stopped".to_owned())),
            },
            Err(error) => Err(Unavailable(error.to_string())),
        };
        for reply in waiting.drain(..) {
            // A requester that went away needs no answer.
            let _ = reply.send(result.clone());
        }
    }
}
