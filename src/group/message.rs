//! What clients ask of a group and what they are told, without the wire's versions. Names and rules are Kafka's.
use bytes::Bytes;

use crate::state::{GroupProtocol, OffsetSpec, OffsetsTransaction, TopicPartitions};
use crate::types::{KafkaError, Slot, TopicId};

/// Something that is asked of one group.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    Join(JoinGroup),
    Sync(SyncGroup),
    /// Of a member that speaks the classic protocol.
    Heartbeat(Identity),
    Leave(Vec<LeavingMember>),
    /// KIP-848.
    ConsumerHeartbeat(ConsumerHeartbeat),
    Commit(CommitRequest),
    /// Whether this member may read the group's offsets now (OffsetFetch 9); answered when every commit that came before is
    /// applied, so that State has them.
    ReadOffsets(Option<Reader>),
    DeleteOffsets(Vec<Slot>),
    DeleteGroup,
    Describe,
    /// Looks for offsets that are due to be forgotten, and for a group that nobody would miss.
    Expire,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Join(JoinReply),
    Sync(SyncReply),
    Leave(LeaveReply),
    ConsumerHeartbeat(ConsumerHeartbeatReply),
    /// Of `Commit`: the slots whose partitions were deleted meanwhile.
    Committed(Vec<Slot>),
    /// Of `DeleteOffsets`: per slot.
    OffsetsDeleted(Vec<(Slot, Option<KafkaError>)>),
    Described(Box<Description>),
    /// Of `Heartbeat`, `ReadOffsets`, `DeleteGroup` and `Expire`.
    Done,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}: {}", message.as_deref().unwrap_or("no more is said"))]
pub struct GroupError {
    pub error: KafkaError,
    /// What ConsumerGroupHeartbeat tells beside the code.
    pub message: Option<String>,
    /// The id that a member is to join with, of MEMBER_ID_REQUIRED; the one it named, of others in JoinGroup.
    pub member_id: Option<String>,
}

impl From<KafkaError> for GroupError {
    fn from(error: KafkaError) -> Self {
        Self { error, message: None, member_id: None }
    }
}

impl GroupError {
    /// An error with words.
    #[must_use]
    pub fn new(error: KafkaError, message: impl Into<String>) -> Self {
        Self { error, message: Some(message.into()), member_id: None }
    }
}

/// What becomes of a request.
pub type Answer = Result<Reply, GroupError>;

/// A member of the classic protocol as it names itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub member_id: String,
    pub instance_id: Option<String>,
    /// -1 where the client is no member (it only commits).
    pub generation: i32,
}

/// JoinGroup (11).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinGroup {
    /// Empty at first.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    /// As the session time-out, where the version has none.
    pub rebalance_timeout_ms: i32,
    pub protocol_type: String,
    /// The assignors that it supports, in its order, with its subscription.
    pub protocols: Vec<(String, Bytes)>,
    /// From version 4: a new dynamic member is first only told its id (KIP-394).
    pub member_id_required: bool,
    /// From version 9: a static leader that comes back may be told to keep the assignment (KIP-814).
    pub skip_assignment: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinReply {
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    pub leader: String,
    pub skip_assignment: bool,
    pub member_id: String,
    /// For the leader: everybody, with the subscription for the chosen protocol.
    pub members: Vec<JoinedMember>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub metadata: Bytes,
}

/// SyncGroup (14).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SyncGroup {
    pub identity: Identity,
    /// From version 5: what the member believes; checked where given.
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    /// The leader's: per member id.
    pub assignments: Vec<(String, Bytes)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct SyncReply {
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    pub assignment: Bytes,
}

/// A member that LeaveGroup (13) names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeavingMember {
    /// Empty where only the instance is named.
    pub member_id: String,
    pub instance_id: Option<String>,
}

/// Per member of the request, in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeaveReply {
    pub members: Vec<(LeavingMember, Option<KafkaError>)>,
}

/// ConsumerGroupHeartbeat (68): `None` is "as before".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConsumerHeartbeat {
    pub member_id: String,
    /// 0 joins, -1 leaves, -2 leaves as a static member that comes back.
    pub member_epoch: i32,
    pub instance_id: Option<String>,
    pub rack: Option<String>,
    /// -1 is as before.
    pub rebalance_timeout_ms: i32,
    pub subscribed_topics: Option<Vec<String>>,
    /// An empty one takes it back.
    pub subscribed_regex: Option<String>,
    pub assignor: Option<String>,
    /// What the member owns now.
    pub owned: Option<Vec<OwnedPartitions>>,
    pub client_id: String,
    pub client_host: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConsumerHeartbeatReply {
    pub member_id: Option<String>,
    pub member_epoch: i32,
    pub heartbeat_interval_ms: i32,
    /// `None` where it did not change since the member was told.
    pub assignment: Option<Vec<OwnedPartitions>>,
}

/// Partitions of a topic, as the protocol names them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnedPartitions {
    pub topic: TopicId,
    pub partitions: Vec<i32>,
}

/// OffsetCommit (8) of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommitRequest {
    /// The generation is the member epoch where the group has the consumer protocol.
    pub identity: Identity,
    /// How long the offsets are kept, where the client says so (versions 2 to 4).
    pub retention_ms: Option<i64>,
    pub offsets: Vec<OffsetSpec>,
    /// The client speaks a version from before member epochs (below 9), in which no member of KIP-848 may commit.
    pub before_epochs: bool,
    /// The transaction that the commit is part of (TxnOffsetCommit).
    pub transaction: Option<OffsetsTransaction>,
}

/// Who reads offsets (OffsetFetch from version 9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    pub member_id: String,
    pub member_epoch: i32,
}

/// A group for DescribeGroups, ConsumerGroupDescribe and `strandline group describe`.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    pub protocol: GroupProtocol,
    pub phase: super::Phase,
    /// Generation or group epoch.
    pub epoch: i32,
    pub assignment_epoch: i32,
    pub protocol_type: String,
    /// The chosen assignor.
    pub protocol_name: String,
    pub members: Vec<DescribedMember>,
}

/// One of a [`Description`]'s members.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DescribedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub rack: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// Classic: the subscription for the chosen protocol, and the assignment.
    pub metadata: Bytes,
    pub assignment_bytes: Bytes,
    /// Consumer.
    pub epoch: i32,
    pub subscribed_topics: Vec<String>,
    pub subscribed_regex: Option<String>,
    pub assigned: Vec<TopicPartitions>,
    pub target: Vec<TopicPartitions>,
    /// It speaks the classic protocol, in whichever group.
    pub is_classic: bool,
}
