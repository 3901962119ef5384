//! The bytes of an entry's and of a boundary's object: `docs/formats/journal-bucket.md` specifies them.
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::newest::{Newest, Row};
use crate::journal::{Proposal, Stored};
use crate::types::{Incarnation, Position, Token};

const ENTRY_MAGIC: [u8; 4] = *b"SLJN";
const BOUNDARY_MAGIC: [u8; 4] = *b"SLJT";
const VERSION: u8 = 1;
/// Magic, version, padding, token and length: enough to tell which entry this is.
pub(super) const HEADER_BYTES: u64 = 20;
const CRC_BYTES: usize = 4;

/// Each entry at a multiple of this carries the newest entries of all incarnations below it.
pub(super) const CHECKPOINT_EVERY: u64 = 128;

/// Where an entry is kept.
pub(super) fn entry_key(position: Position) -> String {
    format!("{ENTRY_PREFIX}{:020}", position.0)
}

/// What the keys of all entries start with.
pub(super) const ENTRY_PREFIX: &str = "journal/";

/// The position that an entry's key names.
pub(super) fn position_of(key: &str) -> Option<Position> {
    let digits = key.strip_prefix(ENTRY_PREFIX).filter(|digits| digits.len() == 20)?;
    digits.parse().ok().map(Position)
}

/// Where the `number`th trim is kept.
pub(super) fn boundary_key(number: u64) -> String {
    format!("boundary/{number:020}")
}

/// An entry as its object holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub stored: Stored,
    /// The token of the entry before it.
    pub previous: Token,
    /// At multiples of [`CHECKPOINT_EVERY`]: what was newest below it.
    pub below: Option<Newest>,
}

/// One trim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Boundary {
    /// Counts the trims, from 1; 0 stands for none.
    pub number: u64,
    /// The oldest position that may be read.
    pub first: Position,
    /// The token of the entry before `first`.
    pub before: Token,
    /// The newest entries below `first`.
    pub newest: Newest,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EntryMessage {
    #[prost(uint64, tag = "1")]
    position: u64,
    #[prost(uint64, tag = "2")]
    incarnation: u64,
    #[prost(uint64, tag = "3")]
    counter: u64,
    #[prost(fixed64, tag = "4")]
    previous_token: u64,
    #[prost(bytes = "bytes", tag = "5")]
    payload: Bytes,
    #[prost(message, repeated, tag = "6")]
    newest: Vec<Row>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BoundaryMessage {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(uint64, tag = "2")]
    first: u64,
    #[prost(fixed64, tag = "3")]
    before_token: u64,
    #[prost(message, repeated, tag = "4")]
    newest: Vec<Row>,
}

/// Whether the entry at `position` carries what is newest below it.
pub(super) fn is_checkpoint(position: Position) -> bool {
    position.0.is_multiple_of(CHECKPOINT_EVERY)
}

pub(super) fn encode_entry(entry: &Entry) -> Bytes {
    let Stored { position, proposal } = &entry.stored;
    let message = EntryMessage {
        position: position.0,
        incarnation: proposal.incarnation.0,
        counter: proposal.counter,
        previous_token: entry.previous.0,
        payload: proposal.payload.clone(),
        newest: entry.below.as_ref().map(Newest::rows).unwrap_or_default(),
    };
    frame(ENTRY_MAGIC, proposal.token, &message)
}

/// The entry that the object of `position` holds, or why it holds none.
pub(super) fn decode_entry(position: Position, bytes: Bytes) -> Result<Entry, String> {
    let (token, message) = unframe::<EntryMessage>(ENTRY_MAGIC, bytes)?;
    if message.position != position.0 {
        return Err(format!("it says that it is the entry at position {}", message.position));
    }
    let proposal = Proposal {
        incarnation: Incarnation(message.incarnation),
        counter: message.counter,
        token,
        payload: message.payload,
    };
    let below = is_checkpoint(position).then(|| Newest::from_rows(message.newest));
    Ok(Entry { stored: Stored { position, proposal }, previous: Token(message.previous_token), below })
}

/// The token that an entry's first [`HEADER_BYTES`] name.
pub(super) fn decode_token(header: &[u8]) -> Result<Token, String> {
    checked_header(ENTRY_MAGIC, header).map(|(token, _)| token)
}

pub(super) fn encode_boundary(boundary: &Boundary) -> Bytes {
    let message = BoundaryMessage {
        number: boundary.number,
        first: boundary.first.0,
        before_token: boundary.before.0,
        newest: boundary.newest.rows(),
    };
    frame(BOUNDARY_MAGIC, Token(0), &message)
}

/// The trim that the object of this `number` holds, or why it holds none.
pub(super) fn decode_boundary(number: u64, bytes: Bytes) -> Result<Boundary, String> {
    let (_, message) = unframe::<BoundaryMessage>(BOUNDARY_MAGIC, bytes)?;
    if message.number != number {
        return Err(format!("it says that it is boundary {}", message.number));
    }
    Ok(Boundary {
        number,
        first: Position(message.first),
        before: Token(message.before_token),
        newest: Newest::from_rows(message.newest),
    })
}

fn frame(magic: [u8; 4], token: Token, message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES as usize + length + CRC_BYTES);
    bytes.put_slice(&magic);
    bytes.put_slice(&[VERSION, 0, 0, 0]);
    bytes.put_u64_le(token.0);
    bytes.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.put_slice(&message.encode_to_vec());
    let crc = crc32c::crc32c(&bytes);
    bytes.put_u32_le(crc);
    bytes.freeze()
}

fn checked_header(magic: [u8; 4], header: &[u8]) -> Result<(Token, usize), String> {
    let rest = header.strip_prefix(&magic).ok_or("its magic is another")?;
    let (&[version, ..], rest) = rest.split_first_chunk::<4>().ok_or("it is cut")?;
    if version != VERSION {
        return Err(format!("it has version {version}, and this broker knows {VERSION}"));
    }
    let (token, rest) = rest.split_first_chunk().ok_or("it is cut")?;
    let (length, _) = rest.split_first_chunk().ok_or("it is cut")?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|e| e.to_string())?;
    Ok((Token(u64::from_le_bytes(*token)), length))
}

fn unframe<M: Message + Default>(magic: [u8; 4], bytes: Bytes) -> Result<(Token, M), String> {
    let (token, length) = checked_header(magic, &bytes)?;
    let message = HEADER_BYTES as usize;
    if bytes.len().checked_sub(message + CRC_BYTES) != Some(length) {
        return Err(format!("it has {} bytes and should have {length} beside its frame", bytes.len()));
    }
    let (content, crc) = bytes.split_at(message + length);
    if crc32c::crc32c(content).to_le_bytes() != *crc {
        return Err("its checksum does not hold".into());
    }
    let decoded = M::decode(bytes.slice(message..message + length)).map_err(|e| e.to_string())?;
    Ok((token, decoded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::rules::Known;

    fn example(position: u64) -> Entry {
        let proposal =
            Proposal { incarnation: Incarnation(3), counter: 4, token: Token(5), payload: Bytes::from_static(b"abc") };
        let below = is_checkpoint(Position(position)).then(|| {
            let mut newest = Newest::default();
            newest.note(Incarnation(1), Known { counter: 2, position: Position(7), token: Token(8) });
            newest
        });
        Entry { stored: Stored { position: Position(position), proposal }, previous: Token(6), below }
    }

    /// Written once, readable for ever.
    #[test]
    fn the_format_is_the_documented_one() {
        let bytes = encode_entry(&example(2));
        let mut expected = b"SLJN\x01\0\0\0\x05\0\0\0\0\0\0\0\x14\0\0\0".to_vec();
        expected.extend(b"\x08\x02\x10\x03\x18\x04\x21\x06\0\0\0\0\0\0\0\x2a\x03abc");
        expected.extend(crc32c::crc32c(&expected).to_le_bytes());
        assert_eq!(bytes, expected);
        let newest = example(128).below.unwrap();
        let boundary = Boundary { number: 2, first: Position(9), before: Token(1), newest };
        let bytes = encode_boundary(&boundary);
        let mut expected = b"SLJT\x01\0\0\0\0\0\0\0\0\0\0\0\x1e\0\0\0".to_vec();
        expected
            .extend(b"\x08\x02\x10\x09\x19\x01\0\0\0\0\0\0\0\x22\x0f\x08\x01\x10\x02\x18\x07\x21\x08\0\0\0\0\0\0\0");
        expected.extend(crc32c::crc32c(&expected).to_le_bytes());
        assert_eq!(bytes, expected);
        assert_eq!(decode_boundary(2, bytes), Ok(boundary));
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        for position in [1, 127, 128] {
            let entry = example(position);
            let bytes = encode_entry(&entry);
            assert_eq!(decode_token(&bytes[..20]), Ok(Token(5)));
            assert_eq!(decode_entry(Position(position), bytes.clone()), Ok(entry));
            assert!(decode_entry(Position(position + 1), bytes.clone()).is_err());
            assert!(decode_boundary(position, bytes.clone()).is_err());
            for cut in 0..bytes.len() {
                assert!(decode_entry(Position(position), bytes.slice(..cut)).is_err(), "cut at {cut}");
            }
            for at in 0..bytes.len() {
                let mut changed = bytes.to_vec();
                changed[at] ^= 1;
                assert!(decode_entry(Position(position), changed.into()).is_err(), "changed at {at}");
            }
        }
    }

    #[test]
    fn names_sort_as_positions_do() {
        let key = entry_key(Position(u64::MAX));
        assert_eq!((key.as_str(), position_of(&key)), ("journal/18446744073709551615", Some(Position(u64::MAX))));
        assert!(entry_key(Position(9)) < entry_key(Position(10)));
        assert_eq!(position_of("journal/9"), None);
        assert_eq!(position_of("other/00000000000000000009"), None);
    }
}
