//! The 61 bytes in front of every batch, and how a buffer of batches is cut into them.
use crate::records::codec::{Codec, CodecError};
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};
use bytes::Bytes;
use std::ops::Range;

/// Bytes of a batch's header, from the base offset to the record count.
pub const HEADER_BYTES: usize = 61;
/// Bytes that [`patched_prefix`] replaces: base offset, length, leader epoch.
pub const PREFIX_BYTES: usize = 16;

/// Base offset and length: what the length field does not count.
const OVERHEAD_BYTES: usize = 12;
/// Where the bytes begin that the CRC covers: the attributes and everything behind them.
pub(super) const CRC_START: usize = 21;
const MAGIC: u8 = 2;

const CODEC_BITS: u16 = 0b111;
const LOG_APPEND_TIME_BIT: u16 = 1 << 3;
const TRANSACTIONAL_BIT: u16 = 1 << 4;
const CONTROL_BIT: u16 = 1 << 5;
const DELETE_HORIZON_BIT: u16 = 1 << 6;

/// Whose clock a batch's timestamps are: the producer's, record by record, or the broker's, one for the whole batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    #[default]
    CreateTime,
    LogAppendTime,
}

/// A batch's header as it stands on the wire. Parsing checks magic and length only: counts, deltas and flags are what
/// the client wrote until [`validate`](crate::records::validate()) has passed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: Offset,
    /// Bytes behind the length field; at least 49, so that the header is whole.
    pub batch_length: u32,
    pub leader_epoch: LeaderEpoch,
    pub crc: u32,
    pub attributes: u16,
    pub last_offset_delta: i32,
    pub base_timestamp: TimestampMs,
    pub max_timestamp: TimestampMs,
    pub producer_id: ProducerId,
    pub producer_epoch: ProducerEpoch,
    pub base_sequence: Sequence,
    pub count: i32,
}

/// Why a buffer does not begin with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The buffer ends inside a batch. Of a fetch this is normal, of a produce request it is not.
    #[error("the batch needs {needed} bytes, the buffer has {available}")]
    Incomplete { needed: usize, available: usize },
    #[error("batch length {0} is less than a header")]
    Length(i32),
    #[error("batch magic is {0}, only 2 is supported")]
    Magic(i8),
}

impl BatchHeader {
    /// Reads the header that `buffer` begins with; the records behind it need not be there.
    ///
    /// # Errors
    /// As [`BatchError`] says; a buffer of less than 17 bytes is `Incomplete` whatever it holds.
    pub fn parse(buffer: &[u8]) -> Result<Self, BatchError> {
        let total = total_bytes_of(buffer)?;
        let Some(bytes) = buffer.first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::Incomplete { needed: total, available: buffer.len() });
        };
        Ok(Self {
            base_offset: Offset(i64::from_be_bytes(field(bytes, 0))),
            batch_length: u32::from_be_bytes(field(bytes, 8)),
            leader_epoch: LeaderEpoch(i32::from_be_bytes(field(bytes, 12))),
            crc: u32::from_be_bytes(field(bytes, 17)),
            attributes: u16::from_be_bytes(field(bytes, 21)),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: TimestampMs(i64::from_be_bytes(field(bytes, 27))),
            max_timestamp: TimestampMs(i64::from_be_bytes(field(bytes, 35))),
            producer_id: ProducerId(i64::from_be_bytes(field(bytes, 43))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field(bytes, 51))),
            base_sequence: Sequence(i32::from_be_bytes(field(bytes, 53))),
            count: i32::from_be_bytes(field(bytes, 57)),
        })
    }

    /// The header's bytes; what [`parse`](Self::parse) would read back.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &self.base_offset.0.to_be_bytes());
        put(8, &self.batch_length.to_be_bytes());
        put(12, &self.leader_epoch.0.to_be_bytes());
        put(16, &[MAGIC]);
        put(17, &self.crc.to_be_bytes());
        put(21, &self.attributes.to_be_bytes());
        put(23, &self.last_offset_delta.to_be_bytes());
        put(27, &self.base_timestamp.0.to_be_bytes());
        put(35, &self.max_timestamp.0.to_be_bytes());
        put(43, &self.producer_id.0.to_be_bytes());
        put(51, &self.producer_epoch.0.to_be_bytes());
        put(53, &self.base_sequence.0.to_be_bytes());
        put(57, &self.count.to_be_bytes());
        bytes
    }

    /// The whole batch in bytes, header included.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.batch_length as usize + OVERHEAD_BYTES
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// `CodecError::Unknown` for the three numbers that Kafka has not given out.
    pub fn codec(&self) -> Result<Codec, CodecError> {
        Codec::from_bits((self.attributes & CODEC_BITS) as u8)
    }

    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        match self.attributes & LOG_APPEND_TIME_BIT {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        }
    }

    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether the base timestamp is the time until which tombstones are kept (KIP-534): set by compaction only.
    #[must_use]
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON_BIT != 0
    }

    #[must_use]
    pub fn has_producer(&self) -> bool {
        self.producer_id.0 >= 0
    }

    /// Records that the header claims; 0 for a negative claim.
    #[must_use]
    pub fn records(&self) -> u32 {
        u32::try_from(self.count).unwrap_or(0)
    }

    /// The offset of the last record, as long as base offset and delta are in place.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset.0.saturating_add(i64::from(self.last_offset_delta)))
    }

    /// The sequence of the last record: after 2^31-1 comes 0. -1 where the batch has none.
    #[must_use]
    pub fn last_sequence(&self) -> Sequence {
        if self.base_sequence.0 < 0 {
            return self.base_sequence;
        }
        Sequence(self.base_sequence.0.wrapping_add(self.last_offset_delta) & i32::MAX)
    }

    pub(super) fn set_codec(&mut self, codec: Codec) {
        self.attributes = self.attributes & !CODEC_BITS | u16::from(codec.bits());
    }

    pub(super) fn set_timestamp_type(&mut self, kind: TimestampType) {
        match kind {
            TimestampType::CreateTime => self.attributes &= !LOG_APPEND_TIME_BIT,
            TimestampType::LogAppendTime => self.attributes |= LOG_APPEND_TIME_BIT,
        }
    }

    pub(super) fn set_transactional(&mut self) {
        self.attributes |= TRANSACTIONAL_BIT;
    }

    pub(super) fn set_control(&mut self) {
        self.attributes |= CONTROL_BIT;
    }

    pub(super) fn clear_delete_horizon(&mut self) {
        self.attributes &= !DELETE_HORIZON_BIT;
    }

    /// Takes the base timestamp for the time until which tombstones are kept.
    pub(super) fn set_delete_horizon(&mut self, horizon: TimestampMs) {
        self.attributes |= DELETE_HORIZON_BIT;
        self.base_timestamp = horizon;
    }

    /// The time until which the batch's tombstones, or the end of the transaction that it is, are kept (KIP-534).
    #[must_use]
    pub fn delete_horizon(&self) -> Option<TimestampMs> {
        self.has_delete_horizon().then_some(self.base_timestamp)
    }

    /// Sets the CRC to what `body`, the bytes behind the header, makes of it, and gives the header's bytes.
    pub(super) fn seal(&mut self, body: &[u8]) -> [u8; HEADER_BYTES] {
        let bytes = self.to_bytes();
        self.crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[CRC_START..]), body);
        self.to_bytes()
    }
}

/// The CRC-32C that a batch's bytes ask for, to compare with the header's. Reads the whole batch.
#[must_use]
pub(super) fn crc_of(batch: &[u8]) -> u32 {
    crc32c::crc32c(batch.get(CRC_START..).unwrap_or_default())
}

/// The same of a batch that comes in pieces.
#[must_use]
pub fn crc_of_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let (mut crc, mut before) = (0, CRC_START);
    for piece in pieces {
        let skipped = before.min(piece.len());
        before -= skipped;
        crc = crc32c::crc32c_append(crc, &piece[skipped..]);
    }
    crc
}

/// The first bytes of a batch with another base offset and leader epoch. The CRC covers neither, so a reader gets these
/// 16 bytes and the stored batch from byte 16 on.
#[must_use]
pub fn patched_prefix(header: &BatchHeader, base_offset: Offset, leader_epoch: LeaderEpoch) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    prefix[..8].copy_from_slice(&base_offset.0.to_be_bytes());
    prefix[8..12].copy_from_slice(&header.batch_length.to_be_bytes());
    prefix[12..].copy_from_slice(&leader_epoch.0.to_be_bytes());
    prefix
}

/// One batch of a buffer: its header, its bytes (shared with the buffer) and where they lie in it.
#[derive(Clone, Debug)]
pub struct Batch {
    pub header: BatchHeader,
    pub bytes: Bytes,
    pub range: Range<usize>,
}

/// Cuts a buffer into its batches. After an error it ends.
#[derive(Debug)]
pub struct Batches {
    buffer: Bytes,
    at: usize,
    tolerant: bool,
}

impl Batches {
    /// Every byte must belong to a whole batch: a rest is an error.
    #[must_use]
    pub fn new(buffer: Bytes) -> Self {
        Self { buffer, at: 0, tolerant: false }
    }

    /// As a fetch needs it: ends quietly before a batch that the buffer does not hold whole.
    #[must_use]
    pub fn tolerant(buffer: Bytes) -> Self {
        Self { buffer, at: 0, tolerant: true }
    }

    fn cut(&self) -> Result<Batch, BatchError> {
        let rest = &self.buffer[self.at..];
        let header = BatchHeader::parse(rest)?;
        let total = header.total_bytes();
        if rest.len() < total {
            return Err(BatchError::Incomplete { needed: total, available: rest.len() });
        }
        let range = self.at..self.at + total;
        Ok(Batch { header, bytes: self.buffer.slice(range.clone()), range })
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.buffer.len() {
            return None;
        }
        let batch = self.cut();
        self.at = batch.as_ref().map_or(self.buffer.len(), |batch| batch.range.end);
        match batch {
            Err(BatchError::Incomplete { .. }) if self.tolerant => None,
            batch => Some(batch),
        }
    }
}

/// The size of the batch that `buffer` begins with, from its first 17 bytes; older formats are refused here, since
/// their length and magic stand in the same places.
fn total_bytes_of(buffer: &[u8]) -> Result<usize, BatchError> {
    const MAGIC_AT: usize = 16;
    let Some(bytes) = buffer.first_chunk::<{ MAGIC_AT + 1 }>() else {
        return Err(BatchError::Incomplete { needed: HEADER_BYTES, available: buffer.len() });
    };
    let length = i32::from_be_bytes(field(bytes, 8));
    if bytes[MAGIC_AT] != MAGIC {
        return Err(BatchError::Magic(bytes[MAGIC_AT].cast_signed()));
    }
    match usize::try_from(length) {
        Ok(length) if length >= HEADER_BYTES - OVERHEAD_BYTES => Ok(length + OVERHEAD_BYTES),
        _ => Err(BatchError::Length(length)),
    }
}

fn field<const N: usize, const M: usize>(bytes: &[u8; M], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}
