//! The way to a group's owner task, which is started when something is asked of the group and ends when the group has
//! nothing but what State has too.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::{mpsc, oneshot};

use super::gather::Gather;
use super::message::{Answer, GroupError, Request};
use super::owner::{Asked, Owner};
use super::{Phase, expiry};
use crate::cluster::Membership;
use crate::config::KafkaSettings;
use crate::metadata::Replica;
use crate::state::{GroupName, State};
use crate::types::{KafkaError, TimestampMs};
use crate::world::World;

/// Requests that may wait for one group's owner; beyond it their connections wait.
const MAILBOX_MAX: usize = 1024;

/// The groups that this broker coordinates; cheap to clone. When the last handle goes, the owners end.
#[derive(Clone)]
pub struct Groups {
    tools: Arc<Tools>,
    running: Arc<Table>,
}

/// What owners work with.
pub(super) struct Tools {
    pub(super) world: World,
    pub(super) replica: Replica,
    pub(super) membership: Membership,
    pub(super) settings: GroupSettings,
    pub(super) gather: Gather,
}

/// Groups whose owner runs. A lock, held for a look-up: an owner task for the table would cost each request a message.
#[derive(Default)]
pub(super) struct Table(Mutex<BTreeMap<GroupName, Running>>);

struct Running {
    mailbox: mpsc::Sender<Asked>,
    /// As the machine was after its last step.
    phase: Phase,
}

impl Groups {
    /// Begins with no owner running.
    #[must_use]
    pub fn start(world: &World, replica: Replica, membership: Membership, settings: GroupSettings) -> Self {
        let gather = Gather::start(world, replica.clone(), &settings);
        let tools = Tools { world: world.clone(), replica, membership, settings, gather };
        let groups = Self { tools: Arc::new(tools), running: Arc::default() };
        let (tools, table) = (Arc::downgrade(&groups.tools), Arc::downgrade(&groups.running));
        world.spawn("group expiry", expiry::run(world.clone(), tools, table));
        groups
    }

    /// A handle, for a task that must not keep the owners alive.
    pub(super) fn upgrade(tools: &Weak<Tools>, table: &Weak<Table>) -> Option<Self> {
        Some(Self { tools: tools.upgrade()?, running: table.upgrade()? })
    }

    /// State as it is now.
    pub(super) fn state(&self) -> Arc<State> {
        self.tools.replica.state()
    }

    /// The wall clock, if it may decide what is old.
    pub(super) fn agreed_wall_ms(&self) -> Option<TimestampMs> {
        self.tools.replica.agreed_wall_ms(&self.tools.world)
    }

    /// Asks the group, and waits as long as the answer takes: the others' rebalance time-out for JoinGroup. The reply may
    /// be given up; what was asked happens all the same.
    ///
    /// # Errors
    /// Kafka's; `NOT_COORDINATOR` and `COORDINATOR_NOT_AVAILABLE` say nothing about what happened.
    pub async fn ask(&self, group: &str, request: Request) -> Answer {
        self.check_coordinator(group)?;
        let (reply, answer) = oneshot::channel();
        let asked = Asked { request, reply };
        let gone = || Err(KafkaError::CoordinatorNotAvailable.into());
        let mailbox = self.mailbox(group);
        let Err(mpsc::error::SendError(asked)) = mailbox.send(asked).await else {
            return answer.await.unwrap_or_else(|_| gone());
        };
        // Its owner ended between the look-up and the send; the next one lives at least until it was asked once.
        if self.mailbox(group).send(asked).await.is_err() {
            return gone();
        }
        answer.await.unwrap_or_else(|_| gone())
    }

    /// Whether this broker coordinates the group: only then may anything be said of it.
    ///
    /// # Errors
    /// `NOT_COORDINATOR`, which sends clients to look for the one that does.
    pub fn check_coordinator(&self, group: &str) -> Result<(), GroupError> {
        if self.tools.membership.now().coordinates(group) { Ok(()) } else { Err(KafkaError::NotCoordinator.into()) }
    }

    /// Where the group stands; what State says of it where no owner runs.
    #[must_use]
    pub fn phase(&self, state: &State, group: &str) -> Option<Phase> {
        self.running.lock().get(group).map(|r| r.phase).or_else(|| {
            let group = state.group(group)?;
            Some(if group.members.is_empty() { Phase::Empty } else { Phase::Stable })
        })
    }

    /// The groups whose owners run, and where they stand.
    #[must_use]
    pub fn running(&self) -> Vec<(GroupName, Phase)> {
        self.running.lock().iter().map(|(name, running)| (name.clone(), running.phase)).collect()
    }

    /// The settings that all groups have in common.
    #[must_use]
    pub fn settings(&self) -> &GroupSettings {
        &self.tools.settings
    }

    #[cfg(test)]
    pub(super) fn running_count(&self) -> usize {
        self.running.lock().len()
    }

    fn mailbox(&self, group: &str) -> mpsc::Sender<Asked> {
        let mut running = self.running.lock();
        if let Some(running) = running.get(group).filter(|r| !r.mailbox.is_closed()) {
            return running.mailbox.clone();
        }
        let (mailbox, asked) = mpsc::channel(MAILBOX_MAX);
        let name: GroupName = Arc::from(group);
        running.insert(name.clone(), Running { mailbox: mailbox.clone(), phase: Phase::default() });
        let owner = Owner::new(name, self.tools.clone(), Arc::downgrade(&self.running), asked);
        self.tools.world.spawn("group", owner.run());
        mailbox
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupName, Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group stands there now.
    pub(super) fn stands(&self, group: &str, phase: Phase) {
        if let Some(running) = self.lock().get_mut(group) {
            running.phase = phase;
        }
    }

    /// Takes the owner off the table, unless something waits for it; its mailbox is closed then.
    pub(super) fn retire(&self, group: &str, mailbox: &mut mpsc::Receiver<Asked>) -> bool {
        let mut running = self.lock();
        if !mailbox.is_empty() {
            return false;
        }
        // What is sent from here on comes back to its sender, who asks the next owner.
        mailbox.close();
        running.remove(group);
        true
    }
}

/// What of the broker's configuration groups obey.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// Kafka's own, by their names.
    pub kafka: KafkaSettings,
    /// Bytes of a group id, member id or instance id.
    pub id_bytes_max: usize,
}
