//! The owner of the replica: the only task that appends and the only one that changes the shared State.
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::life::Registered;
use super::{ProposeError, Proposed, Shared};
use crate::journal::{Appended, Journal, JournalError, Proposal, Stored};
use crate::planted::{Defect, planted};
use crate::state::{
    BatchOutcome, BrokerProfile, Command, CommandKind, Entry, OFFSETS_TOPIC, Outcome, RunSpec, RunsReader, State,
};
use crate::store::Bucket;
use crate::telemetry::Metrics;
use crate::types::{BrokerId, Head, Hint, Incarnation, Position, Slot, Token};
use crate::world::{Instant, World};

/// What one entry takes at most, so that no append is slow for the others (H15).
const ENTRY_COMMANDS_MAX: usize = 1024;
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// What proposers of an earlier life are told.
const OVERTAKEN: &str = "the other brokers had given this one up before it came to this, or gone on without it";

/// Between attempts of an append that failed: short, since producers wait for it.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Attempts of an append that certainly did not happen before its proposers are told so (they may try again): about
/// two seconds, well below the clients' 30.
const NOT_DONE_ATTEMPTS: u32 = 20;

/// Who proposes: a broker in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub broker: BrokerId,
    pub incarnation: Incarnation,
}

/// Why the replica can't go on. The broker stops, and says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    #[error(transparent)]
    Journal(JournalError),
    #[error(
        "another process is registered as broker {} now; if both shall run, give each a broker_id of its own", broker.0
    )]
    Replaced { broker: BrokerId },
    #[error("broker {} was fenced and can't register again: {reason}", broker.0)]
    Refused { broker: BrokerId, reason: String },
    #[error(
        "a fork of the journal's history was found, see {mark} in the bucket; `strandline fork show` tells what there is to go \
         on from"
    )]
    ForkFound { mark: String },
    #[error(
        "the journal was trimmed beyond what this broker had applied, and there is nothing to go on from: {reason}"
    )]
    Overtaken { reason: String, forked: bool },
    #[error("journal entry {position} {reason}")]
    Entry { position: Position, reason: String },
    #[error(
        "the outcomes up to journal position {at} differ from those of broker {broker}: one of the two has a defect; \
         stop both versions from running side by side, and report it"
    )]
    Diverged { at: Position, broker: BrokerId },
}

impl Fatal {
    /// Whether the history forked, which all brokers have to know (H2).
    #[must_use]
    pub fn is_fork(&self) -> bool {
        let overtaken = matches!(self, Self::Overtaken { forked: true, .. });
        overtaken || matches!(self, Self::Journal(JournalError::Forked { .. }) | Self::ForkFound { .. })
    }
}

/// Positions whose outcome hashes are remembered, to compare with what entries say (H5).
const REMEMBERED_HASHES: usize = 4096;

pub(super) struct Owner {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) world: World,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shared: Arc<Shared>,
    pub(super) state: Arc<State>,
    pub(super) counter: u64,
    pub(super) applied: watch::Sender<Position>,
    pub(super) hashes: OutcomeHashes,
    /// What a cluster that this broker founds begins at.
    pub(super) founding_level: u32,
    /// What the others are told of this broker.
    pub(super) profile: Arc<BrokerProfile>,
    /// The last entry of this broker.
    pub(super) appended: Position,
    /// What its last life began with that others know of.
    pub(super) registered: Registered,
}

/// The chain hash of outcomes after each of the last positions.
#[derive(Default)]
pub(super) struct OutcomeHashes(std::collections::VecDeque<(Position, u64)>);

impl OutcomeHashes {
    pub(super) fn remember(&mut self, state: &State) {
        if self.0.len() == REMEMBERED_HASHES {
            self.0.pop_front();
        }
        self.0.push_back((state.head().position, state.outcomes_hash()));
    }

    /// Compares what the writer of `entry` computed with what we did.
    pub(super) fn check(&self, entry: &Entry) -> Result<(), Fatal> {
        let at = Position(entry.after_position);
        match self.0.iter().rev().find(|(position, _)| *position == at) {
            Some((_, ours)) if *ours != entry.after_outcomes && !planted(Defect::SnapshotForgetsWindows) => {
                Err(Fatal::Diverged { at, broker: BrokerId(entry.broker) })
            }
            _ => Ok(()),
        }
    }
}

/// Decodes a stored entry, checks its outcome hash and folds it in.
pub(super) fn fold(
    state: &mut State,
    hashes: &mut OutcomeHashes,
    stored: Stored,
) -> Result<(Entry, Vec<Outcome>), Fatal> {
    let position = stored.position;
    let entry =
        Entry::decode_framed(stored.proposal.payload).map_err(|e| Fatal::Entry { position, reason: e.to_string() })?;
    hashes.check(&entry)?;
    let outcomes = state.apply(position, &entry);
    hashes.remember(state);
    Ok((entry, outcomes))
}

/// What became of an append.
struct Known {
    appended: Appended,
    /// When the attempt began that told it.
    begun: Instant,
    /// Whether no earlier attempt can have done it.
    at_once: bool,
}

impl Owner {
    /// Serves proposals, and folds in what others append, until every handle is gone.
    pub(super) async fn run(&mut self, queue: &mut mpsc::Receiver<Proposed>) -> Result<(), Fatal> {
        let mut carried = None;
        loop {
            if self.check_life().await? {
                refuse(carried.take(), queue);
                continue;
            }
            self.shared.reloading.send_if_modified(std::mem::take);
            let first = if carried.is_some() {
                carried.take()
            } else {
                let journal = self.journal.clone();
                tokio::select! {
                    biased;
                    proposed = queue.recv() => proposed,
                    () = journal.changed(self.state.head().position) => {
                        self.catch_up(None).await?;
                        continue;
                    }
                }
            };
            let Some(first) = first else { return Ok(()) };
            let mut batch = vec![first];
            carried = gather(queue, &mut batch);
            self.metrics.journal.queued_commands.set(i64::try_from(queue.len()).unwrap_or(i64::MAX));
            self.append(batch).await?;
        }
    }

    /// The cluster's feature level; of one that is not founded yet, the one that it will have.
    pub(super) fn level(&self) -> u32 {
        if self.state.cluster_id().is_some() { self.state.feature_level() } else { self.founding_level }
    }

    pub(super) fn identity(&self) -> Identity {
        let incarnation = Incarnation(self.shared.incarnation.load(Ordering::Relaxed));
        Identity { broker: self.shared.broker, incarnation }
    }

    /// Appends the commands as one entry and answers their proposers.
    pub(super) async fn append(&mut self, batch: Vec<Proposed>) -> Result<(), Fatal> {
        let (mut commands, mut replies, mut heard) = (Vec::new(), Vec::new(), Vec::new());
        for Proposed { command, reply } in batch {
            match command {
                Some(command) => {
                    commands.push(command);
                    replies.push(reply);
                }
                None => heard.push(reply),
            }
        }
        self.metrics.journal.entry_commands.observe(commands.len() as f64);
        let (entry, proposal) = self.freeze(commands);
        // H15: a defect in `apply` shows here, before the entry can reach any other broker.
        let mut overlay = State::clone(&self.state);
        let begun = self.world.now();
        let foreseen = overlay.apply(overlay.head().position.next(), &entry);
        self.metrics.state.apply_seconds.observe((self.world.now() - begun).as_secs_f64());
        let is_produce = |command: &Command| matches!(command.kind, Some(CommandKind::CommitRuns(_)));
        if planted(Defect::AckBeforeCommit) && entry.commands.iter().all(is_produce) {
            replies.drain(..).zip(&foreseen).for_each(|(reply, outcome)| drop(reply.send(Ok(outcome.clone()))));
        }
        let known = self.append_until_known(proposal).await;
        let not_done = match &known {
            Ok(Ok(_)) => None,
            Ok(Err(reason)) => Some(reason.clone()),
            // No journal takes a new entry behind one that it does not have any more, now or later.
            Err(Fatal::Journal(JournalError::Trimmed { .. })) => Some(OVERTAKEN.to_owned()),
            Err(_) => None,
        };
        if let Some(reason) = not_done {
            let replies = replies.drain(..).chain(heard.drain(..));
            replies.for_each(|r| drop(r.send(Err(ProposeError::NotDone(reason.clone())))));
        }
        let Ok(Known { appended, begun, at_once }) = known? else { return Ok(()) };
        self.appended = appended.position;
        let incarnation = self.identity().incarnation;
        self.shared.appended.send_replace(Hint { incarnation, position: appended.position });
        // One that was tried again may be there since the first attempt, and others after it.
        let is_last = at_once && appended.position == overlay.head().position && appended.missed.is_empty();
        let outcomes = if is_last && !planted(Defect::UnknownAppendAgain) {
            self.hashes.remember(&overlay);
            self.publish(overlay, &[(&entry, &foreseen)]);
            foreseen
        } else {
            self.catch_up(Some(appended)).await?
        };
        self.shared.confirm(begun);
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // A proposer that went away needs no answer.
            let _ = reply.send(Ok(outcome));
        }
        heard.into_iter().for_each(|reply| drop(reply.send(Ok(Outcome::Done))));
        Ok(())
    }

    /// As [`Owner::append`], for the broker's own first entry.
    pub(super) async fn append_directly(
        &mut self,
        commands: Vec<Command>,
    ) -> Result<Vec<Result<Outcome, ProposeError>>, Fatal> {
        let (batch, outcomes): (Vec<_>, Vec<_>) = commands
            .into_iter()
            .map(|command| {
                let (reply, outcome) = oneshot::channel();
                (Proposed { command: Some(command), reply }, outcome)
            })
            .unzip();
        self.append(batch).await?;
        Ok(outcomes.into_iter().map(|mut o| o.try_recv().unwrap_or(Err(ProposeError::Stopped))).collect())
    }

    /// Makes the entry, whose bytes never change from here on (H8).
    fn freeze(&mut self, commands: Vec<Command>) -> (Entry, Proposal) {
        self.counter += 1;
        let identity = self.identity();
        let after = self.state.head();
        let token = Token(self.world.random_u64());
        let entry = Entry {
            // One with commands of a new level says so: who does not know it stops, and skips nothing.
            feature_level: commands.iter().map(Command::feature_level).fold(self.level(), u32::max),
            broker: identity.broker.0,
            incarnation: identity.incarnation.0,
            counter: self.counter,
            token: token.0,
            wall_ms: self.world.wall_ms().0,
            after_position: after.position.0,
            after_token: after.token.0,
            after_outcomes: self.state.outcomes_hash(),
            commands,
        };
        let payload: Bytes = entry.encode_framed();
        self.metrics.journal.entry_bytes.observe(payload.len() as f64);
        self.shared.journal_bytes.fetch_add(payload.len() as u64, Ordering::Relaxed);
        (entry, Proposal { incarnation: identity.incarnation, counter: self.counter, token, payload })
    }

    /// The same commands under a new counter, as [`Defect::UnknownAppendAgain`] has it.
    fn renumbered(&mut self, proposal: &Proposal) -> Proposal {
        let commands = Entry::decode_framed(proposal.payload.clone()).map_or_else(|_| Vec::new(), |e| e.commands);
        self.freeze(commands).1
    }

    /// Tries until the journal says what became of the entry. The inner error says that it certainly did not happen.
    async fn append_until_known(&mut self, mut proposal: Proposal) -> Result<Result<Known, String>, Fatal> {
        let (mut refused, mut doubtful) = (0, false);
        loop {
            let begun = self.world.now();
            match self.journal.append(proposal.clone(), self.state.head()).await {
                Ok(appended) => {
                    if doubtful || refused > 0 {
                        info!(position = appended.position.0, "journal answers again");
                    }
                    return Ok(Ok(Known { appended, begun, at_once: !doubtful }));
                }
                Err(JournalError::NotDone(reason)) => {
                    refused += 1;
                    if refused == 1 {
                        warn!(%reason, "journal append failed, trying again");
                    }
                    // Once an attempt was ambiguous, only the journal's own answer ends the doubt.
                    if refused >= NOT_DONE_ATTEMPTS && !doubtful {
                        return Ok(Err(reason));
                    }
                }
                Err(JournalError::Unknown(reason)) if planted(Defect::UnknownAppendFailed) => return Ok(Err(reason)),
                Err(JournalError::Unknown(reason)) => {
                    if planted(Defect::UnknownAppendAgain) {
                        proposal = self.renumbered(&proposal);
                    }
                    if !doubtful {
                        warn!(%reason, "journal append without an answer, sending the same bytes until it is known");
                    }
                    doubtful = true;
                }
                Err(JournalError::TooLarge { bytes }) => {
                    warn!(bytes, "an entry is larger than the journal takes, who asked for it is refused");
                    return Ok(Err(format!("an entry of {bytes} bytes")));
                }
                Err(fatal) => return Err(Fatal::Journal(fatal)),
            }
            self.world.sleep(retry_after(&self.world)).await;
        }
    }

    /// Folds in everything up to the head, and gives the outcomes of our own entry if it is among it.
    async fn catch_up(&mut self, own: Option<Appended>) -> Result<Vec<Outcome>, Fatal> {
        let (own_position, mut page) = match own {
            Some(appended) => (Some(appended.position), appended.missed),
            None => (None, Vec::new()),
        };
        let mut own_outcomes = Vec::new();
        loop {
            let mut state = State::clone(&self.state);
            let mut folded = Vec::new();
            for stored in page.drain(..) {
                folded.push(fold(&mut state, &mut self.hashes, stored)?);
            }
            let applied: Vec<_> = folded.iter().map(|(e, o)| (e, o.as_slice())).collect();
            let published = state.head().position;
            let found = own_position.and_then(|own| {
                let first = self.state.head().position.0 + 1;
                own.0.checked_sub(first).and_then(|i| folded.get(usize::try_from(i).ok()?))
            });
            if let Some((_, outcomes)) = found {
                own_outcomes = outcomes.clone();
            }
            self.publish(state, &applied);
            page = match self.journal.read(published.next()).await {
                Ok(page) if page.is_empty() && own_position.is_none_or(|own| own <= published) => {
                    return Ok(own_outcomes);
                }
                Ok(page) => page,
                Err(JournalError::NotDone(_) | JournalError::Unknown(_)) => {
                    self.world.sleep(retry_after(&self.world)).await;
                    Vec::new()
                }
                Err(fatal) => return Err(Fatal::Journal(fatal)),
            };
        }
    }

    /// Makes `state` the one that readers see, and wakes who waits for what the entries brought.
    fn publish(&mut self, state: State, applied: &[(&Entry, impl AsRef<[Outcome]>)]) {
        self.show(state);
        for (entry, outcomes) in applied {
            let is_change = |command: &&Command| !matches!(command.kind, Some(CommandKind::SnapshotTaken(_)));
            let changes = entry.commands.iter().filter(is_change).count() as u64;
            self.shared.changes.fetch_add(changes, Ordering::Relaxed);
            for (command, outcome) in entry.commands.iter().zip(outcomes.as_ref()) {
                self.shared.hub.wake(grown(&self.state, command, outcome).into_iter());
            }
        }
    }

    /// Makes `state` the one that readers see.
    pub(super) fn show(&mut self, state: State) {
        let head: Head = state.head();
        self.state = Arc::new(state);
        let old = {
            let mut shared = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *shared, self.state.clone())
        };
        // Freed here, after the lock: it may be the last use of what the new State replaced.
        drop(old);
        self.applied.send_replace(head.position);
        self.metrics.journal.head_position.set(i64::try_from(head.position.0).unwrap_or(i64::MAX));
    }
}

/// The slots to which a command added records.
fn grown(state: &State, command: &Command, outcome: &Outcome) -> Vec<Slot> {
    let offsets_of = |group: &String| state.offsets_slot(group).into_iter().collect();
    match &command.kind {
        Some(CommandKind::CommitRuns(_)) => committed(command, outcome),
        Some(CommandKind::CommitOffsets(c)) => {
            let slots: BTreeSet<Slot> = c.groups.iter().filter_map(|g| state.offsets_slot(&g.group)).collect();
            slots.into_iter().collect()
        }
        Some(CommandKind::ChangeGroup(c)) => offsets_of(&c.group),
        Some(CommandKind::DeleteGroup(c)) => offsets_of(&c.group),
        Some(CommandKind::DeleteOffsets(c)) => offsets_of(&c.group),
        Some(CommandKind::InitProducer(_) | CommandKind::EndTransaction(_) | CommandKind::AbortTransaction(_)) => {
            match outcome {
                Outcome::Producer { grown, .. } => grown.clone(),
                _ => Vec::new(),
            }
        }
        // Offsets that were committed for the topic go with it.
        Some(CommandKind::DeleteTopic(_)) => {
            state.topic_by_name(OFFSETS_TOPIC).map(|topic| topic.slots.clone()).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// The slots in which a command's runs were accepted.
fn committed(command: &Command, outcome: &Outcome) -> Vec<Slot> {
    let (Some(CommandKind::CommitRuns(commit)), Outcome::Batches { batches, .. }) = (&command.kind, outcome) else {
        return Vec::new();
    };
    let mut reader = RunsReader::new(commit.base_timestamp, &commit.runs);
    let (mut run, mut slots, mut next) = (RunSpec::empty(), Vec::new(), 0);
    while let Ok(true) = reader.next_into(&mut run) {
        let outcomes = batches.get(next..next + run.batches.len()).unwrap_or_default();
        next += run.batches.len();
        if outcomes.iter().any(|o| matches!(o, BatchOutcome::Accepted { .. })) {
            slots.push(run.slot);
        }
    }
    slots
}

/// Refuses what was proposed in the life before: whoever asked for it may have asked another broker since, and what came
/// after that, and is not to be overtaken by it.
fn refuse(carried: Option<Proposed>, queue: &mut mpsc::Receiver<Proposed>) {
    let waiting = std::iter::from_fn(|| queue.try_recv().ok());
    for Proposed { reply, .. } in carried.into_iter().chain(waiting) {
        let reason = OVERTAKEN.to_owned();
        // A proposer that went away needs no answer.
        let _ = reply.send(Err(ProposeError::NotDone(reason)));
    }
}

/// Takes what waits in the queue up to an entry's limits; gives back the one that did not fit.
fn gather(queue: &mut mpsc::Receiver<Proposed>, batch: &mut Vec<Proposed>) -> Option<Proposed> {
    let mut bytes = batch.iter().map(size).sum::<usize>();
    while batch.len() < ENTRY_COMMANDS_MAX {
        let Ok(next) = queue.try_recv() else { return None };
        bytes += size(&next);
        if bytes > ENTRY_BYTES_MAX {
            return Some(next);
        }
        batch.push(next);
    }
    None
}

fn size(proposed: &Proposed) -> usize {
    proposed.command.as_ref().map_or(0, prost::Message::encoded_len)
}

/// Brokers that lost the journal at one time come back at different ones.
fn retry_after(world: &World) -> Duration {
    RETRY_AFTER / 2 + Duration::from_micros(world.random_below(RETRY_AFTER.as_micros() as u64))
}
