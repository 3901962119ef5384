//! Batches: made of values, and read back with everything checked that a record says about itself. What aborted
//! transactions wrote is left out for readers of committed records, as Java's consumer does it.
use bytes::Bytes;
use kafka_protocol::messages::fetch_response::PartitionData;
use std::collections::BTreeSet;
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
    build(BatchBuilder::new(), values, form, numbered)
}

/// The same, as part of a transaction.
pub(super) fn make_transactional(values: &[Value], form: Form, numbered: Numbered) -> Bytes {
    build(BatchBuilder::new().transactional(), values, form, Some(numbered))
}

/// The header in which the value of a tombstone is.
const GONE: &[u8] = b"gone";

fn build(builder: BatchBuilder, values: &[Value], form: Form, numbered: Option<Numbered>) -> Bytes {
    let mut builder = builder.codec(form.codec, Level::Default);
    if let Some((id, epoch, sequence)) = numbered {
        builder = builder.producer(ProducerId(id), ProducerEpoch(epoch), Sequence(sequence));
    }
    for value in values {
        let (key, header, bytes) = (value.key(), value.header(), value.encode(form.bytes_min));
        let headers: [(&[u8], Option<&[u8]>); 2] = [(b"counter", Some(header.as_bytes())), (GONE, Some(&bytes))];
        builder.push(&NewRecord {
            timestamp: TimestampMs(value.timestamp_ms),
            key: Some(key.as_bytes()),
            value: (!value.deletes).then_some(&bytes),
            headers: if value.deletes { &headers } else { &headers[..1] },
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

/// Transactions that were aborted, as a fetch for committed records lists them: their producers and first offsets.
pub(super) struct Aborts {
    listed: Vec<(i64, i64)>,
    /// Producers whose records are left out, up to their next marker.
    now: BTreeSet<i64>,
}

impl Aborts {
    /// Of one answer.
    pub(super) fn of(data: &PartitionData) -> Self {
        let listed = data.aborted_transactions.iter().flatten();
        let mut listed: Vec<(i64, i64)> = listed.map(|a| (a.first_offset, a.producer_id.0)).collect();
        listed.sort_unstable_by(|one, other| other.cmp(one));
        Self { listed, now: BTreeSet::new() }
    }

    /// Whether the batch, the next one of the answer, is to be left out.
    fn leave_out(&mut self, header: &BatchHeader, batch: &[u8]) -> bool {
        while let Some((_, producer)) = self.listed.pop_if(|(first, _)| *first <= header.last_offset().0) {
            self.now.insert(producer);
        }
        if header.is_control() {
            let mut aborts = false;
            let read = walk(batch, INFLATED_MAX, |record| aborts |= record.key == Some(&ABORT));
            if aborts || read.is_err() {
                self.now.remove(&header.producer_id.0);
            }
            return false;
        }
        header.is_transactional() && self.now.contains(&header.producer_id.0)
    }
}

/// The key of the marker that ends an aborted transaction: its version and its type.
const ABORT: [u8; 4] = [0, 0, 0, 0];

/// Reads what a fetch at `from` brought. A batch that is cut off at the end is left, as clients do.
pub(super) fn read(records: &Bytes, log: &Log, run: u64, from: i64, mut aborts: Option<Aborts>) -> Got {
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
        if aborts.as_mut().is_some_and(|aborts| aborts.leave_out(&header, &batch)) || header.is_control() {
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
    let headers: Vec<_> = record.headers().map(|header| (header.key, header.value)).collect();
    let (bytes, headers) = match (record.value, headers.split_last()) {
        (Some(bytes), _) => (bytes, &headers[..]),
        (None, Some(((GONE, Some(bytes)), others))) => (*bytes, others),
        (None, _) => return Err("there is no value".to_owned()),
    };
    let value = Value::decode(bytes).ok_or_else(|| {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        format!("no value that a client wrote: {start}")
    })?;
    let header = value.header();
    if value.deletes == record.value.is_some() {
        Err(format!("{} has {} value", value.header(), if value.deletes { "a" } else { "no" }))
    } else if value.run != run {
        Err(format!("a value of run {}", value.run))
    } else if (&value.topic, value.partition) != (&log.topic, log.partition) {
        Err(format!("written to {}-{}", value.topic, value.partition))
    } else if record.key != Some(value.key().as_bytes()) {
        Err(format!("the key of {} is {:?}", value.header(), record.key))
    } else if headers != &[(&b"counter"[..], Some(header.as_bytes()))][..] {
        Err(format!("the headers of {header} are {headers:?}"))
    } else if timestamp_ms.is_some_and(|ms| ms != value.timestamp_ms) {
        Err(format!("the time of {header} is {timestamp_ms:?} instead of {}", value.timestamp_ms))
    } else {
        Ok(value)
    }
}
