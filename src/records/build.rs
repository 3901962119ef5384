//! Making batches: control batches that fetch synthesises, tests, load tools.
use crate::records::codec::{Codec, Level};
use crate::records::header::{BatchHeader, TimestampType};
use crate::records::recompress::{RecompressError, pack};
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};
use bytes::Bytes;

/// A record to be written. Header keys may repeat; their order is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewRecord<'a> {
    pub timestamp: TimestampMs,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// Gathers records into one batch with offsets base, base + 1, …, and gaps where some are skipped.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    header: BatchHeader,
    body: Vec<u8>,
    codec: Codec,
    level: Level,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty batch at offset 0: uncompressed, no producer.
    #[must_use]
    pub fn new() -> Self {
        let header = BatchHeader {
            base_offset: Offset(0),
            batch_length: 0,
            leader_epoch: LeaderEpoch(-1),
            crc: 0,
            attributes: 0,
            last_offset_delta: -1,
            base_timestamp: TimestampMs(-1),
            max_timestamp: TimestampMs(-1),
            producer_id: ProducerId(-1),
            producer_epoch: ProducerEpoch(-1),
            base_sequence: Sequence(-1),
            count: 0,
        };
        Self { header, body: Vec::new(), codec: Codec::None, level: Level::Default }
    }

    #[must_use]
    pub fn base_offset(mut self, offset: Offset) -> Self {
        self.header.base_offset = offset;
        self
    }

    #[must_use]
    pub fn leader_epoch(mut self, epoch: LeaderEpoch) -> Self {
        self.header.leader_epoch = epoch;
        self
    }

    #[must_use]
    pub fn codec(mut self, codec: Codec, level: Level) -> Self {
        (self.codec, self.level) = (codec, level);
        self
    }

    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, first: Sequence) -> Self {
        (self.header.producer_id, self.header.producer_epoch, self.header.base_sequence) = (id, epoch, first);
        self
    }

    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.header.set_transactional();
        self
    }

    /// Marks the batch as control: its one record is a transaction marker, which clients consume but never see.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.header.set_control();
        self
    }

    /// Gives every record this time, the broker's, instead of its own.
    #[must_use]
    pub fn log_append_time(mut self, now: TimestampMs) -> Self {
        self.header.set_timestamp_type(TimestampType::LogAppendTime);
        self.header.max_timestamp = now;
        self
    }

    /// Adds a record behind the others.
    pub fn push(&mut self, record: &NewRecord<'_>) {
        let header = &mut self.header;
        if header.count == 0 {
            header.base_timestamp = record.timestamp;
        }
        if header.timestamp_type() == TimestampType::CreateTime {
            header.max_timestamp = header.max_timestamp.max(record.timestamp);
        }
        let offset_delta = header.last_offset_delta.saturating_add(1);
        header.last_offset_delta = offset_delta;
        header.count += 1;
        // Timestamps 2^63 apart have no delta in the format; such a batch does not validate.
        let timestamp_delta = record.timestamp.0.wrapping_sub(header.base_timestamp.0);
        let mut fields = vec![0];
        put_varint(&mut fields, timestamp_delta);
        put_varint(&mut fields, i64::from(offset_delta));
        put_bytes(&mut fields, record.key);
        put_bytes(&mut fields, record.value);
        put_varint(&mut fields, length(record.headers.len()));
        for (key, value) in record.headers {
            put_bytes(&mut fields, Some(key));
            put_bytes(&mut fields, *value);
        }
        put_varint(&mut self.body, length(fields.len()));
        self.body.extend_from_slice(&fields);
    }

    /// Leaves out the next `offsets` offsets, as if their records had been compacted away. The batch covers them also
    /// where no record follows.
    pub fn skip(&mut self, offsets: i32) {
        self.header.last_offset_delta = self.header.last_offset_delta.saturating_add(offsets.max(0));
    }

    /// The offset that the batch begins at.
    #[must_use]
    pub fn first_offset(&self) -> Offset {
        self.header.base_offset
    }

    /// Adds a record; for chains.
    #[must_use]
    pub fn with(mut self, record: &NewRecord<'_>) -> Self {
        self.push(record);
        self
    }

    /// Records added so far.
    #[must_use]
    pub fn count(&self) -> i32 {
        self.header.count
    }

    /// Bytes of the records so far, before compression.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// The batch's bytes.
    ///
    /// # Errors
    /// `TooLarge` beyond 2 GiB, `Codec` where compression fails.
    pub fn build(self) -> Result<Bytes, RecompressError> {
        pack(self.header, &self.body, self.codec, self.level).map(|(_, batch)| batch)
    }
}

pub(super) fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(-1, |bytes| length(bytes.len())));
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// Zigzag, then seven bits a byte, lowest first.
pub(super) fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
