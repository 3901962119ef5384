//! The journal in memory, with answers that are late or lost.
use async_trait::async_trait;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use strandline::journal::{Appended, Journal, JournalError, MemoryJournal, Proposal, Stored};
use strandline::types::{Head, Position};
use strandline::world::World;

pub(crate) struct Uneven {
    journal: MemoryJournal,
    world: World,
    uneven: AtomicBool,
}

impl Uneven {
    pub(crate) fn new(world: World) -> Self {
        Self { journal: MemoryJournal::new(), world, uneven: AtomicBool::new(false) }
    }

    pub(crate) fn uneven(&self, uneven: bool) {
        self.uneven.store(uneven, Ordering::Relaxed);
    }

    async fn wait(&self, ms_max: u64) {
        if self.uneven.load(Ordering::Relaxed) {
            self.world.sleep(Duration::from_millis(self.world.random_below(ms_max))).await;
        }
    }
}

#[async_trait]
impl Journal for Uneven {
    async fn append(&self, proposal: Proposal, after: Head) -> Result<Appended, JournalError> {
        self.wait(15).await;
        let drawn = if self.uneven.load(Ordering::Relaxed) { self.world.random_below(200) } else { 99 };
        match drawn {
            0 | 1 => Err(JournalError::NotDone("by chance".into())),
            2 => Err(JournalError::Unknown("by chance".into())),
            3 => self.journal.append(proposal, after).await.and(Err(JournalError::Unknown("by chance".into()))),
            4 => std::future::pending().await,
            _ => self.journal.append(proposal, after).await,
        }
    }

    async fn read(&self, from: Position) -> Result<Vec<Stored>, JournalError> {
        self.wait(5).await;
        self.journal.read(from).await
    }

    async fn head(&self) -> Result<Head, JournalError> {
        self.wait(5).await;
        self.journal.head().await
    }

    async fn changed(&self, beyond: Position) {
        self.journal.changed(beyond).await;
    }

    async fn trim(&self, below: Position) -> Result<(), JournalError> {
        self.journal.trim(below).await
    }
}
