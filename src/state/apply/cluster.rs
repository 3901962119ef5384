//! Commands about the cluster itself: its identity, feature level, settings, producer ids, snapshots.
use super::State;
use crate::planted::{Defect, planted};
use crate::state::broker::Broker;
use crate::state::collection::COLLECTION_LEVEL;
use crate::state::command::{
    AllocateProducerIds, Bootstrap, ExpireProducers, RaiseFeatureLevel, SetSettings, SnapshotTaken,
};
use crate::state::entry::Entry;
use crate::state::outcome::Outcome;
use crate::state::producer::{Moment, ProducerState};
use crate::state::topic::KeptSnapshot;
use crate::types::{Head, KafkaError, Position, ProducerId, Slot, TimestampMs, Token};
use std::sync::Arc;

impl State {
    pub(super) fn bootstrap(&mut self, entry: &Entry, command: &Bootstrap) -> Outcome {
        if self.cluster_id.is_some() {
            return Outcome::refused(KafkaError::InvalidRequest, "the cluster exists already");
        }
        self.cluster_id = Some(Arc::from(command.cluster_id.as_str()));
        self.settings = command.settings;
        self.feature_level = entry.feature_level.max(1);
        Outcome::Done
    }

    pub(super) fn raise_feature_level(&mut self, at: Moment, command: &RaiseFeatureLevel) -> Outcome {
        if command.level <= self.feature_level {
            let message = format!("the cluster is at feature level {}, which is not lowered", self.feature_level);
            return Outcome::refused(KafkaError::InvalidUpdateVersion, message);
        }
        let behind = |b: &&Broker| b.incarnation.is_some() && b.feature_level_max < command.level;
        if let Some(broker) = self.brokers.values().find(behind) {
            let (id, its) = (broker.id, broker.feature_level_max);
            let message = format!("broker {id} supports feature levels up to {its}; replace it by a newer one first");
            return Outcome::refused(KafkaError::InvalidUpdateVersion, message);
        }
        let begins = (self.feature_level + 1..=command.level).contains(&COLLECTION_LEVEL);
        self.feature_level = command.level;
        if begins {
            self.begin_collection(at);
        }
        Outcome::Done
    }

    pub(super) fn set_settings(&mut self, command: &SetSettings) -> Outcome {
        self.settings = command.settings;
        Outcome::Done
    }

    pub(super) fn allocate_producer_ids(&mut self, command: &AllocateProducerIds) -> Outcome {
        let first = self.next_producer;
        let Some(next) = first.0.checked_add(i64::from(command.count)) else {
            return Outcome::refused(KafkaError::UnknownServerError, "all producer ids have been given");
        };
        self.next_producer = ProducerId(next);
        Outcome::ProducerIds { first }
    }

    pub(super) fn expire_producers(&mut self, position: Position, command: &ExpireProducers) -> Outcome {
        for gone in &command.producers {
            let key = (Slot(gone.slot), ProducerId(gone.id));
            let unused = |p: ProducerState| p.last_used == Position(gone.last_used) || planted(Defect::ExpiryOfUsed);
            if self.producers.get(&key).is_some_and(unused) && !self.is_in_transaction(key.0, key.1) {
                self.forget_producer(position, key);
            }
        }
        Outcome::Done
    }

    pub(super) fn forget_producer(&mut self, position: Position, key: (Slot, ProducerId)) {
        if !self.producers.remove(&key) {
            return;
        }
        if let Some(partition) = self.partition_mut(key.0) {
            partition.producers -= 1;
            partition.forgotten = position;
        }
    }

    pub(super) fn snapshot_taken(&mut self, command: &SnapshotTaken) -> Outcome {
        let at = Head { position: Position(command.position), token: Token(command.token) };
        if self.is_below_horizon(Position(command.applied_position)) {
            return Outcome::refused(KafkaError::KafkaStorageError, "the snapshot is older than the orphan horizon");
        }
        if self.snapshots.last().is_some_and(|s| s.at.position >= at.position) {
            return Outcome::refused(KafkaError::InvalidRequest, "a snapshot of this position or a later one is kept");
        }
        self.snapshots.push(KeptSnapshot {
            at,
            key: command.key.clone(),
            bytes: command.bytes,
            taken_ms: TimestampMs(command.wall_ms),
        });
        let spare = self.snapshots.len().saturating_sub(self.settings.snapshots_min as usize);
        let old = self.snapshots.iter().take(spare);
        let gone = old.take_while(|s| command.given_up.contains(&s.at.position.0)).count();
        self.snapshots.drain(..gone);
        Outcome::Done
    }
}
