//! A journal whose answers are late, lost, or wrong, by a script or by the world's chance.
use async_trait::async_trait;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::journal::{Appended, Journal, JournalError, Proposal, Stored};
use crate::metadata::Replica;
use crate::types::{Head, Position};
use crate::world::World;

/// How one append ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Done,
    NotDone,
    /// Answered `Unknown`; not done.
    LostBefore,
    /// Answered `Unknown`; done.
    LostAfter,
    /// Never answered; not done.
    Silent,
    /// Never answered; done.
    SilentDone,
    Forked,
}

/// One append's fate: entries of others that come before it, and how long it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trouble {
    end: End,
    delay: Duration,
    foreign: u32,
}

impl End {
    pub(crate) fn after(self, delay: Duration) -> Trouble {
        Trouble { delay, ..self.into() }
    }

    /// After others have appended `foreign` entries.
    pub(crate) fn behind(self, foreign: u32) -> Trouble {
        Trouble { foreign, ..self.into() }
    }
}

impl From<End> for Trouble {
    fn from(end: End) -> Self {
        Self { end, delay: Duration::ZERO, foreign: 0 }
    }
}

#[derive(Clone)]
pub(crate) struct Troubled {
    journal: Arc<dyn Journal>,
    world: World,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    script: VecDeque<Trouble>,
    by_chance: bool,
    /// Entries that a page has at most.
    page: Option<usize>,
    /// Who appends the entries of others.
    other: Option<Replica>,
    /// Every proposal that came, retries included.
    seen: Vec<Proposal>,
    heads: usize,
    head_delay: Duration,
    head_fails: bool,
    read_delay: Duration,
    away: bool,
}

impl Troubled {
    pub(crate) fn new(journal: Arc<dyn Journal>, world: World) -> Self {
        Self { journal, world, plan: Arc::default() }
    }

    /// The next appends end so, one each; after them all is well.
    pub(crate) fn script(&self, troubles: impl IntoIterator<Item = impl Into<Trouble>>) {
        self.plan().script.extend(troubles.into_iter().map(Into::into));
    }

    /// From now on, or not any more, every append that no script covers ends by chance.
    pub(crate) fn by_chance(&self, by_chance: bool) {
        self.plan().by_chance = by_chance;
    }

    pub(crate) fn page(&self, entries: usize) {
        self.plan().page = Some(entries);
    }

    pub(crate) fn other(&self, other: Replica) {
        self.plan().other = Some(other);
    }

    pub(crate) fn seen(&self) -> Vec<Proposal> {
        self.plan().seen.clone()
    }

    pub(crate) fn heads(&self) -> usize {
        self.plan().heads
    }

    pub(crate) fn slow_heads(&self, delay: Duration) {
        self.plan().head_delay = delay;
    }

    pub(crate) fn fail_heads(&self, fail: bool) {
        self.plan().head_fails = fail;
    }

    /// From now on, or not any more, every call is refused.
    pub(crate) fn away(&self, away: bool) {
        self.plan().away = away;
    }

    fn is_there(&self) -> Result<(), JournalError> {
        if self.plan().away { Err(JournalError::NotDone("it is away".into())) } else { Ok(()) }
    }

    pub(crate) fn slow_reads(&self, delay: Duration) {
        self.plan().read_delay = delay;
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Trouble {
        let mut plan = self.plan();
        if let Some(scripted) = plan.script.pop_front() {
            return scripted;
        }
        if !plan.by_chance {
            return End::Done.into();
        }
        let end = match self.world.random_below(20) {
            0..2 => End::NotDone,
            2..4 => End::LostBefore,
            4..6 => End::LostAfter,
            6 => End::Silent,
            7 => End::SilentDone,
            _ => End::Done,
        };
        let delay = Duration::from_millis(self.world.random_below(300));
        Trouble { end, delay, foreign: 0 }
    }

    fn paged(&self, mut entries: Vec<Stored>) -> Vec<Stored> {
        entries.truncate(self.plan().page.unwrap_or(usize::MAX));
        entries
    }
}

#[async_trait]
impl Journal for Troubled {
    async fn append(&self, proposal: Proposal, after: Head) -> Result<Appended, JournalError> {
        self.plan().seen.push(proposal.clone());
        self.is_there()?;
        let trouble = self.next();
        let other = self.plan().other.clone();
        for _ in 0..trouble.foreign {
            let other = other.as_ref().expect("somebody else appends");
            other.propose(super::ids(1)).await.expect("the other has no trouble");
        }
        self.world.sleep(trouble.delay).await;
        let lost = || JournalError::Unknown("the reply was lost".into());
        match trouble.end {
            End::Done => {
                let appended = self.journal.append(proposal, after).await?;
                Ok(Appended { missed: self.paged(appended.missed), ..appended })
            }
            End::NotDone => Err(JournalError::NotDone("full".into())),
            End::LostBefore => Err(lost()),
            End::LostAfter => self.journal.append(proposal, after).await.and(Err(lost())),
            End::Silent => std::future::pending().await,
            End::SilentDone => {
                self.journal.append(proposal, after).await?;
                std::future::pending().await
            }
            End::Forked => Err(JournalError::Forked { after, reason: "another history".into() }),
        }
    }

    async fn read(&self, from: Position) -> Result<Vec<Stored>, JournalError> {
        let delay = self.plan().read_delay;
        self.world.sleep(delay).await;
        self.is_there()?;
        self.journal.read(from).await.map(|page| self.paged(page))
    }

    async fn head(&self) -> Result<Head, JournalError> {
        self.is_there()?;
        let head = self.journal.head().await;
        let (delay, fails) = {
            let mut plan = self.plan();
            plan.heads += 1;
            (plan.head_delay, plan.head_fails)
        };
        self.world.sleep(delay).await;
        if fails { Err(JournalError::Unknown("no head".into())) } else { head }
    }

    async fn changed(&self, beyond: Position) {
        self.journal.changed(beyond).await;
    }

    async fn trim(&self, below: Position) -> Result<(), JournalError> {
        self.journal.trim(below).await
    }
}
