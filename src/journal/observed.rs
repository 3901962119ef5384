//! A journal whose appends are counted and timed. Who appends knows what an entry holds, and counts that.
use async_trait::async_trait;
use std::sync::Arc;

use super::{Appended, Journal, JournalError, Proposal, Stored};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Reason;
use crate::types::{Head, Hint, Position};
use crate::world::World;

/// See the module.
pub struct Observed {
    journal: Arc<dyn Journal>,
    world: World,
    metrics: Arc<Metrics>,
}

impl Observed {
    /// Observes `journal`.
    #[must_use]
    pub fn new(journal: Arc<dyn Journal>, world: World, metrics: Arc<Metrics>) -> Self {
        Self { journal, world, metrics }
    }
}

#[async_trait]
impl Journal for Observed {
    async fn append(&self, proposal: Proposal, after: Head) -> Result<Appended, JournalError> {
        let start = self.world.now();
        let result = self.journal.append(proposal, after).await;
        let metrics = &self.metrics.journal;
        metrics.append_seconds.observe(self.world.now().saturating_duration_since(start).as_secs_f64());
        match &result {
            Ok(_) => drop(metrics.appends.inc()),
            Err(error) => drop(metrics.append_errors.get_or_create(&Reason { reason: reason(error) }).inc()),
        }
        result
    }

    async fn read(&self, from: Position) -> Result<Vec<Stored>, JournalError> {
        self.journal.read(from).await
    }

    async fn head(&self) -> Result<Head, JournalError> {
        self.journal.head().await
    }

    async fn changed(&self, beyond: Position) {
        self.journal.changed(beyond).await;
    }

    fn hint(&self, said: Hint) {
        self.journal.hint(said);
    }

    async fn trim(&self, below: Position) -> Result<(), JournalError> {
        self.journal.trim(below).await
    }
}

fn reason(error: &JournalError) -> &'static str {
    match error {
        JournalError::Forked { .. } => "forked",
        JournalError::Trimmed { .. } => "trimmed",
        JournalError::CounterTaken { .. } => "counter_taken",
        JournalError::TooLarge { .. } => "too_large",
        JournalError::Damaged { .. } => "damaged",
        JournalError::NotDone(_) => "not_done",
        JournalError::Unknown(_) => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::MemoryJournal;
    use crate::journal::contract::{self, Harness, entry};
    use crate::types::{TimestampMs, Token};

    struct OverMemory(Arc<Observed>);

    impl OverMemory {
        fn new() -> Self {
            let metrics = Arc::new(Metrics::new(TimestampMs(0)));
            Self(Arc::new(Observed::new(Arc::new(MemoryJournal::new()), World::seeded(1), metrics)))
        }
    }

    #[async_trait]
    impl Harness for OverMemory {
        async fn open(&self) -> Arc<dyn Journal> {
            self.0.clone()
        }
    }

    contract::suite!(OverMemory::new());

    #[tokio::test]
    async fn appends_and_their_errors_are_counted() {
        let OverMemory(journal) = OverMemory::new();
        journal.append(entry(1, 1, b"x"), Head::default()).await.unwrap();
        let forked = Head { position: Position(7), token: Token(1) };
        journal.append(entry(1, 2, b"x"), forked).await.unwrap_err();
        let metrics = &journal.metrics.journal;
        assert_eq!(metrics.appends.get(), 1);
        assert_eq!(metrics.append_errors.get_or_create(&Reason { reason: "forked" }).get(), 1);
    }
}
