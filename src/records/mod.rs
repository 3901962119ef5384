//! Kafka's record batches (magic 2): how their bytes are cut, checked, walked, built and (de)compressed.
//!
//! Owns the batch format and nothing around it. Promises: no panic and bounded memory on any bytes; a batch that passes
//! [`validate()`] keeps its record bytes untouched (only the 61 header bytes are ever rewritten), unless its topic asks
//! for another codec; a walk allocates nothing per record. Never asks a clock, a topic or an offset index: what depends
//! on them is an argument. Tests are in `tests/`, real clients' batches and the cost of validation (ADR 0003) among them.
mod build;
mod codec;
mod header;
mod marker;
mod recompress;
mod retain;
mod stamp;
mod timestamps;
mod validate;
mod walk;

#[cfg(test)]
mod tests;

pub use build::{BatchBuilder, NewRecord};
pub use codec::{Codec, CodecError, Level, compress, inflate};
pub use header::{
    Batch, BatchError, BatchHeader, Batches, HEADER_BYTES, PREFIX_BYTES, TimestampType, crc_of_pieces, patched_prefix,
};
pub use marker::{EndMarker, MARKER_BYTES};
pub use recompress::{RecompressError, recompress};
pub use retain::{Retained, empty_batch};
pub use stamp::{BatchBytes, stamp_log_append_time};
pub use timestamps::{Placed, first_at_or_after, max_timestamp_record};
pub use validate::{RecordError, Refused, Rules, Valid, Validation, validate};
pub use walk::{Body, Header, RecordView, Records, WalkError, body, walk};
