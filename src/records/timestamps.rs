//! What ListOffsets asks of one batch: the record at a time, and the latest record. Both read every record.
use crate::records::header::{BatchHeader, TimestampType};
use crate::records::walk::{Records, WalkError, body};
use crate::types::{Offset, TimestampMs};

/// Where a stored batch lies, which it does not know itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The offset of its first record.
    pub base: Offset,
    /// The first offset that may be read: DeleteRecords can hide a part of a batch.
    pub log_start: Offset,
}

impl Placed {
    /// The first record of a batch that may be read; `None` if none may.
    fn first(self, header: &BatchHeader, batch: &[u8], limit: usize) -> Result<Option<Offset>, WalkError> {
        if i64::from(header.records()) != i64::from(header.last_offset_delta) + 1 {
            // Log compaction has left some out.
            let body = body(header, batch, limit)?;
            let mut offsets = record_times(header, &body, self.base).map(|found| found.map(|(offset, _)| offset));
            return offsets.find(|found| !found.as_ref().is_ok_and(|at| *at < self.log_start)).transpose();
        }
        let end = Offset(self.base.0.saturating_add(i64::from(header.records())));
        let first = self.base.max(self.log_start);
        Ok((first < end).then_some(first))
    }
}

/// The first readable record of `batch` with a time at or after `at`, if it has one. Of a LogAppendTime batch every
/// record has the batch's time.
///
/// # Errors
/// Where the records can't be walked or exceed `limit` bytes decompressed.
pub fn first_at_or_after(
    batch: &[u8],
    placed: Placed,
    at: TimestampMs,
    limit: usize,
) -> Result<Option<(Offset, TimestampMs)>, WalkError> {
    let header = BatchHeader::parse(batch)?;
    if header.timestamp_type() == TimestampType::LogAppendTime {
        let first = if header.max_timestamp >= at { placed.first(&header, batch, limit)? } else { None };
        return Ok(first.map(|first| (first, header.max_timestamp)));
    }
    let body = body(&header, batch, limit)?;
    for found in record_times(&header, &body, placed.base) {
        let (offset, timestamp) = found?;
        if timestamp >= at && offset >= placed.log_start {
            return Ok(Some((offset, timestamp)));
        }
    }
    Ok(None)
}

/// The first of the readable records that have the largest time of them, by the records themselves and not by what the
/// header claims; `None` if none may be read.
///
/// # Errors
/// Where the records can't be walked or exceed `limit` bytes decompressed.
pub fn max_timestamp_record(
    batch: &[u8],
    placed: Placed,
    limit: usize,
) -> Result<Option<(Offset, TimestampMs)>, WalkError> {
    let header = BatchHeader::parse(batch)?;
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Ok(placed.first(&header, batch, limit)?.map(|first| (first, header.max_timestamp)));
    }
    let body = body(&header, batch, limit)?;
    let mut latest: Option<(Offset, TimestampMs)> = None;
    for found in record_times(&header, &body, placed.base) {
        let (offset, timestamp) = found?;
        if offset >= placed.log_start && latest.is_none_or(|(_, largest)| timestamp > largest) {
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
