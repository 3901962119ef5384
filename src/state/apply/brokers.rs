//! Commands about brokers: who takes part. A change of that raises [`State::membership`], from which leader epochs follow
//! (H11). Below feature level 2 there are registrations only.
use std::sync::Arc;

use super::State;
use crate::planted::{Defect, planted};
use crate::state::broker::{Broker, BrokerProfile, Pulse, Standing};
use crate::state::collection::COLLECTION_LEVEL;
use crate::state::command::{AnnounceBroker, CommandKind, DrainBroker, FenceBroker, RegisterBroker, UnregisterBroker};
use crate::state::entry::Entry;
use crate::state::outcome::Outcome;
use crate::types::{BrokerId, Incarnation, KafkaError, Position, TimestampMs};

/// Brokers that are gone and remembered. Beyond it the first that went are forgotten.
const DEPARTED_MAX: usize = 100;
/// Addresses of one broker: more than anybody has listeners.
const ENDPOINTS_MAX: usize = 32;
/// Bytes of a zone's, a listener's or a host's name: what the DNS allows.
const NAME_BYTES_MAX: usize = 255;

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
        let (level, fencing_ms) = (self.feature_level, self.settings.fencing_ms);
        match self.brokers.get_mut(&BrokerId(entry.broker)) {
            Some(b)
                if (b.incarnation == Some(Incarnation(entry.incarnation)) || planted(Defect::ZombieAdmitted))
                    && entry.counter > b.last_counter =>
            {
                b.last_counter = entry.counter;
                b.last_position = position;
                if level >= COLLECTION_LEVEL {
                    b.reported = b.reported.max(Position(entry.after_position));
                }
                if level >= 2 {
                    b.pulse.beat(position, TimestampMs(entry.wall_ms), fencing_ms);
                }
                true
            }
            _ => false,
        }
    }

    pub(super) fn register_broker(&mut self, position: Position, entry: &Entry, command: &RegisterBroker) -> Outcome {
        if command.feature_level_max < self.feature_level {
            let (ours, its) = (self.feature_level, command.feature_level_max);
            let message = format!("the cluster is at feature level {ours}, the broker supports up to {its}");
            return Outcome::refused(KafkaError::UnsupportedVersion, message);
        }
        let id = BrokerId(command.broker);
        let old = self.brokers.get(&id);
        if let Some(old) = old.filter(|old| old.registered.0 > entry.after_position) {
            let message = format!("broker {id} was registered at {} meanwhile", old.registered);
            return Outcome::refused(KafkaError::DuplicateBrokerRegistration, message);
        }
        let (known, joins) = (old.cloned(), old.is_none_or(|old| old.standing != Standing::Active));
        let mut broker = Broker {
            id,
            incarnation: Some(Incarnation(command.incarnation)),
            last_counter: entry.counter,
            last_position: position,
            feature_level_max: command.feature_level_max,
            standing: Standing::Active,
            registered: Position(0),
            changed: Position(0),
            turn: 0,
            reported: Position(0),
            profile: Arc::default(),
            pulse: Pulse::default(),
        };
        if self.feature_level >= 2 {
            (broker.registered, broker.changed) = (position, position);
            broker.pulse.beat(position, TimestampMs(entry.wall_ms), self.settings.fencing_ms);
            if let Some(known) = known {
                (broker.turn, broker.profile) = (known.turn, known.profile);
            }
            if joins && broker.is_member() {
                broker.turn = self.turn_membership();
            }
        }
        if self.feature_level >= COLLECTION_LEVEL {
            broker.reported = Position(entry.after_position);
        }
        self.brokers.insert(id, broker);
        self.forget_departed();
        Outcome::Done
    }

    pub(super) fn unregister_broker(
        &mut self,
        position: Position,
        entry: &Entry,
        command: &UnregisterBroker,
    ) -> Outcome {
        let id = BrokerId(command.broker);
        if command.broker == entry.broker && self.leave(position, id, Standing::Gone) {
            Outcome::Done
        } else {
            Outcome::refused(KafkaError::BrokerIdNotRegistered, "only a registered broker can unregister itself")
        }
    }

    pub(super) fn announce_broker(&mut self, entry: &Entry, command: &AnnounceBroker) -> Outcome {
        if self.feature_level < 2 {
            return too_early();
        }
        let named = |e: &crate::state::Endpoint| e.listener.len().max(e.host.len()) <= NAME_BYTES_MAX;
        let (zone, endpoints) = (command.zone.clone(), command.endpoints.clone());
        if zone.len() > NAME_BYTES_MAX || endpoints.len() > ENDPOINTS_MAX || !endpoints.iter().all(named) {
            return Outcome::refused(KafkaError::InvalidRequest, "a zone, listener or host has too long a name");
        }
        let id = BrokerId(entry.broker);
        let profile = BrokerProfile { zone, endpoints };
        // Also where a registration in front of it was refused.
        let old = self.brokers.get(&id).filter(|old| old.incarnation == Some(Incarnation(entry.incarnation)));
        let Some(old) = old else { return not_registered(id) };
        if *old.profile == profile {
            return Outcome::Done;
        }
        let moves = old.turn > 0 && old.profile.zone != profile.zone;
        let turn = self.turn_membership();
        if moves {
            // Whom it took turns with in its old zone can't be told any more.
            self.membership_floor = turn;
        }
        if let Some(broker) = self.brokers.get_mut(&id) {
            (broker.profile, broker.turn) = (Arc::new(profile), turn);
        }
        Outcome::Done
    }

    pub(super) fn drain_broker(&mut self, position: Position, command: &DrainBroker) -> Outcome {
        if self.feature_level < 2 {
            return too_early();
        }
        let id = BrokerId(command.broker);
        match self.brokers.get(&id).map(|broker| broker.standing) {
            Some(Standing::Active) => drop(self.leave(position, id, Standing::Draining)),
            Some(Standing::Draining) => {}
            _ => return not_registered(id),
        }
        Outcome::Done
    }

    /// The silence of the one counts only while the other followed the journal, and not many are silent at a time: else
    /// it is the journal that stalls (H12).
    pub(super) fn fence_broker(&mut self, position: Position, entry: &Entry, command: &FenceBroker) -> Outcome {
        let (id, ms) = (BrokerId(command.broker), self.settings.fencing_ms);
        if self.feature_level < 2 {
            return too_early();
        }
        let (Some(silent), Some(proposer)) = (self.brokers.get(&id), self.brokers.get(&BrokerId(entry.broker))) else {
            return not_registered(id);
        };
        let spoke = silent.incarnation != Some(Incarnation(command.incarnation))
            || silent.last_position.0 != command.last_position;
        if ms <= 0 || id == proposer.id || spoke {
            return Outcome::refused(KafkaError::InvalidRequest, "the broker has spoken since");
        }
        let window = proposer.pulse.position_before(ms);
        let Some(window) = window.filter(|_| proposer.pulse.followed_after(silent.last_position) >= ms) else {
            return Outcome::refused(KafkaError::InvalidRequest, "the proposer has not followed the journal for long");
        };
        let live = self.brokers.values().filter(|b| b.incarnation.is_some()).count();
        let fenced = self.brokers.values().filter(|b| b.standing == Standing::Fenced && b.changed > window).count();
        if fenced >= ((live + fenced) / 2).max(1) {
            return Outcome::refused(KafkaError::ThrottlingQuotaExceeded, "too many were fenced a short while ago");
        }
        self.leave(position, id, Standing::Fenced);
        Outcome::Done
    }

    /// Takes a broker out; false if it is not in.
    fn leave(&mut self, position: Position, id: BrokerId, standing: Standing) -> bool {
        let Some(mut broker) = self.brokers.get(&id).cloned() else { return false };
        let was_member = broker.is_member();
        broker.standing = standing;
        if standing != Standing::Draining {
            broker.incarnation = None;
        }
        if self.feature_level >= 2 {
            broker.changed = position;
            if was_member {
                broker.turn = self.turn_membership();
            }
        }
        self.brokers.insert(id, broker);
        true
    }

    fn turn_membership(&mut self) -> u32 {
        self.membership = self.membership.saturating_add(1);
        self.membership
    }

    fn forget_departed(&mut self) {
        let gone = || self.brokers.values().filter(|broker| broker.incarnation.is_none());
        if self.feature_level < 2 || gone().count() <= DEPARTED_MAX {
            return;
        }
        if let Some((turn, id)) = gone().map(|broker| (broker.turn, broker.id)).min() {
            self.membership_floor = self.membership_floor.max(turn);
            self.brokers.remove(&id);
        }
    }
}

fn too_early() -> Outcome {
    Outcome::refused(KafkaError::UnsupportedVersion, "the cluster is at feature level 1; raise it first")
}

fn not_registered(id: BrokerId) -> Outcome {
    Outcome::refused(KafkaError::BrokerIdNotRegistered, format!("broker {id} is not registered"))
}

#[cfg(test)]
mod tests;
