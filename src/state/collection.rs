//! Commands that let go of records and objects, from feature level 5 on: log starts that retention moves, objects that nothing
//! refers to and that are deleted from the bucket, and the orphan horizon (H4). Who proposes them is `upkeep`; what they do is
//! in `apply/collection.rs`, and specified in `docs/formats/journal.md`.
use bytes::Bytes;

use super::varint;
use crate::types::{ObjectId, Offset, PartitionIndex, Position, TimestampMs, TopicId};

/// From this feature level on objects that nothing refers to are known as dead, and there is an orphan horizon.
pub const COLLECTION_LEVEL: u32 = 5;

/// Moves the log starts of partitions whose oldest records are beyond their topics' retention.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TrimLogs {
    #[prost(message, repeated, tag = "1")]
    pub topics: Vec<TopicTrims>,
}

/// One topic of a [`TrimLogs`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct TopicTrims {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub topic_id: Bytes,
    /// The topic's config version that its retention was read from: after a change of it nothing is trimmed.
    #[prost(uint64, tag = "2")]
    pub config_version: u64,
    /// Per partition, by index, as LEB128: index minus the one before; the log start offset that it gets.
    #[prost(bytes = "bytes", tag = "3")]
    pub trims: Bytes,
}

/// Objects that were deleted from the bucket are not dead any more, but gone.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ForgetObjects {
    /// By number, as LEB128: number minus the one before; position of the entry by which it died.
    #[prost(bytes = "bytes", tag = "1")]
    pub objects: Bytes,
}

/// From here on no command may introduce an object whose writer had applied less than `position` when it named it (H4).
#[derive(Clone, PartialEq, prost::Message)]
pub struct RaiseOrphanHorizon {
    #[prost(uint64, tag = "1")]
    pub position: u64,
}

/// Since when nothing refers to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// The entry by which the last run of it went.
    pub since: Position,
    /// That entry's wall clock.
    pub since_ms: TimestampMs,
}

impl TopicTrims {
    /// Gives each partition, by index, its new log start.
    #[must_use]
    pub fn new(topic: TopicId, config_version: u64, trims: &[(PartitionIndex, Offset)]) -> Self {
        let (mut out, mut before) = (Vec::with_capacity(trims.len() * 4), 0);
        for (index, offset) in trims {
            varint::put(&mut out, u64::from((index.0 - before).unsigned_abs()));
            varint::put(&mut out, offset.0.unsigned_abs());
            before = index.0;
        }
        Self { topic_id: Bytes::copy_from_slice(topic.0.as_bytes()), config_version, trims: out.into() }
    }

    /// What it says of each partition; `None` if the bytes are not what [`TopicTrims::new`] writes.
    pub(super) fn read(&self) -> Option<Vec<(usize, Offset)>> {
        let (mut input, mut index, mut trims) = (&self.trims[..], 0_usize, Vec::new());
        while !input.is_empty() {
            index = index.checked_add(usize::try_from(varint::take(&mut input)?).ok()?)?;
            trims.push((index, Offset(i64::try_from(varint::take(&mut input)?).ok()?)));
        }
        Some(trims)
    }
}

impl ForgetObjects {
    /// Names each object, by number, with the position of its death.
    #[must_use]
    pub fn new(objects: &[(ObjectId, Position)]) -> Self {
        Self { objects: deaths_to_bytes(objects.iter().map(|(id, since)| (*id, since.0))).into() }
    }

    /// What [`ForgetObjects::new`] was given; `None` if the bytes are anything else.
    pub(super) fn read(&self) -> Option<Vec<(ObjectId, Position)>> {
        let (mut input, mut id, mut objects) = (&self.objects[..], 0_u64, Vec::new());
        while !input.is_empty() {
            id = id.checked_add(varint::take(&mut input)?)?;
            objects.push((ObjectId(id), Position(varint::take(&mut input)?)));
        }
        Some(objects)
    }
}

fn deaths_to_bytes(objects: impl Iterator<Item = (ObjectId, u64)>) -> Vec<u8> {
    let (mut out, mut before) = (Vec::new(), 0);
    for (id, since) in objects {
        varint::put(&mut out, id.0.wrapping_sub(before));
        varint::put(&mut out, since);
        before = id.0;
    }
    out
}

/// Dead objects as a snapshot has them, by number: number minus the one before; position; wall clock minus the one before.
pub(super) fn pack_dead<'a>(dead: impl Iterator<Item = (&'a ObjectId, &'a Death)>) -> Vec<u8> {
    let (mut out, mut before, mut before_ms) = (Vec::new(), 0, 0);
    for (id, death) in dead {
        varint::put(&mut out, id.0.wrapping_sub(before));
        varint::put(&mut out, death.since.0);
        varint::put_signed(&mut out, death.since_ms.0.wrapping_sub(before_ms));
        (before, before_ms) = (id.0, death.since_ms.0);
    }
    out
}

/// What [`pack_dead`] wrote; `None` if it is anything else.
pub(super) fn unpack_dead(mut input: &[u8]) -> Option<Vec<(ObjectId, Death)>> {
    let (mut id, mut wall_ms, mut dead) = (0_u64, 0_i64, Vec::new());
    while !input.is_empty() {
        id = id.checked_add(varint::take(&mut input)?)?;
        let since = Position(varint::take(&mut input)?);
        wall_ms = wall_ms.wrapping_add(varint::take_signed(&mut input)?);
        dead.push((ObjectId(id), Death { since, since_ms: TimestampMs(wall_ms) }));
    }
    Some(dead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Uuid;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_packed_comes_back(ids: std::collections::BTreeMap<u64, (u64, i64)>) {
            let objects: Vec<_> = ids.iter().map(|(id, (since, _))| (ObjectId(*id), Position(*since))).collect();
            prop_assert_eq!(ForgetObjects::new(&objects).read(), Some(objects));
            let death = |(since, ms): &(u64, i64)| Death { since: Position(*since), since_ms: TimestampMs(*ms) };
            let dead: Vec<_> = ids.iter().map(|(id, at)| (ObjectId(*id), death(at))).collect();
            prop_assert_eq!(unpack_dead(&pack_dead(dead.iter().map(|(id, death)| (id, death)))), Some(dead));
        }

        #[test]
        fn trims_come_back(trims: std::collections::BTreeMap<u16, u32>) {
            let given: Vec<_> =
                trims.iter().map(|(i, o)| (PartitionIndex(i32::from(*i)), Offset(i64::from(*o)))).collect();
            let read = TopicTrims::new(TopicId(Uuid::from_u128(7)), 1, &given).read().unwrap();
            let expected: Vec<_> = trims.iter().map(|(i, o)| (usize::from(*i), Offset(i64::from(*o)))).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = unpack_dead(&bytes);
            let _ = ForgetObjects { objects: bytes.clone().into() }.read();
            let _ = TopicTrims { trims: bytes.into(), ..TopicTrims::default() }.read();
        }
    }
}
