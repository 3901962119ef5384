//! Trimming: first the boundary, durably, then the objects below it. What was begun and not ended is ended by the next.
use std::sync::Arc;

use super::Inner;
use super::follow::gone;
use super::format::Boundary;
use crate::journal::JournalError;
use crate::store::{CreateOutcome, StoreError};
use crate::types::Position;

/// Objects of one listing while what others have left is looked for.
const LISTED_MAX: usize = 1000;

/// Listings of one sweep: what is left after them is the next one's, and a listing that names what was deleted long ago
/// has an end.
const LISTINGS_MAX: usize = 100;

impl Inner {
    pub(super) async fn trim(this: &Arc<Self>, below: Position) -> Result<(), JournalError> {
        let mut head = this.known_head().await?;
        if below > head.position {
            head = this.catch_up().await?;
        }
        let first = below.min(head.position);
        loop {
            let old = this.view().boundary.clone();
            if first <= old.first {
                return Ok(());
            }
            let fold = match this.fold_to(Position(first.0 - 1), &old).await? {
                Ok(fold) => fold,
                Err(_) if this.look_at_boundary().await? > old.first => continue,
                Err(missing) => return Err(gone(missing)),
            };
            // Less than was asked for, if a read had no answer; the rest is the next round's.
            let first = fold.head.position.next();
            let new = Boundary { number: old.number + 1, first, before: fold.head.token, newest: fold.newest };
            match this.objects.create_boundary(&new).await {
                Ok(CreateOutcome::Created) => {
                    this.view().trimmed(new);
                    let sweeper = Arc::clone(this);
                    this.world.spawn("journal sweep", async move { sweeper.sweep(old.first, first).await });
                }
                // Another broker trims too.
                Ok(CreateOutcome::Taken) => drop(this.look_at_boundary().await?),
                Err(StoreError::Refused { reason, .. }) => return Err(JournalError::NotDone(reason)),
                Err(error) => return Err(JournalError::Unknown(error.to_string())),
            }
        }
    }

    /// Deletes the entries of a trim, and those that earlier ones have left. The boundary above them is durable.
    async fn sweep(&self, from: Position, to: Position) {
        let _sweeping = self.sweeping.lock().await;
        for begin in (from.0..to.0).step_by(LISTED_MAX) {
            let end = to.0.min(begin.saturating_add(LISTED_MAX as u64));
            let positions: Vec<_> = (begin..end).map(Position).collect();
            if !self.objects.delete(&positions).await {
                tracing::debug!("trimmed journal entries could not be deleted; the next trim will try again");
                return;
            }
        }
        for _ in 0..LISTINGS_MAX {
            let Ok(lowest) = self.objects.lowest(LISTED_MAX).await else { return };
            let left: Vec<_> = lowest.iter().copied().filter(|position| *position < to).collect();
            let is_over = left.len() < LISTED_MAX;
            if !self.objects.delete(&left).await || is_over {
                return;
            }
        }
    }
}
