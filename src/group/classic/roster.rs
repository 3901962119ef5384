//! The members of a classic group: who they are, what they support, and which protocol all of them would choose.
use bytes::Bytes;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::group::message::{Identity, JoinGroup};
use crate::planted::{Defect, planted};
use crate::state::{MemberProtocol, MemberRecord};
use crate::types::KafkaError;

/// A member. It is more than its record while it has not been through a rebalance.
pub(super) struct Member {
    pub record: MemberRecord,
    /// It waits for its first generation.
    pub is_new: bool,
    /// Who came earlier has the lower one.
    order: u64,
    /// What it adds to [`Roster::bytes`].
    weight: usize,
}

/// All members, with what is counted of them.
#[derive(Default)]
pub(super) struct Roster {
    members: BTreeMap<Arc<str>, Member>,
    /// Who came first, first.
    order: BTreeMap<u64, Arc<str>>,
    next_order: u64,
    instances: BTreeMap<String, Arc<str>>,
    /// How many members support the protocol.
    supporters: BTreeMap<String, usize>,
    /// Bytes of the records without the assignments.
    bytes: usize,
}

impl Member {
    /// Its subscription for the protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.record.protocols.iter().find(|p| p.name == protocol);
        found.map(|p| p.metadata.clone()).unwrap_or_default()
    }

    /// Whether it would be the same after this join.
    pub(super) fn matches(&self, join: &JoinGroup) -> bool {
        let same =
            |(p, (name, metadata)): (&MemberProtocol, &(String, Bytes))| p.name == *name && p.metadata == *metadata;
        self.record.protocols.len() == join.protocols.len()
            && self.record.protocols.iter().zip(&join.protocols).all(same)
    }
}

/// Bytes that the record of this member takes in the journal, without the assignment.
fn weight(record: &MemberRecord) -> usize {
    record.encoded_len().saturating_sub(record.assignment.len())
}

impl Roster {
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.members.contains_key(id)
    }

    pub(super) fn get(&self, id: &str) -> Option<&Member> {
        self.members.get(id)
    }

    pub(super) fn get_entry(&self, id: &str) -> Option<(&Arc<str>, &Member)> {
        self.members.get_key_value(id)
    }

    /// By member id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Member)> {
        self.members.iter()
    }

    /// Ids, who came first first.
    pub(super) fn by_age(&self) -> impl Iterator<Item = &Arc<str>> {
        self.order.values()
    }

    /// The member of this instance id.
    pub(super) fn instance(&self, instance: &str) -> Option<&Arc<str>> {
        self.instances.get(instance)
    }

    /// Bytes of all records, assignments not counted.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What [`Roster::bytes`] would be with this record in place of the one of its id.
    pub(super) fn bytes_with(&self, record: &MemberRecord) -> usize {
        let old = self.members.get(record.id.as_str()).map_or(0, |m| m.weight);
        self.bytes - old + weight(record)
    }

    /// Whether a member is who it says it is.
    ///
    /// # Errors
    /// `FENCED_INSTANCE_ID` if another member has its instance id, else `UNKNOWN_MEMBER_ID`.
    pub(super) fn check(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), KafkaError> {
        if let Some(instance) = instance_id {
            let holder = self.instances.get(instance).ok_or(KafkaError::UnknownMemberId)?;
            if planted(Defect::ZombieStaticMember) {
                return Ok(());
            }
            if **holder != *member_id {
                return Err(KafkaError::FencedInstanceId);
            }
        }
        if self.has(member_id) { Ok(()) } else { Err(KafkaError::UnknownMemberId) }
    }

    /// As [`Roster::check`], and the generation.
    ///
    /// # Errors
    /// The same, and `ILLEGAL_GENERATION`.
    pub(super) fn check_generation(&self, identity: &Identity, generation: i32) -> Result<(), KafkaError> {
        self.check(&identity.member_id, identity.instance_id.as_deref())?;
        if identity.generation == generation { Ok(()) } else { Err(KafkaError::IllegalGeneration) }
    }

    /// A new member. Its ids are not taken.
    pub(super) fn insert(&mut self, record: MemberRecord, is_new: bool) {
        let order = self.next_order;
        self.next_order += 1;
        self.put(Member { weight: weight(&record), record, is_new, order });
    }

    /// The member goes.
    pub(super) fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        self.order.remove(&member.order);
        self.bytes -= member.weight;
        if let Some(instance) = &member.record.instance_id {
            self.instances.remove(instance);
        }
        for name in protocol_names(&member.record) {
            if let Some(count) = self.supporters.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.supporters.remove(name);
                }
            }
        }
        Some(member)
    }

    /// Another record in place of the one of member `old`, who keeps its age.
    pub(super) fn replace(&mut self, old: &str, record: MemberRecord) {
        if let Some(member) = self.remove(old) {
            self.put(Member { weight: weight(&record), record, ..member });
        }
    }

    fn put(&mut self, member: Member) {
        let id: Arc<str> = Arc::from(member.record.id.as_str());
        self.order.insert(member.order, id.clone());
        self.bytes += member.weight;
        if let Some(instance) = &member.record.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        for name in protocol_names(&member.record) {
            *self.supporters.entry(name.to_owned()).or_default() += 1;
        }
        self.members.insert(id, member);
    }

    /// All members have been through a rebalance.
    pub(super) fn settle(&mut self) {
        self.members.values_mut().for_each(|m| m.is_new = false);
    }

    /// What each member is to have; those that are not named have nothing.
    pub(super) fn assign(&mut self, assignments: &BTreeMap<&str, &Bytes>) {
        for (id, member) in &mut self.members {
            // A copy: a slice would hold the whole request of the leader in memory.
            member.record.assignment = assignments.get(&**id).map(|a| Bytes::copy_from_slice(a)).unwrap_or_default();
        }
    }

    /// Whether all members support one of these.
    pub(super) fn supports_any(&self, protocols: &[(String, Bytes)]) -> bool {
        protocols.iter().any(|(name, _)| self.supporters.get(name).copied().unwrap_or(0) == self.members.len())
    }

    /// The protocol that most members would rather have, of those that all support; on a tie, the one that the eldest
    /// rather has. `None` if there is no such protocol.
    pub(super) fn choose_protocol(&self) -> Option<String> {
        let everybody = |name: &str| self.supporters.get(name) == Some(&self.members.len());
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let favourite = member.record.protocols.iter().find(|p| everybody(&p.name))?;
            *votes.entry(&favourite.name).or_default() += 1;
        }
        let most = votes.values().max().copied()?;
        let eldest = self.order.values().next().and_then(|id| self.members.get(id))?;
        let winners = eldest.record.protocols.iter().filter(|p| votes.get(&*p.name) == Some(&most));
        winners.map(|p| p.name.clone()).next()
    }

    /// The longest that any member is given to join again, in ms.
    pub(super) fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|m| m.record.rebalance_timeout_ms).max().unwrap_or(0)
    }
}

/// A member's protocols, each once however often it named one.
fn protocol_names(record: &MemberRecord) -> impl Iterator<Item = &str> {
    let fresh = |(at, p): &(usize, &MemberProtocol)| record.protocols.iter().take(*at).all(|q| q.name != p.name);
    record.protocols.iter().enumerate().filter(fresh).map(|(_, p)| p.name.as_str())
}
