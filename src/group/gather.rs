//! Puts the changes of all groups into the journal, in the order in which they come, in few appends: a commit of offsets
//! waits until [`BETWEEN`] after the last append of commits, and takes along what came meanwhile; any other change leaves
//! at once, with the commits before it.
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::offsets_topic::create_offsets_topic;
use super::router::GroupSettings;
use crate::config::KafkaSettings;
use crate::metadata::{ProposeError, Replica};
use crate::state::{Command, CommitOffsets, GroupOffsets, OFFSETS_TOPIC, OffsetsOutcome, Outcome};
use crate::types::KafkaError;
use crate::world::{Instant, World};

/// Under load commits are appended this far apart: at most 100 appends a second, and a commit waits 5 ms on average.
const BETWEEN: Duration = Duration::from_millis(10);

/// Changes that may wait for the gatherer; beyond it groups wait.
const QUEUE_MAX: usize = 4096;

/// Requests that one command commits at most, so that no entry is slow (H15).
const COMMITS_MAX: usize = 2048;

/// Appends under way; beyond it changes gather.
const IN_FLIGHT_MAX: usize = 8;

/// The way into the journal for groups.
#[derive(Clone)]
pub(super) struct Gather(mpsc::Sender<Item>);

enum Item {
    Commit(GroupOffsets, oneshot::Sender<Result<OffsetsOutcome, ProposeError>>),
    Command(Command, oneshot::Sender<Result<Outcome, ProposeError>>),
}

impl Gather {
    /// Starts the task.
    pub(super) fn start(world: &World, replica: Replica, settings: &GroupSettings) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let kafka = settings.kafka.clone();
        let task = Task { world: world.clone(), replica, kafka, topic_refused: false, last: None, waiting: Vec::new() };
        world.spawn("group gather", task.run(queue));
        Self(sender)
    }

    /// Commits offsets; the receiver gives what became of them.
    pub(super) async fn commit(
        &self,
        offsets: GroupOffsets,
    ) -> oneshot::Receiver<Result<OffsetsOutcome, ProposeError>> {
        let (reply, outcome) = oneshot::channel();
        // If the task is gone the broker stops, and the receiver says so.
        let _ = self.0.send(Item::Commit(offsets, reply)).await;
        outcome
    }

    /// Appends a command that does not wait.
    pub(super) async fn submit(&self, command: Command) -> oneshot::Receiver<Result<Outcome, ProposeError>> {
        let (reply, outcome) = oneshot::channel();
        let _ = self.0.send(Item::Command(command, reply)).await;
        outcome
    }
}

struct Task {
    world: World,
    replica: Replica,
    kafka: KafkaSettings,
    /// `__consumer_offsets` could not be created; groups do without.
    topic_refused: bool,
    /// When commits were appended last.
    last: Option<Instant>,
    waiting: Vec<Item>,
}

/// Hands out the outcomes of one command.
type Delivery = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Item>) {
        let mut deliveries: FuturesUnordered<Delivery> = FuturesUnordered::new();
        loop {
            let due = self.due(deliveries.len());
            if due.is_some_and(|due| due <= self.world.now()) {
                self.flush(&mut deliveries).await;
                continue;
            }
            let room = COMMITS_MAX.saturating_sub(self.waiting.len());
            tokio::select! {
                biased;
                Some(()) = deliveries.next(), if !deliveries.is_empty() => {}
                taken = queue.recv_many(&mut self.waiting, room), if room > 0 => if taken == 0 { return },
                () = self.world.sleep_until(due.unwrap_or_else(|| self.world.now())), if due.is_some() => {}
            }
        }
    }

    /// When what waits is to leave; `None` if nothing waits, or too much is under way.
    fn due(&self, in_flight: usize) -> Option<Instant> {
        if self.waiting.is_empty() || in_flight >= IN_FLIGHT_MAX {
            return None;
        }
        let now = self.world.now();
        let hurried = self.waiting.len() >= COMMITS_MAX || self.waiting.iter().any(|i| matches!(i, Item::Command(..)));
        if hurried { Some(now) } else { Some(self.last.map_or(now, |last| last + BETWEEN)) }
    }

    /// Submits what waits, in its order, each row of commits as one command.
    async fn flush(&mut self, deliveries: &mut FuturesUnordered<Delivery>) {
        self.last = Some(self.world.now());
        self.have_offsets_topic().await;
        let (mut groups, mut replies) = (Vec::new(), Vec::new());
        for item in std::mem::take(&mut self.waiting) {
            match item {
                Item::Commit(offsets, reply) => {
                    groups.push(offsets);
                    replies.push(reply);
                }
                Item::Command(command, reply) => {
                    self.submit_commits(&mut groups, &mut replies, deliveries).await;
                    let outcome = self.replica.submit(command).await;
                    deliveries.push(Box::pin(async move {
                        // A group that is gone needs no outcome.
                        let _ = reply.send(settled(outcome).await);
                    }));
                }
            }
        }
        self.submit_commits(&mut groups, &mut replies, deliveries).await;
    }

    /// Creates `__consumer_offsets` where it is missing.
    async fn have_offsets_topic(&mut self) {
        if self.topic_refused || self.replica.state().topic_by_name(OFFSETS_TOPIC).is_some() {
            return;
        }
        let outcome = self.replica.propose(create_offsets_topic(&self.world, &self.kafka)).await;
        if let Ok(Outcome::Refused(refusal)) = outcome
            && refusal.error != KafkaError::TopicAlreadyExists
        {
            self.topic_refused = true;
            warn!(reason = refusal.message, "{OFFSETS_TOPIC} is not created; offsets are kept all the same");
        }
    }

    async fn submit_commits(
        &self,
        groups: &mut Vec<GroupOffsets>,
        replies: &mut Vec<oneshot::Sender<Result<OffsetsOutcome, ProposeError>>>,
        deliveries: &mut FuturesUnordered<Delivery>,
    ) {
        if groups.is_empty() {
            return;
        }
        let (groups, replies) = (std::mem::take(groups), std::mem::take(replies));
        let outcome = self.replica.submit(CommitOffsets { groups }).await;
        deliveries.push(Box::pin(async move {
            let outcome = settled(outcome).await;
            for (at, reply) in replies.into_iter().enumerate() {
                let _ = reply.send(match &outcome {
                    Ok(Outcome::Offsets(each)) => each.get(at).cloned().ok_or(ProposeError::Stopped),
                    Ok(Outcome::Fenced) => Ok(OffsetsOutcome::Refused { error: KafkaError::NotCoordinator }),
                    Ok(_) => Err(ProposeError::Stopped),
                    Err(error) => Err(error.clone()),
                });
            }
        }));
    }
}

type Submitted = Result<oneshot::Receiver<Result<Outcome, ProposeError>>, ProposeError>;

async fn settled(submitted: Submitted) -> Result<Outcome, ProposeError> {
    submitted?.await.unwrap_or(Err(ProposeError::Stopped))
}
