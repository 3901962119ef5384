//! The brokers as one State has them, and who of them leads and coordinates what. Pure.
use std::collections::BTreeSet;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

use crate::config::HostPort;
use crate::state::{Broker, BrokerProfile, Endpoint, State, epoch};
use crate::types::{BrokerId, LeaderEpoch, PartitionIndex, TopicId};

/// The brokers, as this one sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    me: BrokerId,
    serves: bool,
    generation: u16,
    count: u32,
    floor: u32,
    live: Vec<Member>,
    /// This broker, while it is cut off. The others need not know and it may be back in a moment: the epochs that it tells
    /// are those it told before. A newer one of its own making would have clients refuse what is told afterwards.
    away: Option<Member>,
    /// Those who are gone and remembered: what they led has moved.
    departed: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    id: BrokerId,
    /// The change of the membership with which it came or went.
    turn: u32,
    profile: Arc<BrokerProfile>,
}

/// Stands for what one broker does for all, where others stand for a group.
const UPKEEP: &str = "\0upkeep";

/// A partition's leader and its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Led {
    pub leader: BrokerId,
    pub epoch: LeaderEpoch,
}

impl Members {
    /// Those whom `state` has. Before feature level 2 brokers know nothing of each other, and each is alone.
    #[must_use]
    pub fn of(me: BrokerId, state: &State) -> Self {
        let member = |broker: &Broker| Member { id: broker.id, turn: broker.turn, profile: broker.profile.clone() };
        let live: Vec<Member> = state.brokers().filter(|b| b.is_member()).map(member).collect();
        let departed = state.brokers().filter(|b| b.turn > 0 && !b.is_member()).map(member).collect();
        let serves = live.is_empty() || live.iter().any(|member| member.id == me);
        let (generation, count, floor) = (state.generation(), state.membership(), state.membership_floor());
        Self { me, serves, generation, count, floor, live, away: None, departed }
    }

    /// The same without this broker, which does not know any more what the others do; all as it is where it is the only
    /// one.
    #[must_use]
    pub fn without_me(mut self) -> Self {
        if self.live.iter().any(|member| member.id != self.me) {
            self.away = self.live.extract_if(.., |member| member.id == self.me).next();
            self.serves = false;
        }
        self
    }

    /// This broker.
    #[must_use]
    pub fn me(&self) -> BrokerId {
        self.me
    }

    /// Whether clients may stay at this broker: it takes part, or nobody else does.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.serves
    }

    /// Whether there are others.
    #[must_use]
    pub fn has_others(&self) -> bool {
        self.live.iter().any(|member| member.id != self.me)
    }

    /// All brokers that take part by their ids, with their zones, and where clients connect that came by `listener`, which
    /// has this `advertised` address here.
    pub fn brokers<'a>(
        &'a self,
        listener: &'a str,
        advertised: &'a HostPort,
    ) -> impl Iterator<Item = (BrokerId, HostPort, Option<&'a str>)> {
        let alone = self.live.is_empty().then(|| (self.me, advertised.clone(), None));
        let zone = |member: &'a Member| Some(member.profile.zone.as_str()).filter(|zone| !zone.is_empty());
        let live = self.live.iter().map(move |m| (m.id, self.address(m, listener, advertised), zone(m)));
        alone.into_iter().chain(live)
    }

    /// This broker is where its client is; the others have told where clients of which listener find them.
    fn address(&self, member: &Member, listener: &str, advertised: &HostPort) -> HostPort {
        if member.id == self.me {
            return advertised.clone();
        }
        member.profile.endpoint(listener).map_or_else(|| advertised.clone(), told)
    }

    /// What a client in `zone` is told of partitions; of one that no broker is in, or none, all brokers are near.
    #[must_use]
    pub fn seen_from(&self, zone: Option<&str>) -> Seen<'_> {
        let there = |member: &&Member| Some(member.profile.zone.as_str()) == zone;
        let near: Vec<&Member> = self.live.iter().filter(there).collect();
        let counted: Vec<&Member> = near.iter().copied().chain(self.away.iter().filter(there)).collect();
        if !counted.is_empty() {
            let near = if near.is_empty() { self.live.iter().collect() } else { near };
            let departed = self.departed.iter().filter(there).collect();
            return Seen { members: self, near, counted, departed, floor: self.floor };
        }
        // What the zone's own brokers led has moved, whoever has it now.
        let last = self.departed.iter().filter(there).map(|member| member.turn).max();
        let floor = self.floor.max(last.unwrap_or(0));
        let (near, departed) = (self.live.iter().collect(), self.departed.iter().collect());
        Seen { members: self, near, counted: self.live.iter().chain(&self.away).collect(), departed, floor }
    }

    /// Whether a broker, or this one, is in `zone`.
    #[must_use]
    pub fn is_in(&self, zone: &str, broker: Option<BrokerId>) -> bool {
        self.live.iter().any(|m| m.profile.zone == zone && broker.is_none_or(|id| m.id == id))
    }

    /// The zones that there are brokers in.
    fn zones(&self) -> BTreeSet<&str> {
        self.live.iter().map(|member| member.profile.zone.as_str()).collect()
    }

    /// The broker that coordinates a group, or a transactional id.
    #[must_use]
    pub fn coordinator(&self, name: &str) -> BrokerId {
        let key = Key::of(name.as_bytes());
        self.live.iter().map(|member| member.id).max_by_key(|id| key.weight(*id)).unwrap_or(self.me)
    }

    /// How many brokers stand before this one in the line for work of this name; `None` if it is not in it.
    #[must_use]
    pub fn place_in_line(&self, name: &str) -> Option<usize> {
        let key = Key::of(name.as_bytes());
        if !self.serves {
            return None;
        }
        let mine = key.weight(self.me);
        Some(self.live.iter().filter(|member| key.weight(member.id) > mine).count())
    }

    /// Whether this broker is the coordinator of a group, or a transactional id.
    #[must_use]
    pub fn coordinates(&self, name: &str) -> bool {
        self.coordinator(name) == self.me
    }

    /// Whether it is this broker that does what one does for all.
    #[must_use]
    pub fn does_upkeep(&self) -> bool {
        self.serves && self.coordinates(UPKEEP)
    }

    /// The coordinator, and where clients connect that came by `listener`, as in [`Members::brokers`].
    #[must_use]
    pub fn coordinator_at(&self, name: &str, listener: &str, advertised: &HostPort) -> (BrokerId, HostPort) {
        let id = self.coordinator(name);
        let member = self.live.iter().find(|member| member.id == id);
        (id, member.map_or_else(|| advertised.clone(), |member| self.address(member, listener, advertised)))
    }

    /// The others that take part, and where they are found by `listener`.
    pub fn others<'a>(&'a self, listener: &'a str) -> impl Iterator<Item = (BrokerId, HostPort)> {
        let others = self.live.iter().filter(|member| member.id != self.me);
        others.filter_map(move |member| Some((member.id, told(member.profile.endpoint(listener)?))))
    }

    /// The broker of this one's zone whose part it is to read an object from the bucket for the others there, and where they
    /// find it by `listener`. `None` if that is this one, or it does not know any more what the others do.
    #[must_use]
    pub fn reader(&self, object: u128, listener: &str) -> Option<(BrokerId, HostPort)> {
        let me = self.live.iter().find(|member| member.id == self.me).filter(|_| self.serves)?;
        let key = Key::of(&object.to_le_bytes());
        let there = self.live.iter().filter(|member| member.profile.zone == me.profile.zone);
        let first = there.max_by_key(|member| key.weight(member.id)).filter(|member| member.id != self.me)?;
        Some((first.id, told(first.profile.endpoint(listener)?)))
    }

    fn epoch(&self, turn: u32) -> LeaderEpoch {
        epoch(self.generation, turn)
    }
}

fn told(endpoint: &Endpoint) -> HostPort {
    HostPort { host: endpoint.host.clone(), port: u16::try_from(endpoint.port).unwrap_or_default() }
}

/// The brokers as a client of one zone sees them.
pub struct Seen<'a> {
    members: &'a Members,
    /// Who may lead.
    near: Vec<&'a Member>,
    /// Those of whose coming and going the epochs tell.
    counted: Vec<&'a Member>,
    departed: Vec<&'a Member>,
    floor: u32,
}

impl Seen<'_> {
    /// The broker that the client is sent to for a partition. The epoch is that of the change that made it the leader:
    /// when it came, or when the last one went that was before it in line.
    #[must_use]
    pub fn leader(&self, topic: TopicId, partition: PartitionIndex) -> Led {
        let key = Key::of_partition(topic, partition);
        let heaviest = |of: &[&'_ Member]| of.iter().max_by_key(|member| key.weight(member.id)).map(|m| (m.id, m.turn));
        let (Some((leader, _)), Some((first, turn))) = (heaviest(&self.near), heaviest(&self.counted)) else {
            return Led { leader: self.members.me, epoch: self.members.epoch(self.members.count) };
        };
        let weight = key.weight(first);
        let before = self.departed.iter().filter(|member| key.weight(member.id) > weight);
        let turn = before.map(|member| member.turn).fold(self.floor.max(turn), u32::max);
        Led { leader, epoch: self.members.epoch(turn) }
    }

    /// The leader, then those of the other zones: where clients of each zone read the partition.
    #[must_use]
    pub fn replicas(&self, topic: TopicId, partition: PartitionIndex) -> Vec<BrokerId> {
        let mut replicas = vec![self.leader(topic, partition).leader];
        let key = Key::of_partition(topic, partition);
        for zone in self.members.zones() {
            let there = self.members.live.iter().filter(|member| member.profile.zone == zone);
            let first = there.map(|member| member.id).max_by_key(|id| key.weight(*id));
            replicas.extend(first.filter(|id| !replicas.contains(id)));
        }
        replicas
    }
}

/// Rendezvous hash: the broker whose number together with the key's hashes highest. What others hash does not change when
/// one goes, so only its keys move. Brokers of all versions have to hash alike.
struct Key([u8; 8]);

impl Key {
    fn of(key: &[u8]) -> Self {
        Self(xxh3_64(key).to_le_bytes())
    }

    fn of_partition(topic: TopicId, partition: PartitionIndex) -> Self {
        let mut key = [0; 20];
        key[..16].copy_from_slice(topic.0.as_bytes());
        key[16..].copy_from_slice(&partition.0.to_le_bytes());
        Self::of(&key)
    }

    fn weight(&self, id: BrokerId) -> (u64, BrokerId) {
        let mut hashed = [0; 12];
        hashed[..8].copy_from_slice(&self.0);
        hashed[8..].copy_from_slice(&id.0.to_le_bytes());
        (xxh3_64(&hashed), id)
    }
}

#[cfg(test)]
mod tests;
