//! What a broker checks before it takes a produced batch. The rules, their order and their error codes are those of
//! Kafka's `ProduceRequest`, `UnifiedLog` and `LogValidator` in 4.3; where we are stricter, the line says so.
use crate::records::codec::{Codec, CodecError, Level};
use crate::records::header::{Batch, BatchError, BatchHeader, Batches, TimestampType, crc_of};
use crate::records::recompress::{RecompressError, pack};
use crate::records::stamp::BatchBytes;
use crate::records::walk::{Records, WalkError, body};
use crate::types::{KafkaError, TimestampMs};
use bytes::Bytes;

/// Refused records named in an answer. Kafka names all; a batch can hold a million, and one answer must stay small.
const RECORD_ERRORS_MAX: usize = 1_000;

/// How far a compressed batch is looked into (ADR 0003). Uncompressed batches are always walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validation {
    /// Header and CRC; records only where another rule needs them (keys, bounds in the past, recompression).
    #[default]
    Header,
    /// Every record of every batch.
    Full,
}

/// A topic's rules at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `max.message.bytes`: of the batch as it was sent and as it will be stored.
    pub max_message_bytes: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`; `i64::MAX` is no bound.
    pub before_max_ms: i64,
    /// `message.timestamp.after.max.ms`; `i64::MAX` is no bound.
    pub after_max_ms: i64,
    /// `cleanup.policy` contains `compact`: every record needs a key.
    pub compacted: bool,
    pub validation: Validation,
    /// `compression.type` and its level; `None` is `producer`.
    pub target: Option<(Codec, Level)>,
    /// Whether the client may send zstd: from Produce version 7 on.
    pub zstd: bool,
    /// Most bytes that one batch's records may have when decompressed.
    pub inflated_bytes_max: usize,
    /// The broker's clock.
    pub now: TimestampMs,
}

/// A batch that may be stored.
#[derive(Clone, Debug)]
pub struct Valid {
    /// The header as it will be stored.
    pub header: BatchHeader,
    pub bytes: BatchBytes,
}

/// One refused record, for Produce version 8 and later; `index` is its place in the batch, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    pub index: u32,
    pub message: String,
}

/// Why a partition's records are not taken. Nothing of them is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub error: KafkaError,
    pub message: String,
    /// The records at fault, where single ones are; at most 1,000.
    pub records: Vec<RecordError>,
}

/// Checks one partition's `records` of a produce request, which must be exactly one batch, and makes of it what is to
/// be stored: the same bytes, or with a rewritten header (LogAppendTime, a wrong largest timestamp), or recompressed.
///
/// # Errors
/// `Refused` with Kafka's code. `CORRUPT_MESSAGE` alone is retriable: another try may arrive whole.
pub fn validate(records: &Bytes, rules: &Rules) -> Result<Valid, Refused> {
    let Batch { mut header, bytes, .. } = only_batch(records)?;
    check_size(bytes.len(), rules)?;
    if header.crc != crc_of(&bytes) {
        return Err(Refused::new(KafkaError::CorruptMessage, "Record is corrupt (its CRC-32C does not match)"));
    }
    let codec = check_codec(&header, rules)?;
    check_header(&header)?;
    let as_sent = header;
    header.clear_delete_horizon();
    let target = rules.target.filter(|(target, _)| *target != codec);
    let mut repacked = None;
    if codec == Codec::None || target.is_some() || must_inflate(rules) {
        let body = body(&header, &bytes, rules.inflated_bytes_max).map_err(|error| Refused::codec(&error))?;
        header.max_timestamp = check_records(&header, &body, rules)?;
        repacked = target.map(|(codec, level)| pack(header, &body, codec, level)).transpose().map_err(Refused::pack)?;
    } else {
        check_header_times(&header, rules)?;
    }
    if let Some((packed_header, packed)) = repacked {
        check_size(packed.len(), rules)?;
        return Ok(stamp(packed_header, packed_header, &packed, rules));
    }
    Ok(stamp(header, as_sent, &bytes, rules))
}

/// Sets the topic's timestamp type and rewrites the header if it is no longer the one that `batch` begins with.
fn stamp(mut header: BatchHeader, in_batch: BatchHeader, batch: &Bytes, rules: &Rules) -> Valid {
    if rules.timestamp_type == TimestampType::LogAppendTime {
        header.set_timestamp_type(TimestampType::LogAppendTime);
        header.max_timestamp = rules.now;
    }
    let bytes =
        if header == in_batch { BatchBytes::whole(batch.clone()) } else { BatchBytes::with_header(batch, &mut header) };
    Valid { header, bytes }
}

/// Record timestamps may lie before the header's base, so a bound in the past can't be decided by the header.
fn must_inflate(rules: &Rules) -> bool {
    let bound_in_past = rules.timestamp_type == TimestampType::CreateTime && rules.before_max_ms < i64::MAX;
    rules.validation == Validation::Full || rules.compacted || bound_in_past
}

fn only_batch(records: &Bytes) -> Result<Batch, Refused> {
    let invalid = |message: &str| Refused::new(KafkaError::InvalidRecord, message);
    let mut batches = Batches::new(records.clone());
    let first =
        batches.next().ok_or_else(|| invalid("Produce requests must have at least one record batch per partition"))?;
    let batch = first.map_err(|error| Refused::batch(&error))?;
    // Stricter than Kafka, which drops a cut second batch without a word and acknowledges it.
    if batches.next().is_some() {
        return Err(invalid("Produce requests must have exactly one record batch per partition"));
    }
    if batch.header.base_offset.0 != 0 {
        let message =
            format!("The base offset of the record batch should be 0, but it is {}", batch.header.base_offset);
        return Err(Refused::new(KafkaError::InvalidRecord, message));
    }
    Ok(batch)
}

fn check_size(bytes: usize, rules: &Rules) -> Result<(), Refused> {
    if bytes <= rules.max_message_bytes {
        return Ok(());
    }
    let limit = rules.max_message_bytes;
    let message =
        format!("The record batch size is {bytes} bytes, which exceeds the maximum configured value of {limit}");
    Err(Refused::new(KafkaError::MessageTooLarge, message))
}

fn check_codec(header: &BatchHeader, rules: &Rules) -> Result<Codec, Refused> {
    let codec = header.codec().map_err(|error| Refused::codec(&error))?;
    if codec == Codec::Zstd && !rules.zstd {
        let message = "Produce requests with version 3 to 6 are not allowed to use ZStandard compression";
        return Err(Refused::new(KafkaError::UnsupportedCompressionType, message));
    }
    Ok(codec)
}

fn check_header(header: &BatchHeader) -> Result<(), Refused> {
    let invalid = |message: String| Err(Refused::new(KafkaError::InvalidRecord, message));
    let (count, last) = (header.count, header.last_offset_delta);
    if last < 0 {
        return invalid(format!("Batch has an invalid last offset delta {last}"));
    }
    if count <= 0 {
        return invalid(format!("Invalid reported count for record batch: {count}"));
    }
    if i64::from(last) + 1 != i64::from(count) {
        return invalid(format!("Inconsistent last offset delta {last} and count of records {count}"));
    }
    if header.is_control() {
        return invalid("Clients are not allowed to write control records".to_owned());
    }
    check_producer(header)
}

fn check_producer(header: &BatchHeader) -> Result<(), Refused> {
    let (producer, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
    let refused = |error, message| Err(Refused::new(error, message));
    match (header.has_producer(), header.is_transactional()) {
        (false, false) => Ok(()),
        // Kafka gets here only through a request without a transactional id, which it refuses before.
        (false, true) => refused(KafkaError::InvalidRecord, "Transactional batch without a producerId".to_owned()),
        (true, _) if sequence.0 < 0 => {
            let message = format!("Invalid sequence number {sequence} in record batch with producerId {producer}");
            refused(KafkaError::InvalidRecord, message)
        }
        // Kafka lets -1 pass for a producer that the partition does not know; no client sends it.
        (true, _) if epoch.0 < 0 => {
            let message = format!("Invalid epoch {epoch} in record batch with producerId {producer}");
            refused(KafkaError::InvalidProducerEpoch, message)
        }
        (true, _) => Ok(()),
    }
}

/// What can be said of the times of a batch that is not looked into.
fn check_header_times(header: &BatchHeader, rules: &Rules) -> Result<(), Refused> {
    check_timestamp_type(header)?;
    let latest = header.max_timestamp;
    if rules.allows(latest) {
        return Ok(());
    }
    Err(Refused::new(KafkaError::InvalidTimestamp, rules.out_of_range(latest)))
}

/// Stricter than Kafka on CreateTime topics, where it ignores the bit unless a record has no timestamp.
fn check_timestamp_type(header: &BatchHeader) -> Result<(), Refused> {
    match header.timestamp_type() {
        TimestampType::CreateTime => Ok(()),
        TimestampType::LogAppendTime => Err(Refused::new(
            KafkaError::InvalidTimestamp,
            "Invalid timestamp type: producers should not set it to LogAppendTime",
        )),
    }
}

/// Checks every record and gives the largest timestamp, whatever the header says (Kafka repairs it too).
fn check_records(header: &BatchHeader, body: &[u8], rules: &Rules) -> Result<TimestampMs, Refused> {
    check_timestamp_type(header)?;
    let mut faults = Faults::default();
    let mut latest = TimestampMs(-1);
    for (record, index) in Records::new(body, header.records()).zip(0..) {
        let record = record.map_err(|error| Refused::walk(&error))?;
        if i64::from(record.offset_delta) != i64::from(index) {
            return Err(Refused::new(
                KafkaError::InvalidRecord,
                format!("Record {index} has offset delta {}", record.offset_delta),
            ));
        }
        let timestamp = record
            .timestamp(header.base_timestamp)
            .ok_or_else(|| Refused::walk(&WalkError::Timestamp { record: index }))?;
        latest = latest.max(timestamp);
        if rules.compacted && record.key.is_none() {
            faults.add(index, KafkaError::InvalidRecord, || {
                "Compacted topic cannot accept message without key".to_owned()
            });
        } else if !rules.allows(timestamp) {
            faults.add(index, KafkaError::InvalidTimestamp, || rules.out_of_range(timestamp));
        }
    }
    faults.into_result().map(|()| latest)
}

impl Rules {
    /// -1 is "no timestamp" and always allowed; under LogAppendTime the record's own does not matter.
    #[inline]
    fn allows(&self, timestamp: TimestampMs) -> bool {
        self.timestamp_type == TimestampType::LogAppendTime || timestamp.0 == -1 || {
            let age = self.now.0.checked_sub(timestamp.0);
            age.is_some_and(|age| age <= self.before_max_ms && age.saturating_neg() <= self.after_max_ms)
        }
    }

    fn out_of_range(&self, timestamp: TimestampMs) -> String {
        let earliest = self.now.0.saturating_sub(self.before_max_ms);
        let latest = self.now.0.saturating_add(self.after_max_ms);
        format!("Timestamp {timestamp} is out of range. The timestamp should be within [{earliest}, {latest}]")
    }
}

/// The records at fault, collected over one batch.
#[derive(Default)]
struct Faults {
    records: Vec<RecordError>,
    count: u32,
    timestamp: bool,
}

impl Faults {
    #[cold]
    fn add(&mut self, index: u32, error: KafkaError, message: impl FnOnce() -> String) {
        self.count += 1;
        self.timestamp |= error == KafkaError::InvalidTimestamp;
        if self.records.len() < RECORD_ERRORS_MAX {
            self.records.push(RecordError { index, message: message() });
        }
    }

    /// One bad timestamp makes it the whole batch's error, as in Kafka.
    fn into_result(self) -> Result<(), Refused> {
        let (error, message) = match self {
            Self { count: 0, .. } => return Ok(()),
            Self { timestamp: true, .. } => (
                KafkaError::InvalidTimestamp,
                "One or more records have been rejected due to invalid timestamp".to_owned(),
            ),
            Self { count, .. } => (
                KafkaError::InvalidRecord,
                format!("One or more records have been rejected due to {count} record errors"),
            ),
        };
        Err(Refused { error, message, records: self.records })
    }
}

impl Refused {
    fn new(error: KafkaError, message: impl Into<String>) -> Self {
        Self { error, message: message.into(), records: Vec::new() }
    }

    fn batch(error: &BatchError) -> Self {
        let code = match error {
            BatchError::Magic(0 | 1) | BatchError::Incomplete { .. } => KafkaError::InvalidRecord,
            BatchError::Magic(_) | BatchError::Length(_) => KafkaError::CorruptMessage,
        };
        Self::new(code, error.to_string())
    }

    /// Content that no reader could use, under a good CRC: sending it again does not help, so never CORRUPT_MESSAGE.
    fn codec(error: &CodecError) -> Self {
        let code = match error {
            CodecError::Unknown(_) => KafkaError::UnsupportedCompressionType,
            CodecError::TooLarge { .. } => KafkaError::MessageTooLarge,
            CodecError::Corrupt(_) => KafkaError::InvalidRecord,
            CodecError::Compress(_) => KafkaError::UnknownServerError,
        };
        Self::new(code, error.to_string())
    }

    fn walk(error: &WalkError) -> Self {
        match error {
            WalkError::Batch(error) => Self::batch(error),
            WalkError::Codec(error) => Self::codec(error),
            WalkError::Timestamp { .. } => Self::new(KafkaError::InvalidTimestamp, error.to_string()),
            WalkError::Truncated { .. }
            | WalkError::Malformed { .. }
            | WalkError::Size { .. }
            | WalkError::Rest { .. } => Self::new(KafkaError::InvalidRecord, error.to_string()),
        }
    }

    fn pack(error: RecompressError) -> Self {
        match error {
            RecompressError::Walk(error) => Self::walk(&error),
            RecompressError::Codec(error) => Self::codec(&error),
            RecompressError::TooLarge => Self::new(KafkaError::MessageTooLarge, error.to_string()),
        }
    }
}
