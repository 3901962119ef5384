//! Who the brokers are, and which of them a client is sent to for a partition, a group or a transactional id. It promises
//! that brokers with the same list give the same answers, and that one that comes or goes moves only its share. It never
//! decides what may happen: each broker serves every partition, and of two coordinators `apply` lets one win. Pure.
//! Tests: in this file.
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

use crate::config::HostPort;
use crate::types::{BrokerId, PartitionIndex, TopicId};

/// The brokers, as this one sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    me: BrokerId,
    /// Where clients connect; `None` is what the listener that they came by says.
    brokers: BTreeMap<BrokerId, Option<HostPort>>,
}

impl Members {
    /// One broker. Clients are told to connect to what the listener that they came by advertises.
    #[must_use]
    pub fn alone(me: BrokerId) -> Self {
        Self { me, brokers: BTreeMap::from([(me, None)]) }
    }

    /// These brokers, whichever of them live, at the addresses that clients are told. Every one of them has to be given
    /// the same list.
    ///
    /// # Panics
    /// If `me` is none of them.
    #[must_use]
    pub fn fixed(me: BrokerId, brokers: impl IntoIterator<Item = (BrokerId, HostPort)>) -> Self {
        let brokers: BTreeMap<_, _> = brokers.into_iter().map(|(id, address)| (id, Some(address))).collect();
        assert!(brokers.contains_key(&me), "broker {me} is not among {:?}", brokers.keys());
        Self { me, brokers }
    }

    /// This broker.
    #[must_use]
    pub fn me(&self) -> BrokerId {
        self.me
    }

    /// All brokers by their ids, and where clients connect that came by a listener with this `advertised` address.
    pub fn brokers<'a>(&'a self, advertised: &'a HostPort) -> impl Iterator<Item = (BrokerId, &'a HostPort)> {
        self.brokers.iter().map(move |(id, address)| (*id, address.as_ref().unwrap_or(advertised)))
    }

    /// The broker that clients are sent to for a partition.
    #[must_use]
    pub fn leader(&self, topic: TopicId, partition: PartitionIndex) -> BrokerId {
        let mut key = [0; 20];
        key[..16].copy_from_slice(topic.0.as_bytes());
        key[16..].copy_from_slice(&partition.0.to_le_bytes());
        self.choose(&key)
    }

    /// The broker that coordinates a group, or a transactional id.
    #[must_use]
    pub fn coordinator(&self, name: &str) -> BrokerId {
        self.choose(name.as_bytes())
    }

    /// Whether this broker is the coordinator of a group, or a transactional id.
    #[must_use]
    pub fn coordinates(&self, name: &str) -> bool {
        self.coordinator(name) == self.me
    }

    /// The coordinator, and where clients connect that came by a listener with this `advertised` address.
    #[must_use]
    pub fn coordinator_at<'a>(&'a self, name: &str, advertised: &'a HostPort) -> (BrokerId, &'a HostPort) {
        let id = self.coordinator(name);
        (id, self.brokers.get(&id).and_then(Option::as_ref).unwrap_or(advertised))
    }

    /// Rendezvous hash: the broker whose number together with the key's hashes highest. What others hash does not change
    /// when one goes, so only its keys move. Brokers of all versions have to hash alike.
    fn choose(&self, key: &[u8]) -> BrokerId {
        let key = xxh3_64(key).to_le_bytes();
        let weight = |id: BrokerId| {
            let mut hashed = [0; 12];
            hashed[..8].copy_from_slice(&key);
            hashed[8..].copy_from_slice(&id.0.to_le_bytes());
            xxh3_64(&hashed)
        };
        self.brokers.keys().copied().max_by_key(|id| (weight(*id), *id)).unwrap_or(self.me)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Uuid;

    const KEYS: i32 = 9_000;

    fn address(id: i32) -> HostPort {
        HostPort { host: format!("broker-{id}"), port: 9092 }
    }

    fn members(me: i32, all: &[i32]) -> Members {
        Members::fixed(BrokerId(me), all.iter().map(|id| (BrokerId(*id), address(*id))))
    }

    /// The leaders of many partitions of a few topics, then the coordinators of as many groups.
    fn chosen(members: &Members) -> Vec<i32> {
        let topic = |n: i32| TopicId(Uuid::from_u128(n as u128 % 7));
        let leaders = (0..KEYS).map(|n| members.leader(topic(n), PartitionIndex(n / 7)).0);
        leaders.chain((0..KEYS).map(|n| members.coordinator(&format!("group-{n}")).0)).collect()
    }

    #[test]
    fn shares_are_even_and_each_broker_sees_the_same() {
        let first = chosen(&members(1, &[1, 2, 3]));
        assert_eq!(first, chosen(&members(3, &[3, 1, 2])));
        for keys in first.chunks(KEYS as usize) {
            for id in 1..=3 {
                let share = keys.iter().filter(|chosen| **chosen == id).count();
                assert!((2_850..=3_150).contains(&share), "broker {id} has {share} of {KEYS}");
            }
        }
    }

    #[test]
    fn only_the_share_of_a_broker_that_leaves_moves() {
        let (three, two) = (chosen(&members(1, &[1, 2, 3])), chosen(&members(1, &[1, 2])));
        assert!(three.iter().zip(&two).all(|(before, after)| before == after || *before == 3));
        let taken = three.iter().zip(&two).filter(|(before, after)| **before == 3 && **after == 2).count();
        assert!((2_700..=3_300).contains(&taken), "broker 2 takes {taken} of about 6000 over");
    }

    /// Brokers of different versions run side by side during an upgrade.
    #[test]
    fn the_choice_is_the_same_in_every_version() {
        let members = members(1, &[1, 2, 3]);
        let leaders = (0..8).map(|p| members.leader(TopicId(Uuid::from_u128(42)), PartitionIndex(p)).0);
        assert_eq!(leaders.collect::<Vec<_>>(), [2, 3, 2, 3, 3, 1, 1, 1]);
        let groups = ["", "a", "b", "orders", "payments", "audit"].map(|group| members.coordinator(group).0);
        assert_eq!(groups, [2, 1, 1, 3, 1, 1]);
    }

    #[test]
    fn a_lone_broker_is_everything_at_the_address_that_clients_came_by() {
        let (alone, came_by) = (Members::alone(BrokerId(7)), address(9));
        assert_eq!(alone.brokers(&came_by).collect::<Vec<_>>(), [(BrokerId(7), &came_by)]);
        assert_eq!(alone.coordinator_at("g", &came_by), (BrokerId(7), &came_by));
        assert!(alone.coordinates("g"));
        assert_eq!(alone.leader(TopicId(Uuid::nil()), PartitionIndex(0)), alone.me());
        let members = members(2, &[1, 2]);
        let told: Vec<_> = members.brokers(&came_by).map(|(id, at)| (id.0, at.host.as_str())).collect();
        assert_eq!(told, [(1, "broker-1"), (2, "broker-2")], "others know nothing of a listener");
    }
}
