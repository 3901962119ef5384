//! Tables and properties over the whole room: what is built is walked back, what is broken is refused.
mod clients;
mod cost;
mod properties;
mod refusals;

use super::*;
use crate::types::{KafkaError, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};
use bytes::Bytes;

const LIMIT: usize = 1 << 20;
const NOW: i64 = 1_700_000_000_000;
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn rules() -> Rules {
    Rules {
        max_message_bytes: 1 << 20,
        timestamp_type: TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: 3_600_000,
        compacted: false,
        validation: Validation::Full,
        target: None,
        zstd: true,
        inflated_bytes_max: LIMIT,
        now: TimestampMs(NOW),
    }
}

fn batch(codec: Codec) -> Bytes {
    let mut builder =
        BatchBuilder::new().codec(codec, Level::Default).producer(ProducerId(7), ProducerEpoch(1), Sequence(5));
    for index in 0..10_i64 {
        let key = index.to_string();
        let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", Some(b"1")), (b"h", None)];
        builder.push(&NewRecord {
            timestamp: TimestampMs(NOW + index % 3),
            key: Some(key.as_bytes()),
            value: Some(&[b'x'; 50]),
            headers,
        });
    }
    builder.build().unwrap()
}

#[test]
fn a_good_batch_passes_untouched_and_walks_back() {
    for codec in CODECS {
        let sent = batch(codec);
        let valid = validate(&sent, &rules()).unwrap();
        assert_eq!(valid.bytes, BatchBytes::whole(sent.clone()), "{codec}");
        let mut index = 0;
        walk(&sent, LIMIT, |record| {
            assert_eq!(record.offset_delta, index);
            assert_eq!(record.key, Some(index.to_string().as_bytes()));
            let headers: Vec<_> = record.headers().map(|header| (header.key, header.value)).collect();
            assert_eq!(headers, [(&b"h"[..], Some(&b"1"[..])), (b"h", None)]);
            index += 1;
        })
        .unwrap();
        assert_eq!(index, 10);
    }
}

#[test]
fn a_flipped_bit_is_corrupt() {
    let mut sent = batch(Codec::None).to_vec();
    sent[80] ^= 1;
    assert_eq!(validate(&sent.into(), &rules()).unwrap_err().error, KafkaError::CorruptMessage);
}

/// A batch of which every record may be read.
fn placed(base: Offset) -> Placed {
    Placed { base, log_start: base }
}

#[test]
fn times_are_found_by_record() {
    for codec in CODECS {
        let sent = batch(codec);
        let found = first_at_or_after(&sent, placed(Offset(100)), TimestampMs(NOW + 1), LIMIT).unwrap();
        assert_eq!(found, Some((Offset(101), TimestampMs(NOW + 1))));
        assert_eq!(first_at_or_after(&sent, placed(Offset(100)), TimestampMs(NOW + 3), LIMIT).unwrap(), None);
        let latest = max_timestamp_record(&sent, placed(Offset(100)), LIMIT).unwrap();
        assert_eq!(latest, Some((Offset(102), TimestampMs(NOW + 2))));
    }
}

/// What a batch says at byte level, so that a slip in `to_bytes` and `parse` together is seen.
#[test]
fn the_header_lies_where_kafka_puts_it() {
    let bytes: Vec<u8> = (1..=61).collect();
    let mut bytes: [u8; HEADER_BYTES] = bytes.try_into().unwrap();
    bytes[16] = 2;
    let header = BatchHeader::parse(&bytes).unwrap();
    assert_eq!(header.base_offset, Offset(0x0102_0304_0506_0708));
    assert_eq!(header.batch_length, 0x090a_0b0c);
    assert_eq!(header.leader_epoch.0, 0x0d0e_0f10);
    assert_eq!(header.crc, 0x1213_1415);
    assert_eq!(header.attributes, 0x1617);
    assert_eq!(header.last_offset_delta, 0x1819_1a1b);
    assert_eq!(header.base_timestamp.0, 0x1c1d_1e1f_2021_2223);
    assert_eq!(header.max_timestamp.0, 0x2425_2627_2829_2a2b);
    assert_eq!(header.producer_id.0, 0x2c2d_2e2f_3031_3233);
    assert_eq!(header.producer_epoch.0, 0x3435);
    assert_eq!(header.base_sequence.0, 0x3637_3839);
    assert_eq!(header.count, 0x3a3b_3c3d);
    assert_eq!(header.to_bytes(), bytes);
    let prefix = patched_prefix(&header, Offset(77), LeaderEpoch(3));
    let patched = BatchHeader::parse(&[&prefix[..], &bytes[PREFIX_BYTES..]].concat()).unwrap();
    assert_eq!(patched, BatchHeader { base_offset: Offset(77), leader_epoch: LeaderEpoch(3), ..header });
}

#[test]
fn sequences_wrap_to_zero() {
    let cases = [(0, 1, 0), (5, 10, 14), (i32::MAX, 1, i32::MAX), (i32::MAX, 2, 0), (i32::MAX - 1, 10, 7), (-1, 3, -1)];
    for (first, count, last) in cases {
        let mut header = BatchHeader::parse(&batch(Codec::None)).unwrap();
        (header.base_sequence, header.count, header.last_offset_delta) = (Sequence(first), count, count - 1);
        assert_eq!(header.last_sequence(), Sequence(last), "{first} + {count}");
    }
}

#[test]
fn a_buffer_is_cut_into_batches() {
    let all: Bytes = CODECS.map(batch).concat().into();
    let cut: Vec<_> = Batches::new(all.clone()).map(Result::unwrap).collect();
    assert_eq!(cut.iter().map(|batch| batch.header.codec().unwrap()).collect::<Vec<_>>(), CODECS);
    assert_eq!(cut[1].range, cut[0].bytes.len()..cut[0].bytes.len() + cut[1].bytes.len());
    for missing in 1..cut[4].bytes.len() {
        let short = all.slice(..all.len() - missing);
        assert_eq!(Batches::tolerant(short.clone()).map(Result::unwrap).count(), 4);
        assert!(matches!(Batches::new(short).last(), Some(Err(BatchError::Incomplete { .. }))));
    }
    let mut wrong = all.to_vec();
    wrong[cut[1].range.start + 16] = 1;
    let found: Vec<_> = Batches::tolerant(wrong.into()).map(|batch| batch.map(|batch| batch.range)).collect();
    assert_eq!(found, [Ok(cut[0].range.clone()), Err(BatchError::Magic(1))]);
}

#[test]
fn log_append_time_replaces_every_time() {
    let at = TimestampMs(NOW + 999);
    for codec in CODECS {
        let sent = batch(codec);
        let stamped = stamp_log_append_time(&sent, at).unwrap();
        assert_eq!(stamped.tail.as_ptr(), sent[HEADER_BYTES..].as_ptr(), "the records are not copied");
        let topic = Rules { timestamp_type: TimestampType::LogAppendTime, now: at, ..rules() };
        assert_eq!(validate(&sent, &topic).unwrap().bytes, stamped);
        let whole = stamped.into_bytes();
        let header = BatchHeader::parse(&whole).unwrap();
        assert_eq!((header.timestamp_type(), header.max_timestamp), (TimestampType::LogAppendTime, at));
        assert_eq!(header.crc, header::crc_of(&whole));
        assert_eq!(first_at_or_after(&whole, placed(Offset(3)), at, LIMIT).unwrap(), Some((Offset(3), at)));
        assert_eq!(first_at_or_after(&whole, placed(Offset(3)), TimestampMs(at.0 + 1), LIMIT).unwrap(), None);
        assert_eq!(max_timestamp_record(&whole, placed(Offset(3)), LIMIT).unwrap(), Some((Offset(3), at)));
    }
}

fn with_max_timestamp(sent: &Bytes, at: i64) -> Bytes {
    let mut header = BatchHeader::parse(sent).unwrap();
    header.max_timestamp = TimestampMs(at);
    BatchBytes::with_header(sent, &mut header).into_bytes()
}

/// Kafka repairs the largest timestamp as well; a lookup by time would miss records otherwise.
#[test]
fn a_false_largest_timestamp_is_repaired_where_records_are_read() {
    for codec in CODECS {
        let good = batch(codec);
        for lie in [-1, NOW, NOW + 3] {
            let valid = validate(&with_max_timestamp(&good, lie), &rules()).unwrap();
            assert_eq!(valid.header.max_timestamp, TimestampMs(NOW + 2));
            assert_eq!(valid.bytes.into_bytes(), good);
        }
    }
}

/// What header validation gives up (ADR 0003): the time and count that a compressed batch claims are believed.
#[test]
fn header_validation_believes_compressed_batches() {
    let topic = Rules { validation: Validation::Header, ..rules() };
    for codec in CODECS {
        let lie = with_max_timestamp(&batch(codec), NOW + 3);
        let kept = validate(&lie, &topic).unwrap().header.max_timestamp;
        assert_eq!(kept.0, if codec == Codec::None { NOW + 2 } else { NOW + 3 }, "{codec}");
        let beyond = with_max_timestamp(&batch(codec), NOW + 3_600_001);
        let refused = validate(&beyond, &topic).err().map(|refused| refused.error);
        assert_eq!(refused, (codec != Codec::None).then_some(KafkaError::InvalidTimestamp), "{codec}");
    }
}

#[test]
fn bounds_are_inclusive_and_name_each_record() {
    for codec in CODECS {
        let sent = batch(codec);
        for validation in [Validation::Header, Validation::Full] {
            let at = |now, before_max_ms, after_max_ms| {
                let topic = Rules { now: TimestampMs(now), before_max_ms, after_max_ms, validation, ..rules() };
                validate(&sent, &topic).map_err(|refused| {
                    assert_eq!(refused.error, KafkaError::InvalidTimestamp);
                    refused.records.iter().map(|record| record.index).collect::<Vec<_>>()
                })
            };
            assert!(at(NOW + 10, 10, 0).is_ok());
            assert_eq!(at(NOW + 10, 9, 0).unwrap_err(), [0, 3, 6, 9]);
            assert!(at(NOW, 100, 2).is_ok());
            assert_eq!(at(NOW, 100, 1).unwrap_err(), [2, 5, 8]);
        }
    }
}

#[test]
fn a_bomb_ends_with_an_error() {
    let zeros = vec![0; 4 << 20];
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let packed = compress(codec, Level::Is(1), &zeros).unwrap();
        assert_eq!(inflate(codec, &packed, LIMIT), Err(CodecError::TooLarge { limit: LIMIT }), "{codec}");
        assert_eq!(inflate(codec, &packed, 4 << 20).unwrap(), zeros, "{codec}");
        let mut builder = BatchBuilder::new().codec(codec, Level::Is(1));
        builder.push(&NewRecord { value: Some(&zeros), ..NewRecord::default() });
        let refused =
            validate(&builder.build().unwrap(), &Rules { max_message_bytes: 8 << 20, ..rules() }).unwrap_err();
        assert_eq!(refused.error, KafkaError::MessageTooLarge, "{codec}");
    }
    // Five bytes that claim 4 GiB of snappy.
    assert_eq!(
        inflate(Codec::Snappy, &[0xff, 0xff, 0xff, 0xff, 0x0f], usize::MAX),
        Err(CodecError::Corrupt(Codec::Snappy))
    );
}

/// Levels that `compression.*.level` may have, the ends included.
#[test]
fn every_level_is_read_back() {
    let data = b"some text, some more text, ".repeat(9);
    let levels = [(Codec::Gzip, [-1, 1, 9]), (Codec::Lz4, [1, 12, 17]), (Codec::Zstd, [-131_072, 1, 22])];
    for (codec, levels) in levels {
        for level in levels {
            let packed = compress(codec, Level::Is(level), &data).unwrap();
            assert_eq!(inflate(codec, &packed, LIMIT).unwrap(), data, "{codec} {level}");
        }
    }
}

/// KIP-534's bit is compaction's own: a client's would have its tombstones deleted early.
#[test]
fn a_delete_horizon_from_a_client_is_cleared() {
    let sent = batch(Codec::Gzip);
    let mut header = BatchHeader::parse(&sent).unwrap();
    header.attributes |= 1 << 6;
    let marked = BatchBytes::with_header(&sent, &mut header).into_bytes();
    assert_eq!(validate(&marked, &rules()).unwrap().bytes.into_bytes(), sent);
}

#[test]
fn a_recompressed_batch_is_measured_again() {
    let mut builder = BatchBuilder::new().codec(Codec::Zstd, Level::Default);
    builder.push(&NewRecord { value: Some(&[b'x'; 5000]), ..NewRecord::default() });
    let small = builder.build().unwrap();
    let topic = Rules { max_message_bytes: 4000, target: Some((Codec::None, Level::Default)), ..rules() };
    assert_eq!(validate(&small, &topic).unwrap_err().error, KafkaError::MessageTooLarge);
    let valid = validate(&small, &Rules { max_message_bytes: 6000, ..topic }).unwrap();
    assert_eq!(valid.header.codec(), Ok(Codec::None));
    assert_eq!(valid.bytes.len(), valid.header.total_bytes());
}

#[test]
fn named_records_are_limited() {
    let mut builder = BatchBuilder::new();
    (0..5000).for_each(|_| builder.push(&NewRecord::default()));
    let refused = validate(&builder.build().unwrap(), &Rules { compacted: true, ..rules() }).unwrap_err();
    assert_eq!((refused.error, refused.records.len()), (KafkaError::InvalidRecord, 1000));
    assert!(refused.message.contains("5000"), "{}", refused.message);
}

#[test]
fn zstd_needs_produce_version_7() {
    let refused = validate(&batch(Codec::Zstd), &Rules { zstd: false, ..rules() }).unwrap_err();
    assert_eq!(refused.error, KafkaError::UnsupportedCompressionType);
}

#[test]
fn control_batches_are_marked() {
    let marker = BatchBuilder::new().control().transactional().producer(ProducerId(4), ProducerEpoch(2), Sequence(-1));
    let header = BatchHeader::parse(&marker.with(&NewRecord::default()).build().unwrap()).unwrap();
    assert!(header.is_control() && header.is_transactional() && header.has_producer());
}
