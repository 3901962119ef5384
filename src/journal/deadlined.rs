//! A journal that always answers: a call that has no answer in time is `Unknown`, which is what it is.
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

use super::{Appended, Journal, JournalError, Proposal, Stored};
use crate::planted::{Defect, planted};
use crate::types::{Head, Hint, Position};
use crate::world::World;

/// See the module. Nobody waits for a hung attempt: sending the same bytes again is always safe (H8, H17).
pub struct Deadlined {
    journal: Arc<dyn Journal>,
    world: World,
    deadline: Duration,
}

impl Deadlined {
    /// Gives each call of `journal` this long.
    #[must_use]
    pub fn new(journal: Arc<dyn Journal>, world: World, deadline: Duration) -> Self {
        Self { journal, world, deadline }
    }

    async fn within<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<T, JournalError>>,
    ) -> Result<T, JournalError> {
        let hung = || Err(JournalError::Unknown("no answer in time".to_owned()));
        self.world.timeout(deadline, call).await.unwrap_or_else(hung)
    }
}

#[async_trait]
impl Journal for Deadlined {
    async fn append(&self, proposal: Proposal, after: Head) -> Result<Appended, JournalError> {
        let deadline = if planted(Defect::HungAppendAwaited) { Duration::from_secs(3600) } else { self.deadline };
        self.within(deadline, self.journal.append(proposal, after)).await
    }

    async fn read(&self, from: Position) -> Result<Vec<Stored>, JournalError> {
        self.within(self.deadline, self.journal.read(from)).await
    }

    async fn head(&self) -> Result<Head, JournalError> {
        self.within(self.deadline, self.journal.head()).await
    }

    async fn changed(&self, beyond: Position) {
        self.journal.changed(beyond).await;
    }

    fn hint(&self, said: Hint) {
        self.journal.hint(said);
    }

    async fn trim(&self, below: Position) -> Result<(), JournalError> {
        self.within(self.deadline, self.journal.trim(below)).await
    }
}
