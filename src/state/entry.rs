//! An entry of the journal as bytes: magic, version, protobuf body, CRC-32C. Specified in `docs/formats/journal.md`.
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::command::Command;

/// The highest feature level that this program understands. An entry or snapshot above it stops the broker (H5).
pub const FEATURE_LEVEL_MAX: u32 = 7;

const MAGIC: [u8; 4] = *b"SLJE";
const VERSION: u8 = 1;

/// What one append adds: who says it, when, what it had applied, and the commands.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    #[prost(uint32, tag = "1")]
    pub feature_level: u32,
    #[prost(int32, tag = "2")]
    pub broker: i32,
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
    /// Counts the entries of the incarnation, from 1.
    #[prost(uint64, tag = "4")]
    pub counter: u64,
    /// Random; tells this history from another.
    #[prost(fixed64, tag = "5")]
    pub token: u64,
    /// The proposer's clock. Only compared and shown, never trusted.
    #[prost(int64, tag = "6")]
    pub wall_ms: i64,
    /// What the proposer had applied, and its chain hash of outcomes up to there.
    #[prost(uint64, tag = "7")]
    pub after_position: u64,
    #[prost(fixed64, tag = "8")]
    pub after_token: u64,
    #[prost(fixed64, tag = "9")]
    pub after_outcomes: u64,
    #[prost(message, repeated, tag = "10")]
    pub commands: Vec<Command>,
}

/// Why an entry can't be read. Any of them stops the broker: going on would make another State.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("is damaged: {0}")]
    Damaged(String),
    #[error(
        "is of feature level {level}, and this version of Strandline knows levels up to {FEATURE_LEVEL_MAX}; use a newer one"
    )]
    Level { level: u32 },
}

impl Entry {
    /// The bytes that go into the journal.
    #[must_use]
    pub fn encode_framed(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len() + 9);
        out.put_slice(&MAGIC);
        out.put_u8(VERSION);
        self.encode(&mut out).expect("a BytesMut grows, which is the only thing that encoding can lack");
        let crc = crc32c::crc32c(&out);
        out.put_u32_le(crc);
        out.freeze()
    }

    /// Reads what [`Entry::encode_framed`] wrote.
    ///
    /// # Errors
    /// If the bytes are damaged, or of a feature level that this version does not know.
    pub fn decode_framed(bytes: Bytes) -> Result<Self, EntryError> {
        let damaged = |reason: &str| EntryError::Damaged(reason.to_owned());
        let body_end = bytes.len().checked_sub(4).filter(|&n| n >= 5).ok_or_else(|| damaged("too short"))?;
        let crc = bytes[body_end..].try_into().map(u32::from_le_bytes).map_err(|_| damaged("too short"))?;
        if crc32c::crc32c(&bytes[..body_end]) != crc {
            return Err(damaged("its checksum does not hold"));
        }
        if bytes[..4] != MAGIC || bytes[4] != VERSION {
            return Err(damaged("it has another magic or version"));
        }
        let entry = Self::decode(bytes.slice(5..body_end)).map_err(|e| EntryError::Damaged(e.to_string()))?;
        if entry.feature_level > FEATURE_LEVEL_MAX {
            return Err(EntryError::Level { level: entry.feature_level });
        }
        if entry.commands.iter().any(|c| c.kind.is_none()) {
            return Err(damaged("it has a command that its feature level does not have"));
        }
        Ok(entry)
    }
}
