//! One broker's way to the journal that all share. Appends that were sent go on when their sender dies. When the journal
//! has lost entries, each broker finds itself on a new connection, and holds it against what was seen before, as it does
//! with PostgreSQL.
use async_trait::async_trait;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use strandline::journal::{Appended, Journal, JournalError, MemoryJournal, Proposal, Stored, WitnessError, Witnesses};
use strandline::planted::{Defect, planted};
use strandline::types::{Head, Position};
use strandline::world::World;
use tokio::sync::oneshot;

use crate::faults::{Fault, Faults};
use crate::network::{Link, Network};

/// See the module.
#[derive(Clone)]
pub struct Access {
    pub journal: MemoryJournal,
    pub world: World,
    pub faults: Faults,
    pub network: Network,
    pub broker: i32,
    /// How long a call takes at most when nothing is wrong, in ms.
    pub delay_ms: u64,
    /// How often the journal has lost entries.
    pub losses: Arc<AtomicU64>,
    pub line: Arc<Line>,
}

/// What a life of a broker knows of the journal.
pub struct Line {
    /// The losses before the connection that it has.
    losses: AtomicU64,
    /// The last entry that it has seen.
    seen: Mutex<Head>,
    witnesses: Arc<dyn Witnesses>,
}

impl Line {
    /// The first connection of a life.
    #[must_use]
    pub fn new(losses: u64, witnesses: Arc<dyn Witnesses>) -> Self {
        Self { losses: AtomicU64::new(losses), seen: Mutex::default(), witnesses }
    }

    fn saw(&self, head: Head) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = (*seen).max(head);
    }

    fn seen(&self) -> Head {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const APPEND_FAULTS: [Fault; 6] = [
    Fault::JournalFull,
    Fault::JournalNotDone,
    Fault::JournalLost,
    Fault::JournalReplyLost,
    Fault::JournalDoneLater,
    Fault::JournalHangs,
];

impl Access {
    /// The way there.
    async fn travel(&self) {
        let mut delay = self.world.random_below(self.delay_ms.max(1));
        if self.faults.happens(Fault::JournalSlow) {
            delay += 200 + self.world.random_below(3_000);
        }
        self.world.sleep(Duration::from_millis(delay)).await;
        self.network.passable(Link::Journal(self.broker)).await;
    }

    async fn served(&self, proposal: Proposal, after: Head) -> Option<Result<Appended, JournalError>> {
        let losses = self.losses.load(Ordering::Relaxed);
        let unknown = || Some(Err(JournalError::Unknown("a fault of the simulation".into())));
        self.travel().await;
        let fault = self.faults.first_of(&APPEND_FAULTS);
        let result = match fault {
            None => self.append_now(proposal, after).await,
            Some(Fault::JournalFull | Fault::JournalNotDone) => {
                return Some(Err(JournalError::NotDone("a fault of the simulation".into())));
            }
            Some(Fault::JournalLost) => return unknown(),
            Some(Fault::JournalReplyLost) => {
                let _ = self.append_now(proposal, after).await;
                return unknown();
            }
            Some(Fault::JournalDoneLater) => {
                self.world.sleep(Duration::from_millis(200 + self.world.random_below(20_000))).await;
                // What was on its way to a store that was replaced does not arrive at the other one.
                if self.losses.load(Ordering::Relaxed) == losses {
                    let _ = self.append_now(proposal, after).await;
                }
                return None;
            }
            Some(_) => {
                if self.world.random_below(2) == 0 {
                    let _ = self.append_now(proposal, after).await;
                }
                return None;
            }
        };
        self.world.sleep(Duration::from_millis(self.world.random_below(self.delay_ms.max(1)))).await;
        self.network.passable(Link::Journal(self.broker)).await;
        Some(result)
    }

    async fn append_now(&self, proposal: Proposal, after: Head) -> Result<Appended, JournalError> {
        self.connected().await?;
        self.network.note("append", &proposal.counter.to_string(), &proposal.payload);
        let token = proposal.token;
        let appended = self.journal.append(proposal, after).await?;
        self.line.saw(Head { position: appended.position, token });
        Ok(appended)
    }

    /// Before anything is asked on a new connection.
    async fn connected(&self) -> Result<(), JournalError> {
        let losses = self.losses.load(Ordering::Relaxed);
        if self.line.losses.load(Ordering::Relaxed) == losses {
            return Ok(());
        }
        if planted(Defect::ForkIgnored) {
            self.line.losses.store(losses, Ordering::Relaxed);
            return Ok(());
        }
        let own = self.line.seen();
        let mut seen = match self.line.witnesses.since(own.position).await {
            Ok(seen) => seen,
            Err(WitnessError::Forked(reason)) => return Err(JournalError::Forked { after: own, reason }),
            Err(unavailable) => return Err(JournalError::Unknown(unavailable.to_string())),
        };
        seen.push(own);
        for witness in seen.into_iter().filter(|seen| seen.position > Position(0)) {
            let found = self.journal.read(witness.position).await;
            let has = found.map(|page| page.first().is_some_and(|entry| entry.proposal.token == witness.token));
            if has == Ok(false) {
                return Err(JournalError::Forked { after: witness, reason: "the simulation lost it".into() });
            }
        }
        // Those that were on their way while it was looked at were on the old one.
        if self.losses.load(Ordering::Relaxed) != losses {
            return Err(JournalError::Unknown("the connection was lost".into()));
        }
        self.line.losses.store(losses, Ordering::Relaxed);
        Ok(())
    }

    async fn fails(&self, fault: Fault) -> Result<(), JournalError> {
        self.travel().await;
        if self.faults.happens(fault) {
            if self.world.random_below(3) == 0 {
                std::future::pending::<()>().await;
            }
            return Err(JournalError::Unknown("a fault of the simulation".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl Journal for Access {
    async fn append(&self, proposal: Proposal, after: Head) -> Result<Appended, JournalError> {
        let (answer, answered) = oneshot::channel();
        let access = self.clone();
        self.world.spawn("append", async move {
            if let Some(result) = access.served(proposal, after).await {
                // A sender that died or gave up needs no answer.
                let _ = answer.send(result);
            }
        });
        match answered.await {
            Ok(result) => result,
            Err(_) => std::future::pending().await,
        }
    }

    async fn read(&self, from: Position) -> Result<Vec<Stored>, JournalError> {
        self.fails(Fault::JournalReadFails).await?;
        self.connected().await?;
        let page = self.journal.read(from).await?;
        if let Some(last) = page.last() {
            self.line.saw(Head { position: last.position, token: last.proposal.token });
        }
        Ok(page)
    }

    async fn head(&self) -> Result<Head, JournalError> {
        // What is answered was so at some time between the question and the answer.
        self.fails(Fault::JournalHeadFails).await?;
        self.connected().await?;
        let head = self.journal.head().await;
        self.travel().await;
        head
    }

    async fn changed(&self, beyond: Position) {
        self.journal.changed(beyond).await;
        if self.faults.happens(Fault::JournalNoticeLate) {
            self.world.sleep(Duration::from_millis(self.world.random_below(3_000))).await;
        }
        self.network.passable(Link::Journal(self.broker)).await;
    }

    async fn trim(&self, below: Position) -> Result<(), JournalError> {
        self.fails(Fault::JournalNotDone).await?;
        self.connected().await?;
        self.network.note("trim", &below.0.to_string(), &[]);
        self.journal.trim(below).await
    }
}
