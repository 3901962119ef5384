//! Rewriting a batch's header without touching its records.
use crate::records::header::{BatchError, BatchHeader, HEADER_BYTES, TimestampType};
use crate::types::TimestampMs;
use bytes::Bytes;

/// A batch's bytes in at most two pieces: the header, if it was rewritten, and the untouched rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchBytes {
    /// The rewritten header, or empty.
    pub head: Bytes,
    /// The records behind it, or the whole batch.
    pub tail: Bytes,
}

impl BatchBytes {
    /// A batch whose bytes are as the client sent them.
    #[must_use]
    pub fn whole(batch: Bytes) -> Self {
        Self { head: Bytes::new(), tail: batch }
    }

    /// `batch` with `header` instead of its own, the CRC made right: reads the records once, copies none.
    pub(super) fn with_header(batch: &Bytes, header: &mut BatchHeader) -> Self {
        let tail = batch.slice(HEADER_BYTES..);
        Self { head: Bytes::copy_from_slice(&header.seal(&tail)), tail }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces in their order, without empty ones.
    pub fn pieces(self) -> impl Iterator<Item = Bytes> {
        [self.head, self.tail].into_iter().filter(|piece| !piece.is_empty())
    }

    /// One buffer; copies only if there are two pieces.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        if self.head.is_empty() {
            return self.tail;
        }
        let mut whole = Vec::with_capacity(self.len());
        whole.extend_from_slice(&self.head);
        whole.extend_from_slice(&self.tail);
        whole.into()
    }
}

/// The batch with the broker's time (`message.timestamp.type=LogAppendTime`): the attribute bit and the largest
/// timestamp are set and the CRC is made right. Every record's time is then `now`; the records keep their bytes.
///
/// # Errors
/// Where `batch` is not one whole batch of magic 2.
pub fn stamp_log_append_time(batch: &Bytes, now: TimestampMs) -> Result<BatchBytes, BatchError> {
    let mut header = BatchHeader::parse(batch)?;
    if header.total_bytes() != batch.len() {
        return Err(BatchError::Incomplete { needed: header.total_bytes(), available: batch.len() });
    }
    header.set_timestamp_type(TimestampType::LogAppendTime);
    header.max_timestamp = now;
    Ok(BatchBytes::with_header(batch, &mut header))
}
