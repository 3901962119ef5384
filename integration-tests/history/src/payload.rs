//! The values that test clients write. A value says who wrote it and where to, and carries a checksum, so that a reader
//! can tell a record that was damaged, sent elsewhere or never sent. It is plain text, which clients in any language can
//! make: `run|process|counter|topic|partition|timestamp_ms|padding|crc`, the CRC-32 (ISO-HDLC, as in zlib) of all that
//! stands before the last bar, in eight hexadecimal digits. The padding of a value that was made from another one begins
//! with `of=process/counter;`, before which `gone;` stands where the record itself has no value and takes its key back: such a
//! value is in a header.
use serde::{Deserialize, Serialize};

/// One value of one run; (process, counter) is written once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Value {
    /// The run, so that what an earlier one left is recognised.
    pub run: u64,
    /// The logical client that wrote it.
    pub process: u32,
    /// Rises with each value of the process.
    pub counter: u64,
    pub topic: String,
    pub partition: i32,
    /// The record's timestamp, in ms since 1970.
    pub timestamp_ms: i64,
    /// The process and counter of the value that it was made from.
    #[serde(default)]
    pub source: Option<(u32, u64)>,
    /// Its record has no value (a tombstone).
    #[serde(default)]
    pub deletes: bool,
}

/// What the padding of a value begins with whose record has none.
const DELETES: &str = "gone;";

impl Value {
    /// The record's value, at least `bytes_min` long.
    #[must_use]
    pub fn encode(&self, bytes_min: usize) -> Vec<u8> {
        let Self { run, process, counter, topic, partition, timestamp_ms, source, deletes } = self;
        let mut text = format!("{run}|{process}|{counter}|{topic}|{partition}|{timestamp_ms}|");
        if *deletes {
            text.push_str(DELETES);
        }
        if let Some((process, counter)) = source {
            text.push_str(&format!("of={process}/{counter};"));
        }
        let padding = bytes_min.saturating_sub(text.len() + 9);
        text.extend(std::iter::repeat_n('x', padding));
        let crc = crc32fast::hash(text.as_bytes());
        text.push_str(&format!("|{crc:08x}"));
        text.into_bytes()
    }

    /// The value that `bytes` were made of; `None` if they are not as they were made.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (text, crc) = std::str::from_utf8(bytes).ok()?.rsplit_once('|')?;
        if crc != format!("{:08x}", crc32fast::hash(text.as_bytes())) {
            return None;
        }
        let mut fields = text.splitn(7, '|');
        let value = Self {
            run: fields.next()?.parse().ok()?,
            process: fields.next()?.parse().ok()?,
            counter: fields.next()?.parse().ok()?,
            topic: fields.next()?.to_owned(),
            partition: fields.next()?.parse().ok()?,
            timestamp_ms: fields.next()?.parse().ok()?,
            source: None,
            deletes: false,
        };
        let padding = fields.next()?;
        let (value, padding) = match padding.strip_prefix(DELETES) {
            Some(rest) => (Self { deletes: true, ..value }, rest),
            None => (value, padding),
        };
        let Some((source, _)) = padding.strip_prefix("of=").and_then(|rest| rest.split_once(';')) else {
            return Some(value);
        };
        let (process, counter) = source.split_once('/')?;
        Some(Self { source: Some((process.parse().ok()?, counter.parse().ok()?)), ..value })
    }

    /// The record's key: clients write it and readers compare it.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}-{}", self.process, self.counter % 7)
    }

    /// The value of the record's one header, named `counter`.
    #[must_use]
    pub fn header(&self) -> String {
        self.counter.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_it_was_made_and_every_flipped_bit_is_seen() {
        let topic = "a.b-c".to_owned();
        let value = Value {
            run: 1,
            process: 2,
            counter: 3,
            topic,
            partition: 4,
            timestamp_ms: 5,
            source: None,
            deletes: false,
        };
        let made = Value { source: Some((6, 7)), ..value.clone() };
        let gone = Value { deletes: true, ..made.clone() };
        for (bytes_min, value) in [(0, &value), (60, &made), (0, &gone), (1000, &value)] {
            let bytes = value.encode(bytes_min);
            assert!(bytes.len() >= bytes_min);
            assert_eq!(Value::decode(&bytes).as_ref(), Some(value));
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(Value::decode(&damaged).as_ref(), Some(value));
            }
        }
    }
}
