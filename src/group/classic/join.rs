//! JoinGroup: who is let in, and when a join begins a rebalance.
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

use super::{ClassicGroup, GROUP_BYTES_MAX};
use crate::group::machine::{Phase, RequestId, Step};
use crate::group::message::{GroupError, JoinGroup, JoinReply, JoinedMember, Reply};
use crate::state::{MemberProtocol, MemberRecord};
use crate::types::KafkaError;

/// A new member waits this long for its first generation at most. It may not know its id yet, so it can't heartbeat, and
/// if its client gave up nobody else says so. Kafka's number.
const NEW_MEMBER_WAIT: Duration = Duration::from_secs(300);

/// Ids that are given to clients and not used yet; clients that come beyond it are told to come again. Each is kept for
/// a session time-out. Ten times the largest group that we heard of may start at once.
const PENDING_MAX: usize = 10_000;

/// Assignors that a member may support; clients have five or so.
const PROTOCOLS_MAX: usize = 64;

impl ClassicGroup {
    /// JoinGroup: answered when the join phase ends, or at once if nothing changes.
    pub(in crate::group) fn join(&mut self, step: &mut Step<'_>, id: RequestId, join: JoinGroup) {
        let named = join.member_id.clone();
        if let Err(error) = self.admit(step, id, join) {
            step.refuse(id, GroupError { member_id: error.member_id.or(Some(named)), ..error });
        }
    }

    fn admit(&mut self, step: &mut Step<'_>, id: RequestId, join: JoinGroup) -> Result<(), GroupError> {
        let settings = step.view.settings;
        let sessions = settings.kafka.group_min_session_timeout_ms..=settings.kafka.group_max_session_timeout_ms;
        if !sessions.contains(&join.session_timeout_ms) {
            return Err(KafkaError::InvalidSessionTimeout.into());
        }
        check_lengths(&join, settings.id_bytes_max)?;
        if !self.has_room_for(&join.member_id, settings.kafka.group_max_size) {
            // The last to join again after the limit was lowered goes.
            self.drop_member(step, &join.member_id);
            self.rebalance_without(step, false);
            return Err(named(KafkaError::GroupMaxSizeReached, ""));
        }
        let supported = match self.phase {
            Phase::Empty => !join.protocol_type.is_empty() && !join.protocols.is_empty(),
            _ => {
                self.header.protocol_type.as_ref() == Some(&join.protocol_type)
                    && self.members.supports_any(&join.protocols)
            }
        };
        if !supported {
            return Err(KafkaError::InconsistentGroupProtocol.into());
        }
        if join.member_id.is_empty() { self.newcomer(step, id, join) } else { self.returning(step, id, join) }
    }

    /// Whether `group.max.size` lets this member in. While members join, those count that have.
    fn has_room_for(&self, member_id: &str, size_max: i32) -> bool {
        let size_max = usize::try_from(size_max).unwrap_or(0);
        match self.phase {
            Phase::Empty => true,
            Phase::PreparingRebalance => self.joining.contains_key(member_id) || self.joining.len() < size_max,
            _ => self.members.has(member_id) || self.members.len() < size_max,
        }
    }

    /// A client without a member id.
    fn newcomer(&mut self, step: &mut Step<'_>, id: RequestId, join: JoinGroup) -> Result<(), GroupError> {
        let new_id = member_id(&join, step.view.random, step.view.settings.id_bytes_max);
        let old_id = join.instance_id.as_deref().and_then(|i| self.members.instance(i)).cloned();
        match (&join.instance_id, old_id) {
            (Some(_), Some(old_id)) => self.replace_static(step, id, &old_id, new_id, &join),
            (None, _) if join.member_id_required => {
                if self.pending.len() >= PENDING_MAX {
                    return Err(KafkaError::CoordinatorNotAvailable.into());
                }
                let pending: Arc<str> = Arc::from(new_id.as_str());
                self.sessions.set(pending.clone(), step.view.after_ms(join.session_timeout_ms));
                self.pending.insert(pending);
                Err(named(KafkaError::MemberIdRequired, new_id))
            }
            _ => self.add(step, id, new_id, &join),
        }
    }

    /// A client that names its member id.
    fn returning(&mut self, step: &mut Step<'_>, id: RequestId, join: JoinGroup) -> Result<(), GroupError> {
        if join.instance_id.is_none() && self.pending.contains(join.member_id.as_str()) {
            return self.add(step, id, join.member_id.clone(), &join);
        }
        self.members.check(&join.member_id, join.instance_id.as_deref())?;
        let Some(member) = self.members.get(&join.member_id) else { return Err(KafkaError::UnknownMemberId.into()) };
        let same = member.matches(&join);
        match self.phase {
            // It did not get the answer to its last join: it is told again.
            Phase::CompletingRebalance if same => step.reply(id, self.generation(&join.member_id)),
            // The leader joins again when its topics have changed, so it is not taken at its word.
            Phase::Stable if same && !self.is_leader(&join.member_id) => {
                step.reply(id, self.generation(&join.member_id));
            }
            Phase::PreparingRebalance | Phase::CompletingRebalance | Phase::Stable => {
                let record =
                    MemberRecord { assignment: member.record.assignment.clone(), ..record(&join, &join.member_id) };
                self.check_bytes(&record)?;
                self.members.replace(&join.member_id, record);
                self.wait_for_others(step, &join.member_id, id);
                self.rebalance(step);
            }
            _ => return Err(KafkaError::UnknownMemberId.into()),
        }
        Ok(())
    }

    fn add(&mut self, step: &mut Step<'_>, id: RequestId, new_id: String, join: &JoinGroup) -> Result<(), GroupError> {
        let record = record(join, &new_id);
        self.check_bytes(&record)?;
        if let Some(timer) = self.join_timer.as_mut() {
            timer.newcomers = true;
        }
        if self.members.is_empty() {
            self.header.protocol_type = Some(join.protocol_type.clone());
        }
        self.members.insert(record, true);
        self.header.leader.get_or_insert_with(|| new_id.clone());
        self.pending.remove(new_id.as_str());
        self.wait_for_others(step, &new_id, id);
        self.sessions.set(Arc::from(new_id.as_str()), step.view.now + NEW_MEMBER_WAIT);
        self.rebalance(step);
        Ok(())
    }

    /// A static member came back, not knowing its member id: it has a new one from now, and who still uses the old one is
    /// fenced (KIP-345).
    fn replace_static(
        &mut self,
        step: &mut Step<'_>,
        id: RequestId,
        old_id: &str,
        new_id: String,
        join: &JoinGroup,
    ) -> Result<(), GroupError> {
        let Some(old) = self.members.get(old_id) else { return Err(KafkaError::UnknownMemberId.into()) };
        let record = MemberRecord { assignment: old.record.assignment.clone(), ..record(join, &new_id) };
        self.check_bytes(&record)?;
        self.refuse_waiting(step, old_id, KafkaError::FencedInstanceId);
        self.sessions.clear(old_id);
        self.members.replace(old_id, record.clone());
        if self.unsynced.remove(old_id) {
            self.unsynced.insert(Arc::from(new_id.as_str()));
        }
        let led = self.is_leader(old_id);
        if led {
            self.header.leader = Some(new_id.clone());
        }
        self.begin_session(step, &new_id);
        if self.phase == Phase::Stable && self.members.choose_protocol() == self.header.protocol_name {
            // The others need not know.
            self.persist(step, vec![record]);
            let Reply::Join(mut reply) = self.generation(&new_id) else { return Ok(()) };
            if led && join.skip_assignment {
                reply.skip_assignment = true;
            } else if led {
                // It would assign if it took itself for the leader (before KIP-814).
                reply.leader = old_id.to_owned();
                reply.members = Vec::new();
            }
            step.reply(id, Reply::Join(reply));
            return Ok(());
        }
        self.wait_for_others(step, &new_id, id);
        // The leader may be about to assign to the old id.
        self.rebalance(step);
        Ok(())
    }

    /// Its JoinGroup is answered when the join phase ends. One that came before has been given up by its client.
    fn wait_for_others(&mut self, step: &mut Step<'_>, member_id: &str, id: RequestId) {
        if let Some(before) = self.joining.insert(Arc::from(member_id), id) {
            step.refuse(before, named(KafkaError::RebalanceInProgress, member_id));
        }
    }

    /// What a member is told of this generation.
    pub(super) fn generation(&self, member_id: &str) -> Reply {
        let protocol = self.header.protocol_name.as_deref().unwrap_or_default();
        let joined = |(id, member): (&Arc<str>, &super::roster::Member)| JoinedMember {
            member_id: id.to_string(),
            instance_id: member.record.instance_id.clone(),
            metadata: member.metadata(protocol),
        };
        let leads = self.is_leader(member_id);
        Reply::Join(JoinReply {
            generation: self.header.epoch,
            protocol_type: self.header.protocol_type.clone(),
            protocol_name: self.header.protocol_name.clone(),
            leader: self.header.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members: if leads { self.members.iter().map(joined).collect() } else { Vec::new() },
        })
    }

    fn check_bytes(&self, record: &MemberRecord) -> Result<(), KafkaError> {
        let fits = self.members.bytes_with(record) <= GROUP_BYTES_MAX;
        if fits { Ok(()) } else { Err(KafkaError::GroupMaxSizeReached) }
    }
}

fn named(error: KafkaError, member_id: impl Into<String>) -> GroupError {
    GroupError { member_id: Some(member_id.into()), ..error.into() }
}

fn check_lengths(join: &JoinGroup, id_bytes_max: usize) -> Result<(), KafkaError> {
    if join.instance_id.as_ref().is_some_and(|i| i.len() > id_bytes_max) {
        return Err(KafkaError::InvalidRequest);
    }
    let names = join.protocols.iter().map(|(name, _)| name).chain([&join.protocol_type]);
    if join.protocols.len() > PROTOCOLS_MAX || names.into_iter().any(|name| name.len() > id_bytes_max) {
        return Err(KafkaError::InconsistentGroupProtocol);
    }
    Ok(())
}

/// `<instance id or client id>-<uuid>`, as Kafka makes them; of a long name its beginning.
fn member_id(join: &JoinGroup, random: u128, bytes_max: usize) -> String {
    let uuid = uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid().to_string();
    let name = join.instance_id.as_deref().unwrap_or(&join.client_id);
    let mut kept = name.len().min(bytes_max.saturating_sub(uuid.len() + 1));
    while !name.is_char_boundary(kept) {
        kept -= 1;
    }
    format!("{}-{uuid}", &name[..kept])
}

fn record(join: &JoinGroup, member_id: &str) -> MemberRecord {
    // Copies: slices would hold the whole request in memory.
    let protocol = |(name, metadata): &(String, Bytes)| MemberProtocol {
        name: name.clone(),
        metadata: Bytes::copy_from_slice(metadata),
    };
    MemberRecord {
        id: member_id.to_owned(),
        instance_id: join.instance_id.clone(),
        client_id: join.client_id.clone(),
        client_host: join.client_host.clone(),
        rebalance_timeout_ms: join.rebalance_timeout_ms,
        session_timeout_ms: join.session_timeout_ms,
        protocols: join.protocols.iter().map(protocol).collect(),
        ..MemberRecord::default()
    }
}
