//! Groups as State keeps them: what must survive their coordinator. State does not understand how a group rebalances;
//! that is the `group` room's. It keeps what the coordinator decided, guarded by the group's version, so that of two
//! brokers who both think they coordinate, one is refused.
use bytes::Bytes;
use imbl::OrdMap;
use std::sync::Arc;

use super::transaction_commands::OffsetsTransaction;
use crate::types::{LeaderEpoch, Offset, Slot, TimestampMs};

/// A group's name (Kafka's group id), shared rather than copied.
pub type GroupName = Arc<str>;

/// A group: members, targets and committed offsets.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Rises with each change of anything but offsets; 0 while nothing but offsets was ever written.
    pub version: u64,
    pub header: GroupHeader,
    /// By member id.
    pub members: OrdMap<GroupName, Arc<MemberRecord>>,
    /// What each member is to own in the end, by member id; only groups of the consumer protocol have targets.
    pub targets: OrdMap<GroupName, Arc<TargetRecord>>,
    pub offsets: OrdMap<Slot, CommittedOffset>,
    /// Where its last change stands in the order of all changes of groups and offsets.
    pub sequence: u64,
    /// Encoded bytes of members and targets; limited.
    pub bytes: u64,
}

/// An offset that a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
    pub metadata: Arc<str>,
    /// When it was committed, by the coordinator's clock.
    pub committed_ms: TimestampMs,
    /// When it is forgotten, where the client said so (OffsetCommit 2 to 4).
    pub expires_ms: Option<TimestampMs>,
    /// Where the commit stands in the order of all changes of groups and offsets; each commit has its own.
    pub sequence: u64,
}

/// Which protocol a group's members speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum GroupProtocol {
    /// No member ever came: the group only has offsets, or is new.
    None = 0,
    /// JoinGroup and SyncGroup.
    Classic = 1,
    /// KIP-848.
    Consumer = 2,
}

/// What a group has once.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GroupHeader {
    #[prost(enumeration = "GroupProtocol", tag = "1")]
    pub protocol: i32,
    /// The generation (classic), or the group epoch (consumer).
    #[prost(int32, tag = "2")]
    pub epoch: i32,
    /// Classic: what the members call their kind, `consumer` for consumers. Kept while the group is empty.
    #[prost(string, optional, tag = "3")]
    pub protocol_type: Option<String>,
    /// Classic: the assignor that was chosen.
    #[prost(string, optional, tag = "4")]
    pub protocol_name: Option<String>,
    /// Classic: the member that assigns.
    #[prost(string, optional, tag = "5")]
    pub leader: Option<String>,
    /// Consumer: the group epoch that the targets were computed at.
    #[prost(int32, tag = "6")]
    pub assignment_epoch: i32,
    /// Consumer: a hash of the topics that the group is subscribed to, as they were when the epoch was chosen.
    #[prost(fixed64, tag = "7")]
    pub topics_hash: u64,
    /// When the group came into the state that it is in (empty above all), by the coordinator's clock.
    #[prost(int64, tag = "8")]
    pub since_ms: i64,
}

/// A member.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MemberRecord {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, optional, tag = "2")]
    pub instance_id: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub rack: Option<String>,
    #[prost(string, tag = "4")]
    pub client_id: String,
    #[prost(string, tag = "5")]
    pub client_host: String,
    #[prost(int32, tag = "6")]
    pub rebalance_timeout_ms: i32,
    /// Of a member that speaks the classic protocol.
    #[prost(int32, tag = "7")]
    pub session_timeout_ms: i32,
    /// Of a member that speaks the classic protocol, in whichever group: its assignors in its order, with its subscription.
    #[prost(message, repeated, tag = "8")]
    pub protocols: Vec<MemberProtocol>,
    /// Of a classic group: what the leader assigned to it.
    #[prost(bytes = "bytes", tag = "9")]
    pub assignment: Bytes,
    // From here: of a consumer group.
    #[prost(string, repeated, tag = "10")]
    pub subscribed_topics: Vec<String>,
    #[prost(string, optional, tag = "11")]
    pub subscribed_regex: Option<String>,
    #[prost(string, optional, tag = "12")]
    pub assignor: Option<String>,
    #[prost(int32, tag = "13")]
    pub epoch: i32,
    #[prost(int32, tag = "14")]
    pub previous_epoch: i32,
    /// Where it stands between two assignments: 0 it has what its target said at its epoch, 1 it has to give back what is
    /// in `revoking`, 2 it waits for partitions that others have to give back.
    #[prost(uint32, tag = "15")]
    pub phase: u32,
    #[prost(message, repeated, tag = "16")]
    pub assigned: Vec<TopicPartitions>,
    /// What it still has to give back.
    #[prost(message, repeated, tag = "17")]
    pub revoking: Vec<TopicPartitions>,
}

/// One of the assignors that a member of the classic protocol supports.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MemberProtocol {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub metadata: Bytes,
}

/// Partitions of a topic.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TopicPartitions {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub topic_id: Bytes,
    #[prost(int32, repeated, tag = "2")]
    pub partitions: Vec<i32>,
    /// The member epoch at which each partition came to the member (KIP-1251), in the same order; empty in targets.
    #[prost(int32, repeated, tag = "3")]
    pub epochs: Vec<i32>,
}

/// What a member is to own.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TargetRecord {
    #[prost(string, tag = "1")]
    pub member: String,
    #[prost(message, repeated, tag = "2")]
    pub partitions: Vec<TopicPartitions>,
}

/// From this feature level on a change of a group says which version it makes.
pub const OWN_VERSIONS_LEVEL: u32 = 3;

/// Changes a group's header, members or targets. Refused with `NOT_COORDINATOR` if the group has another version.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChangeGroup {
    #[prost(string, tag = "1")]
    pub group: String,
    /// The version that the change was worked out from; 0 for a group that is new or has only offsets.
    #[prost(uint64, tag = "2")]
    pub from_version: u64,
    /// The new header; none keeps the old one.
    #[prost(message, optional, tag = "3")]
    pub header: Option<GroupHeader>,
    /// Ids of members that go, with their targets; before those that come.
    #[prost(string, repeated, tag = "4")]
    pub gone: Vec<String>,
    /// Members that come or change.
    #[prost(message, repeated, tag = "5")]
    pub members: Vec<MemberRecord>,
    /// Targets that come or change.
    #[prost(message, repeated, tag = "6")]
    pub targets: Vec<TargetRecord>,
    /// The version that it makes; 0 for one more. Two coordinators that count up from the same version get to the same
    /// number by different changes, and what one builds on its own would be taken to build on the other's: from level 3 on
    /// each takes numbers from where chance has put it.
    #[prost(uint64, tag = "7")]
    pub to_version: u64,
}

/// Forgets a group and its offsets. Refused as [`ChangeGroup`] is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteGroup {
    #[prost(string, tag = "1")]
    pub group: String,
    #[prost(uint64, tag = "2")]
    pub from_version: u64,
}

/// Commits offsets of many groups at once.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommitOffsets {
    #[prost(message, repeated, tag = "1")]
    pub groups: Vec<GroupOffsets>,
}

/// What one request commits for a group.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GroupOffsets {
    #[prost(string, tag = "1")]
    pub group: String,
    /// As in [`ChangeGroup`]; the commit does not change it.
    #[prost(uint64, tag = "2")]
    pub from_version: u64,
    #[prost(message, repeated, tag = "3")]
    pub offsets: Vec<OffsetSpec>,
    /// How long after the commit the offsets are forgotten, in ms, where the client said so.
    #[prost(int64, optional, tag = "4")]
    pub retention_ms: Option<i64>,
    /// The offsets become visible when it is committed. From level 4 on.
    #[prost(message, optional, tag = "5")]
    pub transaction: Option<OffsetsTransaction>,
}

/// One offset of a commit.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OffsetSpec {
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    #[prost(int64, tag = "2")]
    pub offset: i64,
    /// -1 where the client knew none.
    #[prost(sint32, tag = "3")]
    pub leader_epoch: i32,
    #[prost(string, tag = "4")]
    pub metadata: String,
}

/// Forgets committed offsets of a group, each only if it is still the one that was seen.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteOffsets {
    #[prost(string, tag = "1")]
    pub group: String,
    /// As in [`ChangeGroup`]; the deletion does not change it.
    #[prost(uint64, tag = "2")]
    pub from_version: u64,
    #[prost(message, repeated, tag = "3")]
    pub offsets: Vec<SeenOffset>,
}

/// A committed offset as the proposer saw it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SeenOffset {
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
}

/// A group in a snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GroupBody {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    version: u64,
    #[prost(message, required, tag = "3")]
    header: GroupHeader,
    #[prost(message, repeated, tag = "4")]
    members: Vec<MemberRecord>,
    #[prost(message, repeated, tag = "5")]
    targets: Vec<TargetRecord>,
    #[prost(message, repeated, tag = "6")]
    offsets: Vec<CommittedBody>,
    #[prost(uint64, tag = "7")]
    sequence: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CommittedBody {
    #[prost(message, required, tag = "1")]
    spec: OffsetSpec,
    #[prost(int64, tag = "2")]
    committed_ms: i64,
    #[prost(int64, optional, tag = "3")]
    expires_ms: Option<i64>,
    #[prost(uint64, tag = "4")]
    sequence: u64,
}

impl CommittedBody {
    pub(super) fn of(slot: Slot, c: &CommittedOffset) -> Self {
        let metadata = c.metadata.to_string();
        Self {
            spec: OffsetSpec { slot: slot.0, offset: c.offset.0, leader_epoch: c.leader_epoch.0, metadata },
            committed_ms: c.committed_ms.0,
            expires_ms: c.expires_ms.map(|t| t.0),
            sequence: c.sequence,
        }
    }

    /// What [`CommittedBody::of`] made.
    pub(super) fn restore(self) -> (Slot, CommittedOffset) {
        let offset = CommittedOffset {
            offset: Offset(self.spec.offset),
            leader_epoch: LeaderEpoch(self.spec.leader_epoch),
            metadata: Arc::from(self.spec.metadata),
            committed_ms: TimestampMs(self.committed_ms),
            expires_ms: self.expires_ms.map(TimestampMs),
            sequence: self.sequence,
        };
        (Slot(self.spec.slot), offset)
    }
}

impl Group {
    /// The protocol that its members speak, or spoke last.
    #[must_use]
    pub fn protocol(&self) -> GroupProtocol {
        self.header.protocol()
    }

    /// Nothing in it would be missed.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.members.is_empty() && self.offsets.is_empty()
    }
}

impl Group {
    /// As it stands in a snapshot.
    pub(super) fn body(&self, name: &str) -> GroupBody {
        GroupBody {
            name: name.to_string(),
            version: self.version,
            header: self.header.clone(),
            members: self.members.values().map(|m| MemberRecord::clone(m)).collect(),
            targets: self.targets.values().map(|t| TargetRecord::clone(t)).collect(),
            offsets: self.offsets.iter().map(|(slot, c)| CommittedBody::of(*slot, c)).collect(),
            sequence: self.sequence,
        }
    }

    /// What [`Group::body`] made.
    pub(super) fn restore(body: GroupBody) -> (GroupName, Self) {
        let mut group = Self { version: body.version, header: body.header, sequence: body.sequence, ..Self::default() };
        body.members.into_iter().for_each(|m| group.put_member(m));
        body.targets.into_iter().for_each(|t| group.put_target(t));
        group.offsets = body.offsets.into_iter().map(CommittedBody::restore).collect();
        (Arc::from(body.name), group)
    }

    pub(super) fn put_member(&mut self, member: MemberRecord) {
        let id: GroupName = Arc::from(member.id.as_str());
        self.bytes += size(&member);
        if let Some(old) = self.members.insert(id, Arc::new(member)) {
            self.bytes -= size(&*old);
        }
    }

    pub(super) fn put_target(&mut self, target: TargetRecord) {
        let id: GroupName = Arc::from(target.member.as_str());
        self.bytes += size(&target);
        if let Some(old) = self.targets.insert(id, Arc::new(target)) {
            self.bytes -= size(&*old);
        }
    }

    pub(super) fn remove_member(&mut self, id: &str) {
        if let Some(old) = self.members.remove(id) {
            self.bytes -= size(&*old);
        }
        if let Some(old) = self.targets.remove(id) {
            self.bytes -= size(&*old);
        }
    }
}

fn size(message: &impl prost::Message) -> u64 {
    message.encoded_len() as u64
}
