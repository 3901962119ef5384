//! Batches: made of values, and read back with everything checked that a record says about itself.
use bytes::Bytes;
use strandline::records::{BatchBuilder, BatchError, BatchHeader, Codec, Level, NewRecord, TimestampType, walk};
use strandline::types::{ProducerEpoch, ProducerId, Sequence, TimestampMs};
use strandline_history::{Broken, Log, Seen, Value};

/// A producer's id, its epoch, and the first sequence number of a batch.
pub(super) type Numbered = (i64, i16, i32);

/// Values of this size at least.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) codec: Codec,
    pub(super) bytes_min: usize,
}

pub(super) fn make(values: &[Value], form: Form, numbered: Option<Numbered>) -> Bytes {
    let mut builder = BatchBuilder::new().codec(form.codec, Level::Default);
    if let Some((id, epoch, sequence)) = numbered {
        builder = builder.producer(ProducerId(id), ProducerEpoch(epoch), Sequence(sequence));
    }
    for value in values {
        let (key, header, bytes) = (value.key(), value.header(), value.encode(form.bytes_min));
        builder.push(&NewRecord {
            timestamp: TimestampMs(value.timestamp_ms),
            key: Some(key.as_bytes()),
            value: Some(&bytes),
            headers: &[(b"counter", Some(header.as_bytes()))],
        });
    }
    builder.build().expect("it is small")
}

/// What a reader got.
#[derive(Default)]
pub(super) struct Got {
    pub(super) records: Vec<Seen>,
    /// Where to go on; `None` if nothing whole came.
    pub(super) next: Option<i64>,
}

/// Bytes that a batch may have when it is decompressed.
const INFLATED_MAX: usize = 16 << 20;
/// Where the bytes begin that a batch's checksum covers.
const CRC_START: usize = 21;

/// Reads what a fetch at `from` brought. A batch that is cut off at the end is left, as clients do.
pub(super) fn read(records: &Bytes, log: &Log, run: u64, from: i64) -> Got {
    let (mut got, mut rest) = (Got::default(), records.clone());
    while !rest.is_empty() {
        let header = match BatchHeader::parse(&rest) {
            Ok(header) if header.total_bytes() <= rest.len() => header,
            Ok(_) | Err(BatchError::Incomplete { .. }) => return got,
            Err(e) => {
                got.broken(from, &e.to_string());
                return got;
            }
        };
        let batch = rest.split_to(header.total_bytes());
        got.next = Some(header.last_offset().0.saturating_add(1));
        if crc32c::crc32c(&batch[CRC_START..]) != header.crc {
            got.broken(header.base_offset.0, "the batch's checksum is wrong");
            continue;
        }
        if header.is_control() {
            continue;
        }
        let walked = walk(&batch, INFLATED_MAX, |record| {
            let offset = header.base_offset.0.saturating_add(i64::from(record.offset_delta));
            if offset < from {
                return;
            }
            let own = record.timestamp(header.base_timestamp).map_or(-1, |t| t.0);
            let stamped = header.timestamp_type() == TimestampType::LogAppendTime;
            let timestamp_ms = if stamped { header.max_timestamp.0 } else { own };
            let value = check(&record, log, run, (!stamped).then_some(own)).map_err(Broken);
            got.records.push(Seen { offset, timestamp_ms, leader_epoch: Some(header.leader_epoch.0), value });
        });
        if let Err(e) = walked {
            got.broken(header.base_offset.0, &e.to_string());
        }
    }
    got
}

impl Got {
    fn broken(&mut self, offset: i64, what: &str) {
        self.records.push(Seen { offset, timestamp_ms: -1, leader_epoch: None, value: Err(Broken(what.to_owned())) });
    }
}

fn check(
    record: &strandline::records::RecordView<'_>,
    log: &Log,
    run: u64,
    timestamp_ms: Option<i64>,
) -> Result<Value, String> {
    let bytes = record.value.ok_or("there is no value")?;
    let value = Value::decode(bytes).ok_or_else(|| {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        format!("no value that a client wrote: {start}")
    })?;
    let headers: Vec<_> = record.headers().map(|header| (header.key, header.value)).collect();
    let header = value.header();
    if value.run != run {
        Err(format!("a value of run {}", value.run))
    } else if (&value.topic, value.partition) != (&log.topic, log.partition) {
        Err(format!("written to {}-{}", value.topic, value.partition))
    } else if record.key != Some(value.key().as_bytes()) {
        Err(format!("the key of {} is {:?}", value.header(), record.key))
    } else if headers != [(&b"counter"[..], Some(header.as_bytes()))] {
        Err(format!("the headers of {header} are {headers:?}"))
    } else if timestamp_ms.is_some_and(|ms| ms != value.timestamp_ms) {
        Err(format!("the time of {header} is {timestamp_ms:?} instead of {}", value.timestamp_ms))
    } else {
        Ok(value)
    }
}
