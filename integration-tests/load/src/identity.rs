//! What a checked record says of itself, so that a reader can tell a lost, repeated, moved or damaged one.

use anyhow::{Context, Result, ensure};
use bytes::BufMut;

use crate::frame::SplitMix;

const MAGIC: &[u8; 4] = b"SLV1";
/// Everything but the topic's name and the padding.
const FIXED_BYTES: usize = 4 + 8 + 4 + 4 + 8 + 2 + 4;

/// Who wrote a record, for which partition, and as the how-manieth of that producer in that partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub run: u64,
    pub producer: u32,
    pub topic: String,
    pub partition: i32,
    pub counter: u64,
}

impl Identity {
    /// A value of about `bytes` bytes, padded with what does not compress, with a CRC-32C of all of it at the end.
    pub fn encode(&self, bytes: usize) -> Vec<u8> {
        let mut value = Vec::with_capacity(bytes.max(FIXED_BYTES + self.topic.len()));
        value.put_slice(MAGIC);
        value.put_u64(self.run);
        value.put_u32(self.producer);
        value.put_i32(self.partition);
        value.put_u64(self.counter);
        value.put_u16(self.topic.len() as u16);
        value.put_slice(self.topic.as_bytes());
        let padding = bytes.saturating_sub(value.len() + 4);
        value.put_slice(&SplitMix(self.run ^ (u64::from(self.producer) << 48) ^ self.counter).bytes(padding));
        value.put_u32(crc32c::crc32c(&value));
        value
    }

    /// Reads a value back. Fails when a single bit of it differs from what was encoded.
    pub fn decode(value: &[u8]) -> Result<Self> {
        ensure!(value.len() >= FIXED_BYTES && value.starts_with(MAGIC), "not a record of verify-load");
        let (rest, checksum) = value.split_last_chunk::<4>().context("too short")?;
        ensure!(crc32c::crc32c(rest) == u32::from_be_bytes(*checksum), "its checksum is wrong");
        let number = |at: usize, bytes: usize| {
            rest[at..at + bytes].iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let topic_bytes = number(28, 2) as usize;
        let topic = rest.get(30..30 + topic_bytes).context("its topic is cut off")?;
        Ok(Self {
            run: number(4, 8),
            producer: number(12, 4) as u32,
            partition: (number(16, 4) as u32).cast_signed(),
            counter: number(20, 8),
            topic: String::from_utf8(topic.to_vec())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_found() {
        let identity =
            Identity { run: u64::MAX - 5, producer: 7, topic: "orders".to_owned(), partition: 12, counter: 1 << 40 };
        for bytes in [0, 100] {
            let value = identity.encode(bytes);
            assert_eq!(Identity::decode(&value).unwrap(), identity);
            for bit in 0..value.len() * 8 {
                let mut damaged = value.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(Identity::decode(&damaged).is_err(), "bit {bit}");
            }
        }
        assert_eq!(identity.encode(100).len(), 100);
    }
}
