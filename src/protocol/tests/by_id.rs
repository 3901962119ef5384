//! The other half of `by_id.rs`, for round trips: requests are encoded, responses decoded.
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    GroupId, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
};
use std::collections::BTreeMap;

use crate::protocol::by_id::{Reader, Writer};
use crate::protocol::{FrameError, decode_by_id, encode_by_id};

/// Decodes a request's body and encodes it again.
pub(super) fn decode_encode(key: i16, body: Bytes) -> Result<Bytes, FrameError> {
    let mut out = Writer(BytesMut::new());
    match key {
        8 => write_commit(&decode_by_id(10, body)?, &mut out),
        _ => write_fetch(&decode_by_id(10, body)?, &mut out),
    }
    Ok(out.0.freeze())
}

fn tags(out: &mut Writer, tags: &BTreeMap<i32, Bytes>) {
    out.unsigned(tags.len());
    for (tag, value) in tags {
        out.unsigned(tag.cast_unsigned() as usize);
        out.unsigned(value.len());
        out.0.put_slice(value);
    }
}

fn write_commit(request: &OffsetCommitRequest, out: &mut Writer) {
    out.string(Some(&request.group_id));
    out.0.put_i32(request.generation_id_or_member_epoch);
    out.string(Some(&request.member_id));
    out.string(request.group_instance_id.as_deref());
    out.array(&request.topics, |out, topic| {
        out.0.put_slice(topic.topic_id.as_bytes());
        out.array(&topic.partitions, |out, partition| {
            out.0.put_i32(partition.partition_index);
            out.0.put_i64(partition.committed_offset);
            out.0.put_i32(partition.committed_leader_epoch);
            out.string(partition.committed_metadata.as_deref());
            tags(out, &partition.unknown_tagged_fields);
        });
        tags(out, &topic.unknown_tagged_fields);
    });
    tags(out, &request.unknown_tagged_fields);
}

fn write_fetch(request: &OffsetFetchRequest, out: &mut Writer) {
    out.array(&request.groups, |out, group| {
        out.string(Some(&group.group_id));
        out.string(group.member_id.as_deref());
        out.0.put_i32(group.member_epoch);
        match &group.topics {
            None => out.unsigned(0),
            Some(topics) => out.array(topics, |out, topic| {
                out.0.put_slice(topic.topic_id.as_bytes());
                out.array(&topic.partition_indexes, |out, index| out.0.put_i32(*index));
                tags(out, &topic.unknown_tagged_fields);
            }),
        }
        tags(out, &group.unknown_tagged_fields);
    });
    out.0.put_u8(u8::from(request.require_stable));
    tags(out, &request.unknown_tagged_fields);
}

/// Decodes a response frame without its size, and encodes it again.
pub(super) fn answer(key: i16, mut frame: Bytes) -> Bytes {
    let correlation_id = frame.get_i32();
    assert_eq!(frame.get_u8(), 0, "no tagged fields in the header");
    let mut body = Reader(frame);
    let frame = match key {
        8 => encode_by_id(10, correlation_id, &commit_response(&mut body).unwrap()).unwrap(),
        _ => encode_by_id(10, correlation_id, &fetch_response(&mut body).unwrap()).unwrap(),
    };
    assert!(body.0.is_empty());
    assert_eq!(frame.len(), 1);
    frame[0].in_memory().unwrap().slice(4..)
}

fn commit_response(body: &mut Reader) -> Option<OffsetCommitResponse> {
    let partition = |body: &mut Reader| {
        let partition = OffsetCommitResponsePartition::default()
            .with_partition_index(body.int32()?)
            .with_error_code(body.0.get_i16());
        body.tags().map(|_| partition)
    };
    let topic = |body: &mut Reader| {
        let topic =
            OffsetCommitResponseTopic::default().with_topic_id(body.uuid()?).with_partitions(body.array(partition)?);
        body.tags().map(|_| topic)
    };
    let response = OffsetCommitResponse::default().with_throttle_time_ms(body.int32()?).with_topics(body.array(topic)?);
    body.tags().map(|_| response)
}

fn fetch_response(body: &mut Reader) -> Option<OffsetFetchResponse> {
    let partition = |body: &mut Reader| {
        let partition = OffsetFetchResponsePartitions::default()
            .with_partition_index(body.int32()?)
            .with_committed_offset(body.int64()?)
            .with_committed_leader_epoch(body.int32()?)
            .with_metadata(body.nullable_string()?)
            .with_error_code(body.0.get_i16());
        body.tags().map(|_| partition)
    };
    let topic = |body: &mut Reader| {
        let topic =
            OffsetFetchResponseTopics::default().with_topic_id(body.uuid()?).with_partitions(body.array(partition)?);
        body.tags().map(|_| topic)
    };
    let group = |body: &mut Reader| {
        let group = OffsetFetchResponseGroup::default()
            .with_group_id(GroupId(body.string()?))
            .with_topics(body.array(topic)?)
            .with_error_code(body.0.get_i16());
        body.tags().map(|_| group)
    };
    let response = OffsetFetchResponse::default().with_throttle_time_ms(body.int32()?).with_groups(body.array(group)?);
    body.tags().map(|_| response)
}

/// A list that grew would take more than the verifier has paid for.
#[test]
fn lists_have_the_room_that_was_verified() {
    let group = [2, b'g', 0, 0, 0, 0, 0, 1, 0];
    let body = [&[6][..], &group.repeat(5), &[0, 0]].concat();
    let request: OffsetFetchRequest = decode_by_id(10, body.into()).unwrap();
    assert_eq!((request.groups.len(), request.groups.capacity()), (5, 5));
}

/// The verifier lets every tag pass, so the decoder must.
#[test]
fn the_largest_tag_is_a_tag() {
    let tag = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let body = [&[1, 0, 1][..], &tag, &[0]].concat();
    let request: OffsetFetchRequest = decode_by_id(10, body.into()).unwrap();
    assert_eq!(request.unknown_tagged_fields.len(), 1);
}
