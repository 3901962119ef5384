//! Where the journal ends, for a handle that knows nothing: by asking for names, in a number of requests that grows with
//! the logarithm of what is there.
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Inner;
use super::follow::gone;
use super::format::{Boundary, CHECKPOINT_EVERY};
use super::objects::SIDE_BY_SIDE;
use super::view::Fold;
use crate::journal::JournalError;
use crate::types::{Head, Position};

impl Inner {
    /// The head as it is known; it is looked for if nothing is known.
    pub(super) async fn known_head(&self) -> Result<Head, JournalError> {
        loop {
            if let Some(fold) = &self.view().fold {
                return Ok(fold.head);
            }
            let _searching = self.searching.lock().await;
            if self.view().fold.is_none() {
                self.search().await?;
            }
        }
    }

    /// Looks for the newest trim and the head, and takes in what is newest there, or some entries before it.
    async fn search(&self) -> Result<(), JournalError> {
        self.search_boundary().await?;
        loop {
            let boundary = self.view().boundary.clone();
            // All that is asked for here lies above this boundary. It is believed if the boundary is still the newest
            // afterwards.
            let before = Position(boundary.first.0 - 1);
            let is_there = |n| async move { Ok(self.objects.token(Position(n)).await?.is_some()) }.boxed();
            let head = last_present(before.0, is_there).await?;
            let found = self.fold_to(Position(head), &boundary).await?;
            self.look_at_boundary().await?;
            let mut view = self.view();
            if view.boundary.number != boundary.number {
                continue;
            }
            // A trim leaves the last entry.
            if boundary.number > 0 && head == before.0 {
                return Err(gone(boundary.first));
            }
            view.fold = Some(found.map_err(gone)?);
            drop(view);
            self.moved.notify_waiters();
            return Ok(());
        }
    }

    async fn search_boundary(&self) -> Result<(), JournalError> {
        let known = self.view().boundary.number;
        let is_there = |n| async move { Ok(self.objects.boundary(n).await?.is_some()) }.boxed();
        let last = last_present(known, is_there).await?;
        if last > known
            && let Some(boundary) = self.objects.boundary(last).await?
        {
            self.view().trimmed(boundary);
        }
        Ok(())
    }

    /// What is newest at `to`, or at an earlier position if a read has no answer after others had one: then less was learned,
    /// and not nothing. At most [`CHECKPOINT_EVERY`] entries are read; the inner error is a position that should have an entry
    /// and has none. To be believed if `boundary` is the newest afterwards.
    pub(super) async fn fold_to(
        &self,
        to: Position,
        boundary: &Boundary,
    ) -> Result<Result<Fold, Position>, JournalError> {
        let mut next = Position(to.0 - to.0 % CHECKPOINT_EVERY).max(boundary.first);
        let mut found: Option<Fold> = None;
        while next <= to {
            let left = usize::try_from(to.0 - next.0).unwrap_or(usize::MAX).saturating_add(1);
            let run = match self.objects.run(next, SIDE_BY_SIDE, left).await {
                Ok(run) => run,
                Err(JournalError::Unknown(_)) if found.is_some() => break,
                Err(error) => return Err(error),
            };
            next = Position(next.0 + run.entries.len() as u64);
            for entry in run.entries {
                let below = || if entry.below.is_some() { Fold::before(&entry) } else { Fold::after(boundary) };
                found.get_or_insert_with(below).push(entry)?;
            }
            if run.is_over && next <= to {
                return Ok(Err(next));
            }
        }
        Ok(Ok(found.unwrap_or_else(|| Fold::after(boundary))))
    }
}

/// The last number that is there, where all up to it are and none after; `known` is there, or stands for none.
async fn last_present<'a>(
    known: u64,
    is_there: impl Fn(u64) -> BoxFuture<'a, Result<bool, JournalError>> + Send,
) -> Result<u64, JournalError> {
    let (mut present, mut stride) = (known, 1_u64);
    let mut absent = loop {
        let next = present.saturating_add(stride);
        if !is_there(next).await? {
            break next;
        }
        present = next;
        stride = stride.saturating_mul(2);
    };
    while absent - present > 1 {
        let middle = present + (absent - present) / 2;
        if is_there(middle).await? {
            present = middle;
        } else {
            absent = middle;
        }
    }
    Ok(present)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn the_last_of_a_row_is_found_in_few_steps() {
        for (known, last) in [(0, 0), (0, 1), (0, 2), (0, 1_000_000), (999_000, 1_000_000), (7, 7), (7, 8)] {
            let asked = AtomicU32::new(0);
            let is_there = |n: u64| {
                asked.fetch_add(1, Ordering::Relaxed);
                std::future::ready(Ok(n <= last)).boxed()
            };
            assert_eq!(last_present(known, is_there).await, Ok(last));
            let asked = asked.into_inner();
            assert!(asked <= 42, "{asked} requests for {last}");
        }
    }
}
