//! A broker in a snapshot.
use std::sync::Arc;

use crate::state::broker::{Beat, Broker, BrokerProfile, Pulse, Standing};
use crate::state::command::Endpoint;
use crate::state::varint;
use crate::types::{BrokerId, Incarnation, Position, TimestampMs};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BrokerBody {
    #[prost(int32, tag = "1")]
    id: i32,
    #[prost(uint64, optional, tag = "2")]
    incarnation: Option<u64>,
    #[prost(uint64, tag = "3")]
    last_counter: u64,
    #[prost(uint64, tag = "4")]
    last_position: u64,
    #[prost(uint32, tag = "5")]
    feature_level_max: u32,
    /// From level 2 on, as are all below.
    #[prost(uint32, tag = "6")]
    standing: u32,
    #[prost(uint64, tag = "7")]
    registered: u64,
    #[prost(uint64, tag = "8")]
    changed: u64,
    #[prost(uint32, tag = "9")]
    turn: u32,
    #[prost(string, tag = "10")]
    zone: String,
    #[prost(message, repeated, tag = "11")]
    endpoints: Vec<Endpoint>,
    #[prost(int64, tag = "12")]
    last_ms: i64,
    /// Per beat, oldest first: position (difference), wall clock (difference).
    #[prost(bytes = "vec", tag = "13")]
    beats: Vec<u8>,
    /// From level 5 on.
    #[prost(uint64, tag = "14")]
    reported: u64,
}

impl BrokerBody {
    pub(super) fn of(broker: &Broker, level: u32) -> Self {
        let mut beats = Vec::new();
        let (mut position, mut wall_ms) = (0, 0);
        for beat in broker.pulse.beats.iter() {
            varint::put(&mut beats, beat.position.0 - position);
            varint::put_signed(&mut beats, beat.wall_ms.0.wrapping_sub(wall_ms));
            (position, wall_ms) = (beat.position.0, beat.wall_ms.0);
        }
        Self {
            id: broker.id.0,
            incarnation: broker.incarnation.map(|i| i.0),
            last_counter: broker.last_counter,
            last_position: broker.last_position.0,
            feature_level_max: broker.feature_level_max,
            // At level 1 it follows from the incarnation.
            standing: if level >= 2 { broker.standing.number() } else { 0 },
            registered: broker.registered.0,
            changed: broker.changed.0,
            turn: broker.turn,
            zone: broker.profile.zone.clone(),
            endpoints: broker.profile.endpoints.clone(),
            last_ms: broker.pulse.last_ms.0,
            beats,
            reported: broker.reported.0,
        }
    }

    pub(super) fn restore(self, level: u32) -> Option<(BrokerId, Broker)> {
        let id = BrokerId(self.id);
        let standing = match level {
            ..2 if self.incarnation.is_some() => Standing::Active,
            ..2 => Standing::Gone,
            _ => Standing::from_number(self.standing)?,
        };
        let (mut beats, mut input) = (Vec::new(), self.beats.as_slice());
        let (mut position, mut wall_ms) = (0_u64, 0_i64);
        while !input.is_empty() {
            position = position.checked_add(varint::take(&mut input)?)?;
            wall_ms = wall_ms.wrapping_add(varint::take_signed(&mut input)?);
            beats.push(Beat { position: Position(position), wall_ms: TimestampMs(wall_ms) });
        }
        let broker = Broker {
            id,
            incarnation: self.incarnation.map(Incarnation),
            last_counter: self.last_counter,
            last_position: Position(self.last_position),
            feature_level_max: self.feature_level_max,
            standing,
            registered: Position(self.registered),
            changed: Position(self.changed),
            turn: self.turn,
            reported: Position(self.reported),
            profile: Arc::new(BrokerProfile { zone: self.zone, endpoints: self.endpoints }),
            pulse: Pulse { last_ms: TimestampMs(self.last_ms), beats: Arc::new(beats) },
        };
        Some((id, broker))
    }
}
