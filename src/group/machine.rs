//! The machine of one group, without I/O: requests and time in, actions out. It holds what State has of the group plus
//! what need not survive the coordinator: session timers, and requests that wait for other members. It goes ahead of
//! State: an [`Action::Change`] counts as done when it is given out, and if it turns out not to be, the owner throws the
//! machine away and loads a new one from State.
use std::time::Duration;

use super::classic::ClassicGroup;
use super::consumer::ConsumerGroup;
use super::message::{Answer, ConsumerHeartbeat, Description, GroupError, JoinGroup, Reply, Request};
use super::router::GroupSettings;
use crate::state::{
    ChangeGroup, DeleteGroup, DeleteOffsets, Group, GroupName, GroupOffsets, OWN_VERSIONS_LEVEL, State,
};
use crate::types::{KafkaError, TimestampMs};
use crate::world::Instant;

/// A request that waits for its answer; given by the owner, never reused by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RequestId(pub u64);

/// What the machine may look at and must not ask for itself.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub now: Instant,
    pub wall_ms: TimestampMs,
    /// Topics, and the group's committed offsets; of the group itself the machine knows more.
    pub state: &'a State,
    pub settings: &'a GroupSettings,
    /// A random number, new for each event: for member ids, and for where a new machine begins to count.
    pub random: u128,
}

impl View<'_> {
    /// So many milliseconds from now.
    pub(super) fn after_ms(&self, duration_ms: i32) -> Instant {
        self.now + ms(duration_ms)
    }
}

/// Kafka's time-outs as it has them in its protocol; below zero is none.
pub(super) fn ms(duration_ms: i32) -> Duration {
    Duration::from_millis(u64::from(duration_ms.max(0).unsigned_abs()))
}

/// What happens to a group.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
pub(super) enum Event {
    Request(RequestId, Request),
    /// [`Machine::deadline`] has come.
    Elapsed,
}

/// What the machine wants done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// The answer to a request; it leaves when all actions before it are durable and applied.
    Reply(RequestId, Answer),
    Change(ChangeGroup),
    /// Answers with [`Reply::Committed`].
    Commit(RequestId, GroupOffsets),
    DeleteOffsets(DeleteOffsets),
    DeleteGroup(DeleteGroup),
}

/// Where a group stands; Kafka's names, in both protocols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Empty,
    /// Classic: members are to join again.
    PreparingRebalance,
    /// Classic: the leader is to assign.
    CompletingRebalance,
    /// Consumer: the target is older than the group epoch.
    Assigning,
    /// Consumer: members are on their way to their targets.
    Reconciling,
    Stable,
    Dead,
}

impl Phase {
    /// As ListGroups and DescribeGroups print it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// What a step works with: what it may look at, and where its actions go.
pub(super) struct Step<'a> {
    pub view: View<'a>,
    actions: Vec<Action>,
}

impl Step<'_> {
    pub(super) fn reply(&mut self, request: RequestId, reply: Reply) {
        self.actions.push(Action::Reply(request, Ok(reply)));
    }

    pub(super) fn refuse(&mut self, request: RequestId, error: impl Into<GroupError>) {
        self.actions.push(Action::Reply(request, Err(error.into())));
    }

    /// The machine adds the group's name and version.
    pub(super) fn change(&mut self, change: ChangeGroup) {
        self.act(Action::Change(change));
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }
}

/// What the members of a group speak.
#[allow(clippy::large_enum_variant, reason = "one per group")]
pub(super) enum Members {
    Classic(ClassicGroup),
    Consumer(ConsumerGroup),
}

/// A group.
pub(super) struct Machine {
    name: GroupName,
    version: u64,
    /// The last version that a change made, where this machine counts for itself: it begins where chance has put it, so that
    /// no other machine comes to the same.
    made: u64,
    pub(super) members: Members,
}

/// Bits of the number that a machine begins to count from.
const COUNT_FROM_BITS: u32 = 40;

impl Machine {
    /// Of the group in State, once all changes that were given out are applied.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The group as State has it. Members get their whole session time-out from now.
    pub(super) fn load(name: GroupName, view: View<'_>) -> Self {
        let group = view.state.group(&name).map(|g| Group::clone(g));
        let version = group.as_ref().map_or(0, |g| g.version);
        let members = match group.as_ref().map(|g| g.protocol()) {
            Some(crate::state::GroupProtocol::Consumer) => {
                Members::Consumer(ConsumerGroup::load(name.clone(), group.as_ref(), &view))
            }
            _ => Members::Classic(ClassicGroup::load(group.as_ref(), &view)),
        };
        Self { name, version, made: view.random as u64 >> (u64::BITS - COUNT_FROM_BITS), members }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// One event.
    pub(super) fn on(&mut self, event: Event, view: View<'_>) -> Vec<Action> {
        let own_count = view.state.feature_level() >= OWN_VERSIONS_LEVEL;
        let mut step = Step { view, actions: Vec::new() };
        match event {
            Event::Elapsed => match &mut self.members {
                Members::Classic(group) => group.elapsed(&mut step),
                Members::Consumer(group) => group.elapsed(&mut step),
            },
            Event::Request(id, request) => self.request(&mut step, id, request),
        }
        if let Members::Consumer(group) = &mut self.members
            && let Some(group) = group.downgrade(&mut step)
        {
            self.members = Members::Classic(group);
        }
        let mut actions = step.actions;
        actions.iter_mut().for_each(|action| self.stamp(action, own_count));
        actions
    }

    fn request(&mut self, step: &mut Step<'_>, id: RequestId, request: Request) {
        match request {
            Request::ConsumerHeartbeat(heartbeat) => self.consumer_heartbeat(step, id, &heartbeat),
            Request::Join(join) => self.join(step, id, join),
            Request::Sync(sync) => match &mut self.members {
                Members::Classic(group) => group.sync(step, id, sync),
                Members::Consumer(group) => group.sync(step, id, &sync),
            },
            Request::Heartbeat(identity) => match &mut self.members {
                Members::Classic(group) => group.heartbeat(step, id, &identity),
                Members::Consumer(group) => group.classic_heartbeat(step, id, &identity),
            },
            Request::Leave(leaving) => match &mut self.members {
                Members::Classic(group) => group.leave(step, id, leaving),
                Members::Consumer(group) => group.leave(step, id, leaving),
            },
            Request::Commit(commit) => self.commit(step, id, commit),
            Request::ReadOffsets(reader) => self.read_offsets(step, id, reader),
            Request::DeleteOffsets(slots) => self.delete_offsets(step, id, slots),
            Request::DeleteGroup => self.delete_group(step, id),
            Request::Describe => {
                let description = Box::new(self.describe(step));
                step.reply(id, Reply::Described(description));
            }
            Request::Expire => self.expire(step, id),
        }
    }

    /// When [`Event::Elapsed`] is due: for as long as it is `None`, the machine knows nothing that State does not.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.members {
            Members::Classic(group) => group.deadline(),
            Members::Consumer(group) => group.deadline(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match &self.members {
            Members::Classic(group) => group.phase(),
            Members::Consumer(group) => group.phase(),
        }
    }

    /// A member of the classic protocol comes. An empty group of the other protocol becomes one of this.
    fn join(&mut self, step: &mut Step<'_>, id: RequestId, join: JoinGroup) {
        match &mut self.members {
            Members::Classic(group) => group.join(step, id, join),
            Members::Consumer(group) if group.phase() == Phase::Empty => {
                let mut group = ClassicGroup::succeed(group);
                group.join(step, id, join);
                self.members = Members::Classic(group);
            }
            Members::Consumer(group) => group.join(step, id, &join),
        }
    }

    /// A member of the consumer protocol speaks. A group of the other protocol becomes one of this if it is empty, or if
    /// the members that it has can be taken along (KIP-848's online upgrade).
    fn consumer_heartbeat(&mut self, step: &mut Step<'_>, id: RequestId, heartbeat: &ConsumerHeartbeat) {
        if let Err(error) = super::consumer::validate(heartbeat, step.view.settings) {
            return step.refuse(id, error);
        }
        match &mut self.members {
            Members::Consumer(group) => {
                group.heartbeat(step, id, heartbeat);
            }
            // Only a join changes a group's protocol.
            Members::Classic(_) if heartbeat.member_epoch != 0 => {
                let message = match step.view.state.group(&self.name) {
                    Some(_) => format!("Group {} is not a consumer group.", self.name),
                    None if heartbeat.member_epoch > 0 => format!("Consumer group {} not found.", self.name),
                    None => format!("Group {} not found.", self.name),
                };
                step.refuse(id, GroupError::new(KafkaError::GroupIdNotFound, message));
            }
            Members::Classic(group) => match ConsumerGroup::succeed(self.name.clone(), group, step) {
                Ok(mut next) => {
                    if next.heartbeat(step, id, heartbeat) {
                        // They are to join the new group.
                        group.waiting().for_each(|id| step.refuse(id, KafkaError::RebalanceInProgress));
                        self.members = Members::Consumer(next);
                    }
                }
                Err(error) => step.refuse(id, error),
            },
        }
    }

    fn describe(&self, step: &Step<'_>) -> Description {
        match &self.members {
            Members::Classic(group) => group.describe(),
            Members::Consumer(group) => group.describe(step),
        }
    }

    /// Puts the name and the version on what goes to the journal. Every change makes the next version.
    fn stamp(&mut self, action: &mut Action, own_count: bool) {
        let name = self.name.to_string();
        match action {
            Action::Reply(..) => {}
            Action::Change(change) => {
                (change.group, change.from_version) = (name, self.version);
                if own_count {
                    self.made += 1;
                    (change.to_version, self.version) = (self.made, self.made);
                } else {
                    self.version += 1;
                }
            }
            Action::Commit(_, offsets) => (offsets.group, offsets.from_version) = (name, self.version),
            Action::DeleteOffsets(delete) => (delete.group, delete.from_version) = (name, self.version),
            Action::DeleteGroup(delete) => {
                (delete.group, delete.from_version) = (name, self.version);
                self.version = 0;
            }
        }
    }
}
