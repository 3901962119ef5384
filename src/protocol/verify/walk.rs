//! The walk over one message by its schema. Its work is linear in the bytes and it allocates nothing.
use std::ops::Range;

use super::schema::{Field, Kind, Struct};

/// What a decoded array takes beside its elements (the allocator's rounding).
const ARRAY_BYTES: usize = 16;
/// What the crate's map of unknown tagged fields takes with one entry: a whole B-tree node.
const TAG_MAP_BYTES: usize = 416;
/// What each further entry takes at most, in nodes that are a little less than half full.
const TAG_BYTES: usize = 104;

/// Why a walk stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::protocol) enum Flaw {
    /// Not a message of this schema; says where it broke.
    Malformed(&'static str),
    /// Well-formed so far, but it would take more memory than it may.
    TooLarge,
}

pub(super) struct Walk<'a> {
    rest: &'a [u8],
    version: u8,
    flexible: bool,
    /// How many bytes the decoded message may still take.
    budget: usize,
    /// Collects the place of every records field: length prefix and content, in `whole`.
    records: Option<&'a mut Vec<Records>>,
    bytes: usize,
}

/// Where a records field that is not null stands in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::protocol) struct Records {
    /// Where its length starts.
    pub(in crate::protocol) prefix: usize,
    pub(in crate::protocol) content: Range<usize>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a [u8], version: u8, flexible: bool, budget: usize) -> Self {
        Self { rest: bytes, version, flexible, budget, records: None, bytes: bytes.len() }
    }

    pub(super) fn collecting(self, records: &'a mut Vec<Records>) -> Self {
        Self { records: Some(records), ..self }
    }

    /// Walks one struct; what is left of the budget. As in Kafka, bytes after its end are ignored.
    pub(super) fn message(mut self, root: &'static Struct) -> Result<usize, Flaw> {
        self.charge(root.decoded_bytes)?;
        self.fields(root)?;
        Ok(self.budget)
    }

    /// How many bytes are left after one struct.
    #[cfg(test)]
    pub(super) fn rest(mut self, root: &'static Struct) -> Result<usize, Flaw> {
        self.fields(root).map(|()| self.rest.len())
    }

    /// Skips one set of tagged fields, all unknown; the bytes after it.
    pub(super) fn past_tagged(mut self) -> Result<&'a [u8], Flaw> {
        self.tagged(&Struct { decoded_bytes: 0, fields: &[], tagged: &[] })?;
        Ok(self.rest)
    }

    fn fields(&mut self, of: &'static Struct) -> Result<(), Flaw> {
        for field in of.fields {
            if field.is_in(self.version) {
                self.field(field)?;
            }
        }
        if self.flexible { self.tagged(of) } else { Ok(()) }
    }

    fn field(&mut self, field: &'static Field) -> Result<(), Flaw> {
        match field.kind {
            Kind::Fixed(width) => self.take(width).map(drop),
            Kind::Str => self.string(field.may_be_null(self.version)),
            Kind::Bytes => self.bytes(field).map(drop),
            Kind::Records => self.records(field),
            Kind::Numbers(width) => {
                let count = self.array(field, width, width)?;
                self.take(count * width).map(drop)
            }
            Kind::Strs => {
                let count = self.array(field, 1, size_of::<bytes::Bytes>())?;
                (0..count).try_for_each(|_| self.string(false))
            }
            Kind::One(of) => self.nested(field, of),
            Kind::Many(of) => {
                let count = self.array(field, 1, of.decoded_bytes)?;
                (0..count).try_for_each(|_| self.fields(of))
            }
        }
    }

    /// A struct that may be null starts with a byte: 1 or -1. (Kafka takes any other for one of these; the crate and
    /// Kafka differ in which, and no client sends one.)
    fn nested(&mut self, field: &Field, of: &'static Struct) -> Result<(), Flaw> {
        if field.may_be_null(self.version) {
            match self.take(1)? {
                [1] => {}
                [0xff] => return Ok(()),
                _ => return Err(Flaw::Malformed("neither null nor a struct")),
            }
        }
        self.fields(of)
    }

    fn string(&mut self, nullable: bool) -> Result<(), Flaw> {
        let length = if self.flexible { self.compact_length()? } else { self.classic_length16()? };
        match length {
            None if nullable => Ok(()),
            None => Err(Flaw::Malformed("a string is null")),
            // As in Kafka, a compact string is no longer than a classic one can be.
            Some(length) if length > i16::MAX as usize => Err(Flaw::Malformed("a string is too long")),
            Some(length) => match std::str::from_utf8(self.take(length)?) {
                Ok(_) => Ok(()),
                Err(_) => Err(Flaw::Malformed("a string is not UTF-8")),
            },
        }
    }

    /// Skips bytes; how many, unless they are null.
    fn bytes(&mut self, field: &Field) -> Result<Option<usize>, Flaw> {
        match self.length()? {
            None if field.may_be_null(self.version) => Ok(None),
            None => Err(Flaw::Malformed("bytes are null")),
            Some(length) => self.take(length).map(|taken| Some(taken.len())),
        }
    }

    fn records(&mut self, field: &Field) -> Result<(), Flaw> {
        let prefix = self.bytes - self.rest.len();
        let length = self.bytes(field)?;
        let end = self.bytes - self.rest.len();
        if let (Some(records), Some(length)) = (&mut self.records, length) {
            records.push(Records { prefix, content: end - length..end });
        }
        Ok(())
    }

    /// An array's count, 0 if it is null: no more than the bytes left can hold at `min` each, and paid for at
    /// `decoded` bytes each, since the crate reserves memory for all of them at once.
    fn array(&mut self, field: &Field, min: usize, decoded: usize) -> Result<usize, Flaw> {
        match self.length()? {
            None if field.may_be_null(self.version) => Ok(0),
            None => Err(Flaw::Malformed("an array is null")),
            Some(0) => Ok(0),
            Some(count) if count > self.rest.len() / min => Err(Flaw::Malformed("an array is longer than its message")),
            Some(count) => {
                self.charge(count.saturating_mul(decoded).saturating_add(ARRAY_BYTES))?;
                Ok(count)
            }
        }
    }

    /// Known tagged fields are walked, others skipped. As in Kafka, a known one is as long as its schema makes it
    /// whatever size it tells, their order does not matter, and of two with the same tag the last one counts.
    fn tagged(&mut self, of: &'static Struct) -> Result<(), Flaw> {
        let count = self.varint()?;
        let mut unknown = 0;
        for _ in 0..count {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            match of.tagged.iter().find(|(known, _)| *known == tag) {
                Some((_, field)) if field.is_in(self.version) => self.field(field)?,
                Some(_) => return Err(Flaw::Malformed("a tagged field is not of this version")),
                None => {
                    self.take(size)?;
                    self.charge(if unknown == 0 { TAG_MAP_BYTES } else { TAG_BYTES })?;
                    unknown += 1;
                }
            }
        }
        Ok(())
    }

    fn charge(&mut self, decoded: usize) -> Result<(), Flaw> {
        self.budget = self.budget.checked_sub(decoded).ok_or(Flaw::TooLarge)?;
        Ok(())
    }

    /// The length of bytes or an array; None if they are null.
    fn length(&mut self) -> Result<Option<usize>, Flaw> {
        if self.flexible { self.compact_length() } else { self.classic_length32() }
    }

    fn compact_length(&mut self) -> Result<Option<usize>, Flaw> {
        Ok(self.varint()?.checked_sub(1).map(|length| length as usize))
    }

    fn classic_length32(&mut self) -> Result<Option<usize>, Flaw> {
        let bytes = self.take_array()?;
        length_or_null(i64::from(i32::from_be_bytes(bytes)))
    }

    fn classic_length16(&mut self) -> Result<Option<usize>, Flaw> {
        let bytes = self.take_array()?;
        length_or_null(i64::from(i16::from_be_bytes(bytes)))
    }

    /// An unsigned varint of at most five bytes; as in Kafka, bits beyond the 32nd are dropped.
    fn varint(&mut self) -> Result<u32, Flaw> {
        let mut value = 0;
        for (at, &byte) in self.rest.iter().enumerate().take(5) {
            value |= u32::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(Flaw::Malformed("a varint is cut off or too long"))
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Flaw> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }
}

const SHORT: Flaw = Flaw::Malformed("it ends early");

fn length_or_null(length: i64) -> Result<Option<usize>, Flaw> {
    match length {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| Flaw::Malformed("a length is negative")),
    }
}
