//! OffsetCommit and OffsetFetch from version 10 on, which name topics by id (KIP-848). The message crate has the structs
//! with their ids, but codecs only to version 9.
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{
    ApiKey, GroupId, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
};
use kafka_protocol::protocol::{Encodable, HeaderVersion, Message, Request, StrBytes};
use std::collections::BTreeMap;
use uuid::Uuid;

use super::request::{FrameError, decode, decoded_bytes};
use super::response::{EncodeError, Frame, Splices, encode_response, frame_of};

/// The first version that names topics by id.
const BY_ID: i16 = 10;

/// A request that has a codec of ours for its newest versions.
pub trait ById: Request {
    /// Decodes a verified body; `None` if it ends early.
    fn read(body: &mut Reader) -> Option<Self>;
}

/// The same of its response.
pub trait ByIdResponse: Encodable + HeaderVersion + Message {
    const KEY: ApiKey;
    fn write(&self, out: &mut Writer);
}

/// [`decode`] for these requests, in all their versions. Its errors are the same.
pub fn decode_by_id<M: ById>(version: i16, body: Bytes) -> Result<M, FrameError> {
    if version < BY_ID {
        return decode(version, body);
    }
    decoded_bytes(M::KEY, version, &body)?;
    M::read(&mut Reader(body)).ok_or(FrameError::Malformed("it is not what was verified"))
}

/// [`encode_response`] for these responses, in all their versions. Its errors are the same.
pub fn encode_by_id<M: ByIdResponse>(version: i16, correlation_id: i32, message: &M) -> Result<Frame, EncodeError> {
    if version < BY_ID {
        return encode_response(M::KEY, version, correlation_id, message, Splices::default());
    }
    let mut out = Writer(BytesMut::with_capacity(512));
    // The frame's size, and the flexible header: the correlation id and no tagged fields.
    out.0.put_i32(0);
    out.0.put_i32(correlation_id);
    out.no_tags();
    message.write(&mut out);
    frame_of(out.0)
}

/// Takes fields off a body in the flexible encoding (KIP-482).
pub struct Reader(pub(super) Bytes);

impl Reader {
    pub(super) fn unsigned(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in (0..32).step_by(7) {
            let byte = self.0.try_get_u8().ok()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn int32(&mut self) -> Option<i32> {
        self.0.try_get_i32().ok()
    }

    pub(super) fn int64(&mut self) -> Option<i64> {
        self.0.try_get_i64().ok()
    }

    pub(super) fn take(&mut self, bytes: usize) -> Option<Bytes> {
        (bytes <= self.0.len()).then(|| self.0.split_to(bytes))
    }

    pub(super) fn uuid(&mut self) -> Option<Uuid> {
        Uuid::from_slice(&self.take(16)?).ok()
    }

    /// The length of a string or an array; the inner `None` is null.
    pub(super) fn length(&mut self) -> Option<Option<usize>> {
        Some(self.unsigned()?.checked_sub(1).map(|length| length as usize))
    }

    pub(super) fn nullable_string(&mut self) -> Option<Option<StrBytes>> {
        match self.length()? {
            None => Some(None),
            Some(length) => StrBytes::from_utf8(self.take(length)?).ok().map(Some),
        }
    }

    pub(super) fn string(&mut self) -> Option<StrBytes> {
        self.nullable_string()?
    }

    pub(super) fn nullable_array<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Option<Vec<T>>> {
        let Some(length) = self.length()? else { return Some(None) };
        // The verifier has counted them; a list that grew would take up to three times what it said.
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(item(self)?);
        }
        Some(Some(items))
    }

    pub(super) fn array<T>(&mut self, item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.nullable_array(item)?
    }

    pub(super) fn tags(&mut self) -> Option<BTreeMap<i32, Bytes>> {
        let mut tags = BTreeMap::new();
        for _ in 0..self.unsigned()? {
            // The message crate keeps the upper half of all tags as negative numbers.
            let tag = self.unsigned()?.cast_signed();
            let length = self.unsigned()? as usize;
            tags.insert(tag, self.take(length)?);
        }
        Some(tags)
    }
}

/// Writes fields in the flexible encoding.
pub struct Writer(pub(super) BytesMut);

impl Writer {
    pub(super) fn unsigned(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.0.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.put_u8(value as u8);
    }

    pub(super) fn string(&mut self, text: Option<&str>) {
        self.unsigned(text.map_or(0, |text| text.len() + 1));
        self.0.put_slice(text.unwrap_or_default().as_bytes());
    }

    pub(super) fn array<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) {
        self.unsigned(items.len() + 1);
        items.iter().for_each(|one| item(self, one));
    }

    pub(super) fn no_tags(&mut self) {
        self.0.put_u8(0);
    }
}

impl ById for OffsetCommitRequest {
    fn read(body: &mut Reader) -> Option<Self> {
        let partition = |body: &mut Reader| {
            Some(
                OffsetCommitRequestPartition::default()
                    .with_partition_index(body.int32()?)
                    .with_committed_offset(body.int64()?)
                    .with_committed_leader_epoch(body.int32()?)
                    .with_committed_metadata(body.nullable_string()?)
                    .with_unknown_tagged_fields(body.tags()?),
            )
        };
        let topic = |body: &mut Reader| {
            Some(
                OffsetCommitRequestTopic::default()
                    .with_topic_id(body.uuid()?)
                    .with_partitions(body.array(partition)?)
                    .with_unknown_tagged_fields(body.tags()?),
            )
        };
        Some(
            Self::default()
                .with_group_id(GroupId(body.string()?))
                .with_generation_id_or_member_epoch(body.int32()?)
                .with_member_id(body.string()?)
                .with_group_instance_id(body.nullable_string()?)
                .with_topics(body.array(topic)?)
                .with_unknown_tagged_fields(body.tags()?),
        )
    }
}

impl ById for OffsetFetchRequest {
    fn read(body: &mut Reader) -> Option<Self> {
        let topic = |body: &mut Reader| {
            Some(
                OffsetFetchRequestTopics::default()
                    .with_topic_id(body.uuid()?)
                    .with_partition_indexes(body.array(Reader::int32)?)
                    .with_unknown_tagged_fields(body.tags()?),
            )
        };
        let group = |body: &mut Reader| {
            Some(
                OffsetFetchRequestGroup::default()
                    .with_group_id(GroupId(body.string()?))
                    .with_member_id(body.nullable_string()?)
                    .with_member_epoch(body.int32()?)
                    .with_topics(body.nullable_array(topic)?)
                    .with_unknown_tagged_fields(body.tags()?),
            )
        };
        Some(
            Self::default()
                .with_groups(body.array(group)?)
                .with_require_stable(body.0.try_get_u8().ok()? != 0)
                .with_unknown_tagged_fields(body.tags()?),
        )
    }
}

impl ByIdResponse for OffsetCommitResponse {
    const KEY: ApiKey = ApiKey::OffsetCommit;

    fn write(&self, out: &mut Writer) {
        out.0.put_i32(self.throttle_time_ms);
        out.array(&self.topics, |out, topic| {
            out.0.put_slice(topic.topic_id.as_bytes());
            out.array(&topic.partitions, |out, partition| {
                out.0.put_i32(partition.partition_index);
                out.0.put_i16(partition.error_code);
                out.no_tags();
            });
            out.no_tags();
        });
        out.no_tags();
    }
}

impl ByIdResponse for OffsetFetchResponse {
    const KEY: ApiKey = ApiKey::OffsetFetch;

    fn write(&self, out: &mut Writer) {
        out.0.put_i32(self.throttle_time_ms);
        out.array(&self.groups, |out, group| {
            out.string(Some(&group.group_id));
            out.array(&group.topics, |out, topic| {
                out.0.put_slice(topic.topic_id.as_bytes());
                out.array(&topic.partitions, |out, partition| {
                    out.0.put_i32(partition.partition_index);
                    out.0.put_i64(partition.committed_offset);
                    out.0.put_i32(partition.committed_leader_epoch);
                    out.string(partition.metadata.as_deref());
                    out.0.put_i16(partition.error_code);
                    out.no_tags();
                });
                out.no_tags();
            });
            out.0.put_i16(group.error_code);
            out.no_tags();
        });
        out.no_tags();
    }
}
