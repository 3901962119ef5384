//! Whole Produce frames, built once and sent many times: only the correlation id and the sequences change between two
//! sends, so the generator's work per byte is the kernel's copy into the socket.

use std::ops::Range;

use bytes::BufMut;
use kafka_protocol::messages::ProduceRequest;

use crate::batch::{self, SequenceStamp};
use crate::wire::CLIENT_ID;

/// The first flexible version; it names topics, which every broker of today understands.
pub const VERSION: i16 = 9;
const API_KEY: i16 = 0;
const CORRELATION_AT: usize = 8;

/// Names the answer's type to the message crate.
pub type Request = ProduceRequest;

/// A batch and the partition it goes to.
pub struct Part<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub batch: &'a [u8],
}

/// A frame, and where its batches lie in it.
pub struct ProduceFrame {
    bytes: Vec<u8>,
    batches: Vec<Range<usize>>,
}

impl ProduceFrame {
    /// Builds the frame. `acks` is 1 or -1 (all).
    pub fn build(acks: i16, timeout_ms: i32, parts: &[Part<'_>]) -> Self {
        let mut bytes = Vec::new();
        let mut batches = Vec::new();
        bytes.put_i32(0); // length, below
        bytes.put_i16(API_KEY);
        bytes.put_i16(VERSION);
        bytes.put_i32(0); // correlation id
        bytes.put_u16(CLIENT_ID.len() as u16);
        bytes.put_slice(CLIENT_ID.as_bytes());
        bytes.put_u8(0); // header tags
        bytes.put_u8(0); // no transactional id
        bytes.put_i16(acks);
        bytes.put_i32(timeout_ms);
        let topics: Vec<_> = parts.chunk_by(|a, b| a.topic == b.topic).collect();
        put_count(&mut bytes, topics.len());
        for topic in topics {
            put_count(&mut bytes, topic[0].topic.len());
            bytes.put_slice(topic[0].topic.as_bytes());
            put_count(&mut bytes, topic.len());
            for part in topic {
                bytes.put_i32(part.partition);
                put_count(&mut bytes, part.batch.len());
                batches.push(bytes.len()..bytes.len() + part.batch.len());
                bytes.put_slice(part.batch);
                bytes.put_u8(0);
            }
            bytes.put_u8(0);
        }
        bytes.put_u8(0);
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        Self { bytes, batches }
    }

    pub fn set_correlation(&mut self, correlation: i32) {
        self.bytes[CORRELATION_AT..CORRELATION_AT + 4].copy_from_slice(&correlation.to_be_bytes());
    }

    /// Gives the batch of part `index` another sequence.
    pub fn set_sequence(&mut self, index: usize, stamp: &SequenceStamp, sequence: i32) {
        stamp.stamp(&mut self.bytes[self.batches[index].clone()], sequence);
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of record batches in it.
    pub fn batch_bytes(&self) -> u64 {
        self.batches.iter().map(|batch| batch.len() as u64).sum()
    }

    pub fn parts(&self) -> usize {
        self.batches.len()
    }
}

/// A compact array's or string's length: one more, as an unsigned varint.
fn put_count(bytes: &mut Vec<u8>, count: usize) {
    let mut rest = count + 1;
    while rest >= 0x80 {
        bytes.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

/// Values that do not compress, the same for the same seed.
pub fn payloads(seed: u64, count: usize, bytes_each: usize) -> Vec<Vec<u8>> {
    let mut random = SplitMix(seed);
    (0..count).map(|_| random.bytes(bytes_each)).collect()
}

/// A small seeded generator (SplitMix64, public domain by Sebastiano Vigna), enough to fill records.
pub struct SplitMix(pub u64);

impl SplitMix {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.put_u64(self.next());
        }
        bytes.truncate(count);
        bytes
    }
}

/// A batch of random values, for producers that measure.
pub fn random_batch(
    seed: u64,
    records: usize,
    record_bytes: usize,
    now_ms: i64,
    producer: Option<batch::Producer>,
) -> Vec<u8> {
    batch::build(&payloads(seed, records, record_bytes), now_ms, producer, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::decode_response;
    use bytes::{Buf, Bytes};
    use kafka_protocol::messages::RequestHeader;
    use kafka_protocol::protocol::Decodable;

    #[test]
    fn the_message_crate_reads_what_we_frame_by_hand() {
        let batch = batch::build(&[vec![1u8; 200]], 0, None, 0);
        let part = |topic, partition| Part { topic, partition, batch: &batch };
        let mut frame = ProduceFrame::build(-1, 30_000, &[part("a", 0), part("a", 7), part("b", 1)]);
        frame.set_correlation(99);
        assert_eq!((frame.parts(), frame.batch_bytes()), (3, 3 * batch.len() as u64));
        let mut bytes = Bytes::copy_from_slice(frame.bytes());
        assert_eq!(bytes.get_i32() as usize, bytes.len());
        let header = RequestHeader::decode(&mut bytes, 2).unwrap();
        assert_eq!((header.request_api_key, header.request_api_version, header.correlation_id), (0, VERSION, 99));
        let request = ProduceRequest::decode(&mut bytes, VERSION).unwrap();
        assert!(bytes.is_empty());
        assert_eq!((request.acks, request.timeout_ms, request.topic_data.len()), (-1, 30_000, 2));
        let first = &request.topic_data[0];
        assert_eq!((first.name.as_str(), first.partition_data[1].index), ("a", 7));
        assert_eq!(first.partition_data[1].records.as_deref(), Some(batch.as_slice()));
        assert!(decode_response::<ProduceRequest>(Bytes::new(), VERSION).is_err());
    }
}
