//! A member of a group: what it asked for, and where it stands between two assignments.
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::group::message::OwnedPartitions;
use crate::state::{MemberProtocol, MemberRecord, TargetRecord, TopicPartitions};
use crate::types::{TopicId, Uuid};

/// A member's id, shared rather than copied.
pub(super) type MemberId = Arc<str>;

/// Partitions by topic.
pub(super) type Partitions = BTreeMap<TopicId, BTreeSet<i32>>;

/// Partitions by topic, each with the member epoch at which it came to the member (KIP-1251).
pub(super) type Owned = BTreeMap<TopicId, BTreeMap<i32, i32>>;

/// The epoch of a static member that left and will come back.
pub(super) const EPOCH_AWAY: i32 = -2;

/// Where a member stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has what its target at its epoch says.
    #[default]
    Stable,
    /// It still has to give partitions back before its epoch can rise.
    Unrevoked,
    /// It waits for partitions that others still have to give back.
    Unreleased,
}

/// What a member wants to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subscription {
    pub topics: BTreeSet<Arc<str>>,
    /// Never empty.
    pub regex: Option<Arc<str>>,
}

/// What a member that speaks the classic protocol said when it joined.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ClassicSide {
    pub session_timeout_ms: i32,
    /// Its assignors in its order, with its subscription for each.
    pub protocols: Vec<MemberProtocol>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub id: MemberId,
    pub instance_id: Option<Arc<str>>,
    pub rack: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub subscription: Arc<Subscription>,
    pub assignor: Option<String>,
    /// 0 is before its first assignment; [`EPOCH_AWAY`].
    pub epoch: i32,
    /// Accepted too, if the answer with `epoch` may have been lost.
    pub previous_epoch: i32,
    pub standing: Standing,
    /// What it was told to have.
    pub assigned: Owned,
    /// What it was told to give back, and still may have.
    pub revoking: Owned,
    pub classic: Option<ClassicSide>,
}

impl Standing {
    /// The number in [`MemberRecord::phase`].
    fn number(self) -> u32 {
        match self {
            Self::Stable => 0,
            Self::Unrevoked => 1,
            Self::Unreleased => 2,
        }
    }

    fn of(number: u32) -> Self {
        match number {
            1 => Self::Unrevoked,
            2 => Self::Unreleased,
            _ => Self::Stable,
        }
    }
}

impl Member {
    /// One that nothing is known of.
    pub(super) fn new(id: MemberId) -> Self {
        Self {
            id,
            instance_id: None,
            rack: None,
            client_id: String::new(),
            client_host: String::new(),
            rebalance_timeout_ms: -1,
            subscription: Arc::default(),
            assignor: None,
            epoch: 0,
            previous_epoch: 0,
            standing: Standing::Stable,
            assigned: Owned::new(),
            revoking: Owned::new(),
            classic: None,
        }
    }

    /// Nothing is left to do for it at this assignment epoch.
    pub(super) fn is_reconciled_to(&self, assignment_epoch: i32) -> bool {
        self.standing == Standing::Stable && self.epoch == assignment_epoch
    }

    /// Everything that it has or may still have.
    pub(super) fn held(&self) -> impl Iterator<Item = (TopicId, i32)> {
        let each = |owned: &'_ Owned| {
            owned.iter().map(|(topic, p)| (*topic, p.keys().copied().collect::<Vec<_>>())).collect::<Vec<_>>()
        };
        each(&self.assigned)
            .into_iter()
            .chain(each(&self.revoking))
            .flat_map(|(topic, p)| p.into_iter().map(move |p| (topic, p)))
    }

    pub(super) fn record(&self) -> MemberRecord {
        let classic = self.classic.as_ref();
        MemberRecord {
            id: self.id.to_string(),
            instance_id: self.instance_id.as_deref().map(str::to_owned),
            rack: self.rack.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: classic.map_or(0, |c| c.session_timeout_ms),
            protocols: classic.map(|c| c.protocols.clone()).unwrap_or_default(),
            assignment: Bytes::new(),
            subscribed_topics: self.subscription.topics.iter().map(|t| t.to_string()).collect(),
            subscribed_regex: self.subscription.regex.as_deref().map(str::to_owned),
            assignor: self.assignor.clone(),
            epoch: self.epoch,
            previous_epoch: self.previous_epoch,
            phase: self.standing.number(),
            assigned: owned_record(&self.assigned),
            revoking: owned_record(&self.revoking),
        }
    }

    /// What [`Member::record`] made.
    pub(super) fn restore(record: &MemberRecord) -> Self {
        let subscription = Subscription {
            topics: record.subscribed_topics.iter().map(|t| Arc::from(t.as_str())).collect(),
            regex: record.subscribed_regex.as_deref().filter(|r| !r.is_empty()).map(Arc::from),
        };
        let classic =
            ClassicSide { session_timeout_ms: record.session_timeout_ms, protocols: record.protocols.clone() };
        Self {
            id: Arc::from(record.id.as_str()),
            instance_id: record.instance_id.as_deref().map(Arc::from),
            rack: record.rack.clone(),
            client_id: record.client_id.clone(),
            client_host: record.client_host.clone(),
            rebalance_timeout_ms: record.rebalance_timeout_ms,
            subscription: Arc::new(subscription),
            assignor: record.assignor.clone(),
            epoch: record.epoch,
            previous_epoch: record.previous_epoch,
            standing: Standing::of(record.phase),
            assigned: restore_owned(&record.assigned),
            revoking: restore_owned(&record.revoking),
            classic: (!record.protocols.is_empty()).then_some(classic),
        }
    }
}

/// As a heartbeat's answer names them.
pub(super) fn named(owned: &Owned) -> Vec<OwnedPartitions> {
    owned.iter().map(|(topic, p)| OwnedPartitions { topic: *topic, partitions: p.keys().copied().collect() }).collect()
}

/// The partitions without their epochs.
pub(super) fn without_epochs(owned: &Owned) -> Partitions {
    owned.iter().map(|(topic, p)| (*topic, p.keys().copied().collect())).collect()
}

/// As a target stands in State.
pub(super) fn partitions_record(partitions: &Partitions) -> Vec<TopicPartitions> {
    let record = |(topic, p): (&TopicId, &BTreeSet<i32>)| TopicPartitions {
        topic_id: topic_bytes(*topic),
        partitions: p.iter().copied().collect(),
        epochs: Vec::new(),
    };
    partitions.iter().map(record).collect()
}

/// What a [`TargetRecord`] says.
pub(super) fn restore_target(record: &TargetRecord) -> Partitions {
    let topic = |t: &TopicPartitions| Some((topic_of(t)?, t.partitions.iter().copied().collect()));
    record.partitions.iter().filter_map(topic).collect()
}

fn owned_record(owned: &Owned) -> Vec<TopicPartitions> {
    let record = |(topic, p): (&TopicId, &BTreeMap<i32, i32>)| TopicPartitions {
        topic_id: topic_bytes(*topic),
        partitions: p.keys().copied().collect(),
        epochs: p.values().copied().collect(),
    };
    owned.iter().map(record).collect()
}

fn restore_owned(records: &[TopicPartitions]) -> Owned {
    let epochs = |t: &TopicPartitions| {
        let epochs = t.epochs.iter().copied().chain(std::iter::repeat(0));
        t.partitions.iter().copied().zip(epochs).collect()
    };
    records.iter().filter_map(|t| Some((topic_of(t)?, epochs(t)))).collect()
}

fn topic_bytes(topic: TopicId) -> Bytes {
    Bytes::copy_from_slice(topic.0.as_bytes())
}

fn topic_of(record: &TopicPartitions) -> Option<TopicId> {
    Uuid::from_slice(&record.topic_id).ok().map(TopicId)
}
