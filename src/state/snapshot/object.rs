//! An object in a snapshot.
use crate::segment::ObjectName;
use crate::state::compaction::OBJECT_LEVEL_MAX;
use crate::state::topic::ObjectMeta;
use crate::types::{Head, ObjectId, Position, Token};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ObjectBody {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    applied_position: u64,
    #[prost(fixed64, tag = "3")]
    applied_token: u64,
    #[prost(bytes = "vec", tag = "4")]
    ulid: Vec<u8>,
    #[prost(uint32, tag = "5")]
    bytes: u32,
    /// From level 6 on, as is the next.
    #[prost(uint32, tag = "40")]
    level: u32,
    #[prost(bool, tag = "41")]
    was_input: bool,
}

impl ObjectBody {
    pub(super) fn of(id: ObjectId, meta: &ObjectMeta) -> Self {
        Self {
            id: id.0,
            applied_position: meta.name.applied.position.0,
            applied_token: meta.name.applied.token.0,
            ulid: meta.name.ulid.to_be_bytes().to_vec(),
            bytes: meta.bytes,
            level: meta.level.into(),
            was_input: meta.was_input,
        }
    }

    /// The object, of which no run is counted yet.
    pub(super) fn restore(self) -> Option<(ObjectId, ObjectMeta)> {
        let applied = Head { position: Position(self.applied_position), token: Token(self.applied_token) };
        let ulid = u128::from_be_bytes(self.ulid.try_into().ok()?);
        let level = u8::try_from(self.level).ok().filter(|level| *level <= OBJECT_LEVEL_MAX)?;
        let name = if level == 0 { ObjectName::data(applied, ulid) } else { ObjectName::compacted(applied, ulid) };
        let (bytes, was_input) = (self.bytes, self.was_input);
        Some((ObjectId(self.id), ObjectMeta { name, bytes, live_runs: 0, level, was_input }))
    }
}
