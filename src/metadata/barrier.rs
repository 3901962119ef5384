//! The read barrier: one read of the journal's head, shared by all requests that came before it started.
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::{Shared, Unavailable};
use crate::journal::Journal;
use crate::planted::{Defect, planted};
use crate::state::State;
use crate::types::Position;
use crate::world::World;

pub(super) type Asked = oneshot::Sender<Result<Arc<State>, Unavailable>>;

/// Requests that share one read of the head.
const WAITING_MAX: usize = 4096;

/// What serves the barriers.
pub(super) struct Barrier {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) world: World,
    /// For the head, and for its being applied; those who wait are told that it is not known.
    pub(super) deadline: Duration,
    pub(super) shared: Arc<Shared>,
    pub(super) applied: watch::Receiver<Position>,
    pub(super) asked: mpsc::Receiver<Asked>,
}

/// Serves barriers until the last handle is gone.
pub(super) async fn run(mut barrier: Barrier) {
    let mut waiting = Vec::new();
    let mut failing = false;
    // Whoever is taken here asked before the read below starts (H10); who comes later waits for the next one.
    while barrier.asked.recv_many(&mut waiting, WAITING_MAX).await > 0 {
        let world = barrier.world.clone();
        let result = world.timeout(barrier.deadline, barrier.pass()).await;
        let result = result.unwrap_or_else(|| Err(Unavailable("no answer in time".to_owned())));
        match &result {
            Err(error) if !failing => warn!(%error, "what the journal has is not known, trying with each request"),
            Ok(_) if failing => info!("the journal's head can be read again"),
            _ => {}
        }
        failing = result.is_err();
        while planted(Defect::BarrierJoinsEarlier)
            && let Ok(late) = barrier.asked.try_recv()
        {
            waiting.push(late);
        }
        for reply in waiting.drain(..) {
            // A requester that went away needs no answer.
            let _ = reply.send(result.clone());
        }
    }
}

impl Barrier {
    async fn pass(&mut self) -> Result<Arc<State>, Unavailable> {
        let begun = self.world.now();
        let head = self.journal.head().await.map_err(|e| Unavailable(e.to_string()))?;
        let stopped = |_| Unavailable("the broker has stopped".to_owned());
        self.applied
            .wait_for(|at| *at >= head.position || planted(Defect::BarrierDoesNotWait))
            .await
            .map_err(stopped)?;
        self.shared.confirm(begun);
        Ok(self.shared.state.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}
