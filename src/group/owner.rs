//! The owner task of one group: puts requests and time into the machine, carries out its actions, and lets a reply go
//! when every change before it is applied. If a change turns out not to have happened, the machine knows things that are
//! not so: everybody who waits is told to look for the coordinator again, and the machine is loaded anew from State.
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::machine::{Action, Event, Machine, RequestId, View};
use super::message::{Answer, Reply, Request};
use super::router::{Table, Tools};
use crate::metadata::{ProposeError, Replica};
use crate::planted::{Defect, planted};
use crate::state::{Command, GroupName, OffsetsOutcome, Outcome, State};
use crate::types::KafkaError;

/// Something asked of the group, and where the answer goes.
pub(super) struct Asked {
    pub request: Request,
    pub reply: oneshot::Sender<Answer>,
}

pub(super) struct Owner {
    name: GroupName,
    tools: Arc<Tools>,
    table: Weak<Table>,
    mailbox: mpsc::Receiver<Asked>,
    /// Requests that the machine has not answered.
    asked: BTreeMap<RequestId, oneshot::Sender<Answer>>,
    next_request: u64,
    /// What the machine gave out and the journal has not confirmed, with the replies that wait for it.
    unconfirmed: VecDeque<Unconfirmed>,
}

enum Unconfirmed {
    /// Gives whether the change happened.
    Change(BoxFuture<'static, Result<(), KafkaError>>),
    Commit(oneshot::Sender<Answer>, BoxFuture<'static, Answer>),
    Reply(oneshot::Sender<Answer>, Answer),
    No(No),
}

/// A refusal that a client takes for final. It is true only if nobody else has changed the group since `version`, which
/// is not known before a read barrier (invariant 5).
struct No {
    reply: oneshot::Sender<Answer>,
    answer: Answer,
    version: u64,
    /// Gives the group's version behind a barrier; `None` where the journal does not answer.
    now: BoxFuture<'static, Option<u64>>,
}

/// Why a machine is not served any more.
enum End {
    /// It was idle for long, or the broker stops.
    Idle,
    /// A change did not happen, for this reason.
    Undone(KafkaError),
    /// Another broker coordinates the group, or did, or may have: it was given up, or has missed what the journal had.
    Moved,
}

/// A group with nothing to do keeps its machine this long: clients that only commit come again.
const LINGER: Duration = Duration::from_secs(10);

impl Owner {
    pub(super) fn new(name: GroupName, tools: Arc<Tools>, table: Weak<Table>, mailbox: mpsc::Receiver<Asked>) -> Self {
        Self { name, tools, table, mailbox, asked: BTreeMap::new(), next_request: 0, unconfirmed: VecDeque::new() }
    }

    /// Serves the group until it is idle.
    pub(super) async fn run(mut self) {
        while let Some(state) = self.barrier().await {
            if !self.coordinates() {
                if self.turn_away(KafkaError::NotCoordinator) {
                    return;
                }
                continue;
            }
            let machine = Machine::load(self.name.clone(), self.view(&state));
            match self.serve(machine).await {
                End::Idle => return,
                End::Undone(error) => {
                    warn!(group = %self.name, %error, "a change of the group did not happen, it is loaded again");
                    self.forsake(error, true).await;
                }
                End::Moved => self.forsake(KafkaError::NotCoordinator, false).await,
            }
        }
    }

    /// State that has everything of other coordinators; `None`, after who waits was told, if the journal doesn't answer.
    async fn barrier(&mut self) -> Option<Arc<State>> {
        loop {
            match self.tools.replica.barrier().await {
                Ok(state) => return Some(state),
                Err(error) => {
                    info!(group = %self.name, %error, "group not loaded, its clients are told to come again");
                    if self.turn_away(KafkaError::CoordinatorNotAvailable) {
                        return None;
                    }
                }
            }
        }
    }

    async fn serve(&mut self, mut machine: Machine) -> End {
        // As the table has it. Of a machine that was just loaded, that is not known.
        let mut shown = None;
        let membership = self.tools.membership.clone();
        let life = self.tools.replica.identity().incarnation;
        loop {
            let changed = membership.change();
            if self.has_moved(&machine) {
                return End::Moved;
            }
            let busy = machine.deadline();
            let idle = busy.is_none() && self.unconfirmed.is_empty() && self.asked.is_empty();
            let wake = busy.or_else(|| idle.then(|| self.tools.world.now() + LINGER));
            let event = tokio::select! {
                biased;
                result = front(&mut self.unconfirmed), if !self.unconfirmed.is_empty() => match result {
                    Ok(()) => continue,
                    Err(error) => return End::Undone(error),
                },
                asked = self.mailbox.recv() => match asked {
                    Some(asked) => Event::Request(self.admit(asked.reply), asked.request),
                    None => return End::Idle,
                },
                () = changed => continue,
                () = self.tools.world.sleep_until(wake.unwrap_or_else(|| self.tools.world.now())), if wake.is_some() => {
                    if idle && self.retire() {
                        return End::Idle;
                    }
                    Event::Elapsed
                }
            };
            if self.tools.replica.identity().incarnation != life {
                return End::Moved;
            }
            let state = self.tools.replica.state();
            let actions = machine.on(event, self.view(&state));
            self.carry_out(actions, machine.version()).await;
            let phase = machine.phase();
            if shown != Some(phase)
                && let Some(table) = self.table.upgrade()
            {
                table.stands(&self.name, phase);
                shown = Some(phase);
            }
        }
    }

    /// Whether another broker coordinates the group now, or has: then the machine knows things that are not so any more.
    fn has_moved(&self, machine: &Machine) -> bool {
        if !self.coordinates() {
            return true;
        }
        let changing = self.unconfirmed.iter().any(|u| matches!(u, Unconfirmed::Change(_)));
        let known = self.tools.replica.state().group(&self.name).map_or(0, |group| group.version);
        !changing && known != machine.version()
    }

    fn view<'a>(&'a self, state: &'a State) -> View<'a> {
        let world = &self.tools.world;
        let random = u128::from(world.random_u64()) << 64 | u128::from(world.random_u64());
        View { now: world.now(), wall_ms: world.wall_ms(), state, settings: &self.tools.settings, random }
    }

    fn coordinates(&self) -> bool {
        self.tools.membership.now().coordinates(&self.name)
    }

    /// Tells who waits, and takes the owner off the table; false if somebody came meanwhile.
    fn turn_away(&mut self, error: KafkaError) -> bool {
        self.refuse_waiting(error);
        self.retire()
    }

    fn retire(&mut self) -> bool {
        self.table.upgrade().is_none_or(|table| table.retire(&self.name, &mut self.mailbox))
    }

    fn admit(&mut self, reply: oneshot::Sender<Answer>) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.asked.insert(id, reply);
        id
    }

    /// `version` is the machine's, with what these actions change.
    async fn carry_out(&mut self, actions: Vec<Action>, version: u64) {
        // What is answered in one step with a change may be true only with it.
        let (replies, changes): (Vec<_>, Vec<_>) = actions.into_iter().partition(|a| matches!(a, Action::Reply(..)));
        for action in changes.into_iter().chain(replies) {
            match action {
                Action::Reply(id, answer) => {
                    let Some(reply) = self.asked.remove(&id) else { continue };
                    if answer.as_ref().is_err_and(|refused| is_no(refused.error)) {
                        let now = version_now(self.tools.replica.clone(), self.name.clone()).boxed();
                        self.unconfirmed.push_back(Unconfirmed::No(No { reply, answer, version, now }));
                    } else if self.unconfirmed.is_empty() || planted(Defect::ReplyBeforeChange) {
                        // A client that went away needs no answer.
                        let _ = reply.send(answer);
                    } else {
                        self.unconfirmed.push_back(Unconfirmed::Reply(reply, answer));
                    }
                }
                Action::Commit(id, offsets) => {
                    let outcome = self.tools.gather.commit(offsets).await;
                    let Some(reply) = self.asked.remove(&id) else { continue };
                    if planted(Defect::CommitAckedEarly) {
                        let _ = reply.send(Ok(Reply::Committed(Vec::new())));
                        continue;
                    }
                    let answer = async move { committed(outcome.await.unwrap_or(Err(ProposeError::Stopped))) };
                    self.unconfirmed.push_back(Unconfirmed::Commit(reply, answer.boxed()));
                }
                Action::Change(change) => self.submit(change.into()).await,
                Action::DeleteOffsets(delete) => self.submit(delete.into()).await,
                Action::DeleteGroup(delete) => self.submit(delete.into()).await,
            }
        }
    }

    async fn submit(&mut self, command: Command) {
        let outcome = self.tools.gather.submit(command).await;
        let changed = async move { changed(outcome.await.unwrap_or(Err(ProposeError::Stopped))) };
        self.unconfirmed.push_back(Unconfirmed::Change(changed.boxed()));
    }

    /// Everybody who waits is told. What is still on its way ends first: a new machine must not be loaded from a State
    /// that it is about to change. Replies to what has happened stay true until a change was `undone`. What came in the
    /// meantime is refused too: its clients may have gone on elsewhere, and it would undo what they did there.
    async fn forsake(&mut self, error: KafkaError, mut undone: bool) {
        for unconfirmed in std::mem::take(&mut self.unconfirmed) {
            match unconfirmed {
                Unconfirmed::Change(outcome) => undone |= outcome.await.is_err(),
                Unconfirmed::Commit(reply, answer) => drop(reply.send(answer.await)),
                Unconfirmed::Reply(reply, answer) if !undone => drop(reply.send(answer)),
                Unconfirmed::Reply(reply, _) | Unconfirmed::No(No { reply, .. }) => {
                    drop(reply.send(Err(error.into())));
                }
            }
        }
        for (_, reply) in std::mem::take(&mut self.asked) {
            let _ = reply.send(Err(error.into()));
        }
        self.refuse_waiting(error);
    }

    fn refuse_waiting(&mut self, error: KafkaError) {
        while let Ok(asked) = self.mailbox.try_recv() {
            let _ = asked.reply.send(Err(error.into()));
        }
    }
}

/// Waits until the first of `unconfirmed` is known, takes it off and lets its reply go; the error says that it, a change,
/// did not happen. Nothing is lost if this is dropped before it ends.
async fn front(unconfirmed: &mut VecDeque<Unconfirmed>) -> Result<(), KafkaError> {
    let known = match unconfirmed.front_mut() {
        Some(Unconfirmed::Change(outcome)) => outcome.await.map(|()| None),
        Some(Unconfirmed::Commit(_, answer)) => Ok(Some(answer.await)),
        Some(Unconfirmed::No(no)) => Ok(((&mut no.now).await == Some(no.version)).then(|| no.answer.clone())),
        Some(Unconfirmed::Reply(..)) | None => Ok(None),
    };
    let (reply, answer) = match (unconfirmed.pop_front(), known?) {
        (Some(Unconfirmed::Commit(reply, _) | Unconfirmed::No(No { reply, .. })), Some(answer))
        | (Some(Unconfirmed::Reply(reply, answer)), _) => (reply, answer),
        (Some(Unconfirmed::No(No { reply, answer, .. })), None) => {
            if unconfirmed.iter().any(|behind| matches!(behind, Unconfirmed::Change(_))) {
                // Perhaps it was our own change that came next: if it happened, nobody else's did.
                unconfirmed.push_back(Unconfirmed::Reply(reply, answer));
                return Ok(());
            }
            (reply, Err(KafkaError::NotCoordinator.into()))
        }
        _ => return Ok(()),
    };
    // A commit that finds another version shows that somebody else coordinates the group.
    let superseded = matches!(&answer, Err(refused) if refused.error == KafkaError::NotCoordinator);
    // A client that went away needs no answer.
    let _ = reply.send(answer);
    if superseded { Err(KafkaError::NotCoordinator) } else { Ok(()) }
}

async fn version_now(replica: Replica, group: GroupName) -> Option<u64> {
    let state = replica.barrier().await.ok()?;
    Some(state.group(&group).map_or(0, |group| group.version))
}

/// Whether clients give something up when they are told so: their membership, their commit.
fn is_no(error: KafkaError) -> bool {
    use KafkaError::*;
    matches!(
        error,
        UnknownMemberId
            | IllegalGeneration
            | FencedInstanceId
            | FencedMemberEpoch
            | StaleMemberEpoch
            | UnreleasedInstanceId
            | GroupIdNotFound
            | NonEmptyGroup
            | InconsistentGroupProtocol
            | GroupMaxSizeReached
    )
}

/// Whether a change happened. `NOT_COORDINATOR` makes clients look for the coordinator, which is what is asked of them
/// whenever it is not known, too.
fn changed(outcome: Result<Outcome, ProposeError>) -> Result<(), KafkaError> {
    match outcome {
        Ok(Outcome::Refused(refusal)) => Err(refusal.error),
        Ok(Outcome::Fenced) | Err(ProposeError::Stopped) => Err(KafkaError::NotCoordinator),
        Ok(_) => Ok(()),
        Err(ProposeError::NotDone(_)) => Err(KafkaError::CoordinatorNotAvailable),
    }
}

fn committed(outcome: Result<OffsetsOutcome, ProposeError>) -> Answer {
    match outcome {
        Ok(OffsetsOutcome::Committed { deleted }) => Ok(Reply::Committed(deleted)),
        Ok(OffsetsOutcome::Refused { error }) => Err(error.into()),
        Err(ProposeError::NotDone(_)) => Err(KafkaError::CoordinatorNotAvailable.into()),
        Err(ProposeError::Stopped) => Err(KafkaError::NotCoordinator.into()),
    }
}
