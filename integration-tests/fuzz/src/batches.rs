//! Record batches and the four codecs.
use bytes::Bytes;
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::records::{Compression, RecordBatchDecoder};
use strandline::records::{
    Batch, BatchHeader, Batches, Codec, HEADER_BYTES, Level, Placed, Rules, TimestampType, Validation, compress,
    first_at_or_after, inflate, max_timestamp_record, recompress, validate, walk,
};
use strandline::types::{Offset, TimestampMs};

use crate::heap;

/// What one batch's records may be decompressed: more than an input becomes unless it is a bomb.
const INFLATED_MAX: usize = 1 << 20;
/// The largest window that a codec may take on our heap, with its own bookkeeping. (What C libraries allocate is not
/// counted here; libFuzzer's limit on the whole process holds them.)
const WINDOW: usize = 256 << 10;

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn rules(bits: u8) -> Rules {
    let bit = |n: u8| bits >> n & 1 == 1;
    Rules {
        max_message_bytes: INFLATED_MAX,
        timestamp_type: if bit(0) { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
        before_max_ms: if bit(1) { 1000 } else { i64::MAX },
        after_max_ms: if bit(2) { 1000 } else { i64::MAX },
        compacted: bit(3),
        validation: if bit(4) { Validation::Full } else { Validation::Header },
        target: (bits >= 128).then_some((CODECS[usize::from(bits >> 5 & 3) + 1], Level::Default)),
        zstd: true,
        inflated_bytes_max: INFLATED_MAX,
        now: TimestampMs(1_700_000_000_000),
    }
}

/// Two bytes say what is done to it, the rest is a batch, whose length, magic and checksum are made right first.
pub(crate) fn batch(data: &[u8]) -> bool {
    let Some((&[how, settings], batch)) = data.split_first_chunk() else { return false };
    let raw = Bytes::copy_from_slice(batch);
    cut(&raw);
    let Some(sealed) = sealed(batch, how) else { return false };
    check(&sealed, settings)
}

/// The records of a Produce request, as they came.
pub(crate) fn produced(records: &Bytes) {
    cut(records);
    for settings in [0, 0x10] {
        check(records, settings);
    }
}

/// Cutting a buffer gives its bytes, in order and without a gap, tolerantly or not.
fn cut(buffer: &Bytes) {
    let mut end = 0;
    for batch in Batches::tolerant(buffer.clone()).flatten() {
        assert_eq!((batch.range.start, &buffer[batch.range.clone()]), (end, &batch.bytes[..]));
        assert_eq!(batch.header.to_bytes(), batch.bytes[..HEADER_BYTES], "a header comes back");
        end = batch.range.end;
    }
    let strict: Result<Vec<Batch>, _> = Batches::new(buffer.clone()).collect();
    assert_eq!(strict.is_ok(), end == buffer.len());
}

/// Makes a batch of it that is not refused for its frame: base offset 0, the true length, magic 2, the right checksum.
/// `how`: bits 0–2 a codec to pack the records with, bit 3 counts that fit each other, bit 4 leave the attributes alone.
fn sealed(batch: &[u8], how: u8) -> Option<Bytes> {
    let mut batch = batch.to_vec();
    if batch.len() < HEADER_BYTES {
        return None;
    }
    if let Some(codec) = CODECS.get(usize::from(how & 7)).filter(|codec| how & 16 == 0 && **codec != Codec::None) {
        let packed = compress(*codec, Level::Default, &batch[HEADER_BYTES..]).expect("compressing succeeds");
        batch.truncate(HEADER_BYTES);
        batch.extend_from_slice(&packed);
        batch[22] = batch[22] & !7 | codec.bits();
    }
    let length = (batch.len() - 12) as i32;
    batch[..8].fill(0);
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = 2;
    if how & 8 != 0 {
        let count = u32::from_be_bytes([0, 0, batch[59], batch[60]]);
        batch[57..61].copy_from_slice(&count.to_be_bytes());
        batch[23..27].copy_from_slice(&count.wrapping_sub(1).to_be_bytes());
    }
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    Some(batch.into())
}

fn heap_max(packed: usize) -> usize {
    // The decompressed records grow by doubling, are compressed again, and errors name a thousand records.
    4 * INFLATED_MAX + 8 * packed + 2 * WINDOW
}

/// What validation takes is walked by us and by the message crate, alike.
fn check(records: &Bytes, settings: u8) -> bool {
    let rules = rules(settings);
    let most = heap_max(records.len());
    let valid = match heap::within("validation", most, || validate(records, &rules)) {
        Ok(valid) => valid,
        Err(refused) => {
            assert!(!refused.message.is_empty() && refused.records.len() <= 1000);
            // A flipped bit or a bad record is refused, but whatever was stored must be read without a panic.
            let _ = heap::within("a walk", most, || walk(records, INFLATED_MAX, |_| ()));
            return false;
        }
    };
    let header = valid.header;
    let stored = valid.bytes.into_bytes();
    assert_eq!(BatchHeader::parse(&stored).ok(), Some(header), "what is stored begins with the header that is told");
    assert!(header.count > 0 && header.count - 1 == header.last_offset_delta);
    let mut views = Vec::new();
    let walked = walk(&stored, INFLATED_MAX, |record| {
        let owned = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
        let headers: Vec<_> = record.headers().map(|h| (Bytes::copy_from_slice(h.key), owned(h.value))).collect();
        views.push((record.timestamp_delta, record.offset_delta, owned(record.key), owned(record.value), headers));
    });
    for at in [i64::MIN, 0, header.max_timestamp.0, i64::MAX] {
        let _ = first_at_or_after(
            &stored,
            Placed { base: Offset(i64::MAX), log_start: Offset(0) },
            TimestampMs(at),
            INFLATED_MAX,
        );
    }
    let _ = max_timestamp_record(&stored, Placed { base: Offset(0), log_start: Offset(1) }, INFLATED_MAX);
    let looked_into = header.codec() == Ok(Codec::None) || rules.validation == Validation::Full;
    if walked.is_err() {
        assert!(!looked_into, "validation took what can't be walked: {walked:?}");
        return true;
    }
    if !looked_into {
        return true;
    }
    assert_eq!(views.len(), usize::try_from(header.count).expect("it is positive"));
    for codec in [Codec::None, Codec::Lz4] {
        let again = recompress(&stored, codec, Level::Default, INFLATED_MAX).expect("what is walked is recompressed");
        let mut at = 0;
        walk(&again, INFLATED_MAX, |record| {
            assert_eq!((record.timestamp_delta, record.offset_delta), (views[at].0, views[at].1));
            assert_eq!((record.key, record.value), (views[at].2.as_deref(), views[at].3.as_deref()));
            at += 1;
        })
        .expect("what was recompressed is walked");
        assert_eq!(at, views.len());
    }
    as_the_crate_reads(&stored, &header, &views);
    true
}

type View = (i64, i32, Option<Bytes>, Option<Bytes>, Vec<(Bytes, Option<Bytes>)>);

fn as_the_crate_reads(stored: &Bytes, header: &BatchHeader, views: &[View]) {
    let unpack = |packed: &mut Bytes, compression: Compression| {
        let data = inflate(CODECS[compression as usize], packed, INFLATED_MAX).expect("we could");
        Ok(Bytes::from(data))
    };
    // The crate wants header keys to be UTF-8 and keeps the last of two alike; Kafka and we do neither.
    if views.iter().flat_map(|view| &view.4).any(|(key, _)| std::str::from_utf8(key).is_err()) {
        return;
    }
    let read = RecordBatchDecoder::decode_with_custom_compression(&mut stored.clone(), Some(unpack));
    let read = read.unwrap_or_else(|e| panic!("the message crate refuses what we took: {e}")).records;
    assert_eq!(read.len(), views.len());
    for (theirs, ours) in read.iter().zip(views) {
        assert_eq!((&theirs.key, &theirs.value), (&ours.2, &ours.3));
        assert_eq!(theirs.offset, header.base_offset.0 + i64::from(ours.1));
        if header.timestamp_type() == TimestampType::CreateTime {
            assert_eq!(theirs.timestamp, header.base_timestamp.0 + ours.0);
        }
        let headers: IndexMap<&[u8], Option<&Bytes>> = ours.4.iter().map(|(k, v)| (&**k, v.as_ref())).collect();
        let theirs: IndexMap<&[u8], Option<&Bytes>> =
            theirs.headers.iter().map(|(k, v)| (k.as_bytes(), v.as_ref())).collect();
        assert_eq!(headers, theirs);
    }
}

/// A byte for the codec, a byte for the limit, the rest both as a stream to be unpacked and as data to be packed.
pub(crate) fn codec(data: &[u8]) -> bool {
    let Some((&[codec, limit], data)) = data.split_first_chunk() else { return false };
    let codec = CODECS[usize::from(codec) % CODECS.len()];
    let limit = 1 << (limit % 21);
    let most = 4 * limit + 8 * data.len() + WINDOW;
    let out = heap::within("unpacking", most, || inflate(codec, data, limit));
    assert!(out.as_ref().is_ok_and(|out| out.len() <= limit) || out.is_err());
    let packed = compress(codec, Level::Default, data).expect("compressing succeeds");
    assert_eq!(inflate(codec, &packed, data.len()).as_deref(), Ok(data), "{codec} gives back what it got");
    if !data.is_empty() {
        assert!(inflate(codec, &packed, data.len() - 1).is_err(), "{codec} keeps to the limit");
    }
    out.is_ok()
}
