//! The same records under another codec, for topics whose `compression.type` is not `producer`.
use crate::records::codec::{Codec, CodecError, Level, compress};
use crate::records::header::{BatchHeader, HEADER_BYTES};
use crate::records::walk::{Records, WalkError, body};
use bytes::Bytes;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecompressError {
    /// The batch's own records can't be read.
    #[error(transparent)]
    Walk(#[from] WalkError),
    #[error(transparent)]
    Codec(CodecError),
    #[error("recompressed, the batch exceeds what a length field can say")]
    TooLarge,
}

/// `batch` with its records under `codec`: offsets, timestamps, producer fields and record bytes stay, length and CRC
/// are made anew. Records are walked on the way, so a batch that readers could not read is refused.
///
/// # Errors
/// As [`RecompressError`] says; `limit` bounds the decompressed records, in bytes.
pub fn recompress(batch: &[u8], codec: Codec, level: Level, limit: usize) -> Result<Bytes, RecompressError> {
    let header = BatchHeader::parse(batch).map_err(WalkError::from)?;
    let body = body(&header, batch, limit).map_err(WalkError::from)?;
    for record in Records::new(&body, header.records()) {
        record?;
    }
    pack(header, &body, codec, level).map(|(_, batch)| batch)
}

/// A batch of `header` and the uncompressed `body`, under `codec`.
pub(super) fn pack(
    mut header: BatchHeader,
    body: &[u8],
    codec: Codec,
    level: Level,
) -> Result<(BatchHeader, Bytes), RecompressError> {
    let packed = compress(codec, level, body).map_err(RecompressError::Codec)?;
    let total = HEADER_BYTES + packed.len();
    header.batch_length = i32::try_from(total - 12).map_err(|_| RecompressError::TooLarge)?.cast_unsigned();
    header.set_codec(codec);
    let mut batch = Vec::with_capacity(total);
    batch.extend_from_slice(&header.seal(&packed));
    batch.extend_from_slice(&packed);
    Ok((header, batch.into()))
}
