//! Random records come back as they went in; random bytes end in errors, never in a panic.
use super::{CODECS, LIMIT, rules};
use crate::records::header::HEADER_BYTES;
use crate::records::{
    BatchBuilder, BatchHeader, Batches, Codec, Level, NewRecord, Placed, Rules, Validation, first_at_or_after, inflate,
    max_timestamp_record, recompress, validate, walk,
};
use crate::types::{Offset, TimestampMs};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

type Maybe = Option<Vec<u8>>;

#[derive(Clone, Debug)]
struct Written {
    timestamp: i64,
    key: Maybe,
    value: Maybe,
    headers: Vec<(Vec<u8>, Maybe)>,
}

fn written() -> impl Strategy<Value = Written> {
    let bytes = || of(vec(any::<u8>(), 0..200));
    let headers = vec((vec(any::<u8>(), 0..4), of(vec(any::<u8>(), 0..4))), 0..4);
    (0_i64..1 << 41, bytes(), bytes(), headers).prop_map(|(timestamp, key, value, headers)| Written {
        timestamp,
        key,
        value,
        headers,
    })
}

fn codec() -> impl Strategy<Value = Codec> {
    (0..CODECS.len()).prop_map(|at| CODECS[at])
}

fn build(codec: Codec, records: &[Written]) -> Bytes {
    let mut builder = BatchBuilder::new().codec(codec, Level::Default);
    for record in records {
        let headers: Vec<_> = record.headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
        builder.push(&NewRecord {
            timestamp: TimestampMs(record.timestamp),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        });
    }
    builder.build().unwrap()
}

fn assert_same(batch: &[u8], records: &[Written]) {
    let base = BatchHeader::parse(batch).unwrap().base_timestamp;
    let mut rest = records.iter();
    walk(batch, LIMIT, |view| {
        let record = rest.next().unwrap();
        assert_eq!(view.timestamp(base), Some(TimestampMs(record.timestamp)));
        assert_eq!(view.key, record.key.as_deref());
        assert_eq!(view.value, record.value.as_deref());
        let headers: Vec<_> = view.headers().map(|h| (h.key.to_vec(), h.value.map(<[u8]>::to_vec))).collect();
        assert_eq!(headers, record.headers);
    })
    .unwrap();
    assert!(rest.next().is_none());
}

fn open_rules() -> Rules {
    Rules { after_max_ms: i64::MAX, ..rules() }
}

/// Everything that reads a batch, for its panics.
fn read_all(bytes: &Bytes) {
    for batch in Batches::tolerant(bytes.clone()).chain(Batches::new(bytes.clone())).flatten() {
        let _ = (batch.header.last_offset(), batch.header.last_sequence(), batch.header.codec());
    }
    let _ = walk(bytes, LIMIT, |record| {
        let _ = record.headers().count();
    });
    let placed = Placed { base: Offset(i64::MAX - 1), log_start: Offset(0) };
    let _ = first_at_or_after(bytes, placed, TimestampMs(i64::MAX), LIMIT);
    let _ = max_timestamp_record(bytes, placed, LIMIT);
    for codec in [Codec::None, Codec::Snappy] {
        let _ = recompress(bytes, codec, Level::Default, LIMIT);
    }
    for validation in [Validation::Header, Validation::Full] {
        let _ = validate(bytes, &Rules { validation, compacted: true, ..open_rules() });
    }
}

/// A right CRC, so that the check of the content is reached.
fn resealed(bytes: &[u8]) -> Bytes {
    let Ok(mut header) = BatchHeader::parse(bytes) else { return Bytes::copy_from_slice(bytes) };
    let body = &bytes[HEADER_BYTES..];
    header.batch_length = u32::try_from(bytes.len() - 12).unwrap();
    [&header.seal(body)[..], body].concat().into()
}

proptest! {
    #[test]
    fn records_come_back(records in vec(written(), 1..20), from in codec(), to in codec()) {
        let batch = build(from, &records);
        assert_same(&batch, &records);
        let valid = validate(&batch, &open_rules()).unwrap();
        prop_assert!(valid.bytes.head.is_empty());
        let other = recompress(&batch, to, Level::Default, LIMIT).unwrap();
        assert_same(&other, &records);
        let (header, sent) = (BatchHeader::parse(&other).unwrap(), BatchHeader::parse(&batch).unwrap());
        prop_assert_eq!(header.codec().unwrap(), to);
        prop_assert_eq!((header.count, header.max_timestamp), (sent.count, sent.max_timestamp));
    }

    #[test]
    fn times_are_found_as_by_brute_force(
        records in vec(written(), 1..20), at in 0_i64..1 << 41, log_start in 490_i64..525, codec in codec(),
    ) {
        let batch = build(codec, &records);
        let placed = Placed { base: Offset(500), log_start: Offset(log_start) };
        let times = || {
            let all = (500_i64..).zip(&records).map(|(offset, record)| (Offset(offset), TimestampMs(record.timestamp)));
            all.filter(|(offset, _)| offset.0 >= log_start)
        };
        let first = times().find(|(_, timestamp)| timestamp.0 >= at);
        prop_assert_eq!(first_at_or_after(&batch, placed, TimestampMs(at), LIMIT).unwrap(), first);
        let latest = times().reduce(|best, next| if next.1 > best.1 { next } else { best });
        prop_assert_eq!(max_timestamp_record(&batch, placed, LIMIT).unwrap(), latest);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        for codec in CODECS {
            let _ = inflate(codec, &bytes, 1000);
        }
        read_all(&bytes.clone().into());
        let mut framed = build(Codec::None, &[])[..HEADER_BYTES].to_vec();
        framed[22] = bytes.first().map_or(0, |byte| byte % 5);
        framed[60] = bytes.len() as u8 % 4;
        framed.extend_from_slice(&bytes);
        read_all(&resealed(&framed));
    }

    #[test]
    fn mutated_batches_never_panic(
        records in vec(written(), 1..5),
        codec in codec(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = build(codec, &records).to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read_all(&resealed(&bytes));
        bytes.truncate(cut.index(bytes.len()));
        read_all(&bytes.into());
    }
}
