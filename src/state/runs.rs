//! The packed list of runs in a `CommitRuns` command: what lies where in one object, and per batch what `apply` needs
//! to give offsets and to recognise duplicates (H6). About 10 bytes a run without a producer, 20 with one.
//!
//! Per run, as LEB128 (zigzag where signed): slot minus the last run's slot (signed); batches << 1 | has position;
//! position in the object, if it is not where the last run ended; largest timestamp minus the command's base (signed);
//! then per batch: bytes; records << 2 | what it has of a producer: 0 nothing, 1 a producer, 3 one in a transaction that the
//! partition was added to, 2 one in a transaction that the partition joins with it (from level 4 on); and with a producer its
//! id minus the last one (signed), epoch (signed), first sequence (signed).
use super::varint;
use crate::records::BatchHeader;
use crate::types::{ProducerEpoch, ProducerId, Sequence, Slot, TimestampMs};

/// Who produced a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerSpec {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    pub first_sequence: Sequence,
    pub transactional: bool,
    /// The partition joins the transaction with the batch, which begins if it is not open (version 2 of transactions,
    /// KIP-890). Else it was added before. Only transactional batches join.
    pub joins: bool,
}

/// One record batch of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSpec {
    /// Size in the object, in bytes, header included.
    pub bytes: u32,
    /// Offsets that it takes: last offset delta + 1.
    pub records: u32,
    pub producer: Option<ProducerSpec>,
}

impl BatchSpec {
    /// What the header of a batch of `bytes` says.
    #[must_use]
    pub fn of(header: &BatchHeader, bytes: u32) -> Self {
        let producer = header.has_producer().then(|| ProducerSpec {
            id: header.producer_id,
            epoch: header.producer_epoch,
            first_sequence: header.base_sequence,
            transactional: header.is_transactional(),
            joins: false,
        });
        Self { bytes, records: header.records(), producer }
    }
}

/// Consecutive batches of one partition inside one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSpec {
    pub slot: Slot,
    /// Where the run's first byte lies in the object.
    pub position: u32,
    /// The largest timestamp of its records.
    pub max_timestamp: TimestampMs,
    pub batches: Vec<BatchSpec>,
}

/// Writes runs in the order in which they are to be committed.
#[derive(Default)]
pub struct RunsWriter {
    out: Vec<u8>,
    base_timestamp: Option<i64>,
    last_slot: u32,
    last_producer: i64,
    end: u32,
}

impl RunsWriter {
    /// Adds a run. The base timestamp of the command is the first run's.
    pub fn push(&mut self, run: &RunSpec) {
        let base = *self.base_timestamp.get_or_insert(run.max_timestamp.0);
        varint::put_signed(&mut self.out, i64::from(run.slot.0) - i64::from(self.last_slot));
        let moved = run.position != self.end;
        varint::put(&mut self.out, (run.batches.len() as u64) << 1 | u64::from(moved));
        if moved {
            varint::put(&mut self.out, u64::from(run.position));
        }
        varint::put_signed(&mut self.out, run.max_timestamp.0.wrapping_sub(base));
        self.last_slot = run.slot.0;
        self.end = run.position;
        for batch in &run.batches {
            self.push_batch(batch);
            self.end = self.end.saturating_add(batch.bytes);
        }
    }

    fn push_batch(&mut self, batch: &BatchSpec) {
        varint::put(&mut self.out, u64::from(batch.bytes));
        let kind = match batch.producer {
            None => 0,
            Some(ProducerSpec { transactional: false, .. }) => 1,
            Some(ProducerSpec { joins: true, .. }) => 2,
            Some(_) => 3,
        };
        varint::put(&mut self.out, u64::from(batch.records) << 2 | kind);
        if let Some(producer) = batch.producer {
            varint::put_signed(&mut self.out, producer.id.0.wrapping_sub(self.last_producer));
            varint::put_signed(&mut self.out, i64::from(producer.epoch.0));
            varint::put_signed(&mut self.out, i64::from(producer.first_sequence.0));
            self.last_producer = producer.id.0;
        }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether no run was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// The base timestamp and the packed runs.
    #[must_use]
    pub fn finish(self) -> (i64, Vec<u8>) {
        (self.base_timestamp.unwrap_or(0), self.out)
    }
}

/// Reads packed runs one by one, into a buffer of the caller's.
pub struct RunsReader<'a> {
    input: &'a [u8],
    base_timestamp: i64,
    last_slot: u32,
    last_producer: i64,
    end: u32,
}

impl<'a> RunsReader<'a> {
    /// Reads what [`RunsWriter::finish`] gave.
    #[must_use]
    pub fn new(base_timestamp: i64, input: &'a [u8]) -> Self {
        Self { input, base_timestamp, last_slot: 0, last_producer: 0, end: 0 }
    }

    /// The next run into `run`; false at the end.
    ///
    /// # Errors
    /// `Malformed` where the bytes are not what a writer writes.
    pub fn next_into(&mut self, run: &mut RunSpec) -> Result<bool, Malformed> {
        if self.input.is_empty() {
            return Ok(false);
        }
        self.read(run).ok_or(Malformed).map(|()| true)
    }

    fn read(&mut self, run: &mut RunSpec) -> Option<()> {
        let slot = i64::from(self.last_slot).checked_add(varint::take_signed(&mut self.input)?)?;
        let head = varint::take(&mut self.input)?;
        let count = usize::try_from(head >> 1).ok()?;
        // A batch takes two bytes at least, so a count beyond that is a lie that must not reserve memory.
        if count == 0 || count > self.input.len() / 2 {
            return None;
        }
        run.slot = Slot(u32::try_from(slot).ok()?);
        run.position = if head & 1 == 1 { varint::take_u32(&mut self.input)? } else { self.end };
        run.max_timestamp = TimestampMs(self.base_timestamp.wrapping_add(varint::take_signed(&mut self.input)?));
        run.batches.clear();
        self.end = run.position;
        for _ in 0..count {
            let batch = self.read_batch()?;
            self.end = self.end.checked_add(batch.bytes)?;
            run.batches.push(batch);
        }
        self.last_slot = run.slot.0;
        Some(())
    }

    fn read_batch(&mut self) -> Option<BatchSpec> {
        let bytes = varint::take_u32(&mut self.input)?;
        let head = varint::take(&mut self.input)?;
        let records = u32::try_from(head >> 2).ok().filter(|&n| n > 0)?;
        let producer = if head & 3 != 0 {
            let id = self.last_producer.wrapping_add(varint::take_signed(&mut self.input)?);
            self.last_producer = id;
            Some(ProducerSpec {
                id: ProducerId(id),
                epoch: ProducerEpoch(i16::try_from(varint::take_signed(&mut self.input)?).ok()?),
                first_sequence: Sequence(i32::try_from(varint::take_signed(&mut self.input)?).ok()?),
                transactional: head & 2 == 2,
                joins: head & 3 == 2,
            })
        } else {
            None
        };
        Some(BatchSpec { bytes, records, producer })
    }
}

impl RunSpec {
    /// An empty run, to be filled by [`RunsReader::next_into`].
    #[must_use]
    pub fn empty() -> Self {
        Self { slot: Slot(0), position: 0, max_timestamp: TimestampMs(0), batches: Vec::new() }
    }
}

/// The packed runs are not what a writer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed runs")]
pub struct Malformed;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn producers() -> impl Strategy<Value = Option<ProducerSpec>> {
        proptest::option::of((any::<i64>(), any::<i16>(), any::<i32>(), 0..3).prop_map(|(id, epoch, seq, kind)| {
            ProducerSpec {
                id: ProducerId(id),
                epoch: ProducerEpoch(epoch),
                first_sequence: Sequence(seq),
                transactional: kind > 0,
                joins: kind > 1,
            }
        }))
    }

    fn runs() -> impl Strategy<Value = Vec<RunSpec>> {
        let batch = (1..1_000_000_u32, 1..u32::MAX, producers()).prop_map(|(bytes, records, producer)| BatchSpec {
            bytes,
            records,
            producer,
        });
        let run = (any::<u32>(), 0..1_u32 << 30, any::<i64>(), proptest::collection::vec(batch, 1..4)).prop_map(
            |(slot, position, ts, batches)| RunSpec {
                slot: Slot(slot),
                position,
                max_timestamp: TimestampMs(ts),
                batches,
            },
        );
        proptest::collection::vec(run, 0..8)
    }

    proptest! {
        #[test]
        fn runs_come_back_as_they_were_written(runs in runs()) {
            let mut writer = RunsWriter::default();
            runs.iter().for_each(|r| writer.push(r));
            let (base, bytes) = writer.finish();
            let mut reader = RunsReader::new(base, &bytes);
            let mut run = RunSpec::empty();
            for expected in &runs {
                prop_assert!(reader.next_into(&mut run).unwrap());
                prop_assert_eq!(&run, expected);
            }
            prop_assert!(!reader.next_into(&mut run).unwrap());
        }

        #[test]
        fn random_bytes_never_panic(base: i64, bytes: Vec<u8>) {
            let mut reader = RunsReader::new(base, &bytes);
            let mut run = RunSpec::empty();
            while let Ok(true) = reader.next_into(&mut run) {}
        }
    }

    #[test]
    fn a_common_run_takes_at_most_24_bytes() {
        let mut writer = RunsWriter::default();
        for i in 0..1000_u32 {
            let producer = ProducerSpec {
                id: ProducerId(1000 + i64::from(i % 7)),
                epoch: ProducerEpoch(0),
                first_sequence: Sequence(1_000_000 + i as i32),
                transactional: false,
                joins: false,
            };
            let batches = vec![BatchSpec { bytes: 16_384, records: 120, producer: Some(producer) }];
            let max_timestamp = TimestampMs(1_700_000_000_000 + i64::from(i % 300));
            writer.push(&RunSpec { slot: Slot(i * 9), position: 64 + i * 16_384, max_timestamp, batches });
        }
        let (_, bytes) = writer.finish();
        assert!(bytes.len() <= 24 * 1000, "{} bytes a run", bytes.len() / 1000);
    }
}
