//! The control batches that end transactions, as every broker makes them from the same words (KIP-98). No object holds
//! one.
use bytes::Bytes;

use super::build::{BatchBuilder, NewRecord};
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

/// Bytes of such a batch: a header and one record of 17 bytes.
pub const MARKER_BYTES: u32 = 78;

/// What a control batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndMarker {
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
    pub producer: ProducerId,
    pub epoch: ProducerEpoch,
    pub committed: bool,
    /// When the transaction ended.
    pub ended: TimestampMs,
}

impl EndMarker {
    /// The batch: key and value of Kafka's `ControlRecordType` and `EndTxnMarker`, version 0. A coordinator's epoch means
    /// nothing here, since there is no log of the coordinator's; it is 0.
    #[must_use]
    pub fn batch(&self) -> Bytes {
        let key = [0, 0, 0, u8::from(self.committed)];
        let record = NewRecord { timestamp: self.ended, key: Some(&key), value: Some(&[0; 6]), headers: &[] };
        let batch = BatchBuilder::new()
            .base_offset(self.offset)
            .leader_epoch(self.leader_epoch)
            .producer(self.producer, self.epoch, Sequence(-1))
            .transactional()
            .control()
            .with(&record);
        batch.build().expect("a batch of one small record is neither too large nor compressed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{BatchHeader, walk};

    #[test]
    fn a_marker_is_as_long_as_it_says_and_reads_as_kafka_writes_it() {
        for committed in [false, true] {
            let marker = EndMarker {
                offset: Offset(i64::MAX - 1),
                leader_epoch: LeaderEpoch(3),
                producer: ProducerId(i64::MAX),
                epoch: ProducerEpoch(i16::MAX),
                committed,
                ended: TimestampMs(1_700_000_000_000),
            };
            let bytes = marker.batch();
            assert_eq!(bytes.len(), MARKER_BYTES as usize);
            let header = BatchHeader::parse(&bytes).unwrap();
            assert!(header.is_transactional() && header.is_control());
            assert_eq!((header.base_offset, header.producer_id, header.records()), (marker.offset, marker.producer, 1));
            let mut seen = Vec::new();
            walk(&bytes, 0, |r| seen.push((r.key.map(<[u8]>::to_vec), r.value.map(<[u8]>::to_vec)))).unwrap();
            assert_eq!(seen, [(Some(vec![0, 0, 0, u8::from(committed)]), Some(vec![0; 6]))]);
        }
    }
}
