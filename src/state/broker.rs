//! A broker as State knows it: who it is, where clients reach it, whether it takes part, and how it has been heard.
use std::sync::Arc;

use super::command::Endpoint;
use crate::types::{BrokerId, Incarnation, Position, TimestampMs};

/// A broker that registered once. Of clusters below feature level 2 only the first five fields and `standing` say
/// something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub id: BrokerId,
    /// `None` after it unregistered or was fenced.
    pub incarnation: Option<Incarnation>,
    /// The highest counter of that incarnation; lower or equal ones are ignored.
    pub last_counter: u64,
    pub last_position: Position,
    pub feature_level_max: u32,
    pub standing: Standing,
    /// Its newest registration. A registration by somebody who does not know of it comes too late.
    pub registered: Position,
    /// When its standing changed last.
    pub changed: Position,
    /// What [`super::State::membership`] was when it came or went last.
    pub turn: u32,
    /// What its last entry says that it had applied. From level 5 on: what it names from then on has this position or a later
    /// one (H4).
    pub reported: Position,
    pub profile: Arc<BrokerProfile>,
    pub pulse: Pulse,
}

/// Whether a broker takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It leads and coordinates.
    Active,
    /// It serves what it has taken, and hands over everything else.
    Draining,
    /// The others gave it up for its silence (H12).
    Fenced,
    /// It ended its registration.
    Gone,
}

/// Where a broker is and how clients reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerProfile {
    /// Empty for none.
    pub zone: String,
    pub endpoints: Vec<Endpoint>,
}

impl BrokerProfile {
    /// Where clients that came to another broker by `listener` find this one; its first address, if none has that name.
    #[must_use]
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.listener == listener).or_else(|| self.endpoints.first())
    }
}

/// When a broker was heard, by its own clock: it shows for how long it has followed the journal without a gap, which is
/// what it must have done to call another one silent (H12).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Of its last entry.
    pub last_ms: TimestampMs,
    /// Some of its entries, oldest first, spaced, none of them before the last gap.
    pub beats: Arc<Vec<Beat>>,
}

/// One entry of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    pub position: Position,
    pub wall_ms: TimestampMs,
}

/// Beats that are kept: more than two fencing times of them.
const BEATS_MAX: usize = 20;
/// Parts of the fencing time between two beats that are kept, and after which nothing counts as a gap.
const SPACING: i64 = 8;
const GAP: i64 = 2;

impl Standing {
    /// Every one, with its number in snapshots and its name for people.
    pub(super) const ALL: [(Self, u32, &'static str); 4] = [
        (Self::Active, 0, "active"),
        (Self::Draining, 1, "draining"),
        (Self::Fenced, 2, "fenced"),
        (Self::Gone, 3, "stopped"),
    ];

    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(known, ..)| *known == self).map_or("", |(_, _, name)| name)
    }

    pub(super) fn number(self) -> u32 {
        Self::ALL.iter().find(|(known, ..)| *known == self).map_or(0, |(_, number, _)| *number)
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == number).map(|(standing, ..)| *standing)
    }
}

impl Broker {
    /// Whether clients are sent to it: it takes part, and it is known where it is.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.standing == Standing::Active && !self.profile.endpoints.is_empty()
    }
}

impl Pulse {
    /// An entry of `wall_ms` was applied at `position`.
    pub(super) fn beat(&mut self, position: Position, wall_ms: TimestampMs, fencing_ms: i64) {
        let since = wall_ms.0.saturating_sub(self.last_ms.0);
        self.last_ms = wall_ms;
        let gap = !(0..=fencing_ms / GAP).contains(&since);
        let due = self.beats.last().is_none_or(|last| wall_ms.0.saturating_sub(last.wall_ms.0) >= fencing_ms / SPACING);
        if !gap && !due {
            return;
        }
        let beats = Arc::make_mut(&mut self.beats);
        if gap {
            beats.clear();
        }
        if beats.len() == BEATS_MAX {
            beats.remove(0);
        }
        beats.push(Beat { position, wall_ms });
    }

    /// For how long the broker has followed the journal after `position`, in ms; 0 if it is not known.
    pub(super) fn followed_after(&self, position: Position) -> i64 {
        let first = self.beats.iter().find(|beat| beat.position > position);
        first.map_or(0, |beat| self.last_ms.0.saturating_sub(beat.wall_ms.0))
    }

    /// A position that the broker had heard of at least `ms` ago; `None` if it has not followed for so long.
    pub(super) fn position_before(&self, ms: i64) -> Option<Position> {
        let old = |beat: &&Beat| self.last_ms.0.saturating_sub(beat.wall_ms.0) >= ms;
        self.beats.iter().rev().find(old).map(|beat| beat.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_followed_without_a_gap_counts() {
        let mut pulse = Pulse::default();
        for n in 0..40_u64 {
            pulse.beat(Position(n), TimestampMs(1_000_000 + n as i64 * 1_000), 8_000);
        }
        assert_eq!(pulse.beats.len(), BEATS_MAX);
        assert_eq!(pulse.followed_after(Position(30)), 8_000);
        assert_eq!(pulse.followed_after(Position(39)), 0);
        assert_eq!(pulse.position_before(8_000), Some(Position(31)));
        let mut gone_back = pulse.clone();
        for (pulse, jump) in [(&mut pulse, 4_001), (&mut gone_back, -1)] {
            let jumped = TimestampMs(pulse.last_ms.0 + jump);
            pulse.beat(Position(40), jumped, 8_000);
            assert_eq!((pulse.beats.len(), pulse.followed_after(Position(30))), (1, 0), "after {jump} ms");
            assert_eq!(pulse.position_before(1), None);
        }
    }

    #[test]
    fn a_busy_broker_keeps_few_beats() {
        let mut pulse = Pulse::default();
        (0..100).for_each(|n| pulse.beat(Position(n), TimestampMs(n as i64 * 10), 8_000));
        assert_eq!(pulse.beats.len(), 1);
    }
}
