//! Every way to break a batch that we know of (K31), with our answer and the one that Apache Kafka 4.3.1 gave for the
//! same bytes in a Produce v9 request. Where they differ on purpose:
//! - Kafka answers UNKNOWN_SERVER_ERROR (-1), an exception that nobody caught, to undecodable content, unknown codecs,
//!   lengths near 2^31 and compressed records whose offsets do not count up. We name the fault; no code of ours is
//!   retriable there.
//! - Kafka takes, of uncompressed batches, offset deltas that do not count up from 0 (and stores offsets that overlap),
//!   lengths below -1, bytes behind the batch (a cut second batch is dropped in silence), and LogAppendTime from clients
//!   on CreateTime topics. We refuse them: no client sends them, and some break readers.
//! - Transactional batches came without a transactional id in the request, which Kafka refuses (53) before it looks.
//!
//! `cargo test refusals_as_hex -- --ignored --nocapture` prints the bytes.
use super::{NOW, rules};
use crate::records::codec::{Codec, Level, compress};
use crate::records::header::{BatchHeader, HEADER_BYTES, TimestampType};
use crate::records::{BatchBuilder, NewRecord, Rules, validate};
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};
use bytes::Bytes;

/// 2100-01-01, beyond any `message.timestamp.after.max.ms`.
const FUTURE: i64 = 4_102_444_800_000;

#[derive(Clone, Copy, Debug)]
enum Topic {
    Plain,
    Compacted,
    LogAppendTime,
    Gzip,
    /// `max.message.bytes` is 200.
    Small,
}
use Topic::*;

type Case = (&'static str, Topic, Bytes, i16, i16);

fn record(index: i32) -> NewRecord<'static> {
    NewRecord { timestamp: TimestampMs(NOW + i64::from(index)), key: Some(b"key"), value: Some(b"value"), headers: &[] }
}

/// Three records of producer 7.
fn good(codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new().codec(codec, Level::Default);
    (0..3).for_each(|index| builder.push(&record(index)));
    builder.build().unwrap()
}

/// `batch` with another header, CRC right.
fn header(batch: &Bytes, change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut header = BatchHeader::parse(batch).unwrap();
    change(&mut header);
    let body = &batch[HEADER_BYTES..];
    [&header.seal(body)[..], body].concat().into()
}

/// The good batch with another header.
fn h(change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    header(&good(Codec::None), change)
}

fn producer(change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    h(|header| {
        header.producer_id = ProducerId(7);
        header.producer_epoch = ProducerEpoch(0);
        header.base_sequence = Sequence(0);
        change(header);
    })
}

/// The good batch with other bytes, CRC as it was.
fn raw(at: usize, bytes: &[u8]) -> Bytes {
    let mut batch = good(Codec::None).to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    batch.into()
}

/// A batch of `count` records with `body` behind the header as it stands, length and CRC right.
fn content(codec: Codec, count: i32, body: &[u8]) -> Bytes {
    let mut header = BatchHeader::parse(&good(Codec::None)).unwrap();
    header.batch_length = u32::try_from(HEADER_BYTES - 12 + body.len()).unwrap();
    (header.count, header.last_offset_delta) = (count, count - 1);
    header.max_timestamp = TimestampMs(NOW);
    header.set_codec(codec);
    [&header.seal(body)[..], body].concat().into()
}

fn packed(codec: Codec, count: i32, body: &[u8]) -> Bytes {
    content(codec, count, &compress(codec, Level::Default, body).unwrap())
}

/// A record's bytes: attributes, timestamp delta, offset delta, key, value, number of headers, headers; each given as
/// it stands on the wire (zigzag: 1 is -1, 2 is 1).
fn one(fields: &[u8]) -> Vec<u8> {
    let mut record = vec![u8::try_from(fields.len() * 2).unwrap()];
    record.extend_from_slice(fields);
    record
}

fn keyless(codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new().codec(codec, Level::Default);
    builder.push(&record(0));
    builder.push(&NewRecord { key: None, ..record(1) });
    builder.build().unwrap()
}

fn future(codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new().codec(codec, Level::Default);
    builder.push(&record(0));
    builder.push(&NewRecord { timestamp: TimestampMs(FUTURE), ..record(1) });
    builder.build().unwrap()
}

fn sized(bytes: usize) -> Bytes {
    let value = vec![b'v'; bytes];
    let build = |length: usize| {
        BatchBuilder::new().with(&NewRecord { value: Some(&value[..length]), ..record(0) }).build().unwrap()
    };
    (0..bytes).map(build).find(|batch| batch.len() == bytes).unwrap()
}

const OK: i16 = 0;

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let two = [good(Codec::None), good(Codec::None)].concat().into();
    let cut = good(Codec::None).slice(..80);
    let extra: Bytes = [&good(Codec::None)[..], b"extra"].concat().into();
    let body = good(Codec::None).slice(HEADER_BYTES..);
    let record = one(&[0, 0, 0, 2, b'k', 2, b'v', 0]);
    vec![
        // name, topic, bytes, ours, Kafka's
        ("good", Plain, good(Codec::None), 0, 0),
        ("good gzip", Plain, good(Codec::Gzip), 0, 0),
        ("good snappy", Plain, good(Codec::Snappy), 0, 0),
        ("good lz4", Plain, good(Codec::Lz4), 0, 0),
        ("good zstd", Plain, good(Codec::Zstd), 0, 0),
        ("good to gzip", Gzip, good(Codec::None), 0, 0),
        ("good zstd to gzip", Gzip, good(Codec::Zstd), 0, 0),
        ("no batch", Plain, Bytes::new(), 87, 87),
        ("two batches", Plain, two, 87, 87),
        ("cut short", Plain, cut, 87, 87),
        ("bytes behind the batch", Plain, extra, 87, 0),
        ("base offset 5", Plain, h(|h| h.base_offset = Offset(5)), 87, 87),
        ("base offset -1", Plain, h(|h| h.base_offset = Offset(-1)), 87, 87),
        ("base offset max", Plain, h(|h| h.base_offset = Offset(i64::MAX)), 87, 87),
        ("length one more", Plain, h(|h| h.batch_length += 1), 87, 87),
        ("length one less", Plain, h(|h| h.batch_length -= 1), 87, 2),
        ("length 48", Plain, h(|h| h.batch_length = 48), 2, 2),
        ("length 0", Plain, h(|h| h.batch_length = 0), 2, 2),
        ("length -1", Plain, h(|h| h.batch_length = u32::MAX), 2, 2),
        ("length max", Plain, h(|h| h.batch_length = i32::MAX as u32), 87, -1),
        ("leader epoch 9", Plain, h(|h| h.leader_epoch = LeaderEpoch(9)), 0, 0),
        ("magic 0", Plain, raw(16, &[0]), 87, 87),
        ("magic 1", Plain, raw(16, &[1]), 87, 87),
        ("magic 3", Plain, raw(16, &[3]), 2, 2),
        ("magic -1", Plain, raw(16, &[255]), 2, 2),
        ("crc", Plain, raw(17, &[1, 2, 3, 4]), 2, 2),
        ("record byte", Plain, raw(70, &[99]), 2, 2),
        ("codec 5", Plain, h(|h| h.attributes = 5), 76, -1),
        ("codec 7", Plain, h(|h| h.attributes = 7), 76, -1),
        ("gzip bit on plain records", Plain, h(|h| h.attributes = 1), 87, -1),
        ("snappy bit on plain records", Plain, h(|h| h.attributes = 2), 87, -1),
        ("lz4 bit on plain records", Plain, h(|h| h.attributes = 3), 87, -1),
        ("zstd bit on plain records", Plain, h(|h| h.attributes = 4), 87, -1),
        ("no bit on gzip records", Plain, header(&good(Codec::Gzip), |h| h.attributes = 0), 87, 87),
        ("log append time", Plain, h(|h| h.attributes = 8), 32, 0),
        ("log append time, its topic", LogAppendTime, h(|h| h.attributes = 8), 32, 32),
        ("log append time without time", Plain, h(|h| (h.attributes, h.max_timestamp) = (8, TimestampMs(-1))), 32, 32),
        ("transactional with producer", Plain, producer(|h| (h.producer_id, h.attributes) = (ProducerId(11), 16)), 0, 53),
        ("transactional, no producer", Plain, h(|h| h.attributes = 16), 87, 53),
        ("control", Plain, h(|h| h.attributes = 32), 87, 87),
        ("control with producer", Plain, producer(|h| h.attributes = 32), 87, 87),
        ("delete horizon", Plain, h(|h| h.attributes = 64), 0, 0),
        ("attribute bit 7", Plain, h(|h| h.attributes = 128), 0, 0),
        ("attribute bit 15", Plain, h(|h| h.attributes = 1 << 15), 0, 0),
        ("last offset delta 3", Plain, h(|h| h.last_offset_delta = 3), 87, 87),
        ("last offset delta 1", Plain, h(|h| h.last_offset_delta = 1), 87, 87),
        ("last offset delta -1", Plain, h(|h| h.last_offset_delta = -1), 87, 87),
        ("last offset delta min", Plain, h(|h| h.last_offset_delta = i32::MIN), 87, 87),
        ("last offset delta max", Plain, h(|h| h.last_offset_delta = i32::MAX), 87, 87),
        ("base timestamp min", Plain, h(|h| h.base_timestamp = TimestampMs(i64::MIN)), 32, 32),
        ("base timestamp max", Plain, h(|h| h.base_timestamp = TimestampMs(i64::MAX)), 32, 32),
        ("base timestamp -5", Plain, h(|h| h.base_timestamp = TimestampMs(-5)), 0, 0),
        ("base timestamp in the future", Plain, h(|h| h.base_timestamp = TimestampMs(FUTURE)), 32, 32),
        ("max timestamp too small", Plain, h(|h| h.max_timestamp = TimestampMs(NOW)), 0, 0),
        ("max timestamp too large", Plain, h(|h| h.max_timestamp = TimestampMs(NOW + 9)), 0, 0),
        ("max timestamp -1", Plain, h(|h| h.max_timestamp = TimestampMs(-1)), 0, 0),
        ("max timestamp in the future", Plain, h(|h| h.max_timestamp = TimestampMs(FUTURE)), 0, 0),
        ("producer", Plain, producer(|_| {}), 0, 0),
        ("producer id -2", Plain, producer(|h| h.producer_id = ProducerId(-2)), 0, 0),
        ("producer id -1, sequence 0", Plain, producer(|h| h.producer_id = ProducerId(-1)), 0, 0),
        ("producer epoch -1", Plain, producer(|h| (h.producer_id, h.producer_epoch) = (ProducerId(8), ProducerEpoch(-1))), 47, 0),
        ("producer epoch -2", Plain, producer(|h| (h.producer_id, h.producer_epoch) = (ProducerId(9), ProducerEpoch(-2))), 47, 47),
        ("sequence -1", Plain, producer(|h| h.base_sequence = Sequence(-1)), 87, 87),
        ("sequence -2", Plain, producer(|h| h.base_sequence = Sequence(-2)), 87, 87),
        ("sequence wraps", Plain, producer(|h| (h.producer_id, h.base_sequence) = (ProducerId(10), Sequence(i32::MAX))), 0, 0),
        ("count 0", Plain, h(|h| h.count = 0), 87, 87),
        ("count 0 and last -1", Plain, h(|h| (h.count, h.last_offset_delta) = (0, -1)), 87, 87),
        ("count -1", Plain, h(|h| h.count = -1), 87, 87),
        ("count max", Plain, h(|h| h.count = i32::MAX), 87, 87),
        ("count max and last max - 1", Plain, h(|h| (h.count, h.last_offset_delta) = (i32::MAX, i32::MAX - 1)), 87, 87),
        ("one record less than counted", Plain, h(|h| (h.count, h.last_offset_delta) = (4, 3)), 87, 87),
        ("one record more than counted", Plain, h(|h| (h.count, h.last_offset_delta) = (2, 1)), 87, 87),
        ("gzip: one less than counted", Plain, packed(Codec::Gzip, 4, &body), 87, 87),
        ("gzip: one more than counted", Plain, packed(Codec::Gzip, 2, &body), 87, 87),
        ("one record", Plain, content(Codec::None, 1, &record), 0, 0),
        ("record attributes", Plain, content(Codec::None, 1, &one(&[255, 0, 0, 2, b'k', 2, b'v', 0])), 0, 0),
        ("offset delta 1 first", Plain, content(Codec::None, 1, &one(&[0, 0, 2, 2, b'k', 2, b'v', 0])), 87, 0),
        ("offset delta -1", Plain, content(Codec::None, 1, &one(&[0, 0, 1, 2, b'k', 2, b'v', 0])), 87, 0),
        ("offset delta 0 twice", Plain, content(Codec::None, 2, &[&record[..], &record].concat()), 87, 0),
        ("gzip: offset delta 1 first", Plain, packed(Codec::Gzip, 1, &one(&[0, 0, 2, 2, b'k', 2, b'v', 0])), 87, -1),
        ("gzip: offset delta 0 twice", Plain, packed(Codec::Gzip, 2, &[&record[..], &record].concat()), 87, -1),
        ("record size 0", Plain, content(Codec::None, 1, &[0]), 87, 87),
        ("record size negative", Plain, content(Codec::None, 1, &[1, 0, 0, 0]), 87, 87),
        ("record size beyond the batch", Plain, content(Codec::None, 1, &[126, 0, 0, 0, 1, 1, 0]), 87, 87),
        ("record size varint of 6 bytes", Plain, content(Codec::None, 1, &[0x8e, 0x80, 0x80, 0x80, 0x80, 0, 0, 0, 0, 1, 1, 0]), 87, -1),
        ("record longer than its fields", Plain, content(Codec::None, 1, &one(&[0, 0, 0, 1, 1, 0, 77])), 87, 87),
        ("gzip: record longer than its fields", Plain, packed(Codec::Gzip, 1, &one(&[0, 0, 0, 1, 1, 0, 77])), 87, 87),
        ("key beyond the record", Plain, content(Codec::None, 1, &one(&[0, 0, 0, 40, b'k', 1, 0])), 87, 87),
        ("key length -2", Plain, content(Codec::None, 1, &one(&[0, 0, 0, 3, 1, 0])), 87, 0),
        ("value length -2", Plain, content(Codec::None, 1, &one(&[0, 0, 0, 1, 3, 0])), 87, 0),
        ("no key, no value", Plain, content(Codec::None, 1, &one(&[0, 0, 0, 1, 1, 0])), 0, 0),
        ("header count -1", Plain, content(Codec::None, 1, &one(&[0, 0, 0, 1, 1, 1])), 87, 87),
        ("header count too large", Plain, content(Codec::None, 1, &one(&[0, 0, 0, 1, 1, 100])), 87, 87),
        ("header without key", Plain, content(Codec::None, 1, &one(&[0, 0, 0, 1, 1, 2, 1, 1])), 87, 87),
        ("header without value", Plain, content(Codec::None, 1, &one(&[0, 0, 0, 1, 1, 2, 2, b'h', 1])), 0, 0),
        ("header value length -2", Plain, content(Codec::None, 1, &one(&[0, 0, 0, 1, 1, 2, 2, b'h', 3])), 87, 0),
        ("two equal headers", Plain, content(Codec::None, 1, &one(&[0, 0, 0, 1, 1, 4, 2, b'h', 1, 2, b'h', 1])), 0, 0),
        ("garbage under none", Plain, content(Codec::None, 1, b"garbage"), 87, 87),
        ("garbage under gzip", Plain, content(Codec::Gzip, 1, b"garbage"), 87, -1),
        ("garbage under snappy", Plain, content(Codec::Snappy, 1, b"garbage"), 87, -1),
        ("garbage under lz4", Plain, content(Codec::Lz4, 1, b"garbage"), 87, -1),
        ("garbage under zstd", Plain, content(Codec::Zstd, 1, b"garbage"), 87, -1),
        ("garbage in gzip", Plain, packed(Codec::Gzip, 1, b"garbage"), 87, 87),
        ("nothing under gzip", Plain, content(Codec::Gzip, 1, b""), 87, -1),
        ("nothing under snappy", Plain, content(Codec::Snappy, 1, b""), 87, -1),
        ("nothing under zstd", Plain, content(Codec::Zstd, 1, b""), 87, 87),
        ("no key", Plain, keyless(Codec::None), 0, 0),
        ("no key, compacted", Compacted, keyless(Codec::None), 87, 87),
        ("no key, compacted, zstd", Compacted, keyless(Codec::Zstd), 87, 87),
        ("keys, compacted, lz4", Compacted, good(Codec::Lz4), 0, 0),
        ("future", Plain, future(Codec::None), 32, 32),
        ("future gzip", Plain, future(Codec::Gzip), 32, 32),
        ("future, log append time", LogAppendTime, future(Codec::None), 0, 0),
        ("future, compacted", Compacted, future(Codec::Lz4), 32, 32),
        ("as large as allowed", Small, sized(200), 0, 0),
        ("a byte too large", Small, sized(201), 10, 10),
    ]
}

fn rules_of(topic: Topic) -> Rules {
    let mut rules = rules();
    match topic {
        Plain => {}
        Compacted => rules.compacted = true,
        LogAppendTime => rules.timestamp_type = TimestampType::LogAppendTime,
        Gzip => rules.target = Some((Codec::Gzip, Level::Default)),
        Small => rules.max_message_bytes = 200,
    }
    rules
}

#[test]
fn broken_batches_are_refused_as_kafka_does() {
    let mut wrong = Vec::new();
    for (name, topic, bytes, ours, _) in cases() {
        let refused = validate(&bytes, &rules_of(topic)).map(|_| ()).map_err(|refused| refused.error.code());
        let code = refused.err().unwrap_or(OK);
        if code != ours {
            wrong.push(format!("{name}: expected {ours}, got {code}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
#[ignore = "prints the table's bytes, to send them to a real Kafka"]
fn refusals_as_hex() {
    for (name, topic, bytes, _, _) in cases() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let ours = validate(&bytes, &rules_of(topic));
        let stored = ours.as_ref().map(|valid| hex(&valid.bytes.clone().into_bytes())).unwrap_or_default();
        let code = ours.as_ref().map_or_else(|refused| refused.error.code(), |_| OK);
        println!("CASE|{name}|{topic:?}|{}|{code}|{stored}|{:?}", hex(&bytes), ours.err());
    }
}
