//! The four compressions that Kafka's batches know, with a limit on what comes out.
use std::io::{Read, Write};

/// How a batch's records are compressed; the number in the attributes' lowest three bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// A compression level in the codec's own numbers (`compression.gzip.level` 1–9, `compression.lz4.level` 1–17,
/// `compression.zstd.level` -131072–22); `Default` is Kafka's: -1, 9 and 3. Values beyond a codec's range are clamped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    #[default]
    Default,
    Is(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("unknown compression type id {0}")]
    Unknown(u8),
    #[error("the {0} data can't be decompressed")]
    Corrupt(Codec),
    #[error("decompressed, the records exceed {limit} bytes")]
    TooLarge { limit: usize },
    #[error("{0} compression failed")]
    Compress(Codec),
}

/// snappy-java's stream: this magic, two version numbers, then blocks of (length, raw snappy).
const XERIAL_MAGIC: &[u8] = &[0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
/// snappy-java's default block. Larger ones are legal and would compress no better: snappy looks back 64 KiB at most.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// Snappy's densest element turns 3 bytes into 64, so a claim beyond this ratio is a lie and gets no memory.
const SNAPPY_RATIO_MAX: usize = 22;

impl Codec {
    /// # Errors
    /// `CodecError::Unknown` for 5 to 7, which Kafka has not given out.
    pub fn from_bits(bits: u8) -> Result<Self, CodecError> {
        match bits {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            bits => Err(CodecError::Unknown(bits)),
        }
    }

    #[must_use]
    pub fn bits(self) -> u8 {
        self as u8
    }

    /// Kafka's name, as in `compression.type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What `data` was before compression. Holds at most `limit` bytes and a decoder's window, however small `data` is.
///
/// # Errors
/// `Corrupt` for what is not a stream of this codec, `TooLarge` beyond `limit`.
pub fn inflate(codec: Codec, data: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    let corrupt = |_| CodecError::Corrupt(codec);
    match codec {
        Codec::None if data.len() > limit => Err(CodecError::TooLarge { limit }),
        Codec::None => Ok(data.to_vec()),
        Codec::Gzip => read_limited(codec, flate2::bufread::MultiGzDecoder::new(data), data.len(), limit),
        Codec::Snappy => inflate_snappy(data, limit),
        Codec::Lz4 => read_limited(codec, lz4::Decoder::new(data).map_err(corrupt)?, data.len(), limit),
        Codec::Zstd => {
            read_limited(codec, zstd::stream::read::Decoder::with_buffer(data).map_err(corrupt)?, data.len(), limit)
        }
    }
}

fn read_limited(codec: Codec, reader: impl Read, packed: usize, limit: usize) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::with_capacity(packed.saturating_mul(4).min(limit));
    let allowed = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(allowed).read_to_end(&mut out).map_err(|_| CodecError::Corrupt(codec))?;
    if out.len() > limit { Err(CodecError::TooLarge { limit }) } else { Ok(out) }
}

/// Java clients send snappy-java's stream, librdkafka a single raw block; brokers and consumers take both.
fn inflate_snappy(data: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    if !data.starts_with(XERIAL_MAGIC) {
        inflate_snappy_block(data, &mut out, limit)?;
        return Ok(out);
    }
    let corrupt = CodecError::Corrupt(Codec::Snappy);
    let mut rest = data.get(XERIAL_HEADER_BYTES..).ok_or(corrupt)?;
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk::<4>().ok_or(corrupt)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| corrupt)?;
        inflate_snappy_block(behind.get(..length).ok_or(corrupt)?, &mut out, limit)?;
        rest = &behind[length..];
    }
    Ok(out)
}

fn inflate_snappy_block(block: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), CodecError> {
    let corrupt = |_| CodecError::Corrupt(Codec::Snappy);
    let length = snap::raw::decompress_len(block).map_err(corrupt)?;
    if length > limit.saturating_sub(out.len()) {
        return Err(CodecError::TooLarge { limit });
    }
    if length > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(CodecError::Corrupt(Codec::Snappy));
    }
    let start = out.len();
    out.resize(start + length, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(corrupt)?;
    out.truncate(start + written);
    Ok(())
}

/// `data` compressed, in the form that every client reads: gzip, snappy-java's stream, an LZ4 frame of independent
/// 64 KiB blocks (Java refuses linked ones), a zstd frame.
///
/// # Errors
/// `Compress` where the library fails, which a correct build never sees.
pub fn compress(codec: Codec, level: Level, data: &[u8]) -> Result<Vec<u8>, CodecError> {
    let failed = |_| CodecError::Compress(codec);
    match codec {
        Codec::None => Ok(data.to_vec()),
        Codec::Gzip => {
            let level = level.or(6).clamp(0, 9);
            let level = flate2::Compression::new(u32::try_from(level).unwrap_or(6));
            let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(data.len() / 2), level);
            encoder.write_all(data).map_err(failed)?;
            encoder.finish().map_err(failed)
        }
        Codec::Snappy => compress_snappy(data),
        Codec::Lz4 => {
            // Kafka's default of 9 is the Java library's high-compression level; C's numbers end at 12.
            let level = u32::try_from(level.or(9).clamp(0, 12)).unwrap_or(9);
            let mut encoder = lz4::EncoderBuilder::new()
                .level(level)
                .block_mode(lz4::BlockMode::Independent)
                .block_size(lz4::BlockSize::Max64KB)
                .checksum(lz4::ContentChecksum::NoChecksum)
                .build(Vec::with_capacity(data.len() / 2))
                .map_err(failed)?;
            encoder.write_all(data).map_err(failed)?;
            let (out, result) = encoder.finish();
            result.map_err(failed)?;
            Ok(out)
        }
        Codec::Zstd => zstd::stream::encode_all(data, level.or(3).clamp(-131_072, 22)).map_err(failed),
    }
}

impl Level {
    fn or(self, default: i32) -> i32 {
        match self {
            Self::Default => default,
            Self::Is(level) => level,
        }
    }
}

fn compress_snappy(data: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::with_capacity(data.len() / 2 + XERIAL_HEADER_BYTES);
    out.extend_from_slice(XERIAL_MAGIC);
    out.extend_from_slice(&1_u32.to_be_bytes());
    out.extend_from_slice(&1_u32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in data.chunks(XERIAL_BLOCK_BYTES) {
        let failed = CodecError::Compress(Codec::Snappy);
        let packed = encoder.compress_vec(block).map_err(|_| failed)?;
        let length = u32::try_from(packed.len()).map_err(|_| failed)?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&packed);
    }
    Ok(out)
}
