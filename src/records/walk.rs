//! Record by record through a batch, without making records: each view borrows the (decompressed) bytes.
use crate::records::codec::{Codec, CodecError, inflate};
use crate::records::header::{BatchError, BatchHeader, HEADER_BYTES};
use crate::types::TimestampMs;
use std::borrow::Cow;

/// One record's fields, borrowed from the batch. `headers` are the header bytes as they stand, checked for their form;
/// [`RecordView::headers`] goes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers_raw: &'a [u8],
}

/// One header of a record. Keys need not be unique, nor (on the wire) UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

/// Why records can't be walked. `record` counts from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("record {record} does not fit into the bytes that the batch has for it")]
    Truncated { record: u32 },
    #[error("record {record} has a number of too many bytes or a negative length")]
    Malformed { record: u32 },
    #[error("record {record} says it has {declared} bytes and has {actual}")]
    Size { record: u32, declared: usize, actual: usize },
    #[error("{left} bytes are left behind the {records} records that the batch declares")]
    Rest { records: u32, left: usize },
    #[error("timestamp of record {record} overflows")]
    Timestamp { record: u32 },
}

/// A batch's records, decompressed if need be.
pub type Body<'a> = Cow<'a, [u8]>;

/// The records' bytes of a whole batch: a slice of it where it is not compressed.
///
/// # Errors
/// `Codec` for an unknown or broken compression, or more than `limit` bytes.
pub fn body<'a>(header: &BatchHeader, batch: &'a [u8], limit: usize) -> Result<Body<'a>, CodecError> {
    let packed = batch.get(HEADER_BYTES..).unwrap_or_default();
    match header.codec()? {
        Codec::None => Ok(Cow::Borrowed(packed)),
        codec => inflate(codec, packed, limit).map(Cow::Owned),
    }
}

/// Calls `visit` for each record of one whole batch, decompressing at most `limit` bytes.
///
/// # Errors
/// As [`WalkError`] says, after the records before the fault have been visited.
pub fn walk(batch: &[u8], limit: usize, mut visit: impl FnMut(RecordView<'_>)) -> Result<(), WalkError> {
    let header = BatchHeader::parse(batch)?;
    let body = body(&header, batch, limit)?;
    for record in Records::new(&body, header.records()) {
        visit(record?);
    }
    Ok(())
}

/// The records in `body`. The declared count must end exactly where the bytes do; after an error it ends.
#[derive(Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    next: u32,
    count: u32,
}

impl<'a> Records<'a> {
    #[must_use]
    pub fn new(body: &'a [u8], count: u32) -> Self {
        Self { rest: body, next: 0, count }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, WalkError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.count {
            let left = std::mem::take(&mut self.rest).len();
            return (left > 0).then_some(Err(WalkError::Rest { records: self.count, left }));
        }
        let mut cursor = Cursor { bytes: self.rest };
        let record = read_record(&mut cursor).map_err(|fault| fault.of(self.next));
        if record.is_ok() {
            self.rest = cursor.bytes;
            self.next += 1;
        } else {
            self.rest = &[];
            self.next = self.count;
        }
        Some(record)
    }
}

impl<'a> RecordView<'a> {
    /// The record's headers, duplicates included, in their order.
    pub fn headers(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let mut cursor = Cursor { bytes: self.headers_raw };
        let count = cursor.varint().unwrap_or(0);
        (0..count).map_while(move |_| read_header(&mut cursor).ok())
    }

    /// The time the record was given by its producer, if it does not overflow.
    #[must_use]
    pub fn timestamp(&self, base: TimestampMs) -> Option<TimestampMs> {
        base.0.checked_add(self.timestamp_delta).map(TimestampMs)
    }
}

/// A fault inside a record, before its number is known.
enum Fault {
    Truncated,
    Malformed,
    Size { declared: usize, actual: usize },
}

impl Fault {
    #[cold]
    fn of(self, record: u32) -> WalkError {
        match self {
            Self::Truncated => WalkError::Truncated { record },
            Self::Malformed => WalkError::Malformed { record },
            Self::Size { declared, actual } => WalkError::Size { record, declared, actual },
        }
    }
}

#[inline]
fn read_record<'a>(cursor: &mut Cursor<'a>) -> Result<RecordView<'a>, Fault> {
    let size = usize::try_from(cursor.varint()?).map_err(|_| Fault::Malformed)?;
    let mut fields = Cursor { bytes: cursor.take(size)? };
    let _unused_attributes = fields.take(1)?;
    let timestamp_delta = fields.varlong()?;
    let offset_delta = fields.varint()?;
    let key = fields.nullable()?;
    let value = fields.nullable()?;
    let headers_raw = fields.bytes;
    let headers = fields.varint()?;
    if headers < 0 {
        return Err(Fault::Malformed);
    }
    for _ in 0..headers {
        read_header(&mut fields)?;
    }
    if !fields.bytes.is_empty() {
        return Err(Fault::Size { declared: size, actual: size - fields.bytes.len() });
    }
    Ok(RecordView { timestamp_delta, offset_delta, key, value, headers_raw })
}

#[inline]
fn read_header<'a>(cursor: &mut Cursor<'a>) -> Result<Header<'a>, Fault> {
    let key = cursor.nullable()?.ok_or(Fault::Malformed)?;
    Ok(Header { key, value: cursor.nullable()? })
}

/// What is left to read.
struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    #[inline]
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Fault::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// A length and that many bytes; -1 is "none", less is malformed (Kafka reads any negative length as none; only
    /// hostile producers write one).
    #[inline]
    fn nullable(&mut self) -> Result<Option<&'a [u8]>, Fault> {
        match self.varint()? {
            -1 => Ok(None),
            length => self.take(usize::try_from(length).map_err(|_| Fault::Malformed)?).map(Some),
        }
    }

    /// A zigzag varint of at most 32 bits.
    #[inline]
    fn varint(&mut self) -> Result<i32, Fault> {
        if let [first @ 0..0x80, rest @ ..] = self.bytes {
            self.bytes = rest;
            let value = i32::from(*first);
            return Ok((value >> 1) ^ -(value & 1));
        }
        i32::try_from(self.varint_of(5)?).map_err(|_| Fault::Malformed)
    }

    /// A zigzag varint of at most 64 bits.
    #[inline]
    fn varlong(&mut self) -> Result<i64, Fault> {
        if let [first @ 0..0x80, rest @ ..] = self.bytes {
            self.bytes = rest;
            let value = i64::from(*first);
            return Ok((value >> 1) ^ -(value & 1));
        }
        self.varint_of(10)
    }

    #[inline]
    fn varint_of(&mut self, bytes_max: usize) -> Result<i64, Fault> {
        let mut value = 0_u64;
        for (at, byte) in self.bytes.iter().take(bytes_max).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.bytes = &self.bytes[at + 1..];
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(if self.bytes.len() < bytes_max { Fault::Truncated } else { Fault::Malformed })
    }
}
