//! Answers: size, header and body as one list of buffers, in which record bytes stand as they are, uncopied.
//!
//! The message crate can only copy, so a response is encoded with small placeholders for its records. Then its records
//! fields are found by the response's schema, and each placeholder is replaced by its chunks and the right length.
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ResponseHeader};
use kafka_protocol::protocol::{Encodable, HeaderVersion, Message};

use super::request::wire_version;
use super::verify::{self, Records};
use crate::types::Piece;

/// A response on the wire: its pieces in order, the first in memory and starting with the frame's four bytes of size.
pub type Frame = Vec<Piece>;

/// Chunks of fewer bytes are copied: at 4 KiB copying costs as much as splicing (measured: 0.2 µs a partition), and each
/// spliced chunk takes up one of the 1,024 places of a vectored write.
const COPY_BYTES_MAX: usize = 4096;

/// Why a response could not be encoded; always a mistake of ours.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The crate has no place for a value in this version, or a string is too long.
    #[error("the message crate refused it: {0}")]
    Message(String),
    /// A placeholder was left out, used twice, or stands where no records belong.
    #[error("{used} of {added} record placeholders stand in the response")]
    Splices { added: usize, used: usize },
    /// Over 2 GiB, which the protocol can't express.
    #[error("a response of {bytes} bytes")]
    TooLarge { bytes: usize },
}

/// The record bytes of one response, each partition's as a list of chunks.
#[derive(Debug, Default)]
pub struct Splices(Vec<Vec<Piece>>);

impl Splices {
    /// Keeps a partition's record bytes; the answer stands for them in the response's `records` field.
    #[must_use]
    pub fn add(&mut self, chunks: impl IntoIterator<Item = impl Into<Piece>>) -> Bytes {
        let chunks: Vec<Piece> = chunks.into_iter().map(Into::into).filter(|chunk| chunk.len() > 0).collect();
        if chunks.iter().map(Piece::len).sum::<usize>() < COPY_BYTES_MAX
            && let Some(copy) = copy(&chunks)
        {
            return copy;
        }
        self.0.push(chunks);
        placeholder(self.0.len() - 1)
    }
}

/// The chunks as one; `None` where not all are in memory.
fn copy(chunks: &[Piece]) -> Option<Bytes> {
    if let [Piece::Memory(one)] = chunks {
        return Some(one.clone());
    }
    let mut whole = BytesMut::new();
    for chunk in chunks {
        let Piece::Memory(bytes) = chunk else { return None };
        whole.put_slice(bytes);
    }
    Some(whole.freeze())
}

/// With its index shorter than any record batch, so that none can be taken for it.
const PLACEHOLDER: &[u8; 12] = b"<strandline>";

fn placeholder(index: usize) -> Bytes {
    [PLACEHOLDER.as_slice(), &(index as u64).to_be_bytes()].concat().into()
}

fn index_of(content: &[u8]) -> Option<usize> {
    let index = content.strip_prefix(PLACEHOLDER)?.try_into().ok()?;
    usize::try_from(u64::from_be_bytes(index)).ok()
}

/// Encodes a response as a frame: size, the header that this API and version has, body. ApiVersions always has the
/// first header, since a client that asks does not know yet what the broker speaks.
pub fn encode_response<M: Encodable + HeaderVersion + Message>(
    api_key: ApiKey,
    version: i16,
    correlation_id: i32,
    message: &M,
    splices: Splices,
) -> Result<Frame, EncodeError> {
    let wire = wire_version::<M>(version);
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    let mut bytes = BytesMut::with_capacity(512);
    bytes.put_i32(0);
    header.encode(&mut bytes, M::header_version(wire)).map_err(refused)?;
    let body = bytes.len();
    message.encode(&mut bytes, wire).map_err(refused)?;
    if splices.0.is_empty() {
        return frame_of(bytes);
    }
    let found = verify::records_in(api_key, version, &bytes[body..])
        .map_err(|_| EncodeError::Splices { added: splices.0.len(), used: 0 })?;
    splice(&bytes, body, &found, splices.0)
}

/// The record bytes of somebody's response in this API and version, which has one place for them; `None` if it has
/// none, or is not what the API answers. `frame` is without its size.
#[must_use]
pub fn records_of(api_key: ApiKey, version: i16, correlation_id: i32, frame: &Bytes) -> Option<Bytes> {
    let after_id = frame.strip_prefix(&correlation_id.to_be_bytes())?;
    let body = verify::skip_tagged(after_id).ok()?;
    let found = verify::records_in(api_key, version, body).ok()?;
    let [records] = found.as_slice() else { return None };
    Some(frame.slice_ref(&body[records.content.clone()]))
}

/// A frame of these bytes, the first four of which become the size of the rest.
pub(super) fn frame_of(mut bytes: BytesMut) -> Result<Frame, EncodeError> {
    let size = frame_size(bytes.len())?;
    bytes[..4].copy_from_slice(&size.to_be_bytes());
    Ok(vec![bytes.freeze().into()])
}

fn refused(error: impl std::fmt::Display) -> EncodeError {
    EncodeError::Message(error.to_string())
}

fn frame_size(bytes: usize) -> Result<i32, EncodeError> {
    i32::try_from(bytes - 4).map_err(|_| EncodeError::TooLarge { bytes })
}

/// Writes the frame with each placeholder replaced by its chunks.
fn splice(bytes: &[u8], body: usize, found: &[Records], mut chunks: Vec<Vec<Piece>>) -> Result<Frame, EncodeError> {
    let added = chunks.len();
    let mut copied = bytes.len() + added * size_of::<u64>();
    let mut total = bytes.len();
    let mut replaced = Vec::with_capacity(added);
    for records in found {
        let (prefix, content) = (body + records.prefix, body + records.content.start..body + records.content.end);
        let Some(index) = index_of(&bytes[content.clone()]) else { continue };
        // What was taken is empty, and what was added never is: so each is used at most once.
        let rope = chunks.get_mut(index).map(std::mem::take).filter(|rope| !rope.is_empty());
        let rope = rope.ok_or(EncodeError::Splices { added, used: replaced.len() })?;
        let length = rope.iter().map(Piece::len).sum::<usize>();
        copied += rope.iter().map(Piece::len).filter(|&length| length < COPY_BYTES_MAX).sum::<usize>();
        let new_prefix = Prefix::of(length, content.start - prefix == 1)?;
        total += new_prefix.len + length - (content.end - prefix);
        replaced.push((prefix, content.end, new_prefix, rope));
    }
    if replaced.len() != added {
        return Err(EncodeError::Splices { added, used: replaced.len() });
    }
    let mut frame = Frame::with_capacity(2 * added + 1);
    let mut run = BytesMut::with_capacity(copied);
    run.put_i32(frame_size(total)?);
    let mut at = 4;
    for (start, end, prefix, rope) in replaced {
        run.put_slice(&bytes[at..start]);
        run.put_slice(&prefix.bytes[..prefix.len]);
        at = end;
        for chunk in rope {
            match chunk {
                Piece::Memory(bytes) if bytes.len() < COPY_BYTES_MAX => run.put_slice(&bytes),
                chunk => {
                    frame.extend((!run.is_empty()).then(|| run.split().freeze().into()));
                    frame.push(chunk);
                }
            }
        }
    }
    run.put_slice(&bytes[at..]);
    frame.extend((!run.is_empty()).then(|| run.freeze().into()));
    Ok(frame)
}

/// The length in front of record bytes: an unsigned varint of the length plus one, or four bytes.
struct Prefix {
    bytes: [u8; 5],
    len: usize,
}

impl Prefix {
    fn of(length: usize, compact: bool) -> Result<Self, EncodeError> {
        let mut value = i32::try_from(length).map_err(|_| EncodeError::TooLarge { bytes: length })?.cast_unsigned();
        let mut bytes = [0; 5];
        if !compact {
            bytes[..4].copy_from_slice(&value.to_be_bytes());
            return Ok(Self { bytes, len: 4 });
        }
        value += 1;
        let mut len = 0;
        while value >= 0x80 {
            bytes[len] = value as u8 | 0x80;
            value >>= 7;
            len += 1;
        }
        bytes[len] = value as u8;
        Ok(Self { bytes, len: len + 1 })
    }
}

#[cfg(test)]
mod tests;
