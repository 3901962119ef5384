//! Tables and properties over the whole room: what is built is walked back, what is broken is refused.
use super::*;
use crate::types::{KafkaError, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};
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

#[test]
fn times_are_found_by_record() {
    for codec in CODECS {
        let sent = batch(codec);
        let found = first_at_or_after(&sent, Offset(100), TimestampMs(NOW + 1), LIMIT).unwrap();
        assert_eq!(found, Some((Offset(101), TimestampMs(NOW + 1))));
        assert_eq!(first_at_or_after(&sent, Offset(100), TimestampMs(NOW + 3), LIMIT).unwrap(), None);
        let latest = max_timestamp_record(&sent, Offset(100), LIMIT).unwrap();
        assert_eq!(latest, Some((Offset(102), TimestampMs(NOW + 2))));
    }
}
