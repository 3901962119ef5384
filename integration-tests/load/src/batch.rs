//! Record batches (magic 2, uncompressed): building them once, stamping a producer's sequence into them cheaply, and
//! walking those that a broker returns. Layout: Kafka's documentation, "Message format".

use anyhow::{Result, bail, ensure};
use bytes::BufMut;

/// Bytes of a batch before its first record.
pub const HEADER_BYTES: usize = 61;
const CRC_AT: usize = 17;
/// The CRC covers everything from the attributes to the end.
const CRC_FROM: usize = 21;
const SEQUENCE_AT: usize = 53;
const ATTRIBUTE_CODEC: i16 = 0x07;
const ATTRIBUTE_CONTROL: i16 = 0x20;

/// Who sends a batch: without one, the batch is not idempotent.
#[derive(Clone, Copy, Debug)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
}

/// A batch with one record per value, no keys and no headers, all with the same timestamp.
pub fn build<V: AsRef<[u8]>>(values: &[V], timestamp_ms: i64, producer: Option<Producer>, sequence: i32) -> Vec<u8> {
    let producer = producer.unwrap_or(Producer { id: -1, epoch: -1 });
    let mut batch = Vec::new();
    batch.put_i64(0); // base offset
    batch.put_i32(0); // length, below
    batch.put_i32(-1); // partition leader epoch
    batch.put_i8(2);
    batch.put_u32(0); // CRC, below
    batch.put_i16(0);
    let records = i32::try_from(values.len()).unwrap_or(i32::MAX);
    batch.put_i32(records - 1);
    batch.put_i64(timestamp_ms);
    batch.put_i64(timestamp_ms);
    batch.put_i64(producer.id);
    batch.put_i16(producer.epoch);
    batch.put_i32(if producer.id < 0 { -1 } else { sequence });
    batch.put_i32(records);
    for (delta, value) in (0i64..).zip(values) {
        put_record(&mut batch, delta, value.as_ref());
    }
    let length = i32::try_from(batch.len() - 12).unwrap_or(i32::MAX);
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn put_record(batch: &mut Vec<u8>, delta: i64, value: &[u8]) {
    let mut record = Vec::with_capacity(value.len() + 16);
    record.put_i8(0);
    put_varint(&mut record, 0); // timestamp delta
    put_varint(&mut record, delta);
    put_varint(&mut record, -1); // no key
    put_varint(&mut record, i64::try_from(value.len()).unwrap_or(i64::MAX));
    record.put_slice(value);
    put_varint(&mut record, 0); // no headers
    put_varint(batch, i64::try_from(record.len()).unwrap_or(i64::MAX));
    batch.put_slice(&record);
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Writes sequences into batches of one length without reading their records again. A CRC is linear: what changing bits
/// of a message does to it depends only on which bits, and on the length. So the effect of each bit of the sequence is
/// worked out once, and a stamp is an exclusive-or of at most 32 words.
pub struct SequenceStamp {
    batch_bytes: usize,
    effect: [u32; 32],
}

impl SequenceStamp {
    pub fn new(batch_bytes: usize) -> Self {
        let mut zeros = vec![0u8; batch_bytes - CRC_FROM];
        let blank = crc32c::crc32c(&zeros);
        let effect = std::array::from_fn(|bit| {
            let at = SEQUENCE_AT - CRC_FROM;
            zeros[at..at + 4].copy_from_slice(&(1u32 << bit).to_be_bytes());
            let crc = crc32c::crc32c(&zeros);
            zeros[at..at + 4].fill(0);
            crc ^ blank
        });
        Self { batch_bytes, effect }
    }

    /// Gives the batch another sequence, and the CRC that goes with it.
    pub fn stamp(&self, batch: &mut [u8], sequence: i32) {
        assert_eq!(batch.len(), self.batch_bytes, "a stamp is for batches of one length");
        let old = u32_at(batch, SEQUENCE_AT);
        let mut crc = u32_at(batch, CRC_AT);
        let mut changed = old ^ sequence.cast_unsigned();
        batch[SEQUENCE_AT..SEQUENCE_AT + 4].copy_from_slice(&sequence.to_be_bytes());
        while changed != 0 {
            crc ^= self.effect[changed.trailing_zeros() as usize];
            changed &= changed - 1;
        }
        batch[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    }
}

/// The sequence that follows `count` records after `sequence`: they wrap to 0 after the largest `i32`.
pub fn sequence_after(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_add(count) & i32::MAX
}

/// One batch of a fetch answer, its records not yet looked at.
pub struct BatchView<'a> {
    pub base_offset: i64,
    pub records: i32,
    pub last_offset: i64,
    pub control: bool,
    bytes: &'a [u8],
}

/// Splits the next batch off. Nothing is left, or only the cut-off part of a batch that Kafka may send at the end: `None`.
pub fn next_batch<'a>(rest: &mut &'a [u8]) -> Result<Option<BatchView<'a>>> {
    if rest.len() < HEADER_BYTES {
        return Ok(None);
    }
    let length = u32_at(rest, 8) as usize;
    ensure!(length >= HEADER_BYTES - 12, "a batch length of {length}");
    let Some((bytes, after)) = rest.split_at_checked(12 + length) else { return Ok(None) };
    ensure!(bytes[16] == 2, "a batch of magic {}", bytes[16]);
    *rest = after;
    let base_offset = i64_at(bytes, 0);
    Ok(Some(BatchView {
        base_offset,
        records: u32_at(bytes, 57).cast_signed(),
        last_offset: base_offset + i64::from(u32_at(bytes, 23)),
        control: attributes(bytes) & ATTRIBUTE_CONTROL != 0,
        bytes,
    }))
}

impl<'a> BatchView<'a> {
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Checks CRC, codec and offsets, and gives each record's value.
    pub fn values(&self) -> Result<Vec<&'a [u8]>> {
        let (stated, found) = (u32_at(self.bytes, CRC_AT), crc32c::crc32c(&self.bytes[CRC_FROM..]));
        ensure!(stated == found, "batch at {}: CRC {stated:08x} stated, {found:08x} found", self.base_offset);
        ensure!(attributes(self.bytes) & ATTRIBUTE_CODEC == 0, "batch at {}: compressed", self.base_offset);
        let mut rest = &self.bytes[HEADER_BYTES..];
        let mut values = Vec::new();
        for index in 0..i64::from(self.records) {
            let length = usize::try_from(take_varint(&mut rest)?)?;
            let mut record = take(&mut rest, length)?;
            take(&mut record, 1)?;
            take_varint(&mut record)?;
            let delta = take_varint(&mut record)?;
            ensure!(delta == index, "batch at {}: record {index} has offset delta {delta}", self.base_offset);
            let key_bytes = take_varint(&mut record)?;
            take(&mut record, usize::try_from(key_bytes.max(0))?)?;
            let value_bytes = take_varint(&mut record)?;
            values.push(take(&mut record, usize::try_from(value_bytes.max(0))?)?);
        }
        ensure!(rest.is_empty(), "batch at {}: {} bytes after its last record", self.base_offset, rest.len());
        Ok(values)
    }
}

fn attributes(batch: &[u8]) -> i16 {
    i16::from_be_bytes([batch[21], batch[22]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    (i64::from(u32_at(bytes, at)) << 32) | i64::from(u32_at(bytes, at + 4))
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8]> {
    let Some((taken, after)) = rest.split_at_checked(count) else {
        bail!("a record that wants {count} bytes where {} are left", rest.len())
    };
    *rest = after;
    Ok(taken)
}

fn take_varint(rest: &mut &[u8]) -> Result<i64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    bail!("a varint of more than 10 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRODUCER: Option<Producer> = Some(Producer { id: 77, epoch: 3 });

    #[test]
    fn a_stamped_batch_equals_one_built_with_that_sequence() {
        let values = [b"one".as_slice(), b"two", b""];
        let mut batch = build(&values, 1_700_000_000_000, PRODUCER, 0);
        let stamp = SequenceStamp::new(batch.len());
        for sequence in [1, 3, 1_000_000, i32::MAX, 0, 12] {
            stamp.stamp(&mut batch, sequence);
            assert_eq!(batch, build(&values, 1_700_000_000_000, PRODUCER, sequence));
        }
    }

    #[test]
    fn what_was_built_is_read_back() {
        let values = [vec![7u8; 300], Vec::new(), b"x".to_vec()];
        let mut bytes = build(&values, 0, PRODUCER, 5);
        bytes.extend_from_slice(&build(&values[..1], 0, None, 0)[..70]);
        let mut rest = bytes.as_slice();
        let view = next_batch(&mut rest).unwrap().unwrap();
        assert_eq!((view.records, view.last_offset, view.control), (3, 2, false));
        assert_eq!(view.values().unwrap(), values);
        assert!(next_batch(&mut rest).unwrap().is_none(), "a batch that was cut off is not read");
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let mut bytes = build(&[b"value"], 0, None, 0);
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        assert!(next_batch(&mut bytes.as_slice()).unwrap().unwrap().values().is_err());
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_after(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 5), 3);
    }
}
