//! The lives of a broker: registered with the others until they give it up, or until the journal was trimmed beyond what it
//! had applied. A new one knows nothing of the one before but its caches: what was asked then may have been asked of
//! others since, and is refused (H8).
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::Proposed;
use super::load::{Loaded, Sources};
use super::owner::{Fatal, Identity, Owner};
use super::start::StartError;
use crate::journal::JournalError;
use crate::state::{
    AnnounceBroker, BrokerProfile, Command, DrainBroker, FEATURE_LEVEL_MAX, Outcome, RegisterBroker, Standing,
};
use crate::types::{Incarnation, KafkaError, Position};
use crate::world::World;

/// Between attempts to load State anew.
const AGAIN: Duration = Duration::from_secs(1);

/// A life that the others know of.
#[derive(Clone, Copy, Default)]
pub(super) struct Registered {
    incarnation: Incarnation,
    /// The entry that it began with.
    at: Position,
    /// A later life of this process of which it is not known whether it is registered.
    asked: Option<Incarnation>,
}

impl Owner {
    /// Serves proposals until every handle is gone. Where the journal was trimmed beyond what is applied, since this broker
    /// stood still or was cut off for long, it goes on from a snapshot, in a new life (H13).
    pub(super) async fn live(&mut self, mut queue: mpsc::Receiver<Proposed>) -> Result<(), Fatal> {
        loop {
            let ended = self.run(&mut queue).await;
            let Err(Fatal::Journal(JournalError::Trimmed { first })) = ended else { return ended };
            let applied = self.state.head().position.0;
            warn!(applied, first = first.0, "the journal was trimmed beyond what is applied here, loading a snapshot");
            self.shared.reloading.send_replace(true);
            self.reload().await?;
        }
    }

    async fn reload(&mut self) -> Result<(), Fatal> {
        let Loaded { state, hashes } = self.load_again().await?;
        let (head, applied) = (state.head().position, self.state.head().position);
        if head < applied || state.cluster_id() != self.state.cluster_id() {
            let reason = format!("it ends at position {head} or is another cluster's, and {applied} was applied");
            return Err(Fatal::Overtaken { reason, forked: true });
        }
        info!(applied = applied.0, head = head.0, "state loaded anew");
        self.metrics.journal.reloads.inc();
        // First this, so that nobody who connected before does anything with what comes now.
        self.end_life();
        self.hashes = hashes;
        self.show(state);
        self.shared.changes.fetch_add(1, Ordering::Relaxed);
        self.shared.hub.wake_all();
        Ok(())
    }

    /// Tries until the journal and the bucket give State, or say that there is nothing to go on from.
    async fn load_again(&self) -> Result<Loaded, Fatal> {
        let from = Sources {
            journal: self.journal.clone(),
            bucket: self.bucket.clone(),
            world: self.world.clone(),
            metrics: self.metrics.clone(),
        };
        let mut failing = false;
        loop {
            let error = match from.load().await {
                Ok(loaded) => return Ok(loaded),
                Err(error) => passing(&from, error).await?,
            };
            if !std::mem::replace(&mut failing, true) {
                warn!(%error, "no snapshot can be loaded yet, trying on");
            }
            self.world.sleep(AGAIN).await;
        }
    }

    /// A broker that was replaced while it stood still has nothing more to say: its proposals are fenced (H8), and what it
    /// remembers of groups is another's now. One that was fenced for its silence, or whose life has ended here, begins a
    /// new one, and this gives true; perhaps the journal did not take it, so it is to be asked again.
    pub(super) async fn check_life(&mut self) -> Result<bool, Fatal> {
        let Identity { broker, incarnation } = self.identity();
        let is_over = incarnation != self.registered.incarnation;
        let Some(known) = self.state.broker(broker) else {
            // The others have forgotten it.
            return if is_over { self.begin_life().await.map(|()| true) } else { Ok(false) };
        };
        match known.incarnation {
            Some(present) if present == incarnation => {
                self.registered = Registered { incarnation, at: known.registered, asked: None };
                Ok(false)
            }
            Some(own) if own == self.registered.incarnation || Some(own) == self.registered.asked => {
                self.begin_life().await.map(|()| true)
            }
            Some(_) => Err(Fatal::Replaced { broker }),
            None if known.registered > self.registered.at && self.registered.asked.is_none() => {
                Err(Fatal::Replaced { broker })
            }
            None if known.standing == Standing::Fenced => {
                warn!(broker = broker.0, "the other brokers gave this one up, since it was silent; it registers again");
                self.begin_life().await.map(|()| true)
            }
            // It has ended its registration itself.
            None => Ok(false),
        }
    }

    fn end_life(&mut self) {
        self.shared.incarnation.store(new_incarnation(&self.world), Ordering::Relaxed);
        self.counter = 0;
    }

    async fn begin_life(&mut self) -> Result<(), Fatal> {
        let broker = self.shared.broker;
        self.end_life();
        self.registered.asked = Some(self.identity().incarnation);
        let outcomes = self.append_directly(self.registration()).await?;
        match outcomes.into_iter().next() {
            Some(Ok(Outcome::Refused(refusal))) if refusal.error != KafkaError::DuplicateBrokerRegistration => {
                Err(Fatal::Refused { broker, reason: refusal.message })
            }
            Some(Ok(Outcome::Done)) => {
                self.is_registered();
                Ok(())
            }
            // What was not done is tried again. If another process was faster, it has replaced this one.
            _ => Ok(()),
        }
    }

    /// The last entry was this life's first, and was accepted.
    pub(super) fn is_registered(&mut self) {
        self.registered = Registered { incarnation: self.identity().incarnation, at: self.appended, asked: None };
    }

    /// What begins a life; the first command of its first entry (H8).
    pub(super) fn registration(&self) -> Vec<Command> {
        let Identity { broker, incarnation } = self.identity();
        let register =
            RegisterBroker { broker: broker.0, incarnation: incarnation.0, feature_level_max: FEATURE_LEVEL_MAX };
        let mut commands = vec![register.into()];
        if self.level() >= 2 {
            let BrokerProfile { zone, endpoints } = BrokerProfile::clone(&self.profile);
            commands.push(AnnounceBroker { zone, endpoints }.into());
        }
        let told_to_go = |known: &crate::state::Broker| {
            known.standing == Standing::Draining && known.incarnation == Some(self.registered.incarnation)
        };
        if self.state.broker(broker).is_some_and(told_to_go) {
            // A new process stays; this one was told to go in its life before.
            commands.push(DrainBroker { broker: broker.0 }.into());
        }
        commands
    }
}

/// An error that may be another one at the next attempt.
async fn passing(from: &Sources, error: StartError) -> Result<StartError, Fatal> {
    use JournalError::{NotDone, Trimmed, Unknown};
    match error {
        StartError::Bucket(_)
        | StartError::Journal(NotDone(_) | Unknown(_) | Trimmed { .. })
        | StartError::Fatal(Fatal::Journal(NotDone(_) | Unknown(_) | Trimmed { .. })) => Ok(error),
        // The one that they trimmed for was not there yet when we looked.
        StartError::NoSnapshot { first } if from.has_snapshot_from(first).await.unwrap_or(true) => Ok(error),
        StartError::Journal(error) => Err(Fatal::Journal(error)),
        StartError::Fatal(fatal) => Err(fatal),
        StartError::ForkFound { mark } => Err(Fatal::ForkFound { mark }),
        other => Err(Fatal::Overtaken { reason: other.to_string(), forked: other.is_fork() }),
    }
}

pub(super) fn new_incarnation(world: &World) -> u64 {
    world.random_u64() >> 1
}
