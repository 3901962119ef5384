//! A batch of which some records are left out, as log compaction makes it: what is left keeps its offsets and times, and the
//! batch the offsets that it covers (as Kafka's `MemoryRecords.filterTo`).
use bytes::Bytes;

use super::build::{length, put_bytes, put_varint};
use super::codec::{Codec, Level};
use super::header::{BatchHeader, TimestampType};
use super::recompress::{RecompressError, pack};
use super::walk::RecordView;
use crate::types::{ProducerEpoch, ProducerId, Sequence, TimestampMs};

/// The records of one batch that are kept.
#[derive(Debug)]
pub struct Retained {
    header: BatchHeader,
    /// What the records' times were relative to.
    base: TimestampMs,
    body: Vec<u8>,
    max_timestamp: Option<i64>,
}

impl Retained {
    /// None of a batch's records yet. With a `horizon` the base timestamp becomes the time until which its tombstones, or the
    /// end of a transaction, are kept (KIP-534).
    #[must_use]
    pub fn of(header: &BatchHeader, horizon: Option<TimestampMs>) -> Self {
        let (mut header, base) = (*header, header.base_timestamp);
        header.count = 0;
        if let Some(horizon) = horizon {
            header.set_delete_horizon(horizon);
        }
        Self { header, base, body: Vec::new(), max_timestamp: None }
    }

    /// Keeps a record of the batch, behind those kept before.
    pub fn push(&mut self, record: &RecordView<'_>) {
        let timestamp = self.base.0.wrapping_add(record.timestamp_delta);
        self.max_timestamp = self.max_timestamp.max(Some(timestamp));
        let mut fields = vec![0];
        put_varint(&mut fields, timestamp.wrapping_sub(self.header.base_timestamp.0));
        put_varint(&mut fields, i64::from(record.offset_delta));
        put_bytes(&mut fields, record.key);
        put_bytes(&mut fields, record.value);
        fields.extend_from_slice(record.headers_raw);
        put_varint(&mut self.body, length(fields.len()));
        self.body.extend_from_slice(&fields);
        self.header.count += 1;
    }

    /// The batch, under the codec that it had. Its largest timestamp is that of what is left, or the broker's as before.
    ///
    /// # Errors
    /// Where it can't be compressed, or is longer than a batch can be.
    pub fn build(mut self) -> Result<Bytes, RecompressError> {
        if let (TimestampType::CreateTime, Some(largest)) = (self.header.timestamp_type(), self.max_timestamp) {
            self.header.max_timestamp = TimestampMs(largest);
        }
        let codec = self.header.codec().map_err(RecompressError::Codec)?;
        pack(self.header, &self.body, codec, Level::Default).map(|(_, batch)| batch)
    }
}

/// A batch without records, which covers the offsets of `header`: clients go on behind it. It is of no producer and no
/// transaction, so that nobody has to make anything of it.
#[must_use]
pub fn empty_batch(header: &BatchHeader) -> Bytes {
    let empty = BatchHeader {
        attributes: 0,
        base_timestamp: TimestampMs(-1),
        producer_id: ProducerId(-1),
        producer_epoch: ProducerEpoch(-1),
        base_sequence: Sequence(-1),
        count: 0,
        ..*header
    };
    let packed = pack(empty, &[], Codec::None, Level::Default);
    packed.map(|(_, batch)| batch).expect("a batch of nothing is neither too large nor compressed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{BatchBuilder, NewRecord, walk};
    use crate::types::{LeaderEpoch, Offset};
    use proptest::prelude::*;

    type Seen = (i32, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>);

    fn seen(batch: &[u8]) -> Vec<Seen> {
        let (header, mut seen) = (BatchHeader::parse(batch).unwrap(), Vec::new());
        walk(batch, 1 << 20, |r| {
            let time = header.base_timestamp.0 + r.timestamp_delta;
            let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            seen.push((r.offset_delta, time, owned(r.key), owned(r.value), r.headers_raw.to_vec()));
        })
        .unwrap();
        seen
    }

    proptest! {
        #[test]
        fn what_is_left_is_as_it_was(
            records in proptest::collection::vec((any::<bool>(), 0..1_000_000_i64, any::<Option<u8>>(), any::<Option<u8>>()), 1..20),
            codec in prop_oneof![Just(Codec::None), Just(Codec::Gzip), Just(Codec::Snappy), Just(Codec::Lz4), Just(Codec::Zstd)],
            horizon in proptest::option::of(0..2_000_000_i64),
        ) {
            let mut builder = BatchBuilder::new().codec(codec, Level::Default).base_offset(Offset(40)).leader_epoch(LeaderEpoch(3));
            for (_, timestamp, key, value) in &records {
                let (key, value) = (key.map(|k| [k]), value.map(|v| [v]));
                let headers: [(&[u8], Option<&[u8]>); 1] = [(b"h", None)];
                builder.push(&NewRecord { timestamp: TimestampMs(*timestamp), key: key.as_ref().map(|k| &k[..]),
                    value: value.as_ref().map(|v| &v[..]), headers: &headers });
            }
            let batch = builder.build().unwrap();
            let header = BatchHeader::parse(&batch).unwrap();
            let mut retained = Retained::of(&header, horizon.map(TimestampMs));
            let mut kept = records.iter();
            walk(&batch, 1 << 20, |record| {
                if kept.next().unwrap().0 {
                    retained.push(&record);
                }
            }).unwrap();
            let left = retained.build().unwrap();
            let all = seen(&batch);
            let wanted: Vec<Seen> = all.into_iter().zip(&records).filter(|(_, r)| r.0).map(|(seen, _)| seen).collect();
            let now = BatchHeader::parse(&left).unwrap();
            prop_assert_eq!(seen(&left), wanted);
            prop_assert_eq!(now.delete_horizon(), horizon.map(TimestampMs));
            prop_assert_eq!((now.base_offset, now.last_offset(), now.leader_epoch), (header.base_offset, header.last_offset(), header.leader_epoch));
            prop_assert_eq!(now.codec(), header.codec());
            prop_assert_eq!(crate::records::crc_of_pieces([&left[..]]), now.crc);
        }
    }

    #[test]
    fn an_empty_batch_covers_its_offsets() {
        let record = NewRecord { value: Some(b"v"), ..NewRecord::default() };
        let batch = BatchBuilder::new().codec(Codec::Gzip, Level::Default).base_offset(Offset(7)).transactional();
        let batch = batch.producer(ProducerId(1), ProducerEpoch(2), Sequence(3)).with(&record).with(&record);
        let header = BatchHeader::parse(&batch.build().unwrap()).unwrap();
        let empty = empty_batch(&header);
        let now = BatchHeader::parse(&empty).unwrap();
        assert_eq!((now.base_offset, now.last_offset(), now.records()), (Offset(7), Offset(8), 0));
        assert_eq!((now.attributes, now.has_producer(), empty.len()), (0, false, 61));
        assert!(seen(&empty).is_empty());
        assert_eq!(crate::records::crc_of_pieces([&empty[..]]), now.crc);
    }
}
