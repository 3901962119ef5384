//! One member of a consumer group, in either protocol: joins, takes its part, heartbeats, and leaves. It reads nothing;
//! what it owns stands on a board that all members share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::watch;
use uuid::Uuid;

use crate::admin::{check, error_name, is_retriable, topic_name};
use crate::wire::Wire;

const SESSION_TIMEOUT_MS: i32 = 45_000;
const REBALANCE_TIMEOUT_MS: i32 = 60_000;
const ASSIGNOR: &str = "range";

/// Which protocol members speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// JoinGroup and SyncGroup.
    Classic,
    /// KIP-848.
    Consumer,
}

/// What each member owns now, by its number.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<BTreeMap<usize, BTreeSet<i32>>>>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, BTreeSet<i32>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owns(&self, member: usize, partitions: BTreeSet<i32>) {
        self.lock().insert(member, partitions);
    }

    fn gone(&self, member: usize) {
        self.lock().remove(&member);
    }

    /// Whether `members` own each of the partitions once, and none of them two more than another.
    pub fn is_settled(&self, members: usize, partitions: i32) -> bool {
        let board = self.lock();
        let owned: Vec<i32> = board.values().flatten().copied().collect();
        let all: BTreeSet<i32> = owned.iter().copied().collect();
        let (least, most) = (board.values().map(BTreeSet::len).min(), board.values().map(BTreeSet::len).max());
        let is_even = least.zip(most).is_some_and(|(least, most)| most - least <= 1);
        board.len() == members && is_even && owned.len() == all.len() && i32::try_from(all.len()) == Ok(partitions)
    }
}

/// What all members of a group have in common.
#[derive(Clone)]
pub struct Group {
    pub bootstrap: String,
    pub name: String,
    pub topic: String,
    pub topic_id: Uuid,
    pub partitions: i32,
    pub protocol: Protocol,
    pub heartbeat: Duration,
    pub board: Board,
}

/// A member's place in the group, once it has one.
pub struct Member {
    group: Group,
    number: usize,
    wire: Wire,
    id: StrBytes,
    /// Generation or member epoch.
    epoch: i32,
}

impl Member {
    pub async fn connect(group: Group, number: usize) -> Result<Self> {
        let mut wire = Wire::connect(&group.bootstrap).await?;
        await_coordinator(&mut wire, &group.name).await?;
        Ok(Self { group, number, wire, id: StrBytes::default(), epoch: 0 })
    }

    /// Takes part until it is told to leave.
    pub async fn run(mut self, mut leave: watch::Receiver<bool>) -> Result<()> {
        match self.group.protocol {
            Protocol::Classic => self.run_classic(&mut leave).await?,
            Protocol::Consumer => self.run_consumer(&mut leave).await?,
        }
        self.group.board.gone(self.number);
        Ok(())
    }

    async fn run_classic(&mut self, leave: &mut watch::Receiver<bool>) -> Result<()> {
        loop {
            self.join().await?;
            loop {
                tokio::select! {
                    () = told(leave) => return self.leave_classic().await,
                    () = tokio::time::sleep(self.group.heartbeat) => {}
                }
                let heartbeat = HeartbeatRequest::default()
                    .with_group_id(self.group_id())
                    .with_generation_id(self.epoch)
                    .with_member_id(self.id.clone());
                match named(self.wire.call(&heartbeat, 4).await?.error_code) {
                    None => {}
                    Some(ResponseError::RebalanceInProgress | ResponseError::IllegalGeneration) => break,
                    Some(ResponseError::UnknownMemberId) => {
                        self.id = StrBytes::default();
                        break;
                    }
                    Some(error) => bail!("heartbeat: {error:?}"),
                }
            }
        }
    }

    /// Joins and syncs until it has an assignment; one round takes as long as the others need.
    pub async fn join(&mut self) -> Result<()> {
        loop {
            let protocol = JoinGroupRequestProtocol::default()
                .with_name(StrBytes::from_static_str(ASSIGNOR))
                .with_metadata(subscription(&self.group.topic));
            let join = JoinGroupRequest::default()
                .with_group_id(self.group_id())
                .with_session_timeout_ms(SESSION_TIMEOUT_MS)
                .with_rebalance_timeout_ms(REBALANCE_TIMEOUT_MS)
                .with_member_id(self.id.clone())
                .with_protocol_type(StrBytes::from_static_str("consumer"))
                .with_protocols(vec![protocol]);
            let joined = self.wire.call(&join, 9).await?;
            match named(joined.error_code) {
                None => {}
                Some(ResponseError::MemberIdRequired) => {
                    self.id = joined.member_id;
                    continue;
                }
                Some(ResponseError::UnknownMemberId) => {
                    self.id = StrBytes::default();
                    continue;
                }
                Some(error) if error.is_retriable() || error == ResponseError::RebalanceInProgress => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                Some(error) => bail!("join: {error:?}"),
            }
            (self.id, self.epoch) = (joined.member_id.clone(), joined.generation_id);
            let ids = joined.members.iter().map(|member| member.member_id.clone());
            let assignments = if joined.leader == joined.member_id { self.assign(ids.collect()) } else { Vec::new() };
            let sync = SyncGroupRequest::default()
                .with_group_id(self.group_id())
                .with_generation_id(self.epoch)
                .with_member_id(self.id.clone())
                .with_protocol_type(Some(StrBytes::from_static_str("consumer")))
                .with_protocol_name(Some(StrBytes::from_static_str(ASSIGNOR)))
                .with_assignments(assignments);
            let synced = self.wire.call(&sync, 5).await?;
            match named(synced.error_code) {
                None => {
                    self.group.board.owns(self.number, parse_assignment(synced.assignment)?);
                    return Ok(());
                }
                Some(ResponseError::RebalanceInProgress | ResponseError::IllegalGeneration) => {}
                Some(ResponseError::UnknownMemberId) => self.id = StrBytes::default(),
                Some(error) => bail!("sync: {error:?}"),
            }
        }
    }

    fn assign(&self, members: Vec<StrBytes>) -> Vec<SyncGroupRequestAssignment> {
        let count = i32::try_from(members.len()).unwrap_or(i32::MAX).max(1);
        let part = |(index, id): (i32, StrBytes)| {
            let partitions = (index..self.group.partitions).step_by(usize::try_from(count).unwrap_or(1));
            SyncGroupRequestAssignment::default()
                .with_member_id(id)
                .with_assignment(assignment(&self.group.topic, partitions.collect()))
        };
        (0..).zip(members).map(part).collect()
    }

    async fn leave_classic(&mut self) -> Result<()> {
        let member = MemberIdentity::default().with_member_id(self.id.clone());
        let leave = LeaveGroupRequest::default().with_group_id(self.group_id()).with_members(vec![member]);
        check("leave", self.wire.call(&leave, 4).await?.error_code)
    }

    async fn run_consumer(&mut self, leave: &mut watch::Receiver<bool>) -> Result<()> {
        self.id = StrBytes::from_string(Uuid::from_u128(random()).to_string());
        let mut owned = BTreeSet::new();
        let mut full = true;
        loop {
            let answer = self.heartbeat(self.epoch, full.then_some(&owned)).await?;
            match named(answer.error_code) {
                None => {}
                Some(ResponseError::FencedMemberEpoch | ResponseError::UnknownMemberId) => {
                    (self.epoch, full) = (0, true);
                    owned.clear();
                    self.group.board.owns(self.number, owned.clone());
                    continue;
                }
                Some(error) => bail!("heartbeat: {error:?} {:?}", answer.error_message),
            }
            self.epoch = answer.member_epoch;
            full = false;
            if let Some(assignment) = answer.assignment {
                let parts = assignment.topic_partitions.into_iter().flat_map(|topic| topic.partitions);
                let next: BTreeSet<i32> = parts.collect();
                // The broker has to hear what was given back, at once, and what was taken.
                full = next != owned;
                owned = next;
                self.group.board.owns(self.number, owned.clone());
            }
            if full {
                continue;
            }
            tokio::select! {
                () = told(leave) => {
                    self.heartbeat(-1, None).await?;
                    return Ok(());
                }
                () = tokio::time::sleep(self.group.heartbeat) => {}
            }
        }
    }

    async fn heartbeat(
        &mut self,
        epoch: i32,
        owned: Option<&BTreeSet<i32>>,
    ) -> Result<kafka_protocol::messages::ConsumerGroupHeartbeatResponse> {
        let mut request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(self.group_id())
            .with_member_id(self.id.clone())
            .with_member_epoch(epoch)
            .with_rebalance_timeout_ms(-1);
        if let Some(owned) = owned {
            let partitions = owned.iter().copied().collect::<Vec<_>>();
            let topic = TopicPartitions::default().with_topic_id(self.group.topic_id).with_partitions(partitions);
            request = request.with_topic_partitions(Some(if owned.is_empty() { Vec::new() } else { vec![topic] }));
        }
        if epoch == 0 {
            request = request
                .with_rebalance_timeout_ms(REBALANCE_TIMEOUT_MS)
                .with_subscribed_topic_names(Some(vec![topic_name(&self.group.topic)]));
        }
        self.wire.call(&request, 1).await
    }

    /// Commits offset `offset` for the first of its partitions.
    pub async fn commit(&mut self, offset: i64) -> Result<()> {
        use kafka_protocol::messages::OffsetCommitRequest;
        use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
        let partition = i32::try_from(self.number).unwrap_or(0) % self.group.partitions;
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(-1)
            .with_committed_metadata(Some(StrBytes::default()));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(&self.group.topic))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id_or_member_epoch(self.epoch)
            .with_member_id(self.id.clone())
            .with_topics(vec![topic]);
        let answer = self.wire.call(&request, 8).await?;
        let codes: Vec<i16> = answer.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code).collect();
        ensure!(codes.len() == 1, "an answer for {} partitions", codes.len());
        ensure!(codes[0] == 0, "commit: {}", error_name(codes[0]));
        Ok(())
    }

    fn group_id(&self) -> GroupId {
        GroupId(StrBytes::from_string(self.group.name.clone()))
    }
}

/// Asks for the group's coordinator, as clients do, until there is one. It is the only broker.
async fn await_coordinator(wire: &mut Wire, group: &str) -> Result<()> {
    let request = FindCoordinatorRequest::default().with_key(StrBytes::from_string(group.to_owned()));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let code = wire.call(&request, 3).await?.error_code;
        if !is_retriable(code) || Instant::now() > deadline {
            return check("FindCoordinator", code);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Resolves when the member is to leave.
async fn told(leave: &mut watch::Receiver<bool>) {
    // The guard of the value must not live as long as what follows.
    drop(leave.wait_for(|leave| *leave).await);
}

fn named(code: i16) -> Option<ResponseError> {
    ResponseError::try_from_code(code)
}

fn random() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    u128::from(RandomState::new().hash_one(0)) << 64 | u128::from(RandomState::new().hash_one(1))
}

/// The subscription to one topic, as consumers encode it (version 0).
fn subscription(topic: &str) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    out.put_i32(1);
    out.put_i16(i16::try_from(topic.len()).unwrap_or(i16::MAX));
    out.put_slice(topic.as_bytes());
    out.put_i32(-1);
    out.freeze()
}

/// An assignment of one topic's partitions, as consumers encode it (version 0).
fn assignment(topic: &str, partitions: Vec<i32>) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    out.put_i32(1);
    out.put_i16(i16::try_from(topic.len()).unwrap_or(i16::MAX));
    out.put_slice(topic.as_bytes());
    out.put_i32(i32::try_from(partitions.len()).unwrap_or(i32::MAX));
    partitions.into_iter().for_each(|partition| out.put_i32(partition));
    out.put_i32(-1);
    out.freeze()
}

fn parse_assignment(mut bytes: Bytes) -> Result<BTreeSet<i32>> {
    if bytes.is_empty() {
        return Ok(BTreeSet::new());
    }
    ensure!(bytes.len() >= 8, "an assignment of {} bytes", bytes.len());
    bytes.advance(6);
    let name = usize::from(bytes.get_u16());
    ensure!(bytes.len() >= name + 4, "an assignment that ends in a name");
    bytes.advance(name);
    let count = bytes.get_i32();
    ensure!(bytes.len() >= 4 * usize::try_from(count)?, "an assignment of {count} partitions");
    Ok((0..count).map(|_| bytes.get_i32()).collect())
}
