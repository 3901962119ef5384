//! What ListOffsets asks of one batch: the record at a time, and the latest record. Both read every record.
use crate::records::header::{BatchHeader, TimestampType};
use crate::records::walk::{Records, WalkError, body};
use crate::types::{Offset, TimestampMs};

/// The first record of `batch` with a time at or after `at`, if it has one; `base` is the offset of the batch's first
/// record, since a stored batch does not know it. Of a LogAppendTime batch every record has the batch's time.
///
/// # Errors
/// Where the records can't be walked or exceed `limit` bytes decompressed.
pub fn first_at_or_after(
    batch: &[u8],
    base: Offset,
    at: TimestampMs,
    limit: usize,
) -> Result<Option<(Offset, TimestampMs)>, WalkError> {
    let header = BatchHeader::parse(batch)?;
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Ok((header.max_timestamp >= at).then_some((base, header.max_timestamp)));
    }
    let body = body(&header, batch, limit)?;
    for found in record_times(&header, &body, base) {
        let (offset, timestamp) = found?;
        if timestamp >= at {
            return Ok(Some((offset, timestamp)));
        }
    }
    Ok(None)
}

/// The first record that has the batch's largest time, by the records themselves and not by what the header claims;
/// `None` only for a batch without records. `base` as for [`first_at_or_after`].
///
/// # Errors
/// Where the records can't be walked or exceed `limit` bytes decompressed.
pub fn max_timestamp_record(
    batch: &[u8],
    base: Offset,
    limit: usize,
) -> Result<Option<(Offset, TimestampMs)>, WalkError> {
    let header = BatchHeader::parse(batch)?;
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Ok((header.records() > 0).then_some((base, header.max_timestamp)));
    }
    let body = body(&header, batch, limit)?;
    let mut latest: Option<(Offset, TimestampMs)> = None;
    for found in record_times(&header, &body, base) {
        let (offset, timestamp) = found?;
        if latest.is_none_or(|(_, largest)| timestamp > largest) {
            latest = Some((offset, timestamp));
        }
    }
    Ok(latest)
}

fn record_times<'a>(
    header: &BatchHeader,
    body: &'a [u8],
    base: Offset,
) -> impl Iterator<Item = Result<(Offset, TimestampMs), WalkError>> + use<'a> {
    let base_timestamp = header.base_timestamp;
    Records::new(body, header.records()).zip(0..).map(move |(record, index)| {
        let record = record?;
        let timestamp = record.timestamp(base_timestamp).ok_or(WalkError::Timestamp { record: index })?;
        Ok((Offset(base.0.saturating_add(i64::from(record.offset_delta))), timestamp))
    })
}
