//! Commands about the cluster itself: its identity, settings, brokers, producer ids, snapshots.
use super::State;
use crate::planted::{Defect, planted};
use crate::state::command::{
    AllocateProducerIds, Bootstrap, CommandKind, ExpireProducers, RegisterBroker, SetSettings, SnapshotTaken,
    UnregisterBroker,
};
use crate::state::entry::Entry;
use crate::state::outcome::Outcome;
use crate::state::producer::ProducerState;
use crate::state::topic::{Broker, KeptSnapshot};
use crate::types::{BrokerId, Head, Incarnation, KafkaError, Position, ProducerId, Slot, TimestampMs, Token};
use std::sync::Arc;

impl State {
    /// Whether the entry may act: its incarnation is its broker's and its counter is new (H8), or it registers.
    pub(super) fn admit(&mut self, position: Position, entry: &Entry) -> bool {
        let founds = |c: &crate::state::Command| {
            matches!(&c.kind, Some(CommandKind::Bootstrap(_)))
                || matches!(&c.kind, Some(CommandKind::RegisterBroker(r))
                    if r.broker == entry.broker && r.incarnation == entry.incarnation)
        };
        if entry.commands.first().is_some_and(founds) {
            return true;
        }
        match self.brokers.get_mut(&BrokerId(entry.broker)) {
            Some(b)
                if (b.incarnation == Some(Incarnation(entry.incarnation)) || planted(Defect::ZombieAdmitted))
                    && entry.counter > b.last_counter =>
            {
                b.last_counter = entry.counter;
                b.last_position = position;
                true
            }
            _ => false,
        }
    }

    pub(super) fn bootstrap(&mut self, command: &Bootstrap) -> Outcome {
        if self.cluster_id.is_some() {
            return Outcome::refused(KafkaError::InvalidRequest, "the cluster exists already");
        }
        self.cluster_id = Some(Arc::from(command.cluster_id.as_str()));
        self.settings = command.settings;
        Outcome::Done
    }

    pub(super) fn register_broker(&mut self, position: Position, entry: &Entry, command: &RegisterBroker) -> Outcome {
        if command.feature_level_max < self.feature_level {
            let (ours, its) = (self.feature_level, command.feature_level_max);
            let message = format!("the cluster is at feature level {ours}, the broker supports up to {its}");
            return Outcome::refused(KafkaError::UnsupportedVersion, message);
        }
        let id = BrokerId(command.broker);
        let broker = Broker {
            id,
            incarnation: Some(Incarnation(command.incarnation)),
            last_counter: entry.counter,
            last_position: position,
            feature_level_max: command.feature_level_max,
        };
        self.brokers.insert(id, broker);
        Outcome::Done
    }

    pub(super) fn unregister_broker(&mut self, entry: &Entry, command: &UnregisterBroker) -> Outcome {
        match self.brokers.get_mut(&BrokerId(command.broker)) {
            Some(b) if command.broker == entry.broker => {
                b.incarnation = None;
                Outcome::Done
            }
            _ => Outcome::refused(KafkaError::BrokerIdNotRegistered, "only a registered broker can unregister itself"),
        }
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
            if self.producers.get(&key).is_some_and(unused) {
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
        if Position(command.applied_position) < self.orphan_horizon {
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
